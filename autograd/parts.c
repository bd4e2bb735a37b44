/* The gradient of a tensor that was cut into parts, as split(), chunk() and unbind() cut it: the
 * parts' gradients side by side. One by one, each would become a gradient of the whole, zero but
 * for itself, and all of these be added up.
 */
#include "autograd/engine_int.h"

#include <stdlib.h>
#include <string.h>

#include "ops/infer.h"
#include "ops_gen.h"
#include "tensor/memory.h"

/* Slices without gaps, and single elements, of a dimension: where they begin there. */
static bool part_of(const sp_node *node, const sp_meta *whole, int *dim, int64_t *start)
{
    if (node->kind != SP_NODE_OP || whole->rank == 0) return false;
    bool slice = node->op == SP_OP_SLICE;
    if (!slice && node->op != SP_OP_SELECT) return false;
    if (slice && node->attr[SP_SLICE_STEP].v.i != 1) return false;
    int64_t d = node->attr[slice ? SP_SLICE_DIM : SP_SELECT_DIM].v.i,
            at = node->attr[slice ? SP_SLICE_START : SP_SELECT_INDEX].v.i;
    *dim = (int)(d < 0 ? d + whole->rank : d);
    int64_t n = whole->shape[*dim];
    if (at < 0) at += n;
    *start = at < 0 ? 0 : at > n ? n : at;
    return true;
}

static sp_status part_shaped(const sp_node *node, int dim, sp_tensor **g)
{
    sp_tensor *wide = NULL;
    if (node->op == SP_OP_SLICE) return SP_OK;
    SP_RETURN_IF(sp_unsqueeze(*g, dim, &wide));
    sp_drop(g);
    *g = wide;
    return SP_OK;
}

static int by_start(const void *a, const void *b)
{
    int64_t x = ((const sp_part *)a)->start, y = ((const sp_part *)b)->start;
    return (x > y) - (x < y);
}

/* Parts that do not overlap stand first, in order; how many. */
static int layer_of(sp_part *parts, int n, int dim)
{
    int layer = 0;
    int64_t end = 0;
    qsort(parts, (size_t)n, sizeof *parts, by_start);
    for (int i = 0; i < n; i++) {
        sp_part part = parts[i];
        if (part.start < end) continue;
        end = part.start + part.g->shape[dim];
        parts[i] = parts[layer], parts[layer++] = part;
    }
    return layer;
}

/* Zeros for `size` places of dim. */
static sp_status gap(const sp_meta *whole, int dim, int64_t size, int dtype, sp_tensor **out)
{
    const sp_full_opt opt = {.size = sizeof opt, .has_dtype = true, .dtype = (sp_dtype)dtype};
    int64_t shape[SP_MAX_RANK];
    for (int d = 0; d < whole->rank; d++) shape[d] = d == dim ? size : whole->shape[d];
    return sp_full(shape, whole->rank, SP_INT(0), &opt, out);
}

/* Parts and the gaps between them, in order. */
static sp_status list_all(const sp_meta *whole, int dim, const sp_part *parts, int n,
                          sp_tensor **all, int *count)
{
    int64_t at = 0;
    for (int i = 0; i <= n; i++) {
        int64_t next = i < n ? parts[i].start : whole->shape[dim];
        if (next > at) {
            SP_RETURN_IF(gap(whole, dim, next - at, parts[0].g->dtype, &all[*count]));
            ++*count;
        }
        if (i < n) all[(*count)++] = sp__retain(parts[i].g), at = next + parts[i].g->shape[dim];
    }
    return SP_OK;
}

static sp_status parts_join(const sp_meta *whole, int dim, sp_part *parts, int n, int *joined,
                            sp_tensor **out)
{
    const sp_cat_opt opt = {.size = sizeof opt, .dim = dim};
    int count = 0;
    *joined = layer_of(parts, n, dim);
    size_t bytes = (2 * (size_t)*joined + 1) * sizeof(sp_tensor *);
    sp_tensor **all = sp__alloc_zero(bytes);
    if (!all) return sp_fail(SP_EMEMORY, "backward: no memory for the gradients of %d parts", n);
    sp_status status = SP_OK;
    SP_TRY(list_all(whole, dim, parts, *joined, all, &count));
    SP_TRY(sp_cat((const sp_tensor *const *)all, count, &opt, out));
out:
    for (int i = 0; i < count; i++) sp_drop(&all[i]);
    sp__free(all, bytes);
    return status;
}

