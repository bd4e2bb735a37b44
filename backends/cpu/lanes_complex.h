/* Pointwise ops on complex numbers, and the table of their rows.
 *
 * Lines are written with vectors of parts (lanes_pairs.h, lanes_complex_math.h). exp, log, sqrt and
 * the like are the C library's, an element at a time, with the branch cuts and infinities of C's
 * Annex G.
 */
#ifndef SP_CPU_LANES_COMPLEX_H
#define SP_CPU_LANES_COMPLEX_H

#include <complex.h>
#include <math.h>
#undef I /* <complex.h>'s words for the imaginary unit and for _Complex */
#undef complex

#include "backends/cpu/lanes_complex_math.h"

#define RE(x) __real__(x)
#define IM(x) __imag__(x)
/* The library's function for x's precision: of complex numbers, and of parts. */
#define OF(fn, x)                                                                                  \
    _Generic((x), float _Complex : fn##f, double _Complex : fn, float : fn##f, double : fn)(x)
#define OF2(fn, x, y)                                                                              \
    _Generic((x), float _Complex : fn##f, double _Complex : fn, float : fn##f, double : fn)(x, y)

/* Bit k of splat: operand k is one element. */
#define LOAD_PART(E, x, at, bit, i)                                                                \
    E x;                                                                                           \
    memcpy(&x, (const char *)(at) + (splat & (bit) ? 0 : (i)) * (int64_t)sizeof x, sizeof x)
#define STORE_PART(i, result)                                                                      \
    memcpy((char *)d + (i) * (int64_t)sizeof result, &result, sizeof result)

/* C: complex numbers, P: their parts, R: results; MADE(re, im) makes a C. */
#define COMPLEX_LANE(name, T, R, LOADS, expr)                                                      \
    static void lane_##name##_##T(void *d, const void *a, const void *b, const void *c, int64_t n, \
                                  unsigned splat)                                                  \
    {                                                                                              \
        typedef E_##T C __attribute__((unused));                                                   \
        typedef R_##T P __attribute__((unused));                                                   \
        (void)b, (void)c;                                                                          \
        for (int64_t i = 0; i < n; i++) {                                                          \
            LOADS                                                                                  \
            R r = (R)(expr);                                                                       \
            STORE_PART(i, r);                                                                      \
        }                                                                                          \
    }
#define MADE(re, im) __builtin_complex((P)(re), (P)(im))
#define LOADS1       LOAD_PART(C, x, a, 1, i);
#define LOADS2       LOADS1 LOAD_PART(C, y, b, 2, i);
#define LOADS3       LOADS2 LOAD_PART(C, z, c, 4, i);

typedef float R_c64;
typedef double R_c128;

#define FN_COMPLEX(name)                                                                           \
    {                                                                                              \
        [SP_COMPLEX64] = lane_##name##_c64, [SP_COMPLEX128] = lane_##name##_c128                   \
    }

/* ---- one element ----- */

#define DEFINE_COMPLEX(T, S)                                                                       \
    ALWAYS_INLINE E_##T one_times_##T(E_##T x, E_##T y)                                            \
    {                                                                                              \
        return __builtin_complex(RE(x) * RE(y) - IM(x) * IM(y), RE(x) * IM(y) + IM(x) * RE(y));    \
    }                                                                                              \
    static E_##T one_over_##T(E_##T x, E_##T y)                                                    \
    {                                                                                              \
        R_##T a = RE(x), b = IM(x), c = RE(y), d = IM(y);                                          \
        R_##T large = OF(fabs, c) >= OF(fabs, d) ? c : d, small = large == c ? d : c;              \
        if (large == 0) return __builtin_complex(a / OF(fabs, c), b / OF(fabs, d));                \
        R_##T ratio = small / large, scale = 1 / (large + small * ratio);                          \
        if (OF(fabs, c) >= OF(fabs, d))                                                            \
            return __builtin_complex((a + b * ratio) * scale, (b - a * ratio) * scale);            \
        return __builtin_complex((a * ratio + b) * scale, (b * ratio - a) * scale);                \
    }                                                                                              \
    /* x to a whole number, by squaring. */                                                        \
    static E_##T whole_power_##T(E_##T x, int n)                                                   \
    {                                                                                              \
        E_##T result = 1;                                                                          \
        for (unsigned left = (unsigned)(n < 0 ? -n : n); left; left >>= 1) {                       \
            if (left & 1) result = result == 1 ? x : one_times_##T(result, x);                     \
            if (left > 1) x = one_times_##T(x, x);                                                 \
        }                                                                                          \
        return n < 0 ? one_over_##T(1, result) : result;                                           \
    }                                                                                              \
    static E_##T power_##T(E_##T x, E_##T y)                                                       \
    {                                                                                              \
        enum { MOST = 64 };                                                                        \
        R_##T e = RE(y);                                                                           \
        bool real = IM(y) == 0;                                                                    \
        if (real && e >= -MOST && e <= MOST && e == (R_##T)(int)e)                                 \
            return whole_power_##T(x, (int)e);                                                     \
        if (real && e == (R_##T)0.5) return OF(csqrt, x);                                          \
        if (x == 0 && e > 0) return 0;                                                             \
        return OF2(cpow, x, y);                                                                    \
    }                                                                                              \
    /* What cancels in exp(x) - 1 is written as a square. */                                       \
    static E_##T expm1_##T(E_##T x)                                                                \
    {                                                                                              \
        R_##T half = OF(sin, IM(x) / 2);                                                           \
        return __builtin_complex(OF(expm1, RE(x)) * OF(cos, IM(x)) - 2 * half * half,              \
                                 OF(exp, RE(x)) * OF(sin, IM(x)));                                 \
    }                                                                                              \
    /* Near 0, |1 + x| is the root of 1 + re (2 + re) + im im. */                                  \
    static E_##T log1p_##T(E_##T x)                                                                \
    {                                                                                              \
        R_##T re = RE(x), im = IM(x), one = 1 + re, turn = OF2(atan2, im, one);                    \
        if (!(OF(cabs, x) < (R_##T)0.5))                                                           \
            return __builtin_complex(OF(log, OF2(hypot, one, im)), turn);                          \
        R_##T more = re * (2 + re) + im * im;                                                      \
        return __builtin_complex(more == 0 ? re : OF(log1p, more) / 2, turn);                      \
    }                                                                                              \
    /* Less the larger real part, so that nothing overflows. */                                    \
    static E_##T logaddexp_##T(E_##T x, E_##T y)                                                   \
    {                                                                                              \
        E_##T most = RE(x) >= RE(y) || isnan(RE(x)) ? x : y, other = most == x ? y : x;            \
        if (isinf(RE(most))) return RE(x) == RE(y) ? OF(clog, OF(cexp, x) + OF(cexp, y)) : most;   \
        return most + log1p_##T(OF(cexp, other - most));                                           \
    }                                                                                              \
    static E_##T sigmoid_##T(E_##T x)                                                              \
    {                                                                                              \
        return one_over_##T(1, 1 + OF(cexp, __builtin_complex(-RE(x), -IM(x))));                   \
    }                                                                                              \
    static E_##T sinc_##T(E_##T x)                                                                 \
    {                                                                                              \
        E_##T turn = __builtin_complex(RE(x) * (R_##T)M_PI, IM(x) * (R_##T)M_PI);                  \
        return x == 0 ? 1 : one_over_##T(OF(csin, turn), turn);                                    \
    }
DEFINE_COMPLEX(c64, f32)
DEFINE_COMPLEX(c128, f64)

/* ---- rows ----- */

/* What yields parts says so by `real`. */
#define COMPLEX_ROW(row, fns, count, o0, o1, o2, bool_out, real, cost)                             \
    static const sp_lanes complex_##row = {.fn = fns,                                              \
                                           .n_operands = count,                                    \
                                           .order = {o0, o1, o2},                                  \
                                           .to_bool = bool_out,                                    \
                                           .to_real = real,                                        \
                                           .ns = cost};
#define COMPLEX_ROWS2(name, scalar, to_bool, cost)                                                 \
    COMPLEX_ROW(name, FN_COMPLEX(name), 2, 0, 1, 0, to_bool, false, cost)                          \
    COMPLEX_ROW(name##_scalar, FN_COMPLEX(scalar), 2, 0, SP_LANE_SCALAR0, 0, to_bool, false, cost)
#define COMPLEX_RROW(name, cost)                                                                   \
    COMPLEX_ROW(name##_rscalar, FN_COMPLEX(name), 2, SP_LANE_SCALAR0, 0, 0, false, false, cost)
/* Of operands that are parts. */
#define COMPLEX_MADE(name, cost)                                                                   \
    static const sp_lanes complex_##name = {                                                       \
        .fn = FN_COMPLEX(name), .n_operands = 2, .order = {0, 1}, .of_real = true, .ns = cost};

#define PAIR_LANES(KIND, name, expr)                                                               \
    KIND(c64, f32, name, expr)                                                                     \
    KIND(c128, f64, name, expr)
#define COMPLEX1(name, ns, expr)                                                                   \
    PAIR_LANES(PAIR_LANE1, name, expr)                                                             \
    COMPLEX_ROW(name, FN_COMPLEX(name), 1, 0, 0, 0, false, false, ns)
#define COMPLEX_PART(name, ns, expr)                                                               \
    PAIR_LANES(PAIR_REAL, name, expr)                                                              \
    COMPLEX_ROW(name, FN_COMPLEX(name), 1, 0, 0, 0, false, true, ns)
#define COMPLEX_TEST(name, ns, expr)                                                               \
    PAIR_LANES(PAIR_TEST, name, expr)                                                              \
    COMPLEX_ROW(name, FN_COMPLEX(name), 1, 0, 0, 0, true, false, ns)
#define COMPLEX_COMPARE(name, ns, expr)                                                            \
    PAIR_LANES(PAIR_COMPARE, name, expr)                                                           \
    COMPLEX_ROWS2(name, name, true, ns)
#define COMPLEX2(name, ns, expr)                                                                   \
    PAIR_LANES(PAIR_LANE2, name, expr)                                                             \
    COMPLEX_ROWS2(name, name, false, ns)
/* A number of the signature is real, and so the other operand's parts stay apart. */
#define COMPLEX2_NUMBER(name, ns, expr, by_number)                                                 \
    PAIR_LANES(PAIR_LANE2, name, expr)                                                             \
    PAIR_LANES(PAIR_LANE2, name##_scalar, by_number)                                               \
    COMPLEX_ROWS2(name, name##_scalar, false, ns)
#define COMPLEX2_ONLY(name, ns, expr)                                                              \
    PAIR_LANES(PAIR_LANE2, name, expr)                                                             \
    COMPLEX_ROW(name, FN_COMPLEX(name), 2, 0, 1, 0, false, false, ns)
#define COMPLEX3(name, ns, o2, expr)                                                               \
    PAIR_LANES(PAIR_LANE3, name, expr)                                                             \
    COMPLEX_ROW(name, FN_COMPLEX(name), 3, 0, 1, o2, false, false, ns)
/* Of the C library, one by one. */
#define COMPLEX_LANES(name, R, LOADS, expr)                                                        \
    COMPLEX_LANE(name, c64, R, LOADS, expr)                                                        \
    COMPLEX_LANE(name, c128, R, LOADS, expr)
#define ONE1(name, ns, expr)                                                                       \
    COMPLEX_LANES(name, C, LOADS1, expr)                                                           \
    COMPLEX_ROW(name, FN_COMPLEX(name), 1, 0, 0, 0, false, false, ns)
#define ONE2(name, ns, expr)                                                                       \
    COMPLEX_LANES(name, C, LOADS2, expr)                                                           \
    COMPLEX_ROWS2(name, name, false, ns)
#define ONE2_ONLY(name, ns, expr)                                                                  \
    COMPLEX_LANES(name, C, LOADS2, expr)                                                           \
    COMPLEX_ROW(name, FN_COMPLEX(name), 2, 0, 1, 0, false, false, ns)

#define ONE_TIMES(x, y)                                                                            \
    _Generic((x), float _Complex : one_times_c64, double _Complex : one_times_c128)(x, y)
#define ONE_OVER(x, y)                                                                             \
    _Generic((x), float _Complex : one_over_c64, double _Complex : one_over_c128)(x, y)
#define ONE_POWER(x, y)                                                                            \
    _Generic((x), float _Complex : power_c64, double _Complex : power_c128)(x, y)
#define BY(fn, x)         _Generic((x), float _Complex : fn##_c64, double _Complex : fn##_c128)
#define ONE_SCALED(x, by) MADE(RE(x) * (P)(by), IM(x) * (P)(by))

/* clang-format off */
/*               name     ns    result */
COMPLEX2_NUMBER( add,        0.12, PLUS(x, y),  PARTS(x.re + y.re, x.im))
COMPLEX2_NUMBER( sub,        0.12, MINUS(x, y), PARTS(x.re - y.re, x.im))            COMPLEX_RROW(sub, 0.15)
COMPLEX2_NUMBER( mul,        0.15, TIMES(x, y), SCALED(x, y.re))
COMPLEX2_NUMBER( div,        0.80, OVER(x, y),  PARTS(x.re / y.re, x.im / y.re))     COMPLEX_RROW(div, 0.8)
COMPLEX3(        add_alpha,  0.15, SP_LANE_SCALAR0, PLUS(x, SCALED(y, z.re)))
COMPLEX3(        sub_alpha,  0.15, SP_LANE_SCALAR0, MINUS(x, SCALED(y, z.re)))
COMPLEX_COMPARE( eq,         0.15, (x.re == y.re) & (x.im == y.im))
COMPLEX_COMPARE( ne,         0.15, (x.re != y.re) | (x.im != y.im))
COMPLEX_TEST(    isnan,      0.15, IS_NAN(x.re) | IS_NAN(x.im))
COMPLEX_TEST(    isinf,      0.15, (ABS(x.re) == INFINITY) | (ABS(x.im) == INFINITY))
COMPLEX_TEST(    isfinite,   0.15, (ABS(x.re) < INFINITY) & (ABS(x.im) < INFINITY))

COMPLEX1(        neg,        0.12, NEGATED(x))
COMPLEX1(        conj_physical, 0.12, PARTS(x.re, -x.im))
COMPLEX1(        square,     0.15, TIMES(x, x))
COMPLEX1(        reciprocal, 0.80, OVER(PARTS(ONE, ZERO), x))
COMPLEX1(        sgn,        1.00, SIGN_OF(x))
COMPLEX_PART(    abs,        0.80, LENGTH(x))
COMPLEX_PART(    angle,      2.40, MATH2(atan2, x.im, x.re))
PAIR_LANES(      PAIR_MADE, complex, PARTS(x, y))
COMPLEX_MADE(    complex,    0.15)
COMPLEX3(        lerp,       0.80, 2, LERPED(x, y, z))
COMPLEX_ROW(     lerp_scalar, FN_COMPLEX(lerp), 3, 0, 1, SP_LANE_SCALAR0, false, false, 0.8f)
COMPLEX2_ONLY(   sigmoid_backward, 0.25, TIMES(x, TIMES(FROM_ONE(y), y)))
COMPLEX2_ONLY(   tanh_backward,    0.25, TIMES(x, FROM_ONE(TIMES(y, y))))

ONE2(            pow,     40.00, ONE_POWER(x, y))               COMPLEX_RROW(pow, 40.0)
ONE1(            sqrt,    8.00, OF(csqrt, x))
ONE1(            rsqrt,  10.00, ONE_OVER((C)1, OF(csqrt, x)))
ONE1(        exp,     15.00, OF(cexp, x))
ONE1(        exp2,    15.00, OF(cexp, ONE_SCALED(x, M_LN2)))
ONE1(        log,     15.00, OF(clog, x))
ONE1(        log2,    15.00, ONE_SCALED(OF(clog, x), M_LOG2E))
ONE1(        log10,   15.00, ONE_SCALED(OF(clog, x), M_LOG10E))
ONE1(        sin,     25.00, OF(csin, x))
ONE1(        cos,     25.00, OF(ccos, x))
ONE1(        tan,     25.00, OF(ctan, x))
ONE1(        asin,    40.00, OF(casin, x))
ONE1(        acos,    40.00, OF(cacos, x))
ONE1(        atan,    40.00, OF(catan, x))
ONE1(        sinh,    25.00, OF(csinh, x))
ONE1(        cosh,    25.00, OF(ccosh, x))
ONE1(        tanh,    25.00, OF(ctanh, x))
ONE1(        asinh,   40.00, OF(casinh, x))
ONE1(        acosh,   40.00, OF(cacosh, x))
ONE1(        atanh,   40.00, OF(catanh, x))
ONE1(        sigmoid, 20.00, BY(sigmoid, x)(x))
ONE1(        expm1,   20.00, BY(expm1, x)(x))
ONE1(        log1p,   20.00, BY(log1p, x)(x))
ONE1(        sinc,    30.00, BY(sinc, x)(x))
ONE1(        silu,    20.00, ONE_TIMES(x, BY(sigmoid, x)(x)))
ONE2_ONLY(   silu_backward, 25.00, ONE_TIMES(ONE_TIMES(x, BY(sigmoid, y)(y)), 1 + ONE_TIMES(y, 1 - BY(sigmoid, y)(y))))
ONE2_ONLY(   logaddexp, 40.00, BY(logaddexp, x)(x, y))

/* Ops that only move elements have their functions among those of their size (lanes_special.h). */
#define ROW_OF(op, name) [SP_OP_##op] = &complex_##name
static const sp_lanes *const complex_rows[SP_OP_COUNT] = {
    ROW_OF(ADD, add),
    ROW_OF(ADD_SCALAR, add_scalar),
    ROW_OF(ADD_ALPHA, add_alpha),
    ROW_OF(SUB, sub),
    ROW_OF(SUB_SCALAR, sub_scalar),
    ROW_OF(SUB_RSCALAR, sub_rscalar),
    ROW_OF(SUB_ALPHA, sub_alpha),
    ROW_OF(MUL, mul),
    ROW_OF(MUL_SCALAR, mul_scalar),
    ROW_OF(DIV, div),
    ROW_OF(DIV_SCALAR, div_scalar),
    ROW_OF(DIV_RSCALAR, div_rscalar),
    ROW_OF(POW, pow),
    ROW_OF(POW_SCALAR, pow_scalar),
    ROW_OF(POW_RSCALAR, pow_rscalar),
    ROW_OF(EQ, eq),
    ROW_OF(EQ_SCALAR, eq_scalar),
    ROW_OF(NE, ne),
    ROW_OF(NE_SCALAR, ne_scalar),
    ROW_OF(ISNAN, isnan),
    ROW_OF(ISINF, isinf),
    ROW_OF(ISFINITE, isfinite),
    ROW_OF(NEG, neg),
    ROW_OF(SQUARE, square),
    ROW_OF(RECIPROCAL, reciprocal),
    ROW_OF(SQRT, sqrt),
    ROW_OF(RSQRT, rsqrt),
    ROW_OF(SGN, sgn),
    ROW_OF(CONJ_PHYSICAL, conj_physical),
    ROW_OF(ABS, abs),
    ROW_OF(ANGLE, angle),
    ROW_OF(COMPLEX, complex),
    ROW_OF(EXP, exp),
    ROW_OF(EXP2, exp2),
    ROW_OF(LOG, log),
    ROW_OF(LOG2, log2),
    ROW_OF(LOG10, log10),
    ROW_OF(SIN, sin),
    ROW_OF(COS, cos),
    ROW_OF(TAN, tan),
    ROW_OF(ASIN, asin),
    ROW_OF(ACOS, acos),
    ROW_OF(ATAN, atan),
    ROW_OF(SINH, sinh),
    ROW_OF(COSH, cosh),
    ROW_OF(TANH, tanh),
    ROW_OF(ASINH, asinh),
    ROW_OF(ACOSH, acosh),
    ROW_OF(ATANH, atanh),
    ROW_OF(SIGMOID, sigmoid),
    ROW_OF(EXPM1, expm1),
    ROW_OF(LOG1P, log1p),
    ROW_OF(SINC, sinc),
    ROW_OF(SILU, silu),
    ROW_OF(SILU_BACKWARD, silu_backward),
    ROW_OF(LOGADDEXP, logaddexp),
    ROW_OF(LERP, lerp),
    ROW_OF(LERP_SCALAR, lerp_scalar),
    ROW_OF(SIGMOID_BACKWARD, sigmoid_backward),
    ROW_OF(TANH_BACKWARD, tanh_backward),
};
/* clang-format on */

#endif
