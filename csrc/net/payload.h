/*
 * payload.h - the bytes behind a transport header when none are given
 *
 * In:      what a packet's headers say, its flow's endpoints, how many
 *          packets its sender has sent before it in the flow, and the message
 *          of the flow that it quotes.
 * Out:     the first bytes of the payload; all that follow are zeros. Most
 *          payloads are zeros altogether. Messages whose readers call zeros
 *          malformed get the least that is well formed.
 * Errors:  none; a payload too short for the message stays zeros.
 * Memory:  at most ND_PAYLOAD_HEAD bytes into the caller's array.
 * Threads: pure functions, no state.
 * Python:  through _core.repair (checksums) and _core.CaptureWriter (bytes),
 *          which must agree.  Tests: test_repair.py, test_payload.py
 */
#ifndef ND_NET_PAYLOAD_H
#define ND_NET_PAYLOAD_H

#include "rows.h"

enum { ND_PAYLOAD_HEAD = 256 };

/* A whole message of ICMP that is no error, and what is behind its header. */
struct nd_cause {
    uint8_t header[8];
    uint32_t length;
};

struct nd_payload {
    uint8_t ip_version;
    uint8_t protocol; /* 1, 6, 17, 58 */
    uint8_t direction;
    uint32_t number; /* earlier packets of this sender in the flow */
    uint32_t length; /* of the payload */
    const uint8_t *transport;        /* its header, at least 8 bytes */
    const struct nd_endpoints *ends; /* of the flow */
    const struct nd_cause *cause;  /* that an ICMP error quotes, or NULL */
};

/* The latest request or reply of each end, which errors of the peer quote. */
struct nd_causes {
    bool known[2];
    struct nd_cause latest[2];
};

/* Notes a packet; one that is a fragment is not whole. */
void nd_causes_note(struct nd_causes *causes, const struct nd_payload *packet,
                    bool whole);

/* What a sender's error quotes, or NULL: what the flow does not tell. */
const struct nd_cause *nd_causes_find(const struct nd_causes *causes,
                                        uint8_t direction);

/* Writes the head, and returns its length; at most payload->length. */
size_t nd_payload_head(const struct nd_payload *payload,
                       uint8_t head[ND_PAYLOAD_HEAD]);

/* Whether readers call zeros malformed that go to or come from a port. */
bool nd_payload_faulted(uint8_t protocol, uint16_t port);

/* Whether it takes messages of few lengths, so that no content helps. */
bool nd_payload_unfit(uint8_t protocol, uint16_t port);

/* Whether it is such a reader that is asked about a flow. */
bool nd_payload_wary(uint8_t protocol, const struct nd_endpoints *ends);

/* The shortest payload, if there is any, of the service that a flow's ports
 * name; 0 for most. */
uint32_t nd_payload_least(uint8_t protocol, const struct nd_endpoints *ends);

#endif
