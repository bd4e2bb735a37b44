/* Bodies of the reductions that other ops compute.
 *
 * Norms are computed without regard to overflow of the powers, as PyTorch's. logsumexp's body
 * serves vmap alone.
 */
#include <math.h>

#include "ops/attr.h"
#include "ops/infer.h"
#include "ops_gen.h"

static sp_status sum_over(const sp_tensor *x, const sp_attr *dim, bool keepdim,
                          const sp_attr *dtype, sp_tensor **out)
{
    const sp_sum_opt opt = {.size = sizeof opt,
                            .dim = sp__attr_to_ints(dim),
                            .n_dim = dim->n,
                            .keepdim = keepdim,
                            .has_dtype = dtype && !dtype->absent,
                            .dtype = (sp_dtype)(dtype ? dtype->v.i : 0)};
    return sp_sum(x, &opt, out);
}

static sp_status max_over(const sp_tensor *x, const sp_attr *dim, bool keepdim, sp_tensor **out)
{
    const sp_amax_opt opt = {
        .size = sizeof opt, .dim = sp__attr_to_ints(dim), .n_dim = dim->n, .keepdim = keepdim};
    return sp_amax(x, &opt, out);
}

static sp_status min_over(const sp_tensor *x, const sp_attr *dim, bool keepdim, sp_tensor **out)
{
    const sp_amin_opt opt = {
        .size = sizeof opt, .dim = sp__attr_to_ints(dim), .n_dim = dim->n, .keepdim = keepdim};
    return sp_amin(x, &opt, out);
}

/* x in a dtype, or x itself. */
static sp_status cast_to(const sp_tensor *x, sp_dtype dtype, sp_tensor **out)
{
    if (x->dtype != dtype) return sp_cast(x, dtype, out);
    *out = sp__retain(x);
    return SP_OK;
}

sp_status sp__body_aminmax(sp_call *c)
{
    const sp_attr *given = &c->attr[SP_AMINMAX_DIM];
    const sp_attr dim =
        given->absent ? sp__attr_absent(SP_ATTR_INTS) : sp__attr_ints(&given->v.i, 1);
    bool keepdim = c->attr[SP_AMINMAX_KEEPDIM].v.i != 0;
    SP_RETURN_IF(min_over(c->in[0], &dim, keepdim, &c->out[0]));
    sp_status status = max_over(c->in[0], &dim, keepdim, &c->out[1]);
    if (status != SP_OK) sp_drop(&c->out[0]);
    return status;
}

static sp_status number_reduced(const sp_call *c, const sp_attr *dim, int64_t *n)
{
    const sp_tensor *x = c->in[0];
    uint32_t mask;
    SP_RETURN_IF(sp__dim_mask(sp__op_name(c), dim, x->rank, &mask));
    *n = 1;
    for (int d = 0; d < x->rank; d++)
        if (mask >> d & 1) *n *= x->shape[d];
    return SP_OK;
}

/* ---- truth and counts ----- */

static sp_status count_over(const sp_call *c, const sp_attr *dim, bool keepdim, sp_tensor **out)
{
    const sp_count_nonzero_opt opt = {
        .size = sizeof opt, .dim = sp__attr_to_ints(dim), .n_dim = dim->n, .keepdim = keepdim};
    return sp_count_nonzero(c->in[0], &opt, out);
}

sp_status sp__body_any(sp_call *c)
{
    sp_tensor *count = NULL;
    SP_RETURN_IF(count_over(c, &c->attr[SP_ANY_DIM], c->attr[SP_ANY_KEEPDIM].v.i != 0, &count));
    sp_status status = sp_ne_scalar(count, SP_INT(0), &c->out[0]);
    sp_drop(&count);
    return status;
}

sp_status sp__body_all(sp_call *c)
{
    const sp_attr *dim = &c->attr[SP_ALL_DIM];
    sp_tensor *count = NULL;
    int64_t n;
    SP_RETURN_IF(number_reduced(c, dim, &n));
    SP_RETURN_IF(count_over(c, dim, c->attr[SP_ALL_KEEPDIM].v.i != 0, &count));
    sp_status status = sp_eq_scalar(count, SP_INT(n), &c->out[0]);
    sp_drop(&count);
    return status;
}

/* ---- without NaN ----- */

