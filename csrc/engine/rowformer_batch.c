/* The tensors of a batch: made once, filled with flows many times. */
#include "rowformer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { FREQUENCIES = 16, FEATURES = 32, PLACE_FEATURES = 64 };

/* [sin f_k v, cos f_k v], f_k = 2^(k/2 - 1). */
static void
scalar_features(double v, float *features)
{
    for (int k = 0; k < FREQUENCIES; k++) {
        double angle = exp2(k / 2.0 - 1.0) * v;
        features[k] = (float)sin(angle);
        features[FREQUENCIES + k] = (float)cos(angle);
    }
}

/* [sin i g_k, cos i g_k] of every packet index i, g_k = 10000^(-k/16). */
static void
fill_table(float *table, size_t longest)
{
    for (int k = 0; k < FREQUENCIES; k++) {
        double frequency = pow(10000.0, -k / 16.0);
        for (size_t i = 0; i < longest; i++) {
            double angle = (double)i * frequency;
            table[i * FEATURES + (size_t)k] = (float)sin(angle);
            table[i * FEATURES + FREQUENCIES + (size_t)k] = (float)cos(angle);
        }
    }
}

static enum nd_status
write_rotary(struct nd_batch *batch, struct nd_error *err)
{
    size_t longest = batch->most.longest, d = batch->rotary->columns;
    struct nd_backend *backend = batch->network->backend;
    float *rows = malloc(longest * d * sizeof *rows);
    if (rows == NULL)
        return nd_fail(err, ND_NO_MEMORY, "no memory for %zu angles", longest);
    for (size_t j = 0; j < d / 2; j++) {
        double frequency = pow(10000.0, -2.0 * (double)j / (double)d);
        for (size_t i = 0; i < longest; i++) {
            double angle = (double)i * frequency;
            rows[i * d + j] = (float)cos(angle);
            rows[i * d + d / 2 + j] = (float)sin(angle);
        }
    }
    enum nd_status status = backend->functions->tensor_write(
        backend, batch->rotary, longest, rows, err);
    free(rows);
    return status;
}

static enum nd_status
create_tensors(struct nd_batch *batch, struct nd_error *err)
{
    const struct nd_dimensions *size = &batch->network->dimensions;
    struct nd_backend *backend = batch->network->backend;
    size_t t = batch->most.tokens, f = batch->most.flows;
    size_t s = batch->most.levels, d = size->width;
    size_t plane = nd_stride(size->columns);
    size_t none = batch->most.guided ? 1 : 0, held = batch->most.held ? 1 : 0;
    const struct {
        struct nd_tensor **tensor;
        enum nd_type type;
        size_t rows, columns;
    } all[] = {
        {&batch->tokens, ND_UINT32, t, 4},
        {&batch->flows, ND_UINT32, f, 4},
        {&batch->position_features, ND_FLOAT32, t, PLACE_FEATURES},
        {&batch->position, ND_FLOAT32, t, d},
        {&batch->length_features, ND_FLOAT32, f, FEATURES},
        {&batch->class_rows, ND_FLOAT32, f, d},
        {&batch->given, ND_FLOAT32, f, d},
        {&batch->none, ND_FLOAT32, f * none, d},
        {&batch->level_features, ND_FLOAT32, s, FEATURES},
        {&batch->level_hidden, ND_FLOAT32, s, d},
        {&batch->levels, ND_FLOAT32, s, d},
        {&batch->condition, ND_FLOAT32, f, d},
        {&batch->modulation, ND_FLOAT32, f, 8 * d},
        {&batch->rotary, ND_FLOAT32, batch->most.longest, d / size->heads},
        {&batch->x, ND_FLOAT32, t, 3 * plane},
        {&batch->estimate, ND_FLOAT32, t, 2 * plane},
        {&batch->input, ND_FLOAT32, t,
         nd_input_columns(size, batch->most.held)},
        {&batch->held, ND_INT8, t * held, size->columns},
        {&batch->h, ND_FLOAT32, t, d},
        {&batch->y, ND_FLOAT32, t, d},
        {&batch->qkv, ND_FLOAT32, t, 3 * d},
        {&batch->up, ND_FLOAT32, size->mlp != 3 * d ? t : 0, size->mlp},
        {&batch->logits, ND_FLOAT32, t, 2 * plane},
        {&batch->none_logits, ND_FLOAT32, t * none, 2 * plane},
        {&batch->cells, ND_INT8, t, size->columns},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        enum nd_status status = ND_OK;
        if (all[i].rows > 0)
            status = backend->functions->tensor_create(
                backend, all[i].type, all[i].rows, all[i].columns,
                all[i].tensor, err);
        if (status != ND_OK)
            return status;
    }
    if (batch->up == NULL) /* attention is done with qkv: less to cache */
        batch->up = batch->qkv;
    return ND_OK;
}

