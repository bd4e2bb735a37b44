/* Tensors of Python data, and Python data of tensors: nested sequences, numbers, buffers.
 *
 * Nested sequences are walked twice: once for the shape and the kind of number, once to fill a
 * dense block. Buffers (NumPy arrays and scalars, array.array, memoryview) say both themselves;
 * unsigned integers of more than a byte become int64. bfloat16, which buffers do not know, goes
 * through NumPy as int16 (with ml_dtypes, which gives NumPy that type).
 */
#include "bindings/python/ext/py_int.h"

#include "tensor/memory.h"

/* ---- formats ----- */

static bool is_integer_code(char code)
{
    return strchr("bBhHiIlLqQnN", code) != NULL;
}

static char code_of(const char *format)
{
    if (!format) return 'B';
    if (*format == '@' || *format == '=' || *format == '<') format++;
    if (*format == 'Z' && format[1] && !format[2]) /* complex: 'F' and 'D' here */
        return format[1] == 'f' ? 'F' : format[1] == 'd' ? 'D' : 0;
    return format[0] && !format[1] ? format[0] : 0;
}

bool sp__py_dtype_of_format(const char *format, Py_ssize_t itemsize, sp_dtype *out)
{
    char code = code_of(format);
    if (!code || !strchr("?BbhilqnefdFD", code)) return false;
    for (int i = 0; i < SP_DTYPE_COUNT; i++) {
        const char *own = sp__py_format_of_dtype((sp_dtype)i);
        bool same = own && (code_of(own) == code || (*own == 'l' && strchr("lqn", code)) ||
                            (*own == 'i' && code == 'l'));
        if (!same || (Py_ssize_t)sp__dtypes[i].size != itemsize) continue;
        *out = (sp_dtype)i;
        return true;
    }
    return false;
}

const char *sp__py_format_of_dtype(sp_dtype dtype)
{
    static const char *const formats[SP_DTYPE_COUNT] = {
        [SP_BOOL] = "?",    [SP_UINT8] = "B",      [SP_INT8] = "b",       [SP_INT16] = "h",
        [SP_INT32] = "i",   [SP_INT64] = "l",      [SP_FLOAT16] = "e",    [SP_FLOAT32] = "f",
        [SP_FLOAT64] = "d", [SP_COMPLEX64] = "Zf", [SP_COMPLEX128] = "Zd"};
    return formats[dtype];
}

/* ---- buffers ----- */

static int64_t load_int(char code, Py_ssize_t size, const char *at)
{
    bool is_signed = strchr("bhilqn", code) != NULL;
    switch (size) {
    case 1: return is_signed ? *(const int8_t *)at : *(const uint8_t *)at;
    case 2: {
        int16_t value;
        memcpy(&value, at, 2);
        return is_signed ? value : (uint16_t)value;
    }
    case 4: {
        int32_t value;
        memcpy(&value, at, 4);
        return is_signed ? value : (int64_t)(uint32_t)value;
    }
    default: {
        int64_t value;
        memcpy(&value, at, 8);
        return value;
    }
    }
}

/* Of complex numbers, the real part; `imaginary` is left alone otherwise. */
static sp_scalar load(char code, Py_ssize_t size, const char *at, double *imaginary)
{
    double part[2];
    float narrow;
    double wide;
    uint16_t half;
    switch (code) {
    case '?': return (sp_scalar){.v.i = *at != 0, .kind = SP_BOOL};
    case 'e': memcpy(&half, at, 2); return SP_FLOAT((double)sp__half_to_float(half));
    case 'f': memcpy(&narrow, at, 4); return SP_FLOAT((double)narrow);
    case 'd': memcpy(&wide, at, 8); return SP_FLOAT(wide);
    case 'F':
    case 'D':
        sp__complex_from(at, code == 'F' ? SP_COMPLEX64 : SP_COMPLEX128, part);
        *imaginary = part[1];
        return SP_FLOAT(part[0]);
    default: return SP_INT(load_int(code, size, at));
    }
}

/* The dtype a copied buffer takes; false with an exception when its values have none. */
static bool natural_dtype(const Py_buffer *view, const char *op, sp_dtype *out)
{
    char code = code_of(view->format);
    if (sp__py_dtype_of_format(view->format, view->itemsize, out)) return true;
    if (code && is_integer_code(code) && (view->itemsize < 8 || strchr("LQN", code)))
        *out = SP_INT64;
    else {
        PyErr_Format(
            sp__py_dtype_error,
            "%s: an array of format '%s' has no dtype here; convert it to another, such as "
            "float32, first",
            op, view->format ? view->format : "B");
        return false;
    }
    return true;
}

