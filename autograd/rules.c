/* Rules for formulas: summing back, reductions, products, losses. Those of strided views are in
 * rules_strided.c, those of running results in rules_scan.c. */
#include "autograd/rules.h"

#include <math.h>

#include "ops/attr.h"
#include "ops/dispatch.h"
#include "ops/infer.h"
#include "ops_gen.h"

static sp_status zeros(const sp_meta *m, sp_tensor **out)
{
    const sp_full_opt opt = {.size = sizeof opt, .has_dtype = true, .dtype = (sp_dtype)m->dtype};
    return sp_full(m->shape, m->rank, SP_INT(0), &opt, out);
}

static sp_status reshaped(const sp_tensor *t, int rank, const int64_t *shape, sp_tensor **out)
{
    bool same = t->rank == rank;
    for (int i = 0; same && i < rank; i++) same = t->shape[i] == shape[i];
    if (!same) return sp_reshape(t, shape, rank, out);
    *out = sp__retain(t);
    return SP_OK;
}

/* t in m's dtype; takes t's reference, also on failure. */
static sp_status cast_owned(sp_tensor *t, int dtype, sp_tensor **out)
{
    *out = t;
    if (t->dtype == dtype) return SP_OK;
    *out = NULL;
    sp_status status = sp_cast(t, (sp_dtype)dtype, out);
    sp_drop(&t);
    return status;
}

/* ---- any op ----- */

static bool has_shape(const sp_tensor *t, const sp_meta *m)
{
    if (t->rank != m->rank) return false;
    for (int i = 0; i < m->rank; i++)
        if (t->shape[i] != m->shape[i]) return false;
    return true;
}

/* The dimensions that broadcasting m to g's shape added or stretched. */
static int broadcast_dims(const sp_tensor *g, const sp_meta *m, int64_t *dims, int *lead)
{
    int n = 0;
    *lead = g->rank - m->rank;
    for (int i = 0; i < g->rank; i++)
        if (i < *lead || (m->shape[i - *lead] == 1 && g->shape[i] != 1)) dims[n++] = i;
    return n;
}

sp_status sp__rule_sum_to(const sp_tensor *g, const sp_meta *m, sp_tensor **out)
{
    int64_t dims[SP_MAX_RANK];
    int lead;
    *out = NULL;
    if (SP_LIKELY(has_shape(g, m))) return cast_owned(sp__retain(g), m->dtype, out);
    int n = broadcast_dims(g, m, dims, &lead);
    bool stretched = n > lead;
    sp_tensor *sum = NULL, *shaped = NULL;
    sp_status status = SP_OK;
    const sp_sum_opt opt = {.size = sizeof opt, .dim = dims, .n_dim = n, .keepdim = stretched};
    if (n)
        SP_TRY(sp_sum(g, &opt, &sum));
    else
        sum = sp__retain(g);
    SP_TRY(reshaped(sum, m->rank, m->shape, &shaped));
    status = cast_owned(shaped, m->dtype, out);
out:
    sp_drop(&sum);
    return status;
}

sp_status sp__rule_expand_like(const sp_tensor *t, const sp_tensor *like, sp_tensor **out)
{
    sp_tensor *cast = NULL;
    *out = NULL;
    SP_RETURN_IF(cast_owned(sp__retain(t), like->dtype, &cast));
    if (sp__same_shape(cast, like)) {
        *out = cast;
        return SP_OK;
    }
    sp_status status = sp_expand(cast, like->shape, like->rank, out);
    sp_drop(&cast);
    return status;
}

sp_status sp__rule_or_zeros(const sp_tensor *t, const sp_tensor *like, sp_tensor **out)
{
    if (!t) {
        sp_meta m;
        sp__meta_of(like, &m);
        return zeros(&m, out);
    }
    *out = sp__retain(t);
    return SP_OK;
}

static bool scalar_is(sp_scalar s, int64_t value)
{
    return s.kind == SP_FLOAT64 ? s.v.f == (double)value : s.v.i == value;
}

/* ---- pointwise ----- */

