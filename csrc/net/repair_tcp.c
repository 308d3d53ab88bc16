#include "repair_tcp.h"

/* One pass over a TCP flow: numbers, timestamps, what each end has told. */

static void
push_edge(struct nd_tcp_side *s, uint32_t edge)
{
    s->edges[s->n_edges++ % ND_EDGE_RING] = edge;
}

/* How far a step's window is shifted, as far as SYNs have told by now. */
static unsigned
window_shift(const struct nd_tcp_state *t, const struct nd_tcp_side *me,
             const struct nd_step *step)
{
    bool both = t->side[0].scale >= 0 && t->side[1].scale >= 0;
    bool syn = step->flags & ND_TCP_SYN; /* RFC 7323 section 2.2 */
    return both && !syn ? (unsigned)me->scale : 0;
}

/* The window of `last` can still change, those before it cannot. */
static void
note_window(struct nd_tcp_side *me)
{
    if (me->last == NULL)
        return;
    uint32_t window = (uint32_t)me->last->window << me->last_shift;
    if (window > me->widest)
        me->widest = window;
}

static void
account(struct nd_tcp_state *t, struct nd_tcp_side *me, struct nd_step *step)
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

/*
 * RFC 7323 section 5.4 wants ticks of 1 ms to 1 s, and no start. Captures show
 * 1,000, 250 and 100 Hz, and one clock in four that counts from the start of
 * its host, minutes to days ago; the others start anywhere. What is known of
 * the host comes first.
 */
static void
draw_clock(const struct nd_draft *flow, struct nd_tcp_side *me, unsigned d)
{
    static const uint32_t ticks[8] = {1000000, 1000000, 1000000, 1000000,
                                      1000000, 4000000, 4000000, 10000000};
    uint64_t u = nd_chance(flow, ND_FOR_CLOCK + d, 0);
    bool since_start = (u >> 32 & 3) == 0;
    unsigned shift = since_start ? 4 + (u >> 34 & 15) : 0;
    const struct nd_host *host = &flow->host[d];
    me->clock = (uint32_t)u >> shift;
    if (host->clock_bits > 0)
        me->clock = nd_known_bits(host->clock, (uint32_t)u, 32,
                                  host->clock_bits);
    me->tick = host->tick > 0 ? host->tick : ticks[u >> 38 & 7];
}

static uint32_t
clock_at(const struct nd_draft *flow, const struct nd_tcp_side *s, int64_t time)
{
    return s->clock + (uint32_t)((time - flow->start) / s->tick);
}

/* RFC 7323 section 3: one's own clock, and the peer's latest value. */
static void
stamp(const struct nd_draft *flow, struct nd_tcp_side *me,
      const struct nd_tcp_side *peer, struct nd_step *step)
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
    nd_tcp_put32(option + 2, me->last_clock);
    nd_tcp_put32(option + 6, echo);
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
read_syn(struct nd_tcp_state *t, struct nd_tcp_side *me, struct nd_step *step)
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
    struct nd_tcp_state t = {.flow = flow, .wired = wired};
    for (unsigned d = 0; d < 2; d++) {
        struct nd_tcp_side *side = &t.side[d];
        side->isn = nd_known_bits(flow->host[d].isn,
                                  (uint32_t)nd_chance(flow, ND_FOR_ISN + d, 0),
                                  32, flow->host[d].isn_bits);
        draw_clock(flow, side, d);
        side->next = side->floor = side->isn + 1;
        side->scale = -1;
    }
    for (size_t i = 0; i < flow->n; i++) {
        struct nd_step *step = &flow->steps[i];
        struct nd_tcp_side *me = &t.side[step->direction];
        struct nd_tcp_side *peer = &t.side[!step->direction];
        nd_tcp_number(&t, me, peer, step);
        nd_tcp_acknowledge(flow, me, peer, step);
        read_syn(&t, me, step);
        account(&t, me, step);
        stamp(flow, me, peer, step);
        nd_tcp_report_holes(flow, peer, step);
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
