#version 450
// x[t][e] = step.noise_scale * normal(t, e, step.noise_stream), e < 3S;
// estimate = 0. If ADD the noise is added to x.
// Element numbers of Philox: packet * 3S + e.
// x (T, 3S), estimate (T, 2S); tokens, flows (T, 4), (F, 4). x: texels of x,
// y: rows. C twin: run_noise.
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "philox.glsl"

layout(constant_id = 2) const bool ADD = false;

ND_IN_UINT(0, tokens)
ND_IN_UINT(1, flows)
ND_IN(2, x)
ND_OUT(0, out_x);
ND_OUT(1, out_estimate);
ND_STEP;
ND_PARAMS(nd_draw_params);

void main()
{
    int k = int(gl_GlobalInvocationID.x), row = int(gl_WorkGroupID.y);
    int plane4 = int(p.plane4), at = row * int(p.x_stride4) + k;
    if (k >= 3 * plane4)
        return;
    uvec4 token = tokens(row * TABLE_STRIDE4);
    uvec2 id = flows(int(token.x) * TABLE_STRIDE4).zw;
    uvec2 key = uvec2(step_now.seed_low, step_now.seed_high);
    uint block = token.y * 3 * p.plane4 + uint(k);
    vec4 n = normals(block, id, step_now.noise_stream, key);
    if (ADD) {
        out_x[at] = x(at) + step_now.noise_scale * n;
    } else {
        out_x[at] = step_now.noise_scale * n;
        if (k < 2 * plane4)
            out_estimate[row * int(p.e_stride4) + k] = vec4(0);
    }
}
