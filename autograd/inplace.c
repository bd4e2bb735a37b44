/* Writing in place: what may be written, and how the written tensor and everything that shares its
 * bytes get their new histories.
 *
 *     before              x.mul_(y)             v = base[1]; v.mul_(y)
 *
 *     x -> node           x -> mul -> node      base -> slices(inner: mul) -> base's node
 *                                                       v derives anew: v -> select -> slices
 */
#include "autograd/tape_int.h"

#include "autograd/levels_int.h"

/* ---- what may be written ----- */

static const char *op_name(const sp_call *c)
{
    return sp_op_table[c->op].name;
}

static bool is_grad_leaf(const sp_tensor *t)
{
    return (t->flags & SP_T_REQUIRES_GRAD) && t->grad_meta && t->grad_meta->leaf &&
           !t->grad_meta->node;
}

sp_status sp__write_check(const char *op, const sp_tensor *x, const sp_level *level)
{
    const sp_grad_meta *meta = x->grad_meta;
    if (level && (!sp__of_level(x, level) || (meta && meta->foreign)))
        return sp_fail(SP_EGRAD,
                       "%s (in place): a tensor from outside of grad() is written with one that "
                       "grad() differentiates, "
                       "which would lose the derivative; write to a clone() made inside",
                       op);
    if (is_grad_leaf(x))
        return sp_fail(SP_EGRAD,
                       "%s: a leaf tensor that requires grad is used in an in-place operation; do "
                       "it under no_grad(), or "
                       "on a clone()",
                       op);
    if (!meta || !meta->base) return SP_OK;
    if (is_grad_leaf(meta->base))
        return sp_fail(SP_EGRAD,
                       "%s: a view of a leaf tensor that requires grad is used in an in-place "
                       "operation; do it under "
                       "no_grad(), or on a clone() of the leaf",
                       op);
    if (meta->by_function) return sp__view_is_final(op);
    if (meta->view_no_grad)
        return sp_fail(SP_EGRAD,
                       "%s: a view made under no_grad() is modified in place with grad mode on; "
                       "make the view with grad "
                       "mode on, or write under no_grad()",
                       op);
    return SP_OK;
}

/* ---- new histories ----- */

static void stale_with_views(sp_grad_meta *base)
{
    sp__saved_stale(base);
    for (sp_grad_meta *v = base->views; v; v = v->next_view) sp__saved_stale(v);
}

void sp__views_follow(sp_grad_meta *base)
{
    base->rebased++;
    for (sp_grad_meta *v = base->views; v; v = v->next_view)
        if (!v->view_no_grad) v->self->flags |= SP_T_REQUIRES_GRAD;
}

static bool saves_output(const sp_node *node)
{
    for (int i = 0; i < node->n_saved; i++)
        if (node->saved[i].index < 0) return true;
    return false;
}

/* The bytes behind meta's handle were written: they, or those they are part of, are node's result
 * from now on. */
static void history_replace(sp_grad_meta *meta, sp_node *node, int out_nr)
{
    sp_grad_meta *root = meta->base ? meta->base->grad_meta : meta;
    stale_with_views(root);
    sp__history_move(root, node, out_nr);
    sp__views_follow(root);
}

/* The node through which base's gradient will go when the part that x shows, input `written` of
 * `inner`, is rewritten by that. */
static sp_status slices_new(const sp_tensor *x, sp_node *inner, int written, sp_node **out)
{
    sp_grad_meta *meta = x->grad_meta;
    sp_edge before;
    SP_RETURN_IF(sp__history(meta->base, &before));
    sp_node *node;
    SP_RETURN_IF(sp__node_bare(SP_NODE_SLICES, sizeof(sp_slices), inner->n_in, meta->base, &node));
    sp_slices *slices = (sp_slices *)node;
    sp_status status = saves_output(inner) ? sp__value_alias(meta->base, &slices->base) : SP_OK;
    if (status != SP_OK) {
        sp__node_let_go(node);
        return status;
    }
    slices->inner = sp__node_keep(inner);
    inner->flags |= SP_NODE_PART, inner->slices = slices;
    slices->steps = sp__step_keep(meta->steps);
    slices->written = written;
    for (int i = 0; i < inner->n_in; i++) {
        node->edges[i] = inner->edges[i];
        inner->edges[i].node = NULL;
    }
    if (node->edges[written].node) sp__node_let_go(node->edges[written].node);
    node->edges[written].node = NULL;
    if (before.node) node->edges[written] = (sp_edge){sp__node_keep(before.node), before.nr};
    node->flags |= SP_NODE_INPLACE;
    sp__node_number(node);
    *out = node;
    return SP_OK;
}

