/* sort, topk, kthvalue and the middle.
 *
 * Elements become unsigned keys whose order is theirs: NaN is the largest, -0 and 0 are equal. In
 * descending order the keys' bits are flipped, so that NaN comes first. Keys are sorted together
 * with positions, stably: short sequences by merging, long ones byte by byte (radix), bytes that
 * all keys share left out. So the result is one and the same whatever the algorithm. One of a given
 * rank is found likewise, byte by byte from the first, among those that share them.
 */
#include <stdatomic.h>
#include <string.h>

#include "backends/cpu/kernels.h"
#include "backends/cpu/lanes.h"
#include "backends/cpu/pool.h"
#include "backends/cpu/reduce.h"
#include "backends/cpu/sort.h"
#include "backends/cpu/strided.h"
#include "ops/op.h"
#include "ops_gen.h"
#include "tensor/memory.h"

enum {
    BLOCK = 256,
    RUN = 16,        /* sorted by insertion */
    RADIX_MIN = 512, /* shorter sequences are merged */
    FEW = 64,        /* so many best ones are kept in order while looking at the others, ... */
    GROUP = 16       /* ... so many at once */
};

/* ---- keys ----- */

static uint64_t key_of_f64(double x)
{
    uint64_t bits;
    if (x != x) return UINT64_MAX;
    x += 0.0; /* -0 becomes 0 */
    memcpy(&bits, &x, sizeof bits);
    return bits >> 63 ? ~bits : bits | UINT64_C(1) << 63;
}

static uint64_t key_of_f32(float x)
{
    uint32_t bits;
    if (x != x) return UINT32_MAX;
    x += 0.0f;
    memcpy(&bits, &x, sizeof bits);
    return bits >> 31 ? (uint32_t)~bits : bits | UINT32_C(1) << 31;
}

static uint64_t key_of_i64(int64_t x)
{
    return (uint64_t)x ^ UINT64_C(1) << 63;
}

static void keys_of(int dtype, const void *p, int64_t n, int64_t first, bool flip, entry *out)
{
    uint64_t mask = !flip ? 0 : dtype == SP_FLOAT32 ? UINT32_MAX : UINT64_MAX;
    for (int64_t i = 0; i < n; i++) {
        uint64_t key = dtype == SP_FLOAT32   ? key_of_f32(((const float *)p)[i])
                       : dtype == SP_FLOAT64 ? key_of_f64(((const double *)p)[i])
                                             : key_of_i64(((const int64_t *)p)[i]);
        out[i] = (entry){key ^ mask, first + i};
    }
}

/* The elements of a sequence, or of any operand in row-major order, from `from` on, to be
 * compared. */
static const void *comparable(const sp_operand *x, int64_t from, int64_t n, void *raw, void *room)
{
    int dtype = sp__reduce_dtype(x->dtype);
    if (x->dtype == dtype && x->contiguous) return x->data + from * sp__size_of(dtype);
    sp__gather(raw, x, from, n);
    if (x->dtype == dtype) return raw;
    sp__isa->cast[x->dtype][dtype](room, raw, NULL, NULL, n, 0);
    return room;
}

void sp__entries_read(const sp_operand *x, int64_t from, int64_t n, bool flip, entry *out)
{
    double raw[BLOCK], room[BLOCK];
    for (int64_t done = 0; done < n; done += BLOCK) {
        int64_t part = n - done < BLOCK ? n - done : BLOCK;
        const void *p = comparable(x, from + done, part, raw, room);
        keys_of(sp__reduce_dtype(x->dtype), p, part, from + done, flip, out + done);
    }
}

/* ---- sorting entries, stably; the result is in e or in room ----- */

static void insertion(entry *e, int64_t n)
{
    for (int64_t i = 1; i < n; i++) {
        entry x = e[i];
        int64_t at = i;
        for (; at > 0 && e[at - 1].key > x.key; at--) e[at] = e[at - 1];
        e[at] = x;
    }
}

static void merge(const entry *a, int64_t n, const entry *b, int64_t m, entry *out)
{
    int64_t i = 0, j = 0;
    while (i < n && j < m) *out++ = b[j].key < a[i].key ? b[j++] : a[i++];
    while (i < n) *out++ = a[i++];
    while (j < m) *out++ = b[j++];
}

static entry *merge_sort(entry *e, entry *room, int64_t n)
{
    for (int64_t at = 0; at < n; at += RUN) insertion(e + at, n - at < RUN ? n - at : RUN);
    for (int64_t width = RUN; width < n; width *= 2) {
        for (int64_t at = 0; at < n; at += 2 * width) {
            int64_t left = n - at < width ? n - at : width,
                    right = n - at - left < width ? n - at - left : width;
            merge(e + at, left, e + at + left, right, room + at);
        }
        entry *other = e;
        e = room, room = other;
    }
    return e;
}

