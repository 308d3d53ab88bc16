#include "writer.h"
#include "writer_fragment.h"

#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "checksum.h"
#include "icmp.h"
#include "rows.h"

enum {
    ETHERNET = 14,
    ETHERNET_LEAST = 60, /* of a frame, its check sequence left out */
    EXTENSION_MOST = 16,
    HEADERS_MOST = ETHERNET + ND_MAX_HEADER_BYTES + EXTENSION_MOST,
    FRAME_MOST = HEADERS_MOST + 65535,
    IPV6_FRAGMENT = 44,
    IPV6_AUTHENTICATION = 51,
    IPV6_NOTHING = 59
};

#define NO_CAUSE UINT32_MAX

struct nd_writer {
    struct nd_dump *dump;
    uint8_t frame[FRAME_MOST]; /* zeros behind the headers */
};

/* Where a packet stands in the arrays. */
struct place {
    int64_t time;
    uint32_t flow;
    uint32_t packet; /* in the flow */
    uint32_t number; /* earlier packets of its sender in the flow */
    uint32_t cause;  /* the packet that an ICMP error quotes, or NO_CAUSE */
};

struct frame {
    size_t stored; /* headers and head of the payload; then zeros */
    uint32_t wire_length;
};

/* What a row and its flow say. */
struct decoded {
    uint8_t headers[ND_MAX_HEADER_BYTES]; /* IP, then transport */
    size_t ip, transport;
    size_t extension; /* bytes between them */
    size_t body;      /* behind the IP header */
    struct nd_endpoints ends;
    struct nd_payload payload; /* points into this struct */
    struct nd_cause cause;
};

enum nd_status
nd_writer_open(const char *path, const struct nd_dump_options *options,
               struct nd_writer **out, struct nd_error *err)
{
    struct nd_writer *writer = calloc(1, sizeof *writer);
    *out = NULL;
    if (writer == NULL)
        return nd_fail(err, ND_NO_MEMORY, "no memory to write a capture");
    enum nd_status status =
        nd_dump_create(path, options, &writer->dump, err);
    if (status != ND_OK) {
        free(writer);
        return status;
    }
    *out = writer;
    return ND_OK;
}

enum nd_status
nd_writer_close(struct nd_writer *writer, struct nd_error *err)
{
    enum nd_status status = nd_dump_close(writer->dump, err);
    free(writer);
    return status;
}

void
nd_writer_destroy(struct nd_writer *writer)
{
    if (writer == NULL)
        return;
    nd_dump_destroy(writer->dump);
    free(writer);
}

static int
compare_places(const void *a, const void *b)
{
    const struct place *x = a;
    const struct place *y = b;
    if (x->time != y->time)
        return x->time < y->time ? -1 : 1;
    if (x->flow != y->flow)
        return x->flow < y->flow ? -1 : 1;
    return x->packet < y->packet ? -1 : x->packet > y->packet;
}

/* The IP protocol of the transport header in a row, 0 for none. */
static uint8_t
protocol_of(const struct nd_layout *layout, const int8_t *row)
{
    bool ipv6 = nd_layout_row_ip(layout, row) == ND_HEADER_IPV6;
    switch (nd_layout_row_transport(layout, row)) {
    case ND_HEADER_TCP:
        return 6;
    case ND_HEADER_UDP:
        return 17;
    case ND_HEADER_ICMP:
        return ipv6 ? 58 : 1;
    default:
        return 0;
    }
}

/* The protocol of a flow: of its first packet that has a transport. */
static uint8_t
flow_protocol(const struct nd_writer_flows *flows, size_t flow)
{
    uint8_t protocol = 0;
    for (int64_t i = flows->offsets[flow];
         i < flows->offsets[flow + 1] && protocol == 0; i++)
        protocol = protocol_of(flows->layout,
                               flows->rows + (size_t)i * flows->layout->cells);
    return protocol != 0 ? protocol : IPV6_NOTHING;
}

static uint32_t
field_of(const struct nd_layout *layout, const int8_t *row,
         enum nd_field_id id)
{
    int at = layout->first_cell[id];
    return at < 0 ? 0 : nd_cells_get(row + at, nd_fields[id].bits);
}

/* Whether an ICMP error may quote the packet: whole, a request or a reply. */
static bool
is_quoted(const struct nd_layout *layout, const int8_t *row)
{
    if (nd_layout_row_transport(layout, row) != ND_HEADER_ICMP)
        return false;
    bool ipv6 = nd_layout_row_ip(layout, row) == ND_HEADER_IPV6;
    bool part = ipv6 ? field_of(layout, row, ND_FIELD_IPV6_NEXT) ==
                           IPV6_FRAGMENT
                     : field_of(layout, row, ND_FIELD_IPV4_MF) |
                           field_of(layout, row, ND_FIELD_IPV4_OFFSET);
    return !part && nd_icmp_is_quoted(
        ipv6 ? 6 : 4, (uint8_t)field_of(layout, row, ND_FIELD_ICMP_TYPE));
}

