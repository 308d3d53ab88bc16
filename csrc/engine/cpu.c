#include "cpu.h"
#include "threads.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static size_t
type_size(enum nd_type type)
{
    return type == ND_INT8 ? 1 : 4;
}

static enum nd_status
tensor_create(struct nd_backend *backend, enum nd_type type, size_t rows,
              size_t columns, struct nd_tensor **tensor, struct nd_error *err)
{
    size_t stride = nd_stride(columns);
    struct nd_cpu_tensor *made = malloc(sizeof *made);
    if (made != NULL) {
        made->base = (struct nd_tensor){type, rows, columns, stride};
        made->data = nd_cpu_memory_new((void *)backend, false, rows,
                                       stride * type_size(type),
                                       &made->block);
        if (made->data != NULL) {
            *tensor = &made->base;
            return ND_OK;
        }
        free(made);
    }
    return nd_fail(err, ND_NO_MEMORY, "no memory for a tensor of %zu x %zu",
                   rows, columns);
}

static void
tensor_destroy(struct nd_backend *backend, struct nd_tensor *tensor)
{
    struct nd_cpu_tensor *made = (void *)tensor;
    if (made != NULL)
        nd_cpu_memory_free((void *)backend, made->block, made->data);
    free(made);
}

static enum nd_status
tensor_write(struct nd_backend *backend, struct nd_tensor *tensor, size_t rows,
             const void *data, struct nd_error *err)
{
    size_t size = type_size(tensor->type);
    char *to = ((struct nd_cpu_tensor *)(void *)tensor)->data;
    const char *from = data;
    (void)backend;
    (void)err;
    for (size_t row = 0; row < rows; row++)
        memcpy(to + row * tensor->stride * size,
               from + row * tensor->columns * size, tensor->columns * size);
    return ND_OK;
}

static enum nd_status
tensor_read(struct nd_backend *backend, const struct nd_tensor *tensor,
            size_t rows, void *data, struct nd_error *err)
{
    size_t size = type_size(tensor->type);
    const char *from = ((const struct nd_cpu_tensor *)(const void *)tensor)
                           ->data;
    char *to = data;
    (void)backend;
    (void)err;
    for (size_t row = 0; row < rows; row++)
        memcpy(to + row * tensor->columns * size,
               from + row * tensor->stride * size, tensor->columns * size);
    return ND_OK;
}

static void
weight_destroy(struct nd_backend *backend, struct nd_weight *weight)
{
    struct nd_cpu_weight *made = (void *)weight;
    if (made != NULL)
        nd_cpu_memory_free((void *)backend, made->block, made->data);
    free(made);
}

static void
pack(struct nd_cpu_weight *weight, const float *matrix, const float *bias)
{
    size_t out = weight->base.out, in = weight->base.in;
    float *packed_bias = weight->data + weight->panels * in * ND_PANEL;
    for (size_t n = 0; n < out; n++) {
        float *to = weight->data + n / ND_PANEL * in * ND_PANEL + n % ND_PANEL;
        for (size_t k = 0; k < in; k++)
            to[k * ND_PANEL] = matrix[n * in + k];
        packed_bias[n] = bias != NULL ? bias[n] : 0.0f;
    }
    weight->bias = packed_bias;
}

static enum nd_status
weight_create(struct nd_backend *backend, const float *matrix,
              const float *bias, size_t out, size_t in,
              struct nd_weight **weight, struct nd_error *err)
{
    struct nd_cpu_weight *made = malloc(sizeof *made);
    if (made != NULL) {
        made->base = (struct nd_weight){out, in};
        made->panels = (out + ND_PANEL - 1) / ND_PANEL;
        made->data = nd_cpu_memory_new(
            (void *)backend, true, made->panels * ND_PANEL,
            (in + 1) * sizeof *made->data, &made->block);
        if (made->data != NULL) {
            pack(made, matrix, bias);
            *weight = &made->base;
            return ND_OK;
        }
        free(made);
    }
    return nd_fail(err, ND_NO_MEMORY, "no memory for weights of %zu x %zu",
                   out, in);
}

static void
destroy(struct nd_backend *backend)
{
    struct nd_cpu *cpu = (void *)backend;
    if (cpu == NULL)
        return;
    nd_threads_destroy(cpu->threads);
    if (cpu->scratch != NULL)
        nd_cpu_memory_free(cpu, cpu->scratch_block, cpu->scratch);
    free(cpu);
}

static const struct nd_backend_functions functions = {
    .destroy = destroy,
    .tensor_create = tensor_create,
    .tensor_destroy = tensor_destroy,
    .tensor_write = tensor_write,
    .tensor_read = tensor_read,
    .weight_create = weight_create,
    .weight_destroy = weight_destroy,
    .program_create = nd_cpu_program_create,
    .program_destroy = nd_cpu_program_destroy,
    .program_run = nd_cpu_program_run,
};

/* The best kernels of this CPU, or those of a name; NULL: it lacks them. */
static const struct nd_cpu_kernels *
find_kernels(const char *name)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                  __builtin_cpu_supports("avx512dq") &&
                  __builtin_cpu_supports("avx512vl");
    if (avx512 && (name == NULL || strcmp(name, nd_cpu_avx512.name) == 0))
        return &nd_cpu_avx512;
    if (avx2 && (name == NULL || strcmp(name, nd_cpu_avx2.name) == 0))
        return &nd_cpu_avx2;
#endif
    if (name == NULL || strcmp(name, nd_cpu_baseline.name) == 0)
        return &nd_cpu_baseline;
    return NULL;
}

enum nd_status
nd_cpu_backend_create(size_t count, const char *instructions,
                      struct nd_backend **backend, struct nd_error *err)
{
    const struct nd_cpu_kernels *kernels = find_kernels(instructions);
    if (kernels == NULL)
        return nd_fail(err, ND_DEVICE,
                       "this CPU has no instructions \"%s\"; device \"cpu\" "
                       "takes the best that it has",
                       instructions);
    struct nd_cpu *cpu = calloc(1, sizeof *cpu);
    if (cpu != NULL)
        cpu->threads =
            nd_threads_create(count > 0 ? count : nd_threads_available());
    if (cpu == NULL || cpu->threads == NULL) {
        free(cpu);
        return nd_fail(err, ND_NO_MEMORY, "no memory for the cpu backend");
    }
    cpu->base.functions = &functions;
    cpu->base.preferred_tokens = 2048;
    cpu->kernels = kernels;
    snprintf(cpu->base.device, sizeof cpu->base.device,
             "cpu (%s, %zu threads)", kernels->name,
             nd_threads_count(cpu->threads));
    *backend = &cpu->base;
    return ND_OK;
}