sp_status sp__rule_pow_vjp(const sp_tensor *gy, const sp_tensor *x, sp_scalar e, sp_tensor **out)
{
    sp_tensor *power = NULL, *slope = NULL;
    sp_status status = SP_OK;
    *out = NULL;
    if (scalar_is(e, 0)) { /* 0 * x ** -1 would be NaN at 0 */
        sp_meta m;
        sp__meta_of(x, &m);
        return zeros(&m, out);
    }
    sp_scalar less = e.kind == SP_FLOAT64 ? SP_FLOAT(e.v.f - 1) : SP_INT(e.v.i - 1);
    if (scalar_is(less, 0)) {
        *out = sp__retain(gy);
        return SP_OK;
    }
    if (scalar_is(less, 1))
        power = sp__retain(x);
    else
        SP_TRY(sp_pow_scalar(x, less, &power));
    SP_TRY(sp_mul_scalar(power, e, &slope));
    SP_TRY(sp_mul(gy, slope, out));
out:
    sp_drop(&power);
    sp_drop(&slope);
    return status;
}

/* x ** e log(x), and 0 where x is 0 and e is not negative. There x is replaced before its logarithm
 * is taken, so that no derivative of this is 0 times infinity. */
sp_status sp__rule_pow_exponent_vjp(const sp_tensor *gy, const sp_tensor *x, const sp_tensor *e,
                                    const sp_tensor *power, sp_tensor **out)
{
    sp_tensor *zero = NULL, *real = NULL, *above = NULL, *flat = NULL, *base = NULL, *log = NULL,
              *slope = NULL;
    sp_status status = SP_OK;
    *out = NULL;
    SP_TRY(sp_eq_scalar(x, SP_INT(0), &zero));
    SP_TRY(sp_real(e, &real));
    SP_TRY(sp_ge_scalar(real, SP_INT(0), &above));
    SP_TRY(sp_logical_and(zero, above, &flat));
    SP_TRY(sp_where_scalar_x(flat, SP_INT(1), x, &base));
    SP_TRY(sp_log(base, &log));
    SP_TRY(sp_mul(power, log, &slope));
    SP_TRY(sp_mul(gy, slope, out));
out:
    sp_drop(&zero), sp_drop(&real), sp_drop(&above), sp_drop(&flat), sp_drop(&base);
    sp_drop(&log), sp_drop(&slope);
    return status;
}

/* d 0 ** e / d e: the same with 1 and 0 for the bases. */
static sp_status slope_of_zero(const sp_tensor *e, const sp_tensor *power, sp_tensor **out)
{
    sp_tensor *real = NULL, *flat = NULL, *base = NULL, *log = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp_real(e, &real));
    SP_TRY(sp_ge_scalar(real, SP_INT(0), &flat));
    SP_TRY(sp_cast(flat, sp__dtype_real(power->dtype), &base));
    SP_TRY(sp_log(base, &log));
    SP_TRY(sp_mul(power, log, out));
out:
    sp_drop(&real), sp_drop(&flat), sp_drop(&base), sp_drop(&log);
    return status;
}

sp_status sp__rule_pow_base_vjp(const sp_tensor *gy, const sp_tensor *e, sp_scalar base,
                                const sp_tensor *power, sp_tensor **out)
{
    sp_tensor *slope = NULL;
    double number = base.kind == SP_FLOAT64 ? base.v.f : (double)base.v.i;
    *out = NULL;
    sp_status status = number == 0 ? slope_of_zero(e, power, &slope)
                                   : sp_mul_scalar(power, SP_FLOAT(log(number)), &slope);
    if (status == SP_OK) status = sp_mul(gy, slope, out);
    sp_drop(&slope);
    return status;
}

/* ---- sinc ----- */

/* x times a polynomial in (pi x)^2: the sum of (-1)^k 2 k (pi x)^(2 k - 1) pi / (2 k + 1)! over k.
 * Near 0, where the difference below has no digits, nor has any derivative of it. */
