/* x[...] and x[...] = value.
 *
 * Ints, slices, None and ... become views, one op each. What tensors, lists and arrays name is left
 * for after these:
 *
 *     masks              become their places in the dimensions they cover (this reads their values)
 *     not side by side   the dimensions named are moved to the front
 *     several            ravel_multi_index makes them one index into these dimensions made one
 *     reading            index_select along that dimension, then the index's shape in its place
 *     writing            index_copy_ into that view, or index_add_; of equal places the last counts
 *
 * so that all of it is differentiable, and all but masks can be traced.
 */
#include "bindings/python/ext/py_int.h"

#include "ops/index.h"
#include "ops_gen.h"
#include "tensor/memory.h"

enum { MAX_NAMED = SP_MAX_RANK, MAX_ITEMS = 4 * SP_MAX_RANK };

/* A tensor in an index, and where it stands among the dimensions that are left. */
typedef struct named {
    sp_tensor *index; /* owned; int64 or bool */
    int dim, covers;  /* its first dimension of the view, and how many: a mask's all */
} named;

typedef struct place {
    sp_tensor *view; /* owned: x after ints, slices, None and ... */
    named named[MAX_NAMED];
    int n_named;
} place;

static void place_drop(place *p)
{
    sp_drop(&p->view);
    for (int i = 0; i < p->n_named; i++) sp_drop(&p->named[i].index);
}

/* Replaces *t by what an op made of it. A macro, so that made is read after the call. */
#define step(t, call, made) step_of(t, call, &(made))
static int step_of(sp_tensor **t, sp_status status, sp_tensor *const *made)
{
    if (status) {
        sp__py_raise(status);
        return -1;
    }
    sp_drop(t);
    *t = *made;
    return 0;
}

/* ---- reading the index ----- */

/* NumPy arrays but not its scalars; array.array and their like. */
static bool is_array(PyObject *item)
{
    if (!PyObject_CheckBuffer(item) || PyBytes_Check(item) || !PySequence_Check(item)) return false;
    bool sized = PySequence_Size(item) >= 0;
    PyErr_Clear();
    return sized;
}

static bool is_named(PyObject *item)
{
    if (sp__py_is_tensor(item))
        return sp__py_handle(item)->rank > 0 || (sp__py_handle(item)->flags & SP_T_WRAPPED);
    return PyList_Check(item) || PyTuple_Check(item) || PyRange_Check(item) || is_array(item);
}

static int named_tensor(PyObject *item, sp_tensor **out)
{
    if (sp__py_is_tensor(item)) {
        *out = sp__retain(sp__py_handle(item));
    } else {
        if (sp__py_tensor_of(item, NULL, "index", out) < 0) return -1;
        /* An empty list has no numbers to tell its dtype. */
        if ((*out)->numel == 0 && (*out)->dtype == SP_FLOAT32) {
            sp_tensor *ints = NULL;
            if (step(out, sp_cast(*out, SP_INT64, &ints), ints) < 0) return -1;
        }
    }
    if ((*out)->dtype == SP_INT32) {
        sp_tensor *ints = NULL;
        if (step(out, sp_cast(*out, SP_INT64, &ints), ints) < 0) return -1;
    }
    if ((*out)->dtype == SP_INT64 || (*out)->dtype == SP_BOOL) return 0;
    PyErr_Format(PyExc_IndexError, "index: a %s tensor is no index; int64, int32 and bool ones are",
                 sp_dtype_name((sp_dtype)(*out)->dtype));
    sp_drop(out);
    return -1;
}

/* How many dimensions of x an item takes; -1 with an exception for what is no index. */
static int consumed_by(PyObject *item)
{
    if (item == Py_None || item == Py_Ellipsis) return 0;
    if (PyLong_CheckExact(item) || PySlice_Check(item)) return 1;
    if (PyBool_Check(item)) return 0;
    if (sp__py_is_tensor(item) && sp__py_handle(item)->dtype == SP_BOOL)
        return sp__py_handle(item)->rank;
    if (is_named(item) || PyIndex_Check(item)) return 1;
    PyErr_Format(PyExc_TypeError,
                 "index: %.100s is no index; ints, slices, None, ... and int64 or bool tensors are",
                 Py_TYPE(item)->tp_name);
    return -1;
}

