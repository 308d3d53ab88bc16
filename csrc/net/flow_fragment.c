#include "flow_fragment.h"

#include <stdlib.h>
#include <string.h>

enum { SLOTS = 4096 }; /* a power of two */

static uint64_t
mix(uint64_t hash, uint64_t word)
{
    hash = (hash ^ word) * 0x9e3779b97f4a7c15U;
    return hash ^ hash >> 32;
}

uint32_t
nd_flow_hash(uint64_t seed, const void *bytes, size_t n)
{
    uint64_t hash = mix(0, seed);
    for (size_t i = 0; i < n / 8; i++) {
        uint64_t word;
        memcpy(&word, (const uint8_t *)bytes + i * 8, 8);
        hash = mix(hash, word);
    }
    return (uint32_t)mix(hash, n);
}

static struct nd_datagram
datagram_of(const struct nd_packet *packet)
{
    struct nd_datagram d;
    memset(&d, 0, sizeof d);
    memcpy(d.ends[0], packet->source, 16);
    memcpy(d.ends[1], packet->destination, 16);
    d.id = packet->fragment_id;
    d.ip_version = packet->ip_version;
    d.protocol = packet->ip_version == 4 ? packet->protocol : 0;
    return d;
}

static struct nd_datagram *
slot_of(const struct nd_datagrams *datagrams, const struct nd_datagram *d)
{
    uint64_t seed = (uint64_t)d->protocol << 32 | d->id;
    uint32_t hash = nd_flow_hash(seed, d->ends, sizeof d->ends);
    return &datagrams->slots[hash & (SLOTS - 1)];
}

enum nd_status
nd_datagrams_put(struct nd_datagrams *datagrams,
                 const struct nd_packet *packet, uint32_t entry,
                 uint64_t serial, uint8_t direction, struct nd_error *err)
{
    if (datagrams->slots == NULL)
        datagrams->slots = calloc(SLOTS, sizeof *datagrams->slots);
    if (datagrams->slots == NULL)
        return nd_fail(err, ND_NO_MEMORY, "no memory for fragments");
    struct nd_datagram d = datagram_of(packet);
    d.direction = direction;
    d.entry = entry;
    d.serial = serial;
    *slot_of(datagrams, &d) = d;
    return ND_OK;
}

const struct nd_datagram *
nd_datagrams_find(const struct nd_datagrams *datagrams,
                  const struct nd_packet *packet)
{
    if (datagrams->slots == NULL)
        return NULL;
    struct nd_datagram d = datagram_of(packet);
    const struct nd_datagram *known = slot_of(datagrams, &d);
    if (known->ip_version != d.ip_version || known->id != d.id ||
        known->protocol != d.protocol ||
        memcmp(known->ends, d.ends, sizeof d.ends) != 0)
        return NULL;
    return known;
}

void
nd_datagrams_free(struct nd_datagrams *datagrams)
{
    free(datagrams->slots);
    datagrams->slots = NULL;
}
