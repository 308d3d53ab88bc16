/*
 * payload_plan.h - which message of a conversation each packet carries
 *
 * In:      the packets of flows, flow after flow, as their headers tell them.
 * Out:     the payload of every packet, in any order: what is zero, chance,
 *          or messages of the flow's service (payload_message.h).
 * Errors:  ND_NO_MEMORY. A length that cannot hold its message is counted.
 * Memory:  at most 120 bytes a packet and 176 a flow; filling allocates
 *          nothing.
 * Threads: one thread a plan.
 * Python:  _core.CaptureWriter.  Tests: test_payload.py, fuzz_payload.c
 *
 * The bytes of a stream depend on their place in it: what is sent again is
 * the same. They follow from the seed and the flow (ends, first time) alone,
 * not from its neighbours.
 */
#ifndef ND_NET_PAYLOAD_PLAN_H
#define ND_NET_PAYLOAD_PLAN_H

#include "payload.h"
#include "payload_message.h"

enum nd_payload_mode {
    ND_PAYLOAD_ZEROS, /* but for the heads of payload.h */
    ND_PAYLOAD_RANDOM,
    ND_PAYLOAD_PROTOCOL
};

struct nd_payload_choice {
    enum nd_payload_mode mode;
    uint64_t seed;
    const uint8_t *services; /* a flow: nd_service, | ND_SERVICE_SURE */
    const char *hosts;       /* a flow: ND_HOST_BYTES, filled with zeros */
};

/* In the number of a service: whatever the port says. */
enum { ND_SERVICE_SURE = 0x80 };

/* By service: packets with payload, and those too short for their message. */
struct nd_payload_told {
    uint64_t packets[ND_SERVICE_COUNT];
    uint64_t short_packets[ND_SERVICE_COUNT];
    uint64_t flows[ND_SERVICE_COUNT];
    uint64_t short_flows[ND_SERVICE_COUNT];
};

struct nd_plan; /* opaque */

enum nd_status nd_plan_create(struct nd_plan **plan,
                              const struct nd_payload_choice *choice,
                              size_t flows, size_t packets,
                              struct nd_error *err);
void nd_plan_destroy(struct nd_plan *plan);

/* Begins the next flow. */
void nd_plan_flow(struct nd_plan *plan, const struct nd_endpoints *ends,
                  uint8_t ip_version, uint8_t protocol, int64_t time);

/* The next packet of that flow; payload->transport is its header. */
void nd_plan_packet(struct nd_plan *plan, const struct nd_payload *payload);

/* Writes the payload of a packet of the plan, counted over all flows:
 * payload->length bytes. */
void nd_plan_fill(struct nd_plan *plan, size_t flow, size_t packet,
                  const struct nd_payload *payload, uint8_t *bytes);

/* Adds up what has been filled so far. */
void nd_plan_tell(const struct nd_plan *plan, struct nd_payload_told *told);

#endif
