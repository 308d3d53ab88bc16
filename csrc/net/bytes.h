/*
 * bytes.h - bounds-checked cursors: the only code that touches packet bytes
 *
 * In:      bytes of a packet and how many there are.
 * Out:     big-endian numbers and sub-ranges, front to back; writers put
 *          numbers into buffers whose size the caller has checked.
 * Errors:  none: a fetch past the end sets `truncated`, stays set, and
 *          gives 0 or NULL; nothing is read then or later.
 * Memory:  allocates nothing.
 * Threads: pure functions, no state.
 * Python:  none.  Tests: tests/test_packet.py, tests/fuzz_packet.c
 *
 * Sizes are compared (n > left), never pointers, so no sum can wrap.
 */
#ifndef ND_NET_BYTES_H
#define ND_NET_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct nd_cursor {
    const uint8_t *bytes; /* the next byte */
    size_t left;
    bool truncated;
};

static inline struct nd_cursor
nd_cursor_over(const uint8_t *bytes, size_t n)
{
    return (struct nd_cursor){bytes, n, false};
}

/* The next n bytes, or NULL when fewer are left. */
static inline const uint8_t *
nd_take(struct nd_cursor *cursor, size_t n)
{
    if (cursor->truncated || n > cursor->left) {
        cursor->truncated = true;
        return NULL;
    }
    const uint8_t *at = cursor->bytes;
    cursor->bytes += n;
    cursor->left -= n;
    return at;
}

/* Forgets what lies more than n bytes ahead. */
static inline void
nd_limit(struct nd_cursor *cursor, size_t n)
{
    if (n < cursor->left)
        cursor->left = n;
}

static inline uint16_t
nd_get16(const uint8_t *at)
{
    return (uint16_t)(at[0] << 8 | at[1]);
}

static inline uint32_t
nd_get32(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 |
           (uint32_t)at[2] << 8 | at[3];
}

static inline uint8_t
nd_u8(struct nd_cursor *cursor)
{
    const uint8_t *at = nd_take(cursor, 1);
    return at == NULL ? 0 : *at;
}

static inline uint16_t
nd_u16(struct nd_cursor *cursor)
{
    const uint8_t *at = nd_take(cursor, 2);
    return at == NULL ? 0 : nd_get16(at);
}

static inline uint32_t
nd_u32(struct nd_cursor *cursor)
{
    const uint8_t *at = nd_take(cursor, 4);
    return at == NULL ? 0 : nd_get32(at);
}

static inline void
nd_put16(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

#endif
