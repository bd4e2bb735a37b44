/* group_norm, batch_norm_train and channel_affine: normalisation of x (N, C, ...) with a weight and
 * a bias a channel, and the derivatives (rows.h).
 *
 * x is (N, C, S) here, a run being the S elements of one example and channel. Where S is 1, groups
 * are rows with weights along them, and batches are normalised by columns, SP_ROWS_COLUMNS channels
 * at a time. Sums over runs are made in
 * order, in float64; a chunk of threads' work is a group, or a channel, or some columns.
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

typedef struct job {
    const sp_rows *f;
    int dtype;
    int64_t examples, channels, run, size;
    int64_t groups, channels_a_group; /* group_norm */
    double eps;
    const char *x, *gy, *weight, *bias;
    const char *mean_in, *var_in; /* of batch_norm_backward */
    char *out, *out_weight, *out_bias, *out_mean, *out_var;
    double *sums; /* group_norm_backward: for each example and channel, sum gy, sum gy z */
} job;

static job job_of(const sp_operand *x, double eps)
{
    job j = {.f = sp__isa->rows[x->dtype], .dtype = x->dtype, .size = sp__size_of(x->dtype)};
    j.examples = x->shape[0], j.channels = x->shape[1], j.run = 1, j.eps = eps;
    for (int d = 2; d < x->rank; d++) j.run *= x->shape[d];
    return j;
}

static double number(const char *p, int64_t i, int dtype, double none)
{
    if (p == NULL) return none;
    return dtype == SP_FLOAT32 ? (double)((const float *)(const void *)p)[i]
                               : ((const double *)(const void *)p)[i];
}

static void put(char *p, int64_t i, int dtype, double value)
{
    if (dtype == SP_FLOAT32)
        ((float *)(void *)p)[i] = (float)value;
    else
        ((double *)(void *)p)[i] = value;
}

static int64_t run_at(const job *j, int64_t example, int64_t channel)
{
    return (example * j->channels + channel) * j->run * j->size;
}

static double weight_of(const job *j, int64_t channel)
{
    return number(j->weight, channel, j->dtype, 1);
}

static double predict_us(const job *j, double ns)
{
    double runs = (double)(j->examples * j->channels);
    return runs * (double)j->run * ns * 1e-3 * (j->size == 4 ? 1 : 2) + runs * 0.01;
}

/* ---- groups ----- */

static sp_moments group_moments(const job *j, int64_t example, int64_t channel)
{
    return j->f->moments(j->x + run_at(j, example, channel), j->channels_a_group * j->run);
}

/* Of weights or biases, those from a channel on. */
static const char *from_channel(const job *j, const char *p, int64_t channel)
{
    return p ? p + channel * j->size : NULL;
}

static void group_forward(void *ctx, int64_t chunk)
{
    const job *j = ctx;
    int64_t example = chunk / j->groups, first = chunk % j->groups * j->channels_a_group;
    sp_moments m = group_moments(j, example, first);
    double rstd = 1 / sqrt(m.m2 / m.n + j->eps);
    if (j->run == 1) {
        int64_t at = run_at(j, example, first);
        j->f->apply_each(j->out + at, j->x + at, j->channels_a_group, m.mean, rstd,
                         from_channel(j, j->weight, first), from_channel(j, j->bias, first));
        return;
    }
    for (int64_t c = first; c < first + j->channels_a_group; c++) {
        int64_t at = run_at(j, example, c);
        j->f->apply(j->out + at, j->x + at, j->run, m.mean, rstd * weight_of(j, c),
                    number(j->bias, c, j->dtype, 0));
    }
}

/* A group that is a row, a weight an element. */
static void row_backward(const job *j, int64_t example, int64_t first, sp_moments m, double rstd)
{
    int64_t at = run_at(j, example, first);
    const char *gy = j->gy + at, *x = j->x + at;
    double *sum = j->sums + (example * j->channels + first) * 2, a = 0, b = 0;
    for (int64_t i = 0; i < j->channels_a_group; i++, sum += 2) {
        double w = weight_of(j, first + i);
        sum[0] = number(gy, i, j->dtype, 0);
        sum[1] = sum[0] * ((number(x, i, j->dtype, 0) - m.mean) * rstd);
        a += w * sum[0], b += w * sum[1];
    }
    j->f->back_each(j->out + at, gy, x, from_channel(j, j->weight, first), j->channels_a_group,
                    m.mean, rstd, a / m.n, b / m.n);
}

