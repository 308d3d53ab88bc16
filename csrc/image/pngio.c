#include "pngio.h"

#include <errno.h>
#include <png.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    CHANNELS = 3,
    SIGNATURE_BYTES = 8,
    MAX_CHUNKS = 256,
    MAX_CHUNK_BYTES = 16 << 20, /* a text chunk may expand to this */
    LONG_TEXT = 1000            /* compressed from here on */
};

struct nd_png {
    png_structp png;
    png_infop info;
    FILE *file;
    uint8_t *pixels;
    png_textp texts;
    int n_texts;
    int passes;
    size_t width, height;
    char message[128]; /* of libpng, written just before it jumps */
    char path[256];    /* for messages only */
};

static void
keep_message(png_structp png, png_const_charp message)
{
    struct nd_png *self = png_get_error_ptr(png);
    snprintf(self->message, sizeof self->message, "%s", message);
    png_longjmp(png, 1);
}

static void
ignore_message(png_structp png, png_const_charp message)
{
    (void)png;
    (void)message;
}

/* ---- cells and pixels -------------------------------------------------- */

static const uint8_t colour_of_cell[3][CHANNELS] = {
    {0, 0, 255}, /* -1 */
    {0, 255, 0}, /* 0 */
    {255, 0, 0}, /* 1 */
};

static void
cells_to_pixels(const int8_t *cells, size_t n, uint8_t *pixels)
{
    for (size_t i = 0; i < n; i++) {
        int colour = cells[i] < 0 ? 0 : cells[i] == 0 ? 1 : 2;
        memcpy(pixels + i * CHANNELS, colour_of_cell[colour], CHANNELS);
    }
}

static void
pixels_to_cells(const uint8_t *pixels, size_t n, int8_t *cells)
{
    for (size_t i = 0; i < n; i++) {
        const uint8_t *p = pixels + i * CHANNELS;
        if (p[2] >= p[0] && p[2] >= p[1])
            cells[i] = -1;
        else
            cells[i] = p[0] >= p[1];
    }
}

/* ---- writing ----------------------------------------------------------- */

static bool
is_ascii(const char *text)
{
    for (; *text != '\0'; text++)
        if ((unsigned char)*text > 127)
            return false;
    return true;
}

/* Plain chunks where they hold the text, as more tools show those. */
static int
text_form(const char *value)
{
    bool is_long = strlen(value) >= LONG_TEXT;
    if (is_ascii(value))
        return is_long ? PNG_TEXT_COMPRESSION_zTXt : PNG_TEXT_COMPRESSION_NONE;
    return is_long ? PNG_ITXT_COMPRESSION_zTXt : PNG_ITXT_COMPRESSION_NONE;
}

static void
write_text(struct nd_png *self, const struct nd_png_text *text)
{
    png_text chunk = {0};
    chunk.compression = text_form(text->value);
    chunk.key = (png_charp)(uintptr_t)text->key;
    chunk.text = (png_charp)(uintptr_t)text->value;
    png_set_text(self->png, self->info, &chunk, 1);
}

/* false: libpng has jumped, self->message says why. */
static bool
write_all(struct nd_png *self, const int8_t *rows,
          const struct nd_png_text *text, size_t n_text)
{
    if (setjmp(png_jmpbuf(self->png)))
        return false;
    png_init_io(self->png, self->file);
    png_set_IHDR(self->png, self->info, (png_uint_32)self->width,
                 (png_uint_32)self->height, 8, PNG_COLOR_TYPE_RGB,
                 PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT,
                 PNG_FILTER_TYPE_DEFAULT);
    /* neighbours in time are alike: a packet less the one above */
    png_set_filter(self->png, PNG_FILTER_TYPE_BASE, PNG_FILTER_UP);
    for (size_t i = 0; i < n_text; i++)
        write_text(self, &text[i]);
    png_write_info(self->png, self->info);
    for (size_t y = 0; y < self->height; y++) {
        cells_to_pixels(rows + y * self->width, self->width, self->pixels);
        png_write_row(self->png, self->pixels);
    }
    png_write_end(self->png, NULL);
    return true;
}

