/* ONNX operators that make views, take pieces and join tensors. */
#include "jit/onnx/load_int.h"

/* ---- shapes ---- */

static sp_status load_reshape(sp_loader *l)
{
    int64_t shape[SP_MAX_RANK];
    int n;
    SP_RETURN_IF(need_inputs(l, 2));
    SP_RETURN_IF(const_ints(l, 1, shape, SP_MAX_RANK, &n));
    const sp_meta *x = type_of(l, l->node->in[0]);
    for (int i = 0; i < n; i++) {
        if (shape[i] != 0 || attr_int(l, "allowzero", 0) != 0) continue;
        if (i >= x->rank) return malformed(l, "a 0 in the shape has no dimension to copy");
        shape[i] = x->shape[i];
    }
    return make_reshape(l, l->node->in[0], shape, n, &l->node->out[0]);
}

static sp_status load_flatten(sp_loader *l)
{
    SP_RETURN_IF(need_inputs(l, 1));
    const sp_meta *x = type_of(l, l->node->in[0]);
    int64_t axis = attr_int(l, "axis", 1), shape[2] = {1, 1};
    if (axis < 0) axis += x->rank;
    if (axis < 0 || axis > x->rank) return malformed(l, "axis out of range");
    for (int d = 0; d < x->rank; d++) shape[d >= axis] *= x->shape[d];
    return make_reshape(l, l->node->in[0], shape, 2, &l->node->out[0]);
}

static sp_status load_transpose(sp_loader *l)
{
    int64_t perm[SP_MAX_RANK];
    const sp_onnx_attr *a = attr(l, "perm");
    SP_RETURN_IF(need_inputs(l, 1));
    int rank = type_of(l, l->node->in[0])->rank;
    if (a != NULL && a->n_ints != rank) return malformed(l, "perm does not name every dimension");
    for (int d = 0; d < rank; d++) perm[d] = a != NULL ? a->ints[d] : rank - 1 - d;
    const char *name = sp_op_table[SP_OP_PERMUTE].attr_names[0];
    return make1(l, "permute", l->node->in[0], GIVEN(GIVE_INTS(name, perm, rank)),
                 &l->node->out[0]);
}

/* ONNX's Expand may also stretch the shape by the operand's own sizes: the target is the broadcast
 * of both. */
static sp_status load_expand(sp_loader *l)
{
    int64_t shape[SP_MAX_RANK], target[SP_MAX_RANK];
    int n;
    SP_RETURN_IF(need_inputs(l, 2));
    SP_RETURN_IF(const_ints(l, 1, shape, SP_MAX_RANK, &n));
    const sp_meta *x = type_of(l, l->node->in[0]);
    int rank = n > x->rank ? n : x->rank;
    for (int d = 0; d < rank; d++) {
        int64_t own = d >= rank - x->rank ? x->shape[d - rank + x->rank] : 1;
        int64_t asked = d >= rank - n ? shape[d - rank + n] : 1;
        target[d] = own == 1 ? asked : own;
    }
    const char *name = sp_op_table[SP_OP_EXPAND].attr_names[0];
    return make1(l, "expand", l->node->in[0], GIVEN(GIVE_INTS(name, target, rank)),
                 &l->node->out[0]);
}

static sp_status load_slice(sp_loader *l)
{
    int64_t bounds[4][SP_MAX_RANK];
    int n[4] = {0};
    SP_RETURN_IF(need_inputs(l, 3));
    for (int i = 0; i < 4; i++)
        if (has_input(l, i + 1)) SP_RETURN_IF(const_ints(l, i + 1, bounds[i], SP_MAX_RANK, &n[i]));
    if (n[0] != n[1] || (n[2] && n[2] != n[0]) || (n[3] && n[3] != n[0]))
        return malformed(l, "its lists differ in length");
    sp_vid x = l->node->in[0];
    if (n[0] == 0) return make1(l, "alias", x, NULL, 0, &l->node->out[0]);
    for (int i = 0; i < n[0]; i++) {
        int64_t step = n[3] ? bounds[3][i] : 1;
        if (step < 1) return unsupported(l, "steps below 1");
        given list[4] = {GIVE_INT("dim", n[2] ? bounds[2][i] : i), GIVE_INT("start", bounds[0][i]),
                         GIVE_INT("end", bounds[1][i]), GIVE_INT("step", step)};
        SP_RETURN_IF(make1(l, "slice", x, list, 4, &x));
    }
    l->node->out[0] = x;
    return SP_OK;
}

