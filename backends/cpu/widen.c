/* Operands converted for kernels that know only the wide dtypes.
 *
 *      float16 x ----cast----> float32 ---kernel---> float32 ----cast----> float16 out
 *
 * Invariants
 * 1. An operand's copy is dense, unless all its elements are one: then it stays one element with
 *    strides of 0.
 * 2. A result has a copy of its own, also where the op writes in place: a kernel finds input and
 *    output apart then, as in its usual form.
 */
#include "backends/cpu/widen.h"

#include "backends/cpu/strided.h"
#include "backends/cpu/tile.h"
#include "ops/op.h"
#include "ops_gen.h"
#include "tensor/memory.h"

/* The dtype that the kernel gets operand i in. */
static int taken(const sp_kargs *args, sp_takes takes, int i)
{
    const sp_operand *x = &args->arg[i];
    int index_in = sp_op_table[args->op].index_in;
    bool converts = takes == SP_TAKES_WIDE || (takes == SP_TAKES_ANY_BUT_INDEX && index_in >= 0 &&
                                               i == args->n_out + index_in);
    return converts && x->data != NULL ? sp__dtypes[x->dtype].wide : x->dtype;
}

/* to = from, converted. */
static sp_status convert(const sp_operand *to, const sp_operand *from)
{
    sp_kargs k = {.op = SP_OP_CAST, .n_out = 1, .n_arg = 2, .compute = from->dtype};
    k.arg = k.room, k.room[0] = *to, k.room[1] = *from;
    return to->numel > 0 ? sp__cpu_pointwise(&k) : SP_OK;
}

static sp_operand copy_of(const sp_operand *x, int dtype, char *data)
{
    sp_operand copy = *x;
    int64_t step = sp__is_splat(x) ? 0 : 1;
    copy.data = data, copy.dtype = (uint8_t)dtype;
    for (int d = x->rank - 1; d >= 0; d--) copy.stride[d] = step, step *= x->shape[d];
    copy.contiguous = sp__is_dense(&copy);
    return copy;
}

static size_t bytes_of(const sp_operand *x, int dtype, bool result)
{
    int64_t n = !result && sp__is_splat(x) && x->numel > 0 ? 1 : x->numel;
    return ((size_t)(n * sp__size_of(dtype)) + 63) / 64 * 64;
}

/* The first element of x alone, as what every place shows. */
static sp_operand one_of(const sp_operand *x)
{
    sp_operand one = *x;
    one.rank = 0, one.numel = 1, one.contiguous = true;
    return one;
}

static sp_status fill_copy(const sp_operand *copy, const sp_operand *x)
{
    if (!sp__is_splat(x) || x->numel == 0) return convert(copy, x);
    sp_operand to = one_of(copy), from = one_of(x);
    return convert(&to, &from);
}

static sp_status run_over(sp_kernel kernel, sp_takes takes, const sp_kargs *args, sp_kargs *wide,
                          char *at)
{
    for (int i = 0; i < args->n_arg; i++) {
        const sp_operand *x = &args->arg[i];
        int dtype = taken(args, takes, i);
        wide->arg[i] = *x;
        if (dtype == x->dtype) continue;
        wide->arg[i] = copy_of(x, dtype, at);
        at += bytes_of(x, dtype, i < args->n_out);
        if (i >= args->n_out) SP_RETURN_IF(fill_copy(&wide->arg[i], x));
    }
    SP_RETURN_IF(kernel(wide));
    for (int i = 0; i < args->n_out; i++) {
        if (wide->arg[i].dtype != args->arg[i].dtype)
            SP_RETURN_IF(convert(&args->arg[i], &wide->arg[i]));
    }
    return SP_OK;
}

static sp_status run_converted(sp_kernel kernel, sp_takes takes, const sp_kargs *args)
{
    sp_kargs wide = *args;
    size_t operands = args->n_arg > SP_KARGS_INLINE ? sizeof(sp_operand) * (size_t)args->n_arg : 0;
    size_t bytes = (operands + 63) / 64 * 64;
    for (int i = 0; i < args->n_arg; i++) {
        int dtype = taken(args, takes, i);
        if (dtype != args->arg[i].dtype) bytes += bytes_of(&args->arg[i], dtype, i < args->n_out);
    }
    char *room = sp__alloc(bytes);
    if (room == NULL)
        return sp_fail(SP_EMEMORY, "%s: no memory for %zu bytes of converted operands",
                       sp_op_table[args->op].name, bytes);
    wide.arg = operands > 0 ? (sp_operand *)room : wide.room;
    sp_status status = run_over(kernel, takes, args, &wide, room + (operands + 63) / 64 * 64);
    sp__free(room, bytes);
    return status;
}

sp_status sp__cpu_widened(sp_kernel kernel, sp_takes takes, const sp_kargs *args)
{
    for (int i = 0; i < args->n_arg; i++)
        if (taken(args, takes, i) != args->arg[i].dtype) return run_converted(kernel, takes, args);
    return kernel(args);
}
