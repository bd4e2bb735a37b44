/* Each op of the table as ONNX nodes (opset 21).
 *
 * An op whose `onnx` key names an operator is that operator, inputs cast to the dtype Spool
 * computes in; one whose key is "custom" has a function here; one without a key goes into the
 * domain spool under its own name, attributes and all.
 *
 * Invariant: a saver writes the op's result last, under the name of the node's output value.
 */
#include "jit/onnx/save.h"

#include <string.h>

#include "ops_gen.h"
#include "tensor/memory.h"

typedef sp_status (*saver_fn)(sp_saver *s, const sp_ir_node *n);

static const sp_meta *type_of(const sp_saver *s, sp_vid v)
{
    return &s->g->values[v].type;
}

static const sp_meta *result_type(const sp_saver *s, const sp_ir_node *n)
{
    return type_of(s, n->out[0]);
}

static sp_name result(const sp_saver *s, const sp_ir_node *n)
{
    return sp__save_value(s, n->out[0]);
}

/* Input i under its name, cast to `dtype`. */
static sp_name input_as(sp_saver *s, const sp_ir_node *n, int i, sp_dtype dtype)
{
    return sp__save_cast(s, sp__save_value(s, n->in[i]), type_of(s, n->in[i])->dtype, dtype);
}

static sp_name input(const sp_saver *s, const sp_ir_node *n, int i)
{
    return sp__save_value(s, n->in[i]);
}

/* The attribute called `name`; NULL when the op has none or it was not given. */
static const sp_attr *attr(const sp_ir_node *n, const char *name)
{
    const sp_op_info *info = &sp_op_table[n->op];
    for (int i = 0; i < n->n_attr; i++)
        if (strcmp(info->attr_names[i], name) == 0) return n->attr[i].absent ? NULL : &n->attr[i];
    return NULL;
}

static int64_t attr_int(const sp_ir_node *n, const char *name, int64_t fallback)
{
    const sp_attr *a = attr(n, name);
    return a != NULL ? a->v.i : fallback;
}

static int64_t dim_of(const sp_ir_node *n, const char *name, int rank)
{
    int64_t dim = attr_int(n, name, 0);
    return dim < 0 ? dim + rank : dim;
}

static sp_scalar scalar_of(const sp_attr *a)
{
    sp_scalar value = {.kind = a->tag};
    if (a->tag == SP_FLOAT64)
        value.v.f = a->v.f;
    else
        value.v.i = a->v.i;
    return value;
}

static bool scalar_is(const sp_attr *a, double value)
{
    return a == NULL || (a->tag == SP_FLOAT64 ? a->v.f : (double)a->v.i) == value;
}

static sp_status unsupported(const sp_ir_node *n, const char *why)
{
    char where[256];
    return sp_fail(SP_EUNSUPPORTED, "onnx.save: %s%s%s: %s", sp_op_table[n->op].name,
                   n->where.code ? " at " : "", sp__where_text(&n->where, where, sizeof where),
                   why);
}

static void emit1(sp_saver *s, const char *op_type, sp_name x, sp_name out)
{
    sp__save_begin(s, op_type, "");
    sp__save_in(s, x);
    sp__save_end(s, out);
}

static void emit2(sp_saver *s, const char *op_type, sp_name x, sp_name y, sp_name out)
{
    sp__save_begin(s, op_type, "");
    sp__save_in(s, x);
    sp__save_in(s, y);
    sp__save_end(s, out);
}

/* A temporary that holds op_type(x, y). */
static sp_name temp2(sp_saver *s, const char *op_type, sp_name x, sp_name y)
{
    sp_name out = sp__save_temp(s);
    emit2(s, op_type, x, y, out);
    return out;
}

static sp_name reshaped(sp_saver *s, sp_name x, const int64_t *shape, int rank)
{
    sp_name sizes = sp__save_const_ints(s, shape, rank), out = sp__save_temp(s);
    sp__save_begin(s, "Reshape", "");
    sp__save_in(s, x), sp__save_in(s, sizes);
    sp__save_attr_int(s, "allowzero", 1);
    sp__save_end(s, out);
    return out;
}

/* ---- pointwise ---- */

/* The dtype a pointwise node computes in, from the table's own rule, which looks at dtypes and
 * ranks alone. ONNX' operators compute and yield in one dtype: small integers and halves, too. */
static sp_dtype compute_dtype(const sp_saver *s, const sp_ir_node *n)
{
    sp_tensor stand_ins[3] = {0}, *in[3];
    sp_call c = {.op = n->op, .n_attr = n->n_attr, .n_in = n->n_in, .in = in};
    for (int i = 0; i < n->n_in; i++) {
        in[i] = &stand_ins[i];
        in[i]->dtype = type_of(s, n->in[i])->dtype, in[i]->rank = type_of(s, n->in[i])->rank;
    }
    for (int i = 0; i < n->n_attr; i++) c.attr[i] = n->attr[i];
    sp_dtype compute = sp__pointwise_compute(&c), yields = result_type(s, n)->dtype;
    return sp__dtype_compute(yields) == (int)compute ? yields : compute;
}

