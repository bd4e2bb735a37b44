/* Values in and out: tensors made from host memory, around host memory, and read back. */
#include <string.h>

#include "tensor/backend.h"
#include "tensor/memory.h"
#include "tensor/tensor.h"

static sp_status host_meta(const char *op, sp_dtype dtype, int rank, const int64_t *shape,
                           sp_meta *m)
{
    if ((unsigned)dtype >= SP_DTYPE_COUNT)
        return sp_fail(SP_EDTYPE, "%s: unknown dtype %d", op, (int)dtype);
    if (rank < 0 || rank > SP_MAX_RANK)
        return sp_fail(SP_ESHAPE, "%s: %d dimensions; expected 0 to %d", op, rank, SP_MAX_RANK);
    m->dtype = (uint8_t)dtype;
    m->device = SP_DEVICE_CPU;
    m->rank = (uint8_t)rank;
    m->view_of = -1;
    m->offset = 0;
    if (rank) memcpy(m->shape, shape, sizeof *shape * (size_t)rank);
    return sp__meta_dense(m, op);
}

sp_status sp_from_data(const void *data, sp_dtype dtype, int rank, const int64_t *shape,
                       sp_tensor **out)
{
    sp_meta m;
    *out = NULL;
    SP_RETURN_IF(host_meta("from_data", dtype, rank, shape, &m));
    SP_RETURN_IF(sp__handle_new(&m, NULL, out));
    if (m.numel == 0) return SP_OK;
    char *to = sp__data(*out);
    memcpy(to, data, (size_t)m.numel * sp_dtype_size(dtype));
    for (int64_t i = 0; dtype == SP_BOOL && i < m.numel; i++)
        to[i] = to[i] != 0; /* kernels count on 0 and 1 */
    return SP_OK;
}

/* Bytes from the first to the last element; EMEMORY when they cannot be counted. */
static sp_status foreign_extent(sp_meta *m, const int64_t *strides, size_t *bytes)
{
    int64_t last = 0, reach;
    for (int i = 0; strides && i < m->rank; i++) {
        if (strides[i] < 0)
            return sp_fail(
                SP_EVALUE,
                "from_foreign: stride %lld of dimension %d is negative; copy the data first",
                (long long)strides[i], i);
        m->stride[i] = strides[i];
    }
    sp__meta_update(m);
    for (int i = 0; m->numel && i < m->rank; i++) {
        if (__builtin_mul_overflow(m->shape[i] - 1, m->stride[i], &reach) ||
            __builtin_add_overflow(last, reach, &last))
            return sp_fail(SP_EMEMORY, "from_foreign: strides reach beyond what 64 bits address");
    }
    int64_t total;
    if (__builtin_mul_overflow(last + 1, (int64_t)sp_dtype_size(m->dtype), &total))
        return sp_fail(SP_EMEMORY, "from_foreign: strides reach beyond what 64 bits address");
    *bytes = m->numel ? (size_t)total : 0;
    return SP_OK;
}

static sp_status wrap_foreign(void *data, sp_meta *m, const int64_t *strides, bool readonly,
                              void (*release)(void *ctx), void *ctx, sp_tensor **out, bool *owned)
{
    size_t bytes = 0;
    sp_storage *storage;
    SP_RETURN_IF(foreign_extent(m, strides, &bytes));
    if ((uintptr_t)data % sp_dtype_size(m->dtype))
        return sp_fail(
            SP_EVALUE,
            "from_foreign: %s data at an address that is no multiple of %zu; copy the data first",
            sp_dtype_name(m->dtype), sp_dtype_size(m->dtype));
    SP_RETURN_IF(sp__storage_foreign(data, bytes, readonly, release, ctx, &storage));
    *owned = true;
    sp_status status = sp__handle_new(m, storage, out);
    sp__storage_drop(storage);
    return status;
}

sp_status sp_from_foreign(void *data, sp_dtype dtype, int rank, const int64_t *shape,
                          const int64_t *strides, bool readonly, void (*release)(void *ctx),
                          void *ctx, sp_tensor **out)
{
    sp_meta m;
    bool owned = false; /* the storage calls release() */
    *out = NULL;
    sp_status status = host_meta("from_foreign", dtype, rank, shape, &m);
    if (!status) status = wrap_foreign(data, &m, strides, readonly, release, ctx, out, &owned);
    if (!owned && release) release(ctx);
    return status;
}

