/* `join_answers`: what PutRecords says of records that were all stored. See wire/hot_answers.py. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <string.h>

#include "_speedups.h"

static const char BEFORE[] = "{\"SequenceNumber\":\"", BETWEEN[] = "\",\"ShardId\":\"",
                  BEHIND[] = "\"},", END[] = "]}";

#define SIZE(text) ((Py_ssize_t)sizeof(text) - 1)

static char *
put_bytes(char *at, const void *text, Py_ssize_t size)
{
    memcpy(at, text, (size_t)size);
    return at + size;
}

static char *
put_ascii(char *at, PyObject *text)
{
    return put_bytes(at, PyUnicode_1BYTE_DATA(text), PyUnicode_GET_LENGTH(text));
}

/* The characters of all of them; -1 with an error set where one is no ASCII string. */
static Py_ssize_t
ascii_size(PyObject *texts)
{
    Py_ssize_t size = 0;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(texts); i++) {
        PyObject *text = PyList_GET_ITEM(texts, i);
        if (!PyUnicode_Check(text) || !PyUnicode_IS_ASCII(text)) {
            PyErr_SetString(PyExc_TypeError, "numbers and ids are ASCII strings");
            return -1;
        }
        size += PyUnicode_GET_LENGTH(text);
    }
    return size;
}

PyObject *
join_answers(PyObject *module, PyObject *const *args, Py_ssize_t given)
{
    if (given != 3 || !PyBytes_Check(args[0]) || !PyList_Check(args[1]) || !PyList_Check(args[2])
        || !PyList_GET_SIZE(args[1]) || PyList_GET_SIZE(args[1]) != PyList_GET_SIZE(args[2])) {
        PyErr_SetString(PyExc_TypeError, "join_answers(bytes, list of numbers, list of ids)");
        return NULL;
    }
    Py_ssize_t count = PyList_GET_SIZE(args[1]);
    Py_ssize_t numbers = ascii_size(args[1]), ids = numbers < 0 ? -1 : ascii_size(args[2]);
    if (ids < 0) return NULL;
    Py_ssize_t size = PyBytes_GET_SIZE(args[0]) + numbers + ids
                      + count * (SIZE(BEFORE) + SIZE(BETWEEN) + SIZE(BEHIND)) - 1 + SIZE(END);
    PyObject *answer = PyBytes_FromStringAndSize(NULL, size);
    if (answer == NULL) return NULL;
    char *at = put_bytes(PyBytes_AS_STRING(answer), PyBytes_AS_STRING(args[0]),
                         PyBytes_GET_SIZE(args[0]));
    for (Py_ssize_t i = 0; i < count; i++) {
        at = put_bytes(at, BEFORE, SIZE(BEFORE));
        at = put_ascii(at, PyList_GET_ITEM(args[1], i));
        at = put_bytes(at, BETWEEN, SIZE(BETWEEN));
        at = put_ascii(at, PyList_GET_ITEM(args[2], i));
        at = put_bytes(at, BEHIND, SIZE(BEHIND));
    }
    put_bytes(at - 1, END, SIZE(END)); /* instead of the last comma */
    return answer;
}
