/* Forward mode: every tensor of the level is a value with its tangent (jvp) or with the Taylor
 * coefficients of a curve (jet), all one level down.
 *
 * Results are a plain call below and the tangents of tangents.c, or the series of jet_level.c.
 * Composites without formulas run their body at this level.
 *
 * Writing in place replaces the tangents of the written tensor. A view follows its base as on the
 * tape: it notes base and steps, and takes its tangents from the base's when those have changed
 * since.
 */
#include "autograd/forward_int.h"

#include "autograd/calls.h"

/* ---- tangents of views; all of this runs with the level off the stack ----- */

/* t's coefficients become these, which are taken over. */
static void set_tangents(const sp_tensor *t, sp_tensor **with)
{
    for (int k = 0; k < t->wrap->order; k++) {
        sp_tensor *old = t->wrap->tangent[k];
        t->wrap->tangent[k] = with[k];
        with[k] = NULL;
        sp_drop(&old);
    }
}

static void drop_all(sp_tensor **t, int n)
{
    for (int i = 0; i < n; i++) sp_drop(&t[i]);
}

static sp_status view_tangent(const sp_step *steps, const sp_tensor *from, sp_tensor **out)
{
    sp_tensor *fit = NULL;
    sp_status status = SP_OK;
    if (!from) return SP_OK;
    SP_TRY(sp__steps_operand(steps, from, &fit));
    SP_TRY(sp__steps_view(steps, fit, out));
out:
    sp_drop(&fit);
    return status;
}

static sp_status tangents_again(const sp_grad_meta *meta)
{
    const sp_wrap *from = meta->base->wrap;
    sp_tensor *view[SP_JET_MAX] = {NULL};
    sp_status status = SP_OK;
    if (meta->by_function) return sp__view_is_final("jvp");
    for (int k = 0; k < from->order; k++)
        SP_TRY(view_tangent(meta->steps, from->tangent[k], &view[k]));
    set_tangents(meta->self, view);
out:
    drop_all(view, from->order);
    return status;
}

sp_status sp__tangents_of(const sp_tensor *t, const sp_level *level, const sp_wrap **out)
{
    *out = NULL;
    if (!sp__of_level(t, level)) return SP_OK;
    sp_grad_meta *meta = t->grad_meta;
    if (meta && meta->base && meta->seen != meta->base->grad_meta->rebased) {
        SP_RETURN_IF(tangents_again(meta));
        meta->seen = meta->base->grad_meta->rebased;
    }
    *out = t->wrap;
    return SP_OK;
}

/* One of base's coefficients with the part that a view shows replaced. */
static sp_status whole_tangent(const sp_grad_meta *view, const sp_tensor *before,
                               const sp_tensor *part, sp_tensor **out)
{
    sp_tensor *fit = NULL;
    sp_status status = SP_OK;
    if (!before && !part) return SP_OK;
    if (before)
        SP_TRY(sp__steps_operand(view->steps, before, &fit));
    else
        SP_TRY(sp__call_full_like(view->base->wrap->inner, 0, &fit));
    SP_TRY(sp__steps_replace(view->steps, fit, part, out));
out:
    sp_drop(&fit);
    return status;
}

static sp_status base_written(const sp_grad_meta *view, sp_tensor *const *tangents)
{
    sp_tensor *whole[SP_JET_MAX] = {NULL};
    const sp_wrap *base = view->base->wrap;
    sp_status status = SP_OK;
    for (int k = 0; k < base->order; k++)
        SP_TRY(whole_tangent(view, base->tangent[k], tangents[k], &whole[k]));
    set_tangents(view->base, whole);
    view->base->grad_meta->rebased++;
out:
    drop_all(whole, base->order);
    return status;
}

sp_status sp__tangents_written(const sp_tensor *x, sp_tensor *const *tangents, int order)
{
    sp_grad_meta *meta = x->grad_meta;
    sp_tensor *now[SP_JET_MAX] = {NULL};
    for (int k = 0; k < order; k++) now[k] = tangents[k];
    if (meta && meta->base) {
        SP_RETURN_IF(base_written(meta, now));
        meta->seen = meta->base->grad_meta->rebased;
    } else if (meta) {
        meta->rebased++;
    }
    for (int k = 0; k < order; k++)
        if (now[k]) sp__retain(now[k]);
    set_tangents(x, now);
    return SP_OK;
}

/* ---- calls ----- */

static const char *op_name(const sp_call *c)
{
    return sp_op_table[c->op].name;
}

