/* A fusion group as a tile program: its nodes become instructions, what it reads and yields becomes
 * operands. */
#ifndef SP_PROGRAM_H
#define SP_PROGRAM_H

#include "backends/cpu/tile.h"
#include "jit/ir.h"

typedef struct sp_program_scalar { /* where a scalar of the program comes from */
    int32_t node, attr;
} sp_program_scalar;

typedef struct sp_program {
    sp_tile_prog *tile;
    sp_vid *out, *in; /* operands, in the order of the kernel arguments; each value once */
    sp_program_scalar *scalar;
    int32_t n_out, n_in, n_scalar;
    int32_t room_in, room_out, room_scalar;
} sp_program;

/* Whether a node can be an instruction. */
bool sp__program_can(const sp_graph *g, const sp_ir_node *node);

/* Nodes first .. first+n-1 as one program; it yields the results marked in leaves[value].
 * EUNSUPPORTED: too much for one program. */
SP_MUST_USE sp_status sp__program_build(const sp_graph *g, int32_t first, int32_t n,
                                        const uint8_t *leaves, sp_program *out);
void sp__program_free(sp_program *p);

/* The kernel arguments that eager builds for a node, with attributes borrowed from it and addresses
 * that mean nothing. */
SP_MUST_USE sp_status sp__program_kargs(const sp_graph *g, const sp_ir_node *node, sp_kargs *out);

/* v's geometry broadcast to the rank and shape of the iteration space, at no address yet. */
void sp__program_operand(const sp_meta *v, const sp_meta *space, sp_operand *out);

#endif
