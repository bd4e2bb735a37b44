/* Graphs in memory: building, copying, inference of types, rewriting.
 *
 * Invariant: every builder grows what it needs before it changes anything, so that a failed
 * allocation leaves the graph as it was.
 */
#include "jit/ir.h"

#include <stdio.h>
#include <string.h>

#include "jit/plan.h"
#include "ops_gen.h"
#include "tensor/memory.h"

/* ---- small parts ----- */

static sp_status no_memory(const char *what, int64_t n)
{
    return sp_fail(SP_EMEMORY, "graph: out of memory for %lld %s", (long long)n, what);
}

/* Room for one more item in an array that doubles. */
static sp_status grow(void *block_at, int32_t n, int32_t *cap, size_t item, const char *what)
{
    if (n < *cap) return SP_OK;
    int64_t bigger = *cap ? 2 * (int64_t)*cap : 8;
    if (bigger > INT32_MAX) return no_memory(what, bigger);
    void *old, *grown = NULL;
    memcpy(&old, block_at, sizeof old);
    grown = old ? sp__realloc(old, (size_t)*cap * item, (size_t)bigger * item)
                : sp__alloc((size_t)bigger * item);
    if (!grown) return no_memory(what, bigger);
    memcpy(block_at, &grown, sizeof grown);
    *cap = (int32_t)bigger;
    return SP_OK;
}

static sp_status text_copy(const char *from, char **out)
{
    *out = NULL;
    if (!from) return SP_OK;
    *out = sp__dup(from, strlen(from) + 1);
    return *out ? SP_OK : no_memory("bytes of a name", (int64_t)strlen(from) + 1);
}

static void text_free(char *text)
{
    if (text) sp__free(text, strlen(text) + 1);
}

static void where_keep(const sp__where *where)
{
    if (where->code && sp__where_hooks.keep) sp__where_hooks.keep(where);
}

static void where_drop(sp__where *where)
{
    if (where->code && sp__where_hooks.drop) sp__where_hooks.drop(where);
    where->code = NULL;
}

const char *sp__where_text(const sp__where *where, char *buf, size_t n)
{
    buf[0] = '\0';
    if (where->code && sp__where_hooks.text) sp__where_hooks.text(where, buf, n);
    return buf;
}

static void node_free(sp_ir_node *node)
{
    if (node->in) sp__free(node->in, (size_t)node->n_in * sizeof *node->in);
    if (node->attr) {
        sp__attrs_free(node->attr, node->n_attr);
        sp__free(node->attr, node->n_attr * sizeof *node->attr);
    }
    where_drop(&node->where);
}

static void value_free(sp_value *v)
{
    text_free(v->name);
    sp_drop(&v->constant);
}

/* Owned copies of a node's inputs and attributes; all or nothing. */
static sp_status node_parts(const sp_vid *in, int n_in, const sp_attr *attr, int n_attr,
                            sp_ir_node *out)
{
    out->in = NULL, out->attr = NULL, out->n_in = n_in, out->n_attr = (uint8_t)n_attr;
    sp_status status = SP_OK;
    if (n_in && !(out->in = sp__dup(in, (size_t)n_in * sizeof *in)))
        return no_memory("node inputs", n_in);
    if (!n_attr) return SP_OK;
    sp_attr *copy = sp__alloc(n_attr * sizeof *attr);
    status = copy ? sp__attrs_copy(attr, n_attr, copy) : no_memory("node attributes", n_attr);
    if (!status) {
        out->attr = copy;
        return SP_OK;
    }
    if (copy) sp__free(copy, n_attr * sizeof *attr);
    if (out->in) sp__free(out->in, (size_t)n_in * sizeof *in);
    out->in = NULL;
    return status;
}

/* ---- graphs ----- */

sp_status sp__graph_new(const char *name, sp_graph **out)
{
    *out = NULL;
    sp_graph *g = sp__alloc_zero(sizeof *g);
    if (!g) return no_memory("graphs", 1);
    sp_status status = text_copy(name ? name : "", &g->name);
    if (status) {
        sp__free(g, sizeof *g);
        return status;
    }
    *out = g;
    return SP_OK;
}

