/* Complex numbers: inference of views of parts and of what is made of them, bodies of composites.
 */
#include "ops/infer.h"
#include "ops_gen.h"

/* ---- pointwise ----- */

static sp_status check_parts(const sp_call *c)
{
    const char *const *names = sp_op_table[c->op].in_names;
    for (int i = 0; i < 2; i++) {
        int dtype = c->in[i]->dtype;
        if (dtype != SP_FLOAT32 && dtype != SP_FLOAT64)
            return sp_fail(SP_EDTYPE, "%s: %s is %s, expected float32 or float64; convert it",
                           sp__op_name(c), names[i], sp_dtype_name((sp_dtype)dtype));
    }
    return sp__check_same_dtype(c, c->in[0], names[0], c->in[1], names[1]);
}

static sp_status broadcast_as(const sp_call *c, sp_dtype dtype, sp_meta *out)
{
    SP_RETURN_IF(sp__check_devices(c));
    out->dtype = (uint8_t)dtype, out->device = c->in[0]->device;
    return sp__broadcast(sp__op_name(c), c->in, c->n_in, out);
}

sp_status sp__infer_complex(const sp_call *c, sp_meta *out)
{
    SP_RETURN_IF(check_parts(c));
    return broadcast_as(c, sp__dtype_complex(c->in[0]->dtype), out);
}

sp_status sp__infer_angle(const sp_call *c, sp_meta *out)
{
    sp_dtype dtype = sp__to_floating((sp_dtype)c->in[0]->dtype);
    return broadcast_as(c, (sp_dtype)sp__dtype_real(dtype), out);
}

sp_status sp__infer_magnitude(const sp_call *c, sp_meta *out)
{
    SP_RETURN_IF(sp__infer_pointwise_number(c, out));
    out->dtype = (uint8_t)sp__dtype_real(out->dtype);
    return SP_OK;
}

/* ---- views ----- */

static sp_status check_complex(const sp_call *c)
{
    const sp_tensor *x = c->in[0];
    if (sp__dtype_is_complex(x->dtype)) return SP_OK;
    return sp_fail(SP_EDTYPE, "%s: x is %s, expected complex64 or complex128", sp__op_name(c),
                   sp_dtype_name((sp_dtype)x->dtype));
}

sp_status sp__infer_view_as_real(const sp_call *c, sp_meta *out)
{
    const sp_tensor *x = c->in[0];
    SP_RETURN_IF(check_complex(c));
    if (x->rank == SP_MAX_RANK)
        return sp_fail(SP_ESHAPE, "%s: x has %d dimensions, which leaves none for the parts",
                       sp__op_name(c), SP_MAX_RANK);
    sp__meta_of(x, out);
    for (int d = 0; d < x->rank; d++) out->stride[d] *= 2;
    out->shape[x->rank] = 2, out->stride[x->rank] = 1;
    out->rank++, out->offset *= 2, out->view_of = 0;
    out->dtype = (uint8_t)sp__dtype_real(x->dtype);
    sp__meta_update(out);
    return SP_OK;
}

sp_status sp__infer_view_as_complex(const sp_call *c, sp_meta *out)
{
    const sp_tensor *x = c->in[0];
    int last = x->rank - 1;
    if (x->dtype != SP_FLOAT32 && x->dtype != SP_FLOAT64)
        return sp_fail(SP_EDTYPE, "%s: x is %s, expected float32 or float64", sp__op_name(c),
                       sp_dtype_name((sp_dtype)x->dtype));
    if (last < 0 || x->shape[last] != 2)
        return sp_fail(SP_ESHAPE, "%s: x has shape %s, expected a last dimension of 2",
                       sp__op_name(c), SP_SHAPE(x));
    bool pairs = x->stride[last] == 1 && x->offset % 2 == 0;
    for (int d = 0; d < last; d++) pairs = pairs && (x->shape[d] == 1 || x->stride[d] % 2 == 0);
    if (!pairs)
        return sp_fail(SP_EVALUE,
                       "%s: the parts of a number do not lie side by side at an even place; pass "
                       "x.clone()",
                       sp__op_name(c));
    sp__meta_of(x, out);
    out->rank--, out->offset /= 2, out->view_of = 0;
    for (int d = 0; d < last; d++) out->stride[d] /= 2;
    out->dtype = (uint8_t)sp__dtype_complex(x->dtype);
    sp__meta_update(out);
    return SP_OK;
}

static sp_status part(const sp_call *c, int64_t which, sp_tensor **out)
{
    sp_tensor *parts = NULL;
    SP_RETURN_IF(sp_view_as_real(c->in[0], &parts));
    sp_status status = sp_select(parts, -1, which, out);
    sp_drop(&parts);
    return status;
}

sp_status sp__body_real(sp_call *c)
{
    if (sp__dtype_is_complex(c->in[0]->dtype)) return part(c, 0, &c->out[0]);
    return sp_alias(c->in[0], &c->out[0]);
}

sp_status sp__body_imag(sp_call *c)
{
    SP_RETURN_IF(check_complex(c));
    return part(c, 1, &c->out[0]);
}

/* ---- other ops ----- */

sp_status sp__body_itself(sp_call *c)
{
    return sp_alias(c->in[0], &c->out[0]);
}

sp_status sp__body_conj(sp_call *c)
{
    if (sp__dtype_is_complex(c->in[0]->dtype)) return sp_conj_physical(c->in[0], &c->out[0]);
    return sp__body_itself(c);
}

sp_status sp__body_adjoint(sp_call *c)
{
    sp_tensor *turned = NULL;
    SP_RETURN_IF(sp_transpose(c->in[0], -2, -1, &turned));
    sp_status status = sp_conj(turned, &c->out[0]);
    sp_drop(&turned);
    return status;
}

sp_status sp__body_polar(sp_call *c)
{
    const sp_tensor *size = c->in[0], *angle = c->in[1];
    sp_tensor *t[4] = {NULL};
    sp_status status = SP_OK;
    SP_RETURN_IF(check_parts(c));
    SP_TRY(sp_cos(angle, &t[0]));
    SP_TRY(sp_sin(angle, &t[1]));
    for (int i = 0; i < 2; i++) SP_TRY(sp_mul(size, t[i], &t[2 + i]));
    SP_TRY(sp_complex(t[2], t[3], &c->out[0]));
out:
    for (int i = 0; i < 4; i++) sp_drop(&t[i]);
    return status;
}
