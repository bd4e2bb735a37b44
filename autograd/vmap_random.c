/* Random numbers inside vmap.
 *
 * Which numbers a call stands for is its seed and offset. A call that brings them along from before
 * the level was pushed draws nothing: it is part of a derivative, of what was drawn outside for all
 * examples. Otherwise the level's randomness decides.
 */
#include "autograd/vmap_int.h"

#include "ops/random.h"

void sp__vmap_random_start(sp_vmap_level *v)
{
    sp_random_state(&v->seed, &v->offset);
}

static bool drawn_outside(const sp_vmap_level *v, const sp_call *c)
{
    const sp_attr *seed = &c->attr[c->n_attr - 2], *offset = &c->attr[c->n_attr - 1];
    if (c->n_in == 0 || seed->absent) return false;
    return (uint64_t)seed->v.i != v->seed || (uint64_t)offset->v.i < v->offset;
}

sp_status sp__vmap_randomness(const sp_level *level, const sp_call *c, sp_randomness *out)
{
    const sp_vmap_level *v = (const sp_vmap_level *)level;
    *out = drawn_outside(v, c) ? SP_RANDOM_SAME : (sp_randomness)v->randomness;
    if (*out != SP_RANDOM_ERROR) return SP_OK;
    return sp_fail(SP_EUNSUPPORTED,
                   "%s: random numbers inside vmap: pass randomness='different' for numbers of its "
                   "own for each example, or 'same' for the same for all",
                   sp_op_table[c->op].name);
}

/* x times the mask that one example gets, and 0 where that is 0, whatever x is there. */
static sp_status dropout_same(sp_batch *b)
{
    const sp_tensor *x = b->c->in[0];
    const sp_full_opt opt = {.size = sizeof opt, .has_dtype = true, .dtype = (sp_dtype)x->dtype};
    sp_tensor *all = b->low.in[0], *ones = NULL, *mask = NULL, *product = NULL, *keep = NULL;
    sp_status status = SP_OK;
    b->done = true;
    SP_TRY(sp_full(x->shape, x->rank, SP_INT(1), &opt, &ones));
    b->low.in[0] = ones;
    status = sp__dispatch(&b->low);
    b->low.in[0] = all;
    SP_TRY(status);
    mask = b->low.out[0], b->low.out[0] = NULL;
    SP_TRY(sp_mul(all, mask, &product));
    SP_TRY(sp_ne_scalar(mask, SP_INT(0), &keep));
    SP_TRY(sp_where_scalar(keep, product, SP_INT(0), &b->low.out[0]));
out:
    sp_drop(&ones), sp_drop(&mask), sp_drop(&product), sp_drop(&keep);
    return status;
}

sp_status sp__batch_dropout(sp_batch *b)
{
    return b->randomness == SP_RANDOM_SAME ? dropout_same(b) : sp__batch_leading(b);
}

/* The orders of as many rows of random numbers. */
sp_status sp__batch_randperm(sp_batch *b)
{
    const int64_t shape[2] = {b->size, b->c->attr[SP_RANDPERM_WHOLE_N].v.i};
    const sp_rand_opt wide = {.size = sizeof wide, .has_dtype = true, .dtype = SP_FLOAT64};
    sp_tensor *numbers = NULL, *sorted = NULL;
    b->done = true;
    SP_RETURN_IF(sp_rand(shape, 2, &wide, &numbers));
    sp_status status = sp_sort(numbers, NULL, &sorted, &b->low.out[0]);
    sp_drop(&numbers), sp_drop(&sorted);
    return status;
}
