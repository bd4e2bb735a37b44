/* ONNX operators for convolutions, pooling and padding. */
#include "jit/onnx/load_int.h"
#include "ops/conv.h"
#include "ops/pool.h"

/* ---- geometry ---- */

typedef struct window { /* one number a dimension; pads: before each, then after each */
    int n_dims;
    int64_t stride[SP_CONV_DIMS], dilation[SP_CONV_DIMS], pads[2 * SP_CONV_DIMS];
} window;

static sp_status numbers(const sp_loader *l, const char *name, int n, int64_t fallback,
                         int64_t *out)
{
    const sp_onnx_attr *a = attr(l, name);
    if (a != NULL && a->n_ints != n) return malformed(l, "a list of another length was expected");
    for (int i = 0; i < n; i++) out[i] = a != NULL ? a->ints[i] : fallback;
    return SP_OK;
}

/* Of the node whose first operand has batch, channels and the dimensions that count. */
static sp_status window_of(const sp_loader *l, int most, window *w)
{
    const sp_onnx_attr *mode = attr(l, "auto_pad");
    w->n_dims = type_of(l, l->node->in[0])->rank - 2;
    if (w->n_dims < 1 || w->n_dims > most) return unsupported(l, "that many dimensions");
    if (mode != NULL && !sp__bytes_are(mode->text, "NOTSET") && !sp__bytes_are(mode->text, "VALID"))
        return unsupported(l, "auto_pad");
    SP_RETURN_IF(numbers(l, "strides", w->n_dims, 1, w->stride));
    SP_RETURN_IF(numbers(l, "dilations", w->n_dims, 1, w->dilation));
    SP_RETURN_IF(numbers(l, "pads", 2 * w->n_dims, 0, w->pads));
    for (int i = 0; i < 2 * w->n_dims; i++)
        if (w->pads[i] < 0 || w->pads[i] > INT32_MAX) return malformed(l, "pads out of range");
    for (int i = 0; i < w->n_dims; i++)
        if (w->stride[i] < 1 || w->dilation[i] < 1) return malformed(l, "a step below 1");
    return SP_OK;
}

static bool is_even(const window *w)
{
    for (int i = 0; i < w->n_dims; i++)
        if (w->pads[i] != w->pads[i + w->n_dims]) return false;
    return true;
}

/* ---- convolutions ---- */

/* Padding that differs before and after is put there first. */
static sp_status padded(sp_loader *l, window *w, sp_vid *x)
{
    int64_t pad[2 * SP_CONV_DIMS];
    if (is_even(w)) return SP_OK;
    for (int i = 0; i < w->n_dims; i++) {
        pad[2 * (w->n_dims - 1 - i)] = w->pads[i];
        pad[2 * (w->n_dims - 1 - i) + 1] = w->pads[i + w->n_dims];
    }
    memset(w->pads, 0, sizeof w->pads);
    return make1(l, "constant_pad_nd", *x,
                 GIVEN(GIVE_INTS("pad", pad, 2 * w->n_dims), GIVE_NUMBER("value", 0)), x);
}

static sp_status load_conv(sp_loader *l)
{
    sp_onnx_node *n = l->node;
    window w;
    SP_RETURN_IF(need_inputs(l, 2));
    SP_RETURN_IF(window_of(l, SP_CONV_DIMS, &w));
    sp_vid in[3] = {n->in[0], n->in[1], has_input(l, 2) ? n->in[2] : -1};
    SP_RETURN_IF(padded(l, &w, &in[0]));
    given list[4] = {
        GIVE_INTS("stride", w.stride, w.n_dims), GIVE_INTS("padding", w.pads, w.n_dims),
        GIVE_INTS("dilation", w.dilation, w.n_dims), GIVE_INT("groups", attr_int(l, "group", 1))};
    return node_of(l, "convolution", in, 3, list, 4, &n->out[0]);
}

/* x + b, one number of b a channel. */
static sp_status add_channels(sp_loader *l, sp_vid x, sp_vid b, sp_vid *out)
{
    int64_t shape[SP_CONV_DIMS + 1] = {type_of(l, b)->numel, 1, 1, 1};
    SP_RETURN_IF(make_reshape(l, b, shape, type_of(l, x)->rank - 1, &b));
    return make2(l, "add", x, b, out);
}

