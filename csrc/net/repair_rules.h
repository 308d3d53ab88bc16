/*
 * repair_rules.h - the table of rules that repair enforces and validate checks
 *
 * In:      nothing; the table is constant.
 * Out:     one entry a rule: its id, name, scope, where it is laid down, what
 *          it checks, and what repair changes where it is broken. Repair
 *          counts the drawn cells it changes under a rule, validate counts
 *          the packets that break it.
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

/* A TTL may rise by so much from packet to packet, as traceroute's does. */
enum { ND_TTL_RISE = 2 };

/* Bytes of the longest IP packet on Ethernet: longer ones are of offload. */
enum { ND_WIRE_MTU = 1500 };

/* ns from a SYN to its answer, at most: RFC 9293 section 3.8.3 */
#define ND_SYN_PATIENCE INT64_C(180000000000)

/* Whether a packet alone can break a rule, or only one among others. */
enum nd_rule_scope { ND_SCOPE_PACKET, ND_SCOPE_FLOW };

/* id, name, scope, laid down in, what it checks, what repair changes */
#define ND_RULE_LIST(X)                                                       \
    X(IP_VERSION, "ip-version", FLOW,                                         \
      "RFC 791 3.1, RFC 8200 3",                                              \
      "a packet has one IP header, and a flow one IP version",                \
      "the header that costs fewest cells over the flow stays, the other "    \
      "goes or is made")                                                      \
    X(TRANSPORT, "transport", FLOW,                                           \
      "RFC 791 3.1, RFC 8200 3",                                              \
      "a packet has one transport header, a later fragment none, and a flow " \
      "one transport",                                                        \
      "the header that costs fewest cells over the flow stays, others go or " \
      "are made")                                                             \
    X(HEADER, "header", PACKET,                                               \
      "RFC 791 3.1",                                                          \
      "a header that is there has all of its fields",                         \
      "missing cells become zero")                                            \
    X(IP_LENGTH, "ip-length", PACKET,                                         \
      "RFC 791 3.1, RFC 8200 3, RFC 8201 4",                                  \
      "the IP length covers the headers and the payload, and no more than "   \
      "the path carries",                                                     \
      "the payload is cut to the path MTU")                                   \
    X(PAYLOAD, "payload", PACKET,                                             \
      "RFC 1035 4.1.1, RFC 2131 2, RFC 4253 6, RFC 5905 7.3",                 \
      "a datagram with data holds the header of the service that its port "   \
      "names, and so does a segment",                                         \
      "a shorter payload is lengthened")                                      \
    X(IP_OPTIONS, "ip-options", PACKET,                                       \
      "RFC 791 3.1",                                                          \
      "IP options have known kinds and lengths and end on 4 bytes",           \
      "other options go")                                                     \
    X(IP_TTL, "ip-ttl", FLOW,                                                 \
      "RFC 791 3.2, RFC 4861 11.2",                                           \
      "a sender's TTL is above zero and lasts: a value of one packet alone "  \
      "stands on a SYN, FIN or RST, or on the first or last of the others",   \
      "another value becomes the one before or the usual one, whichever is "  \
      "nearer")                                                               \
    X(IP_ID, "ip-id", FLOW,                                                   \
      "RFC 6864 4.1",                                                         \
      "an IP id counts up, is random, repeats or stays zero; fragments "      \
      "share one above zero",                                                 \
      "a sender's first id counts, a fragment's is not zero")                 \
    X(IP_FRAGMENT, "ip-fragment", FLOW,                                       \
      "RFC 791 3.2, RFC 8200 4.5, RFC 3168 5.3",                              \
      "the reserved bit is zero; fragments carry blocks of 8 bytes and may "  \
      "be fragmented; all of a packet's have ECN, or none",                   \
      "\"more fragments\" is set or cleared as the next packet is one, DF "   \
      "goes, lengths become whole blocks, ECN that of the first")             \
    X(IP_CHECKSUM, "ip-checksum", PACKET,                                     \
      "RFC 1071",                                                             \
      "the checksum of the IPv4 header is right",                             \
      "none: it is not drawn")                                                \
    X(CHECKSUM, "checksum", PACKET,                                           \
      "RFC 9293 3.1, RFC 768, RFC 8200 8.1, RFC 4443 2.3",                    \
      "the checksum of TCP, UDP, ICMP or ICMPv6 is right; UDP may leave it "  \
      "out over IPv4 only",                                                   \
      "none: it is not drawn")                                                \
    X(DIRECTION, "direction", FLOW,                                           \
      "RFC 9293 3.5",                                                         \
      "the client is the sender of the first SYN, else of the first packet "  \
      "unless the server's port is a well-known one",                         \
      "the first packet becomes the client's")                                \
    X(PORT, "port", FLOW,                                                     \
      "RFC 6335 6",                                                           \
      "both ports are above zero and stay the same in a flow",                \
      "the drawn server port that changes the fewest cells takes the place "  \
      "of others")                                                            \
    X(TIME, "time", FLOW,                                                     \
      "RFC 7323 5.3, RFC 9293 3.8.3",                                         \
      "times do not run backwards in a flow, and begin at the first packet; " \
      "a SYN is answered within three minutes",                               \
      "the first packet has no gap before it, one before a late answer is "   \
      "shortened")                                                            \
    X(TCP_OFFSET, "tcp-offset", PACKET,                                       \
      "RFC 9293 3.1",                                                         \
      "the data offset covers header and options; reserved bits are zero",    \
      "none: they are not drawn")                                             \
    X(TCP_FLAGS, "tcp-flags", PACKET,                                         \
      "RFC 9293 3.1",                                                         \
      "all but the first SYN and RST acknowledge; SYN, FIN and RST exclude "  \
      "each other",                                                           \
      "ACK is set, SYN and FIN are cleared on a RST")                         \
    X(TCP_ECN, "tcp-ecn", FLOW,                                               \
      "RFC 3168 6.1.1, RFC 9768 3.1",                                         \
      "a SYN has both ECE and CWR or neither, and the flags stay down where " \
      "ECN was not agreed",                                                   \
      "the flags are cleared, or the one that lacks is set")                  \
    X(TCP_URGENT, "tcp-urgent", PACKET,                                       \
      "RFC 9293 3.8.5",                                                       \
      "URG comes with data and a pointer into it, the pointer with URG",      \
      "URG without data is cleared")                                          \
    X(TCP_OPTIONS, "tcp-options", PACKET,                                     \
      "RFC 9293 3.1",                                                         \
      "TCP options have known kinds and lengths, stand once and end on 4 "    \
      "bytes; NOPs only pad",                                                 \
      "other options and NOPs go, values get legal")                          \
    X(TCP_NEGOTIATION, "tcp-negotiation", FLOW,                               \
      "RFC 9293 3.7.1, RFC 7323 2, 3.2, RFC 2018 2",                          \
      "MSS, window scale and SACK-permitted stand on a SYN, and what a "      \
      "SYN-ACK or a later segment uses was offered",                          \
      "what was not offered goes, or is offered after all, whichever costs "  \
      "fewer cells")                                                          \
    X(TCP_MSS, "tcp-mss", FLOW,                                               \
      "RFC 9293 3.7.1, RFC 6691 2",                                           \
      "where no packet is longer than those of Ethernet, a segment is no "    \
      "longer than the peer's MSS",                                           \
      "the payload is cut")                                                   \
    X(TCP_SACK, "tcp-sack", FLOW,                                             \
      "RFC 2018 4, RFC 2883 4",                                               \
      "SACK blocks lie in data that was sent, beyond the acknowledgement or " \
      "seen twice",                                                           \
      "blocks that nothing can fill go")                                      \
    X(TCP_TIMESTAMP, "tcp-timestamp", FLOW,                                   \
      "RFC 7323 4, 5.3, 5.4",                                                 \
      "timestamp values do not run backwards, echo the peer's, and tick once "\
      "in 1 us to 1 s",                                                       \
      "none: they are not drawn, but count the ticks of a host's clock")      \
    X(TCP_HANDSHAKE, "tcp-handshake", FLOW,                                   \
      "RFC 9293 3.5, RFC 7413 2",                                             \
      "SYNs come before anything else of their sender, without data unless "  \
      "TCP Fast Open, and a SYN is answered by SYN-ACK, SYN or RST",          \
      "a late SYN loses its flag, an answer becomes the SYN-ACK, data on it " \
      "goes, and so does a FIN or RST before anything else")                  \
    X(TCP_FIN, "tcp-fin", FLOW,                                               \
      "RFC 9293 3.6",                                                         \
      "after its FIN an end sends no new data",                               \
      "a FIN that data follows is cleared")                                   \
    X(TCP_RESET, "tcp-reset", FLOW,                                           \
      "RFC 9293 3.5.3",                                                       \
      "after its RST an end sends nothing but RST; a RST has no data",        \
      "a RST that more follows is cleared")                                   \
    X(TCP_SEQ, "tcp-seq", FLOW,                                               \
      "RFC 9293 3.4",                                                         \
      "sequence numbers count SYN, FIN and data; what is sent again was "     \
      "sent before",                                                          \
      "the hint of the step that is possible")                                \
    X(TCP_ACK, "tcp-ack", FLOW,                                               \
      "RFC 9293 3.4",                                                         \
      "acknowledgements do not run backwards nor cover what was not sent",    \
      "the hint of the acknowledgement that is possible")                     \
    X(TCP_WINDOW, "tcp-window", FLOW,                                         \
      "RFC 9293 3.8, RFC 7323 2.3",                                           \
      "data stays inside the window that the peer has advertised",            \
      "the peer's last window is widened, or the data goes")                  \
    X(TCP_EVENT, "tcp-event", FLOW,                                           \
      "-",                                                                    \
      "events=\"quiet\": no RST, no closed or filled window, no hole in the " \
      "sequence, no duplicate SACK",                                          \
      "such events are smoothed")                                             \
    X(UDP_LENGTH, "udp-length", PACKET,                                       \
      "RFC 768",                                                              \
      "the UDP length is that of header and payload",                         \
      "none: it is not drawn")                                                \
    X(ICMP_TYPE, "icmp-type", PACKET,                                         \
      "RFC 792, RFC 4443, RFC 4861",                                          \
      "type and code are known, and of the flow's IP version",                \
      "an unknown type becomes an echo, an unknown code zero; what no "       \
      "tracker knows, router discovery over IPv4 and redirects over IPv6, "   \
      "an echo or a neighbor advertisement")                                  \
    X(ICMP_BODY, "icmp-body", PACKET,                                         \
      "RFC 792, RFC 4443 2.4, RFC 4861 4, RFC 3810 5",                        \
      "a message is long enough for its type; an error quotes a packet, MLD " \
      "has its Router Alert",                                                 \
      "the payload gets a length that the type can have")                     \
    X(ICMP_ECHO, "icmp-echo", FLOW,                                           \
      "RFC 792, RFC 4443 4.2",                                                \
      "an echo reply has the id and number of a request of the peer",         \
      "a reply that nothing asked for becomes a request")                     \
    X(ICMP_CAUSE, "icmp-cause", FLOW,                                         \
      "RFC 792, RFC 4443 2.4",                                                \
      "an error quotes a request or a reply that its receiver has sent",      \
      "an error of the only end that has sent any becomes its peer's, an "    \
      "error before any a request")                                           \
    X(ICMP_LINK, "icmp-link", FLOW,                                           \
      "RFC 4861 6.1.2, 8.1, RFC 2710 3, RFC 3810 5",                          \
      "router advertisements, redirects and MLD come from an address of "     \
      "their link",                                                           \
      "none: addresses are not drawn, but begin with fe80::/64")

enum nd_rule {
#define X(id, name, scope, source, text, change) ND_RULE_##id,
    ND_RULE_LIST(X)
#undef X
    ND_RULE_COUNT
};

struct nd_rule_text {
    const char *name;
    const char *source;
    const char *text;
    const char *change;
    enum nd_rule_scope scope;
};

extern const struct nd_rule_text nd_rules[ND_RULE_COUNT];

#endif
