/* Inference for elementwise ops: broadcasting and type promotion.
 *
 * Promotion (PyTorch's). Tensors with dimensions promote among themselves. A tensor without
 * dimensions counts only where its kind (bool < integer < floating < complex) is higher, a number
 * only where its kind is higher still; the number's dtype is then bool, int64 or float32. Results
 * are dense in row-major order, whatever the strides of the inputs.
 */
#include "ops/attr.h"
#include "ops/infer.h"
#include "ops_gen.h"

/* ---- promotion ----- */

/* Of the inputs from `first` on; -1 in with_dims or without where there are none. */
static sp_dtype promote_tensors(const sp_call *c, int first)
{
    int with_dims = -1, without = -1;
    for (int i = first; i < c->n_in; i++) {
        const sp_tensor *t = c->in[i];
        int *to = t->rank ? &with_dims : &without;
        *to = *to < 0 ? t->dtype : (int)sp_promote((sp_dtype)*to, (sp_dtype)t->dtype);
    }
    if (with_dims < 0) return (sp_dtype)without;
    return without < 0 ? (sp_dtype)with_dims
                       : sp__promote_without_dims((sp_dtype)with_dims, (sp_dtype)without);
}

/* Of all operands from input `first` on. A number takes part where it stands in a tensor's place;
 * alpha does not. */
static sp_dtype promote(const sp_call *c, int first)
{
    sp_dtype dtype = (sp_dtype)c->in[first]->dtype;
    if (c->n_in - first == 2 && c->in[first + 1]->dtype == dtype) return dtype;
    if (c->n_in - first > 1) return promote_tensors(c, first);
    if (c->n_attr && c->attr[0].kind == SP_ATTR_SCALAR)
        return sp__promote_scalar(dtype, (sp_dtype)c->attr[0].tag);
    return dtype;
}

/* Of one tensor and all numbers of the call. */
static sp_dtype promote_numbers(sp_dtype dtype, const sp_call *c)
{
    for (int i = 0; i < c->n_attr; i++) dtype = sp__promote_scalar(dtype, (sp_dtype)c->attr[i].tag);
    return dtype;
}

/* bool counts as int64. */
static sp_dtype counted(const sp_call *c)
{
    return c->in[0]->dtype == SP_BOOL ? SP_INT64 : (sp_dtype)c->in[0]->dtype;
}

/* An op's inference function says what kind of promotion it has, so a new op needs no line here.
 * What only moves elements does so in their own dtype; the others compute. */
sp_dtype sp__pointwise_compute(const sp_call *c)
{
    sp_infer_fn rule = sp_op_table[c->op].infer;
    if (rule == sp__infer_where) return promote(c, 1);
    if (rule == sp__infer_cast || rule == sp__infer_fill || rule == sp__infer_masked_fill ||
        rule == sp__infer_clone)
        return (sp_dtype)c->in[0]->dtype;
    if (rule == sp__infer_where_scalars) return promote_numbers(SP_BOOL, c);
    if (rule == sp__infer_logical) return SP_BOOL;
    if (rule == sp__infer_copy) return (sp_dtype)c->in[1]->dtype;
    sp_dtype dtype = promote(c, 0);
    if (rule == sp__infer_pointwise_float || rule == sp__infer_angle || rule == sp__infer_polygamma)
        dtype = sp__to_floating(dtype);
    if (rule == sp__infer_complex) dtype = sp__dtype_complex(dtype);
    if (rule == sp__infer_square) dtype = counted(c);
    if (rule == sp__infer_clamp) dtype = promote_numbers((sp_dtype)c->in[0]->dtype, c);
    return (sp_dtype)sp__dtype_compute(dtype);
}

/* ---- shapes ----- */

static sp_status broadcast(const sp_call *c, sp_dtype dtype, sp_meta *out)
{
    const sp_tensor *x = c->in[0];
    for (int i = 1; i < c->n_in; i++)
        if (!sp__same_shape(x, c->in[i])) goto different;
    if (c->n_in > 1) SP_RETURN_IF(sp__check_devices(c));
    return sp__infer_like(c, x, dtype, out);
different:
    SP_RETURN_IF(sp__check_devices(c));
    out->dtype = (uint8_t)dtype, out->device = x->device;
    return sp__broadcast(sp__op_name(c), c->in, c->n_in, out);
}

sp_status sp__infer_pointwise(const sp_call *c, sp_meta *out)
{
    return broadcast(c, promote(c, 0), out);
}

/* Integers become float32. */
sp_status sp__infer_pointwise_float(const sp_call *c, sp_meta *out)
{
    return broadcast(c, sp__to_floating(promote(c, 0)), out);
}

