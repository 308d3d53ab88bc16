#include "bytes.h"
#include "validate_internal.h"

enum {
    FIN = 1, SYN = 2, RST = 4, ACK = 16, URG = 32,
    TCP_FIXED = 20,
    EOL = 0, NOP = 1, MSS = 2, SCALE = 3, SACK_OK = 4, SACK = 5, STAMP = 8,
    FAST_OPEN = 34, TRIAL = 254
};

/* What the options of a segment say. */
struct told {
    bool has[256];
    bool bad;
    int scale;
    uint32_t mss, clock, echo;
    const uint8_t *sack;
    size_t blocks;
};

static int32_t
distance(uint32_t a, uint32_t b)
{
    return (int32_t)(b - a);
}

static bool
length_fits(uint8_t kind, size_t length)
{
    switch (kind) {
    case MSS:
        return length == 4;
    case SCALE:
        return length == 3;
    case SACK_OK:
        return length == 2;
    case SACK:
        return length >= 10 && length % 8 == 2;
    case STAMP:
        return length == 10;
    default:
        return true;
    }
}

static void
read_option(struct told *told, const uint8_t *at, size_t length)
{
    uint8_t kind = at[0];
    if (told->has[kind] || !length_fits(kind, length)) {
        told->bad = true;
        return;
    }
    told->has[kind] = true;
    if (kind == MSS)
        told->mss = nd_get16(at + 2);
    if (kind == SCALE)
        told->scale = at[2];
    if (kind == SACK) {
        told->sack = at + 2;
        told->blocks = (length - 2) / 8;
    }
    if (kind == STAMP) {
        told->clock = nd_get32(at + 2);
        told->echo = nd_get32(at + 6);
    }
}

/* RFC 9293 section 3.1 */
static struct told
read_options(const uint8_t *bytes, size_t n)
{
    struct told told = {.scale = -1};
    for (size_t i = 0; i < n && bytes[i] != EOL;) {
        if (bytes[i] == NOP) {
            i++;
            continue;
        }
        size_t left = n - i;
        size_t length = left < 2 ? 0 : bytes[i + 1];
        if (length < 2 || length > left) {
            told.bad = true;
            break;
        }
        read_option(&told, bytes + i, length);
        i += length;
    }
    return told;
}

static void
check_header(const struct nd_seen *seen, const struct told *told,
             struct nd_violations *v)
{
    const uint8_t *tcp = seen->transport;
    unsigned flags = tcp[13];
    unsigned control = flags & (FIN | SYN | RST);
    if ((size_t)(tcp[12] >> 4) * 4 != seen->transport_bytes || tcp[12] & 0xe)
        nd_note(v, ND_RULE_TCP_OFFSET, seen->index);
    if ((control & (control - 1)) != 0 ||
        !(flags & (ACK | RST | SYN)))
        nd_note(v, ND_RULE_TCP_FLAGS, seen->index);
    if (flags & URG && nd_get16(tcp + 18) == 0)
        nd_note(v, ND_RULE_TCP_URGENT, seen->index);
    if (told->bad)
        nd_note(v, ND_RULE_TCP_OPTIONS, seen->index);
}

static void
check_negotiation(const struct nd_tcp_watch *w, const struct nd_seen *seen,
                  const struct told *told, struct nd_violations *v)
{
    static const uint8_t answered[] = {SCALE, SACK_OK, STAMP};
    const struct nd_tcp_end *peer = &w->end[!seen->direction];
    unsigned flags = seen->transport[13];
    bool wrong = false;
    if (!(flags & SYN)) {
        wrong = told->has[MSS] || told->has[SCALE] || told->has[SACK_OK];
        for (int d = 0; d < 2; d++) {
            const struct nd_tcp_end *end = &w->end[d];
            wrong |= end->syn && told->has[STAMP] && !end->offered[STAMP];
            wrong |= end->syn && told->has[SACK] && !end->offered[SACK_OK];
        }
    } else if (flags & ACK && peer->syn) {
        for (size_t k = 0; k < sizeof answered; k++)
            wrong |= told->has[answered[k]] && !peer->offered[answered[k]];
    }
    if (wrong)
        nd_note(v, ND_RULE_TCP_NEGOTIATION, seen->index);
}

