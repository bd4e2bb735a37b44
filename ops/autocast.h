/* Mixed precision: a level that casts the inputs of ops before they go on.
 *
 *     sp__tls.top -> autocast -> autocast -> vmap #7 -> grad #5 -> (the tape)
 *
 * Invariants
 * 1. Autocast levels stand above all transforms, whenever those were pushed: what a transform or
 *    the tape sees is the casts and the op on what they made, so that gradients are cast back.
 * 2. The topmost one alone decides. Backward runs without any.
 * 3. Only out-of-place calls are touched, and of their inputs floating ones but float64.
 */
#ifndef SP_AUTOCAST_H
#define SP_AUTOCAST_H

#include "ops/dispatch.h"

typedef struct sp_autocast {
    sp_level level; /* first */
    uint8_t dtype;
    bool enabled;
} sp_autocast;

/* dtype: float16 or bfloat16. What enabled = false pushes keeps ops as they are. */
SP_MUST_USE sp_status sp__autocast_push(sp_dtype dtype, bool enabled, sp_autocast **out);
/* Takes it off this thread's stack, wherever it is there. */
void sp__autocast_pop(sp_autocast *a);
/* The one that decides in this thread; NULL: none. */
const sp_autocast *sp__autocast_now(void);
/* Whether the topmost level is one that has a say in this op. */
bool sp__autocast_takes(int op);

#endif
