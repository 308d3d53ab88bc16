/*
 * cpu_linear.h - LINEAR in vectors: tiles of rows times panels of weights
 *
 * In:      an op and a part (rows, panels); see cpu.h.
 * Out:     the op's out rows, epilogue applied.
 * Errors:  none.
 * Memory:  sums of one tile on the stack.
 * Threads: parts write disjoint elements of out.
 * Python:  none.  Tests: test_ops.py
 *
 * A tile is TILE_ROWS rows by two vectors, kept in registers over all of k:
 * 12 x 2 of 16 floats fill 24 of AVX-512's 32 registers. Every element is
 * one chain of multiply-adds in the order of k, whatever the tile's height.
 */
#ifndef ND_ENGINE_CPU_LINEAR_H
#define ND_ENGINE_CPU_LINEAR_H

#include "cpu_vector.h"

/*
 * sums[r][0..2 LANES) = sum_k a[r][k] b[k][...], or the left LANES of them,
 * rows stride apart; rows and right are constants.
 */
ND_INLINE void
tile(const float *a, size_t a_stride, const float *b, size_t depth,
     size_t rows, bool right, float *sums, size_t stride)
{
    vector s[TILE_ROWS][2];
#pragma GCC unroll 12
    for (size_t r = 0; r < rows; r++)
        s[r][0] = s[r][1] = fill(0.0f);
    for (size_t k = 0; k < depth; k++) {
        vector b0 = load(b + k * ND_PANEL);
        vector b1 = right ? load(b + k * ND_PANEL + LANES) : b0;
#pragma GCC unroll 12
        for (size_t r = 0; r < rows; r++) {
            float x = a[r * a_stride + k];
            s[r][0] += x * b0;
            if (right)
                s[r][1] += x * b1;
        }
    }
#pragma GCC unroll 12
    for (size_t r = 0; r < rows; r++) {
        store(sums + r * stride, s[r][0]);
        if (right)
            store(sums + r * stride + LANES, s[r][1]);
    }
}

#define ND_TILE_CASE(n)                                                       \
    case n:                                                                   \
        if (n <= TILE_ROWS && columns - j > LANES)                            \
            tile(a, a_stride, b + j, depth, n, true, sums + j, stride);       \
        else if (n <= TILE_ROWS)                                              \
            tile(a, a_stride, b + j, depth, n, false, sums + j, stride);      \
        break;

/*
 * sums (rows, 32), rows stride apart, = a (rows, depth) times panel b
 * (depth, 32), of which columns are wanted.
 */
