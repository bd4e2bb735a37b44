/* What regions saw: calls as steps of a tree, and the graph that a path through it stands for.
 *
 *     root --> matmul --> add --+--> relu --> sum    exit: a plan for the path so far, exit->next:
 *                               |                    another root
 *                               +--> tanh --> ...    the program took another way here
 *
 * A step says what a call was in terms that mean the same in every run: an operand is a *view*, a
 * piece of a *slot*; a slot is a storage, numbered in the order in which the path first meets it.
 * Slots that a step creates are fresh, those that come from outside are external.
 *
 * Invariants
 * 1. Slots, views and scalars are numbered along the path from the root: step->first_slot is the
 *    parent's end_slot, and so on. Paths that share steps share numbers, so a region may change
 *    from one branch to another at any step.
 * 2. A view's offset counts from the base of its slot: 0 for fresh slots, the offset of the first
 *    handle seen for external ones. A slot's first view comes with it.
 * 3. Steps live as long as their tree. All of this is guarded like handles (tensor/tensor.h,
 *    invariant 1).
 */
#ifndef SP_TRACE_H
#define SP_TRACE_H

#include "jit/plan.h"

enum { /* sp_trace_slot.flags */
       SP_SLOT_EXTERNAL = 1,
       SP_SLOT_SNAPSHOT = 2 /* external and foreign: other code may write it any time, each read is
                               a copy of its own */
};

typedef struct sp_trace_slot {
    uint8_t flags, device;
    uint8_t storage_flags; /* EXTERNAL: SP_S_FOREIGN | SP_S_READONLY as seen */
    size_t nbytes;         /* fresh ones */
} sp_trace_slot;

typedef struct sp_trace_view {
    int32_t slot;
    sp_meta meta;
} sp_trace_view;

enum {                    /* sp_step.checks */
       SP_STEP_INDEX = 1, /* the kernel reads an index tensor: its values are checked at the call */
       SP_STEP_BASE =
           2 /* geometry given from the storage's start: the slot's base must be the same again */
};

typedef struct sp_step {
    struct sp_step *parent, *child, *sibling;
    uint16_t op;
    uint8_t n_out, n_attr, flags; /* as in sp_call */
    uint8_t checks;
    uint8_t misses; /* calls in a row that followed to here and then went a way not seen before */
    uint8_t n_children;
    bool is_view;    /* the result is geometry on an operand's storage: nothing to run */
    bool broken;     /* too many of them: the region ends here unless a known way is taken */
    uint32_t lifted; /* bit i: attribute i is an input of the graph */
    int32_t n_in;
    int32_t *in; /* views; -1: not given */
    int32_t out[SP_MAX_OUT];
    int8_t same[SP_MAX_OUT]; /* the result is the very handle of this operand; -1: a handle of its
                                own */
    sp_attr *attr;
    sp_trace_view *views; /* those that this step is the first to name */
    sp_trace_slot *slots;
    int32_t first_view, end_view, first_slot, end_slot, first_scalar, end_scalar;
    int32_t depth; /* steps from the root, this one included */
    int64_t base;  /* SP_STEP_BASE */
    sp__where where;
    struct sp_exit *exit; /* set when a region ended here */
} sp_step;

/* Where regions ended: what to run and where to go on. */
typedef struct sp_exit {
    struct sp_exit *older; /* all exits of a jit function are chained */
    sp_step *step;         /* the last of the path */
    sp_step *next;         /* root of what follows within the same call; owned */
    int32_t ends, runs;    /* how often regions ended here, how often by the plan */
    int32_t rebuilds, stale, running;
    bool hopeless;              /* no plan can be made: runs op by op */
    bool is_break;              /* in the middle of a call */
    sp_graph *graph;            /* what the plan was made of */
    struct sp_binding *binding; /* NULL until the path was followed once */
    sp_plan *plan;              /* NULL also when nothing is left to run */
    uint8_t *wanted, *ever;     /* end_slot flags: an output of the plan; was one in some run */
    char reason[160];
} sp_exit;

/* How a plan's inputs and outputs map to slots. */
typedef struct sp_binding {
    int32_t n_in, n_out, n_writebacks, room_in, room_out;
    int32_t *in_slot;
    int64_t *in_offset; /* from the slot's base */
    int32_t *out_slot;
    sp_writeback *writebacks;
    sp_storage **in, **out; /* filled for a run */
    int64_t *in_at;
} sp_binding;

/* ---- steps ----- */
/* An empty root. */
SP_MUST_USE sp_status sp__step_root(sp_step **out);
/* A step behind `parent` for c, with room for c->n_in + c->n_out views and slots; the caller fills
 * operands and results and links it. Takes what `where` holds. */
SP_MUST_USE sp_status sp__step_new(sp_step *parent, const sp_call *c, sp__where *where,
                                   sp_step **out);
void sp__step_link(sp_step *step);
void sp__step_free(sp_step *step);      /* one that is not linked */
void sp__step_free_tree(sp_step *root); /* with exits and what follows them */
SP_MUST_USE sp_status sp__step_exit(sp_step *step, sp_exit **chain, sp_exit **out);

/* ---- graphs ----- */
/* The path up to `last` as a functional graph: outputs are the fresh slots with wanted[slot] != 0,
 * then a writeback for each external slot that was written. On success the caller owns both. */
SP_MUST_USE sp_status sp__trace_graph(const sp_step *last, const uint8_t *wanted, const char *name,
                                      sp_graph **graph, sp_binding **binding);
void sp__binding_drop(sp_binding **binding);

#endif
