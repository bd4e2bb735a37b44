/* Elements at places, reduced at places, among others: made of index_select, scatter_add and the
 * like.
 */
#include <math.h>

#include "ops/attr.h"
#include "ops/infer.h"
#include "ops_gen.h"

/* ---- index_fill ----- */

/* The slices of x that index names, filled with what `value` expands to. */
static sp_status filled(sp_call *c, int64_t dim, const sp_tensor *value)
{
    const sp_tensor *x = c->in[0], *index = c->in[1];
    int64_t shape[SP_MAX_RANK];
    sp_tensor *line = NULL, *cast = NULL, *src = NULL;
    int d;
    sp_status status = SP_OK;
    SP_RETURN_IF(sp__check_index_dtype(c, index, "index"));
    SP_RETURN_IF(sp__check_has_dims(c, x));
    SP_RETURN_IF(sp__dim_normalize(sp__op_name(c), dim, x->rank, &d));
    if (index->rank > 1 || value->rank > 0)
        return sp_fail(SP_ESHAPE,
                       "%s: index has shape %s and value %s, expected a list, and a "
                       "number",
                       sp__op_name(c), SP_SHAPE(index), SP_SHAPE(value));
    for (int i = 0; i < x->rank; i++) shape[i] = i == d ? index->numel : x->shape[i];
    SP_TRY(sp_reshape(index, &index->numel, 1, &line));
    SP_TRY(sp_cast(value, (sp_dtype)x->dtype, &cast));
    SP_TRY(sp_expand(cast, shape, x->rank, &src));
    SP_TRY(sp_index_copy(x, d, line, src, &c->out[0]));
out:
    sp_drop(&line), sp_drop(&cast), sp_drop(&src);
    return status;
}

sp_status sp__body_index_fill_scalar(sp_call *c)
{
    sp_tensor *value = NULL;
    SP_RETURN_IF(
        sp_full(NULL, 0, sp__attr_to_scalar(&c->attr[SP_INDEX_FILL_SCALAR_VALUE]), NULL, &value));
    sp_status status = filled(c, c->attr[SP_INDEX_FILL_SCALAR_DIM].v.i, value);
    sp_drop(&value);
    return status;
}

sp_status sp__body_index_fill_tensor(sp_call *c)
{
    return filled(c, c->attr[SP_INDEX_FILL_TENSOR_DIM].v.i, c->in[2]);
}

/* ---- take, put ----- */

static sp_status as_line(const sp_tensor *x, sp_tensor **out)
{
    return sp_reshape(x, &x->numel, 1, out);
}

sp_status sp__body_take(sp_call *c)
{
    const sp_tensor *index = c->in[1];
    sp_tensor *line = NULL, *places = NULL, *taken = NULL;
    sp_status status = SP_OK;
    SP_RETURN_IF(sp__check_index_dtype(c, index, "index"));
    SP_TRY(as_line(c->in[0], &line));
    SP_TRY(as_line(index, &places));
    SP_TRY(sp_index_select(line, 0, places, &taken));
    SP_TRY(sp_reshape(taken, index->shape, index->rank, &c->out[0]));
out:
    sp_drop(&line), sp_drop(&places), sp_drop(&taken);
    return status;
}

sp_status sp__body_put(sp_call *c)
{
    const sp_tensor *x = c->in[0], *index = c->in[1], *source = c->in[2];
    bool add = c->attr[SP_PUT_ACCUMULATE].v.i != 0;
    sp_tensor *line = NULL, *places = NULL, *src = NULL, *put = NULL;
    sp_status status = SP_OK;
    SP_RETURN_IF(sp__check_index_dtype(c, index, "index"));
    SP_RETURN_IF(sp__check_same_dtype(c, x, "x", source, "source"));
    if (source->numel != index->numel)
        return sp_fail(SP_ESHAPE, "%s: %lld elements for %lld places, expected as many",
                       sp__op_name(c), (long long)source->numel, (long long)index->numel);
    SP_TRY(as_line(x, &line));
    SP_TRY(as_line(index, &places));
    SP_TRY(as_line(source, &src));
    SP_TRY((add ? sp_index_add : sp_index_copy)(line, 0, places, src, &put));
    SP_TRY(sp_reshape(put, x->shape, x->rank, &c->out[0]));
out:
    sp_drop(&line), sp_drop(&places), sp_drop(&src), sp_drop(&put);
    return status;
}

/* ---- scatter_reduce, index_reduce ----- */

typedef struct reduction {
    const sp_tensor *x, *index, *src;
    int64_t dim, how; /* how: sp_reduce */
    bool include_self;
} reduction;

/* What leaves others as they are. */
static sp_scalar neutral(const reduction *r)
{
    const sp_dtype_info *info = &sp__dtypes[r->x->dtype];
    bool least = r->how == SP_REDUCE_AMAX;
    if (r->how == SP_REDUCE_PROD) return SP_INT(1);
    if (r->how != SP_REDUCE_AMAX && r->how != SP_REDUCE_AMIN) return SP_INT(0);
    if (info->kind == SP_KIND_BOOL) return SP_INT(!least);
    if (info->kind == SP_KIND_INT) return SP_INT(least ? info->least : info->most);
    return SP_FLOAT(least ? -INFINITY : INFINITY);
}

