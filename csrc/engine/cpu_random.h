/*
 * cpu_random.h - random numbers in vectors: sixteen Philox blocks at once
 *
 * In:      the step's key, a stream, a flow's id, the first block.
 * Out:     the blocks' 64 uniform or normal numbers, in order; as nd_uniform()
 *          and nd_normal() of rng.h, the latter but for the last bits.
 * Errors:  none.
 * Memory:  a few vectors on the stack.
 * Threads: pure functions.
 * Python:  none.  Tests: test_ops.py
 */
#ifndef ND_ENGINE_CPU_RANDOM_H
#define ND_ENGINE_CPU_RANDOM_H

#include "cpu_vector.h"
#include "rng.h"

#include <math.h>

/* Philox blocks that are made at once, and their numbers. */
enum { BLOCKS = 16, NUMBERS = 4 * BLOCKS };

/* words[i][b]: word i of the block b after the first; rng.c, in lanes. */
static void
philox_blocks(const struct nd_step *step, struct nd_philox_counter at,
              uint32_t words[4][BLOCKS])
{
    uint32_t *a = words[0], *b = words[1], *c = words[2], *d = words[3];
    uint32_t low = step->seed_low, high = step->seed_high;
    for (uint32_t i = 0; i < BLOCKS; i++) {
        a[i] = at.word[0] + i;
        b[i] = at.word[1];
        c[i] = at.word[2];
        d[i] = at.word[3];
    }
    for (int round = 0; round < 10; round++) {
        for (size_t i = 0; i < BLOCKS; i++) {
            uint64_t first = UINT64_C(0xD2511F53) * a[i];
            uint64_t second = UINT64_C(0xCD9E8D57) * c[i];
            a[i] = (uint32_t)(second >> 32) ^ b[i] ^ low;
            b[i] = (uint32_t)second;
            c[i] = (uint32_t)(first >> 32) ^ d[i] ^ high;
            d[i] = (uint32_t)first;
        }
        low += 0x9E3779B9;
        high += 0xBB67AE85;
    }
}

/*
 * ln u, u > 0, to about 1 ulp: u = 2^e m, m from sqrt(1/2) to sqrt(2), and a
 * polynomial in m - 1 (Cephes logf).
 */
ND_INLINE vector
logarithm(vector u)
{
    integers bits = (integers)u, power = (bits - 0x3F3504F3) >> 23;
    vector e = __builtin_convertvector(power, vector);
    vector x = (vector)(bits - (power << 23)) - 1.0f, z = x * x;
    vector p = x * 7.0376836292e-2f - 1.1514610310e-1f;
    p = p * x + 1.1676998740e-1f;
    p = p * x - 1.2420140846e-1f;
    p = p * x + 1.4249322787e-1f;
    p = p * x - 1.6668057665e-1f;
    p = p * x + 2.0000714765e-1f;
    p = p * x - 2.4999993993e-1f;
    p = p * x + 3.3333331174e-1f;
    p = p * x * z - e * 2.12194440e-4f - 0.5f * z;
    return x + p + e * 0.693359375f;
}

/*
 * Sine and cosine of 2 pi u, 0 <= u <= 1: u in quarters plus a rest of at
 * most an eighth, polynomials on the rest (Cephes sinf, cosf).
 */
ND_INLINE void
sine_cosine(vector u, vector *sine, vector *cosine)
{
    vector shifted = u * 4.0f + 12582912.0f;
    integers quarter = (integers)shifted, odd = -(quarter & 1);
    vector x = (u * 4.0f - (shifted - 12582912.0f)) * 1.57079632679f;
    vector z = x * x;
    vector s = z * -1.9515295891e-4f + 8.3321608736e-3f;
    s = (s * z - 1.6666654611e-1f) * z * x + x;
    vector c = z * 2.443315711809948e-5f - 1.388731625493765e-3f;
    c = (c * z + 4.166664568298827e-2f) * z * z - 0.5f * z + 1.0f;
    integers down = (quarter & 2) << 30, left = ((quarter + 1) & 2) << 30;
    *sine = (vector)((integers)choose(odd, c, s) ^ down);
    *cosine = (vector)((integers)choose(odd, s, c) ^ left);
}

/* Numbers 0 and 1 of blocks, from words 0 and 1; or 2 and 3. */
static void
box_muller(const uint32_t *radius, const uint32_t *angle, float *zero,
           float *one)
{
    for (size_t i = 0; i < BLOCKS; i++) {
        zero[i] = nd_uniform(radius[i]);
        one[i] = nd_uniform(angle[i]);
    }
    for (size_t i = 0; i < BLOCKS; i += LANES)
        store(zero + i, -2.0f * logarithm(load(zero + i)));
    for (size_t i = 0; i < BLOCKS; i++)
        zero[i] = sqrtf(zero[i]);
    for (size_t i = 0; i < BLOCKS; i += LANES) {
        vector sine, cosine, length = load(zero + i);
        sine_cosine(load(one + i), &sine, &cosine);
        store(zero + i, length * cosine);
        store(one + i, length * sine);
    }
}

/* to[4 i + j] = numbers[j][i] */
ND_INLINE void
interleave(float numbers[4][BLOCKS], float to[NUMBERS])
{
    for (size_t i = 0; i < BLOCKS; i++)
        for (size_t j = 0; j < 4; j++)
            to[4 * i + j] = numbers[j][i];
}

static void
make_uniforms(const struct nd_step *step, struct nd_philox_counter at,
              float uniforms[NUMBERS])
{
    uint32_t words[4][BLOCKS];
    float numbers[4][BLOCKS];
    philox_blocks(step, at, words);
    for (size_t j = 0; j < 4; j++)
        for (size_t i = 0; i < BLOCKS; i++)
            numbers[j][i] = nd_uniform(words[j][i]);
    interleave(numbers, uniforms);
}

static void
make_normals(const struct nd_step *step, struct nd_philox_counter at,
             float normals[NUMBERS])
{
    uint32_t words[4][BLOCKS];
    float numbers[4][BLOCKS];
    philox_blocks(step, at, words);
    box_muller(words[0], words[1], numbers[0], numbers[1]);
    box_muller(words[2], words[3], numbers[2], numbers[3]);
    interleave(numbers, normals);
}

#endif
