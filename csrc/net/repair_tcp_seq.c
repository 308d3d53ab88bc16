#include "repair_tcp.h"

/*
 * Sequence numbers, RFC 9293 section 3.4, and the windows that data must fit.
 */

static void
set_seq_hint(struct nd_draft *flow, struct nd_step *step, enum nd_hint_seq hint)
{
    nd_count_change(flow, ND_RULE_TCP_SEQ, step->seq_hint, hint);
    step->seq_hint = (uint8_t)hint;
}

static bool
window_known(const struct nd_tcp_state *t)
{
    return t->side[0].syn && t->side[1].syn;
}

/*
 * Makes room in the peer's window for data that ends at `end`: its last step
 * advertises more. False when 65,535 is not enough.
 */
static bool
fit_window(struct nd_tcp_state *t, struct nd_tcp_side *peer, uint32_t end)
{
    if (!window_known(t) || peer->last == NULL)
        return true;
    const struct nd_tcp_side *me = &t->side[peer == &t->side[0]];
    bool answered = peer->last->flags & ND_TCP_ACK;
    uint32_t edge = answered ? peer->last->ack : me->isn + 1;
    int32_t beyond = nd_seq_distance(edge, end);
    if (beyond < 0)
        return true;
    bool quiet = t->flow->options->events == ND_EVENTS_QUIET;
    if (beyond == 1 && peer->last->window == 0 && !quiet)
        return true; /* a probe, RFC 9293 section 3.8.6.1 */
    unsigned shift = peer->last_shift;
    uint32_t need = ((uint32_t)beyond + (1u << shift) - 1) >> shift;
    if (quiet) /* a filled window is an event */
        need = ((uint32_t)beyond >> shift) + 1;
    if (need > UINT16_MAX)
        return false;
    if (peer->last->window < need) {
        nd_count_change(t->flow, ND_RULE_TCP_WINDOW, peer->last->window, need);
        peer->last->window = (uint16_t)need;
    }
    return true;
}

static void
drop_payload(struct nd_draft *flow, struct nd_step *step, enum nd_rule rule)
{
    nd_repair_set_payload(flow, step, rule, 0);
}

static void
fit_segment(const struct nd_tcp_state *t, const struct nd_tcp_side *peer,
            struct nd_step *step)
{
    uint32_t options = step->tcp_options.length;
    if (t->wired && peer->mss > options &&
        step->payload + options > peer->mss)
        nd_repair_set_payload(t->flow, step, ND_RULE_TCP_MSS,
                              peer->mss - options);
}

/* The hint that a step can follow, RFC 9293 section 3.4. */
static enum nd_hint_seq
possible_hint(const struct nd_tcp_side *me, const struct nd_step *step)
{
    bool fin = step->flags & ND_TCP_FIN;
    uint32_t data_sent = me->next - me->fin - me->floor;
    if (step->flags & ND_TCP_SYN)
        return me->syn ? ND_SEQ_AGAIN : ND_SEQ_IN_ORDER;
    if (!me->started)
        return ND_SEQ_IN_ORDER;
    if (fin)
        return me->fin ? ND_SEQ_AGAIN
               : step->seq_hint == ND_SEQ_GAP ? ND_SEQ_GAP : ND_SEQ_IN_ORDER;
    if (me->fin && step->payload > 0)
        return data_sent > 0 ? ND_SEQ_AGAIN : ND_SEQ_IN_ORDER;
    if (step->flags & ND_TCP_RST || me->fin)
        return step->seq_hint == ND_SEQ_AGAIN && !(step->flags & ND_TCP_RST)
                   ? ND_SEQ_AGAIN : ND_SEQ_IN_ORDER;
    if (step->seq_hint == ND_SEQ_AGAIN && step->payload > data_sent)
        return ND_SEQ_IN_ORDER;
    return (enum nd_hint_seq)step->seq_hint;
}

static void
push_hole(struct nd_tcp_side *me, uint32_t from, uint32_t to)
{
    uint32_t *hole = me->holes[me->n_holes++ % ND_HOLE_RING];
    hole[0] = from;
    hole[1] = to;
    if (me->n_holes - me->n_filled > ND_HOLE_RING)
        me->n_filled++;
}

/* Data a whole window back was acknowledged, and is sent no more. */
static bool
is_stale(const struct nd_tcp_side *me, const struct nd_tcp_side *peer,
         uint32_t seq)
{
    return peer->acked && nd_seq_distance(peer->last_ack, seq) < 0 &&
           me->next - seq > peer->widest;
}

