/*
 * cpu_pixels.h - INPUT, HOLD and ESTIMATE in vectors, row by row
 *
 * In:      an op and a part (rows).
 * Out:     the op's out, or its logits, x and estimate, those rows.
 * Errors:  none.
 * Memory:  a few vectors.
 * Threads: parts write disjoint rows.
 * Python:  none.  Tests: test_ops.py
 */
#ifndef ND_ENGINE_CPU_PIXELS_H
#define ND_ENGINE_CPU_PIXELS_H

#include "cpu_vector.h"

#include <string.h>

/* The last columns of a row: a flag, or what HOLD may write over. */
static void
end_input(const float *estimate, size_t plane, size_t columns,
          float estimated, float *out)
{
    float *rest = out + 5 * plane;
    if (columns == 5 * plane + 1) {
        *rest = estimated;
        return;
    }
    for (size_t j = 0; j < plane; j += LANES)
        store(rest + j,
              -estimated - load(estimate + j) - load(estimate + plane + j));
    if (columns == 7 * plane)
        memset(rest + plane, 0, plane * sizeof *rest);
}

static void
run_input(const struct nd_op *any, struct nd_cpu_part part,
          const struct nd_cpu_context *context)
{
    const struct nd_input *op = &any->as.input;
    size_t plane = op->x->columns / 3;
    float scale = context->step->input_scale;
    for (size_t row = part.first; row < part.end; row++) {
        const float *x = nd_cpu_floats(op->x) + row * op->x->stride;
        const float *estimate =
            nd_cpu_floats(op->estimate) + row * op->estimate->stride;
        float *out = nd_cpu_floats(op->out) + row * op->out->stride;
        for (size_t j = 0; j < 3 * plane; j += LANES)
            store(out + j, load(x + j) * scale);
        memcpy(out + 3 * plane, estimate, 2 * plane * sizeof *out);
        end_input(estimate, plane, op->out->columns,
                  context->step->estimated, out);
    }
}

/* A cell that is held: its pixel in x and in the estimate, and its mask. */
static void
hold_row(const int8_t *held, size_t cells, bool masked, float *out)
{
    size_t plane = nd_stride(cells);
    for (size_t j = 0; j < cells; j++) {
        if (held[j] == ND_FREE)
            continue;
        for (int i = 0; i < 3; i++)
            out[(size_t)i * plane + j] = out[((size_t)i + 3) * plane + j] =
                i == 1 - held[j] ? 1.0f : -1.0f;
        if (masked)
            out[6 * plane + j] = 1.0f;
    }
}

static void
run_hold(const struct nd_op *any, struct nd_cpu_part part,
         const struct nd_cpu_context *context)
{
    const struct nd_hold *op = &any->as.hold;
    size_t cells = op->held->columns;
    (void)context;
    for (size_t row = part.first; row < part.end; row++)
        hold_row(nd_cpu_cells(op->held) + row * op->held->stride, cells,
                 op->out->columns > 6 * nd_stride(cells),
                 nd_cpu_floats(op->out) + row * op->out->stride);
}

/* The solver's update of one colour. */
ND_INLINE void
update(const struct nd_step *step, vector e, vector old, float *x)
{
    store(x, step->a * load(x) + step->b * e + step->c * old);
}

/* One vector of cells; logits are finished, colours plane floats apart. */
ND_INLINE void
estimate_cells(const struct nd_step *step, const float *logits, size_t plane,
               float *x, float *estimate)
{
    vector l0 = load(logits), l1 = load(logits + plane), zero = fill(0.0f);
    vector top = larger(larger(l0, l1), zero);
    vector w0 = exponential(l0 - top), w1 = exponential(l1 - top);
    vector w2 = exponential(zero - top), factor = 2.0f / (w0 + w1 + w2);
    vector e0 = w0 * factor - 1.0f, e1 = w1 * factor - 1.0f;
    vector old0 = load(estimate), old1 = load(estimate + plane);
    update(step, e0, old0, x);
    update(step, e1, old1, x + plane);
    update(step, w2 * factor - 1.0f, -1.0f - old0 - old1, x + 2 * plane);
    store(estimate, e0);
    store(estimate + plane, e1);
}

static void
run_estimate(const struct nd_op *any, struct nd_cpu_part part,
             const struct nd_cpu_context *context)
{
    const struct nd_estimate *op = &any->as.estimate;
    const struct nd_step *step = context->step;
    size_t plane = op->x->columns / 3;
    for (size_t row = part.first; row < part.end; row++) {
        float *l = nd_cpu_floats(op->logits) + row * op->logits->stride;
        float *x = nd_cpu_floats(op->x) + row * op->x->stride;
        float *e = nd_cpu_floats(op->estimate) + row * op->estimate->stride;
        if (op->none != NULL) {
            const float *n =
                nd_cpu_floats(op->none) + row * op->none->stride;
            for (size_t j = 0; j < 2 * plane; j += LANES)
                store(l + j, load(n + j) + step->guidance *
                                               (load(l + j) - load(n + j)));
        }
        for (size_t j = 0; j < plane; j += LANES)
            estimate_cells(step, l + j, plane, x + j, e + j);
    }
}

#endif
