#include "rows.h"

#include <string.h>

enum {
    IPV4_FIXED = 20,
    IPV4_ADDRESSES_AT = 12,
    IPV6_FIXED = 40,
    IPV6_ADDRESSES_AT = 8,
    TCP_FIXED = 20,
    UDP_BYTES = 8,
    ICMP_BYTES = 8,
    OPTIONS_MOST = 40,
    HEADER_MOST = 60
};

/* The eight cells of every byte, most significant bit first. */
#define BIT(b, n) (((b) >> (n)) & 1)
#define BYTE(b)                                                               \
    {BIT(b, 7), BIT(b, 6), BIT(b, 5), BIT(b, 4),                              \
     BIT(b, 3), BIT(b, 2), BIT(b, 1), BIT(b, 0)}
#define BYTES4(b) BYTE(b), BYTE((b) + 1), BYTE((b) + 2), BYTE((b) + 3)
#define BYTES16(b)                                                            \
    BYTES4(b), BYTES4((b) + 4), BYTES4((b) + 8), BYTES4((b) + 12)
#define BYTES64(b)                                                            \
    BYTES16(b), BYTES16((b) + 16), BYTES16((b) + 32), BYTES16((b) + 48)

static const int8_t cells_of_byte[256][8] = {BYTES64(0), BYTES64(64),
                                             BYTES64(128), BYTES64(192)};

uint32_t
nd_cells_get(const int8_t *cells, unsigned bits)
{
    uint32_t value = 0;
    for (unsigned i = 0; i < bits; i++)
        value = value << 1 | (uint32_t)(cells[i] > 0);
    return value;
}

void
nd_cells_set(int8_t *cells, unsigned bits, uint32_t value)
{
    for (unsigned i = 0; i < bits; i++)
        cells[i] = (int8_t)(value >> (bits - 1 - i) & 1);
}

void
nd_cells_clear(int8_t *cells, unsigned bits)
{
    memset(cells, -1, bits);
}

/* netdiffusion-canonical begins with netdiffusion-1088, cell for cell. */
static const struct nd_layout *const row_layout =
    &nd_layouts[ND_LAYOUT_CANONICAL];

uint32_t
nd_row_get(const int8_t *row, enum nd_field_id field)
{
    int16_t cell = row_layout->first_cell[field];
    return cell < 0 ? 0 : nd_cells_get(row + cell, nd_fields[field].bits);
}

void
nd_row_set(int8_t *row, enum nd_field_id field, uint32_t value)
{
    int16_t cell = row_layout->first_cell[field];
    if (cell >= 0)
        nd_cells_set(row + cell, nd_fields[field].bits, value);
}

/* First field of each header, and the one after its fixed part. */
static const struct {
    enum nd_field_id first, end;
} fixed_parts[] = {
    [ND_HEADER_IPV4] = {ND_FIELD_IPV4_VERSION, ND_FIELD_IPV4_SOURCE},
    [ND_HEADER_IPV6] = {ND_FIELD_IPV6_VERSION, ND_FIELD_IPV6_SOURCE},
    [ND_HEADER_TCP] = {ND_FIELD_TCP_SOURCE, ND_FIELD_TCP_OPTIONS},
    [ND_HEADER_UDP] = {ND_FIELD_UDP_SOURCE, ND_FIELD_ICMP_TYPE},
    [ND_HEADER_ICMP] = {ND_FIELD_ICMP_TYPE, ND_FIELD_MOTION_DIRECTION},
    [ND_HEADER_MOTION] = {ND_FIELD_MOTION_DIRECTION, ND_FIELD_COUNT},
};

bool
nd_layout_row_has(const struct nd_layout *layout, const int8_t *row,
                  enum nd_header header)
{
    size_t first = fixed_parts[header].first;
    size_t last = (size_t)fixed_parts[header].end - 1;
    if (layout->first_cell[first] < 0)
        return false;
    const int8_t *cells = row + layout->first_cell[first];
    size_t n = (size_t)(nd_fields[last].first_bit + nd_fields[last].bits);
    size_t there = 0;
    for (size_t i = 0; i < n; i++)
        there += cells[i] >= 0;
    return there > n / 2;
}

bool
nd_row_has(const int8_t *row, enum nd_header header)
{
    return nd_layout_row_has(row_layout, row, header);
}

static uint32_t
layout_get(const struct nd_layout *layout, const int8_t *row,
           enum nd_field_id field)
{
    return nd_cells_get(row + layout->first_cell[field],
                        nd_fields[field].bits);
}

