#version 450
// Draws each cell from softmax(logits) of its three colours;
// x = (colour drawn ? 1 : -1) + step.noise_scale * normal.
// logits, x (T, 3C); tokens, flows (T, 4), (F, 4). x: four cells, y: rows.
// C twin: cpu_renoise.
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"
#include "philox.glsl"

ND_IN(0, logits)
ND_IN_UINT(1, tokens)
ND_IN_UINT(2, flows)
ND_OUT(0, out_x);
ND_STEP;
ND_PARAMS(nd_draw_params);

void main()
{
    int cell = 4 * int(gl_GlobalInvocationID.x), k = cell / 4 * 3;
    int row = int(gl_WorkGroupID.y), last = int(p.stride4) - 1;
    if (cell >= int(p.cells))
        return;
    int at = row * int(p.stride4);
    uvec4 token = tokens(row * TABLE_STRIDE4);
    uvec2 id = flows(int(token.x) * TABLE_STRIDE4).zw;
    uvec2 key = uvec2(step_now.seed_low, step_now.seed_high);
    vec4 u = uniforms(token.y * p.cells + uint(cell), id,
                      step_now.draw_stream, key);
    ivec4 c = draw(logits(at + k), logits(at + min(k + 1, last)),
                   logits(at + min(k + 2, last)), u);
    ivec4 drawn[3] = {ivec4(c.xxx, c.y), ivec4(c.yy, c.zz),
                      ivec4(c.z, c.www)};
    const ivec4 colour[3] = {ivec4(0, 1, 2, 0), ivec4(1, 2, 0, 1),
                             ivec4(2, 0, 1, 2)};
    [[unroll]] for (int i = 0; i < 3; i++) {
        uint element = 3 * (token.y * p.cells + uint(cell)) + 4 * uint(i);
        vec4 n = normals(element, id, step_now.noise_stream, key);
        vec4 pixel = mix(vec4(-1), vec4(1), equal(drawn[i], colour[i]));
        if (k + i <= last)
            out_x[at + k + i] = pixel + step_now.noise_scale * n;
    }
}
