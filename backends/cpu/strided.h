/* Walking strided storage: dense runs of elements to and from any geometry.
 *
 * Elements are bytes here (size 1, 2, 4, 8 or 16); who wants another dtype converts the dense run.
 * Linear positions count in row-major order of the shape.
 */
#ifndef SP_CPU_STRIDED_H
#define SP_CPU_STRIDED_H

#include "tensor/backend.h"
#include "tensor/dtype.h"

static inline int64_t sp__size_of(int dtype)
{
    return sp__dtypes[dtype].size;
}

/* Elements start .. start+n-1 of the operand, dense, to dst; and back. */
void sp__gather(void *dst, const sp_operand *from, int64_t start, int64_t n);
void sp__scatter(const sp_operand *to, const void *src, int64_t start, int64_t n);

/* memcpy() of any number of bytes. */
void sp__copy_bytes(void *dst, const void *src, int64_t n);

/* n elements of `size` bytes, `stride` elements apart, to a dense run; and back. */
void sp__gather_run(void *dst, const void *src, int64_t size, int64_t n, int64_t stride);
void sp__scatter_run(void *dst, const void *src, int64_t size, int64_t n, int64_t stride);

/* The address of the element at a linear position. */
char *sp__element_at(const sp_operand *x, int64_t position);

/* Whether all strides are 0 (or there is one element): one value for the whole shape. */
bool sp__is_splat(const sp_operand *x);

/* Drops sizes of 1 and merges dimensions walked as one; false when x has more than one element and
 * is no dense run. */
bool sp__operand_coalesce(sp_operand *x);

/* Whether dimensions from .. to - 1 of x are walked as one; its stride, where they are more than
 * one element, to *step. */
bool sp__walked_as_one(const sp_operand *x, int from, int to, int64_t *step);

/* Row-major and dense over its own shape, whatever the strides of sizes of 1. */
bool sp__is_dense(const sp_operand *x);

#endif
