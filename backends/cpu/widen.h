/* Kernels that compute in bool, int64, float32 and float64 alone, given other dtypes. */
#ifndef SP_CPU_WIDEN_H
#define SP_CPU_WIDEN_H

#include "tensor/backend.h"

/* What of an op's operands its kernel takes as they come. */
typedef enum sp_takes {
    SP_TAKES_WIDE, /* bool, int64, float32, float64: the rest is converted before and after */
    SP_TAKES_ANY_BUT_INDEX, /* any dtype; the values of its index must be int64 */
    SP_TAKES_ANY
} sp_takes;

/* Runs the kernel, over converted copies of the operands that it does not take: small integers as
 * int64, halves as float32, each result rounded or wrapped once. */
SP_MUST_USE sp_status sp__cpu_widened(sp_kernel kernel, sp_takes takes, const sp_kargs *args);

#endif
