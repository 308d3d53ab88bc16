#include "reader.h"

#include <stdlib.h>
#include <string.h>

struct nd_reader {
    struct nd_reader_options options;
    struct nd_capture *capture;
    struct nd_flow_table *table;
    struct nd_reader_stats stats;
    size_t flows; /* taken, not yet filled in */
    bool ended;
};

enum nd_status
nd_reader_attach(struct nd_capture *capture,
                 const struct nd_reader_options *options,
                 struct nd_reader **reader, struct nd_error *err)
{
    enum nd_status status = ND_OK;
    struct nd_reader *made = calloc(1, sizeof *made);
    *reader = NULL;
    if (made == NULL) {
        nd_capture_destroy(capture);
        return nd_fail(err, ND_NO_MEMORY, "no memory for a reader");
    }
    made->capture = capture;
    made->options = *options;
    made->options.bpf = NULL;
    made->stats.link_type = nd_capture_link_name(capture);
    made->stats.told = calloc(ND_MALFORMED_TOLD, sizeof *made->stats.told);
    if (made->stats.told == NULL)
        status = nd_fail(err, ND_NO_MEMORY, "no memory for a reader");
    else
        status = nd_flow_create(&options->flows, &made->table, err);
    if (status != ND_OK) {
        nd_reader_destroy(made);
        return status;
    }
    *reader = made;
    return ND_OK;
}

enum nd_status
nd_reader_open(const char *path, const struct nd_reader_options *options,
               struct nd_reader **reader, struct nd_error *err)
{
    struct nd_capture *capture = NULL;
    *reader = NULL;
    enum nd_status status =
        nd_capture_open(path, options->bpf, &capture, err);
    if (status != ND_OK)
        return status;
    return nd_reader_attach(capture, options, reader, err);
}

void
nd_reader_destroy(struct nd_reader *reader)
{
    if (reader == NULL)
        return;
    nd_capture_destroy(reader->capture);
    nd_flow_destroy(reader->table);
    free(reader->stats.told);
    free(reader);
}

const struct nd_reader_stats *
nd_reader_told(const struct nd_reader *reader)
{
    return &reader->stats;
}

const struct nd_layout *
nd_reader_layout(const struct nd_reader *reader)
{
    return reader->options.layout;
}

static enum nd_status
note_malformed(struct nd_reader *reader, const struct nd_record *record,
               const char *reason, struct nd_error *err)
{
    struct nd_reader_stats *stats = &reader->stats;
    uint64_t n = stats->malformed++;
    if (n < ND_MALFORMED_TOLD)
        stats->told[n] = (struct nd_malformed){
            record->number + 1, nd_capture_offset(reader->capture), reason};
    if (!reader->options.raise)
        return ND_OK;
    return nd_fail(err, ND_CAPTURE,
                   "%s: packet %llu at byte %lld is malformed: %s. %llu "
                   "packet%s read before it; on_error=\"skip\" leaves it "
                   "out.",
                   nd_capture_name(reader->capture),
                   (unsigned long long)record->number + 1,
                   (long long)nd_capture_offset(reader->capture), reason,
                   (unsigned long long)record->number,
                   record->number == 1 ? " was" : "s were");
}

static enum nd_status
note_cut(struct nd_reader *reader, struct nd_error *err)
{
    reader->ended = true;
    reader->stats.cut = nd_capture_cut(reader->capture);
    if (!reader->options.raise)
        return ND_OK;
    return nd_fail(err, ND_CAPTURE, "%s: %s; on_error=\"skip\" keeps them.",
                   nd_capture_name(reader->capture), reader->stats.cut);
}

static void
count_kept(struct nd_reader_stats *stats, enum nd_flow_kept kept)
{
    switch (kept) {
    case ND_KEPT:
        stats->kept++;
        break;
    case ND_KEPT_NOT:
        stats->over_limit++;
        break;
    case ND_KEPT_NO_FLOW:
        stats->fragments++;
        break;
    }
}

