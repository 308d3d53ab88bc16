/*
 * payload_crypto.h - what the first packets of QUIC are protected with
 *
 * In:      keys, bytes.
 * Out:     SHA-256 (FIPS 180-4), HMAC (RFC 2104), HKDF (RFC 5869, labels of
 *          RFC 8446 section 7.1), AES-128 (FIPS 197) and its GCM (SP 800-38D).
 * Errors:  none.
 * Memory:  the caller's.
 * Threads: pure functions.
 * Python:  through _core.CaptureWriter.  Tests: test_payload.py
 *
 * The keys of QUIC's Initial packets are public (RFC 9001 section 5.2), so
 * nothing is kept secret here, and nothing takes constant time.
 */
#ifndef ND_NET_PAYLOAD_CRYPTO_H
#define ND_NET_PAYLOAD_CRYPTO_H

#include <stddef.h>
#include <stdint.h>

enum { ND_SHA256_BYTES = 32, ND_AES_BYTES = 16, ND_AES_ROUNDS = 10 };

struct nd_aes {
    uint8_t keys[ND_AES_ROUNDS + 1][ND_AES_BYTES];
};

/* key_bytes <= 64 */
void nd_hmac_sha256(const uint8_t *key, size_t key_bytes,
                    const uint8_t *data, size_t n,
                    uint8_t out[ND_SHA256_BYTES]);

/* HKDF-Expand-Label with an empty context; n <= 32, a label of <= 16. */
void nd_hkdf_label(const uint8_t secret[ND_SHA256_BYTES], const char *label,
                   uint8_t *out, size_t n);

void nd_aes_key(struct nd_aes *aes, const uint8_t key[ND_AES_BYTES]);
void nd_aes_block(const struct nd_aes *aes, const uint8_t in[ND_AES_BYTES],
                  uint8_t out[ND_AES_BYTES]);

/* Encrypts n bytes in place and puts the tag behind them. */
void nd_aes_gcm(const struct nd_aes *aes, const uint8_t iv[12],
                const uint8_t *header, size_t header_bytes, uint8_t *bytes,
                size_t n);

#endif
