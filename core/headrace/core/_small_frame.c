/* The compiled twin of `log.format.small_frame`: see there, and the module's table. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#include "_speedups.h"

#define HEADER_BYTES 64

/* -- CRC32C -------------------------------------------------------------------------------- */

static uint32_t table[256];

static void
make_table(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = i;
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
        table[i] = crc;
    }
}

static uint32_t
run_by_table(uint32_t crc, const unsigned char *at, size_t size)
{
    if (!table[1]) make_table();
    while (size--) crc = crc >> 8 ^ table[(crc ^ *at++) & 0xff];
    return crc;
}

#if defined(__x86_64__) && defined(__GNUC__)
__attribute__((target("sse4.2"))) static uint32_t
run_by_processor(uint32_t crc, const unsigned char *at, size_t size)
{
    uint64_t wide = crc, word;
    for (; size >= sizeof word; at += sizeof word, size -= sizeof word) {
        memcpy(&word, at, sizeof word);
        wide = __builtin_ia32_crc32di(wide, word);
    }
    crc = (uint32_t)wide;
    while (size--) crc = __builtin_ia32_crc32qi(crc, *at++);
    return crc;
}
#define HAS_INSTRUCTION() __builtin_cpu_supports("sse4.2")
#else
#define run_by_processor run_by_table
#define HAS_INSTRUCTION() 0
#endif

static uint32_t
crc32c(const unsigned char *at, size_t size)
{
    return ~(HAS_INSTRUCTION() ? run_by_processor : run_by_table)(~0u, at, size);
}

/* -- the frame ----------------------------------------------------------------------------- */

typedef struct {
    uint32_t magic;
    uint8_t version, codec;
    uint16_t flags;
    uint32_t header_crc, body_bytes, body_crc, records, shard, producers_bytes;
    uint64_t frame_no, arrival_ms, durable_upto, previous;
} Header;

_Static_assert(sizeof(Header) == HEADER_BYTES, "as in format.py");

static char *
append(char *at, const void *bytes, Py_ssize_t size)
{
    memcpy(at, bytes, size);
    return at + size;
}

/* The objects' sizes, with a comma between each two; -1 if there is what is none, or nothing. */
static Py_ssize_t
joined_size(PyObject *objects)
{
    Py_ssize_t count = PyList_GET_SIZE(objects), size = count - 1;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *object = PyList_GET_ITEM(objects, i);
        if (!PyBytes_Check(object)) return -1;
        size += PyBytes_GET_SIZE(object);
    }
    return size;
}

static PyObject *
build(const Py_buffer *ends, PyObject *objects, PyObject *producers, const uint64_t *numbers)
{
    Py_ssize_t joined = joined_size(objects), more = PyBytes_GET_SIZE(producers);
    if (joined < 0) {
        PyErr_SetString(PyExc_TypeError, "objects must be bytes, one at least");
        return NULL;
    }
    Py_ssize_t size = ends->len + joined + more;
    if (size > INT32_MAX || numbers[0] > UINT32_MAX) {
        PyErr_SetString(PyExc_OverflowError, "the frame is not small, or no shard's");
        return NULL;
    }
    PyObject *frame = PyBytes_FromStringAndSize(NULL, HEADER_BYTES + size);
    if (frame == NULL) return NULL;
    char *first = PyBytes_AS_STRING(frame), *body = first + HEADER_BYTES;
    char *at = append(body, ends->buf, ends->len);
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(objects); i++) {
        PyObject *object = PyList_GET_ITEM(objects, i);
        if (i) *at++ = ',';
        at = append(at, PyBytes_AS_STRING(object), PyBytes_GET_SIZE(object));
    }
    append(at, PyBytes_AS_STRING(producers), more);
    Header header = {
        .version = 1,
        .codec = 1,
        .body_bytes = (uint32_t)size,
        .body_crc = crc32c((unsigned char *)body, size),
        .records = (uint32_t)(ends->len / 4),
        .shard = (uint32_t)numbers[0],
        .producers_bytes = (uint32_t)more,
        .frame_no = numbers[1],
        .arrival_ms = numbers[2],
        .durable_upto = numbers[3],
        .previous = numbers[4],
    };
    memcpy(&header.magic, "HRF1", sizeof header.magic);
    header.header_crc = crc32c((unsigned char *)&header, sizeof header);
    memcpy(first, &header, sizeof header);
    return frame;
}

PyObject *
small_frame(PyObject *module, PyObject *const *args, Py_ssize_t given)
{
    if (given != 8 || !PyList_Check(args[1]) || !PyBytes_Check(args[2])) {
        PyErr_SetString(PyExc_TypeError, "small_frame(ends, objects, producers, shard, frame_no, "
                                         "arrival_ms, durable_upto, previous)");
        return NULL;
    }
    uint64_t numbers[5];
    for (int i = 0; i < 5; i++) {
        numbers[i] = PyLong_AsUnsignedLongLong(args[3 + i]);
        if (PyErr_Occurred()) return NULL;
    }
    Py_buffer ends;
    if (PyObject_GetBuffer(args[0], &ends, PyBUF_SIMPLE) < 0) return NULL;
    PyObject *frame = build(&ends, args[1], args[2], numbers);
    PyBuffer_Release(&ends);
    return frame;
}
