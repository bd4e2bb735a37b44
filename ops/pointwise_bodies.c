/* Composites of the elementwise family: what other ops compute as fast.
 *
 * Errors come from the ops that they are made of, but for what those could not say.
 */
#include <float.h>
#include <math.h>

#include "ops/attr.h"
#include "ops/infer.h"
#include "ops_gen.h"

/* ---- clamp ----- */

static sp_status no_bounds(const sp_call *c)
{
    return sp_fail(SP_EVALUE, "%s: min and max are both None, expected at least one of them",
                   sp__op_name(c));
}

sp_status sp__body_clamp_open(sp_call *c)
{
    const sp_attr *min = &c->attr[SP_CLAMP_OPEN_MIN], *max = &c->attr[SP_CLAMP_OPEN_MAX];
    if (min->absent && max->absent) return no_bounds(c);
    if (max->absent) return sp_clamp_min_scalar(c->in[0], sp__attr_to_scalar(min), &c->out[0]);
    if (min->absent) return sp_clamp_max_scalar(c->in[0], sp__attr_to_scalar(max), &c->out[0]);
    return sp_clamp(c->in[0], sp__attr_to_scalar(min), sp__attr_to_scalar(max), &c->out[0]);
}

sp_status sp__body_clamp_tensor(sp_call *c)
{
    const sp_tensor *x = c->in[0], *min = c->in[1], *max = c->in[2];
    sp_tensor *above = NULL;
    sp_status status = SP_OK;
    if (!min && !max) return no_bounds(c);
    if (!min) return sp_clamp_max(x, max, &c->out[0]);
    if (!max) return sp_clamp_min(x, min, &c->out[0]);
    SP_TRY(sp_clamp_min(x, min, &above));
    SP_TRY(sp_clamp_max(above, max, &c->out[0]));
out:
    sp_drop(&above);
    return status;
}

/* ---- quotients ----- */

static bool is_whole(const sp_tensor *x)
{
    return !sp__dtype_is_inexact(x->dtype);
}

/* Towards zero. Whole numbers stay whole: what is left over goes first, the rest divides evenly. */
static sp_status divide_truncated(const sp_tensor *x, const sp_tensor *y, sp_tensor **out)
{
    sp_tensor *part = NULL, *even = NULL;
    sp_status status = SP_OK;
    if (is_whole(x) && is_whole(y)) {
        SP_TRY(sp_fmod(x, y, &part));
        SP_TRY(sp_sub(x, part, &even));
        SP_TRY(sp_floor_divide(even, y, out));
    } else {
        SP_TRY(sp_div(x, y, &part));
        SP_TRY(sp_trunc(part, out));
    }
out:
    sp_drop(&part);
    sp_drop(&even);
    return status;
}

static sp_status divide_truncated_by(const sp_tensor *x, sp_scalar y, sp_tensor **out)
{
    sp_tensor *part = NULL, *even = NULL;
    sp_status status = SP_OK;
    if (is_whole(x) && y.kind != SP_FLOAT64) {
        SP_TRY(sp_fmod_scalar(x, y, &part));
        SP_TRY(sp_sub(x, part, &even));
        SP_TRY(sp_floor_divide_scalar(even, y, out));
    } else {
        SP_TRY(sp_div_scalar(x, y, &part));
        SP_TRY(sp_trunc(part, out));
    }
out:
    sp_drop(&part);
    sp_drop(&even);
    return status;
}

sp_status sp__body_div_mode(sp_call *c)
{
    const sp_attr *mode = &c->attr[SP_DIV_MODE_ROUNDING_MODE];
    if (mode->absent) return sp_div(c->in[0], c->in[1], &c->out[0]);
    if (mode->v.i == SP_ROUNDING_MODE_FLOOR) return sp_floor_divide(c->in[0], c->in[1], &c->out[0]);
    return divide_truncated(c->in[0], c->in[1], &c->out[0]);
}

sp_status sp__body_div_scalar_mode(sp_call *c)
{
    const sp_attr *mode = &c->attr[SP_DIV_SCALAR_MODE_ROUNDING_MODE];
    sp_scalar y = sp__attr_to_scalar(&c->attr[SP_DIV_SCALAR_MODE_Y]);
    if (mode->absent) return sp_div_scalar(c->in[0], y, &c->out[0]);
    if (mode->v.i == SP_ROUNDING_MODE_FLOOR) return sp_floor_divide_scalar(c->in[0], y, &c->out[0]);
    return divide_truncated_by(c->in[0], y, &c->out[0]);
}

/* ---- sums of products ----- */

