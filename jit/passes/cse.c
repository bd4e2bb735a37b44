/* Common subexpressions: a node that computes what an earlier one did is replaced by it.
 *
 * Same op, same inputs in the same order (the order decides which NaN survives), same attributes
 * bit for bit. Nodes are pure, random ones too: equal seed and offset give equal numbers.
 */
#include <string.h>

#include "jit/ir.h"
#include "tensor/memory.h"

typedef struct table { /* open addressing; entries are node index + 1 */
    int32_t *at;
    uint32_t mask;
} table;

static uint64_t mix(uint64_t h, uint64_t x)
{
    h = (h ^ x) * UINT64_C(0x9e3779b97f4a7c15);
    return h ^ h >> 29;
}

static uint64_t hash_attr(uint64_t h, const sp_attr *a)
{
    h = mix(h, (uint64_t)a->kind << 40 | (uint64_t)a->tag << 33 | (uint64_t)a->absent << 32 |
                   (uint32_t)a->n);
    if (a->kind != SP_ATTR_INTS) return a->n ? h : mix(h, (uint64_t)a->v.i);
    for (int i = 0; i < a->n; i++) h = mix(h, (uint64_t)a->v.ints[i]);
    return h;
}

static uint64_t hash_node(const sp_ir_node *node)
{
    uint64_t h = mix(0, node->op);
    for (int i = 0; i < node->n_in; i++) h = mix(h, (uint32_t)node->in[i]);
    for (int i = 0; i < node->n_attr; i++) h = hash_attr(h, &node->attr[i]);
    return h;
}

/* n of a number says which scalar input it reads; its value then only says what was seen. */
static bool same_attr(const sp_attr *a, const sp_attr *b)
{
    if (a->kind != b->kind || a->tag != b->tag || a->absent != b->absent || a->n != b->n)
        return false;
    if (a->kind == SP_ATTR_INTS)
        return a->n == 0 || !memcmp(a->v.ints, b->v.ints, (size_t)a->n * sizeof *a->v.ints);
    return a->n || a->v.i == b->v.i;
}

static bool same_node(const sp_ir_node *a, const sp_ir_node *b)
{
    if (a->op != b->op || a->n_in != b->n_in) return false;
    if (a->n_in && memcmp(a->in, b->in, (size_t)a->n_in * sizeof *a->in)) return false;
    for (int i = 0; i < a->n_attr; i++)
        if (!same_attr(&a->attr[i], &b->attr[i])) return false;
    return true;
}

/* The earlier node that is like node i, or i itself, which is then entered. */
static int32_t find(table *t, const sp_graph *g, int32_t i)
{
    uint32_t slot = (uint32_t)hash_node(&g->nodes[i]) & t->mask;
    for (; t->at[slot]; slot = (slot + 1) & t->mask)
        if (same_node(&g->nodes[t->at[slot] - 1], &g->nodes[i])) return t->at[slot] - 1;
    t->at[slot] = i + 1;
    return i;
}

static void replace_all(sp_graph *g, table *t, sp_remap *map)
{
    for (int32_t i = 0; i < g->n_nodes; i++) {
        sp_ir_node *node = &g->nodes[i];
        sp__remap_node(map, node);
        if (sp_op_table[node->op].flags & SP_OPF_EFFECT) continue;
        int32_t same = find(t, g, i);
        for (int k = 0; same != i && k < node->n_out; k++)
            map->to[node->out[k]] = g->nodes[same].out[k];
    }
    sp__remap_outputs(map, g);
}

sp_status sp__pass_cse(sp_graph *g)
{
    sp_remap map;
    uint32_t slots = 16;
    while (slots < 2 * (uint32_t)g->n_nodes) slots *= 2;
    table t = {.mask = slots - 1};
    SP_RETURN_IF(sp__remap_new(g, &map));
    t.at = sp__alloc_zero(slots * sizeof *t.at);
    if (!t.at) {
        sp__remap_free(&map);
        return sp_fail(SP_EMEMORY, "cse: out of memory for %d nodes", g->n_nodes);
    }
    replace_all(g, &t, &map);
    sp__free(t.at, slots * sizeof *t.at);
    sp__remap_free(&map);
    return SP_OK;
}