static bool is_wide_unsigned(const Py_buffer *view)
{
    char code = code_of(view->format);
    return view->itemsize == 8 && code && strchr("LQN", code);
}

/* A number in the dtype, where its imaginary part may fall away. */
static void put(sp_scalar value, double imaginary, sp_dtype dtype, void *to)
{
    if (sp__dtype_is_complex(dtype) && imaginary != 0)
        sp__complex_to((double[2]){value.v.f, imaginary}, dtype, to);
    else
        sp__scalar_to(value, dtype, to);
}

static int fill_from_buffer(const Py_buffer *view, int dim, const char *from, sp_dtype dtype,
                            char **to, const char *op)
{
    if (dim == view->ndim) {
        double imaginary = 0;
        sp_scalar value = load(code_of(view->format), view->itemsize, from, &imaginary);
        if (is_wide_unsigned(view) && value.v.i < 0) {
            PyErr_Format(PyExc_OverflowError, "%s: a uint64 beyond int64's range", op);
            return -1;
        }
        put(value, imaginary, dtype, *to);
        *to += sp_dtype_size(dtype);
        return 0;
    }
    for (Py_ssize_t i = 0; i < view->shape[dim]; i++)
        if (fill_from_buffer(view, dim + 1, from + i * view->strides[dim], dtype, to, op) < 0)
            return -1;
    return 0;
}

/* Dense memory of a buffer's values in `dtype`, and the tensor over a copy of it. */
static int copy_buffer(const Py_buffer *view, sp_dtype dtype, const int64_t *shape, const char *op,
                       sp_tensor **out)
{
    sp_dtype same;
    if (sp__py_dtype_of_format(view->format, view->itemsize, &same) && same == dtype &&
        PyBuffer_IsContiguous(view, 'C')) {
        sp_status status = sp_from_data(view->buf, dtype, view->ndim, shape, out);
        if (status) sp__py_raise(status);
        return status ? -1 : 0;
    }
    size_t bytes =
        (size_t)(view->len / (view->itemsize ? view->itemsize : 1)) * sp_dtype_size(dtype);
    char *dense = sp__alloc(bytes), *at = dense;
    if (!dense) {
        sp__py_raise(sp_fail(SP_EMEMORY, "%s: no memory for %zu bytes", op, bytes));
        return -1;
    }
    int result = fill_from_buffer(view, 0, view->buf, dtype, &at, op);
    sp_status status = result < 0 ? SP_OK : sp_from_data(dense, dtype, view->ndim, shape, out);
    sp__free(dense, bytes);
    if (status) sp__py_raise(status);
    return result < 0 || status ? -1 : 0;
}

static int shape_of_buffer(const Py_buffer *view, const char *op, int64_t *shape)
{
    if (view->ndim > SP_MAX_RANK) {
        PyErr_Format(sp__py_shape_error, "%s: an array of %d dimensions; a tensor has at most %d",
                     op, view->ndim, SP_MAX_RANK);
        return -1;
    }
    for (int i = 0; i < view->ndim; i++) shape[i] = view->shape[i];
    return 0;
}

static int tensor_of_tensor(const sp_tensor *t, const sp_dtype *dtype, sp_tensor **out);

static int tensor_of_bfloat16(PyObject *data, const sp_dtype *dtype, const char *op,
                              sp_tensor **out)
{
    sp_tensor *shared;
    if (sp__py_from_bfloat16(data, op, &shared) < 0) return -1;
    int result = tensor_of_tensor(shared, dtype, out);
    sp_drop(&shared);
    return result;
}

static int tensor_of_buffer(PyObject *data, const sp_dtype *dtype, const char *op, sp_tensor **out)
{
    Py_buffer view;
    int64_t shape[SP_MAX_RANK];
    sp_dtype natural;
    if (PyObject_GetBuffer(data, &view, PyBUF_FULL_RO) < 0) return -1;
    int result = -1;
    if (natural_dtype(&view, op, &natural) && shape_of_buffer(&view, op, shape) == 0)
        result = copy_buffer(&view, dtype ? *dtype : natural, shape, op, out);
    PyBuffer_Release(&view);
    return result;
}

/* ---- nested sequences ----- */

typedef struct nest {
    const char *op;
    int rank;
    int64_t shape[SP_MAX_RANK];
    int kind;       /* the highest sp_dtype kind seen; -1: none */
    sp_dtype dtype; /* what is stored */
    char *at;
} nest;

