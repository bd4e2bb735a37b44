/* Inference for reductions, and mean. */
#include "ops/attr.h"
#include "ops/infer.h"
#include "ops_gen.h"

/* x's shape without the dimensions of the mask, or with size 1 there. */
static sp_status reduced(const sp_call *c, uint32_t mask, bool keepdim, sp_dtype dtype,
                         sp_meta *out)
{
    const sp_tensor *x = c->in[0];
    int rank = 0;
    for (int d = 0; d < x->rank; d++) {
        if (!(mask >> d & 1))
            out->shape[rank++] = x->shape[d];
        else if (keepdim)
            out->shape[rank++] = 1;
    }
    out->rank = (uint8_t)rank;
    return sp__infer_dense(c, dtype, x->device, out);
}

/* EVALUE when one of the dimensions of the mask is empty but the result is not. */
static sp_status check_not_empty(const sp_call *c, uint32_t mask)
{
    const sp_tensor *x = c->in[0];
    for (int d = 0; d < x->rank; d++)
        if (!(mask >> d & 1) && x->shape[d] == 0) return SP_OK;
    for (int d = 0; d < x->rank; d++)
        if ((mask >> d & 1) && x->shape[d] == 0)
            return sp_fail(
                SP_EVALUE,
                "%s: dimension %d of x of shape %s is empty: there is no element to choose",
                sp__op_name(c), d, SP_SHAPE(x));
    return SP_OK;
}

/* The dtype that sums and products of x are computed in. */
static sp_status total_dtype(const sp_call *c, const sp_attr *asked, sp_dtype *out)
{
    const sp_tensor *x = c->in[0];
    *out = sp__dtype_is_inexact(x->dtype) ? (sp_dtype)x->dtype : SP_INT64;
    if (!asked->absent) *out = (sp_dtype)asked->v.i;
    SP_RETURN_IF(sp__check_total_dtype(c, *out));
    if (*out != SP_BOOL) return SP_OK;
    return sp_fail(SP_EDTYPE,
                   "%s: dtype is bool, expected int64 or a floating one; any() tells whether "
                   "an element is true, all() whether all are",
                   sp__op_name(c));
}

/* The dimension of an attribute that names one or, absent, all. */
static sp_status one_dim_mask(const sp_call *c, const sp_attr *dim, uint32_t *mask)
{
    int rank = c->in[0]->rank, d;
    *mask = (1u << rank) - 1;
    if (dim->absent) return SP_OK;
    SP_RETURN_IF(sp__dim_normalize(sp__op_name(c), dim->v.i, rank, &d));
    *mask &= 1u << d;
    return SP_OK;
}

/* sum, nansum */
sp_status sp__infer_sum(const sp_call *c, sp_meta *out)
{
    uint32_t mask;
    sp_dtype dtype;
    SP_RETURN_IF(sp__dim_mask(sp__op_name(c), &c->attr[SP_SUM_DIM], c->in[0]->rank, &mask));
    SP_RETURN_IF(total_dtype(c, &c->attr[SP_SUM_DTYPE], &dtype));
    if (c->op == SP_OP_NANSUM && sp__dtype_is_floating(c->in[0]->dtype) &&
        !sp__dtype_is_floating(dtype))
        return sp_fail(SP_EDTYPE, "%s: dtype is %s and x is %s, expected a floating dtype",
                       sp__op_name(c), sp_dtype_name(dtype),
                       sp_dtype_name((sp_dtype)c->in[0]->dtype));
    return reduced(c, mask, c->attr[SP_SUM_KEEPDIM].v.i != 0, dtype, out);
}

sp_status sp__infer_count(const sp_call *c, sp_meta *out)
{
    uint32_t mask;
    SP_RETURN_IF(
        sp__dim_mask(sp__op_name(c), &c->attr[SP_COUNT_NONZERO_DIM], c->in[0]->rank, &mask));
    return reduced(c, mask, c->attr[SP_COUNT_NONZERO_KEEPDIM].v.i != 0, SP_INT64, out);
}

sp_status sp__infer_prod(const sp_call *c, sp_meta *out)
{
    uint32_t mask;
    sp_dtype dtype;
    SP_RETURN_IF(one_dim_mask(c, &c->attr[SP_PROD_DIM], &mask));
    SP_RETURN_IF(total_dtype(c, &c->attr[SP_PROD_DTYPE], &dtype));
    return reduced(c, mask, c->attr[SP_PROD_KEEPDIM].v.i != 0, dtype, out);
}

sp_status sp__infer_amax(const sp_call *c, sp_meta *out)
{
    const sp_tensor *x = c->in[0];
    uint32_t mask;
    SP_RETURN_IF(sp__dim_mask(sp__op_name(c), &c->attr[SP_AMAX_DIM], x->rank, &mask));
    SP_RETURN_IF(check_not_empty(c, mask));
    return reduced(c, mask, c->attr[SP_AMAX_KEEPDIM].v.i != 0, (sp_dtype)x->dtype, out);
}

sp_status sp__infer_argmax(const sp_call *c, sp_meta *out)
{
    const sp_tensor *x = c->in[0];
    uint32_t mask;
    if (x->dtype == SP_BOOL)
        return sp_fail(SP_EDTYPE, "%s: x is bool, expected numbers; convert it with .long()",
                       sp__op_name(c));
    SP_RETURN_IF(one_dim_mask(c, &c->attr[SP_ARGMAX_DIM], &mask));
    SP_RETURN_IF(check_not_empty(c, mask));
    return reduced(c, mask, c->attr[SP_ARGMAX_KEEPDIM].v.i != 0, SP_INT64, out);
}

