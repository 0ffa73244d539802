/* Listens to NVTX: the headers load the library named by NVTX_INJECTION64_PATH and hand it their function tables.
 * Appends one line for every domain created, mark and range to the file named by NVTX_LISTENER_FILE:
 *
 *     process TAB thread TAB what TAB domain TAB name NEWLINE      what: domain, mark, push, pop, start, end
 *
 * Each line is one write to a file opened for appending, so threads, and processes that inherit the environment, do not
 * tear each other's lines. Bytes of names that are no printable ASCII, and backslashes, are written as \xNN.
 * Numbers of tables and entries: NvtxCallbackIdCore2 and NvtxExportTableID of nvtxTypes.h, NVTX 3. */

#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <wchar.h>

typedef struct { size_t size; int (*get)(uint32_t, void ****, unsigned int *); } export_module;
typedef const void *(*get_export_table)(uint32_t);

/* nvtxEventAttributes_t: the message is its last member. */
typedef struct {
    uint16_t version, size;
    uint32_t category;
    int32_t color_type;
    uint32_t color;
    int32_t payload_type, reserved;
    uint64_t payload;
    int32_t message_type; /* 1 ASCII, 2 UNICODE, 3 REGISTERED */
    union { const char *ascii; const wchar_t *unicode; const char **registered; } message;
} attributes;

static int out = -1;
static __thread int depth;
static uint64_t ranges;

static char *escaped(char *at, const char *end, const char *text) {
    for (; *text != '\0'; text++) {
        unsigned char byte = (unsigned char)*text;
        if (end - at < 8) abort(); /* a cut name could be taken for another */
        at += byte < 0x20 || byte > 0x7e || byte == '\\' ? sprintf(at, "\\x%02x", byte) : sprintf(at, "%c", byte);
    }
    return at;
}

static void tell(const char *what, const char *domain, const char *name) {
    char line[1 << 14], *at = line, *end = line + sizeof line;
    at += sprintf(at, "%ld\t%ld\t%s\t", (long)getpid(), (long)syscall(SYS_gettid), what);
    at = escaped(at, end, domain);
    *at++ = '\t';
    at = escaped(at, end, name);
    *at++ = '\n';
    if (write(out, line, (size_t)(at - line)) != at - line) abort();
}

/* A domain is a handle that this listener gave out itself: a copy of its name; NULL is the default domain. */
static const char *name_of(const void *domain) { return domain == NULL ? "" : domain; }

static void tell_event(const char *what, const void *domain, const attributes *event) {
    char wide[4096];
    const char *name = "";
    if (event->message_type == 1 && event->message.ascii != NULL) name = event->message.ascii;
    if (event->message_type == 3 && event->message.registered != NULL) name = *event->message.registered;
    if (event->message_type == 2 && event->message.unicode != NULL) {
        if (wcstombs(wide, event->message.unicode, sizeof wide) >= sizeof wide) abort();
        name = wide;
    }
    tell(what, name_of(domain), name);
}

/* A registered string is a handle, too. */
static const char **register_string(const void *domain, const char *text) {
    (void)domain;
    const char **handle = malloc(sizeof *handle);
    if (handle == NULL || (*handle = strdup(text)) == NULL) abort();
    return handle;
}

static void *create_domain(const char *name) {
    char *handle = strdup(name);
    if (handle == NULL) abort();
    tell("domain", handle, "");
    return handle;
}

static void mark(const void *domain, const attributes *event) { tell_event("mark", domain, event); }

static int push(const void *domain, const attributes *event) {
    tell_event("push", domain, event);
    return depth++;
}

static int pop(const void *domain) {
    tell("pop", name_of(domain), "");
    return --depth;
}

static uint64_t start(const void *domain, const attributes *event) {
    tell_event("start", domain, event);
    return __atomic_add_fetch(&ranges, 1, __ATOMIC_RELAXED);
}

static void end(const void *domain, uint64_t range) {
    (void)range;
    tell("end", name_of(domain), "");
}

int InitializeInjectionNvtx2(get_export_table table) {
    const export_module *callbacks = table(1); /* NVTX_ETID_CALLBACKS */
    void ***functions;
    unsigned int count;
    const char *path = getenv("NVTX_LISTENER_FILE");
    if (path == NULL || callbacks == NULL || !callbacks->get(5 /* CORE2 */, &functions, &count) || count <= 12) return 0;
    if ((out = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600)) < 0) return 0;
    *functions[1] = (void *)mark; /* DomainMarkEx */
    *functions[2] = (void *)start; /* DomainRangeStartEx */
    *functions[3] = (void *)end; /* DomainRangeEnd */
    *functions[4] = (void *)push; /* DomainRangePushEx */
    *functions[5] = (void *)pop; /* DomainRangePop */
    *functions[10] = (void *)register_string; /* DomainRegisterStringA */
    *functions[12] = (void *)create_domain; /* DomainCreateA */
    return 1;
}
