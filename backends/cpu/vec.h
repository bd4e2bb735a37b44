/* Vectors of the instruction set being compiled for: types, loads, selection, and the functions C
 * has no operator for.
 *
 * Included by lanes*.c only, which are compiled once per instruction set with SP_ISA naming it
 * (baseline, avx2, avx512). Suffixes: f32 f64 i32 i64 b8, and i16 to move elements of two bytes.
 * For each, V_ is a vector, M_ its mask (0 or -1 a lane), B_ as many bytes of bool, E_ an element,
 * N_ the number of lanes. Arithmetic is the compiler's own on vectors; -ffp-contract=off keeps it
 * from fusing.
 */
#ifndef SP_CPU_VEC_H
#define SP_CPU_VEC_H

#include <immintrin.h>
#include <sleef.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__) && defined(__AVX512DQ__)
#define VB                         64
#define SLEEF_F32(name, precision) Sleef_##name##f16_##precision##avx512f
#define SLEEF_F64(name, precision) Sleef_##name##d8_##precision##avx512f
#define SET1(kind)                 _mm512_set1_##kind
#define CHOOSE(kind)               _mm512_##kind
#define SET1_I64                   _mm512_set1_epi64
#define SQRT_F32(x)                _mm512_sqrt_ps(x)
#define SQRT_F64(x)                _mm512_sqrt_pd(x)
#define MUL_ADD_F32(x, y, z)                                                                       \
    ((V_f32)_mm512_fmadd_ps((sleef_f32)(x), (sleef_f32)(y), (sleef_f32)(z)))
#define MUL_ADD_F64(x, y, z)                                                                       \
    ((V_f64)_mm512_fmadd_pd((sleef_f64)(x), (sleef_f64)(y), (sleef_f64)(z)))
typedef __m512 sleef_f32;
typedef __m512d sleef_f64;
#elif defined(__AVX2__)
#define VB                         32
#define SLEEF_F32(name, precision) Sleef_##name##f8_##precision##avx2
#define SLEEF_F64(name, precision) Sleef_##name##d4_##precision##avx2
#define SET1(kind)                 _mm256_set1_##kind
#define CHOOSE(kind)               _mm256_##kind
#define SET1_I64                   _mm256_set1_epi64x
#define SQRT_F32(x)                _mm256_sqrt_ps(x)
#define SQRT_F64(x)                _mm256_sqrt_pd(x)
#define MUL_ADD_F32(x, y, z)                                                                       \
    ((V_f32)_mm256_fmadd_ps((sleef_f32)(x), (sleef_f32)(y), (sleef_f32)(z)))
#define MUL_ADD_F64(x, y, z)                                                                       \
    ((V_f64)_mm256_fmadd_pd((sleef_f64)(x), (sleef_f64)(y), (sleef_f64)(z)))
typedef __m256 sleef_f32;
typedef __m256d sleef_f64;
#else
#define VB                         16
#define SLEEF_F32(name, precision) Sleef_##name##f4_##precision##sse2
#define SLEEF_F64(name, precision) Sleef_##name##d2_##precision##sse2
#define SET1(kind)                 _mm_set1_##kind
#define CHOOSE(kind)               _mm_##kind
#define SET1_I64                   _mm_set1_epi64x
#define SQRT_F32(x)                _mm_sqrt_ps(x)
#define SQRT_F64(x)                _mm_sqrt_pd(x)
#define MUL_ADD_F32(x, y, z)       ((x) * (y) + (z))
#define MUL_ADD_F64(x, y, z)       ((x) * (y) + (z))
typedef __m128 sleef_f32;
typedef __m128d sleef_f64;
#endif

#define ALWAYS_INLINE          static inline __attribute__((always_inline, unused))
#define VECTOR(element, bytes) element __attribute__((vector_size(bytes)))

