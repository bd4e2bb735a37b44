/* Pointwise ops as ONNX nodes: the operator of the table, or a few that make it up. */
#include "jit/onnx/save_int.h"

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
    return sp__save_const_scalar(s, sp__attr_to_scalar(y), dtype);
}

/* Casts around an operator that is all the op does: one or two operands. */
sp_status sp__save_pointwise(sp_saver *s, const sp_ir_node *n, const char *op_type)
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
        y = temp2(s, "Mul", y, sp__save_const_scalar(s, sp__attr_to_scalar(alpha), dtype));
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

/* Mod has the sign of the divisor for integers alone. */
static sp_status save_mod(sp_saver *s, const sp_ir_node *n)
{
    sp_dtype dtype = result_type(s, n)->dtype;
    bool fmod = strncmp(sp_op_table[n->op].name, "fmod", 4) == 0;
    if (!fmod && is_floating(dtype)) return sp__save_own_domain(s, n);
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
    sp_name low = sp__save_const_scalar(s, sp__attr_to_scalar(&n->attr[0]), dtype);
    sp_name high = sp__save_const_scalar(s, sp__attr_to_scalar(&n->attr[1]), dtype);
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
    sp_name x = sp__save_const_scalar(s, sp__attr_to_scalar(&n->attr[0]), dtype);
    sp_name y = n->n_in > 1 ? input_as(s, n, 1, dtype)
                            : sp__save_const_scalar(s, sp__attr_to_scalar(&n->attr[1]), dtype);
    emit_where(s, n, cond, x, y);
    return SP_OK;
}

static sp_status save_masked_fill(sp_saver *s, const sp_ir_node *n)
{
    sp_dtype dtype = result_type(s, n)->dtype;
    sp_name mask = input_as(s, n, 1, SP_BOOL);
    sp_name value = n->n_in > 2 ? input_as(s, n, 2, dtype)
                                : sp__save_const_scalar(s, sp__attr_to_scalar(&n->attr[0]), dtype);
    emit_where(s, n, mask, value, input_as(s, n, 0, dtype));
    return SP_OK;
}

static sp_status save_threshold_backward(sp_saver *s, const sp_ir_node *n)
{
    sp_dtype dtype = result_type(s, n)->dtype;
    sp_name bound = sp__save_const_scalar(s, sp__attr_to_scalar(&n->attr[0]), dtype),
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

/* x + y * z, x + y / z; of bools by their operators */
static sp_status save_addc(sp_saver *s, const sp_ir_node *n)
{
    sp_dtype dtype = result_type(s, n)->dtype;
    bool whole = dtype == SP_BOOL, divided = strcmp(sp_op_table[n->op].name, "addcdiv") == 0;
    sp_name part = temp2(s,
                         divided ? "Div"
                         : whole ? "And"
                                 : "Mul",
                         input_as(s, n, 1, dtype), input_as(s, n, 2, dtype));
    emit2(s, whole ? "Or" : "Add", input_as(s, n, 0, dtype), part, result(s, n));
    return SP_OK;
}

static sp_status save_gelu(sp_saver *s, const sp_ir_node *n)
{
    sp_name x = input(s, n, 0);
    sp__save_begin(s, "Gelu", "");
    sp__save_in(s, x);
    sp__save_attr_text(s, "approximate", attr_int(n, "approximate", 0) != 0 ? "tanh" : "none");
    sp__save_end(s, result(s, n));
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
    emit_where(s, n, cond, x, sp__save_const_scalar(s, sp__attr_to_scalar(attr(n, "y")), dtype));
    return SP_OK;
}

/* ---- which ops ---- */

const sp_save_row sp__save_rows_pointwise[] = {
    {"add", save_add_sub},
    {"add.alpha", save_add_sub},
    {"add.scalar", save_add_sub},
    {"sub", save_add_sub},
    {"sub.alpha", save_add_sub},
    {"sub.scalar", save_add_sub},
    {"sub.rscalar", save_reversed},
    {"div.rscalar", save_reversed},
    {"addcmul", save_addc},
    {"addcdiv", save_addc},
    {"ne", save_ne},
    {"ne.scalar", save_ne},
    {"threshold_backward", save_threshold_backward},
    {"tanh_backward", save_tanh_backward},
    {"sigmoid_backward", save_sigmoid_backward},
    {"gelu", save_gelu},
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
    {"contiguous", save_identity},
    {"clone", save_identity},
    {"alias", save_identity},
    {"detach", save_identity},
    {NULL, NULL},
};
