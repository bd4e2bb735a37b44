/* vmap rules that serve many ops, and what all rules share.
 *
 *     pointwise       ranks are aligned
 *     dims            the dims attribute counts one more dimension
 *     shape           the shape attribute gets the batch size in front
 *     leading         the op takes leading dimensions anyway
 *     fold_examples   the first dimension counts examples: it and the mapped one become one
 *     fold_channels   the second dimension, of channels that are computed each by itself, takes
 *                     the mapped one in
 */
#include "autograd/vmap_int.h"

#include <string.h>

#include "autograd/calls.h"

/* ---- operands ----- */

sp_status sp__batch_align_to(sp_batch *b, int i, int rank)
{
    sp_tensor *t;
    int missing = rank - b->c->in[i]->rank;
    if (missing <= 0 || !sp__batched(b, i)) return SP_OK;
    SP_RETURN_IF(sp__call_unsqueeze_n(b->low.in[i], 1, missing, &t));
    sp__batch_set(b, i, t);
    return SP_OK;
}

sp_status sp__batch_everywhere(sp_batch *b, int i)
{
    int64_t shape[SP_MAX_RANK + 1];
    sp_tensor *t, *in = b->low.in[i];
    if (!in || sp__batched(b, i)) return SP_OK;
    if (in->rank == SP_MAX_RANK)
        return sp_fail(SP_ESHAPE, "%s: inside vmap its inputs may have %d dimensions at most",
                       sp__batch_op(b), SP_MAX_RANK - 1);
    shape[0] = b->size;
    for (int d = 0; d < in->rank; d++) shape[d + 1] = in->shape[d];
    SP_RETURN_IF(sp_expand(in, shape, in->rank + 1, &t));
    sp__batch_set(b, i, t);
    return SP_OK;
}

void sp__batch_shape_attr(sp_batch *b, int attr, const int64_t *shape, int rank)
{
    int64_t *to = b->ints[0];
    to[0] = b->size;
    for (int d = 0; d < rank; d++) to[d + 1] = shape[d];
    b->low.attr[attr] = (sp_attr){.v.ints = to, .n = rank + 1, .kind = SP_ATTR_INTS};
}

sp_status sp__batch_shift_dim(const sp_batch *b, int64_t dim, int rank, int64_t *out)
{
    int d;
    SP_RETURN_IF(sp__dim_normalize(sp__batch_op(b), dim, rank, &d));
    *out = d + 1;
    return SP_OK;
}

/* ---- folding ----- */

/* (B, e0, ..., g, r, ...), the groups left away if there is one. */
static sp_status split_then_move(const sp_tensor *t, int dim, int64_t groups, sp_tensor **out)
{
    int64_t shape[SP_MAX_RANK + 2];
    int rank = 0;
    sp_tensor *split = NULL;
    for (int d = 0; d < t->rank; d++) {
        if (d == dim + 1) shape[rank++] = groups;
        shape[rank++] = d == dim + 1 ? t->shape[d] / groups : t->shape[d];
    }
    SP_RETURN_IF(sp_reshape(t, shape, rank, &split));
    sp_status status = sp__call_move_dim(split, 0, dim + 1, out);
    sp_drop(&split);
    return status;
}

sp_status sp__batch_fold(const sp_batch *b, const sp_tensor *t, int dim, int64_t groups,
                         sp_tensor **out)
{
    int64_t shape[SP_MAX_RANK + 1];
    sp_tensor *moved = NULL;
    memcpy(shape, t->shape + 1, sizeof *shape * (size_t)(t->rank - 1));
    shape[dim] *= b->size;
    SP_RETURN_IF(groups > 1 ? split_then_move(t, dim, groups, &moved)
                            : sp__call_move_dim(t, 0, dim, &moved));
    sp_status status = sp_reshape(moved, shape, t->rank - 1, out);
    sp_drop(&moved);
    return status;
}

