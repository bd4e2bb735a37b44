/* Running a graph that someone holds: as its plan, or op by op.
 *
 * The plan is what is meant to run. Op by op through the dispatcher is for when somebody above
 * looks on: a tape (a loaded graph can be differentiated), a transform, a tracer or a capture (the
 * graph becomes part of a larger one).
 */
#include <string.h>

#include "jit/ir.h"
#include "jit/jit.h"
#include "jit/plan.h"
#include "ops/attr.h"
#include "ops_gen.h"
#include "tensor/backend.h"
#include "tensor/memory.h"

/* ---- inputs ----- */

static sp_status check_input(const sp_graph *g, const sp_tensor *t, int nr)
{
    const sp_meta *want = &g->values[g->inputs[nr]].type;
    char shape[SP_SHAPE_TEXT];
    if (t->dtype == want->dtype && t->rank == want->rank &&
        !memcmp(t->shape, want->shape, want->rank * sizeof *want->shape))
        return SP_OK;
    return sp_fail(t->dtype != want->dtype ? SP_EDTYPE : SP_ESHAPE,
                   "graph %s: input %d is %s%s; the graph was made for %s%s", g->name, nr,
                   sp_dtype_name((sp_dtype)t->dtype), SP_SHAPE(t),
                   sp_dtype_name((sp_dtype)want->dtype),
                   sp__shape_text(want->rank, want->shape, shape, sizeof shape));
}

static sp_status new_like(const sp_meta *m, sp_tensor **out)
{
    sp_storage *s;
    size_t bytes = (size_t)sp__meta_extent(m) * sp_dtype_size((sp_dtype)m->dtype);
    SP_RETURN_IF(sp__storage_new(bytes, SP_DEVICE_CPU, &s));
    sp_status status = sp__handle_new(m, s, out);
    sp__storage_drop(s);
    return status;
}

/* t in the layout that the graph was made for: t itself, or a copy. */
static sp_status fit_input(const sp_graph *g, const sp_tensor *t, int nr, sp_tensor **out)
{
    sp_meta has;
    const sp_meta *want = &g->values[g->inputs[nr]].type;
    if (t->storage->region) SP_RETURN_IF(sp__value_ready(t, "graph"));
    sp__meta_of(t, &has);
    has.offset = 0;
    if (sp__meta_same(&has, want)) {
        *out = sp_retain(t);
        return SP_OK;
    }
    SP_RETURN_IF(new_like(want, out));
    sp_tensor *in[2] = {*out, (sp_tensor *)t};
    sp_call copy = {
        .op = SP_OP_COPY, .n_out = 1, .n_in = 2, .flags = SP_CALL_INPLACE, .in = in, .out = {*out}};
    return sp__run(&copy);
}

static sp_status run_plan(sp_graph *g, const sp_tensor *const *inputs, sp_tensor **outputs)
{
    sp_status status = SP_OK;
    size_t bytes = (size_t)g->n_inputs * sizeof(sp_tensor *);
    if (!g->plan) SP_RETURN_IF(sp__plan_new(g, NULL, &g->plan));
    sp_tensor **fit = sp__alloc_zero(bytes);
    if (!fit)
        return sp_fail(SP_EMEMORY, "graph %s: out of memory for %d inputs", g->name, g->n_inputs);
    for (int i = 0; i < g->n_inputs; i++) SP_TRY(fit_input(g, inputs[i], i, &fit[i]));
    SP_TRY(sp__plan_run_handles(g->plan, fit, NULL, outputs));
out:
    for (int i = 0; i < g->n_inputs; i++) sp_drop(&fit[i]);
    sp__free(fit, bytes);
    return status;
}

/* ---- op by op ----- */

static bool somebody_looks_on(const sp_tensor *const *inputs, int n)
{
    if (sp__top_transform() || (sp__tls.tracer && !sp__hot_is(sp__tls.tracer))) return true;
    for (int i = 0; i < n; i++)
        if (inputs[i]->flags & SP_T_WRAPPED ||
            (inputs[i]->flags & SP_T_REQUIRES_GRAD && !sp__tls.no_grad))
            return true;
    return false;
}

