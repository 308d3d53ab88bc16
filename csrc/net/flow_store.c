#include "flow_store.h"

#include <stdlib.h>
#include <string.h>

enum {
    BLOCK_BYTES = 512,
    BLOCKS_IN_SLAB = 1024,
    HEADER_BYTES_MOST = 120, /* IPv4 and TCP with all options */
    FLAG_DIRECTION = 1,
    FLAG_FRAGMENT = 2,
    FLAG_LATER = 4
};

/* Followed by the IP header and the transport header. */
struct entry {
    int64_t time;
    uint64_t number;
    uint32_t wire_length;
    uint32_t payload_length;
    uint32_t fragment_id;
    uint8_t ip_length;
    uint8_t transport_length;
    uint8_t flags;
    uint8_t size; /* of the entry and what follows, in units of 8 bytes */
};

struct nd_block {
    struct nd_block *next;
    size_t used; /* of bytes */
    uint64_t words[(BLOCK_BYTES - 2 * sizeof(void *)) / 8];
};

struct nd_slab {
    struct nd_slab *next;
    struct nd_block blocks[BLOCKS_IN_SLAB];
};

static bool
add_slab(struct nd_store *store)
{
    struct nd_slab *slab = malloc(sizeof *slab);
    if (slab == NULL)
        return false;
    slab->next = store->slabs;
    store->slabs = slab;
    for (size_t i = BLOCKS_IN_SLAB; i-- > 0;) {
        slab->blocks[i].next = store->free_blocks;
        store->free_blocks = &slab->blocks[i];
    }
    return true;
}

/* A block at the end of the chain with room for `size` bytes, or NULL. */
static struct nd_block *
block_with_room(struct nd_store *store, struct nd_chain *chain, size_t size)
{
    struct nd_block *block = chain->last;
    if (block != NULL && size <= sizeof block->words - block->used)
        return block;
    if (store->free_blocks == NULL && !add_slab(store))
        return NULL;
    block = store->free_blocks;
    store->free_blocks = block->next;
    block->next = NULL;
    block->used = 0;
    if (chain->last == NULL)
        chain->first = block;
    else
        chain->last->next = block;
    chain->last = block;
    return block;
}

static uint8_t
flags_of(const struct nd_packet *packet, uint8_t direction)
{
    unsigned flags = direction != 0 ? FLAG_DIRECTION : 0;
    if (packet->fragment)
        flags |= FLAG_FRAGMENT;
    if (packet->later_fragment)
        flags |= FLAG_LATER;
    return (uint8_t)flags;
}

enum nd_status
nd_store_put(struct nd_store *store, struct nd_chain *chain,
             const struct nd_packet *packet, uint8_t direction,
             struct nd_error *err)
{
    size_t headers = packet->ip.length + packet->transport.length;
    size_t size = (sizeof(struct entry) + headers + 7) / 8;
    if (headers > HEADER_BYTES_MOST)
        return nd_fail(err, ND_ARGUMENT, "headers of %zu bytes", headers);
    struct nd_block *block = block_with_room(store, chain, size * 8);
    if (block == NULL)
        return nd_fail(err, ND_NO_MEMORY, "no memory for more packets");
    struct entry entry = {
        .time = packet->time,
        .number = packet->number,
        .wire_length = packet->wire_length,
        .payload_length = packet->payload_length,
        .fragment_id = packet->fragment_id,
        .ip_length = (uint8_t)packet->ip.length,
        .transport_length = (uint8_t)packet->transport.length,
        .flags = flags_of(packet, direction),
        .size = (uint8_t)size,
    };
    uint8_t *at = (uint8_t *)block->words + block->used;
    memcpy(at, &entry, sizeof entry);
    at += sizeof entry;
    memcpy(at, packet->ip.bytes, packet->ip.length);
    if (packet->transport.length > 0)
        memcpy(at + packet->ip.length, packet->transport.bytes,
               packet->transport.length);
    block->used += size * 8;
    chain->unsorted |= packet->time < chain->latest; /* 0 at first */
    chain->latest = packet->time;
    return ND_OK;
}

static void
unpack(const uint8_t *at, const struct entry *entry,
       struct nd_packet *packet)
{
    memset(packet, 0, sizeof *packet);
    packet->time = entry->time;
    packet->number = entry->number;
    packet->wire_length = entry->wire_length;
    packet->payload_length = entry->payload_length;
    packet->fragment_id = entry->fragment_id;
    packet->fragment = (entry->flags & FLAG_FRAGMENT) != 0;
    packet->later_fragment = (entry->flags & FLAG_LATER) != 0;
    packet->ip = (struct nd_span){at, entry->ip_length};
    if (entry->transport_length > 0)
        packet->transport = (struct nd_span){at + entry->ip_length,
                                             entry->transport_length};
}

/* While packets are sorted, `source` holds the number and `destination` the
 * direction of each: both are filled in later, by flow.c. */
static int
compare_packets(const void *a, const void *b)
{
    const struct nd_packet *x = a;
    const struct nd_packet *y = b;
    if (x->time != y->time)
        return x->time < y->time ? -1 : 1;
    return memcmp(x->source, y->source, sizeof x->source);
}

static void
sort_packets(struct nd_packet *packets, uint8_t *directions, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        for (size_t byte = 0; byte < 8; byte++)
            packets[i].source[byte] =
                (uint8_t)((uint64_t)i >> (56 - 8 * byte));
        packets[i].destination[0] = directions[i];
    }
    qsort(packets, n, sizeof *packets, compare_packets);
    for (size_t i = 0; i < n; i++)
        directions[i] = packets[i].destination[0];
}

void
nd_store_get(const struct nd_chain *chain, size_t n,
             struct nd_packet *packets, uint8_t *directions)
{
    size_t i = 0;
    for (const struct nd_block *b = chain->first; b != NULL; b = b->next) {
        const uint8_t *at = (const uint8_t *)b->words;
        const uint8_t *end = at + b->used;
        for (; at < end && i < n; i++) {
            struct entry entry;
            memcpy(&entry, at, sizeof entry);
            unpack(at + sizeof entry, &entry, &packets[i]);
            directions[i] = (entry.flags & FLAG_DIRECTION) != 0;
            at += entry.size * (size_t)8;
        }
    }
    if (chain->unsorted)
        sort_packets(packets, directions, i);
}

void
nd_store_release(struct nd_store *store, struct nd_chain *chain)
{
    if (chain->last != NULL) {
        chain->last->next = store->free_blocks;
        store->free_blocks = chain->first;
    }
    *chain = (struct nd_chain){0};
}

void
nd_store_free(struct nd_store *store)
{
    while (store->slabs != NULL) {
        struct nd_slab *next = store->slabs->next;
        free(store->slabs);
        store->slabs = next;
    }
    store->free_blocks = NULL;
}
