/* Grad mode: no_grad, enable_grad and set_grad_enabled, as context managers and decorators; and the
 * switch of anomaly mode.
 *
 * One object may be entered several times, recursively, too: `before` is a stack of bits, one an
 * entry.
 */
#include "bindings/python/ext/py_int.h"

enum { MAX_DEPTH = 64 };

typedef struct mode_object {
    PyObject_HEAD bool mode;
    bool set_already; /* set_grad_enabled(mode) acts when it is called; the first `with` has nothing
                         left to do */
    uint8_t depth;
    uint64_t before; /* lowest bit: the mode before the latest entry */
} mode_object;

static PyTypeObject no_grad_type, enable_grad_type, set_grad_enabled_type;

static int push_mode(mode_object *self)
{
    if (self->depth == MAX_DEPTH) {
        PyErr_SetString(PyExc_RecursionError,
                        "grad mode: one context manager entered too many times");
        return -1;
    }
    self->before = self->before << 1 | (uint64_t)sp_grad_mode(self->mode);
    self->depth++;
    return 0;
}

static void pop_mode(mode_object *self)
{
    if (!self->depth) return;
    sp_grad_mode(self->before & 1);
    self->before >>= 1;
    self->depth--;
}

static PyObject *new_mode(PyTypeObject *type, bool mode)
{
    mode_object *self = PyObject_New(mode_object, type);
    if (!self) return NULL;
    self->mode = mode, self->set_already = false, self->depth = 0, self->before = 0;
    return (PyObject *)self;
}

/* ---- as a context manager ----- */

static PyObject *enter(PyObject *object, PyObject *unused)
{
    (void)unused;
    mode_object *self = (mode_object *)object;
    bool set_already = self->set_already;
    self->set_already = false;
    if (!set_already && push_mode(self) < 0) return NULL;
    return Py_NewRef(object);
}

static PyObject *leave(PyObject *object, PyObject *const *args, Py_ssize_t n)
{
    (void)args, (void)n;
    pop_mode((mode_object *)object);
    Py_RETURN_NONE;
}

/* ---- as a decorator ----- */

/* Wraps function; functools is not needed before. */
static PyObject *decorate(bool mode, PyObject *function)
{
    PyObject *module = PyImport_ImportModule("spool._grad_mode");
    if (!module) return NULL;
    PyObject *wrapped =
        PyObject_CallMethod(module, "decorate", "OO", function, mode ? Py_True : Py_False);
    Py_DECREF(module);
    return wrapped;
}

static PyObject *call(PyObject *object, PyObject *args, PyObject *kwargs)
{
    PyObject *function;
    mode_object *self = (mode_object *)object;
    if (kwargs && PyDict_GET_SIZE(kwargs))
        return PyErr_Format(PyExc_TypeError, "grad mode: takes no keyword arguments");
    if (!PyArg_ParseTuple(args, "O:grad mode", &function)) return NULL;
    if (self->set_already) {
        self->set_already = false;
        pop_mode(self);
    }
    return decorate(self->mode, function);
}

/* ---- making one ----- */

static PyObject *make_fixed(PyObject *type, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    bool mode = (PyTypeObject *)type == &enable_grad_type;
    if (n == 0 && !names) return new_mode((PyTypeObject *)type, mode);
    if (n == 1 && !names && PyCallable_Check(args[0])) return decorate(mode, args[0]);
    return PyErr_Format(PyExc_TypeError, "%s: expected nothing, or a function to decorate",
                        ((PyTypeObject *)type)->tp_name);
}

static PyObject *make_fixed_fast(PyObject *type, PyObject *const *args, size_t nargsf,
                                 PyObject *names)
{
    return make_fixed(type, args, PyVectorcall_NARGS(nargsf), names);
}

static PyObject *make_fixed_slow(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    bool named = kwargs && PyDict_GET_SIZE(kwargs);
    return make_fixed((PyObject *)type, &PyTuple_GET_ITEM(args, 0), PyTuple_GET_SIZE(args),
                      named ? kwargs : NULL);
}

