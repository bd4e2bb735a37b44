/* Rules for reductions that pick elements, for products and for running results.
 *
 * With P[i] the product of the elements before i, the gradient of cumprod is
 *
 *     gx[i] = P[i] * S[i],   S[i] = gy[i] + x[i + 1] * S[i + 1]
 *
 * where nothing is divided by, so zeros need no care; S is the linear recurrence that is an op of
 * its own, and closed under differentiation. A product is the last element of cumprod.
 */
#include "autograd/rules.h"
#include "ops/infer.h"
#include "ops_gen.h"

/* ---- picked elements ----- */

/* t with the reduced dimension put back, if it is not there. */
static sp_status with_dim(const sp_tensor *t, int rank, int64_t dim, bool keepdim, sp_tensor **out)
{
    if (!keepdim && rank > 0) return sp_unsqueeze(t, dim, out);
    *out = sp__retain(t);
    return SP_OK;
}

static sp_status filled(const sp_tensor *like, int64_t value, sp_tensor **out)
{
    const sp_full_opt opt = {.size = sizeof opt, .has_dtype = true, .dtype = (sp_dtype)like->dtype};
    return sp_full(like->shape, like->rank, SP_INT(value), &opt, out);
}

sp_status sp__rule_place_along(const sp_tensor *gy, const sp_meta *m, int64_t dim, bool keepdim,
                               const sp_tensor *indices, sp_tensor **out)
{
    const sp_full_opt opt = {.size = sizeof opt, .has_dtype = true, .dtype = (sp_dtype)m->dtype};
    sp_tensor *zeros = NULL, *g = NULL, *at = NULL;
    sp_status status = SP_OK;
    *out = NULL;
    if (m->rank == 0) return sp_reshape(gy, NULL, 0, out);
    SP_TRY(sp_full(m->shape, m->rank, SP_INT(0), &opt, &zeros));
    SP_TRY(with_dim(gy, m->rank, dim, keepdim, &g));
    SP_TRY(with_dim(indices, m->rank, dim, keepdim, &at));
    SP_TRY(sp_scatter_add(zeros, dim, at, g, out));
out:
    sp_drop(&zeros), sp_drop(&g), sp_drop(&at);
    return status;
}

sp_status sp__rule_pick_along(const sp_tensor *tx, int64_t dim, bool keepdim,
                              const sp_tensor *indices, sp_tensor **out)
{
    sp_tensor *at = NULL, *picked = NULL;
    const sp_squeeze_opt opt = {.size = sizeof opt, .dim = &dim, .n_dim = 1};
    sp_status status = SP_OK;
    *out = NULL;
    if (tx->rank == 0) return sp_reshape(tx, NULL, 0, out);
    if (keepdim) return sp_gather(tx, dim, indices, out);
    SP_TRY(with_dim(indices, tx->rank, dim, keepdim, &at));
    SP_TRY(sp_gather(tx, dim, at, &picked));
    SP_TRY(sp_squeeze(picked, &opt, out));
out:
    sp_drop(&at), sp_drop(&picked);
    return status;
}

/* ---- one place further ----- */

static int64_t size_along(const sp_tensor *t, int64_t dim)
{
    return t->rank == 0 ? 1 : t->shape[dim < 0 ? dim + t->rank : dim];
}

/* t moved by one place to higher indices along dim (to lower ones if `back`), over what stands in
 * `under`, whose elements remain where nothing comes. */
static sp_status shifted(const sp_tensor *t, const sp_tensor *under, int64_t dim, bool back,
                         sp_tensor **out)
{
    int64_t n = size_along(t, dim);
    sp_tensor *part = NULL;
    sp_status status = SP_OK;
    if (t->rank == 0 || n == 0) {
        *out = sp__retain(under);
        return SP_OK;
    }
    const sp_slice_scatter_opt to = {.size = sizeof to,
                                     .dim = dim,
                                     .start = back ? 0 : 1,
                                     .has_end = true,
                                     .end = back ? n - 1 : n};
    SP_TRY(sp_slice(t, dim, back ? 1 : 0, back ? n : n - 1, NULL, &part));
    SP_TRY(sp_slice_scatter(under, part, &to, out));
out:
    sp_drop(&part);
    return status;
}

static sp_status shifted_over(const sp_tensor *t, int64_t value, int64_t dim, bool back,
                              sp_tensor **out)
{
    sp_tensor *under = NULL;
    SP_RETURN_IF(filled(t, value, &under));
    sp_status status = shifted(t, under, dim, back, out);
    sp_drop(&under);
    return status;
}

static sp_status scanned(const sp_tensor *x, const sp_tensor *factor, int64_t dim, bool reverse,
                         sp_tensor **out)
{
    const sp_linear_scan_opt opt = {.size = sizeof opt, .reverse = reverse};
    return sp_linear_scan(x, factor, dim, &opt, out);
}

static sp_status cast_to(const sp_tensor *t, int dtype, sp_tensor **out)
{
    if (t->dtype != dtype) return sp_cast(t, (sp_dtype)dtype, out);
    *out = sp__retain(t);
    return SP_OK;
}

