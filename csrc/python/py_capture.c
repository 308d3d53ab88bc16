#include "py_capture.h"

#include "../net/reader.h"

struct reader {
    PyObject_HEAD
    struct nd_reader *reader;
    int busy; /* a call runs without the GIL */
};

/* What the dict of a FlowSet holds. */
struct column {
    const char *name;
    int dtype;
    int axes;
    npy_intp inner[2]; /* axes after the first; 0: cells */
    char first;        /* length of the first axis: P, F, or O for F + 1 */
};

static const struct column columns[] = {
    {"rows", NPY_INT8, 2, {0, 0}, 'P'},
    {"offsets", NPY_INT64, 1, {0, 0}, 'O'},
    {"timestamps", NPY_INT64, 1, {0, 0}, 'P'},
    {"direction", NPY_UINT8, 1, {0, 0}, 'P'},
    {"wire_length", NPY_UINT32, 1, {0, 0}, 'P'},
    {"addresses", NPY_UINT8, 3, {2, 16}, 'F'},
    {"ports", NPY_UINT16, 2, {2, 0}, 'F'},
    {"ip_version", NPY_UINT8, 1, {0, 0}, 'F'},
    {"protocol", NPY_UINT8, 1, {0, 0}, 'F'},
    {"first_packet", NPY_INT64, 1, {0, 0}, 'F'},
    {"packet_number", NPY_INT64, 1, {0, 0}, 'P'},
};

enum { N_COLUMNS = sizeof columns / sizeof *columns };

/* A dict of uninitialised arrays; data[i] points into the i-th. */
static PyObject *
new_arrays(size_t flows, size_t packets, size_t cells, void **data)
{
    PyObject *dict = PyDict_New();
    for (int i = 0; i < N_COLUMNS && dict != NULL; i++) {
        const struct column *c = &columns[i];
        size_t n = c->first == 'P' ? packets : flows + (c->first == 'O');
        npy_intp inner = c->inner[0] != 0 ? c->inner[0] : (npy_intp)cells;
        npy_intp shape[3] = {(npy_intp)n, inner, c->inner[1]};
        PyObject *array = PyArray_EMPTY(c->axes, shape, c->dtype, 0);
        if (array == NULL || PyDict_SetItemString(dict, c->name, array) < 0)
            Py_CLEAR(dict);
        else
            data[i] = PyArray_DATA((PyArrayObject *)array);
        Py_XDECREF(array);
    }
    return dict;
}

/* The dict of what the reader has taken; NULL with an exception set. */
static PyObject *
filled_arrays(const struct nd_module_state *state, struct nd_reader *reader,
              const struct nd_layout *layout, size_t flows, size_t packets)
{
    struct nd_error err = {0};
    void *data[N_COLUMNS];
    enum nd_status status = ND_OK;
    PyObject *dict = new_arrays(flows, packets, layout->cells, data);
    if (dict == NULL)
        return NULL;
    struct nd_flow_arrays arrays = {
        data[0], data[1], data[2], data[3], data[4],
        data[5], data[6], data[7], data[8], data[9], data[10],
    };
    Py_BEGIN_ALLOW_THREADS
    status = nd_reader_fill(reader, &arrays, &err);
    Py_END_ALLOW_THREADS
    if (status != ND_OK) {
        Py_DECREF(dict);
        return nd_py_raise(state, &err);
    }
    return dict;
}

const struct nd_layout *
nd_py_find_layout(const char *name)
{
    const struct nd_layout *layout = nd_layout_find(name);
    if (layout != NULL && layout->first_cell[ND_FIELD_MOTION_GAP] < 0)
        return layout;
    PyErr_Format(PyExc_ValueError,
                 layout == NULL
                     ? "no layout is named '%s'; netdiffusion.layouts lists "
                       "them"
                     : "rows of layout %s are no packets; "
                       "FlowSet.canonical() makes them, netdiffusion.repair "
                       "leads back",
                 name);
    return NULL;
}

