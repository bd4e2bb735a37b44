/* Hooks: callbacks on a gradient's way. At a node they run in this order:
 *
 *     GRAD     each tensor's, in order: sees its gradient, may replace it
 *     KEEP     retain_grad(): what is left of that goes to t.grad
 *     BEFORE   the node's, on the gradients of all its outputs
 *              the vjp, or the accumulation at a leaf, and then that leaf's ADDED
 *     AFTER    the node's, on the gradients of its inputs and outputs
 *
 * Invariants
 * 1. A tensor's hook sits at the node that its gradient arrives at, so it works after the tensor
 * itself is gone.
 * 2. Those that are there when a kind begins are run, though a hook removes itself or others
 * meanwhile: entries are counted. What is added meanwhile waits for the next run.
 * 3. `refs` counts the node's list and the runs, and keeps ctx; `holders` those who may remove the
 * hook, and keeps only the entry.
 */
#include "autograd/tape_int.h"

#include <stdatomic.h>
#include <string.h>

static _Atomic int64_t last_id;
_Atomic int64_t sp__leaf_hooks;

/* ---- entries ----- */

static void hook_free(sp_hook *hook)
{
    if (!hook->refs && !hook->holders) sp__free(hook, sizeof *hook);
}

static void hook_drop(sp_hook *hook)
{
    if (--hook->refs > 0) return;
    hook->holders++; /* dropping ctx may run anything */
    if (hook->drop) hook->drop(hook->ctx);
    hook->holders--;
    hook_free(hook);
}

void sp__hook_let_go(sp_hook **at)
{
    sp_hook *hook = *at;
    *at = NULL;
    if (!hook) return;
    hook->holders--;
    hook_free(hook);
}

static void list_append(sp_node *node, sp_hook *hook)
{
    sp_hook **at = &node->hooks;
    while (*at) at = &(*at)->next;
    *at = hook;
    hook->node = node;
    if (node->kind == SP_NODE_LEAF) atomic_fetch_add(&sp__leaf_hooks, 1);
}

static sp_status hook_append(sp_node *node, sp_hook model, sp_hook **out)
{
    sp_hook *hook = sp__dup(&model, sizeof model);
    if (!hook) return sp_fail(SP_EMEMORY, "hook: no memory to add it");
    hook->id = atomic_fetch_add(&last_id, 1) + 1;
    hook->refs = 1;
    list_append(node, hook);
    if (model.kind == SP_HOOK_BEFORE || model.kind == SP_HOOK_AFTER) node->flags |= SP_NODE_HOOKED;
    if (out) hook->holders++, *out = hook;
    return SP_OK;
}

void sp__hook_remove(sp_hook *hook)
{
    if (!hook->node) return;
    sp_hook **at = &hook->node->hooks;
    while (*at != hook) at = &(*at)->next;
    *at = hook->next;
    if (hook->node->kind == SP_NODE_LEAF) atomic_fetch_sub(&sp__leaf_hooks, 1);
    hook->next = NULL, hook->node = NULL;
    hook_drop(hook);
}

void sp__hooks_free(sp_node *node)
{
    while (node->hooks) sp__hook_remove(node->hooks);
}

/* ---- adding and removing ----- */

static sp_status tensor_hook(sp_tensor *t, sp_hook hook, sp_hook **out)
{
    if (!(t->flags & SP_T_REQUIRES_GRAD))
        return sp_fail(SP_EGRAD,
                       "hook: the tensor does not require grad; call requires_grad_() first");
    sp_edge edge;
    SP_RETURN_IF(sp__history(t, &edge));
    if (hook.kind == SP_HOOK_ADDED && edge.node->kind != SP_NODE_LEAF)
        return sp_fail(SP_EGRAD,
                       "hook: only leaves accumulate gradients; this tensor was computed by %s",
                       sp__node_op(edge.node));
    hook.out_nr = edge.nr;
    return hook_append(edge.node, hook, out);
}

