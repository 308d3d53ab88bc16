/*
 * cpu_vector.h - vectors of floats and the few functions the ops need on them
 *
 * In:      ND_LANES (16, 8 or 4 floats a vector) and ND_TILE_ROWS, defined by
 *          the file that includes this one, after its target pragma.
 * Out:     `vector`, loads and stores, exp, silu, gelu, sums and maxima.
 * Errors:  none.
 * Memory:  none.
 * Threads: pure functions.
 * Python:  none.  Tests: test_ops.py (each instruction set)
 *
 * GCC's and clang's vector extension: no intrinsics, so one source serves
 * AVX-512, AVX2, SSE2 and NEON. A sum of a row adds lane by lane, then the
 * lanes by halves: its order depends on the length of the row alone.
 */
#ifndef ND_ENGINE_CPU_VECTOR_H
#define ND_ENGINE_CPU_VECTOR_H

#include "cpu.h"

#include <stdint.h>

enum { LANES = ND_LANES, TILE_ROWS = ND_TILE_ROWS };

/* may_alias: they are laid over arrays of float. */
typedef float vector
    __attribute__((vector_size(4 * ND_LANES), may_alias, aligned(4)));
typedef int32_t integers __attribute__((vector_size(4 * ND_LANES), may_alias));

#define ND_INLINE static inline __attribute__((always_inline))

ND_INLINE vector
load(const float *from)
{
    return *(const vector *)from;
}

ND_INLINE void
store(float *to, vector value)
{
    *(vector *)to = value;
}

ND_INLINE vector
fill(float value)
{
    return (vector){0} + value;
}

ND_INLINE vector
choose(integers mask, vector yes, vector no)
{
    return (vector)((mask & (integers)yes) | (~mask & (integers)no));
}

ND_INLINE vector
larger(vector a, vector b)
{
    return choose((integers)(a > b), a, b);
}

ND_INLINE vector
smaller(vector a, vector b)
{
    return choose((integers)(a < b), a, b);
}

/*
 * e^x to about 2 ulp, -87 <= x <= 88: x = n ln 2 + r, |r| <= ln 2 / 2, e^r by
 * a polynomial (Cephes expf), times 2^n by adding n to its exponent. Adding
 * 1.5 * 2^23 rounds, and leaves n in the low bits.
 */
ND_INLINE vector
exponential_within(vector x)
{
    vector shifted = x * 1.44269504f + 12582912.0f;
    vector n = shifted - 12582912.0f;
    vector r = x - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    vector p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    return (vector)((integers)p + ((integers)shifted << 23));
}

ND_INLINE vector
exponential(vector x)
{
    return exponential_within(larger(smaller(x, fill(88.0f)), fill(-87.0f)));
}

ND_INLINE vector
silu(vector x)
{
    return x / (1.0f + exponential(-x));
}

/* tanh form: 0.5 (1 + tanh u) = 1 / (1 + e^-2u). */
ND_INLINE vector
gelu(vector x)
{
    vector u = 1.5957691216f * (x + 0.044715f * x * x * x);
    return x / (1.0f + exponential(-u));
}

ND_INLINE float
add_lanes(vector x)
{
    float sums[LANES];
    store(sums, x);
#pragma GCC unroll 4
    for (int half = LANES / 2; half > 0; half /= 2)
#pragma GCC unroll 8
        for (int i = 0; i < half; i++)
            sums[i] += sums[i + half];
    return sums[0];
}

ND_INLINE float
largest_lane(vector x)
{
    float most[LANES];
    store(most, x);
#pragma GCC unroll 4
    for (int half = LANES / 2; half > 0; half /= 2)
#pragma GCC unroll 8
        for (int i = 0; i < half; i++)
            most[i] = most[i] > most[i + half] ? most[i] : most[i + half];
    return most[0];
}

#endif
