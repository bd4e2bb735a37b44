/* The launch queues: one a device, in order, with a worker that is started when first needed.
 *
 *     tickets   1 ... done | done+1 ... issued | free slots
 *               finished     to be run in order, by whoever is `running`: worker or waiting caller
 *
 * Invariants
 * 1. `issued` moves under the queue's lock; `done` is moved by the one thread that holds the role
 *    `running`. A ticket t is finished when done >= t; reading that with acquire makes the op's
 *    writes visible.
 * 2. At most SLOTS tickets are unfinished; ticket t lies in slot (t - 1) % SLOTS and is its
 *    executor's until it is done.
 * 3. Nothing foreign is ever queued, so a worker never calls a binding's release function, and
 *    needs no interpreter lock.
 */
#ifndef SP_QUEUE_INT_H
#define SP_QUEUE_INT_H

#include "ops/launch.h"

typedef struct sp_progress { /* a cache line of its own: read on every launch */
    _Alignas(64) _Atomic uint64_t issued;
    _Atomic uint64_t done;
} sp_progress;
extern sp_progress sp__progress[SP_MAX_DEVICES];

typedef struct sp_knobs { /* from the environment, once; quick_numel is -1 before */
    bool blocking;        /* SPOOL_LAUNCH_BLOCKING */
    double queue_min_us;  /* SPOOL_QUEUE_MIN_US; an op predicted to take this long is queued */
    /* Ops with so few elements in all operands run inline without a prediction; -1: none. */
    _Atomic int64_t quick_numel;
} sp_knobs;
extern sp_knobs sp__knobs;
void sp__knobs_read(void);

/* Everything finished. */
static inline bool sp__queue_idle(int device)
{
    sp_progress *p = &sp__progress[device];
    uint64_t done = atomic_load_explicit(&p->done, memory_order_acquire);
    return atomic_load_explicit(&p->issued, memory_order_relaxed) == done;
}

static inline bool sp__ticket_pending(int device, _Atomic uint64_t *ticket)
{
    return atomic_load_explicit(ticket, memory_order_relaxed) >
           atomic_load_explicit(&sp__progress[device].done, memory_order_acquire);
}

/* Queues a kernel over k, or (kernel NULL) run over a copy of args; storages gain references and
 * tickets. False: the queue cannot take it (no thread, no memory); the caller runs it itself. */
bool sp__queue_op(int device, sp_kernel kernel, const sp_kargs *k, sp_storage *const *reads,
                  int n_reads, sp_storage *const *writes, int n_writes);
bool sp__queue_raw(int device, sp_status (*run)(void *args), const void *args, size_t arg_bytes,
                   sp_storage *const *reads, int n_reads, sp_storage *const *writes, int n_writes);

/* Until the ticket is finished; runs queued work meanwhile rather than sleep. */
void sp__queue_wait(int device, uint64_t ticket);
/* The sticky error, if any, which is cleared. */
SP_MUST_USE sp_status sp__queue_error(int device);

#endif
