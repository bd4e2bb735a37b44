/* resample and its transpose: along one dimension after the other, each element of the result a
 * weighed sum of few elements (taps).
 *
 *     x [h][w]  --rows-->  [h][W]  --columns-->  y [H][W]      the transpose goes the other way
 *
 * Planes are shared out to threads; each is one chain, so bits do not depend on threads. Where taps
 * are and what they weigh follows PyTorch: in float32 for float32 and for 'nearest'.
 */
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "backends/cpu/dense.h"
#include "backends/cpu/kernels.h"
#include "backends/cpu/lanes.h"
#include "backends/cpu/pool.h"
#include "backends/cpu/pooling.h"
#include "backends/cpu/strided.h"
#include "ops/op.h"
#include "ops_gen.h"
#include "tensor/memory.h"
#include "tensor/status.h"

enum { MOST_TAPS = 4, CHUNK = 16384 };

typedef struct taps { /* of one dimension: [out][n], n a position */
    int64_t in, out;
    int n;
    int64_t *at;
    double *weight;
    size_t bytes;
} taps;

typedef struct job {
    taps rows, columns; /* along the dimension of rows; along the last one */
    const sp_resample_lanes *lanes;
    bool back; /* the transpose: from sizes `out` to sizes `in` */
    int64_t size, planes, planes_a_chunk;
    const char *from;
    char *to;
    _Atomic bool failed;
} job;

/* ---- taps ----- */

typedef struct plan { /* how positions of the result become positions of x */
    int mode, dtype;
    bool corners;
    const sp_attr *scale;
} plan;

/* Positions of x for one of the result. */
static double step_of(const plan *p, int64_t in, int64_t out)
{
    if (p->corners) return out > 1 ? (double)(in - 1) / (double)(out - 1) : 0;
    return !p->scale->absent ? 1 / p->scale->v.f : (double)in / (double)out;
}

/* Twice the size is twice each element, whatever the scale. */
static int64_t nearest(const plan *p, int64_t i, int64_t in, int64_t out)
{
    if (p->mode == SP_METHOD_NEAREST && out == in) return i;
    if (p->mode == SP_METHOD_NEAREST && out == 2 * in) return i / 2;
    float step = !p->scale->absent ? (float)(1 / p->scale->v.f) : (float)in / (float)out;
    float at = p->mode == SP_METHOD_NEAREST ? (float)i * step : ((float)i + 0.5f) * step;
    int64_t whole = (int64_t)floorf(at);
    return whole < in - 1 ? whole : in - 1;
}

static double source(const plan *p, int64_t i, double step)
{
    if (p->dtype == SP_FLOAT32) {
        float s = (float)step;
        return p->corners ? s * (float)i : s * ((float)i + 0.5f) - 0.5f;
    }
    return p->corners ? step * (double)i : step * ((double)i + 0.5) - 0.5;
}

static void linear_taps(double at, int64_t in, int64_t *to, double *weight)
{
    if (at < 0) at = 0;
    int64_t first = (int64_t)at < in - 1 ? (int64_t)at : in - 1;
    double part = at - (double)first;
    if (part > 1) part = 1;
    to[0] = first, to[1] = first < in - 1 ? first + 1 : first;
    weight[0] = 1 - part, weight[1] = part;
}

/* Keys' cubic convolution with a = -0.75, at distances below 1 and from 1 to 2. */
static double near(double x)
{
    return ((-0.75 + 2) * x - (-0.75 + 3)) * x * x + 1;
}

static double far(double x)
{
    return ((-0.75 * x + 5 * 0.75) * x - 8 * 0.75) * x + 4 * 0.75;
}

static void cubic_taps(double at, int64_t in, int64_t *to, double *weight)
{
    double whole = floor(at), part = at - whole;
    for (int k = 0; k < 4; k++) {
        int64_t i = (int64_t)whole - 1 + k;
        to[k] = i < 0 ? 0 : i < in ? i : in - 1;
    }
    weight[0] = far(part + 1), weight[1] = near(part);
    weight[2] = near(1 - part), weight[3] = far(2 - part);
}

static sp_status taps_new(const plan *p, int64_t in, int64_t out, taps *t)
{
    double step = step_of(p, in, out);
    *t = (taps){.in = in, .out = out};
    t->n = p->mode == SP_METHOD_CUBIC ? 4 : p->mode == SP_METHOD_LINEAR ? 2 : 1;
    t->bytes = (size_t)(out * t->n) * (sizeof(int64_t) + sizeof(double));
    t->at = sp__alloc(t->bytes);
    if (!t->at) return sp_fail(SP_EMEMORY, "resample: no memory for weights");
    t->weight = (double *)(t->at + out * t->n);
    for (int64_t i = 0; i < out; i++) {
        int64_t *at = t->at + i * t->n;
        double *weight = t->weight + i * t->n;
        if (t->n == 1)
            at[0] = nearest(p, i, in, out), weight[0] = 1;
        else if (t->n == 2)
            linear_taps(source(p, i, step), in, at, weight);
        else
            cubic_taps(source(p, i, step), in, at, weight);
    }
    return SP_OK;
}

