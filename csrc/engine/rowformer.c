#include "rowformer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* More than any model has; products of two stay far below SIZE_MAX. */
enum { DIMENSION_MOST = 1 << 20, TENSOR_NAME = 64 };

/* Features of a noise level or a length, and of a packet's place. */
enum { FEATURES = 32, PLACE_FEATURES = 64 };

struct loader {
    struct nd_backend *backend;
    const struct nd_safetensors *file;
    struct nd_error *err;
    float *matrix, *bias; /* room for the largest weight */
    float *folded;        /* and for one with planes of colours */
};

static enum nd_status
check_dimensions(const struct nd_dimensions *size, struct nd_error *err)
{
    const size_t all[] = {size->columns, size->width, size->blocks,
                          size->heads,   size->mlp,   size->classes};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i] == 0 || all[i] > DIMENSION_MOST)
            return nd_fail(err, ND_ARGUMENT,
                           "a dimension of the network is %zu", all[i]);
    if (size->width % 32 != 0 || size->width % size->heads != 0 ||
        size->width / size->heads % 8 != 0)
        return nd_fail(err, ND_ARGUMENT,
                       "width %zu must be a multiple of 32, and %zu heads of "
                       "it multiples of 8",
                       size->width, size->heads);
    return ND_OK;
}

/*
 * Row n of in.weight, cell by cell, to planes. What weighs a cell's third
 * estimate weighs -1 - e_0 - e_1: taken from the first two, and from the last
 * column, which is 1 where there is an estimate. For held cells all three
 * stay, and the mask follows.
 */
static void
fold_input(const struct nd_dimensions *size, bool held, const float *from,
           float *to)
{
    size_t plane = nd_stride(size->columns);
    const float *e = from + 3 * size->columns, *mask = e + 3 * size->columns;
    memset(to, 0, nd_input_columns(size, held) * sizeof *to);
    for (size_t j = 0; j < size->columns; j++) {
        for (size_t c = 0; c < 3; c++)
            to[c * plane + j] = from[3 * j + c];
        float third = e[3 * j + 2], folded = held ? 0.0f : third;
        to[3 * plane + j] = e[3 * j] - folded;
        to[4 * plane + j] = e[3 * j + 1] - folded;
        if (!held)
            to[5 * plane] -= third;
        else
            to[5 * plane + j] = third;
        if (held && size->reveal)
            to[6 * plane + j] = mask[j];
    }
}

/* Colours c < 2 of final.out, as planes, less the third; rows of in floats. */
static void
fold_output(const struct nd_dimensions *size, size_t in, const float *from,
            float *to)
{
    size_t plane = nd_stride(size->columns);
    memset(to, 0, 2 * plane * in * sizeof *to);
    for (size_t j = 0; j < size->columns; j++)
        for (size_t c = 0; c < 2; c++)
            for (size_t k = 0; k < in; k++)
                to[(c * plane + j) * in + k] =
                    from[(3 * j + c) * in + k] - from[(3 * j + 2) * in + k];
}

/* <layer>.weight (out, in) and, if it has one, <layer>.bias (out). */
static enum nd_status
load_layer(struct loader *loader, const char *layer, size_t out, size_t in,
           bool bias, size_t first_row)
{
    char name[TENSOR_NAME];
    snprintf(name, sizeof name, "%s.weight", layer);
    enum nd_status status =
        nd_safetensors_read(loader->file, name, out, in,
                            loader->matrix + first_row * in, loader->err);
    if (status != ND_OK || !bias)
        return status;
    snprintf(name, sizeof name, "%s.bias", layer);
    return nd_safetensors_read(loader->file, name, out, 0,
                               loader->bias + first_row, loader->err);
}

static enum nd_status
load(struct loader *loader, const char *layer, size_t out, size_t in,
     bool bias, struct nd_weight **weight)
{
    enum nd_status status = load_layer(loader, layer, out, in, bias, 0);
    if (status != ND_OK)
        return status;
    return loader->backend->functions->weight_create(
        loader->backend, loader->matrix, bias ? loader->bias : NULL, out, in,
        weight, loader->err);
}

/* mod and final.mod see the same input: one matrix of 8D rows. */
static enum nd_status
load_modulation(struct loader *loader, struct nd_rowformer *network)
{
    size_t width = network->dimensions.width;
    enum nd_status status =
        load_layer(loader, "mod", 6 * width, width, true, 0);
    if (status == ND_OK)
        status = load_layer(loader, "final.mod", 2 * width, width, true,
                            6 * width);
    if (status != ND_OK)
        return status;
    return loader->backend->functions->weight_create(
        loader->backend, loader->matrix, loader->bias, 8 * width, width,
        &network->modulation, loader->err);
}

