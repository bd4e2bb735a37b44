/* Shape ops: inference of those that are views or kernels, bodies of those that are other ops. */
#include <string.h>

#include "ops/attr.h"
#include "ops/infer.h"
#include "ops_gen.h"
#include "tensor/memory.h"

static const char *name_of(const sp_call *c)
{
    return sp_op_table[c->op].name;
}

static sp_status no_room(const sp_call *c, int rank)
{
    return sp_fail(SP_ESHAPE, "%s: %d dimensions, at most %d are possible", name_of(c), rank,
                   SP_MAX_RANK);
}

/* ---- the same elements under other dimensions ----- */

static sp_status reshape_or_view(sp_call *c, const int64_t *shape, int rank, bool view)
{
    return view ? sp_view(c->in[0], shape, rank, &c->out[0])
                : sp_reshape(c->in[0], shape, rank, &c->out[0]);
}

sp_status sp__body_flatten(sp_call *c)
{
    const sp_tensor *x = c->in[0];
    int64_t shape[SP_MAX_RANK], joined = 1;
    int first = 0, last = x->rank - 1, rank = 0;
    if (c->n_attr) {
        SP_RETURN_IF(
            sp__dim_normalize(name_of(c), c->attr[SP_FLATTEN_START_DIM].v.i, x->rank, &first));
        SP_RETURN_IF(
            sp__dim_normalize(name_of(c), c->attr[SP_FLATTEN_END_DIM].v.i, x->rank, &last));
    }
    if (x->rank == 0) return sp_reshape(x, &joined, 1, &c->out[0]);
    if (last < first)
        return sp_fail(SP_EVALUE, "%s: end_dim %d stands before start_dim %d", name_of(c), last,
                       first);
    if (first == last) return sp_alias(x, &c->out[0]);
    for (int d = 0; d < first; d++) shape[rank++] = x->shape[d];
    for (int d = first; d <= last; d++) joined *= x->shape[d];
    shape[rank++] = joined;
    for (int d = last + 1; d < x->rank; d++) shape[rank++] = x->shape[d];
    return sp_reshape(x, shape, rank, &c->out[0]);
}

/* The sizes with their -1 replaced, so that it follows from one dimension and not from all. */
static sp_status unflattened(const sp_call *c, int64_t size, const sp_attr *sizes, int64_t *out)
{
    char text[SP_SHAPE_TEXT];
    int64_t known = 1;
    int open = -1;
    bool fits = sizes->n > 0;
    for (int i = 0; fits && i < sizes->n; i++) {
        out[i] = sizes->v.ints[i];
        if (out[i] == -1 && open < 0)
            open = i;
        else
            fits = out[i] >= 0 && !__builtin_mul_overflow(known, out[i], &known);
    }
    if (fits && open >= 0) {
        fits = known > 0 && size % known == 0;
        out[open] = fits ? size / known : 0, known = size;
    }
    if (fits && known == size) return SP_OK;
    return sp_fail(SP_ESHAPE, "%s: sizes %s do not fit a dimension of size %lld", name_of(c),
                   sp__shape_text(sizes->n, sizes->v.ints, text, sizeof text), (long long)size);
}

sp_status sp__body_unflatten(sp_call *c)
{
    const sp_tensor *x = c->in[0];
    const sp_attr *sizes = &c->attr[SP_UNFLATTEN_SIZES];
    int64_t shape[SP_MAX_RANK];
    int dim, n = sizes->n, rank = x->rank - 1 + n;
    SP_RETURN_IF(sp__check_has_dims(c, x));
    SP_RETURN_IF(sp__dim_normalize(name_of(c), c->attr[SP_UNFLATTEN_DIM].v.i, x->rank, &dim));
    if (rank > SP_MAX_RANK) return no_room(c, rank);
    SP_RETURN_IF(unflattened(c, x->shape[dim], sizes, shape + dim));
    for (int d = 0; d < dim; d++) shape[d] = x->shape[d];
    for (int d = dim + 1; d < x->rank; d++) shape[d - 1 + n] = x->shape[d];
    return sp_view(x, shape, rank, &c->out[0]);
}

sp_status sp__body_view_as(sp_call *c)
{
    return reshape_or_view(c, c->in[1]->shape, c->in[1]->rank, true);
}

