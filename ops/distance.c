/* Inference for distances of rows; distances and closeness made of other ops. */
#include "ops/attr.h"
#include "ops/infer.h"
#include "ops_gen.h"

/* ---- norms of differences ----- */

sp_status sp__body_dist(sp_call *c)
{
    const sp_norm_opt opt = {.size = sizeof opt, .has_p = true, .p = c->attr[SP_DIST_P].v.f};
    sp_tensor *away = NULL;
    SP_RETURN_IF(sp_sub(c->in[0], c->in[1], &away));
    sp_status status = sp_norm(away, &opt, &c->out[0]);
    sp_drop(&away);
    return status;
}

/* The sizes of batches, of which one may be 1 or missing. */
static sp_status common_batches(const sp_call *c, sp_meta *out)
{
    const sp_tensor *x = c->in[0], *y = c->in[1];
    int rank = x->rank > y->rank ? x->rank : y->rank;
    out->rank = (uint8_t)rank;
    for (int d = 0; d < rank - 2; d++) {
        int i = d - (rank - x->rank), j = d - (rank - y->rank);
        int64_t a = i >= 0 ? x->shape[i] : 1, b = j >= 0 ? y->shape[j] : 1;
        if (a != b && a != 1 && b != 1)
            return sp_fail(SP_ESHAPE, "%s: batch sizes %lld and %lld of %s and %s do not broadcast",
                           sp__op_name(c), (long long)a, (long long)b, SP_SHAPE(x), SP_SHAPE(y));
        out->shape[d] = a == 1 ? b : a;
    }
    return SP_OK;
}

sp_status sp__infer_cdist(const sp_call *c, sp_meta *out)
{
    const sp_tensor *x = c->in[0], *y = c->in[1];
    double p = c->attr[SP_CDIST_P].v.f;
    SP_RETURN_IF(sp__check_floating(c, x, "x1"));
    SP_RETURN_IF(sp__check_same_dtype(c, x, "x1", y, "x2"));
    SP_RETURN_IF(sp__check_devices(c));
    if (x->rank < 2 || y->rank < 2 || x->shape[x->rank - 1] != y->shape[y->rank - 1])
        return sp_fail(SP_ESHAPE, "%s: shapes %s and %s, expected (..., n, k) and (..., m, k)",
                       sp__op_name(c), SP_SHAPE(x), SP_SHAPE(y));
    if (!(p >= 0)) return sp_fail(SP_EVALUE, "%s: p is %g, expected 0 or more", sp__op_name(c), p);
    SP_RETURN_IF(common_batches(c, out));
    out->shape[out->rank - 2] = x->shape[x->rank - 2];
    out->shape[out->rank - 1] = y->shape[y->rank - 2];
    return sp__infer_dense(c, (sp_dtype)x->dtype, x->device, out);
}

static double number(const sp_attr *a)
{
    return a->tag == SP_FLOAT64 ? a->v.f : (double)a->v.i;
}

static sp_status norms_of_slices(const sp_call *c, double p, int d, sp_tensor **out)
{
    int64_t others[SP_MAX_RANK];
    int n = 0;
    for (int i = 0; i < c->in[0]->rank; i++)
        if (i != d) others[n++] = i;
    const sp_norm_opt opt = {
        .size = sizeof opt, .has_p = true, .p = p, .dim = others, .n_dim = n, .keepdim = true};
    return sp_norm(c->in[0], &opt, out);
}

/* As PyTorch, a little below maxnorm: the norm is taken 1e-7 larger. */
sp_status sp__body_renorm(sp_call *c)
{
    double p = number(&c->attr[SP_RENORM_P]), most = number(&c->attr[SP_RENORM_MAXNORM]);
    sp_tensor *norms = NULL, *larger = NULL, *safe = NULL, *inverse = NULL, *ratio = NULL,
              *factor = NULL;
    int d;
    sp_status status = SP_OK;
    SP_RETURN_IF(sp__check_floating(c, c->in[0], "x"));
    if (c->in[0]->rank < 2 || !(p > 0) || !(most >= 0))
        return sp_fail(SP_EVALUE,
                       "%s: x of shape %s, p %g and maxnorm %g; expected two dimensions, p above 0 "
                       "and maxnorm 0 or more",
                       sp__op_name(c), SP_SHAPE(c->in[0]), p, most);
    SP_RETURN_IF(sp__dim_normalize(sp__op_name(c), c->attr[SP_RENORM_DIM].v.i, c->in[0]->rank, &d));
    SP_TRY(norms_of_slices(c, p, d, &norms));
    SP_TRY(sp_gt_scalar(norms, SP_FLOAT(most), &larger));
    SP_TRY(sp_add_scalar(norms, SP_FLOAT(1e-7), &safe));
    SP_TRY(sp_reciprocal(safe, &inverse));
    SP_TRY(sp_mul_scalar(inverse, SP_FLOAT(most), &ratio));
    SP_TRY(sp_where_scalar(larger, ratio, SP_INT(1), &factor));
    SP_TRY(sp_mul(c->in[0], factor, &c->out[0]));
out:
    sp_drop(&norms), sp_drop(&larger), sp_drop(&safe), sp_drop(&inverse), sp_drop(&ratio),
        sp_drop(&factor);
    return status;
}

