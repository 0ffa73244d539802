/* A stand-in for libnvidia-ml.so.1: NVML's binary interface over GPUs that are described in a text file.
 *
 * Build:   gcc -shared -fPIC -O2 -Wall -Wextra -Werror -Wl,-soname,libnvidia-ml.so.1 -o libnvidia-ml.so.1 nvml_stub.c -lm
 *          with -DOLD_DRIVER: a library without the functions that newer drivers brought
 * Use:     NVML_STUB_FILE=gpus.txt LD_LIBRARY_PATH=<folder> python …
 * Writer:  tests/native/nvml_file.py
 *
 * The file is kept in memory and read anew when it has changed, so a test changes a GPU by replacing it (rename).
 * Every call is answered for the moment at which it is made; times are seconds of CLOCK_MONOTONIC less `origin_s`.
 * Lines, in any order but for segments of one GPU, whose times rise; `#` begins a comment line:
 *
 *   KEY=VALUE                     for all GPUs            1.KEY=VALUE      for GPU 1 alone; beats the former
 *   KEY@T_S=VALUE                 from that time on; the latest that has begun holds. Not for keys of the sensor, but for
 *                                 energy_mj, quantum_mj, counter_…, latency_us and missing
 *   segment GPU T_S POWER_W [SM_MHZ [TEMPERATURE_C [REASONS]]]
 *                                 the GPU's truth from that time on; before its first segment it draws power_mw
 *
 * Keys and defaults. The machine:
 *   gpus=1  driver=570.00  name=NVIDIA Stub  uuid=GPU-stub-<gpu>  vbios=96.00.00.00.01  memory_bytes=1073741824
 *   arch=9 (9 Hopper, 7 Ampere, 6 Turing, 5 Volta, 4 Pascal)  c2c= (not given: NotSupported)
 *   now_s= (not given: the clock)  origin_s=0
 *   power_mw=100000  limit_mw=700000  set_limit_mw=limit_mw  max_limit_mw=limit_mw  sm_mhz=1980  mem_mhz=2619
 *   temperature=50  reasons=0  pstate=0  pids=12,34  ecc=1  persistence=1  p2p=5 (5: no NVLink, 0: NVLink)  level=50
 *   mig=0  mig_uuid=MIG-stub-<gpu> (several with commas between)
 * The sensor:
 *   gain=1 offset_mw=0            what is read is power × gain + offset; power_gain=1: of the power readings alone
 *   duty_ms=0 duty=1              0: power is looked at all the time; else in the last share `duty` of each duty_ms
 *   noise_mw=0                    standard deviation of one look (or of one moment, where there are no looks)
 *   step_ms=100 phase_ms=0 step_jitter_ms=0    when the energy counter moves
 *   quantum_mj=1 energy_mj=0 counter_bits=64   the counter: energy_mj + energy since counter_from_s, modulo 2^bits
 *   counter_from_s=0 counter_until_s=          a reset is counter_from_s@T=T, a standstill counter_until_s@T=T
 *   counter_sampled=0             1: the counter sums looks from the first segment on, instead of all power
 *   instant_ms=0 average_ms=1000 average_step_ms=0   power fields: how often renewed, and the trailing mean
 *   usage=average                 what nvmlDeviceGetPowerUsage gives: average or instant
 *   module_mw= memory_mw=         power fields of these scopes; not given: NotSupported
 *   fast_ms=0 fast_code=0         a power field polled again sooner than this answers 0, or this error
 *   latency_us=0                  what every call about a GPU takes
 *   missing=                      of counter,instant,average,usage,temperature,clocks,processes,throttle,limit:
 *                                 answers NotSupported
 * Faults:
 *   error.<function>=<code>       that function answers this error; with a GPU's number and a time as any other key
 *   hang.<function>=1             that function does not come back until the key is gone or 0
 *
 * What it proves: units, struct layouts, error codes, order of calls. What it cannot: anything about a real sensor.
 */
