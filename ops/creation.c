/* Inference for tensors from nothing. */
#include <math.h>

#include "ops/attr.h"
#include "ops/infer.h"
#include "ops_gen.h"
#include "tensor/backend.h"

static sp_dtype dtype_or(const sp_attr *asked, sp_dtype otherwise)
{
    return asked->absent ? otherwise : (sp_dtype)asked->v.i;
}

sp_status sp__infer_full(const sp_call *c, sp_meta *out)
{
    const sp_attr *size = &c->attr[SP_FULL_SIZE];
    sp_dtype kind = (sp_dtype)c->attr[SP_FULL_FILL_VALUE].tag;
    if (size->n > SP_MAX_RANK)
        return sp_fail(SP_ESHAPE, "%s: %d dimensions, at most %d are possible", sp__op_name(c),
                       size->n, SP_MAX_RANK);
    out->rank = (uint8_t)size->n;
    for (int i = 0; i < size->n; i++) out->shape[i] = size->v.ints[i];
    return sp__infer_dense(
        c, dtype_or(&c->attr[SP_FULL_DTYPE], kind == SP_FLOAT64 ? SP_FLOAT32 : kind), SP_DEVICE_CPU,
        out);
}

sp_status sp__infer_linspace(const sp_call *c, sp_meta *out)
{
    sp_dtype dtype = dtype_or(&c->attr[SP_LINSPACE_DTYPE], SP_FLOAT32);
    int64_t steps = c->attr[SP_LINSPACE_STEPS].v.i;
    if (steps < 0)
        return sp_fail(SP_EVALUE, "%s: %lld steps, expected 0 or more", sp__op_name(c),
                       (long long)steps);
    if (dtype == SP_BOOL)
        return sp_fail(SP_EDTYPE, "%s: dtype is bool, expected a number's", sp__op_name(c));
    out->rank = 1, out->shape[0] = steps;
    return sp__infer_dense(c, dtype, SP_DEVICE_CPU, out);
}

/* ---- arange ----- */

static double number(const sp_attr *a)
{
    return a->tag == SP_FLOAT64 ? a->v.f : (double)a->v.i;
}

static sp_status wrong_way(const sp_call *c)
{
    const sp_attr *a = c->attr;
    return sp_fail(
        SP_EVALUE,
        "%s: from %g to %g by %g: the step leads away from the end; give it the other sign",
        sp__op_name(c), number(&a[SP_ARANGE_START]), number(&a[SP_ARANGE_END]),
        number(&a[SP_ARANGE_STEP]));
}

static sp_status count_integers(const sp_call *c, int64_t *n)
{
    int64_t start = c->attr[SP_ARANGE_START].v.i, end = c->attr[SP_ARANGE_END].v.i,
            step = c->attr[SP_ARANGE_STEP].v.i;
    if (step > 0 ? start > end : start < end) return wrong_way(c);
    uint64_t span = step > 0 ? (uint64_t)end - (uint64_t)start : (uint64_t)start - (uint64_t)end;
    uint64_t stride = step > 0 ? (uint64_t)step : -(uint64_t)step,
             count = span ? (span - 1) / stride + 1 : 0;
    *n = count > INT64_MAX ? INT64_MAX : (int64_t)count; /* too large either way */
    return SP_OK;
}

static sp_status count_floats(const sp_call *c, int64_t *n)
{
    double start = number(&c->attr[SP_ARANGE_START]), end = number(&c->attr[SP_ARANGE_END]);
    double step = number(&c->attr[SP_ARANGE_STEP]), count = ceil((end - start) / step);
    if (!isfinite(start) || !isfinite(end) || isnan(step))
        return sp_fail(SP_EVALUE, "%s: from %g to %g by %g: expected finite numbers",
                       sp__op_name(c), start, end, step);
    if (step > 0 ? start > end : start < end) return wrong_way(c);
    *n = count < 0x1p62 ? (int64_t)count : INT64_MAX;
    return SP_OK;
}

sp_status sp__infer_arange(const sp_call *c, sp_meta *out)
{
    const sp_attr *a = c->attr;
    bool floats = false;
    for (int i = SP_ARANGE_START; i <= SP_ARANGE_STEP; i++) floats |= a[i].tag == SP_FLOAT64;
    sp_dtype dtype = dtype_or(&a[SP_ARANGE_DTYPE], floats ? SP_FLOAT32 : SP_INT64);
    if (number(&a[SP_ARANGE_STEP]) == 0)
        return sp_fail(SP_EVALUE, "%s: step is 0, expected another number", sp__op_name(c));
    if (dtype == SP_BOOL)
        return sp_fail(SP_EDTYPE, "%s: dtype is bool, expected a number's", sp__op_name(c));
    SP_RETURN_IF(floats ? count_floats(c, &out->shape[0]) : count_integers(c, &out->shape[0]));
    out->rank = 1;
    return sp__infer_dense(c, dtype, SP_DEVICE_CPU, out);
}
