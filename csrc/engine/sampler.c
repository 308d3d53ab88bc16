#include "sampler.h"

#include <math.h>
#include <stdlib.h>

/* Rounds that have Philox streams of their own; a sane bound on levels. */
enum { ROUNDS_MOST = 1000, LEVELS_MOST = 10000, PACKETS_MOST = 1 << 16 };

enum stage {
    STAGE_START,
    STAGE_STEP,
    STAGE_GUIDED, /* a step with the second pass without class */
    STAGE_NOISE,  /* of an ancestral step */
    STAGE_RENOISE,
    STAGE_DRAW,
    STAGES
};

/* A batch on its way: one program for each stage. */
struct run {
    const struct nd_sample_request *request;
    struct nd_rowformer *network;
    struct nd_batch *batch;
    struct nd_program *programs[STAGES];
    size_t budget;  /* tokens of a batch, unless one flow has more */
    size_t largest; /* tokens of the largest batch */
    size_t done;    /* flows */
    size_t packets; /* of those */
    struct nd_error *err;
};

static bool
guided(const struct nd_sample_request *request, float sigma)
{
    return (request->guidance < 1.0f || request->guidance > 1.0f) &&
           sigma >= request->guidance_low && sigma <= request->guidance_high;
}

/* The level of evaluation i: of the solver, then of the re-noise rounds. */
static float
level_of(const struct nd_sample_request *request, size_t i)
{
    return i < request->n_sigmas ? request->sigmas[i] : request->renoise_sigma;
}

/* Whether any evaluation is (guided true) or is not (false) guided. */
static bool
any_guided(const struct nd_sample_request *request, bool wanted)
{
    size_t n = request->n_sigmas + request->renoise_rounds;
    for (size_t i = 0; i < n; i++)
        if (guided(request, level_of(request, i)) == wanted)
            return true;
    return false;
}

static enum nd_status
check_request(const struct nd_sample_request *request, struct nd_error *err)
{
    if (request->n_sigmas == 0 || request->n_sigmas > LEVELS_MOST)
        return nd_fail(err, ND_ARGUMENT, "sigmas: %zu levels, not 1 to %d",
                       request->n_sigmas, LEVELS_MOST);
    for (size_t i = 0; i < request->n_sigmas; i++) {
        float sigma = request->sigmas[i];
        if (!(sigma > 0.0f) || !isfinite(sigma) ||
            (i > 0 && sigma >= request->sigmas[i - 1]))
            return nd_fail(err, ND_ARGUMENT,
                           "sigmas must fall and stay above 0: level %zu is "
                           "%g",
                           i, (double)sigma);
    }
    if (!(request->temperature >= 0.0f) || !isfinite(request->temperature))
        return nd_fail(err, ND_ARGUMENT, "temperature is %g, not 0 or above",
                       (double)request->temperature);
    if (request->renoise_rounds > ROUNDS_MOST)
        return nd_fail(err, ND_ARGUMENT, "renoise_rounds is %zu, above %d",
                       request->renoise_rounds, ROUNDS_MOST);
    if (request->renoise_rounds > 0 && (!(request->renoise_sigma > 0.0f) ||
                                        !isfinite(request->renoise_sigma)))
        return nd_fail(err, ND_ARGUMENT, "renoise_sigma is %g, not above 0",
                       (double)request->renoise_sigma);
    if (!isfinite(request->guidance) || isnan(request->guidance_low) ||
        isnan(request->guidance_high))
        return nd_fail(err, ND_ARGUMENT, "guidance is not a number");
    for (size_t f = 0; f < request->n_flows; f++)
        if (request->lengths[f] < 1 || request->lengths[f] > PACKETS_MOST)
            return nd_fail(err, ND_ARGUMENT,
                           "flow %zu: %d packets, not 1 to %d", f,
                           request->lengths[f], PACKETS_MOST);
    return ND_OK;
}

/*
 * How many flows from `first` on make the next batch, and their tokens. A
 * batch closes at the budget, but never before its first flow.
 */
