/* Pooling window by window: adaptive ones, whose windows differ in size, and the transposes of
 * max_pool, which move elements to and from the places that it found.
 *
 * Planes are shared out to threads; each is one chain, so bits do not depend on threads.
 */
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

enum { CHUNK = 8192 }; /* elements of planes, about */

typedef struct share_job share_job;
typedef void (*plane_fn)(share_job *j, int64_t plane, void *room);

struct share_job {
    plane_fn fn;
    const sp_pool_lanes *lanes;
    int64_t in[2], out[2], n_in, n_out; /* of the plane and its windows */
    int64_t planes, planes_a_chunk;
    int64_t size; /* bytes an element */
    char *x, *y;
    int64_t *indices;
    const int64_t *start[2], *end[2]; /* of windows that share a plane out */
    int64_t *bounds;                  /* all of those */
    size_t room;                      /* bytes that fn works in */
    _Atomic bool failed, outside;     /* no memory; a position in no plane */
};

/* ---- planes ----- */

/* Sizes of a plane with n dimensions, those that are missing 1. */
static void plane_of(const sp_operand *x, int n, int64_t *plane)
{
    plane[0] = n == 2 ? x->shape[x->rank - 2] : 1;
    plane[1] = x->shape[x->rank - 1];
}

static void share_chunk(void *ctx, int64_t chunk)
{
    share_job *j = ctx;
    int64_t end = (chunk + 1) * j->planes_a_chunk;
    void *room = j->room ? sp__alloc(j->room) : NULL;
    if (j->room && !room) {
        atomic_store(&j->failed, true);
        return;
    }
    for (int64_t p = chunk * j->planes_a_chunk; p < end && p < j->planes; p++) j->fn(j, p, room);
    if (room) sp__free(room, j->room);
}

static sp_status each_plane(share_job *j, const char *op)
{
    int64_t n = j->n_in > j->n_out ? j->n_in : j->n_out;
    j->planes_a_chunk = CHUNK / (n + 1) + 1;
    sp__pool_for((j->planes + j->planes_a_chunk - 1) / j->planes_a_chunk,
                 (double)j->planes * (double)n * 0.7e-3, share_chunk, j);
    return j->failed ? sp_fail(SP_EMEMORY, "%s: no memory to work in", op) : SP_OK;
}

static share_job job_of(const sp_operand *x, const sp_operand *y, int n, plane_fn fn)
{
    share_job j = {.fn = fn, .size = sp__size_of(x->dtype), .lanes = &sp__isa->pool[x->dtype]};
    plane_of(x, n, j.in), plane_of(y, n, j.out);
    j.n_in = j.in[0] * j.in[1], j.n_out = j.out[0] * j.out[1];
    j.planes = sp__pooling_planes(x, n);
    return j;
}

/* ---- windows that share a plane out ----- */

static size_t bytes_of_bounds(const share_job *j)
{
    return 2 * (size_t)(j->out[0] + j->out[1] + 1) * sizeof(int64_t);
}

static sp_status bounds_new(share_job *j, const char *op)
{
    int64_t *to = j->bounds = sp__alloc(bytes_of_bounds(j));
    if (!to) return sp_fail(SP_EMEMORY, "%s: no memory for the bounds of windows", op);
    for (int i = 0; i < 2; i++) {
        j->start[i] = to, j->end[i] = to + j->out[i];
        for (int64_t k = 0; k < j->out[i]; k++, to++) {
            to[0] = sp__pool_start(k, j->in[i], j->out[i]);
            to[j->out[i]] = sp__pool_end(k, j->in[i], j->out[i]);
        }
        to += j->out[i];
    }
    j->room = 2 * (size_t)(j->in[1] * j->size);
    return SP_OK;
}

static void bounds_free(share_job *j)
{
    if (j->bounds) sp__free(j->bounds, bytes_of_bounds(j));
}

static void mean_plane(share_job *j, int64_t plane, void *room)
{
    j->lanes->share(j->y + plane * j->n_out * j->size, j->x + plane * j->n_in * j->size, j->in,
                    j->out, j->start, j->end, room);
}

static void spread_plane(share_job *j, int64_t plane, void *room)
{
    j->lanes->spread(j->x + plane * j->n_in * j->size, j->y + plane * j->n_out * j->size, j->in,
                     j->out, j->start, j->end, room);
}

static void largest_plane(share_job *j, int64_t plane, void *room)
{
    j->lanes->largest(j->y + plane * j->n_out * j->size, j->indices + plane * j->n_out,
                      j->x + plane * j->n_in * j->size, j->in, j->out, j->start, j->end, room);
}

/* x and y: which operands are the planes and their windows. With three, the middle one holds
 * places. */
