/*
 * cpu_rows.h - NORM, CONDITION and ESTIMATE in vectors, row by row
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

/* p[0..96) = softmax over each of 32 cells' three colours of l[0..96). */
static void
softmax_cells(const float *restrict l, float *restrict p)
{
    float w[3][32] __attribute__((aligned(64)));
    for (size_t j = 0; j < 32; j++) {
        w[0][j] = l[3 * j];
        w[1][j] = l[3 * j + 1];
        w[2][j] = l[3 * j + 2];
    }
    for (size_t j = 0; j < 32; j += LANES) {
        vector a = load(w[0] + j), b = load(w[1] + j), c = load(w[2] + j);
        vector most = larger(larger(a, b), c);
        a = exponential(a - most);
        b = exponential(b - most);
        c = exponential(c - most);
        vector factor = 1.0f / (a + b + c);
        store(w[0] + j, a * factor);
        store(w[1] + j, b * factor);
        store(w[2] + j, c * factor);
    }
    for (size_t j = 0; j < 32; j++) {
        p[3 * j] = w[0][j];
        p[3 * j + 1] = w[1][j];
        p[3 * j + 2] = w[2][j];
    }
}

/* The finished logits of 96 elements, zeros past the row's end. */
static void
finish_logits(const struct nd_step *step, const float *restrict logits,
              const float *restrict none, const float *restrict x,
              size_t count, float *restrict l)
{
    for (size_t j = 0; j < count; j++) {
        float y = logits[j];
        if (none != NULL)
            y = none[j] + step->guidance * (y - none[j]);
        l[j] = y + step->prior * x[j];
    }
    for (size_t j = count; j < 96; j++)
        l[j] = 0.0f;
}

static void
estimate_row(const struct nd_estimate *op, size_t row,
             const struct nd_step *step)
{
    float l[96] __attribute__((aligned(64)));
    float p[96] __attribute__((aligned(64)));
    float *restrict logits =
        nd_cpu_floats(op->logits) + row * op->logits->stride;
    const float *none = op->none != NULL ? nd_cpu_floats(op->none) +
                                               row * op->none->stride
                                         : NULL;
    float *restrict x = nd_cpu_floats(op->x) + row * op->x->stride;
    float *restrict estimate =
        nd_cpu_floats(op->estimate) + row * op->estimate->stride;
    for (size_t j = 0; j < op->x->columns; j += 96) {
        size_t left = op->x->columns - j, count = left < 96 ? left : 96;
        finish_logits(step, logits + j, none != NULL ? none + j : NULL, x + j,
                      count, l);
        softmax_cells(l, p);
        for (size_t i = 0; i < count; i++) {
            float e = 2.0f * p[i] - 1.0f;
            logits[j + i] = l[i];
            x[j + i] = step->a * x[j + i] + step->b * e +
                       step->c * estimate[j + i];
            estimate[j + i] = e;
        }
    }
}

static void
run_estimate(const struct nd_op *any, struct nd_cpu_part part,
             const struct nd_cpu_context *context)
{
    const struct nd_estimate *op = &any->as.estimate;
    for (size_t row = part.first; row < part.end; row++)
        estimate_row(op, row, context->step);
}

#endif