static enum nd_status
parse_on_error(const char *text, bool *raise, struct nd_error *err)
{
    *raise = strcmp(text, "raise") == 0;
    if (*raise || strcmp(text, "warn") == 0 || strcmp(text, "skip") == 0)
        return ND_OK;
    return nd_fail(err, ND_ARGUMENT,
                   "on_error must be \"raise\", \"warn\" or \"skip\", not "
                   "\"%s\"",
                   text);
}

static enum nd_status
parse_limits(long long max_packets, long long idle_timeout,
             struct nd_flow_options *options, struct nd_error *err)
{
    if (max_packets < 1)
        return nd_fail(err, ND_ARGUMENT,
                       "max_packets must be at least 1, not %lld",
                       max_packets);
    options->max_packets = max_packets > UINT32_MAX ? UINT32_MAX
                                                    : (uint32_t)max_packets;
    options->idle_timeout = idle_timeout;
    return ND_OK;
}

static PyObject *
reader_open(PyTypeObject *type, const char *path,
            const struct nd_reader_options *options)
{
    struct nd_error err = {0};
    enum nd_status status = ND_OK;
    struct reader *self = (struct reader *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    status = nd_reader_open(path, options, &self->reader, &err);
    Py_END_ALLOW_THREADS
    if (status != ND_OK) {
        Py_DECREF(self);
        return nd_py_raise(nd_py_type_state(type), &err);
    }
    return (PyObject *)self;
}

static PyObject *
reader_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"path",         "bpf",    "max_packets",
                            "idle_timeout", "layout", "on_error",
                            NULL};
    PyObject *path = NULL;
    PyObject *made = NULL;
    const char *layout = "netdiffusion-1088";
    const char *on_error = "raise";
    long long max_packets = 1024;
    long long idle_timeout = 60000000000;
    struct nd_reader_options options = {0};
    struct nd_error err = {0};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O&|$zLLss:CaptureReader",
                                     names, PyUnicode_FSConverter, &path,
                                     &options.bpf, &max_packets,
                                     &idle_timeout, &layout, &on_error))
        return NULL;
    options.layout = nd_py_find_layout(layout);
    if (options.layout == NULL)
        goto done;
    if (parse_on_error(on_error, &options.raise, &err) != ND_OK ||
        parse_limits(max_packets, idle_timeout, &options.flows, &err) !=
            ND_OK) {
        nd_py_raise(nd_py_type_state(type), &err);
        goto done;
    }
    made = reader_open(type, PyBytes_AS_STRING(path), &options);
done:
    Py_DECREF(path);
    return made;
}

int
nd_py_visit_type(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    return 0;
}

static void
reader_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    nd_reader_destroy(((struct reader *)self)->reader);
    type->tp_free(self);
    Py_DECREF(type);
}

/* Whether no other thread is in a call; sets an exception when one is. */
static bool
reader_usable(const struct reader *self)
{
    if (self->busy)
        PyErr_SetString(PyExc_RuntimeError,
                        "another thread reads from this CaptureReader");
    return !self->busy;
}

PyDoc_STRVAR(reader_read_doc,
"read($self, max_flows, /)\n--\n\n"
"Return the next finished flows as a dict of arrays, or None at the end.\n"
"\n"
"Flows come in the order in which they end; those of one call are sorted by\n"
"their first packet. Keys: those of a FlowSet, first_packet and "
"packet_number (in the file, from 0).");

static PyObject *
reader_read(PyObject *op, PyObject *argument)
{
    struct reader *self = (struct reader *)op;
    const struct nd_module_state *state = nd_py_type_state(Py_TYPE(op));
    struct nd_error err = {0};
    enum nd_status status = ND_OK;
    PyObject *result = NULL;
    size_t flows = 0, packets = 0;
    size_t max_flows = PyLong_AsSize_t(argument);
    if (PyErr_Occurred() || !reader_usable(self))
        return NULL;
    self->busy = 1;
    Py_BEGIN_ALLOW_THREADS
    status = nd_reader_next(self->reader, max_flows, &flows, &packets, &err);
    Py_END_ALLOW_THREADS
    if (status != ND_OK)
        nd_py_raise(state, &err);
    else if (flows == 0)
        result = Py_NewRef(Py_None);
    else
        result = filled_arrays(state, self->reader,
                               nd_reader_layout(self->reader), flows,
                               packets);
    self->busy = 0;
    return result;
}

