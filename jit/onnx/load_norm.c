/* ONNX operators for normalisation. */
#include "jit/onnx/load_int.h"

static double epsilon(const sp_loader *l)
{
    const sp_onnx_attr *a = attr(l, "epsilon");
    return a != NULL ? a->f : 1e-5;
}

static sp_status load_layer_norm(sp_loader *l)
{
    sp_onnx_node *n = l->node;
    SP_RETURN_IF(need_inputs(l, 2));
    const sp_meta *x = type_of(l, n->in[0]);
    int64_t axis = attr_int(l, "axis", -1);
    if (axis < 0) axis += x->rank;
    if (axis < 0 || axis >= x->rank) return malformed(l, "an axis out of range");
    if (n->n_out > 1) return unsupported(l, "its statistics as results");
    sp_vid in[3] = {n->in[0], n->in[1], has_input(l, 2) ? n->in[2] : -1};
    given list[2] = {GIVE_INTS("normalized_shape", x->shape + axis, x->rank - (int)axis),
                     {"eps", sp__attr_float(epsilon(l))}};
    return node_of(l, "layer_norm", in, 3, list, 2, &n->out[0]);
}

static sp_status load_group_norm(sp_loader *l)
{
    sp_onnx_node *n = l->node;
    SP_RETURN_IF(need_inputs(l, 3));
    const sp_meta *x = type_of(l, n->in[0]);
    if (x->rank < 2) return malformed(l, "channels were expected");
    if (type_of(l, n->in[1])->numel != x->shape[1]) return unsupported(l, "a weight a group");
    given list[2] = {GIVE_INT("num_groups", attr_int(l, "num_groups", 1)),
                     {"eps", sp__attr_float(epsilon(l))}};
    return node_of(l, "group_norm", n->in, 3, list, 2, &n->out[0]);
}

/* x scale' + shift' with scale' = scale / sqrt(variance + epsilon), shift' = shift - mean scale' */
static sp_status load_batch_norm(sp_loader *l)
{
    sp_onnx_node *n = l->node;
    sp_vid scale, shift;
    SP_RETURN_IF(need_inputs(l, 5));
    if (attr_int(l, "training_mode", 0) != 0) return unsupported(l, "training_mode");
    const given plus = {"y", sp__attr_scalar(SP_FLOAT(epsilon(l)))};
    SP_RETURN_IF(make1(l, "add.scalar", n->in[4], &plus, 1, &scale));
    SP_RETURN_IF(make1(l, "rsqrt", scale, NULL, 0, &scale));
    SP_RETURN_IF(make2(l, "mul", scale, n->in[1], &scale));
    SP_RETURN_IF(make2(l, "mul", n->in[3], scale, &shift));
    SP_RETURN_IF(make2(l, "sub", n->in[2], shift, &shift));
    return node_of(l, "channel_affine", (sp_vid[]){n->in[0], scale, shift}, 3, NULL, 0, &n->out[0]);
}

const sp_load_row sp__load_rows_norm[] = {
    {"LayerNormalization", load_layer_norm},
    {"GroupNormalization", load_group_norm},
    {"BatchNormalization", load_batch_norm},
    {NULL, NULL},
};
