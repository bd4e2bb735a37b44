/* Handles, storages and what they share: the objects every layer passes around.
 *
 *      sp_tensor (handle: geometry, level, history)          sp_storage (bytes, tickets, version)
 *      +-----------------------------------+                 +------------------------------+
 *      | refs, type   <- PyObject's header |        +------> | refs (atomic)                |
 *      | dtype device rank flags           |        |        | data ------> bytes           |
 *      | storage --------------------------|--------+        | write_ticket, read_ticket    |
 *      | offset, numel                     |        |        | version, flags, region       |
 *      | grad_meta, wrap, trace            |   other views   +------------------------------+
 *      | shape[], stride[]                 |
 *      +-----------------------------------+
 *
 * Invariants
 * 1. A handle is guarded by the interpreter lock of its binding, or by its owner thread in C. A
 *    storage's reference count and tickets are atomic; its version and flags are guarded like
 *    handles. Worker threads never touch handles.
 * 2. `refs` and `type` lie where CPython's object header has them, so that a handle is its own
 *    Python object: one reference count, one allocation, one identity for life.
 * 3. Exactly one of `storage` and `wrap` is set. A wrapped handle belongs to a level
 *    (ops/dispatch.h) and has no bytes.
 * 4. flags & SP_T_CONTIGUOUS if and only if the elements are dense in row-major order (a size of 1
 *    may have any stride; a tensor without elements is contiguous).
 * 5. Geometry stays inside the storage: for every index, 0 <= offset + sum(index * stride) < nbytes
 *    / element size. Strides are never negative.
 */
#ifndef SP_TENSOR_H
#define SP_TENSOR_H

#include <stdatomic.h>

#include "spool.h"
#include "tensor/dtype.h"
#include "tensor/status.h"

typedef struct sp_storage sp_storage;

/* sp_tensor.flags */
enum {
    SP_T_CONTIGUOUS = 1,
    SP_T_REQUIRES_GRAD = 2, /* a leaf that asked for it, or a result with history */
    SP_T_WRAPPED = 4,       /* of a level: `wrap` is set */
    SP_T_META = 8,          /* grad_meta is set (hooks, history, grad, view) */
    SP_T_DEFERRED = 16, /* made by a region that has not run: storage->region is set meanwhile */
    SP_T_POOLED = 32    /* the block is of the standard size and goes to the free list */
};

struct sp_tensor {
    int64_t refs; /* = ob_refcnt */
    void *type;   /* = ob_type; NULL in a process without a binding */
    uint8_t dtype, device, rank, flags;
    uint32_t block_bytes; /* of the allocation behind this handle, prefix included */
    sp_storage *storage;
    int64_t offset; /* first element, in elements */
    int64_t numel;
    struct sp_grad_meta *grad_meta; /* autograd/tape.h */
    struct sp_wrap *wrap;           /* ops/dispatch.h */
    uint64_t trace_epoch;           /* jit/: the region this handle was last seen in ... */
    int64_t trace_value;            /* ... and what it is there */
    void *binding[2];               /* the binding's own: __dict__ and weak references in Python */
    int64_t shape[SP_MAX_RANK];     /* only the first rank entries of both hold anything */
    int64_t stride[SP_MAX_RANK];    /* in elements */
};

/* sp_storage.flags */
enum {
    SP_S_FOREIGN = 1, /* other code can write the bytes: ops on it finish before they return,
                       * regions flush at it */
    SP_S_READONLY = 2,
    SP_S_INLINE = 4, /* the bytes lie in the storage's own block */
    SP_S_SAVED = 8,  /* a node saved this version: where the next write comes from is noted */
    SP_S_NOTED = 16  /* `write` is such a note */
};

struct sp_write; /* ops/write.h */

