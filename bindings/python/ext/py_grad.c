/* The tape in Python: backward, grad, hooks, nodes, grad mode.
 *
 * Invariants
 * 1. A hook's context is the Python callable, owned: that is what the collector is shown
 * (sp__py_grad_traverse).
 * 2. A tensor with hooks or a gradient, and a result of a Function, is tracked by the collector.
 */
#include "bindings/python/ext/py_function.h"

#include "autograd/autograd.h"
#include "tensor/memory.h"

/* ---- the collector ----- */

typedef struct visitor {
    visitproc visit;
    void *arg;
    int result;
} visitor;

static void see_hook(void *arg, void *ctx)
{
    visitor *v = arg;
    if (!v->result) v->result = v->visit(ctx, v->arg);
}

int sp__py_grad_traverse(sp_tensor *t, visitproc visit, void *arg)
{
    visitor v = {visit, arg, 0};
    sp__hooks_each(t, see_hook, &v);
    PyObject *ctx = sp__function_of(t, sp__py_ctx_drop);
    if (!v.result && ctx) v.result = visit(ctx, arg);
    if (v.result) return v.result;
    sp_tensor *grad = NULL;
    if (sp_grad_get(t, &grad) != SP_OK || !grad) return 0;
    v.result = visit(sp__py_object(grad), arg);
    sp_drop(&grad);
    return v.result;
}

void sp__py_grad_clear(sp_tensor *t)
{
    sp__history_clear(t);
}

/* ---- nodes ----- */

typedef struct node_object {
    PyObject_HEAD sp_node *node; /* owned */
} node_object;

static PyTypeObject node_type;

/* node may be NULL: None. */
static PyObject *node_wrap(sp_node *node)
{
    if (!node) Py_RETURN_NONE;
    node_object *self = PyObject_New(node_object, &node_type);
    if (self) self->node = sp__node_retain(node);
    return (PyObject *)self;
}

static sp_node *node_of(PyObject *self)
{
    return ((node_object *)self)->node;
}

sp_node *sp__py_node(PyObject *self)
{
    return node_of(self);
}

static void node_dealloc(PyObject *self)
{
    sp__node_drop(&((node_object *)self)->node);
    PyObject_Free(self);
}

static PyObject *node_name(PyObject *self, PyObject *unused)
{
    (void)unused;
    char name[SP_GRAD_FN_TEXT];
    return PyUnicode_FromString(sp__node_name(node_of(self), name, sizeof name));
}

static PyObject *node_repr(PyObject *self)
{
    char name[SP_GRAD_FN_TEXT];
    return PyUnicode_FromFormat("<%s node %llu>", sp__node_name(node_of(self), name, sizeof name),
                                (unsigned long long)sp__node_seq(node_of(self)));
}

static PyObject *node_next(PyObject *self, void *unused)
{
    (void)unused;
    int n = sp__node_num_edges(node_of(self));
    PyObject *edges = PyTuple_New(n);
    for (int i = 0; edges && i < n; i++) {
        int out_nr = 0;
        PyObject *node = node_wrap(sp__node_edge(node_of(self), i, &out_nr));
        PyObject *edge = node ? Py_BuildValue("(Ni)", node, out_nr) : NULL;
        if (edge)
            PyTuple_SET_ITEM(edges, i, edge);
        else
            Py_CLEAR(edges);
    }
    return edges;
}

static PyObject *node_variable(PyObject *self, void *unused)
{
    (void)unused;
    sp_tensor *variable = sp__node_variable(node_of(self));
    return Py_NewRef(variable ? sp__py_object(variable) : Py_None);
}

static PyObject *node_compare(PyObject *a, PyObject *b, int op)
{
    if (Py_TYPE(b) != &node_type || (op != Py_EQ && op != Py_NE)) Py_RETURN_NOTIMPLEMENTED;
    return PyBool_FromLong((node_of(a) == node_of(b)) == (op == Py_EQ));
}

static Py_hash_t node_hash(PyObject *self)
{
    return (Py_hash_t)((uintptr_t)node_of(self) >> 4);
}

