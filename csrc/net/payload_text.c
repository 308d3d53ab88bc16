#include "payload_message.h"

/*
 * Services that speak in lines. A step of a conversation has some texts; the
 * first that fits is said, with letters (or lines of them) in its gap so that
 * it fills its length.
 */

enum { LETTERS, LINES };

struct text {
    const char *before, *after; /* of the gap; before NULL: no text */
    int gap;
};

struct step {
    uint8_t service, direction, number; /* of the message: this and later */
    struct text texts[4];
};

static const char END[] = "\r\n";

#define S(id) ND_SERVICE_##id
static const struct step steps[] = {
    /* RFC 5321 */
    {S(SMTP), 0, 0, {{"EHLO client.", END, 0}, {"HELO ", END, 0}}},
    {S(SMTP), 0, 1, {{"MAIL FROM:<", "@example.com>\r\n", 0},
                     {"RSET", END, 0}}},
    {S(SMTP), 0, 2, {{"RCPT TO:<", "@example.com>\r\n", 0},
                     {"NOOP", END, 0}}},
    {S(SMTP), 0, 3, {{"From: <a@example.com>\r\nSubject: ", "\r\n.\r\n", 1},
                     {"RCPT TO:<", "@example.com>\r\n", 0},
                     {"DATA", END, 0}}},
    {S(SMTP), 0, 4, {{"From: <a@example.com>\r\nSubject: ", "\r\n.\r\n", 1},
                     {"RCPT TO:<", "@example.com>\r\n", 0},
                     {"QUIT", END, 0}}},
    {S(SMTP), 1, 0, {{"220 mail.example.com ESMTP ", END, 0},
                     {"220 ", END, 0}}},
    {S(SMTP), 1, 1, {{"250-mail.example.com\r\n250-AUTH ",
                      "\r\n250 8BITMIME\r\n", 0},
                     {"250 ", END, 0}}},
    {S(SMTP), 1, 3, {{"354 End data with <CR><LF>.<CR><LF>", END, 0},
                     {"250 ", END, 0}}},
    {S(SMTP), 1, 4, {{"250 2.0.0 Ok: queued as ", END, 0},
                     {"250 ", END, 0}}},
    /* RFC 959 */
    {S(FTP), 0, 0, {{"USER ", END, 0}}},
    {S(FTP), 0, 1, {{"PASS ", END, 0}, {"PWD", END, 0}}},
    {S(FTP), 0, 2, {{"RETR ", END, 0}, {"SYST", END, 0}, {"PWD", END, 0}}},
    {S(FTP), 1, 0, {{"220 FTP server ready, ", END, 0}, {"220 ", END, 0}}},
    {S(FTP), 1, 1, {{"331 Password required for ", END, 0},
                    {"331 ", END, 0}}},
    {S(FTP), 1, 2, {{"230 User logged in, ", END, 0}, {"230 ", END, 0}}},
    {S(FTP), 1, 3, {{"226 Transfer complete, ", END, 0},
                    {"200 ", END, 0}}},
    /* RFC 1939 */
    {S(POP3), 0, 0, {{"USER ", END, 0}, {"CAPA", END, 0}}},
    {S(POP3), 0, 1, {{"PASS ", END, 0}, {"STAT", END, 0}}},
    {S(POP3), 0, 2, {{"UIDL ", END, 0}, {"STAT", END, 0}}},
    {S(POP3), 1, 0, {{"+OK POP3 server ready <", "@example.com>\r\n", 0},
                     {"+OK", END, 0}}},
    {S(POP3), 1, 1, {{"+OK 1 message\r\nSubject: mail\r\n\r\n", ".\r\n", 1},
                     {"+OK ", END, 0}, {"+OK", END, 0}}},
    /* RFC 9051 */
    {S(IMAP), 0, 0, {{"a1 LOGIN user ", END, 0}, {"a1 NOOP", END, 0}}},
    {S(IMAP), 0, 1, {{"a2 SELECT ", END, 0}, {"a2 NOOP", END, 0}}},
    {S(IMAP), 0, 2, {{"a3 FETCH 1 BODY[HEADER.FIELDS (", ")]\r\n", 0},
                     {"a3 NOOP", END, 0}}},
    {S(IMAP), 1, 0, {{"* OK IMAP4rev1 server ready, ", END, 0},
                     {"* OK", END, 0}}},
    {S(IMAP), 1, 1, {{"a1 OK LOGIN completed, ", END, 0},
                     {"a1 OK ", END, 0}}},
    {S(IMAP), 1, 2, {{"* 1 EXISTS\r\n* OK ", "\r\na2 OK done\r\n", 0},
                     {"a2 OK ", END, 0}}},
    /* RFC 3261 */
    {S(SIP), 0, 0, {{"INVITE sip:bob@example.com SIP/2.0\r\n"
                     "Via: SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bK1\r\n"
                     "Max-Forwards: 70\r\n"
                     "From: <sip:alice@example.com>;tag=1\r\n"
                     "To: <sip:bob@example.com>\r\n"
                     "Call-ID: 1@example.com\r\nCSeq: 1 INVITE\r\n"
                     "Contact: <sip:alice@10.0.0.1>\r\n"
                     "Content-Length: 0\r\nUser-Agent: ", "\r\n\r\n", 0},
                    {"OPTIONS sip:bob@example.com SIP/2.0\r\n"
                     "Via: SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bK1\r\n"
                     "From: <sip:a@example.com>;tag=1\r\n"
                     "To: <sip:b@example.com>\r\nCall-ID: ",
                     "\r\nCSeq: 1 OPTIONS\r\n\r\n", 0},
                    {"OPTIONS sip:", " SIP/2.0\r\nCSeq: 1 OPTIONS\r\n\r\n", 0},
                    {"", END, 0}}},
    {S(SIP), 1, 0, {{"SIP/2.0 200 OK\r\n"
                     "Via: SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bK1\r\n"
                     "From: <sip:alice@example.com>;tag=1\r\n"
                     "To: <sip:bob@example.com>;tag=2\r\n"
                     "Call-ID: 1@example.com\r\nCSeq: 1 INVITE\r\n"
                     "Content-Length: 0\r\nServer: ", "\r\n\r\n", 0},
                    {"SIP/2.0 200 OK\r\nCSeq: 1 INVITE\r\nCall-ID: ",
                     "\r\n\r\n", 0},
                    {"SIP/2.0 200 ", "\r\n\r\n", 0}, {"", END, 0}}},
    /* UPnP Device Architecture 2.0, section 1 */
    {S(SSDP), 0, 0, {{"NOTIFY * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\n"
                      "CACHE-CONTROL: max-age=1800\r\n"
                      "LOCATION: http://10.0.0.1:80/description.xml\r\n"
                      "NTS: ssdp:alive\r\nSERVER: Linux UPnP/1.0\r\n"
                      "NT: upnp:rootdevice\r\nUSN: uuid:", "\r\n\r\n", 0},
                     {"M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\n"
                      "MAN: \"ssdp:discover\"\r\nMX: 1\r\nST: ",
                      "\r\n\r\n", 0},
                     {"M-SEARCH * HTTP/1.1\r\nST: ", "\r\n\r\n", 0}}},
    {S(SSDP), 1, 0, {{"HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=1800\r\n"
                      "EXT:\r\nLOCATION: http://10.0.0.1:80/root.xml\r\n"
                      "SERVER: Linux UPnP/1.0\r\nST: upnp:rootdevice\r\n"
                      "USN: uuid:", "\r\n\r\n", 0},
                     {"HTTP/1.1 200 OK\r\nST: ", "\r\n\r\n", 0},
                     {"HTTP/1.1 200 ", "\r\n\r\n", 0}}},
    /* RFC 3164 */
    {S(SYSLOG), 0, 0, {{"<30>Jan  1 00:00:00 host daemon: ", "", 0},
                       {"<30>a", "", 0}}}, /* tshark reads on after ">" */
    {S(SYSLOG), 1, 0, {{"<30>Jan  1 00:00:00 host daemon: ", "", 0},
                       {"<30>a", "", 0}}}, /* tshark reads on after ">" */
    /* NATS client protocol */
    {S(NATS), 0, 0, {{"CONNECT {\"verbose\":false,\"name\":\"", "\"}\r\n", 0},
                     {"PING", END, 0}}},
    {S(NATS), 0, 1, {{"SUB ", " 1\r\n", 0}, {"PING", END, 0}}},
    {S(NATS), 1, 0, {{"INFO {\"server_id\":\"", "\",\"version\":\"2.9\"}\r\n",
                      0}, {"PONG", END, 0}}},
    {S(NATS), 1, 1, {{"-ERR '", "'\r\n", 0}, {"+OK", END, 0}}},
    /* RFC 6120 section 4 */
    {S(XMPP), 0, 0, {{"<?xml version='1.0'?><stream:stream to='example.com' "
                      "xmlns='jabber:client' xmlns:stream="
                      "'http://etherx.jabber.org/streams' id='",
                      "' version='1.0'>", 0}, {" ", "", 0}}},
    {S(XMPP), 0, 1, {{"<message to='b@example.com'><body>",
                      "</body></message>", 0}, {" ", "", 0}}},
    {S(XMPP), 1, 0, {{"<?xml version='1.0'?><stream:stream from='example.com'"
                      " xmlns='jabber:client' xmlns:stream="
                      "'http://etherx.jabber.org/streams' id='",
                      "' version='1.0'>", 0}, {" ", "", 0}}},
    {S(XMPP), 1, 1, {{"<message from='b@example.com'><body>",
                      "</body></message>", 0}, {" ", "", 0}}},
};
#undef S

