/* One tensor as several: split, chunk, tensor_split, unbind and the like.
 *
 * They yield tuples of views, as many as the arguments say, which the op table has no form for.
 * Each is a function and, where one tensor comes first, a method.
 */
#include "bindings/python/ext/py_int.h"

#include "ops_gen.h"
#include "tensor/memory.h"

/* ---- arguments ----- */

enum { MAX_WORDS = 3 };

int sp__py_take(const char *op, const char *const *words, int n_words, PyObject *self,
                PyObject *const *args, Py_ssize_t n, PyObject *names, PyObject **value)
{
    int at = 0;
    for (int i = 0; i < n_words; i++) value[i] = NULL;
    if (self) value[at++] = self;
    if (at + n > n_words) {
        PyErr_Format(PyExc_TypeError, "%s: too many positional arguments, at most %d fit", op,
                     n_words - at);
        return -1;
    }
    for (Py_ssize_t i = 0; i < n; i++) value[at++] = args[i];
    for (Py_ssize_t i = 0; names && i < PyTuple_GET_SIZE(names); i++) {
        PyObject *name = PyTuple_GET_ITEM(names, i);
        int k = 0;
        while (k < n_words && PyUnicode_CompareWithASCIIString(name, words[k]) != 0) k++;
        if (k == n_words || value[k]) {
            PyErr_Format(PyExc_TypeError,
                         k == n_words ? "%s: unexpected argument %R"
                                      : "%s: argument %R is given twice",
                         op, name);
            return -1;
        }
        value[k] = args[n + i];
    }
    return 0;
}

typedef struct parts { /* what the functions below have in common */
    const char *op;
    sp_tensor *x; /* borrowed */
    int64_t size; /* of x along dim */
    int dim;
} parts;

static int parts_of(parts *p, const char *op, PyObject *x, PyObject *dim)
{
    int64_t d = 0;
    p->op = op;
    if (!x) {
        PyErr_Format(PyExc_TypeError, "%s: argument 'x' is missing", op);
        return -1;
    }
    p->x = sp__py_tensor_arg(x, op, "x");
    if (!p->x || (dim && sp__py_int(dim, op, "dim", &d) < 0)) return -1;
    if (p->x->rank == 0) {
        PyErr_Format(sp__py_shape_error, "%s: a tensor without dimensions has no parts", op);
        return -1;
    }
    sp_status status = sp__dim_normalize(op, d, p->x->rank, &p->dim);
    if (status) return sp__py_raise(status), -1;
    p->size = p->x->shape[p->dim];
    return 0;
}

/* A list of any length; to be freed with PyMem_Free. */
static int64_t *take_ints(const char *op, const char *word, PyObject *o, int *n)
{
    PyObject *sequence = PySequence_Fast(o, "expected ints");
    if (!sequence) return NULL;
    *n = (int)PySequence_Fast_GET_SIZE(sequence);
    int64_t *list = PyMem_New(int64_t, *n + 1);
    if (!list) PyErr_NoMemory();
    for (int i = 0; list && i < *n; i++) {
        if (sp__py_int(PySequence_Fast_GET_ITEM(sequence, i), op, word, &list[i]) == 0) continue;
        PyMem_Free(list);
        list = NULL;
    }
    Py_DECREF(sequence);
    return list;
}

static bool is_list(PyObject *o)
{
    return !sp__py_is_tensor(o) && !PyIndex_Check(o);
}

/* ---- making the tuple ----- */

typedef sp_status (*part_fn)(const parts *p, int64_t i, void *ctx, sp_tensor **out);

static PyObject *tuple_of(const parts *p, int64_t n, part_fn part, void *ctx)
{
    PyObject *tuple = PyTuple_New((Py_ssize_t)n);
    for (int64_t i = 0; tuple && i < n; i++) {
        sp_tensor *made = NULL;
        sp_status status = part(p, i, ctx, &made);
        if (status != SP_OK) {
            sp__py_raise(status);
            Py_CLEAR(tuple);
            break;
        }
        PyTuple_SET_ITEM(tuple, (Py_ssize_t)i, sp__py_object(made));
    }
    return tuple;
}

