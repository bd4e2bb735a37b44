/* spool.autograd.Function: a class whose static methods are the callbacks of a custom function.
 * py_function.h says how; py_function_ctx.c has the first argument of most of them.
 */
#include "bindings/python/ext/py_function.h"

#include "autograd/autograd.h"
#include "tensor/memory.h"

/* ---- the base class's methods, to tell which ones a class overrides ----- */

enum { FORWARD, SETUP, BACKWARD, VJP, JVP, VMAP, GENERATE, N_NAMES };
static const char *const method_names[N_NAMES] = {
    "forward", "setup_context", "backward", "vjp", "jvp", "vmap", "generate_vmap_rule"};
static PyObject *names[N_NAMES], *defaults[N_NAMES], *once_name;

/* The class's own method, or NULL: with an exception, or *missing. */
static PyObject *own_method(PyObject *cls, int which, bool *missing)
{
    PyObject *method = PyObject_GetAttr(cls, names[which]);
    *missing = method && method == defaults[which];
    if (*missing) Py_CLEAR(method);
    return method;
}

static int overrides(PyObject *cls, int which)
{
    bool missing;
    PyObject *method = own_method(cls, which, &missing);
    Py_XDECREF(method);
    return method ? 1 : missing ? 0 : -1;
}

/* ---- one application ----- */

static void application_end(sp_py_application *a)
{
    Py_CLEAR(a->cls);
    Py_CLEAR(a->args);
    Py_CLEAR(a->results);
}

static void application_drop(void *ctx)
{
    sp_py_application *a = ctx;
    if (--a->refs > 0) return;
    application_end(a);
    if (a->out_at) sp__free(a->out_at, (size_t)a->n_out * sizeof *a->out_at);
    sp__free(a, sizeof *a + (size_t)a->n_in * sizeof *a->in_at);
}

static sp_py_application *application_new(PyObject *cls, PyObject *args)
{
    int n_args = (int)PyTuple_GET_SIZE(args), n_in = 0;
    for (int i = 0; i < n_args; i++) n_in += sp__py_is_tensor(PyTuple_GET_ITEM(args, i));
    sp_py_application *a = sp__alloc(sizeof *a + (size_t)n_in * sizeof *a->in_at);
    if (!a) return PyErr_NoMemory(), NULL;
    *a = (sp_py_application){
        .refs = 1, .cls = Py_NewRef(cls), .args = Py_NewRef(args), .n_args = n_args, .n_in = n_in};
    for (int i = 0, k = 0; i < n_args; i++)
        if (sp__py_is_tensor(PyTuple_GET_ITEM(args, i))) a->in_at[k++] = i;
    return a;
}

/* model with t[] in its places at[]; NULL entries, and all others where `only`, are None. */
static PyObject *filled(PyObject *model, Py_ssize_t size, const int *at, int n,
                        const sp_tensor *const *t, Py_ssize_t front)
{
    PyObject *tuple = PyTuple_New(front + size);
    for (Py_ssize_t i = 0; tuple && i < size; i++)
        PyTuple_SET_ITEM(tuple, front + i, Py_NewRef(model ? PyTuple_GET_ITEM(model, i) : Py_None));
    for (int k = 0; tuple && k < n; k++) {
        PyObject **item = &PyTuple_GET_ITEM(tuple, front + at[k]), *old = *item;
        *item = Py_NewRef(t[k] ? (PyObject *)t[k] : Py_None);
        Py_DECREF(old);
    }
    return tuple;
}

static PyObject *arguments(const sp_py_application *a, const sp_tensor *const *in, Py_ssize_t front)
{
    return filled(a->args, a->n_args, a->in_at, a->n_in, in, front);
}

/* What forward returned, with out[] in it. */
static PyObject *results(const sp_py_application *a, const sp_tensor *const *out)
{
    PyObject *tuple = filled(a->results, a->n_results, a->out_at, a->n_out, out, 0);
    if (!tuple || !a->single) return tuple;
    PyObject *value = Py_NewRef(PyTuple_GET_ITEM(tuple, 0));
    Py_DECREF(tuple);
    return value;
}

/* ---- results ----- */

