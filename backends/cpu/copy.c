/* Strided copies, and the ops that are copies with a part replaced.
 *
 *      runs      gathered or scattered in row-major order
 *      blocks    another dimension is denser in the source (a transposed matrix): 32 x 32 at a
 *                time, so that lines read and lines written all stay in the first-level cache
 *      slivers   the innermost dimension is short: one of its positions after the other, each for
 *                many places of the dimension outside it
 */
#include "backends/cpu/copy.h"

#include <stdlib.h>
#include <string.h>

#include "backends/cpu/kernels.h"
#include "backends/cpu/pool.h"
#include "backends/cpu/strided.h"
#include "backends/cpu/tile.h"
#include "ops/op.h"

enum { BLOCK = 32, CHUNK = 16384, PIECE = 1024, SHORT = 16, SLIVERS = 4096 /* elements */ };

typedef struct copy_job {
    sp_operand to, from; /* coalesced alike */
    int64_t size, outer; /* bytes an element; combinations of the outer dimensions */
    int row, column;     /* dimensions of the blocks; column is walked innermost. runs: row is -1 */
    int64_t pieces;      /* of each outer combination */
    int64_t length, together; /* slivers: columns of a piece; outer combinations a chunk */
} copy_job;

/* Offsets of one combination of all dimensions but the job's own. */
static void outer_offsets(const copy_job *j, int64_t index, int64_t *to, int64_t *from)
{
    *to = *from = 0;
    for (int d = j->to.rank - 1; d >= 0; d--) {
        if (d == j->row || d == j->column) continue;
        int64_t i = index % j->to.shape[d];
        index /= j->to.shape[d], *to += i * j->to.stride[d], *from += i * j->from.stride[d];
    }
}

#define BLOCK_LOOP(bytes)                                                                          \
    for (int64_t r = 0; r < rows; r++) {                                                           \
        for (int64_t c = 0; c < columns; c++) {                                                    \
            memcpy(to + (r * to_row + c * to_column) * (bytes),                                    \
                   from + (r * from_row + c * from_column) * (bytes), bytes);                      \
        }                                                                                          \
    }

static void copy_block(const copy_job *j, char *to, const char *from, int64_t rows, int64_t columns)
{
    int64_t to_row = j->to.stride[j->row], to_column = j->to.stride[j->column];
    int64_t from_row = j->from.stride[j->row], from_column = j->from.stride[j->column];
    if (j->size == 4)
        BLOCK_LOOP(4)
    else if (j->size == 8)
        BLOCK_LOOP(8)
    else if (j->size == 2)
        BLOCK_LOOP(2)
    else if (j->size == 16)
        BLOCK_LOOP(16)
    else
        BLOCK_LOOP(1)
}

static void copy_band(const copy_job *j, char *to, const char *from, int64_t row, int64_t rows)
{
    int64_t columns = j->to.shape[j->column];
    to += row * j->to.stride[j->row] * j->size, from += row * j->from.stride[j->row] * j->size;
    for (int64_t c = 0; c < columns; c += BLOCK) {
        copy_block(j, to + c * j->to.stride[j->column] * j->size,
                   from + c * j->from.stride[j->column] * j->size, rows,
                   columns - c < BLOCK ? columns - c : BLOCK);
    }
}

/* ---- rows ----- */

/* A chunk of consecutive elements, one side dense over all of them or not. */
static void copy_run(void *ctx, int64_t chunk)
{
    const copy_job *j = ctx;
    int64_t start = chunk * CHUNK, n = j->to.numel - start < CHUNK ? j->to.numel - start : CHUNK;
    if (j->to.contiguous) {
        sp__gather(j->to.data + start * j->size, &j->from, start, n);
    } else if (j->from.contiguous) {
        sp__scatter(&j->to, j->from.data + start * j->size, start, n);
    } else {
        sp_element room[PIECE];
        for (int64_t i = 0; i < n; i += PIECE) {
            int64_t length = n - i < PIECE ? n - i : PIECE;
            sp__gather(room, &j->from, start + i, length);
            sp__scatter(&j->to, room, start + i, length);
        }
    }
}

static void copy_blocks(void *ctx, int64_t chunk)
{
    const copy_job *j = ctx;
    int64_t to, from, piece = chunk % j->pieces, rows = j->to.shape[j->row] - piece * BLOCK;
    outer_offsets(j, chunk / j->pieces, &to, &from);
    copy_band(j, j->to.data + to * j->size, j->from.data + from * j->size, piece * BLOCK,
              rows < BLOCK ? rows : BLOCK);
}

static void copy_sliver(const copy_job *j, int64_t outer, int64_t start)
{
    int64_t to, from, columns = j->to.shape[j->column] - start;
    outer_offsets(j, outer, &to, &from);
    to += start * j->to.stride[j->column], from += start * j->from.stride[j->column];
    copy_block(j, j->to.data + to * j->size, j->from.data + from * j->size, j->to.shape[j->row],
               columns < j->length ? columns : j->length);
}

static void copy_slivers(void *ctx, int64_t chunk)
{
    const copy_job *j = ctx;
    int64_t i = chunk / j->pieces * j->together,
            end = i + j->together < j->outer ? i + j->together : j->outer;
    for (; i < end; i++) copy_sliver(j, i, chunk % j->pieces * j->length);
}

/* ---- which of them ----- */

/* The dimension of the source's smallest stride, if it is not the innermost of the target: -1
 * otherwise. */
static int block_dim(const sp_operand *to, const sp_operand *from)
{
    int last = to->rank - 1, best = last;
    for (int d = 0; d < last; d++) {
        if (from->stride[d] != 0 && llabs(from->stride[d]) < llabs(from->stride[best])) best = d;
    }
    return best == last ? -1 : best;
}