/* value * tensor1, in the result's dtype: what is added is rounded as it would be in there. */
static sp_status scaled_factor(const sp_call *c, sp_dtype dtype, sp_scalar value, sp_tensor **out)
{
    sp_tensor *converted = NULL;
    if (value.kind == SP_FLOAT64 && !sp__dtype_is_inexact(dtype))
        return sp_fail(SP_EDTYPE,
                       "%s: value is %g and the result is %s, expected an integer value; convert x "
                       "with .float()",
                       sp__op_name(c), value.v.f, sp_dtype_name(dtype));
    if (dtype == SP_BOOL || c->in[1]->dtype == dtype) return sp_mul_scalar(c->in[1], value, out);
    SP_RETURN_IF(sp_cast(c->in[1], dtype, &converted));
    sp_status status = sp_mul_scalar(converted, value, out);
    sp_drop(&converted);
    return status;
}

static bool is_one(sp_scalar s)
{
    return s.kind == SP_FLOAT64 ? s.v.f == 1 : s.v.i == 1;
}

typedef sp_status (*add_fn)(const sp_tensor *, const sp_tensor *, const sp_tensor *, sp_tensor **);

/* `add` of x, value * tensor1 and tensor2; value is attribute 0. */
static sp_status with_value(sp_call *c, sp_infer_fn infer, add_fn add)
{
    sp_scalar value = sp__attr_to_scalar(&c->attr[0]);
    sp_tensor *scaled = NULL;
    sp_meta result;
    SP_RETURN_IF(infer(c, &result));
    if (is_one(value)) return add(c->in[0], c->in[1], c->in[2], &c->out[0]);
    SP_RETURN_IF(scaled_factor(c, (sp_dtype)result.dtype, value, &scaled));
    sp_status status = add(c->in[0], scaled, c->in[2], &c->out[0]);
    sp_drop(&scaled);
    return status;
}

sp_status sp__body_addcmul_value(sp_call *c)
{
    return with_value(c, sp__infer_pointwise, sp_addcmul);
}

sp_status sp__body_addcdiv_value(sp_call *c)
{
    return with_value(c, sp__infer_addcdiv, sp_addcdiv);
}

sp_status sp__body_pow_base(sp_call *c)
{
    return sp_pow_rscalar(c->in[0], sp__attr_to_scalar(&c->attr[SP_POW_BASE_X]), &c->out[0]);
}

/* ---- activations, NaN ----- */

sp_status sp__body_relu6(sp_call *c)
{
    const sp_hardtanh_opt opt = {.size = sizeof opt,
                                 .has_min_val = true,
                                 .min_val = SP_INT(0),
                                 .has_max_val = true,
                                 .max_val = SP_INT(6)};
    return sp_hardtanh(c->in[0], &opt, &c->out[0]);
}

/* weight in the shape that broadcasts along x's channels. */
static sp_status channel_weight(const sp_call *c, sp_tensor **out)
{
    const sp_tensor *x = c->in[0], *weight = c->in[1];
    int64_t shape[SP_MAX_RANK], channels = x->rank > 1 ? x->shape[1] : 1;
    if (weight->numel != 1 && (weight->rank != 1 || weight->numel != channels))
        return sp_fail(SP_ESHAPE,
                       "%s: weight has shape %s and x has %lld channels (dimension 1 of %s), "
                       "expected one number or one a channel",
                       sp__op_name(c), SP_SHAPE(weight), (long long)channels, SP_SHAPE(x));
    for (int i = 0; i < x->rank; i++) shape[i] = i == 1 ? weight->numel : 1;
    if (x->rank == 1) shape[0] = weight->numel;
    return sp_reshape(weight, shape, x->rank, out);
}

sp_status sp__body_prelu(sp_call *c)
{
    sp_tensor *weight = NULL;
    SP_RETURN_IF(sp__check_floating(c, c->in[0], "x"));
    SP_RETURN_IF(sp__check_same_dtype(c, c->in[0], "x", c->in[1], "weight"));
    SP_RETURN_IF(channel_weight(c, &weight));
    sp_status status = sp_prelu_kernel(c->in[0], weight, &c->out[0]);
    sp_drop(&weight);
    return status;
}

sp_status sp__body_logit_eps(sp_call *c)
{
    const sp_attr *eps = &c->attr[SP_LOGIT_EPS_EPS];
    if (eps->absent) return sp_logit(c->in[0], &c->out[0]);
    return sp_logit_within(c->in[0], eps->v.f, &c->out[0]);
}

/* x with `value` where test(x) holds; takes x's reference, also on failure. */
static sp_status replaced(sp_tensor *x, sp_status (*test)(const sp_tensor *, sp_tensor **),
                          double value, sp_tensor **out)
{
    sp_tensor *hit = NULL;
    sp_status status = SP_OK;
    *out = NULL;
    SP_TRY(test(x, &hit));
    SP_TRY(sp_where_scalar_x(hit, SP_FLOAT(value), x, out));
out:
    sp_drop(&hit);
    sp_drop(&x);
    return status;
}

