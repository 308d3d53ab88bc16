/*
 * backend.h - the op set of the network and what a device must offer to run it
 *
 * In:      tensors and packed weights made by a backend, ops that name them
 *          (built by ops.h, which checks every shape), one struct nd_step.
 * Out:     tensors; nothing is read back but by tensor_read().
 * Errors:  ND_NO_MEMORY, ND_DEVICE, ND_UNSUPPORTED; ops were checked before,
 *          so a backend checks no shapes.
 * Memory:  tensors and weights belong to the caller, until their destroy();
 *          a program keeps the tensors it names and none of the op structs.
 * Threads: one backend is used by one thread at a time.
 * Python:  _core.Model.  Tests: test_ops.py, test_vulkan.py
 *
 * A denoising step is a list of ops, the same for every backend. A backend
 * turns the list into a program once per batch (Vulkan: a recorded command
 * buffer; cpu: a copy of the list) and runs it with one submit a step. What
 * changes from step to step stands in struct nd_step, 64 bytes that the
 * program reads from host-visible memory: nothing is recorded again.
 *
 *   backend               one device: tensors, weights, programs
 *   tensor                rows x columns of one type, on the device
 *   weight                a matrix and bias, packed for the device's kernel
 *   op                    one line of the network; see struct nd_op
 *   program               a list of ops, ready to run
 *
 * Names: T tokens (packets of all flows of the batch, flow after flow),
 * F flows, D width, C cells, d head width. f(t) is the flow of token t.
 *
 * A row of pixels, estimates or logits holds the colours of its cells as
 * planes, one after the other: colour c of cell j is column c S + j, with
 * S = nd_stride(C); what stands at j >= C reaches no result. Pixels x have
 * three planes, 3S columns. The three colours of an estimate add up to -1,
 * and softmax sees only differences of logits: both have two planes, 2S
 * columns, and their third colours are -1 - e_0 - e_1 and 0.
 */
#ifndef ND_ENGINE_BACKEND_H
#define ND_ENGINE_BACKEND_H

#include "../status.h"

enum nd_type { ND_FLOAT32, ND_UINT32, ND_INT8 };

/*
 * A tensor on the device. Row r starts at element r * stride; stride is
 * columns rounded up to 32 (nd_stride) or more. The pad columns and pad rows
 * a backend may add after the last row are zero at creation; an op may write
 * any finite value there and must not let them reach a result.
 * A backend allocates a larger struct that starts with this one.
 */
struct nd_tensor {
    enum nd_type type;
    size_t rows, columns, stride;
};

static inline size_t
nd_stride(size_t columns)
{
    return (columns + 31) / 32 * 32;
}

/*
 * out x in matrix and bias of a linear layer, in the device's own packing.
 * out and in may be odd (3C, 7C): a backend pads inside.
 */
struct nd_weight {
    size_t out, in;
};

struct nd_program; /* a backend's own struct */

/*
 * What changes from step to step. 16 words, std430 as they stand: a shader
 * reads them from a buffer of 64 bytes.
 */
struct nd_step {
    uint32_t noise_row;     /* CONDITION: row of the noise level table */
    float input_scale;      /* INPUT: 1 / sqrt(1 + sigma^2) */
    float estimated;        /* INPUT: 1 if there is an estimate, 0 at first */
    float guidance;         /* ESTIMATE: w, used if there is a second logits */
    float a, b, c;          /* ESTIMATE: x = a x + b e + c e_old */
    float noise_scale;      /* NOISE, RENOISE: factor of the normal noise */
    float temperature;      /* DRAW: 0 is arg-max */
    uint32_t draw_stream;   /* RENOISE, DRAW: Philox stream of the draw */
    uint32_t noise_stream;  /* NOISE, RENOISE: Philox stream of the noise */
    uint32_t seed_low, seed_high;
    uint32_t unused[3];
};

_Static_assert(sizeof(struct nd_step) == 64, "std430 layout");

