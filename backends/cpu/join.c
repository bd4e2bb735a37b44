/* cat and stack: each input is copied into its place in the result.
 *
 *     runs      result dense, input dense: `outer` runs of consecutive bytes, whatever the dtype
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

enum { CHUNK_BYTES = 1 << 16 };

/* ---- runs ----- */

typedef struct runs_job {
    char *to;
    const char *from;
    int64_t outer, run, step; /* runs of `run` bytes; they begin `step` bytes apart in the result */
    int64_t rows;             /* of them a chunk */
} runs_job;

static void copy_rows(void *ctx, int64_t chunk)
{
    const runs_job *j = ctx;
    int64_t row = chunk * j->rows, end = row + j->rows < j->outer ? row + j->rows : j->outer;
    for (; row < end; row++) sp__copy_bytes(j->to + row * j->step, j->from + row * j->run, j->run);
}

/* One long run is cut by bytes. */
static void copy_piece(void *ctx, int64_t chunk)
{
    const runs_job *j = ctx;
    int64_t at = chunk * CHUNK_BYTES, n = j->run - at < CHUNK_BYTES ? j->run - at : CHUNK_BYTES;
    sp__copy_bytes(j->to + at, j->from + at, n);
}

static void copy_runs(runs_job j)
{
    double us = (double)(j.outer * j.run) * 0.1e-3;
    if (j.outer == 1) {
        sp__pool_for((j.run + CHUNK_BYTES - 1) / CHUNK_BYTES, us, copy_piece, &j);
        return;
    }
    j.rows = j.run < CHUNK_BYTES ? CHUNK_BYTES / (j.run > 0 ? j.run : 1) : 1;
    sp__pool_for((j.outer + j.rows - 1) / j.rows, us, copy_rows, &j);
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
    int64_t size = sp__size_of(out->dtype), inner = size;
    sp_operand part = *out;
    part.data += start * out->stride[dim] * size;
    part.shape[dim] = x->shape[dim], part.numel = x->numel;
    part.contiguous = sp__is_dense(&part);
    if (x->numel == 0) return SP_OK;
    if (x->dtype != out->dtype) return copy_cast(&part, x);
    if (!sp__is_dense(out) || !sp__is_dense(x)) {
        sp__copy_strided(&part, x);
        return SP_OK;
    }
    for (int d = dim + 1; d < out->rank; d++) inner *= out->shape[d];
    runs_job j = {.to = part.data, .from = x->data, .outer = 1};
    for (int d = 0; d < dim; d++) j.outer *= out->shape[d];
    j.run = x->shape[dim] * inner, j.step = out->shape[dim] * inner;
    copy_runs(j);
    return SP_OK;
}

/* ---- ops ----- */

/* attributes: dim */
sp_status sp__cpu_cat(const sp_kargs *args)
{
    const sp_operand *out = &args->arg[0];
    int dim = (int)(args->attr[0].v.i < 0 ? args->attr[0].v.i + out->rank : args->attr[0].v.i);
    int64_t at = 0;
    for (int i = 1; i < args->n_arg; i++) {
        const sp_operand *x = &args->arg[i];
        if (sp__cat_skips(x->rank, x->shape)) continue;
        SP_RETURN_IF(put(out, x, dim, at));
        at += x->shape[dim];
    }
    return SP_OK;
}

/* attributes: dim */
sp_status sp__cpu_stack(const sp_kargs *args)
{
    const sp_operand *out = &args->arg[0];
    int dim = (int)(args->attr[0].v.i < 0 ? args->attr[0].v.i + out->rank : args->attr[0].v.i);
    for (int i = 1; i < args->n_arg; i++) {
        sp_operand x = args->arg[i];
        for (int d = x.rank; d > dim; d--)
            x.shape[d] = x.shape[d - 1], x.stride[d] = x.stride[d - 1];
        x.shape[dim] = 1, x.stride[dim] = 1, x.rank++;
        SP_RETURN_IF(put(out, &x, dim, i - 1));
    }
    return SP_OK;
}
