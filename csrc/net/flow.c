#include "flow.h"

#include <stdlib.h>
#include <string.h>

#include "flow_fragment.h"
#include "flow_store.h"

enum {
    FIRST_CAPACITY = 256, /* of flows; a power of two */
    WINDOW = 64,          /* packets between two looks for idle flows */
    WELL_KNOWN = 1024,    /* ports below belong to servers */
    TCP = 6,
    UDP = 17,
    FIN = 1,
    SYN = 2,
    RST = 4,
    ACK = 16
};

#define NONE UINT32_MAX

/* Both ends, the smaller one first, so that both directions are one key. */
struct key {
    uint8_t address[2][16];
    uint16_t port[2];
    uint8_t ip_version;
    uint8_t protocol;
    uint8_t zero[2];
};

struct entry {
    struct nd_flow flow;
    struct nd_chain chain;
    struct key key;
    uint64_t serial; /* tells flows that used the same entry apart */
    int64_t last;    /* latest time of a packet */
    uint32_t hash;
    uint32_t older, newer; /* by arrival of the last packet */
    uint8_t client;        /* which end of the key it is */
    bool fin[2];
    bool reset;
    bool listed; /* in slots and in the list by age */
};

struct slot {
    uint32_t hash;
    uint32_t entry; /* NONE: free */
};

struct nd_flow_table {
    struct nd_flow_options options;
    struct nd_store store;
    struct entry *entries;
    struct slot *slots;     /* 2 * capacity */
    uint32_t *queue;        /* finished: a ring of capacity */
    uint32_t *taken;        /* capacity */
    struct nd_datagrams datagrams;
    uint32_t capacity;
    uint32_t used; /* entries that were ever used */
    uint32_t free; /* list through `older` */
    uint32_t oldest, newest;
    uint32_t queue_first, queued, n_taken;
    uint32_t slice; /* the flow of nd_flow_begin() */
    uint64_t serial;
    uint64_t seed;
    int64_t window_low, window_high; /* times of the packets in it */
    unsigned in_window;
};

/* Gives the end (0, 1) of the key that is the packet's source. */
static uint8_t
make_key(const struct nd_packet *packet, struct key *key)
{
    int order = memcmp(packet->source, packet->destination, 16);
    if (order == 0)
        order = (int)packet->source_port - (int)packet->destination_port;
    uint8_t source = order > 0;
    memset(key, 0, sizeof *key);
    memcpy(key->address[source], packet->source, 16);
    memcpy(key->address[!source], packet->destination, 16);
    key->port[source] = packet->source_port;
    key->port[!source] = packet->destination_port;
    key->ip_version = packet->ip_version;
    key->protocol = packet->protocol;
    return source;
}

static void
insert_slot(struct nd_flow_table *table, uint32_t hash, uint32_t entry)
{
    uint32_t mask = 2 * table->capacity - 1;
    uint32_t at = hash & mask;
    while (table->slots[at].entry != NONE)
        at = (at + 1) & mask;
    table->slots[at] = (struct slot){hash, entry};
}

/* Linear probing without tombstones: what follows moves up (Knuth, 6.4 R). */
static void
remove_slot(struct nd_flow_table *table, uint32_t hash, uint32_t entry)
{
    uint32_t mask = 2 * table->capacity - 1;
    uint32_t hole = hash & mask;
    while (table->slots[hole].entry != entry)
        hole = (hole + 1) & mask;
    for (uint32_t at = (hole + 1) & mask; table->slots[at].entry != NONE;
         at = (at + 1) & mask) {
        uint32_t home = table->slots[at].hash & mask;
        if (((at - home) & mask) >= ((at - hole) & mask)) {
            table->slots[hole] = table->slots[at];
            hole = at;
        }
    }
    table->slots[hole].entry = NONE;
}

static void
fill_slots(struct nd_flow_table *table)
{
    for (size_t i = 0; i < 2 * (size_t)table->capacity; i++)
        table->slots[i].entry = NONE;
    for (uint32_t e = table->oldest; e != NONE; e = table->entries[e].newer)
        insert_slot(table, table->entries[e].hash, e);
}

