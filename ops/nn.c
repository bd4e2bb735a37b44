/* Inference for losses and softmax, and what other ops compute. */
#include "ops/infer.h"
#include "ops_gen.h"

sp_status sp__infer_log_softmax(const sp_call *c, sp_meta *out)
{
    const sp_tensor *x = c->in[0];
    int dim;
    SP_RETURN_IF(sp__check_floating(c, x, "x"));
    SP_RETURN_IF(sp__dim_normalize(sp__op_name(c), c->attr[SP_LOG_SOFTMAX_DIM].v.i, x->rank, &dim));
    return sp__infer_like(c, x, (sp_dtype)x->dtype, out);
}

/* softmax_backward, log_softmax_backward */
sp_status sp__infer_softmax_backward(const sp_call *c, sp_meta *out)
{
    const sp_tensor *grad = c->in[0], *y = c->in[1];
    SP_RETURN_IF(sp__check_floating(c, grad, "grad"));
    SP_RETURN_IF(sp__check_same_dtype(c, grad, "grad", y, "y"));
    SP_RETURN_IF(sp__check_devices(c));
    if (!sp__same_shape(grad, y))
        return sp_fail(SP_ESHAPE, "%s: grad has shape %s, y %s: expected the same", sp__op_name(c),
                       SP_SHAPE(grad), SP_SHAPE(y));
    return sp__infer_log_softmax(c, out);
}

sp_status sp__body_softmax_dtype(sp_call *c)
{
    sp_tensor *x = NULL;
    SP_RETURN_IF(sp_cast(c->in[0], (sp_dtype)c->attr[SP_SOFTMAX_DTYPE_DTYPE].v.i, &x));
    sp_status status = sp_softmax(x, c->attr[SP_SOFTMAX_DTYPE_DIM].v.i, &c->out[0]);
    sp_drop(&x);
    return status;
}

sp_status sp__body_softmin(sp_call *c)
{
    sp_tensor *minus = NULL;
    SP_RETURN_IF(sp__check_floating(c, c->in[0], "x"));
    SP_RETURN_IF(sp_neg(c->in[0], &minus));
    sp_status status = sp_softmax(minus, c->attr[SP_SOFTMIN_DIM].v.i, &c->out[0]);
    sp_drop(&minus);
    return status;
}

/* (C) goes with (), (N, C, d1, ...) with (N, d1, ...). */
static bool target_fits(const sp_tensor *x, const sp_tensor *target)
{
    if (x->rank == 0 || target->rank != x->rank - 1) return false;
    for (int d = 0; d < target->rank; d++)
        if (target->shape[d] != x->shape[d == 0 ? 0 : d + 1]) return false;
    return true;
}

sp_status sp__infer_nll_loss(const sp_call *c, sp_meta *out)
{
    const sp_tensor *x = c->in[0], *target = c->in[1];
    SP_RETURN_IF(sp__check_floating(c, x, "x"));
    SP_RETURN_IF(sp__check_index_dtype(c, target, "target"));
    SP_RETURN_IF(sp__check_devices(c));
    if (!target_fits(x, target))
        return sp_fail(SP_ESHAPE,
                       "%s: x of shape %s and target of shape %s; expected (C) and (), (N, C) and "
                       "(N), or (N, C, d1, ...) and (N, d1, ...)",
                       sp__op_name(c), SP_SHAPE(x), SP_SHAPE(target));
    if (c->attr[SP_NLL_LOSS_REDUCTION].v.i == SP_REDUCTION_NONE)
        return sp__infer_like(c, target, (sp_dtype)x->dtype, out);
    out->rank = 0;
    return sp__infer_dense(c, (sp_dtype)x->dtype, x->device, out);
}

