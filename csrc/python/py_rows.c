#include "module.h"

#include "../net/canonical.h"
#include "../net/gap.h"

/* ---- layouts ---------------------------------------------------------- */

static const char *const header_names[ND_HEADER_COUNT] = {
    [ND_HEADER_IPV4] = "ipv4", [ND_HEADER_IPV6] = "ipv6",
    [ND_HEADER_TCP] = "tcp",   [ND_HEADER_UDP] = "udp",
    [ND_HEADER_ICMP] = "icmp", [ND_HEADER_MOTION] = "motion",
};

static const char *const role_names[] = {
    [ND_ROLE_DRAWN] = "drawn",       [ND_ROLE_LENGTH] = "length",
    [ND_ROLE_DERIVED] = "derived",   [ND_ROLE_STATEFUL] = "stateful",
    [ND_ROLE_PRIVATE] = "private",
};

static PyObject *
layout_fields(const struct nd_layout *layout)
{
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list != NULL && i < ND_FIELD_COUNT; i++) {
        const struct nd_field *f = &nd_fields[i];
        if (layout->first_cell[i] < 0)
            continue;
        PyObject *field = Py_BuildValue(
            "(sssii)", f->name, header_names[f->header], role_names[f->role],
            layout->first_cell[i], f->bits);
        if (field == NULL || PyList_Append(list, field) < 0)
            Py_CLEAR(list);
        Py_XDECREF(field);
    }
    return list;
}

static PyObject *
layout_dict(const struct nd_layout *layout)
{
    char hash[17];
    PyOS_snprintf(hash, sizeof hash, "%016llx",
                  (unsigned long long)nd_layout_hash(layout));
    PyObject *fields = layout_fields(layout);
    if (fields == NULL)
        return NULL;
    return Py_BuildValue("{sisssN}", "cells", layout->cells, "hash", hash,
                         "fields", fields);
}

static PyObject *
rows_layouts(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(args))
{
    PyObject *all = PyDict_New();
    for (size_t i = 0; all != NULL && i < ND_LAYOUT_COUNT; i++) {
        PyObject *one = layout_dict(&nd_layouts[i]);
        if (one == NULL ||
            PyDict_SetItemString(all, nd_layouts[i].name, one) < 0)
            Py_CLEAR(all);
        Py_XDECREF(one);
    }
    return all;
}

/* ---- arguments -------------------------------------------------------- */

static const struct nd_layout *
find_layout(const char *name)
{
    const struct nd_layout *layout = nd_layout_find(name);
    if (layout == NULL)
        PyErr_Format(PyExc_ValueError,
                     "no layout is named '%s'; known are "
                     "netdiffusion-1088, nprint-4tui, nprint-46tui and "
                     "netdiffusion-canonical",
                     name);
    return layout;
}

static int
check_length(PyArrayObject *array, int axis, npy_intp wanted,
             const char *argument)
{
    npy_intp is = PyArray_DIM(array, axis);
    if (is == wanted)
        return 0;
    PyErr_Format(PyExc_ValueError, "%s: axis %d has %zd entries, not %zd",
                 argument, axis, (Py_ssize_t)is, (Py_ssize_t)wanted);
    return -1;
}

static PyArrayObject *
new_rows(npy_intp n, npy_intp cells, int dtype)
{
    npy_intp shape[2] = {n, cells};
    return (PyArrayObject *)PyArray_SimpleNew(2, shape, dtype);
}

/* ---- encode ----------------------------------------------------------- */

static void
encode_frames(const struct nd_layout *layout, int link_type,
              const uint8_t *bytes, const int64_t *offsets, npy_intp n,
              int8_t *rows)
{
    for (npy_intp i = 0; i < n; i++) {
        struct nd_packet packet;
        size_t length = (size_t)(offsets[i + 1] - offsets[i]);
        nd_packet_parse(&packet, link_type, bytes + offsets[i], length,
                        (uint32_t)length, 0);
        nd_rows_encode(layout, &packet, rows + i * layout->cells);
    }
}

