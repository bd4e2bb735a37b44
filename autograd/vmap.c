/* vmap: a call on wrappers becomes one call on whole batches.
 *
 * Which way is in the op table (`batch`): pointwise ops align ranks, ops with a dims attribute
 * shift it, ops with a shape attribute extend it; the others have a rule in vmap_rules.c. An op
 * without any runs slice by slice, says so once on stderr, and is counted.
 */
#include "autograd/vmap_int.h"

#include <stdio.h>
#include <string.h>

#include "autograd/calls.h"

static const char *op_name(const sp_call *c)
{
    return sp_op_table[c->op].name;
}

/* ---- operands ----- */

sp_status sp__batch_align(sp_batch *b, int i, int rank)
{
    sp_tensor *t;
    int missing = rank - b->c->in[i]->rank;
    if (missing <= 0 || !sp__batched(b, i)) return SP_OK;
    SP_RETURN_IF(sp__call_unsqueeze_n(b->low.in[i], 1, missing, &t));
    sp__batch_set(b, i, t);
    return SP_OK;
}

sp_status sp__batch_everywhere(sp_batch *b, int i)
{
    int64_t shape[SP_MAX_RANK + 1];
    sp_tensor *t, *in = b->low.in[i];
    if (!in || sp__batched(b, i)) return SP_OK;
    if (in->rank == SP_MAX_RANK)
        return sp_fail(SP_ESHAPE, "%s: inside vmap its inputs may have %d dimensions at most",
                       op_name(b->c), SP_MAX_RANK - 1);
    shape[0] = b->size;
    for (int d = 0; d < in->rank; d++) shape[d + 1] = in->shape[d];
    SP_RETURN_IF(sp_expand(in, shape, in->rank + 1, &t));
    sp__batch_set(b, i, t);
    return SP_OK;
}

void sp__batch_shape_attr(sp_batch *b, int attr, const int64_t *shape, int rank)
{
    int64_t *to = b->ints[0];
    to[0] = b->size;
    for (int d = 0; d < rank; d++) to[d + 1] = shape[d];
    b->low.attr[attr] = (sp_attr){.v.ints = to, .n = rank + 1, .kind = SP_ATTR_INTS};
}

/* ---- the generic ways ----- */

/* A batch of numbers without dimensions has one, so it would count as a tensor with dimensions in
 * dtype promotion: it takes the dtype of those where it has no higher kind. */
static sp_status pointwise_dtype(sp_batch *b, int i, sp_dtype with_dims)
{
    sp_tensor *t;
    sp_dtype dtype = (sp_dtype)b->c->in[i]->dtype;
    bool number = sp__batched(b, i) && b->c->in[i]->rank == 0;
    if (!number || sp__dtype_kind(dtype) > sp__dtype_kind(with_dims) ||
        sp_promote(dtype, with_dims) == with_dims)
        return SP_OK;
    SP_RETURN_IF(sp_cast(b->low.in[i], with_dims, &t));
    sp__batch_set(b, i, t);
    return SP_OK;
}

static sp_status batch_pointwise(sp_batch *b)
{
    int rank = 0;
    sp_dtype with_dims = SP_BOOL;
    for (int i = 0; i < b->c->n_in; i++) {
        const sp_tensor *t = b->c->in[i];
        if (!t) continue;
        if (t->rank > rank) rank = t->rank;
        if (t->rank > 0) with_dims = sp_promote(with_dims, (sp_dtype)t->dtype);
    }
    bool write = b->c->flags & SP_CALL_INPLACE;
    for (int i = 0; i < b->c->n_in; i++) {
        if (!b->c->in[i] || (write && i == 0)) continue;
        if (!write) SP_RETURN_IF(pointwise_dtype(b, i, with_dims));
        SP_RETURN_IF(sp__batch_align(b, i, rank));
    }
    return SP_OK;
}

/* One dimension of an example's tensor of `rank` dimensions, as one of the batch's. */
static sp_status shift_dim(const sp_batch *b, int64_t dim, int rank, int64_t *out)
{
    int d;
    SP_RETURN_IF(sp__dim_normalize(op_name(b->c), dim, rank, &d));
    *out = d + 1;
    return SP_OK;
}

