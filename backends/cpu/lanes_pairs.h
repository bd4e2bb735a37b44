/* Vectors of complex numbers, and loops over them.
 *
 *     memory, V_c64      re0 im0 re1 im1 | re2 im2 re3 im3    re4 im4 re5 im5 | re6 im6 re7 im7
 *     parts, P_c64       re:  0 1 4 5 | 2 3 6 7               im:  0 1 4 5 | 2 3 6 7
 *
 * Functions compute with the parts, N numbers at a time, and need not know in which order these
 * are: it is the one that the shuffles within 16 bytes make, and undo. Only where a result or an
 * operand is a part alone, it is put in order (drawn: 32 bytes).
 */
#ifndef SP_CPU_LANES_PAIRS_H
#define SP_CPU_LANES_PAIRS_H

#include "backends/cpu/lanes_cast.h"
#include "backends/cpu/lanes_loop.h"
#include "backends/cpu/lanes_more.h"

#define EVEN_f32(a, b) CHOOSE(shuffle_ps)((sleef_f32)(a), (sleef_f32)(b), 0x88)
#define ODD_f32(a, b)  CHOOSE(shuffle_ps)((sleef_f32)(a), (sleef_f32)(b), 0xdd)
#define LOW_f32(a, b)  CHOOSE(unpacklo_ps)((sleef_f32)(a), (sleef_f32)(b))
#define HIGH_f32(a, b) CHOOSE(unpackhi_ps)((sleef_f32)(a), (sleef_f32)(b))
#define EVEN_f64(a, b) CHOOSE(unpacklo_pd)((sleef_f64)(a), (sleef_f64)(b))
#define ODD_f64(a, b)  CHOOSE(unpackhi_pd)((sleef_f64)(a), (sleef_f64)(b))
#define LOW_f64        EVEN_f64
#define HIGH_f64       ODD_f64

/* Units of 8 bytes, from the order of the parts to that of the memory, and back. */
ALWAYS_INLINE V_i64 ordered(V_i64 x)
{
#if VB == 64
    return (V_i64)_mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7), (__m512i)x);
#elif VB == 32
    return (V_i64)_mm256_permute4x64_epi64((__m256i)x, 0xd8);
#else
    return x;
#endif
}

ALWAYS_INLINE V_i64 disordered(V_i64 x)
{
#if VB == 64
    return (V_i64)_mm512_permutexvar_epi64(_mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7), (__m512i)x);
#else
    return ordered(x);
#endif
}

enum { N_c64 = N_f32, N_c128 = N_f64 };

