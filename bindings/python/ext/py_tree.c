/* Trees of values: nested tuples, lists, dicts and named tuples, taken apart and put together
 * again.
 *
 * Every transform does both at every call, which takes longer than a small op.
 *
 * A structure is
 *     LEAF                         a value
 *     None                         None, which is no leaf
 *     (kind, (part, ...))          a tuple, a list, or a named tuple of a kind
 *     (dict, (key, ...), (part, ...))
 *
 * of plain tuples, so that structures can be compared.
 */
#include "bindings/python/ext/py_int.h"

static PyObject *leaf; /* stands for one in structures */

/* ---- apart ----- */

static PyObject *structure_of(PyObject *tree, PyObject *leaves);

/* The structures of the values of a tuple or list. */
static PyObject *parts_of(PyObject *values, PyObject *leaves)
{
    Py_ssize_t n = PySequence_Fast_GET_SIZE(values);
    PyObject *parts = PyTuple_New(n);
    for (Py_ssize_t i = 0; parts && i < n; i++) {
        /* A value's own attributes may be code, which may have changed a list. */
        bool there = i < PySequence_Fast_GET_SIZE(values);
        PyObject *value = there ? Py_NewRef(PySequence_Fast_GET_ITEM(values, i)) : NULL,
                 *part = value ? structure_of(value, leaves) : NULL;
        if (!there) PyErr_SetString(PyExc_RuntimeError, "a list changed while it was read");
        Py_XDECREF(value);
        if (!part) Py_CLEAR(parts);
        if (part) PyTuple_SET_ITEM(parts, i, part);
    }
    return parts;
}

/* (kind, parts); takes parts. */
static PyObject *node_of(PyTypeObject *kind, PyObject *parts)
{
    PyObject *node = parts ? PyTuple_Pack(2, kind, parts) : NULL;
    Py_XDECREF(parts);
    return node;
}

static PyObject *dict_of(PyObject *tree, PyObject *leaves)
{
    PyObject *list = PyDict_Keys(tree), *keys = list ? PyList_AsTuple(list) : NULL,
             *values = keys ? PyDict_Values(tree) : NULL,
             *parts = values ? parts_of(values, leaves) : NULL,
             *node = parts ? PyTuple_Pack(3, &PyDict_Type, keys, parts) : NULL;
    Py_XDECREF(list), Py_XDECREF(keys), Py_XDECREF(values), Py_XDECREF(parts);
    return node;
}

/* Named tuples of Python, and the named results of ops. */
static bool is_named(PyObject *tree)
{
    PyObject *kind = (PyObject *)Py_TYPE(tree);
    return PyTuple_Check(tree) &&
           (PyObject_HasAttrString(kind, "_fields") || PyObject_HasAttrString(kind, "n_fields"));
}

static PyObject *structure_of(PyObject *tree, PyObject *leaves)
{
    PyObject *node;
    if (sp__py_is_tensor(tree) || (!PyTuple_Check(tree) && !PyList_CheckExact(tree) &&
                                   !PyDict_CheckExact(tree) && tree != Py_None))
        return PyList_Append(leaves, tree) < 0 ? NULL : Py_NewRef(leaf);
    if (tree == Py_None) return Py_NewRef(Py_None);
    if (Py_EnterRecursiveCall(" in a tree of tensors")) return NULL;
    if (PyDict_CheckExact(tree))
        node = dict_of(tree, leaves);
    else if (PyTuple_CheckExact(tree) || PyList_CheckExact(tree) || is_named(tree))
        node = node_of(Py_TYPE(tree), parts_of(tree, leaves));
    else
        node = PyList_Append(leaves, tree) < 0 ? NULL : Py_NewRef(leaf);
    Py_LeaveRecursiveCall();
    return node;
}

static PyObject *flatten(PyObject *module, PyObject *tree)
{
    (void)module;
    PyObject *leaves = PyList_New(0), *structure = leaves ? structure_of(tree, leaves) : NULL,
             *both = structure ? PyTuple_Pack(2, leaves, structure) : NULL;
    Py_XDECREF(leaves), Py_XDECREF(structure);
    return both;
}

/* ---- together ----- */

typedef struct source {
    PyObject *leaves; /* a tuple or list */
    Py_ssize_t at;
} source;

static PyObject *built(PyObject *structure, source *from);

