/* One call on tensors that move: values with a tangent each (jvp), or with the Taylor coefficients
 * of a curve (jet), of which a tangent is the first.
 *
 *     t[k * n_in + i]     coefficient k + 1 of input i
 *     ty[k * n_out + j]   coefficient k + 1 of result j
 *
 * so that &t[k * n_in] is one tangent an input.
 *
 * Invariants
 * 1. Values and coefficients are handles from below the level; NULL is zero.
 * 2. A coefficient has the value's shape and dtype.
 * 3. Of results that are not floating, and of inputs that the op has no derivative by, nothing
 * moves.
 */
#ifndef SP_FORWARD_INT_H
#define SP_FORWARD_INT_H

#include "autograd/levels_int.h"

typedef struct sp_forward {
    const sp_call *c;
    sp_level *level;
    int order;
    sp_tensor **in; /* values; in place: in[] that are the written tensor are its old value */
    sp_tensor **t;  /* borrowed */
    sp_tensor **ty; /* owned */
    sp_tensor *out[SP_MAX_OUT];
    sp_tensor *old;  /* owned: the written tensor's value before */
    uint64_t moving; /* inputs that move */
} sp_forward;

/* t's coefficients, borrowed with its wrap; NULL: it belongs elsewhere, nothing moves. With the
 * level off the stack, as the next. */
SP_MUST_USE sp_status sp__tangents_of(const sp_tensor *t, const sp_level *level,
                                      const sp_wrap **out);
/* x was written and has new tangents, `order` of them: so does what it is a view of, and, at their
 * next look, the other views. */
SP_MUST_USE sp_status sp__tangents_written(const sp_tensor *x, sp_tensor *const *tangents,
                                           int order);

/* Tangents of c's results, as c->n_out new references, from tangents t of its inputs; everything at
 * the top of the stack. c->in and c->out do not count. */
SP_MUST_USE sp_status sp__tangents(const sp_call *c, sp_tensor *const *in, sp_tensor *const *out,
                                   sp_tensor *const *t, sp_tensor **ty);
/* Makes the tangent of the shape and dtype of y; drops it where y is not floating. */
SP_MUST_USE sp_status sp__tangent_fit(const sp_tensor *y, sp_tensor **tangent);

/* f->ty from the rest of f, for a level that is off the stack (jet_level.c). */
SP_MUST_USE sp_status sp__jet_series(sp_forward *f);

/* The recurrence for an op (jet_recurrences.c): fills f->ty; NULL: there is none. */
typedef sp_status (*sp_recurrence)(sp_forward *f);
sp_recurrence sp__jet_recurrence_of(const sp_forward *f);
/* y = x * w where both move, and the op is linear in each. */
SP_MUST_USE sp_status sp__jet_product(sp_forward *f);

#endif
