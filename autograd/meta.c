/* What a handle knows of the tape: its meta, its history, and how both end. */
#include "autograd/tape_int.h"

sp_status sp__meta(sp_tensor *t, sp_grad_meta **out)
{
    if (!t->grad_meta) {
        sp_grad_meta *meta = sp__alloc(sizeof *meta);
        if (!meta) return sp_fail(SP_EMEMORY, "autograd: no memory for a tensor's history");
        *meta = (sp_grad_meta){.self = t};
        t->grad_meta = meta;
        t->flags |= SP_T_META;
    }
    *out = t->grad_meta;
    return SP_OK;
}

sp_status sp__meta_leaf(sp_tensor *t, sp_leaf **out)
{
    sp_grad_meta *meta;
    SP_RETURN_IF(sp__meta(t, &meta));
    if (!meta->leaf) {
        sp_node *node;
        SP_RETURN_IF(sp__node_bare(SP_NODE_LEAF, sizeof(sp_leaf), 0, NULL, &node));
        node->flags = SP_NODE_ELSEWHERE;
        meta->leaf = (sp_leaf *)node;
        meta->leaf->handle = t;
    }
    *out = meta->leaf;
    return SP_OK;
}

void sp__history_move(sp_grad_meta *meta, sp_node *node, int out_nr)
{
    sp_node *old = meta->node;
    if (meta->retain) sp__keeper_move(meta, old, node, out_nr);
    meta->node = node ? sp__node_keep(node) : NULL;
    meta->out_nr = out_nr;
    if (node) meta->self->flags |= SP_T_REQUIRES_GRAD;
    if (old) sp__node_let_go(old);
}

sp_status sp__history_set(sp_tensor *t, sp_node *node, int out_nr)
{
    sp_grad_meta *meta;
    SP_RETURN_IF(sp__meta(t, &meta));
    sp__history_move(meta, node, out_nr);
    return SP_OK;
}

sp_status sp__history(const sp_tensor *t, sp_edge *out)
{
    *out = (sp_edge){NULL, 0};
    sp_grad_meta *meta = t->grad_meta;
    if (!meta || !(t->flags & SP_T_REQUIRES_GRAD)) return SP_OK;
    if (sp__view_outdated(meta)) SP_RETURN_IF(sp__view_derive(meta));
    if (meta->node)
        *out = (sp_edge){meta->node, meta->out_nr};
    else if (meta->leaf)
        *out = (sp_edge){&meta->leaf->node, 0};
    return SP_OK;
}

sp_status sp__edge_tensor(sp_node *node, int nr, sp_tensor **out)
{
    *out = NULL;
    if (nr < 0 || nr >= node->n_out)
        return sp_fail(SP_EINDEX, "gradient edge: %s has no output %d", sp__node_op(node), nr);
    if (node->kind == SP_NODE_LEAF) {
        *out = sp__retain(((sp_leaf *)node)->handle);
        return SP_OK;
    }
    sp_meta meta;
    sp_storage *nothing;
    sp__node_out_meta(node, nr, &meta);
    SP_RETURN_IF(sp__storage_new_deferred(0, meta.device, &nothing));
    sp_status status = sp__handle_new(&meta, nothing, out);
    sp__storage_drop(nothing);
    SP_RETURN_IF(status);
    status = sp__history_set(*out, node, nr);
    if (status != SP_OK) sp_drop(out);
    return status;
}

static sp_status wrapped_alias(const sp_tensor *t, sp_tensor **out)
{
    sp_wrap *wrap = sp__dup(t->wrap, sp__wrap_bytes(t->wrap->order));
    if (!wrap) return sp_fail(SP_EMEMORY, "autograd: no memory for a transform's value");
    sp__retain(wrap->inner);
    for (int k = 0; k < wrap->order; k++)
        if (wrap->tangent[k]) sp__retain(wrap->tangent[k]);
    sp_meta meta;
    sp__meta_of(t, &meta);
    sp_status status = sp__handle_wrap(&meta, wrap, out);
    if (status != SP_OK) sp__wrap_free(wrap);
    return status;
}

sp_status sp__value_alias(const sp_tensor *t, sp_tensor **out)
{
    if (t->wrap) return wrapped_alias(t, out);
    SP_RETURN_IF(sp__handle_alias(t, out));
    /* Only a saved value's alias is made without a call that the tracer sees: it is the same value
     * to it. */
    (*out)->trace_epoch = t->trace_epoch;
    (*out)->trace_value = t->trace_value;
    return SP_OK;
}

static void view_unlink(sp_grad_meta *meta)
{
    *meta->view_slot = meta->next_view;
    if (meta->next_view) meta->next_view->view_slot = meta->view_slot;
}

static void leaf_free(sp_leaf *leaf)
{
    SP_ASSERT(!leaf->node.tasks);
    sp__hooks_free(&leaf->node);
    sp__attached_free(&leaf->node);
    sp__free(leaf, leaf->node.bytes);
}

/* Runs when the handle dies: nobody saved it any more (a saver keeps it), and its views are gone (a
 * view keeps its base). */
void sp__meta_free(sp_grad_meta *meta)
{
    SP_ASSERT(!meta->savers && !meta->views);
    if (meta->retain) sp__keeper_move(meta, meta->node, NULL, 0);
    if (meta->base) {
        view_unlink(meta);
        sp_drop(&meta->base);
        sp__step_drop(meta->steps);
    }
    if (meta->leaf) leaf_free(meta->leaf);
    sp_drop(&meta->grad);
    if (meta->node) sp__node_let_go(meta->node);
    sp__free(meta, sizeof *meta);
}
