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

/* A mapped vector with a matrix or vector that is the same for all: the vectors are the rows of one
 * matrix. */
static bool rows_times_shared(const sp_batch *b)
{
    int i = sp__batched(b, 0) ? 0 : 1;
    return !sp__batched(b, 1 - i) && b->c->in[i]->rank == 1 && b->c->in[1 - i]->rank <= 2;
}

static sp_status rows_first(sp_batch *b)
{
    sp_tensor *shared = NULL;
    if (sp__batched(b, 0)) return SP_OK;
    if (b->c->in[0]->rank == 2)
        SP_RETURN_IF(sp_transpose(b->low.in[0], 0, 1, &shared));
    else
        shared = sp__retain(b->low.in[0]);
    sp__batch_set(b, 0, b->low.in[1]);
    b->low.in[1] = shared;
    return SP_OK;
}

/* Two vectors an example, of numbers whose products need no other dtype to be summed in. */
static bool are_vectors(const sp_batch *b)
{
    int dtype = b->c->in[0]->dtype;
    bool plain = dtype == SP_FLOAT32 || dtype == SP_FLOAT64 || sp__dtype_is_complex(dtype);
    return plain && b->c->in[0]->rank == 1 && b->c->in[1]->rank == 1;
}

static sp_status sum_of_products(sp_batch *b)
{
    const int64_t last = 1;
    const sp_sum_opt opt = {.size = sizeof opt, .dim = &last, .n_dim = 1};
    sp_tensor *products;
    b->done = true;
    SP_RETURN_IF(sp_mul(b->low.in[0], b->low.in[1], &products));
    sp_status status = sp_sum(products, &opt, &b->low.out[0]);
    sp_drop(&products);
    return status;
}

sp_status sp__batch_matmul(sp_batch *b)
{
    if (rows_times_shared(b)) return rows_first(b);
    if (are_vectors(b)) return sum_of_products(b);
    int rx = b->c->in[0]->rank, ry = b->c->in[1]->rank, rank = rx > ry ? rx : ry;
    if (rank < 2) rank = 2;
    SP_RETURN_IF(matrix_operand(b, 0, rank));
    return matrix_operand(b, 1, rank);
}

/* ---- normalisation ----- */

/* layer_norm and rms_norm take leading dimensions anyway; of group_norm the first one counts
 * examples. */
static bool by_rows(const sp_batch *b)
{
    return b->c->op != SP_OP_GROUP_NORM && b->c->op != SP_OP_GROUP_NORM_BACKWARD;
}

static sp_status carry(sp_batch *b, int i)
{
    return by_rows(b) ? sp__batch_everywhere(b, i) : sp__batch_fold_input(b, i, 0, 1);
}

/* t becomes op(t, p), p being input i, a weight or bias, beside x of `rank` dimensions. */
static sp_status apply(const sp_batch *b, int op, int i, int rank, sp_tensor **t)
{
    const sp_tensor *p = b->c->in[i];
    int64_t shape[SP_MAX_RANK + 1] = {b->size};
    int alone = !sp__batched(b, i), at = 1 + (by_rows(b) ? rank - p->rank : 1);
    sp_tensor *in[2] = {*t};
    sp_call c = {.op = (uint16_t)op, .n_in = 2, .n_out = 1, .in = in};
    for (int d = 1; d <= rank; d++) shape[d] = d >= at && d < at + p->rank ? p->shape[d - at] : 1;
    SP_RETURN_IF(sp_reshape(b->low.in[i], shape + alone, rank + 1 - alone, &in[1]));
    sp_status status = sp__dispatch(&c);
    sp_drop(&in[1]);
    if (status != SP_OK) return status;
    sp_drop(t);
    *t = c.out[0];
    return SP_OK;
}

/* (x - mean) / deviation, of the call's op without weight and bias, or of that whose derivative it
 * is; x (B, ...) or, where it is the same for all, (...), and the result so. */
