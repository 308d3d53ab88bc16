/*
 * pcapng.h - writes the three blocks that a pcapng capture needs
 *
 * In:      a FILE to write to, frames.
 * Out:     a section header, one Ethernet interface and an enhanced packet
 *          block for each frame, little-endian
 *          (draft-ietf-opsawg-pcapng, sections 4.1 to 4.3).
 * Errors:  none; the caller asks ferror().
 * Memory:  allocates nothing.
 * Threads: pure functions of the FILE.
 * Python:  _core.CaptureWriter.  Tests: tests/test_capture_write.py
 */
#ifndef ND_NET_PCAPNG_H
#define ND_NET_PCAPNG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

void nd_pcapng_begin(FILE *file, uint32_t snap_length, bool nanoseconds);

/* ticks: time since 1970 in the unit that nd_pcapng_begin() was given. */
void nd_pcapng_packet(FILE *file, const uint8_t *bytes, size_t stored,
                      uint32_t wire_length, uint64_t ticks);

/*
 * Where a block begins that ends at byte `end`, given its last four bytes,
 * which repeat its length in the byte order of the section. 0 when neither
 * order gives a place at or behind `earliest`.
 */
uint64_t nd_pcapng_block_start(const uint8_t last[4], uint64_t end,
                               uint64_t earliest);

#endif
