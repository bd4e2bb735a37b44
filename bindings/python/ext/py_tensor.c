/* The Tensor type: a handle that is its own Python object.
 *
 *     block:  [ GC head, 16 bytes | refs type | ... geometry ... | binding[0] = __dict__,
 * binding[1] = weak references ] ^ sp_tensor * == PyObject *
 *
 * Invariants
 * 1. Blocks come from and return to Spool's free list. The type has Py_TPFLAGS_HAVE_GC, and the
 * zeroed head says "untracked"; sp__py_track() and PyObject_GC_UnTrack() are all the collector's
 * list ever sees of it.
 * 2. An instance of a Python subclass has the same size (slots are refused), differs in ob_type
 * alone, and holds a reference to its class; CPython's subtype_dealloc gives that back after
 * calling tensor_dealloc().
 * 3. tensor_traverse() visits only references that this handle owns.
 */
#include "bindings/python/ext/py_int.h"

#include "autograd/autograd.h"

#ifndef Py_GIL_DISABLED
_Static_assert(offsetof(sp_tensor, refs) == offsetof(PyObject, ob_refcnt),
               "a handle starts like a PyObject");
_Static_assert(offsetof(sp_tensor, type) == offsetof(PyObject, ob_type),
               "a handle starts like a PyObject");
_Static_assert(offsetof(sp_tensor, dtype) == sizeof(PyObject), "a handle starts like a PyObject");
#endif

enum { GC_HEAD_BYTES = 16 };

/* ---- life ----- */

static inline bool is_tracked(PyObject *self)
{
    return ((uintptr_t *)self)[-2] != 0; /* _gc_next */
}

void sp__py_track(sp_tensor *t)
{
    PyObject *self = sp__py_object(t);
    if (!is_tracked(self)) PyObject_GC_Track(self);
}

static void tensor_dealloc(PyObject *self)
{
    sp_tensor *t = sp__py_handle(self);
    if (SP_UNLIKELY(is_tracked(self))) PyObject_GC_UnTrack(self);
    if (SP_UNLIKELY(t->binding[1] != NULL)) PyObject_ClearWeakRefs(self);
    if (SP_UNLIKELY(t->binding[0] != NULL)) Py_CLEAR(*(PyObject **)&t->binding[0]);
    sp__handle_free(t);
}

/* What sp_drop() calls at zero: subclasses end in tensor_dealloc() by way of CPython's
 * subtype_dealloc(). */
static void handle_dealloc(sp_tensor *t)
{
    if (SP_LIKELY(t->type == &sp__py_tensor_type))
        tensor_dealloc(sp__py_object(t));
    else
        Py_TYPE(sp__py_object(t))->tp_dealloc(sp__py_object(t));
}

static int tensor_traverse(PyObject *self, visitproc visit, void *arg)
{
    sp_tensor *t = sp__py_handle(self);
    Py_VISIT((PyObject *)t->binding[0]);
    return t->grad_meta ? sp__py_grad_traverse(t, visit, arg) : 0;
}

static int tensor_clear(PyObject *self)
{
    sp_tensor *t = sp__py_handle(self);
    Py_CLEAR(*(PyObject **)&t->binding[0]);
    if (t->grad_meta) sp__py_grad_clear(t);
    return 0;
}

int sp__py_retype(sp_tensor *t, PyTypeObject *type)
{
    if (type->tp_basicsize != sp__py_tensor_type.tp_basicsize || type->tp_itemsize) {
        PyErr_Format(PyExc_TypeError, "%s: a subclass of Tensor cannot have __slots__",
                     type->tp_name);
        return -1;
    }
    if (type != &sp__py_tensor_type) {
        Py_INCREF(type);
        t->type = type;
    }
    return 0;
}

/* Tensor(data) takes a tensor's values without copying them, and copies anything else, as
 * spool.tensor() does. */
static PyObject *tensor_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *data = NULL;
    if (!PyArg_ParseTuple(args, "|O:Tensor", &data)) return NULL;
    if (kwargs && PyDict_GET_SIZE(kwargs) && type == &sp__py_tensor_type)
        return PyErr_Format(PyExc_TypeError,
                            "Tensor: takes no keyword arguments; spool.tensor() does");
    sp_tensor *t = NULL;
    static const int64_t empty[1] = {0};
    if (!data) {
        sp_status status = sp_from_data("", SP_FLOAT32, 1, empty, &t);
        if (status) return sp__py_raise(status);
    } else if (sp__py_is_tensor(data)) {
        sp_status status = sp_detach(sp__py_handle(data), &t);
        if (status) return sp__py_raise(status);
    } else if (sp__py_tensor_of(data, NULL, "Tensor", &t) < 0) {
        return NULL;
    }
    if (sp__py_retype(t, type) < 0) sp_drop(&t);
    return sp__py_object(t);
}

