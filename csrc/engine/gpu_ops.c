#include "gpu_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "params.h"

_Static_assert((int)ND_DO_NONE == (int)ND_EPILOGUE_NONE &&
                   (int)ND_DO_SILU == (int)ND_EPILOGUE_SILU &&
                   (int)ND_DO_GELU == (int)ND_EPILOGUE_GELU &&
                   (int)ND_DO_ADD == (int)ND_EPILOGUE_ADD &&
                   (int)ND_DO_GATED == (int)ND_EPILOGUE_GATED,
               "params.h and backend.h number the epilogues alike");

/* What one op is recorded with. */
struct recorder {
    struct nd_gpu *gpu;
    const struct nd_gpu_recording *recording;
    struct nd_gpu_tiles *tiles;
    struct nd_error *err;
};

static const struct nd_gpu_buffer *
buffer_of(const struct nd_tensor *tensor)
{
    if (tensor == NULL)
        return NULL;
    return &((const struct nd_gpu_tensor *)tensor)->buffer;
}

static uint32_t
stride4(const struct nd_tensor *tensor)
{
    return tensor == NULL ? 0 : (uint32_t)(tensor->stride / 4);
}

static size_t
parts(size_t n, size_t of)
{
    return nd_gpu_parts(n, of);
}

/* Invocations of a workgroup of the simple shaders. */
static uint32_t
lanes_of(const struct nd_gpu *gpu)
{
    uint32_t lanes = gpu->kernels->lanes;
    return lanes == 0 ? gpu->info.subgroup : lanes;
}

static enum nd_status
dispatch(const struct recorder *r, const struct nd_gpu_call *call)
{
    if (call->groups[0] == 0 || call->groups[1] == 0)
        return ND_OK;
    return nd_gpu_dispatch(r->gpu, r->recording, call, r->err);
}

static enum nd_status
record_linear(const struct recorder *r, const struct nd_linear *op)
{
    const struct nd_gpu_weight *weight =
        (const struct nd_gpu_weight *)op->weight;
    /* The shuffle kernel fetches these rows ahead, wanted or not. */
    const struct nd_tensor *rows = op->residual ? op->residual : op->out;
    struct nd_linear_params params = {
        .rows = (uint32_t)op->rows,
        .out4 = (uint32_t)parts(op->weight->out, 4),
        .in4 = weight->in4,
        .in_stride4 = stride4(op->in),
        .out_stride4 = stride4(op->out),
        .bias4 = weight->bias4,
        .panel_stride4 = weight->panel_stride4,
        .residual_stride4 = stride4(rows),
        .modulation_stride4 = stride4(op->modulation),
        .gate4 = (uint32_t)(op->gate / 4),
    };
    struct nd_gpu_call call = {
        .inputs = {buffer_of(op->in), &weight->buffer, buffer_of(rows),
                   buffer_of(op->modulation), buffer_of(op->constant),
                   buffer_of(op->tokens)},
        .outputs = {buffer_of(op->out)},
        .params = &params,
        .params_bytes = sizeof params,
        .groups = {0, 0, 1},
    };
    r->gpu->kernels->linear(r->gpu, op, &call);
    call.constants[3] = (uint32_t)op->epilogue;
    return dispatch(r, &call);
}

static enum nd_status
record_norm(const struct recorder *r, const struct nd_norm *op)
{
    uint32_t lanes = lanes_of(r->gpu), share = r->gpu->kernels->share;
    struct nd_norm_params params = {
        .rows = (uint32_t)op->rows,
        .width4 = (uint32_t)(op->in->columns / 4),
        .in_stride4 = stride4(op->in),
        .out_stride4 = stride4(op->out),
        .modulation_stride4 = stride4(op->modulation),
        .shift4 = (uint32_t)(op->shift / 4),
        .scale4 = (uint32_t)(op->scale / 4),
    };
    struct nd_gpu_call call = {
        .shader = ND_GPU_SHADER_norm,
        .constants = {lanes, 0, share, op->constant != NULL},
        .inputs = {buffer_of(op->in), buffer_of(op->modulation),
                   buffer_of(op->constant), buffer_of(op->tokens)},
        .outputs = {buffer_of(op->out)},
        .params = &params,
        .params_bytes = sizeof params,
        .groups = {parts(op->rows, lanes / share), 1, 1},
    };
    return dispatch(r, &call);
}

/* --- attention ---------------------------------------------------------- */

