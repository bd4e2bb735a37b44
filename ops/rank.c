/* Elements by their rank among those that count: mode, quantiles. Made of sort and
 * gather.
 */
#include <math.h>

#include "ops/infer.h"
#include "ops_gen.h"

/* x with the dimension last; a vector of all elements if it is absent. */
static sp_status lined_up(const sp_call *c, const sp_attr *dim, int *d, sp_tensor **out)
{
    const sp_tensor *x = c->in[0];
    *d = 0;
    if (dim->absent || x->rank == 0) {
        SP_RETURN_IF(sp_reshape(x, &x->numel, 1, out));
    } else {
        SP_RETURN_IF(sp__dim_normalize(sp__op_name(c), dim->v.i, x->rank, d));
        SP_RETURN_IF(sp_movedim(x, (int64_t[]){*d}, 1, (int64_t[]){-1}, 1, out));
    }
    if ((*out)->shape[(*out)->rank - 1] > 0) return SP_OK;
    sp_drop(out);
    return sp_fail(SP_EVALUE, "%s: x of shape %s has no element to choose along the dimension",
                   sp__op_name(c), SP_SHAPE(x));
}

static sp_status sorted_last(const sp_tensor *x, sp_tensor **values, sp_tensor **order)
{
    return sp_sort(x, NULL, values, order);
}

/* How many elements along the last dimension are not NaN, with it kept. */
static sp_status known_of(const sp_tensor *x, sp_tensor **out)
{
    const int64_t last = -1;
    const sp_sum_opt opt = {.size = sizeof opt, .dim = &last, .n_dim = 1, .keepdim = true};
    sp_tensor *known = NULL;
    SP_RETURN_IF(sp_eq(x, x, &known));
    sp_status status = sp_sum(known, &opt, out);
    sp_drop(&known);
    return status;
}

/* t, (..., 1), in the shape that the reduction has. */
static sp_status reduced(const sp_call *c, const sp_attr *dim, int d, bool keepdim,
                         const sp_tensor *t, sp_tensor **out)
{
    const sp_tensor *x = c->in[0];
    int64_t shape[SP_MAX_RANK];
    int rank = 0;
    for (int i = 0; i < x->rank; i++) {
        if (dim->absent || i == d) {
            if (keepdim) shape[rank++] = 1;
        } else {
            shape[rank++] = x->shape[i];
        }
    }
    return sp_reshape(t, shape, rank, out);
}

/* The elements of `values` and `order` at place `at` of each row. */
static sp_status picked(sp_call *c, const sp_attr *dim, int d, bool keepdim,
                        const sp_tensor *values, const sp_tensor *order, const sp_tensor *at)
{
    sp_tensor *value = NULL, *place = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp_gather(values, -1, at, &value));
    SP_TRY(reduced(c, dim, d, keepdim, value, &c->out[0]));
    if (c->n_out > 1) {
        SP_TRY(sp_gather(order, -1, at, &place));
        SP_TRY(reduced(c, dim, d, keepdim, place, &c->out[1]));
    }
out:
    if (status != SP_OK) sp_drop(&c->out[0]);
    sp_drop(&value), sp_drop(&place);
    return status;
}

/* ---- mode ----- */

/* Of a sorted row, the place of the first element of each element's run: the running maximum of the
 * places where a run begins. */
static sp_status run_starts(const sp_tensor *values, const sp_tensor *places, sp_tensor **out)
{
    int64_t n = values->shape[values->rank - 1], one[SP_MAX_RANK];
    const sp_cat_opt last = {.size = sizeof last, .dim = -1};
    sp_tensor *a = NULL, *b = NULL, *parts[2] = {NULL}, *begins = NULL, *kept = NULL,
              *unused = NULL;
    sp_status status = SP_OK;
    for (int i = 0; i < values->rank; i++) one[i] = i == values->rank - 1 ? 1 : values->shape[i];
    SP_TRY(sp_slice(values, -1, 1, n, NULL, &a));
    SP_TRY(sp_slice(values, -1, 0, n - 1, NULL, &b));
    SP_TRY(sp_full(one, values->rank, (sp_scalar){.v.i = 1, .kind = SP_BOOL}, NULL, &parts[0]));
    SP_TRY(sp_ne(a, b, &parts[1]));
    SP_TRY(sp_cat((const sp_tensor *const *)parts, 2, &last, &begins));
    SP_TRY(sp_where_scalar(begins, places, SP_INT(0), &kept));
    SP_TRY(sp_cummax(kept, -1, out, &unused));
out:
    sp_drop(&a), sp_drop(&b), sp_drop(&parts[0]), sp_drop(&parts[1]), sp_drop(&begins),
        sp_drop(&kept), sp_drop(&unused);
    return status;
}

