/* Views: how each came from its base, replaying that, and putting a changed part back.
 *
 * A view is described by the calls that made it, not by its strides: the same calls then view a
 * gradient of any layout, and they run through sp__dispatch, so that this works at any order of
 * derivative and under every transform.
 */
#include "autograd/tape_int.h"

#include <string.h>

#include "autograd/calls.h"
#include "autograd/levels_int.h"

/* ---- steps ----- */

sp_step *sp__step_keep(sp_step *step)
{
    if (step) step->refs++;
    return step;
}

void sp__step_drop(sp_step *step)
{
    while (step && --step->refs == 0) {
        sp_step *before = step->before;
        sp__attrs_free(step->attr, step->n_attr);
        sp__free(step, sizeof *step + step->n_attr * sizeof(sp_attr));
        step = before;
    }
}

static sp_status step_new(const sp_call *c, sp_step *before, sp_step **out)
{
    size_t bytes = sizeof(sp_step) + c->n_attr * sizeof(sp_attr);
    sp_step *step = sp__alloc(bytes);
    if (!step)
        return sp_fail(SP_EMEMORY, "%s: no memory to note the view", sp_op_table[c->op].name);
    sp_status status = sp__attrs_copy(c->attr, c->n_attr, step->attr);
    if (status != SP_OK) {
        sp__free(step, bytes);
        return status;
    }
    step->before = sp__step_keep(before);
    step->refs = 1, step->depth = before ? before->depth + 1 : 1;
    step->op = c->op, step->n_attr = c->n_attr;
    *out = step;
    return SP_OK;
}

/* The calls from the base on, in order, in an array of depth entries. */
static sp_status steps_in_order(const sp_step *last, const sp_step ***out)
{
    const sp_step **order = sp__alloc((size_t)last->depth * sizeof *order);
    if (!order) return sp_fail(SP_EMEMORY, "autograd: no memory to replay a view");
    for (const sp_step *s = last; s; s = s->before) order[s->depth - 1] = s;
    *out = order;
    return SP_OK;
}

/* A gradient need not have the strides that let `view` succeed on the value; reshape then copies.
 */
static sp_status step_run(const sp_step *step, const sp_tensor *t, sp_tensor **out)
{
    sp_tensor *in[1] = {(sp_tensor *)t};
    sp_call c = {.op = step->op == SP_OP_VIEW ? SP_OP_RESHAPE : step->op,
                 .n_out = 1,
                 .n_attr = step->n_attr,
                 .n_in = 1,
                 .in = in};
    memcpy(c.attr, step->attr, step->n_attr * sizeof(sp_attr));
    SP_RETURN_IF(sp__dispatch(&c));
    *out = c.out[0];
    return SP_OK;
}

sp_status sp__steps_apply(const sp_step *steps, const sp_tensor *t, sp_tensor **made)
{
    const sp_step **order;
    int n = steps->depth;
    memset(made, 0, (size_t)n * sizeof *made);
    SP_RETURN_IF(steps_in_order(steps, &order));
    sp_status status = SP_OK;
    for (int i = 0; i < n; i++) SP_TRY(step_run(order[i], i ? made[i - 1] : t, &made[i]));
out:
    sp__free(order, (size_t)n * sizeof *order);
    if (status != SP_OK)
        for (int i = 0; i < n; i++) sp_drop(&made[i]);
    return status;
}

/* ---- putting a part back ----- */

/* part, shaped like the view, becomes shaped like the base, zero elsewhere: the vjp of each step,
 * last one first. */
static sp_status steps_scatter(const sp_step *steps, const sp_tensor *base, sp_tensor *const *made,
                               const sp_tensor *part, sp_tensor **out)
{
    sp_tensor *g = sp__retain(part);
    sp_status status = SP_OK;
    for (const sp_step *s = steps; s && g; s = s->before) {
        sp_meta in_meta, out_meta;
        sp__meta_of(s->depth > 1 ? made[s->depth - 2] : base, &in_meta);
        sp__meta_of(made[s->depth - 1], &out_meta);
        sp_tensor *none[1] = {NULL}, *gy[1] = {g}, *gx[1] = {NULL};
        sp_vjp_args args = {.in = none,
                            .out = none,
                            .in_meta = &in_meta,
                            .out_meta = &out_meta,
                            .attr = s->attr,
                            .gy = gy,
                            .n_in = 1,
                            .need = 1,
                            .gx = gx};
        status = sp__vjp(s->op, &args);
        sp_drop(&g);
        g = gx[0];
        SP_TRY(status);
    }
    *out = g;
    return SP_OK;
out:
    sp_drop(&g);
    return status;
}

/* No copy may have slipped in between, else writing would miss the base. */
static bool still_views(const sp_tensor *view, const sp_tensor *base)
{
    return !view->wrap && !base->wrap && view->storage == base->storage;
}

