/* sp_backward() and sp_grad(): where a run starts, and where its gradients end. */
#include "autograd/engine_int.h"

#include <string.h>

#include "autograd/calls.h"

/* Edges of roots and inputs that need no block of their own. */
enum { EDGES_ROOM = 8 };

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
static sp_status start_at(sp_run *r, const char *op, const sp_tensor *root, const sp_tensor *given,
                          sp_edge edge)
{
    sp_tensor *g = NULL;
    bool no_grad = sp__tls.no_grad;
    sp__tls.no_grad = !r->create;
    sp_status status = SP_OK;
    SP_TRY(root_gradient(op, root, given, &g));
    SP_TRY(sp__run_arrive(r, edge, &g));
out:
    sp__tls.no_grad = no_grad;
    sp_drop(&g);
    return status;
}

/* ---- chosen inputs ----- */

static sp_status input_edges(const char *op, const sp_tensor *const *inputs, int n, sp_edge *edges)
{
    for (int i = 0; i < n; i++) {
        SP_RETURN_IF(sp__history(inputs[i], &edges[i]));
        if (!edges[i].node)
            return sp_fail(SP_EGRAD,
                           "%s: input %d does not require grad; call requires_grad_() on it "
                           "before it is used",
                           op, i);
    }
    return SP_OK;
}

/* Edges of all roots, then of all inputs. */
static sp_status all_edges(const char *op, const sp_tensor *const *roots, int n_roots,
                           const sp_tensor *const *inputs, int n_inputs, sp_edge *edges)
{
    for (int i = 0; i < n_roots; i++) SP_RETURN_IF(root_edge(op, roots[i], &edges[i]));
    return input_edges(op, inputs, n_inputs, edges + n_roots);
}

static sp_status start_all(sp_run *r, const char *op, const sp_tensor *const *roots,
                           const sp_tensor *const *given, const sp_edge *from, int n)
{
    for (int i = 0; i < n; i++)
        SP_RETURN_IF(start_at(r, op, roots[i], given ? given[i] : NULL, from[i]));
    return SP_OK;
}

/* ---- into the leaves, or the inputs ----- */

/* A gradient that goes to an inner tensor's grad is kept there, as retain_grad() has it. */
static sp_status keep_inputs(const sp_tensor *const *inputs, int n)
{
    for (int i = 0; i < n; i++) SP_RETURN_IF(sp__retain_grad((sp_tensor *)inputs[i]));
    return SP_OK;
}

static sp_status backward_run(sp_run *r, const sp_tensor *const *roots,
                              const sp_tensor *const *given, int n_roots, const sp_edge *edges)
{
    r->inputs = edges + n_roots;
    SP_RETURN_IF(sp__run_survey(r, edges, n_roots));
    SP_RETURN_IF(start_all(r, "backward", roots, given, edges, n_roots));
    return sp__run_all(r);
}

sp_status sp__backward(const sp_tensor *const *roots, const sp_tensor *const *given, int n_roots,
                       const sp_backward_opt *o)
{
    sp_edge room[EDGES_ROOM], *edges = room;
    int n = n_roots + o->n_inputs;
    size_t bytes = (size_t)n * sizeof(sp_edge);
    if (n > EDGES_ROOM && !(edges = sp__alloc(bytes)))
        return sp_fail(SP_EMEMORY, "backward: no memory for %d roots", n_roots);
    sp_run r;
    sp__run_begin(&r, o->retain_graph, o->create_graph);
    r.n_inputs = o->n_inputs;
    sp_status status = SP_OK;
    SP_TRY(all_edges("backward", roots, n_roots, o->inputs, o->n_inputs, edges));
    SP_TRY(keep_inputs(o->inputs, o->n_inputs));
    SP_TRY(backward_run(&r, roots, given, n_roots, edges));
out:
    sp__run_end(&r);
    if (edges != room) sp__free(edges, bytes);
    return status;
}

sp_status sp_backward(const sp_tensor *t, const sp_backward_opt *opt)
{
    sp_backward_opt o = {0};
    if (opt) memcpy(&o, opt, opt->size < sizeof o ? opt->size : sizeof o);
    return sp__backward(&t, &o.gradient, 1, &o);
}

/* ---- into a list ----- */

/* What no gradient came for: reached by zeros alone, or not at all. */
static sp_status fill_gaps(const sp_run *r, const sp_tensor *const *inputs, const sp_grad_opt *o)
{
    for (int i = 0; i < r->n_inputs; i++) {
        if (r->grads[i]) continue;
        const sp_task *task = sp__task_at(r, r->inputs[i].node);
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

static sp_status grad_run(sp_run *r, const sp_tensor *const *roots, const sp_edge *from,
                          int n_roots, const sp_tensor *const *inputs, const sp_grad_opt *o)
{
    SP_RETURN_IF(sp__run_survey(r, from, n_roots));
    SP_RETURN_IF(start_all(r, "grad", roots, o->grad_outputs, from, n_roots));
    SP_RETURN_IF(sp__run_all(r));
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
    sp_run r;
    sp__run_begin(&r, o.retain_graph, o.create_graph);
    sp_status status = SP_OK;
    SP_TRY(all_edges("grad", roots, n_roots, inputs, n_inputs, edges));
    r.inputs = edges + n_roots;
    r.grads = grads;
    r.n_inputs = n_inputs;
    if (n_inputs) SP_TRY(grad_run(&r, roots, edges, n_roots, inputs, &o));
out:
    sp__run_end(&r);
    sp__free(edges, bytes);
    for (int i = 0; i < n_inputs && status != SP_OK; i++) sp_drop(&grads[i]);
    return status;
}
