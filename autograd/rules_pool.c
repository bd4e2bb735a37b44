/* Rules for pooling: from the tensor's geometry to the sizes that the transposes ask for. */
#include "autograd/rules.h"
#include "ops_gen.h"

sp_status sp__rule_pool_place(const sp_tensor *gy, const sp_tensor *indices, const sp_meta *x,
                              const sp_attr *windows, sp_tensor **out)
{
    *out = NULL;
    return sp_max_pool_scatter(gy, indices, x->shape + x->rank - windows->n, windows->n, out);
}

sp_status sp__rule_pool_pick(const sp_tensor *tx, const sp_tensor *indices, const sp_attr *windows,
                             sp_tensor **out)
{
    *out = NULL;
    return sp_max_pool_gather(tx, indices, tx->shape + tx->rank - windows->n, windows->n, out);
}

sp_status sp__rule_avg_pool_x(const sp_tensor *gy, const sp_meta *x, const sp_attr *kernel_size,
                              const sp_attr *stride, const sp_attr *padding, bool ceil_mode,
                              bool count_include_pad, const sp_attr *divisor, sp_tensor **out)
{
    const sp_avg_pool_backward_opt opt = {.size = sizeof opt,
                                          .ceil_mode = ceil_mode,
                                          .has_count_include_pad = true,
                                          .count_include_pad = count_include_pad,
                                          .has_divisor_override = !divisor->absent,
                                          .divisor_override = divisor->v.i};
    int n = kernel_size->n;
    *out = NULL;
    return sp_avg_pool_backward(gy, x->shape + x->rank - n, n, kernel_size->v.ints, n,
                                stride->v.ints, stride->n, padding->v.ints, padding->n, &opt, out);
}

sp_status sp__rule_adaptive_avg_pool_x(const sp_tensor *gy, const sp_meta *x, const sp_attr *size,
                                       sp_tensor **out)
{
    *out = NULL;
    return sp_adaptive_avg_pool_backward(gy, x->shape + x->rank - size->n, size->n, out);
}

sp_status sp__rule_adaptive_avg_pool_y(const sp_tensor *gy, const sp_meta *y, const sp_attr *size,
                                       sp_tensor **out)
{
    *out = NULL;
    return sp_adaptive_avg_pool(gy, y->shape + y->rank - size->n, size->n, out);
}
