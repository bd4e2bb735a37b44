/* What one asks a tensor: shape, dtype, gradient, layout. */
#include "bindings/python/ext/py_int.h"

/* ---- attributes ----- */

static PyObject *get_shape(PyObject *self, void *unused)
{
    (void)unused;
    const sp_tensor *t = sp__py_handle(self);
    return sp__py_size(t->rank, t->shape);
}

static PyObject *get_dtype(PyObject *self, void *unused)
{
    (void)unused;
    return Py_NewRef(sp__py_dtype_object((sp_dtype)sp__py_handle(self)->dtype));
}

static PyObject *get_device(PyObject *self, void *unused)
{
    (void)self, (void)unused;
    return Py_NewRef(sp__py_device_object());
}

static PyObject *get_ndim(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromLong(sp__py_handle(self)->rank);
}

static PyObject *get_itemsize(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromSize_t(sp_dtype_size((sp_dtype)sp__py_handle(self)->dtype));
}

static PyObject *get_nbytes(PyObject *self, void *unused)
{
    (void)unused;
    const sp_tensor *t = sp__py_handle(self);
    return PyLong_FromLongLong(t->numel * (int64_t)sp_dtype_size((sp_dtype)t->dtype));
}

static PyObject *get_requires_grad(PyObject *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(sp_requires_grad(sp__py_handle(self)));
}

static int set_requires_grad(PyObject *self, PyObject *value, void *unused)
{
    (void)unused;
    bool on;
    if (!value)
        return sp__py_wrong_type("requires_grad", "value", "a bool (it cannot be deleted)",
                                 Py_None);
    if (sp__py_bool(value, "requires_grad", "value", &on) < 0) return -1;
    sp_status status = sp_set_requires_grad(sp__py_handle(self), on);
    if (status) sp__py_raise(status);
    return status ? -1 : 0;
}

static PyObject *get_is_leaf(PyObject *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(sp_is_leaf(sp__py_handle(self)));
}

static PyObject *get_grad(PyObject *self, void *unused)
{
    (void)unused;
    sp_tensor *grad = NULL;
    sp_status status = sp_grad_get(sp__py_handle(self), &grad);
    if (status) return sp__py_raise(status);
    if (!grad) Py_RETURN_NONE;
    /* From here on Python can make a ring of it. */
    sp__py_track(sp__py_handle(self));
    return sp__py_object(grad);
}

static int set_grad(PyObject *self, PyObject *value, void *unused)
{
    (void)unused;
    sp_tensor *grad = NULL;
    if (value && value != Py_None && !(grad = sp__py_tensor_arg(value, "grad", "value"))) return -1;
    if (grad == sp__py_handle(self)) {
        PyErr_SetString(sp__py_error, "grad: a tensor cannot be its own gradient");
        return -1;
    }
    sp_status status = sp_grad_set(sp__py_handle(self), grad);
    if (status) {
        sp__py_raise(status);
        return -1;
    }
    if (grad) sp__py_track(sp__py_handle(self));
    return 0;
}

static PyObject *get_real(PyObject *self, void *unused)
{
    (void)unused;
    const sp_tensor *t = sp__py_handle(self);
    sp_tensor *out = NULL;
    if (!sp__dtype_is_complex(t->dtype)) return Py_NewRef(self);
    sp_status status = sp_real(t, &out);
    return sp__py_result(status, out);
}

static PyObject *get_imag(PyObject *self, void *unused)
{
    (void)unused;
    sp_tensor *out = NULL;
    sp_status status = sp_imag(sp__py_handle(self), &out);
    return sp__py_result(status, out);
}

/* x.real = value: written into x. */
static int set_part(PyObject *self, PyObject *value, PyObject *(*get)(PyObject *, void *))
{
    if (!value) return sp__py_wrong_type("real, imag", "value", "a tensor or a number", Py_None);
    PyObject *part = get(self, NULL);
    int result = part ? PyObject_SetItem(part, Py_Ellipsis, value) : -1;
    Py_XDECREF(part);
    return result;
}

static int set_real(PyObject *self, PyObject *value, void *unused)
{
    (void)unused;
    return set_part(self, value, get_real);
}

