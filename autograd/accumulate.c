/* The end of a gradient's way: adding it to what its leaf has. */
#include "autograd/engine_int.h"

/* Running an op may let another thread in, and that may add to the same leaf: a result counts only
 * if leaf.grad is still what it was made from. */
static bool replace(sp_grad_meta *meta, const sp_tensor *old, sp_tensor **grad)
{
    if (meta->grad != old) {
        sp_drop(grad);
        return false;
    }
    sp_drop(&meta->grad);
    meta->grad = *grad;
    *grad = NULL;
    return true;
}

/* The first gradient: the leaf takes it over if nobody else can see its bytes, else it gets a copy
 * of its own. */
static sp_status take(sp_grad_meta *meta, sp_slot *slot, bool *done)
{
    sp_tensor *copy = NULL;
    if (!slot->shared && sp__sole_owner(slot->g)) {
        *done = replace(meta, NULL, &slot->g);
        return SP_OK;
    }
    SP_RETURN_IF(sp_clone(slot->g, &copy));
    *done = replace(meta, NULL, &copy);
    return SP_OK;
}

/* Without create_graph the gradient is added in place: who holds leaf.grad sees it grow, as in
 * PyTorch. */
static sp_status add(sp_grad_meta *meta, const sp_slot *slot, bool create, bool *done)
{
    sp_tensor *old = sp__retain(meta->grad), *sum = NULL;
    bool in_place = !create && !(old->flags & (SP_T_WRAPPED | SP_T_REQUIRES_GRAD));
    sp_status status = in_place ? sp_add_(old, slot->g) : sp_add(old, slot->g, &sum);
    *done = status == SP_OK && (in_place || replace(meta, old, &sum));
    sp_drop(&old);
    return status;
}

sp_status sp__accumulate(sp_leaf *leaf, sp_slot *slot, bool create)
{
    sp_grad_meta *meta = leaf->handle->grad_meta;
    if (slot->g->wrap && !leaf->handle->wrap)
        return sp_fail(
            SP_EGRAD,
            "backward: a gradient that belongs to a transform cannot be kept in .grad; use "
            "autograd.grad(), or spool.func.grad()");
    for (bool done = false; !done;)
        SP_RETURN_IF(meta->grad ? add(meta, slot, create, &done) : take(meta, slot, &done));
    return leaf->node.hooks ? sp__hooks_run_added(leaf) : SP_OK;
}
