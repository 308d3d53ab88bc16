/* The ops for the instructions that every CPU of the kind has: SSE2, NEON. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#if !defined(__clang__)
#pragma GCC optimize("fp-contract=fast") /* -std=c11 turns FMA off */
#pragma GCC optimize("no-math-errno") /* else no square root in vectors */
#endif

#define ND_LANES 4
#define ND_TILE_ROWS 4
#include "cpu_kernels.h"

const struct nd_cpu_kernels nd_cpu_baseline = {
    .name = "baseline",
    .run = ND_CPU_RUN_TABLE,
};
