/* Rows and packets of any bytes through encode, decode, canonical, nPrint. */

#include <stdlib.h>
#include <string.h>

#include "net/canonical.h"
#include "net/nprint.h"

enum { MOST_ROWS = 8 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
check(bool good)
{
    if (!good)
        abort();
}

/* Cells of -1, 0 and 1 from bytes, two bits each, the bytes over and over. */
static void
fill_rows(const uint8_t *data, size_t size, int8_t *rows, size_t cells)
{
    for (size_t i = 0; i < cells; i++) {
        int bits = data[i / 4 % size] >> (i % 4 * 2) & 3;
        rows[i] = bits == 3 ? -1 : (int8_t)(bits & 1);
    }
}

static void
fuzz_decode(const struct nd_layout *layout, const int8_t *row)
{
    struct nd_endpoints ends = {{{10}, {20}}, {1, 2}};
    uint8_t bytes[ND_MAX_HEADER_BYTES];
    size_t ip, transport;
    struct nd_error err;
    if (nd_rows_decode(layout, row, &ends, 0, bytes, &ip, &transport, &err))
        return;
    check(ip >= 20 && ip + transport <= sizeof bytes);
}

/* What decode gives back encodes to a row that decodes to the same bytes. */
static void
fuzz_packet(const struct nd_layout *layout, const uint8_t *data, size_t size)
{
    struct nd_endpoints ends = {{{0}, {0}}, {0, 0}};
    struct nd_packet packet = {0};
    int8_t row[ND_MAX_CELLS];
    uint8_t bytes[ND_MAX_HEADER_BYTES];
    size_t ip_length, transport_length;
    static const uint8_t protocols[] = {6, 17, 1, 58};
    if (size < 3)
        return;
    packet.ip_version = data[0] & 1 ? 4 : 6;
    packet.protocol = protocols[data[0] >> 1 & 3];
    size_t ip = data[1] % (size - 1);
    ip = ip > 60 ? 60 : ip;
    packet.ip = (struct nd_span){data + 2, ip};
    packet.transport = (struct nd_span){data + 2 + ip, size - 2 - ip};
    nd_rows_encode(layout, &packet, row);
    for (size_t i = 0; i < layout->cells; i++)
        check(row[i] >= -1 && row[i] <= 1);
    if (nd_rows_decode(layout, row, &ends, 0, bytes, &ip_length,
                       &transport_length, NULL))
        return;
    bool whole = packet.ip_version == 4 ? ip >= 20 && ip % 4 == 0 : ip >= 40;
    if (whole && layout->first_cell[ND_FIELD_IPV4_SOURCE] >= 0 &&
        packet.ip_version == 4)
        check(ip_length == ip && memcmp(bytes, data + 2, ip) == 0);
}

static void
fuzz_canonical(const int8_t *rows, const uint8_t *data, size_t size)
{
    static int8_t canonical[MOST_ROWS * ND_CANONICAL_CELLS];
    int64_t times[MOST_ROWS] = {0};
    uint8_t directions[MOST_ROWS];
    for (size_t i = 0; i < MOST_ROWS; i++) {
        memcpy(&times[i], data, size < 8 ? size : 8);
        times[i] = (int64_t)((uint64_t)times[i] * (i + 1) >> i);
        directions[i] = data[i % size];
    }
    nd_canonical_encode(rows, MOST_ROWS, times, directions, canonical);
    for (size_t i = 0; i < sizeof canonical; i++)
        check(canonical[i] >= -1 && canonical[i] <= 1);
}

static void
fuzz_nprint(const uint8_t *data, size_t size)
{
    static const int16_t places[] = {ND_NPRINT_OTHER, 0, 2, ND_NPRINT_OTHER};
    const struct nd_nprint_columns columns = {places, 4, 2, 3};
    const char *text = (const char *)data;
    size_t lines = nd_nprint_lines(text, size), n;
    int8_t *rows = malloc(lines * 3 + 1);
    int64_t *spans = malloc(lines * 4 * sizeof *spans + 1);
    struct nd_nprint_place place;
    struct nd_error err;
    check(rows != NULL && spans != NULL);
    nd_nprint_parse(text, size, &columns, rows, spans, &n, &place, &err);
    check(n <= lines && (n == 0 || spans[n * 4 - 1] <= (int64_t)size ||
                         err.code != ND_OK));
    free(rows);
    free(spans);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int8_t rows[MOST_ROWS * ND_MAX_CELLS];
    static int8_t converted[ND_MAX_CELLS];
    if (size == 0)
        return 0;
    fill_rows(data, size, rows, sizeof rows);
    for (size_t i = 0; i < ND_LAYOUT_COUNT; i++) {
        fuzz_decode(&nd_layouts[i], rows);
        fuzz_packet(&nd_layouts[i], data, size);
        nd_rows_convert(&nd_layouts[i], rows, 1,
                        &nd_layouts[(i + 1) % ND_LAYOUT_COUNT], converted);
    }
    fuzz_canonical(rows, data, size);
    fuzz_nprint(data, size);
    return 0;
}
