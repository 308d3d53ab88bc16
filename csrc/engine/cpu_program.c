/*
 * Programs of the cpu backend. Every op of backend.h is local: a row of out
 * needs the same rows of its inputs, and ATTENTION the rows of its flow. So a
 * batch of several flows is cut into chunks of whole flows, and a thread
 * takes a chunk through all ops: its tensors stay in the thread's cache and
 * nobody waits. Where flows are too few or too unlike for that, a thread
 * takes rows of the batch through all ops up to the next ATTENTION; all
 * threads share that op, and every op where the rows are few.
 */
#include "cpu.h"
#include "threads.h"

#include <stdlib.h>
#include <string.h>

/*
 * Tokens of a chunk. Each goes through all weights, from memory: fewer would
 * wait for them, more do not fit a cache.
 */
enum { CHUNK_TOKENS = 256 };

/*
 * Tokens from which on a thread has rows of its own: with fewer it would wait
 * for the weights, all of which it goes through.
 */
enum { OWN_TOKENS = 32 };

/* Elements that a thread should have of an op that is no product. */
enum { PART_ELEMENTS = 16384 };

/* Flows [flow, flow_end), their tokens, their blocks of queries. */
struct chunk {
    size_t flow, flow_end, token, token_end, query, query_end;
};

struct program {
    size_t n_ops, n_queries, n_chunks, n_tokens;
    struct nd_op *ops;
    struct nd_cpu_queries *queries; /* of every ATTENTION: same batch */
    struct chunk *chunks;           /* none: op after op */
    size_t scratch_size;
};

/* An op cut into row_step rows by column_step columns; see nd_cpu_part. */
struct grid {
    size_t rows, row_step, columns, column_step;
};

/* One op, or all of a program, on its way through the threads. */
struct work {
    const struct nd_cpu *cpu;
    const struct program *program;
    const struct nd_op *op;
    size_t n_ops; /* from op on, of which a thread has rows of its own */
    struct grid grid;
    const struct nd_step *step;
};

static size_t
divide_up(size_t a, size_t b)
{
    return (a + b - 1) / b;
}

/* The blocks of queries of flow f; a count call has blocks NULL. */
static size_t
list_queries(const struct nd_ragged *ragged, size_t f,
             struct nd_cpu_queries *blocks)
{
    size_t count = 0;
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
    return count;
}

static bool
fill_queries(struct program *program, const struct nd_ragged *ragged)
{
    size_t count = 0;
    for (size_t f = 0; f < ragged->n_flows; f++)
        count += list_queries(ragged, f, NULL);
    program->queries = malloc((count + 1) * sizeof *program->queries);
    if (program->queries == NULL)
        return false;
    for (size_t f = 0; f < ragged->n_flows; f++)
        program->n_queries += list_queries(
            ragged, f, program->queries + program->n_queries);
    return true;
}

/* Rows of an op: of ATTENTION and the ops on random numbers, tokens. */
static size_t
count_rows(const struct nd_op *op)
{
    switch (op->kind) {
    case ND_OP_LINEAR:
        return op->as.linear.rows;
    case ND_OP_ATTENTION:
        return op->as.attention.ragged.n_tokens;
    case ND_OP_NORM:
        return op->as.norm.rows;
    case ND_OP_CONDITION:
        return op->as.condition.rows;
    case ND_OP_INPUT:
        return op->as.input.rows;
    case ND_OP_HOLD:
        return op->as.hold.rows;
    case ND_OP_ESTIMATE:
        return op->as.estimate.rows;
    case ND_OP_NOISE:
        return op->as.noise.ragged.n_tokens;
    case ND_OP_RENOISE:
        return op->as.renoise.ragged.n_tokens;
    case ND_OP_DRAW:
        return op->as.draw.ragged.n_tokens;
    case ND_OP_COUNT:
        break;
    }
    return 0;
}

/* The widest tensor of an op that is no product: what a row of it costs. */
static size_t
count_columns(const struct nd_op *op)
{
    switch (op->kind) {
    case ND_OP_NORM:
        return op->as.norm.out->columns;
    case ND_OP_CONDITION:
        return op->as.condition.out->columns;
    case ND_OP_INPUT:
        return op->as.input.out->columns;
    case ND_OP_HOLD:
        return op->as.hold.out->columns;
    case ND_OP_ESTIMATE:
        return op->as.estimate.x->columns;
    case ND_OP_NOISE:
        return op->as.noise.x->columns;
    case ND_OP_RENOISE:
        return op->as.renoise.x->columns;
    case ND_OP_DRAW:
        return op->as.draw.logits->columns;
    case ND_OP_LINEAR:
    case ND_OP_ATTENTION:
    case ND_OP_COUNT:
        break;
    }
    return 1;
}

/* Four parts a thread where there is enough to do. */
static struct grid
cut_linear(const struct nd_linear *op, size_t threads)
{
    size_t panels = divide_up(op->weight->out, ND_PANEL);
    size_t blocks = divide_up(op->rows, ND_LINEAR_ROWS);
    size_t group = panels * blocks / (4 * threads);
    group = group < 1 ? 1 : group > 4 ? 4 : group;
    return (struct grid){op->rows, ND_LINEAR_ROWS, panels, group};
}

