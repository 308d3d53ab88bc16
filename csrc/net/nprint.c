#include "nprint.h"

#include <stdbool.h>
#include <string.h>

struct line {
    const char *text;
    size_t at, end;
};

size_t
nd_nprint_lines(const char *text, size_t size)
{
    size_t lines = 0;
    for (size_t at = 0; at < size; lines++) {
        const char *end = memchr(text + at, '\n', size - at);
        at = end == NULL ? size : (size_t)(end - text) + 1;
    }
    return lines;
}

/* The end of the field that starts at line->at: a comma or the line's end. */
static size_t
field_end(const struct line *line)
{
    size_t i = line->at;
    bool may_quote = i < line->end && line->text[i] == '"';
    bool quoted = false;
    for (; i < line->end && (quoted || line->text[i] != ','); i++)
        if (may_quote && line->text[i] == '"')
            quoted = !quoted; /* a doubled quote toggles twice */
    return i;
}

/* -1, 0 or 1, maybe with blanks around it and zeros after a point. */
static bool
parse_cell(const char *text, size_t size, int8_t *cell)
{
    size_t i = 0;
    while (i < size && text[i] == ' ')
        i++;
    bool minus = i < size && text[i] == '-';
    i += minus;
    if (i == size || (text[i] != '0' && text[i] != '1'))
        return false;
    int value = text[i++] - '0';
    if (i < size && text[i] == '.')
        for (i++; i < size && text[i] == '0'; i++)
            continue;
    while (i < size && text[i] == ' ')
        i++;
    *cell = (int8_t)(minus ? -value : value);
    return i == size;
}

static enum nd_status
parse_line(struct line *line, const struct nd_nprint_columns *columns,
           int8_t *row, int64_t *spans, struct nd_nprint_place *place,
           struct nd_error *err)
{
    size_t other = 0;
    memset(row, -1, columns->cells);
    for (size_t c = 0; c < columns->columns; c++) {
        int16_t cell = columns->places[c];
        size_t end = field_end(line);
        const char *field = line->text + line->at;
        size_t size = end - line->at;
        if (cell == ND_NPRINT_OTHER) {
            spans[2 * other] = (int64_t)line->at;
            spans[2 * other + 1] = (int64_t)end;
            other++;
        } else if (!parse_cell(field, size, &row[cell])) {
            place->column = c;
            return nd_fail(err, ND_FORMAT, "'%.*s' is not -1, 0 or 1",
                           (int)(size < 20 ? size : 20), field);
        }
        bool last = c + 1 == columns->columns;
        if (last != (end == line->end)) {
            place->column = columns->columns;
            return nd_fail(err, ND_FORMAT,
                           "the line has %s than the %zu fields of the header",
                           last ? "more" : "less", columns->columns);
        }
        line->at = end + 1;
    }
    return ND_OK;
}

enum nd_status
nd_nprint_parse(const char *text, size_t size,
                const struct nd_nprint_columns *columns, int8_t *rows,
                int64_t *spans, size_t *n_rows,
                struct nd_nprint_place *place, struct nd_error *err)
{
    size_t at = 0;
    *n_rows = 0;
    for (place->line = 0; at < size; place->line++) {
        const char *newline = memchr(text + at, '\n', size - at);
        size_t next = newline == NULL ? size : (size_t)(newline - text) + 1;
        struct line line = {text, at, newline == NULL ? size : next - 1};
        at = next;
        if (line.end > line.at && text[line.end - 1] == '\r')
            line.end--;
        if (line.end == line.at)
            continue;
        enum nd_status status = parse_line(
            &line, columns, rows + *n_rows * columns->cells,
            spans + *n_rows * columns->others * 2, place, err);
        if (status != ND_OK)
            return status;
        ++*n_rows;
    }
    return ND_OK;
}

size_t
nd_nprint_format(const int8_t *row, size_t cells, char *text)
{
    size_t n = 0;
    for (size_t i = 0; i < cells; i++) {
        if (row[i] < 0)
            text[n++] = '-';
        text[n++] = row[i] == 0 ? '0' : '1';
        text[n++] = ',';
    }
    if (n > 0)
        text[n - 1] = '\n';
    return n;
}
