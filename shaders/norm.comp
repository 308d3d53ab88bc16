#version 450
// out[t] = (in[t] - mean) / sqrt(variance + 1e-6) * (1 + scale) + shift, with
// scale and shift from modulation[flow of t] (+ constant, if CONSTANT).
// in, out (rows, D); modulation (F, ...); constant (1, ...); tokens (T, 4).
// SHARE invocations make one row; x: LANES / SHARE rows. C twin: run_norm.
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

layout(constant_id = 2) const int SHARE = 1; // a power of 2, divides LANES
layout(constant_id = 3) const bool CONSTANT = true;

ND_IN(0, inputs)
ND_IN(1, modulation)
ND_IN(2, constant)
ND_IN_UINT(3, tokens)
ND_OUT(0, outputs);
ND_PARAMS(nd_norm_params);

shared float partial[SHARE == 1 ? 1 : LANES];

// Sum over the SHARE invocations of a row, in a fixed order.
float row_sum(float x)
{
    if (SHARE == 1)
        return x;
    int id = int(gl_LocalInvocationID.x);
    partial[id] = x;
    barrier();
    for (int step = SHARE / 2; step > 0; step /= 2) {
        if (id % SHARE < step)
            partial[id] += partial[id + step];
        barrier();
    }
    float total = partial[id / SHARE * SHARE];
    barrier();
    return total;
}

void main()
{
    int id = int(gl_LocalInvocationID.x), part = id % SHARE;
    int row = int(gl_WorkGroupID.x) * (LANES / SHARE) + id / SHARE;
    bool inside = row < int(p.rows);
    int safe = min(row, int(p.rows) - 1), d4 = int(p.width4);
    int from = safe * int(p.in_stride4);

    vec4 sum = vec4(0);
    for (int k = part; k < d4; k += SHARE)
        sum += inputs(from + k);
    float mean = row_sum(dot(sum, vec4(1))) / float(4 * d4);
    sum = vec4(0);
    for (int k = part; k < d4; k += SHARE) {
        vec4 x = inputs(from + k) - mean;
        sum += x * x;
    }
    float variance = row_sum(dot(sum, vec4(1))) / float(4 * d4);
    float factor = 1.0 / sqrt(variance + 1e-6);

    int flow = int(tokens(safe * TABLE_STRIDE4).x);
    int scale = int(p.scale4), shift = int(p.shift4);
    int at = flow * int(p.modulation_stride4);
    for (int k = part; k < d4; k += SHARE) {
        vec4 s = modulation(at + scale + k), h = modulation(at + shift + k);
        if (CONSTANT) {
            s += constant(scale + k);
            h += constant(shift + k);
        }
        vec4 x = inputs(from + k);
        if (inside)
            outputs[row * int(p.out_stride4) + k] =
                (x - mean) * factor * (1.0 + s) + h;
    }
}
