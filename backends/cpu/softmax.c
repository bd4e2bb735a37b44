/* softmax, log_softmax and their derivatives, a row at a time (rows.h).
 *
 * softmax of a row is exp(x - max) / sum(exp(x - max)), log_softmax (x - max) - log(sum(exp(x -
 * max))). Rows that do not lie dense are made dense first, and brought to their places afterwards.
 */
#include <math.h>
#include <string.h>

#include "backends/cpu/copy.h"
#include "backends/cpu/kernels.h"
#include "backends/cpu/lanes.h"
#include "backends/cpu/pool.h"
#include "backends/cpu/rows.h"
#include "backends/cpu/strided.h"
#include "ops/op.h"
#include "ops_gen.h"
#include "tensor/memory.h"

typedef struct job job;
typedef void (*row_fn)(const job *j, char *out, const char *a, const char *b);

struct job {
    const sp_rows *f;
    row_fn row;
    const char *in[2]; /* dense rows */
    char *out;
    int n_in;
    int64_t rows, n, size, rows_a_chunk;
};

/* ---- rows ----- */

/* A sum of 0, infinity or NaN comes from a row of NaN, or one without a finite maximum. */
static void softmax_row(const job *j, char *out, const char *x, const char *none)
{
    (void)none;
    double sum = j->f->exps(out, x, j->n, j->f->max(x, j->n));
    j->f->scale(out, out, j->n, 1 / sum);
}

static void log_softmax_row(const job *j, char *out, const char *x, const char *none)
{
    (void)none;
    double max = j->f->max(x, j->n);
    j->f->less(out, x, j->n, max, log(j->f->exps(NULL, x, j->n, max)));
}

static void softmax_back_row(const job *j, char *out, const char *grad, const char *y)
{
    double sum[2];
    j->f->sums(grad, y, j->n, 0, sum);
    j->f->softmax_back(out, grad, y, j->n, sum[1]);
}

static void log_softmax_back_row(const job *j, char *out, const char *grad, const char *y)
{
    double sum[2];
    j->f->sums(grad, y, j->n, 0, sum);
    j->f->log_softmax_back(out, grad, y, j->n, sum[0]);
}

/* ---- all rows ----- */

static void chunk_of_rows(void *ctx, int64_t chunk)
{
    const job *j = ctx;
    int64_t end = (chunk + 1) * j->rows_a_chunk < j->rows ? (chunk + 1) * j->rows_a_chunk : j->rows;
    for (int64_t i = chunk * j->rows_a_chunk; i < end; i++) {
        int64_t at = i * j->n * j->size;
        j->row(j, j->out + at, j->in[0] + at, j->n_in > 1 ? j->in[1] + at : NULL);
    }
}

static void run_rows(job *j)
{
    j->rows_a_chunk = 4096 / (j->n + 1) + 1;
    double us = (double)(j->rows * j->n) * (j->size == 4 ? 0.6e-3 : 3e-3) + (double)j->rows * 0.05;
    sp__pool_for((j->rows + j->rows_a_chunk - 1) / j->rows_a_chunk, us, chunk_of_rows, j);
}

/* x with dimension `dim` last. */
static sp_operand dim_last(const sp_operand *x, int dim)
{
    sp_operand y = *x;
    for (int d = dim; d + 1 < x->rank; d++)
        y.shape[d] = x->shape[d + 1], y.stride[d] = x->stride[d + 1];
    y.shape[x->rank - 1] = x->shape[dim], y.stride[x->rank - 1] = x->stride[dim];
    return y;
}

static sp_operand dense_like(const sp_operand *x, char *data)
{
    sp_operand y = *x;
    int64_t step = 1;
    for (int d = x->rank - 1; d >= 0; d--) y.stride[d] = step, step *= x->shape[d];
    y.data = data, y.contiguous = true;
    return y;
}

/* Whether rows lie dense under one another. */
static bool has_rows(const sp_operand *x, int dim)
{
    return x->rank == 0 || (dim == x->rank - 1 && sp__is_dense(x));
}

static sp_status run_aside(const sp_kargs *args, job *j, int dim)
{
    size_t one = ((size_t)(args->arg[0].numel * j->size) + 63) / 64 * 64, bytes = one * 3;
    char *room = sp__alloc(bytes);
    if (room == NULL)
        return sp_fail(SP_EMEMORY, "%s: no memory for %zu bytes of dense rows",
                       sp_op_table[args->op].name, bytes);
    for (int i = 0; i < j->n_in; i++) {
        const sp_operand *x = &args->arg[1 + i];
        if (has_rows(x, dim)) continue;
        sp_operand from = dim_last(x, dim), dense = dense_like(&from, room + one * (size_t)(i + 1));
        sp__copy_strided(&dense, &from);
        j->in[i] = dense.data;
    }
    j->out = room;
    run_rows(j);
    sp_operand to = dim_last(&args->arg[0], dim), dense = dense_like(&to, room);
    sp__copy_strided(&to, &dense);
    sp__free(room, bytes);
    return SP_OK;
}

/* attributes: dim */
static sp_status run(const sp_kargs *args, row_fn row)
{
    const sp_operand *out = &args->arg[0];
    int64_t dim = args->attr[0].v.i < 0 ? args->attr[0].v.i + out->rank : args->attr[0].v.i;
    job j = {.f = sp__isa->rows[out->dtype], .row = row, .out = out->data, .rows = 1, .n = 1};
    if (out->numel == 0) return SP_OK;
    j.size = sp__size_of(out->dtype), j.n_in = args->n_arg - 1;
    bool plain = has_rows(out, (int)dim);
    for (int i = 0; i < j.n_in; i++) {
        j.in[i] = args->arg[1 + i].data;
        plain = plain && has_rows(&args->arg[1 + i], (int)dim);
    }
    if (out->rank > 0) j.n = out->shape[dim], j.rows = out->numel / j.n;
    if (!plain) return run_aside(args, &j, (int)dim);
    run_rows(&j);
    return SP_OK;
}

sp_status sp__cpu_softmax(const sp_kargs *args)
{
    return run(args, softmax_row);
}

sp_status sp__cpu_log_softmax(const sp_kargs *args)
{
    return run(args, log_softmax_row);
}

sp_status sp__cpu_softmax_backward(const sp_kargs *args)
{
    return run(args, softmax_back_row);
}

sp_status sp__cpu_log_softmax_backward(const sp_kargs *args)
{
    return run(args, log_softmax_back_row);
}
