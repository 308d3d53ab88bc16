#include "phrase.h"

#include <math.h>
#include <stdbool.h>

enum { FARTHEST = 5 }; /* cells that a number may be from the one drawn */

/* A way to read the packets so far. */
struct reading {
    double likelihood;
    int32_t before[ND_PHRASE_BEFORE]; /* as in a context */
    uint16_t word;
    uint8_t from;
};

struct beam {
    size_t n;
    struct reading readings[ND_PHRASE_BEAM]; /* the likeliest first */
};

/* The contexts of a packet in the book, the longest last. */
struct setting {
    size_t n;
    size_t place[ND_PHRASE_BEFORE + 1];
    double seen[ND_PHRASE_BEFORE + 1];  /* packets that had one of its words */
    double kinds[ND_PHRASE_BEFORE + 1]; /* of words, the others included */
};

static int
compare(const int32_t *a, const int32_t *b)
{
    for (size_t i = 0; i < ND_PHRASE_CONTEXT; i++)
        if (a[i] != b[i])
            return a[i] < b[i] ? -1 : 1;
    return 0;
}

/* The place of a context in the book, or its end. */
static size_t
find_context(const struct nd_phrase_book *book, const int32_t *wanted)
{
    size_t low = 0, high = book->contexts;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = compare(book->context + middle * ND_PHRASE_CONTEXT,
                            wanted);
        if (order == 0)
            return middle;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return book->contexts;
}

static void
add_context(const struct nd_phrase_book *book, size_t context,
            struct setting *setting)
{
    int64_t first = book->first[context], end = book->first[context + 1];
    double seen = 0;
    for (int64_t k = first; k < end; k++)
        seen += book->times[k];
    setting->place[setting->n] = context;
    setting->seen[setting->n] = seen;
    setting->kinds[setting->n++] = (double)(end - first) +
                                   book->other[context];
}

static struct setting
find_setting(const struct nd_phrase_book *book, const struct reading *past,
             uint8_t direction, size_t at)
{
    struct setting out = {0};
    int32_t place = at < ND_PHRASE_PLACES ? (int32_t)at : ND_PHRASE_PLACES;
    int32_t wanted[ND_PHRASE_CONTEXT] = {0, direction, place, -1, -1};
    for (int32_t order = 0; order <= ND_PHRASE_BEFORE; order++) {
        wanted[0] = order;
        if (order > 0)
            wanted[2 + order] = past->before[order - 1];
        if (order > 0 && wanted[2 + order] < 0)
            break;
        size_t found = find_context(book, wanted);
        if (found < book->contexts)
            add_context(book, found, &out);
    }
    return out;
}

static double
times(const struct nd_phrase_book *book, size_t context, int32_t word)
{
    int64_t low = book->first[context], high = book->first[context + 1];
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (book->word[middle] == word)
            return book->times[middle];
        if (book->word[middle] < word)
            low = middle + 1;
        else
            high = middle;
    }
    return 0;
}

/*
 * Witten-Bell: a context that has seen N numbers of T kinds leaves T of N + T
 * to the shorter context.
 */
static double
chance(const struct nd_phrase_book *book, const struct setting *setting,
       const struct reading *past, uint16_t word)
{
    double p = book->own;
    bool same = past->before[0] >= 0 && (past->before[0] & 0xffff) == word;
    for (size_t i = 0; i < setting->n; i++) {
        size_t context = setting->place[i];
        double seen = times(book, context, word), kinds = setting->kinds[i];
        if (same)
            seen += times(book, context, ND_PHRASE_SAME);
        p = (seen + kinds * p) / (setting->seen[i] + kinds);
    }
    return p;
}

static int
differing(uint16_t a, uint16_t b)
{
    unsigned bits = (unsigned)(a ^ b);
    int n = 0;
    for (; bits; bits &= bits - 1)
        n++;
    return n;
}

