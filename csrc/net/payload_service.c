#include "payload_message.h"

enum { TCP = 6, UDP = 17 };

const struct nd_service_text nd_services[] = {
    [ND_SERVICE_NONE] = {"other", NULL, false, 0},
#define X(id, name, generator, turns, least)                                  \
    [ND_SERVICE_##id] = {name, generator, turns, least},
    ND_SERVICE_LIST(X)
#undef X
};

/* IANA "Service Name and Transport Protocol Port Number Registry", and the
 * ports that are used without being there. */
static const struct {
    uint16_t port;
    uint8_t tcp, udp;
} ports[] = {
#define S(id) ND_SERVICE_##id
    {21, S(FTP), 0},
    {22, S(SSH), 0},
    {25, S(SMTP), 0},
    {53, S(DNS), S(DNS)},
    {67, 0, S(DHCP)},
    {68, 0, S(DHCP)},
    {80, S(HTTP), 0},
    {88, S(KERBEROS), S(KERBEROS)},
    {110, S(POP3), 0},
    {123, 0, S(NTP)},
    {137, 0, S(NETBIOS)},
    {143, S(IMAP), 0},
    {161, 0, S(SNMP)},
    {162, 0, S(SNMP)},
    {389, S(LDAP), S(LDAP)},
    {443, S(TLS), S(QUIC)},
    {445, S(SMB), 0},
    {465, S(TLS), 0},
    {502, S(MODBUS), 0},
    {514, 0, S(SYSLOG)},
    {563, S(TLS), 0},
    {587, S(SMTP), 0},
    {636, S(TLS), 0},
    {853, S(TLS), 0},
    {989, S(TLS), 0},
    {990, S(TLS), 0},
    {993, S(TLS), 0},
    {995, S(TLS), 0},
    {1812, 0, S(RADIUS)},
    {1813, 0, S(RADIUS)},
    {1883, S(MQTT), 0},
    {1900, 0, S(SSDP)},
    {2525, S(SMTP), 0},
    {3128, S(HTTP), 0},
    {3268, S(LDAP), 0},
    {3306, S(MYSQL), 0},
    {3389, S(RDP), 0},
    {3478, S(STUN), S(STUN)},
    {4222, S(NATS), 0},
    {4433, S(TLS), S(QUIC)},
    {5060, S(SIP), S(SIP)},
    {5222, S(XMPP), 0},
    {5353, S(MDNS), S(MDNS)},
    {5355, S(LLMNR), S(LLMNR)},
    {5432, S(POSTGRESQL), 0},
    {5985, S(HTTP), 0},
    {6379, S(REDIS), 0},
    {8000, S(HTTP), 0},
    {8008, S(HTTP), 0},
    {8080, S(HTTP), 0},
    {8443, S(TLS), 0},
    {8883, S(TLS), 0},
    {8888, S(HTTP), 0},
    {19302, 0, S(STUN)},
#undef S
};

static enum nd_service
at_port(uint8_t protocol, uint16_t port)
{
    for (size_t i = 0; i < sizeof ports / sizeof *ports; i++)
        if (ports[i].port == port)
            return protocol == TCP ? ports[i].tcp : ports[i].udp;
    return ND_SERVICE_NONE;
}

enum nd_service
nd_service_find(uint8_t protocol, const struct nd_endpoints *ends)
{
    uint16_t low = ends->port[0], high = ends->port[1];
    if (protocol != TCP && protocol != UDP)
        return ND_SERVICE_NONE;
    if (high < low) {
        low = ends->port[1];
        high = ends->port[0];
    }
    enum nd_service found = at_port(protocol, low);
    return found != ND_SERVICE_NONE ? found : at_port(protocol, high);
}