/* Both ends were seen from their SYN on. */
static bool
whole(const struct nd_tcp_watch *w)
{
    return w->end[0].syn && w->end[1].syn;
}

/* NS, CWR, ECE as one number. */
static unsigned
ecn_bits(const uint8_t *tcp)
{
    return (tcp[12] & 1u) << 2 | tcp[13] >> 6;
}

/* RFC 3168 section 6.1.1, RFC 9768 section 3.1 */
static void
check_ecn(const struct nd_tcp_watch *w, const struct nd_seen *seen,
          struct nd_violations *v)
{
    enum { ECE = 1, OFFER = 3, ACCURATE = 7 };
    const struct nd_tcp_end *me = &w->end[seen->direction];
    const struct nd_tcp_end *peer = &w->end[!seen->direction];
    unsigned bits = ecn_bits(seen->transport);
    bool wrong;
    if ((seen->transport[13] & (SYN | ACK)) == SYN)
        wrong = bits != 0 && bits != OFFER && bits != ACCURATE;
    else if (seen->transport[13] & SYN)
        wrong = bits != 0 && peer->syn &&
                (peer->ecn == 0 || (peer->ecn == OFFER && bits != ECE));
    else
        wrong = bits != 0 && whole(w) && (me->ecn == 0 || peer->ecn == 0);
    if (wrong)
        nd_note(v, ND_RULE_TCP_ECN, seen->index);
}

static void
check_state(const struct nd_tcp_watch *w, const struct nd_seen *seen,
            const struct told *told, struct nd_violations *v)
{
    const struct nd_tcp_end *me = &w->end[seen->direction];
    const struct nd_tcp_end *peer = &w->end[!seen->direction];
    unsigned flags = seen->transport[13];
    uint32_t seq = nd_get32(seen->transport + 4);
    uint32_t end = seq + seen->payload;
    bool again = me->syn && seq == me->isn;
    if (flags & SYN && !(flags & RST)) {
        bool unasked = flags & ACK && peer->syn && !me->syn &&
                       distance(peer->isn, nd_get32(seen->transport + 8)) < 1;
        if ((me->other && !again) || unasked ||
            (seen->payload > 0 && !told->has[FAST_OPEN] &&
             !told->has[TRIAL]))
            nd_note(v, ND_RULE_TCP_HANDSHAKE, seen->index);
    } else if (!(flags & RST) && peer->syn && !peer->other && !me->started &&
               !(flags & ACK && distance(peer->next, nd_get32(
                     seen->transport + 8)) >= 0)) {
        nd_note(v, ND_RULE_TCP_HANDSHAKE, seen->index);
    }
    if (me->reset && !(flags & (RST | SYN)) && seen->payload > 0 &&
        distance(me->next, end) > 0)
        nd_note(v, ND_RULE_TCP_RESET, seen->index);
    if (me->fin && seen->payload > 0 && distance(me->fin_at, end) > 0)
        nd_note(v, ND_RULE_TCP_FIN, seen->index);
    if (me->syn && !(flags & (SYN | RST)) && distance(me->isn, seq) < 0)
        nd_note(v, ND_RULE_TCP_SEQ, seen->index);
}

/*
 * Where packets are captured the two ways of a link may swap: an
 * acknowledgement comes before its data. No fault, if the data comes soon.
 */
enum { SOON = 8 };

static void
settle_ahead(struct nd_tcp_watch *w, int64_t index, struct nd_violations *v)
{
    for (int d = 0; d < 2; d++) {
        struct nd_tcp_end *end = &w->end[d];
        if (end->ahead < 0)
            continue;
        bool came = distance(w->end[!d].next, end->ahead_ack) <= 0;
        if (!came && index - end->ahead > SOON)
            nd_note(v, ND_RULE_TCP_ACK, end->ahead);
        if (came || index - end->ahead > SOON)
            end->ahead = -1;
    }
}

/*
 * A clock ticks once in 1 ms to 1 s, RFC 7323 section 5.4, and newer systems
 * count microseconds; here over a second or more, and with half of that to
 * spare.
 */