/* x[item] along one dimension; *out stays NULL when that is all of x. */
static int slice_of(const sp_tensor *x, PyObject *item, int dim, sp_tensor **out)
{
    Py_ssize_t start, stop, by, size = (Py_ssize_t)x->shape[dim];
    *out = NULL;
    if (PySlice_Unpack(item, &start, &stop, &by) < 0) return -1;
    if (by < 1) {
        PyErr_Format(PyExc_ValueError, "index: a slice's step must be 1 or more, not %zd", by);
        return -1;
    }
    PySlice_AdjustIndices(size, &start, &stop, by);
    if (stop < start) stop = start;
    if (start == 0 && stop == size && by == 1) return 0;
    sp_slice_opt opt = {.size = sizeof opt, .has_step = true, .step = by};
    sp_status status = sp_slice(x, dim, start, stop, &opt, out);
    if (status) sp__py_raise(status);
    return status ? -1 : 0;
}

static int apply_slice(place *p, PyObject *item, int dim)
{
    sp_tensor *made;
    if (slice_of(p->view, item, dim, &made) < 0) return -1;
    return made ? step(&p->view, SP_OK, made) : 0;
}

static int apply_named(place *p, PyObject *item, int *dim)
{
    if (p->n_named == MAX_NAMED) {
        PyErr_Format(PyExc_IndexError, "index: more than %d index tensors", MAX_NAMED);
        return -1;
    }
    named *n = &p->named[p->n_named];
    if (named_tensor(item, &n->index) < 0) return -1;
    n->dim = *dim;
    p->n_named++;
    n->covers = n->index->dtype == SP_BOOL ? n->index->rank : 1;
    *dim += n->covers;
    return 0;
}

/* True and False, and tensors that are one of them: all of a new dimension of size 1, or nothing.
 */
static int apply_truth(place *p, bool truth, int *dim)
{
    int64_t zero = 0, n = truth;
    sp_tensor *made = NULL;
    if (p->n_named == MAX_NAMED) {
        PyErr_Format(PyExc_IndexError, "index: more than %d index tensors", MAX_NAMED);
        return -1;
    }
    if (step(&p->view, sp_unsqueeze(p->view, *dim, &made), made) < 0) return -1;
    named *at = &p->named[p->n_named];
    sp_status status = sp_from_data(&zero, SP_INT64, 1, &n, &at->index);
    if (status) return sp__py_raise(status), -1;
    at->dim = (*dim)++, at->covers = 1;
    p->n_named++;
    return 0;
}

/* 1: item is a truth value, in *truth; 0: it is not; -1: an exception. */
static int is_truth(PyObject *item, bool *truth)
{
    *truth = item == Py_True;
    if (PyBool_Check(item)) return 1;
    if (!sp__py_is_tensor(item)) return 0;
    const sp_tensor *t = sp__py_handle(item);
    sp_scalar value;
    if (t->dtype != SP_BOOL || t->rank > 0 || (t->flags & SP_T_WRAPPED)) return 0;
    sp_status status = sp_item(t, &value);
    if (status) return sp__py_raise(status), -1;
    *truth = value.v.i != 0;
    return 1;
}

static int apply_item(place *p, PyObject *item, int *dim, int skipped)
{
    sp_tensor *made = NULL;
    int64_t at;
    if (item == Py_Ellipsis) {
        *dim += skipped;
        return 0;
    }
    if (item == Py_None) return step(&p->view, sp_unsqueeze(p->view, (*dim)++, &made), made);
    if (PySlice_Check(item)) return apply_slice(p, item, (*dim)++);
    bool truth;
    int found = is_truth(item, &truth);
    if (found) return found < 0 ? -1 : apply_truth(p, truth, dim);
    if (is_named(item)) return apply_named(p, item, dim);
    if (sp__py_int(item, "index", "index", &at) < 0) return -1;
    return step(&p->view, sp_select(p->view, *dim, at, &made), made);
}

