/* The thread's stack of levels: pushing, popping, wrapping, and running one level down. */
#include "autograd/levels_int.h"

#include <string.h>

static _Atomic uint64_t last_level_id;

static const char *level_name(int kind)
{
    static const char *const names[] = {[SP_LEVEL_JVP] = "jvp",
                                        [SP_LEVEL_VMAP] = "vmap",
                                        [SP_LEVEL_GRAD] = "grad",
                                        [SP_LEVEL_JET] = "jet"};
    return names[kind];
}

/* ---- the stack ----- */

static size_t level_bytes(int kind)
{
    if (kind == SP_LEVEL_JET) return sizeof(sp_jet_level);
    return kind == SP_LEVEL_VMAP ? sizeof(sp_vmap_level) : sizeof(sp_level);
}

/* Where the topmost level but for autocast's hangs, or would. */
static sp_level **top_transform_at(void)
{
    sp_level **at = &sp__tls.top;
    while (*at && (*at)->kind == SP_LEVEL_AUTOCAST) at = &(*at)->below;
    return at;
}

sp_status sp__level_push(sp_level_kind kind, sp_level **out)
{
    static sp_status (*const dispatch[])(sp_level *,
                                         sp_call *) = {[SP_LEVEL_JVP] = sp__forward_dispatch,
                                                       [SP_LEVEL_VMAP] = sp__vmap_dispatch,
                                                       [SP_LEVEL_GRAD] = sp__grad_dispatch,
                                                       [SP_LEVEL_JET] = sp__forward_dispatch};
    sp_level *level = sp__alloc_zero(level_bytes(kind));
    if (!level) return sp_fail(SP_EMEMORY, "%s: no memory for a level", level_name(kind));
    level->id = atomic_fetch_add(&last_level_id, 1) + 1;
    level->kind = (uint8_t)kind;
    level->dispatch = dispatch[kind];
    level->outer_grad_mode = !sp__tls.no_grad;
    sp_level **at = top_transform_at();
    level->below = *at, *at = level;
    if (kind == SP_LEVEL_GRAD) sp__tls.no_grad = false;
    *out = level;
    return SP_OK;
}

sp_status sp__level_push_again(uint64_t id, sp_level **out)
{
    SP_RETURN_IF(sp__level_push(SP_LEVEL_GRAD, out));
    (*out)->id = id;
    return SP_OK;
}

sp_status sp__level_push_jet(int64_t order, sp_level **out)
{
    if (order < 1 || order > SP_JET_MAX)
        return sp_fail(SP_EVALUE, "jet: an order of %lld, expected 1 to %d", (long long)order,
                       SP_JET_MAX);
    SP_RETURN_IF(sp__level_push(SP_LEVEL_JET, out));
    ((sp_jet_level *)*out)->order = (uint8_t)order;
    return SP_OK;
}

sp_status sp__level_push_vmap(int64_t batch_size, sp_randomness randomness, sp_level **out)
{
    SP_RETURN_IF(sp__level_push(SP_LEVEL_VMAP, out));
    (*out)->batch_size = batch_size;
    ((sp_vmap_level *)*out)->randomness = (uint8_t)randomness;
    sp__vmap_random_start((sp_vmap_level *)*out);
    return SP_OK;
}

int sp__level_order(const sp_level *level)
{
    if (level->kind == SP_LEVEL_JVP) return 1;
    return level->kind == SP_LEVEL_JET ? ((const sp_jet_level *)level)->order : 0;
}

static bool on_stack(uint64_t id)
{
    const sp_level *level = sp__tls.top;
    while (level && level->id != id) level = level->below;
    return level != NULL;
}

void sp__level_pop(sp_level *level)
{
    const sp_level *found = sp__tls.top;
    while (found && found != level) found = found->below;
    if (!found) return;
    sp_level **at = top_transform_at();
    for (bool last = false; !last;) {
        sp_level *top = *at;
        last = top == level;
        *at = top->below;
        if (top->kind == SP_LEVEL_GRAD) sp__tls.no_grad = !top->outer_grad_mode;
        sp__free(top, level_bytes(top->kind));
    }
}

sp_status sp__check_alive(const sp_tensor *t, const char *op)
{
    if (!t || !t->wrap || on_stack(t->wrap->level_id)) return SP_OK;
    return sp_fail(
        SP_EGRAD,
        "%s: a tensor made inside %s is used after that has ended; return it from the "
        "transformed function, or unpack_dual() it in the dual level, instead of keeping "
        "it",
        op, level_name(t->wrap->kind));
}

