#version 450
// cells[t][j] = 1 - colour: the colour of the largest logit if
// step.temperature is 0, else drawn from softmax(logits / temperature).
// logits (T, 3C); cells (T, C) int8, four to a word; tokens, flows (T, 4),
// (F, 4). x: four cells, y: rows. C twin: cpu_draw.
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "philox.glsl"

ND_IN(0, logits)
ND_IN_UINT(1, tokens)
ND_IN_UINT(2, flows)
layout(binding = ND_BIND_OUT, std430) writeonly buffer cells_block {
    uint cells[];
};
ND_STEP;
ND_PARAMS(nd_draw_params);

ivec4 largest(vec4 l0, vec4 l1, vec4 l2)
{
    vec4 a = vec4(l0.x, l0.w, l1.z, l2.y), b = vec4(l0.y, l1.x, l1.w, l2.z);
    vec4 c = vec4(l0.z, l1.y, l2.x, l2.w);
    ivec4 best = ivec4(greaterThan(b, a));
    return mix(best, ivec4(2), greaterThan(c, max(a, b)));
}

void main()
{
    int word = int(gl_GlobalInvocationID.x), k = 3 * word;
    int row = int(gl_WorkGroupID.y), last = int(p.stride4) - 1;
    if (4 * word >= int(p.cells))
        return;
    int at = row * int(p.stride4);
    uvec4 token = tokens(row * TABLE_STRIDE4);
    uvec2 id = flows(int(token.x) * TABLE_STRIDE4).zw;
    uvec2 key = uvec2(step_now.seed_low, step_now.seed_high);
    vec4 l0 = logits(at + k), l1 = logits(at + min(k + 1, last));
    vec4 l2 = logits(at + min(k + 2, last));
    ivec4 colour;
    if (step_now.temperature == 0.0) {
        colour = largest(l0, l1, l2);
    } else {
        vec4 u = uniforms(token.y * p.cells + 4 * uint(word), id,
                          step_now.draw_stream, key);
        float cold = 1.0 / step_now.temperature;
        colour = draw(l0 * cold, l1 * cold, l2 * cold, u);
    }
    ivec4 bytes = (1 - colour) & 255;
    cells[row * int(p.cells_stride4) + word] = uint(
        bytes.x | bytes.y << 8 | bytes.z << 16 | bytes.w << 24);
}
