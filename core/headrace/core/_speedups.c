/* The compiled twins of a few Python functions: here, of what a put does with each of its records.

   Each does what the function of its name, marked `@compiled`, does in Python, and gives the same
   for arguments as their callers give them; others are refused. What a function is for stands
   where it is defined in Python. Nothing here keeps memory but Python objects. (Of a key that is not
   ASCII, Python keeps the UTF-8 beside it for as long as the key lives.)

   What comes from a request is only ever measured and copied by the lengths that Python's own
   objects have. VERSION goes up with every change of what a function takes or gives. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#include "_speedups.h"

#define VERSION 5 /* as in speedups.py */

/* -- decoded_sizes ------------------------------------------------------------------------- */

/* Whether all are of the base64 alphabet. No branch: the loop becomes one over vectors. */
WIDE static int
is_base64(const unsigned char *text, Py_ssize_t length)
{
    unsigned char wrong = 0;
    for (Py_ssize_t i = 0; i < length; i++) {
        unsigned char c = text[i];
        unsigned char is_letter = (unsigned char)((c | 0x20) - 'a') < 26;
        unsigned char is_digit = (unsigned char)(c - '0') < 10;
        wrong |= !(is_letter | is_digit | (c == '+') | (c == '/'));
    }
    return !wrong;
}

/* The six bits a character of the alphabet stands for. */
static int
bits_of(unsigned char c)
{
    if (c >= 'a') return c - 'a' + 26;
    if (c >= 'A') return c - 'A';
    if (c >= '0') return c - '0' + 52;
    return c == '+' ? 62 : 63;
}

/* Bytes that the text holds, or -1 if it is not base64 without bits after its data. */
static Py_ssize_t
decoded_size(PyObject *text)
{
    if (!PyUnicode_Check(text) || !PyUnicode_IS_ASCII(text)) return -1;
    const unsigned char *chars = PyUnicode_1BYTE_DATA(text);
    Py_ssize_t length = PyUnicode_GET_LENGTH(text), padding = 0;
    if (length % 4) return -1;
    if (length && chars[length - 1] == '=') padding = chars[length - 2] == '=' ? 2 : 1;
    if (!is_base64(chars, length - padding)) return -1;
    if (padding) {
        int spare = padding == 2 ? 0x0f : 0x03;
        if (bits_of(chars[length - padding - 1]) & spare) return -1;
    }
    return length / 4 * 3 - padding;
}

PyObject *
decoded_sizes(PyObject *module, PyObject *texts)
{
    if (!is_column(texts)) {
        PyErr_SetString(PyExc_TypeError, "texts must be a list or tuple");
        return NULL;
    }
    Py_ssize_t count = PySequence_Fast_GET_SIZE(texts);
    PyObject *sizes = PyList_New(count);
    for (Py_ssize_t i = 0; sizes != NULL && i < count; i++) {
        Py_ssize_t size = decoded_size(PySequence_Fast_GET_ITEM(texts, i));
        if (size < 0) {
            Py_SETREF(sizes, Py_NewRef(Py_None));
            break;
        }
        PyObject *number = PyLong_FromSsize_t(size);
        if (number == NULL) Py_CLEAR(sizes);
        else PyList_SET_ITEM(sizes, i, number);
    }
    return sizes;
}

/* -- count_up ------------------------------------------------------------------------------ */

#define HALF 1000000000000000LL  /* 10^15: the lower thirty digits are two such halves */
#define HALF_DIGITS 15
#define STEP_UPPER 1208925819LL  /* 2^80, from one sequence number to the next */
#define STEP_LOWER 614629174706176LL

static void
write_half(char *at, int64_t half)
{
    for (int i = HALF_DIGITS - 1; i >= 0; i--) {
        at[i] = (char)('0' + half % 10);
        half /= 10;
    }
}