static PyMethodDef node_methods[] = {
    {"name", node_name, METH_NOARGS,
     "name($self)\n--\n\nThe op's name with 'Backward', or 'AccumulateGrad'."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef node_getset[] = {
    {"next_functions", node_next, NULL,
     "A pair (node, number of its output) for every input of the op.", NULL},
    {"variable", node_variable, NULL,
     "The leaf that an AccumulateGrad node adds to; None for others.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyTypeObject node_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "spool.autograd.Node",
    .tp_doc = "One recorded op of the tape.",
    .tp_basicsize = sizeof(node_object),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_dealloc = node_dealloc,
    .tp_repr = node_repr,
    .tp_richcompare = node_compare,
    .tp_hash = node_hash,
    .tp_getattro = sp__py_node_getattro,
    .tp_methods = node_methods,
    .tp_getset = node_getset,
};

PyObject *sp__py_grad_fn(PyObject *self, void *unused)
{
    (void)unused;
    sp_node *node = NULL;
    sp_status status = sp__grad_fn(sp__py_handle(self), &node);
    return status ? sp__py_raise(status) : node_wrap(node);
}

/* ---- hooks ----- */

static sp_status run_hook(void *ctx, const sp_tensor *grad, sp_tensor **replacement)
{
    PyObject *result = PyObject_CallOneArg(ctx, (PyObject *)grad);
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

static void drop_hook(void *ctx)
{
    Py_DECREF((PyObject *)ctx);
}

typedef struct removable {
    PyObject_HEAD PyObject *tensor; /* NULL once removed */
    int64_t id;
} removable;

static int removable_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(((removable *)self)->tensor);
    return 0;
}

static int removable_clear(PyObject *self)
{
    Py_CLEAR(((removable *)self)->tensor);
    return 0;
}

static void removable_dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    removable_clear(self);
    PyObject_GC_Del(self);
}

static PyObject *removable_remove(PyObject *self, PyObject *unused)
{
    (void)unused;
    removable *handle = (removable *)self;
    if (handle->tensor) sp_hook_remove(sp__py_handle(handle->tensor), handle->id);
    Py_CLEAR(handle->tensor);
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
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_dealloc = removable_dealloc,
    .tp_traverse = removable_traverse,
    .tp_clear = removable_clear,
    .tp_methods = removable_methods,
};

typedef sp_status (*add_fn)(sp_tensor *t, sp_hook_fn fn, void *ctx, void (*drop)(void *ctx),
                            int64_t *id);

static PyObject *add_hook(PyObject *self, PyObject *function, const char *op, add_fn add)
{
    if (!PyCallable_Check(function)) {
        sp__py_wrong_type(op, "hook", "callable", function);
        return NULL;
    }
    removable *handle = PyObject_GC_New(removable, &removable_type);
    if (!handle) return NULL;
    handle->tensor = NULL;
    sp_status status =
        add(sp__py_handle(self), run_hook, Py_NewRef(function), drop_hook, &handle->id);
    if (status) {
        Py_DECREF(function);
        PyObject_GC_Del(handle);
        return sp__py_raise(status);
    }
    handle->tensor = Py_NewRef(self);
    sp__py_track(sp__py_handle(self));
    PyObject_GC_Track(handle);
    return (PyObject *)handle;
}

static PyObject *register_hook(PyObject *self, PyObject *function)
{
    return add_hook(self, function, "register_hook", sp_hook_add);
}

static PyObject *register_after(PyObject *self, PyObject *function)
{
    return add_hook(self, function, "register_post_accumulate_grad_hook", sp__hook_add_after);
}

/* ---- backward ----- */

/* None counts as not given. */
static int optional_flag(PyObject *o, const char *op, const char *arg, bool otherwise, bool *out)
{
    *out = otherwise;
    return !o || o == Py_None ? 0 : sp__py_bool(o, op, arg, out);
}

static PyObject *backward(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"gradient", "retain_graph", "create_graph", NULL};
    PyObject *gradient = Py_None, *retain = NULL, *create = NULL;
    sp_backward_opt opt = {.size = sizeof opt};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|OOO:backward", names, &gradient, &retain,
                                     &create))
        return NULL;
    if (optional_flag(create, "backward", "create_graph", false, &opt.create_graph) < 0)
        return NULL;
    if (optional_flag(retain, "backward", "retain_graph", opt.create_graph, &opt.retain_graph) < 0)
        return NULL;
    if (gradient != Py_None &&
        !(opt.gradient = sp__py_tensor_arg(gradient, "backward", "gradient")))
        return NULL;
    return sp__py_none(sp_backward(sp__py_handle(self), &opt));
}