static sp_name second_operand(sp_saver *s, const sp_ir_node *n, sp_dtype dtype)
{
    if (n->n_in > 1) return input_as(s, n, 1, dtype);
    const sp_attr *y = attr(n, "y");
    if (y == NULL) y = &n->attr[0];
    return sp__save_const_scalar(s, scalar_of(y), dtype);
}

/* Casts around an operator that is all the op does: one or two operands. */
static sp_status save_pointwise(sp_saver *s, const sp_ir_node *n, const char *op_type)
{
    sp_dtype dtype = compute_dtype(s, n);
    sp_name x = input_as(s, n, 0, dtype);
    if (dtype == SP_BOOL && strcmp(op_type, "Max") == 0) op_type = "Or";
    if (dtype == SP_BOOL && strcmp(op_type, "Min") == 0) op_type = "And";
    if (n->n_in == 1 && n->n_attr == 0)
        emit1(s, op_type, x, result(s, n));
    else
        emit2(s, op_type, x, second_operand(s, n, dtype), result(s, n));
    return SP_OK;
}

/* add, sub: the second operand times alpha. */
static sp_status save_add_sub(sp_saver *s, const sp_ir_node *n)
{
    sp_dtype dtype = result_type(s, n)->dtype;
    const sp_attr *alpha = attr(n, "alpha");
    sp_name x = input_as(s, n, 0, dtype), y = second_operand(s, n, dtype);
    if (!scalar_is(alpha, 1))
        y = temp2(s, "Mul", y, sp__save_const_scalar(s, scalar_of(alpha), dtype));
    emit2(s, strncmp(sp_op_table[n->op].name, "add", 3) == 0 ? "Add" : "Sub", x, y, result(s, n));
    return SP_OK;
}

/* Scalar on the left: y - x, y / x. */
static sp_status save_reversed(sp_saver *s, const sp_ir_node *n)
{
    sp_dtype dtype = result_type(s, n)->dtype;
    const char *op_type = strncmp(sp_op_table[n->op].name, "sub", 3) == 0 ? "Sub" : "Div";
    sp_name y = second_operand(s, n, dtype);
    emit2(s, op_type, y, input_as(s, n, 0, dtype), result(s, n));
    return SP_OK;
}

static sp_status save_ne(sp_saver *s, const sp_ir_node *n)
{
    sp_dtype dtype = compute_dtype(s, n);
    sp_name x = input_as(s, n, 0, dtype);
    emit1(s, "Not", temp2(s, "Equal", x, second_operand(s, n, dtype)), result(s, n));
    return SP_OK;
}

static bool is_floating(sp_dtype dtype)
{
    return dtype == SP_FLOAT32 || dtype == SP_FLOAT64;
}

/* sign, floor, ceil, round, trunc: integers and bools are their own. */
static sp_status save_rounding(sp_saver *s, const sp_ir_node *n)
{
    static const char *const names[][2] = {
        {"sign", "Sign"}, {"floor", "Floor"}, {"ceil", "Ceil"}, {"round", "Round"}};
    sp_dtype dtype = result_type(s, n)->dtype;
    const char *name = sp_op_table[n->op].name, *op_type = NULL;
    for (int i = 0; i < 4; i++)
        if (strcmp(name, names[i][0]) == 0) op_type = names[i][1];
    if (dtype == SP_BOOL || (!is_floating(dtype) && strcmp(name, "sign") != 0))
        op_type = "Identity";
    if (op_type) {
        emit1(s, op_type, input(s, n, 0), result(s, n));
        return SP_OK;
    }
    sp_name size = sp__save_temp(s), whole = sp__save_temp(s), sign = sp__save_temp(s);
    emit1(s, "Abs", input(s, n, 0), size);
    emit1(s, "Floor", size, whole);
    emit1(s, "Sign", input(s, n, 0), sign);
    emit2(s, "Mul", sign, whole, result(s, n));
    return SP_OK;
}

static sp_status save_square(sp_saver *s, const sp_ir_node *n)
{
    sp_name x = input_as(s, n, 0, result_type(s, n)->dtype);
    emit2(s, "Mul", x, x, result(s, n));
    return SP_OK;
}

static sp_status save_rsqrt(sp_saver *s, const sp_ir_node *n)
{
    sp_name root = sp__save_temp(s);
    emit1(s, "Sqrt", input_as(s, n, 0, result_type(s, n)->dtype), root);
    emit1(s, "Reciprocal", root, result(s, n));
    return SP_OK;
}

static sp_status save_pow(sp_saver *s, const sp_ir_node *n)
{
    sp_dtype dtype = result_type(s, n)->dtype;
    bool reversed = strcmp(sp_op_table[n->op].name, "pow.rscalar") == 0;
    sp_name x = input_as(s, n, 0, dtype), y = second_operand(s, n, dtype);
    emit2(s, "Pow", reversed ? y : x, reversed ? x : y, result(s, n));
    return SP_OK;
}

static sp_status save_own_domain(sp_saver *s, const sp_ir_node *n);