/*
 * Where the tokens of a batch belong: two uint32 tensors, written by the
 * caller before a program that names them runs.
 *   tokens (T, 4): flow, packet index in the flow, first token of the flow,
 *                  packets in the flow
 *   flows  (F, 4): first token, packets, flow id low word, flow id high word
 * offsets is a host copy (n_flows + 1), read only by program_create (to make
 * lists of attention tiles); longest is the longest flow's packets.
 */
struct nd_ragged {
    const struct nd_tensor *tokens, *flows;
    const uint32_t *offsets;
    size_t n_tokens, n_flows, longest;
};

/*
 * LINEAR: out[r][n] = epilogue(y), y = sum_k in[r][k] W[n][k] + bias[n],
 * r < rows, n < W.out, k < W.in = in.columns. Sums in float.
 *   NONE   y
 *   SILU   y / (1 + exp(-y))
 *   GELU   0.5 y (1 + tanh(sqrt(2/pi) (y + 0.044715 y^3)))
 *   ADD    residual[r][n] + y
 *   GATED  residual[r][n] + g y, g = modulation[f(r)][gate + n]
 *                                    + constant[0][gate + n]
 * residual may be out itself (each element is read before it is written).
 * in is never out.
 */
enum nd_epilogue {
    ND_EPILOGUE_NONE,
    ND_EPILOGUE_SILU,
    ND_EPILOGUE_GELU,
    ND_EPILOGUE_ADD,
    ND_EPILOGUE_GATED
};

struct nd_linear {
    const struct nd_tensor *in;         /* (>= rows, W.in) */
    const struct nd_weight *weight;
    enum nd_epilogue epilogue;
    const struct nd_tensor *residual;   /* ADD, GATED: (>= rows, W.out) */
    const struct nd_tensor *modulation; /* GATED: (F, >= gate + W.out) */
    const struct nd_tensor *constant;   /* GATED: (1, >= gate + W.out) */
    const struct nd_tensor *tokens;     /* GATED: nd_ragged.tokens */
    size_t gate, rows;
    struct nd_tensor *out;              /* (>= rows, W.out) */
};

/*
 * NORM: out[t][j] = (in[t][j] - mean) / sqrt(variance + 1e-6) * (1 + s) + h,
 * mean and (biased) variance over j < D;
 * s = modulation[f(t)][scale + j] + constant[0][scale + j],
 * h = modulation[f(t)][shift + j] + constant[0][shift + j];
 * constant may be NULL (zeros). D is a multiple of 32.
 */
struct nd_norm {
    const struct nd_tensor *in;         /* (>= T, D) */
    const struct nd_tensor *modulation; /* (F, ...) */
    const struct nd_tensor *constant;   /* (1, ...) or NULL */
    const struct nd_tensor *tokens;     /* nd_ragged.tokens */
    size_t shift, scale, rows;
    struct nd_tensor *out;              /* (>= T, D), not in */
};

/*
 * ATTENTION inside each flow. qkv row t holds q, k, v, each D = heads * d
 * (head h at h * d); d is a multiple of 8. q and k are first rotated: with i
 * the packet index and j < d/2, c = rotary[i][j], s = rotary[i][d/2 + j]:
 *   (u_j, u_{j+d/2}) <- (u_j c - u_{j+d/2} s, u_{j+d/2} c + u_j s)
 * then out[t] = sum_m softmax_m(q_t . k_m / sqrt(d)) v_m over the flow's m.
 * qkv is scratch: the op may rotate q and k in place.
 */
struct nd_attention {
    struct nd_tensor *qkv;          /* (>= T, 3D) */
    const struct nd_tensor *rotary; /* (>= longest, d): cos, sin */
    struct nd_ragged ragged;
    size_t heads;
    struct nd_tensor *out;          /* (>= T, D), not qkv */
};

/*
 * CONDITION: out[f][j] = silu(given[f][j] + noise[step.noise_row][j]),
 * f < rows.
 */
