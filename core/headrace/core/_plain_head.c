/* The compiled twin of `listener.plain_head.plain_head`: see there what it is for, and takes. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <string.h>

#include "_speedups.h"

#define REQUEST_LINE "POST / HTTP/1.1\r\n"
#define MAX_LENGTH_DIGITS 9

typedef struct {
    const char *at;
    Py_ssize_t size;
} Span;

/* A character of a header's name in lower case, or 0. */
static char
lower_token(char c)
{
    if (c >= 'A' && c <= 'Z') return (char)(c | 0x20);
    if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')) return c;
    return c && strchr("!#$%&'*+-.^_`|~", c) ? c : 0;
}

/* Printable, and no blank behind. */
static int
is_clean(Span text)
{
    if (text.size && text.at[text.size - 1] == ' ') return 0;
    for (Py_ssize_t i = 0; i < text.size; i++)
        if (text.at[i] < 0x20 || text.at[i] > 0x7e) return 0;
    return 1;
}

/* Whether it is this word, which is in lower case. */
static int
is_word(Span text, const char *word)
{
    Py_ssize_t size = (Py_ssize_t)strlen(word);
    if (text.size != size) return 0;
    for (Py_ssize_t i = 0; i < size; i++)
        if (lower_token(text.at[i]) != word[i]) return 0;
    return 1;
}

/* Whether the header leaves to the length where the message ends, and the connection as it is. */
static int
leaves_the_rest_alone(Span name, Span value)
{
    if (is_word(name, "transfer-encoding") || is_word(name, "expect") || is_word(name, "upgrade")
        || is_word(name, "proxy-connection"))
        return 0;
    return !is_word(name, "connection") || is_word(value, "keep-alive");
}

/* The number, or -1 if it is none of so few digits. */
static Py_ssize_t
number_of(Span text)
{
    Py_ssize_t number = 0;
    if (!text.size || text.size > MAX_LENGTH_DIGITS) return -1;
    for (Py_ssize_t i = 0; i < text.size; i++) {
        if (text.at[i] < '0' || text.at[i] > '9') return -1;
        number = 10 * number + (text.at[i] - '0');
    }
    return number;
}

/* The name in lower case, or NULL: without an error set, it is no name. */
static PyObject *
lower_name(Span name)
{
    PyObject *lower = PyBytes_FromStringAndSize(NULL, name.size);
    if (lower == NULL) return NULL;
    char *to = PyBytes_AS_STRING(lower);
    for (Py_ssize_t i = 0; i < name.size; i++)
        if (!(to[i] = lower_token(name.at[i]))) {
            Py_DECREF(lower);
            return NULL;
        }
    return lower;
}

/* Append the header on this line, and take its length down if it is that. 0 where a parser must
   look, and on an error, which is set. */
static int
read_line(Span line, PyObject *headers, Py_ssize_t *length)
{
    const char *colon = memchr(line.at, ':', (size_t)line.size);
    if (colon == NULL || colon == line.at) return 0;
    Span name = {line.at, colon - line.at};
    Span value = {colon + 1, line.size - name.size - 1};
    while (value.size && value.at[0] == ' ') value.at++, value.size--;
    if (!is_clean(value) || !leaves_the_rest_alone(name, value)) return 0;
    if (is_word(name, "content-length")) {
        if (*length >= 0 || (*length = number_of(value)) < 0) return 0;
    }
    PyObject *lower = lower_name(name);
    if (lower == NULL) return 0;
    PyObject *pair = Py_BuildValue("(Ny#)", lower, value.at, value.size);
    if (pair == NULL) return 0;
    int is_added = PyList_Append(headers, pair) == 0;
    Py_DECREF(pair);
    return is_added;
}

PyObject *
plain_head(PyObject *module, PyObject *data)
{
    if (!PyBytes_Check(data)) {
        PyErr_SetString(PyExc_TypeError, "data must be bytes");
        return NULL;
    }
    const char *start = PyBytes_AS_STRING(data), *stop = start + PyBytes_GET_SIZE(data);
    const Py_ssize_t first = (Py_ssize_t)strlen(REQUEST_LINE);
    if (stop - start < first || memcmp(start, REQUEST_LINE, (size_t)first)) Py_RETURN_NONE;
    PyObject *headers = PyList_New(0);
    if (headers == NULL) return NULL;
    Py_ssize_t length = -1;
    const char *at = start + first;
    for (;;) { /* a line each time; the one without anything on it ends the head */
        const char *end = memchr(at, '\r', (size_t)(stop - at));
        if (end == NULL || stop - end < 2 || end[1] != '\n') break;
        if (end == at) {
            if (length < 0) break;
            return Py_BuildValue("(Nnn)", headers, end + 2 - start, length);
        }
        if (!read_line((Span){at, end - at}, headers, &length)) break;
        at = end + 2;
    }
    Py_DECREF(headers);
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}
