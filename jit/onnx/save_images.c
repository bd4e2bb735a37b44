/* Convolutions, pooling and padding as ONNX nodes.
 *
 * ONNX wants a batch and channels before the dimensions that it pools; where Spool has other
 * leading sizes they become channels of one example, and come back behind.
 */
#include "jit/onnx/save_int.h"
#include "ops/conv.h"
#include "ops/pool.h"

/* ---- convolutions ---- */

static void spread(const sp_attr *given, int n, int64_t *out)
{
    for (int i = 0; i < n; i++) out[i] = given->v.ints[given->n == 1 ? 0 : i];
}

/* stride, padding, dilation and groups of a node, for n dimensions. */
static void put_geometry(sp_saver *s, const sp_ir_node *n, int n_dims)
{
    int64_t stride[SP_CONV_DIMS], dilation[SP_CONV_DIMS], pads[2 * SP_CONV_DIMS];
    spread(attr(n, "stride"), n_dims, stride);
    spread(attr(n, "dilation"), n_dims, dilation);
    spread(attr(n, "padding"), n_dims, pads);
    spread(attr(n, "padding"), n_dims, pads + n_dims);
    sp__save_attr_ints(s, "strides", stride, n_dims);
    sp__save_attr_ints(s, "pads", pads, 2 * n_dims);
    sp__save_attr_ints(s, "dilations", dilation, n_dims);
    sp__save_attr_int(s, "group", attr_int(n, "groups", 1));
}

static sp_status save_convolution(sp_saver *s, const sp_ir_node *n)
{
    const sp_meta *x = type_of(s, n->in[0]);
    sp__save_begin(s, "Conv", "");
    sp__save_in(s, input(s, n, 0)), sp__save_in(s, input(s, n, 1));
    if (n->n_in > 2 && n->in[2] >= 0) sp__save_in(s, input(s, n, 2));
    put_geometry(s, n, x->rank - 2);
    sp__save_end(s, result(s, n));
    return SP_OK;
}

/* The transpose of a convolution; what the sizes leave open is output_padding. */
static sp_status save_convolution_input(sp_saver *s, const sp_ir_node *n)
{
    const sp_meta *y = type_of(s, n->in[0]), *w = type_of(s, n->in[1]), *x = result_type(s, n);
    int n_dims = y->rank - 2;
    int64_t stride[SP_CONV_DIMS], padding[SP_CONV_DIMS], dilation[SP_CONV_DIMS], more[SP_CONV_DIMS];
    spread(attr(n, "stride"), n_dims, stride);
    spread(attr(n, "padding"), n_dims, padding);
    spread(attr(n, "dilation"), n_dims, dilation);
    for (int i = 0; i < n_dims; i++)
        more[i] = x->shape[i + 2] - ((y->shape[i + 2] - 1) * stride[i] - 2 * padding[i] +
                                     dilation[i] * (w->shape[i + 2] - 1) + 1);
    sp__save_begin(s, "ConvTranspose", "");
    sp__save_in(s, input(s, n, 0)), sp__save_in(s, input(s, n, 1));
    put_geometry(s, n, n_dims);
    sp__save_attr_ints(s, "output_padding", more, n_dims);
    sp__save_end(s, result(s, n));
    return SP_OK;
}

/* ---- pooling ---- */

/* What ONNX needs to know of a pooling node. */
typedef struct pooled {
    sp_pool_window w;
    int n_dims;
    const int64_t *kernel, *stride, *dilation; /* n_dims each */
    int64_t pads[2 * SP_POOL_DIMS];
    bool overhang; /* a window ends behind the padding */
    bool fits;     /* operators of ONNX can do it */
} pooled;

static sp_status pooled_of(const sp_saver *s, const sp_ir_node *n, bool mean, pooled *p)
{
    const sp_call c = {.op = n->op};
    const sp_meta *x = type_of(s, n->in[0]);
    int dims = p->n_dims = n->attr[0].n, first = SP_POOL_DIMS - dims;
    SP_RETURN_IF(sp__pool_window_of(&c, x->shape + x->rank - dims, n->attr, mean,
                                    attr_int(n, "ceil_mode", 0), &p->w));
    const sp_pool_window *w = &p->w;
    p->kernel = w->kernel + first, p->stride = w->stride + first;
    p->dilation = w->dilation + first;
    p->overhang = false;
    p->fits = x->numel > 0 && (x->dtype == SP_FLOAT32 || x->dtype == SP_FLOAT64);
    for (int i = first; i < SP_POOL_DIMS; i++) {
        int64_t end = (w->out[i] - 1) * w->stride[i] + w->dilation[i] * (w->kernel[i] - 1) + 1 -
                      w->in[i] - w->padding[i];
        p->pads[i - first] = w->padding[i];
        p->pads[i - first + dims] = end > 0 ? end : 0;
        p->overhang |= end > w->padding[i];
        p->fits &= w->padding[i] < w->kernel[i] && end < w->kernel[i];
    }
    return SP_OK;
}

/* x with one example and all planes as its channels, unless it has batch and channels. */
static sp_name as_images(sp_saver *s, const sp_ir_node *n, int n_dims)
{
    const sp_meta *x = type_of(s, n->in[0]);
    int64_t shape[SP_POOL_DIMS + 2] = {1, 1};
    if (x->rank == n_dims + 2) return input(s, n, 0);
    for (int d = 0; d < x->rank - n_dims; d++) shape[1] *= x->shape[d];
    for (int i = 0; i < n_dims; i++) shape[i + 2] = x->shape[x->rank - n_dims + i];
    return reshaped(s, input(s, n, 0), shape, n_dims + 2);
}

