/*
 * repair_rules.h - the table of rules that repair enforces and validate checks
 *
 * In:      nothing; the table is constant.
 * Out:     one line a rule: its id, name, where it is laid down, and its text
 *          in one sentence. Repair counts the drawn cells it changes under a
 *          rule, validate counts the packets that break it.
 * Errors:  none.
 * Memory:  static constant table (repair.c).
 * Threads: pure data.
 * Python:  _core.repair_rules.  Tests: test_repair.py, test_validate.py
 *
 * Rules without a drawn cell (checksums, lengths that are derived) are only
 * ever broken in packets that somebody else wrote; repair counts 0 for them.
 */
#ifndef ND_NET_REPAIR_RULES_H
#define ND_NET_REPAIR_RULES_H

/* id, name, laid down in, text */
#define ND_RULE_LIST(X)                                                       \
    X(IP_VERSION, "ip-version", "RFC 791 3.1, RFC 8200 3",                    \
      "a packet has one IP header, and a flow one IP version")                \
    X(TRANSPORT, "transport", "RFC 791 3.1, RFC 8200 3",                      \
      "a packet has one transport header, and a flow one transport")          \
    X(HEADER, "header", "RFC 791 3.1",                                        \
      "a header that is there has all of its fields")                         \
    X(IP_LENGTH, "ip-length", "RFC 791 3.1, RFC 8200 3",                      \
      "the IP length covers the headers and the payload, and no more than "   \
      "the path carries")                                                     \
    X(PAYLOAD, "payload", "RFC 1035 4.1.1, RFC 2131 2, RFC 5905 7.3",          \
      "a datagram with data holds the header of the service that its port "   \
      "names")                                                                \
    X(IP_OPTIONS, "ip-options", "RFC 791 3.1",                                \
      "IP options have known kinds and lengths and end on 4 bytes")           \
    X(IP_TTL, "ip-ttl", "RFC 791 3.2, RFC 4861 11.2",                         \
      "a sender's TTL is above zero and does not change in a flow")           \
    X(IP_ID, "ip-id", "RFC 6864 4.1",                                         \
      "an IP id counts up, is random, or stays zero")                         \
    X(IP_FRAGMENT, "ip-fragment", "RFC 791 3.1",                              \
      "a packet is no fragment and the reserved bit is zero")                 \
    X(IP_CHECKSUM, "ip-checksum", "RFC 1071",                                 \
      "the checksum of the IPv4 header is right")                             \
    X(CHECKSUM, "checksum", "RFC 9293 3.1, RFC 768, RFC 4443 2.3",            \
      "the checksum of TCP, UDP, ICMP or ICMPv6 is right")                    \
    X(DIRECTION, "direction", "RFC 9293 3.5",                                 \
      "the client is the sender of the first SYN, else of the first packet "  \
      "unless the server's port is a well-known one")                         \
    X(PORT, "port", "RFC 6335 6",                                             \
      "both ports are above zero and stay the same in a flow")                \
    X(TIME, "time", "RFC 7323 5.3",                                           \
      "times do not run backwards in a flow, and begin at the first packet")  \
    X(TCP_OFFSET, "tcp-offset", "RFC 9293 3.1",                               \
      "the data offset covers header and options; reserved bits are zero")    \
    X(TCP_FLAGS, "tcp-flags", "RFC 9293 3.1",                                 \
      "all but the first SYN and RST acknowledge; SYN, FIN and RST exclude "  \
      "each other")                                                           \
    X(TCP_URGENT, "tcp-urgent", "RFC 9293 3.8.5",                             \
      "URG comes with data and a pointer into it, the pointer with URG")      \
    X(TCP_OPTIONS, "tcp-options", "RFC 9293 3.1",                             \
      "TCP options have known kinds and lengths, stand once and end on 4 "    \
      "bytes; NOPs only pad")                                       \
    X(TCP_NEGOTIATION, "tcp-negotiation", "RFC 9293 3.7.1, RFC 7323 2, 3.2, " \
      "RFC 2018 2",                                                           \
      "MSS, window scale and SACK-permitted stand on a SYN, and what a "      \
      "SYN-ACK or a later segment uses was offered")                          \
    X(TCP_SACK, "tcp-sack", "RFC 2018 4, RFC 2883 4",                         \
      "SACK blocks lie in data that was sent, beyond the acknowledgement or " \
      "seen twice")                                                           \
    X(TCP_TIMESTAMP, "tcp-timestamp", "RFC 7323 4, 5.3",                      \
      "timestamp values do not run backwards and echo the peer's")            \
    X(TCP_HANDSHAKE, "tcp-handshake", "RFC 9293 3.5",                         \
      "SYNs come before anything else of their sender, without data unless "  \
      "TCP Fast Open, and a SYN is answered by SYN-ACK or RST")               \
    X(TCP_FIN, "tcp-fin", "RFC 9293 3.6",                                     \
      "after its FIN an end sends no new data")                               \
    X(TCP_RESET, "tcp-reset", "RFC 9293 3.5.3",                               \
      "after its RST an end sends nothing but RST; a RST has no data")        \
    X(TCP_SEQ, "tcp-seq", "RFC 9293 3.4",                                     \
      "sequence numbers count SYN, FIN and data; what is sent again was "     \
      "sent before")                                                          \
    X(TCP_ACK, "tcp-ack", "RFC 9293 3.4",                                     \
      "acknowledgements do not run backwards nor cover what was not sent")    \
    X(TCP_WINDOW, "tcp-window", "RFC 9293 3.8, RFC 7323 2.3",                 \
      "data stays inside the window that the peer has advertised")            \
    X(TCP_EVENT, "tcp-event", "-",                                            \
      "events=\"quiet\": no RST, no closed or filled window, no hole in "     \
      "the sequence, no duplicate SACK")                                      \
    X(UDP_LENGTH, "udp-length", "RFC 768",                                    \
      "the UDP length is that of header and payload")                         \
    X(ICMP_TYPE, "icmp-type", "RFC 792, RFC 4443, RFC 4861",                  \
      "type and code are known, and of the flow's IP version")                \
    X(ICMP_BODY, "icmp-body", "RFC 792, RFC 4443 2.4, RFC 4861 4",            \
      "a message is long enough for its type; an error quotes a packet")      \
    X(ICMP_ECHO, "icmp-echo", "RFC 792, RFC 4443 4.2",                        \
      "an echo reply has the id and number of a request of the peer")

enum nd_rule {
#define X(id, name, source, text) ND_RULE_##id,
    ND_RULE_LIST(X)
#undef X
    ND_RULE_COUNT
};

struct nd_rule_text {
    const char *name;
    const char *source;
    const char *text;
};

extern const struct nd_rule_text nd_rules[ND_RULE_COUNT];

#endif