sp_status sp__body_mode(sp_call *c)
{
    const sp_attr *dim = &c->attr[SP_MODE_DIM];
    const sp_argmax_opt longest = {
        .size = sizeof longest, .has_dim = true, .dim = -1, .keepdim = true};
    sp_tensor *x = NULL, *values = NULL, *order = NULL, *places = NULL, *starts = NULL,
              *lengths = NULL, *at = NULL;
    int d;
    sp_status status = SP_OK;
    SP_TRY(sp__dim_normalize(sp__op_name(c), dim->v.i, c->in[0]->rank, &d));
    SP_TRY(lined_up(c, dim, &d, &x));
    SP_TRY(sorted_last(x, &values, &order));
    SP_TRY(sp_arange(SP_INT(0), SP_INT(x->shape[x->rank - 1]), NULL, &places));
    SP_TRY(run_starts(values, places, &starts));
    SP_TRY(sp_sub(places, starts, &lengths));
    SP_TRY(sp_argmax(lengths, &longest, &at));
    SP_TRY(picked(c, dim, d, c->attr[SP_MODE_KEEPDIM].v.i != 0, values, order, at));
out:
    sp_drop(&x), sp_drop(&values), sp_drop(&order), sp_drop(&places), sp_drop(&starts),
        sp_drop(&lengths), sp_drop(&at);
    return status;
}

/* ---- quantiles ----- */

/* The sorted elements at whole places. */
static sp_status at_places(const sp_tensor *values, const sp_tensor *places, sp_tensor **out)
{
    sp_tensor *whole = NULL;
    SP_RETURN_IF(sp_cast(places, SP_INT64, &whole));
    sp_status status = sp_gather(values, -1, whole, out);
    sp_drop(&whole);
    return status;
}

/* Between the elements below and above the places. */
static sp_status between(const sp_tensor *values, const sp_tensor *places, bool midpoint,
                         sp_tensor **out)
{
    sp_tensor *low = NULL, *high = NULL, *a = NULL, *b = NULL, *weight = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp_floor(places, &low));
    SP_TRY(sp_ceil(places, &high));
    SP_TRY(at_places(values, low, &a));
    SP_TRY(at_places(values, high, &b));
    if (midpoint) {
        SP_TRY(sp_lerp_scalar(a, b, SP_FLOAT(0.5), out));
    } else {
        SP_TRY(sp_sub(places, low, &weight));
        SP_TRY(sp_lerp(a, b, weight, out));
    }
out:
    sp_drop(&low), sp_drop(&high), sp_drop(&a), sp_drop(&b), sp_drop(&weight);
    return status;
}

static sp_status interpolated(const sp_tensor *values, const sp_tensor *places, int64_t how,
                              sp_tensor **out)
{
    sp_tensor *whole = NULL;
    if (how == SP_INTERPOLATION_LINEAR || how == SP_INTERPOLATION_MIDPOINT)
        return between(values, places, how == SP_INTERPOLATION_MIDPOINT, out);
    SP_RETURN_IF((how == SP_INTERPOLATION_LOWER    ? sp_floor
                  : how == SP_INTERPOLATION_HIGHER ? sp_ceil
                                                   : sp_round)(places, &whole));
    sp_status status = at_places(values, whole, out);
    sp_drop(&whole);
    return status;
}

/* (..., Q) as q's shape, then that of the reduction. */
static sp_status quantiles_first(const sp_call *c, const sp_attr *dim, int d, bool keepdim,
                                 const sp_tensor *q, const sp_tensor *found, sp_tensor **out)
{
    sp_tensor *moved = NULL;
    int64_t shape[SP_MAX_RANK + 1];
    int rank = 0;
    if (q->rank == 0) return reduced(c, dim, d, keepdim, found, out);
    SP_RETURN_IF(sp_movedim(found, (int64_t[]){-1}, 1, (int64_t[]){0}, 1, &moved));
    shape[rank++] = q->numel;
    for (int i = 0; i < c->in[0]->rank; i++) {
        bool gone = dim->absent || i == d;
        if (!gone || keepdim) shape[rank++] = gone ? 1 : c->in[0]->shape[i];
    }
    sp_status status = sp_reshape(moved, shape, rank, out);
    sp_drop(&moved);
    return status;
}

/* q * (how many count - 1), 0 where none does. */
static sp_status places_of(const sp_tensor *x, const sp_tensor *q, bool ignore_nan, sp_tensor **out)
{
    int64_t n = x->shape[x->rank - 1], shape[SP_MAX_RANK];
    sp_tensor *line = NULL, *known = NULL, *less = NULL, *most = NULL, *number = NULL,
              *place = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp_reshape(q, &q->numel, 1, &line));
    if (ignore_nan) {
        SP_TRY(known_of(x, &known));
        SP_TRY(sp_sub_scalar(known, SP_INT(1), &less));
        SP_TRY(sp_clamp_min_scalar(less, SP_INT(0), &most));
        SP_TRY(sp_cast(most, (sp_dtype)x->dtype, &number));
        SP_TRY(sp_mul(number, line, out));
    } else {
        for (int i = 0; i < x->rank; i++) shape[i] = i == x->rank - 1 ? q->numel : x->shape[i];
        SP_TRY(sp_mul_scalar(line, SP_INT(n - 1), &place));
        SP_TRY(sp_expand(place, shape, x->rank, out));
    }
