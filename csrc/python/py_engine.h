/*
 * py_engine.h - what the bindings of the engine share: opening a device
 *
 * In:      the name of a device as users write it.
 * Out:     a backend, to be destroyed by the caller.
 * Errors:  ND_ARGUMENT for a name that means nothing; else the backend's.
 * Memory:  the backend.
 * Threads: any; does not need the GIL.
 * Python:  _core.Model, _core.run_op, _core.devices.
 *          Tests: test_rowformer.py, test_ops.py
 */
#ifndef ND_PYTHON_PY_ENGINE_H
#define ND_PYTHON_PY_ENGINE_H

#include "module.h"

#include "../engine/backend.h"

/*
 * "cpu", "cpu:avx2" and so on, "vulkan" (the best device), "vulkan:N", or
 * "auto": a GPU through Vulkan if there is one, else the CPU. threads is for
 * the CPU; 0: as many as the process may use.
 */
enum nd_status nd_py_open_backend(const char *device, size_t threads,
                                  struct nd_backend **backend,
                                  struct nd_error *err);

/* A whole number of 64 bits without sign; false with an exception set. */
bool nd_py_word64(PyObject *object, uint64_t *number);

/* py_ops.c */
PyObject *nd_py_run_op(PyObject *module, PyObject *args);
PyObject *nd_py_philox(PyObject *module, PyObject *args);

/* py_device.c */
PyObject *nd_py_devices(PyObject *module, PyObject *unused);

extern const char nd_py_run_op_doc[], nd_py_philox_doc[], nd_py_devices_doc[];

#endif
