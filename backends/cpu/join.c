/* cat and stack: each input is copied into its place in the result.
 *
 *     runs      everything of one dtype, and each input dense from the dimension joined along on:
 *               rows of the result, each made of a run of every input; all inputs at once, so that
 *               what is written stays in the cache
 *     strided   one input at a time by the copy kernel
 *     cast      an input of another dtype than the result's, by cast's own vector functions
 */
#include "ops/join.h"

#include <string.h>

#include "backends/cpu/copy.h"
#include "backends/cpu/kernels.h"
#include "backends/cpu/pool.h"
#include "backends/cpu/strided.h"
#include "backends/cpu/tile.h"
#include "ops/attr.h"
#include "ops_gen.h"
#include "tensor/memory.h"

enum { CHUNK_BYTES = 1 << 16 };

/* ---- runs ----- */

typedef struct part { /* an input: `outer` runs of `run` bytes, `step` bytes apart */
    const char *from;
    int64_t step, at, run; /* at: where they begin in each row of the result */
} part;

typedef struct runs_job {
    char *to;
    const part *parts;
    int n;
    int64_t outer, row; /* rows of the result, and their bytes */
    int64_t rows;       /* of them a chunk */
    int64_t pieces;     /* or chunks a row */
} runs_job;

#define RUNS_LOOP(bytes)                                                                           \
    for (int64_t i = 0; i < n; i++) memcpy(to + i * row, p->from + (first + i) * p->step, bytes)

/* n runs of a part, from `first` on, to places `row` bytes apart. */
static void copy_runs(char *to, int64_t row, const part *p, int64_t first, int64_t n)
{
    switch (p->run) {
    case 1: RUNS_LOOP(1); break;
    case 2: RUNS_LOOP(2); break;
    case 4: RUNS_LOOP(4); break;
    case 8: RUNS_LOOP(8); break;
    case 16: RUNS_LOOP(16); break;
    default:
        for (int64_t i = 0; i < n; i++)
            sp__copy_bytes(to + i * row, p->from + (first + i) * p->step, p->run);
    }
}

static void copy_rows(void *ctx, int64_t chunk)
{
    const runs_job *j = ctx;
    int64_t row = chunk * j->rows, n = j->outer - row < j->rows ? j->outer - row : j->rows;
    for (int i = 0; i < j->n; i++) {
        const part *p = &j->parts[i];
        copy_runs(j->to + row * j->row + p->at, j->row, p, row, n);
    }
}

/* The part that holds the byte `at` of a row. */
static const part *part_at(const runs_job *j, int64_t at)
{
    int low = 0, high = j->n - 1;
    while (low < high) {
        int middle = low + (high - low + 1) / 2;
        low = j->parts[middle].at <= at ? middle : low;
        high = j->parts[middle].at <= at ? high : middle - 1;
    }
    return &j->parts[low];
}

/* A piece of a long row. */
static void copy_piece(void *ctx, int64_t chunk)
{
    const runs_job *j = ctx;
    int64_t row = chunk / j->pieces, at = chunk % j->pieces * CHUNK_BYTES,
            end = at + CHUNK_BYTES < j->row ? at + CHUNK_BYTES : j->row;
    for (const part *p = part_at(j, at); at < end; p++) {
        int64_t start = at - p->at, n = (end - p->at < p->run ? end - p->at : p->run) - start;
        sp__copy_bytes(j->to + row * j->row + at, p->from + row * p->step + start, n);
        at += n;
    }
}

static void join_runs(runs_job *j)
{
    double us = (double)(j->outer * j->row) * 0.1e-3;
    if (j->row > CHUNK_BYTES) {
        j->pieces = (j->row + CHUNK_BYTES - 1) / CHUNK_BYTES;
        sp__pool_for(j->outer * j->pieces, us, copy_piece, j);
        return;
    }
    j->rows = CHUNK_BYTES / j->row;
    sp__pool_for((j->outer + j->rows - 1) / j->rows, us, copy_rows, j);
}

/* ---- any layout, any dtype ----- */

static sp_status copy_cast(const sp_operand *to, const sp_operand *from)
{
    sp_attr dtype = sp__attr_dtype((sp_dtype)to->dtype);
    sp_kargs cast = {.op = SP_OP_CAST, .n_out = 1, .n_attr = 1, .n_arg = 2, .attr = &dtype};
    cast.compute = from->dtype;
    cast.arg = cast.room, cast.room[0] = *to, cast.room[1] = *from;
    sp__kargs_coalesce(&cast);
    return sp__cpu_pointwise(&cast);
}

