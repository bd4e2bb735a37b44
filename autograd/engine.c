/* Backward: gradients flow from the roots along the edges, latest node first.
 *
 * A heap ordered by sequence number holds the nodes that have gradients waiting. A node's number is
 * larger than those of all nodes it leads to, so when it comes off the heap nothing can add to its
 * gradients any more: no counting of dependencies, no recursion, and only the frontier is in
 * memory. Leaves, whose number is 0, come last; but where hooks wait at some, a survey counts what
 * leads to each, and it runs as soon as all of that has (survey.c).
 *
 * Several runs may be under way at once, on several threads or from within a hook: each has tasks
 * of its own, and a node lists those that are at it.
 */
#include "autograd/engine_int.h"

#include <string.h>

#include "ops_gen.h"

static __thread sp_run *current; /* the innermost run of this thread */

/* ---- tasks ----- */

static size_t task_bytes(const sp_node *node)
{
    return sizeof(sp_task) + node->n_out * sizeof(sp_slot);
}

sp_status sp__task_new(sp_run *r, sp_node *node, sp_task **out)
{
    sp_task *task = sp__alloc_zero(task_bytes(node));
    if (!task) return sp_fail(SP_EMEMORY, "backward: no memory for a gradient on its way");
    task->node = sp__node_keep(node);
    task->run = r;
    task->next = node->tasks;
    node->tasks = task;
    *out = task;
    return SP_OK;
}

void sp__task_clear(sp_task *task)
{
    for (int i = 0; i < task->node->n_out; i++) sp_drop(&task->slot[i].g);
}

void sp__task_free(sp_task *task)
{
    sp_node *node = task->node;
    sp_task **at = &node->tasks;
    while (*at != task) at = &(*at)->next;
    *at = task->next;
    sp__task_clear(task);
    sp__free(task, task_bytes(node));
    sp__node_let_go(node);
}

/* ---- the heap ----- */

/* Doubles an array that starts out as `room` (NULL: nothing). */
sp_status sp__tasks_grow(sp_task ***items, size_t *cap, sp_task **room)
{
    size_t old = *cap * sizeof **items, new_cap = *cap ? 2 * *cap : SP_HEAP_ROOM;
    sp_task **more = sp__alloc(new_cap * sizeof **items);
    if (!more) return sp_fail(SP_EMEMORY, "backward: no memory for the list of nodes to run");
    if (old) memcpy(more, *items, old);
    if (*items != room) sp__free(*items, old);
    *items = more;
    *cap = new_cap;
    return SP_OK;
}

sp_status sp__run_push(sp_run *r, sp_task *task)
{
    if (r->n_heap == r->cap_heap)
        SP_RETURN_IF(sp__tasks_grow(&r->heap, &r->cap_heap, r->heap_room));
    size_t i = r->n_heap++;
    for (; i > 0 && r->heap[(i - 1) / 2]->node->seq < task->node->seq; i = (i - 1) / 2)
        r->heap[i] = r->heap[(i - 1) / 2];
    r->heap[i] = task;
    task->queued = true;
    return SP_OK;
}

sp_task *sp__run_pop(sp_run *r)
{
    sp_task *top = r->heap[0], *last = r->heap[--r->n_heap];
    size_t i = 0, n = r->n_heap;
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && r->heap[child + 1]->node->seq > r->heap[child]->node->seq) child++;
        if (r->heap[child]->node->seq <= last->node->seq) break;
        r->heap[i] = r->heap[child];
    }
    r->heap[i] = last;
    top->queued = false;
    return top;
}

/* ---- gradients arrive ----- */

/* Makes *g fit what it is a gradient of: casts it; a wrong shape is a wrong formula. */
static sp_status fit(const sp_node *node, int nr, sp_tensor **g)
{
    if (SP_LIKELY(sp__node_out_fits(node, nr, *g))) return SP_OK;
    sp_meta want;
    sp__node_out_meta(node, nr, &want);
    bool same = (*g)->rank == want.rank;
    for (int i = 0; same && i < want.rank; i++) same = (*g)->shape[i] == want.shape[i];
    if (!same)
        return sp_fail(
            SP_EINTERNAL, "backward: a gradient of shape %s came to %s, whose result has shape %s",
            SP_SHAPE(*g), sp__node_op(node),
            sp__shape_text(want.rank, want.shape, (char[SP_SHAPE_TEXT]){0}, SP_SHAPE_TEXT));
    sp_tensor *cast = NULL;
    SP_RETURN_IF(sp_cast(*g, (sp_dtype)want.dtype, &cast));
    sp_drop(g);
    *g = cast;
    return SP_OK;
}

