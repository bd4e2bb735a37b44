/* deviation, power_sum and logsumexp: reductions that read x once or twice and hold nothing of its
 * size (rows.h).
 *
 * Dense, x is (outer, rows, columns) with `rows` reduced, wherever the reduced dimensions stand
 * together; otherwise a copy of x is (outer, rows, 1). Sequences are cut into parts of PART rows,
 * and the parts' results joined in order, however many threads there are.
 */
#include <math.h>
#include <string.h>

#include "backends/cpu/copy.h"
#include "backends/cpu/kernels.h"
#include "backends/cpu/lanes.h"
#include "backends/cpu/pool.h"
#include "backends/cpu/reduce.h"
#include "backends/cpu/rows.h"
#include "backends/cpu/strided.h"
#include "ops/op.h"
#include "ops_gen.h"
#include "tensor/memory.h"

enum { PART_OF_ROW = 1 << 15, PART_OF_COLUMNS = 1 << 12, TILE_ROWS = 32 };

/* What is known of a part: moments; or the largest element and the sum of exponentials relative to
 * it; or a sum. */
typedef sp_moments partial;

typedef struct job job;
struct job {
    const sp_rows *f;
    int dtype; /* computed in, that of the result */
    int64_t outer, rows, columns, size, part, parts, tiles, width;
    const char *x;
    char *copy;
    size_t copy_bytes;
    double p; /* power_sum */
    void (*row)(const job *j, const char *x, int64_t n, partial *out);
    void (*tile)(const job *j, const char *x, int64_t rows, int64_t n, partial *out);
    partial (*join)(partial a, partial b);
    partial *partials; /* by outer, tile, part, column of the tile */
};

/* ---- geometry ----- */

/* Whether no kept dimension stands between reduced ones; the sizes before, of and behind them. */
static bool stand_together(const sp_operand *x, uint32_t mask, job *j)
{
    int first = 0, last = x->rank - 1;
    j->outer = j->rows = j->columns = 1;
    while (first < x->rank && !(mask >> first & 1)) j->outer *= x->shape[first++];
    while (last >= first && !(mask >> last & 1)) j->columns *= x->shape[last--];
    bool together = true;
    for (int d = first; d <= last; d++) {
        together = together && (mask >> d & 1 || x->shape[d] == 1);
        j->rows *= x->shape[d];
    }
    return together;
}

/* x with the reduced dimensions last. */
static sp_operand reduced_last(const sp_operand *x, uint32_t mask, job *j)
{
    sp_operand y = *x;
    int at = 0;
    j->outer = j->rows = j->columns = 1;
    for (int reduced = 0; reduced < 2; reduced++) {
        for (int d = 0; d < x->rank; d++) {
            if ((int)(mask >> d & 1) != reduced) continue;
            y.shape[at] = x->shape[d], y.stride[at++] = x->stride[d];
            *(reduced ? &j->rows : &j->outer) *= x->shape[d];
        }
    }
    return y;
}

/* A dense copy of x in the dtype computed in. */
static sp_status copy_dense(const sp_operand *x, job *j, const char *op)
{
    sp_operand dense = *x;
    int64_t step = 1;
    j->copy_bytes = (size_t)(x->numel * 8);
    j->copy = sp__alloc(j->copy_bytes);
    if (j->copy == NULL)
        return sp_fail(SP_EMEMORY, "%s: no memory for %zu bytes of a copy", op, j->copy_bytes);
    for (int d = x->rank - 1; d >= 0; d--) dense.stride[d] = step, step *= x->shape[d];
    /* To the end of the room, so that a conversion to something wider never overtakes itself. */
    dense.data = j->copy + (size_t)x->numel * (size_t)(8 - sp__size_of(x->dtype));
    dense.contiguous = true;
    sp__copy_strided(&dense, x);
    j->x = dense.data;
    if (x->dtype != j->dtype) {
        for (int64_t at = 0; at < x->numel; at += SP_ROWS_BLOCK) {
            char room[SP_ROWS_BLOCK * 8];
            int64_t n = x->numel - at < SP_ROWS_BLOCK ? x->numel - at : SP_ROWS_BLOCK;
            memcpy(room, dense.data + at * sp__size_of(x->dtype),
                   (size_t)(n * sp__size_of(x->dtype)));
            sp__isa->cast[x->dtype][j->dtype](j->copy + at * j->size, room, NULL, NULL, n, 0);
        }
        j->x = j->copy;
    }
    return SP_OK;
}

static sp_status take_x(const sp_operand *x, const sp_attr *dim, job *j, const char *op)
{
    uint32_t mask = sp__reduced_mask(dim, x->rank);
    bool plain = stand_together(x, mask, j) && sp__is_dense(x) && x->dtype == j->dtype;
    j->x = x->data;
    if (plain) return SP_OK;
    sp_operand turned = reduced_last(x, mask, j);
    return copy_dense(&turned, j, op);
}

