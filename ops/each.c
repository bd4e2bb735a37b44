/* One op on many tuples of tensors, in place: the step of an optimizer over all its parameters.
 *
 *     one launch    nothing looks on, and no two tuples share memory
 *     one by one    below a transform, on the tape, within a region, or where memory is shared
 *
 * Either way has the same bits: an op that updates is elementwise, and its kernel does not care how
 * many tuples it is given. One by one, a tuple is a call with out=, of which the tape, the tracer
 * and the planner know all they need.
 */
#include "ops/launch_int.h"
#include "ops/write.h"

static sp_call tuple_of(const sp_call *c, int i)
{
    sp_call one = *c;
    one.in = c->in + (size_t)i * c->n_in;
    one.flags = SP_CALL_OUT;
    for (int j = 0; j < c->n_out; j++) one.out[j] = one.in[j];
    return one;
}

/* ---- checks ----- */

static sp_status check_tuple(const sp_call *one, int device)
{
    const sp_op_info *info = &sp_op_table[one->op];
    sp_meta meta[SP_MAX_OUT];
    for (int k = 0; k < one->n_in; k++) {
        if (one->in[k]->device == device) continue;
        return sp_fail(SP_EDEVICE, "%s: tensors on different devices; move them to one",
                       info->name);
    }
    for (int j = 0; j < one->n_out; j++) meta[j].view_of = -1, meta[j].offset = 0;
    SP_RETURN_IF(sp__infer(one, meta));
    for (int j = 0; j < one->n_out; j++) SP_RETURN_IF(sp__check_writable(one, one->out[j]));
    return SP_OK;
}

/* ---- whether it is one launch ----- */

static bool is_watched(const sp_call *c, int n)
{
    unsigned seen = 0, known = SP_T_WRAPPED;
    if (sp__top_transform()) return true;
    if (!sp__tls.no_grad) known |= SP_T_META | SP_T_REQUIRES_GRAD;
    for (int i = 0; i < n * c->n_in; i++) seen |= c->in[i]->flags;
    return (seen & known) != 0;
}

/* Whether a tensor written is, or may be, the memory of another operand. Storages outside of
 * regions, as all are by now, lend `region_slot` as a mark. */
static bool shares_memory(const sp_call *c, int n)
{
    int foreign = 0;
    bool shared = false;
    for (int i = 0; i < n * c->n_in; i++) c->in[i]->storage->region_slot = 0;
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < n * c->n_in && !shared; i++) {
            sp_storage *s = c->in[i]->storage;
            bool written = i % c->n_in < c->n_out;
            if (written != (pass == 0)) continue;
            foreign += (s->flags & SP_S_FOREIGN) != 0;
            shared = s->region_slot != 0 || foreign > 1;
            s->region_slot = written;
        }
    }
    return shared;
}

static sp_status flush_regions(const sp_call *c, int n)
{
    for (int i = 0; i < n * c->n_in; i++) {
        sp_storage *s = c->in[i]->storage;
        if (SP_UNLIKELY(s->region != NULL) && sp__handle_hooks.region_flush)
            SP_RETURN_IF(sp__handle_hooks.region_flush(s->region, s));
    }
    return SP_OK;
}

/* ---- running ----- */

/* A transform knows how to copy into one of its tensors, and how the op yields new ones. */
static sp_status update_by_copies(sp_call *one)
{
    sp_status status = SP_OK;
    one->flags = 0;
    for (int j = 0; j < one->n_out; j++) one->out[j] = NULL;
    SP_TRY(sp__dispatch(one));
    for (int j = 0; j < one->n_out; j++) SP_TRY(sp_copy_(one->in[j], one->out[j]));
out:
    for (int j = 0; j < one->n_out; j++) sp_drop(&one->out[j]);
    return status;
}

static sp_status one_by_one(const sp_call *c, int n, bool watched)
{
    for (int i = 0; i < n; i++) {
        sp_call one = tuple_of(c, i);
        SP_RETURN_IF(watched ? update_by_copies(&one) : sp__eval(&one));
    }
    return SP_OK;
}

static sp_status run_together(sp_call *c, int n, sp_kernel kernel)
{
    SP_RETURN_IF(sp__launch_each(c, n, kernel, c->in[0]->device));
    sp_write *note = NULL;
    for (int i = 0; i < n * c->n_in; i++)
        if (i % c->n_in < c->n_out) sp__written_with(c->in[i]->storage, c->op, &note);
    sp__write_drop(note);
    return SP_OK;
}

sp_status sp__dispatch_each(sp_call *c, int n)
{
    sp_tracer *tracer = sp__tls.tracer;
    bool watched = n > 0 && is_watched(c, n);
    for (int i = 0; i < n && !watched; i++) {
        sp_call one = tuple_of(c, i);
        SP_RETURN_IF(check_tuple(&one, c->in[0]->device));
    }
    if (n < 2 || watched || (tracer && !(tracer->each && tracer->each(tracer, c, n))))
        return one_by_one(c, n, watched);
    SP_RETURN_IF(flush_regions(c, n));
    sp_kernel kernel = sp__kernel_of(c->in[0]->device, c->op);
    if (!kernel) return sp__kernel_missing(c, c->in[0]->device);
    return shares_memory(c, n) ? one_by_one(c, n, false) : run_together(c, n, kernel);
}