sp_status sp__body_nanmean(sp_call *c)
{
    const sp_attr *dim = &c->attr[SP_NANMEAN_DIM], *dtype = &c->attr[SP_NANMEAN_DTYPE];
    const sp_nansum_opt opt = {.size = sizeof opt,
                               .dim = sp__attr_to_ints(dim),
                               .n_dim = dim->n,
                               .keepdim = c->attr[SP_NANMEAN_KEEPDIM].v.i != 0,
                               .has_dtype = !dtype->absent,
                               .dtype = (sp_dtype)dtype->v.i};
    sp_tensor *known = NULL, *sum = NULL, *count = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp__check_floating(c, c->in[0], "x"));
    SP_TRY(sp_eq(c->in[0], c->in[0], &known));
    SP_TRY(sp_nansum(c->in[0], &opt, &sum));
    SP_TRY(sum_over(known, dim, opt.keepdim, NULL, &count));
    SP_TRY(sp_div(sum, count, &c->out[0]));
out:
    sp_drop(&known), sp_drop(&sum), sp_drop(&count);
    return status;
}

/* ---- moments ----- */

typedef struct moments {
    const sp_attr *dim;
    double correction;
    bool keepdim;
} moments;

/* The square root, with derivative 0 instead of infinity at 0. */
static sp_status root(const sp_tensor *x, sp_tensor **out)
{
    sp_tensor *some = NULL, *safe = NULL, *roots = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp_ne_scalar(x, SP_INT(0), &some));
    SP_TRY(sp_where_scalar(some, x, SP_INT(1), &safe));
    SP_TRY(sp_sqrt(safe, &roots));
    SP_TRY(sp_where_scalar(some, roots, SP_INT(0), out));
out:
    sp_drop(&some), sp_drop(&safe), sp_drop(&roots);
    return status;
}

static sp_status deviation(const sp_tensor *x, const moments *m, sp_tensor **squares,
                           sp_tensor **mean)
{
    const sp_deviation_opt opt = {.size = sizeof opt,
                                  .dim = sp__attr_to_ints(m->dim),
                                  .n_dim = m->dim->n,
                                  .keepdim = m->keepdim};
    return sp_deviation(x, &opt, squares, mean);
}

/* Of complex numbers: the sum of the parts' squares, and the means as one complex number. */
static sp_status deviation_of_parts(const sp_tensor *x, const moments *m, sp_tensor **squares,
                                    sp_tensor **mean)
{
    sp_tensor *part[2] = {NULL}, *square[2] = {NULL}, *half[2] = {NULL};
    sp_status status = SP_OK;
    SP_TRY(sp_real(x, &part[0]));
    SP_TRY(sp_imag(x, &part[1]));
    for (int i = 0; i < 2; i++) SP_TRY(deviation(part[i], m, &square[i], &half[i]));
    SP_TRY(sp_complex(half[0], half[1], mean));
    SP_TRY(sp_add(square[0], square[1], squares));
out:
    for (int i = 0; i < 2; i++) sp_drop(&part[i]), sp_drop(&square[i]), sp_drop(&half[i]);
    return status;
}

static sp_status variance(const sp_call *c, const moments *m, sp_tensor **mean, sp_tensor **var)
{
    sp_tensor *squares = NULL;
    sp_status status = SP_OK;
    int64_t n;
    SP_TRY(sp__check_floating(c, c->in[0], "x"));
    SP_TRY(number_reduced(c, m->dim, &n));
    double divisor = (double)n - m->correction;
    bool parts = sp__dtype_is_complex(c->in[0]->dtype);
    SP_TRY((parts ? deviation_of_parts : deviation)(c->in[0], m, &squares, mean));
    SP_TRY(sp_div_scalar(squares, SP_FLOAT(divisor > 0 ? divisor : 0), var));
out:
    sp_drop(&squares);
    return status;
}

/* out[0]: the variance or its root; out[1], if wanted: the mean. */
static sp_status moments_body(sp_call *c, const moments *m, bool rooted)
{
    sp_tensor *mean = NULL, *var = NULL;
    sp_status status = SP_OK;
    SP_TRY(variance(c, m, &mean, &var));
    if (c->n_out > 1) c->out[1] = sp__retain(mean);
    if (rooted)
        SP_TRY(root(var, &c->out[0]));
    else
        c->out[0] = sp__retain(var);
out:
    if (status != SP_OK && c->n_out > 1) sp_drop(&c->out[1]);
    sp_drop(&mean), sp_drop(&var);
    return status;
}

