/* Copies with elements in another order, or with some of them replaced. */
#include <string.h>

#include "backends/cpu/copy.h"
#include "backends/cpu/kernels.h"
#include "backends/cpu/pool.h"
#include "backends/cpu/strided.h"
#include "ops/op.h"

static int dim_of(const sp_attr *a, int rank)
{
    return (int)(a->v.i < 0 ? a->v.i + rank : a->v.i);
}

/* attributes: dims. The input is walked from its other end. */
sp_status sp__cpu_flip(const sp_kargs *args)
{
    sp_operand from = args->arg[1];
    const sp_attr *dims = &args->attr[0];
    for (int i = 0; i < dims->n && from.rank > 0 && from.numel > 0; i++) {
        int64_t d = dims->v.ints[i] < 0 ? dims->v.ints[i] + from.rank : dims->v.ints[i];
        from.data += (from.shape[d] - 1) * from.stride[d] * sp__size_of(from.dtype);
        from.stride[d] = -from.stride[d];
    }
    from.contiguous = sp__is_dense(&from);
    sp__copy_strided(&args->arg[0], &from);
    return SP_OK;
}

/* attributes: offset, dim1, dim2; inputs: x, src */
sp_status sp__cpu_diagonal_scatter(const sp_kargs *args)
{
    const sp_operand *out = &args->arg[0], *src = &args->arg[2];
    sp_operand part = *out;
    int a = dim_of(&args->attr[1], out->rank), b = dim_of(&args->attr[2], out->rank), rank = 0;
    int64_t offset = args->attr[0].v.i;
    sp__copy_unless_same(out, &args->arg[1]);
    if (src->numel == 0) return SP_OK;
    part.data += (offset >= 0 ? offset * out->stride[b] : -offset * out->stride[a]) *
                 sp__size_of(out->dtype);
    for (int d = 0; d < out->rank; d++)
        if (d != a && d != b)
            part.shape[rank] = out->shape[d], part.stride[rank++] = out->stride[d];
    part.shape[rank] = src->shape[rank], part.stride[rank] = out->stride[a] + out->stride[b];
    part.rank = (uint8_t)(rank + 1), part.numel = src->numel;
    part.contiguous = sp__is_dense(&part);
    sp__copy_strided(&part, src);
    return SP_OK;
}

/* ---- triangles ----- */

typedef struct triangle_job {
    const sp_operand *out, *x;
    int64_t size, diagonal;
    int64_t rows; /* a chunk */
    bool lower;
} triangle_job;

/* n elements of `size` bytes, zero where from is NULL. */
static void put_run(char *to, int64_t to_step, const char *from, int64_t from_step, int64_t size,
                    int64_t n)
{
    if (n <= 0) return;
    if (to_step == 1 && !from) {
        memset(to, 0, (size_t)(n * size));
    } else if (to_step == 1) {
        sp__gather_run(to, from, size, n, from_step);
    } else {
        for (int64_t i = 0; i < n; i++, to += to_step * size) {
            if (from)
                memcpy(to, from + i * from_step * size, (size_t)size);
            else
                memset(to, 0, (size_t)size);
        }
    }
}

static void triangle_row(const triangle_job *j, int64_t row)
{
    const sp_operand *out = j->out, *x = j->x;
    int last = out->rank - 1;
    int64_t columns = out->shape[last], r = row % out->shape[last - 1], left = row;
    int64_t at_out = 0, at_x = 0;
    for (int d = last - 1; d >= 0; d--) {
        int64_t i = left % out->shape[d];
        left /= out->shape[d], at_out += i * out->stride[d], at_x += i * x->stride[d];
    }
    int64_t cut = r + j->diagonal + (j->lower ? 1 : 0); /* columns before it are the lower part */
    cut = cut < 0 ? 0 : cut > columns ? columns : cut;
    char *to = out->data + at_out * j->size;
    const char *from = x->data + at_x * j->size;
    int64_t to_step = out->stride[last], from_step = x->stride[last], rest = cut * j->size;
    bool same = to == from; /* in place: what stays is there */
    if (!(same && j->lower)) put_run(to, to_step, j->lower ? from : NULL, from_step, j->size, cut);
    if (!(same && !j->lower))
        put_run(to + rest * to_step, to_step, j->lower ? NULL : from + rest * from_step, from_step,
                j->size, columns - cut);
}

static void triangle_chunk(void *ctx, int64_t chunk)
{
    const triangle_job *j = ctx;
    int64_t row = chunk * j->rows, end = row + j->rows,
            all = j->out->numel / j->out->shape[j->out->rank - 1];
    for (; row < end && row < all; row++) triangle_row(j, row);
}

/* attributes: diagonal */
static sp_status triangle(const sp_kargs *args, bool lower)
{
    const sp_operand *out = &args->arg[0];
    if (out->numel == 0) return SP_OK;
    int64_t columns = out->shape[out->rank - 1], all = out->numel / columns;
    int64_t diagonal = args->attr[0].v.i, far = out->numel; /* so that no sum overflows */
    triangle_job j = {.out = out, .x = &args->arg[1], .lower = lower};
    j.size = sp__size_of(out->dtype);
    j.diagonal = diagonal > far ? far : diagonal < -far ? -far : diagonal;
    j.rows = columns < 4096 ? 4096 / columns : 1;
    sp__pool_for((all + j.rows - 1) / j.rows, (double)(out->numel * j.size) * 0.1e-3,
                 triangle_chunk, &j);
    return SP_OK;
}

sp_status sp__cpu_tril(const sp_kargs *args)
{
    return triangle(args, true);
}

sp_status sp__cpu_triu(const sp_kargs *args)
{
    return triangle(args, false);
}
