#include "gpu_internal.h"

#include <stdlib.h>
#include <string.h>

enum { STAGING_BYTES = 4 << 20, BLOCK_BYTES = 32 << 20 };

/* A memory type of `allowed` with all the flags; -1 if there is none. */
static int
find_type(const struct nd_gpu *gpu, uint32_t allowed,
          VkMemoryPropertyFlags flags)
{
    for (uint32_t i = 0; i < gpu->heaps.memoryTypeCount; i++)
        if ((allowed >> i & 1) &&
            (gpu->heaps.memoryTypes[i].propertyFlags & flags) == flags)
            return (int)i;
    return -1;
}

static int
choose_type(const struct nd_gpu *gpu, uint32_t allowed, bool host)
{
    const VkMemoryPropertyFlags local = VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT;
    const VkMemoryPropertyFlags seen = VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT |
                                       VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
    const VkMemoryPropertyFlags cached = VK_MEMORY_PROPERTY_HOST_CACHED_BIT;
    const VkMemoryPropertyFlags wanted[2][3] = {
        {local, seen, 0},
        {local | seen | cached, seen | cached, seen},
    };
    int type = -1;
    for (int i = 0; i < 3 && type < 0; i++)
        type = find_type(gpu, allowed, wanted[host][i]);
    return type;
}

static enum nd_status
check_size(const struct nd_gpu *gpu, enum nd_gpu_use use, size_t bytes,
           struct nd_error *err)
{
    size_t limit = gpu->limits.maxStorageBufferRange;
    if (use != ND_GPU_HOST && gpu->kernels->texels &&
        limit / 16 > gpu->limits.maxTexelBufferElements)
        limit = (size_t)gpu->limits.maxTexelBufferElements * 16;
    if (bytes > limit)
        return nd_fail(err, ND_NO_MEMORY,
                       "a tensor of %zu MB is more than %s binds at once "
                       "(%zu MB); sample fewer flows at once",
                       bytes >> 20, gpu->info.name, limit >> 20);
    return ND_OK;
}

/* --- blocks ------------------------------------------------------------- */

static void
free_block(struct nd_gpu *gpu, struct nd_gpu_block *block)
{
    struct nd_gpu_block **link = &gpu->blocks;
    while (*link != NULL && *link != block)
        link = &(*link)->next;
    if (*link != NULL)
        *link = block->next;
    gpu->root.vk.FreeMemory(gpu->device, block->memory, NULL);
    free(block);
}

/* A block of a size that serves many, or of this one if memory is short. */
static enum nd_status
new_block(struct nd_gpu *gpu, VkDeviceSize bytes, uint32_t type, bool host,
          struct nd_gpu_block **out, struct nd_error *err)
{
    struct nd_vk *vk = &gpu->root.vk;
    struct nd_gpu_block *block = calloc(1, sizeof *block);
    if (block == NULL)
        return nd_fail(err, ND_NO_MEMORY, "no memory for a block");
    VkMemoryAllocateInfo info = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
        .allocationSize = bytes < BLOCK_BYTES ? BLOCK_BYTES : bytes,
        .memoryTypeIndex = type,
    };
    block->type = type;
    block->next = gpu->blocks;
    gpu->blocks = block;
    VkResult result =
        vk->AllocateMemory(gpu->device, &info, NULL, &block->memory);
    if (result != VK_SUCCESS && info.allocationSize > bytes) {
        info.allocationSize = bytes;
        result = vk->AllocateMemory(gpu->device, &info, NULL, &block->memory);
    }
    block->bytes = info.allocationSize;
    if (result != VK_SUCCESS) {
        nd_gpu_fail(err, result, "vkAllocateMemory");
        goto error;
    }
    if (host) {
        void *address;
        VK(vk->MapMemory(gpu->device, block->memory, 0, VK_WHOLE_SIZE, 0,
                         &address));
        block->mapped = address;
    }
    *out = block;
    return ND_OK;
error:
    free_block(gpu, block);
    return nd_gpu_failed(err);
}

