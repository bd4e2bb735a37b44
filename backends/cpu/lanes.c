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
#include "backends/cpu/lanes_special.h"
#include "backends/cpu/reduce_lanes.h"
#include "ops_gen.h"

#define ZERO      ((V){0})
#define IS_NAN(x) ((x) != (x))

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
    .reduce = {[SP_REDUCE_SUM] = REDUCE_ROWS(sum), [SP_REDUCE_MAX] = REDUCE_ROWS(max)},
    .gemm_small = {[SP_FLOAT32] = gemm_small_f32, [SP_FLOAT64] = gemm_small_f64},
    .gather4 = gather_f32,
    .gather8 = gather_i64,
};