static bool
create_host(struct nd_batch *batch)
{
    const struct nd_batch_size *most = &batch->most;
    size_t d = batch->network->dimensions.width;
    size_t rows = most->tokens > most->flows ? most->tokens : most->flows;
    size_t staging = most->tokens * PLACE_FEATURES;
    if (staging < most->flows * d)
        staging = most->flows * d;
    if (staging < (most->flows + most->levels) * FEATURES)
        staging = (most->flows + most->levels) * FEATURES;
    batch->offsets = malloc((most->flows + 1) * sizeof *batch->offsets);
    batch->rows = malloc(rows * 4 * sizeof *batch->rows);
    batch->table = malloc(most->longest * FEATURES * sizeof *batch->table);
    batch->staging = malloc(staging * sizeof *batch->staging);
    return batch->offsets && batch->rows && batch->table && batch->staging;
}

enum nd_status
nd_batch_create(struct nd_rowformer *network, const struct nd_batch_size *most,
                struct nd_batch **batch, struct nd_error *err)
{
    struct nd_batch *made = calloc(1, sizeof *made);
    enum nd_status status;
    if (made == NULL)
        return nd_fail(err, ND_NO_MEMORY, "no memory for a batch");
    made->network = network;
    made->most = *most;
    if (!create_host(made)) {
        status = nd_fail(err, ND_NO_MEMORY, "no memory for a batch");
    } else {
        fill_table(made->table, most->longest);
        status = create_tensors(made, err);
    }
    if (status == ND_OK)
        status = write_rotary(made, err);
    if (status == ND_OK)
        *batch = made;
    else
        nd_batch_destroy(made);
    return status;
}

void
nd_batch_destroy(struct nd_batch *batch)
{
    if (batch == NULL)
        return;
    struct nd_backend *backend = batch->network->backend;
    struct nd_tensor *tensors[] = {
        batch->tokens, batch->flows, batch->class_rows, batch->position,
        batch->length_features, batch->given, batch->level_features,
        batch->level_hidden, batch->levels, batch->condition,
        batch->modulation, batch->rotary, batch->x, batch->estimate,
        batch->input, batch->h, batch->y, batch->qkv,
        batch->up != batch->qkv ? batch->up : NULL,
        batch->logits, batch->none_logits, batch->cells, batch->none,
        batch->position_features, batch->held
    };
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++)
        backend->functions->tensor_destroy(backend, tensors[i]);
    free(batch->offsets);
    free(batch->rows);
    free(batch->table);
    free(batch->staging);
    free(batch);
}

enum nd_status
nd_batch_set_levels(struct nd_batch *batch, const float *sigmas, size_t count,
                    struct nd_error *err)
{
    const struct nd_rowformer *network = batch->network;
    struct nd_linear hidden = {.in = batch->level_features,
                               .weight = network->noise_in,
                               .epilogue = ND_EPILOGUE_SILU,
                               .rows = count,
                               .out = batch->level_hidden};
    struct nd_linear levels = {.in = batch->level_hidden,
                               .weight = network->noise_out,
                               .rows = count,
                               .out = batch->levels};
    const struct nd_step step = {0};
    struct nd_ops list = {NULL, 0, 0};
    if (count == 0 || count > batch->most.levels)
        return nd_fail(err, ND_ARGUMENT, "%zu noise levels, room for %zu",
                       count, batch->most.levels);
    for (size_t i = 0; i < count; i++)
        scalar_features(log((double)sigmas[i]) / 4.0,
                        batch->staging + i * FEATURES);
    enum nd_status status = network->backend->functions->tensor_write(
        network->backend, batch->level_features, count, batch->staging, err);
    if (status == ND_OK)
        status = nd_op_linear(&list, &hidden, err);
    if (status == ND_OK)
        status = nd_op_linear(&list, &levels, err);
    if (status == ND_OK)
        status = nd_ops_run(network->backend, &list, &step, err);
    nd_ops_free(&list);
    return status;
}

