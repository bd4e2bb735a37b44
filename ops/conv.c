/* Convolutions: geometry, inference, and the public ones by the three that have kernels.
 *
 * What is given of stride, padding, dilation: a number for each dimension, or one for all.
 */
#include "ops/conv.h"

#include <string.h>

#include "ops/infer.h"
#include "ops_gen.h"

/* ---- geometry ----- */

static sp_status fails_to_fit(const sp_call *c, const sp_conv *g, const char *why)
{
    char x[SP_SHAPE_TEXT], w[SP_SHAPE_TEXT];
    return sp_fail(SP_ESHAPE,
                   "%s: x of shape %s, w of shape %s and %lld groups do not go together: %s",
                   sp__op_name(c), sp__shape_text(g->n_dims + 2, g->x, x, sizeof x),
                   sp__shape_text(g->n_dims + 2, g->w, w, sizeof w), (long long)g->groups, why);
}

static sp_status check_channels(const sp_call *c, const sp_conv *g)
{
    if (g->groups < 1)
        return sp_fail(SP_EVALUE, "%s: groups is %lld, expected at least 1", sp__op_name(c),
                       (long long)g->groups);
    if (g->x[1] != g->w[1] * g->groups)
        return fails_to_fit(c, g, "x needs as many channels as w, times groups");
    if (g->w[0] % g->groups != 0)
        return fails_to_fit(c, g, "the channels of the result cannot be split into groups");
    return SP_OK;
}

static sp_status result_size(const sp_call *c, sp_conv *g, int i)
{
    int64_t kernel, around, d = g->x[i + 2];
    if (g->w[i + 2] < 1) return fails_to_fit(c, g, "the kernel is empty");
    bool overflow = __builtin_mul_overflow(g->dilation[i], g->w[i + 2] - 1, &kernel) ||
                    __builtin_mul_overflow(g->padding[i], 2, &around) ||
                    __builtin_add_overflow(d, around, &d);
    if (overflow) return sp_fail(SP_EVALUE, "%s: padding or dilation is too large", sp__op_name(c));
    if (d <= kernel) return fails_to_fit(c, g, "the kernel is larger than the padded x");
    g->y[i + 2] = (d - kernel - 1) / g->stride[i] + 1;
    return SP_OK;
}

sp_status sp__conv_of(const sp_call *c, int n_dims, const int64_t *x, const int64_t *w,
                      const sp_attr *attr, sp_conv *g)
{
    g->n_dims = n_dims;
    memcpy(g->x, x, sizeof *x * (size_t)(n_dims + 2));
    memcpy(g->w, w, sizeof *w * (size_t)(n_dims + 2));
    g->groups = attr[3].v.i;
    SP_RETURN_IF(sp__take_numbers(c, "stride", &attr[0], n_dims, 1, 1, g->stride));
    SP_RETURN_IF(sp__take_numbers(c, "padding", &attr[1], n_dims, 0, 0, g->padding));
    SP_RETURN_IF(sp__take_numbers(c, "dilation", &attr[2], n_dims, 1, 1, g->dilation));
    SP_RETURN_IF(check_channels(c, g));
    g->y[0] = x[0], g->y[1] = w[0];
    for (int i = 0; i < n_dims; i++) SP_RETURN_IF(result_size(c, g, i));
    return SP_OK;
}

/* ---- inference ----- */

static sp_status check_operands(const sp_call *c, const char *a_name, const char *b_name)
{
    const sp_tensor *a = c->in[0], *b = c->in[1];
    SP_RETURN_IF(sp__check_floating(c, a, a_name));
    SP_RETURN_IF(sp__check_same_dtype(c, a, a_name, b, b_name));
    SP_RETURN_IF(sp__check_devices(c));
    if (a->rank == b->rank && a->rank >= 3 && a->rank <= 2 + SP_CONV_DIMS) return SP_OK;
    return sp_fail(SP_ESHAPE,
                   "%s: %s has shape %s and %s %s; expected batch, channels and one to %d more "
                   "dimensions, as many for both",
                   sp__op_name(c), a_name, SP_SHAPE(a), b_name, SP_SHAPE(b), SP_CONV_DIMS);
}

