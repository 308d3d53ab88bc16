#include "repair_flow.h"

/*
 * The legal list of TCP options that is nearest to a malformed one: as long
 * as it, and the fewest cells away. A model that errs is mostly a bit or two
 * off a kind or a length, and dropping what follows would cost a whole list.
 * Branch and bound; a list more than MOST cells away is left to the caller.
 */

enum { MOST = 6, MOST_NOPS = 3 };

struct token {
    uint8_t kind, length;
    bool on_syn, elsewhere;
    bool drawn_data; /* kept as it is; else it is zero (canonical.h) */
};

static const struct token tokens[] = {
    {ND_OPT_MSS, 4, true, false, true},
    {ND_OPT_SACK_OK, 2, true, false, true},
    {ND_OPT_TIMESTAMP, 10, true, true, false},
    {ND_OPT_SCALE, 3, true, false, true},
    {ND_OPT_SACK, 10, false, true, false},
    {ND_OPT_SACK, 18, false, true, false},
    {ND_OPT_SACK, 26, false, true, false},
    {ND_OPT_SACK, 34, false, true, false},
};

struct search {
    const struct nd_options *in;
    bool syn;
    unsigned least; /* cells of the best list so far */
    bool found;
    uint8_t out[ND_OPTION_BYTES], best[ND_OPTION_BYTES];
};

/* Where a search stands. */
struct place {
    size_t at;
    unsigned cost;
    uint32_t seen;     /* kinds, a bit each; all are below 32 */
    size_t run, nops; /* NOPs in a row, and in all */
};

static unsigned
ones_from(const struct search *s, size_t first, size_t last)
{
    unsigned n = 0;
    for (size_t i = first; i < last; i++)
        n += nd_ones(s->in->bytes[i]);
    return n;
}

/* The list may end here: zeros follow. */
static void
end_here(struct search *s, const struct place *p)
{
    unsigned cost = p->cost + ones_from(s, p->at, s->in->length);
    if (cost >= s->least)
        return;
    s->least = cost;
    s->found = true;
    memcpy(s->best, s->out, p->at);
    memset(s->best + p->at, 0, ND_OPTION_BYTES - p->at);
}

static void go_on(struct search *s, struct place p);

/* As in copy_nop() of repair_options.c. */
static void
try_nop(struct search *s, struct place p)
{
    bool pair = p.run < 2 && (p.at - p.run) % 4 == 0;
    if (p.nops >= MOST_NOPS && !pair)
        return;
    p.cost += nd_ones(s->in->bytes[p.at] ^ ND_OPT_NOP);
    s->out[p.at++] = ND_OPT_NOP;
    p.run++;
    p.nops++;
    go_on(s, p);
}

static void
try_option(struct search *s, struct place p, const struct token *t)
{
    const uint8_t *in = s->in->bytes + p.at;
    if (p.at + t->length > s->in->length || p.seen >> t->kind & 1 ||
        !(s->syn ? t->on_syn : t->elsewhere))
        return;
    p.cost += nd_ones(in[0] ^ t->kind) + nd_ones(in[1] ^ t->length);
    if (!t->drawn_data)
        p.cost += ones_from(s, p.at + 2, p.at + t->length);
    if (p.cost >= s->least)
        return;
    memcpy(s->out + p.at, in, t->length);
    s->out[p.at] = t->kind;
    s->out[p.at + 1] = t->length;
    p.at += t->length;
    p.seen |= UINT32_C(1) << t->kind;
    p.run = 0;
    go_on(s, p);
}

/* At most 40 deep: each step takes a byte or more. */
static void
go_on(struct search *s, struct place p)
{
    if (p.cost >= s->least)
        return;
    end_here(s, &p);
    if (p.at == s->in->length)
        return;
    try_nop(s, p);
    for (size_t k = 0; k < sizeof tokens / sizeof *tokens; k++)
        try_option(s, p, &tokens[k]);
}

bool
nd_repair_nearest_options(const struct nd_options *drawn, bool syn,
                          int64_t better_than, struct nd_options *nearest)
{
    struct search s = {.in = drawn, .syn = syn, .least = MOST + 1};
    if (better_than < (int64_t)s.least)
        s.least = (unsigned)better_than;
    go_on(&s, (struct place){.at = 0});
    if (s.found) {
        nearest->length = drawn->length;
        memcpy(nearest->bytes, s.best, sizeof s.best);
    }
    return s.found;
}
