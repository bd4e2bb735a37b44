/* vmap rules of ops that none of the generic ways fits (`batch: custom`), one function an op. */
#include "autograd/vmap_int.h"

#include <string.h>

#include "autograd/calls.h"
#include "ops/join.h"

static const char *op_name(const sp_batch *b)
{
    return sp_op_table[b->c->op].name;
}

static void set_int(sp_batch *b, int attr, int64_t value)
{
    b->low.attr[attr].v.i = value;
}

static void set_ints(sp_batch *b, int attr, int64_t *values, int n)
{
    b->low.attr[attr] = (sp_attr){.v.ints = values, .n = n, .kind = SP_ATTR_INTS};
}

/* ---- views ----- */

static sp_status batch_transpose(sp_batch *b)
{
    int d0, d1, rank = b->c->in[0]->rank;
    SP_RETURN_IF(sp__dim_normalize(op_name(b), b->c->attr[SP_TRANSPOSE_DIM0].v.i, rank, &d0));
    SP_RETURN_IF(sp__dim_normalize(op_name(b), b->c->attr[SP_TRANSPOSE_DIM1].v.i, rank, &d1));
    bool number = rank == 0; /* its dim 0 is none, so the batch's stays where it is */
    set_int(b, SP_TRANSPOSE_DIM0, number ? 0 : d0 + 1);
    set_int(b, SP_TRANSPOSE_DIM1, number ? 0 : d1 + 1);
    return SP_OK;
}

static sp_status batch_permute(sp_batch *b)
{
    const sp_attr *dims = &b->c->attr[SP_PERMUTE_DIMS];
    int64_t *to = b->ints[0];
    to[0] = 0;
    for (int i = 0; i < dims->n; i++) {
        int d;
        SP_RETURN_IF(sp__dim_normalize(op_name(b), dims->v.ints[i], b->c->in[0]->rank, &d));
        to[i + 1] = d + 1;
    }
    set_ints(b, SP_PERMUTE_DIMS, to, dims->n + 1);
    return SP_OK;
}

/* The dimensions of a diagonal, at attributes first and first + 1. */
static sp_status diagonal_dims(sp_batch *b, int first)
{
    for (int i = first; i < first + 2; i++) {
        int d;
        SP_RETURN_IF(sp__dim_normalize(op_name(b), b->c->attr[i].v.i, b->c->in[0]->rank, &d));
        set_int(b, i, d + 1);
    }
    return SP_OK;
}

static sp_status batch_diagonal(sp_batch *b)
{
    return diagonal_dims(b, SP_DIAGONAL_DIM1);
}

static sp_status batch_diagonal_scatter(sp_batch *b)
{
    for (int i = 0; i < 2; i++) SP_RETURN_IF(sp__batch_everywhere(b, i));
    return diagonal_dims(b, SP_DIAGONAL_SCATTER_DIM1);
}

static sp_status batch_expand(sp_batch *b)
{
    SP_RETURN_IF(sp__batch_align(b, 0, b->out[0].rank));
    sp__batch_shape_attr(b, SP_EXPAND_SIZE, b->out[0].shape, b->out[0].rank);
    return SP_OK;
}

/* Inside vmap, strides and offsets are those of an example that lies dense by itself. */
static sp_status strided_attrs(sp_batch *b, int64_t example, int size, int stride, int offset)
{
    const sp_attr *sizes = &b->c->attr[size], *strides = &b->c->attr[stride];
    if (sizes->n != strides->n || sizes->n >= SP_MAX_RANK)
        return sp_fail(SP_ESHAPE, "%s: %d sizes and %d strides inside vmap", op_name(b), sizes->n,
                       strides->n);
    int64_t last = b->c->attr[offset].absent ? 0 : b->c->attr[offset].v.i;
    for (int i = 0; i < sizes->n; i++)
        last += sizes->v.ints[i] ? (sizes->v.ints[i] - 1) * strides->v.ints[i] : 0;
    if (last >= example && example > 0)
        return sp_fail(SP_EINDEX, "%s: element %lld of an example of %lld elements", op_name(b),
                       (long long)last, (long long)example);
    sp__batch_shape_attr(b, size, sizes->v.ints, sizes->n);
    b->ints[1][0] = example;
    for (int i = 0; i < strides->n; i++) b->ints[1][i + 1] = strides->v.ints[i];
    set_ints(b, stride, b->ints[1], strides->n + 1);
    return SP_OK;
}