/* ---- nodes of parts that follow one another ----- */

static bool is_part(const sp_run *r, const sp_parts *p, const sp_node *node, int *dim,
                    int64_t *start)
{
    return node->kind == SP_NODE_OP && node->n_in == 1 && !(node->flags & SP_NODE_HOOKED) &&
           sp__run_needs(r, node, 0) && node->edges[0].node == p->whole.node &&
           node->edges[0].nr == p->whole.nr && part_of(node, &p->meta, dim, start);
}

/* Whether the next node is a part of the same tensor, along the same dimension. */
static bool part_follows(const sp_run *r, const sp_parts *p, int64_t *start)
{
    int dim;
    return r->n_heap && is_part(r, p, r->heap[0]->node, &dim, start) && dim == p->dim;
}

bool sp__parts_begin(const sp_run *r, const sp_node *node, sp_parts *p, int64_t *start)
{
    int64_t next;
    if (node->kind != SP_NODE_OP || node->n_in != 1 || !node->edges[0].node) return false;
    if (sp__anomaly_on()) return false; /* each is looked at alone */
    *p = (sp_parts){.whole = node->edges[0], .room = SP_PARTS_ROOM, .list = p->first};
    sp__node_out_meta(p->whole.node, p->whole.nr, &p->meta);
    return is_part(r, p, node, &p->dim, start) && part_follows(r, p, &next);
}

static sp_status parts_grow(sp_parts *p)
{
    size_t old = (size_t)p->room * sizeof *p->list;
    sp_part *more = sp__alloc(2 * old);
    if (!more) return sp_fail(SP_EMEMORY, "backward: no memory for the gradients of parts");
    memcpy(more, p->list, old);
    if (p->list != p->first) sp__free(p->list, old);
    p->list = more, p->room *= 2;
    return SP_OK;
}

static sp_status parts_take(const sp_run *r, sp_parts *p, sp_task *task, int64_t start)
{
    sp_part part = {.g = task->slot[0].g, .start = start};
    if (!part.g) return SP_OK;
    if (p->n == p->room) SP_RETURN_IF(parts_grow(p));
    task->slot[0].g = NULL;
    sp_status status = part_shaped(task->node, p->dim, &part.g);
    p->list[p->n++] = part;
    if (!r->retain) sp__node_release(task->node);
    return status;
}

/* Each layer of parts that do not overlap becomes one gradient of the whole. */
static sp_status parts_pass_on(sp_run *r, sp_parts *p)
{
    for (int layer; p->n > 0;) {
        sp_tensor *g = NULL;
        sp_status status = parts_join(&p->meta, p->dim, p->list, p->n, &layer, &g);
        for (int i = 0; i < layer; i++) sp_drop(&p->list[i].g);
        p->n -= layer;
        memmove(p->list, p->list + layer, (size_t)p->n * sizeof *p->list);
        if (status == SP_OK) status = sp__run_arrive(r, p->whole, &g);
        sp_drop(&g);
        SP_RETURN_IF(status);
    }
    return SP_OK;
}

sp_status sp__run_parts(sp_run *r, sp_task *task, sp_parts *p, int64_t start)
{
    sp_status status = SP_OK;
    SP_TRY(parts_take(r, p, task, start));
    while (part_follows(r, p, &start)) {
        sp_task *next = r->now = sp__run_pop(r);
        status = sp__run_seen(r, next);
        if (status == SP_OK) status = parts_take(r, p, next, start);
        sp__run_finish(r, next);
        SP_TRY(status);
    }
    SP_TRY(parts_pass_on(r, p));
out:
    for (int i = 0; i < p->n; i++) sp_drop(&p->list[i].g);
    if (p->list != p->first) sp__free(p->list, (size_t)p->room * sizeof *p->list);
    return status;
}
