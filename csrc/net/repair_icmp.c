#include "icmp.h"
#include "repair_flow.h"

/*
 * What one end has told its peer that trackers know: whole requests, and
 * messages that an error may quote. A message in fragments counts from the
 * last one on, and is not quoted.
 */
struct told {
    uint32_t requests; /* a bit each, type % 32: no two share one */
    uint32_t parts;    /* of the message whose fragments have not all come */
    bool open;         /* that there is one */
    bool quoted;
};

static uint32_t
type_bit(uint8_t type)
{
    return UINT32_C(1) << type % 32;
}

static void
set_type(struct nd_draft *flow, struct nd_step *step, enum nd_rule rule,
         uint8_t type)
{
    const struct nd_icmp_message *m = nd_icmp_find(flow->ip_version, type);
    uint8_t code = step->icmp_code > m->most_code ? 0 : step->icmp_code;
    nd_count_change(flow, rule, step->icmp_type, type);
    nd_count_change(flow, rule, step->icmp_code, code);
    step->icmp_type = type;
    step->icmp_code = code;
}

/*
 * Unknown types become echo: requests of the client, replies of the server.
 * What trackers call invalid whatever comes before it gives way too.
 */
static uint8_t
known_type(const struct nd_draft *flow, const struct nd_step *step)
{
    const struct nd_icmp_message *m = nd_icmp_find(flow->ip_version,
                                                   step->icmp_type);
    if (m == NULL && flow->ip_version == 6)
        return step->direction ? 129 : 128;
    if (m == NULL)
        return step->direction ? 0 : 8;
    return m->instead != 0 ? m->instead : m->type;
}

/* A reply that the peer has not asked for becomes a request of its own. */
static void
settle_reply(struct nd_draft *flow, struct nd_step *step,
             const struct told told[2])
{
    const struct nd_icmp_message *m = nd_icmp_find(flow->ip_version,
                                                   step->icmp_type);
    if (m->rest == ND_REST_REPLY &&
        !(told[!step->direction].requests & type_bit(m->pair)))
        set_type(flow, step, ND_RULE_ICMP_ECHO, m->pair);
}

/*
 * An error is about something that its receiver has sent. Where only its
 * sender has sent anything, they change places; else it becomes a request.
 */
static void
settle_error(struct nd_draft *flow, struct nd_step *step,
             const struct told told[2])
{
    uint8_t d = step->direction;
    if (!nd_icmp_is_error(flow->ip_version, step->icmp_type) ||
        told[!d].quoted)
        return;
    if (told[d].quoted && !told[!d].open) {
        nd_count_change(flow, ND_RULE_ICMP_CAUSE, d, !d);
        step->direction = !d;
    } else {
        set_type(flow, step, ND_RULE_ICMP_CAUSE,
                 flow->ip_version == 6 ? 128 : 8);
    }
}

static void
note_told(const struct nd_draft *flow, const struct nd_step *step,
          struct told *me)
{
    const struct nd_icmp_message *m = nd_icmp_find(flow->ip_version,
                                                   step->icmp_type);
    if (!step->later)
        me->parts = m->rest == ND_REST_REQUEST ? type_bit(m->type) : 0;
    if (!step->mf)
        me->requests |= me->parts;
    me->open = step->mf;
    me->quoted |= !step->mf && !step->later &&
                  nd_icmp_is_quoted(flow->ip_version, m->type);
}

/* RFC 4861 sections 6.1.2 and 8.1, RFC 2710 section 3: fe80::/64. */
static void
settle_link(struct nd_draft *flow, const struct nd_step *step)
{
    static const uint8_t prefix[8] = {0xfe, 0x80};
    uint8_t *from = flow->ends.address[step->direction];
    if (nd_icmp_find(flow->ip_version, step->icmp_type)->link_local &&
        !nd_icmp_link_local(from))
        memcpy(from, prefix, sizeof prefix);
}

void
nd_repair_icmp_types(struct nd_draft *flow)
{
    struct told told[2];
    memset(told, 0, sizeof told);
    for (size_t i = 0; i < flow->n; i++) {
        struct nd_step *step = &flow->steps[i];
        if (!step->later) {
            set_type(flow, step, ND_RULE_ICMP_TYPE, known_type(flow, step));
            settle_reply(flow, step, told);
            settle_error(flow, step, told);
            settle_link(flow, step);
        }
        note_told(flow, step, &told[step->direction]);
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
second_half(const struct nd_draft *flow, const struct nd_step *step,
            const struct nd_icmp_message *m, struct asked asked[2])
{
    uint8_t d = step->direction;
    switch (m->rest) {
    case ND_REST_REQUEST: {
        uint32_t id = nd_chance(flow, ND_FOR_ECHO, d) & 0xffff;
        uint16_t number = ++asked[d].sent;
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
        const struct nd_icmp_message *m = nd_icmp_find(flow->ip_version,
                                                       step->icmp_type);
        fit_body(flow, step, m);
        step->rest = second_half(flow, step, m, asked);
    }
}
