/*
 * The pool without Python: what a cgroup allows, and that every item is done
 * once, on any number of threads, run after run. test_threads.py runs it.
 */
#include "engine/threads.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ITEMS = 1000, RUNS = 300 };

static atomic_uint done[ITEMS];

static void
count(void *argument, size_t item, size_t worker)
{
    const size_t *threads = argument;
    if (worker >= *threads)
        abort();
    atomic_fetch_add(&done[item], 1);
}

/* Runs of few and of many items; now and then the workers fall asleep. */
static void
run_pool(size_t threads)
{
    struct nd_threads *pool = nd_threads_create(threads);
    unsigned expected[ITEMS] = {0};
    if (pool == NULL || nd_threads_count(pool) != threads)
        abort();
    for (size_t run = 0; run < RUNS; run++) {
        size_t items = run * 7 % ITEMS;
        if (run % 50 == 0)
            nanosleep(&(struct timespec){0, 2000000}, NULL);
        nd_threads_run(pool, count, &threads, items);
        for (size_t i = 0; i < items; i++)
            expected[i]++;
    }
    nd_threads_destroy(pool);
    for (size_t i = 0; i < ITEMS; i++)
        if (atomic_exchange(&done[i], 0) != expected[i])
            abort();
}

int
main(int argc, char **argv)
{
    if (argc == 3) {
        printf("%zu\n", nd_threads_quota(argv[1], argv[2]));
        return 0;
    }
    for (size_t threads = 1; threads <= 5; threads++)
        run_pool(threads);
    nd_threads_destroy(NULL);
    puts("done");
    return 0;
}
