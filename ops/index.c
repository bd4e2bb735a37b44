/* Inference for reading and adding at indices. The indices themselves are checked by the kernels.
 */
#include "ops/infer.h"
#include "ops_gen.h"

static const sp_attr *dim_attr(const sp_call *c)
{
    return &c->attr[0]; /* of all four */
}

static sp_status common_checks(const sp_call *c, const sp_tensor *index, int *dim)
{
    const sp_tensor *x = c->in[0];
    SP_RETURN_IF(sp__check_index_dtype(c, index, "index"));
    SP_RETURN_IF(sp__check_has_dims(c, x));
    SP_RETURN_IF(sp__check_devices(c));
    return sp__dim_normalize(sp__op_name(c), dim_attr(c)->v.i, x->rank, dim);
}

/* ---- gather, scatter_add: an index for every element ----- */

static sp_status check_index_shape(const sp_call *c, const sp_tensor *index, int dim)
{
    const sp_tensor *x = c->in[0];
    bool fits = index->rank == x->rank;
    for (int d = 0; fits && d < x->rank; d++) fits = d == dim || index->shape[d] <= x->shape[d];
    if (fits) return SP_OK;
    return sp_fail(SP_ESHAPE,
                   "%s: index has shape %s and x %s; expected as many dimensions, and no larger "
                   "sizes but in dimension %d",
                   sp__op_name(c), SP_SHAPE(index), SP_SHAPE(x), dim);
}

sp_status sp__infer_gather(const sp_call *c, sp_meta *out)
{
    const sp_tensor *x = c->in[0], *index = c->in[1];
    int dim;
    SP_RETURN_IF(common_checks(c, index, &dim));
    SP_RETURN_IF(check_index_shape(c, index, dim));
    return sp__infer_like(c, index, (sp_dtype)x->dtype, out);
}

sp_status sp__infer_scatter_add(const sp_call *c, sp_meta *out)
{
    const sp_tensor *x = c->in[0], *index = c->in[1], *src = c->in[2];
    int dim;
    SP_RETURN_IF(common_checks(c, index, &dim));
    SP_RETURN_IF(sp__check_same_dtype(c, x, "x", src, "src"));
    SP_RETURN_IF(check_index_shape(c, index, dim));
    if (!sp__same_shape(index, src))
        return sp_fail(SP_ESHAPE, "%s: index has shape %s and src %s, expected one shape",
                       sp__op_name(c), SP_SHAPE(index), SP_SHAPE(src));
    return sp__infer_like(c, x, (sp_dtype)x->dtype, out);
}

/* ---- index_select, index_add: an index for every slice ----- */

static sp_status check_index_list(const sp_call *c, const sp_tensor *index)
{
    if (index->rank == 1) return SP_OK;
    return sp_fail(SP_ESHAPE,
                   "%s: index has shape %s, expected one dimension; use index.reshape(-1)",
                   sp__op_name(c), SP_SHAPE(index));
}

sp_status sp__infer_index_select(const sp_call *c, sp_meta *out)
{
    const sp_tensor *x = c->in[0], *index = c->in[1];
    int dim;
    SP_RETURN_IF(common_checks(c, index, &dim));
    SP_RETURN_IF(check_index_list(c, index));
    out->rank = x->rank;
    for (int d = 0; d < x->rank; d++) out->shape[d] = d == dim ? index->shape[0] : x->shape[d];
    return sp__infer_dense(c, (sp_dtype)x->dtype, x->device, out);
}

sp_status sp__infer_index_add(const sp_call *c, sp_meta *out)
{
    const sp_tensor *x = c->in[0], *index = c->in[1], *src = c->in[2];
    int dim;
    SP_RETURN_IF(common_checks(c, index, &dim));
    SP_RETURN_IF(sp__check_same_dtype(c, x, "x", src, "src"));
    SP_RETURN_IF(check_index_list(c, index));
    bool fits = src->rank == x->rank;
    for (int d = 0; fits && d < x->rank; d++)
        fits = src->shape[d] == (d == dim ? index->shape[0] : x->shape[d]);
    if (!fits)
        return sp_fail(SP_ESHAPE,
                       "%s: src has shape %s, expected x's shape %s with %lld in dimension %d, one "
                       "slice an index",
                       sp__op_name(c), SP_SHAPE(src), SP_SHAPE(x), (long long)index->shape[0], dim);
    return sp__infer_like(c, x, (sp_dtype)x->dtype, out);
}