/* T: of the numbers, S: of their parts. */
#define DEFINE_PAIRS(T, S)                                                                         \
    typedef struct V_##T {                                                                         \
        V_##S low, high;                                                                           \
    } V_##T;                                                                                       \
    typedef struct P_##T {                                                                         \
        V_##S re, im;                                                                              \
    } P_##T;                                                                                       \
    ALWAYS_INLINE P_##T parts_##T(V_##T v)                                                         \
    {                                                                                              \
        return (P_##T){(V_##S)EVEN_##S(v.low, v.high), (V_##S)ODD_##S(v.low, v.high)};             \
    }                                                                                              \
    ALWAYS_INLINE V_##T pairs_##T(P_##T p)                                                         \
    {                                                                                              \
        return (V_##T){(V_##S)LOW_##S(p.re, p.im), (V_##S)HIGH_##S(p.re, p.im)};                   \
    }                                                                                              \
    ALWAYS_INLINE V_##T load_##T(const void *p)                                                    \
    {                                                                                              \
        return (V_##T){load_##S(p), load_##S((const char *)p + VB)};                               \
    }                                                                                              \
    ALWAYS_INLINE void store_##T(void *p, V_##T v)                                                 \
    {                                                                                              \
        store_##S(p, v.low), store_##S((char *)p + VB, v.high);                                    \
    }                                                                                              \
    ALWAYS_INLINE V_##T splat_at_##T(const void *p)                                                \
    {                                                                                              \
        return pairs_##T((P_##T){splat_at_##S(p), splat_at_##S((const E_##S *)p + 1)});            \
    }                                                                                              \
    ALWAYS_INLINE V_##T pad_##T(const void *p, int64_t n)                                          \
    {                                                                                              \
        n *= 2;                                                                                    \
        return (V_##T){pad_##S(p, n < N_##S ? n : N_##S),                                          \
                       n > N_##S ? pad_##S((const char *)p + VB, n - N_##S) : (V_##S){0}};         \
    }                                                                                              \
    ALWAYS_INLINE void store_some_##T(void *p, V_##T v, int64_t n)                                 \
    {                                                                                              \
        n *= 2;                                                                                    \
        store_some_##S(p, v.low, n < N_##S ? n : N_##S);                                           \
        if (n > N_##S) store_some_##S((char *)p + VB, v.high, n - N_##S);                          \
    }                                                                                              \
    DEFINE_LOOPS(T, V_##T, store_some_##T, T)                                                      \
    DEFINE_LOOP3(T)                                                                                \
    DEFINE_LOOPS(T, V_##S, store_some_##S, T##_real)                                               \
    DEFINE_LOOPS(T, B_##S, PUT_BYTES, T##_bool)                                                    \
    DEFINE_LOOPS(S, V_##T, store_some_##T, T##_made)
DEFINE_PAIRS(c64, f32)
DEFINE_PAIRS(c128, f64)

/* ---- one function of one dtype: x, y and z are parts of the operands ----- */

/* P: parts, V: vector of one of them, M: its mask. */
#define PAIR_TYPES(T, S)                                                                           \
    typedef P_##T P __attribute__((unused));                                                       \
    typedef V_##S V __attribute__((unused));                                                       \
    typedef M_##S M __attribute__((unused))

#define PAIR_LANE1(T, S, name, expr)                                                               \
    ALWAYS_INLINE V_##T f_##name##_##T(V_##T x_)                                                   \
    {                                                                                              \
        PAIR_TYPES(T, S);                                                                          \
        P x = parts_##T(x_);                                                                       \
        return pairs_##T(expr);                                                                    \
    }                                                                                              \
    LANE_FN(name, T, loop1_##T(d, a, n, splat, f_##name##_##T))

#define PAIR_LANE2(T, S, name, expr)                                                               \
    ALWAYS_INLINE V_##T f_##name##_##T(V_##T x_, V_##T y_)                                         \
    {                                                                                              \
        PAIR_TYPES(T, S);                                                                          \
        P x = parts_##T(x_), y = parts_##T(y_);                                                    \
        return pairs_##T(expr);                                                                    \
    }                                                                                              \
    LANE_FN(name, T, loop2_##T(d, a, b, n, splat, f_##name##_##T))

#define PAIR_LANE3(T, S, name, expr)                                                               \
    ALWAYS_INLINE V_##T f_##name##_##T(V_##T x_, V_##T y_, V_##T z_)                               \
    {                                                                                              \
        PAIR_TYPES(T, S);                                                                          \
        P x = parts_##T(x_), y = parts_##T(y_), z = parts_##T(z_);                                 \
        return pairs_##T(expr);                                                                    \
    }                                                                                              \
    LANE_FN(name, T, loop3_##T(d, a, b, c, n, splat, f_##name##_##T))

/* One real number each. */
#define PAIR_REAL(T, S, name, expr)                                                                \
    ALWAYS_INLINE V_##S f_##name##_##T(V_##T x_)                                                   \
    {                                                                                              \
        PAIR_TYPES(T, S);                                                                          \
        P x = parts_##T(x_);                                                                       \
        return (V_##S)ordered((V_i64)(expr));                                                      \
    }                                                                                              \
    LANE_FN(name, T, loop1_##T##_real(d, a, n, splat, f_##name##_##T))

#define PAIR_TEST(T, S, name, expr)                                                                \
    ALWAYS_INLINE B_##S f_##name##_##T(V_##T x_)                                                   \
    {                                                                                              \
        PAIR_TYPES(T, S);                                                                          \
        P x = parts_##T(x_);                                                                       \
        return mask_bytes_##S((M_##S)ordered((V_i64)(expr)));                                      \
    }                                                                                              \
    LANE_FN(name, T, loop1_##T##_bool(d, a, n, splat, f_##name##_##T))

#define PAIR_COMPARE(T, S, name, expr)                                                             \
    ALWAYS_INLINE B_##S f_##name##_##T(V_##T x_, V_##T y_)                                         \
    {                                                                                              \
        PAIR_TYPES(T, S);                                                                          \
        P x = parts_##T(x_), y = parts_##T(y_);                                                    \
        return mask_bytes_##S((M_##S)ordered((V_i64)(expr)));                                      \
    }                                                                                              \
    LANE_FN(name, T, loop2_##T##_bool(d, a, b, n, splat, f_##name##_##T))

/* Of two real operands. */
#define PAIR_MADE(T, S, name, expr)                                                                \
    ALWAYS_INLINE V_##T f_##name##_##T(V_##S x_, V_##S y_)                                         \
    {                                                                                              \
        PAIR_TYPES(T, S);                                                                          \
        V x = (V)disordered((V_i64)x_), y = (V)disordered((V_i64)y_);                              \
        return pairs_##T(expr);                                                                    \
    }                                                                                              \
    LANE_FN(name, T, loop2_##T##_made(d, a, b, n, splat, f_##name##_##T))

#endif
