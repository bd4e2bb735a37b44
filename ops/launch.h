/* From an inferred call to a running kernel: arguments, tickets, the choice between inline and
 * queue.
 *
 * Invariants
 * 1. An op runs inline only if no input has a pending writer and nothing it writes has a pending
 *    reader or writer. Otherwise, and when its predicted work exceeds the threshold, it is queued;
 *    on a foreign storage the caller then waits for it.
 * 2. A slot holds everything a worker needs by value, plus storage references; workers never see
 *    handles.
 * 3. Sticky errors of a queue are raised at the next synchronisation and name the op, its shapes
 *    and the issuing line.
 *
 * Knobs (read once, at first use): SPOOL_LAUNCH_BLOCKING=1 runs everything inline;
 * SPOOL_QUEUE_MIN_US=n queues ops predicted to take n us or longer (0: every op; the default is in
 * launch.c, and none where the process may use one processor only); SPOOL_NUM_THREADS=n.
 */
#ifndef SP_LAUNCH_H
#define SP_LAUNCH_H

#include <stdatomic.h>

#include "ops/dispatch.h"
#include "tensor/backend.h"

/* Launches c, whose out[] handles exist, on its device. Outputs first, then inputs, become the
 * kernel's operands. */
SP_MUST_USE sp_status sp__launch(const sp_call *c);

/* Launches a prepared kernel that is no op of the table (a plan, a fused region): reads and
 * writes list the storages whose tickets it takes part in. The kernel gets `args` by reference
 * when run inline; queued, sp__launch_raw owns a copy of arg_bytes bytes. */
SP_MUST_USE sp_status sp__launch_raw(sp_status (*run)(void *args), const void *args,
                                     size_t arg_bytes, double predicted_us,
                                     sp_storage *const *reads, int n_reads,
                                     sp_storage *const *writes, int n_writes);

/* For an op that checks data: whether its index is in bounds, which it waits for. If so, the kernel
 * will not fail on it, and may run later; if not, running it gives the message. */
bool sp__index_fits(const sp_call *c);

/* Builds the kernel arguments of c over existing storages, without running anything: for plans.
 * out->arg must have room for c->n_out + c->n_in operands if those are more than
 * SP_KARGS_INLINE; it is set otherwise. out->attr borrows c->attr. */
void sp__kargs_fill(const sp_call *c, struct sp_kargs *out);

/* Waits for the queued writers (and readers, when about to be written) of a storage; reports a
 * sticky error of its queue. */
SP_MUST_USE sp_status sp__storage_wait(sp_storage *s, bool for_write);
SP_MUST_USE sp_status sp__queue_drain(void);
/* Until all that is queued has run, on this thread if need be: nothing runs by itself while its
 * issuer stays away. Sticky errors stay for the next synchronisation; the interpreter lock stays
 * held. */
void sp__queue_settle(void);

/* How a binding lets other threads of its interpreter on while this one waits or runs a long
 * kernel. leave() gives up the interpreter lock if the calling thread holds it and says what
 * enter() needs to take it back; NULL when it does not. */
typedef struct sp_blocking_hooks {
    void *(*leave)(void);
    void (*enter)(void *left);
} sp_blocking_hooks;
SP_API extern sp_blocking_hooks sp__blocking_hooks;

extern _Atomic int64_t sp__stat_plan_runs; /* jit/ counts here */

/* Forgets which kernel an op has: for tests that swap sp__backends. */
void sp__launch_forget_kernels(void);

#endif
