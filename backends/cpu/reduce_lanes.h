/* The inner loops of reductions, for lanes.c: 16 logical lanes on every instruction set.
 *
 * However many lanes a vector has, lane i sums the elements i, i + 16, i + 32, ...; so the bits are
 * the same everywhere.
 */
#ifndef SP_CPU_REDUCE_LANES_H
#define SP_CPU_REDUCE_LANES_H

#include "backends/cpu/lanes.h"
#include "backends/cpu/vec.h"

#define STEP_SUM(x, y)  ((x) + (y))
#define STEP_PROD(x, y) ((x) * (y))
/* NaN wins, from either side; of equal ones x. */
#define STEP_CHOOSE(x, y, before)                                                                  \
    ({                                                                                             \
        __typeof__((x) > (y)) m_ = ((y)before(x)) | ((y) != (y));                                  \
        (__typeof__(x))((m_ & (__typeof__(m_))(y)) | (~m_ & (__typeof__(m_))(x)));                 \
    })
#define STEP_MAX(x, y)    STEP_CHOOSE(x, y, >)
#define STEP_MIN(x, y)    STEP_CHOOSE(x, y, <)
#define SCALAR_SUM(x, y)  ((x) + (y))
#define SCALAR_PROD(x, y) ((x) * (y))
#define SCALAR_MAX(x, y)  ((y) > (x) || (y) != (y) ? (y) : (x))
#define SCALAR_MIN(x, y)  ((y) < (x) || (y) != (y) ? (y) : (x))

/* The same on whole vectors, by the instructions that yield their second operand where one is NaN
 * or both are equal. */