static entry *radix_sort(entry *e, entry *room, int64_t n, int bytes)
{
    int64_t count[8][256] = {0};
    for (int64_t i = 0; i < n; i++)
        for (int b = 0; b < bytes; b++) count[b][e[i].key >> 8 * b & 255]++;
    for (int b = 0; b < bytes; b++) {
        int64_t *place = count[b], start = 0;
        if (place[e[0].key >> 8 * b & 255] == n) continue;
        for (int v = 0; v < 256; v++) {
            int64_t here = place[v];
            place[v] = start, start += here;
        }
        for (int64_t i = 0; i < n; i++) room[place[e[i].key >> 8 * b & 255]++] = e[i];
        entry *other = e;
        e = room, room = other;
    }
    return e;
}

static int key_bytes(int dtype)
{
    return sp__reduce_dtype(dtype) == SP_FLOAT32 ? 4 : 8;
}

entry *sp__entries_sort(entry *e, entry *room, int64_t n, int dtype)
{
    return n < RADIX_MIN ? merge_sort(e, room, n) : radix_sort(e, room, n, key_bytes(dtype));
}

/* Entry `rank` of their order; the others are lost. */
static entry select_rank(entry *e, int64_t n, int64_t rank, int bytes)
{
    for (int b = bytes - 1; b >= 0 && n > 1; b--) {
        int64_t count[256] = {0}, kept = 0;
        uint64_t v = 0;
        for (int64_t i = 0; i < n; i++) count[e[i].key >> 8 * b & 255]++;
        for (; rank >= count[v]; v++) rank -= count[v];
        if (count[v] == n) continue;
        for (int64_t i = 0; i < n; i++) e[kept] = e[i], kept += (e[i].key >> 8 * b & 255) == v;
        n = kept;
    }
    return e[rank];
}

/* ---- a few of many ----- */

/* Whether any of GROUP elements may stand before `limit`; to what is no number, this says yes. */
#define DEFINE_ANY_BEFORE(T, element, mask)                                                        \
    static bool T##_any_before(const void *p, const void *limit, bool descending)                  \
    {                                                                                              \
        typedef element lanes                                                                      \
            __attribute__((vector_size(16), aligned(sizeof(element)), may_alias));                 \
        typedef mask masks __attribute__((vector_size(16)));                                       \
        const lanes *x = p;                                                                        \
        element least = *(const element *)limit;                                                   \
        masks some = {0};                                                                          \
        int64_t any[2];                                                                            \
        for (int i = 0; i < GROUP / (16 / (int)sizeof(element)); i++)                              \
            some |= descending ? ~(masks)(x[i] <= least) : ~(masks)(x[i] >= least);                \
        memcpy(any, &some, sizeof any);                                                            \
        return any[0] | any[1];                                                                    \
    }
DEFINE_ANY_BEFORE(f32, float, int32_t)
DEFINE_ANY_BEFORE(f64, double, int64_t)
DEFINE_ANY_BEFORE(i64, int64_t, int64_t)

typedef struct few {
    entry best[FEW]; /* in order */
    int64_t kept, k;
} few;

/* Whether the last of the best is another one now. */
static bool few_take(few *f, const entry *e, int64_t n)
{
    bool changed = false;
    for (int64_t i = 0; i < n; i++) {
        if (f->kept == f->k && e[i].key >= f->best[f->k - 1].key) continue;
        int64_t at = f->kept < f->k ? f->kept++ : f->k - 1;
        for (; at > 0 && f->best[at - 1].key > e[i].key; at--) f->best[at] = f->best[at - 1];
        f->best[at] = e[i], changed = true;
    }
    return changed;
}