static PyObject *
rows_encode(PyObject *Py_UNUSED(module), PyObject *args, PyObject *keywords)
{
    static char *names[] = {"frames", "offsets", "link_type", "layout", NULL};
    PyObject *frames_object, *offsets_object;
    PyArrayObject *frames = NULL, *offsets = NULL, *out = NULL;
    int link_type;
    const char *layout_name;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "OOis:encode", names,
                                     &frames_object, &offsets_object,
                                     &link_type, &layout_name))
        return NULL;
    const struct nd_layout *layout = find_layout(layout_name);
    if (layout == NULL)
        return NULL;
    frames = nd_py_input(frames_object, NPY_UINT8, 1, "frames");
    if (frames == NULL)
        goto done;
    offsets = nd_py_offsets(offsets_object, PyArray_DIM(frames, 0));
    if (offsets == NULL)
        goto done;
    npy_intp n = PyArray_DIM(offsets, 0) - 1;
    out = new_rows(n, layout->cells, NPY_INT8);
    if (out == NULL)
        goto done;
    Py_BEGIN_ALLOW_THREADS
    encode_frames(layout, link_type, PyArray_DATA(frames),
                  PyArray_DATA(offsets), n, PyArray_DATA(out));
    Py_END_ALLOW_THREADS
done:
    Py_XDECREF(frames);
    Py_XDECREF(offsets);
    return (PyObject *)out;
}

/* ---- decode ----------------------------------------------------------- */

struct decode_job {
    const struct nd_layout *layout;
    PyArrayObject *rows, *offsets, *direction, *addresses, *ports;
    PyArrayObject *bytes, *ip_length, *transport_length;
};

static enum nd_status
decode_packet(const struct decode_job *job, npy_intp packet,
              const struct nd_endpoints *ends, struct nd_error *err)
{
    const int8_t *rows = PyArray_DATA(job->rows);
    const uint8_t *direction = PyArray_DATA(job->direction);
    uint8_t *bytes = PyArray_DATA(job->bytes);
    uint8_t *ip_length = PyArray_DATA(job->ip_length);
    uint8_t *transport_length = PyArray_DATA(job->transport_length);
    size_t ip, transport;
    struct nd_error why;
    enum nd_status status = nd_rows_decode(
        job->layout, rows + packet * job->layout->cells, ends,
        direction[packet], bytes + packet * ND_MAX_HEADER_BYTES, &ip,
        &transport, &why);
    if (status != ND_OK)
        return nd_fail(err, status, "row %zd: %s", (Py_ssize_t)packet,
                       why.text);
    ip_length[packet] = (uint8_t)ip;
    transport_length[packet] = (uint8_t)transport;
    return ND_OK;
}

static enum nd_status
decode_flows(const struct decode_job *job, struct nd_error *err)
{
    const int64_t *offsets = PyArray_DATA(job->offsets);
    const uint8_t *addresses = PyArray_DATA(job->addresses);
    const uint16_t *ports = PyArray_DATA(job->ports);
    npy_intp n_flows = PyArray_DIM(job->offsets, 0) - 1;
    memset(PyArray_DATA(job->bytes), 0, (size_t)PyArray_NBYTES(job->bytes));
    for (npy_intp f = 0; f < n_flows; f++) {
        struct nd_endpoints ends;
        memcpy(ends.address, addresses + f * 32, 32);
        memcpy(ends.port, ports + f * 2, sizeof ends.port);
        for (int64_t p = offsets[f]; p < offsets[f + 1]; p++) {
            enum nd_status status =
                decode_packet(job, (npy_intp)p, &ends, err);
            if (status != ND_OK)
                return status;
        }
    }
    return ND_OK;
}

static int
decode_inputs(struct decode_job *job, PyObject *objects[5])
{
    job->rows = nd_py_input(objects[0], NPY_INT8, 2, "rows");
    if (job->rows == NULL ||
        check_length(job->rows, 1, job->layout->cells, "rows") < 0)
        return -1;
    npy_intp n = PyArray_DIM(job->rows, 0);
    job->offsets = nd_py_offsets(objects[1], n);
    job->direction = nd_py_input(objects[2], NPY_UINT8, 1, "direction");
    job->addresses = nd_py_input(objects[3], NPY_UINT8, 3, "addresses");
    job->ports = nd_py_input(objects[4], NPY_UINT16, 2, "ports");
    if (job->offsets == NULL || job->direction == NULL ||
        job->addresses == NULL || job->ports == NULL)
        return -1;
    npy_intp flows = PyArray_DIM(job->offsets, 0) - 1;
    if (check_length(job->direction, 0, n, "direction") < 0 ||
        check_length(job->addresses, 0, flows, "addresses") < 0 ||
        check_length(job->addresses, 1, 2, "addresses") < 0 ||
        check_length(job->addresses, 2, 16, "addresses") < 0 ||
        check_length(job->ports, 0, flows, "ports") < 0 ||
        check_length(job->ports, 1, 2, "ports") < 0)
        return -1;
    job->bytes = new_rows(n, ND_MAX_HEADER_BYTES, NPY_UINT8);
    job->ip_length = (PyArrayObject *)PyArray_SimpleNew(1, &n, NPY_UINT8);
    job->transport_length =
        (PyArrayObject *)PyArray_SimpleNew(1, &n, NPY_UINT8);
    return job->bytes == NULL || job->ip_length == NULL ||
                   job->transport_length == NULL
               ? -1
               : 0;
}

