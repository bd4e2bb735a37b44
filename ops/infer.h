/* What inference functions share: dense results, operand checks, lists of dimensions.
 *
 * Invariant: an inference function looks at geometry, dtypes and attributes alone, never at values,
 * so that it serves handles of every level and the graph IR alike.
 */
#ifndef SP_INFER_H
#define SP_INFER_H

#include "ops/op.h"

static inline const char *sp__op_name(const sp_call *c)
{
    return sp_op_table[c->op].name;
}

/* A dense result of t's shape. */
SP_MUST_USE sp_status sp__infer_like(const sp_call *c, const sp_tensor *t, sp_dtype dtype,
                                     sp_meta *out);
/* A dense result of a shape that the caller has put into out. */
SP_MUST_USE sp_status sp__infer_dense(const sp_call *c, sp_dtype dtype, int device, sp_meta *out);

/* EDEVICE unless all inputs given live on one device. */
SP_MUST_USE sp_status sp__check_devices(const sp_call *c);
/* EDTYPE unless x is floating, or complex in an op that takes that. `arg` names it. */
SP_MUST_USE sp_status sp__check_floating(const sp_call *c, const sp_tensor *x, const char *arg);
/* EDTYPE where the dtype of a total of in[0] asks for more than a conversion of each number:
 * complex and real, or two complex dtypes. */
SP_MUST_USE sp_status sp__check_total_dtype(const sp_call *c, sp_dtype total);
/* EDTYPE unless x is int64. */
SP_MUST_USE sp_status sp__check_index_dtype(const sp_call *c, const sp_tensor *x, const char *arg);
/* EDTYPE unless x and y have one dtype. */
SP_MUST_USE sp_status sp__check_same_dtype(const sp_call *c, const sp_tensor *x, const char *x_arg,
                                           const sp_tensor *y, const char *y_arg);
/* EINDEX for a tensor without dimensions, which has none to index. */
SP_MUST_USE sp_status sp__check_has_dims(const sp_call *c, const sp_tensor *x);

/* Bit d for every dimension d that an INTS attribute names; absent or empty: all. EVALUE for one
 * named twice. */
SP_MUST_USE sp_status sp__dim_mask(const char *op, const sp_attr *dims, int rank, uint32_t *mask);

/* The n numbers of an INTS attribute that names one a dimension or one for all; absent: `fallback`
 * for all. EVALUE for another number of them, or one below `low`. */
SP_MUST_USE sp_status sp__take_numbers(const sp_call *c, const char *name, const sp_attr *given,
                                       int n, int64_t low, int64_t fallback, int64_t *out);

static inline bool sp__same_shape(const sp_tensor *a, const sp_tensor *b)
{
    if (a->rank != b->rank) return false;
    for (int i = 0; i < a->rank; i++)
        if (a->shape[i] != b->shape[i]) return false;
    return true;
}

#endif
