/* Which kernel family a device runs: tested against C, then timed. */
#define _POSIX_C_SOURCE 200809L
#include "gpu_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cpu.h"
#include "ops.h"

/* --- the self-test: the network in small -------------------------------- */

enum {
    FLOWS = 3,
    TOKENS = 40, /* 1 + 15 + 24 */
    LONGEST = 24,
    WIDTH = 128,
    HEADS = 2,
    CELLS = 21,
    PLANE = 32, /* nd_stride(CELLS) */
    INPUTS = 5 * PLANE + 1,
    LAYERS = 6,
    FLOATS = TOKENS * (WIDTH + 5 * PLANE),
    LARGEST = 3 * WIDTH * WIDTH
};

struct trial {
    struct nd_backend *backend;
    struct nd_tensor *tokens, *flows, *given, *levels, *condition;
    struct nd_tensor *modulation, *constant, *rotary, *x, *estimate, *input;
    struct nd_tensor *h, *y, *qkv, *logits, *cells;
    struct nd_weight *layers[LAYERS];
    struct nd_error *err;
    float *values; /* room for the largest tensor or weight */
};

/* What a trial comes to. */
struct outcome {
    float floats[FLOATS];
    int8_t cells[TOKENS * CELLS];
};

static const uint32_t offsets[FLOWS + 1] = {0, 1, 16, TOKENS};

/* Numbers in -scale to scale, the same on every device. */
static const float *
numbers(const struct trial *t, size_t count, uint32_t seed, float scale)
{
    for (size_t i = 0; i < count; i++) {
        seed = seed * 1664525u + 1013904223u;
        t->values[i] = scale * ((float)(seed >> 8) / 8388608.0f - 1.0f);
    }
    return t->values;
}

static enum nd_status
write_tables(const struct trial *t)
{
    const struct nd_backend_functions *f = t->backend->functions;
    uint32_t rows[TOKENS][4], flows[FLOWS][4];
    for (uint32_t i = 0; i < FLOWS; i++) {
        uint32_t first = offsets[i], packets = offsets[i + 1] - first;
        memcpy(flows[i], (uint32_t[4]){first, packets, i, 7}, 16);
        for (uint32_t k = 0; k < packets; k++)
            memcpy(rows[first + k], (uint32_t[4]){i, k, first, packets}, 16);
    }
    enum nd_status status =
        f->tensor_write(t->backend, t->tokens, TOKENS, rows, t->err);
    return status != ND_OK ? status
                           : f->tensor_write(t->backend, t->flows, FLOWS,
                                             flows, t->err);
}

static enum nd_status
create_tensors(struct trial *t)
{
    const struct {
        struct nd_tensor **tensor;
        size_t rows, columns;
        enum nd_type type;
    } all[] = {
        {&t->tokens, TOKENS, 4, ND_UINT32},
        {&t->flows, FLOWS, 4, ND_UINT32},
        {&t->cells, TOKENS, CELLS, ND_INT8},
        {&t->given, FLOWS, WIDTH, ND_FLOAT32},
        {&t->levels, 2, WIDTH, ND_FLOAT32},
        {&t->condition, FLOWS, WIDTH, ND_FLOAT32},
        {&t->modulation, FLOWS, 3 * WIDTH, ND_FLOAT32},
        {&t->constant, 1, 3 * WIDTH, ND_FLOAT32},
        {&t->rotary, LONGEST, WIDTH / HEADS, ND_FLOAT32},
        {&t->x, TOKENS, 3 * PLANE, ND_FLOAT32},
        {&t->estimate, TOKENS, 2 * PLANE, ND_FLOAT32},
        {&t->input, TOKENS, INPUTS, ND_FLOAT32},
        {&t->h, TOKENS, WIDTH, ND_FLOAT32},
        {&t->y, TOKENS, WIDTH, ND_FLOAT32},
        {&t->qkv, TOKENS, 3 * WIDTH, ND_FLOAT32},
        {&t->logits, TOKENS, 2 * PLANE, ND_FLOAT32},
    };
    const struct nd_backend_functions *f = t->backend->functions;
    enum nd_status status = ND_OK;
    for (size_t i = 0; i < sizeof all / sizeof *all && status == ND_OK; i++) {
        size_t count = all[i].rows * all[i].columns;
        status = f->tensor_create(t->backend, all[i].type, all[i].rows,
                                  all[i].columns, all[i].tensor, t->err);
        if (status == ND_OK && all[i].type == ND_FLOAT32)
            status = f->tensor_write(t->backend, *all[i].tensor, all[i].rows,
                                     numbers(t, count, (uint32_t)i, 1.0f),
                                     t->err);
    }
    return status == ND_OK ? write_tables(t) : status;
}

