#version 450
// cells[t][j] = 1 - colour: the colour of the largest logit if
// step.temperature is 0, else drawn from softmax(logits / temperature).
// logits (T, 2S); cells (T, C) int8, four to a word; tokens, flows (T, 4),
// (F, 4). x: four cells, y: rows. C twin: run_draw.
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

// The first of equals; the third logit is 0.
ivec4 largest(vec4 l0, vec4 l1)
{
    ivec4 best = ivec4(greaterThan(l1, l0));
    return mix(best, ivec4(2), lessThan(max(l0, l1), vec4(0)));
}

void main()
{
    int k = int(gl_GlobalInvocationID.x), row = int(gl_WorkGroupID.y);
    int plane4 = int(p.plane4), at = row * int(p.e_stride4) + k;
    if (k >= plane4)
        return;
    uvec4 token = tokens(row * TABLE_STRIDE4);
    uvec2 id = flows(int(token.x) * TABLE_STRIDE4).zw;
    uvec2 key = uvec2(step_now.seed_low, step_now.seed_high);
    vec4 l0 = logits(at), l1 = logits(at + plane4);
    ivec4 colour;
    if (step_now.temperature == 0.0) {
        colour = largest(l0, l1);
    } else {
        uint block = token.y * p.plane4 + uint(k);
        vec4 u = uniforms(block, id, step_now.draw_stream, key);
        float cold = 1.0 / step_now.temperature;
        colour = draw(l0 * cold, l1 * cold, u);
    }
    ivec4 bytes = (1 - colour) & 255;
    cells[row * plane4 + k] = uint(
        bytes.x | bytes.y << 8 | bytes.z << 16 | bytes.w << 24);
}
