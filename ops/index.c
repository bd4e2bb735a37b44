/* Reading and adding at indices: inference, and the check of index values that lets a kernel run
 * later. The kernels check again, since plans call them on whatever comes.
 */
#include <string.h>

#include "ops/infer.h"
#include "ops/queue_int.h"
#include "ops/dispatch.h"
#include "ops/index.h"
#include "ops_gen.h"
#include "tensor/memory.h"

static const sp_attr *dim_attr(const sp_call *c)
{
    return &c->attr[0]; /* of all four */
}

static sp_status common_checks(const sp_call *c, const sp_tensor *index, int *dim)
{
    const sp_tensor *x = c->in[0];
    SP_RETURN_IF(sp__check_index_dtype(c, index, "index"));
    SP_RETURN_IF(sp__check_has_dims(c, x));
    SP_RETURN_IF(sp__check_devices(c));
    return sp__dim_normalize(sp__op_name(c), dim_attr(c)->v.i, x->rank, dim);
}

/* ---- gather, scatter_add: an index for every element ----- */

static sp_status check_index_shape(const sp_call *c, const sp_tensor *index, int dim)
{
    const sp_tensor *x = c->in[0];
    bool fits = index->rank == x->rank;
    for (int d = 0; fits && d < x->rank; d++) fits = d == dim || index->shape[d] <= x->shape[d];
    if (fits) return SP_OK;
    return sp_fail(SP_ESHAPE,
                   "%s: index has shape %s and x %s; expected as many dimensions, and no larger "
                   "sizes but in dimension %d",
                   sp__op_name(c), SP_SHAPE(index), SP_SHAPE(x), dim);
}

sp_status sp__infer_gather(const sp_call *c, sp_meta *out)
{
    const sp_tensor *x = c->in[0], *index = c->in[1];
    int dim;
    SP_RETURN_IF(common_checks(c, index, &dim));
    SP_RETURN_IF(check_index_shape(c, index, dim));
    return sp__infer_like(c, index, (sp_dtype)x->dtype, out);
}

sp_status sp__infer_scatter_add(const sp_call *c, sp_meta *out)
{
    const sp_tensor *x = c->in[0], *index = c->in[1], *src = c->in[2];
    int dim;
    SP_RETURN_IF(common_checks(c, index, &dim));
    SP_RETURN_IF(sp__check_same_dtype(c, x, "x", src, "src"));
    SP_RETURN_IF(check_index_shape(c, index, dim));
    if (!sp__same_shape(index, src))
        return sp_fail(SP_ESHAPE, "%s: index has shape %s and src %s, expected one shape",
                       sp__op_name(c), SP_SHAPE(index), SP_SHAPE(src));
    return sp__infer_like(c, x, (sp_dtype)x->dtype, out);
}

/* ---- index_select, index_add: an index for every slice ----- */

static sp_status check_index_list(const sp_call *c, const sp_tensor *index)
{
    if (index->rank == 1) return SP_OK;
    return sp_fail(SP_ESHAPE,
                   "%s: index has shape %s, expected one dimension; use index.reshape(-1)",
                   sp__op_name(c), SP_SHAPE(index));
}

sp_status sp__infer_index_select(const sp_call *c, sp_meta *out)
{
    const sp_tensor *x = c->in[0], *index = c->in[1];
    int dim;
    SP_RETURN_IF(common_checks(c, index, &dim));
    SP_RETURN_IF(check_index_list(c, index));
    out->rank = x->rank;
    for (int d = 0; d < x->rank; d++) out->shape[d] = d == dim ? index->shape[0] : x->shape[d];
    return sp__infer_dense(c, (sp_dtype)x->dtype, x->device, out);
}