#define _GNU_SOURCE
#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum { OK = 0, UNINITIALIZED = 1, INVALID = 2, NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6, TOO_SMALL = 7 };
enum { MAX_GPUS = 64, MAX_SLICES = 8 };
enum { TOTAL_ENERGY = 83, POWER_AVERAGE = 185, POWER_INSTANT = 186, CURRENT_LIMIT = 190 };
enum { SCOPE_GPU = 0, SCOPE_MODULE = 1, SCOPE_MEMORY = 2 };
typedef int ret_t;
typedef unsigned long long u64;
typedef struct gpu { int index, slice; } *gpu_t; /* opaque to the caller; slice 0: the whole GPU */
typedef struct { unsigned pid; u64 bytes; unsigned instance, compute; } process_t;
typedef struct { u64 total, free, used; } memory_t;
typedef struct { unsigned version, sensor; int degrees; } temperature_t;
typedef struct { unsigned gpu, memory; } utilization_t;
typedef struct {
    unsigned field, scope; int64_t timestamp, latency_us; unsigned type, result;
    union { double d; unsigned u; u64 ull; } value;
} field_t;

typedef struct { int gpu; const char *key, *value; double from_s; } entry_t;
typedef struct { double t_s, power_mw, energy_mj, sm_mhz, temperature; u64 reasons; } segment_t; /* energy: until t_s */
typedef struct { segment_t *list; size_t count, room; } profile_t;

static struct gpu handles[MAX_GPUS][MAX_SLICES + 1];
static int users;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* ---- the file, under the lock ---- */

static char *text;
static entry_t *entries;
static size_t entry_count;
static profile_t profiles[MAX_GPUS];
static struct { int64_t look; double mj; } summed[MAX_GPUS]; /* energy of the looks before this one */
static struct stat seen;

static void add_segment(const char *line) {
    int gpu, given;
    segment_t s = {.sm_mhz = -1, .temperature = -1e9, .reasons = ~0ull};
    given = sscanf(line, "segment %d %lf %lf %lf %lf %lli", &gpu, &s.t_s, &s.power_mw, &s.sm_mhz, &s.temperature,
                   (long long *)&s.reasons);
    if (given < 3 || gpu < 0 || gpu >= MAX_GPUS) return;
    s.power_mw *= 1e3;
    profile_t *profile = &profiles[gpu];
    if (profile->count == profile->room) {
        profile->room = profile->room ? 2 * profile->room : 64;
        profile->list = realloc(profile->list, profile->room * sizeof s);
    }
    profile->list[profile->count++] = s;
}

static void add_entry(char *line) {
    char *equals = strchr(line, '='), *key = line, *at;
    if (!equals) return;
    *equals = 0;
    entry_t entry = {.gpu = -1, .value = equals + 1, .from_s = -INFINITY};
    size_t digits = strspn(line, "0123456789");
    if (digits && line[digits] == '.') {
        entry.gpu = atoi(line);
        key = line + digits + 1;
    }
    if ((at = strchr(key, '@'))) {
        *at = 0;
        entry.from_s = strtod(at + 1, NULL);
    }
    entry.key = key;
    entries = realloc(entries, (entry_count + 1) * sizeof entry);
    entries[entry_count++] = entry;
}

static double plain_number(int gpu, const char *key, double otherwise);

/* Energy up to each segment, from time 0 on. */
static void sum_profiles(void) {
    for (int gpu = 0; gpu < MAX_GPUS; gpu++) {
        double power_mw = plain_number(gpu, "power_mw", 100000), since_s = 0, energy_mj = 0;
        for (size_t i = 0; i < profiles[gpu].count; i++) {
            segment_t *s = &profiles[gpu].list[i];
            energy_mj += power_mw * (s->t_s - since_s);
            s->energy_mj = energy_mj;
            power_mw = s->power_mw;
            since_s = s->t_s;
        }
        summed[gpu].look = INT64_MIN;
    }
}

static void refresh(void) {
    struct stat now;
    const char *path = getenv("NVML_STUB_FILE");
    if (!path || stat(path, &now)) return;
    if (text && now.st_ino == seen.st_ino && now.st_size == seen.st_size &&
        now.st_mtim.tv_sec == seen.st_mtim.tv_sec && now.st_mtim.tv_nsec == seen.st_mtim.tv_nsec)
        return;
    FILE *file = fopen(path, "r");
    if (!file) return;
    seen = now;
    free(text);
    text = calloc(1, (size_t)now.st_size + 1);
    text[fread(text, 1, (size_t)now.st_size, file)] = 0;
    fclose(file);
    entry_count = 0;
    for (int gpu = 0; gpu < MAX_GPUS; gpu++) profiles[gpu].count = 0;
    char *rest = text;
    for (char *line; (line = strsep(&rest, "\n"));)
        if (!strncmp(line, "segment ", 8)) add_segment(line);
        else if (*line != '#') add_entry(line);
    sum_profiles();
}

