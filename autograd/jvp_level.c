/* Forward mode: every tensor of the level is a value with a tangent, both one level down.
 *
 * The tangent of a result comes from the op's own formula (tape.h), else from its vjp
 * differentiated once more: the vjp is linear in gy, so its derivative with respect to gy, along
 * the tangents, is the jvp. Composites without either run their body at this level.
 *
 * Writing in place replaces the tangent of the written tensor. A view follows its base as on the
 * tape: it notes base and steps, and takes its tangent from the base's when that has changed since.
 */
#include <string.h>

#include "autograd/calls.h"
#include "autograd/levels_int.h"

/* ---- tangents of views; all of this runs with the level off the stack ----- */

static void set_tangent(sp_tensor *t, sp_tensor *tangent)
{
    sp_tensor *old = t->wrap->tangent;
    t->wrap->tangent = tangent;
    sp_drop(&old);
}

static sp_status tangent_again(sp_grad_meta *meta)
{
    const sp_tensor *from = meta->base->wrap->tangent;
    sp_tensor *fit = NULL, *view = NULL;
    sp_status status = SP_OK;
    if (from) {
        SP_TRY(sp__steps_operand(meta->steps, from, &fit));
        SP_TRY(sp__steps_view(meta->steps, fit, &view));
    }
    set_tangent(meta->self, view);
    meta->seen = meta->base->grad_meta->rebased;
out:
    sp_drop(&fit);
    return status;
}

/* t's tangent, borrowed; NULL: zero. */
static sp_status tangent_of(const sp_tensor *t, const sp_level *level, sp_tensor **out)
{
    *out = NULL;
    if (!sp__of_level(t, level)) return SP_OK;
    sp_grad_meta *meta = t->grad_meta;
    if (meta && meta->base && meta->seen != meta->base->grad_meta->rebased)
        SP_RETURN_IF(tangent_again(meta));
    *out = t->wrap->tangent;
    return SP_OK;
}

/* base's tangent with the part that a view shows replaced. */
static sp_status base_written(const sp_grad_meta *view, const sp_tensor *tangent)
{
    sp_tensor *base = view->base, *fit = NULL, *whole = NULL;
    sp_status status = SP_OK;
    if (!base->wrap->tangent && !tangent) return SP_OK;
    if (base->wrap->tangent)
        SP_TRY(sp__steps_operand(view->steps, base->wrap->tangent, &fit));
    else
        SP_TRY(sp__call_full_like(base->wrap->inner, 0, &fit));
    SP_TRY(sp__steps_replace(view->steps, fit, tangent, &whole));
    set_tangent(base, whole);
    base->grad_meta->rebased++;
out:
    sp_drop(&fit);
    return status;
}

/* x was written and has a new tangent: so does what it is a view of, and, at their next look, the
 * other views. */
static sp_status written(sp_tensor *x, const sp_tensor *tangent)
{
    sp_grad_meta *meta = x->grad_meta;
    if (meta && meta->base) {
        SP_RETURN_IF(base_written(meta, tangent));
        meta->seen = meta->base->grad_meta->rebased;
    } else if (meta) {
        meta->rebased++;
    }
    set_tangent(x, tangent ? sp__retain(tangent) : NULL);
    return SP_OK;
}

/* ---- tangents of results ----- */

typedef struct forward { /* one call, seen from one level down */
    const sp_call *c;
    sp_level *level;
    sp_tensor **in; /* values; in place: in[] that are the written tensor are its old value */
    sp_tensor **t;  /* tangents, NULL: zero; borrowed */
    sp_tensor *out[SP_MAX_OUT];
    sp_tensor *ty[SP_MAX_OUT]; /* owned */
    sp_tensor *old;            /* owned: the written tensor's value before */
    uint64_t moving;           /* inputs with a tangent that the op's derivative knows of */
} forward;

/* Wrappers of zeros at `level`, which stand for gy. */
static sp_status linear_point(const forward *f, sp_level *level, sp_tensor **gy)
{
    for (int j = 0; j < f->c->n_out; j++) {
        if (!sp__is_float(f->out[j]->dtype)) continue;
        sp_tensor *zeros = NULL;
        sp_context was;
        sp__below_enter(level, &was);
        sp_status status = sp__call_full_like(f->out[j], 0, &zeros);
        sp__below_leave(&was);
        if (status == SP_OK) status = sp__grad_wrap(level, zeros, true, &gy[j]);
        sp_drop(&zeros);
        SP_RETURN_IF(status);
    }
    return SP_OK;
}

