/* ctx of spool.autograd.Function: what it saves, marks and remembers.
 *
 * A ctx is kept by its call, and so by a node, which shows it to the collector (py_node.c): so that
 * rings through ctx's attributes are found.
 */
#include "bindings/python/ext/py_function.h"

static PyTypeObject ctx_type;

void sp__py_ctx_drop(void *data)
{
    ((sp_py_ctx *)data)->call = NULL;
    Py_DECREF((PyObject *)data);
}

sp_py_ctx *sp__py_ctx_new(sp_py_application *a, sp_function_call *call)
{
    sp_py_ctx *self = PyObject_GC_New(sp_py_ctx, &ctx_type);
    if (!self) return NULL;
    memset(&self->call, 0, sizeof *self - offsetof(sp_py_ctx, call));
    self->call = call;
    self->application = a;
    self->cls = Py_NewRef(a->cls);
    PyObject_GC_Track((PyObject *)self);
    sp_function_keep(call, self, sp__py_ctx_drop);
    return sp__py_start_add(&self->start, (PyObject *)self) == 0 ? self : NULL;
}

sp_py_ctx *sp__py_ctx_of(sp_function_call *call)
{
    return sp_function_kept(call);
}

static int ctx_traverse(PyObject *object, visitproc visit, void *arg)
{
    sp_py_ctx *self = (sp_py_ctx *)object;
    Py_VISIT(self->cls);
    Py_VISIT(self->dict);
    Py_VISIT(self->save[0]);
    Py_VISIT(self->save[1]);
    return 0;
}

static int ctx_clear(PyObject *object)
{
    sp_py_ctx *self = (sp_py_ctx *)object;
    Py_CLEAR(self->cls);
    Py_CLEAR(self->dict);
    for (int k = 0; k < 2; k++) {
        Py_CLEAR(self->save[k]);
        Py_CLEAR(self->holes[k]);
    }
    return 0;
}

static void ctx_dealloc(PyObject *object)
{
    PyObject_GC_UnTrack(object);
    sp__py_start_remove(&((sp_py_ctx *)object)->start);
    if (((sp_py_ctx *)object)->weak) PyObject_ClearWeakRefs(object);
    ctx_clear(object);
    PyObject_GC_Del(object);
}

/* The call behind a ctx, or NULL with an exception. */
static sp_function_call *call_behind(PyObject *object)
{
    sp_py_ctx *self = (sp_py_ctx *)object;
    if (!self->call)
        PyErr_SetString(sp__py_error, "ctx: the graph that it belongs to is gone; use ctx in the "
                                      "methods of its Function alone");
    return self->call;
}

static int check_tensors(PyObject *tuple, const char *op, bool none)
{
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(tuple); i++) {
        PyObject *item = PyTuple_GET_ITEM(tuple, i);
        if (none && item == Py_None) continue;
        if (!sp__py_tensor_arg(item, op, "each argument")) return -1;
    }
    return 0;
}

static PyObject *set_saved(PyObject *object, PyObject *args, int which, const char *op)
{
    if (!call_behind(object) || check_tensors(args, op, true) < 0) return NULL;
    Py_XSETREF(((sp_py_ctx *)object)->save[which], Py_NewRef(args));
    Py_RETURN_NONE;
}

static PyObject *save_for_backward(PyObject *self, PyObject *args)
{
    return set_saved(self, args, 0, "save_for_backward");
}

static PyObject *save_for_forward(PyObject *self, PyObject *args)
{
    return set_saved(self, args, 1, "save_for_forward");
}

static PyObject *mark(PyObject *object, PyObject *args, const char *op,
                      sp_status (*say)(sp_function_call *, const sp_tensor *))
{
    sp_function_call *call = call_behind(object);
    if (!call || check_tensors(args, op, false) < 0) return NULL;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(args); i++) {
        sp_status status = say(call, sp__py_handle(PyTuple_GET_ITEM(args, i)));
        if (status) return sp__py_raise(status);
    }
    Py_RETURN_NONE;
}

static PyObject *mark_dirty(PyObject *self, PyObject *args)
{
    return mark(self, args, "mark_dirty", sp_function_mark_dirty);
}

static PyObject *mark_non_differentiable(PyObject *self, PyObject *args)
{
    return mark(self, args, "mark_non_differentiable", sp_function_mark_non_differentiable);
}

static PyObject *set_materialize_grads(PyObject *self, PyObject *value)
{
    sp_function_call *call = call_behind(self);
    bool on;
    if (!call || sp__py_bool(value, "set_materialize_grads", "value", &on) < 0) return NULL;
    sp_function_materialize(call, on);
    Py_RETURN_NONE;
}

static PyObject *ctx_name(PyObject *self, PyObject *unused)
{
    (void)unused;
    PyObject *cls = ((sp_py_ctx *)self)->cls;
    return PyUnicode_FromFormat("%sBackward", cls ? ((PyTypeObject *)cls)->tp_name : "Function");
}

static PyObject *needs_input_grad(PyObject *object, void *unused)
{
    (void)unused;
    const sp_function_call *call = call_behind(object);
    if (!call) return NULL;
    const sp_py_application *a = ((sp_py_ctx *)object)->application;
    PyObject *tuple = PyTuple_New(a->n_args);
    for (int i = 0, k = 0; tuple && i < a->n_args; i++) {
        bool needs = k < a->n_in && a->in_at[k] == i && sp_function_needs(call, k++);
        PyTuple_SET_ITEM(tuple, i, PyBool_FromLong(needs));
    }
    return tuple;
}

