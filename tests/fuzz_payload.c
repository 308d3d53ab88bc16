/* Streams and datagrams of every service: each byte follows from its place. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/payload_plan.h"

static const uint32_t START = 0xfffff000; /* so that numbers wrap */

enum { MOST_PACKETS = 32, STREAM = 1 << 16, BYTES = 4 };

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct segment {
    struct nd_payload payload;
    uint8_t header[20];
    uint32_t place; /* in the stream */
};

static void
check(bool good, const char *what)
{
    if (good)
        return;
    fprintf(stderr, "fails: %s\n", what);
    abort();
}

static void
put_seq(uint8_t *header, uint32_t seq)
{
    for (int i = 0; i < 4; i++)
        header[4 + i] = (uint8_t)(seq >> (24 - 8 * i));
}

/* Four bytes a packet: direction, what kind of step, length. */
static void
make(const uint8_t *at, const struct nd_endpoints *ends, uint8_t protocol,
     uint32_t next[2], struct segment *s)
{
    uint8_t direction = at[0] & 1, flags = at[0] & 8 ? 8 : 0;
    uint32_t length = (uint32_t)(at[2] << 8 | at[3]) % 1600;
    uint32_t place = next[direction];
    if (at[1] < 32)
        place -= place < at[1] * 16u ? place : at[1] * 16u; /* again */
    else if (at[1] < 48)
        place += at[1]; /* a hole */
    if (place + length > next[direction])
        next[direction] = place + length;
    memset(s, 0, sizeof *s);
    s->place = place;
    s->header[13] = flags;
    put_seq(s->header, place + START);
    s->payload = (struct nd_payload){
        .ip_version = 4, .protocol = protocol, .direction = direction,
        .length = length, .transport = s->header, .ends = ends,
    };
}

/* Fills into memory that ends with the payload, and holds it to the rest. */
static void
fill(struct nd_plan *plan, size_t packet, const struct segment *s,
     uint8_t *stream, uint8_t *known)
{
    uint32_t n = s->payload.length;
    uint8_t *bytes = calloc(n > 0 ? n : 1, 1);
    uint8_t *again = calloc(n > 0 ? n : 1, 1);
    if (bytes == NULL || again == NULL)
        abort();
    nd_plan_fill(plan, 0, packet, &s->payload, bytes);
    nd_plan_fill(plan, 0, packet, &s->payload, again);
    check(memcmp(bytes, again, n) == 0, "the same twice");
    for (uint32_t i = 0; i < n && s->payload.protocol == 6; i++) {
        if (known[s->place + i])
            check(stream[s->place + i] == bytes[i], "sent again");
        stream[s->place + i] = bytes[i];
        known[s->place + i] = 1;
    }
    free(bytes);
    free(again);
}

static void
run(struct nd_plan *plan, const uint8_t *data, size_t n, uint8_t protocol,
    const struct nd_endpoints *ends)
{
    static uint8_t stream[2][STREAM], known[2][STREAM];
    static struct segment segments[MOST_PACKETS];
    uint32_t next[2] = {0, 0};
    memset(known, 0, sizeof known);
    nd_plan_flow(plan, ends, 4, protocol, 7);
    for (size_t i = 0; i < n; i++) {
        make(data + BYTES * i, ends, protocol, next, &segments[i]);
        if (i == 0 && data[0] & 16) {
            segments[i].header[13] |= 2; /* SYN: its number comes before */
            put_seq(segments[i].header, segments[i].place + START - 1);
        }
        nd_plan_packet(plan, &segments[i].payload);
    }
    for (size_t i = 0; i < n; i++) {
        size_t k = data[0] & 32 ? n - 1 - i : i; /* in any order */
        uint8_t d = segments[k].payload.direction;
        fill(plan, k, &segments[k], stream[d], known[d]);
    }
}

/* A conversation of a service: packets of four bytes each. */
static void
talk(uint8_t service, uint8_t protocol, enum nd_payload_mode mode,
     size_t host_bytes, const uint8_t *data, size_t n)
{
    struct nd_endpoints ends = {.port = {50000, 443}};
    struct nd_plan *plan;
    struct nd_payload_told told = {0};
    char hosts[ND_HOST_BYTES] = {0};
    memset(hosts, 'h', host_bytes % ND_HOST_BYTES);
    service |= ND_SERVICE_SURE;
    struct nd_payload_choice choice = {
        .mode = mode, .services = &service, .hosts = hosts, .seed = n,
    };
    if (n > MOST_PACKETS)
        n = MOST_PACKETS;
    if (nd_plan_create(&plan, &choice, 1, n, NULL) != ND_OK)
        return;
    run(plan, data, n, protocol, &ends);
    nd_plan_tell(plan, &told);
    for (int i = 0; i < ND_SERVICE_COUNT; i++)
        check(told.short_packets[i] <= told.packets[i], "counts");
    nd_plan_destroy(plan);
}

/* Every service with every length (where time is given; else every 11th), sent
 * again from some place in it. */
int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    unsigned step = getenv("NETDIFFUSION_FUZZ_SECONDS") == NULL ? 11 : 1;
    for (unsigned length = 0; length <= 1500; length += step) {
        uint8_t high = (uint8_t)(length >> 8), low = (uint8_t)length;
        uint8_t again = (uint8_t)(length * 7 % 32);
        const uint8_t data[] = {
            0x18, 255, high, low, 0x09, 255, high, low, 0x08, 255, high, low,
            0x08, again, high, low, 0x09, 255, high, low, 0x01, again, high,
            low, 0x00, 255, high, low, 0x08, 255, 0, low};
        for (uint8_t s = 0; s < ND_SERVICE_COUNT; s++) {
            talk(s, 6, ND_PAYLOAD_PROTOCOL, length, data, sizeof data / BYTES);
            talk(s, 17, ND_PAYLOAD_PROTOCOL, length, data,
                 sizeof data / BYTES);
        }
    }
    return 0;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 3 + BYTES)
        return 0;
    talk(data[0] % ND_SERVICE_COUNT, data[1] & 1 ? 6 : data[1] & 2 ? 17 : 1,
         data[1] & 4 ? ND_PAYLOAD_RANDOM : ND_PAYLOAD_PROTOCOL, data[2],
         data + 3, (size - 3) / BYTES);
    return 0;
}
