/* Backward: gradients flow from the roots along the edges, latest node first.
 *
 * A heap ordered by sequence number holds the nodes that have gradients waiting. A node's number is
 * larger than those of all nodes it leads to, so when it comes off the heap nothing can add to its
 * gradients any more: no counting of dependencies, no recursion, and only the frontier is in
 * memory.
 *
 * For sp_grad() a first walk finds the nodes from which an input can be reached; the others get no
 * gradients.
 *
 * Several runs may be under way at once, on several threads or from within a hook: each has tasks
 * of its own, and a node lists those that are at it.
 */
#include "autograd/tape_int.h"

#include <stdlib.h>
#include <string.h>

#include "autograd/autograd.h"
#include "autograd/calls.h"
#include "autograd/engine_int.h"

typedef struct sp_task { /* a node with what arrived for it in one run */
    sp_node *node;       /* owned */
    struct run *run;
    struct sp_task *next; /* tasks of other runs at the same node */
    bool queued;
    bool wanted; /* selective runs: an input can be reached from here */
    sp_slot slot[];
} sp_task;

enum { HEAP_ROOM = 24 };

typedef struct run {
    sp_task **heap;
    size_t n_heap, cap_heap;
    sp_task **order; /* selective: all reachable tasks, latest first; owned */
    size_t n_order, cap_order;
    bool selective, retain, create;
    const sp_edge *inputs; /* selective: whose gradients are asked for */
    sp_tensor **grads;
    int n_inputs;
    sp_task *heap_room[HEAP_ROOM];
} run;

/* ---- tasks ----- */

static sp_task *task_at(const run *r, const sp_node *node)
{
    sp_task *task = node->tasks;
    while (task && task->run != r) task = task->next;
    return task;
}

static size_t task_bytes(const sp_node *node)
{
    return sizeof(sp_task) + node->n_out * sizeof(sp_slot);
}

static sp_status task_new(run *r, sp_node *node, sp_task **out)
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

static void task_clear(sp_task *task)
{
    for (int i = 0; i < task->node->n_out; i++) sp_drop(&task->slot[i].g);
}

static void task_free(sp_task *task)
{
    sp_node *node = task->node;
    sp_task **at = &node->tasks;
    while (*at != task) at = &(*at)->next;
    *at = task->next;
    task_clear(task);
    sp__free(task, task_bytes(node));
    sp__node_let_go(node);
}

/* ---- the heap ----- */

/* Doubles an array that starts out as `room` (NULL: nothing). */
static sp_status grow(sp_task ***items, size_t *cap, sp_task **room)
{
    size_t old = *cap * sizeof **items, new_cap = *cap ? 2 * *cap : HEAP_ROOM;
    sp_task **more = sp__alloc(new_cap * sizeof **items);
    if (!more) return sp_fail(SP_EMEMORY, "backward: no memory for the list of nodes to run");
    if (old) memcpy(more, *items, old);
    if (*items != room) sp__free(*items, old);
    *items = more;
    *cap = new_cap;
    return SP_OK;
}

static sp_status heap_push(run *r, sp_task *task)
{
    if (r->n_heap == r->cap_heap) SP_RETURN_IF(grow(&r->heap, &r->cap_heap, r->heap_room));
    size_t i = r->n_heap++;
    for (; i > 0 && r->heap[(i - 1) / 2]->node->seq < task->node->seq; i = (i - 1) / 2)
        r->heap[i] = r->heap[(i - 1) / 2];
    r->heap[i] = task;
    task->queued = true;
    return SP_OK;
}

static sp_task *heap_pop(run *r)
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

static sp_status arrive(run *r, sp_edge to, sp_tensor **g)
{
    sp_task *task = task_at(r, to.node);
    if (r->selective && (!task || !task->wanted)) return SP_OK;
    if (!task) SP_RETURN_IF(task_new(r, to.node, &task));
    sp_status status = SP_OK;
    if (*g) {
        SP_TRY(fit(to.node, to.nr, g));
        SP_TRY(slot_add(&task->slot[to.nr], g, r->create));
    }
    if (!task->queued) SP_TRY(heap_push(r, task));
    return SP_OK;
out:
    if (!r->selective && !task->queued) task_free(task);
    return status;
}

