#include "payload_tls.h"

/* RFC 8446 (TLS 1.3), RFC 5246 (TLS 1.2), RFC 6066 section 3 (SNI). */

enum { CHANGE_CIPHER = 20, ALERT = 21, HANDSHAKE = 22, DATA = 23 };
enum { CLIENT_HELLO = 1, SERVER_HELLO = 2 };
enum { RECORD = 5, SESSION_ID = 32, MOST_DATA = 16384 + 17 };

/* Extensions, IANA "TLS ExtensionType Values". */
enum {
    SERVER_NAME = 0, GROUPS = 10, SIGNATURES = 13, ALPN = 16, PADDING = 21,
    VERSIONS = 43, PSK_MODES = 45, KEY_SHARE = 51, QUIC_PARAMETERS = 57
};

enum { FOR_RANDOM = 16, FOR_KEY };

static const uint8_t modern[] = {
    0, GROUPS, 0, 6, 0, 4, 0, 0x1d, 0, 0x17,
    0, SIGNATURES, 0, 10, 0, 8, 4, 3, 8, 4, 4, 1, 8, 6,
    0, VERSIONS, 0, 3, 2, 3, 4,
    0, PSK_MODES, 0, 2, 1, 1,
    0, KEY_SHARE, 0, 38, 0, 36, 0, 0x1d, 0, 32, /* a key follows */
};
static const uint8_t web[] = {0, ALPN, 0, 14, 0, 12, 2, 'h', '2',
                              8, 'h', 't', 't', 'p', '/', '1', '.', '1'};
static const uint8_t h3[] = {0, ALPN, 0, 5, 0, 3, 2, 'h', '3'};
/* RFC 9000 section 18.2: idle timeout, flow control of data and streams */
static const uint8_t transport[] = {
    0, QUIC_PARAMETERS, 0, 24, 1, 4, 0x80, 0, 0x75, 0x30,
    4, 4, 0x80, 0x10, 0, 0, 5, 4, 0x80, 8, 0, 0, 8, 2, 0x40, 100,
    15, 0,
};

static void
put_chance(struct nd_pen *pen, const struct nd_talk *talk, unsigned purpose,
           size_t n)
{
    for (size_t i = 0; i < n; i += 8) {
        uint64_t word = nd_talk_chance(talk, purpose, i);
        nd_pen_bytes(pen, &word, n - i < 8 ? n - i : 8);
    }
}

/* Bytes of a ClientHello without session id and padding. */
static size_t
client_bytes(const struct nd_talk *talk, bool name, bool new, bool quic)
{
    size_t n = 4 + 2 + 32 + 1 + 2 + 2 + 2 + 2;
    if (name)
        n += 9 + talk->host_bytes;
    if (new)
        n += 4 + sizeof modern + 32 + (quic ? 0 : sizeof web);
    return quic ? n + sizeof h3 + sizeof transport : n;
}

size_t
nd_tls_client_least(const struct nd_talk *talk)
{
    return client_bytes(talk, true, false, false);
}

static void
put_name(const struct nd_talk *talk, struct nd_pen *pen)
{
    size_t n = talk->host_bytes;
    nd_pen_u16(pen, SERVER_NAME);
    nd_pen_u16(pen, n + 5);
    nd_pen_u16(pen, n + 3);
    nd_pen_u8(pen, 0);
    nd_pen_u16(pen, n);
    nd_pen_bytes(pen, talk->host, n);
}

static void
put_extensions(const struct nd_talk *talk, struct nd_pen *pen, size_t end,
               const bool has[3])
{
    nd_pen_u16(pen, end - pen->at - 2);
    if (has[0])
        put_name(talk, pen);
    if (has[1]) {
        nd_pen_bytes(pen, modern, sizeof modern);
        put_chance(pen, talk, FOR_KEY, 32);
        if (!has[2])
            nd_pen_bytes(pen, web, sizeof web);
    }
    if (has[2]) {
        nd_pen_bytes(pen, h3, sizeof h3);
        nd_pen_bytes(pen, transport, sizeof transport);
    }
    if (pen->at < end) { /* RFC 7685 */
        size_t padding = end - pen->at - 4;
        nd_pen_u16(pen, PADDING);
        nd_pen_u16(pen, padding);
        nd_pen_repeat(pen, 0, padding);
    }
}

/*
 * What is over goes to the session id, up to its 32 bytes, and the rest to
 * padding; that takes 4 bytes at least.
 */
static size_t
session_bytes(size_t over)
{
    if (over <= SESSION_ID)
        return over;
    return over - SESSION_ID >= 4 ? SESSION_ID : over - 4;
}

bool
nd_tls_client_hello(const struct nd_talk *talk, struct nd_pen *pen,
                    size_t length, bool quic)
{
    bool new = quic || length >= client_bytes(talk, true, true, false);
    bool name = length >= client_bytes(talk, true, new, quic);
    size_t least = client_bytes(talk, name, new, quic);
    const bool has[3] = {name, new, quic};
    if (length < least || length > 65535)
        return false;
    size_t end = pen->at + length;
    size_t session = quic ? 0 : session_bytes(length - least);
    if (quic && length > least && length - least < 4)
        return false;
    nd_pen_u8(pen, CLIENT_HELLO);
    nd_pen_u24(pen, length - 4);
    nd_pen_u16(pen, 0x0303);
    put_chance(pen, talk, FOR_RANDOM, 32);
    nd_pen_u8(pen, (unsigned)session);
    put_chance(pen, talk, FOR_RANDOM + 2, session);
    nd_pen_u16(pen, 2);
    nd_pen_u16(pen, new ? 0x1301 : 0xc02f);
    nd_pen_u16(pen, 0x0100); /* no compression */
    put_extensions(talk, pen, end, has);
    return name;
}