void sp_graph_drop(sp_graph **graph)
{
    sp_graph *g = graph ? *graph : NULL;
    if (!g) return;
    *graph = NULL;
    sp__plan_drop(&g->plan);
    for (int32_t i = 0; i < g->n_nodes; i++) node_free(&g->nodes[i]);
    for (int32_t i = 0; i < g->n_values; i++) value_free(&g->values[i]);
    for (int32_t i = 0; i < 2 * g->n_metadata; i++) text_free(g->metadata[i]);
    if (g->metadata) sp__free(g->metadata, 2 * (size_t)g->n_metadata * sizeof *g->metadata);
    if (g->nodes) sp__free(g->nodes, (size_t)g->cap_nodes * sizeof *g->nodes);
    if (g->values) sp__free(g->values, (size_t)g->cap_values * sizeof *g->values);
    if (g->inputs) sp__free(g->inputs, (size_t)g->cap_inputs * sizeof *g->inputs);
    if (g->outputs) sp__free(g->outputs, (size_t)g->n_outputs * sizeof *g->outputs);
    if (g->scalars) sp__free(g->scalars, (size_t)g->cap_scalars * sizeof *g->scalars);
    text_free(g->name);
    sp__free(g, sizeof *g);
}

int sp_graph_num_inputs(const sp_graph *graph)
{
    return graph->n_inputs;
}

int sp_graph_num_outputs(const sp_graph *graph)
{
    return graph->n_outputs;
}

/* ---- building ----- */

/* A new root value; room must be there. */
static sp_value *value_push(sp_graph *g, const sp_meta *type, sp_value_kind kind, int32_t def)
{
    sp_value *v = &g->values[g->n_values++];
    *v = (sp_value){.type = *type, .kind = (uint8_t)kind, .def = def};
    return v;
}

static sp_meta root_type(const sp_meta *type)
{
    sp_meta root = *type;
    root.offset = 0, root.view_of = -1;
    sp__meta_update(&root);
    return root;
}

sp_status sp__graph_input(sp_graph *g, const sp_meta *type, sp_vid *out)
{
    SP_RETURN_IF(grow(&g->inputs, g->n_inputs, &g->cap_inputs, sizeof *g->inputs, "inputs"));
    SP_RETURN_IF(grow(&g->values, g->n_values, &g->cap_values, sizeof *g->values, "values"));
    sp_meta root = root_type(type);
    *out = g->inputs[g->n_inputs] = g->n_values;
    value_push(g, &root, SP_VALUE_INPUT, g->n_inputs++);
    return SP_OK;
}

sp_status sp__graph_const(sp_graph *g, const sp_tensor *value, sp_vid *out)
{
    if (value->flags & SP_T_WRAPPED)
        return sp_fail(SP_EUNSUPPORTED,
                       "graph: a tensor of a transform (vmap, jvp, grad) cannot be a constant");
    SP_RETURN_IF(grow(&g->values, g->n_values, &g->cap_values, sizeof *g->values, "values"));
    sp_meta type;
    sp__meta_of(value, &type);
    sp_meta root = root_type(&type);
    sp_tensor *alias; /* without the history of value, and not re-pointed with it */
    SP_RETURN_IF(sp__handle_alias(value, &alias));
    *out = g->n_values;
    value_push(g, &root, SP_VALUE_CONST, 0)->constant = alias;
    return SP_OK;
}

sp_status sp__graph_scalar(sp_graph *g, sp_scalar value, int32_t *out)
{
    SP_RETURN_IF(grow(&g->scalars, g->n_scalars, &g->cap_scalars, sizeof *g->scalars, "scalars"));
    *out = g->n_scalars;
    g->scalars[g->n_scalars++] = value;
    return SP_OK;
}

static sp_status room_for_node(sp_graph *g, int n_out)
{
    SP_RETURN_IF(grow(&g->nodes, g->n_nodes, &g->cap_nodes, sizeof *g->nodes, "nodes"));
    for (int i = 0; i < n_out; i++)
        SP_RETURN_IF(
            grow(&g->values, g->n_values + i, &g->cap_values, sizeof *g->values, "values"));
    return SP_OK;
}

/* What is given may point into the graph (a type's shape as an attribute): it is copied before
 * anything grows. */
