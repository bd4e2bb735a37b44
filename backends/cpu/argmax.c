/* argmax, argmin, and max and min along a dimension: where the first largest (smallest) element
 * stands, and what it is.
 *
 * Block by block the extremum is found by the vector functions of amax and amin; only the block
 * that won is searched. NaN counts as the largest and as the smallest, as in amax and amin, and the
 * first of equals wins.
 */
#include <string.h>

#include "backends/cpu/kernels.h"
#include "backends/cpu/pool.h"
#include "backends/cpu/reduce.h"
#include "backends/cpu/strided.h"
#include "ops/op.h"
#include "ops_gen.h"

/* Whether *a comes before *b as an extremum; equals do not. */
#define BEATS(type)                                                                                \
    ({                                                                                             \
        type x_, y_;                                                                               \
        memcpy(&x_, a, sizeof x_), memcpy(&y_, b, sizeof y_);                                      \
        (kind == SP_TREE_MAX ? x_ > y_ : x_ < y_) || (x_ != x_ && y_ == y_);                       \
    })

static bool beats(sp_reduce_kind kind, int dtype, const void *a, const void *b)
{
    if (dtype == SP_FLOAT32) return BEATS(float);
    return dtype == SP_FLOAT64 ? BEATS(double) : BEATS(int64_t);
}

/* The first of n elements that *best, the extremum of them, does not beat. */
static int64_t find(sp_reduce_kind kind, int dtype, const char *p, int64_t n, const void *best)
{
    int64_t size = sp__size_of(dtype), i = 0;
    while (i + 1 < n && beats(kind, dtype, best, p + i * size)) i++;
    return i;
}

typedef struct scan { /* one sequence; bool is looked at as int64 */
    const sp_operand *x;
    sp_reduce_kind kind;
    int dtype;
    double raw[SP_REDUCE_BLOCK], room[SP_REDUCE_BLOCK];
} scan;

static const char *scan_block(scan *s, int64_t at, int64_t n)
{
    if (s->x->dtype == s->dtype) {
        if (s->x->contiguous) return s->x->data + at * sp__size_of(s->dtype);
        sp__gather(s->room, s->x, at, n);
    } else {
        sp__gather(s->raw, s->x, at, n);
        sp__isa->cast[s->x->dtype][s->dtype](s->room, s->raw, NULL, NULL, n, 0);
    }
    return (const char *)s->room;
}

static int64_t first_best(const sp_operand *x, sp_reduce_kind kind)
{
    scan s = {.x = x, .kind = kind, .dtype = sp__reduce_dtype(x->dtype)};
    double best, of_block;
    int64_t best_at = 0;
    for (int64_t at = 0; at < x->numel; at += SP_REDUCE_BLOCK) {
        int64_t n = x->numel - at < SP_REDUCE_BLOCK ? x->numel - at : SP_REDUCE_BLOCK;
        sp__reduce_row(kind, s.dtype, scan_block(&s, at, n), n, &of_block);
        if (at == 0 || beats(kind, s.dtype, &of_block, &best)) best = of_block, best_at = at;
    }
    int64_t n = x->numel - best_at < SP_REDUCE_BLOCK ? x->numel - best_at : SP_REDUCE_BLOCK;
    return best_at + find(kind, s.dtype, scan_block(&s, best_at, n), n, &best);
}

typedef struct extremum_job {
    sp_operand values, indices; /* values.data NULL: not wanted */
    sp_operand kept, sequence;  /* kept: the input without the dimension; sequence: along it, from
                                   each element of kept */
    sp_reduce_kind kind;
    int64_t rows_a_chunk;
} extremum_job;

static void extremum_chunk(void *ctx, int64_t chunk)
{
    const extremum_job *j = ctx;
    int64_t end = (chunk + 1) * j->rows_a_chunk;
    for (int64_t i = chunk * j->rows_a_chunk; i < end && i < j->indices.numel; i++) {
        sp_operand x = j->sequence;
        x.data = sp__element_at(&j->kept, i);
        int64_t at = first_best(&x, j->kind);
        memcpy(sp__element_at(&j->indices, i), &at, sizeof at);
        if (j->values.data != NULL)
            memcpy(sp__element_at(&j->values, i), sp__element_at(&x, at),
                   (size_t)sp__size_of(x.dtype));
    }
}

/* dim absent: x as one sequence. */
static void run(extremum_job *j, const sp_operand *x, const sp_attr *dim_attr)
{
    j->kept = j->sequence = *x;
    if (j->indices.numel == 0) return;
    if (dim_attr->absent || x->rank == 0) {
        j->kept.rank = 0;
    } else {
        int dim = (int)(dim_attr->v.i < 0 ? dim_attr->v.i + x->rank : dim_attr->v.i);
        j->kept.rank--;
        for (int d = dim; d < j->kept.rank; d++)
            j->kept.shape[d] = x->shape[d + 1], j->kept.stride[d] = x->stride[d + 1];
        j->sequence.rank = 1, j->sequence.shape[0] = j->sequence.numel = x->shape[dim];
        j->sequence.stride[0] = x->stride[dim];
    }
    j->sequence.contiguous = sp__is_dense(&j->sequence);
    j->rows_a_chunk = 4096 / (j->sequence.numel + 1) + 1;
    double us = (double)x->numel * (j->sequence.contiguous ? 0.2e-3 : 1e-3) +
                (double)j->indices.numel * 0.03;
    sp__pool_for((j->indices.numel + j->rows_a_chunk - 1) / j->rows_a_chunk, us, extremum_chunk, j);
}

/* attributes: dim (absent: x as one sequence), keepdim */
static sp_status positions(const sp_kargs *args, sp_reduce_kind kind)
{
    extremum_job j = {.indices = args->arg[0], .kind = kind};
    run(&j, &args->arg[1], &args->attr[0]);
    return SP_OK;
}

/* attributes: dim, keepdim */
static sp_status values_and_positions(const sp_kargs *args, sp_reduce_kind kind)
{
    extremum_job j = {.values = args->arg[0], .indices = args->arg[1], .kind = kind};
    run(&j, &args->arg[2], &args->attr[0]);
    return SP_OK;
}

sp_status sp__cpu_argmax(const sp_kargs *args)
{
    return positions(args, SP_TREE_MAX);
}

sp_status sp__cpu_argmin(const sp_kargs *args)
{
    return positions(args, SP_TREE_MIN);
}

sp_status sp__cpu_max_dim(const sp_kargs *args)
{
    return values_and_positions(args, SP_TREE_MAX);
}

sp_status sp__cpu_min_dim(const sp_kargs *args)
{
    return values_and_positions(args, SP_TREE_MIN);
}
