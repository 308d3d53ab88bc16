#define _POSIX_C_SOURCE 200809L /* strdup, O_CLOEXEC */
#include "safetensors.h"
#include "json.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* The format's own limit on the header, and axes that a tensor may have. */
enum { HEADER_MOST = 100000000, AXES_MOST = 8 };

enum dtype { DTYPE_F32, DTYPE_F16, DTYPE_BF16, DTYPE_OTHER };

struct entry {
    struct nd_json_string name, dtype_name;
    enum dtype dtype;
    size_t n_axes;
    uint64_t axes[AXES_MOST];
    uint64_t begin, end; /* in the data */
};

struct nd_safetensors {
    const char *name;
    char *owned_name;
    const uint8_t *bytes, *data;
    size_t size, data_size, mapped;
    struct entry *entries;
    size_t count;
};

static const char advice[] = "copy or download the file again";

/* Characters of a string that an error shows. */
static int
shown(struct nd_json_string string)
{
    return string.length < 100 ? (int)string.length : 100;
}

static size_t
element_size(enum dtype dtype)
{
    return dtype == DTYPE_F32 ? 4 : 2;
}

static enum dtype
dtype_of(struct nd_json_string name)
{
    if (nd_json_equal(name, "F32"))
        return DTYPE_F32;
    if (nd_json_equal(name, "F16"))
        return DTYPE_F16;
    if (nd_json_equal(name, "BF16"))
        return DTYPE_BF16;
    return DTYPE_OTHER;
}

static bool
parse_shape(struct nd_json *json, struct entry *entry)
{
    if (!nd_json_expect(json, '['))
        return false;
    if (nd_json_accept(json, ']'))
        return true;
    do {
        if (entry->n_axes == AXES_MOST) {
            json->failed = true;
            return false;
        }
        if (!nd_json_number(json, &entry->axes[entry->n_axes++]))
            return false;
    } while (nd_json_accept(json, ','));
    return nd_json_expect(json, ']');
}

static bool
parse_offsets(struct nd_json *json, struct entry *entry)
{
    return nd_json_expect(json, '[') && nd_json_number(json, &entry->begin) &&
           nd_json_expect(json, ',') && nd_json_number(json, &entry->end) &&
           nd_json_expect(json, ']');
}

/* {"dtype": ..., "shape": ..., "data_offsets": ...} in any order. */
static bool
parse_entry(struct nd_json *json, struct entry *entry)
{
    bool dtype = false, shape = false, offsets = false;
    struct nd_json_string key;
    if (!nd_json_expect(json, '{'))
        return false;
    do {
        if (!nd_json_string(json, &key) || !nd_json_expect(json, ':'))
            return false;
        if (nd_json_equal(key, "dtype") && !dtype)
            dtype = nd_json_string(json, &entry->dtype_name);
        else if (nd_json_equal(key, "shape") && !shape)
            shape = parse_shape(json, entry);
        else if (nd_json_equal(key, "data_offsets") && !offsets)
            offsets = parse_offsets(json, entry);
        else
            nd_json_skip(json);
    } while (nd_json_accept(json, ','));
    entry->dtype = dtype_of(entry->dtype_name);
    return nd_json_expect(json, '}') && dtype && shape && offsets;
}

static bool
append(struct nd_safetensors *file, size_t *capacity, struct entry entry)
{
    if (file->count == *capacity) {
        size_t more = *capacity * 2 + 16;
        void *grown = realloc(file->entries, more * sizeof *file->entries);
        if (grown == NULL)
            return false;
        file->entries = grown;
        *capacity = more;
    }
    file->entries[file->count++] = entry;
    return true;
}

static enum nd_status
parse_header(struct nd_safetensors *file, struct nd_json *json,
             struct nd_error *err)
{
    size_t capacity = 0;
    bool more = nd_json_expect(json, '{') && !nd_json_accept(json, '}');
    while (more) {
        struct entry entry = {.name = {"", 0}, .dtype_name = {"", 0}};
        if (!nd_json_string(json, &entry.name) || !nd_json_expect(json, ':'))
            break;
        if (nd_json_equal(entry.name, "__metadata__")) {
            if (!nd_json_skip(json))
                break;
        } else if (!parse_entry(json, &entry)) {
            return nd_fail(err, ND_FORMAT,
                           "%s: the header's entry of tensor \"%.*s\", at "
                           "byte %zu, lacks dtype, shape or data_offsets; %s",
                           file->name, shown(entry.name),
                           entry.name.text, json->at + 8, advice);
        } else if (!append(file, &capacity, entry)) {
            return nd_fail(err, ND_NO_MEMORY, "%s: no memory for its index",
                           file->name);
        }
        more = nd_json_accept(json, ',');
        if (!more)
            nd_json_expect(json, '}');
    }
    if (json->failed || !nd_json_end(json))
        return nd_fail(err, ND_FORMAT,
                       "%s: the header is not valid JSON at byte %zu; %s",
                       file->name, json->at + 8, advice);
    return ND_OK;
}