/* Plain numbers, nothing to record: write the part into a copy. *done stays false where that cannot
 * be. */
static sp_status replace_by_write(const sp_step *steps, const sp_tensor *base,
                                  const sp_tensor *part, sp_tensor **made, bool *done,
                                  sp_tensor **out)
{
    sp_status status = SP_OK;
    sp_tensor *copy = NULL;
    SP_TRY(sp_clone(base, &copy));
    SP_TRY(sp__steps_apply(steps, copy, made));
    sp_tensor *view = made[steps->depth - 1];
    *done = still_views(view, copy);
    if (*done) SP_TRY(part ? sp_copy_(view, part) : sp__call_fill_(view, 0));
    *out = *done ? sp__retain(copy) : NULL;
out:
    for (int i = 0; i < steps->depth; i++) sp_drop(&made[i]);
    sp_drop(&copy);
    return status;
}

/* Like t, 1 everywhere, in both parts of complex numbers. */
static sp_status all_ones(const sp_tensor *t, sp_tensor **out)
{
    sp_tensor *real = NULL, *one = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp__call_full_like(t, 1, &one));
    if (!sp__dtype_is_complex(t->dtype)) {
        *out = one;
        return SP_OK;
    }
    SP_TRY(sp_abs(one, &real));
    SP_TRY(sp_complex(real, real, out));
out:
    sp_drop(&real), sp_drop(&one);
    return status;
}

/* full where mask is not 0, base elsewhere. */
static sp_status choose(const sp_tensor *mask, const sp_tensor *full, const sp_tensor *base,
                        sp_tensor **out)
{
    sp_tensor *inside = NULL;
    SP_RETURN_IF(sp_ne_scalar(mask, SP_INT(0), &inside));
    sp_status status = sp_where(inside, full, base, out);
    sp_drop(&inside);
    return status;
}

/* The same of complex numbers, for each of their parts. */
static sp_status choose_parts(const sp_tensor *mask, const sp_tensor *full, const sp_tensor *base,
                              sp_tensor **out)
{
    sp_status status = SP_OK;
    sp_tensor *m = NULL, *f = NULL, *b = NULL, *chosen = NULL;
    SP_TRY(sp_view_as_real(mask, &m));
    SP_TRY(sp_view_as_real(full, &f));
    SP_TRY(sp_view_as_real(base, &b));
    SP_TRY(choose(m, f, b, &chosen));
    SP_TRY(sp_view_as_complex(chosen, out));
out:
    sp_drop(&m), sp_drop(&f), sp_drop(&b), sp_drop(&chosen);
    return status;
}

/* Whether the view may show one part of complex numbers without the other. */
static bool shows_parts(const sp_step *steps)
{
    for (; steps; steps = steps->before)
        if (steps->op == SP_OP_VIEW_AS_REAL) return true;
    return false;
}

static sp_status replace_by_where(const sp_step *steps, const sp_tensor *base,
                                  const sp_tensor *part, sp_tensor **made, sp_tensor **out)
{
    sp_status status = SP_OK;
    sp_tensor *ones = NULL, *mask = NULL, *full = NULL;
    SP_TRY(sp__steps_apply(steps, base, made));
    SP_TRY(all_ones(made[steps->depth - 1], &ones));
    SP_TRY(steps_scatter(steps, base, made, ones, &mask));
    if (part)
        SP_TRY(steps_scatter(steps, base, made, part, &full));
    else
        SP_TRY(sp__call_full_like(base, 0, &full));
    bool parts = sp__dtype_is_complex(base->dtype) && shows_parts(steps);
    SP_TRY(parts ? choose_parts(mask, full, base, out) : choose(mask, full, base, out));
out:
    for (int i = 0; i < steps->depth; i++) sp_drop(&made[i]);
    sp_drop(&ones), sp_drop(&mask), sp_drop(&full);
    return status;
}

sp_status sp__steps_replace(const sp_step *steps, const sp_tensor *base, const sp_tensor *part,
                            sp_tensor **out)
{
    size_t bytes = (size_t)steps->depth * sizeof(sp_tensor *);
    sp_tensor **made = sp__alloc_zero(bytes);
    if (!made) return sp_fail(SP_EMEMORY, "autograd: no memory to replay a view");
    bool done = false;
    sp_status status = SP_OK;
    if (sp__tls.no_grad && !sp__tls.top)
        status = replace_by_write(steps, base, part, made, &done, out);
    if (status == SP_OK && !done) status = replace_by_where(steps, base, part, made, out);
    sp__free(made, bytes);
    return status;
}

