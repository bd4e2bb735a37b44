/* convolution and its two transposes, on BLAS and columns (conv.h).
 */
#include "backends/cpu/conv.h"

#include <limits.h>
#include <stdatomic.h>
#include <string.h>

#include "backends/cpu/blas.h"
#include "backends/cpu/dense.h"
#include "backends/cpu/gemm.h"
#include "backends/cpu/kernels.h"
#include "backends/cpu/lanes.h"
#include "backends/cpu/pool.h"
#include "backends/cpu/strided.h"
#include "ops_gen.h"
#include "tensor/memory.h"
#include "tensor/status.h"

enum { PARTS = 16 }; /* that the gradient of w is summed in, at most */

/* ---- jobs ----- */

static sp_status job_for(const sp_conv *g, int dtype, const sp_kargs *args, conv_job *j)
{
    *j = (conv_job){.examples = g->x[0], .groups = g->groups, .outs = g->w[0] / g->groups};
    sp__columns_of(g, dtype, &j->c);
    j->tiles = j->c.rows > 0 ? (j->c.rows + j->c.rows_a_tile - 1) / j->c.rows_a_tile : 0;
    j->add = sp__isa->pointwise[SP_OP_ADD_SCALAR]->fn[dtype];
    if (j->c.k < INT_MAX && j->c.positions < INT_MAX && j->c.in_positions < INT_MAX &&
        j->outs < INT_MAX)
        return SP_OK;
    return sp_fail(SP_EUNSUPPORTED, "%s: more than %d positions or kernel elements",
                   sp_op_table[args->op].name, INT_MAX - 1);
}

static sp_status job_of(const sp_kargs *args, const sp_operand *x, const sp_operand *w,
                        const sp_attr *attr, conv_job *j)
{
    const sp_call call = {.op = args->op};
    sp_conv g;
    SP_RETURN_IF(sp__conv_of(&call, x->rank - 2, x->shape, w->shape, attr, &g));
    return job_for(&g, x->dtype, args, j);
}

static double predict_us(const conv_job *j)
{
    double one = (double)j->outs * (double)j->c.k * (double)j->c.positions;
    return (double)(j->examples * j->groups) *
           (sp__gemm_predict_us(j->c.dtype, one) +
            (double)(j->c.k * j->c.positions * j->c.size) * 0.1e-3);
}

static sp_status end_of(const conv_job *j, const sp_kargs *args)
{
    return j->failed ? sp_fail(SP_EMEMORY, "%s: no memory to work in", sp_op_table[args->op].name)
                     : SP_OK;
}

/* ---- one tile ----- */

typedef struct tile {
    int64_t row, rows, first, n; /* rows of the result; positions */
    char *columns;
    size_t bytes; /* of columns, and of whatever else the caller asked for behind them */
} tile;

static bool tile_new(const conv_job *j, int64_t index, size_t more, tile *t)
{
    const columns *c = &j->c;
    t->row = index * c->rows_a_tile;
    t->rows = c->rows - t->row < c->rows_a_tile ? c->rows - t->row : c->rows_a_tile;
    t->first = t->row * c->out[2], t->n = t->rows * c->out[2];
    t->bytes = (c->plain ? 0 : (size_t)(c->k * t->n * c->size)) + more;
    t->columns = t->bytes ? sp__alloc(t->bytes) : NULL;
    return t->bytes == 0 || t->columns != NULL;
}

static void tile_free(tile *t)
{
    if (t->columns) sp__free(t->columns, t->bytes);
}

/* The tile's columns of x (one example and group): made, or x itself. */
static sp_blas_matrix columns_of(const columns *c, const char *x, tile *t)
{
    if (c->plain) return (sp_blas_matrix){x + t->first * c->size, (int)c->positions, false};
    sp__columns_take(c, x, t->row, t->rows, t->columns);
    return (sp_blas_matrix){t->columns, (int)t->n, false};
}