sp_status sp__hook_add(sp_tensor *t, bool added, sp_hook_fn fn, void *ctx, void (*drop)(void *ctx),
                       sp_hook **out)
{
    uint8_t kind = added ? SP_HOOK_ADDED : SP_HOOK_GRAD;
    return tensor_hook(t, (sp_hook){.kind = kind, .fn = fn, .ctx = ctx, .drop = drop}, out);
}

sp_status sp_hook_add(sp_tensor *t, sp_hook_fn fn, void *ctx, void (*drop)(void *ctx), int64_t *id)
{
    sp_hook *hook;
    SP_RETURN_IF(sp__hook_add(t, false, fn, ctx, drop, &hook));
    if (id) *id = hook->id;
    sp__hook_let_go(&hook);
    return SP_OK;
}

sp_status sp__node_hook_add(sp_node *node, bool before, sp_node_hook_fn fn, void *ctx,
                            void (*drop)(void *ctx), sp_hook **out)
{
    uint8_t kind = before ? SP_HOOK_BEFORE : SP_HOOK_AFTER;
    return hook_append(node, (sp_hook){.kind = kind, .node_fn = fn, .ctx = ctx, .drop = drop}, out);
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
            sp__hook_remove(h);
            return;
        }
        node = node->flags & SP_NODE_INPLACE ? node->edges[0].node : node != leaf ? leaf : NULL;
    }
}

/* ---- keeping the gradient of an inner tensor ----- */

sp_status sp__keeper_add(sp_grad_meta *meta)
{
    sp_edge edge;
    SP_RETURN_IF(sp__history(meta->self, &edge));
    SP_RETURN_IF(hook_append(
        edge.node, (sp_hook){.kind = SP_HOOK_KEEP, .keeper = meta, .out_nr = edge.nr}, NULL));
    meta->retain = true;
    return SP_OK;
}

void sp__keeper_move(sp_grad_meta *meta, sp_node *from, sp_node *to, int out_nr)
{
    sp_hook *hook = from ? from->hooks : NULL;
    while (hook && hook->keeper != meta) hook = hook->next;
    meta->retain = hook && to;
    if (!hook) return;
    hook->refs++;
    sp__hook_remove(hook);
    if (meta->retain) {
        hook->out_nr = out_nr;
        list_append(to, hook);
        return;
    }
    hook->keeper = NULL;
    hook_drop(hook);
}

/* ---- runs ----- */

enum { SNAPSHOT_ROOM = 8 };

typedef struct snapshot { /* the hooks of some kinds that are there now, kept */
    sp_hook **list, *room[SNAPSHOT_ROOM];
    int n;
} snapshot;

static sp_status snapshot_take(snapshot *s, const sp_node *node, int first, int last)
{
    s->n = 0, s->list = s->room;
    for (const sp_hook *h = node->hooks; h; h = h->next)
        s->n += h->kind >= first && h->kind <= last;
    if (s->n > SNAPSHOT_ROOM && !(s->list = sp__alloc((size_t)s->n * sizeof(sp_hook *)))) {
        s->n = 0;
        return sp_fail(SP_EMEMORY, "hook: no memory to run them");
    }
    int i = 0;
    for (sp_hook *h = node->hooks; h; h = h->next)
        if (h->kind >= first && h->kind <= last) h->refs++, s->list[i++] = h;
    return SP_OK;
}

static void snapshot_end(snapshot *s)
{
    for (int i = 0; i < s->n; i++) hook_drop(s->list[i]);
    if (s->list != s->room && s->list) sp__free(s->list, (size_t)s->n * sizeof *s->list);
}

static sp_status does_not_fit(const sp_tensor *g, int rank, const int64_t *shape, int dtype)
{
    return sp_fail(
        SP_ESHAPE,
        "hook: returned a gradient of shape %s and dtype %s for a tensor of shape %s and dtype %s",
        SP_SHAPE(g), sp_dtype_name((sp_dtype)g->dtype),
        sp__shape_text(rank, shape, (char[SP_SHAPE_TEXT]){0}, SP_SHAPE_TEXT),
        sp_dtype_name((sp_dtype)dtype));
}