static PyObject *
count_up(PyObject *module, PyObject *const *args, Py_ssize_t given)
{
    if (given != 4 || !PyUnicode_Check(args[0]) || !PyUnicode_IS_ASCII(args[0])) {
        PyErr_SetString(PyExc_TypeError, "count_up(prefix, upper, lower, count)");
        return NULL;
    }
    Py_ssize_t before = PyUnicode_GET_LENGTH(args[0]);
    int64_t upper = PyLong_AsLongLong(args[1]), lower = PyLong_AsLongLong(args[2]);
    Py_ssize_t count = PyLong_AsSsize_t(args[3]);
    if (PyErr_Occurred()) return NULL;
    if (upper < 0 || upper >= HALF || lower < 0 || lower >= HALF || count < 0) {
        PyErr_SetString(PyExc_ValueError, "halves of 0 to 10^15, and a count");
        return NULL;
    }
    PyObject *numbers = PyList_New(count);
    for (Py_ssize_t i = 0; numbers != NULL && i < count; i++) {
        PyObject *number = PyUnicode_New(before + 2 * HALF_DIGITS, 127);
        if (number == NULL) {
            Py_CLEAR(numbers);
            break;
        }
        char *at = (char *)PyUnicode_1BYTE_DATA(number);
        memcpy(at, PyUnicode_1BYTE_DATA(args[0]), before);
        write_half(at + before, upper);
        write_half(at + before + HALF_DIGITS, lower);
        PyList_SET_ITEM(numbers, i, number);
        lower += STEP_LOWER;
        upper += STEP_UPPER + lower / HALF;
        lower %= HALF;
        if (upper >= HALF && i + 1 < count) {
            PyErr_SetString(PyExc_OverflowError, "more than thirty digits");
            Py_CLEAR(numbers);
        }
    }
    return numbers;
}

/* -- are_plain ----------------------------------------------------------------------------- */

WIDE int
is_plain(const unsigned char *text, Py_ssize_t length)
{
    unsigned char wrong = 0;
    for (Py_ssize_t i = 0; i < length; i++) {
        unsigned char c = text[i];
        wrong |= (c < 0x20) | (c > 0x7e) | (c == '"') | (c == '\\');
    }
    return !wrong;
}

/* The same of a text in which there are others than ASCII's. */
static int
is_plain_unicode(PyObject *text)
{
    int kind = PyUnicode_KIND(text);
    const void *chars = PyUnicode_DATA(text);
    for (Py_ssize_t i = 0; i < PyUnicode_GET_LENGTH(text); i++) {
        Py_UCS4 c = PyUnicode_READ(kind, chars, i);
        if (c == '"' || c == '\\' || !Py_UNICODE_ISPRINTABLE(c)) return 0;
    }
    return 1;
}

static PyObject *
are_plain(PyObject *module, PyObject *keys)
{
    if (!is_column(keys)) {
        PyErr_SetString(PyExc_TypeError, "keys must be a list or tuple");
        return NULL;
    }
    int all = 1;
    for (Py_ssize_t i = 0; all && i < PySequence_Fast_GET_SIZE(keys); i++) {
        PyObject *key = PySequence_Fast_GET_ITEM(keys, i);
        if (!PyUnicode_Check(key)) {
            PyErr_SetString(PyExc_TypeError, "keys must be strings");
            return NULL;
        }
        all = PyUnicode_IS_ASCII(key)
                  ? is_plain(PyUnicode_1BYTE_DATA(key), PyUnicode_GET_LENGTH(key))
                  : is_plain_unicode(key);
    }
    return PyBool_FromLong(all);
}

/* -- join_objects -------------------------------------------------------------------------- */

typedef struct {
    const char *at;
    Py_ssize_t length;
} Text;

static int
read_text(PyObject *object, Text *text)
{
    text->at = PyUnicode_AsUTF8AndSize(object, &text->length); /* of ASCII its own characters */
    return text->at != NULL;
}

static char *
put_text(char *at, const Text *text)
{
    memcpy(at, text->at, text->length);
    return at + text->length;
}

/* The texts of one object that differ. */
typedef struct {
    Text data, key, number;
} Entry;

/* What stands around them: see `join_objects` in rendering.py. */
typedef struct {
    Text head, before_key, before_number, end;
} Around;

static int
read_entry(PyObject *data, PyObject *keys, PyObject *numbers, Py_ssize_t i, Entry *entry)
{
    return read_text(PySequence_Fast_GET_ITEM(data, i), &entry->data)
           && read_text(PySequence_Fast_GET_ITEM(keys, i), &entry->key)
           && read_text(PySequence_Fast_GET_ITEM(numbers, i), &entry->number);
}

static Py_ssize_t
object_size(const Around *around, const Entry *entry)
{
    return around->head.length + entry->data.length
           + (entry->key.length ? around->before_key.length + entry->key.length : 0)
           + around->before_number.length + entry->number.length + around->end.length;
}