static PyObject *
rows_decode(PyObject *module, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"rows",      "offsets", "direction",
                            "addresses", "ports",   "layout",
                            NULL};
    PyObject *objects[5], *result = NULL;
    const char *layout_name;
    struct decode_job job = {0};
    struct nd_error err;
    enum nd_status status;
    if (!PyArg_ParseTupleAndKeywords(
            args, keywords, "OOOOOs:decode", names, &objects[0], &objects[1],
            &objects[2], &objects[3], &objects[4], &layout_name))
        return NULL;
    job.layout = find_layout(layout_name);
    if (job.layout == NULL || decode_inputs(&job, objects) < 0)
        goto done;
    Py_BEGIN_ALLOW_THREADS
    status = decode_flows(&job, &err);
    Py_END_ALLOW_THREADS
    if (status != ND_OK)
        nd_py_raise(nd_py_state(module), &err);
    else
        result = Py_BuildValue("(OOO)", job.bytes, job.ip_length,
                               job.transport_length);
done:
    Py_XDECREF(job.rows);
    Py_XDECREF(job.offsets);
    Py_XDECREF(job.direction);
    Py_XDECREF(job.addresses);
    Py_XDECREF(job.ports);
    Py_XDECREF(job.bytes);
    Py_XDECREF(job.ip_length);
    Py_XDECREF(job.transport_length);
    return result;
}

/* ---- convert ---------------------------------------------------------- */

static PyObject *
rows_convert(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *object;
    const char *from_name, *to_name;
    if (!PyArg_ParseTuple(args, "Oss:convert_layout", &object, &from_name,
                          &to_name))
        return NULL;
    const struct nd_layout *from = find_layout(from_name);
    const struct nd_layout *to = from != NULL ? find_layout(to_name) : NULL;
    if (to == NULL)
        return NULL;
    PyArrayObject *out = NULL;
    PyArrayObject *in = nd_py_input(object, NPY_INT8, 2, "rows");
    if (in == NULL || check_length(in, 1, from->cells, "rows") < 0)
        goto done;
    npy_intp n = PyArray_DIM(in, 0);
    out = new_rows(n, to->cells, NPY_INT8);
    if (out == NULL)
        goto done;
    Py_BEGIN_ALLOW_THREADS
    nd_rows_convert(from, PyArray_DATA(in), (size_t)n, to,
                    PyArray_DATA(out));
    Py_END_ALLOW_THREADS
done:
    Py_XDECREF(in);
    return (PyObject *)out;
}

/* ---- canonical -------------------------------------------------------- */

static void
canonicalize_flows(const int8_t *rows, const int64_t *offsets, npy_intp n,
                   const int64_t *times, const uint8_t *direction,
                   int8_t *canonical)
{
    for (npy_intp f = 0; f < n; f++) {
        size_t first = (size_t)offsets[f];
        nd_canonical_encode(rows + first * ND_ROW_CELLS,
                            (size_t)offsets[f + 1] - first, times + first,
                            direction + first,
                            canonical + first * ND_CANONICAL_CELLS);
    }
}