static int set_imag(PyObject *self, PyObject *value, void *unused)
{
    (void)unused;
    return set_part(self, value, get_imag);
}

static PyObject *get_adjoint(PyObject *self, void *unused)
{
    (void)unused;
    sp_tensor *out = NULL;
    sp_status status = sp_adjoint(sp__py_handle(self), &out);
    return sp__py_result(status, out);
}

static PyObject *get_data(PyObject *self, void *unused)
{
    (void)unused;
    sp_tensor *out = NULL;
    sp_status status = sp_detach(sp__py_handle(self), &out);
    return sp__py_result(status, out);
}

/* Another dtype is for leaves that nothing depends on the dtype of: a module's parameters,
 * converted as they are. */
static int check_data(const sp_tensor *t, const sp_tensor *from)
{
    sp_tensor *grad = NULL;
    if ((t->flags | from->flags) & SP_T_WRAPPED) {
        PyErr_SetString(sp__py_error, "data: a tensor of a transform (vmap, jvp or grad) keeps its "
                                      "data; compute a new tensor");
        return -1;
    }
    if (from->dtype == t->dtype) return 0;
    if (sp_grad_get(t, &grad)) return -1;
    const char *why = !sp_is_leaf(t) ? "a computed tensor"
                      : grad         ? "a tensor with a gradient"
                      : sp_requires_grad(t) && !sp__dtype_is_inexact(from->dtype)
                          ? "a tensor that requires grad"
                          : NULL;
    sp_drop(&grad);
    if (why)
        PyErr_Format(
            sp__py_dtype_error,
            "data: cannot put a %s tensor in the place of a %s one, which is %s; convert it "
            "with .to() first",
            sp_dtype_name((sp_dtype)from->dtype), sp_dtype_name((sp_dtype)t->dtype), why);
    return why ? -1 : 0;
}

/* Takes over value's storage and geometry: the handle and its hooks stay, and so does its gradient.
 */
static int set_data(PyObject *self, PyObject *value, void *unused)
{
    (void)unused;
    sp_tensor *t = sp__py_handle(self),
              *from = value ? sp__py_tensor_arg(value, "data", "value") : NULL;
    if (!from) {
        if (!value) sp__py_wrong_type("data", "value", "a Tensor", Py_None);
        return -1;
    }
    if (check_data(t, from) < 0) return -1;
    sp_status status = sp__value_ready(t, "data");
    if (status == SP_OK) status = sp__value_ready(from, "data");
    if (status) {
        sp__py_raise(status);
        return -1;
    }
    sp__handle_set_storage(t, from->storage);
    t->dtype = from->dtype;
    t->offset = from->offset, t->numel = from->numel, t->rank = from->rank;
    t->flags = (uint8_t)((t->flags & ~SP_T_CONTIGUOUS) | (from->flags & SP_T_CONTIGUOUS));
    memcpy(t->shape, from->shape, sizeof t->shape);
    memcpy(t->stride, from->stride, sizeof t->stride);
    t->trace_epoch = 0;
    return 0;
}

static PyObject *get_transposed(PyObject *self, void *unused)
{
    (void)unused;
    const sp_tensor *t = sp__py_handle(self);
    int64_t dims[SP_MAX_RANK];
    for (int i = 0; i < t->rank; i++) dims[i] = t->rank - 1 - i;
    sp_tensor *out = NULL;
    return sp__py_result(sp_permute(t, dims, t->rank, &out), out);
}

static PyObject *get_matrix_transposed(PyObject *self, void *unused)
{
    (void)unused;
    const sp_tensor *t = sp__py_handle(self);
    if (t->rank < 2)
        return PyErr_Format(sp__py_shape_error,
                            "mT: a tensor of shape %s has no matrices to transpose", SP_SHAPE(t));
    sp_tensor *out = NULL;
    return sp__py_result(sp_transpose(t, -2, -1, &out), out);
}

static PyObject *get_version(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLong(sp_version(sp__py_handle(self)));
}

