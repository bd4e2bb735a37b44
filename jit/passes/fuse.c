/* Fusion: pointwise nodes over one iteration space become groups, each of which one tile program
 * computes in one go.
 *
 *     %2 = mul(%0, %1)            %2 = mul(%0, %1) @1
 *     %3 = matmul(%0, %9)    ->   %4 = relu(%2) @1
 *     %4 = relu(%2)               %3 = matmul(%0, %9)
 *
 * A node joins the groups of the producers that it reads element by element; groups that it
 * connects become one. A group runs at one moment, so it must not depend on itself by way of nodes
 * outside: for every value that it reads from outside, what that depends on must not contain the
 * group. Dependencies are masks over the groups that may still grow, 64 at a time; when there are
 * more, all are closed, and masks start anew: a closed group gains no member, so no cycle can close
 * through it. That makes the pass linear.
 *
 * Afterwards the nodes are put in an order in which groups are contiguous, otherwise as close to
 * the old one as may be.
 *
 * Each node computes in its own dtype inside the program, so fusing changes no bit.
 */
#include <string.h>

#include "jit/program.h"
#include "tensor/memory.h"

enum { MAX_OPEN = 64, MAX_NODES = 48, MAX_READS = 32, NO_SLOT = -1 };

typedef struct open_group {
    uint64_t deps;       /* groups that it depends on, direct ones at least */
    int32_t first, last; /* members, linked by fuser.next, in order of joining */
    int32_t n;
} open_group;

typedef struct fuser {
    sp_graph *g;
    int8_t *slot;   /* per node: its group among the open ones */
    uint64_t *deps; /* per node outside groups: the groups it depends on */
    int32_t *next;
    open_group open[MAX_OPEN];
    int32_t n_open, n_groups;
} fuser;

/* ---- dependencies ----- */

static int32_t producer(const sp_graph *g, sp_vid v)
{
    return v >= 0 && g->values[v].kind == SP_VALUE_NODE ? g->values[v].def : -1;
}

static uint64_t deps_of(const fuser *f, sp_vid v)
{
    int32_t p = producer(f->g, v);
    if (p < 0) return 0;
    return f->slot[p] == NO_SLOT ? f->deps[p] : UINT64_C(1) << f->slot[p];
}

/* With what the groups in the mask depend on in turn. */
static uint64_t closure(const fuser *f, uint64_t mask)
{
    uint64_t todo = mask;
    while (todo) {
        const open_group *next = &f->open[__builtin_ctzll(todo)];
        todo = (todo & (todo - 1)) | (next->deps & ~mask);
        mask |= next->deps;
    }
    return mask;
}

/* How many values the members listed from `first` read from outside of groups a and b; -1 if one of
 * these depends on a or b, so that the two cannot run at one moment. */
static int32_t outside_reads(const fuser *f, int32_t first, int a, int b)
{
    uint64_t both = UINT64_C(1) << a | UINT64_C(1) << b;
    int32_t n = 0;
    for (int32_t i = first; i >= 0; i = f->next[i]) {
        const sp_ir_node *node = &f->g->nodes[i];
        for (int k = 0; k < node->n_in; k++) {
            int32_t p = producer(f->g, node->in[k]);
            if (p >= 0 && (f->slot[p] == a || f->slot[p] == b)) continue;
            if (closure(f, deps_of(f, node->in[k])) & both) return -1;
            n++;
        }
    }
    return n;
}

/* ---- groups ----- */

static void close_all(fuser *f)
{
    memset(f->slot, NO_SLOT, (size_t)f->g->n_nodes);
    memset(f->deps, 0, (size_t)f->g->n_nodes * sizeof *f->deps);
    f->n_open = 0;
}

static void open_one(fuser *f, int32_t node)
{
    if (f->n_open == MAX_OPEN) close_all(f);
    int slot = f->n_open++;
    uint64_t deps = 0;
    for (int k = 0; k < f->g->nodes[node].n_in; k++) deps |= deps_of(f, f->g->nodes[node].in[k]);
    f->open[slot] = (open_group){.deps = deps, .first = node, .last = node, .n = 1};
    f->slot[node] = (int8_t)slot;
    f->next[node] = -1;
    f->g->nodes[node].group = ++f->n_groups;
}

/* Moves group b's members to a; b's bit then stands for a. */
static void merge(fuser *f, int a, int b)
{
    open_group *to = &f->open[a], *from = &f->open[b];
    uint64_t bits = UINT64_C(1) << a | UINT64_C(1) << b;
    int32_t group = f->g->nodes[to->first].group;
    for (int32_t i = from->first; i >= 0; i = f->next[i])
        f->slot[i] = (int8_t)a, f->g->nodes[i].group = group;
    f->next[to->last] = from->first;
    to->last = from->last;
    to->n += from->n;
    to->deps = (to->deps | from->deps) & ~bits;
    *from = (open_group){.deps = UINT64_C(1) << a, .first = -1, .last = -1};
}

