#include "payload_message.h"

/*
 * Messages of ASN.1 in BER (X.690): SNMP (RFC 3416), LDAP (RFC 4511) and
 * Kerberos (RFC 4120). A template names its elements; one octet or character
 * string of it is stretched so that the message has its length.
 */

enum kind { IS_END, IS_OPEN, IS_CLOSE, IS_LEAF, IS_NUMBER, IS_STRETCH };

struct item {
    uint8_t kind, tag, n;
    const char *bytes;
};

#define OPEN(tag) {IS_OPEN, tag, 0, NULL}
#define CLOSE {IS_CLOSE, 0, 0, NULL}
#define LEAF(tag, text) {IS_LEAF, tag, sizeof text - 1, text}
#define NUMBER {IS_NUMBER, 2, 4, NULL} /* that of the request */
#define ID {IS_NUMBER, 2, 1, NULL}
#define STRETCH(tag) {IS_STRETCH, tag, 0, NULL}
#define DONE {IS_END, 0, 0, NULL}

static const struct item snmp[2][16] = {
    {OPEN(0x30), LEAF(2, "\1"), LEAF(4, "public"), OPEN(0xa0), NUMBER,
     LEAF(2, "\0"), LEAF(2, "\0"), OPEN(0x30), OPEN(0x30),
     LEAF(6, "\x2b\6\1\2\1\1\1\0"), STRETCH(4), CLOSE, CLOSE, CLOSE, CLOSE,
     DONE},
    {OPEN(0x30), LEAF(2, "\1"), LEAF(4, "public"), OPEN(0xa2), NUMBER,
     LEAF(2, "\0"), LEAF(2, "\0"), OPEN(0x30), OPEN(0x30),
     LEAF(6, "\x2b\6\1\2\1\1\1\0"), STRETCH(4), CLOSE, CLOSE, CLOSE, CLOSE,
     DONE},
};
/* with a shorter number and name, for what is shorter */
static const struct item snmp_short[2][16] = {
    {OPEN(0x30), LEAF(2, "\1"), LEAF(4, "public"), OPEN(0xa0), ID,
     LEAF(2, "\0"), LEAF(2, "\0"), OPEN(0x30), OPEN(0x30), LEAF(6, "\x2b\6"),
     STRETCH(4), CLOSE, CLOSE, CLOSE, CLOSE, DONE},
    {OPEN(0x30), LEAF(2, "\1"), LEAF(4, "public"), OPEN(0xa2), ID,
     LEAF(2, "\0"), LEAF(2, "\0"), OPEN(0x30), OPEN(0x30), LEAF(6, "\x2b\6"),
     STRETCH(4), CLOSE, CLOSE, CLOSE, CLOSE, DONE},
};

static const struct item bind_request[] = {
    OPEN(0x30), ID, OPEN(0x60), LEAF(2, "\3"), STRETCH(4), LEAF(0x80, ""),
    CLOSE, CLOSE, DONE};
static const struct item bind_response[] = {
    OPEN(0x30), ID, OPEN(0x61), LEAF(10, "\0"), LEAF(4, ""), STRETCH(4),
    CLOSE, CLOSE, DONE};
static const struct item search_request[] = {
    OPEN(0x30), ID, OPEN(0x63), STRETCH(4), LEAF(10, "\2"),
    LEAF(10, "\0"), LEAF(2, "\0"), LEAF(2, "\0"), LEAF(1, "\0"),
    LEAF(0x87, "objectClass"), LEAF(0x30, ""), CLOSE, CLOSE, DONE};
static const struct item search_entry[] = {
    OPEN(0x30), ID, OPEN(0x64), STRETCH(4), LEAF(0x30, ""), CLOSE, CLOSE,
    DONE};
static const struct item search_done[] = {
    OPEN(0x30), ID, OPEN(0x65), LEAF(10, "\0"), LEAF(4, ""), STRETCH(4),
    CLOSE, CLOSE, DONE};