static bool is_sequence(PyObject *o)
{
    if (PyList_Check(o) || PyTuple_Check(o)) return true;
    if (PyUnicode_Check(o) || PyBytes_Check(o) || PyDict_Check(o) || !PySequence_Check(o))
        return false;
    return sp__py_is_tensor(o) ? sp__py_handle(o)->rank > 0
                               : Py_TYPE(o)->tp_as_sequence->sq_length != NULL;
}

/* A complex number: its real part, marked by kind SP_COMPLEX64. 0: it is none. */
static int complex_value(PyObject *o, sp_scalar *out, double *imaginary)
{
    double part[2];
    int found = sp__py_complex(o, part);
    if (found <= 0) return found;
    *out = SP_FLOAT(part[0]), *imaginary = part[1];
    out->kind = SP_COMPLEX64;
    return 1;
}

/* A number, or a tensor of one element inside a list. */
static int leaf_value(PyObject *o, const char *op, sp_scalar *out, double *imaginary)
{
    *imaginary = 0;
    int is_complex = complex_value(o, out, imaginary);
    if (is_complex) return is_complex < 0 ? -1 : 0;
    if (sp__py_is_tensor(o) && sp__dtype_is_complex(sp__py_handle(o)->dtype)) {
        PyObject *value = PyObject_CallMethod((PyObject *)o, "item", NULL);
        int result = value ? complex_value(value, out, imaginary) : -1;
        Py_XDECREF(value);
        return result < 0 ? -1 : 0;
    }
    if (sp__py_is_tensor(o)) {
        sp_status status = sp_item(sp__py_handle(o), out);
        if (status) sp__py_raise(status);
        return status ? -1 : 0;
    }
    int found = sp__py_number(o, out);
    if (found > 0) return 0;
    if (found == 0) {
        /* A NumPy array without dimensions is a number too. */
        PyObject *value = PyObject_CheckBuffer(o) ? PyObject_CallMethod(o, "item", NULL) : NULL;
        PyErr_Clear();
        found = value ? complex_value(value, out, imaginary) : 0;
        if (found == 0 && value) found = sp__py_number(value, out);
        Py_XDECREF(value);
        if (found == 0)
            PyErr_Format(PyExc_TypeError, "%s: cannot make a number of a %.100s", op,
                         Py_TYPE(o)->tp_name);
    }
    return found > 0 ? 0 : -1;
}

/* float64 values from NumPy inside lists count as plain floats: the default dtype applies. */
static int measure(nest *n, PyObject *o, int depth)
{
    if (!is_sequence(o)) {
        sp_scalar value;
        double imaginary;
        if (depth != n->rank) {
            PyErr_Format(sp__py_shape_error,
                         "%s: a number at depth %d, where other entries have sequences", n->op,
                         depth);
            return -1;
        }
        if (leaf_value(o, n->op, &value, &imaginary) < 0) return -1;
        int kind = value.kind;
        if (kind > n->kind) n->kind = kind;
        return 0;
    }
    if (depth >= n->rank) {
        PyErr_Format(sp__py_shape_error,
                     "%s: a sequence at depth %d, where other entries have numbers", n->op, depth);
        return -1;
    }
    if (Py_EnterRecursiveCall(" while measuring nested sequences")) return -1;
    PyObject *items = PySequence_Fast(o, "spool.tensor: expected a sequence");
    int result = items ? 0 : -1;
    if (items && PySequence_Fast_GET_SIZE(items) != n->shape[depth]) {
        PyErr_Format(sp__py_shape_error, "%s: sequences of lengths %lld and %zd at depth %d", n->op,
                     (long long)n->shape[depth], PySequence_Fast_GET_SIZE(items), depth);
        result = -1;
    }
    for (Py_ssize_t i = 0; result == 0 && i < PySequence_Fast_GET_SIZE(items); i++)
        result = measure(n, PySequence_Fast_GET_ITEM(items, i), depth + 1);
    Py_XDECREF(items);
    Py_LeaveRecursiveCall();
    return result;
}

/* Follows first entries down to a number; `items` may be changed under our feet, so that filling
 * checks lengths again. */
static int find_shape(nest *n, PyObject *data)
{
    Py_INCREF(data);
    while (is_sequence(data)) {
        Py_ssize_t length = PySequence_Size(data);
        if (length < 0 || n->rank == SP_MAX_RANK) {
            Py_DECREF(data);
            if (length >= 0)
                PyErr_Format(sp__py_shape_error, "%s: sequences nested deeper than %d", n->op,
                             SP_MAX_RANK);
            return -1;
        }
        n->shape[n->rank++] = length;
        PyObject *first = length ? PySequence_GetItem(data, 0) : NULL;
        Py_DECREF(data);
        if (!first) return length ? -1 : 0;
        data = first;
    }
    Py_DECREF(data);
    return 0;
}