static enum nd_header
header_of_protocol(uint32_t protocol)
{
    switch (protocol) {
    case 6:
        return ND_HEADER_TCP;
    case 17:
        return ND_HEADER_UDP;
    case 1:
    case 58:
        return ND_HEADER_ICMP;
    default:
        return ND_HEADER_COUNT;
    }
}

enum nd_header
nd_layout_row_ip(const struct nd_layout *layout, const int8_t *row)
{
    if (nd_layout_row_has(layout, row, ND_HEADER_IPV4))
        return ND_HEADER_IPV4;
    if (nd_layout_row_has(layout, row, ND_HEADER_IPV6))
        return ND_HEADER_IPV6;
    return ND_HEADER_COUNT;
}

enum nd_header
nd_layout_row_transport(const struct nd_layout *layout, const int8_t *row)
{
    enum nd_header ip = nd_layout_row_ip(layout, row);
    enum nd_header said = ND_HEADER_COUNT;
    if (ip == ND_HEADER_IPV4)
        said = header_of_protocol(
            layout_get(layout, row, ND_FIELD_IPV4_PROTOCOL));
    else if (ip == ND_HEADER_IPV6)
        said =
            header_of_protocol(layout_get(layout, row, ND_FIELD_IPV6_NEXT));
    if (said != ND_HEADER_COUNT && nd_layout_row_has(layout, row, said))
        return said;
    for (int h = ND_HEADER_TCP; h <= ND_HEADER_ICMP; h++)
        if (nd_layout_row_has(layout, row, (enum nd_header)h))
            return (enum nd_header)h;
    return ND_HEADER_COUNT;
}

size_t
nd_cells_option_bytes(const int8_t *cells)
{
    size_t n = 0;
    while (n < OPTIONS_MOST * 8 && cells[n] >= 0)
        n++;
    return n / 32 * 4;
}

static void
put_bytes(int8_t *cells, const uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        memcpy(cells + i * 8, cells_of_byte[bytes[i]], 8);
}

static void
take_bytes(const int8_t *cells, uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        bytes[i] = (uint8_t)nd_cells_get(cells + i * 8, 8);
}

/*
 * Bytes [from, to) of a header as far as the span reaches, at the cells of
 * the field that starts there; nothing if the layout leaves that field out.
 */
static void
put_part(const struct nd_layout *layout, int8_t *row, enum nd_field_id field,
         struct nd_span span, size_t from, size_t to)
{
    int16_t cell = layout->first_cell[field];
    size_t end = span.length < to ? span.length : to;
    if (cell >= 0 && end > from)
        put_bytes(row + cell, span.bytes + from, end - from);
}

static void
encode_ip(const struct nd_layout *layout, const struct nd_packet *packet,
          int8_t *row)
{
    struct nd_span ip = packet->ip;
    if (packet->ip_version == 4) {
        put_part(layout, row, ND_FIELD_IPV4_VERSION, ip, 0,
                 IPV4_ADDRESSES_AT);
        put_part(layout, row, ND_FIELD_IPV4_SOURCE, ip, IPV4_ADDRESSES_AT,
                 IPV4_FIXED);
        put_part(layout, row, ND_FIELD_IPV4_OPTIONS, ip, IPV4_FIXED,
                 HEADER_MOST);
    } else if (packet->ip_version == 6) {
        put_part(layout, row, ND_FIELD_IPV6_VERSION, ip, 0,
                 IPV6_ADDRESSES_AT);
        put_part(layout, row, ND_FIELD_IPV6_SOURCE, ip, IPV6_ADDRESSES_AT,
                 IPV6_FIXED);
    }
}

void
nd_rows_encode(const struct nd_layout *layout, const struct nd_packet *packet,
               int8_t *row)
{
    memset(row, -1, layout->cells);
    if (packet->ip.bytes != NULL)
        encode_ip(layout, packet, row);
    if (packet->transport.bytes == NULL)
        return;
    switch (header_of_protocol(packet->protocol)) {
    case ND_HEADER_TCP:
        put_part(layout, row, ND_FIELD_TCP_SOURCE, packet->transport, 0,
                 HEADER_MOST);
        break;
    case ND_HEADER_UDP:
        put_part(layout, row, ND_FIELD_UDP_SOURCE, packet->transport, 0,
                 UDP_BYTES);
        break;
    case ND_HEADER_ICMP:
        put_part(layout, row, ND_FIELD_ICMP_TYPE, packet->transport, 0,
                 ICMP_BYTES);
        break;
    default:
        break;
    }
}