static sp_status even_part(const parts *p, int64_t i, void *ctx, sp_tensor **out)
{
    int64_t step = *(int64_t *)ctx, end = p->size - i * step < step ? p->size : (i + 1) * step;
    return sp_slice(p->x, p->dim, i * step, end, NULL, out);
}

/* Parts of `step` elements, the last one smaller; of no elements, one part. */
static PyObject *even_parts(const parts *p, int64_t step)
{
    int64_t n = step ? p->size / step + (p->size % step != 0) : 1;
    return tuple_of(p, n ? n : 1, even_part, &step);
}

static PyObject *listed_parts(const parts *p, PyObject *sizes)
{
    int n;
    int64_t *list = take_ints(p->op, "split_size", sizes, &n);
    PyObject *tuple = NULL;
    if (!list) return NULL;
    sp_tensor **out = PyMem_New(sp_tensor *, n + 1);
    if (!out) {
        PyErr_NoMemory();
    } else {
        sp_status status = sp_split(p->x, list, n, p->dim, out);
        tuple = status == SP_OK ? sp__py_tuple(out, n) : sp__py_raise(status);
    }
    PyMem_Free(out);
    PyMem_Free(list);
    return tuple;
}

/* ---- split, chunk ----- */

static PyObject *split_of(const char *op, PyObject *x, PyObject *size, PyObject *dim)
{
    parts p;
    int64_t step;
    if (parts_of(&p, op, x, dim) < 0) return NULL;
    if (!size) return PyErr_Format(PyExc_TypeError, "%s: argument 'split_size' is missing", op);
    if (is_list(size)) return listed_parts(&p, size);
    if (sp__py_int(size, op, "split_size", &step) < 0) return NULL;
    if (step < 0 || (step == 0 && p.size > 0))
        return PyErr_Format(PyExc_ValueError, "%s: split_size is %lld, expected 1 or more", op,
                            (long long)step);
    return even_parts(&p, step);
}

static PyObject *split_call(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    static const char *const words[] = {"x", "split_size", "dim"};
    PyObject *v[MAX_WORDS];
    if (sp__py_take("split", words, 3, self, args, n, names, v) < 0) return NULL;
    return split_of("split", v[0], v[1], v[2]);
}

static PyObject *chunk_call(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    static const char *const words[] = {"x", "chunks", "dim"};
    PyObject *v[MAX_WORDS];
    parts p;
    int64_t chunks, step;
    if (sp__py_take("chunk", words, 3, self, args, n, names, v) < 0) return NULL;
    if (parts_of(&p, "chunk", v[0], v[2]) < 0) return NULL;
    if (!v[1]) return PyErr_Format(PyExc_TypeError, "chunk: argument 'chunks' is missing");
    if (sp__py_int(v[1], "chunk", "chunks", &chunks) < 0) return NULL;
    if (chunks < 1)
        return PyErr_Format(PyExc_ValueError, "chunk: chunks is %lld, expected 1 or more",
                            (long long)chunks);
    step = p.size / chunks + (p.size % chunks != 0);
    if (step == 0) return tuple_of(&p, chunks, even_part, &step); /* that many empty parts */
    return even_parts(&p, step);
}

/* ---- tensor_split ----- */

typedef struct cuts {
    int64_t *at;
    int64_t n;
} cuts;

static sp_status part_between(const parts *p, int64_t i, void *ctx, sp_tensor **out)
{
    const cuts *c = ctx;
    return sp_slice(p->x, p->dim, i ? c->at[i - 1] : 0, i < c->n ? c->at[i] : p->size, NULL, out);
}

