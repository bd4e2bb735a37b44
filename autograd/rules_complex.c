/* Rules of ops that are not holomorphic. A gradient at a complex x is the conjugate of the
 * Wirtinger derivative: seen as pairs of real numbers, it is the gradient of the parts. */
#include "autograd/rules.h"
#include "ops_gen.h"

sp_status sp__rule_part_of(const sp_tensor *gy, bool imaginary, sp_tensor **out)
{
    return imaginary ? sp_imag(gy, out) : sp_real(gy, out);
}

sp_status sp__rule_join_parts(const sp_tensor *gy, sp_tensor **out)
{
    sp_tensor *re = NULL, *im = NULL;
    sp_status status = SP_OK;
    *out = NULL;
    SP_TRY(sp_select(gy, -1, 0, &re));
    SP_TRY(sp_select(gy, -1, 1, &im));
    SP_TRY(sp_complex(re, im, out));
out:
    sp_drop(&re), sp_drop(&im);
    return status;
}

/* A root of a product is the roots' product only where the numbers are real and not below 0. */
static sp_status branched(const sp_tensor *x, sp_tensor **out)
{
    sp_tensor *less = NULL, *more = NULL, *a = NULL, *b = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp_sub_scalar(x, SP_INT(1), &less));
    SP_TRY(sp_add_scalar(x, SP_INT(1), &more));
    SP_TRY(sp_rsqrt(less, &a));
    SP_TRY(sp_rsqrt(more, &b));
    SP_TRY(sp_mul(a, b, out));
out:
    sp_drop(&less), sp_drop(&more), sp_drop(&a), sp_drop(&b);
    return status;
}

sp_status sp__rule_acosh_slope(const sp_tensor *x, sp_tensor **out)
{
    sp_tensor *square = NULL, *less = NULL;
    sp_status status = SP_OK;
    *out = NULL;
    if (sp__dtype_is_complex(x->dtype)) return branched(x, out);
    SP_TRY(sp_mul(x, x, &square));
    SP_TRY(sp_sub_scalar(square, SP_INT(1), &less));
    SP_TRY(sp_rsqrt(less, out));
out:
    sp_drop(&square), sp_drop(&less);
    return status;
}

/* The real part of conj(a) b. */
static sp_status inner(const sp_tensor *a, const sp_tensor *b, sp_tensor **out)
{
    sp_tensor *turned = NULL, *ab = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp_conj(a, &turned));
    SP_TRY(sp_mul(turned, b, &ab));
    SP_TRY(sp_real(ab, out));
out:
    sp_drop(&turned), sp_drop(&ab);
    return status;
}

static sp_status sign_of(const sp_tensor *x, sp_tensor **out)
{
    return sp__dtype_is_complex(x->dtype) ? sp_sgn(x, out) : sp_sign(x, out);
}

sp_status sp__rule_abs_vjp(const sp_tensor *gy, const sp_tensor *x, sp_tensor **out)
{
    sp_tensor *sign = NULL;
    *out = NULL;
    SP_RETURN_IF(sign_of(x, &sign));
    sp_status status = sp_mul(gy, sign, out);
    sp_drop(&sign);
    return status;
}

sp_status sp__rule_abs_jvp(const sp_tensor *tx, const sp_tensor *x, sp_tensor **out)
{
    sp_tensor *sign = NULL;
    *out = NULL;
    SP_RETURN_IF(sign_of(x, &sign));
    sp_status status = inner(sign, tx, out);
    sp_drop(&sign);
    return status;
}

/* i x / |x|^2, 0 at 0: how the angle grows. */
static sp_status turning(const sp_tensor *x, sp_tensor **out)
{
    sp_tensor *re = NULL, *im = NULL, *minus = NULL, *across = NULL, *size = NULL, *square = NULL,
              *ratio = NULL, *zero = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp_real(x, &re));
    SP_TRY(sp_imag(x, &im));
    SP_TRY(sp_neg(im, &minus));
    SP_TRY(sp_complex(minus, re, &across));
    SP_TRY(sp_abs(x, &size));
    SP_TRY(sp_square(size, &square));
    SP_TRY(sp_div(across, square, &ratio));
    SP_TRY(sp_eq_scalar(x, SP_INT(0), &zero));
    SP_TRY(sp_where_scalar_x(zero, SP_INT(0), ratio, out));
out:
    sp_drop(&re), sp_drop(&im), sp_drop(&minus), sp_drop(&across);
    sp_drop(&size), sp_drop(&square), sp_drop(&ratio), sp_drop(&zero);
    return status;
}

sp_status sp__rule_angle_vjp(const sp_tensor *gy, const sp_tensor *x, sp_tensor **out)
{
    sp_tensor *turn = NULL;
    *out = NULL;
    if (!sp__dtype_is_complex(x->dtype)) return sp_fill_scalar(x, SP_INT(0), out);
    SP_RETURN_IF(turning(x, &turn));
    sp_status status = sp_mul(gy, turn, out);
    sp_drop(&turn);
    return status;
}

sp_status sp__rule_angle_jvp(const sp_tensor *tx, const sp_tensor *x, sp_tensor **out)
{
    sp_tensor *turn = NULL;
    *out = NULL;
    if (!sp__dtype_is_complex(x->dtype)) return sp_fill_scalar(x, SP_INT(0), out);
    SP_RETURN_IF(turning(x, &turn));
    sp_status status = inner(turn, tx, out);
    sp_drop(&turn);
    return status;
}

/* (gy - out Re(conj(out) gy)) / |x|: what of gy points across x. Symmetric, so the same forwards.
 */
sp_status sp__rule_sgn_vjp(const sp_tensor *gy, const sp_tensor *x, const sp_tensor *sign,
                           sp_tensor **out)
{
    sp_tensor *along = NULL, *part = NULL, *across = NULL, *size = NULL, *safe = NULL,
              *ratio = NULL, *zero = NULL;
    sp_status status = SP_OK;
    *out = NULL;
    if (!sp__dtype_is_complex(x->dtype)) return sp_fill_scalar(gy, SP_INT(0), out);
    SP_TRY(inner(sign, gy, &along));
    SP_TRY(sp_mul(sign, along, &part));
    SP_TRY(sp_sub(gy, part, &across));
    SP_TRY(sp_abs(x, &size));
    SP_TRY(sp_eq_scalar(x, SP_INT(0), &zero));
    SP_TRY(sp_where_scalar_x(zero, SP_INT(1), size, &safe));
    SP_TRY(sp_div(across, safe, &ratio));
    SP_TRY(sp_where_scalar_x(zero, SP_INT(0), ratio, out));
out:
    sp_drop(&along), sp_drop(&part), sp_drop(&across);
    sp_drop(&size), sp_drop(&safe), sp_drop(&ratio), sp_drop(&zero);
    return status;
}
