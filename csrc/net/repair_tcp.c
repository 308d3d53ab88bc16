#include "repair_flow.h"

/*
 * Numbers of a TCP flow: what each end has sent, acknowledged and offered,
 * RFC 9293 section 3.3.1. One pass; the only step that is changed after its
 * turn is the peer's last one, whose window is widened when data that was
 * drawn would not fit.
 */
struct side {
    uint32_t isn;
    uint32_t next;  /* after the highest byte, SYN or FIN sent */
    uint32_t floor; /* first byte of data */
    uint32_t last_ack;
    bool started, syn, fin, reset, acked;
    struct nd_step *last;           /* its latest step that tells a window */
    unsigned last_shift;            /* of that window */
    uint32_t widest;                /* window before `last`, in bytes */
    int scale;                      /* -1: no SYN, or none offered */
    uint32_t mss;                   /* told on its SYN, 0: not */
    uint32_t clock, last_clock;     /* TCP timestamp values */
    uint32_t tick;                  /* of that clock, in ns */
    bool told_clock;
    uint32_t edges[ND_EDGE_RING];   /* ends of segments, latest last */
    size_t n_edges;                 /* ever */
    uint32_t again_from, again_to;  /* latest data that was sent again */
    bool again;
    uint32_t holes[ND_HOLE_RING][2]; /* begin and end, oldest first */
    size_t n_holes, n_filled;        /* ever */
};

struct state {
    struct nd_draft *flow;
    bool wired; /* segments are those of a wire, so the MSS binds */
    struct side side[2];
    struct nd_syns syns;
};

static void
push_edge(struct side *s, uint32_t edge)
{
    s->edges[s->n_edges++ % ND_EDGE_RING] = edge;
}

/* The k-th latest edge; false when it is forgotten or was never there. */
static bool
edge_at(const struct side *s, size_t k, uint32_t *edge)
{
    if (k >= s->n_edges || k >= ND_EDGE_RING)
        return false;
    *edge = s->edges[(s->n_edges - 1 - k) % ND_EDGE_RING];
    return true;
}

static void
set_seq_hint(struct nd_draft *flow, struct nd_step *step, enum nd_hint_seq hint)
{
    nd_count_change(flow, ND_RULE_TCP_SEQ, step->seq_hint, hint);
    step->seq_hint = (uint8_t)hint;
}

/* ---- window ----------------------------------------------------------- */

static bool
window_known(const struct state *t)
{
    return t->side[0].syn && t->side[1].syn;
}

/* How far a step's window is shifted, as far as SYNs have told by now. */
static unsigned
window_shift(const struct state *t, const struct side *me,
             const struct nd_step *step)
{
    bool both = t->side[0].scale >= 0 && t->side[1].scale >= 0;
    bool syn = step->flags & ND_TCP_SYN; /* RFC 7323 section 2.2 */
    return both && !syn ? (unsigned)me->scale : 0;
}

/* The window of `last` can still change, those before it cannot. */
static void
note_window(struct side *me)
{
    if (me->last == NULL)
        return;
    uint32_t window = (uint32_t)me->last->window << me->last_shift;
    if (window > me->widest)
        me->widest = window;
}

/*
 * Makes room in the peer's window for data that ends at `end`: its last step
 * advertises more. False when 65,535 is not enough.
 */
