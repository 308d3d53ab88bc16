#include "payload.h"
#include "repair_flow.h"

/*
 * Fragments of UDP datagrams and of echo messages, RFC 791 section 3.2, RFC
 * 8200 section 4.5; of IPv6 the headers of fragments have no cells. A packet
 * that was drawn without a transport header goes on with the datagram of its
 * sender's packet before: to set that one's "more fragments" changes one
 * cell, a header of its own 64.
 */

enum {
    BLOCK = 8,
    LONGEST = 65535, /* of a datagram: IPv4 counts its header, IPv6 not */
    LEAST_FIRST = 256,    /* what a first fragment may come to have */
    ECHO = 8, ECHO_REPLY = 0, ECHO6 = 128, ECHO6_REPLY = 129
};

/* What the latest packet of a sender began or went on with. */
struct train {
    struct nd_step *last; /* that another fragment may follow, or NULL */
    uint32_t bytes;
};

static void
set_more(struct nd_draft *flow, struct nd_step *step, bool more)
{
    if (flow->ip_version == 4)
        nd_count_change(flow, ND_RULE_IP_FRAGMENT, step->mf, more);
    step->mf = more;
}

static bool
drew_transport(const struct nd_step *step)
{
    return step->headers_drawn >> ND_HEADER_TCP & 7;
}

static bool
may_begin(const struct nd_draft *flow, const struct nd_step *step)
{
    uint8_t type = step->icmp_type;
    switch (flow->protocol) {
    case ND_PROTOCOL_UDP:
        return true;
    case ND_PROTOCOL_ICMP:
        return type == ECHO || type == ECHO_REPLY;
    case ND_PROTOCOL_ICMP6:
        return type == ECHO6 || type == ECHO6_REPLY;
    default:
        return false;
    }
}

static uint32_t
whole_blocks(uint32_t bytes)
{
    return (bytes + BLOCK - 1) / BLOCK * BLOCK;
}

/* Another fragment, or the end of the datagram before. */
static void
go_on(struct nd_draft *flow, struct train *train, struct nd_step *step)
{
    uint32_t bytes = whole_blocks(step->payload > 0 ? step->payload : 1);
    step->later = train->last != NULL && !drew_transport(step) &&
                  train->bytes + bytes <= LONGEST;
    if (train->last != NULL)
        set_more(flow, train->last, step->later);
    if (!step->later)
        train->bytes = BLOCK + (flow->ip_version == 4
                                    ? 20u + step->ip_options.length : 0u);
    if (!step->later && bytes < LEAST_FIRST)
        bytes = LEAST_FIRST;
    train->bytes += bytes;
    train->last = step->later || may_begin(flow, step) ? step : NULL;
    if (train->last == NULL)
        set_more(flow, step, false);
}

void
nd_repair_fragments(struct nd_draft *flow)
{
    struct train trains[2] = {{NULL, 0}, {NULL, 0}};
    for (size_t i = 0; i < flow->n; i++)
        go_on(flow, &trains[flow->steps[i].direction], &flow->steps[i]);
    for (int d = 0; d < 2; d++)
        if (trains[d].last != NULL)
            set_more(flow, trains[d].last, false);
}

/* Only the last fragment may end inside a block, and none is empty. */
static void
fit_blocks(struct nd_draft *flow, struct nd_step *step)
{
    uint32_t least = step->later ? 1
                     : step->payload > 0 || step->mf
                         ? nd_payload_least(flow->protocol, &flow->ends) : 0;
    uint32_t fitting = step->payload;
    if (step->mf)
        fitting -= fitting % BLOCK;
    if (fitting < least)
        fitting = step->mf ? whole_blocks(least) : least;
    nd_repair_set_payload(flow, step, ND_RULE_IP_FRAGMENT, fitting);
    nd_count_change(flow, ND_RULE_IP_FRAGMENT, step->df, false);
    step->df = false;
}

/* Some of a packet's fragments without ECN, some with: then it is dropped, RFC
 * 3168 section 5.3. */
static void
fit_ecn(struct nd_draft *flow, struct nd_step *step, const struct nd_step *head)
{
    enum { ECN = 3 };
    uint8_t tos = (uint8_t)((step->tos & ~ECN) | (head->tos & ECN));
    if ((step->tos & ECN) != 0 && (head->tos & ECN) != 0)
        return;
    nd_count_change(flow, ND_RULE_IP_FRAGMENT, step->tos, tos);
    step->tos = tos;
}

void
nd_repair_offsets(struct nd_draft *flow)
{
    struct nd_step *first[2] = {NULL, NULL};
    for (size_t i = 0; i < flow->n; i++) {
        struct nd_step *step = &flow->steps[i];
        struct nd_step **head = &first[step->direction];
        if (step->mf || step->later)
            fit_blocks(flow, step);
        step->datagram = step->payload;
        if (!step->later) {
            *head = step;
            continue;
        }
        fit_ecn(flow, step, *head);
        step->offset = (uint16_t)(((*head)->datagram + BLOCK) / BLOCK);
        (*head)->datagram += step->payload;
    }
}
