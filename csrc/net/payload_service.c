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
    {53, S(DNS), S(DNS)},
    {80, S(HTTP), 0},
    {443, S(TLS), 0},
    {465, S(TLS), 0},
    {563, S(TLS), 0},
    {636, S(TLS), 0},
    {853, S(TLS), 0},
    {989, S(TLS), 0},
    {990, S(TLS), 0},
    {993, S(TLS), 0},
    {995, S(TLS), 0},
    {3128, S(HTTP), 0},
    {4433, S(TLS), 0},
    {5000, S(HTTP), 0},
    {5353, S(MDNS), S(MDNS)},
    {5355, S(LLMNR), S(LLMNR)},
    {5985, S(HTTP), 0},
    {8000, S(HTTP), 0},
    {8008, S(HTTP), 0},
    {8080, S(HTTP), 0},
    {8443, S(TLS), 0},
    {8883, S(TLS), 0},
    {8888, S(HTTP), 0},
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
