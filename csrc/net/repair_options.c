#include "repair_flow.h"

enum { MOST_NOPS = 3, SCALE_MOST = 14, MSS_DEFAULT = 536, MSS_LEAST = 64 };

/*
 * TCP options that are passed on, IANA "TCP Parameters". A length of 0 means
 * several: SACK 8n + 2, Fast Open 2 or 6 to 18 and even.
 */
enum { OPT_MD5 = 19, OPT_USER_TIMEOUT = 28 };

static bool
tcp_length_legal(uint8_t kind, size_t length)
{
    switch (kind) {
    case ND_OPT_MSS:
    case OPT_USER_TIMEOUT:
        return length == 4;
    case ND_OPT_SCALE:
        return length == 3;
    case ND_OPT_SACK_OK:
        return length == 2;
    case ND_OPT_SACK:
        return length >= 10 && length <= 34 && length % 8 == 2;
    case ND_OPT_TIMESTAMP:
        return length == 10;
    case OPT_MD5:
        return length == 18;
    case ND_OPT_FAST_OPEN:
        return length == 2 || (length >= 6 && length <= 18 && length % 2 == 0);
    case ND_OPT_TRIAL:
        return length == 4 || (length >= 8 && length <= 20 && length % 2 == 0);
    default:
        return false;
    }
}

/* RFC 791 section 3.1: record route; RFC 2113: router alert. */
static bool
ip_length_legal(uint8_t kind, size_t length)
{
    enum { RECORD_ROUTE = 7, ROUTER_ALERT = 148 };
    return (kind == ROUTER_ALERT && length == 4) ||
           (kind == RECORD_ROUTE && length >= 7 && length % 4 == 3);
}

/* Which kinds have been seen; IP and TCP kinds are below 256. */
struct seen {
    uint64_t bits[4];
};

static bool
first_time(struct seen *seen, uint8_t kind)
{
    uint64_t bit = UINT64_C(1) << kind % 64;
    bool first = !(seen->bits[kind / 64] & bit);
    seen->bits[kind / 64] |= bit;
    return first;
}

/*
 * Copies what is legal and in its drawn order, then the end and zeros up to a
 * word. NOPs that stood for the padding of a dropped option go with it.
 */
struct rebuild {
    const struct nd_options *in;
    struct nd_options out;
    size_t nops;     /* of the run that is being copied */
    size_t all_nops; /* copied so far */
    bool dropped;
};

/*
 * NOPs pad: three may stand anywhere, and two at the begin of any word. More
 * look as if a router had blanked an option, and readers warn of them.
 */
static void
copy_nop(struct rebuild *r)
{
    bool pair = r->nops < 2 && (r->out.length - r->nops) % 4 == 0;
    if (r->all_nops >= MOST_NOPS && !pair) {
        r->dropped = true;
        return;
    }
    r->nops++;
    r->all_nops++;
    r->out.bytes[r->out.length++] = ND_OPT_NOP;
}

static void
copy_option(struct rebuild *r, size_t at, size_t length)
{
    memcpy(r->out.bytes + r->out.length, r->in->bytes + at, length);
    r->out.length = (uint8_t)(r->out.length + length);
    r->nops = 0;
}

static void
finish(struct rebuild *r)
{
    struct nd_options *out = &r->out;
    if (r->dropped)
        while (out->length > 0 && r->nops > 0) {
            out->length--;
            r->nops--;
        }
    /* an end of the list that was drawn keeps its word */
    size_t length = r->dropped ? out->length : r->in->length;
    size_t whole = (length + 3) & ~(size_t)3;
    memset(out->bytes + out->length, 0, ND_OPTION_BYTES - out->length);
    out->length = (uint8_t)whole;
}

static void
rebuild(struct rebuild *r, bool (*legal)(uint8_t kind, size_t length))
{
    struct seen seen = {{0}};
    const struct nd_options *in = r->in;
    size_t i = 0;
    r->out.length = 0;
    r->nops = r->all_nops = 0;
    r->dropped = false;
    while (i < in->length && in->bytes[i] != ND_OPT_EOL) {
        uint8_t kind = in->bytes[i];
        if (kind == ND_OPT_NOP) {
            copy_nop(r);
            i++;
            continue;
        }
        size_t left = in->length - i;
        size_t length = left < 2 ? 0 : in->bytes[i + 1];
        if (length < 2 || length > left) {
            r->dropped = true;
            break;
        }
        if (legal(kind, length) && first_time(&seen, kind))
            copy_option(r, i, length);
        else
            r->dropped = true;
        i += length;
    }
    finish(r);
}

/* Option cells that differ: bits where both are there, else the whole byte. */
static int64_t
difference(const struct nd_options *a, const struct nd_options *b)
{
    int64_t cells = 0;
    for (size_t i = 0; i < a->length || i < b->length; i++) {
        bool both = i < a->length && i < b->length;
        cells += both ? (int64_t)nd_ones((uint64_t)(a->bytes[i] ^ b->bytes[i]))
                      : 8;
    }
    return cells;
}

static void
replace(struct nd_draft *flow, enum nd_rule rule, struct nd_options *old,
        const struct nd_options *new)
{
    flow->changed[rule] += difference(old, new);
    *old = *new;
}

