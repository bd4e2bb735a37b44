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
