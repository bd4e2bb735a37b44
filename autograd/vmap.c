/* vmap: a call on wrappers becomes one call on whole batches.
 *
 * Which rule makes it so is in the op table (`batch`), and in vmap_rules*.c what it does. What has
 * none is computed by the composite's body, or else slice by slice (vmap_slices.c).
 */
#include "autograd/vmap_int.h"

#include <string.h>

#include "autograd/calls.h"

static const char *op_name(const sp_call *c)
{
    return sp_op_table[c->op].name;
}

static _Atomic bool loop_always;

void sp__vmap_loop_always(bool on)
{
    loop_always = on;
}

static const struct {
    sp_batch_rule rule;
    uint32_t mapped;
} ops[SP_OP_COUNT] = {
#define ROW(op, name, inputs) [op] = {sp__batch_##name, inputs},
    SP_BATCHED_OPS(ROW)
#undef ROW
};

/* NULL: there is none, or none for these inputs. */
static sp_batch_rule rule_for(const sp_batch *b)
{
    bool shares = sp_op_table[b->c->op].flags & (SP_OPF_VIEW | SP_OPF_MAY_VIEW);
    if (loop_always && !shares) return NULL;
    for (int i = 0; i < b->c->n_in; i++)
        if (!sp__batch_carries(b, i) && sp__batched(b, i)) return NULL;
    return ops[b->c->op].rule;
}

/* ---- results ----- */

static sp_status wrap_result(const sp_batch *b, int j)
{
    sp_call *c = (sp_call *)b->c;
    sp_tensor *t = b->low.out[j], *shaped = NULL;
    for (int i = 0; i < c->n_in; i++) {
        if (t != b->low.in[i] || !sp__batched(b, i) || t != c->in[i]->wrap->inner) continue;
        c->out[j] = sp__retain(c->in[i]);
        return SP_OK;
    }
    bool fits = !b->have_out || t->rank == b->out[j].rank + 1;
    for (int d = 0; b->have_out && fits && d < b->out[j].rank; d++)
        fits = t->shape[d + 1] == b->out[j].shape[d];
    if (!fits) {
        int64_t shape[SP_MAX_RANK + 1] = {b->size};
        for (int d = 0; d < b->out[j].rank; d++) shape[d + 1] = b->out[j].shape[d];
        SP_RETURN_IF(sp_reshape(t, shape, b->out[j].rank + 1, &shaped));
        t = shaped;
    }
    sp_status status = sp__wrap_new(b->level, t, NULL, &c->out[j]);
    sp_drop(&shaped);
    return status;
}

static sp_status wrap_results(const sp_batch *b)
{
    sp_call *c = (sp_call *)b->c;
    sp_status status = SP_OK;
    for (int j = 0; j < c->n_out; j++) c->out[j] = NULL;
    for (int j = 0; j < c->n_out; j++) SP_TRY(wrap_result(b, j));
    return SP_OK;
out:
    sp__outs_drop(c);
    return status;
}

/* ---- calls ----- */

static sp_status check_write(const sp_batch *b)
{
    if (sp__batched(b, 0)) {
        bool same = !b->have_out || b->out[0].rank == b->c->in[0]->rank;
        for (int d = 0; b->have_out && same && d < b->out[0].rank; d++)
            same = b->out[0].shape[d] == b->c->in[0]->shape[d];
        if (same) return SP_OK;
        return sp_fail(SP_ESHAPE,
                       "%s (in place): the result does not fit the written tensor of shape %s",
                       op_name(b->c), SP_SHAPE(b->c->in[0]));
    }
    return sp_fail(
        SP_EVALUE,
        "%s (in place): inside vmap, values that differ between examples are written into a tensor "
        "that all examples share; write out of place, or into one made like a mapped tensor, as "
        "zeros_like() makes it",
        op_name(b->c));
}

/* Of no examples there is nothing to compute. */
static sp_status run_none(sp_batch *b)
{
    for (int j = 0; j < b->c->n_out; j++) {
        int64_t shape[SP_MAX_RANK + 1] = {0};
        const sp_meta *m = &b->out[j];
        const sp_full_opt opt = {
            .size = sizeof opt, .has_dtype = true, .dtype = (sp_dtype)m->dtype};
        memcpy(shape + 1, m->shape, sizeof *shape * m->rank);
        SP_RETURN_IF(sp_full(shape, m->rank + 1, SP_INT(0), &opt, &b->low.out[j]));
    }
    return SP_OK;
}