static void group_backward(void *ctx, int64_t chunk)
{
    const job *j = ctx;
    int64_t example = chunk / j->groups, first = chunk % j->groups * j->channels_a_group,
            end = first + j->channels_a_group;
    sp_moments m = group_moments(j, example, first);
    double rstd = 1 / sqrt(m.m2 / m.n + j->eps), a = 0, b = 0;
    if (j->run == 1) {
        row_backward(j, example, first, m, rstd);
        return;
    }
    for (int64_t c = first; c < end; c++) {
        int64_t at = run_at(j, example, c);
        double *sum = j->sums + (example * j->channels + c) * 2;
        j->f->sums(j->gy + at, j->x + at, j->run, m.mean, sum);
        sum[1] *= rstd;
        a += weight_of(j, c) * sum[0], b += weight_of(j, c) * sum[1];
    }
    for (int64_t c = first; c < end; c++) {
        int64_t at = run_at(j, example, c);
        double abc[3] = {weight_of(j, c) * rstd, -b / m.n * rstd * rstd, -a / m.n * rstd};
        j->f->back(j->out + at, j->gy + at, j->x + at, j->run, m.mean, abc);
    }
}

static void add_up_examples(const job *j)
{
    for (int64_t c = 0; c < j->channels; c++) {
        double gw = 0, gb = 0;
        for (int64_t i = 0; i < j->examples; i++) {
            const double *sum = j->sums + (i * j->channels + c) * 2;
            gb += sum[0], gw += sum[1];
        }
        put(j->out_weight, c, j->dtype, gw), put(j->out_bias, c, j->dtype, gb);
    }
}

static void set_groups(job *j, int64_t groups)
{
    j->groups = groups, j->channels_a_group = j->channels / groups;
}

sp_status sp__cpu_group_norm(const sp_kargs *args)
{
    sp_dense d[SP_KARGS_INLINE];
    job j = job_of(&args->arg[1], args->attr[SP_GROUP_NORM_EPS].v.f);
    sp_status status = SP_OK;
    if (args->arg[0].numel == 0) return SP_OK;
    set_groups(&j, args->attr[SP_GROUP_NORM_NUM_GROUPS].v.i);
    SP_TRY(sp__dense_begin(args, d));
    j.out = d[0].data, j.x = d[1].data, j.weight = d[2].data, j.bias = d[3].data;
    sp__pool_for(j.examples * j.groups, predict_us(&j, 0.3), group_forward, &j);
out:
    return sp__dense_end(args, d, status);
}

sp_status sp__cpu_group_norm_backward(const sp_kargs *args)
{
    sp_dense d[SP_KARGS_INLINE];
    job j = job_of(&args->arg[4], args->attr[SP_GROUP_NORM_BACKWARD_EPS].v.f);
    size_t bytes = (size_t)(j.examples * j.channels * 2) * sizeof(double);
    sp_status status = SP_OK;
    SP_TRY(sp__dense_begin(args, d));
    j.out = d[0].data, j.out_weight = d[1].data, j.out_bias = d[2].data;
    j.gy = d[3].data, j.x = d[4].data, j.weight = d[5].data;
    j.sums = sp__alloc_zero(bytes);
    if (j.sums == NULL)
        SP_TRY(sp_fail(SP_EMEMORY, "group_norm_backward: no memory for %zu bytes of sums", bytes));
    if (j.channels > 0 && j.run > 0 && j.examples > 0) {
        set_groups(&j, args->attr[SP_GROUP_NORM_BACKWARD_NUM_GROUPS].v.i);
        sp__pool_for(j.examples * j.groups, predict_us(&j, 0.7), group_backward, &j);
    }
    add_up_examples(&j);
    sp__free(j.sums, bytes);
out:
    return sp__dense_end(args, d, status);
}

/* ---- batches ----- */

/* What a dtype keeps of a number, so that the derivative sees the statistics that were used. */
static double rounded(const job *j, double value)
{
    return j->dtype == SP_FLOAT32 ? (double)(float)value : value;
}

typedef struct channel {
    double mean, rstd;
} channel;