/* ---- attributes of instances ----- */

static int tensor_setattro(PyObject *self, PyObject *name, PyObject *value)
{
    int result = PyObject_GenericSetAttr(self, name, value);
    if (sp__py_handle(self)->binding[0]) sp__py_track(sp__py_handle(self));
    return result;
}

static PyObject *get_dict(PyObject *self, void *unused)
{
    PyObject *dict = PyObject_GenericGetDict(self, unused);
    if (dict) sp__py_track(sp__py_handle(self));
    return dict;
}

static int set_dict(PyObject *self, PyObject *value, void *unused)
{
    int result = PyObject_GenericSetDict(self, value, unused);
    if (result == 0) sp__py_track(sp__py_handle(self));
    return result;
}

/* ---- numbers ----- */

static int item_of(PyObject *self, sp_scalar *out)
{
    if (SP_UNLIKELY(sp__dtype_is_complex(sp__py_handle(self)->dtype))) {
        PyErr_Format(PyExc_TypeError, "a %s tensor is no real number; take .real, .imag or .abs()",
                     sp_dtype_name((sp_dtype)sp__py_handle(self)->dtype));
        return -1;
    }
    sp_status status = sp_item(sp__py_handle(self), out);
    if (status == SP_OK) return 0;
    sp__py_raise(status);
    return -1;
}

static int tensor_bool(PyObject *self)
{
    sp_scalar value;
    if (sp__py_handle(self)->numel != 1) {
        PyErr_Format(sp__py_shape_error,
                     "bool: the truth of a tensor of shape %s is ambiguous; compare and reduce it "
                     "to one element first",
                     SP_SHAPE(sp__py_handle(self)));
        return -1;
    }
    if (sp__dtype_is_complex(sp__py_handle(self)->dtype)) {
        sp_element room;
        double part[2];
        sp_status status = sp_copy_out(sp__py_handle(self), &room, sizeof room);
        if (status) return sp__py_raise(status), -1;
        sp__complex_from(&room, sp__py_handle(self)->dtype, part);
        return part[0] != 0 || part[1] != 0;
    }
    if (item_of(self, &value) < 0) return -1;
    return value.kind == SP_FLOAT64 ? value.v.f != 0 : value.v.i != 0;
}

static PyObject *tensor_float(PyObject *self)
{
    sp_scalar value;
    if (item_of(self, &value) < 0) return NULL;
    return PyFloat_FromDouble(value.kind == SP_FLOAT64 ? value.v.f : (double)value.v.i);
}

static PyObject *tensor_int(PyObject *self)
{
    sp_scalar value;
    if (item_of(self, &value) < 0) return NULL;
    return value.kind == SP_FLOAT64 ? PyLong_FromDouble(value.v.f) : PyLong_FromLongLong(value.v.i);
}

static PyObject *tensor_index(PyObject *self)
{
    sp_tensor *t = sp__py_handle(self);
    if (sp__dtype_is_inexact(t->dtype) || t->numel != 1)
        return PyErr_Format(
            PyExc_TypeError,
            "a %s tensor of shape %s is no index; only integer tensors of one element are",
            sp_dtype_name(t->dtype), SP_SHAPE(t));
    return tensor_int(self);
}

static PyNumberMethods tensor_number = {.nb_bool = tensor_bool,
                                        .nb_float = tensor_float,
                                        .nb_int = tensor_int,
                                        .nb_index = tensor_index};

/* ---- text ----- */

static const char *level_name(int kind)
{
    switch (kind) {
    case SP_LEVEL_JVP: return "jvp";
    case SP_LEVEL_VMAP: return "vmap";
    case SP_LEVEL_JET: return "jet";
    default: return "grad";
    }
}

static PyObject *wrapped_repr(const sp_tensor *t)
{
    return PyUnicode_FromFormat("%s_tensor(level=%llu, shape=%s, value=%R)",
                                level_name(t->wrap->kind), (unsigned long long)t->wrap->level_id,
                                SP_SHAPE(t), t->wrap->inner);
}

/* sp_to_text() knows no history: where there is one, its node stands in place of requires_grad. */
static PyObject *text_with_history(char *text, const char *name)
{
    static const char flag[] = ", requires_grad=True)";
    size_t n = strlen(text), n_flag = sizeof flag - 1;
    if (!name[0]) return PyUnicode_FromString(text);
    if (n > n_flag && strcmp(text + n - n_flag, flag) == 0)
        text[n - n_flag] = 0;
    else if (n)
        text[n - 1] = 0;
    return PyUnicode_FromFormat("%s, grad_fn=<%s>)", text, name);
}