/*
 * By heads alone where that is even: each part makes panels of all keys and
 * values of its heads.
 */
static struct grid
cut_attention(const struct program *program, const struct nd_attention *op,
              size_t threads)
{
    bool even = op->heads % threads == 0 && program->n_queries > 0;
    return (struct grid){program->n_queries, even ? program->n_queries : 1,
                         op->heads, 1};
}

static struct grid
cut(const struct program *program, const struct nd_op *op, size_t threads)
{
    if (op->kind == ND_OP_LINEAR)
        return cut_linear(&op->as.linear, threads);
    if (op->kind == ND_OP_ATTENTION)
        return cut_attention(program, &op->as.attention, threads);
    size_t step = divide_up(PART_ELEMENTS, count_columns(op));
    return (struct grid){count_rows(op),
                         step < ND_ROW_BLOCK ? step : ND_ROW_BLOCK, 1, 1};
}

static size_t
count_parts(const struct grid *grid)
{
    return divide_up(grid->rows, grid->row_step) *
           divide_up(grid->columns, grid->column_step);
}

static struct nd_cpu_part
part_of(const struct grid *grid, size_t item)
{
    size_t across = divide_up(grid->columns, grid->column_step);
    struct nd_cpu_part part = {.first = item / across * grid->row_step,
                               .column = item % across * grid->column_step};
    part.end = part.first + grid->row_step;
    part.column_end = part.column + grid->column_step;
    if (part.end > grid->rows)
        part.end = grid->rows;
    if (part.column_end > grid->columns)
        part.column_end = grid->columns;
    return part;
}

/* The rows of a chunk in an op that has a row a token, or a row a flow. */
static struct nd_cpu_part
part_of_chunk(const struct program *program, const struct nd_op *op,
              const struct chunk *chunk)
{
    struct grid whole = cut(program, op, 1);
    if (op->kind == ND_OP_ATTENTION)
        return (struct nd_cpu_part){chunk->query, chunk->query_end, 0,
                                    whole.columns};
    if (whole.rows == program->n_tokens)
        return (struct nd_cpu_part){chunk->token, chunk->token_end, 0,
                                    whole.columns};
    return (struct nd_cpu_part){chunk->flow, chunk->flow_end, 0,
                                whole.columns};
}

/*
 * Whether threads that take chunks in order end at about the same time; each
 * takes the next one when it has least behind it.
 */
static bool
balanced(const struct chunk *chunks, size_t count, size_t threads)
{
    size_t loads[ND_THREADS_MOST] = {0}, total = 0, most = 0;
    for (size_t i = 0; i < count; i++) {
        size_t free = 0, tokens = chunks[i].token_end - chunks[i].token;
        for (size_t t = 1; t < threads; t++)
            if (loads[t] < loads[free])
                free = t;
        loads[free] += tokens;
        total += tokens;
        most = loads[free] > most ? loads[free] : most;
    }
    return most * threads <= total + total / 8;
}

/*
 * Flow after flow goes to the chunk that its middle token falls into: turns
 * of one chunk a thread, the last of two halves, so that threads which are
 * not equally fast end together.
 */
static size_t
list_chunks(const struct nd_ragged *ragged, size_t turns, size_t threads,
            struct chunk *chunks)
{
    struct chunk at = {0};
    size_t count = 0, last = 0, whole = 2 * (turns - 1) * threads;
    for (size_t f = 0; f < ragged->n_flows; f++) {
        size_t middle = (ragged->offsets[f] + ragged->offsets[f + 1]) / 2;
        size_t place = middle * 2 * turns * threads / ragged->n_tokens;
        if (place < whole)
            place = place / 2 * 2;
        if (place != last && at.flow_end > at.flow) {
            chunks[count++] = at;
            at = (struct chunk){at.flow_end,  at.flow_end,  at.token_end,
                                at.token_end, at.query_end, at.query_end};
        }
        last = place;
        at.flow_end = f + 1;
        at.token_end = ragged->offsets[f + 1];
        at.query_end += list_queries(ragged, f, NULL);
    }
    chunks[count++] = at;
    return count;
}

static bool
fill_chunks(struct program *program, const struct nd_ragged *ragged,
            size_t threads)
{
    size_t turns = divide_up(ragged->n_tokens, CHUNK_TOKENS * threads);
    program->n_tokens = ragged->n_tokens;
    for (size_t i = 0; i < program->n_ops; i++) {
        size_t rows = count_rows(&program->ops[i]);
        if (rows != ragged->n_tokens && rows != ragged->n_flows)
            return true;
    }
    program->chunks = malloc((ragged->n_flows + 1) * sizeof *program->chunks);
    if (program->chunks == NULL)
        return false;
    size_t count = list_chunks(ragged, turns, threads, program->chunks);
    if (balanced(program->chunks, count, threads))
        program->n_chunks = count;
    return true;
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
fill_program(struct program *program, const struct nd_op *ops, size_t n_ops,
             size_t threads)
{
    const struct nd_ragged *ragged = NULL;
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
        ragged = &op->ragged;
    }
    return ragged == NULL || ragged->n_tokens == 0 ||
           (fill_queries(program, ragged) &&
            fill_chunks(program, ragged, threads));
}

