/* Running results along one dimension: cumsum, cumprod, cummax, cummin, logcumsumexp and the linear
 * recurrence that their derivatives are made of.
 *
 * One sequence is one chain in the order of its elements, by one thread; threads share sequences
 * out. Floating dtypes run in float64, complex ones in complex128, and each result is rounded once;
 * integers run in int64. So
 * the bits depend on nothing but the values, and an error does not grow along the way.
 *
 * A chain waits for each of its results, so several are run together, in two ways:
 *
 *     lines      LINES sequences, each a run of memory: their states stay in registers
 *     columns    up to WIDTH sequences that lie side by side: element after element of all of them
 */
#include <math.h>
#include <stdlib.h>

#include "backends/cpu/kernels.h"
#include "backends/cpu/pool.h"
#include "backends/cpu/strided.h"
#include "backends/cpu/tile.h"
#include "ops/op.h"
#include "ops_gen.h"

enum { LINES = 4, WIDTH = 64, CHUNK = 16384 };

/* Where an operand's elements are: those of a sequence `step` apart, those of neighbours `side`. */
typedef struct lane {
    char *data;
    int64_t step, side;
} lane;

typedef struct run { /* `width` sequences of n > 0 elements */
    lane x, factor, out, index;
    int64_t n, width;
} run;

typedef void (*run_fn)(const run *r);

typedef struct scan_kind {
    run_fn lines, line, columns;
} scan_kind;

typedef struct scan_job {
    sp_operand out, index, x, factor; /* index.data, factor.data NULL: none */
    const scan_kind *kind;
    int dim;
    bool reverse, along; /* along: sequences are runs of memory */
    int64_t n, line, width, units_a_chunk, units;
    double ns;
} scan_job;

/* ---- steps ----- */

/* Of sequence k and element i, in statements about the state s[k]. */
#define X      ((A)x[i * r->x.step + k * r->x.side])
#define FACTOR ((A)factor[i * r->factor.step + k * r->factor.side])
#define OUT    out[i * r->out.step + k * r->out.side]
#define INDEX  index[i * r->index.step + k * r->index.side]

/* Sequence k of a few, known when this is compiled. */
#define KNOWN(number, statement)                                                                   \
    {                                                                                              \
        enum { k = number };                                                                       \
        statement;                                                                                 \
    }
#define EACH_LINE(statement)                                                                       \
    KNOWN(0, statement)                                                                            \
    KNOWN(1, statement) KNOWN(2, statement) KNOWN(3, statement)
#define EACH_COLUMN(statement)                                                                     \
    for (int64_t k = 0; k < r->width; k++) {                                                       \
        statement;                                                                                 \
    }

#define DEFINE_WAY(name, type, acc, room, each, first, next)                                       \
    static void name(const run *given)                                                             \
    {                                                                                              \
        typedef acc A;                                                                             \
        typedef type T __attribute__((may_alias));                                                 \
        const run here = *given, *const r = &here;                                                 \
        const T *x = (const T *)(const void *)r->x.data;                                           \
        const T *factor = (const T *)(const void *)r->factor.data;                                 \
        T *out = (T *)(void *)r->out.data;                                                         \
        int64_t *index = (int64_t *)(void *)r->index.data, best[room], i = 0;                      \
        A s[room];                                                                                 \
        (void)factor, (void)index, (void)best;                                                     \
        each(first);                                                                               \
        for (i = 1; i < r->n; i++) {                                                               \
            each(next);                                                                            \
        }                                                                                          \
    }

