/*
 * params.h - push constants and binding numbers, shared by C and GLSL
 *
 * In:      one struct per shader, filled by csrc/engine/gpu_ops.c.
 * Out:     the member `p` of the shader's push constants.
 * Errors:  none; a struct over 128 bytes does not compile.
 * Memory:  scalars of 32 bits only, so that std430 and C agree.
 * Threads: constants.
 * Python:  none.  Tests: tests/test_vulkan.py
 *
 * Sizes and strides that end in 4 count texels of four floats.
 */
#ifndef ND_PARAMS_H
#define ND_PARAMS_H

#ifndef VULKAN
#include <stdint.h>
typedef uint32_t nd_word;
#else
#define nd_word uint
#endif

/* An input is bound twice: as texels and, 8 further on, as a buffer. */
#define ND_BIND_WORDS 8
#define ND_BIND_OUT 16
#define ND_BIND_STEP 20

/* Keep in step with enum nd_epilogue of backend.h. */
#define ND_DO_NONE 0
#define ND_DO_SILU 1
#define ND_DO_GELU 2
#define ND_DO_ADD 3
#define ND_DO_GATED 4

struct nd_linear_params {
    nd_word rows, out4, in4; /* in4: texels of a row that count */
    nd_word in_stride4, out_stride4;
    nd_word bias4; /* first texel of the bias in the weight buffer */
    nd_word panel_stride4; /* tile kernel: texels of a row of weights */
    nd_word residual_stride4, modulation_stride4, gate4;
    nd_word zero; /* 0; the compiler must not know */
};

struct nd_norm_params {
    nd_word rows, width4, in_stride4, out_stride4;
    nd_word modulation_stride4, shift4, scale4;
};

struct nd_rotary_params {
    nd_word tokens, heads, stride4, rotary_stride4;
};

struct nd_attention_params {
    nd_word heads, stride4, out_stride4;
    float scale;
};

struct nd_condition_params {
    nd_word rows, width4, given_stride4, noise_stride4, out_stride4;
};

/*
 * plane4: texels of a plane of colours, words of a row of cells. x_stride4 of
 * pixels with three planes, e_stride4 of estimates and logits with two.
 */
struct nd_input_params {
    nd_word rows, plane4, x_stride4, e_stride4, out_stride4;
};

struct nd_hold_params {
    nd_word rows, cells, plane4, out_stride;
};

struct nd_estimate_params {
    nd_word rows, plane4, x_stride4, e_stride4;
};

struct nd_draw_params {
    nd_word rows, plane4, x_stride4, e_stride4;
};

#ifndef VULKAN
#define ND_FITS(name)                                                         \
    _Static_assert(sizeof(struct name) <= 128, "push constants")
ND_FITS(nd_linear_params);
ND_FITS(nd_norm_params);
ND_FITS(nd_rotary_params);
ND_FITS(nd_attention_params);
ND_FITS(nd_condition_params);
ND_FITS(nd_input_params);
ND_FITS(nd_hold_params);
ND_FITS(nd_estimate_params);
ND_FITS(nd_draw_params);
#endif

#endif
