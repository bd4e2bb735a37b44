/* The way of a call, from the generated entry point to evaluation. See dispatch.h for the map.
 *
 * The common call (no level, no tracer, nothing requires grad) pays for one look at the thread's
 * state and one at each input's flags, and is on its way to sp__run().
 */
#include "ops/dispatch.h"

#include "ops/autocast.h"
#include "ops/launch_int.h"
#include "ops/write.h"
#include "tensor/memory.h"

__thread sp_tls sp__tls __attribute__((tls_model("initial-exec")));
sp_dispatch_hooks sp__dispatch_hooks;
sp_where_hooks sp__where_hooks;

static sp_status at_level(sp_tls *tls, sp_call *c)
{
    sp_level *level = tls->top;
    tls->top = level->below;
    sp_status status = level->dispatch(level, c);
    tls->top = level;
    return status;
}

static const char *transform_of(const sp_tensor *t)
{
    static const char *const names[] = {[SP_LEVEL_JVP] = "jvp",
                                        [SP_LEVEL_VMAP] = "vmap",
                                        [SP_LEVEL_GRAD] = "grad",
                                        [SP_LEVEL_JET] = "jet"};
    return t->wrap ? names[t->wrap->kind] : "a transform";
}

/* A tensor of a level reached the bottom: its transform is over, or it was smuggled out of it. */
static __attribute__((cold)) sp_status escaped(const sp_call *c)
{
    int i = 0;
    while (!c->in[i] || !c->in[i]->wrap) i++;
    return sp_fail(SP_EGRAD,
                   "%s: input %d was made inside %s, which has ended or is not active here; return "
                   "such tensors from the transformed function, or unpack_dual() them in the dual "
                   "level, instead of keeping them",
                   sp_op_table[c->op].name, i, transform_of(c->in[i]));
}

/* Whether a call writes a tensor that the tape knows: as a result with history, a base, a view,
 * or with hooks. */
static bool writes_known(const sp_call *c)
{
    for (int i = 0; i < c->n_out; i++)
        if (c->out[i] && (c->out[i]->flags & (SP_T_META | SP_T_REQUIRES_GRAD))) return true;
    return false;
}

/* Views are noted even where nothing requires grad yet: what is later written into one may. */
static sp_status note_view(sp_call *c)
{
    const sp_tensor *out = c->out[0], *base = c->n_in ? c->in[0] : NULL;
    if (!base || !sp__dtype_is_inexact(out->dtype) || out->storage != base->storage ||
        !out->storage)
        return SP_OK;
    sp_status status = sp__dispatch_hooks.view_made(c);
    if (SP_UNLIKELY(status != SP_OK)) sp_drop(&c->out[0]);
    return status;
}

/* ---- ops that are other ops ----- */

static bool wants_grad(const sp_call *c)
{
    for (int i = 0; i < c->n_in && !sp__tls.no_grad; i++)
        if (c->in[i] && c->in[i]->flags & SP_T_REQUIRES_GRAD) return true;
    return false;
}

static sp_status check_written(const sp_call *c, const sp_tensor *made)
{
    const char *name = sp_op_table[c->op].name;
    const sp_tensor *t = c->out[0];
    bool same = t->rank == made->rank;
    for (int i = 0; same && i < t->rank; i++) same = t->shape[i] == made->shape[i];
    if (!same)
        return sp_fail(SP_ESHAPE,
                       "%s: the result has shape %s, the tensor to hold it %s; they must be equal, "
                       "because tensors are not resized",
                       name, SP_SHAPE(made), SP_SHAPE(t));
    if (sp__dtype_kind(made->dtype) > sp__dtype_kind(t->dtype))
        return sp_fail(SP_EDTYPE,
                       "%s: the result is %s, which a tensor of %s cannot hold; cast one of them, "
                       "or write to a new tensor",
                       name, sp_dtype_name((sp_dtype)made->dtype),
                       sp_dtype_name((sp_dtype)t->dtype));
    return SP_OK;
}

/* The one half dtype that all floating inputs have, and that no argument overrides; else -1. */
static int half_of(const sp_call *c)
{
    const sp_op_info *info = &sp_op_table[c->op];
    int half = -1;
    for (int i = 0; i < c->n_in; i++) {
        if (!c->in[i] || !sp__dtype_is_floating(c->in[i]->dtype)) continue;
        if (sp__dtypes[c->in[i]->dtype].size != 2) return -1;
        if (half >= 0 && half != c->in[i]->dtype) return -1;
        half = c->in[i]->dtype;
    }
    for (int i = 0; i < info->n_attr; i++)
        if (info->attr_kinds[i] == SP_ATTR_DTYPE && !c->attr[i].absent) return -1;
    return half;
}

static sp_status round_results(sp_call *c, sp_dtype half)
{
    sp_status status = SP_OK;
    for (int i = 0; i < c->n_out; i++) {
        sp_tensor *exact = c->out[i];
        if (!exact || exact->dtype != SP_FLOAT32) continue;
        c->out[i] = NULL;
        if (status == SP_OK) status = sp_cast(exact, half, &c->out[i]);
        sp_drop(&exact);
    }
    return status;
}

