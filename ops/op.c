/* Attributes that outlive a call, and what inference functions share (infer.h). */
#include "ops/op.h"

#include <string.h>

#include "ops/infer.h"
#include "tensor/memory.h"

/* ---- attributes ----- */

sp_status sp__attrs_copy(const sp_attr *from, int n, sp_attr *to)
{
    for (int i = 0; i < n; i++) {
        to[i] = from[i];
        if (from[i].kind != SP_ATTR_INTS || from[i].absent) continue;
        size_t bytes = (size_t)from[i].n * sizeof(int64_t);
        int64_t *ints = sp__alloc(bytes);
        if (!ints) {
            sp__attrs_free(to, i);
            return sp_fail(SP_EMEMORY, "no memory for a copy of an op's attributes");
        }
        if (bytes) memcpy(ints, from[i].v.ints, bytes);
        to[i].v.ints = ints;
    }
    return SP_OK;
}

void sp__attrs_free(sp_attr *attrs, int n)
{
    for (int i = 0; i < n; i++) {
        if (attrs[i].kind != SP_ATTR_INTS || attrs[i].absent) continue;
        sp__free((void *)attrs[i].v.ints, (size_t)attrs[i].n * sizeof(int64_t));
        attrs[i].v.ints = NULL;
    }
}

static bool attr_equal(const sp_attr *a, const sp_attr *b, bool scalars_by_kind)
{
    if (a->kind != b->kind || a->absent != b->absent) return false;
    if (a->absent) return true;
    if (a->kind == SP_ATTR_INTS)
        return a->n == b->n && (a->n == 0 || memcmp(a->v.ints, b->v.ints, (size_t)a->n * 8) == 0);
    if (a->kind == SP_ATTR_SCALAR) return a->tag == b->tag && (scalars_by_kind || a->v.i == b->v.i);
    return a->v.i == b->v.i; /* the bits of a float: NaN equals itself, -0 is not 0 */
}

bool sp__attrs_equal(const sp_attr *a, const sp_attr *b, int n, bool scalars_by_kind)
{
    for (int i = 0; i < n; i++)
        if (!attr_equal(&a[i], &b[i], scalars_by_kind)) return false;
    return true;
}

/* ---- dense results ----- */

sp_status sp__infer_dense(const sp_call *c, sp_dtype dtype, int device, sp_meta *out)
{
    out->dtype = (uint8_t)dtype, out->device = (uint8_t)device;
    out->view_of = -1, out->offset = 0;
    return sp__meta_dense(out, sp__op_name(c));
}

sp_status sp__infer_like(const sp_call *c, const sp_tensor *t, sp_dtype dtype, sp_meta *out)
{
    out->rank = t->rank;
    if (SP_UNLIKELY(!(t->flags &
                      SP_T_CONTIGUOUS))) { /* a huge expanded tensor may be too large when dense */
        for (int i = 0; i < t->rank; i++) out->shape[i] = t->shape[i];
        return sp__infer_dense(c, dtype, t->device, out);
    }
    out->dtype = (uint8_t)dtype, out->device = t->device;
    out->contiguous = true, out->view_of = -1;
    out->offset = 0, out->numel = t->numel;
    int64_t step = 1;
    for (int i = t->rank - 1; i >= 0; i--) {
        int64_t size = t->shape[i];
        out->shape[i] = size, out->stride[i] = step;
        if (size > 1) step *= size;
    }
    return SP_OK;
}

/* ---- checks ----- */

sp_status sp__check_devices(const sp_call *c)
{
    const sp_tensor *first = c->in[0];
    for (int i = 1; i < c->n_in; i++) {
        const sp_tensor *t = c->in[i];
        if (SP_UNLIKELY(t && t->device != first->device))
            return sp_fail(SP_EDEVICE,
                           "%s: %s is on device %d and %s on device %d; move them to one device",
                           sp__op_name(c), sp_op_table[c->op].in_names[0], first->device,
                           sp_op_table[c->op].in_names[i], t->device);
    }
    return SP_OK;
}

/* ---- complex numbers: refused unless the table says otherwise ----- */

static __attribute__((cold)) sp_status refuse_complex(const sp_call *c, const char *what, int dtype)
{
    return sp_fail(SP_EDTYPE,
                   "%s: %s is %s, expected real numbers: the op does not take complex ones; "
                   "use .real, .imag, .abs(), sgn() or view_as_real()",
                   sp__op_name(c), what, sp_dtype_name((sp_dtype)dtype));
}

