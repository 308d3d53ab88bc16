#include "payload_message.h"

/* Messages of fixed fields: NTP, DHCP, MQTT, Modbus, RADIUS, NetBIOS. */

enum { FOR_TIME = 112, FOR_TRANSACTION, FOR_ID };

/* ---- NTP, RFC 5905 section 7.3, RFC 9327 ------------------------------- */

enum { NTP = 48, NTP_MAC = 20, NTP_CONTROL = 12, NTP_FIELD = 16 };

static void
put_time(struct nd_pen *pen, const struct nd_talk *talk, uint64_t number,
         unsigned part)
{
    nd_pen_u32(pen, 0xe93c7f00u + (size_t)number * 64 + part);
    nd_pen_u32(pen, nd_talk_chance(talk, FOR_TIME, number * 4 + part) &
                        0xffffffff);
}

static bool
put_control(const struct nd_message *m, struct nd_pen *pen)
{
    size_t data = m->length - NTP_CONTROL;
    nd_pen_u8(pen, 0x16);
    nd_pen_u8(pen, m->direction ? 0x82 : 2); /* read variables */
    nd_pen_u16(pen, m->direction ? m->asked + 1 : m->number + 1);
    nd_pen_u32(pen, 0);
    nd_pen_u16(pen, 0);
    nd_pen_u16(pen, data);
    nd_pen_text(pen, data > 8 ? "version=" : "");
    nd_pen_letters(pen, data > 8 ? data - 8 : data);
    return true;
}

bool
nd_payload_ntp(const struct nd_message *m, struct nd_pen *pen)
{
    size_t over = m->length - NTP;
    bool server = m->direction != 0;
    bool field = over >= NTP_FIELD && over % 4 == 0;
    if (m->length < NTP_CONTROL) {
        nd_pen_u8(pen, 0x17); /* private */
        return false;
    }
    if (m->length < NTP || (over > 0 && over != NTP_MAC && !field))
        return put_control(m, pen);
    nd_pen_u8(pen, server ? 0x24 : 0x23);
    nd_pen_u8(pen, server ? 2 : 0);
    nd_pen_u16(pen, 0x06ec); /* poll, precision */
    nd_pen_u32(pen, server ? 0x0155 : 0);
    nd_pen_u32(pen, server ? 0x0222 : 0);
    nd_pen_u32(pen, server ? 0xc6120001 : 0);
    if (server)
        put_time(pen, m->talk, m->asked, 0);
    else
        nd_pen_u64(pen, 0);
    if (server)
        put_time(pen, m->talk, m->asked, 3); /* what the request sent */
    else
        nd_pen_u64(pen, 0);
    if (server)
        put_time(pen, m->talk, m->asked, 1);
    else
        nd_pen_u64(pen, 0);
    put_time(pen, m->talk, server ? m->asked : m->number, server ? 2 : 3);
    if (over == NTP_MAC) {
        nd_pen_u32(pen, 1);
        nd_pen_noise(pen, over - 4);
    } else if (over > 0) { /* RFC 7822: of no known type */
        nd_pen_u16(pen, 0x4f00);
        nd_pen_u16(pen, over);
    }
    return true;
}

/* ---- DHCP, RFC 2131 section 2, RFC 2132 -------------------------------- */

enum { OPTIONS = 240, TYPE = 4, ADDRESS_OPTIONS = 18, NAMES = 7 };

bool
nd_payload_dhcp(const struct nd_message *m, struct nd_pen *pen)
{
    static const uint8_t cookie[] = {0x63, 0x82, 0x53, 0x63};
    static const uint8_t wants[] = {55, 5, 1, 3, 6, 15, 28};
    bool client = m->direction == 0;
    uint32_t number = client ? m->number : m->asked;
    uint64_t hardware = nd_talk_chance(m->talk, FOR_ID, 0);
    size_t left;
    nd_pen_u32(pen, client ? 0x01010600 : 0x02010600);
    nd_pen_u32(pen, (nd_talk_chance(m->talk, FOR_TRANSACTION, 0) +
                     number / 2) & 0xffffffff);
    nd_pen_u32(pen, 0);
    nd_pen_u32(pen, 0);
    nd_pen_u32(pen, client ? 0 : 0xc0000264);
    nd_pen_u32(pen, client ? 0 : 0xc0000201);
    nd_pen_u32(pen, 0);
    nd_pen_u8(pen, 2);
    nd_pen_bytes(pen, &hardware, 5);
    nd_pen_repeat(pen, 0, OPTIONS - 4 - 34);
    nd_pen_bytes(pen, cookie, sizeof cookie);
    if (m->length < OPTIONS + TYPE) {
        nd_pen_u8(pen, 255);
        return false;
    }
    nd_pen_u16(pen, 0x3501);
    nd_pen_u8(pen, client ? 1 + (number & 1) * 2 : 2 + (number & 1) * 3);
    left = nd_pen_room(pen) - 1;
    if (client && left >= NAMES) {
        nd_pen_bytes(pen, wants, sizeof wants);
    } else if (!client && left >= ADDRESS_OPTIONS) {
        nd_pen_u16(pen, 0x3604); /* server, lease, mask */
        nd_pen_u32(pen, 0xc0000201);
        nd_pen_u16(pen, 0x3304);
        nd_pen_u32(pen, 86400);
        nd_pen_u16(pen, 0x0104);
        nd_pen_u32(pen, 0xffffff00);
    }
    nd_pen_u8(pen, 255);
    return true;
}

