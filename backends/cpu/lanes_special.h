/* The lane functions that are more than one expression: where, pow by a number, copies.
 */
#ifndef SP_CPU_LANES_SPECIAL_H
#define SP_CPU_LANES_SPECIAL_H

#include "backends/cpu/lanes_cast.h"
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
LANE_WHERE(i16)
LANE_WHERE(b8)
static void lane_where_c128(void *d, const void *a, const void *b, const void *c, int64_t n,
                            unsigned splat)
{
    const char *mask = a, *x = b, *y = c;
    char *to = d;
    for (int64_t i = 0; i < n; i++, to += 16) {
        bool first = mask[splat & 1 ? 0 : i] != 0;
        memcpy(to, first ? x + (splat & 2 ? 0 : i * 16) : y + (splat & 4 ? 0 : i * 16), 16);
    }
}
#define FN_WHERE(name)                                                                             \
    FN_BY_SIZE(lane_where_b8, lane_where_i16, lane_where_f32, lane_where_f64, lane_where_c128)
LANES_ROW(where, FN_WHERE(where), 3, 0, 1, 2, false, true, 0.2)
LANES_ROW(where_scalar, FN_WHERE(where), 3, 0, 1, SP_LANE_SCALAR0, false, true, 0.2)
LANES_ROW(where_scalar_x, FN_WHERE(where), 3, 0, SP_LANE_SCALAR0, 1, false, true, 0.2)
LANES_ROW(where_scalars, FN_WHERE(where), 3, 0, SP_LANE_SCALAR0, SP_LANE_SCALAR0 + 1, false, true,
          0.2)
LANES_ROW(masked_fill, FN_WHERE(where), 3, 1, 2, 0, false, true, 0.2)
LANES_ROW(masked_fill_scalar, FN_WHERE(where), 3, 1, SP_LANE_SCALAR0, 0, false, true, 0.2)

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

#define LANE_POW_INT(T)                                                                            \
    static void lane_pow_##T(void *d, const void *a, const void *b, const void *c, int64_t n,      \
                             unsigned splat)                                                       \
    {                                                                                              \
        (void)c;                                                                                   \
        const E_##T *x = a, *y = b;                                                                \
        E_##T *to = d;                                                                             \
        for (int64_t i = 0; i < n; i++)                                                            \
            to[i] = (E_##T)pow_int(x[splat & 1 ? 0 : i], y[splat & 2 ? 0 : i]);                    \
    }
LANE_POW_INT(i32)
LANE_POW_INT(i64)
ROW2(pow, FN_NUMBER, false, 4.0)

/* ---- copies ----- */

/* Of the input, of the second input into the first one's geometry, of a number. */
#define FN_SAME(name) FN_BY_SIZE(copy_1, copy_2, copy_4, copy_8, copy_16)
LANES_ROW(clone, FN_SAME(clone), 1, 0, 0, 0, false, false, 0.05f)
LANES_ROW(conj_physical, FN_SAME(clone), 1, 0, 0, 0, false, false, 0.05f)
LANES_ROW(copy, FN_SAME(copy), 1, 1, 0, 0, false, false, 0.05f)
LANES_ROW(fill_scalar, FN_SAME(fill), 1, SP_LANE_SCALAR0, 0, 0, false, false, 0.03f)

/* The op cast: a conversion step, for which the VM uses the table above. */
static const sp_lanes lanes_cast __attribute__((unused)) = {.n_operands = 1, .ns = 0.15f};

#endif
