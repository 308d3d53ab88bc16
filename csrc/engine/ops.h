/*
 * ops.h - one function per op: check every shape, add it to a list
 *
 * In:      the op's struct of backend.h, with tensors and weights of one
 *          backend.
 * Out:     a list that program_create of that backend takes.
 * Errors:  ND_ARGUMENT, naming the op and the two numbers that differ;
 *          ND_NO_MEMORY. After an error the list is as it was.
 * Memory:  the list grows; nd_ops_free() frees it.
 * Threads: pure functions on the caller's list.
 * Python:  none.  Tests: test_ops.py
 */
#ifndef ND_ENGINE_OPS_H
#define ND_ENGINE_OPS_H

#include "backend.h"

/* Starts as all zeros. */
struct nd_ops {
    struct nd_op *ops;
    size_t count, capacity;
};

void nd_ops_free(struct nd_ops *list);

/* nd_op_linear(list, const struct nd_linear *, err) and so on. */
#define X(name, member)                                                       \
    enum nd_status nd_op_##member(struct nd_ops *list,                        \
                                  const struct nd_##member *op,               \
                                  struct nd_error *err);
ND_OP_LIST(X)
#undef X

#endif
