#include "gpu_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct gpu_backend {
    struct nd_backend base;
    struct nd_gpu *gpu;
};

/* A program owns one list of tiles per ATTENTION op; usually one is used. */
struct nd_program {
    struct nd_gpu_recording recording;
    struct nd_gpu_tiles *tiles;
    size_t n_tiles;
};

static struct nd_gpu *
gpu_of(struct nd_backend *backend)
{
    return ((struct gpu_backend *)backend)->gpu;
}

static void
backend_destroy(struct nd_backend *backend)
{
    if (backend == NULL)
        return;
    nd_gpu_close(gpu_of(backend));
    free(backend);
}

/* --- tensors ------------------------------------------------------------ */

static size_t
element_bytes(enum nd_type type)
{
    return type == ND_INT8 ? 1 : 4;
}

static void
tensor_destroy(struct nd_backend *backend, struct nd_tensor *tensor)
{
    struct nd_gpu_tensor *t = (struct nd_gpu_tensor *)tensor;
    if (t == NULL)
        return;
    nd_gpu_wait(gpu_of(backend), NULL);
    nd_gpu_buffer_free(gpu_of(backend), &t->buffer);
    free(t);
}

/*
 * Texel families read many rows side by side. Rows a multiple of 1 KiB apart
 * would share few sets of a core's first cache: 3 % of a step.
 */
static size_t
stride_of(const struct nd_gpu *gpu, enum nd_type type, size_t columns)
{
    size_t stride = nd_stride(columns);
    bool clash = gpu->kernels->texels && type == ND_FLOAT32;
    return clash && stride % 256 == 0 ? stride + 16 : stride;
}

static enum nd_status
tensor_create(struct nd_backend *backend, enum nd_type type, size_t rows,
              size_t columns, struct nd_tensor **tensor, struct nd_error *err)
{
    struct nd_gpu_tensor *t = calloc(1, sizeof *t);
    size_t bytes;
    *tensor = NULL;
    if (t == NULL)
        return nd_fail(err, ND_NO_MEMORY, "no memory for a tensor");
    t->base = (struct nd_tensor){type, rows, columns,
                                 stride_of(gpu_of(backend), type, columns)};
    if (!nd_mul_size(rows, t->base.stride * element_bytes(type), &bytes)) {
        free(t);
        return nd_fail(err, ND_NO_MEMORY, "a tensor of %zu x %zu is too large",
                       rows, columns);
    }
    enum nd_status status = nd_gpu_buffer_new(
        gpu_of(backend), type == ND_UINT32 ? ND_GPU_WORDS : ND_GPU_FLOATS,
        bytes, &t->buffer, err);
    if (status != ND_OK) {
        free(t);
        return status;
    }
    *tensor = &t->base;
    return ND_OK;
}

static enum nd_status
tensor_write(struct nd_backend *backend, struct nd_tensor *tensor, size_t rows,
             const void *data, struct nd_error *err)
{
    struct nd_gpu_tensor *t = (struct nd_gpu_tensor *)tensor;
    size_t bytes = element_bytes(tensor->type);
    return nd_gpu_write(gpu_of(backend), &t->buffer, rows,
                        tensor->columns * bytes, tensor->stride * bytes, data,
                        err);
}

static enum nd_status
tensor_read(struct nd_backend *backend, const struct nd_tensor *tensor,
            size_t rows, void *data, struct nd_error *err)
{
    const struct nd_gpu_tensor *t = (const struct nd_gpu_tensor *)tensor;
    size_t bytes = element_bytes(tensor->type);
    return nd_gpu_read(gpu_of(backend), &t->buffer, rows,
                       tensor->columns * bytes, tensor->stride * bytes, data,
                       err);
}

/* --- weights ------------------------------------------------------------ */

static size_t
round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

/*
 * Where element (n, k) goes, in floats. Texel families read panels of
 * `panel` columns, k by k; the others one panel of all columns.
 */
static void
pack(float *to, const float *matrix, size_t out, size_t in, size_t rows,
     size_t panel)
{
    for (size_t n = 0; n < out; n++) {
        float *column = to + n / panel * rows * panel + n % panel;
        for (size_t k = 0; k < in; k++)
            column[k * panel] = matrix[n * in + k];
    }
}

static void
weight_destroy(struct nd_backend *backend, struct nd_weight *weight)
{
    struct nd_gpu_weight *w = (struct nd_gpu_weight *)weight;
    if (w == NULL)
        return;
    nd_gpu_wait(gpu_of(backend), NULL);
    nd_gpu_buffer_free(gpu_of(backend), &w->buffer);
    free(w);
}

/* The packed matrix goes to the device as rows of 64 KiB. */
static enum nd_status
upload(struct nd_gpu *gpu, struct nd_gpu_weight *w, const float *packed,
       size_t floats, struct nd_error *err)
{
    const size_t row = 1 << 16;
    enum nd_status status = nd_gpu_buffer_new(gpu, ND_GPU_WEIGHTS, floats * 4,
                                              &w->buffer, err);
    if (status == ND_OK)
        status = nd_gpu_write(gpu, &w->buffer, floats * 4 / row, row, row,
                              packed, err);
    return status;
}

