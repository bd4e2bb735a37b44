/* rows.h for the instruction set being compiled for (SP_ISA). */
#include "backends/cpu/rows.h"

#include "backends/cpu/vec.h"

/* exp(x) for x <= 0, within 1.5 ULP: a polynomial over [-log(2) / 2, log(2) / 2] (Moshier's Cephes)
 * times a power of two. Below log(2^-127), 0. */
ALWAYS_INLINE V_f32 exp_down_f32(V_f32 x)
{
    typedef V_f32 V;
    typedef M_f32 M;
    const V magic = splat_f32(0x1.8p23f), floor = splat_f32(-88);
    x = SELECT(x < floor, floor, x);
    V steps = MUL_ADD_F32(x, splat_f32(0x1.715476p0f), magic), n = steps - magic;
    V r = MUL_ADD_F32(n, splat_f32(-0x1.62e4p-1f), x);
    r = MUL_ADD_F32(n, splat_f32(-0x1.7f7d1cp-20f), r);
    V p = splat_f32(1.9875691500e-4f);
    p = MUL_ADD_F32(p, r, splat_f32(1.3981999507e-3f));
    p = MUL_ADD_F32(p, r, splat_f32(8.3334519073e-3f));
    p = MUL_ADD_F32(p, r, splat_f32(4.1665795894e-2f));
    p = MUL_ADD_F32(p, r, splat_f32(1.6666665459e-1f));
    p = MUL_ADD_F32(p, r, splat_f32(5.0000001201e-1f));
    p = MUL_ADD_F32(p, r * r, r) + 1;
    return p * (V)(((M)steps - (M)magic + 127) << 23);
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
