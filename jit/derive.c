/* Derivatives of a graph, as graphs: the graph runs op by op at a level of its own, on stand-ins,
 * while a capture looks on. So the formulas are the op table's, and what comes out is an ordinary
 * graph: it can be optimised, saved, and differentiated again.
 *
 *     all     the graph's inputs, then a direction (a cotangent, a tangent) for each floating
 *             output or input
 *     yields  the graph's outputs, then what becomes of each direction
 */
#include <string.h>

#include "autograd/transform.h"
#include "jit/ir.h"
#include "tensor/memory.h"

typedef struct derivation {
    sp_graph *g;
    bool forward;
    int n_in, n_out, n_float_in, n_float_out;
    sp_tensor **all, **yields; /* owned, as are their entries */
} derivation;

static bool is_floating(const sp_graph *g, sp_vid v)
{
    return sp__dtype_is_inexact(g->values[v].type.dtype);
}

static int count_floating(const sp_graph *g, const sp_vid *list, int n)
{
    int count = 0;
    for (int i = 0; i < n; i++) count += is_floating(g, list[i]);
    return count;
}

static int n_all(const derivation *d)
{
    return d->n_in + (d->forward ? d->n_float_in : d->n_float_out);
}

static int n_yields(const derivation *d)
{
    return d->n_out + (d->forward ? d->n_float_out : d->n_float_in);
}

/* ---- stand-ins ----- */

static sp_status stand_in(const sp_graph *g, sp_vid v, sp_scalar value, sp_tensor **out)
{
    const sp_meta *type = &g->values[v].type;
    const sp_full_opt opt = {.size = sizeof opt, .has_dtype = true, .dtype = (sp_dtype)type->dtype};
    return sp_full(type->shape, type->rank, value, &opt, out);
}

/* A copy: an example may share its memory with another, or be somebody's history. */
static sp_status example(const sp_graph *g, int i, const sp_tensor *given, sp_tensor **out)
{
    const sp_meta *type = &g->values[g->inputs[i]].type;
    if (!given) return stand_in(g, g->inputs[i], SP_INT(0), out);
    if (given->dtype != type->dtype || given->rank != type->rank ||
        memcmp(given->shape, type->shape, type->rank * sizeof *type->shape))
        return sp_fail(
            SP_ESHAPE, "graph %s: example %d is %s%s; the graph was made for %s%s", g->name, i,
            sp_dtype_name((sp_dtype)given->dtype), SP_SHAPE(given),
            sp_dtype_name((sp_dtype)type->dtype),
            sp__shape_text(type->rank, type->shape, (char[SP_SHAPE_TEXT]){0}, SP_SHAPE_TEXT));
    return sp_clone(given, out);
}

static sp_status derivation_new(derivation *d, sp_graph *g, const sp_tensor *const *examples)
{
    const sp_vid *along = d->forward ? g->inputs : g->outputs;
    d->g = g, d->n_in = g->n_inputs, d->n_out = g->n_outputs;
    d->n_float_in = count_floating(g, g->inputs, g->n_inputs);
    d->n_float_out = count_floating(g, g->outputs, g->n_outputs);
    d->all = sp__alloc_zero((size_t)(n_all(d) + n_yields(d)) * sizeof *d->all);
    if (!d->all) return sp_fail(SP_EMEMORY, "graph %s: out of memory to derive it", g->name);
    d->yields = d->all + n_all(d);
    for (int i = 0; i < d->n_in; i++)
        SP_RETURN_IF(example(g, i, examples ? examples[i] : NULL, &d->all[i]));
    for (int i = 0, k = d->n_in; k < n_all(d); i++)
        if (is_floating(g, along[i])) SP_RETURN_IF(stand_in(g, along[i], SP_INT(1), &d->all[k++]));
    return SP_OK;
}

static void derivation_free(derivation *d)
{
    int n = n_all(d) + n_yields(d);
    if (!d->all) return;
    for (int i = 0; i < n; i++) sp_drop(&d->all[i]);
    sp__free(d->all, (size_t)n * sizeof *d->all);
}

/* ---- one level, whose tensors these are ----- */

typedef struct level_run {
    sp_level *level;
    sp_tensor **in, **out;       /* the graph's; owned */
    sp_tensor **leaves, **roots; /* the floating ones of these; borrowed */
} level_run;

static int run_entries(const derivation *d)
{
    return d->n_in + d->n_out + d->n_float_in + d->n_float_out;
}

