#include "module.h"

#include "../net/repair.h"

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
    int status = nd_py_shape(pools, "pools", 4, 17, 0);
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

enum { N_OUTPUTS = 9, N_OBJECTS = 11 };

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

/* Columns of `hosts`, the order of struct nd_host. */
enum {
    PADS, TICK, CLOCK, CLOCK_BITS, IP_ID, ID_BITS, ISN, ISN_BITS, N_HABITS
};

struct job {
    struct nd_repair_options options;
    PyArrayObject *canonical, *offsets, *flow_ids;
    PyArrayObject *addresses, *ports, *ip_version, *starts; /* or NULL */
    PyArrayObject *known, *known_offsets, *known_list;      /* or NULL */
    PyArrayObject *client_ports, *hosts, *resolution;       /* or NULL */
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

static uint8_t
at_most(uint32_t value, uint32_t most)
{
    return (uint8_t)(value < most ? value : most);
}

static void
tell_hosts(const struct job *job, size_t flow, struct nd_anchor *anchor)
{
    if (job->hosts == NULL)
        return;
    const uint32_t *h = PyArray_DATA(job->hosts);
    h += flow * 2 * N_HABITS;
    for (int end = 0; end < 2; end++, h += N_HABITS)
        anchor->host[end] = (struct nd_host){
            .pads = h[PADS] != 0,
            .tick = h[TICK],
            .clock = h[CLOCK],
            .clock_bits = at_most(h[CLOCK_BITS], 32),
            .id = (uint16_t)h[IP_ID],
            .id_bits = at_most(h[ID_BITS], 16),
            .isn = h[ISN],
            .isn_bits = at_most(h[ISN_BITS], 32),
        };
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
    if (job->resolution != NULL)
        anchor.resolution = ((uint32_t *)PyArray_DATA(job->resolution))[flow];
    tell_hosts(job, flow, &anchor);
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
    return nd_py_shape(*array, argument, shape[0], shape[1], shape[2]);
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
        nd_py_shape(job->known_list, "known_ports[2]", flows, 0, 0) < 0)
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
    if (nd_py_shape(job->canonical, "canonical", n, ND_CANONICAL_CELLS, 0) < 0)
        return -1;
    job->offsets = nd_py_offsets(objects[1], n);
    job->flow_ids = nd_py_input(objects[2], NPY_UINT64, 1, "flow_ids");
    if (job->offsets == NULL || job->flow_ids == NULL)
        return -1;
    npy_intp flows = PyArray_DIM(job->offsets, 0) - 1;
    const npy_intp shape[3] = {flows, 2, 16};
    const npy_intp habits[3] = {flows, 2, N_HABITS};
    if (nd_py_shape(job->flow_ids, "flow_ids", flows, 0, 0) < 0 ||
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
        optional_input(&job->hosts, objects[9], NPY_UINT32, 3, "hosts",
                       habits) < 0 ||
        optional_input(&job->resolution, objects[10], NPY_UINT32, 1,
                       "resolution", shape) < 0 ||
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
                            "known_ports", "client_ports", "hosts",
                            "resolution", NULL};
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
            args, keywords, "OOKO|$sIOLLOOOOOOOO:repair", names, &objects[0],
            &objects[1], &seed, &objects[2], &events, &mtu, &pools, &start,
            &spread, &objects[3], &objects[4], &objects[5], &objects[6],
            &objects[7], &objects[8], &objects[9], &objects[10]))
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
    Py_XDECREF(job.hosts);
    Py_XDECREF(job.resolution);
    for (int i = 0; i < N_OUTPUTS; i++)
        Py_XDECREF(job.out[i]);
    return result;
}

PyDoc_STRVAR(repair_doc,
"repair(canonical, offsets, seed, flow_ids, *, events='keep', mtu=65535, "
"pools=None, start=1704067200000000000, spread=3600000000000, "
"addresses=None, ports=None, ip_version=None, starts=None, "
"known_ports=None, client_ports=None, hosts=None, resolution=None)\n--\n\n"
"Turn canonical rows into flows that obey the protocols.");

PyDoc_STRVAR(rules_doc,
"repair_rules()\n--\n\n"
"Return the rules as (name, source, text), in the order of `changed`.");

PyMethodDef nd_py_repair_methods[] = {
    {"repair", (PyCFunction)(void (*)(void))repair_repair,
     METH_VARARGS | METH_KEYWORDS, repair_doc},
    {"repair_rules", repair_rules, METH_NOARGS, rules_doc},
    {NULL, NULL, 0, NULL}};
