/* Geometry: shapes, strides, overlap, broadcasting. Nothing here touches bytes.
 */
#include <stdio.h>
#include <string.h>

#include "tensor/tensor.h"

/* ---- filling in ----- */

static void dense_strides(int rank, const int64_t *shape, int64_t *stride)
{
    int64_t step = 1;
    for (int i = rank - 1; i >= 0; i--) {
        stride[i] = step;
        step *= shape[i] > 1 ? shape[i] : 1;
    }
}

static bool is_contiguous(int rank, const int64_t *shape, const int64_t *stride, int64_t numel)
{
    int64_t step = 1;
    if (numel == 0) return true;
    for (int i = rank - 1; i >= 0; i--) {
        if (shape[i] == 1) continue;
        if (stride[i] != step) return false;
        step *= shape[i];
    }
    return true;
}

/* Strides of shapes such as (0, 2^62, 2^62) must not overflow either: sizes of 0 count as 1
 * there. */
static bool count_elements(int rank, const int64_t *shape, size_t elem_bytes, int64_t *numel)
{
    int64_t n = 1, bytes = (int64_t)elem_bytes;
    bool empty = false;
    for (int i = 0; i < rank; i++) {
        if (shape[i] == 0)
            empty = true;
        else if (__builtin_mul_overflow(bytes, shape[i], &bytes))
            return false;
        else
            n *= shape[i];
    }
    *numel = empty ? 0 : n;
    return true;
}

static sp_status too_large(const char *op, int rank, const int64_t *shape)
{
    char text[SP_SHAPE_TEXT];
    return sp_fail(SP_EMEMORY,
                   "%s: a tensor of shape %s is too large: its size in bytes overflows 64 bits", op,
                   sp__shape_text(rank, shape, text, sizeof text));
}

sp_status sp__meta_dense(sp_meta *m, const char *op)
{
    for (int i = 0; i < m->rank; i++) {
        if (SP_LIKELY(m->shape[i] >= 0)) continue;
        char text[SP_SHAPE_TEXT];
        return sp_fail(SP_ESHAPE,
                       "%s: shape %s has a negative size; sizes count elements and are 0 or more",
                       op, sp__shape_text(m->rank, m->shape, text, sizeof text));
    }
    if (SP_UNLIKELY(!count_elements(m->rank, m->shape, sp_dtype_size(m->dtype), &m->numel)))
        return too_large(op, m->rank, m->shape);
    dense_strides(m->rank, m->shape, m->stride);
    m->contiguous = true;
    return SP_OK;
}

void sp__meta_places(const sp_meta *m, int64_t from, int64_t *places)
{
    int64_t at[SP_MAX_RANK] = {0}, place = m->offset - from;
    for (int64_t i = 0; i < m->numel; i++) {
        places[i] = place;
        for (int d = m->rank - 1; d >= 0; d--) {
            place += m->stride[d];
            if (++at[d] < m->shape[d]) break;
            place -= m->stride[d] * m->shape[d], at[d] = 0;
        }
    }
}

void sp__meta_update(sp_meta *m)
{
    int64_t n = 1;
    for (int i = 0; i < m->rank; i++) n *= m->shape[i];
    m->numel = n;
    m->contiguous = is_contiguous(m->rank, m->shape, m->stride, n);
}

/* ---- views ----- */

/* Walks both shapes from the right. A run of t's dimensions that is dense in itself (stride[d] =
 * size * stride of the next) can be cut into any new dimensions whose product is the run's;
 * where a run ends, a new dimension must end, too. */
bool sp__view_strides(const sp_tensor *t, int rank, const int64_t *shape, int64_t *stride)
{
    if (t->flags & SP_T_CONTIGUOUS) {
        dense_strides(rank, shape, stride);
        return true;
    }
    int next = rank - 1;
    int64_t run_numel = 1, view_numel = 1, step = t->rank ? t->stride[t->rank - 1] : 1;
    for (int d = t->rank - 1; d >= 0; d--) {
        run_numel *= t->shape[d];
        bool run_ends = d == 0 || (t->shape[d - 1] != 1 && t->stride[d - 1] != run_numel * step);
        if (!run_ends) continue;
        while (next >= 0 && (view_numel < run_numel || shape[next] == 1)) {
            stride[next] = view_numel * step;
            view_numel *= shape[next--];
        }
        if (view_numel != run_numel) return false;
        if (d == 0) break;
        step = t->stride[d - 1];
        run_numel = view_numel = 1;
    }
    return next < 0;
}

