#include "module.h"

#include "../net/validate.h"

enum { N_EVIDENCE = 9 };

struct inquiry {
    PyArrayObject *in[N_EVIDENCE]; /* in the order of the arguments */
    PyArrayObject *count, *first, *broken;
};

static int
read_evidence(struct inquiry *q, PyObject *objects[N_EVIDENCE])
{
    static const struct {
        const char *name;
        int dtype, axes;
        npy_intp shape[3]; /* axis 0: -1 packets, -2 flows */
    } kinds[N_EVIDENCE] = {
        {"rows", NPY_INT8, 2, {-1, ND_ROW_CELLS, 0}},
        {"offsets", NPY_INT64, 1, {0, 0, 0}},
        {"timestamps", NPY_INT64, 1, {-1, 0, 0}},
        {"direction", NPY_UINT8, 1, {-1, 0, 0}},
        {"addresses", NPY_UINT8, 3, {-2, 2, 16}},
        {"ports", NPY_UINT16, 2, {-2, 2, 0}},
        {"ip_version", NPY_UINT8, 1, {-2, 0, 0}},
        {"protocol", NPY_UINT8, 1, {-2, 0, 0}},
        {"known_payload", NPY_UINT8, 1, {-2, 0, 0}},
    };
    npy_intp n = 0, flows = 0;
    for (int i = 0; i < N_EVIDENCE; i++) {
        const npy_intp *s = kinds[i].shape;
        q->in[i] = i == 1 ? nd_py_offsets(objects[i], n)
                          : nd_py_input(objects[i], kinds[i].dtype,
                                        kinds[i].axes, kinds[i].name);
        if (q->in[i] == NULL)
            return -1;
        if (i == 0)
            n = PyArray_DIM(q->in[0], 0);
        if (i == 1)
            flows = PyArray_DIM(q->in[1], 0) - 1;
        else if (nd_py_shape(q->in[i], kinds[i].name,
                             s[0] == -1 ? n : flows, s[1], s[2]) < 0)
            return -1;
    }
    npy_intp shape[2] = {flows, ND_RULE_COUNT};
    q->count = (PyArrayObject *)PyArray_SimpleNew(2, shape, NPY_INT64);
    q->first = (PyArrayObject *)PyArray_SimpleNew(2, shape, NPY_INT64);
    q->broken = (PyArrayObject *)PyArray_ZEROS(1, &n, NPY_UINT64, 0);
    return q->count == NULL || q->first == NULL || q->broken == NULL ? -1 : 0;
}

static void
judge_flow(const struct inquiry *q, size_t flow)
{
    const int64_t *offsets = PyArray_DATA(q->in[1]);
    size_t from = (size_t)offsets[flow];
    const uint8_t *addresses = PyArray_DATA(q->in[4]);
    const uint16_t *ports = PyArray_DATA(q->in[5]);
    struct nd_evidence evidence = {
        .rows = (const int8_t *)PyArray_DATA(q->in[0]) + from * ND_ROW_CELLS,
        .times = (const int64_t *)PyArray_DATA(q->in[2]) + from,
        .directions = (const uint8_t *)PyArray_DATA(q->in[3]) + from,
        .n = (size_t)offsets[flow + 1] - from,
        .ip_version = ((const uint8_t *)PyArray_DATA(q->in[6]))[flow],
        .protocol = ((const uint8_t *)PyArray_DATA(q->in[7]))[flow],
        .known_payload = ((const uint8_t *)PyArray_DATA(q->in[8]))[flow],
    };
    struct nd_violations v;
    memcpy(evidence.ends.address, addresses + flow * 32, 32);
    memcpy(evidence.ends.port, ports + flow * 2, sizeof evidence.ends.port);
    nd_violations_clear(&v);
    v.broken = (uint64_t *)PyArray_DATA(q->broken) + from;
    nd_validate_flow(&evidence, &v);
    memcpy((int64_t *)PyArray_DATA(q->count) + flow * ND_RULE_COUNT,
           v.packets, sizeof v.packets);
    memcpy((int64_t *)PyArray_DATA(q->first) + flow * ND_RULE_COUNT, v.first,
           sizeof v.first);
}

