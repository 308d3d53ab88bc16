#include "cpu.h"
#include "threads.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 64 };

struct cpu {
    struct nd_backend base;
    const struct nd_cpu_kernels *kernels;
    nd_cpu_run *run[ND_OP_COUNT];
    struct nd_threads *threads;
    float *scratch; /* scratch_size floats for each thread */
    size_t scratch_size;
};

struct program {
    size_t n_ops, n_queries;
    struct nd_op *ops;
    struct nd_cpu_queries *queries; /* of every ATTENTION: same batch */
    size_t scratch_size;
};

/* One op on its way through the threads. */
struct work {
    const struct cpu *cpu;
    const struct nd_op *op;
    struct nd_cpu_context context;
};

/* Zeroed and aligned; a size that overflows has no memory either. */
static void *
allocate(size_t count, size_t size)
{
    size_t bytes;
    if (!nd_mul_size(count, size, &bytes) || bytes > SIZE_MAX - ALIGNMENT)
        return NULL;
    bytes = (bytes + ALIGNMENT) / ALIGNMENT * ALIGNMENT;
    void *memory = aligned_alloc(ALIGNMENT, bytes);
    if (memory != NULL)
        memset(memory, 0, bytes);
    return memory;
}

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
    (void)backend;
    if (made != NULL) {
        made->base = (struct nd_tensor){type, rows, columns, stride};
        made->data = allocate(rows, stride * type_size(type));
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
    (void)backend;
    if (tensor != NULL)
        free(((struct nd_cpu_tensor *)(void *)tensor)->data);
    free(tensor);
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
    (void)backend;
    if (weight != NULL)
        free(((struct nd_cpu_weight *)(void *)weight)->data);
    free(weight);
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
    (void)backend;
    if (made != NULL) {
        made->base = (struct nd_weight){out, in};
        made->panels = (out + ND_PANEL - 1) / ND_PANEL;
        made->data = allocate(made->panels * ND_PANEL,
                              (in + 1) * sizeof *made->data);
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

/* The blocks of queries of a batch; a count call has blocks NULL. */
static size_t
list_queries(const struct nd_ragged *ragged, struct nd_cpu_queries *blocks)
{
    size_t count = 0;
    for (size_t f = 0; f < ragged->n_flows; f++) {
        uint32_t start = ragged->offsets[f];
        uint32_t packets = ragged->offsets[f + 1] - start;
        for (uint32_t first = 0; first < packets; first += ND_ROW_BLOCK) {
            uint32_t left = packets - first;
            if (blocks != NULL)
                blocks[count] = (struct nd_cpu_queries){
                    start, packets, first,
                    left < ND_ROW_BLOCK ? left : ND_ROW_BLOCK};
            count++;
        }
    }
    return count;
}

static void
program_destroy(struct nd_backend *backend, struct nd_program *opaque)
{
    struct program *program = (void *)opaque;
    (void)backend;
    if (program != NULL) {
        free(program->ops);
        free(program->queries);
    }
    free(program);
}

static size_t
attention_scratch(const struct nd_attention *op)
{
    size_t d = op->out->columns / op->heads;
    size_t padded = nd_stride(op->ragged.longest);
    return padded * d + padded * nd_stride(d) + ND_ROW_BLOCK * d +
           ND_TILE_MOST * padded;
}

static bool
fill_program(struct program *program, const struct nd_op *ops, size_t n_ops)
{
    program->ops = malloc(n_ops * sizeof *ops);
    if (program->ops == NULL)
        return false;
    memcpy(program->ops, ops, n_ops * sizeof *ops);
    program->n_ops = n_ops;
    for (size_t i = 0; i < n_ops; i++) {
        const struct nd_attention *op = &ops[i].as.attention;
        if (ops[i].kind != ND_OP_ATTENTION)
            continue;
        size_t need = attention_scratch(op);
        if (need > program->scratch_size)
            program->scratch_size = need;
        if (program->queries != NULL)
            continue;
        program->n_queries = list_queries(&op->ragged, NULL);
        program->queries = malloc((program->n_queries + 1) *
                                  sizeof *program->queries);
        if (program->queries == NULL)
            return false;
        list_queries(&op->ragged, program->queries);
    }
    return true;
}

static bool
ensure_scratch(struct cpu *cpu, size_t size)
{
    if (size <= cpu->scratch_size)
        return true;
    size = nd_stride(size);
    free(cpu->scratch);
    cpu->scratch_size = 0;
    cpu->scratch = allocate(nd_threads_count(cpu->threads),
                            size * sizeof *cpu->scratch);
    if (cpu->scratch != NULL)
        cpu->scratch_size = size;
    return cpu->scratch != NULL;
}

static enum nd_status
program_create(struct nd_backend *backend, const struct nd_op *ops,
               size_t n_ops, struct nd_program **opaque, struct nd_error *err)
{
    struct program *program = calloc(1, sizeof *program);
    if (program == NULL || !fill_program(program, ops, n_ops) ||
        !ensure_scratch((struct cpu *)(void *)backend,
                        program->scratch_size)) {
        program_destroy(backend, (void *)program);
        return nd_fail(err, ND_NO_MEMORY, "no memory for a program of %zu ops",
                       n_ops);
    }
    *opaque = (void *)program;
    return ND_OK;
}

/* Items of work that an op is cut into. */
static size_t
count_items(const struct program *program, const struct nd_op *op)
{
    switch (op->kind) {
    case ND_OP_LINEAR:
        return nd_cpu_blocks(op->as.linear.rows) *
               nd_cpu_groups(op->as.linear.weight);
    case ND_OP_ATTENTION:
        return program->n_queries * op->as.attention.heads;
    case ND_OP_NORM:
        return nd_cpu_blocks(op->as.norm.rows);
    case ND_OP_CONDITION:
        return nd_cpu_blocks(op->as.condition.rows);
    case ND_OP_INPUT:
        return nd_cpu_blocks(op->as.input.rows);
    case ND_OP_HOLD:
        return nd_cpu_blocks(op->as.hold.rows);
    case ND_OP_ESTIMATE:
        return nd_cpu_blocks(op->as.estimate.rows);
    case ND_OP_NOISE:
        return nd_cpu_blocks(op->as.noise.ragged.n_tokens);
    case ND_OP_RENOISE:
        return nd_cpu_blocks(op->as.renoise.ragged.n_tokens);
    case ND_OP_DRAW:
        return nd_cpu_blocks(op->as.draw.ragged.n_tokens);
    case ND_OP_COUNT:
        break;
    }
    return 0;
}

static void
do_item(void *argument, size_t item, size_t worker)
{
    const struct work *work = argument;
    struct nd_cpu_context context = work->context;
    context.scratch =
        work->cpu->scratch == NULL
            ? NULL
            : work->cpu->scratch + worker * work->cpu->scratch_size;
    work->cpu->run[work->op->kind](work->op, item, &context);
}

static enum nd_status
program_run(struct nd_backend *backend, struct nd_program *opaque,
            const struct nd_step *step, struct nd_error *err)
{
    struct cpu *cpu = (void *)backend;
    const struct program *program = (const void *)opaque;
    (void)err;
    for (size_t i = 0; i < program->n_ops; i++) {
        const struct nd_op *op = &program->ops[i];
        struct work work = {cpu, op, {step, program->queries, NULL}};
        nd_threads_run(cpu->threads, do_item, &work, count_items(program, op));
    }
    return ND_OK;
}

static void
destroy(struct nd_backend *backend)
{
    struct cpu *cpu = (void *)backend;
    if (cpu == NULL)
        return;
    nd_threads_destroy(cpu->threads);
    free(cpu->scratch);
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
    .program_create = program_create,
    .program_destroy = program_destroy,
    .program_run = program_run,
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

static void
fill_table(struct cpu *cpu)
{
    cpu->run[ND_OP_LINEAR] = cpu->kernels->linear;
    cpu->run[ND_OP_NORM] = cpu->kernels->norm;
    cpu->run[ND_OP_ATTENTION] = cpu->kernels->attention;
    cpu->run[ND_OP_CONDITION] = cpu->kernels->condition;
    cpu->run[ND_OP_ESTIMATE] = cpu->kernels->estimate;
    cpu->run[ND_OP_INPUT] = nd_cpu_input;
    cpu->run[ND_OP_HOLD] = nd_cpu_hold;
    cpu->run[ND_OP_NOISE] = nd_cpu_noise;
    cpu->run[ND_OP_RENOISE] = nd_cpu_renoise;
    cpu->run[ND_OP_DRAW] = nd_cpu_draw;
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
    struct cpu *cpu = calloc(1, sizeof *cpu);
    if (cpu != NULL)
        cpu->threads =
            nd_threads_create(count > 0 ? count : nd_threads_available());
    if (cpu == NULL || cpu->threads == NULL) {
        free(cpu);
        return nd_fail(err, ND_NO_MEMORY, "no memory for the cpu backend");
    }
    cpu->base.functions = &functions;
    cpu->base.preferred_tokens = 1024;
    cpu->kernels = kernels;
    snprintf(cpu->base.device, sizeof cpu->base.device,
             "cpu (%s, %zu threads)", kernels->name,
             nd_threads_count(cpu->threads));
    fill_table(cpu);
    *backend = &cpu->base;
    return ND_OK;
}
