/* Kernel lines of further shapes: three operands, tests that yield bool, whole numbers one by one,
 * ops that are for bool or for integers alone.
 */
#ifndef SP_CPU_LANES_MORE_H
#define SP_CPU_LANES_MORE_H

#include "backends/cpu/lanes_loop.h"
#include "backends/cpu/lanes_math.h"

/* ---- three operands of one dtype ----- */

#define LANE3(T, C, name, expr)                                                                    \
    ALWAYS_INLINE V_##T f_##name##_##T(V_##T x_, V_##T y_, V_##T z_)                               \
    {                                                                                              \
        LOCAL_TYPES(T, C);                                                                         \
        V x = (V)x_, y = (V)y_, z = (V)z_;                                                         \
        (void)x, (void)y, (void)z;                                                                 \
        return (V_##T)(expr);                                                                      \
    }                                                                                              \
    LANE_FN(name, T, loop3_##T(d, a, b, c, n, splat, f_##name##_##T))

/* ---- x to bool ----- */

#define LANE_TEST(T, name, expr)                                                                   \
    ALWAYS_INLINE B_##T f_##name##_##T(V_##T x)                                                    \
    {                                                                                              \
        LOCAL_TYPES(T, V_##T);                                                                     \
        return mask_bytes_##T((M_##T)(expr));                                                      \
    }                                                                                              \
    LANE_FN(name, T, loop1_##T##_bool(d, a, n, splat, f_##name##_##T))

/* ---- integers one by one: there are no vector instructions for it ----- */

#define LANE_WHOLE2(T, name, f)                                                                    \
    static void lane_##name##_##T(void *d, const void *a, const void *b, const void *c, int64_t n, \
                                  unsigned splat)                                                  \
    {                                                                                              \
        (void)c;                                                                                   \
        const E_##T *x = a, *y = b;                                                                \
        E_##T *to = d;                                                                             \
        for (int64_t i = 0; i < n; i++)                                                            \
            to[i] = (E_##T)f(x[splat & 1 ? 0 : i], y[splat & 2 ? 0 : i]);                          \
    }

/* Of sizes, so that the least int64 has one. */
static uint64_t gcd_of(uint64_t a, uint64_t b)
{
    while (b) {
        uint64_t rest = a % b;
        a = b, b = rest;
    }
    return a;
}

/* Wraps where that is the result. */
static uint64_t lcm_of(uint64_t a, uint64_t b)
{
    uint64_t divisor = gcd_of(a, b);
    return divisor ? a / divisor * b : 0;
}

/* Sizes of at most 2^51, so that all is exact in float64. */
ALWAYS_INLINE V_f64 divisors(V_f64 a, V_f64 b)
{
    typedef V_f64 V;
    typedef M_f64 M;
    for (M left = b != 0; any_f64(left); left = b != 0) {
        V quotient = floor_of_f64(a / b), rest = a - quotient * b; /* may be one too large */
        rest = SELECT(rest < 0, rest + b, rest);
        a = SELECT(left, b, a), b = SELECT(left, rest, b);
    }
    return a;
}

/* gcd, or lcm, of N_f64 pairs; false where there are larger ones. */
ALWAYS_INLINE bool divisors_of(const uint64_t *a, const uint64_t *b, bool multiple, uint64_t *to)
{
    typedef V_f64 V;
    typedef M_f64 M;
    V x, y;
    uint64_t all = 0;
    for (int i = 0; i < N_f64; i++) all |= a[i] | b[i], x[i] = (double)a[i], y[i] = (double)b[i];
    if (all >> 51) return false;
    V divisor = divisors(x, y);
    if (multiple) divisor = SELECT(divisor == 0, divisor, x / divisor);
    for (int i = 0; i < N_f64; i++) to[i] = (uint64_t)divisor[i] * (multiple ? b[i] : 1);
    return true;
}

/* Of integers, N_f64 at a time. */
#define LANE_DIVISORS(T, name, one, multiple)                                                      \
    static void lane_##name##_##T(void *d, const void *a, const void *b, const void *c, int64_t n, \
                                  unsigned splat)                                                  \
    {                                                                                              \
        (void)c;                                                                                   \
        const E_##T *x = a, *y = b;                                                                \
        E_##T *to = d;                                                                             \
        for (int64_t i = 0; i < n; i += N_f64) {                                                   \
            uint64_t sizes[2][N_f64] = {{0}}, result[N_f64];                                       \
            int64_t some = n - i < N_f64 ? n - i : N_f64;                                          \
            for (int64_t k = 0; k < some; k++) {                                                   \
                int64_t p = x[splat & 1 ? 0 : i + k], q = y[splat & 2 ? 0 : i + k];                \
                sizes[0][k] = p < 0 ? -(uint64_t)p : (uint64_t)p;                                  \
                sizes[1][k] = q < 0 ? -(uint64_t)q : (uint64_t)q;                                  \
            }                                                                                      \
            if (!divisors_of(sizes[0], sizes[1], multiple, result))                                \
                for (int k = 0; k < N_f64; k++) result[k] = one(sizes[0][k], sizes[1][k]);         \
            for (int64_t k = 0; k < some; k++) to[i + k] = (E_##T)result[k];                       \
        }                                                                                          \
    }

/* ---- kernel lines; x, y, z are the operands in the order that the line ends with ----- */

#define FN_BOOL(name)                                                                              \
    {                                                                                              \
        [SP_BOOL] = lane_##name##_b8                                                               \
    }
#define FN_INTEGER(name)                                                                           \
    {                                                                                              \
        [SP_INT32] = lane_##name##_i32, [SP_INT64] = lane_##name##_i64                             \
    }
#define FN_INTEGRAL(name)                                                                          \
    {                                                                                              \
        [SP_INT32] = lane_##name##_i32, [SP_INT64] = lane_##name##_i64,                            \
        [SP_BOOL] = lane_##name##_b8                                                               \
    }
#define SCALAR0 SP_LANE_SCALAR0
#define SCALAR1 (SP_LANE_SCALAR0 + 1)

/* clang-format off */
/* A tensor and a number. */
#define FLOAT1_NUMBER(name, ns, expr)                                                              \
    LANE2(f32, V_f32, name, expr)                                                                  \
    LANE2(f64, V_f64, name, expr)                                                                  \
    LANES_ROW(name, FN_FLOAT(name), 2, 0, SCALAR0, 0, false, false, ns)
#define FLOAT3(name, ns, o0, o1, o2, expr)                                                         \
    LANE3(f32, V_f32, name, expr)                                                                  \
    LANE3(f64, V_f64, name, expr)                                                                  \
    LANES_ROW(name, FN_FLOAT(name), 3, o0, o1, o2, false, false, ns)
#define ORDERED3(name, ns, o0, o1, o2, expr)                                                       \
    LANE3(f32, V_f32, name, expr)                                                                  \
    LANE3(f64, V_f64, name, expr)                                                                  \
    LANE3(i32, V_i32, name, expr)                                                                  \
    LANE3(i64, V_i64, name, expr)                                                                  \
    LANES_ROW(name, FN_NUMBER(name), 3, o0, o1, o2, false, false, ns)
/* Wraps, and has an expression of its own for bool. */
#define ANY3(name, ns, o0, o1, o2, expr, bool_expr)                                                \
    LANE3(f32, V_f32, name, expr)                                                                  \
    LANE3(f64, V_f64, name, expr)                                                                  \
    LANE3(i32, V_u32, name, expr)                                                                  \
    LANE3(i64, V_u64, name, expr)                                                                  \
    LANE3(b8, V_b8, name, bool_expr)                                                               \
    LANES_ROW(name, FN_ANY(name), 3, o0, o1, o2, false, false, ns)
/* Integers as they are. */
#define ROUNDING1(name, ns, expr)                                                                  \
    LANE1(f32, V_f32, name, expr)                                                                  \
    LANE1(f64, V_f64, name, expr)                                                                  \
    LANE1(i32, V_i32, name, x)                                                                     \
    LANE1(i64, V_i64, name, x)                                                                     \
    ROW1(name, FN_NUMBER, ns)
#define WHOLE2(name, ns, expr, one)                                                                \
    LANE2(f32, V_f32, name, expr)                                                                  \
    LANE2(f64, V_f64, name, expr)                                                                  \
    LANE_WHOLE2(i32, name, one)                                                                    \
    LANE_WHOLE2(i64, name, one)                                                                    \
    ROW2(name, FN_NUMBER, false, ns)
#define ANY1(name, ns, expr, bool_expr)                                                            \
    LANE1(f32, V_f32, name, expr)                                                                  \
    LANE1(f64, V_f64, name, expr)                                                                  \
    LANE1(i32, V_i32, name, expr)                                                                  \
    LANE1(i64, V_i64, name, expr)                                                                  \
    LANE1(b8, V_b8, name, bool_expr)                                                               \
    ROW1(name, FN_ANY, ns)
/* A number by one expression for floats and another for integers. */
#define EITHER1(name, ns, expr, whole_expr)                                                        \
    LANE1(f32, V_f32, name, expr)                                                                  \
    LANE1(f64, V_f64, name, expr)                                                                  \
    LANE1(i32, V_u32, name, whole_expr)                                                            \
    LANE1(i64, V_u64, name, whole_expr)                                                            \
    ROW1(name, FN_NUMBER, ns)
#define TEST1(name, ns, expr, whole_expr)                                                          \
    LANE_TEST(f32, name, expr)                                                                     \
    LANE_TEST(f64, name, expr)                                                                     \
    LANE_TEST(i32, name, whole_expr)                                                               \
    LANE_TEST(i64, name, whole_expr)                                                               \
    LANE_TEST(b8, name, whole_expr)                                                                \
    LANES_ROW(name, FN_ANY(name), 1, 0, 0, 0, true, false, ns)
#define BOOL1(name, ns, expr)                                                                      \
    LANE1(b8, V_b8, name, expr)                                                                    \
    ROW1(name, FN_BOOL, ns)
#define BOOL2(name, ns, expr)                                                                      \
    LANE2(b8, V_b8, name, expr)                                                                    \
    ROW2(name, FN_BOOL, false, ns)
#define BITS1(name, ns, expr, bool_expr)                                                           \
    LANE1(i32, V_u32, name, expr)                                                                  \
    LANE1(i64, V_u64, name, expr)                                                                  \
    LANE1(b8, V_b8, name, bool_expr)                                                               \
    ROW1(name, FN_INTEGRAL, ns)
#define BITS2(name, ns, expr)                                                                      \
    LANE2(i32, V_u32, name, expr)                                                                  \
    LANE2(i64, V_u64, name, expr)                                                                  \
    LANE2(b8, V_b8, name, expr)                                                                    \
    ROW2(name, FN_INTEGRAL, false, ns)
/* Integers by their common divisors. */
#define DIVISORS2(name, ns, one, multiple)                                                         \
    LANE_DIVISORS(i32, name, one, multiple)                                                        \
    LANE_DIVISORS(i64, name, one, multiple)                                                                    \
    ROW2(name, FN_INTEGER, false, ns)
#define SHIFT2(name, ns, S, expr)                                                                  \
    LANE2(i32, V_##S##32, name, expr)                                                              \
    LANE2(i64, V_##S##64, name, expr)                                                                      \
    ROW2(name, FN_INTEGER, false, ns)
/* clang-format on */

/* ---- round to decimals: times or over a power of ten, whichever is a whole number and exact -----
 */

#define LANE_ROUND_DECIMALS(T)                                                                     \
    ALWAYS_INLINE V_##T round_above_##T(V_##T x, V_##T ten)                                        \
    {                                                                                              \
        return ROUND(x * ten) / ten;                                                               \
    }                                                                                              \
    ALWAYS_INLINE V_##T round_below_##T(V_##T x, V_##T ten)                                        \
    {                                                                                              \
        return ROUND(x / ten) * ten;                                                               \
    }                                                                                              \
    static void lane_round_decimals_##T(void *d, const void *a, const void *b, const void *c,      \
                                        int64_t n, unsigned splat)                                 \
    {                                                                                              \
        E_##T places;                                                                              \
        (void)c;                                                                                   \
        memcpy(&places, b, sizeof places);                                                         \
        E_##T ten = (E_##T)pow(10, fabs((double)places));                                          \
        if (places == 0)                                                                           \
            loop1_##T(d, a, n, splat & 1, round_of_##T);                                           \
        else                                                                                       \
            loop2_##T(d, a, &ten, n, (splat & 1) | 2,                                              \
                      places > 0 ? round_above_##T : round_below_##T);                             \
    }
LANE_ROUND_DECIMALS(f32)
LANE_ROUND_DECIMALS(f64)
LANES_ROW(round_decimals, FN_FLOAT(round_decimals), 2, 0, SCALAR0, 0, false, false, 0.3f)

/* ---- gelu: the last operand says which of two functions, 0 for none, 1 for tanh ----- */

#define LANE_GELU(T)                                                                               \
    static void lane_gelu_##T(void *d, const void *a, const void *b, const void *c, int64_t n,     \
                              unsigned splat)                                                      \
    {                                                                                              \
        E_##T tanh;                                                                                \
        (void)c;                                                                                   \
        memcpy(&tanh, b, sizeof tanh);                                                             \
        if (tanh != 0)                                                                             \
            loop1_##T(d, a, n, splat & 1, gelu_tanh_##T);                                          \
        else                                                                                       \
            loop1_##T(d, a, n, splat & 1, gelu_none_##T);                                          \
    }                                                                                              \
    static void lane_gelu_backward_##T(void *d, const void *a, const void *b, const void *c,       \
                                       int64_t n, unsigned splat)                                  \
    {                                                                                              \
        E_##T tanh;                                                                                \
        memcpy(&tanh, c, sizeof tanh);                                                             \
        if (tanh != 0)                                                                             \
            loop2_##T(d, a, b, n, splat & 3, gelu_backward_tanh_##T);                              \
        else                                                                                       \
            loop2_##T(d, a, b, n, splat & 3, gelu_backward_none_##T);                              \
    }
LANE_GELU(f32)
LANE_GELU(f64)
LANES_ROW(gelu, FN_FLOAT(gelu), 2, 0, SCALAR0, 0, false, false, 0.9f)
LANES_ROW(gelu_backward, FN_FLOAT(gelu_backward), 3, 0, 1, SCALAR0, false, false, 1.2f)

#endif
