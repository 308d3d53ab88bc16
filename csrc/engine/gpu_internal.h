/*
 * gpu_internal.h - what the gpu_*.c files share; the one includer of Vulkan
 *
 * In:      a struct nd_gpu from nd_gpu_open(); buffers from nd_gpu_buffer_new.
 * Out:     work recorded by nd_gpu_dispatch() and run by nd_gpu_flush().
 * Errors:  every VkResult goes through nd_gpu_fail(): ND_DEVICE, or
 *          ND_NO_MEMORY when the host is out of memory.
 * Memory:  each create has a destroy that takes half-built objects.
 * Threads: one thread per struct nd_gpu; no globals.
 * Python:  none.  Tests: tests/test_vulkan.py
 *
 * Split by object: gpu_device.c loader, instance, device; gpu_memory.c
 * buffers and copies; gpu_pipeline.c shaders; gpu_submit.c commands;
 * gpu_family.c which kernels a device runs; gpu_ops.c the dispatches of each
 * op; gpu_backend.c the function table of backend.h; gpu_choice.c tests and
 * times the families; gpu_cache.c files in the user's cache directory.
 */
#ifndef ND_ENGINE_GPU_INTERNAL_H
#define ND_ENGINE_GPU_INTERNAL_H

#define VK_NO_PROTOTYPES
#include <vulkan/vulkan.h>

#include "backend.h"
#include "gpu.h"

#define ND_VK_GLOBAL(X)                                                       \
    X(CreateInstance)                                                         \
    X(EnumerateInstanceVersion)                                               \
    X(EnumerateInstanceLayerProperties)

#define ND_VK_INSTANCE(X)                                                     \
    X(DestroyInstance)                                                        \
    X(EnumeratePhysicalDevices)                                               \
    X(GetPhysicalDeviceProperties)                                            \
    X(GetPhysicalDeviceProperties2)                                           \
    X(GetPhysicalDeviceFeatures)                                              \
    X(GetPhysicalDeviceQueueFamilyProperties)                                 \
    X(GetPhysicalDeviceMemoryProperties)                                      \
    X(CreateDevice)                                                           \
    X(GetDeviceProcAddr)

#define ND_VK_DEVICE(X)                                                       \
    X(DestroyDevice)                                                          \
    X(GetDeviceQueue)                                                         \
    X(CreateBuffer)                                                           \
    X(DestroyBuffer)                                                          \
    X(GetBufferMemoryRequirements)                                            \
    X(AllocateMemory)                                                         \
    X(FreeMemory)                                                             \
    X(BindBufferMemory)                                                       \
    X(MapMemory)                                                              \
    X(CreateBufferView)                                                       \
    X(DestroyBufferView)                                                      \
    X(CreateShaderModule)                                                     \
    X(DestroyShaderModule)                                                    \
    X(CreateDescriptorSetLayout)                                              \
    X(DestroyDescriptorSetLayout)                                             \
    X(CreatePipelineLayout)                                                   \
    X(DestroyPipelineLayout)                                                  \
    X(CreatePipelineCache)                                                    \
    X(GetPipelineCacheData)                                                   \
    X(DestroyPipelineCache)                                                   \
    X(CreateComputePipelines)                                                 \
    X(DestroyPipeline)                                                        \
    X(CreateDescriptorPool)                                                   \
    X(DestroyDescriptorPool)                                                  \
    X(AllocateDescriptorSets)                                                 \
    X(UpdateDescriptorSets)                                                   \
    X(CreateCommandPool)                                                      \
    X(DestroyCommandPool)                                                     \
    X(AllocateCommandBuffers)                                                 \
    X(BeginCommandBuffer)                                                     \
    X(EndCommandBuffer)                                                       \
    X(CmdBindPipeline)                                                        \
    X(CmdBindDescriptorSets)                                                  \
    X(CmdPushConstants)                                                       \
    X(CmdDispatch)                                                            \
    X(CmdPipelineBarrier)                                                     \
    X(CmdCopyBuffer)                                                          \
    X(CmdFillBuffer)                                                          \
    X(FreeCommandBuffers)                                                     \
    X(ResetCommandBuffer)                                                     \
    X(CreateFence)                                                            \
    X(DestroyFence)                                                           \
    X(ResetFences)                                                            \
    X(WaitForFences)                                                          \
    X(QueueSubmit)                                                            \
    X(DeviceWaitIdle)

struct nd_vk {
    PFN_vkGetInstanceProcAddr GetInstanceProcAddr;
#define X(name) PFN_vk##name name;
    ND_VK_GLOBAL(X)
    ND_VK_INSTANCE(X)
    ND_VK_DEVICE(X)
#undef X
};

