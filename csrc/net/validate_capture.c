#include <string.h>

#include "capture.h"
#include "validate.h"

static enum nd_checksum_state
judge(struct nd_frames_told *told, int link, const struct nd_record *record)
{
    struct nd_packet packet;
    enum nd_checksum_state state = ND_CHECKSUM_UNKNOWN;
    nd_packet_parse(&packet, link, record->bytes, record->captured,
                    record->wire_length, record->time);
    if (packet.stopped == ND_STOP_NONE) {
        size_t before = (size_t)(packet.ip.bytes - record->bytes);
        nd_validate_frame(&packet, record->captured - before,
                          (int64_t)record->number, &told->violations, &state);
    }
    told->packets++;
    told->states[state]++;
    return state;
}

enum nd_status
nd_validate_capture(const char *path, int64_t *wrong, size_t room,
                    struct nd_frames_told *told, struct nd_error *err)
{
    struct nd_capture *capture;
    struct nd_record record;
    memset(told, 0, sizeof *told);
    nd_violations_clear(&told->violations);
    enum nd_status status = nd_capture_open(path, NULL, &capture, err);
    if (status != ND_OK)
        return status;
    int link = nd_capture_link(capture);
    while (nd_capture_next(capture, &record) == ND_READ_RECORD) {
        uint64_t before = told->states[ND_CHECKSUM_WRONG];
        if (judge(told, link, &record) == ND_CHECKSUM_WRONG && before < room)
            wrong[before] = (int64_t)record.number;
    }
    nd_capture_destroy(capture);
    return ND_OK;
}
