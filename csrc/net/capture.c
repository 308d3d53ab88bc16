#define _DEFAULT_SOURCE /* ftello(), u_char in pcap.h */
#define _FILE_OFFSET_BITS 64
#include "capture.h"

#include <pcap/pcap.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "packet.h"
#include "pcapng.h"

enum {
    FILE_BUFFER = 1 << 17,
    SNAP_MOST = 262144,
    NS_PER_US = 1000,
    NS_PER_SECOND = 1000000000
};

#define KNOWN_LINKS                                                           \
    "Ethernet, raw IP, null/loop, Linux cooked, PPP and PPPoE"

struct nd_capture {
    pcap_t *pcap;
    FILE *file; /* belongs to pcap */
    char *name;
    struct bpf_program filter;
    bool filters;
    bool pcapng;
    bool seekable; /* not a pipe */
    uint64_t records;
    int64_t before; /* place in the file before the latest record, or -1 */
    char cut[512];
};

static enum nd_status
open_failed(const char *name, const char *told, struct nd_error *err)
{
    if (strstr(told, "unknown file format") != NULL)
        return nd_fail(err, ND_CAPTURE,
                       "%s: not a capture: it does not begin like pcap or "
                       "pcapng. Give a file that tcpdump or Wireshark wrote, "
                       "unpacked.",
                       name);
    if (strstr(told, "only got 0") != NULL)
        return nd_fail(err, ND_CAPTURE,
                       "%s: the file is empty (0 bytes), so it holds no "
                       "packets. Capture again, or leave it out.",
                       name);
    if (strstr(told, "error reading") != NULL)
        return nd_fail(err, ND_IO, "%s: cannot be read: %s.", name, told);
    return nd_fail(err, ND_CAPTURE,
                   "%s: the header of the capture is cut or damaged "
                   "(libpcap: %s). No packet can be read; leave it out.",
                   name, told);
}

static enum nd_status
compile_filter(struct nd_capture *capture, const char *bpf,
               struct nd_error *err)
{
    if (pcap_compile(capture->pcap, &capture->filter, bpf, 1,
                     PCAP_NETMASK_UNKNOWN) != 0)
        return nd_fail(err, ND_ARGUMENT,
                       "%s: the filter \"%s\" does not compile: %s. See "
                       "pcap-filter(7).",
                       capture->name, bpf, pcap_geterr(capture->pcap));
    capture->filters = true;
    return ND_OK;
}

static enum nd_status
attach(struct nd_capture *capture, FILE *file, const char *bpf,
       struct nd_error *err)
{
    char told[PCAP_ERRBUF_SIZE] = "";
    (void)setvbuf(file, NULL, _IOFBF, FILE_BUFFER);
    /* After a seek glibc knows the place without asking the system. */
    capture->seekable = fseeko(file, 0, SEEK_SET) == 0;
    capture->pcap = pcap_fopen_offline_with_tstamp_precision(
        file, PCAP_TSTAMP_PRECISION_NANO, told);
    if (capture->pcap == NULL) {
        enum nd_status status = open_failed(capture->name, told, err);
        (void)fclose(file);
        return status;
    }
    capture->file = file;
    /* libpcap gives pcapng the version 1 of its sections, pcap 2. */
    capture->pcapng = pcap_major_version(capture->pcap) == 1;
    if (!nd_packet_knows_link(nd_capture_link(capture)))
        return nd_fail(err, ND_CAPTURE,
                       "%s: link type %d (%s) is none that netdiffusion "
                       "reads (" KNOWN_LINKS "). Convert the capture, or "
                       "capture on another interface.",
                       capture->name, nd_capture_link(capture),
                       nd_capture_link_name(capture));
    return bpf == NULL ? ND_OK : compile_filter(capture, bpf, err);
}

static char *
copy_text(const char *text)
{
    size_t n = strlen(text) + 1;
    char *copy = malloc(n);
    if (copy != NULL)
        memcpy(copy, text, n);
    return copy;
}

enum nd_status
nd_capture_attach(FILE *file, const char *name, const char *bpf,
                  struct nd_capture **capture, struct nd_error *err)
{
    struct nd_capture *made = calloc(1, sizeof *made);
    if (made != NULL)
        made->name = copy_text(name);
    if (made == NULL || made->name == NULL) {
        free(made);
        (void)fclose(file);
        return nd_fail(err, ND_NO_MEMORY, "%s: no memory to open it", name);
    }
    enum nd_status status = attach(made, file, bpf, err);
    if (status != ND_OK) {
        nd_capture_destroy(made);
        made = NULL;
    }
    *capture = made;
    return status;
}