static sp_status check_bias(const sp_call *c, const sp_tensor *b, int64_t channels)
{
    if (b == NULL) return SP_OK;
    SP_RETURN_IF(sp__check_same_dtype(c, c->in[0], "x", b, "b"));
    if (b->rank == 1 && b->shape[0] == channels) return SP_OK;
    return sp_fail(SP_ESHAPE, "%s: b has shape %s, expected (%lld,), one number a channel",
                   sp__op_name(c), SP_SHAPE(b), (long long)channels);
}

static sp_status dense_of(const sp_call *c, int rank, const int64_t *shape, sp_meta *out)
{
    out->rank = (uint8_t)rank;
    memcpy(out->shape, shape, sizeof *shape * (size_t)rank);
    return sp__infer_dense(c, (sp_dtype)c->in[0]->dtype, c->in[0]->device, out);
}

sp_status sp__infer_convolution(const sp_call *c, sp_meta *out)
{
    const sp_tensor *x = c->in[0], *w = c->in[1];
    sp_conv g;
    SP_RETURN_IF(check_operands(c, "x", "w"));
    SP_RETURN_IF(sp__conv_of(c, x->rank - 2, x->shape, w->shape, c->attr, &g));
    SP_RETURN_IF(check_bias(c, c->in[2], g.w[0]));
    return dense_of(c, x->rank, g.y, out);
}

/* For the transposes: y must be what a convolution of x and w, one of which is `size`, gives. */
static sp_status infer_transpose(const sp_call *c, bool of_x, sp_meta *out)
{
    const sp_tensor *y = c->in[0], *other = c->in[1];
    const sp_attr *size = &c->attr[0];
    sp_conv g;
    SP_RETURN_IF(check_operands(c, "y", of_x ? "w" : "x"));
    if (size->n != y->rank)
        return sp_fail(SP_ESHAPE, "%s: size has %d numbers, y %d dimensions: expected as many",
                       sp__op_name(c), size->n, y->rank);
    const int64_t *x = of_x ? size->v.ints : other->shape, *w = of_x ? other->shape : size->v.ints;
    for (int i = 0; i < size->n; i++)
        if (size->v.ints[i] < 0)
            return sp_fail(SP_ESHAPE, "%s: size is negative in dimension %d", sp__op_name(c), i);
    SP_RETURN_IF(sp__conv_of(c, y->rank - 2, x, w, c->attr + 1, &g));
    if (memcmp(g.y, y->shape, sizeof *g.y * (size_t)y->rank) != 0) {
        char text[SP_SHAPE_TEXT];
        return sp_fail(SP_ESHAPE, "%s: y has shape %s, expected %s", sp__op_name(c), SP_SHAPE(y),
                       sp__shape_text(y->rank, g.y, text, sizeof text));
    }
    return dense_of(c, size->n, size->v.ints, out);
}

sp_status sp__infer_convolution_input(const sp_call *c, sp_meta *out)
{
    return infer_transpose(c, true, out);
}

sp_status sp__infer_convolution_weight(const sp_call *c, sp_meta *out)
{
    return infer_transpose(c, false, out);
}

/* ---- conv1d, conv2d and their transposes ----- */

static int dims_of(const sp_call *c)
{
    return c->op == SP_OP_CONV1D || c->op == SP_OP_CONV_TRANSPOSE1D ? 1 : 2;
}

/* x as a batch (of one, if it is a single example): a new reference. */
static sp_status as_batch(const sp_call *c, sp_tensor **out)
{
    const sp_tensor *x = c->in[0], *w = c->in[1];
    int n = dims_of(c);
    SP_RETURN_IF(sp__check_floating(c, x, "x"));
    SP_RETURN_IF(sp__check_same_dtype(c, x, "x", w, "w"));
    if (w->rank != n + 2 || (x->rank != n + 1 && x->rank != n + 2))
        return sp_fail(SP_ESHAPE,
                       "%s: x has shape %s and w %s; expected x of %d dimensions (%d without a "
                       "batch) and w of %d",
                       sp__op_name(c), SP_SHAPE(x), SP_SHAPE(w), n + 2, n + 1, n + 2);
    if (x->rank == n + 1) return sp_unsqueeze(x, 0, out);
    *out = sp_retain(x);
    return SP_OK;
}

static sp_status as_given(const sp_call *c, sp_tensor **batch, sp_tensor **out)
{
    if (c->in[0]->rank == dims_of(c) + 1) return sp_select(*batch, 0, 0, out);
    *out = *batch, *batch = NULL;
    return SP_OK;
}