static sp_status load_squeeze(sp_loader *l)
{
    int64_t axes[SP_MAX_RANK], shape[SP_MAX_RANK];
    bool gone[SP_MAX_RANK] = {false};
    int n, kept = 0;
    SP_RETURN_IF(need_inputs(l, 1));
    SP_RETURN_IF(read_axes(l, 1, axes, &n));
    const sp_meta *x = type_of(l, l->node->in[0]);
    for (int d = 0; d < x->rank; d++) gone[d] = n < 0 && x->shape[d] == 1;
    for (int i = 0; i < n; i++) {
        int64_t d = axes[i] < 0 ? axes[i] + x->rank : axes[i];
        if (d < 0 || d >= x->rank || x->shape[d] != 1)
            return malformed(l, "an axis that is no dimension of size 1");
        gone[d] = true;
    }
    for (int d = 0; d < x->rank; d++)
        if (!gone[d]) shape[kept++] = x->shape[d];
    return make_reshape(l, l->node->in[0], shape, kept, &l->node->out[0]);
}

static sp_status load_unsqueeze(sp_loader *l)
{
    int64_t axes[SP_MAX_RANK], shape[SP_MAX_RANK];
    bool fresh[SP_MAX_RANK] = {false};
    int n, from = 0;
    SP_RETURN_IF(need_inputs(l, 1));
    SP_RETURN_IF(read_axes(l, 1, axes, &n));
    const sp_meta *x = type_of(l, l->node->in[0]);
    if (n < 0 || x->rank + n > SP_MAX_RANK) return malformed(l, "no axes, or too many");
    int rank = x->rank + n;
    for (int i = 0; i < n; i++) {
        int64_t d = axes[i] < 0 ? axes[i] + rank : axes[i];
        if (d < 0 || d >= rank || fresh[d])
            return malformed(l, "an axis out of range or named twice");
        fresh[d] = true;
    }
    for (int d = 0; d < rank; d++) shape[d] = fresh[d] ? 1 : x->shape[from++];
    return make_reshape(l, l->node->in[0], shape, rank, &l->node->out[0]);
}

/* ---- indexing ---- */

static sp_status axis_of(sp_loader *l, int64_t *out)
{
    const sp_meta *x = type_of(l, l->node->in[0]);
    int64_t axis = attr_int(l, "axis", 0);
    *out = axis < 0 ? axis + x->rank : axis;
    return *out < 0 || *out >= x->rank ? malformed(l, "axis out of range") : SP_OK;
}

/* An index of any rank: index_select over the flat index, then the shape of the index in the axis'
 * place. */
static sp_status load_gather(sp_loader *l)
{
    int64_t axis, shape[2 * SP_MAX_RANK];
    sp_vid index, flat, picked;
    SP_RETURN_IF(need_inputs(l, 2));
    SP_RETURN_IF(axis_of(l, &axis));
    sp_meta x = *type_of(l, l->node->in[0]), at = *type_of(l, l->node->in[1]);
    index = l->node->in[1];
    given dim = GIVE_INT("dim", axis);
    if (at.rank == 1)
        return node_of(l, "index_select", (sp_vid[]){l->node->in[0], index}, 2, &dim, 1,
                       &l->node->out[0]);
    SP_RETURN_IF(make_reshape(l, index, &at.numel, 1, &flat));
    SP_RETURN_IF(node_of(l, "index_select", (sp_vid[]){l->node->in[0], flat}, 2, &dim, 1, &picked));
    int rank = 0;
    for (int d = 0; d < axis; d++) shape[rank++] = x.shape[d];
    for (int d = 0; d < at.rank; d++) shape[rank++] = at.shape[d];
    for (int d = (int)axis + 1; d < x.rank; d++) shape[rank++] = x.shape[d];
    if (rank > SP_MAX_RANK) return unsupported(l, "a result with too many dimensions");
    return make_reshape(l, picked, shape, rank, &l->node->out[0]);
}