static sp_status load_conv_transpose(sp_loader *l)
{
    sp_onnx_node *n = l->node;
    int64_t size[SP_CONV_DIMS + 2], more[SP_CONV_DIMS];
    window w;
    sp_vid x;
    SP_RETURN_IF(need_inputs(l, 2));
    SP_RETURN_IF(window_of(l, SP_CONV_DIMS, &w));
    SP_RETURN_IF(numbers(l, "output_padding", w.n_dims, 0, more));
    const sp_meta *y = type_of(l, n->in[0]), *kernel = type_of(l, n->in[1]);
    if (attr(l, "output_shape") != NULL || !is_even(&w) || kernel->rank != y->rank)
        return unsupported(l, "output_shape, or pads that differ at both ends");
    int64_t groups = attr_int(l, "group", 1);
    size[0] = y->shape[0];
    if (__builtin_mul_overflow(kernel->shape[1], groups, &size[1]))
        return malformed(l, "group is too large");
    for (int i = 0; i < w.n_dims; i++)
        size[i + 2] = (y->shape[i + 2] - 1) * w.stride[i] - 2 * w.pads[i] +
                      w.dilation[i] * (kernel->shape[i + 2] - 1) + more[i] + 1;
    given list[5] = {GIVE_INTS("size", size, w.n_dims + 2), GIVE_INTS("stride", w.stride, w.n_dims),
                     GIVE_INTS("padding", w.pads, w.n_dims),
                     GIVE_INTS("dilation", w.dilation, w.n_dims), GIVE_INT("groups", groups)};
    SP_RETURN_IF(
        node_of(l, "convolution_input", n->in, 2, list, 5, has_input(l, 2) ? &x : &n->out[0]));
    return has_input(l, 2) ? add_channels(l, x, n->in[2], &n->out[0]) : SP_OK;
}

/* ---- pooling ---- */

/* Whether windows with the padding before each dimension on both sides, rounded up or not, are as
 * many as the file's. */
static bool counts_agree(const sp_meta *x, const window *w, const int64_t *kernel, bool file_ceil,
                         bool ceil_mode)
{
    const sp_call c = {.op = SP_OP_MAX_POOL};
    const sp_attr attrs[4] = {{.v.ints = kernel, .n = w->n_dims},
                              {.v.ints = w->stride, .n = w->n_dims},
                              {.v.ints = w->pads, .n = w->n_dims},
                              {.v.ints = w->dilation, .n = w->n_dims}};
    sp_pool_window p;
    if (sp__pool_window_of(&c, x->shape + 2, attrs, false, ceil_mode, &p) != SP_OK) return false;
    for (int i = 0; i < w->n_dims; i++) {
        int64_t room = x->shape[i + 2] + w->pads[i] + w->pads[i + w->n_dims] -
                       w->dilation[i] * (kernel[i] - 1) - 1;
        int64_t n = (room + (file_ceil ? w->stride[i] - 1 : 0)) / w->stride[i] + 1;
        if (file_ceil && (n - 1) * w->stride[i] >= x->shape[i + 2] + w->pads[i]) n--;
        if (p.out[SP_POOL_DIMS - w->n_dims + i] != n) return false;
    }
    return true;
}

static sp_status pool_of(sp_loader *l, window *w, int64_t *kernel, bool *ceil_mode)
{
    bool file_ceil = attr_int(l, "ceil_mode", 0) != 0;
    SP_RETURN_IF(need_inputs(l, 1));
    SP_RETURN_IF(window_of(l, SP_POOL_DIMS, w));
    if (attr(l, "kernel_shape") == NULL) return malformed(l, "kernel_shape is missing");
    SP_RETURN_IF(numbers(l, "kernel_shape", w->n_dims, 1, kernel));
    for (int i = 0; i < w->n_dims; i++)
        if (kernel[i] < 1 || kernel[i] > INT32_MAX) return malformed(l, "kernel_shape");
    const sp_meta *x = type_of(l, l->node->in[0]);
    *ceil_mode = false;
    if (counts_agree(x, w, kernel, file_ceil, false)) return SP_OK;
    *ceil_mode = true;
    return counts_agree(x, w, kernel, file_ceil, true)
               ? SP_OK
               : unsupported(l, "pads that differ at both ends, or take up more than a window");
}

/* Positions in each plane as positions in the whole tensor. */
static sp_status through_all(sp_loader *l, sp_vid places, int64_t plane, sp_vid *out)
{
    sp_meta x = *type_of(l, places);
    int64_t planes = x.shape[0] * x.shape[1],
            shape[SP_POOL_DIMS + 2] = {x.shape[0], x.shape[1], 1, 1};
    given list[4] = {GIVE_NUMBER("start", 0),
                     GIVE_NUMBER("end", planes * plane),
                     GIVE_NUMBER("step", plane > 0 ? plane : 1),
                     {"dtype", {.v.i = SP_INT64, .kind = SP_ATTR_DTYPE}}};
    sp_vid first;
    SP_RETURN_IF(node_of(l, "arange", NULL, 0, list, 4, &first));
    SP_RETURN_IF(make_reshape(l, first, shape, x.rank, &first));
    return make2(l, "add", places, first, out);
}

