/* What ops read of indices, of masks, and of numbers that decide on a size. */
#ifndef SP_INDEX_H
#define SP_INDEX_H

#include "ops/op.h"

/* Whether all of an index' values are in [low, high), low being at most 0; otherwise *found (unless
 * NULL) is one that is not. */
bool sp__indices_within(const int64_t *p, int rank, const int64_t *shape, const int64_t *stride,
                        int64_t low, int64_t high, int64_t *found);

/* The positions of a mask's true elements, in row-major order: int64, one dimension. Reads the
 * mask's values. */
SP_API SP_MUST_USE sp_status sp__mask_places(const sp_tensor *mask, sp_tensor **out);

/* The same as a list of *n, in memory of so many numbers that the caller frees. */
SP_MUST_USE sp_status sp__mask_list(const sp_tensor *mask, int64_t **places, int64_t *n);

/* EUNSUPPORTED in `op`'s name where t is mapped by vmap, so that its values, which decide on a
 * size, differ from example to example; `instead` says what to do. */
SP_API SP_MUST_USE sp_status sp__check_readable(const char *op, const sp_tensor *t,
                                                const char *instead);

/* The value of a tensor of one element, also inside jvp and grad, where it is that of the primal.
 */
SP_API SP_MUST_USE sp_status sp__read_number(const sp_tensor *t, sp_scalar *out);

#endif
