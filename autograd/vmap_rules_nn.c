/* vmap rules of what networks are made of and their gradients are asked for. */
#include "autograd/vmap_int.h"

#include "autograd/calls.h"

/* ---- matrix products ----- */

/* x (..., m, k) or (k) as (B, 1..., ..., m, k), with a row or column for a vector. */
static sp_status matrix_operand(sp_batch *b, int i, int rank)
{
    int own = b->c->in[i]->rank, lead = sp__batched(b, i);
    sp_tensor *t;
    if (own == 1) {
        SP_RETURN_IF(
            sp_unsqueeze(b->low.in[i], lead + i, &t)); /* x: before its dimension, y: behind */
        sp__batch_set(b, i, t);
        own = 2;
    }
    if (!lead || own == rank) return SP_OK;
    SP_RETURN_IF(sp__call_unsqueeze_n(b->low.in[i], 1, rank - own, &t));
    sp__batch_set(b, i, t);
    return SP_OK;
}

sp_status sp__batch_matmul(sp_batch *b)
{
    int rx = b->c->in[0]->rank, ry = b->c->in[1]->rank, rank = rx > ry ? rx : ry;
    if (rank < 2) rank = 2;
    SP_RETURN_IF(matrix_operand(b, 0, rank));
    return matrix_operand(b, 1, rank);
}

/* ---- attention: examples count first in all inputs but the mask, which broadcasts ----- */

/* The mask in four dimensions, of which the first becomes that of all examples of the batch. */
static sp_status spread_mask(sp_batch *b, int i, int64_t examples)
{
    int64_t shape[5] = {b->size, examples};
    sp_tensor *wide, *folded;
    bool shared = b->c->in[i]->rank < 4 || b->c->in[i]->shape[0] == 1;
    if (shared && !sp__batched(b, i)) return SP_OK;
    SP_RETURN_IF(sp__batch_align_to(b, i, 4));
    SP_RETURN_IF(sp__batch_everywhere(b, i));
    for (int d = 2; d < 5; d++) shape[d] = b->low.in[i]->shape[d];
    SP_RETURN_IF(sp_expand(b->low.in[i], shape, 5, &wide));
    sp_status status = sp__batch_fold(b, wide, 0, 1, &folded);
    sp_drop(&wide);
    if (status == SP_OK) sp__batch_set(b, i, folded);
    return status;
}

/* attention and attention_backward; the mask is the last input. */
sp_status sp__batch_attention(sp_batch *b)
{
    int mask = b->c->n_in - 1;
    for (int i = 0; i < mask; i++) SP_RETURN_IF(sp__batch_fold_input(b, i, 0, 1));
    return b->c->in[mask] ? spread_mask(b, mask, b->c->in[0]->shape[0]) : SP_OK;
}

/* ---- losses ----- */

static sp_status join_dims(const sp_tensor *t, int64_t joined, int skip, sp_tensor **out)
{
    int64_t shape[SP_MAX_RANK + 1] = {joined};
    int n = 1;
    for (int d = skip; d < t->rank; d++) shape[n++] = t->shape[d];
    return sp_reshape(t, shape, n, out);
}

/* One loss a target, of all examples at once: (B, N, d1, ...) or (B). */
static sp_status all_losses(sp_batch *b, sp_tensor **out)
{
    const sp_tensor *x = b->c->in[0], *target = b->c->in[1];
    sp_tensor *flat_x = NULL, *flat_target = NULL, *flat = NULL;
    int skip = x->rank > 1 ? 2 : 1; /* (B, N, C, ...) or (B, C) */
    int64_t joined = skip == 2 ? b->size * x->shape[0] : b->size,
            shape[SP_MAX_RANK + 1] = {b->size};
    sp_nll_loss_opt none = {.size = sizeof none,
                            .has_reduction = true,
                            .reduction = SP_REDUCTION_NONE,
                            .has_ignore_index = true,
                            .ignore_index = b->c->attr[SP_NLL_LOSS_IGNORE_INDEX].v.i};
    sp_status status = SP_OK;
    SP_TRY(join_dims(b->low.in[0], joined, skip, &flat_x));
    SP_TRY(join_dims(b->low.in[1], joined, skip, &flat_target));
    SP_TRY(sp_nll_loss(flat_x, flat_target, &none, &flat));
    for (int d = 0; d < target->rank; d++) shape[d + 1] = target->shape[d];
    SP_TRY(sp_reshape(flat, shape, target->rank + 1, out));
out:
    sp_drop(&flat_x), sp_drop(&flat_target), sp_drop(&flat);
    return status;
}

