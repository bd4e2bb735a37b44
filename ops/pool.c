/* Pooling: windows, inference, and the ops for signals and images by those for any leading sizes.
 */
#include "ops/pool.h"

#include <string.h>

#include "ops/dispatch.h"
#include "ops/infer.h"
#include "ops_gen.h"

/* ---- windows ----- */

static sp_status check_padding(const sp_call *c, const sp_pool_window *w, int i, int64_t extent)
{
    if (w->padding[i] <= extent / 2) return SP_OK;
    return sp_fail(SP_EVALUE,
                   "%s: padding is %lld, expected at most half of a window, which spans %lld",
                   sp__op_name(c), (long long)w->padding[i], (long long)extent);
}

static sp_status count_windows(const sp_call *c, sp_pool_window *w, int i, bool ceil_mode)
{
    int64_t extent, room, stride = w->stride[i];
    if (w->in[i] < 1)
        return sp_fail(SP_ESHAPE, "%s: dimension %d of the plane of x has no elements",
                       sp__op_name(c), i);
    if (__builtin_mul_overflow(w->dilation[i], w->kernel[i] - 1, &extent) ||
        __builtin_add_overflow(w->in[i], extent, &room) ||
        __builtin_add_overflow(room, stride, &room) || extent >= INT32_MAX)
        return sp_fail(SP_EVALUE, "%s: kernel_size, dilation or stride is too large",
                       sp__op_name(c));
    extent++;
    SP_RETURN_IF(check_padding(c, w, i, extent));
    room = w->in[i] + 2 * w->padding[i] - extent; /* where the last window may begin */
    if (room < 0)
        return sp_fail(SP_ESHAPE,
                       "%s: a window spans %lld elements, but dimension %d of the plane has %lld "
                       "with padding; use a smaller window",
                       sp__op_name(c), (long long)extent, i,
                       (long long)(w->in[i] + 2 * w->padding[i]));
    w->out[i] = (room + (ceil_mode ? stride - 1 : 0)) / stride + 1;
    if (ceil_mode && (w->out[i] - 1) * stride >= w->in[i] + w->padding[i]) w->out[i]--;
    return SP_OK;
}

/* One dimension stands behind a first of size 1. */
static void widen(sp_pool_window *w, int64_t *numbers, int64_t first)
{
    if (w->n_dims == 2) return;
    numbers[1] = numbers[0], numbers[0] = first;
}

sp_status sp__pool_window_of(const sp_call *c, const int64_t *plane, const sp_attr *attr, bool mean,
                             bool ceil_mode, sp_pool_window *w)
{
    int n = attr[0].n;
    if (n < 1 || n > SP_POOL_DIMS)
        return sp_fail(SP_EVALUE, "%s: kernel_size has %d numbers, expected one or two",
                       sp__op_name(c), n);
    *w = (sp_pool_window){.n_dims = n, .dilation = {1, 1}};
    memcpy(w->in, plane, sizeof *plane * (size_t)n);
    SP_RETURN_IF(sp__take_numbers(c, "kernel_size", &attr[0], n, 1, 1, w->kernel));
    SP_RETURN_IF(sp__take_numbers(c, "stride", &attr[1], n, 1, 1, w->stride));
    SP_RETURN_IF(sp__take_numbers(c, "padding", &attr[2], n, 0, 0, w->padding));
    if (!mean) SP_RETURN_IF(sp__take_numbers(c, "dilation", &attr[3], n, 1, 1, w->dilation));
    for (int i = 0; i < n; i++) SP_RETURN_IF(count_windows(c, w, i, ceil_mode));
    widen(w, w->in, 1), widen(w, w->out, 1), widen(w, w->kernel, 1), widen(w, w->stride, 1);
    widen(w, w->padding, 0), widen(w, w->dilation, 1);
    return SP_OK;
}

/* ---- inference ----- */

/* x's leading sizes and then a plane of n dimensions. */
static sp_status planes_like(const sp_call *c, const sp_tensor *x, sp_dtype dtype,
                             const int64_t *plane, int n, sp_meta *out)
{
    out->rank = x->rank;
    memcpy(out->shape, x->shape, sizeof *x->shape * (size_t)x->rank);
    memcpy(out->shape + x->rank - n, plane, sizeof *plane * (size_t)n);
    return sp__infer_dense(c, dtype, x->device, out);
}

