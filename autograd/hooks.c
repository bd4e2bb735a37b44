/* Hooks: callbacks that see, and may replace, a gradient on its way, and those that run when a leaf
 * has its own.
 *
 * A hook sits at the node that its tensor's gradient arrives at, so it works after the tensor
 * itself is gone. Entries are counted, because a hook may remove itself or others while it runs.
 */
#include "autograd/autograd.h"
#include "autograd/tape_int.h"

#include <stdatomic.h>

static _Atomic int64_t last_id;

static void hook_drop(sp_hook *hook)
{
    if (--hook->refs > 0) return;
    if (hook->drop) hook->drop(hook->ctx);
    sp__free(hook, sizeof *hook);
}

static sp_status hook_append(sp_node *node, sp_hook model)
{
    sp_hook *hook = sp__dup(&model, sizeof model);
    if (!hook) return sp_fail(SP_EMEMORY, "hook: no memory to add it");
    hook->refs = 1;
    sp_hook **at = &node->hooks;
    while (*at) at = &(*at)->next;
    *at = hook;
    return SP_OK;
}

static void hook_unlink(sp_node *node, sp_hook *hook)
{
    for (sp_hook **at = &node->hooks; *at; at = &(*at)->next) {
        if (*at != hook) continue;
        *at = hook->next;
        hook->removed = true;
        hook_drop(hook);
        return;
    }
}

void sp__hooks_free(sp_node *node)
{
    while (node->hooks) hook_unlink(node, node->hooks);
}

/* ---- adding and removing ----- */

static sp_status hook_add(sp_tensor *t, sp_hook hook, int64_t *id)
{
    if (!(t->flags & SP_T_REQUIRES_GRAD))
        return sp_fail(SP_EGRAD,
                       "hook: the tensor does not require grad; call requires_grad_() first");
    sp_edge edge;
    SP_RETURN_IF(sp__history(t, &edge));
    if (hook.after && edge.node->kind != SP_NODE_LEAF)
        return sp_fail(SP_EGRAD,
                       "hook: only leaves accumulate gradients; this tensor was computed by %s",
                       sp__node_op(edge.node));
    hook.id = atomic_fetch_add(&last_id, 1) + 1;
    hook.out_nr = edge.nr;
    SP_RETURN_IF(hook_append(edge.node, hook));
    if (id) *id = hook.id;
    return SP_OK;
}

sp_status sp_hook_add(sp_tensor *t, sp_hook_fn fn, void *ctx, void (*drop)(void *ctx), int64_t *id)
{
    return hook_add(t, (sp_hook){.fn = fn, .ctx = ctx, .drop = drop}, id);
}

sp_status sp__hook_add_after(sp_tensor *t, sp_hook_fn fn, void *ctx, void (*drop)(void *ctx),
                             int64_t *id)
{
    return hook_add(t, (sp_hook){.fn = fn, .ctx = ctx, .drop = drop, .after = true}, id);
}

/* A write in place moved t on to a new node: the hooks from before are at one further back. */
void sp_hook_remove(sp_tensor *t, int64_t id)
{
    sp_grad_meta *meta = t->grad_meta;
    if (!meta) return;
    sp_node *leaf = meta->leaf ? &meta->leaf->node : NULL;
    for (sp_node *node = meta->node ? meta->node : leaf; node;) {
        for (sp_hook *h = node->hooks; h; h = h->next) {
            if (h->id != id) continue;
            hook_unlink(node, h);
            return;
        }
        node = node->flags & SP_NODE_INPLACE ? node->edges[0].node : node != leaf ? leaf : NULL;
    }
}

static void hooks_show(const sp_node *node, void (*see)(void *arg, void *ctx), void *arg)
{
    for (sp_hook *h = node->hooks; h; h = h->next)
        if (h->ctx) see(arg, h->ctx);
}

void sp__hooks_each(const sp_tensor *t, void (*see)(void *arg, void *ctx), void *arg)
{
    sp_grad_meta *meta = t->grad_meta;
    if (!meta) return;
    if (meta->leaf) hooks_show(&meta->leaf->node, see, arg);
    if (meta->node && meta->node->refs == 1) hooks_show(meta->node, see, arg);
}

/* ---- keeping the gradient of an inner tensor ----- */