static sp_status sum_of_each(const sp_tensor *t, const int64_t *dims, int n, sp_tensor **out)
{
    const sp_sum_opt opt = {.size = sizeof opt, .dim = dims, .n_dim = n};
    if (n > 0) return sp_sum(t, &opt, out);
    *out = sp__retain(t);
    return SP_OK;
}

sp_status sp__batch_nll_loss(sp_batch *b)
{
    int64_t reduction = b->c->attr[SP_NLL_LOSS_REDUCTION].v.i, dims[SP_MAX_RANK];
    const sp_tensor *target = b->c->in[1];
    sp_tensor *losses = NULL, *total = NULL, *valid = NULL, *count = NULL;
    sp_status status = SP_OK;
    for (int i = 0; i < 2; i++) SP_RETURN_IF(sp__batch_everywhere(b, i));
    b->done = true;
    SP_RETURN_IF(all_losses(b, &losses));
    if (reduction == SP_REDUCTION_NONE) {
        b->low.out[0] = losses;
        return SP_OK;
    }
    for (int d = 0; d < target->rank; d++) dims[d] = d + 1;
    SP_TRY(sum_of_each(losses, dims, target->rank, &total));
    if (reduction == SP_REDUCTION_SUM) {
        b->low.out[0] = sp__retain(total);
    } else {
        int64_t ignored = b->c->attr[SP_NLL_LOSS_IGNORE_INDEX].v.i;
        SP_TRY(sp_ne_scalar(b->low.in[1], SP_INT(ignored), &valid));
        SP_TRY(sum_of_each(valid, dims, target->rank, &count));
        SP_TRY(sp_div(total, count, &b->low.out[0]));
    }
out:
    sp_drop(&losses), sp_drop(&total), sp_drop(&valid), sp_drop(&count);
    return status;
}

/* ---- gradients ----- */

/* For each example, or for all where it is not mapped: whether input i has no infinity nor NaN. */
static sp_status each_finite(const sp_batch *b, int i, sp_tensor **out)
{
    const sp_tensor *t = b->low.in[i];
    int64_t dims[SP_MAX_RANK];
    const sp_all_opt opt = {.size = sizeof opt, .dim = dims, .n_dim = t->rank - 1};
    sp_tensor *finite = NULL;
    if (!sp__batched(b, i)) return sp_all_finite(&t, 1, out);
    for (int d = 1; d < t->rank; d++) dims[d - 1] = d;
    if (t->rank == 1) return sp_isfinite(t, out);
    SP_RETURN_IF(sp_isfinite(t, &finite));
    sp_status status = sp_all(finite, &opt, out);
    sp_drop(&finite);
    return status;
}

sp_status sp__batch_all_finite(sp_batch *b)
{
    sp_tensor *so_far = NULL, *each = NULL, *both = NULL;
    sp_status status = SP_OK;
    b->done = true;
    for (int i = 0; i < b->c->n_in; i++) {
        SP_TRY(each_finite(b, i, &each));
        if (so_far) SP_TRY(sp_logical_and(so_far, each, &both));
        sp_drop(&so_far);
        so_far = both ? both : sp__retain(each);
        both = NULL;
        sp_drop(&each);
    }
    b->low.out[0] = so_far, so_far = NULL;
out:
    sp_drop(&so_far), sp_drop(&each);
    return status;
}
