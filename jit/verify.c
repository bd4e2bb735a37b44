/* Checks a graph against the invariants in ir.h.
 *
 * Nothing is trusted: numbers are checked before they index anything, so that a broken graph yields
 * a message and never a crash. The message names the node, its op and its line.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "jit/ir.h"
#include "ops_gen.h"

/* ---- messages ----- */

static sp_status broken(const sp_graph *g, int32_t node, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static sp_status broken(const sp_graph *g, int32_t node, const char *format, ...)
{
    char what[400], where[200] = "", line[208] = "";
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    if (node < 0) return sp_fail(SP_EINTERNAL, "graph %s: %s", g->name, what);
    const sp_ir_node *n = &g->nodes[node];
    if (*sp__where_text(&n->where, where, sizeof where)) snprintf(line, sizeof line, ", %s", where);
    return sp_fail(SP_EINTERNAL, "graph %s: node %d (%s%s): %s", g->name, node,
                   n->op < SP_OP_COUNT ? sp_op_table[n->op].name : "?", line, what);
}

/* ---- values ----- */

static sp_status check_geometry(const sp_graph *g, int32_t node, sp_vid v)
{
    const sp_meta *m = &g->values[v].type;
    if (m->dtype >= SP_DTYPE_COUNT)
        return broken(g, node, "value %d has the unknown dtype %d", v, m->dtype);
    if (m->rank > SP_MAX_RANK) return broken(g, node, "value %d has rank %d", v, m->rank);
    int64_t numel = 1;
    for (int i = 0; i < m->rank; i++) {
        if (m->shape[i] < 0 || m->stride[i] < 0)
            return broken(g, node, "value %d has a negative size or stride", v);
        if (__builtin_mul_overflow(numel, m->shape[i], &numel))
            return broken(g, node, "value %d overflows", v);
    }
    if (numel != m->numel)
        return broken(g, node, "value %d says %lld elements, its shape %lld", v,
                      (long long)m->numel, (long long)numel);
    if (sp__meta_extent(m) < 0 || m->offset < 0)
        return broken(g, node, "the extent of value %d overflows", v);
    if (m->view_of < 0 && m->offset)
        return broken(g, node, "value %d has an offset but is no view", v);
    return SP_OK;
}

static sp_status check_defined(const sp_graph *g, sp_vid v)
{
    const sp_value *val = &g->values[v];
    switch (val->kind) {
    case SP_VALUE_INPUT:
        if (val->def < 0 || val->def >= g->n_inputs || g->inputs[val->def] != v)
            return broken(g, -1, "value %d is not input %d", v, val->def);
        break;
    case SP_VALUE_CONST:
        if (!val->constant) return broken(g, -1, "constant %d has no value", v);
        break;
    case SP_VALUE_NODE:
        if (val->def < 0 || val->def >= g->n_nodes || val->out_nr < 0 ||
            val->out_nr >= g->nodes[val->def].n_out || g->nodes[val->def].out[val->out_nr] != v)
            return broken(g, -1, "value %d is not output %d of node %d", v, val->out_nr, val->def);
        return SP_OK; /* its geometry is checked with its node */
    default: return broken(g, -1, "value %d is of the unknown kind %d", v, val->kind);
    }
    if (val->type.view_of >= 0) return broken(g, -1, "value %d is a view without a node", v);
    return check_geometry(g, -1, v);
}

static sp_status check_constant(const sp_graph *g, sp_vid v)
{
    sp_meta m;
    sp__meta_of(g->values[v].constant, &m);
    m.offset = 0;
    if (!sp__meta_same(&m, &g->values[v].type))
        return broken(g, -1, "constant %d has another type than its value", v);
    return SP_OK;
}

static sp_status check_values(const sp_graph *g)
{
    for (int32_t i = 0; i < g->n_inputs; i++)
        if (g->inputs[i] < 0 || g->inputs[i] >= g->n_values)
            return broken(g, -1, "input %d is no value", i);
    for (int32_t i = 0; i < g->n_values; i++) {
        SP_RETURN_IF(check_defined(g, i));
        if (g->values[i].kind == SP_VALUE_CONST) SP_RETURN_IF(check_constant(g, i));
    }
    for (int32_t i = 0; i < g->n_outputs; i++)
        if (g->outputs[i] < 0 || g->outputs[i] >= g->n_values)
            return broken(g, -1, "output %d is no value", i);
    return SP_OK;
}

/* ---- nodes ----- */

static sp_status check_attr(const sp_graph *g, int32_t node, int i)
{
    const sp_ir_node *n = &g->nodes[node];
    const sp_attr *a = &n->attr[i];
    const char *name = sp_op_table[n->op].attr_names[i];
    if (a->kind != sp_op_table[n->op].attr_kinds[i])
        return broken(g, node, "attribute %s is of kind %d, the table says %d", name, a->kind,
                      sp_op_table[n->op].attr_kinds[i]);
    if (a->kind == SP_ATTR_INTS || a->n == 0) return SP_OK;
    bool liftable = a->kind == SP_ATTR_SCALAR || a->kind == SP_ATTR_INT || a->kind == SP_ATTR_FLOAT;
    if (!liftable || a->n < 0 || a->n > g->n_scalars)
        return broken(g, node, "attribute %s reads scalar %d of %d", name, a->n - 1, g->n_scalars);
    if (sp_op_table[n->op].flags & (SP_OPF_VIEW | SP_OPF_MAY_VIEW))
        return broken(g, node, "attribute %s decides geometry and cannot be an input", name);
    if (a->kind == SP_ATTR_SCALAR && a->tag != g->scalars[a->n - 1].kind)
        return broken(g, node, "attribute %s is of another kind than scalar %d", name, a->n - 1);
    return SP_OK;
}

static sp_status check_inputs(const sp_graph *g, int32_t node)
{
    const sp_ir_node *n = &g->nodes[node];
    for (int i = 0; i < n->n_in; i++) {
        if (n->in[i] == -1) continue;
        if (n->in[i] < 0 || n->in[i] >= g->n_values)
            return broken(g, node, "input %d is no value", i);
        const sp_value *v = &g->values[n->in[i]];
        if (v->kind == SP_VALUE_NODE && v->def >= node)
            return broken(g, node, "input %d is defined later", i);
    }
    return SP_OK;
}

/* A view must name an input, and lie inside the bytes of the value at the root. */
static sp_status check_view(const sp_graph *g, int32_t node, sp_vid v)
{
    const sp_ir_node *n = &g->nodes[node];
    const sp_meta *m = &g->values[v].type;
    if (m->view_of < 0) return SP_OK;
    if (m->view_of >= n->n_in || n->in[m->view_of] < 0)
        return broken(g, node, "a view of no input");
    int64_t own = sp__meta_extent(m), end,
            root = sp__meta_extent(&g->values[sp__graph_root(g, v)].type);
    if (own && (__builtin_add_overflow(m->offset, own, &end) || end > root))
        return broken(g, node, "elements %lld to %lld of a value of %lld", (long long)m->offset,
                      (long long)(m->offset + own - 1), (long long)root);
    return SP_OK;
}

static sp_status check_types(const sp_graph *g, int32_t node)
{
    const sp_ir_node *n = &g->nodes[node];
    sp_meta types[SP_MAX_OUT];
    sp_status status = sp__graph_infer(g, n->op, n->in, n->n_in, n->attr, n->n_attr, types);
    if (status) {
        char what[300];
        snprintf(what, sizeof what, "%s", sp_last_error());
        return status == SP_EMEMORY ? status : broken(g, node, "%s", what);
    }
    for (int i = 0; i < n->n_out; i++) {
        const sp_meta *m = &g->values[n->out[i]].type;
        if (!sp__meta_same(m, &types[i]) || m->view_of != types[i].view_of)
            return broken(
                g, node,
                "output %d is %s%s here and %s%s by inference (or strides or offset differ)", i,
                sp_dtype_name((sp_dtype)m->dtype), SP_SHAPE(m),
                sp_dtype_name((sp_dtype)types[i].dtype), SP_SHAPE(&types[i]));
    }
    return SP_OK;
}

static sp_status check_node(const sp_graph *g, int32_t i)
{
    const sp_ir_node *n = &g->nodes[i];
    if (n->op >= SP_OP_COUNT) return broken(g, i, "no op has the number %d", n->op);
    const sp_op_info *info = &sp_op_table[n->op];
    if (n->n_in < 0 || (info->n_in >= 0 && n->n_in != info->n_in))
        return broken(g, i, "%d inputs", n->n_in);
    if (n->n_out != info->n_out) return broken(g, i, "%d outputs", n->n_out);
    if (n->n_attr != info->n_attr) return broken(g, i, "%d attributes", n->n_attr);
    SP_RETURN_IF(check_inputs(g, i));
    for (int k = 0; k < n->n_attr; k++) SP_RETURN_IF(check_attr(g, i, k));
    for (int k = 0; k < n->n_out; k++) {
        sp_vid v = n->out[k];
        if (v < 0 || v >= g->n_values || g->values[v].kind != SP_VALUE_NODE ||
            g->values[v].def != i || g->values[v].out_nr != k)
            return broken(g, i, "output %d is not a value of its own", k);
        SP_RETURN_IF(check_geometry(g, i, v));
        SP_RETURN_IF(check_view(g, i, v));
    }
    return check_types(g, i);
}

/* ---- groups ----- */

static bool same_shape(const sp_meta *a, const sp_meta *b)
{
    return a->rank == b->rank && !memcmp(a->shape, b->shape, a->rank * sizeof *a->shape);
}

static sp_status check_group(const sp_graph *g, int32_t i)
{
    const sp_ir_node *n = &g->nodes[i];
    if (!n->group) return SP_OK;
    if (n->group < 0 || !(sp_op_table[n->op].flags & SP_OPF_POINTWISE))
        return broken(g, i, "is in fusion group %d but not pointwise", n->group);
    for (int32_t k = 0; k < i; k++) {
        if (g->nodes[k].group != n->group) continue;
        if (g->nodes[i - 1].group != n->group)
            return broken(g, i, "is away from the others of fusion group %d", n->group);
        break;
    }
    if (i && g->nodes[i - 1].group == n->group &&
        !same_shape(&g->values[n->out[0]].type, &g->values[g->nodes[i - 1].out[0]].type))
        return broken(g, i, "has another shape than the others of fusion group %d", n->group);
    return SP_OK;
}

sp_status sp__graph_verify(const sp_graph *g)
{
    SP_RETURN_IF(check_values(g));
    for (int32_t i = 0; i < g->n_nodes; i++) {
        SP_RETURN_IF(check_node(g, i));
        SP_RETURN_IF(check_group(g, i));
    }
    return SP_OK;
}
