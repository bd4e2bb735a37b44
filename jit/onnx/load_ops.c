/* ONNX operators as ops of the table.
 *
 * Operands that ONNX passes as tensors but that shape the graph (axes, shapes, bounds) must be
 * constants of the file.
 */
#include "jit/onnx/load_int.h"

#include <math.h>

/* ---- pointwise ---- */

static const struct {
    const char *onnx, *op;
    int n_in;
} direct[] = {
    {"Add", "add", 2},
    {"Sub", "sub", 2},
    {"Mul", "mul", 2},
    {"Div", "div", 2},
    {"Neg", "neg", 1},
    {"Exp", "exp", 1},
    {"Log", "log", 1},
    {"Tanh", "tanh", 1},
    {"Sqrt", "sqrt", 1},
    {"Relu", "relu", 1},
    {"Max", "maximum", 2},
    {"Equal", "eq", 2},
    {"Less", "lt", 2},
    {"LessOrEqual", "le", 2},
    {"Greater", "gt", 2},
    {"GreaterOrEqual", "ge", 2},
    {"Where", "where", 3},
    {"MatMul", "matmul", 2},
    {"Identity", "alias", 1},
    {"Sign", "sign", 1},
    {"Floor", "floor", 1},
    {"Ceil", "ceil", 1},
    {"Round", "round", 1},
    {"IsNaN", "isnan", 1},
    {"BitwiseAnd", "bitwise_and", 2},
    {"BitwiseOr", "bitwise_or", 2},
    {"BitwiseXor", "bitwise_xor", 2},
    {"BitwiseNot", "bitwise_not", 1},
};

static sp_status load_direct(sp_loader *l, int row)
{
    sp_onnx_node *n = l->node;
    SP_RETURN_IF(need_inputs(l, direct[row].n_in));
    if (n->n_in > direct[row].n_in) return unsupported(l, "more operands than the op takes");
    bool whole = type_of(l, n->in[0])->dtype == SP_INT64 && strcmp(direct[row].onnx, "Div") == 0;
    if (whole) return unsupported(l, "division of whole numbers");
    return node_of(l, direct[row].op, n->in, direct[row].n_in, NULL, 0, &n->out[0]);
}

static sp_status load_not(sp_loader *l)
{
    SP_RETURN_IF(need_inputs(l, 1));
    return make1(l, "eq.scalar", l->node->in[0], GIVEN(GIVE_NUMBER("y", 0)), &l->node->out[0]);
}

static sp_status load_pow(sp_loader *l)
{
    given exponent;
    SP_RETURN_IF(need_inputs(l, 2));
    const sp_value *e = &l->g->values[l->node->in[1]];
    if (e->kind != SP_VALUE_CONST || e->constant->numel != 1)
        return make2(l, "pow", l->node->in[0], l->node->in[1], &l->node->out[0]);
    const char *name = sp_op_table[SP_OP_POW_SCALAR].attr_names[0];
    SP_RETURN_IF(const_number(l, 1, "the exponent must be a constant", name, &exponent));
    return make1(l, "pow.scalar", l->node->in[0], &exponent, 1, &l->node->out[0]);
}

static sp_status load_cast(sp_loader *l)
{
    sp_dtype dtype;
    SP_RETURN_IF(need_inputs(l, 1));
    SP_RETURN_IF(sp__onnx_dtype(attr_int(l, "to", 0), &dtype));
    return make_cast(l, l->node->in[0], dtype, &l->node->out[0]);
}

static sp_status load_gelu(sp_loader *l)
{
    const sp_onnx_attr *a = attr(l, "approximate");
    bool tanh = a != NULL && sp__bytes_are(a->text, "tanh");
    SP_RETURN_IF(need_inputs(l, 1));
    if (a != NULL && !tanh && !sp__bytes_are(a->text, "none"))
        return malformed(l, "approximate is none or tanh");
    given how = {"approximate", {.v.i = tanh, .kind = SP_ATTR_INT}};
    return make1(l, "gelu", l->node->in[0], &how, 1, &l->node->out[0]);
}

