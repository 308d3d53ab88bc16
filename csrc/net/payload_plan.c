#include "payload_plan.h"

#include <stdlib.h>

enum { TCP = 6, UDP = 17, SYN = 2, PSH = 8 };
enum { MOST = 1 << 30 }; /* bytes of a message, so that a sum cannot wrap */

static const uint32_t NONE = UINT32_MAX;

/* A message; those of one end are linked both ways. */
struct slot {
    int64_t start; /* in the stream of its end */
    uint32_t length, first;
    uint32_t number, turn, heard;
    uint32_t asked; /* a slot */
    uint32_t next, previous;
    uint8_t direction;
    bool first_over, over, unasked;
};

/* Where the payload of a packet begins. */
struct place {
    int64_t start;
    uint32_t slot; /* NONE: it has no payload */
};

struct end {
    uint32_t last;    /* slot */
    uint32_t waiting; /* the first slot without an answer */
    uint32_t numbers, turns;
    uint32_t seq; /* of the byte at `next` */
    int64_t next;
    bool begun;
};

struct flow {
    struct nd_talk talk;
    uint64_t filled, too_short; /* packets */
};

struct nd_plan {
    struct nd_payload_choice choice;
    struct flow *flows;
    struct slot *slots;
    struct place *places;
    size_t n_flows, n_slots, n_packets; /* so far */
    struct end ends[2];                 /* of the flow being planned */
    uint8_t spoke;                      /* who sent data last; 2: nobody */
};

enum nd_status
nd_plan_create(struct nd_plan **out, const struct nd_payload_choice *choice,
               size_t flows, size_t packets, struct nd_error *err)
{
    struct nd_plan *plan = calloc(1, sizeof *plan);
    *out = NULL;
    if (plan != NULL && packets < UINT32_MAX / 2) {
        plan->choice = *choice;
        plan->flows = calloc(flows + 1, sizeof *plan->flows);
        plan->slots = calloc(2 * packets + 1, sizeof *plan->slots);
        plan->places = calloc(packets + 1, sizeof *plan->places);
        *out = plan;
    }
    if (*out != NULL && plan->flows != NULL && plan->slots != NULL &&
        plan->places != NULL)
        return ND_OK;
    nd_plan_destroy(plan);
    *out = NULL;
    return nd_fail(err, ND_NO_MEMORY,
                   "no memory for the payload of %zu packets", packets);
}

void
nd_plan_destroy(struct nd_plan *plan)
{
    if (plan == NULL)
        return;
    free(plan->flows);
    free(plan->slots);
    free(plan->places);
    free(plan);
}

/* ---- planning --------------------------------------------------------- */

static uint64_t
key_of(uint64_t seed, const struct nd_endpoints *ends, uint8_t protocol,
       int64_t time)
{
    uint64_t key = nd_pen_chance(seed, protocol);
    key = nd_pen_chance(key ^ (uint64_t)time, ends->port[0]);
    key = nd_pen_chance(key, ends->port[1]);
    for (int i = 0; i < 32; i++)
        key = nd_pen_chance(key, ends->address[i / 16][i % 16]);
    return key;
}

static enum nd_service
service_of(const struct nd_payload_choice *choice, size_t flow,
           const struct nd_endpoints *ends, uint8_t protocol)
{
    uint8_t hint = choice->services == NULL ? 0 : choice->services[flow];
    enum nd_service named = hint & 0x7f;
    if (named >= ND_SERVICE_COUNT || (protocol != TCP && protocol != UDP))
        named = ND_SERVICE_NONE;
    enum nd_service found = nd_service_find(protocol, ends);
    if (nd_payload_wary(protocol, ends)) /* of all but its own messages */
        return found;
    if (hint & ND_SERVICE_SURE && named != ND_SERVICE_NONE)
        return named;
    return found != ND_SERVICE_NONE ? found : named;
}

void
nd_plan_flow(struct nd_plan *plan, const struct nd_endpoints *ends,
             uint8_t ip_version, uint8_t protocol, int64_t time)
{
    static const char example[] = "www.example.com"; /* RFC 6761 */
    size_t flow = plan->n_flows++;
    struct nd_talk *talk = &plan->flows[flow].talk;
    const char *host = plan->choice.hosts;
    host = host == NULL ? "" : host + flow * ND_HOST_BYTES;
    if (*host == 0)
        memcpy(talk->host, example, sizeof example);
    else
        memcpy(talk->host, host, ND_HOST_BYTES - 1);
    talk->host_bytes = strlen(talk->host);
    talk->key = key_of(plan->choice.seed, ends, protocol, time);
    talk->service = service_of(&plan->choice, flow, ends, protocol);
    talk->protocol = protocol;
    talk->ip_version = ip_version;
    talk->middle = protocol == TCP;
    talk->ends = *ends;
    for (int d = 0; d < 2; d++)
        plan->ends[d] = (struct end){.last = NONE, .waiting = NONE};
    plan->spoke = 2;
}

