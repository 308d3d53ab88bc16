#include "payload_crypto.h"

#include <string.h>

/* ---- SHA-256 and what stands on it ------------------------------------ */

enum { BLOCK = 64 };

static const uint32_t round_constants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1,
    0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3,
    0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786,
    0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147,
    0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13,
    0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b,
    0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a,
    0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208,
    0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

struct sha {
    uint32_t state[8];
    uint8_t block[BLOCK];
    size_t n; /* bytes so far */
};

static uint32_t
turned(uint32_t x, unsigned by)
{
    return x >> by | x << (32 - by);
}

static void
sha_begin(struct sha *sha)
{
    static const uint32_t start[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372,
                                      0xa54ff53a, 0x510e527f, 0x9b05688c,
                                      0x1f83d9ab, 0x5be0cd19};
    memcpy(sha->state, start, sizeof start);
    sha->n = 0;
}

static void
sha_block(struct sha *sha)
{
    uint32_t w[64], s[8];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)sha->block[4 * i] << 24 |
               (uint32_t)sha->block[4 * i + 1] << 16 |
               (uint32_t)sha->block[4 * i + 2] << 8 | sha->block[4 * i + 3];
    for (int i = 16; i < 64; i++) {
        uint32_t a = w[i - 15], b = w[i - 2];
        w[i] = w[i - 16] + w[i - 7] +
               (turned(a, 7) ^ turned(a, 18) ^ a >> 3) +
               (turned(b, 17) ^ turned(b, 19) ^ b >> 10);
    }
    memcpy(s, sha->state, sizeof s);
    for (int i = 0; i < 64; i++) {
        uint32_t a = s[0], e = s[4];
        uint32_t one = s[7] + round_constants[i] + w[i] +
                       (turned(e, 6) ^ turned(e, 11) ^ turned(e, 25)) +
                       ((e & s[5]) ^ (~e & s[6]));
        uint32_t two = (turned(a, 2) ^ turned(a, 13) ^ turned(a, 22)) +
                       ((a & s[1]) ^ (a & s[2]) ^ (s[1] & s[2]));
        memmove(s + 1, s, 7 * sizeof *s);
        s[4] += one;
        s[0] = one + two;
    }
    for (int i = 0; i < 8; i++)
        sha->state[i] += s[i];
}

static void
sha_add(struct sha *sha, const uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        sha->block[sha->n++ % BLOCK] = bytes[i];
        if (sha->n % BLOCK == 0)
            sha_block(sha);
    }
}

static void
sha_end(struct sha *sha, uint8_t out[ND_SHA256_BYTES])
{
    static const uint8_t one = 0x80, zero = 0;
    uint64_t bits = (uint64_t)sha->n * 8;
    uint8_t length[8];
    sha_add(sha, &one, 1);
    while (sha->n % BLOCK != BLOCK - 8)
        sha_add(sha, &zero, 1);
    for (int i = 0; i < 8; i++)
        length[i] = (uint8_t)(bits >> (56 - 8 * i));
    sha_add(sha, length, 8);
    for (int i = 0; i < ND_SHA256_BYTES; i++)
        out[i] = (uint8_t)(sha->state[i / 4] >> (24 - i % 4 * 8));
}

void
nd_hmac_sha256(const uint8_t *key, size_t key_bytes, const uint8_t *data,
               size_t n, uint8_t out[ND_SHA256_BYTES])
{
    uint8_t pad[2][BLOCK];
    struct sha sha;
    for (size_t i = 0; i < BLOCK; i++) {
        uint8_t k = i < key_bytes ? key[i] : 0;
        pad[0][i] = k ^ 0x36;
        pad[1][i] = k ^ 0x5c;
    }
    sha_begin(&sha);
    sha_add(&sha, pad[0], BLOCK);
    sha_add(&sha, data, n);
    sha_end(&sha, out);
    sha_begin(&sha);
    sha_add(&sha, pad[1], BLOCK);
    sha_add(&sha, out, ND_SHA256_BYTES);
    sha_end(&sha, out);
}

void
nd_hkdf_label(const uint8_t secret[ND_SHA256_BYTES], const char *label,
              uint8_t *out, size_t n)
{
    uint8_t info[2 + 1 + 6 + 16 + 1 + 1], full[ND_SHA256_BYTES];
    size_t bytes = strlen(label);
    info[0] = 0;
    info[1] = (uint8_t)n;
    info[2] = (uint8_t)(6 + bytes);
    memcpy(info + 3, "tls13 ", 6);
    memcpy(info + 9, label, bytes);
    info[9 + bytes] = 0;  /* no context */
    info[10 + bytes] = 1; /* the first and only block */
    nd_hmac_sha256(secret, ND_SHA256_BYTES, info, 11 + bytes, full);
    memcpy(out, full, n);
}