/* ---- MQTT 3.1.1 -------------------------------------------------------- */

enum { CONNECT = 0x10, CONNACK = 0x20, PUBLISH = 0x30, PUBACK = 0x40,
       SUBACK = 0x90, PING = 0xc0, PONG = 0xd0 };

/* Section 2.2.3: type and remaining length of a packet of n bytes; false
 * where no number of length bytes makes n. */
static bool
put_fixed(struct nd_pen *pen, unsigned type, size_t n)
{
    size_t digits = n <= 129 ? 1 : n <= 16386 ? 2 : n <= 2097155 ? 3 : 4;
    size_t rest = n - 1 - digits;
    if (digits > 1 && rest >> 7 * (digits - 1) == 0)
        return false;
    nd_pen_u8(pen, type);
    for (size_t i = 0; i < digits; i++)
        nd_pen_u8(pen, (unsigned)(rest >> 7 * i & 127) |
                           (i + 1 < digits ? 128u : 0));
    return true;
}

static void
put_publish(struct nd_pen *pen, size_t n, bool server)
{
    if (!put_fixed(pen, PUBLISH, n)) {
        nd_pen_u16(pen, (size_t)(server ? PONG : PING) << 8);
        put_fixed(pen, PUBLISH, n - 2);
    }
    if (nd_pen_room(pen) > 9) {
        nd_pen_u16(pen, 7);
        nd_pen_text(pen, "sensors");
    } else {
        nd_pen_u16(pen, 1);
        nd_pen_u8(pen, 't');
    }
    nd_pen_letters(pen, nd_pen_room(pen));
}

static bool
put_connect(struct nd_pen *pen, size_t n)
{
    if (n < 14 || !put_fixed(pen, CONNECT, n))
        return false;
    nd_pen_u16(pen, 4);
    nd_pen_text(pen, "MQTT");
    nd_pen_u32(pen, 0x0402003c); /* level, clean session, 60 s */
    size_t id = nd_pen_room(pen) - 2;
    nd_pen_u16(pen, id);
    nd_pen_letters(pen, id);
    return true;
}

bool
nd_payload_mqtt(const struct nd_message *m, struct nd_pen *pen)
{
    bool server = m->direction != 0, first = m->number == 0;
    if (first && !server && !m->talk->middle && put_connect(pen, m->length))
        return true;
    if (m->length == 4) {
        bool hello = first && server && !m->talk->middle;
        nd_pen_u16(pen, hello ? 0x2002 : 0x4002);
        nd_pen_u16(pen, hello ? 0 : m->number + 1);
    } else if (m->length == 5 && server) {
        nd_pen_u16(pen, 0x9003);
        nd_pen_u16(pen, m->number + 1);
        nd_pen_u8(pen, 0);
    } else if (m->length == 2) {
        nd_pen_u16(pen, server ? 0xd000 : 0xc000);
    } else if (m->length >= 5) {
        put_publish(pen, m->length, server);
    } else {
        nd_pen_u8(pen, server ? PONG : PING);
        nd_pen_u16(pen, 0x8000); /* no bytes follow */
        return m->length == 3;
    }
    return !first || server || m->talk->middle;
}

/* ---- Modbus/TCP -------------------------------------------------------- */

enum { MBAP = 7, READ = 12, USER = 65, WRITE_LEAST = 13, READ_ANSWER = 9 };

