#version 450
// Of every cell with held[t][j] = 1, 0 or -1: out[t][i S + j] =
// out[t][(3 + i) S + j] = (i == 1 - held[t][j] ? 1 : -1), and if MASKED
// out[t][6 S + j] = 1. 2 is free: out stays.
// held (rows, C) int8, four to a word; out (rows, 6S or 7S), written float by
// float. x: words, y: ROWS rows. C twin: run_hold.
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

layout(constant_id = 2) const int ROWS = 16;
layout(constant_id = 3) const bool MASKED = false;

layout(binding = ND_BIND_WORDS, std430) readonly buffer held_block {
    uint held[];
};
layout(binding = ND_BIND_OUT, std430) writeonly buffer outputs_block {
    float outputs[];
};
ND_PARAMS(nd_hold_params);

void hold(int row, int cell, int value)
{
    int plane = 4 * int(p.plane4), at = row * int(p.out_stride) + cell;
    for (int i = 0; i < 3; i++) {
        float pixel = i == 1 - value ? 1.0 : -1.0;
        outputs[at + i * plane] = pixel;
        outputs[at + (3 + i) * plane] = pixel;
    }
    if (MASKED)
        outputs[at + 6 * plane] = 1.0;
}

void main()
{
    int word = int(gl_GlobalInvocationID.x), cells = int(p.cells);
    if (4 * word >= cells)
        return;
    int first = int(gl_WorkGroupID.y) * ROWS;
    int end = min(first + ROWS, int(p.rows));
    for (int row = first; row < end; row++) {
        int bytes = int(held[row * int(p.plane4) + word]);
        for (int i = 0; i < 4; i++) {
            int value = bitfieldExtract(bytes, 8 * i, 8);
            if (value != 2 && 4 * word + i < cells)
                hold(row, 4 * word + i, value);
        }
    }
}