out:
    sp_drop(&line), sp_drop(&known), sp_drop(&less), sp_drop(&most), sp_drop(&number),
        sp_drop(&place);
    return status;
}

/* q as far as it is a share, and whether it is one. */
static sp_status shares_of(const sp_tensor *q, sp_tensor **inside, sp_tensor **valid)
{
    sp_tensor *bounded = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp_clamp(q, SP_INT(0), SP_INT(1), &bounded));
    SP_TRY(sp_eq(bounded, q, valid));
    SP_TRY(sp_where_scalar(*valid, bounded, SP_INT(0), inside));
out:
    sp_drop(&bounded);
    return status;
}

/* NaN, which stands last, in place of what was found. */
static sp_status nan_wins(const sp_tensor *values, const sp_tensor *found, sp_tensor **out)
{
    int64_t n = values->shape[values->rank - 1];
    sp_tensor *last = NULL, *unknown = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp_slice(values, -1, n - 1, n, NULL, &last));
    SP_TRY(sp_isnan(last, &unknown));
    SP_TRY(sp_where(unknown, last, found, out));
out:
    sp_drop(&last), sp_drop(&unknown);
    return status;
}

/* attr: dim, keepdim, interpolation */
static sp_status quantile_of(sp_call *c, const sp_tensor *q, const sp_attr *attr, bool ignore_nan)
{
    sp_tensor *x = NULL, *values = NULL, *order = NULL, *shares = NULL, *valid = NULL,
              *places = NULL, *found = NULL, *checked = NULL, *line = NULL, *all = NULL;
    int d;
    sp_status status = SP_OK;
    SP_RETURN_IF(sp__check_floating(c, c->in[0], "x"));
    SP_RETURN_IF(sp__check_same_dtype(c, c->in[0], "x", q, "q"));
    if (q->rank > 1 || c->in[0]->rank + q->rank > SP_MAX_RANK)
        return sp_fail(SP_ESHAPE, "%s: q has shape %s, expected one dimension at most",
                       sp__op_name(c), SP_SHAPE(q));
    SP_TRY(lined_up(c, &attr[0], &d, &x));
    SP_TRY(sorted_last(x, &values, &order));
    SP_TRY(shares_of(q, &shares, &valid));
    SP_TRY(places_of(x, shares, ignore_nan, &places));
    SP_TRY(interpolated(values, places, attr[2].v.i, &found));
    if (ignore_nan)
        checked = found, found = NULL;
    else
        SP_TRY(nan_wins(values, found, &checked));
    SP_TRY(sp_reshape(valid, &q->numel, 1, &line));
    SP_TRY(sp_where_scalar(line, checked, SP_FLOAT(NAN), &all));
    SP_TRY(quantiles_first(c, &attr[0], d, attr[1].v.i != 0, q, all, &c->out[0]));
out:
    sp_drop(&x), sp_drop(&values), sp_drop(&order), sp_drop(&shares), sp_drop(&valid);
    sp_drop(&places), sp_drop(&found), sp_drop(&checked), sp_drop(&line), sp_drop(&all);
    return status;
}

/* attr[0] is q */
static sp_status quantile_at(sp_call *c, bool ignore_nan)
{
    const sp_full_opt like = {
        .size = sizeof like, .has_dtype = true, .dtype = (sp_dtype)c->in[0]->dtype};
    double share = c->attr[0].v.f;
    sp_tensor *q = NULL;
    SP_RETURN_IF(sp__check_floating(c, c->in[0], "x"));
    if (!(share >= 0 && share <= 1))
        return sp_fail(SP_EVALUE, "%s: q is %g, expected a share in [0, 1]", sp__op_name(c), share);
    SP_RETURN_IF(sp_full(NULL, 0, SP_FLOAT(share), &like, &q));
    sp_status status = quantile_of(c, q, c->attr + 1, ignore_nan);
    sp_drop(&q);
    return status;
}

sp_status sp__body_quantile(sp_call *c)
{
    return quantile_of(c, c->in[1], c->attr, false);
}

sp_status sp__body_nanquantile(sp_call *c)
{
    return quantile_of(c, c->in[1], c->attr, true);
}

sp_status sp__body_quantile_number(sp_call *c)
{
    return quantile_at(c, false);
}

sp_status sp__body_nanquantile_number(sp_call *c)
{
    return quantile_at(c, true);
}