/* As equal as can be: the first size % sections have one element more. */
static sp_status nearly_even_part(const parts *p, int64_t i, void *ctx, sp_tensor **out)
{
    int64_t sections = *(int64_t *)ctx, small = p->size / sections, larger = p->size % sections;
    int64_t start = i * small + (i < larger ? i : larger);
    return sp_slice(p->x, p->dim, start, start + small + (i < larger), NULL, out);
}

/* indices as a list; a tensor's numbers count as such, one without dimensions as a number. */
static PyObject *plain_cuts(PyObject *o)
{
    return sp__py_is_tensor(o) ? sp__py_tolist(sp__py_handle(o)) : Py_NewRef(o);
}

static PyObject *cut_parts(const parts *p, PyObject *where)
{
    int n = 0;
    int64_t sections;
    if (!is_list(where)) {
        if (sp__py_int(where, p->op, "indices_or_sections", &sections) < 0) return NULL;
        if (sections < 1)
            return PyErr_Format(PyExc_ValueError, "%s: %lld sections, expected 1 or more", p->op,
                                (long long)sections);
        return tuple_of(p, sections, nearly_even_part, &sections);
    }
    cuts c = {.at = take_ints(p->op, "indices_or_sections", where, &n)};
    if (!c.at) return NULL;
    c.n = n;
    PyObject *tuple = tuple_of(p, n + 1, part_between, &c);
    PyMem_Free(c.at);
    return tuple;
}

static PyObject *tensor_split_call(PyObject *self, PyObject *const *args, Py_ssize_t n,
                                   PyObject *names)
{
    static const char *const words[] = {"x", "indices_or_sections", "dim"};
    PyObject *v[MAX_WORDS];
    parts p;
    if (sp__py_take("tensor_split", words, 3, self, args, n, names, v) < 0) return NULL;
    if (parts_of(&p, "tensor_split", v[0], v[2]) < 0) return NULL;
    if (!v[1])
        return PyErr_Format(PyExc_TypeError,
                            "tensor_split: argument 'indices_or_sections' is missing");
    PyObject *where = plain_cuts(v[1]);
    PyObject *tuple = where ? cut_parts(&p, where) : NULL;
    Py_XDECREF(where);
    return tuple;
}

/* ---- unbind ----- */

static sp_status element(const parts *p, int64_t i, void *ctx, sp_tensor **out)
{
    (void)ctx;
    return sp_select(p->x, p->dim, i, out);
}

static PyObject *unbind_call(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    static const char *const words[] = {"x", "dim"};
    PyObject *v[MAX_WORDS];
    parts p;
    if (sp__py_take("unbind", words, 2, self, args, n, names, v) < 0) return NULL;
    if (parts_of(&p, "unbind", v[0], v[1]) < 0) return NULL;
    return tuple_of(&p, p.size, element, NULL);
}

/* ---- split_with_sizes, hsplit, vsplit, dsplit ----- */

static PyObject *split_with_sizes_call(PyObject *self, PyObject *const *args, Py_ssize_t n,
                                       PyObject *names)
{
    static const char *const words[] = {"x", "split_sizes", "dim"};
    PyObject *v[MAX_WORDS];
    parts p;
    if (sp__py_take("split_with_sizes", words, 3, self, args, n, names, v) < 0) return NULL;
    if (parts_of(&p, "split_with_sizes", v[0], v[2]) < 0) return NULL;
    if (!v[1] || !is_list(v[1]))
        return PyErr_Format(PyExc_TypeError, "split_with_sizes: expected a list of split_sizes");
    return listed_parts(&p, v[1]);
}

/* Along dimension `dim` of a tensor of at least `rank` dimensions; a number of sections must divide
 * the size. */
