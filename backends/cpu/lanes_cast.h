/* Conversions between any two dtypes, and copies of elements.
 *
 * Values are PyTorch's: complex to real drops the imaginary part, floating to integer the fraction,
 * to bool asks whether it is zero, to the halves goes by float32. Out of an integer's range, int32
 * and int64 take their least value and narrower integers the low bits of that int32, as the
 * hardware has it.
 *
 * Every conversion rounds correctly or is exact, so plain loops do: however the compiler vectorises
 * them, the bits are the same.
 */
#ifndef SP_CPU_LANES_CAST_H
#define SP_CPU_LANES_CAST_H

#include "backends/cpu/lanes.h"
#include "backends/cpu/vec.h"
#include "tensor/dtype.h"

typedef uint8_t E_u8;
typedef int8_t E_i8;
typedef uint16_t E_f16 __attribute__((may_alias));
typedef uint16_t E_bf16 __attribute__((may_alias));
typedef float _Complex E_c64;
typedef double _Complex E_c128;

/* ---- the same elements ----- */

#define DEFINE_COPY(size)                                                                          \
    static void copy_##size(void *dst, const void *a, const void *b, const void *c, int64_t n,     \
                            unsigned splat)                                                        \
    {                                                                                              \
        (void)b, (void)c;                                                                          \
        char one[size], *d = dst;                                                                  \
        if (!(splat & 1)) {                                                                        \
            memmove(dst, a, (size_t)(n * (size)));                                                 \
            return;                                                                                \
        }                                                                                          \
        memcpy(one, a, n > 0 ? size : 0);                                                          \
        if (n >= 64 / (size)) {                                                                    \
            char many[64];                                                                         \
            for (int i = 0; i < 64; i += (size)) memcpy(many + i, one, size);                      \
            for (; n >= 64 / (size); n -= 64 / (size), d += 64) memcpy(d, many, 64);               \
        }                                                                                          \
        for (int64_t i = 0; i < n; i++) memcpy(d + i * (size), one, size);                         \
    }
DEFINE_COPY(1)
DEFINE_COPY(2)
DEFINE_COPY(4)
DEFINE_COPY(8)
DEFINE_COPY(16)

/* ---- loading and storing one element ----- */

#define FROM_b8(x)   ((uint8_t)((x) != 0))
#define FROM_u8(x)   (x)
#define FROM_i8(x)   (x)
#define FROM_i16(x)  (x)
#define FROM_i32(x)  (x)
#define FROM_i64(x)  (x)
#define FROM_f16(x)  sp__half_to_float(x)
#define FROM_bf16(x) sp__bfloat_to_float(x)
#define FROM_f32(x)  (x)
#define FROM_f64(x)  (x)

/* Of integers, and of float and double. */
#define INT_TO_b8(x)    ((x) != 0)
#define INT_TO_u8(x)    (x)
#define INT_TO_i8(x)    (x)
#define INT_TO_i16(x)   (x)
#define INT_TO_i32(x)   (x)
#define INT_TO_i64(x)   (x)
#define INT_TO_f16(x)   sp__float_to_half((float)(x))
#define INT_TO_bf16(x)  sp__float_to_bfloat((float)(x))
#define INT_TO_f32(x)   (x)
#define INT_TO_f64(x)   (x)
#define TO_INT32(x)     _Generic((x), float : sp__float_to_int32, double : sp__double_to_int32)(x)
#define REAL_TO_b8(x)   ((x) != 0)
#define REAL_TO_u8(x)   TO_INT32(x)
#define REAL_TO_i8(x)   TO_INT32(x)
#define REAL_TO_i16(x)  TO_INT32(x)
#define REAL_TO_i32(x)  TO_INT32(x)
#define REAL_TO_i64(x)  sp__double_to_int64((double)(x))
#define REAL_TO_f16(x)  sp__float_to_half((float)(x))
#define REAL_TO_bf16(x) sp__float_to_bfloat((float)(x))
#define REAL_TO_f32(x)  (x)
#define REAL_TO_f64(x)  (x)

/* ---- loops ----- */