/* Dimensions of more than one element, largest stride first. */
static int sorted_dims(const sp_tensor *t, int *dims)
{
    int n = 0;
    for (int i = 0; i < t->rank; i++) {
        if (t->shape[i] <= 1) continue;
        int at = n++;
        for (; at > 0 && t->stride[dims[at - 1]] < t->stride[i]; at--) dims[at] = dims[at - 1];
        dims[at] = i;
    }
    return n;
}

/* Index of the farthest element among the given dims, counted from the first. */
static int64_t reach(const sp_tensor *t, const int *dims, int n)
{
    int64_t last = 0;
    for (int i = 0; i < n; i++) last += (t->shape[dims[i]] - 1) * t->stride[dims[i]];
    return last;
}

/* Free of overlap when each stride exceeds all that the smaller ones can reach. Sets of strides
 * that interleave without meeting (2 and 3 over sizes 2 and 2) count as overlapping: only
 * as_strided makes them. */
bool sp__overlaps_itself(const sp_tensor *t)
{
    int dims[SP_MAX_RANK];
    if ((t->flags & SP_T_CONTIGUOUS) || t->numel == 0) return false;
    int n = sorted_dims(t, dims);
    for (int i = 0; i < n; i++)
        if (t->stride[dims[i]] <= reach(t, dims + i + 1, n - i - 1)) return true;
    return false;
}

/* Whether two indices of t are `distance` elements apart. With nested strides, the multiple of
 * the largest stride is one of the two nearest, so the search has two branches a dimension and
 * nearly all of them die at once. */
static bool distance_occurs(const sp_tensor *t, const int *dims, int n, int64_t distance)
{
    if (distance < 0) distance = -distance;
    if (n == 0) return distance == 0;
    if (distance > reach(t, dims, n)) return false;
    int64_t step = t->stride[dims[0]], most = t->shape[dims[0]] - 1;
    if (step == 0) return distance == 0;
    int64_t k = distance / step;
    return (k <= most && distance_occurs(t, dims + 1, n - 1, distance - k * step)) ||
           (k + 1 <= most && distance_occurs(t, dims + 1, n - 1, distance - (k + 1) * step));
}

static bool same_geometry(const sp_tensor *a, const sp_tensor *b)
{
    return a->dtype == b->dtype && a->rank == b->rank &&
           memcmp(a->shape, b->shape, sizeof(int64_t) * a->rank) == 0 &&
           memcmp(a->stride, b->stride, sizeof(int64_t) * a->rank) == 0;
}

bool sp__may_overlap(const sp_tensor *a, const sp_tensor *b)
{
    int da[SP_MAX_RANK], db[SP_MAX_RANK];
    if (!a->storage || !b->storage || a->numel == 0 || b->numel == 0) return false;
    if (a->storage != b->storage && (!a->storage->data || !b->storage->data)) return false;
    int na = sorted_dims(a, da), nb = sorted_dims(b, db);
    int64_t size_a = (int64_t)sp_dtype_size(a->dtype), size_b = (int64_t)sp_dtype_size(b->dtype);
    /* Addresses, not storages, because two foreign storages can wrap the same memory. */
    intptr_t base_a = (intptr_t)a->storage->data, base_b = (intptr_t)b->storage->data;
    intptr_t lo_a = base_a + a->offset * size_a, hi_a = lo_a + (reach(a, da, na) + 1) * size_a;
    intptr_t lo_b = base_b + b->offset * size_b, hi_b = lo_b + (reach(b, db, nb) + 1) * size_b;
    if (hi_a <= lo_b || hi_b <= lo_a) return false;
    if (!same_geometry(a, b) || (lo_b - lo_a) % size_a || sp__overlaps_itself(a)) return true;
    return distance_occurs(a, da, na, (lo_b - lo_a) / size_a);
}

/* ---- text, dims, broadcasting ----- */

