/* erf, and gelu in float32, for lanes_math.h: polynomials and one exponential, where SLEEF's erf
 * takes several times as long.
 *
 * Within 1.2 ULP (erf; 1.8 in float64) and 4 ULP (gelu), gelu also where it is nearly 0.
 * Coefficients of the tail were fitted to erfcx, exp(z^2) erfc(z), for the least relative error
 * (1e-8); those of erf are Juffa's (2016), in float64 fitted for the least relative error of the
 * result (2^-57).
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

/* ---- float64 ----- */

/* erf(x) / x - 1 of x^2, up to 1 */
static const double erf_near[] = {
    0x1.06eba8214db68p-3,  -0x1.812746b0379bdp-2,  0x1.ce2f21a040d21p-4,  -0x1.b82ce311fab6fp-6,
    0x1.565bccf92eaadp-8,  -0x1.c02db03e3cd72p-11, 0x1.f9a2bab00ed8ep-14, -0x1.f4ca4dbca9a02p-17,
    0x1.b97fd5d5cea58p-20, -0x1.5c072df7c0e9ep-23, 0x1.d71b21cf3dcd1p-27, -0x1.abae353b8c9f6p-31,
};
/* log(erfc(t)) of t - 2, from 1 to 6 */
static const double log_erfc[] = {
    -0x1.575b329b1f514p+2,  -0x1.1ac3258a8dc2cp+2,  -0x1.d8f5dece929a6p-1,  -0x1.0dc3b5fb2ef01p-6,
    0x1.d406b3791dffap-9,   -0x1.7ffcfb032cfb3p-11, 0x1.1bc3a4ab77b05p-13,  -0x1.5b659d40fbda2p-16,
    0x1.0604bbfd00a05p-19,  0x1.b580b9390ed03p-23,  -0x1.73e482a0cfbf6p-23, 0x1.ef9831b366113p-25,
    -0x1.e09345f526434p-27, 0x1.66c15794c45d5p-29,  -0x1.1c1bbadd3e1c4p-32, -0x1.3ab0f2b4e66fap-34,
    0x1.44c5e91419afap-35,  -0x1.5acdfdb041867p-38,
};

ALWAYS_INLINE V_f64 quick_erf_of_f64(V_f64 x)
{
    typedef V_f64 V;
    typedef M_f64 M;
    V t = (V)((M)x & ~INT64_MIN), rest, n;
    V near = MUL_ADD_F64(long_polynomial_f64(x * x, erf_near, 12), x, x);
    V r = long_polynomial_f64(SELECT(t > 6, splat_f64(6), t) - 2, log_erfc, 18);
    V e = exp_pair_f64(r, &rest, &n), far = 1 - e * power_of_two_f64(n);
    far = (V)(((M)far & ~INT64_MIN) | ((M)x & INT64_MIN));
    return SELECT(t > 1, far, near);
}

#endif
