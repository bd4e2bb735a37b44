/* The same values in another dtype, and copies for copy.deepcopy and pickle. */
#include "bindings/python/ext/py_int.h"

/* ---- dtypes ----- */

/* t itself where it has the dtype already. */
static PyObject *in_dtype(PyObject *self, sp_dtype dtype, bool copy)
{
    sp_tensor *t = sp__py_handle(self), *out = NULL;
    if (sp__dtype_is_complex(t->dtype) && !sp__dtype_is_complex(dtype) && dtype != SP_BOOL &&
        PyErr_WarnEx(PyExc_UserWarning,
                     "casting complex values to real ones drops their imaginary part", 1) < 0)
        return NULL;
    if (dtype != (sp_dtype)t->dtype) return sp__py_result(sp_cast(t, dtype, &out), out);
    return copy ? sp__py_result(sp_clone(t, &out), out) : Py_NewRef(self);
}

/* x.to(dtype), x.to(device), x.to(device, dtype), x.to(other) */
static PyObject *to(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"dtype", "copy", "device", NULL};
    static PyObject *none;
    PyObject *first = NULL, *second = NULL, *dtype_word = NULL, *device = NULL;
    int copy = 0;
    sp_dtype dtype = (sp_dtype)sp__py_handle(self)->dtype;
    if (!none && !(none = PyTuple_New(0))) return NULL;
    if (!PyArg_ParseTuple(args, "|OO:to", &first, &second)) return NULL;
    if (kwargs &&
        !PyArg_ParseTupleAndKeywords(none, kwargs, "|$OpO:to", names, &dtype_word, &copy, &device))
        return NULL;
    PyObject *asked[] = {first, second, dtype_word};
    for (int i = 0; i < 3; i++) {
        if (!asked[i] || asked[i] == Py_None) continue;
        if (sp__py_is_tensor(asked[i])) {
            dtype = (sp_dtype)sp__py_handle(asked[i])->dtype;
        } else if (i < 2 && (PyUnicode_Check(asked[i]) ||
                             Py_TYPE(asked[i]) == Py_TYPE(sp__py_device_object()))) {
            if (sp__py_device_check(asked[i], "to") < 0) return NULL;
        } else if (sp__py_dtype(asked[i], "to", "dtype", &dtype) < 0) {
            return NULL;
        }
    }
    if (device && sp__py_device_check(device, "to") < 0) return NULL;
    return in_dtype(self, dtype, copy);
}

#define DEFINE_TO(name, dtype)                                                                     \
    static PyObject *to_##name(PyObject *self, PyObject *unused)                                   \
    {                                                                                              \
        (void)unused;                                                                              \
        return in_dtype(self, dtype, false);                                                       \
    }
DEFINE_TO(bool, SP_BOOL)
DEFINE_TO(byte, SP_UINT8)
DEFINE_TO(char, SP_INT8)
DEFINE_TO(short, SP_INT16)
DEFINE_TO(int, SP_INT32)
DEFINE_TO(long, SP_INT64)
DEFINE_TO(half, SP_FLOAT16)
DEFINE_TO(bfloat16, SP_BFLOAT16)
DEFINE_TO(float, SP_FLOAT32)
DEFINE_TO(double, SP_FLOAT64)
DEFINE_TO(cfloat, SP_COMPLEX64)
DEFINE_TO(cdouble, SP_COMPLEX128)

static PyObject *cpu(PyObject *self, PyObject *unused)
{
    (void)unused;
    return Py_NewRef(self);
}

static PyObject *type(PyObject *self, PyObject *args)
{
    static const char *const names[SP_DTYPE_COUNT] = {[SP_BOOL] = "BoolTensor",
                                                      [SP_UINT8] = "ByteTensor",
                                                      [SP_INT8] = "CharTensor",
                                                      [SP_INT16] = "ShortTensor",
                                                      [SP_INT32] = "IntTensor",
                                                      [SP_INT64] = "LongTensor",
                                                      [SP_FLOAT16] = "HalfTensor",
                                                      [SP_BFLOAT16] = "BFloat16Tensor",
                                                      [SP_FLOAT32] = "FloatTensor",
                                                      [SP_FLOAT64] = "DoubleTensor",
                                                      [SP_COMPLEX64] = "ComplexFloatTensor",
                                                      [SP_COMPLEX128] = "ComplexDoubleTensor"};
    PyObject *asked = NULL;
    sp_dtype dtype;
    if (!PyArg_ParseTuple(args, "|O:type", &asked)) return NULL;
    if (!asked) return PyUnicode_FromFormat("spool.%s", names[sp__py_handle(self)->dtype]);
    return sp__py_dtype(asked, "type", "dtype", &dtype) < 0 ? NULL : in_dtype(self, dtype, false);
}

