#include "packet.h"

#include <string.h>

#include "bytes.h"

enum {
    ETHER_IPV4 = 0x0800,
    ETHER_IPV6 = 0x86dd,
    ETHER_PPPOE = 0x8864,
    ETHER_MOST_LENGTH = 1500, /* up to here the field is a length */
    PPP_IPV4 = 0x0021,
    PPP_IPV6 = 0x0057,
    VLAN_MOST = 8,
    EXTENSIONS_MOST = 16,
    PROTOCOL_ICMP = 1,
    PROTOCOL_TCP = 6,
    PROTOCOL_UDP = 17,
    PROTOCOL_ICMPV6 = 58
};

static void
stop(struct nd_packet *packet, enum nd_packet_stop where, const char *reason)
{
    packet->stopped = where;
    packet->reason = reason;
}

/*
 * TCP, RFC 9293 section 3.1
 *  0                   1                   2                   3
 * |          source port          |       destination port        |
 * |                        sequence number                        |
 * |                    acknowledgment number                      |
 * | offset| rsvd  |     flags     |            window             |
 * |           checksum            |        urgent pointer         |
 * |                     options, offset - 5 words                 |
 */
static void
parse_tcp(struct nd_packet *packet, struct nd_cursor *cursor,
          uint32_t ip_payload)
{
    const uint8_t *header = nd_take(cursor, 20);
    if (header == NULL) {
        stop(packet, ND_STOP_TRANSPORT, "the TCP header is cut");
        return;
    }
    uint32_t length = (uint32_t)(header[12] >> 4) * 4;
    if (length < 20 || length > ip_payload) {
        stop(packet, ND_STOP_TRANSPORT, "the TCP data offset is impossible");
        return;
    }
    nd_limit(cursor, length - 20);
    packet->transport = (struct nd_span){header, 20 + cursor->left};
    packet->payload_length = ip_payload - length;
    packet->source_port = nd_get16(header);
    packet->destination_port = nd_get16(header + 2);
}

/*
 * UDP, RFC 768: source port, destination port, length, checksum
 * ICMP, RFC 792, and ICMPv6, RFC 4443: type, code, checksum, 4 bytes more
 */
static void
parse_eight(struct nd_packet *packet, struct nd_cursor *cursor,
            uint32_t ip_payload)
{
    bool udp = packet->protocol == PROTOCOL_UDP;
    const uint8_t *header = nd_take(cursor, 8);
    if (header == NULL) {
        stop(packet, ND_STOP_TRANSPORT,
             udp ? "the UDP header is cut" : "the ICMP header is cut");
        return;
    }
    packet->transport = (struct nd_span){header, 8};
    packet->payload_length = ip_payload - 8;
    if (udp) {
        packet->source_port = nd_get16(header);
        packet->destination_port = nd_get16(header + 2);
    }
}

/* ip_payload: bytes after the IP headers, as the IP header says. */
static void
parse_transport(struct nd_packet *packet, struct nd_cursor *cursor,
                uint32_t ip_payload)
{
    uint8_t icmp = packet->ip_version == 4 ? PROTOCOL_ICMP : PROTOCOL_ICMPV6;
    nd_limit(cursor, ip_payload);
    if (packet->later_fragment && packet->ip_version == 6) {
        /* what its next header field names stands in the first fragment */
        packet->payload_length = ip_payload;
        return;
    }
    if (packet->protocol != PROTOCOL_TCP &&
        packet->protocol != PROTOCOL_UDP && packet->protocol != icmp) {
        stop(packet, ND_STOP_PROTOCOL, "the transport is not TCP, UDP, ICMP");
        return;
    }
    if (packet->later_fragment)
        packet->payload_length = ip_payload;
    else if (packet->protocol == PROTOCOL_TCP)
        parse_tcp(packet, cursor, ip_payload);
    else
        parse_eight(packet, cursor, ip_payload);
}

/* Bytes of the frame from the IP header on, when the IP length is 0. */
static uint32_t
length_on_wire(const struct nd_packet *packet, size_t before_ip)
{
    return packet->wire_length > before_ip
               ? packet->wire_length - (uint32_t)before_ip
               : 0;
}

