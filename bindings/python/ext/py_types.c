/* The small types: spool.dtype with its instances, spool.device, spool.Size. */
#include "bindings/python/ext/py_int.h"

/* ---- dtype ----- */

typedef struct {
    PyObject_HEAD sp_dtype value;
} dtype_object;

static PyTypeObject dtype_type;
static dtype_object dtypes[SP_DTYPE_COUNT];

static PyObject *dtype_repr(PyObject *self)
{
    return PyUnicode_FromFormat("spool.%s", sp_dtype_name(((dtype_object *)self)->value));
}

static PyObject *dtype_reduce(PyObject *self, PyObject *unused)
{
    (void)unused;
    return PyUnicode_FromString(sp_dtype_name(((dtype_object *)self)->value));
}

static PyObject *dtype_floating(PyObject *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(sp__dtype_is_floating(((dtype_object *)self)->value));
}

static PyObject *dtype_signed(PyObject *self, void *unused)
{
    (void)unused;
    const sp_dtype_info *info = &sp__dtypes[((dtype_object *)self)->value];
    return PyBool_FromLong(info->kind >= SP_KIND_FLOAT || info->least < 0);
}

static PyObject *dtype_complex(PyObject *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(sp__dtype_is_complex(((dtype_object *)self)->value));
}

/* What spool.finfo and spool.iinfo are made of: kind, bits of the significand, largest exponent,
 * least, most. */
static PyObject *dtype_limits(PyObject *self, void *unused)
{
    (void)unused;
    const sp_dtype_info *info = &sp__dtypes[((dtype_object *)self)->value];
    return Py_BuildValue("(iiiLL)", info->kind, info->digits, info->exponent,
                         (long long)info->least, (long long)info->most);
}

static PyObject *dtype_itemsize(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromSize_t(sp_dtype_size(((dtype_object *)self)->value));
}

static PyObject *dtype_promote(PyObject *self, PyObject *other)
{
    sp_dtype with;
    if (sp__py_dtype(other, "promote_types", "type2", &with) < 0) return NULL;
    PyObject *both = sp__py_dtype_object(sp_promote(((dtype_object *)self)->value, with));
    return Py_INCREF(both), both;
}

static PyMethodDef dtype_methods[] = {{"__reduce__", dtype_reduce, METH_NOARGS, NULL},
                                      {"_promote", dtype_promote, METH_O, NULL},
                                      {NULL, NULL, 0, NULL}};
static PyGetSetDef dtype_getset[] = {
    {"is_floating_point", dtype_floating, NULL, "Whether its elements have fractions.", NULL},
    {"is_signed", dtype_signed, NULL, "Whether it has negative numbers.", NULL},
    {"is_complex", dtype_complex, NULL, "Whether its elements have an imaginary part.", NULL},
    {"_limits", dtype_limits, NULL, NULL, NULL},
    {"itemsize", dtype_itemsize, NULL, "Bytes an element.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyTypeObject dtype_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "spool.dtype",
    .tp_doc = "What a tensor's elements are: spool.float32, spool.int64 and so on.",
    .tp_basicsize = sizeof(dtype_object),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_repr = dtype_repr,
    .tp_methods = dtype_methods,
    .tp_getset = dtype_getset,
};

bool sp__py_is_dtype(PyObject *o)
{
    return Py_TYPE(o) == &dtype_type;
}

int sp__py_dtype(PyObject *o, const char *op, const char *arg, sp_dtype *out)
{
    if (sp__py_is_dtype(o))
        *out = ((dtype_object *)o)->value;
    else if (o == (PyObject *)&PyFloat_Type)
        *out = SP_FLOAT64;
    else if (o == (PyObject *)&PyLong_Type)
        *out = SP_INT64;
    else if (o == (PyObject *)&PyBool_Type)
        *out = SP_BOOL;
    else if (o == (PyObject *)&PyComplex_Type)
        *out = SP_COMPLEX128;
    else
        return sp__py_wrong_type(op, arg, "a dtype (spool.float32, spool.int64, ...)", o);
    return 0;
}

PyObject *sp__py_dtype_object(sp_dtype dtype)
{
    return (PyObject *)&dtypes[dtype];
}

/* ---- device ----- */

static PyTypeObject device_type;
static PyObject device_cpu;

static PyObject *device_repr(PyObject *self)
{
    (void)self;
    return PyUnicode_FromString("device(type='cpu')");
}

static PyObject *device_str(PyObject *self)
{
    (void)self;
    return PyUnicode_FromString("cpu");
}

static PyObject *device_type_get(PyObject *self, void *unused)
{
    (void)unused;
    return device_str(self);
}

static PyObject *device_reduce(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    return Py_BuildValue("O(s)", &device_type, "cpu");
}

int sp__py_device_check(PyObject *o, const char *op)
{
    if (o == Py_None || Py_TYPE(o) == &device_type) return 0;
    if (!PyUnicode_Check(o)) return sp__py_wrong_type(op, "device", "a device or a text", o);
    if (PyUnicode_CompareWithASCIIString(o, "cpu") == 0) return 0;
    PyErr_Format(PyExc_NotImplementedError, "%s: there is no device %R; the one there is is 'cpu'",
                 op, o);
    return -1;
}

static PyObject *device_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    (void)type;
    static char *names[] = {"type", NULL};
    PyObject *name;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O:device", names, &name)) return NULL;
    if (sp__py_device_check(name, "device") < 0) return NULL;
    return Py_NewRef(&device_cpu);
}

