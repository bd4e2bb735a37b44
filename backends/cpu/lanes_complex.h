/* Pointwise ops on complex numbers, and the table of their rows.
 *
 * Lines are written with vectors of parts (lanes_pairs.h): the functions in them are those of
 * lanes_complex_math.h and lanes_complex_exp.h.
 */
#ifndef SP_CPU_LANES_COMPLEX_H
#define SP_CPU_LANES_COMPLEX_H

#include "backends/cpu/lanes_complex_exp.h"
#include "backends/cpu/lanes_complex_math.h"

#define FN_COMPLEX(name)                                                                           \
    {                                                                                              \
        [SP_COMPLEX64] = lane_##name##_c64, [SP_COMPLEX128] = lane_##name##_c128                   \
    }

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
#define FUNCTION1(name, ns) COMPLEX1(name, ns, OF_PAIRS(name, x)(x))

/* clang-format off */
/*               name     ns    result */
COMPLEX2_NUMBER( add,        0.12, PLUS(x, y),  PARTS(x.re + y.re, x.im))
COMPLEX2_NUMBER( sub,        0.12, MINUS(x, y), PARTS(x.re - y.re, x.im))            COMPLEX_RROW(sub, 0.15)
COMPLEX2_NUMBER( mul,        0.15, TIMES(x, y), SCALED(x, y.re))
COMPLEX2_NUMBER( div,        0.80, OVER(x, y),  PARTS(x.re / y.re, x.im / y.re))     COMPLEX_RROW(div, 0.8)
COMPLEX3(        add_alpha,  0.15, SP_LANE_SCALAR0, PLUS(x, SCALED(y, z.re)))
COMPLEX3(        sub_alpha,  0.15, SP_LANE_SCALAR0, MINUS(x, SCALED(y, z.re)))
COMPLEX3(        addcmul,    0.20, 2, PLUS(x, TIMES(y, z)))
COMPLEX3(        addcdiv,    0.90, 2, PLUS(x, OVER(y, z)))
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

FUNCTION1(       sqrt,       4.00)
FUNCTION1(       rsqrt,      5.00)
FUNCTION1(       exp,        5.00)
FUNCTION1(       exp2,       5.00)
FUNCTION1(       expm1,      8.00)
FUNCTION1(       log,        8.00)
FUNCTION1(       log2,       8.00)
FUNCTION1(       log10,      8.00)
FUNCTION1(       log1p,     10.00)
FUNCTION1(       sin,        8.00)
FUNCTION1(       cos,        8.00)
FUNCTION1(       tan,        8.00)
FUNCTION1(       sinh,       8.00)
FUNCTION1(       cosh,       8.00)
FUNCTION1(       tanh,       8.00)
FUNCTION1(       asin,      80.00)
FUNCTION1(       acos,      80.00)
FUNCTION1(       atan,      80.00)
FUNCTION1(       asinh,     80.00)
FUNCTION1(       acosh,     80.00)
FUNCTION1(       atanh,     80.00)
FUNCTION1(       sigmoid,    6.00)
FUNCTION1(       silu,       6.00)
FUNCTION1(       sinc,      10.00)
COMPLEX2_ONLY(   silu_backward, 7.00, OF_PAIRS(silu_backward, x)(x, y))
COMPLEX2_ONLY(   logaddexp, 20.00, OF_PAIRS(logaddexp, x)(x, y))

DEFINE_POWER(c64, f32)
DEFINE_POWER(c128, f64)
COMPLEX_ROWS2(   pow, pow, false, 15.0) COMPLEX_RROW(pow, 15.0)

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
    ROW_OF(ADDCMUL, addcmul),
    ROW_OF(ADDCDIV, addcdiv),
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
