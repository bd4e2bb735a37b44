/* Inference for the steps of optimizers. */
#include "ops/infer.h"
#include "ops_gen.h"
#include "tensor/backend.h"

/* Tensors of one shape and dtype; each result is like the input that it replaces. */
sp_status sp__infer_update(const sp_call *c, sp_meta *out)
{
    const sp_tensor *param = c->in[0];
    const char *const *names = sp_op_table[c->op].in_names;
    SP_RETURN_IF(sp__check_floating(c, param, names[0]));
    SP_RETURN_IF(sp__check_devices(c));
    for (int k = 1; k < c->n_in; k++) {
        const sp_tensor *t = c->in[k];
        SP_RETURN_IF(sp__check_same_dtype(c, param, names[0], t, names[k]));
        if (!sp__same_shape(param, t))
            return sp_fail(SP_ESHAPE, "%s: %s has shape %s and %s %s; expected one shape",
                           sp__op_name(c), names[0], SP_SHAPE(param), names[k], SP_SHAPE(t));
    }
    for (int j = 0; j < c->n_out; j++)
        SP_RETURN_IF(sp__infer_like(c, param, (sp_dtype)param->dtype, &out[j]));
    return SP_OK;
}

sp_status sp__infer_all_finite(const sp_call *c, sp_meta *out)
{
    for (int k = 0; k < c->n_in; k++) SP_RETURN_IF(sp__check_floating(c, c->in[k], "xs"));
    SP_RETURN_IF(sp__check_devices(c));
    out->rank = 0;
    return sp__infer_dense(c, SP_BOOL, c->n_in > 0 ? c->in[0]->device : SP_DEVICE_CPU, out);
}
