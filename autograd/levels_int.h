/* The thread's stack of levels from the inside: what grad, jvp, jet and vmap levels share.
 *
 *     sp__tls.top -> vmap #7 -> grad #5 -> jvp #2 -> (the tape)
 *
 * Invariants
 * 1. While a level handles a call, sp__tls.top is that level; only for what runs below is it taken
 * off, by sp__level_run_below() or between sp__below_enter() and sp__below_leave().
 * 2. A wrapper of a level that is not on the stack must not be used any more (sp__level_check).
 * 3. Grad mode is the thread's: at a grad level it is the level's own, and what runs below has the
 * mode from outside.
 */
#ifndef SP_LEVELS_INT_H
#define SP_LEVELS_INT_H

#include "autograd/tape_int.h"
#include "autograd/transform.h"

typedef struct sp_vmap_level {
    sp_level level;
    uint8_t randomness;    /* sp_randomness */
    uint64_t seed, offset; /* of the random numbers, when the level was pushed */
} sp_vmap_level;

typedef struct sp_jet_level {
    sp_level level;
    uint8_t order; /* coefficients beyond the value; lowered while derivatives are evaluated */
} sp_jet_level;

void sp__vmap_random_start(sp_vmap_level *v);

sp_status sp__grad_dispatch(sp_level *self, sp_call *c);
sp_status sp__forward_dispatch(sp_level *self, sp_call *c); /* jvp and jet */
sp_status sp__vmap_dispatch(sp_level *self, sp_call *c);

static inline bool sp__of_level(const sp_tensor *t, const sp_level *level)
{
    return t && t->wrap && t->wrap->level_id == level->id;
}

/* t one level down: what it wraps if it is level's own, else itself. Borrowed. */
static inline sp_tensor *sp__below(const sp_tensor *t, const sp_level *level)
{
    return sp__of_level(t, level) ? t->wrap->inner : (sp_tensor *)t;
}

static inline bool sp__is_forward(const sp_level *level)
{
    return level->kind == SP_LEVEL_JVP || level->kind == SP_LEVEL_JET;
}

/* EGRAD naming the op when an input belongs to no level at or below `level`. */
SP_MUST_USE sp_status sp__level_check(const sp_level *level, const sp_call *c);

/* Takes the level off the stack, and puts it back. */
void sp__below_enter(const sp_level *level, sp_context *was);
void sp__below_leave(const sp_context *was);

/* Runs c one level down. Results that are new are wrapped for the level: jvp and grad levels own
 * all that is made in them. */
SP_MUST_USE sp_status sp__level_run_below(sp_level *level, sp_call *c);
/* Runs c, whose tensors are all from below, one level down. */
SP_MUST_USE sp_status sp__call_below(const sp_level *level, sp_call *c);

/* A wrapper at level for inner, and, of a level that has an order, for as many tangents (NULL: all
 * zero) that stand `stride` apart; all gain a reference. VMAP: inner has the mapped dimension
 * first. */
SP_MUST_USE sp_status sp__wrap_series(const sp_level *level, const sp_tensor *inner,
                                      sp_tensor *const *tangents, int stride, sp_tensor **out);
/* The same with one tangent at most. */
SP_MUST_USE sp_status sp__wrap_new(const sp_level *level, const sp_tensor *inner,
                                   const sp_tensor *tangent, sp_tensor **out);

#endif