static sp_status run_node(const sp_graph *g, const sp_ir_node *node, sp_tensor **value)
{
    sp_status status = SP_OK;
    size_t bytes = (size_t)node->n_in * sizeof(sp_tensor *);
    sp_call c = {.op = node->op, .n_out = node->n_out, .n_attr = node->n_attr, .n_in = node->n_in};
    sp_tensor **in = c.in = sp__alloc(bytes);
    if (!in) return sp_fail(SP_EMEMORY, "graph %s: out of memory", g->name);
    for (int i = 0; i < node->n_in; i++) in[i] = node->in[i] < 0 ? NULL : value[node->in[i]];
    for (int i = 0; i < node->n_attr; i++) {
        c.attr[i] = node->attr[i];
        if (c.attr[i].kind != SP_ATTR_INTS) c.attr[i].n = 0;
    }
    if (node->op ==
        SP_OP_AS_STRIDED) /* in a graph from the root, in a call from the start of the storage */
        c.attr[2].v.i += in[0]->offset - g->values[node->in[0]].type.offset;
    SP_TRY(sp__dispatch(&c));
    for (int i = 0; i < node->n_out; i++) value[node->out[i]] = c.out[i];
out:
    sp__free(in, bytes);
    return status;
}

/* Outputs are tensors of their own, as from a plan. */
static sp_status take_output(const sp_graph *g, sp_vid v, sp_tensor *const *value, sp_tensor **out)
{
    if (g->values[sp__graph_root(g, v)].kind == SP_VALUE_NODE) {
        *out = sp_retain(value[v]);
        return SP_OK;
    }
    return sp_clone(value[v], out);
}

static sp_status run_ops(const sp_graph *g, const sp_tensor *const *inputs, sp_tensor **outputs)
{
    sp_status status = SP_OK;
    size_t bytes = (size_t)g->n_values * sizeof(sp_tensor *);
    sp_tensor **value = sp__alloc_zero(bytes);
    if (!value)
        return sp_fail(SP_EMEMORY, "graph %s: out of memory for %d values", g->name, g->n_values);
    for (int i = 0; i < g->n_inputs; i++) value[g->inputs[i]] = sp_retain(inputs[i]);
    for (int i = 0; i < g->n_values; i++)
        if (g->values[i].constant) value[i] = sp_retain(g->values[i].constant);
    for (int i = 0; i < g->n_nodes; i++) SP_TRY(run_node(g, &g->nodes[i], value));
    for (int i = 0; i < g->n_outputs; i++)
        SP_TRY(take_output(g, g->outputs[i], value, &outputs[i]));
out:
    for (int i = 0; i < g->n_values; i++) sp_drop(&value[i]);
    for (int i = 0; status && i < g->n_outputs; i++) sp_drop(&outputs[i]);
    sp__free(value, bytes);
    return status;
}

/* ---- the public call ----- */

sp_status sp_graph_run(sp_graph *graph, const sp_tensor *const *inputs, int n_inputs,
                       sp_tensor **outputs, int n_outputs)
{
    for (int i = 0; i < n_outputs; i++) outputs[i] = NULL;
    if (n_inputs != graph->n_inputs || n_outputs != graph->n_outputs)
        return sp_fail(SP_EVALUE,
                       "graph %s: takes %d inputs and yields %d outputs, got room for %d and %d",
                       graph->name, graph->n_inputs, graph->n_outputs, n_inputs, n_outputs);
    for (int i = 0; i < n_inputs; i++) SP_RETURN_IF(check_input(graph, inputs[i], i));
    return somebody_looks_on(inputs, n_inputs) ? run_ops(graph, inputs, outputs)
                                               : run_plan(graph, inputs, outputs);
}
