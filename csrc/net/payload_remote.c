#include "payload_tls.h"

/* Files, desktops and databases: SMB2, RDP, PostgreSQL, MySQL. */

/* ---- SMB2 over TCP, MS-SMB2 -------------------------------------------- */

enum {
    SMB_HEADER = 64, TRANSFORM = 52, CONTEXT = 14, SESSION = 4,
    REQUEST = SMB_HEADER + 40, RESPONSE = SMB_HEADER + 64,
    FAILURE = SESSION + SMB_HEADER + 8, OLD = SESSION + 32 + 3 + 3
};

/* Section 2.2.1.2; command 0 is NEGOTIATE. */
static void
put_smb_header(struct nd_pen *pen, bool server, uint32_t status)
{
    nd_pen_text(pen, "\xfeSMB");
    nd_pen_le16(pen, SMB_HEADER);
    nd_pen_le16(pen, 0);
    nd_pen_le32(pen, status);
    nd_pen_le16(pen, 0);
    nd_pen_le16(pen, 1); /* credit */
    nd_pen_le32(pen, server);
    nd_pen_repeat(pen, 0, 4 + 8 + 4 + 4 + 8 + 16);
}

/* Section 2.2.3.1: one context, whose salt takes what is over. */
static void
put_context(struct nd_pen *pen)
{
    size_t salt = nd_pen_room(pen) - CONTEXT;
    nd_pen_le16(pen, 1);
    nd_pen_le16(pen, salt + 6);
    nd_pen_le32(pen, 0);
    nd_pen_le16(pen, 1);
    nd_pen_le16(pen, salt);
    nd_pen_le16(pen, 1); /* SHA-512 */
    nd_pen_noise(pen, salt);
}

static void
put_negotiate(struct nd_pen *pen, bool server)
{
    put_smb_header(pen, server, 0);
    nd_pen_le16(pen, server ? 65 : 36);
    nd_pen_le16(pen, 1);
    nd_pen_le16(pen, server ? 0x0311 : 1);
    nd_pen_le16(pen, server ? 1 : 0);
    if (server) {
        nd_pen_noise(pen, 16);
        nd_pen_le32(pen, 0x7f);
        nd_pen_repeat(pen, 0, 4);
        nd_pen_le32(pen, 1 << 20);
        nd_pen_le32(pen, 1 << 20);
        nd_pen_repeat(pen, 0, 16);
        nd_pen_le16(pen, RESPONSE);
        nd_pen_le16(pen, 0);
        nd_pen_le32(pen, RESPONSE);
    } else {
        nd_pen_le32(pen, 0x7f);
        nd_pen_noise(pen, 16);
        nd_pen_le32(pen, REQUEST);
        nd_pen_le32(pen, 1);
        nd_pen_le16(pen, 0x0311);
        nd_pen_le16(pen, 0);
    }
    put_context(pen);
}

/* Section 2.2.41: the rest is encrypted. */
static void
put_transform(struct nd_pen *pen)
{
    size_t n = nd_pen_room(pen) - TRANSFORM;
    nd_pen_text(pen, "\xfdSMB");
    nd_pen_noise(pen, 16 + 11);
    nd_pen_repeat(pen, 0, 5);
    nd_pen_le32(pen, n);
    nd_pen_le16(pen, 0);
    nd_pen_le16(pen, 1);
    nd_pen_le32(pen, 0x4001);
    nd_pen_le32(pen, 0x400);
    nd_message_noise(pen);
}

/* Section 2.2.2: an error, whose data takes what is over. */
static bool
put_failure(struct nd_pen *pen)
{
    size_t data = nd_pen_room(pen) - FAILURE;
    nd_pen_u8(pen, 0);
    nd_pen_u24(pen, nd_pen_room(pen) - 3);
    put_smb_header(pen, true, 0xc00000bb); /* not supported */
    nd_pen_le16(pen, 9);
    nd_pen_le16(pen, 0);
    nd_pen_le32(pen, data);
    nd_pen_noise(pen, nd_pen_room(pen));
    return true;
}

/* MS-SMB2 section 3.2.4.2.2.1: a request of the older protocol. */
static bool
put_old(struct nd_pen *pen)
{
    nd_pen_u8(pen, 0);
    nd_pen_u24(pen, nd_pen_room(pen) - 3);
    nd_pen_text(pen, "\xffSMBr");
    nd_pen_repeat(pen, 0, 27 + 1);
    nd_pen_le16(pen, nd_pen_room(pen) - 2);
    nd_pen_u8(pen, 2);
    nd_pen_letters(pen, nd_pen_room(pen) - 1);
    nd_pen_u8(pen, 0);
    return true;
}

