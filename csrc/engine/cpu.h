/*
 * cpu.h - the backend in C: specification of every op, and fast without a GPU
 *
 * In:      what backend.h says.
 * Out:     a backend whose programs run at once, on a pool of threads.
 * Errors:  ND_NO_MEMORY; ND_DEVICE for instructions that this CPU lacks.
 * Memory:  tensors and weights in large pages, aligned to 64 bytes; scratch
 *          per thread.
 * Threads: as backend.h; results do not depend on the number of threads, and
 *          a row's result does not depend on the other rows: every sum runs
 *          in one fixed order, chosen by its length alone.
 * Python:  _core.Model(device="cpu").  Tests: test_ops.py
 *
 * The ops are written once, with the compiler's vector extension
 * (cpu_vector.h), and compiled per instruction set by cpu_avx512.c,
 * cpu_avx2.c and cpu_baseline.c; the best that the CPU has is taken. How a
 * program is shared among threads stands in cpu_program.c.
 */
#ifndef ND_ENGINE_CPU_H
#define ND_ENGINE_CPU_H

#include "backend.h"

/* Columns of a weight panel, rows of a block of work, most rows of a tile. */
enum { ND_PANEL = 32, ND_ROW_BLOCK = 96, ND_TILE_MOST = 12 };

/* Rows that LINEAR goes through with one panel: each reads it from memory. */
enum { ND_LINEAR_ROWS = 264 };

/* Widest head that ops.c lets pass. */
enum { ND_HEAD_MOST = 256 };

struct nd_cpu_block; /* of memory, cpu_memory.c */

struct nd_cpu_tensor {
    struct nd_tensor base;
    struct nd_cpu_block *block;
    void *data;
};

/*
 * Panels [out / 32][in][32], zeros past out, then the bias, padded the same
 * way: a panel is read front to back once for each tile of rows.
 */
struct nd_cpu_weight {
    struct nd_weight base;
    struct nd_cpu_block *block;
    size_t panels;
    float *data;
    const float *bias;
};

static inline float *
nd_cpu_floats(const struct nd_tensor *tensor)
{
    return ((const struct nd_cpu_tensor *)(const void *)tensor)->data;
}

static inline const uint32_t *
nd_cpu_words(const struct nd_tensor *tensor)
{
    return ((const struct nd_cpu_tensor *)(const void *)tensor)->data;
}

static inline int8_t *
nd_cpu_cells(const struct nd_tensor *tensor)
{
    return ((const struct nd_cpu_tensor *)(const void *)tensor)->data;
}

/* ATTENTION: up to ND_ROW_BLOCK queries of one flow. */
struct nd_cpu_queries {
    uint32_t flow, packets; /* the flow's first token, its packets */
    uint32_t first, count;  /* packets that ask */
};

/*
 * The part of an op that a thread does at once: rows [first, end), and of
 * LINEAR the panels [column, column_end). For ATTENTION first and end count
 * blocks of queries, column and column_end heads.
 */
struct nd_cpu_part {
    size_t first, end, column, column_end;
};

/* What a part is given beside its op. */
struct nd_cpu_context {
    const struct nd_step *step;
    const struct nd_cpu_queries *queries;
    float *scratch; /* of the thread, for ATTENTION */
};

typedef void nd_cpu_run(const struct nd_op *op, struct nd_cpu_part part,
                        const struct nd_cpu_context *context);

/* What is compiled per instruction set. */
struct nd_cpu_kernels {
    const char *name; /* "avx512", "avx2", "baseline" */
    nd_cpu_run *run[ND_OP_COUNT];
};

#if defined(__x86_64__)
extern const struct nd_cpu_kernels nd_cpu_avx512, nd_cpu_avx2;
#endif
extern const struct nd_cpu_kernels nd_cpu_baseline;

struct nd_threads;

struct nd_cpu {
    struct nd_backend base;
    const struct nd_cpu_kernels *kernels;
    struct nd_threads *threads;
    struct nd_cpu_block *blocks;
    struct nd_cpu_block *scratch_block;
    float *scratch; /* scratch_size floats for each thread */
    size_t scratch_size;
};

/* cpu_program.c: the backend's functions of the same names. */
enum nd_status nd_cpu_program_create(struct nd_backend *backend,
                                     const struct nd_op *ops, size_t n_ops,
                                     struct nd_program **program,
                                     struct nd_error *err);
void nd_cpu_program_destroy(struct nd_backend *backend,
                            struct nd_program *program);
enum nd_status nd_cpu_program_run(struct nd_backend *backend,
                                  struct nd_program *program,
                                  const struct nd_step *step,
                                  struct nd_error *err);

/*
 * cpu_memory.c: zeros, aligned to 64 bytes; NULL without memory. What is kept,
 * weights and scratch, lies apart, so what a batch takes goes with it.
 */
void *nd_cpu_memory_new(struct nd_cpu *cpu, bool kept, size_t count,
                        size_t size, struct nd_cpu_block **block);
void nd_cpu_memory_free(struct nd_cpu *cpu, struct nd_cpu_block *block,
                        void *memory);

/*
 * A backend on count threads (0: as nd_threads_available). instructions names
 * kernels ("avx2"), or NULL for the best that the CPU has.
 */
enum nd_status nd_cpu_backend_create(size_t count, const char *instructions,
                                     struct nd_backend **backend,
                                     struct nd_error *err);

#endif
