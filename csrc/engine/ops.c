#include "ops.h"

#include <stdlib.h>

/* A head is at most this wide, a multiple of 8. */
enum { HEAD_MOST = 256 };

void
nd_ops_free(struct nd_ops *list)
{
    free(list->ops);
    *list = (struct nd_ops){NULL, 0, 0};
}

static enum nd_status
append(struct nd_ops *list, struct nd_op op, struct nd_error *err)
{
    if (list->count == list->capacity) {
        size_t more = list->capacity * 2 + 16;
        void *grown = realloc(list->ops, more * sizeof *list->ops);
        if (grown == NULL)
            return nd_fail(err, ND_NO_MEMORY, "no memory for %zu ops", more);
        list->ops = grown;
        list->capacity = more;
    }
    list->ops[list->count++] = op;
    return ND_OK;
}

/* A tensor that an op needs: type, exact columns, at least some rows. */
struct need {
    const char *name;
    const struct nd_tensor *tensor;
    enum nd_type type;
    size_t rows, columns;
};

static enum nd_status
check(const char *op, const struct need *needs, size_t count,
      struct nd_error *err)
{
    for (size_t i = 0; i < count; i++) {
        const struct need *need = &needs[i];
        if (need->tensor == NULL)
            return nd_fail(err, ND_ARGUMENT, "%s: %s is missing", op,
                           need->name);
        if (need->tensor->type != need->type)
            return nd_fail(err, ND_ARGUMENT, "%s: %s has the wrong type", op,
                           need->name);
        if (need->tensor->columns != need->columns)
            return nd_fail(err, ND_ARGUMENT, "%s: %s has %zu columns, not %zu",
                           op, need->name, need->tensor->columns,
                           need->columns);
        if (need->tensor->rows < need->rows)
            return nd_fail(err, ND_ARGUMENT,
                           "%s: %s has %zu rows, %zu are needed", op,
                           need->name, need->tensor->rows, need->rows);
    }
    return ND_OK;
}

/* What gives an op its sizes must be there before they are compared. */
static enum nd_status
check_given(const char *op, const char *name, const void *given,
            struct nd_error *err)
{
    if (given == NULL)
        return nd_fail(err, ND_ARGUMENT, "%s: %s is missing", op, name);
    return ND_OK;
}

#define CHECK(op, needs, err)                                                 \
    check(op, needs, sizeof(needs) / sizeof *(needs), err)

/* At least columns: shifts, scales and gates are ranges of a wider row. */
static enum nd_status
check_range(const char *op, const char *name, const struct nd_tensor *tensor,
            size_t columns, struct nd_error *err)
{
    if (tensor == NULL || tensor->type != ND_FLOAT32 ||
        tensor->columns < columns)
        return nd_fail(err, ND_ARGUMENT, "%s: %s needs %zu columns of float",
                       op, name, columns);
    return ND_OK;
}

enum nd_status
nd_op_linear(struct nd_ops *list, const struct nd_linear *op,
             struct nd_error *err)
{
    if (check_given("linear", "weight", op->weight, err) != ND_OK)
        return ND_ARGUMENT;
    size_t out = op->weight->out, rows = op->rows;
    const struct need needs[] = {
        {"in", op->in, ND_FLOAT32, rows, op->weight->in},
        {"out", op->out, ND_FLOAT32, rows, out},
        {"residual", op->residual, ND_FLOAT32, rows, out},
        {"tokens", op->tokens, ND_UINT32, rows, 4},
    };
    size_t count = op->epilogue == ND_EPILOGUE_GATED ? 4
                   : op->epilogue == ND_EPILOGUE_ADD ? 3
                                                     : 2;
    enum nd_status status = check("linear", needs, count, err);
    if (status == ND_OK && op->epilogue == ND_EPILOGUE_GATED) {
        if (out % 32 != 0)
            return nd_fail(err, ND_ARGUMENT,
                           "linear: a gated width of %zu is no multiple of 32",
                           out);
        status = check_range("linear", "modulation", op->modulation,
                             op->gate + out, err);
        if (status == ND_OK)
            status = check_range("linear", "constant", op->constant,
                                 op->gate + out, err);
    }
    if (status == ND_OK && op->in == op->out)
        status = nd_fail(err, ND_ARGUMENT, "linear: in is out");
    if (status != ND_OK)
        return status;
    return append(list, (struct nd_op){ND_OP_LINEAR, {.linear = *op}}, err);
}

