/* Joining tensors: inference of cat and stack, and what is made of them; taking tensors apart. */
#include "ops/join.h"

#include "ops/infer.h"
#include "ops_gen.h"
#include "tensor/memory.h"

static const char *name_of(const sp_call *c)
{
    return sp_op_table[c->op].name;
}

static sp_status need_one(const sp_call *c)
{
    if (c->n_in > 0) return SP_OK;
    return sp_fail(SP_EVALUE, "%s: no tensors, expected one or more", name_of(c));
}

/* ---- cat ----- */

bool sp__cat_skips(int rank, const int64_t *shape)
{
    return rank == 1 && shape[0] == 0;
}

/* The tensor whose shape the others must have: the first that counts, else the first. */
static const sp_tensor *leader(const sp_call *c)
{
    for (int i = 0; i < c->n_in; i++)
        if (!sp__cat_skips(c->in[i]->rank, c->in[i]->shape)) return c->in[i];
    return c->in[0];
}

static sp_dtype joined_dtype(const sp_call *c)
{
    sp_dtype dtype = (sp_dtype)c->in[0]->dtype;
    for (int i = 1; i < c->n_in; i++) dtype = sp_promote(dtype, (sp_dtype)c->in[i]->dtype);
    return dtype;
}

static sp_status cat_misfit(const sp_call *c, int i, const sp_tensor *first, int dim)
{
    return sp_fail(SP_ESHAPE,
                   "%s: tensor %d has shape %s, another one %s; expected as many dimensions and "
                   "equal sizes but in dimension %d",
                   name_of(c), i, SP_SHAPE(c->in[i]), SP_SHAPE(first), dim);
}

sp_status sp__infer_cat(const sp_call *c, sp_meta *out)
{
    int dim;
    SP_RETURN_IF(need_one(c));
    const sp_tensor *first = leader(c);
    SP_RETURN_IF(sp__check_has_dims(c, first));
    SP_RETURN_IF(sp__dim_normalize(name_of(c), c->attr[SP_CAT_DIM].v.i, first->rank, &dim));
    SP_RETURN_IF(sp__check_devices(c));
    out->rank = first->rank;
    for (int d = 0; d < first->rank; d++) out->shape[d] = d == dim ? 0 : first->shape[d];
    for (int i = 0; i < c->n_in; i++) {
        const sp_tensor *x = c->in[i];
        if (sp__cat_skips(x->rank, x->shape)) continue;
        bool fits = x->rank == first->rank;
        for (int d = 0; fits && d < x->rank; d++) fits = d == dim || x->shape[d] == first->shape[d];
        if (!fits || __builtin_add_overflow(out->shape[dim], x->shape[dim], &out->shape[dim]))
            return cat_misfit(c, i, first, dim);
    }
    return sp__infer_dense(c, joined_dtype(c), first->device, out);
}

sp_status sp__infer_stack(const sp_call *c, sp_meta *out)
{
    int dim;
    SP_RETURN_IF(need_one(c));
    const sp_tensor *first = c->in[0];
    SP_RETURN_IF(sp__dim_normalize(name_of(c), c->attr[SP_STACK_DIM].v.i, first->rank + 1, &dim));
    SP_RETURN_IF(sp__check_devices(c));
    if (first->rank == SP_MAX_RANK)
        return sp_fail(SP_ESHAPE, "%s: tensors of shape %s have no room for one more dimension",
                       name_of(c), SP_SHAPE(first));
    for (int i = 1; i < c->n_in; i++)
        if (!sp__same_shape(first, c->in[i]))
            return sp_fail(SP_ESHAPE, "%s: tensor %d has shape %s, tensor 0 %s; expected one shape",
                           name_of(c), i, SP_SHAPE(c->in[i]), SP_SHAPE(first));
    out->rank = (uint8_t)(first->rank + 1);
    for (int d = 0; d < out->rank; d++)
        out->shape[d] = d == dim ? c->n_in : first->shape[d < dim ? d : d - 1];
    return sp__infer_dense(c, joined_dtype(c), first->device, out);
}

/* ---- composites ----- */

