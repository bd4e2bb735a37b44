/* gather, scatter_add, index_select, index_add.
 *
 * Invariants
 * 1. Every index is checked before anything is written: a failed call leaves its arguments as
 *    they were.
 * 2. What meets at one place is added in the order in which it stands in src, by one thread: the
 *    bits never vary. Threads share places out, or pieces of slices.
 */
#include <string.h>

#include "backends/cpu/copy.h"
#include "backends/cpu/kernels.h"
#include "backends/cpu/lanes.h"
#include "backends/cpu/pool.h"
#include "backends/cpu/strided.h"
#include "backends/cpu/tile_int.h"
#include "ops/attr.h"
#include "ops/op.h"
#include "ops_gen.h"

enum { CHECKED = 512 }; /* indices checked at a time */

static int dim_of(const sp_kargs *args, int rank)
{
    int64_t dim = args->attr[0].v.i;
    return (int)(dim < 0 ? dim + rank : dim);
}

static sp_status out_of_range(const sp_kargs *args, int64_t index, int dim, int64_t size)
{
    return sp_fail(SP_EINDEX,
                   "%s: index %lld is out of range for dimension %d of size %lld: indices go from "
                   "%lld to %lld",
                   sp_op_table[args->op].name, (long long)index, dim, (long long)size,
                   (long long)-size, (long long)size - 1);
}

/* Whether all of x's values lie in [-size, size). */
static sp_status check_indices(const sp_kargs *args, const sp_operand *x, int dim, int64_t size)
{
    int64_t room[CHECKED];
    for (int64_t at = 0; at < x->numel; at += CHECKED) {
        int64_t n = x->numel - at < CHECKED ? x->numel - at : CHECKED;
        sp__gather(room, x, at, n);
        for (int64_t i = 0; i < n; i++) {
            if (room[i] < -size || room[i] >= size) return out_of_range(args, room[i], dim, size);
        }
    }
    return SP_OK;
}

/* ---- one index an element ----- */

typedef struct walk { /* of the index's positions, row by row; offsets in elements */
    const sp_operand *index, *dense,
        *indexed; /* dense: walked like index; indexed: at the index's value along dim */
    int dim;
    int64_t at_index, at_dense, at_indexed;
} walk;

static void walk_to_row(walk *w, int64_t row)
{
    const sp_operand *x = w->index;
    w->at_index = w->at_dense = w->at_indexed = 0;
    for (int d = x->rank - 2; d >= 0; d--) {
        int64_t i = row % x->shape[d];
        row /= x->shape[d];
        w->at_index += i * x->stride[d], w->at_dense += i * w->dense->stride[d];
        if (d != w->dim) w->at_indexed += i * w->indexed->stride[d];
    }
}

/* The offset in `indexed` of column i of the current row. */
static inline int64_t indexed_offset(const walk *w, int last, int64_t i)
{
    int64_t index;
    memcpy(&index, w->index->data + (w->at_index + i * w->index->stride[last]) * 8, 8);
    if (index < 0) index += w->indexed->shape[w->dim];
    return w->at_indexed + index * w->indexed->stride[w->dim] +
           (last == w->dim ? 0 : i * w->indexed->stride[last]);
}

static void gather_row(const walk *w, int64_t size)
{
    int last = w->index->rank - 1;
    for (int64_t i = 0; i < w->index->shape[last]; i++) {
        char *to = w->dense->data + (w->at_dense + i * w->dense->stride[last]) * size;
        const char *from = w->indexed->data + indexed_offset(w, last, i) * size;
        if (size == 4)
            memcpy(to, from, 4);
        else if (size == 8)
            memcpy(to, from, 8);
        else if (size == 2)
            memcpy(to, from, 2);
        else
            *to = *from;
    }
}

static void gather_chunk(void *ctx, int64_t row)
{
    walk w = *(const walk *)ctx;
    walk_to_row(&w, row);
    gather_row(&w, sp__size_of(w.dense->dtype));
}

static int64_t rows_of(const sp_operand *x)
{
    return x->numel == 0 ? 0 : x->rank == 0 ? 1 : x->numel / x->shape[x->rank - 1];
}

/* A tensor without dimensions is one of a single element. */
static void at_least_one_dim(sp_operand *x)
{
    if (x->rank == 0) x->rank = 1, x->shape[0] = 1, x->stride[0] = 1;
}

