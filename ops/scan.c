/* Inference for running results along one dimension. */
#include "ops/infer.h"
#include "ops_gen.h"

/* The dimension stands first among the attributes of all of them. */
static sp_status check_dim(const sp_call *c)
{
    int dim;
    return sp__dim_normalize(sp__op_name(c), c->attr[0].v.i, c->in[0]->rank, &dim);
}

/* cumsum, cumprod */
sp_status sp__infer_cumsum(const sp_call *c, sp_meta *out)
{
    const sp_tensor *x = c->in[0];
    const sp_attr *asked = &c->attr[SP_CUMSUM_DTYPE];
    sp_dtype dtype = sp__dtype_is_inexact(x->dtype) ? (sp_dtype)x->dtype : SP_INT64;
    SP_RETURN_IF(check_dim(c));
    if (!asked->absent) dtype = (sp_dtype)asked->v.i;
    if (dtype == SP_BOOL)
        return sp_fail(SP_EDTYPE, "%s: dtype is bool, expected int64 or a floating one",
                       sp__op_name(c));
    SP_RETURN_IF(sp__check_total_dtype(c, dtype));
    return sp__infer_like(c, x, dtype, out);
}

/* cummax, cummin */
sp_status sp__infer_cumextremum(const sp_call *c, sp_meta *out)
{
    const sp_tensor *x = c->in[0];
    SP_RETURN_IF(check_dim(c));
    SP_RETURN_IF(sp__infer_like(c, x, (sp_dtype)x->dtype, &out[0]));
    return sp__infer_like(c, x, SP_INT64, &out[1]);
}

sp_status sp__infer_logcumsumexp(const sp_call *c, sp_meta *out)
{
    SP_RETURN_IF(sp__check_floating(c, c->in[0], "x"));
    SP_RETURN_IF(check_dim(c));
    return sp__infer_like(c, c->in[0], (sp_dtype)c->in[0]->dtype, out);
}

sp_status sp__infer_linear_scan(const sp_call *c, sp_meta *out)
{
    const sp_tensor *x = c->in[0], *factor = c->in[1];
    SP_RETURN_IF(sp__check_floating(c, x, "x"));
    SP_RETURN_IF(sp__check_same_dtype(c, x, "x", factor, "factor"));
    SP_RETURN_IF(sp__check_devices(c));
    if (!sp__same_shape(x, factor))
        return sp_fail(SP_ESHAPE, "%s: x has shape %s and factor %s; expected one shape",
                       sp__op_name(c), SP_SHAPE(x), SP_SHAPE(factor));
    SP_RETURN_IF(check_dim(c));
    return sp__infer_like(c, x, (sp_dtype)x->dtype, out);
}
