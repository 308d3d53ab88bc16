/*
 * status.h - error codes and the one place where an error's text is written
 *
 * In:      a struct nd_error that the caller owns, or NULL when only the code
 *          matters.
 * Out:     nd_fail() stores code and text and returns the code, so that a
 *          failing function ends with `return nd_fail(err, ...)`.
 * Errors:  none of its own; a text longer than the buffer is cut.
 * Memory:  allocates nothing.
 * Threads: pure functions, no state.
 * Python:  python/module.c turns each code into the exception named beside
 *          it.  Tests: tests/test_errors.py
 */
#ifndef ND_STATUS_H
#define ND_STATUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* code, Python exception */
#define ND_STATUS_LIST(X)                                                     \
    X(NO_MEMORY, "MemoryError")                                               \
    X(ARGUMENT, "ValueError")                                                 \
    X(FORMAT, "FormatError")                                                  \
    X(CAPTURE, "CaptureError")                                                \
    X(IO, "OSError")                                                          \
    X(UNSUPPORTED, "Error")                                                   \
    X(DEVICE, "DeviceError")                                                  \
    X(LOST, "DeviceLostError")

enum nd_status {
    ND_OK = 0,
#define X(code, exception) ND_##code,
    ND_STATUS_LIST(X)
#undef X
    ND_STATUS_COUNT
};

struct nd_error {
    enum nd_status code;
    char text[512];
};

#if defined(__GNUC__)
#define ND_PRINTF(text, first) __attribute__((format(printf, text, first)))
#else
#define ND_PRINTF(text, first)
#endif

/* Stores code and text in err (may be NULL) and returns code. */
enum nd_status nd_fail(struct nd_error *err, enum nd_status code,
                       const char *format, ...) ND_PRINTF(3, 4);

/* *product = a * b; false when it does not fit. */
bool nd_mul_size(size_t a, size_t b, size_t *product);

#endif
