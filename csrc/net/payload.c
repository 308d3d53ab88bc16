#include "payload.h"

#include <string.h>

#include "bytes.h"
#include "checksum.h"
#include "icmp.h"
#include "payload_port.h"

enum { ICMP = 1, TCP = 6, UDP = 17, ICMP6 = 58 };
enum { DISCARD_PORT = 9 }; /* RFC 863 */

/*
 * An error quotes the packet that caused it, RFC 792 and RFC 4443 section
 * 2.4: an IP header of the receiver and the header of its message. Where the
 * flow does not hold the cause that is a UDP datagram.
 */

/* At least as much as is quoted, whatever the message held. */
static uint32_t
quoted_length(const struct nd_payload *p, uint32_t ip_bytes)
{
    uint32_t quoted = p->length - ip_bytes;
    uint32_t had = p->cause != NULL ? 8 + p->cause->length : 0;
    return had > quoted ? had : quoted;
}

/* The transport header behind a quoted IP header, with its sum from there. */
static void
quote_transport(const struct nd_payload *p, uint64_t sum, uint32_t length,
                uint8_t *at)
{
    size_t checksum = p->cause != NULL ? 2 : 6;
    if (p->cause != NULL) {
        memcpy(at, p->cause->header, 8);
    } else {
        nd_put16(at, 49152);
        nd_put16(at + 2, DISCARD_PORT);
        nd_put16(at + 4, length);
    }
    nd_put16(at + checksum, 0);
    if (p->cause == NULL && p->ip_version == 4)
        return; /* left out, RFC 768 */
    uint16_t is = nd_checksum_end(nd_checksum_add(sum, at, 8));
    nd_put16(at + checksum, is == 0 && p->cause == NULL ? 0xffff : is);
}

static size_t
quote4(const struct nd_payload *p, uint8_t *head)
{
    if (p->length < 28)
        return 0;
    uint32_t length = quoted_length(p, 20);
    memset(head, 0, 28);
    head[0] = 0x45;
    nd_put16(head + 2, 20 + length);
    nd_put16(head + 4, p->number + 1);
    head[8] = 1;
    head[9] = p->cause != NULL ? ICMP : UDP;
    memcpy(head + 12, p->ends->address[!p->direction], 4);
    memcpy(head + 16, p->ends->address[p->direction], 4);
    nd_put16(head + 10, nd_checksum_end(nd_checksum_add(0, head, 20)));
    quote_transport(p, 0, length, head + 20);
    return 28;
}

static size_t
quote6(const struct nd_payload *p, uint8_t *head)
{
    if (p->length < 48)
        return 0;
    uint32_t length = quoted_length(p, 40);
    memset(head, 0, 48);
    head[0] = 0x60;
    nd_put16(head + 4, length);
    head[6] = p->cause != NULL ? ICMP6 : UDP;
    head[7] = 1;
    memcpy(head + 8, p->ends->address[!p->direction], 16);
    memcpy(head + 24, p->ends->address[p->direction], 16);
    quote_transport(p, nd_checksum_pseudo(0, head, head[6], length), length,
                    head + 40);
    return 48;
}

/*
 * Options of neighbor discovery, RFC 4861 section 4.6: type, length in units
 * of 8 bytes. One fills up to 255 units; more than that cannot be drawn in a
 * packet of 1,500 bytes.
 */
static size_t
option_at(const struct nd_payload *p, size_t at, uint8_t type, uint8_t *head)
{
    size_t units = p->length > at ? (p->length - at) / 8 : 0;
    if (units == 0)
        return at;
    head[at] = type;
    head[at + 1] = (uint8_t)(units > 255 ? 255 : units);
    return at + 2;
}

static size_t
discovery(const struct nd_payload *p, uint8_t *head)
{
    enum { SOURCE_LINK = 1, TARGET_LINK = 2, REDIRECTED = 4 };
    uint8_t type = p->transport[0];
    const uint8_t *from = p->ends->address[p->direction];
    const uint8_t *to = p->ends->address[!p->direction];
    memset(head, 0, ND_PAYLOAD_HEAD);
    switch (type) {
    case 133:
        return option_at(p, 0, SOURCE_LINK, head);
    case 134:
        return option_at(p, 8, SOURCE_LINK, head);
    case 135:
        memcpy(head, to, 16);
        return option_at(p, 16, SOURCE_LINK, head);
    case 136:
        memcpy(head, from, 16);
        return option_at(p, 16, TARGET_LINK, head);
    default: /* 137: the target is the destination itself */
        memcpy(head, to, 16);
        memcpy(head + 16, to, 16);
        return option_at(p, 32, TARGET_LINK, head);
    }
}