static int resolve(const sp_tensor *x, PyObject *const *items, Py_ssize_t n, place *p)
{
    int consumed = 0, ellipses = 0, dim = 0;
    *p = (place){.view = sp__retain(x)};
    for (Py_ssize_t i = 0; i < n; i++) {
        int by = consumed_by(items[i]);
        if (by < 0) goto fail;
        consumed += by;
        ellipses += items[i] == Py_Ellipsis;
    }
    if (consumed > x->rank || ellipses > 1 || n > MAX_ITEMS) {
        if (ellipses > 1)
            PyErr_SetString(PyExc_IndexError, "index: more than one ...");
        else
            PyErr_Format(PyExc_IndexError, "index: %d indices for a tensor of shape %s", consumed,
                         SP_SHAPE(x));
        goto fail;
    }
    for (Py_ssize_t i = 0; i < n; i++)
        if (apply_item(p, items[i], &dim, x->rank - consumed) < 0) goto fail;
    return 0;
fail:
    place_drop(p);
    return -1;
}

static int resolve_key(const sp_tensor *x, PyObject *key, place *p)
{
    if (PyTuple_Check(key)) return resolve(x, &PyTuple_GET_ITEM(key, 0), PyTuple_GET_SIZE(key), p);
    return resolve(x, &key, 1, p);
}

/* ---- places named by tensors ----- */

static int check_mask(const sp_tensor *view, const named *n)
{
    const sp_tensor *mask = n->index;
    bool fits = n->dim + mask->rank <= view->rank;
    for (int i = 0; fits && i < mask->rank; i++) fits = mask->shape[i] == view->shape[n->dim + i];
    if (fits) return 0;
    PyErr_Format(PyExc_IndexError,
                 "index: a mask of shape %s at dimension %d of a tensor of shape %s",
                 SP_SHAPE(mask), n->dim, SP_SHAPE(view));
    return -1;
}

/* Masks become their places in their dimensions made one. */
static int read_masks(place *p)
{
    for (int i = 0; i < p->n_named; i++) {
        named *n = &p->named[i];
        if (n->index->dtype != SP_BOOL) continue;
        sp_tensor *places = NULL;
        if (check_mask(p->view, n) < 0) return -1;
        sp_status status =
            sp__check_readable("index", n->index, "use where(), which keeps the shape");
        if (status) return sp__py_raise(status), -1;
        if (step(&n->index, sp__mask_places(n->index, &places), places) < 0) return -1;
    }
    return 0;
}

/* How many elements the dimensions of one index have. */
static int64_t size_of(const place *p, const named *n)
{
    int64_t size = 1;
    for (int d = n->dim; d < n->dim + n->covers; d++) size *= p->view->shape[d];
    return size;
}

/* Indices that do not stand side by side have their dimensions moved to the front, and so are those
 * of the result. */
static int bring_together(place *p)
{
    int64_t dims[SP_MAX_RANK];
    uint32_t taken = 0;
    int rank = 0;
    bool together = true;
    sp_tensor *made = NULL;
    for (int i = 1; i < p->n_named; i++)
        together = together && p->named[i - 1].dim + p->named[i - 1].covers == p->named[i].dim;
    if (together) return 0;
    for (int i = 0; i < p->n_named; i++) {
        named *n = &p->named[i];
        int first = rank;
        for (int d = n->dim; d < n->dim + n->covers; d++) dims[rank++] = d, taken |= 1u << d;
        n->dim = first;
    }
    for (int d = 0; d < p->view->rank; d++)
        if (!(taken & 1u << d)) dims[rank++] = d;
    return step(&p->view, sp_permute(p->view, dims, rank, &made), made);
}

/* The named dimensions as one, and one index of any shape into it. */
typedef struct merged {
    sp_tensor *index, *flat_index; /* owned; the second has one dimension */
    int64_t shape[SP_MAX_RANK];    /* of the view with those dimensions made one */
    int rank, dim, covers;
} merged;

static void merged_drop(merged *m)
{
    sp_drop(&m->index), sp_drop(&m->flat_index);
}

