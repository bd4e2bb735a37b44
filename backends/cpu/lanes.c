/* The kernel lines of every pointwise op, and the tables that the instruction set being compiled
 * for provides.
 *
 * Compiled once per instruction set (SP_ISA). A new pointwise op is one line here, named like the
 * op in C; a missing one is a compile error at the table below. Sources: NaN rules and pow's
 * special exponents are PyTorch's; exp, log, tanh and pow are SLEEF's with 1 ULP bounds.
 */
#include "backends/cpu/lanes.h"

#include "backends/cpu/gemm_small.h"
#include "backends/cpu/lanes_cast.h"
#include "backends/cpu/lanes_conv.h"
#include "backends/cpu/lanes_distance.h"
#include "backends/cpu/lanes_gamma.h"
#include "backends/cpu/lanes_gather.h"
#include "backends/cpu/lanes_loop.h"
#include "backends/cpu/lanes_more.h"
#include "backends/cpu/lanes_pooling.h"
#include "backends/cpu/lanes_random.h"
#include "backends/cpu/lanes_resample.h"
#include "backends/cpu/lanes_special.h"
#include "backends/cpu/reduce_lanes.h"
#include "backends/cpu/reduce_pairs.h"
#include "backends/cpu/update_lanes.h"
#include "ops_gen.h"

#define ZERO      ((V){0})
#define ONE       (ZERO + 1)
#define IS_NAN(x) ((x) != (x))
#define WIDTH     ((int)sizeof x[0] * 8)
#define SIGN(x)   (SELECT((x) > 0, ONE, SELECT((x) < 0, -ONE, ZERO)))
/* A bound that is NaN makes the result NaN. */
#define AT_LEAST(x, y) SELECT(((x) < (y)) | IS_NAN(y), y, x)
#define AT_MOST(x, y)  SELECT(((x) > (y)) | IS_NAN(y), y, x)
#define CLAMP(x, y, z) AT_MOST(AT_LEAST(x, y), z)
/* From the nearer end, so that weights 0 and 1 give x and y. */
#define LERP(x, y, z) SELECT(ABS(z) < NUMBER_LIKE(z, 0.5), x + z * (y - x), y - (y - x) * (ONE - z))
#define REPLACE_NONFINITE(x, nan, inf)                                                             \
    SELECT(IS_NAN(x), nan, SELECT((x) == INFINITY, inf, SELECT((x) == -INFINITY, -(inf), x)))
#define RELU6(x) CLAMP(x, ZERO, ZERO + 6)
#define SELU(x)                                                                                    \
    (SELECT((x) > 0, x, MATH(expm1, x) * NUMBER_LIKE(x, 1.6732632423543772)) *                     \
     NUMBER_LIKE(x, 1.0507009873554805))
/* grad s (1 + x (1 - s)), s being sigmoid(x) */
#define SILU_BACKWARD(grad, x)                                                                     \
    ((grad) * (MATH(sigmoid, x) * (ONE + (x) * (ONE - MATH(sigmoid, x)))))
#define LOGIT_WITHIN(x, eps)                                                                       \
    ({                                                                                             \
        V in_ = CLAMP(x, eps, ONE - (eps));                                                        \
        MATH(quick_logit, in_);                                                                    \
    })
#define LOG_ADD_EXP(x, y)                                                                          \
    SELECT((x) == (y), (x) + NUMBER_LIKE(x, M_LN2),                                                \
           SELECT((x) > (y), x, y) + MATH(log1p, EXP(-ABS((x) - (y)))))

#define LOG_ADD_EXP2(x, y)                                                                         \
    SELECT((x) == (y), (x) + 1,                                                                    \
           SELECT((x) > (y), x, y) + MATH(log2_above, MATH(exp2, -ABS((x) - (y)))))

/* clang-format off */
/*            name     ns    numbers          bool */
ANY2(         mul,     0.10, x * y,           x & y)
ANY2_ALPHA(   add,     0.10, x + y,           x | y)
NUMBER2_ALPHA(sub,     0.10, x - y)
FLOAT2(       div,     0.20, x / y)
ORDERED2(     maximum, 0.12, SELECT((x > y) | IS_NAN(x), x, y), x | y)

COMPARE2(     eq,      0.12, x == y)
COMPARE2(     ne,      0.12, x != y)
COMPARE2(     lt,      0.12, x < y)
COMPARE2(     le,      0.12, x <= y)
COMPARE2(     gt,      0.12, x > y)
COMPARE2(     ge,      0.12, x >= y)

TEST1(        isnan,    0.12, x != x,                      x != x)
TEST1(        isinf,    0.12, ABS(x) == INFINITY,          x != x)
TEST1(        isfinite, 0.12, ABS(x) < INFINITY,           x == x)
TEST1(        isposinf, 0.12, x == INFINITY,               x != x)
TEST1(        isneginf, 0.12, x == -INFINITY,              x != x)
TEST1(        signbit,  0.12, SIGN_BIT(x),                 x < 0)