static sp_status cat_of(sp_call *c, sp_tensor *const *in, int64_t dim)
{
    const sp_cat_opt opt = {.size = sizeof opt, .dim = dim};
    return sp_cat((const sp_tensor *const *)in, c->n_in, &opt, &c->out[0]);
}

/* x with at least `rank` dimensions: (n) is (1, n) and, of three, (1, n, 1). */
static sp_status at_least(const sp_tensor *x, int rank, sp_tensor **out)
{
    int64_t shape[3] = {1, 1, 1};
    if (x->rank >= rank) {
        *out = sp__retain(x);
        return SP_OK;
    }
    if (x->rank == 1) shape[rank == 1 ? 0 : 1] = x->shape[0];
    if (x->rank == 2) shape[0] = x->shape[0], shape[1] = x->shape[1];
    return sp_reshape(x, shape, rank, out);
}

static sp_status cat_at_least(sp_call *c, int rank, int64_t dim)
{
    size_t bytes = (size_t)c->n_in * sizeof(sp_tensor *);
    SP_RETURN_IF(need_one(c));
    sp_tensor **in = sp__alloc_zero(bytes);
    if (!in) return sp_fail(SP_EMEMORY, "%s: no memory for its inputs", name_of(c));
    sp_status status = SP_OK;
    for (int i = 0; i < c->n_in; i++) SP_TRY(at_least(c->in[i], rank, &in[i]));
    if (rank == 1 && in[0]->rank == 1) dim = 0;
    SP_TRY(cat_of(c, in, dim));
out:
    for (int i = 0; i < c->n_in; i++) sp_drop(&in[i]);
    sp__free(in, bytes);
    return status;
}

sp_status sp__body_hstack(sp_call *c)
{
    return cat_at_least(c, 1, 1);
}

sp_status sp__body_vstack(sp_call *c)
{
    return cat_at_least(c, 2, 0);
}

sp_status sp__body_dstack(sp_call *c)
{
    return cat_at_least(c, 3, 2);
}

/* ---- one as several ----- */

static void drop_parts(sp_tensor **out, int n)
{
    for (int i = 0; i < n; i++) sp_drop(&out[i]);
}

sp_status sp_split(const sp_tensor *x, const int64_t *sizes, int n, int64_t dim, sp_tensor **out)
{
    int d;
    int64_t at = 0;
    sp_status status = SP_OK;
    for (int i = 0; i < n; i++) out[i] = NULL;
    SP_RETURN_IF(sp__dim_normalize("split", dim, x->rank, &d));
    if (x->rank == 0) return sp_fail(SP_EINDEX, "split: a tensor without dimensions has no parts");
    for (int i = 0; i < n; i++) {
        if (sizes[i] < 0 || sizes[i] > x->shape[d] - at)
            SP_TRY(sp_fail(SP_ESHAPE,
                           "split: part %d has size %lld, but of the %lld elements in dimension %d "
                           "of x of shape %s %lld are left",
                           i, (long long)sizes[i], (long long)x->shape[d], d, SP_SHAPE(x),
                           (long long)(x->shape[d] - at)));
        SP_TRY(sp_slice(x, d, at, at + sizes[i], NULL, &out[i]));
        at += sizes[i];
    }
    if (at != x->shape[d])
        SP_TRY(sp_fail(SP_ESHAPE,
                       "split: the sizes add up to %lld, dimension %d of x of shape %s has %lld; "
                       "they must be equal",
                       (long long)at, d, SP_SHAPE(x), (long long)x->shape[d]));
out:
    if (status != SP_OK) drop_parts(out, n);
    return status;
}

sp_status sp_unbind(const sp_tensor *x, int64_t dim, sp_tensor **out, int n)
{
    int d;
    sp_status status = SP_OK;
    for (int i = 0; i < n; i++) out[i] = NULL;
    SP_RETURN_IF(sp__dim_normalize("unbind", dim, x->rank, &d));
    if (x->rank == 0 || n != x->shape[d])
        return sp_fail(SP_ESHAPE, "unbind: %d parts of x of shape %s along dimension %d", n,
                       SP_SHAPE(x), d);
    for (int i = 0; i < n; i++) SP_TRY(sp_select(x, d, i, &out[i]));
out:
    if (status != SP_OK) drop_parts(out, n);
    return status;
}