sp_status sp__infer_polygamma(const sp_call *c, sp_meta *out)
{
    int64_t n = c->attr[SP_POLYGAMMA_N].v.i;
    if (n < 0)
        return sp_fail(SP_EVALUE, "%s: n is %lld, expected a derivative's order, 0 or more",
                       sp__op_name(c), (long long)n);
    return sp__infer_pointwise_float(c, out);
}

static sp_status no_bool(const sp_call *c, const char *instead)
{
    for (int i = 0; i < c->n_in; i++)
        if (c->in[i]->dtype == SP_BOOL)
            return sp_fail(SP_EDTYPE, "%s: %s is bool, expected numbers; %s", sp__op_name(c),
                           sp_op_table[c->op].in_names[i], instead);
    return SP_OK;
}

/* Any dtype but bool. */
sp_status sp__infer_pointwise_number(const sp_call *c, sp_meta *out)
{
    SP_RETURN_IF(no_bool(c, "convert it with .long() or .float()"));
    return sp__infer_pointwise(c, out);
}

/* ---- add and sub ----- */

sp_status sp__infer_sub(const sp_call *c, sp_meta *out)
{
    SP_RETURN_IF(no_bool(c, "compare with !=, or convert it with .long()"));
    return sp__infer_pointwise(c, out);
}

/* x + alpha * y. */
sp_status sp__infer_add_alpha(const sp_call *c, sp_meta *out)
{
    const sp_attr *alpha = &c->attr[SP_ADD_ALPHA_ALPHA];
    sp_dtype dtype = promote(c, 0);
    if (SP_UNLIKELY(alpha->tag == SP_FLOAT64 && !sp__dtype_is_inexact(dtype)))
        return sp_fail(SP_EDTYPE,
                       "%s: alpha is %g and the result is %s, expected an integer alpha; convert x "
                       "with .float()",
                       sp__op_name(c), alpha->v.f, sp_dtype_name(dtype));
    return broadcast(c, dtype, out);
}

sp_status sp__infer_sub_alpha(const sp_call *c, sp_meta *out)
{
    SP_RETURN_IF(no_bool(c, "compare with !=, or convert it with .long()"));
    return sp__infer_add_alpha(c, out);
}

/* ---- by what the result may be ----- */

/* EDTYPE where the promoted dtype is bool. */
static sp_status not_bool(const sp_call *c, sp_dtype dtype)
{
    if (SP_LIKELY(dtype != SP_BOOL)) return SP_OK;
    return sp_fail(SP_EDTYPE,
                   "%s: the operands are bool, expected a number; convert x with .long()",
                   sp__op_name(c));
}

sp_status sp__infer_arithmetic(const sp_call *c, sp_meta *out)
{
    sp_dtype dtype = promote(c, 0);
    SP_RETURN_IF(not_bool(c, dtype));
    return broadcast(c, dtype, out);
}

/* The divisor, where it is a number of the signature, stands on the right but for `rscalar`. */
sp_status sp__infer_divide(const sp_call *c, sp_meta *out)
{
    bool right = c->op == SP_OP_FLOOR_DIVIDE_SCALAR || c->op == SP_OP_REMAINDER_SCALAR ||
                 c->op == SP_OP_FMOD_SCALAR;
    if (right && !sp__dtype_is_floating(promote(c, 0)) && c->attr[0].v.i == 0)
        return sp_fail(SP_EVALUE,
                       "%s: whole numbers have no quotient by 0, expected another divisor; convert "
                       "x with .float() for inf and NaN",
                       sp__op_name(c));
    return sp__infer_arithmetic(c, out);
}

sp_status sp__infer_clamp(const sp_call *c, sp_meta *out)
{
    sp_dtype dtype = promote_numbers((sp_dtype)c->in[0]->dtype, c);
    SP_RETURN_IF(not_bool(c, dtype));
    return broadcast(c, dtype, out);
}

sp_status sp__infer_square(const sp_call *c, sp_meta *out)
{
    return broadcast(c, counted(c), out);
}

sp_status sp__infer_floating(const sp_call *c, sp_meta *out)
{
    for (int i = 0; i < c->n_in; i++)
        SP_RETURN_IF(sp__check_floating(c, c->in[i], sp_op_table[c->op].in_names[i]));
    return broadcast(c, promote(c, 0), out);
}

sp_status sp__infer_addcdiv(const sp_call *c, sp_meta *out)
{
    if (!sp__dtype_is_inexact(c->in[1]->dtype) && !sp__dtype_is_inexact(c->in[2]->dtype))
        return sp_fail(SP_EDTYPE,
                       "%s: tensor1 and tensor2 are of integers, expected a floating one; convert "
                       "one with .float(), or use addcmul",
                       sp__op_name(c));
    return broadcast(c, promote(c, 0), out);
}

sp_status sp__infer_logical(const sp_call *c, sp_meta *out)
{
    return broadcast(c, SP_BOOL, out);
}

