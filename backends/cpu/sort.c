/* sort, topk and searchsorted.
 *
 * Elements become unsigned keys whose order is theirs: NaN is the largest, -0 and 0 are equal. In
 * descending order the keys' bits are flipped, so that NaN comes first. Keys are sorted together
 * with positions, stably: short sequences by merging, long ones byte by byte (radix), bytes that
 * all keys share left out. So the result is one and the same whatever the algorithm.
 */
#include <stdatomic.h>
#include <string.h>

#include "backends/cpu/kernels.h"
#include "backends/cpu/lanes.h"
#include "backends/cpu/pool.h"
#include "backends/cpu/reduce.h"
#include "backends/cpu/strided.h"
#include "ops/op.h"
#include "ops_gen.h"
#include "tensor/memory.h"

enum {
    BLOCK = 256,
    RUN = 16,        /* sorted by insertion */
    RADIX_MIN = 512, /* shorter sequences are merged */
    FEW = 64         /* so many best ones are kept in order while looking at the others */
};

typedef struct entry {
    uint64_t key;
    int64_t at;
} entry;

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
    sp__gather(raw, x, from, n);
    if (x->dtype == dtype) return raw;
    sp__isa->cast[x->dtype][dtype](room, raw, NULL, NULL, n, 0);
    return room;
}