sp_status sp__infer_index_add(const sp_call *c, sp_meta *out)
{
    const sp_tensor *x = c->in[0], *index = c->in[1], *src = c->in[2];
    int dim;
    SP_RETURN_IF(common_checks(c, index, &dim));
    SP_RETURN_IF(sp__check_same_dtype(c, x, "x", src, "src"));
    SP_RETURN_IF(check_index_list(c, index));
    bool fits = src->rank == x->rank;
    for (int d = 0; fits && d < x->rank; d++)
        fits = src->shape[d] == (d == dim ? index->shape[0] : x->shape[d]);
    if (!fits)
        return sp_fail(SP_ESHAPE,
                       "%s: src has shape %s, expected x's shape %s with %lld in dimension %d, one "
                       "slice an index",
                       sp__op_name(c), SP_SHAPE(src), SP_SHAPE(x), (long long)index->shape[0], dim);
    return sp__infer_like(c, x, (sp_dtype)x->dtype, out);
}

sp_status sp__infer_scatter_value(const sp_call *c, sp_meta *out)
{
    const sp_tensor *x = c->in[0], *index = c->in[1];
    int dim;
    SP_RETURN_IF(common_checks(c, index, &dim));
    SP_RETURN_IF(check_index_shape(c, index, dim));
    return sp__infer_like(c, x, (sp_dtype)x->dtype, out);
}

/* ---- several indices made one ----- */

static sp_status no_broadcast(const sp_call *c, int i)
{
    return sp_fail(SP_ESHAPE,
                   "%s: index %d has shape %s, which does not broadcast with those before it",
                   sp__op_name(c), i, SP_SHAPE(c->in[i]));
}

sp_status sp__infer_ravel_multi_index(const sp_call *c, sp_meta *out)
{
    const sp_attr *dims = &c->attr[SP_RAVEL_MULTI_INDEX_DIMS];
    if (c->n_in != dims->n || c->n_in == 0)
        return sp_fail(SP_EVALUE, "%s: %d indices for %d dimensions, expected one each",
                       sp__op_name(c), c->n_in, dims->n);
    out->rank = 0;
    for (int i = 0; i < c->n_in; i++) {
        SP_RETURN_IF(sp__check_index_dtype(c, c->in[i], "index"));
        if (c->in[i]->rank > out->rank) out->rank = c->in[i]->rank;
    }
    SP_RETURN_IF(sp__check_devices(c));
    for (int d = 0; d < out->rank; d++) out->shape[d] = 1;
    for (int i = 0; i < c->n_in; i++) {
        int64_t *to = out->shape + out->rank - c->in[i]->rank;
        for (int d = 0; d < c->in[i]->rank; d++) {
            int64_t size = c->in[i]->shape[d];
            if (size != to[d] && size != 1 && to[d] != 1) return no_broadcast(c, i);
            if (to[d] == 1) to[d] = size;
        }
    }
    return sp__infer_dense(c, SP_INT64, c->in[0]->device, out);
}

sp_status sp__infer_one_hot(const sp_call *c, sp_meta *out)
{
    const sp_tensor *x = c->in[0];
    int64_t classes = c->attr[SP_ONE_HOT_NUM_CLASSES].v.i;
    SP_RETURN_IF(sp__check_index_dtype(c, x, "x"));
    if (classes < 1 || x->rank == SP_MAX_RANK)
        return sp_fail(SP_EVALUE, "%s: num_classes is %lld for x of shape %s, expected 1 or more",
                       sp__op_name(c), (long long)classes, SP_SHAPE(x));
    out->rank = (uint8_t)(x->rank + 1);
    for (int d = 0; d < x->rank; d++) out->shape[d] = x->shape[d];
    out->shape[x->rank] = classes;
    return sp__infer_dense(c, SP_INT64, x->device, out);
}

/* ---- composites ----- */

