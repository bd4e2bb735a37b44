/* Normalisations as ONNX nodes. Their weights are required there: one of ones stands for none. */
#include "jit/onnx/save_int.h"

/* (C), or the last dimensions of x, filled with a number. */
static sp_name filled(sp_saver *s, const sp_meta *x, int first, int n, int64_t value)
{
    sp_name number = sp__save_const_scalar(s, SP_INT(value), x->dtype);
    return temp2(s, "Expand", number, sp__save_const_ints(s, x->shape + first, n));
}

/* Input i, or what stands for it: n dimensions from `first` on of `value`. */
static sp_name given_or(sp_saver *s, const sp_ir_node *n, int i, int first, int dims, int64_t value)
{
    if (i < n->n_in && n->in[i] >= 0) return input(s, n, i);
    return filled(s, type_of(s, n->in[0]), first, dims, value);
}

static sp_status save_normalized(sp_saver *s, const sp_ir_node *n, const char *op_type, int first,
                                 int dims, const char *name, int64_t number)
{
    if (result_type(s, n)->numel == 0) return save_identity(s, n); /* other runtimes divide by 0 */
    sp_name weight = given_or(s, n, 1, first, dims, 1), bias = given_or(s, n, 2, first, dims, 0);
    sp__save_begin(s, op_type, "");
    sp__save_in(s, input(s, n, 0)), sp__save_in(s, weight), sp__save_in(s, bias);
    sp__save_attr_int(s, name, number);
    sp__save_attr_float(s, "epsilon", (float)attr(n, "eps")->v.f);
    sp__save_end(s, result(s, n));
    return SP_OK;
}

static sp_status save_layer_norm(sp_saver *s, const sp_ir_node *n)
{
    int dims = attr(n, "normalized_shape")->n, first = type_of(s, n->in[0])->rank - dims;
    return save_normalized(s, n, "LayerNormalization", first, dims, "axis", first);
}

static sp_status save_group_norm(sp_saver *s, const sp_ir_node *n)
{
    return save_normalized(s, n, "GroupNormalization", 1, 1, "num_groups",
                           attr_int(n, "num_groups", 1));
}

/* What batch_norm comes down to once its statistics are numbers: mean 0, variance 1. */
static sp_status save_channel_affine(sp_saver *s, const sp_ir_node *n)
{
    const sp_meta *x = type_of(s, n->in[0]);
    sp_name shift = given_or(s, n, 2, 1, 1, 0), mean = filled(s, x, 1, 1, 0),
            variance = filled(s, x, 1, 1, 1);
    sp__save_begin(s, "BatchNormalization", "");
    sp__save_in(s, input(s, n, 0)), sp__save_in(s, input(s, n, 1));
    sp__save_in(s, shift), sp__save_in(s, mean), sp__save_in(s, variance);
    sp__save_attr_float(s, "epsilon", 0);
    sp__save_end(s, result(s, n));
    return SP_OK;
}

const sp_save_row sp__save_rows_norm[] = {
    {"layer_norm", save_layer_norm},
    {"group_norm", save_group_norm},
    {"channel_affine", save_channel_affine},
    {NULL, NULL},
};