/* Both addresses, from the cells or, without them, from the flow's ends. */
static void
decode_addresses(const struct nd_layout *layout, const int8_t *row,
                 enum nd_field_id field, const struct nd_endpoints *ends,
                 uint8_t direction, uint8_t *bytes)
{
    size_t size = nd_fields[field].bits / 8;
    int16_t cell = layout->first_cell[field];
    if (cell >= 0) {
        take_bytes(row + cell, bytes, 2 * size);
        return;
    }
    memcpy(bytes, ends->address[direction & 1], size);
    memcpy(bytes + size, ends->address[~direction & 1], size);
}

static size_t
decode_ipv4(const struct nd_layout *layout, const int8_t *row,
            const struct nd_endpoints *ends, uint8_t direction,
            uint8_t *bytes)
{
    const int8_t *options = row + layout->first_cell[ND_FIELD_IPV4_OPTIONS];
    size_t n = nd_cells_option_bytes(options);
    take_bytes(row + layout->first_cell[ND_FIELD_IPV4_VERSION], bytes,
               IPV4_ADDRESSES_AT);
    decode_addresses(layout, row, ND_FIELD_IPV4_SOURCE, ends, direction,
                     bytes + IPV4_ADDRESSES_AT);
    take_bytes(options, bytes + IPV4_FIXED, n);
    return IPV4_FIXED + n;
}

static size_t
decode_ipv6(const struct nd_layout *layout, const int8_t *row,
            const struct nd_endpoints *ends, uint8_t direction,
            uint8_t *bytes)
{
    take_bytes(row + layout->first_cell[ND_FIELD_IPV6_VERSION], bytes,
               IPV6_ADDRESSES_AT);
    decode_addresses(layout, row, ND_FIELD_IPV6_SOURCE, ends, direction,
                     bytes + IPV6_ADDRESSES_AT);
    return IPV6_FIXED;
}

static size_t
decode_transport(const struct nd_layout *layout, const int8_t *row,
                 uint8_t *bytes)
{
    enum nd_header header = nd_layout_row_transport(layout, row);
    if (header == ND_HEADER_COUNT)
        return 0;
    const int8_t *cells = row + layout->first_cell[fixed_parts[header].first];
    size_t n = UDP_BYTES; /* as many as ICMP */
    if (header == ND_HEADER_TCP)
        n = TCP_FIXED + nd_cells_option_bytes(cells + TCP_FIXED * 8);
    take_bytes(cells, bytes, n);
    return n;
}

enum nd_status
nd_rows_decode(const struct nd_layout *layout, const int8_t *row,
               const struct nd_endpoints *ends, uint8_t direction,
               uint8_t *bytes, size_t *ip_length, size_t *transport_length,
               struct nd_error *err)
{
    enum nd_header ip = nd_layout_row_ip(layout, row);
    *ip_length = *transport_length = 0;
    if (ip == ND_HEADER_COUNT)
        return nd_fail(err, ND_FORMAT,
                       "a row of layout %s has no IP header: most of its IP "
                       "cells are -1",
                       layout->name);
    if (ip == ND_HEADER_IPV4)
        *ip_length = decode_ipv4(layout, row, ends, direction, bytes);
    else
        *ip_length = decode_ipv6(layout, row, ends, direction, bytes);
    *transport_length = decode_transport(layout, row, bytes + *ip_length);
    return ND_OK;
}

struct run {
    int16_t from, to;
    uint16_t cells;
};

/* The fields that both layouts hold, as runs that are whole in both. */
static size_t
common_runs(const struct nd_layout *from, const struct nd_layout *to,
            struct run runs[ND_FIELD_COUNT])
{
    size_t n = 0;
    for (size_t i = 0; i < ND_FIELD_COUNT; i++) {
        struct run r = {from->first_cell[i], to->first_cell[i],
                        nd_fields[i].bits};
        if (r.from < 0 || r.to < 0)
            continue;
        if (n > 0 && runs[n - 1].from + runs[n - 1].cells == r.from &&
            runs[n - 1].to + runs[n - 1].cells == r.to)
            runs[n - 1].cells = (uint16_t)(runs[n - 1].cells + r.cells);
        else
            runs[n++] = r;
    }
    return n;
}

void
nd_rows_convert(const struct nd_layout *from, const int8_t *in, size_t n,
                const struct nd_layout *to, int8_t *out)
{
    struct run runs[ND_FIELD_COUNT];
    size_t n_runs = common_runs(from, to, runs);
    for (size_t i = 0; i < n; i++) {
        const int8_t *source = in + i * from->cells;
        int8_t *target = out + i * to->cells;
        memset(target, -1, to->cells);
        for (size_t r = 0; r < n_runs; r++)
            memcpy(target + runs[r].to, source + runs[r].from,
                   runs[r].cells);
    }
}
