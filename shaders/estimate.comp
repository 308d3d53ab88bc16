#version 450
// The end of a step, in place: l = logits, or none + guidance (logits - none)
// if GUIDED; logits <- l; e = 2 softmax(l, 0) - 1 over the three colours of a
// cell; x <- a x + b e + c estimate; estimate <- e.
// logits, none, estimate (rows, 2S), x (rows, 3S). x: texels of a plane,
// y: ROWS rows. C twin: run_estimate.
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

layout(constant_id = 2) const int ROWS = 4;
layout(constant_id = 3) const bool GUIDED = false;

ND_IN(0, given)
ND_IN(1, none)
ND_IN(2, noisy)
ND_IN(3, estimate)
ND_OUT(0, out_logits);
ND_OUT(1, out_x);
ND_OUT(2, out_estimate);
ND_STEP;
ND_PARAMS(nd_estimate_params);

void main()
{
    int k = int(gl_GlobalInvocationID.x), plane4 = int(p.plane4);
    if (k >= plane4)
        return;
    float sx = step_now.a, se = step_now.b, so = step_now.c;
    float guidance = step_now.guidance;
    int first = int(gl_WorkGroupID.y) * ROWS;
    int end = min(first + ROWS, int(p.rows));
    for (int row = first; row < end; row++) {
        vec4 l[2], x[3], old[3], e[3], top = vec4(0);
        int at = row * int(p.e_stride4) + k, x_at = row * int(p.x_stride4) + k;
        [[unroll]] for (int c = 0; c < 2; c++) {
            l[c] = given(at + c * plane4);
            old[c] = estimate(at + c * plane4);
            if (GUIDED) {
                vec4 n = none(at + c * plane4);
                l[c] = n + guidance * (l[c] - n);
            }
            top = max(top, l[c]);
        }
        [[unroll]] for (int c = 0; c < 3; c++) {
            x[c] = noisy(x_at + c * plane4);
            e[c] = exp((c < 2 ? l[c] : vec4(0)) - top);
        }
        old[2] = -1.0 - old[0] - old[1];
        vec4 factor = 2.0 / (e[0] + e[1] + e[2]);
        [[unroll]] for (int c = 0; c < 3; c++) {
            e[c] = e[c] * factor - 1.0;
            out_x[x_at + c * plane4] = sx * x[c] + se * e[c] + so * old[c];
        }
        [[unroll]] for (int c = 0; c < 2; c++) {
            if (GUIDED)
                out_logits[at + c * plane4] = l[c];
            out_estimate[at + c * plane4] = e[c];
        }
    }
}