/*
 * IPv4, RFC 791 section 3.1
 * |version|  IHL  |      TOS      |         total length          |
 * |            identification     |0|D|M|    fragment offset      |
 * |      TTL      |   protocol    |           checksum            |
 * |             source            |          destination          |
 */
static void
parse_ipv4(struct nd_packet *packet, struct nd_cursor *cursor,
           size_t before_ip)
{
    const uint8_t *header = nd_take(cursor, 20);
    if (header == NULL) {
        stop(packet, ND_STOP_IP, "the IPv4 header is cut");
        return;
    }
    uint32_t length = (uint32_t)(header[0] & 15) * 4;
    uint32_t total = nd_get16(header + 2);
    if (total == 0)
        total = length_on_wire(packet, before_ip);
    if (header[0] >> 4 != 4) {
        stop(packet, ND_STOP_IP, "the IP version is not 4");
        return;
    }
    if (length < 20 || length > total) {
        stop(packet, ND_STOP_IP, "an IPv4 length is impossible");
        return;
    }
    if (nd_take(cursor, length - 20) == NULL) {
        stop(packet, ND_STOP_IP, "the IPv4 options are cut");
        return;
    }
    uint16_t offset = nd_get16(header + 6);
    packet->ip_version = 4;
    packet->ip = (struct nd_span){header, length};
    packet->protocol = header[9];
    packet->later_fragment = (offset & 0x1fff) != 0;
    packet->fragment = (offset & 0x3fff) != 0;
    packet->fragment_id = nd_get16(header + 4);
    memcpy(packet->source, header + 12, 4);
    memcpy(packet->destination, header + 16, 4);
    parse_transport(packet, cursor, total - length);
}

/* Extension headers whose second byte counts units of 8 bytes after the
 * first (RFC 8200 section 4, RFC 6275, RFC 7401, RFC 5533). */
static bool
counts_eights(uint8_t next)
{
    switch (next) {
    case 0:
    case 43:
    case 60:
    case 135:
    case 139:
    case 140:
        return true;
    default:
        return false;
    }
}

/*
 * Fragment header, RFC 8200 section 4.5
 * |  next header  |   reserved    |     fragment offset     |Res|M|
 * |                         identification                        |
 */
static void
parse_fragment_header(struct nd_packet *packet, const uint8_t *header)
{
    packet->fragment = true;
    packet->later_fragment = (nd_get16(header + 2) & 0xfff8) != 0;
    packet->fragment_id = nd_get32(header + 4);
}

/* The extension header `next`, or NULL; *length takes its length. */
static const uint8_t *
take_extension(struct nd_cursor *cursor, uint8_t next, uint32_t *length)
{
    const uint8_t *header = nd_take(cursor, 8);
    if (header == NULL)
        return NULL;
    *length = 8;
    if (counts_eights(next))
        *length += header[1] * 8U;
    else if (next == 51) /* authentication header, RFC 4302: units of 4 */
        *length = (header[1] + 2U) * 4;
    if (*length < 8)
        *length = 8;
    return nd_take(cursor, *length - 8) == NULL ? NULL : header;
}

/* Walks the extension headers; *left counts down what IP says is there. */
static bool
skip_extensions(struct nd_packet *packet, struct nd_cursor *cursor,
                uint8_t next, uint32_t *left)
{
    int n = 0;
    while (counts_eights(next) || next == 44 || next == 51) {
        uint32_t length = 0;
        const uint8_t *header = NULL;
        if (++n > EXTENSIONS_MOST) {
            stop(packet, ND_STOP_TRANSPORT,
                 "there are more than 16 IPv6 extension headers");
            return false;
        }
        header = take_extension(cursor, next, &length);
        if (header == NULL || length > *left) {
            stop(packet, ND_STOP_TRANSPORT,
                 "an IPv6 extension header is cut");
            return false;
        }
        if (next == 44)
            parse_fragment_header(packet, header);
        next = header[0];
        *left -= length;
        if (packet->later_fragment)
            break; /* what follows is data */
    }
    packet->protocol = next;
    return true;
}

