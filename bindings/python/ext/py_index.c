/* x[...] and x[...] = value.
 *
 * Ints, slices, None and ... become views, one op each. What tensors, lists and arrays name is left
 * for after these:
 *
 *     one int64 tensor of any rank      index_select, then reshape
 *     two of one dimension, side by side index_select along the first, gather along the second
 *     one bool mask                     its places as an int64 tensor (this reads the mask's
 * values)
 *
 * so that all of it is differentiable, and all but the mask can be traced. Assignment writes into
 * the view; where places are named, one slice after the other, so that the last of equal indices
 * counts.
 */
#include "bindings/python/ext/py_int.h"

#include "ops_gen.h"
#include "tensor/memory.h"

enum { MAX_NAMED = 2, MAX_ITEMS = 4 * SP_MAX_RANK };

/* A tensor in an index, and where it stands among the dimensions that are left. */
typedef struct named {
    sp_tensor *index; /* owned; int64 or bool */
    int dim;
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
    return PyList_Check(item) || is_array(item);
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
    if ((*out)->dtype == SP_INT64 || (*out)->dtype == SP_BOOL) return 0;
    PyErr_Format(PyExc_IndexError, "index: a %s tensor is no index; int64 and bool ones are",
                 sp_dtype_name((sp_dtype)(*out)->dtype));
    sp_drop(out);
    return -1;
}

/* How many dimensions of x an item takes; -1 with an exception for what is no index. */
static int consumed_by(PyObject *item)
{
    if (item == Py_None || item == Py_Ellipsis) return 0;
    if (PyLong_CheckExact(item) || PySlice_Check(item)) return 1;
    if (PyBool_Check(item)) {
        PyErr_SetString(PyExc_NotImplementedError,
                        "index: True and False are no indices here; use None or a mask");
        return -1;
    }
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
        PyErr_SetString(PyExc_NotImplementedError,
                        "index: more than two index tensors; combine them into one first");
        return -1;
    }
    named *n = &p->named[p->n_named];
    if (named_tensor(item, &n->index) < 0) return -1;
    n->dim = *dim;
    p->n_named++;
    *dim += n->index->dtype == SP_BOOL ? n->index->rank : 1;
    return 0;
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

/* The positions of a mask's true elements, in row-major order. */
static int mask_places(const sp_tensor *mask, sp_tensor **out)
{
    size_t bytes = (size_t)mask->numel;
    uint8_t *truth = sp__alloc(bytes);
    int64_t *places = sp__alloc(bytes * sizeof *places), n = 0;
    sp_status status = truth && places ? sp_copy_out(mask, truth, bytes)
                                       : sp_fail(SP_EMEMORY, "index: no memory for a mask");
    for (size_t i = 0; status == SP_OK && i < bytes; i++)
        if (truth[i]) places[n++] = (int64_t)i;
    if (status == SP_OK) status = sp_from_data(places, SP_INT64, 1, &n, out);
    if (truth) sp__free(truth, bytes);
    if (places) sp__free(places, bytes * sizeof *places);
    if (status) sp__py_raise(status);
    return status ? -1 : 0;
}

static int check_mask(const sp_tensor *view, const named *n)
{
    const sp_tensor *mask = n->index;
    bool fits = n->dim + mask->rank <= view->rank;
    for (int i = 0; fits && i < mask->rank; i++) fits = mask->shape[i] == view->shape[n->dim + i];
    if (fits) return 0;
    PyErr_Format(PyExc_IndexError, "index: a mask of shape %s for a tensor of shape %s",
                 SP_SHAPE(mask), SP_SHAPE(view));
    return -1;
}