/* attributes: dim */
sp_status sp__cpu_gather(const sp_kargs *args)
{
    sp_operand out = args->arg[0], x = args->arg[1], index = args->arg[2];
    at_least_one_dim(&out), at_least_one_dim(&x), at_least_one_dim(&index);
    int dim = dim_of(args, x.rank);
    SP_RETURN_IF(check_indices(args, &index, dim, x.shape[dim]));
    walk w = {.index = &index, .dense = &out, .indexed = &x, .dim = dim};
    sp__pool_for(rows_of(&index), (double)index.numel * 2e-3, gather_chunk, &w);
    return SP_OK;
}

#define ADD_LOOP(type, sum)                                                                        \
    for (int64_t i = 0; i < n; i++) {                                                              \
        type x, y;                                                                                 \
        char *to = w->indexed->data + indexed_offset(w, last, i) * (int64_t)sizeof(type);          \
        memcpy(&x, to, sizeof x);                                                                  \
        memcpy(&y,                                                                                 \
               w->dense->data +                                                                    \
                   (w->at_dense + i * w->dense->stride[last]) * (int64_t)sizeof(type),             \
               sizeof y);                                                                          \
        x = (type)(sum);                                                                           \
        memcpy(to, &x, sizeof x);                                                                  \
    }

static void add_row(const walk *w)
{
    int last = w->index->rank - 1;
    int64_t n = w->index->shape[last];
    switch (w->dense->dtype) {
    case SP_FLOAT32: ADD_LOOP(float, x + y) break;
    case SP_FLOAT64: ADD_LOOP(double, x + y) break;
    case SP_INT64: ADD_LOOP(uint64_t, x + y) break;
    default: ADD_LOOP(uint8_t, x | y) break;
    }
}

/* attributes: dim; inputs: x, index, src */
sp_status sp__cpu_scatter_add(const sp_kargs *args)
{
    sp_operand out = args->arg[0], index = args->arg[2], src = args->arg[3];
    at_least_one_dim(&out), at_least_one_dim(&index), at_least_one_dim(&src);
    int dim = dim_of(args, out.rank);
    SP_RETURN_IF(check_indices(args, &index, dim, out.shape[dim]));
    sp__copy_unless_same(&args->arg[0], &args->arg[1]);
    walk w = {.index = &index, .dense = &src, .indexed = &out, .dim = dim};
    for (int64_t row = 0; row < rows_of(&index); row++) {
        walk_to_row(&w, row);
        add_row(&w);
    }
    return SP_OK;
}

#define LARGER(x, y)  ((x) > (y) || (x) != (x) ? (x) : (y)) /* NaN wins */
#define SMALLER(x, y) ((x) < (y) || (x) != (x) ? (x) : (y))

static void fold_row(const walk *w, int64_t fold)
{
    int last = w->index->rank - 1, how = w->dense->dtype * 3 + (int)fold;
    int64_t n = w->index->shape[last];
    switch (how) {
    case SP_FLOAT32 * 3 + SP_FOLD_PROD: ADD_LOOP(float, x *y) break;
    case SP_FLOAT32 * 3 + SP_FOLD_AMAX: ADD_LOOP(float, LARGER(x, y)) break;
    case SP_FLOAT32 * 3 + SP_FOLD_AMIN: ADD_LOOP(float, SMALLER(x, y)) break;
    case SP_FLOAT64 * 3 + SP_FOLD_PROD: ADD_LOOP(double, x *y) break;
    case SP_FLOAT64 * 3 + SP_FOLD_AMAX: ADD_LOOP(double, LARGER(x, y)) break;
    case SP_FLOAT64 * 3 + SP_FOLD_AMIN: ADD_LOOP(double, SMALLER(x, y)) break;
    case SP_INT64 * 3 + SP_FOLD_PROD: ADD_LOOP(uint64_t, x * y) break;
    case SP_INT64 * 3 + SP_FOLD_AMAX: ADD_LOOP(int64_t, LARGER(x, y)) break;
    case SP_INT64 * 3 + SP_FOLD_AMIN: ADD_LOOP(int64_t, SMALLER(x, y)) break;
    case SP_BOOL * 3 + SP_FOLD_AMAX: ADD_LOOP(uint8_t, x | y) break;
    default: ADD_LOOP(uint8_t, x & y) break;
    }
}

