/*
 * safetensors.h - tensors of a file in the safetensors format
 *
 * In:      a path, or the bytes of a file; they may be hostile.
 * Out:     tensors by name, read as float from F32, F16 or BF16.
 * Errors:  ND_IO when the file cannot be read; ND_FORMAT, with what, where
 *          and what to do, for a Git LFS pointer, a cut file, a header that
 *          is not JSON of the right form, tensors that overlap or leave the
 *          data, a missing tensor, a wrong type or shape.
 * Memory:  the file is mapped while it is open; the index is allocated.
 * Threads: an open file is read only: any number of readers.
 * Python:  _core.Model(path).  Tests: test_safetensors.py,
 *          fuzz_safetensors.c
 *
 *   0          8                8 + n
 *   | n (LE64) | JSON, n bytes  | data                                    |
 *   JSON: {"name": {"dtype": "F16", "shape": [2, 3],
 *                   "data_offsets": [begin, end]}, ...}, offsets in data
 */
#ifndef ND_ENGINE_SAFETENSORS_H
#define ND_ENGINE_SAFETENSORS_H

#include "../status.h"

struct nd_safetensors;

enum nd_status nd_safetensors_open(const char *path,
                                   struct nd_safetensors **file,
                                   struct nd_error *err);

/* The same on bytes that the caller keeps; name is used in messages. */
enum nd_status nd_safetensors_parse(const uint8_t *bytes, size_t size,
                                    const char *name,
                                    struct nd_safetensors **file,
                                    struct nd_error *err);

void nd_safetensors_close(struct nd_safetensors *file);

/*
 * Reads a tensor of exactly rows x columns (columns 0: one axis of rows
 * elements; one row also fits a tensor with one axis) as floats.
 */
enum nd_status nd_safetensors_read(const struct nd_safetensors *file,
                                   const char *tensor, size_t rows,
                                   size_t columns, float *values,
                                   struct nd_error *err);

/* Number of tensors. */
size_t nd_safetensors_count(const struct nd_safetensors *file);

#endif
