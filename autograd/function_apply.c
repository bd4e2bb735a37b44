/* Custom functions: the way of a use through the levels.
 *
 *     top level     grad: below on what it wraps, then setup on wrappers, and a node
 *                   jvp, jet: function_forward.c
 *                   vmap: the function's vmap, or its callbacks one level up (function_vmap.c)
 *     no level      forward, setup, and a node of the tape
 *
 * A function without setup keeps what it needs while it computes, which can mean one level alone:
 * the one that its inputs belong to computes forward, and whatever lies below must be constant.
 */
#include "autograd/function_int.h"

#include <string.h>

#include "autograd/calls.h"

static bool owns(const sp_use_at *a, const sp_level *level)
{
    for (int i = 0; i < a->n_in; i++)
        if (sp__of_level(a->in[i], level)) return true;
    return false;
}

static void drop_results(sp_use_at *a)
{
    for (int j = 0; j < a->n_out; j++) sp_drop(&a->out[j]);
    a->n_out = 0;
}

/* ---- going down ----- */

void sp__use_descend(const sp_level *level, sp_descent *d)
{
    const sp_autocast *now = sp__autocast_now();
    sp__below_enter(level, &d->was);
    if (!now) return;
    d->autocast = *now;
    d->autocast.level.below = level->below;
    sp__tls.top = &d->autocast.level;
}

void sp__use_ascend(const sp_descent *d)
{
    sp__below_leave(&d->was);
}

enum { ROOM = 8 };

static sp_status array_new(const sp_use_at *a, sp_tensor **room, sp_tensor ***out)
{
    size_t bytes = (size_t)a->n_in * sizeof **out;
    *out = room;
    if (a->n_in > ROOM && !(*out = sp__alloc_zero(bytes)))
        return sp_fail(SP_EMEMORY, "%s: no memory for its inputs", a->use->name);
    return SP_OK;
}

static void array_free(const sp_use_at *a, sp_tensor **room, sp_tensor **array)
{
    if (array != room) sp__free(array, (size_t)a->n_in * sizeof *array);
}

sp_status sp__use_wrap(sp_use_at *a, const sp_tensor *const *low_in, const sp_level *level, int j,
                       sp_tensor *const *tangents)
{
    sp_tensor *low = a->out[j];
    a->out[j] = NULL;
    sp_status status = SP_OK;
    for (int i = 0; i < a->n_in && !a->out[j]; i++)
        if (low == low_in[i]) a->out[j] = sp__retain(a->in[i]);
    if (!a->out[j]) status = sp__wrap_series(level, low, tangents, a->n_out, &a->out[j]);
    sp_drop(&low);
    return status;
}

static sp_status wrap_results(sp_use_at *a, const sp_tensor *const *low_in, const sp_level *level)
{
    sp_status status = SP_OK;
    for (int j = 0; j < a->n_out && status == SP_OK; j++)
        status = sp__use_wrap(a, low_in, level, j, NULL);
    return status;
}

sp_status sp__use_below(sp_use_at *a, const sp_level *level)
{
    sp_tensor *room[ROOM], **low_in;
    sp_descent d;
    sp_use_at low = *a;
    SP_RETURN_IF(array_new(a, room, &low_in));
    for (int i = 0; i < a->n_in; i++) low_in[i] = sp__below(a->in[i], level);
    low.in = (const sp_tensor *const *)low_in;
    sp__use_descend(level, &d);
    sp_status status = sp__use_at_top(&low);
    sp__use_ascend(&d);
    a->n_out = low.n_out;
    if (status == SP_OK) status = wrap_results(a, low.in, level);
    array_free(a, room, low_in);
    return status;
}

/* ---- forward itself ----- */

static sp_status check_results(const sp_use_at *a)
{
    if (a->n_out < 0 || a->n_out > a->max_out)
        return sp_fail(SP_EVALUE, "%s: forward says it returned %d tensors, there is room for %d",
                       a->use->name, a->n_out, a->max_out);
    for (int j = 0; j < a->n_out; j++)
        if (!a->out[j])
            return sp_fail(SP_EVALUE, "%s: forward returned NULL as result %d", a->use->name, j);
    return SP_OK;
}