sp_status sp__body_reshape_as(sp_call *c)
{
    return reshape_or_view(c, c->in[1]->shape, c->in[1]->rank, false);
}

sp_status sp__body_expand_as(sp_call *c)
{
    return sp_expand(c->in[0], c->in[1]->shape, c->in[1]->rank, &c->out[0]);
}

sp_status sp__body_broadcast_to(sp_call *c)
{
    const sp_attr *size = &c->attr[SP_BROADCAST_TO_SIZE];
    return sp_expand(c->in[0], size->v.ints, size->n, &c->out[0]);
}

/* place[i]: the dimension of x that is dimension i of the result, -1 while open. */
static sp_status place_moved(const sp_call *c, int rank, int *place, uint32_t *moved)
{
    const sp_attr *from = &c->attr[SP_MOVEDIM_SOURCE], *to = &c->attr[SP_MOVEDIM_DESTINATION];
    *moved = 0;
    if (from->n != to->n)
        return sp_fail(SP_ESHAPE, "%s: %d dimensions and %d places, expected as many", name_of(c),
                       from->n, to->n);
    for (int i = 0; i < rank; i++) place[i] = -1;
    for (int i = 0; i < from->n; i++) {
        int s, d;
        SP_RETURN_IF(sp__dim_normalize(name_of(c), from->v.ints[i], rank, &s));
        SP_RETURN_IF(sp__dim_normalize(name_of(c), to->v.ints[i], rank, &d));
        if ((*moved & 1u << s) || (rank && place[d] >= 0))
            return sp_fail(SP_EVALUE, "%s: dimension %d or place %d is named twice", name_of(c), s,
                           d);
        *moved |= 1u << s;
        if (rank) place[d] = s;
    }
    return SP_OK;
}

sp_status sp__body_movedim(sp_call *c)
{
    const sp_tensor *x = c->in[0];
    int place[SP_MAX_RANK], next = 0;
    int64_t dims[SP_MAX_RANK];
    uint32_t moved;
    SP_RETURN_IF(place_moved(c, x->rank, place, &moved));
    for (int i = 0; i < x->rank; i++) {
        while (place[i] < 0 && moved & 1u << next) next++;
        dims[i] = place[i] >= 0 ? place[i] : next++;
    }
    return sp_permute(x, dims, x->rank, &c->out[0]);
}

sp_status sp__body_swapaxes(sp_call *c)
{
    return sp_transpose(c->in[0], c->attr[0].v.i, c->attr[1].v.i, &c->out[0]);
}

sp_status sp__body_t(sp_call *c)
{
    const sp_tensor *x = c->in[0];
    if (x->rank > 2)
        return sp_fail(SP_ESHAPE, "%s: x has shape %s, expected two dimensions at most; use mT",
                       name_of(c), SP_SHAPE(x));
    return x->rank == 2 ? sp_transpose(x, 0, 1, &c->out[0]) : sp_alias(x, &c->out[0]);
}

/* ---- parts ----- */

sp_status sp__body_narrow(sp_call *c)
{
    const sp_tensor *x = c->in[0];
    int64_t start = c->attr[SP_NARROW_START].v.i, length = c->attr[SP_NARROW_LENGTH].v.i;
    int dim;
    SP_RETURN_IF(sp__check_has_dims(c, x));
    SP_RETURN_IF(sp__dim_normalize(name_of(c), c->attr[SP_NARROW_DIM].v.i, x->rank, &dim));
    int64_t size = x->shape[dim];
    if (start < -size || start > size)
        return sp_fail(SP_EINDEX, "%s: start %lld is out of range for dimension %d of size %lld",
                       name_of(c), (long long)start, dim, (long long)size);
    if (start < 0) start += size;
    if (length < 0 || length > size - start)
        return sp_fail(SP_EVALUE, "%s: %lld elements from %lld on in dimension %d of size %lld",
                       name_of(c), (long long)length, (long long)start, dim, (long long)size);
    return sp_slice(x, dim, start, start + length, NULL, &c->out[0]);
}

