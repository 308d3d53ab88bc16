#include "gap.h"

enum { GAP_BITS = 9, TRIP_SAME = ND_GAP_BINS + ND_TRIP_NEAR };

static const double GAP_FIRST = 1000.0; /* ns, where bin 1 begins */

/*
 * 10^9 to the power 2^j / 511, j from 8 down. Bin limits are products of
 * these in this order on both ways: plain IEEE products, the same everywhere,
 * so the two ways cannot disagree.
 */
static const double gap_factors[GAP_BITS] = {
    32270.54219106093, 179.64003504525635, 13.402986049580756,
    3.6610088841166113, 1.913376304890549, 1.3832484610114515,
    1.1761158365617952, 1.0844887443223168, 1.0413878933050436,
};

uint32_t
nd_gap_bin(int64_t nanoseconds)
{
    double gap = (double)nanoseconds;
    if (gap < GAP_FIRST)
        return 0;
    double low = GAP_FIRST;
    uint32_t bin = 1;
    for (int j = 0; j < GAP_BITS; j++)
        if (gap >= low * gap_factors[j]) {
            low *= gap_factors[j];
            bin += 1u << (GAP_BITS - 1 - j);
        }
    return bin < ND_GAP_BINS ? bin : ND_GAP_BINS - 1;
}

/* The first whole nanosecond of a bin, 0 to ND_GAP_BINS. */
static int64_t
gap_low(uint32_t bin)
{
    if (bin == 0)
        return 0;
    double low = GAP_FIRST;
    for (int j = 0; j < GAP_BITS; j++)
        if ((bin - 1) >> (GAP_BITS - 1 - j) & 1)
            low *= gap_factors[j];
    int64_t whole = (int64_t)low;
    return (double)whole < low ? whole + 1 : whole;
}

void
nd_gap_limits(uint32_t bin, int64_t *low, int64_t *high)
{
    if (bin >= ND_GAP_BINS)
        bin = ND_GAP_BINS - 1;
    *low = gap_low(bin);
    *high = gap_low(bin + 1);
}

uint32_t
nd_gap_tell(const struct nd_round_trip *trip, uint32_t bin)
{
    uint32_t told = bin;
    if (trip->known && bin + ND_TRIP_NEAR >= trip->bin &&
        bin <= trip->bin + ND_TRIP_NEAR)
        told = TRIP_SAME + bin - trip->bin;
    return told ^ told >> 1;
}

/* Near a round trip that never was is as far from it as can be said. */
uint32_t
nd_gap_hear(const struct nd_round_trip *trip, uint32_t code)
{
    uint32_t bin = code & ((1u << GAP_BITS) - 1);
    for (unsigned shift = 1; shift < GAP_BITS; shift *= 2)
        bin ^= bin >> shift;
    if (bin >= ND_GAP_BINS && trip->known)
        bin = trip->bin + bin > TRIP_SAME ? trip->bin + bin - TRIP_SAME : 0;
    return bin < ND_GAP_BINS ? bin : ND_GAP_BINS - 1;
}

void
nd_gap_note(struct nd_round_trip *trip, uint8_t direction, uint32_t bin)
{
    if (!trip->begun)
        trip->direction = direction;
    if (!trip->known && direction != trip->direction) {
        trip->bin = bin;
        trip->known = true;
    }
    trip->begun = true;
}
