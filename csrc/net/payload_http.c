#include "payload_message.h"

/*
 * RFC 9112: a request for each turn of the client, a response for each of
 * the server. What the fixed lines leave goes to a cookie, or to a body.
 */

enum { BODY_LEAST = 600, DIGITS = 24 };

/* Decimal digits of a number; returns how many. */
static size_t
decimal(size_t value, char digits[DIGITS])
{
    char turned[DIGITS];
    size_t n = 0;
    do
        turned[n++] = (char)('0' + value % 10);
    while ((value /= 10) > 0);
    for (size_t i = 0; i < n; i++)
        digits[i] = turned[n - 1 - i];
    return n;
}

/* A header field of exactly n bytes, if that is enough. */
static void
put_field(struct nd_pen *pen, const char *name, size_t n)
{
    size_t fixed = strlen(name) + 2;
    if (n <= fixed)
        return;
    nd_pen_text(pen, name);
    nd_pen_letters(pen, n - fixed);
    nd_pen_text(pen, "\r\n");
}

/*
 * The end of a header, of all that is left: an empty line, or a field and an
 * empty line, or Content-Length, an empty line and a body.
 */
static bool
put_end(struct nd_pen *pen, const char *field, bool body)
{
    static const char length[] = "Content-Length: ";
    size_t left = nd_pen_room(pen), fixed = sizeof length - 1 + 4;
    char digits[DIGITS];
    if (body && left > fixed) {
        size_t n = decimal(left - fixed, digits);
        n = decimal(left - fixed - n, digits);
        size_t content = left - fixed - n;
        if (decimal(content, digits) == n) {
            nd_pen_bytes(pen, length, sizeof length - 1);
            nd_pen_bytes(pen, digits, n);
            nd_pen_text(pen, "\r\n\r\n");
            nd_pen_lines(pen, content);
            return true;
        }
        return put_end(pen, field, false);
    }
    bool fits = left == 2 || left > strlen(field) + 4;
    if (left > 2)
        put_field(pen, field, left - 2);
    nd_pen_text(pen, "\r\n");
    return fits;
}

static bool
put_request(const struct nd_message *m, struct nd_pen *pen)
{
    static const char agent[] = "User-Agent: Mozilla/5.0 (X11; Linux x86_64)"
                                "\r\nAccept: */*\r\n";
    const struct nd_talk *talk = m->talk;
    size_t least = 16 + 8 + talk->host_bytes + 2;
    bool post = m->length > BODY_LEAST + 1400;
    if (m->length < least) {
        static const char bare[] = "GET / HTTP/1.0\r\n\r\n";
        if (m->length < sizeof bare - 1)
            return false;
        nd_pen_text(pen, "GET /");
        nd_pen_letters(pen, m->length - (sizeof bare - 1));
        nd_pen_text(pen, bare + 5);
        return false; /* no room for the host */
    }
    nd_pen_text(pen, post ? "POST / HTTP/1.1\r\n" : "GET /");
    if (!post) {
        size_t over = m->length - least;
        nd_pen_letters(pen, over < 24 ? over : 8);
        nd_pen_text(pen, " HTTP/1.1\r\n");
    }
    nd_pen_text(pen, "Host: ");
    nd_pen_bytes(pen, talk->host, talk->host_bytes);
    nd_pen_text(pen, "\r\n");
    if (nd_pen_room(pen) > sizeof agent - 1 + 32)
        nd_pen_bytes(pen, agent, sizeof agent - 1);
    return put_end(pen, "Cookie: ", post);
}

static bool
put_response(const struct nd_message *m, struct nd_pen *pen)
{
    static const char fixed[] = "HTTP/1.1 200 OK\r\nServer: nginx\r\n"
                                "Content-Type: text/plain\r\n";
    static const char least[] = "HTTP/1.1 200 \r\n\r\n";
    if (m->length > sizeof fixed - 1 + 24) {
        nd_pen_bytes(pen, fixed, sizeof fixed - 1);
        return put_end(pen, "X-Id: ", true);
    }
    if (m->length < sizeof least - 1)
        return false;
    nd_pen_text(pen, "HTTP/1.1 200 ");
    nd_pen_letters(pen, m->length - (sizeof least - 1));
    nd_pen_text(pen, "\r\n\r\n");
    return true;
}

bool
nd_payload_http(const struct nd_message *m, struct nd_pen *pen)
{
    bool fits = true;
    if (m->talk->middle && m->number == 0)
        nd_pen_lines(pen, m->length);
    else
        fits = m->direction == 0 ? put_request(m, pen) : put_response(m, pen);
    nd_pen_lines(pen, nd_pen_room(pen));
    return fits;
}
