/* Inference for views, and for the ops that replace a part of a tensor. */
#include <string.h>

#include "ops/attr.h"
#include "ops/infer.h"
#include "ops_gen.h"

/* All of x; the caller changes geometry from there. */
static void view_of_input(const sp_call *c, sp_meta *out)
{
    sp__meta_of(c->in[0], out);
    out->view_of = 0;
}

sp_status sp__infer_alias(const sp_call *c, sp_meta *out)
{
    view_of_input(c, out);
    return SP_OK;
}

sp_status sp__infer_contiguous(const sp_call *c, sp_meta *out)
{
    if (c->in[0]->flags & SP_T_CONTIGUOUS) return sp__infer_alias(c, out);
    return sp__infer_like(c, c->in[0], (sp_dtype)c->in[0]->dtype, out);
}

/* ---- view, reshape ----- */

static sp_status no_such_shape(const sp_call *c)
{
    const sp_tensor *x = c->in[0];
    char text[SP_SHAPE_TEXT];
    return sp_fail(SP_ESHAPE, "%s: shape %s does not fit the %lld elements of x of shape %s",
                   sp__op_name(c),
                   sp__shape_text(c->attr[0].n, c->attr[0].v.ints, text, sizeof text),
                   (long long)x->numel, SP_SHAPE(x));
}

static sp_status too_many_dims(const sp_call *c, int n)
{
    return sp_fail(SP_ESHAPE, "%s: %d dimensions, at most %d are possible", sp__op_name(c), n,
                   SP_MAX_RANK);
}

/* The asked shape, with its -1 replaced, into out. */
static sp_status resolve_shape(const sp_call *c, sp_meta *out)
{
    const int64_t *shape = c->attr[0].v.ints, numel = c->in[0]->numel;
    int n = c->attr[0].n, open = -1;
    int64_t known = 1;
    if (n > SP_MAX_RANK) return too_many_dims(c, n);
    for (int i = 0; i < n; i++) {
        out->shape[i] = shape[i];
        if (shape[i] == -1 && open < 0)
            open = i;
        else if (shape[i] < 0 || __builtin_mul_overflow(known, shape[i], &known))
            return no_such_shape(c);
    }
    if (open >= 0) {
        if (known == 0 || numel % known) return no_such_shape(c);
        out->shape[open] = numel / known;
        known = numel;
    }
    if (known != numel) return no_such_shape(c);
    out->rank = (uint8_t)n;
    return SP_OK;
}

/* *fits: the shape is a view of x, which is then in out. */
static sp_status infer_shape(const sp_call *c, sp_meta *out, bool *fits)
{
    const sp_tensor *x = c->in[0];
    SP_RETURN_IF(resolve_shape(c, out));
    *fits = sp__view_strides(x, out->rank, out->shape, out->stride);
    out->dtype = x->dtype, out->device = x->device;
    out->view_of = 0, out->offset = x->offset, out->numel = x->numel;
    if (*fits && x->flags & SP_T_CONTIGUOUS)
        out->contiguous = true;
    else if (*fits)
        sp__meta_update(out);
    return SP_OK;
}

sp_status sp__infer_view(const sp_call *c, sp_meta *out)
{
    bool fits;
    char text[SP_SHAPE_TEXT];
    SP_RETURN_IF(infer_shape(c, out, &fits));
    if (fits) return SP_OK;
    return sp_fail(
        SP_EVALUE,
        "%s: x of shape %s and strides %s has no view of shape %s; use reshape(), which copies",
        sp__op_name(c), SP_SHAPE(c->in[0]),
        sp__shape_text(c->in[0]->rank, c->in[0]->stride, text, sizeof text), SP_SHAPE(out));
}

sp_status sp__infer_reshape(const sp_call *c, sp_meta *out)
{
    bool fits;
    SP_RETURN_IF(infer_shape(c, out, &fits));
    return fits ? SP_OK : sp__infer_dense(c, (sp_dtype)out->dtype, out->device, out);
}

/* ---- order and number of dimensions ----- */

sp_status sp__infer_transpose(const sp_call *c, sp_meta *out)
{
    int a, b;
    view_of_input(c, out);
    SP_RETURN_IF(sp__dim_normalize(sp__op_name(c), c->attr[SP_TRANSPOSE_DIM0].v.i, out->rank, &a));
    SP_RETURN_IF(sp__dim_normalize(sp__op_name(c), c->attr[SP_TRANSPOSE_DIM1].v.i, out->rank, &b));
    if (a == b) return SP_OK;
    int64_t size = out->shape[a], stride = out->stride[a];
    out->shape[a] = out->shape[b], out->stride[a] = out->stride[b];
    out->shape[b] = size, out->stride[b] = stride;
    sp__meta_update(out);
    return SP_OK;
}