static void read_entries(const sp_operand *sequence, bool flip, entry *out)
{
    double raw[BLOCK], room[BLOCK];
    for (int64_t at = 0; at < sequence->numel; at += BLOCK) {
        int64_t n = sequence->numel - at < BLOCK ? sequence->numel - at : BLOCK;
        const void *p = comparable(sequence, at, n, raw, room);
        keys_of(sp__reduce_dtype(sequence->dtype), p, n, at, flip, out + at);
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

static entry *sort_entries(entry *e, entry *room, int64_t n, int dtype)
{
    if (n < RADIX_MIN) return merge_sort(e, room, n);
    return radix_sort(e, room, n, sp__reduce_dtype(dtype) == SP_FLOAT32 ? 4 : 8);
}

/* The first k of e in order, to the start of e; k <= FEW. */
static void keep_few(entry *e, int64_t n, int64_t k)
{
    entry best[FEW + 1];
    int64_t kept = 0;
    for (int64_t i = 0; i < n; i++) {
        if (kept == k && e[i].key >= best[k - 1].key) continue;
        int64_t at = kept < k ? kept++ : k - 1;
        for (; at > 0 && best[at - 1].key > e[i].key; at--) best[at] = best[at - 1];
        best[at] = e[i];
    }
    memcpy(e, best, (size_t)kept * sizeof *e);
}

/* ---- sequences ----- */

typedef struct sort_job {
    sp_operand values, indices, x;
    int dim;
    int64_t n, k, rows, rows_a_chunk; /* k: how many are wanted */
    bool descending;
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

static void sort_row(const sort_job *j, int64_t row, entry *e, entry *room)
{
    sp_operand x = sequence_of(j, &j->x, row), values = sequence_of(j, &j->values, row),
               indices = sequence_of(j, &j->indices, row);
    int64_t size = sp__size_of(x.dtype), step = x.rank ? x.stride[0] : 0,
            to = values.rank ? values.stride[0] : 0,
            to_index = indices.rank ? indices.stride[0] : 0;
    read_entries(&x, j->descending, e);
    if (j->k <= FEW && j->k < j->n)
        keep_few(e, j->n, j->k);
    else
        e = sort_entries(e, room, j->n, x.dtype);
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

static sp_status run(sort_job *j, const sp_kargs *args, int64_t dim)
{
    const sp_operand *x = &args->arg[2];
    j->values = args->arg[0], j->indices = args->arg[1], j->x = *x;
    if (j->indices.numel == 0) return SP_OK;
    j->dim = x->rank == 0 ? 0 : (int)(dim < 0 ? dim + x->rank : dim);
    j->n = x->rank == 0 ? 1 : x->shape[j->dim];
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
    int64_t n = out->numel, width = x->shape[1];
    size_t bytes = (size_t)x->numel * sizeof(entry), room = 2 * (size_t)n * sizeof(int64_t);
    entry *e = sp__alloc(bytes);
    int64_t *p = sp__alloc(room);
    if (e && p) {
        read_entries(x, false, e);
        memcpy(out->data, sort_numbers(e, width, p, p + n, n), (size_t)n * sizeof(int64_t));
    }
    if (e) sp__free(e, bytes);
    if (p) sp__free(p, room);
    return e && p ? SP_OK
                  : sp_fail(SP_EMEMORY, "%s: no memory to sort %lld rows",
                            sp_op_table[args->op].name, (long long)n);
}

/* ---- searchsorted ----- */

typedef struct search_job {
    sp_operand out, sorted, x;
    int64_t n, width; /* width: values looked up in one sequence */
    bool right;
} search_job;

#define DEFINE_PLACE(name, T)                                                                      \
    static int64_t name(const search_job *j, const sp_operand *sorted, T value)                    \
    {                                                                                              \
        int64_t low = 0, high = j->n;                                                              \
        double raw[1], room[1];                                                                    \
        while (low < high) {                                                                       \
            int64_t middle = low + (high - low) / 2;                                               \
            T at = *(const T *)comparable(sorted, middle, 1, raw, room);                           \
            if (j->right ? !(at > value) : !(at >= value))                                         \
                low = middle + 1;                                                                  \
            else                                                                                   \
                high = middle;                                                                     \
        }                                                                                          \
        return low;                                                                                \
    }
DEFINE_PLACE(place_f32, float)
DEFINE_PLACE(place_f64, double)
DEFINE_PLACE(place_i64, int64_t)

static sp_operand sorted_for(const search_job *j, int64_t at)
{
    sp_operand s = j->sorted;
    int last = s.rank - 1;
    if (s.rank > 1) s.data = sp__element_at(&j->sorted, at / j->width * j->n);
    s.shape[0] = j->n, s.stride[0] = j->sorted.stride[last];
    s.rank = 1, s.numel = j->n, s.contiguous = sp__is_dense(&s);
    return s;
}

static void search_chunk(void *ctx, int64_t chunk)
{
    const search_job *j = ctx;
    double raw[BLOCK], room[BLOCK];
    int64_t from = chunk * BLOCK, places[BLOCK];
    int64_t n = j->x.numel - from < BLOCK ? j->x.numel - from : BLOCK;
    const void *values = comparable(&j->x, from, n, raw, room);
    for (int64_t i = 0; i < n; i++) {
        sp_operand s = sorted_for(j, from + i);
        int dtype = sp__reduce_dtype(j->x.dtype);
        places[i] = dtype == SP_FLOAT32   ? place_f32(j, &s, ((const float *)values)[i])
                    : dtype == SP_FLOAT64 ? place_f64(j, &s, ((const double *)values)[i])
                                          : place_i64(j, &s, ((const int64_t *)values)[i]);
    }
    sp__scatter(&j->out, places, from, n);
}

/* attributes: right */
sp_status sp__cpu_searchsorted(const sp_kargs *args)
{
    search_job j = {.out = args->arg[0],
                    .sorted = args->arg[1],
                    .x = args->arg[2],
                    .right = args->attr[SP_SEARCHSORTED_RIGHT].v.i != 0};
    if (j.out.numel == 0) return SP_OK;
    j.n = j.sorted.shape[j.sorted.rank - 1];
    j.width = j.x.rank > 0 ? j.x.shape[j.x.rank - 1] : 1;
    sp__pool_for((j.x.numel + BLOCK - 1) / BLOCK, (double)j.x.numel * 0.1, search_chunk, &j);
    return SP_OK;
}