/* ---- reading ----- */

static sp_status ready(const sp_tensor *t, const char *op)
{
    if (sp__handle_hooks.value_ready) SP_RETURN_IF(sp__handle_hooks.value_ready(t, op));
    if (!t->storage)
        return sp_fail(SP_EUNSUPPORTED, "%s: a tensor of a transform has no values of its own", op);
    if (t->numel && !t->storage->data)
        return sp_fail(SP_EINTERNAL, "%s: a deferred tensor was not made available", op);
    return SP_OK;
}

sp_status sp_data(const sp_tensor *t, void **out)
{
    *out = NULL;
    SP_RETURN_IF(ready(t, "data"));
    if (t->device != SP_DEVICE_CPU)
        return sp_fail(SP_EUNSUPPORTED,
                       "data: the tensor is on another device; copy it to the host first");
    t->storage->flags |= SP_S_FOREIGN;
    *out = sp__data(t);
    return SP_OK;
}

/* Rows of the innermost dimension, one after the other; `index` counts like an odometer. */
static void copy_strided(const sp_tensor *t, char *to)
{
    int64_t index[SP_MAX_RANK] = {0};
    size_t size = sp_dtype_size(t->dtype);
    int inner = t->rank - 1;
    int64_t step = t->stride[inner] * (int64_t)size, n = t->shape[inner];
    const char *from = sp__data(t);
    for (int64_t rows = t->numel / n; rows > 0; rows--) {
        if (t->stride[inner] == 1) memcpy(to, from, (size_t)n * size);
        for (int64_t i = 0; t->stride[inner] != 1 && i < n; i++)
            memcpy(to + i * (int64_t)size, from + i * step, size);
        to += n * (int64_t)size;
        for (int d = inner - 1; d >= 0; d--) {
            from += t->stride[d] * (int64_t)size;
            if (++index[d] < t->shape[d]) break;
            from -= t->shape[d] * t->stride[d] * (int64_t)size;
            index[d] = 0;
        }
    }
}

static sp_status copy_to_host(const sp_tensor *t, char *to)
{
    size_t bytes = (size_t)t->numel * sp_dtype_size(t->dtype);
    bool dense = (t->flags & SP_T_CONTIGUOUS) != 0;
    if (t->numel == 0) return SP_OK;
    if (t->device != SP_DEVICE_CPU) {
        if (!dense)
            return sp_fail(SP_EUNSUPPORTED,
                           "copy_out: a strided tensor on a device; make it contiguous first");
        return sp__backends[t->device]->copy_out(to, sp__data(t), bytes);
    }
    if (dense)
        memcpy(to, sp__data(t), bytes);
    else
        copy_strided(t, to);
    return SP_OK;
}

sp_status sp_copy_out(const sp_tensor *t, void *out, size_t bytes)
{
    size_t need = (size_t)t->numel * sp_dtype_size(t->dtype);
    SP_RETURN_IF(ready(t, "copy_out"));
    if (bytes < need)
        return sp_fail(SP_EVALUE,
                       "copy_out: a %s tensor of shape %s needs %zu bytes; the buffer holds %zu",
                       sp_dtype_name(t->dtype), SP_SHAPE(t), need, bytes);
    return copy_to_host(t, out);
}

sp_status sp_item(const sp_tensor *t, sp_scalar *out)
{
    sp_element value;
    *out = SP_INT(0);
    if (t->numel != 1)
        return sp_fail(SP_ESHAPE,
                       "item: a tensor of shape %s has %lld elements; only a tensor of one element "
                       "is a number",
                       SP_SHAPE(t), (long long)t->numel);
    if (sp__dtype_is_complex(t->dtype))
        return sp_fail(SP_EDTYPE, "item: a %s tensor is no real number; take its parts or abs()",
                       sp_dtype_name((sp_dtype)t->dtype));
    SP_RETURN_IF(ready(t, "item"));
    SP_RETURN_IF(copy_to_host(t, value.bytes));
    *out = sp__scalar_from(value.bytes, t->dtype);
    return SP_OK;
}