static char *w_at(const conv_job *j, int64_t group)
{
    return j->w + group * j->outs * j->c.k * j->c.size;
}

/* ---- convolution ----- */

static void forward_chunk(void *ctx, int64_t chunk)
{
    conv_job *j = ctx;
    const columns *c = &j->c;
    int64_t unit = chunk / j->tiles, group = unit % j->groups;
    tile t;
    if (!tile_new(j, chunk % j->tiles, 0, &t)) {
        atomic_store(&j->failed, true);
        return;
    }
    sp_blas_matrix w = {w_at(j, group), (int)c->k, false},
                   x = columns_of(c, sp__conv_x_at(j, unit), &t);
    char *y = sp__conv_y_at(j, unit) + t.first * c->size;
    if (!sp__blas_gemm(c->dtype, (int)j->outs, (int)t.n, (int)c->k, w, x, y, (int)c->positions))
        atomic_store(&j->failed, true);
    tile_free(&t);
    for (int64_t o = 0; j->b && o < j->outs; o++, y += c->positions * c->size)
        j->add(y, y, j->b + (group * j->outs + o) * c->size, NULL, t.n, 2);
}

/* A convolution over no channels: the bias alone. */
static void fill_bias(const conv_job *j)
{
    int64_t n = j->c.positions, channels = j->outs * j->groups;
    memset(j->y, 0, (size_t)(j->examples * channels * n * j->c.size));
    for (int64_t i = 0; j->b && i < j->examples * channels; i++) {
        char *y = j->y + i * n * j->c.size;
        j->add(y, y, j->b + i % channels * j->c.size, NULL, n, 2);
    }
}

static sp_status run_result(conv_job *j, const char *op)
{
    if (sp__direct_suits_result(&j->c, j->outs)) return sp__direct_result(j, predict_us(j), op);
    sp__blas_for(j->examples * j->groups * j->tiles, predict_us(j), forward_chunk, j);
    return SP_OK;
}

sp_status sp__cpu_convolution(const sp_kargs *args)
{
    sp_dense d[4];
    conv_job j;
    sp_status status = SP_OK;
    if (args->arg[0].numel == 0) return SP_OK;
    SP_TRY(sp__dense_begin(args, d));
    SP_TRY(job_of(args, &args->arg[1], &args->arg[2], args->attr, &j));
    j.y = d[0].data, j.x = d[1].data, j.w = d[2].data, j.b = d[3].data;
    if (j.c.k == 0)
        fill_bias(&j);
    else
        SP_TRY(run_result(&j, "convolution"));
    SP_TRY(end_of(&j, args));
out:
    return sp__dense_end(args, d, status);
}

/* ---- with respect to x ----- */

static bool input_tile(const conv_job *j, int64_t unit, int64_t index)
{
    const columns *c = &j->c;
    tile t;
    if (!tile_new(j, index, 0, &t)) return false;
    sp_blas_matrix w = {w_at(j, unit % j->groups), (int)c->k, true},
                   y = {sp__conv_y_at(j, unit) + t.first * c->size, (int)c->positions, false};
    char *x = sp__conv_x_at(j, unit), *to = c->plain ? x + t.first * c->size : t.columns;
    bool done = sp__blas_gemm(c->dtype, (int)c->k, (int)t.n, (int)j->outs, w, y, to,
                              (int)(c->plain ? c->positions : t.n));
    if (done && !c->plain) sp__columns_add(c, t.columns, t.row, t.rows, x);
    tile_free(&t);
    return done;
}

static void input_chunk(void *ctx, int64_t unit)
{
    conv_job *j = ctx;
    if (!j->c.plain)
        memset(sp__conv_x_at(j, unit), 0, (size_t)(j->c.channels * j->c.in_positions * j->c.size));
    for (int64_t i = 0; i < j->tiles; i++)
        if (!input_tile(j, unit, i)) atomic_store(&j->failed, true);
}

