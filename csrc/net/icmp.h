/*
 * icmp.h - the ICMP and ICMPv6 messages that a flow may hold
 *
 * In:      IP version and type.
 * Out:     what the message looks like, or NULL for a type not in the table.
 * Errors:  none.
 * Memory:  static constant table.
 * Threads: pure functions, no state.
 * Python:  _core.repair, _core.validate.  Tests: test_repair.py
 */
#ifndef ND_NET_ICMP_H
#define ND_NET_ICMP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The second half of the header; RFC 792, RFC 4443. */
enum nd_icmp_rest {
    ND_REST_ZERO,
    ND_REST_REQUEST, /* id and number of the flow */
    ND_REST_REPLY,   /* those of the request */
    ND_REST_GATEWAY,
    ND_REST_MTU, /* of an IPv4 "fragmentation needed" or "packet too big" */
    ND_REST_ROUTERS,
    ND_REST_ADVERTISEMENT, /* hop limit 64, lifetime 1,800 s: RFC 4861 4.2 */
    ND_REST_SOLICITED,     /* flags of a neighbor advertisement, 4.4 */
    ND_REST_RECORDS        /* count of 20-byte MLDv2 records, RFC 3810 5.2 */
};

struct nd_icmp_message {
    uint8_t ip_version;
    uint8_t type;
    uint8_t most_code;
    uint8_t least_body; /* bytes after the 8 of the header */
    uint8_t body_step;  /* a longer body grows by multiples of this; 255: it
                           does not; 4: once, to an MLDv2 query without
                           sources, RFC 3810 section 5.1 */
    uint8_t hops;       /* 0, or the hop limit that the message must have */
    enum nd_icmp_rest rest;
    uint8_t pair; /* of a request: its reply; of a reply: its request */
    uint8_t instead; /* what repair makes of it where it is not 0: connection
                        trackers call the message itself invalid */
    bool link_local; /* so is its sender's address, RFC 4861 6.1.2 and 8.1, RFC
                        2710 section 3, RFC 3810 section 5 */
};

const struct nd_icmp_message *nd_icmp_find(uint8_t ip_version, uint8_t type);

/* Whether a message quotes the packet that caused it. */
bool nd_icmp_is_error(uint8_t ip_version, uint8_t type);

/* Whether an IPv6 address is a link's own (fe80::/10), or none is told. */
bool nd_icmp_link_local(const uint8_t address[16]);

/* Whether errors quote it: a request or a reply, which trackers know. */
bool nd_icmp_is_quoted(uint8_t ip_version, uint8_t type);

/*
 * Bytes of the hop-by-hop header with a Router Alert that stands before an
 * MLD message, RFC 2710 section 3, RFC 3810 section 5; 0 for other messages.
 */
size_t nd_icmp_hop_by_hop(uint8_t ip_version, uint8_t type);

#endif
