/* One thread pool for every kernel: a loop over chunks, in which the caller takes part.
 *
 * Invariants
 * 1. Which thread runs a chunk is left to chance; what a chunk computes depends on its number
 *    alone. So results never depend on the number of threads.
 * 2. One loop has the helpers at a time. A loop started meanwhile (from another thread, or from
 *    inside a chunk) runs on its caller alone: never a deadlock, never a queue.
 * 3. The caller waits only for chunks that a helper has begun. A helper that the system does not
 *    run keeps nobody waiting; one that lost its core in the middle of a chunk makes the pool
 *    leave helpers out for a while (pool.c).
 * 4. Helpers are started by the first loop that can use them, sleep on a futex some time after
 *    the last one, and are started anew in a forked child.
 * 5. No more threads than sp_num_threads() run chunks, whoever lends a hand.
 */
#ifndef SP_CPU_POOL_H
#define SP_CPU_POOL_H

#include <stdbool.h>
#include <stdint.h>

typedef void (*sp_chunk_fn)(void *ctx, int64_t chunk);

/* fn(ctx, 0) ... fn(ctx, n_chunks - 1), each once, in any order, on any of the pool's threads;
 * returns when all are done. predicted_us is the whole loop's time on one thread. */
void sp__pool_for(int64_t n_chunks, double predicted_us, sp_chunk_fn fn, void *ctx);

/* For a thread that waits for one which may be in a loop: takes chunks of it, if there are any and
 * a thread is wanted. Whether it did. */
bool sp__pool_help(void);

/* Whether a loop of that predicted time would use helpers at all: lets a kernel skip splitting its
 * work. */
bool sp__pool_worth(double predicted_us);

/* Loops that ran with helpers, and loops that left them out because one had lost its core. For
 * tests and stats. */
typedef struct sp_pool_stats {
    int64_t shared, backed_off;
} sp_pool_stats;
void sp__pool_stats(sp_pool_stats *out);

#endif