/* A loaded loader and one instance. */
struct nd_gpu_instance {
    void *library;
    struct nd_vk vk;
    VkInstance instance;
    VkDebugUtilsMessengerEXT messenger;
    bool validation;
    char message[400]; /* first one of the validation layer, or empty */
};

/*
 * Every shader file: stem, inputs, which of them hold uint32 (a bit each),
 * outputs, whether it reads struct nd_step.
 */
#define ND_GPU_SHADERS(X)                                                     \
    X(linear, 6, 1u << 5, 1, false)                                           \
    X(linear_subgroup, 6, 1u << 5, 1, false)                                  \
    X(linear_tile, 6, 1u << 5, 1, false)                                      \
    X(norm, 4, 1u << 3, 1, false)                                             \
    X(rotary, 3, 1u << 2, 1, false)                                           \
    X(attention, 2, 1u << 1, 1, false)                                        \
    X(attention_tile, 2, 1u << 1, 1, false)                                   \
    X(condition, 2, 0, 1, true)                                               \
    X(input, 2, 0, 1, true)                                                   \
    X(hold, 1, 0, 1, false)                                                   \
    X(estimate, 4, 0, 3, true)                                                \
    X(noise, 3, 3u, 2, true)                                                  \
    X(renoise, 3, 6u, 1, true)                                                \
    X(draw, 3, 6u, 1, true)

enum nd_gpu_shader {
#define X(stem, inputs, words, outputs, step) ND_GPU_SHADER_##stem,
    ND_GPU_SHADERS(X)
#undef X
    ND_GPU_SHADER_COUNT
};

enum {
    ND_GPU_MAX_INPUTS = 6,
    ND_GPU_MAX_OUTPUTS = 3,
    ND_GPU_MAX_BUFFERS = 8, /* storage buffers of one shader: estimate */
    ND_GPU_MAX_CONSTANTS = 6, /* LANES, TEXELS and four of the shader */
    ND_GPU_MAX_PIPELINES = 96
};

struct nd_gpu_signature {
    const uint32_t *code;
    size_t code_bytes;
    uint32_t inputs, words, outputs;
    bool step;
};

/*
 * Memory comes in blocks, from which buffers are cut one after the other; a
 * block goes when its last buffer does. Weights have blocks of their own, so
 * those of a batch of flows all go with it.
 */
struct nd_gpu_block {
    struct nd_gpu_block *next;
    VkDeviceMemory memory;
    uint8_t *mapped;
    VkDeviceSize bytes, used;
    size_t live; /* buffers */
    uint32_t type;
    bool weights;
};

struct nd_gpu_buffer {
    VkBuffer buffer;
    struct nd_gpu_block *block;
    VkBufferView view; /* rgba32f or rgba32ui; only for texel families */
    uint8_t *mapped;   /* NULL where the host does not see the memory */
    VkDeviceSize bytes;
};

enum nd_gpu_use {
    ND_GPU_FLOATS, /* tensors */
    ND_GPU_WEIGHTS,
    ND_GPU_WORDS,  /* tables of uint32 */
    ND_GPU_HOST    /* memory that the host sees: staging, struct nd_step */
};

struct nd_gpu_pipeline {
    enum nd_gpu_shader shader;
    uint32_t constants[ND_GPU_MAX_CONSTANTS];
    VkPipeline pipeline;
};

struct nd_gpu {
    struct nd_gpu_instance root;
    VkPhysicalDevice physical;
    struct nd_gpu_info info;
    VkPhysicalDeviceLimits limits;
    VkPhysicalDeviceMemoryProperties heaps;
    uint8_t device_uuid[VK_UUID_SIZE], driver_uuid[VK_UUID_SIZE];
    uint32_t driver_version;
    VkDevice device;
    uint32_t family; /* of queues */
    VkQueue queue;
    bool shuffle; /* the device shuffles subgroups in compute shaders */
    bool int64;   /* shaders may use integers of 64 bits */
    const struct nd_gpu_family *kernels; /* gpu_family.c */
    bool mapped; /* tensors lie in memory that the host sees */

    VkDescriptorSetLayout set_layouts[ND_GPU_SHADER_COUNT];
    VkPipelineLayout layouts[ND_GPU_SHADER_COUNT];
    struct nd_gpu_pipeline pipelines[ND_GPU_MAX_PIPELINES];
    size_t n_pipelines;
    VkPipelineCache cache;
    size_t cache_bytes; /* as loaded */

    VkCommandPool pool;
    VkCommandBuffer transfer;
    VkFence fence;
    bool running; /* the fence is on its way */

