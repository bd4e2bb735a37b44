/* From operands of any rank to batches of matrices, and to strides that BLAS takes.
 */
#include "backends/cpu/gemm_problem.h"

#include <limits.h>
#include <string.h>

#include "backends/cpu/copy.h"
#include "backends/cpu/strided.h"
#include "tensor/memory.h"

/* Stride of x's batch dimension d, counted in the broadcast batch shape of `rank` dimensions. */
static int64_t batch_stride(const sp_operand *x, int d, int rank)
{
    int own = d - (rank - (x->rank - 2));
    return own < 0 || x->shape[own] == 1 ? 0 : x->stride[own];
}

static int64_t batch_size(const sp_operand *x, int d, int rank)
{
    int own = d - (rank - (x->rank - 2));
    return own < 0 ? 1 : x->shape[own];
}

/* Whether x's batches and rows are one run of evenly spaced rows. */
static bool folds(const sp_operand *x, int64_t *m, int64_t *row)
{
    int columns = x->rank - 1;
    *m = 1, *row = x->stride[columns - 1];
    for (int d = 0; d < columns; d++) *m *= x->shape[d];
    return sp__walked_as_one(x, 0, columns, row);
}

/* A vector on the left is a row, one on the right a column. */
static sp_operand as_matrix(const sp_operand *x, bool left)
{
    sp_operand y = *x;
    if (x->rank != 1) return y;
    y.rank = 2;
    y.shape[0] = left ? 1 : x->shape[0], y.shape[1] = left ? x->shape[0] : 1;
    y.stride[0] = left ? 0 : x->stride[0], y.stride[1] = left ? x->stride[0] : 0;
    return y;
}

void problem_of_matmul(problem *p, const sp_operand *x_in, const sp_operand *y_in)
{
    sp_operand x = as_matrix(x_in, true), y = as_matrix(y_in, false);
    int64_t folded_m, folded_row;
    *p = (problem){.dtype = x.dtype, .size = sp__size_of(x.dtype), .batches = 1};
    if (x.rank > 2 && y.rank == 2 && folds(&x, &folded_m, &folded_row)) {
        x.shape[0] = folded_m, x.stride[0] = folded_row;
        x.shape[1] = x.shape[x.rank - 1], x.stride[1] = x.stride[x.rank - 1], x.rank = 2;
    }
    p->m = x.shape[x.rank - 2], p->k = x.shape[x.rank - 1], p->n = y.shape[y.rank - 1];
    p->a = (matrix){x.data, x.stride[x.rank - 2], x.stride[x.rank - 1], false};
    p->b = (matrix){y.data, y.stride[y.rank - 2], y.stride[y.rank - 1], false};
    if (p->m == 1) p->a.row = p->k > 1 ? p->k * (p->a.column > 0 ? p->a.column : 1) : 1;
    p->n_batch_dims = (x.rank > y.rank ? x.rank : y.rank) - 2;
    for (int d = 0; d < p->n_batch_dims; d++) {
        int64_t sx = batch_size(&x, d, p->n_batch_dims), sy = batch_size(&y, d, p->n_batch_dims);
        p->batch_shape[d] = sx == 1 ? sy : sx;
        p->a_batch[d] = batch_stride(&x, d, p->n_batch_dims),
        p->b_batch[d] = batch_stride(&y, d, p->n_batch_dims);
        p->batches *= p->batch_shape[d];
    }
}

/* ---- output ----- */

void problem_set_dense_output(problem *p, char *c)
{
    int64_t step = p->m * p->n;
    p->c = c, p->c_row = p->n;
    for (int d = p->n_batch_dims - 1; d >= 0; d--) p->c_batch[d] = step, step *= p->batch_shape[d];
}

/* Only dense outputs, and matrices with longer rows (a slice of columns), are written directly. */
bool problem_set_output(problem *p, const sp_operand *out)
{
    if (sp__is_dense(out)) {
        problem_set_dense_output(p, out->data);
        return true;
    }
    if (out->rank != 2 || out->stride[1] != 1 || out->stride[0] < out->shape[1] ||
        out->shape[0] != p->m || p->n == 1) {
        return false;
    }
    p->c = out->data, p->c_row = out->stride[0];
    return true;
}

/* ---- what BLAS takes ----- */

/* Rows dense and not overlapping, seen straight or from the side. A stride of a dimension of size 1
 * may be anything, and is made what BLAS wants. */
static bool fit(matrix *x, int64_t rows, int64_t columns)
{
    if (columns == 1) x->column = 1;
    if (x->column == 1) {
        if (rows == 1 && x->row < columns) x->row = columns;
        x->transposed = false;
        if (x->row >= columns && x->row > 0 && x->row < INT_MAX) return true;
    }
    if (rows == 1) x->row = 1;
    if (x->row == 1) {
        if (columns == 1 && x->column < rows) x->column = rows;
        x->transposed = true;
        return x->column >= rows && x->column > 0 && x->column < INT_MAX;
    }
    return false;
}