static PyObject *make_set(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"mode", NULL};
    PyObject *value;
    bool mode;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O:set_grad_enabled", names, &value))
        return NULL;
    if (sp__py_bool(value, "set_grad_enabled", "mode", &mode) < 0) return NULL;
    mode_object *self = (mode_object *)new_mode(type, mode);
    if (!self) return NULL;
    self->set_already = push_mode(self) == 0;
    return (PyObject *)self;
}

static PyMethodDef mode_methods[] = {
    {"__enter__", enter, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)(void *)leave, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

#define MODE_TYPE(name, doc)                                                                       \
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "spool." name, .tp_doc = doc,                         \
                                .tp_basicsize = sizeof(mode_object),                               \
                                .tp_flags = Py_TPFLAGS_DEFAULT, .tp_methods = mode_methods,        \
                                .tp_call = call

static PyTypeObject no_grad_type = {
    MODE_TYPE("no_grad", "no_grad()\n--\n\nNothing is recorded: `with spool.no_grad():`, or "
                         "`@spool.no_grad()` above a function."
                         "\n\n>>> x = spool.ones(2, requires_grad=True)\n>>> with "
                         "spool.no_grad():\n...     print((x * 2)"
                         ".requires_grad)\nFalse"),
    .tp_new = make_fixed_slow,
    .tp_vectorcall = make_fixed_fast,
};

static PyTypeObject enable_grad_type = {
    MODE_TYPE("enable_grad",
              "enable_grad()\n--\n\nOps are recorded, inside no_grad, too; used like no_grad."),
    .tp_new = make_fixed_slow,
    .tp_vectorcall = make_fixed_fast,
};

static PyTypeObject set_grad_enabled_type = {
    MODE_TYPE("set_grad_enabled", "set_grad_enabled(mode)\n--\n\nSets grad mode at once; as a "
                                  "context manager, sets it back at the "
                                  "end of the block."),
    .tp_new = make_set,
};

/* ---- functions ----- */

static PyObject *grad_mode(PyObject *module, PyObject *on)
{
    (void)module;
    bool value;
    if (sp__py_bool(on, "set_grad_enabled", "mode", &value) < 0) return NULL;
    return PyBool_FromLong(sp_grad_mode(value));
}

static PyObject *is_grad_enabled(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return PyBool_FromLong(!sp__tls.no_grad);
}

static PyObject *anomaly_mode(PyObject *module, PyObject *args)
{
    (void)module;
    int on, check_nan;
    if (!PyArg_ParseTuple(args, "pp:_anomaly_mode", &on, &check_nan)) return NULL;
    int mode = (on ? SP_ANOMALY_ON : 0) | (on && check_nan ? SP_ANOMALY_NAN : 0);
    return PyLong_FromLong(sp__anomaly_mode((uint8_t)mode));
}

PyMethodDef sp__py_mode_functions[] = {
    {"_anomaly_mode", anomaly_mode, METH_VARARGS,
     "_anomaly_mode(on, check_nan)\n--\n\nSwitches anomaly mode for the process."},
    {"_grad_mode", grad_mode, METH_O,
     "_grad_mode(on)\n--\n\nSwitches recording for this thread; returns what it was."},
    {"is_grad_enabled", is_grad_enabled, METH_NOARGS,
     "is_grad_enabled()\n--\n\nWhether this thread records gradients."},
    {NULL, NULL, 0, NULL},
};

int sp__py_mode_start(PyObject *module)
{
    struct {
        const char *name;
        PyTypeObject *type;
    } types[] = {{"no_grad", &no_grad_type},
                 {"enable_grad", &enable_grad_type},
                 {"set_grad_enabled", &set_grad_enabled_type}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (PyType_Ready(types[i].type) < 0) return -1;
        if (PyObject_SetAttrString(module, types[i].name, (PyObject *)types[i].type) < 0) return -1;
    }
    return 0;
}
