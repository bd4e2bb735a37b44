/* Random words and what is made of them (ops/random.h), for lanes.c.
 *
 * Nothing is fused and nothing comes from a library, so that numbers are the same on every
 * instruction set: logarithms, sines and cosines are polynomials, Moshier's (Cephes) for float32
 * and Sun's (fdlibm) for float64.
 */
#ifndef SP_CPU_LANES_RANDOM_H
#define SP_CPU_LANES_RANDOM_H

#include <math.h>

#include "backends/cpu/lanes.h"
#include "backends/cpu/lanes_math.h"

/* ---- words ----- */

#if VB == 64
#define SHUFFLE_I64(a, b, low)                                                                     \
    __builtin_shufflevector(a, b, low + 0, low + 8, low + 1, low + 9, low + 2, low + 10, low + 3,  \
                            low + 11)
#define EVENS_f32(a, b)                                                                            \
    __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30)
#define ODDS_f32(a, b)                                                                             \
    __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31)
#define FIRST_f32(a, b)                                                                            \
    __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define SECOND_f32(a, b)                                                                           \
    __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
#define EVENS_f64(a, b) __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14)
#define ODDS_f64(a, b)  __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15)
#elif VB == 32
#define SHUFFLE_I64(a, b, low) __builtin_shufflevector(a, b, low + 0, low + 4, low + 1, low + 5)
#define EVENS_f32(a, b)        __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14)
#define ODDS_f32(a, b)         __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15)
#define FIRST_f32(a, b)        __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11)
#define SECOND_f32(a, b)       __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15)
#define EVENS_f64(a, b)        __builtin_shufflevector(a, b, 0, 2, 4, 6)
#define ODDS_f64(a, b)         __builtin_shufflevector(a, b, 1, 3, 5, 7)
#else
#define SHUFFLE_I64(a, b, low) __builtin_shufflevector(a, b, low + 0, low + 2)
#define EVENS_f32(a, b)        __builtin_shufflevector(a, b, 0, 2, 4, 6)
#define ODDS_f32(a, b)         __builtin_shufflevector(a, b, 1, 3, 5, 7)
#define FIRST_f32(a, b)        __builtin_shufflevector(a, b, 0, 4, 1, 5)
#define SECOND_f32(a, b)       __builtin_shufflevector(a, b, 2, 6, 3, 7)
#define EVENS_f64(a, b)        __builtin_shufflevector(a, b, 0, 2)
#define ODDS_f64(a, b)         __builtin_shufflevector(a, b, 1, 3)
#endif
/* a[0], b[0], a[1], ... of the lower and upper halves */
#define FIRST_f64(a, b)  SHUFFLE_I64(a, b, 0)
#define SECOND_f64(a, b) SHUFFLE_I64(a, b, N_f64 / 2)

#if VB == 64
typedef __m512i sleef_int;
#elif VB == 32
typedef __m256i sleef_int;
#else
typedef __m128i sleef_int;
#endif

#if VB == 16
#define MUL_WORDS(x, y) ((V_u64)_mm_mul_epu32((sleef_int)(x), (sleef_int)(y)))
#else
#define MUL_WORDS(x, y) ((V_u64)CHOOSE(mul_epu32)((sleef_int)(x), (sleef_int)(y)))
#endif

/* A block in each lane of 64 bits; what stands in the upper halves of counters counts for nothing.
 */
ALWAYS_INLINE void philox_rounds(uint64_t seed, V_u64 c[4])
{
    const V_u64 m0 = (V_u64){0} + 0xD2511F53, m1 = (V_u64){0} + 0xCD9E8D57;
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++, k0 += 0x9E3779B9, k1 += 0xBB67AE85) {
        V_u64 p = MUL_WORDS(c[0], m0), q = MUL_WORDS(c[2], m1);
        c[0] = (q >> 32) ^ c[1] ^ (uint64_t)k0, c[2] = (p >> 32) ^ c[3] ^ (uint64_t)k1;
        c[1] = q, c[3] = p;
    }
}

