/*
 * phrase.h - numbers that packets spell in cells, read as what was meant
 *
 * In:      a book of what follows what: in a context (direction, place in the
 *          flow, and none, one or two packets before) how often each word
 *          came; and the numbers of a flow as they were drawn.
 * Out:     the likeliest numbers, a noisy channel's (Shannon, 1948): how often
 *          the class's flows say them, against how many cells differ. Contexts
 *          back off to shorter ones (Witten and Bell, 1991), those to "as the
 *          packet before" and to any number. A beam of ND_PHRASE_BEAM readings
 *          is carried along the flow (Viterbi, 1967, but for the beam).
 * Errors:  none; a book of no contexts leaves all as drawn.
 * Memory:  allocates nothing; one nd_phrase_step a packet is the caller's.
 * Threads: pure functions, no state.
 * Python:  _core.read_phrases, netdiffusion/phrases.py.
 *          Tests: tests/test_phrases.py, fuzz_phrase.c
 */
#ifndef ND_NET_PHRASE_H
#define ND_NET_PHRASE_H

#include <stddef.h>
#include <stdint.h>

enum {
    ND_PHRASE_BEFORE = 2, /* packets of a context, at most */
    ND_PHRASE_PLACES = 8, /* places of their own; later ones are as one */
    ND_PHRASE_CONTEXT = 3 + ND_PHRASE_BEFORE,
    ND_PHRASE_SAME = 1 << 16, /* the word for "as the packet before" */
    ND_PHRASE_BEAM = 4
};

/*
 * Context i is how many packets it has before, direction, place, and these
 * packets' direction << 16 | number, the nearest first, -1 where there is
 * none; contexts rise. Its words, which rise too, are
 * first[i] ... first[i + 1] - 1; words without one of their own came `other`
 * times.
 */
struct nd_phrase_book {
    size_t contexts;
    const int32_t *context; /* (contexts, ND_PHRASE_CONTEXT) */
    const int64_t *first;   /* contexts + 1 */
    const double *other;
    const int32_t *word;
    const double *times;
    double wrong; /* chance that a cell was drawn wrong */
    double own;   /* chance of a number that no context has */
};

struct nd_phrase_step {
    uint16_t word[ND_PHRASE_BEAM];
    uint8_t from[ND_PHRASE_BEAM];
};

/* A flow's n numbers and directions; numbers that are fixed are as drawn. */
void nd_phrase_read(const struct nd_phrase_book *book, const uint16_t *drawn,
                    const uint8_t *direction, const uint8_t *fixed, size_t n,
                    uint16_t *meant, struct nd_phrase_step *steps);

#endif