sp_status sp__use_setup(const sp_use_at *a, sp_function_call *call)
{
    const sp_function *fn = &a->use->fn;
    if (!fn->setup) return SP_OK;
    return fn->setup(a->use->ctx, call, a->in, a->n_in, (const sp_tensor *const *)a->out, a->n_out);
}

static sp_status run_forward(sp_use_at *a, sp_function_call *call)
{
    const sp_function *fn = &a->use->fn;
    memset(a->out, 0, (size_t)a->max_out * sizeof *a->out);
    sp_status status = fn->forward(a->use->ctx, fn->setup ? NULL : call, a->in, a->n_in, a->out,
                                   a->max_out, &a->n_out);
    if (status == SP_OK) status = check_results(a);
    if (status == SP_OK) return SP_OK;
    for (int j = 0; j < a->max_out; j++) sp_drop(&a->out[j]);
    a->n_out = 0;
    return status;
}

/* ---- results that are not new ----- */

bool sp__use_has(const sp_use_at *a, const sp_tensor *t)
{
    for (int i = 0; i < a->n_in; i++)
        if (a->in[i] == t) return true;
    return false;
}

static bool is_result(const sp_tensor *const *out, int n, const sp_tensor *t)
{
    for (int j = 0; j < n; j++)
        if (out[j] == t) return true;
    return false;
}

/* A second handle, by an op, so that a tracer and the tape know what it is a view of. */
static sp_status alias(sp_tensor **t)
{
    int64_t dims[SP_MAX_RANK];
    sp_tensor *view = NULL;
    for (int i = 0; i < (*t)->rank; i++) dims[i] = i;
    SP_RETURN_IF(sp_permute(*t, dims, (*t)->rank, &view));
    sp_drop(t);
    *t = view;
    return SP_OK;
}

/* A result has a history of its own, so it must be a handle of its own: an input that was not
 * written, a tensor that has a history already and a second mention of one become views. */
static sp_status settle_results(const sp_use_at *a, const sp_function_call *call)
{
    const sp_tensor *const *out = (const sp_tensor *const *)a->out;
    for (int k = 0; k < call->n_kept; k++)
        if (call->kept[k].kind == SP_KEEP_DIRTY && !is_result(out, a->n_out, call->kept[k].t))
            return sp_fail(SP_EVALUE,
                           "%s: a tensor was marked dirty that is no result; forward must return "
                           "each input that it writes in place",
                           a->use->name);
    for (int j = 0; j < a->n_out; j++) {
        bool input = sp__use_has(a, out[j]),
             dirty = input && sp__function_keeps(call, SP_KEEP_DIRTY, out[j]);
        bool known = !input && sp_requires_grad(out[j]);
        if ((input && !dirty) || known || is_result(out, j, out[j]))
            SP_RETURN_IF(alias(&a->out[j]));
    }
    return SP_OK;
}

sp_status sp__use_here(sp_use_at *a, sp_function_call *call)
{
    SP_RETURN_IF(run_forward(a, call));
    SP_RETURN_IF(sp__use_setup(a, call));
    return settle_results(a, call);
}

/* Forward and setup at the level that is on top, recorded there. */
static sp_status record_here(sp_use_at *a, sp_level *level)
{
    sp_function_call *call;
    SP_RETURN_IF(sp__function_call_new(a->use, a->in, a->n_in, &call));
    bool no_grad = sp__tls.no_grad;
    sp__tls.no_grad = true;
    sp_status status = sp__use_here(a, call);
    sp__tls.no_grad = no_grad;
    if (status != SP_OK) {
        sp__function_call_free(call);
        return status;
    }
    return sp__function_record(call, level, a->in, a->n_in, a->out, a->n_out);
}

/* ---- grad ----- */