sp_status sp__graph_node(sp_graph *g, int op, const sp_vid *in, int n_in, const sp_attr *attr,
                         int n_attr, const sp_meta *types, const sp__where *where, sp_vid *out)
{
    sp_meta type[SP_MAX_OUT];
    if (!types) SP_RETURN_IF(sp__graph_infer(g, op, in, n_in, attr, n_attr, type));
    const sp_op_info *info = &sp_op_table[op];
    if (types) memcpy(type, types, info->n_out * sizeof *type);
    sp_ir_node node = {
        .op = (uint16_t)op, .n_out = info->n_out, .where = where ? *where : (sp__where){NULL, 0}};
    SP_RETURN_IF(node_parts(in, n_in, attr, n_attr, &node));
    where_keep(&node.where);
    sp_status status = room_for_node(g, info->n_out);
    if (status) {
        node_free(&node);
        return status;
    }
    for (int i = 0; i < info->n_out; i++) {
        out[i] = node.out[i] = g->n_values;
        value_push(g, &type[i], SP_VALUE_NODE, g->n_nodes)->out_nr = i;
    }
    g->nodes[g->n_nodes++] = node;
    return SP_OK;
}

sp_status sp__graph_outputs(sp_graph *g, const sp_vid *outputs, int n)
{
    sp_vid *copy = n ? sp__dup(outputs, (size_t)n * sizeof *copy) : NULL;
    if (n && !copy) return no_memory("outputs", n);
    if (g->outputs) sp__free(g->outputs, (size_t)g->n_outputs * sizeof *g->outputs);
    g->outputs = copy, g->n_outputs = n;
    return SP_OK;
}

sp_status sp__graph_name_value(sp_graph *g, sp_vid v, const char *name)
{
    char *copy;
    SP_RETURN_IF(text_copy(name, &copy));
    text_free(g->values[v].name);
    g->values[v].name = copy;
    return SP_OK;
}

sp_status sp__graph_metadata(sp_graph *g, const char *key, const char *value)
{
    sp_status status = SP_OK;
    char *k = NULL, *v = NULL;
    size_t pair = 2 * sizeof(char *), old = (size_t)g->n_metadata * pair;
    SP_TRY(text_copy(key, &k));
    SP_TRY(text_copy(value, &v));
    char **grown = g->metadata ? sp__realloc(g->metadata, old, old + pair) : sp__alloc(pair);
    if (!grown) SP_TRY(no_memory("metadata entries", g->n_metadata + 1));
    grown[2 * g->n_metadata] = k, grown[2 * g->n_metadata + 1] = v;
    g->metadata = grown, g->n_metadata++;
    return SP_OK;
out:
    text_free(k);
    text_free(v);
    return status;
}

/* ---- inference ----- */

enum { INFER_ROOM = 4 };

typedef struct fake { /* a handle with geometry alone, for inference to look at */
    sp_tensor t;
    sp_storage s;
} fake;

static void fake_fill(const sp_graph *g, sp_vid v, fake *out)
{
    const sp_meta *m = &g->values[v].type;
    const sp_meta *root = &g->values[sp__graph_root(g, v)].type;
    memset(&out->t, 0, offsetof(sp_tensor, shape));
    memset(&out->s, 0, sizeof out->s);
    out->t.refs = 1;
    out->t.dtype = m->dtype, out->t.device = m->device, out->t.rank = m->rank;
    out->t.flags = m->contiguous ? SP_T_CONTIGUOUS : 0;
    out->t.storage = &out->s;
    out->t.offset = m->offset, out->t.numel = m->numel;
    memcpy(out->t.shape, m->shape, m->rank * sizeof *m->shape);
    memcpy(out->t.stride, m->stride, m->rank * sizeof *m->stride);
    out->s.nbytes = (size_t)sp__meta_extent(root) * sp_dtype_size(root->dtype);
    out->s.device = m->device;
}

/* Whether the table lets a parameter be left out: "Tensor? b=None", "int[]? dim=None". Those that
 * the signature does not show (a random op's seed) may be. */
static bool is_optional(const sp_op_info *info, const char *name)
{
    size_t n = strlen(name);
    for (const char *at = info->signature; (at = strstr(at, name)); at += n)
        if (at > info->signature && at[-1] == ' ' && strchr(",=)", at[n])) return at[-2] == '?';
    return true;
}

