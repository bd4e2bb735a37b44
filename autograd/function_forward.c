/* Custom functions in forward mode: values below, and their tangents (jvp), or Taylor coefficients
 * (jet), by the function's jvp.
 *
 * Of a curve x(t), y' = jvp(x; x'): that is evaluated on series at the jet level with one order
 * less, and integrated, order by order, because what setup keeps may be a result. What it costs
 * grows with the cube of the order.
 *
 * All but that evaluation runs with the level off the stack.
 */
#include "autograd/function_int.h"

#include <string.h>

#include "autograd/calls.h"
#include "autograd/forward_int.h"

typedef struct moving { /* a use on tensors that move */
    sp_use_at low;      /* values */
    sp_level *level;
    int order;
    sp_tensor **t;  /* t[k * n_in + i]: coefficient k + 1 of input i; owned; NULL: zero */
    sp_tensor **ty; /* ty[k * n_out + j]: of result j; owned; NULL until values are there */
} moving;

typedef struct point { /* where jvp is evaluated: at the level, or below it */
    sp_function_call *call;
    const sp_tensor *const *in;
    sp_tensor **out, **t, **ty; /* one an input, one a result; owned by others */
    int n_in, n_out;
} point;

static void drop_all(sp_tensor **t, int n)
{
    for (int i = 0; i < n; i++) sp_drop(&t[i]);
}

static sp_status array_new(const char *name, int n, sp_tensor ***out)
{
    *out = sp__alloc_zero((size_t)n * sizeof **out);
    return *out ? SP_OK : sp_fail(SP_EMEMORY, "%s: no memory for %d tangents", name, n);
}

static void array_free(sp_tensor **t, int n)
{
    if (!t) return;
    drop_all(t, n);
    sp__free(t, (size_t)n * sizeof *t);
}

/* ---- jvp at one point ----- */

static sp_status materialize(const point *p)
{
    for (int i = 0; i < p->n_in && p->call->materialize; i++)
        if (!p->t[i] && sp__is_float(p->in[i]->dtype))
            SP_RETURN_IF(sp__call_full_like(p->in[i], 0, &p->t[i]));
    return SP_OK;
}

static sp_status check_tangent(const point *p, int j)
{
    const sp_tensor *y = p->out[j];
    sp_tensor *t = p->ty[j], *cast = NULL;
    if (!t) return SP_OK;
    if (!sp__is_float(y->dtype) || sp__function_keeps(p->call, SP_KEEP_CONSTANT, y)) {
        sp_drop(&p->ty[j]);
        return SP_OK;
    }
    bool same = t->rank == y->rank;
    for (int d = 0; same && d < y->rank; d++) same = t->shape[d] == y->shape[d];
    if (!same)
        return sp_fail(SP_ESHAPE,
                       "%s: jvp returned a tangent of shape %s for result %d, which has shape %s",
                       p->call->use->name, SP_SHAPE(t), j, SP_SHAPE(y));
    if (t->dtype == y->dtype) return SP_OK;
    SP_RETURN_IF(sp_cast(t, (sp_dtype)y->dtype, &cast));
    sp_drop(&p->ty[j]);
    p->ty[j] = cast;
    return SP_OK;
}

static sp_status run_jvp(const point *p)
{
    const sp_function_use *use = p->call->use;
    sp_function_run run = {.forward = sp__function_kept_at(p->call, SP_KEEP_FORWARD, 0) != NULL};
    SP_RETURN_IF(materialize(p));
    sp__function_run_begin(&run, p->call);
    sp_status status =
        use->fn.jvp(use->ctx, p->call, (const sp_tensor *const *)p->t, p->n_in, p->ty, p->n_out);
    sp__function_run_end(&run);
    for (int j = 0; j < p->n_out && status == SP_OK; j++) status = check_tangent(p, j);
    return status;
}

/* ---- a tangent ----- */

/* The values below; what setup computes is recorded there, as jvp's own ops are. */
static sp_status run_values(moving *m, sp_function_call *call)
{
    sp_use_at *low = &m->low;
    if (low->use->fn.setup) {
        SP_RETURN_IF(sp__use_at_top(low));
        return sp__use_setup(low, call);
    }
    bool no_grad = sp__tls.no_grad;
    sp__tls.no_grad = true;
    sp_status status = sp__use_here(low, call);
    sp__tls.no_grad = no_grad;
    return status;
}

