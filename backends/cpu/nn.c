/* log_softmax, softmax and nll_loss.
 *
 * log_softmax of a row is (x - max) - log(sum(exp(x - max))), softmax exp(x - max) / sum(exp(x -
 * max)): every step is the vector function of that op, the maximum and the sum are the rows trees
 * of amax and sum. So they have the bits of the compositions, whatever computes those.
 */
#include <string.h>

#include "backends/cpu/copy.h"
#include "backends/cpu/kernels.h"
#include "backends/cpu/pool.h"
#include "backends/cpu/reduce.h"
#include "backends/cpu/strided.h"
#include "ops/op.h"
#include "ops_gen.h"
#include "tensor/memory.h"

/* ---- log_softmax and softmax ----- */

enum {
    SHORT = 256,
    ROWS = 64
}; /* exponentials of a short row fit on the stack; rows whose logarithms are taken at once */

typedef struct softmax_job {
    const char *x;
    char *out, *room; /* room: as large as out, for the exponentials of long rows */
    int64_t rows, n, size, rows_a_chunk;
    int dtype;
    bool plain; /* softmax itself, not its logarithm; needs no room */
} softmax_job;

/* out = x - max; the sum of its exponentials */
static void softmax_row(const softmax_job *j, const char *x, char *out, char *room, char *sum)
{
    double max;
    sp__reduce_row(SP_REDUCE_MAX, j->dtype, x, j->n, &max);
    sp__isa->pointwise[SP_OP_SUB_SCALAR]->fn[j->dtype](out, x, &max, NULL, j->n, 2);
    sp__isa->pointwise[SP_OP_EXP]->fn[j->dtype](room, out, NULL, NULL, j->n, 0);
    sp__reduce_row(SP_REDUCE_SUM, j->dtype, room, j->n, sum);
}

/* One row of softmax. A sum of 0 or infinity comes from a row of NaN alone. */
static void plain_softmax_row(const softmax_job *j, const char *x, char *out)
{
    double max, sum;
    sp__reduce_row(SP_REDUCE_MAX, j->dtype, x, j->n, &max);
    sp__isa->pointwise[SP_OP_SUB_SCALAR]->fn[j->dtype](out, x, &max, NULL, j->n, 2);
    sp__isa->pointwise[SP_OP_EXP]->fn[j->dtype](out, out, NULL, NULL, j->n, 0);
    sp__reduce_row(SP_REDUCE_SUM, j->dtype, out, j->n, &sum);
    sp__isa->pointwise[SP_OP_DIV_SCALAR]->fn[j->dtype](out, out, &sum, NULL, j->n, 2);
}

static void softmax_some(const softmax_job *j, int64_t first, int64_t rows)
{
    double stack[SHORT], sums[ROWS];
    for (int64_t i = 0; i < rows; i++) {
        int64_t at = (first + i) * j->n * j->size;
        char *room = j->n <= SHORT ? (char *)stack : j->room + at;
        softmax_row(j, j->x + at, j->out + at, room, (char *)sums + i * j->size);
    }
    sp__isa->pointwise[SP_OP_LOG]->fn[j->dtype](sums, sums, NULL, NULL, rows, 0);
    for (int64_t i = 0; i < rows; i++) {
        char *out = j->out + (first + i) * j->n * j->size;
        sp__isa->pointwise[SP_OP_SUB_SCALAR]->fn[j->dtype](out, out, (char *)sums + i * j->size,
                                                           NULL, j->n, 2);
    }
}

static void softmax_chunk(void *ctx, int64_t chunk)
{
    const softmax_job *j = ctx;
    int64_t end = (chunk + 1) * j->rows_a_chunk < j->rows ? (chunk + 1) * j->rows_a_chunk : j->rows;
    for (int64_t i = chunk * j->rows_a_chunk; j->plain && i < end; i++)
        plain_softmax_row(j, j->x + i * j->n * j->size, j->out + i * j->n * j->size);
    for (int64_t i = chunk * j->rows_a_chunk; !j->plain && i < end; i += ROWS)
        softmax_some(j, i, end - i < ROWS ? end - i : ROWS);
}

