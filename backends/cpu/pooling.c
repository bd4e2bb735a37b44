/* max_pool, avg_pool and their transposes, on phases (pooling.h). */
#include "backends/cpu/pooling.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "backends/cpu/dense.h"
#include "backends/cpu/kernels.h"
#include "backends/cpu/lanes.h"
#include "backends/cpu/pool.h"
#include "backends/cpu/strided.h"
#include "ops_gen.h"
#include "tensor/memory.h"
#include "tensor/status.h"

typedef struct job {
    pooling p;
    const sp_pool_lanes *lanes;
    char *x, *y;
    int64_t *indices;
    double *rows;  /* mean: what the sum of window row i, column j is divided by */
    char *columns; /* is rows[i] * columns[j] */
    int64_t *slot_offset, *slot_end; /* transposed mean: of elements, phase by phase; its end */
    int64_t front;                   /* zeros that the largest of those offsets reaches back */
    _Atomic bool failed;
} job;

static sp_status window_of(const sp_kargs *args, const sp_operand *x, int first, bool mean,
                           bool ceil_mode, sp_pool_window *w)
{
    const sp_call call = {.op = args->op};
    const sp_attr *attr = args->attr + first;
    return sp__pool_window_of(&call, x->shape + x->rank - attr[0].n, attr, mean, ceil_mode, w);
}

static double predict_us(const pooling *p)
{
    const sp_pool_window *w = &p->w;
    double moved = (double)(w->in[0] * w->in[1]),
           met = (double)(w->out[0] * w->out[1]) * (double)(p->k + 4);
    return (double)p->planes * (moved * 0.3e-3 + met * 0.15e-3);
}

static sp_status end_of(const job *j, const char *op)
{
    return j->failed ? sp_fail(SP_EMEMORY, "%s: no memory to work in", op) : SP_OK;
}

/* ---- max_pool ----- */

static int64_t first_inside(int64_t at, int64_t step, int64_t n)
{
    if (at < 0) at += (-at + step - 1) / step * step;
    return at < n ? at : n - 1;
}

/* Where no element is larger than padding, the first one that is none counts. */
static void mend_padded(const job *j, int64_t row, int64_t *to)
{
    const sp_pool_window *w = &j->p.w;
    int64_t first = row * w->stride[0] - w->padding[0];
    for (int64_t i = 0; i < w->out[1]; i++) {
        int64_t column = i * w->stride[1] - w->padding[1];
        if (first >= 0 && column >= 0) return;
        if (to[i] != first * w->in[1] + column) continue;
        to[i] = first_inside(first, w->dilation[0], w->in[0]) * w->in[1] +
                first_inside(column, w->dilation[1], w->in[1]);
    }
}

static void store_max(const job *j, const piece *of, const char *best, const char *at)
{
    const pooling *p = &j->p;
    const sp_pool_window *w = &p->w;
    for (int64_t g = 0; g < of->planes; g++) {
        int64_t from = g * p->block[0] * p->block[1] * p->size;
        int64_t to = ((of->plane + g) * w->out[0] + of->row) * w->out[1];
        j->lanes->take(j->y + to * p->size, w->out[1], best + from, p->block[1], 1, of->rows,
                       w->out[1]);
        if (!j->indices) continue;
        j->lanes->places(j->indices + to, at + from, of->rows, w->out[1], p->block[1],
                         (of->row * w->stride[0] - w->padding[0]) * w->in[1] - w->padding[1],
                         w->stride[0] * w->in[1], w->stride[1]);
        for (int64_t i = 0; i < of->rows && w->padding[0] + w->padding[1] > 0; i++)
            mend_padded(j, of->row + i, j->indices + to + i * w->out[1]);
    }
}

static void max_chunk(void *ctx, int64_t chunk)
{
    job *j = ctx;
    const pooling *p = &j->p;
    piece of = sp__pooling_piece(p, chunk);
    size_t phases = sp__pooling_bytes(p), one = (size_t)(p->n * p->size) + 64;
    char *room = sp__alloc(phases + 2 * one);
    if (!room) {
        atomic_store(&j->failed, true);
        return;
    }
    char *best = room + phases, *at = best + one;
    sp__pooling_take(p, &of, j->x, room);
    if (j->indices)
        j->lanes->max(best, at, room, p->offset, p->place, p->k, sp__pooling_used(p, &of));
    else
        j->lanes->most(best, room, p->offset, p->k, sp__pooling_used(p, &of));
    store_max(j, &of, best, at);
    sp__free(room, phases + 2 * one);
}

/* What nothing is smaller than. */
static const void *lowest(int dtype)
{
    static const float f32 = -INFINITY;
    static const double f64 = -INFINITY;
    static const int64_t i64 = INT64_MIN;
    if (dtype == SP_FLOAT32) return &f32;
    return dtype == SP_FLOAT64 ? (const void *)&f64 : &i64;
}