/* A list, tuple or dict among the results would carry tensors past the tape. */
static bool hides_tensors(PyObject *o)
{
    Py_ssize_t at = 0;
    PyObject *key, *value;
    if (PyDict_Check(o)) {
        while (PyDict_Next(o, &at, &key, &value))
            if (sp__py_is_tensor(value)) return true;
        return false;
    }
    if (!PyList_Check(o) && !PyTuple_Check(o)) return false;
    for (; at < PySequence_Fast_GET_SIZE(o); at++)
        if (sp__py_is_tensor(PySequence_Fast_GET_ITEM(o, at))) return true;
    return false;
}

static int check_results(const sp_py_application *a, int max_out)
{
    int n = 0;
    for (int i = 0; i < a->n_results; i++) {
        PyObject *item = PyTuple_GET_ITEM(a->results, i);
        n += sp__py_is_tensor(item);
        if (!hides_tensors(item)) continue;
        PyErr_Format(PyExc_TypeError,
                     "%s: forward must return a Tensor or a tuple of them; result %d is a %.100s "
                     "with Tensors in it, which would get no gradients",
                     ((PyTypeObject *)a->cls)->tp_name, i, Py_TYPE(item)->tp_name);
        return -1;
    }
    if (n <= max_out) return n;
    PyErr_Format(PyExc_ValueError, "%s: forward returned %d Tensors, expected at most %d",
                 ((PyTypeObject *)a->cls)->tp_name, n, max_out);
    return -1;
}

/* Takes over what forward or vmap returned; its tensors go to out. */
static int take_results(sp_py_application *a, PyObject *value, sp_tensor **out, int max_out)
{
    a->single = !PyTuple_Check(value);
    a->results = a->single ? PyTuple_Pack(1, value) : Py_NewRef(value);
    Py_DECREF(value);
    if (!a->results) return -1;
    a->n_results = (int)PyTuple_GET_SIZE(a->results);
    int n = check_results(a, max_out);
    if (n < 0) return -1;
    a->out_at = sp__alloc((size_t)n * sizeof *a->out_at);
    if (!a->out_at) return PyErr_NoMemory(), -1;
    a->n_out = n;
    for (int i = 0, j = 0; i < a->n_results; i++) {
        PyObject *item = PyTuple_GET_ITEM(a->results, i);
        if (!sp__py_is_tensor(item)) continue;
        a->out_at[j] = i;
        out[j++] = sp__retain(sp__py_handle(item));
    }
    return 0;
}

/* ---- forward and setup ----- */

static PyObject *call_method(PyObject *cls, int which, PyObject *args)
{
    if (!args) return NULL;
    PyObject *method = PyObject_GetAttr(cls, names[which]);
    PyObject *value = method ? PyObject_Call(method, args, NULL) : NULL;
    Py_XDECREF(method);
    Py_DECREF(args);
    return value;
}

static PyObject *run_forward(sp_py_application *a, sp_function_call *call,
                             const sp_tensor *const *in)
{
    if (a->setup) return call_method(a->cls, FORWARD, arguments(a, in, 0));
    sp_py_ctx *ctx = sp__py_ctx_new(a, call);
    PyObject *args = ctx ? arguments(a, in, 1) : NULL;
    if (!args) return NULL;
    PyTuple_SET_ITEM(args, 0, Py_NewRef((PyObject *)ctx));
    PyObject *value = call_method(a->cls, FORWARD, args);
    if (value && sp__py_ctx_hand_over(ctx) < 0) Py_CLEAR(value);
    return value;
}

static sp_status forward(void *ctx, sp_function_call *call, const sp_tensor *const *in, int n_in,
                         sp_tensor **out, int max_out, int *n_out)
{
    (void)n_in;
    sp_py_application *a = ctx;
    PyObject *value = run_forward(a, call, in);
    if (!value || take_results(a, value, out, max_out) < 0)
        return sp__py_callback_failed("forward");
    *n_out = a->n_out;
    return SP_OK;
}

static sp_status setup(void *ctx, sp_function_call *call, const sp_tensor *const *in, int n_in,
                       const sp_tensor *const *out, int n_out)
{
    (void)n_in, (void)n_out;
    sp_py_application *a = ctx;
    sp_py_ctx *self = sp__py_ctx_new(a, call);
    PyObject *inputs = self ? arguments(a, in, 0) : NULL;
    PyObject *output = inputs ? results(a, out) : NULL;
    PyObject *args = output ? PyTuple_Pack(3, (PyObject *)self, inputs, output) : NULL;
    PyObject *value = call_method(a->cls, SETUP, args);
    Py_XDECREF(inputs);
    Py_XDECREF(output);
    Py_XDECREF(value);
    if (!value || sp__py_ctx_hand_over(self) < 0) return sp__py_callback_failed("setup_context");
    return SP_OK;
}