static sp_status check_given(const sp_op_info *info, const sp_vid *in, int n_in,
                             const sp_attr *attr)
{
    for (int i = 0; i < n_in; i++)
        if (in[i] < 0 && (info->n_in < 0 || !is_optional(info, info->in_names[i])))
            return sp_fail(SP_ETYPE, "%s: input %d is missing", info->name, i);
    for (int i = 0; i < info->n_attr; i++)
        if (attr[i].absent && !is_optional(info, info->attr_names[i]))
            return sp_fail(SP_ETYPE, "%s: attribute '%s' is missing", info->name,
                           info->attr_names[i]);
    return SP_OK;
}

static sp_status check_call(const char *graph, int op, const sp_vid *in, int n_in,
                            const sp_attr *attr, int n_attr)
{
    if (op < 0 || op >= SP_OP_COUNT)
        return sp_fail(SP_EINTERNAL, "graph %s: no op has the number %d", graph, op);
    const sp_op_info *info = &sp_op_table[op];
    if (info->n_in >= 0 && n_in != info->n_in)
        return sp_fail(SP_ETYPE, "%s: takes %d tensors, got %d", info->name, info->n_in, n_in);
    if (n_attr != info->n_attr)
        return sp_fail(SP_ETYPE, "%s: takes %d attributes, got %d", info->name, info->n_attr,
                       n_attr);
    return check_given(info, in, n_in, attr);
}

/* What a result shares: inference says which input, the IR wants offsets from that input's root. */
static void types_finish(const sp_graph *g, const sp_vid *in, int n_out, sp_meta *types)
{
    for (int i = 0; i < n_out; i++) {
        if (types[i].view_of < 0 || in[types[i].view_of] < 0)
            types[i].view_of = -1, types[i].offset = 0;
        types[i].device =
            types[i].view_of < 0 ? types[i].device : g->values[in[types[i].view_of]].type.device;
        sp__meta_update(&types[i]);
    }
}

sp_status sp__graph_infer(const sp_graph *g, int op, const sp_vid *in, int n_in,
                          const sp_attr *attr, int n_attr, sp_meta *types)
{
    SP_RETURN_IF(check_call(g->name, op, in, n_in, attr, n_attr));
    const sp_op_info *info = &sp_op_table[op];
    if (!info->infer)
        return sp_fail(SP_EUNSUPPORTED,
                       "%s: a graph holds the ops that it is made of, not the composite",
                       info->name);
    fake room[INFER_ROOM], *fakes = room;
    sp_tensor *handle_room[INFER_ROOM], **handles = handle_room;
    sp_status status = SP_OK;
    if (n_in > INFER_ROOM) {
        fakes = sp__alloc((size_t)n_in * sizeof *fakes);
        handles = sp__alloc((size_t)n_in * sizeof *handles);
        if (!fakes || !handles) SP_TRY(no_memory("inputs of a node", n_in));
    }
    sp_call c = {.op = (uint16_t)op,
                 .n_in = n_in,
                 .n_out = info->n_out,
                 .n_attr = (uint8_t)n_attr,
                 .in = handles};
    for (int i = 0; i < n_in; i++) {
        handles[i] = in[i] < 0 ? NULL : &fakes[i].t;
        if (handles[i]) fake_fill(g, in[i], &fakes[i]);
    }
    if (n_attr) memcpy(c.attr, attr, n_attr * sizeof *attr);
    for (int i = 0; i < info->n_out; i++) types[i] = (sp_meta){.view_of = -1};
    SP_TRY(sp__infer(&c, types));
    types_finish(g, in, info->n_out, types);
out:
    if (fakes && fakes != room) sp__free(fakes, (size_t)n_in * sizeof *fakes);
    if (handles && handles != handle_room) sp__free(handles, (size_t)n_in * sizeof *handles);
    return status;
}

/* ---- reading ----- */

sp_vid sp__graph_root(const sp_graph *g, sp_vid v)
{
    while (g->values[v].type.view_of >= 0)
        v = g->nodes[g->values[v].def].in[g->values[v].type.view_of];
    return v;
}