sp_status sp__level_check(const sp_level *level, const sp_call *c)
{
    const char *op = sp_op_table[c->op].name;
    for (int i = 0; i < c->n_in; i++)
        if (!sp__of_level(c->in[i], level)) SP_RETURN_IF(sp__check_alive(c->in[i], op));
    return SP_OK;
}

/* ---- below ----- */

void sp__below_enter(const sp_level *level, sp_context *was)
{
    *was = (sp_context){sp__tls.top, sp__tls.no_grad};
    sp__tls.top = level->below;
    if (level->kind == SP_LEVEL_GRAD) sp__tls.no_grad = !level->outer_grad_mode;
}

void sp__below_leave(const sp_context *was)
{
    sp__context_leave(was);
}

sp_status sp__call_below(const sp_level *level, sp_call *c)
{
    sp_context was;
    sp__below_enter(level, &was);
    sp_status status = sp__dispatch(c);
    sp__below_leave(&was);
    return status;
}

/* An op that gave back its own input gives back that input's wrapper. */
static sp_status wrap_result(const sp_level *level, const sp_call *c, const sp_call *low, int j,
                             sp_tensor **out)
{
    for (int i = 0; i < c->n_in; i++) {
        if (low->out[j] != low->in[i]) continue;
        *out = sp__retain(c->in[i]);
        return SP_OK;
    }
    return sp__wrap_new(level, low->out[j], NULL, out);
}

static sp_status wrap_results(const sp_level *level, sp_call *c, sp_call *low)
{
    sp_status status = SP_OK;
    for (int j = 0; j < c->n_out; j++) c->out[j] = NULL;
    for (int j = 0; j < c->n_out; j++) SP_TRY(wrap_result(level, c, low, j, &c->out[j]));
out:
    for (int j = 0; j < c->n_out; j++) {
        sp_drop(&low->out[j]);
        if (status != SP_OK) sp_drop(&c->out[j]);
    }
    return status;
}

sp_status sp__level_run_below(sp_level *level, sp_call *c)
{
    enum { ROOM = 8 };
    sp_tensor *room[ROOM], **in = room;
    SP_RETURN_IF(sp__level_check(level, c));
    size_t bytes = (size_t)c->n_in * sizeof *in;
    if (c->n_in > ROOM && !(in = sp__alloc(bytes)))
        return sp_fail(SP_EMEMORY, "%s: no memory for its inputs inside %s",
                       sp_op_table[c->op].name, level_name(level->kind));
    for (int i = 0; i < c->n_in; i++) in[i] = sp__below(c->in[i], level);
    sp_call low = *c;
    low.in = in;
    bool given = c->flags & (SP_CALL_INPLACE | SP_CALL_OUT);
    for (int j = 0; given && j < c->n_out; j++) low.out[j] = sp__below(c->out[j], level);
    sp_status status = sp__call_below(level, &low);
    if (status == SP_OK && !given) status = wrap_results(level, c, &low);
    if (in != room) sp__free(in, bytes);
    return status;
}

/* ---- wrapping ----- */

static void geometry_at(const sp_level *level, const sp_tensor *inner, sp_meta *m)
{
    sp__meta_of(inner, m);
    if (level->kind != SP_LEVEL_VMAP) return;
    m->rank--;
    for (int i = 0; i < m->rank; i++)
        m->shape[i] = m->shape[i + 1], m->stride[i] = m->stride[i + 1];
    sp__meta_update(m);
}

sp_status sp__wrap_series(const sp_level *level, const sp_tensor *inner, sp_tensor *const *tangents,
                          int stride, sp_tensor **out)
{
    int order = sp__level_order(level);
    sp_wrap *wrap = sp__alloc_zero(sp__wrap_bytes(order));
    *out = NULL;
    if (!wrap)
        return sp_fail(SP_EMEMORY, "%s: no memory for a level's value", level_name(level->kind));
    wrap->level_id = level->id;
    wrap->kind = level->kind;
    wrap->batched = level->kind == SP_LEVEL_VMAP;
    wrap->order = (uint8_t)order;
    wrap->inner = sp__retain(inner);
    for (int k = 0; tangents && k < order; k++)
        wrap->tangent[k] = tangents[k * stride] ? sp__retain(tangents[k * stride]) : NULL;
    sp_meta meta;
    geometry_at(level, inner, &meta);
    sp_status status = sp__handle_wrap(&meta, wrap, out);
    if (status != SP_OK) sp__wrap_free(wrap);
    return status;
}

sp_status sp__wrap_new(const sp_level *level, const sp_tensor *inner, const sp_tensor *tangent,
                       sp_tensor **out)
{
    SP_ASSERT(!tangent || sp__level_order(level) == 1);
    return sp__wrap_series(level, inner, tangent ? (sp_tensor *const *)&tangent : NULL, 0, out);
}
