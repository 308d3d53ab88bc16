/* The network's intermediate results, for tests against another engine. */
#include "rowformer.h"

struct trace {
    struct nd_batch *batch;
    struct nd_step step;
    struct nd_error *err;
};

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
        status = run_and_read(trace, &list, batch->logits, logits);
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
    enum nd_status status = backend->functions->tensor_write(
        backend, batch->x, tokens, x, trace->err);
    if (status == ND_OK)
        status = backend->functions->tensor_write(
            backend, batch->estimate, tokens, estimate, trace->err);
    if (status == ND_OK)
        status = nd_rowformer_input(batch, batch->given, &list, trace->err);
    if (status == ND_OK)
        status = run_and_read(trace, &list, batch->h, input);
    nd_ops_free(&list);
    return status;
}

enum nd_status
nd_rowformer_trace(struct nd_batch *batch, float sigma, const float *x,
                   const float *estimate, size_t block_stride,
                   const struct nd_trace *to, struct nd_error *err)
{
    struct trace trace = {batch, nd_rowformer_step(sigma, 0), err};
    enum nd_status status = nd_batch_set_levels(batch, &sigma, 1, err);
    if (status == ND_OK)
        status = trace_input(&trace, x, estimate, to->input);
    if (status == ND_OK)
        status = trace_blocks(&trace, block_stride, to->blocks);
    return status == ND_OK ? trace_logits(&trace, to->logits) : status;
}