sp_status sp__batch_unfold(const sp_batch *b, const sp_tensor *t, int dim, int64_t groups,
                           sp_tensor **out)
{
    int64_t shape[SP_MAX_RANK + 2];
    int n = 0, at = groups > 1 ? dim + 1 : dim;
    sp_tensor *split = NULL, *moved = NULL;
    sp_status status = SP_OK;
    for (int d = 0; d < t->rank; d++) {
        if (d == dim && groups > 1) shape[n++] = groups;
        if (d == dim) shape[n++] = b->size;
        shape[n++] = d == dim ? t->shape[d] / (groups * b->size) : t->shape[d];
    }
    SP_TRY(sp_reshape(t, shape, n, &split));
    SP_TRY(sp__call_move_dim(split, at, 0, &moved));
    if (groups == 1) {
        *out = sp__retain(moved);
    } else {
        shape[0] = b->size;
        for (int d = 0; d < t->rank; d++)
            shape[d + 1] = d == dim ? t->shape[d] / b->size : t->shape[d];
        SP_TRY(sp_reshape(moved, shape, t->rank + 1, out));
    }
out:
    sp_drop(&split), sp_drop(&moved);
    return status;
}

sp_status sp__batch_fold_input(sp_batch *b, int i, int dim, int64_t groups)
{
    sp_tensor *t;
    if (!b->low.in[i]) return SP_OK;
    SP_RETURN_IF(sp__batch_everywhere(b, i));
    SP_RETURN_IF(sp__batch_fold(b, b->low.in[i], dim, groups, &t));
    sp__batch_set(b, i, t);
    return SP_OK;
}

/* ---- rules ----- */

/* A batch of numbers without dimensions has one, so it would count as a tensor with dimensions in
 * dtype promotion: it takes the dtype of those where it has no higher kind. */
static sp_status pointwise_dtype(sp_batch *b, int i, sp_dtype with_dims)
{
    sp_tensor *t;
    sp_dtype dtype = (sp_dtype)b->c->in[i]->dtype;
    bool number = sp__batched(b, i) && b->c->in[i]->rank == 0;
    if (!number || sp__dtype_kind(dtype) > sp__dtype_kind(with_dims) ||
        sp_promote(dtype, with_dims) == with_dims)
        return SP_OK;
    SP_RETURN_IF(sp_cast(b->low.in[i], with_dims, &t));
    sp__batch_set(b, i, t);
    return SP_OK;
}

/* Numbers beside batches of numbers count as tensors with dimensions, as these do. */
static sp_status pointwise_numbers(sp_batch *b)
{
    for (int i = 0; i < b->c->n_in; i++) {
        sp_tensor *t;
        if (!b->c->in[i] || sp__batched(b, i)) continue;
        SP_RETURN_IF(sp_unsqueeze(b->low.in[i], 0, &t));
        sp__batch_set(b, i, t);
    }
    return SP_OK;
}

sp_status sp__batch_pointwise(sp_batch *b)
{
    int rank = 0;
    sp_dtype with_dims = SP_BOOL;
    for (int i = 0; i < b->c->n_in; i++) {
        const sp_tensor *t = b->c->in[i];
        if (!t) continue;
        if (t->rank > rank) rank = t->rank;
        if (t->rank > 0) with_dims = sp_promote(with_dims, (sp_dtype)t->dtype);
    }
    if (rank == 0) return pointwise_numbers(b);
    bool write = b->c->flags & SP_CALL_INPLACE;
    for (int i = 0; i < b->c->n_in; i++) {
        if (!b->c->in[i] || (write && i == 0)) continue;
        if (!write) SP_RETURN_IF(pointwise_dtype(b, i, with_dims));
        SP_RETURN_IF(sp__batch_align_to(b, i, rank));
    }
    return SP_OK;
}

/* dims left out stand for all: of one example, not of the batch. */
static sp_status shift_dims_list(sp_batch *b, sp_attr *attr, int rank)
{
    int64_t *to = b->ints[0];
    bool all = attr->absent || (attr->n == 0 && sp_op_table[b->c->op].flags & SP_OPF_REDUCE);
    int n = all ? rank : attr->n;
    if (n > SP_MAX_RANK)
        return sp_fail(SP_EINDEX, "%s: %d dimensions for a tensor of %d", sp__batch_op(b), n, rank);
    for (int i = 0; i < n; i++) {
        if (all)
            to[i] = i + 1;
        else
            SP_RETURN_IF(sp__batch_shift_dim(b, attr->v.ints[i], rank, &to[i]));
    }
    *attr = (sp_attr){.v.ints = to, .n = n, .kind = SP_ATTR_INTS};
    return SP_OK;
}