static sp_status check_plane(const sp_call *c, const sp_tensor *x, const char *arg, int n)
{
    if (x->rank >= n && n > 0 && n <= SP_POOL_DIMS) return SP_OK;
    return sp_fail(SP_ESHAPE, "%s: %s has shape %s, expected at least %d dimensions to pool",
                   sp__op_name(c), arg, SP_SHAPE(x), n);
}

static const int64_t *plane_of(const sp_tensor *x, int n)
{
    return x->shape + x->rank - n;
}

static const int64_t *windows_of(const sp_pool_window *w)
{
    return w->out + SP_POOL_DIMS - w->n_dims;
}

static sp_status check_number(const sp_call *c, const sp_tensor *x)
{
    if (x->dtype != SP_BOOL) return SP_OK;
    return sp_fail(SP_EDTYPE, "%s: %s is bool, expected numbers; convert it with .float()",
                   sp__op_name(c), sp_op_table[c->op].in_names[0]);
}

sp_status sp__infer_max_pool_values(const sp_call *c, sp_meta *out)
{
    const sp_tensor *x = c->in[0];
    int n = c->attr[SP_MAX_POOL_KERNEL_SIZE].n;
    sp_pool_window w;
    SP_RETURN_IF(check_number(c, x));
    SP_RETURN_IF(check_plane(c, x, "x", n));
    SP_RETURN_IF(sp__pool_window_of(c, plane_of(x, n), c->attr, false,
                                    c->attr[SP_MAX_POOL_CEIL_MODE].v.i, &w));
    return planes_like(c, x, (sp_dtype)x->dtype, windows_of(&w), n, out);
}

sp_status sp__infer_max_pool(const sp_call *c, sp_meta *out)
{
    SP_RETURN_IF(sp__infer_max_pool_values(c, &out[0]));
    out[1].rank = out[0].rank;
    memcpy(out[1].shape, out[0].shape, sizeof *out->shape * (size_t)out->rank);
    return sp__infer_dense(c, SP_INT64, c->in[0]->device, &out[1]);
}

/* t (arg) and indices: as many planes of n dimensions each, sizes of one plane positive. */
static sp_status check_positions(const sp_call *c, const sp_attr *size, bool same)
{
    const sp_tensor *t = c->in[0], *indices = c->in[1];
    int n = size->n;
    SP_RETURN_IF(check_number(c, t));
    SP_RETURN_IF(sp__check_index_dtype(c, indices, "indices"));
    SP_RETURN_IF(sp__check_devices(c));
    SP_RETURN_IF(check_plane(c, t, same ? "y" : "x", n));
    bool fits = t->rank == indices->rank;
    for (int d = 0; fits && d < t->rank; d++)
        fits = t->shape[d] == indices->shape[d] || (!same && d >= t->rank - n);
    for (int i = 0; fits && i < n; i++)
        fits = size->v.ints[i] >= 0 && (same || plane_of(t, n)[i] == size->v.ints[i]);
    if (fits) return SP_OK;
    return sp_fail(SP_ESHAPE, "%s: %s has shape %s, indices %s and size %d numbers: %s",
                   sp__op_name(c), same ? "y" : "x", SP_SHAPE(t), SP_SHAPE(indices), n,
                   same ? "expected y and indices of one shape"
                        : "expected the same leading sizes, and size x's last ones");
}

sp_status sp__infer_max_pool_gather(const sp_call *c, sp_meta *out)
{
    SP_RETURN_IF(check_positions(c, &c->attr[0], false));
    return sp__infer_like(c, c->in[1], (sp_dtype)c->in[0]->dtype, out);
}

sp_status sp__infer_max_pool_scatter(const sp_call *c, sp_meta *out)
{
    const sp_tensor *y = c->in[0];
    const sp_attr *size = &c->attr[0];
    SP_RETURN_IF(check_positions(c, size, true));
    return planes_like(c, y, (sp_dtype)y->dtype, size->v.ints, size->n, out);
}