static sp_status load_gather_elements(sp_loader *l)
{
    int64_t axis;
    SP_RETURN_IF(need_inputs(l, 2));
    SP_RETURN_IF(axis_of(l, &axis));
    return node_of(l, "gather", l->node->in, 2, GIVEN(GIVE_INT("dim", axis)), &l->node->out[0]);
}

static sp_status make_like(sp_loader *l, sp_vid x, int64_t value, sp_vid *out)
{
    const char *name = sp_op_table[SP_OP_FILL_SCALAR].attr_names[0];
    return make1(l, "fill.scalar", x, GIVEN(GIVE_NUMBER(name, value)), out);
}

/* reduction "add" is scatter_add. Without one, the places written are those where scattering ones
 * gives a count. */
static sp_status load_scatter_elements(sp_loader *l)
{
    const sp_onnx_attr *reduction = attr(l, "reduction");
    sp_onnx_node *n = l->node;
    int64_t axis;
    sp_vid index, zeros, ones, sums, counts, hit;
    SP_RETURN_IF(need_inputs(l, 3));
    SP_RETURN_IF(axis_of(l, &axis));
    given dim = GIVE_INT("dim", axis);
    index = n->in[1];
    if (reduction != NULL && sp__bytes_are(reduction->text, "add"))
        return node_of(l, "scatter_add", (sp_vid[]){n->in[0], index, n->in[2]}, 3, &dim, 1,
                       &n->out[0]);
    if (reduction != NULL && !sp__bytes_are(reduction->text, "none"))
        return unsupported(l, "this reduction");
    SP_RETURN_IF(make_like(l, n->in[0], 0, &zeros));
    SP_RETURN_IF(make_like(l, n->in[2], 1, &ones));
    SP_RETURN_IF(node_of(l, "scatter_add", (sp_vid[]){zeros, index, n->in[2]}, 3, &dim, 1, &sums));
    SP_RETURN_IF(node_of(l, "scatter_add", (sp_vid[]){zeros, index, ones}, 3, &dim, 1, &counts));
    SP_RETURN_IF(make1(l, "gt.scalar", counts, GIVEN(GIVE_NUMBER("y", 0)), &hit));
    return node_of(l, "where", (sp_vid[]){hit, sums, n->in[0]}, 3, NULL, 0, &n->out[0]);
}

static sp_status load_trilu(sp_loader *l)
{
    int64_t diagonal = 0;
    SP_RETURN_IF(need_inputs(l, 1));
    if (has_input(l, 1)) {
        const sp_value *k = &l->g->values[l->node->in[1]];
        sp_scalar value;
        if (k->kind != SP_VALUE_CONST || k->constant->numel != 1)
            return unsupported(l, "the diagonal must be one constant");
        SP_RETURN_IF(sp_item(k->constant, &value));
        diagonal = value.v.i;
    }
    return make1(l, attr_int(l, "upper", 1) ? "triu" : "tril", l->node->in[0],
                 GIVEN(GIVE_INT("diagonal", diagonal)), &l->node->out[0]);
}

static sp_status load_concat(sp_loader *l)
{
    sp_onnx_node *n = l->node;
    SP_RETURN_IF(need_inputs(l, n->n_in > 0 ? n->n_in : 1));
    return node_of(l, "cat", n->in, n->n_in, GIVEN(GIVE_INT("dim", attr_int(l, "axis", 0))),
                   &n->out[0]);
}

/* ---- which operators ---- */

const sp_load_row sp__load_rows_shapes[] = {
    {"Reshape", load_reshape},
    {"Flatten", load_flatten},
    {"Transpose", load_transpose},
    {"Expand", load_expand},
    {"Slice", load_slice},
    {"Squeeze", load_squeeze},
    {"Unsqueeze", load_unsqueeze},
    {"Gather", load_gather},
    {"GatherElements", load_gather_elements},
    {"ScatterElements", load_scatter_elements},
    {"Concat", load_concat},
    {"Trilu", load_trilu},
    {NULL, NULL},
};