/* attributes: dim, fold; inputs: x, index, src. Sequential, as scatter_add. */
sp_status sp__cpu_scatter_fold(const sp_kargs *args)
{
    sp_operand out = args->arg[0], index = args->arg[2], src = args->arg[3];
    at_least_one_dim(&out), at_least_one_dim(&index), at_least_one_dim(&src);
    int dim = dim_of(args, out.rank);
    SP_RETURN_IF(check_indices(args, &index, dim, out.shape[dim]));
    sp__copy_unless_same(&args->arg[0], &args->arg[1]);
    walk w = {.index = &index, .dense = &src, .indexed = &out, .dim = dim};
    for (int64_t row = 0; row < rows_of(&index); row++) {
        walk_to_row(&w, row);
        fold_row(&w, args->attr[SP_SCATTER_FOLD_FOLD].v.i);
    }
    return SP_OK;
}

/* attributes: dim; inputs: x, index, src. Sequential: the last of several at one place counts. */
sp_status sp__cpu_scatter(const sp_kargs *args)
{
    sp_operand out = args->arg[0], index = args->arg[2], src = args->arg[3];
    at_least_one_dim(&out), at_least_one_dim(&index), at_least_one_dim(&src);
    int dim = dim_of(args, out.rank);
    int64_t size = sp__size_of(out.dtype);
    SP_RETURN_IF(check_indices(args, &index, dim, out.shape[dim]));
    sp__copy_unless_same(&args->arg[0], &args->arg[1]);
    walk w = {.index = &index, .dense = &src, .indexed = &out, .dim = dim};
    int last = index.rank - 1;
    for (int64_t row = 0; row < rows_of(&index); row++) {
        walk_to_row(&w, row);
        for (int64_t i = 0; i < index.shape[last]; i++)
            memcpy(out.data + indexed_offset(&w, last, i) * size,
                   src.data + (w.at_dense + i * src.stride[last]) * size, (size_t)size);
    }
    return SP_OK;
}

/* attributes: dim, value; inputs: x, index. A src of one element, everywhere. */
sp_status sp__cpu_scatter_value(const sp_kargs *args)
{
    char value[16];
    sp_kargs spread = *args;
    sp_operand *src = &spread.room[3];
    spread.arg = spread.room, spread.n_arg = 4;
    for (int i = 0; i < 3; i++) spread.room[i] = args->arg[i];
    *src = args->arg[2];
    src->data = value, src->dtype = args->arg[0].dtype;
    for (int d = 0; d < src->rank; d++) src->stride[d] = 0;
    sp__scalar_to(sp__attr_to_scalar(&args->attr[1]), src->dtype, value);
    return sp__cpu_scatter(&spread);
}

/* ---- several indices made one ----- */

static sp_status check_each(const sp_kargs *args)
{
    for (int i = 1; i < args->n_arg; i++) {
        const sp_status status =
            check_indices(args, &args->arg[i], i - 1, args->attr[0].v.ints[i - 1]);
        if (status != SP_OK) return status;
    }
    return SP_OK;
}

/* x broadcast to out's shape. */
static sp_operand spread_to(const sp_operand *x, const sp_operand *out)
{
    sp_operand s = *x;
    int lead = out->rank - x->rank;
    for (int d = 0; d < out->rank; d++) {
        s.shape[d] = out->shape[d];
        s.stride[d] = d < lead || x->shape[d - lead] == 1 ? 0 : x->stride[d - lead];
    }
    s.rank = out->rank, s.numel = out->numel;
    return s;
}

/* attributes: dims; the output is dense */
sp_status sp__cpu_ravel_multi_index(const sp_kargs *args)
{
    sp_operand out = args->arg[0];
    const int64_t *sizes = args->attr[0].v.ints;
    SP_RETURN_IF(check_each(args));
    if (out.numel > 0) memset(out.data, 0, (size_t)out.numel * 8);
    for (int i = 1; i < args->n_arg; i++) {
        sp_operand x = spread_to(&args->arg[i], &out);
        int64_t room[CHECKED], size = sizes[i - 1];
        for (int64_t at = 0; at < out.numel; at += CHECKED) {
            int64_t n = out.numel - at < CHECKED ? out.numel - at : CHECKED;
            int64_t *to = (int64_t *)(void *)out.data + at;
            sp__gather(room, &x, at, n);
            for (int64_t k = 0; k < n; k++)
                to[k] = to[k] * size + (room[k] < 0 ? room[k] + size : room[k]);
        }
    }
    return SP_OK;
}