sp_status sp__body_one_hot(sp_call *c)
{
    const sp_tensor *x = c->in[0];
    int64_t classes = c->attr[SP_ONE_HOT_NUM_CLASSES].v.i;
    sp_tensor *largest = NULL;
    sp_scalar top;
    if (classes != -1) return sp_one_hot_classes(x, classes, &c->out[0]);
    SP_RETURN_IF(sp__check_index_dtype(c, x, "x"));
    if (x->numel == 0)
        return sp_fail(SP_EVALUE,
                       "%s: x of shape %s has no class to say how many there are; give "
                       "num_classes",
                       sp__op_name(c), SP_SHAPE(x));
    SP_RETURN_IF(sp__check_readable(sp__op_name(c), x, "give num_classes"));
    SP_RETURN_IF(sp_amax(x, NULL, &largest));
    sp_status status = sp__read_number(largest, &top);
    sp_drop(&largest);
    SP_RETURN_IF(status);
    return sp_one_hot_classes(x, top.v.i < 0 ? 1 : top.v.i + 1, &c->out[0]);
}

/* table's row x[...], in x's shape. */
static sp_status rows_at(const sp_tensor *table, const sp_tensor *x, sp_tensor **out)
{
    sp_tensor *flat = NULL, *rows = NULL;
    int64_t shape[SP_MAX_RANK + 1];
    sp_status status = SP_OK;
    if (x->rank == 1) return sp_index_select(table, 0, x, out);
    for (int d = 0; d < x->rank; d++) shape[d] = x->shape[d];
    shape[x->rank] = table->shape[1];
    SP_TRY(sp_reshape(x, &x->numel, 1, &flat));
    SP_TRY(sp_index_select(table, 0, flat, &rows));
    SP_TRY(sp_reshape(rows, shape, x->rank + 1, out));
out:
    sp_drop(&flat), sp_drop(&rows);
    return status;
}

/* Rows that are not trained are those of a detached copy. */
static sp_status without_padding(const sp_tensor *rows, const sp_tensor *x, int64_t padding,
                                 sp_tensor **out)
{
    sp_tensor *at = NULL, *column = NULL, *fixed = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp_eq_scalar(x, SP_INT(padding), &at));
    SP_TRY(sp_unsqueeze(at, -1, &column));
    SP_TRY(sp_detach(rows, &fixed));
    SP_TRY(sp_where(column, fixed, rows, out));
out:
    sp_drop(&at), sp_drop(&column), sp_drop(&fixed);
    return status;
}

sp_status sp__body_embedding(sp_call *c)
{
    const sp_tensor *x = c->in[0], *weight = c->in[1];
    const sp_attr *padding = &c->attr[SP_EMBEDDING_PADDING_IDX];
    sp_tensor *rows = NULL;
    SP_RETURN_IF(sp__check_index_dtype(c, x, "x"));
    if (weight->rank != 2 || x->rank == SP_MAX_RANK)
        return sp_fail(SP_ESHAPE,
                       "%s: x has shape %s and weight %s, expected two dimensions of weight",
                       sp__op_name(c), SP_SHAPE(x), SP_SHAPE(weight));
    if (padding->absent) return rows_at(weight, x, &c->out[0]);
    int64_t row = padding->v.i, size = weight->shape[0];
    if (row < -size || row >= size)
        return sp_fail(SP_EINDEX, "%s: padding_idx %lld is out of range for %lld rows",
                       sp__op_name(c), (long long)row, (long long)size);
    SP_RETURN_IF(rows_at(weight, x, &rows));
    sp_status status = without_padding(rows, x, row < 0 ? row + size : row, &c->out[0]);
    sp_drop(&rows);
    return status;
}

/* t with the sizes of both but its own in dim. */
static sp_status widen(const sp_call *c, const sp_tensor *t, const sp_tensor *other, int dim,
                       sp_tensor **out)
{
    int64_t shape[SP_MAX_RANK];
    if (t->rank != other->rank)
        return sp_fail(SP_ESHAPE, "%s: shapes %s and %s, expected as many dimensions",
                       sp__op_name(c), SP_SHAPE(t), SP_SHAPE(other));
    for (int d = 0; d < t->rank; d++)
        shape[d] = d == dim || t->shape[d] != 1 ? t->shape[d] : other->shape[d];
    return sp_expand(t, shape, t->rank, out);
}