static sp_conv turned(const sp_conv *g)
{
    sp_conv t = *g;
    memcpy(t.x, g->y, sizeof t.x), memcpy(t.y, g->x, sizeof t.y);
    t.w[0] = g->x[1], t.w[1] = g->w[0] / g->groups;
    for (int i = 0; i < g->n_dims; i++)
        t.padding[i] = g->dilation[i] * (g->w[i + 2] - 1) - g->padding[i];
    return t;
}

/* With steps of 1 the transpose is a convolution of y by the kernel turned around: the faster one
 * where that runs directly, or where its columns, which are copied rather than added, are not many
 * more. */
static bool turns(const sp_conv *g, int dtype)
{
    bool single = true;
    for (int i = 0; i < g->n_dims; i++) {
        if (g->stride[i] != 1 || g->dilation[i] * (g->w[i + 2] - 1) < g->padding[i]) return false;
        single &= g->w[i + 2] == 1;
    }
    if (single) return false;
    const sp_conv t = turned(g);
    columns c, own;
    sp__columns_of(&t, dtype, &c), sp__columns_of(g, dtype, &own);
    if (sp__direct_suits_result(&c, g->x[1] / g->groups))
        return (double)c.positions <= sp__columns_cost(g->w[0] / g->groups) * (double)own.positions;
    return g->w[0] <= 2 * g->x[1] && g->x[1] >= 8 * g->groups;
}

/* w [groups][outs][channels][k] as [groups][channels][outs][k], each kernel from its end. */
static void turn_weights(const sp_conv *g, int64_t size, const char *w, char *to)
{
    int64_t k = 1, outs = g->w[0] / g->groups, channels = g->w[1];
    for (int i = 0; i < g->n_dims; i++) k *= g->w[i + 2];
    for (int64_t group = 0; group < g->groups; group++)
        for (int64_t o = 0; o < outs; o++)
            for (int64_t c = 0; c < channels; c++, w += k * size) {
                char *kernel = to + ((group * channels + c) * outs + o) * k * size;
                sp__gather_run(kernel, w + (k - 1) * size, size, k, -1);
            }
}

static sp_status input_turned(const sp_kargs *args, const sp_conv *g, const sp_dense *d)
{
    sp_conv t = turned(g);
    conv_job j;
    SP_RETURN_IF(job_for(&t, args->arg[0].dtype, args, &j));
    size_t bytes = (size_t)(args->arg[2].numel * j.c.size);
    j.w = sp__alloc(bytes);
    if (!j.w) return sp_fail(SP_EMEMORY, "convolution_input: no memory for %zu bytes", bytes);
    turn_weights(g, j.c.size, d[2].data, j.w);
    j.y = d[0].data, j.x = d[1].data;
    sp_status status = run_result(&j, "convolution_input");
    sp__free(j.w, bytes);
    return status ? status : end_of(&j, args);
}

sp_status sp__cpu_convolution_input(const sp_kargs *args)
{
    sp_dense d[4];
    const sp_call call = {.op = args->op};
    sp_conv g;
    conv_job j;
    sp_status status = SP_OK;
    if (args->arg[0].numel == 0) return SP_OK;
    SP_TRY(sp__dense_begin(args, d));
    SP_TRY(sp__conv_of(&call, args->arg[0].rank - 2, args->arg[0].shape, args->arg[2].shape,
                       args->attr + 1, &g));
    if (g.w[0] > 0 && turns(&g, args->arg[0].dtype))
        return sp__dense_end(args, d, input_turned(args, &g, d));
    SP_TRY(job_for(&g, args->arg[0].dtype, args, &j));
    j.x = d[0].data, j.y = d[1].data, j.w = d[2].data;
    if (j.outs == 0)
        memset(j.x, 0, (size_t)(args->arg[0].numel * j.c.size));
    else
        sp__blas_for(j.examples * j.groups, predict_us(&j), input_chunk, &j);
    SP_TRY(end_of(&j, args));
out:
    return sp__dense_end(args, d, status);
}

/* ---- with respect to w ----- */