static moments moments_of(const sp_call *c)
{
    sp_scalar s = sp__attr_to_scalar(&c->attr[SP_VAR_CORRECTION]);
    return (moments){.dim = &c->attr[SP_VAR_DIM],
                     .correction = s.kind == SP_FLOAT64 ? s.v.f : (double)s.v.i,
                     .keepdim = c->attr[SP_VAR_KEEPDIM].v.i != 0};
}

static moments moments_unbiased(const sp_call *c)
{
    return (moments){.dim = &c->attr[SP_VAR_UNBIASED_DIM],
                     .correction = c->attr[SP_VAR_UNBIASED_UNBIASED].v.i != 0,
                     .keepdim = c->attr[SP_VAR_UNBIASED_KEEPDIM].v.i != 0};
}

sp_status sp__body_var(sp_call *c)
{
    moments m = moments_of(c);
    return moments_body(c, &m, false);
}

sp_status sp__body_var_unbiased(sp_call *c)
{
    moments m = moments_unbiased(c);
    return moments_body(c, &m, false);
}

sp_status sp__body_std(sp_call *c)
{
    moments m = moments_of(c);
    return moments_body(c, &m, true);
}

sp_status sp__body_std_unbiased(sp_call *c)
{
    moments m = moments_unbiased(c);
    return moments_body(c, &m, true);
}

sp_status sp__body_var_mean(sp_call *c)
{
    return sp__body_var(c);
}

sp_status sp__body_std_mean(sp_call *c)
{
    return sp__body_std(c);
}

/* ---- norms ----- */

/* x ** e for x >= 0; at 0 the derivative is 0 if `flat`, where it would be infinite. */
static sp_status power(const sp_tensor *x, double e, bool flat, sp_tensor **out)
{
    sp_tensor *some = NULL, *safe = NULL, *powers = NULL;
    sp_status status = SP_OK;
    if (!flat) return sp_pow_scalar(x, SP_FLOAT(e), out);
    SP_TRY(sp_ne_scalar(x, SP_INT(0), &some));
    SP_TRY(sp_where_scalar(some, x, SP_INT(1), &safe));
    SP_TRY(sp_pow_scalar(safe, SP_FLOAT(e), &powers));
    SP_TRY(sp_where_scalar(some, powers, SP_INT(0), out));
out:
    sp_drop(&some), sp_drop(&safe), sp_drop(&powers);
    return status;
}

typedef struct norm_args {
    double p;
    const sp_attr *dim;
    bool keepdim;
} norm_args;

static sp_status powers_over(const sp_tensor *x, const norm_args *a, sp_tensor **out)
{
    const sp_power_sum_opt opt = {.size = sizeof opt,
                                  .dim = sp__attr_to_ints(a->dim),
                                  .n_dim = a->dim->n,
                                  .keepdim = a->keepdim};
    return sp_power_sum(x, a->p, &opt, out);
}

static sp_status norm_2(const sp_tensor *x, const norm_args *a, sp_tensor **out)
{
    sp_tensor *sum = NULL;
    SP_RETURN_IF(powers_over(x, a, &sum));
    sp_status status = root(sum, out);
    sp_drop(&sum);
    return status;
}

/* The number of elements that are not 0, with a gradient of 0. */
static sp_status norm_0(const sp_tensor *x, const norm_args *a, sp_tensor **out)
{
    sp_tensor *some = NULL, *ones = NULL, *hits = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp_ne_scalar(x, SP_INT(0), &some));
    SP_TRY(sp_pow_scalar(x, SP_INT(0), &ones));
    SP_TRY(sp_where_scalar(some, ones, SP_INT(0), &hits));
    SP_TRY(sum_over(hits, a->dim, a->keepdim, NULL, out));
out:
    sp_drop(&some), sp_drop(&ones), sp_drop(&hits);
    return status;
}

static sp_status norm_p(const sp_tensor *x, const norm_args *a, sp_tensor **out)
{
    sp_tensor *size = NULL, *sum = NULL;
    sp_status status = SP_OK;
    if (a->p == 1) return powers_over(x, a, out);
    if (isinf(a->p)) {
        SP_TRY(sp_abs(x, &size));
        SP_TRY((a->p > 0 ? max_over : min_over)(size, a->dim, a->keepdim, out));
    } else {
        SP_TRY(powers_over(x, a, &sum));
        SP_TRY(power(sum, 1 / a->p, a->p > 1, out));
    }
out:
    sp_drop(&size), sp_drop(&sum);
    return status;
}

