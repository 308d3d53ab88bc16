/*
 * flow_fragment.h - where the first fragment of each datagram went
 *
 * In:      first fragments with the flow they belong to; later fragments.
 * Out:     the flow of a later fragment: the one whose first fragment had
 *          the same addresses, identification and, for IPv4, protocol
 *          (RFC 791 section 3.2, RFC 8200 section 4.5).
 * Errors:  ND_NO_MEMORY only.
 * Memory:  nothing before the first fragment, then a fixed table of 4,096
 *          datagrams: a newer one may push an older one out.
 * Threads: one thread a table; no shared state.
 * Python:  none.  Tests: tests/test_flow.py, tests/fuzz_capture.c
 */
#ifndef ND_NET_FLOW_FRAGMENT_H
#define ND_NET_FLOW_FRAGMENT_H

#include "../status.h"
#include "packet.h"

struct nd_datagram {
    uint8_t ends[2][16]; /* source, destination */
    uint32_t id;
    uint8_t ip_version; /* 0: nothing is stored here */
    uint8_t protocol;
    uint8_t direction;
    uint32_t entry; /* of the flow, and the serial number that it had */
    uint64_t serial;
};

struct nd_datagrams {
    struct nd_datagram *slots; /* NULL until there is a fragment */
};

enum nd_status nd_datagrams_put(struct nd_datagrams *datagrams,
                                const struct nd_packet *packet,
                                uint32_t entry, uint64_t serial,
                                uint8_t direction, struct nd_error *err);

/* NULL when the first fragment is not known. */
const struct nd_datagram *
nd_datagrams_find(const struct nd_datagrams *datagrams,
                  const struct nd_packet *packet);

void nd_datagrams_free(struct nd_datagrams *datagrams);

/* The hash that flows and datagrams are found by; n is a multiple of 8. */
uint32_t nd_flow_hash(uint64_t seed, const void *bytes, size_t n);

#endif
