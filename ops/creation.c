/* Inference for tensors from nothing. */
#include <math.h>

#include "ops/attr.h"
#include "ops/creation.h"
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

/* The kind alone of what is given counts, as it does for numbers. */
static sp_dtype dtype_of_kind(int dtype)
{
    return sp__dtype_is_complex(dtype)    ? SP_COMPLEX64
           : sp__dtype_is_floating(dtype) ? SP_FLOAT32
           : dtype == SP_BOOL             ? SP_BOOL
                                          : SP_INT64;
}

/* One number, everywhere. */
static sp_status spread(const sp_call *c, const sp_tensor *value, sp_dtype dtype,
                        const int64_t *shape, int rank, sp_tensor **out)
{
    sp_tensor *number = NULL, *wide = NULL;
    sp_status status = SP_OK;
    if (value->rank != 0)
        return sp_fail(SP_ESHAPE, "%s: the number has shape %s, expected one without dimensions",
                       sp__op_name(c), SP_SHAPE(value));
    if (sp__dtype_is_complex(value->dtype) && !sp__dtype_is_complex(dtype))
        return sp_fail(SP_EDTYPE,
                       "%s: the number is complex and the dtype %s; give a complex dtype",
                       sp__op_name(c), sp_dtype_name(dtype));
    SP_TRY(sp_cast(value, dtype, &number));
    SP_TRY(sp_expand(number, shape, rank, &wide));
    SP_TRY(sp_clone(wide, out));
out:
    sp_drop(&number), sp_drop(&wide);
    return status;
}

sp_status sp__body_fill_tensor(sp_call *c)
{
    const sp_tensor *x = c->in[0];
    return spread(c, c->in[1], (sp_dtype)x->dtype, x->shape, x->rank, &c->out[0]);
}

