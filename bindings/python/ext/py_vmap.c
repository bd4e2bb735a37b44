/* vmap's arguments and results for spool/func/batching.py: leaves of trees, each beside the
 * dimension that is mapped over, an int or None.
 */
#include "bindings/python/ext/py_int.h"

#include "autograd/transform.h"
#include "ops_gen.h"

/* ---- what is mapped over ----- */

/* 1: an int, in *dim; 0: None; -1: an exception. */
static int dim_of(PyObject *o, const char *what, long long *dim)
{
    if (o == Py_None) return 0;
    if (PyLong_Check(o) && !PyBool_Check(o)) {
        *dim = PyLong_AsLongLong(o);
        return *dim == -1 && PyErr_Occurred() ? -1 : 1;
    }
    PyErr_Format(PyExc_TypeError, "vmap: %s must hold ints and None, not %.100s", what,
                 Py_TYPE(o)->tp_name);
    return -1;
}

/* The size of one mapped dimension; dims count from the end, too. */
static int size_at(PyObject *leaf, long long dim, int64_t *size)
{
    if (!sp__py_is_tensor(leaf)) {
        PyErr_Format(PyExc_TypeError,
                     "vmap: in_dims maps over an argument of type %.100s; pass None for it",
                     Py_TYPE(leaf)->tp_name);
        return -1;
    }
    const sp_tensor *t = sp__py_handle(leaf);
    if (dim < -t->rank || dim >= t->rank) {
        PyErr_Format(PyExc_IndexError, "vmap: in_dims has %lld for a tensor of shape %s", dim,
                     SP_SHAPE(t));
        return -1;
    }
    *size = t->shape[dim < 0 ? dim + t->rank : dim];
    return 0;
}

static int check_pair(PyObject *a, PyObject *b)
{
    if (PyList_Check(a) && PyList_Check(b) && PyList_GET_SIZE(a) == PyList_GET_SIZE(b)) return 0;
    PyErr_SetString(PyExc_TypeError, "vmap: expected two lists of one length");
    return -1;
}

/* The size that all mapped dimensions have. */
static int common_size(PyObject *leaves, PyObject *dims, int64_t *out)
{
    *out = -1;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(leaves); i++) {
        long long dim;
        int64_t size;
        int mapped = dim_of(PyList_GET_ITEM(dims, i), "in_dims", &dim);
        if (mapped < 0) return -1;
        if (!mapped) continue;
        if (size_at(PyList_GET_ITEM(leaves, i), dim, &size) < 0) return -1;
        if (*out >= 0 && size != *out) {
            sp__py_raise(sp_fail(
                SP_ESHAPE, "vmap: the mapped dimensions differ in size: [%lld, %lld]",
                (long long)(size < *out ? size : *out), (long long)(size < *out ? *out : size)));
            return -1;
        }
        *out = size;
    }
    if (*out >= 0) return 0;
    PyErr_SetString(PyExc_ValueError, "vmap: in_dims maps over no argument");
    return -1;
}

static PyObject *size(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *leaves, *dims;
    int64_t n;
    if (!PyArg_ParseTuple(args, "OO:_vmap_size", &leaves, &dims)) return NULL;
    if (check_pair(leaves, dims) < 0 || common_size(leaves, dims, &n) < 0) return NULL;
    return PyLong_FromLongLong(n);
}

/* ---- the level ----- */

static int randomness_of(const char *name)
{
    static const char *const choices[] = {"error", "different", "same"};
    for (int i = 0; i < 3; i++)
        if (strcmp(name, choices[i]) == 0) return i;
    PyErr_Format(PyExc_ValueError,
                 "vmap: randomness must be 'error', 'different' or 'same', not '%s'", name);
    return -1;
}

static PyObject *wrap_each(sp_level *level, PyObject *leaves, PyObject *dims)
{
    PyObject *mapped = PyList_New(PyList_GET_SIZE(leaves));
    for (Py_ssize_t i = 0; mapped && i < PyList_GET_SIZE(mapped); i++) {
        PyObject *leaf = PyList_GET_ITEM(leaves, i);
        long long dim;
        int found = dim_of(PyList_GET_ITEM(dims, i), "in_dims", &dim);
        sp_tensor *t = NULL;
        PyObject *one = NULL;
        if (found > 0) {
            sp_status status = sp__vmap_wrap(level, sp__py_handle(leaf), dim, &t);
            one = sp__py_result(status, t);
        } else if (found == 0) {
            one = Py_NewRef(leaf);
        }
        if (!one) Py_CLEAR(mapped);
        if (one) PyList_SET_ITEM(mapped, i, one);
    }
    return mapped;
}