/* Whether the record is a packet for a flow; counted when it is not. */
static enum nd_status
parse(struct nd_reader *reader, const struct nd_record *record,
      struct nd_packet *packet, bool *whole, struct nd_error *err)
{
    *whole = false;
    reader->stats.packets++;
    if (record->filtered) {
        reader->stats.filtered++;
        return ND_OK;
    }
    nd_packet_parse(packet, nd_capture_link(reader->capture), record->bytes,
                    record->captured, record->wire_length, record->time);
    packet->number = record->number;
    switch (packet->stopped) {
    case ND_STOP_NONE:
        *whole = true;
        return ND_OK;
    case ND_STOP_NOT_IP:
    case ND_STOP_PROTOCOL:
        reader->stats.ignored++;
        return ND_OK;
    default:
        return note_malformed(reader, record, packet->reason, err);
    }
}

/* One record of the file into the table. */
static enum nd_status
step(struct nd_reader *reader, struct nd_error *err)
{
    struct nd_record record;
    struct nd_packet packet;
    enum nd_flow_kept kept = ND_KEPT;
    bool whole = false;
    switch (nd_capture_next(reader->capture, &record)) {
    case ND_READ_END:
        reader->ended = true;
        return ND_OK;
    case ND_READ_CUT:
        return note_cut(reader, err);
    case ND_READ_RECORD:
        break;
    }
    enum nd_status status = parse(reader, &record, &packet, &whole, err);
    if (status != ND_OK || !whole)
        return status;
    status = nd_flow_add(reader->table, &packet, record.number, &kept, err);
    if (status == ND_OK)
        count_kept(&reader->stats, kept);
    return status;
}

enum nd_status
nd_reader_next(struct nd_reader *reader, size_t max_flows, size_t *flows,
               size_t *packets, struct nd_error *err)
{
    *flows = *packets = 0;
    if (max_flows == 0)
        return nd_fail(err, ND_ARGUMENT, "max_flows must be at least 1");
    while (!reader->ended && nd_flow_ready(reader->table) < max_flows) {
        enum nd_status status = step(reader, err);
        if (status != ND_OK)
            return status;
    }
    if (reader->ended)
        nd_flow_finish(reader->table);
    nd_flow_take(reader->table, max_flows, flows, packets);
    reader->flows = *flows;
    return ND_OK;
}

/* first and counts make sense: they rise, and nothing overlaps. */
static enum nd_status
check_slices(const int64_t *first, const int64_t *counts, size_t n,
             struct nd_error *err)
{
    int64_t end = 0;
    for (size_t i = 0; i < n; i++) {
        if (counts[i] < 1 || first[i] < end ||
            first[i] > INT64_MAX - counts[i])
            return nd_fail(err, ND_ARGUMENT,
                           "flow %zu: packets %lld + %lld do not follow the "
                           "flow before; first_packet must rise and slices "
                           "must not overlap",
                           i, (long long)first[i], (long long)counts[i]);
        end = first[i] + counts[i];
    }
    return ND_OK;
}

/* The next record that is number `from` or later. */
static bool
seek_record(struct nd_reader *reader, struct nd_record *record, int64_t from)
{
    enum nd_read read;
    do
        read = nd_capture_next(reader->capture, record);
    while (read == ND_READ_RECORD && record->number < (uint64_t)from);
    return read == ND_READ_RECORD;
}

static enum nd_status
slice_missing(const struct nd_reader *reader, int64_t first, int64_t end,
              int64_t missing, struct nd_error *err)
{
    const char *cut = nd_capture_cut(reader->capture);
    return nd_fail(err, ND_CAPTURE,
                   "%s: a flow is packets %lld to %lld, but packet %lld is "
                   "not there%s%.160s. Is this the capture that the manifest "
                   "speaks of?",
                   nd_capture_name(reader->capture), (long long)first,
                   (long long)end - 1, (long long)missing,
                   cut[0] == '\0' ? "" : ": ", cut);
}

