#version 450
// Of every cell with held[t][j] = 1, 0 or -1: out[t][3j + i] =
// out[t][3C + 3j + i] = (i == 1 - held[t][j] ? 1 : -1), and if MASKED
// out[t][6C + j] = 1. 2 is free: out stays.
// held (rows, C) int8, four to a word; out (rows, 6C or 7C), written float by
// float: four cells of the estimate are no whole texels. x: words, y: ROWS
// rows. C twin: cpu_hold.
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
    int cells = int(p.cells), at = row * int(p.out_stride);
    for (int i = 0; i < 3; i++) {
        float pixel = i == 1 - value ? 1.0 : -1.0;
        outputs[at + 3 * cell + i] = pixel;
        outputs[at + 3 * (cells + cell) + i] = pixel;
    }
    if (MASKED)
        outputs[at + 6 * cells + cell] = 1.0;
}

void main()
{
    int word = int(gl_GlobalInvocationID.x), cells = int(p.cells);
    if (4 * word >= cells)
        return;
    int first = int(gl_WorkGroupID.y) * ROWS;
    int end = min(first + ROWS, int(p.rows));
    for (int row = first; row < end; row++) {
        int bytes = int(held[row * int(p.held_stride4) + word]);
        for (int i = 0; i < 4; i++) {
            int value = bitfieldExtract(bytes, 8 * i, 8);
            if (value != 2 && 4 * word + i < cells)
                hold(row, 4 * word + i, value);
        }
    }
}