sp_status sp__body_full_tensor(sp_call *c)
{
    const sp_tensor *value = c->in[0];
    const sp_attr *size = &c->attr[SP_FULL_TENSOR_SIZE];
    sp_dtype dtype = dtype_or(&c->attr[SP_FULL_TENSOR_DTYPE], dtype_of_kind(value->dtype));
    return spread(c, value, dtype, size->v.ints, size->n, &c->out[0]);
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

sp_status sp__body_arange_end(sp_call *c)
{
    const sp_attr *dtype = &c->attr[SP_ARANGE_END_DTYPE];
    const sp_arange_opt opt = {
        .size = sizeof opt, .has_dtype = !dtype->absent, .dtype = (sp_dtype)dtype->v.i};
    return sp_arange(SP_INT(0), sp__attr_to_scalar(&c->attr[SP_ARANGE_END_END]), &opt, &c->out[0]);
}

/* The exponents are exact to double's precision, whatever the result's dtype. */
sp_status sp__body_logspace(sp_call *c)
{
    const sp_linspace_opt wide = {.size = sizeof wide, .has_dtype = true, .dtype = SP_FLOAT64};
    sp_dtype dtype = dtype_or(&c->attr[SP_LOGSPACE_DTYPE], SP_FLOAT32);
    int64_t steps = c->attr[SP_LOGSPACE_STEPS].v.i;
    sp_tensor *exponents = NULL, *powers = NULL;
    sp_status status = SP_OK;
    if (steps < 0 || dtype == SP_BOOL)
        return sp_fail(steps < 0 ? SP_EVALUE : SP_EDTYPE,
                       "%s: %lld steps of dtype %s, expected 0 or more, of numbers", sp__op_name(c),
                       (long long)steps, sp_dtype_name(dtype));
    SP_TRY(sp_linspace(sp__attr_to_scalar(&c->attr[SP_LOGSPACE_START]),
                       sp__attr_to_scalar(&c->attr[SP_LOGSPACE_END]), steps, &wide, &exponents));
    SP_TRY(sp_pow_rscalar(exponents, SP_FLOAT(c->attr[SP_LOGSPACE_BASE].v.f), &powers));
    SP_TRY(sp_cast(powers, dtype, &c->out[0]));
out:
    sp_drop(&exponents), sp_drop(&powers);
    return status;
}

sp_status sp__body_scalar_tensor(sp_call *c)
{
    const sp_full_opt opt = {.size = sizeof opt,
                             .has_dtype = true,
                             .dtype = dtype_or(&c->attr[SP_SCALAR_TENSOR_DTYPE], SP_FLOAT32)};
    return sp_full(NULL, 0, sp__attr_to_scalar(&c->attr[SP_SCALAR_TENSOR_S]), &opt, &c->out[0]);
}

/* ---- matrices ----- */

sp_status sp__body_eye(sp_call *c)
{
    const sp_attr *m = &c->attr[SP_EYE_M];
    int64_t rows = c->attr[SP_EYE_N].v.i, columns = m->absent ? rows : m->v.i,
            shape[2] = {rows, columns}, least = rows < columns ? rows : columns;
    const sp_full_opt opt = {.size = sizeof opt,
                             .has_dtype = true,
                             .dtype = dtype_or(&c->attr[SP_EYE_DTYPE], SP_FLOAT32)};
    sp_tensor *zeros = NULL, *ones = NULL;
    sp_status status = SP_OK;
    if (rows < 0 || columns < 0)
        return sp_fail(SP_ESHAPE, "%s: %lld rows and %lld columns, expected 0 or more",
                       sp__op_name(c), (long long)rows, (long long)columns);
    SP_TRY(sp_full(shape, 2, SP_INT(0), &opt, &zeros));
    SP_TRY(sp_full(&least, 1, SP_INT(1), &opt, &ones));
    SP_TRY(sp_diagonal_scatter(zeros, ones, NULL, &c->out[0]));
out:
    sp_drop(&zeros), sp_drop(&ones);
    return status;
}

int64_t sp__triangle_start(const sp_attr *attr, bool upper, int64_t row)
{
    int64_t edge = row + attr[SP_TRIL_INDICES_OFFSET].v.i + !upper,
            columns = attr[SP_TRIL_INDICES_COL].v.i;
    return edge < 0 ? 0 : edge < columns ? edge : columns;
}

/* tril_indices, triu_indices */
sp_status sp__infer_triangle_indices(const sp_call *c, sp_meta *out)
{
    bool upper = c->op == SP_OP_TRIU_INDICES;
    int64_t rows = c->attr[SP_TRIL_INDICES_ROW].v.i, columns = c->attr[SP_TRIL_INDICES_COL].v.i,
            offset = c->attr[SP_TRIL_INDICES_OFFSET].v.i, n = 0;
    if (rows < 0 || columns < 0 || offset < -INT32_MAX || offset > INT32_MAX)
        return sp_fail(SP_EVALUE, "%s: %lld rows, %lld columns and offset %lld, expected 0 or more",
                       sp__op_name(c), (long long)rows, (long long)columns, (long long)offset);
    for (int64_t row = 0; row < rows; row++) {
        int64_t edge = sp__triangle_start(c->attr, upper, row);
        n += upper ? columns - edge : edge;
    }
    out->rank = 2, out->shape[0] = 2, out->shape[1] = n;
    return sp__infer_dense(c, SP_INT64, SP_DEVICE_CPU, out);
}

sp_status sp__infer_empty(const sp_call *c, sp_meta *out)
{
    const sp_attr *size = &c->attr[SP_EMPTY_SIZE];
    if (size->n > SP_MAX_RANK)
        return sp_fail(SP_ESHAPE, "%s: %d dimensions, at most %d are possible", sp__op_name(c),
                       size->n, SP_MAX_RANK);
    out->rank = (uint8_t)size->n;
    for (int i = 0; i < size->n; i++) out->shape[i] = size->v.ints[i];
    return sp__infer_dense(c, dtype_or(&c->attr[SP_EMPTY_DTYPE], SP_FLOAT32), SP_DEVICE_CPU, out);
}
