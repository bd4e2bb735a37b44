/* Views: a chain of them becomes one, a view that changes nothing goes.
 *
 *     transpose(transpose(x))                 -> x
 *     select(slice(reshape(x), ...), ...)     -> as_strided(x, ...)        one step from the root
 *
 * Types are what they were, so whoever reads the value sees the same geometry. For plans, not for
 * saving: as_strided says less than what it replaces.
 */
#include "jit/ir.h"
#include "ops/attr.h"
#include "ops_gen.h"

static bool same_view(const sp_graph *g, sp_vid a, sp_vid b)
{
    return sp__meta_same(&g->values[a].type, &g->values[b].type);
}

/* The value that a view stands on; -1 when v is a root. */
static sp_vid source(const sp_graph *g, sp_vid v)
{
    const sp_value *val = &g->values[v];
    return val->type.view_of < 0 ? -1 : g->nodes[val->def].in[val->type.view_of];
}

/* The nearest value up the chain with v's geometry, or v. */
static sp_vid same_above(const sp_graph *g, sp_vid v)
{
    for (sp_vid up = source(g, v); up >= 0; up = source(g, up))
        if (same_view(g, up, v)) return up;
    return v;
}

static sp_status to_root(sp_graph *g, int32_t node, sp_vid v)
{
    sp_meta *m = &g->values[v].type;
    sp_vid root = sp__graph_root(g, v);
    sp_attr attr[] = {sp__attr_ints(m->shape, m->rank), sp__attr_ints(m->stride, m->rank),
                      sp__attr_int(m->offset)};
    SP_RETURN_IF(sp__graph_renode(g, node, SP_OP_AS_STRIDED, &root, 1, attr, 3));
    m->view_of = 0;
    return SP_OK;
}

static sp_status canonicalize(sp_graph *g, sp_remap *map)
{
    for (int32_t i = 0; i < g->n_nodes; i++) {
        sp__remap_node(map, &g->nodes[i]);
        sp_vid v = g->nodes[i].out[0], up = source(g, v);
        if (up < 0 || g->nodes[i].n_out != 1) continue;
        map->to[v] = same_above(g, v);
        if (map->to[v] == v && source(g, up) >= 0) SP_RETURN_IF(to_root(g, i, v));
    }
    sp__remap_outputs(map, g);
    return SP_OK;
}

sp_status sp__pass_canonicalize(sp_graph *g)
{
    sp_remap map;
    SP_RETURN_IF(sp__remap_new(g, &map));
    sp_status status = canonicalize(g, &map);
    sp__remap_free(&map);
    return status;
}