#define DEFINE_SCAN(name, type, acc, first, next)                                                  \
    DEFINE_WAY(name##_lines, type, acc, LINES, EACH_LINE, first, next)                             \
    DEFINE_WAY(name##_line, type, acc, 1, ONE_LINE, first, next)                                   \
    DEFINE_WAY(name##_columns, type, acc, WIDTH, EACH_COLUMN, first, next)                         \
    static const scan_kind name = {name##_lines, name##_line, name##_columns};
#define ONE_LINE(statement) KNOWN(0, statement)

#define DEFINE_RUNNING(name, type, acc, start, next)                                               \
    DEFINE_SCAN(name, type, acc, (s[k] = start, s[k] = (next), OUT = (T)s[k]),                     \
                (s[k] = (next), OUT = (T)s[k]))

/* Integers wrap around. */
DEFINE_RUNNING(sum_f32, float, double, 0, s[k] + X)
DEFINE_RUNNING(sum_f64, double, double, 0, s[k] + X)
DEFINE_RUNNING(sum_i64, int64_t, uint64_t, 0, s[k] + X)
DEFINE_RUNNING(prod_f32, float, double, 1, s[k] * X)
DEFINE_RUNNING(prod_f64, double, double, 1, s[k] * X)
DEFINE_RUNNING(prod_i64, int64_t, uint64_t, 1, s[k] * X)

/* Complex numbers; a product starts with its first factor, since 1 times an infinity is NaN. */
typedef float _Complex c64;
typedef double _Complex c128;

static inline c128 times(c128 x, c128 y)
{
    double a = __real__ x, b = __imag__ x, c = __real__ y, d = __imag__ y;
    return __builtin_complex(a * c - b * d, a * d + b * c);
}
DEFINE_RUNNING(sum_c64, c64, c128, 0, s[k] + X)
DEFINE_RUNNING(sum_c128, c128, c128, 0, s[k] + X)
#define DEFINE_PRODUCT(name, type)                                                                 \
    DEFINE_SCAN(name, type, c128, (s[k] = X, OUT = (T)s[k]), (s[k] = times(s[k], X), OUT = (T)s[k]))
DEFINE_PRODUCT(prod_c64, c64)
DEFINE_PRODUCT(prod_c128, c128)

static double log_add_exp(double x, double y)
{
    double low = isnan(y) || y < x ? y : x, high = isnan(y) || y > x ? y : x;
    if (low == high && isinf(low)) return low;
    return high + log1p(exp(low - high));
}
DEFINE_RUNNING(log_sum_f32, float, double, -INFINITY, log_add_exp(s[k], X))
DEFINE_RUNNING(log_sum_f64, double, double, -INFINITY, log_add_exp(s[k], X))

/* Of equals the last one counts, and so does every NaN. */
#define DEFINE_EXTREMUM(name, type, before)                                                        \
    DEFINE_SCAN(name, type, type, (OUT = s[k] = X, INDEX = best[k] = 0),                           \
                if (X != X || X before s[k])(s[k] = X, best[k] = i);                               \
                (OUT = s[k], INDEX = best[k]))
DEFINE_EXTREMUM(max_f32, float, >=)
DEFINE_EXTREMUM(max_f64, double, >=)
DEFINE_EXTREMUM(max_i64, int64_t, >=)
DEFINE_EXTREMUM(max_b8, uint8_t, >=)
DEFINE_EXTREMUM(min_f32, float, <=)
DEFINE_EXTREMUM(min_f64, double, <=)
DEFINE_EXTREMUM(min_i64, int64_t, <=)
DEFINE_EXTREMUM(min_b8, uint8_t, <=)

/* out[i] = x[i] + factor[i] out[i - 1]; in reverse, x[i] + factor[i + 1] out[i + 1], walked from
 * the end: the state is the second summand. The first factor is not looked at. */
#define DEFINE_LINEAR(name, type, acc, TIMES)                                                      \
    DEFINE_SCAN(name, type, acc, (s[k] = X, OUT = (T)s[k]),                                        \
                (s[k] = X + TIMES(FACTOR, s[k]), OUT = (T)s[k]))                                   \
    DEFINE_SCAN(name##_back, type, acc, (s[k] = X, OUT = (T)s[k], s[k] = TIMES(FACTOR, s[k])),     \
                (s[k] = X + s[k], OUT = (T)s[k], s[k] = TIMES(FACTOR, s[k])))
#define REAL_TIMES(x, y) ((x) * (y))
DEFINE_LINEAR(linear_f32, float, double, REAL_TIMES)
DEFINE_LINEAR(linear_f64, double, double, REAL_TIMES)
DEFINE_LINEAR(linear_c64, c64, c128, times)
DEFINE_LINEAR(linear_c128, c128, c128, times)

/* ---- sequences ----- */

/* An operand of the sequences from number `at` on, these counted in row-major order. */
static lane lane_at(const scan_job *j, const sp_operand *x, int64_t at)
{
    lane l = {.data = x->data};
    if (!x->data || x->rank == 0) return l;
    int64_t size = sp__size_of(x->dtype), offset = 0;
    int last = x->rank - 1 == j->dim ? x->rank - 2 : x->rank - 1;
    for (int d = x->rank - 1; d >= 0; d--) {
        if (d == j->dim) continue;
        offset += at % x->shape[d] * x->stride[d];
        at /= x->shape[d];
    }
    l.step = x->stride[j->dim], l.side = last >= 0 ? x->stride[last] : 0;
    if (j->reverse) offset += (j->n - 1) * l.step, l.step = -l.step;
    l.data += offset * size;
    return l;
}

/* Lines that are no full group go one by one. */
static void run_unit(const scan_job *j, int64_t at, int64_t width)
{
    bool single = j->along && width < LINES;
    for (int64_t done = 0; done < width; done += single ? 1 : width) {
        run r = {.x = lane_at(j, &j->x, at + done),
                 .factor = lane_at(j, &j->factor, at + done),
                 .out = lane_at(j, &j->out, at + done),
                 .index = lane_at(j, &j->index, at + done),
                 .n = j->n,
                 .width = width};
        (single ? j->kind->line : j->along ? j->kind->lines : j->kind->columns)(&r);
    }
}

/* Units are runs of up to `width` neighbours in the last dimension that is not scanned. */
static void scan_chunk(void *ctx, int64_t chunk)
{
    const scan_job *j = ctx;
    int64_t a_line = (j->line + j->width - 1) / j->width;
    for (int64_t u = chunk * j->units_a_chunk; u < (chunk + 1) * j->units_a_chunk; u++) {
        if (u >= j->units) return;
        int64_t column = u % a_line * j->width, left = j->line - column;
        run_unit(j, u / a_line * j->line + column, left < j->width ? left : j->width);
    }
}

static sp_status scan(scan_job *j, const sp_attr *dim_attr)
{
    const sp_operand *x = &j->x;
    if (x->numel == 0) return SP_OK;
    j->dim = x->rank == 0 ? 0 : (int)(dim_attr->v.i < 0 ? dim_attr->v.i + x->rank : dim_attr->v.i);
    j->n = x->rank == 0 ? 1 : x->shape[j->dim];
    int last = x->rank - 1 == j->dim ? x->rank - 2 : x->rank - 1;
    j->line = last >= 0 ? x->shape[last] : 1;
    j->along = j->line == 1 || llabs(x->stride[j->dim]) < llabs(x->stride[last]);
    int64_t most = j->along ? LINES : WIDTH;
    j->width = j->line < most ? j->line : most;
    j->units = x->numel / j->n / j->line * ((j->line + j->width - 1) / j->width);
    j->units_a_chunk = CHUNK / (j->n * j->width) + 1;
    sp__pool_for((j->units + j->units_a_chunk - 1) / j->units_a_chunk,
                 (double)x->numel * j->ns * 1e-3, scan_chunk, j);
    return SP_OK;
}

/* ---- ops ----- */

/* x in the result's dtype: converted into the result, where it is run in place. */
static sp_status converted(const sp_kargs *args, sp_operand *x)
{
    sp_kargs cast = {.op = SP_OP_CAST, .n_out = 1, .n_arg = 2, .compute = args->arg[1].dtype};
    *x = args->arg[1];
    if (x->dtype == args->arg[0].dtype || x->numel == 0) return SP_OK;
    cast.arg = cast.room, cast.room[0] = args->arg[0], cast.room[1] = *x;
    *x = args->arg[0];
    return sp__cpu_pointwise(&cast);
}

/* Kinds by dtype of the result. */
static sp_status running(const sp_kargs *args, const scan_kind *const *by_dtype, double ns)
{
    scan_job j = {.out = args->arg[0], .kind = by_dtype[args->arg[0].dtype], .ns = ns};
    SP_RETURN_IF(converted(args, &j.x));
    return scan(&j, &args->attr[0]);
}

sp_status sp__cpu_cumsum(const sp_kargs *args)
{
    static const scan_kind *const kinds[SP_DTYPE_COUNT] = {
        [SP_FLOAT32] = &sum_f32,   [SP_FLOAT64] = &sum_f64,     [SP_INT64] = &sum_i64,
        [SP_COMPLEX64] = &sum_c64, [SP_COMPLEX128] = &sum_c128,
    };
    return running(args, kinds, 1);
}

sp_status sp__cpu_cumprod(const sp_kargs *args)
{
    static const scan_kind *const kinds[SP_DTYPE_COUNT] = {
        [SP_FLOAT32] = &prod_f32,   [SP_FLOAT64] = &prod_f64,     [SP_INT64] = &prod_i64,
        [SP_COMPLEX64] = &prod_c64, [SP_COMPLEX128] = &prod_c128,
    };
    return running(args, kinds, 1);
}

sp_status sp__cpu_logcumsumexp(const sp_kargs *args)
{
    static const scan_kind *const kinds[SP_DTYPE_COUNT] = {
        [SP_FLOAT32] = &log_sum_f32, [SP_FLOAT64] = &log_sum_f64};
    return running(args, kinds, 20);
}

static sp_status extremum(const sp_kargs *args, const scan_kind *const *by_dtype)
{
    scan_job j = {.out = args->arg[0], .index = args->arg[1], .x = args->arg[2], .ns = 1};
    j.kind = by_dtype[j.x.dtype];
    return scan(&j, &args->attr[0]);
}

sp_status sp__cpu_cummax(const sp_kargs *args)
{
    static const scan_kind *const kinds[SP_DTYPE_COUNT] = {[SP_FLOAT32] = &max_f32,
                                                           [SP_FLOAT64] = &max_f64,
                                                           [SP_INT64] = &max_i64,
                                                           [SP_BOOL] = &max_b8};
    return extremum(args, kinds);
}

sp_status sp__cpu_cummin(const sp_kargs *args)
{
    static const scan_kind *const kinds[SP_DTYPE_COUNT] = {[SP_FLOAT32] = &min_f32,
                                                           [SP_FLOAT64] = &min_f64,
                                                           [SP_INT64] = &min_i64,
                                                           [SP_BOOL] = &min_b8};
    return extremum(args, kinds);
}

/* attributes: dim, reverse */
sp_status sp__cpu_linear_scan(const sp_kargs *args)
{
    static const scan_kind *const kinds[2][SP_DTYPE_COUNT] = {
        {[SP_FLOAT32] = &linear_f32,
         [SP_FLOAT64] = &linear_f64,
         [SP_COMPLEX64] = &linear_c64,
         [SP_COMPLEX128] = &linear_c128},
        {[SP_FLOAT32] = &linear_f32_back,
         [SP_FLOAT64] = &linear_f64_back,
         [SP_COMPLEX64] = &linear_c64_back,
         [SP_COMPLEX128] = &linear_c128_back},
    };
    bool back = args->attr[1].v.i != 0;
    scan_job j = {.out = args->arg[0],
                  .x = args->arg[1],
                  .factor = args->arg[2],
                  .kind = kinds[back][args->arg[0].dtype],
                  .reverse = back,
                  .ns = 1.5};
    return scan(&j, &args->attr[0]);
}
