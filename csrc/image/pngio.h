/*
 * pngio.h - rows of cells as PNG pictures: 1 red, 0 green, -1 blue
 *
 * In:      rows of {-1, 0, 1} and text to go with them; or the path of any
 *          PNG: 1 to 16 bits, grey, palette or RGB, with alpha, interlaced.
 * Out:     a picture of 8-bit RGB, one row a packet, one column a cell; or
 *          the cells of a picture, each pixel as the nearest of the three
 *          colours, and its text chunks.
 * Errors:  ND_IO when the file cannot be opened or written, ND_FORMAT when it
 *          is no PNG, cut, damaged or larger than the caller allows.
 * Memory:  a reader owns its buffers until nd_png_close(); rows are the
 *          caller's.
 * Threads: objects are not shared; no state.
 * Python:  _core.png_write, _core.png_read.  Tests: tests/test_png.py
 *
 * The nearest of three primary colours is the brightest channel. Where blue
 * ties with another, as in black, grey and white, it wins: no header there.
 */
#ifndef ND_IMAGE_PNGIO_H
#define ND_IMAGE_PNGIO_H

#include <stdbool.h>

#include "../status.h"

enum { ND_PNG_MAX_HEIGHT = 65536 };

struct nd_png_text {
    const char *key;   /* 1 to 79 printable ASCII characters */
    const char *value; /* UTF-8, or Latin-1 when read and not utf8 */
    bool utf8;         /* set by the reader */
};

/* height: 1 to ND_PNG_MAX_HEIGHT. The file is removed when writing fails. */
enum nd_status nd_png_write(const char *path, const int8_t *rows,
                            size_t height, size_t width,
                            const struct nd_png_text *text, size_t n_text,
                            struct nd_error *err);

struct nd_png;

/* Reads up to the first pixel: the size is known, the text is not. */
enum nd_status nd_png_open(const char *path, size_t max_width,
                           struct nd_png **png, struct nd_error *err);

size_t nd_png_width(const struct nd_png *png);
size_t nd_png_height(const struct nd_png *png);

/* Reads the pixels to the end of the file; rows: height * width. */
enum nd_status nd_png_read(struct nd_png *png, int8_t *rows,
                           struct nd_error *err);

/* After nd_png_read(): the number of texts, and one of them. */
size_t nd_png_texts(const struct nd_png *png);
struct nd_png_text nd_png_text_at(const struct nd_png *png, size_t i);

const char *nd_png_version(void); /* of libpng, as it runs */

void nd_png_close(struct nd_png *png); /* NULL is fine */

#endif