static channel channel_out(const job *j, int64_t c, sp_moments m)
{
    double mean = rounded(j, m.mean), var = rounded(j, m.n > 0 ? m.m2 / m.n : NAN);
    put(j->out_mean, c, j->dtype, m.n > 0 ? mean : NAN), put(j->out_var, c, j->dtype, var);
    return (channel){mean, 1 / sqrt(var + j->eps)};
}

static channel channel_in(const job *j, int64_t c)
{
    double var = number(j->var_in, c, j->dtype, 1);
    return (channel){number(j->mean_in, c, j->dtype, 0), 1 / sqrt(var + j->eps)};
}

static void batch_forward(void *ctx, int64_t c)
{
    const job *j = ctx;
    sp_moments m = {0};
    for (int64_t i = 0; i < j->examples; i++)
        m = sp__moments_join(m, j->f->moments(j->x + run_at(j, i, c), j->run));
    channel s = channel_out(j, c, m);
    double scale = s.rstd * weight_of(j, c), shift = number(j->bias, c, j->dtype, 0);
    for (int64_t i = 0; i < j->examples; i++) {
        int64_t at = run_at(j, i, c);
        j->f->apply(j->out + at, j->x + at, j->run, s.mean, scale, shift);
    }
}

/* What an element's gradient is made of, for the sums over gy and gy (x - mean); and the
 * channel's. */
static void batch_factors(const job *j, int64_t c, channel s, double sum_g, double sum_gx,
                          double *abc)
{
    double n = (double)(j->examples * j->run), w = weight_of(j, c) * s.rstd;
    abc[0] = w, abc[1] = -w * s.rstd * s.rstd * sum_gx / n, abc[2] = -w * sum_g / n;
    put(j->out_weight, c, j->dtype, sum_gx * s.rstd), put(j->out_bias, c, j->dtype, sum_g);
}

static void batch_backward(void *ctx, int64_t c)
{
    const job *j = ctx;
    channel s = channel_in(j, c);
    double sum_g = 0, sum_gx = 0, abc[3];
    for (int64_t i = 0; i < j->examples; i++) {
        int64_t at = run_at(j, i, c);
        double sum[2];
        j->f->sums(j->gy + at, j->x + at, j->run, s.mean, sum);
        sum_g += sum[0], sum_gx += sum[1];
    }
    batch_factors(j, c, s, sum_g, sum_gx, abc);
    for (int64_t i = 0; i < j->examples; i++) {
        int64_t at = run_at(j, i, c);
        j->f->back(j->out + at, j->gy + at, j->x + at, j->run, s.mean, abc);
    }
}

/* Channels first .. first + n - 1 of x (N, C), and the offset of the first. */
static int64_t columns_at(const job *j, int64_t chunk, int64_t *n)
{
    int64_t first = chunk * SP_ROWS_COLUMNS;
    *n = j->channels - first < SP_ROWS_COLUMNS ? j->channels - first : SP_ROWS_COLUMNS;
    return first;
}

static void columns_forward(void *ctx, int64_t chunk)
{
    const job *j = ctx;
    int64_t n, first = columns_at(j, chunk, &n), at = first * j->size;
    sp_moments m[SP_ROWS_COLUMNS];
    double mean[SP_ROWS_COLUMNS], scale[SP_ROWS_COLUMNS], shift[SP_ROWS_COLUMNS];
    j->f->moments_columns(j->x + at, j->examples, j->channels, n, m);
    for (int64_t k = 0; k < n; k++) {
        channel s = channel_out(j, first + k, m[k]);
        mean[k] = s.mean, scale[k] = s.rstd * weight_of(j, first + k);
        shift[k] = number(j->bias, first + k, j->dtype, 0);
    }
    j->f->apply_columns(j->out + at, j->x + at, j->examples, j->channels, n, mean, scale, shift);
}

