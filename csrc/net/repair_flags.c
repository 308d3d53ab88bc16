#include "repair_flow.h"

/*
 * Which control bits a TCP packet may carry, RFC 9293 section 3.5 and 3.6.
 * Order: resets, then SYN and ACK from the first packet on, then what was
 * negotiated, then FIN from the last packet back.
 */

static void
set_flags(struct nd_draft *flow, struct nd_step *step, enum nd_rule rule,
          unsigned flags)
{
    nd_count_change(flow, rule, step->flags, flags);
    step->flags = (uint16_t)flags;
}

/* The first packet of each end that is no RST, or n: it may become a SYN. */
static void
find_openings(const struct nd_draft *flow, size_t first[2])
{
    first[0] = first[1] = flow->n;
    for (size_t i = flow->n; i-- > 0;)
        if (!(flow->steps[i].flags & ND_TCP_RST))
            first[flow->steps[i].direction] = i;
}

/*
 * A RST stays when its sender sends no SYN and no new data from then on: what
 * is still on its way may acknowledge, or come again. True when one went.
 */
static bool
keep_resets(struct nd_draft *flow)
{
    bool silent[2] = {true, true}, cleared = false;
    size_t first[2];
    find_openings(flow, first);
    for (size_t i = flow->n; i-- > 0;) {
        struct nd_step *step = &flow->steps[i];
        if (!(step->flags & ND_TCP_RST)) {
            if (step->flags & ND_TCP_SYN || i == first[step->direction] ||
                (step->payload > 0 && step->seq_hint != ND_SEQ_AGAIN))
                silent[step->direction] = false;
            continue;
        }
        if (silent[step->direction]) {
            nd_repair_set_payload(flow, step, ND_RULE_TCP_RESET, 0);
            set_flags(flow, step, ND_RULE_TCP_FLAGS,
                      step->flags & ~(unsigned)(ND_TCP_SYN | ND_TCP_FIN));
        } else {
            set_flags(flow, step, ND_RULE_TCP_RESET,
                      step->flags & ~(unsigned)ND_TCP_RST);
            cleared = true;
        }
    }
    return cleared;
}

/* A tracker begins a connection on a SYN or an acknowledgement alone. */
static bool
begins(const struct nd_step *step)
{
    const unsigned syn_ack = ND_TCP_SYN | ND_TCP_ACK;
    return !(step->flags & (ND_TCP_RST | ND_TCP_FIN)) &&
           (step->flags & syn_ack) != syn_ack;
}

/*
 * A RST before the peer was heard ends a connection at once, RFC 9293 section
 * 3.10.7.3, so what comes next has to begin one: else the RST goes. True when
 * one went.
 */
static bool
keep_early_resets(struct nd_draft *flow)
{
    struct nd_step *early = NULL; /* a RST that nothing has followed */
    bool heard = false, cleared = false;
    uint8_t opener = flow->steps[0].direction;
    for (size_t i = 1; i < flow->n; i++) {
        struct nd_step *step = &flow->steps[i];
        if (early != NULL && begins(step)) {
            opener = step->direction;
        } else if (early != NULL) {
            set_flags(flow, early, ND_RULE_TCP_RESET,
                      early->flags & ~(unsigned)ND_TCP_RST);
            heard = early->direction != opener;
            cleared = true;
        }
        early = NULL;
        if (step->flags & ND_TCP_RST && !heard)
            early = step;
        else
            heard = heard || step->direction != opener;
    }
    return cleared;
}

/* The first RST of an end that has not closed closes; others acknowledge. */
static void
quiet_resets(struct nd_draft *flow)
{
    bool closed[2] = {false, false};
    for (size_t i = 0; i < flow->n; i++) {
        struct nd_step *step = &flow->steps[i];
        unsigned flags = step->flags;
        if (flags & ND_TCP_RST) {
            flags &= ~(unsigned)(ND_TCP_RST | ND_TCP_SYN | ND_TCP_FIN);
            flags |= ND_TCP_ACK;
            if (!closed[step->direction])
                flags |= ND_TCP_FIN;
            set_flags(flow, step, ND_RULE_TCP_EVENT, flags);
            nd_repair_set_payload(flow, step, ND_RULE_TCP_EVENT, 0);
        }
        if (flags & ND_TCP_FIN)
            closed[step->direction] = true;
    }
}

/* Only the first segments of an end may be SYNs. */
struct opening {
    bool syn[2];
    bool other[2]; /* has sent something that is neither SYN nor RST */
    bool crossed;
    bool fast;  /* the client may be answered before it acknowledges */
    bool reset; /* by the server */
};

static bool
may_open(const struct opening *o, uint8_t direction)
{
    uint8_t peer = !direction;
    if (o->other[direction])
        return false;
    if (direction == 0)
        return o->syn[0] || (!o->syn[1] && !o->other[1]);
    return o->syn[0] || !o->other[peer];
}

