/* The tile VM: chains of pointwise ops, a tile of elements at a time, from the first-level cache.
 *
 *     inputs --gather--> registers --instructions--> registers --scatter--> outputs
 *
 * An eager pointwise op is a program of one instruction; a fused region is one of many. Both call
 * the same vector function per op and dtype (lanes.h), whose result for an element depends on
 * nothing but that element's operands, so that fusing never changes a bit.
 *
 * Registers. 0 .. n_in-1 are the inputs and hold the inputs' dtypes; n_in .. n_in+n_instr-1 are
 * temporaries: instruction i writes register n_in + i, and nothing else does. A register may be
 * read any number of times by later instructions, and be an output any number of times; an input
 * may be an output too (a copy).
 *
 * Invariants
 * 1. All operands of a run have the rank and shape of the first (broadcast by strides of 0), except
 *    that an input may have numel 1 and rank 0.
 * 2. An instruction computes in `compute`: operands that hold another dtype are converted first.
 *    Its result has the dtype `result`, converted from what the op yields if need be. An output is
 *    converted to the dtype of its operand.
 * 3. An output may share memory with an input if both have the same strides (in place, donation),
 *    element by element. Any other overlap is the caller's to exclude.
 * 4. A program is immutable once built; any number of threads may run it at once.
 */
#ifndef SP_TILE_H
#define SP_TILE_H

#include "tensor/backend.h"

enum { SP_TILE_MAX_LIVE = 96 }; /* registers alive at once, at most; sp__tile_build() checks */

typedef struct sp_tile_instr {
    uint16_t op;       /* opcode of a pointwise op */
    uint8_t compute;   /* dtype computed in: sp__pointwise_compute(); for casts, the dtype of the
                          register read */
    uint8_t result;    /* dtype of the register written */
    int16_t src[3];    /* registers of the op's tensor inputs, in the table's order */
    int16_t scalar[2]; /* indices into the run's scalars of the op's scalar attributes, in the
                          table's order */
} sp_tile_instr;

typedef struct sp_tile_prog sp_tile_prog;

/* Builds a program; all arrays are copied. out_reg[k] is the register that output k takes.
 * EUNSUPPORTED: an op without vector function for its dtype, or more than SP_TILE_MAX_LIVE
 * registers alive at once: split. */
SP_MUST_USE sp_status sp__tile_build(const sp_tile_instr *instr, int n_instr,
                                     const uint8_t *in_dtype, int n_in, const int16_t *out_reg,
                                     int n_out, sp_tile_prog **out);
void sp__tile_drop(sp_tile_prog **prog);

/* Runs it: args holds the outputs, then the inputs; attributes are not looked at. */
SP_MUST_USE sp_status sp__tile_run(const sp_tile_prog *prog, const sp_kargs *args,
                                   const sp_scalar *scalars);

/* Predicted microseconds of one thread over numel elements. */
double sp__tile_predict_us(const sp_tile_prog *prog, int64_t numel);

/* Whether the VM has a vector function for this op computing in this dtype. */
bool sp__tile_can(int op, sp_dtype compute);

/* Merges dimensions that every operand walks as one and drops sizes of 1, in place, for pointwise
 * operands of equal shape; sets `dense`, and every operand's rank, shape, stride and contiguous. */
void sp__kargs_coalesce(sp_kargs *args);

/* The kernel of every pointwise op in eager mode: one instruction, scalars from the attributes. */
SP_MUST_USE sp_status sp__cpu_pointwise(const sp_kargs *args);

#endif
