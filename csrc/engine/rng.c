#include "rng.h"

#include <math.h>

void
nd_philox(struct nd_philox_key key, const struct nd_philox_counter *at,
          uint32_t words[4])
{
    uint32_t a = at->word[0], b = at->word[1];
    uint32_t c = at->word[2], d = at->word[3];
    for (int round = 0; round < 10; round++) {
        uint64_t first = UINT64_C(0xD2511F53) * a;
        uint64_t second = UINT64_C(0xCD9E8D57) * c;
        a = (uint32_t)(second >> 32) ^ b ^ key.low;
        b = (uint32_t)second;
        c = (uint32_t)(first >> 32) ^ d ^ key.high;
        d = (uint32_t)first;
        key.low += 0x9E3779B9;
        key.high += 0xBB67AE85;
    }
    words[0] = a;
    words[1] = b;
    words[2] = c;
    words[3] = d;
}

void
nd_normal(const uint32_t words[4], float normal[4])
{
    for (int pair = 0; pair < 4; pair += 2) {
        float radius = sqrtf(-2.0f * logf(nd_uniform(words[pair])));
        float angle = 6.2831853071795864769f * nd_uniform(words[pair + 1]);
        normal[pair] = radius * cosf(angle);
        normal[pair + 1] = radius * sinf(angle);
    }
}
