#include "py_engine.h"

#include "../engine/sampler.h"

#include <math.h>
#include <string.h>

struct model {
    PyObject_HEAD
    struct nd_backend *backend;
    struct nd_rowformer *network;
    PyThread_type_lock lock; /* one call at a time; taken without the GIL */
    size_t most_tokens; /* of a batch, once memory ran out; 0: any */
};

/* The GIL and signals between steps, and the caller's callable. */
struct watcher {
    PyObject *progress; /* or Py_None */
};

static enum nd_status
watch(void *user, size_t flows_done, size_t steps_done, size_t steps,
      struct nd_error *err)
{
    const struct watcher *watcher = user;
    PyGILState_STATE gil = PyGILState_Ensure();
    bool failed = PyErr_CheckSignals() < 0;
    if (!failed && watcher->progress != Py_None) {
        PyObject *told = PyObject_CallFunction(watcher->progress, "nnn",
                                               (Py_ssize_t)flows_done,
                                               (Py_ssize_t)steps_done,
                                               (Py_ssize_t)steps);
        failed = told == NULL;
        Py_XDECREF(told);
    }
    PyGILState_Release(gil);
    return failed ? nd_fail(err, ND_ARGUMENT, "stopped") : ND_OK;
}

static enum nd_status
open_model(struct model *self, const char *path,
           const struct nd_dimensions *dimensions, const char *device,
           size_t threads, struct nd_error *err)
{
    struct nd_safetensors *file = NULL;
    enum nd_status status = nd_safetensors_open(path, &file, err);
    if (status == ND_OK)
        status = nd_py_open_backend(device, threads, &self->backend, err);
    if (status == ND_OK)
        status = nd_rowformer_create(self->backend, file, dimensions,
                                     &self->network, err);
    nd_safetensors_close(file);
    return status;
}

static PyObject *
model_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    char *names[] = {"path",    "columns", "width",  "blocks",  "heads",
                     "mlp",     "classes", "reveal", "device",  "threads",
                     NULL};
    PyObject *path = NULL;
    Py_ssize_t size[6] = {0}, threads = 0;
    const char *device = "auto";
    int reveal = 0;
    struct nd_error err = {0};
    enum nd_status status;
    if (!PyArg_ParseTupleAndKeywords(
            args, kwargs, "O&|$nnnnnnpsn:Model", names, PyUnicode_FSConverter,
            &path, &size[0], &size[1], &size[2], &size[3], &size[4], &size[5],
            &reveal, &device, &threads))
        return NULL;
    struct nd_dimensions dimensions = {(size_t)size[0], (size_t)size[1],
                                       (size_t)size[2], (size_t)size[3],
                                       (size_t)size[4], (size_t)size[5],
                                       reveal != 0};
    struct model *self = (struct model *)type->tp_alloc(type, 0);
    if (self == NULL)
        goto done;
    self->lock = PyThread_allocate_lock();
    if (self->lock == NULL) {
        PyErr_NoMemory();
        Py_CLEAR(self);
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    status = open_model(self, PyBytes_AS_STRING(path), &dimensions, device,
                        threads > 0 ? (size_t)threads : 0, &err);
    Py_END_ALLOW_THREADS
    if (status != ND_OK) {
        nd_py_raise(nd_py_type_state(type), &err);
        Py_CLEAR(self);
    }
done:
    Py_XDECREF(path);
    return (PyObject *)self;
}

static int
model_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    return 0;
}

static void
model_dealloc(PyObject *op)
{
    struct model *self = (struct model *)op;
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    nd_rowformer_destroy(self->network);
    if (self->backend != NULL)
        self->backend->functions->destroy(self->backend);
    if (self->lock != NULL)
        PyThread_free_lock(self->lock);
    type->tp_free(op);
    Py_DECREF(type);
}

/* What .sample was given, as arrays that are kept until it is done. */
struct sample_arrays {
    PyArrayObject *classes, *lengths, *ids, *sigmas, *held; /* held or NULL */
};

/* Held cells (rows, columns); None: NULL. False with an exception set. */
static bool
take_held(PyObject *object, size_t rows, size_t columns, PyArrayObject **held)
{
    if (object == Py_None)
        return true;
    *held = nd_py_input(object, NPY_INT8, 2, "held");
    if (*held != NULL && ((size_t)PyArray_DIM(*held, 0) != rows ||
                          (size_t)PyArray_DIM(*held, 1) != columns)) {
        PyErr_Format(PyExc_ValueError, "held must be (%zu, %zu)", rows,
                     columns);
        Py_CLEAR(*held);
    }
    return *held != NULL;
}

