#include "icmp.h"
#include "repair_flow.h"

/* Unknown types become echo: requests of the client, replies of the server. */
void
nd_repair_icmp_types(struct nd_draft *flow)
{
    for (size_t i = 0; i < flow->n; i++) {
        struct nd_step *step = &flow->steps[i];
        uint8_t type = step->icmp_type;
        if (step->later)
            continue;
        if (nd_icmp_find(flow->ip_version, type) == NULL)
            type = flow->ip_version == 6 ? (step->direction ? 129 : 128)
                                         : (step->direction ? 0 : 8);
        const struct nd_icmp_message *m = nd_icmp_find(flow->ip_version, type);
        uint8_t code = step->icmp_code > m->most_code ? 0 : step->icmp_code;
        nd_count_change(flow, ND_RULE_ICMP_TYPE, step->icmp_type, type);
        nd_count_change(flow, ND_RULE_ICMP_TYPE, step->icmp_code, code);
        step->icmp_type = type;
        step->icmp_code = code;
    }
}

static void
fit_body(struct nd_draft *flow, struct nd_step *step,
         const struct nd_icmp_message *m)
{
    uint32_t body = step->payload;
    uint32_t most = m->least_body + 255u * 8; /* an option's, RFC 4861 4.6 */
    if (body < m->least_body || m->body_step == 255)
        body = m->least_body;
    else if (m->body_step == 4)
        body = body < m->least_body + 4u ? m->least_body : m->least_body + 4u;
    else if (m->body_step == 8 && body > most)
        body = most;
    else
        body -= (body - m->least_body) % m->body_step;
    nd_repair_set_payload(flow, step, ND_RULE_ICMP_BODY, body);
}

/* Requests of one end: how many, how many answered, when sent, which. */
struct asked {
    uint16_t sent, answered;
    int64_t times[ND_ECHO_RING];
    uint32_t types; /* a bit each, type % 32: no two share one */
};

/*
 * The number of the request that a reply answers: the oldest open one, but
 * one that is older than a second is lost when a later one is open too.
 */
static uint16_t
answer(struct asked *a, int64_t now)
{
    const int64_t patience = 1000000000;
    while ((uint16_t)(a->sent - a->answered) > ND_ECHO_RING)
        a->answered++;
    while ((uint16_t)(a->sent - a->answered) > 1 &&
           now - a->times[(a->answered + 1) % ND_ECHO_RING] > patience)
        a->answered++;
    if (a->answered != a->sent)
        a->answered++;
    return a->answered;
}

static uint32_t
type_bit(uint8_t type)
{
    return UINT32_C(1) << type % 32;
}

/* A reply that the peer has not asked for becomes a request of its own. */
static const struct nd_icmp_message *
settle_reply(struct nd_draft *flow, struct nd_step *step,
             const struct asked asked[2])
{
    const struct nd_icmp_message *m = nd_icmp_find(flow->ip_version,
                                                   step->icmp_type);
    if (m->rest != ND_REST_REPLY ||
        asked[!step->direction].types & type_bit(m->pair))
        return m;
    nd_count_change(flow, ND_RULE_ICMP_ECHO, step->icmp_type, m->pair);
    step->icmp_type = m->pair;
    return nd_icmp_find(flow->ip_version, m->pair);
}

static uint32_t
second_half(const struct nd_draft *flow, const struct nd_step *step,
            const struct nd_icmp_message *m, struct asked asked[2])
{
    uint8_t d = step->direction;
    switch (m->rest) {
    case ND_REST_REQUEST: {
        uint32_t id = nd_chance(flow, ND_FOR_ECHO, d) & 0xffff;
        uint16_t number = ++asked[d].sent;
        asked[d].types |= type_bit(m->type);
        asked[d].times[number % ND_ECHO_RING] = step->time;
        return id << 16 | number;
    }
    case ND_REST_REPLY: {
        uint32_t id = nd_chance(flow, ND_FOR_ECHO, !d) & 0xffff;
        return id << 16 | answer(&asked[!d], step->time);
    }
    case ND_REST_GATEWAY:
        return 0x0a000000u |
               (uint32_t)(nd_chance(flow, ND_FOR_ROUTER, 0) & 0xffffff);
    case ND_REST_MTU:
        if (flow->ip_version == 6)
            return 1280; /* RFC 8200 section 5 */
        return step->icmp_code == 4 ? 1400 : 0; /* RFC 1191 section 4 */
    case ND_REST_ROUTERS: /* addresses, words an entry, lifetime: RFC 1256 */
        return (uint32_t)(step->payload / 8 > 255 ? 255 : step->payload / 8)
                   << 24 | 2 << 16 | 1800;
    case ND_REST_ADVERTISEMENT:
        return 64u << 24 | 1800;
    case ND_REST_SOLICITED:
        return 0x60000000; /* solicited, override */
    case ND_REST_RECORDS:
        return step->payload / 20u;
    case ND_REST_ZERO:
        break;
    }
    return 0;
}

void
nd_repair_icmp(struct nd_draft *flow)
{
    struct asked asked[2];
    memset(asked, 0, sizeof asked);
    for (size_t i = 0; i < flow->n; i++) {
        struct nd_step *step = &flow->steps[i];
        if (step->later)
            continue;
        const struct nd_icmp_message *m = settle_reply(flow, step, asked);
        fit_body(flow, step, m);
        step->rest = second_half(flow, step, m, asked);
    }
}