BOOL2(        logical_and, 0.05, x & y)
BOOL2(        logical_or,  0.05, x | y)
BOOL2(        logical_xor, 0.05, x ^ y)
BOOL1(        logical_not, 0.05, x ^ 1)
BITS2(        bitwise_and, 0.10, x & y)
BITS2(        bitwise_or,  0.10, x | y)
BITS2(        bitwise_xor, 0.10, x ^ y)
BITS1(        bitwise_not, 0.08, ~x, x ^ 1)
SHIFT2(       bitwise_left_shift,  0.15, u, SELECT(y < WIDTH, x << (y & (WIDTH - 1)), ZERO))
SHIFT2(       bitwise_right_shift, 0.15, i, x >> SELECT((y < 0) | (y >= WIDTH), ZERO + (WIDTH - 1), y))

DIVISORS2(    gcd, 20.0, gcd_of, false)
DIVISORS2(    lcm, 20.0, lcm_of, true)

ORDERED2(     minimum, 0.12, SELECT((x < y) | IS_NAN(x), x, y), x & y)
ORDERED2(     fmax,    0.12, SELECT((x > y) | IS_NAN(y), x, y), x | y)
ORDERED2(     fmin,    0.12, SELECT((x < y) | IS_NAN(y), x, y), x & y)
ORDERED2(     clamp_min, 0.12, AT_LEAST(x, y), x | y)
ORDERED2(     clamp_max, 0.12, AT_MOST(x, y),  x & y)
ORDERED3(     clamp, 0.12, 0, SCALAR0, SCALAR1, CLAMP(x, y, z))
ORDERED3(     threshold_backward, 0.12, 0, 1, SCALAR0, SELECT(y <= z, ZERO, x))
ANY3(         addcmul,     0.15, 0, 1, 2, x + y * z, x | (y & z))
FLOAT3(       addcdiv,     0.25, 0, 1, 2, x + y / z)
FLOAT3(       lerp,        0.20, 0, 1, 2, LERP(x, y, z))
FLOAT3(       lerp_scalar, 0.20, 0, 1, SCALAR0, LERP(x, y, z))

WHOLE2(       fmod,         3.00, FMOD(x, y),         fmod_i64)
WHOLE2(       remainder,    3.00, FLOOR_MOD(x, y),    remainder_i64)
WHOLE2(       floor_divide, 3.50, FLOOR_DIVIDE(x, y), floor_divide_i64)
FLOAT2(       copysign,     0.12, COPYSIGN(x, y))

EITHER1(      abs,     0.08, ABS(x), SELECT((M)x < 0, -x, x))
ANY1(         sign,    0.12, SIGN(x), x)
ANY1(         sgn,     0.12, SIGN(x), x)
FLOAT1(       angle,   0.12, SELECT(IS_NAN(x), x, SELECT(x < 0, ZERO + NUMBER_LIKE(x, M_PI), ZERO)))
NUMBER1(      square,  0.08, x * x)
FLOAT1(       reciprocal, 0.20, ONE / x)
FLOAT1(       rsqrt,   0.60, ONE / SQRT(x))
FLOAT1(       frac,    0.12, x - TRUNC(x))
ROUNDING1(    floor,   0.10, FLOOR(x))
ROUNDING1(    ceil,    0.10, CEIL(x))
ROUNDING1(    trunc,   0.10, TRUNC(x))
ROUNDING1(    round,   0.10, ROUND(x))
NUMBER1(      neg,     0.08, -x)
ORDERED1(     relu,    0.08, SELECT(x < ZERO, ZERO, x))
FLOAT1(       sqrt,    0.50, SQRT(x))
FLOAT1(       exp,     0.80, EXP(x))
FLOAT1(       log,     1.20, LOG(x))
FLOAT1(       tanh,    1.20, TANH(x))

FLOAT1(       exp2,    0.60, MATH(exp2, x))
FLOAT1(       expm1,   2.20, MATH(expm1, x))
FLOAT1(       log2,    1.30, MATH(log2, x))
FLOAT1(       log10,   1.30, MATH(log10, x))
FLOAT1(       log1p,   1.40, MATH(log1p_all, x))
FLOAT1(       sin,     1.20, MATH(sin, x))
FLOAT1(       cos,     1.20, MATH(cos, x))
FLOAT1(       tan,     1.60, MATH(tan, x))
FLOAT1(       asin,    1.20, MATH(asin, x))
FLOAT1(       acos,    1.40, MATH(acos, x))
FLOAT1(       atan,    1.60, MATH(atan, x))
FLOAT1(       sinh,    2.20, MATH(sinh_all, x))
FLOAT1(       cosh,    1.80, MATH(cosh, x))
FLOAT1(       asinh,   3.00, MATH(asinh_all, x))
FLOAT1(       acosh,   3.00, MATH(acosh_all, x))
FLOAT1(       atanh,   3.00, MATH(atanh, x))
FLOAT1(       erf,     0.80, MATH(quick_erf, x))
FLOAT1(       erfc,    1.50, MATH(quick_erfc, x))
FLOAT1(       sinc,    1.80, MATH(sinc, x))
FLOAT1(       lgamma,  8.00, MATH(lgamma, x))
FLOAT1(       digamma, 6.00, MATH(digamma, x))
FLOAT1_NUMBER(polygamma, 60.0, MATH2(polygamma, y, x))
FLOAT1(       erfinv,  4.00, MATH(erfinv, x))
FLOAT1(       logit,   1.80, MATH(quick_logit, x))
FLOAT1_NUMBER(logit_within, 1.80, LOGIT_WITHIN(x, y))
FLOAT2(       atan2,   2.40, MATH2(atan2, x, y))
FLOAT2(       hypot,   1.20, MATH2(hypot, x, y))
FLOAT2(       xlogy,   1.40, SELECT((x == 0) & (y == y), ZERO, x * LOG(y)))
FLOAT2(       logaddexp, 2.60, LOG_ADD_EXP(x, y))
FLOAT2(       logaddexp2, 2.60, LOG_ADD_EXP2(x, y))