/* ---- saved values ----- */

/* Hands save[which] to the core, and notes where it had None. */
static int hand_over(sp_py_ctx *self, int which,
                     sp_status (*save)(sp_function_call *, const sp_tensor *))
{
    PyObject *tuple = self->save[which];
    bool holes = false;
    if (!tuple) return 0;
    Py_ssize_t n = PyTuple_GET_SIZE(tuple);
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *item = PyTuple_GET_ITEM(tuple, i);
        holes |= item == Py_None;
        if (which == 1) self->had_forward |= item != Py_None;
        sp_status status = item == Py_None ? SP_OK : save(self->call, sp__py_handle(item));
        if (status) return sp__py_raise(status), -1;
    }
    PyObject *where = holes ? PyTuple_New(n) : NULL;
    if (holes && !where) return -1;
    for (Py_ssize_t i = 0; holes && i < n; i++)
        PyTuple_SET_ITEM(where, i, PyBool_FromLong(PyTuple_GET_ITEM(tuple, i) == Py_None));
    self->holes[which] = where;
    Py_CLEAR(self->save[which]);
    return 0;
}

int sp__py_ctx_hand_over(sp_py_ctx *self)
{
    if (hand_over(self, 0, sp_function_save) < 0) return -1;
    return hand_over(self, 1, sp_function_save_forward);
}

static PyObject *saved_tensors(PyObject *object, void *unused)
{
    (void)unused;
    sp_py_ctx *self = (sp_py_ctx *)object;
    sp_function_call *call = call_behind(object);
    if (!call) return NULL;
    if (self->save[0]) return Py_NewRef(self->save[0]);
    PyObject *holes = self->holes[self->in_jvp];
    int n = sp_function_num_saved(call);
    Py_ssize_t size = holes ? PyTuple_GET_SIZE(holes) : n;
    PyObject *tuple = PyTuple_New(size);
    for (Py_ssize_t i = 0, k = 0; tuple && i < size; i++) {
        sp_tensor *t = NULL;
        bool hole = holes && PyTuple_GET_ITEM(holes, i) == Py_True;
        sp_status status = hole ? SP_OK : sp_function_saved(call, (int)k++, &t);
        PyTuple_SET_ITEM(tuple, i, t ? sp__py_object(t) : Py_NewRef(Py_None));
        if (status) {
            Py_DECREF(tuple);
            return sp__py_raise(status);
        }
    }
    return tuple;
}

static PyMethodDef ctx_methods[] = {
    {"save_for_backward", save_for_backward, METH_VARARGS,
     "save_for_backward($self, *tensors)\n--\n\nKeeps tensors, best inputs or results, for "
     "backward, as saved_tensors; None passes."},
    {"save_for_forward", save_for_forward, METH_VARARGS,
     "save_for_forward($self, *tensors)\n--\n\nThe same for jvp."},
    {"mark_dirty", mark_dirty, METH_VARARGS,
     "mark_dirty($self, *tensors)\n--\n\nThese inputs were written in place; forward returns "
     "them, too."},
    {"mark_non_differentiable", mark_non_differentiable, METH_VARARGS,
     "mark_non_differentiable($self, *tensors)\n--\n\nNo gradient flows through these results."},
    {"set_materialize_grads", set_materialize_grads, METH_O,
     "set_materialize_grads($self, value)\n--\n\nWhether backward and jvp see zeros (the default) "
     "or None where there is no gradient or tangent."},
    {"name", ctx_name, METH_NOARGS, "name($self)\n--\n\nThe node's name."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef ctx_getset[] = {
    {"saved_tensors", saved_tensors, NULL, "What was saved: for backward, or in jvp for that.",
     NULL},
    {"needs_input_grad", needs_input_grad, NULL,
     "For each argument of forward, whether its gradient is wanted.", NULL},
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyTypeObject ctx_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "spool.autograd.function.FunctionCtx",
    .tp_doc = "What one call of a Function keeps from forward to backward; takes any attributes.",
    .tp_basicsize = sizeof(sp_py_ctx),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_dealloc = ctx_dealloc,
    .tp_traverse = ctx_traverse,
    .tp_clear = ctx_clear,
    .tp_methods = ctx_methods,
    .tp_getset = ctx_getset,
    .tp_getattro = PyObject_GenericGetAttr,
    .tp_setattro = PyObject_GenericSetAttr,
    .tp_dictoffset = offsetof(sp_py_ctx, dict),
    .tp_weaklistoffset = offsetof(sp_py_ctx, weak),
};

PyObject *sp__py_node_getattro(PyObject *self, PyObject *name)
{
    PyObject *value = PyObject_GenericGetAttr(self, name);
    PyObject *ctx = value ? NULL : sp__node_kept(sp__py_node_of(self), sp__py_ctx_drop);
    if (value || !ctx || !PyErr_ExceptionMatches(PyExc_AttributeError)) return value;
    PyErr_Clear();
    return PyObject_GetAttr(ctx, name);
}

int sp__py_ctx_start(PyObject *module)
{
    if (PyType_Ready(&ctx_type) < 0) return -1;
    sp__node_hooks.kept_drop = sp__py_ctx_drop;
    return PyObject_SetAttrString(module, "FunctionCtx", (PyObject *)&ctx_type);
}
