#include "merge.h"

#include <stdlib.h>

/* An input with the packet that it would give next. */
struct run {
    struct nd_capture *capture;
    struct nd_record record;
    bool over;
};

static enum nd_status
advance(struct run *run, struct nd_error *err)
{
    enum nd_read read = nd_capture_next(run->capture, &run->record);
    run->over = read != ND_READ_RECORD;
    if (read == ND_READ_CUT)
        return nd_fail(err, ND_CAPTURE, "%s: %s",
                       nd_capture_name(run->capture),
                       nd_capture_cut(run->capture));
    return ND_OK;
}

static enum nd_status
open_runs(struct run *runs, const char *const *paths, size_t n,
          struct nd_error *err)
{
    enum nd_status status = ND_OK;
    for (size_t i = 0; i < n && status == ND_OK; i++) {
        status = nd_capture_open(paths[i], NULL, &runs[i].capture, err);
        if (status == ND_OK)
            status = advance(&runs[i], err);
    }
    return status;
}

/* The input whose next packet is the earliest; NULL: all are over. */
static struct run *
earliest(struct run *runs, size_t n)
{
    struct run *best = NULL;
    for (size_t i = 0; i < n; i++)
        if (!runs[i].over &&
            (best == NULL || runs[i].record.time < best->record.time))
            best = &runs[i];
    return best;
}

static enum nd_status
copy_all(struct run *runs, size_t n, struct nd_dump *dump,
         struct nd_error *err)
{
    enum nd_status status = ND_OK;
    struct run *run;
    while (status == ND_OK && (run = earliest(runs, n)) != NULL) {
        const struct nd_record *record = &run->record;
        status = nd_dump_put(dump, record->bytes, record->captured,
                             record->wire_length, record->time, err);
        if (status == ND_OK)
            status = advance(run, err);
    }
    return status;
}

enum nd_status
nd_merge(const char *const *paths, size_t n, const char *out,
         const struct nd_dump_options *options, struct nd_error *err)
{
    struct nd_dump *dump = NULL;
    if (n > ND_MERGE_MOST)
        return nd_fail(err, ND_ARGUMENT, "%zu captures to merge, at most %d",
                       n, ND_MERGE_MOST);
    struct run *runs = calloc(n + 1, sizeof *runs);
    if (runs == NULL)
        return nd_fail(err, ND_NO_MEMORY, "no memory to merge captures");
    enum nd_status status = open_runs(runs, paths, n, err);
    if (status == ND_OK)
        status = nd_dump_create(out, options, &dump, err);
    if (status == ND_OK)
        status = copy_all(runs, n, dump, err);
    if (status == ND_OK)
        status = nd_dump_close(dump, err);
    else
        nd_dump_destroy(dump);
    for (size_t i = 0; i < n; i++)
        nd_capture_destroy(runs[i].capture);
    free(runs);
    return status;
}