/* Whether the array, reallocated to n elements, is there. */
#define RESIZE(array, n)                                                      \
    ((grown = realloc(array, (size_t)(n) * sizeof *(array))) != NULL &&       \
     ((array) = grown, true))

/* Doubles all that has the size of the table. */
static enum nd_status
grow(struct nd_flow_table *table, struct nd_error *err)
{
    uint32_t old = table->capacity;
    uint32_t n = old == 0 ? FIRST_CAPACITY : 2 * old;
    void *grown = NULL;
    if (n > UINT32_MAX / 4 || !RESIZE(table->entries, n) ||
        !RESIZE(table->slots, 2 * n) || !RESIZE(table->queue, n) ||
        !RESIZE(table->taken, n))
        return nd_fail(err, ND_NO_MEMORY, "no memory for more than %u flows",
                       old);
    if (table->queue_first + table->queued > old)
        memcpy(table->queue + old, table->queue,
               (table->queue_first + table->queued - old) *
                   sizeof *table->queue);
    table->capacity = n;
    fill_slots(table);
    return ND_OK;
}

enum nd_status
nd_flow_create(const struct nd_flow_options *options,
               struct nd_flow_table **out, struct nd_error *err)
{
    *out = NULL;
    if (options->max_packets == 0)
        return nd_fail(err, ND_ARGUMENT, "max_packets must be at least 1");
    if (options->idle_timeout < 0 || options->idle_timeout > ND_IDLE_MOST)
        return nd_fail(err, ND_ARGUMENT,
                       "idle_timeout must be 0 to %lld ns, not %lld",
                       (long long)ND_IDLE_MOST,
                       (long long)options->idle_timeout);
    struct nd_flow_table *table = calloc(1, sizeof *table);
    if (table == NULL)
        return nd_fail(err, ND_NO_MEMORY, "no memory for a table of flows");
    table->options = *options;
    table->free = table->oldest = table->newest = table->slice = NONE;
    /* Who wants to make keys collide must know where memory lies. */
    table->seed = (uint64_t)(uintptr_t)table;
    enum nd_status status = grow(table, err);
    if (status != ND_OK) {
        nd_flow_destroy(table);
        return status;
    }
    *out = table;
    return ND_OK;
}

void
nd_flow_destroy(struct nd_flow_table *table)
{
    if (table == NULL)
        return;
    nd_store_free(&table->store);
    free(table->entries);
    free(table->slots);
    free(table->queue);
    free(table->taken);
    nd_datagrams_free(&table->datagrams);
    free(table);
}

static void
unlink_entry(struct nd_flow_table *table, uint32_t e)
{
    struct entry *entry = &table->entries[e];
    if (entry->older == NONE)
        table->oldest = entry->newer;
    else
        table->entries[entry->older].newer = entry->newer;
    if (entry->newer == NONE)
        table->newest = entry->older;
    else
        table->entries[entry->newer].older = entry->older;
}

static void
link_newest(struct nd_flow_table *table, uint32_t e)
{
    struct entry *entry = &table->entries[e];
    entry->older = table->newest;
    entry->newer = NONE;
    if (table->newest == NONE)
        table->oldest = e;
    else
        table->entries[table->newest].newer = e;
    table->newest = e;
}

/* Cannot fail: the queue has room for every entry. */
static void
finish_entry(struct nd_flow_table *table, uint32_t e)
{
    struct entry *entry = &table->entries[e];
    if (entry->listed) {
        remove_slot(table, entry->hash, e);
        unlink_entry(table, e);
        entry->listed = false;
    }
    uint32_t at = (table->queue_first + table->queued) &
                  (table->capacity - 1);
    table->queue[at] = e;
    table->queued++;
}

