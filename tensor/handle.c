/* Handles: made, aliased, dropped; and the public accessors.
 *
 *     block:  [ prefix (the binding's) | sp_tensor ]
 *                                        ^ the handle, and in Python the object
 *
 * The blocks come from the thread's size-class list (memory.c), which is the free list: all handles
 * of the standard kind have one size. Only what a reader may look at is initialised; shape and
 * stride beyond the rank hold rubbish.
 */
#include <string.h>

#include "tensor/memory.h"
#include "tensor/tensor.h"

sp_handle_hooks sp__handle_hooks;

static inline sp_tensor *handle_block(void)
{
    size_t prefix = sp__handle_hooks.prefix, bytes = prefix + sizeof(sp_tensor);
    char *block = sp__alloc(bytes);
    if (SP_UNLIKELY(!block)) {
        sp_fail(SP_EMEMORY, "out of memory: a tensor handle of %zu bytes", bytes);
        return NULL;
    }
    if (prefix) memset(block, 0, prefix);
    sp_tensor *t = (sp_tensor *)(block + prefix);
    t->refs = 1;
    t->type = sp__handle_hooks.type;
    t->block_bytes = (uint32_t)bytes;
    t->storage = NULL;
    t->grad_meta = NULL;
    t->wrap = NULL;
    t->trace_epoch = 0;
    t->trace_value = 0;
    t->binding[0] = t->binding[1] = NULL;
    return t;
}

static inline void free_block(sp_tensor *t)
{
    size_t bytes = t->block_bytes;
    if (bytes) sp__free((char *)t - (bytes - sizeof(sp_tensor)), bytes);
}

static inline void copy_sizes(int64_t *to, const int64_t *from, int n)
{
    for (int i = 0; i < n; i++) to[i] = from[i];
}

static inline void set_geometry(sp_tensor *t, const sp_meta *m)
{
    t->dtype = m->dtype;
    t->device = m->device;
    t->rank = m->rank;
    t->flags = SP_T_POOLED | (m->contiguous ? SP_T_CONTIGUOUS : 0);
    t->numel = m->numel;
    copy_sizes(t->shape, m->shape, m->rank);
}

static inline void set_dense(sp_tensor *t)
{
    int64_t step = 1;
    t->offset = 0;
    t->flags |= SP_T_CONTIGUOUS;
    for (int i = t->rank - 1; i >= 0; i--) {
        t->stride[i] = step;
        step *= t->shape[i] > 1 ? t->shape[i] : 1;
    }
}

static sp_status with_own_storage(sp_tensor *t, sp_tensor **out)
{
    sp_status status =
        sp__storage_new((size_t)t->numel << sp__dtype_shift(t->dtype), t->device, &t->storage);
    if (SP_UNLIKELY(status != SP_OK)) {
        free_block(t);
        t = NULL;
    }
    *out = t;
    return status;
}

sp_status sp__handle_new(const sp_meta *meta, sp_storage *storage, sp_tensor **out)
{
    sp_tensor *t = *out = handle_block();
    if (SP_UNLIKELY(!t)) return SP_EMEMORY;
    set_geometry(t, meta);
    if (!storage) {
        set_dense(t);
        return with_own_storage(t, out);
    }
    t->offset = meta->offset;
    copy_sizes(t->stride, meta->stride, meta->rank);
    t->storage = sp__storage_retain(storage);
    if (SP_UNLIKELY(!storage->data)) t->flags |= SP_T_DEFERRED;
    return SP_OK;
}

sp_status sp__handle_like(const sp_tensor *like, int dtype, sp_tensor **out)
{
    sp_tensor *t = *out = handle_block();
    if (SP_UNLIKELY(!t)) return SP_EMEMORY;
    t->dtype = (uint8_t)dtype;
    t->device = like->device;
    t->rank = like->rank;
    t->flags = SP_T_POOLED | SP_T_CONTIGUOUS;
    t->numel = like->numel;
    t->offset = 0;
    int64_t step = 1;
    for (int i = like->rank - 1; i >= 0; i--) {
        int64_t size = like->shape[i];
        t->shape[i] = size;
        t->stride[i] = step;
        step *= size > 1 ? size : 1;
    }
    return with_own_storage(t, out);
}

sp_status sp__handle_alias(const sp_tensor *t, sp_tensor **out)
{
    SP_ASSERT(t->storage);
    sp_meta meta;
    sp__meta_of(t, &meta);
    return sp__handle_new(&meta, t->storage, out);
}

sp_status sp__handle_wrap(const sp_meta *meta, struct sp_wrap *wrap, sp_tensor **out)
{
    sp_tensor *t = *out = handle_block();
    if (SP_UNLIKELY(!t)) return SP_EMEMORY;
    set_geometry(t, meta);
    t->offset = meta->offset; /* as_strided and its derivatives go by it */
    copy_sizes(t->stride, meta->stride, meta->rank);
    t->flags |= SP_T_WRAPPED;
    t->wrap = wrap;
    return SP_OK;
}

void sp__handle_clear(sp_tensor *t)
{
    if (t->grad_meta && sp__handle_hooks.meta_free) sp__handle_hooks.meta_free(t->grad_meta);
    if (t->wrap && sp__handle_hooks.wrap_free) sp__handle_hooks.wrap_free(t->wrap);
    t->grad_meta = NULL;
    t->wrap = NULL;
    sp__storage_drop(t->storage);
    t->storage = NULL;
}

void sp__handle_free(sp_tensor *t)
{
    sp__handle_clear(t);
    free_block(t);
}

void sp__handle_set_storage(sp_tensor *t, sp_storage *storage)
{
    sp_storage *old = t->storage;
    t->storage = sp__storage_retain(storage);
    t->trace_epoch = 0;
    if (storage->data)
        t->flags &= (uint8_t)~SP_T_DEFERRED;
    else
        t->flags |= SP_T_DEFERRED;
    sp__storage_drop(old);
}

/* ---- public ----- */

sp_tensor *sp_retain(const sp_tensor *t)
{
    return sp__retain(t);
}

void sp_drop(sp_tensor **at)
{
    sp_tensor *t = *at;
    *at = NULL;
    if (!t || --t->refs != 0) return;
    if (sp__handle_hooks.dealloc)
        sp__handle_hooks.dealloc(t);
    else
        sp__handle_free(t);
}

int sp_rank(const sp_tensor *t)
{
    return t->rank;
}

const int64_t *sp_shape(const sp_tensor *t)
{
    return t->shape;
}

const int64_t *sp_strides(const sp_tensor *t)
{
    return t->stride;
}

int64_t sp_numel(const sp_tensor *t)
{
    return t->numel;
}

sp_dtype sp_dtype_of(const sp_tensor *t)
{
    return (sp_dtype)t->dtype;
}

bool sp_is_contiguous(const sp_tensor *t)
{
    return (t->flags & SP_T_CONTIGUOUS) != 0;
}

uint32_t sp_version(const sp_tensor *t)
{
    return t->storage ? t->storage->version : 0;
}