static size_t
next_batch(const struct nd_sample_request *request, size_t budget,
           size_t first, size_t *tokens)
{
    size_t end = first;
    *tokens = 0;
    for (; end < request->n_flows; end++) {
        size_t packets = (size_t)request->lengths[end];
        if (end > first && *tokens + packets > budget)
            break;
        *tokens += packets;
    }
    return end - first;
}

static struct nd_batch_size
size_batches(const struct nd_sample_request *request, size_t budget)
{
    struct nd_batch_size most = {.levels = request->n_sigmas + 1,
                                 .guided = any_guided(request, true),
                                 .held = request->held != NULL};
    for (size_t f = 0; f < request->n_flows; f++)
        if ((size_t)request->lengths[f] > most.longest)
            most.longest = (size_t)request->lengths[f];
    for (size_t first = 0; first < request->n_flows;) {
        size_t tokens, flows = next_batch(request, budget, first, &tokens);
        most.tokens = tokens > most.tokens ? tokens : most.tokens;
        most.flows = flows > most.flows ? flows : most.flows;
        first += flows;
    }
    return most;
}

/* The levels of the solver, and the re-noise level after them. */
static enum nd_status
set_levels(const struct run *run)
{
    const struct nd_sample_request *request = run->request;
    size_t n = request->n_sigmas;
    float *levels = malloc((n + 1) * sizeof *levels);
    if (levels == NULL)
        return nd_fail(run->err, ND_NO_MEMORY, "no memory for %zu levels", n);
    for (size_t i = 0; i < n; i++)
        levels[i] = request->sigmas[i];
    levels[n] = request->renoise_rounds > 0 ? request->renoise_sigma : 1.0f;
    enum nd_status status =
        nd_batch_set_levels(run->batch, levels, n + 1, run->err);
    free(levels);
    return status;
}

static enum nd_status
append_stage(const struct run *run, enum stage stage, struct nd_ops *list)
{
    struct nd_batch *batch = run->batch;
    bool none = stage == STAGE_GUIDED;
    if (stage == STAGE_START) {
        struct nd_noise noise = {batch->x, batch->estimate, batch->ragged};
        return nd_op_noise(list, &noise, run->err);
    }
    if (stage == STAGE_NOISE) {
        struct nd_noise noise = {batch->x, NULL, batch->ragged};
        return nd_op_noise(list, &noise, run->err);
    }
    if (stage == STAGE_RENOISE) {
        struct nd_renoise renoise = {batch->logits, batch->x, batch->ragged};
        return nd_op_renoise(list, &renoise, run->err);
    }
    if (stage == STAGE_DRAW) {
        struct nd_draw draw = {batch->logits, batch->ragged, batch->cells};
        return nd_op_draw(list, &draw, run->err);
    }
    struct nd_estimate estimate = {batch->logits,
                                   none ? batch->none_logits : NULL, batch->x,
                                   batch->estimate, batch->ragged.n_tokens};
    enum nd_status status = nd_rowformer_forward(batch, none, list, run->err);
    return status == ND_OK ? nd_op_estimate(list, &estimate, run->err)
                           : status;
}

static bool
needed(const struct nd_sample_request *request, enum stage stage)
{
    switch (stage) {
    case STAGE_STEP:
        return any_guided(request, false);
    case STAGE_GUIDED:
        return any_guided(request, true);
    case STAGE_NOISE:
        return request->solver == ND_SOLVER_ANCESTRAL;
    case STAGE_RENOISE:
        return request->renoise_rounds > 0;
    default:
        return true;
    }
}

static enum nd_status
create_programs(struct run *run)
{
    struct nd_backend *backend = run->network->backend;
    enum nd_status status = ND_OK;
    for (int stage = 0; stage < STAGES && status == ND_OK; stage++) {
        struct nd_ops list = {NULL, 0, 0};
        if (!needed(run->request, (enum stage)stage))
            continue;
        status = append_stage(run, (enum stage)stage, &list);
        if (status == ND_OK)
            status = backend->functions->program_create(
                backend, list.ops, list.count, &run->programs[stage],
                run->err);
        nd_ops_free(&list);
    }
    return status;
}

