#include "module.h"

#include "../net/phrase.h"

/* A class's book and its flows, in the order of the arguments. */
enum argument {
    DRAWN,
    DIRECTION,
    FIXED,
    OFFSETS,
    CONTEXTS,
    FIRST,
    OTHER,
    WORDS,
    TIMES,
    N_ARGUMENTS
};

static const struct {
    const char *name;
    int dtype, axes;
} kinds[N_ARGUMENTS] = {
    [DRAWN] = {"drawn", NPY_UINT16, 1},
    [DIRECTION] = {"direction", NPY_UINT8, 1},
    [FIXED] = {"fixed", NPY_UINT8, 1},
    [OFFSETS] = {"offsets", NPY_INT64, 1},
    [CONTEXTS] = {"contexts", NPY_INT32, 2},
    [FIRST] = {"first", NPY_INT64, 1},
    [OTHER] = {"other", NPY_FLOAT64, 1},
    [WORDS] = {"words", NPY_INT32, 1},
    [TIMES] = {"times", NPY_FLOAT64, 1},
};

/* The arrays that others are as long as come before them. */
static int
read_arguments(PyArrayObject *in[N_ARGUMENTS], PyObject *o[N_ARGUMENTS])
{
    static const enum argument order[N_ARGUMENTS] = {
        DRAWN, DIRECTION, FIXED, OFFSETS, CONTEXTS, WORDS,
        FIRST, OTHER,     TIMES,
    };
    for (int i = 0; i < N_ARGUMENTS; i++) {
        enum argument a = order[i];
        npy_intp packets = i ? PyArray_DIM(in[DRAWN], 0) : 0;
        if (a == OFFSETS)
            in[a] = nd_py_offsets(o[a], packets);
        else if (a == FIRST)
            in[a] = nd_py_offsets(o[a], PyArray_DIM(in[WORDS], 0));
        else
            in[a] = nd_py_input(o[a], kinds[a].dtype, kinds[a].axes,
                                kinds[a].name);
        if (in[a] == NULL)
            return -1;
        npy_intp n = PyArray_DIM(in[a], 0);
        if (a == DIRECTION || a == FIXED)
            n = packets;
        else if (a == FIRST)
            n = PyArray_DIM(in[CONTEXTS], 0) + 1;
        else if (a == OTHER)
            n = PyArray_DIM(in[CONTEXTS], 0);
        else if (a == TIMES)
            n = PyArray_DIM(in[WORDS], 0);
        if (nd_py_shape(in[a], kinds[a].name, n, ND_PHRASE_CONTEXT, 0) < 0)
            return -1;
    }
    return 0;
}

static int
check_chances(double wrong, double own)
{
    if (wrong > 0 && wrong < 1 && own > 0 && own < 1)
        return 0;
    PyErr_SetString(PyExc_ValueError,
                    "wrong and own are chances between 0 and 1");
    return -1;
}

static void
read_flows(PyArrayObject *in[N_ARGUMENTS],
           const struct nd_phrase_book *book, uint16_t *meant,
           struct nd_phrase_step *steps)
{
    const int64_t *offsets = PyArray_DATA(in[OFFSETS]);
    const uint16_t *drawn = PyArray_DATA(in[DRAWN]);
    const uint8_t *direction = PyArray_DATA(in[DIRECTION]);
    const uint8_t *fixed = PyArray_DATA(in[FIXED]);
    npy_intp flows = PyArray_DIM(in[OFFSETS], 0) - 1;
    for (npy_intp f = 0; f < flows; f++) {
        int64_t at = offsets[f];
        nd_phrase_read(book, drawn + at, direction + at, fixed + at,
                       (size_t)(offsets[f + 1] - at), meant + at, steps);
    }
}

static PyObject *
read_phrases(PyObject *Py_UNUSED(module), PyObject *args, PyObject *keywords)
{
    static char *names[] = {"drawn",    "direction", "fixed", "offsets",
                            "contexts", "first",     "other", "words",
                            "times",    "wrong",     "own",   NULL};
    PyObject *o[N_ARGUMENTS];
    PyArrayObject *in[N_ARGUMENTS] = {NULL}, *meant = NULL;
    struct nd_phrase_book book;
    struct nd_phrase_step *steps = NULL;
    if (!PyArg_ParseTupleAndKeywords(
            args, keywords, "OOOOOOOOOdd:read_phrases", names, &o[0], &o[1],
            &o[2], &o[3], &o[4], &o[5], &o[6], &o[7], &o[8], &book.wrong,
            &book.own))
        return NULL;
    if (check_chances(book.wrong, book.own) < 0 || read_arguments(in, o) < 0)
        goto done;
    npy_intp packets = PyArray_DIM(in[DRAWN], 0);
    meant = (PyArrayObject *)PyArray_SimpleNew(1, &packets, NPY_UINT16);
    steps = PyMem_New(struct nd_phrase_step, (size_t)packets + 1);
    if (meant == NULL || steps == NULL) {
        Py_CLEAR(meant);
        PyErr_NoMemory();
        goto done;
    }
    book.contexts = (size_t)PyArray_DIM(in[CONTEXTS], 0);
    book.context = PyArray_DATA(in[CONTEXTS]);
    book.first = PyArray_DATA(in[FIRST]);
    book.other = PyArray_DATA(in[OTHER]);
    book.word = PyArray_DATA(in[WORDS]);
    book.times = PyArray_DATA(in[TIMES]);
    Py_BEGIN_ALLOW_THREADS
    read_flows(in, &book, PyArray_DATA(meant), steps);
    Py_END_ALLOW_THREADS
done:
    PyMem_Free(steps);
    for (int i = 0; i < N_ARGUMENTS; i++)
        Py_XDECREF(in[i]);
    return (PyObject *)meant;
}

PyDoc_STRVAR(read_phrases_doc,
"read_phrases(drawn, direction, fixed, offsets, contexts, first, other, "
"words, times, wrong, own)\n--\n\n"
"The numbers (P,) that were meant by those drawn in flows of one class.");

PyMethodDef nd_py_phrase_methods[] = {
    {"read_phrases", (PyCFunction)(void (*)(void))read_phrases,
     METH_VARARGS | METH_KEYWORDS, read_phrases_doc},
    {NULL, NULL, 0, NULL}};