/* ---- AES-128 ---------------------------------------------------------- */

static uint8_t
doubled(uint8_t x)
{
    return (uint8_t)(x << 1 ^ (x >> 7) * 0x1b);
}

static const uint8_t boxes[256] = {
    0x63, 0x7c, 0x77, 0x7b, 0xf2, 0x6b, 0x6f, 0xc5, 0x30, 0x01, 0x67, 0x2b,
    0xfe, 0xd7, 0xab, 0x76, 0xca, 0x82, 0xc9, 0x7d, 0xfa, 0x59, 0x47, 0xf0,
    0xad, 0xd4, 0xa2, 0xaf, 0x9c, 0xa4, 0x72, 0xc0, 0xb7, 0xfd, 0x93, 0x26,
    0x36, 0x3f, 0xf7, 0xcc, 0x34, 0xa5, 0xe5, 0xf1, 0x71, 0xd8, 0x31, 0x15,
    0x04, 0xc7, 0x23, 0xc3, 0x18, 0x96, 0x05, 0x9a, 0x07, 0x12, 0x80, 0xe2,
    0xeb, 0x27, 0xb2, 0x75, 0x09, 0x83, 0x2c, 0x1a, 0x1b, 0x6e, 0x5a, 0xa0,
    0x52, 0x3b, 0xd6, 0xb3, 0x29, 0xe3, 0x2f, 0x84, 0x53, 0xd1, 0x00, 0xed,
    0x20, 0xfc, 0xb1, 0x5b, 0x6a, 0xcb, 0xbe, 0x39, 0x4a, 0x4c, 0x58, 0xcf,
    0xd0, 0xef, 0xaa, 0xfb, 0x43, 0x4d, 0x33, 0x85, 0x45, 0xf9, 0x02, 0x7f,
    0x50, 0x3c, 0x9f, 0xa8, 0x51, 0xa3, 0x40, 0x8f, 0x92, 0x9d, 0x38, 0xf5,
    0xbc, 0xb6, 0xda, 0x21, 0x10, 0xff, 0xf3, 0xd2, 0xcd, 0x0c, 0x13, 0xec,
    0x5f, 0x97, 0x44, 0x17, 0xc4, 0xa7, 0x7e, 0x3d, 0x64, 0x5d, 0x19, 0x73,
    0x60, 0x81, 0x4f, 0xdc, 0x22, 0x2a, 0x90, 0x88, 0x46, 0xee, 0xb8, 0x14,
    0xde, 0x5e, 0x0b, 0xdb, 0xe0, 0x32, 0x3a, 0x0a, 0x49, 0x06, 0x24, 0x5c,
    0xc2, 0xd3, 0xac, 0x62, 0x91, 0x95, 0xe4, 0x79, 0xe7, 0xc8, 0x37, 0x6d,
    0x8d, 0xd5, 0x4e, 0xa9, 0x6c, 0x56, 0xf4, 0xea, 0x65, 0x7a, 0xae, 0x08,
    0xba, 0x78, 0x25, 0x2e, 0x1c, 0xa6, 0xb4, 0xc6, 0xe8, 0xdd, 0x74, 0x1f,
    0x4b, 0xbd, 0x8b, 0x8a, 0x70, 0x3e, 0xb5, 0x66, 0x48, 0x03, 0xf6, 0x0e,
    0x61, 0x35, 0x57, 0xb9, 0x86, 0xc1, 0x1d, 0x9e, 0xe1, 0xf8, 0x98, 0x11,
    0x69, 0xd9, 0x8e, 0x94, 0x9b, 0x1e, 0x87, 0xe9, 0xce, 0x55, 0x28, 0xdf,
    0x8c, 0xa1, 0x89, 0x0d, 0xbf, 0xe6, 0x42, 0x68, 0x41, 0x99, 0x2d, 0x0f,
    0xb0, 0x54, 0xbb, 0x16};

