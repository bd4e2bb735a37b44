/* Functions of the package's Python layer whose frames do not show in tracebacks: these end at the
 * user's line.
 *
 * boundary(function) is called like function. When it raises, the traceback's entries for files of
 * the package are taken out; those of the user's own functions, called back from it, stay.
 */
#include "bindings/python/ext/py_int.h"

#include <frameobject.h>
#include <structmember.h>

typedef struct boundary {
    PyObject_HEAD PyObject *function, *dict, *weak;
    vectorcallfunc call;
} boundary;

static bool entry_is_ours(PyTracebackObject *entry)
{
    PyCodeObject *code = PyFrame_GetCode(entry->tb_frame);
    bool ours = sp__py_is_ours(code);
    Py_DECREF(code);
    return ours;
}

/* A new reference to the first entry that is kept; entries behind it are relinked. */
static PyTracebackObject *without_ours(PyTracebackObject *entry)
{
    PyTracebackObject *first = NULL, *last = NULL;
    for (; entry; entry = entry->tb_next) {
        if (entry_is_ours(entry)) continue;
        if (!last)
            first = (PyTracebackObject *)Py_NewRef((PyObject *)entry);
        else if (last->tb_next != entry) {
            PyTracebackObject *skipped = last->tb_next;
            last->tb_next = (PyTracebackObject *)Py_NewRef((PyObject *)entry);
            /* `entry` keeps the rest alive, whatever this frees. */
            Py_XDECREF((PyObject *)skipped);
        }
        last = entry;
    }
    if (last) Py_CLEAR(last->tb_next);
    return first;
}

static void trim_traceback(void)
{
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    if (trace && PyTraceBack_Check(trace)) {
        PyObject *kept = (PyObject *)without_ours((PyTracebackObject *)trace);
        Py_DECREF(trace);
        trace = kept;
        if (value && PyExceptionInstance_Check(value))
            PyException_SetTraceback(value, trace ? trace : Py_None);
    }
    PyErr_Restore(type, value, trace);
}

static PyObject *boundary_call(PyObject *self, PyObject *const *args, size_t nargsf,
                               PyObject *names)
{
    PyObject *result = PyObject_Vectorcall(((boundary *)self)->function, args, nargsf, names);
    if (!result) trim_traceback();
    return result;
}

static PyObject *boundary_get(PyObject *self, PyObject *instance, PyObject *owner)
{
    (void)owner;
    return instance && instance != Py_None ? PyMethod_New(self, instance) : Py_NewRef(self);
}

static int boundary_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(((boundary *)self)->function);
    Py_VISIT(((boundary *)self)->dict);
    return 0;
}

static int boundary_clear(PyObject *self)
{
    Py_CLEAR(((boundary *)self)->function);
    Py_CLEAR(((boundary *)self)->dict);
    return 0;
}

static void boundary_dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    if (((boundary *)self)->weak) PyObject_ClearWeakRefs(self);
    boundary_clear(self);
    PyObject_GC_Del(self);
}

static PyObject *boundary_repr(PyObject *self)
{
    return PyObject_Repr(((boundary *)self)->function);
}

static PyMemberDef boundary_members[] = {
    {"__wrapped__", T_OBJECT, offsetof(boundary, function), READONLY, NULL},
    {"__dict__", T_OBJECT, offsetof(boundary, dict), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyTypeObject boundary_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "spool._C.boundary_function",
    .tp_basicsize = sizeof(boundary),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL |
                Py_TPFLAGS_METHOD_DESCRIPTOR,
    .tp_vectorcall_offset = offsetof(boundary, call),
    .tp_call = PyVectorcall_Call,
    .tp_dealloc = boundary_dealloc,
    .tp_traverse = boundary_traverse,
    .tp_clear = boundary_clear,
    .tp_repr = boundary_repr,
    .tp_members = boundary_members,
    .tp_descr_get = boundary_get,
    .tp_getattro = PyObject_GenericGetAttr,
    .tp_setattro = PyObject_GenericSetAttr,
    .tp_dictoffset = offsetof(boundary, dict),
    .tp_weaklistoffset = offsetof(boundary, weak),
};

/* What help() and inspect look at. */
static int copy_names(PyObject *function, PyObject *self)
{
    static const char *const names[] = {"__name__", "__qualname__", "__module__", "__doc__"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        PyObject *value = PyObject_GetAttrString(function, names[i]);
        if (!value)
            PyErr_Clear(); /* a callable object may lack it */
        else if (PyDict_SetItemString(((boundary *)self)->dict, names[i], value) < 0) {
            Py_DECREF(value);
            return -1;
        }
        Py_XDECREF(value);
    }
    return 0;
}

static PyObject *make_boundary(PyObject *module, PyObject *function)
{
    (void)module;
    boundary *self = PyObject_GC_New(boundary, &boundary_type);
    if (!self) return NULL;
    self->function = Py_NewRef(function);
    self->weak = NULL;
    self->call = boundary_call;
    self->dict = PyDict_New();
    PyObject_GC_Track(self);
    if (!self->dict || copy_names(function, (PyObject *)self) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

PyMethodDef sp__py_boundary_functions[] = {
    {"_boundary", make_boundary, METH_O,
     "_boundary(function)\n--\n\nfunction, without the package's own frames in the tracebacks of "
     "what it raises."},
    {NULL, NULL, 0, NULL},
};

int sp__py_boundary_start(PyObject *module)
{
    (void)module;
    return PyType_Ready(&boundary_type);
}
