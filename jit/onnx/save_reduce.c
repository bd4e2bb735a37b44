/* Reductions, products, softmax and losses as ONNX nodes. */
#include "jit/onnx/save_int.h"

/* ---- reductions ---- */

/* `in`, of the result's dtype, over the dimensions that the op names. */
static sp_status reduce_values(sp_saver *s, const sp_ir_node *n, const char *op_type, sp_name in)
{
    const sp_meta *x = type_of(s, n->in[0]);
    const sp_attr *dim = attr(n, "dim");
    int64_t dims[SP_MAX_RANK];
    bool one = dim != NULL && dim->kind == SP_ATTR_INT, some = dim != NULL && dim->n > 0;
    int n_dims = one ? 1 : some ? dim->n : x->rank;
    for (int i = 0; i < n_dims; i++) {
        dims[i] = one ? dim->v.i : some ? dim->v.ints[i] : i;
        if (dims[i] < 0) dims[i] += x->rank;
    }
    if (x->rank == 0) {
        emit1(s, "Identity", in, result(s, n));
        return SP_OK;
    }
    sp_name axes = sp__save_const_ints(s, dims, n_dims);
    sp__save_begin(s, op_type, "");
    sp__save_in(s, in), sp__save_in(s, axes);
    sp__save_attr_int(s, "keepdims", attr_int(n, "keepdim", 0));
    sp__save_end(s, result(s, n));
    return SP_OK;
}

static sp_status save_reduce(sp_saver *s, const sp_ir_node *n, const char *op_type)
{
    if (type_of(s, n->in[0])->rank == 0) return save_cast(s, n);
    return reduce_values(s, n, op_type, input_as(s, n, 0, result_type(s, n)->dtype));
}

static sp_status save_sum(sp_saver *s, const sp_ir_node *n)
{
    return save_reduce(s, n, "ReduceSum");
}

/* The sum of x with 0 for NaN. */
static sp_status save_nansum(sp_saver *s, const sp_ir_node *n)
{
    const sp_meta *x = type_of(s, n->in[0]);
    if (!sp__dtype_is_floating(x->dtype)) return save_sum(s, n);
    sp_name unknown = sp__save_temp(s), known = sp__save_temp(s);
    sp_dtype wide = (sp_dtype)sp__dtypes[x->dtype].wide;
    sp_name in = input_as(s, n, 0, wide);
    emit1(s, "IsNaN", in, unknown);
    sp__save_begin(s, "Where", "");
    sp__save_in(s, unknown), sp__save_in(s, sp__save_const_scalar(s, SP_INT(0), wide));
    sp__save_in(s, in);
    sp__save_end(s, known);
    return reduce_values(s, n, "ReduceSum",
                         sp__save_cast(s, known, wide, result_type(s, n)->dtype));
}

/* The sum of truth values. */
static sp_status save_count(sp_saver *s, const sp_ir_node *n)
{
    sp_name hits = input_as(s, n, 0, SP_BOOL);
    return reduce_values(s, n, "ReduceSum", sp__save_cast(s, hits, SP_BOOL, SP_INT64));
}

static sp_status save_mean(sp_saver *s, const sp_ir_node *n)
{
    return save_reduce(s, n, "ReduceMean");
}

static sp_status save_amax(sp_saver *s, const sp_ir_node *n)
{
    return save_reduce(s, n, "ReduceMax");
}

static sp_status save_amin(sp_saver *s, const sp_ir_node *n)
{
    return save_reduce(s, n, "ReduceMin");
}

static sp_status save_prod(sp_saver *s, const sp_ir_node *n)
{
    return save_reduce(s, n, "ReduceProd");
}

static sp_status save_cumsum(sp_saver *s, const sp_ir_node *n)
{
    const sp_meta *y = result_type(s, n);
    if (y->rank == 0) return save_cast(s, n);
    sp_name axis = sp__save_const_scalar(s, SP_INT(dim_of(n, "dim", y->rank)), SP_INT64);
    emit2(s, "CumSum", input_as(s, n, 0, y->dtype), axis, result(s, n));
    return SP_OK;
}

/* argmax, argmin */
static sp_status save_argmax(sp_saver *s, const sp_ir_node *n)
{
    const sp_meta *x = type_of(s, n->in[0]), *y = result_type(s, n);
    bool whole = attr(n, "dim") == NULL || x->rank == 0;
    sp_name in = input_as(s, n, 0, x->dtype == SP_BOOL ? SP_INT64 : x->dtype);
    if (whole) in = reshaped(s, in, &x->numel, 1);
    sp_name out = whole ? sp__save_temp(s) : result(s, n);
    sp__save_begin(s, n->op == SP_OP_ARGMIN ? "ArgMin" : "ArgMax", "");
    sp__save_in(s, in);
    sp__save_attr_int(s, "axis", whole ? 0 : dim_of(n, "dim", x->rank));
    sp__save_attr_int(s, "keepdims", whole ? 0 : attr_int(n, "keepdim", 0));
    sp__save_end(s, out);
    if (whole) emit2(s, "Reshape", out, sp__save_const_ints(s, y->shape, y->rank), result(s, n));
    return SP_OK;
}

