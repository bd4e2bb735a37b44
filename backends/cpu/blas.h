/* The BLAS libraries, one thread a call: float32 products by oneDNN where it has kernels for the
 * machine's instruction set, the rest by OpenBLAS.
 *
 * oneDNN's sgemm writes c in one pass and packs only what gains from it: on an AVX2 machine (Zen 3,
 * one core, peak 92 GFLOP/s) it takes 45 us for 64 x 128 x 256 and 5.6 us for 64^3 where OpenBLAS
 * 0.3.21 takes 56 and 7.9, and is level from 512^3 on. But an aligned operand whose rows it reads
 * across (x^T on the left, x on the right) stays unpacked, and rows of a power of two of elements
 * then displace one another from the first cache: with 1024 between rows it takes 1.4 to 2 times
 * OpenBLAS's time, with 512 1.1 to 1.5, and x^T alone 1.1 to 1.2 with 128, which the weight of a
 * linear layer 1024 or 128 wide meets at every step: OpenBLAS takes those. Its own threads are
 * never used: they hang in forked children, and its OpenMP spins on cores that others need.
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
