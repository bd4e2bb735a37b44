/* layer_norm and rms_norm, which normalise rows, and their derivatives (rows.h).
 *
 * A row is read from the first-level cache after its first pass, so derivatives compute its
 * statistics anew in place of having them saved. Weights' and biases' gradients are summed over
 * parts of PART rows, and the parts in pairs: threads share whole parts out.
 */
#include <math.h>
#include <string.h>

#include "backends/cpu/dense.h"
#include "backends/cpu/kernels.h"
#include "backends/cpu/lanes.h"
#include "backends/cpu/pool.h"
#include "backends/cpu/rows.h"
#include "backends/cpu/strided.h"
#include "ops/op.h"
#include "ops_gen.h"
#include "tensor/memory.h"

enum { PART = 64 };

typedef struct job {
    const sp_rows *f;
    int64_t rows, n, size;
    double eps;
    bool centred; /* layer_norm; rms_norm otherwise */
    const char *x, *gy, *weight, *bias;
    char *out;
    char *sums; /* for each part, what weights get, then what biases get */
} job;

typedef struct statistics {
    double mean, rstd;
} statistics;

static statistics statistics_of(const job *j, const char *x)
{
    double sum[2];
    if (j->centred) {
        sp_moments m = j->f->moments(x, j->n);
        return (statistics){m.mean, 1 / sqrt(m.m2 / m.n + j->eps)};
    }
    j->f->sums(x, x, j->n, 0, sum);
    return (statistics){0, 1 / sqrt(sum[1] / (double)j->n + j->eps)};
}

static double predict_us(const job *j, double ns)
{
    return (double)(j->rows * j->n) * ns * 1e-3 * (j->size == 4 ? 1 : 2) + (double)j->rows * 0.05;
}

/* The number of elements that weights, and statistics, span: those of the normalized_shape. */
static job job_of(const sp_operand *x, const sp_attr *shape, double eps, bool centred)
{
    job j = {.n = 1, .size = sp__size_of(x->dtype), .eps = eps, .centred = centred};
    j.f = sp__isa->rows[x->dtype];
    for (int i = 0; i < shape->n; i++) j.n *= shape->v.ints[i];
    j.rows = j.n > 0 ? x->numel / j.n : 0;
    return j;
}

/* ---- forward ----- */

static void forward_chunk(void *ctx, int64_t chunk)
{
    const job *j = ctx;
    int64_t end = (chunk + 1) * PART < j->rows ? (chunk + 1) * PART : j->rows;
    for (int64_t i = chunk * PART; i < end; i++) {
        const char *x = j->x + i * j->n * j->size;
        statistics s = statistics_of(j, x);
        j->f->apply_each(j->out + i * j->n * j->size, x, j->n, s.mean, s.rstd, j->weight, j->bias);
    }
}

static sp_status forward(const sp_kargs *args, bool centred, double eps)
{
    sp_dense d[SP_KARGS_INLINE];
    job j = job_of(&args->arg[1], &args->attr[0], eps, centred);
    sp_status status = SP_OK;
    if (args->arg[0].numel == 0) return SP_OK;
    SP_TRY(sp__dense_begin(args, d));
    j.out = d[0].data, j.x = d[1].data, j.weight = d[2].data;
    j.bias = args->n_arg > 3 ? d[3].data : NULL;
    sp__pool_for((j.rows + PART - 1) / PART, predict_us(&j, 0.3), forward_chunk, &j);
out:
    return sp__dense_end(args, d, status);
}

/* ---- backward ----- */

static void backward_row(const job *j, int64_t row, char *gw, char *gb)
{
    int64_t at = row * j->n * j->size;
    const char *x = j->x + at, *gy = j->gy + at;
    double sum[2], n = (double)j->n;
    statistics s = statistics_of(j, x);
    j->f->sums_each(gy, x, j->weight, j->n, s.mean, s.rstd, gw, gb, sum);
    j->f->back_each(j->out + at, gy, x, j->weight, j->n, s.mean, s.rstd,
                    j->centred ? sum[0] / n : 0, sum[1] / n);
}

static void backward_chunk(void *ctx, int64_t part)
{
    const job *j = ctx;
    int64_t bytes = j->n * j->size, end = (part + 1) * PART < j->rows ? (part + 1) * PART : j->rows;
    char *gw = j->sums + part * 2 * bytes;
    memset(gw, 0, (size_t)(2 * bytes));
    for (int64_t i = part * PART; i < end; i++)
        backward_row(j, i, gw, j->centred ? gw + bytes : NULL);
}

/* Parts added in pairs, pairs in pairs; to the first. */
static void join_parts(const job *j, int dtype, int64_t parts)
{
    const sp_reduce_lanes *f = &sp__isa->reduce[SP_TREE_SUM][dtype];
    int64_t bytes = 2 * j->n * j->size;
    for (int64_t step = 1; step < parts; step *= 2)
        for (int64_t i = 0; i + step < parts; i += 2 * step)
            f->combine(j->sums + i * bytes, j->sums + (i + step) * bytes, 2 * j->n);
}

/* outputs: of x, of weight, and for layer_norm of bias; inputs: gy, x, weight */
static sp_status backward(const sp_kargs *args, bool centred, double eps)
{
    sp_dense d[SP_KARGS_INLINE];
    int n_out = args->n_out, dtype = args->arg[0].dtype;
    job j = job_of(&args->arg[n_out + 1], &args->attr[0], eps, centred);
    int64_t parts = j.rows > 0 ? (j.rows + PART - 1) / PART : 1;
    size_t bytes = (size_t)(parts * 2 * j.n * j.size), one = (size_t)(j.n * j.size);
    sp_status status = SP_OK;
    SP_TRY(sp__dense_begin(args, d));
    j.out = d[0].data, j.gy = d[n_out].data, j.x = d[n_out + 1].data, j.weight = d[n_out + 2].data;
    j.sums = sp__alloc(bytes);
    if (j.sums == NULL)
        SP_TRY(sp_fail(SP_EMEMORY, "%s: no memory for %zu bytes of sums",
                       sp_op_table[args->op].name, bytes));
    if (j.rows == 0) memset(j.sums, 0, bytes);
    if (j.rows > 0) sp__pool_for(parts, predict_us(&j, 0.7), backward_chunk, &j);
    join_parts(&j, dtype, parts);
    for (int k = 1; k < n_out; k++) memcpy(d[k].data, j.sums + (size_t)(k - 1) * one, one);
    sp__free(j.sums, bytes);
out:
    return sp__dense_end(args, d, status);
}

/* ---- ops ----- */

sp_status sp__cpu_layer_norm(const sp_kargs *args)
{
    return forward(args, true, args->attr[SP_LAYER_NORM_EPS].v.f);
}

sp_status sp__cpu_layer_norm_backward(const sp_kargs *args)
{
    return backward(args, true, args->attr[SP_LAYER_NORM_BACKWARD_EPS].v.f);
}

/* The default of eps is the distance of 1 from the next number. */
static double rms_eps(const sp_kargs *args, const sp_attr *eps)
{
    if (!eps->absent) return eps->v.f;
    return args->arg[0].dtype == SP_FLOAT32 ? 0x1p-23 : 0x1p-52;
}

sp_status sp__cpu_rms_norm(const sp_kargs *args)
{
    return forward(args, false, rms_eps(args, &args->attr[SP_RMS_NORM_EPS]));
}

sp_status sp__cpu_rms_norm_backward(const sp_kargs *args)
{
    return backward(args, false, rms_eps(args, &args->attr[SP_RMS_NORM_BACKWARD_EPS]));
}
