#include <math.h>

#include "repair_flow.h"

/* A number of 0 <= u < 1 that does not depend on the machine. */
static double
unit(uint64_t x)
{
    return (double)(x >> 11) * 0x1p-53;
}

/*
 * A gap inside its bin, log-uniform: bins are 4 % wide, and inside one the
 * logarithm is as good as its first two terms, which need no libm and are
 * the same on every machine.
 */
static int64_t
draw_gap(const struct nd_draft *flow, size_t i, uint16_t code)
{
    int64_t low, high;
    nd_gap_limits(code, &low, &high);
    double width = (double)(high - low);
    double u = unit(nd_chance(flow, ND_FOR_STEP_TIME, i));
    if (low > 0) {
        double ratio = width / (double)low;
        u = u * (1 - ratio * (1 - u) / 2);
    }
    int64_t gap = low + (int64_t)(width * u);
    return gap < high ? gap : high - 1;
}

/* A client that has sent its SYN gives up when no answer has come by then. */
struct patience {
    bool waits, over;
    int64_t until;
};

static void
note_syn(struct patience *p, const struct nd_step *step)
{
    if (step->flags & ND_TCP_RST)
        return;
    p->over = p->over || step->direction == 1 || !(step->flags & ND_TCP_SYN);
    p->waits = !p->over;
    p->until = step->time + ND_SYN_PATIENCE;
}

/* The longest gap that ends in time, where the drawn one may not. */
static void
shorten_gap(struct nd_draft *flow, struct nd_step *step, int64_t left)
{
    int64_t low, high;
    uint32_t code = step->gap_code;
    nd_gap_limits(code, &low, &high);
    if (high - 1 <= left)
        return;
    nd_gap_limits(nd_gap_code(left), &low, &high);
    code = low > 0 ? nd_gap_code(low - 1) : 0;
    nd_count_change(flow, ND_RULE_TIME, step->gap_code, code);
    step->gap_code = (uint16_t)code;
}

/* Times rise from the flow's start by the drawn gaps. */
void
nd_repair_time(struct nd_draft *flow)
{
    int64_t now = flow->start;
    struct patience p = {.over = flow->protocol != ND_PROTOCOL_TCP};
    nd_count_change(flow, ND_RULE_TIME, flow->steps[0].gap_code, 0);
    flow->steps[0].gap_code = 0;
    for (size_t i = 0; i < flow->n; i++) {
        struct nd_step *step = &flow->steps[i];
        if (p.waits)
            shorten_gap(flow, step, p.until - now);
        now += i == 0 ? 0 : draw_gap(flow, i, step->gap_code);
        step->time = now;
        note_syn(&p, step);
    }
}

/*
 * IP ids by their hints, RFC 6864: a counter steps by one, a random id does
 * not look like a counter, and neither is zero. See canonical.h.
 */
static uint16_t
next_id(const struct nd_draft *flow, size_t i, uint8_t hint, uint16_t last)
{
    enum { COUNTER_STEPS = 64 };
    if (hint == ND_ID_ZERO)
        return 0;
    if (hint == ND_ID_COUNTER) {
        uint16_t id = (uint16_t)(last + 1);
        return id != 0 ? id : 1;
    }
    uint16_t id = (uint16_t)nd_chance(flow, ND_FOR_STEP_ID, i);
    if ((uint16_t)(id - last - 1) < COUNTER_STEPS)
        id = (uint16_t)(id + COUNTER_STEPS);
    if (id != 0)
        return id;
    id = 0x8000;
    return (uint16_t)(id - last - 1) < COUNTER_STEPS ? 0x4000 : id;
}

void
nd_repair_ids(struct nd_draft *flow)
{
    bool sent[2] = {false, false};
    uint16_t last[2] = {0, 0};
    if (flow->ip_version != 4)
        return;
    for (size_t i = 0; i < flow->n; i++) {
        struct nd_step *step = &flow->steps[i];
        uint8_t d = step->direction;
        if (step->later) { /* of one id, RFC 791 section 2.3 */
            nd_count_change(flow, ND_RULE_IP_ID, step->id_hint, ND_ID_ZERO);
            step->id_hint = ND_ID_ZERO;
            step->ip_id = last[d];
            continue;
        }
        if (step->mf && step->id_hint == ND_ID_ZERO) { /* RFC 6864 4.1 */
            nd_count_change(flow, ND_RULE_IP_ID, ND_ID_ZERO, ND_ID_COUNTER);
            step->id_hint = ND_ID_COUNTER;
        }
        if (!sent[d]) {
            last[d] = (uint16_t)nd_chance(flow, ND_FOR_IP_ID + d, 0);
            if (step->id_hint == ND_ID_RANDOM) {
                nd_count_change(flow, ND_RULE_IP_ID, ND_ID_RANDOM,
                                ND_ID_COUNTER);
                step->id_hint = ND_ID_COUNTER;
            }
        }
        step->ip_id = next_id(flow, i, step->id_hint, last[d]);
        last[d] = step->ip_id;
        sent[d] = true;
    }
}