typedef float E_f32 __attribute__((may_alias)); /* scratch memory holds whatever it is given */
typedef double E_f64 __attribute__((may_alias));
typedef int16_t E_i16 __attribute__((may_alias));
typedef int32_t E_i32 __attribute__((may_alias));
typedef uint32_t E_u32 __attribute__((may_alias));
typedef int64_t E_i64 __attribute__((may_alias));
typedef uint64_t E_u64 __attribute__((may_alias));
typedef uint8_t E_b8;

enum { N_f32 = VB / 4, N_f64 = VB / 8, N_i16 = VB / 2, N_i32 = VB / 4, N_i64 = VB / 8, N_b8 = VB };

typedef VECTOR(float, VB) V_f32;
typedef VECTOR(double, VB) V_f64;
typedef VECTOR(int16_t, VB) V_i16;
typedef VECTOR(int32_t, VB) V_i32;
typedef VECTOR(int64_t, VB) V_i64;
typedef VECTOR(uint8_t, VB) V_b8;
typedef VECTOR(uint64_t, VB) V_u64;
typedef VECTOR(uint32_t, VB) V_u32;
typedef VECTOR(int32_t, VB) M_f32;
typedef VECTOR(int64_t, VB) M_f64;
typedef VECTOR(int16_t, VB) M_i16;
typedef VECTOR(int32_t, VB) M_i32;
typedef VECTOR(int64_t, VB) M_i64;
typedef VECTOR(int8_t, VB) M_b8;
typedef VECTOR(int8_t, VB / 4) B_f32;
typedef VECTOR(int8_t, VB / 8) B_f64;
typedef VECTOR(int8_t, VB / 2) B_i16;
typedef VECTOR(int8_t, VB / 4) B_i32;
typedef VECTOR(int8_t, VB / 8) B_i64;
typedef VECTOR(int8_t, VB) B_b8;