/* attr: offset, dim1, dim2 */
static sp_status diagonal_geometry(const sp_call *c, const sp_attr *attr, sp_meta *out)
{
    const sp_tensor *x = c->in[0];
    int64_t offset = attr[0].v.i;
    int a, b, rank = 0;
    SP_RETURN_IF(sp__check_has_dims(c, x));
    SP_RETURN_IF(sp__dim_normalize(name_of(c), attr[1].v.i, x->rank, &a));
    SP_RETURN_IF(sp__dim_normalize(name_of(c), attr[2].v.i, x->rank, &b));
    if (a == b)
        return sp_fail(SP_EVALUE, "%s: dim1 and dim2 are both dimension %d of x of shape %s",
                       name_of(c), a, SP_SHAPE(x));
    sp__meta_of(x, out);
    out->view_of = 0;
    for (int d = 0; d < x->rank; d++) {
        if (d == a || d == b) continue;
        out->shape[rank] = x->shape[d], out->stride[rank++] = x->stride[d];
    }
    int64_t rows = x->shape[a], columns = x->shape[b];
    if (offset >= 0)
        columns = offset < columns ? columns - offset : 0;
    else
        rows = offset > -rows ? rows + offset : 0;
    out->shape[rank] = rows < columns ? rows : columns;
    out->stride[rank] = x->stride[a] + x->stride[b];
    if (out->shape[rank] > 0)
        out->offset += offset >= 0 ? offset * x->stride[b] : -offset * x->stride[a];
    out->rank = (uint8_t)(rank + 1);
    sp__meta_update(out);
    return SP_OK;
}

sp_status sp__infer_diagonal(const sp_call *c, sp_meta *out)
{
    return diagonal_geometry(c, c->attr, out);
}

sp_status sp__infer_diagonal_scatter(const sp_call *c, sp_meta *out)
{
    const sp_tensor *x = c->in[0], *src = c->in[1];
    sp_meta part;
    char text[SP_SHAPE_TEXT];
    SP_RETURN_IF(diagonal_geometry(c, c->attr, &part));
    SP_RETURN_IF(sp__check_same_dtype(c, x, "x", src, "src"));
    SP_RETURN_IF(sp__check_devices(c));
    if (src->rank != part.rank || memcmp(src->shape, part.shape, sizeof(int64_t) * part.rank) != 0)
        return sp_fail(SP_ESHAPE, "%s: src has shape %s, expected that of the diagonal, %s",
                       name_of(c), SP_SHAPE(src),
                       sp__shape_text(part.rank, part.shape, text, sizeof text));
    return sp__infer_like(c, x, (sp_dtype)x->dtype, out);
}

sp_status sp__body_diag_embed(sp_call *c)
{
    const sp_tensor *x = c->in[0];
    int64_t offset = c->attr[SP_DIAG_EMBED_OFFSET].v.i, shape[SP_MAX_RANK];
    int a, b, rank = x->rank + 1, next = 0;
    sp_tensor *zeros = NULL;
    SP_RETURN_IF(sp__check_has_dims(c, x));
    if (rank > SP_MAX_RANK) return no_room(c, rank);
    SP_RETURN_IF(sp__dim_normalize(name_of(c), c->attr[SP_DIAG_EMBED_DIM1].v.i, rank, &a));
    SP_RETURN_IF(sp__dim_normalize(name_of(c), c->attr[SP_DIAG_EMBED_DIM2].v.i, rank, &b));
    if (a == b) return sp_fail(SP_EVALUE, "%s: dim1 and dim2 are both dimension %d", name_of(c), a);
    int64_t size = x->shape[x->rank - 1] + (offset < 0 ? -offset : offset);
    for (int d = 0; d < rank; d++) shape[d] = d == a || d == b ? size : x->shape[next++];
    const sp_full_opt like = {.size = sizeof like, .has_dtype = true, .dtype = (sp_dtype)x->dtype};
    const sp_diagonal_scatter_opt where = {
        .size = sizeof where, .offset = offset, .dim1 = a, .has_dim2 = true, .dim2 = b};
    SP_RETURN_IF(sp_full(shape, rank, SP_INT(0), &like, &zeros));
    sp_status status = sp_diagonal_scatter(zeros, x, &where, &c->out[0]);
    sp_drop(&zeros);
    return status;
}

