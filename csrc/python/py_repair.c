#include "module.h"

#include "../net/repair.h"
#include "../net/validate.h"

/* ---- rules ------------------------------------------------------------ */

static PyObject *
repair_rules(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(args))
{
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list != NULL && i < ND_RULE_COUNT; i++) {
        const struct nd_rule_text *r = &nd_rules[i];
        PyObject *rule = Py_BuildValue(
            "(sssss)", r->name, r->source, r->text, r->change,
            r->scope == ND_SCOPE_FLOW ? "flow" : "packet");
        if (rule == NULL || PyList_Append(list, rule) < 0)
            Py_CLEAR(list);
        Py_XDECREF(rule);
    }
    return list;
}

/* ---- options ---------------------------------------------------------- */

static int
check_shape(PyArrayObject *array, const char *argument, npy_intp a, npy_intp b,
            npy_intp c)
{
    const npy_intp wanted[3] = {a, b, c};
    for (int i = 0; i < PyArray_NDIM(array); i++)
        if (PyArray_DIM(array, i) != wanted[i]) {
            PyErr_Format(PyExc_ValueError,
                         "%s: axis %d has %zd entries, not %zd", argument, i,
                         (Py_ssize_t)PyArray_DIM(array, i),
                         (Py_ssize_t)wanted[i]);
            return -1;
        }
    return 0;
}

static int
read_events(const char *name, enum nd_events *events)
{
    if (strcmp(name, "keep") == 0)
        *events = ND_EVENTS_KEEP;
    else if (strcmp(name, "quiet") == 0)
        *events = ND_EVENTS_QUIET;
    else {
        PyErr_Format(PyExc_ValueError,
                     "events must be 'keep' or 'quiet', not '%s'", name);
        return -1;
    }
    return 0;
}

/* Four lines of prefix and length: IPv4 client, server, IPv6 the same. */
static int
read_pools(PyObject *object, struct nd_repair_options *options)
{
    if (object == Py_None)
        return 0;
    PyArrayObject *pools = nd_py_input(object, NPY_UINT8, 2, "pools");
    if (pools == NULL)
        return -1;
    int status = check_shape(pools, "pools", 4, 17, 0);
    const uint8_t *lines = PyArray_DATA(pools);
    for (int i = 0; status == 0 && i < 4; i++) {
        struct nd_pool *pool =
            i < 2 ? &options->pool4[i] : &options->pool6[i - 2];
        memcpy(pool->prefix, lines + 17 * i, 16);
        pool->bits = lines[17 * i + 16];
    }
    Py_DECREF(pools);
    return status;
}

/* ---- repair ----------------------------------------------------------- */

enum { N_OUTPUTS = 9, N_OBJECTS = 9 };

struct output {
    const char *name;
    int dtype;
    int axes;
    npy_intp shape[3]; /* axis 0: -1 packets, -2 flows */
};

static const struct output outputs[N_OUTPUTS] = {
    {"rows", NPY_INT8, 2, {-1, ND_ROW_CELLS, 0}},
    {"timestamps", NPY_INT64, 1, {-1, 0, 0}},
    {"direction", NPY_UINT8, 1, {-1, 0, 0}},
    {"wire_length", NPY_UINT32, 1, {-1, 0, 0}},
    {"addresses", NPY_UINT8, 3, {-2, 2, 16}},
    {"ports", NPY_UINT16, 2, {-2, 2, 0}},
    {"ip_version", NPY_UINT8, 1, {-2, 0, 0}},
    {"protocol", NPY_UINT8, 1, {-2, 0, 0}},
    {"changed", NPY_INT64, 2, {-2, ND_RULE_COUNT, 0}},
};

struct job {
    struct nd_repair_options options;
    PyArrayObject *canonical, *offsets, *flow_ids;
    PyArrayObject *addresses, *ports, *ip_version, *starts; /* or NULL */
    PyArrayObject *known, *known_offsets, *known_list;      /* or NULL */
    PyArrayObject *client_ports;                            /* or NULL */
    PyArrayObject *out[N_OUTPUTS];
};

static struct nd_repaired
flow_outputs(const struct job *job, size_t flow, size_t packet)
{
    return (struct nd_repaired){
        .rows = (int8_t *)PyArray_DATA(job->out[0]) + packet * ND_ROW_CELLS,
        .times = (int64_t *)PyArray_DATA(job->out[1]) + packet,
        .directions = (uint8_t *)PyArray_DATA(job->out[2]) + packet,
        .wire_length = (uint32_t *)PyArray_DATA(job->out[3]) + packet,
        .ip_version = (uint8_t *)PyArray_DATA(job->out[6]) + flow,
        .protocol = (uint8_t *)PyArray_DATA(job->out[7]) + flow,
        .changed =
            (int64_t *)PyArray_DATA(job->out[8]) + flow * ND_RULE_COUNT,
    };
}

