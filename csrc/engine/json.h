/*
 * json.h - a cursor over JSON text (RFC 8259), for headers that we check
 *
 * In:      bytes that the caller keeps alive; they may be hostile.
 * Out:     strings as slices of the text (escapes left as they are), whole
 *          numbers, the end of a value that is not wanted.
 * Errors:  the first unexpected byte sets `failed`, which sticks: every later
 *          call returns false and moves nothing.
 * Memory:  allocates nothing.
 * Threads: pure functions on the caller's cursor.
 * Python:  none.  Tests: test_safetensors.py, fuzz_safetensors.c
 */
#ifndef ND_ENGINE_JSON_H
#define ND_ENGINE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct nd_json {
    const char *text;
    size_t length, at;
    bool failed;
};

struct nd_json_string {
    const char *text;
    size_t length;
};

/* Takes one punctuation character, after white space; it must be there. */
bool nd_json_expect(struct nd_json *json, char character);

/* Takes the character if it comes next; not failing if it does not. */
bool nd_json_accept(struct nd_json *json, char character);

bool nd_json_string(struct nd_json *json, struct nd_json_string *string);

/* A number without sign, fraction and exponent, at most 2^63 - 1. */
bool nd_json_number(struct nd_json *json, uint64_t *number);

/* Goes past a value of any kind, up to 32 levels deep. */
bool nd_json_skip(struct nd_json *json);

/* Only white space is left. */
bool nd_json_end(struct nd_json *json);

bool nd_json_equal(struct nd_json_string string, const char *text);

#endif