static int
by_begin(const void *left, const void *right)
{
    const struct entry *a = left, *b = right;
    if (a->begin != b->begin)
        return a->begin < b->begin ? -1 : 1;
    return a->end < b->end ? -1 : a->end > b->end;
}

/* Elements of the shape; false when they do not fit the file at all. */
static bool
count_elements(const struct entry *entry, size_t *elements)
{
    *elements = 1;
    for (size_t i = 0; i < entry->n_axes; i++)
        if (entry->axes[i] > SIZE_MAX / 8 ||
            !nd_mul_size(*elements, (size_t)entry->axes[i], elements) ||
            *elements > SIZE_MAX / 8)
            return false;
    return true;
}

static enum nd_status
check_entry(const struct nd_safetensors *file, const struct entry *entry,
            uint64_t previous_end, struct nd_error *err)
{
    int length = shown(entry->name);
    const char *name = entry->name.text;
    size_t elements;
    if (entry->end < entry->begin || entry->end > file->data_size)
        return nd_fail(err, ND_FORMAT,
                       "%s: tensor \"%.*s\" ends at byte %llu of the data, "
                       "which has %zu bytes: the file is cut short; %s",
                       file->name, length, name,
                       (unsigned long long)entry->end, file->data_size,
                       advice);
    if (entry->begin < previous_end)
        return nd_fail(err, ND_FORMAT,
                       "%s: tensor \"%.*s\" begins at byte %llu of the data, "
                       "inside the tensor before it, which ends at %llu; %s",
                       file->name, length, name,
                       (unsigned long long)entry->begin,
                       (unsigned long long)previous_end, advice);
    if (!count_elements(entry, &elements) ||
        (entry->dtype != DTYPE_OTHER &&
         elements * element_size(entry->dtype) != entry->end - entry->begin))
        return nd_fail(err, ND_FORMAT,
                       "%s: the shape of tensor \"%.*s\" does not fit its "
                       "%llu bytes; %s",
                       file->name, length, name,
                       (unsigned long long)(entry->end - entry->begin),
                       advice);
    return ND_OK;
}

static enum nd_status
parse_file(struct nd_safetensors *file, struct nd_error *err)
{
    static const char pointer[] = "version https://git-lfs";
    uint64_t length = 0;
    if (file->size >= sizeof pointer - 1 &&
        memcmp(file->bytes, pointer, sizeof pointer - 1) == 0)
        return nd_fail(err, ND_FORMAT,
                       "%s is a Git LFS pointer, not the weights: run "
                       "\"git lfs pull\" where the file came from",
                       file->name);
    for (size_t i = 8; i > 0 && file->size >= 8; i--)
        length = length << 8 | file->bytes[i - 1];
    if (file->size < 8 || length > HEADER_MOST || length > file->size - 8)
        return nd_fail(err, ND_FORMAT,
                       "%s is cut short or no safetensors file: it has %zu "
                       "bytes, its header would need %llu; %s",
                       file->name, file->size, (unsigned long long)length,
                       advice);
    struct nd_json json = {(const char *)file->bytes + 8, (size_t)length, 0,
                           false};
    file->data = file->bytes + 8 + length;
    file->data_size = file->size - 8 - (size_t)length;
    enum nd_status status = parse_header(file, &json, err);
    if (status != ND_OK)
        return status;
    if (file->count > 0)
        qsort(file->entries, file->count, sizeof *file->entries, by_begin);
    uint64_t end = 0;
    for (size_t i = 0; i < file->count; i++) {
        status = check_entry(file, &file->entries[i], end, err);
        if (status != ND_OK)
            return status;
        end = file->entries[i].end;
    }
    return ND_OK;
}

enum nd_status
nd_safetensors_parse(const uint8_t *bytes, size_t size, const char *name,
                     struct nd_safetensors **file, struct nd_error *err)
{
    struct nd_safetensors *made = calloc(1, sizeof *made);
    if (made != NULL)
        made->owned_name = strdup(name);
    if (made == NULL || made->owned_name == NULL) {
        free(made);
        return nd_fail(err, ND_NO_MEMORY, "%s: no memory", name);
    }
    made->name = made->owned_name;
    made->bytes = bytes;
    made->size = size;
    enum nd_status status = parse_file(made, err);
    if (status == ND_OK)
        *file = made;
    else
        nd_safetensors_close(made);
    return status;
}

