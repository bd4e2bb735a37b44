/* Copies between geometries, and the ops that are nothing else.
 */
#ifndef SP_CPU_COPY_H
#define SP_CPU_COPY_H

#include "tensor/backend.h"

/* to[i] = from[i] for operands of equal shape and dtype that do not overlap; transposed ones go
 * block by block. */
void sp__copy_strided(const sp_operand *to, const sp_operand *from);

#endif