/*
 * IPv6, RFC 8200 section 3
 * |version| traffic class |              flow label               |
 * |        payload length         |  next header  |   hop limit   |
 * |                     source, destination: 16 bytes each        |
 */
static void
parse_ipv6(struct nd_packet *packet, struct nd_cursor *cursor,
           size_t before_ip)
{
    const uint8_t *header = nd_take(cursor, 40);
    if (header == NULL) {
        stop(packet, ND_STOP_IP, "the IPv6 header is cut");
        return;
    }
    if (header[0] >> 4 != 6) {
        stop(packet, ND_STOP_IP, "the IP version is not 6");
        return;
    }
    uint32_t payload = nd_get16(header + 4);
    if (payload == 0) {
        payload = length_on_wire(packet, before_ip);
        payload = payload > 40 ? payload - 40 : 0;
    }
    packet->ip_version = 6;
    packet->ip = (struct nd_span){header, 40};
    memcpy(packet->source, header + 8, 16);
    memcpy(packet->destination, header + 24, 16);
    if (skip_extensions(packet, cursor, header[6], &payload))
        parse_transport(packet, cursor, payload);
}

static void
parse_ip(struct nd_packet *packet, struct nd_cursor *cursor, size_t before_ip)
{
    if (cursor->left == 0) {
        stop(packet, ND_STOP_IP, "the IP header is cut");
        return;
    }
    switch (cursor->bytes[0] >> 4) {
    case 4:
        parse_ipv4(packet, cursor, before_ip);
        break;
    case 6:
        parse_ipv6(packet, cursor, before_ip);
        break;
    default:
        stop(packet, ND_STOP_IP, "the IP version is neither 4 nor 6");
    }
}

/* What a link header says about the bytes behind it. */
enum next { NEXT_IPV4, NEXT_IPV6, NEXT_IP, NEXT_OTHER, NEXT_CUT };

/* PPP, RFC 1661 section 2: one or two bytes of protocol. The HDLC address
 * and control bytes before it may be left out (RFC 1662). */
static enum next
ppp_next(struct nd_cursor *cursor)
{
    uint16_t protocol = nd_u8(cursor);
    if (protocol == 0xff) {
        (void)nd_u8(cursor);
        protocol = nd_u8(cursor);
    }
    if ((protocol & 1) == 0)
        protocol = (uint16_t)(protocol << 8 | nd_u8(cursor));
    if (cursor->truncated)
        return NEXT_CUT;
    if (protocol == PPP_IPV4)
        return NEXT_IPV4;
    return protocol == PPP_IPV6 ? NEXT_IPV6 : NEXT_OTHER;
}

/* PPPoE, RFC 2516 section 4: version, type, code, session, length. */
static enum next
pppoe_next(struct nd_cursor *cursor)
{
    if (nd_take(cursor, 6) == NULL)
        return NEXT_CUT;
    return ppp_next(cursor);
}

/* IEEE 802.2 with SNAP (RFC 1042): AA AA 03, organisation 0, EtherType. */
static uint16_t
snap_type(struct nd_cursor *cursor)
{
    static const uint8_t snap[6] = {0xaa, 0xaa, 3, 0, 0, 0};
    const uint8_t *header = nd_take(cursor, 8);
    if (header == NULL || memcmp(header, snap, sizeof snap) != 0)
        return 0;
    return nd_get16(header + 6);
}

/* IEEE 802.1Q, 802.1ad and what came before it. */
static bool
is_vlan(uint16_t type)
{
    return type == 0x8100 || type == 0x88a8 || type == 0x9100 ||
           type == 0x9200;
}

static enum next
ethertype_next(struct nd_cursor *cursor, uint16_t type)
{
    for (int n = 0; is_vlan(type) && n < VLAN_MOST; n++) {
        (void)nd_u16(cursor);
        type = nd_u16(cursor);
    }
    if (cursor->truncated)
        return NEXT_CUT;
    if (type <= ETHER_MOST_LENGTH)
        type = snap_type(cursor);
    switch (type) {
    case ETHER_IPV4:
        return NEXT_IPV4;
    case ETHER_IPV6:
        return NEXT_IPV6;
    case ETHER_PPPOE:
        return pppoe_next(cursor);
    default:
        return NEXT_OTHER;
    }
}