enum nd_status
nd_op_norm(struct nd_ops *list, const struct nd_norm *op, struct nd_error *err)
{
    if (check_given("norm", "in", op->in, err) != ND_OK)
        return ND_ARGUMENT;
    size_t width = op->in->columns;
    size_t last = (op->shift > op->scale ? op->shift : op->scale) + width;
    const struct need needs[] = {
        {"in", op->in, ND_FLOAT32, op->rows, width},
        {"out", op->out, ND_FLOAT32, op->rows, width},
        {"tokens", op->tokens, ND_UINT32, op->rows, 4},
    };
    enum nd_status status = CHECK("norm", needs, err);
    if (status == ND_OK && width % 32 != 0)
        status = nd_fail(err, ND_ARGUMENT,
                         "norm: a width of %zu is no multiple of 32", width);
    if (status == ND_OK)
        status = check_range("norm", "modulation", op->modulation, last, err);
    if (status == ND_OK && op->constant != NULL)
        status = check_range("norm", "constant", op->constant, last, err);
    if (status != ND_OK)
        return status;
    return append(list, (struct nd_op){ND_OP_NORM, {.norm = *op}}, err);
}

static enum nd_status
check_ragged(const char *op, const struct nd_ragged *ragged,
             struct nd_error *err)
{
    const struct need needs[] = {
        {"tokens", ragged->tokens, ND_UINT32, ragged->n_tokens, 4},
        {"flows", ragged->flows, ND_UINT32, ragged->n_flows, 4},
    };
    return CHECK(op, needs, err);
}

enum nd_status
nd_op_attention(struct nd_ops *list, const struct nd_attention *op,
                struct nd_error *err)
{
    if (check_given("attention", "out", op->out, err) != ND_OK)
        return ND_ARGUMENT;
    size_t width = op->out->columns, tokens = op->ragged.n_tokens;
    size_t d = op->heads > 0 ? width / op->heads : 0;
    if (d == 0 || d * op->heads != width || d % 8 != 0 || d > HEAD_MOST)
        return nd_fail(err, ND_ARGUMENT,
                       "attention: %zu heads do not fit a width of %zu",
                       op->heads, width);
    const struct need needs[] = {
        {"qkv", op->qkv, ND_FLOAT32, tokens, 3 * width},
        {"rotary", op->rotary, ND_FLOAT32, op->ragged.longest, d},
        {"out", op->out, ND_FLOAT32, tokens, width},
    };
    enum nd_status status = CHECK("attention", needs, err);
    if (status == ND_OK)
        status = check_ragged("attention", &op->ragged, err);
    if (status != ND_OK)
        return status;
    return append(list, (struct nd_op){ND_OP_ATTENTION, {.attention = *op}},
                  err);
}

enum nd_status
nd_op_condition(struct nd_ops *list, const struct nd_condition *op,
                struct nd_error *err)
{
    if (check_given("condition", "out", op->out, err) != ND_OK)
        return ND_ARGUMENT;
    size_t width = op->out->columns;
    const struct need needs[] = {
        {"given", op->given, ND_FLOAT32, op->rows, width},
        {"noise", op->noise, ND_FLOAT32, 1, width},
        {"out", op->out, ND_FLOAT32, op->rows, width},
    };
    enum nd_status status = CHECK("condition", needs, err);
    if (status != ND_OK)
        return status;
    return append(list, (struct nd_op){ND_OP_CONDITION, {.condition = *op}},
                  err);
}

/* Planes of out of INPUT and HOLD, and its columns; see backend.h. */
static size_t
input_columns(const struct nd_tensor *out, size_t plane, bool held)
{
    if (out != NULL && out->columns == 7 * plane)
        return 7 * plane;
    if (held || (out != NULL && out->columns == 6 * plane))
        return 6 * plane;
    return 5 * plane + 1;
}

enum nd_status
nd_op_input(struct nd_ops *list, const struct nd_input *op,
            struct nd_error *err)
{
    if (check_given("input", "x", op->x, err) != ND_OK)
        return ND_ARGUMENT;
    size_t plane = nd_stride(op->x->columns / 3);
    const struct need needs[] = {
        {"x", op->x, ND_FLOAT32, op->rows, 3 * plane},
        {"estimate", op->estimate, ND_FLOAT32, op->rows, 2 * plane},
        {"out", op->out, ND_FLOAT32, op->rows,
         input_columns(op->out, plane, false)},
    };
    enum nd_status status = CHECK("input", needs, err);
    if (status != ND_OK)
        return status;
    return append(list, (struct nd_op){ND_OP_INPUT, {.input = *op}}, err);
}

