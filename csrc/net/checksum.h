/*
 * checksum.h - the Internet checksum (RFC 1071)
 *
 * In:      bytes in network order; lengths as the IP header tells them.
 * Out:     sums, and checksums put into the headers of one packet.
 * Errors:  none.
 * Memory:  allocates nothing.
 * Threads: pure functions, no state.
 * Python:  _core.CaptureWriter, _core.repair, _core.validate.
 *          Tests: tests/test_capture_write.py
 *
 * A sum over bytes that hold a right checksum ends in 0. Zeros do not change
 * a sum, so a payload of zeros counts only by its length.
 */
#ifndef ND_NET_CHECKSUM_H
#define ND_NET_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

/* Adds n bytes to a sum that starts at 0; an odd n only in the last call. */
uint64_t nd_checksum_add(uint64_t sum, const uint8_t *bytes, size_t n);

/* Adds the pseudo header: addresses of the IPv4 or IPv6 header at ip,
 * protocol, length of transport header and payload (RFC 9293 section 3.1,
 * RFC 8200 section 8.1). */
uint64_t nd_checksum_pseudo(uint64_t sum, const uint8_t *ip, uint8_t protocol,
                            uint32_t length);

/* Folds and complements: the checksum in host order. */
uint16_t nd_checksum_end(uint64_t sum);

/*
 * Puts the right checksums into the IP header and the transport header that
 * follows it at headers + ip_length, for a payload of zeros. protocol: 6, 17,
 * 1, 58; anything else, or transport_length 0: the IP header only. A UDP
 * checksum of 0 becomes 0xffff (RFC 768). Fragments of UDP are summed as the
 * datagram that the UDP length tells.
 */
void nd_checksum_fill(uint8_t *headers, size_t ip_length,
                      size_t transport_length, uint8_t protocol,
                      uint32_t payload_length);

#endif
