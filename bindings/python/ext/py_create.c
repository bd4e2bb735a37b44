/* Making tensors: spool.tensor, zeros, ones, ..., x.new_zeros, ...
 *
 * All take dtype=, device= and requires_grad=. Sizes are given as ints or as one sequence. The
 * numbers come from ops (full, empty), so that transforms and tracers see them made.
 */
#include "bindings/python/ext/py_int.h"

/* ---- keywords ----- */

static int making_keyword(const char *op, PyObject *name, PyObject *value, sp_py_making *out)
{
    if (PyUnicode_CompareWithASCIIString(name, "dtype") == 0) {
        out->has_dtype = value != Py_None;
        return out->has_dtype ? sp__py_dtype(value, op, "dtype", &out->dtype) : 0;
    }
    if (PyUnicode_CompareWithASCIIString(name, "requires_grad") == 0)
        return sp__py_bool(value, op, "requires_grad", &out->requires_grad);
    if (PyUnicode_CompareWithASCIIString(name, "device") == 0)
        return sp__py_device_check(value, op);
    PyErr_Format(PyExc_TypeError, "%s: unknown argument %R", op, name);
    return -1;
}

int sp__py_making(const char *op, PyObject *const *values, PyObject *names, const char *also,
                  PyObject **extra, sp_py_making *out)
{
    *out = (sp_py_making){0};
    for (Py_ssize_t i = 0; names && i < PyTuple_GET_SIZE(names); i++) {
        PyObject *name = PyTuple_GET_ITEM(names, i);
        if (also && PyUnicode_CompareWithASCIIString(name, also) == 0) {
            if (*extra) {
                PyErr_Format(PyExc_TypeError, "%s: argument '%s' given twice", op, also);
                return -1;
            }
            *extra = values[i];
        } else if (making_keyword(op, name, values[i], out) < 0) {
            return -1;
        }
    }
    return 0;
}

PyObject *sp__py_made(sp_status status, sp_tensor **out, const sp_py_making *how)
{
    if (status == SP_OK && how->requires_grad) status = sp_set_requires_grad(*out, true);
    if (status == SP_OK) return sp__py_object(*out);
    sp_drop(out);
    return sp__py_raise(status);
}

/* ---- of data ----- */

static PyObject *of_data(const char *op, PyObject *const *args, Py_ssize_t n, PyObject *names,
                         bool share)
{
    sp_py_making how;
    PyObject *data = n > 0 ? args[0] : NULL;
    sp_tensor *out = NULL;
    if (sp__py_making(op, args + n, names, "data", &data, &how) < 0) return NULL;
    if (n > 1 || !data)
        return PyErr_Format(PyExc_TypeError, "%s: expected data and keywords, got %zd arguments",
                            op, n);
    const sp_dtype *dtype = how.has_dtype ? &how.dtype : NULL;
    if (share && sp__py_is_tensor(data) &&
        (!dtype || *dtype == (sp_dtype)sp__py_handle(data)->dtype))
        return Py_NewRef(data);
    if (share && PyObject_CheckBuffer(data) && !PyBytes_Check(data) && !sp__py_is_tensor(data)) {
        bool shared = sp__py_tensor_over(data, op, &out) == 0;
        if (shared && (!dtype || *dtype == (sp_dtype)out->dtype))
            return sp__py_made(SP_OK, &out, &how);
        sp_drop(&out);
        PyErr_Clear(); /* what cannot be shared is copied */
    }
    if (sp__py_tensor_of(data, dtype, op, &out) < 0) return NULL;
    return sp__py_made(SP_OK, &out, &how);
}

static PyObject *tensor(PyObject *module, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    (void)module;
    return of_data("tensor", args, n, names, false);
}

static PyObject *as_tensor(PyObject *module, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    (void)module;
    return of_data("as_tensor", args, n, names, true);
}

/* ---- of one number, or of none ----- */

static const sp_scalar zero = {.v.f = 0, .kind = SP_FLOAT64}, one = {.v.f = 1, .kind = SP_FLOAT64};

/* Sizes as ints or one sequence; `size` as a keyword counts too. */
static int take_size(const char *op, PyObject *const *args, Py_ssize_t n, PyObject *size,
                     int64_t *sizes, int *rank)
{
    if (size && n) {
        PyErr_Format(PyExc_TypeError, "%s: argument 'size' given twice", op);
        return -1;
    }
    if (size) return sp__py_ints(size, op, "size", sizes, rank);
    return sp__py_ints_args(args, n, op, "size", sizes, rank);
}

static bool is_mapped(const sp_tensor *t)
{
    for (; t->wrap; t = t->wrap->inner)
        if (t->wrap->kind == SP_LEVEL_VMAP) return true;
    return false;
}

/* Inside vmap, what is made like a mapped tensor is mapped, too, so that mapped values can be
 * written into it: where(a mapped truth value, t, t). */