sp_status sp__body_take_along_dim(sp_call *c)
{
    const sp_attr *dim = &c->attr[SP_TAKE_ALONG_DIM_DIM];
    sp_tensor *x = NULL, *indices = NULL;
    int64_t all = -1;
    int d = 0;
    sp_status status = SP_OK;
    if (dim->absent) {
        SP_TRY(sp_reshape(c->in[0], c->in[0]->numel ? &all : &c->in[0]->numel, 1, &x));
        SP_TRY(sp_reshape(c->in[1], c->in[1]->numel ? &all : &c->in[1]->numel, 1, &indices));
    } else {
        SP_TRY(sp__dim_normalize(sp__op_name(c), dim->v.i, c->in[0]->rank, &d));
        SP_TRY(widen(c, c->in[0], c->in[1], d, &x));
        SP_TRY(widen(c, c->in[1], c->in[0], d, &indices));
    }
    SP_TRY(sp_gather(x, d, indices, &c->out[0]));
out:
    sp_drop(&x), sp_drop(&indices);
    return status;
}

/* What jvp and grad have put around a tensor, taken off. */
static const sp_tensor *primal_of(const sp_tensor *t)
{
    while (t->wrap && t->wrap->kind != SP_LEVEL_VMAP) t = t->wrap->inner;
    return t;
}

sp_status sp__check_readable(const char *op, const sp_tensor *t, const char *instead)
{
    if (!primal_of(t)->wrap) return SP_OK;
    return sp_fail(SP_EUNSUPPORTED,
                   "%s: the size of the result depends on values that, inside vmap, differ from "
                   "example to example; %s",
                   op, instead);
}

sp_status sp__read_number(const sp_tensor *t, sp_scalar *out)
{
    return sp_item(primal_of(t), out);
}

/* The positions of bytes that are 1, of which there are `room`. Eight at a time without a branch,
 * as long as what the last of them leave behind finds room. */
static void list_ones(const uint8_t *truth, int64_t n, int64_t room, int64_t *places)
{
    int64_t found = 0, i = 0;
    for (; i + 8 <= n && found + 8 <= room; i += 8) {
        uint64_t eight;
        memcpy(&eight, truth + i, 8);
        for (int k = 0; eight && k < 8; k++) places[found] = i + k, found += truth[i + k];
    }
    for (; found < room; i++)
        if (truth[i]) places[found++] = i;
}

static int64_t count_ones(const uint8_t *truth, int64_t n)
{
    int64_t ones = 0;
    for (int64_t i = 0; i < n; i++) ones += truth[i];
    return ones;
}

/* A mask's bytes, outside any transform, and how many of them are 1. */
static sp_status read_mask(const sp_tensor *mask, uint8_t **truth, int64_t *ones)
{
    mask = primal_of(mask);
    size_t bytes = (size_t)mask->numel;
    *truth = sp__alloc(bytes);
    if (!*truth) return sp_fail(SP_EMEMORY, "no memory for a copy of a mask");
    const sp_status status = sp_copy_out(mask, *truth, bytes);
    if (status == SP_OK)
        *ones = count_ones(*truth, mask->numel);
    else
        sp__free(*truth, bytes);
    return status;
}

sp_status sp__mask_list(const sp_tensor *mask, int64_t **places, int64_t *n)
{
    uint8_t *truth;
    sp_status status = SP_OK;
    *places = NULL;
    SP_RETURN_IF(read_mask(mask, &truth, n));
    *places = sp__alloc((size_t)*n * sizeof **places);
    if (*places)
        list_ones(truth, mask->numel, *n, *places);
    else
        status = sp_fail(SP_EMEMORY, "no memory for the places of a mask");
    sp__free(truth, (size_t)mask->numel);
    return status;
}