/* The places of a flow's packets, in their order. */
static struct place *
flow_places(const struct nd_writer_flows *flows, size_t flow,
            struct place *at)
{
    uint8_t protocol = flow_protocol(flows, flow);
    bool icmp = protocol == 1 || protocol == 58;
    uint32_t sent[2] = {0, 0}, quoted[2] = {NO_CAUSE, NO_CAUSE};
    int64_t first = flows->offsets[flow];
    for (int64_t i = first; i < flows->offsets[flow + 1]; i++) {
        uint8_t d = flows->direction[i] & 1;
        uint32_t packet = (uint32_t)(i - first);
        *at++ = (struct place){flows->timestamps[i], (uint32_t)flow, packet,
                               sent[d]++, quoted[!d]};
        if (icmp && is_quoted(flows->layout, flows->rows +
                                  (size_t)i * flows->layout->cells))
            quoted[d] = packet;
    }
    return at;
}

/* All packets in time order; the caller frees them. */
static struct place *
sorted_places(const struct nd_writer_flows *flows)
{
    size_t n = (size_t)flows->offsets[flows->n];
    struct place *places = malloc((n + 1) * sizeof *places);
    struct place *at = places;
    for (size_t f = 0; f < flows->n && places != NULL; f++)
        at = flow_places(flows, f, at);
    if (places != NULL)
        qsort(places, n, sizeof *places, compare_places);
    return places;
}

static size_t
extension_length(const uint8_t *ip)
{
    if (ip[0] >> 4 != 6)
        return 0;
    switch (ip[6]) {
    case 0:   /* hop-by-hop options */
    case 43:  /* routing */
    case IPV6_FRAGMENT:
    case 60:  /* destination options */
    case 135: /* mobility */
    case 139: /* host identity */
    case 140: /* shim6 */
        return 8;
    case IPV6_AUTHENTICATION:
        return 16;
    default:
        return 0;
    }
}

/*
 * The smallest header of the kind that the IPv6 header names (RFC 8200
 * section 4): PadN in options, no segments left in routing. A fragment's is
 * completed by put_fragment().
 */
static void
put_extension(uint8_t *at, uint8_t kind, uint8_t protocol)
{
    memset(at, 0, 8);
    at[0] = protocol;
    switch (kind) {
    case 0:
        if (protocol == 58) { /* MLD: Router Alert, RFC 2711 section 2.1 */
            at[2] = 5;
            at[3] = 2;
            at[6] = 1; /* PadN */
            break;
        }
        /* fall through */
    case 60:
        at[2] = 1; /* PadN, 4 bytes of padding */
        at[3] = 4;
        break;
    case 43:
        at[2] = 253; /* experimental (RFC 4727) */
        break;
    case IPV6_AUTHENTICATION:
        memset(at + 8, 0, 8);
        at[1] = 2; /* 16 bytes */
        break;
    default:
        break;
    }
}

static void
put_fragment(uint8_t *at, const struct nd_fragment *fragment)
{
    nd_put16(at + 2, fragment->offset | (uint32_t)fragment->more);
    nd_put16(at + 4, fragment->id >> 16);
    nd_put16(at + 6, fragment->id & 0xffff);
}

/*
 * Checksums for a payload of zeros. ICMPv6 counts all of its packet's length,
 * so where fragments follow, what the row says stays.
 */
static void
put_checksums(struct decoded *d, const struct nd_fragment *fragment)
{
    uint8_t *transport = d->headers + d->ip;
    uint8_t row[2] = {transport[2], transport[3]};
    nd_checksum_fill(d->headers, d->ip, d->transport, d->payload.protocol,
                     d->payload.length);
    if (fragment->more && d->payload.protocol == 58)
        memcpy(transport + 2, row, sizeof row);
}

static void
put_ethernet(uint8_t *at, uint8_t direction, uint8_t ip_version)
{
    static const uint8_t ends[2][6] = {{2, 0, 0, 0, 0, 1},
                                       {2, 0, 0, 0, 0, 2}};
    memcpy(at, ends[~direction & 1], 6);
    memcpy(at + 6, ends[direction & 1], 6);
    nd_put16(at + 12, ip_version == 6 ? 0x86dd : 0x0800);
}

