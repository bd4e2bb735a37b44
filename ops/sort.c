/* Inference for sorting and searching, and what is made of them. */
#include "ops/infer.h"
#include "ops_gen.h"

/* x's shape with another size along dim, as values and as indices. */
static sp_status picked(const sp_call *c, int dim, int64_t size, sp_meta *out)
{
    const sp_tensor *x = c->in[0];
    for (int i = 0; i < 2; i++) {
        out[i].rank = x->rank;
        for (int d = 0; d < x->rank; d++) out[i].shape[d] = d == dim ? size : x->shape[d];
        SP_RETURN_IF(
            sp__infer_dense(c, i == 0 ? (sp_dtype)x->dtype : SP_INT64, x->device, &out[i]));
    }
    return SP_OK;
}

static int64_t size_along(const sp_tensor *x, int dim)
{
    return x->rank == 0 ? 1 : x->shape[dim];
}

sp_status sp__infer_sort(const sp_call *c, sp_meta *out)
{
    int dim;
    SP_RETURN_IF(sp__dim_normalize(sp__op_name(c), c->attr[SP_SORT_DIM].v.i, c->in[0]->rank, &dim));
    return picked(c, dim, size_along(c->in[0], dim), out);
}

static sp_status check_k(const sp_call *c, int64_t k, int64_t least, int dim)
{
    int64_t n = size_along(c->in[0], dim);
    if (k >= least && k <= n) return SP_OK;
    return sp_fail(SP_EVALUE,
                   "%s: k is %lld, but dimension %d of x of shape %s has %lld elements; expected "
                   "k from %lld to that",
                   sp__op_name(c), (long long)k, dim, SP_SHAPE(c->in[0]), (long long)n,
                   (long long)least);
}

sp_status sp__infer_topk(const sp_call *c, sp_meta *out)
{
    int64_t k = c->attr[SP_TOPK_K].v.i;
    int dim;
    SP_RETURN_IF(sp__dim_normalize(sp__op_name(c), c->attr[SP_TOPK_DIM].v.i, c->in[0]->rank, &dim));
    SP_RETURN_IF(check_k(c, k, 0, dim));
    if (c->in[0]->rank == 0 && k == 0) {
        out[0].rank = out[1].rank = 1, out[0].shape[0] = out[1].shape[0] = 0;
        SP_RETURN_IF(sp__infer_dense(c, (sp_dtype)c->in[0]->dtype, c->in[0]->device, &out[0]));
        return sp__infer_dense(c, SP_INT64, c->in[0]->device, &out[1]);
    }
    return picked(c, dim, k, out);
}

/* x's shape without dim, or with size 1 there. */
sp_status sp__infer_kthvalue(const sp_call *c, sp_meta *out)
{
    bool keepdim = c->attr[SP_KTHVALUE_KEEPDIM].v.i != 0;
    int dim, rank = c->in[0]->rank;
    SP_RETURN_IF(sp__dim_normalize(sp__op_name(c), c->attr[SP_KTHVALUE_DIM].v.i, rank, &dim));
    SP_RETURN_IF(check_k(c, c->attr[SP_KTHVALUE_K].v.i, 1, dim));
    for (int i = 0; i < 2; i++) {
        out[i].rank = 0;
        for (int d = 0; d < rank; d++)
            if (d != dim || keepdim)
                out[i].shape[out[i].rank++] = d == dim ? 1 : c->in[0]->shape[d];
        SP_RETURN_IF(sp__infer_dense(c, i == 0 ? (sp_dtype)c->in[0]->dtype : SP_INT64,
                                     c->in[0]->device, &out[i]));
    }
    return SP_OK;
}

static bool rows_match(const sp_tensor *sorted, const sp_tensor *x)
{
    if (sorted->rank == 1) return true;
    if (sorted->rank != x->rank) return false;
    for (int d = 0; d + 1 < x->rank; d++)
        if (sorted->shape[d] != x->shape[d]) return false;
    return sorted->rank > 0;
}

/* One list, or one for each row of x. */
static sp_status search(const sp_call *c, const char *lists_name, sp_dtype dtype, sp_meta *out)
{
    const sp_tensor *lists = c->in[0], *x = c->in[1];
    SP_RETURN_IF(sp__check_devices(c));
    SP_RETURN_IF(sp__check_same_dtype(c, lists, lists_name, x, "x"));
    if (!rows_match(lists, x))
        return sp_fail(SP_ESHAPE,
                       "%s: %s of shape %s and x of shape %s; expected one dimension, "
                       "or equal sizes but for the last dimension",
                       sp__op_name(c), lists_name, SP_SHAPE(lists), SP_SHAPE(x));
    return sp__infer_like(c, x, dtype, out);
}

