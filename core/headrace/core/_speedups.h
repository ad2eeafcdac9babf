/* What the files of `_speedups` share. */

#include <Python.h>

/* One version of a loop for what every processor of the architecture has, and one for wider
   registers, chosen when the module is loaded. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define WIDE __attribute__((target_clones("avx2", "default")))
#else
#define WIDE
#endif

/* Whether it is of a type whose items can be looked at in place. */
static inline int
is_column(PyObject *object)
{
    return PyList_Check(object) || PyTuple_Check(object);
}

/* Whether all are printable ASCII that JSON takes as it is. */
int is_plain(const unsigned char *text, Py_ssize_t length);

PyObject *deal(PyObject *module, PyObject *const *args, Py_ssize_t given);
PyObject *decoded_sizes(PyObject *module, PyObject *texts);
PyObject *hash_routes(PyObject *module, PyObject *const *args, Py_ssize_t given);
PyObject *join_answers(PyObject *module, PyObject *const *args, Py_ssize_t given);
PyObject *plain_head(PyObject *module, PyObject *data);
PyObject *render_one(PyObject *module, PyObject *const *args, Py_ssize_t given);
PyObject *small_frame(PyObject *module, PyObject *const *args, Py_ssize_t given);
PyObject *split(PyObject *module, PyObject *const *args, Py_ssize_t given);
PyObject *usual_credential(PyObject *module, PyObject *headers);
PyObject *usual_puts(PyObject *module, PyObject *body);