sp_status sp__steps_view(const sp_step *steps, const sp_tensor *t, sp_tensor **out)
{
    size_t bytes = (size_t)steps->depth * sizeof(sp_tensor *);
    sp_tensor **made = sp__alloc_zero(bytes);
    if (!made) return sp_fail(SP_EMEMORY, "autograd: no memory to replay a view");
    sp_status status = sp__steps_apply(steps, t, made);
    if (status == SP_OK) {
        *out = sp__retain(made[steps->depth - 1]);
        for (int i = 0; i < steps->depth; i++) sp_drop(&made[i]);
    }
    sp__free(made, bytes);
    return status;
}

/* as_strided names elements of the storage: it fits a gradient only when that lies as the base
 * does, dense from 0. */
sp_status sp__steps_operand(const sp_step *steps, const sp_tensor *t, sp_tensor **out)
{
    bool dense = (t->flags & SP_T_CONTIGUOUS) && t->offset == 0;
    for (; steps && !dense; steps = steps->before)
        if (steps->op == SP_OP_AS_STRIDED) return sp_clone(t, out);
    *out = sp__retain(t);
    return SP_OK;
}

/* ---- views of handles ----- */

static bool is_view(const sp_call *c)
{
    const sp_op_info *info = &sp_op_table[c->op];
    const sp_tensor *from = c->in[0], *to = c->out[0];
    if (to == from || !info->diff_mask || !sp__is_float(to->dtype)) return false;
    if (info->flags & SP_OPF_VIEW) return true;
    while (from->wrap && to->wrap) from = from->wrap->inner, to = to->wrap->inner;
    return (info->flags & SP_OPF_MAY_VIEW) && !from->wrap && !to->wrap &&
           from->storage == to->storage;
}

static void view_link(sp_grad_meta *meta, sp_tensor *base)
{
    sp_grad_meta *root = base->grad_meta;
    meta->base = sp__retain(base);
    meta->seen = root->rebased;
    meta->next_view = root->views, meta->view_slot = &root->views;
    if (root->views) root->views->view_slot = &meta->next_view;
    root->views = meta;
}

sp_status sp__view_note(const sp_call *c, const sp_level *level)
{
    if (!is_view(c)) return SP_OK;
    sp_grad_meta *from, *root, *meta;
    if (level && !sp__of_level(c->in[0], level)) {
        SP_RETURN_IF(sp__meta(c->out[0], &meta));
        meta->foreign = true;
        return SP_OK;
    }
    SP_RETURN_IF(sp__meta(c->in[0], &from));
    sp_tensor *base = from->base ? from->base : c->in[0];
    SP_RETURN_IF(sp__meta(base, &root));
    SP_RETURN_IF(sp__meta(c->out[0], &meta));
    meta->view_no_grad =
        from->view_no_grad || (sp__tls.no_grad && !(level && sp__is_forward(level)));
    meta->by_function = from->by_function;
    if (!meta->view_no_grad && !meta->by_function) {
        bool restart = c->op == SP_OP_AS_STRIDED && (base->flags & SP_T_CONTIGUOUS) &&
                       base->offset == 0 && base->dtype == c->in[0]->dtype;
        SP_RETURN_IF(step_new(c, restart ? NULL : from->steps, &meta->steps));
    }
    meta->foreign = from->foreign;
    view_link(meta, base);
    return SP_OK;
}

sp_status sp__view_by_function(sp_tensor *view, sp_tensor *of)
{
    sp_grad_meta *meta, *from, *root;
    SP_RETURN_IF(sp__meta(of, &from));
    sp_tensor *base = from->base ? from->base : of;
    if (base == view) return SP_OK;
    SP_RETURN_IF(sp__meta(base, &root));
    SP_RETURN_IF(sp__meta(view, &meta));
    meta->by_function = true;
    meta->view_no_grad = false;
    sp__step_drop(meta->steps);
    meta->steps = NULL;
    if (!meta->base) view_link(meta, base);
    meta->seen = meta->base->grad_meta->rebased;
    return SP_OK;
}

sp_status sp__view_is_final(const char *op)
{
    return sp_fail(SP_EGRAD,
                   "%s: a result of a custom function that shares memory with its input, or with "
                   "another result, was modified in place, or what it shares memory with was; "
                   "that would replace the function's own backward: return a clone() from "
                   "forward, or write to a clone()",
                   op);
}

sp_status sp__view_derive(sp_grad_meta *meta)
{
    sp_context was;
    sp_tensor *again = NULL;
    sp_edge edge;
    if (meta->by_function) return sp__view_is_final("autograd");
    SP_RETURN_IF(sp__context_enter(meta->self, &was));
    sp_status status = SP_OK;
    SP_TRY(sp__steps_view(meta->steps, meta->base, &again));
    SP_TRY(sp__history(again, &edge));
    sp__history_move(meta, edge.node, edge.nr);
    meta->seen = meta->base->grad_meta->rebased;
out:
    sp__context_leave(&was);
    sp_drop(&again);
    return status;
}
