/* full, arange and the like.
 */
#include <string.h>

#include "backends/cpu/kernels.h"
#include "backends/cpu/pool.h"
#include "backends/cpu/strided.h"
#include "backends/cpu/tile_int.h"
#include "ops/attr.h"
#include "ops/creation.h"
#include "ops_gen.h"

enum { CHUNK = 16384 };

typedef struct fill_job {
    const sp_operand *out;
    sp_element value; /* of the output's dtype */
} fill_job;

static void fill_chunk(void *ctx, int64_t chunk)
{
    const fill_job *j = ctx;
    int64_t start = chunk * CHUNK,
            n = j->out->numel - start < CHUNK ? j->out->numel - start : CHUNK;
    int64_t size = sp__size_of(j->out->dtype);
    sp__gather_run(j->out->data + start * size, &j->value, size, n, 0);
}

/* attributes: size, fill_value, dtype */
sp_status sp__cpu_full(const sp_kargs *args)
{
    fill_job job = {.out = &args->arg[0]};
    sp__scalar_to(sp__attr_to_scalar(&args->attr[SP_FULL_FILL_VALUE]), job.out->dtype, &job.value);
    sp__pool_for((job.out->numel + CHUNK - 1) / CHUNK, (double)job.out->numel * 0.1e-3, fill_chunk,
                 &job);
    return SP_OK;
}

static double number(const sp_attr *a)
{
    sp_scalar s = sp__attr_to_scalar(a);
    return s.kind == SP_FLOAT64 ? s.v.f : (double)s.v.i;
}

/* Each element from its index, never from its neighbour; floats computed in double, as PyTorch
 * does. attributes: start, end, step, dtype */
sp_status sp__cpu_arange(const sp_kargs *args)
{
    const sp_operand *out = &args->arg[0];
    const sp_attr *start = &args->attr[SP_ARANGE_START], *step = &args->attr[SP_ARANGE_STEP];
    bool integers = start->tag != SP_FLOAT64 && step->tag != SP_FLOAT64;
    double first = number(start), by = number(step);
    int64_t size = sp__size_of(out->dtype);
    for (int64_t i = 0; i < out->numel; i++) {
        double value = first + (double)i * by;
        sp_scalar s = SP_FLOAT(value);
        if (integers)
            s = SP_INT((int64_t)((uint64_t)start->v.i + (uint64_t)i * (uint64_t)step->v.i));
        char bytes[sizeof(sp_element)];
        sp__scalar_to(s, out->dtype, bytes);
        memcpy(out->data + i * size, bytes, (size_t)size);
    }
    return SP_OK;
}

/* From both ends to the middle, in double, so that the last number is `end`. attributes: start,
 * end, steps, dtype */
sp_status sp__cpu_linspace(const sp_kargs *args)
{
    const sp_operand *out = &args->arg[0];
    double start = number(&args->attr[SP_LINSPACE_START]),
           end = number(&args->attr[SP_LINSPACE_END]);
    int64_t n = out->numel, size = sp__size_of(out->dtype);
    double step = n > 1 ? (end - start) / (double)(n - 1) : 0;
    for (int64_t i = 0; i < n; i++) {
        bool first_half = i < (n + 1) / 2;
        char bytes[16];
        sp__scalar_to(
            SP_FLOAT(first_half ? start + (double)i * step : end - (double)(n - 1 - i) * step),
            out->dtype, bytes);
        memcpy(out->data + i * size, bytes, (size_t)size);
    }
    return SP_OK;
}

/* Nothing: the values mean nothing. */
sp_status sp__cpu_empty(const sp_kargs *args)
{
    (void)args;
    return SP_OK;
}

static sp_status triangle(const sp_kargs *args, bool upper)
{
    int64_t *rows = (int64_t *)(void *)args->arg[0].data, *columns = rows + args->arg[0].shape[1];
    int64_t n_rows = args->attr[SP_TRIL_INDICES_ROW].v.i,
            n_columns = args->attr[SP_TRIL_INDICES_COL].v.i;
    for (int64_t row = 0; row < n_rows && args->arg[0].numel > 0; row++) {
        int64_t edge = sp__triangle_start(args->attr, upper, row), from = upper ? edge : 0,
                to = upper ? n_columns : edge;
        for (int64_t column = from; column < to; column++) *rows++ = row, *columns++ = column;
    }
    return SP_OK;
}

/* attributes: row, col, offset; the output is dense, as it is for triu */
sp_status sp__cpu_tril_indices(const sp_kargs *args)
{
    return triangle(args, false);
}

sp_status sp__cpu_triu_indices(const sp_kargs *args)
{
    return triangle(args, true);
}