/* attributes: num_classes; the output is dense */
sp_status sp__cpu_one_hot(const sp_kargs *args)
{
    const sp_operand *out = &args->arg[0], *x = &args->arg[1];
    int64_t classes = args->attr[0].v.i, room[CHECKED];
    for (int pass = 0; pass < 2; pass++) {
        for (int64_t at = 0; at < x->numel; at += CHECKED) {
            int64_t n = x->numel - at < CHECKED ? x->numel - at : CHECKED;
            sp__gather(room, x, at, n);
            for (int64_t i = 0; i < n; i++) {
                if (room[i] < 0 || room[i] >= classes)
                    return sp_fail(SP_EINDEX, "%s: class %lld is out of range: there are %lld",
                                   sp_op_table[args->op].name, (long long)room[i],
                                   (long long)classes);
                int64_t one = 1, *row = (int64_t *)(void *)out->data + (at + i) * classes;
                if (pass) memset(row, 0, (size_t)classes * 8), row[room[i]] = one;
            }
        }
    }
    return SP_OK;
}

/* ---- one index a slice ----- */

/* The slice of x at place i of dim, that dimension gone. */
static sp_operand slice_at(const sp_operand *x, int dim, int64_t i)
{
    sp_operand s = *x;
    s.data += i * x->stride[dim] * sp__size_of(x->dtype);
    s.numel = x->shape[dim] > 0 ? x->numel / x->shape[dim] : 0, s.rank--;
    for (int d = dim; d < s.rank; d++) s.shape[d] = s.shape[d + 1], s.stride[d] = s.stride[d + 1];
    s.contiguous = sp__is_dense(&s);
    return s;
}

static int64_t index_at(const sp_operand *index, int64_t i, int64_t size)
{
    int64_t value;
    memcpy(&value, index->data + (index->rank > 0 ? i * index->stride[0] : 0) * 8, 8);
    return value < 0 ? value + size : value;
}

enum {
    SELECT_BYTES = 1 << 15, /* copied by a chunk */
    ADD_PIECE = 64          /* elements of a slice, at least, that a chunk adds to */
};

/* Dense tensors as (outer, places along dim, inner). */
typedef struct slices_job {
    const sp_operand *out, *x, *index;
    int64_t places, inner; /* places: of the indexed one; inner: elements */
    int64_t rows, count;   /* a chunk's of all (outer, index) */
    int64_t pieces;        /* that inner is cut into */
    sp_lane_fn add;
} slices_job;

static slices_job dense_slices(const sp_operand *out, const sp_operand *x, const sp_operand *index,
                               const sp_operand *indexed, int dim)
{
    slices_job j = {.out = out, .x = x, .index = index, .places = indexed->shape[dim], .inner = 1};
    for (int d = dim + 1; d < out->rank; d++) j.inner *= out->shape[d];
    j.count = index->numel;
    for (int d = 0; d < dim; d++) j.count *= out->shape[d];
    return j;
}

static void select_chunk(void *ctx, int64_t chunk)
{
    const slices_job *j = ctx;
    int64_t bytes = j->inner * sp__size_of(j->x->dtype), n = j->index->numel,
            end = (chunk + 1) * j->rows;
    for (int64_t row = chunk * j->rows; row < end && row < j->count; row++) {
        int64_t place = row / n * j->places + index_at(j->index, row % n, j->places);
        memcpy(j->out->data + row * bytes, j->x->data + place * bytes, (size_t)bytes);
    }
}

/* attributes: dim */
sp_status sp__cpu_index_select(const sp_kargs *args)
{
    sp_operand out = args->arg[0], x = args->arg[1], index = args->arg[2];
    at_least_one_dim(&out), at_least_one_dim(&x);
    int dim = dim_of(args, x.rank);
    SP_RETURN_IF(check_indices(args, &index, dim, x.shape[dim]));
    if (out.numel > 0 && sp__is_dense(&out) && sp__is_dense(&x)) {
        slices_job j = dense_slices(&out, &x, &index, &x, dim);
        int64_t bytes = j.inner * sp__size_of(x.dtype);
        j.rows = SELECT_BYTES / bytes + 1;
        sp__pool_for((j.count + j.rows - 1) / j.rows, (double)(j.count * (bytes + 16)) * 0.1e-3,
                     select_chunk, &j);
        return SP_OK;
    }
    for (int64_t i = 0; i < index.numel && out.numel > 0; i++) {
        sp_operand to = slice_at(&out, dim, i),
                   from = slice_at(&x, dim, index_at(&index, i, x.shape[dim]));
        sp__copy_strided(&to, &from);
    }
    return SP_OK;
}

