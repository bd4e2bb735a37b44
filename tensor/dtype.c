/* The dtypes: names, sizes, and what two of them compute in.
 *
 * Promotion is PyTorch's: the higher kind wins (bool < integer < float), within a kind the wider
 * type. With these four dtypes, that is the larger enumerator.
 */
#include "tensor/tensor.h"

const char *sp_dtype_name(sp_dtype dtype)
{
    static const char *const names[SP_DTYPE_COUNT] = {"bool", "int64", "float32", "float64"};
    return (unsigned)dtype < SP_DTYPE_COUNT ? names[dtype] : "unknown dtype";
}

size_t sp_dtype_size(sp_dtype dtype)
{
    static const uint8_t size[SP_DTYPE_COUNT] = {1, 8, 4, 8};
    return (unsigned)dtype < SP_DTYPE_COUNT ? size[dtype] : 0;
}

sp_dtype sp_promote(sp_dtype a, sp_dtype b)
{
    return a > b ? a : b;
}

sp_dtype sp__promote_scalar(sp_dtype tensor, sp_dtype kind)
{
    if (tensor >= SP_FLOAT32 || kind <= tensor) return tensor;
    return kind == SP_FLOAT64 ? SP_FLOAT32 : kind;
}
