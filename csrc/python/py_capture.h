/*
 * py_capture.h - what the bindings of reading and of writing captures share
 *
 * In:      names and objects from Python.
 * Out:     layouts by name; the spec of the type CaptureWriter, which
 *          py_capture.c adds to the module.
 * Errors:  NULL with a Python exception set.
 * Memory:  allocates nothing.
 * Threads: call with the GIL held.
 * Python:  _core.CaptureReader, _core.CaptureWriter, _core.read_slices,
 *          _core.payload_services, _core.merge_captures.
 *          Tests: tests/test_capture.py, tests/test_capture_write.py
 */
#ifndef ND_PYTHON_CAPTURE_H
#define ND_PYTHON_CAPTURE_H

#include "module.h"

#include "../net/layout.h"

/* NULL, with ValueError set, for a name that no layout has, and for the
 * canonical layout: its rows are no packets. */
const struct nd_layout *nd_py_find_layout(const char *name);

/* tp_traverse of a heap type whose objects hold no references. */
int nd_py_visit_type(PyObject *self, visitproc visit, void *arg);

/* py_capture_write.c; the format is "pcap" or "pcapng" */
extern PyType_Spec nd_py_writer_spec;
PyObject *nd_py_payload_services(PyObject *module, PyObject *unused);
enum nd_status nd_py_format(const char *text, bool *pcapng,
                            struct nd_error *err);

/* py_merge.c */
extern const char nd_py_merge_doc[];
PyObject *nd_py_merge(PyObject *module, PyObject *args, PyObject *kwargs);

#endif
