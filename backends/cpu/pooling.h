/* Pooling as sums and maxima of whole vectors (the thread pool is pool.h).
 *
 * Where a window moves by `stride`, element q of all windows lies `stride` apart in x. So x is
 * taken apart into phases first, each with every stride-th element, padding included. Then element
 * q of all windows is one dense run, in one phase from one offset on:
 *
 *     x  . 0 1 2 3 4 5 6 .     stride 2, window of 3, padding 1
 *     phase 0  . 1 3 5 .       window j:  phase 0 [j]  phase 1 [j]  phase 0 [j + 1]
 *     phase 1  0 2 4 6 .
 *
 * In two dimensions there are phases of phases, and a phase is a block of rows x columns; blocks of
 * several planes stand one below the other, so that runs are long. Between windows a run also
 * crosses places where no window is: what comes out there is not used.
 *
 * Invariant: pieces (some planes, or some rows of windows of one plane) depend on the geometry
 * alone.
 */
#ifndef SP_CPU_POOLING_H
#define SP_CPU_POOLING_H

#include "ops/pool.h"
#include "tensor/backend.h"

typedef struct pooling {
    sp_pool_window w;
    int dtype;
    int64_t size; /* bytes an element */
    int64_t planes;
    int64_t phases[2];
    int64_t block[2]; /* of one plane in a phase: rows, columns; no less than windows */
    int64_t rows_a_piece, pieces_a_plane, planes_a_piece, pieces;
    int64_t n;               /* elements of a phase, all planes of a piece */
    int64_t k;               /* elements of a window */
    int64_t *offset, *place; /* of each element q: from the first phase, and in a plane of x */
    char *padding;           /* block[1] elements */
    size_t bytes;            /* of the three */
} pooling;

typedef struct piece {
    int64_t plane, planes, row, rows; /* row, rows: of windows, in each plane */
} piece;

/* pad: the element that padding has. EMEMORY, EUNSUPPORTED. */
SP_MUST_USE sp_status sp__pooling_new(const sp_pool_window *w, int dtype, int64_t planes,
                                      bool whole_planes, const void *pad, pooling *p);
void sp__pooling_free(pooling *p);

piece sp__pooling_piece(const pooling *p, int64_t index);
/* Bytes of all phases, with the room that vectors need behind them. */
size_t sp__pooling_bytes(const pooling *p);
/* Elements of a phase up to the last window of a piece. */
int64_t sp__pooling_used(const pooling *p, const piece *of);
/* The piece's phases out of x (dense planes), and back. */
void sp__pooling_take(const pooling *p, const piece *of, const char *x, char *phases);
void sp__pooling_put(const pooling *p, const piece *of, const char *phases, char *x);

static inline int64_t sp__pooling_planes(const sp_operand *x, int n_dims)
{
    int64_t planes = 1;
    for (int d = 0; d < x->rank - n_dims; d++) planes *= x->shape[d];
    return planes;
}

#endif
