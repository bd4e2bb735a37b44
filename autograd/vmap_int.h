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
#include "ops_gen.h"

typedef struct sp_batch {
    sp_level *level;
    const sp_call *c;         /* as called: shapes of one example */
    int64_t size;             /* examples */
    sp_randomness randomness; /* of an op that draws numbers */
    uint32_t mapped; /* inputs that the rule carries the mapped dimension through, as bits */
    sp_meta
        out[SP_MAX_OUT]; /* results for one example; rank and shape only where known (have_out) */
    bool have_out, done;
    sp_call low;                      /* low.in[]: owned, one down; at first the inner handles */
    int64_t ints[2][SP_MAX_RANK + 1]; /* room for attributes of low */
} sp_batch;

typedef sp_status (*sp_batch_rule)(sp_batch *b);

#define DECLARE(name) SP_MUST_USE sp_status sp__batch_##name(sp_batch *b);
SP_BATCH_RULES(DECLARE)
#undef DECLARE

/* ---- what rules share (vmap_rules.c) ----- */

static inline bool sp__batched(const sp_batch *b, int i)
{
    return sp__of_level(b->c->in[i], b->level);
}

/* Whether the rule carries the mapped dimension through input i. */
static inline bool sp__batch_carries(const sp_batch *b, int i)
{
    return i >= 32 || b->mapped >> i & 1;
}

static inline const char *sp__batch_op(const sp_batch *b)
{
    return sp_op_table[b->c->op].name;
}

/* Replaces low.in[i], taking t over. */
static inline void sp__batch_set(sp_batch *b, int i, sp_tensor *t)
{
    sp_drop(&b->low.in[i]);
    b->low.in[i] = t;
}

static inline void sp__batch_set_int(sp_batch *b, int attr, int64_t value)
{
    b->low.attr[attr].v.i = value;
}

/* values: b's, or the caller's until the low call is made. */
static inline void sp__batch_set_ints(sp_batch *b, int attr, const int64_t *values, int n)
{
    b->low.attr[attr] = (sp_attr){.v.ints = values, .n = n, .kind = SP_ATTR_INTS};
}

/* Gives a batched input i the rank `rank` for one example, by sizes of 1 behind the mapped
 * dimension. */
SP_MUST_USE sp_status sp__batch_align_to(sp_batch *b, int i, int rank);
/* Makes input i batched, if it is there and is not, by expanding it. */
SP_MUST_USE sp_status sp__batch_everywhere(sp_batch *b, int i);
/* Attribute `attr` of low becomes the batch size followed by shape. */
void sp__batch_shape_attr(sp_batch *b, int attr, const int64_t *shape, int rank);
/* One dimension of an example's tensor of `rank` dimensions, as one of the batch's. */
SP_MUST_USE sp_status sp__batch_shift_dim(const sp_batch *b, int64_t dim, int rank, int64_t *out);

/* ---- folding: the mapped dimension as part of another ----- */

/* t (B, ..., d, ...) with d, dimension `dim` of an example, as (groups, d / groups): the mapped
 * dimension goes between the two, and the three become one. */
SP_MUST_USE sp_status sp__batch_fold(const sp_batch *b, const sp_tensor *t, int dim, int64_t groups,
                                     sp_tensor **out);
/* And back. */
SP_MUST_USE sp_status sp__batch_unfold(const sp_batch *b, const sp_tensor *t, int dim,
                                       int64_t groups, sp_tensor **out);

/* Input i, made batched where it is not, folded; if it is there. */
SP_MUST_USE sp_status sp__batch_fold_input(sp_batch *b, int i, int dim, int64_t groups);

/* ---- random numbers (vmap_random.c) ----- */

/* What a call of a random op is to do; ERROR is one. */
SP_MUST_USE sp_status sp__vmap_randomness(const sp_level *level, const sp_call *c,
                                          sp_randomness *out);

/* ---- without a rule (vmap_slices.c) ----- */

/* The call for each example by itself: loud, and counted. Leaves its results in low.out. */
SP_MUST_USE sp_status sp__batch_slices(sp_batch *b);

#endif
