/* erf and gelu in float32, for lanes_math.h: polynomials and one exponential, where SLEEF's erf
 * takes several times as long.
 *
 * Within 1.2 ULP (erf) and 4 ULP (gelu), gelu also where it is nearly 0. Coefficients of the tail
 * were fitted to erfcx, exp(z^2) erfc(z), for the least relative error (1e-8); those of erf are
 * Juffa's (2016).
 */
#ifndef SP_CPU_LANES_ERF_H
#define SP_CPU_LANES_ERF_H

#include "backends/cpu/lanes_exact.h"
#include "backends/cpu/vec.h"

/* exp(x + more) without its power of two, which is 2^n: -88 <= x <= 0, more much smaller. */
ALWAYS_INLINE V_f32 exp_parts_f32(V_f32 x, V_f32 more, V_f32 *power)
{
    const V_f32 magic = splat_f32(0x1.8p23f);
    V_f32 steps = MUL_ADD_F32(x, splat_f32(0x1.715476p0f), magic), n = steps - magic;
    V_f32 r = MUL_ADD_F32(n, splat_f32(-0x1.62e4p-1f), x);
    r = MUL_ADD_F32(n, splat_f32(-0x1.7f7d1cp-20f), r) + more;
    *power = (V_f32)(((M_f32)steps - (M_f32)magic + 127) << 23);
    return MUL_ADD_F32(exp_rest_f32(r), r * r, r) + 1;
}

/* exp(x) for x <= 0; 0 below log(2^-127). */
ALWAYS_INLINE V_f32 exp_below_f32(V_f32 x)
{
    typedef V_f32 V;
    typedef M_f32 M;
    const V floor = splat_f32(-88);
    V power, p = exp_parts_f32(SELECT(x < floor, floor, x), (V){0}, &power);
    return p * power;
}

ALWAYS_INLINE V_f32 quick_erf_of_f32(V_f32 x)
{
    typedef V_f32 V;
    typedef M_f32 M;
    V t = (V)((M)x & ~INT32_MIN), s = x * x;
    t = SELECT(t > 10, splat_f32(10), t);
    V r = MUL_ADD_F32(splat_f32(-1.72853470e-5f), t, splat_f32(3.83197126e-4f));
    V u = MUL_ADD_F32(splat_f32(-3.88396438e-3f), t, splat_f32(2.42546219e-2f));
    r = MUL_ADD_F32(r, t * t, u);
    r = MUL_ADD_F32(r, t, splat_f32(-1.06777877e-1f));
    r = MUL_ADD_F32(r, t, splat_f32(-6.34846687e-1f));
    r = MUL_ADD_F32(r, t, splat_f32(-1.28717512e-1f));
    V far = 1 - exp_below_f32(MUL_ADD_F32(r, t, -t));
    V p = splat_f32(-5.96761703e-4f);
    p = MUL_ADD_F32(p, s, splat_f32(4.99119423e-3f));
    p = MUL_ADD_F32(p, s, splat_f32(-2.67681349e-2f));
    p = MUL_ADD_F32(p, s, splat_f32(1.12819925e-1f));
    p = MUL_ADD_F32(p, s, splat_f32(-3.76125336e-1f));
    p = MUL_ADD_F32(p, s, splat_f32(1.28379166e-1f));
    far = (V)(((M)far & ~INT32_MIN) | ((M)x & INT32_MIN));
    return SELECT(t > 0.921875f, far, MUL_ADD_F32(p, x, x));
}

/* The normal distribution's probability of more than |x|, up to 14, as tail * e * power; e * power
 * is exp(-x x / 2). The square is split, since an exponential magnifies its rounding. */
ALWAYS_INLINE V_f32 normal_tail_f32(V_f32 x, V_f32 *e, V_f32 *power)
{
    typedef V_f32 V;
    typedef M_f32 M;
    V a = (V)((M)x & ~INT32_MIN);
    a = SELECT(a > 14, splat_f32(14), a);
    V high = (V)((M)a & ~0xfff), square = high * high * -0.5f;
    V floor = splat_f32(-88), rest = (a - high) * (a + high) * -0.5f;
    *e = exp_parts_f32(SELECT(square < floor, floor, square), rest, power);
    V grown = a + 3.5f, t = (a - 3.5f) / grown;
    V g = splat_f32(1.1443687981e-4f);
    g = MUL_ADD_F32(g, t, splat_f32(1.0021959315e-4f));
    g = MUL_ADD_F32(g, t, splat_f32(-1.0410289979e-3f));
    g = MUL_ADD_F32(g, t, splat_f32(-4.1775634597e-5f));
    g = MUL_ADD_F32(g, t, splat_f32(7.9882750288e-3f));
    g = MUL_ADD_F32(g, t, splat_f32(-2.0396754146e-2f));
    g = MUL_ADD_F32(g, t, splat_f32(1.8110474572e-2f));
    g = MUL_ADD_F32(g, t, splat_f32(2.5800878182e-2f));
    g = MUL_ADD_F32(g, t, splat_f32(-1.1559800059e-1f));
    g = MUL_ADD_F32(g, t, splat_f32(4.0411159396e-1f));
    return g / MUL_ADD_F32(a, splat_f32(0.8f), splat_f32(1));
}

ALWAYS_INLINE V_f32 gelu_none_f32(V_f32 x)
{
    typedef V_f32 V;
    typedef M_f32 M;
    V e, power, tail = normal_tail_f32(x, &e, &power), part = x * tail * e * power;
    return SELECT(x < 0, part, SELECT(x > 14, x, x - part));
}

ALWAYS_INLINE V_f32 gelu_backward_none_f32(V_f32 grad, V_f32 x)
{
    typedef V_f32 V;
    typedef M_f32 M;
    V e, power, tail = normal_tail_f32(x, &e, &power);
    e = e * power;
    V below = SELECT(x < 0, tail * e, 1 - tail * e);
    return grad * (below + x * (e * 0.3989422804f));
}

#endif
