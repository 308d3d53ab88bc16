/*
 * layout.h - the table of header fields and the layouts made of them
 *
 * In:      nothing; the tables are constant.
 * Out:     nd_fields[] says of every field its nPrint name, header, place in
 *          that header, width and role; a layout says at which cell of a row
 *          a field starts. Single source of truth for encode, canonical form,
 *          repair, nPrint files and the names that Python shows.
 * Errors:  nd_layout_find() returns NULL for an unknown name.
 * Memory:  static constant tables.
 * Threads: pure functions, no state.
 * Python:  _core.layouts.  Tests: tests/test_layout.py
 *
 * Cells are int8: 1 and 0 are bits, -1 is "this header is not there". The
 * most significant bit comes first.
 */
#ifndef ND_NET_LAYOUT_H
#define ND_NET_LAYOUT_H

#include <stddef.h>
#include <stdint.h>

enum nd_header {
    ND_HEADER_IPV4,
    ND_HEADER_IPV6,
    ND_HEADER_TCP,
    ND_HEADER_UDP,
    ND_HEADER_ICMP, /* ICMPv6 uses the same cells */
    ND_HEADER_MOTION,
    ND_HEADER_COUNT
};

/* What the canonical form does with a field; see canonical.h. */
enum nd_role {
    ND_ROLE_DRAWN,
    ND_ROLE_LENGTH,
    ND_ROLE_DERIVED,
    ND_ROLE_STATEFUL,
    ND_ROLE_PRIVATE
};

/* id, nPrint name, header, first bit in the header, bits, role */
#define ND_FIELD_LIST(X)                                                      \
    X(IPV4_VERSION, "ipv4_ver", IPV4, 0, 4, DERIVED)                          \
    X(IPV4_IHL, "ipv4_hl", IPV4, 4, 4, DERIVED)                               \
    X(IPV4_TOS, "ipv4_tos", IPV4, 8, 8, DRAWN)                                \
    X(IPV4_LENGTH, "ipv4_tl", IPV4, 16, 16, LENGTH)                           \
    X(IPV4_ID, "ipv4_id", IPV4, 32, 16, STATEFUL)                             \
    X(IPV4_RESERVED, "ipv4_rbit", IPV4, 48, 1, DERIVED)                       \
    X(IPV4_DF, "ipv4_dfbit", IPV4, 49, 1, DRAWN)                              \
    X(IPV4_MF, "ipv4_mfbit", IPV4, 50, 1, DRAWN)                              \
    X(IPV4_OFFSET, "ipv4_foff", IPV4, 51, 13, DERIVED)                        \
    X(IPV4_TTL, "ipv4_ttl", IPV4, 64, 8, DRAWN)                               \
    X(IPV4_PROTOCOL, "ipv4_proto", IPV4, 72, 8, DERIVED)                      \
    X(IPV4_CHECKSUM, "ipv4_cksum", IPV4, 80, 16, DERIVED)                     \
    X(IPV4_SOURCE, "ipv4_src", IPV4, 96, 32, PRIVATE)                         \
    X(IPV4_DESTINATION, "ipv4_dst", IPV4, 128, 32, PRIVATE)                   \
    X(IPV4_OPTIONS, "ipv4_opt", IPV4, 160, 320, DRAWN)                        \
    X(IPV6_VERSION, "ipv6_ver", IPV6, 0, 4, DERIVED)                          \
    X(IPV6_CLASS, "ipv6_tc", IPV6, 4, 8, DRAWN)                               \
    X(IPV6_FLOW, "ipv6_fl", IPV6, 12, 20, PRIVATE)                            \
    X(IPV6_LENGTH, "ipv6_len", IPV6, 32, 16, LENGTH)                          \
    X(IPV6_NEXT, "ipv6_nh", IPV6, 48, 8, DERIVED)                             \
    X(IPV6_HOPS, "ipv6_hl", IPV6, 56, 8, DRAWN)                               \
    X(IPV6_SOURCE, "ipv6_src", IPV6, 64, 128, PRIVATE)                        \
    X(IPV6_DESTINATION, "ipv6_dst", IPV6, 192, 128, PRIVATE)                  \
    X(TCP_SOURCE, "tcp_sprt", TCP, 0, 16, DRAWN)                              \
    X(TCP_DESTINATION, "tcp_dprt", TCP, 16, 16, DRAWN)                        \
    X(TCP_SEQ, "tcp_seq", TCP, 32, 32, STATEFUL)                              \
    X(TCP_ACK, "tcp_ackn", TCP, 64, 32, STATEFUL)                             \
    X(TCP_DATA_OFFSET, "tcp_doff", TCP, 96, 4, DERIVED)                       \
    X(TCP_RESERVED, "tcp_res", TCP, 100, 3, DERIVED)                          \
    X(TCP_NS, "tcp_ns", TCP, 103, 1, DRAWN)                                   \
    X(TCP_CWR, "tcp_cwr", TCP, 104, 1, DRAWN)                                 \
    X(TCP_ECE, "tcp_ece", TCP, 105, 1, DRAWN)                                 \
    X(TCP_URG, "tcp_urg", TCP, 106, 1, DRAWN)                                 \
    X(TCP_ACK_FLAG, "tcp_ackf", TCP, 107, 1, DRAWN)                           \
    X(TCP_PSH, "tcp_psh", TCP, 108, 1, DRAWN)                                 \
    X(TCP_RST, "tcp_rst", TCP, 109, 1, DRAWN)                                 \
    X(TCP_SYN, "tcp_syn", TCP, 110, 1, DRAWN)                                 \
    X(TCP_FIN, "tcp_fin", TCP, 111, 1, DRAWN)                                 \
    X(TCP_WINDOW, "tcp_wsize", TCP, 112, 16, DRAWN)                           \
    X(TCP_CHECKSUM, "tcp_cksum", TCP, 128, 16, DERIVED)                       \
    X(TCP_URGENT, "tcp_urp", TCP, 144, 16, DERIVED)                           \
    X(TCP_OPTIONS, "tcp_opt", TCP, 160, 320, DRAWN)                           \
    X(UDP_SOURCE, "udp_sport", UDP, 0, 16, DRAWN)                             \
    X(UDP_DESTINATION, "udp_dport", UDP, 16, 16, DRAWN)                       \
    X(UDP_LENGTH, "udp_len", UDP, 32, 16, DERIVED)                            \
    X(UDP_CHECKSUM, "udp_cksum", UDP, 48, 16, DERIVED)                        \
    X(ICMP_TYPE, "icmp_type", ICMP, 0, 8, DRAWN)                              \
    X(ICMP_CODE, "icmp_code", ICMP, 8, 8, DRAWN)                              \
    X(ICMP_CHECKSUM, "icmp_cksum", ICMP, 16, 16, DERIVED)                     \
    X(ICMP_REST, "icmp_roh", ICMP, 32, 32, STATEFUL)                          \
    X(MOTION_DIRECTION, "motion_direction", MOTION, 0, 1, DRAWN)              \
    X(MOTION_GAP, "motion_gap", MOTION, 1, 9, DRAWN)                          \
    X(MOTION_SEQ, "motion_seq", MOTION, 10, 2, DRAWN)                         \
    X(MOTION_ACK, "motion_ack", MOTION, 12, 2, DRAWN)                         \
    X(MOTION_ID, "motion_id", MOTION, 14, 2, DRAWN)

