/* The only place that allocates.
 *
 * Small blocks come from per-thread size-class free lists, large ones from the system, aligned to
 * 64 bytes. Every block is counted, can be made to fail on purpose, and is listed when it outlives
 * the process's end in a debug build.
 *
 * Invariants: a block is given back with the size it was asked with; any thread may give back any
 * block.
 */
#ifndef SP_MEMORY_H
#define SP_MEMORY_H

#include <stdatomic.h>

#include "spool.h"

/* NULL when out of memory; the caller turns that into sp_fail(SP_EMEMORY, ...) with what it
 * wanted the bytes for. sp__alloc(0) yields a valid block. Not zeroed. */
void *sp__alloc(size_t bytes) __attribute__((malloc, alloc_size(1)));
void *sp__alloc_zero(size_t bytes) __attribute__((malloc, alloc_size(1)));
/* Like realloc; on failure NULL and the old block stays. */
void *sp__realloc(void *block, size_t old_bytes, size_t new_bytes) SP_MUST_USE;
void sp__free(void *block, size_t bytes);
/* A copy of bytes at `from`, or NULL. */
void *sp__dup(const void *from, size_t bytes);

/* ---- per-thread counters ----- */

/* What is counted on the way of every op, without an atomic read-modify-write: each thread has
 * its own, sums are made when asked for. Written by its thread alone, atomic so that others may
 * read. */
typedef enum sp_count {
    SP_COUNT_INLINE,
    SP_COUNT_QUEUED,
    SP_COUNT_HELPED,
    SP_COUNT_SYNC,   /* ops/launch.c */
    SP_COUNT_ISSUED, /* kernels put into a queue, whenever they run */
    SP_COUNT_KINDS
} sp_count;

typedef struct sp_tally {
    bool known; /* to memory.c, which sums */
    _Atomic int64_t n[SP_COUNT_KINDS];
} sp_tally;
extern __thread sp_tally sp__tally __attribute__((tls_model("initial-exec")));
void sp__tally_register(void);

static inline void sp__count(sp_count what)
{
    sp_tally *t = &sp__tally;
    if (__builtin_expect(!t->known, 0)) sp__tally_register();
    int64_t n = atomic_load_explicit(&t->n[what], memory_order_relaxed);
    atomic_store_explicit(&t->n[what], n + 1, memory_order_relaxed);
}
int64_t sp__count_sum(sp_count what);

/* ---- for tests and tools ----- */

/* The n-th request from now on fails (n = 1: the next), and, when `sticky`, all after it. 0
 * switches off. For tests. */
SP_API void sp_memory_fail_nth(int64_t n, bool sticky);
/* Requests seen since the last sp_memory_fail_nth(); tells a sweep when to stop. */
SP_API int64_t sp_memory_requests(void);
/* Gives cached blocks back to the system. */
SP_API void sp_memory_trim(void);

#endif