/* done(d, s, n): how many elements a way of the hardware's own has converted. */
#define LANE_CAST_BY(from, to, CLASS, done)                                                        \
    static void cast_##from##_##to(void *dst, const void *a, const void *b, const void *c,         \
                                   int64_t n, unsigned splat)                                      \
    {                                                                                              \
        const char *restrict s = a;                                                                \
        char *restrict d = dst;                                                                    \
        E_##from x;                                                                                \
        E_##to y;                                                                                  \
        if (splat & 1 && n > 0) {                                                                  \
            memcpy(&x, s, sizeof x);                                                               \
            y = (E_##to)CLASS##_TO_##to(FROM_##from(x));                                           \
            SAME_##to(dst, &y, b, c, n, 1);                                                        \
            return;                                                                                \
        }                                                                                          \
        for (int64_t i = done(d, s, n); i < n; i++) {                                              \
            memcpy(&x, s + i * (int64_t)sizeof x, sizeof x);                                       \
            y = (E_##to)CLASS##_TO_##to(FROM_##from(x));                                           \
            memcpy(d + i * (int64_t)sizeof y, &y, sizeof y);                                       \
        }                                                                                          \
    }
#define SAME_b8   copy_1
#define SAME_u8   copy_1
#define SAME_i8   copy_1
#define SAME_i16  copy_2
#define SAME_f16  copy_2
#define SAME_bf16 copy_2
#define SAME_i32  copy_4
#define SAME_f32  copy_4
#define SAME_i64  copy_8
#define SAME_f64  copy_8
#define SAME_c64  copy_8
#define SAME_c128 copy_16

#define NONE(d, s, n)              0
#define LANE_CAST(from, to, CLASS) LANE_CAST_BY(from, to, CLASS, NONE)

#ifdef __F16C__
#if VB == 64
#define WIDEN(p)  _mm512_cvtph_ps(_mm256_loadu_si256(p))
#define NARROW(p) _mm512_cvtps_ph(_mm512_loadu_ps(p), _MM_FROUND_TO_NEAREST_INT)
typedef __m256i halves;
#else
#define WIDEN(p)  _mm256_cvtph_ps(_mm_loadu_si128(p))
#define NARROW(p) _mm256_cvtps_ph(_mm256_loadu_ps(p), _MM_FROUND_TO_NEAREST_INT)
typedef __m128i halves;
#endif

ALWAYS_INLINE int64_t widen_halves(char *d, const char *s, int64_t n)
{
    int64_t i = 0;
    for (; i + N_f32 <= n; i += N_f32) {
        sleef_f32 x = WIDEN((const void *)(s + i * 2));
        memcpy(d + i * 4, &x, sizeof x);
    }
    return i;
}

ALWAYS_INLINE int64_t narrow_halves(char *d, const char *s, int64_t n)
{
    int64_t i = 0;
    for (; i + N_f32 <= n; i += N_f32) {
        halves x = NARROW((const void *)(s + i * 4));
        memcpy(d + i * 2, &x, sizeof x);
    }
    return i;
}
#else
#define widen_halves  NONE
#define narrow_halves NONE
#endif

LANE_CAST_BY(f16, f32, REAL, widen_halves)
LANE_CAST_BY(f32, f16, REAL, narrow_halves)

#define TO_b8(from, CLASS)         LANE_CAST(from, b8, CLASS)
#define TO_u8(from, CLASS)         LANE_CAST(from, u8, CLASS)
#define TO_i8(from, CLASS)         LANE_CAST(from, i8, CLASS)
#define TO_i16(from, CLASS)        LANE_CAST(from, i16, CLASS)
#define TO_i32(from, CLASS)        LANE_CAST(from, i32, CLASS)
#define TO_i64(from, CLASS)        LANE_CAST(from, i64, CLASS)
#define TO_f16(from, CLASS)        LANE_CAST(from, f16, CLASS)
#define TO_bf16(from, CLASS)       LANE_CAST(from, bf16, CLASS)
#define TO_f32(from, CLASS)        LANE_CAST(from, f32, CLASS)
#define TO_f64(from, CLASS)        LANE_CAST(from, f64, CLASS)
#define TO_SMALL_INTS(from, CLASS) TO_u8(from, CLASS) TO_i8(from, CLASS) TO_i16(from, CLASS)
#define TO_FLOATS(from, CLASS)                                                                     \
    TO_f16(from, CLASS) TO_bf16(from, CLASS) TO_f32(from, CLASS) TO_f64(from, CLASS)
#define TO_INTS(from, CLASS)                                                                       \
    TO_SMALL_INTS(from, CLASS)                                                                     \
    TO_i32(from, CLASS) TO_i64(from, CLASS)

TO_INTS(b8, INT)
TO_FLOATS(b8, INT)

TO_b8(u8, INT) TO_i8(u8, INT) TO_i16(u8, INT) TO_i32(u8, INT) TO_i64(u8, INT) TO_FLOATS(u8, INT)

    TO_b8(i8, INT) TO_u8(i8, INT) TO_i16(i8, INT) TO_i32(i8, INT) TO_i64(i8, INT) TO_FLOATS(i8, INT)

        TO_b8(i16, INT) TO_u8(i16, INT) TO_i8(i16, INT) TO_i32(i16, INT) TO_i64(i16, INT)
            TO_FLOATS(i16, INT)

                TO_b8(i32, INT) TO_SMALL_INTS(i32, INT) TO_i64(i32, INT) TO_FLOATS(i32, INT)

                    TO_b8(i64, INT) TO_SMALL_INTS(i64, INT) TO_i32(i64, INT) TO_FLOATS(i64, INT)

                        TO_b8(f16, REAL) TO_INTS(f16, REAL) TO_bf16(f16, REAL) TO_f64(f16, REAL)

                            TO_b8(bf16, REAL) TO_INTS(bf16, REAL) TO_f16(bf16, REAL)
                                TO_f32(bf16, REAL) TO_f64(bf16, REAL)

                                    TO_b8(f32, REAL) TO_INTS(f32, REAL) TO_bf16(f32, REAL)
                                        TO_f64(f32, REAL)

                                            TO_b8(f64, REAL) TO_INTS(f64, REAL) TO_f16(f64, REAL)
                                                TO_bf16(f64, REAL) TO_f32(f64, REAL)

/* From and to complex numbers, by their parts: what the compiler sees as one element of two parts,
 * it moves by way of memory. S: dtype of the parts. */
#define LANE_MADE(from, to, S, CLASS)                                                              \
    static void cast_##from##_##to(void *dst, const void *a, const void *b, const void *c,         \
                                   int64_t n, unsigned splat)                                      \
    {                                                                                              \
        E_##S one[2] = {0}, *restrict d = splat & 1 ? one : dst;                                   \
        const char *restrict s = a;                                                                \
        E_##from x;                                                                                \
        for (int64_t i = 0; i < (splat & 1 ? n > 0 : n); i++) {                                    \
            memcpy(&x, s + i * (int64_t)sizeof x, sizeof x);                                       \
            d[2 * i] = (E_##S)CLASS##_TO_##S(FROM_##from(x)), d[2 * i + 1] = 0;                    \
        }                                                                                          \
        if (splat & 1) SAME_##to(dst, one, b, c, n, 1);                                            \
    }
#define LANE_TAKEN(from, S, to, value)                                                             \
    static void cast_##from##_##to(void *dst, const void *a, const void *b, const void *c,         \
                                   int64_t n, unsigned splat)                                      \
    {                                                                                              \
        E_##to one = 0;                                                                            \
        char *restrict d = splat & 1 ? (char *)&one : dst;                                         \
        const E_##S *restrict s = a;                                                               \
        for (int64_t i = 0; i < (splat & 1 ? n > 0 : n); i++) {                                    \
            E_##S re = s[2 * i], im __attribute__((unused)) = s[2 * i + 1];                        \
            E_##to y = (E_##to)(value);                                                            \
            memcpy(d + i * (int64_t)sizeof y, &y, sizeof y);                                       \
        }                                                                                          \
        if (splat & 1) SAME_##to(dst, &one, b, c, n, 1);                                           \
    }
#define LANE_BOTH(from, to, by_part)                                                               \
    static void cast_##from##_##to(void *d, const void *a, const void *b, const void *c,           \
                                   int64_t n, unsigned splat)                                      \
    {                                                                                              \
        E_##to one;                                                                                \
        by_part(splat & 1 ? (void *)&one : d, a, b, c, splat & 1 ? (n > 0) * 2 : 2 * n, 0);        \
        if (splat & 1) SAME_##to(d, &one, b, c, n, 1);                                             \
    }
