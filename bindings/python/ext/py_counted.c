/* nonzero, unique and unique_consecutive: as many results as the arguments ask for; equal and
 * allclose: a bool. Each is a function and a method.
 */
#include "bindings/python/ext/py_int.h"

#include "ops/index.h"
#include "ops_gen.h"

static int take_bool(PyObject *o, const char *op, const char *word, bool *out)
{
    return o ? sp__py_bool(o, op, word, out) : 0;
}

/* ---- nonzero ----- */

/* The columns of places; of a number, those of it as a vector. */
static PyObject *columns(sp_tensor *places)
{
    PyObject *tuple = PyTuple_New((Py_ssize_t)places->shape[1]);
    for (Py_ssize_t i = 0; tuple && i < places->shape[1]; i++) {
        sp_tensor *column = NULL;
        sp_status status = sp_select(places, 1, i, &column);
        if (status != SP_OK) {
            sp__py_raise(status);
            Py_CLEAR(tuple);
            break;
        }
        PyTuple_SET_ITEM(tuple, i, sp__py_object(column));
    }
    return tuple;
}

static PyObject *nonzero_call(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    static const char *const words[] = {"x", "as_tuple"};
    PyObject *v[2];
    bool as_tuple = false;
    sp_tensor *places = NULL, *line = NULL;
    if (sp__py_take("nonzero", words, 2, self, args, n, names, v) < 0) return NULL;
    if (!v[0]) return PyErr_Format(PyExc_TypeError, "nonzero: argument 'x' is missing");
    const sp_tensor *x = sp__py_tensor_arg(v[0], "nonzero", "x");
    if (!x || take_bool(v[1], "nonzero", "as_tuple", &as_tuple) < 0) return NULL;
    if (!as_tuple) return sp__py_result(sp_nonzero(x, &places), places);
    sp_status status = x->rank ? SP_OK : sp_unsqueeze(x, 0, &line);
    if (status == SP_OK) status = sp_nonzero(line ? line : x, &places);
    PyObject *tuple = status == SP_OK ? columns(places) : sp__py_raise(status);
    sp_drop(&places), sp_drop(&line);
    return tuple;
}

/* ---- unique ----- */

/* What was asked for of the three, as one tensor or a tuple. */
static PyObject *asked(sp_tensor **t, bool inverse, bool counts)
{
    sp_tensor *kept[3] = {t[0]};
    int n = 1;
    if (inverse)
        kept[n++] = t[1];
    else
        sp_drop(&t[1]);
    if (counts)
        kept[n++] = t[2];
    else
        sp_drop(&t[2]);
    return n == 1 ? sp__py_object(kept[0]) : sp__py_tuple(kept, n);
}

/* v: x, sorted (not of unique_consecutive), return_inverse, return_counts, dim */
static PyObject *unique_of(const char *op, PyObject *const *v, bool sorted)
{
    bool inverse = false, counts = false, ignored = true;
    int64_t dim = 0;
    sp_tensor *t[3] = {NULL};
    if (!v[0]) return PyErr_Format(PyExc_TypeError, "%s: argument 'x' is missing", op);
    const sp_tensor *x = sp__py_tensor_arg(v[0], op, "x");
    bool along = v[4] && v[4] != Py_None;
    if (!x || take_bool(v[1], op, "sorted", &ignored) < 0 ||
        take_bool(v[2], op, "return_inverse", &inverse) < 0 ||
        take_bool(v[3], op, "return_counts", &counts) < 0 ||
        (along && sp__py_int(v[4], op, "dim", &dim) < 0))
        return NULL;
    const sp_unique_opt all = {.size = sizeof all,
                               .return_inverse = inverse,
                               .return_counts = counts,
                               .has_dim = along,
                               .dim = dim};
    const sp_unique_consecutive_opt near = {.size = sizeof near,
                                            .return_inverse = inverse,
                                            .return_counts = counts,
                                            .has_dim = along,
                                            .dim = dim};
    sp_status status = sorted ? sp_unique(x, &all, &t[0], &t[1], &t[2])
                              : sp_unique_consecutive(x, &near, &t[0], &t[1], &t[2]);
    return status == SP_OK ? asked(t, inverse, counts) : sp__py_raise(status);
}

static PyObject *unique_call(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    static const char *const words[] = {"x", "sorted", "return_inverse", "return_counts", "dim"};
    PyObject *v[5];
    if (sp__py_take("unique", words, 5, self, args, n, names, v) < 0) return NULL;
    return unique_of("unique", v, true);
}

