/*
 * payload_port.h - ports whose readers call zeros malformed
 *
 * In:      a transport protocol and a port.
 * Out:     how the payload of a packet to or from that port begins so that
 *          Wireshark's dissector, which is bound to the port whatever is said
 *          there, finds no fault with the zeros that follow, and how short a
 *          payload it finds no fault with.
 * Errors:  none; NULL for the ports on which zeros of any length pass.
 * Memory:  allocates nothing.
 * Threads: constant tables, no state.
 * Python:  through _core.repair and _core.CaptureWriter.
 *          Tests: test_payload.py
 *
 * The table was found by trial, and benchmarks/bench_ports.py tries it anew:
 * flows of many lengths on every port that tshark knows.
 */
#ifndef ND_NET_PAYLOAD_PORT_H
#define ND_NET_PAYLOAD_PORT_H

#include <stdint.h>

struct nd_port_head {
    uint16_t first, last; /* ports */
    uint8_t least;        /* bytes of a payload, unless it has none */
    uint8_t n;
    const char *head; /* n bytes; without both, there is no remedy */
};

const struct nd_port_head *nd_port_head(uint8_t protocol, uint16_t port);

#endif