/* ---- backward and jvp ----- */

/* What a method returned, as a tuple of n values; more are fine if they are None. Takes value. */
static PyObject *returned(PyObject *cls, const char *method, const char *what, PyObject *value,
                          int n)
{
    PyObject *tuple = PyTuple_Check(value) ? Py_NewRef(value) : PyTuple_Pack(1, value);
    Py_DECREF(value);
    if (!tuple) return NULL;
    Py_ssize_t size = PyTuple_GET_SIZE(tuple), used = size;
    while (used > n && PyTuple_GET_ITEM(tuple, used - 1) == Py_None) used--;
    if (size >= n && used == n) return tuple;
    PyErr_Format(sp__py_error, "%s: %s returned %zd %s, expected %d: one for each %s of forward",
                 ((PyTypeObject *)cls)->tp_name, method, size, what, n,
                 strcmp(method, "jvp") ? "argument" : "result");
    Py_DECREF(tuple);
    return NULL;
}

/* Its tensors, which must stand in places at[], into t. Takes tuple. */
static int take_tensors(PyObject *cls, const char *method, PyObject *tuple, const int *at, int n,
                        sp_tensor **t)
{
    int result = 0;
    for (int i = 0, k = 0; i < PyTuple_GET_SIZE(tuple) && result == 0; i++) {
        PyObject *item = PyTuple_GET_ITEM(tuple, i);
        bool tensor = k < n && at[k] == i;
        if (tensor && sp__py_is_tensor(item)) t[k] = sp__retain(sp__py_handle(item));
        k += tensor;
        if (item == Py_None || (tensor && sp__py_is_tensor(item))) continue;
        PyErr_Format(PyExc_TypeError, "%s: %s returned a %.100s at place %d, expected %s",
                     ((PyTypeObject *)cls)->tp_name, method, Py_TYPE(item)->tp_name, i,
                     tensor ? "a Tensor or None" : "None: what stands there is no Tensor");
        result = -1;
    }
    Py_DECREF(tuple);
    return result;
}

/* ctx followed by t[] in its places, None elsewhere. */
static PyObject *with_ctx(sp_py_ctx *ctx, int size, const int *at, int n, const sp_tensor *const *t)
{
    PyObject *args = filled(NULL, size, at, n, t, 1);
    if (args) PyTuple_SET_ITEM(args, 0, Py_NewRef((PyObject *)ctx));
    return args;
}

/* backward or vjp, whichever the class has. */
static int backward_name(PyObject *cls)
{
    int own = overrides(cls, BACKWARD), alias = own < 0 ? -1 : overrides(cls, VJP);
    if (alias < 0) return -1;
    if (own && alias)
        PyErr_Format(sp__py_error,
                     "%s: has both backward and vjp, which are two names of one "
                     "method; define one of them",
                     ((PyTypeObject *)cls)->tp_name);
    return own && alias ? -1 : alias ? VJP : BACKWARD;
}

/* The class of a ctx whose ring the collector has not broken. */
static PyObject *class_of(sp_py_ctx *self)
{
    if (self && self->cls) return self->cls;
    PyErr_SetString(sp__py_error, "Function: the graph was collected as garbage");
    return NULL;
}

static sp_status backward(void *ctx, sp_function_call *call, const sp_tensor *const *gy, int n_out,
                          sp_tensor **gx, int n_in)
{
    const sp_py_application *a = ctx;
    sp_py_ctx *self = sp__py_ctx_of(call);
    PyObject *cls = class_of(self), *value = NULL;
    int which = cls ? backward_name(cls) : -1;
    if (which < 0) return sp__py_callback_failed("backward");
    Py_INCREF(cls);
    value = call_method(cls, which, with_ctx(self, a->n_results, a->out_at, n_out, gy));
    if (value) value = returned(cls, method_names[which], "gradients", value, a->n_args);
    int result = value ? take_tensors(cls, method_names[which], value, a->in_at, n_in, gx) : -1;
    Py_DECREF(cls);
    return result < 0 ? sp__py_callback_failed("backward") : SP_OK;
}