static PyObject *
join_lists(const Around *around, PyObject *data, PyObject *keys, PyObject *numbers,
           Py_ssize_t start)
{
    Py_ssize_t count = PySequence_Fast_GET_SIZE(data), size = count - 1;
    Entry entry;
    for (Py_ssize_t i = 0; i < count; i++) {
        if (!read_entry(data, keys, numbers, i, &entry)) return NULL;
        size += object_size(around, &entry);
    }
    if (start < 0 || (uint64_t)start + (uint64_t)size > UINT32_MAX) {
        PyErr_SetString(PyExc_OverflowError, "more than 4 GiB of records");
        return NULL;
    }
    PyObject *objects = PyBytes_FromStringAndSize(NULL, size);
    PyObject *ends = PyBytes_FromStringAndSize(NULL, count * (Py_ssize_t)sizeof(uint32_t));
    if (objects == NULL || ends == NULL) {
        Py_XDECREF(objects);
        Py_XDECREF(ends);
        return NULL;
    }
    char *first = PyBytes_AS_STRING(objects), *at = first, *ends_at = PyBytes_AS_STRING(ends);
    for (Py_ssize_t i = 0; i < count; i++) {
        if (i) *at++ = ',';
        if (!read_entry(data, keys, numbers, i, &entry)) Py_UNREACHABLE(); /* it was read before */
        at = put_text(at, &around->head);
        at = put_text(at, &entry.data);
        if (entry.key.length) {
            at = put_text(at, &around->before_key);
            at = put_text(at, &entry.key);
        }
        at = put_text(at, &around->before_number);
        at = put_text(at, &entry.number);
        at = put_text(at, &around->end);
        uint32_t end = (uint32_t)(start + (at - first));
        memcpy(ends_at + i * sizeof end, &end, sizeof end);
    }
    return Py_BuildValue("(NN)", objects, ends);
}

static PyObject *
join_objects(PyObject *module, PyObject *args)
{
    PyObject *head, *before_key, *before_number, *end, *data, *keys, *numbers;
    Py_ssize_t start;
    if (!PyArg_ParseTuple(args, "(UUUU)OOOn", &head, &before_key, &before_number, &end, &data,
                          &keys, &numbers, &start))
        return NULL;
    Around around;
    if (!read_text(head, &around.head) || !read_text(before_key, &around.before_key)
        || !read_text(before_number, &around.before_number) || !read_text(end, &around.end))
        return NULL;
    if (!is_column(data) || !is_column(keys) || !is_column(numbers)) {
        PyErr_SetString(PyExc_TypeError, "data, keys and numbers must be lists or tuples");
        return NULL;
    }
    Py_ssize_t count = PySequence_Fast_GET_SIZE(data);
    if (!count || PySequence_Fast_GET_SIZE(keys) != count
        || PySequence_Fast_GET_SIZE(numbers) != count) {
        PyErr_SetString(PyExc_ValueError, "data, keys and numbers of as many records, not 0");
        return NULL;
    }
    return join_lists(&around, data, keys, numbers, start);
}

/* -- the module ---------------------------------------------------------------------------- */

static PyMethodDef functions[] = {
    {"decoded_sizes", decoded_sizes, METH_O, NULL},
    {"count_up", (PyCFunction)(void (*)(void))count_up, METH_FASTCALL, NULL},
    {"are_plain", are_plain, METH_O, NULL},
    {"deal", (PyCFunction)(void (*)(void))deal, METH_FASTCALL, NULL},
    {"hash_routes", (PyCFunction)(void (*)(void))hash_routes, METH_FASTCALL, NULL},
    {"join_answers", (PyCFunction)(void (*)(void))join_answers, METH_FASTCALL, NULL},
    {"join_objects", join_objects, METH_VARARGS, NULL},
    {"plain_head", plain_head, METH_O, NULL},
    {"render_one", (PyCFunction)(void (*)(void))render_one, METH_FASTCALL, NULL},
    {"small_frame", (PyCFunction)(void (*)(void))small_frame, METH_FASTCALL, NULL},
    {"split", (PyCFunction)(void (*)(void))split, METH_FASTCALL, NULL},
    {"usual_credential", usual_credential, METH_O, NULL},
    {"usual_puts", usual_puts, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static int
add_version(PyObject *module)
{
    return PyModule_AddIntConstant(module, "VERSION", VERSION);
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, add_version},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_speedups", NULL, 0, functions, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC
PyInit__speedups(void)
{
    return PyModuleDef_Init(&definition);
}
