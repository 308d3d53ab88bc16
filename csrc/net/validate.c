#include "validate.h"

#include <string.h>

#include "bytes.h"
#include "checksum.h"
#include "icmp.h"
#include "payload.h"
#include "validate_internal.h"

enum {
    ICMP = 1, TCP = 6, UDP = 17, ICMP6 = 58,
    IPV4_FIXED = 20, IPV6_FIXED = 40, SHORT_HEADER = 8,
    ECHO_RING = 64
};

void
nd_violations_clear(struct nd_violations *violations)
{
    for (int r = 0; r < ND_RULE_COUNT; r++) {
        violations->packets[r] = 0;
        violations->first[r] = -1;
    }
    violations->broken = NULL;
}

/* Echo requests of both ends, the latest ECHO_RING of each. */
struct echoes {
    uint32_t id[2][ECHO_RING];
    size_t n[2];
};

/* The latest IPv4 fragment of a sender. */
struct part {
    bool any, ecn;
    uint32_t id;
};

struct watch {
    const struct nd_evidence *evidence;
    struct nd_violations *v;
    struct nd_tcp_watch tcp;
    struct echoes echoes;
    struct nd_causes causes;
    struct part part[2];
    uint32_t sent[2];
};

/* ---- IP --------------------------------------------------------------- */

/* RFC 791 section 3.1: every option but 0 and 1 has a length. */
static bool
ip_options_legal(const uint8_t *options, size_t n)
{
    for (size_t i = 0; i < n && options[i] != 0;) {
        if (options[i] == 1) {
            i++;
            continue;
        }
        size_t length = n - i < 2 ? 0 : options[i + 1];
        if (length < 2 || length > n - i)
            return false;
        i += length;
    }
    return true;
}

static void
check_ipv4(const struct nd_seen *seen, struct nd_violations *v)
{
    const uint8_t *ip = seen->ip;
    unsigned fragment = nd_get16(ip + 6);
    if ((ip[0] & 15u) * 4u != seen->ip_bytes ||
        nd_get16(ip + 2) < seen->ip_bytes + seen->transport_bytes)
        nd_note(v, ND_RULE_IP_LENGTH, seen->index);
    bool blocks = (nd_get16(ip + 2) - seen->ip_bytes) % 8 == 0;
    if (fragment & 0x8000 || (fragment & 0x4000 && fragment & 0x3fff) ||
        (fragment & 0x2000 && !blocks))
        nd_note(v, ND_RULE_IP_FRAGMENT, seen->index);
    if (ip[8] == 0)
        nd_note(v, ND_RULE_IP_TTL, seen->index);
    if (!ip_options_legal(ip + IPV4_FIXED, seen->ip_bytes - IPV4_FIXED))
        nd_note(v, ND_RULE_IP_OPTIONS, seen->index);
    /* a blank one is left to the hardware */
    if (nd_get16(ip + 10) != 0 &&
        nd_checksum_end(nd_checksum_add(0, ip, seen->ip_bytes)) != 0)
        nd_note(v, ND_RULE_IP_CHECKSUM, seen->index);
}

/* RFC 3168 section 5.3: a packet some of whose fragments have ECN is lost. */
static void
check_ecn(struct watch *w, const struct nd_seen *seen)
{
    struct part *last = &w->part[seen->direction];
    struct part now = {true, (seen->ip[1] & 3) != 0, nd_get16(seen->ip + 4)};
    bool first = (nd_get16(seen->ip + 6) & 0x1fff) == 0; /* ids may repeat */
    if (!first && last->any && last->id == now.id && last->ecn != now.ecn)
        nd_note(w->v, ND_RULE_IP_FRAGMENT, seen->index);
    *last = now;
}

static void
check_ipv6(const struct nd_seen *seen, struct nd_violations *v)
{
    if (nd_get16(seen->ip + 4) < seen->transport_bytes)
        nd_note(v, ND_RULE_IP_LENGTH, seen->index);
    if (seen->ip[7] == 0)
        nd_note(v, ND_RULE_IP_TTL, seen->index);
}