static void
check_rate(const struct nd_tcp_end *end, struct nd_violations *v)
{
    const int64_t second = 1000000000;
    int64_t span = end->last_time - end->first_time;
    if (!end->told_clock || span < second)
        return;
    double ticks = end->last_clock - end->first_clock;
    double seconds = (double)span / 1e9;
    if (ticks < seconds / 2 || ticks > seconds * 1.5e6)
        nd_note(v, ND_RULE_TCP_TIMESTAMP, end->last_index);
}

void
nd_validate_tcp_end(struct nd_tcp_watch *watch, struct nd_violations *v)
{
    settle_ahead(watch, INT64_MAX, v);
    for (int d = 0; d < 2 && whole(watch); d++)
        check_rate(&watch->end[d], v);
}

static void
check_ack(struct nd_tcp_watch *w, const struct nd_seen *seen,
          const struct told *told, struct nd_violations *v)
{
    struct nd_tcp_end *me = &w->end[seen->direction];
    const struct nd_tcp_end *peer = &w->end[!seen->direction];
    uint32_t ack = nd_get32(seen->transport + 8);
    if (!(seen->transport[13] & ACK) || !whole(w))
        return;
    if (distance(peer->isn, ack) < 0) {
        nd_note(v, ND_RULE_TCP_ACK, seen->index);
    } else if (distance(peer->next, ack) > 0) {
        if (me->ahead >= 0)
            nd_note(v, ND_RULE_TCP_ACK, me->ahead);
        me->ahead = seen->index;
        me->ahead_ack = ack;
    }
    for (size_t i = 0; i < told->blocks; i++) {
        uint32_t from = nd_get32(told->sack + 8 * i);
        uint32_t to = nd_get32(told->sack + 8 * i + 4);
        if (distance(from, to) <= 0 || distance(peer->next, to) > 0 ||
            distance(peer->isn, from) < 0) {
            nd_note(v, ND_RULE_TCP_SACK, seen->index);
            return;
        }
    }
}

/*
 * A window may be taken back, RFC 9293 section 3.8.6: the widest counts. What
 * was sent once, a probe's byte too, may be sent again beyond it.
 */
static void
check_window(const struct nd_tcp_watch *w, const struct nd_seen *seen,
             struct nd_violations *v)
{
    const struct nd_tcp_end *me = &w->end[seen->direction];
    const struct nd_tcp_end *peer = &w->end[!seen->direction];
    uint32_t end = nd_get32(seen->transport + 4) + seen->payload;
    if (seen->payload < 2 || seen->transport[13] & SYN || !whole(w) ||
        !peer->acked)
        return; /* one byte may be a probe, a SYN came before any window */
    bool again = me->started && distance(me->next, end) <= 0;
    if (distance(peer->right_edge, end) > 0 && !again)
        nd_note(v, ND_RULE_TCP_WINDOW, seen->index);
}

/* MSS counts data and options, RFC 6691 section 2. */
static void
check_segment(const struct nd_tcp_watch *w, const struct nd_seen *seen,
              struct nd_violations *v)
{
    uint32_t mss = w->end[!seen->direction].mss;
    uint32_t options = (uint32_t)seen->transport_bytes - TCP_FIXED;
    if (w->wired && whole(w) && mss > options &&
        !(seen->transport[13] & SYN) && seen->payload + options > mss)
        nd_note(v, ND_RULE_TCP_MSS, seen->index);
}

/* A client waits three minutes for an answer, RFC 9293 section 3.8.3; here a
 * second more. */
static void
check_round_trip(const struct nd_tcp_watch *w, const struct nd_seen *seen,
                 struct nd_violations *v)
{
    const struct nd_tcp_end *me = &w->end[seen->direction];
    const struct nd_tcp_end *peer = &w->end[!seen->direction];
    unsigned flags = seen->transport[13];
    if (flags & SYN && flags & ACK && !(flags & RST) && peer->syn &&
        !peer->other && !me->started &&
        seen->time - peer->syn_time > ND_SYN_PATIENCE + 1000000000)
        nd_note(v, ND_RULE_TIME, seen->index);
}