static sp_status by_tangent(moving *m)
{
    sp_use_at *low = &m->low;
    sp_function_call *call;
    SP_RETURN_IF(sp__function_call_new(low->use, low->in, low->n_in, &call));
    sp_status status = SP_OK;
    SP_TRY(run_values(m, call));
    SP_TRY(array_new(low->use->name, low->n_out, &m->ty));
    SP_TRY(run_jvp(&(point){call, low->in, low->out, m->t, m->ty, low->n_in, low->n_out}));
out:
    sp__function_call_free(call);
    return status;
}

/* ---- a series ----- */

/* Coefficients of x'(t), below the order `order`: k + 1 times those of x(t). */
static sp_status derivative_of(const moving *m, int i, int order, sp_tensor **series, bool *any)
{
    for (int k = 0; k < order; k++) {
        sp_tensor *x = m->t[k * m->low.n_in + i];
        *any |= x != NULL;
        if (x && k == 0) series[k] = sp__retain(x);
        if (x && k > 0) SP_RETURN_IF(sp_mul_scalar(x, SP_FLOAT(k + 1), &series[k]));
    }
    return SP_OK;
}

static sp_status wrap_derivative(const moving *m, int i, int order, sp_tensor **out)
{
    sp_tensor *series[SP_JET_MAX] = {NULL};
    bool any = false;
    sp_status status = SP_OK;
    SP_TRY(derivative_of(m, i, order, series, &any));
    if (any && !series[0]) SP_TRY(sp__call_full_like(m->low.in[i], 0, &series[0]));
    if (any) SP_TRY(sp__wrap_series(m->level, series[0], series + 1, 1, out));
out:
    drop_all(series, order);
    return status;
}

/* Everything as it is at the level, with all coefficients below `order`. */
static sp_status wrap_all(const moving *m, int order, sp_tensor **in, const point *p)
{
    const sp_use_at *low = &m->low;
    for (int i = 0; i < low->n_in; i++) {
        SP_RETURN_IF(wrap_derivative(m, i, order, &p->t[i]));
        if (p->t[i])
            SP_RETURN_IF(sp__wrap_series(m->level, low->in[i], &m->t[i], low->n_in, &in[i]));
        else
            in[i] = sp__retain(low->in[i]);
    }
    for (int j = 0; j < low->n_out; j++)
        SP_RETURN_IF(sp__wrap_series(m->level, low->out[j], &m->ty[j], low->n_out, &p->out[j]));
    return SP_OK;
}

static sp_status at_the_level(const moving *m, const point *p)
{
    const sp_use_at up = {
        .use = m->low.use, .in = p->in, .out = p->out, .n_in = p->n_in, .n_out = p->n_out};
    SP_RETURN_IF(sp__use_setup(&up, p->call));
    return run_jvp(p);
}

/* Coefficient `order` of each result, from that before it of y'. */
static sp_status integrate(const moving *m, int order, sp_tensor *const *d)
{
    for (int j = 0; j < m->low.n_out; j++) {
        bool mine = sp__of_level(d[j], m->level);
        const sp_tensor *part = mine ? d[j]->wrap->inner : d[j];
        sp_tensor **y = &m->ty[(order - 1) * m->low.n_out + j];
        if (order > 1) part = mine ? d[j]->wrap->tangent[order - 2] : NULL;
        if (!part) continue;
        if (order == 1)
            *y = sp__retain(part);
        else
            SP_RETURN_IF(sp_div_scalar(part, SP_FLOAT(order), y));
    }
    return SP_OK;
}

/* y'(t) at orders below `order`, and with it y's coefficient `order`. */
static sp_status one_order(const moving *m, int order)
{
    const sp_use_at *low = &m->low;
    sp_jet_level *jet = (sp_jet_level *)m->level;
    int n = 2 * (low->n_in + low->n_out);
    uint8_t full = jet->order;
    sp_context was = {sp__tls.top, sp__tls.no_grad};
    sp_tensor **all;
    SP_RETURN_IF(array_new(low->use->name, n, &all));
    sp_tensor **out = all + low->n_in;
    point p = {.in = (const sp_tensor *const *)all,
               .out = out,
               .t = out + low->n_out,
               .ty = out + low->n_out + low->n_in,
               .n_in = low->n_in,
               .n_out = low->n_out};
    sp_status status = SP_OK;
    SP_TRY(sp__function_call_new(low->use, low->in, low->n_in, &p.call));
    jet->order = (uint8_t)(order - 1);
    status = wrap_all(m, order, all, &p);
    sp__tls.top = m->level;
    if (status == SP_OK) status = at_the_level(m, &p);
    sp__context_leave(&was);
    jet->order = full;
    SP_TRY(status);
    SP_TRY(integrate(m, order, p.ty));
out:
    sp__function_call_free(p.call);
    array_free(all, n);
    return status;
}

