#include "icmp.h"
#include "repair_flow.h"

/*
 * A sender's TTL changes when its path does: a value stays when two packets
 * of the sender have it. One packet may stand alone where another machine may
 * have sent it (SYN, FIN, RST: a proxy, a middlebox), or where the capture
 * does not tell how long it lasted (the first and the last of the others).
 */
struct sender {
    uint16_t counts[256];
    size_t first, last; /* neither SYN, FIN nor RST */
    uint8_t usual;      /* the commonest of those that stay */
};

static enum nd_header
ip_header(const struct nd_draft *flow)
{
    return flow->ip_version == 6 ? ND_HEADER_IPV6 : ND_HEADER_IPV4;
}

/* Neighbor discovery lives on one link, RFC 4861 section 11.2; so does MLD. */
static uint8_t
fixed_hops(const struct nd_draft *flow, const struct nd_step *step)
{
    return nd_is_icmp(flow) && !step->later
               ? nd_icmp_find(flow->ip_version, step->icmp_type)->hops : 0;
}

static bool
drew_ttl(const struct nd_draft *flow, const struct nd_step *step)
{
    return step->headers_drawn >> ip_header(flow) & 1 && step->ttl != 0;
}

static bool
is_control(const struct nd_draft *flow, const struct nd_step *step)
{
    const unsigned control = ND_TCP_SYN | ND_TCP_FIN | ND_TCP_RST;
    return flow->protocol == ND_PROTOCOL_TCP && step->flags & control;
}

static bool
stays(const struct nd_draft *flow, const struct sender *s, size_t i)
{
    const struct nd_step *step = &flow->steps[i];
    return drew_ttl(flow, step) &&
           (s->counts[step->ttl] > 1 || i == s->first || i == s->last ||
            is_control(flow, step));
}

/* The larger of two values as common; 64 when none stays. */
static uint8_t
usual_value(const struct nd_draft *flow, const struct sender *s,
            uint8_t direction)
{
    unsigned usual = 0;
    for (unsigned ttl = 1; ttl < 256; ttl++)
        if (s->counts[ttl] > 1 && s->counts[ttl] >= s->counts[usual])
            usual = ttl;
    for (size_t i = 0; i < flow->n && usual == 0; i++)
        if (flow->steps[i].direction == direction &&
            fixed_hops(flow, &flow->steps[i]) == 0 && stays(flow, s, i))
            usual = flow->steps[i].ttl;
    return usual != 0 ? (uint8_t)usual : 64;
}

static struct sender
count_values(const struct nd_draft *flow, uint8_t direction)
{
    struct sender s = {.first = flow->n, .last = flow->n};
    for (size_t i = 0; i < flow->n; i++) {
        const struct nd_step *step = &flow->steps[i];
        if (step->direction != direction || fixed_hops(flow, step) != 0)
            continue;
        if (!is_control(flow, step)) {
            s.first = s.first == flow->n ? i : s.first;
            s.last = i;
        }
        if (drew_ttl(flow, step) && s.counts[step->ttl] < UINT16_MAX)
            s.counts[step->ttl]++;
    }
    s.usual = usual_value(flow, &s, direction);
    return s;
}

/* Hop by hop, as traceroute counts. */
static bool
rises(const struct nd_draft *flow, const struct nd_step *step, unsigned before)
{
    return drew_ttl(flow, step) && step->ttl > before &&
           step->ttl <= before + ND_TTL_RISE;
}

/* The value before, or the usual one where that changes fewer cells. */
static unsigned
nearest(unsigned drawn, unsigned before, unsigned usual)
{
    return nd_ones(drawn ^ before) <= nd_ones(drawn ^ usual) ? before : usual;
}

static void
settle_sender(struct nd_draft *flow, uint8_t direction)
{
    struct sender s = count_values(flow, direction);
    unsigned before = s.usual;
    for (size_t i = 0; i < flow->n; i++) {
        struct nd_step *step = &flow->steps[i];
        if (step->direction != direction)
            continue;
        unsigned ttl = fixed_hops(flow, step);
        if (ttl == 0) {
            bool kept = stays(flow, &s, i) || rises(flow, step, before);
            ttl = kept ? step->ttl : nearest(step->ttl, before, s.usual);
            before = ttl;
        }
        if (step->headers_drawn >> ip_header(flow) & 1)
            nd_count_change(flow, ND_RULE_IP_TTL, step->ttl, ttl);
        step->ttl = (uint8_t)ttl;
    }
}

void
nd_repair_ttl(struct nd_draft *flow)
{
    settle_sender(flow, 0);
    settle_sender(flow, 1);
}
