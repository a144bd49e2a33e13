/* A CUDA driver without a GPU: it has the functions that Burn's CUDA backend calls, keeps device memory in the
 * host's, and runs no kernel, so that every value is zero. Burn generates its kernels for the card that this
 * driver claims to be, and the real NVRTC compiles them to machine code: what does not compile is found
 * without a card. scripts/cuda-check.sh builds it as libcuda.so.
 *
 * RECAP_CUDA_ARCH   compute capability, as in 80, 90 or 100 (90 by default)
 * RECAP_CUDA_COUNT  file to which a byte is appended for each module that is loaded
 */
#include <stdio.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef int Result;      /* CUresult */
typedef void *Handle;    /* CUcontext, CUstream, CUevent, CUmodule, CUfunction, CUgraph */
typedef uint64_t Memory; /* CUdeviceptr */

enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_SUPPORTED = 801 };

static const size_t TOTAL_MEMORY = (size_t)16 << 30;

static int arch(void) {
  const char *value = getenv("RECAP_CUDA_ARCH");
  return value ? atoi(value) : 90;
}

static Result handle(Handle *out) {
  static char one;
  *out = &one;
  return SUCCESS;
}

/* the device */

Result cuInit(unsigned flags) { (void)flags; return SUCCESS; }
Result cuDriverGetVersion(int *version) { *version = 12090; return SUCCESS; }
Result cuDeviceGetCount(int *count) { *count = 1; return SUCCESS; }
Result cuDeviceGet(int *device, int index) { *device = index; return index == 0 ? SUCCESS : INVALID_VALUE; }
Result cuDeviceTotalMem_v2(size_t *bytes, int device) { (void)device; *bytes = TOTAL_MEMORY; return SUCCESS; }
Result cuDeviceGetUuid_v2(char *uuid, int device) { (void)device; memset(uuid, 0, 16); return SUCCESS; }
Result cuMemGetInfo_v2(size_t *left, size_t *total) { *left = *total = TOTAL_MEMORY; return SUCCESS; }

Result cuDeviceGetName(char *name, int length, int device) {
  (void)device;
  snprintf(name, (size_t)length, "no card, sm_%d", arch());
  return SUCCESS;
}

Result cuDeviceGetPCIBusId(char *id, int length, int device) {
  (void)device;
  snprintf(id, (size_t)length, "0000:00:00.0");
  return SUCCESS;
}

/* Values of an A100, which the later ones share or exceed. */
Result cuDeviceGetAttribute(int *value, int attribute, int device) {
  (void)device;
  switch (attribute) {
    case 1: *value = 1024; break;          /* threads per block */
    case 2: case 3: *value = 1024; break;  /* block, x and y */
    case 4: *value = 64; break;            /* block, z */
    case 5: *value = 2147483647; break;    /* grid, x */
    case 6: case 7: *value = 65535; break; /* grid, y and z */
    case 8: *value = 49152; break;         /* shared memory per block */
    case 10: *value = 32; break;           /* warp size */
    case 12: *value = 65536; break;        /* registers per block */
    case 16: *value = 108; break;          /* multiprocessors */
    case 38: *value = 40 << 20; break;     /* L2 cache */
    case 39: *value = 2048; break;         /* threads per multiprocessor */
    case 75: *value = arch() / 10; break;  /* compute capability, major */
    case 76: *value = arch() % 10; break;  /* compute capability, minor */
    case 81: *value = 167936; break;       /* shared memory per multiprocessor */
    case 97: *value = 166912; break;       /* shared memory per block, opt-in */
    default: *value = 1; break;            /* features: there */
  }
  return SUCCESS;
}

/* contexts, streams, events: everything has ended when it begins */

Result cuDevicePrimaryCtxRetain(Handle *context, int device) { (void)device; return handle(context); }
Result cuDevicePrimaryCtxRelease_v2(int device) { (void)device; return SUCCESS; }
Result cuCtxSetCurrent(Handle context) { (void)context; return SUCCESS; }
Result cuCtxGetCurrent(Handle *context) { return handle(context); }
Result cuCtxSynchronize(void) { return SUCCESS; }
Result cuCtxGetStreamPriorityRange(int *least, int *greatest) { *least = 0; *greatest = -5; return SUCCESS; }
Result cuStreamCreate(Handle *stream, unsigned flags) { (void)flags; return handle(stream); }
Result cuStreamCreateWithPriority(Handle *stream, unsigned flags, int priority) {
  (void)flags; (void)priority;
  return handle(stream);
}
Result cuStreamSynchronize(Handle stream) { (void)stream; return SUCCESS; }
Result cuStreamQuery(Handle stream) { (void)stream; return SUCCESS; }
Result cuStreamDestroy_v2(Handle stream) { (void)stream; return SUCCESS; }
Result cuStreamWaitEvent(Handle stream, Handle event, unsigned flags) {
  (void)stream; (void)event; (void)flags;
  return SUCCESS;
}
Result cuEventCreate(Handle *event, unsigned flags) { (void)flags; return handle(event); }
Result cuEventRecord(Handle event, Handle stream) { (void)event; (void)stream; return SUCCESS; }
Result cuEventQuery(Handle event) { (void)event; return SUCCESS; }
Result cuEventSynchronize(Handle event) { (void)event; return SUCCESS; }
Result cuEventDestroy_v2(Handle event) { (void)event; return SUCCESS; }
Result cuEventElapsedTime(float *milliseconds, Handle begin, Handle end) {
  (void)begin; (void)end;
  *milliseconds = 0.01f;
  return SUCCESS;
}
Result cuEventElapsedTime_v2(float *milliseconds, Handle begin, Handle end) {
  return cuEventElapsedTime(milliseconds, begin, end);
}

