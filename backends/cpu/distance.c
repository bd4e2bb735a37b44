/* cdist: distances of the rows of one matrix from those of another, by differences, not products:
 * small distances keep their digits.
 *
 *      x1 [..., n, k]  x2 [..., m, k]
 *        -> chunks of ROWS rows of x1 by a tile of rows of x2
 *        -> stretches of columns: the tile packed, sums of each stretch added up in float64
 *        -> roots
 *
 * A distance depends on its two rows alone, so bits do not depend on threads.
 */
#include <math.h>
#include <string.h>

#include "backends/cpu/dense.h"
#include "backends/cpu/kernels.h"
#include "backends/cpu/lanes.h"
#include "backends/cpu/pool.h"
#include "backends/cpu/strided.h"
#include "ops_gen.h"

enum { ROWS = 256, STRETCH = 128 };

typedef struct job {
    const sp_operand *out, *x, *y;
    const char *x_data, *y_data;
    char *to;
    int dtype;
    int64_t size, n, m, k, row_chunks, tiles;
    double p;
} job;

/* Where the matrices of batch number `batch` of the result begin in a dense operand. */
static int64_t batch_start(const sp_operand *out, const sp_operand *x, int64_t batch)
{
    int64_t at = 0, step = x->shape[x->rank - 1] * x->shape[x->rank - 2];
    for (int d = 1; d <= out->rank - 2; d++) {
        int64_t size = out->shape[out->rank - 2 - d], i = batch % size;
        int own = x->rank - 2 - d;
        batch /= size;
        if (own < 0) continue;
        if (x->shape[own] != 1) at += i * step;
        step *= x->shape[own];
    }
    return at;
}

static double rooted(double sum, double p)
{
    if (p == 2) return sqrt(sum);
    return p == 0 || p == 1 || isinf(p) ? sum : pow(sum, 1 / p);
}

static void put_row(const job *j, const double *sums, int64_t n, char *to)
{
    for (int64_t i = 0; i < n; i++) {
        if (j->dtype == SP_FLOAT32)
            ((float *)(void *)to)[i] = (float)rooted(sums[i], j->p);
        else
            ((double *)(void *)to)[i] = rooted(sums[i], j->p);
    }
}

/* n columns of `width` rows of y, side by side; the tile's other rows are 0. Row by row, since rows
 * that are a power of two apart share few lines of a cache. */
#define DEFINE_PACK(name, T)                                                                       \
    static void name(const T *y, int64_t row, int64_t width, int64_t n, T *to)                     \
    {                                                                                              \
        for (int64_t i = 0; i < SP_DISTANCE_TILE; i++)                                             \
            for (int64_t q = 0; q < n; q++)                                                        \
                to[q * SP_DISTANCE_TILE + i] = i < width ? y[i * row + q] : 0;                     \
    }
DEFINE_PACK(pack_4, float)
DEFINE_PACK(pack_8, double)

static void pack(const job *j, const char *y, int64_t width, int64_t n, double *to)
{
    if (j->size == 4)
        pack_4((const float *)(const void *)y, j->k, width, n, (float *)(void *)to);
    else
        pack_8((const double *)(const void *)y, j->k, width, n, to);
}

static void distance_chunk(void *ctx, int64_t chunk)
{
    const job *j = ctx;
    _Alignas(64) double sums[ROWS * SP_DISTANCE_TILE], packed[STRETCH * SP_DISTANCE_TILE];
    int64_t row = chunk % j->row_chunks * ROWS, tile = chunk / j->row_chunks % j->tiles,
            batch = chunk / j->row_chunks / j->tiles, first = tile * SP_DISTANCE_TILE,
            rows = j->n - row < ROWS ? j->n - row : ROWS,
            width = j->m - first < SP_DISTANCE_TILE ? j->m - first : SP_DISTANCE_TILE;
    const char *x = j->x_data + (batch_start(j->out, j->x, batch) + row * j->k) * j->size,
               *y = j->y_data + (batch_start(j->out, j->y, batch) + first * j->k) * j->size;
    memset(sums, 0, sizeof sums);
    for (int64_t from = 0; from < j->k; from += STRETCH) {
        int64_t n = j->k - from < STRETCH ? j->k - from : STRETCH;
        pack(j, y + from * j->size, width, n, packed);
        sp__isa->distance[j->dtype](x + from * j->size, j->k, rows, packed, n, j->p, sums);
    }
    char *to = j->to + ((batch * j->n + row) * j->m + first) * j->size;
    for (int64_t i = 0; i < rows; i++)
        put_row(j, sums + i * SP_DISTANCE_TILE, width, to + i * j->m * j->size);
}

/* attributes: p */
sp_status sp__cpu_cdist(const sp_kargs *args)
{
    const sp_operand *out = &args->arg[0], *x = &args->arg[1], *y = &args->arg[2];
    sp_dense dense[3];
    sp_status status = SP_OK;
    if (out->numel == 0) return SP_OK;
    status = sp__dense_begin(args, dense);
    if (status != SP_OK) return sp__dense_end(args, dense, status);
    job j = {.out = out,
             .x = x,
             .y = y,
             .to = dense[0].data,
             .x_data = dense[1].data,
             .y_data = dense[2].data,
             .dtype = out->dtype,
             .size = sp__size_of(out->dtype),
             .n = x->shape[x->rank - 2],
             .m = y->shape[y->rank - 2],
             .k = x->shape[x->rank - 1],
             .p = args->attr[SP_CDIST_P].v.f};
    j.row_chunks = (j.n + ROWS - 1) / ROWS;
    j.tiles = (j.m + SP_DISTANCE_TILE - 1) / SP_DISTANCE_TILE;
    bool plain = j.p == 2 || j.p == 1 || j.p == 0 || isinf(j.p);
    double us = (double)out->numel * ((double)j.k * (plain ? 0.04e-3 : 2e-3) + 5e-3);
    sp__pool_for(out->numel / (j.n * j.m) * j.tiles * j.row_chunks, us, distance_chunk, &j);
    return sp__dense_end(args, dense, status);
}
