/* constant_pad_nd: slabs of one number around a copy.
 *
 *     1 1 1 1 1      dimension by dimension, the slabs before and after what is left of the result
 *     2 x x x 2      are filled; then x is copied to where none was
 *     1 1 1 1 1
 */
#include "backends/cpu/copy.h"
#include "backends/cpu/kernels.h"
#include "backends/cpu/strided.h"
#include "ops/attr.h"
#include "ops/op.h"
#include "ops_gen.h"
#include "tensor/dtype.h"
#include "tensor/tensor.h"

/* Elements start to start + n of x along dim. */
static sp_operand part_of(const sp_operand *x, int dim, int64_t start, int64_t n)
{
    sp_operand part = *x;
    part.data += start * x->stride[dim] * sp__size_of(x->dtype);
    part.shape[dim] = n;
    part.numel = 1;
    for (int d = 0; d < x->rank; d++) part.numel *= part.shape[d];
    part.contiguous = sp__is_dense(&part);
    return part;
}

/* value: one element */
static void fill(const sp_operand *to, void *value)
{
    sp_operand from = *to;
    if (to->numel == 0) return;
    from.data = value, from.contiguous = false;
    for (int d = 0; d < to->rank; d++) from.stride[d] = 0;
    sp__copy_strided(to, &from);
}

sp_status sp__cpu_constant_pad_nd(const sp_kargs *args)
{
    const sp_attr *pad = &args->attr[SP_CONSTANT_PAD_ND_PAD];
    sp_operand out = args->arg[0], x = args->arg[1];
    sp_element value; /* of the dtype */
    sp__scalar_to(sp__attr_to_scalar(&args->attr[SP_CONSTANT_PAD_ND_VALUE]), out.dtype, &value);
    for (int i = 0; i < pad->n; i += 2) {
        int d = out.rank - 1 - i / 2;
        int64_t before = pad->v.ints[i], after = pad->v.ints[i + 1];
        int64_t first = before > 0 ? before : 0, gone = before < 0 ? -before : 0;
        int64_t kept = x.shape[d] - gone + (after < 0 ? after : 0), n = out.shape[d];
        sp_operand slab = part_of(&out, d, 0, first);
        fill(&slab, &value);
        slab = part_of(&out, d, first + kept, n - first - kept);
        fill(&slab, &value);
        out = part_of(&out, d, first, kept), x = part_of(&x, d, gone, kept);
    }
    if (out.numel > 0) sp__copy_strided(&out, &x);
    return SP_OK;
}
