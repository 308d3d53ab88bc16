#include "icmp.h"

enum { V4_QUOTE = 28, V6_QUOTE = 48 }; /* IP header and 8 bytes */

static const struct nd_icmp_message messages[] = {
    {4, 0, 0, 0, 1, 0, ND_REST_REPLY, 8, 0, false},
    {4, 3, 15, V4_QUOTE, 1, 0, ND_REST_MTU, 0, 0, false},
    {4, 4, 0, V4_QUOTE, 1, 0, ND_REST_ZERO, 0, 0, false},
    {4, 5, 3, V4_QUOTE, 1, 0, ND_REST_GATEWAY, 0, 0, false},
    {4, 8, 0, 0, 1, 0, ND_REST_REQUEST, 0, 0, false},
    {4, 9, 0, 8, 8, 0, ND_REST_ROUTERS, 0, 8, false},
    {4, 10, 0, 0, 255, 0, ND_REST_ZERO, 0, 8, false},
    {4, 11, 1, V4_QUOTE, 1, 0, ND_REST_ZERO, 0, 0, false},
    {4, 12, 2, V4_QUOTE, 1, 0, ND_REST_ZERO, 0, 0, false},
    {4, 13, 0, 12, 255, 0, ND_REST_REQUEST, 14, 0, false},
    {4, 14, 0, 12, 255, 0, ND_REST_REPLY, 13, 0, false},
    {4, 17, 0, 4, 255, 0, ND_REST_REQUEST, 18, 0, false},
    {4, 18, 0, 4, 255, 0, ND_REST_REPLY, 17, 0, false},
    {6, 1, 6, V6_QUOTE, 1, 0, ND_REST_ZERO, 0, 0, false},
    {6, 2, 0, V6_QUOTE, 1, 0, ND_REST_MTU, 0, 0, false},
    {6, 3, 1, V6_QUOTE, 1, 0, ND_REST_ZERO, 0, 0, false},
    {6, 4, 2, V6_QUOTE, 1, 0, ND_REST_ZERO, 0, 0, false},
    {6, 128, 0, 0, 1, 0, ND_REST_REQUEST, 129, 0, false},
    {6, 129, 0, 0, 1, 0, ND_REST_REPLY, 128, 0, false},
    {6, 130, 0, 16, 4, 1, ND_REST_ZERO, 0, 0, true},
    {6, 131, 0, 16, 255, 1, ND_REST_ZERO, 0, 0, true},
    {6, 132, 0, 16, 255, 1, ND_REST_ZERO, 0, 0, true},
    {6, 133, 0, 0, 8, 255, ND_REST_ZERO, 0, 0, false},
    {6, 134, 0, 8, 8, 255, ND_REST_ADVERTISEMENT, 0, 0, true},
    {6, 135, 0, 16, 8, 255, ND_REST_ZERO, 0, 0, false},
    {6, 136, 0, 16, 8, 255, ND_REST_SOLICITED, 0, 0, false},
    {6, 137, 0, 32, 8, 255, ND_REST_ZERO, 0, 136, true},
    {6, 143, 0, 20, 20, 1, ND_REST_RECORDS, 0, 0, true},
};

const struct nd_icmp_message *
nd_icmp_find(uint8_t ip_version, uint8_t type)
{
    for (size_t i = 0; i < sizeof messages / sizeof *messages; i++)
        if (messages[i].ip_version == ip_version && messages[i].type == type)
            return &messages[i];
    return NULL;
}

bool
nd_icmp_is_error(uint8_t ip_version, uint8_t type)
{
    if (ip_version == 6)
        return type >= 1 && type <= 4;
    return (type >= 3 && type <= 5) || type == 11 || type == 12;
}

bool
nd_icmp_is_quoted(uint8_t ip_version, uint8_t type)
{
    const struct nd_icmp_message *m = nd_icmp_find(ip_version, type);
    return m != NULL &&
           (m->rest == ND_REST_REQUEST || m->rest == ND_REST_REPLY);
}

bool
nd_icmp_link_local(const uint8_t address[16])
{
    uint8_t any = 0;
    for (size_t i = 0; i < 16; i++)
        any |= address[i];
    return any == 0 || (address[0] == 0xfe && (address[1] & 0xc0) == 0x80);
}

size_t
nd_icmp_hop_by_hop(uint8_t ip_version, uint8_t type)
{
    return ip_version == 6 && (type == 143 || (type >= 130 && type <= 132))
               ? 8 : 0;
}