/* ---- all parts ----- */

static void part_chunk(void *ctx, int64_t chunk)
{
    const job *j = ctx;
    int64_t part = chunk % j->parts, tile = chunk / j->parts % j->tiles,
            outer = chunk / j->parts / j->tiles, first = part * j->part,
            rows = j->rows - first < j->part ? j->rows - first : j->part,
            column = tile * SP_ROWS_COLUMNS;
    const char *x = j->x + ((outer * j->rows + first) * j->columns + column) * j->size;
    partial *out = j->partials + chunk * j->width;
    if (j->columns == 1)
        j->row(j, x, rows, out);
    else
        j->tile(j, x, rows,
                j->columns - column < SP_ROWS_COLUMNS ? j->columns - column : SP_ROWS_COLUMNS, out);
}

/* The result at a place of (outer, columns). */
static partial result_at(const job *j, int64_t place)
{
    int64_t outer = place / j->columns, column = place % j->columns,
            tile = column / SP_ROWS_COLUMNS;
    const partial *p =
        j->partials + ((outer * j->tiles + tile) * j->parts) * j->width + column % SP_ROWS_COLUMNS;
    partial all = *p;
    for (int64_t i = 1; i < j->parts; i++) all = j->join(all, p[i * j->width]);
    return all;
}

static void put(const sp_operand *out, int64_t place, double value)
{
    float narrow = (float)value;
    char *to = sp__element_at(out, place);
    if (out->dtype == SP_FLOAT32)
        memcpy(to, &narrow, sizeof narrow);
    else
        memcpy(to, &value, sizeof value);
}

static sp_status run(job *j, const sp_operand *x, const sp_attr *dim, const char *op, double ns)
{
    SP_RETURN_IF(take_x(x, dim, j, op));
    j->part = j->columns == 1 ? PART_OF_ROW : PART_OF_COLUMNS;
    j->parts = j->rows > 0 ? (j->rows + j->part - 1) / j->part : 1;
    j->tiles = (j->columns + SP_ROWS_COLUMNS - 1) / SP_ROWS_COLUMNS;
    j->width = j->columns == 1 ? 1 : SP_ROWS_COLUMNS;
    int64_t chunks = j->outer * j->tiles * j->parts;
    size_t bytes = (size_t)(chunks * j->width) * sizeof(partial);
    j->partials = sp__alloc(bytes);
    if (j->partials == NULL)
        return sp_fail(SP_EMEMORY, "%s: no memory for %zu bytes of partial results", op, bytes);
    sp__pool_for(chunks, (double)x->numel * ns * 1e-3 + (double)chunks * 0.02, part_chunk, j);
    return SP_OK;
}

static job job_of(const sp_operand *out)
{
    return (job){
        .f = sp__isa->rows[out->dtype], .dtype = out->dtype, .size = sp__size_of(out->dtype)};
}

static void job_end(job *j)
{
    size_t bytes = (size_t)(j->outer * j->tiles * j->parts * j->width) * sizeof(partial);
    if (j->partials) sp__free(j->partials, bytes);
    if (j->copy) sp__free(j->copy, j->copy_bytes);
}

/* ---- deviation ----- */

static void moments_row(const job *j, const char *x, int64_t n, partial *out)
{
    *out = j->f->moments(x, n);
}

static void moments_tile(const job *j, const char *x, int64_t rows, int64_t n, partial *out)
{
    j->f->moments_columns(x, rows, j->columns, n, out);
}

/* outputs: squares, mean; attributes: dim, keepdim */
sp_status sp__cpu_deviation(const sp_kargs *args)
{
    const sp_operand *squares = &args->arg[0], *mean = &args->arg[1];
    job j = job_of(squares);
    sp_status status = SP_OK;
    if (squares->numel == 0) return SP_OK;
    j.row = moments_row, j.tile = moments_tile, j.join = sp__moments_join;
    SP_TRY(run(&j, &args->arg[2], &args->attr[SP_DEVIATION_DIM], "deviation", 0.2));
    for (int64_t i = 0; i < squares->numel; i++) {
        partial m = result_at(&j, i);
        put(squares, i, m.m2), put(mean, i, m.n > 0 ? m.mean : NAN);
    }
out:
    job_end(&j);
    return status;
}

/* ---- power_sum ----- */

static partial sum_join(partial a, partial b)
{
    return (partial){.mean = a.mean + b.mean};
}

/* |x|^p of n elements. */
static void powers(const job *j, const char *x, int64_t n, char *out)
{
    double exponent = j->p;
    float narrow = (float)j->p;
    if (j->dtype == SP_FLOAT32) memcpy(&exponent, &narrow, sizeof narrow);
    sp__isa->pointwise[SP_OP_ABS]->fn[j->dtype](out, x, NULL, NULL, n, 0);
    if (j->p != 1)
        sp__isa->pointwise[SP_OP_POW_SCALAR]->fn[j->dtype](out, out, &exponent, NULL, n, 2);
}

