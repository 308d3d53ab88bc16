#version 450
// The end of a step, in place: l = logits, or none + guidance (logits - none)
// if GUIDED; l += prior x; logits <- l; e = 2 softmax(l) - 1 over the three
// colours of a cell; x <- a x + b e + c estimate; estimate <- e.
// All (rows, 3C). x: four cells (three texels), y: ROWS rows.
// C twin: cpu_estimate.
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

// The colours of four cells, three texels, become their estimate.
void soften(inout vec4 e[3])
{
    vec4 l0 = vec4(e[0].x, e[0].w, e[1].z, e[2].y);
    vec4 l1 = vec4(e[0].y, e[1].x, e[1].w, e[2].z);
    vec4 l2 = vec4(e[0].z, e[1].y, e[2].x, e[2].w);
    vec4 top = max(max(l0, l1), l2);
    vec4 w0 = exp(l0 - top), w1 = exp(l1 - top), w2 = exp(l2 - top);
    vec4 factor = 2.0 / (w0 + w1 + w2);
    w0 = w0 * factor - 1.0;
    w1 = w1 * factor - 1.0;
    w2 = w2 * factor - 1.0;
    e[0] = vec4(w0.x, w1.x, w2.x, w0.y);
    e[1] = vec4(w1.y, w2.y, w0.z, w1.z);
    e[2] = vec4(w2.z, w0.w, w1.w, w2.w);
}

void main()
{
    int cell = 4 * int(gl_GlobalInvocationID.x), k = cell / 4 * 3;
    if (cell >= int(p.cells))
        return;
    int stride4 = int(p.stride4), last = stride4 - 1;
    float prior = step_now.prior, guidance = step_now.guidance;
    float sx = step_now.a, se = step_now.b, so = step_now.c;
    int first = int(gl_WorkGroupID.y) * ROWS;
    int end = min(first + ROWS, int(p.rows));
    for (int row = first; row < end; row++) {
        vec4 l[3], e[3], x[3];
        [[unroll]] for (int i = 0; i < 3; i++) {
            int at = row * stride4 + min(k + i, last);
            x[i] = noisy(at);
            l[i] = given(at);
            if (GUIDED) {
                vec4 n = none(row * int(p.none_stride4) + min(k + i, last));
                l[i] = n + guidance * (l[i] - n);
            }
            l[i] += prior * x[i];
            e[i] = l[i];
        }
        soften(e);
        [[unroll]] for (int i = 0; i < 3; i++)
            if (k + i <= last) {
                int at = row * stride4 + k + i;
                vec4 old = estimate(at);
                out_logits[at] = l[i];
                out_x[at] = sx * x[i] + se * e[i] + so * old;
                out_estimate[at] = e[i];
            }
    }
}
