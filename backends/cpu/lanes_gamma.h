/* The gamma function's logarithm and the derivatives of that, and the inverse of erf. float32 is
 * computed in float64.
 *
 * Sources: digamma between 1 and 2 is Boost's rational function about the root there, so that it
 * keeps its digits near it; above 10 it is the asymptotic series (Abramowitz, Stegun, 6.3.18).
 * Hurwitz' zeta by Euler's and Maclaurin's sum (Johansson: arXiv:1309.2877). erfinv starts from
 * polynomials in log(1 - y y), as Giles' do (GPU Computing Gems, 2011), with a relative error below
 * 2e-10; in float64 one step of Halley's follows.
 */
#ifndef SP_CPU_LANES_GAMMA_H
#define SP_CPU_LANES_GAMMA_H

#include "backends/cpu/lanes_math.h"

DEFINE_MATH(lgamma, u10)

/* ---- digamma ----- */

/* 1 <= x <= 2 */
ALWAYS_INLINE V_f64 digamma_about_root(V_f64 x, V_f64 *rest)
{
    static const double p[] = {0.25479851061131551,  -0.32555031186804491,  -0.65031853770896507,
                               -0.28919126444774784, -0.045251321448739056, -0.0020713321167745952};
    static const double q[] = {1.0,
                               2.0767117023730469,
                               1.4606242909763515,
                               0.43593529692665969,
                               0.054151797245674225,
                               0.0021284987017821144,
                               -0.55789841321675513e-6};
    const double root = 381566830.0 / 1073741824 / 1073741824, slope = 0.99558162689208984375;
    V_f64 from = x - 1569415565.0 / 1073741824, g = from - root;
    V_f64 g_rest = from - g - root - 0.9016312093258695918615325266959189453125e-19;
    V_f64 t = x - 1, r = polynomial_f64(t, p, 6) / polynomial_f64(t, q, 7), product_rest;
    V_f64 product = product_of_pair_f64(g, splat_f64(slope), &product_rest);
    *rest = g * r + (product_rest + g_rest * (slope + r));
    return product;
}

/* x >= 10 */
ALWAYS_INLINE V_f64 digamma_series(V_f64 x)
{
    static const double c[] = {1.0 / 12,  -1.0 / 120,     1.0 / 252, -1.0 / 240,
                               1.0 / 132, -691.0 / 32760, 1.0 / 12,  -3617.0 / 8160};
    V_f64 z = 1 / (x * x);
    return log_of_f64(x) - (0.5 / x + z * polynomial_f64(z, c, 8));
}

/* 1 / x, and what its rounding leaves out */
ALWAYS_INLINE V_f64 inverse_f64(V_f64 x, V_f64 *rest)
{
    V_f64 inverse = 1 / x;
    *rest = less_product_f64(splat_f64(1), inverse, x) * inverse;
    return inverse;
}

/* x > 0: steps of 1 lead to where it is known; what they add is summed with what roundings leave
 * out, that of x + 1 times about the derivative there included. */
ALWAYS_INLINE V_f64 digamma_positive(V_f64 x)
{
    typedef V_f64 V;
    typedef M_f64 M;
    M large = x >= 10, below = x < 1;
    V at = SELECT(below, x + 1, x), sum = {0}, rest = {0}, lost;
    if (any_f64(below)) {
        V slope = (1 + 0.5 / at) / at;
        sum = SELECT(below, -inverse_f64(x, &lost), sum);
        rest = SELECT(below, (x - (at - 1)) * slope - lost, rest);
        rest = SELECT((rest < 1) & (rest > -1), rest, (V){0}); /* 1 / x may be infinite */
    }
    for (int i = 0; i < 8; i++) {
        M step = (at > 2) & ~large;
        if (!any_f64(step)) break;
        at = SELECT(step, at - 1, at);
        V more = inverse_f64(at, &lost), grown = sum + more, part = grown - sum;
        lost += (sum - (grown - part)) + (more - part);
        rest = SELECT(step, rest + lost, rest);
        sum = SELECT(step, grown, sum);
    }
    V near = digamma_about_root(SELECT(large, splat_f64(1), at), &lost), all = sum + near;
    V part = all - sum;
    lost += (sum - (all - part)) + (near - part);
    all = SELECT(all - all == 0, all + (lost + rest), all);
    if (!any_f64(large)) return all;
    return SELECT(large, digamma_series(SELECT(large, x, splat_f64(10))), all);
}

/* digamma(1 - x) - pi / tan(pi x) below 0; at 0 infinite, and at negative whole numbers NaN. */
ALWAYS_INLINE V_f64 digamma_of_f64(V_f64 x)
{
    typedef V_f64 V;
    typedef M_f64 M;
    M negative = x < 0, zero = x == 0;
    V up = digamma_positive(SELECT(zero, splat_f64(1), SELECT(negative, 1 - x, x)));
    if (any_f64(negative)) {
        V turn = x - round_of_f64(x), sine = sinpi_of_f64(turn);
        V cot = cospi_of_f64(turn) * M_PI / sine;
        up = SELECT(negative, SELECT(turn == 0, splat_f64(NAN), up - cot), up);
    }
    return SELECT(zero, -1 / x, up);
}

