#include "module.h"

PyMethodDef nd_py_image_methods[] = {{NULL, NULL, 0, NULL}};
