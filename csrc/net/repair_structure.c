#include "icmp.h"
#include "payload.h"
#include "repair_flow.h"

enum { IPV4_FIXED = 20, IPV6_FIXED = 40, TCP_FIXED = 20, SHORT_HEADER = 8 };

uint32_t
nd_repair_room(const struct nd_draft *flow, const struct nd_step *step)
{
    uint32_t headers = flow->ip_version == 6
                           ? IPV6_FIXED : IPV4_FIXED + step->ip_options.length;
    if (flow->ip_version == 6 && (step->mf || step->later))
        headers += SHORT_HEADER;
    if (step->later)
        return flow->options->mtu - headers;
    headers += flow->protocol == ND_PROTOCOL_TCP
                   ? TCP_FIXED + step->tcp_options.length : SHORT_HEADER;
    if (flow->protocol == ND_PROTOCOL_ICMP6)
        headers += (uint32_t)nd_icmp_hop_by_hop(6, step->icmp_type);
    return flow->options->mtu - headers; /* mtu >= 576 > 120 */
}

void
nd_repair_set_payload(struct nd_draft *flow, struct nd_step *step,
                      enum nd_rule rule, uint32_t payload)
{
    uint32_t room = nd_repair_room(flow, step);
    uint16_t length = (uint16_t)(payload < room ? payload : room);
    nd_count_change(flow, rule, step->payload, length);
    step->payload = length;
}

void
nd_repair_structure(struct nd_draft *flow)
{
    bool tcp = flow->protocol == ND_PROTOCOL_TCP;
    uint32_t least = nd_payload_least(flow->protocol, &flow->ends);
    for (size_t i = 0; i < flow->n; i++) {
        struct nd_step *step = &flow->steps[i];
        if (flow->ip_version == 4)
            nd_repair_ip_options(flow, step);
        else
            step->ip_options.length = 0;
        if (tcp)
            nd_repair_tcp_options(flow, step);
        else
            step->tcp_options.length = 0;
        nd_repair_set_payload(flow, step, ND_RULE_IP_LENGTH, step->payload);
        if (step->payload > 0 && step->payload < least && !step->later)
            nd_repair_set_payload(flow, step, ND_RULE_PAYLOAD, least);
    }
}
