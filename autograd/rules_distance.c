/* The derivative of cdist, by ops.
 *
 * Of the Euclidean distance it takes products of matrices and holds nothing larger than the
 * distances; of the others, the differences of all pairs of rows. Zero distances have gradient 0
 * and divide nothing, so that derivatives of any order are finite there.
 */
#include <math.h>

#include "autograd/rules.h"
#include "ops_gen.h"

static const int64_t last = -1, rows = -2, pairs = -3;

/* g / d ** e, 0 where d is. */
static sp_status share(const sp_tensor *g, const sp_tensor *d, double e, sp_tensor **out)
{
    sp_tensor *some = NULL, *safe = NULL, *power = NULL, *quotient = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp_ne_scalar(d, SP_INT(0), &some));
    SP_TRY(sp_where_scalar(some, d, SP_INT(1), &safe));
    if (e != 1) SP_TRY(sp_pow_scalar(safe, SP_FLOAT(e), &power));
    SP_TRY(sp_div(g, power ? power : safe, &quotient));
    SP_TRY(sp_where_scalar(some, quotient, SP_INT(0), out));
out:
    sp_drop(&some), sp_drop(&safe), sp_drop(&power), sp_drop(&quotient);
    return status;
}

/* ---- p = 2 ----- */

/* a - c and b - c, c being the mean row of b: products of large numbers would cost digits. */
static sp_status centred(const sp_tensor *a, const sp_tensor *b, sp_tensor **near_a,
                         sp_tensor **near_b)
{
    const sp_mean_opt opt = {.size = sizeof opt, .dim = &rows, .n_dim = 1, .keepdim = true};
    sp_tensor *mean = NULL, *centre = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp_mean(b, &opt, &mean));
    SP_TRY(sp_detach(mean, &centre));
    SP_TRY(sp_sub(a, centre, near_a));
    SP_TRY(sp_sub(b, centre, near_b));
out:
    sp_drop(&mean), sp_drop(&centre);
    return status;
}

/* The sum over rows b[j] of w[i, j] (a[i] - b[j]). */
static sp_status weighted_differences(const sp_tensor *w, const sp_tensor *a, const sp_tensor *b,
                                      sp_tensor **out)
{
    const sp_sum_opt opt = {.size = sizeof opt, .dim = &last, .n_dim = 1, .keepdim = true};
    sp_tensor *near_a = NULL, *near_b = NULL, *weight = NULL, *own = NULL, *others = NULL;
    sp_status status = SP_OK;
    SP_TRY(centred(a, b, &near_a, &near_b));
    SP_TRY(sp_sum(w, &opt, &weight));
    SP_TRY(sp_mul(near_a, weight, &own));
    SP_TRY(sp_matmul(w, near_b, &others));
    SP_TRY(sp_sub(own, others, out));
out:
    sp_drop(&near_a), sp_drop(&near_b), sp_drop(&weight), sp_drop(&own), sp_drop(&others);
    return status;
}

static sp_status euclidean(const sp_tensor *gy, const sp_tensor *a, const sp_tensor *b,
                           const sp_tensor *d, sp_tensor **out)
{
    sp_tensor *w = NULL;
    SP_RETURN_IF(share(gy, d, 1, &w));
    sp_status status = weighted_differences(w, a, b, out);
    sp_drop(&w);
    return status;
}

/* ---- other p ----- */

/* The largest differences share g. */
static sp_status largest(const sp_tensor *g, const sp_tensor *away, const sp_tensor *d,
                         sp_tensor **out)
{
    const sp_sum_opt opt = {.size = sizeof opt, .dim = &last, .n_dim = 1, .keepdim = true};
    sp_tensor *size = NULL, *hit = NULL, *hits = NULL, *part = NULL, *sign = NULL, *slope = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp_abs(away, &size));
    SP_TRY(sp_eq(size, d, &hit));
    SP_TRY(sp_sum(hit, &opt, &hits));
    SP_TRY(sp_div(g, hits, &part));
    SP_TRY(sp_sign(away, &sign));
    SP_TRY(sp_mul(part, sign, &slope));
    SP_TRY(sp_where_scalar(hit, slope, SP_INT(0), out));
out:
    sp_drop(&size), sp_drop(&hit), sp_drop(&hits), sp_drop(&part), sp_drop(&sign), sp_drop(&slope);
    return status;
}

/* With respect to the differences `away`, for a distance d of gradient g. */
static sp_status slopes(const sp_tensor *g, const sp_tensor *away, const sp_tensor *d, double p,
                        sp_tensor **out)
{
    sp_tensor *part = NULL, *scaled = NULL;
    sp_status status = SP_OK;
    if (isinf(p)) return largest(g, away, d, out);
    if (p == 1) return sp__rule_power_sum_vjp(g, away, 1, out);
    SP_TRY(share(g, d, p - 1, &part));
    SP_TRY(sp_mul_scalar(part, SP_FLOAT(1 / p), &scaled));
    SP_TRY(sp__rule_power_sum_vjp(scaled, away, p, out));
out:
    sp_drop(&part), sp_drop(&scaled);
    return status;
}

static sp_status by_pairs(const sp_tensor *gy, const sp_tensor *a, const sp_tensor *b,
                          const sp_tensor *d, double p, sp_tensor **out)
{
    const sp_sum_opt opt = {.size = sizeof opt, .dim = &rows, .n_dim = 1};
    sp_tensor *left = NULL, *right = NULL, *away = NULL, *g = NULL, *wide = NULL, *slope = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp_unsqueeze(a, rows, &left));
    SP_TRY(sp_unsqueeze(b, pairs, &right));
    SP_TRY(sp_sub(left, right, &away));
    SP_TRY(sp_unsqueeze(gy, last, &g));
    SP_TRY(sp_unsqueeze(d, last, &wide));
    SP_TRY(slopes(g, away, wide, p, &slope));
    SP_TRY(sp_sum(slope, &opt, out));
out:
    sp_drop(&left), sp_drop(&right), sp_drop(&away), sp_drop(&g), sp_drop(&wide), sp_drop(&slope);
    return status;
}

sp_status sp__rule_cdist_rows(const sp_tensor *gy, const sp_tensor *a, const sp_tensor *b,
                              const sp_tensor *d, double p, const sp_meta *m, sp_tensor **out)
{
    sp_tensor *g = NULL;
    *out = NULL;
    if (p == 0 || gy->numel == 0) return sp_fill_scalar(a, SP_INT(0), out);
    SP_RETURN_IF(p == 2 ? euclidean(gy, a, b, d, &g) : by_pairs(gy, a, b, d, p, &g));
    sp_status status = sp__rule_sum_to(g, m, out);
    sp_drop(&g);
    return status;
}