/* ---- UDP, ICMP -------------------------------------------------------- */

static void
check_udp(const struct nd_seen *seen, struct nd_violations *v)
{
    uint16_t length = nd_get16(seen->transport + 4);
    if (!seen->fragment && length != SHORT_HEADER + seen->payload)
        nd_note(v, ND_RULE_UDP_LENGTH, seen->index);
}

/* IANA "ICMP Type Numbers", "ICMPv6 type Numbers" */
static bool
icmp_assigned(uint8_t ip_version, uint8_t type)
{
    if (ip_version == 4)
        return type == 0 || (type >= 3 && type <= 5) || type == 8 ||
               (type >= 9 && type <= 18) || type == 30 ||
               (type >= 37 && type <= 43) || type == 253 || type == 254;
    return (type >= 1 && type <= 4) || type == 100 || type == 101 ||
           (type >= 127 && type <= 161) || (type >= 200 && type <= 201);
}

static void
check_echo(struct watch *w, const struct nd_seen *seen,
           const struct nd_icmp_message *m)
{
    struct echoes *e = &w->echoes;
    uint32_t id = nd_get32(seen->transport + 4);
    uint8_t d = seen->direction, peer = !d;
    if (m->rest == ND_REST_REQUEST)
        e->id[d][e->n[d]++ % ECHO_RING] = id;
    if (m->rest != ND_REST_REPLY || e->n[peer] == 0)
        return;
    for (size_t i = 0; i < e->n[peer] && i < ECHO_RING; i++)
        if (e->id[peer][i] == id)
            return;
    nd_note(w->v, ND_RULE_ICMP_ECHO, seen->index);
}

static void
check_icmp(struct watch *w, const struct nd_seen *seen, uint8_t version)
{
    uint8_t type = seen->transport[0];
    const struct nd_icmp_message *m = nd_icmp_find(version, type);
    if (!icmp_assigned(version, type))
        nd_note(w->v, ND_RULE_ICMP_TYPE, seen->index);
    if (m == NULL)
        return;
    if (!seen->fragment && seen->payload < m->least_body)
        nd_note(w->v, ND_RULE_ICMP_BODY, seen->index);
    if (m->hops == 255 && seen->ip[7] != 255)
        nd_note(w->v, ND_RULE_IP_TTL, seen->index);
    const uint8_t *from = w->evidence->ends.address[seen->direction];
    if (m->link_local && !nd_icmp_link_local(from))
        nd_note(w->v, ND_RULE_ICMP_LINK, seen->index);
    check_echo(w, seen, m);
}

/* ---- checksums -------------------------------------------------------- */

/* A UDP checksum covers what the UDP length tells, RFC 768. */
static uint32_t
covered_length(const struct nd_seen *seen, uint8_t protocol)
{
    uint16_t told = nd_get16(seen->transport + 4);
    if (protocol == UDP && told >= SHORT_HEADER)
        return told;
    return (uint32_t)seen->transport_bytes + seen->payload;
}

static bool
checksum_right(const struct nd_seen *seen, uint8_t protocol,
               const uint8_t *payload, size_t n)
{
    uint64_t sum = 0;
    uint32_t length = covered_length(seen, protocol);
    if (protocol == UDP && n > length - SHORT_HEADER)
        n = length - SHORT_HEADER;
    if (protocol != ICMP)
        sum = nd_checksum_pseudo(0, seen->ip, protocol, length);
    sum = nd_checksum_add(sum, seen->transport, seen->transport_bytes);
    return nd_checksum_end(nd_checksum_add(sum, payload, n)) == 0;
}

/* RFC 768: over IPv4 a UDP checksum may be left out. */
static bool
checksum_left_out(const struct nd_seen *seen, uint8_t protocol)
{
    return protocol == UDP && seen->ip[0] >> 4 == 4 &&
           nd_get16(seen->transport + 6) == 0;
}

