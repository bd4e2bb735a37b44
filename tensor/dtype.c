/* The table of dtypes, promotion, and single numbers to and from memory.
 *
 * Promotion is PyTorch's: the higher kind wins (bool < integer < floating < complex), within a kind
 * the type that holds both. Enumerators stand in that order, so that the larger of two is their
 * promotion, but for the pairs that neither member of holds: uint8 with int8, the two halves, and
 * complex64 with float64.
 */
#include "tensor/dtype.h"

#include <math.h>

#define INTEGER(self, type, bytes, log2, in, low, high)                                            \
    {                                                                                              \
        .name = type, .size = bytes, .shift = log2, .kind = SP_KIND_INT, .compute = in,            \
        .real = self, .wide = SP_INT64, .least = low, .most = high                                 \
    }
#define FLOATING(self, type, bytes, log2, in, bits, largest)                                       \
    {                                                                                              \
        .name = type, .size = bytes, .shift = log2, .kind = SP_KIND_FLOAT, .compute = in,          \
        .real = self, .wide = in, .digits = bits, .exponent = largest                              \
    }
#define COMPLEX(type, bytes, log2, in, part, bits, largest)                                        \
    {                                                                                              \
        .name = type, .size = bytes, .shift = log2, .kind = SP_KIND_COMPLEX, .compute = in,        \
        .real = part, .wide = in, .digits = bits, .exponent = largest                              \
    }

const sp_dtype_info sp__dtypes[SP_DTYPE_COUNT] = {
    [SP_BOOL] = {.name = "bool",
                 .size = 1,
                 .kind = SP_KIND_BOOL,
                 .compute = SP_BOOL,
                 .real = SP_BOOL,
                 .wide = SP_BOOL,
                 .most = 1},
    [SP_UINT8] = INTEGER(SP_UINT8, "uint8", 1, 0, SP_INT32, 0, UINT8_MAX),
    [SP_INT8] = INTEGER(SP_INT8, "int8", 1, 0, SP_INT32, INT8_MIN, INT8_MAX),
    [SP_INT16] = INTEGER(SP_INT16, "int16", 2, 1, SP_INT32, INT16_MIN, INT16_MAX),
    [SP_INT32] = INTEGER(SP_INT32, "int32", 4, 2, SP_INT32, INT32_MIN, INT32_MAX),
    [SP_INT64] = INTEGER(SP_INT64, "int64", 8, 3, SP_INT64, INT64_MIN, INT64_MAX),
    [SP_FLOAT16] = FLOATING(SP_FLOAT16, "float16", 2, 1, SP_FLOAT32, 11, 15),
    [SP_BFLOAT16] = FLOATING(SP_BFLOAT16, "bfloat16", 2, 1, SP_FLOAT32, 8, 127),
    [SP_FLOAT32] = FLOATING(SP_FLOAT32, "float32", 4, 2, SP_FLOAT32, 24, 127),
    [SP_FLOAT64] = FLOATING(SP_FLOAT64, "float64", 8, 3, SP_FLOAT64, 53, 1023),
    [SP_COMPLEX64] = COMPLEX("complex64", 8, 3, SP_COMPLEX64, SP_FLOAT32, 24, 127),
    [SP_COMPLEX128] = COMPLEX("complex128", 16, 4, SP_COMPLEX128, SP_FLOAT64, 53, 1023),
};

const char *sp_dtype_name(sp_dtype dtype)
{
    return (unsigned)dtype < SP_DTYPE_COUNT ? sp__dtypes[dtype].name : "unknown dtype";
}

size_t sp_dtype_size(sp_dtype dtype)
{
    return (unsigned)dtype < SP_DTYPE_COUNT ? sp__dtypes[dtype].size : 0;
}

bool sp_dtype_is_floating(sp_dtype dtype)
{
    return (unsigned)dtype < SP_DTYPE_COUNT && sp__dtype_is_floating(dtype);
}

bool sp_dtype_is_complex(sp_dtype dtype)
{
    return (unsigned)dtype < SP_DTYPE_COUNT && sp__dtype_is_complex(dtype);
}

double sp__dtype_largest(int dtype)
{
    const sp_dtype_info *d = &sp__dtypes[dtype];
    return ldexp(2 - ldexp(1, 1 - d->digits), d->exponent);
}

/* ---- promotion ----- */

sp_dtype sp_promote(sp_dtype a, sp_dtype b)
{
    sp_dtype low = a < b ? a : b, high = a < b ? b : a;
    if (low == SP_UINT8 && high == SP_INT8) return SP_INT16;
    if (low == SP_FLOAT16 && high == SP_BFLOAT16) return SP_FLOAT32;
    if (low == SP_FLOAT64 && high == SP_COMPLEX64) return SP_COMPLEX128;
    return high;
}

