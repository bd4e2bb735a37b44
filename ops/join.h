/* What joining ops share with their kernels. */
#ifndef SP_JOIN_H
#define SP_JOIN_H

#include "ops/op.h"

/* cat leaves such a tensor out, as PyTorch does: (0,) was its empty tensor before there were
 * shapes with zeros in them. */
bool sp__cat_skips(int rank, const int64_t *shape);

#endif
