/* vmap rules of views, and of the ops that write one's elements. */
#include "autograd/vmap_int.h"

#include "autograd/calls.h"
#include "ops/join.h"

sp_status sp__batch_transpose(sp_batch *b)
{
    int d0, d1, rank = b->c->in[0]->rank;
    SP_RETURN_IF(sp__dim_normalize(sp__batch_op(b), b->c->attr[SP_TRANSPOSE_DIM0].v.i, rank, &d0));
    SP_RETURN_IF(sp__dim_normalize(sp__batch_op(b), b->c->attr[SP_TRANSPOSE_DIM1].v.i, rank, &d1));
    bool number = rank == 0; /* its dim 0 is none, so the batch's stays where it is */
    sp__batch_set_int(b, SP_TRANSPOSE_DIM0, number ? 0 : d0 + 1);
    sp__batch_set_int(b, SP_TRANSPOSE_DIM1, number ? 0 : d1 + 1);
    return SP_OK;
}

sp_status sp__batch_permute(sp_batch *b)
{
    const sp_attr *dims = &b->c->attr[SP_PERMUTE_DIMS];
    int64_t *to = b->ints[0];
    to[0] = 0;
    for (int i = 0; i < dims->n; i++) {
        int d;
        SP_RETURN_IF(sp__dim_normalize(sp__batch_op(b), dims->v.ints[i], b->c->in[0]->rank, &d));
        to[i + 1] = d + 1;
    }
    sp__batch_set_ints(b, SP_PERMUTE_DIMS, to, dims->n + 1);
    return SP_OK;
}

/* The dimensions of a diagonal, at attributes first and first + 1. */
static sp_status diagonal_dims(sp_batch *b, int first)
{
    for (int i = first; i < first + 2; i++) {
        int d;
        SP_RETURN_IF(sp__dim_normalize(sp__batch_op(b), b->c->attr[i].v.i, b->c->in[0]->rank, &d));
        sp__batch_set_int(b, i, d + 1);
    }
    return SP_OK;
}

sp_status sp__batch_diagonal(sp_batch *b)
{
    return diagonal_dims(b, SP_DIAGONAL_DIM1);
}

sp_status sp__batch_diagonal_scatter(sp_batch *b)
{
    for (int i = 0; i < 2; i++) SP_RETURN_IF(sp__batch_everywhere(b, i));
    return diagonal_dims(b, SP_DIAGONAL_SCATTER_DIM1);
}

sp_status sp__batch_expand(sp_batch *b)
{
    SP_RETURN_IF(sp__batch_align_to(b, 0, b->out[0].rank));
    sp__batch_shape_attr(b, SP_EXPAND_SIZE, b->out[0].shape, b->out[0].rank);
    return SP_OK;
}

/* Inside vmap, strides and offsets are those of an example that lies dense by itself. */
static sp_status strided_attrs(sp_batch *b, int64_t example, int size, int stride, int offset)
{
    const sp_attr *sizes = &b->c->attr[size], *strides = &b->c->attr[stride];
    if (sizes->n != strides->n || sizes->n >= SP_MAX_RANK)
        return sp_fail(SP_ESHAPE, "%s: %d sizes and %d strides inside vmap", sp__batch_op(b),
                       sizes->n, strides->n);
    int64_t last = b->c->attr[offset].absent ? 0 : b->c->attr[offset].v.i;
    for (int i = 0; i < sizes->n; i++)
        last += sizes->v.ints[i] ? (sizes->v.ints[i] - 1) * strides->v.ints[i] : 0;
    if (last >= example && example > 0)
        return sp_fail(SP_EINDEX, "%s: element %lld of an example of %lld elements",
                       sp__batch_op(b), (long long)last, (long long)example);
    sp__batch_shape_attr(b, size, sizes->v.ints, sizes->n);
    b->ints[1][0] = example;
    for (int i = 0; i < strides->n; i++) b->ints[1][i + 1] = strides->v.ints[i];
    sp__batch_set_ints(b, stride, b->ints[1], strides->n + 1);
    return SP_OK;
}

sp_status sp__batch_as_strided(sp_batch *b)
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

sp_status sp__batch_as_strided_scatter(sp_batch *b)
{
    sp_tensor *dense;
    SP_RETURN_IF(sp__batch_everywhere(b, 0));
    SP_RETURN_IF(sp__batch_everywhere(b, 1));
    SP_RETURN_IF(sp_contiguous(b->low.in[0], &dense));
    sp__batch_set(b, 0, dense);
    return strided_attrs(b, b->c->in[0]->numel, SP_AS_STRIDED_SCATTER_SIZE,
                         SP_AS_STRIDED_SCATTER_STRIDE, SP_AS_STRIDED_SCATTER_STORAGE_OFFSET);
}

/* ---- tensors joined ----- */

/* Behind the batch's dimension an example of shape (0,) is no longer told from the others, so it is
 * left out here: swapped with the last that counts. */
sp_status sp__batch_cat(sp_batch *b)
{
    int n = 0, dim, rank = b->out[0].rank;
    SP_RETURN_IF(sp__dim_normalize(sp__batch_op(b), b->c->attr[SP_CAT_DIM].v.i, rank, &dim));
    for (int i = 0; i < b->c->n_in; i++) {
        SP_RETURN_IF(sp__batch_everywhere(b, i));
        if (sp__cat_skips(b->c->in[i]->rank, b->c->in[i]->shape) && rank > 1) continue;
        sp_tensor *counts = b->low.in[i];
        b->low.in[i] = b->low.in[n], b->low.in[n++] = counts;
    }
    b->low.n_in = n;
    sp__batch_set_int(b, SP_CAT_DIM, dim + 1);
    return SP_OK;
}
