#include <math.h>

#include "gap.h"
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
 * the same on every machine. A bin that has no whole number of the capture's
 * units gives the nearest gap that is one.
 */
static int64_t
draw_gap(const struct nd_draft *flow, size_t i, uint32_t bin)
{
    int64_t low, high, unit_ns = flow->resolution;
    nd_gap_limits(bin, &low, &high);
    if ((high - 1) / unit_ns * unit_ns < low)
        return (low + unit_ns / 2) / unit_ns * unit_ns;
    low = (low + unit_ns - 1) / unit_ns;
    high = (high - 1) / unit_ns + 1;
    double width = (double)(high - low);
    double u = unit(nd_chance(flow, ND_FOR_STEP_TIME, i));
    if (low > 0) {
        double ratio = width / (double)low;
        u = u * (1 - ratio * (1 - u) / 2);
    }
    int64_t gap = low + (int64_t)(width * u);
    return (gap < high ? gap : high - 1) * unit_ns;
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

/* The longest bin that ends in time, where the drawn one may not. */
static uint32_t
shorten_gap(uint32_t bin, int64_t left)
{
    int64_t low, high;
    nd_gap_limits(bin, &low, &high);
    if (high - 1 <= left)
        return bin;
    nd_gap_limits(nd_gap_bin(left), &low, &high);
    return low > 0 ? nd_gap_bin(low - 1) : 0;
}

/* A code that tells the same bin in another way is no change. */
static void
count_gap(struct nd_draft *flow, const struct nd_round_trip *trip,
          uint32_t code, uint32_t bin)
{
    static const struct nd_round_trip none = {0};
    if (code != nd_gap_tell(&none, bin))
        nd_count_change(flow, ND_RULE_TIME, code, nd_gap_tell(trip, bin));
}

/* Times rise from the flow's start by the drawn gaps. */
void
nd_repair_time(struct nd_draft *flow)
{
    int64_t now = flow->start;
    struct patience p = {.over = flow->protocol != ND_PROTOCOL_TCP};
    struct nd_round_trip trip = {0};
    for (size_t i = 0; i < flow->n; i++) {
        struct nd_step *step = &flow->steps[i];
        uint32_t bin = i == 0 ? 0 : nd_gap_hear(&trip, step->gap_code);
        if (p.waits)
            bin = shorten_gap(bin, p.until - now);
        int64_t gap = i == 0 ? 0 : draw_gap(flow, i, bin);
        bin = nd_gap_bin(gap);
        count_gap(flow, &trip, step->gap_code, bin);
        now += gap;
        step->time = now;
        note_syn(&p, step);
        nd_gap_note(&trip, step->direction, bin);
    }
}

/*
 * IP ids by their hints, RFC 6864: a counter steps by 1 to 64, a random id does
 * not look like a counter, none of them is zero. Of the senders of real flows
 * three in ten share their counter with other traffic, and one in seven has not
 * counted far.
 */
enum { BUSY = 3, SENDERS = 10, NEW_EVERY = 7 };

static uint64_t
habit(const struct nd_draft *flow, uint8_t d)
{
    return nd_chance(flow, ND_FOR_IP_ID + d, 1);
}

static uint16_t
first_id(const struct nd_draft *flow, uint8_t d)
{
    const struct nd_host *host = &flow->host[d];
    uint64_t u = nd_chance(flow, ND_FOR_IP_ID + d, 0);
    uint16_t id = (uint16_t)u;
    if (host->id_bits > 0)
        return (uint16_t)nd_known_bits(host->id, id, 16, host->id_bits);
    if ((u >> 16) % NEW_EVERY == 0)
        id = (uint16_t)(id >> (4 + (u >> 32) % 8));
    return id;
}

/* How far a counter that others use, too, has come since the last packet. */
static uint16_t
busy_step(uint64_t u, bool far)
{
    uint64_t width = far ? 6 + (u >> 16) % 7 : (u >> 16) % 6;
    uint64_t more = (u >> 32) & ((UINT64_C(1) << width) - 1);
    if (far)
        return (uint16_t)(ND_ID_STEPS + 1 + more);
    return (uint16_t)(u % 5 < 3 ? 1 : 2 + more);
}

static uint16_t
next_id(const struct nd_draft *flow, size_t i, uint16_t last)
{
    const struct nd_step *step = &flow->steps[i];
    bool busy = habit(flow, step->direction) % SENDERS < BUSY;
    bool far = step->id_hint == ND_ID_RANDOM;
    uint64_t u = nd_chance(flow, ND_FOR_STEP_ID, i);
    uint16_t by = 1;
    if (busy)
        by = busy_step(u, far);
    else if (far)
        by = (uint16_t)(ND_ID_STEPS + 1 + u % (UINT16_MAX - ND_ID_STEPS - 1));
    uint16_t id = (uint16_t)(last + by);
    return id == 0 ? 1 : id;
}

/* A first id counts; a fragment has one of its own (RFC 6864 section 4.1). */
static bool
must_count(const struct nd_step *step, bool sent, uint16_t last)
{
    switch (step->id_hint) {
    case ND_ID_ZERO:
        return step->mf;
    case ND_ID_RANDOM:
        return !sent;
    case ND_ID_SAME:
        return !sent || step->mf || last == 0;
    default:
        return false;
    }
}

/* After ids of zero comes the first one of the sender's counter. */
static uint16_t
id_after_zeros(const struct nd_draft *flow, uint8_t d)
{
    uint16_t id = first_id(flow, d);
    return id > ND_ID_STEPS ? id : id + ND_ID_STEPS + 1;
}

void
nd_repair_ids(struct nd_draft *flow)
{
    bool sent[2] = {false, false};
    bool zeros[2] = {true, true}; /* all ids so far */
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
        if (must_count(step, sent[d], last[d])) {
            nd_count_change(flow, ND_RULE_IP_ID, step->id_hint, ND_ID_COUNTER);
            step->id_hint = ND_ID_COUNTER;
        }
        if (!sent[d])
            last[d] = first_id(flow, d);
        if (step->id_hint == ND_ID_ZERO)
            last[d] = 0;
        else if (sent[d] && zeros[d] && step->id_hint == ND_ID_RANDOM)
            last[d] = id_after_zeros(flow, d);
        else if (step->id_hint != ND_ID_SAME)
            last[d] = next_id(flow, i, last[d]);
        step->ip_id = last[d];
        sent[d] = true;
        zeros[d] = zeros[d] && last[d] == 0;
    }
}