sp_status sp__mask_places(const sp_tensor *mask, sp_tensor **out)
{
    uint8_t *truth;
    sp_meta m = {.dtype = SP_INT64, .device = SP_DEVICE_CPU, .rank = 1, .view_of = -1};
    SP_RETURN_IF(read_mask(mask, &truth, &m.shape[0]));
    sp_status status = sp__meta_dense(&m, "mask");
    if (status == SP_OK) status = sp__handle_new(&m, NULL, out);
    if (status == SP_OK && m.numel > 0)
        list_ones(truth, mask->numel, m.numel, (int64_t *)sp__data(*out));
    sp__free(truth, (size_t)mask->numel);
    return status;
}

static sp_status check_mask(const sp_call *c, const sp_tensor *mask)
{
    if (mask->dtype == SP_BOOL) return SP_OK;
    return sp_fail(SP_EDTYPE, "%s: mask is %s, expected bool", sp__op_name(c),
                   sp_dtype_name((sp_dtype)mask->dtype));
}

/* t as a vector, broadcast to m's shape before. */
static sp_status spread_flat(const sp_tensor *t, const sp_meta *m, sp_tensor **out)
{
    sp_tensor *wide = NULL;
    SP_RETURN_IF(sp_expand(t, m->shape, m->rank, &wide));
    sp_status status = sp_reshape(wide, &m->numel, 1, out);
    sp_drop(&wide);
    return status;
}

sp_status sp__body_masked_select(sp_call *c)
{
    const sp_tensor *x = c->in[0], *mask = c->in[1];
    sp_tensor *flat = NULL, *flat_mask = NULL, *places = NULL;
    sp_tensor *both[2] = {c->in[0], c->in[1]};
    sp_call shapes = {.op = SP_OP_EQ, .n_out = 1, .n_in = 2, .in = both};
    sp_meta m = {.view_of = -1};
    sp_status status = SP_OK;
    SP_RETURN_IF(check_mask(c, mask));
    SP_RETURN_IF(sp__check_readable(sp__op_name(c), mask, "use where(), which keeps the shape"));
    SP_RETURN_IF(sp_op_table[SP_OP_EQ].infer(&shapes, &m));
    SP_TRY(spread_flat(mask, &m, &flat_mask));
    SP_TRY(sp__mask_places(flat_mask, &places));
    SP_TRY(spread_flat(x, &m, &flat));
    SP_TRY(sp_index_select(flat, 0, places, &c->out[0]));
out:
    sp_drop(&flat), sp_drop(&flat_mask), sp_drop(&places);
    return status;
}

/* The first n elements of source, for the n places. */
static sp_status first_of(const sp_call *c, const sp_tensor *source, int64_t n, sp_tensor **out)
{
    sp_tensor *flat = NULL;
    if (source->numel < n)
        return sp_fail(SP_ESHAPE, "%s: source has %lld elements, mask names %lld", sp__op_name(c),
                       (long long)source->numel, (long long)n);
    SP_RETURN_IF(sp_reshape(source, &source->numel, 1, &flat));
    sp_status status = sp_slice(flat, 0, 0, n, NULL, out);
    sp_drop(&flat);
    return status;
}

/* Inside vmap, where a mask of the examples' own cannot be read: each place gets the element of
 * source whose number is how often mask holds before. Whether there are enough is not known. */
static sp_status scatter_unread(const sp_call *c, const sp_tensor *flat_mask, const sp_tensor *flat,
                                sp_tensor **out)
{
    const sp_tensor *source = c->in[2];
    sp_tensor *counts = NULL, *within = NULL, *above = NULL, *places = NULL, *line = NULL,
              *each = NULL;
    sp_status status = SP_OK;
    if (source->numel == 0) return sp_clone(flat, out);
    SP_TRY(sp_cumsum(flat_mask, 0, NULL, &counts));
    SP_TRY(sp_clamp_max_scalar(counts, SP_INT(source->numel), &within));
    SP_TRY(sp_clamp_min_scalar(within, SP_INT(1), &above));
    SP_TRY(sp_sub_scalar(above, SP_INT(1), &places));
    SP_TRY(sp_reshape(source, &source->numel, 1, &line));
    SP_TRY(sp_index_select(line, 0, places, &each));
    SP_TRY(sp_where(flat_mask, each, flat, out));
out:
    sp_drop(&counts), sp_drop(&within), sp_drop(&above), sp_drop(&places), sp_drop(&line),
        sp_drop(&each);
    return status;
}

