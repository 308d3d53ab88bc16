#include "payload_message.h"

/*
 * RFC 1035 section 4: queries and answers with the same id and question, of
 * any length. A name is stretched by a label before it; what is over then
 * goes to the padding option of RFC 7830.
 */

enum { HEADER = 12, QUESTION = 4, RECORD_A = 16, OPT = 11, OPTION = 4 };
enum { TYPE_A = 1, TYPE_PTR = 12, TYPE_OPT = 41, CLASS_IN = 1 };
enum { LABEL = 63, TCP = 6 };
enum { FOR_ID = 32, FOR_ADDRESS };

/* A question of a message: its name and how many bytes that takes. */
struct name {
    const char *host; /* NULL: none of the labels of the server's name */
    size_t host_bytes;
    size_t before; /* letters in a label before it, 0 for none */
    size_t bytes;
};

/* The name in a query of some length, the same for its answer. */
static struct name
name_for(const struct nd_talk *talk, size_t length)
{
    size_t room = length - HEADER - QUESTION;
    size_t host = talk->host_bytes + 2;
    if (room == host || room > host + 1 + LABEL)
        return (struct name){talk->host, host - 2, 0, host};
    if (room >= host + 2)
        return (struct name){talk->host, host - 2, room - host - 1, room};
    if (room > 2 + LABEL)
        return (struct name){"com", 3, LABEL, LABEL + 6};
    if (room >= 8)
        return (struct name){"com", 3, room - 6, room};
    if (room >= 3)
        return (struct name){NULL, 0, room - 2, room};
    return (struct name){NULL, 0, 0, 1};
}

static void
put_labels(struct nd_pen *pen, const char *host, size_t n)
{
    while (n > 0) {
        const char *dot = memchr(host, '.', n);
        size_t label = dot == NULL ? n : (size_t)(dot - host);
        label = label > LABEL ? LABEL : label;
        nd_pen_u8(pen, (unsigned)label);
        nd_pen_bytes(pen, host, label);
        n -= label;
        host += label;
        if (n > 0 && *host == '.') {
            n--;
            host++;
        }
    }
}

static void
put_question(struct nd_pen *pen, const struct name *name, unsigned type)
{
    if (name->before > 0) {
        nd_pen_u8(pen, (unsigned)name->before);
        nd_pen_letters(pen, name->before);
    }
    if (name->host != NULL)
        put_labels(pen, name->host, name->host_bytes);
    nd_pen_u8(pen, 0);
    nd_pen_u16(pen, type);
    nd_pen_u16(pen, CLASS_IN);
}

/* RFC 6891 section 6.1.2, RFC 7830 section 3; n is 11, or 15 and more. */
static void
put_opt(struct nd_pen *pen, size_t n)
{
    nd_pen_u8(pen, 0);
    nd_pen_u16(pen, TYPE_OPT);
    nd_pen_u16(pen, 1232);
    nd_pen_u32(pen, 0);
    nd_pen_u16(pen, n - OPT);
    if (n < OPT + OPTION)
        return;
    nd_pen_u16(pen, 12); /* padding */
    nd_pen_u16(pen, n - OPT - OPTION);
    nd_pen_repeat(pen, 0, n - OPT - OPTION);
}

static bool
opt_can_be(size_t n)
{
    return n == 0 || n == OPT || n >= OPT + OPTION;
}

static void
put_address(struct nd_pen *pen, const struct nd_talk *talk, size_t i)
{
    nd_pen_u16(pen, 0xc000 | HEADER); /* the name of the question */
    nd_pen_u16(pen, TYPE_A);
    nd_pen_u16(pen, CLASS_IN);
    nd_pen_u32(pen, 60 + nd_talk_chance(talk, FOR_ADDRESS, i) % 3600);
    nd_pen_u16(pen, 4);
    nd_pen_u32(pen, 0xc6120000 | /* RFC 2544 */
                        (nd_talk_chance(talk, FOR_ADDRESS, i + 64) & 0xffff));
}

static void
put_header(struct nd_pen *pen, unsigned id, unsigned flags, size_t questions,
           size_t answers, size_t more)
{
    nd_pen_u16(pen, id);
    nd_pen_u16(pen, flags);
    nd_pen_u16(pen, questions);
    nd_pen_u16(pen, answers);
    nd_pen_u16(pen, 0);
    nd_pen_u16(pen, more);
}

static unsigned
answer_flags(enum nd_service service)
{
    return service == ND_SERVICE_DNS ? 0x8180
           : service == ND_SERVICE_MDNS ? 0x8400 : 0x8000;
}

/* A message of a question alone; false where a byte is left over. */
static bool
put_query(const struct nd_talk *talk, struct nd_pen *pen, unsigned id,
          unsigned flags, size_t length)
{
    if (length <= HEADER + QUESTION) {
        put_header(pen, id, flags, 0, 0, 0);
        return false;
    }
    struct name name = name_for(talk, length);
    size_t over = length - HEADER - QUESTION - name.bytes;
    bool fits = opt_can_be(over);
    put_header(pen, id, flags, 1, 0, fits && over > 0);
    put_question(pen, &name, TYPE_A);
    if (fits && over > 0)
        put_opt(pen, over);
    return fits;
}

/* The question of a query of `asked` bytes, and as many addresses as fit;
 * where it does not fit, a question of its own. */
static bool
put_answer(const struct nd_talk *talk, struct nd_pen *pen, unsigned id,
           size_t asked, size_t length)
{
    enum { MOST = 8 };
    struct name name = name_for(talk, asked);
    size_t before = HEADER + QUESTION + name.bytes;
    size_t over = length - before, n = over / RECORD_A;
    unsigned flags = answer_flags(talk->service);
    if (n > MOST)
        n = MOST;
    if (n > 0 && !opt_can_be(over - n * RECORD_A))
        n--;
    over -= n * RECORD_A;
    if (length < before || !opt_can_be(over))
        return put_query(talk, pen, id, flags, length) && false;
    if (n == 0 && talk->service == ND_SERVICE_DNS)
        flags |= 3; /* no such name */
    put_header(pen, id, flags, 1, n, over > 0);
    put_question(pen, &name, TYPE_A);
    for (size_t i = 0; i < n; i++)
        put_address(pen, talk, i);
    if (over > 0)
        put_opt(pen, over);
    return true;
}

bool
nd_payload_dns(const struct nd_message *m, struct nd_pen *pen)
{
    const struct nd_talk *talk = m->talk;
    size_t prefix = talk->protocol == TCP ? 2 : 0; /* section 4.2.2 */
    bool answer = m->direction != 0;
    bool known = answer && m->asked_length > prefix + HEADER + QUESTION;
    size_t length = m->length, asked = known ? m->asked_length - prefix : 0;
    bool own = answer && (!known || m->unasked);
    uint64_t number = own ? m->number + 0x8000u
                      : answer ? m->asked : m->number;
    unsigned id = (nd_talk_chance(talk, FOR_ID, 0) + number) & 0xffff;
    if (length < prefix + HEADER) {
        nd_pen_u16(pen, 0x7fff);
        return false;
    }
    length -= prefix;
    if (length > 65535)
        length = 65535;
    if (prefix > 0)
        nd_pen_u16(pen, length);
    if (known)
        return put_answer(talk, pen, id, asked, length);
    unsigned flags = answer ? answer_flags(talk->service)
                     : talk->service == ND_SERVICE_DNS ? 0x0100 : 0;
    return put_query(talk, pen, id, flags, length);
}
