/* rows.h for the instruction set being compiled for (SP_ISA). */
#include "backends/cpu/rows.h"

#include "backends/cpu/lanes_erf.h"
#include "backends/cpu/vec.h"

/* exp(x) for x that exceed 0 by little at most. */
ALWAYS_INLINE V_f32 exp_down_f32(V_f32 x)
{
    return exp_below_f32(x);
}

ALWAYS_INLINE V_f64 exp_down_f64(V_f64 x)
{
    return exp_of_f64(x);
}

#define T f32
#include "backends/cpu/rows_lanes.h"
#undef T
#define T f64
#include "backends/cpu/rows_lanes.h"
#undef T

#define PASTE_(a, b) a##b
#define PASTE(a, b)  PASTE_(a, b)

const sp_rows *const PASTE(sp__rows_, SP_ISA)[SP_DTYPE_COUNT] = {
    [SP_FLOAT32] = &rows_f32, [SP_FLOAT64] = &rows_f64};
