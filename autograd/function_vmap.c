/* Custom functions inside vmap, without a rule of their own: each callback runs inside a vmap level
 * that it enters and leaves.
 *
 * The result is another custom function, of whole batches, one level down: its forward wraps the
 * mapped inputs, runs the given forward on what then looks like one example, and unwraps the
 * results. What the given one keeps is unwrapped and kept by the call for batches, which holds the
 * call for examples ("inner") for as long as it lives itself.
 *
 * All results have the mapped dimension, also those that do not depend on a mapped input: each
 * example then has a gradient of its own.
 */
#include "autograd/function_int.h"

#include <string.h>

typedef struct batched { /* ctx */
    sp_function_use *base;
    int64_t size;
    sp_randomness randomness;
    int n_in;
    bool mapped[]; /* which inputs have the mapped dimension, at 0 */
} batched;

typedef struct examples { /* what a call for batches keeps */
    sp_function_call *inner;
    int n;         /* values kept of each kind, at most */
    bool mapped[]; /* n for backward, then n for jvp: which have the mapped dimension */
} examples;

static void examples_drop(void *data)
{
    examples *e = data;
    sp__function_call_free(e->inner);
    sp__free(e, sizeof *e + 2 * (size_t)e->n);
}

/* ---- lists of tensors at the level ----- */

typedef struct list {
    sp_tensor **t; /* owned */
    int n;
} list;

static sp_status list_new(const batched *b, int n, list *l)
{
    *l = (list){sp__alloc_zero((size_t)n * sizeof *l->t), n};
    if (l->t) return SP_OK;
    return sp_fail(SP_EMEMORY, "%s: no memory for %d tensors inside vmap", b->base->name, n);
}

static void list_end(list *l)
{
    for (int i = 0; l->t && i < l->n; i++) sp_drop(&l->t[i]);
    if (l->t) sp__free(l->t, (size_t)l->n * sizeof *l->t);
}

static const sp_tensor *const *items(const list *l)
{
    return (const sp_tensor *const *)l->t;
}

/* mapped NULL: all are. */
static sp_status wrap_all(const batched *b, const sp_level *level, const sp_tensor *const *t,
                          const bool *mapped, int n, list *out)
{
    SP_RETURN_IF(list_new(b, n, out));
    for (int i = 0; i < n; i++) {
        if (t[i] && (!mapped || mapped[i]))
            SP_RETURN_IF(sp__wrap_new(level, t[i], NULL, &out->t[i]));
        else
            out->t[i] = t[i] ? sp__retain(t[i]) : NULL;
    }
    return SP_OK;
}

static sp_status enter(const batched *b, sp_level **level)
{
    return sp__level_push_vmap(b->size, b->randomness, level);
}

/* ---- what the inner call was told to keep ----- */

/* A value of the level as the call for batches keeps it, borrowed, and whether it is mapped. */
static const sp_tensor *outer_of(const sp_level *level, const sp_tensor *t, const list *wrapped,
                                 const sp_tensor *const *out, bool *mapped)
{
    for (int j = 0; j < wrapped->n; j++) {
        if (wrapped->t[j] != t) continue;
        *mapped = true;
        return out[j];
    }
    *mapped = sp__of_level(t, level);
    return sp__below(t, level);
}

static sp_status keep_outside(examples *e, const sp_level *level, sp_function_call *call,
                              const list *wrapped, const sp_tensor *const *out)
{
    int n_saved = 0, n_forward = 0;
    for (int k = 0; k < e->inner->n_kept; k++) {
        const sp_kept *kept = &e->inner->kept[k];
        bool mapped;
        const sp_tensor *t = outer_of(level, kept->t, wrapped, out, &mapped);
        switch (kept->kind) {
        case SP_KEEP_SAVED:
            e->mapped[n_saved++] = mapped;
            SP_RETURN_IF(sp_function_save(call, t));
            break;
        case SP_KEEP_FORWARD:
            e->mapped[e->n + n_forward++] = mapped;
            SP_RETURN_IF(sp_function_save_forward(call, t));
            break;
        case SP_KEEP_DIRTY: SP_RETURN_IF(sp_function_mark_dirty(call, t)); break;
        case SP_KEEP_CONSTANT: SP_RETURN_IF(sp_function_mark_non_differentiable(call, t)); break;
        }
    }
    return SP_OK;
}

