/* The public transforms of functions: sp_jvp, sp_vmap, sp_grad_fn. Each pushes a level, calls the
 * function on wrapped arguments, and takes the results down again.
 */
#include "autograd/calls.h"
#include "autograd/levels_int.h"

static void drop_all(sp_tensor **t, int n)
{
    for (int i = 0; i < n; i++) sp_drop(&t[i]);
}

static void clear(sp_tensor **t, int n)
{
    for (int i = 0; t && i < n; i++) t[i] = NULL;
}

static sp_status array_new(const char *op, int n, sp_tensor ***out)
{
    *out = sp__alloc_zero((size_t)n * sizeof **out);
    return *out ? SP_OK : sp_fail(SP_EMEMORY, "%s: no memory for %d tensors", op, n);
}

static void array_free(sp_tensor **t, int n)
{
    if (!t) return;
    drop_all(t, n);
    sp__free(t, (size_t)n * sizeof *t);
}

/* fn on the wrapped arguments; made[] holds max results. */
static sp_status call_fn(const char *op, sp_fn fn, void *ctx, sp_tensor **in, int n_in,
                         sp_tensor **made, int max, int *n_made)
{
    *n_made = 0;
    SP_RETURN_IF(fn(ctx, (const sp_tensor *const *)in, n_in, made, max, n_made));
    if (*n_made < 0 || *n_made > max)
        return sp_fail(SP_EVALUE,
                       "%s: the function says it returned %d tensors, there is room for %d", op,
                       *n_made, max);
    for (int i = 0; i < *n_made; i++)
        if (!made[i])
            return sp_fail(SP_EVALUE, "%s: the function returned NULL as result %d", op, i);
    return SP_OK;
}

sp_status sp_jvp(sp_fn fn, void *ctx, const sp_tensor *const *in,
                 const sp_tensor *const *tangents_in, int n_in, sp_tensor **out,
                 sp_tensor **tangent_out, int max_out, int *n_out)
{
    sp_level *level = NULL;
    sp_tensor **wrapped = NULL, **made = NULL;
    sp_status status = SP_OK;
    clear(out, max_out), clear(tangent_out, max_out);
    *n_out = 0;
    SP_TRY(array_new("jvp", n_in, &wrapped));
    SP_TRY(array_new("jvp", max_out, &made));
    SP_TRY(sp__level_push(SP_LEVEL_JVP, &level));
    for (int i = 0; i < n_in; i++)
        SP_TRY(sp__dual(level, in[i], tangents_in ? tangents_in[i] : NULL, &wrapped[i]));
    SP_TRY(call_fn("jvp", fn, ctx, wrapped, n_in, made, max_out, n_out));
    for (int i = 0; i < *n_out; i++) SP_TRY(sp__undual(level, made[i], &out[i], &tangent_out[i]));
out:
    if (level) sp__level_pop(level);
    array_free(wrapped, n_in), array_free(made, max_out);
    if (status != SP_OK) drop_all(out, max_out), drop_all(tangent_out, max_out), *n_out = 0;
    return status;
}

/* The size of the mapped dimension: all arguments that are mapped agree on it, and there is one. */
static sp_status batch_size(const sp_tensor *const *in, const int *in_dims, int n_in, int64_t *out)
{
    *out = -1;
    for (int i = 0; i < n_in; i++) {
        if (in_dims[i] < 0) continue;
        if (in_dims[i] >= in[i]->rank)
            return sp_fail(SP_EINDEX, "vmap: argument %d of shape %s has no dimension %d", i,
                           SP_SHAPE(in[i]), in_dims[i]);
        int64_t size = in[i]->shape[in_dims[i]];
        if (*out >= 0 && size != *out)
            return sp_fail(
                SP_ESHAPE,
                "vmap: argument %d maps %lld elements, an argument before it %lld; they must agree",
                i, (long long)size, (long long)*out);
        *out = size;
    }
    return *out >= 0 ? SP_OK
                     : sp_fail(SP_EVALUE,
                               "vmap: no argument is mapped over; give at least one a dimension");
}

sp_status sp_vmap(sp_fn fn, void *ctx, const sp_tensor *const *in, const int *in_dims, int n_in,
                  sp_tensor **out, int max_out, int *n_out)
{
    sp_level *level = NULL;
    sp_tensor **wrapped = NULL, **made = NULL;
    int64_t size;
    sp_status status = SP_OK;
    clear(out, max_out);
    *n_out = 0;
    SP_TRY(batch_size(in, in_dims, n_in, &size));
    SP_TRY(array_new("vmap", n_in, &wrapped));
    SP_TRY(array_new("vmap", max_out, &made));
    SP_TRY(sp__level_push_vmap(size, SP_RANDOM_ERROR, &level));
    for (int i = 0; i < n_in; i++) {
        if (in_dims[i] >= 0)
            SP_TRY(sp__vmap_wrap(level, in[i], in_dims[i], &wrapped[i]));
        else
            wrapped[i] = sp__retain(in[i]);
    }
    SP_TRY(call_fn("vmap", fn, ctx, wrapped, n_in, made, max_out, n_out));
    for (int i = 0; i < *n_out; i++) SP_TRY(sp__vmap_unwrap(level, made[i], 0, &out[i]));
out:
    if (level) sp__level_pop(level);
    array_free(wrapped, n_in), array_free(made, max_out);
    if (status != SP_OK) drop_all(out, max_out), *n_out = 0;
    return status;
}

sp_status sp_grad_fn(sp_fn fn, void *ctx, const sp_tensor *const *in, int n_in, int n_grad,
                     sp_tensor **grads, sp_tensor **value)
{
    enum { MAX_RESULTS = 8 }; /* only the first counts */
    sp_level *level = NULL;
    sp_tensor **wrapped = NULL, *made[MAX_RESULTS] = {NULL};
    int n_made = 0;
    sp_status status = SP_OK;
    clear(grads, n_grad), clear(value, 1);
    if (n_grad < 0 || n_grad > n_in)
        return sp_fail(SP_EVALUE, "grad: gradients of %d of %d arguments", n_grad, n_in);
    SP_TRY(array_new("grad", n_in, &wrapped));
    SP_TRY(sp__level_push(SP_LEVEL_GRAD, &level));
    for (int i = 0; i < n_in; i++) SP_TRY(sp__grad_wrap(level, in[i], i < n_grad, &wrapped[i]));
    SP_TRY(call_fn("grad", fn, ctx, wrapped, n_in, made, MAX_RESULTS, &n_made));
    if (n_made == 0) SP_TRY(sp_fail(SP_EVALUE, "grad: the function returned nothing"));
    SP_TRY(sp__grad_of(level, (const sp_tensor *const *)made, NULL, 1,
                       (const sp_tensor *const *)wrapped, n_grad, false, grads));
    if (value) SP_TRY(sp__grad_unwrap(level, made[0], value));
out:
    drop_all(made, MAX_RESULTS);
    array_free(wrapped, n_in);
    if (level) sp__level_pop(level);
    if (status != SP_OK) {
        drop_all(grads, n_grad);
        if (value) sp_drop(value);
    }
    return status;
}