static enum nd_status
allocate(struct nd_gpu *gpu, bool host, bool weights,
         struct nd_gpu_buffer *out, struct nd_error *err)
{
    struct nd_vk *vk = &gpu->root.vk;
    struct nd_gpu_block *block = gpu->blocks;
    VkMemoryRequirements needs;
    vk->GetBufferMemoryRequirements(gpu->device, out->buffer, &needs);
    int type = choose_type(gpu, needs.memoryTypeBits, host);
    VkDeviceSize mask = needs.alignment - 1;
    if (type < 0)
        return nd_fail(err, ND_DEVICE,
                       "Vulkan: %s has no memory that the host can map",
                       gpu->info.name);
    while (block != NULL &&
           (block->type != (uint32_t)type || block->weights != weights ||
            (block->mapped != NULL) != host ||
            ((block->used + mask) & ~mask) + needs.size > block->bytes))
        block = block->next;
    if (block == NULL && new_block(gpu, needs.size, (uint32_t)type, host,
                                   &block, err) != ND_OK)
        return nd_gpu_failed(err);
    block->weights = weights;
    out->block = block;
    block->live++;
    VkDeviceSize at = (block->used + mask) & ~mask;
    block->used = at + needs.size;
    VK(vk->BindBufferMemory(gpu->device, out->buffer, block->memory, at));
    if (host)
        out->mapped = block->mapped + at;
    return ND_OK;
error:
    return nd_gpu_failed(err);
}

/* --- buffers ------------------------------------------------------------ */

static enum nd_status
clear(struct nd_gpu *gpu, struct nd_gpu_buffer *buffer, struct nd_error *err)
{
    if (buffer->mapped != NULL) {
        memset(buffer->mapped, 0, buffer->bytes);
        return ND_OK;
    }
    enum nd_status status = nd_gpu_transfer_begin(gpu, err);
    if (status != ND_OK)
        return status;
    gpu->root.vk.CmdFillBuffer(gpu->transfer, buffer->buffer, 0,
                               VK_WHOLE_SIZE, 0);
    return nd_gpu_transfer_end(gpu, err);
}

enum nd_status
nd_gpu_buffer_new(struct nd_gpu *gpu, enum nd_gpu_use use, size_t bytes,
                  struct nd_gpu_buffer *out, struct nd_error *err)
{
    struct nd_vk *vk = &gpu->root.vk;
    bool host = use == ND_GPU_HOST || gpu->mapped;
    memset(out, 0, sizeof *out);
    enum nd_status status = check_size(gpu, use, bytes, err);
    if (status != ND_OK)
        return status;
    out->bytes = bytes == 0 ? 64 : (bytes + 63) / 64 * 64;
    VkBufferCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
        .size = out->bytes,
        .usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT |
                 VK_BUFFER_USAGE_STORAGE_TEXEL_BUFFER_BIT |
                 VK_BUFFER_USAGE_TRANSFER_SRC_BIT |
                 VK_BUFFER_USAGE_TRANSFER_DST_BIT,
    };
    VK(vk->CreateBuffer(gpu->device, &info, NULL, &out->buffer));
    if (allocate(gpu, host, use == ND_GPU_WEIGHTS, out, err) != ND_OK)
        goto error;
    VkBufferViewCreateInfo view = {
        .sType = VK_STRUCTURE_TYPE_BUFFER_VIEW_CREATE_INFO,
        .buffer = out->buffer,
        .format = use == ND_GPU_WORDS ? VK_FORMAT_R32G32B32A32_UINT
                                      : VK_FORMAT_R32G32B32A32_SFLOAT,
        .range = VK_WHOLE_SIZE,
    };
    /* Without texel loads only the stand-ins for absent operands have one. */
    if (use != ND_GPU_HOST && (gpu->kernels->texels || bytes <= 64))
        VK(vk->CreateBufferView(gpu->device, &view, NULL, &out->view));
    if ((status = clear(gpu, out, err)) == ND_OK)
        return ND_OK;
error:
    nd_gpu_buffer_free(gpu, out);
    return nd_gpu_failed(err);
}

void
nd_gpu_buffer_free(struct nd_gpu *gpu, struct nd_gpu_buffer *buffer)
{
    struct nd_vk *vk = &gpu->root.vk;
    vk->DestroyBufferView(gpu->device, buffer->view, NULL);
    vk->DestroyBuffer(gpu->device, buffer->buffer, NULL);
    if (buffer->block != NULL && --buffer->block->live == 0)
        free_block(gpu, buffer->block);
    memset(buffer, 0, sizeof *buffer);
}