static sp_status check_complex_inputs(const sp_call *c)
{
    const sp_op_info *info = &sp_op_table[c->op];
    if (SP_LIKELY(info->flags & SP_OPF_COMPLEX)) return SP_OK;
    for (int i = 0; i < c->n_in; i++)
        if (c->in[i] && SP_UNLIKELY(sp__dtype_is_complex(c->in[i]->dtype)))
            return refuse_complex(c, info->in_names[info->n_in < 0 ? 0 : i], c->in[i]->dtype);
    for (int i = 0; i < c->n_attr; i++)
        if (info->attr_kinds[i] == SP_ATTR_DTYPE && !c->attr[i].absent &&
            sp__dtype_is_complex((int)c->attr[i].v.i))
            return refuse_complex(c, info->attr_names[i], (int)c->attr[i].v.i);
    return SP_OK;
}

sp_status sp__infer(const sp_call *c, sp_meta *out)
{
    SP_RETURN_IF(check_complex_inputs(c));
    return sp_op_table[c->op].infer(c, out);
}

sp_status sp__body(sp_call *c)
{
    SP_RETURN_IF(check_complex_inputs(c));
    return sp_op_table[c->op].body(c);
}

sp_status sp__check_total_dtype(const sp_call *c, sp_dtype total)
{
    int dtype = c->in[0]->dtype;
    bool known = !sp__dtype_is_complex(dtype) && !sp__dtype_is_complex(total);
    if (SP_LIKELY(known || dtype == (int)total)) return SP_OK;
    return sp_fail(SP_EDTYPE,
                   "%s: %s as %s, expected one dtype where one is complex; convert x first",
                   sp__op_name(c), sp_dtype_name((sp_dtype)dtype), sp_dtype_name(total));
}

sp_status sp__check_floating(const sp_call *c, const sp_tensor *x, const char *arg)
{
    if (SP_LIKELY(sp__dtype_is_inexact(x->dtype))) return SP_OK; /* complex: sp__infer() checks */
    return sp_fail(SP_EDTYPE, "%s: %s is %s, expected a floating dtype; convert it with .float()",
                   sp__op_name(c), arg, sp_dtype_name(x->dtype));
}

sp_status sp__check_index_dtype(const sp_call *c, const sp_tensor *x, const char *arg)
{
    if (SP_LIKELY(x->dtype == SP_INT64 || x->dtype == SP_INT32)) return SP_OK;
    return sp_fail(SP_EDTYPE, "%s: %s is %s, expected int64 or int32; convert it with .long()",
                   sp__op_name(c), arg, sp_dtype_name(x->dtype));
}

sp_status sp__check_same_dtype(const sp_call *c, const sp_tensor *x, const char *x_arg,
                               const sp_tensor *y, const char *y_arg)
{
    if (SP_LIKELY(x->dtype == y->dtype)) return SP_OK;
    return sp_fail(SP_EDTYPE,
                   "%s: %s is %s and %s is %s, expected one dtype; convert one with .to()",
                   sp__op_name(c), x_arg, sp_dtype_name(x->dtype), y_arg, sp_dtype_name(y->dtype));
}

sp_status sp__check_has_dims(const sp_call *c, const sp_tensor *x)
{
    if (SP_LIKELY(x->rank > 0)) return SP_OK;
    return sp_fail(SP_EINDEX, "%s: x has no dimensions, expected at least one; x.reshape(1) has",
                   sp__op_name(c));
}

sp_status sp__dim_mask(const char *op, const sp_attr *dims, int rank, uint32_t *mask)
{
    *mask = 0;
    if (dims->absent || dims->n == 0) {
        *mask = (1u << rank) - 1;
        return SP_OK;
    }
    for (int i = 0; i < dims->n; i++) {
        int d;
        SP_RETURN_IF(sp__dim_normalize(op, dims->v.ints[i], rank, &d));
        if (*mask & 1u << d)
            return sp_fail(SP_EVALUE, "%s: dimension %d is named twice; name each dimension once",
                           op, d);
        *mask |= 1u << d;
    }
    *mask &= (1u << rank) - 1; /* rank 0 takes dim 0 and has none */
    return SP_OK;
}

sp_status sp__take_numbers(const sp_call *c, const char *name, const sp_attr *given, int n,
                           int64_t low, int64_t fallback, int64_t *out)
{
    if (!given->absent && given->n != n && given->n != 1)
        return sp_fail(SP_EVALUE, "%s: %s has %d numbers, expected one or %d, one a dimension",
                       sp__op_name(c), name, given->n, n);
    for (int i = 0; i < n; i++) {
        out[i] = given->absent ? fallback : given->v.ints[given->n == 1 ? 0 : i];
        if (out[i] < low)
            return sp_fail(SP_EVALUE, "%s: %s is %lld, expected at least %lld", sp__op_name(c),
                           name, (long long)out[i], (long long)low);
    }
    return SP_OK;
}
