/*
 * capture.h - capture files in and out
 *
 * In:      a path or an open FILE of a pcap (microseconds, nanoseconds, both
 *          byte orders) or pcapng file; for writing, frames.
 * Out:     records with nanosecond times and their place in the file, one at
 *          a time; a pcap or pcapng file, link type Ethernet.
 * Errors:  ND_IO for what the system refuses; ND_CAPTURE for an empty file,
 *          something else than a capture and an unknown link type;
 *          ND_ARGUMENT for a filter that does not compile. A file that is
 *          cut or breaks off ends the reading: ND_READ_CUT.
 * Memory:  one record, inside libpcap; a record's bytes live until the next
 *          call. destroy takes NULL.
 * Threads: one thread a capture; no shared state.
 * Python:  _core.CaptureReader, _core.CaptureWriter.
 *          Tests: tests/test_capture.py, tests/fuzz_capture.c
 *
 * Only capture.c includes <pcap/pcap.h>. Reading goes through libpcap, and
 * so does writing of pcap; libpcap cannot write pcapng, pcapng.c does.
 */
#ifndef ND_NET_CAPTURE_H
#define ND_NET_CAPTURE_H

#include <stdio.h>

#include "../status.h"

struct nd_capture; /* being read */
struct nd_dump;    /* being written */

struct nd_record {
    const uint8_t *bytes;
    size_t captured;
    uint32_t wire_length;
    int64_t time;    /* ns since 1970, 0 to ND_TIME_MOST */
    uint64_t number; /* from 0 */
    bool filtered;   /* the filter does not let it pass */
};

/* Later times are read as this one, so that differences cannot overflow. */
#define ND_TIME_MOST (INT64_MAX / 2)

enum nd_read { ND_READ_RECORD, ND_READ_END, ND_READ_CUT };

/* bpf: a filter as pcap-filter(7) describes it, or NULL. */
enum nd_status nd_capture_open(const char *path, const char *bpf,
                               struct nd_capture **capture,
                               struct nd_error *err);

/* The same for an open file at its start, which the capture then owns, even
 * when this fails; `name` is what messages call it. */
enum nd_status nd_capture_attach(FILE *file, const char *name,
                                 const char *bpf, struct nd_capture **capture,
                                 struct nd_error *err);

void nd_capture_destroy(struct nd_capture *capture);

enum nd_read nd_capture_next(struct nd_capture *capture,
                             struct nd_record *record);

/* Byte of the file at which the latest record begins; -1 for a pipe. */
int64_t nd_capture_offset(const struct nd_capture *capture);

/* After ND_READ_CUT: where and how the file breaks off, in words. */
const char *nd_capture_cut(const struct nd_capture *capture);

const char *nd_capture_name(const struct nd_capture *capture);
int nd_capture_link(const struct nd_capture *capture);
const char *nd_capture_link_name(const struct nd_capture *capture);

struct nd_dump_options {
    bool pcapng;
    bool nanoseconds;
    uint32_t snap_length; /* bytes kept of a frame */
};

enum nd_status nd_dump_create(const char *path,
                              const struct nd_dump_options *options,
                              struct nd_dump **dump, struct nd_error *err);

/* `stored` bytes of a frame of wire_length bytes, cut to the snap length. */
enum nd_status nd_dump_put(struct nd_dump *dump, const uint8_t *bytes,
                           size_t stored, uint32_t wire_length, int64_t time,
                           struct nd_error *err);

/* Brings all to disk and closes; the only proof that writing succeeded. */
enum nd_status nd_dump_close(struct nd_dump *dump, struct nd_error *err);

/* Closes without asking. */
void nd_dump_destroy(struct nd_dump *dump);

/* What libpcap says of its version. */
const char *nd_capture_library(void);

#endif
