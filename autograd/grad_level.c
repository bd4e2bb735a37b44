/* A nested grad: a level with a tape of its own, on wrappers.
 *
 * The tape is the same as below all levels: nodes hang on the wrappers' metas, and the engine is
 * the same. Backward runs with the level on the stack, so that the gradients are wrappers too, and
 * whatever lies below sees every op of it: an outer tape records it, an outer jvp differentiates
 * it.
 */
#include "autograd/calls.h"
#include "autograd/levels_int.h"

sp_status sp__grad_dispatch(sp_level *self, sp_call *c)
{
    sp__tls.top = self;
    return sp__record(c, self);
}

sp_status sp__grad_wrap(sp_level *level, const sp_tensor *x, bool leaf, sp_tensor **out)
{
    SP_RETURN_IF(sp__check_alive(x, "grad"));
    SP_RETURN_IF(sp__wrap_new(level, x, NULL, out));
    sp_status status = leaf ? sp_set_requires_grad(*out, true) : SP_OK;
    if (status != SP_OK) sp_drop(out);
    return status;
}

sp_status sp__grad_unwrap(sp_level *level, const sp_tensor *t, sp_tensor **out)
{
    SP_RETURN_IF(sp__check_alive(t, "grad"));
    *out = sp__retain(sp__below(t, level));
    return SP_OK;
}

/* Zeros one level down, for a root that does not depend on the inputs. */
static sp_status zeros_below(const sp_level *level, const sp_tensor *const *inputs, int n,
                             sp_tensor **grads)
{
    sp_context was;
    sp_status status = SP_OK;
    sp__below_enter(level, &was);
    for (int i = 0; i < n; i++)
        SP_TRY(sp__call_full_like(sp__below(inputs[i], level), 0, &grads[i]));
out:
    sp__below_leave(&was);
    return status;
}

static sp_status check_root(const sp_tensor *root, const sp_tensor *gradient)
{
    SP_RETURN_IF(sp__check_alive(root, "grad"));
    if (!gradient && root->numel != 1)
        return sp_fail(SP_ESHAPE,
                       "grad: the function returned a tensor of shape %s; it must return one "
                       "element (use sum() or mean(), "
                       "or vjp() or jacrev() for several)",
                       SP_SHAPE(root));
    if (!gradient && sp__dtype_is_complex(root->dtype))
        return sp_fail(
            SP_EDTYPE,
            "grad: the function returned %s; it must return a real number (use abs(), or "
            "the real part), or vjp() for complex ones",
            sp_dtype_name((sp_dtype)root->dtype));
    if (!sp__is_float(root->dtype))
        return sp_fail(
            SP_EDTYPE,
            "grad: the function returned %s; only floating results can be differentiated",
            sp_dtype_name(root->dtype));
    return SP_OK;
}

sp_status sp__grad_of(sp_level *level, const sp_tensor *root, const sp_tensor *gradient,
                      const sp_tensor *const *inputs, int n, bool retain, sp_tensor **grads)
{
    for (int i = 0; i < n; i++) grads[i] = NULL;
    SP_RETURN_IF(check_root(root, gradient));
    sp_status status = SP_OK;
    if (!sp__wants_grad(root, level)) {
        SP_TRY(zeros_below(level, inputs, n, grads));
        return SP_OK;
    }
    sp_grad_opt opt = {.size = sizeof opt,
                       .grad_outputs = gradient ? &gradient : NULL,
                       .retain_graph = retain,
                       .materialize_grads = true};
    SP_TRY(sp_grad(&root, 1, inputs, n, &opt, grads));
    for (int i = 0; i < n; i++) {
        sp_tensor *wrapped = grads[i];
        grads[i] = sp__retain(sp__below(wrapped, level));
        sp_drop(&wrapped);
    }
out:
    for (int i = 0; i < n && status != SP_OK; i++) sp_drop(&grads[i]);
    return status;
}