/* Where output i of n is computed: its own name, or, where images were made of it, another. */
static sp_name image_name(sp_saver *s, const sp_ir_node *n, int i, int n_dims)
{
    return type_of(s, n->out[i])->rank == n_dims + 2 ? sp__save_value(s, n->out[i])
                                                     : sp__save_temp(s);
}

static void end_image(sp_saver *s, const sp_ir_node *n, int i, int n_dims, sp_name image)
{
    const sp_meta *y = type_of(s, n->out[i]);
    if (y->rank == n_dims + 2) return;
    emit2(s, "Reshape", image, sp__save_const_ints(s, y->shape, y->rank),
          sp__save_value(s, n->out[i]));
}

static void put_windows(sp_saver *s, const pooled *p)
{
    sp__save_attr_ints(s, "kernel_shape", p->kernel, p->n_dims);
    sp__save_attr_ints(s, "strides", p->stride, p->n_dims);
    sp__save_attr_ints(s, "pads", p->pads, 2 * p->n_dims);
}

static bool is_used(const sp_saver *s, sp_vid v)
{
    for (int i = 0; i < s->g->n_outputs; i++)
        if (s->g->outputs[i] == v) return true;
    for (int i = 0; i < s->g->n_nodes; i++)
        for (int k = 0; k < s->g->nodes[i].n_in; k++)
            if (s->g->nodes[i].in[k] == v) return true;
    return false;
}

/* ONNX counts positions through the whole tensor, Spool in each plane. */
static sp_status save_max_pool(sp_saver *s, const sp_ir_node *n)
{
    pooled p;
    SP_RETURN_IF(pooled_of(s, n, false, &p));
    if (!p.fits) return sp__save_own_domain(s, n);
    bool places = n->n_out > 1 && is_used(s, n->out[1]);
    sp_name x = as_images(s, n, p.n_dims),
            out[2] = {image_name(s, n, 0, p.n_dims), sp__save_temp(s)};
    sp__save_begin(s, "MaxPool", "");
    sp__save_in(s, x);
    put_windows(s, &p);
    sp__save_attr_ints(s, "dilations", p.dilation, p.n_dims);
    sp__save_end_many(s, out, places ? 2 : 1);
    end_image(s, n, 0, p.n_dims, out[0]);
    if (!places) return SP_OK;
    sp_name plane = sp__save_const_scalar(s, SP_INT(p.w.in[0] * p.w.in[1]), SP_INT64),
            image = image_name(s, n, 1, p.n_dims);
    emit2(s, "Mod", out[1], plane, image);
    end_image(s, n, 1, p.n_dims, image);
    return SP_OK;
}

/* ONNX divides by what a window has, with padding or without. */
static sp_status save_avg_pool(sp_saver *s, const sp_ir_node *n)
{
    const sp_attr *divisor = attr(n, "divisor_override");
    bool with_padding = divisor != NULL || attr_int(n, "count_include_pad", 1) != 0;
    pooled p;
    SP_RETURN_IF(pooled_of(s, n, true, &p));
    if (!p.fits || (with_padding && divisor == NULL && p.overhang))
        return sp__save_own_domain(s, n);
    sp_name x = as_images(s, n, p.n_dims), image = image_name(s, n, 0, p.n_dims),
            mean = divisor != NULL ? sp__save_temp(s) : image;
    sp__save_begin(s, "AveragePool", "");
    sp__save_in(s, x);
    put_windows(s, &p);
    sp__save_attr_int(s, "count_include_pad", with_padding);
    sp__save_end(s, mean);
    if (divisor != NULL) {
        double share = (double)(p.w.kernel[0] * p.w.kernel[1]) / (double)divisor->v.i;
        emit2(s, "Mul", mean, sp__save_const_scalar(s, SP_FLOAT(share), result_type(s, n)->dtype),
              image);
    }
    end_image(s, n, 0, p.n_dims, image);
    return SP_OK;
}

/* ---- padding ---- */

static sp_status save_constant_pad(sp_saver *s, const sp_ir_node *n)
{
    const sp_meta *x = type_of(s, n->in[0]);
    const sp_attr *pad = attr(n, "pad");
    int64_t pads[2 * SP_MAX_RANK] = {0};
    for (int i = 0; i < pad->n; i++)
        pads[x->rank - 1 - i / 2 + (i % 2 ? x->rank : 0)] = pad->v.ints[i];
    sp_name value = sp__save_const_scalar(s, sp__attr_to_scalar(attr(n, "value")), x->dtype);
    sp_name sizes = sp__save_const_ints(s, pads, 2 * x->rank);
    sp__save_begin(s, "Pad", "");
    sp__save_in(s, input(s, n, 0)), sp__save_in(s, sizes), sp__save_in(s, value);
    sp__save_end(s, result(s, n));
    return SP_OK;
}

/* ---- which ops ---- */

const sp_save_row sp__save_rows_images[] = {
    {"convolution", save_convolution},
    {"convolution_input", save_convolution_input},
    {"max_pool", save_max_pool},
    {"max_pool_values", save_max_pool},
    {"avg_pool", save_avg_pool},
    {"constant_pad_nd", save_constant_pad},
    {NULL, NULL},
};