/* [(packet number from 1, byte offset, reason), ...] */
static PyObject *
malformed_list(const struct nd_reader_stats *stats)
{
    Py_ssize_t n = stats->malformed < ND_MALFORMED_TOLD
                       ? (Py_ssize_t)stats->malformed
                       : ND_MALFORMED_TOLD;
    PyObject *list = PyList_New(n);
    for (Py_ssize_t i = 0; i < n && list != NULL; i++) {
        const struct nd_malformed *m = &stats->told[i];
        PyObject *item = Py_BuildValue("KLs", (unsigned long long)m->number,
                                       (long long)m->offset, m->reason);
        if (item == NULL)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, i, item);
    }
    return list;
}

static PyObject *
stats_dict(const struct nd_reader_stats *s)
{
    PyObject *malformed = malformed_list(s);
    if (malformed == NULL)
        return NULL;
    return Py_BuildValue("{sKsKsKsKsNsKsKsKszss}", "packets",
                         (unsigned long long)s->packets, "kept",
                         (unsigned long long)s->kept, "filtered",
                         (unsigned long long)s->filtered, "ignored",
                         (unsigned long long)s->ignored, "malformed",
                         malformed, "malformed_count",
                         (unsigned long long)s->malformed, "fragments",
                         (unsigned long long)s->fragments, "over_limit",
                         (unsigned long long)s->over_limit, "cut", s->cut,
                         "link_type", s->link_type);
}

static PyObject *
reader_stats(PyObject *op, void *closure)
{
    (void)closure;
    struct reader *self = (struct reader *)op;
    if (!reader_usable(self))
        return NULL;
    return stats_dict(nd_reader_told(self->reader));
}

