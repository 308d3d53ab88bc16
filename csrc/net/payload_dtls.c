#include "payload_message.h"

/*
 * RFC 6347: a ClientHello or HelloVerifyRequest or ServerHello, then records
 * that look encrypted. What a hello leaves goes to the session id, or to the
 * cookie, or to padding (RFC 7685).
 */

enum { HANDSHAKE = 22, DATA = 23 };
enum { CLIENT_HELLO = 1, SERVER_HELLO = 2, VERIFY = 3 };
enum {
    RECORD = 13, FRAGMENT = 12, MOST = 16384, SESSION_ID = 32,
    HELLO = RECORD + FRAGMENT + 2 + 32 + 1, /* as far as the session id */
    CLIENT_LEAST = HELLO + 1 + 4 + 2, SERVER_LEAST = HELLO + 2 + 1,
    VERIFY_LEAST = RECORD + FRAGMENT + 2 + 1, COOKIE = 32, PADDING = 2 + 4
};

static void
put_record(struct nd_pen *pen, unsigned type, unsigned epoch, size_t number,
           size_t n)
{
    nd_pen_u8(pen, type);
    nd_pen_u16(pen, 0xfefd);
    nd_pen_u16(pen, epoch);
    nd_pen_u16(pen, 0);
    nd_pen_u32(pen, number);
    nd_pen_u16(pen, n - RECORD);
}

/* The header of a record of n bytes that holds one whole message. */
static void
put_handshake(struct nd_pen *pen, unsigned type, size_t number, size_t n)
{
    size_t body = n - RECORD - FRAGMENT;
    put_record(pen, HANDSHAKE, 0, number, n);
    nd_pen_u8(pen, type);
    nd_pen_u24(pen, body);
    nd_pen_u16(pen, number);
    nd_pen_u24(pen, 0);
    nd_pen_u24(pen, body);
    nd_pen_u16(pen, 0xfefd);
}

static void
put_client(const struct nd_message *m, struct nd_pen *pen)
{
    size_t over = m->length - CLIENT_LEAST, session = over;
    if (over > SESSION_ID)
        session = over - SESSION_ID >= PADDING ? SESSION_ID : over - PADDING;
    over -= session;
    put_handshake(pen, CLIENT_HELLO, m->number, m->length);
    nd_pen_noise(pen, 32);
    nd_pen_u8(pen, (unsigned)session);
    nd_pen_noise(pen, session);
    nd_pen_u8(pen, 0); /* no cookie */
    nd_pen_u32(pen, 0x0002c02b);
    nd_pen_u16(pen, 0x0100);
    if (over == 0)
        return;
    nd_pen_u16(pen, over - 2);
    nd_pen_u16(pen, 21);
    nd_pen_u16(pen, over - PADDING);
    nd_pen_repeat(pen, 0, over - PADDING);
}

static void
put_data(const struct nd_message *m, struct nd_pen *pen)
{
    size_t number = m->number;
    while (nd_pen_room(pen) > RECORD && pen->at < pen->to) {
        size_t n = nd_pen_room(pen);
        n = n > MOST ? MOST : n;
        put_record(pen, DATA, 1, number++, n);
        nd_pen_noise(pen, n - RECORD);
    }
}

static void
put_server(const struct nd_message *m, struct nd_pen *pen)
{
    size_t over = m->length - SERVER_LEAST;
    size_t session = over > SESSION_ID ? SESSION_ID : over;
    put_handshake(pen, SERVER_HELLO, m->number, SERVER_LEAST + session);
    nd_pen_noise(pen, 32);
    nd_pen_u8(pen, (unsigned)session);
    nd_pen_noise(pen, session);
    nd_pen_u16(pen, 0xc02b);
    nd_pen_u8(pen, 0);
    put_data(m, pen);
}

bool
nd_payload_dtls(const struct nd_message *m, struct nd_pen *pen)
{
    size_t n = m->length;
    bool server = m->direction != 0;
    if (m->number == 0 && !server && n >= CLIENT_LEAST && n <= MOST) {
        put_client(m, pen);
    } else if (m->number == 0 && server && n >= VERIFY_LEAST &&
               n <= VERIFY_LEAST + COOKIE) {
        put_handshake(pen, VERIFY, 0, n);
        nd_pen_u8(pen, (unsigned)(n - VERIFY_LEAST));
        nd_pen_noise(pen, n - VERIFY_LEAST);
    } else if (m->number <= 1 && server &&
               ((n >= SERVER_LEAST && n <= SERVER_LEAST + SESSION_ID) ||
                n > SERVER_LEAST + SESSION_ID + RECORD)) {
        put_server(m, pen);
    } else {
        put_data(m, pen);
        return n > RECORD && (m->number > 0 || server);
    }
    return true;
}