static const char *name_of(const sp_forward *f)
{
    return f->level->kind == SP_LEVEL_JET ? "jet" : "jvp";
}

static sp_status check_write(const sp_forward *f)
{
    const sp_call *c = f->c;
    if (c->flags & SP_CALL_OUT)
        return sp_fail(SP_EGRAD, "%s: out= cannot be differentiated; leave it away inside %s",
                       op_name(c), name_of(f));
    const sp_tensor *x = c->in[0];
    if (x->grad_meta && x->grad_meta->by_function) return sp__view_is_final(op_name(c));
    if (!sp__of_level(x, f->level) || (x->grad_meta && x->grad_meta->foreign))
        return sp_fail(SP_EGRAD,
                       "%s (in place): a tensor from outside of %s() is written with one that has "
                       "a tangent, which would "
                       "lose the derivative; write to a clone() made inside",
                       op_name(c), name_of(f));
    return SP_OK;
}

/* Values and tangents of c's inputs, one level down. A wrapper may carry more coefficients than are
 * asked for now. */
static sp_status gather(sp_forward *f)
{
    const sp_call *c = f->c;
    for (int i = 0; i < c->n_in; i++) {
        const sp_wrap *wrap;
        f->in[i] = sp__below(c->in[i], f->level);
        SP_RETURN_IF(sp__tangents_of(c->in[i], f->level, &wrap));
        bool knows = sp_op_table[c->op].n_in < 0 || (sp_op_table[c->op].diff_mask >> i & 1);
        for (int k = 0; k < f->order; k++) {
            sp_tensor *t = wrap && knows ? wrap->tangent[k] : NULL;
            f->t[k * c->n_in + i] = t;
            if (t) f->moving |= sp__in_bit(i);
        }
    }
    return SP_OK;
}

/* The call itself and the tangents of its results, with the level off the stack. */
static sp_status run_forward(sp_forward *f)
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
    if (f->level->kind == SP_LEVEL_JET)
        SP_RETURN_IF(sp__jet_series(f));
    else
        SP_RETURN_IF(sp__tangents(c, f->in, f->out, f->t, f->ty));
    return write ? sp__tangents_written(c->in[0], f->ty, f->order) : SP_OK;
}

static bool gave_input_back(const sp_forward *f, sp_call *c)
{
    for (int i = 0; i < c->n_in; i++) {
        if (f->in[i] != f->out[0]) continue;
        c->out[0] = sp__retain(c->in[i]);
        return true;
    }
    return false;
}

static sp_status wrap_results(const sp_forward *f, sp_call *c)
{
    if (c->flags & SP_CALL_INPLACE || gave_input_back(f, c)) return SP_OK;
    sp_status status = SP_OK;
    for (int j = 0; j < c->n_out; j++) c->out[j] = NULL;
    for (int j = 0; j < c->n_out; j++)
        SP_TRY(sp__wrap_series(f->level, f->out[j], &f->ty[j], c->n_out, &c->out[j]));
    return SP_OK;
out:
    sp__outs_drop(c);
    return status;
}

static void forward_end(sp_forward *f)
{
    if (!(f->c->flags & SP_CALL_INPLACE)) drop_all(f->out, f->c->n_out);
    drop_all(f->ty, f->order * f->c->n_out);
    sp_drop(&f->old);
}

/* Nothing moves: a plain call. A written tensor loses the tangent it had. */
static sp_status run_still(sp_forward *f, sp_call *c)
{
    SP_RETURN_IF(sp__level_run_below(f->level, c));
    if (!(c->flags & SP_CALL_INPLACE) || !sp__of_level(c->in[0], f->level)) return SP_OK;
    sp_context was;
    sp__below_enter(f->level, &was);
    sp_status status = sp__tangents_written(c->in[0], NULL, 0);
    sp__below_leave(&was);
    return status;
}

static sp_status run_moving(sp_forward *f, sp_call *c)
{
    if (c->flags) SP_RETURN_IF(check_write(f));
    sp_context was;
    sp__below_enter(f->level, &was);
    sp_status status = run_forward(f);
    sp__below_leave(&was);
    return status == SP_OK ? wrap_results(f, c) : status;
}

static sp_status call_with(sp_forward *f, sp_call *c)
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