/*
 * Data that comes late fills the oldest hole: it begins there, or where that
 * is too short, ends there. False when there is none, or too little before.
 */
static bool
fill_hole(struct nd_tcp_side *me, const struct nd_tcp_side *peer,
          struct nd_step *step)
{
    while (me->n_filled < me->n_holes &&
           is_stale(me, peer, me->holes[me->n_filled % ND_HOLE_RING][0]))
        me->n_filled++;
    if (me->n_filled == me->n_holes || step->payload == 0)
        return false;
    uint32_t *hole = me->holes[me->n_filled % ND_HOLE_RING];
    if (step->payload < hole[1] - hole[0]) {
        step->seq = hole[0];
        hole[0] += step->payload;
        return true;
    }
    if (nd_seq_distance(me->floor, hole[1] - step->payload) < 0)
        return false;
    step->seq = hole[1] - step->payload;
    me->n_filled++;
    return true;
}

/*
 * Data that is sent again ends where the highest data ended, so it was sent
 * before whatever the segments were; without data it is a keep-alive, RFC
 * 9293 section 3.8.4.
 */
static void
place_again(struct nd_tcp_state *t, struct nd_tcp_side *me,
            struct nd_step *step)
{
    struct nd_draft *flow = t->flow;
    const struct nd_tcp_side *peer = &t->side[me == &t->side[0]];
    if (step->flags & ND_TCP_SYN) {
        step->seq = me->isn;
        return;
    }
    bool quiet = flow->options->events == ND_EVENTS_QUIET;
    if (me->fin && step->payload > 0 && quiet && !(step->flags & ND_TCP_FIN)) {
        nd_count_change(flow, ND_RULE_TCP_FIN, 0, ND_TCP_FIN);
        step->flags |= ND_TCP_FIN; /* else it looks out of order */
    }
    uint32_t data_sent = me->next - me->fin - me->floor;
    if (step->payload > data_sent)
        nd_repair_set_payload(flow, step, ND_RULE_TCP_FIN, data_sent);
    if (!(step->flags & ND_TCP_FIN) && fill_hole(me, peer, step))
        return;
    if (step->payload > 0 || step->flags & ND_TCP_FIN)
        step->seq = me->next - me->fin - step->payload;
    else
        step->seq = me->next - 1;
    if (step->payload > 0) {
        me->again = true;
        me->again_from = step->seq;
        me->again_to = step->seq + step->payload;
    }
}

static void
place_step(struct nd_tcp_state *t, struct nd_tcp_side *me, struct nd_step *step,
           enum nd_hint_seq hint)
{
    step->seq = me->next;
    if (hint == ND_SEQ_AGAIN)
        place_again(t, me, step);
    else if (hint == ND_SEQ_GAP) /* a hole as long as the segment */
        step->seq = me->next + (step->payload > 0 ? step->payload : 1u);
    else if (step->flags & ND_TCP_SYN)
        step->seq = me->isn;
}

void
nd_tcp_number(struct nd_tcp_state *t, struct nd_tcp_side *me,
              struct nd_tcp_side *peer, struct nd_step *step)
{
    struct nd_draft *flow = t->flow;
    fit_segment(t, peer, step);
    enum nd_hint_seq hint = possible_hint(me, step);
    if (hint == ND_SEQ_IN_ORDER && me->fin && step->payload > 0)
        drop_payload(flow, step, ND_RULE_TCP_FIN);
    if (hint != ND_SEQ_AGAIN && me->reset)
        drop_payload(flow, step, ND_RULE_TCP_RESET);
    set_seq_hint(flow, step, hint);
    place_step(t, me, step, hint);
    if (step->payload > 0 && hint == ND_SEQ_GAP &&
        !fit_window(t, peer, step->seq + step->payload)) {
        hint = ND_SEQ_IN_ORDER;
        set_seq_hint(flow, step, hint);
        step->seq = me->next;
    }
    if (hint == ND_SEQ_GAP)
        push_hole(me, me->next, step->seq);
    if (step->payload > 0 && !(step->flags & ND_TCP_SYN) &&
        !fit_window(t, peer, step->seq + step->payload)) {
        drop_payload(flow, step, ND_RULE_TCP_WINDOW);
        if (!(step->flags & ND_TCP_FIN))
            set_seq_hint(flow, step, ND_SEQ_IN_ORDER);
        step->seq = me->next - (me->fin && step->flags & ND_TCP_FIN);
    }
}