/* x into the places start .. of dim in out; x has out's dimensions. */
static sp_status put(const sp_operand *out, const sp_operand *x, int dim, int64_t start)
{
    sp_operand to = *out;
    to.data += start * out->stride[dim] * sp__size_of(out->dtype);
    to.shape[dim] = x->shape[dim], to.numel = x->numel;
    to.contiguous = sp__is_dense(&to);
    if (x->numel == 0) return SP_OK;
    if (x->dtype != out->dtype) return copy_cast(&to, x);
    sp__copy_strided(&to, x);
    return SP_OK;
}

static sp_status put_each(const sp_kargs *args, int dim)
{
    const sp_operand *out = &args->arg[0];
    int64_t at = 0;
    for (int i = 1; i < args->n_arg; i++) {
        const sp_operand *x = &args->arg[i];
        if (sp__cat_skips(x->rank, x->shape)) continue;
        SP_RETURN_IF(put(out, x, dim, at));
        at += x->shape[dim];
    }
    return SP_OK;
}

/* ---- ops ----- */

static int dim_of(const sp_kargs *args)
{
    int64_t dim = args->attr[0].v.i;
    return (int)(dim < 0 ? dim + args->arg[0].rank : dim);
}

/* x as runs: what lies within `dim` and the dimensions behind it, and again for each of those in
 * front. */
static bool is_runs(const sp_operand *x, int dim, int64_t *step)
{
    int64_t inner = 1;
    *step = 0;
    return x->numel == 0 || (sp__walked_as_one(x, dim, x->rank, &inner) && inner == 1 &&
                             sp__walked_as_one(x, 0, dim, step));
}

static bool all_runs(const sp_kargs *args, int dim)
{
    int64_t step;
    if (!sp__is_dense(&args->arg[0])) return false;
    for (int i = 1; i < args->n_arg; i++)
        if (args->arg[i].dtype != args->arg[0].dtype || !is_runs(&args->arg[i], dim, &step))
            return false;
    return true;
}

static sp_status join_all(const sp_kargs *args, int dim)
{
    enum { ROOM = 16 };
    const sp_operand *out = &args->arg[0];
    part room[ROOM], *parts = room;
    size_t bytes = (size_t)args->n_arg * sizeof(part);
    runs_job j = {.to = out->data, .outer = 1};
    if (args->n_arg > ROOM && !(parts = sp__alloc(bytes)))
        return sp_fail(SP_EMEMORY, "%s: no memory to list %d inputs", sp_op_table[args->op].name,
                       args->n_arg - 1);
    for (int d = 0; d < dim; d++) j.outer *= out->shape[d];
    for (int i = 1; i < args->n_arg; i++) {
        const sp_operand *x = &args->arg[i];
        if (x->numel == 0) continue;
        int64_t size = sp__size_of(x->dtype), run = x->numel / j.outer * size, step;
        (void)is_runs(x, dim, &step);
        parts[j.n++] = (part){x->data, step * size, j.row, run}, j.row += run;
    }
    j.parts = parts;
    join_runs(&j);
    if (parts != room) sp__free(parts, bytes);
    return SP_OK;
}

/* attributes: dim */
sp_status sp__cpu_cat(const sp_kargs *args)
{
    int dim = dim_of(args);
    if (args->arg[0].numel == 0) return SP_OK;
    return all_runs(args, dim) ? join_all(args, dim) : put_each(args, dim);
}

/* attributes: dim */
sp_status sp__cpu_stack(const sp_kargs *args)
{
    const sp_operand *out = &args->arg[0];
    int dim = dim_of(args);
    if (out->numel == 0) return SP_OK;
    if (all_runs(args, dim)) return join_all(args, dim);
    for (int i = 1; i < args->n_arg; i++) {
        sp_operand x = args->arg[i];
        for (int d = x.rank; d > dim; d--)
            x.shape[d] = x.shape[d - 1], x.stride[d] = x.stride[d - 1];
        x.shape[dim] = 1, x.stride[dim] = 1, x.rank++;
        SP_RETURN_IF(put(out, &x, dim, i - 1));
    }
    return SP_OK;
}
