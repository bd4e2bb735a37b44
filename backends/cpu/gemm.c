/* matmul and linear on BLAS, panel by panel.
 *
 *      x [..., m, k]  y [..., k, n]
 *        -> problem: batches of c[m][n] = a[m][k] b[k][n], any strides
 *        -> operands that BLAS cannot take are packed
 *        -> tiny kernel | dot product by parts | matrix-vector call | grid of panels, on the pool
 */
#include "backends/cpu/gemm.h"

#include <limits.h>
#include <stdatomic.h>
#include <string.h>

#include "backends/cpu/blas.h"
#include "backends/cpu/gemm_problem.h"
#include "backends/cpu/gemm_sizes.h"
#include "backends/cpu/lanes.h"
#include "backends/cpu/pool.h"
#include "backends/cpu/rows.h"
#include "backends/cpu/strided.h"
#include "ops/op.h"
#include "ops_gen.h"
#include "tensor/memory.h"

double sp__gemm_predict_us(int dtype, double mnk)
{
    double flops_a_us = dtype == SP_FLOAT32 ? 70e3 : dtype == SP_FLOAT64 ? 35e3 : 1e3;
    if (sp__dtype_is_complex(dtype)) flops_a_us = dtype == SP_COMPLEX64 ? 17e3 : 8e3;
    return 0.15 + 2 * mnk / flops_a_us;
}

/* ---- the grid ----- */

/* Panels double as work grows fourfold: enough to share out, few enough that each packs little
 * twice. Columns are cut first: in row-major order BLAS repacks less for them. */
void sp__gemm_grid(int64_t m, int64_t n, int64_t k, int64_t *rows, int64_t *columns)
{
    double work = 2.0 * (double)m * (double)n * (double)k;
    int64_t wanted = work < 3e6 ? 1 : 2;
    for (double limit = 64e6; work >= limit && wanted < 256; limit *= 4) wanted *= 2;
    *rows = *columns = 1;
    while (*rows * *columns < wanted) {
        int64_t width = n / *columns, height = m / *rows;
        if (width < 64 && height < 64) return;
        if (width >= height / 2 && width >= 64)
            *columns *= 2;
        else
            *rows *= 2;
    }
}

/* Where part i of `parts` begins: multiples of 16, so that the vector kernels see few odd ends. */
static int64_t cut(int64_t size, int64_t parts, int64_t i)
{
    if (i == parts) return size;
    return size * i / parts / 16 * 16;
}

/* ---- one panel ----- */

static const char *element(const matrix *x, int64_t row, int64_t column, int64_t size)
{
    return x->data + (row * x->row + column * x->column) * size;
}

/* bias[n] onto rows of c, through add's own vector function. */
static void add_bias(const problem *p, char *c, int64_t rows, int64_t first, int64_t n)
{
    sp_lane_fn add = sp__lanes_of(SP_OP_ADD, p->dtype)->fn[p->dtype];
    const char *bias = p->bias + first * p->size;
    for (int64_t i = 0; i < rows; i++, c += p->c_row * p->size) add(c, c, bias, NULL, n, 0);
}

static void panel(problem *p, const matrix *a, const matrix *b, char *c, int64_t row, int64_t rows,
                  int64_t first, int64_t n)
{
    c += (row * p->c_row + first) * p->size;
    const char *a_at = element(a, row, 0, p->size), *b_at = element(b, 0, first, p->size);
    if (rows <= 0 || n <= 0) return;
    if (p->way == BY_ROW) { /* c^T = b^T a^T: b seen from the side */
        matrix side = {b->data, b->column, b->row, !b->transposed};
        sp__blas_gemv(p->dtype, (int)n, (int)p->k, as_blas(&side, b_at), a_at, (int)a->column, c,
                      1);
    } else if (p->way == BY_COLUMN) {
        sp__blas_gemv(p->dtype, (int)rows, (int)p->k, as_blas(a, a_at), b_at, (int)b->row, c,
                      (int)p->c_row);
    } else if (!sp__blas_gemm(p->dtype, (int)rows, (int)n, (int)p->k, as_blas(a, a_at),
                              as_blas(b, b_at), c, (int)p->c_row)) {
        atomic_store(&p->failed, true);
    }
    if (p->bias) add_bias(p, c, rows, first, n);
}

/* ---- integers: plain loops, which wrap; bool: and, or ----- */

static void naive_int64(const problem *p, const matrix *a, const matrix *b, char *c)
{
    for (int64_t i = 0; i < p->m; i++) {
        uint64_t *row = (uint64_t *)(c + i * p->c_row * p->size);
        memset(row, 0, (size_t)(p->n * p->size));
        for (int64_t q = 0; q < p->k; q++) {
            uint64_t x, y;
            memcpy(&x, element(a, i, q, 8), 8);
            for (int64_t j = 0; j < p->n; j++) memcpy(&y, element(b, q, j, 8), 8), row[j] += x * y;
        }
        for (int64_t j = 0; p->bias && j < p->n; j++) row[j] += ((const uint64_t *)p->bias)[j];
    }
}