enum nd_status
nd_capture_open(const char *path, const char *bpf,
                struct nd_capture **capture, struct nd_error *err)
{
    FILE *file = fopen(path, "rb");
    *capture = NULL;
    if (file == NULL)
        return nd_fail(err, ND_IO, "%s: cannot be opened: %s.", path,
                       strerror(errno));
    return nd_capture_attach(file, path, bpf, capture, err);
}

void
nd_capture_destroy(struct nd_capture *capture)
{
    if (capture == NULL)
        return;
    if (capture->filters)
        pcap_freecode(&capture->filter);
    if (capture->pcap != NULL)
        pcap_close(capture->pcap);
    free(capture->name);
    free(capture);
}

const char *
nd_capture_name(const struct nd_capture *capture)
{
    return capture->name;
}

int
nd_capture_link(const struct nd_capture *capture)
{
    return pcap_datalink(capture->pcap);
}

const char *
nd_capture_link_name(const struct nd_capture *capture)
{
    const char *name = pcap_datalink_val_to_name(nd_capture_link(capture));
    return name == NULL ? "no name" : name;
}

const char *
nd_capture_cut(const struct nd_capture *capture)
{
    return capture->cut;
}

/* Where a pcapng block begins that ends here: other blocks may stand
 * between the packet before and this one. */
static int64_t
block_start(const struct nd_capture *capture)
{
    int64_t end = ftello(capture->file);
    int64_t start = capture->before;
    uint8_t last[4];
    if (end < 4 || fseeko(capture->file, end - 4, SEEK_SET) != 0)
        return start;
    if (fread(last, sizeof last, 1, capture->file) == 1) {
        uint64_t found = nd_pcapng_block_start(last, (uint64_t)end,
                                               (uint64_t)capture->before);
        start = found == 0 ? start : (int64_t)found;
    }
    (void)fseeko(capture->file, end, SEEK_SET);
    return start;
}

int64_t
nd_capture_offset(const struct nd_capture *capture)
{
    if (capture->pcapng && capture->before >= 0)
        return block_start(capture);
    return capture->before;
}

/* Seconds and the part below, which libpcap calls tv_usec. */
static int64_t
time_of(const struct timeval *time)
{
    int64_t seconds = time->tv_sec;
    int64_t below = time->tv_usec;
    if (seconds < 0 || below < 0)
        return 0;
    if (seconds > ND_TIME_MOST / NS_PER_SECOND - 5000 ||
        below > 5000LL * NS_PER_SECOND)
        return ND_TIME_MOST;
    return seconds * NS_PER_SECOND + below;
}

/* libpcap's text says what it wanted and what was left. */
static void
describe_cut(struct nd_capture *capture)
{
    const char *told = pcap_geterr(capture->pcap);
    const char *wanted = strstr(told, "tried to read ");
    const char *got = strstr(told, "only got ");
    char sizes[256];
    if (wanted != NULL && got != NULL)
        snprintf(sizes, sizeof sizes, "is cut short (%lu bytes left, %s %lu)",
                 strtoul(got + 9, NULL, 10),
                 strstr(told, "header bytes") ? "a header has"
                                              : "header says",
                 strtoul(wanted + 14, NULL, 10));
    else
        snprintf(sizes, sizeof sizes, "cannot be read (libpcap: %.180s)",
                 told);
    snprintf(capture->cut, sizeof capture->cut,
             "packet %llu at byte %lld %s. %llu packet%s read",
             (unsigned long long)capture->records + 1,
             (long long)capture->before, sizes,
             (unsigned long long)capture->records,
             capture->records == 1 ? " was" : "s were");
}

enum nd_read
nd_capture_next(struct nd_capture *capture, struct nd_record *record)
{
    struct pcap_pkthdr *header = NULL;
    const u_char *bytes = NULL;
    capture->before = capture->seekable ? ftello(capture->file) : -1;
    int result = pcap_next_ex(capture->pcap, &header, &bytes);
    if (result == PCAP_ERROR_BREAK)
        return ND_READ_END;
    if (result != 1) {
        describe_cut(capture);
        return ND_READ_CUT;
    }
    record->bytes = bytes;
    record->captured = header->caplen;
    record->wire_length =
        header->len > header->caplen ? header->len : header->caplen;
    record->time = time_of(&header->ts);
    record->number = capture->records++;
    record->filtered = capture->filters &&
                       pcap_offline_filter(&capture->filter, header,
                                           bytes) == 0;
    return ND_READ_RECORD;
}