static PyObject *tensor_repr(PyObject *self)
{
    sp_tensor *t = sp__py_handle(self);
    char *text, name[SP_GRAD_FN_TEXT];
    if (t->flags & SP_T_WRAPPED) return wrapped_repr(t);
    sp_status status = sp_to_text(t, &text);
    if (status) return sp__py_raise(status);
    PyObject *result = text_with_history(text, sp__grad_fn_name(t, name, sizeof name));
    sp_text_free(text);
    return result;
}

static PyObject *tensor_iter(PyObject *self)
{
    if (sp__py_handle(self)->rank == 0)
        return PyErr_Format(PyExc_TypeError,
                            "iter: a tensor without dimensions has nothing to iterate over");
    return PySeqIter_New(self);
}

static Py_hash_t tensor_hash(PyObject *self)
{
    return (Py_hash_t)((uintptr_t)self >> 4);
}

/* ---- the type ----- */

PyTypeObject sp__py_tensor_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "spool.Tensor",
    .tp_doc = "Tensor(data)\n--\n\nAn array of float32, float64, int64 or bool that remembers how "
              "it was computed.",
    .tp_basicsize = sizeof(sp_tensor),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .tp_dealloc = tensor_dealloc,
    .tp_traverse = tensor_traverse,
    .tp_clear = tensor_clear,
    .tp_new = tensor_new,
    .tp_repr = tensor_repr,
    .tp_hash = tensor_hash,
    .tp_iter = tensor_iter,
    .tp_richcompare = sp__py_compare,
    .tp_getattro = PyObject_GenericGetAttr,
    .tp_setattro = tensor_setattro,
    .tp_dictoffset = offsetof(sp_tensor, binding[0]),
    .tp_weaklistoffset = offsetof(sp_tensor, binding[1]),
    .tp_as_number = &tensor_number,
    .tp_as_mapping = &sp__py_mapping,
    .tp_as_sequence = &sp__py_sequence,
    .tp_as_buffer = &sp__py_buffer,
};

static size_t count_methods(const PyMethodDef *table)
{
    size_t n = 0;
    while (table[n].ml_name) n++;
    return n;
}

/* One table of all methods, for as long as the type lives. Of two with one name the first counts.
 */
static PyMethodDef *join_methods(PyMethodDef *const *tables, size_t n_tables)
{
    size_t total = 0, at = 0;
    for (size_t i = 0; i < n_tables; i++) total += count_methods(tables[i]);
    PyMethodDef *joined = PyMem_Calloc(total + 1, sizeof *joined);
    for (size_t i = 0; joined && i < n_tables; i++) {
        size_t n = count_methods(tables[i]);
        memcpy(joined + at, tables[i], n * sizeof *joined);
        at += n;
    }
    return joined;
}

static PyGetSetDef *join_getset(void)
{
    size_t n = 0;
    while (sp__py_attr_getset[n].name) n++;
    PyGetSetDef *joined = PyMem_Calloc(n + 2, sizeof *joined);
    if (!joined) return NULL;
    memcpy(joined, sp__py_attr_getset, n * sizeof *joined);
    joined[n] = (PyGetSetDef){"__dict__", get_dict, set_dict, NULL, NULL};
    return joined;
}

int sp__py_tensor_start(PyObject *module)
{
    PyMethodDef *const tables[] = {
        sp__py_attr_methods,    sp__py_copy_methods,    sp__py_grad_methods,
        sp__py_index_methods,   sp__py_interop_methods, sp__py_join_methods,
        sp__py_counted_methods, sp__py_new_methods,     sp__py_methods};
    sp__py_number_fill(&tensor_number);
    sp__py_tensor_type.tp_methods = join_methods(tables, sizeof tables / sizeof *tables);
    sp__py_tensor_type.tp_getset = join_getset();
    if (!sp__py_tensor_type.tp_methods || !sp__py_tensor_type.tp_getset) return -1;
    if (PyType_Ready(&sp__py_tensor_type) < 0) return -1;
    sp__handle_hooks.prefix = GC_HEAD_BYTES;
    sp__handle_hooks.type = &sp__py_tensor_type;
    sp__handle_hooks.dealloc = handle_dealloc;
    return PyObject_SetAttrString(module, "Tensor", (PyObject *)&sp__py_tensor_type);
}

sp_tensor *sp__py_tensor_arg(PyObject *o, const char *op, const char *arg)
{
    if (SP_LIKELY(sp__py_is_tensor(o))) return sp__py_handle(o);
    sp__py_wrong_type(op, arg, "a Tensor", o);
    return NULL;
}
