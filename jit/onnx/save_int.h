/* What the savers of ops share: looking at a node, writing small nodes.
 *
 * Invariant: a saver writes the op's result last, under the name of the node's output value.
 */
#ifndef SP_ONNX_SAVE_INT_H
#define SP_ONNX_SAVE_INT_H

#include <string.h>

#include "jit/onnx/save.h"
#include "ops/attr.h"
#include "ops_gen.h"

typedef struct sp_save_row { /* ends with an op of NULL */
    const char *op;
    sp_status (*save)(sp_saver *s, const sp_ir_node *n);
} sp_save_row;

extern const sp_save_row sp__save_rows_pointwise[], sp__save_rows_reduce[], sp__save_rows_shapes[],
    sp__save_rows_images[], sp__save_rows_norm[];

/* Casts around an operator that is all the op does. */
SP_MUST_USE sp_status sp__save_pointwise(sp_saver *s, const sp_ir_node *n, const char *op_type);
/* The op itself, in the domain spool. */
SP_MUST_USE sp_status sp__save_own_domain(sp_saver *s, const sp_ir_node *n);

static inline const sp_meta *type_of(const sp_saver *s, sp_vid v)
{
    return &s->g->values[v].type;
}

static inline const sp_meta *result_type(const sp_saver *s, const sp_ir_node *n)
{
    return type_of(s, n->out[0]);
}

static inline sp_name result(const sp_saver *s, const sp_ir_node *n)
{
    return sp__save_value(s, n->out[0]);
}

/* Input i under its name, cast to `dtype`. */
static inline sp_name input_as(sp_saver *s, const sp_ir_node *n, int i, sp_dtype dtype)
{
    return sp__save_cast(s, sp__save_value(s, n->in[i]), type_of(s, n->in[i])->dtype, dtype);
}

static inline sp_name input(const sp_saver *s, const sp_ir_node *n, int i)
{
    return sp__save_value(s, n->in[i]);
}

/* The attribute called `name`; NULL when the op has none or it was not given. */
static inline const sp_attr *attr(const sp_ir_node *n, const char *name)
{
    const sp_op_info *info = &sp_op_table[n->op];
    for (int i = 0; i < n->n_attr; i++)
        if (strcmp(info->attr_names[i], name) == 0) return n->attr[i].absent ? NULL : &n->attr[i];
    return NULL;
}

static inline int64_t attr_int(const sp_ir_node *n, const char *name, int64_t fallback)
{
    const sp_attr *a = attr(n, name);
    return a != NULL ? a->v.i : fallback;
}

static inline int64_t dim_of(const sp_ir_node *n, const char *name, int rank)
{
    int64_t dim = attr_int(n, name, 0);
    return dim < 0 ? dim + rank : dim;
}

static inline bool scalar_is(const sp_attr *a, double value)
{
    return a == NULL || (a->tag == SP_FLOAT64 ? a->v.f : (double)a->v.i) == value;
}

static inline sp_status unsupported(const sp_ir_node *n, const char *why)
{
    char where[256];
    return sp_fail(SP_EUNSUPPORTED, "onnx.save: %s%s%s: %s", sp_op_table[n->op].name,
                   n->where.code ? " at " : "", sp__where_text(&n->where, where, sizeof where),
                   why);
}

static inline void emit1(sp_saver *s, const char *op_type, sp_name x, sp_name out)
{
    sp__save_begin(s, op_type, "");
    sp__save_in(s, x);
    sp__save_end(s, out);
}

static inline void emit2(sp_saver *s, const char *op_type, sp_name x, sp_name y, sp_name out)
{
    sp__save_begin(s, op_type, "");
    sp__save_in(s, x);
    sp__save_in(s, y);
    sp__save_end(s, out);
}

/* A temporary that holds op_type(x, y). */
static inline sp_name temp2(sp_saver *s, const char *op_type, sp_name x, sp_name y)
{
    sp_name out = sp__save_temp(s);
    emit2(s, op_type, x, y, out);
    return out;
}

static inline sp_name reshaped(sp_saver *s, sp_name x, const int64_t *shape, int rank)
{
    sp_name sizes = sp__save_const_ints(s, shape, rank), out = sp__save_temp(s);
    sp__save_begin(s, "Reshape", "");
    sp__save_in(s, x), sp__save_in(s, sizes);
    sp__save_attr_int(s, "allowzero", 1);
    sp__save_end(s, out);
    return out;
}

static inline sp_status save_cast(sp_saver *s, const sp_ir_node *n)
{
    sp__save_begin(s, "Cast", "");
    sp__save_in(s, input(s, n, 0));
    sp__save_attr_int(s, "to", sp__onnx_type(result_type(s, n)->dtype));
    sp__save_end(s, result(s, n));
    return SP_OK;
}

static inline sp_status save_identity(sp_saver *s, const sp_ir_node *n)
{
    emit1(s, "Identity", input(s, n, 0), result(s, n));
    return SP_OK;
}

#endif