static enum nd_status
load_input(struct loader *loader, struct nd_rowformer *network)
{
    const struct nd_dimensions *size = &network->dimensions;
    struct nd_backend *backend = loader->backend;
    size_t inside = (size->reveal ? 7 : 6) * size->columns;
    enum nd_status status =
        load_layer(loader, "in", size->width, inside, true, 0);
    for (int held = 0; held < 2 && status == ND_OK; held++) {
        size_t columns = nd_input_columns(size, held);
        for (size_t n = 0; n < size->width; n++)
            fold_input(size, held, loader->matrix + n * inside,
                       loader->folded + n * columns);
        status = backend->functions->weight_create(
            backend, loader->folded, loader->bias, size->width, columns,
            held ? &network->in_held : &network->in, loader->err);
    }
    return status;
}

static enum nd_status
load_output(struct loader *loader, struct nd_rowformer *network)
{
    const struct nd_dimensions *size = &network->dimensions;
    size_t d = size->width, rows = 2 * nd_stride(size->columns);
    enum nd_status status =
        load_layer(loader, "final.out", 3 * size->columns, d, true, 0);
    if (status != ND_OK)
        return status;
    float *bias = loader->folded + rows * d;
    fold_output(size, d, loader->matrix, loader->folded);
    fold_output(size, 1, loader->bias, bias);
    return loader->backend->functions->weight_create(
        loader->backend, loader->folded, bias, rows, d, &network->out,
        loader->err);
}

static enum nd_status
load_block(struct loader *loader, const struct nd_dimensions *size,
           size_t index, struct nd_rowformer_block *block)
{
    struct nd_backend *backend = loader->backend;
    char name[TENSOR_NAME];
    const struct {
        const char *name;
        size_t out, in;
        struct nd_weight **weight;
    } layers[] = {
        {"qkv", 3 * size->width, size->width, &block->qkv},
        {"out", size->width, size->width, &block->out},
        {"up", size->mlp, size->width, &block->up},
        {"down", size->width, size->mlp, &block->down},
    };
    for (size_t i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "blocks.%zu.%s", index, layers[i].name);
        enum nd_status status = load(loader, name, layers[i].out, layers[i].in,
                                     true, layers[i].weight);
        if (status != ND_OK)
            return status;
    }
    snprintf(name, sizeof name, "blocks.%zu.mod", index);
    enum nd_status status = nd_safetensors_read(
        loader->file, name, 1, 6 * size->width, loader->bias, loader->err);
    if (status == ND_OK)
        status = backend->functions->tensor_create(
            backend, ND_FLOAT32, 1, 6 * size->width, &block->constant,
            loader->err);
    if (status == ND_OK)
        status = backend->functions->tensor_write(
            backend, block->constant, 1, loader->bias, loader->err);
    return status;
}

static enum nd_status
load_network(struct loader *loader, struct nd_rowformer *network)
{
    const struct nd_dimensions *size = &network->dimensions;
    size_t d = size->width;
    const struct {
        const char *name;
        size_t out, in;
        bool bias;
        struct nd_weight **weight;
    } layers[] = {
        {"pos", d, PLACE_FEATURES, true, &network->position},
        {"noise.0", d, FEATURES, true, &network->noise_in},
        {"noise.2", d, d, true, &network->noise_out},
        {"length", d, FEATURES, false, &network->length},
    };
    enum nd_status status = ND_OK;
    for (size_t i = 0; i < sizeof layers / sizeof *layers; i++) {
        status = load(loader, layers[i].name, layers[i].out, layers[i].in,
                      layers[i].bias, layers[i].weight);
        if (status != ND_OK)
            return status;
    }
    status = load_input(loader, network);
    if (status == ND_OK)
        status = load_output(loader, network);
    if (status == ND_OK)
        status = load_modulation(loader, network);
    for (size_t i = 0; i < size->blocks && status == ND_OK; i++)
        status = load_block(loader, size, i, &network->blocks[i]);
    if (status != ND_OK)
        return status;
    return nd_safetensors_read(loader->file, "classes.weight",
                               size->classes + 1, d, network->class_rows,
                               loader->err);
}

