/* Storages: bytes on a device, shared by handles, views and queued work.
 *
 *     small (<= INLINE_BYTES)   [ sp_storage | pad to 64 | bytes ]      one block
 *     large, deferred           [ sp_storage ] -> [ bytes ]             two; the bytes of a
 * deferred one come later foreign                   [ sp_storage ] -> other code's bytes
 * release(ctx) at the end
 *
 * Invariant: bytes that Spool allocates start at a multiple of 64.
 */
#include "tensor/backend.h"
#include "tensor/memory.h"

enum { INLINE_BYTES = 2048, HEADER_BYTES = (sizeof(sp_storage) + 63) / 64 * 64 };

const sp_backend *sp__backends[SP_MAX_DEVICES];

static inline void init(sp_storage *s, size_t bytes, int device, int flags, size_t block_bytes)
{
    atomic_init(&s->refs, 1);
    s->data = NULL;
    s->nbytes = bytes;
    s->version = 0;
    s->device = (uint8_t)device;
    s->flags = (uint8_t)flags;
    s->block_bytes = (uint32_t)block_bytes;
    atomic_init(&s->write_ticket, 0);
    atomic_init(&s->read_ticket, 0);
    s->region = NULL;
    s->region_slot = 0;
    s->release = NULL;
    s->release_ctx = NULL;
}

static sp_status out_of_memory(size_t bytes)
{
    return sp_fail(SP_EMEMORY, "out of memory: a tensor of %zu bytes", bytes);
}

static void *take_bytes(size_t bytes, int device)
{
    const sp_backend *backend = sp__backends[device];
    return device == SP_DEVICE_CPU || !backend ? sp__alloc(bytes) : backend->alloc(bytes);
}

static void give_bytes(void *data, size_t bytes, int device)
{
    const sp_backend *backend = sp__backends[device];
    if (device == SP_DEVICE_CPU || !backend)
        sp__free(data, bytes);
    else if (data)
        backend->release(data, bytes);
}

sp_status sp__storage_new_deferred(size_t bytes, int device, sp_storage **out)
{
    sp_storage *s = *out = sp__alloc(sizeof *s);
    if (SP_UNLIKELY(!s)) return out_of_memory(bytes);
    init(s, bytes, device, 0, sizeof *s);
    return SP_OK;
}

sp_status sp__storage_materialize(sp_storage *s)
{
    if (s->data) return SP_OK;
    s->data = take_bytes(s->nbytes, s->device);
    return s->data ? SP_OK : out_of_memory(s->nbytes);
}

sp_status sp__storage_new(size_t bytes, int device, sp_storage **out)
{
    if (SP_LIKELY(bytes <= INLINE_BYTES && device == SP_DEVICE_CPU)) {
        sp_storage *s = *out = sp__alloc(HEADER_BYTES + bytes);
        if (SP_UNLIKELY(!s)) return out_of_memory(bytes);
        init(s, bytes, device, SP_S_INLINE, HEADER_BYTES + bytes);
        s->data = (char *)s + HEADER_BYTES;
        return SP_OK;
    }
    SP_RETURN_IF(sp__storage_new_deferred(bytes, device, out));
    sp_status status = sp__storage_materialize(*out);
    if (status) {
        sp__storage_drop(*out);
        *out = NULL;
    }
    return status;
}

static void release_nothing(void *ctx)
{
    (void)ctx;
}

sp_status sp__storage_foreign(void *data, size_t bytes, bool readonly, void (*release)(void *ctx),
                              void *ctx, sp_storage **out)
{
    SP_RETURN_IF(sp__storage_new_deferred(bytes, SP_DEVICE_CPU, out));
    sp_storage *s = *out;
    s->data =
        data ? data : (char *)s; /* no bytes: any address but NULL, which would mean deferred */
    s->flags = SP_S_FOREIGN | (readonly ? SP_S_READONLY : 0);
    s->release = release ? release : release_nothing;
    s->release_ctx = ctx;
    return SP_OK;
}

/* Whose the bytes are is told by `release`, not by SP_S_FOREIGN: sp_data() makes storages
 * foreign whose bytes are ours. */
static void destroy(sp_storage *s)
{
    if (SP_LIKELY(s->flags == SP_S_INLINE && !s->region && !s->release)) {
        sp__free(s, s->block_bytes);
        return;
    }
    if (s->flags & SP_S_NOTED) sp__handle_hooks.write_drop(s->write);
    if (SP_UNLIKELY(s->region != NULL) && sp__handle_hooks.region_forget)
        sp__handle_hooks.region_forget(s->region, s);
    if (SP_UNLIKELY(s->release != NULL))
        s->release(s->release_ctx);
    else if (!(s->flags & SP_S_INLINE) && s->data)
        give_bytes(s->data, s->nbytes, s->device);
    sp__free(s, s->block_bytes);
}

void sp__storage_vacate(sp_storage *s)
{
    bool ours = !s->release && !(s->flags & SP_S_INLINE) && s->data;
    if (!ours || atomic_load_explicit(&s->refs, memory_order_acquire) != 1) return;
    give_bytes(s->data, s->nbytes, s->device);
    s->data = NULL;
}

void sp__storage_drop(sp_storage *s)
{
    if (!s) return;
    /* The only reference is ours: nobody can add one meanwhile, and a plain load is cheaper than
     * a locked subtraction. */
    if (atomic_load_explicit(&s->refs, memory_order_acquire) == 1 ||
        atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) == 1)
        destroy(s);
}
