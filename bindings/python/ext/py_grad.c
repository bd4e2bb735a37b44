/* The tape in Python: backward, grad, and what leaves are asked to do. */
#include "bindings/python/ext/py_int.h"

#include <string.h>

#include "ops/write.h"
#include "tensor/memory.h"

/* ---- arguments ----- */

/* None counts as not given. */
static int optional_flag(PyObject *o, const char *op, const char *arg, bool otherwise, bool *out)
{
    *out = otherwise;
    return !o || o == Py_None ? 0 : sp__py_bool(o, op, arg, out);
}

/* The tensors of one tensor or a sequence, owned by `keep`; t has NULL for None. */
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

/* GradientEdge(node, output_nr, ...): where a tensor's gradient arrives, instead of the tensor. */
static bool is_edge(PyObject *o)
{
    return PyTuple_Check(o) && PyTuple_GET_SIZE(o) >= 2 && sp__py_is_node(PyTuple_GET_ITEM(o, 0)) &&
           PyLong_Check(PyTuple_GET_ITEM(o, 1));
}

/* A new reference to a tensor whose gradient goes there. */
static PyObject *tensor_at(PyObject *edge)
{
    sp_tensor *t = NULL;
    int nr = (int)PyLong_AsLong(PyTuple_GET_ITEM(edge, 1));
    if (nr == -1 && PyErr_Occurred()) return NULL;
    sp_status status = sp__edge_tensor(sp__py_node_of(PyTuple_GET_ITEM(edge, 0)), nr, &t);
    return sp__py_result(status, t);
}

typedef enum listed { TENSORS, EDGES, OPTIONAL } listed; /* tensors, also edges, also None */

static PyObject *list_item(PyObject *o, const char *op, const char *arg, listed what)
{
    if (what == EDGES && is_edge(o)) return tensor_at(o);
    if (what == OPTIONAL && o == Py_None) return Py_NewRef(o);
    sp_tensor *t = sp__py_tensor_arg(o, op, arg);
    return t ? Py_NewRef(sp__py_object(t)) : NULL;
}

static int list_take(PyObject *o, const char *op, const char *arg, listed what, tensor_list *l)
{
    bool one = sp__py_is_tensor(o) || o == Py_None || is_edge(o);
    PyObject *items = one ? PyTuple_Pack(1, o) : PySequence_Tuple(o);
    if (!items) {
        PyErr_Clear();
        return sp__py_wrong_type(op, arg, "a Tensor or a sequence of them", o);
    }
    int n = (int)PyTuple_GET_SIZE(items);
    l->keep = PyTuple_New(n);
    l->t = sp__alloc_zero((size_t)n * sizeof *l->t);
    l->n = n;
    if (!l->t && l->keep) PyErr_NoMemory();
    bool done = l->keep && l->t;
    for (int i = 0; done && i < n; i++) {
        PyObject *item = list_item(PyTuple_GET_ITEM(items, i), op, arg, what);
        if (!(done = item != NULL)) break;
        PyTuple_SET_ITEM(l->keep, i, item);
        l->t[i] = item == Py_None ? NULL : sp__py_handle(item);
    }
    Py_DECREF(items);
    return done ? 0 : -1;
}

static const sp_tensor *const *borrowed(const tensor_list *l)
{
    return (const sp_tensor *const *)l->t;
}

/* One weight for each of n roots, or none at all. */
static int weights_take(PyObject *o, const char *op, const char *arg, int n, tensor_list *l)
{
    if (!o || o == Py_None) return 0;
    if (list_take(o, op, arg, OPTIONAL, l) < 0) return -1;
    if (l->n == n) return 0;
    PyErr_Format(PyExc_ValueError, "%s: %d %s for %d tensors", op, l->n, arg, n);
    return -1;
}

/* ---- failing ----- */

static void add_note(PyObject *exception, const char *text)
{
    PyObject *old = PyObject_GetAttrString(exception, "__notes__");
    if (!old) PyErr_Clear();
    PyObject *notes = old && PyList_Check(old) ? Py_NewRef(old) : PyList_New(0);
    PyObject *note = PyUnicode_DecodeUTF8(text, (Py_ssize_t)strlen(text), "replace");
    if (!notes || !note || PyList_Append(notes, note) < 0 ||
        PyObject_SetAttrString(exception, "__notes__", notes) < 0)
        PyErr_Clear(); /* the exception itself is what counts */
    Py_XDECREF(note);
    Py_XDECREF(notes);
    Py_XDECREF(old);
}

/* An exception of the user's own stays as it is; in anomaly mode it is given the forward line as a
 * note, where sp_last_error() has it. */
static PyObject *raise_run(sp_status status)
{
    if (status != SP_ECALLBACK || !sp__anomaly_is_on() || !PyErr_Occurred())
        return sp__py_raise(status);
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    PyErr_NormalizeException(&type, &value, &trace);
    if (value) add_note(value, sp_last_error());
    PyErr_Restore(type, value, trace);
    return NULL;
}