/* ragged, tokens and flows, on the host and on the device. */
static enum nd_status
write_places(struct nd_batch *batch, size_t n, const int32_t *lengths,
             const uint64_t *ids, struct nd_error *err)
{
    struct nd_backend *backend = batch->network->backend;
    uint32_t *row = batch->rows;
    batch->offsets[0] = 0;
    batch->ragged = (struct nd_ragged){batch->tokens, batch->flows,
                                       batch->offsets, 0, n, 0};
    for (size_t f = 0; f < n; f++) {
        uint32_t packets = (uint32_t)lengths[f], first = batch->offsets[f];
        batch->offsets[f + 1] = first + packets;
        if (packets > batch->ragged.longest)
            batch->ragged.longest = packets;
        for (uint32_t i = 0; i < packets; i++, row += 4) {
            row[0] = (uint32_t)f;
            row[1] = i;
            row[2] = first;
            row[3] = packets;
        }
    }
    batch->ragged.n_tokens = batch->offsets[n];
    enum nd_status status = backend->functions->tensor_write(
        backend, batch->tokens, batch->ragged.n_tokens, batch->rows, err);
    row = batch->rows;
    for (size_t f = 0; f < n; f++, row += 4) {
        row[0] = batch->offsets[f];
        row[1] = (uint32_t)lengths[f];
        row[2] = (uint32_t)ids[f];
        row[3] = (uint32_t)(ids[f] >> 32);
    }
    if (status == ND_OK)
        status = backend->functions->tensor_write(backend, batch->flows, n,
                                                  batch->rows, err);
    return status;
}

/* Distance from the flow's start and from its end, as sines and cosines. */
static enum nd_status
write_positions(struct nd_batch *batch, struct nd_error *err)
{
    struct nd_backend *backend = batch->network->backend;
    float *to = batch->staging;
    for (size_t f = 0; f < batch->ragged.n_flows; f++) {
        size_t packets = batch->offsets[f + 1] - batch->offsets[f];
        for (size_t i = 0; i < packets; i++, to += PLACE_FEATURES) {
            memcpy(to, batch->table + i * FEATURES, FEATURES * sizeof *to);
            memcpy(to + FEATURES,
                   batch->table + (packets - 1 - i) * FEATURES,
                   FEATURES * sizeof *to);
        }
    }
    return backend->functions->tensor_write(backend, batch->position_features,
                                            batch->ragged.n_tokens,
                                            batch->staging, err);
}

/* given = class row + length features through their layer. */
static enum nd_status
write_given(struct nd_batch *batch, size_t n, const int32_t *lengths,
            const int32_t *classes, struct nd_tensor *given,
            struct nd_error *err)
{
    const struct nd_rowformer *network = batch->network;
    struct nd_backend *backend = network->backend;
    size_t d = network->dimensions.width;
    const struct nd_step step = {0};
    struct nd_ops list = {NULL, 0, 0};
    struct nd_linear linear = {.in = batch->length_features,
                               .weight = network->length,
                               .epilogue = ND_EPILOGUE_ADD,
                               .residual = batch->class_rows,
                               .rows = n,
                               .out = given};
    for (size_t f = 0; f < n; f++)
        scalar_features(log((double)lengths[f]) / 4.0,
                        batch->staging + f * FEATURES);
    enum nd_status status = backend->functions->tensor_write(
        backend, batch->length_features, n, batch->staging, err);
    for (size_t f = 0; f < n; f++) {
        size_t class = classes != NULL ? (size_t)classes[f]
                                       : network->dimensions.classes;
        memcpy(batch->staging + f * d, network->class_rows + class * d,
               d * sizeof *batch->staging);
    }
    if (status == ND_OK)
        status = backend->functions->tensor_write(backend, batch->class_rows,
                                                  n, batch->staging, err);
    if (status == ND_OK)
        status = nd_op_linear(&list, &linear, err);
    if (status == ND_OK)
        status = nd_ops_run(backend, &list, &step, err);
    nd_ops_free(&list);
    return status;
}

