#include "canonical.h"

#include <string.h>

#include "gap.h"
#include "icmp.h"

enum { OPTION_EOL = 0, OPTION_NOP = 1, OPTION_MSS = 2, OPTION_SCALE = 3 };

enum { OPTION_BYTES = 40, OPTION_CELLS = 320 };

/* What a sender has shown of itself so far. */
struct sender {
    bool sent_tcp, acked, sent_id;
    uint32_t first_seq; /* of its last SYN */
    uint32_t next_seq;  /* after the highest byte, SYN or FIN sent */
    uint32_t last_ack;
    uint32_t last_id;
};

static int8_t *
field_cells(int8_t *row, enum nd_field_id field)
{
    const struct nd_layout *canonical = &nd_layouts[ND_LAYOUT_CANONICAL];
    return row + canonical->first_cell[field];
}

static bool
is_address(enum nd_field_id field)
{
    return nd_layouts[ND_LAYOUT_CANONICAL].first_cell[field] < 0;
}

/*
 * Bytes that follow the transport header, as the IP length says; 0 when the
 * length is too short for its own headers (or blank, as under TSO).
 */
static uint32_t
payload_length(const int8_t *row, enum nd_header ip, enum nd_header transport)
{
    uint32_t total = 0, headers = 0;
    if (ip == ND_HEADER_IPV4) {
        total = nd_row_get(row, ND_FIELD_IPV4_LENGTH);
        headers = nd_row_get(row, ND_FIELD_IPV4_IHL) * 4;
    } else if (ip == ND_HEADER_IPV6) {
        total = nd_row_get(row, ND_FIELD_IPV6_LENGTH);
    }
    if (transport == ND_HEADER_TCP)
        headers += nd_row_get(row, ND_FIELD_TCP_DATA_OFFSET) * 4;
    else if (transport != ND_HEADER_COUNT)
        headers += 8; /* UDP and ICMP */
    uint32_t next = nd_row_get(row, ND_FIELD_IPV6_NEXT);
    if (ip == ND_HEADER_IPV6 && next == 44)
        headers += 8; /* a fragment, RFC 8200 section 4.5 */
    if (ip == ND_HEADER_IPV6 && transport == ND_HEADER_ICMP && next == 0)
        headers += (uint32_t)nd_icmp_hop_by_hop(
            6, (uint8_t)nd_row_get(row, ND_FIELD_ICMP_TYPE));
    return total > headers ? total - headers : 0;
}

/*
 * Options as the kinds, lengths and order that were seen; of the data only
 * MSS and window scale stay (RFC 9293 section 3.1, RFC 7323 section 2, RFC
 * 791 section 3.1). Malformed options and what follows the end become zero.
 */
static void
encode_options(int8_t *cells, bool tcp)
{
    size_t n = nd_cells_option_bytes(cells);
    size_t i = 0;
    nd_cells_clear(cells + n * 8, (unsigned)(OPTION_CELLS - n * 8));
    while (i < n) {
        uint32_t kind = nd_cells_get(cells + i * 8, 8);
        if (kind == OPTION_EOL)
            break;
        if (kind == OPTION_NOP) {
            i++;
            continue;
        }
        size_t left = n - i;
        size_t length = left < 2 ? 0 : nd_cells_get(cells + i * 8 + 8, 8);
        if (length < 2 || length > left)
            break;
        bool keep = tcp && ((kind == OPTION_MSS && length == 4) ||
                            (kind == OPTION_SCALE && length == 3));
        if (!keep)
            memset(cells + i * 8 + 16, 0, (length - 2) * 8);
        i += length;
    }
    memset(cells + i * 8, 0, (n - i) * 8);
}

/* Of a header that is there: -1 becomes 0, and all but drawn fields zero. */
static void
encode_header(int8_t *row, enum nd_header header)
{
    for (int f = 0; f < ND_FIELD_COUNT; f++) {
        enum nd_field_id field = (enum nd_field_id)f;
        if (nd_fields[f].header != header || is_address(field))
            continue;
        int8_t *cells = field_cells(row, field);
        if (field == ND_FIELD_IPV4_OPTIONS || field == ND_FIELD_TCP_OPTIONS)
            encode_options(cells, field == ND_FIELD_TCP_OPTIONS);
        else if (nd_fields[f].role != ND_ROLE_DRAWN)
            memset(cells, 0, nd_fields[f].bits);
        else
            for (unsigned i = 0; i < nd_fields[f].bits; i++)
                cells[i] = cells[i] > 0;
    }
}

static void
clear_header(int8_t *row, enum nd_header header)
{
    for (int f = 0; f < ND_FIELD_COUNT; f++)
        if (nd_fields[f].header == header && !is_address((enum nd_field_id)f))
            nd_cells_clear(field_cells(row, (enum nd_field_id)f),
                           nd_fields[f].bits);
}

/* The header cells of a canonical row from the row that is in their place. */
static void
encode_headers(int8_t *row, uint8_t direction, enum nd_header ip,
               enum nd_header transport, uint32_t payload)
{
    for (int h = 0; h < ND_HEADER_MOTION; h++) {
        enum nd_header header = (enum nd_header)h;
        if (header == ip || header == transport)
            encode_header(row, header);
        else
            clear_header(row, header);
    }
    if (ip == ND_HEADER_IPV4)
        nd_row_set(row, ND_FIELD_IPV4_LENGTH, payload);
    else if (ip == ND_HEADER_IPV6)
        nd_row_set(row, ND_FIELD_IPV6_LENGTH, payload);
    /* the client's port is chance */
    if (transport == ND_HEADER_TCP)
        nd_row_set(row, direction ? ND_FIELD_TCP_DESTINATION
                                  : ND_FIELD_TCP_SOURCE, 0);
    else if (transport == ND_HEADER_UDP)
        nd_row_set(row, direction ? ND_FIELD_UDP_DESTINATION
                                  : ND_FIELD_UDP_SOURCE, 0);
}