static sp_status one_index(const place *p, sp_tensor **out)
{
    const sp_tensor *in[SP_MAX_RANK];
    int64_t sizes[SP_MAX_RANK];
    if (p->n_named == 1) {
        *out = sp__retain(p->named[0].index);
        return SP_OK;
    }
    for (int i = 0; i < p->n_named; i++)
        in[i] = p->named[i].index, sizes[i] = size_of(p, &p->named[i]);
    return sp_ravel_multi_index(in, p->n_named, sizes, p->n_named, out);
}

static int merge(place *p, merged *m)
{
    *m = (merged){.index = NULL};
    if (read_masks(p) < 0 || bring_together(p) < 0) return -1;
    int64_t joined = 1;
    m->dim = p->named[0].dim;
    for (int i = 0; i < p->n_named; i++)
        m->covers += p->named[i].covers, joined *= size_of(p, &p->named[i]);
    for (int d = 0; d < m->dim; d++) m->shape[m->rank++] = p->view->shape[d];
    m->shape[m->rank++] = joined;
    for (int d = m->dim + m->covers; d < p->view->rank; d++)
        m->shape[m->rank++] = p->view->shape[d];
    sp_status status = one_index(p, &m->index);
    if (status == SP_OK && m->index->rank == 1)
        m->flat_index = sp__retain(m->index);
    else if (status == SP_OK)
        status = sp_reshape(m->index, &m->index->numel, 1, &m->flat_index);
    if (status == SP_OK) return 0;
    merged_drop(m);
    sp__py_raise(status);
    return -1;
}

/* The shape of view[index]: the index's in place of the merged dimension. */
static sp_status result_shape(const merged *m, int64_t *shape, int *rank)
{
    const sp_tensor *index = m->index;
    *rank = 0;
    if (m->rank - 1 + index->rank > SP_MAX_RANK)
        return sp_fail(SP_ESHAPE, "index: the result would have more than %d dimensions",
                       SP_MAX_RANK);
    for (int d = 0; d < m->dim; d++) shape[(*rank)++] = m->shape[d];
    for (int d = 0; d < index->rank; d++) shape[(*rank)++] = index->shape[d];
    for (int d = m->dim + 1; d < m->rank; d++) shape[(*rank)++] = m->shape[d];
    return SP_OK;
}

static sp_status take_merged(const place *p, const merged *m, sp_tensor **out)
{
    int64_t shape[SP_MAX_RANK];
    int rank;
    sp_tensor *whole = NULL, *picked = NULL;
    sp_status status = SP_OK;
    SP_TRY(result_shape(m, shape, &rank));
    if (m->covers == 1)
        whole = sp__retain(p->view);
    else
        SP_TRY(sp_reshape(p->view, m->shape, m->rank, &whole));
    SP_TRY(sp_index_select(whole, m->dim, m->flat_index, &picked));
    if (m->index->rank == 1)
        *out = sp__retain(picked);
    else
        SP_TRY(sp_reshape(picked, shape, rank, out));
out:
    sp_drop(&whole), sp_drop(&picked);
    return status;
}

static int take_named(place *p, sp_tensor **out)
{
    merged m;
    if (merge(p, &m) < 0) return -1;
    sp_status status = take_merged(p, &m, out);
    merged_drop(&m);
    return status ? (sp__py_raise(status), -1) : 0;
}

/* ---- reading ----- */

static PyObject *get_item(PyObject *self, PyObject *key)
{
    const sp_tensor *x = sp__py_handle(self);
    sp_tensor *out = NULL;
    place p;
    if (PyLong_CheckExact(key) && x->rank) {
        int64_t at;
        if (sp__py_int(key, "index", "index", &at) < 0) return NULL;
        return sp__py_result(sp_select(x, 0, at, &out), out);
    }
    if (PySlice_Check(key) && x->rank) {
        if (slice_of(x, key, 0, &out) < 0) return NULL;
        return out ? sp__py_object(out) : sp__py_result(sp_alias(x, &out), out);
    }
    if (resolve_key(x, key, &p) < 0) return NULL;
    int result = 0;
    if (p.n_named) {
        result = take_named(&p, &out);
    } else if (p.view == x) { /* x[...]: a handle of its own all the same */
        sp_status status = sp_alias(x, &out);
        if (status) sp__py_raise(status);
        result = status ? -1 : 0;
    } else {
        out = sp__retain(p.view);
    }
    place_drop(&p);
    return result < 0 ? NULL : sp__py_object(out);
}