static bool
ensure_scratch(struct nd_cpu *cpu, size_t size)
{
    if (size <= cpu->scratch_size)
        return true;
    if (cpu->scratch != NULL)
        nd_cpu_memory_free(cpu, cpu->scratch_block, cpu->scratch);
    size = nd_stride(size);
    cpu->scratch_size = 0;
    cpu->scratch = nd_cpu_memory_new(cpu, true,
                                     nd_threads_count(cpu->threads),
                                     size * sizeof *cpu->scratch,
                                     &cpu->scratch_block);
    if (cpu->scratch != NULL)
        cpu->scratch_size = size;
    return cpu->scratch != NULL;
}

enum nd_status
nd_cpu_program_create(struct nd_backend *backend, const struct nd_op *ops,
                      size_t n_ops, struct nd_program **opaque,
                      struct nd_error *err)
{
    struct nd_cpu *cpu = (void *)backend;
    struct program *program = calloc(1, sizeof *program);
    if (program == NULL ||
        !fill_program(program, ops, n_ops, nd_threads_count(cpu->threads)) ||
        !ensure_scratch(cpu, program->scratch_size)) {
        nd_cpu_program_destroy(backend, (void *)program);
        return nd_fail(err, ND_NO_MEMORY, "no memory for a program of %zu ops",
                       n_ops);
    }
    *opaque = (void *)program;
    return ND_OK;
}

void
nd_cpu_program_destroy(struct nd_backend *backend, struct nd_program *opaque)
{
    struct program *program = (void *)opaque;
    (void)backend;
    if (program != NULL) {
        free(program->ops);
        free(program->queries);
        free(program->chunks);
    }
    free(program);
}

static struct nd_cpu_context
context_of(const struct work *work, size_t worker)
{
    const struct nd_cpu *cpu = work->cpu;
    float *scratch = cpu->scratch;
    if (scratch != NULL)
        scratch += worker * cpu->scratch_size;
    return (struct nd_cpu_context){work->step, work->program->queries,
                                   scratch};
}

static void
do_part(void *argument, size_t item, size_t worker)
{
    const struct work *work = argument;
    struct nd_cpu_context context = context_of(work, worker);
    work->cpu->kernels->run[work->op->kind](
        work->op, part_of(&work->grid, item), &context);
}

static void
do_chunk(void *argument, size_t item, size_t worker)
{
    const struct work *work = argument;
    const struct program *program = work->program;
    struct nd_cpu_context context = context_of(work, worker);
    for (size_t i = 0; i < program->n_ops; i++) {
        const struct nd_op *op = &program->ops[i];
        work->cpu->kernels->run[op->kind](
            op, part_of_chunk(program, op, &program->chunks[item]), &context);
    }
}

/* Ops from op i on that a thread takes its own rows of the tokens through. */
static size_t
count_own(const struct program *program, size_t i, size_t threads)
{
    size_t first = i;
    if (program->n_tokens < OWN_TOKENS * threads)
        return 0;
    while (i < program->n_ops && program->ops[i].kind != ND_OP_ATTENTION &&
           count_rows(&program->ops[i]) == program->n_tokens)
        i++;
    return i - first;
}

static void
do_own(void *argument, size_t item, size_t worker)
{
    const struct work *work = argument;
    size_t tokens = work->program->n_tokens;
    size_t threads = nd_threads_count(work->cpu->threads);
    struct nd_cpu_context context = context_of(work, worker);
    for (size_t i = 0; i < work->n_ops; i++) {
        const struct nd_op *op = &work->op[i];
        struct nd_cpu_part part = {
            .first = item * tokens / threads,
            .end = (item + 1) * tokens / threads,
            .column_end = cut(work->program, op, 1).columns};
        work->cpu->kernels->run[op->kind](op, part, &context);
    }
}

enum nd_status
nd_cpu_program_run(struct nd_backend *backend, struct nd_program *opaque,
                   const struct nd_step *step, struct nd_error *err)
{
    struct nd_cpu *cpu = (void *)backend;
    const struct program *program = (const void *)opaque;
    size_t threads = nd_threads_count(cpu->threads);
    struct work work = {.cpu = cpu, .program = program, .step = step};
    (void)err;
    if (program->n_chunks > 0) {
        nd_threads_run(cpu->threads, do_chunk, &work, program->n_chunks);
        return ND_OK;
    }
    for (size_t i = 0; i < program->n_ops; i += work.n_ops) {
        work.op = &program->ops[i];
        work.n_ops = count_own(program, i, threads);
        if (work.n_ops > 0) {
            nd_threads_run(cpu->threads, do_own, &work, threads);
            continue;
        }
        work.n_ops = 1;
        work.grid = cut(program, work.op, threads);
        nd_threads_run(cpu->threads, do_part, &work, count_parts(&work.grid));
    }
    return ND_OK;
}