/* The next message of an end, empty; it answers what waits for an answer. */
static void
begin_message(struct nd_plan *plan, uint8_t direction)
{
    struct end *me = &plan->ends[direction];
    struct end *peer = &plan->ends[!direction];
    uint32_t index = (uint32_t)plan->n_slots++;
    uint32_t asked = peer->waiting != NONE ? peer->waiting : peer->last;
    plan->slots[index] = (struct slot){
        .start = me->next, .number = me->numbers++, .turn = me->turns - 1,
        .heard = peer->numbers, .asked = asked, .next = NONE,
        .previous = me->last, .direction = direction,
        .unasked = peer->waiting == NONE,
    };
    if (peer->waiting != NONE)
        peer->waiting = plan->slots[peer->waiting].next;
    if (me->last != NONE)
        plan->slots[me->last].next = index;
    if (me->waiting == NONE)
        me->waiting = index;
    me->last = index;
}

/* n new bytes of an end, behind all that it has sent. */
static void
extend(struct nd_plan *plan, uint8_t direction, uint32_t n)
{
    struct end *me = &plan->ends[direction];
    if (me->last == NONE || plan->slots[me->last].over)
        begin_message(plan, direction);
    struct slot *slot = &plan->slots[me->last];
    slot->length += n;
    if (!slot->first_over)
        slot->first += n;
    slot->over |= slot->length > MOST;
    me->next += n;
    me->seq += n;
}

/* A message ends when it has the bytes that it needs; a hole cuts it. */
static void
end_message(struct nd_plan *plan, uint8_t direction, bool cut)
{
    const struct nd_talk *talk = &plan->flows[plan->n_flows - 1].talk;
    if (plan->ends[direction].last == NONE)
        return;
    struct slot *slot = &plan->slots[plan->ends[direction].last];
    slot->over |= cut || slot->length >= nd_services[talk->service].least;
}

static void
take_turn(struct nd_plan *plan, uint8_t direction)
{
    if (plan->spoke == direction)
        return;
    plan->spoke = direction;
    plan->ends[direction].turns++;
    end_message(plan, !direction, false);
}

/* The slot of an end that holds a byte of its stream, or its first one. */
static uint32_t
slot_at(const struct nd_plan *plan, uint8_t direction, int64_t at)
{
    uint32_t slot = plan->ends[direction].last;
    while (slot != NONE && plan->slots[slot].start > at &&
           plan->slots[slot].previous != NONE)
        slot = plan->slots[slot].previous;
    return slot;
}

/* RFC 9293 section 3.4: where a segment lies in the stream of its sender. */
static int64_t
stream_place(struct nd_plan *plan, const struct nd_payload *p)
{
    struct end *me = &plan->ends[p->direction];
    const uint8_t *tcp = p->transport;
    bool syn = tcp[13] & SYN;
    uint32_t seq = nd_get32(tcp + 4) + syn;
    if (syn && plan->spoke == 2)
        plan->flows[plan->n_flows - 1].talk.middle = false;
    if (!me->begun || (syn && me->last == NONE)) {
        me->begun = true;
        me->seq = seq;
    }
    return me->next + (int32_t)(seq - me->seq);
}

/* A segment: what is new of it belongs to a message, and so does a hole
 * before it, which nobody will see. */
static void
plan_segment(struct nd_plan *plan, const struct nd_payload *p,
             struct place *place)
{
    struct end *me = &plan->ends[p->direction];
    const struct flow *flow = &plan->flows[plan->n_flows - 1];
    int64_t start = stream_place(plan, p);
    int64_t end = start + p->length;
    *place = (struct place){start, NONE};
    if (p->length == 0)
        return;
    if (end > me->next) {
        take_turn(plan, p->direction);
        if (start > me->next) {
            end_message(plan, p->direction, true);
            extend(plan, p->direction, (uint32_t)(start - me->next));
            end_message(plan, p->direction, true);
        }
        extend(plan, p->direction, (uint32_t)(end - me->next));
        if (p->transport[13] & PSH) {
            plan->slots[me->last].first_over = true;
            if (!nd_services[flow->talk.service].turns)
                end_message(plan, p->direction, false);
        }
    }
    place->slot = slot_at(plan, p->direction, start);
}

static void
plan_datagram(struct nd_plan *plan, const struct nd_payload *p,
              struct place *place)
{
    struct end *me = &plan->ends[p->direction];
    *place = (struct place){me->next, NONE};
    if (p->length == 0)
        return;
    take_turn(plan, p->direction);
    begin_message(plan, p->direction);
    extend(plan, p->direction, p->length);
    plan->slots[me->last].over = true;
    place->slot = me->last;
}