static enum nd_status
open_writer(struct nd_png *self, const char *path, struct nd_error *err)
{
    size_t bytes;
    self->png = png_create_write_struct(PNG_LIBPNG_VER_STRING, self,
                                        keep_message, ignore_message);
    if (self->png != NULL)
        self->info = png_create_info_struct(self->png);
    if (nd_mul_size(self->width, CHANNELS, &bytes))
        self->pixels = malloc(bytes);
    if (self->info == NULL || self->pixels == NULL)
        return nd_fail(err, ND_NO_MEMORY, "%s: out of memory", path);
    self->file = fopen(path, "wb");
    if (self->file == NULL)
        return nd_fail(err, ND_IO, "%s: %s", path, strerror(errno));
    return ND_OK;
}

enum nd_status
nd_png_write(const char *path, const int8_t *rows, size_t height,
             size_t width, const struct nd_png_text *text, size_t n_text,
             struct nd_error *err)
{
    struct nd_png self = {.width = width, .height = height};
    bool opened;
    if (height == 0 || height > ND_PNG_MAX_HEIGHT || width == 0)
        return nd_fail(err, ND_ARGUMENT,
                       "%s: a picture has 1 to %d packets; this flow has %zu",
                       path, ND_PNG_MAX_HEIGHT, height);
    enum nd_status status = open_writer(&self, path, err);
    opened = self.file != NULL;
    if (status == ND_OK && !write_all(&self, rows, text, n_text))
        status = nd_fail(err, ND_IO, "%s: %s", path, self.message);
    if (opened && fclose(self.file) != 0 && status == ND_OK)
        status = nd_fail(err, ND_IO, "%s: %s", path, strerror(errno));
    if (opened && status != ND_OK)
        remove(path);
    png_destroy_write_struct(&self.png, &self.info);
    free(self.pixels);
    return status;
}

/* ---- reading ----------------------------------------------------------- */

static enum nd_status
check_signature(struct nd_png *self, struct nd_error *err)
{
    uint8_t signature[SIGNATURE_BYTES];
    size_t n = fread(signature, 1, sizeof signature, self->file);
    if (n == 0 && ferror(self->file))
        return nd_fail(err, ND_IO, "%s: %s", self->path, strerror(errno));
    if (n == 0)
        return nd_fail(err, ND_FORMAT, "%s: the file is empty", self->path);
    if (png_sig_cmp(signature, 0, n) != 0 || n < sizeof signature)
        return nd_fail(err, ND_FORMAT, "%s: not a PNG picture", self->path);
    return ND_OK;
}

/* To 8-bit RGB, whatever it is. */
static void
ask_for_rgb(png_structp png)
{
    png_set_expand(png);
    png_set_scale_16(png);
    png_set_strip_alpha(png);
    png_set_gray_to_rgb(png);
}

static bool
read_head(struct nd_png *self, size_t max_width)
{
    if (setjmp(png_jmpbuf(self->png)))
        return false;
    png_set_user_limits(self->png, (png_uint_32)max_width,
                        ND_PNG_MAX_HEIGHT);
    png_set_chunk_cache_max(self->png, MAX_CHUNKS);
    png_set_chunk_malloc_max(self->png, MAX_CHUNK_BYTES);
    png_init_io(self->png, self->file);
    png_set_sig_bytes(self->png, SIGNATURE_BYTES);
    png_read_info(self->png, self->info);
    self->width = png_get_image_width(self->png, self->info);
    self->height = png_get_image_height(self->png, self->info);
    ask_for_rgb(self->png);
    self->passes = png_set_interlace_handling(self->png);
    png_read_update_info(self->png, self->info);
    if (png_get_rowbytes(self->png, self->info) != self->width * CHANNELS)
        png_error(self->png, "an unknown form of pixels");
    return true;
}

