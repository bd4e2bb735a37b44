/* The kernels that are ops of the table, for each other's use within this folder.
 */
#ifndef SP_CPU_KERNELS_H
#define SP_CPU_KERNELS_H

#include "tensor/backend.h"

#define SP_CPU_KERNEL_FUNCTION(function) SP_MUST_USE sp_status function(const sp_kargs *args);
#include "cpu_kernels_gen.h"

/* In place, the output's bytes are the input's; otherwise copies them there. */
void sp__copy_unless_same(const sp_operand *to, const sp_operand *from);

#endif
