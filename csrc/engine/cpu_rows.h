/*
 * cpu_rows.h - NORM and CONDITION in vectors, row by row
 *
 * In:      an op and a part (rows).
 * Out:     the op's out rows.
 * Errors:  none.
 * Memory:  a few vectors on the stack.
 * Threads: parts write disjoint rows.
 * Python:  none.  Tests: test_ops.py
 */
#ifndef ND_ENGINE_CPU_ROWS_H
#define ND_ENGINE_CPU_ROWS_H

#include "cpu_vector.h"

#include <math.h>

static void
norm_row(const struct nd_norm *op, size_t row, const float *zeros)
{
    size_t width = op->in->columns;
    uint32_t flow = nd_cpu_words(op->tokens)[row * op->tokens->stride];
    const float *in = nd_cpu_floats(op->in) + row * op->in->stride;
    const float *modulation =
        nd_cpu_floats(op->modulation) + flow * op->modulation->stride;
    const float *shift = modulation + op->shift;
    const float *scale = modulation + op->scale;
    const float *shift_more = zeros, *scale_more = zeros;
    size_t step = 0;
    if (op->constant != NULL) {
        shift_more = nd_cpu_floats(op->constant) + op->shift;
        scale_more = nd_cpu_floats(op->constant) + op->scale;
        step = LANES;
    }
    float *out = nd_cpu_floats(op->out) + row * op->out->stride;
    vector sum = fill(0.0f), squares = fill(0.0f);
    for (size_t j = 0; j < width; j += LANES)
        sum += load(in + j);
    float mean = add_lanes(sum) / (float)width;
    for (size_t j = 0; j < width; j += LANES) {
        vector off = load(in + j) - mean;
        squares += off * off;
    }
    float factor = 1.0f / sqrtf(add_lanes(squares) / (float)width + 1e-6f);
    for (size_t j = 0, i = 0; j < width; j += LANES, i += step) {
        vector s = load(scale + j) + load(scale_more + i);
        vector h = load(shift + j) + load(shift_more + i);
        store(out + j, (load(in + j) - mean) * factor * (1.0f + s) + h);
    }
}

static void
run_norm(const struct nd_op *any, struct nd_cpu_part part,
         const struct nd_cpu_context *context)
{
    const struct nd_norm *op = &any->as.norm;
    const float zeros[LANES] = {0};
    (void)context;
    for (size_t row = part.first; row < part.end; row++)
        norm_row(op, row, zeros);
}

static void
run_condition(const struct nd_op *any, struct nd_cpu_part part,
              const struct nd_cpu_context *context)
{
    const struct nd_condition *op = &any->as.condition;
    const float *noise = nd_cpu_floats(op->noise) +
                         context->step->noise_row * op->noise->stride;
    for (size_t row = part.first; row < part.end; row++) {
        const float *given =
            nd_cpu_floats(op->given) + row * op->given->stride;
        float *out = nd_cpu_floats(op->out) + row * op->out->stride;
        for (size_t j = 0; j < op->out->columns; j += LANES)
            store(out + j, silu(load(given + j) + load(noise + j)));
    }
}

#endif