static sp_status batch_as_strided(sp_batch *b)
{
    sp_tensor *dense = b->low.in[0];
    bool as_is = (dense->flags & SP_T_CONTIGUOUS) && dense->offset == 0;
    if (!as_is) {
        SP_RETURN_IF(sp_clone(b->low.in[0], &dense));
        sp__batch_set(b, 0, dense);
    }
    return strided_attrs(b, b->c->in[0]->numel, SP_AS_STRIDED_SIZE, SP_AS_STRIDED_STRIDE,
                         SP_AS_STRIDED_STORAGE_OFFSET);
}

static sp_status batch_as_strided_scatter(sp_batch *b)
{
    sp_tensor *dense;
    SP_RETURN_IF(sp__batch_everywhere(b, 0));
    SP_RETURN_IF(sp__batch_everywhere(b, 1));
    SP_RETURN_IF(sp_contiguous(b->low.in[0], &dense));
    sp__batch_set(b, 0, dense);
    return strided_attrs(b, b->c->in[0]->numel, SP_AS_STRIDED_SCATTER_SIZE,
                         SP_AS_STRIDED_SCATTER_STRIDE, SP_AS_STRIDED_SCATTER_STORAGE_OFFSET);
}

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

static sp_status batch_matmul(sp_batch *b)
{
    int rx = b->c->in[0]->rank, ry = b->c->in[1]->rank, rank = rx > ry ? rx : ry;
    if (rank < 2) rank = 2;
    SP_RETURN_IF(matrix_operand(b, 0, rank));
    return matrix_operand(b, 1, rank);
}

/* ---- indices ----- */

/* index (n), one list an example or for all, as (B, 1..., n, 1...) expanded to `like`, for gather
 * and scatter_add. */
static sp_status spread_index(sp_batch *b, int index, int dim, const int64_t *like, int rank)
{
    int64_t shape[SP_MAX_RANK + 1], size[SP_MAX_RANK + 1];
    sp_tensor *lined = NULL, *spread = NULL;
    shape[0] = b->size, size[0] = b->size;
    for (int d = 0; d < rank; d++)
        shape[d + 1] = d == dim ? b->c->in[index]->numel : 1, size[d + 1] = like[d];
    SP_RETURN_IF(sp_reshape(b->low.in[index], shape, rank + 1, &lined));
    sp_status status = sp_expand(lined, size, rank + 1, &spread);
    sp_drop(&lined);
    if (status == SP_OK) sp__batch_set(b, index, spread);
    return status;
}

static sp_status batch_index_select(sp_batch *b)
{
    int dim, rank = b->c->in[0]->rank;
    SP_RETURN_IF(sp__dim_normalize(op_name(b), b->c->attr[SP_INDEX_SELECT_DIM].v.i, rank, &dim));
    set_int(b, SP_INDEX_SELECT_DIM, dim + 1);
    if (!sp__batched(b, 1)) return SP_OK;
    SP_RETURN_IF(sp__batch_everywhere(b, 0));
    b->low.op = SP_OP_GATHER;
    return spread_index(b, 1, dim, b->out[0].shape, rank);
}