/* A dimension that is not there: one element, which stays. */
static sp_status taps_single(taps *t)
{
    static const sp_attr none = {.absent = true};
    return taps_new(&(plan){.mode = SP_METHOD_NEAREST, .scale = &none}, 1, 1, t);
}

static void taps_free(taps *t)
{
    if (t->at) sp__free(t->at, t->bytes);
}

/* ---- planes ----- */

/* y from x. room: [in rows][out columns]. */
static void forward(const job *j, const char *x, char *y, char *room)
{
    const taps *r = &j->rows, *c = &j->columns;
    int64_t row = c->out * j->size;
    for (int64_t i = 0; i < r->in; i++)
        j->lanes->pick(room + i * row, x + i * c->in * j->size, c->at, c->weight, c->n, c->out);
    for (int64_t i = 0; i < r->out; i++)
        j->lanes->blend(y + i * row, room, c->out, r->at + i * r->n, r->weight + i * r->n, r->n,
                        c->out);
}

/* x from y, the transpose. */
static void backward(const job *j, const char *y, char *x, char *room)
{
    const taps *r = &j->rows, *c = &j->columns;
    int64_t row = c->out * j->size;
    memset(room, 0, (size_t)(r->in * row));
    memset(x, 0, (size_t)(r->in * c->in * j->size));
    for (int64_t i = 0; i < r->out; i++)
        for (int k = 0; k < r->n; k++)
            j->lanes->add(room + r->at[i * r->n + k] * row, y + i * row, r->weight[i * r->n + k],
                          c->out);
    for (int64_t i = 0; i < r->in; i++)
        j->lanes->place(x + i * c->in * j->size, room + i * row, c->at, c->weight, c->n, c->out);
}

static void resample_chunk(void *ctx, int64_t chunk)
{
    job *j = ctx;
    int64_t end = (chunk + 1) * j->planes_a_chunk, small = j->rows.in * j->columns.in * j->size,
            large = j->rows.out * j->columns.out * j->size;
    size_t bytes = (size_t)(j->rows.in * j->columns.out * j->size);
    char *room = sp__alloc(bytes);
    if (!room) {
        atomic_store(&j->failed, true);
        return;
    }
    for (int64_t p = chunk * j->planes_a_chunk; p < end && p < j->planes; p++) {
        if (j->back)
            backward(j, j->from + p * large, j->to + p * small, room);
        else
            forward(j, j->from + p * small, j->to + p * large, room);
    }
    sp__free(room, bytes);
}

/* ---- the ops ----- */

/* x: the side of sizes `in`; y: of sizes `out`. attributes: size, mode, align_corners, scales */
static sp_status job_new(const sp_kargs *args, const sp_operand *x, const sp_operand *y, job *j)
{
    const sp_attr *attr = args->attr;
    int n = attr[SP_RESAMPLE_SIZE].n, last = x->rank - 1;
    plan p = {.mode = (int)attr[SP_RESAMPLE_METHOD].v.i,
              .dtype = x->dtype,
              .corners = attr[SP_RESAMPLE_ALIGN_CORNERS].v.i,
              .scale = &attr[SP_RESAMPLE_SCALE_W]};
    j->size = sp__size_of(x->dtype), j->lanes = &sp__isa->resample[x->dtype];
    j->planes = sp__pooling_planes(x, n);
    SP_RETURN_IF(taps_new(&p, x->shape[last], y->shape[last], &j->columns));
    p.scale = &attr[SP_RESAMPLE_SCALE_H];
    if (n == 1) return taps_single(&j->rows);
    return taps_new(&p, x->shape[last - 1], y->shape[last - 1], &j->rows);
}

static sp_status run(const sp_kargs *args, bool back)
{
    const sp_operand *out = &args->arg[0], *in = &args->arg[1];
    sp_dense d[2];
    job j = {.back = back};
    sp_status status = SP_OK;
    if (out->numel == 0) return SP_OK;
    SP_TRY(sp__dense_begin(args, d));
    SP_TRY(job_new(args, back ? out : in, back ? in : out, &j));
    j.from = d[1].data, j.to = d[0].data;
    double moved = (double)(j.rows.in + j.rows.out * j.rows.n) * (double)j.columns.out;
    j.planes_a_chunk = (int64_t)(CHUNK / (moved + 1)) + 1;
    sp__pool_for((j.planes + j.planes_a_chunk - 1) / j.planes_a_chunk,
                 (double)j.planes * moved * 0.7e-3, resample_chunk, &j);
    if (j.failed)
        SP_TRY(sp_fail(SP_EMEMORY, "%s: no memory to work in", sp_op_table[args->op].name));
out:
    taps_free(&j.rows), taps_free(&j.columns);
    return sp__dense_end(args, d, status);
}

sp_status sp__cpu_resample(const sp_kargs *args)
{
    return run(args, false);
}

sp_status sp__cpu_resample_backward(const sp_kargs *args)
{
    return run(args, true);
}
