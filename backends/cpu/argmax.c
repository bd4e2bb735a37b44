/* argmax: where the first largest element stands.
 *
 * Block by block the maximum is found by the vector functions of amax; only the block that won is
 * searched. NaN counts as the largest, as in amax, and the first of equals wins.
 */
#include <string.h>

#include "backends/cpu/kernels.h"
#include "backends/cpu/pool.h"
#include "backends/cpu/reduce.h"
#include "backends/cpu/strided.h"
#include "ops/op.h"
#include "ops_gen.h"

/* Whether *a comes before *b as a maximum; equals do not. */
#define BEATS(type)                                                                                \
    ({                                                                                             \
        type x_, y_;                                                                               \
        memcpy(&x_, a, sizeof x_), memcpy(&y_, b, sizeof y_);                                      \
        x_ > y_ || (x_ != x_ && y_ == y_);                                                         \
    })

static bool beats(int dtype, const void *a, const void *b)
{
    if (dtype == SP_FLOAT32) return BEATS(float);
    return dtype == SP_FLOAT64 ? BEATS(double) : BEATS(int64_t);
}

/* The first of n elements that is no smaller than *max, which is the largest of them. */
static int64_t find(int dtype, const char *p, int64_t n, const void *max)
{
    int64_t size = sp__size_of(dtype), i = 0;
    while (i + 1 < n && beats(dtype, max, p + i * size)) i++;
    return i;
}

typedef struct scan { /* one sequence; bool is looked at as int64 */
    const sp_operand *x;
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

static int64_t first_largest(const sp_operand *x)
{
    scan s = {.x = x, .dtype = x->dtype == SP_BOOL ? SP_INT64 : x->dtype};
    double best, max;
    int64_t best_at = 0;
    for (int64_t at = 0; at < x->numel; at += SP_REDUCE_BLOCK) {
        int64_t n = x->numel - at < SP_REDUCE_BLOCK ? x->numel - at : SP_REDUCE_BLOCK;
        sp__reduce_row(SP_REDUCE_MAX, s.dtype, scan_block(&s, at, n), n, &max);
        if (at == 0 || beats(s.dtype, &max, &best)) best = max, best_at = at;
    }
    int64_t n = x->numel - best_at < SP_REDUCE_BLOCK ? x->numel - best_at : SP_REDUCE_BLOCK;
    return best_at + find(s.dtype, scan_block(&s, best_at, n), n, &best);
}

typedef struct argmax_job {
    sp_operand out, kept, sequence; /* kept: the input without the dimension; sequence: along it,
                                       from each element of kept */
    int64_t rows_a_chunk;
} argmax_job;

static void argmax_chunk(void *ctx, int64_t chunk)
{
    const argmax_job *j = ctx;
    int64_t end = (chunk + 1) * j->rows_a_chunk;
    for (int64_t i = chunk * j->rows_a_chunk; i < end && i < j->out.numel; i++) {
        sp_operand x = j->sequence;
        x.data = sp__element_at(&j->kept, i);
        int64_t at = first_largest(&x);
        memcpy(sp__element_at(&j->out, i), &at, sizeof at);
    }
}

/* attributes: dim (absent: x as one sequence), keepdim */
sp_status sp__cpu_argmax(const sp_kargs *args)
{
    const sp_operand *x = &args->arg[1];
    argmax_job j = {.out = args->arg[0], .kept = *x, .sequence = *x};
    if (j.out.numel == 0) return SP_OK;
    if (args->attr[0].absent || x->rank == 0) {
        j.kept.rank = 0;
    } else {
        int dim = (int)(args->attr[0].v.i < 0 ? args->attr[0].v.i + x->rank : args->attr[0].v.i);
        j.kept.rank--;
        for (int d = dim; d < j.kept.rank; d++) {
            j.kept.shape[d] = x->shape[d + 1], j.kept.stride[d] = x->stride[d + 1];
        }
        j.sequence.rank = 1, j.sequence.shape[0] = j.sequence.numel = x->shape[dim];
        j.sequence.stride[0] = x->stride[dim];
    }
    j.sequence.contiguous = sp__is_dense(&j.sequence);
    j.rows_a_chunk = 4096 / (j.sequence.numel + 1) + 1;
    double us =
        (double)x->numel * (j.sequence.contiguous ? 0.2e-3 : 1e-3) + (double)j.out.numel * 0.03;
    sp__pool_for((j.out.numel + j.rows_a_chunk - 1) / j.rows_a_chunk, us, argmax_chunk, &j);
    return SP_OK;
}