static PyObject *built_parts(PyObject *parts, source *from, bool as_list)
{
    Py_ssize_t n = PyTuple_GET_SIZE(parts);
    PyObject *values = as_list ? PyList_New(n) : PyTuple_New(n);
    for (Py_ssize_t i = 0; values && i < n; i++) {
        PyObject *value = built(PyTuple_GET_ITEM(parts, i), from);
        if (!value)
            Py_CLEAR(values);
        else if (as_list)
            PyList_SET_ITEM(values, i, value);
        else
            PyTuple_SET_ITEM(values, i, value);
    }
    return values;
}

static PyObject *built_dict(PyObject *keys, PyObject *parts, source *from)
{
    PyObject *dict = PyDict_New();
    for (Py_ssize_t i = 0; dict && i < PyTuple_GET_SIZE(keys); i++) {
        PyObject *value = built(PyTuple_GET_ITEM(parts, i), from);
        if (!value || PyDict_SetItem(dict, PyTuple_GET_ITEM(keys, i), value) < 0) Py_CLEAR(dict);
        Py_XDECREF(value);
    }
    return dict;
}

static PyObject *built_named(PyObject *kind, PyObject *parts, source *from)
{
    PyObject *values = built_parts(parts, from, false), *result = NULL;
    if (!values) return NULL;
    result = PyObject_HasAttrString(kind, "_fields") ? PyObject_Call(kind, values, NULL)
                                                     : PyObject_CallOneArg(kind, values);
    Py_DECREF(values);
    return result;
}

static PyObject *next_leaf(source *from)
{
    if (from->at < PySequence_Fast_GET_SIZE(from->leaves))
        return Py_NewRef(PySequence_Fast_GET_ITEM(from->leaves, from->at++));
    PyErr_SetString(PyExc_ValueError, "unflatten: the structure has more leaves than were given");
    return NULL;
}

static bool is_node(PyObject *structure)
{
    if (!PyTuple_CheckExact(structure)) return false;
    Py_ssize_t n = PyTuple_GET_SIZE(structure);
    if (n < 2 || n != 2 + (PyTuple_GET_ITEM(structure, 0) == (PyObject *)&PyDict_Type))
        return false;
    for (Py_ssize_t i = 1; i < n; i++)
        if (!PyTuple_CheckExact(PyTuple_GET_ITEM(structure, i))) return false;
    return n == 2 || PyTuple_GET_SIZE(PyTuple_GET_ITEM(structure, 1)) ==
                         PyTuple_GET_SIZE(PyTuple_GET_ITEM(structure, 2));
}

static PyObject *built(PyObject *structure, source *from)
{
    if (structure == leaf) return next_leaf(from);
    if (structure == Py_None) return Py_NewRef(Py_None);
    if (!is_node(structure))
        return PyErr_Format(PyExc_TypeError, "unflatten: expected a structure from flatten()");
    PyObject *kind = PyTuple_GET_ITEM(structure, 0), *parts = PyTuple_GET_ITEM(structure, 1),
             *result;
    if (Py_EnterRecursiveCall(" in a tree of tensors")) return NULL;
    if (kind == (PyObject *)&PyDict_Type)
        result = built_dict(parts, PyTuple_GET_ITEM(structure, 2), from);
    else if (kind == (PyObject *)&PyTuple_Type || kind == (PyObject *)&PyList_Type)
        result = built_parts(parts, from, kind == (PyObject *)&PyList_Type);
    else
        result = built_named(kind, parts, from);
    Py_LeaveRecursiveCall();
    return result;
}

static PyObject *unflatten(PyObject *module, PyObject *const *args, Py_ssize_t n)
{
    (void)module;
    if (n != 2) return PyErr_Format(PyExc_TypeError, "unflatten: expected a structure and leaves");
    source from = {PySequence_Fast(args[1], "unflatten: expected a sequence of leaves"), 0};
    PyObject *tree = from.leaves ? built(args[0], &from) : NULL;
    Py_XDECREF(from.leaves);
    return tree;
}

static PyMethodDef functions[] = {
    {"_tree_flatten", flatten, METH_O, "The leaves of a tree, in order, and its structure."},
    {"_tree_unflatten", (PyCFunction)(void *)unflatten, METH_FASTCALL,
     "The tree of that structure with these leaves."},
    {NULL, NULL, 0, NULL},
};

int sp__py_tree_start(PyObject *module)
{
    leaf = PyUnicode_InternFromString("leaf");
    return leaf ? PyModule_AddFunctions(module, functions) : -1;
}
