#include "gpu_internal.h"

#include <string.h>

#include "params.h"

/* --- texel: Vulkan on a CPU --------------------------------------------- */

/*
 * A load of texels is the one load that a CPU driver makes of vectors, and
 * constant-lane shuffles are its one cheap broadcast. A tile of 32 rows is a
 * tenth quicker than one of 16, unless rows stay empty; a larger one leaves
 * the core's cache of decoded instructions and is a third slower.
 * The threads take equal parts of the grid in order: as rows are its slow
 * side, in every op, a thread finds what it needs in its own core's caches.
 */
static void
texel_linear(const struct nd_gpu *gpu, const struct nd_linear *op,
             struct nd_gpu_call *call)
{
    uint32_t lanes = gpu->info.subgroup, rows = 32, panels = 1;
    if (nd_gpu_parts(op->rows, 32) * 20 > nd_gpu_parts(op->rows, 16) * 11)
        rows = op->rows <= 8 && lanes == 8 ? 8 : 16;
    if (lanes == 8 && op->weight->out > 4 * lanes)
        panels = 2;
    call->shader = ND_GPU_SHADER_linear;
    call->constants[0] = lanes;
    call->constants[2] = rows;
    call->constants[4] = panels;
    call->groups[0] = nd_gpu_parts(op->weight->out, 4 * lanes * panels);
    call->groups[1] = nd_gpu_parts(op->rows, rows);
}

static size_t
padded_rows(const struct nd_ragged *ragged, size_t rows)
{
    size_t n = 0;
    for (size_t f = 0; f < ragged->n_flows; f++)
        n += nd_gpu_parts(ragged->offsets[f + 1] - ragged->offsets[f], rows) *
             rows;
    return n;
}

/*
 * 16 queries use each load of a key twice as often as 8 and are a tenth
 * quicker, unless short flows leave rows empty.
 */
static uint32_t
texel_attention(const struct nd_gpu *gpu, const struct nd_ragged *ragged,
                uint32_t head4, struct nd_gpu_call *call)
{
    uint32_t lanes = gpu->info.subgroup, queries = 16;
    size_t of_8 = padded_rows(ragged, 8), of_16 = padded_rows(ragged, 16);
    if (lanes == 8 && of_16 * 10 > of_8 * 11)
        queries = 8;
    call->shader = ND_GPU_SHADER_attention;
    call->constants[0] = lanes;
    call->constants[2] = queries;
    call->constants[3] = head4;
    return queries;
}

/* --- subgroup: GPUs, tiles in registers --------------------------------- */

static void
subgroup_linear(const struct nd_gpu *gpu, const struct nd_linear *op,
                struct nd_gpu_call *call)
{
    uint32_t lanes = gpu->info.subgroup;
    uint32_t wide = lanes >= 32 ? 8 : 4; /* lanes side by side */
    call->shader = ND_GPU_SHADER_linear_subgroup;
    call->constants[0] = lanes;
    call->constants[2] = wide;
    call->groups[0] = nd_gpu_parts(op->rows, 4 * lanes / wide);
    call->groups[1] = nd_gpu_parts(op->weight->out, 4 * wide);
}

/* --- tile: GPUs, tiles in shared memory --------------------------------- */

/*
 * Few tokens make few tiles: those are small, and for the fewest the four
 * parts of a sum run side by side. The order of a sum is always the same.
 */
static void
tile_linear(const struct nd_gpu *gpu, const struct nd_linear *op,
            struct nd_gpu_call *call)
{
    uint32_t rows = op->rows <= 16 ? 16 : op->rows <= 32 ? 32 : 64;
    if (gpu->limits.maxComputeWorkGroupInvocations < 256 && rows == 64)
        rows = 32;
    uint32_t columns = rows == 64 ? 64 : 32, split = rows == 16 ? 4 : 1;
    call->shader = ND_GPU_SHADER_linear_tile;
    call->constants[0] = rows * columns / 16 * split;
    call->constants[2] = rows;
    call->constants[4] = columns;
    call->constants[5] = split;
    call->groups[0] = nd_gpu_parts(op->rows, rows);
    call->groups[1] = nd_gpu_parts(op->weight->out, columns);
}

/* One query an invocation; keys and values in 16 KiB of shared memory. */
static uint32_t
tile_attention(const struct nd_gpu *gpu, const struct nd_ragged *ragged,
               uint32_t head4, struct nd_gpu_call *call)
{
    uint32_t lanes = gpu->kernels->lanes;
    (void)ragged;
    call->shader = ND_GPU_SHADER_attention_tile;
    call->constants[0] = lanes;
    call->constants[2] = head4 > 256       ? 1
                         : 512 / head4 < 32 ? 512 / head4
                                            : 32;
    call->constants[3] = head4;
    return lanes;
}

/* --- the table ---------------------------------------------------------- */

#define TYPE(name) (1u << ND_GPU_##name)
#define GPUS                                                                  \
    (TYPE(DISCRETE) | TYPE(INTEGRATED) | TYPE(VIRTUAL) | TYPE(OTHER))

/* The best first. The last needs nothing beyond Vulkan 1.1. */
const struct nd_gpu_family nd_gpu_families[] = {
    {
        .name = "texel",
        .home = TYPE(CPU),
        .shuffle = true,
        .int64 = true,
        .least_subgroup = 8,
        .most_subgroup = 16,
        .invocations = 16,
        .texels = true,
        .rows = 16,
        .share = 1,
        .tokens = 512,
        .linear = texel_linear,
        .attention = texel_attention,
    },
    {
        .name = "subgroup",
        .home = GPUS,
        .shuffle = true,
        .least_subgroup = 8,
        .most_subgroup = 64,
        .shared_bytes = 16384,
        .invocations = 64,
        .lanes = 64,
        .rows = 2,
        .share = 32,
        .tokens = 4096,
        .linear = subgroup_linear,
        .attention = tile_attention,
    },
    {
        .name = "tile",
        .home = GPUS,
        .shared_bytes = 16384,
        .invocations = 128,
        .staged = true,
        .lanes = 64,
        .rows = 2,
        .share = 32,
        .tokens = 4096,
        .linear = tile_linear,
        .attention = tile_attention,
    },
};

const size_t nd_gpu_family_count =
    sizeof nd_gpu_families / sizeof *nd_gpu_families;

const struct nd_gpu_family *
nd_gpu_find_family(const char *name)
{
    for (size_t i = 0; i < nd_gpu_family_count; i++)
        if (strcmp(name, nd_gpu_families[i].name) == 0)
            return &nd_gpu_families[i];
    return NULL;
}

const char *
nd_gpu_lacks(const struct nd_gpu *gpu, const struct nd_gpu_family *family)
{
    const VkPhysicalDeviceLimits *has = &gpu->limits;
    uint32_t lanes = gpu->info.subgroup;
    if (family->shuffle && !gpu->shuffle)
        return "subgroup shuffles";
    if (family->int64 && !gpu->int64)
        return "integers of 64 bits";
    if (family->least_subgroup > 0 && (lanes < family->least_subgroup ||
                                       lanes > family->most_subgroup ||
                                       (lanes & (lanes - 1)) != 0))
        return "subgroups of a fitting size";
    if (has->maxComputeSharedMemorySize < family->shared_bytes)
        return "shared memory";
    if (has->maxComputeWorkGroupInvocations < family->invocations)
        return "large workgroups";
    if (has->maxPerStageDescriptorStorageBuffers < ND_GPU_MAX_BUFFERS ||
        has->maxPerStageDescriptorStorageImages < ND_GPU_MAX_INPUTS)
        return "descriptors";
    return NULL;
}
