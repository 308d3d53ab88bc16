/*
 * reader.h - a capture file to the arrays of its flows
 *
 * In:      a capture file, a layout, and how flows are cut; or the packet
 *          numbers of each flow (slices), as a manifest lists them.
 * Out:     the arrays of a FlowSet, some flows at a time, and counts of what
 *          was read and what was left out.
 * Errors:  those of nd_capture_open(); ND_CAPTURE for the first malformed
 *          packet and a cut file when options.raise is set, and for slices
 *          that the file does not have.
 * Memory:  what flow.h says: flows that are open or finished and not filled
 *          into arrays; the arrays are the caller's.
 * Threads: one thread a reader; no shared state.
 * Python:  _core.CaptureReader, _core.read_slices.
 *          Tests: tests/test_capture.py, tests/fuzz_capture.c
 *
 * Two calls hand out flows: nd_reader_next() says how large the arrays must
 * be, nd_reader_fill() fills them.
 */
#ifndef ND_NET_READER_H
#define ND_NET_READER_H

#include "capture.h"
#include "flow.h"
#include "layout.h"
#include "rows.h"

enum { ND_MALFORMED_TOLD = 1000 };

struct nd_malformed {
    uint64_t number; /* of the packet, from 1 */
    int64_t offset;  /* of its record in the file; -1 for a pipe */
    const char *reason;
};

/* packets is the sum of the others. */
struct nd_reader_stats {
    uint64_t packets;
    uint64_t kept;
    uint64_t filtered;
    uint64_t ignored;   /* not IP, or another transport */
    uint64_t malformed; /* the first are in told[] */
    uint64_t fragments; /* later fragments whose first one is not there */
    uint64_t over_limit;
    struct nd_malformed *told; /* min(malformed, ND_MALFORMED_TOLD) */
    const char *cut;           /* NULL: the file is whole */
    const char *link_type;
};

struct nd_reader_options {
    const char *bpf; /* NULL: all packets */
    struct nd_flow_options flows;
    const struct nd_layout *layout;
    bool raise; /* malformed packets and a cut file are errors */
};

/* F flows, P packets, B cells; C order. */
struct nd_flow_arrays {
    int8_t *rows;          /* (P, B) */
    int64_t *offsets;      /* (F + 1) */
    int64_t *timestamps;   /* (P) */
    uint8_t *direction;    /* (P) */
    uint32_t *wire_length; /* (P) */
    uint8_t *addresses;    /* (F, 2, 16) */
    uint16_t *ports;       /* (F, 2) */
    uint8_t *ip_version;   /* (F) */
    uint8_t *protocol;     /* (F) */
    int64_t *first_packet; /* (F) */
    int64_t *packet_number; /* (P): in the file, from 0 */
};

struct nd_reader;

enum nd_status nd_reader_open(const char *path,
                              const struct nd_reader_options *options,
                              struct nd_reader **reader,
                              struct nd_error *err);

/* The same on a capture that is already open; the reader then owns it, even
 * when this fails. */
enum nd_status nd_reader_attach(struct nd_capture *capture,
                                const struct nd_reader_options *options,
                                struct nd_reader **reader,
                                struct nd_error *err);

void nd_reader_destroy(struct nd_reader *reader);

/* Reads until max_flows are finished or the file ends. *flows is 0 only at
 * the end. */
enum nd_status nd_reader_next(struct nd_reader *reader, size_t max_flows,
                              size_t *flows, size_t *packets,
                              struct nd_error *err);

/*
 * Instead of nd_reader_next(): flow i is packets first[i] to
 * first[i] + counts[i] - 1 of the file, counted from 0; first must rise and
 * slices must not overlap. Malformed packets are left out and counted.
 */
enum nd_status nd_reader_slices(struct nd_reader *reader,
                                const int64_t *first, const int64_t *counts,
                                size_t n, size_t *packets,
                                struct nd_error *err);

/* Fills the arrays of what next or slices announced, then forgets it. */
enum nd_status nd_reader_fill(struct nd_reader *reader,
                              const struct nd_flow_arrays *arrays,
                              struct nd_error *err);

const struct nd_reader_stats *nd_reader_told(const struct nd_reader *reader);
const struct nd_layout *nd_reader_layout(const struct nd_reader *reader);

#endif
