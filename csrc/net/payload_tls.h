/*
 * payload_tls.h - what TLS and QUIC share: hellos of a wanted length
 *
 * In:      a conversation; the length that a ClientHello or ServerHello shall
 *          have; a pen.
 * Out:     the handshake message (RFC 8446 section 4.1), exactly that long.
 * Errors:  none; false for a length that cannot hold the server's name, or
 *          any hello: then nothing is written.
 * Memory:  allocates nothing.
 * Threads: pure functions.
 * Python:  through _core.CaptureWriter.  Tests: test_payload.py
 */
#ifndef ND_NET_PAYLOAD_TLS_H
#define ND_NET_PAYLOAD_TLS_H

#include "payload_message.h"

/* The shortest ClientHello that names the server. */
size_t nd_tls_client_least(const struct nd_talk *talk);

bool nd_tls_client_hello(const struct nd_talk *talk, struct nd_pen *pen,
                         size_t length, bool quic);
bool nd_tls_server_hello(const struct nd_talk *talk, struct nd_pen *pen,
                         size_t length);

#endif
