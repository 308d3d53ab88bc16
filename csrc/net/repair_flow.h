/*
 * repair_flow.h - a flow in the middle of repair; private to repair*.c
 *
 * In:      canonical cells, read once into a struct nd_step a packet.
 * Out:     the stages below change the steps; repair_write.c turns them into
 *          bytes and cells.
 * Errors:  none: every stage takes any values.
 * Memory:  the steps belong to struct nd_repair.
 * Threads: no state beyond the struct.
 * Python:  _core.repair.  Tests: test_repair.py
 *
 * A stage that changes a drawn value counts the cells that differ under its
 * rule: nd_count_change(). Values are plain integers between the stages; only
 * the first and the last stage know cells.
 */
#ifndef ND_NET_REPAIR_FLOW_H
#define ND_NET_REPAIR_FLOW_H

#include <string.h>

#include "repair.h"

enum {
    ND_PROTOCOL_ICMP = 1,
    ND_PROTOCOL_TCP = 6,
    ND_PROTOCOL_UDP = 17,
    ND_PROTOCOL_ICMP6 = 58
};

/* TCP flags as they stand in the header, RFC 9293 section 3.1. */
enum {
    ND_TCP_FIN = 1,
    ND_TCP_SYN = 2,
    ND_TCP_RST = 4,
    ND_TCP_PSH = 8,
    ND_TCP_ACK = 16,
    ND_TCP_URG = 32,
    ND_TCP_ECE = 64,
    ND_TCP_CWR = 128,
    ND_TCP_NS = 256
};

/* TCP options, IANA "TCP Parameters". */
enum {
    ND_OPT_EOL = 0,
    ND_OPT_NOP = 1,
    ND_OPT_MSS = 2,
    ND_OPT_SCALE = 3,
    ND_OPT_SACK_OK = 4,
    ND_OPT_SACK = 5,
    ND_OPT_TIMESTAMP = 8,
    ND_OPT_FAST_OPEN = 34,
    ND_OPT_TRIAL = 254 /* an experiment, RFC 6994: Fast Open, RFC 7413 A.2 */
};

enum {
    ND_OPTION_BYTES = 40,
    ND_ECHO_RING = 32,
    ND_EDGE_RING = 64,
    ND_HOLE_RING = 16
};

/* Where headers begin in a canonical row, in cells. */
enum {
    ND_CELL_IPV4 = 0,
    ND_CELL_IPV4_OPTIONS = 96,
    ND_CELL_IPV6 = 416,
    ND_CELL_TCP = 480,
    ND_CELL_TCP_OPTIONS = 640,
    ND_CELL_UDP = 960,
    ND_CELL_ICMP = 1024,
    ND_CELL_MOTION = 1088
};

struct nd_options {
    uint8_t length; /* bytes, a multiple of 4 */
    uint8_t bytes[ND_OPTION_BYTES];
};

/* A packet between drawing and writing. */
struct nd_step {
    uint8_t headers_drawn; /* bit 1 << enum nd_header */
    uint8_t direction;
    uint8_t tos;
    uint8_t ttl;
    bool df;
    bool mf;    /* a fragment follows */
    bool later; /* a fragment without transport header */
    uint8_t seq_hint, ack_hint, id_hint;
    uint16_t gap_code;
    uint16_t port; /* the server's */
    uint16_t flags;
    uint16_t window;
    uint8_t icmp_type, icmp_code;
    uint16_t ip_id;
    uint16_t payload;
    uint16_t offset;   /* of a fragment, in 8 bytes */
    uint32_t datagram; /* payload of all fragments, told in the first */
    uint32_t seq, ack;
    uint32_t rest; /* of an ICMP header */
    int64_t time;
    struct nd_options ip_options;
    struct nd_options tcp_options;
};

struct nd_draft {
    const struct nd_repair_options *options;
    uint64_t key; /* of chance: seed and flow */
    size_t n;
    struct nd_step *steps;
    uint8_t ip_version;
    uint8_t protocol;
    struct nd_endpoints ends;
    struct nd_host host[2];
    int64_t resolution; /* of times, ns */
    int64_t start;
    int64_t *changed;
};

/* What a number is drawn for; no two purposes share a stream. */
enum nd_purpose {
    ND_FOR_START,
    ND_FOR_ADDRESS,
    ND_FOR_PORT = ND_FOR_ADDRESS + 4,
    ND_FOR_ISN,
    ND_FOR_CLOCK = ND_FOR_ISN + 2,
    ND_FOR_IP_ID = ND_FOR_CLOCK + 2,
    ND_FOR_LABEL = ND_FOR_IP_ID + 2,
    ND_FOR_ECHO = ND_FOR_LABEL + 2,
    ND_FOR_ROUTER,
    ND_FOR_STEP_ID,
    ND_FOR_STEP_TIME
};