static enum nd_status
create_layers(struct trial *t)
{
    static const size_t sizes[LAYERS][2] = {
        {3 * WIDTH, WIDTH}, {WIDTH, INPUTS}, {3 * WIDTH, WIDTH},
        {WIDTH, WIDTH},     {WIDTH, WIDTH},  {2 * PLANE, WIDTH},
    };
    enum nd_status status = ND_OK;
    for (uint32_t i = 0; i < LAYERS && status == ND_OK; i++) {
        size_t out = sizes[i][0], in = sizes[i][1];
        const float *matrix = numbers(t, out * in, 77 + i, 0.15f);
        status = t->backend->functions->weight_create(
            t->backend, matrix, matrix, out, in, &t->layers[i], t->err);
    }
    return status;
}

static enum nd_status
append_layer(const struct trial *t, struct nd_ops *list, size_t layer,
             enum nd_epilogue epilogue, const struct nd_tensor *in,
             struct nd_tensor *out)
{
    struct nd_linear linear = {.in = in,
                               .weight = t->layers[layer],
                               .epilogue = epilogue,
                               .residual = t->h,
                               .modulation = t->modulation,
                               .constant = t->constant,
                               .tokens = t->tokens,
                               .gate = 2 * WIDTH,
                               .rows = layer == 0 ? FLOWS : TOKENS,
                               .out = out};
    return nd_op_linear(list, &linear, t->err);
}

/* Every op of a step but HOLD and RENOISE, in the network's order. */
static enum nd_status
append_ops(const struct trial *t, struct nd_ops *list)
{
    struct nd_ragged ragged = {t->tokens, t->flows, offsets,
                               TOKENS,    FLOWS,    LONGEST};
    struct nd_noise noise = {t->x, t->estimate, ragged};
    struct nd_condition condition = {t->given, t->levels, FLOWS,
                                     t->condition};
    struct nd_input input = {t->x, t->estimate, TOKENS, t->input};
    struct nd_norm norm = {.in = t->h,
                           .modulation = t->modulation,
                           .constant = t->constant,
                           .tokens = t->tokens,
                           .scale = WIDTH,
                           .rows = TOKENS,
                           .out = t->y};
    struct nd_attention attention = {t->qkv, t->rotary, ragged, HEADS, t->y};
    struct nd_estimate estimate = {t->logits, NULL, t->x, t->estimate,
                                   TOKENS};
    struct nd_draw draw = {t->logits, ragged, t->cells};
    struct nd_error *err = t->err;
    bool good =
        nd_op_noise(list, &noise, err) == ND_OK &&
        nd_op_condition(list, &condition, err) == ND_OK &&
        append_layer(t, list, 0, ND_EPILOGUE_NONE, t->condition,
                     t->modulation) == ND_OK &&
        nd_op_input(list, &input, err) == ND_OK &&
        append_layer(t, list, 1, ND_EPILOGUE_ADD, t->input, t->h) == ND_OK &&
        nd_op_norm(list, &norm, err) == ND_OK &&
        append_layer(t, list, 2, ND_EPILOGUE_NONE, t->y, t->qkv) == ND_OK &&
        nd_op_attention(list, &attention, err) == ND_OK &&
        append_layer(t, list, 3, ND_EPILOGUE_GATED, t->y, t->h) == ND_OK &&
        append_layer(t, list, 4, ND_EPILOGUE_GELU, t->h, t->y) == ND_OK &&
        append_layer(t, list, 5, ND_EPILOGUE_SILU, t->y, t->logits) ==
            ND_OK &&
        nd_op_estimate(list, &estimate, err) == ND_OK &&
        nd_op_draw(list, &draw, err) == ND_OK;
    return good ? ND_OK : ND_NO_MEMORY;
}

static enum nd_status
run_ops(const struct trial *t, struct outcome *to)
{
    const struct nd_backend_functions *f = t->backend->functions;
    const struct nd_step step = {.noise_row = 1,
                                 .input_scale = 0.4f,
                                 .estimated = 1.0f,
                                 .a = 0.5f,
                                 .b = 0.4f,
                                 .c = 0.1f,
                                 .noise_scale = 2.0f,
                                 .seed_low = 1};
    struct nd_ops list = {NULL, 0, 0};
    struct nd_program *program = NULL;
    float *floats = to->floats;
    enum nd_status status = append_ops(t, &list);
    if (status == ND_OK)
        status = f->program_create(t->backend, list.ops, list.count, &program,
                                   t->err);
    if (status == ND_OK)
        status = f->program_run(t->backend, program, &step, t->err);
    if (status == ND_OK)
        status = f->tensor_read(t->backend, t->h, TOKENS, floats, t->err);
    floats += TOKENS * WIDTH;
    if (status == ND_OK)
        status = f->tensor_read(t->backend, t->logits, TOKENS, floats, t->err);
    floats += TOKENS * 2 * PLANE;
    if (status == ND_OK)
        status = f->tensor_read(t->backend, t->x, TOKENS, floats, t->err);
    if (status == ND_OK)
        status =
            f->tensor_read(t->backend, t->cells, TOKENS, to->cells, t->err);
    f->program_destroy(t->backend, program);
    nd_ops_free(&list);
    return status;
}