/* *bytes is NULL for an empty file, which cannot be mapped. */
static enum nd_status
map_file(const char *path, uint8_t **bytes, size_t *size, struct nd_error *err)
{
    struct stat about;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0 || fstat(file, &about) < 0 || !S_ISREG(about.st_mode)) {
        const char *why = file < 0 ? strerror(errno) : "not a regular file";
        if (file >= 0)
            close(file);
        return nd_fail(err, ND_IO, "%s: cannot read the weights: %s", path,
                       why);
    }
    *size = (size_t)about.st_size;
    *bytes = NULL;
    if (*size > 0) {
        void *mapped = mmap(NULL, *size, PROT_READ, MAP_PRIVATE, file, 0);
        if (mapped != MAP_FAILED)
            *bytes = mapped;
    }
    close(file);
    if (*size > 0 && *bytes == NULL)
        return nd_fail(err, ND_IO, "%s: cannot be mapped", path);
    return ND_OK;
}

enum nd_status
nd_safetensors_open(const char *path, struct nd_safetensors **file,
                    struct nd_error *err)
{
    uint8_t *bytes = NULL;
    size_t size = 0;
    enum nd_status status = map_file(path, &bytes, &size, err);
    if (status != ND_OK)
        return status;
    status = nd_safetensors_parse(bytes, size, path, file, err);
    if (status == ND_OK)
        (*file)->mapped = size;
    else if (bytes != NULL)
        munmap(bytes, size);
    return status;
}

void
nd_safetensors_close(struct nd_safetensors *file)
{
    if (file == NULL)
        return;
    if (file->mapped > 0)
        munmap((void *)(uintptr_t)file->bytes, file->mapped);
    free(file->entries);
    free(file->owned_name);
    free(file);
}

size_t
nd_safetensors_count(const struct nd_safetensors *file)
{
    return file->count;
}

static float
from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* IEEE 754 binary16. */
static float
from_half(uint32_t half)
{
    uint32_t sign = (half & 0x8000) << 16, exponent = half >> 10 & 31;
    uint32_t fraction = half & 1023;
    if (exponent == 0) { /* zero or subnormal: fraction * 2^-24 */
        float value = (float)fraction * 0x1p-24f;
        return sign != 0 ? -value : value;
    }
    if (exponent == 31)
        return from_bits(sign | 0x7F800000 | fraction << 13);
    return from_bits(sign | (exponent + 112) << 23 | fraction << 13);
}

static float
element(const struct entry *entry, const uint8_t *data, size_t i)
{
    const uint8_t *at = data + i * element_size(entry->dtype);
    uint32_t low = at[0] | (uint32_t)at[1] << 8;
    if (entry->dtype == DTYPE_F16)
        return from_half(low);
    if (entry->dtype == DTYPE_BF16)
        return from_bits(low << 16);
    return from_bits(low | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24);
}

static bool
has_shape(const struct entry *entry, size_t rows, size_t columns)
{
    if (columns == 0)
        return entry->n_axes == 1 && entry->axes[0] == rows;
    if (rows == 1 && entry->n_axes == 1)
        return entry->axes[0] == columns;
    return entry->n_axes == 2 && entry->axes[0] == rows &&
           entry->axes[1] == columns;
}

static const struct entry *
find(const struct nd_safetensors *file, const char *name)
{
    for (size_t i = 0; i < file->count; i++)
        if (nd_json_equal(file->entries[i].name, name))
            return &file->entries[i];
    return NULL;
}

enum nd_status
nd_safetensors_read(const struct nd_safetensors *file, const char *tensor,
                    size_t rows, size_t columns, float *values,
                    struct nd_error *err)
{
    const struct entry *entry = find(file, tensor);
    if (entry == NULL)
        return nd_fail(err, ND_FORMAT,
                       "%s: tensor \"%s\" is missing: the file does not "
                       "belong to the config.json beside it",
                       file->name, tensor);
    if (entry->dtype == DTYPE_OTHER)
        return nd_fail(err, ND_FORMAT,
                       "%s: tensor \"%s\" has type %.*s; F16, BF16 and F32 "
                       "can be read: save it as F16",
                       file->name, tensor, shown(entry->dtype_name),
                       entry->dtype_name.text);
    if (!has_shape(entry, rows, columns))
        return nd_fail(err, ND_FORMAT,
                       "%s: tensor \"%s\" has %zu axes, the first of %llu, "
                       "not the shape %zu x %zu that config.json asks for",
                       file->name, tensor, entry->n_axes,
                       (unsigned long long)(entry->n_axes > 0 ? entry->axes[0]
                                                              : 0),
                       rows, columns > 0 ? columns : 1);
    size_t count = rows * (columns > 0 ? columns : 1);
    for (size_t i = 0; i < count; i++)
        values[i] = element(entry, file->data + entry->begin, i);
    return ND_OK;
}