/* A SYN that nothing but a SYN has followed is answered by SYN-ACK. */
static bool
must_open(const struct opening *o, uint8_t direction)
{
    return direction == 1 && o->syn[0] && !o->syn[1] && !o->other[0] &&
           !o->other[1];
}

/* The client has sent its SYN, and the server nothing at all. */
static bool
waits(const struct opening *o)
{
    return o->syn[0] && !o->syn[1] && !o->other[1] && !o->reset;
}

/* RFC 7413 section 2 */
static bool
is_fast_open(struct nd_step *step)
{
    size_t length;
    return step->direction == 0 &&
           (nd_repair_find_option(&step->tcp_options, ND_OPT_FAST_OPEN,
                                  &length) != NULL ||
            nd_repair_find_option(&step->tcp_options, ND_OPT_TRIAL,
                                  &length) != NULL);
}

/* The server's SYN acknowledges the client's, unless both cross. */
static void
open_with_syn(struct nd_draft *flow, struct nd_step *step, bool crossed)
{
    unsigned flags = (step->flags & ~(unsigned)ND_TCP_FIN) | ND_TCP_SYN;
    if (!crossed && step->direction == 0)
        flags &= ~(unsigned)ND_TCP_ACK;
    else if (!crossed)
        flags |= ND_TCP_ACK;
    set_flags(flow, step, ND_RULE_TCP_HANDSHAKE, flags);
    if (!is_fast_open(step))
        nd_repair_set_payload(flow, step, ND_RULE_TCP_HANDSHAKE, 0);
}

/*
 * Simultaneous open, RFC 9293 figure 7: the server's SYN acknowledges
 * nothing, and what follows is a SYN-ACK of the client, then of the server.
 */
static bool
is_crossed(const struct nd_draft *flow, const struct opening *o, size_t i)
{
    const unsigned syn_ack = ND_TCP_SYN | ND_TCP_ACK;
    const struct nd_step *step = &flow->steps[i];
    if (step->direction == 0 || (step->flags & syn_ack) != ND_TCP_SYN ||
        !o->syn[0] || o->syn[1] || o->other[0])
        return false;
    for (unsigned d = 0; d < 2; d++)
        if (++i >= flow->n || flow->steps[i].direction != d ||
            (flow->steps[i].flags & (syn_ack | ND_TCP_RST)) != syn_ack)
            return false;
    return true;
}

/* The server's first step that is no RST from i on is a SYN. */
static bool
answer_comes(const struct nd_draft *flow, size_t i)
{
    for (; i < flow->n; i++) {
        const struct nd_step *step = &flow->steps[i];
        if (step->direction == 1 && !(step->flags & ND_TCP_RST))
            return step->flags & ND_TCP_SYN;
    }
    return false;
}

/* The flow began before its first packet: the client's SYNs are none. */
static void
forget_syns(struct nd_draft *flow, size_t end)
{
    for (size_t i = 0; i < end; i++) {
        struct nd_step *step = &flow->steps[i];
        if (step->flags & ND_TCP_SYN)
            set_flags(flow, step, ND_RULE_TCP_HANDSHAKE,
                      (step->flags & ~(unsigned)ND_TCP_SYN) | ND_TCP_ACK);
    }
}

/*
 * A client that waits for the answer to its SYN sends nothing but the SYN
 * again, RFC 9293 section 3.10.7.3. What it was drawn to send before that is
 * a SYN where the answer comes later; where none comes the flow began earlier.
 */
static void
settle_waiting(struct nd_draft *flow)
{
    bool waits = false, comes = false;
    for (size_t i = 0; i < flow->n; i++) {
        struct nd_step *step = &flow->steps[i];
        if (step->direction == 1 && step->flags & ND_TCP_RST)
            continue;
        if (step->direction == 1 || step->flags & ND_TCP_RST)
            return;
        if (step->flags & ND_TCP_SYN) {
            waits = true;
            continue;
        }
        if (!waits)
            return;
        comes = comes || answer_comes(flow, i);
        if (!comes) {
            forget_syns(flow, i);
            return;
        }
        set_flags(flow, step, ND_RULE_TCP_HANDSHAKE,
                  step->flags | ND_TCP_SYN);
    }
}

static bool
client_comes(const struct nd_draft *flow, size_t i)
{
    const unsigned control = ND_TCP_SYN | ND_TCP_RST;
    for (; i < flow->n; i++)
        if (flow->steps[i].direction == 0 &&
            !(flow->steps[i].flags & control))
            return true;
    return false;
}

/*
 * A server whose SYN is not acknowledged yet sends nothing but that again,
 * RFC 9293 section 3.10.7.4, unless TCP Fast Open. Where no acknowledgement
 * comes the flow began earlier.
 */
