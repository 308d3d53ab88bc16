#include "module.h"

#include "../net/layout.h"
#include "../net/nprint.h"

/* Checks and counts the places; -1 with an exception for an impossible one. */
static int
nprint_columns(PyArrayObject *places, int cells, struct nd_nprint_columns *out)
{
    out->places = PyArray_DATA(places);
    out->columns = (size_t)PyArray_DIM(places, 0);
    out->cells = (size_t)cells;
    for (size_t c = 0; c < out->columns; c++) {
        int place = out->places[c];
        out->others += place == ND_NPRINT_OTHER;
        if (place < ND_NPRINT_OTHER || place >= cells)
            goto bad;
    }
    if (cells > 0 && cells <= ND_MAX_CELLS && out->columns > 0)
        return 0;
bad:
    PyErr_SetString(PyExc_ValueError, "places: a cell is out of the row");
    return -1;
}

/* The arrays cut to the lines that hold something. */
static PyObject *
nprint_result(PyArrayObject *rows, PyArrayObject *spans, size_t n,
              enum nd_status status, const struct nd_nprint_place *place,
              const struct nd_error *err)
{
    PyObject *r = PySequence_GetSlice((PyObject *)rows, 0, (Py_ssize_t)n);
    PyObject *s = PySequence_GetSlice((PyObject *)spans, 0, (Py_ssize_t)n);
    PyObject *result = NULL;
    if (r != NULL && s != NULL)
        result = status == ND_OK
                     ? Py_BuildValue("(OOO)", r, s, Py_None)
                     : Py_BuildValue("(OO(nns))", r, s,
                                     (Py_ssize_t)place->line,
                                     (Py_ssize_t)place->column, err->text);
    Py_XDECREF(r);
    Py_XDECREF(s);
    return result;
}

static PyObject *
nprint_parse(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *object, *result = NULL;
    PyArrayObject *places = NULL, *rows = NULL, *spans = NULL;
    struct nd_nprint_columns columns = {0};
    struct nd_nprint_place place;
    struct nd_error err;
    enum nd_status status;
    const char *text;
    Py_ssize_t size;
    size_t n = 0;
    int cells;
    if (!PyArg_ParseTuple(args, "y#Oi:nprint_parse", &text, &size, &object,
                          &cells))
        return NULL;
    places = nd_py_indices(object, NPY_INT16, "places");
    if (places == NULL || nprint_columns(places, cells, &columns) < 0)
        goto done;
    /* a line has a byte a column; one may be too short, one unfinished */
    npy_intp lines = (npy_intp)nd_nprint_lines(text, (size_t)size);
    npy_intp fit = (npy_intp)((size_t)size / columns.columns) + 2;
    if (lines > fit)
        lines = fit;
    npy_intp row_shape[2] = {lines, cells};
    npy_intp span_shape[3] = {lines, (npy_intp)columns.others, 2};
    rows = (PyArrayObject *)PyArray_SimpleNew(2, row_shape, NPY_INT8);
    spans = (PyArrayObject *)PyArray_SimpleNew(3, span_shape, NPY_INT64);
    if (rows == NULL || spans == NULL)
        goto done;
    Py_BEGIN_ALLOW_THREADS
    status = nd_nprint_parse(text, (size_t)size, &columns, PyArray_DATA(rows),
                             PyArray_DATA(spans), &n, &place, &err);
    Py_END_ALLOW_THREADS
    result = nprint_result(rows, spans, n, status, &place, &err);
done:
    Py_XDECREF(places);
    Py_XDECREF(rows);
    Py_XDECREF(spans);
    return result;
}

static size_t
format_rows(const int8_t *rows, size_t n, size_t cells, const char *prefixes,
            const int64_t *offsets, char *text)
{
    size_t size = 0;
    for (size_t i = 0; i < n; i++) {
        size_t length = (size_t)(offsets[i + 1] - offsets[i]);
        memcpy(text + size, prefixes + offsets[i], length);
        size += length;
        size += nd_nprint_format(rows + i * cells, cells, text + size);
    }
    return size;
}

static PyObject *
nprint_format(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *objects[2], *text = NULL;
    const char *prefixes;
    Py_ssize_t size;
    PyArrayObject *rows = NULL, *offsets = NULL;
    if (!PyArg_ParseTuple(args, "Oy#O:nprint_format", &objects[0], &prefixes,
                          &size, &objects[1]))
        return NULL;
    rows = nd_py_input(objects[0], NPY_INT8, 2, "rows");
    if (rows == NULL)
        goto done;
    npy_intp n = PyArray_DIM(rows, 0), cells = PyArray_DIM(rows, 1);
    offsets = nd_py_offsets(objects[1], size);
    if (offsets == NULL)
        goto done;
    if (PyArray_DIM(offsets, 0) != n + 1 || cells == 0) {
        PyErr_SetString(PyExc_ValueError, "one prefix a row is needed");
        goto done;
    }
    text = PyBytes_FromStringAndSize(NULL, size + n * cells * 3);
    if (text == NULL)
        goto done;
    size_t used;
    Py_BEGIN_ALLOW_THREADS
    used = format_rows(PyArray_DATA(rows), (size_t)n, (size_t)cells, prefixes,
                       PyArray_DATA(offsets), PyBytes_AS_STRING(text));
    Py_END_ALLOW_THREADS
    _PyBytes_Resize(&text, (Py_ssize_t)used);
done:
    Py_XDECREF(rows);
    Py_XDECREF(offsets);
    return text;
}

PyDoc_STRVAR(nprint_parse_doc,
             "nprint_parse(text, places, cells, /)\n--\n\n"
             "Rows (P, cells) of nPrint lines, byte spans (P, others, 2) of\n"
             "the columns whose place is -1, and None or the first error as\n"
             "(line, column, what).");
PyDoc_STRVAR(nprint_format_doc,
             "nprint_format(rows, prefixes, offsets, /)\n--\n\n"
             "nPrint lines of rows, each after its own prefix.");

PyMethodDef nd_py_nprint_methods[] = {
    {"nprint_parse", nprint_parse, METH_VARARGS, nprint_parse_doc},
    {"nprint_format", nprint_format, METH_VARARGS, nprint_format_doc},
    {NULL, NULL, 0, NULL},
};