enum nd_status
nd_op_hold(struct nd_ops *list, const struct nd_hold *op, struct nd_error *err)
{
    if (check_given("hold", "held", op->held, err) != ND_OK)
        return ND_ARGUMENT;
    size_t cells = op->held->columns;
    const struct need needs[] = {
        {"held", op->held, ND_INT8, op->rows, cells},
        {"out", op->out, ND_FLOAT32, op->rows,
         input_columns(op->out, nd_stride(cells), true)},
    };
    enum nd_status status = CHECK("hold", needs, err);
    if (status != ND_OK)
        return status;
    return append(list, (struct nd_op){ND_OP_HOLD, {.hold = *op}}, err);
}

enum nd_status
nd_op_estimate(struct nd_ops *list, const struct nd_estimate *op,
               struct nd_error *err)
{
    if (check_given("estimate", "x", op->x, err) != ND_OK)
        return ND_ARGUMENT;
    size_t plane = nd_stride(op->x->columns / 3);
    const struct need needs[] = {
        {"logits", op->logits, ND_FLOAT32, op->rows, 2 * plane},
        {"x", op->x, ND_FLOAT32, op->rows, 3 * plane},
        {"estimate", op->estimate, ND_FLOAT32, op->rows, 2 * plane},
        {"none", op->none, ND_FLOAT32, op->rows, 2 * plane},
    };
    enum nd_status status = check("estimate", needs, op->none ? 4 : 3, err);
    if (status != ND_OK)
        return status;
    return append(list, (struct nd_op){ND_OP_ESTIMATE, {.estimate = *op}},
                  err);
}

enum nd_status
nd_op_noise(struct nd_ops *list, const struct nd_noise *op,
            struct nd_error *err)
{
    if (check_given("noise", "x", op->x, err) != ND_OK)
        return ND_ARGUMENT;
    size_t plane = nd_stride(op->x->columns / 3), tokens = op->ragged.n_tokens;
    const struct need needs[] = {
        {"x", op->x, ND_FLOAT32, tokens, 3 * plane},
        {"estimate", op->estimate, ND_FLOAT32, tokens, 2 * plane},
    };
    enum nd_status status = check("noise", needs, op->estimate ? 2 : 1, err);
    if (status == ND_OK)
        status = check_ragged("noise", &op->ragged, err);
    if (status != ND_OK)
        return status;
    return append(list, (struct nd_op){ND_OP_NOISE, {.noise = *op}}, err);
}

enum nd_status
nd_op_renoise(struct nd_ops *list, const struct nd_renoise *op,
              struct nd_error *err)
{
    if (check_given("renoise", "x", op->x, err) != ND_OK)
        return ND_ARGUMENT;
    size_t plane = nd_stride(op->x->columns / 3), tokens = op->ragged.n_tokens;
    const struct need needs[] = {
        {"logits", op->logits, ND_FLOAT32, tokens, 2 * plane},
        {"x", op->x, ND_FLOAT32, tokens, 3 * plane},
    };
    enum nd_status status = CHECK("renoise", needs, err);
    if (status == ND_OK)
        status = check_ragged("renoise", &op->ragged, err);
    if (status != ND_OK)
        return status;
    return append(list, (struct nd_op){ND_OP_RENOISE, {.renoise = *op}}, err);
}

enum nd_status
nd_op_draw(struct nd_ops *list, const struct nd_draw *op, struct nd_error *err)
{
    if (check_given("draw", "cells", op->cells, err) != ND_OK)
        return ND_ARGUMENT;
    size_t columns = op->cells->columns, tokens = op->ragged.n_tokens;
    const struct need needs[] = {
        {"logits", op->logits, ND_FLOAT32, tokens, 2 * nd_stride(columns)},
        {"cells", op->cells, ND_INT8, tokens, columns},
    };
    enum nd_status status = CHECK("draw", needs, err);
    if (status == ND_OK)
        status = check_ragged("draw", &op->ragged, err);
    if (status != ND_OK)
        return status;
    return append(list, (struct nd_op){ND_OP_DRAW, {.draw = *op}}, err);
}
