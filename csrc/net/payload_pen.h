/*
 * payload_pen.h - a message written front to back, of which a window is kept
 *
 * In:      a window of a message: where its bytes go, and from which byte of
 *          the message to which; pieces of the message, one after the other.
 * Out:     the bytes of those pieces that lie in the window.
 * Errors:  none: what lies outside the window or behind the end of the
 *          message is left out, and nd_pen_room() tells how much still fits.
 * Memory:  the caller's; not a byte outside the window is touched.
 * Threads: pure functions, no state.
 * Python:  through _core.CaptureWriter.  Tests: test_payload.py,
 *          fuzz_payload.c
 *
 * A message may be cut over several segments and a segment may be sent twice,
 * in other pieces. Generators write the whole message whatever part of it is
 * asked for, so every byte depends on its place alone.
 */
#ifndef ND_NET_PAYLOAD_PEN_H
#define ND_NET_PAYLOAD_PEN_H

#include <string.h>

#include "bytes.h"

struct nd_pen {
    uint8_t *bytes; /* of the window */
    size_t from, to;
    size_t at;
    size_t length; /* of the message */
    uint64_t key;  /* of nd_pen_noise() */
};

static inline size_t
nd_pen_room(const struct nd_pen *pen)
{
    return pen->at < pen->length ? pen->length - pen->at : 0;
}

/* Goes on by n bytes; which of them are kept: *skip of them come before. */
static inline size_t
nd_pen_advance(struct nd_pen *pen, size_t n, size_t *skip, uint8_t **out)
{
    size_t start = pen->at;
    if (n > nd_pen_room(pen))
        n = nd_pen_room(pen);
    pen->at += n;
    if (start >= pen->to || start + n <= pen->from)
        return 0;
    *skip = pen->from > start ? pen->from - start : 0;
    *out = pen->bytes + (start + *skip - pen->from);
    size_t end = start + n < pen->to ? start + n : pen->to;
    return end - start - *skip;
}

static inline void
nd_pen_bytes(struct nd_pen *pen, const void *bytes, size_t n)
{
    size_t skip = 0;
    uint8_t *out = NULL;
    size_t kept = nd_pen_advance(pen, n, &skip, &out);
    if (kept > 0)
        memcpy(out, (const uint8_t *)bytes + skip, kept);
}

static inline void
nd_pen_repeat(struct nd_pen *pen, uint8_t byte, size_t n)
{
    size_t skip = 0;
    uint8_t *out = NULL;
    size_t kept = nd_pen_advance(pen, n, &skip, &out);
    if (kept > 0)
        memset(out, byte, kept);
}

static inline void
nd_pen_text(struct nd_pen *pen, const char *text)
{
    nd_pen_bytes(pen, text, strlen(text));
}

static inline void
nd_pen_u8(struct nd_pen *pen, unsigned value)
{
    nd_pen_repeat(pen, (uint8_t)value, 1);
}

static inline void
nd_pen_u16(struct nd_pen *pen, size_t value)
{
    uint8_t b[2] = {(uint8_t)(value >> 8), (uint8_t)value};
    nd_pen_bytes(pen, b, sizeof b);
}

static inline void
nd_pen_u24(struct nd_pen *pen, size_t value)
{
    nd_pen_u8(pen, (uint8_t)(value >> 16));
    nd_pen_u16(pen, value & 0xffff);
}

static inline void
nd_pen_u32(struct nd_pen *pen, size_t value)
{
    nd_pen_u16(pen, value >> 16 & 0xffff);
    nd_pen_u16(pen, value & 0xffff);
}

static inline void
nd_pen_u64(struct nd_pen *pen, uint64_t value)
{
    nd_pen_u32(pen, (size_t)(value >> 32));
    nd_pen_u32(pen, (size_t)(value & 0xffffffff));
}

/* The same, least byte first. */
static inline void
nd_pen_le16(struct nd_pen *pen, size_t value)
{
    nd_pen_u16(pen, (value & 0xff) << 8 | (value >> 8 & 0xff));
}

static inline void
nd_pen_le32(struct nd_pen *pen, size_t value)
{
    nd_pen_le16(pen, value & 0xffff);
    nd_pen_le16(pen, value >> 16 & 0xffff);
}

/* SplitMix64 of key and place: what is encrypted, or chance. */
static inline uint64_t
nd_pen_chance(uint64_t key, uint64_t i)
{
    uint64_t x = key + (i + 1) * UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static inline void
nd_pen_noise(struct nd_pen *pen, size_t n)
{
    size_t skip = 0;
    uint8_t *out = NULL;
    size_t place = pen->at;
    size_t kept = nd_pen_advance(pen, n, &skip, &out);
    place += skip;
    while (kept > 0) {
        uint64_t word = nd_pen_chance(pen->key, place / 8);
        uint8_t bytes[8];
        size_t first = place % 8;
        size_t some = 8 - first < kept ? 8 - first : kept;
        for (int i = 0; i < 8; i++)
            bytes[i] = (uint8_t)(word >> 8 * i);
        memcpy(out, bytes + first, some);
        out += some;
        place += some;
        kept -= some;
    }
}

/* Passes whole units that lie before the window, or all n bytes behind it;
 * returns how many bytes. */
static inline size_t
nd_pen_jump(struct nd_pen *pen, size_t n, size_t unit)
{
    size_t far = 0;
    if (pen->at >= pen->to)
        far = n;
    else if (pen->from > pen->at)
        far = pen->from - pen->at;
    if (far < n)
        far -= far % unit;
    else
        far = pen->at >= pen->to ? n : n - n % unit;
    pen->at += far < nd_pen_room(pen) ? far : nd_pen_room(pen);
    return far;
}

/* Letters, no control characters and nothing that a grammar knows. */
static inline void
nd_pen_letters(struct nd_pen *pen, size_t n)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz012345";
    n -= nd_pen_jump(pen, n, 32);
    while (n > 0 && pen->at < pen->to) {
        size_t first = pen->at % 32;
        size_t some = 32 - first < n ? 32 - first : n;
        nd_pen_bytes(pen, letters + first, some);
        n -= some;
    }
    nd_pen_jump(pen, n, 1);
}

/* Lines of letters, of 72 bytes with their end, and a longer last one. */
static inline void
nd_pen_lines(struct nd_pen *pen, size_t n)
{
    enum { LINE = 72 };
    if (n / LINE > 1)
        n -= nd_pen_jump(pen, (n / LINE - 1) * LINE, LINE);
    while (n > 0 && pen->at < pen->to) {
        size_t line = n >= 2 * LINE ? LINE : n;
        if (line > 2)
            nd_pen_letters(pen, line - 2);
        nd_pen_bytes(pen, "\r\n", line < 2 ? line : 2);
        n -= line;
    }
    nd_pen_jump(pen, n, 1);
}

#endif