/* The value that holds at a time; NULL: the file has none. */
static const char *find(int gpu, const char *key, double at_s) {
    const entry_t *best = NULL;
    for (size_t i = 0; i < entry_count; i++) {
        const entry_t *entry = &entries[i];
        if ((entry->gpu != -1 && entry->gpu != gpu) || entry->from_s > at_s || strcmp(entry->key, key)) continue;
        if (!best || (entry->gpu != -1) > (best->gpu != -1) ||
            ((entry->gpu != -1) == (best->gpu != -1) && entry->from_s >= best->from_s))
            best = entry;
    }
    return best ? best->value : NULL;
}

static double plain_number(int gpu, const char *key, double otherwise) {
    const char *value = find(gpu, key, -INFINITY);
    return value ? strtod(value, NULL) : otherwise;
}

static double clock_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec * 1e-9;
}

static double now_s(void) { return plain_number(-1, "now_s", clock_s() - plain_number(-1, "origin_s", 0)); }

static double number(int gpu, const char *key, double otherwise) {
    const char *value = find(gpu, key, now_s());
    return value && *value ? strtod(value, NULL) : otherwise;
}

static void words(int gpu, const char *key, const char *otherwise, char *value, size_t size) {
    const char *found = find(gpu, key, now_s());
    snprintf(value, size, "%s", found ? found : otherwise);
}

static int is_listed(const char *list, const char *word) {
    size_t length = strlen(word);
    for (const char *at = list; at && *at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
        if (!strncmp(at, word, length) && (at[length] == ',' || !at[length])) return 1;
    return 0;
}

static int is_missing(int gpu, const char *feature) {
    const char *list = find(gpu, "missing", now_s());
    return list && is_listed(list, feature);
}

/* ---- the truth and the sensor, under the lock ---- */

static const segment_t *segment_at(int gpu, double t_s) {
    const profile_t *profile = &profiles[gpu];
    size_t low = 0, high = profile->count; /* the last that has begun */
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (profile->list[middle].t_s <= t_s) low = middle + 1;
        else high = middle;
    }
    return low ? &profile->list[low - 1] : NULL;
}

static double true_power_mw(int gpu, double t_s) {
    const segment_t *s = segment_at(gpu, t_s);
    return s ? s->power_mw : plain_number(gpu, "power_mw", 100000);
}

static double true_energy_mj(int gpu, double t_s) {
    const segment_t *s = segment_at(gpu, t_s);
    return s ? s->energy_mj + s->power_mw * (t_s - s->t_s) : plain_number(gpu, "power_mw", 100000) * t_s;
}