static enum nd_status
format_error(const struct nd_png *self, struct nd_error *err)
{
    return nd_fail(err, ND_FORMAT,
                   "%s: the picture is cut, damaged or too large (%s)",
                   self->path, self->message);
}

static enum nd_status
open_reader(struct nd_png *self, const char *path, size_t max_width,
            struct nd_error *err)
{
    snprintf(self->path, sizeof self->path, "%s", path);
    self->file = fopen(path, "rb");
    if (self->file == NULL)
        return nd_fail(err, ND_IO, "%s: %s", path, strerror(errno));
    enum nd_status status = check_signature(self, err);
    if (status != ND_OK)
        return status;
    self->png = png_create_read_struct(PNG_LIBPNG_VER_STRING, self,
                                       keep_message, ignore_message);
    if (self->png != NULL)
        self->info = png_create_info_struct(self->png);
    if (self->info == NULL)
        return nd_fail(err, ND_NO_MEMORY, "%s: out of memory", path);
    if (!read_head(self, max_width))
        return format_error(self, err);
    /* interlaced: the seven passes need all rows at hand */
    size_t bytes, n_rows = self->passes > 1 ? self->height : 1;
    if (nd_mul_size(self->width * CHANNELS, n_rows, &bytes))
        self->pixels = calloc(bytes, 1);
    if (self->pixels == NULL)
        return nd_fail(err, ND_NO_MEMORY, "%s: out of memory", path);
    return ND_OK;
}

enum nd_status
nd_png_open(const char *path, size_t max_width, struct nd_png **png,
            struct nd_error *err)
{
    *png = NULL;
    struct nd_png *self = calloc(1, sizeof *self);
    if (self == NULL)
        return nd_fail(err, ND_NO_MEMORY, "%s: out of memory", path);
    enum nd_status status = open_reader(self, path, max_width, err);
    if (status != ND_OK)
        nd_png_close(self);
    else
        *png = self;
    return status;
}

size_t
nd_png_width(const struct nd_png *png)
{
    return png->width;
}

size_t
nd_png_height(const struct nd_png *png)
{
    return png->height;
}

static bool
read_pixels(struct nd_png *self, int8_t *rows)
{
    if (setjmp(png_jmpbuf(self->png)))
        return false;
    size_t stride = self->passes > 1 ? self->width * CHANNELS : 0;
    for (int pass = 0; pass < self->passes; pass++)
        for (size_t y = 0; y < self->height; y++) {
            uint8_t *pixels = self->pixels + y * stride;
            png_read_row(self->png, pixels, NULL);
            if (pass == self->passes - 1)
                pixels_to_cells(pixels, self->width, rows + y * self->width);
        }
    png_read_end(self->png, self->info);
    png_get_text(self->png, self->info, &self->texts, &self->n_texts);
    return true;
}

enum nd_status
nd_png_read(struct nd_png *png, int8_t *rows, struct nd_error *err)
{
    return read_pixels(png, rows) ? ND_OK : format_error(png, err);
}

size_t
nd_png_texts(const struct nd_png *png)
{
    return png->n_texts > 0 ? (size_t)png->n_texts : 0;
}

struct nd_png_text
nd_png_text_at(const struct nd_png *png, size_t i)
{
    const png_text *t = &png->texts[i];
    struct nd_png_text text = {t->key, t->text != NULL ? t->text : "",
                               t->compression >= PNG_ITXT_COMPRESSION_NONE};
    return text;
}

const char *
nd_png_version(void)
{
    return png_get_libpng_ver(NULL);
}

void
nd_png_close(struct nd_png *png)
{
    if (png == NULL)
        return;
    png_destroy_read_struct(&png->png, &png->info, NULL);
    if (png->file != NULL)
        fclose(png->file);
    free(png->pixels);
    free(png);
}
