/*
 * cpu_draw.h - NOISE, RENOISE and DRAW in vectors: the ops on random numbers
 *
 * In:      an op and a part (rows).
 * Out:     the op's x or cells, those rows.
 * Errors:  none.
 * Memory:  some hundred numbers on the stack.
 * Threads: parts write disjoint rows.
 * Python:  none.  Tests: test_ops.py
 */
#ifndef ND_ENGINE_CPU_DRAW_H
#define ND_ENGINE_CPU_DRAW_H

#include "cpu_random.h"

#include <string.h>

typedef int8_t bytes __attribute__((vector_size(ND_LANES), may_alias,
                                    aligned(1)));

/* Philox block of a row's first element, count elements a row. */
static struct nd_philox_counter
start_of(const struct nd_ragged *ragged, size_t token, size_t count,
         uint32_t stream)
{
    const uint32_t *row =
        nd_cpu_words(ragged->tokens) + token * ragged->tokens->stride;
    const uint32_t *flow =
        nd_cpu_words(ragged->flows) + row[0] * ragged->flows->stride;
    uint32_t block = (uint32_t)(row[1] * count / 4);
    return (struct nd_philox_counter){{block, flow[2], flow[3], stream}};
}

/* x[e] += noise_scale * normal(e) for the elements of a token. */
static void
add_normals(const struct nd_step *step, const struct nd_ragged *ragged,
            size_t token, size_t count, float *x)
{
    float normals[NUMBERS];
    struct nd_philox_counter at =
        start_of(ragged, token, count, step->noise_stream);
    for (size_t j = 0; j < count; j += NUMBERS, at.word[0] += BLOCKS) {
        size_t n = count - j < NUMBERS ? count - j : NUMBERS;
        make_normals(step, at, normals);
        for (size_t i = j; i < j + n; i += LANES)
            store(x + i, load(x + i) + step->noise_scale *
                                           load(normals + i - j));
    }
}

static void
run_noise(const struct nd_op *any, struct nd_cpu_part part,
          const struct nd_cpu_context *context)
{
    const struct nd_noise *op = &any->as.noise;
    size_t count = op->x->columns;
    for (size_t row = part.first; row < part.end; row++) {
        float *x = nd_cpu_floats(op->x) + row * op->x->stride;
        if (op->estimate != NULL) {
            memset(x, 0, count * sizeof *x);
            memset(nd_cpu_floats(op->estimate) + row * op->estimate->stride,
                   0, op->estimate->columns * sizeof *x);
        }
        add_normals(context->step, &op->ragged, row, count, x);
    }
}

/*
 * Whether colour 0 of a vector of cells is drawn, and whether 0 or 1 is: by
 * uniform numbers from the softmax of their logits.
 */
ND_INLINE void
pick(vector l0, vector l1, vector u, integers *first, integers *second)
{
    vector zero = fill(0.0f), top = larger(larger(l0, l1), zero);
    vector w0 = exponential(l0 - top), w1 = exponential(l1 - top);
    vector at = u * (w0 + w1 + exponential(zero - top));
    *first = (integers)(at < w0);
    *second = (integers)(at < w0 + w1);
}

/* The same for the largest logit, the first of equals. */
ND_INLINE void
arg_max(vector l0, vector l1, integers *first, integers *second)
{
    integers one = (integers)(l1 > l0);
    *second = ~(integers)(larger(l0, l1) < 0.0f);
    *first = *second & ~one;
}

static void
renoise_row(const struct nd_step *step, const struct nd_renoise *op,
            size_t row)
{
    size_t plane = op->x->columns / 3;
    const float *l = nd_cpu_floats(op->logits) + row * op->logits->stride;
    float *x = nd_cpu_floats(op->x) + row * op->x->stride, u[NUMBERS];
    vector yes = fill(1.0f), no = fill(-1.0f);
    struct nd_philox_counter at =
        start_of(&op->ragged, row, plane, step->draw_stream);
    for (size_t j = 0; j < plane; j += LANES) {
        integers first, second;
        if (j % NUMBERS == 0) {
            make_uniforms(step, at, u);
            at.word[0] += BLOCKS;
        }
        pick(load(l + j), load(l + plane + j), load(u + j % NUMBERS), &first,
             &second);
        store(x + j, choose(first, yes, no));
        store(x + plane + j, choose(second & ~first, yes, no));
        store(x + 2 * plane + j, choose(second, no, yes));
    }
    add_normals(step, &op->ragged, row, 3 * plane, x);
}

static void
run_renoise(const struct nd_op *any, struct nd_cpu_part part,
            const struct nd_cpu_context *context)
{
    for (size_t row = part.first; row < part.end; row++)
        renoise_row(context->step, &any->as.renoise, row);
}

static void
draw_row(const struct nd_step *step, const struct nd_draw *op, size_t row)
{
    size_t plane = op->logits->columns / 2;
    const float *l = nd_cpu_floats(op->logits) + row * op->logits->stride;
    int8_t *cells = nd_cpu_cells(op->cells) + row * op->cells->stride;
    bool drawn = step->temperature > 0.0f;
    float u[NUMBERS], sharpness = drawn ? 1.0f / step->temperature : 0.0f;
    struct nd_philox_counter at =
        start_of(&op->ragged, row, plane, step->draw_stream);
    for (size_t j = 0; j < plane; j += LANES) {
        integers first, second;
        vector l0 = load(l + j), l1 = load(l + plane + j);
        if (drawn && j % NUMBERS == 0) {
            make_uniforms(step, at, u);
            at.word[0] += BLOCKS;
        }
        if (drawn)
            pick(l0 * sharpness, l1 * sharpness, load(u + j % NUMBERS),
                 &first, &second);
        else
            arg_max(l0, l1, &first, &second);
        *(bytes *)(cells + j) =
            __builtin_convertvector(-1 - first - second, bytes);
    }
}

static void
run_draw(const struct nd_op *any, struct nd_cpu_part part,
         const struct nd_cpu_context *context)
{
    for (size_t row = part.first; row < part.end; row++)
        draw_row(context->step, &any->as.draw, row);
}

#endif