bool
nd_tls_server_hello(const struct nd_talk *talk, struct nd_pen *pen,
                    size_t length)
{
    static const uint8_t new[] = {0, VERSIONS, 0, 2, 3, 4,
                                  0, KEY_SHARE, 0, 36, 0, 0x1d, 0, 32};
    enum { FIXED = 4 + 2 + 32 + 1 + 2 + 1, NEW = FIXED + 2 + 46 };
    if (length < FIXED || length > NEW + SESSION_ID ||
        (length < NEW && length > FIXED + SESSION_ID))
        return false;
    size_t session = length - (length < NEW ? FIXED : NEW);
    nd_pen_u8(pen, SERVER_HELLO);
    nd_pen_u24(pen, length - 4);
    nd_pen_u16(pen, 0x0303);
    put_chance(pen, talk, FOR_RANDOM + 4, 32);
    nd_pen_u8(pen, (unsigned)session);
    put_chance(pen, talk, FOR_RANDOM + 2, session);
    nd_pen_u16(pen, length < NEW ? 0xc02f : 0x1301);
    nd_pen_u8(pen, 0);
    if (length < NEW)
        return true;
    nd_pen_u16(pen, 46);
    nd_pen_bytes(pen, new, sizeof new);
    put_chance(pen, talk, FOR_KEY + 1, 32);
    return true;
}

/* ---- records ---------------------------------------------------------- */

static void
put_record(struct nd_pen *pen, uint8_t type, size_t n)
{
    nd_pen_u8(pen, type);
    nd_pen_u16(pen, 0x0303);
    nd_pen_u16(pen, n);
}

/* n bytes of encrypted records; too few for one are an empty attempt. */
static bool
put_data(struct nd_pen *pen, size_t n)
{
    enum { WHOLE = RECORD + MOST_DATA };
    if (n > 2 * WHOLE)
        n -= nd_pen_jump(pen, n - 2 * WHOLE, WHOLE);
    while (n > RECORD && pen->at < pen->to) {
        size_t some = n < WHOLE ? n : WHOLE;
        if (n > WHOLE && n - WHOLE <= RECORD)
            some -= RECORD + 1;
        put_record(pen, DATA, some - RECORD);
        nd_pen_noise(pen, some - RECORD);
        n -= some;
    }
    if (pen->at >= pen->to)
        return true;
    /* the beginning of a record of which no more is seen */
    static const uint8_t begun[RECORD] = {DATA, 3, 3, 0x40, 0};
    nd_pen_bytes(pen, begun, n < RECORD ? n : RECORD);
    return n == 0;
}

static void
put_change(struct nd_pen *pen)
{
    put_record(pen, CHANGE_CIPHER, 1);
    nd_pen_u8(pen, 1);
}

/* RFC 5246 section 7.2: a fatal handshake_failure. */
static bool
put_alert(struct nd_pen *pen)
{
    put_record(pen, ALERT, 2);
    nd_pen_u16(pen, 0x0228);
    return true;
}

/* The first write is the hello, as far as it can be one. */
static bool
client_begins(const struct nd_message *m, struct nd_pen *pen)
{
    size_t least = RECORD + nd_tls_client_least(m->talk);
    size_t n = m->first < least ? m->length : m->first;
    if (m->length - n > 0 && m->length - n <= RECORD)
        n = m->length;
    if (n > RECORD + 16384)
        n = 512;
    if (n < RECORD + client_bytes(m->talk, false, false, false))
        return n == 7 ? put_alert(pen) : put_data(pen, n) && false;
    put_record(pen, HANDSHAKE, n - RECORD);
    bool named = nd_tls_client_hello(m->talk, pen, n - RECORD, false);
    return put_data(pen, m->length - n) && named;
}

/*
 * ServerHello, ChangeCipherSpec, and the encrypted rest of the handshake
 * (certificate and all). What is too short for TLS 1.3 resumes a session of
 * TLS 1.2.
 */
static bool
server_begins(const struct nd_message *m, struct nd_pen *pen)
{
    enum { OLD = 42, NEW = 42 + 48, CCS = RECORD + 1, LEAST = RECORD + 1 };
    size_t room = m->length;
    if (room < RECORD + OLD)
        return room == 7 ? put_alert(pen) : put_data(pen, room) && false;
    size_t over = room - RECORD - OLD, hello = OLD;
    if (room >= RECORD + NEW + SESSION_ID + CCS + LEAST)
        hello = NEW + SESSION_ID;
    else if (over <= SESSION_ID)
        hello += over;
    else
        hello += over - CCS - LEAST < SESSION_ID ? over - CCS - LEAST
                                                 : SESSION_ID;
    if (hello > OLD + RECORD && hello < OLD + over &&
        m->first > RECORD + hello && m->first < 2 * RECORD + hello)
        hello -= 2 * RECORD + hello - m->first; /* no record's head is cut */
    put_record(pen, HANDSHAKE, hello);
    nd_tls_server_hello(m->talk, pen, hello);
    if (nd_pen_room(pen) < CCS + LEAST)
        return nd_pen_room(pen) == 0;
    put_change(pen);
    return put_data(pen, nd_pen_room(pen));
}

bool
nd_payload_tls(const struct nd_message *m, struct nd_pen *pen)
{
    bool server = m->direction != 0;
    if (!m->talk->middle && m->number == 0)
        return server ? server_begins(m, pen) : client_begins(m, pen);
    if (!m->talk->middle && m->number == 1 && !server &&
        m->length >= 3 * (RECORD + 1))
        put_change(pen);
    return put_data(pen, nd_pen_room(pen));
}