static PyObject *type_as(PyObject *self, PyObject *other)
{
    sp_tensor *t = sp__py_tensor_arg(other, "type_as", "other");
    return t ? in_dtype(self, (sp_dtype)t->dtype, false) : NULL;
}

/* ---- copies of whole objects ----- */

static int copy_dict(PyObject *from, sp_tensor *to, PyObject *memo)
{
    PyObject *dict = sp__py_handle(from)->binding[0];
    if (!dict) return 0;
    PyObject *copy = PyImport_ImportModule("copy");
    PyObject *deep = copy ? PyObject_CallMethod(copy, "deepcopy", "OO", dict, memo) : NULL;
    int result = deep ? PyObject_GenericSetDict(sp__py_object(to), deep, NULL) : -1;
    if (result == 0) sp__py_track(to);
    Py_XDECREF(copy);
    Py_XDECREF(deep);
    return result;
}

static sp_status fresh_copy(const sp_tensor *t, sp_tensor **out)
{
    bool was = sp_grad_mode(false);
    sp_status status = sp_clone(t, out);
    sp_grad_mode(was);
    return status;
}

static int copy_grad(const sp_tensor *from, sp_tensor *to)
{
    sp_tensor *grad = NULL, *copy = NULL;
    sp_status status = sp_requires_grad(from) ? sp_set_requires_grad(to, true) : SP_OK;
    if (status == SP_OK) status = sp_grad_get(from, &grad);
    if (status == SP_OK && grad) status = fresh_copy(grad, &copy);
    if (status == SP_OK && copy) status = sp_grad_set(to, copy);
    sp_drop(&grad);
    sp_drop(&copy);
    if (status) sp__py_raise(status);
    return status ? -1 : 0;
}

static PyObject *deepcopy(PyObject *self, PyObject *memo)
{
    const sp_tensor *t = sp__py_handle(self);
    sp_tensor *out = NULL;
    PyObject *key = PyLong_FromVoidPtr(self);
    if (!key) return NULL;
    PyObject *known = PyDict_Check(memo) ? PyDict_GetItemWithError(memo, key) : NULL;
    if (known || PyErr_Occurred()) {
        Py_DECREF(key);
        return known ? Py_NewRef(known) : NULL;
    }
    sp_status status = SP_OK;
    if (!sp_is_leaf(t))
        status = sp_fail(SP_EGRAD,
                         "deepcopy: a tensor with history cannot be copied whole; copy x.detach()");
    if (status == SP_OK) status = fresh_copy(t, &out);
    if (status) sp__py_raise(status);
    int result = status ? -1 : sp__py_retype(out, Py_TYPE(self));
    if (result == 0 && PyDict_Check(memo)) result = PyDict_SetItem(memo, key, sp__py_object(out));
    if (result == 0) result = copy_grad(t, out);
    if (result == 0) result = copy_dict(self, out, memo);
    Py_DECREF(key);
    if (result < 0) sp_drop(&out);
    return sp__py_object(out);
}

/* copy.copy: a leaf over the same memory, with the class and the attributes. */
static PyObject *shallow_copy(PyObject *self, PyObject *unused)
{
    (void)unused;
    const sp_tensor *t = sp__py_handle(self);
    sp_tensor *out = NULL;
    sp_status status = sp_detach(t, &out);
    if (status == SP_OK && sp_requires_grad(t)) status = sp_set_requires_grad(out, true);
    if (status) {
        sp_drop(&out);
        return sp__py_raise(status);
    }
    int result = sp__py_retype(out, Py_TYPE(self));
    PyObject *dict = t->binding[0] ? PyDict_Copy(t->binding[0]) : NULL;
    if (t->binding[0] && !dict) result = -1;
    if (result == 0 && dict) result = PyObject_GenericSetDict(sp__py_object(out), dict, NULL);
    if (result == 0 && dict) sp__py_track(out);
    Py_XDECREF(dict);
    if (result < 0) sp_drop(&out);
    return sp__py_object(out);
}