/* ---- one node ----- */

static sp_status run_hooks(sp_task *task)
{
    sp_node *node = task->node;
    for (int i = 0; node->hooks && i < node->n_out; i++) {
        if (!task->slot[i].g) continue;
        bool touched = false;
        SP_RETURN_IF(sp__hooks_run(node, i, &task->slot[i].g, &touched));
        task->slot[i].shared |= touched;
    }
    return SP_OK;
}

static void capture(run *r, const sp_task *task)
{
    for (int i = 0; i < r->n_inputs; i++) {
        if (r->inputs[i].node != task->node) continue;
        sp_tensor *g = task->slot[r->inputs[i].nr].g;
        if (g) r->grads[i] = sp__retain(g);
    }
}

static bool is_needed(const run *r, const sp_node *node, int i)
{
    const sp_node *to = node->edges[i].node;
    if (!to) return false;
    if (!r->selective) return true;
    const sp_task *task = task_at(r, to);
    return task && task->wanted;
}

static uint64_t needed_edges(const run *r, const sp_node *node)
{
    uint64_t need = 0;
    for (int i = 0; i < node->n_in; i++)
        if (is_needed(r, node, i)) need |= sp__in_bit(i);
    return need;
}

static sp_status pass_on(run *r, const sp_node *node, uint64_t need, sp_tensor **gx)
{
    for (int i = 0; i < node->n_in; i++) {
        if ((need & sp__in_bit(i)) && gx[i] && is_needed(r, node, i))
            SP_RETURN_IF(arrive(r, node->edges[i], &gx[i]));
        sp_drop(&gx[i]);
    }
    return SP_OK;
}

enum { GRADS_ROOM = 12 };

static sp_status run_vjp(run *r, sp_task *task)
{
    sp_node *node = task->node;
    sp_tensor *room[GRADS_ROOM] = {NULL}, **gx = room, **gy;
    uint64_t need = needed_edges(r, node);
    bool any = false;
    for (int i = 0; i < node->n_out; i++) any |= task->slot[i].g != NULL;
    if (!any || !need) return SP_OK;
    size_t bytes = (size_t)(node->n_in + node->n_out) * sizeof *gx;
    if (node->n_in + node->n_out > GRADS_ROOM && !(gx = sp__alloc_zero(bytes)))
        return sp_fail(SP_EMEMORY, "backward: no memory for the gradients of %s",
                       sp__node_op(node));

    sp_status status = SP_OK;
    gy = gx + node->n_in; /* borrowed */
    for (int i = 0; i < node->n_out; i++) gy[i] = task->slot[i].g;
    SP_TRY(sp__node_vjp(node, gy, need, gx));
    if (!r->retain) sp__node_release(node);
    task_clear(
        task); /* what is passed on unchanged has one owner less, and may be added to in place */
    SP_TRY(pass_on(r, node, need, gx));
out:
    for (int i = 0; i < node->n_in; i++) sp_drop(&gx[i]);
    if (gx != room) sp__free(gx, bytes);
    return status;
}

static sp_status seen(run *r, sp_task *task)
{
    SP_RETURN_IF(run_hooks(task));
    if (r->selective) capture(r, task);
    return SP_OK;
}

static void finish(const run *r, sp_task *task)
{
    if (r->selective)
        task_clear(task);
    else
        task_free(task);
}

/* ---- several parts of one tensor ----- */

enum { PARTS_ROOM = 16 };

typedef struct parts { /* the gradients of nodes that follow one another and cut one tensor */
    sp_edge whole;
    sp_meta meta; /* of the whole */
    int dim, n, room;
    sp_part *list;
    sp_part first[PARTS_ROOM];
} parts;

static bool is_part(const run *r, const parts *p, const sp_node *node, int *dim, int64_t *start)
{
    return node->kind == SP_NODE_OP && node->n_in == 1 && is_needed(r, node, 0) &&
           node->edges[0].node == p->whole.node && node->edges[0].nr == p->whole.nr &&
           sp__part_of(node, &p->meta, dim, start);
}

/* Whether the next node is a part of the same tensor, along the same dimension. */
static bool part_follows(const run *r, const parts *p, int64_t *start)
{
    int dim;
    return r->n_heap && is_part(r, p, r->heap[0]->node, &dim, start) && dim == p->dim;
}

