#version 450
// The matrix product of linear.comp for GPUs: tiles in shared memory.
// weight (K up to a multiple of 16, columns up to one of 64) row-major, then
// bias. One workgroup of LANES = TILE_M * TILE_N / 16 invocations makes
// TILE_M x TILE_N of out, each invocation 4 x 4; x: rows, y: columns.
// Needs nothing beyond Vulkan 1.1. C twin: cpu_linear.
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "linear.glsl"

layout(constant_id = 2) const int TILE_M = 64;
layout(constant_id = 4) const int TILE_N = 64; // divides 64

const int K4 = 4; // texels of K in a tile
const int PITCH = TILE_M + 1;

shared float a[16 * PITCH];
shared vec4 b[16 * TILE_N / 4];

void load(int first, int k0, int column4)
{
    int id = int(gl_LocalInvocationID.x);
    for (int i = id; i < TILE_M * K4; i += LANES) {
        int row = i / K4, k = i % K4;
        bool inside = first + row < int(p.rows) && k0 + k < int(p.in4);
        vec4 x = inside ?
            inputs((first + row) * int(p.in_stride4) + k0 + k) : vec4(0);
        for (int j = 0; j < 4; j++)
            a[(4 * k + j) * PITCH + row] = x[j];
    }
    for (int i = id; i < 16 * TILE_N / 4; i += LANES)
        b[i] = weight((4 * k0 + i / (TILE_N / 4)) * int(p.panel_stride4) +
                      column4 + i % (TILE_N / 4));
}

void main()
{
    int id = int(gl_LocalInvocationID.x);
    int first = int(gl_WorkGroupID.x) * TILE_M;
    int column4 = int(gl_WorkGroupID.y) * (TILE_N / 4);
    int m = id / (TILE_N / 4) * 4, n = id % (TILE_N / 4);
    vec4 sum[4] = {vec4(0), vec4(0), vec4(0), vec4(0)};

    for (int k0 = 0; k0 < int(p.in4); k0 += K4) {
        load(first, k0, column4);
        barrier();
        for (int k = 0; k < 16; k++) {
            vec4 w = b[k * (TILE_N / 4) + n];
            [[unroll]] for (int i = 0; i < 4; i++)
                sum[i] += a[k * PITCH + m + i] * w;
        }
        barrier();
    }

    vec4 bias = weight(int(p.bias4) + column4 + n);
    for (int i = 0; i < 4; i++) {
        int row = first + m + i, n4 = column4 + n;
        if (row < int(p.rows) && n4 < int(p.out4))
            outputs[row * int(p.out_stride4) + n4] =
                epilogue(sum[i] + bias, row, n4);
    }
}