/* ---- pickle: (class, dtype, shape, bytes, requires_grad, __dict__) ----- */

static PyObject *bytes_of(const sp_tensor *t)
{
    size_t n = (size_t)t->numel * sp_dtype_size((sp_dtype)t->dtype);
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)n);
    if (!bytes) return NULL;
    sp_status status = sp_copy_out(t, PyBytes_AS_STRING(bytes), n);
    if (status == SP_OK) return bytes;
    Py_DECREF(bytes);
    return sp__py_raise(status);
}

static PyObject *dense_bytes(PyObject *module, PyObject *tensor)
{
    (void)module;
    const sp_tensor *t = sp__py_tensor_arg(tensor, "save", "tensor");
    return t ? bytes_of(t) : NULL;
}

/* What two tensors have in common that are over the same elements: not an address, which would have
 * to be kept valid for whoever reads there. */
static PyObject *memory_of(PyObject *module, PyObject *tensor)
{
    (void)module;
    const sp_tensor *t = sp__py_tensor_arg(tensor, "save", "tensor");
    if (!t) return NULL;
    return Py_BuildValue("KL", (unsigned long long)(uintptr_t)t->storage, (long long)t->offset);
}

static PyObject *reduce_ex(PyObject *self, PyObject *protocol)
{
    (void)protocol;
    const sp_tensor *t = sp__py_handle(self);
    PyObject *module = PyImport_ImportModule("spool._C");
    PyObject *rebuild = module ? PyObject_GetAttrString(module, "_rebuild") : NULL;
    PyObject *bytes = rebuild ? bytes_of(t) : NULL;
    PyObject *size = bytes ? sp__py_size(t->rank, t->shape) : NULL;
    PyObject *shape = size ? PyTuple_GetSlice(size, 0, PyTuple_GET_SIZE(size)) : NULL;
    PyObject *dict = t->binding[0] ? t->binding[0] : Py_None;
    PyObject *result = NULL;
    if (shape)
        result = Py_BuildValue("O(OOOOOO)", rebuild, Py_TYPE(self),
                               sp__py_dtype_object((sp_dtype)t->dtype), shape, bytes,
                               sp_requires_grad(t) ? Py_True : Py_False, dict);
    Py_XDECREF(module);
    Py_XDECREF(rebuild);
    Py_XDECREF(bytes);
    Py_XDECREF(size);
    Py_XDECREF(shape);
    return result;
}

static sp_status of_bytes(sp_dtype dtype, const int64_t *sizes, int rank, const char *bytes,
                          Py_ssize_t n, sp_tensor **out)
{
    sp_meta meta = {.dtype = (uint8_t)dtype, .rank = (uint8_t)rank, .view_of = -1};
    memcpy(meta.shape, sizes, (size_t)rank * sizeof *sizes);
    SP_RETURN_IF(sp__meta_dense(&meta, "unpickle"));
    if (n != (Py_ssize_t)(meta.numel * (int64_t)sp_dtype_size(dtype)))
        return sp_fail(SP_EFORMAT, "unpickle: %zd bytes for shape %s of %s", n,
                       sp__shape_text(rank, sizes, (char[SP_SHAPE_TEXT]){0}, SP_SHAPE_TEXT),
                       sp_dtype_name(dtype));
    /* Kernels count on truth values being 0 or 1. */
    for (Py_ssize_t i = 0; dtype == SP_BOOL && i < n; i++)
        if (bytes[i] & ~1)
            return sp_fail(SP_EFORMAT, "unpickle: a bool tensor with a byte other than 0 and 1");
    return sp_from_data(bytes, dtype, rank, sizes, out);
}

static PyObject *rebuilt(PyTypeObject *class, sp_tensor *out, int requires_grad, PyObject *dict)
{
    sp_status status = requires_grad ? sp_set_requires_grad(out, true) : SP_OK;
    int result = status ? -1 : sp__py_retype(out, class);
    if (status) sp__py_raise(status);
    if (result == 0 && dict != Py_None) {
        result = PyObject_GenericSetDict(sp__py_object(out), dict, NULL);
        sp__py_track(out);
    }
    if (result < 0) sp_drop(&out);
    return sp__py_object(out);
}