static sp_status sinc_slope_near(const sp_tensor *x, sp_tensor **out)
{
    enum { TERMS = 12 }; /* below 2^-60 of the sum at |x| = 0.35 */
    double pi = acos(-1), factor[TERMS], factorial = 1;
    sp_tensor *square = NULL, *sum = NULL, *next = NULL;
    sp_status status = SP_OK;
    for (int k = 1; k <= TERMS; k++) {
        factorial *= (2 * k) * (2 * k + 1);
        factor[k - 1] = (k % 2 ? -2 : 2) * k * pow(pi, 2 * k) / factorial;
    }
    SP_TRY(sp_mul(x, x, &square));
    SP_TRY(sp_mul_scalar(square, SP_FLOAT(factor[TERMS - 1]), &sum));
    for (int k = TERMS - 2; k >= 0; k--) {
        SP_TRY(sp_add_scalar(sum, SP_FLOAT(factor[k]), &next));
        sp_drop(&sum);
        SP_TRY(sp_mul(next, k ? square : x, &sum));
        sp_drop(&next);
    }
    *out = sum, sum = NULL;
out:
    sp_drop(&square), sp_drop(&sum), sp_drop(&next);
    return status;
}

static sp_status sinc_slope_far(const sp_tensor *x, const sp_tensor *near, const sp_tensor *sinc,
                                sp_tensor **out)
{
    sp_tensor *scaled = NULL, *cos = NULL, *above = NULL, *safe = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp_mul_scalar(x, SP_FLOAT(acos(-1)), &scaled));
    SP_TRY(sp_cos(scaled, &cos));
    SP_TRY(sp_sub(cos, sinc, &above));
    SP_TRY(sp_where_scalar_x(near, SP_INT(1), x, &safe));
    SP_TRY(sp_div(above, safe, out));
out:
    sp_drop(&scaled), sp_drop(&cos), sp_drop(&above), sp_drop(&safe);
    return status;
}

sp_status sp__rule_sinc_vjp(const sp_tensor *gy, const sp_tensor *x, const sp_tensor *sinc,
                            sp_tensor **out)
{
    sp_tensor *size = NULL, *near = NULL, *inner = NULL, *outer = NULL, *slope = NULL;
    sp_status status = SP_OK;
    *out = NULL;
    SP_TRY(sp_abs(x, &size));
    SP_TRY(sp_lt_scalar(size, SP_FLOAT(0.35), &near));
    SP_TRY(sinc_slope_near(x, &inner));
    SP_TRY(sinc_slope_far(x, near, sinc, &outer));
    SP_TRY(sp_where(near, inner, outer, &slope));
    SP_TRY(sp_mul(gy, slope, out));
out:
    sp_drop(&size), sp_drop(&near), sp_drop(&inner), sp_drop(&outer), sp_drop(&slope);
    return status;
}

/* ---- reductions ----- */

sp_status sp__rule_keep_dims(const sp_tensor *t, const sp_meta *m, const sp_attr *dim, bool keepdim,
                             sp_tensor **out)
{
    int64_t shape[SP_MAX_RANK];
    uint32_t mask;
    *out = NULL;
    SP_RETURN_IF(sp__dim_mask("keep_dims", dim, m->rank, &mask));
    if (keepdim || mask == 0) {
        *out = sp__retain(t);
        return SP_OK;
    }
    for (int i = 0; i < m->rank; i++) shape[i] = mask >> i & 1 ? 1 : m->shape[i];
    return sp_reshape(t, shape, m->rank, out);
}

sp_status sp__rule_expand_reduced(const sp_tensor *gy, const sp_meta *m, const sp_attr *dim,
                                  bool keepdim, sp_tensor **out)
{
    sp_tensor *kept = NULL, *cast = NULL;
    sp_status status = SP_OK;
    *out = NULL;
    /* A number expands by itself, without a reshape before. */
    if (gy->rank == 0)
        kept = sp__retain(gy);
    else
        SP_TRY(sp__rule_keep_dims(gy, m, dim, keepdim, &kept));
    SP_TRY(cast_owned(sp__retain(kept), m->dtype, &cast));
    if (has_shape(cast, m))
        *out = sp__retain(cast);
    else
        SP_TRY(sp_expand(cast, m->shape, m->rank, out));
out:
    sp_drop(&kept);
    sp_drop(&cast);
    return status;
}

/* ---- products ----- */

/* a @ b^T or a^T @ b. */
static sp_status product(const sp_tensor *a, bool a_turned, const sp_tensor *b, bool b_turned,
                         sp_tensor **out)
{
    sp_tensor *at = NULL, *bt = NULL;
    sp_status status = SP_OK;
    if (a_turned) SP_TRY(sp_transpose(a, -2, -1, &at));
    if (b_turned) SP_TRY(sp_transpose(b, -2, -1, &bt));
    SP_TRY(sp_matmul(at ? at : a, bt ? bt : b, out));
out:
    sp_drop(&at);
    sp_drop(&bt);
    return status;
}