/* memory: the host's, zeroed */

static Result allocate(Memory *out, size_t bytes) {
  if (bytes > TOTAL_MEMORY) return OUT_OF_MEMORY;
  void *found = aligned_alloc(512, (bytes + 511) / 512 * 512);
  if (!found) return OUT_OF_MEMORY;
  memset(found, 0, bytes);
  *out = (Memory)(uintptr_t)found;
  return SUCCESS;
}

static void *host(Memory address) { return (void *)(uintptr_t)address; }

Result cuMemAlloc_v2(Memory *out, size_t bytes) { return allocate(out, bytes); }
Result cuMemAllocAsync(Memory *out, size_t bytes, Handle stream) { (void)stream; return allocate(out, bytes); }
Result cuMemFree_v2(Memory memory) { free(host(memory)); return SUCCESS; }
Result cuMemFreeAsync(Memory memory, Handle stream) { (void)stream; free(host(memory)); return SUCCESS; }
Result cuMemAllocHost_v2(void **out, size_t bytes) {
  Memory memory = 0;
  Result result = allocate(&memory, bytes);
  *out = host(memory);
  return result;
}
Result cuMemFreeHost(void *memory) { free(memory); return SUCCESS; }
Result cuMemsetD8Async(Memory to, unsigned char value, size_t bytes, Handle stream) {
  (void)stream;
  memset(host(to), value, bytes);
  return SUCCESS;
}
Result cuMemcpyHtoDAsync_v2(Memory to, const void *from, size_t bytes, Handle stream) {
  (void)stream;
  memcpy(host(to), from, bytes);
  return SUCCESS;
}
Result cuMemcpyDtoHAsync_v2(void *to, Memory from, size_t bytes, Handle stream) {
  (void)stream;
  memcpy(to, host(from), bytes);
  return SUCCESS;
}
Result cuMemcpyDtoDAsync_v2(Memory to, Memory from, size_t bytes, Handle stream) {
  (void)stream;
  memmove(host(to), host(from), bytes);
  return SUCCESS;
}

/* CUDA_MEMCPY2D_st */
typedef struct {
  size_t from_x, from_y; unsigned from_type; const void *from_host; Memory from_device; Handle from_array; size_t from_pitch;
  size_t to_x, to_y; unsigned to_type; void *to_host; Memory to_device; Handle to_array; size_t to_pitch;
  size_t width, height;
} Copy;

Result cuMemcpy2DAsync_v2(const Copy *copy, Handle stream) {
  (void)stream;
  const char *from = copy->from_type == 1 ? copy->from_host : host(copy->from_device);
  char *to = copy->to_type == 1 ? copy->to_host : host(copy->to_device);
  for (size_t row = 0; row < copy->height; row++) {
    memcpy(to + (copy->to_y + row) * copy->to_pitch + copy->to_x,
           from + (copy->from_y + row) * copy->from_pitch + copy->from_x, copy->width);
  }
  return SUCCESS;
}

/* kernels: loaded and not run */

Result cuModuleLoadData(Handle *module, const void *image) {
  const char *path = getenv("RECAP_CUDA_COUNT");
  FILE *file = path ? fopen(path, "a") : NULL;
  if (file) {
    fputc(image ? '.' : '?', file);
    fclose(file);
  }
  return handle(module);
}
Result cuModuleGetFunction(Handle *function, Handle module, const char *name) {
  (void)module; (void)name;
  return handle(function);
}
Result cuModuleUnload(Handle module) { (void)module; return SUCCESS; }
Result cuFuncSetAttribute(Handle function, int attribute, int value) {
  (void)function; (void)attribute; (void)value;
  return SUCCESS;
}
Result cuFuncGetAttribute(int *value, int attribute, Handle function) {
  (void)attribute; (void)function;
  *value = 0;
  return SUCCESS;
}
Result cuLaunchKernel(Handle function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                      unsigned shared, Handle stream, void **arguments, void **extra) {
  (void)function; (void)gx; (void)gy; (void)gz; (void)bx; (void)by; (void)bz;
  (void)shared; (void)stream; (void)arguments; (void)extra;
  return SUCCESS;
}
Result cuLaunchKernelEx(const void *configuration, Handle function, void **arguments, void **extra) {
  (void)configuration; (void)function; (void)arguments; (void)extra;
  return SUCCESS;
}
Result cuLaunchCooperativeKernel(Handle function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                                 unsigned bz, unsigned shared, Handle stream, void **arguments) {
  (void)function; (void)gx; (void)gy; (void)gz; (void)bx; (void)by; (void)bz;
  (void)shared; (void)stream; (void)arguments;
  return SUCCESS;
}
Result cuTensorMapEncodeTiled(void *map) { memset(map, 0, 128); return SUCCESS; }
Result cuTensorMapEncodeIm2col(void *map) { memset(map, 0, 128); return SUCCESS; }

/* errors */

Result cuGetErrorName(Result error, const char **text) {
  *text = error == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR";
  return SUCCESS;
}
Result cuGetErrorString(Result error, const char **text) {
  *text = error == OUT_OF_MEMORY ? "out of memory" : "an error of the driver without a GPU";
  return SUCCESS;
}
