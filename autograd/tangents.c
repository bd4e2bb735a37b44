/* The tangents of an op's results: by its own formula, else by its vjp differentiated once more.
 * The vjp is linear in gy, so its derivative with respect to gy, along the tangents, is the jvp.
 */
#include "autograd/calls.h"
#include "autograd/forward_int.h"

typedef struct point { /* one call and the tangents of its inputs */
    const sp_call *c;
    sp_tensor *const *in, *const *out, *const *t;
    sp_tensor **ty;
} point;

/* Wrappers of zeros at `level`, which stand for gy. */
static sp_status linear_point(const point *f, sp_level *level, sp_tensor **gy)
{
    for (int j = 0; j < f->c->n_out; j++) {
        if (!sp__is_float(f->out[j]->dtype)) continue;
        sp_tensor *zeros = NULL;
        sp_context was;
        sp__below_enter(level, &was);
        sp_status status = sp__call_full_like(f->out[j], 0, &zeros);
        sp__below_leave(&was);
        if (status == SP_OK) status = sp__grad_wrap(level, zeros, true, &gy[j]);
        sp_drop(&zeros);
        SP_RETURN_IF(status);
    }
    return SP_OK;
}

/* d (sum of gx * t) / d gy */
static sp_status differentiate_vjp(const point *f, const sp_level *level, sp_tensor *const *gx,
                                   sp_tensor *const *gy)
{
    const sp_tensor *ends[SP_MAX_RANK], *along[SP_MAX_RANK];
    int n = 0;
    for (int i = 0; i < f->c->n_in; i++) {
        if (!gx[i] || !f->t[i] || !sp__wants_grad(gx[i], level)) continue;
        if (n == SP_MAX_RANK)
            return sp_fail(SP_EUNSUPPORTED, "%s: jvp of more than %d inputs",
                           sp_op_table[f->c->op].name, SP_MAX_RANK);
        ends[n] = gx[i];
        along[n++] = f->t[i];
    }
    for (int j = 0; j < f->c->n_out && n; j++) {
        if (!gy[j]) continue;
        const sp_tensor *with = gy[j];
        sp_tensor *tangent = NULL;
        sp_grad_opt opt = {.size = sizeof opt,
                           .grad_outputs = along,
                           .retain_graph = true,
                           .materialize_grads = true};
        SP_RETURN_IF(sp_grad(ends, n, &with, 1, &opt, &tangent));
        f->ty[j] = sp__retain(sp__below(tangent, level));
        sp_drop(&tangent);
    }
    return SP_OK;
}

static sp_status tangents_by_vjp(const point *f)
{
    const sp_call *c = f->c;
    uint64_t moving = 0;
    for (int i = 0; i < c->n_in; i++)
        if (f->t[i]) moving |= sp__in_bit(i);
    size_t meta_bytes = (size_t)(c->n_in + c->n_out) * sizeof(sp_meta),
           gx_bytes = (size_t)c->n_in * sizeof(sp_tensor *);
    sp_meta *meta = sp__alloc_zero(meta_bytes);
    sp_tensor *gy[SP_MAX_OUT] = {NULL}, **gx = sp__alloc_zero(gx_bytes);
    sp_level *level = NULL;
    sp_status status = SP_OK;
    if (!meta || !gx)
        SP_TRY(sp_fail(SP_EMEMORY, "%s: no memory for its jvp", sp_op_table[c->op].name));
    for (int i = 0; i < c->n_in; i++)
        if (f->in[i]) sp__meta_of(f->in[i], &meta[i]);
    for (int j = 0; j < c->n_out; j++) sp__meta_of(f->out[j], &meta[c->n_in + j]);

    SP_TRY(sp__level_push(SP_LEVEL_GRAD, &level));
    SP_TRY(linear_point(f, level, gy));
    sp_vjp_args args = {.in = f->in,
                        .out = f->out,
                        .in_meta = meta,
                        .out_meta = meta + c->n_in,
                        .attr = c->attr,
                        .gy = gy,
                        .n_in = c->n_in,
                        .need = moving,
                        .gx = gx};
    SP_TRY(sp__vjp(c->op, &args));
    SP_TRY(differentiate_vjp(f, level, gx, gy));
out:
    for (int i = 0; gx && i < c->n_in; i++) sp_drop(&gx[i]);
    for (int j = 0; j < c->n_out; j++) sp_drop(&gy[j]);
    if (level) sp__level_pop(level);
    if (meta) sp__free(meta, meta_bytes);
    if (gx) sp__free(gx, gx_bytes);
    return status;
}

/* A tangent has the value's dtype and shape, whatever the formula's promotion and broadcasting made
 * of it. */
sp_status sp__tangent_fit(const sp_tensor *y, sp_tensor **tangent)
{
    if (!*tangent) return SP_OK;
    sp_tensor *fit = NULL;
    if (!sp__is_float(y->dtype)) {
        sp_drop(tangent);
        return SP_OK;
    }
    if ((*tangent)->dtype != y->dtype) {
        SP_RETURN_IF(sp_cast(*tangent, (sp_dtype)y->dtype, &fit));
        sp_drop(tangent);
        *tangent = fit;
    }
    bool same = (*tangent)->rank == y->rank;
    for (int i = 0; same && i < y->rank; i++) same = (*tangent)->shape[i] == y->shape[i];
    if (same) return SP_OK;
    SP_RETURN_IF(sp_expand(*tangent, y->shape, y->rank, &fit));
    sp_drop(tangent);
    *tangent = fit;
    return SP_OK;
}

sp_status sp__tangents(const sp_call *c, sp_tensor *const *in, sp_tensor *const *out,
                       sp_tensor *const *t, sp_tensor **ty)
{
    const sp_rule *rule = &sp__rules[c->op];
    if (rule->jvp) {
        sp_jvp_args args = {
            .in = in, .out = out, .attr = c->attr, .t = t, .n_in = c->n_in, .ty = ty};
        SP_RETURN_IF(rule->jvp(&args));
    } else {
        SP_RETURN_IF(tangents_by_vjp(&(point){c, in, out, t, ty}));
    }
    for (int j = 0; j < c->n_out; j++) SP_RETURN_IF(sp__tangent_fit(out[j], &ty[j]));
    return SP_OK;
}