PyGetSetDef sp__py_attr_getset[] = {
    {"shape", get_shape, NULL, "The size of every dimension.", NULL},
    {"dtype", get_dtype, NULL, "What the elements are.", NULL},
    {"device", get_device, NULL, "Where the bytes are.", NULL},
    {"ndim", get_ndim, NULL, "How many dimensions there are.", NULL},
    {"itemsize", get_itemsize, NULL, "Bytes an element.", NULL},
    {"nbytes", get_nbytes, NULL, "Bytes all elements take.", NULL},
    {"requires_grad", get_requires_grad, set_requires_grad,
     "Whether the tape records what happens to the tensor.", NULL},
    {"is_leaf", get_is_leaf, NULL, "Whether it is no result of a recorded op.", NULL},
    {"grad", get_grad, set_grad, "The gradient accumulated by backward(), or None.", NULL},
    {"grad_fn", sp__py_grad_fn, NULL, "The node of the tape that made the tensor, or None.", NULL},
    {"data", get_data, set_data, "The same values without history.", NULL},
    {"real", get_real, set_real, "The real parts, a view; of a real tensor itself.", NULL},
    {"imag", get_imag, set_imag, "The imaginary parts, a view.", NULL},
    {"H", get_adjoint, NULL, "The conjugate of a matrix, transposed.", NULL},
    {"mH", get_adjoint, NULL, "The conjugate with the last two dimensions swapped.", NULL},
    {"T", get_transposed, NULL, "A view with the dimensions in reverse order.", NULL},
    {"mT", get_matrix_transposed, NULL, "A view with the last two dimensions swapped.", NULL},
    {"_version", get_version, NULL, "How often the storage was written in place.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

/* ---- methods ----- */

/* All sizes (or strides), or the one of a dimension. */
static PyObject *per_dim(const sp_tensor *t, PyObject *const *args, Py_ssize_t n, PyObject *names,
                         const char *op, const int64_t *values)
{
    Py_ssize_t n_names = names ? PyTuple_GET_SIZE(names) : 0;
    if (n + n_names > 1)
        return PyErr_Format(PyExc_TypeError, "%s: expected at most a dim, got %zd arguments", op,
                            n + n_names);
    if (n_names && PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, 0), "dim"))
        return PyErr_Format(PyExc_TypeError, "%s: unknown argument %R", op,
                            PyTuple_GET_ITEM(names, 0));
    if (n + n_names == 0 || args[0] == Py_None) return sp__py_size(t->rank, values);
    int64_t at;
    int normal;
    if (sp__py_int(args[0], op, "dim", &at) < 0) return NULL;
    if (t->rank == 0)
        return PyErr_Format(PyExc_IndexError, "%s: dim %lld of a tensor without dimensions", op,
                            (long long)at);
    sp_status status = sp__dim_normalize(op, at, t->rank, &normal);
    return status ? sp__py_raise(status) : PyLong_FromLongLong(values[normal]);
}

static PyObject *size(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    const sp_tensor *t = sp__py_handle(self);
    return per_dim(t, args, n, names, "size", t->shape);
}

static PyObject *stride(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    const sp_tensor *t = sp__py_handle(self);
    PyObject *values = per_dim(t, args, n, names, "stride", t->stride);
    if (!values || PyLong_Check(values)) return values;
    PyObject *plain = PyTuple_GetSlice(values, 0, PyTuple_GET_SIZE(values));
    Py_DECREF(values);
    return plain;
}

static PyObject *dim(PyObject *self, PyObject *unused)
{
    (void)unused;
    return get_ndim(self, NULL);
}

static PyObject *numel(PyObject *self, PyObject *unused)
{
    (void)unused;
    return PyLong_FromLongLong(sp__py_handle(self)->numel);
}

static PyObject *storage_offset(PyObject *self, PyObject *unused)
{
    (void)unused;
    return PyLong_FromLongLong(sp__py_handle(self)->offset);
}

static PyObject *is_contiguous(PyObject *self, PyObject *unused)
{
    (void)unused;
    return PyBool_FromLong(sp__py_handle(self)->flags & SP_T_CONTIGUOUS);
}

static PyObject *is_floating_point(PyObject *self, PyObject *unused)
{
    (void)unused;
    return PyBool_FromLong(sp__dtype_is_floating(sp__py_handle(self)->dtype));
}