/* a as a column times b as a row, over whatever stands in front of them. */
static sp_status outer(const sp_tensor *a, const sp_tensor *b, sp_tensor **out)
{
    sp_tensor *column = NULL, *row = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp_unsqueeze(a, -1, &column));
    SP_TRY(sp_unsqueeze(b, -2, &row));
    SP_TRY(sp_mul(column, row, out));
out:
    sp_drop(&column);
    sp_drop(&row);
    return status;
}

/* t as a matrix of rows: all dimensions but the last `keep` become one, with keep 0 giving a
 * vector. */
static sp_status rows_of(const sp_tensor *t, int keep, sp_tensor **out)
{
    int64_t shape[2] = {1, keep ? t->shape[t->rank - 1] : 1};
    for (int i = 0; i < t->rank - keep; i++) shape[0] *= t->shape[i];
    return reshaped(t, 1 + keep, shape, out);
}

/* a^T b over all rows of both; b_keep 0: b is a vector, and so is the result. */
static sp_status over_rows(const sp_tensor *a, const sp_tensor *b, int b_keep, sp_tensor **out)
{
    sp_tensor *a_rows = NULL, *b_rows = NULL;
    sp_status status = SP_OK;
    SP_TRY(rows_of(a, 1, &a_rows));
    SP_TRY(rows_of(b, b_keep, &b_rows));
    SP_TRY(product(a_rows, true, b_rows, false, out));
out:
    sp_drop(&a_rows);
    sp_drop(&b_rows);
    return status;
}

/* For a vector x: each y @ gy, summed over the batches. */
static sp_status matmul_vector_x(const sp_tensor *gy, const sp_tensor *y, sp_tensor **out)
{
    sp_tensor *column = NULL, *columns = NULL;
    const int64_t last = -1;
    sp_status status = SP_OK;
    if (y->rank == 2) return sp_matmul(y, gy, out);
    SP_TRY(sp_unsqueeze(gy, -1, &column));
    SP_TRY(sp_matmul(y, column, &columns));
    SP_TRY(sp_squeeze(
        columns, &(sp_squeeze_opt){.size = sizeof(sp_squeeze_opt), .dim = &last, .n_dim = 1}, out));
out:
    sp_drop(&column);
    sp_drop(&columns);
    return status;
}

sp_status sp__rule_matmul_x(const sp_tensor *gy, const sp_tensor *y, const sp_meta *x,
                            sp_tensor **out)
{
    sp_tensor *g = NULL;
    sp_status status = SP_OK;
    *out = NULL;
    if (x->rank == 1 && y->rank == 1) return sp_mul(gy, y, out);
    if (y->rank == 1) return outer(gy, y, out);
    if (x->rank == 1)
        SP_TRY(matmul_vector_x(gy, y, &g));
    else
        SP_TRY(product(gy, false, y, true, &g));
    SP_TRY(sp__rule_sum_to(g, x, out));
out:
    sp_drop(&g);
    return status;
}

sp_status sp__rule_matmul_y(const sp_tensor *gy, const sp_tensor *x, const sp_meta *y,
                            sp_tensor **out)
{
    sp_tensor *g = NULL;
    sp_status status = SP_OK;
    *out = NULL;
    if (x->rank == 1 && y->rank == 1) return sp_mul(gy, x, out);
    if (y->rank == 1) return over_rows(x, gy, 0, out);
    if (y->rank == 2 && x->rank > 1) return over_rows(x, gy, 1, out);
    if (x->rank == 1)
        SP_TRY(outer(x, gy, &g));
    else
        SP_TRY(product(x, true, gy, false, &g));
    SP_TRY(sp__rule_sum_to(g, y, out));
out:
    sp_drop(&g);
    return status;
}

sp_status sp__rule_linear_w(const sp_tensor *gy, const sp_tensor *x, const sp_meta *w,
                            sp_tensor **out)
{
    *out = NULL;
    SP_ASSERT(w->rank == 2);
    (void)w;
    return over_rows(gy, x, 1, out);
}

/* ---- views ----- */