/* Mod has the sign of the divisor for integers alone. */
static sp_status save_mod(sp_saver *s, const sp_ir_node *n)
{
    sp_dtype dtype = result_type(s, n)->dtype;
    bool fmod = strncmp(sp_op_table[n->op].name, "fmod", 4) == 0;
    if (!fmod && is_floating(dtype)) return save_own_domain(s, n);
    sp_name x = input_as(s, n, 0, dtype), y = second_operand(s, n, dtype);
    sp__save_begin(s, "Mod", "");
    sp__save_in(s, x), sp__save_in(s, y);
    sp__save_attr_int(s, "fmod", fmod);
    sp__save_end(s, result(s, n));
    return SP_OK;
}

static sp_status save_clamp(sp_saver *s, const sp_ir_node *n)
{
    sp_dtype dtype = result_type(s, n)->dtype;
    sp_name x = input_as(s, n, 0, dtype);
    sp_name low = sp__save_const_scalar(s, scalar_of(&n->attr[0]), dtype);
    sp_name high = sp__save_const_scalar(s, scalar_of(&n->attr[1]), dtype);
    sp__save_begin(s, "Clip", "");
    sp__save_in(s, x), sp__save_in(s, low), sp__save_in(s, high);
    sp__save_end(s, result(s, n));
    return SP_OK;
}

/* isnan, isinf: no integer is. */
static sp_status save_is(sp_saver *s, const sp_ir_node *n)
{
    bool nan = strcmp(sp_op_table[n->op].name, "isnan") == 0;
    sp_dtype dtype = type_of(s, n->in[0])->dtype;
    if (is_floating(dtype)) {
        emit1(s, nan ? "IsNaN" : "IsInf", input(s, n, 0), result(s, n));
        return SP_OK;
    }
    sp_name x = input_as(s, n, 0, SP_BOOL);
    emit2(s, "Xor", x, x, result(s, n));
    return SP_OK;
}

static sp_status save_logical_not(sp_saver *s, const sp_ir_node *n)
{
    emit1(s, "Not", input_as(s, n, 0, SP_BOOL), result(s, n));
    return SP_OK;
}

/* bitwise_and, _or, _xor, _not: of bools, the logical operator. */
static sp_status save_bitwise(sp_saver *s, const sp_ir_node *n)
{
    static const char *const types[][3] = {{"and", "And", "BitwiseAnd"},
                                           {"or", "Or", "BitwiseOr"},
                                           {"xor", "Xor", "BitwiseXor"},
                                           {"not", "Not", "BitwiseNot"}};
    const char *name = sp_op_table[n->op].name + strlen("bitwise_");
    sp_dtype dtype = result_type(s, n)->dtype;
    sp_name x = input_as(s, n, 0, dtype);
    for (int i = 0; i < 4; i++) {
        if (strncmp(name, types[i][0], strlen(types[i][0])) != 0) continue;
        const char *op_type = types[i][dtype == SP_BOOL ? 1 : 2];
        if (i == 3)
            emit1(s, op_type, x, result(s, n));
        else
            emit2(s, op_type, x, second_operand(s, n, dtype), result(s, n));
    }
    return SP_OK;
}

/* Runtimes choose between numbers alone: of bools, whichever condition holds. */
static void emit_where(sp_saver *s, const sp_ir_node *n, sp_name cond, sp_name x, sp_name y)
{
    if (result_type(s, n)->dtype == SP_BOOL) {
        sp_name other = sp__save_temp(s);
        emit1(s, "Not", cond, other);
        x = temp2(s, "And", cond, x), y = temp2(s, "And", other, y);
        emit2(s, "Or", x, y, result(s, n));
        return;
    }
    sp__save_begin(s, "Where", "");
    sp__save_in(s, cond), sp__save_in(s, x), sp__save_in(s, y);
    sp__save_end(s, result(s, n));
}

/* One number or both in place of tensors. */
static sp_status save_where_numbers(sp_saver *s, const sp_ir_node *n)
{
    sp_dtype dtype = result_type(s, n)->dtype;
    sp_name cond = input_as(s, n, 0, SP_BOOL);
    sp_name x = sp__save_const_scalar(s, scalar_of(&n->attr[0]), dtype);
    sp_name y = n->n_in > 1 ? input_as(s, n, 1, dtype)
                            : sp__save_const_scalar(s, scalar_of(&n->attr[1]), dtype);
    emit_where(s, n, cond, x, y);
    return SP_OK;
}

static sp_status save_masked_fill(sp_saver *s, const sp_ir_node *n)
{
    sp_dtype dtype = result_type(s, n)->dtype;
    sp_name mask = input_as(s, n, 1, SP_BOOL);
    sp_name value = n->n_in > 2 ? input_as(s, n, 2, dtype)
                                : sp__save_const_scalar(s, scalar_of(&n->attr[0]), dtype);
    emit_where(s, n, mask, value, input_as(s, n, 0, dtype));
    return SP_OK;
}

static sp_status save_threshold_backward(sp_saver *s, const sp_ir_node *n)
{
    sp_dtype dtype = result_type(s, n)->dtype;
    sp_name bound = sp__save_const_scalar(s, scalar_of(&n->attr[0]), dtype),
            zero = sp__save_const_scalar(s, SP_INT(0), dtype),
            above = temp2(s, "Greater", input_as(s, n, 1, dtype), bound);
    emit_where(s, n, above, input_as(s, n, 0, dtype), zero);
    return SP_OK;
}

