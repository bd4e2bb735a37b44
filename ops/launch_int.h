/* What sp__run() (run.c) and the launch (launch.c) share; the way of a small op is inline here.
 */
#ifndef SP_LAUNCH_INT_H
#define SP_LAUNCH_INT_H

#include "ops/queue_int.h"
#include "ops_gen.h"
#include "tensor/memory.h"

/* ---- kernels: looked up once an op and device ----- */

extern _Atomic(sp_kernel) sp__kernels[SP_MAX_DEVICES][SP_OP_COUNT];
sp_kernel sp__kernel_find(int device, int op);
SP_MUST_USE sp_status sp__kernel_missing(const sp_call *c, int device); /* fails, saying so */

static inline sp_kernel sp__kernel_of(int device, int op)
{
    sp_kernel k = atomic_load_explicit(&sp__kernels[device][op], memory_order_relaxed);
    return SP_LIKELY(k != NULL) ? k : sp__kernel_find(device, op);
}

static inline sp_status sp__kernel_run(sp_kernel kernel, const sp_kargs *k)
{
    sp__count(SP_COUNT_INLINE);
    return kernel(k);
}

/* ---- launching ----- */

/* Whether a call may write t: it has memory, which is not read-only, nor one element for many. */
SP_MUST_USE sp_status sp__check_writable(const sp_call *c, const sp_tensor *t);

/* Everything in k but the operands and, for pointwise ops, dense and compute. */
static inline void sp__kargs_header(const sp_call *c, sp_kargs *k)
{
    k->op = c->op;
    k->n_out = c->n_out;
    k->n_tuples = 1;
    k->n_attr = c->n_attr;
    k->dense = false;
    k->compute = 0;
    k->n_arg = c->n_out + c->n_in;
    if (k->n_arg <= SP_KARGS_INLINE) k->arg = k->room;
    k->attr = (sp_attr *)c->attr;
}

SP_MUST_USE sp_status sp__launch_slow(const sp_call *c, const sp_kargs *k, sp_kernel kernel,
                                      int device);

/* c with its arguments in k; `work` is how many elements all operands have. */
static inline sp_status sp__launch_filled(const sp_call *c, const sp_kargs *k, sp_kernel kernel,
                                          int device, int64_t work)
{
    int64_t quick = atomic_load_explicit(&sp__knobs.quick_numel, memory_order_relaxed);
    if (SP_LIKELY(work <= quick && sp__queue_idle(device))) return sp__kernel_run(kernel, k);
    return sp__launch_slow(c, k, kernel, device);
}

/* Flushes regions, fills the arguments, launches. */
SP_MUST_USE sp_status sp__launch_kernel(const sp_call *c, sp_kernel kernel, int device);

/* n calls of an op that updates: c->in holds the inputs of the first, of the second and so on, and
 * c->out does not count. No tensor written is another operand's memory, no region knows any. */
SP_MUST_USE sp_status sp__launch_each(const sp_call *c, int n, sp_kernel kernel, int device);

#endif