/* Bytes behind the IP header, as it says. */
static size_t
ip_payload(const uint8_t *ip, size_t ip_length)
{
    if (ip[0] >> 4 == 6)
        return nd_get16(ip + 4);
    size_t total = nd_get16(ip + 2);
    return total > ip_length ? total - ip_length : 0;
}

static enum nd_status
decode_row(const struct nd_writer_flows *flows, const struct place *place,
           struct decoded *d, struct nd_error *err)
{
    size_t index = (size_t)flows->offsets[place->flow] + place->packet;
    const int8_t *row = flows->rows + index * flows->layout->cells;
    uint8_t direction = flows->direction[index];
    memset(d, 0, sizeof *d);
    memcpy(d->ends.address, flows->addresses + (size_t)place->flow * 32, 32);
    d->ends.port[0] = flows->ports[2 * (size_t)place->flow];
    d->ends.port[1] = flows->ports[2 * (size_t)place->flow + 1];
    enum nd_status status =
        nd_rows_decode(flows->layout, row, &d->ends, direction, d->headers,
                       &d->ip, &d->transport, err);
    if (status != ND_OK)
        return status;
    size_t before = extension_length(d->headers) + d->transport;
    d->extension = before - d->transport;
    d->body = ip_payload(d->headers, d->ip);
    if (d->body < before)
        d->body = before;
    d->payload = (struct nd_payload){
        .ip_version = d->headers[0] >> 4,
        .protocol = protocol_of(flows->layout, row),
        .direction = direction & 1, .number = place->number,
        .length = (uint32_t)(d->body - before),
        .transport = d->headers + d->ip, .ends = &d->ends,
    };
    return ND_OK;
}

/* The message that an ICMP error quotes. */
static void
decode_cause(const struct nd_writer_flows *flows, const struct place *place,
             struct decoded *d)
{
    struct place at = *place;
    struct decoded cause;
    at.packet = place->cause;
    if (place->cause == NO_CAUSE ||
        !nd_icmp_is_error(d->payload.ip_version, d->headers[d->ip]) ||
        decode_row(flows, &at, &cause, NULL) != ND_OK)
        return;
    memcpy(d->cause.header, cause.payload.transport, sizeof d->cause.header);
    d->cause.length = cause.payload.length;
    d->payload.cause = &d->cause;
}

/* The first bytes of a payload that is zeros otherwise. */
static size_t
put_head(const struct nd_payload *payload, uint8_t *bytes)
{
    uint8_t head[ND_PAYLOAD_HEAD];
    size_t n = nd_payload_head(payload, head);
    memcpy(bytes, head, n);
    return n;
}

/*
 * Puts a payload that is not all zeros behind the headers; it goes into a
 * checksum that was made for zeros. Returns how many bytes may not be zero.
 */
static size_t
put_payload(struct nd_plan *plan, const struct place *place,
            const struct nd_writer_flows *flows, const struct decoded *d,
            uint8_t *transport)
{
    const struct nd_payload *p = &d->payload;
    uint8_t *bytes = transport + d->transport;
    size_t n = p->length;
    if (plan == NULL)
        n = put_head(p, bytes);
    else
        nd_plan_fill(plan, place->flow,
                     (size_t)flows->offsets[place->flow] + place->packet, p,
                     bytes);
    size_t at = p->protocol == 6 ? 16 : p->protocol == 17 ? 6 : 2;
    if (!flows->compute_checksums || n == 0)
        return n;
    size_t covered = n, told = nd_get16(transport + 4);
    if (p->protocol == 17 && told >= 8 && told - 8 < n)
        covered = told - 8; /* of a longer packet the rest is no datagram */
    uint64_t old = (uint16_t)~nd_get16(transport + at);
    uint16_t checksum = nd_checksum_end(nd_checksum_add(old, bytes, covered));
    if (checksum == 0 && p->protocol == 17)
        checksum = 0xffff; /* RFC 768 */
    nd_put16(transport + at, checksum);
    return n;
}

/* Bytes of a frame with its padding, if it had some. */
static uint32_t
padded_length(const struct nd_writer_flows *flows, const struct place *place,
              size_t bytes)
{
    size_t packet = (size_t)flows->offsets[place->flow] + place->packet;
    bool padded = flows->wire_length != NULL && bytes < ETHERNET_LEAST &&
                  flows->wire_length[packet] == ETHERNET_LEAST;
    return padded ? ETHERNET_LEAST : (uint32_t)bytes;
}