    struct nd_gpu_block *blocks;
    struct nd_gpu_buffer step;    /* struct nd_step */
    struct nd_gpu_buffer staging; /* where tensors are not mapped */
    struct nd_gpu_buffer zeros[2]; /* floats, words: for absent operands */
};

struct nd_linear;
struct nd_ragged;
struct nd_gpu_call;

/*
 * A kernel family: shaders and sizes for devices of one kind. A device can
 * run a family if it meets the needs; see the table in gpu_family.c.
 */
struct nd_gpu_family {
    const char *name;
    unsigned home; /* device types it is made for, a bit each */
    bool shuffle;  /* needs subgroup shuffles */
    bool int64;    /* needs integers of 64 bits */
    uint32_t least_subgroup, most_subgroup; /* needs; 0: any */
    uint32_t shared_bytes, invocations;     /* needs of a workgroup */
    bool texels; /* inputs are read as texels, weights lie in panels */
    bool staged; /* tensors lie where the host does not see them */
    uint32_t lanes; /* of a workgroup of the simple shaders; 0: a subgroup */
    uint32_t rows;  /* that an invocation of the simple shaders makes */
    uint32_t share; /* invocations that make a row of norm */
    size_t tokens;  /* nd_backend.preferred_tokens */
    /* Shader, constants and grid of a matrix product. */
    void (*linear)(const struct nd_gpu *gpu, const struct nd_linear *op,
                   struct nd_gpu_call *call);
    /* The same of attention with heads of head4 texels, but for the grid;
       returns the queries of a tile. */
    uint32_t (*attention)(const struct nd_gpu *gpu,
                          const struct nd_ragged *ragged, uint32_t head4,
                          struct nd_gpu_call *call);
};

/* One dispatch. Inputs that are NULL are bound to zeros of 64 bytes. */
struct nd_gpu_call {
    enum nd_gpu_shader shader;
    uint32_t constants[ND_GPU_MAX_CONSTANTS]; /* [1] is filled in */
    const struct nd_gpu_buffer *inputs[ND_GPU_MAX_INPUTS];
    const struct nd_gpu_buffer *outputs[ND_GPU_MAX_OUTPUTS];
    const void *params;
    uint32_t params_bytes;
    size_t groups[3];
};

/* The attention tiles of one batch: four words each, see attention.comp. */
struct nd_gpu_tiles {
    const uint32_t *offsets; /* of the batch they were made for */
    size_t count;
    struct nd_gpu_buffer buffer;
};

/* A command buffer and its descriptor sets. */
struct nd_gpu_recording {
    VkCommandBuffer commands;
    VkDescriptorPool sets;
};

/* What backend.h calls nd_tensor and nd_weight, with their buffer. */
struct nd_gpu_tensor {
    struct nd_tensor base;
    struct nd_gpu_buffer buffer;
};

struct nd_gpu_weight {
    struct nd_weight base;
    struct nd_gpu_buffer buffer;
    uint32_t in4, panel_stride4, bias4;
};

