/* Several tensors made to fit each other: broadcast_tensors, meshgrid, atleast_1d and so on.
 *
 * They take any number of tensors as arguments, and most yield as many in a tuple: the op table has
 * no form for that.
 */
#include "bindings/python/ext/py_int.h"

#include "ops_gen.h"

/* ---- arguments ----- */

typedef struct listed { /* f(a, b) and f([a, b]) */
    PyObject *sequence; /* owned */
    Py_ssize_t n;
} listed;

/* A number of tensors, as arguments or as one sequence. */
static int listed_of(const char *op, PyObject *const *args, Py_ssize_t n, listed *out)
{
    bool one = n == 1 && (PyTuple_Check(args[0]) || PyList_Check(args[0]));
    out->sequence = one ? PySequence_Tuple(args[0]) : PyTuple_New(n);
    if (!out->sequence) return -1;
    for (Py_ssize_t i = 0; !one && i < n; i++)
        PyTuple_SET_ITEM(out->sequence, i, Py_NewRef(args[i]));
    out->n = PyTuple_GET_SIZE(out->sequence);
    for (Py_ssize_t i = 0; i < out->n; i++) {
        if (sp__py_tensor_arg(PyTuple_GET_ITEM(out->sequence, i), op, "tensors")) continue;
        Py_CLEAR(out->sequence);
        return -1;
    }
    return 0;
}

static sp_tensor *listed_at(const listed *l, int64_t i)
{
    return sp__py_handle(PyTuple_GET_ITEM(l->sequence, (Py_ssize_t)i));
}

typedef struct common_shape {
    const listed *tensors;
    int64_t shape[SP_MAX_RANK];
    int rank;
    bool swapped; /* of a grid: its first two dimensions */
} common_shape;

typedef sp_status (*fit_fn)(const common_shape *s, int64_t i, sp_tensor **out);

static PyObject *tuple_of(const common_shape *s, fit_fn fit)
{
    Py_ssize_t n = s->tensors->n;
    PyObject *tuple = PyTuple_New(n);
    for (Py_ssize_t i = 0; tuple && i < n; i++) {
        sp_tensor *made = NULL;
        sp_status status = fit(s, i, &made);
        if (status != SP_OK) {
            sp__py_raise(status);
            Py_CLEAR(tuple);
            break;
        }
        PyTuple_SET_ITEM(tuple, i, sp__py_object(made));
    }
    return tuple;
}

/* One more shape met; the rank of s is that of all already. */
static int meet(const char *op, int64_t i, const int64_t *shape, int rank, common_shape *s)
{
    char text[SP_SHAPE_TEXT];
    int64_t *to = s->shape + s->rank - rank;
    for (int d = 0; d < rank; d++) {
        if (shape[d] == 1 || shape[d] == to[d]) continue;
        if (to[d] != 1) {
            PyErr_Format(sp__py_shape_error,
                         "%s: shape %s (number %lld) does not broadcast with those before it", op,
                         sp__shape_text(rank, shape, text, sizeof text), (long long)i);
            return -1;
        }
        to[d] = shape[d];
    }
    return 0;
}

static int broadcast_shape(const listed *l, common_shape *s)
{
    s->tensors = l, s->rank = 0;
    for (Py_ssize_t i = 0; i < l->n; i++)
        if (listed_at(l, i)->rank > s->rank) s->rank = listed_at(l, i)->rank;
    for (int d = 0; d < s->rank; d++) s->shape[d] = 1;
    for (Py_ssize_t i = 0; i < l->n; i++) {
        const sp_tensor *t = listed_at(l, i);
        if (meet("broadcast_tensors", i, t->shape, t->rank, s) < 0) return -1;
    }
    return 0;
}

static sp_status broadcast_part(const common_shape *s, int64_t i, sp_tensor **out)
{
    return sp_expand(listed_at(s->tensors, i), s->shape, s->rank, out);
}

static PyObject *broadcast_tensors(PyObject *module, PyObject *const *args, Py_ssize_t n)
{
    (void)module;
    listed l;
    common_shape shape;
    PyObject *tuple = NULL;
    if (listed_of("broadcast_tensors", args, n, &l) < 0) return NULL;
    if (broadcast_shape(&l, &shape) == 0) tuple = tuple_of(&shape, broadcast_part);
    Py_DECREF(l.sequence);
    return tuple;
}