/* dims left out stand for all: of one example, not of the batch. */
static sp_status shift_dims_list(sp_batch *b, sp_attr *attr, int rank)
{
    int64_t *to = b->ints[0];
    bool all = attr->absent || (attr->n == 0 && sp_op_table[b->c->op].flags & SP_OPF_REDUCE);
    int n = all ? rank : attr->n;
    if (n > SP_MAX_RANK)
        return sp_fail(SP_EINDEX, "%s: %d dimensions for a tensor of %d", op_name(b->c), n, rank);
    for (int i = 0; i < n; i++) {
        if (all)
            to[i] = i + 1;
        else
            SP_RETURN_IF(shift_dim(b, attr->v.ints[i], rank, &to[i]));
    }
    *attr = (sp_attr){.v.ints = to, .n = n, .kind = SP_ATTR_INTS};
    return SP_OK;
}

/* All dims of one example, for an op that takes one dim or none: in row-major order. */
static sp_status flatten(sp_batch *b, sp_attr *attr)
{
    int64_t shape[2] = {b->size, b->c->in[0]->numel};
    sp_tensor *t;
    SP_RETURN_IF(sp_reshape(b->low.in[0], shape, 2, &t));
    sp__batch_set(b, 0, t);
    *attr = (sp_attr){.v.i = 1, .kind = SP_ATTR_INT};
    return SP_OK;
}

/* Inputs without dimensions, all of them batched by now, get one. */
static sp_status numbers_to_lines(sp_batch *b)
{
    for (int i = 0; i < b->c->n_in; i++) {
        sp_tensor *t;
        if (!b->c->in[i] || b->c->in[i]->rank > 0) continue;
        SP_RETURN_IF(sp_unsqueeze(b->low.in[i], 1, &t));
        sp__batch_set(b, i, t);
    }
    return SP_OK;
}

static sp_status batch_dims(sp_batch *b)
{
    const sp_op_info *info = &sp_op_table[b->c->op];
    sp_attr *attr = &b->low.attr[info->dims_attr];
    int rank = b->c->in[0]->rank;
    for (int i = 0; i < b->c->n_in; i++) SP_RETURN_IF(sp__batch_everywhere(b, i));
    if (b->c->op == SP_OP_UNSQUEEZE || b->c->op == SP_OP_STACK)
        return shift_dim(b, attr->v.i, rank + 1, &attr->v.i);
    if (rank == 0 &&
        !(b->c->flags &
          SP_CALL_INPLACE)) { /* dim 0 or -1 of a number: a dimension to stand for it */
        rank = 1;
        SP_RETURN_IF(numbers_to_lines(b));
    }
    if (info->attr_kinds[info->dims_attr] == SP_ATTR_INTS) return shift_dims_list(b, attr, rank);
    if (attr->absent) return flatten(b, attr);
    return shift_dim(b, attr->v.i, rank, &attr->v.i);
}

static sp_status batch_shape(sp_batch *b)
{
    sp__batch_shape_attr(b, sp_op_table[b->c->op].dims_attr, b->out[0].shape, b->out[0].rank);
    return SP_OK;
}

static sp_status batch_leading(sp_batch *b)
{
    for (int i = 0; i < b->c->n_in; i++) SP_RETURN_IF(sp__batch_everywhere(b, i));
    return SP_OK;
}

static _Atomic bool loop_always;

void sp__vmap_loop_always(bool on)
{
    loop_always = on;
}

