/*
 * nprint.h - the lines of nPrint's CSV form (Holland et al., CCS 2021)
 *
 * In:      text of whole lines after the header, and for each column the
 *          cell it fills; or a row of cells.
 * Out:     rows, and where in the text the other columns of each line stand;
 *          or the text of a row.
 * Errors:  ND_FORMAT for a value that is not -1, 0 or 1 and for a line with
 *          too many or too few fields; struct nd_nprint_place says where.
 * Memory:  allocates nothing.
 * Threads: pure functions, no state.
 * Python:  _core.nprint_parse, _core.nprint_format.
 *          Tests: tests/test_nprint.py, tests/fuzz_rows.c
 *
 * Values may be written as tables of floats write them (-1.0). A field in
 * double quotes may hold commas, but no line end.
 */
#ifndef ND_NET_NPRINT_H
#define ND_NET_NPRINT_H

#include "../status.h"

enum { ND_NPRINT_OTHER = -1 }; /* place of a column that is no cell */

struct nd_nprint_place {
    size_t line;   /* counted from 0 in the text given */
    size_t column; /* counted from 0; columns: the line as a whole */
};

struct nd_nprint_columns {
    const int16_t *places; /* cell of each column, or ND_NPRINT_OTHER */
    size_t columns;
    size_t others; /* how many are ND_NPRINT_OTHER */
    size_t cells;  /* of a row; those that no column fills become -1 */
};

/* Lines in the text; empty ones and an unfinished last one count as well. */
size_t nd_nprint_lines(const char *text, size_t size);

/*
 * rows: nd_nprint_lines() rows; spans: as many times others times 2, the
 * first byte and the end of each other field. *n_rows: lines that were not
 * empty.
 */
enum nd_status nd_nprint_parse(const char *text, size_t size,
                               const struct nd_nprint_columns *columns,
                               int8_t *rows, int64_t *spans, size_t *n_rows,
                               struct nd_nprint_place *place,
                               struct nd_error *err);

/* Writes "0,1,-1,...\n" and returns its length, at most 3 * cells. */
size_t nd_nprint_format(const int8_t *row, size_t cells, char *text);

#endif