sp_status sp__infer_bits(const sp_call *c, sp_meta *out)
{
    sp_dtype dtype = promote(c, 0);
    if (sp__dtype_is_floating(dtype))
        return sp_fail(SP_EDTYPE,
                       "%s: the operands are of dtype %s, expected integers or bool; convert them "
                       "with .long()",
                       sp__op_name(c), sp_dtype_name(dtype));
    return broadcast(c, dtype, out);
}

sp_status sp__infer_shift(const sp_call *c, sp_meta *out)
{
    SP_RETURN_IF(not_bool(c, promote(c, 0)));
    return sp__infer_bits(c, out);
}

/* ---- others with rules of their own ----- */

sp_status sp__infer_pow(const sp_call *c, sp_meta *out)
{
    const sp_attr *e = c->op == SP_OP_POW_SCALAR ? &c->attr[SP_POW_SCALAR_EXPONENT] : NULL;
    sp_dtype dtype = promote(c, 0);
    if (dtype == SP_BOOL)
        return sp_fail(SP_EDTYPE,
                       "%s: x and the exponent are bool, expected numbers; convert x with .long()",
                       sp__op_name(c));
    if (e && sp__dtype_is_integer(dtype) && e->tag == SP_INT64 && e->v.i < 0)
        return sp_fail(SP_EVALUE,
                       "%s: integers to the power of %lld are no integers; convert x with .float()",
                       sp__op_name(c), (long long)e->v.i);
    return broadcast(c, dtype, out);
}

sp_status sp__infer_compare(const sp_call *c, sp_meta *out)
{
    return broadcast(c, SP_BOOL, out);
}

sp_status sp__infer_where(const sp_call *c, sp_meta *out)
{
    if (c->in[0]->dtype != SP_BOOL)
        return sp_fail(SP_EDTYPE, "%s: cond is %s, expected bool; compare it (cond != 0)",
                       sp__op_name(c), sp_dtype_name(c->in[0]->dtype));
    return broadcast(c, promote(c, 1), out);
}

/* Two numbers: each of its own kind, as in a sum with a bool tensor. */
sp_status sp__infer_where_scalars(const sp_call *c, sp_meta *out)
{
    if (c->in[0]->dtype != SP_BOOL)
        return sp_fail(SP_EDTYPE, "%s: cond is %s, expected bool; compare it (cond != 0)",
                       sp__op_name(c), sp_dtype_name(c->in[0]->dtype));
    return broadcast(c, promote_numbers(SP_BOOL, c), out);
}

/* The kind of what is filled in may not be higher than x's, which the result keeps. */
sp_status sp__infer_masked_fill(const sp_call *c, sp_meta *out)
{
    const sp_tensor *x = c->in[0], *mask = c->in[1], *value = c->n_in > 2 ? c->in[2] : NULL;
    int dtype = value ? value->dtype : c->attr[0].tag;
    if (mask->dtype != SP_BOOL)
        return sp_fail(SP_EDTYPE, "%s: mask is %s, expected bool; compare it (mask != 0)",
                       sp__op_name(c), sp_dtype_name(mask->dtype));
    if (sp__dtype_kind(dtype) > sp__dtype_kind(x->dtype))
        return sp_fail(SP_EDTYPE, "%s: value is %s and x is %s, which cannot hold it; convert x",
                       sp__op_name(c), sp_dtype_name((sp_dtype)dtype),
                       sp_dtype_name((sp_dtype)x->dtype));
    return broadcast(c, (sp_dtype)x->dtype, out);
}

sp_status sp__infer_cast(const sp_call *c, sp_meta *out)
{
    return broadcast(c, (sp_dtype)c->attr[SP_CAST_DTYPE].v.i, out);
}

sp_status sp__infer_clone(const sp_call *c, sp_meta *out)
{
    return broadcast(c, (sp_dtype)c->in[0]->dtype, out);
}

sp_status sp__infer_fill(const sp_call *c, sp_meta *out)
{
    return broadcast(c, (sp_dtype)c->in[0]->dtype, out);
}

sp_status sp__infer_copy(const sp_call *c, sp_meta *out)
{
    const sp_tensor *x = c->in[0], *src = c->in[1];
    int lead = x->rank - src->rank;
    bool fits = lead >= 0;
    for (int i = 0; fits && i < src->rank; i++)
        fits = src->shape[i] == x->shape[lead + i] || src->shape[i] == 1;
    if (!fits)
        return sp_fail(SP_ESHAPE,
                       "%s: src of shape %s does not broadcast to x of shape %s; aligned at the "
                       "right, its sizes must be x's or 1",
                       sp__op_name(c), SP_SHAPE(src), SP_SHAPE(x));
    SP_RETURN_IF(sp__check_devices(c));
    return sp__infer_like(c, x, (sp_dtype)x->dtype, out);
}
