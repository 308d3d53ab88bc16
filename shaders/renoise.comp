#version 450
// Draws each cell from softmax(logits) of its three colours;
// x = (colour drawn ? 1 : -1) + step.noise_scale * normal.
// logits (T, 2S), x (T, 3S); tokens, flows (T, 4), (F, 4). x: texels of a
// plane, y: rows. C twin: run_renoise.
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
    int k = int(gl_GlobalInvocationID.x), row = int(gl_WorkGroupID.y);
    int plane4 = int(p.plane4), at = row * int(p.e_stride4) + k;
    if (k >= plane4)
        return;
    uvec4 token = tokens(row * TABLE_STRIDE4);
    uvec2 id = flows(int(token.x) * TABLE_STRIDE4).zw;
    uvec2 key = uvec2(step_now.seed_low, step_now.seed_high);
    uint block = token.y * p.plane4 + uint(k);
    vec4 u = uniforms(block, id, step_now.draw_stream, key);
    ivec4 drawn = draw(logits(at), logits(at + plane4), u);
    block += 2 * token.y * p.plane4;
    [[unroll]] for (int c = 0; c < 3; c++) {
        vec4 n = normals(block + uint(c * plane4), id, step_now.noise_stream,
                         key);
        vec4 pixel = mix(vec4(-1), vec4(1), equal(drawn, ivec4(c)));
        out_x[row * int(p.x_stride4) + c * plane4 + k] =
            pixel + step_now.noise_scale * n;
    }
}