static const struct item as_request[] = {
    OPEN(0x6a), OPEN(0x30), OPEN(0xa1), LEAF(2, "\5"), CLOSE,
    OPEN(0xa2), LEAF(2, "\x0a"), CLOSE,
    OPEN(0xa3), OPEN(0x30), OPEN(0x30), OPEN(0xa1), LEAF(2, "\2"), CLOSE,
    OPEN(0xa2), OPEN(4), OPEN(0x30), OPEN(0xa0), LEAF(2, "\x12"), CLOSE,
    OPEN(0xa2), STRETCH(4), CLOSE, CLOSE, CLOSE, CLOSE, CLOSE, CLOSE, CLOSE,
    OPEN(0xa4), OPEN(0x30), OPEN(0xa0), LEAF(3, "\0\x40\x81\0\x10"), CLOSE,
    OPEN(0xa1), OPEN(0x30), OPEN(0xa0), LEAF(2, "\1"), CLOSE,
    OPEN(0xa1), OPEN(0x30), LEAF(0x1b, "user"), CLOSE, CLOSE, CLOSE, CLOSE,
    OPEN(0xa2), LEAF(0x1b, "EXAMPLE.COM"), CLOSE,
    OPEN(0xa5), LEAF(0x18, "20370913024805Z"), CLOSE, OPEN(0xa7), NUMBER,
    CLOSE, OPEN(0xa8), OPEN(0x30), LEAF(2, "\x12"), CLOSE, CLOSE, CLOSE,
    CLOSE, CLOSE, CLOSE, DONE};
static const struct item krb_error[] = {
    OPEN(0x7e), OPEN(0x30), OPEN(0xa0), LEAF(2, "\5"), CLOSE,
    OPEN(0xa1), LEAF(2, "\x1e"), CLOSE,
    OPEN(0xa4), LEAF(0x18, "20240101000000Z"), CLOSE,
    OPEN(0xa5), LEAF(2, "\1"), CLOSE, OPEN(0xa6), LEAF(2, "\x3c"), CLOSE,
    OPEN(0xa9), LEAF(0x1b, "EXAMPLE.COM"), CLOSE,
    OPEN(0xaa), OPEN(0x30), OPEN(0xa0), LEAF(2, "\2"), CLOSE,
    OPEN(0xa1), OPEN(0x30), LEAF(0x1b, "krbtgt"), CLOSE, CLOSE, CLOSE, CLOSE,
    OPEN(0xab), STRETCH(0x1b), CLOSE, CLOSE, CLOSE, DONE};

enum { FOR_NUMBER = 96, SHORT = 127, MIDDLE = 255 };

static size_t size_of(const struct item *item, size_t form, size_t stretch);

/* Bytes of a length in the form that all elements of a message share. LDAP
 * takes the longest where it fits, as Windows does. */
static size_t
form_of(const struct item *items, size_t length)
{
    bool ldap = items[1].kind == IS_NUMBER && items[1].n == 1;
    if (ldap && length >= size_of(items, 5, 0))
        return 5;
    return length <= SHORT + 2 ? 1 : length <= MIDDLE + 3 ? 2
           : length <= 65535 ? 3 : 5;
}

static void
put_length(struct nd_pen *pen, size_t n, size_t form)
{
    if (form == 2)
        nd_pen_u8(pen, 0x81);
    else if (form > 2)
        nd_pen_u8(pen, (unsigned)(0x80 + form - 1));
    for (size_t i = form == 1 ? 1 : form - 1; i > 0; i--)
        nd_pen_u8(pen, (uint8_t)(n >> 8 * (i - 1)));
}

