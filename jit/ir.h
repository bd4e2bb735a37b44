/* The one graph IR: SSA over the opcodes of the op table.
 *
 *     graph mlp(%0: float32[64,784], %1: float32[256,784]) {
 *       %2: float32[784,256] = transpose(%1) {dim0=0, dim1=1}      # train.py:12
 *       %3: float32[64,256] = matmul(%0, %2)                       # train.py:12
 *       return %3
 *     }
 *
 * Invariants (sp_graph_verify)
 * 1. Every value is defined once, before its uses: an input, a constant or a node's output.
 * 2. Functional only: no node writes its inputs. In-place ops and writes through views are functionalised when traced
 *    (as_strided, as_strided_scatter) and written back at the region's exit (`writebacks`).
 * 3. A value's type is what the op's inference gives for its node; strides are part of it, so that results have the same
 *    layout as eager's.
 * 4. A scalar attribute with n = k + 1 reads scalar input k; its own value is the one seen when traced. n = 0: constant.
 * 5. Every node knows the user's line it comes from, also after passes.
 */
#ifndef SP_IR_H
#define SP_IR_H

#include "ops/dispatch.h"

typedef int32_t sp_vid; /* a value's number in its graph */

typedef enum sp_value_kind { SP_VALUE_INPUT, SP_VALUE_CONST, SP_VALUE_NODE } sp_value_kind;

typedef struct sp_value {
    sp_meta type;       /* view_of and offset are 0 for functional values */
    uint8_t kind;
    int32_t def;        /* index of the input, or of the defining node */
    int32_t out_nr;     /* which output of the node */
    sp_tensor *constant; /* CONST: owned */
    char *name;          /* given by a user or a file; NULL otherwise; owned */
} sp_value;

typedef struct sp_ir_node {
    uint16_t op;
    uint8_t n_out, n_attr;
    int32_t n_in;
    sp_vid *in;         /* owned; -1: optional input not given */
    sp_vid out[SP_MAX_OUT];
    sp_attr *attr;      /* owned deep copies */
    sp_where where;     /* owned */
} sp_ir_node;

struct sp_graph {
    char *name;
    sp_value *values;
    int32_t n_values, cap_values;
    sp_ir_node *nodes;  /* in execution order */
    int32_t n_nodes, cap_nodes;
    sp_vid *inputs, *outputs;
    int32_t n_inputs, n_outputs;
    sp_scalar *scalars; /* values seen when traced, one a scalar input */
    int32_t n_scalars;
    struct sp_plan *plan; /* compiled form, made at the first run; owned */
    char **metadata;      /* key, value, key, value, ...; owned strings; for files */
    int32_t n_metadata;
};

/* ---- building ----- */
SP_MUST_USE sp_status sp__graph_new(const char *name, sp_graph **out);
SP_MUST_USE sp_status sp__graph_input(sp_graph *g, const sp_meta *type, sp_vid *out);
SP_MUST_USE sp_status sp__graph_const(sp_graph *g, const sp_tensor *value, sp_vid *out);
SP_MUST_USE sp_status sp__graph_scalar(sp_graph *g, sp_scalar value, int32_t *out);
/* Appends a node; types[] holds its outputs' types (NULL: inferred). attrs are copied; where gains a reference. */
SP_MUST_USE sp_status sp__graph_node(sp_graph *g, int op, const sp_vid *in, int n_in, const sp_attr *attr, int n_attr,
                                     const sp_meta *types, const sp_where *where, sp_vid *out);
SP_MUST_USE sp_status sp__graph_outputs(sp_graph *g, const sp_vid *outputs, int n);
/* Infers a node's result types from its inputs' types, through the op's own inference. */
SP_MUST_USE sp_status sp__graph_infer(const sp_graph *g, int op, const sp_vid *in, int n_in, const sp_attr *attr,
                                      int n_attr, sp_meta *types);
SP_MUST_USE sp_status sp__graph_copy(const sp_graph *g, sp_graph **out);

/* ---- checking ----- */
/* EINTERNAL with the first broken invariant. Runs after every pass in debug builds. */
SP_MUST_USE sp_status sp__graph_verify(const sp_graph *g);

/* ---- passes: one file each, jit/passes/<name>.c ----- */
SP_MUST_USE sp_status sp__pass_fold(sp_graph *g);
SP_MUST_USE sp_status sp__pass_cse(sp_graph *g);
SP_MUST_USE sp_status sp__pass_dce(sp_graph *g);

#endif