static void
multiply(const float *a, size_t a_stride, const float *b, size_t depth,
         size_t rows, size_t columns, float *sums, size_t stride)
{
    for (size_t j = 0; j < columns; j += 2 * LANES)
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

/* One vector of out, from its sum. */
ND_INLINE vector
finish(enum nd_epilogue epilogue, vector y, const float *gate,
       const float *constant, const float *residual)
{
    if (epilogue == ND_EPILOGUE_SILU)
        return silu(y);
    if (epilogue == ND_EPILOGUE_GELU)
        return gelu(y);
    if (epilogue == ND_EPILOGUE_NONE)
        return y;
    if (epilogue == ND_EPILOGUE_GATED)
        y = y * (load(gate) + load(constant));
    return load(residual) + y;
}

/* Rows from `first` on, columns from n on; epilogue a constant. */
ND_INLINE void
finish_rows(const struct nd_linear *op, enum nd_epilogue epilogue,
            size_t first, size_t rows, size_t n, const float *sums)
{
    const float *bias = ((const struct nd_cpu_weight *)(const void *)op->weight)
                            ->bias + n;
    const float *gate = bias, *constant = bias, *residual = bias;
    float *out = nd_cpu_floats(op->out) + first * op->out->stride + n;
    if (epilogue == ND_EPILOGUE_GATED)
        constant = nd_cpu_floats(op->constant) + op->gate + n;
    for (size_t r = 0; r < rows; r++, out += op->out->stride) {
        if (epilogue == ND_EPILOGUE_GATED)
            gate = gate_row(op, first + r) + n;
        if (epilogue == ND_EPILOGUE_GATED || epilogue == ND_EPILOGUE_ADD)
            residual = nd_cpu_floats(op->residual) +
                       (first + r) * op->residual->stride + n;
        for (size_t j = 0; j < ND_PANEL; j += LANES)
            store(out + j, finish(epilogue,
                                  load(sums + r * ND_PANEL + j) +
                                      load(bias + j),
                                  gate + j, constant + j, residual + j));
    }
}

#define ND_EPILOGUE_CASE(name)                                                \
    case ND_EPILOGUE_##name:                                                  \
        finish_rows(op, ND_EPILOGUE_##name, first, rows, n, sums);            \
        break;

static void
finish_tile(const struct nd_linear *op, size_t first, size_t rows, size_t n,
            const float *sums)
{
    switch (op->epilogue) {
        ND_EPILOGUE_CASE(NONE)
        ND_EPILOGUE_CASE(SILU)
        ND_EPILOGUE_CASE(GELU)
        ND_EPILOGUE_CASE(ADD)
        ND_EPILOGUE_CASE(GATED)
    }
}

#undef ND_EPILOGUE_CASE

/* Asks for what finish_tile() reads, while the tile is summed up. */
ND_INLINE void
fetch_residual(const struct nd_linear *op, size_t first, size_t rows, size_t n)
{
    enum { LINE = 16 };
    size_t stride = op->residual->stride;
    const float *from = nd_cpu_floats(op->residual) + first * stride + n;
    for (size_t r = 0; r < rows; r++)
        for (size_t j = 0; j < ND_PANEL; j += LINE)
            __builtin_prefetch(from + r * stride + j);
}

/* Rows [first, end) by panels. */
static void
linear_block(const struct nd_linear *op, size_t first, size_t end,
             size_t panel, size_t last)
{
    const struct nd_cpu_weight *weight = (const void *)op->weight;
    size_t depth = op->weight->in, stride = op->in->stride;
    size_t tiles = (end - first + TILE_ROWS - 1) / TILE_ROWS;
    const float *b = weight->data + panel * depth * ND_PANEL;
    float sums[TILE_ROWS * ND_PANEL] __attribute__((aligned(64)));
    for (; panel < last; panel++, b += depth * ND_PANEL)
        for (size_t tile = 0; tile < tiles; tile++) {
            size_t row = first + tile * TILE_ROWS;
            size_t rows = end - row < TILE_ROWS ? end - row : TILE_ROWS;
            if (op->epilogue == ND_EPILOGUE_ADD ||
                op->epilogue == ND_EPILOGUE_GATED)
                fetch_residual(op, row, rows, panel * ND_PANEL);
            multiply(nd_cpu_floats(op->in) + row * stride, stride, b, depth,
                     rows, ND_PANEL, sums, ND_PANEL);
            finish_tile(op, row, rows, panel * ND_PANEL, sums);
        }
}

/* Rows whose inputs stay in a core's cache beside a panel, whole tiles. */
ND_INLINE size_t
rows_of_block(size_t depth)
{
    enum { FLOATS = 100000 };
    size_t rows = FLOATS / depth / TILE_ROWS * TILE_ROWS;
    return rows < ND_ROW_BLOCK      ? ND_ROW_BLOCK
           : rows > ND_LINEAR_ROWS ? ND_LINEAR_ROWS
                                   : rows;
}

static void
run_linear(const struct nd_op *any, struct nd_cpu_part part,
           const struct nd_cpu_context *context)
{
    size_t most = rows_of_block(any->as.linear.weight->in);
    size_t blocks = (part.end - part.first + most - 1) / most;
    (void)context;
    for (size_t row = part.first; row < part.end; blocks--) {
        size_t rows = (part.end - row + blocks - 1) / blocks;
        linear_block(&any->as.linear, row, row + rows, part.column,
                     part.column_end);
        row += rows;
    }
}

#endif
