/* Exponentials, logarithms, powers and the like of complex numbers, computed in complex128.
 *
 * By the real functions of the parts, as their definitions have it; complex64 is converted, and its
 * results rounded once. Where that is not good for an operand (infinities, NaN, zeros of
 * logarithms, sizes near the ends of the range), that element is the C library's, with the branch
 * cuts and special values of C's Annex G. asin, acos and the like are the library's for all.
 */
#ifndef SP_CPU_LANES_COMPLEX_EXP_H
#define SP_CPU_LANES_COMPLEX_EXP_H

#include <complex.h>
#include <float.h>
#include <math.h>
#undef I /* <complex.h>'s words for the imaginary unit and for _Complex */
#undef complex

#include "backends/cpu/lanes_complex_math.h"

#define NOINLINE static __attribute__((noinline, unused))

typedef E_c128 (*library_fn)(E_c128);

/* z, and where x is not ordinary, the library's. */
ALWAYS_INLINE P_c128 or_library(M_f64 ordinary, P_c128 z, P_c128 x, library_fn f)
{
    if (!any_f64(~ordinary)) return z;
    for (int i = 0; i < N_f64; i++) {
        if (ordinary[i]) continue;
        E_c128 r = f(__builtin_complex(x.re[i], x.im[i]));
        z.re[i] = __real__ r, z.im[i] = __imag__ r;
    }
    return z;
}

ALWAYS_INLINE M_f64 sized(V_f64 x, double least, double most)
{
    V_f64 size = ABS(x);
    return (size >= least) & (size <= most);
}

/* Exponents and angles that the functions below are good for. */
ALWAYS_INLINE M_f64 in_range(P_c128 x, double most)
{
    return sized(x.re, 0, most) & sized(x.im, 0, FAR_ANGLE_f64);
}

/* cos(angle) + sin(angle) i, for angles up to 1e14. SLEEF reduces a whole vector as its largest
 * angle needs: small ones go by themselves, so that they do not depend on their neighbours. */
NOINLINE P_c128 turned_by(V_f64 angle)
{
    typedef P_c128 P;
    typedef V_f64 V;
    typedef M_f64 M;
    M small = ABS(angle) < NEAR_ANGLE_f64, large = ~small & sized(angle, 0, FAR_ANGLE_f64);
    V zero = {0};
    __typeof__(SLEEF_F64(sincos, u10)((sleef_f64)zero)) r;
    r = SLEEF_F64(sincos, u10)((sleef_f64)SELECT(small, angle, zero));
    P z = {(V)r.y, (V)r.x};
    if (!any_f64(large)) return z;
    r = SLEEF_F64(sincos, u10)((sleef_f64)SELECT(large, angle, zero));
    return EITHER(large, ((P){(V)r.y, (V)r.x}), z);
}

/* ---- exponentials ----- */

NOINLINE P_c128 exp_c128(P_c128 x)
{
    P_c128 turn = turned_by(x.im);
    V_f64 size = EXP(x.re);
    P_c128 z = {size * turn.re, size * turn.im};
    return or_library(in_range(x, 700), z, x, cexp);
}

static E_c128 library_exp2(E_c128 x)
{
    return cexp(__builtin_complex(__real__ x * M_LN2, __imag__ x * M_LN2));
}

NOINLINE P_c128 exp2_c128(P_c128 x)
{
    P_c128 turn = turned_by(x.im * M_LN2);
    V_f64 size = MATH(exp2, x.re);
    P_c128 z = {size * turn.re, size * turn.im};
    return or_library(in_range(x, 1000), z, x, library_exp2);
}

/* What cancels in exp(x) - 1 is written as a square. */
static E_c128 library_expm1(E_c128 x)
{
    double re = __real__ x, im = __imag__ x, half = sin(im / 2);
    return __builtin_complex(expm1(re) * cos(im) - 2 * half * half, exp(re) * sin(im));
}

NOINLINE P_c128 expm1_c128(P_c128 x)
{
    P_c128 turn = turned_by(x.im);
    V_f64 half = turned_by(x.im * 0.5).im;
    P_c128 z = {MATH(expm1, x.re) * turn.re - 2 * half * half, EXP(x.re) * turn.im};
    return or_library(in_range(x, 700), z, x, library_expm1);
}