/* Hands the inner call over to the one for batches; takes it in any case. */
static sp_status hand_over(const batched *b, sp_function_call *inner, const sp_level *level,
                           sp_function_call *call, const list *wrapped, const sp_tensor *const *out)
{
    examples *e = sp__alloc_zero(sizeof *e + 2 * (size_t)inner->n_kept);
    if (!e) {
        sp__function_call_free(inner);
        return sp_fail(SP_EMEMORY, "%s: no memory to call it inside vmap", b->base->name);
    }
    e->inner = inner;
    e->n = inner->n_kept;
    sp_function_keep(call, e, examples_drop);
    sp_function_materialize(call, inner->materialize);
    SP_RETURN_IF(keep_outside(e, level, call, wrapped, out));
    sp__function_forget(inner);
    return SP_OK;
}

/* ---- forward and setup ----- */

static sp_status unwrap_all(const sp_level *level, list *from, sp_tensor **out, int n)
{
    for (int j = 0; j < n; j++)
        if (from->t[j]) SP_RETURN_IF(sp__vmap_unwrap((sp_level *)level, from->t[j], 0, &out[j]));
    return SP_OK;
}

static sp_status forward(void *ctx, sp_function_call *call, const sp_tensor *const *in, int n_in,
                         sp_tensor **out, int max_out, int *n_out)
{
    const batched *b = ctx;
    const sp_function *fn = &b->base->fn;
    list x = {0}, y = {0};
    sp_level *level = NULL;
    sp_function_call *inner = NULL;
    sp_status status = SP_OK;
    SP_TRY(enter(b, &level));
    SP_TRY(wrap_all(b, level, in, b->mapped, n_in, &x));
    SP_TRY(list_new(b, max_out, &y));
    if (!fn->setup) SP_TRY(sp__function_call_new(b->base, in, n_in, &inner));
    SP_TRY(fn->forward(b->base->ctx, inner, items(&x), n_in, y.t, max_out, n_out));
    SP_TRY(unwrap_all(level, &y, out, *n_out));
    if (inner) {
        sp_function_call *given = inner;
        list made = {y.t, *n_out};
        inner = NULL;
        SP_TRY(hand_over(b, given, level, call, &made, (const sp_tensor *const *)out));
    }
out:
    sp__function_call_free(inner);
    list_end(&x), list_end(&y);
    if (level) sp__level_pop(level);
    return status;
}

static sp_status setup(void *ctx, sp_function_call *call, const sp_tensor *const *in, int n_in,
                       const sp_tensor *const *out, int n_out)
{
    const batched *b = ctx;
    list x = {0}, y = {0};
    sp_level *level = NULL;
    sp_function_call *inner = NULL;
    sp_status status = SP_OK;
    SP_TRY(enter(b, &level));
    SP_TRY(wrap_all(b, level, in, b->mapped, n_in, &x));
    SP_TRY(wrap_all(b, level, out, NULL, n_out, &y));
    SP_TRY(sp__function_call_new(b->base, in, n_in, &inner));
    SP_TRY(b->base->fn.setup(b->base->ctx, inner, items(&x), n_in, items(&y), n_out));
    sp_function_call *given = inner;
    inner = NULL;
    SP_TRY(hand_over(b, given, level, call, &y, out));
out:
    sp__function_call_free(inner);
    list_end(&x), list_end(&y);
    if (level) sp__level_pop(level);
    return status;
}

/* ---- backward and jvp ----- */

/* What the call saved, as the inner call sees it. */
static sp_status saved_inside(const batched *b, const sp_level *level, sp_function_call *call,
                              const bool *mapped, list *out)
{
    list outer = {0};
    sp_status status = SP_OK;
    int n = sp_function_num_saved(call);
    SP_TRY(list_new(b, n, &outer));
    for (int i = 0; i < n; i++) SP_TRY(sp_function_saved(call, i, &outer.t[i]));
    SP_TRY(wrap_all(b, level, items(&outer), mapped, n, out));
out:
    list_end(&outer);
    return status;
}

