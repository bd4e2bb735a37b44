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

/* x's shape without dim, or with size 1 there, as values and as indices. */
static sp_status one_of(const sp_call *c, int dim, bool keepdim, sp_meta *out)
{
    const sp_tensor *x = c->in[0];
    for (int i = 0; i < 2; i++) {
        out[i].rank = 0;
        for (int d = 0; d < x->rank; d++)
            if (d != dim || keepdim) out[i].shape[out[i].rank++] = d == dim ? 1 : x->shape[d];
        SP_RETURN_IF(
            sp__infer_dense(c, i == 0 ? (sp_dtype)x->dtype : SP_INT64, x->device, &out[i]));
    }
    return SP_OK;
}

sp_status sp__infer_kthvalue(const sp_call *c, sp_meta *out)
{
    int dim, rank = c->in[0]->rank;
    SP_RETURN_IF(sp__dim_normalize(sp__op_name(c), c->attr[SP_KTHVALUE_DIM].v.i, rank, &dim));
    SP_RETURN_IF(check_k(c, c->attr[SP_KTHVALUE_K].v.i, 1, dim));
    return one_of(c, dim, c->attr[SP_KTHVALUE_KEEPDIM].v.i != 0, out);
}

sp_status sp__infer_middle(const sp_call *c, sp_meta *out)
{
    const sp_tensor *x = c->in[0];
    int dim;
    SP_RETURN_IF(sp__dim_normalize(sp__op_name(c), c->attr[SP_MIDDLE_DIM].v.i, x->rank, &dim));
    if (size_along(x, dim) == 0)
        return sp_fail(SP_EVALUE,
                       "%s: dimension %d of x of shape %s is empty: there is no element to choose",
                       sp__op_name(c), dim, SP_SHAPE(x));
    return one_of(c, dim, c->attr[SP_MIDDLE_KEEPDIM].v.i != 0, out);
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

/* ---- the middle ----- */

static sp_status check_choice(const sp_call *c, const sp_tensor *x, int dim)
{
    if (size_along(x, dim) > 0) return SP_OK;
    return sp_fail(SP_EVALUE,
                   "%s: dimension %d of x of shape %s is empty: there is no element to choose",
                   sp__op_name(c), dim, SP_SHAPE(c->in[0]));
}

static sp_status middle_along(sp_call *c, const sp_attr *attr, bool skip_nan)
{
    const sp_middle_opt opt = {
        .size = sizeof opt, .keepdim = attr[1].v.i != 0, .skip_nan = skip_nan};
    int dim;
    SP_RETURN_IF(sp__dim_normalize(sp__op_name(c), attr[0].v.i, c->in[0]->rank, &dim));
    SP_RETURN_IF(check_choice(c, c->in[0], dim));
    return sp_middle(c->in[0], dim, &opt, &c->out[0], &c->out[1]);
}

static sp_status middle_of_all(sp_call *c, bool skip_nan)
{
    const sp_middle_opt opt = {.size = sizeof opt, .skip_nan = skip_nan};
    sp_tensor *line = NULL, *indices = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp_reshape(c->in[0], &c->in[0]->numel, 1, &line));
    SP_TRY(check_choice(c, line, 0));
    SP_TRY(sp_middle(line, 0, &opt, &c->out[0], &indices));
out:
    sp_drop(&line), sp_drop(&indices);
    return status;
}

sp_status sp__body_median_dim(sp_call *c)
{
    return middle_along(c, &c->attr[SP_MEDIAN_DIM_DIM], false);
}

sp_status sp__body_median(sp_call *c)
{
    return middle_of_all(c, false);
}

sp_status sp__body_nanmedian_dim(sp_call *c)
{
    return middle_along(c, &c->attr[SP_NANMEDIAN_DIM_DIM], true);
}

sp_status sp__body_nanmedian(sp_call *c)
{
    return middle_of_all(c, true);
}