static PyObject *sequence_item(PyObject *self, Py_ssize_t at)
{
    sp_tensor *out = NULL;
    const sp_tensor *x = sp__py_handle(self);
    if (x->rank && at >= x->shape[0]) { /* how iteration ends: not worth a message */
        PyErr_SetNone(PyExc_IndexError);
        return NULL;
    }
    return sp__py_result(sp_select(x, 0, at, &out), out);
}

static Py_ssize_t length(PyObject *self)
{
    const sp_tensor *x = sp__py_handle(self);
    if (x->rank) return (Py_ssize_t)x->shape[0];
    PyErr_SetString(PyExc_TypeError, "len: a tensor without dimensions has no length");
    return -1;
}

/* ---- writing ----- */

/* What is assigned: a number, or a tensor (owned). */
typedef struct source {
    sp_scalar number;
    sp_tensor *tensor;
} source;

static int source_of(PyObject *value, const sp_tensor *x, source *out)
{
    out->tensor = NULL;
    if (sp__py_is_tensor(value)) {
        out->tensor = sp__retain(sp__py_handle(value));
        return 0;
    }
    int found = sp__py_number(value, &out->number);
    if (found) return found < 0 ? -1 : 0;
    if (PyComplex_Check(value) && !sp__dtype_is_complex(x->dtype)) {
        PyErr_Format(PyExc_TypeError, "setitem: a complex number into a tensor of %s",
                     sp_dtype_name((sp_dtype)x->dtype));
        return -1;
    }
    sp_dtype dtype = (sp_dtype)x->dtype;
    return sp__py_tensor_of(value, &dtype, "setitem", &out->tensor);
}

static sp_status write_view(sp_tensor *view, const source *from)
{
    if (!from->tensor) return sp_fill_scalar_(view, from->number);
    /* Leading dimensions of size 1 may be more than the place has. */
    const sp_tensor *t = from->tensor;
    int extra = t->rank - view->rank;
    for (int i = 0; i < extra; i++)
        if (t->shape[i] != 1) extra = 0;
    if (extra <= 0) return sp_copy_(view, t);
    sp_tensor *lean = NULL;
    SP_RETURN_IF(sp_reshape(t, t->shape + extra, t->rank - extra, &lean));
    sp_status status = sp_copy_(view, lean);
    sp_drop(&lean);
    return status;
}

/* view[mask] = one value, without reading the mask: view.copy_(where(mask, value, view)). */
static sp_status write_masked(const place *p, const source *from)
{
    const named *n = &p->named[0];
    sp_tensor *wide = NULL, *keep = NULL, *mixed = NULL;
    int64_t shape[SP_MAX_RANK];
    int rank = 0;
    sp_status status;
    for (int i = n->dim; i < p->view->rank; i++)
        shape[rank] = rank < n->index->rank ? n->index->shape[rank] : 1, rank++;
    SP_TRY(sp_reshape(n->index, shape, rank, &wide));
    if (from->tensor) {
        SP_TRY(sp_where(wide, from->tensor, p->view, &mixed));
    } else {
        SP_TRY(sp_eq_scalar(wide, (sp_scalar){.v.i = 0, .kind = SP_BOOL}, &keep));
        SP_TRY(sp_where_scalar(keep, p->view, from->number, &mixed));
    }
    SP_TRY(sp_copy_(p->view, mixed));
out:
    sp_drop(&wide);
    sp_drop(&keep);
    sp_drop(&mixed);
    return status;
}

/* What is assigned, in the shape that the merged view has with one slice an index, and in its
 * dtype. */
