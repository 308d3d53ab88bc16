/*
 * merge.h - captures that are each in time order into one that is
 *
 * In:      paths of captures, each in time order.
 * Out:     one capture of all their packets in time order; at equal times
 *          in the order of the paths, and in that of each file.
 * Errors:  those of capture.h; ND_CAPTURE for an input that is cut.
 * Memory:  one record and one file buffer for each input.
 * Threads: no shared state.
 * Python:  _core.merge_captures.  Tests: tests/test_stream.py
 *
 * This is the second half of an external sort: whoever writes more flows
 * than fit into memory writes sorted runs, then merges them.
 */
#ifndef ND_NET_MERGE_H
#define ND_NET_MERGE_H

#include "capture.h"

enum { ND_MERGE_MOST = 256 }; /* inputs, all of them open at once */

enum nd_status nd_merge(const char *const *paths, size_t n, const char *out,
                        const struct nd_dump_options *options,
                        struct nd_error *err);

#endif
