/* Reading and adding at indices: inference, and the check of index values that lets a kernel run
 * later. The kernels check again, since plans call them on whatever comes.
 */
#include <string.h>

#include "ops/infer.h"
#include "ops/queue_int.h"
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

/* ---- values ----- */

static bool in_bounds(const sp_tensor *t, int64_t low, int64_t high)
{
    int64_t at[SP_MAX_RANK] = {0};
    const int64_t *p = (const int64_t *)sp__data(t);
    for (int64_t n = t->numel; n > 0; n--) {
        if (*p < low || *p >= high) return false;
        for (int d = t->rank - 1; d >= 0; d--) {
            p += t->stride[d];
            if (++at[d] < t->shape[d]) break;
            p -= at[d] * t->stride[d], at[d] = 0;
        }
    }
    return true;
}

/* The dimension of in[0] whose places the index names: the attribute `dim`, else that of classes.
 */
static bool indexed_dim(const sp_call *c, int *dim)
{
    const sp_op_info *info = &sp_op_table[c->op];
    *dim = c->in[0]->rank > 1 ? 1 : 0;
    for (int i = 0; i < c->n_attr; i++)
        if (!strcmp(info->attr_names[i], "dim"))
            return sp__dim_normalize(info->name, c->attr[i].v.i, c->in[0]->rank, dim) == SP_OK;
    return true;
}

bool sp__index_fits(const sp_call *c)
{
    const sp_op_info *info = &sp_op_table[c->op];
    const sp_tensor *x = c->in[0], *index = c->in[info->index_in];
    int dim;
    if (index->dtype != SP_INT64 || index->device != SP_DEVICE_CPU || !indexed_dim(c, &dim))
        return false;
    if (!index->storage->data) return false;
    sp__queue_wait(index->device, atomic_load(&index->storage->write_ticket));
    int64_t size = x->rank ? x->shape[dim] : 1;
    bool classes = !strcmp(info->in_names[info->index_in], "target"); /* -1 is the last position, */
    return in_bounds(index, classes ? 0 : -size, size);               /* but not a class */
}
