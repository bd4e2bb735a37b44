/* Running results along one dimension: cumsum, cumprod, cummax, cummin, logcumsumexp and the linear
 * recurrence that their derivatives are made of.
 *
 * One sequence is one chain in the order of its elements, by one thread; threads share sequences
 * out. Floating dtypes run in float64 and each result is rounded once; bool and integers run in
 * int64. So the bits depend on nothing but the values, and an error does not grow along the way.
 *
 * Sequences that lie side by side are run together, up to WIDTH of them:
 *
 *     room   WIDTH = 1          elements 0 .. BLOCK-1 of one sequence
 *            WIDTH = columns    [rows][columns] of as many neighbours as there are
 */
#include <math.h>
#include <string.h>

#include "backends/cpu/kernels.h"
#include "backends/cpu/lanes.h"
#include "backends/cpu/parts.h"
#include "backends/cpu/pool.h"
#include "backends/cpu/strided.h"
#include "ops/op.h"
#include "ops_gen.h"

enum { WIDTH = 64, BLOCK = 1024, CHUNK = 16384 };

/* One block: `steps` elements of `width` sequences, in[i * width + j]. state is zero before the
 * first one. */
typedef struct block {
    void *state, *x, *factor, *out;
    int64_t *best, *index; /* extrema: where the best so far stands, and the result */
    int64_t steps, width, at;
    bool first, reverse;
} block;

typedef void (*scan_fn)(const block *b);

typedef struct scan_job {
    sp_operand out, index, x, factor; /* index.data, factor.data NULL: none */
    scan_fn fn;
    int acc; /* the dtype that it runs in */
    int dim;
    bool reverse;
    int64_t n, width, units_a_chunk, units;
} scan_job;

/* ---- steps ----- */

#define EACH(b, i, j)                                                                              \
    for (int64_t k_ = 0, i = (b)->reverse ? (b)->steps - 1 : 0; k_ < (b)->steps;                   \
         k_++, i += (b)->reverse ? -1 : 1)                                                         \
        for (int64_t j = 0; j < (b)->width; j++)

#define DEFINE_RUNNING(name, T, U, start, next)                                                    \
    static void name(const block *b)                                                               \
    {                                                                                              \
        T *state = b->state;                                                                       \
        const T *in = b->x;                                                                        \
        T *out = b->out;                                                                           \
        if (b->first)                                                                              \
            for (int64_t j = 0; j < b->width; j++) state[j] = start;                               \
        EACH(b, i, j)                                                                              \
        {                                                                                          \
            U s = (U)state[j], x = (U)in[i * b->width + j];                                        \
            out[i * b->width + j] = state[j] = (T)(next);                                          \
        }                                                                                          \
    }

/* Integers wrap around. */
DEFINE_RUNNING(sum_f64, double, double, 0, s + x)
DEFINE_RUNNING(sum_i64, int64_t, uint64_t, 0, s + x)
DEFINE_RUNNING(prod_f64, double, double, 1, s *x)
DEFINE_RUNNING(prod_i64, int64_t, uint64_t, 1, s *x)

static double log_add_exp(double x, double y)
{
    double low = isnan(y) || y < x ? y : x, high = isnan(y) || y > x ? y : x;
    if (low == high && isinf(low)) return low;
    return high + log1p(exp(low - high));
}
DEFINE_RUNNING(log_sum_f64, double, double, -INFINITY, log_add_exp(s, x))

/* Of equals the last one counts, and so does every NaN. */
#define DEFINE_EXTREMUM(name, T, before)                                                           \
    static void name(const block *b)                                                               \
    {                                                                                              \
        T *state = b->state;                                                                       \
        const T *in = b->x;                                                                        \
        T *out = b->out;                                                                           \
        EACH(b, i, j)                                                                              \
        {                                                                                          \
            T x = in[i * b->width + j];                                                            \
            if ((b->first && i == 0) || x != x || x before state[j])                               \
                state[j] = x, b->best[j] = b->at + i;                                              \
            out[i * b->width + j] = state[j], b->index[i * b->width + j] = b->best[j];             \
        }                                                                                          \
    }
DEFINE_EXTREMUM(max_f64, double, >=)
DEFINE_EXTREMUM(max_i64, int64_t, >=)
DEFINE_EXTREMUM(min_f64, double, <=)
DEFINE_EXTREMUM(min_i64, int64_t, <=)