static sp_status map_like(const sp_tensor *like, sp_tensor **t)
{
    sp_tensor *differs = NULL, *number = NULL, *mapped = NULL;
    sp_status status = SP_OK;
    if (!like || !is_mapped(like)) return SP_OK;
    SP_TRY(sp_ne(like, like, &differs));
    SP_TRY(sp_any(differs, NULL, &number));
    SP_TRY(sp_where(number, *t, *t, &mapped));
    sp_drop(t);
    *t = mapped;
out:
    sp_drop(&differs), sp_drop(&number);
    return status;
}

static PyObject *made_like(sp_status status, const sp_tensor *like, sp_tensor *out,
                           const sp_py_making *how)
{
    if (status == SP_OK) status = map_like(like, &out);
    if (status != SP_OK) sp_drop(&out);
    return sp__py_made(status, &out, how);
}

/* value NULL: whatever the memory holds. like: what it is mapped as by vmap, or NULL. */
static PyObject *filled(const sp_tensor *like, int rank, const int64_t *sizes,
                        const sp_scalar *value, const sp_py_making *how)
{
    sp_full_opt full = {.size = sizeof full, .has_dtype = how->has_dtype, .dtype = how->dtype};
    sp_empty_opt empty = {.size = sizeof empty, .has_dtype = how->has_dtype, .dtype = how->dtype};
    sp_tensor *out = NULL;
    sp_status status =
        value ? sp_full(sizes, rank, *value, &full, &out) : sp_empty(sizes, rank, &empty, &out);
    return made_like(status, like, out, how);
}

/* Of a number that Python code gave: a complex one goes by a tensor. */
static PyObject *filled_with(const char *op, const sp_tensor *like, int rank, const int64_t *sizes,
                             PyObject *value, const sp_py_making *how)
{
    sp_scalar number;
    double part[2];
    int is_complex = sp__py_complex(value, part);
    if (is_complex < 0) return NULL;
    if (!is_complex)
        return sp__py_scalar(value, op, "fill_value", &number) < 0
                   ? NULL
                   : filled(like, rank, sizes, &number, how);
    sp_full_tensor_opt full = {
        .size = sizeof full, .has_dtype = how->has_dtype, .dtype = how->dtype};
    sp_tensor *out = NULL, *one_number = sp__py_complex_tensor(value, NULL);
    if (!one_number) return NULL;
    sp_status status = sp_full_tensor(sizes, rank, one_number, &full, &out);
    sp_drop(&one_number);
    return made_like(status, like, out, how);
}

static PyObject *sized(const char *op, PyObject *const *args, Py_ssize_t n, PyObject *names,
                       const sp_scalar *value)
{
    int64_t sizes[SP_MAX_RANK];
    int rank;
    PyObject *size = NULL;
    sp_py_making how;
    if (sp__py_making(op, args + n, names, "size", &size, &how) < 0) return NULL;
    if (take_size(op, args, n, size, sizes, &rank) < 0) return NULL;
    return filled(NULL, rank, sizes, value, &how);
}

static PyObject *zeros(PyObject *module, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    (void)module;
    return sized("zeros", args, n, names, &zero);
}

static PyObject *ones(PyObject *module, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    (void)module;
    return sized("ones", args, n, names, &one);
}

/* ---- like another tensor ----- */

/* `asks`: the number is an argument. */
static PyObject *like(const char *op, PyObject *const *args, Py_ssize_t n, PyObject *names,
                      const sp_scalar *value, bool asks)
{
    PyObject *given = asks && n > 1 ? args[1] : NULL;
    sp_py_making how;
    if (sp__py_making(op, args + n, names, asks ? "fill_value" : NULL, &given, &how) < 0)
        return NULL;
    if (n < 1 || n > 1 + asks || (asks && !given))
        return PyErr_Format(PyExc_TypeError, "%s: expected a tensor%s", op,
                            asks ? " and a fill_value" : "");
    sp_tensor *t = sp__py_tensor_arg(args[0], op, "x");
    if (!t) return NULL;
    if (!how.has_dtype) how.dtype = (sp_dtype)t->dtype;
    how.has_dtype = true;
    if (asks) return filled_with(op, t, t->rank, t->shape, given, &how);
    return filled(t, t->rank, t->shape, value, &how);
}

static PyObject *zeros_like(PyObject *module, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    (void)module;
    return like("zeros_like", args, n, names, &zero, false);
}

static PyObject *ones_like(PyObject *module, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    (void)module;
    return like("ones_like", args, n, names, &one, false);
}

static PyObject *empty_like(PyObject *module, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    (void)module;
    return like("empty_like", args, n, names, NULL, false);
}

static PyObject *full_like(PyObject *module, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    (void)module;
    return like("full_like", args, n, names, NULL, true);
}

/* ---- x.new_...: x's dtype unless said otherwise ----- */

static PyObject *new_sized(PyObject *self, const char *op, PyObject *const *args, Py_ssize_t n,
                           PyObject *names, const sp_scalar *value)
{
    int64_t sizes[SP_MAX_RANK];
    int rank;
    PyObject *size = NULL;
    sp_py_making how;
    if (sp__py_making(op, args + n, names, "size", &size, &how) < 0) return NULL;
    if (take_size(op, args, n, size, sizes, &rank) < 0) return NULL;
    if (!how.has_dtype) how.dtype = (sp_dtype)sp__py_handle(self)->dtype;
    how.has_dtype = true;
    return filled(sp__py_handle(self), rank, sizes, value, &how);
}