/* ---- polygamma ----- */

/* (x + k)^exponent, what rounding leaves out of x + k made good. */
ALWAYS_INLINE V_f64 shifted_power(V_f64 x, double k, V_f64 exponent)
{
    V_f64 at = x + k, part = at - x, rest = (x - (at - part)) + (k - part);
    V_f64 power = pow_of_f64(at, exponent);
    return power + power * (exponent * rest / at);
}

/* x^n for a whole n >= 0, within n / 2 ULP or so: enough for what is rounded to float32. */
ALWAYS_INLINE V_f64 whole_power(V_f64 x, double n)
{
    V_f64 power = splat_f64(1);
    for (uint64_t left = n < 0x1p53 ? (uint64_t)n : 1ull << 53; left; left >>= 1, x *= x)
        if (left & 1) power *= x;
    return power;
}

/* The sum of (x + k)^-s over all k >= 0, for x > 0 and s > 1, the same in all lanes, and what its
 * additions leave out. Small terms are added first. */
ALWAYS_INLINE V_f64 hurwitz_zeta(V_f64 s, V_f64 x, V_f64 *left_out)
{
    typedef V_f64 V;
    typedef M_f64 M;
    /* Bernoulli's number of 2 j over (2 j)! */
    static const double c[] = {1 / 12.0,
                               -1 / 720.0,
                               1 / 30240.0,
                               -1 / 1209600.0,
                               1 / 47900160.0,
                               -1 / 1.8924375803183791606e9,
                               1 / 7.47242496e10,
                               -1 / 2.950130727918164224e12,
                               1 / 1.1646782814350067249e14,
                               -1 / 4.5979787224074726105e15,
                               1 / 1.8152105401943546773e17,
                               -1 / 7.1661652561756670113e18};
    M small = x < s + 10; /* the series needs more */
    V at = SELECT(small, x + 9, x), inverse = 1 / at;
    V power = SELECT(small, shifted_power(x, 9, 1 - s), pow_of_f64(x, 1 - s));
    V rest = {0}, factor = power * inverse * s * inverse, rising = s + 1;
    for (int j = 0; j < 12; j++) {
        rest += factor * c[j];
        factor *= rising * inverse * ((rising + 1) * inverse);
        rising += 2;
    }
    V sum = sum_of_sizes_f64(power / (s - 1), 0.5 * power * inverse + rest, left_out);
    if (!any_f64(small)) return sum;
    V all = sum, more = *left_out;
    for (int k = 8; k >= 0; k--) {
        V one;
        all = sum_of_sizes_f64(all, shifted_power(x, k, -s), &one);
        more += one;
    }
    *left_out = SELECT(small, more, *left_out);
    return SELECT(small, all, sum);
}

/* (-1)^(n + 1) n! */
static inline double signed_factorial(double n)
{
    double factorial = fmod(n, 2) != 0 ? 1 : -1;
    for (int k = 2; k <= n && k <= 171; k++) factorial *= k;
    return factorial;
}

/* (-1)^(n + 1) n! zeta(n + 1, x). For negative x = f - m, with 0 < f < 1, the terms with x + k < 0
 * are those of zeta at 1 - f without those at 1 - x. */
ALWAYS_INLINE V_f64 polygamma_of_f64(V_f64 n, V_f64 x)
{
    typedef V_f64 V;
    typedef M_f64 M;
    if (n[0] == 0) return digamma_of_f64(x);
    double factorial = signed_factorial(n[0]), sign = factorial < 0 ? -1 : 1;
    M below = x <= 0;
    V f = SELECT(below, x - floor_of_f64(x), x), s = n + 1;
    V left_out, unused, zeta = hurwitz_zeta(s, SELECT(f == 0, splat_f64(1), f), &left_out);
    if (any_f64(below)) {
        V others = hurwitz_zeta(s, 1 - f, &unused) -
                   hurwitz_zeta(s, SELECT(below, 1 - x, splat_f64(1)), &unused);
        zeta = SELECT(below, zeta + others * sign, zeta);
        zeta = SELECT(f == 0, splat_f64(INFINITY), zeta);
    }
    V rest, result = product_of_pair_f64(zeta, splat_f64(factorial), &rest);
    rest += left_out * factorial;
    return result + SELECT(abs_of_f64(rest) < INFINITY, rest, (V){0});
}

/* hurwitz_zeta() of a whole s to 2e-9, good for float32; for x > -4, with the terms of x + k < 0.
 */
ALWAYS_INLINE V_f64 quick_zeta(double s, V_f64 x)
{
    typedef V_f64 V;
    typedef M_f64 M;
    static const double c[] = {1 / 12.0, -1 / 720.0, 1 / 30240.0, -1 / 1209600.0, 1 / 47900160.0};
    M small = x < s + 10, below = x < 0;
    V at = SELECT(below, x + 8, SELECT(small, x + 4, x)), inverse = 1 / at, rest = {0};
    V power = 1 / whole_power(at, s - 1), factor = power * inverse * s * inverse;
    for (int j = 0; j < 5; j++) {
        rest += factor * c[j];
        factor *= (s + 2 * j + 1) * (s + 2 * j + 2) * (inverse * inverse);
    }
    V sum = power * (1 / (s - 1)) + (0.5 * power * inverse + rest);
    for (int k = 7; k >= 4 && any_f64(below); k--)
        sum = SELECT(below, sum + 1 / whole_power(x + k, s), sum);
    for (int k = 3; k >= 0 && any_f64(small); k--)
        sum = SELECT(small, sum + 1 / whole_power(x + k, s), sum);
    return sum;
}

