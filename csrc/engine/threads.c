#define _GNU_SOURCE /* sched_getaffinity */
#include "threads.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Looks at the next run before a thread sleeps: some 20 to 50 us. */
enum { SPINS = 2000 };

enum { PATH_SIZE = 1024 };

#define OPEN (UINT64_C(1) << 31)
#define JOINED (OPEN - 1)

struct nd_threads {
    size_t count;   /* the caller and the workers */
    size_t workers; /* started */
    pid_t process;  /* that started them */
    pthread_t handles[ND_THREADS_MOST];
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    /*
     * Number of the run << 32, OPEN while workers may join it, and how many
     * have joined and not left. A worker that wakes too late finds the run
     * closed: nobody waits for a thread that is not on a CPU.
     */
    atomic_uint_fast64_t state;
    atomic_size_t sleeping; /* workers in pthread_cond_wait */
    atomic_size_t next;     /* item */
    atomic_bool stop;
    nd_task *task;
    void *argument;
    size_t items;
};

struct start {
    struct nd_threads *threads;
    size_t worker;
    uint64_t seen; /* run */
};

/* Whole CPUs of a cpu.max: "max 100000" is 0, "150000 100000" is 2. */
static size_t
read_quota(const char *path)
{
    char quota[32];
    long period = 0;
    size_t limit = 0;
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return 0;
    if (fscanf(file, "%31s %ld", quota, &period) == 2 && period > 0) {
        long used = strtol(quota, NULL, 10);
        if (used > 0)
            limit = (size_t)((used + period - 1) / period);
    }
    fclose(file);
    return limit;
}

/* The line "0::/a/b" of /proc/self/cgroup: "/a/b"; "" if there is none. */
static void
read_membership(const char *path, char *group, size_t size)
{
    char line[PATH_SIZE];
    FILE *file = fopen(path, "r");
    group[0] = '\0';
    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, "0::/", 4) == 0) {
            line[strcspn(line, "\n")] = '\0';
            snprintf(group, size, "%s", line + 3);
        }
    if (file != NULL)
        fclose(file);
}

size_t
nd_threads_quota(const char *membership, const char *mount)
{
    char group[PATH_SIZE], path[2 * PATH_SIZE];
    size_t least = 0;
    read_membership(membership, group, sizeof group);
    for (;;) {
        snprintf(path, sizeof path, "%.*s%s/cpu.max", PATH_SIZE / 2, mount,
                 group);
        size_t limit = read_quota(path);
        if (limit > 0 && (least == 0 || limit < least))
            least = limit;
        char *parent = strrchr(group, '/');
        if (parent == NULL)
            return least;
        *parent = '\0';
    }
}

static size_t
affinity_count(void)
{
#ifdef __linux__
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        return (size_t)CPU_COUNT(&set);
#endif
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? (size_t)online : 1;
}

size_t
nd_threads_available(void)
{
    const char *wish = getenv("NETDIFFUSION_THREADS");
    long number = wish != NULL ? strtol(wish, NULL, 10) : 0;
    size_t count = affinity_count();
    size_t limit = nd_threads_quota("/proc/self/cgroup", "/sys/fs/cgroup");
    if (number > 0)
        count = (size_t)number;
    else if (limit > 0 && limit < count)
        count = limit;
    return count < ND_THREADS_MOST ? count : ND_THREADS_MOST;
}

static void
pause_briefly(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

static void
do_items(struct nd_threads *threads, size_t worker)
{
    for (;;) {
        size_t item = atomic_fetch_add(&threads->next, 1);
        if (item >= threads->items)
            return;
        threads->task(threads->argument, item, worker);
    }
}

/* Spins a while, since the ops of a step follow each other, then sleeps. */
static void
wait_for_run(struct nd_threads *threads, uint64_t seen)
{
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load(&threads->state) >> 32 != seen)
            return;
        pause_briefly();
    }
    pthread_mutex_lock(&threads->mutex);
    atomic_fetch_add(&threads->sleeping, 1);
    while (atomic_load(&threads->state) >> 32 == seen)
        pthread_cond_wait(&threads->wake, &threads->mutex);
    atomic_fetch_sub(&threads->sleeping, 1);
    pthread_mutex_unlock(&threads->mutex);
}