/* Four words a block, blocks rounded up to a multiple of N_f64. */
static void random_words(uint64_t seed, uint64_t offset, int64_t blocks, uint32_t *to)
{
    const V_u64 low = (V_u64){0} + 0xffffffff;
    V_u64 at;
    for (int i = 0; i < N_f64; i++) at[i] = offset + (uint64_t)i;
    for (int64_t b = 0; b < blocks; b += N_f64, at += N_f64, to += 4 * N_f64) {
        V_u64 c[4] = {at & low, at >> 32};
        philox_rounds(seed, c);
        V_u64 front = (c[0] & low) | c[1] << 32, back = (c[2] & low) | c[3] << 32;
        V_u64 first = SHUFFLE_I64(front, back, 0), second = SHUFFLE_I64(front, back, N_f64 / 2);
        memcpy(to, &first, VB);
        memcpy(to + 2 * N_f64, &second, VB);
    }
}

/* ---- uniform numbers: of the words that one vector of results takes ----- */

ALWAYS_INLINE V_f32 uniform_of_f32(const uint32_t *w, int digits)
{
    V_u32 words;
    memcpy(&words, w, sizeof words);
    return __builtin_convertvector((V_i32)(words >> (32 - digits)), V_f32) *
           (1.0f / (float)(1 << digits));
}

/* A whole number below 2^52, exactly. */
ALWAYS_INLINE V_f64 double_of(V_u64 x)
{
    return (V_f64)(x | 0x4330000000000000) - 0x1p52;
}

ALWAYS_INLINE V_f64 uniform_of_f64(const uint32_t *w, int digits)
{
    V_u64 words;
    (void)digits;
    memcpy(&words, w, sizeof words);
    return (double_of(words >> 32) * 0x1p21 + double_of((words & 0xffffffff) >> 11)) * 0x1p-53;
}

/* ---- normal numbers ----- */

/* log(x) for a normal x: x is 2^k (1 + f), 1 + f between the roots of 1/2 and 2. */
ALWAYS_INLINE V_f32 plain_log_f32(V_f32 x)
{
    M_f32 bits = (M_f32)x + (0x3f800000 - 0x3f3504f3), k = (bits >> 23) - 127;
    V_f32 f = (V_f32)((bits & 0x007fffff) + 0x3f3504f3) - 1, e = __builtin_convertvector(k, V_f32);
    V_f32 z = f * f, p = f * 7.0376836292e-2f - 1.1514610310e-1f;
    p = p * f + 1.1676998740e-1f;
    p = p * f - 1.2420140846e-1f;
    p = p * f + 1.4249322787e-1f;
    p = p * f - 1.6668057665e-1f;
    p = p * f + 2.0000714765e-1f;
    p = p * f - 2.4999993993e-1f;
    p = p * f + 3.3333331174e-1f;
    return (f + (p * f * z + e * -2.12194440e-4f - z * 0.5f)) + e * 0.693359375f;
}

ALWAYS_INLINE V_f64 plain_log_f64(V_f64 x)
{
    M_f64 bits = (M_f64)x + (0x3ff0000000000000 - 0x3fe6a09e667f3bcd);
    V_u64 k = (V_u64)bits >> 52; /* of x <= 1, so up to 1023 */
    V_f64 f = (V_f64)((bits & 0x000fffffffffffff) + 0x3fe6a09e667f3bcd) - 1,
          e = double_of(k) - 1023, s = f / (f + 2), z = s * s, half = f * f * 0.5;
    V_f64 p = z * 1.479819860511658591e-01 + 1.531383769920937332e-01;
    p = p * z + 1.818357216161805012e-01;
    p = p * z + 2.222219843214978396e-01;
    p = p * z + 2.857142874366239149e-01;
    p = p * z + 3.999999999940941908e-01;
    p = p * z + 6.666666666666735130e-01;
    return e * 6.93147180369123816490e-01 -
           ((half - (s * (half + p * z) + e * 1.90821492927058770002e-10)) - f);
}

/* Sine and cosine of x, |x| <= pi / 4. */
ALWAYS_INLINE void near_sincos_f32(V_f32 x, V_f32 *sine, V_f32 *cosine)
{
    V_f32 z = x * x, s = z * -1.9515295891e-4f + 8.3321608736e-3f;
    V_f32 c = z * 2.443315711809948e-5f - 1.388731625493765e-3f;
    s = s * z - 1.6666654611e-1f;
    c = c * z + 4.166664568298827e-2f;
    *sine = s * z * x + x, *cosine = c * z * z - z * 0.5f + 1;
}