static PyObject *split_evenly(const char *op, int dim, int rank, PyObject *self,
                              PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    static const char *const words[] = {"x", "indices_or_sections"};
    PyObject *v[MAX_WORDS];
    int64_t sections;
    parts p;
    if (sp__py_take(op, words, 2, self, args, n, names, v) < 0) return NULL;
    if (parts_of(&p, op, v[0], NULL) < 0) return NULL;
    if (!v[1])
        return PyErr_Format(PyExc_TypeError, "%s: argument 'indices_or_sections' is missing", op);
    if (p.x->rank < rank)
        return PyErr_Format(sp__py_shape_error,
                            "%s: x has shape %s, expected %d dimensions or more", op, SP_SHAPE(p.x),
                            rank);
    p.dim = dim < p.x->rank ? dim : 0, p.size = p.x->shape[p.dim];
    if (!is_list(v[1])) {
        if (sp__py_int(v[1], op, "indices_or_sections", &sections) < 0) return NULL;
        if (sections > 0 && p.size % sections != 0)
            return PyErr_Format(sp__py_shape_error,
                                "%s: %lld elements in dimension %d are not divisible into %lld "
                                "equal parts",
                                op, (long long)p.size, p.dim, (long long)sections);
    }
    return cut_parts(&p, v[1]);
}

static PyObject *hsplit_call(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    return split_evenly("hsplit", 1, 1, self, args, n, names);
}

static PyObject *vsplit_call(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    return split_evenly("vsplit", 0, 2, self, args, n, names);
}

static PyObject *dsplit_call(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    return split_evenly("dsplit", 2, 3, self, args, n, names);
}

/* ---- tables ----- */

SP_PY_BOTH(split)
SP_PY_BOTH(chunk)
SP_PY_BOTH(tensor_split)
SP_PY_BOTH(unbind)
SP_PY_BOTH(split_with_sizes)
SP_PY_BOTH(hsplit)
SP_PY_BOTH(vsplit)
SP_PY_BOTH(dsplit)

#define SPLIT_DOC                                                                                  \
    "split_size, dim=0)\n--\n\nx in parts of split_size elements along dim, the last one "         \
    "smaller; or "                                                                                 \
    "of the sizes that a list names.\n\nA tuple of views."
#define CHUNK_DOC                                                                                  \
    "chunks, dim=0)\n--\n\nx in that many parts of equal size along dim; the last may be "         \
    "smaller, "                                                                                    \
    "and there may be fewer.\n\nA tuple of views."
#define TENSOR_SPLIT_DOC                                                                           \
    "indices_or_sections, dim=0)\n--\n\nx in that many parts, as equal as can be, or cut at the "  \
    "indices given.\n\nA tuple of views."
#define SIZES_DOC                                                                                  \
    "split_sizes, dim=0)\n--\n\nx in parts of these sizes along dim: a tuple of views."
#define HSPLIT_DOC                                                                                 \
    "indices_or_sections)\n--\n\nx in equal parts along dimension 1 (0, where there is no "        \
    "other), "                                                                                     \
    "or cut at the indices given."
#define VSPLIT_DOC                                                                                 \
    "indices_or_sections)\n--\n\nx in equal parts along dimension 0, or cut at the indices given."
#define DSPLIT_DOC                                                                                 \
    "indices_or_sections)\n--\n\nx in equal parts along dimension 2, or cut at the indices given."
#define UNBIND_DOC "dim=0)\n--\n\nx[0], x[1], ... along dim: a tuple of views."

/* clang-format off */
#define JOIN_ROWS(ROW) \
    ROW(split, SPLIT_DOC) \
    ROW(chunk, CHUNK_DOC) \
    ROW(tensor_split, TENSOR_SPLIT_DOC) \
    ROW(unbind, UNBIND_DOC) \
    ROW(split_with_sizes, SIZES_DOC) \
    ROW(hsplit, HSPLIT_DOC) \
    ROW(vsplit, VSPLIT_DOC) \
    ROW(dsplit, DSPLIT_DOC)
/* clang-format on */

SP_PY_TABLES(join, JOIN_ROWS);