static sp_status cleaned(const sp_call *c, const sp_tensor *x, sp_tensor **out)
{
    const sp_attr *nan = &c->attr[SP_NAN_TO_NUM_NAN], *up = &c->attr[SP_NAN_TO_NUM_POSINF],
                  *down = &c->attr[SP_NAN_TO_NUM_NEGINF];
    if (is_whole(x)) return sp_clone(x, out);
    double largest = sp__dtype_largest(x->dtype), number = nan->absent ? 0 : nan->v.f,
           above = up->absent ? largest : up->v.f, beneath = down->absent ? -largest : down->v.f;
    sp_tensor *clean = NULL, *below = NULL;
    if (above == -beneath) return sp_replace_nonfinite(x, number, above, out);
    SP_RETURN_IF(replaced(sp__retain(x), sp_isnan, number, &clean));
    SP_RETURN_IF(replaced(clean, sp_isposinf, above, &below));
    return replaced(below, sp_isneginf, beneath, out);
}

/* Of complex numbers, each part. */
sp_status sp__body_nan_to_num(sp_call *c)
{
    sp_tensor *parts = NULL, *clean = NULL;
    sp_status status = SP_OK;
    if (!sp__dtype_is_complex(c->in[0]->dtype)) return cleaned(c, c->in[0], &c->out[0]);
    SP_TRY(sp_view_as_real(c->in[0], &parts));
    SP_TRY(cleaned(c, parts, &clean));
    SP_TRY(sp_view_as_complex(clean, &c->out[0]));
out:
    sp_drop(&parts), sp_drop(&clean);
    return status;
}

/* ---- factors and powers ----- */

sp_status sp__body_deg2rad(sp_call *c)
{
    return sp_mul_scalar(c->in[0], SP_FLOAT(M_PI / 180), &c->out[0]);
}

sp_status sp__body_rad2deg(sp_call *c)
{
    return sp_mul_scalar(c->in[0], SP_FLOAT(180 / M_PI), &c->out[0]);
}

sp_status sp__body_positive(sp_call *c)
{
    if (c->in[0]->dtype == SP_BOOL)
        return sp_fail(SP_EDTYPE, "%s: x is bool, expected numbers", sp__op_name(c));
    return sp_alias(c->in[0], &c->out[0]);
}

static sp_status widened(const sp_tensor *x, sp_tensor **out)
{
    return sp_cast(x, sp__dtype_is_complex(x->dtype) ? SP_COMPLEX128 : SP_FLOAT64, out);
}

static sp_status wide_power(const sp_tensor *x, const sp_tensor *exponent, sp_tensor **out)
{
    sp_tensor *a = NULL, *b = NULL;
    sp_status status = SP_OK;
    SP_TRY(widened(x, &a));
    SP_TRY(widened(exponent, &b));
    SP_TRY(sp_pow(a, b, out));
out:
    sp_drop(&a);
    sp_drop(&b);
    return status;
}

sp_status sp__body_float_power(sp_call *c)
{
    return wide_power(c->in[0], c->in[1], &c->out[0]);
}

/* The number as a floating one, so that integers to a negative power are no mistake. */
static sp_scalar floating_number(const sp_attr *a)
{
    sp_scalar s = sp__attr_to_scalar(a);
    return s.kind == SP_FLOAT64 ? s : SP_FLOAT((double)s.v.i);
}

sp_status sp__body_float_power_scalar(sp_call *c)
{
    sp_tensor *x = NULL;
    SP_RETURN_IF(widened(c->in[0], &x));
    sp_status status =
        sp_pow_scalar(x, floating_number(&c->attr[SP_FLOAT_POWER_SCALAR_EXPONENT]), &c->out[0]);
    sp_drop(&x);
    return status;
}

sp_status sp__body_float_power_base(sp_call *c)
{
    sp_tensor *exponent = NULL;
    SP_RETURN_IF(widened(c->in[0], &exponent));
    sp_status status =
        sp_pow_rscalar(exponent, floating_number(&c->attr[SP_FLOAT_POWER_BASE_X]), &c->out[0]);
    sp_drop(&exponent);
    return status;
}

sp_status sp__body_ldexp(sp_call *c)
{
    sp_tensor *power = NULL;
    SP_RETURN_IF(sp_pow_rscalar(c->in[1], SP_FLOAT(2), &power));
    sp_status status = sp_mul(c->in[0], power, &c->out[0]);
    sp_drop(&power);
    return status;
}

sp_status sp__body_heaviside(sp_call *c)
{
    sp_tensor *above = NULL, *step = NULL, *zero = NULL;
    sp_status status = SP_OK;
    SP_RETURN_IF(sp__check_same_dtype(c, c->in[0], "x", c->in[1], "values"));
    SP_TRY(sp_gt_scalar(c->in[0], SP_INT(0), &above));
    SP_TRY(sp_cast(above, (sp_dtype)c->in[0]->dtype, &step));
    SP_TRY(sp_eq_scalar(c->in[0], SP_INT(0), &zero));
    SP_TRY(sp_where(zero, c->in[1], step, &c->out[0]));
out:
    sp_drop(&above);
    sp_drop(&step);
    sp_drop(&zero);
    return status;
}