static void softmax_rows(softmax_job *j)
{
    j->rows_a_chunk = 4096 / (j->n + 1) + 1;
    double us = (double)(j->rows * j->n) * (j->dtype == SP_FLOAT32 ? 1.5e-3 : 3e-3) +
                (double)j->rows * 0.05;
    sp__pool_for((j->rows + j->rows_a_chunk - 1) / j->rows_a_chunk, us, softmax_chunk, j);
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

/* attributes: dim */
static sp_status softmax(const sp_kargs *args, bool plain_softmax)
{
    const sp_operand *out = &args->arg[0], *in = &args->arg[1];
    if (out->numel == 0) return SP_OK;
    softmax_job j = {.x = in->data,
                     .out = out->data,
                     .dtype = out->dtype,
                     .plain = plain_softmax,
                     .rows = 1,
                     .n = 1,
                     .size = sp__size_of(out->dtype)};
    int64_t dim = args->attr[0].v.i;
    if (dim < 0) dim += in->rank;
    bool plain = in->rank == 0 || (dim == in->rank - 1 && sp__is_dense(in) && sp__is_dense(out));
    if (in->rank > 0) j.n = in->shape[dim], j.rows = out->numel / j.n;
    /* Strided rows are made dense first, and brought to their places afterwards. */
    size_t values = plain ? 0 : (size_t)(out->numel * j.size),
           exps = j.n <= SHORT || j.plain ? 0 : (size_t)(out->numel * j.size);
    char *room = values + exps > 0 ? sp__alloc(values + exps) : NULL;
    if (values + exps > 0 && room == NULL) {
        return sp_fail(SP_EMEMORY, "%s: no memory for %zu bytes of intermediate values",
                       sp_op_table[args->op].name, values + exps);
    }
    j.room = exps > 0 ? room + values : NULL;
    if (plain) {
        softmax_rows(&j);
    } else {
        sp_operand from = dim_last(in, (int)dim), to = dim_last(out, (int)dim),
                   dense = dense_like(&from, room);
        sp__copy_strided(&dense, &from);
        j.x = j.out = room;
        softmax_rows(&j);
        sp__copy_strided(&to, &dense);
    }
    if (room != NULL) sp__free(room, values + exps);
    return SP_OK;
}

sp_status sp__cpu_log_softmax(const sp_kargs *args)
{
    return softmax(args, false);
}

sp_status sp__cpu_softmax(const sp_kargs *args)
{
    return softmax(args, true);
}

/* ---- nll_loss ----- */

typedef struct classes { /* x (C), (N, C) or (N, C, d1, ...) as target's positions and a class */
    sp_operand places;   /* x without the classes, target's shape */
    int64_t count, stride;
} classes;

static classes classes_of(const sp_operand *x)
{
    int dim = x->rank > 1 ? 1 : 0;
    classes c = {.places = *x, .count = x->shape[dim], .stride = x->stride[dim]};
    c.places.rank--;
    for (int d = dim; d < c.places.rank; d++) {
        c.places.shape[d] = c.places.shape[d + 1], c.places.stride[d] = c.places.stride[d + 1];
    }
    c.places.numel = 1;
    for (int d = 0; d < c.places.rank; d++) c.places.numel *= c.places.shape[d];
    return c;
}

static int64_t target_at(const sp_operand *target, int64_t i)
{
    int64_t value;
    memcpy(&value, target->contiguous ? target->data + i * 8 : sp__element_at(target, i), 8);
    return value;
}

static sp_status check_targets(const sp_operand *target, int64_t count)
{
    for (int64_t i = 0; i < target->numel; i++) {
        int64_t value = target_at(target, i);
        if (value >= 0 && value < count) continue;
        return sp_fail(SP_EINDEX,
                       "nll_loss: target %lld is out of range for %lld classes: expected 0 to %lld",
                       (long long)value, (long long)count, (long long)count - 1);
    }
    return SP_OK;
}

/* losses[i] = -x[place i][target i], dense */
static void pick_losses(const classes *c, const sp_operand *target, char *losses, int dtype)
{
    int64_t size = sp__size_of(dtype);
    for (int64_t i = 0; i < target->numel; i++) {
        const char *from = sp__element_at(&c->places, i) + target_at(target, i) * c->stride * size;
        memcpy(losses + i * size, from, (size_t)size);
    }
    sp__isa->pointwise[SP_OP_NEG]->fn[dtype](losses, losses, NULL, NULL, target->numel, 0);
}

static void divide(void *x, int64_t n, int dtype)
{
    double divisor;
    float narrow = (float)n, *f = x;
    if (dtype == SP_FLOAT32)
        memcpy(&divisor, &narrow, sizeof narrow);
    else
        divisor = (double)n;
    sp__isa->pointwise[SP_OP_DIV_SCALAR]->fn[dtype](f, f, &divisor, NULL, 1, 2);
}

/* attributes: reduction */
sp_status sp__cpu_nll_loss(const sp_kargs *args)
{
    const sp_operand *out = &args->arg[0], *target = &args->arg[2];
    int64_t reduction = args->attr[0].v.i, size = sp__size_of(out->dtype);
    classes c = classes_of(&args->arg[1]);
    SP_RETURN_IF(check_targets(target, c.count));
    if (reduction == SP_REDUCTION_NONE && out->contiguous) {
        pick_losses(&c, target, out->data, out->dtype);
        return SP_OK;
    }
    size_t bytes = (size_t)(target->numel * size);
    char *losses = sp__alloc(bytes);
    if (losses == NULL)
        return sp_fail(SP_EMEMORY, "nll_loss: no memory for %zu bytes of losses", bytes);
    pick_losses(&c, target, losses, out->dtype);
    if (reduction == SP_REDUCTION_NONE) {
        sp__scatter(out, losses, 0, target->numel);
    } else {
        sp__reduce_row(SP_REDUCE_SUM, out->dtype, losses, target->numel, out->data);
        if (reduction == SP_REDUCTION_MEAN) divide(out->data, target->numel, out->dtype);
    }
    sp__free(losses, bytes);
    return SP_OK;
}