enum nd_field_id {
#define X(id, name, header, first, bits, role) ND_FIELD_##id,
    ND_FIELD_LIST(X)
#undef X
    ND_FIELD_COUNT
};

struct nd_field {
    const char *name;
    enum nd_header header;
    uint16_t first_bit; /* counted in the header */
    uint16_t bits;
    enum nd_role role;
};

struct nd_layout {
    const char *name;
    uint16_t cells;
    int16_t first_cell[ND_FIELD_COUNT]; /* -1: the layout leaves it out */
};

enum {
    ND_ROW_CELLS = 1088,       /* of netdiffusion-1088 */
    ND_MOTION_CELLS = 16,
    ND_CANONICAL_CELLS = 1104, /* netdiffusion-1088, then motion */
    ND_MAX_CELLS = 1408
};

extern const struct nd_field nd_fields[ND_FIELD_COUNT];

enum nd_layout_id {
    ND_LAYOUT_1088,      /* netdiffusion-1088, the default */
    ND_LAYOUT_4TUI,      /* nprint-4tui */
    ND_LAYOUT_46TUI,     /* nprint-46tui */
    ND_LAYOUT_CANONICAL, /* netdiffusion-canonical: 1088, then motion */
    ND_LAYOUT_COUNT
};

extern const struct nd_layout nd_layouts[ND_LAYOUT_COUNT];

const struct nd_layout *nd_layout_find(const char *name);

/* FNV-1a over names, first cells and widths, in cell order. */
uint64_t nd_layout_hash(const struct nd_layout *layout);

#endif