#define TO_COMPLEX(from, CLASS) LANE_MADE(from, c64, f32, CLASS) LANE_MADE(from, c128, f64, CLASS)
#define FROM_COMPLEX(from, S)                                                                      \
    LANE_TAKEN(from, S, b8, (re != 0) | (im != 0))                                                 \
    LANE_TAKEN(from, S, u8, REAL_TO_u8(re))                                                        \
    LANE_TAKEN(from, S, i8, REAL_TO_i8(re))                                                        \
    LANE_TAKEN(from, S, i16, REAL_TO_i16(re))                                                      \
    LANE_TAKEN(from, S, i32, REAL_TO_i32(re))                                                      \
    LANE_TAKEN(from, S, i64, REAL_TO_i64(re))                                                      \
    LANE_TAKEN(from, S, f16, REAL_TO_f16(re))                                                      \
    LANE_TAKEN(from, S, bf16, REAL_TO_bf16(re))                                                    \
    LANE_TAKEN(from, S, f32, REAL_TO_f32(re))                                                      \
    LANE_TAKEN(from, S, f64, REAL_TO_f64(re))
    /* clang-format off */
TO_COMPLEX(b8, INT)
TO_COMPLEX(u8, INT)
TO_COMPLEX(i8, INT)
TO_COMPLEX(i16, INT)
TO_COMPLEX(i32, INT)
TO_COMPLEX(i64, INT)
TO_COMPLEX(f16, REAL)
TO_COMPLEX(bf16, REAL)
TO_COMPLEX(f32, REAL)
TO_COMPLEX(f64, REAL)
FROM_COMPLEX(c64, f32)
FROM_COMPLEX(c128, f64)
LANE_BOTH(c64, c128, cast_f32_f64)
LANE_BOTH(c128, c64, cast_f64_f32)
/* clang-format on */

