/* Cells of any bytes through repair: legal, idempotent, and the same again. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/repair.h"
#include "net/validate.h"

enum { MOST_PACKETS = 24 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct result {
    int8_t rows[MOST_PACKETS * ND_ROW_CELLS];
    int64_t times[MOST_PACKETS];
    uint8_t directions[MOST_PACKETS];
    uint32_t wire_length[MOST_PACKETS];
    struct nd_endpoints ends;
    uint8_t ip_version, protocol;
    int64_t changed[ND_RULE_COUNT];
};

static void
check(bool good, const char *what)
{
    if (good)
        return;
    fprintf(stderr, "fails: %s\n", what);
    abort();
}

/*
 * The first bytes choose headers, so that flows of one kind are common; the
 * rest are cells, two bits each, over and over.
 */
static void
fill_cells(const uint8_t *data, size_t size, int8_t *cells, size_t n)
{
    static const size_t spans[][2] = {
        {0, 416}, {416, 480}, {480, 960}, {960, 1024}, {1024, 1088}};
    for (size_t i = 0; i < n * ND_CANONICAL_CELLS; i++) {
        int bits = data[i / 4 % size] >> (i % 4 * 2) & 3;
        cells[i] = bits == 3 ? -1 : (int8_t)(bits & 1);
    }
    for (size_t p = 0; p < n; p++)
        for (int h = 0; h < 5; h++)
            if (data[0] >> h & 1)
                memset(cells + p * ND_CANONICAL_CELLS + spans[h][0], -1,
                       spans[h][1] - spans[h][0]);
}

static void
run(struct nd_repair *repair, const struct nd_repair_options *options,
    const int8_t *cells, size_t n, struct result *out)
{
    memset(out, 0, sizeof *out);
    struct nd_repaired repaired = {
        .rows = out->rows, .times = out->times,
        .directions = out->directions, .wire_length = out->wire_length,
        .ends = &out->ends, .ip_version = &out->ip_version,
        .protocol = &out->protocol, .changed = out->changed,
    };
    nd_repair_flow(repair, options, 7, NULL, cells, n, &repaired);
}

static void
check_legal(const struct result *r, size_t n)
{
    struct nd_violations v;
    struct nd_evidence evidence = {
        .rows = r->rows, .times = r->times, .directions = r->directions,
        .n = n, .ends = r->ends, .ip_version = r->ip_version,
        .protocol = r->protocol, .known_payload = true,
    };
    nd_violations_clear(&v);
    nd_validate_flow(&evidence, &v);
    for (int rule = 0; rule < ND_RULE_COUNT; rule++)
        check(v.packets[rule] == 0, nd_rules[rule].name);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int8_t cells[MOST_PACKETS * ND_CANONICAL_CELLS];
    static struct result once, twice;
    struct nd_repair *repair;
    struct nd_repair_options options;
    if (size < 3)
        return 0;
    size_t n = data[1] % MOST_PACKETS + 1;
    nd_repair_defaults(&options);
    options.events = data[0] & 0x80 ? ND_EVENTS_QUIET : ND_EVENTS_KEEP;
    options.mtu = data[0] & 0x40 ? 1500 : 65535;
    if (nd_repair_create(&repair, n, NULL) != ND_OK)
        return 0;
    fill_cells(data, size, cells, n);
    run(repair, &options, cells, n, &once);
    check_legal(&once, n);
    nd_canonical_encode(once.rows, n, once.times, once.directions, cells);
    run(repair, &options, cells, n, &twice);
    check(memcmp(once.rows, twice.rows, n * ND_ROW_CELLS) == 0, "rows");
    check(memcmp(once.times, twice.times, sizeof once.times) == 0, "times");
    for (int rule = 0; rule < ND_RULE_COUNT; rule++)
        check(twice.changed[rule] == 0, nd_rules[rule].name);
    nd_repair_destroy(repair);
    return 0;
}