static PyObject *new_zeros(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    return new_sized(self, "new_zeros", args, n, names, &zero);
}

static PyObject *new_ones(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    return new_sized(self, "new_ones", args, n, names, &one);
}

static PyObject *new_empty(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    return new_sized(self, "new_empty", args, n, names, NULL);
}

static PyObject *new_full(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    int64_t sizes[SP_MAX_RANK];
    int rank;
    PyObject *value = n > 1 ? args[1] : NULL;
    sp_py_making how;
    if (sp__py_making("new_full", args + n, names, "fill_value", &value, &how) < 0) return NULL;
    if (n < 1 || n > 2 || !value)
        return PyErr_Format(PyExc_TypeError, "new_full: expected a size and a fill_value");
    if (sp__py_ints(args[0], "new_full", "size", sizes, &rank) < 0) return NULL;
    if (!how.has_dtype) how.dtype = (sp_dtype)sp__py_handle(self)->dtype;
    how.has_dtype = true;
    return filled_with("new_full", sp__py_handle(self), rank, sizes, value, &how);
}

static PyObject *new_tensor(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    sp_py_making how;
    sp_tensor *out = NULL;
    if (sp__py_making("new_tensor", args + n, names, NULL, NULL, &how) < 0) return NULL;
    if (n != 1) return PyErr_Format(PyExc_TypeError, "new_tensor: expected data");
    sp_dtype dtype = how.has_dtype ? how.dtype : (sp_dtype)sp__py_handle(self)->dtype;
    if (sp__py_tensor_of(args[0], &dtype, "new_tensor", &out) < 0) return NULL;
    return sp__py_made(SP_OK, &out, &how);
}

/* ---- tables ----- */

PyMethodDef sp__py_new_methods[] = {
    SP_PY_ROW(
        "new_zeros", new_zeros,
        "new_zeros($self, *size, dtype=None, requires_grad=False)\n--\n\nZeros of self's dtype."),
    SP_PY_ROW(
        "new_ones", new_ones,
        "new_ones($self, *size, dtype=None, requires_grad=False)\n--\n\nOnes of self's dtype."),
    SP_PY_ROW(
        "new_empty", new_empty,
        "new_empty($self, *size, dtype=None, requires_grad=False)\n--\n\nA tensor of self's dtype "
        "to be "
        "filled."),
    SP_PY_ROW(
        "new_full", new_full,
        "new_full($self, size, fill_value, *, dtype=None, requires_grad=False)\n--\n\nOne number, "
        "in self's "
        "dtype."),
    SP_PY_ROW(
        "new_tensor", new_tensor,
        "new_tensor($self, data, *, dtype=None, requires_grad=False)\n--\n\nA copy of data in "
        "self's "
        "dtype."),
    {NULL, NULL, 0, NULL},
};

PyMethodDef sp__py_create_functions[] = {
    SP_PY_ROW(
        "tensor", tensor,
        "tensor(data, *, dtype=None, device=None, requires_grad=False)\n--\n\nA tensor of a copy "
        "of data.\n\ndata is a number, a "
        "nested sequence of numbers, an array or a tensor. Without a dtype, Python's floats become "
        "float32, ints int64, bools "
        "bool, and arrays keep theirs (smaller ints become int64).\n\n>>> spool.tensor([[1, 2], "
        "[3, 4]]).shape\n"
        "spool.Size([2, 2])"),
    SP_PY_ROW(
        "as_tensor", as_tensor,
        "as_tensor(data, *, dtype=None, device=None, requires_grad=False)\n--\n\nLike tensor(), "
        "but without a copy where data is a "
        "tensor or an array that can be shared."),
    SP_PY_ROW(
        "zeros", zeros,
        "zeros(*size, dtype=None, device=None, requires_grad=False)\n--\n\nA tensor of zeros."),
    SP_PY_ROW("ones", ones,
              "ones(*size, dtype=None, device=None, requires_grad=False)\n--\n\nA tensor of ones."),
    SP_PY_ROW(
        "zeros_like", zeros_like,
        "zeros_like(x, *, dtype=None, requires_grad=False)\n--\n\nZeros of x's shape and dtype."),
    SP_PY_ROW(
        "ones_like", ones_like,
        "ones_like(x, *, dtype=None, requires_grad=False)\n--\n\nOnes of x's shape and dtype."),
    SP_PY_ROW(
        "empty_like", empty_like,
        "empty_like(x, *, dtype=None, requires_grad=False)\n--\n\nA tensor of x's shape and dtype "
        "to be filled."),
    SP_PY_ROW(
        "full_like", full_like,
        "full_like(x, fill_value, *, dtype=None, requires_grad=False)\n--\n\nOne number in x's "
        "shape and dtype."),
    {NULL, NULL, 0, NULL},
};
