#include "bytes.h"
#include "checksum.h"
#include "icmp.h"
#include "payload.h"
#include "repair_flow.h"

/*
 * Steps to bytes to cells. Derived fields and checksums are made here and
 * nowhere else in repair.
 */

enum {
    IPV4_FIXED = 20,
    IPV6_FIXED = 40,
    TCP_FIXED = 20,
    SHORT_HEADER = 8, /* UDP, ICMP */
    ETHERNET_BYTES = 14,
    ETHERNET_LEAST = 60, /* of a frame, its check sequence left out */
    ADDRESS4_AT = 12,
    ADDRESS6_AT = 8
};

struct wire {
    uint8_t ip[60];
    uint8_t transport[60];
    size_t ip_bytes, transport_bytes;
    size_t extension_bytes; /* between them; they have no cells */
};

static void
put32(uint8_t *bytes, uint32_t value)
{
    nd_put16(bytes, value >> 16);
    nd_put16(bytes + 2, value & 0xffff);
}

/* RFC 791 section 3.1 */
static void
write_ipv4(const struct nd_draft *flow, const struct nd_step *step,
           struct wire *w)
{
    uint8_t *b = w->ip;
    w->ip_bytes = IPV4_FIXED + (size_t)step->ip_options.length;
    b[0] = (uint8_t)(4 << 4 | w->ip_bytes / 4);
    b[1] = step->tos;
    nd_put16(b + 2, (uint32_t)(w->ip_bytes + w->transport_bytes) +
                        step->payload);
    nd_put16(b + 4, step->ip_id);
    nd_put16(b + 6, (uint32_t)step->df << 14 | (uint32_t)step->mf << 13 |
                        step->offset);
    b[8] = step->ttl;
    b[9] = flow->protocol;
    nd_put16(b + 10, 0);
    memcpy(b + ADDRESS4_AT, flow->ends.address[step->direction], 4);
    memcpy(b + ADDRESS4_AT + 4, flow->ends.address[!step->direction], 4);
    memcpy(b + IPV4_FIXED, step->ip_options.bytes, step->ip_options.length);
    nd_put16(b + 10, nd_checksum_end(nd_checksum_add(0, b, w->ip_bytes)));
}

/* RFC 8200 section 3; the flow label is one a sender, RFC 6437 section 3 */
static void
write_ipv6(const struct nd_draft *flow, const struct nd_step *step,
           struct wire *w)
{
    uint8_t *b = w->ip;
    uint32_t label = (uint32_t)nd_chance(
        flow, ND_FOR_LABEL + (unsigned)step->direction, 0) & 0xfffff;
    uint8_t next = flow->protocol;
    w->ip_bytes = IPV6_FIXED;
    if (step->mf || step->later) {
        w->extension_bytes = SHORT_HEADER;
        next = 44;
    } else if (flow->protocol == ND_PROTOCOL_ICMP6 &&
               nd_icmp_hop_by_hop(6, step->icmp_type) > 0) {
        w->extension_bytes = SHORT_HEADER;
        next = 0;
    }
    put32(b, UINT32_C(6) << 28 | (uint32_t)step->tos << 20 | label);
    nd_put16(b + 4, (uint32_t)(w->extension_bytes + w->transport_bytes) +
                        step->payload);
    b[6] = next;
    b[7] = step->ttl;
    memcpy(b + ADDRESS6_AT, flow->ends.address[step->direction], 16);
    memcpy(b + ADDRESS6_AT + 16, flow->ends.address[!step->direction], 16);
}

/* RFC 9293 section 3.1 */
static void
write_tcp(const struct nd_draft *flow, const struct nd_step *step,
          struct wire *w)
{
    uint8_t *b = w->transport;
    size_t n = step->tcp_options.length;
    w->transport_bytes = TCP_FIXED + n;
    nd_put16(b, flow->ends.port[step->direction]);
    nd_put16(b + 2, flow->ends.port[!step->direction]);
    put32(b + 4, step->seq);
    put32(b + 8, step->ack);
    nd_put16(b + 12, (uint32_t)(w->transport_bytes / 4) << 12 | step->flags);
    nd_put16(b + 14, step->window);
    nd_put16(b + 16, 0);
    nd_put16(b + 18, step->flags & ND_TCP_URG ? step->payload : 0);
    memcpy(b + TCP_FIXED, step->tcp_options.bytes, n);
}

/* RFC 768 */
static void
write_udp(const struct nd_draft *flow, const struct nd_step *step,
          struct wire *w)
{
    uint8_t *b = w->transport;
    w->transport_bytes = SHORT_HEADER;
    nd_put16(b, flow->ends.port[step->direction]);
    nd_put16(b + 2, flow->ends.port[!step->direction]);
    nd_put16(b + 4, (uint32_t)SHORT_HEADER + step->datagram);
    nd_put16(b + 6, 0);
}

