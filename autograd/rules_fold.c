/* Derivatives of scatter_fold: extrema and products of what an index brings together.
 *
 * They are made of ops, so they have derivatives in turn. Those of a product are taken of the
 * factors that are not zero; where one of several is, the second derivative leaves out what it
 * would be if that factor moved.
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

/* t with 1 for its zeros, and where they are. */
static sp_status without_zeros(const sp_tensor *t, sp_tensor **zero, sp_tensor **factors)
{
    SP_RETURN_IF(sp_eq_scalar(t, SP_INT(0), zero));
    return sp_where_scalar_x(*zero, SP_INT(1), t, factors);
}

/* The product of the others: that of all factors but zeros, over t's own; 0 where another one is
 * zero. zeros: how many there are at the place. */
static sp_status product_of_others(const sp_tensor *t, const sp_tensor *zeros,
                                   const sp_tensor *product, sp_tensor **out)
{
    sp_tensor *zero = NULL, *factors = NULL, *ratio = NULL, *mine = NULL, *rest = NULL,
              *none = NULL;
    sp_status status = SP_OK;
    SP_TRY(without_zeros(t, &zero, &factors));
    SP_TRY(sp_div(product, factors, &ratio));
    SP_TRY(sp_cast(zero, (sp_dtype)zeros->dtype, &mine));
    SP_TRY(sp_sub(zeros, mine, &rest));
    SP_TRY(sp_eq_scalar(rest, SP_INT(0), &none));
    SP_TRY(sp_where_scalar(none, ratio, SP_INT(0), out));
out:
    sp_drop(&zero), sp_drop(&factors), sp_drop(&ratio), sp_drop(&mine), sp_drop(&rest),
        sp_drop(&none);
    return status;
}

/* At each place, how many zeros there are, and the product of the rest. */
static sp_status count_and_product(const fold_args *a, sp_tensor **zeros, sp_tensor **product)
{
    sp_tensor *x_zero = NULL, *x = NULL, *src_zero = NULL, *src = NULL, *own = NULL, *others = NULL;
    sp_status status = SP_OK;
    SP_TRY(without_zeros(a->x, &x_zero, &x));
    SP_TRY(without_zeros(a->src, &src_zero, &src));
    SP_TRY(sp_cast(x_zero, SP_INT64, &own));
    SP_TRY(sp_cast(src_zero, SP_INT64, &others));
    SP_TRY(sp_scatter_add(own, a->dim, a->index, others, zeros));
    SP_TRY(sp_scatter_fold(x, a->dim, a->index, src, SP_FOLD_PROD, product));
out:
    sp_drop(&x_zero), sp_drop(&x), sp_drop(&src_zero), sp_drop(&src), sp_drop(&own),
        sp_drop(&others);
    return status;
}

static sp_status factor(const fold_args *a, const sp_tensor *gy, bool of_src, sp_tensor **out)
{
    sp_tensor *zeros = NULL, *product = NULL, *zeros_there = NULL, *product_there = NULL,
              *gy_there = NULL, *others = NULL;
    sp_status status = SP_OK;
    SP_TRY(count_and_product(a, &zeros, &product));
    if (of_src) {
        SP_TRY(sp_gather(zeros, a->dim, a->index, &zeros_there));
        SP_TRY(sp_gather(product, a->dim, a->index, &product_there));
        SP_TRY(sp_gather(gy, a->dim, a->index, &gy_there));
        SP_TRY(product_of_others(a->src, zeros_there, product_there, &others));
        SP_TRY(sp_mul(gy_there, others, out));
    } else {
        SP_TRY(product_of_others(a->x, zeros, product, &others));
        SP_TRY(sp_mul(gy, others, out));
    }
out:
    sp_drop(&zeros), sp_drop(&product), sp_drop(&zeros_there), sp_drop(&product_there),
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