static sp_batch_rule rule_of(int op)
{
    bool shares = sp_op_table[op].flags & (SP_OPF_VIEW | SP_OPF_MAY_VIEW);
    if (loop_always && !shares) return NULL;
    sp_batch_rule rule = sp__batch_rule_of(op);
    if (rule) return rule;
    switch (sp_op_table[op].batch) {
    case SP_BATCH_POINTWISE: return batch_pointwise;
    case SP_BATCH_DIMS: return batch_dims;
    case SP_BATCH_SHAPE: return batch_shape;
    case SP_BATCH_LEADING: return batch_leading;
    default: return NULL;
    }
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

/* ---- slice by slice; a view op without a rule would yield a copy, so every view op has one -----
 */

static _Atomic int64_t fallbacks;
static _Atomic bool warn = true;
static _Atomic bool warned[SP_OP_COUNT];

int64_t sp__vmap_fallbacks(void)
{
    return fallbacks;
}

void sp__vmap_warn(bool on)
{
    warn = on;
}

static void say_fallback(const sp_batch *b)
{
    fallbacks++;
    if (!warn || atomic_exchange(&warned[b->c->op], true)) return;
    fprintf(
        stderr,
        "spool: vmap has no rule for %s: it runs slice by slice, %lld times here; this is slow\n",
        op_name(b->c), (long long)b->size);
}

/* The call for example k, out of place. */
static sp_status run_slice(sp_batch *b, int64_t k, sp_tensor **room, sp_tensor **out)
{
    sp_call one = *b->c;
    sp_status status = SP_OK;
    one.in = room;
    one.flags = 0;
    for (int i = 0; i < one.n_in; i++) room[i] = NULL;
    for (int i = 0; i < one.n_in; i++) {
        if (b->low.in[i] && sp__batched(b, i))
            SP_TRY(sp_select(b->low.in[i], 0, k, &room[i]));
        else if (b->low.in[i])
            room[i] = sp__retain(b->low.in[i]);
    }
    SP_TRY(sp__dispatch(&one));
    for (int j = 0; j < one.n_out; j++) out[j] = one.out[j];
out:
    for (int i = 0; i < one.n_in; i++) sp_drop(&room[i]);
    return status;
}

/* The first result, repeated, gives the tensor that the others are written into. */
static sp_status place(const sp_batch *b, int64_t k, const sp_tensor *t, sp_tensor **all)
{
    int64_t shape[SP_MAX_RANK + 1] = {b->size};
    sp_tensor *part = NULL;
    sp_status status = SP_OK;
    if (k > 0) {
        SP_TRY(sp_select(*all, 0, k, &part));
        SP_TRY(sp_copy_(part, t));
    } else {
        for (int d = 0; d < t->rank; d++) shape[d + 1] = t->shape[d];
        SP_TRY(sp_expand(t, shape, t->rank + 1, &part));
        SP_TRY(sp_clone(part, all));
    }
out:
    sp_drop(&part);
    return status;
}

/* Where the written tensor is an operand, its value before stands in for it. */
static sp_status keep_old_value(sp_batch *b)
{
    sp_tensor *old = NULL;
    SP_RETURN_IF(sp_clone(b->low.in[0], &old));
    for (int i = b->c->n_in - 1; i >= 0; i--)
        if (b->c->in[i] == b->c->in[0]) sp__batch_set(b, i, sp__retain(old));
    sp_drop(&old);
    return SP_OK;
}

/* A write in place is one copy at the end: writing slice by slice would outdate what the slices
 * before it saved. */
static sp_status run_slices(sp_batch *b)
{
    bool write = b->c->flags & SP_CALL_INPLACE;
    if (b->size == 0 && !write)
        return sp_fail(SP_EUNSUPPORTED,
                       "%s: vmap has no rule for it, and a batch of size 0 has no slice to run",
                       op_name(b->c));
    size_t bytes = (size_t)b->c->n_in * sizeof(sp_tensor *);
    sp_tensor **room = sp__alloc(bytes), *out[SP_MAX_OUT] = {NULL};
    if (!room)
        return sp_fail(SP_EMEMORY, "%s: no memory for its inputs inside vmap", op_name(b->c));
    say_fallback(b);
    sp_tensor *target = write ? sp__retain(b->low.in[0]) : NULL;
    sp_status status = SP_OK;
    if (write) SP_TRY(keep_old_value(b));
    for (int64_t k = 0; k < b->size; k++) {
        SP_TRY(run_slice(b, k, room, out));
        for (int j = 0; j < b->c->n_out; j++) {
            SP_TRY(place(b, k, out[j], &b->low.out[j]));
            sp_drop(&out[j]);
        }
    }
    if (write && b->size) SP_TRY(sp_copy_(target, b->low.out[0]));
    b->done = true;
out:
    sp_drop(&target);
    for (int j = 0; j < b->c->n_out; j++) {
        sp_drop(&out[j]);
        if (write) sp_drop(&b->low.out[j]);
    }
    sp__free(room, bytes);
    return status;
}

/* ---- calls ----- */

static sp_status check_write(const sp_batch *b)
{
    if (b->c->flags & SP_CALL_OUT)
        return sp_fail(SP_EUNSUPPORTED, "%s: out= is not available inside vmap; leave it away",
                       op_name(b->c));
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
        "that all "
        "examples share; write out of place, or make that tensor from a mapped one (x * 0)",
        op_name(b->c));
}