sp_status sp__body_diag(sp_call *c)
{
    const sp_tensor *x = c->in[0];
    int64_t offset = c->attr[SP_DIAG_DIAGONAL].v.i;
    sp_tensor *view = NULL;
    if (x->rank == 1)
        return sp_diag_embed(
            x, &(sp_diag_embed_opt){.size = sizeof(sp_diag_embed_opt), .offset = offset},
            &c->out[0]);
    if (x->rank != 2)
        return sp_fail(SP_ESHAPE, "%s: x has shape %s, expected one dimension or two", name_of(c),
                       SP_SHAPE(x));
    SP_RETURN_IF(sp_diagonal(
        x, &(sp_diagonal_opt){.size = sizeof(sp_diagonal_opt), .offset = offset}, &view));
    sp_status status = sp_clone(view, &c->out[0]);
    sp_drop(&view);
    return status;
}

sp_status sp__infer_unfold(const sp_call *c, sp_meta *out)
{
    const sp_tensor *x = c->in[0];
    int64_t size = c->attr[SP_UNFOLD_SIZE].v.i, step = c->attr[SP_UNFOLD_STEP].v.i;
    int d;
    SP_RETURN_IF(sp__check_has_dims(c, x));
    SP_RETURN_IF(sp__dim_normalize(name_of(c), c->attr[SP_UNFOLD_DIMENSION].v.i, x->rank, &d));
    if (size < 0 || size > x->shape[d] || step < 1)
        return sp_fail(SP_EVALUE,
                       "%s: windows of %lld elements, one every %lld, of the %lld elements in "
                       "dimension %d; expected 0 to %lld, and a step of 1 or more",
                       name_of(c), (long long)size, (long long)step, (long long)x->shape[d], d,
                       (long long)x->shape[d]);
    if (x->rank == SP_MAX_RANK) return no_room(c, x->rank + 1);
    sp__meta_of(x, out);
    out->view_of = 0;
    out->shape[x->rank] = size, out->stride[x->rank] = x->stride[d];
    out->rank = (uint8_t)(x->rank + 1);
    out->shape[d] = (x->shape[d] - size) / step + 1;
    if (out->shape[d] > 1) out->stride[d] *= step;
    sp__meta_update(out);
    return SP_OK;
}

/* ---- copies ----- */

/* Dimension i of the result as (repeats, size), where neither is 1, so that expanding the first
 * repeats the second. */
sp_status sp__body_repeat(sp_call *c)
{
    const sp_tensor *x = c->in[0];
    const sp_attr *repeats = &c->attr[0];
    int64_t from[2 * SP_MAX_RANK], to[2 * SP_MAX_RANK], shape[SP_MAX_RANK];
    int n = repeats->n, lead = n - x->rank, rank = 0;
    sp_tensor *apart = NULL, *wide = NULL;
    sp_status status = SP_OK;
    if (lead < 0)
        return sp_fail(SP_ESHAPE,
                       "%s: %d repeats for x of shape %s, expected one a dimension or more",
                       name_of(c), n, SP_SHAPE(x));
    if (n > SP_MAX_RANK) return no_room(c, n);
    for (int i = 0; i < n; i++) {
        int64_t size = i < lead ? 1 : x->shape[i - lead], times = repeats->v.ints[i];
        if (times < 0)
            return sp_fail(SP_EVALUE, "%s: %lld repeats, expected 0 or more", name_of(c),
                           (long long)times);
        if (__builtin_mul_overflow(size, times, &shape[i]))
            return sp_fail(SP_EMEMORY, "%s: the result has more elements than can be counted",
                           name_of(c));
        if (times != 1) from[rank] = 1, to[rank++] = times;
        if (times == 1 || size != 1) from[rank] = to[rank] = size, rank++;
    }
    if (rank > SP_MAX_RANK) return no_room(c, rank);
    SP_TRY(sp_reshape(x, from, rank, &apart));
    SP_TRY(sp_expand(apart, to, rank, &wide));
    if (rank == n && apart->numel == wide->numel)
        SP_TRY(sp_clone(wide, &c->out[0]));
    else
        SP_TRY(sp_reshape(wide, shape, n, &c->out[0]));
    if (c->out[0]->storage && c->out[0]->storage == x->storage) { /* nothing was repeated */
        sp_tensor *view = c->out[0];
        c->out[0] = NULL;
        status = sp_clone(view, &c->out[0]);
        sp_drop(&view);
    }
out:
    sp_drop(&apart), sp_drop(&wide);
    return status;
}

