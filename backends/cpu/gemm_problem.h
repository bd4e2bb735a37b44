/* A product as the kernels see it: batches of one (m, n, k) over strided matrices.
 */
#ifndef SP_CPU_GEMM_PROBLEM_H
#define SP_CPU_GEMM_PROBLEM_H

#include "backends/cpu/blas.h"
#include "tensor/backend.h"

typedef struct matrix { /* element (i, j) at data[i * row + j * column]; `transposed` once it is fit
                           for BLAS: row is 1 */
    const char *data;
    int64_t row, column;
    bool transposed;
} matrix;

static inline sp_blas_matrix as_blas(const matrix *x, const char *at)
{
    return (sp_blas_matrix){at, (int)(x->transposed ? x->column : x->row), x->transposed};
}

typedef struct sp_room {
    char *data;
    size_t bytes;
} sp_room;

typedef enum gemm_way { BY_NAIVE, BY_SMALL, BY_DOT, BY_ROW, BY_COLUMN, BY_GEMM } gemm_way;

typedef struct problem {
    int dtype;
    int64_t size; /* bytes an element */
    int64_t m, n, k;
    matrix a, b; /* of the first batch */
    char *c;
    int64_t c_row;    /* elements from row to row; columns are neighbours */
    const char *bias; /* n elements, or NULL */
    int n_batch_dims;
    int64_t batches;
    int64_t batch_shape[SP_MAX_RANK], a_batch[SP_MAX_RANK], b_batch[SP_MAX_RANK],
        c_batch[SP_MAX_RANK];
    gemm_way way;
    int64_t rows, columns;      /* of panels; of a dot product, 1 and its parts */
    sp_element *part;           /* BY_DOT: sums of all batches' parts */
    bool conjugate;             /* likewise: with the conjugates of a's elements */
    _Atomic bool failed;        /* in some panel, for want of memory */
    sp_room packed_a, packed_b; /* owned copies, or NULL */
} problem;

/* x @ y for operands of rank 1 or more; leading dimensions are batches, broadcast. When y is one
 * matrix and x's rows follow each other evenly, x's batches are rows of one product. */
void problem_of_matmul(problem *p, const sp_operand *x, const sp_operand *y);

/* Computes into `out`; false when its rows are not dense: then into a dense block instead. */
bool problem_set_output(problem *p, const sp_operand *out);
void problem_set_dense_output(problem *p, char *c);

/* Copies operands that BLAS cannot take, or takes faster from longer rows; sets `transposed`.
 * Undone by problem_unpack(), also after failure. */
SP_MUST_USE sp_status problem_pack(problem *p, const char *op);
void problem_unpack(problem *p);

/* The matrices of one batch. */
void problem_batch(const problem *p, int64_t batch, matrix *a, matrix *b, char **c);

#endif