/* ---- spool.autograd.grad ----- */

/* The tensors of one tensor or a sequence, borrowed from *keep; None entries (if allowed) are NULL.
 */
static int tensors_of(PyObject *o, const char *arg, bool allow_none, PyObject **keep,
                      sp_tensor ***out, int *n)
{
    *out = NULL, *n = 0;
    *keep = sp__py_is_tensor(o) || o == Py_None ? PyTuple_Pack(1, o) : PySequence_Tuple(o);
    if (!*keep) {
        PyErr_Clear();
        return sp__py_wrong_type("grad", arg, "a Tensor or a sequence of them", o);
    }
    *n = (int)PyTuple_GET_SIZE(*keep);
    *out = sp__alloc((size_t)*n * sizeof **out);
    if (!*out) {
        PyErr_NoMemory();
        return -1;
    }
    for (int i = 0; i < *n; i++) {
        PyObject *item = PyTuple_GET_ITEM(*keep, i);
        (*out)[i] = allow_none && item == Py_None ? NULL : sp__py_tensor_arg(item, "grad", arg);
        if (!(*out)[i] && !(allow_none && item == Py_None)) return -1;
    }
    return 0;
}

typedef struct tensor_list {
    PyObject *keep;
    sp_tensor **t;
    int n;
} tensor_list;

static void list_end(tensor_list *l)
{
    if (l->t) sp__free(l->t, (size_t)l->n * sizeof *l->t);
    Py_XDECREF(l->keep);
}

static PyObject *run_grad(const tensor_list *roots, const tensor_list *inputs,
                          const sp_grad_opt *opt)
{
    size_t bytes = (size_t)inputs->n * sizeof(sp_tensor *);
    sp_tensor **grads = sp__alloc_zero(bytes);
    if (!grads) return PyErr_NoMemory();
    sp_status status = sp_grad((const sp_tensor *const *)roots->t, roots->n,
                               (const sp_tensor *const *)inputs->t, inputs->n, opt, grads);
    PyObject *result = status ? sp__py_raise(status) : sp__py_tuple(grads, inputs->n);
    sp__free(grads, bytes);
    return result;
}

static PyObject *grad(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"outputs",      "inputs",       "grad_outputs",      "retain_graph",
                            "create_graph", "allow_unused", "materialize_grads", NULL};
    (void)module;
    PyObject *outputs, *inputs, *seeds = Py_None, *retain = NULL, *create = NULL, *unused = NULL,
                                *zeros = NULL, *result = NULL;
    tensor_list roots = {0}, wanted = {0}, given = {0};
    sp_grad_opt opt = {.size = sizeof opt};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|OOOOO:grad", names, &outputs, &inputs,
                                     &seeds, &retain, &create, &unused, &zeros))
        return NULL;
    if (optional_flag(create, "grad", "create_graph", false, &opt.create_graph) < 0) return NULL;
    if (optional_flag(retain, "grad", "retain_graph", opt.create_graph, &opt.retain_graph) < 0)
        return NULL;
    if (optional_flag(zeros, "grad", "materialize_grads", false, &opt.materialize_grads) < 0)
        return NULL;
    if (optional_flag(unused, "grad", "allow_unused", opt.materialize_grads, &opt.allow_unused) < 0)
        return NULL;
    if (tensors_of(outputs, "outputs", false, &roots.keep, &roots.t, &roots.n) < 0) goto out;
    if (tensors_of(inputs, "inputs", false, &wanted.keep, &wanted.t, &wanted.n) < 0) goto out;
    if (seeds != Py_None) {
        if (tensors_of(seeds, "grad_outputs", true, &given.keep, &given.t, &given.n) < 0) goto out;
        if (given.n != roots.n) {
            PyErr_Format(PyExc_ValueError, "grad: %d grad_outputs for %d outputs", given.n,
                         roots.n);
            goto out;
        }
        opt.grad_outputs = (const sp_tensor *const *)given.t;
    }
    result = run_grad(&roots, &wanted, &opt);
