/* The ops for x86 with AVX2. System headers come before the pragma. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(                                            \
    __attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif
#if !defined(__clang__)
#pragma GCC optimize("fp-contract=fast") /* -std=c11 turns FMA off */
#pragma GCC optimize("no-math-errno") /* else no square root in vectors */
#endif

#define ND_LANES 8
#define ND_TILE_ROWS 6
#include "cpu_kernels.h"

const struct nd_cpu_kernels nd_cpu_avx2 = {
    .name = "avx2",
    .run = ND_CPU_RUN_TABLE,
};

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
