/*
 * The engine without Python, for the sanitizers: random weights in memory,
 * flows drawn on one thread and on four, in chunks, in rows of their own and
 * op by op, with every stage of the sampler; a call that is stopped; a file
 * that lacks a tensor. Ends with 0 if all threads agree. test_sanitized.py
 * builds and runs it.
 */
#include "engine/cpu.h"
#include "engine/rng.h"
#include "engine/sampler.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { COLUMNS = 5, WIDTH = 32, MLP = 48, CLASSES = 2, FLOWS = 23 };

static const struct nd_dimensions SIZE = {.columns = COLUMNS,
                                          .width = WIDTH,
                                          .blocks = 1,
                                          .heads = 2,
                                          .mlp = MLP,
                                          .classes = CLASSES};

static const struct {
    const char *name;
    size_t rows, columns;
} TENSORS[] = {
    {"in.weight", WIDTH, 6 * COLUMNS},
    {"in.bias", WIDTH, 0},
    {"pos.weight", WIDTH, 64},
    {"pos.bias", WIDTH, 0},
    {"noise.0.weight", WIDTH, 32},
    {"noise.0.bias", WIDTH, 0},
    {"noise.2.weight", WIDTH, WIDTH},
    {"noise.2.bias", WIDTH, 0},
    {"length.weight", WIDTH, 32},
    {"classes.weight", CLASSES + 1, WIDTH},
    {"mod.weight", 6 * WIDTH, WIDTH},
    {"mod.bias", 6 * WIDTH, 0},
    {"blocks.0.mod", 6 * WIDTH, 0},
    {"blocks.0.qkv.weight", 3 * WIDTH, WIDTH},
    {"blocks.0.qkv.bias", 3 * WIDTH, 0},
    {"blocks.0.out.weight", WIDTH, WIDTH},
    {"blocks.0.out.bias", WIDTH, 0},
    {"blocks.0.up.weight", MLP, WIDTH},
    {"blocks.0.up.bias", MLP, 0},
    {"blocks.0.down.weight", WIDTH, MLP},
    {"blocks.0.down.bias", WIDTH, 0},
    {"final.mod.weight", 2 * WIDTH, WIDTH},
    {"final.mod.bias", 2 * WIDTH, 0},
    {"final.out.weight", 3 * COLUMNS, WIDTH},
    {"final.out.bias", 3 * COLUMNS, 0},
};

enum { N_TENSORS = sizeof TENSORS / sizeof *TENSORS, HEADER = 8192 };

static void
check(bool good, const char *what)
{
    if (!good) {
        fprintf(stderr, "drive_engine: %s\n", what);
        exit(1);
    }
}

static size_t
count_of(size_t i)
{
    return TENSORS[i].rows *
           (TENSORS[i].columns > 0 ? TENSORS[i].columns : 1);
}

/* A file of the first n tensors: normal weights, layers of order one. */
static uint8_t *
make_file(size_t n, size_t *size)
{
    size_t total = 0, at = 0;
    for (size_t i = 0; i < n; i++)
        total += count_of(i) * sizeof(float);
    char *text = calloc(1, 8 + HEADER + total);
    check(text != NULL, "no memory");
    uint64_t length = HEADER;
    memcpy(text, &length, sizeof length);
    memset(text + 8, ' ', HEADER);
    char *to = text + 8;
    for (size_t i = 0; i < n; i++) {
        size_t end = at + count_of(i) * sizeof(float);
        to += sprintf(to, "%c\"%s\":{\"dtype\":\"F32\",\"shape\":[%zu",
                      i == 0 ? '{' : ',', TENSORS[i].name, TENSORS[i].rows);
        if (TENSORS[i].columns > 0)
            to += sprintf(to, ",%zu", TENSORS[i].columns);
        to += sprintf(to, "],\"data_offsets\":[%zu,%zu]}", at, end);
        at = end;
    }
    *to++ = '}';
    *to = ' ';
    float *values = (float *)(void *)(text + 8 + HEADER);
    for (size_t i = 0; i * 4 < total / sizeof *values; i++) {
        uint32_t words[4];
        float normal[4];
        struct nd_philox_counter counter = {{(uint32_t)i, 0, 0, 0}};
        nd_philox((struct nd_philox_key){1, 2}, &counter, words);
        nd_normal(words, normal);
        for (size_t j = 0; j < 4 && i * 4 + j < total / sizeof *values; j++)
            values[i * 4 + j] = normal[j] / 6.0f;
    }
    *size = 8 + HEADER + total;
    return (uint8_t *)text;
}

