#include "py_engine.h"

#include "../engine/ops.h"
#include "../engine/rng.h"

#include <string.h>
#include <time.h>

bool
nd_py_word64(PyObject *object, uint64_t *number)
{
    *number = PyLong_AsUnsignedLongLong(object);
    return !PyErr_Occurred();
}

/* The fields of the ops' structs that a test may give, by name. */
enum field_kind { FIELD_TENSOR, FIELD_SIZE, FIELD_RAGGED, FIELD_WEIGHT };

struct field {
    enum nd_op_kind op;
    enum field_kind kind;
    const char *name;
    size_t at; /* in struct nd_op */
};

#define FIELD(OP, kind, op, name)                                             \
    {ND_OP_##OP, FIELD_##kind, #name, offsetof(struct nd_op, as.op.name)}

static const struct field fields[] = {
    FIELD(LINEAR, TENSOR, linear, in),
    FIELD(LINEAR, WEIGHT, linear, weight),
    FIELD(LINEAR, SIZE, linear, epilogue),
    FIELD(LINEAR, TENSOR, linear, residual),
    FIELD(LINEAR, TENSOR, linear, modulation),
    FIELD(LINEAR, TENSOR, linear, constant),
    FIELD(LINEAR, TENSOR, linear, tokens),
    FIELD(LINEAR, SIZE, linear, gate),
    FIELD(LINEAR, SIZE, linear, rows),
    FIELD(LINEAR, TENSOR, linear, out),
    FIELD(NORM, TENSOR, norm, in),
    FIELD(NORM, TENSOR, norm, modulation),
    FIELD(NORM, TENSOR, norm, constant),
    FIELD(NORM, TENSOR, norm, tokens),
    FIELD(NORM, SIZE, norm, shift),
    FIELD(NORM, SIZE, norm, scale),
    FIELD(NORM, SIZE, norm, rows),
    FIELD(NORM, TENSOR, norm, out),
    FIELD(ATTENTION, TENSOR, attention, qkv),
    FIELD(ATTENTION, TENSOR, attention, rotary),
    FIELD(ATTENTION, RAGGED, attention, ragged),
    FIELD(ATTENTION, SIZE, attention, heads),
    FIELD(ATTENTION, TENSOR, attention, out),
    FIELD(CONDITION, TENSOR, condition, given),
    FIELD(CONDITION, TENSOR, condition, noise),
    FIELD(CONDITION, SIZE, condition, rows),
    FIELD(CONDITION, TENSOR, condition, out),
    FIELD(INPUT, TENSOR, input, x),
    FIELD(INPUT, TENSOR, input, estimate),
    FIELD(INPUT, SIZE, input, rows),
    FIELD(INPUT, TENSOR, input, out),
    FIELD(HOLD, TENSOR, hold, held),
    FIELD(HOLD, SIZE, hold, rows),
    FIELD(HOLD, TENSOR, hold, out),
    FIELD(ESTIMATE, TENSOR, estimate, logits),
    FIELD(ESTIMATE, TENSOR, estimate, none),
    FIELD(ESTIMATE, TENSOR, estimate, x),
    FIELD(ESTIMATE, TENSOR, estimate, estimate),
    FIELD(ESTIMATE, SIZE, estimate, rows),
    FIELD(NOISE, TENSOR, noise, x),
    FIELD(NOISE, TENSOR, noise, estimate),
    FIELD(NOISE, RAGGED, noise, ragged),
    FIELD(RENOISE, TENSOR, renoise, logits),
    FIELD(RENOISE, TENSOR, renoise, x),
    FIELD(RENOISE, RAGGED, renoise, ragged),
    FIELD(DRAW, TENSOR, draw, logits),
    FIELD(DRAW, RAGGED, draw, ragged),
    FIELD(DRAW, TENSOR, draw, cells),
};

enum { FIELD_COUNT = sizeof fields / sizeof *fields, TENSORS_MOST = 16 };

/* An op under construction, with what is to be destroyed after it. */
struct call {
    struct nd_backend *backend;
    struct nd_op op;
    PyArrayObject *arrays[TENSORS_MOST]; /* beside tensors; may be NULL */
    const char *names[TENSORS_MOST];
    struct nd_tensor *tensors[TENSORS_MOST];
    size_t count;
    struct nd_weight *weight;
    uint32_t *offsets;
    PyArrayObject *seconds; /* of each repeat; NULL: none */
    struct nd_error err;
};

/* A tensor of an array's shape and values; NULL with call->err set. */
static struct nd_tensor *
add_tensor(struct call *call, enum nd_type type, size_t rows, size_t columns,
           const void *values)
{
    const struct nd_backend_functions *f = call->backend->functions;
    struct nd_tensor *tensor = NULL;
    if (f->tensor_create(call->backend, type, rows, columns, &tensor,
                         &call->err) != ND_OK)
        return NULL;
    call->tensors[call->count++] = tensor;
    if (f->tensor_write(call->backend, tensor, rows, values, &call->err) !=
        ND_OK)
        return NULL;
    return tensor;
}

static bool
give_tensor(struct call *call, const struct field *field, PyObject *value)
{
    int dtype = PyArray_Check(value) ? PyArray_TYPE((PyArrayObject *)value)
                                     : NPY_FLOAT32;
    enum nd_type type = dtype == NPY_UINT32 ? ND_UINT32
                        : dtype == NPY_INT8 ? ND_INT8
                                            : ND_FLOAT32;
    if (type == ND_FLOAT32)
        dtype = NPY_FLOAT32;
    PyArrayObject *array = nd_py_input(value, dtype, 2, field->name);
    if (array == NULL)
        return false;
    call->names[call->count] = field->name;
    call->arrays[call->count] = array;
    struct nd_tensor *tensor =
        add_tensor(call, type, (size_t)PyArray_DIM(array, 0),
                   (size_t)PyArray_DIM(array, 1), PyArray_DATA(array));
    memcpy((char *)&call->op + field->at, &tensor, sizeof(void *));
    return tensor != NULL;
}

/* (matrix, bias) */
static bool
give_weight(struct call *call, PyObject *value)
{
    PyObject *matrix_object, *bias_object;
    bool good = false;
    if (!PyArg_ParseTuple(value, "OO:weight", &matrix_object, &bias_object))
        return false;
    PyArrayObject *bias = NULL,
                  *matrix = nd_py_input(matrix_object, NPY_FLOAT32, 2,
                                        "matrix");
    if (matrix != NULL)
        bias = nd_py_input(bias_object, NPY_FLOAT32, 1, "bias");
    if (bias != NULL && PyArray_SIZE(bias) == PyArray_DIM(matrix, 0))
        good = call->backend->functions->weight_create(
                   call->backend, PyArray_DATA(matrix), PyArray_DATA(bias),
                   (size_t)PyArray_DIM(matrix, 0),
                   (size_t)PyArray_DIM(matrix, 1), &call->weight,
                   &call->err) == ND_OK;
    Py_XDECREF(matrix);
    Py_XDECREF(bias);
    call->op.as.linear.weight = call->weight;
    return good;
}

/* (lengths, ids): the tokens and flows of a batch. */
static bool
fill_ragged(struct call *call, const int32_t *lengths, const uint64_t *ids,
            size_t n, struct nd_ragged *ragged)
{
    size_t total = 0, t = 0;
    for (size_t f = 0; f < n; f++)
        total += (size_t)lengths[f];
    uint32_t(*rows)[4] = PyMem_Calloc(total + n + 1, sizeof *rows);
    call->offsets = PyMem_Calloc(n + 1, sizeof *call->offsets);
    if (rows == NULL || call->offsets == NULL) {
        PyMem_Free(rows);
        return false;
    }
    for (size_t f = 0; f < n; f++) {
        uint32_t first = call->offsets[f], packets = (uint32_t)lengths[f];
        for (uint32_t i = 0; i < packets; i++, t++)
            memcpy(rows[t], (uint32_t[]){(uint32_t)f, i, first, packets}, 16);
        memcpy(rows[total + f],
               (uint32_t[]){first, packets, (uint32_t)ids[f],
                            (uint32_t)(ids[f] >> 32)},
               16);
        call->offsets[f + 1] = first + packets;
        if (packets > ragged->longest)
            ragged->longest = packets;
    }
    ragged->tokens = add_tensor(call, ND_UINT32, total, 4, rows);
    if (ragged->tokens != NULL)
        ragged->flows = add_tensor(call, ND_UINT32, n, 4, rows + total);
    ragged->offsets = call->offsets;
    ragged->n_tokens = total;
    ragged->n_flows = n;
    PyMem_Free(rows);
    return ragged->flows != NULL;
}

static bool
give_ragged(struct call *call, const struct field *field, PyObject *value)
{
    PyObject *lengths_object, *ids_object;
    struct nd_ragged ragged = {0};
    bool good = false;
    if (!PyArg_ParseTuple(value, "OO:ragged", &lengths_object, &ids_object))
        return false;
    PyArrayObject *ids = NULL, *lengths = nd_py_input(lengths_object,
                                                      NPY_INT32, 1, "lengths");
    if (lengths != NULL)
        ids = nd_py_input(ids_object, NPY_UINT64, 1, "ids");
    if (ids != NULL && PyArray_SIZE(ids) == PyArray_SIZE(lengths))
        good = fill_ragged(call, PyArray_DATA(lengths), PyArray_DATA(ids),
                           (size_t)PyArray_SIZE(ids), &ragged);
    memcpy((char *)&call->op + field->at, &ragged, sizeof ragged);
    Py_XDECREF(lengths);
    Py_XDECREF(ids);
    return good;
}

static bool
give_size(struct call *call, const struct field *field, PyObject *value)
{
    size_t number = PyLong_AsSize_t(value);
    if (PyErr_Occurred())
        return false;
    if (field->at == offsetof(struct nd_op, as.linear.epilogue) &&
        field->op == ND_OP_LINEAR)
        call->op.as.linear.epilogue = (enum nd_epilogue)number;
    else
        memcpy((char *)&call->op + field->at, &number, sizeof number);
    return true;
}

static bool
give(struct call *call, const struct field *field, PyObject *value)
{
    switch (field->kind) {
    case FIELD_TENSOR:
        return call->count < TENSORS_MOST - 2 &&
               give_tensor(call, field, value);
    case FIELD_SIZE:
        return give_size(call, field, value);
    case FIELD_RAGGED:
        return give_ragged(call, field, value);
    case FIELD_WEIGHT:
        return give_weight(call, value);
    }
    return false;
}

/* Every field that the arguments name; a name of no field is ignored. */
static bool
give_all(struct call *call, PyObject *arguments)
{
    for (size_t i = 0; i < FIELD_COUNT; i++) {
        if (fields[i].op != call->op.kind)
            continue;
        PyObject *value = PyDict_GetItemString(arguments, fields[i].name);
        if (value != NULL && !give(call, &fields[i], value))
            return false;
    }
    return true;
}

static enum nd_status
append(struct nd_ops *list, const struct nd_op *op, struct nd_error *err)
{
    switch (op->kind) {
#define X(name, member)                                                       \
    case ND_OP_##name:                                                        \
        return nd_op_##member(list, &op->as.member, err);
        ND_OP_LIST(X)
#undef X
    case ND_OP_COUNT:
        break;
    }
    return nd_fail(err, ND_ARGUMENT, "no such op");
}

static double
clock_seconds(void)
{
    struct timespec now;
    timespec_get(&now, TIME_UTC);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Runs the program again, and waits for it each time by reading a row. */
static enum nd_status
time_runs(struct call *call, struct nd_program *program,
          const struct nd_step *step)
{
    const struct nd_backend_functions *f = call->backend->functions;
    const struct nd_tensor *tensor = call->tensors[0];
    double *seconds = PyArray_DATA(call->seconds);
    enum nd_status status = ND_OK;
    char *row = PyMem_Calloc(tensor->stride, 4);
    if (row == NULL)
        return nd_fail(&call->err, ND_NO_MEMORY, "no memory for a row");
    for (npy_intp i = 0; i < PyArray_SIZE(call->seconds); i++) {
        double start = clock_seconds();
        status = f->program_run(call->backend, program, step, &call->err);
        if (status == ND_OK)
            status = f->tensor_read(call->backend, tensor, 1, row,
                                    &call->err);
        if (status != ND_OK)
            break;
        seconds[i] = clock_seconds() - start;
    }
    PyMem_Free(row);
    return status;
}

static enum nd_status
run(struct call *call, const struct nd_step *step)
{
    const struct nd_backend_functions *f = call->backend->functions;
    struct nd_program *program = NULL;
    struct nd_ops list = {NULL, 0, 0};
    enum nd_status status = append(&list, &call->op, &call->err);
    if (status == ND_OK)
        status = f->program_create(call->backend, list.ops, list.count,
                                   &program, &call->err);
    if (status == ND_OK)
        status = f->program_run(call->backend, program, step, &call->err);
    if (status == ND_OK && call->seconds != NULL)
        status = time_runs(call, program, step);
    f->program_destroy(call->backend, program);
    nd_ops_free(&list);
    return status;
}

/* Every tensor that was given, as it is now. */
static PyObject *
read_all(struct call *call)
{
    const struct nd_backend_functions *f = call->backend->functions;
    PyObject *result = PyDict_New();
    for (size_t i = 0; i < call->count && result != NULL; i++) {
        if (call->arrays[i] == NULL)
            continue;
        PyObject *array = PyArray_NewLikeArray(call->arrays[i], NPY_CORDER,
                                               NULL, 0);
        if (array == NULL ||
            f->tensor_read(call->backend, call->tensors[i],
                           call->tensors[i]->rows,
                           PyArray_DATA((PyArrayObject *)array),
                           &call->err) != ND_OK ||
            PyDict_SetItemString(result, call->names[i], array) < 0)
            Py_CLEAR(result);
        Py_XDECREF(array);
    }
    if (result != NULL && call->seconds != NULL &&
        PyDict_SetItemString(result, "seconds", (PyObject *)call->seconds) < 0)
        Py_CLEAR(result);
    return result;
}

static void
end_call(struct call *call)
{
    if (call->backend == NULL)
        return;
    const struct nd_backend_functions *f = call->backend->functions;
    for (size_t i = 0; i < call->count; i++)
        f->tensor_destroy(call->backend, call->tensors[i]);
    for (size_t i = 0; i < TENSORS_MOST; i++)
        Py_XDECREF(call->arrays[i]);
    f->weight_destroy(call->backend, call->weight);
    PyMem_Free(call->offsets);
    f->destroy(call->backend);
}

const char nd_py_run_op_doc[] =
"run_op(device, name, arguments, step, repeats=0, threads=0, /)\n--\n\n"
"Run one op of the engine: the tensors it was given, afterwards. For tests.\n"
"\n"
"arguments holds the fields of the op's struct by name: arrays, numbers,\n"
"weight as (matrix, bias), ragged as (lengths, ids). step is the 16 words\n"
"of struct nd_step as uint32. With repeats the op is then run as often\n"
"again, and \"seconds\" holds the time of each; the tensors are those of the\n"
"last run.";

PyObject *
nd_py_run_op(PyObject *module, PyObject *args)
{
    const char *names[] = {
#define X(name, member) #member,
        ND_OP_LIST(X)
#undef X
    };
    const char *device, *name;
    PyObject *arguments, *step_object, *result = NULL;
    Py_ssize_t repeats = 0, threads = 0;
    struct call call = {.op = {.kind = ND_OP_COUNT}};
    if (!PyArg_ParseTuple(args, "ssO!O|nn:run_op", &device, &name,
                          &PyDict_Type, &arguments, &step_object, &repeats,
                          &threads))
        return NULL;
    PyArrayObject *step = nd_py_input(step_object, NPY_UINT32, 1, "step");
    if (step == NULL)
        return NULL;
    for (int i = 0; i < ND_OP_COUNT; i++)
        if (strcmp(name, names[i]) == 0)
            call.op.kind = (enum nd_op_kind)i;
    npy_intp count = repeats;
    if (repeats > 0)
        call.seconds = (PyArrayObject *)PyArray_ZEROS(1, &count, NPY_DOUBLE,
                                                      0);
    if ((size_t)PyArray_NBYTES(step) != sizeof(struct nd_step))
        nd_fail(&call.err, ND_ARGUMENT, "step must be 16 words");
    else if (nd_py_open_backend(device, threads > 0 ? (size_t)threads : 0,
                                &call.backend, &call.err) == ND_OK &&
             give_all(&call, arguments) &&
             run(&call, PyArray_DATA(step)) == ND_OK)
        result = read_all(&call);
    if (result == NULL && call.err.code != ND_OK)
        nd_py_raise(nd_py_state(module), &call.err);
    else if (result == NULL && !PyErr_Occurred())
        PyErr_SetString(PyExc_ValueError, "run_op: arguments do not fit");
    end_call(&call);
    Py_XDECREF(call.seconds);
    Py_DECREF(step);
    return result;
}

const char nd_py_philox_doc[] =
"philox(key, counters, /)\n--\n\n"
"Return the Philox4x32-10 blocks at counters (n, 4) for a key of 64 bits.";

PyObject *
nd_py_philox(PyObject *module, PyObject *args)
{
    PyObject *key_object, *counters_object, *result = NULL;
    uint64_t key;
    (void)module;
    if (!PyArg_ParseTuple(args, "OO:philox", &key_object, &counters_object) ||
        !nd_py_word64(key_object, &key))
        return NULL;
    PyArrayObject *counters =
        nd_py_input(counters_object, NPY_UINT32, 2, "counters");
    if (counters == NULL)
        return NULL;
    if (PyArray_DIM(counters, 1) != 4) {
        PyErr_SetString(PyExc_ValueError, "counters must be (n, 4)");
        goto done;
    }
    result = PyArray_SimpleNew(2, PyArray_DIMS(counters), NPY_UINT32);
    if (result == NULL)
        goto done;
    const struct nd_philox_counter *at = PyArray_DATA(counters);
    uint32_t *words = PyArray_DATA((PyArrayObject *)result);
    for (npy_intp i = 0; i < PyArray_DIM(counters, 0); i++)
        nd_philox((struct nd_philox_key){(uint32_t)key, (uint32_t)(key >> 32)},
                  &at[i], words + 4 * i);
done:
    Py_DECREF(counters);
    return result;
}