sp_status sp__forward_dispatch(sp_level *self, sp_call *c)
{
    enum { ROOM = 32 };
    sp__tls.top = self;
    SP_RETURN_IF(sp__level_check(self, c));
    if (c->flags & SP_CALL_INPLACE) c->out[0] = c->in[0];
    int order = sp__level_order(self), n_t = order * c->n_in, n_ty = order * c->n_out;
    sp_tensor *room[ROOM], **arrays = room;
    size_t n = (size_t)(c->n_in + n_t + n_ty), bytes = n * sizeof *arrays;
    if (n > ROOM && !(arrays = sp__alloc(bytes)))
        return sp_fail(SP_EMEMORY, "%s: no memory for its inputs inside a transform", op_name(c));
    sp_forward f = {.c = c,
                    .level = self,
                    .order = order,
                    .in = arrays,
                    .t = arrays + c->n_in,
                    .ty = arrays + c->n_in + n_t};
    for (int k = 0; k < n_ty; k++) f.ty[k] = NULL;
    sp_status status = call_with(&f, c);
    forward_end(&f);
    if (arrays != room) sp__free(arrays, bytes);
    return status;
}

/* ---- duals and series ----- */

static sp_status check_tangent(const char *name, const sp_tensor *x, const sp_tensor *tangent)
{
    SP_RETURN_IF(sp__check_alive(tangent, name));
    bool same = !tangent || (tangent->rank == x->rank && tangent->dtype == x->dtype);
    for (int i = 0; tangent && same && i < x->rank; i++) same = tangent->shape[i] == x->shape[i];
    if (!same)
        return sp_fail(
            SP_ESHAPE,
            "%s: a tangent of shape %s and dtype %s for a value of shape %s and dtype %s", name,
            SP_SHAPE(tangent), sp_dtype_name(tangent->dtype), SP_SHAPE(x), sp_dtype_name(x->dtype));
    if (tangent && !sp__is_float(x->dtype))
        return sp_fail(SP_EDTYPE, "%s: only floating tensors have tangents, this one is %s", name,
                       sp_dtype_name(x->dtype));
    return SP_OK;
}

sp_status sp__dual(sp_level *level, const sp_tensor *x, const sp_tensor *tangent, sp_tensor **out)
{
    SP_RETURN_IF(sp__check_alive(x, "jvp"));
    SP_RETURN_IF(check_tangent("jvp", x, tangent));
    return sp__wrap_new(level, x, tangent, out);
}

sp_status sp__series(sp_level *level, const sp_tensor *x, const sp_tensor *const *series,
                     sp_tensor **out)
{
    SP_RETURN_IF(sp__check_alive(x, "jet"));
    for (int k = 0; k < sp__level_order(level); k++)
        SP_RETURN_IF(check_tangent("jet", x, series[k]));
    return sp__wrap_series(level, x, (sp_tensor *const *)series, 1, out);
}

/* The coefficients of t, from below. */
static sp_status take_down(const sp_level *level, const sp_tensor *t, bool zeros,
                           sp_tensor **series)
{
    const sp_wrap *wrap;
    SP_RETURN_IF(sp__tangents_of(t, level, &wrap));
    for (int k = 0; k < sp__level_order(level); k++) {
        if (wrap && wrap->tangent[k])
            series[k] = sp__retain(wrap->tangent[k]);
        else if (zeros)
            SP_RETURN_IF(sp__call_full_like(sp__below(t, level), 0, &series[k]));
    }
    return SP_OK;
}

static sp_status parts(sp_level *level, const sp_tensor *t, bool zeros, sp_tensor **value,
                       sp_tensor **series)
{
    int order = sp__level_order(level);
    *value = NULL;
    for (int k = 0; k < order; k++) series[k] = NULL;
    SP_RETURN_IF(sp__check_alive(t, level->kind == SP_LEVEL_JET ? "jet" : "jvp"));
    sp_context was;
    sp__below_enter(level, &was);
    sp_status status = take_down(level, t, zeros, series);
    sp__below_leave(&was);
    if (status == SP_OK)
        *value = sp__retain(sp__below(t, level));
    else
        drop_all(series, order);
    return status;
}

sp_status sp__unseries(sp_level *level, const sp_tensor *t, sp_tensor **value, sp_tensor **series)
{
    return parts(level, t, true, value, series);
}

sp_status sp__dual_parts(sp_level *level, const sp_tensor *t, sp_tensor **value,
                         sp_tensor **tangent)
{
    return parts(level, t, false, value, tangent);
}

sp_status sp__undual(sp_level *level, const sp_tensor *t, sp_tensor **value, sp_tensor **tangent)
{
    return parts(level, t, true, value, tangent);
}