sp_status sp__infer_nll_loss_backward(const sp_call *c, sp_meta *out)
{
    const sp_tensor *grad = c->in[0], *target = c->in[1];
    const sp_attr *size = &c->attr[SP_NLL_LOSS_BACKWARD_SIZE];
    char text[SP_SHAPE_TEXT];
    bool each = c->attr[SP_NLL_LOSS_BACKWARD_REDUCTION].v.i == SP_REDUCTION_NONE;
    SP_RETURN_IF(sp__check_floating(c, grad, "grad"));
    SP_RETURN_IF(sp__check_index_dtype(c, target, "target"));
    SP_RETURN_IF(sp__check_devices(c));
    bool fits =
        size->n == target->rank + 1 && (each ? sp__same_shape(grad, target) : grad->rank == 0);
    for (int d = 0; fits && d < target->rank; d++)
        fits = target->shape[d] == size->v.ints[d == 0 ? 0 : d + 1];
    if (!fits)
        return sp_fail(SP_ESHAPE, "%s: grad of shape %s, target of shape %s and size %s",
                       sp__op_name(c), SP_SHAPE(grad), SP_SHAPE(target),
                       sp__shape_text(size->n, size->v.ints, text, sizeof text));
    out->rank = (uint8_t)size->n;
    for (int d = 0; d < size->n; d++) out->shape[d] = size->v.ints[d];
    return sp__infer_dense(c, (sp_dtype)grad->dtype, grad->device, out);
}

/* Targets with 0 for those ignored, and 1 for each other, in grad's dtype. */
static sp_status counted(const sp_tensor *target, int64_t ignored, sp_dtype dtype, sp_tensor **safe,
                         sp_tensor **valid)
{
    sp_tensor *some = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp_ne_scalar(target, SP_INT(ignored), &some));
    SP_TRY(sp_where_scalar(some, target, SP_INT(0), safe));
    SP_TRY(sp_cast(some, dtype, valid));
out:
    sp_drop(&some);
    return status;
}

/* What each target's place gets: -grad, shared out by the reduction. */
static sp_status shares_of(const sp_call *c, const sp_tensor *valid, sp_tensor **out)
{
    int64_t reduction = c->attr[SP_NLL_LOSS_BACKWARD_REDUCTION].v.i;
    sp_tensor *minus = NULL, *count = NULL, *share = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp_neg(c->in[0], &minus));
    if (reduction == SP_REDUCTION_MEAN) {
        SP_TRY(sp_sum(valid, NULL, &count));
        SP_TRY(sp_div(minus, count, &share));
    } else {
        share = sp_retain(minus);
    }
    SP_TRY(sp_mul(valid, share, out));
out:
    sp_drop(&minus), sp_drop(&count), sp_drop(&share);
    return status;
}

sp_status sp__body_nll_loss_backward(sp_call *c)
{
    const sp_tensor *grad = c->in[0];
    const sp_full_opt like = {
        .size = sizeof like, .has_dtype = true, .dtype = (sp_dtype)grad->dtype};
    sp_tensor *safe = NULL, *valid = NULL, *none = NULL, *places = NULL, *share = NULL,
              *shares = NULL;
    sp_meta meta;
    sp_status status = SP_OK;
    SP_TRY(sp__infer_nll_loss_backward(c, &meta));
    int classes = meta.rank > 1 ? 1 : 0;
    SP_TRY(counted(c->in[1], c->attr[SP_NLL_LOSS_BACKWARD_IGNORE_INDEX].v.i, (sp_dtype)grad->dtype,
                   &safe, &valid));
    SP_TRY(shares_of(c, valid, &share));
    SP_TRY(sp_full(meta.shape, meta.rank, SP_INT(0), &like, &none));
    SP_TRY(sp_unsqueeze(safe, classes, &places));
    SP_TRY(sp_unsqueeze(share, classes, &shares));
    SP_TRY(sp_scatter_add(none, classes, places, shares, &c->out[0]));
out:
    sp_drop(&safe), sp_drop(&valid), sp_drop(&none), sp_drop(&places), sp_drop(&share);
    sp_drop(&shares);
    return status;
}

sp_status sp__body_cross_entropy(sp_call *c)
{
    const sp_tensor *x = c->in[0];
    sp_meta meta;
    sp_tensor *logp = NULL;
    sp_status status = SP_OK;
    sp_nll_loss_opt opt = {.size = sizeof(sp_nll_loss_opt),
                           .has_reduction = true,
                           .reduction = (sp_reduction)c->attr[SP_CROSS_ENTROPY_REDUCTION].v.i,
                           .has_ignore_index = true,
                           .ignore_index = c->attr[SP_CROSS_ENTROPY_IGNORE_INDEX].v.i};
    /* For errors in terms of this op; the attributes are the same. */
    SP_TRY(sp__infer_nll_loss(c, &meta));
    SP_TRY(sp_log_softmax(x, x->rank > 1 ? 1 : 0, &logp));
    SP_TRY(sp_nll_loss(logp, c->in[1], &opt, &c->out[0]));
out:
    sp_drop(&logp);
    return status;
}
