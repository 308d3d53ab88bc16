/*
 * canonical.h - rows to canonical rows: behaviour without chance and checksums
 *
 * In:      the rows of one flow (netdiffusion-1088), its packet times and
 *          directions.
 * Out:     n * ND_CANONICAL_CELLS cells: the header cells by role (layout.h),
 *          then motion: direction, gap (gap.h), and what kind of step seq, ack
 *          and IP id were. repair.h is the way back.
 * Errors:  none: any cells have a canonical form.
 * Memory:  allocates nothing.
 * Threads: pure functions, no state.
 * Python:  _core.canonicalize.  Tests: tests/test_canonical.py,
 *          tests/fuzz_rows.c
 *
 * role      canonical form
 * drawn     as captured (the client's port is zero, the server's is kept)
 * length    payload bytes after the transport header, in the IP length cells
 * derived   zero
 * stateful  zero; TCP timestamp values and SACK edges inside the options too
 * private   zero
 */
#ifndef ND_NET_CANONICAL_H
#define ND_NET_CANONICAL_H

#include "rows.h"

/* Values of the hint cells motion_seq, motion_ack and motion_id. */
enum nd_hint_seq { ND_SEQ_IN_ORDER, ND_SEQ_AGAIN, ND_SEQ_GAP };
enum nd_hint_ack { ND_ACK_ALL, ND_ACK_PART, ND_ACK_DUPLICATE };
enum nd_hint_id { ND_ID_ZERO, ND_ID_COUNTER, ND_ID_RANDOM, ND_ID_SAME };

/* The largest step between two IP ids that is taken for a counter's. */
enum { ND_ID_STEPS = 64 };

void nd_canonical_encode(const int8_t *rows, size_t n, const int64_t *times,
                         const uint8_t *directions, int8_t *canonical);

#endif