static PyObject *rebuild(PyObject *module, PyObject *args)
{
    (void)module;
    PyTypeObject *class;
    PyObject *dtype_object, *shape, *dict, *result = NULL;
    Py_buffer bytes;
    int requires_grad, rank;
    sp_dtype dtype;
    int64_t sizes[SP_MAX_RANK];
    sp_tensor *out = NULL;
    if (!PyArg_ParseTuple(args, "O!OO!y*pO:_rebuild", &PyType_Type, &class, &dtype_object,
                          &PyTuple_Type, &shape, &bytes, &requires_grad, &dict))
        return NULL;
    if (!PyType_IsSubtype(class, &sp__py_tensor_type)) {
        PyErr_Format(PyExc_TypeError, "unpickle: %s is no Tensor", class->tp_name);
    } else if (sp__py_dtype(dtype_object, "unpickle", "dtype", &dtype) == 0 &&
               sp__py_ints(shape, "unpickle", "shape", sizes, &rank) == 0) {
        sp_status status = of_bytes(dtype, sizes, rank, bytes.buf, bytes.len, &out);
        result = status ? sp__py_raise(status) : rebuilt(class, out, requires_grad, dict);
    }
    PyBuffer_Release(&bytes);
    return result;
}

PyMethodDef sp__py_copy_functions[] = {
    {"_bytes", dense_bytes, METH_O,
     "_bytes(tensor)\n--\n\nThe elements of a tensor in row-major order."},
    {"_memory", memory_of, METH_O,
     "_memory(tensor)\n--\n\nA storage's number and a place in it, for telling tensors apart."},
    {"_rebuild", rebuild, METH_VARARGS,
     "_rebuild(class, dtype, shape, bytes, requires_grad, dict)\n--\n\nHow pickles are read."},
    {NULL, NULL, 0, NULL},
};

PyMethodDef sp__py_copy_methods[] = {
    {"to", (PyCFunction)(void *)to, METH_VARARGS | METH_KEYWORDS,
     "to($self, dtype=None, *, copy=False, device=None)\n--\n\nself in another dtype, or in that "
     "of another tensor; self where it "
     "has it already and copy is not asked for."},
    {"float", to_float, METH_NOARGS, "float($self)\n--\n\nself as float32."},
    {"double", to_double, METH_NOARGS, "double($self)\n--\n\nself as float64."},
    {"cfloat", to_cfloat, METH_NOARGS, "cfloat($self)\n--\n\nself as complex64."},
    {"cdouble", to_cdouble, METH_NOARGS, "cdouble($self)\n--\n\nself as complex128."},
    {"half", to_half, METH_NOARGS, "half($self)\n--\n\nself as float16."},
    {"bfloat16", to_bfloat16, METH_NOARGS, "bfloat16($self)\n--\n\nself as bfloat16."},
    {"long", to_long, METH_NOARGS, "long($self)\n--\n\nself as int64."},
    {"int", to_int, METH_NOARGS, "int($self)\n--\n\nself as int32."},
    {"short", to_short, METH_NOARGS, "short($self)\n--\n\nself as int16."},
    {"char", to_char, METH_NOARGS, "char($self)\n--\n\nself as int8."},
    {"byte", to_byte, METH_NOARGS, "byte($self)\n--\n\nself as uint8."},
    {"bool", to_bool, METH_NOARGS,
     "bool($self)\n--\n\nself as bool: whether elements differ from zero."},
    {"cpu", cpu, METH_NOARGS, "cpu($self)\n--\n\nself: the CPU is the one device there is."},
    {"type", type, METH_VARARGS,
     "type($self, dtype=None)\n--\n\nThe name of self's type, or self in another dtype."},
    {"type_as", type_as, METH_O, "type_as($self, other)\n--\n\nself in other's dtype."},
    {"__copy__", shallow_copy, METH_NOARGS, NULL},
    {"__deepcopy__", deepcopy, METH_O, NULL},
    {"__reduce_ex__", reduce_ex, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};