/* Cuts each flow into tiles of `rows` queries or fewer. */
static enum nd_status
make_tiles(const struct recorder *r, const struct nd_ragged *ragged,
           uint32_t rows)
{
    struct nd_gpu_tiles *tiles = r->tiles;
    const uint32_t *offsets = ragged->offsets;
    if (tiles->offsets == offsets)
        return ND_OK; /* the blocks of a network share their batch */
    size_t n = 0;
    for (size_t f = 0; f < ragged->n_flows; f++)
        n += parts(offsets[f + 1] - offsets[f], rows);
    uint32_t *list = calloc(n == 0 ? 1 : n, 16);
    if (list == NULL)
        return nd_fail(r->err, ND_NO_MEMORY, "no memory for %zu tiles", n);
    size_t i = 0;
    for (size_t f = 0; f < ragged->n_flows; f++)
        for (uint32_t t = offsets[f]; t < offsets[f + 1]; t += rows) {
            uint32_t left = offsets[f + 1] - t;
            list[i++] = t;
            list[i++] = left < rows ? left : rows;
            list[i++] = offsets[f];
            list[i++] = offsets[f + 1] - offsets[f];
        }
    nd_gpu_buffer_free(r->gpu, &tiles->buffer);
    enum nd_status status =
        nd_gpu_buffer_new(r->gpu, ND_GPU_WORDS, 16 * n, &tiles->buffer, r->err);
    if (status == ND_OK)
        status = nd_gpu_write(r->gpu, &tiles->buffer, n, 16, 16, list, r->err);
    free(list);
    tiles->offsets = offsets;
    tiles->count = n;
    return status;
}

static enum nd_status
record_rotary(const struct recorder *r, const struct nd_attention *op,
              uint32_t head4)
{
    uint32_t lanes = lanes_of(r->gpu), rows = r->gpu->kernels->rows;
    struct nd_rotary_params params = {
        .tokens = (uint32_t)op->ragged.n_tokens,
        .heads = (uint32_t)op->heads,
        .stride4 = stride4(op->qkv),
        .rotary_stride4 = stride4(op->rotary),
    };
    struct nd_gpu_call call = {
        .shader = ND_GPU_SHADER_rotary,
        .constants = {lanes, 0, rows, head4},
        .inputs = {buffer_of(op->qkv), buffer_of(op->rotary),
                   buffer_of(op->ragged.tokens)},
        .outputs = {buffer_of(op->qkv)},
        .params = &params,
        .params_bytes = sizeof params,
        .groups = {parts(op->heads * head4, lanes),
                   parts(op->ragged.n_tokens, rows), 1},
    };
    return dispatch(r, &call);
}

static enum nd_status
record_attention(const struct recorder *r, const struct nd_attention *op)
{
    size_t width = op->qkv->columns / 3, head = width / op->heads;
    uint32_t head4 = (uint32_t)(head / 4);
    struct nd_attention_params params = {
        .heads = (uint32_t)op->heads,
        .stride4 = stride4(op->qkv),
        .out_stride4 = stride4(op->out),
        .scale = 1.0f / sqrtf((float)head),
    };
    struct nd_gpu_call call = {
        .inputs = {buffer_of(op->qkv), &r->tiles->buffer},
        .outputs = {buffer_of(op->out)},
        .params = &params,
        .params_bytes = sizeof params,
    };
    uint32_t queries =
        r->gpu->kernels->attention(r->gpu, &op->ragged, head4, &call);
    enum nd_status status = record_rotary(r, op, head4);
    if (status == ND_OK)
        status = make_tiles(r, &op->ragged, queries);
    if (status != ND_OK)
        return status;
    call.groups[0] = op->heads;
    call.groups[1] = r->tiles->count;
    call.groups[2] = 1;
    return dispatch(r, &call);
}

/* --- one element at a time ---------------------------------------------- */

static enum nd_status
record_condition(const struct recorder *r, const struct nd_condition *op)
{
    uint32_t lanes = lanes_of(r->gpu);
    struct nd_condition_params params = {
        .rows = (uint32_t)op->rows,
        .width4 = (uint32_t)parts(op->given->columns, 4),
        .given_stride4 = stride4(op->given),
        .noise_stride4 = stride4(op->noise),
        .out_stride4 = stride4(op->out),
    };
    struct nd_gpu_call call = {
        .shader = ND_GPU_SHADER_condition,
        .constants = {lanes},
        .inputs = {buffer_of(op->given), buffer_of(op->noise)},
        .outputs = {buffer_of(op->out)},
        .params = &params,
        .params_bytes = sizeof params,
        .groups = {parts(params.width4, lanes), op->rows, 1},
    };
    return dispatch(r, &call);
}

static enum nd_status
record_input(const struct recorder *r, const struct nd_input *op)
{
    uint32_t lanes = lanes_of(r->gpu), rows = r->gpu->kernels->rows;
    uint32_t planes = (uint32_t)(op->out->columns * 3 / op->x->columns);
    struct nd_input_params params = {
        .rows = (uint32_t)op->rows,
        .plane4 = (uint32_t)(op->x->columns / 12),
        .x_stride4 = stride4(op->x),
        .e_stride4 = stride4(op->estimate),
        .out_stride4 = stride4(op->out),
    };
    struct nd_gpu_call call = {
        .shader = ND_GPU_SHADER_input,
        .constants = {lanes, 0, rows, planes},
        .inputs = {buffer_of(op->x), buffer_of(op->estimate)},
        .outputs = {buffer_of(op->out)},
        .params = &params,
        .params_bytes = sizeof params,
        .groups = {parts(params.plane4, lanes), parts(op->rows, rows), 1},
    };
    return dispatch(r, &call);
}