/* outputs: values, and indices or not */
sp_status sp__cpu_max_pool(const sp_kargs *args)
{
    int n_out = args->n_out;
    const sp_operand *x = &args->arg[n_out];
    sp_pool_window w;
    sp_dense d[3];
    job j = {.lanes = &sp__isa->pool[x->dtype]};
    sp_status status = SP_OK;
    if (args->arg[0].numel == 0) return SP_OK;
    SP_TRY(sp__dense_begin(args, d));
    SP_TRY(window_of(args, x, 0, false, args->attr[SP_MAX_POOL_CEIL_MODE].v.i, &w));
    SP_TRY(sp__pooling_new(&w, x->dtype, sp__pooling_planes(x, w.n_dims), false, lowest(x->dtype),
                           &j.p));
    j.x = d[n_out].data, j.y = d[0].data;
    j.indices = n_out > 1 ? (int64_t *)d[1].data : NULL;
    sp__pool_for(j.p.pieces, predict_us(&j.p), max_chunk, &j);
    SP_TRY(end_of(&j, "max_pool"));
out:
    sp__pooling_free(&j.p);
    return sp__dense_end(args, d, status);
}

sp_status sp__cpu_max_pool_values(const sp_kargs *args)
{
    return sp__cpu_max_pool(args);
}

/* ---- what means are divided by ----- */

static int64_t counted(const sp_pool_window *w, int i, int64_t at, bool with_padding)
{
    int64_t pad = with_padding ? w->padding[i] : 0, start = at * w->stride[i] - w->padding[i],
            end = start + w->kernel[i];
    if (start < -pad) start = -pad;
    return (end < w->in[i] + pad ? end : w->in[i] + pad) - start;
}

/* attr: count_include_pad, divisor_override */
static sp_status divisors_new(job *j, const sp_attr *attr)
{
    const sp_pool_window *w = &j->p.w;
    size_t rows = (size_t)w->out[0] * sizeof(double);
    bool own = !attr[1].absent;
    j->rows = sp__alloc(rows + (size_t)(w->out[1] * j->p.size));
    if (!j->rows) return sp_fail(SP_EMEMORY, "avg_pool: no memory for divisors");
    j->columns = (char *)j->rows + rows;
    for (int64_t i = 0; i < w->out[0]; i++)
        j->rows[i] = own ? (double)attr[1].v.i : (double)counted(w, 0, i, attr[0].v.i);
    for (int64_t i = 0; i < w->out[1]; i++) {
        double n = own ? 1 : (double)counted(w, 1, i, attr[0].v.i);
        if (j->p.dtype == SP_FLOAT32)
            ((float *)j->columns)[i] = (float)n;
        else
            ((double *)j->columns)[i] = n;
    }
    return SP_OK;
}

static void divisors_free(job *j)
{
    const sp_pool_window *w = &j->p.w;
    if (j->rows)
        sp__free(j->rows, (size_t)w->out[0] * sizeof(double) + (size_t)(w->out[1] * j->p.size));
}

/* ---- avg_pool ----- */

static void mean_chunk(void *ctx, int64_t chunk)
{
    job *j = ctx;
    const pooling *p = &j->p;
    const sp_pool_window *w = &p->w;
    piece of = sp__pooling_piece(p, chunk);
    size_t phases = sp__pooling_bytes(p), bytes = phases + (size_t)(p->n * p->size) + 64;
    char *room = sp__alloc(bytes);
    if (!room) {
        atomic_store(&j->failed, true);
        return;
    }
    sp__pooling_take(p, &of, j->x, room);
    j->lanes->sum(room + phases, room, p->offset, p->k, sp__pooling_used(p, &of));
    for (int64_t g = 0; g < of.planes; g++) {
        int64_t to = ((of.plane + g) * w->out[0] + of.row) * w->out[1];
        j->lanes->divide(j->y + to * p->size, w->out[1],
                         room + phases + g * p->block[0] * p->block[1] * p->size, p->block[1],
                         of.rows, w->out[1], j->rows + of.row, j->columns);
    }
    sp__free(room, bytes);
}

sp_status sp__cpu_avg_pool(const sp_kargs *args)
{
    static const double zero;
    const sp_operand *x = &args->arg[1];
    sp_pool_window w;
    sp_dense d[2];
    job j = {.lanes = &sp__isa->pool[x->dtype]};
    sp_status status = SP_OK;
    if (args->arg[0].numel == 0) return SP_OK;
    SP_TRY(sp__dense_begin(args, d));
    SP_TRY(window_of(args, x, 0, true, args->attr[SP_AVG_POOL_CEIL_MODE].v.i, &w));
    SP_TRY(sp__pooling_new(&w, x->dtype, sp__pooling_planes(x, w.n_dims), false, &zero, &j.p));
    SP_TRY(divisors_new(&j, &args->attr[SP_AVG_POOL_COUNT_INCLUDE_PAD]));
    j.x = d[1].data, j.y = d[0].data;
    sp__pool_for(j.p.pieces, predict_us(&j.p), mean_chunk, &j);
    SP_TRY(end_of(&j, "avg_pool"));
out:
    divisors_free(&j);
    sp__pooling_free(&j.p);
    return sp__dense_end(args, d, status);
}

