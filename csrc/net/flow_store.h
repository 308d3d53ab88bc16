/*
 * flow_store.h - what flow.c keeps of each packet: headers, in small blocks
 *
 * In:      packets; their header bytes are copied.
 * Out:     the packets again, in the order in which they came or by time.
 * Errors:  ND_NO_MEMORY only.
 * Memory:  blocks of 512 bytes out of slabs; freed blocks are used again,
 *          slabs live as long as the store.
 * Threads: one thread a store; no shared state.
 * Python:  none.  Tests: tests/test_flow.py, tests/fuzz_capture.c
 */
#ifndef ND_NET_FLOW_STORE_H
#define ND_NET_FLOW_STORE_H

#include "../status.h"
#include "packet.h"

struct nd_block;
struct nd_slab;

struct nd_store {
    struct nd_slab *slabs;
    struct nd_block *free_blocks;
};

/* The packets of one flow: a chain of blocks. All zero is an empty one. */
struct nd_chain {
    struct nd_block *first;
    struct nd_block *last;
    int64_t latest;  /* time */
    bool unsorted;   /* some packet is earlier than the one before */
};

enum nd_status nd_store_put(struct nd_store *store, struct nd_chain *chain,
                            const struct nd_packet *packet, uint8_t direction,
                            struct nd_error *err);

/* Fills what the chain holds: times, numbers, lengths, fragment state and
 * spans; stable order by time. Addresses and ports are left for the caller. */
void nd_store_get(const struct nd_chain *chain, size_t n,
                  struct nd_packet *packets, uint8_t *directions);

/* Gives the blocks back and empties the chain. */
void nd_store_release(struct nd_store *store, struct nd_chain *chain);

void nd_store_free(struct nd_store *store);

#endif