static sp_status spread_source(const place *p, const merged *m, const source *from, sp_tensor **out)
{
    int64_t shape[SP_MAX_RANK], lined[SP_MAX_RANK];
    int rank, extra = 0;
    sp_dtype dtype = (sp_dtype)p->view->dtype;
    sp_tensor *cast = NULL, *lean = NULL, *wide = NULL;
    sp_status status = SP_OK;
    SP_TRY(result_shape(m, shape, &rank));
    if (!from->tensor)
        SP_TRY(sp_full(
            NULL, 0, from->number,
            &(sp_full_opt){.size = sizeof(sp_full_opt), .has_dtype = true, .dtype = dtype}, &cast));
    else if (from->tensor->dtype != dtype)
        SP_TRY(sp_cast(from->tensor, dtype, &cast));
    else
        cast = sp__retain(from->tensor);
    while (cast->rank - extra > rank && cast->shape[extra] == 1) extra++;
    if (extra)
        SP_TRY(sp_reshape(cast, cast->shape + extra, cast->rank - extra, &lean));
    else
        lean = sp__retain(cast);
    SP_TRY(sp_expand(lean, shape, rank, &wide));
    for (int d = 0; d < m->rank; d++) lined[d] = d == m->dim ? m->index->numel : m->shape[d];
    SP_TRY(sp_reshape(wide, lined, m->rank, out));
out:
    sp_drop(&cast), sp_drop(&lean), sp_drop(&wide);
    return status;
}

static sp_status put_into(sp_tensor *whole, const merged *m, const sp_tensor *values,
                          bool accumulate)
{
    return accumulate ? sp_index_add_(whole, m->dim, m->flat_index, values)
                      : sp_index_copy_(whole, m->dim, m->flat_index, values);
}

/* Dimensions that no view makes one: into a copy, which is then written back. */
static sp_status put_by_copy(const place *p, const merged *m, const sp_tensor *values,
                             bool accumulate)
{
    sp_tensor *whole = NULL, *put = NULL, *back = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp_reshape(p->view, m->shape, m->rank, &whole));
    if (accumulate)
        SP_TRY(sp_index_add(whole, m->dim, m->flat_index, values, &put));
    else
        SP_TRY(sp_index_copy(whole, m->dim, m->flat_index, values, &put));
    SP_TRY(sp_reshape(put, p->view->shape, p->view->rank, &back));
    SP_TRY(sp_copy_(p->view, back));
out:
    sp_drop(&whole), sp_drop(&put), sp_drop(&back);
    return status;
}

static sp_status put_merged(const place *p, const merged *m, const source *from, bool accumulate)
{
    sp_tensor *values = NULL, *whole = NULL;
    sp_status status = SP_OK;
    SP_TRY(spread_source(p, m, from, &values));
    if (m->covers == 1)
        SP_TRY(put_into(p->view, m, values, accumulate));
    else if (sp_view(p->view, m->shape, m->rank, &whole) == SP_OK)
        SP_TRY(put_into(whole, m, values, accumulate));
    else
        SP_TRY(put_by_copy(p, m, values, accumulate));
out:
    sp_drop(&values), sp_drop(&whole);
    return status;
}

static int write_named(place *p, const source *from, bool accumulate)
{
    merged m;
    bool one = !from->tensor || from->tensor->rank == 0;
    sp_status status;
    if (p->n_named == 1 && p->named[0].index->dtype == SP_BOOL && one && !accumulate) {
        if (check_mask(p->view, &p->named[0]) < 0) return -1;
        status = write_masked(p, from);
    } else {
        if (merge(p, &m) < 0) return -1;
        status = put_merged(p, &m, from, accumulate);
        merged_drop(&m);
    }
    return status ? (sp__py_raise(status), -1) : 0;
}

