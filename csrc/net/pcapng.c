#include "pcapng.h"

#include <string.h>

enum {
    SECTION_HEADER = 0x0a0d0d0a,
    INTERFACE = 1,
    ENHANCED_PACKET = 6,
    OPTION_TIME_UNIT = 9, /* if_tsresol */
    LINK_ETHERNET = 1
};

static void
put16(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)value;
    at[1] = (uint8_t)(value >> 8);
}

static void
put32(uint8_t *at, uint32_t value)
{
    put16(at, value);
    put16(at + 2, value >> 16);
}

/*
 * |  block type   |    length     |  byte order   | major | minor |
 * |   section length, -1: not told                |    length     |
 */
static void
put_section(FILE *file)
{
    uint8_t block[28];
    put32(block, SECTION_HEADER);
    put32(block + 4, sizeof block);
    put32(block + 8, 0x1a2b3c4d);
    put16(block + 12, 1);
    put16(block + 14, 0);
    memset(block + 16, 0xff, 8);
    put32(block + 24, sizeof block);
    fwrite(block, sizeof block, 1, file);
}

/*
 * |  block type   |    length     | link  |   0   |  snap length  |
 * | options: if_tsresol 9, length 1, value, padding | end of options |
 * |    length     |
 */
static void
put_interface(FILE *file, uint32_t snap_length, bool nanoseconds)
{
    uint8_t block[32] = {0};
    put32(block, INTERFACE);
    put32(block + 4, sizeof block);
    put16(block + 8, LINK_ETHERNET);
    put32(block + 12, snap_length);
    put16(block + 16, OPTION_TIME_UNIT);
    put16(block + 18, 1);
    block[20] = nanoseconds ? 9 : 6; /* 10 to the minus this, in seconds */
    put32(block + 28, sizeof block);
    fwrite(block, sizeof block, 1, file);
}

void
nd_pcapng_begin(FILE *file, uint32_t snap_length, bool nanoseconds)
{
    put_section(file);
    put_interface(file, snap_length, nanoseconds);
}

/*
 * |  block type   |    length     | interface 0   |  time, high   |
 * |   time, low   |    stored     | wire length   | bytes, padded |
 * |    length     |
 */
void
nd_pcapng_packet(FILE *file, const uint8_t *bytes, size_t stored,
                 uint32_t wire_length, uint64_t ticks)
{
    uint8_t head[28] = {0};
    uint8_t tail[8] = {0};
    uint32_t n = (uint32_t)stored;
    uint32_t padding = (4 - n % 4) % 4;
    uint32_t length = 28 + n + padding + 4;
    put32(head, ENHANCED_PACKET);
    put32(head + 4, length);
    put32(head + 12, (uint32_t)(ticks >> 32));
    put32(head + 16, (uint32_t)ticks);
    put32(head + 20, n);
    put32(head + 24, wire_length);
    put32(tail + padding, length);
    fwrite(head, sizeof head, 1, file);
    fwrite(bytes, 1, stored, file);
    fwrite(tail, padding + 4, 1, file);
}

uint64_t
nd_pcapng_block_start(const uint8_t last[4], uint64_t end, uint64_t earliest)
{
    uint32_t little = (uint32_t)last[3] << 24 | (uint32_t)last[2] << 16 |
                      (uint32_t)last[1] << 8 | last[0];
    uint32_t big = (uint32_t)last[0] << 24 | (uint32_t)last[1] << 16 |
                   (uint32_t)last[2] << 8 | last[3];
    uint32_t lengths[2] = {little, big};
    for (int i = 0; i < 2; i++)
        if (lengths[i] >= 16 && lengths[i] <= end &&
            end - lengths[i] >= earliest)
            return end - lengths[i];
    return 0;
}