static size_t
largest(size_t a, size_t b)
{
    return a > b ? a : b;
}

enum nd_status
nd_rowformer_create(struct nd_backend *backend,
                    const struct nd_safetensors *file,
                    const struct nd_dimensions *dimensions,
                    struct nd_rowformer **network, struct nd_error *err)
{
    enum nd_status status = check_dimensions(dimensions, err);
    if (status != ND_OK)
        return status;
    size_t d = dimensions->width, m = dimensions->mlp;
    size_t wide = 7 * nd_stride(dimensions->columns);
    size_t inner = largest(8 * d, largest(m, wide));
    struct loader loader = {.backend = backend, .file = file, .err = err};
    struct nd_rowformer *made = calloc(1, sizeof *made);
    if (made != NULL) {
        made->backend = backend;
        made->dimensions = *dimensions;
        made->blocks = calloc(dimensions->blocks, sizeof *made->blocks);
        made->class_rows =
            malloc((dimensions->classes + 1) * d * sizeof *made->class_rows);
        loader.matrix = malloc(inner * d * sizeof *loader.matrix);
        loader.bias = malloc(inner * sizeof *loader.bias);
        loader.folded = malloc(wide * (d + 1) * sizeof *loader.folded);
    }
    if (made == NULL || made->blocks == NULL || made->class_rows == NULL ||
        loader.matrix == NULL || loader.bias == NULL || loader.folded == NULL)
        status = nd_fail(err, ND_NO_MEMORY, "no memory for the network");
    else
        status = load_network(&loader, made);
    free(loader.matrix);
    free(loader.bias);
    free(loader.folded);
    if (status == ND_OK)
        *network = made;
    else
        nd_rowformer_destroy(made);
    return status;
}

void
nd_rowformer_destroy(struct nd_rowformer *network)
{
    if (network == NULL)
        return;
    struct nd_backend *backend = network->backend;
    const struct nd_backend_functions *f = backend->functions;
    struct nd_weight *weights[] = {
        network->in,     network->position,   network->noise_in,
        network->length, network->modulation, network->noise_out,
        network->out,    network->in_held};
    for (size_t i = 0; i < sizeof weights / sizeof *weights; i++)
        f->weight_destroy(backend, weights[i]);
    for (size_t i = 0; network->blocks && i < network->dimensions.blocks;
         i++) {
        f->weight_destroy(backend, network->blocks[i].qkv);
        f->weight_destroy(backend, network->blocks[i].out);
        f->weight_destroy(backend, network->blocks[i].up);
        f->weight_destroy(backend, network->blocks[i].down);
        f->tensor_destroy(backend, network->blocks[i].constant);
    }
    free(network->blocks);
    free(network->class_rows);
    free(network);
}

enum nd_status
nd_ops_run(struct nd_backend *backend, const struct nd_ops *list,
           const struct nd_step *step, struct nd_error *err)
{
    struct nd_program *program = NULL;
    enum nd_status status = backend->functions->program_create(
        backend, list->ops, list->count, &program, err);
    if (status == ND_OK)
        status = backend->functions->program_run(backend, program, step, err);
    backend->functions->program_destroy(backend, program);
    return status;
}

enum nd_status
nd_rowformer_input(const struct nd_batch *batch, const struct nd_tensor *given,
                   struct nd_ops *list, struct nd_error *err)
{
    const struct nd_rowformer *network = batch->network;
    size_t flows = batch->ragged.n_flows, tokens = batch->ragged.n_tokens;
    struct nd_condition condition = {given, batch->levels, flows,
                                     batch->condition};
    struct nd_linear modulation = {.in = batch->condition,
                                   .weight = network->modulation,
                                   .rows = flows,
                                   .out = batch->modulation};
    struct nd_input input = {batch->x, batch->estimate, tokens, batch->input};
    struct nd_linear in = {.in = batch->input,
                           .weight = batch->held != NULL ? network->in_held
                                                         : network->in,
                           .epilogue = ND_EPILOGUE_ADD,
                           .residual = batch->position,
                           .rows = tokens,
                           .out = batch->h};
    struct nd_hold hold = {batch->held, tokens, batch->input};
    enum nd_status status = nd_op_condition(list, &condition, err);
    if (status == ND_OK)
        status = nd_op_linear(list, &modulation, err);
    if (status == ND_OK)
        status = nd_op_input(list, &input, err);
    if (status == ND_OK && batch->held != NULL)
        status = nd_op_hold(list, &hold, err);
    return status == ND_OK ? nd_op_linear(list, &in, err) : status;
}