/* One flow out of the packets from first to before end. */
static enum nd_status
read_slice(struct nd_reader *reader, int64_t first, int64_t end, size_t *kept,
           struct nd_error *err)
{
    struct nd_record record;
    struct nd_packet packet;
    *kept = 0;
    for (int64_t i = first; i < end; i++) {
        enum nd_flow_kept how = ND_KEPT;
        bool whole = false;
        if (!seek_record(reader, &record, i))
            return slice_missing(reader, first, end, i, err);
        enum nd_status status = parse(reader, &record, &packet, &whole, err);
        if (status == ND_OK && whole && *kept == 0)
            status =
                nd_flow_begin(reader->table, &packet, (uint64_t)first, err);
        else if (status == ND_OK && whole)
            status = nd_flow_append(reader->table, &packet, &how, err);
        if (status != ND_OK)
            return status;
        if (whole)
            count_kept(&reader->stats, how);
        *kept += whole && how == ND_KEPT;
    }
    return ND_OK;
}

enum nd_status
nd_reader_slices(struct nd_reader *reader, const int64_t *first,
                 const int64_t *counts, size_t n, size_t *packets,
                 struct nd_error *err)
{
    enum nd_status status = check_slices(first, counts, n, err);
    for (size_t i = 0; i < n && status == ND_OK; i++) {
        size_t kept = 0;
        status =
            read_slice(reader, first[i], first[i] + counts[i], &kept, err);
        if (status == ND_OK && kept == 0)
            status = nd_fail(err, ND_CAPTURE,
                             "%s: none of the packets %lld to %lld of flow "
                             "%zu is TCP, UDP or ICMP with whole headers",
                             nd_capture_name(reader->capture),
                             (long long)first[i],
                             (long long)(first[i] + counts[i] - 1), i);
    }
    if (status != ND_OK)
        return status;
    nd_flow_finish(reader->table);
    nd_flow_take(reader->table, n, &reader->flows, packets);
    return ND_OK;
}

static void
fill_flow(const struct nd_flow *flow, size_t i,
          const struct nd_flow_arrays *arrays)
{
    arrays->offsets[i + 1] = arrays->offsets[i] + flow->packets;
    memcpy(arrays->addresses + i * 32, flow->address, 32);
    arrays->ports[2 * i] = flow->port[0];
    arrays->ports[2 * i + 1] = flow->port[1];
    arrays->ip_version[i] = flow->ip_version;
    arrays->protocol[i] = flow->protocol;
    arrays->first_packet[i] = (int64_t)flow->first_packet;
}

static void
fill_packets(const struct nd_layout *layout, const struct nd_packet *packets,
             size_t n, size_t at, const struct nd_flow_arrays *arrays)
{
    for (size_t i = 0; i < n; i++) {
        arrays->timestamps[at + i] = packets[i].time;
        arrays->wire_length[at + i] = packets[i].wire_length;
        arrays->packet_number[at + i] = (int64_t)packets[i].number;
        nd_rows_encode(layout, &packets[i],
                       arrays->rows + (at + i) * layout->cells);
    }
}

enum nd_status
nd_reader_fill(struct nd_reader *reader, const struct nd_flow_arrays *arrays,
               struct nd_error *err)
{
    uint32_t most = 1;
    for (size_t i = 0; i < reader->flows; i++)
        if (nd_flow_taken(reader->table, i)->packets > most)
            most = nd_flow_taken(reader->table, i)->packets;
    struct nd_packet *packets = malloc(most * sizeof *packets);
    if (packets == NULL)
        return nd_fail(err, ND_NO_MEMORY, "no memory for %u packets", most);
    arrays->offsets[0] = 0;
    for (size_t i = 0; i < reader->flows; i++) {
        const struct nd_flow *flow = nd_flow_taken(reader->table, i);
        size_t at = (size_t)arrays->offsets[i];
        fill_flow(flow, i, arrays);
        nd_flow_unpack(reader->table, i, packets, arrays->direction + at);
        fill_packets(reader->options.layout, packets, flow->packets, at,
                     arrays);
    }
    nd_flow_drop(reader->table);
    reader->flows = 0;
    free(packets);
    return ND_OK;
}