static PyObject *
validate_flows(PyObject *Py_UNUSED(module), PyObject *args,
                PyObject *keywords)
{
    static char *names[] = {"rows", "offsets", "timestamps", "direction",
                            "addresses", "ports", "ip_version", "protocol",
                            "known_payload", NULL};
    PyObject *o[N_EVIDENCE], *result = NULL;
    struct inquiry q = {.count = NULL};
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "OOOOOOOOO:validate",
                                     names, &o[0], &o[1], &o[2], &o[3], &o[4],
                                     &o[5], &o[6], &o[7], &o[8]))
        return NULL;
    if (read_evidence(&q, o) < 0)
        goto done;
    size_t flows = (size_t)PyArray_DIM(q.in[1], 0) - 1;
    Py_BEGIN_ALLOW_THREADS
    for (size_t f = 0; f < flows; f++)
        judge_flow(&q, f);
    Py_END_ALLOW_THREADS
    result = Py_BuildValue("(OOO)", q.count, q.first, q.broken);
done:
    for (int i = 0; i < N_EVIDENCE; i++)
        Py_XDECREF(q.in[i]);
    Py_XDECREF(q.count);
    Py_XDECREF(q.first);
    Py_XDECREF(q.broken);
    return result;
}

static PyObject *
frames_dict(const struct nd_frames_told *told, PyObject *wrong)
{
    npy_intp shape = ND_RULE_COUNT;
    PyObject *count = PyArray_SimpleNew(1, &shape, NPY_INT64);
    PyObject *first = PyArray_SimpleNew(1, &shape, NPY_INT64);
    if (count == NULL || first == NULL) {
        Py_XDECREF(count);
        Py_XDECREF(first);
        return NULL;
    }
    memcpy(PyArray_DATA((PyArrayObject *)count), told->violations.packets,
           sizeof told->violations.packets);
    memcpy(PyArray_DATA((PyArrayObject *)first), told->violations.first,
           sizeof told->violations.first);
    return Py_BuildValue(
        "{sKsKsKsKsNsNsO}", "packets", (unsigned long long)told->packets,
        "right", (unsigned long long)told->states[ND_CHECKSUM_RIGHT],
        "blank", (unsigned long long)told->states[ND_CHECKSUM_BLANK],
        "unknown", (unsigned long long)told->states[ND_CHECKSUM_UNKNOWN],
        "count", count, "first", first, "wrong", wrong);
}

/* The frames of a capture; their numbers in an array of `room`. */
static PyObject *
judge_frames(const struct nd_module_state *state, const char *path,
             npy_intp room, struct nd_frames_told *told)
{
    struct nd_error err;
    enum nd_status status;
    PyObject *wrong = PyArray_ZEROS(1, &room, NPY_INT64, 0);
    if (wrong == NULL)
        return NULL;
    int64_t *numbers = PyArray_DATA((PyArrayObject *)wrong);
    Py_BEGIN_ALLOW_THREADS
    status = nd_validate_capture(path, numbers, (size_t)room, told, &err);
    Py_END_ALLOW_THREADS
    if (status == ND_OK)
        return wrong;
    Py_DECREF(wrong);
    return nd_py_raise(state, &err);
}

static PyObject *
validate_packets(PyObject *module, PyObject *args)
{
    const struct nd_module_state *state = nd_py_state(module);
    PyObject *path = NULL, *wrong, *result = NULL;
    struct nd_frames_told told;
    if (!PyArg_ParseTuple(args, "O&:validate_packets", PyUnicode_FSConverter,
                          &path))
        return NULL;
    wrong = judge_frames(state, PyBytes_AS_STRING(path), 0, &told);
    if (wrong != NULL && told.states[ND_CHECKSUM_WRONG] > 0) {
        Py_DECREF(wrong);
        wrong = judge_frames(state, PyBytes_AS_STRING(path),
                             (npy_intp)told.states[ND_CHECKSUM_WRONG], &told);
    }
    if (wrong != NULL)
        result = frames_dict(&told, wrong);
    Py_XDECREF(wrong);
    Py_DECREF(path);
    return result;
}

PyDoc_STRVAR(validate_doc,
"validate(rows, offsets, timestamps, direction, addresses, ports, "
"ip_version, protocol, known_payload)\n--\n\n"
"Return for each flow and rule how many packets break it, and the first;\n"
"and of each packet the rules that it breaks, a bit a rule.");

PyDoc_STRVAR(validate_packets_doc,
"validate_packets(path, /)\n--\n\n"
"Hold the transport checksums of a capture against its bytes; the key wrong\n"
"has the numbers of the frames whose checksum is wrong.");

PyMethodDef nd_py_validate_methods[] = {
    {"validate", (PyCFunction)(void (*)(void))validate_flows,
     METH_VARARGS | METH_KEYWORDS, validate_doc},
    {"validate_packets", validate_packets, METH_VARARGS,
     validate_packets_doc},
    {NULL, NULL, 0, NULL}};
