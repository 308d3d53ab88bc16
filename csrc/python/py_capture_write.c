#include "py_capture.h"

#include "../net/writer.h"

struct writer {
    PyObject_HEAD
    struct nd_writer *writer; /* NULL: closed */
    int busy;                 /* a call runs without the GIL */
};

enum nd_status
nd_py_format(const char *text, bool *pcapng, struct nd_error *err)
{
    *pcapng = strcmp(text, "pcapng") == 0;
    if (*pcapng || strcmp(text, "pcap") == 0)
        return ND_OK;
    return nd_fail(err, ND_ARGUMENT,
                   "format must be \"pcap\" or \"pcapng\", not \"%s\"",
                   text);
}

static PyObject *
writer_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"path", "format", "nanoseconds", "snap_length",
                            NULL};
    PyObject *path = NULL;
    const char *format = "pcap";
    int nanoseconds = 1;
    unsigned int snap_length = 262144;
    struct nd_dump_options options = {0};
    struct nd_error err = {0};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O&|$spI:CaptureWriter",
                                     names, PyUnicode_FSConverter, &path,
                                     &format, &nanoseconds, &snap_length))
        return NULL;
    struct writer *self = (struct writer *)type->tp_alloc(type, 0);
    if (self == NULL)
        goto done;
    options.nanoseconds = nanoseconds != 0;
    options.snap_length = snap_length;
    if (nd_py_format(format, &options.pcapng, &err) != ND_OK ||
        nd_writer_open(PyBytes_AS_STRING(path), &options, &self->writer,
                       &err) != ND_OK) {
        Py_CLEAR(self);
        nd_py_raise(nd_py_type_state(type), &err);
    }
done:
    Py_DECREF(path);
    return (PyObject *)self;
}

static void
writer_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    nd_writer_destroy(((struct writer *)self)->writer);
    type->tp_free(self);
    Py_DECREF(type);
}

/* Whether the writer may be used now; sets an exception when not. */
static bool
writer_usable(const struct writer *self)
{
    if (self->busy)
        PyErr_SetString(PyExc_RuntimeError,
                        "another thread writes to this CaptureWriter");
    else if (self->writer == NULL)
        PyErr_SetString(PyExc_ValueError, "this CaptureWriter is closed");
    return !PyErr_Occurred();
}

/* The arrays of a write() call, as given and as checked. */
enum {
    ROWS, OFFSETS, TIMES, DIRECTIONS, ADDRESSES, PORTS, SERVICES, HOSTS,
    LENGTHS, N_ARRAYS
};

struct write_arrays {
    PyObject *given[N_ARRAYS];
    PyArrayObject *array[N_ARRAYS]; /* NULL: None, of the last three */
};

static const struct {
    const char *name;
    int dtype;
    int axes;
} write_columns[N_ARRAYS] = {
    [ROWS] = {"rows", NPY_INT8, 2},
    [OFFSETS] = {"offsets", NPY_INT64, 1},
    [TIMES] = {"timestamps", NPY_INT64, 1},
    [DIRECTIONS] = {"direction", NPY_UINT8, 1},
    [ADDRESSES] = {"addresses", NPY_UINT8, 3},
    [PORTS] = {"ports", NPY_UINT16, 2},
    [SERVICES] = {"services", NPY_UINT8, 1},
    [HOSTS] = {"hosts", NPY_UINT8, 2},
    [LENGTHS] = {"wire_length", NPY_UINT32, 1},
};

/* Rows come first: offsets must rise to their number. */
static bool
take_arrays(struct write_arrays *a)
{
    for (int i = 0; i < N_ARRAYS; i++) {
        if (i >= SERVICES && (a->given[i] == NULL || a->given[i] == Py_None))
            continue;
        if (i == OFFSETS)
            a->array[i] = nd_py_offsets(a->given[i],
                                        PyArray_DIM(a->array[ROWS], 0));
        else
            a->array[i] = nd_py_input(a->given[i], write_columns[i].dtype,
                                      write_columns[i].axes,
                                      write_columns[i].name);
        if (a->array[i] == NULL)
            return false;
    }
    return true;
}

static bool
options_fit(const struct write_arrays *a, npy_intp packets, npy_intp flows)
{
    PyArrayObject *services = a->array[SERVICES], *hosts = a->array[HOSTS];
    PyArrayObject *lengths = a->array[LENGTHS];
    return (lengths == NULL || PyArray_DIM(lengths, 0) == packets) &&
           (services == NULL || PyArray_DIM(services, 0) == flows) &&
           (hosts == NULL || (PyArray_DIM(hosts, 0) == flows &&
                              PyArray_DIM(hosts, 1) == ND_HOST_BYTES));
}

