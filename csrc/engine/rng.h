/*
 * rng.h - Philox4x32-10: random numbers by counter, the same on every device
 *
 * In:      a key (seed) and a counter (element block, flow id, stream).
 * Out:     four words; uniform and normal numbers made of them.
 * Errors:  none.
 * Memory:  allocates nothing.
 * Threads: pure functions, no state.
 * Python:  _core.philox.  Tests: test_rng.py
 *
 * Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3
 * (SC 2011). A flow's numbers depend on seed, flow id, packet, column and
 * stream alone, so that it is the same flow in any batch on any worker.
 * shaders/philox.glsl is the twin of this file.
 */
#ifndef ND_ENGINE_RNG_H
#define ND_ENGINE_RNG_H

#include <stdint.h>

struct nd_philox_key {
    uint32_t low, high;
};

struct nd_philox_counter {
    uint32_t word[4];
};

/* The block of four words at a counter. */
void nd_philox(struct nd_philox_key key, const struct nd_philox_counter *at,
               uint32_t words[4]);

/* (word >> 8) + 0.5 in units of 2^-24: never 0, never 1. */
static inline float
nd_uniform(uint32_t word)
{
    return ((float)(word >> 8) + 0.5f) * 0x1p-24f;
}

/* Four standard normal numbers of a block (Box-Muller on pairs of words). */
void nd_normal(const uint32_t words[4], float normal[4]);

#endif
