#include "writer.h"

#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "checksum.h"
#include "payload.h"
#include "rows.h"

enum {
    ETHERNET = 14,
    EXTENSION_MOST = 16,
    HEADERS_MOST = ETHERNET + ND_MAX_HEADER_BYTES + EXTENSION_MOST,
    FRAME_MOST = HEADERS_MOST + 65535,
    IPV6_FRAGMENT = 44,
    IPV6_AUTHENTICATION = 51,
    IPV6_NOTHING = 59
};

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
};

struct frame {
    size_t stored; /* headers and head of the payload; then zeros */
    uint32_t wire_length;
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

/* All packets in time order; the caller frees them. */
static struct place *
sorted_places(const struct nd_writer_flows *flows)
{
    size_t n = (size_t)flows->offsets[flows->n];
    struct place *places = malloc((n + 1) * sizeof *places);
    struct place *at = places;
    for (size_t f = 0; f < flows->n && places != NULL; f++) {
        uint32_t sent[2] = {0, 0};
        for (int64_t i = flows->offsets[f]; i < flows->offsets[f + 1]; i++)
            *at++ =
                (struct place){flows->timestamps[i], (uint32_t)f,
                               (uint32_t)(i - flows->offsets[f]),
                               sent[flows->direction[i] & 1]++};
    }
    if (places != NULL)
        qsort(places, n, sizeof *places, compare_places);
    return places;
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
 * section 4): PadN in options, no segments left in routing, an atomic
 * fragment (RFC 6946), or a later one where there is no transport header.
 */
static void
put_extension(uint8_t *at, uint8_t kind, uint8_t protocol, bool later)
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
    case IPV6_FRAGMENT:
        at[3] = later ? 8 : 0; /* offset, bytes */
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

/*
 * The first bytes of a payload that is not all zeros, put behind the headers;
 * they go into a checksum that was made for zeros.
 */
static size_t
put_payload(const struct nd_payload *payload, uint8_t *transport,
            size_t transport_length, bool sum)
{
    uint8_t head[ND_PAYLOAD_HEAD];
    size_t n = nd_payload_head(payload, head);
    size_t at = payload->protocol == 6 ? 16 : payload->protocol == 17 ? 6 : 2;
    memcpy(transport + transport_length, head, n);
    if (!sum || n == 0)
        return n;
    uint64_t old = (uint16_t)~nd_get16(transport + at);
    uint16_t checksum = nd_checksum_end(nd_checksum_add(old, head, n));
    if (checksum == 0 && payload->protocol == 17)
        checksum = 0xffff; /* RFC 768 */
    nd_put16(transport + at, checksum);
    return n;
}

/* Writes the headers of a row to the front of the writer's frame. */
static enum nd_status
build_frame(struct nd_writer *writer, const struct nd_writer_flows *flows,
            const struct place *place, struct frame *frame,
            struct nd_error *err)
{
    size_t index = (size_t)flows->offsets[place->flow] + place->packet;
    const int8_t *row = flows->rows + index * flows->layout->cells;
    uint8_t direction = flows->direction[index];
    uint8_t headers[ND_MAX_HEADER_BYTES] = {0};
    struct nd_endpoints ends;
    size_t ip = 0, transport = 0;
    memcpy(ends.address, flows->addresses + (size_t)place->flow * 32, 32);
    ends.port[0] = flows->ports[2 * (size_t)place->flow];
    ends.port[1] = flows->ports[2 * (size_t)place->flow + 1];
    enum nd_status status = nd_rows_decode(
        flows->layout, row, &ends, direction, headers, &ip, &transport, err);
    if (status != ND_OK)
        return status;
    uint8_t protocol = protocol_of(flows->layout, row);
    size_t extension = extension_length(headers);
    size_t body = ip_payload(headers, ip);
    if (body < extension + transport)
        body = extension + transport;
    if (flows->compute_checksums)
        nd_checksum_fill(headers, ip, transport, protocol,
                         (uint32_t)(body - extension - transport));
    uint8_t *at = writer->frame;
    put_ethernet(at, direction, headers[0] >> 4);
    memcpy(at + ETHERNET, headers, ip);
    if (extension > 0)
        put_extension(at + ETHERNET + ip, headers[6],
                      flow_protocol(flows, place->flow), protocol == 0);
    memcpy(at + ETHERNET + ip + extension, headers + ip, transport);
    struct nd_payload payload = {
        .ip_version = headers[0] >> 4, .protocol = protocol,
        .direction = direction & 1, .number = place->number,
        .length = (uint32_t)(body - extension - transport),
        .transport = headers + ip, .ends = &ends,
    };
    frame->stored = ETHERNET + ip + extension + transport;
    if (transport >= 8)
        frame->stored +=
            put_payload(&payload, writer->frame + ETHERNET + ip + extension,
                        transport, flows->compute_checksums);
    frame->wire_length = (uint32_t)(ETHERNET + ip + body);
    return ND_OK;
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

enum nd_status
nd_writer_write(struct nd_writer *writer,
                const struct nd_writer_flows *flows, struct nd_error *err)
{
    enum nd_status status = ND_OK;
    size_t n = (size_t)flows->offsets[flows->n];
    struct place *places = sorted_places(flows);
    if (places == NULL)
        return nd_fail(err, ND_NO_MEMORY, "no memory to sort %zu packets", n);
    for (size_t i = 0; i < n && status == ND_OK; i++) {
        struct frame frame = {0};
        status = build_frame(writer, flows, &places[i], &frame, err);
        if (status == ND_OK)
            status = nd_dump_put(writer->dump, writer->frame,
                                 frame.wire_length, frame.wire_length,
                                 places[i].time, err);
        memset(writer->frame, 0, frame.stored);
        if (status != ND_OK)
            status = name_packet(&places[i], status, err);
    }
    free(places);
    return status;
}