static uint8_t
tcp_flags(const struct nd_packet *packet)
{
    if (packet->protocol != TCP || packet->transport.length < 14)
        return 0;
    return packet->transport.bytes[13];
}

/* Who opened the flow, judged by its first packet. */
static bool
source_is_client(const struct nd_packet *packet)
{
    uint8_t flags = tcp_flags(packet);
    if ((flags & SYN) != 0)
        return (flags & ACK) == 0;
    if (packet->protocol != TCP && packet->protocol != UDP)
        return true;
    bool low_source = packet->source_port < WELL_KNOWN;
    bool low_destination = packet->destination_port < WELL_KNOWN;
    return low_source == low_destination || low_destination;
}

static void
describe(struct entry *entry, const struct nd_packet *packet,
         uint64_t number)
{
    uint8_t server = source_is_client(packet) ? 1 : 0;
    struct nd_flow *flow = &entry->flow;
    flow->first_packet = number;
    flow->ip_version = packet->ip_version;
    flow->protocol = packet->protocol;
    memcpy(flow->address[!server], packet->source, 16);
    memcpy(flow->address[server], packet->destination, 16);
    flow->port[!server] = packet->source_port;
    flow->port[server] = packet->destination_port;
}

static enum nd_status
new_entry(struct nd_flow_table *table, const struct nd_packet *packet,
          uint64_t number, uint32_t *e, struct nd_error *err)
{
    if (table->free == NONE && table->used == table->capacity) {
        enum nd_status status = grow(table, err);
        if (status != ND_OK)
            return status;
    }
    if (table->free != NONE) {
        *e = table->free;
        table->free = table->entries[*e].older;
    } else {
        *e = table->used++;
    }
    struct entry *entry = &table->entries[*e];
    memset(entry, 0, sizeof *entry);
    entry->serial = ++table->serial;
    entry->last = packet->time;
    describe(entry, packet, number);
    return ND_OK;
}

/* The open flow of a key, or NONE. */
static uint32_t
find(const struct nd_flow_table *table, const struct key *key, uint32_t hash)
{
    uint32_t mask = 2 * table->capacity - 1;
    for (uint32_t at = hash & mask; table->slots[at].entry != NONE;
         at = (at + 1) & mask) {
        const struct slot *slot = &table->slots[at];
        if (slot->hash == hash &&
            memcmp(&table->entries[slot->entry].key, key, sizeof *key) == 0)
            return slot->entry;
    }
    return NONE;
}

static bool
apart(int64_t a, int64_t b, int64_t limit)
{
    return a > b ? a - b > limit : b - a > limit;
}

/* Whether a packet of the same 5-tuple belongs to another flow. */
static bool
starts_anew(const struct nd_flow_table *table, const struct entry *entry,
            const struct nd_packet *packet)
{
    bool closed = entry->reset || (entry->fin[0] && entry->fin[1]);
    if (closed && (tcp_flags(packet) & (SYN | ACK)) == SYN)
        return true;
    return apart(packet->time, entry->last, table->options.idle_timeout);
}

/* Ends the flows that are silent, seen from all packets of the window. */
static void
sweep(struct nd_flow_table *table, int64_t time)
{
    if (table->in_window == 0)
        table->window_low = table->window_high = time;
    if (time < table->window_low)
        table->window_low = time;
    if (time > table->window_high)
        table->window_high = time;
    if (++table->in_window < WINDOW)
        return;
    table->in_window = 0;
    int64_t margin = 2 * table->options.idle_timeout;
    while (table->oldest != NONE) {
        int64_t last = table->entries[table->oldest].last;
        if (last >= table->window_low - margin &&
            last <= table->window_high + margin)
            break;
        finish_entry(table, table->oldest);
    }
}