static bool may_merge(const fuser *f, int a, int b)
{
    const open_group *x = &f->open[a], *y = &f->open[b];
    if (a == b || x->n + y->n > MAX_NODES) return false;
    int32_t reads_x = outside_reads(f, x->first, a, b), reads_y = outside_reads(f, y->first, a, b);
    return reads_x >= 0 && reads_y >= 0 && reads_x + reads_y <= MAX_READS;
}

static bool same_space(const sp_graph *g, int32_t a, int32_t b)
{
    const sp_meta *x = &g->values[g->nodes[a].out[0]].type,
                  *y = &g->values[g->nodes[b].out[0]].type;
    return x->rank == y->rank && x->device == y->device &&
           !memcmp(x->shape, y->shape, x->rank * sizeof *x->shape);
}

/* A node starts as a group of its own and joins those of its producers. */
static void place(fuser *f, int32_t node)
{
    const sp_ir_node *n = &f->g->nodes[node];
    open_one(f, node);
    for (int k = 0; k < n->n_in; k++) {
        int32_t p = producer(f->g, n->in[k]);
        if (p < 0 || f->slot[p] == NO_SLOT || !same_space(f->g, p, node)) continue;
        int a = f->slot[p], b = f->slot[node];
        if (may_merge(f, a, b)) merge(f, a, b);
    }
}

static void pass_by(fuser *f, int32_t node)
{
    f->slot[node] = NO_SLOT;
    f->deps[node] = 0;
    for (int k = 0; k < f->g->nodes[node].n_in; k++)
        f->deps[node] |= deps_of(f, f->g->nodes[node].in[k]);
}

/* ---- order ----- */

typedef struct order { /* units: single nodes, and groups, which go by their last member */
    int32_t *unit;     /* per node: the last node of its unit */
    int32_t *pending;  /* per unit: reads of nodes that are not placed yet */
    int32_t *edge_at;  /* per node: first of its readers in `edge`; n + 1 entries */
    int32_t *edge;
    int32_t *heap; /* units that are ready, smallest first */
    int32_t n_heap;
    int32_t *before; /* per node: the member before it in its group; -1 */
    sp_ir_node *nodes;
    int32_t n_nodes;
} order;

static void heap_push(order *o, int32_t unit)
{
    int32_t i = o->n_heap++;
    for (; i > 0 && o->heap[(i - 1) / 2] > unit; i = (i - 1) / 2) o->heap[i] = o->heap[(i - 1) / 2];
    o->heap[i] = unit;
}

static int32_t heap_pop(order *o)
{
    int32_t top = o->heap[0], last = o->heap[--o->n_heap], i = 0;
    for (int32_t child; (child = 2 * i + 1) < o->n_heap; i = child) {
        if (child + 1 < o->n_heap && o->heap[child + 1] < o->heap[child]) child++;
        if (o->heap[child] >= last) break;
        o->heap[i] = o->heap[child];
    }
    o->heap[i] = last;
    return top;
}

static void units(const sp_graph *g, order *o, int32_t *last_of_group)
{
    for (int32_t i = 0; i < g->n_nodes; i++) {
        int32_t group = g->nodes[i].group;
        o->before[i] = group ? last_of_group[group] : -1;
        if (group) last_of_group[group] = i;
    }
    for (int32_t i = 0; i < g->n_nodes; i++)
        o->unit[i] = g->nodes[i].group ? last_of_group[g->nodes[i].group] : i;
}

static bool crosses(const order *o, int32_t p, int32_t i)
{
    return p >= 0 && o->unit[p] != o->unit[i];
}

/* Readers of each node, in one array: counted first, then filled from the end. */
static void edges(const sp_graph *g, order *o)
{
    for (int32_t i = 0; i < g->n_nodes; i++)
        for (int k = 0; k < g->nodes[i].n_in; k++) {
            int32_t p = producer(g, g->nodes[i].in[k]);
            if (crosses(o, p, i)) o->edge_at[p]++, o->pending[o->unit[i]]++;
        }
    for (int32_t i = 0; i < g->n_nodes; i++) o->edge_at[i + 1] += o->edge_at[i];
    for (int32_t i = g->n_nodes - 1; i >= 0; i--)
        for (int k = 0; k < g->nodes[i].n_in; k++) {
            int32_t p = producer(g, g->nodes[i].in[k]);
            if (crosses(o, p, i)) o->edge[--o->edge_at[p]] = i;
        }
}

static void emit_node(const sp_graph *g, order *o, int32_t i)
{
    o->nodes[o->n_nodes++] = g->nodes[i];
    for (int32_t e = o->edge_at[i]; e < o->edge_at[i + 1]; e++)
        if (--o->pending[o->unit[o->edge[e]]] == 0) heap_push(o, o->unit[o->edge[e]]);
}