/* What a step keeps of its SYN options: legal values. */
static void
legal_values(struct nd_options *options)
{
    size_t length;
    uint8_t *mss = nd_repair_find_option(options, ND_OPT_MSS, &length);
    if (mss != NULL && mss[2] == 0 && mss[3] == 0) {
        mss[2] = MSS_DEFAULT >> 8; /* RFC 9293 section 3.7.1 */
        mss[3] = MSS_DEFAULT & 0xff;
    }
    if (mss != NULL && mss[2] == 0 && mss[3] < MSS_LEAST)
        mss[3] |= MSS_LEAST; /* more than 40 bytes of options */
    uint8_t *scale = nd_repair_find_option(options, ND_OPT_SCALE, &length);
    if (scale != NULL && scale[2] > SCALE_MOST)
        scale[2] = SCALE_MOST; /* RFC 7323 section 2.3 */
}

/* Data of other options is not drawn (canonical.h). */
static void
blank_data(struct nd_options *options)
{
    for (size_t i = 0; i < options->length;) {
        uint8_t kind = options->bytes[i];
        if (kind == ND_OPT_EOL)
            return;
        if (kind == ND_OPT_NOP) {
            i++;
            continue;
        }
        size_t length = options->bytes[i + 1];
        if (kind != ND_OPT_MSS && kind != ND_OPT_SCALE)
            memset(options->bytes + i + 2, 0, length - 2);
        i += length;
    }
}

/* The number of the experiment, which is not drawn. */
static void
name_trial(struct nd_options *options)
{
    size_t length;
    uint8_t *trial = nd_repair_find_option(options, ND_OPT_TRIAL, &length);
    if (trial != NULL) {
        trial[2] = 0xf9;
        trial[3] = 0x89;
    }
}

void
nd_repair_tcp_options(struct nd_draft *flow, struct nd_step *step)
{
    if (step->tcp_options.length == 0)
        return;
    struct rebuild r = {.in = &step->tcp_options};
    struct nd_options nearest;
    rebuild(&r, tcp_length_legal);
    if (r.dropped && nd_repair_nearest_options(
            r.in, step->flags & ND_TCP_SYN,
            difference(&step->tcp_options, &r.out), &nearest))
        r.out = nearest;
    legal_values(&r.out);
    blank_data(&r.out);
    replace(flow, ND_RULE_TCP_OPTIONS, &step->tcp_options, &r.out);
    name_trial(&step->tcp_options);
}

/* The pointer of a record route says that no address stands in it yet. */
static void
point_at_start(struct nd_options *options)
{
    for (size_t i = 0; i < options->length;) {
        uint8_t kind = options->bytes[i];
        if (kind == ND_OPT_EOL)
            return;
        if (kind == ND_OPT_NOP) {
            i++;
            continue;
        }
        size_t length = options->bytes[i + 1];
        memset(options->bytes + i + 2, 0, length - 2);
        if (length > 4)
            options->bytes[i + 2] = 4;
        i += length;
    }
}

void
nd_repair_ip_options(struct nd_draft *flow, struct nd_step *step)
{
    if (step->ip_options.length == 0)
        return;
    struct rebuild r = {.in = &step->ip_options};
    struct nd_options drawn = step->ip_options;
    rebuild(&r, ip_length_legal);
    flow->changed[ND_RULE_IP_OPTIONS] += difference(&drawn, &r.out);
    point_at_start(&r.out);
    step->ip_options = r.out;
}

uint8_t *
nd_repair_find_option(struct nd_options *options, uint8_t kind, size_t *length)
{
    size_t i = 0;
    while (i < options->length && options->bytes[i] != ND_OPT_EOL) {
        if (options->bytes[i] == ND_OPT_NOP) {
            i++;
            continue;
        }
        *length = options->bytes[i + 1];
        if (options->bytes[i] == kind)
            return options->bytes + i;
        i += *length;
    }
    return NULL;
}

/*
 * The option stands in a list that rebuild() made, so every length is legal.
 * It is marked with a kind that no rule passes on, and the list is rebuilt;
 * of a shorter SACK option the rest becomes an option of its own, marked so.
 */
void
nd_repair_cut_option(struct nd_draft *flow, struct nd_step *step,
                     enum nd_rule rule, uint8_t kind, size_t length)
{
    enum { NO_KIND = 255 };
    size_t old_length;
    struct nd_options marked = step->tcp_options;
    uint8_t *option = nd_repair_find_option(&marked, kind, &old_length);
    if (option == NULL)
        return;
    if (length != 0) {
        option[1] = (uint8_t)length;
        option += length;
    }
    option[0] = NO_KIND;
    option[1] = (uint8_t)(old_length - length);
    struct rebuild r = {.in = &marked};
    rebuild(&r, tcp_length_legal);
    replace(flow, rule, &step->tcp_options, &r.out);
}

bool
nd_repair_add_option(struct nd_draft *flow, struct nd_step *step,
                     enum nd_rule rule, uint8_t kind, size_t length)
{
    struct nd_options out = step->tcp_options;
    size_t end = 0;
    while (end < out.length && out.bytes[end] != ND_OPT_EOL)
        end += out.bytes[end] == ND_OPT_NOP ? 1 : out.bytes[end + 1];
    size_t whole = (end + length + 3) & ~(size_t)3;
    if (whole > ND_OPTION_BYTES)
        return false;
    memset(out.bytes + end, 0, ND_OPTION_BYTES - end);
    out.bytes[end] = kind;
    out.bytes[end + 1] = (uint8_t)length;
    out.length = (uint8_t)whole;
    replace(flow, rule, &step->tcp_options, &out);
    nd_repair_set_payload(flow, step, ND_RULE_IP_LENGTH, step->payload);
    return true;
}