sp_status sp__rule_permute_back(const sp_tensor *gy, const sp_attr *dims, sp_tensor **out)
{
    int64_t back[SP_MAX_RANK];
    *out = NULL;
    for (int i = 0; i < dims->n; i++)
        back[dims->v.ints[i] + (dims->v.ints[i] < 0 ? dims->n : 0)] = i;
    return sp_permute(gy, back, dims->n, out);
}

/* The elements of all windows, one window after the other: w * step + i. */
static sp_status window_places(int64_t windows, int64_t size, int64_t step, sp_tensor **out)
{
    sp_tensor *starts = NULL, *column = NULL, *inside = NULL, *all = NULL;
    sp_status status = SP_OK;
    int64_t numel = windows * size;
    const sp_arange_opt by = {.size = sizeof by, .has_step = true, .step = SP_INT(step)};
    SP_TRY(sp_arange(SP_INT(0), SP_INT(windows * step), &by, &starts));
    SP_TRY(sp_unsqueeze(starts, 1, &column));
    SP_TRY(sp_arange(SP_INT(0), SP_INT(size), NULL, &inside));
    SP_TRY(sp_add(column, inside, &all));
    SP_TRY(sp_reshape(all, &numel, 1, out));
out:
    sp_drop(&starts), sp_drop(&column), sp_drop(&inside), sp_drop(&all);
    return status;
}

sp_status sp__rule_unfold_vjp(const sp_tensor *gy, const sp_meta *m, int64_t dimension,
                              int64_t size, int64_t step, sp_tensor **out)
{
    sp_tensor *places = NULL, *none = NULL, *turned = NULL, *flat = NULL;
    int64_t dims[SP_MAX_RANK], shape[SP_MAX_RANK];
    int d, rank = m->rank;
    sp_status status = SP_OK;
    *out = NULL;
    SP_RETURN_IF(sp__dim_normalize("unfold", dimension, rank, &d));
    int64_t windows = gy->shape[d];
    for (int i = 0; i <= rank; i++) dims[i] = i <= d ? i : i == d + 1 ? rank : i - 1;
    for (int i = 0; i < rank; i++) shape[i] = i == d ? windows * size : m->shape[i];
    SP_TRY(window_places(windows, size, step, &places));
    SP_TRY(sp_permute(gy, dims, rank + 1, &turned));
    SP_TRY(sp_reshape(turned, shape, rank, &flat));
    SP_TRY(zeros(m, &none));
    SP_TRY(sp_index_add(none, d, places, flat, out));
out:
    sp_drop(&places), sp_drop(&none), sp_drop(&turned), sp_drop(&flat);
    return status;
}

/* ---- convolutions ----- */

sp_status sp__rule_channel_sum(const sp_tensor *g, sp_tensor **out)
{
    int64_t dim[SP_MAX_RANK] = {0};
    for (int d = 2; d < g->rank; d++) dim[d - 1] = d;
    const sp_sum_opt opt = {.size = sizeof opt, .dim = dim, .n_dim = g->rank - 1};
    *out = NULL;
    return sp_sum(g, &opt, out);
}

sp_status sp__rule_channel_expand(const sp_tensor *t, const sp_meta *m, sp_tensor **out)
{
    int64_t shape[SP_MAX_RANK] = {t->shape[0]};
    sp_tensor *tall = NULL;
    sp_status status = SP_OK;
    *out = NULL;
    for (int d = 1; d < m->rank - 1; d++) shape[d] = 1;
    SP_TRY(sp_reshape(t, shape, m->rank - 1, &tall));
    SP_TRY(sp_expand(tall, m->shape, m->rank, out));
out:
    sp_drop(&tall);
    return status;
}

/* ---- random ----- */

sp_status sp__rule_dropout_again(const sp_tensor *t, double p, int64_t seed, int64_t offset,
                                 sp_tensor **out)
{
    sp_tensor *in[1] = {(sp_tensor *)t};
    sp_call c = {.op = SP_OP_DROPOUT_TRAIN, .n_out = 1, .n_attr = 3, .n_in = 1, .in = in};
    *out = NULL;
    c.attr[0] = sp__attr_float(p);
    c.attr[1] = sp__attr_int(seed), c.attr[2] = sp__attr_int(offset);
    SP_RETURN_IF(sp__dispatch(&c));
    *out = c.out[0];
    return SP_OK;
}
