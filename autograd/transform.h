/* Transforms as the binding drives them: push a level, wrap the arguments, call the function,
 * unwrap the results, pop.
 *
 *     sp_level *level;
 *     sp__level_push(SP_LEVEL_JVP, &level);
 *     sp__dual(level, x, tangent, &xw);
 *     ... y = f(xw) ...
 *     sp__undual(level, y, &value, &tangent);
 *     sp__level_pop(level);
 *
 * Levels are a stack per thread: the last pushed is popped first, also when the function failed.
 * Wrapped tensors that outlive their level are harmless, but using one is EGRAD.
 */
#ifndef SP_TRANSFORM_H
#define SP_TRANSFORM_H

#include "ops/dispatch.h"

enum { SP_JET_MAX = 64 }; /* coefficients that a Taylor series may have beside its value */

typedef enum sp_randomness { /* what random ops do inside vmap */
                             SP_RANDOM_ERROR,
                             SP_RANDOM_DIFFERENT, /* each example draws its own numbers */
                             SP_RANDOM_SAME       /* all examples see the same numbers */
} sp_randomness;

/* ---- levels ----- */

/* A level on top of the calling thread's stack. GRAD: switches grad mode on, until it is popped. */
SP_MUST_USE sp_status sp__level_push(sp_level_kind kind, sp_level **out);
/* order: 1 to SP_JET_MAX. */
SP_MUST_USE sp_status sp__level_push_jet(int64_t order, sp_level **out);
SP_MUST_USE sp_status sp__level_push_vmap(int64_t batch_size, sp_randomness randomness,
                                          sp_level **out);
/* The grad level that had this id, back on top of the stack: what was recorded at it can be pulled
 * back through again, for as long as the levels that it stood on are there. */
SP_MUST_USE sp_status sp__level_push_again(uint64_t id, sp_level **out);
/* Takes the level off, with all that were left above it, and frees it. */
void sp__level_pop(sp_level *level);
/* EGRAD, naming the transform, when t belongs to a level that is not on this thread's stack any
 * more. */
SP_MUST_USE sp_status sp__check_alive(const sp_tensor *t, const char *op);

/* ---- grad: wrap, differentiate, unwrap, all while the level is on top ----- */

/* A tensor of the level that stands for x and requires grad if `leaf`. */
SP_MUST_USE sp_status sp__grad_wrap(sp_level *level, const sp_tensor *x, bool leaf,
                                    sp_tensor **out);
/* The value of t one level down. */
SP_MUST_USE sp_status sp__grad_unwrap(sp_level *level, const sp_tensor *t, sp_tensor **out);
/* The sum over roots of weight * d root / d inputs, one level down and differentiable there; zeros
 * for inputs that no root depends on. weights NULL: each root must have one element; a weight NULL:
 * zero. Uses the level's tape up unless retain. */
SP_MUST_USE sp_status sp__grad_of(sp_level *level, const sp_tensor *const *roots,
                                  const sp_tensor *const *weights, int n_roots,
                                  const sp_tensor *const *inputs, int n, bool retain,
                                  sp_tensor **grads);

/* ---- jvp ----- */

/* x with a tangent of x's shape (NULL: zero). */
SP_MUST_USE sp_status sp__dual(sp_level *level, const sp_tensor *x, const sp_tensor *tangent,
                               sp_tensor **out);
/* Value and tangent one level down; a tangent that is zero is NULL. */
SP_MUST_USE sp_status sp__dual_parts(sp_level *level, const sp_tensor *t, sp_tensor **value,
                                     sp_tensor **tangent);
/* The same with zeros where there is none. */
SP_MUST_USE sp_status sp__undual(sp_level *level, const sp_tensor *t, sp_tensor **value,
                                 sp_tensor **tangent);

/* ---- jet: x(t) = x + series[0] t + series[1] t^2 + ..., truncated ----- */

/* How many coefficients a tensor of the level carries beside its value: of jvp 1, of grad and vmap
 * 0. */
int sp__level_order(const sp_level *level);
/* x with the level's order of coefficients, each of x's shape and dtype (NULL: zero). */
SP_MUST_USE sp_status sp__series(sp_level *level, const sp_tensor *x,
                                 const sp_tensor *const *series, sp_tensor **out);
/* Value and coefficients (zeros where there are none) one level down. */
SP_MUST_USE sp_status sp__unseries(sp_level *level, const sp_tensor *t, sp_tensor **value,
                                   sp_tensor **series);
/* How often a series was found term by term, because an op's derivative reads its own result and
 * the op has no recurrence: cost of order^3 instead of order^2. */
int64_t sp__jet_fallbacks(void);

/* ---- vmap ----- */

/* x with its dimension `dim` hidden (negative counts from the end): its size must be the level's
 * batch size. */
SP_MUST_USE sp_status sp__vmap_wrap(sp_level *level, const sp_tensor *x, int64_t dim,
                                    sp_tensor **out);
/* t with the mapped dimension back at `dim`; what does not depend on the mapped inputs is expanded.
 */
SP_MUST_USE sp_status sp__vmap_unwrap(sp_level *level, const sp_tensor *t, int64_t dim,
                                      sp_tensor **out);
/* t one level down; EVALUE where its examples differ. */
SP_MUST_USE sp_status sp__vmap_unwrap_same(sp_level *level, const sp_tensor *t, sp_tensor **out);
/* How often vmap had to loop over slices because an op has no rule: this one, or all together. */
int64_t sp__vmap_fallbacks_of(int op);
int64_t sp__vmap_fallbacks(void);
/* Whether each op that does so says so on stderr, once. On by default. */
void sp__vmap_warn(bool on);
/* Every op but views runs slice by slice, as if there were no rules: for tests. */
void sp__vmap_loop_always(bool on);

#endif
