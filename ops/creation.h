/* What inference and kernels of tril_indices and triu_indices share. */
#ifndef SP_CREATION_H
#define SP_CREATION_H

#include "ops/op.h"

/* The first column of a row that is in the upper triangle, or the first behind the lower one. */
int64_t sp__triangle_start(const sp_attr *attr, bool upper, int64_t row);

#endif
