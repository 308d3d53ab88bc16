/*
 * relay.c - a wire with delay, jitter, loss and hops between two TAP devices
 *
 * Usage:   relay NS_A IF_A NS_B IF_B DELAY_US JITTER_US LOSS_PPM HOPS
 *                RATE_KBIT SEED
 * In:      two existing network namespaces; the devices are created in them
 *          and vanish when the program ends.
 * Does:    carries every frame from either device to the other one, after
 *          DELAY_US + up to JITTER_US (one way) and the time the frame needs
 *          on a line of RATE_KBIT. Loses LOSS_PPM frames in a million and
 *          those that find the queue full. HOPS is taken off the TTL, as by
 *          that many routers. ARP and neighbour discovery pass unharmed.
 * Out:     the line "ready" once both devices exist; then nothing.
 * Ends:    at SIGTERM, or when its standard input is closed.
 * Why:     `tc netem` is not in every kernel; TAP devices are.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define FRAME_MAX 2048
#define QUEUE_FRAMES 1024 /* a power of two; more are tail-dropped */

struct frame {
    int64_t due;
    size_t size;
    uint8_t bytes[FRAME_MAX];
};

/* One direction: frames leave in the order in which they came. */
struct line {
    int64_t wire_free; /* when the last queued frame is off the wire */
    int64_t last_due;
    size_t head, count;
    struct frame queue[QUEUE_FRAMES];
};

struct conditions {
    int64_t delay, jitter; /* nanoseconds */
    uint32_t loss_ppm;
    int hops;
    int64_t rate_kbit;
    uint64_t random;
};

static struct line lines[2];

static int64_t
now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* xorshift64*: good enough to lose packets by. */
static uint32_t
draw(struct conditions *c, uint32_t below)
{
    c->random ^= c->random >> 12;
    c->random ^= c->random << 25;
    c->random ^= c->random >> 27;
    return (uint32_t)((c->random * 2685821657736338717u) >> 33) % below;
}

static int
open_tap(const char *namespace, const char *name)
{
    struct ifreq request = { 0 };
    char path[256];
    int home, fd;

    snprintf(path, sizeof path, "/var/run/netns/%s", namespace);
    home = open(path, O_RDONLY | O_CLOEXEC);
    if (home < 0 || setns(home, CLONE_NEWNET) != 0)
        return -1;
    close(home);
    fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return -1;
    request.ifr_flags = IFF_TAP | IFF_NO_PI;
    strncpy(request.ifr_name, name, IFNAMSIZ - 1);
    if (ioctl(fd, TUNSETIFF, &request) != 0)
        return -1;
    return fd;
}

/* RFC 1624: the checksum of an IPv4 header whose TTL went down. */
static void
lower_ttl4(uint8_t *ip, int hops)
{
    uint32_t sum = (uint32_t)ip[10] << 8 | ip[11];

    ip[8] = (uint8_t)(ip[8] - hops);
    sum += (uint32_t)hops << 8;
    sum = (sum & 0xffff) + (sum >> 16);
    ip[10] = (uint8_t)(sum >> 8);
    ip[11] = (uint8_t)sum;
}

/* 1: an IP packet of hosts; 0: link traffic that a router never sees. */
static int
age(uint8_t *frame, size_t size, int hops)
{
    uint8_t *ip = frame + 14;

    if (size >= 34 && frame[12] == 0x08 && frame[13] == 0x00) {
        if (ip[8] > hops)
            lower_ttl4(ip, hops);
        return 1;
    }
    if (size >= 55 && frame[12] == 0x86 && frame[13] == 0xdd) {
        if (ip[6] == 58 && ip[40] >= 130 && ip[40] <= 143)
            return 0;
        if (ip[7] > hops)
            ip[7] = (uint8_t)(ip[7] - hops);
        return ip[6] != 0;
    }
    return 0;
}

static void
take(int fd, struct line *line, struct conditions *c)
{
    uint8_t bytes[FRAME_MAX];
    ssize_t size;

    while ((size = read(fd, bytes, sizeof bytes)) > 0) {
        int64_t at = now();
        struct frame *f;
        int host = age(bytes, (size_t)size, c->hops);

        if (line->count == QUEUE_FRAMES)
            continue;
        if (host && draw(c, 1000000) < c->loss_ppm)
            continue;
        if (line->wire_free < at)
            line->wire_free = at;
        line->wire_free += size * 8 * 1000000 / c->rate_kbit;
        f = &line->queue[(line->head + line->count++) % QUEUE_FRAMES];
        f->due = line->wire_free + c->delay;
        if (c->jitter >= 1000)
            f->due += (int64_t)draw(c, (uint32_t)(c->jitter / 1000)) * 1000;
        if (f->due < line->last_due)
            f->due = line->last_due;
        line->last_due = f->due;
        f->size = (size_t)size;
        memcpy(f->bytes, bytes, (size_t)size);
    }
}

/* Sends what is due; returns when the next frame is, or -1. */
static int64_t
give(int fd, struct line *line)
{
    while (line->count > 0) {
        struct frame *f = &line->queue[line->head];

        if (f->due > now())
            return f->due;
        if (write(fd, f->bytes, f->size) < 0 && errno == EAGAIN)
            return now() + 100000;
        line->head = (line->head + 1) % QUEUE_FRAMES;
        line->count--;
    }
    return -1;
}

static void
carry(const int fds[2], struct conditions *c)
{
    struct pollfd polls[3] = { { .fd = fds[0], .events = POLLIN },
                               { .fd = fds[1], .events = POLLIN },
                               { .fd = STDIN_FILENO, .events = POLLIN } };

    for (;;) {
        int64_t a = give(fds[1], &lines[0]), b = give(fds[0], &lines[1]);
        int64_t next = a < 0 || (b >= 0 && b < a) ? b : a;
        int64_t wait = next < 0 ? 1000000000 : next - now();
        struct timespec t = { 0 };
        char end;

        if (wait > 0) {
            t.tv_sec = (time_t)(wait / 1000000000);
            t.tv_nsec = (long)(wait % 1000000000);
        }
        if (ppoll(polls, 3, &t, NULL) < 0 && errno != EINTR)
            return;
        if ((polls[2].revents & (POLLIN | POLLHUP)) &&
            read(STDIN_FILENO, &end, 1) <= 0)
            return;
        take(fds[0], &lines[0], c);
        take(fds[1], &lines[1], c);
    }
}

int
main(int argc, char **argv)
{
    struct conditions c;
    int fds[2];

    if (argc != 11) {
        fprintf(stderr, "usage: relay NS_A IF_A NS_B IF_B DELAY_US JITTER_US "
                        "LOSS_PPM HOPS RATE_KBIT SEED\n");
        return 2;
    }
    for (int i = 0; i < 2; i++) {
        fds[i] = open_tap(argv[1 + 2 * i], argv[2 + 2 * i]);
        if (fds[i] < 0) {
            perror(argv[1 + 2 * i]);
            return 1;
        }
    }
    c.delay = atoll(argv[5]) * 1000;
    c.jitter = atoll(argv[6]) * 1000;
    c.loss_ppm = (uint32_t)atol(argv[7]);
    c.hops = atoi(argv[8]);
    c.rate_kbit = atoll(argv[9]);
    c.random = strtoull(argv[10], NULL, 10) * 2654435769u + 88172645463325252u;
    puts("ready");
    fflush(stdout);
    carry(fds, &c);
    return 0;
}