/* Makes the mask's dimensions one, as a view when `in_place`, and the mask its places. */
static int flatten_mask(place *p, bool in_place)
{
    named *n = &p->named[0];
    int64_t shape[SP_MAX_RANK];
    int rank = 0, covered = n->index->rank;
    sp_tensor *places, *made = NULL;
    if (check_mask(p->view, n) < 0) return -1;
    for (int i = 0; i < p->view->rank; i++)
        if (i <= n->dim || i >= n->dim + covered) shape[rank++] = p->view->shape[i];
    shape[n->dim] = n->index->numel;
    if (covered != 1) {
        sp_status status = in_place ? sp_view(p->view, shape, rank, &made)
                                    : sp_reshape(p->view, shape, rank, &made);
        if (step(&p->view, status, made) < 0) return -1;
    }
    if (mask_places(n->index, &places) < 0) return -1;
    sp_drop(&n->index);
    n->index = places;
    return 0;
}

static int check_named(place *p)
{
    if (p->n_named < 2) return 0;
    const named *a = &p->named[0], *b = &p->named[1];
    if (a->dim + 1 == b->dim && a->index->rank == 1 && b->index->rank == 1 &&
        a->index->dtype == SP_INT64 && b->index->dtype == SP_INT64 &&
        a->index->numel == b->index->numel)
        return 0;
    PyErr_Format(PyExc_NotImplementedError,
                 "index: two index tensors of shapes %s and %s; two int64 ones of one dimension "
                 "and equal size that stand side by "
                 "side are supported",
                 SP_SHAPE(a->index), SP_SHAPE(b->index));
    return -1;
}

/* view[index] for an index of any rank: its dimensions take the place of dim. */
static int take_one(place *p, sp_tensor **out)
{
    const named *n = &p->named[0];
    sp_tensor *flat = NULL, *picked = NULL;
    int64_t shape[SP_MAX_RANK], every = -1;
    int rank = 0;
    if (n->index->rank == 1) {
        sp_status status = sp_index_select(p->view, n->dim, n->index, out);
        return status ? (sp__py_raise(status), -1) : 0;
    }
    if (p->view->rank - 1 + n->index->rank > SP_MAX_RANK) {
        PyErr_Format(sp__py_shape_error, "index: the result would have more than %d dimensions",
                     SP_MAX_RANK);
        return -1;
    }
    for (int i = 0; i < n->dim; i++) shape[rank++] = p->view->shape[i];
    for (int i = 0; i < n->index->rank; i++) shape[rank++] = n->index->shape[i];
    for (int i = n->dim + 1; i < p->view->rank; i++) shape[rank++] = p->view->shape[i];
    if (n->index->numel == 0) every = 0;
    sp_status status = sp_reshape(n->index, &every, 1, &flat);
    if (status == SP_OK) status = sp_index_select(p->view, n->dim, flat, &picked);
    if (status == SP_OK) status = sp_reshape(picked, shape, rank, out);
    sp_drop(&flat);
    sp_drop(&picked);
    return status ? (sp__py_raise(status), -1) : 0;
}

/* view[a, b], element by element: rows by a, then one element of each by b. */
static int take_two(place *p, sp_tensor **out)
{
    const named *a = &p->named[0], *b = &p->named[1];
    sp_tensor *rows = NULL, *shaped = NULL, *wide = NULL, *picked = NULL;
    int64_t ones[SP_MAX_RANK], shape[SP_MAX_RANK], dim = b->dim;
    sp_squeeze_opt opt = {.size = sizeof opt, .dim = &dim, .n_dim = 1};
    sp_status status;
    SP_TRY(sp_index_select(p->view, a->dim, a->index, &rows));
    for (int i = 0; i < rows->rank; i++)
        ones[i] = i == a->dim ? b->index->numel : 1, shape[i] = rows->shape[i];
    shape[b->dim] = 1;
    SP_TRY(sp_reshape(b->index, ones, rows->rank, &shaped));
    SP_TRY(sp_expand(shaped, shape, rows->rank, &wide));
    SP_TRY(sp_gather(rows, b->dim, wide, &picked));
    SP_TRY(sp_squeeze(picked, &opt, out));
out:
    sp_drop(&rows);
    sp_drop(&shaped);
    sp_drop(&wide);
    sp_drop(&picked);
    return status ? (sp__py_raise(status), -1) : 0;
}