/* polygamma_of_f64() for n > 0, good for float32. */
ALWAYS_INLINE V_f64 quick_polygamma(double n, V_f64 x)
{
    typedef V_f64 V;
    typedef M_f64 M;
    double factorial = signed_factorial(n), sign = factorial < 0 ? -1 : 1;
    M below = x <= 0, far = x <= -4;
    if (!any_f64(below)) return quick_zeta(n + 1, x) * factorial;
    V f = x - floor_of_f64(x), zeta = quick_zeta(n + 1, SELECT(far, f, x));
    if (any_f64(far)) {
        V others = quick_zeta(n + 1, 1 - f) - quick_zeta(n + 1, SELECT(far, 1 - x, splat_f64(1)));
        zeta = SELECT(far, zeta + others * sign, zeta);
    }
    return SELECT(below & (f == 0), splat_f64(INFINITY), zeta) * factorial;
}

/* ---- erfinv ----- */

/* 0 <= y < 1 */
ALWAYS_INLINE V_f64 rough_erfinv(V_f64 y)
{
    typedef V_f64 V;
    typedef M_f64 M;
    static const double near[] = {
        1.5014093511310715,      0.24664027674226105,    -0.004177318042578073,
        -0.0012527078778638292,  0.00021825108169578578, -4.996157075714713e-06,
        -3.417409529690375e-06,  4.788011625385882e-07,  1.3782110981667457e-08,
        -1.0897168657016768e-08, 8.198350424588279e-10,  1.2861572678730156e-10,
        -2.0518409614330562e-11, -2.7960410484332195e-13};
    static const double far[] = {
        4.009444608695959,      1.9509942578193071,      0.003244831842668133,
        -0.004885395312275767,  0.0032420329295638033,   -0.0017595972948954244,
        0.0008580528411965379,  -0.0003717397501290844,  0.0001183910471849307,
        -1.237897915818707e-05, -1.8259841123940432e-05, 5.9900836545426855e-05,
        -7.985229689574468e-05, 2.4464426833762574e-05,  2.1680224512282008e-05,
        -1.211035627328532e-05};
    const double low = 2.23606797749979, high = 6.1; /* roots of -log(1 - y y) */
    V w = -rough_log_f64((1 - y) * (1 + y)), x = long_polynomial_f64(w - 2.5, near, 14) * y;
    M tail = w > 5;
    if (!any_f64(tail)) return x;
    V t = (sqrt_of_f64(w) * 2 - (high + low)) * (1 / (high - low));
    return SELECT(tail, long_polynomial_f64(t, far, 16), x);
}

/* Where y is 1, and NaN where it is more. */
ALWAYS_INLINE V_f64 erfinv_end(V_f64 y, V_f64 size, V_f64 x)
{
    typedef V_f64 V;
    typedef M_f64 M;
    x = SELECT(size == 1, splat_f64(INFINITY), x);
    x = SELECT(size <= 1, x, splat_f64(NAN));
    return copysign_of_f64(x, y);
}

ALWAYS_INLINE V_f64 quick_erfinv(V_f64 y)
{
    V_f64 size = abs_of_f64(y);
    return erfinv_end(y, size, rough_erfinv(size));
}

/* The error is erf(x) - y, or 1 - y - erfc(x) where that has more digits. */
ALWAYS_INLINE V_f64 erfinv_of_f64(V_f64 y)
{
    typedef V_f64 V;
    typedef M_f64 M;
    V size = abs_of_f64(y), x = rough_erfinv(size);
    V error = SELECT(size < 0.5, erf_of_f64(x) - size, 1 - size - erfc_of_f64(x));
    V step = error * exp_of_f64(x * x) * (1 / M_2_SQRTPI);
    return erfinv_end(y, size, x - step / (1 + x * step));
}

/* ---- float32 ----- */

ALWAYS_INLINE V_f32 digamma_of_f32(V_f32 x)
{
    return in_halves(x, digamma_of_f64);
}

ALWAYS_INLINE V_f32 erfinv_of_f32(V_f32 x)
{
    return in_halves(x, quick_erfinv);
}

ALWAYS_INLINE V_f32 polygamma_of_f32(V_f32 n, V_f32 x)
{
    H_f32 half[2];
    memcpy(half, &x, sizeof half);
    for (int i = 0; i < 2; i++) {
        V_f64 wide = __builtin_convertvector(half[i], V_f64);
        wide = n[0] == 0 ? digamma_of_f64(wide) : quick_polygamma(n[0], wide);
        half[i] = __builtin_convertvector(wide, H_f32);
    }
    memcpy(&x, half, sizeof x);
    return x;
}

#endif