static sp_status normalised(const sp_batch *b, const sp_tensor *x, bool mapped, sp_tensor **out)
{
    static const uint16_t forward[SP_OP_COUNT] = {
        [SP_OP_LAYER_NORM_BACKWARD] = SP_OP_LAYER_NORM,
        [SP_OP_RMS_NORM_BACKWARD] = SP_OP_RMS_NORM,
        [SP_OP_GROUP_NORM_BACKWARD] = SP_OP_GROUP_NORM,
    };
    sp_tensor *in[3] = {NULL}, *folded = NULL;
    sp_call c = *b->c;
    sp_status status = SP_OK;
    if (forward[c.op]) c.op = forward[c.op];
    c.in = in, c.n_in = sp_op_table[c.op].n_in, c.n_out = 1, c.out[0] = NULL;
    if (mapped && !by_rows(b)) SP_TRY(sp__batch_fold(b, x, 0, 1, &folded));
    in[0] = folded ? folded : (sp_tensor *)x;
    SP_TRY(sp__dispatch(&c));
    SP_TRY(sp_reshape(c.out[0], x->shape, x->rank, out));
out:
    sp_drop(&folded), sp_drop(&c.out[0]);
    return status;
}

/* x, weight and perhaps bias: these go along where they are the same for all. */
sp_status sp__batch_norm(sp_batch *b)
{
    static const int by[] = {SP_OP_MUL, SP_OP_ADD};
    bool own = false;
    for (int i = 1; i < b->c->n_in; i++) own |= sp__batched(b, i);
    if (!own) return carry(b, 0);
    sp_tensor *y = NULL;
    b->done = true;
    SP_RETURN_IF(normalised(b, b->low.in[0], sp__batched(b, 0), &y));
    sp_status status = SP_OK;
    for (int i = 1; i < b->c->n_in; i++)
        if (b->c->in[i]) SP_TRY(apply(b, by[i - 1], i, b->c->in[0]->rank, &y));
    b->low.out[0] = y, y = NULL;
out:
    sp_drop(&y);
    return status;
}

/* g (B, ...) summed to a parameter of each example. */
static sp_status to_parameter(const sp_batch *b, const sp_tensor *g, int rank, sp_tensor **out)
{
    int64_t dims[SP_MAX_RANK];
    int n = 0;
    for (int d = 1; d < g->rank; d++)
        if (by_rows(b) ? d < g->rank - rank : d != 2) dims[n++] = d;
    const sp_sum_opt opt = {.size = sizeof opt, .dim = dims, .n_dim = n};
    if (n > 0) return sp_sum(g, &opt, out);
    *out = sp__retain(g);
    return SP_OK;
}

/* The gradients of weight and bias: of each example by itself. */
static sp_status gradients_of_parameters(sp_batch *b, const sp_tensor *grad, const sp_tensor *x)
{
    sp_tensor *z = NULL, *product = NULL;
    sp_status status = SP_OK;
    SP_TRY(normalised(b, x, true, &z));
    SP_TRY(sp_mul(grad, z, &product));
    SP_TRY(to_parameter(b, product, b->out[1].rank, &b->low.out[1]));
    if (b->c->n_out > 2) SP_TRY(to_parameter(b, grad, b->out[2].rank, &b->low.out[2]));
out:
    sp_drop(&z), sp_drop(&product);
    return status;
}

/* grad, x, weight: the op itself gives the gradient of x, of grad times weight where the examples
 * have weights of their own. */
sp_status sp__batch_norm_backward(sp_batch *b)
{
    sp_tensor *grad = NULL, *x = NULL, *weight = b->c->in[2];
    sp_status status = SP_OK;
    b->done = true;
    for (int i = 0; i < 2; i++) SP_TRY(sp__batch_everywhere(b, i));
    grad = sp__retain(b->low.in[0]), x = sp__retain(b->low.in[1]);
    if (weight && sp__batched(b, 2)) {
        SP_TRY(apply(b, SP_OP_MUL, 2, b->c->in[1]->rank, &b->low.in[0]));
        sp__batch_set(b, 2, NULL);
    }
    for (int i = 0; i < 2 && !by_rows(b); i++) {
        sp_tensor *folded;
        SP_TRY(sp__batch_fold(b, b->low.in[i], 0, 1, &folded));
        sp__batch_set(b, i, folded);
    }
    SP_TRY(sp__dispatch(&b->low));
    for (int j = 1; j < b->c->n_out; j++) sp_drop(&b->low.out[j]);
    SP_TRY(gradients_of_parameters(b, grad, x));
out:
    sp_drop(&grad), sp_drop(&x);
    return status;
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