/* slot += *g, taking *g over; into the bytes of one of them where nobody else can see those. */
static sp_status slot_add(sp_slot *slot, sp_tensor **g, bool create)
{
    sp_tensor *sum = NULL;
    if (!slot->g) {
        slot->g = *g;
        *g = NULL;
        return SP_OK;
    }
    if (!create && !slot->shared && sp__sole_owner(slot->g)) return sp_add_(slot->g, *g);
    if (!create && sp__sole_owner(*g)) {
        SP_RETURN_IF(sp_add_(*g, slot->g));
        sum = *g;
        *g = NULL;
    } else {
        SP_RETURN_IF(sp_add(slot->g, *g, &sum));
    }
    sp_drop(&slot->g);
    *slot = (sp_slot){.g = sum};
    return SP_OK;
}

sp_status sp__run_arrive(sp_run *r, sp_edge to, sp_tensor **g)
{
    sp_task *task = sp__task_at(r, to.node);
    if (r->selective && (!task || !task->wanted)) return SP_OK;
    if (!task) SP_RETURN_IF(sp__task_new(r, to.node, &task));
    sp_status status = SP_OK;
    if (*g) {
        SP_TRY(fit(to.node, to.nr, g));
        SP_TRY(slot_add(&task->slot[to.nr], g, r->create));
    }
    if (!task->queued && !task->waits) SP_TRY(sp__run_push(r, task));
    return SP_OK;
out:
    if (!r->selective && !task->queued) sp__task_free(task);
    return status;
}

/* ---- one node ----- */

static void capture(sp_run *r, const sp_task *task)
{
    for (int i = 0; i < r->n_inputs; i++) {
        if (r->inputs[i].node != task->node) continue;
        sp_tensor *g = task->slot[r->inputs[i].nr].g;
        if (g) r->grads[i] = sp__retain(g);
    }
}

static uint64_t needed_edges(const sp_run *r, const sp_node *node)
{
    uint64_t need = 0;
    for (int i = 0; i < node->n_in; i++)
        if (sp__run_needs(r, node, i)) need |= sp__in_bit(i);
    return need;
}

static sp_status pass_on(sp_run *r, const sp_node *node, uint64_t need, sp_tensor **gx)
{
    for (int i = 0; i < node->n_in; i++) {
        if ((need & sp__in_bit(i)) && gx[i] && sp__run_needs(r, node, i))
            SP_RETURN_IF(sp__run_arrive(r, node->edges[i], &gx[i]));
        sp_drop(&gx[i]);
    }
    return SP_OK;
}

enum { GRADS_ROOM = 12 };

static bool any_gradient(const sp_task *task)
{
    for (int i = 0; i < task->node->n_out; i++)
        if (task->slot[i].g) return true;
    return false;
}

/* The node's vjp, with its own hooks around it. */
static sp_status vjp_of(const sp_run *r, sp_task *task, uint64_t need, sp_tensor **gy,
                        sp_tensor **gx)
{
    sp_node *node = task->node;
    bool hooked = node->flags & SP_NODE_HOOKED;
    if (SP_UNLIKELY(hooked)) SP_RETURN_IF(sp__hooks_run_before(node, task->slot));
    for (int i = 0; i < node->n_out; i++) gy[i] = task->slot[i].g;
    if (SP_LIKELY(!hooked || any_gradient(task)))
        SP_RETURN_IF(sp__anomaly_on() ? sp__anomaly_vjp(node, gy, need, gx)
                                      : sp__node_vjp(node, gy, need, gx));
    if (!r->retain) sp__node_release(node);
    return SP_UNLIKELY(hooked) ? sp__hooks_run_after(node, gy, gx, node->n_in) : SP_OK;
}

static sp_status run_vjp(sp_run *r, sp_task *task)
{
    sp_node *node = task->node;
    sp_tensor *room[GRADS_ROOM] = {NULL}, **gx = room;
    uint64_t need = needed_edges(r, node);
    if (!need || !any_gradient(task)) return SP_OK;
    int n = node->n_in + node->n_out;
    size_t bytes = (size_t)n * sizeof *gx;
    if (n > GRADS_ROOM && !(gx = sp__alloc_zero(bytes)))
        return sp_fail(SP_EMEMORY, "backward: no memory for the gradients of %s",
                       sp__node_op(node));

    sp_status status = SP_OK;
    SP_TRY(vjp_of(r, task, need, gx + node->n_in, gx));
    /* What is passed on unchanged has one owner less, and may be added to in place. */
    sp__task_clear(task);
    SP_TRY(pass_on(r, node, need, gx));
out:
    for (int i = 0; i < node->n_in; i++) sp_drop(&gx[i]);
    if (gx != room) sp__free(gx, bytes);
    return status;
}