/* List k of known ports: TCP from offset 2 k, UDP from 2 k + 1. */
static void
list_ports(const struct job *job, size_t flow, struct nd_anchor *anchor)
{
    if (job->known == NULL)
        return;
    int32_t list = ((const int32_t *)PyArray_DATA(job->known_list))[flow];
    if (list < 0)
        return;
    const int64_t *at = PyArray_DATA(job->known_offsets);
    for (int udp = 0; udp < 2; udp++) {
        const int64_t *range = at + 2 * list + udp;
        anchor->ports[udp] =
            (const uint16_t *)PyArray_DATA(job->known) + range[0];
        anchor->n_ports[udp] = (size_t)(range[1] - range[0]);
    }
}

static struct nd_anchor
flow_anchor(const struct job *job, size_t flow)
{
    struct nd_anchor anchor = {.ip_version = 0};
    if (job->addresses != NULL) {
        const uint8_t *addresses = PyArray_DATA(job->addresses);
        const uint16_t *ports = PyArray_DATA(job->ports);
        const uint8_t *version = PyArray_DATA(job->ip_version);
        memcpy(anchor.ends.address, addresses + flow * 32, 32);
        memcpy(anchor.ends.port, ports + flow * 2, sizeof anchor.ends.port);
        anchor.ip_version = version[flow];
    }
    if (job->starts != NULL) {
        anchor.start = ((const int64_t *)PyArray_DATA(job->starts))[flow];
        anchor.has_start = true;
    }
    if (job->client_ports != NULL) {
        const uint16_t *ports = PyArray_DATA(job->client_ports);
        anchor.client_port = ports[flow];
    }
    list_ports(job, flow, &anchor);
    return anchor;
}

static void
repair_flow(const struct job *job, struct nd_repair *repair, size_t flow)
{
    const int64_t *offsets = PyArray_DATA(job->offsets);
    const uint64_t *ids = PyArray_DATA(job->flow_ids);
    const int8_t *canonical = PyArray_DATA(job->canonical);
    uint8_t *addresses = PyArray_DATA(job->out[4]);
    uint16_t *ports = PyArray_DATA(job->out[5]);
    size_t first = (size_t)offsets[flow];
    struct nd_endpoints ends;
    struct nd_anchor anchor = flow_anchor(job, flow);
    struct nd_repaired out = flow_outputs(job, flow, first);
    out.ends = &ends;
    nd_repair_flow(repair, &job->options, ids[flow], &anchor,
                   canonical + first * ND_CANONICAL_CELLS,
                   (size_t)offsets[flow + 1] - first, &out);
    memcpy(addresses + flow * 32, ends.address, 32);
    memcpy(ports + flow * 2, ends.port, sizeof ends.port);
}

static enum nd_status
repair_flows(const struct job *job, struct nd_error *err)
{
    const int64_t *offsets = PyArray_DATA(job->offsets);
    size_t flows = (size_t)PyArray_DIM(job->offsets, 0) - 1, longest = 0;
    struct nd_repair *repair = NULL;
    for (size_t f = 0; f < flows; f++)
        if ((size_t)(offsets[f + 1] - offsets[f]) > longest)
            longest = (size_t)(offsets[f + 1] - offsets[f]);
    enum nd_status status = nd_repair_check(&job->options, err);
    if (status == ND_OK)
        status = nd_repair_create(&repair, longest, err);
    for (size_t f = 0; status == ND_OK && f < flows; f++)
        repair_flow(job, repair, f);
    nd_repair_destroy(repair);
    return status;
}

/* None, or an array with one line a flow. */
static int
optional_input(PyArrayObject **array, PyObject *object, int dtype, int axes,
               const char *argument, const npy_intp shape[3])
{
    if (object == NULL || object == Py_None)
        return 0;
    *array = nd_py_input(object, dtype, axes, argument);
    if (*array == NULL)
        return -1;
    return check_shape(*array, argument, shape[0], shape[1], shape[2]);
}

