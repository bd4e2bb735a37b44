/* Dense copies of operands (dense.h). */
#include "backends/cpu/dense.h"

#include "backends/cpu/copy.h"
#include "backends/cpu/strided.h"
#include "ops/op.h"
#include "tensor/memory.h"

static sp_operand copy_of(const sp_operand *x, char *data)
{
    sp_operand y = *x;
    int64_t step = 1;
    for (int i = x->rank - 1; i >= 0; i--) y.stride[i] = step, step *= x->shape[i];
    y.data = data, y.contiguous = true;
    return y;
}

static sp_status make_dense(const sp_operand *x, bool fill, const char *op, sp_dense *d)
{
    d->data = x->data;
    if (x->data == NULL || x->numel == 0 || sp__is_dense(x)) return SP_OK;
    d->bytes = (size_t)(x->numel * sp__size_of(x->dtype));
    d->data = d->copy = sp__alloc(d->bytes);
    if (d->copy == NULL)
        return sp_fail(SP_EMEMORY, "%s: no memory for %zu bytes of a dense copy", op, d->bytes);
    sp_operand copy = copy_of(x, d->copy);
    if (fill) sp__copy_strided(&copy, x);
    return SP_OK;
}

sp_status sp__dense_begin(const sp_kargs *args, sp_dense *d)
{
    for (int i = 0; i < args->n_arg; i++) d[i] = (sp_dense){0};
    for (int i = 0; i < args->n_arg; i++)
        SP_RETURN_IF(
            make_dense(&args->arg[i], i >= args->n_out, sp_op_table[args->op].name, &d[i]));
    return SP_OK;
}

sp_status sp__dense_end(const sp_kargs *args, sp_dense *d, sp_status status)
{
    for (int i = 0; i < args->n_arg; i++) {
        if (d[i].copy == NULL) continue;
        sp_operand copy = copy_of(&args->arg[i], d[i].copy);
        if (i < args->n_out && status == SP_OK) sp__copy_strided(&args->arg[i], &copy);
        sp__free(d[i].copy, d[i].bytes);
    }
    return status;
}