static bool
must_repeat(struct nd_draft *flow, struct opening *o, size_t i)
{
    if (flow->steps[i].direction == 0 || !o->syn[0] || !o->syn[1] ||
        o->other[0] || o->crossed || o->fast || o->reset)
        return false;
    if (client_comes(flow, i))
        return true;
    forget_syns(flow, i);
    *o = (struct opening){.other = {true, true}};
    return false;
}

static void
settle_opening(struct nd_draft *flow)
{
    struct opening o = {.crossed = false};
    for (size_t i = 0; i < flow->n; i++) {
        struct nd_step *step = &flow->steps[i];
        uint8_t d = step->direction;
        if (step->flags & ND_TCP_RST) {
            if (must_open(&o, d)) /* RFC 9293 section 3.5.2 */
                set_flags(flow, step, ND_RULE_TCP_FLAGS,
                          step->flags | ND_TCP_ACK);
            if (d == 0 && waits(&o)) /* nothing to acknowledge */
                set_flags(flow, step, ND_RULE_TCP_FLAGS,
                          step->flags & ~(unsigned)ND_TCP_ACK);
            o.reset |= d == 1;
            continue;
        }
        bool syn = step->flags & ND_TCP_SYN;
        if ((syn && may_open(&o, d)) || must_open(&o, d) ||
            must_repeat(flow, &o, i)) {
            o.crossed |= is_crossed(flow, &o, i);
            o.fast |= !o.syn[d] && is_fast_open(step); /* repeats copy it */
            if (o.crossed && o.syn[0] && o.syn[1])
                set_flags(flow, step, ND_RULE_TCP_HANDSHAKE,
                          step->flags | ND_TCP_ACK);
            open_with_syn(flow, step, o.crossed);
            o.syn[d] = true;
        } else {
            if (syn)
                set_flags(flow, step, ND_RULE_TCP_HANDSHAKE,
                          step->flags & ~(unsigned)ND_TCP_SYN);
            set_flags(flow, step, ND_RULE_TCP_FLAGS,
                      step->flags | ND_TCP_ACK);
            o.other[d] = true;
        }
    }
}

static void
copy_options(struct nd_draft *flow, const struct nd_options *from,
             struct nd_options *to)
{
    for (size_t i = 0; i < ND_OPTION_BYTES; i++) {
        if (i < from->length && i < to->length)
            nd_count_change(flow, ND_RULE_TCP_HANDSHAKE, to->bytes[i],
                            from->bytes[i]);
        else if (i < from->length || i < to->length)
            flow->changed[ND_RULE_TCP_HANDSHAKE] += 8;
    }
    *to = *from;
}

/* What is sent again is the same segment, RFC 9293 section 3.8.1. */
static void
repeat_syns(struct nd_draft *flow)
{
    struct nd_syns syns = {{NULL, NULL}};
    for (size_t i = 0; i < flow->n; i++) {
        struct nd_step *step = &flow->steps[i];
        if (!(step->flags & ND_TCP_SYN))
            continue;
        const struct nd_step *told = nd_told_syn(&syns, step);
        if (told != step && !((step->flags ^ told->flags) & ND_TCP_ACK))
            copy_options(flow, &told->tcp_options, &step->tcp_options);
        /* no data without Fast Open, and none that no longer fits */
        nd_repair_set_payload(flow, step, ND_RULE_TCP_HANDSHAKE,
                              is_fast_open(step) ? step->payload : 0);
    }
}

/* Options that an end offered on its SYN, a bit a kind; RFC 9293 3.7.1. */
struct offer {
    bool seen[2];
    uint64_t kinds[2];
};

static uint64_t
kind_bit(uint8_t kind)
{
    return UINT64_C(1) << kind % 64;
}

static bool
may_use(const struct offer *o, uint8_t kind)
{
    for (int d = 0; d < 2; d++)
        if (o->seen[d] && !(o->kinds[d] & kind_bit(kind)))
            return false;
    return true;
}

static void
drop_option(struct nd_draft *flow, struct nd_step *step, uint8_t kind)
{
    nd_repair_cut_option(flow, step, ND_RULE_TCP_NEGOTIATION, kind, 0);
}

static void
settle_syn_options(struct nd_draft *flow, struct nd_step *step,
                   struct offer *o)
{
    static const uint8_t offers[] = {ND_OPT_SCALE, ND_OPT_SACK_OK,
                                     ND_OPT_TIMESTAMP, ND_OPT_FAST_OPEN,
                                     ND_OPT_TRIAL};
    uint8_t d = step->direction;
    size_t length;
    drop_option(flow, step, ND_OPT_SACK);
    for (size_t k = 0; k < sizeof offers; k++) {
        uint8_t kind = offers[k];
        if (!nd_repair_find_option(&step->tcp_options, kind, &length))
            continue;
        bool answer = step->flags & ND_TCP_ACK && o->seen[!d];
        if (answer && !(o->kinds[!d] & kind_bit(kind)))
            drop_option(flow, step, kind);
        else
            o->kinds[d] |= kind_bit(kind);
    }
    o->seen[d] = true;
    if (!is_fast_open(step)) /* any more */
        nd_repair_set_payload(flow, step, ND_RULE_TCP_HANDSHAKE, 0);
}

