/* Numbers with what their rounding left out, for functions whose roundings would add up to more
 * than 2 ULP: each value comes with its rest, and the two stand for their exact sum.
 */
#ifndef SP_CPU_LANES_EXACT_H
#define SP_CPU_LANES_EXACT_H

#include <math.h>

#include "backends/cpu/vec.h"

/* ---- sums, products, quotients ----- */

#if VB > 16
#define DEFINE_LESS_PRODUCT(T, MUL_ADD, HALF)                                                      \
    ALWAYS_INLINE V_##T less_product_##T(V_##T z, V_##T x, V_##T y)                                \
    {                                                                                              \
        return MUL_ADD(-x, y, z);                                                                  \
    }
#else
/* Without fused operations, by halves of the factors, whose products are exact (Dekker 1971). */
#define DEFINE_LESS_PRODUCT(T, MUL_ADD, HALF)                                                      \
    ALWAYS_INLINE V_##T less_product_##T(V_##T z, V_##T x, V_##T y)                                \
    {                                                                                              \
        V_##T x_high = (V_##T)((M_##T)x & HALF), x_low = x - x_high;                               \
        V_##T y_high = (V_##T)((M_##T)y & HALF), y_low = y - y_high, product = x * y;              \
        V_##T rest = x_high * y_high - product + x_high * y_low + x_low * y_high + x_low * y_low;  \
        return z - product - rest;                                                                 \
    }
#endif
/* z - x * y, rounded once where z is nearly x * y */
DEFINE_LESS_PRODUCT(f32, MUL_ADD_F32, ~0xfff)
DEFINE_LESS_PRODUCT(f64, MUL_ADD_F64, ~0x7ffffffLL)

