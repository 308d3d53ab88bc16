/*
 * repair.h - canonical rows of any origin to flows that obey the protocols
 *
 * In:      canonical rows (canonical.h) of one flow: a model's output, or any
 *          cells at all; options; a seed and the flow's number.
 * Out:     rows of netdiffusion-1088, time, direction and wire length of every
 *          packet, both endpoints, and how many drawn cells each rule of
 *          repair_rules.h changed.
 * Errors:  nd_repair_check() tells wrong options (ND_ARGUMENT) and
 *          nd_repair_create() a lack of memory; repair itself cannot fail.
 * Memory:  one scratch for the longest flow, made once; a flow allocates
 *          nothing.
 * Threads: one scratch a thread; otherwise pure functions.
 * Python:  _core.repair.  Tests: test_repair.py, fuzz_repair.c
 *
 * Stages, each a file: cells to values (repair_read.c), vote (repair_vote.c),
 * structure (repair_structure.c, repair_options.c), TCP flags
 * (repair_flags.c), time and IP ids (repair_time.c), TCP state (repair_tcp.c)
 * or ICMP (repair_icmp.c), then bytes, checksums and cells (repair_write.c).
 * Chance is SplitMix64 of (seed, flow), so a flow does not depend on its
 * neighbours. Repair of what repair made changes nothing.
 */
#ifndef ND_NET_REPAIR_H
#define ND_NET_REPAIR_H

#include "canonical.h"
#include "repair_rules.h"

/* What happens to drawn events that readers of captures warn about. */
enum nd_events {
    ND_EVENTS_KEEP, /* RST, zero window, holes, duplicate SACK stay */
    ND_EVENTS_QUIET /* FIN or ACK, a window of 1, no hole, no such SACK */
};

struct nd_pool {
    uint8_t prefix[16]; /* IPv4 in the first four bytes */
    uint8_t bits;
};

struct nd_repair_options {
    uint64_t seed;
    struct nd_pool pool4[2]; /* client, server */
    struct nd_pool pool6[2];
    uint16_t client_port_low; /* ephemeral ports, RFC 6335 section 6 */
    uint16_t client_port_high;
    uint32_t mtu;   /* most bytes of an IP packet, 576 to 65,535 */
    int64_t start;  /* ns since 1970 of the earliest flow */
    int64_t spread; /* ns; flows begin in start .. start + spread */
    enum nd_events events;
};

/*
 * What an end's host does that no row says. Of a clock, of the first IP id and
 * of the initial sequence number leading bits may be known; chance draws what
 * is not.
 */
struct nd_host {
    bool pads;     /* its frames have 60 bytes at least, as Ethernet wants */
    uint32_t tick; /* of its clock of TCP timestamps, in ns; 0: drawn */
    uint32_t clock;
    uint8_t clock_bits; /* of `clock` that are known, 0 to 32 */
    uint16_t id;
    uint8_t id_bits; /* 0 to 16 */
    uint32_t isn;
    uint8_t isn_bits;
};

/*
 * Facts of a captured flow that repair shall keep. Endpoints are kept when
 * the flow turns out to have their IP version; a port 0 is none. Where ports
 * are listed the server has the one that changes the fewest drawn cells, the
 * first of equals. Without ends, the client has client_port where the service
 * leaves it the choice and a reader could tell which end is the server. Times
 * are whole multiples of resolution, where a drawn gap has one.
 */
struct nd_anchor {
    struct nd_endpoints ends;
    uint8_t ip_version; /* of ends; 0: there are none */
    int64_t start;
    bool has_start;
    uint16_t client_port;     /* 0: drawn */
    const uint16_t *ports[2]; /* that servers use, TCP and UDP, or NULL */
    size_t n_ports[2];
    struct nd_host host[2]; /* client, server */
    uint32_t resolution;    /* of the capture's times in ns; 0 is 1 */
};

struct nd_repaired {
    int8_t *rows;          /* n * ND_ROW_CELLS */
    int64_t *times;        /* n */
    uint8_t *directions;   /* n */
    uint32_t *wire_length; /* n: Ethernet header, IP packet and padding */
    struct nd_endpoints *ends;
    uint8_t *ip_version;
    uint8_t *protocol;
    int64_t *changed; /* ND_RULE_COUNT */
};

struct nd_repair; /* the scratch */

void nd_repair_defaults(struct nd_repair_options *options);
enum nd_status nd_repair_check(const struct nd_repair_options *options,
                               struct nd_error *err);
enum nd_status nd_repair_create(struct nd_repair **repair, size_t max_packets,
                                struct nd_error *err);
void nd_repair_destroy(struct nd_repair *repair);

/* n <= max_packets; anchor may be NULL. */
void nd_repair_flow(struct nd_repair *repair,
                    const struct nd_repair_options *options, uint64_t flow_id,
                    const struct nd_anchor *anchor, const int8_t *canonical,
                    size_t n, const struct nd_repaired *out);

#endif
