#include "payload.h"
#include "repair_flow.h"

/* Cells of the fixed part of each header, addresses left out. */
static const uint8_t fixed_cells[] = {
    [ND_HEADER_IPV4] = 96, [ND_HEADER_IPV6] = 64, [ND_HEADER_TCP] = 160,
    [ND_HEADER_UDP] = 64,  [ND_HEADER_ICMP] = 64,
};

static size_t
count_header(const struct nd_draft *flow, enum nd_header header)
{
    size_t n = 0;
    for (size_t i = 0; i < flow->n; i++)
        n += flow->steps[i].headers_drawn >> header & 1;
    return n;
}

/* Of two headers or more in a packet, the flow's is kept; of none, made. */
static void
settle_headers(struct nd_draft *flow, enum nd_rule rule, enum nd_header first,
               enum nd_header last, enum nd_header kept)
{
    for (size_t i = 0; i < flow->n; i++)
        for (enum nd_header h = first; h <= last; h++) {
            if (flow->steps[i].later && h >= ND_HEADER_TCP)
                continue;
            bool drawn = flow->steps[i].headers_drawn >> h & 1;
            if (drawn != (h == kept))
                flow->changed[rule] += fixed_cells[h];
        }
}

/*
 * The header that costs fewest cells to keep: those of the packets that lack
 * it, while those of the others go whatever is kept.
 */
static enum nd_header
cheapest(const struct nd_draft *flow, enum nd_header first,
         enum nd_header last)
{
    enum nd_header best = first;
    int64_t least = INT64_MAX;
    for (enum nd_header h = first; h <= last; h++) {
        int64_t drawn = (int64_t)count_header(flow, h);
        int64_t cost = ((int64_t)flow->n - 2 * drawn) * fixed_cells[h];
        if (cost < least) {
            best = h;
            least = cost;
        }
    }
    return best;
}

static void
vote_headers(struct nd_draft *flow)
{
    enum nd_header ip = cheapest(flow, ND_HEADER_IPV4, ND_HEADER_IPV6);
    enum nd_header transport = cheapest(flow, ND_HEADER_TCP, ND_HEADER_ICMP);
    flow->ip_version = ip == ND_HEADER_IPV6 ? 6 : 4;
    flow->protocol = transport == ND_HEADER_TCP   ? ND_PROTOCOL_TCP
                     : transport == ND_HEADER_UDP ? ND_PROTOCOL_UDP
                     : flow->ip_version == 6      ? ND_PROTOCOL_ICMP6
                                                  : ND_PROTOCOL_ICMP;
    settle_headers(flow, ND_RULE_IP_VERSION, ND_HEADER_IPV4, ND_HEADER_IPV6,
                   ip);
}

/* Once directions stand, for a fragment follows a packet of its sender. */
static void
settle_transport(struct nd_draft *flow)
{
    enum nd_header kept = flow->protocol == ND_PROTOCOL_TCP ? ND_HEADER_TCP
                          : flow->protocol == ND_PROTOCOL_UDP
                              ? ND_HEADER_UDP : ND_HEADER_ICMP;
    nd_repair_fragments(flow);
    settle_headers(flow, ND_RULE_TRANSPORT, ND_HEADER_TCP, ND_HEADER_ICMP,
                   kept);
}

static bool
drew(const struct nd_step *step, enum nd_header header)
{
    return step->headers_drawn >> header & 1;
}

/* The port that differs from the drawn ones in the fewest cells, the first of
 * equals; 0 is none. */
static uint16_t
nearest_port(const struct nd_draft *flow, enum nd_header transport,
             const uint16_t *ports, size_t n)
{
    size_t drawn = 0, ones[16] = {0}, least = SIZE_MAX;
    uint16_t best = 0;
    for (size_t i = 0; i < flow->n; i++) {
        bool is_drawn = drew(&flow->steps[i], transport);
        drawn += is_drawn;
        for (int bit = 0; bit < 16; bit++)
            ones[bit] += is_drawn && flow->steps[i].port >> bit & 1;
    }
    for (size_t k = 0; k < n; k++) {
        size_t changed = 0;
        for (int bit = 0; bit < 16; bit++)
            changed += ports[k] >> bit & 1 ? drawn - ones[bit] : ones[bit];
        if (changed < least && ports[k] != 0) {
            least = changed;
            best = ports[k];
        }
    }
    return best;
}

/*
 * Ports that many packets drew, by the counters of Misra and Gries (1982): any
 * with more than 1/17 of the packets is among them at the end. Port 0 is no
 * vote.
 */
enum { CANDIDATES = 16 };

struct candidates {
    uint16_t port[CANDIDATES];
    uint32_t count[CANDIDATES];
};

