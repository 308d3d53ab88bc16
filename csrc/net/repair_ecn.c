#include "repair_flow.h"

/*
 * Explicit congestion notification: a SYN offers it by ECE and CWR together
 * (RFC 3168 section 6.1.1), or with NS as accurate ECN (RFC 9768 section
 * 3.1.1); the SYN-ACK takes it by ECE, an accurate one by any of the three.
 * Where it was not taken the flags stay down. A connection that began before
 * the capture keeps what was drawn.
 */

enum {
    OFFER = ND_TCP_ECE | ND_TCP_CWR,
    ACCURATE = OFFER | ND_TCP_NS,
    SYN_ACK = ND_TCP_SYN | ND_TCP_ACK
};

struct plan {
    bool offers, answers; /* there are such SYNs */
    bool accurate, on;
    int64_t cost_on, cost_off; /* cells that would change */
};

static unsigned
difference(unsigned a, unsigned b)
{
    return nd_ones(a ^ b);
}

static unsigned
nearest_offer(unsigned bits, bool none_too)
{
    unsigned best = none_too ? 0 : OFFER;
    if (difference(bits, OFFER) < difference(bits, best))
        best = OFFER;
    return difference(bits, ACCURATE) < difference(bits, best) ? ACCURATE
                                                               : best;
}

/* What a step's flags become when ECN is in use, or is not. */
static unsigned
legal_bits(const struct plan *plan, const struct nd_step *step, bool on)
{
    unsigned bits = step->flags & ACCURATE;
    switch (step->flags & SYN_ACK) {
    case ND_TCP_SYN:
        return nearest_offer(bits, !on);
    case SYN_ACK:
        if (!on)
            return 0;
        return plan->accurate && bits != 0 ? bits : ND_TCP_ECE;
    default:
        if (!on)
            return 0;
        return plan->accurate ? bits : bits & OFFER;
    }
}

static struct plan
weigh(const struct nd_draft *flow)
{
    struct plan plan = {.accurate = true};
    for (size_t i = 0; i < flow->n; i++) {
        unsigned flags = flow->steps[i].flags;
        plan.answers |= (flags & SYN_ACK) == SYN_ACK;
        if ((flags & SYN_ACK) == ND_TCP_SYN) {
            plan.offers = true;
            plan.accurate &= (flags & ACCURATE) == ACCURATE;
        }
    }
    plan.accurate &= plan.offers;
    for (size_t i = 0; i < flow->n; i++) {
        const struct nd_step *step = &flow->steps[i];
        unsigned bits = step->flags & ACCURATE;
        plan.cost_on += difference(bits, legal_bits(&plan, step, true));
        plan.cost_off += difference(bits, legal_bits(&plan, step, false));
    }
    plan.on = plan.answers && plan.cost_on < plan.cost_off;
    return plan;
}

void
nd_repair_ecn(struct nd_draft *flow)
{
    struct plan plan = weigh(flow);
    if (!plan.offers && !plan.answers)
        return;
    for (size_t i = 0; i < flow->n; i++) {
        struct nd_step *step = &flow->steps[i];
        unsigned bits = legal_bits(&plan, step, plan.on);
        unsigned flags = (step->flags & ~(unsigned)ACCURATE) | bits;
        nd_count_change(flow, ND_RULE_TCP_ECN, step->flags, flags);
        step->flags = (uint16_t)flags;
    }
}