/* grad * (1 - y * y) */
static sp_status save_tanh_backward(sp_saver *s, const sp_ir_node *n)
{
    sp_dtype dtype = result_type(s, n)->dtype;
    sp_name y = input_as(s, n, 1, dtype), one = sp__save_const_scalar(s, SP_INT(1), dtype),
            slope = temp2(s, "Sub", one, temp2(s, "Mul", y, y));
    emit2(s, "Mul", input_as(s, n, 0, dtype), slope, result(s, n));
    return SP_OK;
}

/* grad * (1 - y) * y */
static sp_status save_sigmoid_backward(sp_saver *s, const sp_ir_node *n)
{
    sp_dtype dtype = result_type(s, n)->dtype;
    sp_name y = input_as(s, n, 1, dtype), one = sp__save_const_scalar(s, SP_INT(1), dtype),
            part = temp2(s, "Mul", input_as(s, n, 0, dtype), temp2(s, "Sub", one, y));
    emit2(s, "Mul", part, y, result(s, n));
    return SP_OK;
}

static sp_status save_where(sp_saver *s, const sp_ir_node *n)
{
    sp_dtype dtype = result_type(s, n)->dtype;
    sp_name cond = input_as(s, n, 0, SP_BOOL), x = input_as(s, n, 1, dtype);
    emit_where(s, n, cond, x, input_as(s, n, 2, dtype));
    return SP_OK;
}

static sp_status save_where_scalar(sp_saver *s, const sp_ir_node *n)
{
    sp_dtype dtype = result_type(s, n)->dtype;
    sp_name cond = input_as(s, n, 0, SP_BOOL), x = input_as(s, n, 1, dtype);
    emit_where(s, n, cond, x, sp__save_const_scalar(s, scalar_of(attr(n, "y")), dtype));
    return SP_OK;
}

static sp_status save_cast(sp_saver *s, const sp_ir_node *n)
{
    sp__save_begin(s, "Cast", "");
    sp__save_in(s, input(s, n, 0));
    sp__save_attr_int(s, "to", sp__onnx_type(result_type(s, n)->dtype));
    sp__save_end(s, result(s, n));
    return SP_OK;
}

static sp_status save_identity(sp_saver *s, const sp_ir_node *n)
{
    emit1(s, "Identity", input(s, n, 0), result(s, n));
    return SP_OK;
}

/* ---- reductions ---- */

static sp_status save_reduce(sp_saver *s, const sp_ir_node *n, const char *op_type)
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
    if (x->rank == 0) return save_cast(s, n);
    sp_name in = input_as(s, n, 0, result_type(s, n)->dtype),
            axes = sp__save_const_ints(s, dims, n_dims);
    sp__save_begin(s, op_type, "");
    sp__save_in(s, in), sp__save_in(s, axes);
    sp__save_attr_int(s, "keepdims", attr_int(n, "keepdim", 0));
    sp__save_end(s, result(s, n));
    return SP_OK;
}

