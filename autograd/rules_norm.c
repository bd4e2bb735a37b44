/* Derivatives of statistics, by ops. */
#include "autograd/rules.h"

#include "ops_gen.h"

static double number_a_channel(int rank, const int64_t *shape)
{
    double n = (double)shape[0];
    for (int d = 2; d < rank; d++) n *= (double)shape[d];
    return n;
}

sp_status sp__rule_channel_mean_vjp(const sp_tensor *gy, const sp_meta *x, sp_tensor **out)
{
    sp_tensor *share = NULL;
    *out = NULL;
    SP_RETURN_IF(sp_div_scalar(gy, SP_FLOAT(number_a_channel(x->rank, x->shape)), &share));
    sp_status status = sp__rule_channel_expand(share, x, out);
    sp_drop(&share);
    return status;
}

/* 2 gy (x - mean) / n */
sp_status sp__rule_channel_var_vjp(const sp_tensor *gy, const sp_tensor *x, const sp_tensor *mean,
                                   sp_tensor **out)
{
    sp_tensor *share = NULL, *product = NULL, *shift = NULL;
    sp_status status = SP_OK;
    *out = NULL;
    SP_TRY(sp_mul_scalar(gy, SP_FLOAT(2 / number_a_channel(x->rank, x->shape)), &share));
    SP_TRY(sp_mul(share, mean, &product));
    SP_TRY(sp_neg(product, &shift));
    SP_TRY(sp_channel_affine(x, share, shift, out));
out:
    sp_drop(&share), sp_drop(&product), sp_drop(&shift);
    return status;
}

/* |x| ** e, and 1 where x is 0 if that would be infinite. */
static sp_status size_to_power(const sp_tensor *x, double e, sp_tensor **out)
{
    sp_tensor *size = NULL, *some = NULL, *safe = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp_abs(x, &size));
    if (e < 0) {
        SP_TRY(sp_ne_scalar(x, SP_INT(0), &some));
        SP_TRY(sp_where_scalar(some, size, SP_INT(1), &safe));
    }
    SP_TRY(sp_pow_scalar(safe ? safe : size, SP_FLOAT(e), out));
out:
    sp_drop(&size), sp_drop(&some), sp_drop(&safe);
    return status;
}

sp_status sp__rule_power_sum_vjp(const sp_tensor *gy, const sp_tensor *x, double p, sp_tensor **out)
{
    sp_tensor *slope = NULL, *sign = NULL, *power = NULL, *scaled = NULL;
    sp_status status = SP_OK;
    *out = NULL;
    SP_TRY(sp_mul_scalar(gy, SP_FLOAT(p), &scaled));
    if (p == 2) {
        slope = sp__retain(x);
    } else {
        SP_TRY(sp_sign(x, &sign));
        if (p != 1) SP_TRY(size_to_power(x, p - 1, &power));
        if (power)
            SP_TRY(sp_mul(sign, power, &slope));
        else
            slope = sp__retain(sign);
    }
    SP_TRY(sp_mul(slope, scaled, out));
out:
    sp_drop(&slope), sp_drop(&sign), sp_drop(&power), sp_drop(&scaled);
    return status;
}
