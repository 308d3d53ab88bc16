#version 450
// out[t] = (x[t] * step.input_scale, estimate[t], the rest): step.estimated
// if PLANES is 5; else the estimate's third colour, then zeros if it is 7.
// x (rows, 3S), estimate (rows, 2S); out (rows, 5S + 1, 6S or 7S). x: texels
// of a plane, y: ROWS rows. C twin: run_input.
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

layout(constant_id = 2) const int ROWS = 16;
layout(constant_id = 3) const int PLANES = 5;

ND_IN(0, x)
ND_IN(1, estimate)
ND_OUT(0, outputs);
ND_STEP;
ND_PARAMS(nd_input_params);

void main()
{
    int k = int(gl_GlobalInvocationID.x), plane4 = int(p.plane4);
    if (k >= plane4)
        return;
    float scale = step_now.input_scale, estimated = step_now.estimated;
    int first = int(gl_WorkGroupID.y) * ROWS;
    int end = min(first + ROWS, int(p.rows));
    for (int row = first; row < end; row++) {
        int from = row * int(p.x_stride4) + k;
        int to = row * int(p.out_stride4) + k;
        int e_from = row * int(p.e_stride4) + k;
        vec4 e0 = estimate(e_from), e1 = estimate(e_from + plane4);
        [[unroll]] for (int c = 0; c < 3; c++)
            outputs[to + c * plane4] = x(from + c * plane4) * scale;
        outputs[to + 3 * plane4] = e0;
        outputs[to + 4 * plane4] = e1;
        if (PLANES > 5)
            outputs[to + 5 * plane4] = -estimated - e0 - e1;
        else if (k == 0)
            outputs[to + 5 * plane4] = vec4(estimated, 0, 0, 0);
        if (PLANES == 7)
            outputs[to + 6 * plane4] = vec4(0);
    }
}
