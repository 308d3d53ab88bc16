/*
 * gpu.h - the network's operations on any Vulkan 1.1 device
 *
 * In:      the index of a device in the list of nd_gpu_devices(): discrete
 *          GPUs first, then integrated, virtual, and Vulkan on the CPU last.
 * Out:     a struct nd_backend (backend.h) whose buffers and weights live on
 *          that device.
 * Errors:  ND_DEVICE with one text that says what to do: no loader, no
 *          device, wrong index; under the validation layer also its first
 *          message. ND_NO_MEMORY: of host or device; fewer flows at once may
 *          fit. ND_LOST: the device reset or hung; the backend is of no more
 *          use. ND_UNSUPPORTED: no kernel family computes what C does.
 * Memory:  the loader is opened at run time (dlopen), never linked; destroy
 *          frees device memory, device, instance and loader.
 * Threads: a backend belongs to one thread at a time; different backends
 *          are independent.
 * Python:  _core.devices, _core.Model(device="vulkan").
 *          Tests: tests/test_vulkan.py
 *
 * Environment: NETDIFFUSION_VALIDATION=1 runs under the layer
 * VK_LAYER_KHRONOS_validation, barriers included, and turns its messages
 * into errors.
 * NETDIFFUSION_VULKAN_FAMILY=texel|subgroup|tile takes that kernel family;
 * =measure tests and times all of them. NETDIFFUSION_CACHE is the directory
 * where choices and pipelines are kept (else XDG_CACHE_HOME/netdiffusion, else
 * ~/.cache/netdiffusion); 0 keeps none. NETDIFFUSION_VULKAN_LOADER names
 * another loader. docs/engine.md tells more.
 */
#ifndef ND_ENGINE_GPU_H
#define ND_ENGINE_GPU_H

#include <stddef.h>
#include <stdint.h>

#include "../status.h"

struct nd_backend;

enum nd_gpu_type {
    ND_GPU_DISCRETE,
    ND_GPU_INTEGRATED,
    ND_GPU_VIRTUAL,
    ND_GPU_CPU, /* Vulkan on the CPU: lavapipe, SwiftShader */
    ND_GPU_OTHER
};

struct nd_gpu_info {
    char name[256];   /* of the device, as its driver gives it */
    char driver[640]; /* name and version of the driver */
    enum nd_gpu_type type;
    uint32_t api[3];       /* Vulkan version: major, minor, patch */
    uint32_t subgroup;     /* lanes of a subgroup */
    uint64_t memory_bytes; /* of the largest device-local heap */
};

/* "discrete", "integrated", "virtual", "cpu" or "other". */
const char *nd_gpu_type_name(enum nd_gpu_type type);

/*
 * Stores the first `capacity` devices in info and the number of all of them
 * in *count. No loader or driver is ND_DEVICE; the text tells which.
 */
enum nd_status nd_gpu_devices(struct nd_gpu_info *info, size_t capacity,
                              size_t *count, struct nd_error *err);

/* Opens device `index` of that list. *backend is NULL after a failure. */
enum nd_status nd_gpu_backend_create(int index, struct nd_backend **backend,
                                     struct nd_error *err);

#endif
