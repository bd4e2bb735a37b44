/* A plan: a graph made ready to run as one launch.
 *
 *     graph --copy--> fold, canonicalize, cse, dce, fuse --> steps (kernels, tile programs), arena
 *
 * Making a plan costs microseconds a node and allocates; running one costs a pointer to write per
 * operand that is an input or output, plus the kernels.
 *
 * Invariants
 * 1. Every step runs the kernel that eager runs, on operands of the geometry that eager gives them,
 *    or a tile program that computes the same instructions in the same dtypes: equal bits.
 * 2. A plan is immutable once made. What a run changes (kernel arguments, arena) lies in a frame; a
 *    run takes a frame when it starts to execute and hands it back, so runs in flight, on any
 *    threads, never share one.
 * 3. Intermediates live in the frame's arena; two share bytes only if their lifetimes do not meet.
 * 4. A run is one sp__launch_raw(): the inputs' storages are read, the outputs' and the
 *    written-back inputs' are written. It is queued and waited for like an op. A failing step fails
 *    the run, with the user's line of the failing node.
 * 5. sp__plan_drop() may be called while runs are queued: it waits for them.
 *
 * Values and storages. An input or output of a plan is an address: that of the value's first
 * element. Views of a value are geometry and cost nothing. as_strided's offset counts, in a graph,
 * from the first element of the value that owns the bytes (the root of the chain of views): whoever
 * records a call subtracts the offset of the root's handle.
 *
 * For tracers: roots are what goes in and out. One input per storage read, one output per storage
 * that outlives the region (its last functional value), one writeback per storage written. Handles
 * that are views need no output.
 */
#ifndef SP_PLAN_H
#define SP_PLAN_H

#include "jit/ir.h"

typedef struct sp_plan sp_plan;

typedef struct sp_writeback { /* output's values end in the bytes of input: p.sub_(...) */
    int32_t output, input; /* indices into graph->outputs and graph->inputs; same dtype and shape */
} sp_writeback;

typedef struct sp_plan_opt {
    const sp_writeback
        *writebacks; /* an input that is written may share its storage with no other input */
    int32_t n_writebacks;
    bool no_fuse; /* one kernel a node: for tests and for telling where a difference comes from */
} sp_plan_opt;

typedef struct sp_plan_info {
    int32_t nodes;       /* of the graph as traced */
    int32_t steps;       /* that a run executes */
    int32_t fused_nodes; /* nodes that ended in tile programs of two nodes or more */
    int32_t programs;    /* ... and how many of these there are */
    int32_t in_place;    /* steps that write over a dying operand or a written-back input */
    int64_t arena_bytes; /* of one frame */
    int64_t lower_bound; /* most bytes of intermediates alive at once: no arena can be smaller */
    double predicted_us;
} sp_plan_info;

/* Compiles g, which stays as it is and is not referred to afterwards. opt NULL: defaults. Types of
 * inputs are taken at their word: sp__plan_run() callers guarantee dtype, shape and strides. */
SP_MUST_USE sp_status sp__plan_new(const sp_graph *g, const sp_plan_opt *opt, sp_plan **out);
void sp__plan_drop(sp_plan **plan);
const sp_plan_info *sp__plan_info(const sp_plan *plan);

/* One run. All arrays have one entry an input, output or scalar of the graph.
 *
 *     in, in_offset  storage and first element (in elements) of each input; not deferred
 *     scalars        NULL: the values seen when traced
 *     out            storage that the output fills, in the output type's strides from byte 0 on.
 *                    Deferred ones are given their bytes here; the caller clears `region`.
 *                    NULL: not wanted in this run. Ignored for writebacks. The array itself may be
 *                    NULL when all outputs are writebacks.
 *
 * On failure before the launch nothing was written; out storages may have been given bytes. */
SP_MUST_USE sp_status sp__plan_run(sp_plan *plan, sp_storage *const *in, const int64_t *in_offset,
                                   const sp_scalar *scalars, sp_storage *const *out);

/* The same with handles, all outputs newly made: no output shares a storage with an input or
 * another output, whatever the graph says. Writebacks give one more handle on the input's storage.
 * Ops that can fail on values are waited for. */
SP_MUST_USE sp_status sp__plan_run_handles(sp_plan *plan, sp_tensor *const *inputs,
                                           const sp_scalar *scalars, sp_tensor **outputs);

#endif
