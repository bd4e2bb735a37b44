/* Rules for as_strided, whose result depends on where its input lies in memory.
 *
 *     x, y        geometries of input and result in one storage, from element `low` to before
 * element `high` flat        a dense vector of high - low elements that stands for that piece of
 * storage
 *
 * A gradient of y is written (or, where y names an element twice, added) into a flat of zeros; x's
 * gradient is the view of it that x was. So nothing depends on the strides of gradients and
 * tangents themselves.
 */
#include <string.h>

#include "autograd/rules.h"
#include "ops_gen.h"
#include "tensor/memory.h"

typedef struct piece {
    int64_t low, high;
} piece;

/* Index after the last element, from the storage's start. */
static int64_t end_of(const sp_meta *m)
{
    int64_t end = m->offset + 1;
    for (int i = 0; i < m->rank; i++) end += (m->shape[i] - 1) * m->stride[i];
    return m->numel ? end : m->offset;
}

static piece piece_of(const sp_meta *x, const sp_meta *y)
{
    int64_t a = end_of(x), b = end_of(y);
    return (piece){.low = x->offset < y->offset ? x->offset : y->offset, .high = a > b ? a : b};
}

static bool overlaps(const sp_meta *m)
{
    sp_tensor t = {.dtype = m->dtype, .rank = m->rank, .numel = m->numel};
    t.flags = m->contiguous ? SP_T_CONTIGUOUS : 0;
    memcpy(t.shape, m->shape, sizeof(int64_t) * m->rank);
    memcpy(t.stride, m->stride, sizeof(int64_t) * m->rank);
    return sp__overlaps_itself(&t);
}

static sp_status zero_piece(const piece *p, int dtype, sp_tensor **out)
{
    int64_t n = p->high - p->low;
    const sp_full_opt opt = {.size = sizeof opt, .has_dtype = true, .dtype = (sp_dtype)dtype};
    return sp_full(&n, 1, SP_INT(0), &opt, out);
}

/* The places in the piece of the elements of m, as a tensor. */
static sp_status places_of(const sp_meta *m, int64_t low, sp_tensor **out)
{
    size_t bytes = (size_t)m->numel * sizeof(int64_t);
    int64_t *places = sp__alloc(bytes);
    if (!places)
        return sp_fail(SP_EMEMORY, "as_strided: no memory for the places of %lld elements",
                       (long long)m->numel);
    sp__meta_places(m, low, places);
    sp_status status = sp_from_data(places, SP_INT64, 1, &m->numel, out);
    sp__free(places, bytes);
    return status;
}

/* flat + t at m's places. */
static sp_status add_at(const sp_tensor *flat, const sp_tensor *t, const sp_meta *m, int64_t low,
                        sp_tensor **out)
{
    sp_tensor *places = NULL, *values = NULL;
    sp_status status = SP_OK;
    SP_TRY(places_of(m, low, &places));
    SP_TRY(sp_reshape(t, &m->numel, 1, &values));
    SP_TRY(sp_index_add(flat, 0, places, values, out));
out:
    sp_drop(&places);
    sp_drop(&values);
    return status;
}

/* t, of m's shape, in a piece of zeros. */
static sp_status lay_out(const sp_tensor *t, const sp_meta *m, const piece *p, sp_tensor **out)
{
    sp_tensor *flat = NULL;
    sp_status status = SP_OK;
    const sp_as_strided_scatter_opt opt = {
        .size = sizeof opt, .has_storage_offset = true, .storage_offset = m->offset - p->low};
    SP_TRY(zero_piece(p, t->dtype, &flat));
    if (overlaps(m))
        SP_TRY(add_at(flat, t, m, p->low, out));
    else
        SP_TRY(sp_as_strided_scatter(flat, t, m->shape, m->rank, m->stride, m->rank, &opt, out));
out:
    sp_drop(&flat);
    return status;
}

/* The view that m is of a flat piece. Its offset is a slice, not an attribute: that holds for any
 * storage. */