/* Rows so short that each costs more than its elements, and many of them. */
static bool has_slivers(const sp_operand *to)
{
    int last = to->rank - 1;
    return last > 0 && to->shape[last] < SHORT && to->shape[last - 1] > to->shape[last];
}

static void run_slivers(copy_job *j, double us)
{
    j->row = j->to.rank - 1, j->column = j->row - 1;
    int64_t width = j->to.shape[j->row], columns = j->to.shape[j->column];
    j->length = SLIVERS / width;
    j->pieces = (columns + j->length - 1) / j->length;
    j->together = CHUNK / (width * columns) + 1;
    for (int d = 0; d < j->column; d++) j->outer *= j->to.shape[d];
    sp__pool_for((j->outer + j->together - 1) / j->together * j->pieces, us, copy_slivers, j);
}

static void run_blocks(copy_job *j, double us)
{
    j->pieces = (j->to.shape[j->row] + BLOCK - 1) / BLOCK;
    for (int d = 0; d < j->to.rank; d++)
        j->outer *= d == j->row || d == j->column ? 1 : j->to.shape[d];
    sp__pool_for(j->outer * j->pieces, us, copy_blocks, j);
}

void sp__copy_strided(const sp_operand *to, const sp_operand *from)
{
    sp_operand pair[2] = {*to, *from};
    sp_kargs both = {.n_out = 1, .n_arg = 2, .arg = pair};
    int64_t size = sp__size_of(to->dtype);
    if (to->numel == 0) return;
    sp__kargs_coalesce(&both);
    if (pair[0].rank == 0) {
        memcpy(to->data, from->data, (size_t)size);
        return;
    }
    copy_job j = {.to = pair[0], .from = pair[1], .size = size, .outer = 1};
    double us = (double)(to->numel * size) * 0.1e-3;
    j.column = j.to.rank - 1, j.row = block_dim(&j.to, &j.from);
    if (has_slivers(&j.to))
        run_slivers(&j, 2.5 * us);
    else if (j.row >= 0)
        run_blocks(&j, 2.5 * us);
    else
        sp__pool_for((to->numel + CHUNK - 1) / CHUNK, us, copy_run, &j);
}

/* ---- ops ----- */

/* The output is dense; its elements are the input's in row-major order. */
sp_status sp__cpu_contiguous(const sp_kargs *args)
{
    sp_operand to = args->arg[0];
    const sp_operand *from = &args->arg[1];
    if (to.numel == 0) return SP_OK;
    if (!sp__is_dense(&to)) return sp_fail(SP_EINTERNAL, "contiguous: the output is not dense");
    to.rank = from->rank;
    int64_t step = 1;
    for (int d = to.rank - 1; d >= 0; d--)
        to.shape[d] = from->shape[d], to.stride[d] = step, step *= from->shape[d];
    sp__copy_strided(&to, from);
    return SP_OK;
}

sp_status sp__cpu_reshape(const sp_kargs *args)
{
    return sp__cpu_contiguous(args);
}

/* In place, the output is the input already. */
void sp__copy_unless_same(const sp_operand *to, const sp_operand *from)
{
    if (to->data != from->data) sp__copy_strided(to, from);
}

static int64_t clamp(int64_t x, int64_t low, int64_t high)
{
    return x < low ? low : x > high ? high : x;
}

static int dim_of(const sp_attr *a, int rank)
{
    return (int)(a->v.i < 0 ? a->v.i + rank : a->v.i);
}

/* The part of out that the attributes name, in src's shape. */
static sp_status write_part(const sp_kargs *args, const sp_operand *part)
{
    sp__copy_unless_same(&args->arg[0], &args->arg[1]);
    sp__copy_strided(part, &args->arg[2]);
    return SP_OK;
}

/* attributes: dim, start, end, step */
sp_status sp__cpu_slice_scatter(const sp_kargs *args)
{
    sp_operand part = args->arg[0];
    int dim = dim_of(&args->attr[0], part.rank);
    int64_t size = part.shape[dim], start = args->attr[1].v.i;
    start = clamp(start < 0 ? start + size : start, 0, size);
    part.data += start * part.stride[dim] * sp__size_of(part.dtype);
    part.shape[dim] = args->arg[2].shape[dim];
    if (part.shape[dim] > 1) part.stride[dim] *= args->attr[3].v.i;
    part.numel = args->arg[2].numel;
    return write_part(args, &part);
}

/* attributes: dim, index */
sp_status sp__cpu_select_scatter(const sp_kargs *args)
{
    sp_operand part = args->arg[0];
    int dim = dim_of(&args->attr[0], part.rank);
    int64_t index = args->attr[1].v.i;
    if (index < 0) index += part.shape[dim];
    part.data += index * part.stride[dim] * sp__size_of(part.dtype);
    part.rank--;
    for (int d = dim; d < part.rank; d++)
        part.shape[d] = part.shape[d + 1], part.stride[d] = part.stride[d + 1];
    part.numel = args->arg[2].numel;
    return write_part(args, &part);
}

/* attributes: size, stride, storage_offset (from the first element) */
sp_status sp__cpu_as_strided_scatter(const sp_kargs *args)
{
    sp_operand part = args->arg[0];
    const sp_attr *size = &args->attr[0], *stride = &args->attr[1], *offset = &args->attr[2];
    part.rank = (uint8_t)size->n;
    for (int d = 0; d < size->n; d++)
        part.shape[d] = size->v.ints[d], part.stride[d] = stride->v.ints[d];
    part.data += (offset->absent ? 0 : offset->v.i) * sp__size_of(part.dtype);
    part.numel = args->arg[2].numel;
    return write_part(args, &part);
}