/* ---- backward ----- */

static int inputs_take(PyObject *o, tensor_list *l, sp_backward_opt *opt)
{
    if (!o || o == Py_None) return 0;
    if (list_take(o, "backward", "inputs", EDGES, l) < 0) return -1;
    opt->inputs = borrowed(l);
    opt->n_inputs = l->n;
    if (l->n) return 0;
    PyErr_SetString(sp__py_error, "backward: inputs cannot be empty; leave it out for all leaves");
    return -1;
}

typedef struct backward_args {
    PyObject *gradient, *retain, *create, *inputs; /* borrowed; NULL: not given */
} backward_args;

static int backward_options(const backward_args *a, sp_backward_opt *opt)
{
    static const char op[] = "backward";
    *opt = (sp_backward_opt){.size = sizeof *opt};
    if (optional_flag(a->create, op, "create_graph", false, &opt->create_graph) < 0) return -1;
    return optional_flag(a->retain, op, "retain_graph", opt->create_graph, &opt->retain_graph);
}

static PyObject *run_backward(PyObject *tensors, const backward_args *a)
{
    sp_backward_opt opt;
    tensor_list roots = {0}, given = {0}, inputs = {0};
    PyObject *result = NULL;
    if (backward_options(a, &opt) < 0) return NULL;
    if (list_take(tensors, "backward", "tensors", EDGES, &roots) == 0 &&
        weights_take(a->gradient, "backward", "gradients", roots.n, &given) == 0 &&
        inputs_take(a->inputs, &inputs, &opt) == 0) {
        sp_status status =
            sp__backward(borrowed(&roots), given.t ? borrowed(&given) : NULL, roots.n, &opt);
        result = status ? raise_run(status) : Py_NewRef(Py_None);
    }
    list_end(&roots);
    list_end(&given);
    list_end(&inputs);
    return result;
}

static bool is_given(PyObject *o)
{
    return o && o != Py_None;
}

static PyObject *backward(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"gradient", "retain_graph", "create_graph", "inputs", NULL};
    backward_args a = {0};
    sp_backward_opt opt;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|OOOO:backward", names, &a.gradient, &a.retain,
                                     &a.create, &a.inputs))
        return NULL;
    if (is_given(a.inputs)) return run_backward(self, &a);
    if (backward_options(&a, &opt) < 0) return NULL;
    if (is_given(a.gradient) &&
        !(opt.gradient = sp__py_tensor_arg(a.gradient, "backward", "gradient")))
        return NULL;
    sp_status status = sp_backward(sp__py_handle(self), &opt);
    return status ? raise_run(status) : Py_NewRef(Py_None);
}

static PyObject *backward_of(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *tensors;
    backward_args a = {0};
    if (!PyArg_ParseTuple(args, "OOOOO:_backward", &tensors, &a.gradient, &a.retain, &a.create,
                          &a.inputs))
        return NULL;
    return run_backward(tensors, &a);
}

/* ---- spool.autograd.grad ----- */

static PyObject *run_grad(const tensor_list *roots, const tensor_list *inputs,
                          const sp_grad_opt *opt)
{
    size_t bytes = (size_t)inputs->n * sizeof(sp_tensor *);
    sp_tensor **grads = sp__alloc_zero(bytes);
    if (!grads) return PyErr_NoMemory();
    sp_status status = sp_grad(borrowed(roots), roots->n, borrowed(inputs), inputs->n, opt, grads);
    PyObject *result = status ? raise_run(status) : sp__py_tuple(grads, inputs->n);
    sp__free(grads, bytes);
    return result;
}

typedef struct grad_args {
    PyObject *outputs, *inputs, *weights, *retain, *create, *unused, *batched, *zeros;
} grad_args;

static int grad_options(const grad_args *a, sp_grad_opt *opt)
{
    static const char op[] = "grad";
    if (optional_flag(a->create, op, "create_graph", false, &opt->create_graph) < 0 ||
        optional_flag(a->retain, op, "retain_graph", opt->create_graph, &opt->retain_graph) < 0 ||
        optional_flag(a->zeros, op, "materialize_grads", false, &opt->materialize_grads) < 0 ||
        optional_flag(a->unused, op, "allow_unused", opt->materialize_grads, &opt->allow_unused) <
            0)
        return -1;
    if (!opt->materialize_grads || opt->allow_unused) return 0;
    PyErr_SetString(PyExc_ValueError, "grad: materialize_grads=True fills unused inputs with "
                                      "zeros, so that allow_unused=False contradicts it");
    return -1;
}

static PyObject *grad_of_args(const grad_args *a)
{
    tensor_list roots = {0}, inputs = {0}, given = {0};
    sp_grad_opt opt = {.size = sizeof opt};
    PyObject *result = NULL;
    if (grad_options(a, &opt) < 0) return NULL;
    if (list_take(a->outputs, "grad", "outputs", EDGES, &roots) == 0 &&
        list_take(a->inputs, "grad", "inputs", EDGES, &inputs) == 0 &&
        weights_take(a->weights, "grad", "grad_outputs", roots.n, &given) == 0) {
        opt.grad_outputs = given.t ? borrowed(&given) : NULL;
        result = run_grad(&roots, &inputs, &opt);
    }
    list_end(&roots);
    list_end(&inputs);
    list_end(&given);
    return result;
}