static sp_status share_planes(const sp_kargs *args, int x, int y, plane_fn fn)
{
    const char *op = sp_op_table[args->op].name;
    share_job j = job_of(&args->arg[x], &args->arg[y], args->attr[0].n, fn);
    sp_dense d[3];
    sp_status status = SP_OK;
    if (args->arg[0].numel == 0) return SP_OK;
    SP_TRY(sp__dense_begin(args, d));
    SP_TRY(bounds_new(&j, op));
    j.x = d[x].data, j.y = d[y].data;
    if (args->n_arg == 3) j.indices = (int64_t *)(void *)d[1].data;
    SP_TRY(each_plane(&j, op));
out:
    bounds_free(&j);
    return sp__dense_end(args, d, status);
}

sp_status sp__cpu_adaptive_avg_pool(const sp_kargs *args)
{
    return share_planes(args, 1, 0, mean_plane);
}

sp_status sp__cpu_adaptive_avg_pool_backward(const sp_kargs *args)
{
    return share_planes(args, 0, 1, spread_plane);
}

sp_status sp__cpu_adaptive_max_pool(const sp_kargs *args)
{
    return share_planes(args, 2, 0, largest_plane);
}

/* ---- elements at places ----- */

/* Whether all positions of a plane are in it; otherwise the call fails. */
static bool all_inside(share_job *j, const int64_t *at)
{
    bool outside = false;
    for (int64_t i = 0; i < j->n_out; i++) outside |= (uint64_t)at[i] >= (uint64_t)j->n_in;
    if (outside) atomic_store(&j->outside, true);
    return !outside;
}

static sp_status check_places(const share_job *j, const char *op)
{
    if (!j->outside) return SP_OK;
    return sp_fail(SP_EINDEX, "%s: a position is out of range, expected 0 to %lld", op,
                   (long long)(j->n_in - 1));
}

#define DEFINE_MOVES(T)                                                                            \
    static void pick_##T(share_job *j, int64_t plane, void *room)                                  \
    {                                                                                              \
        const T *x = (const T *)(void *)j->x + plane * j->n_in;                                    \
        T *y = (T *)(void *)j->y + plane * j->n_out;                                               \
        const int64_t *at = j->indices + plane * j->n_out;                                         \
        (void)room;                                                                                \
        if (!all_inside(j, at)) return;                                                            \
        for (int64_t i = 0; i < j->n_out; i++) y[i] = x[at[i]];                                    \
    }                                                                                              \
    static void place_##T(share_job *j, int64_t plane, void *room)                                 \
    {                                                                                              \
        T *x = (T *)(void *)j->x + plane * j->n_in;                                                \
        const T *y = (const T *)(void *)j->y + plane * j->n_out;                                   \
        const int64_t *at = j->indices + plane * j->n_out;                                         \
        (void)room;                                                                                \
        if (!all_inside(j, at)) return;                                                            \
        memset(x, 0, (size_t)j->n_in * sizeof(T));                                                 \
        for (int64_t i = 0; i < j->n_out; i++) x[at[i]] += y[i];                                   \
    }
DEFINE_MOVES(float)
DEFINE_MOVES(double)
DEFINE_MOVES(int64_t)

/* inputs: x, indices; attributes: size */
sp_status sp__cpu_max_pool_gather(const sp_kargs *args)
{
    const sp_operand *y = &args->arg[0], *x = &args->arg[1];
    sp_dense d[3];
    sp_status status = SP_OK;
    if (y->numel == 0) return SP_OK;
    SP_TRY(sp__dense_begin(args, d));
    share_job j = job_of(x, y, args->attr[0].n,
                         x->dtype == SP_FLOAT32   ? pick_float
                         : x->dtype == SP_FLOAT64 ? pick_double
                                                  : pick_int64_t);
    j.x = d[1].data, j.y = d[0].data, j.indices = (int64_t *)(void *)d[2].data;
    SP_TRY(each_plane(&j, "max_pool_gather"));
    SP_TRY(check_places(&j, "max_pool_gather"));
out:
    return sp__dense_end(args, d, status);
}

/* inputs: y, indices; attributes: size */
sp_status sp__cpu_max_pool_scatter(const sp_kargs *args)
{
    const sp_operand *x = &args->arg[0], *y = &args->arg[1];
    sp_dense d[3];
    sp_status status = SP_OK;
    if (x->numel == 0) return SP_OK;
    SP_TRY(sp__dense_begin(args, d));
    share_job j = job_of(x, y, args->attr[0].n,
                         x->dtype == SP_FLOAT32   ? place_float
                         : x->dtype == SP_FLOAT64 ? place_double
                                                  : place_int64_t);
    j.x = d[0].data, j.y = d[1].data, j.indices = (int64_t *)(void *)d[2].data;
    SP_TRY(each_plane(&j, "max_pool_scatter"));
    SP_TRY(check_places(&j, "max_pool_scatter"));
out:
    return sp__dense_end(args, d, status);
}
