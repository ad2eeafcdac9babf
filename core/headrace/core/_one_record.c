/* `render_one`: a record by itself, its sequence number composed and written out. See
   rendering.py and model/sequence.py, whose constants and texts these are. It takes a processor of
   64 bits: for others nothing of this module is built. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "_speedups.h"

#define GROUP 10000000000000000000ULL /* 10^19: a sequence number is three such groups */
#define GROUP_DIGITS 19
#define MAX_NUMBER_DIGITS (3 * GROUP_DIGITS)

__extension__ typedef unsigned __int128 Wide;

/* Writes the number that composes of these fields; returns how many digits. */
static int
write_number(char *at, uint64_t created_s, uint64_t index, uint64_t arrival_s, uint64_t shard)
{
    uint64_t limbs[3] = {
        2 | shard << 4 | arrival_s << 36,
        arrival_s >> 28 | index << 16,
        index >> 48 | (shard & 0xf) << 16 | created_s << 20 | 2ULL << 56,
    };
    uint64_t groups[3];
    for (int i = 0; i < 3; i++) {
        uint64_t rest = 0;
        for (int j = 2; j >= 0; j--) {
            Wide part = (Wide)rest << 64 | limbs[j];
            limbs[j] = (uint64_t)(part / GROUP);
            rest = (uint64_t)(part % GROUP);
        }
        groups[i] = rest;
    }
    return snprintf(at, MAX_NUMBER_DIGITS + 1, "%llu%019llu%019llu",
                    (unsigned long long)groups[2], (unsigned long long)groups[1],
                    (unsigned long long)groups[0]);
}

static char *
put(char *at, const void *text, Py_ssize_t length)
{
    memcpy(at, text, length);
    return at + length;
}

#define PUT(at, text) put(at, text, sizeof text - 1)

PyObject *
render_one(PyObject *module, PyObject *const *args, Py_ssize_t given)
{
    if (given != 7 || !PyUnicode_Check(args[4]) || !PyUnicode_Check(args[5])) {
        PyErr_SetString(PyExc_TypeError, "render_one(created_s, index, arrival_ms, shard, data, "
                                         "key, is_encrypted)");
        return NULL;
    }
    uint64_t numbers[4];
    for (int i = 0; i < 4; i++) {
        numbers[i] = PyLong_AsUnsignedLongLong(args[i]);
        if (PyErr_Occurred()) return NULL;
    }
    uint64_t created_s = numbers[0], index = numbers[1], arrival_ms = numbers[2], shard = numbers[3];
    int is_encrypted = PyObject_IsTrue(args[6]);
    if (is_encrypted < 0) return NULL;
    if (created_s >> 36 || shard >> 32 || arrival_ms / 1000 >> 36) {
        PyErr_SetString(PyExc_OverflowError, "a field of a sequence number is too large");
        return NULL;
    }
    PyObject *data = args[4], *key = args[5];
    if (!PyUnicode_IS_ASCII(data) || !PyUnicode_IS_ASCII(key)
        || !is_plain(PyUnicode_1BYTE_DATA(key), PyUnicode_GET_LENGTH(key)))
        Py_RETURN_NONE;
    char digits[MAX_NUMBER_DIGITS + 1], arrival[32];
    int number_length = write_number(digits, created_s, index, arrival_ms / 1000, shard);
    int arrival_length =
        snprintf(arrival, sizeof arrival, "%llu.%03u", (unsigned long long)(arrival_ms / 1000),
                 (unsigned)(arrival_ms % 1000));

    static const char begin[] = "{\"ApproximateArrivalTimestamp\":", kms[] = ",\"EncryptionType\":\"KMS\"",
                      before_data[] = ",\"Data\":\"", before_key[] = "\",\"PartitionKey\":\"",
                      before_number[] = "\",\"SequenceNumber\":\"", end[] = "\"}";
    Py_ssize_t data_length = PyUnicode_GET_LENGTH(data), key_length = PyUnicode_GET_LENGTH(key);
    Py_ssize_t size = sizeof begin + sizeof before_data + sizeof before_number + sizeof end - 4
                      + arrival_length + number_length + data_length;
    if (is_encrypted) size += sizeof kms - 1;
    if (key_length) size += sizeof before_key - 1 + key_length;
    PyObject *object = PyBytes_FromStringAndSize(NULL, size);
    if (object == NULL) return NULL;
    char *at = PyBytes_AS_STRING(object);
    at = PUT(at, begin);
    at = put(at, arrival, arrival_length);
    if (is_encrypted) at = PUT(at, kms);
    at = PUT(at, before_data);
    at = put(at, PyUnicode_1BYTE_DATA(data), data_length);
    if (key_length) {
        at = PUT(at, before_key);
        at = put(at, PyUnicode_1BYTE_DATA(key), key_length);
    }
    at = PUT(at, before_number);
    at = put(at, digits, number_length);
    PUT(at, end);
    return Py_BuildValue("(s#N)", digits, (Py_ssize_t)number_length, object);
}