static void naive_bool(const problem *p, const matrix *a, const matrix *b, char *c)
{
    for (int64_t i = 0; i < p->m; i++) {
        for (int64_t j = 0; j < p->n; j++) {
            bool any = p->bias && p->bias[j];
            for (int64_t q = 0; q < p->k && !any; q++)
                any = *element(a, i, q, 1) && *element(b, q, j, 1);
            c[i * p->c_row + j] = any;
        }
    }
}

/* ---- dot products: parts of a fixed length, joined in order ----- */

enum { DOT_PART = 1 << 15 };

static sp_element dot_part(const problem *p, const matrix *a, const matrix *b, int64_t part)
{
    sp_element sum = {.part = {0}};
    int64_t from = part * DOT_PART, n = p->k - from < DOT_PART ? p->k - from : DOT_PART;
    const char *x = a->data + from * p->size, *y = b->data + from * p->size;
    if (sp__dtype_is_complex(p->dtype)) {
        sp__isa->dot[p->dtype](x, y, n, p->conjugate, &sum);
    } else {
        double sums[2];
        sp__isa->rows[p->dtype]->sums(x, y, n, 0, sums);
        sum.part[0] = sums[1];
    }
    return sum;
}

static void put_dots(const problem *p)
{
    const sp_element *part = p->part;
    int wide = sp__dtype_is_complex(p->dtype) ? SP_COMPLEX128 : SP_FLOAT64;
    for (int64_t batch = 0; batch < p->batches; batch++, part += p->columns) {
        matrix a, b;
        char *c;
        sp_element sum = part[0];
        problem_batch(p, batch, &a, &b, &c);
        for (int64_t i = 1; i < p->columns; i++)
            sum.part[0] += part[i].part[0], sum.part[1] += part[i].part[1];
        sp__isa->cast[wide][p->dtype](c, &sum, NULL, NULL, 1, 0);
        if (p->bias) add_bias(p, c, 1, 0, 1);
    }
}

/* ---- all panels of all batches ----- */

static void small(const problem *p, const matrix *a, const matrix *b, char *c)
{
    sp__isa->gemm_small[p->dtype](p->m, p->n, p->k, a->data, a->row, a->column, b->data, b->row,
                                  b->column, c);
    if (p->bias) add_bias(p, c, p->m, 0, p->n);
}

static void zero(const problem *p, char *c)
{
    for (int64_t i = 0; i < p->m; i++)
        memset(c + i * p->c_row * p->size, 0, (size_t)(p->n * p->size));
    if (p->bias) add_bias(p, c, p->m, 0, p->n);
}

static void run_chunk(void *ctx, int64_t chunk)
{
    problem *p = ctx;
    int64_t panels = p->rows * p->columns, r = chunk % panels / p->columns,
            column = chunk % p->columns;
    matrix a, b;
    char *c;
    problem_batch(p, chunk / panels, &a, &b, &c);
    if (p->way == BY_NAIVE) {
        if (p->dtype == SP_BOOL)
            naive_bool(p, &a, &b, c);
        else
            naive_int64(p, &a, &b, c);
    } else if (p->k == 0) {
        zero(p, c);
    } else if (p->way == BY_SMALL) {
        small(p, &a, &b, c);
    } else if (p->way == BY_DOT) {
        p->part[chunk] = dot_part(p, &a, &b, column);
    } else {
        int64_t row = cut(p->m, p->rows, r), first = cut(p->n, p->columns, column);
        panel(p, &a, &b, c, row, cut(p->m, p->rows, r + 1) - row, first,
              cut(p->n, p->columns, column + 1) - first);
    }
}

static bool is_small(const problem *p)
{
    return sp__gemm_is_small(p->m, p->n, p->k, p->b.row, p->b.column);
}

static void choose_way(problem *p)
{
    p->rows = p->columns = 1;
    if (p->dtype == SP_BOOL || p->dtype == SP_INT64) {
        p->way = BY_NAIVE;
    } else if (sp__isa->gemm_small[p->dtype] != NULL && is_small(p)) {
        p->way = BY_SMALL;
    } else if (p->m == 1 && p->n == 1 && p->k > 0) {
        p->way = BY_DOT, p->columns = (p->k + DOT_PART - 1) / DOT_PART;
    } else if (sp__dtype_is_complex(p->dtype)) {
        p->way = BY_GEMM; /* vectors, too: of all shapes one library function */
        sp__gemm_grid(p->m, p->n, p->k, &p->rows, &p->columns);
    } else {
        p->way = p->m == 1 ? BY_ROW : p->n == 1 ? BY_COLUMN : BY_GEMM;
        sp__gemm_grid(p->m, p->n, p->k, &p->rows, &p->columns);
    }
}