static void
count_port(struct candidates *c, uint16_t port)
{
    int vacant = -1;
    for (int k = 0; k < CANDIDATES; k++) {
        if (c->count[k] > 0 && c->port[k] == port) {
            c->count[k]++;
            return;
        }
        if (c->count[k] == 0 && vacant < 0)
            vacant = k;
    }
    if (vacant >= 0) {
        c->port[vacant] = port;
        c->count[vacant] = 1;
    } else {
        for (int k = 0; k < CANDIDATES; k++)
            c->count[k]--;
    }
}

/* How many packets drew a port, or with 0 how many drew any. */
static size_t
count_votes(const struct nd_draft *flow, enum nd_header transport,
            uint16_t port)
{
    size_t n = 0;
    for (size_t i = 0; i < flow->n; i++)
        n += drew(&flow->steps[i], transport) && flow->steps[i].port != 0 &&
             (port == 0 || flow->steps[i].port == port);
    return n;
}

/* A port on which only messages of a few lengths are legal gives way to one
 * that differs in a cell. */
static uint16_t
fit_port(const struct nd_draft *flow, uint16_t port)
{
    if (!nd_payload_unfit(flow->protocol, port))
        return port;
    for (int bit = 0; bit < 16; bit++) {
        uint16_t near = port ^ (uint16_t)(1 << bit);
        if (near != 0 && !nd_payload_faulted(flow->protocol, near))
            return near;
    }
    return port;
}

/*
 * Of the drawn ports the one that changes the fewest cells of the others. Where
 * packets disagree, ports whose readers expect messages of their own, which
 * the flow's lengths hardly fit, need more than half of the votes.
 */
static uint16_t
vote_port(const struct nd_draft *flow, enum nd_header transport)
{
    struct candidates c = {.port = {0}};
    for (size_t i = 0; i < flow->n; i++)
        if (drew(&flow->steps[i], transport) && flow->steps[i].port != 0)
            count_port(&c, flow->steps[i].port);
    uint16_t first = c.port[0], best;
    if (first == 0) /* RFC 6335 section 6 */
        return (uint16_t)(49152 + nd_chance(flow, ND_FOR_PORT, 1) % 16384);
    if (c.port[1] == 0)
        return fit_port(flow, first);
    size_t votes = count_votes(flow, transport, 0);
    for (int k = 0; k < CANDIDATES; k++)
        if (nd_payload_faulted(flow->protocol, c.port[k]) &&
            2 * count_votes(flow, transport, c.port[k]) <= votes)
            c.port[k] = 0;
    best = nearest_port(flow, transport, c.port, CANDIDATES);
    return fit_port(flow, best != 0 ? best : first);
}

/* Services whose clients use a port of their own, IANA port numbers. */
static const uint16_t client_ports[][3] = {
    /* transport, server, client */
    {ND_PROTOCOL_UDP, 67, 68},     {ND_PROTOCOL_UDP, 547, 546},
    {ND_PROTOCOL_UDP, 5353, 5353}, {ND_PROTOCOL_UDP, 137, 137},
    {ND_PROTOCOL_UDP, 138, 138},   {ND_PROTOCOL_UDP, 500, 500},
    {ND_PROTOCOL_UDP, 520, 520},   {ND_PROTOCOL_UDP, 521, 521},
};

/* Whether readers, who take the only well-known port for the server's, agree
 * that this is the client's, and look at the server's for the service. */
static bool
can_be_client(const struct nd_draft *flow, uint16_t port, uint16_t server)
{
    return port != 0 && (port >= 1024 || server < 1024) &&
           (port == server || !nd_payload_faulted(flow->protocol, port));
}

/* The next port from one on that the client can have, or 0. */
static uint16_t
next_port(const struct nd_draft *flow, uint32_t from, uint16_t server)
{
    enum { NEAR = 128 }; /* X11 alone has 64 ports */
    for (uint32_t i = 0; i < NEAR && from + i <= UINT16_MAX; i++)
        if (can_be_client(flow, (uint16_t)(from + i), server))
            return (uint16_t)(from + i);
    return 0;
}

static uint16_t
client_port(const struct nd_draft *flow, uint16_t server, uint16_t wanted)
{
    for (size_t i = 0; i < sizeof client_ports / sizeof *client_ports; i++)
        if (client_ports[i][0] == flow->protocol &&
            client_ports[i][1] == server)
            return client_ports[i][2];
    uint16_t found = wanted > 0 ? next_port(flow, wanted, server) : 0;
    if (found > 0)
        return found;
    const struct nd_repair_options *o = flow->options;
    uint64_t span = (uint64_t)(o->client_port_high - o->client_port_low) + 1;
    uint64_t at = nd_chance(flow, ND_FOR_PORT, 0) % span;
    if (o->client_port_low + at == server)
        at = at + 1 < span ? at + 1 : 0;
    found = next_port(flow, (uint32_t)(o->client_port_low + at), server);
    return found > 0 ? found : o->client_port_low;
}