/* Puts the packet into its flow. */
static enum nd_status
keep(struct nd_flow_table *table, uint32_t e, const struct nd_packet *packet,
     uint8_t direction, enum nd_flow_kept *kept, struct nd_error *err)
{
    struct entry *entry = &table->entries[e];
    uint8_t flags = tcp_flags(packet);
    entry->fin[direction] |= (flags & FIN) != 0;
    entry->reset |= (flags & RST) != 0;
    if (packet->time > entry->last)
        entry->last = packet->time;
    if (entry->flow.packets >= table->options.max_packets) {
        *kept = ND_KEPT_NOT;
        return ND_OK;
    }
    *kept = ND_KEPT;
    enum nd_status status =
        nd_store_put(&table->store, &entry->chain, packet, direction, err);
    if (status == ND_OK)
        entry->flow.packets++;
    return status;
}

static enum nd_status
add_later_fragment(struct nd_flow_table *table,
                   const struct nd_packet *packet, enum nd_flow_kept *kept,
                   struct nd_error *err)
{
    *kept = ND_KEPT_NO_FLOW;
    const struct nd_datagram *first =
        nd_datagrams_find(&table->datagrams, packet);
    if (first == NULL)
        return ND_OK;
    const struct entry *entry = &table->entries[first->entry];
    if (!entry->listed || entry->serial != first->serial ||
        apart(packet->time, entry->last, table->options.idle_timeout))
        return ND_OK;
    unlink_entry(table, first->entry);
    link_newest(table, first->entry);
    return keep(table, first->entry, packet, first->direction, kept, err);
}

/* The flow of a packet; a new one where there is none. */
static enum nd_status
flow_of(struct nd_flow_table *table, const struct nd_packet *packet,
        uint64_t number, uint32_t *e, uint8_t *direction,
        struct nd_error *err)
{
    struct key key;
    uint8_t source = make_key(packet, &key);
    uint32_t hash = nd_flow_hash(table->seed, &key, sizeof key);
    *e = find(table, &key, hash);
    if (*e != NONE && starts_anew(table, &table->entries[*e], packet)) {
        finish_entry(table, *e);
        *e = NONE;
    }
    if (*e == NONE) {
        enum nd_status status = new_entry(table, packet, number, e, err);
        if (status != ND_OK)
            return status;
        struct entry *entry = &table->entries[*e];
        entry->key = key;
        entry->hash = hash;
        entry->client = source_is_client(packet) ? source : !source;
        entry->listed = true;
        insert_slot(table, hash, *e);
    } else {
        unlink_entry(table, *e);
    }
    link_newest(table, *e);
    *direction = source != table->entries[*e].client;
    return ND_OK;
}

enum nd_status
nd_flow_add(struct nd_flow_table *table, const struct nd_packet *packet,
            uint64_t number, enum nd_flow_kept *kept, struct nd_error *err)
{
    uint32_t e = NONE;
    uint8_t direction = 0;
    sweep(table, packet->time);
    if (packet->later_fragment)
        return add_later_fragment(table, packet, kept, err);
    enum nd_status status =
        flow_of(table, packet, number, &e, &direction, err);
    if (status == ND_OK && packet->fragment)
        status = nd_datagrams_put(&table->datagrams, packet, e,
                                  table->entries[e].serial, direction, err);
    if (status == ND_OK)
        status = keep(table, e, packet, direction, kept, err);
    return status;
}

enum nd_status
nd_flow_begin(struct nd_flow_table *table, const struct nd_packet *packet,
              uint64_t number, struct nd_error *err)
{
    enum nd_flow_kept kept = ND_KEPT;
    uint32_t e = NONE;
    nd_flow_finish(table);
    enum nd_status status = new_entry(table, packet, number, &e, err);
    if (status != ND_OK)
        return status;
    table->slice = e;
    return keep(table, e, packet, !source_is_client(packet), &kept, err);
}