struct nd_dump {
    struct nd_dump_options options;
    FILE *file;          /* belongs to pcap when that is not NULL */
    pcap_t *dead;        /* pcap only */
    pcap_dumper_t *pcap; /* pcap only */
};

static enum nd_status
begin_pcap(struct nd_dump *dump, struct nd_error *err)
{
    dump->dead = pcap_open_dead_with_tstamp_precision(
        DLT_EN10MB, (int)dump->options.snap_length,
        dump->options.nanoseconds ? PCAP_TSTAMP_PRECISION_NANO
                                  : PCAP_TSTAMP_PRECISION_MICRO);
    if (dump->dead == NULL)
        return nd_fail(err, ND_NO_MEMORY, "no memory to write a capture");
    dump->pcap = pcap_dump_fopen(dump->dead, dump->file);
    if (dump->pcap == NULL)
        return nd_fail(err, ND_IO, "%s", pcap_geterr(dump->dead));
    return ND_OK;
}

enum nd_status
nd_dump_create(const char *path, const struct nd_dump_options *options,
               struct nd_dump **out, struct nd_error *err)
{
    enum nd_status status = ND_OK;
    *out = NULL;
    if (options->snap_length == 0 || options->snap_length > SNAP_MOST)
        return nd_fail(err, ND_ARGUMENT,
                       "snap_length must be 1 to %d bytes, not %u", SNAP_MOST,
                       (unsigned)options->snap_length);
    struct nd_dump *dump = calloc(1, sizeof *dump);
    if (dump == NULL)
        return nd_fail(err, ND_NO_MEMORY, "no memory to write a capture");
    dump->options = *options;
    dump->file = fopen(path, "wb");
    if (dump->file == NULL) {
        status = nd_fail(err, ND_IO, "%s: cannot be written: %s.", path,
                         strerror(errno));
    } else if (options->pcapng) {
        nd_pcapng_begin(dump->file, options->snap_length,
                        options->nanoseconds);
    } else {
        status = begin_pcap(dump, err);
    }
    if (status != ND_OK) {
        nd_dump_destroy(dump);
        return status;
    }
    *out = dump;
    return ND_OK;
}

enum nd_status
nd_dump_put(struct nd_dump *dump, const uint8_t *bytes, size_t stored,
            uint32_t wire_length, int64_t time, struct nd_error *err)
{
    int64_t unit = dump->options.nanoseconds ? 1 : NS_PER_US;
    if (time < 0 || time / NS_PER_SECOND > UINT32_MAX)
        return nd_fail(err, ND_ARGUMENT,
                       "a packet's time is %lld ns: captures hold 0 (1970) "
                       "to 4294967295 s (2106)",
                       (long long)time);
    if (stored > dump->options.snap_length)
        stored = dump->options.snap_length;
    if (dump->options.pcapng) {
        nd_pcapng_packet(dump->file, bytes, stored, wire_length,
                         (uint64_t)(time / unit));
    } else {
        struct pcap_pkthdr header = {0};
        header.ts.tv_sec = (time_t)(time / NS_PER_SECOND);
        header.ts.tv_usec = (suseconds_t)(time % NS_PER_SECOND / unit);
        header.caplen = (bpf_u_int32)stored;
        header.len = wire_length;
        pcap_dump((u_char *)dump->pcap, &header, bytes);
    }
    if (ferror(dump->file))
        return nd_fail(err, ND_IO, "the capture cannot be written: %s.",
                       strerror(errno));
    return ND_OK;
}

enum nd_status
nd_dump_close(struct nd_dump *dump, struct nd_error *err)
{
    enum nd_status status = ND_OK;
    if (fflush(dump->file) != 0 || ferror(dump->file))
        status = nd_fail(err, ND_IO, "the capture cannot be written: %s.",
                         strerror(errno));
    nd_dump_destroy(dump);
    return status;
}

void
nd_dump_destroy(struct nd_dump *dump)
{
    if (dump == NULL)
        return;
    if (dump->pcap != NULL)
        pcap_dump_close(dump->pcap);
    else if (dump->file != NULL)
        (void)fclose(dump->file);
    if (dump->dead != NULL)
        pcap_close(dump->dead);
    free(dump);
}

const char *
nd_capture_library(void)
{
    return pcap_lib_version();
}
