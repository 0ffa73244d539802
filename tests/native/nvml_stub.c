/* A stand-in for libnvidia-ml.so.1: NVML's binary interface over GPUs that are described in a text file.
 *
 * Build:   gcc -shared -fPIC -O1 -Wall -Wextra -Werror -Wl,-soname,libnvidia-ml.so.1 -o libnvidia-ml.so.1 nvml_stub.c
 * Use:     NVML_STUB_FILE=gpus.txt LD_LIBRARY_PATH=<folder> python …
 *
 * The file is read anew at every call, so a test changes a GPU by writing it again. A line is `key=value`; a key with
 * a GPU's number in front (`1.power_mw=250000`) beats the plain one, which holds for all GPUs. Keys and defaults:
 *
 *   gpus=1  driver=570.00  name=NVIDIA Stub  uuid=GPU-stub-<index>  vbios=96.00.00.00.01  memory_bytes=1073741824
 *   now_s=      time of the counter; not given: CLOCK_MONOTONIC
 *   power_mw=   100000: steady power. The counter holds energy_mj + power_mw × now_s, as of the last whole step_ms
 *   energy_mj=0  step_ms=100  limit_mw=700000  sm_mhz=1980  mem_mhz=2619  temperature=50  reasons=0  pids=12,34
 *   ecc=1  mig=0  persistence=1  mig_uuid=MIG-stub-<index>  p2p=5 (5: no NVLink, 0: NVLink)  level=50 (common ancestor)
 *   error.<function>=<code>   that function answers this error instead
 *
 * What it proves: units, struct layouts, error codes, order of calls. What it cannot: anything about a real sensor.
 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { OK = 0, UNINITIALIZED = 1, INVALID = 2, NOT_FOUND = 6, TOO_SMALL = 7, MAX_GPUS = 64, FILE_BYTES = 1 << 16 };
enum { POWER_AVERAGE = 185, POWER_INSTANT = 186 };
typedef int ret_t;
typedef struct gpu { int index, slice; } *gpu_t; /* opaque to the caller */
typedef struct { unsigned pid; unsigned long long bytes; unsigned instance, compute; } process_t;
typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned version, sensor; int degrees; } temperature_t;
typedef struct {
    unsigned field, scope; int64_t timestamp, latency_us; unsigned type, result;
    union { double d; unsigned u; unsigned long long ull; } value;
} field_t;

static struct gpu boards[MAX_GPUS], slices[MAX_GPUS];
static int users;

/* Copies the value of `key` into `value`; `index` < 0 looks for the plain key alone. */
static int lookup(int index, const char *key, char *value, size_t size) {
    static char text[FILE_BYTES];
    const char *path = getenv("NVML_STUB_FILE");
    FILE *file = path ? fopen(path, "r") : NULL;
    if (!file) return 0;
    text[fread(text, 1, sizeof text - 1, file)] = 0;
    fclose(file);
    char wanted[96];
    int found = 0, own = 0;
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        char *equals = strchr(line, '=');
        if (!equals) continue;
        *equals = 0;
        snprintf(wanted, sizeof wanted, "%d.%s", index, key);
        int is_own = index >= 0 && !strcmp(line, wanted);
        if (is_own || (!own && !strcmp(line, key))) {
            snprintf(value, size, "%s", equals + 1);
            found = 1;
            own |= is_own;
        }
    }
    return found;
}

static double number(int index, const char *key, double otherwise) {
    char value[64];
    return lookup(index, key, value, sizeof value) ? strtod(value, NULL) : otherwise;
}

static void text_or(int index, const char *key, const char *otherwise, char *value, size_t size) {
    if (!lookup(index, key, value, size)) snprintf(value, size, "%s", otherwise);
}

/* The error a test wants of this function, or Uninitialized, or success. */
static ret_t trouble(int index, const char *function, int needs_init) {
    char key[96];
    snprintf(key, sizeof key, "error.%s", function);
    int code = (int)number(index, key, OK);
    return code ? code : needs_init && !users ? UNINITIALIZED : OK;
}

#define CHECK(index) do { ret_t bad = trouble(index, __func__, 1); if (bad) return bad; } while (0)
#define GPU_CHECK(gpu) do { if (!(gpu)) return INVALID; CHECK((gpu)->index); } while (0)

static int gpu_count(void) { return (int)number(-1, "gpus", 1); }

static void uuid_of(int index, int slice, char *uuid, size_t size) {
    char otherwise[64];
    snprintf(otherwise, sizeof otherwise, slice ? "MIG-stub-%d" : "GPU-stub-%d", index);
    text_or(index, slice ? "mig_uuid" : "uuid", otherwise, uuid, size);
}

static gpu_t handle(int index, int slice) {
    gpu_t gpu = slice ? &slices[index] : &boards[index];
    gpu->index = index;
    gpu->slice = slice;
    return gpu;
}

static double now_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return number(-1, "now_s", now.tv_sec + now.tv_nsec * 1e-9);
}

static ret_t put(unsigned *target, double value) { *target = (unsigned)value; return OK; }

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
    text_or(-1, "driver", "570.00", value, size);
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
    for (int slice = 0; slice < 2; slice++)
        for (int i = 0; i < gpu_count(); i++) {
            char known[96];
            uuid_of(i, slice, known, sizeof known);
            if (strcmp(uuid, known) || (slice && !number(i, "mig", 0))) continue;
            *gpu = handle(i, slice);
            return OK;
        }
    return NOT_FOUND;
}

