/* Tiny matrix products, for lanes.c: rows of b times numbers of a, in vectors along n.
 *
 * Every element of c is acc = acc + a[i][p] * b[p][j] for p in order, fused where the instruction
 * set has it, whichever path takes it: so a padded last vector gives the same bits as a full one.
 */
#ifndef SP_CPU_GEMM_SMALL_H
#define SP_CPU_GEMM_SMALL_H

#include "backends/cpu/gemm_sizes.h"
#include "backends/cpu/vec.h"

/* Four rows of c at once, one vector wide: enough independent sums to hide an addition's latency. b
 * is dense here, its rows padded to whole vectors. */
#define DEFINE_GEMM_SMALL(T, MUL_ADD)                                                              \
    ALWAYS_INLINE void gemm_rows_##T(int rows, int64_t k, const E_##T *a, int64_t a_row,           \
                                     int64_t a_col, const E_##T *b, int64_t b_row, V_##T *acc)     \
    {                                                                                              \
        for (int r = 0; r < rows; r++) acc[r] = (V_##T){0};                                        \
        for (int64_t p = 0; p < k; p++) {                                                          \
            V_##T bv = load_##T(b + p * b_row);                                                    \
            for (int r = 0; r < rows; r++)                                                         \
                acc[r] = MUL_ADD(splat_##T(a[r * a_row + p * a_col]), bv, acc[r]);                 \
        }                                                                                          \
    }                                                                                              \
    ALWAYS_INLINE void gemm_store_##T(E_##T *c, int64_t n, int rows, int64_t width,                \
                                      const V_##T *acc)                                            \
    {                                                                                              \
        for (int r = 0; r < rows; r++) {                                                           \
            if (width >= N_##T)                                                                    \
                store_##T(c + r * n, acc[r]);                                                      \
            else                                                                                   \
                store_some_##T(c + r * n, acc[r], width);                                          \
        }                                                                                          \
    }                                                                                              \
    static void gemm_small_##T(int64_t m, int64_t n, int64_t k, const void *a_, int64_t a_row,     \
                               int64_t a_col, const void *b_, int64_t b_row, int64_t b_col,        \
                               void *c_)                                                           \
    {                                                                                              \
        const E_##T *a = a_, *b = b_;                                                              \
        E_##T *c = c_, packed[SP_GEMM_SMALL_B + N_##T];                                            \
        if (b_col != 1 || n % N_##T) {                                                             \
            int64_t width = (n + N_##T - 1) / N_##T * N_##T;                                       \
            for (int64_t p = 0; p < k; p++) {                                                      \
                for (int64_t j = 0; j < n; j++) packed[p * width + j] = b[p * b_row + j * b_col];  \
                for (int64_t j = n; j < width; j++) packed[p * width + j] = 0;                     \
            }                                                                                      \
            b = packed, b_row = width;                                                             \
        }                                                                                          \
        for (int64_t j = 0; j < n; j += N_##T) {                                                   \
            int64_t i = 0;                                                                         \
            V_##T acc[4];                                                                          \
            for (; i + 4 <= m; i += 4) {                                                           \
                gemm_rows_##T(4, k, a + i * a_row, a_row, a_col, b + j, b_row, acc);               \
                gemm_store_##T(c + i * n + j, n, 4, n - j, acc);                                   \
            }                                                                                      \
            for (; i < m; i++) {                                                                   \
                gemm_rows_##T(1, k, a + i * a_row, a_row, a_col, b + j, b_row, acc);               \
                gemm_store_##T(c + i * n + j, n, 1, n - j, acc);                                   \
            }                                                                                      \
        }                                                                                          \
    }
DEFINE_GEMM_SMALL(f32, MUL_ADD_F32)
DEFINE_GEMM_SMALL(f64, MUL_ADD_F64)

#endif