/* One backward for all rows of the weights: vmap over this very function, in Python. */
static PyObject *grad_batched(PyObject *args, PyObject *kwargs)
{
    PyObject *module = PyImport_ImportModule("spool.autograd._batched");
    PyObject *function = module ? PyObject_GetAttrString(module, "grad") : NULL;
    PyObject *result = function ? PyObject_Call(function, args, kwargs) : NULL;
    Py_XDECREF(function);
    Py_XDECREF(module);
    return result;
}

static PyObject *grad(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"outputs",
                            "inputs",
                            "grad_outputs",
                            "retain_graph",
                            "create_graph",
                            "allow_unused",
                            "is_grads_batched",
                            "materialize_grads",
                            NULL};
    (void)module;
    grad_args a = {0};
    bool batched;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|OOOOOO:grad", names, &a.outputs, &a.inputs,
                                     &a.weights, &a.retain, &a.create, &a.unused, &a.batched,
                                     &a.zeros))
        return NULL;
    if (optional_flag(a.batched, "grad", "is_grads_batched", false, &batched) < 0) return NULL;
    return batched ? grad_batched(args, kwargs) : grad_of_args(&a);
}

/* ---- edges ----- */

static PyObject *gradient_edge(PyObject *module, PyObject *o)
{
    (void)module;
    sp_node *node;
    int nr;
    sp_tensor *t = sp__py_tensor_arg(o, "get_gradient_edge", "tensor");
    if (!t) return NULL;
    sp_status status = sp__gradient_edge(t, &node, &nr);
    if (status == SP_OK && !node)
        status = sp_fail(SP_EGRAD, "get_gradient_edge: the tensor does not require grad");
    if (status) return sp__py_raise(status);
    PyObject *object = sp__py_node(node);
    return object ? Py_BuildValue("(Ni)", object, nr) : NULL;
}

static PyObject *increment_version(PyObject *module, PyObject *o)
{
    (void)module;
    const sp_tensor *t = sp__py_tensor_arg(o, "increment_version", "tensor");
    if (!t) return NULL;
    while (t->wrap) t = t->wrap->inner;
    sp__written(t->storage, SP_WRITE_BY_OTHERS);
    Py_RETURN_NONE;
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
     "backward($self, gradient=None, retain_graph=None, create_graph=False, "
     "inputs=None)\n--\n\nAdds the derivative of self to the grad of every leaf it was computed "
     "from, or of inputs alone, which need not be leaves.\n\ngradient is what the derivative of "
     "the final result by self is; it may be left out for tensors of one element. SpoolError when "
     "self has no history, or its graph was consumed by an "
     "earlier call without "
     "retain_graph."},
    {"register_hook", sp__py_tensor_hook, METH_O,
     "register_hook($self, hook)\n--\n\nCalls hook(grad) whenever self's gradient is computed; a "
     "tensor it returns takes the "
     "gradient's place. Returns a handle with remove()."},
    {"register_post_accumulate_grad_hook", sp__py_tensor_hook_added, METH_O,
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
     "allow_unused=None, is_grads_batched=False, materialize_grads=False)\n--\n\nThe derivatives "
     "of the sum of outputs with respect to inputs, as a tuple.\n\ngrad_outputs weighs (scales) "
     "the outputs; it may be left out where they have one element. create_graph records the "
     "computation, so that it can be differentiated again; retain_graph keeps what the tape saved "
     "for another run. An input that no output depends on is an error, None with allow_unused, "
     "zeros with materialize_grads. is_grads_batched: each of grad_outputs has one more dimension "
     "in front, and so has each result; all rows run as one batched computation. Outputs and "
     "inputs may also be GradientEdges.\n\n>>> x = spool.tensor([1.0, 2.0], "
     "requires_grad=True)\n>>> spool.autograd.grad(x * x, x, spool.ones(2))\n(tensor([2., "
     "4.]),)\n>>> spool.autograd.grad(x * x, x, spool.eye(2), is_grads_batched=True)\n"
     "(tensor([[2., 0.],\n        [0., 4.]]),)"},
    {"_backward", backward_of, METH_VARARGS,
     "_backward(tensors, gradients, retain_graph, create_graph, inputs)\n--\n\nOne backward from "
     "all tensors."},
    {"_gradient_edge", gradient_edge, METH_O,
     "_gradient_edge(tensor)\n--\n\nThe node that its gradient arrives at, and as which output."},
    {"_increment_version", increment_version, METH_O,
     "_increment_version(tensor)\n--\n\nOne more write in place."},
    {NULL, NULL, 0, NULL},
};
