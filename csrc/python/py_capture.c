#include "module.h"

PyMethodDef nd_py_capture_methods[] = {{NULL, NULL, 0, NULL}};

int
nd_py_capture_init(PyObject *module)
{
    (void)module;
    return 0;
}