/* --- copies ------------------------------------------------------------- */

/* Rows of one copy, at least one. */
static size_t
chunk_of(const struct nd_gpu_buffer *buffer, size_t rows, size_t stride_bytes)
{
    size_t fit = STAGING_BYTES / (stride_bytes == 0 ? 1 : stride_bytes);
    if (buffer->mapped != NULL)
        return rows == 0 ? 1 : rows;
    return fit == 0 ? 1 : fit;
}

static enum nd_status
copy(struct nd_gpu *gpu, VkBuffer from, VkDeviceSize from_offset, VkBuffer to,
     VkDeviceSize to_offset, VkDeviceSize bytes, struct nd_error *err)
{
    VkBufferCopy region = {from_offset, to_offset, bytes};
    enum nd_status status = nd_gpu_transfer_begin(gpu, err);
    if (status != ND_OK)
        return status;
    gpu->root.vk.CmdCopyBuffer(gpu->transfer, from, to, 1, &region);
    return nd_gpu_transfer_end(gpu, err);
}

enum nd_status
nd_gpu_write(struct nd_gpu *gpu, struct nd_gpu_buffer *buffer, size_t rows,
             size_t row_bytes, size_t stride_bytes, const void *data,
             struct nd_error *err)
{
    const uint8_t *bytes = data;
    size_t chunk = chunk_of(buffer, rows, stride_bytes);
    enum nd_status status = nd_gpu_wait(gpu, err);
    for (size_t row = 0; status == ND_OK && row < rows; row += chunk) {
        size_t n = rows - row < chunk ? rows - row : chunk;
        uint8_t *to = buffer->mapped ? buffer->mapped : gpu->staging.mapped;
        for (size_t i = 0; i < n; i++)
            memcpy(to + i * stride_bytes, bytes + (row + i) * row_bytes,
                   row_bytes);
        if (buffer->mapped == NULL)
            status = copy(gpu, gpu->staging.buffer, 0, buffer->buffer,
                          row * stride_bytes, n * stride_bytes, err);
    }
    return status;
}

enum nd_status
nd_gpu_read(struct nd_gpu *gpu, const struct nd_gpu_buffer *buffer,
            size_t rows, size_t row_bytes, size_t stride_bytes, void *data,
            struct nd_error *err)
{
    uint8_t *bytes = data;
    size_t chunk = chunk_of(buffer, rows, stride_bytes);
    enum nd_status status = nd_gpu_wait(gpu, err);
    for (size_t row = 0; status == ND_OK && row < rows; row += chunk) {
        size_t n = rows - row < chunk ? rows - row : chunk;
        const uint8_t *from = buffer->mapped;
        if (from == NULL) {
            from = gpu->staging.mapped;
            status = copy(gpu, buffer->buffer, row * stride_bytes,
                          gpu->staging.buffer, 0, n * stride_bytes, err);
        }
        for (size_t i = 0; status == ND_OK && i < n; i++)
            memcpy(bytes + (row + i) * row_bytes, from + i * stride_bytes,
                   row_bytes);
    }
    return status;
}

/* --- buffers that every program needs ----------------------------------- */

enum nd_status
nd_gpu_memory_init(struct nd_gpu *gpu, struct nd_error *err)
{
    enum nd_status status =
        nd_gpu_buffer_new(gpu, ND_GPU_HOST, 64, &gpu->step, err);
    if (status == ND_OK && !gpu->mapped)
        status = nd_gpu_buffer_new(gpu, ND_GPU_HOST, STAGING_BYTES,
                                   &gpu->staging, err);
    if (status == ND_OK)
        status =
            nd_gpu_buffer_new(gpu, ND_GPU_FLOATS, 64, &gpu->zeros[0], err);
    if (status == ND_OK)
        status = nd_gpu_buffer_new(gpu, ND_GPU_WORDS, 64, &gpu->zeros[1], err);
    return status;
}

void
nd_gpu_memory_end(struct nd_gpu *gpu)
{
    nd_gpu_buffer_free(gpu, &gpu->step);
    nd_gpu_buffer_free(gpu, &gpu->staging);
    nd_gpu_buffer_free(gpu, &gpu->zeros[0]);
    nd_gpu_buffer_free(gpu, &gpu->zeros[1]);
}