/* max and min along one dimension: values and indices. */
sp_status sp__infer_extremum_dim(const sp_call *c, sp_meta *out)
{
    uint32_t mask;
    bool keepdim = c->attr[SP_MAX_DIM_KEEPDIM].v.i != 0;
    SP_RETURN_IF(one_dim_mask(c, &c->attr[SP_MAX_DIM_DIM], &mask));
    SP_RETURN_IF(check_not_empty(c, mask));
    SP_RETURN_IF(reduced(c, mask, keepdim, (sp_dtype)c->in[0]->dtype, &out[0]));
    return reduced(c, mask, keepdim, SP_INT64, &out[1]);
}

/* ---- moments, powers, exponentials ----- */

sp_status sp__infer_deviation(const sp_call *c, sp_meta *out)
{
    const sp_tensor *x = c->in[0];
    uint32_t mask;
    bool keepdim = c->attr[SP_DEVIATION_KEEPDIM].v.i != 0;
    SP_RETURN_IF(sp__check_floating(c, x, "x"));
    SP_RETURN_IF(sp__dim_mask(sp__op_name(c), &c->attr[SP_DEVIATION_DIM], x->rank, &mask));
    SP_RETURN_IF(reduced(c, mask, keepdim, (sp_dtype)x->dtype, &out[0]));
    return reduced(c, mask, keepdim, (sp_dtype)x->dtype, &out[1]);
}

sp_status sp__infer_power_sum(const sp_call *c, sp_meta *out)
{
    const sp_tensor *x = c->in[0];
    uint32_t mask;
    SP_RETURN_IF(sp__check_floating(c, x, "x"));
    SP_RETURN_IF(sp__dim_mask(sp__op_name(c), &c->attr[SP_POWER_SUM_DIM], x->rank, &mask));
    return reduced(c, mask, c->attr[SP_POWER_SUM_KEEPDIM].v.i != 0, (sp_dtype)x->dtype, out);
}

sp_status sp__infer_logsumexp(const sp_call *c, sp_meta *out)
{
    const sp_tensor *x = c->in[0];
    sp_dtype dtype = sp__dtype_is_floating(x->dtype) ? (sp_dtype)x->dtype : SP_FLOAT32;
    uint32_t mask;
    SP_RETURN_IF(sp__dim_mask(sp__op_name(c), &c->attr[SP_LOGSUMEXP_DIM], x->rank, &mask));
    return reduced(c, mask, c->attr[SP_LOGSUMEXP_KEEPDIM].v.i != 0, dtype, out);
}

/* ---- forms of max and min that other ops compute ----- */

sp_status sp__body_max(sp_call *c)
{
    return sp_amax(c->in[0], NULL, &c->out[0]);
}

sp_status sp__body_min(sp_call *c)
{
    return sp_amin(c->in[0], NULL, &c->out[0]);
}

sp_status sp__body_min_other(sp_call *c)
{
    return sp_minimum(c->in[0], c->in[1], &c->out[0]);
}

sp_status sp__body_max_other(sp_call *c)
{
    return sp_maximum(c->in[0], c->in[1], &c->out[0]);
}

/* ---- mean: the sum divided by the count ----- */

static int64_t count_of(const sp_tensor *x, uint32_t mask)
{
    int64_t n = 1;
    for (int d = 0; d < x->rank; d++)
        if (mask >> d & 1) n *= x->shape[d];
    return n;
}

sp_status sp__body_mean(sp_call *c)
{
    const sp_tensor *x = c->in[0];
    const sp_attr *dim = &c->attr[SP_MEAN_DIM], *dtype = &c->attr[SP_MEAN_DTYPE];
    uint32_t mask;
    sp_tensor *sum = NULL, *mean = NULL;
    sp_status status = SP_OK;
    sp_dtype result = dtype->absent ? (sp_dtype)x->dtype : (sp_dtype)dtype->v.i;
    bool half = sp__dtype_is_floating(result) && sp_dtype_size(result) == 2;
    if (!sp__dtype_is_inexact(result))
        return sp_fail(SP_EDTYPE,
                       "%s: x is %s, expected a floating dtype; give dtype=spool.float32",
                       sp__op_name(c), sp_dtype_name((sp_dtype)x->dtype));
    SP_RETURN_IF(sp__dim_mask(sp__op_name(c), dim, x->rank, &mask));
    sp_sum_opt opt = {.size = sizeof(sp_sum_opt),
                      .dim = sp__attr_to_ints(dim),
                      .n_dim = dim->n,
                      .keepdim = c->attr[SP_MEAN_KEEPDIM].v.i != 0,
                      .has_dtype = half || !dtype->absent,
                      .dtype = half ? SP_FLOAT32 : result};
    SP_TRY(sp_sum(x, &opt, &sum));
    SP_TRY(sp_div_scalar(sum, SP_FLOAT((double)count_of(x, mask)), half ? &mean : &c->out[0]));
    if (half) SP_TRY(sp_cast(mean, result, &c->out[0])); /* rounded once */
out:
    sp_drop(&sum);
    sp_drop(&mean);
    return status;
}