static void add_dim(sp_operand *x, int64_t size, int64_t stride)
{
    x->shape[x->rank] = size, x->stride[x->rank++] = stride, x->numel *= size;
}

/* A copy of every distinct batch, with `extra` elements behind each row that is stored; broadcast
 * dimensions stay broadcast. */
static sp_status copy_rows(const problem *p, matrix *x, int64_t rows, int64_t columns,
                           int64_t extra, int64_t *batch, sp_room *copy, const char *op)
{
    bool side = x->transposed;
    int64_t n = side ? columns : rows, length = side ? rows : columns, step = n * (length + extra);
    sp_operand from = {.data = (char *)(uintptr_t)x->data, .dtype = (uint8_t)p->dtype, .numel = 1};
    int64_t strides[SP_MAX_RANK];
    for (int d = p->n_batch_dims - 1; d >= 0; d--) {
        bool real = batch[d] != 0 && p->batch_shape[d] != 1;
        strides[d] = real ? step : 0;
        if (real) step *= p->batch_shape[d];
    }
    copy->bytes = (size_t)(step * p->size), copy->data = sp__alloc(copy->bytes);
    if (copy->data == NULL)
        return sp_fail(SP_EMEMORY, "%s: no memory for %zu bytes of packed operand", op,
                       copy->bytes);
    sp_operand to = from;
    to.data = copy->data;
    for (int d = 0; d < p->n_batch_dims; d++) {
        if (strides[d] == 0) continue;
        add_dim(&to, p->batch_shape[d], strides[d]), add_dim(&from, p->batch_shape[d], batch[d]);
        batch[d] = strides[d];
    }
    add_dim(&to, n, length + extra), add_dim(&from, n, side ? x->column : x->row);
    add_dim(&to, length, 1), add_dim(&from, length, side ? x->row : x->column);
    sp__copy_strided(&to, &from);
    *x = side ? (matrix){copy->data, 1, length + extra, true}
              : (matrix){copy->data, length + extra, 1, false};
    return SP_OK;
}

static sp_status copy_a(problem *p, int64_t extra, const char *op)
{
    return copy_rows(p, &p->a, p->m, p->k, extra, p->a_batch, &p->packed_a, op);
}

static sp_status copy_b(problem *p, int64_t extra, const char *op)
{
    return copy_rows(p, &p->b, p->k, p->n, extra, p->b_batch, &p->packed_b, op);
}

/* Matrix-vector products must be dense: how OpenBLAS sums depends on a vector's steps, and with few
 * rows on how far apart they are. */
static bool fit_vector(int64_t *step, int64_t n)
{
    if (n == 1) *step = 1;
    return *step == 1;
}

static bool fit_dense(matrix *x, int64_t rows, int64_t columns)
{
    return fit(x, rows, columns) && (x->transposed ? x->column == rows : x->row == columns);
}

sp_status problem_pack(problem *p, const char *op)
{
    if (p->k == 0) return SP_OK;
    bool dot = p->way == BY_DOT, row = p->way == BY_ROW, column = p->way == BY_COLUMN;
    bool a_fits = dot || row ? fit_vector(&p->a.column, p->k)
                  : column   ? fit_dense(&p->a, p->m, p->k)
                             : fit(&p->a, p->m, p->k);
    bool b_fits = dot || column ? fit_vector(&p->b.row, p->k)
                  : row         ? fit_dense(&p->b, p->k, p->n)
                                : fit(&p->b, p->k, p->n);
    sp_blas_spread spread = {false, false};
    if (a_fits && b_fits && p->way == BY_GEMM)
        spread = sp__blas_spread(p->dtype, p->m, p->n, p->k, as_blas(&p->a, p->a.data),
                                 as_blas(&p->b, p->b.data));
    if (!a_fits) p->a.transposed = false;
    if (!b_fits) p->b.transposed = false;
    if (!a_fits || spread.a) SP_RETURN_IF(copy_a(p, spread.a ? SP_BLAS_SPREAD : 0, op));
    if (!b_fits || spread.b) SP_RETURN_IF(copy_b(p, spread.b ? SP_BLAS_SPREAD : 0, op));
    return SP_OK;
}

void problem_unpack(problem *p)
{
    sp__free(p->packed_a.data, p->packed_a.bytes), sp__free(p->packed_b.data, p->packed_b.bytes);
    p->packed_a = p->packed_b = (sp_room){NULL, 0};
}

void problem_batch(const problem *p, int64_t batch, matrix *a, matrix *b, char **c)
{
    int64_t at_a = 0, at_b = 0, at_c = 0;
    for (int d = p->n_batch_dims - 1; d >= 0; d--) {
        int64_t i = batch % p->batch_shape[d];
        batch /= p->batch_shape[d];
        at_a += i * p->a_batch[d], at_b += i * p->b_batch[d], at_c += i * p->c_batch[d];
    }
    *a = p->a, *b = p->b;
    a->data += at_a * p->size, b->data += at_b * p->size, *c = p->c + at_c * p->size;
}