bool
nd_payload_smb(const struct nd_message *m, struct nd_pen *pen)
{
    bool server = m->direction != 0;
    bool first = m->number == 0 && !m->talk->middle;
    size_t n = m->length, least = SESSION + CONTEXT +
                                  (server ? RESPONSE : REQUEST);
    if (first && n < least && n >= (server ? FAILURE : OLD))
        return server ? put_failure(pen) : put_old(pen);
    if (n < SESSION + TRANSFORM || (first && n < least)) {
        nd_pen_u32(pen, 0x85000000); /* keep-alive, RFC 1002 section 4.3.7 */
        if (n > SESSION)
            nd_pen_u32(pen, 0x0000ffff);
        return n == SESSION && !first;
    }
    nd_pen_u8(pen, 0);
    nd_pen_u24(pen, n - SESSION);
    if (first)
        put_negotiate(pen, server);
    else
        put_transform(pen);
    return true;
}

/* ---- RDP, MS-RDPBCGR section 2.2.1 ------------------------------------- */

enum { CONNECTION = 19, TPKT = 4 };

/* The connection request and its confirmation; then TLS. */
static bool
put_connection(const struct nd_message *m, struct nd_pen *pen)
{
    static const char cookie[] = "Cookie: mstshash=";
    bool server = m->direction != 0;
    size_t n = m->length, over = n - CONNECTION;
    bool named = !server && over > sizeof cookie + 1;
    if (n < CONNECTION || n > 254 + 4 || (over > 0 && !named)) {
        return nd_payload_tls(m, pen) && false;
    }
    nd_pen_u16(pen, 0x0300);
    nd_pen_u16(pen, n);
    nd_pen_u8(pen, (unsigned)(n - TPKT - 1));
    nd_pen_u8(pen, server ? 0xd0 : 0xe0);
    nd_pen_u32(pen, server ? 0x1234 : 0);
    nd_pen_u8(pen, 0);
    if (named) {
        nd_pen_text(pen, cookie);
        nd_pen_letters(pen, over - (sizeof cookie + 1));
        nd_pen_text(pen, "\r\n");
    }
    nd_pen_u32(pen, server ? 0x02000800 : 0x01000800);
    nd_pen_u32(pen, 0x01000000); /* TLS */
    return true;
}

bool
nd_payload_rdp(const struct nd_message *m, struct nd_pen *pen)
{
    struct nd_message later = *m;
    if (m->number == 0 && !m->talk->middle)
        return put_connection(m, pen);
    later.number -= !m->talk->middle;
    return nd_payload_tls(&later, pen);
}

/* ---- PostgreSQL, "Message Formats" ------------------------------------- */

enum { POSTGRES_HEAD = 5, ROW = 11, READY = 6, AUTHENTICATED = 9 };

static void
put_typed(struct nd_pen *pen, char type, size_t n)
{
    nd_pen_u8(pen, (unsigned)type);
    nd_pen_u32(pen, n - 1);
}

static bool
put_startup(struct nd_pen *pen, size_t n)
{
    if (n == 8) {
        nd_pen_u32(pen, 8);
        nd_pen_u32(pen, 80877103); /* SSLRequest */
        return true;
    }
    if (n < 15) {
        nd_pen_u32(pen, 0x7fff);
        return false;
    }
    nd_pen_u32(pen, n);
    nd_pen_u32(pen, 0x00030000);
    nd_pen_bytes(pen, "user", 5);
    nd_pen_letters(pen, n - 15);
    nd_pen_u16(pen, 0);
    return true;
}

static void
put_row(struct nd_pen *pen, size_t n)
{
    put_typed(pen, 'D', n);
    nd_pen_u16(pen, 1);
    nd_pen_u32(pen, n - ROW);
    nd_pen_letters(pen, n - ROW);
}

static bool
put_postgres_answer(struct nd_pen *pen, size_t n, bool first)
{
    if (n == 1) {
        nd_pen_u8(pen, 'N');
        return true;
    }
    if (first && n >= AUTHENTICATED) { /* GSSAPI goes on, or all is well */
        put_typed(pen, 'R', n);
        nd_pen_u32(pen, n == AUTHENTICATED ? 0 : 8);
        nd_pen_noise(pen, n - AUTHENTICATED);
        return true;
    }
    if (n >= ROW + READY) {
        put_row(pen, n - READY);
    } else if (n > POSTGRES_HEAD) {
        put_typed(pen, 'C', n);
        nd_pen_letters(pen, n - POSTGRES_HEAD - 1);
        nd_pen_u8(pen, 0);
        return n >= 8;
    } else if (n == POSTGRES_HEAD) {
        put_typed(pen, 'I', n); /* of an empty query */
        return true;
    } else {
        put_typed(pen, 'd', 0x7fff);
        return false;
    }
    put_typed(pen, 'Z', READY);
    nd_pen_u8(pen, 'I');
    return true;
}