sp_status sp__infer_permute(const sp_call *c, sp_meta *out)
{
    const sp_tensor *x = c->in[0];
    const sp_attr *dims = &c->attr[SP_PERMUTE_DIMS];
    uint32_t seen = 0;
    view_of_input(c, out);
    if (dims->n != x->rank)
        return sp_fail(SP_ESHAPE, "%s: %d dims for x of shape %s, expected %d, each dimension once",
                       sp__op_name(c), dims->n, SP_SHAPE(x), x->rank);
    for (int i = 0; i < x->rank; i++) {
        int d;
        SP_RETURN_IF(sp__dim_normalize(sp__op_name(c), dims->v.ints[i], x->rank, &d));
        if (seen & 1u << d)
            return sp_fail(SP_EVALUE, "%s: dimension %d is named twice; name each dimension once",
                           sp__op_name(c), d);
        seen |= 1u << d;
        out->shape[i] = x->shape[d], out->stride[i] = x->stride[d];
    }
    sp__meta_update(out);
    return SP_OK;
}

sp_status sp__infer_unsqueeze(const sp_call *c, sp_meta *out)
{
    const sp_tensor *x = c->in[0];
    int d, rank = x->rank;
    if (rank == SP_MAX_RANK) return too_many_dims(c, rank + 1);
    SP_RETURN_IF(sp__dim_normalize(sp__op_name(c), c->attr[SP_UNSQUEEZE_DIM].v.i, rank + 1, &d));
    view_of_input(c, out);
    out->rank = (uint8_t)(rank + 1);
    for (int i = rank; i > d; i--)
        out->shape[i] = x->shape[i - 1], out->stride[i] = x->stride[i - 1];
    out->shape[d] = 1;
    out->stride[d] = d < rank ? x->shape[d] * x->stride[d] : 1;
    return SP_OK;
}

sp_status sp__infer_squeeze(const sp_call *c, sp_meta *out)
{
    const sp_tensor *x = c->in[0];
    uint32_t mask;
    int rank = 0;
    if (c->attr[SP_SQUEEZE_DIM].absent)
        mask = ~0u;
    else if (c->attr[SP_SQUEEZE_DIM].n == 0)
        mask = 0;
    else
        SP_RETURN_IF(sp__dim_mask(sp__op_name(c), &c->attr[SP_SQUEEZE_DIM], x->rank, &mask));
    view_of_input(c, out);
    for (int d = 0; d < x->rank; d++) {
        if (x->shape[d] == 1 && mask >> d & 1) continue;
        out->shape[rank] = x->shape[d], out->stride[rank++] = x->stride[d];
    }
    out->rank = (uint8_t)rank;
    return SP_OK;
}

/* ---- expand ----- */

static sp_status no_expansion(const sp_call *c)
{
    char text[SP_SHAPE_TEXT];
    return sp_fail(SP_ESHAPE,
                   "%s: x of shape %s does not expand to %s; aligned at the right, its sizes must "
                   "be equal or 1, and -1 keeps one of them",
                   sp__op_name(c), SP_SHAPE(c->in[0]),
                   sp__shape_text(c->attr[0].n, c->attr[0].v.ints, text, sizeof text));
}

sp_status sp__infer_expand(const sp_call *c, sp_meta *out)
{
    const sp_tensor *x = c->in[0];
    const int64_t *size = c->attr[SP_EXPAND_SIZE].v.ints;
    int n = c->attr[SP_EXPAND_SIZE].n, lead = n - x->rank;
    int64_t numel = 1;
    if (n > SP_MAX_RANK) return too_many_dims(c, n);
    if (lead < 0) return no_expansion(c);
    for (int i = 0; i < n; i++) {
        int64_t have = i < lead ? 1 : x->shape[i - lead],
                want = size[i] == -1 && i >= lead ? have : size[i];
        if (want < 0 || (want != have && have != 1)) return no_expansion(c);
        out->shape[i] = want;
        out->stride[i] = i < lead || want != have ? 0 : x->stride[i - lead];
        if (__builtin_mul_overflow(numel, want, &numel))
            return sp_fail(
                SP_EMEMORY, "%s: a result of shape %s has more elements than can be counted",
                sp__op_name(c), sp__shape_text(n, size, (char[SP_SHAPE_TEXT]){0}, SP_SHAPE_TEXT));
    }
    out->rank = (uint8_t)n, out->dtype = x->dtype, out->device = x->device;
    out->view_of = 0, out->offset = x->offset;
    sp__meta_update(out);
    return SP_OK;
}