struct sp_storage {
    _Atomic int64_t refs;
    char *data; /* on `device`; NULL while deferred */
    size_t nbytes;
    uint32_t version; /* in-place writes so far */
    uint8_t device, flags;
    uint32_t block_bytes;          /* of the struct's own allocation, inline bytes included */
    uint32_t noted;                /* SP_S_NOTED: the version that the noted write made */
    _Atomic uint64_t write_ticket; /* the last queued write */
    _Atomic uint64_t read_ticket;  /* the last queued read */
    struct sp_region *region; /* jit/: the region that will produce the bytes, or has buffered reads
                               * or writes of them (data is there then); NULL otherwise */
    int64_t region_slot;      /* jit/: which of its storages */
    void (*release)(void *ctx); /* foreign bytes: called once at the end */
    void *release_ctx;
    struct sp_write *write; /* owned; holds something only if SP_S_NOTED */
};

/* Geometry without bytes: what inference yields for a result. */
typedef struct sp_meta {
    uint8_t dtype, device, rank;
    bool contiguous;
    int8_t view_of;        /* index of the input whose storage the result shares; -1: its own */
    int64_t offset, numel; /* offset counts for views */
    int64_t shape[SP_MAX_RANK];
    int64_t stride[SP_MAX_RANK];
} sp_meta;

/* ---- handles ----- */

/* A handle over a fresh storage of meta's size (row-major strides; uninitialised), or, for
 * storage != NULL, over that storage, which gains a reference. */
SP_MUST_USE sp_status sp__handle_new(const sp_meta *meta, sp_storage *storage, sp_tensor **out);
/* A second handle of the same geometry on the same storage: no history, no hooks, no level. */
SP_MUST_USE sp_status sp__handle_alias(const sp_tensor *t, sp_tensor **out);
/* A handle of t's shape and device over a fresh, uninitialised, row-major storage:
 * sp__handle_new() for results of elementwise ops without the detour over sp_meta. */
SP_MUST_USE sp_status sp__handle_like(const sp_tensor *t, int dtype, sp_tensor **out);
/* A handle of a level: geometry in meta, `wrap` owned from then on. */
SP_MUST_USE sp_status sp__handle_wrap(const sp_meta *meta, struct sp_wrap *wrap, sp_tensor **out);
/* Frees a handle whose count has reached zero: drops meta, wrap and storage. The binding calls
 * it from its dealloc. */
void sp__handle_free(sp_tensor *t);
/* The first half of that: drops what t holds and leaves the block, for handles whose block is
 * the binding's own. */
void sp__handle_clear(sp_tensor *t);
/* Re-points t at another storage (set_data, writing a region's result back); forgets what
 * regions know of t (trace_epoch = 0). */
void sp__handle_set_storage(sp_tensor *t, sp_storage *storage);

static inline void sp__meta_of(const sp_tensor *t, sp_meta *out)
{
    out->dtype = t->dtype, out->device = t->device, out->rank = t->rank;
    out->contiguous = (t->flags & SP_T_CONTIGUOUS) != 0;
    out->view_of = -1, out->offset = t->offset, out->numel = t->numel;
    for (int i = 0; i < t->rank; i++) out->shape[i] = t->shape[i], out->stride[i] = t->stride[i];
}

static inline sp_tensor *sp__retain(const sp_tensor *t)
{
    ((sp_tensor *)t)->refs++;
    return (sp_tensor *)t;
}

/* How other layers and the binding take part in a handle's life. Registered once, before any
 * tensor exists. */
typedef struct sp_handle_hooks {
    size_t prefix; /* bytes before the handle (CPython's GC head), zeroed */
    void *type;    /* goes into new handles' `type` */
    /* Count reached zero; ends in sp__handle_free(). NULL: just that. */
    void (*dealloc)(sp_tensor *t);
    void (*meta_free)(struct sp_grad_meta *meta); /* autograd/ */
    void (*wrap_free)(struct sp_wrap *wrap);      /* ops/dispatch.c */
    void (*write_drop)(struct sp_write *write);   /* ops/write.c */
    /* jit/: runs what the region has buffered, so that the bytes are there and may be read and
     * written; on failure the storage stays deferred and the next flush tries again. Whoever
     * touches bytes outside a region calls it for every storage whose `region` is set:
     * sp__value_ready, and sp__launch for its operands. */
    sp_status (*region_flush)(struct sp_region *region, sp_storage *storage);
    /* jit/: a deferred storage dies unread. */
    void (*region_forget)(struct sp_region *region, sp_storage *storage);
    /* ops/: t's bytes are there and nobody writes them. */
    sp_status (*value_ready)(const sp_tensor *t, const char *op);
} sp_handle_hooks; /* a layer sets its own fields and leaves the others alone */
SP_API extern sp_handle_hooks sp__handle_hooks;