static bool
fit_window(struct state *t, struct side *peer, uint32_t end)
{
    if (!window_known(t) || peer->last == NULL)
        return true;
    const struct side *me = &t->side[peer == &t->side[0]];
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

/* ---- sequence numbers ------------------------------------------------- */

static void
drop_payload(struct nd_draft *flow, struct nd_step *step, enum nd_rule rule)
{
    nd_repair_set_payload(flow, step, rule, 0);
}

/*
 * MSS counts data and options, RFC 6691 section 2. Captures of hosts that
 * offload segmentation hold longer segments: it binds where none shows.
 */
static bool
is_wired(const struct nd_draft *flow)
{
    uint32_t mtu = flow->options->mtu;
    if (mtu < UINT16_MAX)
        return true;
    for (size_t i = 0; i < flow->n; i++) {
        const struct nd_step *step = &flow->steps[i];
        if (mtu - nd_repair_room(flow, step) + step->payload > ND_WIRE_MTU)
            return false;
    }
    return true;
}

static void
fit_segment(const struct state *t, const struct side *peer,
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
possible_hint(const struct side *me, const struct nd_step *step)
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
push_hole(struct side *me, uint32_t from, uint32_t to)
{
    uint32_t *hole = me->holes[me->n_holes++ % ND_HOLE_RING];
    hole[0] = from;
    hole[1] = to;
    if (me->n_holes - me->n_filled > ND_HOLE_RING)
        me->n_filled++;
}

/* Data a whole window back was acknowledged, and is sent no more. */
static bool
is_stale(const struct side *me, const struct side *peer, uint32_t seq)
{
    return peer->acked && nd_seq_distance(peer->last_ack, seq) < 0 &&
           me->next - seq > peer->widest;
}

/*
 * Data that comes late fills the oldest hole: it begins there, or where that
 * is too short, ends there. False when there is none, or too little before.
 */
static bool
fill_hole(struct side *me, const struct side *peer, struct nd_step *step)
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
place_again(struct state *t, struct side *me, struct nd_step *step)
{
    struct nd_draft *flow = t->flow;
    const struct side *peer = &t->side[me == &t->side[0]];
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
place_step(struct state *t, struct side *me, struct nd_step *step,
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

static void
number_step(struct state *t, struct side *me, struct side *peer,
            struct nd_step *step)
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

static void
account(struct state *t, struct side *me, struct nd_step *step)
{
    bool syn = step->flags & ND_TCP_SYN;
    bool fin = step->flags & ND_TCP_FIN;
    bool again = syn && nd_told_syn(&t->syns, step) != step;
    uint32_t end = step->seq + step->payload + syn + fin;
    if (syn && !me->syn) {
        me->next = end;
        push_edge(me, end);
    } else if (nd_seq_distance(me->next, end) > 0) {
        me->next = end;
        push_edge(me, end);
    }
    me->started = true;
    me->syn |= syn;
    me->fin |= fin;
    me->reset |= (step->flags & ND_TCP_RST) != 0;
    /* the window of a RST means nothing; that of a SYN counts from its end,
       and a SYN sent again tells nothing new */
    if (!(step->flags & ND_TCP_RST) && !again &&
        (syn || step->flags & ND_TCP_ACK)) {
        note_window(me);
        me->last = step;
        me->last_shift = window_shift(t, me, step);
    }
}

/* ---- acknowledgement -------------------------------------------------- */

/*
 * The first segment end above what is acknowledged that leaves no more than
 * half of a usual window open; the middle of a single segment.
 */
static uint32_t
part_edge(const struct side *peer, uint32_t above)
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

static void
acknowledge(struct nd_draft *flow, struct side *me, const struct side *peer,
            struct nd_step *step)
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

/* ---- options ---------------------------------------------------------- */

static void
put32(uint8_t *bytes, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        bytes[i] = (uint8_t)(value >> (24 - 8 * i));
}

/*
 * RFC 7323 section 5.4 wants ticks of 1 ms to 1 s, and no start. Captures show
 * 1,000, 250 and 100 Hz, and one clock in four that counts from the start of
 * its host, minutes to days ago; the others start anywhere.
 */
static void
draw_clock(const struct nd_draft *flow, struct side *me, unsigned d)
{
    static const uint32_t ticks[8] = {1000000, 1000000, 1000000, 1000000,
                                      1000000, 4000000, 4000000, 10000000};
    uint64_t u = nd_chance(flow, ND_FOR_CLOCK + d, 0);
    bool since_start = (u >> 32 & 3) == 0;
    unsigned shift = since_start ? 4 + (u >> 34 & 15) : 0;
    me->clock = (uint32_t)u >> shift;
    me->tick = ticks[u >> 38 & 7];
}

static uint32_t
clock_at(const struct nd_draft *flow, const struct side *s, int64_t time)
{
    return s->clock + (uint32_t)((time - flow->start) / s->tick);
}

/* RFC 7323 section 3: one's own clock, and the peer's latest value. */
static void
stamp(const struct nd_draft *flow, struct side *me, const struct side *peer,
      struct nd_step *step)
{
    size_t length;
    uint8_t *option = nd_repair_find_option(&step->tcp_options,
                                            ND_OPT_TIMESTAMP, &length);
    if (option == NULL)
        return;
    uint32_t echo = peer->told_clock ? peer->last_clock
                                     : clock_at(flow, peer, step->time) - 1;
    if (!(step->flags & ND_TCP_ACK))
        echo = 0;
    me->last_clock = clock_at(flow, me, step->time);
    me->told_clock = true;
    put32(option + 2, me->last_clock);
    put32(option + 6, echo);
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
sack_blocks(const struct side *peer, uint32_t ack, struct block *blocks,
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
duplicate_block(const struct side *peer, uint32_t ack, struct block *blocks)
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

static void
report_holes(struct nd_draft *flow, const struct side *peer,
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
        put32(option + 2 + 8 * i, blocks[i].from);
        put32(option + 6 + 8 * i, blocks[i].to);
    }
}

/* ---- the flow --------------------------------------------------------- */

static void
read_syn(struct state *t, struct side *me, struct nd_step *step)
{
    size_t length;
    if (!(step->flags & ND_TCP_SYN) || nd_told_syn(&t->syns, step) != step)
        return;
    const uint8_t *mss = nd_repair_find_option(&step->tcp_options, ND_OPT_MSS,
                                               &length);
    me->mss = mss == NULL ? 0 : (uint32_t)mss[2] << 8 | mss[3];
    const uint8_t *scale = nd_repair_find_option(&step->tcp_options,
                                                 ND_OPT_SCALE, &length);
    me->scale = scale == NULL ? -1 : scale[2];
}

static void
settle_urgent(struct nd_draft *flow, struct nd_step *step)
{
    if (step->payload > 0 || !(step->flags & ND_TCP_URG))
        return;
    nd_count_change(flow, ND_RULE_TCP_URGENT, ND_TCP_URG, 0);
    step->flags &= (uint16_t)~ND_TCP_URG;
}

/* A SYN that is sent again has the window of the one before, fitted by now. */
static void
repeat_windows(struct nd_draft *flow)
{
    struct nd_syns syns = {{NULL, NULL}};
    for (size_t i = 0; i < flow->n; i++) {
        struct nd_step *step = &flow->steps[i];
        if (!(step->flags & ND_TCP_SYN))
            continue;
        const struct nd_step *told = nd_told_syn(&syns, step);
        nd_count_change(flow, ND_RULE_TCP_HANDSHAKE, step->window,
                        told->window);
        step->window = told->window;
    }
}

static void
number_flow(struct nd_draft *flow, bool wired)
{
    struct state t = {.flow = flow, .wired = wired};
    for (unsigned d = 0; d < 2; d++) {
        struct side *side = &t.side[d];
        side->isn = (uint32_t)nd_chance(flow, ND_FOR_ISN + d, 0);
        draw_clock(flow, side, d);
        side->next = side->floor = side->isn + 1;
        side->scale = -1;
    }
    for (size_t i = 0; i < flow->n; i++) {
        struct nd_step *step = &flow->steps[i];
        struct side *me = &t.side[step->direction];
        struct side *peer = &t.side[!step->direction];
        number_step(&t, me, peer, step);
        acknowledge(flow, me, peer, step);
        read_syn(&t, me, step);
        account(&t, me, step);
        stamp(flow, me, peer, step);
        report_holes(flow, peer, step);
        settle_urgent(flow, step);
    }
}

void
nd_repair_tcp(struct nd_draft *flow)
{
    bool wired = is_wired(flow);
    number_flow(flow, wired);
    if (!wired && is_wired(flow)) /* what was longer did not fit */
        number_flow(flow, true);
    repeat_windows(flow);
}