static sp_status run_leaf(const sp_run *r, sp_task *task)
{
    sp_leaf *leaf = (sp_leaf *)task->node;
    sp_slot *slot = &task->slot[0];
    if (SP_LIKELY(!(leaf->node.flags & SP_NODE_HOOKED)))
        return slot->g ? sp__accumulate(leaf, slot, r->create) : SP_OK;
    SP_RETURN_IF(sp__hooks_run_before(&leaf->node, slot));
    sp_tensor *g = slot->g ? sp__retain(slot->g) : NULL;
    sp_status status = g ? sp__accumulate(leaf, slot, r->create) : SP_OK;
    if (status == SP_OK) status = sp__hooks_run_after(&leaf->node, &g, NULL, 0);
    sp_drop(&g);
    return status;
}

sp_status sp__run_seen(sp_run *r, sp_task *task)
{
    if (SP_UNLIKELY(task->node->hooks != NULL))
        SP_RETURN_IF(sp__hooks_run_grads(task->node, task->slot));
    if (r->grads) capture(r, task);
    return SP_OK;
}

/* What leads to a leaf has been run once more; after the last, the leaf's turn comes. */
static void edges_done(sp_run *r, const sp_node *node)
{
    for (int i = 0; i < node->n_in; i++) {
        sp_node *to = node->edges[i].node;
        sp_task *task = to && to->kind == SP_NODE_LEAF ? sp__task_at(r, to) : NULL;
        if (!task || !task->waits || --task->waits || !task->slot[0].g) continue;
        *r->ready_end = task;
        r->ready_end = &task->after;
    }
}

void sp__run_finish(sp_run *r, sp_task *task)
{
    if (SP_UNLIKELY(r->counts_leaves)) edges_done(r, task->node);
    if (r->selective)
        sp__task_clear(task);
    else
        sp__task_free(task);
}

/* ---- a run ----- */

static sp_status run_task(sp_run *r, sp_task *task)
{
    sp_parts p;
    int64_t start;
    SP_RETURN_IF(sp__run_seen(r, task));
    if (sp__parts_begin(r, task->node, &p, &start)) return sp__run_parts(r, task, &p, start);
    if (task->node->kind != SP_NODE_LEAF) return run_vjp(r, task);
    return r->grads || !task->slot[0].g ? SP_OK : run_leaf(r, task);
}

/* A leaf that waits for what had no gradient to pass on. */
static sp_task *left_over(sp_run *r)
{
    while (r->n_left < r->n_order) {
        sp_task *task = r->order[r->n_left++];
        if (!task->waits || !task->slot[0].g) continue;
        task->waits = 0;
        return task;
    }
    return NULL;
}

static sp_task *next_task(sp_run *r)
{
    sp_task *task = r->ready;
    if (SP_UNLIKELY(task != NULL)) {
        r->ready = task->after;
        if (!r->ready) r->ready_end = &r->ready;
        return task;
    }
    if (r->n_heap) return sp__run_pop(r);
    return r->counts_leaves ? left_over(r) : NULL;
}

static sp_status run_tasks(sp_run *r)
{
    sp_status status = SP_OK;
    for (sp_task *task; status == SP_OK && (task = next_task(r));) {
        status = run_task(r, r->now = task);
        if (SP_UNLIKELY(status != SP_OK) && sp__anomaly_on())
            status = sp__anomaly_failed(task->node, status);
        sp__run_finish(r, task);
    }
    r->now = NULL;
    return status;
}

sp_status sp__run_all(sp_run *r)
{
    bool no_grad = sp__tls.no_grad;
    sp__tls.no_grad = !r->create;
    r->outer = current;
    current = r;
    sp_status status = run_tasks(r);
    if (status == SP_OK && r->callbacks) status = sp__run_callbacks(r);
    current = r->outer;
    sp__tls.no_grad = no_grad;
    return status;
}

sp_run *sp__run_current(void)
{
    return current;
}

void sp__run_begin(sp_run *r, bool retain, bool create)
{
    static _Atomic uint64_t last_id;
    memset(r, 0, offsetof(sp_run, heap_room));
    r->id = atomic_fetch_add_explicit(&last_id, 1, memory_order_relaxed) + 1;
    r->heap = r->heap_room;
    r->cap_heap = SP_HEAP_ROOM;
    r->ready_end = &r->ready;
    r->create = create;
    r->retain = retain || create;
}

void sp__run_end(sp_run *r)
{
    if (!r->selective)
        for (size_t i = 0; i < r->n_heap; i++) sp__task_free(r->heap[i]);
    for (size_t i = 0; i < r->n_order; i++) sp__task_free(r->order[i]);
    if (r->heap != r->heap_room) sp__free(r->heap, r->cap_heap * sizeof *r->heap);
    if (r->order) sp__free(r->order, r->cap_order * sizeof *r->order);
    sp__run_callbacks_free(r);
}
