/* Vector functions that lanes.c's kernel lines are written with, beyond those of vec.h: signs,
 * rounding, remainders. All are exact, or correctly rounded, on every instruction set.
 *
 * Names in capitals hold for both float dtypes.
 */
#ifndef SP_CPU_LANES_MATH_H
#define SP_CPU_LANES_MATH_H

#include <math.h>

#include "backends/cpu/lanes_erf.h"
#include "backends/cpu/lanes_wide.h"
#include "backends/cpu/vec.h"

#define BOTH(name, x)      _Generic((x), V_f32 : name##_of_f32, V_f64 : name##_of_f64)
#define NUMBER_LIKE(x, c)  _Generic((x), V_f32 : (float)(c), V_f64 : (double)(c))
#define ABS(x)             BOTH(abs, x)(x)
#define COPYSIGN(x, y)     BOTH(copysign, x)(x, y)
#define SIGN_BIT(x)        BOTH(sign_bit, x)(x)
#define FLOOR(x)           BOTH(floor, x)(x)
#define CEIL(x)            BOTH(ceil, x)(x)
#define TRUNC(x)           BOTH(trunc, x)(x)
#define ROUND(x)           BOTH(round, x)(x)
#define FMOD(x, y)         BOTH(fmod, x)(x, y)
#define FLOOR_MOD(x, y)    BOTH(floor_mod, x)(x, y)
#define FLOOR_DIVIDE(x, y) BOTH(floor_divide, x)(x, y)

/* ---- signs ----- */