/* Writes a packet to the front of the writer's frame. */
static enum nd_status
build_frame(struct nd_writer *writer, const struct nd_writer_flows *flows,
            struct nd_plan *plan, const struct place *place,
            struct frame *frame, struct nd_error *err)
{
    struct decoded d;
    enum nd_status status = decode_row(flows, place, &d, err);
    if (status != ND_OK)
        return status;
    decode_cause(flows, place, &d);
    struct nd_fragment fragment = {.offset = 0};
    if (d.extension > 0 && d.headers[6] == IPV6_FRAGMENT)
        fragment = nd_writer_fragment(flows, place->flow, place->packet);
    if (flows->compute_checksums)
        put_checksums(&d, &fragment);
    uint8_t *at = writer->frame;
    uint8_t *transport = at + ETHERNET + d.ip + d.extension;
    put_ethernet(at, d.payload.direction, d.payload.ip_version);
    memcpy(at + ETHERNET, d.headers, d.ip);
    if (d.extension > 0)
        put_extension(at + ETHERNET + d.ip, d.headers[6],
                      flow_protocol(flows, place->flow));
    if (d.extension > 0 && d.headers[6] == IPV6_FRAGMENT)
        put_fragment(at + ETHERNET + d.ip, &fragment);
    memcpy(transport, d.headers + d.ip, d.transport);
    frame->stored = ETHERNET + d.ip + d.extension + d.transport;
    if (d.transport >= 8)
        frame->stored += put_payload(plan, place, flows, &d, transport);
    frame->wire_length = padded_length(flows, place, ETHERNET + d.ip + d.body);
    return ND_OK;
}

static void
plan_flow(struct nd_plan *plan, const struct nd_writer_flows *flows,
          size_t flow)
{
    int64_t first = flows->offsets[flow], last = flows->offsets[flow + 1];
    for (int64_t i = first; i < last || i == first; i++) {
        struct place place = {.flow = (uint32_t)flow,
                              .packet = (uint32_t)(i - first)};
        struct decoded d = {0};
        bool there = i < last && decode_row(flows, &place, &d, NULL) == ND_OK;
        if (i == first)
            nd_plan_flow(plan, &d.ends, d.payload.ip_version,
                         there ? flow_protocol(flows, flow) : 0,
                         i < last ? flows->timestamps[i] : 0);
        if (!there || d.transport < (d.payload.protocol == 6 ? 20 : 8))
            d.payload = (struct nd_payload){0};
        if (i < last)
            nd_plan_packet(plan, &d.payload);
    }
}

/* What the payloads shall be; no plan is needed for zeros. */
static enum nd_status
plan_payload(const struct nd_writer_flows *flows, struct nd_plan **plan,
             struct nd_error *err)
{
    *plan = NULL;
    if (flows->payload.mode == ND_PAYLOAD_ZEROS)
        return ND_OK;
    enum nd_status status =
        nd_plan_create(plan, &flows->payload, flows->n,
                       (size_t)flows->offsets[flows->n], err);
    for (size_t f = 0; f < flows->n && status == ND_OK; f++)
        plan_flow(*plan, flows, f);
    return status;
}

/* Says which packet of the arrays an error is about. */
static enum nd_status
name_packet(const struct place *place, enum nd_status status,
            struct nd_error *err)
{
    if (status != ND_FORMAT && status != ND_ARGUMENT)
        return status;
    struct nd_error told = *err;
    return nd_fail(err, status, "flow %u, packet %u: %.400s", place->flow,
                   place->packet, told.text);
}

/* Writes one packet, and leaves the frame zero again. */
static enum nd_status
write_packet(struct nd_writer *writer, const struct nd_writer_flows *flows,
             struct nd_plan *plan, const struct place *place,
             struct nd_error *err)
{
    struct frame frame = {0};
    enum nd_status status =
        build_frame(writer, flows, plan, place, &frame, err);
    if (status == ND_OK)
        status = nd_dump_put(writer->dump, writer->frame, frame.wire_length,
                             frame.wire_length, place->time, err);
    memset(writer->frame, 0, frame.stored);
    return status == ND_OK ? ND_OK : name_packet(place, status, err);
}

enum nd_status
nd_writer_write(struct nd_writer *writer,
                const struct nd_writer_flows *flows,
                struct nd_payload_told *told, struct nd_error *err)
{
    struct nd_plan *plan = NULL;
    size_t n = (size_t)flows->offsets[flows->n];
    struct place *places = sorted_places(flows);
    enum nd_status status = plan_payload(flows, &plan, err);
    if (places == NULL)
        status = nd_fail(err, ND_NO_MEMORY, "no memory to sort %zu packets",
                         n);
    for (size_t i = 0; i < n && status == ND_OK; i++)
        status = write_packet(writer, flows, plan, &places[i], err);
    if (plan != NULL && told != NULL)
        nd_plan_tell(plan, told);
    nd_plan_destroy(plan);
    free(places);
    return status;
}