out:
    list_end(&roots);
    list_end(&wanted);
    list_end(&given);
    return result;
}

/* ---- leaves ----- */

static PyObject *requires_grad_(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"requires_grad", NULL};
    PyObject *value = Py_True;
    bool on;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:requires_grad_", names, &value)) return NULL;
    if (sp__py_bool(value, "requires_grad_", "requires_grad", &on) < 0) return NULL;
    sp_status status = sp_set_requires_grad(sp__py_handle(self), on);
    return status ? sp__py_raise(status) : Py_NewRef(self);
}

static PyObject *retain_grad(PyObject *self, PyObject *unused)
{
    (void)unused;
    sp_status status = sp__retain_grad(sp__py_handle(self));
    if (status == SP_OK) sp__py_track(sp__py_handle(self));
    return sp__py_none(status);
}

static PyObject *detach_(PyObject *self, PyObject *unused)
{
    (void)unused;
    sp_status status = sp__detach_(sp__py_handle(self));
    return status ? sp__py_raise(status) : Py_NewRef(self);
}

static PyObject *zero_(PyObject *self, PyObject *unused)
{
    (void)unused;
    sp_status status = sp_fill_scalar_(sp__py_handle(self), SP_INT(0));
    return status ? sp__py_raise(status) : Py_NewRef(self);
}

/* ---- tables ----- */

PyMethodDef sp__py_grad_methods[] = {
    {"backward", (PyCFunction)(void *)backward, METH_VARARGS | METH_KEYWORDS,
     "backward($self, gradient=None, retain_graph=None, create_graph=False)\n--\n\nAdds the "
     "derivative of self to the grad of "
     "every leaf it was computed from.\n\ngradient is what the derivative of the final result by "
     "self is; it may be left out for "
     "tensors of one element. SpoolError when self has no history, or its graph was consumed by an "
     "earlier call without "
     "retain_graph."},
    {"register_hook", register_hook, METH_O,
     "register_hook($self, hook)\n--\n\nCalls hook(grad) whenever self's gradient is computed; a "
     "tensor it returns takes the "
     "gradient's place. Returns a handle with remove()."},
    {"register_post_accumulate_grad_hook", register_after, METH_O,
     "register_post_accumulate_grad_hook($self, hook)\n--\n\nCalls hook(self) whenever a backward "
     "has added to a leaf's grad."},
    {"retain_grad", retain_grad, METH_NOARGS,
     "retain_grad($self)\n--\n\nKeeps the gradient of a tensor that is no leaf in grad."},
    {"requires_grad_", (PyCFunction)(void *)requires_grad_, METH_VARARGS | METH_KEYWORDS,
     "requires_grad_($self, requires_grad=True)\n--\n\nSwitches recording for a leaf; returns "
     "self."},
    {"detach_", detach_, METH_NOARGS,
     "detach_($self)\n--\n\nMakes self a leaf without history; returns self."},
    {"zero_", zero_, METH_NOARGS,
     "zero_($self)\n--\n\nSets every element to zero, in place; returns self."},
    {NULL, NULL, 0, NULL},
};

PyMethodDef sp__py_grad_functions[] = {
    {"grad", (PyCFunction)(void *)grad, METH_VARARGS | METH_KEYWORDS,
     "grad(outputs, inputs, grad_outputs=None, retain_graph=None, create_graph=False, "
     "allow_unused=None, "
     "materialize_grads=False)\n--\n\nThe derivatives of the sum of outputs with respect to "
     "inputs, as a tuple.\n\n"
     "grad_outputs weighs the outputs, which may be left out where they have one element. "
     "create_graph records the computation, "
     "so that it can be differentiated again. An input that no output depends on is an error, None "
     "with allow_unused, zeros "
     "with materialize_grads."},
    {NULL, NULL, 0, NULL},
};

int sp__py_grad_start(PyObject *module)
{
    if (PyType_Ready(&node_type) < 0 || PyType_Ready(&removable_type) < 0) return -1;
    if (PyObject_SetAttrString(module, "Node", (PyObject *)&node_type) < 0) return -1;
    return PyObject_SetAttrString(module, "RemovableHandle", (PyObject *)&removable_type);
}