/* Vector i along dimension i, or with 0 and 1 swapped for 'xy'. */
static sp_status grid_part(const common_shape *s, int64_t i, sp_tensor **out)
{
    int64_t at = s->swapped && i < 2 && s->rank > 1 ? 1 - i : i, line[SP_MAX_RANK];
    const sp_tensor *t = listed_at(s->tensors, i);
    sp_tensor *lined = NULL;
    for (int d = 0; d < s->rank; d++) line[d] = d == at ? t->numel : 1;
    SP_RETURN_IF(sp_reshape(t, line, s->rank, &lined));
    sp_status status = sp_expand(lined, s->shape, s->rank, out);
    sp_drop(&lined);
    return status;
}

static int grid_shape(const listed *l, bool swapped, common_shape *s)
{
    s->tensors = l, s->rank = (int)l->n, s->swapped = swapped;
    if (l->n > SP_MAX_RANK || l->n == 0) {
        PyErr_Format(sp__py_shape_error, "meshgrid: %zd tensors, expected 1 to %d", l->n,
                     SP_MAX_RANK);
        return -1;
    }
    for (int i = 0; i < s->rank; i++) {
        const sp_tensor *t = listed_at(l, i);
        if (t->rank > 1 || t->dtype != listed_at(l, 0)->dtype) {
            PyErr_Format(sp__py_shape_error,
                         "meshgrid: tensor %d has shape %s and dtype %s; expected one dimension "
                         "each, and one dtype",
                         i, SP_SHAPE(t), sp_dtype_name((sp_dtype)t->dtype));
            return -1;
        }
        s->shape[swapped && i < 2 && s->rank > 1 ? 1 - i : i] = t->numel;
    }
    return 0;
}

static PyObject *meshgrid(PyObject *module, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    (void)module;
    static const char *const words[] = {"indexing"};
    PyObject *v[1], *tuple = NULL;
    listed l;
    common_shape shape;
    if (sp__py_take("meshgrid", words, 1, NULL, args + n, 0, names, v) < 0) return NULL;
    bool xy = v[0] && PyUnicode_Check(v[0]) && !PyUnicode_CompareWithASCIIString(v[0], "xy");
    bool ij = !v[0] || (PyUnicode_Check(v[0]) && !PyUnicode_CompareWithASCIIString(v[0], "ij"));
    if (!xy && !ij)
        return PyErr_Format(PyExc_ValueError, "meshgrid: indexing is %R, expected 'ij' or 'xy'",
                            v[0]);
    if (listed_of("meshgrid", args, n, &l) < 0) return NULL;
    if (grid_shape(&l, xy, &shape) == 0) tuple = tuple_of(&shape, grid_part);
    Py_DECREF(l.sequence);
    return tuple;
}

/* ---- broadcast_shapes ----- */

static PyObject *broadcast_shapes(PyObject *module, PyObject *const *args, Py_ssize_t n)
{
    (void)module;
    common_shape s = {.rank = 0};
    int64_t shape[SP_MAX_RANK];
    int rank;
    for (Py_ssize_t i = 0; i < n; i++) {
        if (sp__py_ints(args[i], "broadcast_shapes", "a shape", shape, &rank) < 0) return NULL;
        if (rank > s.rank) s.rank = rank;
    }
    for (int d = 0; d < s.rank; d++) s.shape[d] = 1;
    for (Py_ssize_t i = 0; i < n; i++) {
        if (sp__py_ints(args[i], "broadcast_shapes", "a shape", shape, &rank) < 0) return NULL;
        for (int d = 0; d < rank; d++)
            if (shape[d] < 0)
                return PyErr_Format(sp__py_shape_error, "broadcast_shapes: a size is %lld",
                                    (long long)shape[d]);
        if (meet("broadcast_shapes", i, shape, rank, &s) < 0) return NULL;
    }
    return sp__py_size(s.rank, s.shape);
}

/* ---- atleast_1d, atleast_2d, atleast_3d ----- */

/* (n) becomes (1, n), of three dimensions (1, n, 1). */
static sp_status with_dims(const sp_tensor *x, int least, sp_tensor **out)
{
    int64_t shape[3] = {1, 1, 1};
    if (x->rank >= least) return sp_alias(x, out);
    if (x->rank == 1) shape[1] = x->shape[0];
    if (x->rank == 2) shape[0] = x->shape[0], shape[1] = x->shape[1];
    return sp_reshape(x, shape, least, out);
}

static sp_status as_line(const common_shape *s, int64_t i, sp_tensor **out)
{
    return with_dims(listed_at(s->tensors, i), 1, out);
}

static sp_status as_plane(const common_shape *s, int64_t i, sp_tensor **out)
{
    return with_dims(listed_at(s->tensors, i), 2, out);
}