sp_dtype sp__to_floating(sp_dtype dtype)
{
    return sp__dtype_is_inexact(dtype) ? dtype : SP_FLOAT32;
}

sp_dtype sp__promote_without_dims(sp_dtype with_dims, sp_dtype without)
{
    if (sp__dtype_kind(without) <= sp__dtype_kind(with_dims)) return with_dims;
    bool parts = sp__dtype_is_complex(without) && sp__dtype_is_floating(with_dims);
    return parts ? sp__dtype_complex(with_dims) : without;
}

sp_dtype sp__promote_scalar(sp_dtype tensor, sp_dtype kind)
{
    if (sp__dtype_kind(kind) <= sp__dtype_kind(tensor)) return tensor;
    return kind == SP_FLOAT64 ? sp__to_floating(tensor) : kind;
}

/* ---- single numbers ----- */

static int64_t truncated(sp_scalar s, int dtype)
{
    if (s.kind != SP_FLOAT64) return s.v.i;
    return dtype == SP_INT64 ? sp__double_to_int64(s.v.f) : sp__double_to_int32(s.v.f);
}

void sp__scalar_to(sp_scalar s, int dtype, void *out)
{
    union {
        uint8_t byte;
        uint16_t half;
        uint32_t word;
        int64_t i;
        float f;
        double d;
    } to = {.i = 0};
    double f = s.kind == SP_FLOAT64 ? s.v.f : (double)s.v.i;
    float narrow = s.kind == SP_FLOAT64 ? (float)s.v.f : (float)s.v.i;
    if (sp__dtype_is_complex(dtype)) {
        sp__complex_to((double[2]){f, 0}, dtype, out);
        return;
    }
    switch (dtype) {
    case SP_BOOL: to.byte = s.kind == SP_FLOAT64 ? s.v.f != 0 : s.v.i != 0; break;
    case SP_UINT8:
    case SP_INT8: to.byte = (uint8_t)truncated(s, dtype); break;
    case SP_INT16: to.half = (uint16_t)truncated(s, dtype); break;
    case SP_INT32: to.word = (uint32_t)truncated(s, dtype); break;
    case SP_INT64: to.i = truncated(s, dtype); break;
    case SP_FLOAT16: to.half = sp__float_to_half(narrow); break;
    case SP_BFLOAT16: to.half = sp__float_to_bfloat(narrow); break;
    case SP_FLOAT32: to.f = narrow; break;
    default: to.d = f; break;
    }
    memcpy(out, &to, sp__dtypes[dtype].size);
}

sp_scalar sp__scalar_from(const void *at, int dtype)
{
    union {
        uint8_t u8;
        int8_t i8;
        int16_t i16;
        uint16_t half;
        int32_t i32;
        int64_t i64;
        float f;
        double d;
    } x;
    dtype = sp__dtype_real(dtype);
    memcpy(&x, at, sp__dtypes[dtype].size);
    switch (dtype) {
    case SP_BOOL: return (sp_scalar){.v.i = x.u8 != 0, .kind = SP_BOOL};
    case SP_UINT8: return SP_INT(x.u8);
    case SP_INT8: return SP_INT(x.i8);
    case SP_INT16: return SP_INT(x.i16);
    case SP_INT32: return SP_INT(x.i32);
    case SP_INT64: return SP_INT(x.i64);
    case SP_FLOAT16: return SP_FLOAT((double)sp__half_to_float(x.half));
    case SP_BFLOAT16: return SP_FLOAT((double)sp__bfloat_to_float(x.half));
    case SP_FLOAT32: return SP_FLOAT((double)x.f);
    default: return SP_FLOAT(x.d);
    }
}

void sp__complex_from(const void *at, int dtype, double part[2])
{
    float narrow[2];
    if (dtype == SP_COMPLEX64) {
        memcpy(narrow, at, sizeof narrow);
        part[0] = (double)narrow[0], part[1] = (double)narrow[1];
    } else if (dtype == SP_COMPLEX128) {
        memcpy(part, at, 2 * sizeof *part);
    } else {
        sp_scalar s = sp__scalar_from(at, dtype);
        part[0] = s.kind == SP_FLOAT64 ? s.v.f : (double)s.v.i, part[1] = 0;
    }
}

void sp__complex_to(const double part[2], int dtype, void *out)
{
    float narrow[2] = {(float)part[0], (float)part[1]};
    if (dtype == SP_COMPLEX64)
        memcpy(out, narrow, sizeof narrow);
    else
        memcpy(out, part, 2 * sizeof *part);
}
