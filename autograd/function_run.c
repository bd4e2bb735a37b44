/* Custom functions: running backward, and what it is given.
 *
 * What forward computed on the way has no history, because nothing was recorded. A second
 * derivative that would need one is an error, never a zero: such a saved value leads to a node that
 * only fails. So does all that a once-differentiable backward computes; it runs as a custom
 * function of the gradients and saved values, whose own derivatives fail, and thereby at every
 * level.
 */
#include <string.h>

#include "autograd/autograd.h"
#include "autograd/function.h"
#include "autograd/function_int.h"
#include "autograd/rules.h"

static __thread sp_function_run *running;

void sp__function_run_begin(sp_function_run *run, const sp_function_call *call)
{
    run->outer = running;
    run->call = call;
    running = run;
}

void sp__function_run_end(const sp_function_run *run)
{
    running = run->outer;
}

static const sp_function_run *run_of(const sp_function_call *call)
{
    const sp_function_run *run = running;
    while (run && run->call != call) run = run->outer;
    return run;
}

static sp_function_call *call_of(const sp_node *node)
{
    return ((const sp_function_node *)node)->call;
}

const char *sp__function_name(const sp_node *node)
{
    return call_of(node) ? call_of(node)->use->name : "function";
}

void sp__function_bury(sp_node *node)
{
    sp__function_call_free(call_of(node));
}

void *sp__node_kept(const sp_node *node, void (*drop)(void *data))
{
    const sp_function_call *call = node->kind == SP_NODE_FUNCTION ? call_of(node) : NULL;
    return call && call->drop == drop ? call->data : NULL;
}

bool sp_function_needs(const sp_function_call *call, int i)
{
    const sp_function_run *run = run_of(call);
    if (i < 0 || i >= call->n_in || !call->wanted[i]) return false;
    return !run || !run->selective || (run->need & sp__in_bit(i));
}

/* ---- nodes that only fail ----- */

static sp_status use_name_new(const sp_function *model, sp_function_use *of, sp_function_use **out)
{
    sp_function fn = *model;
    fn.name = of->name;
    return sp__function_use_new(&fn, NULL, out);
}

static sp_status inner_backward(void *ctx, sp_function_call *call, const sp_tensor *const *gy,
                                int n_out, sp_tensor **gx, int n_in)
{
    (void)ctx, (void)gy, (void)n_out, (void)gx, (void)n_in;
    return sp_fail(SP_EGRAD,
                   "%s: a second derivative needs that of a value that forward computed on the "
                   "way and saved, of which nothing was recorded; return it as a result, compute "
                   "it in backward from saved inputs, or detach() it there if it is a constant",
                   call->use->name);
}

/* An alias of t, whose history is a node that leads where `of` does and fails when it is run. */
static sp_status behind_barrier(const sp_node *of, const sp_tensor *t, sp_tensor **out)
{
    static const sp_function model = {.size = sizeof model, .backward = inner_backward};
    sp_function_use *use;
    sp_function_call *call = NULL;
    sp_node *node = NULL;
    sp_status status = SP_OK;
    SP_RETURN_IF(use_name_new(&model, call_of(of)->use, &use));
    SP_TRY(sp__value_alias(t, out));
    SP_TRY(sp__function_call_new(use, NULL, 0, &call));
    SP_TRY(sp__node_over(SP_NODE_FUNCTION, sizeof(sp_function_node), NULL, of->n_in, out, 1, 0,
                         &node));
    ((sp_function_node *)node)->call = call;
    call->node = node;
    for (int i = 0; i < of->n_in; i++)
        if (of->edges[i].node)
            node->edges[i] = (sp_edge){sp__node_keep(of->edges[i].node), of->edges[i].nr};
    sp__node_number(node);
    SP_TRY(sp__history_set(*out, node, 0));
out:
    if (node)
        sp__node_let_go(node);
    else
        sp__function_call_free(call);
    sp__function_use_drop(use);
    if (status != SP_OK) sp_drop(out);
    return status;
}

/* ---- saved values ----- */

static sp_keep_kind kind_of(const sp_function_run *run)
{
    return run && run->forward ? SP_KEEP_FORWARD : SP_KEEP_SAVED;
}