/* Norms of complex numbers are those of their absolute values. */
static sp_status sizes_of(const sp_call *c, const sp_attr *dtype, sp_tensor **out)
{
    const sp_tensor *x = c->in[0];
    sp_tensor *numbers = NULL;
    sp_dtype asked = dtype->absent ? (sp_dtype)x->dtype : (sp_dtype)dtype->v.i;
    if (sp__dtype_is_complex(asked) != sp__dtype_is_complex(x->dtype))
        return sp_fail(SP_EDTYPE, "%s: dtype is %s and x %s; expected both complex, or none",
                       sp__op_name(c), sp_dtype_name(asked), sp_dtype_name((sp_dtype)x->dtype));
    SP_RETURN_IF(cast_to(x, asked, &numbers));
    sp_status status = SP_OK;
    if (sp__dtype_is_complex(asked))
        status = sp_abs(numbers, out);
    else
        *out = sp__retain(numbers);
    sp_drop(&numbers);
    return status;
}

/* norm, vector_norm */
sp_status sp__body_norm(sp_call *c)
{
    const sp_attr *dtype = &c->attr[SP_NORM_DTYPE];
    norm_args a = {.p = c->attr[SP_NORM_P].v.f,
                   .dim = &c->attr[SP_NORM_DIM],
                   .keepdim = c->attr[SP_NORM_KEEPDIM].v.i != 0};
    sp_tensor *x = NULL;
    sp_status status = SP_OK;
    int64_t n;
    SP_TRY(sp__check_floating(c, c->in[0], "x"));
    SP_TRY(number_reduced(c, a.dim, &n));
    if (n == 0 && (a.p < 0 || isinf(a.p)))
        return sp_fail(SP_EVALUE,
                       "%s: x of shape %s has nothing to reduce, and the norm of order %g of no "
                       "elements is not defined",
                       sp__op_name(c), SP_SHAPE(c->in[0]), a.p);
    SP_TRY(sizes_of(c, dtype, &x));
    SP_TRY((a.p == 2 ? norm_2 : a.p == 0 ? norm_0 : norm_p)(x, &a, &c->out[0]));
out:
    sp_drop(&x);
    return status;
}

/* ---- logsumexp ----- */

/* The maximum that exponents are taken from, 0 where it is no number to take away. */
static sp_status offset_of(const sp_tensor *x, const sp_attr *dim, sp_tensor **out)
{
    sp_tensor *max = NULL, *none = NULL, *finite = NULL;
    sp_status status = SP_OK;
    SP_TRY(max_over(x, dim, true, &max));
    SP_TRY(sp_sub(max, max, &none)); /* NaN for infinities */
    SP_TRY(sp_eq(none, none, &finite));
    SP_TRY(sp_where_scalar(finite, max, SP_INT(0), out));
out:
    sp_drop(&max), sp_drop(&none), sp_drop(&finite);
    return status;
}

sp_status sp__body_logsumexp(sp_call *c)
{
    const sp_attr *dim = &c->attr[SP_LOGSUMEXP_DIM];
    bool keepdim = c->attr[SP_LOGSUMEXP_KEEPDIM].v.i != 0;
    sp_tensor *x = NULL, *max = NULL, *less = NULL, *exps = NULL, *sum = NULL, *logs = NULL,
              *offset = NULL;
    sp_status status = SP_OK;
    int64_t n;
    SP_TRY(number_reduced(c, dim, &n));
    SP_TRY(cast_to(c->in[0], sp__to_floating((sp_dtype)c->in[0]->dtype), &x));
    if (n > 0) SP_TRY(offset_of(x, dim, &max));
    if (n > 0) SP_TRY(sp_sub(x, max, &less));
    SP_TRY(sp_exp(less ? less : x, &exps));
    SP_TRY(sum_over(exps, dim, keepdim, NULL, &sum));
    if (n == 0) {
        SP_TRY(sp_log(sum, &c->out[0]));
    } else {
        SP_TRY(sp_log(sum, &logs));
        SP_TRY(sp_reshape(max, sum->shape, sum->rank, &offset));
        SP_TRY(sp_add(logs, offset, &c->out[0]));
    }
out:
    sp_drop(&x), sp_drop(&max), sp_drop(&less), sp_drop(&exps), sp_drop(&sum), sp_drop(&logs),
        sp_drop(&offset);
    return status;
}
