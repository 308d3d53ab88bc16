#include "cpu.h"
#include "rng.h"

#include <math.h>

/* The token that a row of random numbers belongs to. */
struct place {
    uint32_t flow_low, flow_high;
    size_t packet;
};

static struct place
place_of(const struct nd_ragged *ragged, size_t token)
{
    const uint32_t *row =
        nd_cpu_words(ragged->tokens) + token * ragged->tokens->stride;
    const uint32_t *flow =
        nd_cpu_words(ragged->flows) + row[0] * ragged->flows->stride;
    return (struct place){flow[2], flow[3], row[1]};
}

static void
block_words(const struct nd_step *step, const struct place *place,
            uint32_t stream, size_t block, uint32_t words[4])
{
    struct nd_philox_key key = {step->seed_low, step->seed_high};
    struct nd_philox_counter at = {{(uint32_t)block, place->flow_low,
                                    place->flow_high, stream}};
    nd_philox(key, &at, words);
}

/* x[e] += noise_scale * normal(e) for the count elements of a packet. */
static void
add_normal(const struct nd_cpu_context *context, const struct place *place,
           size_t count, float *x)
{
    const struct nd_step *step = context->step;
    size_t element = place->packet * count, end = element + count;
    float *first = x - element, scale = step->noise_scale;
    while (element < end) {
        float normals[ND_NORMALS];
        size_t start = element / 4 * 4, stop = start + ND_NORMALS;
        const struct nd_philox_counter at = {
            {(uint32_t)(start / 4), place->flow_low, place->flow_high,
             step->noise_stream}};
        context->kernels->normals(step, &at, normals);
        for (; element < end && element < stop; element++)
            first[element] += scale * normals[element - start];
    }
}

/* The colour that u picks from softmax(l / temperature); backend.h. */
static int
pick(const float *l, float sharpness, float u)
{
    float most = fmaxf(fmaxf(l[0], l[1]), l[2]);
    float w0 = expf((l[0] - most) * sharpness);
    float w1 = expf((l[1] - most) * sharpness);
    float w2 = expf((l[2] - most) * sharpness);
    float at = u * (w0 + w1 + w2);
    return at < w0 ? 0 : at < w0 + w1 ? 1 : 2;
}

static int
arg_max(const float *l)
{
    int best = l[1] > l[0] ? 1 : 0;
    return l[2] > l[best] ? 2 : best;
}

/* The uniform numbers of a packet's columns, one after the other. */
struct uniforms {
    const struct nd_step *step;
    struct place place;
    size_t element;
    uint32_t words[4];
};

static struct uniforms
uniforms_of(const struct nd_step *step, const struct nd_ragged *ragged,
            size_t token, size_t columns)
{
    struct uniforms all = {.step = step, .place = place_of(ragged, token)};
    all.element = all.place.packet * columns;
    block_words(step, &all.place, step->draw_stream, all.element / 4,
                all.words);
    return all;
}

static float
next_uniform(struct uniforms *all)
{
    float u = nd_uniform(all->words[all->element % 4]);
    if (++all->element % 4 == 0)
        block_words(all->step, &all->place, all->step->draw_stream,
                    all->element / 4, all->words);
    return u;
}

void
nd_cpu_input(const struct nd_op *any, struct nd_cpu_part part,
             const struct nd_cpu_context *context)
{
    const struct nd_input *op = &any->as.input;
    size_t count = op->x->columns;
    float scale = context->step->input_scale;
    for (size_t row = part.first; row < part.end; row++) {
        const float *x = nd_cpu_floats(op->x) + row * op->x->stride;
        const float *estimate =
            nd_cpu_floats(op->estimate) + row * op->estimate->stride;
        float *out = nd_cpu_floats(op->out) + row * op->out->stride;
        for (size_t j = 0; j < count; j++)
            out[j] = x[j] * scale;
        for (size_t j = 0; j < count; j++)
            out[count + j] = estimate[j];
        for (size_t j = 2 * count; j < op->out->columns; j++)
            out[j] = 0.0f;
    }
}

/* A cell that is held: its pixel in x and in the estimate, and its mask. */
static void
hold_row(const int8_t *held, size_t cells, bool masked, float *out)
{
    for (size_t j = 0; j < cells; j++) {
        if (held[j] == ND_FREE)
            continue;
        for (int i = 0; i < 3; i++)
            out[3 * j + (size_t)i] = out[3 * (cells + j) + (size_t)i] =
                i == 1 - held[j] ? 1.0f : -1.0f;
        if (masked)
            out[6 * cells + j] = 1.0f;
    }
}

void
nd_cpu_hold(const struct nd_op *any, struct nd_cpu_part part,
            const struct nd_cpu_context *context)
{
    const struct nd_hold *op = &any->as.hold;
    size_t cells = op->held->columns;
    (void)context;
    for (size_t row = part.first; row < part.end; row++)
        hold_row(nd_cpu_cells(op->held) + row * op->held->stride, cells,
                 op->out->columns > 6 * cells,
                 nd_cpu_floats(op->out) + row * op->out->stride);
}

void
nd_cpu_noise(const struct nd_op *any, struct nd_cpu_part part,
             const struct nd_cpu_context *context)
{
    const struct nd_noise *op = &any->as.noise;
    for (size_t row = part.first; row < part.end; row++) {
        float *x = nd_cpu_floats(op->x) + row * op->x->stride;
        struct place place = place_of(&op->ragged, row);
        if (op->estimate != NULL) {
            float *estimate =
                nd_cpu_floats(op->estimate) + row * op->estimate->stride;
            for (size_t j = 0; j < op->x->columns; j++)
                x[j] = estimate[j] = 0.0f;
        }
        add_normal(context, &place, op->x->columns, x);
    }
}

void
nd_cpu_renoise(const struct nd_op *any, struct nd_cpu_part part,
               const struct nd_cpu_context *context)
{
    const struct nd_renoise *op = &any->as.renoise;
    size_t count = op->x->columns;
    for (size_t row = part.first; row < part.end; row++) {
        const float *logits =
            nd_cpu_floats(op->logits) + row * op->logits->stride;
        float *x = nd_cpu_floats(op->x) + row * op->x->stride;
        struct uniforms all =
            uniforms_of(context->step, &op->ragged, row, count / 3);
        for (size_t j = 0; j < count; j += 3) {
            int colour = pick(logits + j, 1.0f, next_uniform(&all));
            for (int c = 0; c < 3; c++)
                x[j + (size_t)c] = c == colour ? 1.0f : -1.0f;
        }
        add_normal(context, &all.place, count, x);
    }
}

void
nd_cpu_draw(const struct nd_op *any, struct nd_cpu_part part,
            const struct nd_cpu_context *context)
{
    const struct nd_draw *op = &any->as.draw;
    size_t columns = op->cells->columns;
    float temperature = context->step->temperature;
    for (size_t row = part.first; row < part.end; row++) {
        const float *logits =
            nd_cpu_floats(op->logits) + row * op->logits->stride;
        int8_t *cells = nd_cpu_cells(op->cells) + row * op->cells->stride;
        struct uniforms all =
            uniforms_of(context->step, &op->ragged, row, columns);
        for (size_t j = 0; j < columns; j++) {
            const float *l = logits + 3 * j;
            int colour = temperature > 0.0f ? pick(l, 1.0f / temperature,
                                                   next_uniform(&all))
                                            : arg_max(l);
            cells[j] = (int8_t)(1 - colour);
        }
    }
}
