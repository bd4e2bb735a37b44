/* Pointwise ops on complex numbers, and the table of their rows.
 *
 * One function an element; sums and negation are those of the parts. Sources: products and squares
 * by their definition, as PyTorch's; quotients by Smith's algorithm (CACM 5, 1962), which does not
 * overflow where the result does not; exp, log, sqrt and the like are the C library's, with the
 * branch cuts and infinities of C's Annex G.
 */
#ifndef SP_CPU_LANES_COMPLEX_H
#define SP_CPU_LANES_COMPLEX_H

#include <complex.h>
#include <math.h>
#undef I /* <complex.h>'s words for the imaginary unit and for _Complex */
#undef complex

#include "backends/cpu/lanes_cast.h"
#include "backends/cpu/lanes_loop.h"
#include "backends/cpu/lanes_special.h"

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
        typedef P_##T P __attribute__((unused));                                                   \
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

typedef float P_c64;
typedef double P_c128;

#define FN_COMPLEX(name)                                                                           \
    {                                                                                              \
        [SP_COMPLEX64] = lane_##name##_c64, [SP_COMPLEX128] = lane_##name##_c128                   \
    }

/* ---- arithmetic ----- */

/* Of the parts, by the vector function for them, where no operand is one element for all. */
#define COMPLEX_SUM(name, T, S, op)                                                                \
    COMPLEX_LANE(one_##name, T, C, LOADS2, x op y)                                                 \
    static void lane_##name##_##T(void *d, const void *a, const void *b, const void *c, int64_t n, \
                                  unsigned splat)                                                  \
    {                                                                                              \
        if (splat & 3)                                                                             \
            lane_one_##name##_##T(d, a, b, c, n, splat);                                           \
        else                                                                                       \
            lane_##name##_##S(d, a, b, c, 2 * n, 0);                                               \
    }                                                                                              \
    COMPLEX_LANE(name##_scalar, T, C, LOADS2, MADE(RE(x) op RE(y), IM(x)))                         \
    COMPLEX_LANE(name##_alpha, T, C, LOADS3, x op MADE(RE(y) * RE(z), IM(y) * RE(z)))

#define DEFINE_COMPLEX(T, S)                                                                       \
    ALWAYS_INLINE E_##T times_##T(E_##T x, E_##T y)                                                \
    {                                                                                              \
        return __builtin_complex(RE(x) * RE(y) - IM(x) * IM(y), RE(x) * IM(y) + IM(x) * RE(y));    \
    }                                                                                              \
    static E_##T over_##T(E_##T x, E_##T y)                                                        \
    {                                                                                              \
        P_##T a = RE(x), b = IM(x), c = RE(y), d = IM(y);                                          \
        P_##T large = OF(fabs, c) >= OF(fabs, d) ? c : d, small = large == c ? d : c;              \
        if (large == 0) return __builtin_complex(a / OF(fabs, c), b / OF(fabs, d));                \
        P_##T ratio = small / large, scale = 1 / (large + small * ratio);                          \
        if (OF(fabs, c) >= OF(fabs, d))                                                            \
            return __builtin_complex((a + b * ratio) * scale, (b - a * ratio) * scale);            \
        return __builtin_complex((a * ratio + b) * scale, (b * ratio - a) * scale);                \
    }                                                                                              \
    /* x to a whole number, by squaring. */                                                        \
    static E_##T whole_power_##T(E_##T x, int n)                                                   \
    {                                                                                              \
        E_##T result = 1;                                                                          \
        for (unsigned left = (unsigned)(n < 0 ? -n : n); left; left >>= 1) {                       \
            if (left & 1) result = result == 1 ? x : times_##T(result, x);                         \
            if (left > 1) x = times_##T(x, x);                                                     \
        }                                                                                          \
        return n < 0 ? over_##T(1, result) : result;                                               \
    }                                                                                              \
    static E_##T power_##T(E_##T x, E_##T y)                                                       \
    {                                                                                              \
        enum { MOST = 64 };                                                                        \
        P_##T e = RE(y);                                                                           \
        bool real = IM(y) == 0;                                                                    \
        if (real && e >= -MOST && e <= MOST && e == (P_##T)(int)e)                                 \
            return whole_power_##T(x, (int)e);                                                     \
        if (real && e == (P_##T)0.5) return OF(csqrt, x);                                          \
        if (x == 0 && e > 0) return 0;                                                             \
        return OF2(cpow, x, y);                                                                    \
    }                                                                                              \
    ALWAYS_INLINE E_##T sign_##T(E_##T x)                                                          \
    {                                                                                              \
        P_##T size = OF(cabs, x);                                                                  \
        return size == 0 ? 0 : __builtin_complex(RE(x) / size, IM(x) / size);                      \
    }                                                                                              \
    /* What cancels in exp(x) - 1 is written as a square. */                                       \
    static E_##T expm1_##T(E_##T x)                                                                \
    {                                                                                              \
        P_##T half = OF(sin, IM(x) / 2);                                                           \
        return __builtin_complex(OF(expm1, RE(x)) * OF(cos, IM(x)) - 2 * half * half,              \
                                 OF(exp, RE(x)) * OF(sin, IM(x)));                                 \
    }                                                                                              \
    /* Near 0, |1 + x| is the root of 1 + re (2 + re) + im im. */                                  \
    static E_##T log1p_##T(E_##T x)                                                                \
    {                                                                                              \
        P_##T re = RE(x), im = IM(x), one = 1 + re, turn = OF2(atan2, im, one);                    \
        if (!(OF(cabs, x) < (P_##T)0.5))                                                           \
            return __builtin_complex(OF(log, OF2(hypot, one, im)), turn);                          \
        P_##T more = re * (2 + re) + im * im;                                                      \
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
        return over_##T(1, 1 + OF(cexp, __builtin_complex(-RE(x), -IM(x))));                       \
    }                                                                                              \
    static E_##T sinc_##T(E_##T x)                                                                 \
    {                                                                                              \
        E_##T turn = __builtin_complex(RE(x) * (P_##T)M_PI, IM(x) * (P_##T)M_PI);                  \
        return x == 0 ? 1 : over_##T(OF(csin, turn), turn);                                        \
    }                                                                                              \
    /* From the nearer end. */                                                                     \
    static E_##T lerp_##T(E_##T x, E_##T y, E_##T weight)                                          \
    {                                                                                              \
        E_##T way = y - x;                                                                         \
        return OF(cabs, weight) < (P_##T)0.5 ? x + times_##T(weight, way)                          \
                                             : y - times_##T(way, 1 - weight);                     \
    }                                                                                              \
    COMPLEX_SUM(add, T, S, +)                                                                      \
    COMPLEX_SUM(sub, T, S, -)
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
#define COMPLEX_ALPHA(name, cost)                                                                  \
    COMPLEX_ROW(name##_alpha, FN_COMPLEX(name##_alpha), 3, 0, 1, SP_LANE_SCALAR0, false, false,    \
                cost)

#define COMPLEX_LANES(name, R, LOADS, expr)                                                        \
    COMPLEX_LANE(name, c64, R, LOADS, expr)                                                        \
    COMPLEX_LANE(name, c128, R, LOADS, expr)
#define COMPLEX1(name, ns, expr)                                                                   \
    COMPLEX_LANES(name, C, LOADS1, expr)                                                           \
    COMPLEX_ROW(name, FN_COMPLEX(name), 1, 0, 0, 0, false, false, ns)
#define COMPLEX_PART(name, ns, expr)                                                               \
    COMPLEX_LANES(name, P, LOADS1, expr)                                                           \
    COMPLEX_ROW(name, FN_COMPLEX(name), 1, 0, 0, 0, false, true, ns)
#define COMPLEX_TEST(name, ns, expr)                                                               \
    COMPLEX_LANES(name, uint8_t, LOADS1, expr)                                                     \
    COMPLEX_ROW(name, FN_COMPLEX(name), 1, 0, 0, 0, true, false, ns)
#define COMPLEX_COMPARE(name, ns, expr)                                                            \
    COMPLEX_LANES(name, uint8_t, LOADS2, expr)                                                     \
    COMPLEX_ROWS2(name, name, true, ns)
#define COMPLEX2(name, ns, expr)                                                                   \
    COMPLEX_LANES(name, C, LOADS2, expr)                                                           \
    COMPLEX_ROWS2(name, name, false, ns)
/* A number of the signature is real, and so the other operand's parts stay apart. */
#define COMPLEX2_NUMBER(name, ns, expr, by_number)                                                 \
    COMPLEX_LANES(name, C, LOADS2, expr)                                                           \
    COMPLEX_LANES(name##_scalar, C, LOADS2, by_number)                                             \
    COMPLEX_ROWS2(name, name##_scalar, false, ns)
#define COMPLEX2_ONLY(name, ns, expr)                                                              \
    COMPLEX_LANES(name, C, LOADS2, expr)                                                           \
    COMPLEX_ROW(name, FN_COMPLEX(name), 2, 0, 1, 0, false, false, ns)

#define TIMES(x, y)   _Generic((x), float _Complex : times_c64, double _Complex : times_c128)(x, y)
#define OVER(x, y)    _Generic((x), float _Complex : over_c64, double _Complex : over_c128)(x, y)
#define POWER(x, y)   _Generic((x), float _Complex : power_c64, double _Complex : power_c128)(x, y)
#define SGN(x)        _Generic((x), float _Complex : sign_c64, double _Complex : sign_c128)(x)
#define BY(fn, x)     _Generic((x), float _Complex : fn##_c64, double _Complex : fn##_c128)
#define SCALED(x, by) MADE(RE(x) * (P)(by), IM(x) * (P)(by))

/* clang-format off */
/*               name     ns    result */
COMPLEX_ROWS2(   add, add_scalar, false, 0.10) COMPLEX_ALPHA(add, 0.5) /* its lanes stand above */
COMPLEX_ROWS2(   sub, sub_scalar, false, 0.10) COMPLEX_RROW(sub, 0.3) COMPLEX_ALPHA(sub, 0.5)
COMPLEX2_NUMBER( mul,      0.40, TIMES(x, y), MADE(RE(x) * RE(y), IM(x) * RE(y)))
COMPLEX2_NUMBER( div,      2.00, OVER(x, y),  MADE(RE(x) / RE(y), IM(x) / RE(y)))  COMPLEX_RROW(div, 2.0)
COMPLEX2(        pow,     40.00, POWER(x, y))               COMPLEX_RROW(pow, 40.0)
COMPLEX_COMPARE( eq,       0.40, x == y)
COMPLEX_COMPARE( ne,       0.40, x != y)
COMPLEX_TEST(    isnan,    0.40, isnan(RE(x)) || isnan(IM(x)))
COMPLEX_TEST(    isinf,    0.40, isinf(RE(x)) || isinf(IM(x)))
COMPLEX_TEST(    isfinite, 0.40, isfinite(RE(x)) && isfinite(IM(x)))

COMPLEX1(        neg,        0.20, MADE(-RE(x), -IM(x)))
COMPLEX1(        square,     0.40, TIMES(x, x))
COMPLEX1(        reciprocal, 2.00, OVER((C)1, x))
COMPLEX1(        sqrt,       8.00, OF(csqrt, x))
COMPLEX1(        rsqrt,     10.00, OVER((C)1, OF(csqrt, x)))
COMPLEX1(        sgn,        4.00, SGN(x))
COMPLEX1(        conj_physical, 0.20, MADE(RE(x), -IM(x)))
COMPLEX_PART(    abs,        3.00, OF(cabs, x))
COMPLEX_PART(    angle,      8.00, OF2(atan2, IM(x), RE(x)))
COMPLEX2_ONLY(   complex,    0.20, MADE(RE(x), RE(y)))

COMPLEX1(        exp,     15.00, OF(cexp, x))
COMPLEX1(        exp2,    15.00, OF(cexp, SCALED(x, M_LN2)))
COMPLEX1(        log,     15.00, OF(clog, x))
COMPLEX1(        log2,    15.00, SCALED(OF(clog, x), M_LOG2E))
COMPLEX1(        log10,   15.00, SCALED(OF(clog, x), M_LOG10E))
COMPLEX1(        sin,     25.00, OF(csin, x))
COMPLEX1(        cos,     25.00, OF(ccos, x))
COMPLEX1(        tan,     25.00, OF(ctan, x))
COMPLEX1(        asin,    40.00, OF(casin, x))
COMPLEX1(        acos,    40.00, OF(cacos, x))
COMPLEX1(        atan,    40.00, OF(catan, x))
COMPLEX1(        sinh,    25.00, OF(csinh, x))
COMPLEX1(        cosh,    25.00, OF(ccosh, x))
COMPLEX1(        tanh,    25.00, OF(ctanh, x))
COMPLEX1(        asinh,   40.00, OF(casinh, x))
COMPLEX1(        acosh,   40.00, OF(cacosh, x))
COMPLEX1(        atanh,   40.00, OF(catanh, x))
COMPLEX1(        sigmoid, 20.00, BY(sigmoid, x)(x))
COMPLEX1(        expm1,   20.00, BY(expm1, x)(x))
COMPLEX1(        log1p,   20.00, BY(log1p, x)(x))
COMPLEX1(        sinc,    30.00, BY(sinc, x)(x))
COMPLEX1(        silu,    20.00, TIMES(x, BY(sigmoid, x)(x)))
COMPLEX2_ONLY(   silu_backward, 25.00, TIMES(TIMES(x, BY(sigmoid, y)(y)), 1 + TIMES(y, 1 - BY(sigmoid, y)(y))))
COMPLEX2_ONLY(   logaddexp, 40.00, BY(logaddexp, x)(x, y))
COMPLEX_LANES(   lerp, C, LOADS3, BY(lerp, x)(x, y, z))
COMPLEX_ROW(     lerp,        FN_COMPLEX(lerp), 3, 0, 1, 2, false, false, 2.0f)
COMPLEX_ROW(     lerp_scalar, FN_COMPLEX(lerp), 3, 0, 1, SP_LANE_SCALAR0, false, false, 2.0f)
COMPLEX2_ONLY(   sigmoid_backward, 1.00, TIMES(x, TIMES(1 - y, y)))
COMPLEX2_ONLY(   tanh_backward,    1.00, TIMES(x, 1 - TIMES(y, y)))

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