static PyObject *device_compare(PyObject *self, PyObject *other, int op)
{
    bool known = Py_TYPE(other) == &device_type || PyUnicode_Check(other);
    if (!known || (op != Py_EQ && op != Py_NE)) Py_RETURN_NOTIMPLEMENTED;
    bool same = self == other ||
                (PyUnicode_Check(other) && PyUnicode_CompareWithASCIIString(other, "cpu") == 0);
    return PyBool_FromLong(same == (op == Py_EQ));
}

static Py_hash_t device_hash(PyObject *self)
{
    (void)self;
    return 1;
}

static PyMethodDef device_methods[] = {{"__reduce__", device_reduce, METH_NOARGS, NULL},
                                       {NULL, NULL, 0, NULL}};
static PyGetSetDef device_getset[] = {
    {"type", device_type_get, NULL, "'cpu'", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyTypeObject device_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "spool.device",
    .tp_doc = "device(type)\n--\n\nWhere a tensor's bytes are; 'cpu' for now.",
    .tp_basicsize = sizeof(PyObject),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_repr = device_repr,
    .tp_str = device_str,
    .tp_new = device_new,
    .tp_richcompare = device_compare,
    .tp_hash = device_hash,
    .tp_methods = device_methods,
    .tp_getset = device_getset,
};

PyObject *sp__py_device_object(void)
{
    return &device_cpu;
}

/* ---- Size ----- */

static PyTypeObject size_type;

PyObject *sp__py_size(int n, const int64_t *sizes)
{
    PyObject *self = size_type.tp_alloc(&size_type, n);
    if (!self) return NULL;
    for (int i = 0; i < n; i++) {
        PyObject *item = PyLong_FromLongLong(sizes[i]);
        if (!item) {
            Py_DECREF(self);
            return NULL;
        }
        PyTuple_SET_ITEM(self, i, item);
    }
    return self;
}

static PyObject *size_repr(PyObject *self)
{
    PyObject *list = PySequence_List(self);
    if (!list) return NULL;
    PyObject *text = PyUnicode_FromFormat("spool.Size(%R)", list);
    Py_DECREF(list);
    return text;
}

static PyObject *size_numel(PyObject *self, PyObject *unused)
{
    (void)unused;
    long long numel = 1;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(self); i++) {
        long long size = PyLong_AsLongLong(PyTuple_GET_ITEM(self, i));
        if (size == -1 && PyErr_Occurred()) return NULL;
        if (__builtin_mul_overflow(numel, size, &numel))
            return PyErr_Format(PyExc_OverflowError, "numel: beyond 64 bits");
    }
    return PyLong_FromLongLong(numel);
}

static PyMethodDef size_methods[] = {
    {"numel", size_numel, METH_NOARGS, "numel($self)\n--\n\nThe product of the sizes."},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject size_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "spool.Size",
    .tp_doc = "A tensor's shape: a tuple of ints.",
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_repr = size_repr,
    .tp_methods = size_methods,
};

/* ---- start ----- */

static int add_dtypes(PyObject *module)
{
    for (int i = 0; i < SP_DTYPE_COUNT; i++) {
        dtypes[i].value = (sp_dtype)i;
        PyObject *self = PyObject_Init((PyObject *)&dtypes[i], &dtype_type);
        if (PyObject_SetAttrString(module, sp_dtype_name((sp_dtype)i), self) < 0) return -1;
    }
    const char *alias[][2] = {{"half", "float16"},     {"float", "float32"},
                              {"double", "float64"},   {"short", "int16"},
                              {"int", "int32"},        {"long", "int64"},
                              {"cfloat", "complex64"}, {"cdouble", "complex128"}};
    for (size_t i = 0; i < sizeof alias / sizeof *alias; i++) {
        PyObject *self = PyObject_GetAttrString(module, alias[i][1]);
        int failed = !self || PyObject_SetAttrString(module, alias[i][0], self) < 0;
        Py_XDECREF(self);
        if (failed) return -1;
    }
    return 0;
}

int sp__py_types_start(PyObject *module)
{
    size_type.tp_base = &PyTuple_Type;
    if (PyType_Ready(&dtype_type) < 0 || PyType_Ready(&device_type) < 0 ||
        PyType_Ready(&size_type) < 0)
        return -1;
    PyObject_Init(&device_cpu, &device_type);
    if (PyObject_SetAttrString(module, "dtype", (PyObject *)&dtype_type) < 0) return -1;
    if (PyObject_SetAttrString(module, "device", (PyObject *)&device_type) < 0) return -1;
    if (PyObject_SetAttrString(module, "Size", (PyObject *)&size_type) < 0) return -1;
    return add_dtypes(module);
}