static void
check_checksum(struct watch *w, const struct nd_seen *seen, uint8_t protocol)
{
    uint8_t head[ND_PAYLOAD_HEAD];
    struct nd_payload payload = {
        .ip_version = seen->ip[0] >> 4, .protocol = protocol,
        .direction = seen->direction, .number = w->sent[seen->direction],
        .length = seen->payload, .transport = seen->transport,
        .ends = &w->evidence->ends,
        .cause = nd_causes_find(&w->causes, seen->direction),
    };
    nd_causes_note(&w->causes, &payload, !seen->fragment);
    if (!w->evidence->known_payload || checksum_left_out(seen, protocol) ||
        (seen->fragment && protocol == ICMP6))
        return; /* ICMPv6 counts the length of all fragments */
    size_t n = nd_payload_head(&payload, head);
    if (!checksum_right(seen, protocol, head, n))
        nd_note(w->v, ND_RULE_CHECKSUM, seen->index);
}

/* ---- a flow ----------------------------------------------------------- */

static uint8_t
row_protocol(const int8_t *row, uint8_t version)
{
    if (nd_row_has(row, ND_HEADER_TCP))
        return TCP;
    if (nd_row_has(row, ND_HEADER_UDP))
        return UDP;
    return version == 6 ? ICMP6 : ICMP;
}

/* Source 0 may stand in a datagram that wants no answer, RFC 768. */
static void
check_ports(struct watch *w, const struct nd_seen *seen)
{
    const uint16_t *port = w->evidence->ends.port;
    uint16_t from = nd_get16(seen->transport);
    uint16_t to = nd_get16(seen->transport + 2);
    bool none = to == 0 || (from == 0 && w->evidence->protocol == TCP);
    if (none || from != port[seen->direction] || to != port[!seen->direction])
        nd_note(w->v, ND_RULE_PORT, seen->index);
}

static void
check_transport(struct watch *w, const struct nd_seen *seen,
                uint8_t protocol, uint8_t version)
{
    if (protocol != w->evidence->protocol)
        nd_note(w->v, ND_RULE_TRANSPORT, seen->index);
    if (protocol == TCP || protocol == UDP)
        check_ports(w, seen);
    check_checksum(w, seen, protocol);
    if (protocol == TCP)
        nd_validate_tcp(&w->tcp, seen, w->v);
    else if (protocol == UDP)
        check_udp(seen, w->v);
    else
        check_icmp(w, seen, version);
}

static uint32_t
payload_of(const struct nd_seen *seen, uint8_t version)
{
    uint32_t total = version == 6 ? nd_get16(seen->ip + 4)
                                  : nd_get16(seen->ip + 2);
    uint32_t headers = (uint32_t)seen->transport_bytes +
                       (version == 6 ? 0 : (uint32_t)seen->ip_bytes);
    return total > headers ? total - headers : 0;
}

/*
 * IPv6 extension headers stand between, and rows do not tell their length: 8
 * bytes before MLD and of a fragment, else unknown.
 */
static bool
has_extension(struct nd_seen *seen, uint8_t version, uint8_t protocol)
{
    if (version != 6 || seen->ip[6] == protocol)
        return false;
    enum { FRAGMENT = 44 };
    size_t known = 0;
    if (protocol == ICMP6 && seen->ip[6] == 0)
        known = nd_icmp_hop_by_hop(6, seen->transport[0]);
    seen->fragment = seen->ip[6] == FRAGMENT;
    if (seen->fragment)
        known = 8;
    if (known == 0 || seen->payload < known)
        return true;
    seen->payload -= (uint32_t)known;
    return false;
}