/* ---- reductions ---- */

static sp_status load_reduction(sp_loader *l, const char *op_name)
{
    int64_t axes[SP_MAX_RANK];
    int n;
    SP_RETURN_IF(need_inputs(l, 1));
    SP_RETURN_IF(read_axes(l, 1, axes, &n));
    if (n <= 0 && attr_int(l, "noop_with_empty_axes", 0) != 0)
        return make1(l, "alias", l->node->in[0], NULL, 0, &l->node->out[0]);
    int rank = type_of(l, l->node->in[0])->rank;
    if (n <= 0)
        for (n = 0; n < rank; n++) axes[n] = n;
    bool keepdim = attr_int(l, "keepdims", 1) != 0;
    if (strcmp(op_name, "mean") == 0)
        return make_mean(l, l->node->in[0], axes, n, keepdim, &l->node->out[0]);
    given list[2] = {GIVE_INTS("dim", axes, n), GIVE_INT("keepdim", keepdim)};
    return make1(l, op_name, l->node->in[0], list, 2, &l->node->out[0]);
}

static sp_status load_sum(sp_loader *l)
{
    return load_reduction(l, "sum");
}

static sp_status load_mean(sp_loader *l)
{
    return load_reduction(l, "mean");
}

static sp_status load_max(sp_loader *l)
{
    return load_reduction(l, "amax");
}

static sp_status load_min(sp_loader *l)
{
    return load_reduction(l, "amin");
}

/* Of several axes one after the other, in the order of the file. */
static sp_status load_prod(sp_loader *l)
{
    int64_t axes[SP_MAX_RANK];
    sp_vid v = l->node->in[0];
    int n;
    SP_RETURN_IF(need_inputs(l, 1));
    SP_RETURN_IF(read_axes(l, 1, axes, &n));
    if (n <= 0 && attr_int(l, "noop_with_empty_axes", 0) != 0)
        return make1(l, "alias", v, NULL, 0, &l->node->out[0]);
    int rank = type_of(l, v)->rank;
    if (n <= 0)
        for (n = 0; n < rank; n++) axes[n] = n;
    for (int i = 0; i < n; i++)
        SP_RETURN_IF(
            make1(l, "prod", v, GIVEN(GIVE_INT("dim", axes[i]), GIVE_INT("keepdim", 1)), &v));
    if (attr_int(l, "keepdims", 1) != 0) {
        l->node->out[0] = v;
        return SP_OK;
    }
    return make1(l, "squeeze", v, GIVEN(GIVE_INTS("dim", axes, n)), &l->node->out[0]);
}

static sp_status load_cumsum(sp_loader *l)
{
    int64_t axis;
    int n;
    SP_RETURN_IF(need_inputs(l, 2));
    if (attr_int(l, "exclusive", 0) != 0 || attr_int(l, "reverse", 0) != 0)
        return unsupported(l, "exclusive or reverse");
    SP_RETURN_IF(const_ints(l, 1, &axis, 1, &n));
    if (n != 1) return malformed(l, "one axis was expected");
    return make1(l, "cumsum", l->node->in[0], GIVEN(GIVE_INT("dim", axis)), &l->node->out[0]);
}

static sp_status load_position(sp_loader *l, const char *op)
{
    SP_RETURN_IF(need_inputs(l, 1));
    if (attr_int(l, "select_last_index", 0) != 0) return unsupported(l, "select_last_index");
    given list[2] = {GIVE_INT("dim", attr_int(l, "axis", 0)),
                     GIVE_INT("keepdim", attr_int(l, "keepdims", 1) != 0)};
    return make1(l, op, l->node->in[0], list, 2, &l->node->out[0]);
}

static sp_status load_argmax(sp_loader *l)
{
    return load_position(l, "argmax");
}

static sp_status load_argmin(sp_loader *l)
{
    return load_position(l, "argmin");
}

/* ---- products ---- */