struct nd_condition {
    const struct nd_tensor *given; /* (>= rows, D) */
    const struct nd_tensor *noise; /* (> step.noise_row, D) */
    size_t rows;
    struct nd_tensor *out;         /* (>= rows, D) */
};

/*
 * INPUT: what the network sees of x (T, 3S) and of the estimate (T, 2S).
 * out has 5S + 1 columns where no cell is held: x[t] times step.input_scale,
 * estimate[t], step.estimated; t < rows. With 6S, where cells may be held,
 * the third colour of the estimate, -step.estimated - e_0 - e_1, follows
 * those two; with 7S there is a plane of zeros after it, which HOLD fills in
 * for a network that sees which cells are held.
 */
struct nd_input {
    const struct nd_tensor *x, *estimate; /* (>= rows, 3S), 2S */
    size_t rows;
    struct nd_tensor *out;                /* (>= rows, 5S + 1, 6S or 7S) */
};

/*
 * HOLD: after INPUT, cells whose value is known. For every cell with
 * held[t][j] = 1, 0 or -1, colour c = 1 - held[t][j]:
 *   out[t][i S + j] = out[t][(3 + i) S + j] = (i == c ? 1 : -1),  i < 3,
 *   out[t][6 S + j] = 1                      if out has 7S columns
 * Cells with ND_FREE stay as INPUT left them; t < rows.
 */
enum { ND_FREE = 2 };

struct nd_hold {
    const struct nd_tensor *held; /* (>= rows, C) int8 */
    size_t rows;
    struct nd_tensor *out;        /* (>= rows, 6S or 7S) */
};

/*
 * ESTIMATE: the end of a step. For each element, then over each cell's three
 * colours (l_2 = 0):
 *   l = logits                                         if none is NULL
 *   l = none + step.guidance * (logits - none)         else;  logits <- l
 *   e = 2 softmax(l) - 1
 *   x <- step.a * x + step.b * e + step.c * estimate;  estimate <- e
 * All in place; logits then holds the finished logits.
 */
struct nd_estimate {
    struct nd_tensor *logits;     /* (>= rows, 2S) */
    const struct nd_tensor *none; /* (>= rows, 2S) or NULL */
    struct nd_tensor *x, *estimate; /* (>= rows, 3S), 2S */
    size_t rows;
};

/*
 * NOISE: x[t][e] = step.noise_scale * normal(t, e, step.noise_stream), e < 3S;
 * estimate[t] = 0. If estimate is NULL the noise is added to x.
 *
 * normal(): Philox4x32-10, key (seed_low, seed_high), counter (E / 4, flow id
 * low, flow id high, stream), E = packet * 3S + e; u_i = ((v_i >> 8) + 0.5)
 * * 2^-24. Words (0, 1) and (2, 3) make pairs: sqrt(-2 ln u_0) cos(2 pi u_1)
 * is element 0 of the block, sqrt(-2 ln u_0) sin(2 pi u_1) element 1.
 */
struct nd_noise {
    struct nd_tensor *x;        /* (>= T, 3S) */
    struct nd_tensor *estimate; /* (>= T, 2S) or NULL */
    struct nd_ragged ragged;
};

/*
 * RENOISE: every cell is drawn from p = softmax(logits) of its 3 colours,
 * x[t][c S + j] = (c == drawn ? 1 : -1)
 *                 + step.noise_scale * normal(t, c S + j, step.noise_stream).
 *
 * draw: u = uniform word E % 4 of Philox block E / 4, E = packet * S + j,
 * stream step.draw_stream, u as above. With w_c = exp(l_c - max l), l_2 = 0,
 * and total = w_0 + w_1 + w_2 (added in that order): colour 0 if
 * u * total < w_0, else 1 if u * total < w_0 + w_1, else 2.
 */
struct nd_renoise {
    const struct nd_tensor *logits; /* (>= T, 2S) */
    struct nd_tensor *x;            /* (>= T, 3S) */
    struct nd_ragged ragged;
};

