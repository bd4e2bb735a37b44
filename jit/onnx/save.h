/* What the per-op savers (save_ops.c) build a model with.
 *
 *     save_node_begin(s, "Concat", ""); save_in(s, name); ... save_attr_int(s, "axis", 0);
 * save_node_end(s, result);
 *
 * Names: a graph value is called after its own name or "v<number>", an intermediate of one op
 * "t<number>", a constant made here "c<number>". Invariant: nothing is written to disk before the
 * whole model is built.
 */
#ifndef SP_ONNX_SAVE_H
#define SP_ONNX_SAVE_H

#include "jit/ir.h"
#include "jit/onnx/schema.h"
#include "jit/onnx/wire.h"

typedef struct sp_name {
    char text[96];
} sp_name;

typedef struct sp_saver {
    const sp_graph *g;
    const sp_ir_node *current; /* whose line goes into each ONNX node */
    sp_out graph, node, attr, tensor, shape, scratch;
    int32_t n_temps, n_consts;
    bool custom_domain; /* a node of the domain spool was written */
} sp_saver;

sp_name sp__save_value(const sp_saver *s, sp_vid v);
sp_name sp__save_temp(sp_saver *s);

void sp__save_begin(sp_saver *s, const char *op_type, const char *domain);
void sp__save_in(sp_saver *s, sp_name name);
void sp__save_attr_int(sp_saver *s, const char *name, int64_t value);
void sp__save_attr_float(sp_saver *s, const char *name, float value);
void sp__save_attr_ints(sp_saver *s, const char *name, const int64_t *values, int n);
void sp__save_attr_text(sp_saver *s, const char *name, const char *text);
void sp__save_end(sp_saver *s, sp_name out);
void sp__save_end_many(sp_saver *s, const sp_name *out, int n);

/* Initializers: a 1-D int64 list; a 0-D number of a dtype. */
sp_name sp__save_const_ints(sp_saver *s, const int64_t *values, int n);
sp_name sp__save_const_scalar(sp_saver *s, sp_scalar value, sp_dtype dtype);
/* `name` as dtype `to`: itself, or through a Cast. */
sp_name sp__save_cast(sp_saver *s, sp_name name, sp_dtype from, sp_dtype to);

/* Writes the ONNX nodes of n. EUNSUPPORTED names the op, the reason and the user's line. */
SP_MUST_USE sp_status sp__save_op(sp_saver *s, const sp_ir_node *n);

#endif
