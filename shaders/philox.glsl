// philox.glsl - Philox4x32-10 (Salmon et al., SC'11) and Box-Muller.
// C twin: csrc/engine/rng.c. log, sin and cos are written out because
// Vulkan lets a driver be off by 2^-11 there.

uvec4 philox(uvec4 counter, uvec2 key)
{
    for (int round = 0; round < 10; round++) {
        uint high0, low0, high1, low1;
        umulExtended(0xD2511F53u, counter.x, high0, low0);
        umulExtended(0xCD9E8D57u, counter.z, high1, low1);
        counter = uvec4(high1 ^ counter.y ^ key.x, low1,
                        high0 ^ counter.w ^ key.y, low0);
        key += uvec2(0x9E3779B9u, 0xBB67AE85u);
    }
    return counter;
}

vec4 uniform_of(uvec4 v)
{
    return (vec4(v >> 8) + 0.5) * 5.9604644775390625e-8; // 2^-24
}

// Natural logarithm of 0 < u < 1, to 2 ulp: u = 2^k m, m in [.707, 1.414).
vec2 log_of(vec2 u)
{
    ivec2 bits = floatBitsToInt(u);
    ivec2 k = (bits - 0x3F3504F3) >> 23;
    vec2 m = intBitsToFloat(bits - (k << 23));
    vec2 s = (m - 1.0) / (m + 1.0), z = s * s;
    vec2 series = z * (0.333333333 + z * (0.2 + z * (0.142857143 +
                  z * (0.111111111 + z * 0.0909090909))));
    return vec2(k) * 0.693147181 + 2.0 * (s + s * series);
}

// cos and sin of 2 pi u, 0 < u < 1: exact reduction to an eighth turn.
void turn(vec2 u, out vec2 cosine, out vec2 sine)
{
    vec2 quarter = floor(u * 4.0 + 0.5);
    vec2 x = (u - quarter * 0.25) * 6.283185307, z = x * x;
    vec2 s = x + x * z * (-1.6666666667e-1 + z * (8.3333333333e-3 +
             z * (-1.9841269841e-4 + z * 2.7557319224e-6)));
    vec2 c = 1.0 + z * (-0.5 + z * (4.1666666667e-2 +
             z * (-1.3888888889e-3 + z * 2.4801587302e-5)));
    ivec2 q = ivec2(quarter) & 3;
    bvec2 swap = equal(q & 1, ivec2(1));
    cosine = mix(c, s, swap) * mix(vec2(1), vec2(-1),
             equal((q + 1) & 2, ivec2(2)));
    sine = mix(s, c, swap) * mix(vec2(1), vec2(-1), equal(q & 2, ivec2(2)));
}

vec4 normal_of(uvec4 v)
{
    vec4 u = uniform_of(v);
    vec2 radius = sqrt(max(vec2(0), -2.0 * log_of(u.xz))), c, s;
    turn(u.yw, c, s);
    return vec4(radius.x * c.x, radius.x * s.x, radius.y * c.y,
                radius.y * s.y);
}

// Four normals, or uniforms: a block of a stream; id is the flow id.
vec4 normals(uint block, uvec2 id, uint stream, uvec2 key)
{
    return normal_of(philox(uvec4(block, id, stream), key));
}

vec4 uniforms(uint block, uvec2 id, uint stream, uvec2 key)
{
    return uniform_of(philox(uvec4(block, id, stream), key));
}

// Colours of four cells drawn by u from softmax(l0, l1, 0).
ivec4 draw(vec4 l0, vec4 l1, vec4 u)
{
    vec4 top = max(max(l0, l1), vec4(0));
    vec4 w0 = exp(l0 - top), w1 = exp(l1 - top);
    vec4 at = u * (w0 + w1 + exp(-top));
    return ivec4(greaterThanEqual(at, w0)) +
           ivec4(greaterThanEqual(at, w0 + w1));
}