static sp_status turned(sp_loader *l, sp_vid x, bool turn, sp_vid *out)
{
    *out = x;
    if (!turn) return SP_OK;
    if (type_of(l, x)->rank != 2) return malformed(l, "a matrix was expected");
    return make1(l, "transpose", x, GIVEN(GIVE_INT("dim0", 0), GIVE_INT("dim1", 1)), out);
}

static sp_status load_gemm(sp_loader *l)
{
    const sp_onnx_attr *alpha = attr(l, "alpha"), *beta = attr(l, "beta");
    sp_onnx_node *n = l->node;
    sp_vid x, w, product;
    SP_RETURN_IF(need_inputs(l, 2));
    if ((alpha != NULL && alpha->f != 1) || (beta != NULL && beta->f != 1))
        return unsupported(l, "alpha or beta other than 1");
    SP_RETURN_IF(turned(l, n->in[0], attr_int(l, "transA", 0) != 0, &x));
    bool bias = has_input(l, 2), row = bias && type_of(l, n->in[2])->rank == 1;
    if (attr_int(l, "transB", 0) != 0 && (row || !bias))
        return node_of(l, "linear", (sp_vid[]){x, n->in[1], bias ? n->in[2] : -1}, 3, NULL, 0,
                       &n->out[0]);
    SP_RETURN_IF(turned(l, n->in[1], attr_int(l, "transB", 0) != 0, &w));
    SP_RETURN_IF(make2(l, "matmul", x, w, bias ? &product : &n->out[0]));
    return bias ? make2(l, "add", product, n->in[2], &n->out[0]) : SP_OK;
}

/* ---- networks, creation ---- */

static sp_status load_log_softmax(sp_loader *l)
{
    SP_RETURN_IF(need_inputs(l, 1));
    return make1(l, "log_softmax", l->node->in[0], GIVEN(GIVE_INT("dim", attr_int(l, "axis", -1))),
                 &l->node->out[0]);
}

static sp_status load_softmax(sp_loader *l)
{
    SP_RETURN_IF(need_inputs(l, 1));
    return make1(l, "softmax", l->node->in[0], GIVEN(GIVE_INT("dim", attr_int(l, "axis", -1))),
                 &l->node->out[0]);
}

static sp_status load_nll(sp_loader *l)
{
    const sp_onnx_attr *reduction = attr(l, "reduction");
    SP_RETURN_IF(need_inputs(l, 2));
    if (has_input(l, 2)) return unsupported(l, "weights");
    int64_t code = reduction == NULL || sp__bytes_are(reduction->text, "mean") ? 1
                   : sp__bytes_are(reduction->text, "sum")                     ? 2
                                                                               : 0;
    int64_t ignored = attr_int(l, "ignore_index", -100);
    return node_of(l, "nll_loss", l->node->in, 2,
                   GIVEN(GIVE_INT("reduction", code), GIVE_INT("ignore_index", ignored)),
                   &l->node->out[0]);
}

static sp_status load_constant(sp_loader *l)
{
    const sp_onnx_attr *value = attr(l, "value"), *ints = attr(l, "value_ints"),
                       *one = attr(l, "value_int");
    const sp_onnx_attr *real = attr(l, "value_float");
    sp_tensor *t = NULL;
    sp_status status;
    SP_RETURN_IF(need_inputs(l, 0));
    if (value != NULL)
        status = sp__onnx_tensor(value->tensor, NULL, &t);
    else if (ints != NULL)
        status = sp_from_data(ints->ints, SP_INT64, 1, &(int64_t){ints->n_ints}, &t);
    else if (one != NULL)
        status = sp_from_data(&one->i, SP_INT64, 0, NULL, &t);
    else if (real != NULL)
        status = sp_from_data(&real->f, SP_FLOAT32, 0, NULL, &t);
    else
        return unsupported(l, "constants other than tensors, integers and floats");
    if (status == SP_OK) status = sp__graph_const(l->g, t, &l->node->out[0]);
    sp_drop(&t);
    return status;
}