static bool
take_arrays(struct sample_arrays *arrays, PyObject *classes,
            PyObject *lengths, PyObject *ids, PyObject *sigmas,
            struct nd_sample_request *request)
{
    arrays->classes = nd_py_input(classes, NPY_INT32, 1, "classes");
    if (arrays->classes != NULL)
        arrays->lengths = nd_py_input(lengths, NPY_INT32, 1, "lengths");
    if (arrays->lengths != NULL)
        arrays->ids = nd_py_input(ids, NPY_UINT64, 1, "flow_ids");
    if (arrays->ids != NULL)
        arrays->sigmas = nd_py_input(sigmas, NPY_FLOAT32, 1, "sigmas");
    if (arrays->sigmas == NULL)
        return false;
    request->n_flows = (size_t)PyArray_SIZE(arrays->classes);
    request->n_sigmas = (size_t)PyArray_SIZE(arrays->sigmas);
    request->classes = PyArray_DATA(arrays->classes);
    request->lengths = PyArray_DATA(arrays->lengths);
    request->ids = PyArray_DATA(arrays->ids);
    request->sigmas = PyArray_DATA(arrays->sigmas);
    if ((size_t)PyArray_SIZE(arrays->lengths) != request->n_flows ||
        (size_t)PyArray_SIZE(arrays->ids) != request->n_flows) {
        PyErr_SetString(PyExc_ValueError, "classes, lengths and flow_ids "
                                          "must be of one length");
        return false;
    }
    return true;
}

static PyObject *
new_cells(const struct model *self, const struct nd_sample_request *request)
{
    npy_intp shape[2] = {0,
                         (npy_intp)self->network->dimensions.columns};
    for (size_t i = 0; i < request->n_flows; i++) {
        if (request->lengths[i] < 1) {
            PyErr_Format(PyExc_ValueError, "flow %zu: %d packets", i,
                         request->lengths[i]);
            return NULL;
        }
        shape[0] += request->lengths[i];
    }
    return PyArray_SimpleNew(2, shape, NPY_INT8);
}

static bool
parse_solver(const char *name, enum nd_solver *solver)
{
    static const char *const names[] = {[ND_SOLVER_DPMPP_2M] = "dpm++2m",
                                        [ND_SOLVER_EULER] = "euler",
                                        [ND_SOLVER_ANCESTRAL] = "ancestral"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i]) == 0) {
            *solver = (enum nd_solver)i;
            return true;
        }
    PyErr_Format(PyExc_ValueError,
                 "sampler must be dpm++2m, euler or ancestral, not %s", name);
    return false;
}

/* The budget of a batch: as asked for, but no more than memory allowed. */
static size_t
batch_tokens(const struct model *self, Py_ssize_t asked)
{
    size_t most = self->most_tokens;
    size_t tokens = asked > 0 ? (size_t)asked : 0;
    if (most == 0)
        return tokens;
    if (tokens == 0)
        tokens = self->backend->preferred_tokens;
    return tokens < most ? tokens : most;
}

/* After a call that had to halve its batches; false: the warning raised. */
static bool
keep_halved(struct model *self, size_t halved)
{
    if (halved == 0)
        return true;
    self->most_tokens = halved;
    return PyErr_WarnFormat(PyExc_RuntimeWarning, 1,
                            "%s: not enough memory for the batch; going on "
                            "with batches of %zu packets",
                            self->backend->device, halved) == 0;
}

PyDoc_STRVAR(model_sample_doc,
"sample($self, classes, lengths, flow_ids, seed, sigmas, temperature=1.0,\n"
"       renoise_rounds=0, renoise_sigma=0.5, guidance=1.0, *,\n"
"       sampler='dpm++2m', guidance_low=0.0, guidance_high=inf,\n"
"       held=None, batch_tokens=0, progress=None)\n--\n\n"
"Draw flows: int8 cells of all packets, flow after flow.\n"
"\n"
"A flow depends on seed, id, class, length and what is held, not on the\n"
"others. held has the shape of the result: 1, 0 and -1 are kept, 2 is free.\n"
"progress is called before every step with flows done, steps done, steps.");