/* In 0 … 1, the same for the same arguments (splitmix64). */
static double chance(int gpu, int64_t index, uint64_t salt) {
    uint64_t z = (uint64_t)index * 0x9e3779b97f4a7c15ull + (uint64_t)gpu * 0xd1342543de82ef95ull + salt;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return (double)((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

static double noise_mw(int gpu, int64_t index) {
    double sigma = plain_number(gpu, "noise_mw", 0);
    if (!sigma) return 0;
    return sigma * sqrt(-2 * log(1 - chance(gpu, index, 1))) * cos(2 * M_PI * chance(gpu, index, 2));
}

static double as_read_mw(int gpu, double power_mw) {
    return power_mw * plain_number(gpu, "gain", 1) + plain_number(gpu, "offset_mw", 0);
}
/* All energy from time 0 to t_s, as a sensor reads it that looks all the time. */
static double as_read_mj(int gpu, double t_s) {
    return true_energy_mj(gpu, t_s) * plain_number(gpu, "gain", 1) + t_s * plain_number(gpu, "offset_mw", 0);
}

/* One look: the mean over the last part of a duty period. */
static double look_mw(int gpu, int64_t period, double duty_s) {
    double end_s = (double)(period + 1) * duty_s, span_s = plain_number(gpu, "duty", 1) * duty_s;
    double mean_mw = (true_energy_mj(gpu, end_s) - true_energy_mj(gpu, end_s - span_s)) / span_s;
    return as_read_mw(gpu, mean_mw) + noise_mw(gpu, period);
}

static double last_tick_s(double t_s, double step_s) { return step_s ? floor(t_s / step_s + 1e-9) * step_s : t_s; }

static double instant_mw(int gpu, double t_s) {
    double duty_s = plain_number(gpu, "duty_ms", 0) * 1e-3, gain = plain_number(gpu, "power_gain", 1);
    t_s = last_tick_s(t_s, plain_number(gpu, "instant_ms", 0) * 1e-3);
    if (duty_s) return gain * look_mw(gpu, (int64_t)floor(t_s / duty_s + 1e-9) - 1, duty_s);
    return gain * (as_read_mw(gpu, true_power_mw(gpu, t_s)) + noise_mw(gpu, (int64_t)(t_s * 1e6)));
}

static double average_mw(int gpu, double t_s) {
    double duty_s = plain_number(gpu, "duty_ms", 0) * 1e-3, span_s = plain_number(gpu, "average_ms", 1000) * 1e-3;
    t_s = last_tick_s(t_s, plain_number(gpu, "average_step_ms", 0) * 1e-3);
    if (!span_s) return instant_mw(gpu, t_s);
    double gain = plain_number(gpu, "power_gain", 1), sum_mw = 0;
    if (!duty_s) return gain * (as_read_mj(gpu, t_s) - as_read_mj(gpu, t_s - span_s)) / span_s;
    int64_t last = (int64_t)floor(t_s / duty_s + 1e-9) - 1, looks = (int64_t)fmax(1, floor(span_s / duty_s + 1e-9));
    for (int64_t i = 0; i < looks; i++) sum_mw += look_mw(gpu, last - i, duty_s);
    return gain * sum_mw / (double)looks;
}

#ifndef OLD_DRIVER
/* Energy as the sensor counts it from time 0 to t_s. */
static double counted_mj(int gpu, double t_s) {
    double duty_s = plain_number(gpu, "duty_ms", 0) * 1e-3;
    if (!duty_s || !plain_number(gpu, "counter_sampled", 0) || !profiles[gpu].count)
        return as_read_mj(gpu, t_s);
    int64_t first = (int64_t)floor(profiles[gpu].list[0].t_s / duty_s), end = (int64_t)floor(t_s / duty_s + 1e-9);
    if (summed[gpu].look == INT64_MIN || summed[gpu].look > end) {
        summed[gpu].look = first;
        summed[gpu].mj = as_read_mj(gpu, (double)first * duty_s);
    }
    for (; summed[gpu].look < end; summed[gpu].look++)
        summed[gpu].mj += look_mw(gpu, summed[gpu].look, duty_s) * duty_s;
    return summed[gpu].mj;
}

/* When the counter last moved. */
static double moved_s(int gpu, double t_s) {
    double step_s = plain_number(gpu, "step_ms", 100) * 1e-3, phase_s = plain_number(gpu, "phase_ms", 0) * 1e-3;
    double jitter_s = plain_number(gpu, "step_jitter_ms", 0) * 1e-3, at_s = 0;
    if (!step_s) return t_s;
    int64_t step = (int64_t)floor((t_s - phase_s) / step_s + 1e-9) + (jitter_s ? 1 : 0); /* 0.3 / 0.1 is three steps */
    do at_s = phase_s + (double)step * step_s + (2 * chance(gpu, step, 3) - 1) * jitter_s;
    while (jitter_s && at_s > t_s && step--);
    return at_s;
}

static u64 counter_mj(int gpu) {
    double t_s = now_s(), from_s = number(gpu, "counter_from_s", 0), quantum_mj = number(gpu, "quantum_mj", 1);
    t_s = fmin(moved_s(gpu, t_s), number(gpu, "counter_until_s", INFINITY));
    double energy_mj = t_s > from_s || !from_s ? counted_mj(gpu, t_s) - (from_s ? counted_mj(gpu, from_s) : 0) : 0;
    energy_mj = fmax(0, energy_mj + number(gpu, "energy_mj", 0));
    u64 shown = (u64)(floor(energy_mj / quantum_mj + 1e-6) * quantum_mj);
    int bits = (int)number(gpu, "counter_bits", 64);
    return bits < 64 ? shown & ((1ull << bits) - 1) : shown;
}
#endif

/* ---- errors ---- */

/* What a test wants of this call: an error, that it takes its time, or that it never comes back. */
static ret_t trouble(int gpu, const char *function, int needs_init) {
    char error[96], hang[96];
    const struct timespec nap = {.tv_nsec = 2000000};
    snprintf(error, sizeof error, "error.%s", function);
    snprintf(hang, sizeof hang, "hang.%s", function);
    for (;;) {
        pthread_mutex_lock(&lock);
        refresh();
        int hangs = number(gpu, hang, 0) != 0, code = (int)number(gpu, error, OK);
        double latency_s = gpu < 0 ? 0 : number(gpu, "latency_us", 0) * 1e-6;
        pthread_mutex_unlock(&lock);
        if (hangs) {
            nanosleep(&nap, NULL);
            continue;
        }
        for (double until_s = latency_s ? clock_s() + latency_s : 0; until_s && clock_s() < until_s;) continue;
        return code ? code : needs_init && !users ? UNINITIALIZED : OK;
    }
}

#define CHECK(index) do { ret_t bad = trouble(index, __func__, 1); if (bad) return bad; } while (0)
#define GPU_CHECK(gpu) do { if (!(gpu)) return INVALID; CHECK((gpu)->index); } while (0)
/* What slices of a GPU do not have: their board answers. */
#define BOARD_CHECK(gpu) do { GPU_CHECK(gpu); if ((gpu)->slice) return NOT_SUPPORTED; } while (0)
#define FEATURE_CHECK(gpu, feature) do { \
        BOARD_CHECK(gpu); \
        pthread_mutex_lock(&lock); \
        int absent = is_missing((gpu)->index, feature); \
        pthread_mutex_unlock(&lock); \
        if (absent) return NOT_SUPPORTED; \
    } while (0)

/* The same, for callers outside the lock. */
static double look_up(int gpu, const char *key, double otherwise) {
    pthread_mutex_lock(&lock);
    double value = number(gpu, key, otherwise);
    pthread_mutex_unlock(&lock);
    return value;
}
static void read_words(int gpu, const char *key, const char *otherwise, char *value, size_t size) {
    pthread_mutex_lock(&lock);
    words(gpu, key, otherwise, value, size);
    pthread_mutex_unlock(&lock);
}

static int gpu_count(void) { return (int)look_up(-1, "gpus", 1); }

/* Name of slice 1, 2, … of a GPU, or of the GPU; empty: there is none. */
static void uuid_of(int gpu, int slice, char *uuid, size_t size) {
    char otherwise[64], list[512], *rest = list, *word = NULL;
    snprintf(otherwise, sizeof otherwise, slice ? "MIG-stub-%d" : "GPU-stub-%d", gpu);
    read_words(gpu, slice ? "mig_uuid" : "uuid", otherwise, list, sizeof list);
    for (int i = 0; i < (slice ? slice : 1); i++) word = strsep(&rest, ",");
    snprintf(uuid, size, "%s", word ? word : "");
}

static gpu_t handle(int gpu, int slice) {
    handles[gpu][slice] = (struct gpu){gpu, slice};
    return &handles[gpu][slice];
}

static ret_t put(unsigned *target, double value) {
    *target = (unsigned)fmax(0, value + 0.5);
    return OK;
}

/* ---- NVML ---- */

ret_t nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    ret_t bad = trouble(-1, "nvmlInit", 0);
    if (!bad) users++;
    return bad;
}
ret_t nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
ret_t nvmlShutdown(void) { CHECK(-1); users--; return OK; }

const char *nvmlErrorString(ret_t code) { return code == OK ? "Success" : "an error of the stub"; }

ret_t nvmlSystemGetDriverVersion(char *value, unsigned size) {
    CHECK(-1);
    read_words(-1, "driver", "570.00", value, size);
    return OK;
}
ret_t nvmlSystemGetNVMLVersion(char *value, unsigned size) {
    CHECK(-1);
    snprintf(value, size, "12.570.00");
    return OK;
}

ret_t nvmlDeviceGetCount_v2(unsigned *count) { CHECK(-1); return put(count, gpu_count()); }

ret_t nvmlDeviceGetHandleByIndex_v2(unsigned index, gpu_t *gpu) {
    CHECK((int)index);
    if (index >= (unsigned)gpu_count()) return INVALID;
    *gpu = handle((int)index, 0);
    return OK;
}

ret_t nvmlDeviceGetHandleByUUID(const char *uuid, gpu_t *gpu) {
    CHECK(-1);
    for (int i = 0; i < gpu_count(); i++)
        for (int slice = 0; slice <= (look_up(i, "mig", 0) ? MAX_SLICES : 0); slice++) {
            char known[96];
            uuid_of(i, slice, known, sizeof known);
            if (!*known || strcmp(uuid, known)) continue;
            *gpu = handle(i, slice);
            return trouble(i, __func__, 1);
        }
    return NOT_FOUND;
}

ret_t nvmlDeviceGetIndex(gpu_t gpu, unsigned *index) { GPU_CHECK(gpu); return put(index, gpu->index); }

ret_t nvmlDeviceGetDeviceHandleFromMigDeviceHandle(gpu_t slice, gpu_t *board) {
    GPU_CHECK(slice);
    if (!slice->slice) return INVALID;
    *board = handle(slice->index, 0);
    return OK;
}

ret_t nvmlDeviceGetMaxMigDeviceCount(gpu_t gpu, unsigned *count) {
    GPU_CHECK(gpu);
    return put(count, look_up(gpu->index, "mig", 0) ? MAX_SLICES - 1 : 0);
}

ret_t nvmlDeviceGetMigDeviceHandleByIndex(gpu_t gpu, unsigned index, gpu_t *slice) {
    char uuid[96] = "";
    GPU_CHECK(gpu);
    if (gpu->slice || index >= MAX_SLICES) return INVALID;
    if (look_up(gpu->index, "mig", 0)) uuid_of(gpu->index, (int)index + 1, uuid, sizeof uuid);
    if (!*uuid) return NOT_FOUND;
    *slice = handle(gpu->index, (int)index + 1);
    return OK;
}

ret_t nvmlDeviceIsMigDeviceHandle(gpu_t gpu, unsigned *is) { GPU_CHECK(gpu); return put(is, gpu->slice > 0); }

ret_t nvmlDeviceGetName(gpu_t gpu, char *value, unsigned size) {
    GPU_CHECK(gpu);
    char name[96];
    read_words(gpu->index, "name", "NVIDIA Stub", name, sizeof name);
    snprintf(value, size, gpu->slice ? "%s MIG 1g.5gb" : "%s", name);
    return OK;
}

ret_t nvmlDeviceGetUUID(gpu_t gpu, char *value, unsigned size) {
    GPU_CHECK(gpu);
    uuid_of(gpu->index, gpu->slice, value, size);
    return OK;
}

ret_t nvmlDeviceGetVbiosVersion(gpu_t gpu, char *value, unsigned size) {
    GPU_CHECK(gpu);
    read_words(gpu->index, "vbios", "96.00.00.00.01", value, size);
    return OK;
}

ret_t nvmlDeviceGetArchitecture(gpu_t gpu, unsigned *arch) {
    GPU_CHECK(gpu);
    return put(arch, look_up(gpu->index, "arch", 9));
}

ret_t nvmlDeviceGetC2cModeInfoV(gpu_t gpu, unsigned *enabled) {
    GPU_CHECK(gpu);
    double c2c = look_up(gpu->index, "c2c", -1);
    return c2c < 0 ? NOT_SUPPORTED : put(enabled, c2c);
}

ret_t nvmlDeviceGetMemoryInfo(gpu_t gpu, memory_t *memory) {
    GPU_CHECK(gpu);
    memory->total = (u64)look_up(gpu->index, "memory_bytes", 1 << 30) / (gpu->slice ? 8 : 1);
    memory->used = 0;
    memory->free = memory->total;
    return OK;
}

ret_t nvmlDeviceGetUtilizationRates(gpu_t gpu, utilization_t *rates) {
    BOARD_CHECK(gpu);
    *rates = (utilization_t){50, 25};
    return OK;
}

ret_t nvmlDeviceGetComputeMode(gpu_t gpu, unsigned *mode) { GPU_CHECK(gpu); return put(mode, 0); }

#ifndef OLD_DRIVER
ret_t nvmlDeviceGetTotalEnergyConsumption(gpu_t gpu, u64 *millijoules) {
    FEATURE_CHECK(gpu, "counter");
    pthread_mutex_lock(&lock);
    *millijoules = counter_mj(gpu->index);
    pthread_mutex_unlock(&lock);
    return OK;
}

static double polled_s[MAX_GPUS]; /* when the fields were last asked for */

static ret_t power_field(int gpu, field_t *field) {
    int instant = field->field == POWER_INSTANT;
    double t_s = now_s(), since_s = clock_s() - polled_s[gpu];
    if (field->scope == SCOPE_MODULE || field->scope == SCOPE_MEMORY) {
        double power_mw = number(gpu, field->scope == SCOPE_MODULE ? "module_mw" : "memory_mw", -1);
        return power_mw < 0 ? NOT_SUPPORTED : put(&field->value.u, power_mw);
    }
    if (field->scope != SCOPE_GPU) return INVALID;
    if (is_missing(gpu, instant ? "instant" : "average")) return NOT_SUPPORTED;
    if (since_s * 1e3 < number(gpu, "fast_ms", 0)) return (ret_t)number(gpu, "fast_code", OK);
    return put(&field->value.u, instant ? instant_mw(gpu, t_s) : average_mw(gpu, t_s));
}

static ret_t one_field(int gpu, field_t *field) {
    field->type = 1; /* unsigned int */
    field->value.ull = 0;
    field->timestamp = (int64_t)(clock_s() * 1e6);
    switch (field->field) {
    case POWER_INSTANT: case POWER_AVERAGE: return power_field(gpu, field);
    case CURRENT_LIMIT: return put(&field->value.u, number(gpu, "limit_mw", 700000));
    case TOTAL_ENERGY:
        field->type = 3; /* unsigned long long */
        if (is_missing(gpu, "counter")) return NOT_SUPPORTED;
        field->value.ull = counter_mj(gpu);
        return OK;
    default: return INVALID;
    }
}

ret_t nvmlDeviceGetFieldValues(gpu_t gpu, int count, field_t *fields) {
    BOARD_CHECK(gpu);
    pthread_mutex_lock(&lock);
    for (int i = 0; i < count; i++) fields[i].result = (unsigned)one_field(gpu->index, &fields[i]);
    polled_s[gpu->index] = clock_s();
    pthread_mutex_unlock(&lock);
    return OK;
}
#endif

ret_t nvmlDeviceGetPowerUsage(gpu_t gpu, unsigned *milliwatts) {
    FEATURE_CHECK(gpu, "usage");
    char usage[16];
    read_words(gpu->index, "usage", "average", usage, sizeof usage);
    pthread_mutex_lock(&lock);
    double t_s = now_s();
    put(milliwatts, strcmp(usage, "instant") ? average_mw(gpu->index, t_s) : instant_mw(gpu->index, t_s));
    pthread_mutex_unlock(&lock);
    return OK;
}

ret_t nvmlDeviceGetEnforcedPowerLimit(gpu_t gpu, unsigned *milliwatts) {
    FEATURE_CHECK(gpu, "limit");
    return put(milliwatts, look_up(gpu->index, "limit_mw", 700000));
}
ret_t nvmlDeviceGetPowerManagementLimit(gpu_t gpu, unsigned *milliwatts) {
    FEATURE_CHECK(gpu, "limit");
    return put(milliwatts, look_up(gpu->index, "set_limit_mw", look_up(gpu->index, "limit_mw", 700000)));
}
ret_t nvmlDeviceGetPowerManagementDefaultLimit(gpu_t gpu, unsigned *milliwatts) {
    FEATURE_CHECK(gpu, "limit");
    return put(milliwatts, look_up(gpu->index, "max_limit_mw", look_up(gpu->index, "limit_mw", 700000)));
}
ret_t nvmlDeviceGetPowerManagementLimitConstraints(gpu_t gpu, unsigned *least, unsigned *most) {
    FEATURE_CHECK(gpu, "limit");
    put(least, 100000);
    return put(most, look_up(gpu->index, "max_limit_mw", look_up(gpu->index, "limit_mw", 700000)));
}
/* Settings are for the administrator. */
ret_t nvmlDeviceSetPowerManagementLimit(gpu_t gpu, unsigned limit) { (void)limit; GPU_CHECK(gpu); return NO_PERMISSION; }
ret_t nvmlDeviceSetPersistenceMode(gpu_t gpu, unsigned mode) { (void)mode; GPU_CHECK(gpu); return NO_PERMISSION; }

ret_t nvmlDeviceGetClockInfo(gpu_t gpu, unsigned type, unsigned *mhz) {
    FEATURE_CHECK(gpu, "clocks");
    pthread_mutex_lock(&lock);
    const segment_t *s = segment_at(gpu->index, now_s());
    if (type == 2) put(mhz, number(gpu->index, "mem_mhz", 2619));
    else put(mhz, s && s->sm_mhz >= 0 ? s->sm_mhz : number(gpu->index, "sm_mhz", 1980));
    pthread_mutex_unlock(&lock);
    return OK;
}
static ret_t clocks(gpu_t gpu, const char *key, double otherwise, unsigned *count, unsigned *mhz) {
    if (*count < 1) { *count = 1; return TOO_SMALL; }
    *count = 1;
    return put(mhz, look_up(gpu->index, key, otherwise));
}
ret_t nvmlDeviceGetSupportedMemoryClocks(gpu_t gpu, unsigned *count, unsigned *mhz) {
    BOARD_CHECK(gpu);
    return clocks(gpu, "mem_mhz", 2619, count, mhz);
}
ret_t nvmlDeviceGetSupportedGraphicsClocks(gpu_t gpu, unsigned memory_mhz, unsigned *count, unsigned *mhz) {
    (void)memory_mhz;
    BOARD_CHECK(gpu);
    return clocks(gpu, "sm_mhz", 1980, count, mhz);
}

static int degrees_of(int gpu) {
    pthread_mutex_lock(&lock);
    const segment_t *s = segment_at(gpu, now_s());
    int degrees = (int)lround(s && s->temperature > -1e8 ? s->temperature : number(gpu, "temperature", 50));
    pthread_mutex_unlock(&lock);
    return degrees;
}
ret_t nvmlDeviceGetTemperature(gpu_t gpu, unsigned sensor, unsigned *degrees) {
    (void)sensor;
    FEATURE_CHECK(gpu, "temperature");
    return put(degrees, degrees_of(gpu->index));
}
#ifndef OLD_DRIVER
ret_t nvmlDeviceGetTemperatureV(gpu_t gpu, temperature_t *temperature) {
    FEATURE_CHECK(gpu, "temperature");
    temperature->degrees = degrees_of(gpu->index);
    return OK;
}
#endif

static ret_t reasons_of(int gpu, u64 *reasons) {
    pthread_mutex_lock(&lock);
    const segment_t *s = segment_at(gpu, now_s());
    *reasons = s && s->reasons != ~0ull ? s->reasons : (u64)number(gpu, "reasons", 0);
    pthread_mutex_unlock(&lock);
    return OK;
}
#ifndef OLD_DRIVER
ret_t nvmlDeviceGetCurrentClocksEventReasons(gpu_t gpu, u64 *reasons) {
    FEATURE_CHECK(gpu, "throttle");
    return reasons_of(gpu->index, reasons);
}
#endif
ret_t nvmlDeviceGetCurrentClocksThrottleReasons(gpu_t gpu, u64 *reasons) {
    FEATURE_CHECK(gpu, "throttle");
    return reasons_of(gpu->index, reasons);
}

ret_t nvmlDeviceGetPerformanceState(gpu_t gpu, unsigned *state) {
    BOARD_CHECK(gpu);
    return put(state, look_up(gpu->index, "pstate", 0));
}

ret_t nvmlDeviceGetComputeRunningProcesses_v3(gpu_t gpu, unsigned *count, process_t *processes) {
    FEATURE_CHECK(gpu, "processes");
    char pids[1024], *rest = pids;
    unsigned room = *count, found = 0;
    read_words(gpu->index, "pids", "", pids, sizeof pids);
    for (char *pid; (pid = strsep(&rest, ","));) {
        if (!*pid) continue;
        if (found < room) processes[found] = (process_t){(unsigned)atol(pid), 1 << 20, ~0u, ~0u};
        found++;
    }
    *count = found;
    return found > room ? TOO_SMALL : OK;
}
ret_t nvmlDeviceGetGraphicsRunningProcesses_v3(gpu_t gpu, unsigned *count, process_t *processes) {
    (void)processes;
    GPU_CHECK(gpu);
    return put(count, 0);
}

ret_t nvmlDeviceGetEccMode(gpu_t gpu, unsigned *now, unsigned *pending) {
    GPU_CHECK(gpu);
    put(pending, look_up(gpu->index, "ecc", 1));
    return put(now, *pending);
}

ret_t nvmlDeviceGetMigMode(gpu_t gpu, unsigned *now, unsigned *pending) {
    GPU_CHECK(gpu);
    put(pending, look_up(gpu->index, "mig", 0));
    return put(now, *pending);
}

ret_t nvmlDeviceGetPersistenceMode(gpu_t gpu, unsigned *mode) {
    GPU_CHECK(gpu);
    return put(mode, look_up(gpu->index, "persistence", 1));
}

ret_t nvmlDeviceGetTopologyCommonAncestor(gpu_t first, gpu_t second, unsigned *level) {
    GPU_CHECK(first);
    GPU_CHECK(second);
    return put(level, look_up(first->index, "level", 50));
}

ret_t nvmlDeviceGetP2PStatus(gpu_t first, gpu_t second, unsigned capability, unsigned *status) {
    (void)capability;
    GPU_CHECK(first);
    GPU_CHECK(second);
    return put(status, look_up(first->index, "p2p", 5));
}