static sp_status check_divisor(const sp_call *c, const sp_attr *divisor)
{
    if (divisor->absent || divisor->v.i != 0) return SP_OK;
    return sp_fail(SP_EVALUE, "%s: divisor_override is 0, expected another number", sp__op_name(c));
}

sp_status sp__infer_avg_pool(const sp_call *c, sp_meta *out)
{
    const sp_tensor *x = c->in[0];
    int n = c->attr[SP_AVG_POOL_KERNEL_SIZE].n;
    sp_pool_window w;
    SP_RETURN_IF(sp__check_floating(c, x, "x"));
    SP_RETURN_IF(check_plane(c, x, "x", n));
    SP_RETURN_IF(check_divisor(c, &c->attr[SP_AVG_POOL_DIVISOR_OVERRIDE]));
    SP_RETURN_IF(sp__pool_window_of(c, plane_of(x, n), c->attr, true,
                                    c->attr[SP_AVG_POOL_CEIL_MODE].v.i, &w));
    return planes_like(c, x, (sp_dtype)x->dtype, windows_of(&w), n, out);
}

sp_status sp__infer_avg_pool_backward(const sp_call *c, sp_meta *out)
{
    const sp_tensor *y = c->in[0];
    const sp_attr *size = &c->attr[SP_AVG_POOL_BACKWARD_SIZE];
    int n = c->attr[SP_AVG_POOL_BACKWARD_KERNEL_SIZE].n;
    sp_pool_window w;
    SP_RETURN_IF(sp__check_floating(c, y, "y"));
    SP_RETURN_IF(check_plane(c, y, "y", n));
    SP_RETURN_IF(check_divisor(c, &c->attr[SP_AVG_POOL_BACKWARD_DIVISOR_OVERRIDE]));
    if (size->n != n)
        return sp_fail(SP_ESHAPE, "%s: size has %d numbers and kernel_size %d, expected as many",
                       sp__op_name(c), size->n, n);
    SP_RETURN_IF(sp__pool_window_of(c, size->v.ints, c->attr + SP_AVG_POOL_BACKWARD_KERNEL_SIZE,
                                    true, c->attr[SP_AVG_POOL_BACKWARD_CEIL_MODE].v.i, &w));
    for (int i = 0; i < n; i++)
        if (plane_of(y, n)[i] != windows_of(&w)[i])
            return sp_fail(SP_ESHAPE, "%s: y has shape %s, expected %lld windows in dimension %d",
                           sp__op_name(c), SP_SHAPE(y), (long long)windows_of(&w)[i],
                           y->rank - n + i);
    return planes_like(c, y, (sp_dtype)y->dtype, size->v.ints, n, out);
}

/* A plane of x shared out among `size` windows: neither overflows the product of both. */
static sp_status check_shares(const sp_call *c, const sp_tensor *x, const sp_attr *size, int low)
{
    SP_RETURN_IF(sp__check_floating(c, x, low ? "y" : "x"));
    SP_RETURN_IF(check_plane(c, x, low ? "y" : "x", size->n));
    for (int i = 0; i < size->n; i++) {
        int64_t asked = size->v.ints[i], product;
        if (asked < low)
            return sp_fail(SP_EVALUE, "%s: a size is %lld, expected at least %d", sp__op_name(c),
                           (long long)asked, low);
        if (!low && plane_of(x, size->n)[i] == 0)
            return sp_fail(SP_ESHAPE, "%s: x has shape %s, without elements to pool",
                           sp__op_name(c), SP_SHAPE(x));
        if (__builtin_mul_overflow(asked + 1, plane_of(x, size->n)[i] + 1, &product))
            return sp_fail(SP_EVALUE, "%s: a size is too large", sp__op_name(c));
    }
    return SP_OK;
}

sp_status sp__infer_adaptive_avg_pool(const sp_call *c, sp_meta *out)
{
    const sp_tensor *x = c->in[0];
    const sp_attr *size = &c->attr[0];
    SP_RETURN_IF(check_shares(c, x, size, 0));
    return planes_like(c, x, (sp_dtype)x->dtype, size->v.ints, size->n, out);
}