static PyObject *
model_sample(PyObject *op, PyObject *args, PyObject *kwargs)
{
    char *names[] = {"classes",        "lengths",       "flow_ids",
                     "seed",           "sigmas",        "temperature",
                     "renoise_rounds", "renoise_sigma", "guidance",
                     "sampler",        "guidance_low",  "guidance_high",
                     "held",           "batch_tokens",  "progress",
                     NULL};
    struct model *self = (struct model *)op;
    PyObject *classes, *lengths, *ids, *seed, *sigmas, *cells = NULL;
    PyObject *held = Py_None;
    struct watcher watcher = {Py_None};
    Py_ssize_t rounds = 0, tokens = 0;
    size_t halved = 0;
    const char *solver = "dpm++2m";
    struct nd_sample_request request = {.temperature = 1.0f,
                                        .renoise_sigma = 0.5f,
                                        .guidance = 1.0f,
                                        .guidance_high = INFINITY,
                                        .progress = watch,
                                        .user = &watcher,
                                        .halved = &halved};
    struct sample_arrays arrays = {NULL, NULL, NULL, NULL, NULL};
    struct nd_error err = {0};
    enum nd_status status;
    if (!PyArg_ParseTupleAndKeywords(
            args, kwargs, "OOOOO|fnff$sffOnO:sample", names, &classes, &lengths,
            &ids, &seed, &sigmas, &request.temperature, &rounds,
            &request.renoise_sigma, &request.guidance, &solver,
            &request.guidance_low, &request.guidance_high, &held, &tokens,
            &watcher.progress))
        return NULL;
    request.renoise_rounds = (size_t)rounds;
    request.tokens = batch_tokens(self, tokens);
    if (!parse_solver(solver, &request.solver) ||
        !nd_py_word64(seed, &request.seed) ||
        !take_arrays(&arrays, classes, lengths, ids, sigmas, &request))
        goto done;
    cells = new_cells(self, &request);
    if (cells == NULL)
        goto done;
    if (!take_held(held, (size_t)PyArray_DIM((PyArrayObject *)cells, 0),
                   self->network->dimensions.columns, &arrays.held)) {
        Py_CLEAR(cells);
        goto done;
    }
    if (arrays.held != NULL)
        request.held = PyArray_DATA(arrays.held);
    Py_BEGIN_ALLOW_THREADS
    PyThread_acquire_lock(self->lock, WAIT_LOCK);
    status = nd_sample(self->network, &request,
                       PyArray_DATA((PyArrayObject *)cells), &err);
    PyThread_release_lock(self->lock);
    Py_END_ALLOW_THREADS
    if (status != ND_OK) {
        nd_py_raise(nd_py_type_state(Py_TYPE(op)), &err);
        Py_CLEAR(cells);
    } else if (!keep_halved(self, halved)) {
        Py_CLEAR(cells);
    }
done:
    Py_XDECREF(arrays.classes);
    Py_XDECREF(arrays.lengths);
    Py_XDECREF(arrays.ids);
    Py_XDECREF(arrays.sigmas);
    Py_XDECREF(arrays.held);
    return cells;
}

/* Arguments and results of .forward. */
struct forward {
    PyArrayObject *x, *estimate, *offsets, *classes, *sigmas, *held;
    PyArrayObject *input, *blocks, *logits;
    int32_t *lengths; /* (F), then ids */
    uint64_t *ids;
    size_t flows, tokens;
};

static bool
parse_forward(PyObject *args, PyObject *kwargs, size_t columns,
              struct forward *f)
{
    char *names[] = {"x",      "estimate", "offsets", "classes",
                     "sigmas", "held",     NULL};
    PyObject *x, *estimate, *offsets, *classes, *sigmas, *held = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOOO|O:forward", names,
                                     &x, &estimate, &offsets, &classes,
                                     &sigmas, &held))
        return false;
    f->x = nd_py_input(x, NPY_FLOAT32, 3, "x");
    if (f->x != NULL)
        f->estimate = nd_py_input(estimate, NPY_FLOAT32, 3, "estimate");
    if (f->estimate != NULL)
        f->offsets = nd_py_input(offsets, NPY_INT64, 1, "offsets");
    if (f->offsets != NULL)
        f->classes = nd_py_input(classes, NPY_INT32, 1, "classes");
    if (f->classes != NULL)
        f->sigmas = nd_py_input(sigmas, NPY_FLOAT32, 1, "sigmas");
    return f->sigmas != NULL &&
           take_held(held, (size_t)PyArray_DIM(f->x, 0), columns, &f->held);
}