/* Joins the run at hand if it is open; tells which run that was. */
static bool
join_run(struct nd_threads *threads, uint64_t *seen)
{
    uint_fast64_t state = atomic_load(&threads->state);
    do {
        *seen = state >> 32;
        if ((state & OPEN) == 0)
            return false;
    } while (!atomic_compare_exchange_weak(&threads->state, &state,
                                           state + 1));
    return true;
}

static void *
work(void *argument)
{
    struct start start = *(struct start *)argument;
    struct nd_threads *threads = start.threads;
    free(argument);
    for (;;) {
        wait_for_run(threads, start.seen);
        if (atomic_load(&threads->stop))
            return NULL;
        if (!join_run(threads, &start.seen))
            continue;
        do_items(threads, start.worker);
        atomic_fetch_sub(&threads->state, 1);
    }
}

static void
start_workers(struct nd_threads *threads)
{
    threads->workers = 0;
    threads->process = getpid();
    pthread_mutex_init(&threads->mutex, NULL);
    pthread_cond_init(&threads->wake, NULL);
    atomic_store(&threads->sleeping, 0);
    atomic_store(&threads->state, 0);
    while (threads->workers + 1 < threads->count) {
        struct start *start = malloc(sizeof *start);
        if (start == NULL)
            return;
        *start = (struct start){threads, threads->workers + 1,
                                atomic_load(&threads->state) >> 32};
        if (pthread_create(&threads->handles[threads->workers], NULL, work,
                           start) != 0) {
            free(start);
            return;
        }
        threads->workers++;
    }
}

struct nd_threads *
nd_threads_create(size_t count)
{
    struct nd_threads *threads = calloc(1, sizeof *threads);
    if (threads == NULL)
        return NULL;
    threads->count = count < 1 ? 1 : count < ND_THREADS_MOST
                                         ? count
                                         : ND_THREADS_MOST;
    start_workers(threads);
    return threads;
}

/* The next run, open or closed. */
static void
signal_run(struct nd_threads *threads, uint64_t open)
{
    uint64_t run = atomic_load(&threads->state) >> 32;
    atomic_store(&threads->state, (run + 1) << 32 | open);
    if (atomic_load(&threads->sleeping) == 0)
        return;
    pthread_mutex_lock(&threads->mutex);
    pthread_cond_broadcast(&threads->wake);
    pthread_mutex_unlock(&threads->mutex);
}

void
nd_threads_destroy(struct nd_threads *threads)
{
    if (threads == NULL)
        return;
    /* After a fork the workers are the parent's. */
    if (threads->process == getpid()) {
        atomic_store(&threads->stop, true);
        signal_run(threads, 0);
        for (size_t i = 0; i < threads->workers; i++)
            pthread_join(threads->handles[i], NULL);
        pthread_cond_destroy(&threads->wake);
        pthread_mutex_destroy(&threads->mutex);
    }
    free(threads);
}

size_t
nd_threads_count(const struct nd_threads *threads)
{
    return threads->count;
}

void
nd_threads_run(struct nd_threads *threads, nd_task *task, void *argument,
               size_t items)
{
    if (threads->process != getpid())
        start_workers(threads);
    if (items <= 1 || threads->workers == 0) {
        for (size_t item = 0; item < items; item++)
            task(argument, item, 0);
        return;
    }
    threads->task = task;
    threads->argument = argument;
    threads->items = items;
    atomic_store(&threads->next, 0);
    signal_run(threads, OPEN);
    do_items(threads, 0);
    atomic_fetch_and(&threads->state, ~(uint_fast64_t)OPEN);
    for (int i = 0; (atomic_load(&threads->state) & JOINED) > 0; i++) {
        pause_briefly();
        if (i > SPINS)
            sched_yield();
    }
}
