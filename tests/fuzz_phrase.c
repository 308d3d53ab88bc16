/* Any book of phrases and any flow: as many numbers, those fixed as drawn. */
#include "net/phrase.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { CONTEXTS = 16, EACH = 3, PACKETS = 32 };

struct input {
    int32_t context[CONTEXTS * ND_PHRASE_CONTEXT];
    int32_t word[CONTEXTS * EACH];
    double other[CONTEXTS], times[CONTEXTS * EACH];
    uint16_t drawn[PACKETS];
    uint8_t direction[PACKETS], fixed[PACKETS];
};

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct input in;
    int64_t first[CONTEXTS + 1];
    uint16_t meant[PACKETS];
    struct nd_phrase_step steps[PACKETS];
    memset(&in, 0, sizeof in);
    memcpy(&in, data, size < sizeof in ? size : sizeof in);
    for (int64_t i = 0; i <= CONTEXTS; i++)
        first[i] = i * EACH;
    struct nd_phrase_book book = {
        .contexts = size % (CONTEXTS + 1),
        .context = in.context,
        .first = first,
        .other = in.other,
        .word = in.word,
        .times = in.times,
        .wrong = 0.03,
        .own = 0.0005,
    };
    size_t n = size % (PACKETS + 1);
    nd_phrase_read(&book, in.drawn, in.direction, in.fixed, n, meant, steps);
    for (size_t i = 0; i < n; i++)
        if (in.fixed[i] != 0 && meant[i] != in.drawn[i])
            abort();
    return 0;
}
