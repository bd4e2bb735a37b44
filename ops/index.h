/* What masks have in common, whoever writes them as an index. */
#ifndef SP_INDEX_H
#define SP_INDEX_H

#include "ops/op.h"

/* The positions of a mask's true elements, in row-major order: int64, one dimension. Reads the
 * mask's values. */
SP_API SP_MUST_USE sp_status sp__mask_places(const sp_tensor *mask, sp_tensor **out);

#endif