static sp_status run_low(sp_batch *b, sp_batch_rule rule)
{
    bool write = b->c->flags & SP_CALL_INPLACE,
         shares = sp_op_table[b->c->op].flags & (SP_OPF_VIEW | SP_OPF_MAY_VIEW);
    if (b->size == 0 && b->have_out && !write && !shares) return run_none(b);
    SP_RETURN_IF(rule ? rule(b) : sp__batch_slices(b));
    if (b->done) return SP_OK;
    if (write) b->low.out[0] = b->low.in[0];
    return sp__dispatch(&b->low);
}

/* These look at the storage, which only what is below has. */
static bool infers(int op)
{
    return sp_op_table[op].infer && op != SP_OP_AS_STRIDED && op != SP_OP_AS_STRIDED_SCATTER;
}

static sp_status infer(sp_batch *b)
{
    for (int j = 0; j < b->c->n_out; j++) b->out[j] = (sp_meta){.view_of = -1};
    SP_RETURN_IF(sp__infer(b->c, b->out));
    b->have_out = true;
    return SP_OK;
}

static sp_status run_batched(sp_batch *b)
{
    sp_batch_rule rule = rule_for(b);
    bool write = b->c->flags & SP_CALL_INPLACE;
    if (!write && !rule && sp_op_table[b->c->op].body) return sp__body((sp_call *)b->c);
    /* Of a pointwise op, results are in order, and shapes and dtypes checked below: what they are
     * for one example matters only where that fails. */
    bool late = rule == sp__batch_pointwise && !write;
    if (!late && infers(b->c->op)) SP_RETURN_IF(infer(b));
    if (write) SP_RETURN_IF(check_write(b));

    for (int i = 0; i < b->c->n_in; i++)
        if (b->c->in[i]) b->low.in[i] = sp__retain(sp__below(b->c->in[i], b->level));
    sp_context was;
    sp__below_enter(b->level, &was);
    sp_status status = run_low(b, rule);
    if (status == SP_OK && !write) status = wrap_results(b);
    for (int j = 0; j < b->c->n_out && !write; j++) sp_drop(&b->low.out[j]);
    sp__below_leave(&was);
    for (int i = 0; i < b->c->n_in; i++) sp_drop(&b->low.in[i]);
    if (SP_UNLIKELY(status != SP_OK) && late && status != SP_EMEMORY) {
        sp_status own = infer(b);
        if (own != SP_OK) status = own;
    }
    return status;
}

static sp_status check_out(const sp_call *c, const sp_tensor *made)
{
    const sp_tensor *t = c->out[0];
    bool same = t->rank == made->rank;
    for (int d = 0; d < t->rank && same; d++) same = t->shape[d] == made->shape[d];
    if (!same)
        return sp_fail(SP_ESHAPE, "%s: the result has shape %s, out %s; they must be equal",
                       op_name(c), SP_SHAPE(made), SP_SHAPE(t));
    if (sp__dtype_kind(made->dtype) <= sp__dtype_kind(t->dtype)) return SP_OK;
    return sp_fail(SP_EDTYPE, "%s: the result is %s, which out, of %s, cannot hold", op_name(c),
                   sp_dtype_name((sp_dtype)made->dtype), sp_dtype_name((sp_dtype)t->dtype));
}

/* Into a tensor that is there: what the call makes, copied. */
static sp_status run_out(sp_level *self, sp_call *c)
{
    sp_call fresh = *c;
    fresh.flags = 0, fresh.out[0] = NULL;
    SP_RETURN_IF(sp__vmap_dispatch(self, &fresh));
    sp_status status = check_out(c, fresh.out[0]);
    if (status == SP_OK) status = sp_copy_(c->out[0], fresh.out[0]);
    sp_drop(&fresh.out[0]);
    return status;
}

