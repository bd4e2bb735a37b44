/* vmap rules of indexing and of searching. */
#include "autograd/vmap_int.h"

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

/* All examples' indices as one list, where they are of one tensor. */
static sp_status select_from_shared(sp_batch *b, int dim)
{
    const int64_t n = b->size * b->c->in[1]->numel;
    sp_tensor *all, *picked;
    SP_RETURN_IF(sp_reshape(b->low.in[1], &n, 1, &all));
    sp__batch_set(b, 1, all);
    SP_RETURN_IF(sp__dispatch(&b->low));
    picked = b->low.out[0], b->low.out[0] = NULL, b->done = true;
    sp_status status = sp__batch_unfold(b, picked, dim, 1, &b->low.out[0]);
    sp_drop(&picked);
    return status;
}

sp_status sp__batch_index_select(sp_batch *b)
{
    int dim, rank = b->c->in[0]->rank;
    SP_RETURN_IF(
        sp__dim_normalize(sp__batch_op(b), b->c->attr[SP_INDEX_SELECT_DIM].v.i, rank, &dim));
    if (!sp__batched(b, 0) && rank > 0) return select_from_shared(b, dim);
    sp__batch_set_int(b, SP_INDEX_SELECT_DIM, dim + 1);
    if (!sp__batched(b, 1)) return SP_OK;
    SP_RETURN_IF(sp__batch_everywhere(b, 0));
    b->low.op = SP_OP_GATHER;
    return spread_index(b, 1, dim, b->out[0].shape, rank);
}

/* index_add, index_copy; `each` is what they are with an index for every element. */
static sp_status index_write(sp_batch *b, int each)
{
    int dim, rank = b->c->in[0]->rank;
    SP_RETURN_IF(sp__dim_normalize(sp__batch_op(b), b->c->attr[SP_INDEX_ADD_DIM].v.i, rank, &dim));
    sp__batch_set_int(b, SP_INDEX_ADD_DIM, dim + 1);
    SP_RETURN_IF(sp__batch_everywhere(b, 0));
    SP_RETURN_IF(sp__batch_everywhere(b, 2));
    if (!sp__batched(b, 1)) return SP_OK;
    b->low.op = (uint16_t)each;
    return spread_index(b, 1, dim, b->c->in[2]->shape, rank);
}

sp_status sp__batch_index_add(sp_batch *b)
{
    return index_write(b, SP_OP_SCATTER_ADD);
}

sp_status sp__batch_index_copy(sp_batch *b)
{
    return index_write(b, SP_OP_SCATTER);
}

sp_status sp__batch_ravel_multi_index(sp_batch *b)
{
    for (int i = 0; i < b->c->n_in; i++) SP_RETURN_IF(sp__batch_align_to(b, i, b->out[0].rank));
    return SP_OK;
}

/* One sequence for all of an example's values: the values as one row. Rows of their own go as they
 * are. */
sp_status sp__batch_searchsorted(sp_batch *b)
{
    int64_t shape[2] = {b->size, b->c->in[1]->numel};
    sp_tensor *rows;
    for (int i = 0; i < 2; i++) SP_RETURN_IF(sp__batch_everywhere(b, i));
    if (b->c->in[0]->rank > 1) return SP_OK;
    SP_RETURN_IF(sp_reshape(b->low.in[1], shape, 2, &rows));
    sp__batch_set(b, 1, rows);
    return SP_OK;
}
