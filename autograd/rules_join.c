/* Rules for ops over many tensors. */
#include "autograd/rules.h"
#include "ops/infer.h"
#include "ops/join.h"
#include "ops_gen.h"
#include "tensor/memory.h"

/* The part of gy that is tensor i's, in its dtype. */
sp_status sp__rule_cat_vjp(const sp_tensor *gy, const sp_meta *metas, int i, int64_t dim,
                           sp_tensor **out)
{
    int64_t start = 0;
    int d;
    sp_tensor *part = NULL;
    sp_status status = SP_OK;
    *out = NULL;
    if (sp__cat_skips(metas[i].rank, metas[i].shape)) return SP_OK;
    SP_RETURN_IF(sp__dim_normalize("cat", dim, gy->rank, &d));
    for (int k = 0; k < i; k++)
        if (!sp__cat_skips(metas[k].rank, metas[k].shape)) start += metas[k].shape[d];
    SP_TRY(sp_slice(gy, d, start, start + metas[i].shape[d], NULL, &part));
    SP_TRY(sp__rule_sum_to(part, &metas[i], out));
out:
    sp_drop(&part);
    return status;
}

sp_status sp__rule_stack_vjp(const sp_tensor *gy, const sp_meta *metas, int i, int64_t dim,
                             sp_tensor **out)
{
    sp_tensor *part = NULL;
    sp_status status = SP_OK;
    *out = NULL;
    SP_TRY(sp_select(gy, dim, i, &part));
    SP_TRY(sp__rule_sum_to(part, &metas[i], out));
out:
    sp_drop(&part);
    return status;
}

/* Tangents with zeros for those that are missing, all in y's dtype. */
static sp_status all_tangents(sp_tensor *const *ts, sp_tensor *const *xs, int n, const sp_tensor *y,
                              sp_tensor **out)
{
    const sp_full_opt opt = {.size = sizeof opt, .has_dtype = true, .dtype = (sp_dtype)y->dtype};
    for (int i = 0; i < n; i++) {
        if (ts[i])
            out[i] = sp__retain(ts[i]);
        else
            SP_RETURN_IF(sp_full(xs[i]->shape, xs[i]->rank, SP_INT(0), &opt, &out[i]));
    }
    return SP_OK;
}

static sp_status joined_tangents(bool stacked, sp_tensor *const *ts, sp_tensor *const *xs, int n,
                                 const sp_tensor *y, int64_t dim, sp_tensor **out)
{
    size_t bytes = (size_t)n * sizeof(sp_tensor *);
    sp_tensor **all = sp__alloc_zero(bytes);
    const sp_tensor *const *in = (const sp_tensor *const *)all;
    sp_status status = SP_OK;
    *out = NULL;
    if (!all) return sp_fail(SP_EMEMORY, "%s: no memory for tangents", stacked ? "stack" : "cat");
    SP_TRY(all_tangents(ts, xs, n, y, all));
    if (stacked)
        SP_TRY(sp_stack(in, n, &(sp_stack_opt){.size = sizeof(sp_stack_opt), .dim = dim}, out));
    else
        SP_TRY(sp_cat(in, n, &(sp_cat_opt){.size = sizeof(sp_cat_opt), .dim = dim}, out));
out:
    for (int i = 0; i < n; i++) sp_drop(&all[i]);
    sp__free(all, bytes);
    return status;
}

sp_status sp__rule_cat_jvp(sp_tensor *const *ts, sp_tensor *const *xs, int n, const sp_tensor *y,
                           int64_t dim, sp_tensor **out)
{
    return joined_tangents(false, ts, xs, n, y, dim, out);
}

sp_status sp__rule_stack_jvp(sp_tensor *const *ts, sp_tensor *const *xs, int n, const sp_tensor *y,
                             int64_t dim, sp_tensor **out)
{
    return joined_tangents(true, ts, xs, n, y, dim, out);
}