static enum nd_status
weight_create(struct nd_backend *backend, const float *matrix,
              const float *bias, size_t out, size_t in,
              struct nd_weight **weight, struct nd_error *err)
{
    struct nd_gpu *gpu = gpu_of(backend);
    bool panels = gpu->kernels->texels;
    size_t rows = round_up(in, panels ? 4 : 16);
    size_t columns = round_up(out, 64);
    size_t floats = round_up(rows * columns + columns, 1 << 14);
    struct nd_gpu_weight *w = calloc(1, sizeof *w);
    float *packed = calloc(floats, sizeof *packed);
    enum nd_status status = ND_OK;
    *weight = NULL;
    if (w == NULL || packed == NULL) {
        status = nd_fail(err, ND_NO_MEMORY, "no memory for a weight");
        goto done;
    }
    w->base = (struct nd_weight){out, in};
    w->in4 = (uint32_t)((in + 3) / 4);
    w->panel_stride4 = (uint32_t)(columns / 4);
    w->bias4 = (uint32_t)(rows * columns / 4);
    pack(packed, matrix, out, in, rows,
         panels ? 4 * gpu->info.subgroup : columns);
    if (bias != NULL)
        memcpy(packed + rows * columns, bias, out * sizeof *bias);
    status = upload(gpu, w, packed, floats, err);
done:
    free(packed);
    if (status == ND_OK)
        *weight = &w->base;
    else if (w != NULL)
        weight_destroy(backend, &w->base);
    return status;
}

/* --- programs ----------------------------------------------------------- */

static void
program_destroy(struct nd_backend *backend, struct nd_program *program)
{
    struct nd_gpu *gpu = gpu_of(backend);
    if (program == NULL)
        return;
    nd_gpu_wait(gpu, NULL);
    nd_gpu_recording_free(gpu, &program->recording);
    for (size_t i = 0; i < program->n_tiles; i++)
        nd_gpu_buffer_free(gpu, &program->tiles[i].buffer);
    free(program->tiles);
    free(program);
}

/* Ops over the same batch share the tiles that the first of them made. */
static struct nd_gpu_tiles *
tiles_for(struct nd_program *program, const struct nd_op *op)
{
    if (op->kind != ND_OP_ATTENTION)
        return NULL;
    for (size_t i = 0; i < program->n_tiles; i++)
        if (program->tiles[i].offsets == op->as.attention.ragged.offsets)
            return &program->tiles[i];
    return &program->tiles[program->n_tiles++];
}

static enum nd_status
program_create(struct nd_backend *backend, const struct nd_op *ops,
               size_t n_ops, struct nd_program **program, struct nd_error *err)
{
    struct nd_gpu *gpu = gpu_of(backend);
    struct nd_program *p = calloc(1, sizeof *p);
    enum nd_status status;
    *program = NULL;
    if (p == NULL)
        return nd_fail(err, ND_NO_MEMORY, "no memory for a program");
    p->tiles = calloc(n_ops == 0 ? 1 : n_ops, sizeof *p->tiles);
    if (p->tiles == NULL)
        status = nd_fail(err, ND_NO_MEMORY, "no memory for a program");
    else
        status = nd_gpu_recording_begin(gpu, n_ops * ND_GPU_MAX_CALLS_OF_OP,
                                        &p->recording, err);
    for (size_t i = 0; i < n_ops && status == ND_OK; i++)
        status = nd_gpu_record_op(gpu, &p->recording, &ops[i],
                                  tiles_for(p, &ops[i]), err);
    if (status == ND_OK)
        status = nd_gpu_recording_end(gpu, &p->recording, err);
    if (status == ND_OK)
        *program = p;
    else
        program_destroy(backend, p);
    return status;
}

static enum nd_status
program_run(struct nd_backend *backend, struct nd_program *program,
            const struct nd_step *step, struct nd_error *err)
{
    struct nd_gpu *gpu = gpu_of(backend);
    enum nd_status status = nd_gpu_wait(gpu, err);
    if (status != ND_OK)
        return status;
    memcpy(gpu->step.mapped, step, sizeof *step);
    return nd_gpu_submit(gpu, program->recording.commands, err);
}

/* --- the backend -------------------------------------------------------- */

static const struct nd_backend_functions functions = {
    .destroy = backend_destroy,
    .tensor_create = tensor_create,
    .tensor_destroy = tensor_destroy,
    .tensor_write = tensor_write,
    .tensor_read = tensor_read,
    .weight_create = weight_create,
    .weight_destroy = weight_destroy,
    .program_create = program_create,
    .program_destroy = program_destroy,
    .program_run = program_run,
};

enum nd_status
nd_gpu_backend_create(int index, struct nd_backend **backend,
                      struct nd_error *err)
{
    struct gpu_backend *b = calloc(1, sizeof *b);
    *backend = NULL;
    if (b == NULL)
        return nd_fail(err, ND_NO_MEMORY, "no memory for a backend");
    b->base.functions = &functions;
    enum nd_status status = nd_gpu_open(index, &b->gpu, err);
    if (status == ND_OK)
        status = nd_gpu_choose(&b->base, b->gpu, err);
    if (status != ND_OK) {
        backend_destroy(&b->base);
        return status;
    }
    b->base.preferred_tokens = b->gpu->kernels->tokens;
    snprintf(b->base.device, sizeof b->base.device, "vulkan:%d (%.200s, %s)",
             index, b->gpu->info.name, b->gpu->kernels->name);
    *backend = &b->base;
    return ND_OK;
}