static sp_status look_at(const sp_tensor *flat, const sp_meta *m, int64_t low, sp_tensor **out)
{
    sp_tensor *from = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp_slice(flat, 0, m->offset - low, INT64_MAX, NULL, &from));
    SP_TRY(sp_as_strided(from, m->shape, m->rank, m->stride, m->rank, NULL, out));
out:
    sp_drop(&from);
    return status;
}

/* Elements of x that are one in memory share its gradient evenly. */
static sp_status share_out(sp_tensor **flat, const sp_meta *x, const piece *p)
{
    sp_tensor *none = NULL, *ones = NULL, *count = NULL, *shared = NULL;
    sp_status status = SP_OK;
    const sp_full_opt opt = {
        .size = sizeof opt, .has_dtype = true, .dtype = (sp_dtype)(*flat)->dtype};
    SP_TRY(zero_piece(p, (*flat)->dtype, &none));
    SP_TRY(sp_full(x->shape, x->rank, SP_INT(1), &opt, &ones));
    SP_TRY(add_at(none, ones, x, p->low, &count));
    SP_TRY(sp_div(*flat, count, &shared)); /* 0 / 0 between x's elements, where nobody looks */
    sp_drop(flat);
    *flat = shared;
out:
    sp_drop(&none);
    sp_drop(&ones);
    sp_drop(&count);
    return status;
}

/* The result's geometry, from the attributes: a level's results need not lie in x's storage. */
static sp_meta result_of(const sp_meta *x, const sp_attr *size, const sp_attr *stride,
                         const sp_attr *offset)
{
    sp_meta y = {.dtype = x->dtype, .device = x->device, .rank = (uint8_t)size->n, .view_of = 0};
    y.offset = offset->absent ? x->offset : offset->v.i;
    for (int i = 0; i < size->n; i++) y.shape[i] = size->v.ints[i], y.stride[i] = stride->v.ints[i];
    sp__meta_update(&y);
    return y;
}

/* t, laid out as `from`, seen as `to`. x is the one of both that may name an element twice without
 * a meaning of its own. */
static sp_status moved(const sp_tensor *t, const sp_meta *from, const sp_meta *to, const sp_meta *x,
                       sp_tensor **out)
{
    piece p = piece_of(from, to);
    sp_tensor *flat = NULL;
    sp_status status = SP_OK;
    *out = NULL;
    SP_TRY(lay_out(t, from, &p, &flat));
    if (overlaps(x)) SP_TRY(share_out(&flat, x, &p));
    SP_TRY(look_at(flat, to, p.low, out));
out:
    sp_drop(&flat);
    return status;
}

sp_status sp__rule_as_strided_vjp(const sp_tensor *gy, const sp_meta *m, const sp_attr *size,
                                  const sp_attr *stride, const sp_attr *offset, sp_tensor **out)
{
    sp_meta y = result_of(m, size, stride, offset);
    return moved(gy, &y, m, m, out);
}

sp_status sp__rule_as_strided_jvp(const sp_tensor *tx, const sp_meta *m, const sp_attr *size,
                                  const sp_attr *stride, const sp_attr *offset, sp_tensor **out)
{
    sp_meta y = result_of(m, size, stride, offset);
    return moved(tx, m, &y, m, out);
}

sp_status sp__rule_as_strided_part(const sp_tensor *gy, const sp_attr *size, const sp_attr *stride,
                                   const sp_attr *offset, sp_tensor **out)
{
    sp_tensor *dense = NULL, *flat = NULL, *from = NULL;
    sp_status status = SP_OK;
    *out = NULL;
    SP_TRY(sp_contiguous(gy, &dense)); /* places are counted in storage, and gy may be expanded */
    SP_TRY(sp_reshape(dense, &gy->numel, 1, &flat));
    SP_TRY(sp_slice(flat, 0, offset->absent ? 0 : offset->v.i, INT64_MAX, NULL, &from));
    SP_TRY(sp_as_strided(from, size->v.ints, size->n, stride->v.ints, stride->n, NULL, out));
out:
    sp_drop(&dense);
    sp_drop(&flat);
    sp_drop(&from);
    return status;
}