/* sp_to_text() with something more between the brackets ("requires_grad=True", "grad_fn=<Mul>");
 * NULL: nothing more. */
SP_MUST_USE sp_status sp__to_text(const sp_tensor *t, const char *suffix, char **out);

/* ---- storages ----- */

/* `bytes` uninitialised bytes on `device`. */
SP_MUST_USE sp_status sp__storage_new(size_t bytes, int device, sp_storage **out);
/* No bytes yet: a region (set by the caller) will provide them. */
SP_MUST_USE sp_status sp__storage_new_deferred(size_t bytes, int device, sp_storage **out);
/* Gives a deferred storage its bytes. */
SP_MUST_USE sp_status sp__storage_materialize(sp_storage *s);
/* Bytes that other code owns. release(ctx) is called when the last reference goes; not when this
 * call fails. */
SP_MUST_USE sp_status sp__storage_foreign(void *data, size_t bytes, bool readonly,
                                          void (*release)(void *ctx), void *ctx, sp_storage **out);
static inline sp_storage *sp__storage_retain(sp_storage *s)
{
    atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    return s;
}
void sp__storage_drop(sp_storage *s);
/* Gives the bytes back if the caller's reference is the only one, which stays: the storage's
 * address then still stands for it, and it is deferred again. */
void sp__storage_vacate(sp_storage *s);

static inline char *sp__data(const sp_tensor *t)
{
    return t->storage->data + (t->offset << sp__dtype_shift(t->dtype));
}

/* ---- geometry (view.c) ----- */

/* Fills numel, row-major strides and contiguous from rank and shape. EMEMORY when the byte count
 * overflows; ESHAPE for a negative size. `op` starts the message. */
SP_MUST_USE sp_status sp__meta_dense(sp_meta *m, const char *op);
/* The place of each element, in row-major order, counted from the element `from` of the buffer. */
void sp__meta_places(const sp_meta *m, int64_t from, int64_t *places);
/* Recomputes numel and contiguous from shape and stride. */
void sp__meta_update(sp_meta *m);
/* The strides that make `shape` a view of t's elements in row-major order; false: only a copy
 * would do. */
bool sp__view_strides(const sp_tensor *t, int rank, const int64_t *shape, int64_t *stride);
/* Whether two different indices can name the same element (expand): such a tensor must not be
 * written. */
bool sp__overlaps_itself(const sp_tensor *t);
/* Whether a and b may share bytes; exact for equal geometry, conservative otherwise. */
bool sp__may_overlap(const sp_tensor *a, const sp_tensor *b);
/* "(3, 4)" into buf, which holds n bytes (cut with "..." if need be); returns buf. SP_SHAPE_TEXT
 * is room enough. */
#define SP_SHAPE_TEXT 288
const char *sp__shape_text(int rank, const int64_t *shape, char *buf, size_t n);
#define SP_SHAPE(t) sp__shape_text((t)->rank, (t)->shape, (char[SP_SHAPE_TEXT]){0}, SP_SHAPE_TEXT)
/* Negative dims count from the end. EINDEX when out of range; a rank of 0 takes 0 and -1. */
SP_MUST_USE sp_status sp__dim_normalize(const char *op, int64_t dim, int rank, int *out);
/* Broadcast of n shapes (NULL entries are skipped) into out's rank and shape, with numel,
 * row-major strides, contiguous, offset 0 and view_of -1; dtype and device are the caller's.
 * ESHAPE names the op and all shapes. */
SP_MUST_USE sp_status sp__broadcast(const char *op, sp_tensor *const *in, int n, sp_meta *out);

/* Checks the invariants above; aborts in debug builds. */
void sp__tensor_check(const sp_tensor *t);

#endif
