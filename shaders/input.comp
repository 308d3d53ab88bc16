#version 450
// out[t][j] = x[t][j] * step.input_scale, out[t][3C + j] = estimate[t][j],
// zeros from 6C on.
// x, estimate (rows, 3C); out (rows, 6C or 7C). x: texels of out, y: ROWS rows.
// C twin: cpu_input.
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

layout(constant_id = 2) const int ROWS = 16;

ND_IN(0, x)
ND_IN(1, estimate)
ND_OUT(0, outputs);
ND_STEP;
ND_PARAMS(nd_input_params);

// Texel k of a row, zero outside of it.
vec4 estimate_at(int row, int k)
{
    bool inside = k >= 0 && k < int(p.stride4);
    int safe = max(0, min(k, int(p.stride4) - 1));
    vec4 v = estimate(row * int(p.stride4) + safe);
    return inside ? v : vec4(0);
}

void main()
{
    int k = int(gl_GlobalInvocationID.x), pixels = int(p.pixels);
    if (k >= int(p.out4))
        return;
    float scale = step_now.input_scale;
    int first = int(gl_WorkGroupID.y) * ROWS;
    int end = min(first + ROWS, int(p.rows));
    int e = 4 * k - pixels, r = e & 3, e4 = (e - r) / 4;
    ivec4 column = ivec4(4 * k) + ivec4(0, 1, 2, 3);
    bvec4 noisy = lessThan(column, ivec4(pixels));
    vec4 kept = vec4(lessThan(column, ivec4(2 * pixels)));
    int safe = min(k, int(p.stride4) - 1);
    for (int row = first; row < end; row++) {
        vec4 a = estimate_at(row, e4), b = estimate_at(row, e4 + 1);
        vec4 low = (r & 1) == 0 ? a : vec4(a.yzw, b.x);
        vec4 high = (r & 1) == 0 ? vec4(a.zw, b.xy) : vec4(a.w, b.xyz);
        vec4 given = x(row * int(p.stride4) + safe) * scale;
        outputs[row * int(p.out_stride4) + k] =
            kept * mix(r < 2 ? low : high, given, noisy);
    }
}
