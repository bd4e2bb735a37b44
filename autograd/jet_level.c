/* Taylor mode: the coefficients of y(t) = f(x(t)) from those of x(t), normalised: the one of order
 * k is the k-th derivative over k!.
 *
 * Ways, the first that fits:
 * 1. The derivative does not depend on what moves (the table's formulas say what they read): each
 *    coefficient goes through it by itself.
 * 2. A recurrence of the op's own, or the product of two series (jet_recurrences.c): order^2.
 * 3. The body of a composite, at this level.
 * 4. y' = f'(x) x': the op's derivative formula, evaluated on series at this level with one order
 *    less, and integrated. Where it reads the op's own result, order by order: that costs order^3,
 *    and is counted.
 *
 * All but 3 run with the level off the stack, but for the evaluation itself (lowered()).
 * Griewank, Walther: Evaluating Derivatives (2008), chapter 13.
 */
#include "autograd/calls.h"
#include "autograd/forward_int.h"

static _Atomic int64_t fallbacks;

int64_t sp__jet_fallbacks(void)
{
    return fallbacks;
}

static void drop_all(sp_tensor **t, int n)
{
    for (int i = 0; i < n; i++) sp_drop(&t[i]);
}

/* ---- the derivative is the same all along ----- */

static bool any_moves(const sp_forward *f, int k)
{
    for (int i = 0; i < f->c->n_in; i++)
        if (f->t[k * f->c->n_in + i]) return true;
    return false;
}

/* Outputs that are floating. */
static uint32_t floating(const sp_forward *f)
{
    uint32_t mask = 0;
    for (int j = 0; j < f->c->n_out; j++)
        if (sp__is_float(f->out[j]->dtype)) mask |= 1u << j;
    return mask;
}

/* Whether the derivative formulas of what moves have a derivative by what moves, or by results. */
static void bends(const sp_forward *f, uint64_t *in, uint32_t *out)
{
    const sp_rule *rule = &sp__rules[f->c->op];
    bool variadic = sp_op_table[f->c->op].n_in < 0;
    *in = 0, *out = 0;
    for (int i = 0; i < (variadic ? 1 : f->c->n_in); i++) {
        if (!variadic && !(f->moving >> i & 1)) continue;
        *in |= variadic && rule->vjp_bends_in[i] ? ~UINT64_C(0) : rule->vjp_bends_in[i];
        *out |= rule->vjp_bends_out[i];
    }
    *out &= floating(f);
}

static bool straight(const sp_forward *f)
{
    uint64_t in;
    uint32_t out;
    if (!sp__rules[f->c->op].vjp) return false;
    bends(f, &in, &out);
    return !(in & f->moving) && !out;
}

static sp_status each_alone(sp_forward *f)
{
    for (int k = 0; k < f->order; k++) {
        if (!any_moves(f, k)) continue;
        SP_RETURN_IF(
            sp__tangents(f->c, f->in, f->out, &f->t[k * f->c->n_in], &f->ty[k * f->c->n_out]));
    }
    return SP_OK;
}

/* ---- by the body ----- */

/* The kernel has made the values; of what the body makes, only the coefficients are taken. */
static sp_status by_body(sp_forward *f, sp_tensor **wrapped)
{
    const sp_call *c = f->c;
    sp_call whole = *c;
    sp_context was = {sp__tls.top, sp__tls.no_grad};
    whole.in = wrapped, whole.flags = 0;
    for (int j = 0; j < c->n_out; j++) whole.out[j] = NULL;
    sp__tls.top = f->level;
    sp_status status = sp__body(&whole);
    sp__context_leave(&was);
    SP_RETURN_IF(status);
    for (int j = 0; j < c->n_out; j++) {
        const sp_tensor *y = whole.out[j];
        for (int k = 0; sp__of_level(y, f->level) && k < f->order; k++)
            if (y->wrap->tangent[k]) f->ty[k * c->n_out + j] = sp__retain(y->wrap->tangent[k]);
    }
    drop_all(whole.out, c->n_out);
    return SP_OK;
}

/* ---- by the derivative, on series ----- */

typedef struct lowered { /* the call at the level, with all orders below `order` */
    sp_forward *f;
    int order;
    sp_tensor **in, **t, *out[SP_MAX_OUT], *ty[SP_MAX_OUT]; /* owned; what moves is wrapped */
} lowered;

/* x'(t): its coefficient k is k + 1 times that of x(t). */
static sp_status derivative_of(const sp_forward *f, int i, int order, sp_tensor **series)
{
    int n = f->c->n_in;
    for (int k = 0; k < order; k++) {
        sp_tensor *x = f->t[k * n + i];
        if (x && k == 0) series[k] = sp__retain(x);
        if (x && k > 0) SP_RETURN_IF(sp_mul_scalar(x, SP_FLOAT(k + 1), &series[k]));
    }
    return SP_OK;
}

/* Wraps coefficients 1...order of x'(t). */
static sp_status wrap_derivative(const lowered *l, int i, sp_tensor **out)
{
    const sp_forward *f = l->f;
    sp_tensor *series[SP_JET_MAX] = {NULL};
    sp_status status = SP_OK;
    SP_TRY(derivative_of(f, i, l->order, series));
    bool moves = false;
    for (int k = 0; k < l->order; k++) moves |= series[k] != NULL;
    if (moves && !series[0]) SP_TRY(sp__call_full_like(f->in[i], 0, &series[0]));
    if (moves) SP_TRY(sp__wrap_series(f->level, series[0], series + 1, 1, out));
out:
    drop_all(series, l->order);
    return status;
}