static sp_status save_sum(sp_saver *s, const sp_ir_node *n)
{
    return save_reduce(s, n, "ReduceSum");
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
    sp_dtype dtype = result_type(s, n)->dtype;
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

/* ---- shapes ---- */

static sp_status save_reshape(sp_saver *s, const sp_ir_node *n)
{
    const sp_meta *y = result_type(s, n);
    sp_name shape = sp__save_const_ints(s, y->shape, y->rank);
    sp__save_begin(s, "Reshape", "");
    sp__save_in(s, input(s, n, 0)), sp__save_in(s, shape);
    sp__save_attr_int(s, "allowzero", 1);
    sp__save_end(s, result(s, n));
    return SP_OK;
}

static void emit_transpose(sp_saver *s, const sp_ir_node *n, const int64_t *perm, int rank)
{
    sp__save_begin(s, "Transpose", "");
    sp__save_in(s, input(s, n, 0));
    sp__save_attr_ints(s, "perm", perm, rank);
    sp__save_end(s, result(s, n));
}

static sp_status save_transpose(sp_saver *s, const sp_ir_node *n)
{
    int rank = type_of(s, n->in[0])->rank;
    int64_t perm[SP_MAX_RANK];
    if (rank == 0) return save_identity(s, n);
    int64_t a = dim_of(n, "dim0", rank), b = dim_of(n, "dim1", rank);
    for (int i = 0; i < rank; i++) perm[i] = i == a ? b : i == b ? a : i;
    emit_transpose(s, n, perm, rank);
    return SP_OK;
}

static sp_status save_permute(sp_saver *s, const sp_ir_node *n)
{
    int rank = type_of(s, n->in[0])->rank;
    int64_t perm[SP_MAX_RANK];
    const int64_t *dims = n->attr[0].v.ints;
    if (rank == 0) return save_identity(s, n);
    for (int i = 0; i < rank; i++) perm[i] = dims[i] < 0 ? dims[i] + rank : dims[i];
    emit_transpose(s, n, perm, rank);
    return SP_OK;
}

static sp_status save_expand(sp_saver *s, const sp_ir_node *n)
{
    const sp_meta *y = result_type(s, n);
    emit2(s, "Expand", input(s, n, 0), sp__save_const_ints(s, y->shape, y->rank), result(s, n));
    return SP_OK;
}

static sp_status save_slice(sp_saver *s, const sp_ir_node *n)
{
    const sp_meta *x = type_of(s, n->in[0]);
    int64_t dim = dim_of(n, "dim", x->rank), start = attr_int(n, "start", 0),
            end = attr_int(n, "end", INT64_MAX);
    int64_t step = attr_int(n, "step", 1);
    sp_name names[4] = {sp__save_const_ints(s, &start, 1), sp__save_const_ints(s, &end, 1),
                        sp__save_const_ints(s, &dim, 1), sp__save_const_ints(s, &step, 1)};
    sp__save_begin(s, "Slice", "");
    sp__save_in(s, input(s, n, 0));
    for (int i = 0; i < 4; i++) sp__save_in(s, names[i]);
    sp__save_end(s, result(s, n));
    return SP_OK;
}

static void emit_gather(sp_saver *s, const char *op_type, sp_name x, sp_name index, int64_t axis,
                        sp_name out)
{
    sp__save_begin(s, op_type, "");
    sp__save_in(s, x), sp__save_in(s, index);
    sp__save_attr_int(s, "axis", axis);
    sp__save_end(s, out);
}

static sp_status save_select(sp_saver *s, const sp_ir_node *n)
{
    int rank = type_of(s, n->in[0])->rank;
    sp_name index = sp__save_const_scalar(s, SP_INT(attr_int(n, "index", 0)), SP_INT64);
    emit_gather(s, "Gather", input(s, n, 0), index, dim_of(n, "dim", rank), result(s, n));
    return SP_OK;
}

/* ---- strided access by constant element numbers ---- */

/* The places, in a dense buffer, of the elements of a geometry, in row-major order, as a 1-D
 * constant. */
static sp_status place_list(sp_saver *s, const sp_meta *m, sp_name *out)
{
    size_t bytes = (size_t)m->numel * sizeof(int64_t);
    int64_t *places = sp__alloc(bytes), at[SP_MAX_RANK] = {0}, place = m->offset;
    if (places == NULL)
        return sp_fail(SP_EMEMORY, "onnx.save: no memory for %lld indices", (long long)m->numel);
    for (int64_t i = 0; i < m->numel; i++) {
        places[i] = place;
        for (int d = m->rank - 1; d >= 0; d--) {
            place += m->stride[d];
            if (++at[d] < m->shape[d]) break;
            place -= m->stride[d] * m->shape[d], at[d] = 0;
        }
    }
    *out = sp__save_const_ints(s, places, (int)m->numel);
    sp__free(places, bytes);
    return SP_OK;
}

/* x's elements as one dimension, for an x whose buffer is in row-major order. */
static sp_name flattened(sp_saver *s, sp_name x, int64_t numel)
{
    return reshaped(s, x, &numel, 1);
}

static sp_status save_as_strided(sp_saver *s, const sp_ir_node *n)
{
    const sp_meta *x = type_of(s, n->in[0]), *y = result_type(s, n);
    const sp_attr *size = attr(n, "size"), *stride = attr(n, "stride");
    sp_meta wanted = *y;
    sp_name places;
    if (!x->contiguous)
        return unsupported(n, "the input is not dense, so its strides have no meaning in a file");
    for (int i = 0; i < size->n; i++) wanted.stride[i] = stride->v.ints[i];
    wanted.offset = attr_int(n, "storage_offset", 0);
    SP_RETURN_IF(place_list(s, &wanted, &places));
    sp_name flat = flattened(s, input(s, n, 0), x->numel), picked = sp__save_temp(s);
    emit_gather(s, "Gather", flat, places, 0, picked);
    emit2(s, "Reshape", picked, sp__save_const_ints(s, y->shape, y->rank), result(s, n));
    return SP_OK;
}

/* x with the elements at a geometry's places replaced by those of src. */
static sp_status emit_scatter(sp_saver *s, const sp_ir_node *n, const sp_meta *where)
{
    const sp_meta *x = type_of(s, n->in[0]);
    sp_name places;
    SP_RETURN_IF(place_list(s, where, &places));
    sp_name flat = flattened(s, input(s, n, 0), x->numel), src = input_as(s, n, 1, x->dtype);
    src = flattened(s, src, where->numel);
    sp_name put = sp__save_temp(s);
    sp__save_begin(s, "ScatterElements", "");
    sp__save_in(s, flat), sp__save_in(s, places), sp__save_in(s, src);
    sp__save_attr_int(s, "axis", 0);
    sp__save_end(s, put);
    emit2(s, "Reshape", put, sp__save_const_ints(s, x->shape, x->rank), result(s, n));
    return SP_OK;
}

/* Row-major geometry of an input, whatever its strides: ONNX tensors have no others. */
static sp_status dense_meta(const sp_meta *x, sp_meta *out)
{
    *out = *x;
    out->offset = 0;
    return sp__meta_dense(out, "onnx.save");
}

static sp_status save_as_strided_scatter(sp_saver *s, const sp_ir_node *n)
{
    const sp_meta *x = type_of(s, n->in[0]);
    const sp_attr *size = attr(n, "size"), *stride = attr(n, "stride");
    sp_meta where = {.rank = (uint8_t)size->n, .numel = 1};
    if (!x->contiguous)
        return unsupported(n, "the input is not dense, so its strides have no meaning in a file");
    for (int i = 0; i < size->n; i++) {
        where.shape[i] = size->v.ints[i], where.stride[i] = stride->v.ints[i];
        where.numel *= where.shape[i];
    }
    where.offset = attr_int(n, "storage_offset", 0);
    return emit_scatter(s, n, &where);
}

static sp_status save_slice_scatter(sp_saver *s, const sp_ir_node *n)
{
    sp_meta where;
    const sp_meta *src = type_of(s, n->in[1]);
    SP_RETURN_IF(dense_meta(type_of(s, n->in[0]), &where));
    int64_t dim = dim_of(n, "dim", where.rank), start = attr_int(n, "start", 0),
            size = where.shape[dim];
    if (start < 0) start = start + size < 0 ? 0 : start + size;
    where.offset = (start > size ? size : start) * where.stride[dim];
    where.stride[dim] *= attr_int(n, "step", 1);
    where.shape[dim] = src->shape[dim];
    where.numel = src->numel;
    return emit_scatter(s, n, &where);
}

static sp_status save_select_scatter(sp_saver *s, const sp_ir_node *n)
{
    sp_meta where;
    SP_RETURN_IF(dense_meta(type_of(s, n->in[0]), &where));
    int64_t dim = dim_of(n, "dim", where.rank), index = attr_int(n, "index", 0);
    where.offset = (index < 0 ? index + where.shape[dim] : index) * where.stride[dim];
    where.shape[dim] = 1;
    where.numel = type_of(s, n->in[1])->numel;
    return emit_scatter(s, n, &where);
}

static sp_status save_triangle(sp_saver *s, const sp_ir_node *n)
{
    const sp_meta *y = result_type(s, n);
    int64_t diagonal = attr_int(n, "diagonal", 0);
    sp_name x = input(s, n, 0), at = sp__save_const_scalar(s, SP_INT(diagonal), SP_INT64);
    bool truth = y->dtype == SP_BOOL; /* onnxruntime has none for bool */
    if (truth) x = sp__save_cast(s, x, SP_BOOL, SP_INT64);
    sp_name out = truth ? sp__save_temp(s) : result(s, n);
    sp__save_begin(s, "Trilu", "");
    sp__save_in(s, x), sp__save_in(s, at);
    sp__save_attr_int(s, "upper", n->op == SP_OP_TRIU);
    sp__save_end(s, out);
    if (truth) emit1(s, "Identity", sp__save_cast(s, out, SP_INT64, SP_BOOL), result(s, n));
    return SP_OK;
}

/* ---- indexing ---- */

static sp_status save_gather(sp_saver *s, const sp_ir_node *n)
{
    int rank = type_of(s, n->in[0])->rank;
    if (rank == 0) return save_identity(s, n);
    emit_gather(s, "GatherElements", input(s, n, 0), input(s, n, 1), dim_of(n, "dim", rank),
                result(s, n));
    return SP_OK;
}

static sp_status save_index_select(sp_saver *s, const sp_ir_node *n)
{
    int rank = type_of(s, n->in[0])->rank;
    sp_name index = input(s, n, 1);
    if (rank == 0) return save_identity(s, n);
    if (type_of(s, n->in[1])->rank == 0) index = reshaped(s, index, &(int64_t){1}, 1);
    emit_gather(s, "Gather", input(s, n, 0), index, dim_of(n, "dim", rank), result(s, n));
    return SP_OK;
}

static void emit_scatter_add(sp_saver *s, const sp_ir_node *n, sp_name index, sp_name src,
                             int64_t axis)
{
    sp__save_begin(s, "ScatterElements", "");
    sp__save_in(s, input(s, n, 0)), sp__save_in(s, index), sp__save_in(s, src);
    sp__save_attr_int(s, "axis", axis);
    sp__save_attr_text(s, "reduction", "add");
    sp__save_end(s, result(s, n));
}

static sp_status save_scatter_add(sp_saver *s, const sp_ir_node *n)
{
    const sp_meta *x = type_of(s, n->in[0]), *index = type_of(s, n->in[1]),
                  *src = type_of(s, n->in[2]);
    for (int d = 0; d < index->rank; d++)
        if (index->shape[d] != src->shape[d])
            return unsupported(n, "index and src differ in shape: slice src first");
    if (x->rank == 0) return unsupported(n, "tensors without dimensions");
    emit_scatter_add(s, n, input(s, n, 1), input_as(s, n, 2, x->dtype), dim_of(n, "dim", x->rank));
    return SP_OK;
}

/* index runs along dim alone: spread over the others it is scatter_add. */
static sp_status save_index_add(sp_saver *s, const sp_ir_node *n)
{
    const sp_meta *x = type_of(s, n->in[0]), *src = type_of(s, n->in[2]);
    const sp_attr *alpha = attr(n, "alpha");
    int64_t axis = dim_of(n, "dim", x->rank), shape[SP_MAX_RANK];
    if (x->rank == 0) return unsupported(n, "tensors without dimensions");
    for (int d = 0; d < x->rank; d++) shape[d] = d == axis ? src->shape[d] : 1;
    sp_name index = reshaped(s, input(s, n, 1), shape, x->rank),
            values = input_as(s, n, 2, x->dtype);
    index = temp2(s, "Expand", index, sp__save_const_ints(s, src->shape, src->rank));
    if (!scalar_is(alpha, 1))
        values = temp2(s, "Mul", values, sp__save_const_scalar(s, scalar_of(alpha), x->dtype));
    emit_scatter_add(s, n, index, values, axis);
    return SP_OK;
}

/* ---- tensors joined ---- */

/* x with a dimension of size 1 at `dim`. */
static sp_name with_dim(sp_saver *s, sp_name x, const sp_meta *m, int64_t dim)
{
    int64_t shape[SP_MAX_RANK];
    for (int d = 0; d <= m->rank; d++) shape[d] = d == dim ? 1 : m->shape[d < dim ? d : d - 1];
    return reshaped(s, x, shape, m->rank + 1);
}

/* Concat of the inputs, which were given a new dimension before if `stacked`. */
static sp_status save_joined(sp_saver *s, const sp_ir_node *n, bool stacked)
{
    const sp_meta *y = result_type(s, n);
    int64_t dim = dim_of(n, "dim", y->rank);
    size_t bytes = (size_t)n->n_in * sizeof(sp_name);
    sp_name *names = sp__alloc(bytes);
    int count = 0;
    if (!names) return sp_fail(SP_EMEMORY, "onnx.save: no memory for %d inputs", n->n_in);
    for (int i = 0; i < n->n_in; i++) {
        const sp_meta *x = type_of(s, n->in[i]);
        if (!stacked && x->rank != y->rank) continue; /* cat leaves (0,) out */
        sp_name in = input_as(s, n, i, y->dtype);
        names[count++] = stacked ? with_dim(s, in, x, dim) : in;
    }
    sp__save_begin(s, "Concat", "");
    for (int i = 0; i < count; i++) sp__save_in(s, names[i]);
    sp__save_attr_int(s, "axis", dim);
    sp__save_end(s, result(s, n));
    sp__free(names, bytes);
    return SP_OK;
}

static sp_status save_cat(sp_saver *s, const sp_ir_node *n)
{
    return save_joined(s, n, false);
}

static sp_status save_stack(sp_saver *s, const sp_ir_node *n)
{
    return save_joined(s, n, true);
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
    sp__save_end(s, out);
    if (single && reduction == 0)
        emit2(s, "Reshape", out, sp__save_const_ints(s, target->shape, 0), result(s, n));
    return SP_OK;
}

/* ---- creation ---- */

static sp_status emit_filled(sp_saver *s, const sp_ir_node *n, const sp_attr *value)
{
    const sp_meta *y = result_type(s, n);
    sp_name number = sp__save_const_scalar(s, scalar_of(value), y->dtype);
    emit2(s, "Expand", number, sp__save_const_ints(s, y->shape, y->rank), result(s, n));
    return SP_OK;
}

static sp_status save_full(sp_saver *s, const sp_ir_node *n)
{
    const sp_attr *value = attr(n, "fill_value");
    return emit_filled(s, n, value != NULL ? value : attr(n, "value"));
}

static sp_status save_arange(sp_saver *s, const sp_ir_node *n)
{
    const sp_meta *y = result_type(s, n);
    const sp_attr *start = attr(n, "start"), *step = attr(n, "step");
    bool floats = sp__dtype_is_floating(y->dtype);
    int64_t last = y->numel;
    sp_name numbers[3] = {sp__save_const_scalar(s, SP_INT(0), SP_INT64),
                          sp__save_const_scalar(s, SP_INT(last), SP_INT64),
                          sp__save_const_scalar(s, SP_INT(1), SP_INT64)};
    sp_name counted = sp__save_temp(s);
    sp__save_begin(s, "Range", "");
    for (int i = 0; i < 3; i++) sp__save_in(s, numbers[i]);
    sp__save_end(s, counted);
    sp_dtype dtype =
        floats ? SP_FLOAT64 : SP_INT64; /* start + i * step in the wide type, rounded once */
    sp_name wide = sp__save_cast(s, counted, SP_INT64, dtype);
    wide = temp2(s, "Mul", wide,
                 sp__save_const_scalar(s, step != NULL ? scalar_of(step) : SP_INT(1), dtype));
    wide = temp2(s, "Add", wide,
                 sp__save_const_scalar(s, start != NULL ? scalar_of(start) : SP_INT(0), dtype));
    emit1(s, "Identity", sp__save_cast(s, wide, dtype, y->dtype), result(s, n));
    return SP_OK;
}

/* copy(x, src): src in x's dtype and shape. */
static sp_status save_copy(sp_saver *s, const sp_ir_node *n)
{
    const sp_meta *y = result_type(s, n);
    sp_name src = input_as(s, n, 1, y->dtype);
    emit2(s, "Expand", src, sp__save_const_ints(s, y->shape, y->rank), result(s, n));
    return SP_OK;
}

/* ---- the domain spool ---- */

static void put_attr(sp_saver *s, const char *name, const sp_attr *a)
{
    if (a->kind == SP_ATTR_INTS)
        sp__save_attr_ints(s, name, a->v.ints, a->n);
    else if (a->kind == SP_ATTR_FLOAT || (a->kind == SP_ATTR_SCALAR && a->tag == SP_FLOAT64))
        sp__save_attr_float(s, name, (float)a->v.f);
    else if (a->kind == SP_ATTR_DTYPE)
        sp__save_attr_int(s, name, sp__onnx_type((sp_dtype)a->v.i));
    else
        sp__save_attr_int(s, name, a->v.i);
}

static sp_status save_own_domain(sp_saver *s, const sp_ir_node *n)
{
    const sp_op_info *info = &sp_op_table[n->op];
    sp__save_begin(s, info->name, ONNX_SPOOL_DOMAIN);
    for (int i = 0; i < n->n_in; i++) {
        if (n->in[i] >= 0)
            sp__save_in(s, input(s, n, i));
        else
            sp__save_in(s, (sp_name){""});
    }
    for (int i = 0; i < n->n_attr; i++)
        if (!n->attr[i].absent) put_attr(s, info->attr_names[i], &n->attr[i]);
    sp_name out[SP_MAX_OUT];
    for (int i = 0; i < n->n_out; i++) out[i] = sp__save_value(s, n->out[i]);
    sp__save_end_many(s, out, n->n_out);
    return SP_OK;
}

/* ---- which saver ---- */

static const struct {
    const char *op;
    saver_fn save;
} savers[] = {
    {"add", save_add_sub},
    {"add.alpha", save_add_sub},
    {"add.scalar", save_add_sub},
    {"sub", save_add_sub},
    {"sub.alpha", save_add_sub},
    {"sub.scalar", save_add_sub},
    {"sub.rscalar", save_reversed},
    {"div.rscalar", save_reversed},
    {"ne", save_ne},
    {"ne.scalar", save_ne},
    {"threshold_backward", save_threshold_backward},
    {"tanh_backward", save_tanh_backward},
    {"sigmoid_backward", save_sigmoid_backward},
    {"where", save_where},
    {"where.scalar", save_where_scalar},
    {"where.scalar_x", save_where_numbers},
    {"where.scalars", save_where_numbers},
    {"masked_fill", save_masked_fill},
    {"masked_fill.scalar", save_masked_fill},
    {"sign", save_rounding},
    {"floor", save_rounding},
    {"ceil", save_rounding},
    {"trunc", save_rounding},
    {"round", save_rounding},
    {"square", save_square},
    {"rsqrt", save_rsqrt},
    {"pow", save_pow},
    {"pow.rscalar", save_pow},
    {"remainder", save_mod},
    {"remainder.scalar", save_mod},
    {"fmod", save_mod},
    {"fmod.scalar", save_mod},
    {"clamp", save_clamp},
    {"isnan", save_is},
    {"isinf", save_is},
    {"logical_not", save_logical_not},
    {"bitwise_and", save_bitwise},
    {"bitwise_and.scalar", save_bitwise},
    {"bitwise_or", save_bitwise},
    {"bitwise_or.scalar", save_bitwise},
    {"bitwise_xor", save_bitwise},
    {"bitwise_xor.scalar", save_bitwise},
    {"bitwise_not", save_bitwise},
    {"cast", save_cast},
    {"sum", save_sum},
    {"mean", save_mean},
    {"amax", save_amax},
    {"amin", save_amin},
    {"prod", save_prod},
    {"cumsum", save_cumsum},
    {"argmax", save_argmax},
    {"argmin", save_argmax},
    {"matmul", save_matmul},
    {"linear", save_linear},
    {"view", save_reshape},
    {"reshape", save_reshape},
    {"unsqueeze", save_reshape},
    {"squeeze", save_reshape},
    {"transpose", save_transpose},
    {"permute", save_permute},
    {"expand", save_expand},
    {"slice", save_slice},
    {"select", save_select},
    {"as_strided", save_as_strided},
    {"as_strided_scatter", save_as_strided_scatter},
    {"slice_scatter", save_slice_scatter},
    {"select_scatter", save_select_scatter},
    {"gather", save_gather},
    {"scatter_add", save_scatter_add},
    {"index_select", save_index_select},
    {"index_add", save_index_add},
    {"tril", save_triangle},
    {"triu", save_triangle},
    {"cat", save_cat},
    {"stack", save_stack},
    {"log_softmax", save_log_softmax},
    {"softmax", save_log_softmax},
    {"nll_loss", save_nll_loss},
    {"full", save_full},
    {"fill.scalar", save_full},
    {"arange", save_arange},
    {"copy", save_copy},
    {"contiguous", save_identity},
    {"clone", save_identity},
    {"alias", save_identity},
    {"detach", save_identity},
};

sp_status sp__save_op(sp_saver *s, const sp_ir_node *n)
{
    const sp_op_info *info = &sp_op_table[n->op];
    for (size_t i = 0; i < sizeof savers / sizeof *savers; i++)
        if (strcmp(savers[i].op, info->name) == 0) return savers[i].save(s, n);
    if (info->onnx == NULL) return save_own_domain(s, n);
    if (strcmp(info->onnx, "custom") == 0)
        return unsupported(n, "the table promises a saver that is missing");
    if (info->flags & SP_OPF_POINTWISE) return save_pointwise(s, n, info->onnx);
    return unsupported(n, "it has no form in a file yet");
}