#define DEFINE_SIGNS(T, SIGN)                                                                      \
    ALWAYS_INLINE V_##T abs_of_##T(V_##T x)                                                        \
    {                                                                                              \
        return (V_##T)((M_##T)x & ~(SIGN));                                                        \
    }                                                                                              \
    ALWAYS_INLINE V_##T copysign_of_##T(V_##T x, V_##T y)                                          \
    {                                                                                              \
        return (V_##T)(((M_##T)x & ~(SIGN)) | ((M_##T)y & (SIGN)));                                \
    }                                                                                              \
    ALWAYS_INLINE M_##T sign_bit_of_##T(V_##T x)                                                   \
    {                                                                                              \
        return (M_##T)x < 0;                                                                       \
    }                                                                                              \
    ALWAYS_INLINE int any_##T(M_##T m)                                                             \
    {                                                                                              \
        static const M_##T none;                                                                   \
        return memcmp(&m, &none, sizeof m) != 0;                                                   \
    }
DEFINE_SIGNS(f32, INT32_MIN)
DEFINE_SIGNS(f64, INT64_MIN)

/* ---- rounding ----- */

#if VB == 64
#define ROUND_TO(name, mode)                                                                       \
    ALWAYS_INLINE V_f32 name##_of_f32(V_f32 x)                                                     \
    {                                                                                              \
        return (V_f32)_mm512_roundscale_ps((sleef_f32)x, mode);                                    \
    }                                                                                              \
    ALWAYS_INLINE V_f64 name##_of_f64(V_f64 x)                                                     \
    {                                                                                              \
        return (V_f64)_mm512_roundscale_pd((sleef_f64)x, mode);                                    \
    }
#elif VB == 32
#define ROUND_TO(name, mode)                                                                       \
    ALWAYS_INLINE V_f32 name##_of_f32(V_f32 x)                                                     \
    {                                                                                              \
        return (V_f32)_mm256_round_ps((sleef_f32)x, mode);                                         \
    }                                                                                              \
    ALWAYS_INLINE V_f64 name##_of_f64(V_f64 x)                                                     \
    {                                                                                              \
        return (V_f64)_mm256_round_pd((sleef_f64)x, mode);                                         \
    }
#else
/* SSE2 has no instruction for it. */
#define ROUND_TO(name, mode)                                                                       \
    ALWAYS_INLINE V_f32 name##_of_f32(V_f32 x)                                                     \
    {                                                                                              \
        for (int i = 0; i < N_f32; i++) x[i] = MODE_##mode(f)(x[i]);                               \
        return x;                                                                                  \
    }                                                                                              \
    ALWAYS_INLINE V_f64 name##_of_f64(V_f64 x)                                                     \
    {                                                                                              \
        for (int i = 0; i < N_f64; i++) x[i] = MODE_##mode()(x[i]);                                \
        return x;                                                                                  \
    }
#define MODE_DOWN(f)    floor##f
#define MODE_UP(f)      ceil##f
#define MODE_TO_ZERO(f) trunc##f
#define MODE_NEAREST(f) rint##f
#endif
#if VB > 16
#define DOWN    (_MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)
#define UP      (_MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC)
#define TO_ZERO (_MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC)
#define NEAREST (_MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
#endif
ROUND_TO(floor, DOWN)
ROUND_TO(ceil, UP)
ROUND_TO(trunc, TO_ZERO)
ROUND_TO(round, NEAREST)

/* ---- remainders ----- */

/* SLEEF's fmod takes a bounded number of steps; quotients beyond them go to libm. */
#define DEFINE_REMAINDERS(T, SLEEF_FMOD, FMOD_ONE, sleef_T)                                        \
    ALWAYS_INLINE V_##T fmod_of_##T(V_##T x, V_##T y)                                              \
    {                                                                                              \
        V_##T r = (V_##T)SLEEF_FMOD((sleef_T)x, (sleef_T)y);                                       \
        M_##T rest = ~(abs_of_##T(x) < abs_of_##T(y) * (E_##T)0x1p60);                             \
        if (any_##T(rest))                                                                         \
            for (int i = 0; i < N_##T; i++) r[i] = FMOD_ONE(x[i], y[i]);                           \
        return r;                                                                                  \
    }                                                                                              \
    /* With the sign of y. */                                                                      \
    ALWAYS_INLINE V_##T floor_mod_of_##T(V_##T x, V_##T y)                                         \
    {                                                                                              \
        V_##T r = fmod_of_##T(x, y);                                                               \
        M_##T other_sign = (r != 0) & ((r < 0) ^ (y < 0));                                         \
        V_##T turned = r + y;                                                                      \
        return (V_##T)((other_sign & (M_##T)turned) | (~other_sign & (M_##T)r));                   \
    }                                                                                              \
    /* The largest integer up to x / y, x - floor_mod(x, y) over y, put right where it rounds. */  \
    ALWAYS_INLINE V_##T floor_divide_of_##T(V_##T x, V_##T y)                                      \
    {                                                                                              \
        V_##T one = splat_##T(1), r = fmod_of_##T(x, y), exact = x / y, quotient = (x - r) / y;    \
        quotient -= (V_##T)(((r != 0) & ((r < 0) ^ (y < 0))) & (M_##T)one);                        \
        V_##T whole = floor_of_##T(quotient);                                                      \
        whole += (V_##T)((quotient - whole > (E_##T)0.5) & (M_##T)one);                            \
        M_##T zero = quotient == 0, by_zero = y == 0;                                              \
        whole =                                                                                    \
            (V_##T)((zero & (M_##T)copysign_of_##T(quotient, exact)) | (~zero & (M_##T)whole));    \
        return (V_##T)((by_zero & (M_##T)exact) | (~by_zero & (M_##T)whole));                      \
    }
#if VB == 64
DEFINE_REMAINDERS(f32, Sleef_fmodf16_avx512f, fmodf, sleef_f32)
DEFINE_REMAINDERS(f64, Sleef_fmodd8_avx512f, fmod, sleef_f64)
#elif VB == 32
DEFINE_REMAINDERS(f32, Sleef_fmodf8_avx2, fmodf, sleef_f32)
DEFINE_REMAINDERS(f64, Sleef_fmodd4_avx2, fmod, sleef_f64)
#else
DEFINE_REMAINDERS(f32, Sleef_fmodf4_sse2, fmodf, sleef_f32)
DEFINE_REMAINDERS(f64, Sleef_fmodd2_sse2, fmod, sleef_f64)
#endif

/* Whole numbers: wrapping, and 0 where y is 0. */
static inline int64_t divide_i64(int64_t x, int64_t y)
{
    return y == 0 ? 0 : y == -1 ? (int64_t)(0 - (uint64_t)x) : x / y;
}

static inline int64_t fmod_i64(int64_t x, int64_t y)
{
    return y == 0 || y == -1 ? 0 : x % y;
}

static inline int64_t remainder_i64(int64_t x, int64_t y)
{
    int64_t r = fmod_i64(x, y);
    return r != 0 && (r < 0) != (y < 0) ? r + y : r;
}

static inline int64_t floor_divide_i64(int64_t x, int64_t y)
{
    int64_t r = fmod_i64(x, y);
    return divide_i64(x, y) - (r != 0 && (r < 0) != (y < 0));
}

/* ---- functions from SLEEF ----- */

DEFINE_MATH(exp2, u10)
DEFINE_MATH(expm1, u10)
DEFINE_MATH(log2, u10)
DEFINE_MATH(log10, u10)
DEFINE_MATH(log1p, u10)
DEFINE_MATH(sin, u10)
DEFINE_MATH(cos, u10)
DEFINE_MATH(tan, u10)
DEFINE_MATH(asin, u10)
DEFINE_MATH(acos, u10)
DEFINE_MATH(atan, u10)
DEFINE_MATH(sinh, u10)
DEFINE_MATH(cosh, u10)
DEFINE_MATH(asinh, u10)
DEFINE_MATH(acosh, u10)
DEFINE_MATH(atanh, u10)
DEFINE_MATH(sinpi, u05)
DEFINE_MATH(erf, u10)
DEFINE_MATH(erfc, u15)

#define DEFINE_MATH2(name, precision)                                                              \
    ALWAYS_INLINE V_f32 name##_of_f32(V_f32 x, V_f32 y)                                            \
    {                                                                                              \
        return (V_f32)SLEEF_F32(name, precision)((sleef_f32)x, (sleef_f32)y);                      \
    }                                                                                              \
    ALWAYS_INLINE V_f64 name##_of_f64(V_f64 x, V_f64 y)                                            \
    {                                                                                              \
        return (V_f64)SLEEF_F64(name, precision)((sleef_f64)x, (sleef_f64)y);                      \
    }
DEFINE_MATH2(atan2, u10)
DEFINE_MATH2(hypot, u05)

/* SLEEF gives up beyond FAR (its square overflows) and beyond HUGE (log1p). */
#define DEFINE_FAR(T, FAR, HUGE)                                                                   \
    ALWAYS_INLINE V_##T log1p_all_of_##T(V_##T x)                                                  \
    {                                                                                              \
        V_##T r = log1p_of_##T(x);                                                                 \
        M_##T far = x > (E_##T)HUGE;                                                               \
        if (any_##T(far)) r = (V_##T)((far & (M_##T)log_of_##T(x)) | (~far & (M_##T)r));           \
        return r;                                                                                  \
    }                                                                                              \
    ALWAYS_INLINE V_##T asinh_all_of_##T(V_##T x)                                                  \
    {                                                                                              \
        V_##T r = asinh_of_##T(x), size = abs_of_##T(x);                                           \
        M_##T far = size > (E_##T)FAR;                                                             \
        if (any_##T(far)) {                                                                        \
            V_##T log = copysign_of_##T(log_of_##T(size) + (E_##T)M_LN2, x);                       \
            r = (V_##T)((far & (M_##T)log) | (~far & (M_##T)r));                                   \
        }                                                                                          \
        return r;                                                                                  \
    }                                                                                              \
    ALWAYS_INLINE V_##T acosh_all_of_##T(V_##T x)                                                  \
    {                                                                                              \
        V_##T r = acosh_of_##T(x);                                                                 \
        M_##T far = x > (E_##T)FAR;                                                                \
        if (any_##T(far)) {                                                                        \
            V_##T log = log_of_##T(x) + (E_##T)M_LN2;                                              \
            r = (V_##T)((far & (M_##T)log) | (~far & (M_##T)r));                                   \
        }                                                                                          \
        return r;                                                                                  \
    }
/* Halves, because SLEEF's sinh overflows before the result does. */
#define DEFINE_SINH(T, FAR)                                                                        \
    ALWAYS_INLINE V_##T sinh_all_of_##T(V_##T x)                                                   \
    {                                                                                              \
        V_##T r = sinh_of_##T(x), size = abs_of_##T(x);                                            \
        M_##T far = size > (E_##T)FAR;                                                             \
        if (any_##T(far)) {                                                                        \
            V_##T root = exp_of_##T(size * (E_##T)0.5);                                            \
            V_##T grown = copysign_of_##T(root * (E_##T)0.5 * root, x);                            \
            r = (V_##T)((far & (M_##T)grown) | (~far & (M_##T)r));                                 \
        }                                                                                          \
        return r;                                                                                  \
    }
DEFINE_SINH(f32, 88)
DEFINE_SINH(f64, 709)
DEFINE_FAR(f32, 1e18, 1e37)
DEFINE_FAR(f64, 1e150, 1e306)

/* ---- the normal distribution ----- */

/* erfc(-x / sqrt(2)) / 2. The rounding error e of t = -x / sqrt(2) would be magnified for negative
 * x: it is computed from halves of the factors, whose products are exact, and made good with
 * erfc(t + e) = erfc(t) (1 - e r), r being nearly t + sqrt(t t + 4 / pi). */
#define DEFINE_NORMAL(T, HALF, C_HIGH, C_LOW)                                                      \
    ALWAYS_INLINE V_##T normal_of_##T(V_##T x)                                                     \
    {                                                                                              \
        V_##T t = x * (E_##T) - M_SQRT1_2, high = (V_##T)((M_##T)x & HALF), low = x - high;        \
        V_##T e = high * (E_##T) - C_HIGH - t - high * (E_##T)C_LOW - low * (E_##T)M_SQRT1_2;      \
        V_##T p = erfc_of_##T(t), r = t + sqrt_of_##T(t * t + (E_##T)(4 * M_1_PI));                \
        M_##T near = abs_of_##T(x) < 1000;                                                         \
        return (E_##T)0.5 * (p - (V_##T)(near & (M_##T)(p * (e * r))));                            \
    }
DEFINE_NORMAL(f64, ~0x7ffffffLL, 0.707106769084930419921875, 1.210161710447896936e-8)

/* ---- activations ----- */

/* Far below 0, exp(x) is less than a normal number long before x exp(x) is: there it is
 * exp(x + shift), which is exact to add, and times scale at the end. */
#define DEFINE_FAR_BELOW(T, BELOW, SHIFT, SCALE)                                                   \
    ALWAYS_INLINE V_##T far_shift_of_##T(V_##T x)                                                  \
    {                                                                                              \
        return (V_##T)((M_##T)(x < BELOW) & (M_##T)splat_##T(SHIFT));                              \
    }                                                                                              \
    ALWAYS_INLINE V_##T far_scale_of_##T(V_##T x)                                                  \
    {                                                                                              \
        M_##T far = x < BELOW;                                                                     \
        return (V_##T)((far & (M_##T)splat_##T(SCALE)) | (~far & (M_##T)splat_##T(1)));            \
    }
DEFINE_FAR_BELOW(f32, -64, 32, (float)1.2664165549094176e-14)
DEFINE_FAR_BELOW(f64, -512, 256, 6.616261056709485e-112)

#define DEFINE_ACTIVATIONS(T)                                                                      \
    ALWAYS_INLINE V_##T sigmoid_of_##T(V_##T x)                                                    \
    {                                                                                              \
        return 1 / (exp_of_##T(-x) + 1);                                                           \
    }                                                                                              \
    /* log(1 + exp(x)) */                                                                          \
    ALWAYS_INLINE V_##T softplus_of_##T(V_##T x)                                                   \
    {                                                                                              \
        V_##T above = (V_##T)(~(x < 0) & (M_##T)x);                                                \
        return above + log1p_of_##T(exp_of_##T(-abs_of_##T(x)));                                   \
    }                                                                                              \
    ALWAYS_INLINE V_##T silu_of_##T(V_##T x)                                                       \
    {                                                                                              \
        return x / (exp_of_##T(-x - far_shift_of_##T(x)) + 1) * far_scale_of_##T(x);               \
    }                                                                                              \
    /* x tanh(log(1 + exp(x))) by w = exp(x); x from 20 on. */                                     \
    ALWAYS_INLINE V_##T mish_of_##T(V_##T x)                                                       \
    {                                                                                              \
        V_##T w = exp_of_##T(x + far_shift_of_##T(x)), n = w * (w + 2), one = splat_##T(1);        \
        M_##T far = x > 20;                                                                        \
        V_##T factor = (V_##T)((far & (M_##T)one) | (~far & (M_##T)(n / (n + 2))));                \
        return x * factor * far_scale_of_##T(x);                                                   \
    }                                                                                              \
    /* (1 + tanh(u)) / 2 is sigmoid(2 u); u is sqrt(2 / pi) (x + 0.044715 x ** 3). */              \
    ALWAYS_INLINE V_##T gelu_tanh_##T(V_##T x)                                                     \
    {                                                                                              \
        V_##T u = x * (1 + x * x * (E_##T)0.044715) * (E_##T)(M_SQRT2 * M_2_SQRTPI);               \
        return x * sigmoid_of_##T(u);                                                              \
    }                                                                                              \
    ALWAYS_INLINE V_##T gelu_backward_tanh_##T(V_##T grad, V_##T x)                                \
    {                                                                                              \
        const E_##T k = (E_##T)(M_SQRT2 * M_2_SQRTPI);                                             \
        V_##T s = sigmoid_of_##T(x * (1 + x * x * (E_##T)0.044715) * k);                           \
        V_##T slope = (1 + x * x * (E_##T)(3 * 0.044715)) * k;                                     \
        return grad * (s + x * s * (1 - s) * slope);                                               \
    }
DEFINE_ACTIVATIONS(f32)
DEFINE_ACTIVATIONS(f64)

ALWAYS_INLINE V_f64 quick_erf_of_f64(V_f64 x)
{
    return erf_of_f64(x);
}

ALWAYS_INLINE V_f64 quick_erfc_of_f64(V_f64 x)
{
    return erfc_of_f64(x);
}

/* Near 1/2, where log(x / (1 - x)) would cancel, it is +-log1p(|2 x - 1| / min(x, 1 - x)): only the
 * quotient is rounded there, and its logarithm does not magnify that. */
ALWAYS_INLINE V_f64 quick_logit_of_f64(V_f64 x)
{
    typedef V_f64 V;
    typedef M_f64 M;
    M near = abs_of_f64(x - 0.5) <= 0.25, low = x < 0.5;
    V centre = abs_of_f64(x + x - 1) / SELECT(low, x, 1 - x);
    V quotient = SELECT(near, centre, x / (1 - x));
    if (!any_f64(near)) return log_of_f64(quotient);
    V part = log1p_of_f64(quotient);
    return SELECT(near, SELECT(low, -part, part), log_of_f64(quotient));
}

ALWAYS_INLINE V_f64 gelu_none_f64(V_f64 x)
{
    return x * normal_of_f64(x);
}

ALWAYS_INLINE V_f64 gelu_backward_none_f64(V_f64 grad, V_f64 x)
{
    V_f64 density = exp_of_f64(x * x * -0.5) * (0.5 * M_SQRT1_2 * M_2_SQRTPI);
    return grad * (normal_of_f64(x) + x * density);
}

#define MATH(name, x)     BOTH(name, x)(x)
#define MATH2(name, x, y) BOTH(name, x)(x, y)

#endif
