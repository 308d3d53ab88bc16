/* Any bytes as a frame of any link type: parse, hold the spans against the
 * bytes, encode. The frame is an allocation of its exact size, so that a read
 * past its end is seen. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "net/packet.h"
#include "net/rows.h"

static const int links[] = {
    ND_LINK_ETHERNET, ND_LINK_RAW,       ND_LINK_NULL, ND_LINK_LOOP,
    ND_LINK_COOKED,   ND_LINK_COOKED2,   ND_LINK_PPP,  ND_LINK_PPP_SERIAL,
    ND_LINK_IPV4,     ND_LINK_PPP_ETHER, ND_LINK_IPV6, 127,
};

static void
require(int holds)
{
    if (!holds)
        abort();
}

/* A span lies inside the frame, or is not there. */
static void
check_span(struct nd_span span, const uint8_t *frame, size_t n, size_t most)
{
    if (span.bytes == NULL) {
        require(span.length == 0);
        return;
    }
    require(span.bytes >= frame && span.length <= most);
    require(span.bytes + span.length <= frame + n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int8_t row[ND_MAX_CELLS];
    struct nd_packet packet;
    if (size < 3)
        return 0;
    int link = links[data[0] % (sizeof links / sizeof *links)];
    uint32_t beyond = (uint32_t)data[1] << 8 | data[2];
    size_t n = size - 3;
    uint8_t *frame = malloc(n > 0 ? n : 1);
    require(frame != NULL);
    memcpy(frame, data + 3, n);
    nd_packet_parse(&packet, link, frame, n, (uint32_t)n + beyond, 0);
    require((packet.stopped == ND_STOP_NONE) == (packet.reason == NULL));
    check_span(packet.ip, frame, n, 60);
    check_span(packet.transport, frame, n, 60);
    if (packet.stopped == ND_STOP_NONE) {
        require(packet.ip_version == 4 || packet.ip_version == 6);
        require(packet.later_fragment || packet.transport.length >= 8);
    }
    for (int i = 0; i < ND_LAYOUT_COUNT; i++)
        nd_rows_encode(&nd_layouts[i], &packet, row);
    free(frame);
    return 0;
}