/* y = norm(h), modulated by the columns from `shift` on: shift, scale. */
static enum nd_status
append_norm(const struct nd_batch *batch, size_t shift,
            const struct nd_tensor *constant, struct nd_ops *list,
            struct nd_error *err)
{
    struct nd_norm norm = {.in = batch->h,
                           .modulation = batch->modulation,
                           .constant = constant,
                           .tokens = batch->tokens,
                           .shift = shift,
                           .scale = shift + batch->network->dimensions.width,
                           .rows = batch->ragged.n_tokens,
                           .out = batch->y};
    return nd_op_norm(list, &norm, err);
}

/* h += gate * (weight in), the gates being the columns from `gate` on. */
static enum nd_status
append_gated(const struct nd_batch *batch, const struct nd_tensor *in,
             const struct nd_weight *weight, size_t gate,
             const struct nd_tensor *constant, struct nd_ops *list,
             struct nd_error *err)
{
    struct nd_linear linear = {.in = in,
                               .weight = weight,
                               .epilogue = ND_EPILOGUE_GATED,
                               .residual = batch->h,
                               .modulation = batch->modulation,
                               .constant = constant,
                               .tokens = batch->tokens,
                               .gate = gate,
                               .rows = batch->ragged.n_tokens,
                               .out = batch->h};
    return nd_op_linear(list, &linear, err);
}

enum nd_status
nd_rowformer_block(const struct nd_batch *batch, size_t index,
                   struct nd_ops *list, struct nd_error *err)
{
    const struct nd_rowformer_block *block = &batch->network->blocks[index];
    const struct nd_dimensions *size = &batch->network->dimensions;
    size_t tokens = batch->ragged.n_tokens, d = size->width;
    struct nd_linear qkv = {.in = batch->y,
                            .weight = block->qkv,
                            .rows = tokens,
                            .out = batch->qkv};
    struct nd_attention attention = {batch->qkv, batch->rotary, batch->ragged,
                                     size->heads, batch->y};
    struct nd_linear up = {.in = batch->y,
                           .weight = block->up,
                           .epilogue = ND_EPILOGUE_GELU,
                           .rows = tokens,
                           .out = batch->up};
    enum nd_status status = append_norm(batch, 0, block->constant, list, err);
    if (status == ND_OK)
        status = nd_op_linear(list, &qkv, err);
    if (status == ND_OK)
        status = nd_op_attention(list, &attention, err);
    if (status == ND_OK)
        status = append_gated(batch, batch->y, block->out, 2 * d,
                              block->constant, list, err);
    if (status == ND_OK)
        status = append_norm(batch, 3 * d, block->constant, list, err);
    if (status == ND_OK)
        status = nd_op_linear(list, &up, err);
    if (status == ND_OK)
        status = append_gated(batch, batch->up, block->down, 5 * d,
                              block->constant, list, err);
    return status;
}

enum nd_status
nd_rowformer_output(const struct nd_batch *batch, struct nd_tensor *logits,
                    struct nd_ops *list, struct nd_error *err)
{
    struct nd_linear out = {.in = batch->y,
                            .weight = batch->network->out,
                            .rows = batch->ragged.n_tokens,
                            .out = logits};
    enum nd_status status = append_norm(
        batch, 6 * batch->network->dimensions.width, NULL, list, err);
    return status == ND_OK ? nd_op_linear(list, &out, err) : status;
}

static enum nd_status
append_pass(const struct nd_batch *batch, const struct nd_tensor *given,
            struct nd_tensor *logits, struct nd_ops *list,
            struct nd_error *err)
{
    enum nd_status status = nd_rowformer_input(batch, given, list, err);
    size_t blocks = batch->network->dimensions.blocks;
    for (size_t i = 0; i < blocks && status == ND_OK; i++)
        status = nd_rowformer_block(batch, i, list, err);
    if (status == ND_OK)
        status = nd_rowformer_output(batch, logits, list, err);
    return status;
}

enum nd_status
nd_rowformer_forward(const struct nd_batch *batch, bool none,
                     struct nd_ops *list, struct nd_error *err)
{
    enum nd_status status =
        append_pass(batch, batch->given, batch->logits, list, err);
    if (status == ND_OK && none)
        status =
            append_pass(batch, batch->none, batch->none_logits, list, err);
    return status;
}
