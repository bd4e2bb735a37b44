/* Derivatives of scatter_fold: extrema and products of what an index brings together.
 *
 * They are made of ops, so they have derivatives in turn. Those of a product are the product of
 * the others: that of those that are not zero, times the other zero if there is one, and 0 if there
 * are more. Where three factors at one place are zero, the third derivative by them is left out.
 */
#include "autograd/rules.h"

#include "ops_gen.h"

/* Everything at one place of the fold: x's own element, and src's. */
typedef struct fold_args {
    const sp_tensor *x, *index, *src, *y;
    int64_t dim;
} fold_args;

static sp_status truth_as(const sp_tensor *a, const sp_tensor *b, sp_dtype dtype, sp_tensor **out)
{
    sp_tensor *same = NULL;
    SP_RETURN_IF(sp_eq(a, b, &same));
    sp_status status = sp_cast(same, dtype, out);
    sp_drop(&same);
    return status;
}

/* ---- extrema ----- */

/* Which elements are the extremum: 1 or 0; and the gradient's share for each of them. */
static sp_status shares(const fold_args *a, const sp_tensor *gy, sp_tensor **own,
                        sp_tensor **others, sp_tensor **share)
{
    sp_dtype dtype = (sp_dtype)a->x->dtype;
    sp_tensor *there = NULL, *count = NULL;
    sp_status status = SP_OK;
    SP_TRY(truth_as(a->x, a->y, dtype, own));
    SP_TRY(sp_gather(a->y, a->dim, a->index, &there));
    SP_TRY(truth_as(a->src, there, dtype, others));
    SP_TRY(sp_scatter_add(*own, a->dim, a->index, *others, &count));
    SP_TRY(sp_div(gy, count, share));
out:
    sp_drop(&there), sp_drop(&count);
    return status;
}

static sp_status extremum(const fold_args *a, const sp_tensor *gy, bool of_src, sp_tensor **out)
{
    sp_tensor *own = NULL, *others = NULL, *share = NULL, *there = NULL;
    sp_status status = SP_OK;
    SP_TRY(shares(a, gy, &own, &others, &share));
    if (of_src) {
        SP_TRY(sp_gather(share, a->dim, a->index, &there));
        SP_TRY(sp_mul(there, others, out));
    } else {
        SP_TRY(sp_mul(share, own, out));
    }
out:
    sp_drop(&own), sp_drop(&others), sp_drop(&share), sp_drop(&there);
    return status;
}

/* ---- products ----- */

/* At each place of the fold, or where an index points: how many factors are zero, their sum (0, but
 * it moves with them), and the product of the rest. */
typedef struct place {
    sp_tensor *zeros, *zero_sum, *product;
} place;

static void drop_place(place *p)
{
    sp_drop(&p->zeros), sp_drop(&p->zero_sum), sp_drop(&p->product);
}

/* t's elements: which are zero, these alone, and the others with 1 in their place. */
typedef struct factors {
    sp_tensor *zero, *none, *rest;
} factors;

static void drop_factors(factors *f)
{
    sp_drop(&f->zero), sp_drop(&f->none), sp_drop(&f->rest);
}

static sp_status factors_of(const sp_tensor *t, factors *f)
{
    SP_RETURN_IF(sp_eq_scalar(t, SP_INT(0), &f->zero));
    SP_RETURN_IF(sp_where_scalar(f->zero, t, SP_INT(0), &f->none));
    return sp_where_scalar_x(f->zero, SP_INT(1), t, &f->rest);
}

static sp_status count_zeros(const fold_args *a, const factors *x, const factors *src,
                             sp_tensor **out)
{
    sp_tensor *own = NULL, *others = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp_cast(x->zero, SP_INT64, &own));
    SP_TRY(sp_cast(src->zero, SP_INT64, &others));
    SP_TRY(sp_scatter_add(own, a->dim, a->index, others, out));
out:
    sp_drop(&own), sp_drop(&others);
    return status;
}

