/* Rules for pooling, padding and resampling: from the tensor's geometry to what the transposes ask
 * for. */
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

sp_status sp__rule_pad_back(const sp_tensor *gy, const sp_attr *pad, sp_tensor **out)
{
    int64_t less[2 * SP_MAX_RANK];
    *out = NULL;
    for (int i = 0; i < pad->n; i++) less[i] = -pad->v.ints[i];
    return sp_constant_pad_nd(gy, less, pad->n, NULL, out);
}

static sp_status resampled(const sp_tensor *g, const int64_t *size, int n, int64_t method,
                           bool corners, const sp_attr *h, const sp_attr *w, bool back,
                           sp_tensor **out)
{
    const sp_resample_opt to = {.size = sizeof to,
                                .method = (sp_method)method,
                                .align_corners = corners,
                                .has_scale_h = !h->absent,
                                .scale_h = h->v.f,
                                .has_scale_w = !w->absent,
                                .scale_w = w->v.f};
    const sp_resample_backward_opt from = {.size = sizeof from,
                                           .method = (sp_method)method,
                                           .align_corners = corners,
                                           .has_scale_h = !h->absent,
                                           .scale_h = h->v.f,
                                           .has_scale_w = !w->absent,
                                           .scale_w = w->v.f};
    *out = NULL;
    return back ? sp_resample_backward(g, size, n, &from, out) : sp_resample(g, size, n, &to, out);
}

sp_status sp__rule_resample_x(const sp_tensor *gy, const sp_meta *x, const sp_attr *size,
                              int64_t method, bool corners, const sp_attr *h, const sp_attr *w,
                              sp_tensor **out)
{
    return resampled(gy, x->shape + x->rank - size->n, size->n, method, corners, h, w, true, out);
}

sp_status sp__rule_resample_y(const sp_tensor *gx, const sp_meta *y, const sp_attr *size,
                              int64_t method, bool corners, const sp_attr *h, const sp_attr *w,
                              sp_tensor **out)
{
    return resampled(gx, y->shape + y->rank - size->n, size->n, method, corners, h, w, false, out);
}
