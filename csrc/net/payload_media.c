#include "payload_message.h"

/* What carries speech and pictures, and what opens ways for it. */

enum { FOR_SOURCE = 80, FOR_START, FOR_TRANSACTION, FOR_USER };

/* ---- RTP and RTCP, RFC 3550 ------------------------------------------- */

enum { RTP_HEADER = 12, RTCP_HEADER = 8, PCMU = 0, STEP = 160 };
enum { SENDER_REPORT = 200, RECEIVER_REPORT = 201, APP = 204 };
enum { SENDER_BYTES = 28 };

static size_t
source_of(const struct nd_message *m)
{
    return nd_talk_chance(m->talk, FOR_SOURCE, m->direction) & 0xffffffff;
}

/* Section 5.1: sequence by packet, 20 ms of speech at 8 kHz in each. */
bool
nd_payload_rtp(const struct nd_message *m, struct nd_pen *pen)
{
    uint64_t start = nd_talk_chance(m->talk, FOR_START, m->direction);
    if (m->length < RTP_HEADER) {
        nd_message_noise(pen);
        return false;
    }
    nd_pen_u8(pen, 0x80);
    nd_pen_u8(pen, PCMU);
    nd_pen_u16(pen, (start + m->number) & 0xffff);
    nd_pen_u32(pen, (start >> 16) + (uint64_t)STEP * m->number);
    nd_pen_u32(pen, source_of(m));
    nd_message_noise(pen);
    return true;
}

/* Section 6.7: what an application likes, in words of 32 bits. */
static void
put_app(const struct nd_message *m, struct nd_pen *pen, size_t n)
{
    nd_pen_u8(pen, 0x80);
    nd_pen_u8(pen, APP);
    nd_pen_u16(pen, n / 4 - 1);
    nd_pen_u32(pen, source_of(m));
    nd_pen_text(pen, "DATA");
    nd_pen_noise(pen, n - 12);
}

/* Section 6: a compound packet, which begins with a report. */
bool
nd_payload_rtcp(const struct nd_message *m, struct nd_pen *pen)
{
    size_t length = m->length & ~(size_t)3;
    bool sender = length == SENDER_BYTES || length >= SENDER_BYTES + 12;
    size_t report = sender ? SENDER_BYTES : RTCP_HEADER;
    size_t rest = length - report;
    if (length < RTCP_HEADER || (rest > 0 && rest < 12) ||
        length != m->length) {
        if (length < RTCP_HEADER || length != m->length)
            return nd_payload_rtp(m, pen) && false;
    }
    nd_pen_u8(pen, 0x80);
    nd_pen_u8(pen, sender ? SENDER_REPORT : RECEIVER_REPORT);
    nd_pen_u16(pen, rest > 0 && rest < 12 ? length / 4 - 1 : report / 4 - 1);
    nd_pen_u32(pen, source_of(m));
    if (sender) {
        nd_pen_u64(pen, UINT64_C(0xe93c7f0000000000) +
                            ((uint64_t)m->number << 34));
        nd_pen_u32(pen, (size_t)STEP * 250 * m->number);
        nd_pen_u32(pen, (size_t)250 * m->number);
        nd_pen_u32(pen, (size_t)STEP * 250 * m->number);
    }
    if (rest >= 12)
        put_app(m, pen, rest);
    return rest == 0 || rest >= 12;
}

/* ---- STUN and TURN, RFC 8489, RFC 8656 -------------------------------- */

enum { STUN_HEADER = 20, MAPPED = 12, SOFTWARE_MOST = 128 };
enum { BINDING = 1, SUCCESS = 0x101, DATA_SENT = 0x16 };

static void
put_attribute(struct nd_pen *pen, unsigned type, size_t n)
{
    nd_pen_u16(pen, type);
    nd_pen_u16(pen, n);
    if (type == 0x8022)
        nd_pen_letters(pen, n);
    else
        nd_pen_noise(pen, n);
}

/* Section 14.2 of RFC 8489: the client's address, XORed with the cookie. */
static void
put_mapped(const struct nd_talk *talk, struct nd_pen *pen)
{
    static const uint8_t cookie[] = {0x21, 0x12, 0xa4, 0x42};
    nd_pen_u32(pen, 0x00200008);
    nd_pen_u16(pen, 1);
    nd_pen_u16(pen, talk->ends.port[0] ^ 0x2112u);
    for (int i = 0; i < 4; i++)
        nd_pen_u8(pen, talk->ends.address[0][i] ^ cookie[i]);
}

static void
put_stun(const struct nd_message *m, struct nd_pen *pen, bool answer)
{
    size_t left = m->length - STUN_HEADER;
    bool mapped = answer && left >= MAPPED;
    bool data = left > SOFTWARE_MOST;
    uint64_t number = answer ? m->asked : m->number;
    uint64_t which = answer ? !m->direction : m->direction;
    if (answer && m->unasked)
        number += UINT32_MAX;
    nd_pen_u16(pen, data ? DATA_SENT : answer ? SUCCESS : BINDING);
    nd_pen_u16(pen, left);
    nd_pen_u32(pen, 0x2112a442);
    nd_pen_u64(pen, nd_talk_chance(m->talk, FOR_TRANSACTION, number));
    nd_pen_u32(pen, (size_t)(m->talk->key + which) & 0xffffffff);
    if (mapped && !data) {
        put_mapped(m->talk, pen);
        left -= MAPPED;
    }
    if (left >= 4)
        put_attribute(pen, data ? 0x0013 : 0x8022, left - 4);
}

/* Requests of both ends are answered; what is no multiple of four bytes is
 * data of a channel. */
bool
nd_payload_stun(const struct nd_message *m, struct nd_pen *pen)
{
    bool answer = m->direction == 1 && m->heard > 0;
    if (m->length >= STUN_HEADER && m->length % 4 == 0) {
        put_stun(m, pen, answer);
        return true;
    }
    if (m->length < 4) {
        nd_message_noise(pen);
        return false;
    }
    nd_pen_u16(pen, 0x4000);
    nd_pen_u16(pen, m->length - 4);
    return nd_payload_rtp(m, pen) && m->length >= 4 + RTP_HEADER;
}