int64_t sp__meta_extent(const sp_meta *m)
{
    int64_t extent = 1;
    for (int i = 0; i < m->rank; i++)
        if (m->shape[i] == 0) return 0;
    for (int i = 0; i < m->rank; i++) {
        int64_t reach;
        if (__builtin_mul_overflow(m->shape[i] - 1, m->stride[i], &reach)) return -1;
        if (__builtin_add_overflow(extent, reach, &extent)) return -1;
    }
    return extent;
}

bool sp__meta_same(const sp_meta *a, const sp_meta *b)
{
    if (a->dtype != b->dtype || a->device != b->device || a->rank != b->rank) return false;
    bool empty = false;
    for (int i = 0; i < a->rank; i++) {
        if (a->shape[i] != b->shape[i]) return false;
        empty |= a->shape[i] == 0;
    }
    if (empty) return true;
    for (int i = 0; i < a->rank; i++)
        if (a->shape[i] > 1 && a->stride[i] != b->stride[i]) return false;
    return a->offset == b->offset;
}

/* ---- copying and rewriting ----- */

static sp_status copy_values(const sp_graph *g, sp_graph *to)
{
    for (int32_t i = 0; i < g->n_values; i++) {
        SP_RETURN_IF(
            grow(&to->values, to->n_values, &to->cap_values, sizeof *to->values, "values"));
        char *name;
        SP_RETURN_IF(text_copy(g->values[i].name, &name));
        sp_value *v = &to->values[to->n_values++];
        *v = g->values[i];
        v->name = name;
        if (v->constant) sp_retain(v->constant);
    }
    return SP_OK;
}

static sp_status copy_nodes(const sp_graph *g, sp_graph *to)
{
    for (int32_t i = 0; i < g->n_nodes; i++) {
        SP_RETURN_IF(grow(&to->nodes, to->n_nodes, &to->cap_nodes, sizeof *to->nodes, "nodes"));
        sp_ir_node node = g->nodes[i];
        SP_RETURN_IF(node_parts(g->nodes[i].in, g->nodes[i].n_in, g->nodes[i].attr,
                                g->nodes[i].n_attr, &node));
        where_keep(&node.where);
        to->nodes[to->n_nodes++] = node;
    }
    return SP_OK;
}

static sp_status copy_lists(const sp_graph *g, sp_graph *to)
{
    for (int32_t i = 0; i < g->n_inputs; i++) {
        SP_RETURN_IF(
            grow(&to->inputs, to->n_inputs, &to->cap_inputs, sizeof *to->inputs, "inputs"));
        to->inputs[to->n_inputs++] = g->inputs[i];
    }
    for (int32_t i = 0, k; i < g->n_scalars; i++)
        SP_RETURN_IF(sp__graph_scalar(to, g->scalars[i], &k));
    for (int32_t i = 0; i < g->n_metadata; i++)
        SP_RETURN_IF(sp__graph_metadata(to, g->metadata[2 * i], g->metadata[2 * i + 1]));
    return sp__graph_outputs(to, g->outputs, g->n_outputs);
}

sp_status sp__graph_copy(const sp_graph *g, sp_graph **out)
{
    sp_status status = SP_OK;
    SP_RETURN_IF(sp__graph_new(g->name, out));
    SP_TRY(copy_values(g, *out));
    SP_TRY(copy_nodes(g, *out));
    SP_TRY(copy_lists(g, *out));
    return SP_OK;
out:
    sp_graph_drop(out);
    return status;
}

sp_status sp__remap_new(const sp_graph *g, sp_remap *out)
{
    *out = (sp_remap){.n = g->n_values};
    out->to = sp__alloc((size_t)g->n_values * sizeof *out->to);
    if (!out->to) return no_memory("values", g->n_values);
    for (int32_t i = 0; i < g->n_values; i++) out->to[i] = i;
    return SP_OK;
}

void sp__remap_free(sp_remap *map)
{
    if (map->to) sp__free(map->to, (size_t)map->n * sizeof *map->to);
    map->to = NULL;
}

void sp__remap_node(const sp_remap *map, sp_ir_node *node)
{
    for (int i = 0; i < node->n_in; i++) node->in[i] = sp__remap_at(map, node->in[i]);
}

