/* The compiled twin of `service.routing.hash_routes`: MD5 of eight partition keys at a time.

   One MD5 is 64 steps that wait for each other; eight side by side, in wide registers, take hardly
   longer than one. Source: RFC 1321. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#include "_speedups.h"

#define LANES 8
#define BLOCK_BYTES 64
#define DIGEST_BYTES 16
#define WORDS 16
#define LENGTH_AT 56 /* in the last block: of all that was hashed, in bits */

typedef uint32_t Lanes __attribute__((vector_size(4 * LANES)));

static const uint32_t ADDENDS[64] = {
    0xd76aa478, 0xe8c7b756, 0x242070db, 0xc1bdceee, 0xf57c0faf, 0x4787c62a, 0xa8304613, 0xfd469501,
    0x698098d8, 0x8b44f7af, 0xffff5bb1, 0x895cd7be, 0x6b901122, 0xfd987193, 0xa679438e, 0x49b40821,
    0xf61e2562, 0xc040b340, 0x265e5a51, 0xe9b6c7aa, 0xd62f105d, 0x02441453, 0xd8a1e681, 0xe7d3fbc8,
    0x21e1cde6, 0xc33707d6, 0xf4d50d87, 0x455a14ed, 0xa9e3e905, 0xfcefa3f8, 0x676f02d9, 0x8d2a4c8a,
    0xfffa3942, 0x8771f681, 0x6d9d6122, 0xfde5380c, 0xa4beea44, 0x4bdecfa9, 0xf6bb4b60, 0xbebfbc70,
    0x289b7ec6, 0xeaa127fa, 0xd4ef3085, 0x04881d05, 0xd9d4d039, 0xe6db99e5, 0x1fa27cf8, 0xc4ac5665,
    0xf4292244, 0x432aff97, 0xab9423a7, 0xfc93a039, 0x655b59c3, 0x8f0ccc92, 0xffeff47d, 0x85845dd1,
    0x6fa87e4f, 0xfe2ce6e0, 0xa3014314, 0x4e0811a1, 0xf7537e82, 0xbd3af235, 0x2ad7d2bb, 0xeb86d391,
};
static const int SHIFTS[4][4] = {{7, 12, 17, 22}, {5, 9, 14, 20}, {4, 11, 16, 23}, {6, 10, 15, 21}};
static const uint32_t INITIAL[4] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476};