/*
 * DRAW: cells[t][j] = 1 - colour: 1, 0 or -1. With step.temperature 0 the
 * colour of the largest logit (the first of equals); else drawn as above
 * from l / step.temperature.
 */
struct nd_draw {
    const struct nd_tensor *logits; /* (>= T, 2S) */
    struct nd_ragged ragged;
    struct nd_tensor *cells;        /* (>= T, C) int8 */
};

/* One line an op: name, member of the union, struct. */
#define ND_OP_LIST(X)                                                         \
    X(LINEAR, linear)                                                         \
    X(NORM, norm)                                                             \
    X(ATTENTION, attention)                                                   \
    X(CONDITION, condition)                                                   \
    X(INPUT, input)                                                           \
    X(HOLD, hold)                                                             \
    X(ESTIMATE, estimate)                                                     \
    X(NOISE, noise)                                                           \
    X(RENOISE, renoise)                                                       \
    X(DRAW, draw)

enum nd_op_kind {
#define X(name, member) ND_OP_##name,
    ND_OP_LIST(X)
#undef X
    ND_OP_COUNT
};

struct nd_op {
    enum nd_op_kind kind;
    union {
#define X(name, member) struct nd_##member member;
        ND_OP_LIST(X)
#undef X
    } as;
};

struct nd_backend;

/*
 * The function table of a backend. destroy functions take NULL. Tensors and
 * weights must not be destroyed while a program that names them may run.
 */
struct nd_backend_functions {
    void (*destroy)(struct nd_backend *backend);

    /* rows x columns zeros. */
    enum nd_status (*tensor_create)(struct nd_backend *backend,
                                    enum nd_type type, size_t rows,
                                    size_t columns, struct nd_tensor **tensor,
                                    struct nd_error *err);
    void (*tensor_destroy)(struct nd_backend *backend,
                           struct nd_tensor *tensor);
    /*
     * Rows [0, rows) from or to dense host memory (rows * columns elements,
     * no stride). Both wait for the programs that were started before.
     */
    enum nd_status (*tensor_write)(struct nd_backend *backend,
                                   struct nd_tensor *tensor, size_t rows,
                                   const void *data, struct nd_error *err);
    enum nd_status (*tensor_read)(struct nd_backend *backend,
                                  const struct nd_tensor *tensor, size_t rows,
                                  void *data, struct nd_error *err);

    /*
     * Packs matrix (out, in), row-major, and bias (out floats; NULL: zeros).
     * The host memory may go after the call.
     */
    enum nd_status (*weight_create)(struct nd_backend *backend,
                                    const float *matrix, const float *bias,
                                    size_t out, size_t in,
                                    struct nd_weight **weight,
                                    struct nd_error *err);
    void (*weight_destroy)(struct nd_backend *backend,
                           struct nd_weight *weight);

    /*
     * Makes a program of n_ops ops, which run in order, each seeing what the
     * ones before wrote. Copies what it needs of ops and of ragged.offsets.
     */
    enum nd_status (*program_create)(struct nd_backend *backend,
                                     const struct nd_op *ops, size_t n_ops,
                                     struct nd_program **program,
                                     struct nd_error *err);
    /* Waits for the program's runs. */
    void (*program_destroy)(struct nd_backend *backend,
                            struct nd_program *program);
    /*
     * Runs the program with the scalars of step, after everything that was
     * started before. May return before it is done; errors of the device may
     * come from a later call.
     */
    enum nd_status (*program_run)(struct nd_backend *backend,
                                  struct nd_program *program,
                                  const struct nd_step *step,
                                  struct nd_error *err);
};

/* A backend's own struct starts with this one. */
struct nd_backend {
    const struct nd_backend_functions *functions;
    char device[256];       /* for people: "cpu (AVX-512, 2 threads)" */
    char note[512];   /* for people: what it falls back from, or empty */
    size_t preferred_tokens; /* tokens a batch that fill the device well */
};

#endif
