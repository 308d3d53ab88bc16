/*
 * rows.h - packets to rows of {-1, 0, 1} and back
 *
 * In:      packets from packet.h; the caller keeps their bytes alive.
 * Out:     rows allocated by the caller, one per packet, layout->cells cells;
 *          decode gives the IP and transport header bytes of a row.
 * Errors:  encode cannot fail (missing bytes leave -1); decode returns
 *          ND_FORMAT for a row without an IP header.
 * Memory:  allocates nothing.
 * Threads: pure functions, no state.
 * Python:  _core.CaptureReader, _core.decode, _core.convert_layout.
 *          Tests: tests/test_rows.py, tests/fuzz_rows.c
 */
#ifndef ND_NET_ROWS_H
#define ND_NET_ROWS_H

#include <stdbool.h>

#include "../status.h"
#include "layout.h"
#include "packet.h"

enum {
    ND_MAX_HEADER_BYTES = 60 + 60 /* IPv4 and TCP with all options */
};

/* Both ends of a flow; [0] is the client. IPv4 in the first four bytes. */
struct nd_endpoints {
    uint8_t address[2][16];
    uint16_t port[2];
};

/* The value of a field's cells; -1 cells count as 0. bits <= 32. */
uint32_t nd_cells_get(const int8_t *cells, unsigned bits);
void nd_cells_set(int8_t *cells, unsigned bits, uint32_t value);
void nd_cells_clear(int8_t *cells, unsigned bits); /* all -1 */

/* The value of a field of a netdiffusion-1088 or canonical row. */
uint32_t nd_row_get(const int8_t *row, enum nd_field_id field);
void nd_row_set(int8_t *row, enum nd_field_id field, uint32_t value);

/* Whether a row of netdiffusion-1088 (or canonical) has a header: more than
 * half of the cells of its fixed part (without addresses) are not -1. */
bool nd_row_has(const int8_t *row, enum nd_header header);

/* The same for any layout; false for a header that the layout leaves out. */
bool nd_layout_row_has(const struct nd_layout *layout, const int8_t *row,
                       enum nd_header header);

/*
 * Which headers a row has, one of each kind: IPv4 before IPv6; the transport
 * that the protocol field names if it is there, else TCP, UDP, ICMP in this
 * order. ND_HEADER_COUNT: none.
 */
enum nd_header nd_layout_row_ip(const struct nd_layout *layout,
                                const int8_t *row);
enum nd_header nd_layout_row_transport(const struct nd_layout *layout,
                                       const int8_t *row);

/* Bytes of options in the 320 cells of ipv4_opt or tcp_opt: up to the first
 * -1, rounded down to 4. */
size_t nd_cells_option_bytes(const int8_t *cells);

void nd_rows_encode(const struct nd_layout *layout,
                    const struct nd_packet *packet, int8_t *row);

/*
 * Writes IP and transport headers of a row into bytes[ND_MAX_HEADER_BYTES].
 * Header lengths are those of the cells that are there (options end at the
 * first -1, rounded down to 4 bytes). Fields that the layout leaves out are
 * taken from ends: addresses by direction (0: ends->address[0] is source).
 */
enum nd_status nd_rows_decode(const struct nd_layout *layout,
                              const int8_t *row,
                              const struct nd_endpoints *ends,
                              uint8_t direction, uint8_t *bytes,
                              size_t *ip_length, size_t *transport_length,
                              struct nd_error *err);

/* Copies n rows into another layout; fields it lacks become -1. */
void nd_rows_convert(const struct nd_layout *from, const int8_t *in, size_t n,
                     const struct nd_layout *to, int8_t *out);

#endif