static PyObject *unique_consecutive_call(PyObject *self, PyObject *const *args, Py_ssize_t n,
                                         PyObject *names)
{
    static const char *const words[] = {"x", "return_inverse", "return_counts", "dim"};
    PyObject *given[4], *v[5] = {NULL};
    if (sp__py_take("unique_consecutive", words, 4, self, args, n, names, given) < 0) return NULL;
    v[0] = given[0];
    for (int i = 1; i < 4; i++) v[i + 1] = given[i];
    return unique_of("unique_consecutive", v, false);
}

/* ---- equal, allclose ----- */

/* An op's result, one truth value, as Python's; takes it. */
static PyObject *truth_of(sp_status status, sp_tensor *const *t)
{
    sp_scalar value = SP_INT(0);
    sp_tensor *taken = *t;
    if (status == SP_OK) status = sp__read_number(taken, &value);
    sp_drop(&taken);
    return status == SP_OK ? PyBool_FromLong(value.v.i != 0) : sp__py_raise(status);
}

static int two_tensors(const char *op, PyObject *const *v, const sp_tensor **x, const sp_tensor **y)
{
    if (!v[0] || !v[1]) {
        PyErr_Format(PyExc_TypeError, "%s: expected two tensors", op);
        return -1;
    }
    *x = sp__py_tensor_arg(v[0], op, "x");
    *y = *x ? sp__py_tensor_arg(v[1], op, "other") : NULL;
    return *y ? 0 : -1;
}

static PyObject *equal_call(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    static const char *const words[] = {"x", "other"};
    PyObject *v[2];
    const sp_tensor *x, *y;
    sp_tensor *out = NULL;
    if (sp__py_take("equal", words, 2, self, args, n, names, v) < 0) return NULL;
    if (two_tensors("equal", v, &x, &y) < 0) return NULL;
    sp_status status = sp_equal(x, y, &out);
    return truth_of(status, &out);
}

static PyObject *allclose_call(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    static const char *const words[] = {"x", "other", "rtol", "atol", "equal_nan"};
    PyObject *v[5];
    const sp_tensor *x, *y;
    sp_tensor *out = NULL;
    sp_allclose_opt opt = {
        .size = sizeof opt, .has_rtol = true, .rtol = 1e-5, .has_atol = true, .atol = 1e-8};
    if (sp__py_take("allclose", words, 5, self, args, n, names, v) < 0) return NULL;
    if (two_tensors("allclose", v, &x, &y) < 0) return NULL;
    if ((v[2] && sp__py_float(v[2], "allclose", "rtol", &opt.rtol) < 0) ||
        (v[3] && sp__py_float(v[3], "allclose", "atol", &opt.atol) < 0) ||
        take_bool(v[4], "allclose", "equal_nan", &opt.equal_nan) < 0)
        return NULL;
    sp_status status = sp_allclose(x, y, &opt, &out);
    return truth_of(status, &out);
}

/* ---- tables ----- */

SP_PY_BOTH(nonzero)
SP_PY_BOTH(unique)
SP_PY_BOTH(unique_consecutive)
SP_PY_BOTH(equal)
SP_PY_BOTH(allclose)

#define NONZERO_DOC                                                                                \
    "as_tuple=False)\n--\n\nThe places of x's elements that are not 0, in row-major order: "       \
    "(places, "                                                                                    \
    "dimensions), int64; as_tuple: one vector a dimension.\n\nHow many there are is read, which "  \
    "ends a compiled region."
#define UNIQUE_DOC                                                                                 \
    "sorted=True, return_inverse=False, return_counts=False, dim=None)\n--\n\nThe different "      \
    "elements of x, or its slices along dim, in ascending order.\n\nreturn_inverse adds where "    \
    "each went, return_counts how often it stands: then the result is a tuple. How many there "    \
    "are "                                                                                         \
    "is read, which ends a compiled region."
#define EQUAL_DOC                                                                                  \
    "other)\n--\n\nWhether two tensors have one shape and equal elements; NaN equals nothing.\n\n" \
    "A bool; reading it ends a compiled region."
#define ALLCLOSE_DOC                                                                               \
    "other, rtol=1e-05, atol=1e-08, equal_nan=False)\n--\n\nWhether all elements of two tensors "  \
    "are close; see isclose().\n\nA bool; reading it ends a compiled region."
#define CONSECUTIVE_DOC                                                                            \
    "return_inverse=False, return_counts=False, dim=None)\n--\n\nThe elements of x, or its "       \
    "slices "                                                                                      \
    "along dim, of which each differs from the one before; see unique()."

/* clang-format off */
#define COUNTED_ROWS(ROW) \
    ROW(nonzero, NONZERO_DOC) \
    ROW(unique, UNIQUE_DOC) \
    ROW(unique_consecutive, CONSECUTIVE_DOC) \
    ROW(equal, EQUAL_DOC) \
    ROW(allclose, ALLCLOSE_DOC)
/* clang-format on */

SP_PY_TABLES(counted, COUNTED_ROWS);