FLOAT1(       sigmoid, 1.10, MATH(sigmoid, x))
FLOAT2(       sigmoid_backward, 0.20, x * ((ONE - y) * y))
FLOAT2(       tanh_backward,    0.20, x * (ONE - y * y))
FLOAT1(       silu,    1.20, MATH(silu, x))
FLOAT2(       silu_backward,    1.20, SILU_BACKWARD(x, y))
FLOAT3(       softplus, 2.50, 0, SCALAR0, SCALAR1, SELECT(x * y > z, x, MATH(softplus, x * y) / y))
FLOAT1_NUMBER(elu,     2.40, SELECT(x > 0, x, MATH(expm1, x) * y))
FLOAT1_NUMBER(celu,    2.60, SELECT(x > 0, x, MATH(expm1, x / y) * y))
FLOAT1(       selu,    2.40, SELU(x))
FLOAT1_NUMBER(leaky_relu, 0.12, SELECT(x > 0, x, x * y))
FLOAT2(       prelu_kernel, 0.12, SELECT(x > 0, x, x * y))
FLOAT3(       replace_nonfinite, 0.12, 0, SCALAR0, SCALAR1, REPLACE_NONFINITE(x, y, z))
FLOAT3(       hardtanh, 0.12, 0, SCALAR0, SCALAR1, CLAMP(x, y, z))
FLOAT1(       hardswish, 0.20, x * RELU6(x + 3) / 6)
FLOAT1(       hardsigmoid, 0.20, RELU6(x + 3) / 6)
FLOAT1(       mish,    1.50, MATH(mish, x))
FLOAT1(       logsigmoid, 2.40, ZERO - MATH(softplus, -x))
FLOAT1(       softsign, 0.25, x / (ABS(x) + 1))
FLOAT3(       threshold, 0.12, 0, SCALAR0, SCALAR1, SELECT(x <= y, z, x))
/* clang-format on */

/* What makes complex numbers of parts computes in them, as lanes_complex.h has it. */
LANES_ROW(complex, {0}, 2, 0, 1, 0, false, false, 0.2f)

/* ---- tables ----- */

#include "backends/cpu/lanes_complex.h"

#define SP_CPU_POINTWISE(op, name, n_inputs) [op] = &lanes_##name,
static const sp_lanes *const pointwise[SP_OP_COUNT] = {
#include "cpu_kernels_gen.h"
};

#define PASTE_(a, b) a##b
#define PASTE(a, b)  PASTE_(a, b)
#define TEXT_(a)     #a
#define TEXT(a)      TEXT_(a)

/* rows.c */
extern const struct sp_rows *const PASTE(sp__rows_, SP_ISA)[SP_DTYPE_COUNT];

const sp_isa PASTE(sp__isa_, SP_ISA) = {
    .name = TEXT(SP_ISA),
    .pointwise = pointwise,
    .complex = complex_rows,
    .cast = CASTS,
    .reduce = {[SP_TREE_SUM] = REDUCE_ROWS_PAIRS(sum),
               [SP_TREE_MAX] = REDUCE_ROWS(max),
               [SP_TREE_MIN] = REDUCE_ROWS(min),
               [SP_TREE_PROD] = REDUCE_ROWS_PAIRS(prod),
               [SP_TREE_NANSUM] = REDUCE_ROWS_NANSUM,
               [SP_TREE_COUNT] = REDUCE_ROWS_COUNT},
    .gemm_small = {[SP_FLOAT32] = gemm_small_f32, [SP_FLOAT64] = gemm_small_f64},
    .dot = {[SP_COMPLEX64] = dot_c64, [SP_COMPLEX128] = dot_c128},
    .distance = {[SP_FLOAT32] = distance_f32, [SP_FLOAT64] = distance_f64},
    .rows = PASTE(sp__rows_, SP_ISA),
    .update = updates,
    .random_words = random_words,
    .random = RANDOM_ROWS,
    .pool = POOL_ROWS,
    .conv = CONV_ROWS,
    .resample = RESAMPLE_ROWS,
    .gather4 = gather_f32,
    .gather8 = gather_i64,
};
