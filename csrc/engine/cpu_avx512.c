/* The ops for x86 with AVX512. System headers come before the pragma. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#if defined(__clang__)
#define ND_TARGET "avx512f,avx512dq,avx512vl,fma"
#pragma clang attribute push(__attribute__((target(ND_TARGET))),              \
                             apply_to = function)
#else
#pragma GCC target("avx512f,avx512dq,avx512vl,fma")
#endif
#if !defined(__clang__)
#pragma GCC optimize("fp-contract=fast") /* -std=c11 turns FMA off */
#pragma GCC optimize("no-math-errno") /* else no square root in vectors */
#endif

#define ND_LANES 16
#define ND_TILE_ROWS 12
#include "cpu_kernels.h"

const struct nd_cpu_kernels nd_cpu_avx512 = {
    .name = "avx512",
    .run = ND_CPU_RUN_TABLE,
};

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