static sp_status wrap_inputs(const derivation *d, level_run *r)
{
    for (int i = 0, k = 0; i < d->n_in; i++) {
        const sp_tensor *x = d->all[i];
        if (!is_floating(d->g, d->g->inputs[i])) {
            r->in[i] = sp_retain(x);
            continue;
        }
        if (d->forward)
            SP_RETURN_IF(sp__dual(r->level, x, d->all[d->n_in + k], &r->in[i]));
        else
            SP_RETURN_IF(sp__grad_wrap(r->level, x, true, &r->in[i]));
        r->leaves[k++] = r->in[i];
    }
    return SP_OK;
}

static sp_status unwrap_outputs(const derivation *d, level_run *r)
{
    for (int i = 0, k = 0; i < d->n_out; i++) {
        bool floating = is_floating(d->g, d->g->outputs[i]);
        sp_tensor *tangent = NULL;
        if (!d->forward) {
            SP_RETURN_IF(sp__grad_unwrap(r->level, r->out[i], &d->yields[i]));
        } else {
            SP_RETURN_IF(sp__undual(r->level, r->out[i], &d->yields[i], &tangent));
            if (floating)
                d->yields[d->n_out + k] = tangent;
            else
                sp_drop(&tangent);
        }
        if (floating) r->roots[k++] = r->out[i];
    }
    return SP_OK;
}

static sp_status run_at(const derivation *d, level_run *r)
{
    SP_RETURN_IF(wrap_inputs(d, r));
    SP_RETURN_IF(sp_graph_run(d->g, (const sp_tensor *const *)r->in, d->n_in, r->out, d->n_out));
    SP_RETURN_IF(unwrap_outputs(d, r));
    if (d->forward || !d->n_float_in) return SP_OK;
    return sp__grad_of(r->level, (const sp_tensor *const *)r->roots,
                       (const sp_tensor *const *)d->all + d->n_in, d->n_float_out,
                       (const sp_tensor *const *)r->leaves, d->n_float_in, false,
                       d->yields + d->n_out);
}

static sp_status run_derived(const derivation *d)
{
    size_t bytes = (size_t)run_entries(d) * sizeof(sp_tensor *);
    level_run r = {.in = sp__alloc_zero(bytes)};
    if (!r.in) return sp_fail(SP_EMEMORY, "graph %s: out of memory to derive it", d->g->name);
    r.out = r.in + d->n_in, r.leaves = r.out + d->n_out, r.roots = r.leaves + d->n_float_in;
    sp_status status = SP_OK;
    SP_TRY(sp__level_push(d->forward ? SP_LEVEL_JVP : SP_LEVEL_GRAD, &r.level));
    status = run_at(d, &r);
    sp__level_pop(r.level);
out:
    for (int i = 0; i < d->n_in + d->n_out; i++) sp_drop(&r.in[i]);
    sp__free(r.in, bytes);
    return status;
}

/* ---- names ----- */

static sp_status name_like(const derivation *d, sp_graph *derived)
{
    for (int i = 0; i < d->n_in; i++)
        SP_RETURN_IF(
            sp__graph_name_value(derived, derived->inputs[i], d->g->values[d->g->inputs[i]].name));
    return SP_OK;
}

/* ---- the public calls ----- */

static sp_status derive(derivation *d, sp_graph *graph, const sp_tensor *const *examples,
                        sp_graph **out)
{
    sp_status status = SP_OK;
    bool recording = sp_grad_mode(false); /* the level has its own */
    *out = NULL;
    SP_TRY(derivation_new(d, graph, examples));
    SP_TRY(sp_capture_begin((const sp_tensor *const *)d->all, n_all(d)));
    status = run_derived(d);
    sp_status ended =
        sp_capture_end((const sp_tensor *const *)d->yields, status == SP_OK ? n_yields(d) : 0, out);
    SP_TRY(status);
    SP_TRY(ended);
    SP_TRY(name_like(d, *out));
out:
    if (status != SP_OK) sp_graph_drop(out);
    derivation_free(d);
    (void)sp_grad_mode(recording);
    return status;
}

sp_status sp_graph_vjp(sp_graph *graph, const sp_tensor *const *examples, sp_graph **out)
{
    derivation d = {.forward = false};
    return derive(&d, graph, examples, out);
}

sp_status sp_graph_jvp(sp_graph *graph, const sp_tensor *const *examples, sp_graph **out)
{
    derivation d = {.forward = true};
    return derive(&d, graph, examples, out);
}