/* Hash one more block in each lane. */
WIDE static void
hash_block(Lanes state[4], const Lanes words[WORDS])
{
    Lanes a = state[0], b = state[1], c = state[2], d = state[3];
#pragma GCC unroll 64
    for (int i = 0; i < 64; i++) {
        Lanes mixed = i < 16   ? d ^ (b & (c ^ d))
                      : i < 32 ? c ^ (d & (b ^ c))
                      : i < 48 ? b ^ c ^ d
                               : c ^ (b | ~d);
        int word = i < 16 ? i : i < 32 ? 5 * i + 1 : i < 48 ? 3 * i + 5 : 7 * i;
        int shift = SHIFTS[i / 16][i % 4];
        mixed += a + words[word % WORDS] + ADDENDS[i];
        a = d;
        d = c;
        c = b;
        b += mixed << shift | mixed >> (32 - shift);
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
}

static void
begin(Lanes state[4])
{
    for (int i = 0; i < 4; i++) state[i] = (Lanes){0} + INITIAL[i];
}

/* Put block `number` of a text into a lane: as much as there is, the end mark, the length. */
static void
fill(Lanes words[WORDS], int lane, const char *text, Py_ssize_t size, Py_ssize_t number)
{
    unsigned char block[BLOCK_BYTES] = {0};
    Py_ssize_t at = number * BLOCK_BYTES, left = size - at;
    if (left > 0) memcpy(block, text + at, (size_t)(left < BLOCK_BYTES ? left : BLOCK_BYTES));
    if (left >= 0 && left < BLOCK_BYTES) block[left] = 0x80;
    if (left < LENGTH_AT)
        for (int i = 0; i < 8; i++) block[LENGTH_AT + i] = (unsigned char)((uint64_t)size * 8 >> 8 * i);
    for (int i = 0; i < WORDS; i++) {
        const unsigned char *b = block + 4 * i;
        words[i][lane] = b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
    }
}

/* The last of these starts that is not after the hash key in this lane; -1 if all are. */
static Py_ssize_t
find(PyObject *starts, const Lanes state[4], int lane)
{
    unsigned char digest[DIGEST_BYTES];
    for (int i = 0; i < DIGEST_BYTES; i++)
        digest[i] = (unsigned char)(state[i / 4][lane] >> 8 * (i % 4));
    Py_ssize_t low = 0, high = PyList_GET_SIZE(starts);
    while (low < high) {
        Py_ssize_t middle = (low + high) / 2;
        PyObject *start = PyList_GET_ITEM(starts, middle);
        if (memcmp(digest, PyBytes_AS_STRING(start), DIGEST_BYTES) < 0) high = middle;
        else low = middle + 1;
    }
    return low - 1;
}

/* Keys that are hashed together: they have one block each. */
typedef struct {
    Lanes words[WORDS];
    Py_ssize_t at[LANES]; /* in the list of keys */
    int count;
} Batch;

static int
set_route(PyObject *routes, Py_ssize_t at, Py_ssize_t route)
{
    PyObject *number = PyLong_FromSsize_t(route);
    if (number == NULL) return 0;
    PyList_SET_ITEM(routes, at, number);
    return 1;
}

static int
finish(Batch *batch, PyObject *starts, PyObject *routes)
{
    Lanes state[4];
    begin(state);
    hash_block(state, batch->words);
    for (int i = 0; i < batch->count; i++)
        if (!set_route(routes, batch->at[i], find(starts, state, i))) return 0;
    batch->count = 0;
    return 1;
}

static int
route_long(PyObject *starts, PyObject *routes, Py_ssize_t at, const char *text, Py_ssize_t size)
{
    Lanes state[4], words[WORDS] = {{0}};
    begin(state);
    for (Py_ssize_t number = 0; number * BLOCK_BYTES <= size + BLOCK_BYTES - LENGTH_AT; number++) {
        fill(words, 0, text, size, number);
        hash_block(state, words);
    }
    return set_route(routes, at, find(starts, state, 0));
}

static int
fill_routes(PyObject *starts, PyObject *keys, PyObject *routes)
{
    Batch batch = {.count = 0};
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(keys); i++) {
        Py_ssize_t size;
        const char *text = PyUnicode_AsUTF8AndSize(PySequence_Fast_GET_ITEM(keys, i), &size);
        if (text == NULL) return 0;
        if (size >= LENGTH_AT) {
            if (!route_long(starts, routes, i, text, size)) return 0;
            continue;
        }
        fill(batch.words, batch.count, text, size, 0);
        batch.at[batch.count++] = i;
        if (batch.count == LANES && !finish(&batch, starts, routes)) return 0;
    }
    return !batch.count || finish(&batch, starts, routes);
}

PyObject *
hash_routes(PyObject *module, PyObject *const *args, Py_ssize_t given)
{
    if (given != 2 || !PyList_Check(args[0]) || !is_column(args[1])) {
        PyErr_SetString(PyExc_TypeError, "hash_routes(list of starts, keys)");
        return NULL;
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(args[0]); i++) {
        PyObject *start = PyList_GET_ITEM(args[0], i);
        if (!PyBytes_Check(start) || PyBytes_GET_SIZE(start) != DIGEST_BYTES) {
            PyErr_SetString(PyExc_TypeError, "a start is 16 bytes");
            return NULL;
        }
    }
    PyObject *routes = PyList_New(PySequence_Fast_GET_SIZE(args[1]));
    if (routes != NULL && !fill_routes(args[0], args[1], routes)) Py_CLEAR(routes);
    return routes;
}