bool
nd_payload_modbus(const struct nd_message *m, struct nd_pen *pen)
{
    bool server = m->direction != 0;
    uint32_t number = server ? m->asked : m->number;
    size_t n = m->length, data;
    nd_pen_u16(pen, (number + 1) & 0xffff);
    nd_pen_u16(pen, 0);
    nd_pen_u16(pen, n > 6 ? n - 6 : 2);
    nd_pen_u8(pen, 1);
    if (n <= MBAP)
        return false;
    data = n - (server ? READ_ANSWER : WRITE_LEAST);
    if (!server && n == READ) {
        nd_pen_u8(pen, 3);
        nd_pen_u32(pen, 10);
    } else if (server && n > READ_ANSWER && data <= 250 && data % 2 == 0) {
        nd_pen_u8(pen, 3);
        nd_pen_u8(pen, (unsigned)data);
        nd_pen_noise(pen, data);
    } else if (!server && n > WRITE_LEAST && data <= 246 && data % 2 == 0) {
        nd_pen_u8(pen, 16);
        nd_pen_u16(pen, 0);
        nd_pen_u16(pen, data / 2);
        nd_pen_u8(pen, (unsigned)data);
        nd_pen_noise(pen, data);
    } else {
        nd_pen_u8(pen, USER); /* of user-defined functions */
        nd_message_noise(pen);
        return n <= 260;
    }
    return true;
}

/* ---- RADIUS, RFC 2865 section 3 ---------------------------------------- */

enum { RADIUS = 20, ATTRIBUTE_MOST = 255, STATE = 24 };

bool
nd_payload_radius(const struct nd_message *m, struct nd_pen *pen)
{
    bool server = m->direction != 0;
    bool accounting = m->talk->ends.port[1] == 1813;
    size_t n = m->length < 4096 ? m->length : 4096, left;
    if (m->length < RADIUS)
        return false;
    if (n - RADIUS < 3)
        n = RADIUS; /* what is over is padding */
    nd_pen_u8(pen, accounting ? 4u + server : 1u + server);
    nd_pen_u8(pen, (server ? m->asked : m->number) & 255);
    nd_pen_u16(pen, n);
    nd_pen_noise(pen, 16);
    for (left = n - RADIUS; left >= 3;) {
        size_t some = left < ATTRIBUTE_MOST ? left : ATTRIBUTE_MOST;
        if (left - some > 0 && left - some < 3)
            some -= 3;
        nd_pen_u8(pen, left == n - RADIUS && !server ? 1 : STATE);
        nd_pen_u8(pen, (unsigned)some);
        nd_pen_letters(pen, some - 2);
        left -= some;
    }
    return left == 0 && m->length <= 4096;
}

/* ---- NetBIOS names, RFC 1002 section 4.2 ------------------------------- */

enum { NAME = 34, NAME_QUERY = 12 + NAME + 4, NAME_RECORD = 12 };

bool
nd_payload_netbios(const struct nd_message *m, struct nd_pen *pen)
{
    bool answer = m->direction != 0;
    bool known = answer && m->heard > 0 && !m->unasked;
    uint64_t start = nd_talk_chance(m->talk, FOR_ID, 1);
    size_t n = m->length, over;
    unsigned id = (start + (known ? m->asked
                            : m->number + (answer ? 0x8000u : 0))) & 0xffff;
    size_t fixed = answer ? 12 + NAME + 10 : NAME_QUERY;
    over = n - fixed;
    size_t addresses = answer ? over : over - NAME_RECORD;
    bool whole = n >= fixed && ((!answer && over == 0) ||
                                (n >= fixed + (answer ? 0 : NAME_RECORD) &&
                                 addresses > 0 && addresses % 6 == 0));
    nd_pen_u16(pen, id);
    nd_pen_u16(pen, answer ? 0x8500 : over > 0 ? 0x2910 : 0x0110);
    nd_pen_u16(pen, whole && !answer);
    nd_pen_u16(pen, whole && answer);
    nd_pen_u16(pen, 0);
    nd_pen_u16(pen, whole && !answer && over > 0);
    if (!whole)
        return false;
    nd_pen_u8(pen, 32);
    nd_pen_text(pen, "EIEPFDFECACACACACACACACACACACACA"); /* HOST */
    nd_pen_u8(pen, 0);
    nd_pen_u32(pen, 0x00200001);
    if (!answer && over > 0) { /* a registration tells its address */
        nd_pen_u16(pen, 0xc00c);
        nd_pen_u32(pen, 0x00200001);
    }
    if (over > 0 || answer) {
        nd_pen_u32(pen, 300);
        nd_pen_u16(pen, addresses);
        for (size_t i = 0; i < addresses; i += 6) {
            nd_pen_u16(pen, 0);
            nd_pen_u32(pen, 0xc0000201);
        }
    }
    return true;
}
