/*
 * sampler.h - from noise to cells: a solver over batches of flows
 *
 * In:      a network and a request: flows (length, class, id), seed, noise
 *          levels, and what is done at the end.
 * Out:     int8 cells of every packet, flow after flow, C columns each.
 * Errors:  ND_ARGUMENT for a request out of range; what the backend says;
 *          what progress returns, which ends the call.
 * Memory:  one batch, sized ahead from the token budget: any number of flows
 *          needs the same. A batch that the device has no memory for is
 *          halved, down to the longest flow.
 * Threads: one thread at a time for a network.
 * Python:  _core.Model.sample.  Tests: test_sampler.py
 *
 * With sigmas s_0 > ... > s_{S-1} and e_i the network's estimate
 * (2 softmax - 1) at s_i, x starts as s_0 noise. Then, with q = s_{i+1} / s_i:
 *   DPM-Solver++(2M), Lu et al., arXiv:2211.01095, algorithm 2, data
 *   prediction, with t = -ln s and h_i = t_{i+1} - t_i:
 *     x <- q x - expm1(-h_i) D_i,  D_0 = e_0,
 *     D_i = (1 + 1/2r) e_i - (1/2r) e_{i-1},  r = h_{i-1} / h_i
 *   Euler (DDIM): x <- q x + (1 - q) e_i
 *   ancestral, the posterior of a step of the variance exploding process:
 *     x <- q^2 x + (1 - q^2) e_i + s_{i+1} sqrt(1 - q^2) noise_i
 * and no update after the last. Guidance, logits none + w (logits - none),
 * acts at levels inside an interval (Kynkaanniemi et al., arXiv:2404.07724).
 * Each re-noise round then draws the cells,
 * adds renoise_sigma * noise and evaluates the network once more. The cells
 * are the arg-max of the logits, or a draw at a temperature.
 *
 * Cells that are held come out as they were given, and the network sees them
 * clean in every step; nothing else is done to them.
 *
 * A flow depends on seed, id, class and length alone: not on its batch.
 */
#ifndef ND_ENGINE_SAMPLER_H
#define ND_ENGINE_SAMPLER_H

#include "rowformer.h"

/* Philox streams; see nd_step. */
enum { ND_STREAM_START = 0, ND_STREAM_STEP = 0x40000000 };
#define ND_STREAM_FINAL UINT32_C(0x80000000)

/*
 * Called before every step with the flows that are done, and with the steps
 * done of the batch at hand. Anything but ND_OK ends the call with it.
 */
typedef enum nd_status nd_progress(void *user, size_t flows_done,
                                   size_t steps_done, size_t steps,
                                   struct nd_error *err);

enum nd_solver {
    ND_SOLVER_DPMPP_2M,
    ND_SOLVER_EULER,
    ND_SOLVER_ANCESTRAL
};

struct nd_sample_request {
    size_t n_flows;
    const int32_t *lengths, *classes; /* classes: nd_dimensions.classes, none */
    const uint64_t *ids;
    const int8_t *held; /* (sum of lengths, columns): see HOLD; or NULL */
    uint64_t seed;
    const float *sigmas; /* falling, above 0 */
    size_t n_sigmas;
    enum nd_solver solver;
    float temperature; /* 0: arg-max */
    size_t renoise_rounds;
    float renoise_sigma;
    float guidance; /* 1: off */
    float guidance_low, guidance_high; /* levels that are guided, both in */
    size_t tokens;  /* budget of a batch; 0: what the backend prefers */
    size_t *halved; /* gets the budget that memory allowed, if less; or NULL */
    nd_progress *progress; /* or NULL */
    void *user;
};

/* cells: (sum of lengths, columns). */
enum nd_status nd_sample(struct nd_rowformer *network,
                         const struct nd_sample_request *request,
                         int8_t *cells, struct nd_error *err);

#endif
