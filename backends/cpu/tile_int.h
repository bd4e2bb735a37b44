/* A compiled tile program: steps over values.
 *
 * Values 0 .. n_in-1 are the inputs; step i yields value n_in + i. Conversions are steps of their
 * own. Each step's value has a slot of the scratch memory; values whose lifetimes do not meet share
 * one.
 */
#ifndef SP_CPU_TILE_INT_H
#define SP_CPU_TILE_INT_H

#include "backends/cpu/lanes.h"
#include "backends/cpu/tile.h"

enum {
    SP_TILE_STEPS_AN_INSTR = 5, /* three operands converted, the op, its result converted */
    SP_TILE_MAX_VALUES = 768,
    SP_TILE_MAX_NUMBERS = 128,
    SP_TILE_MAX_SLOTS = 128,     /* with packed inputs and staging */
    SP_TILE_SCRATCH = 64 * 1024, /* bytes: SP_TILE_MAX_SLOTS of SP_TILE_MIN doubles, or of half as
                                  * many elements of 16 bytes */
    SP_TILE_HOT =
        24 * 1024, /* what a tile's slots should take at most, to stay in the first-level cache */
    SP_TILE_MIN = 64,
    SP_TILE_MAX = 1024
};

typedef struct sp_tile_step {
    sp_lane_fn fn;
    int16_t src[3]; /* a value, or -1 - k: number k, or SP_TILE_UNUSED */
    uint8_t n_src;
    uint8_t dtype; /* of the value */
    int16_t slot;
    int16_t
        convert_from; /* of a conversion: the value converted, so that it is done once; else -1 */
} sp_tile_step;

typedef struct sp_tile_number { /* a scalar in the dtype of the step that reads it */
    int16_t scalar;
    uint8_t dtype;
} sp_tile_number;

typedef struct sp_tile_output {
    int16_t value;
    bool first; /* of several outputs of this value, the one that the step may write directly */
    bool inputs_after; /* an input is read after the value's step: writing directly must not touch
                          an input */
} sp_tile_output;

struct sp_tile_prog {
    sp_tile_step *step;
    sp_tile_number *number;
    sp_tile_output *out;
    uint8_t *in_dtype;
    bool *in_used; /* by a step or an output: the others are not gathered */
    int16_t n_step, n_in, n_out, n_number, n_slot;
    uint8_t width; /* bytes of the widest value */
    float ns;      /* an element */
    size_t bytes;  /* of the block, for a built program */
};

typedef struct sp_tile_source {
    const sp_tile_instr *instr;
    const uint8_t *in_dtype;
    const int16_t *out_reg;
    int n_instr, n_in, n_out;
} sp_tile_source;

/* Fills prog, whose arrays have room for SP_TILE_STEPS_AN_INSTR steps and 3 numbers an instruction.
 */
SP_MUST_USE sp_status sp__tile_compile(const sp_tile_source *source, sp_tile_prog *prog);

#endif
