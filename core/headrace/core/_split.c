/* `split` and `deal`: a put's records to their shards, and back into the request's order. See
   service/routing.py. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "_speedups.h"

#define MAX_ROUTE 0xfffff /* far more shards than there may be */

/* What goes along one route: of `split` a tuple of lists, of `deal` one list. */
typedef struct {
    PyObject *things; /* borrowed */
    Py_ssize_t count, done;
} Part;

/* -1 with an error set if it is none. (One of a class derived from int would bring its own code,
   to be run where the routes are looked at again.) */
static Py_ssize_t
route_of(PyObject *object)
{
    Py_ssize_t route = PyLong_CheckExact(object) ? PyLong_AsSsize_t(object) : -1;
    if (route >= 0 && route <= MAX_ROUTE) return route;
    if (!PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "a route is an index");
    return -1;
}

/* Room for a part of each route; NULL with an error set if a route is none. Free with PyMem_Free. */
static Part *
new_parts(PyObject *routes)
{
    Py_ssize_t last = 0;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(routes); i++) {
        Py_ssize_t route = route_of(PyList_GET_ITEM(routes, i));
        if (route < 0) return NULL;
        if (route > last) last = route;
    }
    Part *parts = PyMem_Calloc((size_t)last + 1, sizeof *parts);
    if (parts == NULL) PyErr_NoMemory();
    for (Py_ssize_t i = 0; parts != NULL && i < PyList_GET_SIZE(routes); i++)
        parts[PyLong_AsSsize_t(PyList_GET_ITEM(routes, i))].count++;
    return parts;
}

/* -- split --------------------------------------------------------------------------------- */

/* As many lists of `count` as there are columns. Whoever fills them looks at no one else's. */
static PyObject *
new_lists(Py_ssize_t columns, Py_ssize_t count)
{
    PyObject *lists = PyTuple_New(columns);
    for (Py_ssize_t i = 0; lists != NULL && i < columns; i++) {
        PyObject *list = PyList_New(count);
        if (list == NULL) Py_CLEAR(lists);
        else PyTuple_SET_ITEM(lists, i, list);
    }
    return lists;
}

static int
split_into(PyObject *found, PyObject *routes, PyObject *columns, Part *parts)
{
    Py_ssize_t wide = PyTuple_GET_SIZE(columns);
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(routes); i++) {
        Part *part = &parts[PyLong_AsSsize_t(PyList_GET_ITEM(routes, i))];
        if (part->things == NULL) {
            PyObject *lists = new_lists(wide, part->count);
            if (lists == NULL) return 0;
            int failed = PyDict_SetItem(found, PyList_GET_ITEM(routes, i), lists);
            Py_DECREF(lists);
            if (failed) return 0;
            part->things = lists;
        }
        for (Py_ssize_t j = 0; j < wide; j++) {
            PyObject *thing = PyList_GET_ITEM(PyTuple_GET_ITEM(columns, j), i);
            PyList_SET_ITEM(PyTuple_GET_ITEM(part->things, j), part->done, Py_NewRef(thing));
        }
        part->done++;
    }
    return 1;
}

PyObject *
split(PyObject *module, PyObject *const *args, Py_ssize_t given)
{
    if (given != 2 || !PyList_Check(args[0]) || !PyTuple_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "split(list of routes, tuple of lists)");
        return NULL;
    }
    for (Py_ssize_t j = 0; j < PyTuple_GET_SIZE(args[1]); j++) {
        PyObject *column = PyTuple_GET_ITEM(args[1], j);
        if (!PyList_Check(column) || PyList_GET_SIZE(column) != PyList_GET_SIZE(args[0])) {
            PyErr_SetString(PyExc_ValueError, "a column is a list, as long as that of the routes");
            return NULL;
        }
    }
    Part *parts = new_parts(args[0]);
    PyObject *found = parts == NULL ? NULL : PyDict_New();
    if (found != NULL && !split_into(found, args[0], args[1], parts)) Py_CLEAR(found);
    PyMem_Free(parts);
    return found;
}

/* -- deal ---------------------------------------------------------------------------------- */

/* Give each part its list out of `hands`: as long as there are routes of it. */
static int
take_hands(PyObject *hands, PyObject *routes, Part *parts)
{
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(routes); i++) {
        PyObject *route = PyList_GET_ITEM(routes, i);
        Part *part = &parts[PyLong_AsSsize_t(route)];
        if (part->things != NULL) continue;
        part->things = PyDict_GetItemWithError(hands, route);
        if (part->things == NULL || !PyList_Check(part->things)
            || PyList_GET_SIZE(part->things) != part->count) {
            if (!PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "a hand is not what is dealt");
            return 0;
        }
    }
    return 1;
}

PyObject *
deal(PyObject *module, PyObject *const *args, Py_ssize_t given)
{
    if (given != 2 || !PyList_Check(args[0]) || !PyDict_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "deal(list of routes, dict of lists)");
        return NULL;
    }
    Part *parts = new_parts(args[0]);
    if (parts == NULL) return NULL;
    PyObject *dealt = NULL;
    Py_ssize_t count = PyList_GET_SIZE(args[0]);
    if (take_hands(args[1], args[0], parts)) dealt = PyList_New(count);
    for (Py_ssize_t i = 0; dealt != NULL && i < count; i++) {
        Part *part = &parts[PyLong_AsSsize_t(PyList_GET_ITEM(args[0], i))];
        PyList_SET_ITEM(dealt, i, Py_NewRef(PyList_GET_ITEM(part->things, part->done++)));
    }
    PyMem_Free(parts);
    return dealt;
}
