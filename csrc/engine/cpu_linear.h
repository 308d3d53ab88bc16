/*
 * cpu_linear.h - LINEAR in vectors: tiles of rows times panels of weights
 *
 * In:      an op and an item (row block, panel group); see cpu.h.
 * Out:     the op's out rows, epilogue applied.
 * Errors:  none.
 * Memory:  sums of one tile on the stack.
 * Threads: items write disjoint parts of out.
 * Python:  none.  Tests: test_ops.py
 *
 * A tile is TILE_ROWS rows by two vectors, kept in registers over all of k:
 * 12 x 2 of 16 floats fill 24 of AVX-512's 32 registers. Every element is
 * one chain of multiply-adds in the order of k, whatever the tile's height.
 */
#ifndef ND_ENGINE_CPU_LINEAR_H
#define ND_ENGINE_CPU_LINEAR_H

#include "cpu_vector.h"

/* sums[r][0..2 LANES) = sum_k a[r][k] b[k][...], rows a constant. */
ND_INLINE void
tile(const float *a, size_t a_stride, const float *b, size_t depth,
     size_t rows, float *sums)
{
    vector s[TILE_ROWS][2];
#pragma GCC unroll 12
    for (size_t r = 0; r < rows; r++)
        s[r][0] = s[r][1] = fill(0.0f);
    for (size_t k = 0; k < depth; k++) {
        vector left = load(b + k * ND_PANEL);
        vector right = load(b + k * ND_PANEL + LANES);
#pragma GCC unroll 12
        for (size_t r = 0; r < rows; r++) {
            float x = a[r * a_stride + k];
            s[r][0] += x * left;
            s[r][1] += x * right;
        }
    }
#pragma GCC unroll 12
    for (size_t r = 0; r < rows; r++) {
        store(sums + r * ND_PANEL, s[r][0]);
        store(sums + r * ND_PANEL + LANES, s[r][1]);
    }
}

#define ND_TILE_CASE(n)                                                       \
    case n:                                                                   \
        if (n <= TILE_ROWS)                                                   \
            tile(a, a_stride, b + j, depth, n, sums + j);                     \
        break;

/* sums (rows, 32) = a (rows, depth) times panel b (depth, 32). */
static void
multiply(const float *a, size_t a_stride, const float *b, size_t depth,
         size_t rows, float *sums)
{
    for (size_t j = 0; j < ND_PANEL; j += 2 * LANES)
        switch (rows) {
            ND_TILE_CASE(1)
            ND_TILE_CASE(2)
            ND_TILE_CASE(3)
            ND_TILE_CASE(4)
            ND_TILE_CASE(5)
            ND_TILE_CASE(6)
            ND_TILE_CASE(7)
            ND_TILE_CASE(8)
            ND_TILE_CASE(9)
            ND_TILE_CASE(10)
            ND_TILE_CASE(11)
            ND_TILE_CASE(12)
        }
}

#undef ND_TILE_CASE

/* The gates of one row, from column n of the weight's output on. */
ND_INLINE const float *
gate_row(const struct nd_linear *op, size_t row)
{
    uint32_t flow = nd_cpu_words(op->tokens)[row * op->tokens->stride];
    return nd_cpu_floats(op->modulation) + flow * op->modulation->stride +
           op->gate;
}

/* One vector of out, from its sum; n is its column, row its row. */
ND_INLINE vector
finish(const struct nd_linear *op, size_t row, size_t n, vector y)
{
    if (op->epilogue == ND_EPILOGUE_SILU)
        return silu(y);
    if (op->epilogue == ND_EPILOGUE_GELU)
        return gelu(y);
    if (op->epilogue == ND_EPILOGUE_NONE)
        return y;
    if (op->epilogue == ND_EPILOGUE_GATED)
        y = y * (load(gate_row(op, row) + n) +
                 load(nd_cpu_floats(op->constant) + op->gate + n));
    return load(nd_cpu_floats(op->residual) + row * op->residual->stride + n) +
           y;
}

static void
finish_tile(const struct nd_linear *op, size_t first, size_t rows, size_t n,
            const float *sums)
{
    const struct nd_cpu_weight *weight = (const void *)op->weight;
    float *out = nd_cpu_floats(op->out) + first * op->out->stride + n;
    for (size_t r = 0; r < rows; r++)
        for (size_t j = 0; j < ND_PANEL; j += LANES) {
            vector y = load(sums + r * ND_PANEL + j) +
                       load(weight->bias + n + j);
            store(out + r * op->out->stride + j,
                  finish(op, first + r, n + j, y));
        }
}

static void
run_linear(const struct nd_op *any, size_t item,
           const struct nd_cpu_context *context)
{
    const struct nd_linear *op = &any->as.linear;
    const struct nd_cpu_weight *weight = (const void *)op->weight;
    const float *in = nd_cpu_floats(op->in);
    size_t groups = nd_cpu_groups(op->weight), depth = op->weight->in;
    size_t first = item / groups * ND_ROW_BLOCK;
    size_t end = first + ND_ROW_BLOCK < op->rows ? first + ND_ROW_BLOCK
                                                 : op->rows;
    size_t panel = item % groups * ND_PANEL_GROUP;
    size_t last = panel + ND_PANEL_GROUP < weight->panels
                      ? panel + ND_PANEL_GROUP
                      : weight->panels;
    float sums[TILE_ROWS * ND_PANEL] __attribute__((aligned(64)));
    (void)context;
    for (; panel < last; panel++)
        for (size_t row = first; row < end; row += TILE_ROWS) {
            size_t rows = end - row < TILE_ROWS ? end - row : TILE_ROWS;
            multiply(in + row * op->in->stride, op->in->stride,
                     weight->data + panel * depth * ND_PANEL, depth, rows,
                     sums);
            finish_tile(op, row, rows, panel * ND_PANEL, sums);
        }
}

#endif