#define DEFINE_CHOICE(T)                                                                           \
    ALWAYS_INLINE V_##T max_step_##T(V_##T x, V_##T y)                                             \
    {                                                                                              \
        typedef V_##T V;                                                                           \
        typedef M_##T M;                                                                           \
        return SELECT(y != y, y, larger_of_##T(y, x));                                             \
    }                                                                                              \
    ALWAYS_INLINE V_##T min_step_##T(V_##T x, V_##T y)                                             \
    {                                                                                              \
        typedef V_##T V;                                                                           \
        typedef M_##T M;                                                                           \
        return SELECT(y != y, y, smaller_of_##T(y, x));                                            \
    }
DEFINE_CHOICE(f32)
DEFINE_CHOICE(f64)

/* What is taken of an element, before the steps. */
#define TAKE_ALL(v)     (v)
#define TAKE_KNOWN(v)   ((__typeof__(v))(((v) == (v)) & (__typeof__((v) == (v)))(v)))
#define SCALAR_ALL(e)   (e)
#define SCALAR_KNOWN(e) ((e) == (e) ? (e) : 0)

/* n < N elements, the other lanes from `none`. */
#define DEFINE_PAD_OR(T)                                                                           \
    ALWAYS_INLINE V_##T pad_or_##T(const void *p, int64_t n, V_##T none)                           \
    {                                                                                              \
        typedef V_##T V;                                                                           \
        typedef M_##T M;                                                                           \
        M lane;                                                                                    \
        for (int i = 0; i < N_##T; i++) lane[i] = i;                                               \
        return SELECT(lane < (M){0} + (int)n, pad_##T(p, n), none);                                \
    }
DEFINE_PAD_OR(f32)
DEFINE_PAD_OR(f64)
DEFINE_PAD_OR(i64)

/* Vectors of 8, 4 and 2 elements, for the last steps. */
#define DEFINE_HALVES(T, element)                                                                  \
    typedef VECTOR(element, 8 * sizeof(element)) H8_E_##T;                                         \
    typedef VECTOR(element, 4 * sizeof(element)) H4_E_##T;                                         \
    typedef VECTOR(element, 2 * sizeof(element)) H2_E_##T;
DEFINE_HALVES(f32, float)
DEFINE_HALVES(f64, double)
DEFINE_HALVES(i64, int64_t)
DEFINE_HALVES(u64, uint64_t)

/* C, V: element and vector type to compute in (unsigned for sums and products of integers, which
 * wrap). TAKE, TAKE_ONE: what is made of an element first. STEP is for whole vectors, HALF_STEP for
 * any. */
#define DEFINE_REDUCE(name, T, C, V, TAKE, TAKE_ONE, STEP, HALF_STEP, SCALAR, identity)            \
    enum { name##_VECTORS_##T = SP_REDUCE_LANES / N_##T };                                         \
    static void block_##name##_##T(const void *p, int64_t n, void *lane)                           \
    {                                                                                              \
        enum { VECTORS = name##_VECTORS_##T };                                                     \
        const V none = (V)splat_##T((E_##T)(identity));                                            \
        V acc[VECTORS];                                                                            \
        const char *at = p;                                                                        \
        for (int j = 0; j < VECTORS; j++) acc[j] = none;                                           \
        for (int64_t i = n / SP_REDUCE_LANES; i > 0; i--) {                                        \
            for (int j = 0; j < VECTORS; j++, at += VB)                                            \
                acc[j] = STEP(acc[j], TAKE((V)load_##T(at)));                                      \
        }                                                                                          \
        int64_t rest = n % SP_REDUCE_LANES;                                                        \
        for (int j = 0; j < VECTORS && rest > 0; j++, at += VB, rest -= N_##T) {                   \
            if (rest >= N_##T)                                                                     \
                acc[j] = STEP(acc[j], TAKE((V)load_##T(at)));                                      \
            else                                                                                   \
                acc[j] = STEP(acc[j], TAKE((V)pad_or_##T(at, rest, (V_##T)none)));                 \
        }                                                                                          \
        memcpy(lane, acc, sizeof acc);                                                             \
    }                                                                                              \
    /* Several blocks and what their results combine to. One after the other: memory is read as    \
     * one stream, and the steps of a block need not wait for those of the one before. */          \
    static void blocks_##name##_##T(const void *p, void *lane)                                     \
    {                                                                                              \
        enum { VECTORS = name##_VECTORS_##T };                                                     \
        const V none = (V)splat_##T((E_##T)(identity));                                            \
        V acc[SP_REDUCE_TOGETHER][VECTORS];                                                        \
        const char *at = p;                                                                        \
        for (int b = 0; b < SP_REDUCE_TOGETHER; b++) {                                             \
            for (int j = 0; j < VECTORS; j++) acc[b][j] = none;                                    \
            for (int i = 0; i < SP_REDUCE_BLOCK / SP_REDUCE_LANES; i++, at += VECTORS * VB)        \
                for (int j = 0; j < VECTORS; j++)                                                  \
                    acc[b][j] = STEP(acc[b][j], TAKE((V)load_##T(at + j * VB)));                   \
        }                                                                                          \
        for (int w = 1; w < SP_REDUCE_TOGETHER; w *= 2)                                            \
            for (int b = 0; b < SP_REDUCE_TOGETHER; b += 2 * w)                                    \
                for (int j = 0; j < VECTORS; j++) acc[b][j] = STEP(acc[b][j], acc[b + w][j]);      \
        memcpy(lane, acc[0], sizeof acc[0]);                                                       \
    }                                                                                              \
    static void combine_##name##_##T(void *lane, const void *other, int64_t n)                     \
    {                                                                                              \
        C *x = lane;                                                                               \
        const C *y = other;                                                                        \
        for (; n >= N_##T; n -= N_##T, x += N_##T, y += N_##T) {                                   \
            V v = STEP((V)load_##T(x), (V)load_##T(y));                                            \
            memcpy(x, &v, sizeof v);                                                               \
        }                                                                                          \
        for (int64_t i = 0; i < n; i++) x[i] = SCALAR(x[i], y[i]);                                 \
    }                                                                                              \
    static void finish_##name##_##T(const void *lane, void *out)                                   \
    {                                                                                              \
        H8_##C a, b;                                                                               \
        memcpy(&a, lane, sizeof a);                                                                \
        memcpy(&b, (const char *)lane + sizeof a, sizeof b);                                       \
        a = HALF_STEP(a, b);                                                                       \
        H4_##C low4 = __builtin_shufflevector(a, a, 0, 1, 2, 3),                                   \
               high4 = __builtin_shufflevector(a, a, 4, 5, 6, 7);                                  \
        H4_##C c = HALF_STEP(low4, high4);                                                         \
        H2_##C low2 = __builtin_shufflevector(c, c, 0, 1),                                         \
               high2 = __builtin_shufflevector(c, c, 2, 3);                                        \
        H2_##C d = HALF_STEP(low2, high2);                                                         \
        C e = SCALAR(d[0], d[1]);                                                                  \
        memcpy(out, &e, sizeof e);                                                                 \
    }                                                                                              \
    static void tree_##name##_##T(const void *p, int64_t n, void *lane)                            \
    {                                                                                              \
        if (n <= SP_REDUCE_BLOCK) {                                                                \
            block_##name##_##T(p, n, lane);                                                        \
            return;                                                                                \
        }                                                                                          \
        enum { TOGETHER = SP_REDUCE_TOGETHER * SP_REDUCE_BLOCK };                                  \
        C level[SP_REDUCE_LEVELS][SP_REDUCE_LANES];                                                \
        int top = 0;                                                                               \
        const char *at = p;                                                                        \
        int64_t count = 0;                                                                         \
        do {                                                                                       \
            int64_t length = n < SP_REDUCE_BLOCK ? n : SP_REDUCE_BLOCK, done = 1;                  \
            if (n >= TOGETHER)                                                                     \
                blocks_##name##_##T(at, level[top++]), length = TOGETHER,                          \
                                                       done = SP_REDUCE_TOGETHER;                  \
            else                                                                                   \
                block_##name##_##T(at, length, level[top++]);                                      \
            at += length * (int64_t)sizeof(C), n -= length, count += done;                         \
            for (int64_t m = count / done; (m & 1) == 0; m >>= 1, top--)                           \
                combine_##name##_##T(level[top - 2], level[top - 1], SP_REDUCE_LANES);             \
        } while (n > 0);                                                                           \
        for (; top > 1; top--)                                                                     \
            combine_##name##_##T(level[top - 2], level[top - 1], SP_REDUCE_LANES);                 \
        memcpy(lane, level[0], sizeof level[0]);                                                   \
    }                                                                                              \
    static void columns_##name##_##T(const void *const *row, int n_row, int64_t n, void *out)      \
    {                                                                                              \
        C *to = out;                                                                               \
        int64_t j = 0;                                                                             \
        for (; j + N_##T <= n; j += N_##T) {                                                       \
            V acc = TAKE((V)load_##T((const C *)row[0] + j));                                      \
            for (int r = 1; r < n_row; r++)                                                        \
                acc = STEP(acc, TAKE((V)load_##T((const C *)row[r] + j)));                         \
            memcpy(to + j, &acc, sizeof acc);                                                      \
        }                                                                                          \
        for (; j < n; j++) {                                                                       \
            C acc = TAKE_ONE(((const C *)row[0])[j]);                                              \
            for (int r = 1; r < n_row; r++) acc = SCALAR(acc, TAKE_ONE(((const C *)row[r])[j]));   \
            to[j] = acc;                                                                           \
        }                                                                                          \
    }

#define DEFINE_PLAIN(name, T, C, V, STEP, SCALAR, identity)                                        \
    DEFINE_REDUCE(name, T, C, V, TAKE_ALL, SCALAR_ALL, STEP, STEP, SCALAR, identity)
#define DEFINE_NANSUM(T)                                                                           \
    DEFINE_REDUCE(nansum, T, E_##T, V_##T, TAKE_KNOWN, SCALAR_KNOWN, STEP_SUM, STEP_SUM,           \
                  SCALAR_SUM, 0)
#define DEFINE_EXTREME(name, T, STEP, SCALAR, identity)                                            \
    DEFINE_REDUCE(name, T, E_##T, V_##T, TAKE_ALL, SCALAR_ALL, name##_step_##T, STEP, SCALAR,      \
                  identity)

enum {
    SP_REDUCE_LEVELS = 56, /* of a cascade: more elements than that do not fit into an address
                              space */
    SP_REDUCE_TOGETHER = 4 /* blocks; a power of two */
};

DEFINE_PLAIN(sum, f32, E_f32, V_f32, STEP_SUM, SCALAR_SUM, 0)
DEFINE_PLAIN(sum, f64, E_f64, V_f64, STEP_SUM, SCALAR_SUM, 0)
DEFINE_PLAIN(sum, i64, E_u64, V_u64, STEP_SUM, SCALAR_SUM, 0)
DEFINE_NANSUM(f32)
DEFINE_NANSUM(f64)
DEFINE_EXTREME(max, f32, STEP_MAX, SCALAR_MAX, -__builtin_inff())
DEFINE_EXTREME(max, f64, STEP_MAX, SCALAR_MAX, -__builtin_inf())
DEFINE_PLAIN(max, i64, E_i64, V_i64, STEP_MAX, SCALAR_MAX, INT64_MIN)
DEFINE_EXTREME(min, f32, STEP_MIN, SCALAR_MIN, __builtin_inff())
DEFINE_EXTREME(min, f64, STEP_MIN, SCALAR_MIN, __builtin_inf())
DEFINE_PLAIN(min, i64, E_i64, V_i64, STEP_MIN, SCALAR_MIN, INT64_MAX)
DEFINE_PLAIN(prod, f32, E_f32, V_f32, STEP_PROD, SCALAR_PROD, 1)
DEFINE_PLAIN(prod, f64, E_f64, V_f64, STEP_PROD, SCALAR_PROD, 1)
DEFINE_PLAIN(prod, i64, E_u64, V_u64, STEP_PROD, SCALAR_PROD, 1)

/* ---- counts: whole numbers, so that no order matters; all in lane 0 ----- */

/* Masks are counted in lanes of the elements' size, a stretch that does not overflow bytes. */
#define DEFINE_COUNT(T)                                                                            \
    static int64_t count_of_##T(const void *p, int64_t n)                                          \
    {                                                                                              \
        enum { STRETCH = 127 * N_##T };                                                            \
        const E_##T *x = p;                                                                        \
        int64_t total = 0;                                                                         \
        while (n >= N_##T) {                                                                       \
            int64_t length = (n < STRETCH ? n : STRETCH) / N_##T * N_##T;                          \
            M_##T hits = {0};                                                                      \
            for (int64_t i = 0; i < length; i += N_##T) hits += load_##T(x + i) != 0;              \
            for (int j = 0; j < N_##T; j++) total -= hits[j];                                      \
            x += length, n -= length;                                                              \
        }                                                                                          \
        for (int64_t i = 0; i < n; i++) total += x[i] != 0;                                        \
        return total;                                                                              \
    }                                                                                              \
    static void count_tree_##T(const void *p, int64_t n, void *lane)                               \
    {                                                                                              \
        int64_t all[SP_REDUCE_LANES] = {count_of_##T(p, n)};                                       \
        memcpy(lane, all, sizeof all);                                                             \
    }                                                                                              \
    static void count_columns_##T(const void *const *row, int n_row, int64_t n, void *out)         \
    {                                                                                              \
        int64_t *to = out, j = 0;                                                                  \
        for (; j + N_##T <= n; j += N_##T) {                                                       \
            M_##T hits = {0};                                                                      \
            for (int r = 0; r < n_row; r++) hits += load_##T((const E_##T *)row[r] + j) != 0;      \
            for (int k = 0; k < N_##T; k++) to[j + k] = -(int64_t)hits[k];                         \
        }                                                                                          \
        for (; j < n; j++) {                                                                       \
            to[j] = 0;                                                                             \
            for (int r = 0; r < n_row; r++) to[j] += ((const E_##T *)row[r])[j] != 0;              \
        }                                                                                          \
    }
DEFINE_COUNT(b8)
DEFINE_COUNT(f32)
DEFINE_COUNT(f64)
DEFINE_COUNT(i64)

#define REDUCE_ROW(name, T)                                                                        \
    {                                                                                              \
        block_##name##_##T, combine_##name##_##T, finish_##name##_##T, tree_##name##_##T,          \
            columns_##name##_##T                                                                   \
    }
#define REDUCE_ROWS(name)                                                                          \
    {                                                                                              \
        [SP_FLOAT32] = REDUCE_ROW(name, f32), [SP_FLOAT64] = REDUCE_ROW(name, f64),                \
        [SP_INT64] = REDUCE_ROW(name, i64)                                                         \
    }
#define REDUCE_ROWS_NANSUM                                                                         \
    {                                                                                              \
        [SP_FLOAT32] = REDUCE_ROW(nansum, f32), [SP_FLOAT64] = REDUCE_ROW(nansum, f64)             \
    }
#define COUNT_ROW(T)                                                                               \
    {                                                                                              \
        count_tree_##T, combine_sum_i64, finish_sum_i64, count_tree_##T, count_columns_##T         \
    }
#define REDUCE_ROWS_COUNT                                                                          \
    {                                                                                              \
        [SP_BOOL] = COUNT_ROW(b8), [SP_FLOAT32] = COUNT_ROW(f32), [SP_FLOAT64] = COUNT_ROW(f64),   \
        [SP_INT64] = COUNT_ROW(i64)                                                                \
    }

#endif