static sp_status as_block(const common_shape *s, int64_t i, sp_tensor **out)
{
    return with_dims(listed_at(s->tensors, i), 3, out);
}

/* One tensor yields a tensor, several or a sequence a tuple. */
static PyObject *at_least(const char *op, fit_fn fit, PyObject *const *args, Py_ssize_t n)
{
    listed l;
    bool one = n == 1 && sp__py_is_tensor(args[0]);
    if (listed_of(op, args, n, &l) < 0) return NULL;
    common_shape s = {.tensors = &l};
    PyObject *tuple = tuple_of(&s, fit);
    Py_DECREF(l.sequence);
    if (!one || !tuple) return tuple;
    PyObject *only = Py_NewRef(PyTuple_GET_ITEM(tuple, 0));
    Py_DECREF(tuple);
    return only;
}

static PyObject *atleast_1d(PyObject *module, PyObject *const *args, Py_ssize_t n)
{
    (void)module;
    return at_least("atleast_1d", as_line, args, n);
}

static PyObject *atleast_2d(PyObject *module, PyObject *const *args, Py_ssize_t n)
{
    (void)module;
    return at_least("atleast_2d", as_plane, args, n);
}

static PyObject *atleast_3d(PyObject *module, PyObject *const *args, Py_ssize_t n)
{
    (void)module;
    return at_least("atleast_3d", as_block, args, n);
}

/* ---- block_diag, cartesian_prod: f(a, b) as f([a, b]) ----- */

typedef sp_status (*join_fn)(const sp_tensor *const *tensors, int n, sp_tensor **out);

static PyObject *joined(const char *op, join_fn join, PyObject *const *args, Py_ssize_t n)
{
    listed l;
    sp_tensor *out = NULL;
    if (listed_of(op, args, n, &l) < 0) return NULL;
    const sp_tensor **tensors = PyMem_New(const sp_tensor *, l.n + 1);
    for (Py_ssize_t i = 0; tensors && i < l.n; i++) tensors[i] = listed_at(&l, i);
    PyObject *result =
        tensors ? sp__py_result(join(tensors, (int)l.n, &out), out) : PyErr_NoMemory();
    PyMem_Free(tensors);
    Py_DECREF(l.sequence);
    return result;
}

static PyObject *block_diag(PyObject *module, PyObject *const *args, Py_ssize_t n)
{
    (void)module;
    return joined("block_diag", sp_block_diag, args, n);
}

static PyObject *cartesian_prod(PyObject *module, PyObject *const *args, Py_ssize_t n)
{
    (void)module;
    return joined("cartesian_prod", sp_cartesian_prod, args, n);
}

/* ---- table ----- */

#define ROW(name, function, doc)                                                                   \
    {                                                                                              \
        name, (PyCFunction)(void *)function, METH_FASTCALL, doc                                    \
    }

PyMethodDef sp__py_fit_functions[] = {
    ROW("broadcast_tensors", broadcast_tensors,
        "broadcast_tensors(*tensors)\n--\n\nThe tensors expanded to the shape that they broadcast "
        "to."),
    ROW("broadcast_shapes", broadcast_shapes,
        "broadcast_shapes(*shapes)\n--\n\nThe shape that tensors of these shapes broadcast to."),
    ROW("block_diag", block_diag,
        "block_diag(*tensors)\n--\n\nMatrices along the diagonal of a larger one, zeros elsewhere; "
        "vectors and numbers are rows."),
    ROW("cartesian_prod", cartesian_prod,
        "cartesian_prod(*tensors)\n--\n\nAll tuples of an element of each vector, the last one "
        "varying fastest."),
    ROW("atleast_1d", atleast_1d,
        "atleast_1d(*tensors)\n--\n\nThe tensors with at least one dimension, as views."),
    ROW("atleast_2d", atleast_2d,
        "atleast_2d(*tensors)\n--\n\nThe tensors with at least two dimensions, as views; (n) "
        "becomes (1, n)."),
    ROW("atleast_3d", atleast_3d,
        "atleast_3d(*tensors)\n--\n\nThe tensors with at least three dimensions, as views; (n) "
        "becomes (1, n, 1), (m, n) becomes (m, n, 1)."),
    {"meshgrid", (PyCFunction)(void *)meshgrid, METH_FASTCALL | METH_KEYWORDS,
     "meshgrid(*tensors, indexing='ij')\n--\n\nVectors as coordinates of a grid: tensor i varies "
     "along dimension i alone.\n\nindexing='xy' swaps the first two dimensions."},
    {NULL, NULL, 0, NULL},
};