int sp_function_num_saved(const sp_function_call *call)
{
    const sp_function_run *run = run_of(call);
    int n = 0;
    if (run && run->saved) return run->n_saved;
    if (call->node) return call->node->n_saved;
    while (sp__function_kept_at(call, kind_of(run), n)) n++;
    return n;
}

static sp_status from_packed(sp_node *node, const sp_saved *s, sp_tensor **out)
{
    sp_tensor *t;
    SP_RETURN_IF(sp__unpack(node, s, &t));
    if (sp__tls.no_grad || s->index != SP_SAVED_INNER || (t->flags & SP_T_REQUIRES_GRAD)) {
        *out = t;
        return SP_OK;
    }
    sp_status status = behind_barrier(node, t, out);
    sp_drop(&t);
    return status;
}

static sp_status from_node(sp_node *node, int i, sp_tensor **out)
{
    SP_RETURN_IF(sp__saved_there(node));
    const sp_saved *s = &node->saved[i];
    if (s->is_packed) return from_packed(node, s, out);
    SP_RETURN_IF(sp__saved_check(node, s));
    bool plain = sp__tls.no_grad || (s->t->flags & SP_T_REQUIRES_GRAD);
    if (!plain && s->index < 0) return sp__saved_output(node, s, out);
    if (!plain && s->index == SP_SAVED_INNER) return behind_barrier(node, s->t, out);
    *out = sp__retain(s->t);
    return SP_OK;
}

sp_status sp_function_saved(sp_function_call *call, int i, sp_tensor **out)
{
    const sp_function_run *run = run_of(call);
    int n = sp_function_num_saved(call);
    *out = NULL;
    if (i < 0 || i >= n)
        return sp_fail(SP_EINDEX, "%s: saved value %d of %d", call->use->name, i, n);
    if (call->node && !(run && run->saved)) return from_node(call->node, i, out);
    *out =
        sp__retain(run && run->saved ? run->saved[i] : sp__function_kept_at(call, kind_of(run), i));
    return SP_OK;
}

/* ---- gradients in and out ----- */

/* gy with zeros for what is NULL, where the function wants to see them; all owned. */
static sp_status gradients_in(const sp_node *node, sp_tensor *const *gy, sp_tensor **full)
{
    for (int j = 0; j < node->n_out; j++) {
        sp_meta m;
        if (gy[j]) full[j] = sp__retain(gy[j]);
        if (gy[j] || !call_of(node)->materialize) continue;
        sp__node_out_meta(node, j, &m);
        const sp_full_opt opt = {.size = sizeof opt, .has_dtype = true, .dtype = (sp_dtype)m.dtype};
        SP_RETURN_IF(sp_full(m.shape, m.rank, SP_INT(0), &opt, &full[j]));
    }
    return SP_OK;
}

static bool broadcasts(const sp_meta *m, const sp_tensor *to)
{
    if (m->rank > to->rank) return false;
    for (int d = 1; d <= m->rank; d++) {
        int64_t size = m->shape[m->rank - d];
        if (size != 1 && size != to->shape[to->rank - d]) return false;
    }
    return true;
}

/* A gradient that the input broadcasts to is summed; the engine casts. */
sp_status sp__function_fit(const char *name, int i, int n, const sp_meta *want, sp_tensor **g)
{
    bool same = want->rank == (*g)->rank;
    for (int d = 0; same && d < want->rank; d++) same = want->shape[d] == (*g)->shape[d];
    if (same) return SP_OK;
    if (!broadcasts(want, *g))
        return sp_fail(
            SP_ESHAPE,
            "%sBackward: returned a gradient of shape %s for an input of shape %s (tensor %d of "
            "%d); expected the input's shape, or one that it broadcasts to",
            name, SP_SHAPE(*g),
            sp__shape_text(want->rank, want->shape, (char[SP_SHAPE_TEXT]){0}, SP_SHAPE_TEXT), i + 1,
            n);
    sp_tensor *sum = NULL;
    SP_RETURN_IF(sp__rule_sum_to(*g, want, &sum));
    sp_drop(g);
    *g = sum;
    return SP_OK;
}

