/*
 * writer_fragment.h - where an IPv6 fragment stands in its packet
 *
 * In:      the flows that are written, and one packet of them whose IPv6
 *          header names a fragment header (RFC 8200 section 4.5).
 * Out:     offset, whether more follow, identification: what rows have no
 *          cells for, so it follows from the sender's packets before it.
 * Errors:  none; a later fragment without a first one begins at 8.
 * Memory:  allocates nothing.
 * Threads: pure functions, no state.
 * Python:  _core.CaptureWriter.  Tests: test_repair.py, test_capture_write.py
 *
 * A fragment without transport header goes on with the packet that its sender
 * sent before, and shares its identification.
 */
#ifndef ND_NET_WRITER_FRAGMENT_H
#define ND_NET_WRITER_FRAGMENT_H

#include "writer.h"

struct nd_fragment {
    uint32_t offset; /* in bytes, a multiple of 8 */
    bool more;
    uint32_t id;
};

/* packet: counted from the flow's first. */
struct nd_fragment nd_writer_fragment(const struct nd_writer_flows *flows,
                                      size_t flow, size_t packet);

#endif