/* The first k <= FEW of x, in order, to out. Most groups are seen to hold none of them. */
static void keep_few(const sp_operand *x, int64_t k, bool descending, entry *out)
{
    int dtype = sp__reduce_dtype(x->dtype);
    bool (*any_before)(const void *, const void *, bool) = dtype == SP_FLOAT32   ? f32_any_before
                                                           : dtype == SP_FLOAT64 ? f64_any_before
                                                                                 : i64_any_before;
    few f = {.k = k};
    double raw[BLOCK], room[BLOCK], last_raw[1], last_room[1];
    const void *limit = NULL;
    for (int64_t from = 0; from < x->numel; from += BLOCK) {
        int64_t n = x->numel - from < BLOCK ? x->numel - from : BLOCK;
        const char *p = comparable(x, from, n, raw, room);
        for (int64_t i = 0; i < n; i += GROUP, p += GROUP * sp__size_of(dtype)) {
            entry e[GROUP];
            int64_t here = n - i < GROUP ? n - i : GROUP;
            if (f.kept == k && here == GROUP && !any_before(p, limit, descending)) continue;
            keys_of(dtype, p, here, from + i, descending, e);
            if (few_take(&f, e, here))
                limit = comparable(x, f.best[f.kept - 1].at, 1, last_raw, last_room);
        }
    }
    memcpy(out, f.best, (size_t)f.kept * sizeof *out);
}

/* ---- sequences ----- */

typedef struct sort_job {
    sp_operand values, indices, x;
    int dim;
    int64_t n, k, rows, rows_a_chunk; /* k: how many are wanted */
    int64_t rank;                     /* the one wanted, if `one`; unless it is the middle */
    bool descending, one, middle, skip_nan;
    _Atomic bool no_memory;
} sort_job;

/* Sequence number `row` along the dimension. */
static sp_operand sequence_of(const sort_job *j, const sp_operand *x, int64_t row)
{
    sp_operand s = *x;
    int64_t offset = 0;
    s.rank = x->rank > 0, s.numel = x->rank > 0 ? x->shape[j->dim] : 1;
    for (int d = x->rank - 1; d >= 0; d--) {
        if (d == j->dim) continue;
        offset += row % x->shape[d] * x->stride[d];
        row /= x->shape[d];
    }
    s.data += offset * sp__size_of(x->dtype);
    if (x->rank > 0) s.shape[0] = x->shape[j->dim], s.stride[0] = x->stride[j->dim];
    s.contiguous = sp__is_dense(&s);
    return s;
}

/* The rank of the middle, or of the first NaN. */
static int64_t middle_rank(const sort_job *j, const entry *e)
{
    int64_t known = j->n;
    if (sp__dtype_is_floating(j->x.dtype)) {
        uint64_t nan = j->x.dtype == SP_FLOAT32 ? UINT32_MAX : UINT64_MAX;
        for (int64_t i = 0; i < j->n; i++) known -= e[i].key == nan;
    }
    if (j->skip_nan) return known > 0 ? (known - 1) / 2 : 0;
    return known < j->n ? known : (known - 1) / 2;
}

static void sort_row(const sort_job *j, int64_t row, entry *e, entry *room)
{
    sp_operand x = sequence_of(j, &j->x, row), values = sequence_of(j, &j->values, row),
               indices = sequence_of(j, &j->indices, row);
    int64_t size = sp__size_of(x.dtype), step = x.rank ? x.stride[0] : 0,
            to = values.rank ? values.stride[0] : 0,
            to_index = indices.rank ? indices.stride[0] : 0;
    bool few = !j->one && j->k <= FEW && j->k < j->n;
    if (few)
        keep_few(&x, j->k, j->descending, e);
    else
        sp__entries_read(&x, 0, x.numel, j->descending, e);
    if (j->one)
        e[0] = select_rank(e, j->n, j->middle ? middle_rank(j, e) : j->rank, key_bytes(x.dtype));
    else if (!few)
        e = sp__entries_sort(e, room, j->n, x.dtype);
    for (int64_t i = 0; i < j->k; i++) {
        memcpy(values.data + i * to * size, x.data + e[i].at * step * size, (size_t)size);
        memcpy(indices.data + i * to_index * 8, &e[i].at, 8);
    }
}

static void sort_chunk(void *ctx, int64_t chunk)
{
    sort_job *j = ctx;
    size_t bytes = 2 * (size_t)j->n * sizeof(entry);
    int64_t end = (chunk + 1) * j->rows_a_chunk;
    entry *e = sp__alloc(bytes);
    if (e == NULL) {
        atomic_store(&j->no_memory, true);
        return;
    }
    for (int64_t row = chunk * j->rows_a_chunk; row < end && row < j->rows; row++)
        sort_row(j, row, e, e + j->n);
    sp__free(e, bytes);
}

/* x with a dimension of size 1 at dim. */
static sp_operand with_dim(const sp_operand *x, int dim)
{
    sp_operand wide = *x;
    for (int d = x->rank; d > dim; d--)
        wide.shape[d] = x->shape[d - 1], wide.stride[d] = x->stride[d - 1];
    wide.shape[dim] = 1, wide.stride[dim] = 0, wide.rank++;
    return wide;
}