/* TypeError for a complex number where a real dtype is asked for. */
static int store_number(sp_scalar value, double imaginary, sp_dtype dtype, const char *op, void *to)
{
    if (value.kind == SP_COMPLEX64 && !sp__dtype_is_complex(dtype)) {
        PyErr_Format(PyExc_TypeError,
                     "%s: a complex number in a tensor of %s; give a complex dtype", op,
                     sp_dtype_name(dtype));
        return -1;
    }
    if (value.kind == SP_COMPLEX64) value.kind = SP_FLOAT64;
    put(value, imaginary, dtype, to);
    return 0;
}

static int fill(nest *n, PyObject *o, int depth)
{
    if (depth == n->rank) {
        sp_scalar value;
        double imaginary;
        if (leaf_value(o, n->op, &value, &imaginary) < 0) return -1;
        if (store_number(value, imaginary, n->dtype, n->op, n->at) < 0) return -1;
        n->at += sp_dtype_size(n->dtype);
        return 0;
    }
    PyObject *items = PySequence_Fast(o, "spool.tensor: expected a sequence");
    int result = items ? 0 : -1;
    if (items && PySequence_Fast_GET_SIZE(items) != n->shape[depth]) {
        PyErr_Format(PyExc_RuntimeError, "%s: a sequence changed while it was read", n->op);
        result = -1;
    }
    for (Py_ssize_t i = 0; result == 0 && i < n->shape[depth]; i++)
        result = fill(n, PySequence_Fast_GET_ITEM(items, i), depth + 1);
    Py_XDECREF(items);
    return result;
}

static sp_dtype default_dtype(int kind)
{
    if (kind == SP_COMPLEX64) return SP_COMPLEX64;
    return kind == SP_BOOL ? SP_BOOL : kind == SP_INT64 ? SP_INT64 : SP_FLOAT32;
}

static int tensor_of_sequence(PyObject *data, const sp_dtype *dtype, const char *op,
                              sp_tensor **out)
{
    nest n = {.op = op, .kind = -1};
    if (find_shape(&n, data) < 0 || measure(&n, data, 0) < 0) return -1;
    n.dtype = dtype ? *dtype : default_dtype(n.kind);
    sp_meta meta = {.dtype = (uint8_t)n.dtype, .rank = (uint8_t)n.rank, .view_of = -1};
    memcpy(meta.shape, n.shape, sizeof meta.shape);
    sp_status status = sp__meta_dense(&meta, op);
    size_t bytes = status ? 0 : (size_t)meta.numel * sp_dtype_size(n.dtype);
    char *block = status ? NULL : sp__alloc(bytes);
    if (!status && !block) status = sp_fail(SP_EMEMORY, "%s: no memory for %zu bytes", op, bytes);
    if (status) {
        sp__py_raise(status);
        return -1;
    }
    n.at = block;
    int result = fill(&n, data, 0);
    if (result == 0) {
        status = sp_from_data(block, n.dtype, n.rank, n.shape, out);
        if (status) sp__py_raise(status);
    }
    sp__free(block, bytes);
    return result < 0 || status ? -1 : 0;
}

static int tensor_of_number(PyObject *data, const sp_dtype *dtype, const char *op, sp_tensor **out)
{
    sp_scalar value;
    sp_element room;
    double imaginary = 0;
    int found = complex_value(data, &value, &imaginary);
    if (found == 0) found = sp__py_number(data, &value);
    if (found == 0)
        return sp__py_wrong_type(op, "data", "a number, a nested sequence of numbers, or an array",
                                 data);
    if (found < 0) return -1;
    sp_dtype stored = dtype ? *dtype : default_dtype(value.kind);
    if (store_number(value, imaginary, stored, op, &room) < 0) return -1;
    sp_status status = sp_from_data(&room, stored, 0, NULL, out);
    if (status) sp__py_raise(status);
    return status ? -1 : 0;
}

/* A copy without history, through ops: inside transforms and traced regions, too. */
static int tensor_of_tensor(const sp_tensor *t, const sp_dtype *dtype, sp_tensor **out)
{
    bool was = sp_grad_mode(false);
    sp_status status =
        dtype && *dtype != (sp_dtype)t->dtype ? sp_cast(t, *dtype, out) : sp_clone(t, out);
    sp_grad_mode(was);
    if (status) sp__py_raise(status);
    return status ? -1 : 0;
}

