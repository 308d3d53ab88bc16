#version 450
// Rotates q and k of qkv in place: with c = rotary[i][j], s =
// rotary[i][d/2 + j], i the packet index, (u_j, u_{j + d/2}) <-
// (u_j c - u_{j + d/2} s, u_{j + d/2} c + u_j s).
// qkv (T, 3 heads d); rotary (longest, d); tokens (T, 4).
// x: pairs of texels of q and k, y: ROWS tokens each. C twin: run_attention.
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

layout(constant_id = 2) const int ROWS = 16;
layout(constant_id = 3) const int HEAD4 = 16; // texels of a head: d / 4

ND_IN(0, inputs)
ND_IN(1, rotary)
ND_IN_UINT(2, tokens)
ND_OUT(0, outputs);
ND_PARAMS(nd_rotary_params);

void main()
{
    const int HALF4 = HEAD4 / 2;
    int pair = int(gl_GlobalInvocationID.x);
    if (pair >= int(p.heads) * 2 * HALF4)
        return;
    int head = pair / HALF4, j = pair % HALF4; // q heads, then k heads
    int first = int(gl_WorkGroupID.y) * ROWS;
    int end = min(first + ROWS, int(p.tokens));
    for (int t = first; t < end; t++) {
        int packet = int(tokens(t * TABLE_STRIDE4).y);
        int at = t * int(p.stride4) + head * HEAD4 + j;
        vec4 c = rotary(packet * int(p.rotary_stride4) + j);
        vec4 s = rotary(packet * int(p.rotary_stride4) + HALF4 + j);
        vec4 u = inputs(at), v = inputs(at + HALF4);
        outputs[at] = u * c - v * s;
        outputs[at + HALF4] = v * c + u * s;
    }
}