static bool begins_parts(const run *r, const sp_node *node, parts *p, int64_t *start)
{
    int64_t next;
    if (node->kind != SP_NODE_OP || node->n_in != 1 || !node->edges[0].node) return false;
    *p = (parts){.whole = node->edges[0], .room = PARTS_ROOM, .list = p->first};
    sp__node_out_meta(p->whole.node, p->whole.nr, &p->meta);
    return is_part(r, p, node, &p->dim, start) && part_follows(r, p, &next);
}

static sp_status parts_grow(parts *p)
{
    size_t old = (size_t)p->room * sizeof *p->list;
    sp_part *more = sp__alloc(2 * old);
    if (!more) return sp_fail(SP_EMEMORY, "backward: no memory for the gradients of parts");
    memcpy(more, p->list, old);
    if (p->list != p->first) sp__free(p->list, old);
    p->list = more, p->room *= 2;
    return SP_OK;
}

static sp_status parts_take(const run *r, parts *p, sp_task *task, int64_t start)
{
    sp_part part = {.g = task->slot[0].g, .start = start};
    if (!part.g) return SP_OK;
    if (p->n == p->room) SP_RETURN_IF(parts_grow(p));
    task->slot[0].g = NULL;
    sp_status status = sp__part_shaped(task->node, p->dim, &part.g);
    p->list[p->n++] = part;
    if (!r->retain) sp__node_release(task->node);
    return status;
}

/* Each layer of parts that do not overlap becomes one gradient of the whole. */
static sp_status parts_pass_on(run *r, parts *p)
{
    for (int layer; p->n > 0;) {
        sp_tensor *g = NULL;
        sp_status status = sp__parts_join(&p->meta, p->dim, p->list, p->n, &layer, &g);
        for (int i = 0; i < layer; i++) sp_drop(&p->list[i].g);
        p->n -= layer;
        memmove(p->list, p->list + layer, (size_t)p->n * sizeof *p->list);
        if (status == SP_OK) status = arrive(r, p->whole, &g);
        sp_drop(&g);
        SP_RETURN_IF(status);
    }
    return SP_OK;
}

static sp_status run_parts(run *r, sp_task *task, parts *p, int64_t start)
{
    sp_status status = SP_OK;
    SP_TRY(parts_take(r, p, task, start));
    while (part_follows(r, p, &start)) {
        sp_task *next = heap_pop(r);
        status = seen(r, next);
        if (status == SP_OK) status = parts_take(r, p, next, start);
        finish(r, next);
        SP_TRY(status);
    }
    SP_TRY(parts_pass_on(r, p));
out:
    for (int i = 0; i < p->n; i++) sp_drop(&p->list[i].g);
    if (p->list != p->first) sp__free(p->list, (size_t)p->room * sizeof *p->list);
    return status;
}

static sp_status run_task(run *r, sp_task *task)
{
    parts p;
    int64_t start;
    SP_RETURN_IF(seen(r, task));
    if (begins_parts(r, task->node, &p, &start)) return run_parts(r, task, &p, start);
    if (task->node->kind != SP_NODE_LEAF) return run_vjp(r, task);
    if (r->selective || !task->slot[0].g) return SP_OK;
    return sp__accumulate((sp_leaf *)task->node, &task->slot[0], r->create);
}

static sp_status run_all(run *r)
{
    bool no_grad = sp__tls.no_grad;
    sp__tls.no_grad = !r->create;
    sp_status status = SP_OK;
    while (r->n_heap && status == SP_OK) {
        sp_task *task = heap_pop(r);
        status = run_task(r, task);
        finish(r, task);
    }
    sp__tls.no_grad = no_grad;
    return status;
}

static void run_end(run *r)
{
    if (!r->selective)
        for (size_t i = 0; i < r->n_heap; i++) task_free(r->heap[i]);
    for (size_t i = 0; i < r->n_order; i++) task_free(r->order[i]);
    if (r->heap != r->heap_room) sp__free(r->heap, r->cap_heap * sizeof *r->heap);
    if (r->order) sp__free(r->order, r->cap_order * sizeof *r->order);
}

/* ---- which nodes lead to the inputs ----- */