/* ---- closeness ----- */

static bool is_whole(const sp_tensor *x)
{
    return !sp__dtype_is_inexact(x->dtype);
}

/* |x - y| <= atol + rtol |y|, in floating numbers. */
static sp_status within(const sp_tensor *x, const sp_tensor *y, double rtol, double atol,
                        sp_tensor **out)
{
    sp_tensor *a = NULL, *b = NULL, *away = NULL, *far = NULL, *size = NULL, *part = NULL,
              *allowed = NULL, *near = NULL, *finite = NULL;
    sp_status status = SP_OK;
    SP_TRY(is_whole(x) ? sp_cast(x, SP_FLOAT64, &a) : sp_alias(x, &a));
    SP_TRY(is_whole(y) ? sp_cast(y, SP_FLOAT64, &b) : sp_alias(y, &b));
    SP_TRY(sp_sub(a, b, &away));
    SP_TRY(sp_abs(away, &far));
    SP_TRY(sp_abs(b, &size));
    SP_TRY(sp_mul_scalar(size, SP_FLOAT(rtol), &part));
    SP_TRY(sp_add_scalar(part, SP_FLOAT(atol), &allowed));
    SP_TRY(sp_le(far, allowed, &near));
    SP_TRY(sp_isfinite(far, &finite));
    SP_TRY(sp_logical_and(near, finite, out));
out:
    sp_drop(&a), sp_drop(&b), sp_drop(&away), sp_drop(&far), sp_drop(&size), sp_drop(&part),
        sp_drop(&allowed), sp_drop(&near), sp_drop(&finite);
    return status;
}

/* isclose, allclose: the same attributes */
static sp_status close_to(const sp_call *c, sp_tensor **out)
{
    const sp_tensor *x = c->in[0], *y = c->in[1];
    double rtol = c->attr[SP_ISCLOSE_RTOL].v.f, atol = c->attr[SP_ISCLOSE_ATOL].v.f;
    sp_tensor *same = NULL, *near = NULL, *x_nan = NULL, *y_nan = NULL, *both = NULL, *known = NULL;
    sp_status status = SP_OK;
    SP_RETURN_IF(sp__check_same_dtype(c, x, "x", y, "other"));
    if (!(rtol >= 0 && atol >= 0))
        return sp_fail(SP_EVALUE, "%s: tolerances %g and %g, expected 0 or more", sp__op_name(c),
                       rtol, atol);
    SP_TRY(sp_eq(x, y, &same));
    SP_TRY(within(x, y, rtol, atol, &near));
    SP_TRY(sp_logical_or(same, near, &known));
    if (!c->attr[SP_ISCLOSE_EQUAL_NAN].v.i) {
        *out = known, known = NULL;
    } else {
        SP_TRY(sp_isnan(x, &x_nan));
        SP_TRY(sp_isnan(y, &y_nan));
        SP_TRY(sp_logical_and(x_nan, y_nan, &both));
        SP_TRY(sp_logical_or(known, both, out));
    }
out:
    sp_drop(&same), sp_drop(&near), sp_drop(&x_nan), sp_drop(&y_nan), sp_drop(&both),
        sp_drop(&known);
    return status;
}

sp_status sp__body_isclose(sp_call *c)
{
    return close_to(c, &c->out[0]);
}

static sp_status all_of(sp_tensor *t, sp_tensor **out)
{
    sp_status status = sp_all(t, NULL, out);
    sp_drop(&t);
    return status;
}

sp_status sp__body_allclose(sp_call *c)
{
    sp_tensor *near = NULL;
    SP_RETURN_IF(close_to(c, &near));
    return all_of(near, &c->out[0]);
}

sp_status sp__body_equal(sp_call *c)
{
    sp_tensor *same = NULL;
    if (!sp__same_shape(c->in[0], c->in[1]))
        return sp_full(NULL, 0, (sp_scalar){.v.i = 0, .kind = SP_BOOL}, NULL, &c->out[0]);
    SP_RETURN_IF(sp_eq(c->in[0], c->in[1], &same));
    return all_of(same, &c->out[0]);
}
