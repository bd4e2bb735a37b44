/* Inside a plan, and what the files that make one hand on.
 *
 *     plan.c     passes, then stages: what runs in one go     (a node, or a fusion group)
 *     homes.c    where each value's bytes lie                 (arena, input, output, constant)
 *     frame.c    kernel arguments with addresses left open    (the blueprint) and what to fill in
 *     exec.c     runs
 *
 * A frame is one block; a run takes a copy of the blueprint and fills in addresses:
 *
 *     [ sp_frame | kargs, one a stage | operands beyond the room in kargs | attributes | scalars ]
 */
#ifndef SP_PLAN_INT_H
#define SP_PLAN_INT_H

#include <stdatomic.h>

#include "jit/plan.h"
#include "jit/program.h"

enum { SP_ARENA_ALIGN = 64 };

/* ---- while it is made ----- */

typedef enum sp_home_kind {
    SP_HOME_ARENA,
    SP_HOME_INPUT,
    SP_HOME_OUTPUT,
    SP_HOME_CONST
} sp_home_kind;

typedef struct sp_home {
    uint8_t kind;
    int32_t index;       /* INPUT, OUTPUT: which; CONST: its value */
    int32_t first, last; /* ARENA: stages from the first write to the last read */
    int64_t bytes, offset;
} sp_home;

typedef struct sp_stage {
    int32_t first, n;   /* nodes */
    sp_program program; /* tile NULL: the node's own kernel */
} sp_stage;

typedef struct sp_planner {
    sp_graph *g;
    const sp_plan_opt *opt;
    sp_stage *stage;
    int32_t n_stage, cap_stage;
    int32_t *stage_of; /* per node; -1: a view, nothing to run */
    int32_t cap_nodes;
    int32_t *last; /* per root value: last stage that reads it; -1: none */
    int32_t *home; /* per root value: its home; -1: not yet */
    int32_t cap_values;
    sp_home *homes;
    int32_t n_homes, cap_homes;
    sp_plan_info *info;
} sp_planner;

/* Gives every root a home; appends copies where an output's or writeback's bytes have to be moved.
 */
SP_MUST_USE sp_status sp__plan_homes(sp_planner *p);
/* Appends a stage for a node, or for the nodes of a group. */
SP_MUST_USE sp_status sp__plan_stage(sp_planner *p, int32_t first, int32_t n);

/* ---- what is kept ----- */

typedef struct sp_frame {
    size_t bytes; /* of the whole block */
    char *arena;  /* that the operands point into */
    sp_kargs *kargs;
    sp_operand *operand;
    sp_attr *attr;
    sp_scalar *scalar;
} sp_frame;

typedef struct sp_plan_step {
    sp_kernel kernel; /* NULL: tile */
    const sp_tile_prog *tile;
    int32_t scalar; /* first of its scalars in the frame */
    int32_t n_nodes;
    char *what; /* "matmul (train.py:12)" */
} sp_plan_step;

typedef struct sp_patch { /* an address to fill in */
    uint32_t at;          /* of an operand's `data`, from the start of the frame */
    int32_t source;       /* input, or number of inputs + output */
    int64_t offset;       /* bytes */
} sp_patch;

typedef struct sp_scalar_patch {
    uint32_t at; /* of an sp_attr or sp_scalar in the frame */
    int32_t scalar;
    int8_t attr_kind; /* -1: an sp_scalar */
} sp_scalar_patch;

struct sp_plan {
    sp_plan_info info;
    sp_graph *g;     /* after the passes; owns what kernel attributes point to, and the constants */
    sp_stage *stage; /* owns the programs */
    int32_t n_stage, cap_stage;
    sp_plan_step *step;
    int32_t n_step, cap_step;
    sp_patch *io, *inner; /* of inputs and outputs; of the arena */
    int32_t n_io, cap_io, n_inner, cap_inner;
    sp_scalar_patch *scalar;
    int32_t n_scalar, cap_scalar;
    int32_t *written_input; /* per output: the input it is written back to; -1 */
    sp_meta *out_type;      /* per output, as asked for */
    int64_t *out_bytes;
    uint8_t *in_size; /* per input: bytes an element */
    int32_t n_in, n_out, n_scalars;
    bool checks_data;
    sp_frame *blueprint;
    _Atomic(sp_frame *) idle; /* not in use; NULL when it is */
    int64_t issued;           /* runs; guarded like handles */
    _Atomic int64_t executed;
};

/* Kernel arguments and patches for all stages. */
SP_MUST_USE sp_status sp__plan_frame(sp_plan *plan, sp_planner *p);
/* Copies the blueprint. */
sp_frame *sp__frame_copy(const sp_plan *plan);
void sp__frame_free(sp_frame *f); /* NULL is fine */
/* A plan that sp__plan_drop() will end. */
void sp__plan_born(void);
/* What sp__plan_drop() does when no run is left. */
void sp__plan_free(sp_plan *plan);

#endif
