/* What the engine and the accumulation at leaves share.
 */
#ifndef SP_ENGINE_INT_H
#define SP_ENGINE_INT_H

#include "autograd/tape_int.h"

typedef struct sp_slot { /* the gradient of one output of a node, so far */
    sp_tensor *g;        /* owned; NULL: zero */
    bool shared;         /* a hook saw it, and may have kept its bytes under another handle */
} sp_slot;

/* Nobody but the owner of this reference can see t's bytes: a fresh result, no view, no base of
 * views, not part of any history. Asks handles alone, never storages, whose counts depend on the
 * queue: what is decided here is traced. */
static inline bool sp__sole_owner(const sp_tensor *t)
{
    return t->refs == 1 &&
           (t->flags & (SP_T_META | SP_T_WRAPPED | SP_T_CONTIGUOUS)) == SP_T_CONTIGUOUS;
}

/* leaf.grad += slot; may take the gradient over. create: the gradient may have history, which must
 * be kept. */
SP_MUST_USE sp_status sp__accumulate(sp_leaf *leaf, sp_slot *slot, bool create);

/* One of the parts that a tensor was cut into, and where it begins. */
typedef struct sp_part {
    sp_tensor *g;
    int64_t start;
} sp_part;

/* Whether the node is a part of its input, along *dim from *start on. */
bool sp__part_of(const sp_node *node, const sp_meta *whole, int *dim, int64_t *start);
/* The gradient of a part, in as many dimensions as the whole. */
SP_MUST_USE sp_status sp__part_shaped(const sp_node *node, int dim, sp_tensor **g);
/* The gradient of the whole, of as many of n > 0 parts as do not overlap, zero where there is none.
 * Sorts parts so that these, `joined` of them, stand first. */
SP_MUST_USE sp_status sp__parts_join(const sp_meta *whole, int dim, sp_part *parts, int n,
                                     int *joined, sp_tensor **out);

#endif