/* Whether another transform than vmap, which a function may be run inside of as it is, looks on. */
static bool is_active(const sp_tensor *t, bool inside_vmap)
{
    while (inside_vmap && t->wrap && t->wrap->kind == SP_LEVEL_VMAP) t = t->wrap->inner;
    return t->wrap || (!sp__tls.no_grad && sp_requires_grad(t));
}

sp_status sp__use_sole(const sp_use_at *a, const sp_level *level)
{
    sp_context was;
    bool active = false;
    sp__below_enter(level, &was);
    for (int i = 0; i < a->n_in; i++)
        active |= is_active(sp__below(a->in[i], level), a->use->fn.generate_vmap);
    sp__below_leave(&was);
    if (!active) return SP_OK;
    return sp_fail(SP_EUNSUPPORTED,
                   "%s: forward keeps what backward needs, for one transform, but several are "
                   "nested here, or one is and the input requires grad; define setup_context (in "
                   "C: setup) to do that apart from forward",
                   a->use->name);
}

static bool wants_node(const sp_use_at *a, const sp_level *level)
{
    for (int i = 0; i < a->n_in && !sp__tls.no_grad; i++)
        if (sp__wants_grad(a->in[i], level)) return true;
    return false;
}

static sp_status at_grad(sp_use_at *a, sp_level *level)
{
    sp_function_call *call;
    if (!a->use->fn.setup && owns(a, level)) {
        SP_RETURN_IF(sp__use_sole(a, level));
        return record_here(a, level);
    }
    SP_RETURN_IF(sp__use_below(a, level));
    if (!wants_node(a, level)) return SP_OK;
    SP_RETURN_IF(sp__function_call_new(a->use, a->in, a->n_in, &call));
    sp__tls.no_grad = true;
    sp_status status = sp__use_setup(a, call);
    sp__tls.no_grad = false;
    if (status == SP_OK) return sp__function_record(call, level, a->in, a->n_in, a->out, a->n_out);
    sp__function_call_free(call);
    return status;
}

/* ---- vmap ----- */

/* Result j below, with the mapped dimension at dim (-1: it is none), at the level. */
static sp_status map_result(sp_use_at *a, const sp_tensor *const *low_in, const sp_level *level,
                            int j, int dim)
{
    sp_tensor *moved = NULL;
    if (dim == -1) return SP_OK;
    if (dim < 0 || dim >= a->out[j]->rank || a->out[j]->shape[dim] != level->batch_size)
        return sp_fail(SP_EVALUE,
                       "%s: vmap says that dimension %d of result %d, of shape %s, counts the "
                       "%lld examples",
                       a->use->name, dim, j, SP_SHAPE(a->out[j]), (long long)level->batch_size);
    SP_RETURN_IF(sp__call_move_dim(a->out[j], dim, 0, &moved));
    sp_drop(&a->out[j]);
    a->out[j] = moved;
    return sp__use_wrap(a, low_in, level, j, NULL);
}

static sp_status run_rule(sp_use_at *a, const sp_use_at *low, const sp_level *level)
{
    static const char *const randomness[] = {"error", "different", "same"};
    const sp_function *fn = &a->use->fn;
    const sp_vmap_info info = {level->batch_size,
                               randomness[((const sp_vmap_level *)level)->randomness]};
    int out_dims[SP_FUNCTION_MAX_OUT], room[ROOM], *in_dims = room;
    size_t bytes = (size_t)a->n_in * sizeof *in_dims;
    if (a->n_in > ROOM && !(in_dims = sp__alloc(bytes)))
        return sp_fail(SP_EMEMORY, "%s: no memory for its inputs", a->use->name);
    for (int i = 0; i < a->n_in; i++) in_dims[i] = sp__of_level(a->in[i], level) ? 0 : -1;
    memset(a->out, 0, (size_t)a->max_out * sizeof *a->out);
    sp_status status = fn->vmap(a->use->ctx, &info, low->in, in_dims, a->n_in, a->out, out_dims,
                                a->max_out, &a->n_out);
    if (status == SP_OK) status = check_results(a);
    for (int j = 0; j < a->n_out && status == SP_OK; j++)
        status = map_result(a, low->in, level, j, out_dims[j]);
    if (in_dims != room) sp__free(in_dims, bytes);
    if (status == SP_OK) return SP_OK;
    for (int j = 0; j < a->max_out; j++) sp_drop(&a->out[j]);
    a->n_out = 0;
    return status;
}

