/*
 * writer.h - rows of flows to a capture file
 *
 * In:      the arrays of flows in any layout.
 * Out:     Ethernet frames of the packets of all flows, in time order (at
 *          equal times in the order of the arrays), in a pcap or pcapng
 *          file. The headers are those of the rows; the payload, of the
 *          length that the IP header tells, is that of payload.h, or what
 *          payload_plan.h makes.
 * Errors:  those of capture.h; ND_FORMAT for a row without an IP header and
 *          ND_ARGUMENT for a time that a capture cannot hold, with the
 *          numbers of flow and packet.
 * Memory:  24 bytes a packet of one call, and one frame; with a payload
 *          that is not zeros what payload_plan.h takes beside it.
 * Threads: one thread a writer; no shared state.
 * Python:  _core.CaptureWriter.  Tests: tests/test_capture_write.py
 *
 * IPv6 extension headers are not part of a row. Where the next header field
 * names one, the smallest such header that is valid is put in, so that the
 * frame reads back as the same row. A frame that was padded to 60 bytes, the
 * least that Ethernet carries, is again.
 */
#ifndef ND_NET_WRITER_H
#define ND_NET_WRITER_H

#include "capture.h"
#include "layout.h"
#include "payload_plan.h"

struct nd_writer;

/* F flows, P packets, B cells; C order; offsets rise from 0 to P. */
struct nd_writer_flows {
    const struct nd_layout *layout;
    size_t n;                  /* F */
    const int8_t *rows;        /* (P, B) */
    const int64_t *offsets;    /* (F + 1) */
    const int64_t *timestamps; /* (P) */
    const uint8_t *direction;  /* (P) */
    const uint8_t *addresses;  /* (F, 2, 16) */
    const uint16_t *ports;     /* (F, 2) */
    const uint32_t *wire_length; /* (P), or NULL: no frame is padded */
    bool compute_checksums;    /* false: those of the rows */
    struct nd_payload_choice payload;
};

enum nd_status nd_writer_open(const char *path,
                              const struct nd_dump_options *options,
                              struct nd_writer **writer,
                              struct nd_error *err);

/* Adds to told what the payload lacked. */
enum nd_status nd_writer_write(struct nd_writer *writer,
                               const struct nd_writer_flows *flows,
                               struct nd_payload_told *told,
                               struct nd_error *err);

/* Closes the file and frees the writer, whatever comes out. */
enum nd_status nd_writer_close(struct nd_writer *writer,
                               struct nd_error *err);

/* Closes without asking; takes NULL. */
void nd_writer_destroy(struct nd_writer *writer);

#endif