static void
destroy_programs(struct run *run)
{
    struct nd_backend *backend = run->network->backend;
    for (int stage = 0; stage < STAGES; stage++) {
        backend->functions->program_destroy(backend, run->programs[stage]);
        run->programs[stage] = NULL;
    }
}

static enum nd_status
run_stage(const struct run *run, enum stage stage, struct nd_step step)
{
    struct nd_backend *backend = run->network->backend;
    step.seed_low = (uint32_t)run->request->seed;
    step.seed_high = (uint32_t)(run->request->seed >> 32);
    step.guidance = run->request->guidance;
    return backend->functions->program_run(backend, run->programs[stage],
                                           &step, run->err);
}

/* Evaluation i of the network; tells its progress first. */
static enum nd_status
evaluate(const struct run *run, size_t i, struct nd_step step)
{
    const struct nd_sample_request *request = run->request;
    enum nd_status status = ND_OK;
    if (request->progress != NULL)
        status = request->progress(request->user, run->done, i,
                                   request->n_sigmas + request->renoise_rounds,
                                   run->err);
    if (status != ND_OK)
        return status;
    bool none = guided(request, level_of(request, i));
    return run_stage(run, none ? STAGE_GUIDED : STAGE_STEP, step);
}

/* The coefficients of x, e and the estimate before, for step i of n. */
static struct nd_step
solver_step(enum nd_solver solver, const float *sigmas, size_t n, size_t i)
{
    struct nd_step step = nd_rowformer_step(sigmas[i], i);
    step.estimated = i > 0 ? 1.0f : 0.0f;
    if (i + 1 == n)
        return step;
    double ratio = (double)sigmas[i + 1] / (double)sigmas[i], half = 0.0;
    double h = log((double)sigmas[i]) - log((double)sigmas[i + 1]);
    if (solver == ND_SOLVER_DPMPP_2M && i > 0) {
        double before = log((double)sigmas[i - 1]) - log((double)sigmas[i]);
        half = h / before / 2.0;
    }
    if (solver == ND_SOLVER_ANCESTRAL) {
        h *= 2.0; /* 1 - expm1 gives q^2 */
        ratio *= ratio;
    }
    double weight = -expm1(-h);
    step.a = (float)ratio;
    step.b = (float)(weight * (1.0 + half));
    step.c = (float)(-weight * half);
    return step;
}

/* The noise that an ancestral step i ends with. */
static struct nd_step
step_noise(const float *sigmas, size_t i)
{
    double ratio = (double)sigmas[i + 1] / (double)sigmas[i];
    return (struct nd_step){
        .noise_stream = ND_STREAM_STEP + (uint32_t)i,
        .noise_scale = (float)((double)sigmas[i + 1] *
                               sqrt(1.0 - ratio * ratio))};
}

static enum nd_status
solve(const struct run *run, size_t i)
{
    const struct nd_sample_request *request = run->request;
    enum nd_status status = evaluate(
        run, i, solver_step(request->solver, request->sigmas,
                            request->n_sigmas, i));
    if (status == ND_OK && request->solver == ND_SOLVER_ANCESTRAL &&
        i + 1 < request->n_sigmas)
        status = run_stage(run, STAGE_NOISE, step_noise(request->sigmas, i));
    return status;
}

static enum nd_status
renoise(const struct run *run, size_t round)
{
    const struct nd_sample_request *request = run->request;
    struct nd_step again = {.draw_stream = (uint32_t)(2 * round + 1),
                            .noise_stream = (uint32_t)(2 * round + 2),
                            .noise_scale = request->renoise_sigma};
    enum nd_status status = run_stage(run, STAGE_RENOISE, again);
    if (status != ND_OK)
        return status;
    return evaluate(
        run, request->n_sigmas + round,
        nd_rowformer_step(request->renoise_sigma, request->n_sigmas));
}

