/* The inner loop of cdist: sums, over a stretch of columns, of what differences contribute.
 *
 * A tile is a few rows of x by SP_DISTANCE_TILE rows of y, the latter packed side by side: element
 * j of column q at y[q * SP_DISTANCE_TILE + j]. Each sum goes over its columns in order, whatever
 * tile it is computed in; sums of squares by fused multiply-adds where the instruction set has
 * them.
 */
#ifndef SP_CPU_LANES_DISTANCE_H
#define SP_CPU_LANES_DISTANCE_H

#include "backends/cpu/lanes_math.h"
#include "backends/cpu/reduce_lanes.h"

/* What `d`, a difference, adds to a sum; p: the exponent. */
#define DEFINE_APART(T, MUL_ADD)                                                                   \
    ALWAYS_INLINE V_##T apart_square_##T(V_##T sum, V_##T d, V_##T p)                              \
    {                                                                                              \
        (void)p;                                                                                   \
        return MUL_ADD(d, d, sum);                                                                 \
    }                                                                                              \
    ALWAYS_INLINE V_##T apart_size_##T(V_##T sum, V_##T d, V_##T p)                                \
    {                                                                                              \
        (void)p;                                                                                   \
        return sum + ABS(d);                                                                       \
    }                                                                                              \
    ALWAYS_INLINE V_##T apart_count_##T(V_##T sum, V_##T d, V_##T p)                               \
    {                                                                                              \
        (void)p;                                                                                   \
        return sum + (V_##T)((M_##T)(d != 0) & (M_##T)splat_##T(1));                               \
    }                                                                                              \
    ALWAYS_INLINE V_##T apart_most_##T(V_##T sum, V_##T d, V_##T p)                                \
    {                                                                                              \
        (void)p;                                                                                   \
        return max_step_##T(sum, ABS(d));                                                          \
    }                                                                                              \
    ALWAYS_INLINE V_##T apart_power_##T(V_##T sum, V_##T d, V_##T p)                               \
    {                                                                                              \
        return sum + pow_of_##T(ABS(d), p);                                                        \
    }

/* ROWS rows of x from x on, x_row elements apart; the first `live` of them are added to to[]. */
#define DEFINE_DISTANCE(T, ROWS)                                                                   \
    ALWAYS_INLINE void distance_tile_##T(const E_##T *x, int64_t x_row, int64_t live,              \
                                         const E_##T *y, int64_t n, double exponent, bool most,    \
                                         double *to, V_##T (*f)(V_##T, V_##T, V_##T))              \
    {                                                                                              \
        enum { WIDE = SP_DISTANCE_TILE / N_##T };                                                  \
        V_##T sum[ROWS][WIDE], p = splat_##T((E_##T)exponent);                                     \
        const E_##T *row[ROWS];                                                                    \
        for (int r = 0; r < ROWS; r++) {                                                           \
            row[r] = x + (r < live ? r : 0) * x_row;                                               \
            for (int v = 0; v < WIDE; v++) sum[r][v] = (V_##T){0};                                 \
        }                                                                                          \
        for (int64_t q = 0; q < n; q++, y += SP_DISTANCE_TILE) {                                   \
            for (int r = 0; r < ROWS; r++) {                                                       \
                V_##T one = splat_##T(row[r][q]);                                                  \
                for (int v = 0; v < WIDE; v++)                                                     \
                    sum[r][v] = f(sum[r][v], one - load_##T(y + v * N_##T), p);                    \
            }                                                                                      \
        }                                                                                          \
        for (int64_t r = 0; r < live; r++, to += SP_DISTANCE_TILE) {                               \
            E_##T part[SP_DISTANCE_TILE];                                                          \
            memcpy(part, sum[r], sizeof part);                                                     \
            for (int j = 0; j < SP_DISTANCE_TILE; j++) {                                           \
                double e = part[j];                                                                \
                to[j] = !most ? to[j] + e : e > to[j] || e != e ? e : to[j];                       \
            }                                                                                      \
        }                                                                                          \
    }                                                                                              \
    static void distance_##T(const void *x_, int64_t x_row, int64_t rows, const void *y,           \
                             int64_t n, double p, double *to)                                      \
    {                                                                                              \
        const E_##T *x = x_;                                                                       \
        for (; rows > 0; rows -= ROWS, x += ROWS * x_row, to += ROWS * SP_DISTANCE_TILE) {         \
            int64_t live = rows < ROWS ? rows : ROWS;                                              \
            if (p == 2)                                                                            \
                distance_tile_##T(x, x_row, live, y, n, p, false, to, apart_square_##T);           \
            else if (p == 1)                                                                       \
                distance_tile_##T(x, x_row, live, y, n, p, false, to, apart_size_##T);             \
            else if (p == 0)                                                                       \
                distance_tile_##T(x, x_row, live, y, n, p, false, to, apart_count_##T);            \
            else if (p == INFINITY)                                                                \
                distance_tile_##T(x, x_row, live, y, n, p, true, to, apart_most_##T);              \
            else                                                                                   \
                distance_tile_##T(x, x_row, live, y, n, p, false, to, apart_power_##T);            \
        }                                                                                          \
    }
DEFINE_APART(f32, MUL_ADD_F32)
DEFINE_APART(f64, MUL_ADD_F64)
/* As many as leave registers for the sums. */
#if VB == 16
DEFINE_DISTANCE(f32, 2)
DEFINE_DISTANCE(f64, 1)
#elif VB == 32
DEFINE_DISTANCE(f32, 4)
DEFINE_DISTANCE(f64, 2)
#else
DEFINE_DISTANCE(f32, 8)
DEFINE_DISTANCE(f64, 8)
#endif

#endif