static sp_status jvp(void *ctx, sp_function_call *call, const sp_tensor *const *t, int n_in,
                     sp_tensor **ty, int n_out)
{
    const sp_py_application *a = ctx;
    sp_py_ctx *self = sp__py_ctx_of(call);
    self->in_jvp = self->had_forward;
    PyObject *value = call_method(a->cls, JVP, with_ctx(self, a->n_args, a->in_at, n_in, t));
    self->in_jvp = false;
    if (value) value = returned(a->cls, "jvp", "tangents", value, a->n_results);
    if (!value || take_tensors(a->cls, "jvp", value, a->out_at, n_out, ty) < 0)
        return sp__py_callback_failed("jvp");
    return SP_OK;
}

/* ---- vmap ----- */

static PyTypeObject *info_type;

static PyObject *dims_of(const sp_py_application *a, const int *in_dims)
{
    PyObject *dims = PyTuple_New(a->n_args);
    for (int i = 0, k = 0; dims && i < a->n_args; i++) {
        bool tensor = k < a->n_in && a->in_at[k] == i;
        bool mapped = tensor && in_dims[k] >= 0;
        PyObject *dim = mapped ? PyLong_FromLong(in_dims[k]) : Py_NewRef(Py_None);
        k += tensor;
        if (dim)
            PyTuple_SET_ITEM(dims, i, dim);
        else
            Py_CLEAR(dims);
    }
    return dims;
}

static PyObject *info_of(const sp_vmap_info *info)
{
    PyObject *o = PyStructSequence_New(info_type);
    if (!o) return NULL;
    PyStructSequence_SetItem(o, 0, PyLong_FromLongLong(info->batch_size));
    PyStructSequence_SetItem(o, 1, PyUnicode_FromString(info->randomness));
    return o;
}

static PyObject *vmap_arguments(const sp_py_application *a, const sp_vmap_info *info,
                                const sp_tensor *const *in, const int *in_dims)
{
    PyObject *about = info_of(info), *dims = about ? dims_of(a, in_dims) : NULL;
    PyObject *args = dims ? arguments(a, in, 2) : NULL;
    if (!args) {
        Py_XDECREF(about);
        Py_XDECREF(dims);
        return NULL;
    }
    PyTuple_SET_ITEM(args, 0, about);
    PyTuple_SET_ITEM(args, 1, dims);
    return args;
}

/* One entry of out_dims: -1 for None. */
static int dim_from(PyObject *o, const sp_tensor *t, int *out)
{
    int64_t dim;
    *out = -1;
    if (o == Py_None) return 0;
    if (sp__py_int(o, "vmap", "out_dims", &dim) < 0) return -1;
    *out = (int)(dim < 0 ? dim + t->rank : dim);
    if (*out >= 0 && *out < t->rank) return 0;
    PyErr_Format(PyExc_IndexError, "vmap: out_dims has %lld for a result of shape %s",
                 (long long)dim, SP_SHAPE(t));
    return -1;
}

static int dims_from(const sp_py_application *a, PyObject *dims, sp_tensor *const *out,
                     int *out_dims)
{
    bool each = PyTuple_Check(dims);
    if (each && PyTuple_GET_SIZE(dims) != (a->single ? 1 : a->n_results)) {
        PyErr_Format(PyExc_ValueError, "%s: vmap returned %zd out_dims for %d results",
                     ((PyTypeObject *)a->cls)->tp_name, PyTuple_GET_SIZE(dims), a->n_results);
        return -1;
    }
    for (int j = 0; j < a->n_out; j++) {
        PyObject *dim = each ? PyTuple_GET_ITEM(dims, a->out_at[j]) : dims;
        if (dim_from(dim, out[j], &out_dims[j]) < 0) return -1;
    }
    return 0;
}

static sp_status vmap(void *ctx, const sp_vmap_info *info, const sp_tensor *const *in,
                      const int *in_dims, int n_in, sp_tensor **out, int *out_dims, int max_out,
                      int *n_out)
{
    (void)n_in;
    sp_py_application *a = ctx;
    PyObject *pair = call_method(a->cls, VMAP, vmap_arguments(a, info, in, in_dims));
    if (!pair) return sp__py_callback_failed("vmap");
    int result = -1;
    if (!PyTuple_Check(pair) || PyTuple_GET_SIZE(pair) != 2)
        PyErr_Format(PyExc_TypeError, "%s: vmap must return (output, out_dims)",
                     ((PyTypeObject *)a->cls)->tp_name);
    else
        result = take_results(a, Py_NewRef(PyTuple_GET_ITEM(pair, 0)), out, max_out);
    if (result == 0) result = dims_from(a, PyTuple_GET_ITEM(pair, 1), out, out_dims);
    *n_out = a->n_out;
    Py_DECREF(pair);
    return result < 0 ? sp__py_callback_failed("vmap") : SP_OK;
}

