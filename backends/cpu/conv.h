/* Convolutions as products of matrices, piece by piece.
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

/* Columns of rows [row, row + n): c->k rows of n * out[2] elements, from x and back into it. */
void sp__columns_take(const columns *c, const char *x, int64_t row, int64_t n, char *to);
void sp__columns_add(const columns *c, const char *from, int64_t row, int64_t n, char *x);

#endif
