/*
 * threads.h - a pool of threads that share a list of items
 *
 * In:      a function and how many items it has; items are handed out one by
 *          one, in order, to whichever thread is free.
 * Out:     nd_threads_run() returns when all items are done.
 * Errors:  none: a thread that cannot be started leaves a smaller pool.
 * Memory:  the pool; nothing per run.
 * Threads: one caller at a time. After a fork the child starts its own
 *          threads at its first run.
 * Python:  _core.Model(threads=).  Tests: test_threads.py, drive_engine.c
 */
#ifndef ND_ENGINE_THREADS_H
#define ND_ENGINE_THREADS_H

#include <stddef.h>

enum { ND_THREADS_MOST = 256 };

struct nd_threads;

/* Does one item; worker < nd_threads_count() names the thread's scratch. */
typedef void nd_task(void *argument, size_t item, size_t worker);

/*
 * Threads that this process may use: NETDIFFUSION_THREADS if it is a number
 * from 1 up, else the CPUs of its affinity mask, cut to the cgroup's quota.
 */
size_t nd_threads_available(void);

/*
 * Whole CPUs of the least quota on the way from the cgroup to the root,
 * cgroup v2; 0: no quota. membership is /proc/self/cgroup, mount is
 * /sys/fs/cgroup, or what stands for them in a test.
 */
size_t nd_threads_quota(const char *membership, const char *mount);

/* A pool of count threads, the caller being one; NULL without memory. */
struct nd_threads *nd_threads_create(size_t count);
void nd_threads_destroy(struct nd_threads *threads);
size_t nd_threads_count(const struct nd_threads *threads);

void nd_threads_run(struct nd_threads *threads, nd_task *task, void *argument,
                    size_t items);

#endif