/* d (sum of gx * t) / d gy */
static sp_status differentiate_vjp(forward *f, const sp_level *level, sp_tensor *const *gx,
                                   sp_tensor *const *gy)
{
    const sp_tensor *ends[SP_MAX_RANK], *along[SP_MAX_RANK];
    int n = 0;
    for (int i = 0; i < f->c->n_in; i++) {
        if (!gx[i] || !sp__wants_grad(gx[i], level)) continue;
        if (n == SP_MAX_RANK)
            return sp_fail(SP_EUNSUPPORTED, "%s: jvp of more than %d inputs",
                           sp_op_table[f->c->op].name, SP_MAX_RANK);
        ends[n] = gx[i];
        along[n++] = f->t[i];
    }
    for (int j = 0; j < f->c->n_out && n; j++) {
        if (!gy[j]) continue;
        const sp_tensor *with = gy[j];
        sp_tensor *tangent = NULL;
        sp_grad_opt opt = {.size = sizeof opt,
                           .grad_outputs = along,
                           .retain_graph = true,
                           .materialize_grads = true};
        SP_RETURN_IF(sp_grad(ends, n, &with, 1, &opt, &tangent));
        f->ty[j] = sp__retain(sp__below(tangent, level));
        sp_drop(&tangent);
    }
    return SP_OK;
}

static sp_status tangents_by_vjp(forward *f)
{
    const sp_call *c = f->c;
    size_t meta_bytes = (size_t)(c->n_in + c->n_out) * sizeof(sp_meta),
           gx_bytes = (size_t)c->n_in * sizeof(sp_tensor *);
    sp_meta *meta = sp__alloc_zero(meta_bytes);
    sp_tensor *gy[SP_MAX_OUT] = {NULL}, **gx = sp__alloc_zero(gx_bytes);
    sp_level *level = NULL;
    sp_status status = SP_OK;
    if (!meta || !gx)
        SP_TRY(sp_fail(SP_EMEMORY, "%s: no memory for its jvp", sp_op_table[c->op].name));
    for (int i = 0; i < c->n_in; i++)
        if (f->in[i]) sp__meta_of(f->in[i], &meta[i]);
    for (int j = 0; j < c->n_out; j++) sp__meta_of(f->out[j], &meta[c->n_in + j]);

    SP_TRY(sp__level_push(SP_LEVEL_GRAD, &level));
    SP_TRY(linear_point(f, level, gy));
    sp_vjp_args args = {.in = f->in,
                        .out = f->out,
                        .in_meta = meta,
                        .out_meta = meta + c->n_in,
                        .attr = c->attr,
                        .gy = gy,
                        .n_in = c->n_in,
                        .need = f->moving,
                        .gx = gx};
    SP_TRY(sp__vjp(c->op, &args));
    SP_TRY(differentiate_vjp(f, level, gx, gy));
out:
    for (int i = 0; gx && i < c->n_in; i++) sp_drop(&gx[i]);
    for (int j = 0; j < c->n_out; j++) sp_drop(&gy[j]);
    if (level) sp__level_pop(level);
    if (meta) sp__free(meta, meta_bytes);
    if (gx) sp__free(gx, gx_bytes);
    return status;
}

/* A tangent has the value's dtype and shape, whatever the formula's promotion and broadcasting made
 * of it. */
static sp_status tangent_fit(const sp_tensor *y, sp_tensor **tangent)
{
    if (!*tangent) return SP_OK;
    sp_tensor *fit = NULL;
    if (!sp__is_float(y->dtype)) {
        sp_drop(tangent);
        return SP_OK;
    }
    if ((*tangent)->dtype != y->dtype) {
        SP_RETURN_IF(sp_cast(*tangent, (sp_dtype)y->dtype, &fit));
        sp_drop(tangent);
        *tangent = fit;
    }
    bool same = (*tangent)->rank == y->rank;
    for (int i = 0; same && i < y->rank; i++) same = (*tangent)->shape[i] == y->shape[i];
    if (same) return SP_OK;
    SP_RETURN_IF(sp_expand(*tangent, y->shape, y->rank, &fit));
    sp_drop(tangent);
    *tangent = fit;
    return SP_OK;
}

