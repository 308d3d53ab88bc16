#version 450
// The attention of attention.comp for GPUs: one invocation per query, keys
// and values in shared memory, LANES at a time.
// qkv (T, 3 heads d), rotated; tiles: (first query, queries, first key, keys)
// of LANES queries or fewer of one flow; x: heads, y: tiles.
// Needs nothing beyond Vulkan 1.1. C twin: run_attention.
#extension GL_GOOGLE_include_directive : require
#include "common.glsl"

layout(constant_id = 2) const int KEYS = 16; // of one load
layout(constant_id = 3) const int HEAD4 = 16;

ND_IN(0, qkv)
ND_IN_UINT(1, tiles)
ND_OUT(0, outputs);
ND_PARAMS(nd_attention_params);

shared vec4 k[KEYS * HEAD4];
shared vec4 v[KEYS * HEAD4];

void main()
{
    int id = int(gl_LocalInvocationID.x);
    int head = int(gl_WorkGroupID.x), stride4 = int(p.stride4);
    uvec4 tile = tiles(int(gl_WorkGroupID.y));
    int queries = int(tile.y), keys = int(tile.w);
    int at = (int(tile.x) + min(id, queries - 1)) * stride4 + head * HEAD4;
    int k_at = int(tile.z) * stride4 + (int(p.heads) + head) * HEAD4;
    int v_at = k_at + int(p.heads) * HEAD4;
    vec4 q[HEAD4], sum[HEAD4];
    float top = -1e30, total = 0.0;
    for (int d = 0; d < HEAD4; d++) {
        q[d] = qkv(at + d) * p.scale;
        sum[d] = vec4(0);
    }
    for (int block = 0; block < keys; block += KEYS) {
        int n = min(KEYS, keys - block);
        for (int i = id; i < n * HEAD4; i += LANES) {
            int from = (block + i / HEAD4) * stride4 + i % HEAD4;
            k[i] = qkv(k_at + from);
            v[i] = qkv(v_at + from);
        }
        barrier();
        for (int m = 0; m < n; m++) {
            vec4 s4 = vec4(0);
            for (int d = 0; d < HEAD4; d++)
                s4 += q[d] * k[m * HEAD4 + d];
            float s = dot(s4, vec4(1)), old = top;
            top = max(top, s);
            float shrink = exp(old - top), weight = exp(s - top);
            total = total * shrink + weight;
            for (int d = 0; d < HEAD4; d++)
                sum[d] = sum[d] * shrink + weight * v[m * HEAD4 + d];
        }
        barrier();
    }
    if (id < queries) {
        int to = (int(tile.x) + id) * int(p.out_stride4) + head * HEAD4;
        for (int d = 0; d < HEAD4; d++)
            outputs[to + d] = sum[d] / total;
    }
}
