/* Functions of vectors of complex numbers, by their parts.
 *
 * Sources: products and squares by their definition, as PyTorch's; quotients by Smith's algorithm
 * (CACM 5, 1962), which does not overflow where the result does not.
 */
#ifndef SP_CPU_LANES_COMPLEX_MATH_H
#define SP_CPU_LANES_COMPLEX_MATH_H

#include "backends/cpu/lanes_math.h"
#include "backends/cpu/lanes_pairs.h"

#define OF_PAIRS(name, x) _Generic((x), P_c64 : name##_c64, P_c128 : name##_c128)
#define TIMES(x, y)       OF_PAIRS(times, x)(x, y)
#define OVER(x, y)        OF_PAIRS(over, x)(x, y)
#define LENGTH(x)         OF_PAIRS(length, x)(x)
#define SIGN_OF(x)        OF_PAIRS(sign, x)(x)
#define LERPED(x, y, z)   OF_PAIRS(lerp, x)(x, y, z)
/* For kernel lines, where P is in scope. */
#define PARTS(...)      ((P){__VA_ARGS__})
#define PLUS(x, y)      PARTS((x).re + (y).re, (x).im + (y).im)
#define MINUS(x, y)     PARTS((x).re - (y).re, (x).im - (y).im)
#define NEGATED(x)      PARTS(-(x).re, -(x).im)
#define SCALED(x, by)   PARTS((x).re *(by), (x).im *(by))
#define FROM_ONE(x)     PARTS(1 - (x).re, ZERO - (x).im)
#define EITHER(m, x, y) PARTS(SELECT(m, (x).re, (y).re), SELECT(m, (x).im, (y).im))

/* ---- absolute values ----- */

/* Of float32 parts in float64: within 0.51 ULP, and nothing overflows. */
ALWAYS_INLINE V_f32 length_c64(P_c64 x)
{
    typedef V_f32 V;
    typedef M_f32 M;
    H_f32 re[2], im[2];
    memcpy(re, &x.re, sizeof re), memcpy(im, &x.im, sizeof im);
    for (int i = 0; i < 2; i++) {
        V_f64 a = __builtin_convertvector(re[i], V_f64), b = __builtin_convertvector(im[i], V_f64);
        re[i] = __builtin_convertvector(SQRT(a * a + b * b), H_f32);
    }
    V length;
    memcpy(&length, re, sizeof length);
    M infinite = (ABS(x.re) == INFINITY) | (ABS(x.im) == INFINITY);
    return SELECT(infinite, splat_f32(INFINITY), length);
}

/* The power of two that brings squares of parts into range, and its inverse. */
ALWAYS_INLINE V_f64 length_c128(P_c128 x)
{
    typedef V_f64 V;
    typedef M_f64 M;
    V a = ABS(x.re), b = ABS(x.im), most = larger_of_f64(a, b), one = splat_f64(1);
    M large = most > 0x1p500, small = most < 0x1p-500;
    V down = SELECT(large, splat_f64(0x1p-600), SELECT(small, splat_f64(0x1p600), one)),
      up = SELECT(large, splat_f64(0x1p600), SELECT(small, splat_f64(0x1p-600), one));
    a *= down, b *= down;
    return SELECT((a == INFINITY) | (b == INFINITY), splat_f64(INFINITY), SQRT(a * a + b * b) * up);
}

/* ---- arithmetic ----- */

#define DEFINE_PAIR_ARITHMETIC(T, S)                                                               \
    ALWAYS_INLINE P_##T times_##T(P_##T x, P_##T y)                                                \
    {                                                                                              \
        return (P_##T){x.re * y.re - x.im * y.im, x.re * y.im + x.im * y.re};                      \
    }                                                                                              \
    ALWAYS_INLINE P_##T over_##T(P_##T x, P_##T y)                                                 \
    {                                                                                              \
        PAIR_TYPES(T, S);                                                                          \
        V c = ABS(y.re), d = ABS(y.im);                                                            \
        M turned = ~(c >= d);                                                                      \
        V large = SELECT(turned, y.im, y.re), small = SELECT(turned, y.re, y.im);                  \
        V p = SELECT(turned, x.im, x.re), q = SELECT(turned, x.re, x.im);                          \
        V ratio = small / large, scale = 1 / (large + small * ratio), r = p * ratio;               \
        P z = {(p + q * ratio) * scale, (SELECT(turned, r, q) - SELECT(turned, q, r)) * scale};    \
        M by_zero = large == 0;                                                                    \
        return any_##S(by_zero) ? EITHER(by_zero, PARTS(x.re / c, x.im / d), z) : z;               \
    }                                                                                              \
    ALWAYS_INLINE P_##T sign_##T(P_##T x)                                                          \
    {                                                                                              \
        PAIR_TYPES(T, S);                                                                          \
        V length = length_##T(x), zero = {0};                                                      \
        return EITHER(length == 0, PARTS(zero, zero), PARTS(x.re / length, x.im / length));        \
    }                                                                                              \
    /* From the nearer end. */                                                                     \
    ALWAYS_INLINE P_##T lerp_##T(P_##T x, P_##T y, P_##T weight)                                   \
    {                                                                                              \
        PAIR_TYPES(T, S);                                                                          \
        P way = MINUS(y, x), rest = PARTS(1 - weight.re, -weight.im);                              \
        P from_x = times_##T(weight, way), from_y = times_##T(way, rest);                          \
        M near = weight.re * weight.re + weight.im * weight.im < (E_##S)0.25;                      \
        return EITHER(near, PLUS(x, from_x), MINUS(y, from_y));                                    \
    }
DEFINE_PAIR_ARITHMETIC(c64, f32)
DEFINE_PAIR_ARITHMETIC(c128, f64)

#endif
