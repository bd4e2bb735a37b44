/* Making and reading single attributes of a call.
 *
 * Invariant: every field of an attribute is set, so that attributes can be compared and copied
 * whole.
 */
#ifndef SP_ATTR_H
#define SP_ATTR_H

#include "ops/op.h"

static inline sp_attr sp__attr_int(int64_t value)
{
    return (sp_attr){.v.i = value, .kind = SP_ATTR_INT};
}

static inline sp_attr sp__attr_float(double value)
{
    return (sp_attr){.v.f = value, .kind = SP_ATTR_FLOAT};
}

static inline sp_attr sp__attr_bool(bool value)
{
    return (sp_attr){.v.i = value, .kind = SP_ATTR_BOOL};
}

static inline sp_attr sp__attr_dtype(sp_dtype value)
{
    return (sp_attr){.v.i = (int64_t)value, .kind = SP_ATTR_DTYPE};
}

static inline sp_attr sp__attr_scalar(sp_scalar value)
{
    sp_attr a = {.kind = SP_ATTR_SCALAR, .tag = (uint8_t)value.kind};
    if (value.kind == SP_FLOAT64)
        a.v.f = value.v.f;
    else
        a.v.i = value.v.i;
    return a;
}

/* Borrows the n ints at `values`. */
static inline sp_attr sp__attr_ints(const int64_t *values, int n)
{
    return (sp_attr){.v.ints = values, .n = n, .kind = SP_ATTR_INTS};
}

static inline sp_attr sp__attr_absent(sp_attr_kind kind)
{
    return (sp_attr){.kind = (uint8_t)kind, .absent = true};
}

/* `value` if given, else absent. */
static inline sp_attr sp__attr_if(bool given, sp_attr value)
{
    return given ? value : sp__attr_absent((sp_attr_kind)value.kind);
}

/* The number in a SCALAR, INT, FLOAT or BOOL attribute. */
static inline sp_scalar sp__attr_to_scalar(const sp_attr *a)
{
    static const uint8_t kinds[] = {
        [SP_ATTR_INT] = SP_INT64, [SP_ATTR_FLOAT] = SP_FLOAT64, [SP_ATTR_BOOL] = SP_BOOL};
    sp_scalar s = {.kind = (sp_dtype)(a->kind == SP_ATTR_SCALAR ? a->tag : kinds[a->kind])};
    if (s.kind == SP_FLOAT64)
        s.v.f = a->v.f;
    else
        s.v.i = a->v.i;
    return s;
}

/* The ints of an INTS attribute; NULL if and only if it is absent. */
static inline const int64_t *sp__attr_to_ints(const sp_attr *a)
{
    static const int64_t none = 0;
    if (a->absent) return NULL;
    return a->v.ints ? a->v.ints : &none;
}

#endif