static sp_status run(sort_job *j, const sp_kargs *args, int64_t dim)
{
    const sp_operand *x = &args->arg[2];
    j->values = args->arg[0], j->indices = args->arg[1], j->x = *x;
    if (j->indices.numel == 0) return SP_OK;
    j->dim = x->rank == 0 ? 0 : (int)(dim < 0 ? dim + x->rank : dim);
    j->n = x->rank == 0 ? 1 : x->shape[j->dim];
    if (j->values.rank < x->rank)
        j->values = with_dim(&j->values, j->dim), j->indices = with_dim(&j->indices, j->dim);
    j->k = j->indices.rank == 0 ? 1 : j->indices.shape[j->dim];
    j->rows = x->numel / j->n, j->rows_a_chunk = 8192 / j->n + 1;
    sp__pool_for((j->rows + j->rows_a_chunk - 1) / j->rows_a_chunk, (double)x->numel * 20e-3,
                 sort_chunk, j);
    if (!atomic_load(&j->no_memory)) return SP_OK;
    return sp_fail(SP_EMEMORY, "%s: no memory to sort %lld elements at a time",
                   sp_op_table[args->op].name, (long long)j->n);
}

/* attributes: dim, descending, stable */
sp_status sp__cpu_sort(const sp_kargs *args)
{
    sort_job j = {.descending = args->attr[SP_SORT_DESCENDING].v.i != 0};
    return run(&j, args, args->attr[SP_SORT_DIM].v.i);
}

/* attributes: k, dim, largest, sorted */
sp_status sp__cpu_topk(const sp_kargs *args)
{
    sort_job j = {.descending = args->attr[SP_TOPK_LARGEST].v.i != 0};
    return run(&j, args, args->attr[SP_TOPK_DIM].v.i);
}

/* attributes: k, dim, keepdim */
sp_status sp__cpu_kthvalue(const sp_kargs *args)
{
    sort_job j = {.one = true, .rank = args->attr[SP_KTHVALUE_K].v.i - 1};
    return run(&j, args, args->attr[SP_KTHVALUE_DIM].v.i);
}

/* attributes: dim, keepdim, skip_nan */
sp_status sp__cpu_middle(const sp_kargs *args)
{
    sort_job j = {.one = true, .middle = true, .skip_nan = args->attr[SP_MIDDLE_SKIP_NAN].v.i != 0};
    return run(&j, args, args->attr[SP_MIDDLE_DIM].v.i);
}

/* ---- rows of a matrix ----- */

static bool row_before(const entry *e, int64_t width, int64_t a, int64_t b)
{
    for (int64_t i = 0; i < width; i++) {
        uint64_t x = e[a * width + i].key, y = e[b * width + i].key;
        if (x != y) return x < y;
    }
    return false;
}

/* Rows' numbers, sorted by merging; the result is in p or in room. */
static int64_t *sort_numbers(const entry *e, int64_t width, int64_t *p, int64_t *room, int64_t n)
{
    for (int64_t i = 0; i < n; i++) p[i] = i;
    for (int64_t run = 1; run < n; run *= 2) {
        for (int64_t at = 0; at < n; at += 2 * run) {
            int64_t i = at, middle = at + run < n ? at + run : n, j = middle,
                    end = middle + run < n ? middle + run : n;
            for (int64_t to = at; to < end; to++)
                room[to] =
                    i < middle && (j >= end || !row_before(e, width, p[j], p[i])) ? p[i++] : p[j++];
        }
        int64_t *other = p;
        p = room, room = other;
    }
    return p;
}

/* the output is dense */
sp_status sp__cpu_argsort_rows(const sp_kargs *args)
{
    const sp_operand *out = &args->arg[0], *x = &args->arg[1];
    int64_t n = x->shape[x->rank - 2], width = x->shape[x->rank - 1],
            matrices = n ? out->numel / n : 0, *to = (int64_t *)out->data;
    size_t bytes = (size_t)(n * width) * sizeof(entry), row = (size_t)n * sizeof(int64_t);
    entry *e = sp__alloc(bytes);
    int64_t *p = sp__alloc(2 * row);
    for (int64_t i = 0; i < matrices && e && p; i++, to += n) {
        sp__entries_read(x, i * n * width, n * width, false, e);
        memcpy(to, sort_numbers(e, width, p, p + n, n), row);
    }
    if (e) sp__free(e, bytes);
    if (p) sp__free(p, 2 * row);
    return e && p ? SP_OK
                  : sp_fail(SP_EMEMORY, "%s: no memory to sort %lld rows",
                            sp_op_table[args->op].name, (long long)n);
}
