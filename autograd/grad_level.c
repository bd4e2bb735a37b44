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

static sp_status check_only_element(const sp_tensor *root)
{
    if (root->numel != 1)
        return sp_fail(SP_ESHAPE,
                       "grad: the function returned a tensor of shape %s; it must return one "
                       "element (use sum() or mean(), "
                       "or vjp() or jacrev() for several)",
                       SP_SHAPE(root));
    if (sp__dtype_is_complex(root->dtype))
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

typedef struct ends { /* the roots that lead anywhere, and their weights */
    const sp_tensor **root, **weight;
    int n;
} ends;

static sp_status choose_ends(const sp_level *level, const sp_tensor *const *roots,
                             const sp_tensor *const *weights, int n_roots, ends *e)
{
    for (int i = 0; i < n_roots; i++) {
        SP_RETURN_IF(sp__check_alive(roots[i], "grad"));
        if (!weights) SP_RETURN_IF(check_only_element(roots[i]));
        if (weights) SP_RETURN_IF(sp__check_alive(weights[i], "grad"));
        if ((weights && !weights[i]) || !sp__wants_grad(roots[i], level)) continue;
        e->root[e->n] = roots[i];
        if (weights) e->weight[e->n] = weights[i];
        e->n++;
    }
    return SP_OK;
}

static sp_status gradients(const sp_level *level, const ends *e, bool weighted,
                           const sp_tensor *const *inputs, int n, bool retain, sp_tensor **grads)
{
    if (e->n == 0) return zeros_below(level, inputs, n, grads);
    sp_grad_opt opt = {.size = sizeof opt,
                       .grad_outputs = weighted ? e->weight : NULL,
                       .retain_graph = retain,
                       .materialize_grads = true};
    SP_RETURN_IF(sp_grad(e->root, e->n, inputs, n, &opt, grads));
    for (int i = 0; i < n; i++) {
        sp_tensor *wrapped = grads[i];
        grads[i] = sp__retain(sp__below(wrapped, level));
        sp_drop(&wrapped);
    }
    return SP_OK;
}

sp_status sp__grad_of(sp_level *level, const sp_tensor *const *roots,
                      const sp_tensor *const *weights, int n_roots, const sp_tensor *const *inputs,
                      int n, bool retain, sp_tensor **grads)
{
    enum { ROOM = 8 };
    const sp_tensor *room[2 * ROOM], **list = room;
    size_t bytes = 2 * (size_t)n_roots * sizeof *list;
    for (int i = 0; i < n; i++) grads[i] = NULL;
    if (n_roots > ROOM && !(list = sp__alloc(bytes)))
        return sp_fail(SP_EMEMORY, "grad: no memory for %d results", n_roots);
    ends e = {list, list + n_roots, 0};
    sp_status status = choose_ends(level, roots, weights, n_roots, &e);
    if (status == SP_OK) status = gradients(level, &e, weights, inputs, n, retain, grads);
    if (list != room) sp__free(list, bytes);
    for (int i = 0; i < n && status != SP_OK; i++) sp_drop(&grads[i]);
    return status;
}