static sp_status discover(run *r, sp_node *node, uint64_t oldest)
{
    sp_task *task;
    if (!node || node->seq < oldest || task_at(r, node)) return SP_OK;
    if (r->n_order == r->cap_order) SP_RETURN_IF(grow(&r->order, &r->cap_order, NULL));
    SP_RETURN_IF(task_new(r, node, &task));
    r->order[r->n_order++] = task;
    return heap_push(r, task);
}

static int by_seq_descending(const void *a, const void *b)
{
    uint64_t x = (*(sp_task *const *)a)->node->seq, y = (*(sp_task *const *)b)->node->seq;
    return x < y ? 1 : x > y ? -1 : 0;
}

/* Walks everything that is not older than the oldest input, then marks from the inputs up. */
static sp_status select_tasks(run *r, const sp_edge *roots, int n_roots)
{
    uint64_t oldest = UINT64_MAX;
    for (int i = 0; i < r->n_inputs; i++)
        if (r->inputs[i].node->seq < oldest) oldest = r->inputs[i].node->seq;
    for (int i = 0; i < n_roots; i++) SP_RETURN_IF(discover(r, roots[i].node, oldest));
    while (r->n_heap) {
        const sp_node *node = heap_pop(r)->node;
        for (int i = 0; i < node->n_in; i++) SP_RETURN_IF(discover(r, node->edges[i].node, oldest));
    }
    for (int i = 0; i < r->n_inputs; i++) {
        sp_task *task = task_at(r, r->inputs[i].node);
        if (task) task->wanted = true;
    }
    qsort(r->order, r->n_order, sizeof *r->order, by_seq_descending);
    for (size_t k = r->n_order; k-- > 0;) {
        const sp_node *node = r->order[k]->node;
        for (int i = 0; i < node->n_in && !r->order[k]->wanted; i++) {
            const sp_task *to = node->edges[i].node ? task_at(r, node->edges[i].node) : NULL;
            r->order[k]->wanted = to && to->wanted;
        }
    }
    return SP_OK;
}

/* ---- roots ----- */

static sp_status root_gradient(const char *op, const sp_tensor *root, const sp_tensor *given,
                               sp_tensor **out)
{
    if (!given) {
        if (root->numel != 1)
            return sp_fail(SP_EGRAD,
                           "%s: without a gradient the root must have one element, this one has "
                           "shape %s; reduce it with "
                           "sum() or mean(), or pass its gradient",
                           op, SP_SHAPE(root));
        if (sp__dtype_is_complex(root->dtype))
            return sp_fail(SP_EGRAD,
                           "%s: without a gradient the root must be real, this one is %s; take its "
                           "abs() or real part, or pass its gradient",
                           op, sp_dtype_name((sp_dtype)root->dtype));
        return sp__call_full_like(root, 1, out);
    }
    bool same = given->rank == root->rank;
    for (int i = 0; same && i < root->rank; i++) same = given->shape[i] == root->shape[i];
    if (!same)
        return sp_fail(SP_ESHAPE,
                       "%s: a gradient of shape %s for a root of shape %s: both must be the same",
                       op, SP_SHAPE(given), SP_SHAPE(root));
    if (!sp__is_float(given->dtype))
        return sp_fail(SP_EDTYPE, "%s: a gradient must be floating, this one is %s", op,
                       sp_dtype_name(given->dtype));
    *out = sp__retain(given);
    return SP_OK;
}

static sp_status root_edge(const char *op, const sp_tensor *root, sp_edge *out)
{
    SP_RETURN_IF(sp__history(root, out));
    if (out->node) return SP_OK;
    return sp_fail(SP_EGRAD,
                   "%s: the root does not require grad and has no history: nothing it was computed "
                   "from requires grad, or "
                   "it was computed under no_grad()",
                   op);
}

/* The gradient of ones, or the given one, starts at the root. */
static sp_status start_at(run *r, const char *op, const sp_tensor *root, const sp_tensor *given,
                          sp_edge edge)
{
    sp_tensor *g = NULL;
    bool no_grad = sp__tls.no_grad;
    sp__tls.no_grad = !r->create;
    sp_status status = SP_OK;
    SP_TRY(root_gradient(op, root, given, &g));
    SP_TRY(arrive(r, edge, &g));
out:
    sp__tls.no_grad = no_grad;
    sp_drop(&g);
    return status;
}