/* Of two readings whose last packets are the same, the likelier is kept. */
static void
keep(struct beam *beam, const struct reading *new)
{
    size_t at = 0;
    for (size_t i = 0; i < beam->n; i++) {
        struct reading *r = &beam->readings[i];
        if (r->before[0] != new->before[0] || r->before[1] != new->before[1])
            continue;
        if (r->likelihood >= new->likelihood)
            return;
        for (beam->n--; i < beam->n; i++)
            beam->readings[i] = beam->readings[i + 1];
    }
    while (at < beam->n && beam->readings[at].likelihood >= new->likelihood)
        at++;
    if (at == ND_PHRASE_BEAM)
        return;
    if (beam->n < ND_PHRASE_BEAM)
        beam->n++;
    for (size_t i = beam->n - 1; i > at; i--)
        beam->readings[i] = beam->readings[i - 1];
    beam->readings[at] = *new;
}

/* Whether no reading of a likelihood below this one would be kept. */
static bool
hopeless(const struct beam *beam, double likelihood)
{
    return beam->n == ND_PHRASE_BEAM &&
           likelihood <= beam->readings[ND_PHRASE_BEAM - 1].likelihood;
}

/* What a packet's number was drawn as, and the readings it goes on from. */
struct turn {
    const struct nd_phrase_book *book;
    double cell; /* log odds of a wrong cell */
    const struct setting *setting;
    const struct reading *past;
    uint8_t from, direction;
    uint16_t drawn;
};

static void
try_word(const struct turn *turn, int32_t word, struct beam *next)
{
    if (word == ND_PHRASE_SAME)
        word = turn->past->before[0] & 0xffff;
    int wrong = differing((uint16_t)word, turn->drawn);
    double likelihood = turn->past->likelihood + wrong * turn->cell;
    if (wrong > FARTHEST || hopeless(next, likelihood))
        return;
    double p = chance(turn->book, turn->setting, turn->past, (uint16_t)word);
    struct reading new = {
        .likelihood = likelihood + log(p),
        .before = {(int32_t)turn->direction << 16 | word,
                   turn->past->before[0]},
        .word = (uint16_t)word,
        .from = turn->from,
    };
    keep(next, &new);
}

/* Go on from one reading with the number drawn and with the words near it. */
static void
go_on(const struct turn *turn, bool fixed, struct beam *next)
{
    const struct nd_phrase_book *book = turn->book;
    try_word(turn, turn->drawn, next);
    if (fixed)
        return;
    for (size_t i = turn->setting->n; i-- > 0;) {
        size_t context = turn->setting->place[i];
        int64_t end = book->first[context + 1];
        for (int64_t k = book->first[context]; k < end; k++)
            if (book->word[k] != ND_PHRASE_SAME || turn->past->before[0] >= 0)
                try_word(turn, book->word[k], next);
    }
}

void
nd_phrase_read(const struct nd_phrase_book *book, const uint16_t *drawn,
               const uint8_t *direction, const uint8_t *fixed, size_t n,
               uint16_t *meant, struct nd_phrase_step *steps)
{
    struct beam beam = {.n = 1, .readings = {{.before = {-1, -1}}}};
    double cell = log(book->wrong / (1 - book->wrong));
    for (size_t i = 0; i < n; i++) {
        struct beam next = {0};
        for (size_t k = 0; k < beam.n; k++) {
            const struct reading *past = &beam.readings[k];
            struct setting setting = find_setting(book, past, direction[i], i);
            struct turn turn = {
                .book = book,
                .cell = cell,
                .setting = &setting,
                .past = past,
                .from = (uint8_t)k,
                .direction = direction[i],
                .drawn = drawn[i],
            };
            go_on(&turn, fixed[i] != 0, &next);
        }
        for (size_t k = 0; k < next.n; k++) {
            steps[i].word[k] = next.readings[k].word;
            steps[i].from[k] = next.readings[k].from;
        }
        beam = next;
    }
    uint8_t k = 0;
    for (size_t i = n; i-- > 0; k = steps[i].from[k])
        meant[i] = steps[i].word[k];
}
