/* Folding: what depends on constants alone is computed now, what changes no bit goes.
 *
 * Constants are computed by eager's own kernels. Kept for the run: results of more than MAX_FOLDED
 * elements (they would only move memory from the arena into the plan), random numbers, and ops that
 * can fail on values.
 *
 * Identities, result and operand being of one type:
 *     x * 1, x / 1        exact
 *     x - (+0), x + (-0)  exact; not x + (+0), which turns -0 into +0
 *     -(-x)               flips the sign twice
 *     relu(relu(x))       the same function again
 *     clone, contiguous, alias, cast to the same dtype, copy of a source of the same type
 * They hold for every value but signalling NaNs, which no op yields.
 */
#include <math.h>

#include "jit/ir.h"
#include "ops/attr.h"
#include "ops_gen.h"
#include "tensor/memory.h"

enum { MAX_FOLDED = 4096, MAX_FOLD_INPUTS = 8 };

/* ---- identities ----- */

static bool constant_scalar(const sp_ir_node *node, double *out)
{
    if (node->n_attr < 1 || node->attr[0].kind != SP_ATTR_SCALAR || node->attr[0].n) return false;
    sp_scalar s = sp__attr_to_scalar(&node->attr[0]);
    *out = s.kind == SP_FLOAT64 ? s.v.f : (double)s.v.i;
    return true;
}

/* The input whose bits a node's result has; -1: none. */
static int same_bits_as(const sp_graph *g, const sp_ir_node *node)
{
    double s;
    switch (node->op) {
    case SP_OP_MUL_SCALAR:
    case SP_OP_DIV_SCALAR: return constant_scalar(node, &s) && s == 1 ? 0 : -1;
    case SP_OP_SUB_SCALAR: return constant_scalar(node, &s) && s == 0 && !signbit(s) ? 0 : -1;
    case SP_OP_ADD_SCALAR: return constant_scalar(node, &s) && s == 0 && signbit(s) ? 0 : -1;
    case SP_OP_CAST:
    case SP_OP_CLONE:
    case SP_OP_CONTIGUOUS:
    case SP_OP_ALIAS: return 0;
    case SP_OP_COPY: return 1;
    case SP_OP_WHERE: return node->in[1] == node->in[2] ? 1 : -1;
    case SP_OP_RELU: {
        const sp_value *x = &g->values[node->in[0]];
        return x->kind == SP_VALUE_NODE && g->nodes[x->def].op == SP_OP_RELU ? 0 : -1;
    }
    default: return -1;
    }
}

/* The value that v may be replaced by, or v. Roots stand for roots only: see sp_remap. */
static sp_vid identity(const sp_graph *g, const sp_ir_node *node)
{
    sp_vid v = node->out[0], same = -1;
    int i = same_bits_as(g, node);
    if (i >= 0) same = node->in[i];
    if (node->op == SP_OP_NEG) {
        const sp_value *x = &g->values[node->in[0]];
        if (x->kind == SP_VALUE_NODE && g->nodes[x->def].op == SP_OP_NEG)
            same = g->nodes[x->def].in[0];
    }
    if (same < 0 || g->values[v].type.view_of >= 0 || g->values[same].type.view_of >= 0) return v;
    return sp__meta_same(&g->values[v].type, &g->values[same].type) ? same : v;
}

/* ---- constants ----- */

/* A handle on the value of v, which is a constant or a view of one; NULL without an error when it
 * is neither. */
static sp_status constant_handle(const sp_graph *g, sp_vid v, sp_tensor **out)
{
    *out = NULL;
    const sp_tensor *c = g->values[sp__graph_root(g, v)].constant;
    if (!c) return SP_OK;
    sp_meta m = g->values[v].type;
    m.offset += c->offset, m.view_of = -1;
    return sp__handle_new(&m, c->storage, out);
}

static bool foldable(const sp_graph *g, const sp_ir_node *node)
{
    const sp_op_info *info = &sp_op_table[node->op];
    if (info->flags & (SP_OPF_RANDOM | SP_OPF_CHECKS_DATA | SP_OPF_EFFECT)) return false;
    if (node->n_in > MAX_FOLD_INPUTS) return false;
    for (int i = 0; i < node->n_out; i++) {
        const sp_meta *m = &g->values[node->out[i]].type;
        if (m->view_of >= 0 || m->numel > MAX_FOLDED) return false;
    }
    for (int i = 0; i < node->n_attr; i++)
        if (node->attr[i].kind != SP_ATTR_INTS && node->attr[i].n) return false;
    for (int i = 0; i < node->n_in; i++)
        if (node->in[i] >= 0 && !g->values[sp__graph_root(g, node->in[i])].constant) return false;
    return true;
}

/* Runs node i below levels, tape and tracer, and redirects its results to new constants. */
static sp_status compute(sp_graph *g, int32_t i, sp_remap *map)
{
    sp_status status = SP_OK;
    sp_tensor *in[MAX_FOLD_INPUTS] = {NULL};
    const sp_ir_node *node = &g->nodes[i];
    int n_in = node->n_in, n_out = node->n_out;
    sp_call c = {
        .op = node->op, .n_out = node->n_out, .n_attr = node->n_attr, .n_in = n_in, .in = in};
    for (int k = 0; k < node->n_attr; k++) c.attr[k] = node->attr[k];
    for (int k = 0; k < n_in; k++)
        if (node->in[k] >= 0) SP_TRY(constant_handle(g, node->in[k], &in[k]));
    SP_TRY(sp__run(&c));
    for (int k = 0; k < n_out; k++) {
        sp_vid v;
        SP_TRY(sp__graph_const(g, c.out[k], &v));
        if (sp__meta_same(&g->values[v].type, &g->values[g->nodes[i].out[k]].type))
            map->to[g->nodes[i].out[k]] = v;
    }
out:
    for (int k = 0; k < n_in; k++) sp_drop(&in[k]);
    for (int k = 0; k < n_out; k++) sp_drop(&c.out[k]);
    return status;
}

static sp_status fold(sp_graph *g, sp_remap *map)
{
    for (int32_t i = 0; i < g->n_nodes; i++) {
        sp_ir_node *node = &g->nodes[i];
        sp__remap_node(map, node);
        if (foldable(g, node))
            SP_RETURN_IF(compute(g, i, map));
        else if (node->n_out == 1)
            map->to[node->out[0]] = identity(g, node);
    }
    sp__remap_outputs(map, g);
    return SP_OK;
}

sp_status sp__pass_fold(sp_graph *g)
{
    sp_remap map;
    SP_RETURN_IF(sp__remap_new(g, &map));
    sp_status status = fold(g, &map);
    sp__remap_free(&map);
    return status;
}
