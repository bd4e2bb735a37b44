/* Reductions: the one tree that everything computing a reduction computes.
 *
 * Canonical form: dimensions of size 1 are dropped, the others sorted by stride, largest first. The
 * reduced dimensions, in that order, make a sequence of N elements for each output. The tree over a
 * sequence is
 *
 *     rows      (the dimension of the smallest stride is reduced)
 *               blocks of 256 elements; in a block, 16 lanes, lane i taking i, i + 16, ...
 *               in order; blocks combined in pairs, pairs in pairs, ..., lane by lane; last
 *               the 16 lanes: 8 with 8, 4 with 4, 2 with 2, 1 with 1
 *     columns   (it is kept)
 *               blocks of 16 elements in order; blocks combined in pairs, pairs in pairs, ...
 *
 *     1 2 3 4 5 6 7     blocks, paired as a binary counter counts: ((1 2)(3 4)) ((5 6) 7)
 *      \/  \/  \/  |
 *       \  /    \  /
 *
 * No sum has more than 16 + log2(N / 16) roundings on its way, NumPy's pairwise sum has the same.
 * Cutting a sequence at multiples of 2^k blocks and combining the parts' results as blocks gives
 * the same tree: so threads do not change bits.
 *
 * Integers and bool are reduced in int64, the halves in float32, and converted once.
 */
#ifndef SP_CPU_REDUCE_H
#define SP_CPU_REDUCE_H

#include "backends/cpu/lanes.h"
#include "ops/op.h"
#include "tensor/dtype.h"

/* The dtype that a reduction to `dtype` is computed in. */
static inline int sp__reduce_dtype(int dtype)
{
    return dtype == SP_BOOL ? SP_INT64 : sp__dtypes[dtype].wide;
}

/* The rows tree over n contiguous elements of one dtype; one element to out. n = 0: 0 for
 * sums, 1 for products, the smallest (largest) value for maxima (minima). */
static inline void sp__reduce_row(sp_reduce_kind kind, int dtype, const void *p, int64_t n,
                                  void *out)
{
    sp_element lane[SP_REDUCE_LANES];
    const sp_reduce_lanes *f = &sp__isa->reduce[kind][dtype];
    f->tree(p, n, lane);
    f->finish(lane, out);
}

/* A bit for each dimension of rank that a `dim` attribute names: an int, a list, or absent or an
 * empty list for all. */
unsigned sp__reduced_mask(const sp_attr *dim, int rank);

SP_MUST_USE sp_status sp__cpu_sum(const sp_kargs *args);
SP_MUST_USE sp_status sp__cpu_nansum(const sp_kargs *args);
SP_MUST_USE sp_status sp__cpu_count_nonzero(const sp_kargs *args);
SP_MUST_USE sp_status sp__cpu_prod(const sp_kargs *args);
SP_MUST_USE sp_status sp__cpu_amax(const sp_kargs *args);
SP_MUST_USE sp_status sp__cpu_amin(const sp_kargs *args);
SP_MUST_USE sp_status sp__cpu_argmax(const sp_kargs *args);

#endif