static void columns_backward(void *ctx, int64_t chunk)
{
    const job *j = ctx;
    int64_t n, first = columns_at(j, chunk, &n), at = first * j->size;
    double mean[SP_ROWS_COLUMNS], sum_g[SP_ROWS_COLUMNS], sum_gx[SP_ROWS_COLUMNS], one[3],
        a[SP_ROWS_COLUMNS], b[SP_ROWS_COLUMNS], c[SP_ROWS_COLUMNS];
    const double *const abc[3] = {a, b, c};
    for (int64_t k = 0; k < n; k++) mean[k] = channel_in(j, first + k).mean;
    j->f->sums_columns(j->gy + at, j->x + at, j->examples, j->channels, n, mean, sum_g, sum_gx);
    for (int64_t k = 0; k < n; k++) {
        batch_factors(j, first + k, channel_in(j, first + k), sum_g[k], sum_gx[k], one);
        a[k] = one[0], b[k] = one[1], c[k] = one[2];
    }
    j->f->back_columns(j->out + at, j->gy + at, j->x + at, j->examples, j->channels, n, mean, abc);
}

static void for_channels(const job *j, double ns, sp_chunk_fn by_runs, sp_chunk_fn by_columns)
{
    int64_t tiles = (j->channels + SP_ROWS_COLUMNS - 1) / SP_ROWS_COLUMNS;
    bool columns = j->run == 1;
    sp__pool_for(columns ? tiles : j->channels, predict_us(j, ns), columns ? by_columns : by_runs,
                 (void *)j);
}

/* outputs: out, mean, var; inputs: x, weight, bias */
sp_status sp__cpu_batch_norm_train(const sp_kargs *args)
{
    sp_dense d[SP_KARGS_INLINE];
    job j = job_of(&args->arg[3], args->attr[SP_BATCH_NORM_TRAIN_EPS].v.f);
    sp_status status = SP_OK;
    SP_TRY(sp__dense_begin(args, d));
    j.out = d[0].data, j.out_mean = d[1].data, j.out_var = d[2].data;
    j.x = d[3].data, j.weight = d[4].data, j.bias = d[5].data;
    for_channels(&j, 0.3, batch_forward, columns_forward);
out:
    return sp__dense_end(args, d, status);
}

/* outputs: of x, weight and bias; inputs: gy, x, mean, var, weight */
sp_status sp__cpu_batch_norm_backward(const sp_kargs *args)
{
    sp_dense d[SP_KARGS_INLINE];
    job j = job_of(&args->arg[4], args->attr[SP_BATCH_NORM_BACKWARD_EPS].v.f);
    sp_status status = SP_OK;
    SP_TRY(sp__dense_begin(args, d));
    j.out = d[0].data, j.out_weight = d[1].data, j.out_bias = d[2].data;
    j.gy = d[3].data, j.x = d[4].data, j.mean_in = d[5].data, j.var_in = d[6].data;
    j.weight = d[7].data;
    for_channels(&j, 0.5, batch_backward, columns_backward);
out:
    return sp__dense_end(args, d, status);
}

/* ---- channel_affine ----- */

static void affine_run(void *ctx, int64_t example)
{
    const job *j = ctx;
    for (int64_t c = 0; c < j->channels; c++) {
        int64_t at = run_at(j, example, c);
        j->f->apply(j->out + at, j->x + at, j->run, 0, weight_of(j, c),
                    number(j->bias, c, j->dtype, 0));
    }
}

static void affine_columns(void *ctx, int64_t example)
{
    const job *j = ctx;
    double none[SP_ROWS_COLUMNS] = {0}, scale[SP_ROWS_COLUMNS], shift[SP_ROWS_COLUMNS];
    for (int64_t chunk = 0; chunk * SP_ROWS_COLUMNS < j->channels; chunk++) {
        int64_t n, first = columns_at(j, chunk, &n), at = run_at(j, example, first);
        for (int64_t k = 0; k < n; k++) {
            scale[k] = weight_of(j, first + k);
            shift[k] = number(j->bias, first + k, j->dtype, 0);
        }
        j->f->apply_columns(j->out + at, j->x + at, 1, j->channels, n, none, scale, shift);
    }
}

sp_status sp__cpu_channel_affine(const sp_kargs *args)
{
    sp_dense d[SP_KARGS_INLINE];
    job j = job_of(&args->arg[1], 0);
    sp_status status = SP_OK;
    if (args->arg[0].numel == 0) return SP_OK;
    SP_TRY(sp__dense_begin(args, d));
    j.out = d[0].data, j.x = d[1].data, j.weight = d[2].data, j.bias = d[3].data;
    sp__pool_for(j.examples, predict_us(&j, 0.15), j.run == 1 ? affine_columns : affine_run, &j);
out:
    return sp__dense_end(args, d, status);
}