/* Lengths from offsets, and that all arrays belong together. */
static bool
check_forward(struct forward *f, size_t columns)
{
    const int64_t *offsets = PyArray_DATA(f->offsets);
    f->flows = (size_t)PyArray_SIZE(f->classes);
    f->tokens = (size_t)PyArray_DIM(f->x, 0);
    bool good = f->flows > 0 &&
                (size_t)PyArray_SIZE(f->offsets) == f->flows + 1 &&
                (size_t)PyArray_SIZE(f->sigmas) == f->flows &&
                PyArray_SAMESHAPE(f->x, f->estimate) &&
                (size_t)PyArray_DIM(f->x, 1) == columns &&
                PyArray_DIM(f->x, 2) == 3 && offsets[0] == 0 &&
                (size_t)offsets[f->flows] == f->tokens;
    f->lengths = PyMem_Calloc(f->flows + 1, sizeof *f->lengths);
    f->ids = PyMem_Calloc(f->flows + 1, sizeof *f->ids);
    if (f->lengths == NULL || f->ids == NULL) {
        PyErr_NoMemory();
        return false;
    }
    for (size_t i = 0; good && i < f->flows; i++) {
        int64_t length = offsets[i + 1] - offsets[i];
        good = length > 0 && length <= INT32_MAX;
        f->lengths[i] = (int32_t)length;
    }
    if (!good)
        PyErr_Format(PyExc_ValueError,
                     "x and estimate must be (packets, %zu, 3), offsets "
                     "(flows + 1), classes and sigmas (flows)",
                     columns);
    return good;
}

static bool
allocate_forward(struct forward *f, const struct nd_dimensions *size)
{
    npy_intp t = (npy_intp)f->tokens, d = (npy_intp)size->width;
    npy_intp input[] = {t, d}, blocks[] = {(npy_intp)size->blocks, t, d};
    npy_intp logits[] = {t, (npy_intp)size->columns, 3};
    f->input = (PyArrayObject *)PyArray_SimpleNew(2, input, NPY_FLOAT32);
    f->blocks = (PyArrayObject *)PyArray_SimpleNew(3, blocks, NPY_FLOAT32);
    f->logits = (PyArrayObject *)PyArray_SimpleNew(3, logits, NPY_FLOAT32);
    return f->input != NULL && f->blocks != NULL && f->logits != NULL;
}

/* Flows [first, end) of one noise level, as one batch. */
static enum nd_status
run_forward(const struct model *self, const struct forward *f, size_t first,
            size_t end, struct nd_error *err)
{
    const struct nd_dimensions *size = &self->network->dimensions;
    const int64_t *offsets = PyArray_DATA(f->offsets);
    const float *x = PyArray_DATA(f->x), *e = PyArray_DATA(f->estimate);
    const int32_t *classes = PyArray_DATA(f->classes);
    const float *sigmas = PyArray_DATA(f->sigmas);
    size_t at = (size_t)offsets[first], cells = size->columns * 3;
    struct nd_trace to = {
        (float *)PyArray_DATA(f->input) + at * size->width,
        (float *)PyArray_DATA(f->blocks) + at * size->width,
        (float *)PyArray_DATA(f->logits) + at * cells};
    struct nd_batch_size most = {.tokens = (size_t)offsets[end] - at,
                                 .flows = end - first,
                                 .levels = 1,
                                 .held = f->held != NULL};
    struct nd_batch *batch = NULL;
    for (size_t i = first; i < end; i++)
        if ((size_t)f->lengths[i] > most.longest)
            most.longest = (size_t)f->lengths[i];
    enum nd_status status =
        nd_batch_create(self->network, &most, &batch, err);
    if (status == ND_OK)
        status = nd_batch_fill(batch, end - first, f->lengths + first,
                               classes + first, f->ids + first, err);
    if (status == ND_OK && f->held != NULL)
        status = nd_batch_hold(
            batch, (int8_t *)PyArray_DATA(f->held) + at * size->columns, err);
    if (status == ND_OK)
        status = nd_rowformer_trace(batch, sigmas[first], x + at * cells,
                                    e + at * cells, f->tokens * size->width,
                                    &to, err);
    nd_batch_destroy(batch);
    return status;
}