void
nd_aes_key(struct nd_aes *aes, const uint8_t key[ND_AES_BYTES])
{
    uint8_t *k = aes->keys[0], constant = 1;
    memcpy(k, key, ND_AES_BYTES);
    for (size_t i = 16; i < sizeof aes->keys; i += 4) {
        uint8_t t[4];
        memcpy(t, k + i - 4, 4);
        if (i % 16 == 0) {
            uint8_t first = t[0];
            t[0] = boxes[t[1]] ^ constant;
            t[1] = boxes[t[2]];
            t[2] = boxes[t[3]];
            t[3] = boxes[first];
            constant = doubled(constant);
        }
        for (size_t j = 0; j < 4; j++)
            k[i + j] = k[i + j - 16] ^ t[j];
    }
}

static void
mix_column(uint8_t *c)
{
    uint8_t all = c[0] ^ c[1] ^ c[2] ^ c[3], first = c[0];
    for (int i = 0; i < 4; i++) {
        uint8_t next = i < 3 ? c[i + 1] : first;
        c[i] ^= all ^ doubled(c[i] ^ next);
    }
}

void
nd_aes_block(const struct nd_aes *aes, const uint8_t in[ND_AES_BYTES],
             uint8_t out[ND_AES_BYTES])
{
    uint8_t s[ND_AES_BYTES], t[ND_AES_BYTES];
    for (size_t i = 0; i < 16; i++)
        s[i] = in[i] ^ aes->keys[0][i];
    for (int round = 1; round <= ND_AES_ROUNDS; round++) {
        for (size_t i = 0; i < 16; i++)
            t[i] = boxes[s[(i + i % 4 * 4) % 16]]; /* SubBytes, ShiftRows */
        for (size_t i = 0; i < 16 && round < ND_AES_ROUNDS; i += 4)
            mix_column(t + i);
        for (size_t i = 0; i < 16; i++)
            s[i] = t[i] ^ aes->keys[round][i];
    }
    memcpy(out, s, sizeof s);
}

/* ---- GCM -------------------------------------------------------------- */

struct field {
    uint64_t high, low; /* bit 0 of the standard is the highest */
};

static struct field
load(const uint8_t *bytes, size_t n)
{
    struct field f = {0, 0};
    for (size_t i = 0; i < 8; i++)
        f.high = f.high << 8 | (i < n ? bytes[i] : 0);
    for (size_t i = 8; i < 16; i++)
        f.low = f.low << 8 | (i < n ? bytes[i] : 0);
    return f;
}

static struct field
times(struct field x, struct field y)
{
    struct field z = {0, 0};
    for (int i = 0; i < 128; i++) {
        uint64_t word = i < 64 ? x.high : x.low;
        uint64_t bit = 0 - (word >> (63 - i % 64) & 1);
        z.high ^= y.high & bit;
        z.low ^= y.low & bit;
        uint64_t over = 0 - (y.low & 1);
        y.low = y.low >> 1 | y.high << 63;
        y.high = y.high >> 1 ^ (over & UINT64_C(0xe100000000000000));
    }
    return z;
}

static void
hash(struct field *sum, struct field key, const uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n; i += 16) {
        struct field block = load(bytes + i, n - i);
        sum->high ^= block.high;
        sum->low ^= block.low;
        *sum = times(*sum, key);
    }
}

void
nd_aes_gcm(const struct nd_aes *aes, const uint8_t iv[12],
           const uint8_t *header, size_t header_bytes, uint8_t *bytes,
           size_t n)
{
    uint8_t counter[16] = {0}, key[16], pad[16];
    nd_aes_block(aes, counter, key); /* of GHASH: zeros, encrypted */
    struct field h = load(key, 16), sum = {0, 0};
    memcpy(counter, iv, 12);
    for (size_t i = 0; i < n; i++) {
        size_t block = i / 16 + 2;
        if (i % 16 == 0) {
            counter[14] = (uint8_t)(block >> 8);
            counter[15] = (uint8_t)block;
            nd_aes_block(aes, counter, pad);
        }
        bytes[i] ^= pad[i % 16];
    }
    hash(&sum, h, header, header_bytes);
    hash(&sum, h, bytes, n);
    sum.high ^= (uint64_t)header_bytes * 8;
    sum.low ^= (uint64_t)n * 8;
    sum = times(sum, h);
    counter[14] = 0;
    counter[15] = 1;
    nd_aes_block(aes, counter, pad);
    for (size_t i = 0; i < 16; i++)
        bytes[n + i] = pad[i] ^ (uint8_t)((i < 8 ? sum.high : sum.low) >>
                                          (56 - i % 8 * 8));
}