/* All dims of one example, for an op that takes one dim or none: in row-major order. */
static sp_status flatten(sp_batch *b, sp_attr *attr)
{
    int64_t shape[2] = {b->size, b->c->in[0]->numel};
    sp_tensor *t;
    SP_RETURN_IF(sp_reshape(b->low.in[0], shape, 2, &t));
    sp__batch_set(b, 0, t);
    *attr = (sp_attr){.v.i = 1, .kind = SP_ATTR_INT};
    return SP_OK;
}

/* Inputs without dimensions, all of them batched by now, get one. */
static sp_status numbers_to_lines(sp_batch *b)
{
    for (int i = 0; i < b->c->n_in; i++) {
        sp_tensor *t;
        if (!b->c->in[i] || b->c->in[i]->rank > 0) continue;
        SP_RETURN_IF(sp_unsqueeze(b->low.in[i], 1, &t));
        sp__batch_set(b, i, t);
    }
    return SP_OK;
}

sp_status sp__batch_dims(sp_batch *b)
{
    const sp_op_info *info = &sp_op_table[b->c->op];
    sp_attr *attr = &b->low.attr[info->dims_attr];
    int rank = b->c->in[0]->rank;
    SP_RETURN_IF(sp__batch_leading(b));
    if (b->c->op == SP_OP_UNSQUEEZE || b->c->op == SP_OP_STACK)
        return sp__batch_shift_dim(b, attr->v.i, rank + 1, &attr->v.i);
    if (rank == 0 &&
        !(b->c->flags &
          SP_CALL_INPLACE)) { /* dim 0 or -1 of a number: a dimension to stand for it */
        rank = 1;
        SP_RETURN_IF(numbers_to_lines(b));
    }
    if (info->attr_kinds[info->dims_attr] == SP_ATTR_INTS) return shift_dims_list(b, attr, rank);
    if (attr->absent) return flatten(b, attr);
    return sp__batch_shift_dim(b, attr->v.i, rank, &attr->v.i);
}

sp_status sp__batch_shape(sp_batch *b)
{
    sp__batch_shape_attr(b, sp_op_table[b->c->op].dims_attr, b->out[0].shape, b->out[0].rank);
    return SP_OK;
}

sp_status sp__batch_leading(sp_batch *b)
{
    for (int i = 0; i < b->c->n_in; i++)
        if (sp__batch_carries(b, i)) SP_RETURN_IF(sp__batch_everywhere(b, i));
    return SP_OK;
}

sp_status sp__batch_fold_examples(sp_batch *b)
{
    for (int i = 0; i < b->c->n_in; i++)
        if (sp__batch_carries(b, i)) SP_RETURN_IF(sp__batch_fold_input(b, i, 0, 1));
    return SP_OK;
}

/* Tensors of one dimension hold a number a channel. */
static int channel_dim(const sp_tensor *t)
{
    return t->rank > 1;
}

sp_status sp__batch_fold_channels(sp_batch *b)
{
    for (int i = 0; i < b->c->n_in; i++)
        if (b->c->in[i]) SP_RETURN_IF(sp__batch_fold_input(b, i, channel_dim(b->c->in[i]), 1));
    SP_RETURN_IF(sp__dispatch(&b->low));
    b->done = true;
    for (int j = 0; j < b->c->n_out; j++) {
        sp_tensor *t = b->low.out[j];
        sp_status status = sp__batch_unfold(b, t, channel_dim(t), 1, &b->low.out[j]);
        if (status != SP_OK) b->low.out[j] = NULL;
        sp_drop(&t);
        SP_RETURN_IF(status);
    }
    return SP_OK;
}