static sp_status wrap_all(lowered *l)
{
    const sp_forward *f = l->f;
    int n = f->c->n_in, n_out = f->c->n_out;
    for (int i = 0; i < n; i++) {
        if (!f->in[i]) continue;
        SP_RETURN_IF(wrap_derivative(l, i, &l->t[i]));
        if (l->t[i])
            SP_RETURN_IF(sp__wrap_series(f->level, f->in[i], &f->t[i], n, &l->in[i]));
        else
            l->in[i] = sp__retain(f->in[i]);
    }
    for (int j = 0; j < n_out; j++)
        SP_RETURN_IF(sp__wrap_series(f->level, f->out[j], &f->ty[j], n_out, &l->out[j]));
    return SP_OK;
}

/* y'(t) at orders below l->order, with the level on the stack. */
static sp_status evaluate(lowered *l)
{
    sp_jet_level *jet = (sp_jet_level *)l->f->level;
    sp_context was = {sp__tls.top, sp__tls.no_grad};
    uint8_t order = jet->order;
    jet->order = (uint8_t)(l->order - 1);
    sp_status status = wrap_all(l);
    sp__tls.top = l->f->level;
    if (status == SP_OK) status = sp__tangents(l->f->c, l->in, l->out, l->t, l->ty);
    sp__context_leave(&was);
    jet->order = order;
    return status;
}

/* y's coefficients from `from` on, out of those of y'. */
static sp_status integrate(lowered *l, int from)
{
    sp_forward *f = l->f;
    int n_out = f->c->n_out;
    for (int j = 0; j < n_out; j++) {
        const sp_tensor *d = l->ty[j];
        bool mine = sp__of_level(d, f->level);
        for (int k = from; d && k < l->order; k++) {
            const sp_tensor *part = mine ? d->wrap->inner : d;
            if (k > 0) part = mine ? d->wrap->tangent[k - 1] : NULL;
            sp_tensor **y = &f->ty[k * n_out + j];
            if (!part) continue;
            if (k == 0)
                *y = sp__retain(part);
            else
                SP_RETURN_IF(sp_div_scalar(part, SP_FLOAT(k + 1), y));
        }
    }
    return SP_OK;
}

/* Finds the coefficients from `from` on, up to order. */
static sp_status by_derivative(sp_forward *f, int from, int order)
{
    int n = f->c->n_in;
    size_t bytes = 2 * (size_t)n * sizeof(sp_tensor *);
    sp_tensor **arrays = sp__alloc_zero(bytes);
    if (!arrays)
        return sp_fail(SP_EMEMORY, "%s: no memory for its series", sp_op_table[f->c->op].name);
    lowered l = {.f = f, .order = order, .in = arrays, .t = arrays + n};
    sp_status status = evaluate(&l);
    if (status == SP_OK) status = integrate(&l, from);
    drop_all(arrays, 2 * n);
    drop_all(l.out, SP_MAX_OUT);
    drop_all(l.ty, SP_MAX_OUT);
    sp__free(arrays, bytes);
    return status;
}

/* Whether the formula of the derivative changes with the op's own result. */
static bool reads_result(const sp_forward *f)
{
    const sp_rule *rule = &sp__rules[f->c->op];
    uint64_t in;
    uint32_t out;
    if (rule->jvp) return rule->jvp_bends_out & floating(f);
    bends(f, &in, &out);
    return out != 0;
}

static sp_status order_by_order(sp_forward *f)
{
    if (f->order > 1) fallbacks++;
    for (int k = 1; k <= f->order; k++) SP_RETURN_IF(by_derivative(f, k - 1, k));
    return SP_OK;
}

/* ---- all of it ----- */

static sp_status fit_all(sp_forward *f)
{
    for (int k = 0; k < f->order; k++)
        for (int j = 0; j < f->c->n_out; j++)
            SP_RETURN_IF(sp__tangent_fit(f->out[j], &f->ty[k * f->c->n_out + j]));
    return SP_OK;
}

static bool has_body(const sp_forward *f)
{
    const sp_op_info *info = &sp_op_table[f->c->op];
    return info->body && !sp__rules[f->c->op].jvp && !(info->flags & SP_OPF_RANDOM);
}

/* The call's inputs at the level; in place, their values before. */
static sp_status body_on_series(sp_forward *f)
{
    int n = f->c->n_in;
    size_t bytes = (size_t)n * sizeof(sp_tensor *);
    sp_tensor **wrapped = sp__alloc_zero(bytes);
    sp_status status = SP_OK;
    if (!wrapped)
        return sp_fail(SP_EMEMORY, "%s: no memory for its series", sp_op_table[f->c->op].name);
    for (int i = 0; i < n; i++)
        if (f->in[i]) SP_TRY(sp__wrap_series(f->level, f->in[i], &f->t[i], n, &wrapped[i]));
    SP_TRY(by_body(f, wrapped));
out:
    drop_all(wrapped, n);
    sp__free(wrapped, bytes);
    return status;
}

sp_status sp__jet_series(sp_forward *f)
{
    sp_recurrence recurrence;
    if (straight(f)) return each_alone(f);
    if (f->order == 1) return sp__tangents(f->c, f->in, f->out, f->t, f->ty);
    if ((recurrence = sp__jet_recurrence_of(f)))
        SP_RETURN_IF(recurrence(f));
    else if (has_body(f))
        SP_RETURN_IF(body_on_series(f));
    else if (reads_result(f))
        SP_RETURN_IF(order_by_order(f));
    else
        SP_RETURN_IF(by_derivative(f, 0, f->order));
    return fit_all(f);
}