/* A batch has one noise level: runs of flows with one sigma. */
static enum nd_status
run_groups(const struct model *self, const struct forward *f,
           struct nd_error *err)
{
    const float *sigmas = PyArray_DATA(f->sigmas);
    enum nd_status status = ND_OK;
    for (size_t first = 0, end; first < f->flows && status == ND_OK;
         first = end) {
        for (end = first + 1; end < f->flows; end++)
            if (memcmp(&sigmas[end], &sigmas[first], sizeof *sigmas) != 0)
                break;
        status = run_forward(self, f, first, end, err);
    }
    return status;
}

PyDoc_STRVAR(model_forward_doc,
"forward($self, x, estimate, offsets, classes, sigmas, held=None)\n--\n\n"
"Evaluate the network once: a dict of input, blocks and logits, for tests.");

static PyObject *
model_forward(PyObject *op, PyObject *args, PyObject *kwargs)
{
    struct model *self = (struct model *)op;
    const struct nd_dimensions *size = &self->network->dimensions;
    struct forward f = {0};
    struct nd_error err = {0};
    enum nd_status status;
    PyObject *result = NULL;
    if (!parse_forward(args, kwargs, size->columns, &f) ||
        !check_forward(&f, size->columns) ||
        !allocate_forward(&f, size))
        goto done;
    Py_BEGIN_ALLOW_THREADS
    PyThread_acquire_lock(self->lock, WAIT_LOCK);
    status = run_groups(self, &f, &err);
    PyThread_release_lock(self->lock);
    Py_END_ALLOW_THREADS
    if (status != ND_OK)
        nd_py_raise(nd_py_type_state(Py_TYPE(op)), &err);
    else
        result = Py_BuildValue("{sOsOsO}", "input", f.input, "blocks",
                               f.blocks, "logits", f.logits);
done:
    PyMem_Free(f.lengths);
    PyMem_Free(f.ids);
    Py_XDECREF(f.x);
    Py_XDECREF(f.estimate);
    Py_XDECREF(f.offsets);
    Py_XDECREF(f.classes);
    Py_XDECREF(f.sigmas);
    Py_XDECREF(f.held);
    Py_XDECREF(f.input);
    Py_XDECREF(f.blocks);
    Py_XDECREF(f.logits);
    return result;
}

static PyObject *
model_device(PyObject *op, void *closure)
{
    (void)closure;
    return PyUnicode_FromString(((struct model *)op)->backend->device);
}

static PyObject *
model_note(PyObject *op, void *closure)
{
    (void)closure;
    return PyUnicode_FromString(((struct model *)op)->backend->note);
}

static PyMethodDef model_methods[] = {
    {"sample", (PyCFunction)(void (*)(void))model_sample,
     METH_VARARGS | METH_KEYWORDS, model_sample_doc},
    {"forward", (PyCFunction)(void (*)(void))model_forward,
     METH_VARARGS | METH_KEYWORDS, model_forward_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef model_getset[] = {
    {"device", model_device, NULL, "What the model runs on, for people.",
     NULL},
    {"note", model_note, NULL, "Why it runs elsewhere than it should, if so.",
     NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(model_doc,
"Model(path, *, columns, width, blocks, heads, mlp, classes,\n"
"      reveal=False, device='auto', threads=0)\n--\n\n"
"The network of a safetensors file on a device, ready to sample.");

static PyType_Slot model_slots[] = {
    {Py_tp_doc, (void *)model_doc},
    {Py_tp_new, model_new},
    {Py_tp_traverse, model_traverse},
    {Py_tp_dealloc, model_dealloc},
    {Py_tp_methods, model_methods},
    {Py_tp_getset, model_getset},
    {0, NULL},
};

static PyType_Spec model_spec = {
    .name = "netdiffusion._core.Model",
    .basicsize = sizeof(struct model),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = model_slots,
};

PyMethodDef nd_py_engine_methods[] = {
    {"devices", nd_py_devices, METH_NOARGS, nd_py_devices_doc},
    {"philox", nd_py_philox, METH_VARARGS, nd_py_philox_doc},
    {"run_op", nd_py_run_op, METH_VARARGS, nd_py_run_op_doc},
    {NULL, NULL, 0, NULL},
};

int
nd_py_engine_init(PyObject *module)
{
    struct nd_module_state *state = nd_py_state(module);
    state->model =
        (PyTypeObject *)PyType_FromModuleAndSpec(module, &model_spec, NULL);
    if (state->model == NULL)
        return -1;
    return PyModule_AddType(module, state->model);
}