static void
check_stamp(const struct nd_tcp_watch *w, const struct nd_seen *seen,
            const struct told *told, struct nd_violations *v)
{
    const struct nd_tcp_end *me = &w->end[seen->direction];
    const struct nd_tcp_end *peer = &w->end[!seen->direction];
    unsigned flags = seen->transport[13];
    bool in_order = nd_get32(seen->transport + 4) == me->next;
    if (!told->has[STAMP] || flags & RST)
        return;
    if ((me->told_clock && in_order && distance(me->clock, told->clock) < 0) ||
        (flags & ACK && whole(w) && peer->told_clock &&
         distance(peer->clock, told->echo) > 0))
        nd_note(v, ND_RULE_TCP_TIMESTAMP, seen->index);
}

static void
learn_window(struct nd_tcp_watch *w, const struct nd_seen *seen)
{
    struct nd_tcp_end *me = &w->end[seen->direction];
    unsigned flags = seen->transport[13];
    bool scaled = w->end[0].scale >= 0 && w->end[1].scale >= 0 &&
                  !(flags & SYN);
    uint32_t window = nd_get16(seen->transport + 14);
    uint32_t ack = nd_get32(seen->transport + 8);
    if (!(flags & ACK) || flags & RST)
        return;
    if (scaled)
        window <<= me->scale > 14 ? 14 : me->scale;
    uint32_t edge = ack + window;
    if (!me->acked || distance(me->right_edge, edge) > 0)
        me->right_edge = edge;
    me->acked = true;
}

static void
learn_clock(struct nd_tcp_end *me, const struct nd_seen *seen,
            const struct told *told)
{
    if (!told->has[STAMP])
        return;
    if (!me->told_clock || distance(me->clock, told->clock) > 0)
        me->clock = told->clock;
    if (!(seen->transport[13] & RST)) {
        if (!me->told_clock) {
            me->first_clock = told->clock;
            me->first_time = seen->time;
        }
        me->last_clock = told->clock;
        me->last_time = seen->time;
        me->last_index = seen->index;
    }
    me->told_clock = true;
}

static void
learn(struct nd_tcp_watch *w, const struct nd_seen *seen,
      const struct told *told)
{
    struct nd_tcp_end *me = &w->end[seen->direction];
    unsigned flags = seen->transport[13];
    uint32_t seq = nd_get32(seen->transport + 4);
    uint32_t end = seq + seen->payload + ((flags & SYN) != 0) +
                   ((flags & FIN) != 0);
    learn_window(w, seen);
    learn_clock(me, seen, told);
    if (flags & RST) {
        me->reset = true;
        return;
    }
    if (flags & SYN) {
        me->reset = false; /* it tries again */
        if (!me->syn || !w->end[!seen->direction].syn)
            me->mss = told->mss; /* what comes later is the same again */
        me->syn_time = seen->time;
        me->scale = told->scale >= 0 ? told->scale : me->scale;
        me->ecn |= ecn_bits(seen->transport);
        for (int k = 0; k < 256; k++)
            me->offered[k] |= told->has[k];
    }
    if (!me->started || (flags & SYN && (!me->syn || seq != me->isn)) ||
        distance(me->next, end) > 0)
        me->next = end;
    if (flags & SYN)
        me->isn = seq;
    if (flags & FIN && !me->fin)
        me->fin_at = seq + seen->payload;
    me->syn |= (flags & SYN) != 0;
    me->fin |= (flags & FIN) != 0;
    me->other |= !(flags & SYN);
    me->started = true;
}

void
nd_validate_tcp(struct nd_tcp_watch *watch, const struct nd_seen *seen,
                struct nd_violations *v)
{
    struct told told = read_options(seen->transport + TCP_FIXED,
                                    seen->transport_bytes - TCP_FIXED);
    settle_ahead(watch, seen->index, v);
    check_header(seen, &told, v);
    check_negotiation(watch, seen, &told, v);
    check_state(watch, seen, &told, v);
    check_ecn(watch, seen, v);
    check_ack(watch, seen, &told, v);
    check_window(watch, seen, v);
    check_segment(watch, seen, v);
    check_round_trip(watch, seen, v);
    check_stamp(watch, seen, &told, v);
    if (seen->transport[13] & RST && seen->payload > 0)
        nd_note(v, ND_RULE_TCP_RESET, seen->index);
    learn(watch, seen, &told);
}
