/* One call inside vmap on its way to a call on whole batches.
 *
 * Invariants
 * 1. Inside, a batched tensor is a wrapper whose inner handle has the mapped dimension at 0;
 * everything else is the same for all examples.
 * 2. A rule turns `low` into a call whose results have the mapped dimension at 0 and otherwise the
 * elements of out[] in order: vmap.c puts a differing shape right. It may run calls itself and
 * leave the result in low.out (done).
 * 3. Rules run with the level off the stack.
 */
#ifndef SP_VMAP_INT_H
#define SP_VMAP_INT_H

#include "autograd/levels_int.h"

typedef struct sp_batch {
    sp_level *level;
    const sp_call *c; /* as called: shapes of one example */
    int64_t size;     /* examples */
    sp_meta
        out[SP_MAX_OUT]; /* results for one example; rank and shape only where known (have_out) */
    bool have_out, done;
    sp_call low;                      /* low.in[]: owned, one down; at first the inner handles */
    int64_t ints[2][SP_MAX_RANK + 1]; /* room for attributes of low */
} sp_batch;

static inline bool sp__batched(const sp_batch *b, int i)
{
    return sp__of_level(b->c->in[i], b->level);
}

/* Replaces low.in[i], taking t over. */
static inline void sp__batch_set(sp_batch *b, int i, sp_tensor *t)
{
    sp_drop(&b->low.in[i]);
    b->low.in[i] = t;
}

/* Gives a batched input i the rank `rank` for one example, by sizes of 1 behind the mapped
 * dimension. */
SP_MUST_USE sp_status sp__batch_align(sp_batch *b, int i, int rank);
/* Makes input i batched, if it is there and is not, by expanding it. */
SP_MUST_USE sp_status sp__batch_everywhere(sp_batch *b, int i);
/* Attribute `attr` of low becomes the batch size followed by shape. */
void sp__batch_shape_attr(sp_batch *b, int attr, const int64_t *shape, int rank);

/* The rule for b->c's op among those that need one of their own; NULL: there is none. */
typedef sp_status (*sp_batch_rule)(sp_batch *b);
sp_batch_rule sp__batch_rule_of(int op);

#endif