/* The last step of a service's end that has begun. */
static const struct step *
step_of(const struct nd_message *m)
{
    const struct step *found = NULL;
    uint32_t number = m->talk->middle ? m->number + 4 : m->number;
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++)
        if (steps[i].service == m->talk->service &&
            steps[i].direction == m->direction && steps[i].number <= number)
            found = &steps[i];
    return found;
}

bool
nd_payload_text(const struct nd_message *m, struct nd_pen *pen)
{
    const struct step *step = step_of(m);
    for (int i = 0; step != NULL && i < 4; i++) {
        const struct text *text = &step->texts[i];
        if (text->before == NULL)
            break;
        size_t fixed = strlen(text->before) + strlen(text->after);
        if (m->length < fixed)
            continue;
        nd_pen_text(pen, text->before);
        if (text->gap == LINES)
            nd_pen_lines(pen, m->length - fixed);
        else
            nd_pen_letters(pen, m->length - fixed);
        nd_pen_text(pen, text->after);
        return *text->before != 0;
    }
    nd_pen_lines(pen, m->length);
    return false;
}

/* ---- Redis, RESP2 ------------------------------------------------------ */

/* "$<n>\r\n<n bytes>\r\n", of `length` bytes in all; at least 6. */
static void
put_bulk(struct nd_pen *pen, size_t length)
{
    size_t digits = 1, most = 10;
    while (length - 5 - digits >= most) {
        digits++;
        most *= 10;
    }
    size_t n = length - 5 - digits;
    nd_pen_u8(pen, '$');
    for (size_t unit = most / 10; unit > 0; unit /= 10)
        nd_pen_u8(pen, (unsigned)('0' + n / unit % 10));
    nd_pen_text(pen, END);
    nd_pen_letters(pen, n);
    nd_pen_text(pen, END);
}

bool
nd_payload_redis(const struct nd_message *m, struct nd_pen *pen)
{
    static const char get[] = "*2\r\n$3\r\nGET\r\n", one[] = "*1\r\n";
    size_t n = m->length;
    if (m->direction == 0 && n >= sizeof get - 1 + 6) {
        nd_pen_bytes(pen, get, sizeof get - 1);
        put_bulk(pen, n - (sizeof get - 1));
    } else if (m->direction == 0 && n >= sizeof one - 1 + 6) {
        nd_pen_bytes(pen, one, sizeof one - 1);
        put_bulk(pen, n - (sizeof one - 1));
    } else if (n >= 40) {
        put_bulk(pen, n);
    } else if (m->direction == 0 && n >= 4) { /* nothing asked for */
        nd_pen_u8(pen, '*');
        nd_pen_repeat(pen, '0', n - 3);
        nd_pen_text(pen, END);
        return false;
    } else if (n >= 3) {
        nd_pen_u8(pen, '+');
        nd_pen_letters(pen, n - 3);
        nd_pen_text(pen, END);
        return m->direction == 1;
    } else {
        nd_pen_text(pen, END);
        return false;
    }
    return true;
}
