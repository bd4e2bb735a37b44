/* Kernels on complex numbers by kernels on their parts.
 */
#ifndef SP_CPU_PARTS_H
#define SP_CPU_PARTS_H

#include "tensor/backend.h"

/* Runs a kernel of one output and one input, whose first attribute is one dimension or several
 * (absent: all), on operands with their parts as a further, last dimension. Both are of one complex
 * dtype. */
SP_MUST_USE sp_status sp__cpu_by_parts(sp_kernel kernel, const sp_kargs *args);

#endif