int sp__py_tensor_of(PyObject *data, const sp_dtype *dtype, const char *op, sp_tensor **out)
{
    *out = NULL;
    if (PyFloat_CheckExact(data) || PyLong_CheckExact(data) || PyBool_Check(data))
        return tensor_of_number(data, dtype, op, out);
    if (PyList_Check(data) || PyTuple_Check(data)) return tensor_of_sequence(data, dtype, op, out);
    if (sp__py_is_tensor(data)) return tensor_of_tensor(sp__py_handle(data), dtype, out);
    if (PyBytes_Check(data) || PyUnicode_Check(data))
        return sp__py_wrong_type(op, "data", "a number, a nested sequence of numbers, or an array",
                                 data);
    if (sp__py_is_bfloat16_array(data)) return tensor_of_bfloat16(data, dtype, op, out);
    if (PyObject_CheckBuffer(data)) return tensor_of_buffer(data, dtype, op, out);
    return is_sequence(data) ? tensor_of_sequence(data, dtype, op, out)
                             : tensor_of_number(data, dtype, op, out);
}

/* ---- no copy ----- */

typedef struct export
{
    sp_py_later later;
    Py_buffer view;
}
export;

static void export_release(sp_py_later *self)
{
    PyBuffer_Release(&((export *)self)->view);
    sp__free(self, sizeof(export));
}

static void export_end(void *ctx)
{
    sp__py_with_gil(&((export *)ctx)->later);
}

static int strides_of_buffer(const Py_buffer *view, const char *op, int64_t *strides)
{
    for (int i = 0; i < view->ndim; i++) {
        if (view->strides[i] < 0 || view->strides[i] % view->itemsize) {
            PyErr_Format(PyExc_ValueError,
                         "%s: an array with %s strides cannot be shared; pass array.copy()", op,
                         view->strides[i] < 0 ? "negative" : "uneven");
            return -1;
        }
        strides[i] = view->strides[i] / view->itemsize;
    }
    if ((uintptr_t)view->buf % (size_t)view->itemsize) {
        PyErr_Format(PyExc_ValueError,
                     "%s: the array's memory is not aligned to its elements; pass array.copy()",
                     op);
        return -1;
    }
    return 0;
}

int sp__py_tensor_over(PyObject *exporter, const char *op, sp_tensor **out)
{
    int64_t shape[SP_MAX_RANK], strides[SP_MAX_RANK];
    sp_dtype dtype;
    *out = NULL;
    export *e = sp__alloc(sizeof *e);
    if (!e) {
        sp__py_raise(sp_fail(SP_EMEMORY, "%s: no memory", op));
        return -1;
    }
    e->later.run = export_release;
    if (PyObject_GetBuffer(exporter, &e->view, PyBUF_FULL_RO) < 0) {
        sp__free(e, sizeof *e);
        return -1;
    }
    bool known = sp__py_dtype_of_format(e->view.format, e->view.itemsize, &dtype);
    if (!known)
        PyErr_Format(sp__py_dtype_error,
                     "%s: an array of format '%s' cannot be shared; convert it to another dtype, "
                     "such as float32, first",
                     op, e->view.format ? e->view.format : "B");
    if (!known || shape_of_buffer(&e->view, op, shape) < 0 ||
        strides_of_buffer(&e->view, op, strides) < 0) {
        export_release(&e->later);
        return -1;
    }
    sp_status status = sp_from_foreign(e->view.buf, dtype, e->view.ndim, shape, strides,
                                       e->view.readonly, export_end, e, out);
    if (status) sp__py_raise(status);
    return status ? -1 : 0;
}

/* ---- back to Python ----- */

static PyObject *list_of(const sp_tensor *t, int dim, const char **at)
{
    if (dim == t->rank) {
        PyObject *value = sp__py_from_element(*at, t->dtype);
        *at += sp_dtype_size((sp_dtype)t->dtype);
        return value;
    }
    PyObject *list = PyList_New(t->shape[dim]);
    for (int64_t i = 0; list && i < t->shape[dim]; i++) {
        PyObject *entry = list_of(t, dim + 1, at);
        if (entry)
            PyList_SET_ITEM(list, i, entry);
        else
            Py_CLEAR(list);
    }
    return list;
}

PyObject *sp__py_tolist(const sp_tensor *t)
{
    size_t bytes = (size_t)t->numel * sp_dtype_size((sp_dtype)t->dtype);
    char *dense = sp__alloc(bytes);
    if (!dense) return sp__py_raise(sp_fail(SP_EMEMORY, "tolist: no memory for %zu bytes", bytes));
    sp_status status = sp_copy_out(t, dense, bytes);
    const char *at = dense;
    PyObject *result = status ? sp__py_raise(status) : list_of(t, 0, &at);
    sp__free(dense, bytes);
    return result;
}
