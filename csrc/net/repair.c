#include "repair.h"

#include <stdlib.h>
#include <string.h>

#include "repair_flow.h"

const struct nd_rule_text nd_rules[ND_RULE_COUNT] = {
#define X(id, name, scope, source, text, change)                              \
    {name, source, text, change, ND_SCOPE_##scope},
    ND_RULE_LIST(X)
#undef X
};

struct nd_repair {
    size_t max_packets;
    struct nd_step *steps;
};

/*
 * Clients in 10.0.0.0/8 (RFC 1918), servers in 198.18.0.0/15 (RFC 2544), both
 * sides of IPv6 in 2001:db8::/32 (RFC 3849); ephemeral ports of RFC 6335
 * section 6; 1 January 2024, 00:00 UTC.
 */
void
nd_repair_defaults(struct nd_repair_options *options)
{
    *options = (struct nd_repair_options){
        .pool4 = {{{10}, 8}, {{198, 18}, 15}},
        .pool6 = {{{0x20, 0x01, 0x0d, 0xb8, 0, 1}, 48},
                  {{0x20, 0x01, 0x0d, 0xb8, 0, 2}, 48}},
        .client_port_low = 49152,
        .client_port_high = 65535,
        .mtu = 65535,
        .start = INT64_C(1704067200000000000),
        .spread = INT64_C(3600000000000),
        .events = ND_EVENTS_KEEP,
    };
}

enum nd_status
nd_repair_check(const struct nd_repair_options *o, struct nd_error *err)
{
    for (int end = 0; end < 2; end++) {
        if (o->pool4[end].bits > 30)
            return nd_fail(err, ND_ARGUMENT,
                           "IPv4 prefix length %u: at most 30",
                           (unsigned)o->pool4[end].bits);
        if (o->pool6[end].bits > 126)
            return nd_fail(err, ND_ARGUMENT,
                           "IPv6 prefix length %u: at most 126",
                           (unsigned)o->pool6[end].bits);
    }
    if (o->client_port_low == 0 || o->client_port_low >= o->client_port_high)
        return nd_fail(err, ND_ARGUMENT,
                       "client ports %u to %u: the first must be above 0 and "
                       "below the last",
                       (unsigned)o->client_port_low,
                       (unsigned)o->client_port_high);
    if (o->mtu < 576 || o->mtu > 65535)
        return nd_fail(err, ND_ARGUMENT, "mtu %u: 576 to 65535",
                       (unsigned)o->mtu);
    if (o->start < 0 || o->spread < 0 || o->start > INT64_MAX / 4 ||
        o->spread > INT64_MAX / 4)
        return nd_fail(err, ND_ARGUMENT,
                       "start and spread must be 0 to 2^61 nanoseconds");
    return ND_OK;
}

enum nd_status
nd_repair_create(struct nd_repair **repair, size_t max_packets,
                 struct nd_error *err)
{
    struct nd_repair *r = calloc(1, sizeof *r);
    if (r != NULL)
        r->steps = calloc(max_packets > 0 ? max_packets : 1,
                          sizeof *r->steps);
    if (r == NULL || r->steps == NULL) {
        nd_repair_destroy(r);
        return nd_fail(err, ND_NO_MEMORY, "a flow of %zu packets",
                       max_packets);
    }
    r->max_packets = max_packets;
    *repair = r;
    return ND_OK;
}

void
nd_repair_destroy(struct nd_repair *repair)
{
    if (repair == NULL)
        return;
    free(repair->steps);
    free(repair);
}

static int64_t
flow_start(const struct nd_draft *flow, const struct nd_anchor *anchor)
{
    const struct nd_repair_options *o = flow->options;
    if (anchor != NULL && anchor->has_start)
        return anchor->start;
    uint64_t u = nd_chance(flow, ND_FOR_START, 0);
    int64_t start = o->start + (int64_t)(u % ((uint64_t)o->spread + 1));
    return start - start % flow->resolution;
}

static void
repair_packets(struct nd_draft *flow, const struct nd_anchor *anchor,
               const int8_t *canonical)
{
    nd_repair_read(flow, canonical);
    nd_repair_vote(flow, anchor);
    nd_repair_structure(flow);
    if (flow->protocol == ND_PROTOCOL_TCP) {
        nd_repair_flags(flow);
        nd_repair_ecn(flow);
    }
    nd_repair_time(flow);
    nd_repair_ids(flow);
    if (flow->protocol == ND_PROTOCOL_TCP)
        nd_repair_tcp(flow);
    else if (nd_is_icmp(flow))
        nd_repair_icmp(flow);
    nd_repair_offsets(flow);
    nd_repair_ttl(flow);
}

void
nd_repair_flow(struct nd_repair *repair,
               const struct nd_repair_options *options, uint64_t flow_id,
               const struct nd_anchor *anchor, const int8_t *canonical,
               size_t n, const struct nd_repaired *out)
{
    struct nd_draft flow = {
        .options = options,
        .key = nd_mix(nd_mix(options->seed) + flow_id),
        .n = n < repair->max_packets ? n : repair->max_packets,
        .steps = repair->steps,
        .resolution = 1,
        .changed = out->changed,
    };
    if (anchor != NULL) {
        memcpy(flow.host, anchor->host, sizeof flow.host);
        flow.resolution = anchor->resolution > 0 ? anchor->resolution : 1;
    }
    memset(out->changed, 0, ND_RULE_COUNT * sizeof *out->changed);
    if (flow.n == 0) {
        memset(out->ends, 0, sizeof *out->ends);
        *out->ip_version = 4;
        *out->protocol = ND_PROTOCOL_TCP;
        return;
    }
    flow.start = flow_start(&flow, anchor);
    repair_packets(&flow, anchor, canonical);
    nd_repair_write(&flow, out);
}