static PyObject *
rows_canonicalize(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *objects[4];
    PyArrayObject *rows = NULL, *offsets = NULL, *times = NULL;
    PyArrayObject *direction = NULL, *out = NULL;
    if (!PyArg_ParseTuple(args, "OOOO:canonicalize", &objects[0], &objects[1],
                          &objects[2], &objects[3]))
        return NULL;
    rows = nd_py_input(objects[0], NPY_INT8, 2, "rows");
    if (rows == NULL || check_length(rows, 1, ND_ROW_CELLS, "rows") < 0)
        goto done;
    npy_intp n = PyArray_DIM(rows, 0);
    offsets = nd_py_offsets(objects[1], n);
    if (offsets == NULL)
        goto done;
    times = nd_py_input(objects[2], NPY_INT64, 1, "timestamps");
    if (times == NULL || check_length(times, 0, n, "timestamps") < 0)
        goto done;
    direction = nd_py_input(objects[3], NPY_UINT8, 1, "direction");
    if (direction == NULL || check_length(direction, 0, n, "direction") < 0)
        goto done;
    out = new_rows(n, ND_CANONICAL_CELLS, NPY_INT8);
    if (out == NULL)
        goto done;
    Py_BEGIN_ALLOW_THREADS
    canonicalize_flows(PyArray_DATA(rows), PyArray_DATA(offsets),
                       PyArray_DIM(offsets, 0) - 1, PyArray_DATA(times),
                       PyArray_DATA(direction), PyArray_DATA(out));
    Py_END_ALLOW_THREADS
done:
    Py_XDECREF(rows);
    Py_XDECREF(offsets);
    Py_XDECREF(times);
    Py_XDECREF(direction);
    return (PyObject *)out;
}

/* ---- gaps ------------------------------------------------------------- */

static PyObject *
gap_code(PyObject *Py_UNUSED(module), PyObject *args)
{
    long long nanoseconds;
    if (!PyArg_ParseTuple(args, "L:gap_code", &nanoseconds))
        return NULL;
    struct nd_round_trip none = {0};
    uint32_t bin = nd_gap_bin(nanoseconds);
    return PyLong_FromUnsignedLong(nd_gap_tell(&none, bin));
}

static PyObject *
gap_limits(PyObject *Py_UNUSED(module), PyObject *args)
{
    unsigned int code;
    int64_t low, high;
    if (!PyArg_ParseTuple(args, "I:gap_limits", &code))
        return NULL;
    struct nd_round_trip none = {0};
    nd_gap_limits(nd_gap_hear(&none, code), &low, &high);
    return Py_BuildValue("(LL)", (long long)low, (long long)high);
}

PyDoc_STRVAR(layouts_doc,
             "layouts()\n--\n\n"
             "Every layout by name: cells, hash and the list of fields\n"
             "(name, header, role, first cell, bits).");
PyDoc_STRVAR(encode_doc,
             "encode(frames, offsets, link_type, layout)\n--\n\n"
             "Rows (P, B) of P frames whose bytes stand one after another;\n"
             "link_type is a DLT_ value of libpcap.");
PyDoc_STRVAR(decode_doc,
             "decode(rows, offsets, direction, addresses, ports, layout)\n"
             "--\n\n"
             "Header bytes (P, 120), IP header lengths (P,) and transport\n"
             "header lengths (P,) of rows.");
PyDoc_STRVAR(convert_layout_doc,
             "convert_layout(rows, source, target, /)\n--\n\n"
             "Rows in another layout; fields that the source lacks are -1.");
PyDoc_STRVAR(canonicalize_doc,
             "canonicalize(rows, offsets, timestamps, direction, /)\n--\n\n"
             "Canonical rows (P, 1104) of netdiffusion-1088 rows.");
PyDoc_STRVAR(gap_code_doc,
             "gap_code(nanoseconds, /)\n--\n\n"
             "The 9 bits of motion_gap for an inter-arrival time, before any\n"
             "round trip is known.");
PyDoc_STRVAR(gap_limits_doc,
             "gap_limits(code, /)\n--\n\n"
             "Limits (low, high) in ns of a motion_gap code, before any round\n"
             "trip is known.");

#define WITH_KEYWORDS(f)                                                      \
    (PyCFunction)(void (*)(void))(f), METH_VARARGS | METH_KEYWORDS

PyMethodDef nd_py_rows_methods[] = {
    {"layouts", rows_layouts, METH_NOARGS, layouts_doc},
    {"encode", WITH_KEYWORDS(rows_encode), encode_doc},
    {"decode", WITH_KEYWORDS(rows_decode), decode_doc},
    {"convert_layout", rows_convert, METH_VARARGS, convert_layout_doc},
    {"canonicalize", rows_canonicalize, METH_VARARGS, canonicalize_doc},
    {"gap_code", gap_code, METH_VARARGS, gap_code_doc},
    {"gap_limits", gap_limits, METH_VARARGS, gap_limits_doc},
    {NULL, NULL, 0, NULL},
};