static sp_status gradients_out(const sp_node *node, uint64_t need, sp_tensor **gx)
{
    for (int i = 0; i < node->n_in; i++) {
        sp_meta want;
        if (!(need & sp__in_bit(i))) sp_drop(&gx[i]);
        if (!gx[i]) continue;
        sp__node_in_meta(node, i, &want);
        SP_RETURN_IF(sp__function_fit(sp__node_op(node), i, node->n_in, &want, &gx[i]));
    }
    return SP_OK;
}

static sp_status run_backward(sp_function_call *call, sp_function_run *run,
                              const sp_tensor *const *gy, int n_out, sp_tensor **gx)
{
    sp__function_run_begin(run, call);
    sp_status status = call->use->fn.backward(call->use->ctx, call, gy, n_out, gx, call->n_in);
    sp__function_run_end(run);
    return status;
}

/* ---- once differentiable ----- */

typedef struct once {       /* ctx of a backward that runs as a function */
    sp_function_call *call; /* borrowed, while it runs */
    uint64_t need;
    int n_gy, n_out, n_saved;
    bool given[SP_FUNCTION_MAX_OUT]; /* which of gy are not NULL: the first inputs */
    int *gx_of;                      /* borrowed, while it runs: results to gradients */
} once;

static sp_status once_forward(void *ctx, sp_function_call *self, const sp_tensor *const *in,
                              int n_in, sp_tensor **out, int max_out, int *n_out)
{
    (void)self, (void)n_in, (void)max_out;
    once *o = ctx;
    const sp_tensor *gy[SP_FUNCTION_MAX_OUT];
    sp_function_run run = {.selective = true,
                           .need = o->need,
                           .saved = (sp_tensor *const *)in + o->n_gy,
                           .n_saved = o->n_saved};
    for (int j = 0, k = 0; j < o->n_out; j++) gy[j] = o->given[j] ? in[k++] : NULL;
    sp_status status = run_backward(o->call, &run, gy, o->n_out, out);
    for (int i = 0; i < o->call->n_in; i++) {
        sp_tensor *g = out[i];
        out[i] = NULL;
        if (!g) continue;
        o->gx_of[*n_out] = i;
        out[(*n_out)++] = g;
    }
    return status;
}

static sp_status once_refuses(const sp_function_call *call)
{
    return sp_fail(SP_EGRAD,
                   "%s: its backward is once_differentiable, but what it computed is "
                   "differentiated again; write backward with ops alone, without the decorator",
                   call->use->name);
}

static sp_status once_setup(void *ctx, sp_function_call *call, const sp_tensor *const *in, int n_in,
                            const sp_tensor *const *out, int n_out)
{
    (void)ctx, (void)call, (void)in, (void)n_in, (void)out, (void)n_out;
    return SP_OK;
}

static sp_status once_backward(void *ctx, sp_function_call *call, const sp_tensor *const *gy,
                               int n_out, sp_tensor **gx, int n_in)
{
    (void)ctx, (void)gy, (void)n_out, (void)gx, (void)n_in;
    return once_refuses(call);
}

static sp_status once_jvp(void *ctx, sp_function_call *call, const sp_tensor *const *t, int n_in,
                          sp_tensor **ty, int n_out)
{
    (void)ctx, (void)t, (void)n_in, (void)ty, (void)n_out;
    return once_refuses(call);
}

static void once_drop(void *ctx)
{
    sp__free(ctx, sizeof(once));
}

static const sp_function once_model = {.size = sizeof(sp_function),
                                       .forward = once_forward,
                                       .setup = once_setup,
                                       .backward = once_backward,
                                       .jvp = once_jvp,
                                       .drop = once_drop,
                                       .generate_vmap = true};

/* Numbers with the histories of the node's inputs: what it computes depends on these, whatever its
 * backward looks at. */