/* RFC 792, RFC 4443 section 2.1 */
static void
write_icmp(const struct nd_step *step, struct wire *w)
{
    uint8_t *b = w->transport;
    w->transport_bytes = SHORT_HEADER;
    b[0] = step->icmp_type;
    b[1] = step->icmp_code;
    nd_put16(b + 2, 0);
    put32(b + 4, step->rest);
}

/* Where the checksum stands in the transport header. */
static size_t
checksum_at(uint8_t protocol)
{
    return protocol == ND_PROTOCOL_TCP ? 16
           : protocol == ND_PROTOCOL_UDP ? 6 : 2;
}

/* RFC 9293 section 3.1, RFC 8200 section 8.1; ICMP has no pseudo-header. */
static void
write_checksum(const struct nd_draft *flow, const struct nd_step *step,
               uint32_t number, struct nd_causes *causes, struct wire *w)
{
    uint8_t head[ND_PAYLOAD_HEAD];
    struct nd_payload payload = {
        .ip_version = flow->ip_version, .protocol = flow->protocol,
        .direction = step->direction, .number = number,
        .length = step->payload, .transport = w->transport,
        .ends = &flow->ends,
        .cause = nd_causes_find(causes, step->direction),
    };
    uint64_t sum = 0;
    if (flow->protocol != ND_PROTOCOL_ICMP)
        sum = nd_checksum_pseudo(0, w->ip, flow->protocol,
                                 (uint32_t)w->transport_bytes + step->datagram);
    sum = nd_checksum_add(sum, w->transport, w->transport_bytes);
    sum = nd_checksum_add(sum, head, nd_payload_head(&payload, head));
    uint16_t checksum = nd_checksum_end(sum);
    if (checksum == 0 && flow->protocol == ND_PROTOCOL_UDP)
        checksum = 0xffff;
    nd_put16(w->transport + checksum_at(flow->protocol), checksum);
    nd_causes_note(causes, &payload, !step->mf);
}

/*
 * Bytes to cells: each cell takes one bit of a copy of the byte, and what is
 * not zero becomes one.
 */
static void
write_cells(int8_t *cells, const uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint64_t x = bytes[i] * UINT64_C(0x0101010101010101) &
                     UINT64_C(0x0102040810204080);
        x = (x + UINT64_C(0x7f7f7f7f7f7f7f7f)) >> 7 &
            UINT64_C(0x0101010101010101);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        x = __builtin_bswap64(x);
#endif
        memcpy(cells + 8 * i, &x, sizeof x);
    }
}

static void
write_row(const struct nd_draft *flow, const struct wire *w, int8_t *row)
{
    memset(row, -1, ND_ROW_CELLS);
    if (flow->ip_version == 6) {
        write_cells(row + ND_CELL_IPV6, w->ip, ADDRESS6_AT);
    } else {
        write_cells(row + ND_CELL_IPV4, w->ip, ADDRESS4_AT);
        write_cells(row + ND_CELL_IPV4_OPTIONS, w->ip + IPV4_FIXED,
                    w->ip_bytes - IPV4_FIXED);
    }
    size_t cell = flow->protocol == ND_PROTOCOL_TCP   ? ND_CELL_TCP
                  : flow->protocol == ND_PROTOCOL_UDP ? ND_CELL_UDP
                                                      : ND_CELL_ICMP;
    write_cells(row + cell, w->transport, w->transport_bytes);
}

void
nd_repair_write(const struct nd_draft *flow, const struct nd_repaired *out)
{
    uint32_t sent[2] = {0, 0};
    struct nd_causes causes = {.known = {false, false}};
    for (size_t i = 0; i < flow->n; i++) {
        const struct nd_step *step = &flow->steps[i];
        struct wire w = {.extension_bytes = 0};
        if (step->later)
            w.transport_bytes = 0;
        else if (flow->protocol == ND_PROTOCOL_TCP)
            write_tcp(flow, step, &w);
        else if (flow->protocol == ND_PROTOCOL_UDP)
            write_udp(flow, step, &w);
        else
            write_icmp(step, &w);
        if (flow->ip_version == 6)
            write_ipv6(flow, step, &w);
        else
            write_ipv4(flow, step, &w);
        if (!step->later)
            write_checksum(flow, step, sent[step->direction], &causes, &w);
        sent[step->direction]++;
        write_row(flow, &w, out->rows + i * ND_ROW_CELLS);
        out->times[i] = step->time;
        out->directions[i] = step->direction;
        uint32_t length = (uint32_t)(ETHERNET_BYTES + w.ip_bytes +
                                     w.extension_bytes + w.transport_bytes +
                                     step->payload);
        bool padded = flow->host[step->direction].pads &&
                      length < ETHERNET_LEAST;
        out->wire_length[i] = padded ? ETHERNET_LEAST : length;
    }
    *out->ends = flow->ends;
    *out->ip_version = flow->ip_version;
    *out->protocol = flow->protocol;
}