static enum nd_status
run_trial(struct nd_backend *backend, struct outcome *to,
          struct nd_error *err)
{
    struct trial t = {.backend = backend, .err = err};
    t.values = malloc(LARGEST * sizeof *t.values);
    if (t.values == NULL)
        return nd_fail(err, ND_NO_MEMORY, "no memory for the self-test");
    enum nd_status status = create_tensors(&t);
    if (status == ND_OK)
        status = create_layers(&t);
    if (status == ND_OK)
        status = run_ops(&t, to);
    struct nd_tensor *tensors[] = {
        t.tokens,   t.flows,  t.given, t.levels,   t.condition, t.modulation,
        t.constant, t.rotary, t.x,     t.estimate, t.input,     t.h,
        t.y,        t.qkv,    t.logits, t.cells};
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++)
        backend->functions->tensor_destroy(backend, tensors[i]);
    for (size_t i = 0; i < LAYERS; i++)
        backend->functions->weight_destroy(backend, t.layers[i]);
    free(t.values);
    return status;
}

/* Sums of 128 in another order differ by 1e-5; arg-max may then differ. */
static bool
agree(const struct outcome *a, const struct outcome *b)
{
    size_t differ = 0;
    for (size_t i = 0; i < FLOATS; i++)
        if (!(fabsf(a->floats[i] - b->floats[i]) <=
              1e-3f * (1.0f + fabsf(b->floats[i]))))
            return false;
    for (size_t i = 0; i < TOKENS * CELLS; i++)
        differ += a->cells[i] != b->cells[i];
    return differ <= 4;
}

/* ND_UNSUPPORTED if the device computes anything but what C does. */
static enum nd_status
self_test(struct nd_backend *backend, struct nd_error *err)
{
    struct nd_backend *cpu = NULL;
    struct outcome *got = calloc(2, sizeof *got);
    if (got == NULL)
        return nd_fail(err, ND_NO_MEMORY, "no memory for the self-test");
    enum nd_status status = nd_cpu_backend_create(1, "baseline", &cpu, err);
    if (status == ND_OK)
        status = run_trial(cpu, &got[1], err);
    if (status == ND_OK)
        status = run_trial(backend, &got[0], err);
    if (status == ND_OK && !agree(&got[0], &got[1]))
        status = nd_fail(err, ND_UNSUPPORTED, "computes wrong results");
    if (cpu != NULL)
        cpu->functions->destroy(cpu);
    free(got);
    return status;
}

/* --- the measurement ---------------------------------------------------- */

static double
seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Seconds of one op in programs of more and more, until 4 ms are measured. */
static enum nd_status
time_op(struct nd_backend *backend, const struct nd_op *op,
        struct nd_tensor *out, double *each, struct nd_error *err)
{
    enum { MOST = 512 };
    const struct nd_step step = {0};
    struct nd_op ops[MOST];
    float one;
    enum nd_status status = ND_OK;
    for (size_t i = 0; i < MOST; i++)
        ops[i] = *op;
    double spent = 0.0;
    for (size_t n = 1; n <= MOST && spent < 4e-3 && status == ND_OK; n *= 4) {
        struct nd_program *program = NULL;
        status = backend->functions->program_create(backend, ops, n, &program,
                                                    err);
        for (int run = 0; run < 2 && status == ND_OK; run++) {
            double start = seconds();
            status =
                backend->functions->program_run(backend, program, &step, err);
            if (status == ND_OK) /* waits */
                status = backend->functions->tensor_read(backend, out, 0,
                                                         &one, err);
            spent = seconds() - start;
            *each = spent / (double)n;
        }
        backend->functions->program_destroy(backend, program);
    }
    return status;
}

/* A product for few tokens and one for many; the score multiplies them. */
static enum nd_status
measure(struct nd_backend *backend, double *score, struct nd_error *err)
{
    enum { ROWS = 512, IN = 256, OUT = 512 };
    const struct nd_backend_functions *f = backend->functions;
    struct nd_tensor *in = NULL, *out = NULL;
    struct nd_weight *weight = NULL;
    float *values = calloc((size_t)OUT * IN, sizeof *values);
    enum nd_status status =
        values == NULL ? nd_fail(err, ND_NO_MEMORY, "no memory to measure")
                       : ND_OK;
    if (status == ND_OK)
        status = f->tensor_create(backend, ND_FLOAT32, ROWS, IN, &in, err);
    if (status == ND_OK)
        status = f->tensor_create(backend, ND_FLOAT32, ROWS, OUT, &out, err);
    if (status == ND_OK)
        status =
            f->weight_create(backend, values, NULL, OUT, IN, &weight, err);
    *score = 1.0;
    for (size_t rows = 16; rows <= ROWS && status == ND_OK; rows *= 32) {
        struct nd_op op = {.kind = ND_OP_LINEAR};
        double each = 0.0;
        op.as.linear = (struct nd_linear){.in = in,
                                          .weight = weight,
                                          .epilogue = ND_EPILOGUE_GELU,
                                          .rows = rows,
                                          .out = out};
        status = time_op(backend, &op, out, &each, err);
        *score *= each;
    }
    f->weight_destroy(backend, weight);
    f->tensor_destroy(backend, in);
    f->tensor_destroy(backend, out);
    free(values);
    return status;
}