/*
 * What later segments use and a SYN did not offer is offered after all where
 * that changes fewer cells than to take it from all of them. `worth`: SYNs
 * that may be changed for one segment.
 */
static void
offer_what_is_used(struct nd_draft *flow, uint8_t used, uint8_t offered,
                   size_t length, size_t worth)
{
    size_t using = 0, missing = 0, n;
    for (size_t i = 0; i < flow->n; i++) {
        struct nd_step *step = &flow->steps[i];
        if (step->flags & ND_TCP_SYN)
            missing += !nd_repair_find_option(&step->tcp_options, offered, &n);
        else
            using += nd_repair_find_option(&step->tcp_options, used, &n) !=
                     NULL;
    }
    if (missing == 0 || using * worth <= missing)
        return;
    for (size_t i = 0; i < flow->n; i++) {
        struct nd_step *step = &flow->steps[i];
        if (step->flags & ND_TCP_SYN &&
            !nd_repair_find_option(&step->tcp_options, offered, &n))
            nd_repair_add_option(flow, step, ND_RULE_TCP_NEGOTIATION, offered,
                                 length);
    }
}

static void
settle_negotiation(struct nd_draft *flow)
{
    offer_what_is_used(flow, ND_OPT_TIMESTAMP, ND_OPT_TIMESTAMP, 10, 1);
    offer_what_is_used(flow, ND_OPT_SACK, ND_OPT_SACK_OK, 2, 3);
    static const uint8_t on_syn[] = {ND_OPT_MSS, ND_OPT_SCALE, ND_OPT_SACK_OK,
                                     ND_OPT_FAST_OPEN, ND_OPT_TRIAL};
    struct offer o = {{false, false}, {0, 0}};
    for (size_t i = 0; i < flow->n; i++) {
        struct nd_step *step = &flow->steps[i];
        if (step->flags & ND_TCP_SYN) {
            settle_syn_options(flow, step, &o);
            continue;
        }
        if (step->tcp_options.length == 0)
            continue;
        for (size_t k = 0; k < sizeof on_syn; k++)
            drop_option(flow, step, on_syn[k]);
        if (!may_use(&o, ND_OPT_TIMESTAMP))
            drop_option(flow, step, ND_OPT_TIMESTAMP);
        if (!may_use(&o, ND_OPT_SACK_OK))
            drop_option(flow, step, ND_OPT_SACK);
    }
}

/* A FIN stays when its sender sends no new data from then on. */
static void
settle_fins(struct nd_draft *flow)
{
    bool data_later[2] = {false, false};
    for (size_t i = flow->n; i-- > 0;) {
        struct nd_step *step = &flow->steps[i];
        uint8_t d = step->direction;
        if ((step->flags & ND_TCP_FIN) && data_later[d])
            set_flags(flow, step, ND_RULE_TCP_FIN,
                      step->flags & ~(unsigned)ND_TCP_FIN);
        if (step->payload > 0 && step->seq_hint != ND_SEQ_AGAIN &&
            !(step->flags & ND_TCP_SYN))
            data_later[d] = true;
    }
}

/* Events that readers of captures warn about. */
static void
quiet_step(struct nd_draft *flow, struct nd_step *step)
{
    const unsigned control = ND_TCP_SYN | ND_TCP_FIN;
    if (step->window == 0 && !(step->flags & control)) {
        nd_count_change(flow, ND_RULE_TCP_EVENT, 0, 1);
        step->window = 1;
    }
    if (step->seq_hint == ND_SEQ_GAP) {
        nd_count_change(flow, ND_RULE_TCP_EVENT, ND_SEQ_GAP, ND_SEQ_IN_ORDER);
        step->seq_hint = ND_SEQ_IN_ORDER;
    }
}

void
nd_repair_flags(struct nd_draft *flow)
{
    bool quiet = flow->options->events == ND_EVENTS_QUIET;
    keep_resets(flow);
    if (quiet)
        quiet_resets(flow);
    do {
        settle_waiting(flow);
        settle_opening(flow); /* may make a SYN behind a RST */
    } while (keep_resets(flow) || keep_early_resets(flow));
    repeat_syns(flow);
    settle_negotiation(flow);
    settle_fins(flow);
    if (quiet)
        for (size_t i = 0; i < flow->n; i++)
            quiet_step(flow, &flow->steps[i]);
}