/* Ports, where the lists begin, and the list of each flow or -1. */
static int
read_known_ports(struct job *job, PyObject *object, npy_intp flows)
{
    PyObject *ports, *offsets, *list;
    if (object == NULL || object == Py_None)
        return 0;
    if (!PyArg_ParseTuple(object, "OOO;known_ports is a tuple of ports, "
                                  "offsets and lists", &ports, &offsets,
                          &list))
        return -1;
    job->known = nd_py_input(ports, NPY_UINT16, 1, "known_ports[0]");
    if (job->known == NULL)
        return -1;
    job->known_offsets = nd_py_offsets(offsets, PyArray_DIM(job->known, 0));
    job->known_list = nd_py_indices(list, NPY_INT32, "known_ports[2]");
    if (job->known_offsets == NULL || job->known_list == NULL ||
        check_shape(job->known_list, "known_ports[2]", flows, 0, 0) < 0)
        return -1;
    npy_intp lists = (PyArray_DIM(job->known_offsets, 0) - 1) / 2;
    const int32_t *at = PyArray_DATA(job->known_list);
    for (npy_intp f = 0; f < flows; f++)
        if (at[f] >= lists) {
            PyErr_Format(PyExc_ValueError,
                         "known_ports[2]: flow %zd has list %d of %zd",
                         (Py_ssize_t)f, (int)at[f], (Py_ssize_t)lists);
            return -1;
        }
    return 0;
}

static int
read_inputs(struct job *job, PyObject *objects[N_OBJECTS])
{
    job->canonical = nd_py_input(objects[0], NPY_INT8, 2, "canonical");
    if (job->canonical == NULL)
        return -1;
    npy_intp n = PyArray_DIM(job->canonical, 0);
    if (check_shape(job->canonical, "canonical", n, ND_CANONICAL_CELLS, 0) < 0)
        return -1;
    job->offsets = nd_py_offsets(objects[1], n);
    job->flow_ids = nd_py_input(objects[2], NPY_UINT64, 1, "flow_ids");
    if (job->offsets == NULL || job->flow_ids == NULL)
        return -1;
    npy_intp flows = PyArray_DIM(job->offsets, 0) - 1;
    const npy_intp shape[3] = {flows, 2, 16};
    if (check_shape(job->flow_ids, "flow_ids", flows, 0, 0) < 0 ||
        optional_input(&job->addresses, objects[3], NPY_UINT8, 3, "addresses",
                       shape) < 0 ||
        optional_input(&job->ports, objects[4], NPY_UINT16, 2, "ports",
                       shape) < 0 ||
        optional_input(&job->ip_version, objects[5], NPY_UINT8, 1,
                       "ip_version", shape) < 0 ||
        optional_input(&job->starts, objects[6], NPY_INT64, 1, "starts",
                       shape) < 0 ||
        optional_input(&job->client_ports, objects[8], NPY_UINT16, 1,
                       "client_ports", shape) < 0 ||
        read_known_ports(job, objects[7], flows) < 0)
        return -1;
    if ((job->addresses != NULL) == (job->ports != NULL) &&
        (job->addresses != NULL) == (job->ip_version != NULL))
        return 0;
    PyErr_SetString(PyExc_ValueError,
                    "addresses, ports and ip_version come together");
    return -1;
}

static int
make_outputs(struct job *job)
{
    npy_intp n = PyArray_DIM(job->canonical, 0);
    npy_intp flows = PyArray_DIM(job->offsets, 0) - 1;
    for (int i = 0; i < N_OUTPUTS; i++) {
        npy_intp shape[3];
        memcpy(shape, outputs[i].shape, sizeof shape);
        shape[0] = shape[0] == -1 ? n : flows;
        job->out[i] = (PyArrayObject *)PyArray_SimpleNew(
            outputs[i].axes, shape, outputs[i].dtype);
        if (job->out[i] == NULL)
            return -1;
    }
    return 0;
}

static PyObject *
output_dict(const struct job *job)
{
    PyObject *dict = PyDict_New();
    for (int i = 0; dict != NULL && i < N_OUTPUTS; i++)
        if (PyDict_SetItemString(dict, outputs[i].name,
                                 (PyObject *)job->out[i]) < 0)
            Py_CLEAR(dict);
    if (dict != NULL &&
        PyDict_SetItemString(dict, "offsets", (PyObject *)job->offsets) < 0)
        Py_CLEAR(dict);
    return dict;
}