/* Bytes of sequence space between two numbers, RFC 9293 section 3.4. */
static int32_t
seq_distance(uint32_t from, uint32_t to)
{
    return (int32_t)(to - from);
}

static enum nd_hint_seq
hint_seq(const int8_t *row, uint32_t payload, struct sender *me)
{
    uint32_t seq = nd_row_get(row, ND_FIELD_TCP_SEQ);
    bool syn = nd_row_get(row, ND_FIELD_TCP_SYN);
    bool rst = nd_row_get(row, ND_FIELD_TCP_RST);
    uint32_t used = payload + syn + nd_row_get(row, ND_FIELD_TCP_FIN);
    int32_t ahead = seq_distance(me->next_seq, seq);
    bool first = !me->sent_tcp;
    enum nd_hint_seq hint = ND_SEQ_IN_ORDER;

    if (!first && ahead > 0)
        hint = ND_SEQ_GAP;
    else if (!first && ahead < 0 && (used > 0 || (ahead == -1 && !rst)))
        hint = ND_SEQ_AGAIN; /* without data: a keep-alive */
    if (!first && syn && ahead != 0)
        hint = ND_SEQ_AGAIN; /* maybe with a new initial number */

    bool restart = syn && seq != me->first_seq;
    if (first || restart || seq_distance(me->next_seq, seq + used) > 0)
        me->next_seq = seq + used;
    if (first || syn)
        me->first_seq = seq;
    me->sent_tcp = true;
    return hint;
}

static enum nd_hint_ack
hint_ack(const int8_t *row, struct sender *me, const struct sender *peer)
{
    if (!nd_row_get(row, ND_FIELD_TCP_ACK_FLAG))
        return ND_ACK_ALL;
    uint32_t ack = nd_row_get(row, ND_FIELD_TCP_ACK);
    enum nd_hint_ack hint = ND_ACK_PART;
    if (!peer->sent_tcp || seq_distance(peer->next_seq, ack) >= 0)
        hint = ND_ACK_ALL;
    else if (me->acked && ack == me->last_ack)
        hint = ND_ACK_DUPLICATE;
    me->acked = true;
    me->last_ack = ack;
    return hint;
}

/* A later fragment has the id of the first, and no say of its own. */
static enum nd_hint_id
hint_id(const int8_t *row, struct sender *me)
{
    if (nd_row_get(row, ND_FIELD_IPV4_OFFSET) != 0)
        return ND_ID_ZERO;
    uint32_t id = nd_row_get(row, ND_FIELD_IPV4_ID);
    uint32_t step = (id - me->last_id) & 0xffff;
    enum nd_hint_id hint = ND_ID_RANDOM;
    if (id == 0)
        hint = ND_ID_ZERO;
    else if (!me->sent_id || (step >= 1 && step <= ND_ID_STEPS))
        hint = ND_ID_COUNTER;
    else if (step == 0)
        hint = ND_ID_SAME;
    me->sent_id = true;
    me->last_id = id;
    return hint;
}

/* ns from one time to another; 0 for a step back. */
static int64_t
time_since(int64_t before, int64_t now)
{
    if (now <= before)
        return 0;
    uint64_t gap = (uint64_t)now - (uint64_t)before;
    return gap > INT64_MAX ? INT64_MAX : (int64_t)gap;
}

void
nd_canonical_encode(const int8_t *rows, size_t n, const int64_t *times,
                    const uint8_t *directions, int8_t *canonical)
{
    struct sender senders[2] = {{0}, {0}};
    struct nd_round_trip trip = {0};
    for (size_t i = 0; i < n; i++) {
        int8_t *row = canonical + i * ND_CANONICAL_CELLS;
        memcpy(row, rows + i * ND_ROW_CELLS, ND_ROW_CELLS);
        nd_cells_clear(row + ND_ROW_CELLS, ND_MOTION_CELLS);

        uint8_t direction = directions[i] & 1;
        struct sender *me = &senders[direction];
        const struct sender *peer = &senders[!direction];
        const struct nd_layout *layout = &nd_layouts[ND_LAYOUT_CANONICAL];
        enum nd_header ip = nd_layout_row_ip(layout, row);
        enum nd_header transport = nd_layout_row_transport(layout, row);
        uint32_t payload = payload_length(row, ip, transport);
        int64_t gap = i == 0 ? 0 : time_since(times[i - 1], times[i]);
        uint32_t bin = nd_gap_bin(gap);

        nd_row_set(row, ND_FIELD_MOTION_DIRECTION, direction);
        nd_row_set(row, ND_FIELD_MOTION_GAP, nd_gap_tell(&trip, bin));
        nd_gap_note(&trip, direction, bin);
        if (transport == ND_HEADER_TCP) {
            nd_row_set(row, ND_FIELD_MOTION_SEQ, hint_seq(row, payload, me));
            nd_row_set(row, ND_FIELD_MOTION_ACK, hint_ack(row, me, peer));
        }
        if (ip == ND_HEADER_IPV4)
            nd_row_set(row, ND_FIELD_MOTION_ID, hint_id(row, me));
        encode_headers(row, direction, ip, transport, payload);
    }
}
