// common.glsl - bindings and helpers of every shader.
//
// An input is read as texels of four (quick on CPU devices) or as a storage
// buffer (any size, quick on GPUs): name(i) is texel i, the other path is
// compiled away. Outputs are storage buffers.
#extension GL_EXT_control_flow_attributes : require
#include "params.h"

layout(local_size_x_id = 0) in;
layout(constant_id = 0) const int LANES = 8;
layout(constant_id = 1) const bool TEXELS = true;

#define ND_IN(slot, name) \
    layout(binding = slot, rgba32f) uniform readonly imageBuffer name##_t; \
    layout(binding = ND_BIND_WORDS + slot, std430) \
    readonly buffer name##_block { vec4 name##_b[]; }; \
    vec4 name(int i) { return TEXELS ? imageLoad(name##_t, i) : name##_b[i]; }

#define ND_IN_UINT(slot, name) \
    layout(binding = slot, rgba32ui) uniform readonly uimageBuffer name##_t; \
    layout(binding = ND_BIND_WORDS + slot, std430) \
    readonly buffer name##_block { uvec4 name##_b[]; }; \
    uvec4 name(int i) { return TEXELS ? imageLoad(name##_t, i) : name##_b[i]; }

#define ND_OUT(slot, name) \
    layout(binding = ND_BIND_OUT + slot, std430) \
    writeonly buffer name##_block { vec4 name[]; }

// u64vec2, written as pairs(): CPU devices store piece by piece
#define ND_OUT_PAIRS(slot, name) \
    layout(binding = ND_BIND_OUT + slot, std430) \
    writeonly buffer name##_block { u64vec2 name[]; }

// What does not change is copied as main starts: inside a loop or a branch
// CPU devices would load it lane by lane.
#define ND_PARAMS(type) \
    layout(push_constant) uniform nd_push { type p_given; }; \
    type p = p_given

// struct nd_step of backend.h
struct nd_step {
    uint noise_row;
    float input_scale, estimated, guidance, a, b, c, noise_scale, temperature;
    uint draw_stream, noise_stream, seed_low, seed_high;
};
#define ND_STEP \
    layout(binding = ND_BIND_STEP, std430) readonly buffer nd_step_block { \
        nd_step step_given; \
    }; \
    nd_step step_now = step_given

// texels of a row of the (T, 4) and (F, 4) tables, whose stride is 32
const int TABLE_STRIDE4 = 8;

vec4 silu(vec4 y)
{
    return y / (1.0 + exp(-y));
}

// 0.5 y (1 + tanh z) = y / (1 + exp(-2 z))
vec4 gelu(vec4 y)
{
    vec4 z = 0.7978845608 * (y + 0.044715 * y * y * y);
    return y / (1.0 + exp(-2.0 * z));
}
