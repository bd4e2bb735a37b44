/* searchsorted and is_among: elements of x looked up in a list, or in one list for each row of x.
 */
#include <string.h>

#include "backends/cpu/kernels.h"
#include "backends/cpu/pool.h"
#include "backends/cpu/sort.h"
#include "backends/cpu/strided.h"
#include "ops/op.h"
#include "ops_gen.h"
#include "tensor/memory.h"

enum { BLOCK = 512, NS = 20 /* a search */ };

typedef struct search_job {
    sp_operand out, x;
    sp_operand lists;     /* searchsorted: n elements along the last dimension */
    const entry *entries; /* is_among: n of them in order */
    int64_t n, width;     /* width: elements of x looked up in one list */
    int64_t from, end;    /* the part of x */
    bool right;
} search_job;

/* ---- searchsorted ----- */

#define DEFINE_PLACES(name, T)                                                                     \
    static inline int64_t name##_place(const T *list, int64_t n, int64_t step, T value,            \
                                       bool right)                                                 \
    {                                                                                              \
        int64_t low = 0, high = n;                                                                 \
        while (low < high) {                                                                       \
            int64_t middle = low + (high - low) / 2;                                               \
            T at = list[middle * step];                                                            \
            bool before = right ? !(at > value) : !(at >= value);                                  \
            low = before ? middle + 1 : low, high = before ? high : middle;                        \
        }                                                                                          \
        return low;                                                                                \
    }                                                                                              \
    static void name(const search_job *j, const char *list, const void *values, int64_t n,         \
                     int64_t *places)                                                              \
    {                                                                                              \
        const T *from = (const T *)(const void *)list, *x = values;                                \
        int64_t step = j->lists.stride[j->lists.rank - 1];                                         \
        for (int64_t i = 0; i < n; i++)                                                            \
            places[i] = name##_place(from, j->n, step, x[i], j->right);                            \
    }
DEFINE_PLACES(places_f32, float)
DEFINE_PLACES(places_f64, double)
DEFINE_PLACES(places_i64, int64_t)
DEFINE_PLACES(places_b8, uint8_t)

/* The list of x's element number `at`. */
static const char *list_of(const search_job *j, int64_t at)
{
    bool one = j->lists.rank == 1 || j->lists.numel == 0;
    return one ? j->lists.data : sp__element_at(&j->lists, at / j->width * j->n);
}

static void find(const search_job *j, int64_t at, const void *values, int64_t n, int64_t *places)
{
    const char *list = list_of(j, at);
    switch (j->x.dtype) {
    case SP_FLOAT32: places_f32(j, list, values, n, places); break;
    case SP_FLOAT64: places_f64(j, list, values, n, places); break;
    case SP_INT64: places_i64(j, list, values, n, places); break;
    default: places_b8(j, list, values, n, places);
    }
}

static void search_chunk(void *ctx, int64_t chunk)
{
    const search_job *j = ctx;
    double values[BLOCK];
    int64_t from = chunk * BLOCK, places[BLOCK], size = sp__size_of(j->x.dtype);
    int64_t n = j->x.numel - from < BLOCK ? j->x.numel - from : BLOCK;
    sp__gather(values, &j->x, from, n);
    for (int64_t done = 0, row; done < n; done += row) {
        row = j->lists.rank == 1 ? n : j->width - (from + done) % j->width;
        if (row > n - done) row = n - done;
        find(j, from + done, (char *)values + done * size, row, places + done);
    }
    sp__scatter(&j->out, places, from, n);
}

/* attributes: right */
sp_status sp__cpu_searchsorted(const sp_kargs *args)
{
    search_job j = {.out = args->arg[0],
                    .lists = args->arg[1],
                    .x = args->arg[2],
                    .right = args->attr[SP_SEARCHSORTED_RIGHT].v.i != 0};
    if (j.out.numel == 0) return SP_OK;
    j.n = j.lists.shape[j.lists.rank - 1];
    j.width = j.x.rank > 0 ? j.x.shape[j.x.rank - 1] : 1;
    sp__pool_for((j.x.numel + BLOCK - 1) / BLOCK, (double)j.x.numel * NS * 1e-3, search_chunk, &j);
    return SP_OK;
}

/* ---- is_among ----- */

/* How many of n keys are smaller. The rest is halved as often for every key, without a branch on
 * what is found: so the processor is at several of them at a time. */
static inline int64_t before_key(const entry *e, int64_t n, uint64_t key)
{
    int64_t at = 0;
    for (int64_t left = n; left > 1;) {
        int64_t half = left / 2;
        at += e[at + half - 1].key < key ? half : 0, left -= half;
    }
    return at + (n > 0 && e[at].key < key);
}

static void among_chunk(void *ctx, int64_t chunk)
{
    const search_job *j = ctx;
    entry x[BLOCK];
    uint8_t hit[BLOCK];
    int64_t from = j->from + chunk * BLOCK, n = j->end - from < BLOCK ? j->end - from : BLOCK;
    sp__entries_read(&j->x, from, n, false, x);
    for (int64_t i = 0; i < n; i++) {
        int64_t at = before_key(j->entries, j->n, x[i].key);
        hit[i] = at < j->n && j->entries[at].key == x[i].key;
    }
    sp__scatter(&j->out, hit, from, n);
}

/* NaNs have the largest key, and equal nothing. */
static int64_t without_nans(const entry *e, int64_t n, int dtype)
{
    uint64_t nan = dtype == SP_FLOAT32 ? UINT32_MAX : UINT64_MAX;
    bool floating = dtype == SP_FLOAT32 || dtype == SP_FLOAT64;
    while (floating && n > 0 && e[n - 1].key == nan) n--;
    return n;
}

static void look_up(search_job *j, int64_t row, entry *e, int64_t n)
{
    sp__entries_read(&j->lists, row * n, n, false, e);
    j->entries = sp__entries_sort(e, e + n, n, j->x.dtype);
    j->n = without_nans(j->entries, n, j->x.dtype);
    j->from = row * j->width, j->end = j->from + j->width;
    sp__pool_for((j->width + BLOCK - 1) / BLOCK, (double)j->width * NS * 1e-3, among_chunk, j);
}

/* inputs: lists, x */
sp_status sp__cpu_is_among(const sp_kargs *args)
{
    search_job j = {.out = args->arg[0], .lists = args->arg[1], .x = args->arg[2]};
    bool one = j.lists.rank == 1;
    int64_t n = j.lists.shape[j.lists.rank - 1];
    if (j.out.numel == 0) return SP_OK;
    j.width = one ? j.x.numel : j.x.shape[j.x.rank - 1];
    size_t bytes = 2 * (size_t)n * sizeof(entry);
    entry *e = sp__alloc(bytes);
    if (!e)
        return sp_fail(SP_EMEMORY, "%s: no memory to sort %lld elements at a time",
                       sp_op_table[args->op].name, (long long)n);
    for (int64_t row = 0; row < j.x.numel / j.width; row++) look_up(&j, row, e, n);
    sp__free(e, bytes);
    return SP_OK;
}
