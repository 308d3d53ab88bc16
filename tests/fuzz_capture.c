/* Any bytes as a capture file: read it to flows, write the flows again. The
 * first byte chooses whether the input is a whole file, the records of a
 * pcap, or frames around which sound records are put. */
#define _GNU_SOURCE /* fmemopen() */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/reader.h"
#include "net/writer.h"

enum { FILE_MOST = 1 << 16 };

struct file {
    uint8_t bytes[FILE_MOST];
    size_t n;
};

static void
put(struct file *file, const void *bytes, size_t n)
{
    if (n > FILE_MOST - file->n)
        n = FILE_MOST - file->n;
    memcpy(file->bytes + file->n, bytes, n);
    file->n += n;
}

static void
put_pcap_header(struct file *file, uint32_t link)
{
    uint32_t header[6] = {0xa1b23c4d, 4U << 16 | 2, 0, 0, 262144, link};
    put(file, header, sizeof header);
}

/* Frames: two bytes of length and time, then the frame. */
static void
put_records(struct file *file, const uint8_t *data, size_t size)
{
    uint32_t seconds = 1000;
    while (size >= 2) {
        uint32_t n = data[0];
        if (n > size - 2)
            n = (uint32_t)size - 2;
        seconds += data[1] - 100U;
        uint32_t header[4] = {seconds, data[1], n, n + data[1] % 8 * 400U};
        put(file, header, sizeof header);
        put(file, data + 2, n);
        data += 2 + n;
        size -= 2 + n;
    }
}

static void
make_file(struct file *file, const uint8_t *data, size_t size)
{
    static const uint32_t links[] = {1, 101, 0, 113, 276, 9, 108, 51};
    file->n = 0;
    if (data[0] % 4 == 0) {
        put(file, data + 1, size - 1);
        return;
    }
    put_pcap_header(file, links[data[0] / 4 % 8]);
    if (data[0] % 4 == 1)
        put(file, data + 1, size - 1);
    else
        put_records(file, data + 1, size - 1);
}

static void *
allocate(size_t n)
{
    void *memory = malloc(n > 0 ? n : 1);
    if (memory == NULL)
        abort();
    return memory;
}

static struct nd_flow_arrays
make_arrays(size_t flows, size_t packets, size_t cells)
{
    return (struct nd_flow_arrays){
        .rows = allocate(packets * cells),
        .offsets = allocate((flows + 1) * 8),
        .timestamps = allocate(packets * 8),
        .direction = allocate(packets),
        .wire_length = allocate(packets * 4),
        .addresses = allocate(flows * 32),
        .ports = allocate(flows * 4),
        .ip_version = allocate(flows),
        .protocol = allocate(flows),
        .first_packet = allocate(flows * 8),
        .packet_number = allocate(packets * 8),
    };
}

static void
free_arrays(struct nd_flow_arrays *a)
{
    free(a->rows);
    free(a->offsets);
    free(a->timestamps);
    free(a->direction);
    free(a->wire_length);
    free(a->addresses);
    free(a->ports);
    free(a->ip_version);
    free(a->protocol);
    free(a->first_packet);
    free(a->packet_number);
}

static void
write_again(const struct nd_flow_arrays *a, size_t flows,
            const struct nd_layout *layout, bool pcapng)
{
    struct nd_dump_options options = {pcapng, !pcapng, 200};
    struct nd_writer_flows what = {
        .layout = layout,
        .n = flows,
        .rows = a->rows,
        .offsets = a->offsets,
        .timestamps = a->timestamps,
        .direction = a->direction,
        .addresses = a->addresses,
        .ports = a->ports,
        .wire_length = a->wire_length,
        .compute_checksums = pcapng,
    };
    struct nd_writer *writer = NULL;
    struct nd_payload_told told = {{0}, {0}, {0}, {0}};
    struct nd_error err;
    if (nd_writer_open("/dev/null", &options, &writer, &err) != ND_OK)
        abort();
    if (nd_writer_write(writer, &what, &told, &err) == ND_NO_MEMORY)
        abort();
    nd_writer_destroy(writer);
}

static void
read_flows(struct nd_reader *reader, size_t most, bool pcapng)
{
    const struct nd_layout *layout = nd_reader_layout(reader);
    size_t flows = 0, packets = 0;
    while (nd_reader_next(reader, most, &flows, &packets, NULL) == ND_OK &&
           flows > 0) {
        struct nd_flow_arrays arrays =
            make_arrays(flows, packets, layout->cells);
        if (nd_reader_fill(reader, &arrays, NULL) != ND_OK)
            abort();
        if ((size_t)arrays.offsets[flows] != packets)
            abort();
        write_again(&arrays, flows, layout, pcapng);
        free_arrays(&arrays);
    }
    const struct nd_reader_stats *s = nd_reader_told(reader);
    if (s->packets != s->kept + s->filtered + s->ignored + s->malformed +
                          s->fragments + s->over_limit)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct file file;
    struct nd_capture *capture = NULL;
    struct nd_reader *reader = NULL;
    if (size < 2)
        return 0;
    struct nd_reader_options options = {
        .flows = {data[1] % 16 + 1U, (int64_t)data[1] * 1000000000},
        .layout = &nd_layouts[data[1] % 3],
    };
    make_file(&file, data, size);
    FILE *stream = file.n > 0 ? fmemopen(file.bytes, file.n, "rb") : NULL;
    if (stream == NULL)
        return 0;
    if (nd_capture_attach(stream, "fuzz", NULL, &capture, NULL) == ND_OK &&
        nd_reader_attach(capture, &options, &reader, NULL) == ND_OK)
        read_flows(reader, data[1] % 7 + 1U, data[1] % 2 == 0);
    nd_reader_destroy(reader);
    return 0;
}