ALWAYS_INLINE void near_sincos_f64(V_f64 x, V_f64 *sine, V_f64 *cosine)
{
    V_f64 z = x * x, s = z * 1.58969099521155010221e-10 - 2.50507602534068634195e-08;
    V_f64 c = z * -1.13596475577881948265e-11 + 2.08757232129817482790e-09;
    s = s * z + 2.75573137070700676789e-06;
    s = s * z - 1.98412698298579493134e-04;
    s = s * z + 8.33333333332248946124e-03;
    s = s * z - 1.66666666666666324348e-01;
    c = c * z - 2.75573143513906633035e-07;
    c = c * z + 2.48015872894767294178e-05;
    c = c * z - 1.38888888888741095749e-03;
    c = c * z + 4.16666666666666019037e-02;
    *sine = s * z * x + x, *cosine = c * z * z - z * 0.5 + 1;
}

/* Box and Muller's transform of uniform u and v. A turn is cut into quarters, which is exact. */
#define DEFINE_NORMALS(T, PI, PER)                                                                 \
    ALWAYS_INLINE void box_muller_##T(V_##T *u, V_##T *v, E_##T scale)                             \
    {                                                                                              \
        typedef V_##T V;                                                                           \
        typedef M_##T M;                                                                           \
        V r = sqrt_of_##T(plain_log_##T(1 - *u) * -2) * scale, turn = *v * 4, sine, cosine;        \
        V quarter = round_of_##T(turn);                                                            \
        near_sincos_##T((turn - quarter) * (E_##T)(PI / 2), &sine, &cosine);                       \
        M odd = (quarter == 1) | (quarter == 3);                                                   \
        V first = SELECT(odd, sine, cosine), second = SELECT(odd, cosine, sine);                   \
        first = SELECT((quarter == 1) | (quarter == 2), -first, first);                            \
        second = SELECT((quarter == 2) | (quarter == 3), -second, second);                         \
        *u = r * first, *v = r * second;                                                           \
    }                                                                                              \
    /* n: a multiple of 2 N; PER words an element */                                               \
    static void normals_##T(const uint32_t *w, int64_t n, int digits, double scale, void *to_)     \
    {                                                                                              \
        E_##T *to = to_;                                                                           \
        for (int64_t i = 0; i < n; i += 2 * N_##T) {                                               \
            V_##T a = uniform_of_##T(w + i * PER, digits),                                         \
                  b = uniform_of_##T(w + (i + N_##T) * PER, digits);                               \
            V_##T u = EVENS_##T(a, b), v = ODDS_##T(a, b);                                         \
            box_muller_##T(&u, &v, (E_##T)scale);                                                  \
            store_##T(to + i, FIRST_##T(u, v));                                                    \
            store_##T(to + i + N_##T, SECOND_##T(u, v));                                           \
        }                                                                                          \
    }                                                                                              \
    static void uniforms_##T(const uint32_t *w, int64_t n, int digits, void *to_)                  \
    {                                                                                              \
        E_##T *to = to_;                                                                           \
        for (int64_t i = 0; i < n; i += N_##T)                                                     \
            store_##T(to + i, uniform_of_##T(w + i * PER, digits));                                \
    }                                                                                              \
    /* x * scale where the word is not below `least`, else 0. */                                   \
    static void dropped_##T(const uint32_t *w, const void *x_, int64_t n, uint32_t least,          \
                            double scale, void *to_)                                               \
    {                                                                                              \
        const E_##T *x = x_;                                                                       \
        E_##T *to = to_, by = (E_##T)scale;                                                        \
        for (int64_t i = 0; i < n; i++) {                                                          \
            E_##T kept = x[i] * by;                                                                \
            to[i] = w[i] >= least ? kept : 0;                                                      \
        }                                                                                          \
    }
DEFINE_NORMALS(f32, M_PI, 1)
DEFINE_NORMALS(f64, M_PI, 2)

#define RANDOM_ROW(T)                                                                              \
    {                                                                                              \
        uniforms_##T, normals_##T, dropped_##T                                                     \
    }
#define RANDOM_ROWS                                                                                \
    {                                                                                              \
        [SP_FLOAT32] = RANDOM_ROW(f32), [SP_FLOAT64] = RANDOM_ROW(f64)                             \
    }

#endif
