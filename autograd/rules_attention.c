/* Attention's derivatives beyond its kernels. */
#include "autograd/rules.h"

#include "ops/attention.h"
#include "ops/attr.h"
#include "ops_gen.h"

/* x (B, H, L, E) times g (B, H, L) scale. */
static sp_status times_rows(const sp_tensor *x, const sp_tensor *g, double scale, sp_tensor **out)
{
    sp_tensor *scaled = NULL, *tall = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp_mul_scalar(g, SP_FLOAT(scale), &scaled));
    SP_TRY(sp_unsqueeze(scaled, -1, &tall));
    SP_TRY(sp_mul(x, tall, out));
out:
    sp_drop(&scaled), sp_drop(&tall);
    return status;
}

/* The mean of the keys by their weights is attention with the keys for values. */
sp_status sp__rule_attention_lse_q(const sp_tensor *g, const sp_tensor *q, const sp_tensor *k,
                                   const sp_tensor *mask, bool causal, double scale,
                                   sp_tensor **out)
{
    sp_tensor *mean = NULL, *lse = NULL;
    sp_status status = SP_OK;
    *out = NULL;
    SP_TRY(sp_attention(q, k, k, causal, scale, mask, &mean, &lse));
    SP_TRY(times_rows(mean, g, scale, out));
out:
    sp_drop(&mean), sp_drop(&lse);
    return status;
}

/* weights^T (q g scale), which is what values get of q g scale. */
sp_status sp__rule_attention_lse_k(const sp_tensor *g, const sp_tensor *q, const sp_tensor *k,
                                   const sp_tensor *mask, const sp_tensor *lse, bool causal,
                                   double scale, sp_tensor **out)
{
    sp_tensor *rows = NULL, *gq = NULL, *gk = NULL;
    sp_status status = SP_OK;
    *out = NULL;
    SP_TRY(times_rows(q, g, scale, &rows));
    SP_TRY(sp_attention_backward(rows, q, k, k, q, lse, causal, scale, mask, &gq, &gk, out));
out:
    sp_drop(&rows), sp_drop(&gq), sp_drop(&gk);
    return status;
}

sp_status sp__rule_attention_mask(const sp_tensor *gy, const sp_tensor *glse, const sp_tensor *q,
                                  const sp_tensor *k, const sp_tensor *v, const sp_tensor *mask,
                                  const sp_tensor *y, const sp_tensor *lse, bool causal,
                                  double scale, sp_tensor **out)
{
    sp_tensor *grad = NULL, *scores = NULL;
    sp_meta meta;
    sp_status status = SP_OK;
    *out = NULL;
    sp__meta_of(mask, &meta);
    SP_TRY(sp__rule_or_zeros(gy, y, &grad));
    sp_tensor *in[] = {grad,           (sp_tensor *)q,   (sp_tensor *)k,   (sp_tensor *)v,
                       (sp_tensor *)y, (sp_tensor *)lse, (sp_tensor *)mask};
    const sp_call call = {.op = SP_OP_ATTENTION_BACKWARD,
                          .n_in = 7,
                          .n_attr = 2,
                          .in = in,
                          .attr = {sp__attr_bool(causal), sp__attr_float(scale)}};
    SP_TRY(sp__attention_score_gradient(&call, glse, &scores));
    SP_TRY(sp__rule_sum_to(scores, &meta, out));
out:
    sp_drop(&grad), sp_drop(&scores);
    return status;
}
