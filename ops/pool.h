/* The geometry of pooling windows, for inference and kernels.
 *
 * The last one or two dimensions of a tensor are a plane, all before them count planes. A plane of
 * one dimension is one row.
 */
#ifndef SP_POOL_H
#define SP_POOL_H

#include "ops/op.h"

enum { SP_POOL_DIMS = 2 };

typedef struct sp_pool_window {
    int n_dims; /* that the caller named */
    int64_t in[SP_POOL_DIMS], out[SP_POOL_DIMS];
    int64_t kernel[SP_POOL_DIMS], stride[SP_POOL_DIMS], padding[SP_POOL_DIMS],
        dilation[SP_POOL_DIMS];
} sp_pool_window;

/* attr: kernel_size, stride, padding; then dilation unless `mean`. plane: as many sizes as
 * kernel_size has. Fails in c's name when they do not go together. */
SP_MUST_USE sp_status sp__pool_window_of(const sp_call *c, const int64_t *plane,
                                         const sp_attr *attr, bool mean, bool ceil_mode,
                                         sp_pool_window *w);

/* Where the window of position i of `out` begins in `in` elements, when windows share them out; it
 * ends where i + 1's begins, rounded up. */
static inline int64_t sp__pool_start(int64_t i, int64_t in, int64_t out)
{
    return i / out * in + i % out * in / out;
}

static inline int64_t sp__pool_end(int64_t i, int64_t in, int64_t out)
{
    return 1 + ((i + 1) * in - 1) / out;
}

#endif