sp_status sp__keeper_add(sp_grad_meta *meta)
{
    sp_edge edge;
    SP_RETURN_IF(sp__history(meta->self, &edge));
    SP_RETURN_IF(hook_append(edge.node, (sp_hook){.keeper = meta, .out_nr = edge.nr}));
    meta->retain = true;
    return SP_OK;
}

void sp__keeper_move(sp_grad_meta *meta, sp_node *from, sp_node *to, int out_nr)
{
    sp_hook **at = from ? &from->hooks : NULL;
    while (at && *at && (*at)->keeper != meta) at = &(*at)->next;
    sp_hook *hook = at ? *at : NULL;
    meta->retain = hook && to;
    if (!hook) return;
    *at = hook->next;
    hook->next = NULL;
    if (!to) {
        hook->keeper = NULL;
        hook_drop(hook);
        return;
    }
    hook->out_nr = out_nr;
    for (at = &to->hooks; *at;) at = &(*at)->next;
    *at = hook;
}

/* ---- running ----- */

static sp_status replacement_check(const sp_node *node, int out_nr, const sp_tensor *g)
{
    if (sp__node_out_fits(node, out_nr, g)) return SP_OK;
    sp_meta want;
    sp__node_out_meta(node, out_nr, &want);
    return sp_fail(
        SP_ESHAPE,
        "hook: returned a gradient of shape %s and dtype %s for a tensor of shape %s and dtype %s",
        SP_SHAPE(g), sp_dtype_name(g->dtype),
        sp__shape_text(want.rank, want.shape, (char[SP_SHAPE_TEXT]){0}, SP_SHAPE_TEXT),
        sp_dtype_name(want.dtype));
}

static sp_status hook_call(const sp_node *node, const sp_hook *hook, sp_tensor **g)
{
    sp_tensor *replacement = NULL;
    sp_status status = hook->fn(hook->ctx, *g, &replacement);
    if (status == SP_OK && replacement && !hook->after)
        status = replacement_check(node, hook->out_nr, replacement);
    if (status != SP_OK || !replacement || hook->after) {
        sp_drop(&replacement);
        return status;
    }
    sp_drop(g);
    *g = replacement;
    return SP_OK;
}

enum { SNAPSHOT_ROOM = 8 };

/* The hooks there are now, kept, because running them may change the list. */
static sp_status snapshot(const sp_node *node, sp_hook **room, sp_hook ***out, int *n)
{
    *n = 0;
    for (sp_hook *h = node->hooks; h; h = h->next) ++*n;
    *out = *n <= SNAPSHOT_ROOM ? room : sp__alloc((size_t)*n * sizeof(sp_hook *));
    if (!*out) return sp_fail(SP_EMEMORY, "hook: no memory to run them");
    int i = 0;
    for (sp_hook *h = node->hooks; h; h = h->next) h->refs++, (*out)[i++] = h;
    return SP_OK;
}

static void snapshot_end(sp_hook **room, sp_hook **list, int n)
{
    for (int i = 0; i < n; i++) hook_drop(list[i]);
    if (list != room) sp__free(list, (size_t)n * sizeof *list);
}

static sp_status run_selected(sp_node *node, int out_nr, bool after, sp_tensor **g, bool *touched)
{
    sp_hook *room[SNAPSHOT_ROOM], **list;
    int n;
    SP_RETURN_IF(snapshot(node, room, &list, &n));
    sp_status status = SP_OK;
    for (int i = 0; i < n; i++) {
        const sp_hook *h = list[i];
        if (h->removed || !h->fn || h->after != after || h->out_nr != out_nr) continue;
        *touched = true;
        SP_TRY(hook_call(node, h, g));
    }
    /* Kept gradients are those that all other hooks have had their say about. */
    for (int i = 0; i < n; i++) {
        const sp_hook *h = list[i];
        if (after || h->fn || !h->keeper || h->out_nr != out_nr) continue;
        *touched = true;
        sp_drop(&h->keeper->grad);
        h->keeper->grad = sp__retain(*g);
    }
out:
    snapshot_end(room, list, n);
    return status;
}

sp_status sp__hooks_run(sp_node *node, int out_nr, sp_tensor **g, bool *touched)
{
    return run_selected(node, out_nr, false, g, touched);
}

sp_status sp__hooks_run_after(sp_leaf *leaf)
{
    bool touched = false;
    sp_tensor *handle = sp__retain(leaf->handle);
    sp_status status = run_selected(&leaf->node, 0, true, &handle, &touched);
    sp_drop(&handle);
    return status;
}
