/* The geometry of a convolution, for inference and kernels.
 */
#ifndef SP_CONV_H
#define SP_CONV_H

#include "ops/op.h"

enum { SP_CONV_DIMS = 3 };

typedef struct sp_conv {
    int n_dims; /* after batch and channels */
    int64_t x[SP_CONV_DIMS + 2], w[SP_CONV_DIMS + 2], y[SP_CONV_DIMS + 2]; /* shapes */
    int64_t stride[SP_CONV_DIMS], padding[SP_CONV_DIMS], dilation[SP_CONV_DIMS];
    int64_t groups;
} sp_conv;

/* attr: stride, padding, dilation, groups. Fails in c's name when they do not go together. */
SP_MUST_USE sp_status sp__conv_of(const sp_call *c, int n_dims, const int64_t *x, const int64_t *w,
                                  const sp_attr *attr, sp_conv *g);

#endif
