/*
 * cpu_kernels.h - every op for one set of instructions
 *
 * In:      ND_LANES and ND_TILE_ROWS; see cpu_vector.h.
 * Out:     ND_CPU_RUN_TABLE, the functions of all ops by kind: run_<op>.
 * Errors:  an op without a function does not compile.
 * Memory:  none.
 * Threads: constants.
 * Python:  none.  Tests: test_ops.py
 *
 * A new op needs a file here, and a line in ND_OP_LIST of backend.h.
 */
#ifndef ND_ENGINE_CPU_KERNELS_H
#define ND_ENGINE_CPU_KERNELS_H

#include "cpu_attention.h"
#include "cpu_draw.h"
#include "cpu_linear.h"
#include "cpu_pixels.h"
#include "cpu_rows.h"

#define ND_CPU_RUN(name, member) [ND_OP_##name] = run_##member,
#define ND_CPU_RUN_TABLE                                                      \
    {                                                                         \
        ND_OP_LIST(ND_CPU_RUN)                                                \
    }

#endif
