/* Hooks on tensors and nodes: Python functions that the tape calls, and what takes them off again.
 *
 * Invariants
 * 1. A hook's context is a box with the function, owned: that is what the collector is shown.
 * 2. A tensor with hooks is tracked by the collector, and so is the node that they sit at.
 */
#include "bindings/python/ext/py_int.h"

static void drop_box(void *ctx)
{
    Py_DECREF((PyObject *)ctx);
}

/* ---- handles ----- */

typedef struct removable {
    PyObject_HEAD sp_hook *hook;
} removable;

static void removable_dealloc(PyObject *self)
{
    sp__hook_let_go(&((removable *)self)->hook);
    PyObject_Free(self);
}

static PyObject *removable_remove(PyObject *self, PyObject *unused)
{
    (void)unused;
    sp__hook_remove(((removable *)self)->hook);
    Py_RETURN_NONE;
}

static PyObject *removable_enter(PyObject *self, PyObject *unused)
{
    (void)unused;
    return Py_NewRef(self);
}

static PyObject *removable_exit(PyObject *self, PyObject *args)
{
    (void)args;
    return removable_remove(self, NULL);
}

static PyMethodDef removable_methods[] = {
    {"remove", removable_remove, METH_NOARGS,
     "remove($self)\n--\n\nTakes the hook off; again does nothing."},
    {"__enter__", removable_enter, METH_NOARGS, NULL},
    {"__exit__", removable_exit, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject removable_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "spool.autograd.RemovableHandle",
    .tp_doc = "What takes a hook off again, at remove() or at the end of a with block.",
    .tp_basicsize = sizeof(removable),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_dealloc = removable_dealloc,
    .tp_methods = removable_methods,
};

static removable *removable_new(PyObject *function, const char *op)
{
    if (!PyCallable_Check(function)) {
        sp__py_wrong_type(op, "hook", "callable", function);
        return NULL;
    }
    removable *handle = PyObject_New(removable, &removable_type);
    if (handle) handle->hook = NULL;
    return handle;
}

/* What comes back from adding the hook: on failure nobody has taken the box. */
static PyObject *removable_done(removable *handle, PyObject *box, sp_status status)
{
    if (status == SP_OK) return (PyObject *)handle;
    Py_XDECREF(box);
    Py_DECREF(handle);
    return sp__py_raise(status);
}

static sp_status box_function(PyObject *function, PyObject **box)
{
    *box = sp__py_box(function);
    return *box ? SP_OK : sp__py_callback_failed("hook");
}

/* ---- tensors ----- */

static sp_status run_hook(void *ctx, const sp_tensor *grad, sp_tensor **replacement)
{
    PyObject *result = PyObject_CallOneArg(sp__py_boxed(ctx), (PyObject *)grad);
    if (!result) return sp__py_callback_failed("hook");
    if (result == Py_None) {
        Py_DECREF(result);
        return SP_OK;
    }
    if (!sp__py_is_tensor(result)) {
        sp__py_wrong_type("hook", "its result", "a Tensor or None", result);
        Py_DECREF(result);
        return sp__py_callback_failed("hook");
    }
    *replacement = sp__py_handle(result);
    return SP_OK;
}

/* What a hook on a leaf's accumulated gradient returns is of no use to anyone. */
static sp_status run_added(void *ctx, const sp_tensor *leaf, sp_tensor **unused)
{
    (void)unused;
    PyObject *result = PyObject_CallOneArg(sp__py_boxed(ctx), (PyObject *)leaf);
    if (!result) return sp__py_callback_failed("hook");
    Py_DECREF(result);
    return SP_OK;
}

/* The node that the hook will sit at becomes an object, so that the collector sees the hook. */
static sp_status show_node(PyObject *self)
{
    PyObject *node = sp__py_grad_fn(self, NULL);
    if (!node) return sp__py_callback_failed("hook");
    Py_DECREF(node);
    return SP_OK;
}

static PyObject *add_hook(PyObject *self, PyObject *function, const char *op, bool added)
{
    removable *handle = removable_new(function, op);
    if (!handle) return NULL;
    PyObject *box;
    sp_status status = SP_OK;
    SP_TRY(box_function(function, &box));
    SP_TRY(show_node(self));
    SP_TRY(sp__hook_add(sp__py_handle(self), added, added ? run_added : run_hook, box, drop_box,
                        &handle->hook));
    sp__py_track(sp__py_handle(self));
out:
    return removable_done(handle, box, status);
}

PyObject *sp__py_tensor_hook(PyObject *self, PyObject *function)
{
    return add_hook(self, function, "register_hook", false);
}

PyObject *sp__py_tensor_hook_added(PyObject *self, PyObject *function)
{
    return add_hook(self, function, "register_post_accumulate_grad_hook", true);
}

/* ---- nodes ----- */

static PyObject *tuple_of(sp_tensor *const *t, int n)
{
    PyObject *tuple = PyTuple_New(n);
    for (int i = 0; tuple && i < n; i++)
        PyTuple_SET_ITEM(tuple, i, Py_NewRef(t[i] ? sp__py_object(t[i]) : Py_None));
    return tuple;
}

/* What the hook returned, as n gradients. */
static int take_result(PyObject *result, int n, sp_tensor **replaced)
{
    if (!PyTuple_Check(result))
        return sp__py_wrong_type("hook", "its result", "a tuple or None", result);
    if (PyTuple_GET_SIZE(result) != n) {
        PyErr_Format(sp__py_error, "hook: returned %zd gradients, where there are %d",
                     PyTuple_GET_SIZE(result), n);
        return -1;
    }
    for (int i = 0; i < n; i++) {
        PyObject *g = PyTuple_GET_ITEM(result, i);
        if (g == Py_None) continue;
        if (!sp__py_is_tensor(g))
            return sp__py_wrong_type("hook", "a gradient it returns", "a Tensor or None", g);
        replaced[i] = sp__py_handle(Py_NewRef(g));
    }
    return 0;
}

/* The call's result as `n` gradients that take the place of others, unless it is None. */
static sp_status take_replaced(PyObject *result, int n, sp_tensor **replaced, bool *any)
{
    if (!result) return sp__py_callback_failed("hook");
    *any = result != Py_None;
    int failed = *any ? take_result(result, n, replaced) : 0;
    Py_DECREF(result);
    return failed ? sp__py_callback_failed("hook") : SP_OK;
}

static sp_status run_before(void *ctx, const sp_node_grads *g, sp_tensor **replaced, bool *any)
{
    PyObject *gy = tuple_of(g->gy, g->n_out);
    PyObject *result = gy ? PyObject_CallOneArg(sp__py_boxed(ctx), gy) : NULL;
    Py_XDECREF(gy);
    return take_replaced(result, g->n_out, replaced, any);
}

static sp_status run_after(void *ctx, const sp_node_grads *g, sp_tensor **replaced, bool *any)
{
    PyObject *gx = tuple_of(g->gx, g->n_in), *gy = gx ? tuple_of(g->gy, g->n_out) : NULL;
    PyObject *result = gy ? PyObject_CallFunctionObjArgs(sp__py_boxed(ctx), gx, gy, NULL) : NULL;
    Py_XDECREF(gy);
    Py_XDECREF(gx);
    return take_replaced(result, g->n_in, replaced, any);
}

static PyObject *add_node_hook(PyObject *self, PyObject *function, const char *op, bool before)
{
    removable *handle = removable_new(function, op);
    if (!handle) return NULL;
    PyObject *box;
    sp_status status = SP_OK;
    SP_TRY(box_function(function, &box));
    SP_TRY(sp__node_hook_add(sp__py_node_of(self), before, before ? run_before : run_after, box,
                             drop_box, &handle->hook));
out:
    return removable_done(handle, box, status);
}

PyObject *sp__py_node_hook_before(PyObject *self, PyObject *function)
{
    return add_node_hook(self, function, "register_prehook", true);
}

PyObject *sp__py_node_hook_after(PyObject *self, PyObject *function)
{
    return add_node_hook(self, function, "register_hook", false);
}

int sp__py_callbacks_start(PyObject *module)
{
    sp__node_hooks.drop = drop_box;
    if (PyType_Ready(&removable_type) < 0) return -1;
    return PyObject_SetAttrString(module, "RemovableHandle", (PyObject *)&removable_type);
}
