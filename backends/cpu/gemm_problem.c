/* From operands of any rank to batches of matrices, and to strides that BLAS takes.
 */
#include "backends/cpu/gemm_problem.h"

#include <limits.h>
#include <string.h>

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
    int last = x->rank - 2;
    int64_t step = x->stride[last], size = x->shape[last];
    for (int d = last - 1; d >= 0; d--) {
        if (x->shape[d] == 1) continue;
        if (size == 1)
            step = x->stride[d];
        else if (x->stride[d] != step * size)
            return false;
        size *= x->shape[d];
    }
    *m = size, *row = step;
    return true;
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

/* A dense copy of every distinct batch; broadcast dimensions stay broadcast. */
static sp_status pack(const problem *p, matrix *x, int64_t rows, int64_t columns, int64_t *batch,
                      char **copy, size_t *bytes, const char *op)
{
    sp_operand from = {.data = (char *)(uintptr_t)x->data, .dtype = (uint8_t)p->dtype};
    int64_t strides[SP_MAX_RANK], step = rows * columns;
    for (int d = 0; d < p->n_batch_dims; d++) {
        bool real = batch[d] != 0 && p->batch_shape[d] != 1;
        if (real) from.shape[from.rank] = p->batch_shape[d], from.stride[from.rank++] = batch[d];
    }
    for (int d = p->n_batch_dims - 1; d >= 0; d--) {
        bool real = batch[d] != 0 && p->batch_shape[d] != 1;
        strides[d] = real ? step : 0;
        if (real) step *= p->batch_shape[d];
    }
    from.shape[from.rank] = rows, from.stride[from.rank++] = x->row;
    from.shape[from.rank] = columns, from.stride[from.rank++] = x->column;
    *bytes = (size_t)(step * p->size);
    *copy = sp__alloc(*bytes);
    if (*copy == NULL)
        return sp_fail(SP_EMEMORY, "%s: no memory for %zu bytes of packed operand", op, *bytes);
    sp__gather(*copy, &from, 0, step);
    memcpy(batch, strides, sizeof(int64_t) * (size_t)p->n_batch_dims);
    *x = (matrix){*copy, columns, 1, false};
    return SP_OK;
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
    if (!a_fits)
        SP_RETURN_IF(pack(p, &p->a, p->m, p->k, p->a_batch, &p->packed_a, &p->packed_a_bytes, op));
    if (!b_fits)
        SP_RETURN_IF(pack(p, &p->b, p->k, p->n, p->b_batch, &p->packed_b, &p->packed_b_bytes, op));
    return SP_OK;
}

void problem_unpack(problem *p)
{
    if (p->packed_a) sp__free(p->packed_a, p->packed_a_bytes);
    if (p->packed_b) sp__free(p->packed_b, p->packed_b_bytes);
    p->packed_a = p->packed_b = NULL;
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