static int take_named(place *p, sp_tensor **out)
{
    if (check_named(p) < 0) return -1;
    if (p->n_named == 2) return take_two(p, out);
    if (p->named[0].index->dtype == SP_BOOL && flatten_mask(p, false) < 0) return -1;
    return take_one(p, out);
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

/* The values broadcast to what view[index] is, so that slice k belongs to index k. */
static sp_status spread_source(const place *p, int64_t n, int removed, const sp_tensor *t,
                               sp_tensor **out)
{
    int64_t shape[SP_MAX_RANK];
    int rank = 0;
    for (int i = 0; i < p->view->rank; i++) {
        if (i == p->named[0].dim)
            shape[rank++] = n;
        else if (i < p->named[0].dim || i >= p->named[0].dim + removed)
            shape[rank++] = p->view->shape[i];
    }
    return sp_expand(t, shape, rank, out);
}

static sp_status read_index(const sp_tensor *t, int64_t **out)
{
    size_t bytes = (size_t)t->numel * sizeof(int64_t);
    *out = sp__alloc(bytes);
    if (!*out) return sp_fail(SP_EMEMORY, "setitem: no memory for an index");
    sp_status status = sp_copy_out(t, *out, bytes);
    if (status) {
        sp__free(*out, bytes);
        *out = NULL;
    }
    return status;
}

static sp_status write_slice(const place *p, int64_t *const *at, int64_t k, const source *from,
                             const sp_tensor *spread)
{
    sp_tensor *first = NULL, *second = NULL, *part = NULL;
    source one = *from;
    sp_status status;
    SP_TRY(sp_select(p->view, p->named[0].dim, at[0][k], &first));
    if (p->n_named == 2) SP_TRY(sp_select(first, p->named[0].dim, at[1][k], &second));
    if (spread) {
        SP_TRY(sp_select(spread, p->named[0].dim, k, &part));
        one.tensor = part;
    }
    SP_TRY(write_view(second ? second : first, &one));
out:
    sp_drop(&part);
    sp_drop(&second);
    sp_drop(&first);
    return status;
}

static sp_status write_slices(const place *p, const source *from)
{
    int64_t *at[MAX_NAMED] = {NULL}, n = p->named[0].index->numel;
    sp_tensor *spread = NULL;
    sp_status status;
    for (int i = 0; i < p->n_named; i++) {
        if (p->named[i].index->rank != 1)
            SP_TRY(sp_fail(SP_EUNSUPPORTED,
                           "setitem: an index of shape %s; one of one dimension is supported",
                           SP_SHAPE(p->named[i].index)));
        SP_TRY(read_index(p->named[i].index, &at[i]));
    }
    if (from->tensor) SP_TRY(spread_source(p, n, p->n_named, from->tensor, &spread));
    for (int64_t k = 0; k < n; k++) SP_TRY(write_slice(p, at, k, from, spread));
out:
    for (int i = 0; i < p->n_named; i++)
        if (at[i]) sp__free(at[i], (size_t)n * sizeof(int64_t));
    sp_drop(&spread);
    return status;
}

static int write_named(place *p, const source *from)
{
    if (check_named(p) < 0) return -1;
    sp_status status;
    if (p->named[0].index->dtype == SP_BOOL && (!from->tensor || from->tensor->rank == 0)) {
        if (check_mask(p->view, &p->named[0]) < 0) return -1;
        status = write_masked(p, from);
    } else {
        if (p->named[0].index->dtype == SP_BOOL && flatten_mask(p, true) < 0) return -1;
        status = write_slices(p, from);
    }
    return status ? (sp__py_raise(status), -1) : 0;
}

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
        result = write_named(&p, &from);
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
    sp_scalar number;
    sp_tensor *equal = NULL, *count = NULL;
    int found = sp__py_number(value, &number);
    if (found <= 0) {
        if (found == 0) sp__py_wrong_type("in", "value", "a number", value);
        return -1;
    }
    sp_status status = sp_eq_scalar(sp__py_handle(self), number, &equal);
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
