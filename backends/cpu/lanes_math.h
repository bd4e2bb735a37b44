/* Vector functions that lanes.c's kernel lines are written with, beyond those of vec.h: signs,
 * rounding, remainders. All are exact, or correctly rounded, on every instruction set.
 *
 * Names in capitals hold for both float dtypes.
 */
#ifndef SP_CPU_LANES_MATH_H
#define SP_CPU_LANES_MATH_H

#include <math.h>

#include "backends/cpu/lanes_erf.h"
#include "backends/cpu/lanes_exact.h"
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
DEFINE_MATH(asin, u10)
DEFINE_MATH(acos, u10)
DEFINE_MATH(atan, u10)
DEFINE_MATH(sinh, u10)
DEFINE_MATH(cosh, u10)
DEFINE_MATH(asinh, u10)
DEFINE_MATH(acosh, u10)
DEFINE_MATH(atanh, u10)
DEFINE_MATH(sinpi, u05)
DEFINE_MATH(cospi, u05)
DEFINE_MATH(erf, u10)
DEFINE_MATH(erfc, u15)

/* SLEEF reduces all angles of a vector as the largest one needs, and ways differ in the last bit:
 * each range goes by itself, so that no element depends on its neighbours. NEAR_ANGLE, FAR_ANGLE:
 * where SLEEF 3.5 goes over to the next way. */