static PyMethodDef reader_methods[] = {
    {"read", reader_read, METH_O, reader_read_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef reader_getset[] = {
    {"stats", reader_stats, NULL,
     "What was read so far and what was left out.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(reader_doc,
"CaptureReader(path, *, bpf=None, max_packets=1024,\n"
"              idle_timeout=60000000000, layout='netdiffusion-1088',\n"
"              on_error='raise')\n--\n\n"
"Flows of a pcap or pcapng file, some at a time, in constant memory.");

static PyType_Slot reader_slots[] = {
    {Py_tp_doc, (void *)reader_doc},
    {Py_tp_new, reader_new},
    {Py_tp_traverse, nd_py_visit_type},
    {Py_tp_dealloc, reader_dealloc},
    {Py_tp_methods, reader_methods},
    {Py_tp_getset, reader_getset},
    {0, NULL},
};

static PyType_Spec reader_spec = {
    .name = "netdiffusion._core.CaptureReader",
    .basicsize = sizeof(struct reader),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = reader_slots,
};

/* The arrays of slices of a file, and the counts as their "stats". */
static PyObject *
slices_of(const struct nd_module_state *state, const char *path,
          const struct nd_reader_options *options, PyArrayObject *first,
          PyArrayObject *counts)
{
    struct nd_reader *reader = NULL;
    struct nd_error err = {0};
    enum nd_status status = ND_OK;
    PyObject *result = NULL, *stats = NULL;
    size_t packets = 0;
    size_t n = (size_t)PyArray_DIM(first, 0);
    Py_BEGIN_ALLOW_THREADS
    status = nd_reader_open(path, options, &reader, &err);
    if (status == ND_OK)
        status = nd_reader_slices(reader, PyArray_DATA(first),
                                  PyArray_DATA(counts), n, &packets, &err);
    Py_END_ALLOW_THREADS
    if (status != ND_OK) {
        nd_py_raise(state, &err);
        goto done;
    }
    result = filled_arrays(state, reader, options->layout, n, packets);
    stats = stats_dict(nd_reader_told(reader));
    if (result != NULL &&
        (stats == NULL || PyDict_SetItemString(result, "stats", stats) < 0))
        Py_CLEAR(result);
done:
    Py_XDECREF(stats);
    nd_reader_destroy(reader);
    return result;
}

PyDoc_STRVAR(read_slices_doc,
"read_slices(path, first_packet, packets, layout, *, max_packets=4294967295,\n"
"            on_error='skip')\n--\n\n"
"Return the flows of a capture that a manifest lists, as a dict of arrays.\n"
"\n"
"Flow i is packets first_packet[i] to first_packet[i] + packets[i] - 1 of\n"
"the file, counted from 0, of which max_packets are kept. Malformed packets\n"
"are left out or, with on_error='raise', an error. Key stats: the counts\n"
"of CaptureReader.stats, of the packets listed.");

static PyObject *
read_slices(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"path",   "first_packet", "packets",
                            "layout", "max_packets",  "on_error",
                            NULL};
    const struct nd_module_state *state = nd_py_state(module);
    PyObject *path = NULL, *first = NULL, *counts = NULL, *result = NULL;
    PyArrayObject *first_array = NULL, *counts_array = NULL;
    const char *layout = NULL, *on_error = "skip";
    long long max_packets = UINT32_MAX;
    struct nd_reader_options options = {0};
    struct nd_error err = {0};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O&OOs|$Ls:read_slices",
                                     names, PyUnicode_FSConverter, &path,
                                     &first, &counts, &layout, &max_packets,
                                     &on_error))
        return NULL;
    if (parse_on_error(on_error, &options.raise, &err) != ND_OK ||
        parse_limits(max_packets, 0, &options.flows, &err) != ND_OK) {
        nd_py_raise(state, &err);
        goto done;
    }
    options.layout = nd_py_find_layout(layout);
    first_array = nd_py_indices(first, NPY_INT64, "first_packet");
    if (options.layout == NULL || first_array == NULL)
        goto done;
    counts_array = nd_py_indices(counts, NPY_INT64, "packets");
    if (counts_array == NULL)
        goto done;
    if (PyArray_DIM(first_array, 0) != PyArray_DIM(counts_array, 0))
        PyErr_SetString(PyExc_ValueError,
                        "first_packet and packets have different lengths");
    else
        result = slices_of(state, PyBytes_AS_STRING(path), &options,
                           first_array, counts_array);
done:
    Py_XDECREF(first_array);
    Py_XDECREF(counts_array);
    Py_DECREF(path);
    return result;
}

static PyObject *
libpcap_version(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(args))
{
    return PyUnicode_FromString(nd_capture_library());
}

PyDoc_STRVAR(libpcap_version_doc,
             "libpcap_version()\n--\n\n"
             "What libpcap says of its version.");

PyDoc_STRVAR(payload_services_doc,
"payload_services()\n--\n\n"
"Return the names of the services whose messages a payload can be.");

PyMethodDef nd_py_capture_methods[] = {
    {"libpcap_version", libpcap_version, METH_NOARGS, libpcap_version_doc},
    {"read_slices", (PyCFunction)(void (*)(void))read_slices,
     METH_VARARGS | METH_KEYWORDS, read_slices_doc},
    {"payload_services", nd_py_payload_services, METH_NOARGS,
     payload_services_doc},
    {"merge_captures", (PyCFunction)(void (*)(void))nd_py_merge,
     METH_VARARGS | METH_KEYWORDS, nd_py_merge_doc},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject *
add_type(PyObject *module, PyType_Spec *spec)
{
    PyObject *type = PyType_FromModuleAndSpec(module, spec, NULL);
    if (type != NULL && PyModule_AddType(module, (PyTypeObject *)type) < 0)
        Py_CLEAR(type);
    return (PyTypeObject *)type;
}

int
nd_py_capture_init(PyObject *module)
{
    struct nd_module_state *state = nd_py_state(module);
    state->capture_reader = add_type(module, &reader_spec);
    if (state->capture_reader == NULL)
        return -1;
    state->capture_writer = add_type(module, &nd_py_writer_spec);
    return state->capture_writer == NULL ? -1 : 0;
}
