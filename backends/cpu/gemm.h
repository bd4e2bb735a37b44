/* Matrix products: one grid of panels per problem, whoever computes it.
 *
 * Invariants
 * 1. How a product is computed depends on (m, n, k), dtype and which operands are transposed alone:
 *    the tiny kernel, a matrix-vector call, or a grid of panels, each one single-threaded BLAS call
 *    (blas.h). Threads take whole panels.
 * 2. Strides that BLAS cannot take are packed densely first; a transposed view costs nothing.
 * 3. linear(x, w, b) is matmul(x, w^T) + b bit for bit: the bias is added panel by panel by the
 *    vector function of add.
 */
#ifndef SP_CPU_GEMM_H
#define SP_CPU_GEMM_H

#include "tensor/backend.h"

SP_MUST_USE sp_status sp__cpu_matmul(const sp_kargs *args);
SP_MUST_USE sp_status sp__cpu_conj_dot(const sp_kargs *args);
SP_MUST_USE sp_status sp__cpu_linear(const sp_kargs *args);

/* Microseconds of one thread for a product of that many multiply-adds. */
double sp__gemm_predict_us(int dtype, double mnk);

/* Into how many panels (rows of panels, columns of panels) a product is cut. For tests. */
void sp__gemm_grid(int64_t m, int64_t n, int64_t k, int64_t *rows, int64_t *columns);

#endif
