#include "payload_crypto.h"
#include "payload_tls.h"

/*
 * RFC 9000 section 17.2 and RFC 9001 section 5: the first datagrams of both
 * ends are protected with keys that follow from the client's first connection
 * id, so that readers find the server's name. Everything later has a short
 * header and looks encrypted.
 */

enum {
    ID = 8, TAG = 16, NUMBER = 1, TRIES = 8,
    BEFORE = 1 + 4 + 1 + ID + 1 + ID + 1 + 2, /* a long header's fields */
    LONG = BEFORE + NUMBER,
    LEAST = 1200,  /* RFC 9000 section 14.1 */
    SHORTEST = 21, /* a packet that can be sampled, RFC 9001 section 5.4.2 */
    NEGOTIATION = 7, /* without ids and versions */
    MOST = 1536,   /* of a packet that is encrypted here */
    SERVER_HELLO = 90,
    CRYPTO = 4, ACK = 5
};
enum { FOR_ID = 64, FOR_BITS };

struct keys {
    struct nd_aes data, header;
    uint8_t iv[12];
};

static void
put_id(const struct nd_talk *talk, unsigned which, uint8_t id[ID])
{
    uint64_t word = nd_talk_chance(talk, FOR_ID, which);
    memcpy(id, &word, ID);
}

enum { FIRST_ID, CLIENT_ID, SERVER_ID };

static void
find_keys(const struct nd_talk *talk, bool server, struct keys *keys)
{
    static const uint8_t salt[20] = {
        0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17,
        0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad, 0xcc, 0xbb, 0x7f, 0x0a};
    uint8_t id[ID], secret[ND_SHA256_BYTES], key[ND_AES_BYTES];
    put_id(talk, FIRST_ID, id);
    nd_hmac_sha256(salt, sizeof salt, id, ID, secret);
    nd_hkdf_label(secret, server ? "server in" : "client in", secret,
                  sizeof secret);
    nd_hkdf_label(secret, "quic key", key, sizeof key);
    nd_aes_key(&keys->data, key);
    nd_hkdf_label(secret, "quic hp", key, sizeof key);
    nd_aes_key(&keys->header, key);
    nd_hkdf_label(secret, "quic iv", keys->iv, sizeof keys->iv);
}

/* The long header of an Initial packet of n bytes. */
static void
put_header(const struct nd_talk *talk, bool server, uint8_t number, size_t n,
           uint8_t *out)
{
    static const uint8_t first[] = {0xc0, 0, 0, 0, 1, ID};
    memcpy(out, first, sizeof first);
    put_id(talk, server ? CLIENT_ID : FIRST_ID, out + 6);
    out[6 + ID] = ID;
    put_id(talk, server ? SERVER_ID : CLIENT_ID, out + 7 + ID);
    out[7 + 2 * ID] = 0; /* no token */
    nd_put16(out + BEFORE - 2, (uint32_t)(0x4000 | (n - BEFORE)));
    out[BEFORE] = number;
}

/* Encrypts a packet whose frames stand behind its header. */
static void
protect(const struct keys *keys, uint8_t *packet, size_t n)
{
    uint8_t mask[ND_AES_BYTES], nonce[12];
    memcpy(nonce, keys->iv, sizeof nonce);
    nonce[11] ^= packet[BEFORE];
    nd_aes_gcm(&keys->data, nonce, packet, LONG, packet + LONG,
               n - LONG - TAG);
    nd_aes_block(&keys->header, packet + BEFORE + 4, mask);
    packet[0] ^= mask[0] & 0x0f;
    packet[BEFORE] ^= mask[1];
}

/* Frames of an Initial packet: the hello in CRYPTO, then PADDING. */
static bool
put_frames(const struct nd_talk *talk, bool server, uint8_t *at, size_t room)
{
    static const uint8_t ack[ACK] = {2, 0, 0, 0, 0};
    struct nd_pen pen = {.bytes = at, .to = room, .length = room};
    size_t hello = SERVER_HELLO;
    if (server)
        nd_pen_bytes(&pen, ack, sizeof ack);
    if (!server)
        hello = room - CRYPTO < 512 ? room - CRYPTO : 512;
    nd_pen_u16(&pen, 0x0600); /* CRYPTO, offset 0 */
    nd_pen_u16(&pen, 0x4000 | hello);
    return server ? nd_tls_server_hello(talk, &pen, hello)
                  : nd_tls_client_hello(talk, &pen, hello, true);
}

static void
put_short(const struct nd_message *m, struct nd_pen *pen)
{
    uint8_t id[ID];
    put_id(m->talk, m->direction ? CLIENT_ID : SERVER_ID, id);
    nd_pen_u8(pen, 0x40 | (nd_talk_chance(m->talk, FOR_BITS, m->start) & 31));
    nd_pen_bytes(pen, id, ID);
    nd_message_noise(pen);
}

/*
 * RFC 9000 section 17.2.1: a version negotiation, for readers of a connection
 * look for 16 bytes to sample in anything else. It has a connection id of any
 * length, and one version if there is room.
 */
static void
put_negotiation(struct nd_pen *pen)
{
    size_t version = nd_pen_room(pen) >= NEGOTIATION + 4 ? 4 : 0;
    size_t id = nd_pen_room(pen) - NEGOTIATION - version;
    nd_pen_u8(pen, 0x80);
    nd_pen_u32(pen, 0);
    nd_pen_u8(pen, (unsigned)id);
    nd_pen_noise(pen, id);
    nd_pen_u8(pen, 0);
    nd_pen_u32(pen, 1);
}

/*
 * A client sends its first packet again until it is answered; the server
 * answers once, if that packet could be one.
 */
static bool
is_initial(const struct nd_message *m)
{
    if (m->direction == 0)
        return m->heard == 0 && m->number < TRIES && m->length >= LEAST;
    return m->number == 0 && m->heard > 0 && m->asked_length >= LEAST &&
           m->length >= LONG + ACK + CRYPTO + SERVER_HELLO + TAG;
}

bool
nd_payload_quic(const struct nd_message *m, struct nd_pen *pen)
{
    uint8_t packet[MOST] = {0};
    struct keys keys;
    bool server = m->direction != 0;
    size_t n = m->length <= MOST ? m->length : LEAST;
    if (m->length >= NEGOTIATION && m->length < SHORTEST) {
        put_negotiation(pen);
        return false;
    }
    if (!is_initial(m)) {
        put_short(m, pen);
        return m->length >= SHORTEST && m->number > 0;
    }
    put_header(m->talk, server, (uint8_t)m->number, n, packet);
    bool fits = put_frames(m->talk, server, packet + LONG, n - LONG - TAG);
    find_keys(m->talk, server, &keys);
    protect(&keys, packet, n);
    nd_pen_bytes(pen, packet, n);
    if (nd_pen_room(pen) > 0)
        put_short(m, pen);
    return fits;
}
