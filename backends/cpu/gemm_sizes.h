/* Which products are tiny: a function of the sizes alone, so that a product's bits are, too.
 */
#ifndef SP_CPU_GEMM_SIZES_H
#define SP_CPU_GEMM_SIZES_H

#include <stdbool.h>
#include <stdint.h>

enum {
    SP_GEMM_SMALL_B = 1024
}; /* elements of b, rows padded to 16: they are packed on the stack */

/* Measured against OpenBLAS: the packing of b costs more than it saves for all but the smallest. A
 * b that is neither straight nor transposed would be packed straight for BLAS, and counts as such.
 */
static inline bool sp__gemm_is_small(int64_t m, int64_t n, int64_t k, int64_t b_row,
                                     int64_t b_column)
{
    bool b_transposed = b_row == 1 && b_column != 1;
    if (k > 64 || n > 64 || m > 1024 || (n + 15) / 16 * 16 * k > SP_GEMM_SMALL_B) return false;
    return m * n * k <= (n % 8 == 0 && !b_transposed ? 4096 : 768);
}

#endif