/* index_add, index_copy; `each` is what they are with an index for every element. */
static sp_status index_write(sp_batch *b, int each)
{
    int dim, rank = b->c->in[0]->rank;
    SP_RETURN_IF(sp__dim_normalize(op_name(b), b->c->attr[SP_INDEX_ADD_DIM].v.i, rank, &dim));
    set_int(b, SP_INDEX_ADD_DIM, dim + 1);
    SP_RETURN_IF(sp__batch_everywhere(b, 0));
    SP_RETURN_IF(sp__batch_everywhere(b, 2));
    if (!sp__batched(b, 1)) return SP_OK;
    b->low.op = (uint16_t)each;
    return spread_index(b, 1, dim, b->c->in[2]->shape, rank);
}

static sp_status batch_index_add(sp_batch *b)
{
    return index_write(b, SP_OP_SCATTER_ADD);
}

static sp_status batch_index_copy(sp_batch *b)
{
    return index_write(b, SP_OP_SCATTER);
}

static sp_status batch_ravel_multi_index(sp_batch *b)
{
    for (int i = 0; i < b->c->n_in; i++) SP_RETURN_IF(sp__batch_align(b, i, b->out[0].rank));
    return SP_OK;
}

/* ---- tensors joined ----- */

/* Behind the batch's dimension an example of shape (0,) is no longer told from the others, so it is
 * left out here: swapped with the last that counts. */
static sp_status batch_cat(sp_batch *b)
{
    int n = 0, dim, rank = b->out[0].rank;
    SP_RETURN_IF(sp__dim_normalize(op_name(b), b->c->attr[SP_CAT_DIM].v.i, rank, &dim));
    for (int i = 0; i < b->c->n_in; i++) {
        SP_RETURN_IF(sp__batch_everywhere(b, i));
        if (sp__cat_skips(b->c->in[i]->rank, b->c->in[i]->shape) && rank > 1) continue;
        sp_tensor *counts = b->low.in[i];
        b->low.in[i] = b->low.in[n], b->low.in[n++] = counts;
    }
    b->low.n_in = n;
    set_int(b, SP_CAT_DIM, dim + 1);
    return SP_OK;
}

/* One sequence for all of an example's values: the values as one row. Rows of their own go as they
 * are. */
static sp_status batch_searchsorted(sp_batch *b)
{
    int64_t shape[2] = {b->size, b->c->in[1]->numel};
    sp_tensor *rows;
    for (int i = 0; i < 2; i++) SP_RETURN_IF(sp__batch_everywhere(b, i));
    if (b->c->in[0]->rank > 1) return SP_OK;
    SP_RETURN_IF(sp_reshape(b->low.in[1], shape, 2, &rows));
    sp__batch_set(b, 1, rows);
    return SP_OK;
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

static sp_status batch_nll_loss(sp_batch *b)
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

/* ---- the list ----- */

sp_batch_rule sp__batch_rule_of(int op)
{
    switch (op) {
    case SP_OP_TRANSPOSE: return batch_transpose;
    case SP_OP_PERMUTE: return batch_permute;
    case SP_OP_DIAGONAL: return batch_diagonal;
    case SP_OP_DIAGONAL_SCATTER: return batch_diagonal_scatter;
    case SP_OP_EXPAND: return batch_expand;
    case SP_OP_AS_STRIDED: return batch_as_strided;
    case SP_OP_AS_STRIDED_SCATTER: return batch_as_strided_scatter;
    case SP_OP_MATMUL:
    case SP_OP_CDIST: return batch_matmul;
    case SP_OP_CAT: return batch_cat;
    case SP_OP_INDEX_SELECT: return batch_index_select;
    case SP_OP_INDEX_COPY: return batch_index_copy;
    case SP_OP_RAVEL_MULTI_INDEX: return batch_ravel_multi_index;
    case SP_OP_INDEX_ADD: return batch_index_add;
    case SP_OP_SEARCHSORTED:
    case SP_OP_IS_AMONG: return batch_searchsorted;
    case SP_OP_NLL_LOSS: return batch_nll_loss;
    default: return NULL;
    }
}
