#include "module.h"

PyMethodDef nd_py_rows_methods[] = {{NULL, NULL, 0, NULL}};