static sp_status scatter_read(const sp_call *c, const sp_tensor *flat_mask, const sp_tensor *flat,
                              sp_tensor **out)
{
    sp_tensor *places = NULL, *src = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp__mask_places(flat_mask, &places));
    SP_TRY(first_of(c, c->in[2], places->numel, &src));
    SP_TRY(sp_index_copy(flat, 0, places, src, out));
out:
    sp_drop(&places), sp_drop(&src);
    return status;
}

sp_status sp__body_masked_scatter(sp_call *c)
{
    const sp_tensor *x = c->in[0], *mask = c->in[1];
    sp_tensor *flat = NULL, *flat_mask = NULL, *put = NULL;
    sp_meta m;
    sp_status status = SP_OK;
    SP_RETURN_IF(check_mask(c, mask));
    sp__meta_of(x, &m);
    SP_TRY(spread_flat(mask, &m, &flat_mask));
    SP_TRY(sp_reshape(x, &x->numel, 1, &flat));
    SP_TRY((primal_of(mask)->wrap ? scatter_unread : scatter_read)(c, flat_mask, flat, &put));
    SP_TRY(sp_reshape(put, x->shape, x->rank, &c->out[0]));
out:
    sp_drop(&flat), sp_drop(&flat_mask), sp_drop(&put);
    return status;
}

/* ---- values ----- */

/* Whether x is outside, as a sign: an overflow of either difference is outside, too. */
#define OUTSIDE(x) (((x) - (uint64_t)low) | ((uint64_t)high - 1 - (x)))

static bool run_within(const int64_t *p, int64_t n, int64_t step, int64_t low, int64_t high)
{
    enum { LANES = 2, TOGETHER = 4 }; /* vectors that every processor has, several at a time */
    typedef uint64_t lanes __attribute__((vector_size(LANES * 8), aligned(8), may_alias));
    lanes outside[TOGETHER] = {{0}};
    uint64_t any = 0;
    int64_t i = 0;
    for (; step == 1 && i + LANES * TOGETHER <= n; i += LANES * TOGETHER) {
        const lanes *x = (const lanes *)(const void *)(p + i);
        for (int k = 0; k < TOGETHER; k++) outside[k] |= OUTSIDE(x[k]);
    }
    for (; i < n; i++) any |= OUTSIDE((uint64_t)p[i * step]);
    for (int k = 0; k < TOGETHER; k++) any |= outside[k][0] | outside[k][1];
    return !(any >> 63);
}

/* The first of a run that is outside. */
static int64_t stray(const int64_t *p, int64_t n, int64_t step, int64_t low, int64_t high)
{
    int64_t i = 0;
    while (i + 1 < n && p[i * step] >= low && p[i * step] < high) i++;
    return p[i * step];
}

bool sp__indices_within(const int64_t *p, int rank, const int64_t *shape, const int64_t *stride,
                        int64_t low, int64_t high, int64_t *found)
{
    int64_t at[SP_MAX_RANK] = {0}, size[SP_MAX_RANK], step[SP_MAX_RANK], inner = 1, along = 0;
    int outer = 0;
    for (int d = 0; d < rank; d++) {
        if (shape[d] == 0) return true;
        if (shape[d] == 1 || stride[d] == 0) continue; /* the same ones again */
        if (along == shape[d] * stride[d]) {
            inner *= shape[d], along = stride[d];
            continue;
        }
        if (inner > 1) size[outer] = inner, step[outer++] = along;
        inner = shape[d], along = stride[d];
    }
    for (;;) {
        if (!run_within(p, inner, along, low, high)) {
            if (found) *found = stray(p, inner, along, low, high);
            return false;
        }
        int d = outer - 1;
        for (; d >= 0; d--) {
            p += step[d];
            if (++at[d] < size[d]) break;
            p -= at[d] * step[d], at[d] = 0;
        }
        if (d < 0) return true;
    }
}

