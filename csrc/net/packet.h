/*
 * packet.h - the bytes of one captured frame as spans of its headers
 *
 * In:      a link type, the captured bytes and the length on the wire.
 * Out:     struct nd_packet: where IP and transport headers lie, addresses,
 *          ports, payload length; spans point into the caller's bytes.
 * Errors:  never fails: `stopped` says how far it got and why.
 * Memory:  allocates nothing; the caller keeps the bytes alive.
 * Threads: pure functions, no state.
 * Python:  _core.CaptureReader.  Tests: tests/test_packet.py,
 *          tests/fuzz_packet.c
 *
 * What a capture cuts away is told apart from what is impossible: a TCP
 * header whose options are cut keeps its fixed 20 bytes, and the payload's
 * length is what the IP header says, whatever was captured. An IP length of
 * 0 (segmentation offload) is taken from the length on the wire.
 */
#ifndef ND_NET_PACKET_H
#define ND_NET_PACKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum nd_packet_stop {
    ND_STOP_NONE,      /* IP and transport headers are whole */
    ND_STOP_LINK,      /* link header cut or of an unknown kind */
    ND_STOP_NOT_IP,    /* ARP, LLDP, ...: a frame, but no IP packet */
    ND_STOP_IP,        /* IP header cut or impossible */
    ND_STOP_TRANSPORT, /* transport header cut or impossible */
    ND_STOP_PROTOCOL   /* IP is whole, the transport is not one of ours */
};

struct nd_span {
    const uint8_t *bytes; /* NULL: not there */
    size_t length;
};

struct nd_packet {
    int64_t time;         /* ns since 1970 */
    uint64_t number;      /* in the file, from 0; whoever reads it sets it */
    uint32_t wire_length; /* of the frame */
    enum nd_packet_stop stopped;
    const char *reason;   /* why, in words; NULL for ND_STOP_NONE */
    uint8_t ip_version;   /* 4, 6; 0 when there is no IP header */
    uint8_t protocol;     /* transport: 6, 17, 1, 58; after IPv6 extensions.
                             Of a later IPv6 fragment: any number */
    bool later_fragment;  /* not the first fragment: no transport header */
    bool fragment;        /* any fragment */
    uint32_t fragment_id; /* IPv4 id or IPv6 fragment identification */
    struct nd_span ip;    /* fixed header and IPv4 options; no extensions */
    struct nd_span transport; /* header with TCP options (as far as they were
                                 captured); 8 bytes of ICMP */
    uint32_t payload_length;  /* after the transport header, as IP says */
    uint8_t source[16];       /* IPv4 in the first four bytes, rest 0 */
    uint8_t destination[16];
    uint16_t source_port; /* 0 for ICMP */
    uint16_t destination_port;
};

/* Link types (values of DLT_ on Linux) that nd_packet_parse() knows. */
enum nd_link {
    ND_LINK_NULL = 0,
    ND_LINK_ETHERNET = 1,
    ND_LINK_PPP = 9,
    ND_LINK_RAW = 12,
    ND_LINK_PPP_SERIAL = 50,
    ND_LINK_PPP_ETHER = 51,
    ND_LINK_LOOP = 108,
    ND_LINK_COOKED = 113,
    ND_LINK_IPV4 = 228,
    ND_LINK_IPV6 = 229,
    ND_LINK_COOKED2 = 276
};

bool nd_packet_knows_link(int link_type);

/* link_type: a DLT_ value as libpcap gives it. */
void nd_packet_parse(struct nd_packet *packet, int link_type,
                     const uint8_t *bytes, size_t captured,
                     uint32_t wire_length, int64_t time);

#endif