static enum nd_status
denoise(const struct run *run)
{
    const struct nd_sample_request *request = run->request;
    struct nd_step start = {.noise_stream = ND_STREAM_START,
                            .noise_scale = request->sigmas[0]};
    struct nd_step draw = {.draw_stream = ND_STREAM_FINAL,
                           .temperature = request->temperature};
    enum nd_status status = run_stage(run, STAGE_START, start);
    for (size_t i = 0; i < request->n_sigmas && status == ND_OK; i++)
        status = solve(run, i);
    for (size_t r = 0; r < request->renoise_rounds && status == ND_OK; r++)
        status = renoise(run, r);
    return status == ND_OK ? run_stage(run, STAGE_DRAW, draw) : status;
}

/* What the network drew for cells that are held is of no use. */
static void
put_held(const int8_t *held, size_t count, int8_t *cells)
{
    for (size_t i = 0; i < count; i++)
        if (held[i] != ND_FREE)
            cells[i] = held[i];
}

/* held and cells: of the batch; held may be NULL. */
static enum nd_status
sample_batch(struct run *run, size_t flows, const int8_t *held, int8_t *cells)
{
    const struct nd_sample_request *request = run->request;
    struct nd_backend *backend = run->network->backend;
    enum nd_status status = nd_batch_fill(
        run->batch, flows, request->lengths + run->done,
        request->classes + run->done, request->ids + run->done, run->err);
    if (status == ND_OK && held != NULL)
        status = nd_batch_hold(run->batch, held, run->err);
    if (status == ND_OK)
        status = create_programs(run);
    if (status == ND_OK)
        status = denoise(run);
    if (status == ND_OK)
        status = backend->functions->tensor_read(backend, run->batch->cells,
                                                 run->batch->ragged.n_tokens,
                                                 cells, run->err);
    destroy_programs(run);
    if (status == ND_OK && held != NULL)
        put_held(held, run->batch->ragged.n_tokens *
                           run->network->dimensions.columns, cells);
    return status;
}

/* Makes the batch, unless it is there; the levels are written once. */
static enum nd_status
ensure_batch(struct run *run)
{
    if (run->batch != NULL)
        return ND_OK;
    struct nd_batch_size most = size_batches(run->request, run->budget);
    run->largest = most.tokens;
    enum nd_status status =
        nd_batch_create(run->network, &most, &run->batch, run->err);
    return status == ND_OK ? set_levels(run) : status;
}

/* After an error: whether to go on with batches of half the size. */
static bool
halve(struct run *run, enum nd_status status)
{
    size_t longest = size_batches(run->request, 1).tokens;
    if (status != ND_NO_MEMORY || run->largest <= longest)
        return false;
    nd_batch_destroy(run->batch);
    run->batch = NULL;
    run->budget = run->largest / 2;
    if (run->request->halved != NULL)
        *run->request->halved = run->budget;
    return true;
}

/* The next batch, which is tried again when it was halved. */
static enum nd_status
next(struct run *run, int8_t *cells)
{
    const struct nd_sample_request *request = run->request;
    size_t columns = run->network->dimensions.columns, tokens;
    enum nd_status status = ensure_batch(run);
    size_t flows = next_batch(request, run->budget, run->done, &tokens);
    size_t at = run->packets * columns;
    if (status == ND_OK)
        status = sample_batch(run, flows,
                              request->held ? request->held + at : NULL,
                              cells + at);
    if (status != ND_OK)
        return halve(run, status) ? ND_OK : status;
    run->done += flows;
    run->packets += tokens;
    return ND_OK;
}

enum nd_status
nd_sample(struct nd_rowformer *network,
          const struct nd_sample_request *request, int8_t *cells,
          struct nd_error *err)
{
    struct run run = {.request = request, .network = network, .err = err};
    enum nd_status status = check_request(request, err);
    run.budget = request->tokens > 0 ? request->tokens
                                     : network->backend->preferred_tokens;
    while (status == ND_OK && run.done < request->n_flows)
        status = next(&run, cells);
    nd_batch_destroy(run.batch);
    return status;
}