static sp_status by_series(moving *m)
{
    sp_use_at *low = &m->low;
    SP_RETURN_IF(sp__use_at_top(low));
    SP_RETURN_IF(array_new(low->use->name, m->order * low->n_out, &m->ty));
    for (int k = 1; k <= m->order; k++) SP_RETURN_IF(one_order(m, k));
    return SP_OK;
}

/* ---- a level of forward mode ----- */

/* Result j was made at the level: an input that was written has new tangents. */
static sp_status result_moved(const sp_use_at *a, const moving *m, int j)
{
    sp_tensor *t = a->out[j], *now[SP_JET_MAX] = {NULL};
    bool any = false;
    if (!sp__use_has(a, t)) return sp__function_sharing(m->level, a->in, a->n_in, t);
    for (int k = 0; k < m->order; k++) any |= (now[k] = m->ty[k * a->n_out + j]) != NULL;
    if (sp__of_level(t, m->level)) return sp__tangents_written(t, now, m->order);
    if (!any) return SP_OK;
    return sp_fail(SP_EGRAD,
                   "%s: it writes a tensor from outside of jvp() in place with one that has a "
                   "tangent, which would lose the derivative; pass a clone() made inside",
                   a->use->name);
}

static sp_status run_moving(sp_use_at *a, moving *m)
{
    sp_descent d;
    sp__use_descend(m->level, &d);
    sp_status status = m->order > 1 ? by_series(m) : by_tangent(m);
    a->n_out = m->low.n_out;
    for (int j = 0; j < a->n_out && status == SP_OK; j++) {
        status = sp__use_wrap(a, m->low.in, m->level, j, &m->ty[j]);
        if (status == SP_OK) status = result_moved(a, m, j);
    }
    sp__use_ascend(&d);
    return status;
}

static sp_status tangents_in(const sp_use_at *a, moving *m, bool *any)
{
    for (int i = 0; i < a->n_in; i++) {
        const sp_wrap *wrap;
        SP_RETURN_IF(sp__tangents_of(a->in[i], m->level, &wrap));
        for (int k = 0; wrap && k < m->order; k++) {
            sp_tensor *t = wrap->tangent[k];
            m->t[k * a->n_in + i] = t ? sp__retain(t) : NULL;
            *any |= t != NULL;
        }
    }
    return SP_OK;
}

static sp_status check_forward(const sp_use_at *a, const moving *m)
{
    if (!a->use->fn.jvp)
        return sp_fail(SP_EUNSUPPORTED,
                       "%s: has no forward-mode derivative; define a jvp(ctx, *tangents)",
                       a->use->name);
    if (a->use->fn.setup) return SP_OK;
    if (m->order > 1)
        return sp_fail(SP_EUNSUPPORTED,
                       "%s: inside jet it needs a setup_context (in C: setup) apart from forward",
                       a->use->name);
    return sp__use_sole(a, m->level);
}

static sp_status with_tangents(sp_use_at *a, moving *m)
{
    sp_context was;
    bool any = false;
    sp__below_enter(m->level, &was);
    sp_status status = tangents_in(a, m, &any);
    sp__below_leave(&was);
    SP_RETURN_IF(status);
    if (!any) return sp__use_below(a, m->level);
    SP_RETURN_IF(check_forward(a, m));
    return run_moving(a, m);
}

sp_status sp__use_forward(sp_use_at *a, sp_level *level)
{
    enum { ROOM = 16 };
    int order = sp__level_order(level), n_t = order * a->n_in;
    sp_tensor *room[ROOM] = {NULL}, **arrays = room;
    size_t n = (size_t)(a->n_in + n_t), bytes = n * sizeof *arrays;
    if (n > ROOM && !(arrays = sp__alloc_zero(bytes)))
        return sp_fail(SP_EMEMORY, "%s: no memory for its inputs", a->use->name);
    moving m = {.low = *a, .level = level, .order = order, .t = arrays + a->n_in};
    for (int i = 0; i < a->n_in; i++) arrays[i] = sp__below(a->in[i], level);
    m.low.in = (const sp_tensor *const *)arrays;
    sp_status status = with_tangents(a, &m);
    array_free(m.ty, order * m.low.n_out);
    drop_all(m.t, n_t);
    if (arrays != room) sp__free(arrays, bytes);
    return status;
}