void sp__remap_outputs(const sp_remap *map, sp_graph *g)
{
    for (int i = 0; i < g->n_outputs; i++) g->outputs[i] = sp__remap_at(map, g->outputs[i]);
}

sp_status sp__graph_renode(sp_graph *g, int32_t node, int op, const sp_vid *in, int n_in,
                           const sp_attr *attr, int n_attr)
{
    sp_ir_node *old = &g->nodes[node];
    SP_ASSERT(sp_op_table[op].n_out == old->n_out);
    sp_ir_node fresh = *old;
    SP_RETURN_IF(node_parts(in, n_in, attr, n_attr, &fresh));
    fresh.op = (uint16_t)op;
    where_keep(&fresh.where);
    node_free(old);
    *old = fresh;
    return SP_OK;
}

/* ---- compaction ----- */

/* Marks with 1 what stays: inputs, kept nodes' outputs, and constants that something kept reads. */
static void mark_values(const sp_graph *g, const uint8_t *keep, sp_vid *number)
{
    for (int32_t i = 0; i < g->n_values; i++) number[i] = g->values[i].kind == SP_VALUE_INPUT;
    for (int32_t i = 0; i < g->n_nodes; i++) {
        const sp_ir_node *node = &g->nodes[i];
        for (int k = 0; keep[i] && k < node->n_in; k++)
            if (node->in[k] >= 0) number[node->in[k]] = 1;
        for (int k = 0; keep[i] && k < node->n_out; k++) number[node->out[k]] = 1;
    }
    for (int32_t i = 0; i < g->n_outputs; i++) number[g->outputs[i]] = 1;
}

/* Turns marks into new numbers, inputs first, then constants, then nodes' outputs; -1: goes.
 * Returns how many stay. */
static int32_t number_values(const sp_graph *g, const uint8_t *keep, sp_vid *number)
{
    int32_t n = 0;
    for (int32_t i = 0; i < g->n_inputs; i++) number[g->inputs[i]] = n++;
    for (int32_t i = 0; i < g->n_values; i++)
        if (g->values[i].kind == SP_VALUE_CONST) number[i] = number[i] ? n++ : -1;
    for (int32_t i = 0; i < g->n_nodes; i++)
        for (int k = 0; k < g->nodes[i].n_out; k++) number[g->nodes[i].out[k]] = keep[i] ? n++ : -1;
    return n;
}

/* Moves kept nodes forward under their new numbers. */
static void move_nodes(sp_graph *g, const uint8_t *keep, const sp_vid *number, sp_value *values)
{
    int32_t n = 0;
    for (int32_t i = 0; i < g->n_nodes; i++) {
        sp_ir_node node = g->nodes[i];
        if (!keep[i]) {
            node_free(&node);
            continue;
        }
        for (int k = 0; k < node.n_in; k++)
            if (node.in[k] >= 0) node.in[k] = number[node.in[k]];
        for (int k = 0; k < node.n_out; k++)
            node.out[k] = number[node.out[k]], values[node.out[k]].def = n;
        g->nodes[n++] = node;
    }
    g->n_nodes = n;
}

sp_status sp__graph_compact(sp_graph *g, const uint8_t *keep)
{
    sp_remap number;
    SP_RETURN_IF(sp__remap_new(g, &number));
    mark_values(g, keep, number.to);
    int32_t n = number_values(g, keep, number.to);
    sp_value *values = sp__alloc((size_t)(n ? n : 1) * sizeof *values);
    if (!values) {
        sp__remap_free(&number);
        return no_memory("values", n);
    }
    for (int32_t i = 0; i < g->n_values; i++) {
        if (number.to[i] < 0)
            value_free(&g->values[i]);
        else
            values[number.to[i]] = g->values[i];
    }
    move_nodes(g, keep, number.to, values);
    for (int32_t i = 0; i < g->n_inputs; i++) g->inputs[i] = number.to[g->inputs[i]];
    sp__remap_outputs(&number, g);
    if (g->values) sp__free(g->values, (size_t)g->cap_values * sizeof *g->values);
    g->values = values, g->n_values = n, g->cap_values = n ? n : 1;
    sp__remap_free(&number);
    return SP_OK;
}
