/* What region.c (life and ends), follow.c (matching), record.c (new ways) and flush.c (running)
 * share. */
#ifndef SP_REGION_INT_H
#define SP_REGION_INT_H

#include "jit/jit.h"
#include "jit/region.h"

/* Its address stands for the thread. */
extern __thread char sp__region_me;

/* Between these two the region is busy: other threads wait, and ops that the interpreter issues on
 * this thread meanwhile (finalizers that a collection runs) are none of the region's. */
static inline const void *sp__region_enter(sp_region *r)
{
    const void *before = r->busy_by;
    r->busy_by = &sp__region_me;
    return before;
}

static inline void sp__region_leave(sp_region *r, const void *before)
{
    r->busy_by = before;
}

static inline bool sp__region_is_mine(const sp_region *r)
{
    return r->busy_by == &sp__region_me;
}

/* Checks the invariants of region.h; aborts in debug builds. */
void sp__region_check(const sp_region *r);
/* Room for the largest path of the tree. */
SP_MUST_USE sp_status sp__region_reserve(sp_region *r);
/* Until no thread runs the region's kernels: they may be let go of the interpreter lock meanwhile,
 * and whoever ends the region from another thread is as good as its owner. */
void sp__region_wait(const sp_region *r);
/* Gives up what is known: storages are let go, steps stay. */
void sp__region_detach(sp_region *r);
/* Nothing more is noted in this call; everything noted so far has run. */
void sp__region_off(sp_region *r);

/* ---- follow.c ----- */
/* The child of r->at that c is, with new external slots bound and operands stamped; NULL: none. */
sp_step *sp__region_match(sp_region *r, const sp_call *c);
/* Undoes a match. */
void sp__region_unmatch(sp_region *r, const sp_step *s, const sp_call *c);
void sp__region_advance(sp_region *r, sp_step *s);
bool sp__region_same_geometry(const sp_tensor *t, const sp_meta *m, int64_t base);

/* ---- record.c ----- */
SP_MUST_USE sp_status sp__region_stray(sp_region *r, sp_call *c);

/* A composite that sp__run() would not give to a kernel: its body's ops come to the tracer one by
 * one. */
bool sp__region_has_only_body(const sp_call *c);
SP_MUST_USE sp_status sp__region_run_body(sp_call *c);

/* ---- flush.c ----- */
/* Executes the buffered steps op by op; on failure the region is STUCK. All storages are held
 * afterwards. */
SP_MUST_USE sp_status sp__region_run_eager(sp_region *r);
/* Executes the whole path by its exit's plan, made now if need be. false: not possible, and
 * nothing was executed. */
bool sp__region_run_plan(sp_region *r, sp_exit *e);

#endif