static sp_status tangents(forward *f)
{
    const sp_rule *rule = &sp__rules[f->c->op];
    if (rule->jvp) {
        sp_jvp_args args = {.in = f->in,
                            .out = f->out,
                            .attr = f->c->attr,
                            .t = f->t,
                            .n_in = f->c->n_in,
                            .ty = f->ty};
        SP_RETURN_IF(rule->jvp(&args));
    } else {
        SP_RETURN_IF(tangents_by_vjp(f));
    }
    for (int j = 0; j < f->c->n_out; j++) SP_RETURN_IF(tangent_fit(f->out[j], &f->ty[j]));
    return SP_OK;
}

/* ---- calls ----- */

static const char *op_name(const sp_call *c)
{
    return sp_op_table[c->op].name;
}

static sp_status check_write(const forward *f)
{
    const sp_call *c = f->c;
    if (c->flags & SP_CALL_OUT)
        return sp_fail(SP_EGRAD, "%s: out= cannot be differentiated; leave it away inside jvp",
                       op_name(c));
    const sp_tensor *x = c->in[0];
    if (!sp__of_level(x, f->level) || (x->grad_meta && x->grad_meta->foreign))
        return sp_fail(SP_EGRAD,
                       "%s (in place): a tensor from outside of jvp() is written with one that has "
                       "a tangent, which would "
                       "lose the derivative; write to a clone() made inside",
                       op_name(c));
    return SP_OK;
}

/* Values and tangents of c's inputs, one level down. */
static sp_status gather(forward *f)
{
    const sp_call *c = f->c;
    for (int i = 0; i < c->n_in; i++) {
        f->in[i] = sp__below(c->in[i], f->level);
        SP_RETURN_IF(tangent_of(c->in[i], f->level, &f->t[i]));
        bool knows = sp_op_table[c->op].n_in < 0 || (sp_op_table[c->op].diff_mask >> i & 1);
        if (f->t[i] && knows)
            f->moving |= sp__in_bit(i);
        else
            f->t[i] = NULL;
    }
    return SP_OK;
}

/* The call itself and the tangents of its results, with the level off the stack. */
static sp_status run_forward(forward *f)
{
    const sp_call *c = f->c;
    sp_call low = *c;
    low.in = f->in;
    bool write = c->flags & SP_CALL_INPLACE;
    if (write) {
        SP_RETURN_IF(sp_clone(f->in[0], &f->old));
        low.out[0] = f->in[0];
    }
    SP_RETURN_IF(sp__dispatch(&low));
    for (int j = 0; j < c->n_out; j++) f->out[j] = low.out[j];
    for (int i = c->n_in - 1; write && i >= 0; i--)
        if (f->in[i] == f->in[0]) f->in[i] = f->old;
    SP_RETURN_IF(tangents(f));
    return write ? written(c->in[0], f->ty[0]) : SP_OK;
}

static bool gave_input_back(const forward *f, sp_call *c)
{
    for (int i = 0; i < c->n_in; i++) {
        if (f->in[i] != f->out[0]) continue;
        c->out[0] = sp__retain(c->in[i]);
        return true;
    }
    return false;
}

static sp_status wrap_results(const forward *f, sp_call *c)
{
    if (c->flags & SP_CALL_INPLACE || gave_input_back(f, c)) return SP_OK;
    sp_status status = SP_OK;
    for (int j = 0; j < c->n_out; j++) c->out[j] = NULL;
    for (int j = 0; j < c->n_out; j++)
        SP_TRY(sp__wrap_new(f->level, f->out[j], f->ty[j], &c->out[j]));
    return SP_OK;
out:
    sp__outs_drop(c);
    return status;
}

static void forward_end(forward *f)
{
    for (int j = 0; j < f->c->n_out; j++) {
        if (!(f->c->flags & SP_CALL_INPLACE)) sp_drop(&f->out[j]);
        sp_drop(&f->ty[j]);
    }
    sp_drop(&f->old);
}

/* Nothing moves: a plain call. A written tensor loses the tangent it had. */
static sp_status run_still(forward *f, sp_call *c)
{
    SP_RETURN_IF(sp__level_run_below(f->level, c));
    if (!(c->flags & SP_CALL_INPLACE) || !sp__of_level(c->in[0], f->level)) return SP_OK;
    sp_context was;
    sp__below_enter(f->level, &was);
    sp_status status = written(c->in[0], NULL);
    sp__below_leave(&was);
    return status;
}

