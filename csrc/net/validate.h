/*
 * validate.h - checks flows and frames against the rules of repair_rules.h
 *
 * In:      the rows of one flow of netdiffusion-1088 with times, directions
 *          and endpoints, captured or made; or one captured frame.
 * Out:     for each rule how many packets break it, and which did first.
 * Errors:  none; any cells and bytes can be judged. Only a file can fail.
 * Memory:  allocates nothing; a file needs one record.
 * Threads: pure functions, no state.
 * Python:  _core.validate, _core.validate_packets.
 *          Tests: tests/test_validate.py, tests/fuzz_repair.c
 *
 * A capture sees part of the truth: packets are lost before it, segments are
 * merged by offload, a connection began earlier. So validation is milder
 * than repair: numbers are held against each other only where both ends were
 * seen from their SYN on, and unknown options and ICMP types are no fault.
 */
#ifndef ND_NET_VALIDATE_H
#define ND_NET_VALIDATE_H

#include "../status.h"
#include "packet.h"
#include "repair_rules.h"
#include "rows.h"

struct nd_violations {
    int64_t packets[ND_RULE_COUNT]; /* that break the rule */
    int64_t first[ND_RULE_COUNT];   /* of them; -1: none */
    uint64_t *broken; /* of each packet, a bit a rule; NULL: not wanted */
};

_Static_assert(ND_RULE_COUNT <= 64, "nd_violations.broken has 64 bits");

struct nd_evidence {
    const int8_t *rows; /* n * ND_ROW_CELLS */
    const int64_t *times;
    const uint8_t *directions;
    size_t n;
    struct nd_endpoints ends;
    uint8_t ip_version;
    uint8_t protocol;
    bool known_payload; /* that of payload.h, so checksums can be held */
};

void nd_violations_clear(struct nd_violations *violations);

/* `first` counts from the flow's first packet. */
void nd_validate_flow(const struct nd_evidence *evidence,
                      struct nd_violations *violations);

/* What a frame's checksums are. */
enum nd_checksum_state {
    ND_CHECKSUM_RIGHT,
    ND_CHECKSUM_WRONG,
    ND_CHECKSUM_BLANK,  /* zero or pseudo-header only: left to the hardware */
    ND_CHECKSUM_UNKNOWN /* the payload was not captured */
};

/*
 * captured: bytes of the frame that there are from packet->ip.bytes on.
 * Lengths and checksums of one frame whose headers are whole.
 */
void nd_validate_frame(const struct nd_packet *packet, size_t captured,
                       int64_t number, struct nd_violations *violations,
                       enum nd_checksum_state *state);

/* All frames of a capture file; `first` is a packet number from 0. */
struct nd_frames_told {
    uint64_t packets;
    uint64_t states[ND_CHECKSUM_UNKNOWN + 1]; /* frames in each state */
    struct nd_violations violations;
};

/*
 * Errors are those of nd_capture_open(); a cut file ends the reading. wrong
 * gets the numbers of the first `room` frames with a wrong checksum; NULL
 * for none.
 */
enum nd_status nd_validate_capture(const char *path, int64_t *wrong,
                                   size_t room, struct nd_frames_told *told,
                                   struct nd_error *err);

#endif