/* ---- apply ----- */

static bool is_once(PyObject *cls, int which)
{
    PyObject *method = PyObject_GetAttr(cls, names[which]);
    PyObject *dict =
        method && PyFunction_Check(method) ? ((PyFunctionObject *)method)->func_dict : NULL;
    bool once = dict && PyDict_GetItemWithError(dict, once_name) == Py_True;
    Py_XDECREF(method);
    return once;
}

/* The core's function for a class; -1 with an exception. */
static int describe(PyObject *cls, sp_function *fn)
{
    PyObject *generate = PyObject_GetAttr(cls, names[GENERATE]);
    int own_setup = overrides(cls, SETUP), own_jvp = overrides(cls, JVP),
        own_vmap = overrides(cls, VMAP), truth = generate ? PyObject_IsTrue(generate) : -1;
    Py_XDECREF(generate);
    if (own_setup < 0 || own_jvp < 0 || own_vmap < 0 || truth < 0) return -1;
    if (truth && own_vmap) {
        PyErr_Format(sp__py_error, "%s: has a vmap and generate_vmap_rule = True; leave out one",
                     ((PyTypeObject *)cls)->tp_name);
        return -1;
    }
    *fn = (sp_function){.size = sizeof *fn,
                        .name = ((PyTypeObject *)cls)->tp_name,
                        .forward = forward,
                        .setup = own_setup ? setup : NULL,
                        .backward = backward,
                        .jvp = own_jvp ? jvp : NULL,
                        .vmap = own_vmap ? vmap : NULL,
                        .drop = application_drop,
                        .generate_vmap = truth,
                        .once_differentiable = is_once(cls, BACKWARD) || is_once(cls, VJP)};
    if (PyErr_Occurred()) return -1;
    return 0;
}

static PyObject *take_out(sp_py_application *a, sp_tensor **out, int n_out)
{
    PyObject *value = results(a, (const sp_tensor *const *)out);
    for (int j = 0; j < n_out; j++) {
        if (sp_requires_grad(out[j])) sp__py_show(out[j]);
        sp_drop(&out[j]);
    }
    return value;
}

static PyObject *apply_to(PyObject *cls, PyObject *args, const sp_function *fn)
{
    enum { ROOM = 8 };
    sp_tensor *out[SP_FUNCTION_MAX_OUT];
    const sp_tensor *room[ROOM], **in = room;
    PyObject *value = NULL;
    int n_out = 0;
    sp_py_application *a = application_new(cls, args);
    if (!a) return NULL;
    size_t bytes = (size_t)a->n_in * sizeof *in;
    if (a->n_in > ROOM && !(in = sp__alloc(bytes))) {
        PyErr_NoMemory();
    } else {
        a->setup = fn->setup != NULL;
        a->refs++; /* the core's */
        for (int k = 0; k < a->n_in; k++)
            in[k] = sp__py_handle(PyTuple_GET_ITEM(args, a->in_at[k]));
        sp_status status = sp_function_apply(fn, a, in, a->n_in, out, SP_FUNCTION_MAX_OUT, &n_out);
        value = status ? sp__py_raise(status) : take_out(a, out, n_out);
    }
    if (in && in != room) sp__free(in, bytes);
    application_end(a);
    application_drop(a);
    return value;
}