static sp_status load_constant_of_shape(sp_loader *l)
{
    const sp_onnx_attr *value = attr(l, "value");
    int64_t shape[SP_MAX_RANK];
    int n;
    sp_tensor *t = NULL;
    sp_vid number;
    float zero = 0;
    SP_RETURN_IF(need_inputs(l, 1));
    SP_RETURN_IF(const_ints(l, 0, shape, SP_MAX_RANK, &n));
    SP_RETURN_IF(value != NULL ? sp__onnx_tensor(value->tensor, NULL, &t)
                               : sp_from_data(&zero, SP_FLOAT32, 0, NULL, &t));
    sp_status status = sp__graph_const(l->g, t, &number);
    sp_drop(&t);
    SP_RETURN_IF(status);
    const char *name = sp_op_table[SP_OP_EXPAND].attr_names[0];
    SP_RETURN_IF(make_reshape(l, number, NULL, 0, &number));
    return make1(l, "expand", number, GIVEN(GIVE_INTS(name, shape, n)), &l->node->out[0]);
}

static sp_status load_mod(sp_loader *l)
{
    SP_RETURN_IF(need_inputs(l, 2));
    const char *name = attr_int(l, "fmod", 0) ? "fmod" : "remainder";
    return make2(l, name, l->node->in[0], l->node->in[1], &l->node->out[0]);
}

static sp_status load_is_inf(sp_loader *l)
{
    SP_RETURN_IF(need_inputs(l, 1));
    bool up = attr_int(l, "detect_positive", 1) != 0, down = attr_int(l, "detect_negative", 1) != 0;
    if (!up && !down) return unsupported(l, "looking for neither infinity");
    const char *name = up && down ? "isinf" : up ? "isposinf" : "isneginf";
    return make1(l, name, l->node->in[0], NULL, 0, &l->node->out[0]);
}

static sp_status load_clip(sp_loader *l)
{
    given bound[2];
    SP_RETURN_IF(need_inputs(l, 1));
    sp_vid x = l->node->in[0], *out = &l->node->out[0];
    if (attr(l, "min") || attr(l, "max")) return unsupported(l, "bounds as attributes");
    bool low = has_input(l, 1), high = has_input(l, 2);
    if (low)
        SP_RETURN_IF(const_number(l, 1, "bounds must be constants of the file", "min", &bound[0]));
    if (high)
        SP_RETURN_IF(const_number(l, 2, "bounds must be constants of the file", "max", &bound[1]));
    if (low && high) return make1(l, "clamp", x, bound, 2, out);
    if (low) return make1(l, "clamp_min.scalar", x, &bound[0], 1, out);
    if (high) return make1(l, "clamp_max.scalar", x, &bound[1], 1, out);
    return make1(l, "alias", x, NULL, 0, out);
}

static sp_status load_range(sp_loader *l)
{
    given list[4];
    SP_RETURN_IF(need_inputs(l, 3));
    SP_RETURN_IF(const_number(l, 0, "bounds must be constants of the file", "start", &list[0]));
    SP_RETURN_IF(const_number(l, 1, "bounds must be constants of the file", "end", &list[1]));
    SP_RETURN_IF(const_number(l, 2, "bounds must be constants of the file", "step", &list[2]));
    list[3] = (given){"dtype", {.v.i = type_of(l, l->node->in[0])->dtype, .kind = SP_ATTR_DTYPE}};
    return node_of(l, "arange", NULL, 0, list, 4, &l->node->out[0]);
}

/* ---- the domain spool ---- */

