/* Saved-tensor hooks, and what a hook may ask of the backward that it runs in, for
 * spool/autograd/graph.py. The context of a pair is a box with the tuple (pack, unpack), and a
 * packed value is a box with what pack returned.
 */
#include "bindings/python/ext/py_int.h"

#include "tensor/memory.h"

/* pack, or unpack. */
static PyObject *function_of(void *ctx, int which)
{
    PyObject *pair = sp__py_boxed(ctx);
    return PyTuple_Check(pair) ? PyTuple_GET_ITEM(pair, which) : Py_None;
}

static sp_status pack(void *ctx, const sp_tensor *t, void **object)
{
    PyObject *packed = PyObject_CallOneArg(function_of(ctx, 0), (PyObject *)t);
    *object = packed ? sp__py_box(packed) : NULL;
    Py_XDECREF(packed);
    return *object ? SP_OK : sp__py_callback_failed("saved_tensors_hooks: pack");
}

static sp_status unpack(void *ctx, void *object, sp_tensor **out)
{
    static const char op[] = "saved_tensors_hooks: unpack";
    PyObject *result = PyObject_CallOneArg(function_of(ctx, 1), sp__py_boxed(object));
    if (!result) return sp__py_callback_failed(op);
    if (!sp__py_is_tensor(result)) {
        sp__py_wrong_type(op, "its result", "a Tensor", result);
        Py_DECREF(result);
        return sp__py_callback_failed(op);
    }
    *out = sp__py_handle(result);
    return SP_OK;
}

static void keep(void *object)
{
    Py_INCREF((PyObject *)object);
}

static sp_pack_hooks hooks = {.pack = pack, .unpack = unpack, .keep = keep};

static PyObject *pack_push(PyObject *module, PyObject *pair)
{
    (void)module;
    if (!PyTuple_Check(pair) || PyTuple_GET_SIZE(pair) != 2) {
        sp__py_wrong_type("_pack_push", "hooks", "a pair", pair);
        return NULL;
    }
    PyObject *box = sp__py_box(pair);
    if (!box) return NULL;
    hooks.drop = sp__node_hooks.drop; /* by which the collector knows what it may be shown */
    PyObject *result = sp__py_none(sp__pack_push(&hooks, box));
    Py_DECREF(box);
    return result;
}

static PyObject *pack_pop(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    sp__pack_pop();
    Py_RETURN_NONE;
}

/* ---- disabling ----- */

static const char REASON[] = "spool.autograd.disabled";

static PyObject *pack_disable(PyObject *module, PyObject *text)
{
    (void)module;
    const char *why = PyUnicode_AsUTF8(text);
    char *was;
    if (!why) return NULL;
    sp_status status = sp__pack_disable(why, &was);
    if (status) return sp__py_raise(status);
    return was ? PyCapsule_New(was, REASON, NULL) : Py_NewRef(Py_None);
}

static PyObject *pack_restore(PyObject *module, PyObject *was)
{
    (void)module;
    char *text = was == Py_None ? NULL : PyCapsule_GetPointer(was, REASON);
    if (!text && PyErr_Occurred()) return NULL;
    sp__pack_restore(text);
    Py_RETURN_NONE;
}

/* ---- from within a backward ----- */

static PyObject *backward_id(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return PyLong_FromUnsignedLongLong(sp__backward_id());
}

static PyObject *reached_of(const bool *reached, int n)
{
    PyObject *list = PyList_New(n);
    for (int i = 0; list && i < n; i++) PyList_SET_ITEM(list, i, PyBool_FromLong(reached[i]));
    return list;
}

static PyObject *backward_reaches(PyObject *module, PyObject *nodes)
{
    (void)module;
    if (!PyTuple_Check(nodes)) {
        sp__py_wrong_type("_backward_reaches", "nodes", "a tuple", nodes);
        return NULL;
    }
    int n = (int)PyTuple_GET_SIZE(nodes);
    size_t bytes = (size_t)n * (sizeof(sp_node *) + sizeof(bool));
    sp_node **node = sp__alloc_zero(bytes);
    if (!node) return PyErr_NoMemory();
    bool *reached = (bool *)(node + n);
    PyObject *result = NULL;
    int i = 0;
    for (; i < n && sp__py_is_node(PyTuple_GET_ITEM(nodes, i)); i++)
        node[i] = sp__py_node_of(PyTuple_GET_ITEM(nodes, i));
    if (i < n)
        sp__py_wrong_type("_backward_reaches", "node", "a Node", PyTuple_GET_ITEM(nodes, i));
    else if (sp__backward_reaches(node, n, reached) == SP_OK)
        result = reached_of(reached, n);
    else
        sp__py_raise(SP_EMEMORY);
    sp__free(node, bytes);
    return result;
}

static sp_status call_at_end(void *ctx)
{
    PyObject *result = PyObject_CallNoArgs(ctx);
    if (!result) return sp__py_callback_failed("backward: a callback at its end");
    Py_DECREF(result);
    return SP_OK;
}

static PyObject *backward_at_end(PyObject *module, PyObject *function)
{
    (void)module;
    sp_status status = sp__backward_at_end(call_at_end, Py_NewRef(function), sp__node_hooks.drop);
    if (status) Py_DECREF(function);
    return sp__py_none(status);
}

PyMethodDef sp__py_saved_functions[] = {
    {"_pack_push", pack_push, METH_O,
     "_pack_push(pair)\n--\n\nWhat this thread's nodes save goes through pack and unpack."},
    {"_pack_pop", pack_pop, METH_NOARGS, "_pack_pop()\n--\n\nTakes the last pair off again."},
    {"_pack_disable", pack_disable, METH_O,
     "_pack_disable(why)\n--\n\nMakes _pack_push fail; returns what _pack_restore takes."},
    {"_pack_restore", pack_restore, METH_O, "_pack_restore(was)\n--\n\nUndoes _pack_disable."},
    {"_backward_id", backward_id, METH_NOARGS,
     "_backward_id()\n--\n\nThe number of the backward that this thread is in, or 0."},
    {"_backward_reaches", backward_reaches, METH_O,
     "_backward_reaches(nodes)\n--\n\nWhich of a tuple of nodes the backward will still come to."},
    {"_backward_at_end", backward_at_end, METH_O,
     "_backward_at_end(function)\n--\n\nCalls function() at the end of the backward."},
    {NULL, NULL, 0, NULL},
};
