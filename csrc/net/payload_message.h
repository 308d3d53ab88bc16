/*
 * payload_message.h - services, their messages, and who writes them
 *
 * In:      a message's place in its conversation and its length, which is
 *          drawn and cannot change; a pen over a part of it.
 * Out:     the bytes of that part, well formed for the readers of captures.
 * Errors:  none; a generator returns false where the length cannot hold what
 *          the message has to say. It then writes the nearest thing that
 *          fits.
 * Memory:  allocates nothing; at most a few KiB of stack.
 * Threads: pure functions of the message, no state.
 * Python:  _core.payload_services, _core.CaptureWriter.write.
 *          Tests: test_payload.py, fuzz_payload.c
 *
 * A message of a stream is a turn (all that one end sends before the other
 * answers) or a write (up to the next PSH), whichever fits the service; of
 * datagrams it is one of them.
 */
#ifndef ND_NET_PAYLOAD_MESSAGE_H
#define ND_NET_PAYLOAD_MESSAGE_H

#include "payload_pen.h"
#include "rows.h"

/* X(id, name, generator, messages are turns, fewest bytes in a stream) */
#define ND_SERVICE_LIST(X)                                                    \
    X(DNS, "dns", nd_payload_dns, false, 14)                                  \
    X(MDNS, "mdns", nd_payload_dns, false, 14)                                \
    X(LLMNR, "llmnr", nd_payload_dns, false, 14)                              \
    X(TLS, "tls", nd_payload_tls, true, 6)                                    \
    X(HTTP, "http", nd_payload_http, true, 1)                                 \
    X(DTLS, "dtls", nd_payload_dtls, false, 1)                                \
    X(QUIC, "quic", nd_payload_quic, false, 1)                                \
    X(RTP, "rtp", nd_payload_rtp, false, 1)                                   \
    X(RTCP, "rtcp", nd_payload_rtcp, false, 1)                                \
    X(STUN, "stun", nd_payload_stun, false, 4)                                \
    X(SMTP, "smtp", nd_payload_text, false, 3)                                \
    X(FTP, "ftp", nd_payload_text, false, 3)                                  \
    X(POP3, "pop3", nd_payload_text, false, 3)                                \
    X(IMAP, "imap", nd_payload_text, false, 3)                                \
    X(SIP, "sip", nd_payload_text, false, 3)                                  \
    X(SSDP, "ssdp", nd_payload_text, false, 3)                                \
    X(SYSLOG, "syslog", nd_payload_text, false, 3)                            \
    X(NATS, "nats", nd_payload_text, false, 3)                                \
    X(XMPP, "xmpp", nd_payload_text, false, 1)                                \
    X(REDIS, "redis", nd_payload_redis, false, 4)                             \
    X(SSH, "ssh", nd_payload_ssh, false, 16)                                  \
    X(SNMP, "snmp", nd_payload_snmp, false, 6)                                \
    X(LDAP, "ldap", nd_payload_ldap, false, 7)                                \
    X(KERBEROS, "kerberos", nd_payload_kerberos, false, 4)                    \
    X(NTP, "ntp", nd_payload_ntp, false, 1)                                   \
    X(DHCP, "dhcp", nd_payload_dhcp, false, 1)                                \
    X(MQTT, "mqtt", nd_payload_mqtt, false, 2)                                \
    X(MODBUS, "modbus", nd_payload_modbus, false, 8)                          \
    X(RADIUS, "radius", nd_payload_radius, false, 1)                          \
    X(NETBIOS, "netbios", nd_payload_netbios, false, 1)                       \
    X(SMB, "smb", nd_payload_smb, false, 4)                                   \
    X(RDP, "rdp", nd_payload_rdp, true, 6)                                    \
    X(POSTGRESQL, "postgresql", nd_payload_postgresql, false, 1)              \
    X(MYSQL, "mysql", nd_payload_mysql, false, 5)

enum nd_service {
    ND_SERVICE_NONE,
#define X(id, name, generator, turns, least) ND_SERVICE_##id,
    ND_SERVICE_LIST(X)
#undef X
        ND_SERVICE_COUNT
};

enum { ND_HOST_BYTES = 64 };

/* What all messages of a flow share. */
struct nd_talk {
    uint64_t key; /* of the flow's chance */
    enum nd_service service;
    uint8_t protocol;
    uint8_t ip_version;
    bool middle; /* a stream without a SYN: it began before the capture */
    struct nd_endpoints ends;
    size_t host_bytes;
    char host[ND_HOST_BYTES]; /* of the server, at least one byte */
};

struct nd_message {
    const struct nd_talk *talk;
    uint8_t direction;
    uint32_t number; /* earlier messages of this end */
    uint32_t turn;   /* earlier turns of this end */
    uint32_t heard;  /* messages of the other end that came before */
    uint32_t asked;  /* of those the one that this answers: its number */
    uint32_t asked_length; /* and its length, 0 for none */
    bool unasked;    /* all that it could answer has been answered */
    uint32_t first;  /* bytes up to the first PSH */
    uint64_t start;  /* in the stream, or of the end's datagrams */
    uint32_t length;
};

typedef bool nd_generator(const struct nd_message *message,
                          struct nd_pen *pen);

nd_generator nd_payload_dhcp, nd_payload_dns, nd_payload_dtls,
    nd_payload_http,
    nd_payload_kerberos, nd_payload_ldap, nd_payload_modbus, nd_payload_mqtt,
    nd_payload_mysql, nd_payload_netbios, nd_payload_ntp,
    nd_payload_postgresql, nd_payload_quic, nd_payload_radius, nd_payload_rdp,
    nd_payload_redis, nd_payload_rtcp, nd_payload_rtp, nd_payload_smb,
    nd_payload_snmp, nd_payload_ssh, nd_payload_stun, nd_payload_text,
    nd_payload_tls;

struct nd_service_text {
    const char *name;
    nd_generator *write;
    bool turns;
    uint8_t least; /* a shorter message of a stream goes on in the next turn */
};

/* ND_SERVICE_COUNT lines; that of ND_SERVICE_NONE is empty. */
extern const struct nd_service_text nd_services[];

/* The service that a server's port names. */
enum nd_service nd_service_find(uint8_t protocol,
                                const struct nd_endpoints *ends);

/* A number that follows from a flow's key and a purpose. */
static inline uint64_t
nd_talk_chance(const struct nd_talk *talk, uint64_t purpose, uint64_t i)
{
    return nd_pen_chance(talk->key + (purpose << 48), i);
}

/* The rest of the message as if encrypted. */
static inline void
nd_message_noise(struct nd_pen *pen)
{
    nd_pen_noise(pen, nd_pen_room(pen));
}

#endif