static size_t
icmp6_head(const struct nd_payload *p, uint8_t *head)
{
    uint8_t type = p->transport[0];
    if (nd_icmp_is_error(6, type))
        return quote6(p, head);
    if (type >= 133 && type <= 137) {
        const struct nd_icmp_message *m = nd_icmp_find(6, type);
        return p->length < m->least_body ? 0 : discovery(p, head);
    }
    return 0;
}

/*
 * A DNS message of any length from 12 bytes on: header, one question, and for
 * the rest a long name or the padding option of RFC 7830. Requests and
 * responses of one number have one id, RFC 1035 section 4.1.1.
 */
enum { DNS = 53, DHCP = 67, NTP = 123, MDNS = 5353, LLMNR = 5355,
       COAP = 5683 };

static size_t
dns_question(uint32_t length, uint8_t *at)
{
    static const uint8_t example[] = "\7example\3com"; /* RFC 6761 */
    size_t n = sizeof example;
    if (length >= 44)
        memcpy(at, example, n);
    else if (length >= 19) {
        n = length - 16;
        at[0] = (uint8_t)(n - 2);
        memset(at + 1, 'a', n - 2);
        at[n - 1] = 0;
    } else {
        n = 1;
        at[0] = 0;
    }
    nd_put16(at + n, 1);     /* A */
    nd_put16(at + n + 2, 1); /* IN */
    return n + 4;
}

static size_t
dns_message(const struct nd_payload *p, uint16_t port, uint32_t length,
            uint8_t *head)
{
    uint32_t flags = port == DNS ? (p->direction ? 0x8180 : 0x0100)
                     : p->direction ? (port == MDNS ? 0x8400 : 0x8000) : 0;
    if (length < 12)
        return 0;
    memset(head, 0, 12);
    nd_put16(head, (p->ends->port[0] + p->number) & 0xffff);
    nd_put16(head + 2, flags);
    if (length < 17)
        return 12;
    nd_put16(head + 4, 1);
    size_t n = 12 + dns_question(length, head + 12);
    if (length < 44)
        return n;
    uint32_t padding = length - 44;
    nd_put16(head + 10, 1);
    memset(head + n, 0, 15);
    nd_put16(head + n + 1, 41);   /* OPT, RFC 6891 section 6.1.2 */
    nd_put16(head + n + 3, 1232); /* size of a datagram */
    nd_put16(head + n + 9, 4 + padding);
    nd_put16(head + n + 11, 12); /* padding */
    nd_put16(head + n + 13, padding);
    return n + 15;
}

/* RFC 7252 section 3: header, payload marker, payload. */
static size_t
coap_message(const struct nd_payload *p, uint8_t *head)
{
    if (p->length < 4)
        return 0;
    head[0] = p->length == 5 ? 0x51 : 0x50;
    head[1] = p->direction == 0 ? 1 : 0x45; /* GET, 2.05 Content */
    nd_put16(head + 2, p->number + 1);
    if (p->length == 4)
        return 4;
    head[4] = p->length == 5 ? 1 : 0xff;
    return 5;
}

/* RFC 2131 section 2: a message without options but its type. */
static size_t
dhcp_message(const struct nd_payload *p, uint16_t port, uint8_t *head)
{
    static const uint8_t cookie[] = {0x63, 0x82, 0x53, 0x63};
    enum { OPTIONS = 240, TYPE = 53, END = 255 };
    bool client = port == DHCP + 1 || p->direction == 0;
    if (p->length <= OPTIONS)
        return 0;
    memset(head, 0, OPTIONS);
    head[0] = client ? 1 : 2;
    head[1] = 1; /* Ethernet */
    head[2] = 6;
    nd_put16(head + 4, p->ends->port[0] + 1u);
    nd_put16(head + 6, p->number + 1);
    memcpy(head + OPTIONS - sizeof cookie, cookie, sizeof cookie);
    head[OPTIONS] = END;
    if (p->length <= OPTIONS + 3)
        return OPTIONS + 1;
    head[OPTIONS] = TYPE;
    head[OPTIONS + 1] = 1;
    head[OPTIONS + 2] = client ? 1 : 2; /* discover, offer */
    head[OPTIONS + 3] = END;
    return OPTIONS + 4;
}

/* RFC 9327: what is too short for a time is a control message. */
static size_t
ntp_message(const struct nd_payload *p, uint8_t *head)
{
    if (p->length < 4 || p->length >= 48)
        return 0;
    head[0] = p->length < 12 ? 0x17 : 0x16;
    return 1;
}

/* RFC 1035 section 4.2.2: a length, then the message. */
static size_t
dns_stream(const struct nd_payload *p, uint16_t port, uint8_t *head)
{
    bool whole = p->length >= 14;
    head[0] = (uint8_t)(whole ? (p->length - 2) >> 8 : 0xff);
    head[1] = (uint8_t)(whole ? p->length - 2 : 0xff);
    if (!whole || p->length - 2 > UINT16_MAX)
        return p->length < 2 ? 1 : 2;
    return 2 + dns_message(p, port, p->length - 2, head + 2);
}

