/* The BLAS libraries, one thread a call: float32 products by oneDNN where it has kernels for the
 * machine's instruction set, the rest by OpenBLAS.
 *
 * oneDNN's sgemm writes c in one pass and packs only what gains from it: on an AVX2 machine (Zen 3,
 * one core, peak 92 GFLOP/s) it takes 45 us for 64 x 128 x 256 and 5.6 us for 64^3 where OpenBLAS
 * 0.3.21 takes 56 and 7.9. But an aligned operand whose rows it reads across (x^T on the left, x on
 * the right) stays unpacked, and rows of a power of two of elements then displace one another from
 * the first cache, which the weight of a linear layer 128, 512 or 1024 wide meets at every step.
 * Such operands are copied first, once for all panels, with rows a cache line longer. GFLOP/s, in
 * panels, as they are | by OpenBLAS, which packs every panel | copied:
 *
 *      x^T y     512 x 128 x 512     56 | 63 | 85      x y     512 x 512 x 128     59 | 67 | 91
 *                128 x 512 x 512     61 | 77 | 85              1024^3              43 | 74 | 89
 *                1024^3              32 | 71 | 75              128 x 512 x 512     64 | 83 | 83
 *
 * OpenBLAS keeps those where the copy is read too few times, or is large: 2048^3 of x^T y runs at
 * 73, copied at 65. oneDNN's kernels for AVX-512 need none of this (Zen 4, one core, peak 118: the
 * products above at 104 to 117 as they are, by OpenBLAS at 91 to 104). OpenBLAS' own threads are
 * never used: they hang in forked children, and oneDNN's OpenMP spins on cores that others need.
 */
#ifndef SP_CPU_BLAS_H
#define SP_CPU_BLAS_H

#include <stdbool.h>
#include <stdint.h>

#include "backends/cpu/pool.h"
#include "spool.h"

typedef struct sp_blas_matrix { /* rows of `leading` elements; transposed: what is stored is x^T */
    const void *data;
    int leading;
    bool transposed;
} sp_blas_matrix;

/* At library start, once. */
void sp__blas_start(void);

/* Lets oneDNN compile its kernels (once; 25 ms), which the first product does otherwise. What it
 * then registers with atexit() frees them again, so what still multiplies at exit is to register
 * itself afterwards. */
void sp__blas_warm(void);

/* Operands of such a product that are to be copied first, to rows SP_BLAS_SPREAD elements longer.
 */
enum { SP_BLAS_SPREAD = 16 };
typedef struct sp_blas_spread {
    bool a, b;
} sp_blas_spread;
sp_blas_spread sp__blas_spread(int dtype, int64_t m, int64_t n, int64_t k, sp_blas_matrix a,
                               sp_blas_matrix b);

/* c[m][n] = a[m][k] b[k][n], float32, float64 or complex; all sizes 1 to INT_MAX - 1. False: no
 * memory to work in. */
SP_MUST_USE bool sp__blas_gemm(int dtype, int m, int n, int k, sp_blas_matrix a, sp_blas_matrix b,
                               void *c, int ldc);

/* sp__pool_for() for loops of products: signals are held back once, rather than at each product. */
void sp__blas_for(int64_t n_chunks, double predicted_us, sp_chunk_fn fn, void *ctx);

/* y[rows] = x[rows][columns] v[columns], float32 or float64. */
void sp__blas_gemv(int dtype, int rows, int columns, sp_blas_matrix x, const void *v, int v_step,
                   void *y, int y_step);

#endif
