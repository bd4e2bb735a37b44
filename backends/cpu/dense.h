/* Operands for kernels that want them dense in row-major order: copies where they are not.
 */
#ifndef SP_CPU_DENSE_H
#define SP_CPU_DENSE_H

#include "tensor/backend.h"

typedef struct sp_dense { /* one operand */
    char *data;           /* NULL for an optional one not given */
    char *copy;           /* owned, unless the operand is dense already */
    size_t bytes;
} sp_dense;

/* Dense versions of all operands of a call, outputs unfilled; d has room for n_arg. Ends by
 * sp__dense_end(), on failure too. */
SP_MUST_USE sp_status sp__dense_begin(const sp_kargs *args, sp_dense *d);
/* Brings outputs to their places if all went well, and frees. Returns `status`. */
SP_MUST_USE sp_status sp__dense_end(const sp_kargs *args, sp_dense *d, sp_status status);

#endif