/* ---- linear_scan ----- */

sp_status sp__rule_linear_scan_x(const sp_tensor *gy, const sp_tensor *factor, int64_t dim,
                                 bool reverse, sp_tensor **out)
{
    *out = NULL;
    return scanned(gy, factor, dim, !reverse, out);
}

/* factor[i] stands before out[i - 1] in out[i]; in reverse, before out[i] in out[i - 1]. */
sp_status sp__rule_linear_scan_factor(const sp_tensor *gy, const sp_tensor *factor,
                                      const sp_tensor *y, int64_t dim, bool reverse,
                                      sp_tensor **out)
{
    sp_tensor *gx = NULL, *moved = NULL;
    sp_status status = SP_OK;
    *out = NULL;
    SP_TRY(scanned(gy, factor, dim, !reverse, &gx));
    SP_TRY(shifted_over(reverse ? gx : y, 0, dim, false, &moved));
    SP_TRY(sp_mul(reverse ? y : gx, moved, out));
out:
    sp_drop(&gx), sp_drop(&moved);
    return status;
}

sp_status sp__rule_linear_scan_tangent(const sp_tensor *tfactor, const sp_tensor *factor,
                                       const sp_tensor *y, int64_t dim, bool reverse,
                                       sp_tensor **out)
{
    sp_tensor *moved = NULL, *step = NULL, *back = NULL;
    sp_status status = SP_OK;
    *out = NULL;
    if (reverse) {
        SP_TRY(sp_mul(tfactor, y, &step));
        SP_TRY(shifted_over(step, 0, dim, true, &back));
    } else {
        SP_TRY(shifted_over(y, 0, dim, false, &moved));
        SP_TRY(sp_mul(tfactor, moved, &back));
    }
    SP_TRY(scanned(back, factor, dim, reverse, out));
out:
    sp_drop(&moved), sp_drop(&step), sp_drop(&back);
    return status;
}

/* ---- running sums and products ----- */

sp_status sp__rule_cumsum_vjp(const sp_tensor *gy, const sp_meta *x, int64_t dim, sp_tensor **out)
{
    const sp_full_opt opt = {.size = sizeof opt, .has_dtype = true, .dtype = (sp_dtype)gy->dtype};
    sp_tensor *one = NULL, *ones = NULL, *sums = NULL;
    sp_status status = SP_OK;
    *out = NULL;
    SP_TRY(sp_full(NULL, 0, SP_INT(1), &opt, &one));
    SP_TRY(sp_expand(one, gy->shape, gy->rank, &ones));
    SP_TRY(scanned(gy, ones, dim, true, &sums));
    SP_TRY(cast_to(sums, x->dtype, out));
out:
    sp_drop(&one), sp_drop(&ones), sp_drop(&sums);
    return status;
}

/* The products of the elements before each. */
static sp_status products_before(const sp_tensor *x, int64_t dim, sp_tensor **out)
{
    sp_tensor *products = NULL;
    SP_RETURN_IF(sp_cumprod(x, dim, NULL, &products));
    sp_status status = shifted_over(products, 1, dim, false, out);
    sp_drop(&products);
    return status;
}

/* gy: of all running products, in the dtype that they are computed in. */
sp_status sp__rule_cumprod_vjp(const sp_tensor *gy, const sp_tensor *x, int64_t dim,
                               sp_tensor **out)
{
    sp_tensor *wide = NULL, *before = NULL, *after = NULL, *gx = NULL;
    sp_status status = SP_OK;
    *out = NULL;
    SP_TRY(cast_to(x, gy->dtype, &wide));
    SP_TRY(products_before(wide, dim, &before));
    SP_TRY(scanned(gy, wide, dim, true, &after));
    SP_TRY(sp_mul(before, after, &gx));
    SP_TRY(cast_to(gx, x->dtype, out));
out:
    sp_drop(&wide), sp_drop(&before), sp_drop(&after), sp_drop(&gx);
    return status;
}

sp_status sp__rule_cumprod_jvp(const sp_tensor *tx, const sp_tensor *x, const sp_tensor *y,
                               int64_t dim, sp_tensor **out)
{
    sp_tensor *wide = NULL, *t = NULL, *before = NULL, *step = NULL;
    sp_status status = SP_OK;
    *out = NULL;
    SP_TRY(cast_to(x, y->dtype, &wide));
    SP_TRY(cast_to(tx, y->dtype, &t));
    SP_TRY(shifted_over(y, 1, dim, false, &before));
    SP_TRY(sp_mul(before, t, &step));
    SP_TRY(scanned(step, wide, dim, false, out));
out:
    sp_drop(&wide), sp_drop(&t), sp_drop(&before), sp_drop(&step);
    return status;
}

