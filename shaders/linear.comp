#version 450
// out[r][n] = epilogue(sum_k in[r][k] W[n][k] + bias[n])
// in (rows, K); weight panels [N / (4 LANES)][K][LANES] texels of 4 columns,
// then bias; residual (rows, N); modulation (F, ...); tokens (T, 4).
// One subgroup makes ROWS x PANELS of out; x: panels, y: rows. A lane owns 4
// columns of each panel, rows are broadcast by constant-lane shuffles: no
// shared memory, no barrier, quick on CPU devices. C twin: run_linear.
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_shuffle : require
#extension GL_EXT_shader_explicit_arithmetic_types_int64 : require
#include "common.glsl"
#include "linear.glsl"

layout(constant_id = 2) const int ROWS = 16; // a multiple of LANES
layout(constant_id = 4) const int PANELS = 1;

ND_OUT_PAIRS(0, outputs);

u64vec2 pairs(vec4 y)
{
    uvec4 bits = floatBitsToUint(y);
    return u64vec2(packUint2x32(bits.xy), packUint2x32(bits.zw));
}

// CPU devices store in order and wait for each line of the cache: fetch the
// lines of out ahead, 4 texels each. The sum of the values is masked to zero.
vec4 fetch_ahead(int first, int last, int n4)
{
    const int LINES = PANELS * LANES / 4; // of a row
    vec4 sum = vec4(0);
    [[unroll]] for (int i = 0; i < ROWS * LINES; i += LANES) {
        int line = i + int(gl_SubgroupInvocationID);
        int row = min(first + line / LINES, last);
        sum += residual(row * int(p.residual_stride4) + n4 +
                        line % LINES * 4);
    }
    return uintBitsToFloat(floatBitsToUint(sum) & p.zero);
}

void main()
{
    const int GROUPS = ROWS / LANES;
    int lane = int(gl_SubgroupInvocationID);
    int first = int(gl_WorkGroupID.y) * ROWS;
    int first4 = int(gl_WorkGroupID.x) * PANELS * LANES, n4 = first4 + lane;
    int last = int(p.rows) - 1, in4 = int(p.in4);
    int b = first4 * in4 * 4 + lane, panel = in4 * 4 * LANES;
    int a[GROUPS];
    [[unroll]] for (int g = 0; g < GROUPS; g++)
        a[g] = min(first + g * LANES + lane, last) * int(p.in_stride4);
    vec4 zero = fetch_ahead(first, last, first4), sum[ROWS][PANELS];
    [[unroll]] for (int i = 0; i < ROWS; i++)
        [[unroll]] for (int v = 0; v < PANELS; v++)
            sum[i][v] = zero;

    for (int k = 0; k < in4; k++) {
        vec4 x[GROUPS], w[4][PANELS];
        [[unroll]] for (int g = 0; g < GROUPS; g++)
            x[g] = inputs(a[g] + k);
        [[unroll]] for (int j = 0; j < 4; j++)
            [[unroll]] for (int v = 0; v < PANELS; v++)
                w[j][v] = weight(b + v * panel + j * LANES);
        b += 4 * LANES;
        [[unroll]] for (int i = 0; i < ROWS; i++)
            [[unroll]] for (int j = 0; j < 4; j++) {
                float y = subgroupShuffle(x[i / LANES][j], uint(i % LANES));
                [[unroll]] for (int v = 0; v < PANELS; v++)
                    sum[i][v] += w[j][v] * y;
            }
    }

    [[unroll]] for (int v = 0; v < PANELS; v++, n4 += LANES) {
        vec4 bias = weight(int(p.bias4) + n4);
        [[unroll]] for (int i = 0; i < ROWS; i++) {
            int row = first + i;
            if (row <= last && n4 < int(p.out4))
                outputs[row * int(p.out_stride4) + n4] =
                    pairs(epilogue(sum[i][v] + bias, row, n4));
        }
    }
}