/* SplitMix64 (Steele, Lea, Flood 2014), a counter hashed. */
static inline uint64_t
nd_mix(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static inline uint64_t
nd_chance(const struct nd_draft *flow, unsigned purpose, uint64_t i)
{
    return nd_mix(flow->key ^ nd_mix((uint64_t)purpose << 56 ^ i));
}

static inline unsigned
nd_ones(uint64_t x)
{
    unsigned n = 0;
    for (; x != 0; x &= x - 1)
        n++;
    return n;
}

static inline void
nd_count_change(struct nd_draft *flow, enum nd_rule rule, uint64_t old,
                uint64_t new)
{
    if (old != new)
        flow->changed[rule] += nd_ones(old ^ new);
}

static inline bool
nd_is_icmp(const struct nd_draft *flow)
{
    return flow->protocol == ND_PROTOCOL_ICMP ||
           flow->protocol == ND_PROTOCOL_ICMP6;
}

/*
 * The SYN that counts of each end: of the client the latest before the
 * server's, of the server the first. What is sent after it is that again.
 */
struct nd_syns {
    struct nd_step *told[2];
};

/* The SYN that a SYN repeats; itself where it is the one that counts. */
static inline struct nd_step *
nd_told_syn(struct nd_syns *syns, struct nd_step *step)
{
    struct nd_step **told = &syns->told[step->direction];
    if (*told == NULL || (step->direction == 0 && syns->told[1] == NULL))
        *told = step;
    return *told;
}

/* A number of `width` bits whose first `known` are those of value. */
static inline uint32_t
nd_known_bits(uint32_t value, uint32_t chance, unsigned width, unsigned known)
{
    uint32_t rest = known < width ? UINT32_MAX >> (32 - width + known) : 0;
    return (value & ~rest) | (chance & rest);
}

/* Bytes of sequence space from a to b, RFC 9293 section 3.4. */
static inline int32_t
nd_seq_distance(uint32_t a, uint32_t b)
{
    return (int32_t)(b - a);
}

/* repair_read.c: cells to steps; repair_vote.c: what a flow agrees on */
void nd_repair_read(struct nd_draft *flow, const int8_t *canonical);
void nd_repair_vote(struct nd_draft *flow, const struct nd_anchor *anchor);

/* repair_structure.c: lengths and what a packet alone must obey */
void nd_repair_structure(struct nd_draft *flow);
/* The largest payload that fits behind the headers of a step. */
uint32_t nd_repair_room(const struct nd_draft *flow,
                        const struct nd_step *step);
void nd_repair_set_payload(struct nd_draft *flow, struct nd_step *step,
                           enum nd_rule rule, uint32_t payload);

/* repair_options.c */
void nd_repair_ip_options(struct nd_draft *flow, struct nd_step *step);
void nd_repair_tcp_options(struct nd_draft *flow, struct nd_step *step);
/* The first option of a kind, or NULL; *length counts its first two bytes. */
uint8_t *nd_repair_find_option(struct nd_options *options, uint8_t kind,
                               size_t *length);
/* Takes an option out, or cuts it to `length` bytes when that is not 0. */
void nd_repair_cut_option(struct nd_draft *flow, struct nd_step *step,
                          enum nd_rule rule, uint8_t kind, size_t length);

/* Puts an option behind the others; false when it does not fit. */
bool nd_repair_add_option(struct nd_draft *flow, struct nd_step *step,
                          enum nd_rule rule, uint8_t kind, size_t length);

/* repair_nearest.c: false when no legal list costs fewer cells than that */
bool nd_repair_nearest_options(const struct nd_options *drawn, bool syn,
                               int64_t better_than,
                               struct nd_options *nearest);

/* repair_flags.c, repair_ecn.c, repair_tcp.c, repair_icmp.c, repair_time.c */
void nd_repair_flags(struct nd_draft *flow);
void nd_repair_ecn(struct nd_draft *flow);
void nd_repair_tcp(struct nd_draft *flow);
void nd_repair_icmp_types(struct nd_draft *flow);
void nd_repair_icmp(struct nd_draft *flow);
void nd_repair_time(struct nd_draft *flow);
void nd_repair_ids(struct nd_draft *flow);

/* repair_fragment.c: which packets are fragments, and when all lengths are
 * settled, where each begins */
void nd_repair_fragments(struct nd_draft *flow);
void nd_repair_offsets(struct nd_draft *flow);

/* repair_ttl.c: after the flags are settled */
void nd_repair_ttl(struct nd_draft *flow);

/* repair_write.c */
void nd_repair_write(const struct nd_draft *flow,
                     const struct nd_repaired *out);

#endif