static sp_status run_low(sp_batch *b, sp_batch_rule rule)
{
    SP_RETURN_IF(rule ? rule(b) : run_slices(b));
    if (b->done) return SP_OK;
    if (b->c->flags & SP_CALL_INPLACE) b->low.out[0] = b->low.in[0];
    return sp__dispatch(&b->low);
}

static sp_status run_batched(sp_batch *b)
{
    const sp_op_info *info = &sp_op_table[b->c->op];
    sp_batch_rule rule = rule_of(b->c->op);
    if (!rule && info->body) return sp__body((sp_call *)b->c);
    if (info->infer && b->c->op != SP_OP_AS_STRIDED) { /* that one looks at the storage */
        SP_RETURN_IF(sp__infer(b->c, b->out));
        b->have_out = true;
    }
    bool write = b->c->flags & (SP_CALL_INPLACE | SP_CALL_OUT);
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
    return status;
}

/* Nothing mapped goes in: the same for all examples. */
static sp_status run_same(const sp_level *level, sp_call *c)
{
    return sp__call_below(level, c);
}

static sp_status run_random(sp_level *level, sp_call *c)
{
    int randomness = ((const sp_vmap_level *)level)->randomness;
    if (randomness == SP_RANDOM_SAME) return run_same(level, c);
    if (randomness == SP_RANDOM_ERROR)
        return sp_fail(SP_EUNSUPPORTED,
                       "%s: random numbers inside vmap: pass randomness='different' for numbers of "
                       "its own for each "
                       "example, or 'same' for the same for all",
                       op_name(c));
    sp_batch b = {.level = level, .c = c, .size = level->batch_size, .low = *c};
    int at = 0;
    while (at < c->n_attr && c->attr[at].kind != SP_ATTR_INTS) at++;
    if (at == c->n_attr || c->attr[at].n >= SP_MAX_RANK)
        return sp_fail(SP_ESHAPE, "%s: no room for the mapped dimension", op_name(c));
    sp__batch_shape_attr(&b, at, c->attr[at].v.ints, c->attr[at].n);
    SP_RETURN_IF(sp__call_below(level, &b.low));
    sp_status status = wrap_results(&b);
    for (int j = 0; j < c->n_out; j++) sp_drop(&b.low.out[j]);
    return status;
}

sp_status sp__vmap_dispatch(sp_level *self, sp_call *c)
{
    enum { ROOM = 8 };
    sp__tls.top = self;
    SP_RETURN_IF(sp__level_check(self, c));
    bool any = false;
    for (int i = 0; i < c->n_in; i++) any |= sp__of_level(c->in[i], self);
    if (!any && sp_op_table[c->op].flags & SP_OPF_RANDOM) return run_random(self, c);
    if (!any) return run_same(self, c);

    if (sp_op_table[c->op].flags & SP_OPF_RANDOM &&
        ((const sp_vmap_level *)self)->randomness != SP_RANDOM_DIFFERENT)
        return sp_fail(SP_EUNSUPPORTED,
                       "%s: random numbers for a mapped tensor inside vmap: pass "
                       "randomness='different'",
                       op_name(c));

    sp_tensor *room[ROOM] = {NULL}, **in = room;
    size_t bytes = (size_t)c->n_in * sizeof *in;
    if (c->n_in > ROOM && !(in = sp__alloc_zero(bytes)))
        return sp_fail(SP_EMEMORY, "%s: no memory for its inputs inside vmap", op_name(c));
    sp_batch b = {.level = self, .c = c, .size = self->batch_size, .low = *c};
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