/* Runs a Vulkan call; on failure writes err and jumps to the label error. */
#define VK(call)                                                              \
    do {                                                                      \
        VkResult vk_result_ = (call);                                         \
        if (vk_result_ != VK_SUCCESS) {                                       \
            nd_gpu_fail(err, vk_result_, #call);                              \
            goto error;                                                       \
        }                                                                     \
    } while (0)

/* What to return at the label error. */
static inline enum nd_status
nd_gpu_failed(const struct nd_error *err)
{
    return err == NULL ? ND_DEVICE : err->code;
}

/* Writes what a VkResult means and what to do about it. */
enum nd_status nd_gpu_fail(struct nd_error *err, VkResult result,
                           const char *call);

/* gpu_device.c: the physical device; then, for one family, the logical one */
enum nd_status nd_gpu_open(int index, struct nd_gpu **out,
                           struct nd_error *err);
void nd_gpu_close(struct nd_gpu *gpu);
enum nd_status nd_gpu_start(struct nd_gpu *gpu,
                            const struct nd_gpu_family *family,
                            struct nd_error *err);
void nd_gpu_stop(struct nd_gpu *gpu);
/* The first message of the validation layer as an error, else ND_OK. */
enum nd_status nd_gpu_check(const struct nd_gpu *gpu, struct nd_error *err);

/* gpu_family.c */
extern const struct nd_gpu_family nd_gpu_families[];
extern const size_t nd_gpu_family_count;
const struct nd_gpu_family *nd_gpu_find_family(const char *name);
/* What the device lacks for a family, in words; NULL if nothing. */
const char *nd_gpu_lacks(const struct nd_gpu *gpu,
                         const struct nd_gpu_family *family);
static inline size_t
nd_gpu_parts(size_t n, size_t of)
{
    return (n + of - 1) / of;
}

/* gpu_cache.c: files that are missing, old or torn are as none */
const struct nd_gpu_family *nd_gpu_cached_family(const struct nd_gpu *gpu);
void nd_gpu_cache_family(const struct nd_gpu *gpu,
                         const struct nd_gpu_family *family);
void nd_gpu_load_pipelines(struct nd_gpu *gpu);
void nd_gpu_save_pipelines(struct nd_gpu *gpu);

/*
 * gpu_choice.c: starts the device with a family: the one that the environment
 * names, the one chosen before, or the quickest of those that compute what C
 * does. Writes backend->note if that is not the one made for the device.
 */
enum nd_status nd_gpu_choose(struct nd_backend *backend, struct nd_gpu *gpu,
                             struct nd_error *err);

/* gpu_memory.c */
enum nd_status nd_gpu_memory_init(struct nd_gpu *gpu, struct nd_error *err);
void nd_gpu_memory_end(struct nd_gpu *gpu);
/* A buffer of zeros, its size rounded up to 64 bytes. */
enum nd_status nd_gpu_buffer_new(struct nd_gpu *gpu, enum nd_gpu_use use,
                                 size_t bytes, struct nd_gpu_buffer *out,
                                 struct nd_error *err);
void nd_gpu_buffer_free(struct nd_gpu *gpu, struct nd_gpu_buffer *buffer);
/*
 * Rows of row_bytes, dense on the host, stride_bytes apart in the buffer;
 * both wait for what runs. Rows of the buffer are at most 4 MiB long.
 */
enum nd_status nd_gpu_write(struct nd_gpu *gpu, struct nd_gpu_buffer *buffer,
                            size_t rows, size_t row_bytes,
                            size_t stride_bytes, const void *data,
                            struct nd_error *err);
enum nd_status nd_gpu_read(struct nd_gpu *gpu,
                           const struct nd_gpu_buffer *buffer, size_t rows,
                           size_t row_bytes, size_t stride_bytes, void *data,
                           struct nd_error *err);

/* gpu_pipeline.c */
enum nd_status nd_gpu_pipelines_init(struct nd_gpu *gpu, struct nd_error *err);
void nd_gpu_pipelines_end(struct nd_gpu *gpu);
/* The pipeline of a shader with its constants, made at the first call. */
enum nd_status nd_gpu_pipeline(struct nd_gpu *gpu, enum nd_gpu_shader shader,
                               const uint32_t *constants, VkPipeline *out,
                               struct nd_error *err);
const struct nd_gpu_signature *nd_gpu_signature(enum nd_gpu_shader shader);

/* gpu_submit.c */
enum nd_status nd_gpu_submit_init(struct nd_gpu *gpu, struct nd_error *err);
void nd_gpu_submit_end(struct nd_gpu *gpu);
/* Waits for what was submitted; tells of its failure. */
enum nd_status nd_gpu_wait(struct nd_gpu *gpu, struct nd_error *err);
/* Waits for what was submitted before, then submits. */
enum nd_status nd_gpu_submit(struct nd_gpu *gpu, VkCommandBuffer commands,
                             struct nd_error *err);
/* The transfer command buffer: begin, record copies, end (runs and waits). */
enum nd_status nd_gpu_transfer_begin(struct nd_gpu *gpu, struct nd_error *err);
enum nd_status nd_gpu_transfer_end(struct nd_gpu *gpu, struct nd_error *err);
/* begin, up to max_calls dispatches in order, end; then submit it often. */
enum nd_status nd_gpu_recording_begin(struct nd_gpu *gpu, size_t max_calls,
                                      struct nd_gpu_recording *out,
                                      struct nd_error *err);
enum nd_status nd_gpu_dispatch(struct nd_gpu *gpu,
                               const struct nd_gpu_recording *recording,
                               const struct nd_gpu_call *call,
                               struct nd_error *err);
enum nd_status nd_gpu_recording_end(struct nd_gpu *gpu,
                                    const struct nd_gpu_recording *recording,
                                    struct nd_error *err);
void nd_gpu_recording_free(struct nd_gpu *gpu,
                           struct nd_gpu_recording *recording);

/* gpu_ops.c */
struct nd_op;
/* Most dispatches of one op. */
enum { ND_GPU_MAX_CALLS_OF_OP = 2 };
/* Lists of attention tiles that a program keeps: one per ATTENTION op. */
enum nd_status nd_gpu_record_op(struct nd_gpu *gpu,
                                const struct nd_gpu_recording *recording,
                                const struct nd_op *op,
                                struct nd_gpu_tiles *tiles,
                                struct nd_error *err);

#endif