sp_status sp__vmap_dispatch(sp_level *self, sp_call *c)
{
    enum { ROOM = 8 };
    sp__tls.top = self;
    if (c->flags & SP_CALL_OUT) return run_out(self, c);
    SP_RETURN_IF(sp__level_check(self, c));
    sp_randomness randomness = SP_RANDOM_SAME;
    if (sp_op_table[c->op].flags & SP_OPF_RANDOM)
        SP_RETURN_IF(sp__vmap_randomness(self, c, &randomness));
    bool same = randomness == SP_RANDOM_SAME;
    for (int i = 0; i < c->n_in && same; i++) same = !sp__of_level(c->in[i], self);
    if (same) return sp__call_below(self, c);

    sp_tensor *room[ROOM] = {NULL}, **in = room;
    size_t bytes = (size_t)c->n_in * sizeof *in;
    if (c->n_in > ROOM && !(in = sp__alloc_zero(bytes)))
        return sp_fail(SP_EMEMORY, "%s: no memory for its inputs inside vmap", op_name(c));
    sp_batch b; /* its larger parts are not looked at before they are written */
    b.level = self, b.c = c, b.size = self->batch_size;
    b.randomness = randomness, b.mapped = ops[c->op].mapped;
    b.have_out = b.done = false;
    b.low = *c;
    b.low.in = in;
    for (int j = 0; j < SP_MAX_OUT; j++) b.low.out[j] = NULL;
    sp_status status = run_batched(&b);
    if (in != room) sp__free(in, bytes);
    return status;
}

/* ---- arguments and results ----- */

sp_status sp__vmap_wrap(sp_level *level, const sp_tensor *x, int64_t dim, sp_tensor **out)
{
    int d;
    sp_tensor *moved;
    SP_RETURN_IF(sp__check_alive(x, "vmap"));
    if (x->rank == 0)
        return sp_fail(
            SP_ESHAPE,
            "vmap: an argument without dimensions cannot be mapped over; pass None as its in_dim");
    SP_RETURN_IF(sp__dim_normalize("vmap", dim, x->rank, &d));
    if (x->shape[d] != level->batch_size)
        return sp_fail(
            SP_ESHAPE,
            "vmap: dimension %d of an argument of shape %s is mapped, but others map %lld elements",
            d, SP_SHAPE(x), (long long)level->batch_size);
    sp_context was;
    sp__below_enter(level, &was);
    sp_status status = sp__call_move_dim(x, d, 0, &moved);
    sp__below_leave(&was);
    SP_RETURN_IF(status);
    status = sp__wrap_new(level, moved, NULL, out);
    sp_drop(&moved);
    return status;
}

static sp_status unwrap_below(const sp_level *level, const sp_tensor *t, int64_t dim,
                              sp_tensor **out)
{
    int64_t shape[SP_MAX_RANK + 1];
    int d;
    sp_tensor *whole = NULL;
    sp_status status = SP_OK;
    SP_RETURN_IF(sp__dim_normalize("vmap", dim, t->rank + 1, &d));
    if (sp__of_level(t, level)) {
        whole = sp__retain(t->wrap->inner);
    } else {
        if (t->rank == SP_MAX_RANK)
            return sp_fail(SP_ESHAPE, "vmap: no room for the mapped dimension in the result");
        shape[0] = level->batch_size;
        for (int i = 0; i < t->rank; i++) shape[i + 1] = t->shape[i];
        SP_TRY(sp_expand(t, shape, t->rank + 1, &whole));
    }
    SP_TRY(sp__call_move_dim(whole, 0, d, out));
out:
    sp_drop(&whole);
    return status;
}

sp_status sp__vmap_unwrap(sp_level *level, const sp_tensor *t, int64_t dim, sp_tensor **out)
{
    sp_context was;
    *out = NULL;
    SP_RETURN_IF(sp__check_alive(t, "vmap"));
    sp__below_enter(level, &was);
    sp_status status = unwrap_below(level, t, dim, out);
    sp__below_leave(&was);
    return status;
}

sp_status sp__vmap_unwrap_same(sp_level *level, const sp_tensor *t, sp_tensor **out)
{
    *out = NULL;
    SP_RETURN_IF(sp__check_alive(t, "vmap"));
    if (sp__of_level(t, level) && t->wrap->batched)
        return sp_fail(SP_EVALUE,
                       "vmap: out_dims is None for a result that depends on what is mapped over; "
                       "give the dimension where its examples are to stand");
    *out = sp__retain(sp__below(t, level));
    return SP_OK;
}