static bool
arrays_fit(const struct write_arrays *a, const struct nd_layout *layout)
{
    npy_intp packets = PyArray_DIM(a->array[ROWS], 0);
    npy_intp flows = PyArray_DIM(a->array[OFFSETS], 0) - 1;
    const npy_intp *addresses = PyArray_DIMS(a->array[ADDRESSES]);
    const npy_intp *ports = PyArray_DIMS(a->array[PORTS]);
    return PyArray_DIM(a->array[ROWS], 1) == layout->cells &&
           PyArray_DIM(a->array[TIMES], 0) == packets &&
           PyArray_DIM(a->array[DIRECTIONS], 0) == packets &&
           addresses[0] == flows && addresses[1] == 2 &&
           addresses[2] == 16 && ports[0] == flows && ports[1] == 2 &&
           options_fit(a, packets, flows);
}

/* {service: (packets, too short, flows, with such packets)} */
static PyObject *
told_dict(const struct nd_payload_told *told)
{
    PyObject *dict = PyDict_New();
    for (int i = 0; dict != NULL && i < ND_SERVICE_COUNT; i++) {
        if (told->packets[i] == 0)
            continue;
        PyObject *line = Py_BuildValue(
            "(KKKK)", (unsigned long long)told->packets[i],
            (unsigned long long)told->short_packets[i],
            (unsigned long long)told->flows[i],
            (unsigned long long)told->short_flows[i]);
        if (line == NULL ||
            PyDict_SetItemString(dict, nd_services[i].name, line) < 0)
            Py_CLEAR(dict);
        Py_XDECREF(line);
    }
    return dict;
}

static PyObject *
write_arrays(struct writer *self, const struct write_arrays *a,
             const struct nd_layout *layout, bool compute,
             struct nd_payload_choice payload)
{
    struct nd_error err = {0};
    struct nd_payload_told told = {0};
    enum nd_status status = ND_OK;
    if (a->array[SERVICES] != NULL)
        payload.services = PyArray_DATA(a->array[SERVICES]);
    if (a->array[HOSTS] != NULL)
        payload.hosts = PyArray_DATA(a->array[HOSTS]);
    const uint32_t *lengths =
        a->array[LENGTHS] == NULL ? NULL : PyArray_DATA(a->array[LENGTHS]);
    struct nd_writer_flows flows = {
        .layout = layout,
        .n = (size_t)PyArray_DIM(a->array[OFFSETS], 0) - 1,
        .rows = PyArray_DATA(a->array[ROWS]),
        .offsets = PyArray_DATA(a->array[OFFSETS]),
        .timestamps = PyArray_DATA(a->array[TIMES]),
        .direction = PyArray_DATA(a->array[DIRECTIONS]),
        .addresses = PyArray_DATA(a->array[ADDRESSES]),
        .ports = PyArray_DATA(a->array[PORTS]),
        .wire_length = lengths,
        .compute_checksums = compute,
        .payload = payload,
    };
    self->busy = 1;
    Py_BEGIN_ALLOW_THREADS
    status = nd_writer_write(self->writer, &flows, &told, &err);
    Py_END_ALLOW_THREADS
    self->busy = 0;
    if (status != ND_OK)
        return nd_py_raise(nd_py_type_state(Py_TYPE(self)), &err);
    return told_dict(&told);
}

static bool
parse_checksums(const char *text, bool *compute)
{
    *compute = strcmp(text, "compute") == 0;
    if (*compute || strcmp(text, "keep") == 0)
        return true;
    PyErr_Format(PyExc_ValueError,
                 "checksums must be \"compute\" or \"keep\", not \"%s\"",
                 text);
    return false;
}

static bool
parse_payload(const char *text, enum nd_payload_mode *mode)
{
    static const char *const modes[] = {
        [ND_PAYLOAD_ZEROS] = "zeros",
        [ND_PAYLOAD_RANDOM] = "random",
        [ND_PAYLOAD_PROTOCOL] = "protocol",
    };
    for (int i = 0; i < 3; i++)
        if (strcmp(text, modes[i]) == 0) {
            *mode = (enum nd_payload_mode)i;
            return true;
        }
    PyErr_Format(PyExc_ValueError,
                 "payload must be \"zeros\", \"random\" or \"protocol\", "
                 "not \"%s\"", text);
    return false;
}