/* Keywords, and defaults of forward's parameters that were not given: Python's inspect knows. */
static PyObject *bound(PyObject *cls, PyObject *const *args, Py_ssize_t n, PyObject *keywords)
{
    PyObject *module = PyImport_ImportModule("spool.autograd.function");
    PyObject *bind = module ? PyObject_GetAttrString(module, "_bind") : NULL;
    Py_XDECREF(module);
    if (!bind) return NULL;
    PyObject *tuple = PyTuple_New(n), *names_given = PyDict_New(), *result = NULL;
    for (Py_ssize_t i = 0; tuple && i < n; i++) PyTuple_SET_ITEM(tuple, i, Py_NewRef(args[i]));
    for (Py_ssize_t k = 0; names_given && keywords && k < PyTuple_GET_SIZE(keywords); k++)
        if (PyDict_SetItem(names_given, PyTuple_GET_ITEM(keywords, k), args[n + k]) < 0)
            Py_CLEAR(names_given);
    if (tuple && names_given)
        result = PyObject_CallFunctionObjArgs(bind, cls, tuple, names_given, NULL);
    Py_XDECREF(tuple);
    Py_XDECREF(names_given);
    Py_DECREF(bind);
    return result;
}

/* Whether forward, which takes no ctx, has parameters beyond the n that are given. */
static bool takes_more(PyObject *cls, Py_ssize_t n)
{
    PyObject *method = PyObject_GetAttr(cls, names[FORWARD]);
    if (!method) PyErr_Clear();
    bool more = method && PyFunction_Check(method) &&
                ((PyCodeObject *)PyFunction_GET_CODE(method))->co_argcount > n;
    Py_XDECREF(method);
    return more;
}

static PyObject *apply(PyObject *cls, PyObject *const *args, Py_ssize_t n, PyObject *keywords)
{
    sp_function fn;
    bool named = keywords && PyTuple_GET_SIZE(keywords);
    if (describe(cls, &fn) < 0) return NULL;
    if (named && !fn.setup)
        return PyErr_Format(PyExc_TypeError,
                            "%s.apply: keyword arguments need a setup_context; forward(ctx, ...) "
                            "takes positional ones",
                            fn.name);
    PyObject *tuple;
    if (named || (fn.setup && takes_more(cls, n))) {
        tuple = bound(cls, args, n, keywords);
    } else {
        tuple = PyTuple_New(n);
        for (Py_ssize_t i = 0; tuple && i < n; i++) PyTuple_SET_ITEM(tuple, i, Py_NewRef(args[i]));
    }
    PyObject *value = tuple ? apply_to(cls, tuple, &fn) : NULL;
    Py_XDECREF(tuple);
    return value;
}

static PyObject *set_base(PyObject *module, PyObject *cls)
{
    (void)module;
    for (int i = 0; i < N_NAMES; i++) {
        PyObject *method = PyObject_GetAttr(cls, names[i]);
        if (!method) return NULL;
        Py_XSETREF(defaults[i], method);
    }
    Py_RETURN_NONE;
}

static PyMethodDef base_methods[] = {
    {"apply", (PyCFunction)(void *)apply, METH_FASTCALL | METH_KEYWORDS | METH_CLASS,
     "apply($type, *args, **kwargs)\n--\n\nThe function on these arguments: what forward returns, "
     "with backward as its derivative."},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject base_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "spool._C.FunctionBase",
    .tp_doc = "What spool.autograd.Function is made of.",
    .tp_basicsize = sizeof(PyObject),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .tp_methods = base_methods,
    .tp_new = PyType_GenericNew,
};

PyMethodDef sp__py_function_functions[] = {
    {"_function_base", set_base, METH_O,
     "_function_base(cls)\n--\n\nMakes cls's methods those that count as not defined."},
    {NULL, NULL, 0, NULL},
};

int sp__py_function_start(PyObject *module)
{
    static PyStructSequence_Field fields[] = {
        {"batch_size", "How many examples are mapped over."},
        {"randomness", "What random numbers do: 'error', 'different' or 'same'."},
        {NULL, NULL},
    };
    static PyStructSequence_Desc info = {"spool.autograd.function.VmapInfo",
                                         "What Function.vmap is told.", fields, 2};
    for (int i = 0; i < N_NAMES; i++)
        if (!(names[i] = PyUnicode_InternFromString(method_names[i]))) return -1;
    if (!(once_name = PyUnicode_InternFromString("_once_differentiable"))) return -1;
    if (!(info_type = PyStructSequence_NewType(&info))) return -1;
    if (sp__py_ctx_start(module) < 0 || PyType_Ready(&base_type) < 0) return -1;
    if (PyObject_SetAttrString(module, "VmapInfo", (PyObject *)info_type) < 0) return -1;
    return PyObject_SetAttrString(module, "FunctionBase", (PyObject *)&base_type);
}
