/* Nodes as objects of a binding, and what its garbage collector is shown.
 *
 *     node -- attached --> object       borrowed
 *     object ------------> node         owned: the only reference, for every other counts as one to
 *                                       the object, in the object's first word
 *
 * So a node that the binding has seen has one identity for life, and a collector that counts
 * references among objects sees exactly those that there are.
 */
#include "autograd/function.h"
#include "autograd/tape_int.h"

sp_node_hooks sp__node_hooks;

/* ---- what is attached ----- */

sp_status sp__attached(sp_node *node, sp_attached **out)
{
    if (!node->attached) node->attached = sp__alloc_zero(sizeof(sp_attached));
    *out = node->attached;
    return *out ? SP_OK : sp_fail(SP_EMEMORY, "autograd: no memory for what a node is given");
}

void sp__attached_free(sp_node *node)
{
    if (!node->attached) return;
    SP_ASSERT(!node->attached->object);
    sp__anomaly_forget(node->attached);
    sp__free(node->attached, sizeof *node->attached);
    node->attached = NULL;
}

void *sp__node_object(const sp_node *node)
{
    return node->attached ? node->attached->object : NULL;
}

sp_status sp__node_bind(sp_node *node, void *object)
{
    sp_attached *attached;
    SP_RETURN_IF(sp__attached(node, &attached));
    SP_ASSERT(!attached->object);
    attached->object = object;
    if (node->kind == SP_NODE_LEAF) return SP_OK;
    *(int64_t *)object = node->refs + 1;
    node->refs = 0;
    node->flags |= SP_NODE_ELSEWHERE;
    return SP_OK;
}

void sp__node_unbind(sp_node *node)
{
    node->attached->object = NULL;
    if (node->kind == SP_NODE_LEAF) return;
    node->flags &= (uint8_t)~SP_NODE_ELSEWHERE;
    sp__node_die(node);
}

sp_node *sp__history_node(const sp_tensor *t)
{
    sp_node *node = t->grad_meta ? t->grad_meta->node : NULL;
    return node && node->kind != SP_NODE_LEAF ? node : NULL;
}

/* ---- references, as a collector counts them ----- */

typedef void (*see_fn)(void *arg, void *object);

static void see_node(const sp_node *node, see_fn see, void *arg)
{
    if (!node) return;
    if (node->kind == SP_NODE_LEAF)
        see(arg, ((const sp_leaf *)node)->handle);
    else if (node->flags & SP_NODE_ELSEWHERE)
        see(arg, node->attached->object);
}

static void see_hooks(const sp_node *node, see_fn see, void *arg)
{
    for (const sp_hook *h = node->hooks; h; h = h->next)
        if (h->ctx && h->drop == sp__node_hooks.drop) see(arg, h->ctx);
}

void sp__history_each(const sp_tensor *t, see_fn see, void *arg)
{
    const sp_grad_meta *meta = t->grad_meta;
    if (!meta) return;
    if (meta->leaf) see_hooks(&meta->leaf->node, see, arg);
    see_node(meta->node, see, arg);
    if (meta->grad) see(arg, meta->grad);
    if (meta->base) see(arg, meta->base);
}

void sp__node_each(const sp_node *node, see_fn see, void *arg)
{
    see_hooks(node, see, arg);
    for (int i = 0; i < node->n_in; i++) see_node(node->edges[i].node, see, arg);
    for (int i = 0; i < node->n_saved; i++) {
        const sp_saved *s = &node->saved[i];
        if (s->t) see(arg, s->t);
        if (!s->is_packed) continue;
        sp__packed_each(s->packed, see, arg);
        see_node(sp__packed_leads_to(s->packed), see, arg);
    }
    void *kept = sp__node_hooks.kept_drop ? sp__node_kept(node, sp__node_hooks.kept_drop) : NULL;
    if (kept) see(arg, kept);
    if (node->kind != SP_NODE_SLICES) return;
    const sp_slices *slices = (const sp_slices *)node;
    if (slices->base) see(arg, slices->base);
    if (slices->inner) sp__node_each(slices->inner, see, arg);
}

void sp__node_clear(sp_node *node)
{
    sp__hooks_free(node);
    if (node->kind == SP_NODE_LEAF) return;
    sp__node_release(node);
    for (int i = 0; i < node->n_in; i++) {
        sp_node *to = node->edges[i].node;
        node->edges[i].node = NULL;
        if (to) sp__node_let_go(to);
    }
}