static sp_status carriers(const sp_node *node, sp_tensor **in, int *n)
{
    sp_tensor *zero = NULL;
    sp_status status = SP_OK;
    if (sp__tls.no_grad) return SP_OK;
    SP_TRY(sp_full(NULL, 0, SP_FLOAT(0), NULL, &zero));
    for (int i = 0; i < node->n_in; i++) {
        if (!node->edges[i].node) continue;
        SP_TRY(sp__value_alias(zero, &in[*n]));
        SP_TRY(sp__history_set(in[(*n)++], node->edges[i].node, node->edges[i].nr));
    }
out:
    sp_drop(&zero);
    return status;
}

static sp_status once_inputs(const sp_node *node, sp_tensor *const *gy, once *o, sp_tensor **in,
                             int *n)
{
    for (int j = 0; j < o->n_out; j++)
        if ((o->given[j] = gy[j] != NULL)) in[(*n)++] = sp__retain(gy[j]);
    o->n_gy = *n;
    for (int i = 0; i < o->n_saved; i++) SP_RETURN_IF(sp_function_saved(o->call, i, &in[(*n)++]));
    return carriers(node, in, n);
}

static sp_status once_apply(const sp_node *node, once *o, const sp_tensor *const *in, int n,
                            sp_tensor **gx)
{
    sp_function fn = once_model;
    sp_tensor *made[SP_FUNCTION_MAX_OUT] = {NULL};
    int gx_of[SP_FUNCTION_MAX_OUT], n_made = 0;
    fn.name = o->call->use->name;
    o->gx_of = gx_of;
    if (node->n_in > SP_FUNCTION_MAX_OUT) {
        once_drop(o);
        return sp_fail(SP_EUNSUPPORTED, "%s: once_differentiable with more than %d inputs", fn.name,
                       SP_FUNCTION_MAX_OUT);
    }
    SP_RETURN_IF(sp_function_apply(&fn, o, in, n, made, SP_FUNCTION_MAX_OUT, &n_made));
    for (int k = 0; k < n_made; k++) gx[gx_of[k]] = made[k];
    return SP_OK;
}

static sp_status once_vjp(const sp_node *node, sp_tensor *const *gy, uint64_t need, sp_tensor **gx)
{
    sp_function_call *call = call_of(node);
    once *o = sp__alloc_zero(sizeof *o);
    int n = 0, most = node->n_out + node->n_saved + node->n_in;
    sp_tensor **in = sp__alloc_zero((size_t)most * sizeof *in);
    sp_status status = SP_OK;
    if (!o || !in)
        SP_TRY(sp_fail(SP_EMEMORY, "%s: no memory to run its backward", call->use->name));
    o->call = call, o->need = need;
    o->n_out = node->n_out, o->n_saved = node->n_saved;
    SP_TRY(once_inputs(node, gy, o, in, &n));
    once *given = o;
    o = NULL;
    SP_TRY(once_apply(node, given, (const sp_tensor *const *)in, n, gx));
out:
    for (int i = 0; in && i < most; i++) sp_drop(&in[i]);
    if (in) sp__free(in, (size_t)most * sizeof *in);
    if (o) once_drop(o);
    return status;
}

/* ---- a node's vjp ----- */

sp_status sp__function_vjp(sp_node *node, sp_tensor *const *gy, uint64_t need, sp_tensor **gx)
{
    sp_function_call *call = call_of(node);
    sp_tensor *full[SP_FUNCTION_MAX_OUT];
    sp_function_run run = {.selective = true, .need = need};
    bool once = call->use->fn.once_differentiable && (!sp__tls.no_grad || sp__top_transform());
    if (!call->use->fn.backward)
        return sp_fail(SP_EGRAD, "%s: has no backward; define one, or detach() its inputs",
                       call->use->name);
    sp_status status = SP_OK;
    memset(full, 0, node->n_out * sizeof *full);
    SP_TRY(gradients_in(node, gy, full));
    SP_TRY(once ? once_vjp(node, full, need, gx)
                : run_backward(call, &run, (const sp_tensor *const *)full, node->n_out, gx));
    SP_TRY(gradients_out(node, need, gx));
out:
    for (int j = 0; j < node->n_out; j++) sp_drop(&full[j]);
    for (int i = 0; i < node->n_in && status != SP_OK; i++) sp_drop(&gx[i]);
    return status;
}
