#version 450
// out[r][n] = epilogue(sum_k in[r][k] W[n][k] + bias[n])
// in (rows, K); weight panels [N / (4 LANES)][K][LANES] texels of 4 columns,
// then bias; residual (rows, N); modulation (F, ...); tokens (T, 4).
// One subgroup makes ROWS x 4 LANES of out; x: rows, y: columns. Each lane
// owns 4 columns, rows are broadcast by constant-lane shuffles: no shared
// memory, no barrier, quick on CPU devices. C twin: run_linear.
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_shuffle : require
#include "common.glsl"
#include "linear.glsl"

layout(constant_id = 2) const int ROWS = 16; // a multiple of LANES

void main()
{
    const int GROUPS = ROWS / LANES;
    int lane = int(gl_SubgroupInvocationID);
    int first = int(gl_WorkGroupID.x) * ROWS;
    int n4 = int(gl_WorkGroupID.y) * LANES + lane;
    int last = int(p.rows) - 1, in4 = int(p.in4);
    int b = int(gl_WorkGroupID.y) * in4 * 4 * LANES + lane;
    int a[GROUPS];
    [[unroll]] for (int g = 0; g < GROUPS; g++)
        a[g] = min(first + g * LANES + lane, last) * int(p.in_stride4);
    // CPU devices store lane by lane, in order, and wait for each line of the
    // cache: fetch the lines of out ahead. The values are masked to zero.
    vec4 sum[ROWS];
    [[unroll]] for (int i = 0; i < ROWS; i++) {
        int at = min(first + i, last) * int(p.residual_stride4) + n4;
        sum[i] = uintBitsToFloat(floatBitsToUint(residual(at)) & p.zero);
    }

    for (int k = 0; k < in4; k++) {
        vec4 x[GROUPS], w[4];
        [[unroll]] for (int g = 0; g < GROUPS; g++)
            x[g] = inputs(a[g] + k);
        [[unroll]] for (int j = 0; j < 4; j++)
            w[j] = weight(b + j * LANES);
        b += 4 * LANES;
        [[unroll]] for (int i = 0; i < ROWS; i++)
            [[unroll]] for (int j = 0; j < 4; j++)
                sum[i] += w[j] *
                          subgroupShuffle(x[i / LANES][j], uint(i % LANES));
    }

    vec4 bias = weight(int(p.bias4) + n4);
    [[unroll]] for (int i = 0; i < ROWS; i++) {
        int row = first + i;
        if (row <= last && n4 < int(p.out4))
            outputs[row * int(p.out_stride4) + n4] =
                epilogue(sum[i] + bias, row, n4);
    }
}
