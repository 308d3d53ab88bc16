#version 450
// out[f] = silu(given[f] + noise[step.noise_row])
// given, out (rows, D); noise (levels, D). x: texels, y: rows.
// C twin: run_condition.
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

ND_IN(0, given)
ND_IN(1, noise)
ND_OUT(0, outputs);
ND_STEP;
ND_PARAMS(nd_condition_params);

void main()
{
    int k = int(gl_GlobalInvocationID.x), row = int(gl_WorkGroupID.y);
    if (k >= int(p.width4))
        return;
    vec4 level = noise(int(step_now.noise_row * p.noise_stride4) + k);
    outputs[row * int(p.out_stride4) + k] =
        silu(given(row * int(p.given_stride4) + k) + level);
}