ALWAYS_INLINE P_c128 plain_sinh(P_c128 x)
{
    P_c128 turn = turned_by(x.im);
    return (P_c128){MATH(sinh, x.re) * turn.re, MATH(cosh, x.re) * turn.im};
}

ALWAYS_INLINE P_c128 plain_cosh(P_c128 x)
{
    P_c128 turn = turned_by(x.im);
    return (P_c128){MATH(cosh, x.re) * turn.re, MATH(sinh, x.re) * turn.im};
}

/* (sinh re cosh re + i sin im cos im) / (sinh re sinh re + cos im cos im) */
ALWAYS_INLINE P_c128 plain_tanh(P_c128 x)
{
    P_c128 turn = turned_by(x.im);
    V_f64 s = MATH(sinh, x.re), down = s * s + turn.re * turn.re;
    return (P_c128){s * MATH(cosh, x.re) / down, turn.im * turn.re / down};
}

/* And of the circle: f(i x) / i, for cos f(i x). */
#define DEFINE_CIRCULAR(hyperbolic, circular, most, re_of, im_of)                                  \
    NOINLINE P_c128 hyperbolic##_c128(P_c128 x)                                                    \
    {                                                                                              \
        return or_library(in_range(x, most), plain_##hyperbolic(x), x, c##hyperbolic);             \
    }                                                                                              \
    NOINLINE P_c128 circular##_c128(P_c128 x)                                                      \
    {                                                                                              \
        P_c128 turned = {-x.im, x.re}, z = plain_##hyperbolic(turned);                             \
        return or_library(in_range(turned, most), (P_c128){re_of, im_of}, x, c##circular);         \
    }
DEFINE_CIRCULAR(sinh, sin, 700, z.im, -z.re)
DEFINE_CIRCULAR(cosh, cos, 700, z.re, z.im)
DEFINE_CIRCULAR(tanh, tan, 300, z.im, -z.re)

static E_c128 library_sinc(E_c128 x)
{
    E_c128 turn = __builtin_complex(__real__ x * M_PI, __imag__ x * M_PI);
    return x == 0 ? 1 : csin(turn) / turn;
}

/* sin(pi x) / (pi x); pi times the real part is not rounded. */
NOINLINE P_c128 sinc_c128(P_c128 x)
{
    P_c128 turn = {x.re * M_PI, x.im * M_PI};
    V_f64 s = MATH(sinpi, x.re), c = (V_f64)SLEEF_F64(cospi, u05)((sleef_f64)x.re);
    P_c128 z = {s * MATH(cosh, turn.im), c * MATH(sinh, turn.im)};
    M_f64 ordinary = sized(x.re, 0, 1e9) & sized(x.im, 0, 200) & ((x.re != 0) | (x.im != 0));
    return or_library(ordinary, over_c128(z, turn), x, library_sinc);
}

/* ---- logarithms ----- */

/* What x x lacks: the product of halves of the digits is exact (Dekker). */
ALWAYS_INLINE V_f64 square_error(V_f64 x, V_f64 square)
{
    V_f64 wide = x * 0x8000001p0, high = wide - (wide - x), low = x - high;
    return ((high * high - square) + 2 * high * low) + low * low;
}

/* re re + im im - 1, with all its digits where it cancels; large: the larger of the two, about 1.
 */
ALWAYS_INLINE V_f64 square_less_one(V_f64 large, V_f64 small)
{
    V_f64 a = large * large, b = small * small;
    V_f64 t = a - 1, t_error = a - (t + 1), sum = t + b, back = sum - t;
    V_f64 sum_error = (t - (sum - back)) + (b - back);
    return sum + ((t_error + sum_error) + (square_error(large, a) + square_error(small, b)));
}

/* (log |x|, angle); near |x| = 1 the first is small. */
NOINLINE P_c128 log_c128(P_c128 x)
{
    typedef V_f64 V;
    typedef M_f64 M;
    V a = ABS(x.re), b = ABS(x.im), large = SELECT(a > b, a, b), small = SELECT(a > b, b, a);
    V square = large * large + small * small;
    M near = (square > 0.5) & (square < 3),
      ordinary = sized(large, 1e-150, 1e150) & (small == small);
    P_c128 z = {LOG(square), MATH2(atan2, x.im, x.re)};
    if (any_f64(near)) z.re = SELECT(near, MATH(log1p, square_less_one(large, small)), z.re);
    z.re *= 0.5;
    return or_library(ordinary, z, x, clog);
}

NOINLINE P_c128 log2_c128(P_c128 x)
{
    P_c128 z = log_c128(x);
    return (P_c128){z.re * M_LOG2E, z.im * M_LOG2E};
}

NOINLINE P_c128 log10_c128(P_c128 x)
{
    P_c128 z = log_c128(x);
    return (P_c128){z.re * M_LOG10E, z.im * M_LOG10E};
}

/* Near 0, |1 + x| is the root of 1 + re (2 + re) + im im. */
NOINLINE P_c128 log1p_c128(P_c128 x)
{
    typedef V_f64 V;
    typedef M_f64 M;
    V one = x.re + 1, more = x.re * (x.re + 2) + x.im * x.im;
    M near = length_c128(x) < 0.5;
    V size = LOG(length_c128((P_c128){one, x.im}));
    if (any_f64(near)) size = SELECT(near, SELECT(more == 0, x.re, MATH(log1p, more) * 0.5), size);
    return (P_c128){size, MATH2(atan2, x.im, one)};
}

/* Less the larger real part, so that nothing overflows. */
NOINLINE P_c128 logaddexp_c128(P_c128 x, P_c128 y)
{
    typedef P_c128 P;
    typedef V_f64 V;
    typedef M_f64 M;
    M first = (x.re >= y.re) | (x.re != x.re), same = x.re == y.re;
    P most = EITHER(first, x, y), other = EITHER(first, y, x);
    P z = log1p_c128(exp_c128(MINUS(other, most)));
    z = PLUS(most, z);
    M infinite = ABS(most.re) == INFINITY;
    if (any_f64(infinite)) {
        P a = exp_c128(x), b = exp_c128(y), sum = log_c128(PLUS(a, b));
        z = EITHER(infinite, EITHER(same, sum, most), z);
    }
    return z;
}

/* ---- roots and powers ----- */

NOINLINE P_c128 sqrt_c128(P_c128 x)
{
    typedef V_f64 V;
    typedef M_f64 M;
    V a = ABS(x.re), b = ABS(x.im), most = larger_of_f64(a, b);
    V root = SQRT((length_c128(x) + a) * 0.5), rest = b / (root + root);
    M left = x.re < 0;
    P_c128 z = {SELECT(left, rest, root), COPYSIGN(SELECT(left, root, rest), x.im)};
    return or_library(sized(most, 1e-290, 1e300) & (a == a) & (b == b), z, x, csqrt);
}

NOINLINE P_c128 rsqrt_c128(P_c128 x)
{
    return over_c128((P_c128){splat_f64(1), splat_f64(0)}, sqrt_c128(x));
}

enum { MOST_SQUARED = 64 }; /* whole exponents up to here are done by squaring */

#define DEFINE_WHOLE_POWER(T, S, MAGIC)                                                            \
    /* Exponents that are whole numbers, and which: MAGIC leaves no room for a fraction. */        \
    ALWAYS_INLINE M_##S whole_exponent_##T(P_##T y, M_##S *n)                                      \
    {                                                                                              \
        V_##S size = abs_of_##S(y.re), moved = size + MAGIC;                                       \
        *n = (M_##S)moved & 0x7f;                                                                  \
        return (y.im == 0) & (size <= MOST_SQUARED) & (moved - MAGIC == size);                     \
    }                                                                                              \
    /* x to the n, or to the -n, by squaring. */                                                   \
    NOINLINE P_##T whole_power_##T(P_##T x, M_##S n, M_##S down)                                   \
    {                                                                                              \
        typedef P_##T P;                                                                           \
        typedef V_##S V;                                                                           \
        typedef M_##S M;                                                                           \
        P one = {splat_##S(1), splat_##S(0)}, result = one;                                        \
        for (M begun = {0}; any_##S(n != 0);) {                                                    \
            M odd = (n & 1) != 0;                                                                  \
            if (any_##S(odd)) {                                                                    \
                P product = times_##T(result, x);                                                  \
                result = EITHER(odd, EITHER(begun, product, x), result), begun |= odd;             \
            }                                                                                      \
            n >>= 1;                                                                               \
            if (any_##S(n != 0)) x = times_##T(x, x);                                              \
        }                                                                                          \
        return any_##S(down) ? EITHER(down, over_##T(one, result), result) : result;               \
    }
DEFINE_WHOLE_POWER(c64, f32, 0x1.8p23f)
DEFINE_WHOLE_POWER(c128, f64, 0x1.8p52)

/* exp(y log x), and 0 where x is and y is above 0. */
NOINLINE P_c128 any_power_c128(P_c128 x, P_c128 y)
{
    typedef P_c128 P;
    typedef V_f64 V;
    typedef M_f64 M;
    M zero = (x.re == 0) & (x.im == 0), half = (y.im == 0) & (y.re == 0.5);
    M ordinary = ~zero & sized(x.re, 0, DBL_MAX) & sized(x.im, 0, DBL_MAX) &
                 sized(y.re, 0, DBL_MAX) & sized(y.im, 0, DBL_MAX);
    P z = exp_c128(times_c128(y, log_c128(x)));
    if (any_f64(half)) z = EITHER(half, sqrt_c128(x), z);
    if (!any_f64(~(ordinary | half))) return z;
    for (int i = 0; i < N_f64; i++) {
        if (ordinary[i] || half[i]) continue;
        E_c128 r = zero[i] && y.re[i] > 0 ? 0
                                          : cpow(__builtin_complex(x.re[i], x.im[i]),
                                                 __builtin_complex(y.re[i], y.im[i]));
        z.re[i] = __real__ r, z.im[i] = __imag__ r;
    }
    return z;
}

/* ---- of these ----- */

NOINLINE P_c128 sigmoid_c128(P_c128 x)
{
    P_c128 down = exp_c128((P_c128){-x.re, -x.im});
    return over_c128((P_c128){splat_f64(1), splat_f64(0)}, (P_c128){down.re + 1, down.im});
}

NOINLINE P_c128 silu_c128(P_c128 x)
{
    return times_c128(x, sigmoid_c128(x));
}

NOINLINE P_c128 silu_backward_c128(P_c128 grad, P_c128 x)
{
    P_c128 s = sigmoid_c128(x), slope = times_c128(x, (P_c128){1 - s.re, -s.im});
    return times_c128(times_c128(grad, s), (P_c128){slope.re + 1, slope.im});
}

#define DEFINE_LIBRARYS(name)                                                                      \
    NOINLINE P_c128 name##_c128(P_c128 x)                                                          \
    {                                                                                              \
        return or_library((M_f64){0}, x, x, c##name);                                              \
    }
DEFINE_LIBRARYS(asin)
DEFINE_LIBRARYS(acos)
DEFINE_LIBRARYS(atan)
DEFINE_LIBRARYS(asinh)
DEFINE_LIBRARYS(acosh)
DEFINE_LIBRARYS(atanh)

/* ---- of complex64 ----- */

typedef struct halves_c64 {
    H_f32 re[2], im[2];
} halves_c64;

ALWAYS_INLINE P_c128 half_of(const halves_c64 *x, int i)
{
    return (P_c128){__builtin_convertvector(x->re[i], V_f64),
                    __builtin_convertvector(x->im[i], V_f64)};
}

ALWAYS_INLINE void put_half(halves_c64 *to, int i, P_c128 z)
{
    to->re[i] = __builtin_convertvector(z.re, H_f32),
    to->im[i] = __builtin_convertvector(z.im, H_f32);
}

#define DEFINE_BY_HALVES1(name)                                                                    \
    ALWAYS_INLINE P_c64 name##_c64(P_c64 x)                                                        \
    {                                                                                              \
        halves_c64 half;                                                                           \
        memcpy(&half, &x, sizeof half);                                                            \
        for (int i = 0; i < 2; i++) put_half(&half, i, name##_c128(half_of(&half, i)));            \
        memcpy(&x, &half, sizeof x);                                                               \
        return x;                                                                                  \
    }
#define DEFINE_BY_HALVES2(name)                                                                    \
    ALWAYS_INLINE P_c64 name##_c64(P_c64 x, P_c64 y)                                               \
    {                                                                                              \
        halves_c64 half, other;                                                                    \
        memcpy(&half, &x, sizeof half), memcpy(&other, &y, sizeof other);                          \
        for (int i = 0; i < 2; i++)                                                                \
            put_half(&half, i, name##_c128(half_of(&half, i), half_of(&other, i)));                \
        memcpy(&x, &half, sizeof x);                                                               \
        return x;                                                                                  \
    }
/* clang-format off */
DEFINE_BY_HALVES1(exp) DEFINE_BY_HALVES1(exp2) DEFINE_BY_HALVES1(expm1)
DEFINE_BY_HALVES1(sinh) DEFINE_BY_HALVES1(cosh) DEFINE_BY_HALVES1(tanh)
DEFINE_BY_HALVES1(sin) DEFINE_BY_HALVES1(cos) DEFINE_BY_HALVES1(tan)
DEFINE_BY_HALVES1(asin) DEFINE_BY_HALVES1(acos) DEFINE_BY_HALVES1(atan)
DEFINE_BY_HALVES1(asinh) DEFINE_BY_HALVES1(acosh) DEFINE_BY_HALVES1(atanh)
DEFINE_BY_HALVES1(log) DEFINE_BY_HALVES1(log2) DEFINE_BY_HALVES1(log10) DEFINE_BY_HALVES1(log1p)
DEFINE_BY_HALVES1(sqrt) DEFINE_BY_HALVES1(rsqrt) DEFINE_BY_HALVES1(sinc)
DEFINE_BY_HALVES1(sigmoid) DEFINE_BY_HALVES1(silu)
DEFINE_BY_HALVES2(any_power) DEFINE_BY_HALVES2(logaddexp) DEFINE_BY_HALVES2(silu_backward)
/* clang-format on */

/* ---- pow ----- */

#define DEFINE_POWER(T, S)                                                                         \
    NOINLINE P_##T power_##T(P_##T x, P_##T y)                                                     \
    {                                                                                              \
        typedef P_##T P;                                                                           \
        typedef V_##S V;                                                                           \
        typedef M_##S M;                                                                           \
        M n, whole = whole_exponent_##T(y, &n);                                                    \
        if (!any_##S(whole)) return any_power_##T(x, y);                                           \
        P z = whole_power_##T(x, n & whole, (y.re < 0) & whole);                                   \
        return any_##S(~whole) ? EITHER(whole, z, any_power_##T(x, y)) : z;                        \
    }                                                                                              \
    ALWAYS_INLINE V_##T f_power_##T(V_##T x, V_##T y)                                              \
    {                                                                                              \
        return pairs_##T(power_##T(parts_##T(x), parts_##T(y)));                                   \
    }                                                                                              \
    ALWAYS_INLINE V_##T f_cube_##T(V_##T x_)                                                       \
    {                                                                                              \
        P_##T x = parts_##T(x_);                                                                   \
        return pairs_##T(times_##T(x, times_##T(x, x)));                                           \
    }                                                                                              \
    /* The exponents most often given as a number; by the steps of whole_power(). */               \
    static void lane_pow_##T(void *d, const void *a, const void *b, const void *c, int64_t n,      \
                             unsigned splat)                                                       \
    {                                                                                              \
        E_##S e[2] = {0};                                                                          \
        (void)c;                                                                                   \
        if (n > 0 && splat & 2) memcpy(e, b, sizeof e);                                            \
        if (e[1] == 0 && e[0] == 2)                                                                \
            lane_square_##T(d, a, b, c, n, splat & 1);                                             \
        else if (e[1] == 0 && e[0] == 3)                                                           \
            loop1_##T(d, a, n, splat & 1, f_cube_##T);                                             \
        else if (e[1] == 0 && e[0] == -1)                                                          \
            lane_reciprocal_##T(d, a, b, c, n, splat & 1);                                         \
        else                                                                                       \
            loop2_##T(d, a, b, n, splat, f_power_##T);                                             \
    }

#endif
