/*
 * gap.h - inter-arrival times as the 9 cells of motion_gap
 *
 * In:      ns since the packet before; or a code.
 * Out:     a bin: 0 is below 1 us, 1 to ND_GAP_BINS - 1 are 1/511 of nine
 *          decades each. The bin, Gray coded, is the code. A bin within
 *          ND_TRIP_NEAR of the flow's first round trip is told by how far it
 *          is from it, ND_GAP_BINS to 511: answers come back as late as the
 *          first did, and a network says "as late as that" in four cells.
 * Errors:  none: any time and any code has a bin; the last bin has no end.
 * Memory:  allocates nothing.
 * Threads: no state beyond struct nd_round_trip.
 * Python:  _core.gap_code, _core.gap_limits.
 *          Tests: tests/test_canonical.py, tests/test_repair.py
 */
#ifndef ND_NET_GAP_H
#define ND_NET_GAP_H

#include <stdbool.h>
#include <stdint.h>

enum {
    ND_TRIP_NEAR = 7,                          /* bins, an eighth of a decade */
    ND_GAP_BINS = 512 - (2 * ND_TRIP_NEAR + 1) /* up to 544 s */
};

/* The gap before the first packet that is sent the other way. */
struct nd_round_trip {
    bool begun, known;
    uint8_t direction; /* of the first packet */
    uint32_t bin;
};

uint32_t nd_gap_bin(int64_t nanoseconds);

/* Limits of a bin in ns: low <= gap < high. */
void nd_gap_limits(uint32_t bin, int64_t *low, int64_t *high);

/* From a bin to its code and back, by the packets noted before. */
uint32_t nd_gap_tell(const struct nd_round_trip *trip, uint32_t bin);
uint32_t nd_gap_hear(const struct nd_round_trip *trip, uint32_t code);

/* A packet is sent; to be called for each, after its gap is told or heard. */
void nd_gap_note(struct nd_round_trip *trip, uint8_t direction, uint32_t bin);

#endif