#define DEFINE_EXACT(T, MUL_ADD)                                                                   \
    /* Of numbers that are not negative. */                                                        \
    ALWAYS_INLINE V_##T sum_of_sizes_##T(V_##T x, V_##T y, V_##T *rest)                            \
    {                                                                                              \
        V_##T sum = x + y;                                                                         \
        *rest = smaller_of_##T(x, y) - (sum - larger_of_##T(x, y));                                \
        return sum;                                                                                \
    }                                                                                              \
    ALWAYS_INLINE V_##T product_of_pair_##T(V_##T x, V_##T y, V_##T *rest)                         \
    {                                                                                              \
        V_##T product = x * y;                                                                     \
        *rest = -less_product_##T(product, x, y);                                                  \
        return product;                                                                            \
    }                                                                                              \
    /* quotient + left * inverse, but for a correction that is not a number, where something       \
     * overflowed, or is zero, maybe of the wrong sign. */                                         \
    ALWAYS_INLINE V_##T corrected_##T(V_##T quotient, V_##T left, V_##T inverse)                   \
    {                                                                                              \
        M_##T good = larger_of_##T(left, -left) > 0;                                               \
        V_##T better = MUL_ADD(left, inverse, quotient);                                           \
        return (V_##T)((good & (M_##T)better) | (~good & (M_##T)quotient));                        \
    }                                                                                              \
    /* x / (y + y_rest) */                                                                         \
    ALWAYS_INLINE V_##T quotient_by_pair_##T(V_##T x, V_##T y, V_##T y_rest)                       \
    {                                                                                              \
        V_##T inverse = 1 / y, quotient = x * inverse;                                             \
        V_##T left = less_product_##T(x, quotient, y);                                             \
        return corrected_##T(quotient, MUL_ADD(-quotient, y_rest, left), inverse);                 \
    }                                                                                              \
    /* (x + x_rest) / (y + y_rest) */                                                              \
    ALWAYS_INLINE V_##T quotient_of_pairs_##T(V_##T x, V_##T x_rest, V_##T y, V_##T y_rest)        \
    {                                                                                              \
        V_##T inverse = 1 / y, quotient = x * inverse;                                             \
        V_##T left = less_product_##T(x, quotient, y) + x_rest;                                    \
        return corrected_##T(quotient, MUL_ADD(-quotient, y_rest, left), inverse);                 \
    }
DEFINE_EXACT(f32, MUL_ADD_F32)
DEFINE_EXACT(f64, MUL_ADD_F64)

/* ---- polynomials ----- */

/* c[0] + c[1] x + ... + c[n - 1] x^(n - 1) */
ALWAYS_INLINE V_f64 polynomial_f64(V_f64 x, const double *c, int n)
{
    V_f64 p = splat_f64(c[n - 1]);
#pragma GCC unroll 16
    for (int i = n - 2; i >= 0; i--) p = MUL_ADD_F64(p, x, splat_f64(c[i]));
    return p;
}

/* The same for an even n, in two chains side by side. */
ALWAYS_INLINE V_f64 long_polynomial_f64(V_f64 x, const double *c, int n)
{
    V_f64 square = x * x, even = splat_f64(c[n - 2]), odd = splat_f64(c[n - 1]);
#pragma GCC unroll 16
    for (int i = n - 4; i >= 0; i -= 2) {
        even = MUL_ADD_F64(even, square, splat_f64(c[i]));
        odd = MUL_ADD_F64(odd, square, splat_f64(c[i + 1]));
    }
    return MUL_ADD_F64(odd, x, even);
}

/* ---- exponentials ----- */

/* (exp(r) - 1 - r) / (r r) for |r| <= log(2) / 2: Moshier's (Cephes), and a fit of degree 9 for the
 * least error, 1.3e-17 of exp(r). */
ALWAYS_INLINE V_f32 exp_rest_f32(V_f32 r)
{
    V_f32 s = r * r, p = MUL_ADD_F32(r, splat_f32(1.6666665459e-1f), splat_f32(5.0000001201e-1f));
    V_f32 q = MUL_ADD_F32(r, splat_f32(8.3334519073e-3f), splat_f32(4.1665795894e-2f));
    V_f32 t = MUL_ADD_F32(r, splat_f32(1.9875691500e-4f), splat_f32(1.3981999507e-3f));
    return MUL_ADD_F32(MUL_ADD_F32(t, s, q), s, p);
}

ALWAYS_INLINE V_f64 exp_rest_f64(V_f64 r)
{
    V_f64 s = r * r, p = MUL_ADD_F64(r, splat_f64(0x1.5555555555556p-3), splat_f64(0.5));
    V_f64 q = MUL_ADD_F64(r, splat_f64(0x1.11111111109adp-7), splat_f64(0x1.5555555553d4fp-5));
    V_f64 t = MUL_ADD_F64(r, splat_f64(0x1.a01a01a7c8d47p-13), splat_f64(0x1.6c16c17893833p-10));
    V_f64 u = MUL_ADD_F64(r, splat_f64(0x1.71de0d9c145d0p-19), splat_f64(0x1.a019b8ef67c6cp-16));
    V_f64 v = MUL_ADD_F64(r, splat_f64(0x1.af38d53857513p-26), splat_f64(0x1.2891a8c1d838dp-22));
    return MUL_ADD_F64(MUL_ADD_F64(MUL_ADD_F64(MUL_ADD_F64(v, s, u), s, t), s, q), s, p);
}

/* n at most MOST: beyond that the result is too large by far, or infinite, and stays so. */
#define DEFINE_EXP_PAIR(T, MUL_ADD, MAGIC, LN2, LN2_REST, LEAST, MOST, BIAS, BITS)                 \
    /* exp(x) is (result + rest) 2^n; that of LEAST below it. */                                   \
    ALWAYS_INLINE V_##T exp_pair_##T(V_##T x, V_##T *rest, V_##T *n)                               \
    {                                                                                              \
        const V_##T magic = splat_##T(MAGIC);                                                      \
        x = larger_of_##T(splat_##T(LEAST), x);                                                    \
        *n = MUL_ADD(x, splat_##T((E_##T)M_LOG2E), magic) - magic;                                 \
        *n = smaller_of_##T(splat_##T(MOST), *n);                                                  \
        V_##T r = MUL_ADD(*n, splat_##T(-LN2), x);                                                 \
        r = MUL_ADD(*n, splat_##T((E_##T)(-LN2_REST)), r);                                         \
        r = MUL_ADD(exp_rest_##T(r), r * r, r);                                                    \
        V_##T p = r + 1;                                                                           \
        *rest = r - (p - 1);                                                                       \
        return p;                                                                                  \
    }                                                                                              \
    /* 2^n, a normal number */                                                                     \
    ALWAYS_INLINE V_##T power_of_two_##T(V_##T n)                                                  \
    {                                                                                              \
        const V_##T magic = splat_##T(MAGIC);                                                      \
        return (V_##T)(((M_##T)(n + magic) - (M_##T)magic + BIAS) << BITS);                        \
    }
DEFINE_EXP_PAIR(f32, MUL_ADD_F32, 0x1.8p23f, 0x1.62e4p-1f, 0x1.7f7d1cp-20, -87, 180, 127, 23)
DEFINE_EXP_PAIR(f64, MUL_ADD_F64, 0x1.8p52, 0x1.62e42fefa38p-1, 0x1.ef35793c7673p-45, -708, 1500,
                1023, 52)

#endif
