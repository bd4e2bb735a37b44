/* The one graph IR: SSA over the opcodes of the op table.
 *
 *     graph "mlp"(%0: float32[64,784], %1: float32[256,784], $0: float = 0.1) {
 *       %2: float32[784,256]{1,784} = transpose(%1) {dim0=0, dim1=1}   # train.py:12
 *       %3: float32[64,256] = matmul(%0, %2)                            # train.py:12
 *       %4: float32[64,256] = mul.scalar(%3) {y=$0} @1                  # train.py:13
 *       return %4
 *     }
 *
 * Invariants (sp__graph_verify)
 * 1. Every value is defined once, before its uses: an input, a constant or a node's output.
 * 2. Functional only: no node writes its inputs. In-place ops and writes through views are
 *    functionalised when traced (as_strided, as_strided_scatter) and written back at the region's
 *    exit (plan.h: sp_writeback).
 * 3. A value's type is what the op's inference gives for its node; strides are part of it, so that
 *    results have the same layout as eager's.
 * 4. An attribute of kind SCALAR, INT or FLOAT with n = k + 1 reads scalar input k; its own value
 *    is the one seen when traced. n = 0: constant. What decides geometry (attributes of views,
 *    shapes) is constant.
 * 5. Every node knows the user's line it comes from, also after passes.
 * 6. type.view_of is the index of the node input whose bytes the value shares, -1 when it has bytes
 *    of its own: then it is a root. type.offset counts from the first element of the root; roots
 *    have 0. A view stays inside its root's extent.
 * 7. Nodes of one fusion group (group > 0) are pointwise, follow each other and have results of one
 *    shape.
 */
#ifndef SP_IR_H
#define SP_IR_H

#include "ops/dispatch.h"

typedef int32_t sp_vid; /* a value's number in its graph */

typedef enum sp_value_kind { SP_VALUE_INPUT, SP_VALUE_CONST, SP_VALUE_NODE } sp_value_kind;

typedef struct sp_value {
    sp_meta type; /* invariant 6 */
    uint8_t kind;
    int32_t def;         /* index of the input, or of the defining node */
    int32_t out_nr;      /* which output of the node */
    sp_tensor *constant; /* CONST: owned */
    char *name;          /* given by a user or a file; NULL otherwise; owned */
} sp_value;

typedef struct sp_ir_node {
    uint16_t op;
    uint8_t n_out, n_attr;
    int32_t n_in;
    int32_t group; /* fusion group; 0: none */
    sp_vid *in;    /* owned; -1: optional input not given */
    sp_vid out[SP_MAX_OUT];
    sp_attr *attr;   /* owned deep copies */
    sp__where where; /* owned */
} sp_ir_node;

struct sp_graph {
    char *name;
    sp_value *values;
    int32_t n_values, cap_values;
    sp_ir_node *nodes; /* in execution order */
    int32_t n_nodes, cap_nodes;
    sp_vid *inputs, *outputs;
    int32_t n_inputs, cap_inputs, n_outputs;
    sp_scalar *scalars; /* values seen when traced, one a scalar input */
    int32_t n_scalars, cap_scalars;
    struct sp_plan *plan; /* compiled form, made at the first run; owned */
    char **metadata;      /* key, value, key, value, ...; owned strings; for files */
    int32_t n_metadata;
};

/* ---- building ----- */
/* All copy what they are given. A failure leaves the graph as it was; sp_graph_drop() frees it. */
SP_MUST_USE sp_status sp__graph_new(const char *name, sp_graph **out);
/* type: dtype, rank, shape and stride count; the offset is taken as 0 and the value is a root. */
SP_MUST_USE sp_status sp__graph_input(sp_graph *g, const sp_meta *type, sp_vid *out);
/* Keeps value's storage: its bytes must not change afterwards. */
SP_MUST_USE sp_status sp__graph_const(sp_graph *g, const sp_tensor *value, sp_vid *out);
SP_MUST_USE sp_status sp__graph_scalar(sp_graph *g, sp_scalar value, int32_t *out);
/* Appends a node; types[] holds its outputs' types (NULL: inferred, which is what recorders want:
 * offsets of handles are not offsets of values). attrs are copied; where gains a reference. out
 * receives n_out values. */