static void powers_row(const job *j, const char *x, int64_t n, partial *out)
{
    char room[SP_ROWS_BLOCK * 8];
    double sum[2], total = 0;
    if (j->p == 2) {
        j->f->sums(x, x, n, 0, sum);
        *out = (partial){.mean = sum[1]};
        return;
    }
    for (int64_t at = 0; at < n; at += SP_ROWS_BLOCK) {
        int64_t count = n - at < SP_ROWS_BLOCK ? n - at : SP_ROWS_BLOCK;
        powers(j, x + at * j->size, count, room);
        j->f->sums(room, room, count, 0, sum);
        total += sum[0];
    }
    *out = (partial){.mean = total};
}

static void powers_tile(const job *j, const char *x, int64_t rows, int64_t n, partial *out)
{
    char room[TILE_ROWS * SP_ROWS_COLUMNS * 8];
    double none[SP_ROWS_COLUMNS] = {0}, sum[SP_ROWS_COLUMNS], unused[SP_ROWS_COLUMNS];
    for (int64_t k = 0; k < n; k++) out[k] = (partial){0};
    for (int64_t at = 0; at < rows; at += TILE_ROWS) {
        int64_t count = rows - at < TILE_ROWS ? rows - at : TILE_ROWS;
        for (int64_t r = 0; r < count; r++)
            powers(j, x + (at + r) * j->columns * j->size, n, room + r * n * j->size);
        j->f->sums_columns(room, room, count, n, n, none, sum, unused);
        for (int64_t k = 0; k < n; k++) out[k].mean += sum[k];
    }
}

/* attributes: p, dim, keepdim */
sp_status sp__cpu_power_sum(const sp_kargs *args)
{
    const sp_operand *out = &args->arg[0];
    job j = job_of(out);
    sp_status status = SP_OK;
    if (out->numel == 0) return SP_OK;
    j.row = powers_row, j.tile = powers_tile, j.join = sum_join;
    j.p = args->attr[SP_POWER_SUM_P].v.f;
    SP_TRY(run(&j, &args->arg[1], &args->attr[SP_POWER_SUM_DIM], "power_sum",
               j.p == 2 || j.p == 1 ? 0.2 : 3));
    for (int64_t i = 0; i < out->numel; i++) put(out, i, result_at(&j, i).mean);
out:
    job_end(&j);
    return status;
}

/* ---- logsumexp: mean is the largest element, m2 the sum of exp(x - it) ----- */

static partial exps_join(partial a, partial b)
{
    double max = a.mean > b.mean || a.mean != a.mean ? a.mean : b.mean;
    if (a.n == 0) return b;
    if (b.n == 0) return a;
    if (isinf(max) || max != max) return (partial){1, max, 1};
    return (partial){1, max, a.m2 * exp(a.mean - max) + b.m2 * exp(b.mean - max)};
}

static void exps_row(const job *j, const char *x, int64_t n, partial *out)
{
    *out = (partial){0, -INFINITY, 0};
    if (n == 0) return;
    out->n = 1, out->mean = j->f->max(x, n);
    out->m2 = isinf(out->mean) ? 1 : j->f->exps(NULL, x, n, out->mean);
}

static void exps_tile(const job *j, const char *x, int64_t rows, int64_t n, partial *out)
{
    char line[TILE_ROWS * 16 * 8];
    enum { LINE = TILE_ROWS * 16 };
    for (int64_t k = 0; k < n; k++) {
        partial all = {0, -INFINITY, 0}, one;
        for (int64_t at = 0; at < rows; at += LINE) {
            int64_t count = rows - at < LINE ? rows - at : LINE;
            sp__gather_run(line, x + (at * j->columns + k) * j->size, j->size, count, j->columns);
            exps_row(j, line, count, &one);
            all = exps_join(all, one);
        }
        out[k] = all;
    }
}

/* attributes: dim, keepdim. An infinite or undefined maximum is the result. */
sp_status sp__cpu_logsumexp(const sp_kargs *args)
{
    const sp_operand *out = &args->arg[0];
    job j = job_of(out);
    sp_status status = SP_OK;
    if (out->numel == 0) return SP_OK;
    j.row = exps_row, j.tile = exps_tile, j.join = exps_join;
    SP_TRY(run(&j, &args->arg[1], &args->attr[SP_LOGSUMEXP_DIM], "logsumexp", 0.6));
    for (int64_t i = 0; i < out->numel; i++) {
        partial all = result_at(&j, i);
        bool plain = all.n > 0 && isfinite(all.mean);
        put(out, i, plain ? all.mean + log(all.m2) : all.mean);
    }
out:
    job_end(&j);
    return status;
}