/* Loads and stores of any alignment. */
#define DEFINE_MEMORY(T, BROADCAST)                                                                \
    ALWAYS_INLINE V_##T load_##T(const void *p)                                                    \
    {                                                                                              \
        V_##T v;                                                                                   \
        memcpy(&v, p, sizeof v);                                                                   \
        return v;                                                                                  \
    }                                                                                              \
    ALWAYS_INLINE void store_##T(void *p, V_##T v)                                                 \
    {                                                                                              \
        memcpy(p, &v, sizeof v);                                                                   \
    }                                                                                              \
    ALWAYS_INLINE V_##T splat_##T(E_##T e)                                                         \
    {                                                                                              \
        return (V_##T)BROADCAST(e);                                                                \
    }                                                                                              \
    ALWAYS_INLINE V_##T splat_at_##T(const void *p)                                                \
    {                                                                                              \
        E_##T e;                                                                                   \
        memcpy(&e, p, sizeof e);                                                                   \
        return splat_##T(e);                                                                       \
    }                                                                                              \
    ALWAYS_INLINE M_##T bytes_mask_##T(const void *p, int64_t n)                                   \
    {                                                                                              \
        B_##T b = {0};                                                                             \
        memcpy(&b, p, (size_t)n);                                                                  \
        return __builtin_convertvector(b, M_##T) != 0;                                             \
    }
DEFINE_MEMORY(f32, SET1(ps))
DEFINE_MEMORY(f64, SET1(pd))
DEFINE_MEMORY(i16, SET1(epi16))
DEFINE_MEMORY(i32, SET1(epi32))
DEFINE_MEMORY(i64, SET1_I64)
DEFINE_MEMORY(b8, SET1(epi8))

/* A mask as bools. Packed with saturation: the conversion that the language has takes the lanes
 * apart, one by one. */
#define DEFINE_MASK_CONVERTED(T)                                                                   \
    ALWAYS_INLINE B_##T mask_bytes_##T(M_##T m)                                                    \
    {                                                                                              \
        return __builtin_convertvector(m, B_##T) & 1;                                              \
    }
#define DEFINE_MASK_PACKED(T, WORDS)                                                               \
    ALWAYS_INLINE B_##T mask_bytes_##T(M_##T m)                                                    \
    {                                                                                              \
        B_##T bytes;                                                                               \
        __m128i words = WORDS, packed = _mm_packs_epi16(words, words);                             \
        packed = _mm_and_si128(packed, _mm_set1_epi8(1));                                          \
        memcpy(&bytes, &packed, sizeof bytes);                                                     \
        return bytes;                                                                              \
    }
DEFINE_MASK_CONVERTED(i16)
DEFINE_MASK_CONVERTED(b8)
#if VB == 64
DEFINE_MASK_CONVERTED(f32)
DEFINE_MASK_CONVERTED(f64)
#else
#if VB == 32
#define LOW(m)  _mm256_castsi256_si128((__m256i)(m))
#define HIGH(m) _mm256_extracti128_si256((__m256i)(m), 1)
#else
#define LOW(m)  ((__m128i)(m))
#define HIGH(m) LOW(m)
#endif
#define EVENS(m) (__m128i) _mm_shuffle_ps((__m128)LOW(m), (__m128)HIGH(m), 0x88)
DEFINE_MASK_PACKED(f32, _mm_packs_epi32(LOW(m), HIGH(m)))
DEFINE_MASK_PACKED(f64, _mm_packs_epi32(EVENS(m), EVENS(m)))
#endif
#define mask_bytes_i32(m) mask_bytes_f32(m)
#define mask_bytes_i64(m) mask_bytes_f64(m)

/* pad reads only n < N elements, and leaves zeros in the other lanes; store_some writes only n.
 * Masked where the hardware can: going through memory costs a stall. */
#define DEFINE_SOME_BY_COPY(T)                                                                     \
    ALWAYS_INLINE V_##T pad_##T(const void *p, int64_t n)                                          \
    {                                                                                              \
        V_##T v = {0};                                                                             \
        memcpy(&v, p, (size_t)n * sizeof(E_##T));                                                  \
        return v;                                                                                  \
    }                                                                                              \
    ALWAYS_INLINE void store_some_##T(void *p, V_##T v, int64_t n)                                 \
    {                                                                                              \
        memcpy(p, &v, (size_t)n * sizeof(E_##T));                                                  \
    }
#define DEFINE_SOME_MASKED(T, LOAD, STORE)                                                         \
    ALWAYS_INLINE V_##T pad_##T(const void *p, int64_t n)                                          \
    {                                                                                              \
        return (V_##T)LOAD;                                                                        \
    }                                                                                              \
    ALWAYS_INLINE void store_some_##T(void *p, V_##T v, int64_t n)                                 \
    {                                                                                              \
        STORE;                                                                                     \
    }
DEFINE_SOME_BY_COPY(b8)
DEFINE_SOME_BY_COPY(i16)
#if VB == 64
#define FIRST(n) ((1u << (n)) - 1)
DEFINE_SOME_MASKED(f32, _mm512_maskz_loadu_ps((__mmask16)FIRST(n), p),
                   _mm512_mask_storeu_ps(p, (__mmask16)FIRST(n), (__m512)v))
DEFINE_SOME_MASKED(f64, _mm512_maskz_loadu_pd((__mmask8)FIRST(n), p),
                   _mm512_mask_storeu_pd(p, (__mmask8)FIRST(n), (__m512d)v))
DEFINE_SOME_MASKED(i32, _mm512_maskz_loadu_epi32((__mmask16)FIRST(n), p),
                   _mm512_mask_storeu_epi32(p, (__mmask16)FIRST(n), (__m512i)v))
DEFINE_SOME_MASKED(i64, _mm512_maskz_loadu_epi64((__mmask8)FIRST(n), p),
                   _mm512_mask_storeu_epi64(p, (__mmask8)FIRST(n), (__m512i)v))
#elif VB == 32
#define FIRST4(n)                                                                                  \
    _mm256_cmpgt_epi32(_mm256_set1_epi32((int)(n)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))
#define FIRST8(n) _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3))
DEFINE_SOME_MASKED(f32, _mm256_maskload_ps(p, FIRST4(n)),
                   _mm256_maskstore_ps(p, FIRST4(n), (__m256)v))
DEFINE_SOME_MASKED(f64, _mm256_maskload_pd(p, FIRST8(n)),
                   _mm256_maskstore_pd(p, FIRST8(n), (__m256d)v))
DEFINE_SOME_MASKED(i32, _mm256_maskload_epi32(p, FIRST4(n)),
                   _mm256_maskstore_epi32(p, FIRST4(n), (__m256i)v))
DEFINE_SOME_MASKED(i64, _mm256_maskload_epi64(p, FIRST8(n)),
                   _mm256_maskstore_epi64(p, FIRST8(n), (__m256i)v))
#else
DEFINE_SOME_BY_COPY(f32)
DEFINE_SOME_BY_COPY(f64)
DEFINE_SOME_BY_COPY(i32)
DEFINE_SOME_BY_COPY(i64)
#endif

/* m ? a : b, lane by lane, where V and M are in scope. */
#define SELECT(m, a, b) ((V)(((M)(m) & (M)(a)) | (~(M)(m) & (M)(b))))

#define DEFINE_MATH(name, precision)                                                               \
    ALWAYS_INLINE V_f32 name##_of_f32(V_f32 x)                                                     \
    {                                                                                              \
        return (V_f32)SLEEF_F32(name, precision)((sleef_f32)x);                                    \
    }                                                                                              \
    ALWAYS_INLINE V_f64 name##_of_f64(V_f64 x)                                                     \
    {                                                                                              \
        return (V_f64)SLEEF_F64(name, precision)((sleef_f64)x);                                    \
    }
DEFINE_MATH(exp, u10)
DEFINE_MATH(log, u10)
DEFINE_MATH(tanh, u35)

ALWAYS_INLINE V_f32 sqrt_of_f32(V_f32 x)
{
    return (V_f32)SQRT_F32((sleef_f32)x);
}

ALWAYS_INLINE V_f64 sqrt_of_f64(V_f64 x)
{
    return (V_f64)SQRT_F64((sleef_f64)x);
}

ALWAYS_INLINE V_f32 pow_of_f32(V_f32 x, V_f32 y)
{
    return (V_f32)SLEEF_F32(pow, u10)((sleef_f32)x, (sleef_f32)y);
}

ALWAYS_INLINE V_f64 pow_of_f64(V_f64 x, V_f64 y)
{
    return (V_f64)SLEEF_F64(pow, u10)((sleef_f64)x, (sleef_f64)y);
}

/* The second operand where one is NaN, or both are zero. */
ALWAYS_INLINE V_f32 larger_of_f32(V_f32 x, V_f32 y)
{
    return (V_f32)CHOOSE(max_ps)((sleef_f32)x, (sleef_f32)y);
}

ALWAYS_INLINE V_f64 larger_of_f64(V_f64 x, V_f64 y)
{
    return (V_f64)CHOOSE(max_pd)((sleef_f64)x, (sleef_f64)y);
}

ALWAYS_INLINE V_f32 smaller_of_f32(V_f32 x, V_f32 y)
{
    return (V_f32)CHOOSE(min_ps)((sleef_f32)x, (sleef_f32)y);
}

ALWAYS_INLINE V_f64 smaller_of_f64(V_f64 x, V_f64 y)
{
    return (V_f64)CHOOSE(min_pd)((sleef_f64)x, (sleef_f64)y);
}

/* For kernel lines that hold for both float dtypes. */
#define EXP(x)  _Generic((x), V_f32 : exp_of_f32, V_f64 : exp_of_f64)(x)
#define LOG(x)  _Generic((x), V_f32 : log_of_f32, V_f64 : log_of_f64)(x)
#define TANH(x) _Generic((x), V_f32 : tanh_of_f32, V_f64 : tanh_of_f64)(x)
#define SQRT(x) _Generic((x), V_f32 : sqrt_of_f32, V_f64 : sqrt_of_f64)(x)

#endif