static sp_status run(problem *p, const char *op)
{
    int64_t largest = p->m > p->n ? p->m : p->n;
    if (p->k > largest) largest = p->k;
    if (largest >= INT_MAX || p->c_row >= INT_MAX) {
        return sp_fail(SP_EUNSUPPORTED,
                       "%s: sizes up to %d are supported, got %lld: split the product", op,
                       INT_MAX - 1, (long long)largest);
    }
    choose_way(p);
    sp_status status = SP_OK;
    int64_t chunks = p->batches * p->rows * p->columns;
    sp_element room[8];
    p->part = room;
    if (p->way != BY_NAIVE && p->way != BY_SMALL) SP_TRY(problem_pack(p, op));
    if (p->way == BY_DOT && chunks > 8) p->part = sp__alloc((size_t)chunks * sizeof(sp_element));
    if (p->part == NULL) SP_TRY(sp_fail(SP_EMEMORY, "%s: no memory for partial sums", op));
    double us = sp__gemm_predict_us(p->dtype, (double)p->m * (double)p->n * (double)p->k) *
                (double)p->batches;
    if (p->way == BY_DOT) us = (double)(p->batches * p->k * p->size) * 0.05e-3;
    (p->way == BY_GEMM ? sp__blas_for : sp__pool_for)(chunks, us, run_chunk, p);
    if (p->way == BY_DOT) put_dots(p);
    if (p->failed) status = sp_fail(SP_EMEMORY, "%s: no memory for BLAS to work in", op);
out:
    if (p->part != NULL && p->part != room) sp__free(p->part, (size_t)chunks * sizeof(sp_element));
    problem_unpack(p);
    return status;
}

/* An output that is no matrix of dense rows is computed aside and copied. */
static sp_status run_aside(problem *p, const sp_operand *out, const char *op)
{
    size_t bytes = (size_t)(out->numel * p->size);
    char *aside = sp__alloc(bytes);
    if (aside == NULL) return sp_fail(SP_EMEMORY, "%s: no memory for %zu bytes", op, bytes);
    problem_set_dense_output(p, aside);
    sp_status status = run(p, op);
    if (status == SP_OK) sp__scatter(out, aside, 0, out->numel);
    sp__free(aside, bytes);
    return status;
}

static sp_status run_into(problem *p, const sp_operand *out, const char *op)
{
    if (out->numel == 0) return SP_OK;
    bool direct = problem_set_output(p, out) && (p->c_row == p->n || !is_small(p));
    return direct ? run(p, op) : run_aside(p, out, op);
}

/* Two small matrices: what choose_way() would choose, without the generality. */
static bool run_tiny(const sp_operand *out, const sp_operand *x, const sp_operand *y)
{
    if (x->rank != 2 || y->rank != 2 || !out->contiguous || out->numel == 0 || x->shape[1] == 0)
        return false;
    sp_gemm_small_fn small_fn = sp__isa->gemm_small[x->dtype];
    int64_t m = x->shape[0], k = x->shape[1], n = y->shape[1];
    if (small_fn == NULL || !sp__gemm_is_small(m, n, k, y->stride[0], y->stride[1])) return false;
    small_fn(m, n, k, x->data, x->stride[0], x->stride[1], y->data, y->stride[0], y->stride[1],
             out->data);
    return true;
}

sp_status sp__cpu_matmul(const sp_kargs *args)
{
    problem p;
    if (run_tiny(&args->arg[0], &args->arg[1], &args->arg[2])) return SP_OK;
    problem_of_matmul(&p, &args->arg[1], &args->arg[2]);
    return run_into(&p, &args->arg[0], "matmul");
}

/* Of complex vectors: always BY_DOT. */
sp_status sp__cpu_conj_dot(const sp_kargs *args)
{
    problem p;
    problem_of_matmul(&p, &args->arg[1], &args->arg[2]);
    p.conjugate = true;
    return run_into(&p, &args->arg[0], "conj_dot");
}

sp_status sp__cpu_linear(const sp_kargs *args)
{
    problem p;
    sp_operand w = args->arg[2];
    const sp_operand *b = args->n_arg > 3 && args->arg[3].data != NULL ? &args->arg[3] : NULL;
    int64_t shape = w.shape[0], stride = w.stride[0];
    w.shape[0] = w.shape[1], w.shape[1] = shape, w.stride[0] = w.stride[1], w.stride[1] = stride;
    problem_of_matmul(&p, &args->arg[1], &w);
    if (b == NULL || b->numel == 0) return run_into(&p, &args->arg[0], "linear");
    size_t bytes = (size_t)(p.n * p.size);
    char *bias = b->data;
    if (!b->contiguous || b->numel != p.n) {
        bias = sp__alloc(bytes);
        if (bias == NULL)
            return sp_fail(SP_EMEMORY, "linear: no memory for %zu bytes of bias", bytes);
        sp__gather_run(bias, b->data, p.size, p.n, b->numel == p.n ? b->stride[b->rank - 1] : 0);
    }
    p.bias = bias;
    sp_status status = run_into(&p, &args->arg[0], "linear");
    if (bias != b->data) sp__free(bias, bytes);
    return status;
}