/* ---- its transpose ----- */

/* Element i of a phase is in the windows that began `offset` before it: the sum of shares at i -
 * offset, zeros where no window is. So the phases are sums of runs as well. */
static sp_status slots_new(job *j)
{
    const pooling *p = &j->p;
    int64_t n_slots = p->phases[0] * p->phases[1];
    j->slot_offset = sp__alloc_zero((size_t)(p->k + n_slots) * sizeof(int64_t));
    if (!j->slot_offset) return sp_fail(SP_EMEMORY, "avg_pool_backward: no memory for offsets");
    j->slot_end = j->slot_offset + p->k;
    for (int64_t q = 0; q < p->k; q++) {
        if (p->offset[q] % p->n > j->front) j->front = p->offset[q] % p->n;
        if (p->offset[q] / p->n + 1 < n_slots) j->slot_end[p->offset[q] / p->n + 1]++;
    }
    for (int64_t slot = 1; slot < n_slots; slot++) j->slot_end[slot] += j->slot_end[slot - 1];
    for (int64_t q = p->k - 1; q >= 0; q--)
        j->slot_offset[j->slot_end[p->offset[q] / p->n]++] = j->front - p->offset[q] % p->n;
    return SP_OK;
}

static void slots_free(job *j)
{
    int64_t n_slots = j->p.phases[0] * j->p.phases[1];
    if (j->slot_offset) sp__free(j->slot_offset, (size_t)(j->p.k + n_slots) * sizeof(int64_t));
}

/* y, divided, each row of windows in its row of the block. */
static void take_shares(const job *j, const piece *of, char *to)
{
    const pooling *p = &j->p;
    const sp_pool_window *w = &p->w;
    for (int64_t g = 0; g < of->planes; g++)
        j->lanes->divide(to + g * p->block[0] * p->block[1] * p->size, p->block[1],
                         j->y + (of->plane + g) * w->out[0] * w->out[1] * p->size, w->out[1],
                         of->rows, w->out[1], j->rows, j->columns);
}

static void spread_chunk(void *ctx, int64_t chunk)
{
    job *j = ctx;
    const pooling *p = &j->p;
    piece of = sp__pooling_piece(p, chunk);
    size_t phases = sp__pooling_bytes(p), shares = (size_t)((j->front + p->n) * p->size) + 64;
    char *room = sp__alloc(phases + shares);
    if (!room) {
        atomic_store(&j->failed, true);
        return;
    }
    memset(room + phases, 0, shares);
    take_shares(j, &of, room + phases + j->front * p->size);
    for (int64_t slot = 0, first = 0; slot < p->phases[0] * p->phases[1]; slot++) {
        j->lanes->sum(room + slot * p->n * p->size, room + phases, j->slot_offset + first,
                      j->slot_end[slot] - first, p->n);
        first = j->slot_end[slot];
    }
    sp__pooling_put(p, &of, room, j->x);
    sp__free(room, phases + shares);
}

sp_status sp__cpu_avg_pool_backward(const sp_kargs *args)
{
    static const double zero;
    const sp_operand *x = &args->arg[0];
    sp_pool_window w;
    sp_dense d[2];
    job j = {.lanes = &sp__isa->pool[x->dtype]};
    sp_status status = SP_OK;
    if (x->numel == 0) return SP_OK;
    SP_TRY(sp__dense_begin(args, d));
    SP_TRY(window_of(args, x, SP_AVG_POOL_BACKWARD_KERNEL_SIZE, true,
                     args->attr[SP_AVG_POOL_BACKWARD_CEIL_MODE].v.i, &w));
    SP_TRY(sp__pooling_new(&w, x->dtype, sp__pooling_planes(x, w.n_dims), true, &zero, &j.p));
    SP_TRY(divisors_new(&j, &args->attr[SP_AVG_POOL_BACKWARD_COUNT_INCLUDE_PAD]));
    SP_TRY(slots_new(&j));
    j.x = d[0].data, j.y = d[1].data;
    sp__pool_for(j.p.pieces, predict_us(&j.p), spread_chunk, &j);
    SP_TRY(end_of(&j, "avg_pool_backward"));
out:
    slots_free(&j);
    divisors_free(&j);
    sp__pooling_free(&j.p);
    return sp__dense_end(args, d, status);
}