sp_status sp__infer_adaptive_avg_pool_backward(const sp_call *c, sp_meta *out)
{
    const sp_tensor *y = c->in[0];
    const sp_attr *size = &c->attr[0];
    SP_RETURN_IF(check_shares(c, y, size, 1));
    return planes_like(c, y, (sp_dtype)y->dtype, size->v.ints, size->n, out);
}

sp_status sp__infer_adaptive_max_pool(const sp_call *c, sp_meta *out)
{
    const sp_attr *size = &c->attr[0];
    SP_RETURN_IF(sp__infer_adaptive_avg_pool(c, &out[0]));
    return planes_like(c, c->in[0], SP_INT64, size->v.ints, size->n, &out[1]);
}

/* ---- signals and images ----- */

/* The dimensions that an op with a number in its name pools: "max_pool2d" 2. */
static int dims_of(const sp_call *c)
{
    return strpbrk(sp__op_name(c), "12")[0] - '0';
}

static sp_status check_rank(const sp_call *c)
{
    const sp_tensor *x = c->in[0];
    int n = dims_of(c);
    if (x->rank == n + 1 || x->rank == n + 2) return SP_OK;
    return sp_fail(SP_ESHAPE, "%s: x has shape %s, expected %d dimensions, or %d without a batch",
                   sp__op_name(c), SP_SHAPE(x), n + 2, n + 1);
}

typedef struct numbers { /* one a dimension */
    int64_t kernel[SP_POOL_DIMS], stride[SP_POOL_DIMS], padding[SP_POOL_DIMS],
        dilation[SP_POOL_DIMS];
} numbers;

/* attr: kernel_size, stride, padding; then dilation unless `mean`. An empty stride is none. */
static sp_status numbers_of(const sp_call *c, bool mean, numbers *of)
{
    const sp_attr *attr = c->attr, *stride = attr[1].absent || attr[1].n == 0 ? attr : attr + 1;
    int n = dims_of(c);
    SP_RETURN_IF(check_rank(c));
    SP_RETURN_IF(sp__take_numbers(c, "kernel_size", &attr[0], n, 1, 1, of->kernel));
    SP_RETURN_IF(sp__take_numbers(c, "stride", stride, n, 1, 1, of->stride));
    SP_RETURN_IF(sp__take_numbers(c, "padding", &attr[2], n, 0, 0, of->padding));
    return mean ? SP_OK : sp__take_numbers(c, "dilation", &attr[3], n, 1, 1, of->dilation);
}

/* For errors in terms of this op. */
static sp_status check_windows(const sp_call *c, bool mean, bool ceil_mode, const numbers *of)
{
    sp_pool_window w;
    int n = dims_of(c);
    sp_attr attr[4] = {{.v.ints = of->kernel, .n = n},
                       {.v.ints = of->stride, .n = n},
                       {.v.ints = of->padding, .n = n},
                       {.v.ints = of->dilation, .n = n}};
    return sp__pool_window_of(c, plane_of(c->in[0], n), attr, mean, ceil_mode, &w);
}

/* Whether a derivative will ask where the largest elements stand; what a transform asks is not
 * known yet. */
static bool wants_places(const sp_call *c)
{
    const sp_tensor *x = c->in[0];
    return c->n_out > 1 || x->wrap || (!sp__tls.no_grad && x->flags & SP_T_REQUIRES_GRAD);
}

sp_status sp__body_max_pool(sp_call *c)
{
    int n = dims_of(c);
    numbers of;
    sp_tensor *values = NULL, *indices = NULL;
    sp_status status = SP_OK;
    const sp_max_pool_opt opt = {.size = sizeof opt,
                                 .ceil_mode = c->attr[SP_MAX_POOL1D_CEIL_MODE].v.i};
    const sp_max_pool_values_opt values_opt = {.size = sizeof values_opt,
                                               .ceil_mode = opt.ceil_mode};
    SP_RETURN_IF(numbers_of(c, false, &of));
    SP_RETURN_IF(check_number(c, c->in[0]));
    SP_RETURN_IF(check_windows(c, false, opt.ceil_mode, &of));
    if (!wants_places(c))
        return sp_max_pool_values(c->in[0], of.kernel, n, of.stride, n, of.padding, n, of.dilation,
                                  n, &values_opt, &c->out[0]);
    SP_TRY(sp_max_pool(c->in[0], of.kernel, n, of.stride, n, of.padding, n, of.dilation, n, &opt,
                       &values, &indices));
    c->out[0] = sp__retain(values);
    if (c->n_out > 1) c->out[1] = sp__retain(indices);
out:
    sp_drop(&values), sp_drop(&indices);
    return status;
}