sp_status sp__body_conv(sp_call *c)
{
    sp_tensor *x = NULL, *y = NULL;
    sp_conv g;
    int n = dims_of(c);
    sp_status status = SP_OK;
    SP_TRY(as_batch(c, &x));
    SP_TRY(sp__conv_of(c, n, x->shape, c->in[1]->shape, c->attr, &g));
    SP_TRY(check_bias(c, c->in[2], g.w[0]));
    SP_TRY(sp_convolution(x, c->in[1], g.stride, n, g.padding, n, g.dilation, n, g.groups, c->in[2],
                          &y));
    SP_TRY(as_given(c, &y, &c->out[0]));
out:
    sp_drop(&x);
    sp_drop(&y);
    return status;
}

/* The shape of which x is the convolution. attr: stride, padding, output_padding, groups, dilation.
 */
static sp_status source_of(const sp_call *c, const sp_tensor *x, const sp_attr *attr, sp_conv *g)
{
    const sp_tensor *w = c->in[1];
    int n = x->rank - 2;
    int64_t more[SP_CONV_DIMS];
    SP_RETURN_IF(sp__take_numbers(c, "stride", &attr[0], n, 1, 1, g->stride));
    SP_RETURN_IF(sp__take_numbers(c, "padding", &attr[1], n, 0, 0, g->padding));
    SP_RETURN_IF(sp__take_numbers(c, "output_padding", &attr[2], n, 0, 0, more));
    SP_RETURN_IF(sp__take_numbers(c, "dilation", &attr[4], n, 1, 1, g->dilation));
    g->groups = attr[3].v.i;
    g->x[0] = x->shape[0];
    if (__builtin_mul_overflow(w->shape[1], g->groups, &g->x[1]))
        return sp_fail(SP_EVALUE, "%s: groups is too large", sp__op_name(c));
    for (int i = 0; i < n; i++) {
        if (more[i] >= g->stride[i])
            return sp_fail(SP_EVALUE, "%s: output_padding is %lld, expected less than stride, %lld",
                           sp__op_name(c), (long long)more[i], (long long)g->stride[i]);
        g->x[i + 2] = (x->shape[i + 2] - 1) * g->stride[i] - 2 * g->padding[i] +
                      g->dilation[i] * (w->shape[i + 2] - 1) + more[i] + 1;
        if (x->shape[i + 2] < 1 || g->x[i + 2] < 1)
            return sp_fail(SP_ESHAPE,
                           "%s: x of shape %s and w of shape %s would give an empty result",
                           sp__op_name(c), SP_SHAPE(x), SP_SHAPE(w));
    }
    return SP_OK;
}

static sp_status add_bias(const sp_tensor *b, sp_tensor **y)
{
    int64_t shape[SP_CONV_DIMS + 1] = {b->shape[0], 1, 1, 1};
    sp_tensor *tall = NULL, *sum = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp_reshape(b, shape, (*y)->rank - 1, &tall));
    SP_TRY(sp_add(*y, tall, &sum));
    sp_drop(y);
    *y = sum;
out:
    sp_drop(&tall);
    return status;
}

sp_status sp__body_conv_transpose(sp_call *c)
{
    const sp_tensor *w = c->in[1], *b = c->in[2];
    sp_tensor *x = NULL, *y = NULL;
    sp_conv g;
    int n = dims_of(c);
    sp_status status = SP_OK;
    SP_TRY(as_batch(c, &x));
    SP_TRY(source_of(c, x, c->attr, &g));
    if (x->shape[1] != w->shape[0])
        SP_TRY(sp_fail(SP_ESHAPE, "%s: x of shape %s has %lld channels, w of shape %s takes %lld",
                       sp__op_name(c), SP_SHAPE(x), (long long)x->shape[1], SP_SHAPE(w),
                       (long long)w->shape[0]));
    SP_TRY(check_bias(c, b, g.x[1]));
    SP_TRY(sp_convolution_input(x, w, g.x, n + 2, g.stride, n, g.padding, n, g.dilation, n,
                                g.groups, &y));
    if (b) SP_TRY(add_bias(b, &y));
    SP_TRY(as_given(c, &y, &c->out[0]));
out:
    sp_drop(&x);
    sp_drop(&y);
    return status;
}