/* Bytes of the items up to the one that closes them. */
static size_t
size_of(const struct item *item, size_t form, size_t stretch)
{
    size_t n = 0;
    int depth = 0;
    for (; item->kind != IS_END && depth >= 0; item++) {
        if (item->kind == IS_CLOSE)
            depth--;
        else if (item->kind == IS_OPEN)
            depth++;
        if (item->kind == IS_LEAF || item->kind == IS_NUMBER)
            n += 2u + item->n;
        else if (item->kind != IS_CLOSE)
            n += 1 + form + (item->kind == IS_STRETCH ? stretch : 0);
    }
    return n;
}

static bool
fits(const struct item *items, size_t length)
{
    return length >= size_of(items, form_of(items, length), 0);
}

static void
put_items(struct nd_pen *pen, const struct item *item, size_t length,
          uint32_t number)
{
    size_t form = form_of(item, length);
    size_t stretch = length - size_of(item, form, 0);
    for (; item->kind != IS_END; item++) {
        if (item->kind == IS_CLOSE)
            continue;
        nd_pen_u8(pen, item->tag);
        if (item->kind == IS_OPEN)
            put_length(pen, size_of(item + 1, form, stretch), form);
        else if (item->kind == IS_STRETCH)
            put_length(pen, stretch, form);
        else
            nd_pen_u8(pen, item->n);
        if (item->kind == IS_STRETCH)
            nd_pen_letters(pen, stretch);
        else if (item->kind == IS_NUMBER && item->n == 1)
            nd_pen_u8(pen, 1 + number % 127);
        else if (item->kind == IS_NUMBER)
            nd_pen_u32(pen, number);
        else if (item->kind == IS_LEAF)
            nd_pen_bytes(pen, item->bytes, item->n);
    }
}

/* What a request and its answer share; positive, four bytes. */
static uint32_t
number_of(const struct nd_message *m)
{
    uint32_t number = m->direction && m->heard > 0 ? m->asked : m->number;
    uint32_t start = nd_talk_chance(m->talk, FOR_NUMBER, 0) & 0x3fffff;
    return 0x01000000 + ((start + number) & 0xffffff);
}

/* Of a stream, the beginning of a message that does not end in the flow. */
static bool
put_begun(const struct nd_message *m, struct nd_pen *pen)
{
    static const uint8_t begun[] = {0x30, 0x84, 0x7f, 0xff, 0xff, 0xff};
    if (m->talk->protocol == 6)
        nd_pen_bytes(pen, begun, sizeof begun);
    return false;
}

bool
nd_payload_snmp(const struct nd_message *m, struct nd_pen *pen)
{
    const struct item *items = snmp[m->direction];
    if (!fits(items, m->length))
        items = snmp_short[m->direction];
    if (!fits(items, m->length))
        return put_begun(m, pen);
    put_items(pen, items, m->length, number_of(m));
    return true;
}

bool
nd_payload_ldap(const struct nd_message *m, struct nd_pen *pen)
{
    bool first = m->number == 0 && m->talk->protocol == 6 &&
                 !m->talk->middle;
    const struct item *items =
        m->direction == 0 ? (first ? bind_request : search_request)
        : first           ? bind_response
        : m->length >= 64 ? search_entry
                          : search_done;
    if (m->length == 7 && m->direction == 0) {
        nd_pen_bytes(pen, "\x30\5\2\1\x7f\x42\0", 7); /* unbind */
        return true;
    }
    if (!fits(items, m->length))
        return put_begun(m, pen);
    put_items(pen, items, m->length, number_of(m));
    return true;
}

bool
nd_payload_kerberos(const struct nd_message *m, struct nd_pen *pen)
{
    const struct item *items = m->direction == 0 ? as_request : krb_error;
    size_t prefix = m->talk->protocol == 6 ? 4 : 0; /* section 7.2.2 */
    size_t length = m->length - prefix;
    if (m->length < prefix || !fits(items, length)) {
        nd_pen_u32(pen, 0x007fffff);
        return false;
    }
    if (prefix > 0)
        nd_pen_u32(pen, length);
    put_items(pen, items, length, number_of(m));
    return true;
}