/* out[i] = x[i] + factor[i] out[i - 1]; in reverse, x[i] + factor[i + 1] out[i + 1]. The first
 * factor is not looked at. */
static void linear_f64(const block *b)
{
    double *state = b->state, *out = b->out;
    const double *x = b->x, *factor = b->factor;
    int64_t start = b->reverse ? b->steps - 1 : 0;
    EACH(b, i, j)
    {
        int64_t e = i * b->width + j;
        if (b->first && i == start)
            out[e] = x[e];
        else
            out[e] = x[e] + (b->reverse ? state[j] : factor[e] * state[j]);
        state[j] = b->reverse ? factor[e] * out[e] : out[e];
    }
}

/* ---- blocks to and from memory ----- */

/* Elements [from, from + steps) of `width` sequences whose first is at `base`, in the dtype `acc`.
 */
static void fetch(const scan_job *j, const sp_operand *x, const char *base, int64_t from,
                  int64_t steps, int64_t width, int64_t side, void *raw, void *room)
{
    int64_t size = sp__size_of(x->dtype), step = x->rank ? x->stride[j->dim] : 0;
    bool convert = x->dtype != j->acc;
    char *to = convert ? raw : room;
    base += from * step * size;
    if (width == 1)
        sp__gather_run(to, base, size, steps, step);
    else
        for (int64_t i = 0; i < steps; i++)
            sp__gather_run(to + i * width * size, base + i * step * size, size, width, side);
    if (convert) sp__isa->cast[x->dtype][j->acc](room, raw, NULL, NULL, steps * width, 0);
}

static void store(const scan_job *j, const sp_operand *out, char *base, int64_t from, int64_t steps,
                  int64_t width, int64_t side, int from_dtype, void *room, void *raw)
{
    int64_t size = sp__size_of(out->dtype), step = out->rank ? out->stride[j->dim] : 0;
    if (out->dtype != from_dtype) {
        sp__isa->cast[from_dtype][out->dtype](raw, room, NULL, NULL, steps * width, 0);
        room = raw;
    }
    base += from * step * size;
    if (width == 1)
        sp__scatter_run(base, room, size, steps, step);
    else
        for (int64_t i = 0; i < steps; i++)
            sp__scatter_run(base + i * step * size, (char *)room + i * width * size, size, width,
                            side);
}

/* ---- sequences ----- */

/* Where an operand's sequence number `at` begins, sequences counted in row-major order. */
static char *sequence_at(const scan_job *j, const sp_operand *x, int64_t at)
{
    int64_t offset = 0;
    for (int d = x->rank - 1; d >= 0; d--) {
        if (d == j->dim) continue;
        offset += at % x->shape[d] * x->stride[d];
        at /= x->shape[d];
    }
    return x->data + offset * sp__size_of(x->dtype);
}

/* The stride from one sequence to its neighbour, within the last dimension that is not scanned. */
static int64_t side_of(const scan_job *j, const sp_operand *x)
{
    int last = x->rank - 1 == j->dim ? x->rank - 2 : x->rank - 1;
    return last >= 0 ? x->stride[last] : 0;
}

static void run_sequences(const scan_job *j, int64_t at, int64_t width)
{
    double x[BLOCK], factor[BLOCK], out[BLOCK], raw[BLOCK], state[WIDTH];
    int64_t best[WIDTH], index[BLOCK], rows = BLOCK / width;
    block b = {.state = state, .x = x, .factor = factor, .out = out, .best = best, .index = index};
    b.width = width, b.first = true, b.reverse = j->reverse;
    const char *x_at = sequence_at(j, &j->x, at);
    const char *factor_at = j->factor.data ? sequence_at(j, &j->factor, at) : NULL;
    char *out_at = sequence_at(j, &j->out, at);
    char *index_at = j->index.data ? sequence_at(j, &j->index, at) : NULL;
    for (int64_t done = 0; done < j->n; done += b.steps, b.first = false) {
        b.steps = j->n - done < rows ? j->n - done : rows;
        b.at = j->reverse ? j->n - done - b.steps : done;
        fetch(j, &j->x, x_at, b.at, b.steps, width, side_of(j, &j->x), raw, x);
        if (factor_at)
            fetch(j, &j->factor, factor_at, b.at, b.steps, width, side_of(j, &j->factor), raw,
                  factor);
        j->fn(&b);
        store(j, &j->out, out_at, b.at, b.steps, width, side_of(j, &j->out), j->acc, out, raw);
        if (index_at)
            store(j, &j->index, index_at, b.at, b.steps, width, side_of(j, &j->index), SP_INT64,
                  index, raw);
    }
}

