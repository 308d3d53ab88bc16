#version 450
// The matrix product of linear.comp for GPUs: tiles in registers, no shared
// memory. weight (K up to a multiple of 16, columns up to one of 64)
// row-major, then bias. One subgroup makes 4 TALL x 4 WIDE of out, TALL WIDE
// = LANES, each lane 4 x 4; the texels of four k are loaded once, spread over
// the lanes, and passed round by shuffles; x: rows, y: columns.
// C twin: run_linear.
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_shuffle : require
#include "common.glsl"
#include "linear.glsl"

ND_OUT(0, outputs);

layout(constant_id = 2) const int WIDE = 4; // at least 4, divides LANES

void main()
{
    const int TALL = LANES / WIDE;
    const int LOADS = (4 * WIDE + LANES - 1) / LANES; // of weights, a lane
    int lane = int(gl_SubgroupInvocationID);
    int m = lane / WIDE, n = lane % WIDE;
    int first = int(gl_WorkGroupID.x) * 4 * TALL;
    int column4 = int(gl_WorkGroupID.y) * WIDE;
    int last = int(p.rows) - 1, panel = int(p.panel_stride4);
    // Lane l loads row l of the tile, and weight l % WIDE of k = l / WIDE.
    int a_at = min(first + min(lane, 4 * TALL - 1), last) * int(p.in_stride4);
    int b_at[LOADS];
    [[unroll]] for (int i = 0; i < LOADS; i++) {
        int at = min(i * LANES + lane, 4 * WIDE - 1);
        b_at[i] = at / WIDE * panel + column4 + at % WIDE;
    }
    vec4 sum[4] = {vec4(0), vec4(0), vec4(0), vec4(0)};
    for (int k = 0; k < int(p.in4); k++) {
        vec4 a = inputs(a_at + k), b[LOADS];
        [[unroll]] for (int i = 0; i < LOADS; i++)
            b[i] = weight(b_at[i] + 4 * k * panel);
        vec4 x[4];
        [[unroll]] for (int i = 0; i < 4; i++)
            x[i] = subgroupShuffle(a, uint(4 * m + i));
        [[unroll]] for (int j = 0; j < 4; j++) {
            uint at = uint(j * WIDE + n);
            vec4 w = subgroupShuffle(b[j * WIDE / LANES], at % LANES);
            [[unroll]] for (int i = 0; i < 4; i++)
                sum[i] += x[i][j] * w;
        }
    }
    vec4 bias = weight(int(p.bias4) + column4 + n);
    for (int i = 0; i < 4; i++) {
        int row = first + 4 * m + i, n4 = column4 + n;
        if (row <= last && n4 < int(p.out4))
            outputs[row * int(p.out_stride4) + n4] =
                epilogue(sum[i] + bias, row, n4);
    }
}
