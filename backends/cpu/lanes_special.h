/* The lane functions that are more than one expression: where, pow by a number, and conversion
 * between dtypes.
 */
#ifndef SP_CPU_LANES_SPECIAL_H
#define SP_CPU_LANES_SPECIAL_H

#include "backends/cpu/lanes_loop.h"

/* ---- where(cond, x, y): cond is bool ----- */

#define LANE_WHERE(T)                                                                              \
    ALWAYS_INLINE V_##T f_where_##T(M_##T m, V_##T x, V_##T y)                                     \
    {                                                                                              \
        LOCAL_TYPES(T, V_##T);                                                                     \
        return SELECT(m, x, y);                                                                    \
    }                                                                                              \
    static void lane_where_##T(void *dst, const void *a, const void *b, const void *c, int64_t n,  \
                               unsigned splat)                                                     \
    {                                                                                              \
        enum { SIZE = sizeof(E_##T) };                                                             \
        char *d = dst;                                                                             \
        unsigned char all[N_##T];                                                                  \
        const char *m = a;                                                                         \
        if (splat & 1) m = memset(all, *(const unsigned char *)a, N_##T);                          \
        int64_t mask_step = splat & 1 ? 0 : N_##T;                                                 \
        if (n < N_##T) {                                                                           \
            V_##T r =                                                                              \
                f_where_##T(bytes_mask_##T(m, n), splat & 2 ? splat_at_##T(b) : pad_##T(b, n),     \
                            splat & 4 ? splat_at_##T(c) : pad_##T(c, n));                          \
            store_some_##T(d, r, n);                                                               \
            return;                                                                                \
        }                                                                                          \
        CURSOR(T, x, b, 2, one_b);                                                                 \
        CURSOR(T, y, c, 4, one_c);                                                                 \
        V_##T last = {0};                                                                          \
        int64_t rest = n % N_##T;                                                                  \
        const char *last_mask = splat & 1 ? m : m + (n - N_##T);                                   \
        if (rest)                                                                                  \
            last =                                                                                 \
                f_where_##T(bytes_mask_##T(last_mask, N_##T), load_##T(x.last), load_##T(y.last)); \
        for (int64_t i = n / N_##T; i > 0; i--) {                                                  \
            store_##T(d, f_where_##T(bytes_mask_##T(m, N_##T), load_##T(x.at), load_##T(y.at)));   \
            m += mask_step, x.at += x.step, y.at += y.step, d += VB;                               \
        }                                                                                          \
        if (rest) store_##T(d - (N_##T - rest) * SIZE, last);                                      \
    }
LANE_WHERE(f32)
LANE_WHERE(f64)
LANE_WHERE(i64)
LANE_WHERE(b8)
LANES_ROW(where, FN_ANY(where), 3, 0, 1, 2, false, true, 0.2)
LANES_ROW(where_scalar, FN_ANY(where), 3, 0, 1, SP_LANE_SCALAR0, false, true, 0.2)
LANES_ROW(where_scalar_x, FN_ANY(where), 3, 0, SP_LANE_SCALAR0, 1, false, true, 0.2)
LANES_ROW(where_scalars, FN_ANY(where), 3, 0, SP_LANE_SCALAR0, SP_LANE_SCALAR0 + 1, false, true,
          0.2)
LANES_ROW(masked_fill, FN_ANY(where), 3, 1, 2, 0, false, true, 0.2)
LANES_ROW(masked_fill_scalar, FN_ANY(where), 3, 1, SP_LANE_SCALAR0, 0, false, true, 0.2)

/* ---- pow(x, number): exponents that have an exact short form take it, as in PyTorch ----- */

#define LANE_POW_FLOAT(T)                                                                          \
    ALWAYS_INLINE V_##T f_pow2_##T(V_##T x)                                                        \
    {                                                                                              \
        return x * x;                                                                              \
    }                                                                                              \
    ALWAYS_INLINE V_##T f_pow3_##T(V_##T x)                                                        \
    {                                                                                              \
        return x * x * x;                                                                          \
    }                                                                                              \
    ALWAYS_INLINE V_##T f_powm1_##T(V_##T x)                                                       \
    {                                                                                              \
        return splat_##T(1) / x;                                                                   \
    }                                                                                              \
    ALWAYS_INLINE V_##T f_powm2_##T(V_##T x)                                                       \
    {                                                                                              \
        return splat_##T(1) / (x * x);                                                             \
    }                                                                                              \
    ALWAYS_INLINE V_##T f_powmhalf_##T(V_##T x)                                                    \
    {                                                                                              \
        return splat_##T(1) / sqrt_of_##T(x);                                                      \
    }                                                                                              \
    static void lane_pow_##T(void *d, const void *a, const void *b, const void *c, int64_t n,      \
                             unsigned splat)                                                       \
    {                                                                                              \
        (void)c;                                                                                   \
        E_##T e;                                                                                   \
        memcpy(&e, b, n > 0 ? sizeof e : 0);                                                       \
        if (n <= 0) return;                                                                        \
        if (!(splat & 2))                                                                          \
            loop2_##T(d, a, b, n, splat, pow_of_##T);                                              \
        else if (e == 2)                                                                           \
            loop1_##T(d, a, n, splat, f_pow2_##T);                                                 \
        else if (e == 3)                                                                           \
            loop1_##T(d, a, n, splat, f_pow3_##T);                                                 \
        else if (e == (E_##T)0.5)                                                                  \
            loop1_##T(d, a, n, splat, sqrt_of_##T);                                                \
        else if (e == (E_##T) - 0.5)                                                               \
            loop1_##T(d, a, n, splat, f_powmhalf_##T);                                             \
        else if (e == -1)                                                                          \
            loop1_##T(d, a, n, splat, f_powm1_##T);                                                \
        else if (e == -2)                                                                          \
            loop1_##T(d, a, n, splat, f_powm2_##T);                                                \
        else                                                                                       \
            loop2_##T(d, a, b, n, splat, pow_of_##T);                                              \
    }
LANE_POW_FLOAT(f32)
LANE_POW_FLOAT(f64)

/* Wraps. A negative exponent gives what the exact reciprocal truncates to, and 0 for a base of 0.
 */
static int64_t pow_int(int64_t base, int64_t exponent)
{
    if (exponent < 0) return base == 1 ? 1 : base == -1 ? (exponent % 2 ? -1 : 1) : 0;
    uint64_t result = 1, square = (uint64_t)base;
    for (; exponent > 0; exponent >>= 1, square *= square) {
        if (exponent & 1) result *= square;
    }
    return (int64_t)result;
}

static void lane_pow_i64(void *d, const void *a, const void *b, const void *c, int64_t n,
                         unsigned splat)
{
    (void)c;
    for (int64_t i = 0; i < n; i++) {
        int64_t base, exponent;
        memcpy(&base, (const char *)a + (splat & 1 ? 0 : i) * 8, 8);
        memcpy(&exponent, (const char *)b + (splat & 2 ? 0 : i) * 8, 8);
        int64_t result = pow_int(base, exponent);
        memcpy((char *)d + i * 8, &result, 8);
    }
}
ROW2(pow, FN_NUMBER, false, 4.0)

/* ---- casts ----- */

/* What the hardware does with a value out of range, without C's undefined behaviour. */
ALWAYS_INLINE int64_t to_int64(double x)
{
    return x >= -0x1p63 && x < 0x1p63 ? (int64_t)x : INT64_MIN;
}

/* Every conversion rounds correctly or is exact, so plain loops do: however the compiler vectorises
 * them, the bits are the same. dst may be the source if both dtypes are one. */
#define LANE_CAST(from, to, E_FROM, E_TO, expr)                                                    \
    static void cast_##from##_##to(void *dst, const void *a, const void *b, const void *c,         \
                                   int64_t n, unsigned splat)                                      \
    {                                                                                              \
        (void)b, (void)c;                                                                          \
        const char *restrict s = a;                                                                \
        char *restrict d = dst;                                                                    \
        int64_t step = splat & 1 ? 0 : (int64_t)sizeof(E_FROM);                                    \
        for (int64_t i = 0; i < n; i++) {                                                          \
            E_FROM x;                                                                              \
            memcpy(&x, s + i * step, sizeof x);                                                    \
            E_TO y = (E_TO)(expr);                                                                 \
            memcpy(d + i * (int64_t)sizeof y, &y, sizeof y);                                       \
        }                                                                                          \
    }

#define LANE_CASTS_TO_SAME(T)                                                                      \
    static void cast_##T##_##T(void *dst, const void *a, const void *b, const void *c, int64_t n,  \
                               unsigned splat)                                                     \
    {                                                                                              \
        (void)b, (void)c;                                                                          \
        E_##T e;                                                                                   \
        if (!(splat & 1)) memmove(dst, a, (size_t)n * sizeof e);                                   \
        for (int64_t i = 0; splat & 1 && i < n; i++) {                                             \
            memcpy(&e, a, sizeof e);                                                               \
            memcpy((char *)dst + i * (int64_t)sizeof e, &e, sizeof e);                             \
        }                                                                                          \
    }
LANE_CASTS_TO_SAME(b8)
LANE_CASTS_TO_SAME(i64)
LANE_CASTS_TO_SAME(f32)
LANE_CASTS_TO_SAME(f64)

LANE_CAST(b8, i64, uint8_t, int64_t, x != 0)
LANE_CAST(b8, f32, uint8_t, float, x != 0)
LANE_CAST(b8, f64, uint8_t, double, x != 0)
LANE_CAST(i64, b8, int64_t, uint8_t, x != 0)
LANE_CAST(i64, f32, int64_t, float, x)
LANE_CAST(i64, f64, int64_t, double, x)
LANE_CAST(f32, b8, float, uint8_t, x != 0)
LANE_CAST(f32, i64, float, int64_t, to_int64((double)x))
LANE_CAST(f32, f64, float, double, x)
LANE_CAST(f64, b8, double, uint8_t, x != 0)
LANE_CAST(f64, i64, double, int64_t, to_int64(x))
LANE_CAST(f64, f32, double, float, x)

#define CASTS                                                                                      \
    {                                                                                              \
        [SP_BOOL] = {[SP_BOOL] = cast_b8_b8,                                                       \
                     [SP_INT64] = cast_b8_i64,                                                     \
                     [SP_FLOAT32] = cast_b8_f32,                                                   \
                     [SP_FLOAT64] = cast_b8_f64},                                                  \
        [SP_INT64] = {[SP_BOOL] = cast_i64_b8,                                                     \
                      [SP_INT64] = cast_i64_i64,                                                   \
                      [SP_FLOAT32] = cast_i64_f32,                                                 \
                      [SP_FLOAT64] = cast_i64_f64},                                                \
        [SP_FLOAT32] = {[SP_BOOL] = cast_f32_b8,                                                   \
                        [SP_INT64] = cast_f32_i64,                                                 \
                        [SP_FLOAT32] = cast_f32_f32,                                               \
                        [SP_FLOAT64] = cast_f32_f64},                                              \
        [SP_FLOAT64] = {[SP_BOOL] = cast_f64_b8,                                                   \
                        [SP_INT64] = cast_f64_i64,                                                 \
                        [SP_FLOAT32] = cast_f64_f32,                                               \
                        [SP_FLOAT64] = cast_f64_f64},                                              \
    }

/* Copies: of the input, of the second input into the first one's geometry, of a number. */
#define FN_SAME(name)                                                                              \
    {                                                                                              \
        [SP_BOOL] = cast_b8_b8, [SP_INT64] = cast_i64_i64, [SP_FLOAT32] = cast_f32_f32,            \
        [SP_FLOAT64] = cast_f64_f64                                                                \
    }
LANES_ROW(clone, FN_SAME(clone), 1, 0, 0, 0, false, false, 0.05f)
LANES_ROW(copy, FN_SAME(copy), 1, 1, 0, 0, false, false, 0.05f)
LANES_ROW(fill_scalar, FN_SAME(fill), 1, SP_LANE_SCALAR0, 0, 0, false, false, 0.03f)

/* The op cast: a conversion step, for which the VM uses the table above. */
static const sp_lanes lanes_cast __attribute__((unused)) = {.n_operands = 1, .ns = 0.15f};

#endif
