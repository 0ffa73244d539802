/* Listens to NVTX: the headers load the library named by NVTX_INJECTION64_PATH and hand it their function tables.
 * Writes each domain created and each range of a domain to the file named by NVTX_LISTENER_FILE.
 * Numbers of tables and entries: NvtxCallbackIdCore2 and NvtxExportTableID of nvtxTypes.h, NVTX 3. */

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
    int32_t message_type;
    union { const char *ascii; const wchar_t *unicode; const char **registered; } message;
} attributes;

static FILE *out;
static int depth;

/* A registered string is a handle that this listener gave out itself: a copy of the text. */
static const char **register_string(void *domain, const char *text) {
    (void)domain;
    const char **handle = malloc(sizeof *handle);
    if (handle == NULL || (*handle = strdup(text)) == NULL) abort();
    return handle;
}

static void *create_domain(const char *name) {
    fprintf(out, "domain %s\n", name);
    return &depth;
}

static int push(void *domain, const attributes *event) {
    (void)domain;
    fprintf(out, "push %s\n", event->message_type == 3 /* REGISTERED */ ? *event->message.registered : event->message.ascii);
    fflush(out);
    return depth++;
}

static int pop(void *domain) {
    (void)domain;
    fprintf(out, "pop\n");
    fflush(out);
    return --depth;
}

int InitializeInjectionNvtx2(get_export_table table) {
    const export_module *callbacks = table(1); /* NVTX_ETID_CALLBACKS */
    void ***functions;
    unsigned int count;
    const char *path = getenv("NVTX_LISTENER_FILE");
    if (path == NULL || callbacks == NULL || !callbacks->get(5 /* CORE2 */, &functions, &count)) return 0;
    if ((out = fopen(path, "w")) == NULL) return 0;
    *functions[4] = (void *)push; /* DomainRangePushEx */
    *functions[5] = (void *)pop; /* DomainRangePop */
    *functions[10] = (void *)register_string; /* DomainRegisterStringA */
    *functions[12] = (void *)create_domain; /* DomainCreateA */
    return 1;
}
