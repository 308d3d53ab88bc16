#version 450
// out[t] = sum_m softmax_m(q_t . k_m scale) v_m over the flow of t, a head at
// a time, with a running maximum (Milakov and Gimelshein; FlashAttention).
// qkv (T, 3 heads d), rotated; tiles: (first query, queries, first key, keys)
// of ROWS queries or fewer of one flow; x: heads, y: tiles. One subgroup per
// workgroup; a lane owns 4 keys, then HEAD4 / LANES texels of out.
// For CPU devices, as linear.comp. C twin: run_attention.
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_shuffle : require
#include "common.glsl"

layout(constant_id = 2) const int ROWS = 16; // a multiple of LANES
layout(constant_id = 3) const int HEAD4 = 16;

ND_IN(0, qkv)
ND_IN_UINT(1, tiles)
ND_OUT(0, outputs);
ND_PARAMS(nd_attention_params);

// Without a loop: the driver must see constant lanes.
float subgroup_max(float x)
{
    x = max(x, subgroupShuffleXor(x, 1u));
    x = max(x, subgroupShuffleXor(x, 2u));
    x = max(x, subgroupShuffleXor(x, 4u));
    return LANES == 8 ? x : max(x, subgroupShuffleXor(x, 8u));
}

float subgroup_sum(float x)
{
    x += subgroupShuffleXor(x, 1u);
    x += subgroupShuffleXor(x, 2u);
    x += subgroupShuffleXor(x, 4u);
    return LANES == 8 ? x : x + subgroupShuffleXor(x, 8u);
}

void main()
{
    const int GROUPS = ROWS / LANES;
    const int OWN = (HEAD4 + LANES - 1) / LANES;
    int lane = int(gl_SubgroupInvocationID);
    int head = int(gl_WorkGroupID.x), stride4 = int(p.stride4);
    uvec4 tile = tiles(int(gl_WorkGroupID.y));
    int queries = int(tile.y), keys = int(tile.w);
    int q_at = int(tile.x) * stride4 + head * HEAD4;
    int k_at = int(tile.z) * stride4 + (int(p.heads) + head) * HEAD4;
    int v_at = k_at + int(p.heads) * HEAD4;

    vec4 sum[ROWS][OWN];
    float top[ROWS], total[ROWS];
    [[unroll]] for (int i = 0; i < ROWS; i++) {
        top[i] = -1e30;
        total[i] = 0.0;
        [[unroll]] for (int o = 0; o < OWN; o++)
            sum[i][o] = vec4(0);
    }
    for (int block = 0; block < keys; block += 4 * LANES) {
        int mine = block + 4 * lane, k_row[4];
        vec4 s[ROWS];
        [[unroll]] for (int c = 0; c < 4; c++)
            k_row[c] = k_at + min(mine + c, keys - 1) * stride4;
        [[unroll]] for (int i = 0; i < ROWS; i++)
            s[i] = vec4(0);
        for (int d = 0; d < HEAD4; d++) {
            vec4 q[GROUPS], k[4];
            [[unroll]] for (int g = 0; g < GROUPS; g++)
                q[g] = qkv(q_at + d +
                           min(g * LANES + lane, queries - 1) * stride4);
            [[unroll]] for (int c = 0; c < 4; c++)
                k[c] = qkv(k_row[c] + d);
            mat4 kt = transpose(mat4(k[0], k[1], k[2], k[3]));
            [[unroll]] for (int i = 0; i < ROWS; i++)
                [[unroll]] for (int j = 0; j < 4; j++)
                    s[i] += kt[j] * subgroupShuffle(q[i / LANES][j],
                                                    uint(i % LANES));
        }
        bvec4 inside = lessThan(ivec4(mine) + ivec4(0, 1, 2, 3), ivec4(keys));
        [[unroll]] for (int i = 0; i < ROWS; i++) {
            s[i] = mix(vec4(-1e30), s[i] * p.scale, inside);
            float old = top[i];
            top[i] = max(old, subgroup_max(max(max(s[i].x, s[i].y),
                                               max(s[i].z, s[i].w))));
            float shrink = exp(old - top[i]);
            s[i] = exp(s[i] - top[i]);
            total[i] = total[i] * shrink + dot(s[i], vec4(1));
            [[unroll]] for (int o = 0; o < OWN; o++)
                sum[i][o] *= shrink;
        }
        int lanes = min(LANES, (keys - block + 3) / 4);
        for (int from = 0; from < lanes; from++) {
            vec4 v[4][OWN];
            [[unroll]] for (int c = 0; c < 4; c++)
                [[unroll]] for (int o = 0; o < OWN; o++)
                    v[c][o] = qkv(v_at + min(lane + o * LANES, HEAD4 - 1) +
                        min(block + 4 * from + c, keys - 1) * stride4);
            [[unroll]] for (int i = 0; i < ROWS; i++)
                [[unroll]] for (int c = 0; c < 4; c++) {
                    float weight = subgroupShuffle(s[i][c], uint(from));
                    [[unroll]] for (int o = 0; o < OWN; o++)
                        sum[i][o] += weight * v[c][o];
                }
        }
    }
    [[unroll]] for (int i = 0; i < ROWS; i++) {
        float factor = 1.0 / subgroup_sum(total[i]);
        int to = (int(tile.x) + i) * int(p.out_stride4) + head * HEAD4;
        [[unroll]] for (int o = 0; o < OWN; o++)
            if (i < queries && lane + o * LANES < HEAD4)
                outputs[to + lane + o * LANES] = sum[i][o] * factor;
    }
}