PyDoc_STRVAR(writer_write_doc,
"write($self, rows, offsets, timestamps, direction, addresses, ports,\n"
"      layout, checksums, payload='zeros', seed=0, services=None,\n"
"      hosts=None, wire_length=None)\n--\n\n"
"Write the packets of all flows in time order.\n"
"\n"
"checksums: 'compute' (what fits the bytes written) or 'keep' (the rows').\n"
"payload: 'zeros', 'random' or 'protocol'. services: a flow's place in\n"
"payload_services(), + 128 to go before its port. wire_length: frames of 60\n"
"bytes that would be shorter are padded to them. Returns for each service\n"
"how many packets and flows there were and were too short:\n"
"(packets, short packets, flows, flows with such packets).");

static PyObject *
writer_write(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"rows",      "offsets", "timestamps",
                            "direction", "addresses", "ports",
                            "layout",    "checksums", "payload",
                            "seed",      "services", "hosts",
                            "wire_length", NULL};
    struct writer *self = (struct writer *)op;
    struct write_arrays a = {0};
    struct nd_payload_choice payload = {0};
    const char *layout_name = NULL, *checksums = NULL, *mode = "zeros";
    unsigned long long seed = 0;
    PyObject *result = NULL;
    bool compute = true;
    if (!PyArg_ParseTupleAndKeywords(
            args, kwargs, "OOOOOOss|sKOOO:write", names, &a.given[0],
            &a.given[1], &a.given[2], &a.given[3], &a.given[4], &a.given[5],
            &layout_name, &checksums, &mode, &seed, &a.given[SERVICES],
            &a.given[HOSTS], &a.given[LENGTHS]))
        return NULL;
    payload.seed = seed;
    const struct nd_layout *layout = nd_py_find_layout(layout_name);
    if (layout == NULL || !parse_checksums(checksums, &compute) ||
        !parse_payload(mode, &payload.mode) || !writer_usable(self) ||
        !take_arrays(&a))
        goto done;
    if (arrays_fit(&a, layout))
        result = write_arrays(self, &a, layout, compute, payload);
    else
        PyErr_Format(PyExc_ValueError,
                     "the arrays do not belong together (rows of layout "
                     "%s, offsets, timestamps, direction, addresses, ports)",
                     layout_name);
done:
    for (int i = 0; i < N_ARRAYS; i++)
        Py_XDECREF(a.array[i]);
    return result;
}

PyDoc_STRVAR(writer_close_doc,
"close($self)\n--\n\n"
"Bring all to disk and close the file; closing twice does nothing.");

static PyObject *
writer_close(PyObject *op, PyObject *unused)
{
    (void)unused;
    struct writer *self = (struct writer *)op;
    struct nd_error err = {0};
    if (self->writer == NULL)
        Py_RETURN_NONE;
    if (!writer_usable(self))
        return NULL;
    enum nd_status status = nd_writer_close(self->writer, &err);
    self->writer = NULL;
    if (status != ND_OK)
        return nd_py_raise(nd_py_type_state(Py_TYPE(op)), &err);
    Py_RETURN_NONE;
}

PyObject *
nd_py_payload_services(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    PyObject *names = PyList_New(ND_SERVICE_COUNT);
    for (Py_ssize_t i = 0; names != NULL && i < ND_SERVICE_COUNT; i++) {
        PyObject *name = PyUnicode_FromString(nd_services[i].name);
        if (name == NULL)
            Py_CLEAR(names);
        else
            PyList_SET_ITEM(names, i, name);
    }
    return names;
}

static PyMethodDef writer_methods[] = {
    {"write", (PyCFunction)(void (*)(void))writer_write,
     METH_VARARGS | METH_KEYWORDS, writer_write_doc},
    {"close", writer_close, METH_NOARGS, writer_close_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(writer_doc,
"CaptureWriter(path, *, format='pcap', nanoseconds=True,\n"
"              snap_length=262144)\n--\n\n"
"A capture of link type Ethernet that flows are written to.");

static PyType_Slot writer_slots[] = {
    {Py_tp_doc, (void *)writer_doc},
    {Py_tp_new, writer_new},
    {Py_tp_traverse, nd_py_visit_type},
    {Py_tp_dealloc, writer_dealloc},
    {Py_tp_methods, writer_methods},
    {0, NULL},
};

PyType_Spec nd_py_writer_spec = {
    .name = "netdiffusion._core.CaptureWriter",
    .basicsize = sizeof(struct writer),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = writer_slots,
};