/* One tile's share of w's gradient, added to `sum`, or put there if it is the first. */
static bool weight_tile(const conv_job *j, int64_t unit, int64_t index, char *sum, bool first)
{
    const columns *c = &j->c;
    int64_t n = j->outs * c->k;
    tile t;
    if (!tile_new(j, index, first ? 0 : (size_t)(n * c->size), &t)) return false;
    char *share = first ? sum : t.columns + t.bytes - n * c->size;
    sp_blas_matrix y = {sp__conv_y_at(j, unit) + t.first * c->size, (int)c->positions, false},
                   x = columns_of(c, sp__conv_x_at(j, unit), &t);
    x.transposed = true;
    bool done = sp__blas_gemm(c->dtype, (int)j->outs, (int)c->k, (int)t.n, y, x, share, (int)c->k);
    if (done && !first) j->add(sum, sum, share, NULL, n, 0);
    tile_free(&t);
    return done;
}

static void weight_chunk(void *ctx, int64_t chunk)
{
    conv_job *j = ctx;
    int64_t part = chunk / j->groups, group = chunk % j->groups,
            end = (part + 1) * j->examples_a_part;
    char *sum = j->sums + chunk * j->outs * j->c.k * j->c.size;
    bool first = true;
    for (int64_t i = part * j->examples_a_part; i < end && i < j->examples; i++) {
        for (int64_t index = 0; index < j->tiles; index++, first = false)
            if (!weight_tile(j, i * j->groups + group, index, sum, first))
                atomic_store(&j->failed, true);
    }
}

static void plan_parts(conv_job *j, int64_t multiple)
{
    int64_t size = (j->examples + PARTS - 1) / PARTS;
    j->examples_a_part = (size + multiple - 1) / multiple * multiple;
    j->parts = (j->examples + j->examples_a_part - 1) / j->examples_a_part;
}

sp_status sp__conv_sum_parts(conv_job *j, int64_t multiple, double predicted_us, sp_chunk_fn chunk,
                             void *ctx, const char *op)
{
    int64_t n = j->groups * j->outs * j->c.k;
    plan_parts(j, multiple);
    size_t bytes = (size_t)(j->parts * n * j->c.size);
    j->sums = j->parts == 1 ? j->w : sp__alloc(bytes);
    if (!j->sums) return sp_fail(SP_EMEMORY, "%s: no memory for %zu bytes of sums", op, bytes);
    sp__blas_for(j->parts * j->groups, predicted_us, chunk, ctx);
    if (j->parts == 1) return SP_OK;
    j->add(j->w, j->sums, j->sums + n * j->c.size, NULL, n, 0);
    for (int64_t p = 2; p < j->parts; p++)
        j->add(j->w, j->w, j->sums + p * n * j->c.size, NULL, n, 0);
    sp__free(j->sums, bytes);
    return SP_OK;
}

static sp_status sum_weight(conv_job *j, const char *op)
{
    if (sp__direct_suits_weight(&j->c, j->outs)) return sp__direct_weight(j, predict_us(j), op);
    return sp__conv_sum_parts(j, 1, predict_us(j), weight_chunk, j, op);
}

sp_status sp__cpu_convolution_weight(const sp_kargs *args)
{
    sp_dense d[4];
    conv_job j;
    sp_status status = SP_OK;
    if (args->arg[0].numel == 0) return SP_OK;
    SP_TRY(sp__dense_begin(args, d));
    SP_TRY(job_of(args, &args->arg[2], &args->arg[0], args->attr + 1, &j));
    j.w = d[0].data, j.y = d[1].data, j.x = d[2].data;
    if (j.examples == 0 || j.tiles == 0) {
        memset(j.w, 0, (size_t)(args->arg[0].numel * j.c.size));
    } else {
        SP_TRY(sum_weight(&j, "convolution_weight"));
    }
    SP_TRY(end_of(&j, args));
out:
    return sp__dense_end(args, d, status);
}