void
nd_plan_packet(struct nd_plan *plan, const struct nd_payload *payload)
{
    struct place *place = &plan->places[plan->n_packets++];
    if (plan->choice.mode == ND_PAYLOAD_ZEROS)
        return;
    if (payload->protocol == TCP)
        plan_segment(plan, payload, place);
    else
        plan_datagram(plan, payload, place);
}

/* ---- filling ---------------------------------------------------------- */

static struct nd_message
message_of(const struct nd_plan *plan, const struct nd_talk *talk,
           const struct slot *slot)
{
    struct nd_message m = {
        .talk = talk, .direction = slot->direction, .number = slot->number,
        .turn = slot->turn, .heard = slot->heard, .first = slot->first,
        .start = (uint64_t)slot->start, .length = slot->length,
        .unasked = slot->unasked,
    };
    if (slot->asked != NONE) {
        m.asked = plan->slots[slot->asked].number;
        m.asked_length = plan->slots[slot->asked].length;
    }
    return m;
}

/* Bytes from .. to of a slot's stream; whether its message fits into it. */
static bool
fill_part(const struct nd_plan *plan, const struct nd_talk *talk,
          const struct slot *slot, size_t from, size_t to, uint8_t *bytes)
{
    struct nd_message m = message_of(plan, talk, slot);
    struct nd_pen pen = {
        .bytes = bytes, .from = from, .to = to, .length = slot->length,
        .key = nd_talk_chance(talk, 1u + slot->direction, slot->number),
    };
    return nd_services[talk->service].write(&m, &pen);
}

static void
fill_messages(struct nd_plan *plan, struct flow *flow,
              const struct place *place, uint32_t length, uint8_t *bytes)
{
    int64_t at = place->start, end = at + length;
    bool fits = true;
    for (uint32_t i = place->slot; i != NONE && at < end;
         i = plan->slots[i].next) {
        const struct slot *slot = &plan->slots[i];
        if (at < slot->start) { /* zeros before all that is known */
            if (slot->start >= end)
                break;
            bytes += slot->start - at;
            at = slot->start;
        }
        size_t from = (size_t)(at - slot->start);
        size_t to = (size_t)(end - slot->start);
        if (to > slot->length)
            to = slot->length;
        if (from >= to)
            continue;
        fits &= fill_part(plan, &flow->talk, slot, from, to, bytes);
        bytes += to - from;
        at += (int64_t)(to - from);
    }
    flow->filled++;
    flow->too_short += !fits;
}

static void
fill_head(const struct nd_payload *payload, uint8_t *bytes)
{
    uint8_t head[ND_PAYLOAD_HEAD];
    memcpy(bytes, head, nd_payload_head(payload, head));
}

static void
fill_noise(const struct nd_talk *talk, const struct nd_payload *payload,
           int64_t start, uint8_t *bytes)
{
    uint64_t key = nd_talk_chance(talk, 1, payload->direction);
    struct nd_pen pen = {
        .bytes = bytes, .length = SIZE_MAX, .key = key,
        .at = (size_t)(start + INT64_MAX / 2), .to = SIZE_MAX,
    };
    pen.from = pen.at;
    nd_pen_noise(&pen, payload->length);
}

void
nd_plan_fill(struct nd_plan *plan, size_t flow, size_t packet,
             const struct nd_payload *payload, uint8_t *bytes)
{
    struct flow *f = &plan->flows[flow];
    const struct place *place = &plan->places[packet];
    bool carried = payload->protocol == TCP || payload->protocol == UDP;
    if (payload->length == 0)
        return;
    if (plan->choice.mode == ND_PAYLOAD_RANDOM)
        fill_noise(&f->talk, payload, place->start, bytes);
    if (!carried || (plan->choice.mode == ND_PAYLOAD_PROTOCOL &&
                     f->talk.service == ND_SERVICE_NONE)) {
        f->filled++;
        fill_head(payload, bytes);
    } else if (plan->choice.mode == ND_PAYLOAD_PROTOCOL) {
        fill_messages(plan, f, place, payload->length, bytes);
    }
}

void
nd_plan_tell(const struct nd_plan *plan, struct nd_payload_told *told)
{
    for (size_t i = 0; i < plan->n_flows; i++) {
        const struct flow *flow = &plan->flows[i];
        enum nd_service service = flow->talk.service;
        told->packets[service] += flow->filled;
        told->short_packets[service] += flow->too_short;
        told->flows[service] += flow->filled > 0;
        told->short_flows[service] += flow->too_short > 0;
    }
}