/* gy of a product as the gradient of the running products: all zero but the last. */
static sp_status last_of(const sp_tensor *gy, const sp_tensor *x, int64_t dim, bool keepdim,
                         sp_tensor **out)
{
    sp_tensor *g = NULL, *zeros = NULL, *under = NULL;
    sp_status status = SP_OK;
    int64_t n = size_along(x, dim);
    const sp_slice_scatter_opt to = {
        .size = sizeof to, .dim = dim, .start = n - 1, .has_end = true, .end = n};
    SP_TRY(filled(x, 0, &zeros));
    SP_TRY(cast_to(zeros, gy->dtype, &under));
    SP_TRY(with_dim(gy, x->rank, dim, keepdim, &g));
    SP_TRY(sp_slice_scatter(under, g, &to, out));
out:
    sp_drop(&g), sp_drop(&zeros), sp_drop(&under);
    return status;
}

sp_status sp__rule_prod_vjp(const sp_tensor *gy, const sp_tensor *x, const sp_attr *dim,
                            bool keepdim, sp_tensor **out)
{
    bool all = dim->absent;
    int64_t along = all ? 0 : dim->v.i;
    sp_tensor *line = NULL, *g = NULL, *last = NULL, *gx = NULL;
    sp_status status = SP_OK;
    *out = NULL;
    if (x->rank == 0) return cast_to(gy, x->dtype, out);
    if (x->numel == 0) return filled(x, 0, out);
    SP_TRY(all ? sp_reshape(x, &x->numel, 1, &line) : cast_to(x, x->dtype, &line));
    SP_TRY(all ? sp_reshape(gy, &(int64_t){1}, 1, &g) : cast_to(gy, gy->dtype, &g));
    SP_TRY(last_of(g, line, along, all || keepdim, &last));
    SP_TRY(sp__rule_cumprod_vjp(last, line, along, &gx));
    SP_TRY(all ? sp_reshape(gx, x->shape, x->rank, out) : cast_to(gx, x->dtype, out));
out:
    sp_drop(&line), sp_drop(&g), sp_drop(&last), sp_drop(&gx);
    return status;
}

sp_status sp__rule_prod_jvp(const sp_tensor *tx, const sp_tensor *x, const sp_tensor *y,
                            const sp_attr *dim, bool keepdim, sp_tensor **out)
{
    const sp_sum_opt opt = {.size = sizeof opt,
                            .dim = dim->absent ? NULL : &dim->v.i,
                            .n_dim = dim->absent ? 0 : 1,
                            .keepdim = keepdim};
    sp_tensor *ones = NULL, *slope = NULL, *change = NULL;
    sp_status status = SP_OK;
    *out = NULL;
    SP_TRY(filled(y, 1, &ones));
    SP_TRY(sp__rule_prod_vjp(ones, x, dim, keepdim, &slope));
    SP_TRY(sp_mul(tx, slope, &change));
    SP_TRY(sp_sum(change, &opt, out));
out:
    sp_drop(&ones), sp_drop(&slope), sp_drop(&change);
    return status;
}

/* ---- logcumsumexp ----- */

/* exp(y[i - 1] - y[i]), at most 1; where both are -inf they are as good as equal. */
static sp_status decay(const sp_tensor *y, int64_t dim, sp_tensor **out)
{
    sp_tensor *before = NULL, *drop = NULL, *known = NULL, *safe = NULL;
    sp_status status = SP_OK;
    SP_TRY(shifted(y, y, dim, false, &before));
    SP_TRY(sp_sub(before, y, &drop));
    SP_TRY(sp_eq(drop, drop, &known));
    SP_TRY(sp_where_scalar(known, drop, SP_INT(0), &safe));
    SP_TRY(sp_exp(safe, out));
out:
    sp_drop(&before), sp_drop(&drop), sp_drop(&known), sp_drop(&safe);
    return status;
}

/* exp(x - y): what each element adds at its own place. */
static sp_status share(const sp_tensor *x, const sp_tensor *y, sp_tensor **out)
{
    sp_tensor *less = NULL;
    SP_RETURN_IF(sp_sub(x, y, &less));
    sp_status status = sp_exp(less, out);
    sp_drop(&less);
    return status;
}

/* g times the shares, run along dim with the decay; either before or after that. */
static sp_status log_scan(const sp_tensor *g, const sp_tensor *x, const sp_tensor *y, int64_t dim,
                          bool reverse, sp_tensor **out)
{
    sp_tensor *factor = NULL, *own = NULL, *inner = NULL;
    sp_status status = SP_OK;
    *out = NULL;
    SP_TRY(decay(y, dim, &factor));
    SP_TRY(share(x, y, &own));
    if (reverse) {
        SP_TRY(scanned(g, factor, dim, true, &inner));
        SP_TRY(sp_mul(inner, own, out));
    } else {
        SP_TRY(sp_mul(g, own, &inner));
        SP_TRY(scanned(inner, factor, dim, false, out));
    }
out:
    sp_drop(&factor), sp_drop(&own), sp_drop(&inner);
    return status;
}

sp_status sp__rule_logcumsumexp_vjp(const sp_tensor *gy, const sp_tensor *x, const sp_tensor *y,
                                    int64_t dim, sp_tensor **out)
{
    return log_scan(gy, x, y, dim, true, out);
}

sp_status sp__rule_logcumsumexp_jvp(const sp_tensor *tx, const sp_tensor *x, const sp_tensor *y,
                                    int64_t dim, sp_tensor **out)
{
    return log_scan(tx, x, y, dim, false, out);
}
