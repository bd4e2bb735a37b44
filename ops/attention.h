/* What the derivative of attention by its mask shares with the op's body.
 */
#ifndef SP_ATTENTION_H
#define SP_ATTENTION_H

#include "ops/op.h"

/* The gradient of the scores (B, H, L, S), by ops, of a call of attention_backward; glse is that of
 * the logsumexp, or NULL. */
SP_MUST_USE sp_status sp__attention_score_gradient(const sp_call *c, const sp_tensor *glse,
                                                   sp_tensor **out);

#endif