static sp_status gradient_out(const batched *b, sp_level *level, const sp_function_call *call,
                              int i, sp_tensor **g, sp_tensor **out)
{
    sp_meta want;
    sp_tensor *all = NULL;
    int64_t first[1] = {0};
    if (!*g) return SP_OK;
    sp__node_in_meta(call->node, i, &want);
    if (b->mapped[i]) {
        want.rank--;
        for (int d = 0; d < want.rank; d++) want.shape[d] = want.shape[d + 1];
    }
    SP_RETURN_IF(sp__function_fit(b->base->name, i, call->n_in, &want, g));
    if (b->mapped[i]) return sp__vmap_unwrap(level, *g, 0, out);
    SP_RETURN_IF(sp__vmap_unwrap(level, *g, 0, &all));
    sp_status status =
        sp_sum(all, &(sp_sum_opt){.size = sizeof(sp_sum_opt), .dim = first, .n_dim = 1}, out);
    sp_drop(&all);
    return status;
}

static sp_status backward(void *ctx, sp_function_call *call, const sp_tensor *const *gy, int n_out,
                          sp_tensor **gx, int n_in)
{
    const batched *b = ctx;
    const examples *e = sp_function_kept(call);
    list y = {0}, x = {0}, saved = {0};
    sp_level *level = NULL;
    sp_function_run run = {.selective = true};
    sp_status status = SP_OK;
    SP_TRY(enter(b, &level));
    SP_TRY(wrap_all(b, level, gy, NULL, n_out, &y));
    SP_TRY(list_new(b, n_in, &x));
    SP_TRY(saved_inside(b, level, call, e->mapped, &saved));
    run.saved = saved.t, run.n_saved = saved.n;
    for (int i = 0; i < n_in; i++)
        if (sp_function_needs(call, i)) run.need |= sp__in_bit(i);
    sp__function_run_begin(&run, e->inner);
    status = b->base->fn.backward(b->base->ctx, e->inner, items(&y), n_out, x.t, n_in);
    sp__function_run_end(&run);
    for (int i = 0; i < n_in && status == SP_OK; i++)
        if (sp_function_needs(call, i)) status = gradient_out(b, level, call, i, &x.t[i], &gx[i]);
out:
    list_end(&x), list_end(&y), list_end(&saved);
    if (level) sp__level_pop(level);
    return status;
}

static sp_status jvp(void *ctx, sp_function_call *call, const sp_tensor *const *t, int n_in,
                     sp_tensor **ty, int n_out)
{
    const batched *b = ctx;
    const examples *e = sp_function_kept(call);
    bool apart = sp__function_kept_at(call, SP_KEEP_FORWARD, 0) != NULL;
    list x = {0}, y = {0}, saved = {0};
    sp_level *level = NULL;
    sp_function_run run = {0};
    sp_status status = SP_OK;
    SP_TRY(enter(b, &level));
    SP_TRY(wrap_all(b, level, t, b->mapped, n_in, &x));
    SP_TRY(list_new(b, n_out, &y));
    SP_TRY(saved_inside(b, level, call, e->mapped + (apart ? e->n : 0), &saved));
    run.saved = saved.t, run.n_saved = saved.n;
    sp__function_run_begin(&run, e->inner);
    status = b->base->fn.jvp(b->base->ctx, e->inner, items(&x), n_in, y.t, n_out);
    sp__function_run_end(&run);
    if (status == SP_OK) status = unwrap_all(level, &y, ty, n_out);
out:
    list_end(&x), list_end(&y), list_end(&saved);
    if (level) sp__level_pop(level);
    return status;
}

/* ---- making one ----- */

static void drop(void *ctx)
{
    batched *b = ctx;
    sp__function_use_drop(b->base);
    sp__free(b, sizeof *b + (size_t)b->n_in);
}

sp_status sp__function_batched(sp_function_use *use, const sp_level *level, const bool *in_mapped,
                               int n_in, sp_function_use **out)
{
    const sp_function *base = &use->fn;
    sp_function fn = {.size = sizeof fn,
                      .name = use->name,
                      .forward = forward,
                      .setup = base->setup ? setup : NULL,
                      .backward = base->backward ? backward : NULL,
                      .jvp = base->jvp ? jvp : NULL,
                      .drop = drop,
                      .generate_vmap = true,
                      .once_differentiable = base->once_differentiable};
    batched *b = sp__alloc(sizeof *b + (size_t)n_in);
    if (!b) return sp_fail(SP_EMEMORY, "%s: no memory to call it inside vmap", use->name);
    *b = (batched){.base = sp__function_use_keep(use),
                   .size = level->batch_size,
                   .randomness = (sp_randomness)((const sp_vmap_level *)level)->randomness,
                   .n_in = n_in};
    memcpy(b->mapped, in_mapped, (size_t)n_in);
    return sp__function_use_new(&fn, b, out);
}
