/*
 * cpu_attention.h - ATTENTION in vectors: blocks of queries, head by head
 *
 * In:      an op and a part (blocks of queries, heads); the blocks are listed
 *          in the context, made when the program is.
 * Out:     the op's out rows of the blocks, the heads' columns.
 * Errors:  none.
 * Memory:  the thread's scratch: the flow's keys and values of one head as
 *          panels, the rotated queries, the scores of one tile of queries.
 * Threads: parts write disjoint elements of out.
 * Python:  none.  Tests: test_ops.py
 *
 * Both products are those of cpu_linear.h: scores = queries x keys (keys are
 * the 32 columns of a panel), out = weights x values. A whole row of scores
 * is held (1,024 packets at most), so softmax needs one pass.
 */
#ifndef ND_ENGINE_CPU_ATTENTION_H
#define ND_ENGINE_CPU_ATTENTION_H

#include "cpu_linear.h"

#include <math.h>
#include <string.h>

struct head {
    const float *qkv; /* row of the flow's first packet, column of the head */
    size_t stride, d, keys, width;
    const float *rotary;
    size_t rotary_stride;
    float *key_panels, *value_panels, *queries, *scores;
};

/* to[0..d) = from rotated to packet i, times scale. */
static void
rotate(const struct head *head, const float *restrict from, size_t i,
       float scale, float *restrict to)
{
    size_t half = head->d / 2, j = 0;
    const float *restrict c = head->rotary + i * head->rotary_stride;
    const float *restrict s = c + half;
    for (; j + LANES <= half; j += LANES) {
        vector u = load(from + j) * scale, v = load(from + half + j) * scale;
        store(to + j, u * load(c + j) - v * load(s + j));
        store(to + half + j, v * load(c + j) + u * load(s + j));
    }
    for (; j < half; j++) {
        float u = from[j] * scale, v = from[half + j] * scale;
        to[j] = u * c[j] - v * s[j];
        to[half + j] = v * c[j] + u * s[j];
    }
}

/* Keys to panels [keys / 32][d][32]; past the last key, what was there. */
static void
pack_keys(const struct head *head)
{
    float row[ND_HEAD_MOST];
    for (size_t i = 0; i < head->keys; i++) {
        float *to = head->key_panels + i / ND_PANEL * head->d * ND_PANEL +
                    i % ND_PANEL;
        rotate(head, head->qkv + i * head->stride + head->width, i, 1.0f,
               row);
        for (size_t j = 0; j < head->d; j++)
            to[j * ND_PANEL] = row[j];
    }
}

/* Values to panels [d / 32][keys][32], zeros past d. */
static void
pack_values(const struct head *head)
{
    for (size_t first = 0; first < head->d; first += ND_PANEL) {
        size_t columns = head->d - first < ND_PANEL ? head->d - first
                                                    : ND_PANEL;
        float *to = head->value_panels + first * head->keys;
        for (size_t i = 0; i < head->keys; i++, to += ND_PANEL) {
            memset(to, 0, ND_PANEL * sizeof *to);
            memcpy(to, head->qkv + i * head->stride + 2 * head->width + first,
                   columns * sizeof *to);
        }
    }
}

/* Keys, up to whole vectors. */
ND_INLINE size_t
whole_vectors(size_t keys)
{
    return (keys + LANES - 1) / LANES * LANES;
}

/*
 * Scores of a tile to e^(score - largest), in place, and to one over their
 * sums. The rows go side by side: one alone would wait for each step of it.
 */
static void
softmax(const struct head *head, size_t rows, float *factors)
{
    size_t stride = nd_stride(head->keys), end = whole_vectors(head->keys);
    vector most[TILE_ROWS], total[TILE_ROWS];
    float *scores = head->scores;
    for (size_t r = 0; r < rows; r++) {
        for (size_t j = head->keys; j < end; j++)
            scores[r * stride + j] = -INFINITY;
        most[r] = load(scores + r * stride);
    }
    for (size_t j = LANES; j < end; j += LANES)
        for (size_t r = 0; r < rows; r++)
            most[r] = larger(load(scores + r * stride + j), most[r]);
    for (size_t r = 0; r < rows; r++) {
        most[r] = fill(largest_lane(most[r]));
        total[r] = fill(0.0f);
    }
    for (size_t j = 0; j < end; j += LANES)
        for (size_t r = 0; r < rows; r++) {
            vector x = load(scores + r * stride + j) - most[r];
            vector e = exponential_within(larger(x, fill(-87.0f)));
            store(scores + r * stride + j, e);
            total[r] += e;
        }
    for (size_t r = 0; r < rows; r++)
        factors[r] = 1.0f / add_lanes(total[r]);
}