SP_MUST_USE sp_status sp__graph_node(sp_graph *g, int op, const sp_vid *in, int n_in,
                                     const sp_attr *attr, int n_attr, const sp_meta *types,
                                     const sp__where *where, sp_vid *out);
SP_MUST_USE sp_status sp__graph_outputs(sp_graph *g, const sp_vid *outputs, int n);
/* name NULL: none. */
SP_MUST_USE sp_status sp__graph_name_value(sp_graph *g, sp_vid v, const char *name);
SP_MUST_USE sp_status sp__graph_metadata(sp_graph *g, const char *key, const char *value);
/* Infers a node's result types from its inputs' types, through the op's own inference. */
SP_MUST_USE sp_status sp__graph_infer(const sp_graph *g, int op, const sp_vid *in, int n_in,
                                      const sp_attr *attr, int n_attr, sp_meta *types);
/* Everything but the plan. */
SP_MUST_USE sp_status sp__graph_copy(const sp_graph *g, sp_graph **out);

/* ---- reading ----- */
/* The value whose bytes v shares; v itself when it has its own. */
sp_vid sp__graph_root(const sp_graph *g, sp_vid v);
/* How many elements of the storage a geometry spans, from its first to its last: 0 when empty; -1
 * when that overflows. */
int64_t sp__meta_extent(const sp_meta *m);
/* dtype, shape, and, unless there are no elements, strides (of sizes above 1) and offset agree. */
bool sp__meta_same(const sp_meta *a, const sp_meta *b);
/* "train.py:12", or "" when unknown. */
const char *sp__where_text(const sp__where *where, char *buf, size_t n);

/* ---- rewriting ----- */
/* Values to values: a pass starts from the identity, redirects what it replaces (by a value of the
 * same type; a root only by a root, so that offsets of its views stay right), and every use goes
 * through the map. Values made since map to themselves. */
typedef struct sp_remap {
    sp_vid *to;
    int32_t n;
} sp_remap;
SP_MUST_USE sp_status sp__remap_new(const sp_graph *g, sp_remap *out);
void sp__remap_free(sp_remap *map);
static inline sp_vid sp__remap_at(const sp_remap *map, sp_vid v)
{
    return v >= 0 && v < map->n ? map->to[v] : v;
}
void sp__remap_node(const sp_remap *map, sp_ir_node *node); /* its inputs */
void sp__remap_outputs(const sp_remap *map, sp_graph *g);

/* Replaces a node by another op of the same outputs; `in` and `attr` are copied. */
SP_MUST_USE sp_status sp__graph_renode(sp_graph *g, int32_t node, int op, const sp_vid *in,
                                       int n_in, const sp_attr *attr, int n_attr);
/* Keeps the nodes with keep[i] != 0 and the values that they, the inputs and the outputs need;
 * renumbers the values in the order inputs, constants, nodes. */
SP_MUST_USE sp_status sp__graph_compact(sp_graph *g, const uint8_t *keep);

/* ---- checking ----- */
/* EINTERNAL with the first broken invariant. Runs after every pass in debug builds. */
SP_MUST_USE sp_status sp__graph_verify(const sp_graph *g);

/* ---- passes: one file each, jit/passes/<name>.c; none changes a bit of what is computed ----- */
SP_MUST_USE sp_status sp__pass_fold(sp_graph *g);
SP_MUST_USE sp_status sp__pass_canonicalize(sp_graph *g);
SP_MUST_USE sp_status sp__pass_cse(sp_graph *g);
SP_MUST_USE sp_status sp__pass_dce(sp_graph *g);
SP_MUST_USE sp_status sp__pass_fuse(sp_graph *g);

#endif