sp_status sp__body_avg_pool(sp_call *c)
{
    int n = dims_of(c);
    numbers of;
    sp_attr none = {.absent = true};
    const sp_attr *divisor = n == 2 ? &c->attr[SP_AVG_POOL2D_DIVISOR_OVERRIDE] : &none;
    const sp_avg_pool_opt opt = {.size = sizeof opt,
                                 .ceil_mode = c->attr[SP_AVG_POOL1D_CEIL_MODE].v.i,
                                 .has_count_include_pad = true,
                                 .count_include_pad = c->attr[SP_AVG_POOL1D_COUNT_INCLUDE_PAD].v.i,
                                 .has_divisor_override = !divisor->absent,
                                 .divisor_override = divisor->v.i};
    SP_RETURN_IF(numbers_of(c, true, &of));
    SP_RETURN_IF(sp__check_floating(c, c->in[0], "x"));
    SP_RETURN_IF(check_divisor(c, divisor));
    SP_RETURN_IF(check_windows(c, true, opt.ceil_mode, &of));
    return sp_avg_pool(c->in[0], of.kernel, n, of.stride, n, of.padding, n, &opt, &c->out[0]);
}

/* Sizes of windows, where they share a plane out without a remainder. */
static bool even_shares(const sp_tensor *x, const int64_t *size, int n, int64_t *kernel)
{
    const int64_t *plane = plane_of(x, n);
    for (int i = 0; i < n; i++) {
        if (size[i] < 1 || plane[i] % size[i] != 0) return false;
        kernel[i] = plane[i] / size[i];
    }
    return true;
}

static sp_status shares_of(const sp_call *c, int64_t *size)
{
    int n = dims_of(c);
    SP_RETURN_IF(check_rank(c));
    SP_RETURN_IF(sp__take_numbers(c, "output_size", &c->attr[0], n, 0, 0, size));
    return check_shares(c, c->in[0], &(sp_attr){.v.ints = size, .n = n}, 0);
}

static sp_status mean_of_planes(const sp_tensor *x, int n, sp_tensor **out)
{
    const int64_t dims[SP_POOL_DIMS] = {-1, -2};
    const sp_mean_opt opt = {.size = sizeof opt, .dim = dims, .n_dim = n, .keepdim = true};
    return sp_mean(x, &opt, out);
}

sp_status sp__body_adaptive_avg_pool(sp_call *c)
{
    const sp_tensor *x = c->in[0];
    int64_t size[SP_POOL_DIMS], kernel[SP_POOL_DIMS], none[SP_POOL_DIMS] = {0};
    int n = dims_of(c);
    SP_RETURN_IF(shares_of(c, size));
    if (size[0] == 1 && size[n - 1] == 1) return mean_of_planes(x, n, &c->out[0]);
    if (!even_shares(x, size, n, kernel)) return sp_adaptive_avg_pool(x, size, n, &c->out[0]);
    return sp_avg_pool(x, kernel, n, kernel, n, none, n, NULL, &c->out[0]);
}

sp_status sp__body_adaptive_max_pool(sp_call *c)
{
    const sp_tensor *x = c->in[0];
    int64_t size[SP_POOL_DIMS], kernel[SP_POOL_DIMS], none[SP_POOL_DIMS] = {0},
                                                      one[SP_POOL_DIMS] = {1, 1};
    int n = dims_of(c);
    SP_RETURN_IF(shares_of(c, size));
    if (!even_shares(x, size, n, kernel))
        return sp_adaptive_max_pool(x, size, n, &c->out[0], &c->out[1]);
    return sp_max_pool(x, kernel, n, kernel, n, none, n, one, n, NULL, &c->out[0], &c->out[1]);
}