/* x.index_put_((i, j), values): as x[i, j] = values, or, with accumulate, added there. */
static int index_put(const sp_tensor *x, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    PyObject *value[3] = {NULL, NULL, NULL};
    static const char *const words[] = {"indices", "values", "accumulate"};
    bool accumulate = false;
    source from = {.tensor = NULL};
    place p;
    if (sp__py_take("index_put", words, 3, NULL, args, n, names, value) < 0) return -1;
    if (!value[0] || !value[1]) {
        PyErr_SetString(PyExc_TypeError, "index_put: expected indices and values");
        return -1;
    }
    if (value[2] && sp__py_bool(value[2], "index_put", "accumulate", &accumulate) < 0) return -1;
    PyObject *key = PySequence_Tuple(value[0]);
    if (!key) return -1;
    int result = resolve_key(x, key, &p);
    Py_DECREF(key);
    if (result < 0) return -1;
    result = source_of(value[1], x, &from);
    if (result == 0 && p.n_named == 0) {
        PyErr_SetString(PyExc_TypeError, "index_put: expected int64 or bool tensors as indices");
        result = -1;
    }
    if (result == 0) result = write_named(&p, &from, accumulate);
    sp_drop(&from.tensor);
    place_drop(&p);
    return result;
}

static PyObject *index_put_inplace(PyObject *self, PyObject *const *args, Py_ssize_t n,
                                   PyObject *names)
{
    return index_put(sp__py_handle(self), args, n, names) < 0 ? NULL : Py_NewRef(self);
}

static PyObject *index_put_copy(PyObject *self, PyObject *const *args, Py_ssize_t n,
                                PyObject *names)
{
    sp_tensor *copy = NULL;
    sp_status status = sp_clone(sp__py_handle(self), &copy);
    if (status) return sp__py_raise(status);
    if (index_put(copy, args, n, names) < 0) sp_drop(&copy);
    return copy ? sp__py_object(copy) : NULL;
}

PyMethodDef sp__py_index_methods[] = {
    {"index_put_", (PyCFunction)(void *)index_put_inplace, METH_FASTCALL | METH_KEYWORDS,
     "index_put_($self, indices, values, accumulate=False)\n--\n\nself[indices] = values; with "
     "accumulate, the values are added, as often as a place is named."},
    {"index_put", (PyCFunction)(void *)index_put_copy, METH_FASTCALL | METH_KEYWORDS,
     "index_put($self, indices, values, accumulate=False)\n--\n\nindex_put_() on a copy."},
    {NULL, NULL, 0, NULL},
};

static int set_item(PyObject *self, PyObject *key, PyObject *value)
{
    place p;
    source from = {.tensor = NULL};
    if (!value) {
        PyErr_SetString(PyExc_TypeError, "del: elements of a tensor cannot be deleted");
        return -1;
    }
    if (resolve_key(sp__py_handle(self), key, &p) < 0) return -1;
    int result = source_of(value, sp__py_handle(self), &from);
    if (result == 0 && p.n_named) {
        result = write_named(&p, &from, false);
    } else if (result == 0) {
        sp_status status = write_view(p.view, &from);
        if (status) sp__py_raise(status);
        result = status ? -1 : 0;
    }
    sp_drop(&from.tensor);
    place_drop(&p);
    return result;
}

/* x in t: whether any element equals. */
static int contains(PyObject *self, PyObject *value)
{
    sp_scalar number = {.v.i = 0, .kind = SP_BOOL};
    double part[2];
    const sp_tensor *t = sp__py_handle(self);
    sp_tensor *other = NULL, *equal = NULL, *count = NULL;
    int is_complex = sp__py_complex(value, part), found = is_complex;
    if (is_complex == 0) found = sp__py_number(value, &number);
    if (found <= 0) {
        if (found == 0) sp__py_wrong_type("in", "value", "a number", value);
        return -1;
    }
    if (is_complex && !(other = sp__py_complex_tensor(value, t))) return -1;
    sp_status status = other ? sp_eq(t, other, &equal) : sp_eq_scalar(t, number, &equal);
    sp_drop(&other);
    if (status == SP_OK) status = sp_sum(equal, NULL, &count);
    if (status == SP_OK) status = sp_item(count, &number);
    sp_drop(&equal);
    sp_drop(&count);
    return status ? (sp__py_raise(status), -1) : number.v.i != 0;
}

PyMappingMethods sp__py_mapping = {
    .mp_length = length, .mp_subscript = get_item, .mp_ass_subscript = set_item};
PySequenceMethods sp__py_sequence = {
    .sq_length = length, .sq_item = sequence_item, .sq_contains = contains};