/* Units are runs of up to `width` neighbours in the last dimension that is not scanned. */
static void scan_chunk(void *ctx, int64_t chunk)
{
    const scan_job *j = ctx;
    int last = j->x.rank - 1 == j->dim ? j->x.rank - 2 : j->x.rank - 1;
    int64_t line = last >= 0 ? j->x.shape[last] : 1;
    int64_t a_line = (line + j->width - 1) / j->width;
    for (int64_t u = chunk * j->units_a_chunk; u < (chunk + 1) * j->units_a_chunk; u++) {
        if (u >= j->units) return;
        int64_t column = u % a_line * j->width;
        run_sequences(j, u / a_line * line + column,
                      line - column < j->width ? line - column : j->width);
    }
}

static sp_status scan(scan_job *j, const sp_attr *dim_attr)
{
    const sp_operand *x = &j->x;
    if (x->numel == 0) return SP_OK;
    j->dim = x->rank == 0 ? 0 : (int)(dim_attr->v.i < 0 ? dim_attr->v.i + x->rank : dim_attr->v.i);
    j->n = x->rank == 0 ? 1 : x->shape[j->dim];
    int last = x->rank - 1 == j->dim ? x->rank - 2 : x->rank - 1;
    int64_t line = last >= 0 ? x->shape[last] : 1;
    /* Neighbours are run together unless a sequence is the denser run. */
    bool along = x->rank == 0 || j->dim == x->rank - 1;
    j->width = along ? 1 : line < WIDTH ? line : WIDTH;
    j->units = x->numel / j->n / line * ((line + j->width - 1) / j->width);
    j->units_a_chunk = CHUNK / (j->n * j->width) + 1;
    double us = (double)x->numel * (j->fn == log_sum_f64 ? 20e-3 : 1.5e-3);
    sp__pool_for((j->units + j->units_a_chunk - 1) / j->units_a_chunk, us, scan_chunk, j);
    return SP_OK;
}

static bool floating(const sp_operand *x)
{
    return sp__dtype_is_floating(x->dtype);
}

static sp_status running(const sp_kargs *args, scan_fn f64, scan_fn i64)
{
    bool wide = floating(&args->arg[0]);
    scan_job j = {.out = args->arg[0],
                  .x = args->arg[1],
                  .fn = wide ? f64 : i64,
                  .acc = wide ? SP_FLOAT64 : SP_INT64};
    return scan(&j, &args->attr[0]);
}

static sp_status extremum(const sp_kargs *args, scan_fn f64, scan_fn i64)
{
    bool wide = floating(&args->arg[0]);
    scan_job j = {.out = args->arg[0],
                  .index = args->arg[1],
                  .x = args->arg[2],
                  .fn = wide ? f64 : i64,
                  .acc = wide ? SP_FLOAT64 : SP_INT64};
    return scan(&j, &args->attr[0]);
}

sp_status sp__cpu_cumsum(const sp_kargs *args)
{
    if (sp__dtype_is_complex(args->arg[0].dtype)) return sp__cpu_by_parts(sp__cpu_cumsum, args);
    return running(args, sum_f64, sum_i64);
}

sp_status sp__cpu_cumprod(const sp_kargs *args)
{
    return running(args, prod_f64, prod_i64);
}

sp_status sp__cpu_logcumsumexp(const sp_kargs *args)
{
    return running(args, log_sum_f64, NULL);
}

sp_status sp__cpu_cummax(const sp_kargs *args)
{
    return extremum(args, max_f64, max_i64);
}

sp_status sp__cpu_cummin(const sp_kargs *args)
{
    return extremum(args, min_f64, min_i64);
}

/* attributes: dim, reverse */
sp_status sp__cpu_linear_scan(const sp_kargs *args)
{
    scan_job j = {.out = args->arg[0],
                  .x = args->arg[1],
                  .factor = args->arg[2],
                  .fn = linear_f64,
                  .acc = SP_FLOAT64,
                  .reverse = args->attr[1].v.i != 0};
    return scan(&j, &args->attr[0]);
}
