/* The compiled twin of `wire.authorization.usual_credential`. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <string.h>

#include "_speedups.h"

static int
is_named(PyObject *name, const char *wanted)
{
    size_t size = strlen(wanted);
    return (size_t)PyBytes_GET_SIZE(name) == size && !memcmp(PyBytes_AS_STRING(name), wanted, size);
}

/* How long the run is of what is neither white space nor one of ",=". */
static Py_ssize_t
word_length(const char *at, const char *end)
{
    const char *first = at;
    while (at < end && *at != ',' && *at != '=' && *at != ' ' && (*at < '\t' || *at > '\r')) at++;
    return at - first;
}

/* Where it goes on behind `text`, or NULL. */
static const char *
behind(const char *at, const char *end, const char *text)
{
    size_t size = strlen(text);
    return at != NULL && (size_t)(end - at) >= size && !memcmp(at, text, size) ? at + size : NULL;
}

/* Behind a word; NULL where there is none. */
static const char *
behind_word(const char *at, const char *end)
{
    Py_ssize_t length = at == NULL ? 0 : word_length(at, end);
    return length ? at + length : NULL;
}

/* Behind a comma, and the blank that may follow. */
static const char *
behind_comma(const char *at, const char *end)
{
    at = behind(at, end, ",");
    return at != NULL && at < end && *at == ' ' ? at + 1 : at;
}

/* The credential in the value of an Authorization header of the usual form; NULL of another. */
static const char *
find_credential(PyObject *value, Py_ssize_t *length)
{
    const char *at = PyBytes_AS_STRING(value), *end = at + PyBytes_GET_SIZE(value), *found;
    found = behind(at, end, "AWS4-HMAC-SHA256 Credential=");
    at = behind_word(found, end);
    *length = at == NULL ? 0 : at - found;
    at = behind_word(behind(behind_comma(at, end), end, "SignedHeaders="), end);
    at = behind_word(behind(behind_comma(at, end), end, "Signature="), end);
    return at == end ? found : NULL;
}

PyObject *
usual_credential(PyObject *module, PyObject *headers)
{
    if (!is_column(headers)) {
        PyErr_SetString(PyExc_TypeError, "headers must be a list or tuple");
        return NULL;
    }
    const char *credential = NULL;
    Py_ssize_t length = 0;
    int is_dated = 0;
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(headers); i++) {
        PyObject *pair = PySequence_Fast_GET_ITEM(headers, i), *name, *value;
        if (!is_column(pair) || PySequence_Fast_GET_SIZE(pair) != 2
            || !PyBytes_Check(name = PySequence_Fast_GET_ITEM(pair, 0))
            || !PyBytes_Check(value = PySequence_Fast_GET_ITEM(pair, 1))) {
            PyErr_SetString(PyExc_TypeError, "headers must be pairs of bytes");
            return NULL;
        }
        if (is_named(name, "authorization")) {
            credential = find_credential(value, &length);
            if (credential == NULL) Py_RETURN_NONE;
        }
        else if (is_named(name, "x-amz-date") || is_named(name, "date")) is_dated = 1;
    }
    if (credential == NULL || !is_dated) Py_RETURN_NONE;
    return PyBytes_FromStringAndSize(credential, length);
}
