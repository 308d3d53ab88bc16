#include "json.h"

#include <string.h>

enum { DEEPEST = 32 };

static bool
fail(struct nd_json *json)
{
    json->failed = true;
    return false;
}

static void
skip_space(struct nd_json *json)
{
    while (json->at < json->length &&
           memchr(" \t\r\n", json->text[json->at], 4) != NULL)
        json->at++;
}

bool
nd_json_accept(struct nd_json *json, char character)
{
    if (json->failed)
        return false;
    skip_space(json);
    if (json->at == json->length || json->text[json->at] != character)
        return false;
    json->at++;
    return true;
}

bool
nd_json_expect(struct nd_json *json, char character)
{
    return nd_json_accept(json, character) || fail(json);
}

bool
nd_json_string(struct nd_json *json, struct nd_json_string *string)
{
    if (!nd_json_expect(json, '"'))
        return false;
    size_t start = json->at;
    for (; json->at < json->length; json->at++) {
        unsigned char c = (unsigned char)json->text[json->at];
        if (c == '"') {
            *string = (struct nd_json_string){json->text + start,
                                              json->at - start};
            json->at++;
            return true;
        }
        if (c < 0x20)
            return fail(json);
        if (c == '\\')
            json->at++;
    }
    json->at = json->length;
    return fail(json);
}

bool
nd_json_number(struct nd_json *json, uint64_t *number)
{
    if (json->failed)
        return false;
    skip_space(json);
    size_t start = json->at;
    uint64_t value = 0;
    for (; json->at < json->length; json->at++) {
        char c = json->text[json->at];
        if (c < '0' || c > '9')
            break;
        if (value > (INT64_MAX - 9) / 10)
            return fail(json);
        value = value * 10 + (uint64_t)(c - '0');
    }
    if (json->at == start)
        return fail(json);
    *number = value;
    return true;
}

/* true, false, null or any number: what stands up to the next delimiter. */
static bool
skip_word(struct nd_json *json)
{
    size_t start = json->at;
    while (json->at < json->length &&
           memchr(" \t\r\n,]}", json->text[json->at], 7) == NULL)
        json->at++;
    return json->at > start || fail(json);
}

/*
 * One step into, over or out of a value. open[] holds the closing character
 * of every level.
 */
static bool
skip_step(struct nd_json *json, char *open, size_t *depth)
{
    struct nd_json_string string;
    skip_space(json);
    char c = json->at < json->length ? json->text[json->at] : '\0';
    if (c == '{' || c == '[') {
        if (*depth == DEEPEST)
            return fail(json);
        open[(*depth)++] = c == '{' ? '}' : ']';
        json->at++;
        return true;
    }
    if (*depth > 0 && c == open[*depth - 1]) {
        --*depth;
        json->at++;
        return true;
    }
    if (*depth > 0 && (c == ',' || c == ':')) {
        json->at++;
        return true;
    }
    return c == '"' ? nd_json_string(json, &string) : skip_word(json);
}

bool
nd_json_skip(struct nd_json *json)
{
    char open[DEEPEST];
    size_t depth = 0;
    do {
        if (json->failed || !skip_step(json, open, &depth))
            return false;
    } while (depth > 0);
    return true;
}

bool
nd_json_end(struct nd_json *json)
{
    if (json->failed)
        return false;
    skip_space(json);
    return json->at == json->length || fail(json);
}

bool
nd_json_equal(struct nd_json_string string, const char *text)
{
    return string.length == strlen(text) &&
           memcmp(string.text, text, string.length) == 0;
}