/* ---- products ---- */

static sp_status save_matmul(sp_saver *s, const sp_ir_node *n)
{
    const sp_meta *x_type = type_of(s, n->in[0]), *y = result_type(s, n);
    sp_dtype dtype = y->dtype;
    if (x_type->shape[x_type->rank - 1] == 0) { /* onnxruntime leaves such a result as memory was */
        sp_name zero = sp__save_const_scalar(s, SP_INT(0), dtype);
        emit2(s, "Expand", zero, sp__save_const_ints(s, y->shape, y->rank), result(s, n));
        return SP_OK;
    }
    sp_name x = input_as(s, n, 0, dtype);
    emit2(s, "MatMul", x, input_as(s, n, 1, dtype), result(s, n));
    return SP_OK;
}

/* x w^T + b. Two dimensions: a Gemm; more: MatMul and Add. */
static sp_status save_linear(sp_saver *s, const sp_ir_node *n)
{
    sp_dtype dtype = result_type(s, n)->dtype;
    bool bias = n->n_in > 2 && n->in[2] >= 0;
    sp_name x = input_as(s, n, 0, dtype), w = input_as(s, n, 1, dtype);
    if (type_of(s, n->in[0])->rank == 2 && type_of(s, n->in[1])->rank == 2) {
        sp_name b = bias ? input_as(s, n, 2, dtype) : w;
        sp__save_begin(s, "Gemm", "");
        sp__save_in(s, x), sp__save_in(s, w);
        if (bias) sp__save_in(s, b);
        sp__save_attr_int(s, "transB", 1);
        sp__save_end(s, result(s, n));
        return SP_OK;
    }
    sp_name turned = w;
    if (type_of(s, n->in[1])->rank == 2) {
        turned = sp__save_temp(s);
        emit1(s, "Transpose", w, turned);
    }
    if (!bias) {
        emit2(s, "MatMul", x, turned, result(s, n));
        return SP_OK;
    }
    sp_name product = temp2(s, "MatMul", x, turned);
    emit2(s, "Add", product, input_as(s, n, 2, dtype), result(s, n));
    return SP_OK;
}

/* ---- networks ---- */

/* log_softmax, softmax */
static sp_status save_log_softmax(sp_saver *s, const sp_ir_node *n)
{
    const sp_meta *y = result_type(s, n);
    sp_name x = input_as(s, n, 0, y->dtype);
    bool logs = n->op == SP_OP_LOG_SOFTMAX;
    if (y->rank == 0) { /* ONNX has none of these for a number: x - x, or exp of that */
        sp_name zero = logs ? result(s, n) : sp__save_temp(s);
        emit2(s, "Sub", x, x, zero);
        if (!logs) emit1(s, "Exp", zero, result(s, n));
        return SP_OK;
    }
    sp__save_begin(s, logs ? "LogSoftmax" : "Softmax", "");
    sp__save_in(s, x);
    sp__save_attr_int(s, "axis", dim_of(n, "dim", y->rank));
    sp__save_end(s, result(s, n));
    return SP_OK;
}

static sp_status save_nll_loss(sp_saver *s, const sp_ir_node *n)
{
    static const char *const reductions[] = {"none", "mean", "sum"};
    const sp_meta *x = type_of(s, n->in[0]), *target = type_of(s, n->in[1]);
    sp_name scores = input(s, n, 0), labels = input(s, n, 1);
    bool single = x->rank == 1;
    if (single) {
        scores = reshaped(s, scores, (int64_t[]){1, x->shape[0]}, 2);
        labels = reshaped(s, labels, &(int64_t){1}, 1);
    }
    int64_t reduction = attr_int(n, "reduction", 1);
    sp_name out = single && reduction == 0 ? sp__save_temp(s) : result(s, n);
    sp__save_begin(s, "NegativeLogLikelihoodLoss", "");
    sp__save_in(s, scores), sp__save_in(s, labels);
    sp__save_attr_text(s, "reduction", reductions[reduction]);
    sp__save_attr_int(s, "ignore_index", attr_int(n, "ignore_index", -100));
    sp__save_end(s, out);
    if (single && reduction == 0)
        emit2(s, "Reshape", out, sp__save_const_ints(s, target->shape, 0), result(s, n));
    return SP_OK;
}

/* ---- which ops ---- */

const sp_save_row sp__save_rows_reduce[] = {
    {"sum", save_sum},
    {"nansum", save_nansum},
    {"count_nonzero", save_count},
    {"mean", save_mean},
    {"amax", save_amax},
    {"amin", save_amin},
    {"prod", save_prod},
    {"cumsum", save_cumsum},
    {"argmax", save_argmax},
    {"argmin", save_argmax},
    {"matmul", save_matmul},
    {"linear", save_linear},
    {"log_softmax", save_log_softmax},
    {"softmax", save_log_softmax},
    {"nll_loss", save_nll_loss},
    {NULL, NULL},
};