static bool
speaks_dns(uint8_t protocol, uint16_t port)
{
    return port == DNS || port == MDNS || (port == LLMNR && protocol == UDP);
}

/* Datagrams of services whose messages are made here, and their shortest. */
static const struct {
    uint16_t port, least;
} datagrams[] = {
    {DNS, 12},   {DHCP, 241},  {DHCP + 1, 241}, {NTP, 4},
    {MDNS, 12}, {LLMNR, 12}, {COAP, 4},
};

/* A version negotiation of RFC 9000, the shortest of QUIC's packets: readers
 * of QUIC find fault with shorter ones. Zeros pass. */
enum { QUIC_LEAST = 7 };

static bool
speaks_quic(const struct nd_endpoints *ends)
{
    for (int end = 0; end < 2; end++)
        if (ends->port[end] == 443 || ends->port[end] == 4433 ||
            ends->port[end] == 4443)
            return true;
    return false;
}

static uint32_t
datagram_least(uint16_t port)
{
    for (size_t i = 0; i < sizeof datagrams / sizeof *datagrams; i++)
        if (datagrams[i].port == port)
            return datagrams[i].least;
    return 0;
}

bool
nd_payload_faulted(uint8_t protocol, uint16_t port)
{
    return speaks_dns(protocol, port) ||
           (protocol == UDP && datagram_least(port) > 0) ||
           nd_port_head(protocol, port) != NULL;
}

bool
nd_payload_unfit(uint8_t protocol, uint16_t port)
{
    const struct nd_port_head *known = nd_port_head(protocol, port);
    return known != NULL && known->least == 0 && known->n == 0;
}

/*
 * The port whose reader is asked: that of the lower one, if it has any. Below
 * 1,024 most have.
 */
static uint16_t
service(uint8_t protocol, const struct nd_endpoints *ends)
{
    uint16_t a = ends->port[0], b = ends->port[1];
    uint16_t low = a < b ? a : b, high = a < b ? b : a;
    if (low == 0)
        return high;
    return low < 1024 || nd_payload_faulted(protocol, low) ? low : high;
}

bool
nd_payload_wary(uint8_t protocol, const struct nd_endpoints *ends)
{
    return nd_payload_faulted(protocol, service(protocol, ends));
}

uint32_t
nd_payload_least(uint8_t protocol, const struct nd_endpoints *ends)
{
    if (protocol != TCP && protocol != UDP)
        return 0;
    uint16_t port = service(protocol, ends);
    uint32_t least = protocol == UDP ? datagram_least(port) : 0;
    if (protocol == UDP && speaks_quic(ends))
        return QUIC_LEAST;
    const struct nd_port_head *known = nd_port_head(protocol, port);
    return least == 0 && known != NULL ? known->least : least;
}

static size_t
service_head(const struct nd_payload *p, uint8_t *head)
{
    uint16_t port = service(p->protocol, p->ends);
    const struct nd_port_head *known = nd_port_head(p->protocol, port);
    if (speaks_dns(p->protocol, port))
        return p->protocol == TCP ? dns_stream(p, port, head)
                                  : dns_message(p, port, p->length, head);
    if (p->protocol == UDP && (port == DHCP || port == DHCP + 1))
        return dhcp_message(p, port, head);
    if (p->protocol == UDP && port == NTP)
        return ntp_message(p, head);
    if (p->protocol == UDP && port == COAP)
        return coap_message(p, head);
    if (known == NULL)
        return 0;
    memcpy(head, known->head, known->n);
    return p->length < known->n ? p->length : known->n;
}

size_t
nd_payload_head(const struct nd_payload *payload,
                uint8_t head[ND_PAYLOAD_HEAD])
{
    if (payload->length == 0)
        return 0;
    if (payload->protocol == TCP || payload->protocol == UDP)
        return service_head(payload, head);
    if (payload->protocol == ICMP)
        return nd_icmp_is_error(4, payload->transport[0])
                   ? quote4(payload, head) : 0;
    if (payload->protocol == ICMP6)
        return icmp6_head(payload, head);
    return 0;
}

void
nd_causes_note(struct nd_causes *causes, const struct nd_payload *packet,
               bool whole)
{
    uint8_t d = packet->direction;
    bool icmp = packet->protocol == ICMP || packet->protocol == ICMP6;
    if (!icmp || !whole || !nd_icmp_is_quoted(packet->ip_version,
                                              packet->transport[0]))
        return;
    memcpy(causes->latest[d].header, packet->transport, 8);
    causes->latest[d].length = packet->length;
    causes->known[d] = true;
}

const struct nd_cause *
nd_causes_find(const struct nd_causes *causes, uint8_t direction)
{
    return causes->known[!direction] ? &causes->latest[!direction] : NULL;
}