static sp_status output_check(const sp_node *node, int out_nr, const sp_tensor *g)
{
    if (sp__node_out_fits(node, out_nr, g)) return SP_OK;
    sp_meta want;
    sp__node_out_meta(node, out_nr, &want);
    return does_not_fit(g, want.rank, want.shape, want.dtype);
}

/* ---- tensors' hooks ----- */

static sp_status call_grad(const sp_hook *hook, const sp_node *node, sp_slot *slot)
{
    sp_tensor *replacement = NULL;
    slot->shared = true;
    sp_status status = hook->fn(hook->ctx, slot->g, &replacement);
    if (status == SP_OK && replacement) status = output_check(node, hook->out_nr, replacement);
    if (status != SP_OK || !replacement) {
        sp_drop(&replacement);
        return status;
    }
    sp_drop(&slot->g);
    slot->g = replacement;
    return SP_OK;
}

/* All hooks of a tensor come before those of another, whose first was registered later. */
static bool leads_group(const snapshot *s, int i)
{
    for (int k = 0; k < i; k++)
        if (s->list[k]->kind == SP_HOOK_GRAD && s->list[k]->out_nr == s->list[i]->out_nr)
            return false;
    return s->list[i]->kind == SP_HOOK_GRAD;
}

static sp_status call_group(const snapshot *s, int first, const sp_node *node, sp_slot *slots)
{
    int nr = s->list[first]->out_nr;
    for (int i = first; i < s->n && slots[nr].g; i++)
        if (s->list[i]->kind == SP_HOOK_GRAD && s->list[i]->out_nr == nr)
            SP_RETURN_IF(call_grad(s->list[i], node, &slots[nr]));
    return SP_OK;
}

/* Added to what earlier runs left there; adding may let another thread in, or end the handle. */
static sp_status keep(const sp_hook *hook, sp_slot *slot)
{
    sp_tensor *sum = NULL;
    if (!hook->keeper || !slot->g) return SP_OK;
    slot->shared = true;
    sp_tensor *old = hook->keeper->grad ? sp__retain(hook->keeper->grad) : NULL;
    sp_status status = old ? sp_add(old, slot->g, &sum) : SP_OK;
    sp_drop(&old);
    SP_RETURN_IF(status);
    if (!sum) sum = sp__retain(slot->g);
    if (hook->keeper) {
        old = hook->keeper->grad;
        hook->keeper->grad = sum;
        sum = old;
    }
    sp_drop(&sum);
    return SP_OK;
}

sp_status sp__hooks_run_grads(sp_node *node, sp_slot *slots)
{
    snapshot s;
    sp_status status = SP_OK;
    SP_TRY(snapshot_take(&s, node, SP_HOOK_GRAD, SP_HOOK_KEEP));
    for (int i = 0; i < s.n; i++)
        if (leads_group(&s, i)) SP_TRY(call_group(&s, i, node, slots));
    for (int i = 0; i < s.n; i++)
        if (s.list[i]->kind == SP_HOOK_KEEP) SP_TRY(keep(s.list[i], &slots[s.list[i]->out_nr]));
out:
    snapshot_end(&s);
    return status;
}

sp_status sp__hooks_run_added(sp_leaf *leaf)
{
    snapshot s;
    sp_tensor *handle = sp__retain(leaf->handle);
    sp_status status = SP_OK;
    SP_TRY(snapshot_take(&s, &leaf->node, SP_HOOK_ADDED, SP_HOOK_ADDED));
    for (int i = 0; i < s.n; i++) {
        sp_tensor *unused = NULL;
        status = s.list[i]->fn(s.list[i]->ctx, handle, &unused);
        sp_drop(&unused);
        SP_TRY(status);
    }
out:
    snapshot_end(&s);
    sp_drop(&handle);
    return status;
}

/* ---- nodes' hooks ----- */

enum { GRADS_ROOM = 8 };

/* What a hook put into replaced[n] takes the place of all n gradients; fits(): of one of them. */
typedef struct exchange {
    sp_tensor **replaced, *room[GRADS_ROOM];
    int n;
} exchange;

