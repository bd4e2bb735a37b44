/* A region: the op stream of one jitted call (or one turn of a hot loop), matched against what was
 * seen before.
 *
 *     FOLLOW   every op so far was found in the tree: results are deferred handles, nothing has
 *              run
 *     RECORD   the program went a new way: ops run as they come and become steps
 *     OFF      not worth it: ops run as they come, nothing is noted until the call ends
 *     STUCK    running what was buffered failed for want of memory: every op and read first tries
 *              again
 *
 *         FOLLOW --unknown op--> run the buffered prefix op by op --> RECORD
 *         FOLLOW --end, read, foreign write--> run the plan of that exit --> FOLLOW from exit->next
 *
 * Invariants
 * 1. A storage that the region knows has storage->region = the region and region_slot = its slot.
 *    Whoever else touches it gets the region flushed first (sp_handle_hooks.region_flush), so that
 *    nobody sees bytes that are not there yet, and nobody changes bytes that buffered ops still
 *    read.
 * 2. Slots from outside are held by a reference. Fresh slots are not while following: their
 *    storages have no bytes, and one that dies says so (region_forget), so that what lives at the
 *    end are the outputs. Before anything runs, and while recording, all are held, because from
 *    then on workers may drop storages.
 * 3. handle->trace_epoch = region->epoch: trace_value is the view of this region that the handle
 *    names. It saves comparing geometry; a handle without it is compared.
 * 4. Everything happens with the interpreter lock held (tensor/tensor.h, invariant 1); kernels may
 *    let go of it, during which the region is busy and others wait.
 */
#ifndef SP_REGION_H
#define SP_REGION_H

#include "jit/trace.h"

struct sp_jit;

typedef enum sp_region_mode {
    SP_REGION_FOLLOW,
    SP_REGION_RECORD,
    SP_REGION_OFF,
    SP_REGION_STUCK
} sp_region_mode;

typedef struct sp_region {
    sp_tracer tracer;   /* first: what the thread's ops go to while the region is open */
    struct sp_jit *jit; /* a reference while open or stuck */
    uint8_t mode;
    const void *busy_by; /* the thread that is at work on it (region_int.h); NULL: none */
    bool open;
    uint8_t skips; /* roots in this call whose first op never came twice */
    uint64_t epoch;
    sp_step *root, *at; /* of the current segment */
    int32_t ran;        /* steps of the path that were executed op by op */
    int32_t swept;      /* depth at which dead slots were last let go */
    int64_t unswept;    /* bytes of results recorded since */
    const sp_step **path;
    sp_storage **slots;
    int64_t *base;
    uint8_t *held;
    const sp_trace_view **views;
    sp_scalar *scalars;
    int32_t cap_steps, cap_slots, cap_views, cap_scalars;
    int32_t room;                      /* jit->room when these were enough */
    int64_t ops, compiled_ops, breaks; /* of this call */
    struct sp_region *next;            /* of the jit function's regions that are stuck */
} sp_region;

/* A closed region for jit. */
SP_MUST_USE sp_status sp__region_new(struct sp_jit *jit, sp_region **out);
void sp__region_free(sp_region *r);
/* From the entry of its jit function on. */
SP_MUST_USE sp_status sp__region_begin(sp_region *r);

/* Another turn, after the end of one. */
SP_MUST_USE sp_status sp__region_again(sp_region *r);

typedef enum sp_region_why {
    SP_END_CALL,
    SP_END_ERROR,
    SP_END_READ,
    SP_END_FOREIGN,
    SP_END_INDEX,
    SP_END_VARIES,
    SP_END_TURN
} sp_region_why;

/* Ends the current segment: makes the bytes of everything in it be there and goes on at the exit's
 * next root. On failure the region is STUCK, with nothing lost. */
SP_MUST_USE sp_status sp__region_end(sp_region *r, sp_region_why why);

/* For sp_tracer.eval and for hot.c. */
SP_MUST_USE sp_status sp__region_eval(sp_tracer *self, sp_call *c);
void sp__region_register(void); /* hooks */

#endif
