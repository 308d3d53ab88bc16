#include "module.h"

PyMethodDef nd_py_repair_methods[] = {{NULL, NULL, 0, NULL}};
