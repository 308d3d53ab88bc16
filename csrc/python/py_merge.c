#include "py_capture.h"

#include "../net/merge.h"

/* The paths as bytes objects, which keep the texts alive. */
struct paths {
    PyObject *bytes[ND_MERGE_MOST];
    const char *text[ND_MERGE_MOST];
    size_t n;
};

static bool
take_paths(PyObject *sequence, struct paths *paths)
{
    PyObject *items = PySequence_Fast(sequence, "paths must be a sequence");
    if (items == NULL)
        return false;
    Py_ssize_t n = PySequence_Fast_GET_SIZE(items);
    if (n > ND_MERGE_MOST)
        PyErr_Format(PyExc_ValueError, "%zd captures to merge, at most %d", n,
                     (int)ND_MERGE_MOST);
    for (Py_ssize_t i = 0; i < n && !PyErr_Occurred(); i++)
        if (PyUnicode_FSConverter(PySequence_Fast_GET_ITEM(items, i),
                                  &paths->bytes[i])) {
            paths->text[i] = PyBytes_AS_STRING(paths->bytes[i]);
            paths->n++;
        }
    Py_DECREF(items);
    return !PyErr_Occurred();
}

const char nd_py_merge_doc[] =
"merge_captures(paths, output, *, format='pcap', nanoseconds=True,\n"
"               snap_length=262144)\n--\n\n"
"Merge captures that are each in time order into one that is.";

PyObject *
nd_py_merge(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"paths",       "output",      "format",
                            "nanoseconds", "snap_length", NULL};
    struct paths paths = {{NULL}, {NULL}, 0};
    PyObject *sequence, *output = NULL, *result = NULL;
    const char *format = "pcap";
    int nanoseconds = 1;
    unsigned int snap_length = 262144;
    struct nd_error err = {0};
    if (!PyArg_ParseTupleAndKeywords(
            args, kwargs, "OO&|$spI:merge_captures", names, &sequence,
            PyUnicode_FSConverter, &output, &format, &nanoseconds,
            &snap_length))
        return NULL;
    struct nd_dump_options options = {.nanoseconds = nanoseconds != 0,
                                      .snap_length = snap_length};
    enum nd_status status = nd_py_format(format, &options.pcapng, &err);
    if (!take_paths(sequence, &paths))
        goto done;
    if (status == ND_OK) {
        Py_BEGIN_ALLOW_THREADS
        status = nd_merge(paths.text, paths.n, PyBytes_AS_STRING(output),
                          &options, &err);
        Py_END_ALLOW_THREADS
    }
    if (status != ND_OK)
        nd_py_raise(nd_py_state(module), &err);
    else
        result = Py_NewRef(Py_None);
done:
    for (size_t i = 0; i < paths.n; i++)
        Py_DECREF(paths.bytes[i]);
    Py_DECREF(output);
    return result;
}