enum nd_status
nd_flow_append(struct nd_flow_table *table, const struct nd_packet *packet,
               enum nd_flow_kept *kept, struct nd_error *err)
{
    struct nd_flow *flow = &table->entries[table->slice].flow;
    *kept = ND_KEPT_NO_FLOW;
    bool any = packet->ip_version == 6 && packet->later_fragment;
    if (packet->ip_version != flow->ip_version ||
        (packet->protocol != flow->protocol && !any))
        return ND_OK;
    bool same_host = memcmp(flow->address[0], flow->address[1], 16) == 0;
    bool client = same_host
                      ? packet->source_port == flow->port[0]
                      : memcmp(packet->source, flow->address[0], 16) == 0;
    if (flow->port[0] == 0 && flow->port[1] == 0) {
        /* so far only fragments without ports */
        flow->port[client ? 0 : 1] = packet->source_port;
        flow->port[client ? 1 : 0] = packet->destination_port;
    }
    return keep(table, table->slice, packet, !client, kept, err);
}

void
nd_flow_finish(struct nd_flow_table *table)
{
    while (table->oldest != NONE)
        finish_entry(table, table->oldest);
    if (table->slice != NONE)
        finish_entry(table, table->slice);
    table->slice = NONE;
}

size_t
nd_flow_ready(const struct nd_flow_table *table)
{
    return table->queued;
}

/* Sorts entries by first packet: heap sort, in place (Knuth, 5.2.3). */
static void
sift(const struct nd_flow_table *table, uint32_t root, uint32_t n)
{
    uint32_t *heap = table->taken;
    const struct entry *entries = table->entries;
    uint32_t moving = heap[root];
    uint64_t rank = entries[moving].flow.first_packet;
    for (uint32_t child; (child = 2 * root + 1) < n; root = child) {
        if (child + 1 < n && entries[heap[child + 1]].flow.first_packet >
                                 entries[heap[child]].flow.first_packet)
            child++;
        if (entries[heap[child]].flow.first_packet <= rank)
            break;
        heap[root] = heap[child];
    }
    heap[root] = moving;
}

static void
sort_taken(struct nd_flow_table *table)
{
    uint32_t n = table->n_taken;
    for (uint32_t i = n / 2; i-- > 0;)
        sift(table, i, n);
    for (uint32_t i = n; i-- > 1;) {
        uint32_t last = table->taken[i];
        table->taken[i] = table->taken[0];
        table->taken[0] = last;
        sift(table, 0, i);
    }
}

void
nd_flow_take(struct nd_flow_table *table, size_t most, size_t *flows,
             size_t *packets)
{
    nd_flow_drop(table);
    *packets = 0;
    while (table->queued > 0 && table->n_taken < most) {
        uint32_t e = table->queue[table->queue_first];
        table->queue_first = (table->queue_first + 1) & (table->capacity - 1);
        table->queued--;
        table->taken[table->n_taken++] = e;
        *packets += table->entries[e].flow.packets;
    }
    *flows = table->n_taken;
    sort_taken(table);
}

const struct nd_flow *
nd_flow_taken(const struct nd_flow_table *table, size_t which)
{
    return &table->entries[table->taken[which]].flow;
}

void
nd_flow_unpack(const struct nd_flow_table *table, size_t which,
               struct nd_packet *packets, uint8_t *directions)
{
    const struct entry *entry = &table->entries[table->taken[which]];
    const struct nd_flow *flow = &entry->flow;
    nd_store_get(&entry->chain, flow->packets, packets, directions);
    for (size_t i = 0; i < flow->packets; i++) {
        uint8_t from = directions[i];
        packets[i].ip_version = flow->ip_version;
        packets[i].protocol = flow->protocol;
        memcpy(packets[i].source, flow->address[from], 16);
        memcpy(packets[i].destination, flow->address[!from], 16);
        if (packets[i].later_fragment)
            continue;
        packets[i].source_port = flow->port[from];
        packets[i].destination_port = flow->port[!from];
    }
}

void
nd_flow_drop(struct nd_flow_table *table)
{
    for (uint32_t i = 0; i < table->n_taken; i++) {
        uint32_t e = table->taken[i];
        nd_store_release(&table->store, &table->entries[e].chain);
        table->entries[e].older = table->free;
        table->free = e;
    }
    table->n_taken = 0;
}