#define cast_b8_b8     copy_1
#define cast_u8_u8     copy_1
#define cast_i8_i8     copy_1
#define cast_i16_i16   copy_2
#define cast_i32_i32   copy_4
#define cast_i64_i64   copy_8
#define cast_f16_f16   copy_2
#define cast_bf16_bf16 copy_2
#define cast_f32_f32   copy_4
#define cast_f64_f64   copy_8
#define cast_c64_c64   copy_8
#define cast_c128_c128 copy_16

#define CASTS_FROM(from)                                                                           \
    {                                                                                              \
        [SP_BOOL] = cast_##from##_b8, [SP_UINT8] = cast_##from##_u8, [SP_INT8] = cast_##from##_i8, \
        [SP_INT16] = cast_##from##_i16, [SP_INT32] = cast_##from##_i32,                            \
        [SP_INT64] = cast_##from##_i64, [SP_FLOAT16] = cast_##from##_f16,                          \
        [SP_BFLOAT16] = cast_##from##_bf16, [SP_FLOAT32] = cast_##from##_f32,                      \
        [SP_FLOAT64] = cast_##from##_f64, [SP_COMPLEX64] = cast_##from##_c64,                      \
        [SP_COMPLEX128] = cast_##from##_c128                                                       \
    }
#define CASTS                                                                                      \
    {                                                                                              \
        [SP_BOOL] = CASTS_FROM(b8), [SP_UINT8] = CASTS_FROM(u8), [SP_INT8] = CASTS_FROM(i8),       \
        [SP_INT16] = CASTS_FROM(i16), [SP_INT32] = CASTS_FROM(i32), [SP_INT64] = CASTS_FROM(i64),  \
        [SP_FLOAT16] = CASTS_FROM(f16), [SP_BFLOAT16] = CASTS_FROM(bf16),                          \
        [SP_FLOAT32] = CASTS_FROM(f32), [SP_FLOAT64] = CASTS_FROM(f64),                            \
        [SP_COMPLEX64] = CASTS_FROM(c64), [SP_COMPLEX128] = CASTS_FROM(c128)                       \
    }

#endif
