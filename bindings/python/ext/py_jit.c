/* spool.jit's callable: enters a region, calls the function, leaves.
 *
 * Invariants
 * 1. A call costs one type's vectorcall more than the function itself: no frame, no tuple, nothing
 *    on tracebacks.
 * 2. Leaving happens whatever the function did. Its exception wins over one of leaving.
 */
#include "bindings/python/ext/py.h"

#include "jit/jit.h"

typedef struct jit_function {
    PyObject_HEAD vectorcallfunc vectorcall;
    PyObject *fn, *dict, *weakrefs;
    sp_jit *jit;
} jit_function;

static PyTypeObject jit_function_type;

/* ---- calling ----- */

static PyObject *leave_failed(sp_jit_frame *frame)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    (void)!sp__jit_leave(frame, true);
    PyErr_Restore(type, value, traceback);
    return NULL;
}

static PyObject *call(PyObject *self, PyObject *const *args, size_t n_args, PyObject *names)
{
    jit_function *f = (jit_function *)self;
    sp_jit_frame frame;
    sp_status status = sp__jit_enter(f->jit, &frame);
    if (SP_UNLIKELY(status != SP_OK)) return sp__py_raise(status);
    PyObject *result = PyObject_Vectorcall(f->fn, args, n_args, names);
    if (SP_UNLIKELY(!result)) return leave_failed(&frame);
    status = sp__jit_leave(&frame, false);
    if (SP_LIKELY(status == SP_OK)) return result;
    Py_DECREF(result);
    return sp__py_raise(status);
}

/* ---- life ----- */

static PyObject *make(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"fn", "name", NULL};
    PyObject *fn;
    const char *name = "function";
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|s:JitFunction", names, &fn, &name))
        return NULL;
    if (!PyCallable_Check(fn))
        return PyErr_Format(PyExc_TypeError, "jit: fn must be callable, not %.100s",
                            Py_TYPE(fn)->tp_name);
    jit_function *f = (jit_function *)type->tp_alloc(type, 0);
    if (!f) return NULL;
    f->vectorcall = call;
    Py_INCREF(fn);
    f->fn = fn;
    sp_status status = sp__jit_new(name, &f->jit);
    if (status == SP_OK) return (PyObject *)f;
    Py_DECREF(f);
    return sp__py_raise(status);
}

static int traverse(PyObject *self, visitproc visit, void *arg)
{
    jit_function *f = (jit_function *)self;
    Py_VISIT(f->fn);
    Py_VISIT(f->dict);
    return 0;
}

static int clear(PyObject *self)
{
    jit_function *f = (jit_function *)self;
    Py_CLEAR(f->fn);
    Py_CLEAR(f->dict);
    return 0;
}

static void dealloc(PyObject *self)
{
    jit_function *f = (jit_function *)self;
    PyObject_GC_UnTrack(self);
    if (f->weakrefs) PyObject_ClearWeakRefs(self);
    clear(self);
    sp__jit_drop(f->jit);
    Py_TYPE(self)->tp_free(self);
}

/* ---- being a function ----- */

static PyObject *bind(PyObject *self, PyObject *object, PyObject *type)
{
    (void)type;
    if (object && object != Py_None) return PyMethod_New(self, object);
    Py_INCREF(self);
    return self;
}

static PyObject *repr(PyObject *self)
{
    return PyUnicode_FromFormat("<spool.jit of %R>", ((jit_function *)self)->fn);
}

static PyGetSetDef getset[] = {
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyTypeObject jit_function_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "spool._C.JitFunction",
    .tp_doc = "A function whose tensor work is followed and run in compiled regions.",
    .tp_basicsize = sizeof(jit_function),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL |
                Py_TPFLAGS_METHOD_DESCRIPTOR,
    .tp_new = make,
    .tp_dealloc = dealloc,
    .tp_traverse = traverse,
    .tp_clear = clear,
    .tp_call = PyVectorcall_Call,
    .tp_vectorcall_offset = offsetof(jit_function, vectorcall),
    .tp_dictoffset = offsetof(jit_function, dict),
    .tp_weaklistoffset = offsetof(jit_function, weakrefs),
    .tp_descr_get = bind,
    .tp_repr = repr,
    .tp_getset = getset,
};

/* ---- what is known ----- */

static PyObject *reasons(const sp_jit *jit)
{
    PyObject *list = PyList_New(0);
    for (int i = 0; list && i < jit->n_reasons; i++) {
        PyObject *text = PyUnicode_FromString(jit->reasons[i]);
        if (!text || PyList_Append(list, text) < 0) Py_CLEAR(list);
        Py_XDECREF(text);
    }
    return list;
}

static PyObject *explained(const sp_jit *jit)
{
    sp_explanation e;
    char *text = NULL, *ir = NULL;
    PyObject *result = NULL, *why = reasons(jit);
    sp_status status = SP_OK;
    SP_TRY(sp__jit_text(jit, false, &text));
    SP_TRY(sp__jit_text(jit, true, &ir));
    sp__jit_explain(jit, &e);
    if (why)
        result = Py_BuildValue("{s:i,s:L,s:L,s:L,s:i,s:L,s:O,s:s,s:s}", "graphs", (int)e.graphs,
                               "ops", (long long)e.ops, "compiled_ops", (long long)e.compiled_ops,
                               "breaks", (long long)e.breaks, "rebuilds", (int)e.rebuilds, "calls",
                               (long long)e.calls, "reasons", why, "text", text, "ir", ir);
out:
    if (text) sp_text_free(text);
    if (ir) sp_text_free(ir);
    Py_XDECREF(why);
    return status == SP_OK ? result : sp__py_raise(status);
}

static PyObject *jit_explain(PyObject *module, PyObject *fn)
{
    (void)module;
    if (Py_TYPE(fn) != &jit_function_type)
        return PyErr_Format(PyExc_TypeError,
                            "explain: fn must come from spool.jit, not be a %.100s",
                            Py_TYPE(fn)->tp_name);
    return explained(((jit_function *)fn)->jit);
}

static PyObject *hot_set(PyObject *module, PyObject *on)
{
    (void)module;
    int truth = PyObject_IsTrue(on);
    return truth < 0 ? NULL : PyBool_FromLong(sp__hot_set(truth));
}

PyMethodDef sp__py_jit_functions[] = {
    {"jit_explain", jit_explain, METH_O, "What became of a jitted function, as a dict."},
    {"hot_set", hot_set, METH_O,
     "Switches the search for hot regions on this thread; returns what it was."},
    {NULL, NULL, 0, NULL},
};

int sp__py_jit_start(PyObject *module)
{
    if (PyType_Ready(&jit_function_type) < 0) return -1;
    Py_INCREF(&jit_function_type);
    if (PyModule_AddObject(module, "JitFunction", (PyObject *)&jit_function_type) == 0) return 0;
    Py_DECREF(&jit_function_type);
    return -1;
}
