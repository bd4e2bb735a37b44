/* vmap without a rule: slice by slice, said once an op on stderr, and counted.
 *
 * A view op without a rule would yield a copy, so every view op has one.
 */
#include "autograd/vmap_int.h"

#include <stdio.h>

static _Atomic int64_t fallbacks[SP_OP_COUNT];
static _Atomic bool warn = true;
static _Atomic bool warned[SP_OP_COUNT];

int64_t sp__vmap_fallbacks_of(int op)
{
    return fallbacks[op];
}

int64_t sp__vmap_fallbacks(void)
{
    int64_t all = 0;
    for (int op = 0; op < SP_OP_COUNT; op++) all += fallbacks[op];
    return all;
}

void sp__vmap_warn(bool on)
{
    warn = on;
}

static void say_fallback(const sp_batch *b)
{
    fallbacks[b->c->op]++;
    if (!warn || atomic_exchange(&warned[b->c->op], true)) return;
    fprintf(
        stderr,
        "spool: vmap has no rule for %s: it runs slice by slice, %lld times here; this is slow\n",
        sp__batch_op(b), (long long)b->size);
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
sp_status sp__batch_slices(sp_batch *b)
{
    bool write = b->c->flags & SP_CALL_INPLACE;
    if (b->size == 0 && !write)
        return sp_fail(SP_EUNSUPPORTED,
                       "%s: vmap has no rule for it, and a batch of size 0 has no slice to run",
                       sp__batch_op(b));
    size_t bytes = (size_t)b->c->n_in * sizeof(sp_tensor *);
    sp_tensor **room = sp__alloc(bytes), *out[SP_MAX_OUT] = {NULL};
    if (!room)
        return sp_fail(SP_EMEMORY, "%s: no memory for its inputs inside vmap", sp__batch_op(b));
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
