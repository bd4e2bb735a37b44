/* jit functions: what the recorded tree hangs on, entering and leaving a call, and what is known
 * about them.
 *
 *     sp_jit_frame f;
 *     sp__jit_enter(jit, &f);        the thread's ops go to a region of jit
 *     ... the function ...
 *     sp__jit_leave(&f, failed);     the region's plan runs
 *
 * A call within another jitted call joins the outer region. SPOOL_JIT=0 makes enter and leave do
 * nothing.
 */
#ifndef SP_JIT_H
#define SP_JIT_H

#include "jit/region.h"

enum { SP_JIT_REASONS = 32, SP_JIT_NAME = 96 };

typedef struct sp_jit {
    int32_t refs;
    bool dropped; /* runs eagerly for good; reasons say why */
    char name[SP_JIT_NAME];
    sp_step *entry;
    sp_exit *exits;                                       /* newest first */
    sp_region *idle;                                      /* kept for the next call */
    sp_region *stuck;                                     /* waiting for memory */
    int32_t max_steps, max_slots, max_views, max_scalars; /* of any path */
    int32_t room;                                         /* how often one of these grew */
    int32_t n_steps, n_plans;                             /* in the tree */
    int64_t calls;
    int64_t ops, compiled_ops, breaks; /* of the last call */
    int32_t rebuilds;
    int32_t strays; /* calls in a row that ran eagerly from the first op on */
    char *reasons[SP_JIT_REASONS];
    int32_t n_reasons;
} sp_jit;

SP_MUST_USE sp_status sp__jit_new(const char *name, sp_jit **out);
void sp__jit_retain(sp_jit *jit);
void sp__jit_drop(sp_jit *jit);

typedef struct sp_jit_frame {
    sp_region *region; /* NULL: the call joined another region, or runs eagerly */
    sp_tracer *outer;
} sp_jit_frame;

SP_MUST_USE sp_status sp__jit_enter(sp_jit *jit, sp_jit_frame *frame);
/* failed: the function raised. What was buffered runs all the same, so that side effects are
 * there. */
SP_MUST_USE sp_status sp__jit_leave(sp_jit_frame *frame, bool failed);

/* The same without the thread's tracer, for hot.c: a region to feed with ops; its end. */
SP_MUST_USE sp_status sp__jit_open(sp_jit *jit, sp_region **out);
SP_MUST_USE sp_status sp__jit_close(sp_region *r, sp_region_why why);

/* A region that was stuck when its call ended has run. */
void sp__jit_region_done(sp_region *region);

/* Notes why something is not compiled, once each text. */
void sp__jit_reason(sp_jit *jit, const char *text);

typedef struct sp_explanation {
    int32_t graphs;       /* plans made and in use */
    int64_t ops;          /* of the last call */
    int64_t compiled_ops; /* of these, run by plans */
    int64_t breaks;       /* times in the last call that a region ended before the call did */
    int32_t rebuilds;     /* plans made anew because other results were wanted */
    int64_t calls;
} sp_explanation;
void sp__jit_explain(const sp_jit *jit, sp_explanation *out);
/* The explanation for people, with the graphs when `with_graphs`; free with sp_text_free(). */
SP_MUST_USE sp_status sp__jit_text(const sp_jit *jit, bool with_graphs, char **out);

/* ---- hot regions (hot.c): found without a decorator ----- */

/* Whether t is the calling thread's detector, not a jitted call or a capture. */
bool sp__hot_is(const sp_tracer *t);
/* Runs what this thread's hot region has buffered and starts watching anew. */
SP_MUST_USE sp_status sp__hot_flush(void);
/* Switches detection for the calling thread; returns what it was. Stays off where SPOOL_HOT=0. */
bool sp__hot_set(bool on);
void sp__hot_register(void);

void sp__jit_register(void);

#endif