static sp_status load_own(sp_loader *l)
{
    sp_onnx_node *n = l->node;
    char name[64];
    given list[SP_MAX_ATTR];
    if (n->op_type.size >= sizeof name) return unsupported(l, "no such op");
    memcpy(name, n->op_type.data, n->op_type.size);
    name[n->op_type.size] = '\0';
    int op = sp__op_by_name(name), count = 0;
    if (op < 0) return unsupported(l, "no such op");
    const sp_op_info *info = &sp_op_table[op];
    for (int i = 0; i < info->n_attr; i++) {
        const sp_onnx_attr *a = attr(l, info->attr_names[i]);
        sp_attr *to = &list[count].value;
        sp_dtype dtype;
        if (a == NULL) continue;
        list[count].name = info->attr_names[i];
        *to = (sp_attr){.v.i = a->i, .kind = info->attr_kinds[i], .tag = SP_INT64};
        if (to->kind == SP_ATTR_INTS) to->v.ints = a->ints, to->n = a->n_ints;
        if (to->kind == SP_ATTR_FLOAT ||
            (to->kind == SP_ATTR_SCALAR && (a->f != 0 || signbit(a->f))))
            to->v.f = a->f, to->tag = SP_FLOAT64;
        if (to->kind == SP_ATTR_DTYPE) {
            SP_RETURN_IF(sp__onnx_dtype(a->i, &dtype));
            to->v.i = dtype;
        }
        count++;
    }
    if (n->n_out < 1) return malformed(l, "it has no output");
    return node_of_many(l, name, n->in, n->n_in, list, count, n->out);
}

/* ---- which loader ---- */

static const sp_load_row loaders[] = {
    {"Not", load_not},
    {"Pow", load_pow},
    {"Cast", load_cast},
    {"Gelu", load_gelu},
    {"ReduceSum", load_sum},
    {"ReduceMean", load_mean},
    {"ReduceMax", load_max},
    {"ReduceMin", load_min},
    {"ReduceProd", load_prod},
    {"CumSum", load_cumsum},
    {"ArgMax", load_argmax},
    {"ArgMin", load_argmin},
    {"Gemm", load_gemm},
    {"LogSoftmax", load_log_softmax},
    {"Softmax", load_softmax},
    {"NegativeLogLikelihoodLoss", load_nll},
    {"Constant", load_constant},
    {"ConstantOfShape", load_constant_of_shape},
    {"Range", load_range},
    {"Mod", load_mod},
    {"IsInf", load_is_inf},
    {"Clip", load_clip},
    {NULL, NULL},
};

static const sp_load_row *row_of(sp_bytes op_type)
{
    static const sp_load_row *const all[] = {loaders, sp__load_rows_shapes, sp__load_rows_images,
                                             sp__load_rows_norm};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        for (const sp_load_row *row = all[i]; row->onnx != NULL; row++)
            if (sp__bytes_are(op_type, row->onnx)) return row;
    return NULL;
}

/* What the op table names as the operator of a pointwise op without attributes, is that op. */
static sp_status load_by_table(sp_loader *l)
{
    sp_onnx_node *n = l->node;
    for (int op = 0; op < SP_OP_COUNT; op++) {
        const sp_op_info *info = &sp_op_table[op];
        if (!(info->flags & SP_OPF_POINTWISE) || info->n_attr > 0 || info->onnx == NULL) continue;
        if (!sp__bytes_are(n->op_type, info->onnx)) continue;
        SP_RETURN_IF(need_inputs(l, info->n_in));
        if (n->n_in > info->n_in) return unsupported(l, "more operands than the op takes");
        return node_of(l, info->name, n->in, info->n_in, NULL, 0, &n->out[0]);
    }
    return unsupported(l, "not supported yet");
}

sp_status sp__load_op(sp_loader *l)
{
    const sp_onnx_node *n = l->node;
    if (sp__bytes_are(n->domain, ONNX_SPOOL_DOMAIN)) return load_own(l);
    if (n->domain.size != 0 && !sp__bytes_are(n->domain, "ai.onnx"))
        return unsupported(l, "it is of another domain");
    for (size_t i = 0; i < sizeof direct / sizeof *direct; i++)
        if (sp__bytes_are(n->op_type, direct[i].onnx)) return load_direct(l, (int)i);
    const sp_load_row *row = row_of(n->op_type);
    if (row != NULL) return row->load(l);
    return load_by_table(l);
}
