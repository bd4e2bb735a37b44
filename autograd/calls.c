/* Calls of ops that the tape and the transforms make themselves. */
#include "autograd/calls.h"

sp_status sp__call_full_like(const sp_tensor *t, double value, sp_tensor **out)
{
    sp_full_opt opt = {.size = sizeof opt, .has_dtype = true, .dtype = (sp_dtype)t->dtype};
    return sp_full(t->shape, t->rank, SP_FLOAT(value), &opt, out);
}

sp_status sp__call_fill_(sp_tensor *t, double value)
{
    return sp_fill_scalar_(t, SP_FLOAT(value));
}

sp_status sp__call_move_dim(const sp_tensor *t, int from, int to, sp_tensor **out)
{
    int64_t dims[SP_MAX_RANK];
    int k = 0;
    if (from == to) {
        *out = sp__retain(t);
        return SP_OK;
    }
    for (int i = 0; i < t->rank; i++) {
        if (i == to) {
            dims[i] = from;
            continue;
        }
        if (k == from) k++;
        dims[i] = k++;
    }
    return sp_permute(t, dims, t->rank, out);
}

sp_status sp__call_unsqueeze_n(const sp_tensor *t, int at, int n, sp_tensor **out)
{
    sp_tensor *now = sp__retain(t), *next = NULL;
    sp_status status = SP_OK;
    for (int i = 0; i < n; i++) {
        SP_TRY(sp_unsqueeze(now, at, &next));
        sp_drop(&now);
        now = next;
    }
    *out = now;
    return SP_OK;
out:
    sp_drop(&now);
    return status;
}