static sp_status folded(const fold_args *a, place *p)
{
    factors x = {NULL}, src = {NULL};
    sp_status status = SP_OK;
    SP_TRY(factors_of(a->x, &x));
    SP_TRY(factors_of(a->src, &src));
    SP_TRY(count_zeros(a, &x, &src, &p->zeros));
    SP_TRY(sp_scatter_add(x.none, a->dim, a->index, src.none, &p->zero_sum));
    SP_TRY(sp_scatter_fold(x.rest, a->dim, a->index, src.rest, SP_FOLD_PROD, &p->product));
out:
    drop_factors(&x), drop_factors(&src);
    return status;
}

static sp_status gathered(const fold_args *a, const place *p, place *out)
{
    SP_RETURN_IF(sp_gather(p->zeros, a->dim, a->index, &out->zeros));
    SP_RETURN_IF(sp_gather(p->zero_sum, a->dim, a->index, &out->zero_sum));
    return sp_gather(p->product, a->dim, a->index, &out->product);
}

/* The product of the zeros at p but f's own: 1 without any, the other one, or 0. */
static sp_status product_of_zeros(const factors *f, const place *p, sp_tensor **out)
{
    sp_tensor *mine = NULL, *rest = NULL, *alone = NULL, *pair = NULL, *other = NULL, *some = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp_cast(f->zero, SP_INT64, &mine));
    SP_TRY(sp_sub(p->zeros, mine, &rest));
    SP_TRY(sp_eq_scalar(rest, SP_INT(0), &alone));
    SP_TRY(sp_eq_scalar(rest, SP_INT(1), &pair));
    SP_TRY(sp_sub(p->zero_sum, f->none, &other));
    SP_TRY(sp_where_scalar(pair, other, SP_INT(0), &some));
    SP_TRY(sp_where_scalar_x(alone, SP_INT(1), some, out));
out:
    sp_drop(&mine), sp_drop(&rest), sp_drop(&alone), sp_drop(&pair), sp_drop(&other),
        sp_drop(&some);
    return status;
}

/* The derivative by t's elements of the products at p. */
static sp_status product_of_others(const sp_tensor *t, const place *p, sp_tensor **out)
{
    factors f = {NULL};
    sp_tensor *ratio = NULL, *zeros = NULL;
    sp_status status = SP_OK;
    SP_TRY(factors_of(t, &f));
    SP_TRY(sp_div(p->product, f.rest, &ratio));
    SP_TRY(product_of_zeros(&f, p, &zeros));
    SP_TRY(sp_mul(ratio, zeros, out));
out:
    drop_factors(&f), sp_drop(&ratio), sp_drop(&zeros);
    return status;
}

static sp_status factor(const fold_args *a, const sp_tensor *gy, bool of_src, sp_tensor **out)
{
    place p = {NULL}, there = {NULL};
    sp_tensor *gy_there = NULL, *others = NULL;
    sp_status status = SP_OK;
    SP_TRY(folded(a, &p));
    if (of_src) {
        SP_TRY(gathered(a, &p, &there));
        SP_TRY(sp_gather(gy, a->dim, a->index, &gy_there));
        SP_TRY(product_of_others(a->src, &there, &others));
        SP_TRY(sp_mul(gy_there, others, out));
    } else {
        SP_TRY(product_of_others(a->x, &p, &others));
        SP_TRY(sp_mul(gy, others, out));
    }
out:
    drop_place(&p), drop_place(&there);
    sp_drop(&gy_there), sp_drop(&others);
    return status;
}

/* ---- both ----- */

sp_status sp__rule_scatter_fold_x(const sp_tensor *gy, const sp_tensor *x, int64_t dim,
                                  const sp_tensor *index, const sp_tensor *src, const sp_tensor *y,
                                  int64_t fold, sp_tensor **out)
{
    const fold_args a = {.x = x, .index = index, .src = src, .y = y, .dim = dim};
    *out = NULL;
    return (fold == SP_FOLD_PROD ? factor : extremum)(&a, gy, false, out);
}

sp_status sp__rule_scatter_fold_src(const sp_tensor *gy, const sp_tensor *x, int64_t dim,
                                    const sp_tensor *index, const sp_tensor *src,
                                    const sp_tensor *y, int64_t fold, sp_tensor **out)
{
    const fold_args a = {.x = x, .index = index, .src = src, .y = y, .dim = dim};
    *out = NULL;
    return (fold == SP_FOLD_PROD ? factor : extremum)(&a, gy, true, out);
}
