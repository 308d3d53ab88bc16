#include "payload_message.h"

/*
 * RFC 4253: version lines, key exchange (with curve25519, RFC 8731), new keys,
 * and then what is encrypted. A write is one step of it.
 */

enum { IGNORE = 2, KEXINIT = 20, NEWKEYS = 21, ECDH_INIT = 30, ECDH_REPLY };
enum {
    PACKET = 5, PADDING = 4, NEWKEYS_BYTES = 16, VERSION_MOST = 253,
    KEY = 32, RSA = 64, HOST_KEY = 11 + 7 + 4 + RSA, SIGNATURE = 11 + 4 + RSA,
    IGNORE_LEAST = 14,
    REPLY = PACKET + 1 + 4 + HOST_KEY + 4 + KEY + 4 + SIGNATURE + PADDING
};

/* Readers look for a code of authentication, or for a whole block of AES, in
 * segments that are too short for it. */
static const char *const names[] = {
    "curve25519-sha256", "ssh-rsa", "3des-cbc", "3des-cbc",
    "none", "none", "none", "none", "", ""};

static void
put_packet(struct nd_pen *pen, size_t n, unsigned type)
{
    nd_pen_u32(pen, n - 4);
    nd_pen_u8(pen, PADDING);
    nd_pen_u8(pen, type);
}

static void
put_string(struct nd_pen *pen, const char *text)
{
    nd_pen_u32(pen, strlen(text));
    nd_pen_text(pen, text);
}

/* Section 11.2: data that is thrown away; what fills any length. */
static bool
put_ignore(struct nd_pen *pen, size_t n)
{
    if (n < IGNORE_LEAST) { /* of which the rest is not seen */
        nd_pen_u32(pen, 0x4000);
        nd_pen_repeat(pen, PADDING, nd_pen_room(pen));
        return false;
    }
    put_packet(pen, n, IGNORE);
    nd_pen_u32(pen, n - IGNORE_LEAST);
    nd_pen_noise(pen, n - IGNORE_LEAST + PADDING);
    return true;
}

/* Section 4.2 */
static bool
put_version(struct nd_pen *pen, size_t n)
{
    static const char version[] = "SSH-2.0-OpenSSH_9.2p1";
    if (n < 11) {
        nd_pen_lines(pen, n);
        return false;
    }
    size_t some = n - 2 < sizeof version - 1 ? n - 2 : sizeof version - 1;
    nd_pen_bytes(pen, version, some);
    if (n - 2 > some) {
        nd_pen_u8(pen, ' ');
        nd_pen_letters(pen, n - 3 - some);
    }
    nd_pen_text(pen, "\r\n");
    return true;
}

/* Section 7.1: the last list, of languages, takes what is over. */
static bool
put_kexinit(struct nd_pen *pen, size_t n)
{
    size_t fixed = PACKET + 1 + 16 + 1 + 4 + PADDING;
    for (int i = 0; i < 10; i++)
        fixed += 4 + strlen(names[i]);
    if (n < fixed)
        return put_ignore(pen, n) && false;
    put_packet(pen, n, KEXINIT);
    nd_pen_noise(pen, 16);
    for (int i = 0; i < 9; i++)
        put_string(pen, names[i]);
    nd_pen_u32(pen, n - fixed);
    nd_pen_letters(pen, n - fixed);
    nd_pen_u8(pen, 0);
    nd_pen_repeat(pen, 0, 4 + PADDING);
    return true;
}

/* New keys, and what is encrypted with them. */
static bool
put_new_keys(struct nd_pen *pen, size_t n)
{
    if (n < NEWKEYS_BYTES)
        return put_ignore(pen, n) && false;
    size_t size = n < NEWKEYS_BYTES + 8 ? n : NEWKEYS_BYTES; /* a block */
    nd_pen_u32(pen, size - 4);
    nd_pen_u8(pen, (unsigned)size - 6);
    nd_pen_u8(pen, NEWKEYS);
    nd_pen_repeat(pen, 0, size - 6);
    nd_pen_noise(pen, n - size);
    return true;
}

/* Section 8 and RFC 5656 section 4; the server's new keys follow at once. */
static bool
put_exchange(const struct nd_message *m, struct nd_pen *pen)
{
    size_t least = PACKET + 1 + 4 + KEY + PADDING;
    if (m->direction == 0) {
        if (m->length < least)
            return put_ignore(pen, m->length) && false;
        size_t padding = m->length < least + 20 ? m->length - least : 2;
        nd_pen_u32(pen, least + padding - 4);
        nd_pen_u8(pen, (unsigned)(PADDING + padding));
        nd_pen_u8(pen, ECDH_INIT);
        nd_pen_u32(pen, KEY);
        nd_pen_noise(pen, KEY);
        nd_pen_repeat(pen, 0, PADDING + padding);
        size_t left = nd_pen_room(pen);
        return left == 0 || put_ignore(pen, left);
    }
    if (m->length < REPLY + NEWKEYS_BYTES)
        return put_new_keys(pen, m->length) && false;
    put_packet(pen, REPLY, ECDH_REPLY);
    nd_pen_u32(pen, HOST_KEY);
    put_string(pen, "ssh-rsa");
    nd_pen_u32(pen, 3);
    nd_pen_u24(pen, 0x010001);
    nd_pen_u32(pen, RSA);
    nd_pen_u8(pen, 0x40);
    nd_pen_noise(pen, RSA - 1);
    nd_pen_u32(pen, KEY);
    nd_pen_noise(pen, KEY);
    nd_pen_u32(pen, SIGNATURE);
    put_string(pen, "ssh-rsa");
    nd_pen_u32(pen, RSA);
    nd_pen_noise(pen, RSA);
    nd_pen_repeat(pen, 0, PADDING);
    return put_new_keys(pen, nd_pen_room(pen));
}

bool
nd_payload_ssh(const struct nd_message *m, struct nd_pen *pen)
{
    bool server = m->direction != 0;
    if (m->talk->middle) {
        nd_message_noise(pen);
        return true;
    }
    switch (m->number) {
    case 0:
        if (m->length <= VERSION_MOST)
            return put_version(pen, m->length);
        put_version(pen, 23);
        return put_kexinit(pen, nd_pen_room(pen));
    case 1:
        return put_kexinit(pen, m->length);
    case 2:
        return put_exchange(m, pen);
    case 3:
        if (!server)
            return put_new_keys(pen, m->length);
        break;
    default:
        break;
    }
    nd_message_noise(pen);
    return true;
}