/* t, or t with a number at the places where src has something. */
static sp_status start_of(const reduction *r, const sp_tensor *t, sp_scalar number, sp_tensor **out)
{
    if (!r->include_self) return sp_scatter_value(t, r->dim, r->index, number, out);
    *out = sp__retain(t);
    return SP_OK;
}

/* How many there are at each place, at least 1. */
static sp_status counted(const reduction *r, sp_tensor **out)
{
    const sp_full_opt like = {
        .size = sizeof like, .has_dtype = true, .dtype = (sp_dtype)r->x->dtype};
    sp_tensor *ones = NULL, *own = NULL, *others = NULL, *count = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp_full(r->x->shape, r->x->rank, SP_INT(1), &like, &ones));
    SP_TRY(start_of(r, ones, SP_INT(0), &own));
    SP_TRY(sp_full(r->index->shape, r->index->rank, SP_INT(1), &like, &others));
    SP_TRY(sp_scatter_add(own, r->dim, r->index, others, &count));
    SP_TRY(sp_clamp_min_scalar(count, SP_INT(1), out));
out:
    sp_drop(&ones), sp_drop(&own), sp_drop(&others), sp_drop(&count);
    return status;
}

static sp_status reduced(const reduction *r, sp_tensor **out)
{
    static const sp_fold folds[] = {[SP_REDUCE_PROD] = SP_FOLD_PROD,
                                    [SP_REDUCE_AMAX] = SP_FOLD_AMAX,
                                    [SP_REDUCE_AMIN] = SP_FOLD_AMIN};
    bool adds = r->how == SP_REDUCE_SUM || r->how == SP_REDUCE_MEAN;
    sp_tensor *start = NULL, *total = NULL, *count = NULL;
    sp_status status = SP_OK;
    SP_TRY(start_of(r, r->x, neutral(r), &start));
    if (!adds) {
        SP_TRY(sp_scatter_fold(start, r->dim, r->index, r->src, folds[r->how], out));
    } else if (r->how == SP_REDUCE_SUM) {
        SP_TRY(sp_scatter_add(start, r->dim, r->index, r->src, out));
    } else {
        SP_TRY(sp_scatter_add(start, r->dim, r->index, r->src, &total));
        SP_TRY(counted(r, &count));
        SP_TRY((sp__dtype_is_floating(total->dtype) ? sp_div : sp_floor_divide)(total, count, out));
    }
out:
    sp_drop(&start), sp_drop(&total), sp_drop(&count);
    return status;
}

sp_status sp__body_scatter_reduce(sp_call *c)
{
    const reduction r = {.x = c->in[0],
                         .index = c->in[1],
                         .src = c->in[2],
                         .dim = c->attr[SP_SCATTER_REDUCE_DIM].v.i,
                         .how = c->attr[SP_SCATTER_REDUCE_REDUCE].v.i,
                         .include_self = c->attr[SP_SCATTER_REDUCE_INCLUDE_SELF].v.i != 0};
    return reduced(&r, &c->out[0]);
}

sp_status sp__body_index_reduce(sp_call *c)
{
    reduction r = {.x = c->in[0],
                   .src = c->in[2],
                   .dim = c->attr[SP_INDEX_REDUCE_DIM].v.i,
                   .how = c->attr[SP_INDEX_REDUCE_REDUCE].v.i,
                   .include_self = c->attr[SP_INDEX_REDUCE_INCLUDE_SELF].v.i != 0};
    const sp_tensor *index = c->in[1];
    int64_t shape[SP_MAX_RANK];
    sp_tensor *lined = NULL, *wide = NULL;
    int d;
    sp_status status = SP_OK;
    SP_RETURN_IF(sp__check_index_dtype(c, index, "index"));
    SP_RETURN_IF(sp__check_has_dims(c, r.x));
    SP_RETURN_IF(sp__dim_normalize(sp__op_name(c), r.dim, r.x->rank, &d));
    if (index->rank != 1 || r.src->rank != r.x->rank)
        return sp_fail(SP_ESHAPE,
                       "%s: index has shape %s, source %s and x %s; expected a list, and "
                       "one slice for each",
                       sp__op_name(c), SP_SHAPE(index), SP_SHAPE(r.src), SP_SHAPE(r.x));
    for (int i = 0; i < r.x->rank; i++) shape[i] = i == d ? index->numel : 1;
    SP_TRY(sp_reshape(index, shape, r.x->rank, &lined));
    SP_TRY(sp_expand(lined, r.src->shape, r.x->rank, &wide));
    r.index = wide;
    SP_TRY(reduced(&r, &c->out[0]));
out:
    sp_drop(&lined), sp_drop(&wide);
    return status;
}

/* ---- isin ----- */

sp_status sp__body_isin(sp_call *c)
{
    const sp_tensor *x = c->in[0], *others = c->in[1];
    sp_dtype dtype = sp_promote((sp_dtype)x->dtype, (sp_dtype)others->dtype);
    sp_tensor *elements = NULL, *list = NULL, *line = NULL, *hit = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp_cast(x, dtype, &elements));
    SP_TRY(sp_cast(others, dtype, &list));
    SP_TRY(as_line(list, &line));
    SP_TRY(sp_is_among(line, elements, &hit));
    if (c->attr[SP_ISIN_INVERT].v.i)
        SP_TRY(sp_logical_not(hit, &c->out[0]));
    else
        c->out[0] = hit, hit = NULL;
out:
    sp_drop(&elements), sp_drop(&list), sp_drop(&line), sp_drop(&hit);
    return status;
}