static sp_status load_max_pool(sp_loader *l)
{
    int64_t kernel[SP_POOL_DIMS], plane = 1;
    sp_vid results[SP_MAX_OUT];
    window w;
    bool ceil_mode;
    SP_RETURN_IF(pool_of(l, &w, kernel, &ceil_mode));
    if (attr_int(l, "storage_order", 0) != 0) return unsupported(l, "column-major positions");
    given list[5] = {GIVE_INTS("kernel_size", kernel, w.n_dims),
                     GIVE_INTS("stride", w.stride, w.n_dims),
                     GIVE_INTS("padding", w.pads, w.n_dims),
                     GIVE_INTS("dilation", w.dilation, w.n_dims), GIVE_INT("ceil_mode", ceil_mode)};
    SP_RETURN_IF(node_of_many(l, "max_pool", l->node->in, 1, list, 5, results));
    l->node->out[0] = results[0];
    if (l->node->n_out < 2) return SP_OK;
    for (int i = 0; i < w.n_dims; i++) plane *= type_of(l, l->node->in[0])->shape[i + 2];
    return through_all(l, results[1], plane, &l->node->out[1]);
}

/* With padding counted, a window must end inside of it. */
static sp_status check_counted(const sp_loader *l, const window *w, const int64_t *kernel)
{
    const sp_meta *x = type_of(l, l->node->in[0]);
    for (int i = 0; i < w->n_dims; i++) {
        int64_t whole = x->shape[i + 2] + w->pads[i] + w->pads[i + w->n_dims];
        int64_t last = (whole - kernel[i]) / w->stride[i] * w->stride[i] + kernel[i];
        if (last > x->shape[i + 2] + 2 * w->pads[i])
            return unsupported(l, "pads that are counted and differ at both ends");
    }
    return SP_OK;
}

static sp_status load_average_pool(sp_loader *l)
{
    int64_t kernel[SP_POOL_DIMS];
    bool counted = attr_int(l, "count_include_pad", 0) != 0, ceil_mode;
    window w;
    SP_RETURN_IF(pool_of(l, &w, kernel, &ceil_mode));
    for (int i = 0; i < w.n_dims; i++)
        if (w.dilation[i] != 1) return unsupported(l, "dilations");
    if (counted && (ceil_mode || attr_int(l, "ceil_mode", 0) != 0))
        return unsupported(l, "ceil_mode with padding that is counted");
    if (counted) SP_RETURN_IF(check_counted(l, &w, kernel));
    given list[5] = {GIVE_INTS("kernel_size", kernel, w.n_dims),
                     GIVE_INTS("stride", w.stride, w.n_dims),
                     GIVE_INTS("padding", w.pads, w.n_dims), GIVE_INT("ceil_mode", ceil_mode),
                     GIVE_INT("count_include_pad", counted)};
    return make1(l, "avg_pool", l->node->in[0], list, 5, &l->node->out[0]);
}

static sp_status load_global(sp_loader *l, bool mean)
{
    int64_t dims[SP_MAX_RANK];
    SP_RETURN_IF(need_inputs(l, 1));
    int rank = type_of(l, l->node->in[0])->rank;
    if (rank < 3) return malformed(l, "batch, channels and more were expected");
    for (int d = 2; d < rank; d++) dims[d - 2] = d;
    if (mean) return make_mean(l, l->node->in[0], dims, rank - 2, true, &l->node->out[0]);
    return make1(l, "amax", l->node->in[0],
                 GIVEN(GIVE_INTS("dim", dims, rank - 2), GIVE_INT("keepdim", 1)), &l->node->out[0]);
}

static sp_status load_global_average(sp_loader *l)
{
    return load_global(l, true);
}

static sp_status load_global_max(sp_loader *l)
{
    return load_global(l, false);
}

/* ---- padding ---- */

static sp_status load_pad(sp_loader *l)
{
    const sp_onnx_attr *mode = attr(l, "mode");
    int64_t pads[2 * SP_MAX_RANK], pad[2 * SP_MAX_RANK];
    int n;
    given list[2];
    SP_RETURN_IF(need_inputs(l, 2));
    if (mode != NULL && !sp__bytes_are(mode->text, "constant")) return unsupported(l, "its mode");
    if (has_input(l, 3)) return unsupported(l, "axes");
    SP_RETURN_IF(const_ints(l, 1, pads, 2 * SP_MAX_RANK, &n));
    int rank = type_of(l, l->node->in[0])->rank;
    if (n != 2 * rank) return malformed(l, "two numbers a dimension were expected");
    for (int d = 0; d < rank; d++) {
        pad[2 * (rank - 1 - d)] = pads[d];
        pad[2 * (rank - 1 - d) + 1] = pads[d + rank];
    }
    list[0] = GIVE_INTS("pad", pad, n);
    list[1] = GIVE_NUMBER("value", 0);
    if (has_input(l, 2))
        SP_RETURN_IF(
            const_number(l, 2, "the value must be one constant of the file", "value", &list[1]));
    return make1(l, "constant_pad_nd", l->node->in[0], list, 2, &l->node->out[0]);
}

/* ---- which operators ---- */

const sp_load_row sp__load_rows_images[] = {
    {"Conv", load_conv},
    {"ConvTranspose", load_conv_transpose},
    {"MaxPool", load_max_pool},
    {"AveragePool", load_average_pool},
    {"GlobalAveragePool", load_global_average},
    {"GlobalMaxPool", load_global_max},
    {"Pad", load_pad},
    {NULL, NULL},
};