sp_status sp__slices_part(sp_slices *s, sp_tensor **out)
{
    sp_tensor *base = NULL;
    *out = NULL;
    SP_RETURN_IF(sp__value_alias(s->base, &base));
    sp_status status = sp__history_set(base, &s->node, 0);
    if (status == SP_OK) status = sp__steps_view(s->steps, base, out);
    sp_drop(&base);
    return status;
}

sp_status sp__slices_vjp(sp_slices *s, sp_tensor *gy, uint64_t need, sp_tensor **gx)
{
    sp_status status = SP_OK;
    sp_tensor *whole = NULL, *part = NULL, *old_part = NULL, **before = &gx[s->written];
    SP_TRY(sp__steps_operand(s->steps, gy, &whole));
    SP_TRY(sp__steps_view(s->steps, whole, &part));
    uint64_t inner_need = need;
    if (s->inner->kind == SP_NODE_OP) /* what is filled or copied over gets zero */
        inner_need &= sp_op_table[s->inner->op].diff_mask;
    if (inner_need) SP_TRY(sp__node_vjp(s->inner, &part, inner_need, gx));
    if (need & sp__in_bit(s->written)) {
        old_part = *before;
        *before = NULL;
        SP_TRY(sp__steps_replace(s->steps, whole, old_part, before));
    }
out:
    sp_drop(&whole), sp_drop(&part), sp_drop(&old_part);
    return status;
}

/* ---- the recorded write ----- */

/* What to save instead of c->in[]: the written tensor itself is about to change, so its old value
 * is copied if some formula reads it. */
static sp_status saved_inputs(const sp_call *c, uint64_t need, sp_tensor **save, sp_tensor **old)
{
    uint64_t reads = sp__node_saves_in(c, need);
    for (int i = 0; i < c->n_in; i++) {
        save[i] = c->in[i];
        if (!(reads & sp__in_bit(i)) || c->in[i] != c->in[0]) continue;
        if (!*old) SP_RETURN_IF(sp_clone(c->in[0], old));
        save[i] = *old;
    }
    return SP_OK;
}

static sp_status record_inplace(sp_call *c, sp_level *level, uint64_t need)
{
    enum { ROOM = 8 };
    sp_tensor *x = c->in[0], *room[ROOM], **save = room, *old = NULL;
    sp_node *node = NULL, *slices = NULL;
    sp_grad_meta *meta;
    sp_status status = SP_OK;
    size_t bytes = (size_t)c->n_in * sizeof *save;
    c->out[0] = x;
    if (c->n_in > ROOM && !(save = sp__alloc(bytes)))
        return sp_fail(SP_EMEMORY, "%s: no memory to record it on the tape", op_name(c));

    /* Everything that can fail comes before the write, so that a failure changes nothing. */
    SP_TRY(sp__meta(x, &meta));
    SP_TRY(saved_inputs(c, need, save, &old));
    SP_TRY(sp__node_new(c, need, save, &node));
    node->flags |= SP_NODE_INPLACE;
    if (meta->base) SP_TRY(slices_new(x, node, 0, &slices));
    SP_TRY(sp__record_run(c, level));

    history_replace(meta, slices ? slices : node, 0);
    status = sp__node_outputs_written(node);
out:
    if (slices) sp__node_let_go(slices);
    if (node) sp__node_let_go(node);
    sp_drop(&old);
    if (save != room) sp__free(save, bytes);
    return status;
}

sp_status sp__written_by(sp_tensor *x, sp_node *node, int written, int out_nr)
{
    sp_grad_meta *meta;
    sp_node *slices = NULL;
    SP_RETURN_IF(sp__meta(x, &meta));
    if (meta->base) SP_RETURN_IF(slices_new(x, node, written, &slices));
    history_replace(meta, slices ? slices : node, slices ? 0 : out_nr);
    if (slices) sp__node_let_go(slices);
    return SP_OK;
}

static sp_status record_out(sp_call *c, sp_level *level, uint64_t need)
{
    bool wanted = need != 0;
    for (int i = 0; i < c->n_out && !sp__tls.no_grad; i++)
        wanted |= sp__wants_grad(c->out[i], level);
    if (wanted)
        return sp_fail(SP_EGRAD,
                       "%s: out= cannot be differentiated, but an argument requires grad; leave "
                       "out= away, or call it "
                       "under no_grad()",
                       op_name(c));
    return sp__record_run(c, level);
}

sp_status sp__record_write(sp_call *c, sp_level *level, uint64_t need)
{
    if (c->flags & SP_CALL_OUT) return record_out(c, level, need);
    bool history = need || (!sp__tls.no_grad && sp__wants_grad(c->in[0], level));
    if (!history) return sp__record_run(c, level);
    SP_RETURN_IF(sp__write_check(op_name(c), c->in[0], level));
    return record_inplace(c, level, need);
}