static sp_status run_moving(forward *f, sp_call *c)
{
    if (c->flags) SP_RETURN_IF(check_write(f));
    sp_context was;
    sp__below_enter(f->level, &was);
    sp_status status = run_forward(f);
    sp__below_leave(&was);
    return status == SP_OK ? wrap_results(f, c) : status;
}

static sp_status call_with(forward *f, sp_call *c)
{
    sp_context was;
    sp__below_enter(f->level, &was);
    sp_status status = gather(f);
    sp__below_leave(&was);
    SP_RETURN_IF(status);
    const sp_rule *rule = &sp__rules[c->op];
    if (f->moving && !rule->jvp && !rule->vjp) {
        if (sp_op_table[c->op].body) return sp__body(c);
        return sp_fail(SP_EGRAD, "%s: has no derivative; detach() its inputs first", op_name(c));
    }
    SP_RETURN_IF(f->moving ? run_moving(f, c) : run_still(f, c));
    if (!(sp_op_table[c->op].flags & (SP_OPF_VIEW | SP_OPF_MAY_VIEW))) return SP_OK;
    status = sp__view_note(c, f->level);
    if (status != SP_OK) sp__outs_drop(c);
    return status;
}

sp_status sp__jvp_dispatch(sp_level *self, sp_call *c)
{
    enum { ROOM = 16 };
    sp__tls.top = self;
    SP_RETURN_IF(sp__level_check(self, c));
    if (c->flags & SP_CALL_INPLACE) c->out[0] = c->in[0];
    sp_tensor *room[ROOM], **arrays = room;
    size_t bytes = 2 * (size_t)c->n_in * sizeof *arrays;
    if (2 * c->n_in > ROOM && !(arrays = sp__alloc(bytes)))
        return sp_fail(SP_EMEMORY, "%s: no memory for its inputs inside jvp", op_name(c));
    forward f = {.c = c, .level = self, .in = arrays, .t = arrays + c->n_in};
    sp_status status = call_with(&f, c);
    forward_end(&f);
    if (arrays != room) sp__free(arrays, bytes);
    return status;
}

/* ---- duals ----- */

sp_status sp__dual(sp_level *level, const sp_tensor *x, const sp_tensor *tangent, sp_tensor **out)
{
    SP_RETURN_IF(sp__check_alive(x, "jvp"));
    SP_RETURN_IF(sp__check_alive(tangent, "jvp"));
    bool same = !tangent || (tangent->rank == x->rank && tangent->dtype == x->dtype);
    for (int i = 0; tangent && same && i < x->rank; i++) same = tangent->shape[i] == x->shape[i];
    if (!same)
        return sp_fail(
            SP_ESHAPE,
            "jvp: a tangent of shape %s and dtype %s for a value of shape %s and dtype %s",
            SP_SHAPE(tangent), sp_dtype_name(tangent->dtype), SP_SHAPE(x), sp_dtype_name(x->dtype));
    if (tangent && !sp__is_float(x->dtype))
        return sp_fail(SP_EDTYPE, "jvp: only floating tensors have tangents, this one is %s",
                       sp_dtype_name(x->dtype));
    return sp__wrap_new(level, x, tangent, out);
}

sp_status sp__dual_parts(sp_level *level, const sp_tensor *t, sp_tensor **value,
                         sp_tensor **tangent)
{
    *value = *tangent = NULL;
    SP_RETURN_IF(sp__check_alive(t, "jvp"));
    sp_tensor *found;
    sp_context was;
    sp__below_enter(level, &was);
    sp_status status = tangent_of(t, level, &found);
    sp__below_leave(&was);
    SP_RETURN_IF(status);
    if (found) *tangent = sp__retain(found);
    *value = sp__retain(sp__below(t, level));
    return SP_OK;
}

sp_status sp__undual(sp_level *level, const sp_tensor *t, sp_tensor **value, sp_tensor **tangent)
{
    SP_RETURN_IF(sp__dual_parts(level, t, value, tangent));
    if (*tangent) return SP_OK;
    sp_context was;
    sp__below_enter(level, &was);
    sp_status status = sp__call_full_like(*value, 0, tangent);
    sp__below_leave(&was);
    if (status != SP_OK) sp_drop(value);
    return status;
}