static enum nd_status
stop_at_three(void *user, size_t flows, size_t step, size_t steps,
              struct nd_error *err)
{
    (void)user;
    (void)flows;
    (void)steps;
    return step == 3 ? nd_fail(err, ND_ARGUMENT, "enough") : ND_OK;
}

struct engine {
    struct nd_backend *backend;
    struct nd_rowformer *network;
};

static struct engine
open_engine(const struct nd_safetensors *file, size_t threads)
{
    struct engine engine = {NULL, NULL};
    struct nd_error err = {0};
    enum nd_status status =
        nd_cpu_backend_create(threads, NULL, &engine.backend, &err);
    if (status == ND_OK)
        status = nd_rowformer_create(engine.backend, file, &SIZE,
                                     &engine.network, &err);
    check(status == ND_OK, err.text);
    return engine;
}

static void
close_engine(struct engine engine)
{
    nd_rowformer_destroy(engine.network);
    engine.backend->functions->destroy(engine.backend);
}

/* Flows of 1 to 23 packets, or one of 130; cells has room for it twice. */
static void
draw(struct engine engine, size_t flows, size_t budget, int8_t *cells)
{
    int32_t lengths[FLOWS], classes[FLOWS];
    uint64_t ids[FLOWS];
    const float sigmas[] = {20.0f, 5.0f, 2.0f, 1.0f, 0.3f};
    struct nd_error err = {0};
    for (size_t i = 0; i < flows; i++) {
        lengths[i] = flows == 1 ? 130 : (int32_t)i + 1;
        classes[i] = (int32_t)i % (CLASSES + 1);
        ids[i] = i << 31;
    }
    struct nd_sample_request request = {
        .n_flows = flows,
        .lengths = lengths,
        .classes = classes,
        .ids = ids,
        .seed = 7,
        .sigmas = sigmas,
        .n_sigmas = sizeof sigmas / sizeof *sigmas,
        .temperature = 0.5f,
        .renoise_rounds = 1,
        .renoise_sigma = 0.5f,
        .guidance = 1.5f,
        .guidance_high = 10.0f,
        .tokens = budget,
    };
    check(nd_sample(engine.network, &request, cells, &err) == ND_OK, err.text);
    request.progress = stop_at_three;
    check(nd_sample(engine.network, &request, cells + 300 * COLUMNS, &err) !=
              ND_OK,
          "progress cannot stop a call");
}

static void
compare(struct engine one, struct engine many)
{
    static int8_t a[700 * COLUMNS], b[700 * COLUMNS];
    const size_t flows[] = {FLOWS, FLOWS, 1}, budgets[] = {0, 60, 0};
    for (size_t i = 0; i < 3; i++) {
        draw(one, flows[i], budgets[i], a);
        draw(many, flows[i], budgets[i], b);
        check(memcmp(a, b, sizeof a) == 0, "threads change cells");
    }
}

/* The child's pool starts threads of its own; the parent's goes on. */
static void
compare_after_fork(struct engine one, struct engine many)
{
    int status = 1;
    pid_t child = fork();
    if (child == 0) {
        compare(one, many);
        _exit(0);
    }
    check(child > 0 && waitpid(child, &status, 0) == child && status == 0,
          "a child cannot draw");
    compare(one, many);
}

int
main(int argc, char **argv)
{
    size_t size, cut;
    uint8_t *bytes = make_file(N_TENSORS, &size);
    uint8_t *lacking = make_file(N_TENSORS - 1, &cut);
    struct nd_safetensors *file = NULL, *less = NULL;
    struct nd_rowformer *none = NULL;
    struct nd_error err = {0};
    check(nd_safetensors_parse(bytes, size, "whole", &file, &err) == ND_OK,
          err.text);
    check(nd_safetensors_parse(lacking, cut, "less", &less, &err) == ND_OK,
          err.text);
    struct engine one = open_engine(file, 1), many = open_engine(file, 4);
    check(nd_rowformer_create(many.backend, less, &SIZE, &none, &err) != ND_OK,
          "a tensor that is missing goes unseen");
    compare(one, many);
    if (argc > 1 && strcmp(argv[1], "fork") == 0)
        compare_after_fork(one, many);
    close_engine(one);
    close_engine(many);
    nd_safetensors_close(file);
    nd_safetensors_close(less);
    free(bytes);
    free(lacking);
    puts("done");
    return 0;
}