static bool in_bounds(const sp_tensor *t, int64_t low, int64_t high)
{
    return sp__indices_within((const int64_t *)sp__data(t), t->rank, t->shape, t->stride, low, high,
                              NULL);
}

/* The same, but for one number that stands for no place. */
static bool in_bounds_but(const sp_tensor *t, int64_t high, int64_t except)
{
    int64_t at[SP_MAX_RANK] = {0};
    const int64_t *p = (const int64_t *)sp__data(t);
    for (int64_t n = t->numel; n > 0; n--) {
        if ((*p < 0 || *p >= high) && *p != except) return false;
        for (int d = t->rank - 1; d >= 0; d--) {
            p += t->stride[d];
            if (++at[d] < t->shape[d]) break;
            p -= at[d] * t->stride[d], at[d] = 0;
        }
    }
    return true;
}

/* The dimension of in[0] whose places the index names: the attribute `dim`, else that of classes.
 */
static bool indexed_dim(const sp_call *c, int *dim)
{
    const sp_op_info *info = &sp_op_table[c->op];
    *dim = c->in[0]->rank > 1 ? 1 : 0;
    for (int i = 0; i < c->n_attr; i++)
        if (!strcmp(info->attr_names[i], "dim"))
            return sp__dim_normalize(info->name, c->attr[i].v.i, c->in[0]->rank, dim) == SP_OK;
    return true;
}

/* An index whose values can be looked at, once what writes them has run. */
static bool is_readable(const sp_tensor *index)
{
    if (index->dtype != SP_INT64 || index->device != SP_DEVICE_CPU || !index->storage->data)
        return false;
    sp__queue_wait(index->device, atomic_load(&index->storage->write_ticket));
    return true;
}

static bool all_fit(const sp_call *c, const int64_t *sizes)
{
    for (int i = 0; i < c->n_in; i++)
        if (!is_readable(c->in[i]) || !in_bounds(c->in[i], -sizes[i], sizes[i])) return false;
    return true;
}

/* Classes count from 0, and have no -1 for the last; nll_loss and its transpose ignore one value.
 */
static bool targets_fit(const sp_call *c, const sp_tensor *target)
{
    const sp_op_info *info = &sp_op_table[c->op];
    const int64_t *shape = c->in[0]->shape, *except = NULL;
    int rank = c->in[0]->rank;
    for (int i = 0; i < c->n_attr; i++) {
        if (!strcmp(info->attr_names[i], "ignore_index")) except = &c->attr[i].v.i;
        if (!strcmp(info->attr_names[i], "size")) shape = c->attr[i].v.ints, rank = c->attr[i].n;
    }
    int64_t classes = rank > 0 ? shape[rank > 1 ? 1 : 0] : 1;
    return except ? in_bounds_but(target, classes, *except) : in_bounds(target, 0, classes);
}

bool sp__index_fits(const sp_call *c)
{
    const sp_op_info *info = &sp_op_table[c->op];
    const sp_tensor *x = c->in[0], *index = c->in[info->index_in];
    int dim;
    if (info->n_in < 0) return all_fit(c, c->attr[0].v.ints);
    if (!is_readable(index)) return false;
    if (info->index_in == 0) return in_bounds(index, 0, c->attr[0].v.i);
    if (!strcmp(info->in_names[info->index_in], "target")) return targets_fit(c, index);
    if (!indexed_dim(c, &dim)) return false;
    int64_t size = x->rank ? x->shape[dim] : 1;
    return in_bounds(index, -size, size);
}