static void run_begin(run *r, bool retain, bool create)
{
    r->heap = r->heap_room;
    r->cap_heap = HEAP_ROOM;
    r->n_heap = 0;
    r->order = NULL;
    r->n_order = r->cap_order = 0;
    r->selective = false;
    r->create = create;
    r->retain = retain || create;
    r->n_inputs = 0;
}

sp_status sp_backward(const sp_tensor *t, const sp_backward_opt *opt)
{
    sp_backward_opt o = {0};
    if (opt) memcpy(&o, opt, opt->size < sizeof o ? opt->size : sizeof o);
    sp_edge edge;
    SP_RETURN_IF(root_edge("backward", t, &edge));
    run r;
    run_begin(&r, o.retain_graph, o.create_graph);
    sp_status status = SP_OK;
    SP_TRY(start_at(&r, "backward", t, o.gradient, edge));
    SP_TRY(run_all(&r));
out:
    run_end(&r);
    return status;
}

/* ---- gradients of chosen inputs ----- */

static sp_status input_edges(const sp_tensor *const *inputs, int n, sp_edge *edges)
{
    for (int i = 0; i < n; i++) {
        SP_RETURN_IF(sp__history(inputs[i], &edges[i]));
        if (!edges[i].node)
            return sp_fail(SP_EGRAD,
                           "grad: input %d does not require grad; call requires_grad_() on it "
                           "before it is used",
                           i);
    }
    return SP_OK;
}

/* What no gradient came for: reached by zeros alone, or not at all. */
static sp_status fill_gaps(const run *r, const sp_tensor *const *inputs, const sp_grad_opt *o)
{
    for (int i = 0; i < r->n_inputs; i++) {
        if (r->grads[i]) continue;
        const sp_task *task = task_at(r, r->inputs[i].node);
        if (task || o->materialize_grads)
            SP_RETURN_IF(sp__call_full_like(inputs[i], 0, &r->grads[i]));
        else if (!o->allow_unused)
            return sp_fail(SP_EGRAD,
                           "grad: no root depends on input %d; leave it out, or pass "
                           "allow_unused=True to get None for it",
                           i);
    }
    return SP_OK;
}

static sp_status grad_run(run *r, const sp_tensor *const *roots, const sp_edge *from, int n_roots,
                          const sp_tensor *const *inputs, const sp_grad_opt *o)
{
    SP_RETURN_IF(select_tasks(r, from, n_roots));
    for (int i = 0; i < n_roots; i++)
        SP_RETURN_IF(
            start_at(r, "grad", roots[i], o->grad_outputs ? o->grad_outputs[i] : NULL, from[i]));
    SP_RETURN_IF(run_all(r));
    return fill_gaps(r, inputs, o);
}

sp_status sp_grad(const sp_tensor *const *roots, int n_roots, const sp_tensor *const *inputs,
                  int n_inputs, const sp_grad_opt *opt, sp_tensor **grads)
{
    sp_grad_opt o = {0};
    if (opt) memcpy(&o, opt, opt->size < sizeof o ? opt->size : sizeof o);
    for (int i = 0; i < n_inputs; i++) grads[i] = NULL;
    size_t bytes = (size_t)(n_roots + n_inputs) * sizeof(sp_edge);
    sp_edge *edges = sp__alloc(bytes);
    if (!edges) return sp_fail(SP_EMEMORY, "grad: no memory for %d inputs", n_inputs);
    run r;
    run_begin(&r, o.retain_graph, o.create_graph);
    r.selective = true;
    sp_status status = SP_OK;
    for (int i = 0; i < n_roots; i++) SP_TRY(root_edge("grad", roots[i], &edges[i]));
    SP_TRY(input_edges(inputs, n_inputs, edges + n_roots));
    r.inputs = edges + n_roots;
    r.grads = grads;
    r.n_inputs = n_inputs;
    if (n_inputs) SP_TRY(grad_run(&r, roots, edges, n_roots, inputs, &o));
out:
    run_end(&r);
    sp__free(edges, bytes);
    for (int i = 0; i < n_inputs && status != SP_OK; i++) sp_drop(&grads[i]);
    return status;
}
