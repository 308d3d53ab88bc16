/*
 * rowformer.h - the network: a transformer over packet rows, as lists of ops
 *
 * In:      a backend, an open safetensors file, the dimensions of config.json;
 *          then batches of flows: lengths, classes, ids.
 * Out:     ops that take x and the previous estimate of a batch to logits.
 * Errors:  ND_ARGUMENT for dimensions, classes or lengths out of range;
 *          ND_FORMAT from the file; what the backend says.
 * Memory:  weights and tensors of a batch live on the device; a batch is
 *          sized once and filled many times.
 * Threads: one thread at a time for a network and its batches.
 * Python:  _core.Model.  Tests: test_rowformer.py
 *
 * The formulas stand in docs/model.md. Letters: T tokens, F flows, D width,
 * C columns, M mlp, d = D / heads, S noise levels.
 *
 *   condition (F, D) = silu(given + levels[level])
 *   modulation (F, 8D) = shift1 scale1 gate1 shift2 scale2 gate2 of every
 *                        block (plus the block's constant), then fshift fscale
 *   h (T, D) = in [x / sqrt(1 + sigma^2), estimate, held] + position;
 *              held is there if the network has reveal
 *   each block: h += gate1 attention(norm h);  h += gate2 mlp(norm h)
 *   logits (T, 3C) = out norm h
 *
 * Files hold three colours a cell, side by side. Here rows are planes of
 * colours (backend.h), and what a third colour adds to h, or takes from the
 * logits, is folded into the others' weights when they are loaded; S is
 * nd_stride(C).
 */
#ifndef ND_ENGINE_ROWFORMER_H
#define ND_ENGINE_ROWFORMER_H

#include "ops.h"
#include "safetensors.h"

struct nd_dimensions {
    size_t columns; /* cells of a row that the network draws */
    size_t width;   /* multiple of 32 */
    size_t blocks, heads, mlp;
    size_t classes; /* class number `classes` means none */
    bool reveal;    /* the input has a mask of the cells that are held */
};

/* Columns of the network's input, INPUT's out: where cells are held, or not. */
static inline size_t
nd_input_columns(const struct nd_dimensions *size, bool held)
{
    size_t plane = nd_stride(size->columns);
    return !held ? 5 * plane + 1 : size->reveal ? 7 * plane : 6 * plane;
}

struct nd_rowformer_block {
    struct nd_weight *qkv, *out, *up, *down;
    struct nd_tensor *constant; /* (1, 6D) */
};

struct nd_rowformer {
    struct nd_backend *backend;
    struct nd_dimensions dimensions;
    struct nd_weight *in, *in_held; /* of nd_input_columns */
    struct nd_weight *position, *noise_in, *noise_out, *length;
    struct nd_weight *modulation; /* (8D, D): mod and final.mod */
    struct nd_weight *out; /* (2S, D) */
    struct nd_rowformer_block *blocks;
    float *class_rows; /* (classes + 1, D), on the host */
};

/* The backend must outlive the network. */
enum nd_status nd_rowformer_create(struct nd_backend *backend,
                                   const struct nd_safetensors *file,
                                   const struct nd_dimensions *dimensions,
                                   struct nd_rowformer **network,
                                   struct nd_error *err);
void nd_rowformer_destroy(struct nd_rowformer *network);

/* The most that a batch can be filled with. */
struct nd_batch_size {
    size_t tokens, flows, longest, levels;
    bool guided; /* a second pass without class */
    bool held;   /* cells are held, nd_batch_hold */
};