static void
check_packet(struct watch *w, size_t i)
{
    const struct nd_evidence *e = w->evidence;
    const int8_t *row = e->rows + i * ND_ROW_CELLS;
    uint8_t bytes[ND_MAX_HEADER_BYTES];
    struct nd_seen seen = {.direction = e->directions[i] & 1,
                           .index = (int64_t)i, .time = e->times[i]};
    if (nd_rows_decode(nd_layout_find("netdiffusion-1088"), row, &e->ends,
                       seen.direction, bytes, &seen.ip_bytes,
                       &seen.transport_bytes, NULL) != ND_OK) {
        nd_note(w->v, ND_RULE_HEADER, seen.index);
        return;
    }
    uint8_t version = seen.ip_bytes == IPV6_FIXED &&
                      nd_row_has(row, ND_HEADER_IPV6) ? 6 : 4;
    uint8_t protocol = row_protocol(row, version);
    seen.ip = bytes;
    seen.transport = bytes + seen.ip_bytes;
    seen.fragment = version == 4 && nd_get16(bytes + 6) & 0x3fff;
    seen.payload = payload_of(&seen, version);
    if (bytes[0] >> 4 != version || version != e->ip_version)
        nd_note(w->v, ND_RULE_IP_VERSION, seen.index);
    if (version == 6)
        check_ipv6(&seen, w->v);
    else
        check_ipv4(&seen, w->v);
    if (version == 4 && seen.fragment)
        check_ecn(w, &seen);
    if (seen.transport_bytes > 0 && !has_extension(&seen, version, protocol))
        check_transport(w, &seen, protocol, version);
    else if (seen.transport_bytes == 0 && version == 4 && !seen.fragment)
        nd_note(w->v, ND_RULE_TRANSPORT, seen.index);
    w->sent[seen.direction]++;
}

/* ---- TTL -------------------------------------------------------------- */

/* TTLs of one sender, its first and last packet without SYN, FIN, RST. */
struct hops {
    uint32_t counts[256];
    size_t first, last;
    bool any;
    unsigned before; /* of the packet before */
};

static uint8_t
row_ttl(const int8_t *row)
{
    return (uint8_t)nd_row_get(row, nd_row_has(row, ND_HEADER_IPV4)
                                        ? ND_FIELD_IPV4_TTL
                                        : ND_FIELD_IPV6_HOPS);
}

/* A message that lives on one link has a TTL of its own. */
static bool
one_link(const struct nd_evidence *e, const int8_t *row)
{
    if (e->protocol != ICMP && e->protocol != ICMP6)
        return false;
    const struct nd_icmp_message *m = nd_icmp_find(
        e->ip_version, (uint8_t)nd_row_get(row, ND_FIELD_ICMP_TYPE));
    return m != NULL && m->hops != 0;
}

/* Who answers a SYN or resets a connection may be another machine. */
static bool
is_control(const int8_t *row)
{
    return nd_row_has(row, ND_HEADER_TCP) &&
           (nd_row_get(row, ND_FIELD_TCP_SYN) |
            nd_row_get(row, ND_FIELD_TCP_FIN) |
            nd_row_get(row, ND_FIELD_TCP_RST));
}

static void
check_ttls(const struct nd_evidence *e, struct nd_violations *v)
{
    struct hops hops[2] = {{{0}, 0, 0, false, 0}, {{0}, 0, 0, false, 0}};
    for (size_t i = 0; i < e->n; i++) {
        const int8_t *row = e->rows + i * ND_ROW_CELLS;
        struct hops *h = &hops[e->directions[i] & 1];
        if (one_link(e, row))
            continue;
        h->counts[row_ttl(row)]++;
        if (is_control(row))
            continue;
        h->first = h->any ? h->first : i;
        h->last = i;
        h->any = true;
    }
    for (size_t i = 0; i < e->n; i++) {
        const int8_t *row = e->rows + i * ND_ROW_CELLS;
        struct hops *h = &hops[e->directions[i] & 1];
        unsigned ttl = row_ttl(row);
        if (one_link(e, row))
            continue;
        bool rises = ttl > h->before && ttl <= h->before + ND_TTL_RISE;
        if (ttl != 0 && h->counts[ttl] == 1 && i != h->first &&
            i != h->last && !is_control(row) && !rises)
            nd_note(v, ND_RULE_IP_TTL, (int64_t)i);
        h->before = ttl;
    }
}