static sp_status exchange_begin(exchange *e, int n)
{
    e->n = n, e->replaced = e->room;
    size_t bytes = (size_t)n * sizeof(sp_tensor *);
    if (n > GRADS_ROOM && !(e->replaced = sp__alloc(bytes)))
        return sp_fail(SP_EMEMORY, "hook: no memory for %d gradients", n);
    memset(e->replaced, 0, bytes);
    return SP_OK;
}

static void exchange_end(exchange *e)
{
    for (int i = 0; i < e->n && e->replaced; i++) sp_drop(&e->replaced[i]);
    if (e->replaced != e->room && e->replaced)
        sp__free(e->replaced, (size_t)e->n * sizeof *e->replaced);
}

static void swap(sp_tensor **a, sp_tensor **b)
{
    sp_tensor *was = *a;
    *a = *b, *b = was;
}

static sp_status call_before(const sp_hook *hook, const sp_node *node, sp_slot *slots)
{
    exchange e, now;
    bool any = false;
    sp_status status = SP_OK;
    now.n = 0, now.replaced = now.room;
    SP_TRY(exchange_begin(&e, node->n_out));
    SP_TRY(exchange_begin(&now, node->n_out));
    for (int i = 0; i < node->n_out; i++)
        if (slots[i].g) now.replaced[i] = sp__retain(slots[i].g), slots[i].shared = true;
    sp_node_grads g = {.gy = now.replaced, .n_out = node->n_out};
    SP_TRY(hook->node_fn(hook->ctx, &g, e.replaced, &any));
    for (int i = 0; any && i < node->n_out; i++)
        if (e.replaced[i]) SP_TRY(output_check(node, i, e.replaced[i]));
    for (int i = 0; any && i < node->n_out; i++)
        swap(&slots[i].g, &e.replaced[i]), slots[i].shared = true;
out:
    exchange_end(&now);
    exchange_end(&e);
    return status;
}

sp_status sp__hooks_run_before(sp_node *node, sp_slot *slots)
{
    snapshot s;
    sp_status status = SP_OK;
    SP_TRY(snapshot_take(&s, node, SP_HOOK_BEFORE, SP_HOOK_BEFORE));
    for (int i = 0; i < s.n; i++) SP_TRY(call_before(s.list[i], node, slots));
out:
    snapshot_end(&s);
    return status;
}

/* A gradient of an input may become another of its kind, or zero; from zero it cannot come back. */
static sp_status input_check(const sp_tensor *was, const sp_tensor *g, int i)
{
    if (!was)
        return sp_fail(SP_EGRAD,
                       "hook: returned a gradient for input %d, which has none; return None there",
                       i);
    bool same = was->dtype == g->dtype && was->rank == g->rank;
    for (int d = 0; same && d < g->rank; d++) same = was->shape[d] == g->shape[d];
    return same ? SP_OK : does_not_fit(g, was->rank, was->shape, was->dtype);
}

static sp_status call_after(const sp_hook *hook, sp_tensor *const *gy, int n_out, sp_tensor **gx,
                            int n_in)
{
    exchange e;
    bool any = false;
    sp_node_grads g = {.gx = gx, .gy = gy, .n_in = n_in, .n_out = n_out};
    sp_status status = SP_OK;
    SP_TRY(exchange_begin(&e, n_in));
    SP_TRY(hook->node_fn(hook->ctx, &g, e.replaced, &any));
    for (int i = 0; any && i < n_in; i++)
        if (e.replaced[i]) SP_TRY(input_check(gx[i], e.replaced[i], i));
    for (int i = 0; any && i < n_in; i++) swap(&gx[i], &e.replaced[i]);
out:
    exchange_end(&e);
    return status;
}

sp_status sp__hooks_run_after(sp_node *node, sp_tensor *const *gy, sp_tensor **gx, int n_in)
{
    snapshot s;
    sp_status status = SP_OK;
    SP_TRY(snapshot_take(&s, node, SP_HOOK_AFTER, SP_HOOK_AFTER));
    for (int i = 0; i < s.n; i++) SP_TRY(call_after(s.list[i], gy, node->n_out, gx, n_in));
out:
    snapshot_end(&s);
    return status;
}
