#include "checksum.h"

#include "bytes.h"

uint64_t
nd_checksum_add(uint64_t sum, const uint8_t *bytes, size_t n)
{
    size_t i = 0;
    for (; i + 1 < n; i += 2)
        sum += nd_get16(bytes + i);
    if (i < n)
        sum += (uint64_t)bytes[i] << 8;
    return sum;
}

uint64_t
nd_checksum_pseudo(uint64_t sum, const uint8_t *ip, uint8_t protocol,
                   uint32_t length)
{
    if (ip[0] >> 4 == 4)
        sum = nd_checksum_add(sum, ip + 12, 8);
    else
        sum = nd_checksum_add(sum, ip + 8, 32);
    return sum + protocol + (length >> 16) + (length & 0xffff);
}

uint16_t
nd_checksum_end(uint64_t sum)
{
    while (sum >> 16 != 0)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

/* The checksum of n bytes at `at`, put at at[place]. */
static void
put_checksum(uint8_t *at, size_t n, size_t place, uint64_t sum)
{
    nd_put16(at + place, 0);
    nd_put16(at + place, nd_checksum_end(nd_checksum_add(sum, at, n)));
}

static void
fill_udp(const uint8_t *ip, uint8_t *udp, uint32_t length)
{
    uint16_t told = nd_get16(udp + 4);
    if (told >= 8)
        length = told;
    put_checksum(udp, 8, 6, nd_checksum_pseudo(0, ip, 17, length));
    if (nd_get16(udp + 6) == 0)
        nd_put16(udp + 6, 0xffff);
}

void
nd_checksum_fill(uint8_t *headers, size_t ip_length, size_t transport_length,
                 uint8_t protocol, uint32_t payload_length)
{
    uint8_t *transport = headers + ip_length;
    size_t n = transport_length;
    uint32_t length = (uint32_t)n + payload_length;
    if (headers[0] >> 4 == 4)
        put_checksum(headers, ip_length, 10, 0);
    if (protocol == 6 && n >= 20)
        put_checksum(transport, n, 16,
                     nd_checksum_pseudo(0, headers, 6, length));
    else if (protocol == 17 && n >= 8)
        fill_udp(headers, transport, length);
    else if (protocol == 1 && n >= 8)
        put_checksum(transport, n, 2, 0);
    else if (protocol == 58 && n >= 8)
        put_checksum(transport, n, 2,
                     nd_checksum_pseudo(0, headers, 58, length));
}
