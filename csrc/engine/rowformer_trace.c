/* The network's intermediate results, for tests against another engine. */
#include "rowformer.h"

#include <stdlib.h>

struct trace {
    struct nd_batch *batch;
    struct nd_step step;
    float *planes; /* host: a row a token of three planes */
    struct nd_error *err;
};

/* Columns of a plane of the batch. */
static size_t
plane_of(const struct nd_batch *batch)
{
    return nd_stride(batch->network->dimensions.columns);
}

/* The first colours of cells (T, C, 3) as planes; those past C stay. */
static void
to_planes(const struct trace *trace, const float *cells, size_t colours)
{
    size_t columns = trace->batch->network->dimensions.columns;
    size_t plane = plane_of(trace->batch);
    for (size_t t = 0; t < trace->batch->ragged.n_tokens; t++)
        for (size_t j = 0; j < columns; j++)
            for (size_t c = 0; c < colours; c++)
                trace->planes[(t * colours + c) * plane + j] =
                    cells[(t * columns + j) * 3 + c];
}

/* Logits (T, C, 3) of two planes, the third colour's being 0. */
static void
from_planes(const struct trace *trace, float *cells)
{
    size_t columns = trace->batch->network->dimensions.columns;
    size_t plane = plane_of(trace->batch);
    for (size_t t = 0; t < trace->batch->ragged.n_tokens; t++)
        for (size_t j = 0; j < columns; j++, cells += 3) {
            cells[0] = trace->planes[2 * t * plane + j];
            cells[1] = trace->planes[(2 * t + 1) * plane + j];
            cells[2] = 0.0f;
        }
}

/* Runs a list and forgets it; then reads a tensor of the batch's tokens. */
static enum nd_status
run_and_read(const struct trace *trace, struct nd_ops *list,
             const struct nd_tensor *tensor, float *values)
{
    struct nd_backend *backend = trace->batch->network->backend;
    enum nd_status status =
        nd_ops_run(backend, list, &trace->step, trace->err);
    nd_ops_free(list);
    if (status != ND_OK)
        return status;
    return backend->functions->tensor_read(
        backend, tensor, trace->batch->ragged.n_tokens, values, trace->err);
}

static enum nd_status
trace_blocks(const struct trace *trace, size_t block_stride, float *blocks)
{
    struct nd_batch *batch = trace->batch;
    size_t count = batch->network->dimensions.blocks;
    for (size_t i = 0; i < count; i++) {
        struct nd_ops list = {NULL, 0, 0};
        enum nd_status status =
            nd_rowformer_block(batch, i, &list, trace->err);
        if (status == ND_OK)
            status = run_and_read(trace, &list, batch->h,
                                  blocks + i * block_stride);
        nd_ops_free(&list);
        if (status != ND_OK)
            return status;
    }
    return ND_OK;
}

static enum nd_status
trace_logits(const struct trace *trace, float *logits)
{
    struct nd_batch *batch = trace->batch;
    struct nd_ops list = {NULL, 0, 0};
    struct nd_estimate estimate = {batch->logits, NULL, batch->x,
                                   batch->estimate, batch->ragged.n_tokens};
    enum nd_status status =
        nd_rowformer_output(batch, batch->logits, &list, trace->err);
    if (status == ND_OK)
        status = nd_op_estimate(&list, &estimate, trace->err);
    if (status == ND_OK)
        status = run_and_read(trace, &list, batch->logits, trace->planes);
    if (status == ND_OK)
        from_planes(trace, logits);
    nd_ops_free(&list);
    return status;
}

static enum nd_status
trace_input(const struct trace *trace, const float *x, const float *estimate,
            float *input)
{
    struct nd_batch *batch = trace->batch;
    struct nd_backend *backend = batch->network->backend;
    size_t tokens = batch->ragged.n_tokens;
    struct nd_ops list = {NULL, 0, 0};
    to_planes(trace, x, 3);
    enum nd_status status = backend->functions->tensor_write(
        backend, batch->x, tokens, trace->planes, trace->err);
    to_planes(trace, estimate, 2);
    if (status == ND_OK)
        status = backend->functions->tensor_write(
            backend, batch->estimate, tokens, trace->planes, trace->err);
    if (status == ND_OK)
        status = nd_rowformer_input(batch, batch->given, &list, trace->err);
    if (status == ND_OK)
        status = run_and_read(trace, &list, batch->h, input);
    nd_ops_free(&list);
    return status;
}

/* 1 if there is anything but zeros, as before the first step. */
static float
is_estimated(const struct nd_batch *batch, const float *estimate)
{
    size_t count = batch->ragged.n_tokens * 3 *
                   batch->network->dimensions.columns;
    for (size_t i = 0; i < count; i++)
        if (estimate[i] < 0.0f || estimate[i] > 0.0f)
            return 1.0f;
    return 0.0f;
}

enum nd_status
nd_rowformer_trace(struct nd_batch *batch, float sigma, const float *x,
                   const float *estimate, size_t block_stride,
                   const struct nd_trace *to, struct nd_error *err)
{
    struct trace trace = {batch, nd_rowformer_step(sigma, 0), NULL, err};
    trace.step.estimated = is_estimated(batch, estimate);
    trace.planes = calloc(batch->ragged.n_tokens,
                          3 * plane_of(batch) * sizeof *trace.planes);
    if (trace.planes == NULL)
        return nd_fail(err, ND_NO_MEMORY, "no memory for a trace");
    enum nd_status status = nd_batch_set_levels(batch, &sigma, 1, err);
    if (status == ND_OK)
        status = trace_input(&trace, x, estimate, to->input);
    if (status == ND_OK)
        status = trace_blocks(&trace, block_stride, to->blocks);
    if (status == ND_OK)
        status = trace_logits(&trace, to->logits);
    free(trace.planes);
    return status;
}