static void emit_unit(const sp_graph *g, order *o, int32_t last)
{
    int32_t members[MAX_NODES], n = 0;
    for (int32_t i = last; i >= 0; i = o->before[i]) members[n++] = i;
    while (n) emit_node(g, o, members[--n]);
}

static void write_back(sp_graph *g, const order *o)
{
    if (g->n_nodes) memcpy(g->nodes, o->nodes, (size_t)g->n_nodes * sizeof *g->nodes);
    for (int32_t i = 0; i < g->n_nodes; i++)
        for (int k = 0; k < g->nodes[i].n_out; k++) g->values[g->nodes[i].out[k]].def = i;
}

static int32_t count_reads(const sp_graph *g)
{
    int32_t n = 0;
    for (int32_t i = 0; i < g->n_nodes; i++) n += g->nodes[i].n_in;
    return n;
}

static sp_status reorder(sp_graph *g, int32_t n_groups)
{
    sp_status status = SP_OK;
    size_t n = (size_t)g->n_nodes, reads = (size_t)count_reads(g),
           ints = 5 * n + 1 + reads + (size_t)n_groups + 1;
    int32_t *block = sp__alloc_zero(ints * sizeof *block);
    order o = {.nodes = sp__alloc(n * sizeof *o.nodes)};
    if (!block || !o.nodes)
        SP_TRY(sp_fail(SP_EMEMORY, "fuse: out of memory for %d nodes", g->n_nodes));
    o.unit = block, o.pending = o.unit + n, o.heap = o.pending + n, o.before = o.heap + n;
    o.edge_at = o.before + n, o.edge = o.edge_at + n + 1;
    int32_t *last_of_group = o.edge + reads;
    for (int32_t i = 0; i <= n_groups; i++) last_of_group[i] = -1;
    units(g, &o, last_of_group);
    edges(g, &o);
    for (int32_t i = 0; i < g->n_nodes; i++)
        if (o.unit[i] == i && o.pending[i] == 0) heap_push(&o, i);
    while (o.n_heap) emit_unit(g, &o, heap_pop(&o));
    if (o.n_nodes != g->n_nodes)
        SP_TRY(sp_fail(SP_EINTERNAL, "fuse: groups that depend on each other"));
    write_back(g, &o);
out:
    if (o.nodes) sp__free(o.nodes, n * sizeof *o.nodes);
    if (block) sp__free(block, ints * sizeof *block);
    return status;
}

/* ---- the pass ----- */

/* Numbers groups from 1 in the order of the nodes; groups of one are none. */
static void renumber(sp_graph *g, int32_t *number)
{
    int32_t n = 0;
    for (int32_t i = 0; i < g->n_nodes; i++) number[g->nodes[i].group]++;
    for (int32_t i = 0; i < g->n_nodes; i++) {
        int32_t *group = &g->nodes[i].group;
        if (*group && number[*group] == 1) *group = 0;
    }
    for (int32_t i = 0; i < g->n_nodes; i++) {
        int32_t *group = &g->nodes[i].group;
        if (*group == 0) continue;
        if (number[*group] > 0) number[*group] = -++n;
        *group = -number[*group];
    }
}

static sp_status group_nodes(fuser *f)
{
    sp_status status = SP_OK;
    size_t n = (size_t)f->g->n_nodes;
    f->slot = sp__alloc(n), f->deps = sp__alloc(n * sizeof *f->deps),
    f->next = sp__alloc(n * sizeof *f->next);
    if (!f->slot || !f->deps || !f->next)
        SP_TRY(sp_fail(SP_EMEMORY, "fuse: out of memory for %d nodes", f->g->n_nodes));
    close_all(f);
    for (int32_t i = 0; i < f->g->n_nodes; i++) {
        f->g->nodes[i].group = 0;
        if (sp__program_can(f->g, &f->g->nodes[i]))
            place(f, i);
        else
            pass_by(f, i);
    }
out:
    if (f->slot) sp__free(f->slot, n);
    if (f->deps) sp__free(f->deps, n * sizeof *f->deps);
    if (f->next) sp__free(f->next, n * sizeof *f->next);
    return status;
}

sp_status sp__pass_fuse(sp_graph *g)
{
    fuser f = {.g = g};
    SP_RETURN_IF(group_nodes(&f));
    size_t bytes = ((size_t)f.n_groups + 1) * sizeof(int32_t);
    int32_t *number = sp__alloc_zero(bytes);
    if (!number) return sp_fail(SP_EMEMORY, "fuse: out of memory for %d groups", f.n_groups);
    sp_status status = reorder(g, f.n_groups);
    if (!status) renumber(g, number);
    sp__free(number, bytes);
    return status;
}
