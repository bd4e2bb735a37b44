/* What a device must provide, and how a kernel is called. The only door between ops/ and backends/.
 */
#ifndef SP_BACKEND_H
#define SP_BACKEND_H

#include "tensor/tensor.h"

enum { SP_DEVICE_CPU = 0, SP_MAX_DEVICES = 4, SP_KARGS_INLINE = 8 };

struct sp_attr;

typedef struct sp_operand {
    char *data; /* address of the first element; NULL for an optional input not given */
    uint8_t dtype, rank;
    bool contiguous;
    int64_t numel;
    int64_t shape[SP_MAX_RANK];
    int64_t stride[SP_MAX_RANK]; /* in elements */
} sp_operand;

/* A kernel's arguments: outputs first, then inputs, preallocated and strided. For pointwise ops
 * all operands carry the same rank and shape: broadcast (stride 0) and with mergeable dimensions
 * coalesced, the iteration space is arg[0]'s. For all others they carry their own geometry. INTS
 * attributes point to memory that lives as long as the arguments. */
typedef struct sp_kargs {
    uint16_t op;
    uint8_t n_attr;
    uint8_t compute; /* pointwise: the dtype computed in (comparisons: the promoted one) */
    bool dense;      /* pointwise: every operand is contiguous over the iteration space, or has
                      * stride 0 throughout */
    int32_t n_out, n_arg;
    int32_t n_tuples; /* 1; an op that updates may get many: all outputs of the first, of the
                         second, ..., then all inputs of the first, ... */
    sp_operand *arg;  /* n_arg operands; `room` unless there are more */
    struct sp_attr *attr;
    sp_operand room[SP_KARGS_INLINE];
} sp_kargs;

typedef sp_status (*sp_kernel)(const sp_kargs *args);

typedef struct sp_backend {
    const char *name; /* "cpu" */
    void *(*alloc)(size_t bytes);
    void (*release)(void *data, size_t bytes);
    /* Looks a kernel up: NULL means that the op has none here. */
    sp_kernel (*kernel)(int op);
    /* Predicted microseconds of one thread; cheap. */
    double (*predict_us)(const sp_kargs *args);
    /* NULL, or called once before anything is queued: what it sets up outlives the queue. */
    void (*start)(void);
    /* NULL, or called over and over by a thread that waits for the device: takes a share of what a
     * kernel is at, if it can use one more thread. Whether it did. */
    bool (*help)(void);
    sp_status (*copy_in)(void *dst, const void *host, size_t bytes);
    sp_status (*copy_out)(void *host, const void *src, size_t bytes);
} sp_backend;

/* Registered at library start (backends/<dev>/register); NULL for a device that is not there. */
extern const sp_backend *sp__backends[SP_MAX_DEVICES];

#endif
