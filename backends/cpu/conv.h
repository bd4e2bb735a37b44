/* Convolutions, in one of two ways.
 *
 * Directly (conv_direct.c), where a row of the result is about as long as some vectors and the
 * kernel has several elements. Elsewhere as products of matrices, piece by piece (conv.c):
 *
 *     y[n, g] [O/G x P]  =  w[g] [O/G x K]  columns(x[n, g]) [K x P]
 *
 *     K  channels of a group times kernel elements      P  positions of the result
 *     columns: what of x each kernel element meets at each position, 0 outside
 *
 * Columns are made for a tile of positions at a time, small enough to stay in a core's cache. The
 * transposes run the same tiles: columns of x's gradient are made by w^T y and added up where they
 * came from; w's gradient is y columns^T, summed over tiles and examples.
 *
 * Invariant: tiles, and the parts that w's gradient is summed in, depend on the geometry alone. So
 * bits do not depend on threads.
 */
#ifndef SP_CPU_CONV_H
#define SP_CPU_CONV_H

#include <stdatomic.h>

#include "backends/cpu/lanes.h"
#include "backends/cpu/pool.h"
#include "ops/conv.h"
#include "tensor/backend.h"

/* One example and group as a matrix problem. */
typedef struct columns {
    int dtype;
    int64_t size;          /* bytes an element */
    int64_t channels;      /* of x, of one group */
    int64_t in[3], out[3]; /* sizes; missing dimensions in front, of size 1 */
    int64_t kernel[3], stride[3], padding[3], dilation[3];
    int64_t k, positions, in_positions;
    int64_t rows, rows_a_tile; /* runs of out[2] positions */
    bool plain;                /* columns are x itself: 1 x 1 kernels */
} columns;

void sp__columns_of(const sp_conv *g, int dtype, columns *c);

/* Positions of a run of `out` at which start + position * step lies in [0, in): the first, how
 * many. */
void sp__conv_inside(int64_t start, int64_t step, int64_t in, int64_t out, int64_t *first,
                     int64_t *n);

/* Columns of rows [row, row + n): c->k rows of n * out[2] elements, from x and back into it. */
void sp__columns_take(const columns *c, const char *x, int64_t row, int64_t n, char *to);
void sp__columns_add(const columns *c, const char *from, int64_t row, int64_t n, char *x);

/* A convolution or one of its transposes, its operands dense. */
typedef struct conv_job {
    columns c;
    int64_t examples, groups, outs; /* outs: channels of the result, of one group */
    int64_t tiles;                  /* of an example and group, by columns */
    int64_t parts, examples_a_part; /* that the gradient of w is summed in */
    char *x, *w, *y;
    const char *b;
    char *sums; /* parts of w's gradient, part after part */
    sp_lane_fn add;
    _Atomic bool failed; /* no memory */
} conv_job;

/* unit: an example and group, groups fastest. */
static inline char *sp__conv_x_at(const conv_job *j, int64_t unit)
{
    return j->x + unit * j->c.channels * j->c.in_positions * j->c.size;
}

static inline char *sp__conv_y_at(const conv_job *j, int64_t unit)
{
    return j->y + unit * j->outs * j->c.positions * j->c.size;
}

/* Sums w's gradient in parts of a multiple of `multiple` examples: chunk p * groups + g puts group
 * g of part p at j->sums. */
SP_MUST_USE sp_status sp__conv_sum_parts(conv_job *j, int64_t multiple, double predicted_us,
                                         sp_chunk_fn chunk, void *ctx, const char *op);

/* About how many times as long columns take as a direct convolution of the same positions: they are
 * made once for all `outs` channels of the result (measured: README.md). */
double sp__columns_cost(int64_t outs);

/* y, or w's gradient, the direct way, and whether to go it; outs: channels of the result, of one
 * group. Where memory is missing, either the status says so or j->failed. */
bool sp__direct_suits_result(const columns *c, int64_t outs);
bool sp__direct_suits_weight(const columns *c, int64_t outs);
SP_MUST_USE sp_status sp__direct_result(conv_job *j, double predicted_us, const char *op);
SP_MUST_USE sp_status sp__direct_weight(conv_job *j, double predicted_us, const char *op);

#endif