/* attributes: dim; inputs: x, index, src. Sequential, as scatter. */
sp_status sp__cpu_index_copy(const sp_kargs *args)
{
    sp_operand out = args->arg[0], index = args->arg[2], src = args->arg[3];
    at_least_one_dim(&out), at_least_one_dim(&src);
    int dim = dim_of(args, out.rank);
    SP_RETURN_IF(check_indices(args, &index, dim, out.shape[dim]));
    sp__copy_unless_same(&args->arg[0], &args->arg[1]);
    for (int64_t i = 0; i < index.numel && src.numel > 0; i++) {
        sp_operand to = slice_at(&out, dim, index_at(&index, i, out.shape[dim])),
                   from = slice_at(&src, dim, i);
        sp__copy_strided(&to, &from);
    }
    return SP_OK;
}

/* to += from */
static sp_status add_slice(const sp_operand *to, const sp_operand *from)
{
    sp_attr alpha = {.v.i = 1, .kind = SP_ATTR_SCALAR, .tag = SP_INT64};
    sp_kargs sum = {
        .op = SP_OP_ADD, .n_out = 1, .n_attr = 1, .compute = to->dtype, .n_arg = 3, .attr = &alpha};
    sum.arg = sum.room, sum.room[0] = *to, sum.room[1] = *to, sum.room[2] = *from;
    return sp__cpu_pointwise(&sum);
}

/* A piece of every slice behind one outer position: so what meets at a place is added in order. */
static void add_chunk(void *ctx, int64_t chunk)
{
    const slices_job *j = ctx;
    int64_t size = sp__size_of(j->out->dtype), n = j->index->numel, outer = chunk / j->pieces,
            piece = chunk % j->pieces, start = j->inner * piece / j->pieces,
            length = j->inner * (piece + 1) / j->pieces - start;
    for (int64_t i = 0; i < n; i++) {
        int64_t place = outer * j->places + index_at(j->index, i, j->places);
        char *to = j->out->data + (place * j->inner + start) * size;
        j->add(to, to, j->x->data + ((outer * n + i) * j->inner + start) * size, NULL, length, 0);
    }
}

static void add_dense(const sp_operand *out, const sp_operand *src, const sp_operand *index,
                      int dim)
{
    slices_job j = dense_slices(out, src, index, out, dim);
    j.add = sp__isa->pointwise[SP_OP_ADD_SCALAR]->fn[out->dtype];
    j.pieces = j.inner / ADD_PIECE + 1;
    sp__pool_for(j.count / index->numel * j.pieces, (double)src->numel * 0.3e-3, add_chunk, &j);
}

/* attributes: dim; inputs: x, index, src */
sp_status sp__cpu_index_add(const sp_kargs *args)
{
    sp_operand out = args->arg[0], index = args->arg[2], src = args->arg[3];
    at_least_one_dim(&out), at_least_one_dim(&index), at_least_one_dim(&src);
    int dim = dim_of(args, out.rank);
    SP_RETURN_IF(check_indices(args, &index, dim, out.shape[dim]));
    sp__copy_unless_same(&args->arg[0], &args->arg[1]);
    if (src.numel == 0) return SP_OK;
    if (out.rank == 1) { /* element by element, as scatter_add */
        walk w = {.index = &index, .dense = &src, .indexed = &out};
        walk_to_row(&w, 0);
        add_row(&w);
        return SP_OK;
    }
    if (sp__is_dense(&out) && sp__is_dense(&src)) {
        add_dense(&out, &src, &index, dim);
        return SP_OK;
    }
    for (int64_t i = 0; i < index.numel; i++) {
        sp_operand to = slice_at(&out, dim, index_at(&index, i, out.shape[dim])),
                   from = slice_at(&src, dim, i);
        SP_RETURN_IF(add_slice(&to, &from));
    }
    return SP_OK;
}