const char *sp__shape_text(int rank, const int64_t *shape, char *buf, size_t n)
{
    size_t at = 0;
    if (n == 0) return buf;
    buf[0] = '\0';
    for (int i = -1; i <= rank && at < n; i++) {
        int wrote = i < 0 ? snprintf(buf + at, n - at, "(")
                    : i == rank
                        ? snprintf(buf + at, n - at, rank == 1 ? ",)" : ")")
                        : snprintf(buf + at, n - at, i ? ", %lld" : "%lld", (long long)shape[i]);
        at += (size_t)wrote;
    }
    if (at >= n && n > 3) strcpy(buf + n - 4, "...");
    return buf;
}

sp_status sp__dim_normalize(const char *op, int64_t dim, int rank, int *out)
{
    int64_t span = rank ? rank : 1;
    if (SP_UNLIKELY(dim < -span || dim >= span))
        return sp_fail(
            SP_EINDEX,
            "%s: dim %lld is out of range for a tensor of %d dimension%s; expected %lld to %lld",
            op, (long long)dim, rank, rank == 1 ? "" : "s", (long long)-span, (long long)span - 1);
    *out = (int)(dim < 0 ? dim + span : dim);
    return SP_OK;
}

static sp_status no_broadcast(const char *op, sp_tensor *const *in, int n)
{
    char text[640], shape[SP_SHAPE_TEXT];
    size_t at = 0;
    text[0] = '\0';
    for (int i = 0; i < n && at < sizeof text; i++) {
        if (!in[i]) continue;
        at += (size_t)snprintf(text + at, sizeof text - at, "%s%s", at ? " and " : "",
                               sp__shape_text(in[i]->rank, in[i]->shape, shape, sizeof shape));
    }
    return sp_fail(SP_ESHAPE,
                   "%s: %s do not broadcast; aligned at the right, sizes must be equal or 1", op,
                   text);
}

sp_status sp__broadcast(const char *op, sp_tensor *const *in, int n, sp_meta *out)
{
    int widest = -1, rank = 0;
    for (int i = 0; i < n; i++)
        if (in[i] && (widest < 0 || in[i]->rank > rank)) rank = in[widest = i]->rank;
    for (int d = 0; d < rank; d++) out->shape[d] = in[widest]->shape[d];
    for (int i = 0; i < n; i++) {
        if (!in[i] || i == widest) continue;
        int64_t *to = out->shape + (rank - in[i]->rank);
        for (int d = 0; d < in[i]->rank; d++) {
            int64_t size = in[i]->shape[d];
            if (size == to[d] || size == 1) continue;
            if (SP_UNLIKELY(to[d] != 1)) return no_broadcast(op, in, n);
            to[d] = size;
        }
    }
    out->rank = (uint8_t)rank;
    out->view_of = -1;
    out->offset = 0;
    out->contiguous = true;
    /* Two huge expanded tensors can broadcast to more than can be counted. */
    if (SP_UNLIKELY(!count_elements(rank, out->shape, sizeof(double), &out->numel)))
        return too_large(op, rank, out->shape);
    dense_strides(rank, out->shape, out->stride);
    return SP_OK;
}

void sp__tensor_check(const sp_tensor *t)
{
    SP_ASSERT(t->refs > 0);
    SP_ASSERT(t->rank <= SP_MAX_RANK && t->dtype < SP_DTYPE_COUNT);
    SP_ASSERT((t->storage != NULL) != (t->wrap != NULL));
    SP_ASSERT(((t->flags & SP_T_WRAPPED) != 0) == (t->wrap != NULL));
    SP_ASSERT(((t->flags & SP_T_META) != 0) == (t->grad_meta != NULL));
    int64_t n = 1, last = t->offset;
    for (int i = 0; i < t->rank; i++) {
        SP_ASSERT(t->shape[i] >= 0 && t->stride[i] >= 0);
        n *= t->shape[i];
        last += (t->shape[i] - 1) * t->stride[i];
    }
    SP_ASSERT(n == t->numel);
    SP_ASSERT(((t->flags & SP_T_CONTIGUOUS) != 0) ==
              is_contiguous(t->rank, t->shape, t->stride, n));
    SP_ASSERT(
        !t->storage || n == 0 ||
        (t->offset >= 0 && (size_t)(last + 1) * sp_dtype_size(t->dtype) <= t->storage->nbytes));
    (void)last;
}
