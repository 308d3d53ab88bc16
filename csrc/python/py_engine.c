#include "module.h"

PyMethodDef nd_py_engine_methods[] = {{NULL, NULL, 0, NULL}};

int
nd_py_engine_init(PyObject *module)
{
    (void)module;
    return 0;
}