struct nd_batch {
    struct nd_rowformer *network;
    struct nd_batch_size most;
    struct nd_ragged ragged; /* of the flows it is filled with */
    struct nd_tensor *tokens, *flows;
    struct nd_tensor *position_features, *position;   /* (T, 64), (T, D) */
    struct nd_tensor *length_features, *class_rows;   /* (F, 32), (F, D) */
    struct nd_tensor *given, *none;                   /* (F, D) */
    struct nd_tensor *level_features, *level_hidden;  /* (S, 32), (S, D) */
    struct nd_tensor *levels;                         /* (S, D) */
    struct nd_tensor *condition, *modulation;         /* (F, D), (F, 8D) */
    struct nd_tensor *rotary;                         /* (longest, d) */
    struct nd_tensor *held;                           /* (T, C) int8 */
    struct nd_tensor *x, *estimate, *input;           /* (T, 3S), 2S, 5-7S */
    /* up is qkv if M = 3D. */
    struct nd_tensor *h, *y, *qkv, *up;               /* (T, D), D, 3D, M */
    struct nd_tensor *logits, *none_logits;           /* (T, 2S) */
    struct nd_tensor *cells;                          /* (T, C) int8 */
    uint32_t *offsets, *rows; /* host: (F + 1), staging (T or F, 4) */
    float *table, *staging;   /* host: sin, cos of positions (longest, 32) */
};

enum nd_status nd_batch_create(struct nd_rowformer *network,
                               const struct nd_batch_size *most,
                               struct nd_batch **batch, struct nd_error *err);
void nd_batch_destroy(struct nd_batch *batch);

/* Noise levels that steps name by nd_step.noise_row; at most most.levels. */
enum nd_status nd_batch_set_levels(struct nd_batch *batch, const float *sigmas,
                                   size_t count, struct nd_error *err);

/* n flows: packets of each, class (dimensions.classes: none), id. */
enum nd_status nd_batch_fill(struct nd_batch *batch, size_t n,
                             const int32_t *lengths, const int32_t *classes,
                             const uint64_t *ids, struct nd_error *err);

/*
 * Which cells of the flows that the batch holds are known: rows of values 1,
 * 0 and -1, ND_FREE elsewhere. The batch was made with most.held.
 */
enum nd_status nd_batch_hold(struct nd_batch *batch, const int8_t *held,
                             struct nd_error *err);

/*
 * The scalars of a network evaluation at a noise level, with an estimate; the
 * rest is zero.
 */
struct nd_step nd_rowformer_step(float sigma, size_t level);

/*
 * The network's ops for the flows that the batch holds, in three parts: from
 * x, estimate and given (batch->given or batch->none) to h; one block; from h
 * to logits. The lists are good until the batch is filled again.
 */
enum nd_status nd_rowformer_input(const struct nd_batch *batch,
                                  const struct nd_tensor *given,
                                  struct nd_ops *list, struct nd_error *err);
enum nd_status nd_rowformer_block(const struct nd_batch *batch, size_t block,
                                  struct nd_ops *list, struct nd_error *err);
enum nd_status nd_rowformer_output(const struct nd_batch *batch,
                                   struct nd_tensor *logits,
                                   struct nd_ops *list, struct nd_error *err);

/* All three parts; none adds the pass without class for guidance. */
enum nd_status nd_rowformer_forward(const struct nd_batch *batch, bool none,
                                    struct nd_ops *list, struct nd_error *err);

/*
 * One evaluation of the batch's flows at one noise level, with what it goes
 * through: input (T, D) is h before the first block, blocks h after each,
 * block_stride floats apart, logits (T, 3C) less that of each cell's third
 * colour. x and estimate are (T, 3C), colours side by side; estimate is all
 * zeros, or each cell's add up to -1. rowformer_trace.c
 */
struct nd_trace {
    float *input, *blocks, *logits;
};

enum nd_status nd_rowformer_trace(struct nd_batch *batch, float sigma,
                                  const float *x, const float *estimate,
                                  size_t block_stride,
                                  const struct nd_trace *to,
                                  struct nd_error *err);

/* Makes a program of the list, runs it once, and forgets it. */
enum nd_status nd_ops_run(struct nd_backend *backend,
                          const struct nd_ops *list,
                          const struct nd_step *step, struct nd_error *err);

#endif
