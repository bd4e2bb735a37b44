/* From a function of vectors to a lane function over n elements, and from kernel lines to rows of
 * the table.
 *
 * Loops go over whole vectors. What is left over is computed as one more whole vector that ends at
 * the last element; it is loaded before anything is stored, so that it sees the operands as they
 * were, in place too. Fewer elements than a vector has are padded with zeros. So every element goes
 * through the one vector function.
 */
#ifndef SP_CPU_LANES_LOOP_H
#define SP_CPU_LANES_LOOP_H

#include "backends/cpu/lanes.h"
#include "backends/cpu/vec.h"

/* How an operand is walked: `at` moves by `step` bytes a vector; `last` is where its last whole
 * vector starts. */
typedef struct cursor {
    const char *at, *last;
    int64_t step;
} cursor;

/* With a splat, `one` becomes a vector of the element and the cursor stays on it. */
#define CURSOR(T, c, operand, bit, one)                                                            \
    V_##T one;                                                                                     \
    cursor c = {operand, (const char *)(operand) + (n - N_##T) * (int64_t)sizeof(E_##T),           \
                sizeof one};                                                                       \
    if (splat & (bit)) one = splat_at_##T(operand), c = (cursor)                                   \
        {                                                                                          \
            (const char *)&one, (const char *)&one, 0                                              \
        }

#define PUT_BYTES(to, bytes, n) memcpy(to, &bytes, (size_t)(n))

/* R: vector type of the results; PUT stores the first n of them. */
#define DEFINE_LOOPS(T, R, PUT, suffix)                                                            \
    ALWAYS_INLINE void loop1_##suffix(void *dst, const void *a, int64_t n, unsigned splat,         \
                                      R (*f)(V_##T))                                               \
    {                                                                                              \
        enum { SIZE = sizeof(R) / N_##T };                                                         \
        char *d = dst;                                                                             \
        if (n < N_##T) {                                                                           \
            R r = f(splat & 1 ? splat_at_##T(a) : pad_##T(a, n));                                  \
            PUT(d, r, n);                                                                          \
            return;                                                                                \
        }                                                                                          \
        CURSOR(T, x, a, 1, one);                                                                   \
        R last = {0};                                                                              \
        int64_t rest = n % N_##T;                                                                  \
        if (rest) last = f(load_##T(x.last));                                                      \
        for (int64_t i = n / N_##T; i > 0; i--) {                                                  \
            R r = f(load_##T(x.at));                                                               \
            memcpy(d, &r, sizeof r);                                                               \
            x.at += x.step, d += sizeof r;                                                         \
        }                                                                                          \
        if (rest) memcpy(d - (N_##T - rest) * SIZE, &last, sizeof last);                           \
    }                                                                                              \
    ALWAYS_INLINE void loop2_##suffix(void *dst, const void *a, const void *b, int64_t n,          \
                                      unsigned splat, R (*f)(V_##T, V_##T))                        \
    {                                                                                              \
        enum { SIZE = sizeof(R) / N_##T };                                                         \
        char *d = dst;                                                                             \
        if (n < N_##T) {                                                                           \
            R r = f(splat & 1 ? splat_at_##T(a) : pad_##T(a, n),                                   \
                    splat & 2 ? splat_at_##T(b) : pad_##T(b, n));                                  \
            PUT(d, r, n);                                                                          \
            return;                                                                                \
        }                                                                                          \
        CURSOR(T, x, a, 1, one_a);                                                                 \
        CURSOR(T, y, b, 2, one_b);                                                                 \
        R last = {0};                                                                              \
        int64_t rest = n % N_##T;                                                                  \
        if (rest) last = f(load_##T(x.last), load_##T(y.last));                                    \
        for (int64_t i = n / N_##T; i > 0; i--) {                                                  \
            R r = f(load_##T(x.at), load_##T(y.at));                                               \
            memcpy(d, &r, sizeof r);                                                               \
            x.at += x.step, y.at += y.step, d += sizeof r;                                         \
        }                                                                                          \
        if (rest) memcpy(d - (N_##T - rest) * SIZE, &last, sizeof last);                           \
    }
DEFINE_LOOPS(f32, V_f32, store_some_f32, f32)
DEFINE_LOOPS(f64, V_f64, store_some_f64, f64)
DEFINE_LOOPS(i32, V_i32, store_some_i32, i32)
DEFINE_LOOPS(i64, V_i64, store_some_i64, i64)
DEFINE_LOOPS(b8, V_b8, store_some_b8, b8)
DEFINE_LOOPS(f32, B_f32, PUT_BYTES, f32_bool)
DEFINE_LOOPS(f64, B_f64, PUT_BYTES, f64_bool)
DEFINE_LOOPS(i32, B_i32, PUT_BYTES, i32_bool)
DEFINE_LOOPS(i64, B_i64, PUT_BYTES, i64_bool)
DEFINE_LOOPS(b8, B_b8, PUT_BYTES, b8_bool)

#define DEFINE_LOOP3(T)                                                                            \
    ALWAYS_INLINE void loop3_##T(void *dst, const void *a, const void *b, const void *c,           \
                                 int64_t n, unsigned splat, V_##T (*f)(V_##T, V_##T, V_##T))       \
    {                                                                                              \
        enum { SIZE = sizeof(E_##T) };                                                             \
        char *d = dst;                                                                             \
        if (n < N_##T) {                                                                           \
            V_##T r = f(splat & 1 ? splat_at_##T(a) : pad_##T(a, n),                               \
                        splat & 2 ? splat_at_##T(b) : pad_##T(b, n),                               \
                        splat & 4 ? splat_at_##T(c) : pad_##T(c, n));                              \
            store_some_##T(d, r, n);                                                               \
            return;                                                                                \
        }                                                                                          \
        CURSOR(T, x, a, 1, one_a);                                                                 \
        CURSOR(T, y, b, 2, one_b);                                                                 \
        CURSOR(T, z, c, 4, one_c);                                                                 \
        V_##T last = {0};                                                                          \
        int64_t rest = n % N_##T;                                                                  \
        if (rest) last = f(load_##T(x.last), load_##T(y.last), load_##T(z.last));                  \
        for (int64_t i = n / N_##T; i > 0; i--) {                                                  \
            store_##T(d, f(load_##T(x.at), load_##T(y.at), load_##T(z.at)));                       \
            x.at += x.step, y.at += y.step, z.at += z.step, d += sizeof one_a;                     \
        }                                                                                          \
        if (rest) store_##T(d - (N_##T - rest) * SIZE, last);                                      \
    }
DEFINE_LOOP3(f32)
DEFINE_LOOP3(f64)
DEFINE_LOOP3(i32)
DEFINE_LOOP3(i64)
DEFINE_LOOP3(b8)

/* ---- one function of one dtype ----- */
/* C: the type operands are computed as, unsigned where integers shall wrap. */

#define LOCAL_TYPES(T, C)                                                                          \
    typedef C V __attribute__((unused));                                                           \
    typedef M_##T M __attribute__((unused))

/* The lane function of a vector function: what runs it over all elements. */
#define LANE_FN(name, T, run)                                                                      \
    static void lane_##name##_##T(void *d, const void *a, const void *b, const void *c, int64_t n, \
                                  unsigned splat)                                                  \
    {                                                                                              \
        (void)b, (void)c;                                                                          \
        run;                                                                                       \
    }

#define LANE1(T, C, name, expr)                                                                    \
    ALWAYS_INLINE V_##T f_##name##_##T(V_##T x_)                                                   \
    {                                                                                              \
        LOCAL_TYPES(T, C);                                                                         \
        V x = (V)x_;                                                                               \
        return (V_##T)(expr);                                                                      \
    }                                                                                              \
    LANE_FN(name, T, loop1_##T(d, a, n, splat, f_##name##_##T))

#define LANE2(T, C, name, expr)                                                                    \
    ALWAYS_INLINE V_##T f_##name##_##T(V_##T x_, V_##T y_)                                         \
    {                                                                                              \
        LOCAL_TYPES(T, C);                                                                         \
        V x = (V)x_, y = (V)y_;                                                                    \
        return (V_##T)(expr);                                                                      \
    }                                                                                              \
    LANE_FN(name, T, loop2_##T(d, a, b, n, splat, f_##name##_##T))

#define LANE_COMPARE(T, name, expr)                                                                \
    ALWAYS_INLINE B_##T f_##name##_##T(V_##T x, V_##T y)                                           \
    {                                                                                              \
        return mask_bytes_##T((M_##T)(expr));                                                      \
    }                                                                                              \
    LANE_FN(name, T, loop2_##T##_bool(d, a, b, n, splat, f_##name##_##T))

/* ---- rows of the table ----- */

#define FN_FLOAT(name)                                                                             \
    {                                                                                              \
        [SP_FLOAT32] = lane_##name##_f32, [SP_FLOAT64] = lane_##name##_f64                         \
    }
#define FN_NUMBER(name)                                                                            \
    {                                                                                              \
        [SP_FLOAT32] = lane_##name##_f32, [SP_FLOAT64] = lane_##name##_f64,                        \
        [SP_INT32] = lane_##name##_i32, [SP_INT64] = lane_##name##_i64                             \
    }
#define FN_ANY(name)                                                                               \
    {                                                                                              \
        [SP_FLOAT32] = lane_##name##_f32, [SP_FLOAT64] = lane_##name##_f64,                        \
        [SP_INT32] = lane_##name##_i32, [SP_INT64] = lane_##name##_i64,                            \
        [SP_BOOL] = lane_##name##_b8                                                               \
    }
/* For ops that move elements whatever they mean: one function an element size. */
#define FN_BY_SIZE(one, two, four, eight, sixteen)                                                 \
    {                                                                                              \
        [SP_BOOL] = one, [SP_UINT8] = one, [SP_INT8] = one, [SP_INT16] = two, [SP_FLOAT16] = two,  \
        [SP_BFLOAT16] = two, [SP_INT32] = four, [SP_FLOAT32] = four, [SP_INT64] = eight,           \
        [SP_FLOAT64] = eight, [SP_COMPLEX64] = eight, [SP_COMPLEX128] = sixteen                    \
    }

#define LANES_ROW(row, fns, count, o0, o1, o2, bool_out, bool_in, cost)                            \
    static const sp_lanes lanes_##row __attribute__((unused)) = {.fn = fns,                        \
                                                                 .n_operands = count,              \
                                                                 .order = {o0, o1, o2},            \
                                                                 .to_bool = bool_out,              \
                                                                 .bool_first = bool_in,            \
                                                                 .ns = cost};
#define ROW1(name, FN, cost) LANES_ROW(name, FN(name), 1, 0, 0, 0, false, false, cost)
/* An op of two operands has overloads for a number on either side. */
#define ROW2(name, FN, to_bool, cost)                                                              \
    LANES_ROW(name, FN(name), 2, 0, 1, 0, to_bool, false, cost)                                    \
    LANES_ROW(name##_scalar, FN(name), 2, 0, SP_LANE_SCALAR0, 0, to_bool, false, cost)             \
    LANES_ROW(name##_rscalar, FN(name), 2, SP_LANE_SCALAR0, 0, 0, to_bool, false, cost)

/* name(x, alpha * y): two roundings. alpha, operand 2, is a number and most often 1. */
#define LANE_ALPHA(T, name)                                                                        \
    ALWAYS_INLINE V_##T f_##name##_alpha_##T(V_##T x, V_##T y, V_##T alpha)                        \
    {                                                                                              \
        return f_##name##_##T(x, f_mul_##T(alpha, y));                                             \
    }                                                                                              \
    static void lane_##name##_alpha_##T(void *d, const void *a, const void *b, const void *c,      \
                                        int64_t n, unsigned splat)                                 \
    {                                                                                              \
        E_##T alpha;                                                                               \
        memcpy(&alpha, c, sizeof alpha);                                                           \
        if (alpha == 1)                                                                            \
            loop2_##T(d, a, b, n, splat & 3, f_##name##_##T);                                      \
        else                                                                                       \
            loop3_##T(d, a, b, c, n, splat, f_##name##_alpha_##T);                                 \
    }
#define FN_NUMBER_ALPHA(name) FN_NUMBER(name##_alpha)
#define FN_ANY_ALPHA(name)    FN_ANY(name##_alpha)
#define ROW2_ALPHA(name, FN, FN_ALPHA, cost)                                                       \
    ROW2(name, FN, false, cost)                                                                    \
    LANES_ROW(name##_alpha, FN_ALPHA(name), 3, 0, 1, SP_LANE_SCALAR0, false, false, cost)

/* ---- kernel lines (lanes.c): name, nanoseconds an element about, expressions in x and y ----- */

/* clang-format off */
#define FLOAT1(name, ns, expr)                                                                     \
    LANE1(f32, V_f32, name, expr)                                                                  \
    LANE1(f64, V_f64, name, expr)                                                                  \
    ROW1(name, FN_FLOAT, ns)
#define FLOAT2(name, ns, expr)                                                                     \
    LANE2(f32, V_f32, name, expr)                                                                  \
    LANE2(f64, V_f64, name, expr)                                                                  \
    ROW2(name, FN_FLOAT, false, ns)
/* int32 and int64 too: wraps, without undefined behaviour, since it is computed unsigned ... */
#define NUMBER1(name, ns, expr)                                                                    \
    LANE1(f32, V_f32, name, expr)                                                                  \
    LANE1(f64, V_f64, name, expr)                                                                  \
    LANE1(i32, V_u32, name, expr)                                                                  \
    LANE1(i64, V_u64, name, expr)                                                                  \
    ROW1(name, FN_NUMBER, ns)
#define NUMBER2(name, ns, expr)                                                                    \
    LANE2(f32, V_f32, name, expr)                                                                  \
    LANE2(f64, V_f64, name, expr)                                                                  \
    LANE2(i32, V_u32, name, expr)                                                                  \
    LANE2(i64, V_u64, name, expr)                                                                  \
    ROW2(name, FN_NUMBER, false, ns)
/* ... or signed, for what compares. */
#define ORDERED1(name, ns, expr)                                                                   \
    LANE1(f32, V_f32, name, expr)                                                                  \
    LANE1(f64, V_f64, name, expr)                                                                  \
    LANE1(i32, V_i32, name, expr)                                                                  \
    LANE1(i64, V_i64, name, expr)                                                                  \
    ROW1(name, FN_NUMBER, ns)
/* bool as well, with an expression of its own on vectors of 0 and 1. */
#define ANY2(name, ns, expr, bool_expr)                                                            \
    LANE2(f32, V_f32, name, expr)                                                                  \
    LANE2(f64, V_f64, name, expr)                                                                  \
    LANE2(i32, V_u32, name, expr)                                                                  \
    LANE2(i64, V_u64, name, expr)                                                                  \
    LANE2(b8, V_b8, name, bool_expr)                                                               \
    ROW2(name, FN_ANY, false, ns)
#define ORDERED2(name, ns, expr, bool_expr)                                                        \
    LANE2(f32, V_f32, name, expr)                                                                  \
    LANE2(f64, V_f64, name, expr)                                                                  \
    LANE2(i32, V_i32, name, expr)                                                                  \
    LANE2(i64, V_i64, name, expr)                                                                  \
    LANE2(b8, V_b8, name, bool_expr)                                                               \
    ROW2(name, FN_ANY, false, ns)
/* With PyTorch's alpha, for add and sub: the line of mul comes before. */
#define ANY2_ALPHA(name, ns, expr, bool_expr)                                                      \
    LANE2(f32, V_f32, name, expr)                                                                  \
    LANE2(f64, V_f64, name, expr)                                                                  \
    LANE2(i32, V_u32, name, expr)                                                                  \
    LANE2(i64, V_u64, name, expr)                                                                  \
    LANE2(b8, V_b8, name, bool_expr)                                                               \
    LANE_ALPHA(f32, name)                                                                          \
    LANE_ALPHA(f64, name)                                                                          \
    LANE_ALPHA(i32, name)                                                                          \
    LANE_ALPHA(i64, name)                                                                          \
    LANE_ALPHA(b8, name)                                                                           \
    ROW2_ALPHA(name, FN_ANY, FN_ANY_ALPHA, ns)
#define NUMBER2_ALPHA(name, ns, expr)                                                              \
    LANE2(f32, V_f32, name, expr)                                                                  \
    LANE2(f64, V_f64, name, expr)                                                                  \
    LANE2(i32, V_u32, name, expr)                                                                  \
    LANE2(i64, V_u64, name, expr)                                                                  \
    LANE_ALPHA(f32, name)                                                                          \
    LANE_ALPHA(f64, name)                                                                          \
    LANE_ALPHA(i32, name)                                                                          \
    LANE_ALPHA(i64, name)                                                                          \
    ROW2_ALPHA(name, FN_NUMBER, FN_NUMBER_ALPHA, ns)
/* Yields bool. */
#define COMPARE2(name, ns, expr)                                                                   \
    LANE_COMPARE(f32, name, expr)                                                                  \
    LANE_COMPARE(f64, name, expr)                                                                  \
    LANE_COMPARE(i32, name, expr)                                                                  \
    LANE_COMPARE(i64, name, expr)                                                                  \
    LANE_COMPARE(b8, name, expr)                                                                   \
    ROW2(name, FN_ANY, true, ns)
/* clang-format on */

#endif
