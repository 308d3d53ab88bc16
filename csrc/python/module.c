#define ND_IMPORTS_ARRAY
#include "module.h"

struct nd_module_state *
nd_py_state(PyObject *module)
{
    return PyModule_GetState(module);
}

struct nd_module_state *
nd_py_type_state(PyTypeObject *type)
{
    return PyType_GetModuleState(type);
}

PyObject *
nd_py_raise(const struct nd_module_state *state, const struct nd_error *err)
{
    if (!PyErr_Occurred())
        PyErr_SetString(state->exceptions[err->code], err->text);
    return NULL;
}

PyArrayObject *
nd_py_input(PyObject *object, int dtype, int dimensions, const char *argument)
{
    if (!PyArray_Check(object) ||
        !PyArray_EquivTypenums(PyArray_TYPE((PyArrayObject *)object),
                               dtype) ||
        PyArray_NDIM((PyArrayObject *)object) != dimensions) {
        PyArray_Descr *wanted = PyArray_DescrFromType(dtype);
        PyErr_Format(PyExc_TypeError,
                     "%s must be a NumPy array of %S with %d axes", argument,
                     (PyObject *)wanted, dimensions);
        Py_DECREF(wanted);
        return NULL;
    }
    return (PyArrayObject *)PyArray_FROM_OF(
        object, NPY_ARRAY_IN_ARRAY | NPY_ARRAY_NOTSWAPPED);
}

int
nd_py_shape(PyArrayObject *array, const char *argument, npy_intp a, npy_intp b,
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

PyArrayObject *
nd_py_indices(PyObject *object, int dtype, const char *argument)
{
    PyArrayObject *in = nd_py_input(object, dtype, 1, argument);
    if (in == NULL)
        return NULL;
    PyArrayObject *copy = (PyArrayObject *)PyArray_NewCopy(in, NPY_CORDER);
    Py_DECREF(in);
    return copy;
}

PyArrayObject *
nd_py_offsets(PyObject *object, npy_intp total)
{
    PyArrayObject *copy = nd_py_indices(object, NPY_INT64, "offsets");
    if (copy == NULL)
        return NULL;
    npy_intp n = PyArray_DIM(copy, 0);
    const int64_t *o = PyArray_DATA(copy);
    int good = n > 0 && o[0] == 0 && o[n - 1] == total;
    for (npy_intp i = 1; good && i < n; i++)
        good = o[i] >= o[i - 1];
    if (good)
        return copy;
    PyErr_Format(PyExc_ValueError, "offsets must rise from 0 to %zd",
                 (Py_ssize_t)total);
    Py_DECREF(copy);
    return NULL;
}

static PyObject *
new_exception(PyObject *module, const char *name, PyObject *bases,
              const char *doc)
{
    PyObject *full = PyUnicode_FromFormat("netdiffusion.%s", name);
    if (full == NULL)
        return NULL;
    PyObject *type = PyErr_NewExceptionWithDoc(PyUnicode_AsUTF8(full), doc,
                                               bases, NULL);
    Py_DECREF(full);
    if (type != NULL && PyModule_AddObjectRef(module, name, type) < 0)
        Py_CLEAR(type);
    return type;
}

static PyObject *
new_derived(PyObject *module, const char *name, PyObject *base,
            PyObject *builtin, const char *doc)
{
    PyObject *bases = PyTuple_Pack(2, base, builtin);
    if (bases == NULL)
        return NULL;
    PyObject *type = new_exception(module, name, bases, doc);
    Py_DECREF(bases);
    return type;
}

static int
add_exceptions(PyObject *module)
{
    struct nd_module_state *state = nd_py_state(module);
    PyObject **e = state->exceptions;
    e[ND_UNSUPPORTED] =
        new_exception(module, "Error", NULL,
                      "Base of the errors that netdiffusion makes itself.");
    if (e[ND_UNSUPPORTED] == NULL)
        return -1;
    e[ND_FORMAT] =
        new_derived(module, "FormatError", e[ND_UNSUPPORTED], PyExc_ValueError,
                    "A file or an array does not have the form it should.");
    e[ND_DEVICE] = new_derived(module, "DeviceError", e[ND_UNSUPPORTED],
                               PyExc_RuntimeError,
                               "A compute device is missing or failed.");
    if (e[ND_FORMAT] == NULL || e[ND_DEVICE] == NULL)
        return -1;
    e[ND_LOST] = new_exception(module, "DeviceLostError", e[ND_DEVICE],
                               "A compute device reset or hung.");
    if (e[ND_LOST] == NULL)
        return -1;
    e[ND_CAPTURE] =
        new_exception(module, "CaptureError", e[ND_FORMAT],
                      "A capture file cannot be read to its end.");
    if (e[ND_CAPTURE] == NULL)
        return -1;
    e[ND_NO_MEMORY] = Py_NewRef(PyExc_MemoryError);
    e[ND_ARGUMENT] = Py_NewRef(PyExc_ValueError);
    e[ND_IO] = Py_NewRef(PyExc_OSError);
    return 0;
}

static int
module_exec(PyObject *module)
{
    PyMethodDef *methods[] = {nd_py_capture_methods, nd_py_rows_methods,
                              nd_py_nprint_methods,  nd_py_repair_methods,
                              nd_py_validate_methods, nd_py_image_methods,
                              nd_py_engine_methods,   nd_py_phrase_methods};
    import_array1(-1);
    if (add_exceptions(module) < 0)
        return -1;
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++)
        if (PyModule_AddFunctions(module, methods[i]) < 0)
            return -1;
    if (nd_py_capture_init(module) < 0)
        return -1;
    return nd_py_engine_init(module);
}

static int
module_traverse(PyObject *module, visitproc visit, void *arg)
{
    struct nd_module_state *state = nd_py_state(module);
    for (int i = 0; i < ND_STATUS_COUNT; i++)
        Py_VISIT(state->exceptions[i]);
    Py_VISIT(state->capture_reader);
    Py_VISIT(state->capture_writer);
    Py_VISIT(state->model);
    return 0;
}

static int
module_clear(PyObject *module)
{
    struct nd_module_state *state = nd_py_state(module);
    for (int i = 0; i < ND_STATUS_COUNT; i++)
        Py_CLEAR(state->exceptions[i]);
    Py_CLEAR(state->capture_reader);
    Py_CLEAR(state->capture_writer);
    Py_CLEAR(state->model);
    return 0;
}

static void
module_free(void *module)
{
    module_clear(module);
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
    {0, NULL},
};

static struct PyModuleDef nd_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "netdiffusion._core",
    .m_doc = "The C core of netdiffusion: packets, rows, repair, engine.",
    .m_size = sizeof(struct nd_module_state),
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__core(void);

PyMODINIT_FUNC
PyInit__core(void)
{
    return PyModuleDef_Init(&nd_module);
}