static enum nd_status
record_hold(const struct recorder *r, const struct nd_hold *op)
{
    uint32_t lanes = lanes_of(r->gpu), rows = r->gpu->kernels->rows;
    struct nd_hold_params params = {
        .rows = (uint32_t)op->rows,
        .cells = (uint32_t)op->held->columns,
        .plane4 = stride4(op->held),
        .out_stride = (uint32_t)op->out->stride,
    };
    struct nd_gpu_call call = {
        .shader = ND_GPU_SHADER_hold,
        .constants = {lanes, 0, rows, op->out->columns > 24 * params.plane4},
        .inputs = {buffer_of(op->held)},
        .outputs = {buffer_of(op->out)},
        .params = &params,
        .params_bytes = sizeof params,
        .groups = {parts(parts(params.cells, 4), lanes),
                   parts(op->rows, rows), 1},
    };
    return dispatch(r, &call);
}

static enum nd_status
record_estimate(const struct recorder *r, const struct nd_estimate *op)
{
    uint32_t lanes = lanes_of(r->gpu), rows = r->gpu->kernels->rows;
    struct nd_estimate_params params = {
        .rows = (uint32_t)op->rows,
        .plane4 = (uint32_t)(op->x->columns / 12),
        .x_stride4 = stride4(op->x),
        .e_stride4 = stride4(op->estimate),
    };
    struct nd_gpu_call call = {
        .shader = ND_GPU_SHADER_estimate,
        .constants = {lanes, 0, rows, op->none != NULL},
        .inputs = {buffer_of(op->logits), buffer_of(op->none),
                   buffer_of(op->x), buffer_of(op->estimate)},
        .outputs = {buffer_of(op->logits), buffer_of(op->x),
                    buffer_of(op->estimate)},
        .params = &params,
        .params_bytes = sizeof params,
        .groups = {parts(params.plane4, lanes), parts(op->rows, rows), 1},
    };
    return dispatch(r, &call);
}

/* Of pixels with three planes, estimates or logits with two, or both. */
static struct nd_draw_params
draw_params(const struct nd_tensor *x, const struct nd_tensor *e,
            const struct nd_ragged *ragged)
{
    return (struct nd_draw_params){
        .rows = (uint32_t)ragged->n_tokens,
        .plane4 = (uint32_t)(x != NULL ? x->columns / 12 : e->columns / 8),
        .x_stride4 = stride4(x),
        .e_stride4 = stride4(e),
    };
}

static enum nd_status
record_noise(const struct recorder *r, const struct nd_noise *op)
{
    uint32_t lanes = lanes_of(r->gpu);
    struct nd_draw_params params =
        draw_params(op->x, op->estimate, &op->ragged);
    struct nd_gpu_call call = {
        .shader = ND_GPU_SHADER_noise,
        .constants = {lanes, 0, op->estimate == NULL},
        .inputs = {buffer_of(op->ragged.tokens), buffer_of(op->ragged.flows),
                   buffer_of(op->x)},
        .outputs = {buffer_of(op->x),
                    buffer_of(op->estimate ? op->estimate : op->x)},
        .params = &params,
        .params_bytes = sizeof params,
        .groups = {parts(3 * params.plane4, lanes), params.rows, 1},
    };
    return dispatch(r, &call);
}

static enum nd_status
record_renoise(const struct recorder *r, const struct nd_renoise *op)
{
    uint32_t lanes = lanes_of(r->gpu);
    struct nd_draw_params params =
        draw_params(op->x, op->logits, &op->ragged);
    struct nd_gpu_call call = {
        .shader = ND_GPU_SHADER_renoise,
        .constants = {lanes},
        .inputs = {buffer_of(op->logits), buffer_of(op->ragged.tokens),
                   buffer_of(op->ragged.flows)},
        .outputs = {buffer_of(op->x)},
        .params = &params,
        .params_bytes = sizeof params,
        .groups = {parts(params.plane4, lanes), params.rows, 1},
    };
    return dispatch(r, &call);
}

static enum nd_status
record_draw(const struct recorder *r, const struct nd_draw *op)
{
    uint32_t lanes = lanes_of(r->gpu);
    struct nd_draw_params params =
        draw_params(NULL, op->logits, &op->ragged);
    struct nd_gpu_call call = {
        .shader = ND_GPU_SHADER_draw,
        .constants = {lanes},
        .inputs = {buffer_of(op->logits), buffer_of(op->ragged.tokens),
                   buffer_of(op->ragged.flows)},
        .outputs = {buffer_of(op->cells)},
        .params = &params,
        .params_bytes = sizeof params,
        .groups = {parts(params.plane4, lanes), params.rows, 1},
    };
    return dispatch(r, &call);
}

enum nd_status
nd_gpu_record_op(struct nd_gpu *gpu, const struct nd_gpu_recording *recording,
                 const struct nd_op *op, struct nd_gpu_tiles *tiles,
                 struct nd_error *err)
{
    struct recorder r = {gpu, recording, tiles, err};
    switch (op->kind) {
#define X(name, member)                                                       \
    case ND_OP_##name:                                                        \
        return record_##member(&r, &op->as.member);
        ND_OP_LIST(X)
#undef X
    default:
        return nd_fail(err, ND_UNSUPPORTED, "Vulkan has no op %d",
                       (int)op->kind);
    }
}
