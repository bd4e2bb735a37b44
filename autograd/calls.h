/* Calls of ops that the tape and the transforms make themselves, beyond what the generated
 * functions say in one line. */
#ifndef SP_CALLS_H
#define SP_CALLS_H

#include "ops/dispatch.h"
#include "ops_gen.h"

/* A new tensor of t's shape, dtype and device, full of value. */
SP_MUST_USE sp_status sp__call_full_like(const sp_tensor *t, double value, sp_tensor **out);
/* t.fill_(value) */
SP_MUST_USE sp_status sp__call_fill_(sp_tensor *t, double value);
/* t with dimension `from` moved to `to`, both in range. */
SP_MUST_USE sp_status sp__call_move_dim(const sp_tensor *t, int from, int to, sp_tensor **out);
/* t with `n` dimensions of size 1 put in before dimension `at`. */
SP_MUST_USE sp_status sp__call_unsqueeze_n(const sp_tensor *t, int at, int n, sp_tensor **out);

#endif
