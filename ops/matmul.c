/* Inference for matrix products, and linear by other ops. */
#include "ops/infer.h"
#include "ops_gen.h"

static sp_status check_operands(const sp_call *c)
{
    const sp_tensor *x = c->in[0], *y = c->in[1];
    SP_RETURN_IF(sp__check_same_dtype(c, x, "x", y, "y"));
    if (SP_UNLIKELY(x->dtype == SP_BOOL))
        return sp_fail(SP_EDTYPE,
                       "%s: x and y are bool, expected numbers; convert them with .float()",
                       sp__op_name(c));
    if (SP_UNLIKELY(x->rank == 0 || y->rank == 0))
        return sp_fail(
            SP_ESHAPE,
            "%s: %s @ %s: both need at least one dimension; multiply by a single number with *",
            sp__op_name(c), SP_SHAPE(x), SP_SHAPE(y));
    return sp__check_devices(c);
}

/* Dimension i of the batch, counted from the right (0 is next to the matrix); 1 where there is
 * none. */
static int64_t batch_size(const sp_tensor *t, int i)
{
    int d = t->rank - 3 - i;
    return d >= 0 ? t->shape[d] : 1;
}

static sp_status batches(const sp_call *c, sp_meta *out, int n_batch)
{
    const sp_tensor *x = c->in[0], *y = c->in[1];
    for (int i = 0; i < n_batch; i++) {
        int64_t a = batch_size(x, i), b = batch_size(y, i);
        if (a != b && a != 1 && b != 1)
            return sp_fail(SP_ESHAPE, "%s: %s @ %s: batch sizes %lld and %lld do not broadcast",
                           sp__op_name(c), SP_SHAPE(x), SP_SHAPE(y), (long long)a, (long long)b);
        out->shape[n_batch - 1 - i] = a == 1 ? b : a;
    }
    return SP_OK;
}

sp_status sp__infer_matmul(const sp_call *c, sp_meta *out)
{
    const sp_tensor *x = c->in[0], *y = c->in[1];
    SP_RETURN_IF(check_operands(c));
    int64_t k = x->shape[x->rank - 1], k2 = y->shape[y->rank > 1 ? y->rank - 2 : 0];
    if (SP_UNLIKELY(k != k2))
        return sp_fail(SP_ESHAPE, "%s: %s @ %s: inner sizes %lld and %lld differ", sp__op_name(c),
                       SP_SHAPE(x), SP_SHAPE(y), (long long)k, (long long)k2);
    int rank = (x->rank > y->rank ? x->rank : y->rank) - 2;
    if (rank < 0) rank = 0;
    SP_RETURN_IF(batches(c, out, rank));
    if (x->rank > 1) out->shape[rank++] = x->shape[x->rank - 2];
    if (y->rank > 1) out->shape[rank++] = y->shape[y->rank - 1];
    out->rank = (uint8_t)rank;
    return sp__infer_dense(c, (sp_dtype)x->dtype, x->device, out);
}

static sp_status check_bias(const sp_call *c)
{
    const sp_tensor *w = c->in[1], *b = c->in[2];
    SP_RETURN_IF(sp__check_same_dtype(c, w, "w", b, "b"));
    if (SP_LIKELY(b->rank == 1 && b->shape[0] == w->shape[0])) return SP_OK;
    return sp_fail(SP_ESHAPE, "%s: b has shape %s and w %s, expected b of shape (%lld,)",
                   sp__op_name(c), SP_SHAPE(b), SP_SHAPE(w), (long long)w->shape[0]);
}

sp_status sp__infer_linear(const sp_call *c, sp_meta *out)
{
    const sp_tensor *x = c->in[0], *w = c->in[1];
    SP_RETURN_IF(sp__check_floating(c, x, "x"));
    SP_RETURN_IF(sp__check_same_dtype(c, x, "x", w, "w"));
    if (SP_UNLIKELY(w->rank != 2 || x->rank == 0 || x->shape[x->rank - 1] != w->shape[1]))
        return sp_fail(SP_ESHAPE,
                       "%s: x of shape %s and w of shape %s; expected (..., k) and (n, k)",
                       sp__op_name(c), SP_SHAPE(x), SP_SHAPE(w));
    if (c->in[2]) SP_RETURN_IF(check_bias(c));
    SP_RETURN_IF(sp__check_devices(c));
    out->rank = x->rank;
    for (int i = 0; i < x->rank - 1; i++) out->shape[i] = x->shape[i];
    out->shape[x->rank - 1] = w->shape[0];
    return sp__infer_dense(c, (sp_dtype)x->dtype, x->device, out);
}

sp_status sp__body_linear(sp_call *c)
{
    const sp_tensor *b = c->in[2];
    sp_tensor *turned = NULL, *product = NULL;
    sp_meta meta;
    sp_status status = SP_OK;
    SP_TRY(sp__infer_linear(c, &meta)); /* for errors in terms of this op */
    SP_TRY(sp_transpose(c->in[1], 0, 1, &turned));
    SP_TRY(sp_matmul(c->in[0], turned, &product));
    if (b)
        SP_TRY(sp_add(product, b, &c->out[0]));
    else
        c->out[0] = product, product = NULL;
out:
    sp_drop(&turned);
    sp_drop(&product);
    return status;
}
