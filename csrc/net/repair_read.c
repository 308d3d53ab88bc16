#include "repair_flow.h"

enum {
    IPV4_BYTES = 12, /* the fixed part without addresses */
    IPV6_BYTES = 8,
    TCP_BYTES = 20,
    UDP_BYTES = 8,
    ICMP_BYTES = 8,
    LONGEST = ND_OPTION_BYTES
};

/*
 * Eight cells to the byte of their ones. The product of eight bytes of 0 or 1
 * and the magic number has the bits in its top byte, first cell highest.
 */
static inline uint8_t
gather(uint64_t ones)
{
    return (uint8_t)(ones * UINT64_C(0x8040201008040201) >> 56);
}

/* Returns how many of the eight cells are there. */
static inline unsigned
cells_to_byte(const int8_t *cells, uint8_t *value)
{
    uint64_t x;
    memcpy(&x, cells, sizeof x);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    x = __builtin_bswap64(x);
#endif
    const uint64_t lowest = UINT64_C(0x0101010101010101);
    uint64_t absent = x >> 7 & lowest;
    uint64_t positive = ((x & lowest * 0x7f) + lowest * 0x7f) >> 7 & ~absent;
    *value = gather(positive & lowest);
    return 8 - (unsigned)(absent * lowest >> 56);
}

struct bytes {
    uint8_t value[LONGEST];
    unsigned n_there; /* cells */
};

static void
read_bytes(const int8_t *cells, size_t n, struct bytes *out)
{
    out->n_there = 0;
    for (size_t i = 0; i < n; i++)
        out->n_there += cells_to_byte(cells + 8 * i, &out->value[i]);
}

static uint16_t
u16(const uint8_t *bytes)
{
    return (uint16_t)(bytes[0] << 8 | bytes[1]);
}

/* Options reach to the first byte that is not whole, in words of 4. */
static void
read_options(const int8_t *cells, struct nd_options *options)
{
    size_t n = 0;
    while (n < ND_OPTION_BYTES) {
        if (cells_to_byte(cells + 8 * n, &options->bytes[n]) < 8)
            break;
        n++;
    }
    n -= n % 4;
    memset(options->bytes + n, 0, ND_OPTION_BYTES - n);
    options->length = (uint8_t)n;
}

static bool
has(const struct bytes *bytes, size_t n)
{
    return bytes->n_there > n * 4;
}

/* -1 cells of a header that is there become 0. */
static void
note_header(struct nd_draft *flow, struct nd_step *step, enum nd_header header,
            const struct bytes *bytes, size_t n)
{
    if (!has(bytes, n))
        return;
    step->headers_drawn |= (uint8_t)(1 << header);
    flow->changed[ND_RULE_HEADER] += (int64_t)(n * 8 - bytes->n_there);
}

static void
read_ip(struct nd_draft *flow, struct nd_step *step, const int8_t *cells)
{
    struct bytes v4, v6;
    read_bytes(cells + ND_CELL_IPV4, IPV4_BYTES, &v4);
    read_bytes(cells + ND_CELL_IPV6, IPV6_BYTES, &v6);
    note_header(flow, step, ND_HEADER_IPV4, &v4, IPV4_BYTES);
    note_header(flow, step, ND_HEADER_IPV6, &v6, IPV6_BYTES);
    if (has(&v6, IPV6_BYTES) && !has(&v4, IPV4_BYTES)) {
        step->tos = (uint8_t)(v6.value[0] << 4 | v6.value[1] >> 4);
        step->payload = u16(v6.value + 4);
        step->ttl = v6.value[7];
        step->df = step->mf = false;
        step->ip_options.length = 0;
        return;
    }
    step->tos = v4.value[1];
    step->payload = u16(v4.value + 2);
    step->df = v4.value[6] >> 6 & 1;
    step->mf = v4.value[6] >> 5 & 1;
    step->ttl = v4.value[8];
    read_options(cells + ND_CELL_IPV4_OPTIONS, &step->ip_options);
}

static void
read_transport(struct nd_draft *flow, struct nd_step *step, const int8_t *cells)
{
    struct bytes tcp, udp, icmp;
    read_bytes(cells + ND_CELL_TCP, TCP_BYTES, &tcp);
    read_bytes(cells + ND_CELL_UDP, UDP_BYTES, &udp);
    read_bytes(cells + ND_CELL_ICMP, ICMP_BYTES, &icmp);
    note_header(flow, step, ND_HEADER_TCP, &tcp, TCP_BYTES);
    note_header(flow, step, ND_HEADER_UDP, &udp, UDP_BYTES);
    note_header(flow, step, ND_HEADER_ICMP, &icmp, ICMP_BYTES);

    bool is_udp = has(&udp, UDP_BYTES) && !has(&tcp, TCP_BYTES);
    const struct bytes *ports = is_udp ? &udp : &tcp;
    step->port = u16(ports->value + (step->direction ? 0 : 2));
    step->flags = (uint16_t)(u16(tcp.value + 12) & 0x1ff);
    step->window = u16(tcp.value + 14);
    read_options(cells + ND_CELL_TCP_OPTIONS, &step->tcp_options);
    step->icmp_type = icmp.value[0];
    step->icmp_code = icmp.value[1];
}

static uint8_t
known_hint(unsigned value)
{
    return (uint8_t)(value == 3 ? 0 : value);
}

static void
read_motion(struct nd_step *step, const int8_t *cells)
{
    uint8_t value[2];
    cells_to_byte(cells, &value[0]);
    cells_to_byte(cells + 8, &value[1]);
    uint16_t motion = u16(value);
    step->direction = (uint8_t)(motion >> 15);
    step->gap_code = motion >> 6 & 0x1ff;
    step->seq_hint = known_hint(motion >> 4 & 3);
    step->ack_hint = known_hint(motion >> 2 & 3);
    step->id_hint = motion & 3;
}

void
nd_repair_read(struct nd_draft *flow, const int8_t *canonical)
{
    for (size_t i = 0; i < flow->n; i++) {
        struct nd_step *step = &flow->steps[i];
        const int8_t *cells = canonical + i * ND_CANONICAL_CELLS;
        step->headers_drawn = 0;
        step->ip_id = step->offset = 0;
        step->later = false;
        step->seq = step->ack = step->rest = 0;
        read_motion(step, cells + ND_CELL_MOTION);
        read_ip(flow, step, cells);
        read_transport(flow, step, cells);
    }
}