sp_status sp__body_tile(sp_call *c)
{
    const sp_attr *dims = &c->attr[SP_TILE_DIMS];
    int64_t repeats[SP_MAX_RANK];
    int rank = c->in[0]->rank, n = dims->n > rank ? dims->n : rank;
    if (n > SP_MAX_RANK) return no_room(c, n);
    for (int i = 0; i < n; i++) repeats[i] = i < n - dims->n ? 1 : dims->v.ints[i - (n - dims->n)];
    return sp_repeat(c->in[0], repeats, n, &c->out[0]);
}

sp_status sp__infer_flip(const sp_call *c, sp_meta *out)
{
    const sp_tensor *x = c->in[0];
    uint32_t mask;
    if (c->attr[SP_FLIP_DIMS].n)
        SP_RETURN_IF(sp__dim_mask(name_of(c), &c->attr[SP_FLIP_DIMS], x->rank, &mask));
    return sp__infer_like(c, x, (sp_dtype)x->dtype, out);
}

static sp_status flip_along(sp_call *c, int64_t dim)
{
    if (c->in[0]->rank <= dim)
        return sp_fail(SP_ESHAPE, "%s: x has shape %s, expected %d dimensions or more", name_of(c),
                       SP_SHAPE(c->in[0]), (int)dim + 1);
    return sp_flip(c->in[0], &dim, 1, &c->out[0]);
}

sp_status sp__body_fliplr(sp_call *c)
{
    return flip_along(c, 1);
}

sp_status sp__body_flipud(sp_call *c)
{
    return flip_along(c, 0);
}

/* x moved on by `shift` along one dimension: its end, then its beginning. */
static sp_status rolled(const sp_tensor *x, int64_t shift, int dim, sp_tensor **out)
{
    int64_t size = x->shape[dim];
    sp_tensor *parts[2] = {NULL, NULL};
    sp_status status = SP_OK;
    shift = size ? shift % size : 0;
    if (shift < 0) shift += size;
    if (shift == 0) return sp_clone(x, out);
    SP_TRY(sp_slice(x, dim, size - shift, size, NULL, &parts[0]));
    SP_TRY(sp_slice(x, dim, 0, size - shift, NULL, &parts[1]));
    SP_TRY(sp_cat((const sp_tensor *const *)parts, 2,
                  &(sp_cat_opt){.size = sizeof(sp_cat_opt), .dim = dim}, out));
out:
    sp_drop(&parts[0]), sp_drop(&parts[1]);
    return status;
}

static sp_status rolled_flat(const sp_tensor *x, int64_t shift, sp_tensor **out)
{
    sp_tensor *flat = NULL, *moved = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp_reshape(x, &x->numel, 1, &flat));
    SP_TRY(rolled(flat, shift, 0, &moved));
    SP_TRY(sp_reshape(moved, x->shape, x->rank, out));
out:
    sp_drop(&flat), sp_drop(&moved);
    return status;
}

sp_status sp__body_roll(sp_call *c)
{
    const sp_attr *shifts = &c->attr[SP_ROLL_SHIFTS], *dims = &c->attr[SP_ROLL_DIMS];
    sp_tensor *now = sp__retain(c->in[0]), *next = NULL;
    sp_status status = SP_OK;
    if (dims->n == 0 && shifts->n == 1) {
        SP_TRY(rolled_flat(now, shifts->v.ints[0], &c->out[0]));
        goto out;
    }
    if (dims->n != shifts->n || dims->n == 0)
        SP_TRY(sp_fail(SP_ESHAPE, "%s: %d shifts and %d dims, expected one shift a dimension",
                       name_of(c), shifts->n, dims->n));
    SP_TRY(sp__check_has_dims(c, now));
    for (int i = 0; i < dims->n; i++) {
        int dim;
        SP_TRY(sp__dim_normalize(name_of(c), dims->v.ints[i], now->rank, &dim));
        SP_TRY(rolled(now, shifts->v.ints[i], dim, &next));
        sp_drop(&now);
        now = next, next = NULL;
    }
    c->out[0] = sp__retain(now);
out:
    sp_drop(&now);
    return status;
}

sp_status sp__infer_triangle(const sp_call *c, sp_meta *out)
{
    const sp_tensor *x = c->in[0];
    if (x->rank >= 2) return sp__infer_like(c, x, (sp_dtype)x->dtype, out);
    return sp_fail(SP_ESHAPE, "%s: x has shape %s, expected two dimensions or more", name_of(c),
                   SP_SHAPE(x));
}
