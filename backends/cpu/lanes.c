/* The kernel lines of every pointwise op, and the tables that the instruction set being compiled
 * for provides.
 *
 * Compiled once per instruction set (SP_ISA). A new pointwise op is one line here, named like the
 * op in C; a missing one is a compile error at the table below. Sources: NaN rules and pow's
 * special exponents are PyTorch's; exp, log, tanh and pow are SLEEF's with 1 ULP bounds.
 */
#include "backends/cpu/lanes.h"

#include "backends/cpu/gemm_small.h"
#include "backends/cpu/lanes_gather.h"
#include "backends/cpu/lanes_loop.h"
#include "backends/cpu/lanes_more.h"
#include "backends/cpu/lanes_special.h"
#include "backends/cpu/reduce_lanes.h"
#include "ops_gen.h"

#define ZERO      ((V){0})
#define ONE       (ZERO + 1)
#define IS_NAN(x) ((x) != (x))
#define SIGN(x)   (SELECT((x) > 0, ONE, SELECT((x) < 0, -ONE, ZERO)))
/* A bound that is NaN makes the result NaN. */
#define AT_LEAST(x, y) SELECT(((x) < (y)) | IS_NAN(y), y, x)
#define AT_MOST(x, y)  SELECT(((x) > (y)) | IS_NAN(y), y, x)
#define CLAMP(x, y, z) AT_MOST(AT_LEAST(x, y), z)
/* From the nearer end, so that weights 0 and 1 give x and y. */
#define LERP(x, y, z) SELECT(ABS(z) < NUMBER_LIKE(z, 0.5), x + z * (y - x), y - (y - x) * (ONE - z))

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
SHIFT2(       bitwise_left_shift,  0.15, V_u64, SELECT(y < 64, x << (y & 63), ZERO))
SHIFT2(       bitwise_right_shift, 0.15, V_i64, x >> SELECT((y < 0) | (y > 63), ZERO + 63, y))

ORDERED2(     minimum, 0.12, SELECT((x < y) | IS_NAN(x), x, y), x & y)
ORDERED2(     fmax,    0.12, SELECT((x > y) | IS_NAN(y), x, y), x | y)
ORDERED2(     fmin,    0.12, SELECT((x < y) | IS_NAN(y), x, y), x & y)
ORDERED2(     clamp_min, 0.12, AT_LEAST(x, y), x | y)
ORDERED2(     clamp_max, 0.12, AT_MOST(x, y),  x & y)
ORDERED3(     clamp, 0.12, 0, SCALAR0, SCALAR1, CLAMP(x, y, z))
ORDERED3(     threshold_backward, 0.12, 0, 1, SCALAR0, SELECT(y <= z, ZERO, x))
FLOAT3(       lerp,        0.20, 0, 1, 2, LERP(x, y, z))
FLOAT3(       lerp_scalar, 0.20, 0, 1, SCALAR0, LERP(x, y, z))

WHOLE2(       fmod,         3.00, FMOD(x, y),         fmod_i64)
WHOLE2(       remainder,    3.00, FLOOR_MOD(x, y),    remainder_i64)
WHOLE2(       floor_divide, 3.50, FLOOR_DIVIDE(x, y), floor_divide_i64)
FLOAT2(       copysign,     0.12, COPYSIGN(x, y))

EITHER1(      abs,     0.08, ABS(x), SELECT((V_i64)x < 0, -x, x))
ANY1(         sign,    0.12, SIGN(x), x)
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
FLOAT1(       tanh,    2.50, TANH(x))
/* clang-format on */

/* ---- tables ----- */

#define SP_CPU_POINTWISE(op, name, n_inputs) [op] = &lanes_##name,
static const sp_lanes *const pointwise[SP_OP_COUNT] = {
#include "cpu_kernels_gen.h"
};

#define PASTE_(a, b) a##b
#define PASTE(a, b)  PASTE_(a, b)
#define TEXT_(a)     #a
#define TEXT(a)      TEXT_(a)

const sp_isa PASTE(sp__isa_, SP_ISA) = {
    .name = TEXT(SP_ISA),
    .pointwise = pointwise,
    .cast = CASTS,
    .reduce = {[SP_REDUCE_SUM] = REDUCE_ROWS(sum),
               [SP_REDUCE_MAX] = REDUCE_ROWS(max),
               [SP_REDUCE_MIN] = REDUCE_ROWS(min),
               [SP_REDUCE_PROD] = REDUCE_ROWS(prod)},
    .gemm_small = {[SP_FLOAT32] = gemm_small_f32, [SP_FLOAT64] = gemm_small_f64},
    .gather4 = gather_f32,
    .gather8 = gather_i64,
};
