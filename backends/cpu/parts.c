/* A complex operand as a real one:
 *
 *     complex64 (3, 4), strides (4, 1)  ->  float32 (3, 4, 2), strides (8, 2, 1)
 *
 * What has no dimensions gets one of size 1 in front, so that the parts are not what is reduced.
 */
#include "backends/cpu/parts.h"

#include "backends/cpu/strided.h"
#include "ops/op.h"

static void split(sp_operand *x, bool lead)
{
    if (lead && x->rank == 0) x->shape[0] = 1, x->stride[0] = 1, x->rank = 1;
    for (int d = 0; d < x->rank; d++) x->stride[d] *= 2;
    x->shape[x->rank] = 2, x->stride[x->rank] = 1, x->rank++;
    x->numel *= 2, x->dtype = (uint8_t)sp__dtype_real(x->dtype);
    x->contiguous = sp__is_dense(x);
}

/* The dimensions meant, none of them counted from the end. */
static sp_attr dims_of(const sp_attr *asked, int rank, int64_t *room)
{
    sp_attr dims = *asked;
    if (asked->kind == SP_ATTR_INT) {
        dims.v.i = rank == 0 ? 0 : asked->v.i < 0 ? asked->v.i + rank : asked->v.i;
        return dims;
    }
    bool all = asked->absent || asked->n == 0 || rank == 0;
    dims.n = all ? (rank ? rank : 1) : asked->n, dims.absent = false, dims.v.ints = room;
    for (int i = 0; i < dims.n; i++) {
        int64_t d = all ? i : asked->v.ints[i];
        room[i] = d < 0 ? d + rank : d;
    }
    return dims;
}

sp_status sp__cpu_by_parts(sp_kernel kernel, const sp_kargs *args)
{
    const sp_operand *x = &args->arg[1];
    int64_t room[SP_MAX_RANK];
    sp_attr attr[SP_MAX_ATTR];
    sp_kargs parts = *args;
    if (x->dtype != args->arg[0].dtype)
        return sp_fail(SP_EINTERNAL, "%s: operands of two dtypes", sp_op_table[args->op].name);
    if (x->rank == SP_MAX_RANK)
        return sp_fail(SP_EUNSUPPORTED, "%s: complex numbers in more than %d dimensions",
                       sp_op_table[args->op].name, SP_MAX_RANK - 1);
    for (int i = 0; i < args->n_attr; i++) attr[i] = args->attr[i];
    attr[0] = dims_of(&args->attr[0], x->rank, room);
    parts.arg = parts.room, parts.attr = attr;
    for (int i = 0; i < 2; i++) parts.room[i] = args->arg[i];
    bool keeps = args->arg[0].rank == x->rank && attr[0].kind == SP_ATTR_INT;
    split(&parts.room[0], keeps);
    split(&parts.room[1], true);
    return kernel(&parts);
}
