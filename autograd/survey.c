/* Surveys: which nodes a run will come to, before it does.
 *
 * For chosen inputs a walk finds the nodes from which one can be reached; the others get no
 * gradients. Where hooks wait at leaves, the walk also counts how many edges of the run lead to
 * each, so that a leaf's turn comes right after the last of them, as in PyTorch, and not at the
 * end. And a hook on several tensors asks which of them the run it is in will still come to.
 */
#include "autograd/engine_int.h"

#include <stdlib.h>
#include <string.h>

/* ---- walking ----- */

static sp_status discover(sp_run *r, sp_node *node, uint64_t oldest)
{
    sp_task *task;
    if (!node || node->seq < oldest || sp__task_at(r, node)) return SP_OK;
    if (r->n_order == r->cap_order) SP_RETURN_IF(sp__tasks_grow(&r->order, &r->cap_order, NULL));
    SP_RETURN_IF(sp__task_new(r, node, &task));
    r->order[r->n_order++] = task;
    return sp__run_push(r, task);
}

static int by_seq_descending(const void *a, const void *b)
{
    uint64_t x = (*(sp_task *const *)a)->node->seq, y = (*(sp_task *const *)b)->node->seq;
    return x < y ? 1 : x > y ? -1 : 0;
}

static sp_status walk(sp_run *r, uint64_t oldest)
{
    while (r->n_heap) {
        const sp_node *node = sp__run_pop(r)->node;
        for (int i = 0; i < node->n_in; i++) SP_RETURN_IF(discover(r, node->edges[i].node, oldest));
    }
    return SP_OK;
}

static uint64_t oldest_input(const sp_run *r)
{
    uint64_t oldest = r->n_inputs ? UINT64_MAX : 0;
    for (int i = 0; i < r->n_inputs; i++)
        if (r->inputs[i].node->seq < oldest) oldest = r->inputs[i].node->seq;
    return oldest;
}

/* From the inputs up. */
static void mark_wanted(sp_run *r)
{
    for (int i = 0; i < r->n_inputs; i++) {
        sp_task *task = sp__task_at(r, r->inputs[i].node);
        if (task) task->wanted = true;
    }
    qsort(r->order, r->n_order, sizeof *r->order, by_seq_descending);
    for (size_t k = r->n_order; k-- > 0;) {
        const sp_node *node = r->order[k]->node;
        for (int i = 0; i < node->n_in && !r->order[k]->wanted; i++) {
            const sp_task *to = node->edges[i].node ? sp__task_at(r, node->edges[i].node) : NULL;
            r->order[k]->wanted = to && to->wanted;
        }
    }
}

static void count_edges(sp_run *r)
{
    for (size_t k = 0; k < r->n_order; k++) {
        const sp_node *node = r->order[k]->node;
        for (int i = 0; i < node->n_in && r->order[k]->wanted; i++) {
            sp_node *to = node->edges[i].node;
            sp_task *task = to && to->kind == SP_NODE_LEAF ? sp__task_at(r, to) : NULL;
            if (task && task->wanted) task->waits++;
        }
    }
}

sp_status sp__run_survey(sp_run *r, const sp_edge *roots, int n_roots)
{
    uint64_t oldest = oldest_input(r);
    r->counts_leaves = atomic_load_explicit(&sp__leaf_hooks, memory_order_relaxed) > 0;
    if (!r->n_inputs && !r->counts_leaves) return SP_OK;
    r->selective = true;
    for (int i = 0; i < n_roots; i++) SP_RETURN_IF(discover(r, roots[i].node, oldest));
    SP_RETURN_IF(walk(r, oldest));
    if (r->n_inputs)
        mark_wanted(r);
    else
        for (size_t k = 0; k < r->n_order; k++) r->order[k]->wanted = true;
    if (r->counts_leaves) count_edges(r);
    return SP_OK;
}

/* ---- asked from within a run ----- */

uint64_t sp__backward_id(void)
{
    const sp_run *r = sp__run_current();
    return r ? r->id : 0;
}

/* All that waits in r, and what it leads to, as tasks of s. */
static sp_status survey_rest(const sp_run *r, sp_run *s)
{
    SP_RETURN_IF(discover(s, r->now->node, 0));
    for (size_t i = 0; i < r->n_heap; i++) SP_RETURN_IF(discover(s, r->heap[i]->node, 0));
    for (const sp_task *t = r->ready; t; t = t->after) SP_RETURN_IF(discover(s, t->node, 0));
    return walk(s, 0);
}

sp_status sp__backward_reaches(sp_node *const *nodes, int n, bool *reached)
{
    const sp_run *r = sp__run_current();
    memset(reached, 0, (size_t)n * sizeof *reached);
    if (!r || !r->now) return SP_OK;
    sp_run survey;
    sp__run_begin(&survey, false, false);
    survey.selective = true; /* all tasks are in `order` */
    sp_status status = survey_rest(r, &survey);
    for (int i = 0; i < n && status == SP_OK; i++) {
        const sp_task *task = r->selective ? sp__task_at(r, nodes[i]) : NULL;
        reached[i] = sp__task_at(&survey, nodes[i]) && (!r->selective || (task && task->wanted));
    }
    sp__run_end(&survey);
    return status;
}

/* ---- at a run's end ----- */

struct sp_run_callback {
    sp_run_callback *next;
    sp_status (*fn)(void *ctx);
    void *ctx;
    void (*drop)(void *ctx);
};

sp_status sp__backward_at_end(sp_status (*fn)(void *ctx), void *ctx, void (*drop)(void *ctx))
{
    sp_run *r = sp__run_current();
    if (!r) return sp_fail(SP_EGRAD, "backward: no backward is under way in this thread");
    sp_run_callback model = {.fn = fn, .ctx = ctx, .drop = drop}, **at = &r->callbacks;
    sp_run_callback *callback = sp__dup(&model, sizeof model);
    if (!callback) return sp_fail(SP_EMEMORY, "backward: no memory for a callback");
    while (*at) at = &(*at)->next;
    *at = callback;
    return SP_OK;
}

static void callback_free(sp_run_callback *callback)
{
    if (callback->drop) callback->drop(callback->ctx);
    sp__free(callback, sizeof *callback);
}

sp_status sp__run_callbacks(sp_run *r)
{
    sp_status status = SP_OK;
    for (sp_run_callback *callback; status == SP_OK && (callback = r->callbacks);) {
        r->callbacks = callback->next;
        status = callback->fn(callback->ctx);
        callback_free(callback);
    }
    return status;
}

void sp__run_callbacks_free(sp_run *r)
{
    for (sp_run_callback *callback; (callback = r->callbacks);) {
        r->callbacks = callback->next;
        callback_free(callback);
    }
}
