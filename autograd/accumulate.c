/* The end of a gradient's way: adding it to what its leaf has. */
#include "autograd/engine_int.h"

/* The first gradient: the leaf takes it over if nobody else can see its bytes, else it gets a copy
 * of its own. */
static sp_status take(sp_grad_meta *meta, sp_slot *slot)
{
    if (slot->shared || !sp__sole_owner(slot->g)) return sp_clone(slot->g, &meta->grad);
    meta->grad = slot->g;
    slot->g = NULL;
    return SP_OK;
}

/* Without create_graph the gradient is added in place: who holds leaf.grad sees it grow, as in
 * PyTorch. */
static sp_status add(sp_grad_meta *meta, const sp_slot *slot, bool create)
{
    if (!create && !(meta->grad->flags & (SP_T_WRAPPED | SP_T_REQUIRES_GRAD))) {
        sp_tensor *grad = sp__retain(meta->grad);
        sp_status status = sp_add_(grad, slot->g);
        sp_drop(&grad);
        return status;
    }
    sp_tensor *sum;
    SP_RETURN_IF(sp_add(meta->grad, slot->g, &sum));
    sp_drop(&meta->grad);
    meta->grad = sum;
    return SP_OK;
}

sp_status sp__accumulate(sp_leaf *leaf, sp_slot *slot, bool create)
{
    sp_grad_meta *meta = leaf->handle->grad_meta;
    if (slot->g->wrap && !leaf->handle->wrap)
        return sp_fail(
            SP_EGRAD,
            "backward: a gradient that belongs to a transform cannot be kept in .grad; use "
            "autograd.grad(), or spool.func.grad()");
    if (meta->grad)
        SP_RETURN_IF(add(meta, slot, create));
    else
        SP_RETURN_IF(take(meta, slot));
    return leaf->node.hooks ? sp__hooks_run_after(leaf) : SP_OK;
}