ret_t nvmlDeviceGetDeviceHandleFromMigDeviceHandle(gpu_t slice, gpu_t *board) {
    GPU_CHECK(slice);
    if (!slice->slice) return INVALID;
    *board = handle(slice->index, 0);
    return OK;
}

ret_t nvmlDeviceGetName(gpu_t gpu, char *value, unsigned size) {
    GPU_CHECK(gpu);
    char name[96];
    text_or(gpu->index, "name", "NVIDIA Stub", name, sizeof name);
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
    text_or(gpu->index, "vbios", "96.00.00.00.01", value, size);
    return OK;
}

ret_t nvmlDeviceGetMemoryInfo(gpu_t gpu, memory_t *memory) {
    GPU_CHECK(gpu);
    memory->total = (unsigned long long)number(gpu->index, "memory_bytes", 1 << 30) / (gpu->slice ? 8 : 1);
    memory->used = 0;
    memory->free = memory->total;
    return OK;
}

ret_t nvmlDeviceGetTotalEnergyConsumption(gpu_t gpu, unsigned long long *millijoules) {
    GPU_CHECK(gpu);
    double step_s = number(gpu->index, "step_ms", 100) * 1e-3;
    double steps = floor(now_s() / step_s + 1e-9); /* 0.3 / 0.1 is three steps */
    *millijoules = (unsigned long long)(number(gpu->index, "energy_mj", 0) +
                                        number(gpu->index, "power_mw", 100000) * steps * step_s + 0.5);
    return OK;
}

ret_t nvmlDeviceGetPowerUsage(gpu_t gpu, unsigned *milliwatts) {
    GPU_CHECK(gpu);
    return put(milliwatts, number(gpu->index, "power_mw", 100000));
}

ret_t nvmlDeviceGetEnforcedPowerLimit(gpu_t gpu, unsigned *milliwatts) {
    GPU_CHECK(gpu);
    return put(milliwatts, number(gpu->index, "limit_mw", 700000));
}

ret_t nvmlDeviceGetFieldValues(gpu_t gpu, int count, field_t *fields) {
    GPU_CHECK(gpu);
    for (int i = 0; i < count; i++) {
        int known = fields[i].field == POWER_INSTANT || fields[i].field == POWER_AVERAGE;
        fields[i].result = known ? OK : INVALID;
        fields[i].type = 1; /* unsigned int */
        fields[i].value.u = (unsigned)number(gpu->index, "power_mw", 100000);
    }
    return OK;
}

ret_t nvmlDeviceGetClockInfo(gpu_t gpu, unsigned type, unsigned *mhz) {
    GPU_CHECK(gpu);
    return put(mhz, type == 2 ? number(gpu->index, "mem_mhz", 2619) : number(gpu->index, "sm_mhz", 1980));
}

ret_t nvmlDeviceGetTemperature(gpu_t gpu, unsigned sensor, unsigned *degrees) {
    (void)sensor;
    GPU_CHECK(gpu);
    return put(degrees, number(gpu->index, "temperature", 50));
}

ret_t nvmlDeviceGetTemperatureV(gpu_t gpu, temperature_t *temperature) {
    GPU_CHECK(gpu);
    temperature->degrees = (int)number(gpu->index, "temperature", 50);
    return OK;
}

ret_t nvmlDeviceGetCurrentClocksEventReasons(gpu_t gpu, unsigned long long *reasons) {
    GPU_CHECK(gpu);
    *reasons = (unsigned long long)number(gpu->index, "reasons", 0);
    return OK;
}
ret_t nvmlDeviceGetCurrentClocksThrottleReasons(gpu_t gpu, unsigned long long *reasons) {
    GPU_CHECK(gpu);
    *reasons = (unsigned long long)number(gpu->index, "reasons", 0);
    return OK;
}

ret_t nvmlDeviceGetComputeRunningProcesses_v3(gpu_t gpu, unsigned *count, process_t *processes) {
    GPU_CHECK(gpu);
    char pids[1024] = "";
    unsigned room = *count, found = 0;
    lookup(gpu->index, "pids", pids, sizeof pids);
    for (char *pid = strtok(pids, ","); pid; pid = strtok(NULL, ","), found++)
        if (found < room) processes[found] = (process_t){(unsigned)atol(pid), 1 << 20, ~0u, ~0u};
    *count = found;
    return found > room ? TOO_SMALL : OK;
}

ret_t nvmlDeviceGetEccMode(gpu_t gpu, unsigned *now, unsigned *pending) {
    GPU_CHECK(gpu);
    put(pending, number(gpu->index, "ecc", 1));
    return put(now, *pending);
}

ret_t nvmlDeviceGetMigMode(gpu_t gpu, unsigned *now, unsigned *pending) {
    GPU_CHECK(gpu);
    put(pending, number(gpu->index, "mig", 0));
    return put(now, *pending);
}

ret_t nvmlDeviceGetPersistenceMode(gpu_t gpu, unsigned *mode) {
    GPU_CHECK(gpu);
    return put(mode, number(gpu->index, "persistence", 1));
}

ret_t nvmlDeviceGetTopologyCommonAncestor(gpu_t first, gpu_t second, unsigned *level) {
    GPU_CHECK(first);
    GPU_CHECK(second);
    return put(level, number(first->index, "level", 50));
}

ret_t nvmlDeviceGetP2PStatus(gpu_t first, gpu_t second, unsigned capability, unsigned *status) {
    (void)capability;
    GPU_CHECK(first);
    GPU_CHECK(second);
    return put(status, number(first->index, "p2p", 5));
}
