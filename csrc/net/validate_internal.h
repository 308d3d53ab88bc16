/*
 * validate_internal.h - what the parts of validate share; private to them
 *
 * In:      the header bytes of one packet of a flow.
 * Out:     violations noted under the packet's number.
 * Errors:  none.
 * Memory:  allocates nothing.
 * Threads: pure functions, no state.
 * Python:  none.  Tests: tests/test_validate.py
 */
#ifndef ND_NET_VALIDATE_INTERNAL_H
#define ND_NET_VALIDATE_INTERNAL_H

#include "validate.h"

/* A packet as its rows tell it. */
struct nd_seen {
    const uint8_t *ip;
    size_t ip_bytes;
    const uint8_t *transport;
    size_t transport_bytes; /* 0: there is none, as in a later fragment */
    uint8_t direction;
    bool fragment;
    uint32_t payload; /* after the transport header */
    int64_t index;
    int64_t time;
};

static inline void
nd_note(struct nd_violations *v, enum nd_rule rule, int64_t index)
{
    if (v->packets[rule]++ == 0)
        v->first[rule] = index;
    if (v->broken != NULL)
        v->broken[index] |= UINT64_C(1) << rule;
}

/* One end of a TCP connection, as far as it was seen. */
struct nd_tcp_end {
    bool started, syn, fin, reset, other, acked, told_clock;
    uint32_t isn, next, fin_at, last_ack, right_edge, clock;
    uint32_t mss;                      /* told on its SYN, 0: not */
    uint32_t first_clock, last_clock;  /* timestamp values, and when */
    int64_t first_time, last_time, last_index, syn_time;
    int scale;
    int64_t ahead; /* packet that acknowledged what had not come, or -1 */
    uint32_t ahead_ack;
    unsigned ecn; /* NS, CWR and ECE of its SYNs */
    bool offered[256];
};

struct nd_tcp_watch {
    struct nd_tcp_end end[2];
    bool wired; /* no packet is longer than those of Ethernet */
};

/* validate_tcp.c */
void nd_validate_tcp(struct nd_tcp_watch *watch, const struct nd_seen *seen,
                     struct nd_violations *v);
void nd_validate_tcp_end(struct nd_tcp_watch *watch, struct nd_violations *v);

#endif