static sp_status run_generated(sp_use_at *a, sp_use_at *low, const sp_level *level)
{
    bool room[2 * ROOM], *mapped = room;
    if (a->n_in > 2 * ROOM && !(mapped = sp__alloc((size_t)a->n_in)))
        return sp_fail(SP_EMEMORY, "%s: no memory for its inputs", a->use->name);
    for (int i = 0; i < a->n_in; i++) mapped[i] = sp__of_level(a->in[i], level);
    sp_status status = sp__function_batched(a->use, level, mapped, a->n_in, &low->use);
    if (mapped != room) sp__free(mapped, (size_t)a->n_in);
    SP_RETURN_IF(status);
    status = sp__use_at_top(low);
    sp__function_use_drop(low->use);
    a->n_out = low->n_out;
    return status == SP_OK ? wrap_results(a, low->in, level) : status;
}

static sp_status run_mapped(sp_use_at *a, sp_use_at *low, const sp_level *level)
{
    if (a->use->fn.vmap) return run_rule(a, low, level);
    if (a->use->fn.generate_vmap) return run_generated(a, low, level);
    return sp_fail(SP_EUNSUPPORTED,
                   "%s: vmap cannot look into it; define a vmap(info, in_dims, *args), or set "
                   "generate_vmap_rule = True if its other methods are made of ops",
                   a->use->name);
}

static sp_status at_vmap(sp_use_at *a, sp_level *level)
{
    sp_tensor *room[ROOM], **low_in;
    sp_descent d;
    sp_use_at low = *a;
    SP_RETURN_IF(array_new(a, room, &low_in));
    for (int i = 0; i < a->n_in; i++) low_in[i] = sp__below(a->in[i], level);
    low.in = (const sp_tensor *const *)low_in;
    bool mapped = owns(a, level);
    sp__use_descend(level, &d);
    sp_status status = mapped ? run_mapped(a, &low, level) : sp__use_at_top(&low);
    sp__use_ascend(&d);
    if (!mapped) a->n_out = low.n_out;
    array_free(a, room, low_in);
    return status;
}

/* ---- the way in ----- */

sp_status sp__use_at_top(sp_use_at *a)
{
    sp_level *level = sp__top_transform();
    sp_status status;
    if (!level)
        status = record_here(a, NULL);
    else if (level->kind == SP_LEVEL_GRAD)
        status = at_grad(a, level);
    else if (sp__is_forward(level))
        status = sp__use_forward(a, level);
    else
        status = at_vmap(a, level);
    if (status != SP_OK) drop_results(a);
    return status;
}

sp_status sp_function_apply(const sp_function *fn, void *ctx, const sp_tensor *const *in, int n_in,
                            sp_tensor **out, int max_out, int *n_out)
{
    sp_function_use *use;
    *n_out = 0;
    for (int j = 0; j < max_out; j++) out[j] = NULL;
    SP_RETURN_IF(sp__function_use_new(fn, ctx, &use));
    sp_use_at a = {.use = use, .in = in, .out = out, .n_in = n_in};
    a.max_out = max_out < SP_FUNCTION_MAX_OUT ? max_out : SP_FUNCTION_MAX_OUT;
    sp_status status = SP_OK;
    if (!use->fn.forward) SP_TRY(sp_fail(SP_EVALUE, "%s: has no forward", use->name));
    for (int i = 0; i < n_in; i++) {
        if (!in[i]) SP_TRY(sp_fail(SP_EVALUE, "%s: input %d is NULL", use->name, i));
        SP_TRY(sp__check_alive(in[i], use->name));
    }
    SP_TRY(sp__use_at_top(&a));
    *n_out = a.n_out;
out:
    sp__function_use_drop(use);
    return status;
}