/* --- the choice --------------------------------------------------------- */

struct choice {
    struct nd_backend *backend;
    struct nd_gpu *gpu;
    bool timed; /* more than one family is to be compared */
    const struct nd_gpu_family *best;
    double score;
    char reason[180]; /* why a better family is not used, or empty */
};

/* What speaks against a family is a reason, not an error. */
static void
try_family(struct choice *c, const struct nd_gpu_family *family)
{
    struct nd_error err = {.code = ND_OK};
    double score = 0.0;
    const char *lacks = nd_gpu_lacks(c->gpu, family);
    enum nd_status status =
        lacks != NULL ? nd_fail(&err, ND_UNSUPPORTED, "needs %s", lacks)
                      : nd_gpu_start(c->gpu, family, &err);
    if (status == ND_OK)
        status = self_test(c->backend, &err);
    if (status == ND_OK && c->timed)
        status = measure(c->backend, &score, &err);
    nd_gpu_stop(c->gpu);
    if (status != ND_OK) {
        if (c->best == NULL && c->reason[0] == '\0')
            snprintf(c->reason, sizeof c->reason, "%s %.140s", family->name,
                     err.text);
        return;
    }
    if (c->best == NULL || score < c->score) {
        c->best = family;
        c->score = score;
    }
}

/* Families made for such a device; if none is right, the others in order. */
static void
try_families(struct choice *c, bool all)
{
    unsigned type = 1u << c->gpu->info.type;
    size_t home = 0;
    for (size_t i = 0; i < nd_gpu_family_count; i++)
        home += (nd_gpu_families[i].home & type) != 0 &&
                nd_gpu_lacks(c->gpu, &nd_gpu_families[i]) == NULL;
    c->timed = all || home > 1;
    for (size_t i = 0; i < nd_gpu_family_count; i++)
        if (all || (nd_gpu_families[i].home & type) != 0)
            try_family(c, &nd_gpu_families[i]);
    c->timed = false;
    for (size_t i = 0; i < nd_gpu_family_count && c->best == NULL; i++)
        if ((nd_gpu_families[i].home & type) == 0)
            try_family(c, &nd_gpu_families[i]);
}

static enum nd_status
start_asked(struct nd_gpu *gpu, const char *name, struct nd_error *err)
{
    const struct nd_gpu_family *family = nd_gpu_find_family(name);
    if (family == NULL)
        return nd_fail(err, ND_DEVICE,
                       "NETDIFFUSION_VULKAN_FAMILY=%s: there are texel, "
                       "subgroup, tile and measure",
                       name);
    enum nd_status status = nd_gpu_start(gpu, family, err);
    if (status == ND_UNSUPPORTED && err != NULL)
        err->code = ND_DEVICE;
    return status == ND_UNSUPPORTED ? ND_DEVICE : status;
}

enum nd_status
nd_gpu_choose(struct nd_backend *backend, struct nd_gpu *gpu,
              struct nd_error *err)
{
    const char *asked = getenv("NETDIFFUSION_VULKAN_FAMILY");
    bool all = asked != NULL && strcmp(asked, "measure") == 0;
    const struct nd_gpu_family *cached = NULL;
    struct choice c = {.backend = backend, .gpu = gpu};
    if (asked != NULL && asked[0] != '\0' && !all)
        return start_asked(gpu, asked, err);
    if (!all)
        cached = nd_gpu_cached_family(gpu);
    if (cached != NULL && nd_gpu_lacks(gpu, cached) == NULL)
        return nd_gpu_start(gpu, cached, err);
    try_families(&c, all);
    if (c.best == NULL)
        return nd_fail(err, ND_UNSUPPORTED,
                       "Vulkan: no kernel family is right on %s: %s",
                       gpu->info.name, c.reason);
    if (c.reason[0] != '\0')
        snprintf(backend->note, sizeof backend->note,
                 "Vulkan: %.80s uses the kernel family %s; %s", gpu->info.name,
                 c.best->name, c.reason);
    nd_gpu_cache_family(gpu, c.best);
    return nd_gpu_start(gpu, c.best, err);
}
