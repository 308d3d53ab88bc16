#include "repair_tcp.h"

/* What a segment says of the peer's data: acknowledgement and SACK. */

/* The k-th latest edge; false when it is forgotten or was never there. */
static bool
edge_at(const struct nd_tcp_side *s, size_t k, uint32_t *edge)
{
    if (k >= s->n_edges || k >= ND_EDGE_RING)
        return false;
    *edge = s->edges[(s->n_edges - 1 - k) % ND_EDGE_RING];
    return true;
}

/*
 * The first segment end above what is acknowledged that leaves no more than
 * half of a usual window open; the middle of a single segment.
 */
static uint32_t
part_edge(const struct nd_tcp_side *peer, uint32_t above)
{
    const int32_t limit = 1 << 15;
    uint32_t edge, best = peer->next;
    for (size_t k = 1; edge_at(peer, k, &edge) &&
                       nd_seq_distance(above, edge) > 0; k++) {
        if (nd_seq_distance(edge, peer->next) > limit && best != peer->next)
            break;
        if (nd_seq_distance(edge, peer->next) > 0)
            best = edge;
    }
    if (best != peer->next)
        return best;
    return above + (peer->next - above) / 2;
}

void
nd_tcp_acknowledge(struct nd_draft *flow, struct nd_tcp_side *me,
                   const struct nd_tcp_side *peer, struct nd_step *step)
{
    uint32_t above = me->acked ? me->last_ack : peer->floor - 1;
    int32_t open = nd_seq_distance(above, peer->next);
    enum nd_hint_ack hint = (enum nd_hint_ack)step->ack_hint;
    step->ack = 0;
    if (!(step->flags & ND_TCP_ACK) || !peer->started || open <= 0 ||
        (hint == ND_ACK_PART && open < 2) ||
        (hint == ND_ACK_DUPLICATE && !me->acked))
        hint = ND_ACK_ALL;
    if (step->flags & ND_TCP_ACK && step->flags & ND_TCP_SYN && me->syn &&
        me->acked && open > 0)
        hint = ND_ACK_DUPLICATE; /* the same segment again */
    nd_count_change(flow, ND_RULE_TCP_ACK, step->ack_hint, hint);
    step->ack_hint = (uint8_t)hint;
    if (!(step->flags & ND_TCP_ACK))
        return;
    step->ack = peer->next;
    if (hint == ND_ACK_PART)
        step->ack = part_edge(peer, above);
    else if (hint == ND_ACK_DUPLICATE)
        step->ack = me->last_ack;
    me->acked = true;
    me->last_ack = step->ack;
}

struct block {
    uint32_t from, to;
};

/*
 * Blocks that an acknowledgement can report, at most n, RFC 2018 section 4:
 * every second of the latest segments beyond it, or where there are too few,
 * every second of equal parts of what is open.
 */
static size_t
sack_blocks(const struct nd_tcp_side *peer, uint32_t ack, struct block *blocks,
            size_t n)
{
    size_t found = 0;
    uint32_t to, from;
    for (size_t k = 0; found < n && edge_at(peer, k, &to) &&
                       edge_at(peer, k + 1, &from); k += 2)
        if (nd_seq_distance(ack, from) > 0)
            blocks[found++] = (struct block){from, to};
    int32_t open = nd_seq_distance(ack, peer->next);
    if (found == n || open < 2)
        return found;
    if (open <= 2 * (int32_t)n)
        n = (size_t)open / 2;
    if (found >= n)
        return n; /* as few as the edges tell after all */
    uint32_t width = (uint32_t)open / (uint32_t)(2 * n);
    for (size_t i = 0; i < n; i++)
        blocks[i].from = ack + width * (uint32_t)(2 * (n - i) - 1);
    for (size_t i = 0; i < n; i++)
        blocks[i].to = blocks[i].from + width;
    return n;
}

/*
 * When all is acknowledged a block reports a duplicate, RFC 2883 section 4:
 * what was sent again, or else the last segment.
 */
static size_t
duplicate_block(const struct nd_tcp_side *peer, uint32_t ack,
                struct block *blocks)
{
    uint32_t to, from;
    if (peer->again && nd_seq_distance(peer->again_to, ack) >= 0) {
        blocks[0] = (struct block){peer->again_from, peer->again_to};
        return 1;
    }
    if (edge_at(peer, 0, &to) && to == peer->floor && peer->syn) {
        blocks[0] = (struct block){peer->isn, to};
        return 1;
    }
    if (edge_at(peer, 0, &to) && nd_seq_distance(peer->floor, to) > 0 &&
        nd_seq_distance(to, ack) >= 0) {
        if (!edge_at(peer, 1, &from) || nd_seq_distance(peer->floor, from) < 0)
            from = peer->floor;
        blocks[0] = (struct block){from, to};
        return 1;
    }
    return 0;
}

void
nd_tcp_report_holes(struct nd_draft *flow, const struct nd_tcp_side *peer,
             struct nd_step *step)
{
    size_t length;
    uint8_t *option = nd_repair_find_option(&step->tcp_options, ND_OPT_SACK,
                                            &length);
    if (option == NULL)
        return;
    bool quiet = flow->options->events == ND_EVENTS_QUIET;
    struct block blocks[4];
    size_t drawn = (length - 2) / 8, n = 0;
    if (step->flags & ND_TCP_ACK && peer->started)
        n = sack_blocks(peer, step->ack, blocks, drawn);
    if (n == 0 && step->flags & ND_TCP_ACK && !quiet)
        n = duplicate_block(peer, step->ack, blocks);
    if (n < drawn) {
        nd_repair_cut_option(flow, step, quiet ? ND_RULE_TCP_EVENT
                                               : ND_RULE_TCP_SACK,
                             ND_OPT_SACK, n == 0 ? 0 : 2 + 8 * n);
        if (n == 0)
            return;
        option = nd_repair_find_option(&step->tcp_options, ND_OPT_SACK,
                                       &length);
    }
    for (size_t i = 0; i < n; i++) {
        nd_tcp_put32(option + 2 + 8 * i, blocks[i].from);
        nd_tcp_put32(option + 6 + 8 * i, blocks[i].to);
    }
}