static enum nd_status
check_flows(const struct nd_batch *batch, size_t n, const int32_t *lengths,
            const int32_t *classes, struct nd_error *err)
{
    const struct nd_batch_size *most = &batch->most;
    size_t known = batch->network->dimensions.classes, tokens = 0;
    if (n == 0 || n > most->flows)
        return nd_fail(err, ND_ARGUMENT, "%zu flows in a batch for %zu", n,
                       most->flows);
    for (size_t f = 0; f < n; f++) {
        if (classes[f] < 0 || (size_t)classes[f] > known)
            return nd_fail(err, ND_ARGUMENT,
                           "class number %d: the model has 0 to %zu",
                           classes[f], known);
        if (lengths[f] < 1 || (size_t)lengths[f] > most->longest)
            return nd_fail(err, ND_ARGUMENT,
                           "a flow of %d packets in a batch for 1 to %zu",
                           lengths[f], most->longest);
        tokens += (size_t)lengths[f];
    }
    if (tokens > most->tokens)
        return nd_fail(err, ND_ARGUMENT, "%zu packets in a batch for %zu",
                       tokens, most->tokens);
    return ND_OK;
}

enum nd_status
nd_batch_fill(struct nd_batch *batch, size_t n, const int32_t *lengths,
              const int32_t *classes, const uint64_t *ids,
              struct nd_error *err)
{
    const struct nd_rowformer *network = batch->network;
    const struct nd_step step = {0};
    struct nd_ops list = {NULL, 0, 0};
    enum nd_status status = check_flows(batch, n, lengths, classes, err);
    if (status == ND_OK)
        status = write_places(batch, n, lengths, ids, err);
    if (status == ND_OK)
        status = write_positions(batch, err);
    if (status == ND_OK)
        status = write_given(batch, n, lengths, classes, batch->given, err);
    if (status == ND_OK && batch->most.guided)
        status = write_given(batch, n, lengths, NULL, batch->none, err);
    if (status != ND_OK)
        return status;
    struct nd_linear position = {.in = batch->position_features,
                                 .weight = network->position,
                                 .rows = batch->ragged.n_tokens,
                                 .out = batch->position};
    status = nd_op_linear(&list, &position, err);
    if (status == ND_OK)
        status = nd_ops_run(network->backend, &list, &step, err);
    nd_ops_free(&list);
    return status;
}

enum nd_status
nd_batch_hold(struct nd_batch *batch, const int8_t *held, struct nd_error *err)
{
    struct nd_backend *backend = batch->network->backend;
    size_t tokens = batch->ragged.n_tokens;
    size_t count = tokens * batch->network->dimensions.columns;
    if (batch->held == NULL)
        return nd_fail(err, ND_ARGUMENT, "a batch without room for held cells");
    for (size_t i = 0; i < count; i++)
        if (held[i] < -1 || held[i] > ND_FREE)
            return nd_fail(err, ND_ARGUMENT,
                           "held cell %zu is %d, not -1, 0, 1 or 2 for free",
                           i, held[i]);
    return backend->functions->tensor_write(backend, batch->held, tokens, held,
                                            err);
}

struct nd_step
nd_rowformer_step(float sigma, size_t level)
{
    double square = (double)sigma * (double)sigma;
    return (struct nd_step){
        .noise_row = (uint32_t)level,
        .input_scale = (float)(1.0 / sqrt(1.0 + square)),
        .estimated = 1.0f,
        .guidance = 1.0f,
        .a = 1.0f,
    };
}
