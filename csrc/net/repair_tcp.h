/*
 * repair_tcp.h - the state of a TCP flow in repair; private to repair_tcp*.c
 *
 * In:      steps, one after the other; what each end has sent, acknowledged
 *          and offered before them, RFC 9293 section 3.3.1.
 * Out:     numbers of a step. The only step that is changed after its turn is
 *          the peer's last one, whose window is widened when data that was
 *          drawn would not fit.
 * Errors:  none: every hint has a step that is possible.
 * Memory:  allocates nothing.
 * Threads: no state beyond the struct.
 * Python:  _core.repair.  Tests: test_repair.py
 */
#ifndef ND_NET_REPAIR_TCP_H
#define ND_NET_REPAIR_TCP_H

#include "repair_flow.h"

struct nd_tcp_side {
    uint32_t isn;
    uint32_t next;  /* after the highest byte, SYN or FIN sent */
    uint32_t floor; /* first byte of data */
    uint32_t last_ack;
    bool started, syn, fin, reset, acked;
    struct nd_step *last;           /* its latest step that tells a window */
    unsigned last_shift;            /* of that window */
    uint32_t widest;                /* window before `last`, in bytes */
    int scale;                      /* -1: no SYN, or none offered */
    uint32_t mss;                   /* told on its SYN, 0: not */
    uint32_t clock, last_clock;     /* TCP timestamp values */
    uint32_t tick;                  /* of that clock, in ns */
    bool told_clock;
    uint32_t edges[ND_EDGE_RING];   /* ends of segments, latest last */
    size_t n_edges;                 /* ever */
    uint32_t again_from, again_to;  /* latest data that was sent again */
    bool again;
    uint32_t holes[ND_HOLE_RING][2]; /* begin and end, oldest first */
    size_t n_holes, n_filled;        /* ever */
};

struct nd_tcp_state {
    struct nd_draft *flow;
    bool wired; /* segments are those of a wire, so the MSS binds */
    struct nd_tcp_side side[2];
    struct nd_syns syns;
};

/* repair_tcp_seq.c: the sequence number, and how much of the payload stays. */
void nd_tcp_number(struct nd_tcp_state *t, struct nd_tcp_side *me,
                   struct nd_tcp_side *peer, struct nd_step *step);

/* repair_tcp_ack.c: the acknowledgement number, and the edges of SACK. */
void nd_tcp_acknowledge(struct nd_draft *flow, struct nd_tcp_side *me,
                        const struct nd_tcp_side *peer, struct nd_step *step);
void nd_tcp_report_holes(struct nd_draft *flow,
                         const struct nd_tcp_side *peer,
                         struct nd_step *step);

/* Writes a number of four bytes. */
static inline void
nd_tcp_put32(uint8_t *bytes, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        bytes[i] = (uint8_t)(value >> (24 - 8 * i));
}

#endif