#define NEAR_ANGLE_f32 125
#define FAR_ANGLE_f32  NEAR_ANGLE_f32
#define NEAR_ANGLE_f64 15
#define FAR_ANGLE_f64  1e14
#define DEFINE_BY_RANGES(name, T, SLEEF)                                                           \
    ALWAYS_INLINE V_##T name##_of_##T(V_##T x)                                                     \
    {                                                                                              \
        typedef V_##T V;                                                                           \
        typedef M_##T M;                                                                           \
        V zero = {0}, size = abs_of_##T(x);                                                        \
        M near = size < (E_##T)NEAR_ANGLE_##T, far = ~(size < (E_##T)FAR_ANGLE_##T);               \
        M middle = ~near & ~far;                                                                   \
        V r = (V)SLEEF(name, u10)((sleef_##T)SELECT(near, x, zero));                               \
        if (__builtin_expect(!any_##T(~near), 1)) return r;                                        \
        if (any_##T(middle))                                                                       \
            r = SELECT(middle, (V)SLEEF(name, u10)((sleef_##T)SELECT(middle, x, zero)), r);        \
        if (any_##T(far))                                                                          \
            r = SELECT(far, (V)SLEEF(name, u10)((sleef_##T)SELECT(far, x, zero)), r);              \
        return r;                                                                                  \
    }
DEFINE_BY_RANGES(sin, f32, SLEEF_F32)
DEFINE_BY_RANGES(cos, f32, SLEEF_F32)
DEFINE_BY_RANGES(tan, f32, SLEEF_F32)
DEFINE_BY_RANGES(sin, f64, SLEEF_F64)
DEFINE_BY_RANGES(cos, f64, SLEEF_F64)
DEFINE_BY_RANGES(tan, f64, SLEEF_F64)

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
/* log2(1 + x) for x from 0 to 1, with what the sum leaves out. */
#define DEFINE_LOG2_ABOVE(T)                                                                       \
    ALWAYS_INLINE V_##T log2_above_of_##T(V_##T x)                                                 \
    {                                                                                              \
        V_##T rest, sum = sum_of_sizes_##T(x, splat_##T(1), &rest);                                \
        return log2_of_##T(sum) + rest / sum * (E_##T)M_LOG2E;                                     \
    }
DEFINE_LOG2_ABOVE(f32)
DEFINE_LOG2_ABOVE(f64)

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

/* x / (1 + exp(-x)) and x tanh(log(1 + exp(x))), which is x (1 + 2 v) / (1 + 2 v + 2 v v) with v =
 * exp(-x) and so x / v FAR below 0. There v may be too large for a number where the result is not
 * too small: x and v, and 1, are taken 2^-SHIFT times. */
#define DEFINE_SELF_GATED(T, FAR, SHIFT)                                                           \
    ALWAYS_INLINE V_##T shifted_exp_##T(V_##T x, M_##T far, V_##T *rest)                           \
    {                                                                                              \
        V_##T n, p = exp_pair_##T(x, rest, &n);                                                    \
        V_##T power = power_of_two_##T(n - (V_##T)(far & (M_##T)splat_##T(SHIFT)));                \
        *rest *= power;                                                                            \
        return p * power;                                                                          \
    }                                                                                              \
    ALWAYS_INLINE V_##T silu_of_##T(V_##T x)                                                       \
    {                                                                                              \
        typedef V_##T V;                                                                           \
        typedef M_##T M;                                                                           \
        M far = x < -SHIFT;                                                                        \
        V one = SELECT(far, power_of_two_##T(splat_##T(-SHIFT)), splat_##T(1)), e_rest, rest;      \
        V e = shifted_exp_##T(-x, far, &e_rest), below = sum_of_sizes_##T(e, one, &rest);          \
        return quotient_by_pair_##T(x * one, below, rest + e_rest);                                \
    }                                                                                              \
    ALWAYS_INLINE V_##T mish_of_##T(V_##T x)                                                       \
    {                                                                                              \
        typedef V_##T V;                                                                           \
        typedef M_##T M;                                                                           \
        M far = x < FAR;                                                                           \
        V v_rest, rest, sum_rest, v = shifted_exp_##T(-x, far, &v_rest), w = v + v;                \
        V sum = sum_of_sizes_##T(w, splat_##T(1), &sum_rest);                                      \
        sum_rest += v_rest + v_rest;                                                               \
        V square = product_of_pair_##T(w, v, &rest);                                               \
        rest += 2 * w * v_rest + sum_rest;                                                         \
        V more, below = sum_of_sizes_##T(square, sum, &more), top_rest;                            \
        V top = product_of_pair_##T(x, sum, &top_rest);                                            \
        top_rest += x * sum_rest;                                                                  \
        top = SELECT(far, x * power_of_two_##T(splat_##T(-SHIFT)), top);                           \
        return quotient_of_pairs_##T(top, SELECT(far, (V){0}, top_rest), SELECT(far, v, below),    \
                                     SELECT(far, v_rest, rest + more));                            \
    }
DEFINE_SELF_GATED(f32, -20, 64)
DEFINE_SELF_GATED(f64, -40, 512)

/* x (1 + tanh(u)) / 2 with u = sqrt(2 / pi) (x + 0.044715 x^3), which is x / (1 + exp(-2 u)). An
 * error of 2 u would be magnified: it is kept. A, B: 2 sqrt(2 / pi), and 0.044715 times that. */
#define DEFINE_GELU_TANH(T, A, A_REST, B, B_REST, SHIFT)                                           \
    ALWAYS_INLINE V_##T gelu_tanh_##T(V_##T x)                                                     \
    {                                                                                              \
        typedef V_##T V;                                                                           \
        typedef M_##T M;                                                                           \
        V square_rest, rest, more, twice_rest, e_rest;                                             \
        V square = product_of_pair_##T(x, x, &square_rest);                                        \
        V factor = product_of_pair_##T(square, splat_##T(B), &rest);                               \
        rest += square_rest * (E_##T)(B) + square * (E_##T)(B_REST) + (E_##T)(A_REST);             \
        factor = sum_of_sizes_##T(factor, splat_##T(A), &more);                                    \
        V twice = product_of_pair_##T(factor, x, &twice_rest);                                     \
        twice_rest += x * (rest + more);                                                           \
        M far = twice < -SHIFT;                                                                    \
        V one = SELECT(far, power_of_two_##T(splat_##T(-SHIFT)), splat_##T(1));                    \
        V e = shifted_exp_##T(-twice, far, &e_rest), below = sum_of_sizes_##T(e, one, &rest);      \
        return quotient_by_pair_##T(x * one, below, rest + (e_rest - e * twice_rest));             \
    }
DEFINE_GELU_TANH(f32, 0x1.988454p+0f, -0x1.857936p-25f, 0x1.2444f2p-4f, 0x1.49b16ap-29f, 64)
DEFINE_GELU_TANH(f64, 0x1.9884533d43651p+0, -0x1.cbc0d30ebfd15p-54, 0x1.2444f2a4d8b4bp-4,
                 -0x1.6c843a29d1c7p-61, 512)

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
    ALWAYS_INLINE V_##T gelu_backward_tanh_##T(V_##T grad, V_##T x)                                \
    {                                                                                              \
        const E_##T k = (E_##T)(M_SQRT2 * M_2_SQRTPI);                                             \
        V_##T s = sigmoid_of_##T(x * (1 + x * x * (E_##T)0.044715) * k);                           \
        V_##T slope = (1 + x * x * (E_##T)(3 * 0.044715)) * k;                                     \
        return grad * (s + x * s * (1 - s) * slope);                                               \
    }
DEFINE_ACTIVATIONS(f32)
DEFINE_ACTIVATIONS(f64)

/* sin(pi x) / (pi x): x less the even number next to it, which is exact, has the same sine. Near
 * 0, where it is 1, the divisor's inverse would overflow. */
#define DEFINE_SINC(T, NEAR, PI_REST)                                                              \
    ALWAYS_INLINE V_##T sinc_of_##T(V_##T x)                                                       \
    {                                                                                              \
        V_##T turns = round_of_##T(x * (E_##T)0.5), rest;                                          \
        V_##T below = product_of_pair_##T(x, splat_##T((E_##T)M_PI), &rest);                       \
        V_##T sine = sinpi_of_##T(x - (turns + turns));                                            \
        rest += x * (E_##T)(PI_REST);                                                              \
        V_##T part = quotient_by_pair_##T(sine, below, rest);                                      \
        M_##T near = abs_of_##T(x) < (E_##T)(NEAR);                                                \
        return (V_##T)((near & (M_##T)splat_##T(1)) | (~near & (M_##T)part));                      \
    }
DEFINE_SINC(f32, 1e-4, -8.742278000372485e-8)
DEFINE_SINC(f64, 4e-9, 1.2246467991473532e-16)

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