static void
settle_ports(struct nd_draft *flow, const struct nd_anchor *anchor)
{
    flow->ends.port[0] = flow->ends.port[1] = 0;
    if (nd_is_icmp(flow))
        return;
    enum nd_header transport = flow->protocol == ND_PROTOCOL_TCP
                                   ? ND_HEADER_TCP : ND_HEADER_UDP;
    bool udp = flow->protocol == ND_PROTOCOL_UDP;
    uint16_t server =
        anchor != NULL && anchor->n_ports[udp] > 0
            ? nearest_port(flow, transport, anchor->ports[udp],
                           anchor->n_ports[udp])
            : vote_port(flow, transport);
    bool given = anchor != NULL && anchor->ip_version == flow->ip_version &&
                 anchor->ends.port[0] != 0;
    if (given && anchor->ends.port[1] != 0)
        server = anchor->ends.port[1];
    flow->ends.port[1] = server;
    uint16_t wanted = anchor != NULL ? anchor->client_port : 0;
    flow->ends.port[0] = given ? anchor->ends.port[0]
                               : client_port(flow, server, wanted);
    for (size_t i = 0; i < flow->n; i++)
        if (drew(&flow->steps[i], transport))
            nd_count_change(flow, ND_RULE_PORT, flow->steps[i].port, server);
}

/* bits of prefix, then chance; the host part is neither all 0 nor all 1. */
static void
draw_address(const struct nd_draft *flow, const struct nd_pool *pool,
             size_t bytes, int end, uint8_t *address)
{
    memset(address, 0, 16);
    for (size_t i = 0; i < bytes; i++) {
        uint64_t u = nd_chance(flow, ND_FOR_ADDRESS + (unsigned)end, i / 8);
        uint8_t random = (uint8_t)(u >> i % 8 * 8);
        size_t fixed = pool->bits > 8 * i ? pool->bits - 8 * i : 0;
        uint8_t mask = fixed >= 8 ? 0xff : (uint8_t)(0xff00u >> fixed);
        address[i] = (uint8_t)((pool->prefix[i] & mask) | (random & ~mask));
    }
    uint8_t *last = &address[bytes - 1];
    if (pool->bits + 2u <= bytes * 8 && (*last == 0 || *last == 0xff))
        *last ^= 1;
}

static void
settle_addresses(struct nd_draft *flow, const struct nd_anchor *anchor)
{
    if (anchor != NULL && anchor->ip_version == flow->ip_version) {
        memcpy(flow->ends.address, anchor->ends.address,
               sizeof flow->ends.address);
        return;
    }
    const struct nd_repair_options *o = flow->options;
    const struct nd_pool *pool = flow->ip_version == 6 ? o->pool6 : o->pool4;
    for (int end = 0; end < 2; end++)
        draw_address(flow, &pool[end], flow->ip_version == 6 ? 16 : 4, end,
                     flow->ends.address[end]);
}

/*
 * A connection that began before the capture is taken up on data or an
 * acknowledgement, not on its FIN or a RST: so do trackers.
 */
static void
settle_first(struct nd_draft *flow)
{
    struct nd_step *first = &flow->steps[0];
    unsigned flags = first->flags & ~(unsigned)(ND_TCP_RST | ND_TCP_FIN);
    if (flow->protocol != ND_PROTOCOL_TCP)
        return;
    nd_count_change(flow, ND_RULE_TCP_HANDSHAKE, first->flags, flags);
    first->flags = (uint16_t)flags;
}

/*
 * The client sends the first packet, unless the server has the only
 * well-known port: so says flow.h, and a reader must agree. A SYN or SYN-ACK
 * that nothing comes before is the client's.
 */
static void
settle_direction(struct nd_draft *flow)
{
    struct nd_step *first = &flow->steps[0];
    bool tcp = flow->protocol == ND_PROTOCOL_TCP;
    bool server = !nd_is_icmp(flow) && flow->ends.port[1] < 1024 &&
                  flow->ends.port[0] >= 1024;
    if (tcp && first->flags & ND_TCP_SYN)
        server = false;
    if (first->direction == 1 && !server) {
        nd_count_change(flow, ND_RULE_DIRECTION, 1, 0);
        first->direction = 0;
    }
}

void
nd_repair_vote(struct nd_draft *flow, const struct nd_anchor *anchor)
{
    vote_headers(flow);
    settle_ports(flow, anchor);
    settle_addresses(flow, anchor);
    settle_first(flow);
    settle_direction(flow);
    settle_transport(flow);
    if (nd_is_icmp(flow))
        nd_repair_icmp_types(flow);
}
