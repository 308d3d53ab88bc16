/*
 * module.h - what the binding files share: state, exceptions, array helpers
 *
 * In:      the module object that CPython hands to every module function.
 * Out:     nd_py_raise() sets the Python exception of a struct nd_error;
 *          nd_py_input() gives a C-contiguous, aligned array of one dtype.
 * Errors:  NULL with a Python exception set.
 * Memory:  references are owned by the caller unless said otherwise.
 * Threads: call with the GIL held.
 * Python:  netdiffusion._core.  Tests: tests/test_errors.py
 *
 * A binding file py_x.c offers nd_py_x_methods[] and, where it has types,
 * nd_py_x_init(); module.c lists them. The shape of every function: parse ->
 * contiguous array -> allocate outputs -> release the GIL, one nd_ call ->
 * raise or return -> one `done:` label.
 */
#ifndef ND_PYTHON_MODULE_H
#define ND_PYTHON_MODULE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#define NPY_NO_DEPRECATED_API NPY_1_22_API_VERSION
#define PY_ARRAY_UNIQUE_SYMBOL nd_array_api
#ifndef ND_IMPORTS_ARRAY
#define NO_IMPORT_ARRAY
#endif
#include <numpy/arrayobject.h>

#include "../status.h"

struct nd_module_state {
    PyObject *exceptions[ND_STATUS_COUNT];
    PyTypeObject *capture_reader; /* py_capture.c */
    PyTypeObject *capture_writer; /* py_capture.c */
    PyTypeObject *model;          /* py_engine.c */
};

struct nd_module_state *nd_py_state(PyObject *module);

/* The state of the module that made a (final) heap type. */
struct nd_module_state *nd_py_type_state(PyTypeObject *type);

/* Sets the exception for err; always returns NULL. */
PyObject *nd_py_raise(const struct nd_module_state *state,
                      const struct nd_error *err);

/*
 * A new reference to `object` as a C-contiguous array of the dtype in native
 * byte order, with exactly `dimensions` axes. Never casts: a wrong dtype is a
 * TypeError that names the argument.
 */
PyArrayObject *nd_py_input(PyObject *object, int dtype, int dimensions,
                           const char *argument);

/* The same as a copy of one axis, for numbers that are used as indices: what
 * is checked stays as it is, whatever other threads do to the caller's. */
PyArrayObject *nd_py_indices(PyObject *object, int dtype,
                             const char *argument);

/*
 * Offsets (int64, one axis) as a copy, because they are indices, that rises
 * from 0 to total; NULL with ValueError set if they do not.
 */
PyArrayObject *nd_py_offsets(PyObject *object, npy_intp total);

/* -1 with ValueError set unless the axes of an array have a, b and c entries;
 * what goes beyond its axes is not asked for. */
int nd_py_shape(PyArrayObject *array, const char *argument, npy_intp a,
                npy_intp b, npy_intp c);

extern PyMethodDef nd_py_capture_methods[];
extern PyMethodDef nd_py_rows_methods[];
extern PyMethodDef nd_py_nprint_methods[];
extern PyMethodDef nd_py_phrase_methods[];
extern PyMethodDef nd_py_repair_methods[];
extern PyMethodDef nd_py_validate_methods[];
extern PyMethodDef nd_py_image_methods[];
extern PyMethodDef nd_py_engine_methods[];

int nd_py_capture_init(PyObject *module);
int nd_py_engine_init(PyObject *module);

#endif
