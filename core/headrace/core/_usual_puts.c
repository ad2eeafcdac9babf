/* `usual_puts`: the body of a PutRecords that says nothing unusual, taken apart into columns in one
   go. See wire/hot_requests.py. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <string.h>

#include "_speedups.h"

#define MAX_RECORDS 500 /* as in limits.py */
#define MAX_NAME_CHARS 128
#define MAX_KEY_CHARS 256

/* What is left of the body. */
typedef struct {
    const unsigned char *at, *end;
} Rest;

typedef struct {
    const unsigned char *at; /* NULL: there was none */
    Py_ssize_t size;
} Text;

/* A list for each member of the records. */
typedef struct {
    PyObject *data, *keys;
} Columns;

static void
skip_space(Rest *rest)
{
    while (rest->at < rest->end
           && (*rest->at == ' ' || *rest->at == '\n' || *rest->at == '\r' || *rest->at == '\t'))
        rest->at++;
}

/* Here and below: 1 if it was there and is behind us, else 0, with or without an error set. */
static int
take(Rest *rest, char wanted)
{
    skip_space(rest);
    if (rest->at == rest->end || *rest->at != (unsigned char)wanted) return 0;
    rest->at++;
    return 1;
}

/* Whether these are characters that stand for themselves in JSON, and are ASCII. */
WIDE static int
stand_for_themselves(const unsigned char *text, Py_ssize_t length)
{
    unsigned char wrong = 0;
    for (Py_ssize_t i = 0; i < length; i++)
        wrong |= (text[i] < 0x20) | (text[i] > 0x7f) | (text[i] == '\\');
    return !wrong;
}

static int
take_text(Rest *rest, Text *text)
{
    if (!take(rest, '"')) return 0;
    const unsigned char *end = memchr(rest->at, '"', (size_t)(rest->end - rest->at));
    if (end == NULL) return 0;
    *text = (Text){rest->at, end - rest->at};
    rest->at = end + 1;
    return stand_for_themselves(text->at, text->size);
}

static int
is_text(const Text *text, const char *wanted)
{
    return text->size == (Py_ssize_t)strlen(wanted) && !memcmp(text->at, wanted, text->size);
}

/* Whether it may be the name of a stream. */
static int
is_name(const Text *text)
{
    if (text->size < 1 || text->size > MAX_NAME_CHARS) return 0;
    for (Py_ssize_t i = 0; i < text->size; i++) {
        unsigned char c = text->at[i], letter = c | 0x20;
        if (!((letter >= 'a' && letter <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '.'
              || c == '-'))
            return 0;
    }
    return 1;
}

static PyObject *
new_string(const Text *text)
{
    PyObject *string = PyUnicode_New(text->size, 127);
    if (string != NULL && text->size)
        memcpy(PyUnicode_1BYTE_DATA(string), text->at, (size_t)text->size);
    return string;
}

/* Takes the reference to `item`, which may be NULL. */
static int
append(PyObject *list, PyObject *item)
{
    if (item == NULL) return 0;
    int failed = PyList_Append(list, item);
    Py_DECREF(item);
    return !failed;
}

static int
take_record(Rest *rest, Columns *columns)
{
    Text name, data = {NULL, 0}, key = {NULL, 0};
    if (!take(rest, '{')) return 0;
    do {
        if (!take_text(rest, &name) || !take(rest, ':')) return 0;
        if (is_text(&name, "Data")) {
            if (!take_text(rest, &data)) return 0;
        } else if (is_text(&name, "PartitionKey")) {
            if (!take_text(rest, &key) || key.size < 1 || key.size > MAX_KEY_CHARS) return 0;
        } else {
            return 0;
        }
    } while (take(rest, ','));
    return take(rest, '}') && data.at != NULL && key.at != NULL
           && append(columns->data, new_string(&data)) && append(columns->keys, new_string(&key));
}

static void
forget(Columns *columns)
{
    Py_CLEAR(columns->data);
    Py_CLEAR(columns->keys);
}

static int
take_records(Rest *rest, Columns *columns)
{
    forget(columns); /* of two lists, the second counts */
    columns->data = PyList_New(0);
    columns->keys = PyList_New(0);
    if (columns->data == NULL || columns->keys == NULL || !take(rest, '[')) return 0;
    do {
        if (PyList_GET_SIZE(columns->data) == MAX_RECORDS || !take_record(rest, columns)) return 0;
    } while (take(rest, ','));
    return take(rest, ']');
}

static int
take_request(Rest *rest, Text *stream, Columns *columns)
{
    Text name;
    if (!take(rest, '{')) return 0;
    do {
        if (!take_text(rest, &name) || !take(rest, ':')) return 0;
        if (is_text(&name, "Records")) {
            if (!take_records(rest, columns)) return 0;
        } else if (is_text(&name, "StreamName")) {
            if (!take_text(rest, stream) || !is_name(stream)) return 0;
        } else {
            return 0;
        }
    } while (take(rest, ','));
    if (!take(rest, '}') || stream->at == NULL || columns->data == NULL) return 0;
    skip_space(rest);
    return rest->at == rest->end;
}

PyObject *
usual_puts(PyObject *module, PyObject *body)
{
    if (!PyBytes_Check(body)) {
        PyErr_SetString(PyExc_TypeError, "a body is bytes");
        return NULL;
    }
    const unsigned char *first = (const unsigned char *)PyBytes_AS_STRING(body);
    Rest rest = {first, first + PyBytes_GET_SIZE(body)};
    Text stream = {NULL, 0};
    Columns columns = {NULL, NULL};
    PyObject *found = NULL, *name = NULL, *sizes = NULL;
    if (take_request(&rest, &stream, &columns)) {
        name = new_string(&stream);
        sizes = name == NULL ? NULL : decoded_sizes(module, columns.data);
    }
    if (sizes != NULL && sizes != Py_None)
        found = PyTuple_Pack(4, name, columns.data, columns.keys, sizes);
    else if (!PyErr_Occurred())
        found = Py_NewRef(Py_None);
    Py_XDECREF(name);
    Py_XDECREF(sizes);
    forget(&columns);
    return found;
}
