/* What the files of `_speedups` know of each other. */

#include <Python.h>

PyObject *plain_head(PyObject *module, PyObject *data);
