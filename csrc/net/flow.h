/*
 * flow.h - packets to bidirectional flows
 *
 * In:      packets whose headers are whole (or later fragments), in the
 *          order of the file.
 * Out:     flows with their packets in time order. A flow is a 5-tuple in
 *          either direction. It ends by silence of idle_timeout, by a fresh
 *          SYN after close (FIN both ways, or RST), or with the capture.
 * Errors:  ND_NO_MEMORY only.
 * Memory:  headers of the flows that are open or finished but not yet
 *          dropped: 32 bytes and the header bytes a packet, in blocks of 512
 *          that are used again. Nothing is allocated for a packet.
 * Threads: one thread a table; no shared state.
 * Python:  _core.CaptureReader.  Tests: tests/test_flow.py,
 *          tests/fuzz_capture.c
 *
 * Times may run backwards. A flow is taken to have ended when its last
 * packet is further than twice the idle timeout from all of the latest 64
 * packets, on either side: neither one wild time nor captures glued together
 * end a flow early or keep it for ever. Later fragments go where the first
 * fragment with the same addresses, identification and protocol went.
 */
#ifndef ND_NET_FLOW_H
#define ND_NET_FLOW_H

#include "../status.h"
#include "packet.h"

struct nd_flow_table;

struct nd_flow_options {
    uint32_t max_packets; /* kept of a flow */
    int64_t idle_timeout; /* ns */
};

/* The longest timeout (36 years), so that no sum overflows. */
#define ND_IDLE_MOST (INT64_MAX / 8)

struct nd_flow {
    uint64_t first_packet; /* number of its first packet in the file */
    uint32_t packets;      /* kept */
    uint8_t ip_version;
    uint8_t protocol;
    uint8_t address[2][16]; /* [0] is the client */
    uint16_t port[2];
};

enum nd_flow_kept {
    ND_KEPT,
    ND_KEPT_NOT,    /* beyond max_packets: counted only */
    ND_KEPT_NO_FLOW /* a fragment without its first one */
};

enum nd_status nd_flow_create(const struct nd_flow_options *options,
                              struct nd_flow_table **table,
                              struct nd_error *err);
void nd_flow_destroy(struct nd_flow_table *table);

/* packet->stopped is ND_STOP_NONE. */
enum nd_status nd_flow_add(struct nd_flow_table *table,
                           const struct nd_packet *packet, uint64_t number,
                           enum nd_flow_kept *kept, struct nd_error *err);

/*
 * Slices: the caller says which packets make a flow. begin ends the flow
 * before and starts one with this packet; append adds one to it whatever its
 * addresses are, but ND_KEPT_NO_FLOW when IP version or protocol differ.
 */
enum nd_status nd_flow_begin(struct nd_flow_table *table,
                             const struct nd_packet *packet, uint64_t number,
                             struct nd_error *err);
enum nd_status nd_flow_append(struct nd_flow_table *table,
                              const struct nd_packet *packet,
                              enum nd_flow_kept *kept, struct nd_error *err);

/* The capture is over: all open flows are finished. */
void nd_flow_finish(struct nd_flow_table *table);

/* Finished flows that nobody has taken yet. */
size_t nd_flow_ready(const struct nd_flow_table *table);

/*
 * Takes up to `most` finished flows, in the order in which they ended, and
 * sorts what it takes by first packet. They are numbered 0 to *flows - 1
 * until nd_flow_drop().
 */
void nd_flow_take(struct nd_flow_table *table, size_t most, size_t *flows,
                  size_t *packets);

const struct nd_flow *nd_flow_taken(const struct nd_flow_table *table,
                                    size_t which);

/*
 * The packets of a taken flow in time order, flow->packets of each array.
 * Their spans point into the table and live until nd_flow_drop().
 */
void nd_flow_unpack(const struct nd_flow_table *table, size_t which,
                    struct nd_packet *packets, uint8_t *directions);

/* Gives the memory of the taken flows back. */
void nd_flow_drop(struct nd_flow_table *table);

#endif
