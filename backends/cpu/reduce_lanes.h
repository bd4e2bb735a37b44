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
/* NaN wins, from either side. */
#define STEP_CHOOSE(x, y, before)                                                                  \
    ({                                                                                             \
        __typeof__((x) > (y)) m_ = ((x)before(y)) | ((x) != (x));                                  \
        (__typeof__(x))((m_ & (__typeof__(m_))(x)) | (~m_ & (__typeof__(m_))(y)));                 \
    })
#define STEP_MAX(x, y)    STEP_CHOOSE(x, y, >)
#define STEP_MIN(x, y)    STEP_CHOOSE(x, y, <)
#define SCALAR_SUM(x, y)  ((x) + (y))
#define SCALAR_PROD(x, y) ((x) * (y))
#define SCALAR_MAX(x, y)  ((x) > (y) || (x) != (x) ? (x) : (y))
#define SCALAR_MIN(x, y)  ((x) < (y) || (x) != (x) ? (x) : (y))

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
 * wrap). */
#define DEFINE_REDUCE(name, T, C, V, STEP, SCALAR, identity)                                       \
    static void block_##name##_##T(const void *p, int64_t n, void *lane)                           \
    {                                                                                              \
        enum { VECTORS = SP_REDUCE_LANES / N_##T };                                                \
        const V none = (V)splat_##T((E_##T)(identity));                                            \
        V acc[VECTORS];                                                                            \
        const char *at = p;                                                                        \
        for (int j = 0; j < VECTORS; j++) acc[j] = none;                                           \
        for (int64_t i = n / SP_REDUCE_LANES; i > 0; i--) {                                        \
            for (int j = 0; j < VECTORS; j++, at += VB) acc[j] = STEP(acc[j], (V)load_##T(at));    \
        }                                                                                          \
        int64_t rest = n % SP_REDUCE_LANES;                                                        \
        for (int j = 0; j < VECTORS && rest > 0; j++, at += VB, rest -= N_##T) {                   \
            if (rest >= N_##T)                                                                     \
                acc[j] = STEP(acc[j], (V)load_##T(at));                                            \
            else                                                                                   \
                acc[j] = STEP(acc[j], (V)pad_or_##T(at, rest, (V_##T)none));                       \
        }                                                                                          \
        memcpy(lane, acc, sizeof acc);                                                             \
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
        a = STEP(a, b);                                                                            \
        H4_##C low4 = __builtin_shufflevector(a, a, 0, 1, 2, 3),                                   \
               high4 = __builtin_shufflevector(a, a, 4, 5, 6, 7);                                  \
        H4_##C c = STEP(low4, high4);                                                              \
        H2_##C low2 = __builtin_shufflevector(c, c, 0, 1),                                         \
               high2 = __builtin_shufflevector(c, c, 2, 3);                                        \
        H2_##C d = STEP(low2, high2);                                                              \
        C e = SCALAR(d[0], d[1]);                                                                  \
        memcpy(out, &e, sizeof e);                                                                 \
    }                                                                                              \
    static void tree_##name##_##T(const void *p, int64_t n, void *lane)                            \
    {                                                                                              \
        if (n <= SP_REDUCE_BLOCK) {                                                                \
            block_##name##_##T(p, n, lane);                                                        \
            return;                                                                                \
        }                                                                                          \
        C level[SP_REDUCE_LEVELS][SP_REDUCE_LANES];                                                \
        int top = 0;                                                                               \
        const char *at = p;                                                                        \
        int64_t count = 0;                                                                         \
        do {                                                                                       \
            int64_t length = n < SP_REDUCE_BLOCK ? n : SP_REDUCE_BLOCK;                            \
            block_##name##_##T(at, length, level[top++]);                                          \
            at += length * (int64_t)sizeof(C), n -= length;                                        \
            for (int64_t m = ++count; (m & 1) == 0; m >>= 1, top--)                                \
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
            V acc = (V)load_##T((const C *)row[0] + j);                                            \
            for (int r = 1; r < n_row; r++) acc = STEP(acc, (V)load_##T((const C *)row[r] + j));   \
            memcpy(to + j, &acc, sizeof acc);                                                      \
        }                                                                                          \
        for (; j < n; j++) {                                                                       \
            C acc = ((const C *)row[0])[j];                                                        \
            for (int r = 1; r < n_row; r++) acc = SCALAR(acc, ((const C *)row[r])[j]);             \
            to[j] = acc;                                                                           \
        }                                                                                          \
    }

enum {
    SP_REDUCE_LEVELS = 56
}; /* of a cascade: more elements than that do not fit into an address space */

DEFINE_REDUCE(sum, f32, E_f32, V_f32, STEP_SUM, SCALAR_SUM, 0)
DEFINE_REDUCE(sum, f64, E_f64, V_f64, STEP_SUM, SCALAR_SUM, 0)
DEFINE_REDUCE(sum, i64, E_u64, V_u64, STEP_SUM, SCALAR_SUM, 0)
DEFINE_REDUCE(max, f32, E_f32, V_f32, STEP_MAX, SCALAR_MAX, -__builtin_inff())
DEFINE_REDUCE(max, f64, E_f64, V_f64, STEP_MAX, SCALAR_MAX, -__builtin_inf())
DEFINE_REDUCE(max, i64, E_i64, V_i64, STEP_MAX, SCALAR_MAX, INT64_MIN)
DEFINE_REDUCE(min, f32, E_f32, V_f32, STEP_MIN, SCALAR_MIN, __builtin_inff())
DEFINE_REDUCE(min, f64, E_f64, V_f64, STEP_MIN, SCALAR_MIN, __builtin_inf())
DEFINE_REDUCE(min, i64, E_i64, V_i64, STEP_MIN, SCALAR_MIN, INT64_MAX)
DEFINE_REDUCE(prod, f32, E_f32, V_f32, STEP_PROD, SCALAR_PROD, 1)
DEFINE_REDUCE(prod, f64, E_f64, V_f64, STEP_PROD, SCALAR_PROD, 1)
DEFINE_REDUCE(prod, i64, E_u64, V_u64, STEP_PROD, SCALAR_PROD, 1)

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

#endif