static PyObject *enter(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *leaves, *dims, *mapped = NULL, *both = NULL;
    const char *name;
    int64_t n;
    if (!PyArg_ParseTuple(args, "OOs:_vmap_enter", &leaves, &dims, &name)) return NULL;
    int randomness = randomness_of(name);
    if (randomness < 0 || check_pair(leaves, dims) < 0 || common_size(leaves, dims, &n) < 0)
        return NULL;
    sp_level *level = NULL;
    sp_status status = sp__level_push_vmap(n, (sp_randomness)randomness, &level);
    PyObject *capsule = sp__py_level(status, level);
    if (!capsule) return NULL;
    mapped = wrap_each(level, leaves, dims);
    if (mapped) both = PyTuple_Pack(2, capsule, mapped);
    if (!both) sp__py_level_end(capsule);
    Py_XDECREF(mapped);
    Py_DECREF(capsule);
    return both;
}

/* ---- results ----- */

static PyObject *unwrap_one(sp_level *level, PyObject *value, PyObject *place)
{
    sp_tensor *out = NULL;
    long long dim;
    if (!sp__py_is_tensor(value))
        return PyErr_Format(PyExc_TypeError,
                            "vmap: results must be Tensors or trees of them, found %.100s",
                            Py_TYPE(value)->tp_name);
    int found = dim_of(place, "out_dims", &dim);
    if (found < 0) return NULL;
    const sp_tensor *t = sp__py_handle(value);
    sp_status status =
        found ? sp__vmap_unwrap(level, t, dim, &out) : sp__vmap_unwrap_same(level, t, &out);
    return sp__py_result(status, out);
}

static PyObject *unwrap_all(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *capsule, *values, *places;
    if (!PyArg_ParseTuple(args, "OOO:_vmap_unwrap_all", &capsule, &values, &places)) return NULL;
    sp_level *level = sp__py_level_of(capsule);
    if (!level || check_pair(values, places) < 0) return NULL;
    PyObject *results = PyList_New(PyList_GET_SIZE(values));
    for (Py_ssize_t i = 0; results && i < PyList_GET_SIZE(results); i++) {
        PyObject *one = unwrap_one(level, PyList_GET_ITEM(values, i), PyList_GET_ITEM(places, i));
        if (!one) Py_CLEAR(results);
        if (one) PyList_SET_ITEM(results, i, one);
    }
    return results;
}

/* ---- what has no rule ----- */

static PyObject *fallbacks(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    PyObject *counts = PyDict_New();
    for (int op = 0; counts && op < SP_OP_COUNT; op++) {
        int64_t n = sp__vmap_fallbacks_of(op);
        if (n == 0) continue;
        PyObject *count = PyLong_FromLongLong(n);
        if (!count || PyDict_SetItemString(counts, sp_op_table[op].name, count) < 0)
            Py_CLEAR(counts);
        Py_XDECREF(count);
    }
    return counts;
}

static PyObject *loop_always(PyObject *module, PyObject *on)
{
    (void)module;
    bool value;
    if (sp__py_bool(on, "_vmap_loop_always", "on", &value) < 0) return NULL;
    sp__vmap_loop_always(value);
    Py_RETURN_NONE;
}

static PyObject *warn(PyObject *module, PyObject *on)
{
    (void)module;
    bool value;
    if (sp__py_bool(on, "_vmap_warn", "on", &value) < 0) return NULL;
    sp__vmap_warn(value);
    Py_RETURN_NONE;
}

PyMethodDef sp__py_vmap_functions[] = {
    {"_vmap_size", size, METH_VARARGS,
     "_vmap_size(leaves, dims)\n--\n\nThe size of the mapped dimensions."},
    {"_vmap_enter", enter, METH_VARARGS,
     "_vmap_enter(leaves, dims, randomness)\n--\n\nA level, and the leaves with these dimensions "
     "hidden."},
    {"_vmap_unwrap_all", unwrap_all, METH_VARARGS,
     "_vmap_unwrap_all(level, values, places)\n--\n\nThe values with the mapped dimension back "
     "(None: they have none)."},
    {"_vmap_fallbacks", fallbacks, METH_NOARGS,
     "_vmap_fallbacks()\n--\n\nHow often vmap looped over slices so far, by op."},
    {"_vmap_loop_always", loop_always, METH_O,
     "_vmap_loop_always(on)\n--\n\nWhether vmap ignores its rules, but those of views."},
    {"_vmap_warn", warn, METH_O,
     "_vmap_warn(on)\n--\n\nWhether ops that loop under vmap say so on stderr."},
    {NULL, NULL, 0, NULL},
};