/* ---- slice, select, and replacing such a part ----- */

static int64_t clamp_bound(int64_t at, int64_t size)
{
    if (at < 0) at += size;
    return at < 0 ? 0 : at > size ? size : at;
}

/* attr: dim, start, end, step. */
static sp_status slice_geometry(const sp_call *c, const sp_attr *attr, sp_meta *out)
{
    const sp_tensor *x = c->in[0];
    int d;
    SP_RETURN_IF(sp__check_has_dims(c, x));
    SP_RETURN_IF(sp__dim_normalize(sp__op_name(c), attr[0].v.i, x->rank, &d));
    int64_t size = x->shape[d], step = attr[3].v.i;
    int64_t start = clamp_bound(attr[1].v.i, size), end = clamp_bound(attr[2].v.i, size);
    if (step < 1)
        return sp_fail(SP_EVALUE, "%s: step is %lld, expected 1 or more", sp__op_name(c),
                       (long long)step);
    view_of_input(c, out);
    out->shape[d] = end > start ? (end - start - 1) / step + 1 : 0;
    out->offset += start * x->stride[d];
    if (out->shape[d] > 1) out->stride[d] *= step; /* a huge step over one element would overflow */
    sp__meta_update(out);
    return SP_OK;
}

static sp_status select_geometry(const sp_call *c, const sp_attr *attr, sp_meta *out)
{
    const sp_tensor *x = c->in[0];
    int d;
    SP_RETURN_IF(sp__check_has_dims(c, x));
    SP_RETURN_IF(sp__dim_normalize(sp__op_name(c), attr[0].v.i, x->rank, &d));
    int64_t size = x->shape[d], index = attr[1].v.i;
    if (index < -size || index >= size)
        return sp_fail(SP_EINDEX, "%s: index %lld is out of range for dimension %d of size %lld",
                       sp__op_name(c), (long long)index, d, (long long)size);
    view_of_input(c, out);
    out->offset += (index < 0 ? index + size : index) * x->stride[d];
    out->rank--;
    for (int i = d; i < out->rank; i++)
        out->shape[i] = x->shape[i + 1], out->stride[i] = x->stride[i + 1];
    sp__meta_update(out);
    return SP_OK;
}

sp_status sp__infer_slice(const sp_call *c, sp_meta *out)
{
    return slice_geometry(c, c->attr, out);
}

sp_status sp__infer_select(const sp_call *c, sp_meta *out)
{
    return select_geometry(c, c->attr, out);
}

/* src (input 1) takes the place of a part of x. */
static sp_status replaced(const sp_call *c, int part_rank, const int64_t *part_shape, sp_meta *out)
{
    const sp_tensor *x = c->in[0], *src = c->in[1];
    char text[SP_SHAPE_TEXT];
    SP_RETURN_IF(sp__check_same_dtype(c, x, "x", src, "src"));
    SP_RETURN_IF(sp__check_devices(c));
    if (src->rank != part_rank ||
        (part_rank && memcmp(src->shape, part_shape, sizeof(int64_t) * (size_t)part_rank) != 0))
        return sp_fail(SP_ESHAPE, "%s: src has shape %s, expected that of the part it replaces, %s",
                       sp__op_name(c), SP_SHAPE(src),
                       sp__shape_text(part_rank, part_shape, text, sizeof text));
    return sp__infer_like(c, x, (sp_dtype)x->dtype, out);
}

sp_status sp__infer_slice_scatter(const sp_call *c, sp_meta *out)
{
    sp_meta part;
    SP_RETURN_IF(slice_geometry(c, c->attr, &part));
    return replaced(c, part.rank, part.shape, out);
}

sp_status sp__infer_select_scatter(const sp_call *c, sp_meta *out)
{
    sp_meta part;
    SP_RETURN_IF(select_geometry(c, c->attr, &part));
    return replaced(c, part.rank, part.shape, out);
}

/* ---- strides by hand ----- */

/* size and stride into m, with numel and contiguous; *last is the farthest element from the first,
 * -1 for none. */