static int
parse_repair(PyObject *args, PyObject *keywords, struct job *job,
             PyObject *objects[N_OBJECTS])
{
    static char *names[] = {"canonical", "offsets", "seed", "flow_ids",
                            "events", "mtu", "pools", "start", "spread",
                            "addresses", "ports", "ip_version", "starts",
                            "known_ports", "client_ports", NULL};
    struct nd_repair_options *o = &job->options;
    PyObject *pools = Py_None;
    const char *events = "keep";
    unsigned long long seed;
    unsigned mtu;
    long long start, spread;
    nd_repair_defaults(o);
    mtu = o->mtu;
    start = o->start;
    spread = o->spread;
    if (!PyArg_ParseTupleAndKeywords(
            args, keywords, "OOKO|$sIOLLOOOOOO:repair", names, &objects[0],
            &objects[1], &seed, &objects[2], &events, &mtu, &pools, &start,
            &spread, &objects[3], &objects[4], &objects[5], &objects[6],
            &objects[7], &objects[8]))
        return -1;
    o->seed = seed;
    o->mtu = mtu;
    o->start = start;
    o->spread = spread;
    if (read_events(events, &o->events) < 0)
        return -1;
    return read_pools(pools, o);
}

static PyObject *
repair_repair(PyObject *module, PyObject *args, PyObject *keywords)
{
    PyObject *objects[N_OBJECTS] = {NULL}, *result = NULL;
    struct job job = {.canonical = NULL};
    struct nd_error err;
    enum nd_status status;
    if (parse_repair(args, keywords, &job, objects) < 0)
        return NULL;
    if (read_inputs(&job, objects) < 0 || make_outputs(&job) < 0)
        goto done;
    Py_BEGIN_ALLOW_THREADS
    status = repair_flows(&job, &err);
    Py_END_ALLOW_THREADS
    if (status != ND_OK)
        nd_py_raise(nd_py_state(module), &err);
    else
        result = output_dict(&job);
done:
    Py_XDECREF(job.canonical);
    Py_XDECREF(job.offsets);
    Py_XDECREF(job.flow_ids);
    Py_XDECREF(job.addresses);
    Py_XDECREF(job.ports);
    Py_XDECREF(job.ip_version);
    Py_XDECREF(job.starts);
    Py_XDECREF(job.known);
    Py_XDECREF(job.known_offsets);
    Py_XDECREF(job.known_list);
    Py_XDECREF(job.client_ports);
    for (int i = 0; i < N_OUTPUTS; i++)
        Py_XDECREF(job.out[i]);
    return result;
}

/* ---- validate --------------------------------------------------------- */

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
        npy_intp shape[3]; /* as in struct output */
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
        else if (check_shape(q->in[i], kinds[i].name,
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
validate_flow(const struct inquiry *q, size_t flow)
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
repair_validate(PyObject *Py_UNUSED(module), PyObject *args,
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
        validate_flow(&q, f);
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
repair_validate_packets(PyObject *module, PyObject *args)
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

PyDoc_STRVAR(repair_doc,
"repair(canonical, offsets, seed, flow_ids, *, events='keep', mtu=65535, "
"pools=None, start=1704067200000000000, spread=3600000000000, "
"addresses=None, ports=None, ip_version=None, starts=None, "
"known_ports=None, client_ports=None)\n--\n\n"
"Turn canonical rows into flows that obey the protocols.");

PyDoc_STRVAR(rules_doc,
"repair_rules()\n--\n\n"
"Return the rules as (name, source, text), in the order of `changed`.");

PyDoc_STRVAR(validate_doc,
"validate(rows, offsets, timestamps, direction, addresses, ports, "
"ip_version, protocol, known_payload)\n--\n\n"
"Return for each flow and rule how many packets break it, and the first;\n"
"and of each packet the rules that it breaks, a bit a rule.");

PyDoc_STRVAR(validate_packets_doc,
"validate_packets(path, /)\n--\n\n"
"Hold the transport checksums of a capture against its bytes; the key wrong\n"
"has the numbers of the frames whose checksum is wrong.");

PyMethodDef nd_py_repair_methods[] = {
    {"repair", (PyCFunction)(void (*)(void))repair_repair,
     METH_VARARGS | METH_KEYWORDS, repair_doc},
    {"repair_rules", repair_rules, METH_NOARGS, rules_doc},
    {"validate", (PyCFunction)(void (*)(void))repair_validate,
     METH_VARARGS | METH_KEYWORDS, validate_doc},
    {"validate_packets", repair_validate_packets, METH_VARARGS,
     validate_packets_doc},
    {NULL, NULL, 0, NULL}};