/* out rows of one tile of queries, the head's d columns. */
static void
attend(const struct head *head, const float *queries, size_t rows, float *out,
       size_t out_stride)
{
    float sums[TILE_ROWS * ND_PANEL] __attribute__((aligned(64)));
    float factors[TILE_ROWS];
    size_t d = head->d, stride = nd_stride(head->keys);
    for (size_t j = 0; j < head->keys; j += ND_PANEL) {
        size_t left = head->keys - j;
        multiply(queries, d, head->key_panels + j * d, d, rows,
                 left < ND_PANEL ? left : ND_PANEL, head->scores + j, stride);
    }
    softmax(head, rows, factors);
    for (size_t j = 0; j < d; j += ND_PANEL) {
        size_t columns = d - j < ND_PANEL ? d - j : ND_PANEL;
        multiply(head->scores, stride, head->value_panels + j * head->keys,
                 head->keys, rows, columns, sums, ND_PANEL);
        for (size_t r = 0; r < rows; r++) {
            for (size_t i = 0; i < ND_PANEL; i += LANES)
                store(sums + r * ND_PANEL + i,
                      load(sums + r * ND_PANEL + i) * factors[r]);
            memcpy(out + r * out_stride + j, sums + r * ND_PANEL,
                   columns * sizeof *out);
        }
    }
}

/* Cuts the thread's scratch into the head's four arrays. */
ND_INLINE void
lay_out(struct head *head, float *scratch)
{
    size_t padded = (head->keys + ND_PANEL - 1) / ND_PANEL * ND_PANEL;
    head->key_panels = scratch;
    head->value_panels = head->key_panels + padded * head->d;
    head->queries = head->value_panels + head->keys * nd_stride(head->d);
    head->scores = head->queries + ND_ROW_BLOCK * head->d;
}

/* The head's columns of the flow that a block of queries belongs to. */
ND_INLINE struct head
head_of(const struct nd_attention *op, const struct nd_cpu_queries *block,
        size_t number, float *scratch)
{
    size_t width = op->out->columns, d = width / op->heads;
    struct head head = {
        .qkv = nd_cpu_floats(op->qkv) + block->flow * op->qkv->stride +
               number * d,
        .stride = op->qkv->stride,
        .d = d,
        .keys = block->packets,
        .width = width,
        .rotary = nd_cpu_floats(op->rotary),
        .rotary_stride = op->rotary->stride,
    };
    lay_out(&head, scratch);
    return head;
}

static void
attend_block(const struct head *head, const struct nd_cpu_queries *block,
             float *out, size_t out_stride)
{
    size_t d = head->d;
    float scale = 1.0f / sqrtf((float)d);
    for (size_t r = 0; r < block->count; r++)
        rotate(head, head->qkv + (block->first + r) * head->stride,
               block->first + r, scale, head->queries + r * d);
    for (size_t r = 0, rows; r < block->count; r += rows) {
        rows = block->count - r < TILE_ROWS ? block->count - r : TILE_ROWS;
        attend(head, head->queries + r * d, rows, out + r * out_stride,
               out_stride);
    }
}

static void
run_attention(const struct nd_op *any, struct nd_cpu_part part,
              const struct nd_cpu_context *context)
{
    const struct nd_attention *op = &any->as.attention;
    size_t d = op->out->columns / op->heads, stride = op->out->stride;
    for (size_t h = part.column; h < part.column_end; h++)
        for (size_t i = part.first; i < part.end; i++) {
            const struct nd_cpu_queries *block = &context->queries[i];
            struct head head = head_of(op, block, h, context->scratch);
            if (i == part.first || block->flow != block[-1].flow) {
                pack_keys(&head);
                pack_values(&head);
            }
            attend_block(&head, block,
                         nd_cpu_floats(op->out) +
                             (block->flow + block->first) * stride + h * d,
                         stride);
        }
}

#endif