/* BSD loopback: the address family in the byte order of the capturing
 * machine; IPv6 has a number of its own on each system. */
static enum next
family_next(struct nd_cursor *cursor)
{
    uint32_t family = nd_u32(cursor);
    if (cursor->truncated)
        return NEXT_CUT;
    if (family > 0xffff)
        family = family >> 24 | (family >> 8 & 0xff00);
    if (family == 2)
        return NEXT_IPV4;
    if (family == 10 || family == 24 || family == 28 || family == 30)
        return NEXT_IPV6;
    return NEXT_OTHER;
}

static enum next
ethernet_next(struct nd_cursor *cursor)
{
    const uint8_t *header = nd_take(cursor, 14);
    if (header == NULL)
        return NEXT_CUT;
    return ethertype_next(cursor, nd_get16(header + 12));
}

/* Linux cooked: the EtherType stands last (v1) or first (v2). */
static enum next
cooked_next(struct nd_cursor *cursor, size_t length, size_t type_at)
{
    const uint8_t *header = nd_take(cursor, length);
    if (header == NULL)
        return NEXT_CUT;
    uint16_t type = nd_get16(header + type_at);
    return type <= ETHER_MOST_LENGTH ? NEXT_OTHER
                                     : ethertype_next(cursor, type);
}

bool
nd_packet_knows_link(int link_type)
{
    switch (link_type) {
    case ND_LINK_NULL:
    case ND_LINK_ETHERNET:
    case ND_LINK_PPP:
    case ND_LINK_RAW:
    case ND_LINK_PPP_SERIAL:
    case ND_LINK_PPP_ETHER:
    case ND_LINK_LOOP:
    case ND_LINK_COOKED:
    case ND_LINK_IPV4:
    case ND_LINK_IPV6:
    case ND_LINK_COOKED2:
        return true;
    default:
        return false;
    }
}

static enum next
link_next(struct nd_cursor *cursor, int link_type)
{
    switch (link_type) {
    case ND_LINK_ETHERNET:
        return ethernet_next(cursor);
    case ND_LINK_NULL:
    case ND_LINK_LOOP:
        return family_next(cursor);
    case ND_LINK_PPP:
    case ND_LINK_PPP_SERIAL:
        return ppp_next(cursor);
    case ND_LINK_PPP_ETHER:
        return pppoe_next(cursor);
    case ND_LINK_COOKED:
        return cooked_next(cursor, 16, 14);
    case ND_LINK_COOKED2:
        return cooked_next(cursor, 20, 0);
    case ND_LINK_RAW:
        return NEXT_IP;
    case ND_LINK_IPV4:
        return NEXT_IPV4;
    case ND_LINK_IPV6:
        return NEXT_IPV6;
    default:
        return NEXT_OTHER;
    }
}

void
nd_packet_parse(struct nd_packet *packet, int link_type, const uint8_t *bytes,
                size_t captured, uint32_t wire_length, int64_t time)
{
    struct nd_cursor cursor = nd_cursor_over(bytes, captured);
    memset(packet, 0, sizeof *packet);
    packet->time = time;
    packet->wire_length = wire_length;
    enum next next = link_next(&cursor, link_type);
    size_t before_ip = captured - cursor.left;
    switch (next) {
    case NEXT_IPV4:
        parse_ipv4(packet, &cursor, before_ip);
        break;
    case NEXT_IPV6:
        parse_ipv6(packet, &cursor, before_ip);
        break;
    case NEXT_IP:
        parse_ip(packet, &cursor, before_ip);
        break;
    case NEXT_OTHER:
        stop(packet, ND_STOP_NOT_IP, "the frame does not hold IP");
        break;
    case NEXT_CUT:
        stop(packet, ND_STOP_LINK, "the link header is cut");
        break;
    }
}