sp_status sp__infer_searchsorted(const sp_call *c, sp_meta *out)
{
    return search(c, "sorted_sequence", SP_INT64, out);
}

sp_status sp__infer_is_among(const sp_call *c, sp_meta *out)
{
    return search(c, "lists", SP_BOOL, out);
}

/* ---- made of sort ----- */

sp_status sp__body_argsort(sp_call *c)
{
    const sp_sort_opt opt = {.size = sizeof opt,
                             .has_dim = true,
                             .dim = c->attr[SP_ARGSORT_DIM].v.i,
                             .descending = c->attr[SP_ARGSORT_DESCENDING].v.i != 0};
    sp_tensor *values = NULL;
    sp_status status = sp_sort(c->in[0], &opt, &values, &c->out[0]);
    sp_drop(&values);
    return status;
}

sp_status sp__body_msort(sp_call *c)
{
    const sp_sort_opt opt = {.size = sizeof opt, .has_dim = true, .dim = 0};
    sp_tensor *indices = NULL;
    SP_RETURN_IF(sp__check_has_dims(c, c->in[0]));
    sp_status status = sp_sort(c->in[0], &opt, &c->out[0], &indices);
    sp_drop(&indices);
    return status;
}

sp_status sp__body_bucketize(sp_call *c)
{
    const sp_searchsorted_opt opt = {.size = sizeof opt,
                                     .right = c->attr[SP_BUCKETIZE_RIGHT].v.i != 0};
    if (c->in[1]->rank != 1)
        return sp_fail(SP_ESHAPE, "%s: boundaries has shape %s, expected one dimension",
                       sp__op_name(c), SP_SHAPE(c->in[1]));
    return sp_searchsorted(c->in[1], c->in[0], &opt, &c->out[0]);
}

/* ---- elements by rank ----- */

/* Element `rank` of the order along dim, counted from 0. */
static sp_status ranked(const sp_tensor *x, int64_t rank, int dim, bool keepdim, sp_tensor **values,
                        sp_tensor **indices)
{
    const sp_kthvalue_opt opt = {
        .size = sizeof opt, .has_dim = true, .dim = dim, .keepdim = keepdim};
    return sp_kthvalue(x, rank + 1, &opt, values, indices);
}

/* NaN, if there is one, wins over the middle. */
static sp_status nan_first(const sp_tensor *x, int dim, bool keepdim, sp_tensor **values,
                           sp_tensor **indices)
{
    const sp_max_dim_opt opt = {.size = sizeof opt, .keepdim = keepdim};
    sp_tensor *max = NULL, *max_at = NULL, *known = NULL, *value = NULL, *at = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp_max_dim(x, dim, &opt, &max, &max_at));
    SP_TRY(sp_eq(max, max, &known));
    SP_TRY(sp_where(known, *values, max, &value));
    SP_TRY(sp_where(known, *indices, max_at, &at));
    sp_drop(values), sp_drop(indices);
    *values = value, *indices = at;
    value = at = NULL;
out:
    sp_drop(&max), sp_drop(&max_at), sp_drop(&known), sp_drop(&value), sp_drop(&at);
    return status;
}

static sp_status median_along(const sp_call *c, const sp_tensor *x, int dim, bool keepdim,
                              sp_tensor **values, sp_tensor **indices)
{
    int64_t n = size_along(x, dim);
    if (n == 0)
        return sp_fail(SP_EVALUE,
                       "%s: dimension %d of x of shape %s is empty: there is no element to choose",
                       sp__op_name(c), dim, SP_SHAPE(c->in[0]));
    SP_RETURN_IF(ranked(x, (n - 1) / 2, dim, keepdim, values, indices));
    if (!sp__dtype_is_floating(x->dtype)) return SP_OK;
    sp_status status = nan_first(x, dim, keepdim, values, indices);
    if (status != SP_OK) sp_drop(values), sp_drop(indices);
    return status;
}

sp_status sp__body_median_dim(sp_call *c)
{
    int dim;
    SP_RETURN_IF(
        sp__dim_normalize(sp__op_name(c), c->attr[SP_MEDIAN_DIM_DIM].v.i, c->in[0]->rank, &dim));
    return median_along(c, c->in[0], dim, c->attr[SP_MEDIAN_DIM_KEEPDIM].v.i != 0, &c->out[0],
                        &c->out[1]);
}

sp_status sp__body_median(sp_call *c)
{
    sp_tensor *line = NULL, *indices = NULL;
    SP_RETURN_IF(sp_reshape(c->in[0], &c->in[0]->numel, 1, &line));
    sp_status status = median_along(c, line, 0, false, &c->out[0], &indices);
    sp_drop(&line), sp_drop(&indices);
    return status;
}