/* Halves become float32 for a body of several steps, and its results halves. */
static __attribute__((noinline)) sp_status body_rounding_once(sp_call *c, sp_dtype half)
{
    enum { MOST = 8 }; /* as tools/optable/table.py checks */
    sp_tensor *in[MOST] = {NULL};
    sp_call wide = *c;
    sp_status status = SP_OK;
    for (int i = 0; i < c->n_in; i++) {
        if (c->in[i] && c->in[i]->dtype == half)
            SP_TRY(sp_cast(c->in[i], SP_FLOAT32, &in[i]));
        else if (c->in[i])
            in[i] = sp__retain(c->in[i]);
    }
    wide.in = in;
    SP_TRY(sp__body(&wide));
    SP_TRY(round_results(&wide, half));
    memcpy(c->out, wide.out, sizeof wide.out);
out:
    if (status != SP_OK)
        for (int i = 0; i < c->n_out; i++) sp_drop(&wide.out[i]);
    for (int i = 0; i < c->n_in; i++) sp_drop(&in[i]);
    return status;
}

static sp_status body_of(sp_call *c)
{
    const sp_op_info *info = &sp_op_table[c->op];
    int half = info->flags & SP_OPF_ROUNDS_ONCE ? half_of(c) : -1;
    return half >= 0 ? body_rounding_once(c, (sp_dtype)half) : sp__body(c);
}

static sp_status made_by_body(sp_call *c, sp_call *fresh)
{
    fresh->flags = 0;
    fresh->out[0] = NULL;
    SP_RETURN_IF(body_of(fresh));
    sp_status status = check_written(c, fresh->out[0]);
    if (status == SP_OK) status = sp_copy_(c->out[0], fresh->out[0]);
    sp_drop(&fresh->out[0]);
    return status;
}

/* The written tensor stands for what it was before: the body's ops may save that. */
static sp_status write_recorded(sp_call *c, sp_call *fresh)
{
    enum { MOST = 32 }; /* as tools/optable/table.py checks; lists are not written */
    sp_tensor *in[MOST], *before = NULL;
    SP_RETURN_IF(sp_clone(c->in[0], &before));
    for (int i = 0; i < c->n_in; i++) in[i] = c->in[i] == c->in[0] ? before : c->in[i];
    fresh->in = in;
    sp_status status = made_by_body(c, fresh);
    sp_drop(&before);
    return status;
}

/* Into a tensor that is there: what the body makes, copied. */
static __attribute__((noinline)) sp_status write_body(sp_call *c)
{
    sp_call fresh = *c;
    if (c->flags & SP_CALL_INPLACE) c->out[0] = c->in[0];
    if (!wants_grad(c)) return made_by_body(c, &fresh);
    if (c->flags & SP_CALL_OUT)
        return sp_fail(SP_EGRAD,
                       "%s: out= cannot be differentiated, but an argument requires grad; leave "
                       "out= away, or call it under no_grad()",
                       sp_op_table[c->op].name);
    return write_recorded(c, &fresh);
}

sp_status sp__dispatch(sp_call *c)
{
    sp_tls *tls = &sp__tls;
    if (SP_UNLIKELY(sp_op_table[c->op].flags & SP_OPF_BODY)) {
        if (SP_UNLIKELY(tls->top != NULL) && sp__autocast_takes(c->op)) return at_level(tls, c);
        return c->flags ? write_body(c) : body_of(c);
    }
    if (SP_UNLIKELY(tls->top != NULL)) return at_level(tls, c);
    unsigned seen = 0;
    for (int i = 0; i < c->n_in; i++)
        if (c->in[i]) seen |= c->in[i]->flags;
    if (SP_UNLIKELY(seen & SP_T_WRAPPED)) return escaped(c);
    if (!tls->no_grad && sp__dispatch_hooks.record) {
        if (SP_UNLIKELY((seen & SP_T_REQUIRES_GRAD) || (c->flags && writes_known(c))))
            return sp__dispatch_hooks.record(c);
    }
    SP_RETURN_IF(sp__eval(c));
    if (SP_UNLIKELY(sp_op_table[c->op].flags & (SP_OPF_VIEW | SP_OPF_MAY_VIEW)) && !c->flags &&
        sp__dispatch_hooks.view_made)
        return note_view(c);
    return SP_OK;
}

sp_status sp__eval(sp_call *c)
{
    sp_tracer *tracer = sp__tls.tracer;
    return SP_UNLIKELY(tracer != NULL) ? tracer->eval(tracer, c) : sp__run(c);
}

sp_status sp__value_ready(const sp_tensor *t, const char *op)
{
    sp_storage *s = t->storage;
    if (SP_UNLIKELY(!s))
        return sp_fail(
            SP_EUNSUPPORTED,
            "%s: inside %s a tensor of shape %s has no value of its own; return it from "
            "the transformed function and read it there, or choose by where() rather than "
            "by if",
            op, transform_of(t), SP_SHAPE(t));
    if (SP_UNLIKELY(s->region != NULL) && sp__handle_hooks.region_flush)
        SP_RETURN_IF(sp__handle_hooks.region_flush(s->region, s));
    return sp__storage_wait(s, false);
}

void sp__wrap_free(sp_wrap *wrap)
{
    sp_drop(&wrap->inner);
    for (int k = 0; k < wrap->order; k++) sp_drop(&wrap->tangent[k]);
    sp__free(wrap, sp__wrap_bytes(wrap->order));
}

/* A constructor, so that the hooks are there in every program that this file is linked into:
 * without it nothing could have put work into a queue, nor a wrap into a handle. */
static __attribute__((constructor)) void register_ops(void)
{
    sp__handle_hooks.wrap_free = sp__wrap_free;
    sp__handle_hooks.write_drop = sp__write_drop;
    sp__handle_hooks.value_ready = sp__value_ready;
}