static sp_status strided_geometry(const sp_call *c, sp_meta *m, int64_t *last)
{
    const sp_attr *size = &c->attr[SP_AS_STRIDED_SIZE], *stride = &c->attr[SP_AS_STRIDED_STRIDE];
    int64_t bytes = (int64_t)sp_dtype_size((sp_dtype)c->in[0]->dtype), reach = 0, numel = 1;
    if (size->n > SP_MAX_RANK) return too_many_dims(c, size->n);
    if (size->n != stride->n)
        return sp_fail(SP_ESHAPE, "%s: %d sizes and %d strides, expected one stride a size",
                       sp__op_name(c), size->n, stride->n);
    m->rank = (uint8_t)size->n;
    for (int i = 0; i < size->n; i++) {
        int64_t n = m->shape[i] = size->v.ints[i], s = m->stride[i] = stride->v.ints[i], span;
        if (n < 0)
            return sp_fail(SP_ESHAPE, "%s: size %lld is negative", sp__op_name(c), (long long)n);
        if (s < 0)
            return sp_fail(SP_EVALUE, "%s: stride %lld is negative, expected 0 or more",
                           sp__op_name(c), (long long)s);
        if (__builtin_mul_overflow(numel, n, &numel) ||
            __builtin_mul_overflow(n > 0 ? n - 1 : 0, s, &span) ||
            __builtin_add_overflow(reach, span, &reach) || reach > INT64_MAX / bytes - 1)
            return sp_fail(SP_EMEMORY, "%s: size and stride name elements beyond any memory",
                           sp__op_name(c));
    }
    sp__meta_update(m);
    *last = m->numel ? reach : -1;
    return SP_OK;
}

static sp_status strided_offset(const sp_call *c, int64_t absent, int64_t *offset)
{
    const sp_attr *a = &c->attr[SP_AS_STRIDED_STORAGE_OFFSET];
    *offset = a->absent ? absent : a->v.i;
    if (*offset >= 0) return SP_OK;
    return sp_fail(SP_EVALUE, "%s: storage_offset is %lld, expected 0 or more", sp__op_name(c),
                   (long long)*offset);
}

static sp_status leaves(const sp_call *c, int64_t offset, int64_t last, const char *what, int64_t n)
{
    if (last < 0 || (offset < n && last < n - offset)) return SP_OK;
    return sp_fail(SP_EINDEX, "%s: elements %lld to %lld are asked for, %s has %lld",
                   sp__op_name(c), (long long)offset,
                   (long long)(offset > INT64_MAX - last ? INT64_MAX : offset + last), what,
                   (long long)n);
}

sp_status sp__infer_as_strided(const sp_call *c, sp_meta *out)
{
    const sp_tensor *x = c->in[0];
    int64_t last;
    view_of_input(c, out);
    SP_RETURN_IF(strided_geometry(c, out, &last));
    SP_RETURN_IF(strided_offset(c, x->offset, &out->offset));
    if (!x->storage) return SP_OK; /* a handle of a level: checked where the bytes are */
    int64_t bytes = (int64_t)sp_dtype_size((sp_dtype)x->dtype);
    return leaves(c, out->offset, last, "the storage", (int64_t)x->storage->nbytes / bytes);
}

sp_status sp__infer_as_strided_scatter(const sp_call *c, sp_meta *out)
{
    const sp_tensor *x = c->in[0];
    sp_meta part;
    sp_tensor probe = {.dtype = x->dtype};
    int64_t last, offset;
    SP_RETURN_IF(strided_geometry(c, &part, &last));
    SP_RETURN_IF(strided_offset(c, 0, &offset));
    SP_RETURN_IF(leaves(c, offset, last, "x", x->numel));
    if (!(x->flags & SP_T_CONTIGUOUS))
        return sp_fail(SP_EVALUE,
                       "%s: x of shape %s is not dense in row-major order; use x.contiguous()",
                       sp__op_name(c), SP_SHAPE(x));
    probe.rank = part.rank, probe.numel = part.numel,
    probe.flags = part.contiguous ? SP_T_CONTIGUOUS : 0;
    memcpy(probe.shape, part.shape, sizeof(int64_t) * part.rank);
    memcpy(probe.stride, part.stride, sizeof(int64_t) * part.rank);
    if (sp__overlaps_itself(&probe))
        return sp_fail(
            SP_EVALUE,
            "%s: size and stride name an element twice, so that it is open which value it gets",
            sp__op_name(c));
    return replaced(c, part.rank, part.shape, out);
}