/* Whether no packet is longer than those of a wire: offload shows nowhere. */
static bool
all_short(const struct nd_evidence *e)
{
    for (size_t i = 0; i < e->n; i++) {
        const int8_t *row = e->rows + i * ND_ROW_CELLS;
        bool v4 = nd_row_has(row, ND_HEADER_IPV4);
        uint32_t length = v4 ? nd_row_get(row, ND_FIELD_IPV4_LENGTH)
                             : nd_row_get(row, ND_FIELD_IPV6_LENGTH) +
                                   IPV6_FIXED;
        if (length > ND_WIRE_MTU)
            return false;
    }
    return true;
}

void
nd_validate_flow(const struct nd_evidence *evidence,
                 struct nd_violations *violations)
{
    struct watch w = {.evidence = evidence, .v = violations};
    w.tcp.end[0].scale = w.tcp.end[1].scale = -1;
    w.tcp.end[0].ahead = w.tcp.end[1].ahead = -1;
    w.tcp.wired = evidence->protocol == TCP && all_short(evidence);
    for (size_t i = 0; i < evidence->n; i++) {
        if (i > 0 && evidence->times[i] < evidence->times[i - 1])
            nd_note(violations, ND_RULE_TIME, (int64_t)i);
        check_packet(&w, i);
    }
    nd_validate_tcp_end(&w.tcp, violations);
    check_ttls(evidence, violations);
}

/* ---- a frame ---------------------------------------------------------- */

/* The sum that an offloading host leaves for its network card to complete. */
static bool
checksum_blank(const struct nd_seen *seen, uint8_t protocol)
{
    size_t at = protocol == TCP ? 16 : protocol == UDP ? 6 : 2;
    uint16_t is = nd_get16(seen->transport + at);
    if (is == 0)
        return protocol != UDP || seen->ip[0] >> 4 == 6;
    if (protocol == ICMP)
        return false;
    uint16_t pseudo = (uint16_t)~nd_checksum_end(nd_checksum_pseudo(
        0, seen->ip, protocol, covered_length(seen, protocol)));
    return is == pseudo;
}

static enum nd_checksum_state
frame_checksum(const struct nd_packet *p, const struct nd_seen *seen,
               size_t captured)
{
    size_t before = (size_t)(p->transport.bytes - p->ip.bytes) +
                    seen->transport_bytes;
    if (p->fragment || captured < before ||
        captured - before < seen->payload)
        return ND_CHECKSUM_UNKNOWN;
    if (checksum_left_out(seen, p->protocol) ||
        checksum_right(seen, p->protocol,
                       p->transport.bytes + seen->transport_bytes,
                       seen->payload))
        return ND_CHECKSUM_RIGHT;
    return checksum_blank(seen, p->protocol) ? ND_CHECKSUM_BLANK
                                             : ND_CHECKSUM_WRONG;
}

void
nd_validate_frame(const struct nd_packet *packet, size_t captured,
                  int64_t number, struct nd_violations *violations,
                  enum nd_checksum_state *state)
{
    struct nd_seen seen = {
        .ip = packet->ip.bytes, .ip_bytes = packet->ip.length,
        .transport = packet->transport.bytes,
        .transport_bytes = packet->transport.length,
        .payload = packet->payload_length, .index = number,
    };
    *state = ND_CHECKSUM_UNKNOWN;
    if (packet->stopped != ND_STOP_NONE || packet->later_fragment ||
        packet->transport.bytes == NULL)
        return;
    *state = frame_checksum(packet, &seen, captured);
    if (*state == ND_CHECKSUM_WRONG)
        nd_note(violations, ND_RULE_CHECKSUM, number);
}