static PyObject *is_complex(PyObject *self, PyObject *unused)
{
    (void)unused;
    return PyBool_FromLong(sp__dtype_is_complex(sp__py_handle(self)->dtype));
}

static PyObject *element_size(PyObject *self, PyObject *unused)
{
    (void)unused;
    return get_itemsize(self, NULL);
}

static PyObject *data_ptr(PyObject *self, PyObject *unused)
{
    (void)unused;
    void *data;
    sp_status status = sp_data(sp__py_handle(self), &data);
    return status ? sp__py_raise(status) : PyLong_FromVoidPtr(data);
}

static PyObject *item(PyObject *self, PyObject *unused)
{
    (void)unused;
    sp_scalar value;
    const sp_tensor *t = sp__py_handle(self);
    if (SP_UNLIKELY(sp__dtype_is_complex(t->dtype)) && t->numel == 1) {
        sp_element room;
        sp_status status = sp_copy_out(t, &room, sizeof room);
        return status ? sp__py_raise(status) : sp__py_from_element(&room, t->dtype);
    }
    sp_status status = sp_item(t, &value);
    return SP_LIKELY(status == SP_OK) ? sp__py_from_scalar(value) : sp__py_raise(status);
}

static PyObject *tolist(PyObject *self, PyObject *unused)
{
    (void)unused;
    return sp__py_tolist(sp__py_handle(self));
}

/* Tensors of one element format like their value. */
static PyObject *format(PyObject *self, PyObject *spec)
{
    if (!PyUnicode_Check(spec))
        return PyErr_Format(PyExc_TypeError, "__format__: the format must be a text");
    if (PyUnicode_GET_LENGTH(spec) == 0 && sp__py_handle(self)->rank) return PyObject_Str(self);
    if (sp__py_handle(self)->flags & SP_T_WRAPPED) return PyObject_Str(self);
    if (sp__py_handle(self)->rank)
        return PyErr_Format(PyExc_TypeError,
                            "__format__: a tensor of shape %s takes no format; format its elements",
                            SP_SHAPE(sp__py_handle(self)));
    PyObject *value = item(self, NULL);
    if (!value) return NULL;
    PyObject *text = PyObject_Format(value, spec);
    Py_DECREF(value);
    return text;
}

PyMethodDef sp__py_attr_methods[] = {
    {"size", (PyCFunction)(void *)size, METH_FASTCALL | METH_KEYWORDS,
     "size($self, dim=None)\n--\n\nThe size of every dimension, or of one."},
    {"stride", (PyCFunction)(void *)stride, METH_FASTCALL | METH_KEYWORDS,
     "stride($self, dim=None)\n--\n\nElements from one index to the next, of every dimension or of "
     "one."},
    {"dim", dim, METH_NOARGS, "dim($self)\n--\n\nHow many dimensions there are."},
    {"numel", numel, METH_NOARGS, "numel($self)\n--\n\nHow many elements there are."},
    {"storage_offset", storage_offset, METH_NOARGS,
     "storage_offset($self)\n--\n\nElements before the first one."},
    {"is_contiguous", is_contiguous, METH_NOARGS,
     "is_contiguous($self)\n--\n\nWhether the elements are dense in row-major order."},
    {"is_complex", is_complex, METH_NOARGS,
     "is_complex($self)\n--\n\nWhether the dtype is complex64 or complex128."},
    {"is_floating_point", is_floating_point, METH_NOARGS,
     "is_floating_point($self)\n--\n\nWhether the dtype is float32 or float64."},
    {"element_size", element_size, METH_NOARGS, "element_size($self)\n--\n\nBytes an element."},
    {"data_ptr", data_ptr, METH_NOARGS,
     "data_ptr($self)\n--\n\nThe address of the first element, once it is computed."},
    {"item", item, METH_NOARGS,
     "item($self)\n--\n\nThe value of a tensor of one element, as a Python number."},
    {"tolist", tolist, METH_NOARGS, "tolist($self)\n--\n\nThe values as nested lists."},
    {"__format__", format, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};
