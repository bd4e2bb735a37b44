/* float32 functions computed in float64, for lanes_math.h: erfc and logit, whose roundings in
 * float32 would add up or cancel.
 *
 * Polynomials fitted for the least relative error, 1e-9 and below; so results are within 0.52 ULP.
 */
#ifndef SP_CPU_LANES_WIDE_H
#define SP_CPU_LANES_WIDE_H

#include <math.h>

#include "backends/cpu/vec.h"

typedef VECTOR(float, VB / 2) H_f32;

/* f of each half in float64. */
ALWAYS_INLINE V_f32 in_halves(V_f32 x, V_f64 (*f)(V_f64))
{
    H_f32 half[2];
    memcpy(half, &x, sizeof half);
    for (int i = 0; i < 2; i++)
        half[i] = __builtin_convertvector(f(__builtin_convertvector(half[i], V_f64)), H_f32);
    memcpy(&x, half, sizeof x);
    return x;
}

/* exp(x), -700 <= x <= 0 */
ALWAYS_INLINE V_f64 rough_exp_f64(V_f64 x)
{
    const V_f64 magic = splat_f64(0x1.8p52);
    V_f64 steps = MUL_ADD_F64(x, splat_f64(M_LOG2E), magic), n = steps - magic;
    V_f64 r = MUL_ADD_F64(n, splat_f64(-M_LN2), x), p = splat_f64(1.989927620928e-04);
    p = MUL_ADD_F64(p, r, splat_f64(1.393364352135e-03));
    p = MUL_ADD_F64(p, r, splat_f64(8.333298480377e-03));
    p = MUL_ADD_F64(p, r, splat_f64(4.166646497614e-02));
    p = MUL_ADD_F64(p, r, splat_f64(1.666666671901e-01));
    p = MUL_ADD_F64(p, r, splat_f64(5.000000013462e-01));
    p = MUL_ADD_F64(p, r * r, r) + 1;
    return (V_f64)((V_u64)p + (((V_u64)steps - (V_u64)magic) << 52));
}

/* erfcx(|x|) exp(-x x): the first is a polynomial in (|x| - 3) / (|x| + 3). */
ALWAYS_INLINE V_f64 rough_erfc_f64(V_f64 x)
{
    typedef V_f64 V;
    typedef M_f64 M;
    V a = (V)((M)x & INT64_MAX), most = splat_f64(10.2);
    a = SELECT(a > most, most, a);
    V t = (a - 3) / (a + 3), p = splat_f64(4.9036969149094108e-06);
    p = MUL_ADD_F64(p, t, splat_f64(6.6300421747735773e-05));
    p = MUL_ADD_F64(p, t, splat_f64(3.0890713430405888e-05));
    p = MUL_ADD_F64(p, t, splat_f64(-6.0235710257807524e-04));
    p = MUL_ADD_F64(p, t, splat_f64(7.1243282310057743e-04));
    p = MUL_ADD_F64(p, t, splat_f64(4.2710376259904722e-03));
    p = MUL_ADD_F64(p, t, splat_f64(-2.4393254533642137e-02));
    p = MUL_ADD_F64(p, t, splat_f64(7.1665588846258482e-02));
    p = MUL_ADD_F64(p, t, splat_f64(-1.5011587884180622e-01));
    p = MUL_ADD_F64(p, t, splat_f64(2.4560381210570723e-01));
    p = MUL_ADD_F64(p, t, splat_f64(-3.2623356143396715e-01));
    p = MUL_ADD_F64(p, t, splat_f64(1.7900115112314918e-01));
    p *= rough_exp_f64(a * -a);
    return SELECT(x < 0, 2 - p, p);
}

/* log(x), x normal: x is 2^k m with m between the roots of 1/2 and 2, and log(m) is
 * 2 artanh((m - 1) / (m + 1)). */
ALWAYS_INLINE V_f64 rough_log_f64(V_f64 x)
{
    M_f64 bits = (M_f64)x - 0x3fe6a09e667f3bcd, k = bits & ~0xfffffffffffff;
    V_f64 m = (V_f64)((M_f64)x - k), s = (m - 1) / (m + 1), z = s * s;
    V_f64 n = (V_f64)(((V_u64)k >> 52 ^ 0x800) | 0x4330000000000000) - (0x1p52 + 0x800);
    V_f64 p = splat_f64(2.325826891613e-01);
    p = MUL_ADD_F64(p, z, splat_f64(2.855454686080e-01));
    p = MUL_ADD_F64(p, z, splat_f64(4.000006684901e-01));
    p = MUL_ADD_F64(p, z, splat_f64(6.666666675775e-01));
    p = MUL_ADD_F64(p * z, s, s + s);
    return MUL_ADD_F64(n, splat_f64(M_LN2), p);
}

/* log(x / (1 - x)) */
ALWAYS_INLINE V_f64 rough_logit_f64(V_f64 x)
{
    typedef V_f64 V;
    typedef M_f64 M;
    V odds = x / (1 - x), r = rough_log_f64(odds), none = odds - odds;
    r = SELECT(odds == 0, splat_f64(-INFINITY), r);
    r = SELECT(none == 0, r, odds); /* infinity, NaN */
    return SELECT(odds < 0, splat_f64(NAN), r);
}

ALWAYS_INLINE V_f32 quick_erfc_of_f32(V_f32 x)
{
    return in_halves(x, rough_erfc_f64);
}

ALWAYS_INLINE V_f32 quick_logit_of_f32(V_f32 x)
{
    return in_halves(x, rough_logit_f64);
}

#endif