bool
nd_payload_postgresql(const struct nd_message *m, struct nd_pen *pen)
{
    bool ssl = m->asked_length == 8 || m->asked_length == 1;
    bool first = m->number == 0 || (m->number == 1 && ssl && m->heard < 3);
    if (m->direction == 1)
        return put_postgres_answer(pen, m->length,
                                   first && !m->talk->middle);
    if (first && !m->talk->middle)
        return put_startup(pen, m->length);
    if (m->length < POSTGRES_HEAD + 1) {
        put_typed(pen, 'S', m->length == 5 ? 5 : 0x7fff); /* Sync */
        return m->length == 5;
    }
    put_typed(pen, 'Q', m->length);
    nd_pen_letters(pen, m->length - POSTGRES_HEAD - 1);
    nd_pen_u8(pen, 0);
    return true;
}

/* ---- MySQL, client/server protocol ------------------------------------- */

enum {
    MYSQL_HEAD = 4, GREETING = 1 + 1 + 4 + 9 + 2 + 1 + 2 + 2 + 1 + 10 + 13,
    LOGIN = 4 + 4 + 1 + 23 + 1 + 1, SECRET = 20, OK = 7
};

static void
put_greeting(struct nd_pen *pen, size_t n)
{
    size_t version = n - GREETING;
    nd_pen_u8(pen, 10);
    nd_pen_bytes(pen, "5.7.44-", version < 7 ? version : 7);
    nd_pen_letters(pen, version < 7 ? 0 : version - 7);
    nd_pen_u8(pen, 0);
    nd_pen_le32(pen, 8);
    nd_pen_letters(pen, 8);
    nd_pen_u8(pen, 0);
    nd_pen_le16(pen, 0xa200);
    nd_pen_u8(pen, 33);
    nd_pen_le16(pen, 2);
    nd_pen_le16(pen, 0);
    nd_pen_u8(pen, 0);
    nd_pen_repeat(pen, 0, 10);
    nd_pen_letters(pen, 12);
    nd_pen_u8(pen, 0);
}

static void
put_login(struct nd_pen *pen, size_t n)
{
    size_t secret = n >= LOGIN + SECRET ? SECRET : 0;
    nd_pen_le32(pen, 0xa200);
    nd_pen_le32(pen, 1 << 24);
    nd_pen_u8(pen, 33);
    nd_pen_repeat(pen, 0, 23);
    nd_pen_letters(pen, n - LOGIN - secret);
    nd_pen_u8(pen, 0);
    nd_pen_u8(pen, (unsigned)secret);
    nd_pen_noise(pen, secret);
}

/* Readers know no other question whose answer is OK without more. */
static bool
answers_login(const struct nd_message *m)
{
    return !m->talk->middle && m->asked == 0 && m->heard == 1 &&
           m->asked_length >= MYSQL_HEAD + LOGIN;
}

bool
nd_payload_mysql(const struct nd_message *m, struct nd_pen *pen)
{
    bool server = m->direction != 0;
    bool first = m->number == 0 && !m->talk->middle;
    size_t n = m->length - MYSQL_HEAD;
    if (m->heard != (server ? 0 : 1) ||
        (!server && m->asked_length < MYSQL_HEAD + GREETING))
        first = false; /* to whom should it log in? */
    if (m->length <= MYSQL_HEAD || n > 0xffffff || (server && n < 4) ||
        (!server && first && n < LOGIN)) {
        nd_pen_repeat(pen, 0xff, 3);
        return false;
    }
    nd_pen_u24(pen, (n & 255) << 16 | (n & 0xff00) | n >> 16);
    nd_pen_u8(pen, server ? !first : first);
    if (first && n >= (server ? GREETING : LOGIN)) {
        if (server)
            put_greeting(pen, n);
        else
            put_login(pen, n);
        return true;
    }
    if (server && n == OK && m->number == 1 && answers_login(m)) {
        nd_pen_repeat(pen, 0, OK);
    } else if (server) {
        nd_pen_u8(pen, 0xff);
        nd_pen_le16(pen, 1064);
        if (n > 9)
            nd_pen_text(pen, "#42000");
    } else {
        nd_pen_u8(pen, n == 1 ? 14 : 3); /* ping, query */
    }
    nd_pen_letters(pen, nd_pen_room(pen));
    return m->number > 0 || m->talk->middle;
}
