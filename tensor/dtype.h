/* What the layers know of dtypes: one table, promotion, and single numbers to and from memory.
 *
 * Storage and computation differ. Vector functions compute in bool, int32, int64, float32 and
 * float64; an element of another dtype becomes its compute dtype when it is loaded, and is rounded
 * (float16, bfloat16: to nearest, ties to even) or wrapped (small integers) once when it is stored.
 *
 * A complex number is its two parts, side by side; ops without a meaning for them refuse them
 * (sp__infer() in ops/op.c), so a kernel that was not written for them never sees any.
 */
#ifndef SP_DTYPE_H
#define SP_DTYPE_H

#include <string.h>

#include "spool.h"

typedef enum sp_kind { SP_KIND_BOOL, SP_KIND_INT, SP_KIND_FLOAT, SP_KIND_COMPLEX } sp_kind;

typedef struct sp_dtype_info {
    const char *name;
    uint8_t size, shift; /* bytes an element, and their log2 */
    uint8_t kind;        /* sp_kind */
    uint8_t compute;     /* the dtype that arithmetic on it is done in */
    uint8_t real;        /* the dtype of its parts; of others itself */
    uint8_t wide; /* of float32, float64, int64 and bool the one that holds its values, for kernels
                     that know only these */
    uint8_t digits;      /* bits of the significand, the hidden one included; integers: 0 */
    int16_t exponent;    /* the largest; of the smallest normal number: 2 - exponent */
    int64_t least, most; /* integers */
} sp_dtype_info;

extern const sp_dtype_info sp__dtypes[SP_DTYPE_COUNT];

static inline int sp__dtype_shift(int dtype)
{
    return sp__dtypes[dtype].shift;
}

static inline int sp__dtype_kind(int dtype)
{
    return sp__dtypes[dtype].kind;
}

static inline int sp__dtype_compute(int dtype)
{
    return sp__dtypes[dtype].compute;
}

static inline bool sp__dtype_is_floating(int dtype)
{
    return sp__dtypes[dtype].kind == SP_KIND_FLOAT;
}

static inline bool sp__dtype_is_integer(int dtype)
{
    return sp__dtypes[dtype].kind == SP_KIND_INT;
}

static inline bool sp__dtype_is_complex(int dtype)
{
    return sp__dtypes[dtype].kind == SP_KIND_COMPLEX;
}

/* Floating or complex: what gradients flow through. */
static inline bool sp__dtype_is_inexact(int dtype)
{
    return sp__dtypes[dtype].kind >= SP_KIND_FLOAT;
}

static inline int sp__dtype_real(int dtype)
{
    return sp__dtypes[dtype].real;
}

/* The complex dtype whose parts are of this floating one, or wider. */
static inline sp_dtype sp__dtype_complex(int dtype)
{
    return dtype == SP_FLOAT64 || dtype == SP_COMPLEX128 ? SP_COMPLEX128 : SP_COMPLEX64;
}

/* The largest finite number of a floating dtype, or of a complex one's parts. */
double sp__dtype_largest(int dtype);
/* The dtype a tensor of `tensor` and a weakly typed number of kind `kind` compute in. */
sp_dtype sp__promote_scalar(sp_dtype tensor, sp_dtype kind);
/* Of a tensor with dimensions and one without. */
sp_dtype sp__promote_without_dims(sp_dtype with_dims, sp_dtype without);
/* The dtype itself where it is floating or complex, otherwise what numbers without dtype become.
 */
sp_dtype sp__to_floating(sp_dtype dtype);

/* ---- single numbers ----- */

/* Room for an element of any dtype. */
typedef union sp_element {
    char bytes[16];
    double part[2];
} sp_element;

/* The number in the dtype, at `out`, which holds an sp_element; converted as the op cast does. */
void sp__scalar_to(sp_scalar s, int dtype, void *out);
/* The element at `at`: bool, int64 or float64; of a complex one the real part. */
sp_scalar sp__scalar_from(const void *at, int dtype);

/* Real and imaginary part of the element at `at`; and such an element of a complex dtype to `out`.
 */
void sp__complex_from(const void *at, int dtype, double part[2]);
void sp__complex_to(const double part[2], int dtype, void *out);

/* ---- half precision, bit by bit; the same for every instruction set ----- */

static inline float sp__float_of_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline uint32_t sp__bits_of_float(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

/* Exact. NaNs become quiet ones. */
static inline float sp__half_to_float(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, rest = half & 0x7fff;
    uint32_t normal = (rest << 13) + (112u << 23), large = rest << 13 | 0x7f800000;
    uint32_t small = sp__bits_of_float((float)(int32_t)rest * 0x1p-24f);
    uint32_t quiet = rest > 0x7c00 ? 0x400000 : 0;
    return sp__float_of_bits(sign | (rest >= 0x7c00  ? large | quiet
                                     : rest >= 0x400 ? normal
                                                     : small));
}

static inline uint16_t sp__float_to_half(float f)
{
    uint32_t bits = sp__bits_of_float(f), sign = bits >> 16 & 0x8000, x = bits & 0x7fffffff;
    uint32_t normal = (x - (112u << 23) + 0xfff + (x >> 13 & 1)) >> 13;
    /* Below the smallest normal number: adding 0.5 leaves multiples of 2^-24, rounded. */
    uint32_t small = sp__bits_of_float(sp__float_of_bits(x) + 0.5f) - 0x3f000000;
    uint32_t nan = 0x7e00 | (x >> 13 & 0x3ff);
    uint32_t half = x > 0x7f800000    ? nan
                    : x >= 0x47800000 ? 0x7c00
                    : x >= 0x38800000 ? normal
                                      : small;
    return (uint16_t)(sign | half);
}

static inline float sp__bfloat_to_float(uint16_t b)
{
    return sp__float_of_bits((uint32_t)b << 16);
}

static inline uint16_t sp__float_to_bfloat(float f)
{
    uint32_t x = sp__bits_of_float(f);
    uint32_t rounded = (x + 0x7fff + (x >> 16 & 1)) >> 16;
    return (uint16_t)((x & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : rounded);
}

/* To integers: towards zero. What lies outside becomes the least one, as hardware has it; C leaves
 * it undefined. */
static inline int64_t sp__double_to_int64(double x)
{
    return x >= -0x1p63 && x < 0x1p63 ? (int64_t)x : INT64_MIN;
}

static inline int32_t sp__double_to_int32(double x)
{
    return x >= -0x1p31 && x < 0x1p31 ? (int32_t)x : INT32_MIN;
}

static inline int32_t sp__float_to_int32(float x)
{
    return x >= -0x1p31f && x < 0x1p31f ? (int32_t)x : INT32_MIN;
}

#endif
