/* The inner loops of sums and products of complex numbers, for lanes.c: the tree of reduce.h over
 * numbers of two parts, 16 lanes of them.
 */
#ifndef SP_CPU_REDUCE_PAIRS_H
#define SP_CPU_REDUCE_PAIRS_H

#include "backends/cpu/lanes_complex_math.h"
#include "backends/cpu/reduce_lanes.h"

#define DEFINE_PAIR_STEPS(T)                                                                       \
    ALWAYS_INLINE V_##T step_sum_##T(V_##T x, V_##T y)                                             \
    {                                                                                              \
        return (V_##T){x.low + y.low, x.high + y.high};                                            \
    }                                                                                              \
    ALWAYS_INLINE V_##T step_prod_##T(V_##T x, V_##T y)                                            \
    {                                                                                              \
        return pairs_##T(times_##T(parts_##T(x), parts_##T(y)));                                   \
    }
DEFINE_PAIR_STEPS(c64)
DEFINE_PAIR_STEPS(c128)

/* identity: a real number. */
#define DEFINE_REDUCE_PAIRS(name, T, S, identity)                                                  \
    static void block_##name##_##T(const void *p, int64_t n, void *lane)                           \
    {                                                                                              \
        enum { VECTORS = SP_REDUCE_LANES / N_##T, SIZE = sizeof(E_##T) };                          \
        const E_##S number[2] = {identity, 0};                                                     \
        const V_##T none = splat_at_##T(number);                                                   \
        V_##T acc[VECTORS];                                                                        \
        const char *at = p;                                                                        \
        for (int j = 0; j < VECTORS; j++) acc[j] = none;                                           \
        for (; n >= SP_REDUCE_LANES; n -= SP_REDUCE_LANES) {                                       \
            for (int j = 0; j < VECTORS; j++, at += sizeof none)                                   \
                acc[j] = step_##name##_##T(acc[j], load_##T(at));                                  \
        }                                                                                          \
        for (int j = 0; j < VECTORS && n > 0; j++, at += sizeof none, n -= N_##T) {                \
            V_##T last = none;                                                                     \
            memcpy(&last, at, (size_t)(n < N_##T ? n : N_##T) * SIZE);                             \
            acc[j] = step_##name##_##T(acc[j], last);                                              \
        }                                                                                          \
        memcpy(lane, acc, sizeof acc);                                                             \
    }                                                                                              \
    static void combine_##name##_##T(void *lane, const void *other, int64_t n)                     \
    {                                                                                              \
        E_##T *x = lane;                                                                           \
        const E_##T *y = other;                                                                    \
        for (; n >= N_##T; n -= N_##T, x += N_##T, y += N_##T)                                     \
            store_##T(x, step_##name##_##T(load_##T(x), load_##T(y)));                             \
        if (n > 0) store_some_##T(x, step_##name##_##T(pad_##T(x, n), pad_##T(y, n)), n);          \
    }                                                                                              \
    static void finish_##name##_##T(const void *lane, void *out)                                   \
    {                                                                                              \
        E_##T half[SP_REDUCE_LANES];                                                               \
        memcpy(half, lane, sizeof half);                                                           \
        for (int n = SP_REDUCE_LANES / 2; n > 0; n /= 2) combine_##name##_##T(half, half + n, n);  \
        memcpy(out, half, sizeof *half);                                                           \
    }                                                                                              \
    static void tree_##name##_##T(const void *p, int64_t n, void *lane)                            \
    {                                                                                              \
        E_##T level[SP_REDUCE_LEVELS][SP_REDUCE_LANES];                                            \
        const char *at = p;                                                                        \
        int64_t count = 0;                                                                         \
        int top = 0;                                                                               \
        do {                                                                                       \
            int64_t length = n < SP_REDUCE_BLOCK ? n : SP_REDUCE_BLOCK;                            \
            block_##name##_##T(at, length, level[top++]);                                          \
            at += length * (int64_t)sizeof(E_##T), n -= length;                                    \
            for (int64_t m = ++count; (m & 1) == 0; m >>= 1, top--)                                \
                combine_##name##_##T(level[top - 2], level[top - 1], SP_REDUCE_LANES);             \
        } while (n > 0);                                                                           \
        for (; top > 1; top--)                                                                     \
            combine_##name##_##T(level[top - 2], level[top - 1], SP_REDUCE_LANES);                 \
        memcpy(lane, level[0], sizeof level[0]);                                                   \
    }                                                                                              \
    static void columns_##name##_##T(const void *const *row, int n_row, int64_t n, void *out)      \
    {                                                                                              \
        E_##T *to = out;                                                                           \
        int64_t j = 0;                                                                             \
        for (; j + N_##T <= n; j += N_##T) {                                                       \
            V_##T acc = load_##T((const E_##T *)row[0] + j);                                       \
            for (int r = 1; r < n_row; r++)                                                        \
                acc = step_##name##_##T(acc, load_##T((const E_##T *)row[r] + j));                 \
            store_##T(to + j, acc);                                                                \
        }                                                                                          \
        if (j == n) return;                                                                        \
        V_##T acc = pad_##T((const E_##T *)row[0] + j, n - j);                                     \
        for (int r = 1; r < n_row; r++)                                                            \
            acc = step_##name##_##T(acc, pad_##T((const E_##T *)row[r] + j, n - j));               \
        store_some_##T(to + j, acc, n - j);                                                        \
    }
DEFINE_REDUCE_PAIRS(sum, c64, f32, 0)
DEFINE_REDUCE_PAIRS(sum, c128, f64, 0)
DEFINE_REDUCE_PAIRS(prod, c64, f32, 1)
DEFINE_REDUCE_PAIRS(prod, c128, f64, 1)

/* ---- dot products ----- */

enum { SP_DOT_BLOCK = 512 };

/* The sum of a[i] b[i], or of a[i]'s conjugates times b[i], in complex128, in as many lanes as sums
 * have: blocks of a fixed length in the dtype itself, their lanes added up in complex128. */
#define DEFINE_DOT(T, S)                                                                           \
    ALWAYS_INLINE P_##T dot_step_##T(P_##T sum, V_##T x_, V_##T y, M_##S sign)                     \
    {                                                                                              \
        P_##T x = parts_##T(x_);                                                                   \
        x.im = (V_##S)((M_##S)x.im ^ sign);                                                        \
        P_##T z = times_##T(x, parts_##T(y));                                                      \
        return (P_##T){sum.re + z.re, sum.im + z.im};                                              \
    }                                                                                              \
    ALWAYS_INLINE void dot_block_##T(const char *x, const char *y, int64_t n, M_##S sign,          \
                                     V_##T *lane)                                                  \
    {                                                                                              \
        enum { VECTORS = SP_REDUCE_LANES / N_##T, STEP = sizeof(V_##T) };                          \
        P_##T acc[VECTORS];                                                                        \
        for (int j = 0; j < VECTORS; j++) acc[j] = (P_##T){{0}, {0}};                              \
        for (; n >= SP_REDUCE_LANES; n -= SP_REDUCE_LANES) {                                       \
            for (int j = 0; j < VECTORS; j++, x += STEP, y += STEP)                                \
                acc[j] = dot_step_##T(acc[j], load_##T(x), load_##T(y), sign);                     \
        }                                                                                          \
        for (int j = 0; j < VECTORS && n > 0; j++, x += STEP, y += STEP, n -= N_##T) {             \
            int64_t some = n < N_##T ? n : N_##T;                                                  \
            acc[j] = dot_step_##T(acc[j], pad_##T(x, some), pad_##T(y, some), sign);               \
        }                                                                                          \
        for (int j = 0; j < VECTORS; j++) lane[j] = pairs_##T(acc[j]);                             \
    }                                                                                              \
    static void dot_##T(const void *a, const void *b, int64_t n, bool conjugate, void *sum)        \
    {                                                                                              \
        enum { PARTS = 2 * SP_REDUCE_LANES, BYTES = SP_DOT_BLOCK * sizeof(E_##T) };                \
        const M_##S sign = (M_##S)splat_##S(conjugate ? -0.0f : 0.0f);                             \
        const char *x = a, *y = b;                                                                 \
        double total[PARTS] = {0};                                                                 \
        for (; n > 0; n -= SP_DOT_BLOCK, x += BYTES, y += BYTES) {                                 \
            E_##S part[PARTS];                                                                     \
            V_##T lane[SP_REDUCE_LANES / N_##T];                                                   \
            dot_block_##T(x, y, n < SP_DOT_BLOCK ? n : SP_DOT_BLOCK, sign, lane);                  \
            memcpy(part, lane, sizeof part);                                                       \
            for (int i = 0; i < PARTS; i++) total[i] += part[i];                                   \
        }                                                                                          \
        finish_sum_c128(total, sum);                                                               \
    }
DEFINE_DOT(c64, f32)
DEFINE_DOT(c128, f64)

/* Of all numbers that have sums and products. */
#define REDUCE_ROWS_PAIRS(name)                                                                    \
    {                                                                                              \
        [SP_FLOAT32] = REDUCE_ROW(name, f32), [SP_FLOAT64] = REDUCE_ROW(name, f64),                \
        [SP_INT64] = REDUCE_ROW(name, i64), [SP_COMPLEX64] = REDUCE_ROW(name, c64),                \
        [SP_COMPLEX128] = REDUCE_ROW(name, c128)                                                   \
    }

#endif
