#version 450
// The matrix product of linear.comp for GPUs: tiles in shared memory.
// weight (K up to a multiple of 16, columns up to one of 64) row-major, then
// bias. A workgroup of LANES = TILE_M TILE_N / 16 SPLIT invocations makes
// TILE_M x TILE_N of out, each invocation 4 x 4; x: rows, y: columns.
// K is cut into 4 parts, whose sums are added in order: one after the other,
// or side by side if SPLIT is 4. The result is the same.
// Needs nothing beyond Vulkan 1.1. C twin: run_linear.
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "linear.glsl"

ND_OUT(0, outputs);

layout(constant_id = 2) const int TILE_M = 64;
layout(constant_id = 4) const int TILE_N = 64; // divides 64
layout(constant_id = 5) const int SPLIT = 1;   // 1 or 4

const int PARTS = 4;
const int K4 = 4; // texels of K in a tile
const int PITCH = TILE_M + 1;
const int TEAM = LANES / SPLIT; // invocations that share a tile

shared float a[SPLIT * 16 * PITCH];
shared vec4 b[SPLIT * 4 * TILE_N];

void load(int id, int team, int first, int k0, int column4)
{
    for (int i = id; i < TILE_M * K4; i += TEAM) {
        int row = i / K4, k = i % K4;
        bool inside = first + row < int(p.rows) && k0 + k < int(p.in4);
        vec4 x = inside ?
            inputs((first + row) * int(p.in_stride4) + k0 + k) : vec4(0);
        for (int j = 0; j < 4; j++)
            a[(16 * team + 4 * k + j) * PITCH + row] = x[j];
    }
    for (int i = id; i < 4 * TILE_N; i += TEAM)
        b[team * 4 * TILE_N + i] = k0 < int(p.in4) ?
            weight((4 * k0 + i / (TILE_N / 4)) * int(p.panel_stride4) +
                   column4 + i % (TILE_N / 4)) : vec4(0);
}

void main()
{
    int id = int(gl_LocalInvocationID.x) % TEAM;
    int team = int(gl_LocalInvocationID.x) / TEAM;
    int first = int(gl_WorkGroupID.x) * TILE_M;
    int column4 = int(gl_WorkGroupID.y) * (TILE_N / 4);
    int m = id / (TILE_N / 4) * 4, n = id % (TILE_N / 4);
    int tiles = (int(p.in4) + K4 - 1) / K4, part = (tiles + PARTS - 1) / PARTS;
    vec4 total[4] = {vec4(0), vec4(0), vec4(0), vec4(0)}, sum[4];

    for (int from = team; from < PARTS; from += SPLIT) {
        [[unroll]] for (int i = 0; i < 4; i++)
            sum[i] = vec4(0);
        for (int t = 0; t < part; t++) {
            load(id, team, first, (from * part + t) * K4, column4);
            barrier();
            for (int k = 16 * team; k < 16 * team + 16; k++) {
                vec4 w = b[k * (TILE_N / 4) + n];
                [[unroll]] for (int i = 0; i < 4; i++)
                    sum[i] += a[k * PITCH + m + i] * w;
            }
            barrier();
        }
        if (SPLIT == 1)
            [[unroll]] for (int i = 0; i < 4; i++)
                total[i] += sum[i];
    }
    // Team after team adds its sums to those of the ones before, through b.
    if (SPLIT > 1)
        for (int turn = 0; turn < SPLIT; turn++) {
            if (team == turn)
                [[unroll]] for (int i = 0; i < 4; i++) {
                    vec4 before = turn == 0 ? vec4(0) : b[4 * id + i];
                    total[i] = before + sum[i];
                    b[4 * id + i] = total[i];
                }
            barrier();
        }
    if (team < SPLIT - 1)
        return;
    vec4 bias = weight(int(p.bias4) + column4 + n);
    for (int i = 0; i < 4; i++) {
        int row = first + m + i, n4 = column4 + n;
        if (row < int(p.rows) && n4 < int(p.out4))
            outputs[row * int(p.out_stride4) + n4] =
                epilogue(total[i] + bias, row, n4);
    }
}
