/* sum, nansum, prod, amax, amin and count_nonzero: canonical form, blocks, and the two ways of
 * cutting the work for threads.
 */
#include "backends/cpu/reduce.h"

#include <string.h>

#include "backends/cpu/pool.h"
#include "backends/cpu/strided.h"
#include "ops/op.h"
#include "tensor/memory.h"

enum {
    LEVELS = 56,
    SUPER_BLOCKS = 64,      /* a power of two: where a sequence may be cut for threads */
    COLUMNS_MAX = 512,      /* a tile of columns of 8 bytes, at most ... */
    LEVEL_BYTES = 64 * 1024 /* ... and as many as leave room for a cascade on the stack */
};

typedef struct dim {
    int64_t size, stride, out_stride;
    bool reduced;
} dim;

typedef struct reduction {
    const sp_reduce_lanes *f;
    const char *in;
    char *out;
    int in_dtype, out_dtype, acc_dtype;
    int read_dtype; /* what blocks are read in: acc_dtype, but for counts */
    int64_t in_size, out_size, acc_size;
    dim kept[SP_MAX_RANK], reduced[SP_MAX_RANK];
    int n_kept, n_reduced;
    bool rows; /* the rows tree; then kept[] counts outputs, else its last dimension is the columns
                */
    int64_t n, groups;     /* elements a sequence; outputs, or for columns, rows of outputs */
    int64_t columns, tile; /* columns of a group; columns done at a time */
    int64_t block, supers; /* elements a block; parts that a sequence may be cut into */
    char *part;            /* results of the parts, when cut */
} reduction;

/* ---- canonical form ----- */

unsigned sp__reduced_mask(const sp_attr *dim, int rank)
{
    unsigned all = (1u << rank) - 1, mask = 0;
    if (dim->absent) return all;
    if (dim->kind == SP_ATTR_INT)
        return rank == 0 ? 0 : 1u << (dim->v.i < 0 ? dim->v.i + rank : dim->v.i);
    for (int i = 0; i < dim->n && rank > 0; i++)
        mask |= 1u << (dim->v.ints[i] < 0 ? dim->v.ints[i] + rank : dim->v.ints[i]);
    return dim->n == 0 ? all : mask;
}

static unsigned reduced_mask(const sp_kargs *args)
{
    static const sp_attr all = {.absent = true};
    return sp__reduced_mask(args->n_attr > 0 ? &args->attr[0] : &all, args->arg[1].rank);
}

/* Dimensions larger than 1, sorted by stride; stable, so that equal strides keep their order. */
static int sorted_dims(const sp_kargs *args, dim *dims)
{
    const sp_operand *out = &args->arg[0], *in = &args->arg[1];
    unsigned mask = reduced_mask(args);
    bool keepdim = out->rank == in->rank;
    int n = 0, out_dim = 0;
    for (int d = 0; d < in->rank; d++) {
        dim x = {in->shape[d], in->stride[d], 0, mask >> d & 1};
        if (!x.reduced) x.out_stride = out->stride[out_dim];
        out_dim += !x.reduced || keepdim;
        if (x.size == 1) continue;
        int at = n++;
        for (; at > 0 && dims[at - 1].stride < x.stride; at--) dims[at] = dims[at - 1];
        dims[at] = x;
    }
    return n;
}

static void append_dim(dim *list, int *n, const dim *x)
{
    dim *last = *n > 0 ? &list[*n - 1] : NULL;
    if (last && last->stride == x->size * x->stride &&
        last->out_stride == x->size * x->out_stride) {
        *last = (dim){last->size * x->size, x->stride, x->out_stride, x->reduced};
    } else {
        list[(*n)++] = *x;
    }
}

static void canonicalize(reduction *r, const sp_kargs *args)
{
    dim dims[SP_MAX_RANK];
    int n = sorted_dims(args, dims);
    r->n_kept = r->n_reduced = 0, r->n = r->groups = r->columns = 1;
    for (int i = 0; i < n; i++) {
        if (dims[i].reduced)
            append_dim(r->reduced, &r->n_reduced, &dims[i]), r->n *= dims[i].size;
        else
            append_dim(r->kept, &r->n_kept, &dims[i]), r->groups *= dims[i].size;
    }
    r->rows = n == 0 || dims[n - 1].reduced;
    r->block = r->rows ? SP_REDUCE_BLOCK : SP_REDUCE_ROWS;
    r->tile = SP_REDUCE_LANES;
    if (!r->rows) {
        r->columns = r->kept[r->n_kept - 1].size, r->groups /= r->columns;
        int levels = 3;
        while (levels < LEVELS && (r->n / SP_REDUCE_ROWS) >> (levels - 2) > 0) levels++;
        int64_t widest = r->acc_size > 8 ? r->acc_size : 8, most = COLUMNS_MAX * 8 / widest;
        r->tile = LEVEL_BYTES / (levels * widest) / 16 * 16;
        if (r->tile > most) r->tile = most;
        if (r->tile > r->columns) r->tile = r->columns;
    }
    r->supers = (r->n + r->block * SUPER_BLOCKS - 1) / (r->block * SUPER_BLOCKS);
    if (r->supers < 1) r->supers = 1;
}

static void prepare(reduction *r, const sp_kargs *args, sp_reduce_kind kind)
{
    const sp_operand *out = &args->arg[0], *in = &args->arg[1];
    r->in = in->data, r->out = out->data, r->in_dtype = in->dtype, r->out_dtype = out->dtype,
    r->part = NULL;
    r->acc_dtype = sp__reduce_dtype(out->dtype);
    r->in_size = sp__size_of(in->dtype), r->out_size = sp__size_of(out->dtype),
    r->acc_size = sp__size_of(r->acc_dtype);
    /* A sum of truth values counts them. */
    if (kind == SP_TREE_SUM && in->dtype == SP_BOOL && r->acc_dtype == SP_INT64)
        kind = SP_TREE_COUNT;
    r->read_dtype = kind != SP_TREE_COUNT             ? r->acc_dtype
                    : sp__dtype_is_complex(in->dtype) ? SP_BOOL
                                                      : sp__dtypes[in->dtype].wide;
    r->f = &sp__isa->reduce[kind][r->read_dtype];
    canonicalize(r, args);
}

/* ---- addresses ----- */

/* Offsets of an index counted over dims, in elements. */
static int64_t offset_of(const dim *dims, int n, int64_t index, int64_t *out_offset)
{
    int64_t offset = 0, out = 0;
    for (int d = n - 1; d >= 0; d--) {
        int64_t i = index % dims[d].size;
        index /= dims[d].size, offset += i * dims[d].stride, out += i * dims[d].out_stride;
    }
    if (out_offset) *out_offset = out;
    return offset;
}

/* The sequence as an operand, for gathering. */
static sp_operand sequence(const reduction *r, const char *base)
{
    sp_operand x = {.data = (char *)(uintptr_t)base,
                    .dtype = (uint8_t)r->in_dtype,
                    .rank = (uint8_t)r->n_reduced,
                    .numel = r->n};
    for (int d = 0; d < r->n_reduced; d++)
        x.shape[d] = r->reduced[d].size, x.stride[d] = r->reduced[d].stride;
    return x;
}

/* ---- cascade: blocks combined as a binary counter counts them ----- */

typedef struct cascade {
    const reduction *r;
    char *level; /* of width elements each */
    int64_t width, count;
    int top;
} cascade;

static char *cascade_top(cascade *c)
{
    return c->level + c->top * c->width * c->r->acc_size;
}

/* What lies at cascade_top() is the next block's result. */
static void cascade_push(cascade *c)
{
    c->top++;
    for (int64_t m = ++c->count; (m & 1) == 0; m >>= 1) {
        c->top--;
        c->r->f->combine(cascade_top(c) - c->width * c->r->acc_size, cascade_top(c), c->width);
    }
}

/* The result, at level 0. */
static void cascade_end(cascade *c)
{
    while (c->top > 1) {
        c->top--;
        c->r->f->combine(cascade_top(c) - c->width * c->r->acc_size, cascade_top(c), c->width);
    }
}

/* ---- a part of a sequence: elements from .. from+count-1, to `width` accumulators ----- */

static void row_part(const reduction *r, const char *base, int64_t from, int64_t count, void *lane)
{
    bool direct = r->in_dtype == r->read_dtype &&
                  (r->n_reduced == 0 || (r->n_reduced == 1 && r->reduced[0].stride == 1));
    if (direct) {
        r->f->tree(base + from * r->in_size, count, lane);
        return;
    }
    sp_element level[LEVELS][SP_REDUCE_LANES], raw[SP_REDUCE_BLOCK], block[SP_REDUCE_BLOCK];
    cascade c = {.r = r, .level = (char *)level, .width = SP_REDUCE_LANES};
    sp_operand x = sequence(r, base);
    int64_t at = from;
    do {
        int64_t n = from + count - at < SP_REDUCE_BLOCK ? from + count - at : SP_REDUCE_BLOCK;
        sp__gather(raw, &x, at, n);
        if (r->in_dtype != r->read_dtype)
            sp__isa->cast[r->in_dtype][r->read_dtype](block, raw, NULL, NULL, n, 0);
        r->f->block(r->in_dtype != r->read_dtype ? block : raw, n, cascade_top(&c));
        cascade_push(&c);
        at += n;
    } while (at < from + count);
    cascade_end(&c);
    memcpy(lane, level, (size_t)(SP_REDUCE_LANES * r->acc_size));
}

/* Gathers a row of columns into room, converted, unless it can be read where it lies. */
static const void *column_row(const reduction *r, const char *at, int64_t stride, int64_t n,
                              void *raw, void *room)
{
    bool convert = r->in_dtype != r->read_dtype;
    if (stride == 1 && !convert) return at;
    sp__gather_run(convert ? raw : room, at, r->in_size, n, stride);
    if (convert) sp__isa->cast[r->in_dtype][r->read_dtype](room, raw, NULL, NULL, n, 0);
    return room;
}

static void column_part(const reduction *r, const char *base, int64_t n, int64_t from,
                        int64_t count, void *out)
{
    double level[LEVEL_BYTES / 8], raw[2 * COLUMNS_MAX], room[SP_REDUCE_ROWS][COLUMNS_MAX];
    const void *row[SP_REDUCE_ROWS];
    cascade c = {.r = r, .level = (char *)level, .width = n};
    int64_t stride = r->kept[r->n_kept - 1].stride;
    for (int64_t at = from; at < from + count;) {
        int rows = 0;
        for (; rows < SP_REDUCE_ROWS && at < from + count; rows++, at++) {
            const char *p = base + offset_of(r->reduced, r->n_reduced, at, NULL) * r->in_size;
            row[rows] = column_row(r, p, stride, n, raw, room[rows]);
        }
        r->f->columns(row, rows, n, cascade_top(&c));
        cascade_push(&c);
    }
    cascade_end(&c);
    memcpy(out, level, (size_t)(n * r->acc_size));
}

/* ---- groups and tiles of columns ----- */

typedef struct unit { /* one output of the rows tree, or one tile of columns */
    const char *base;
    char *out;
    int64_t width, out_stride; /* columns */
} unit;

static int64_t tiles(const reduction *r)
{
    return r->rows ? 1 : (r->columns + r->tile - 1) / r->tile;
}

static unit unit_at(const reduction *r, int64_t index)
{
    int64_t group = index / tiles(r), column = index % tiles(r) * r->tile, out_offset;
    int outer = r->rows ? r->n_kept : r->n_kept - 1;
    int64_t offset = offset_of(r->kept, outer, group, &out_offset);
    unit u = {.width = SP_REDUCE_LANES};
    if (!r->rows) {
        const dim *columns = &r->kept[r->n_kept - 1];
        offset += column * columns->stride, out_offset += column * columns->out_stride;
        u.width = r->columns - column < r->tile ? r->columns - column : r->tile;
        u.out_stride = columns->out_stride;
    }
    u.base = r->in + offset * r->in_size, u.out = r->out + out_offset * r->out_size;
    return u;
}

static void unit_part(const reduction *r, const unit *u, int64_t super, void *acc)
{
    int64_t length = r->block * SUPER_BLOCKS, from = super * length;
    int64_t count = r->n - from < length ? r->n - from : length;
    if (r->rows)
        row_part(r, u->base, from, count, acc);
    else
        column_part(r, u->base, u->width, from, count, acc);
}

static void unit_store(const reduction *r, const unit *u, const void *acc)
{
    sp_element one;
    double converted[COLUMNS_MAX];
    int64_t n = u->width;
    if (r->rows) r->f->finish(acc, &one), acc = &one, n = 1;
    if (r->acc_dtype != r->out_dtype) {
        sp__isa->cast[r->acc_dtype][r->out_dtype](converted, acc, NULL, NULL, n, 0),
            acc = converted;
    }
    sp__scatter_run(u->out, acc, r->out_size, n, u->out_stride);
}

/* One thread does a whole unit: its parts through a cascade, as if they had been cut. */
static void unit_whole(const reduction *r, int64_t index)
{
    double acc[COLUMNS_MAX];
    unit u = unit_at(r, index);
    if (r->rows)
        row_part(r, u.base, 0, r->n, acc);
    else
        column_part(r, u.base, u.width, 0, r->n, acc);
    unit_store(r, &u, acc);
}

static void unit_join(const reduction *r, int64_t index)
{
    unit u = unit_at(r, index);
    int64_t bytes = r->tile * r->acc_size;
    double level[LEVEL_BYTES / 8];
    cascade c = {.r = r, .level = (char *)level, .width = u.width};
    for (int64_t s = 0; s < r->supers; s++) {
        memcpy(cascade_top(&c), r->part + (index * r->supers + s) * bytes,
               (size_t)(u.width * r->acc_size));
        cascade_push(&c);
    }
    cascade_end(&c);
    unit_store(r, &u, level);
}

/* ---- cutting the work ----- */

typedef struct loop {
    const reduction *r;
    int64_t units, units_a_chunk;
} loop;

/* Dense rows under one another, without the generality. */
static void plain_rows(const reduction *r, int64_t from, int64_t to)
{
    const dim *row = &r->kept[0];
    for (int64_t i = from; i < to; i++) {
        sp_element lane[SP_REDUCE_LANES];
        r->f->tree(r->in + i * row->stride * r->in_size, r->n, lane);
        r->f->finish(lane, r->out + i * row->out_stride * r->out_size);
    }
}

static bool is_plain_rows(const reduction *r)
{
    bool dense = r->n_reduced == 1 && r->reduced[0].stride == 1;
    return r->rows && r->n_kept == 1 && dense && r->in_dtype == r->read_dtype &&
           r->acc_dtype == r->out_dtype;
}

static void whole_chunk(void *ctx, int64_t chunk)
{
    const loop *l = ctx;
    int64_t end =
        (chunk + 1) * l->units_a_chunk < l->units ? (chunk + 1) * l->units_a_chunk : l->units;
    if (is_plain_rows(l->r)) {
        plain_rows(l->r, chunk * l->units_a_chunk, end);
        return;
    }
    for (int64_t i = chunk * l->units_a_chunk; i < end; i++) unit_whole(l->r, i);
}

static void part_chunk(void *ctx, int64_t chunk)
{
    const reduction *r = ((const loop *)ctx)->r;
    unit u = unit_at(r, chunk / r->supers);
    unit_part(r, &u, chunk % r->supers, r->part + chunk * r->tile * r->acc_size);
}

static sp_status reduce(const sp_kargs *args, sp_reduce_kind kind)
{
    reduction r;
    if (args->arg[0].numel == 0) return SP_OK;
    prepare(&r, args, kind);
    if (r.n == 0 && !r.rows) r.rows = true, r.groups = args->arg[0].numel, r.tile = SP_REDUCE_LANES;
    int64_t units = r.groups * tiles(&r), numel = args->arg[1].numel;
    double us =
        (double)numel * (r.in_dtype == r.read_dtype ? 0.1 : 0.6) * 1e-3 + (double)units * 0.01;
    loop l = {&r, units, 1};
    if (units < 8 && r.supers > 1 && sp__pool_worth(us)) {
        size_t bytes = (size_t)(units * r.supers * r.tile * r.acc_size);
        r.part = sp__alloc(bytes);
        if (r.part == NULL)
            return sp_fail(SP_EMEMORY, "%s: no memory for %zu bytes of partial results",
                           sp_op_table[args->op].name, bytes);
        sp__pool_for(units * r.supers, us, part_chunk, &l);
        for (int64_t i = 0; i < units; i++) unit_join(&r, i);
        sp__free(r.part, bytes);
        return SP_OK;
    }
    int64_t chunks = units < 64 ? units : 64;
    l.units_a_chunk = (units + chunks - 1) / chunks;
    sp__pool_for((units + l.units_a_chunk - 1) / l.units_a_chunk, us, whole_chunk, &l);
    return SP_OK;
}

sp_status sp__cpu_sum(const sp_kargs *args)
{
    return reduce(args, SP_TREE_SUM);
}

sp_status sp__cpu_amax(const sp_kargs *args)
{
    return reduce(args, SP_TREE_MAX);
}

sp_status sp__cpu_amin(const sp_kargs *args)
{
    return reduce(args, SP_TREE_MIN);
}

sp_status sp__cpu_prod(const sp_kargs *args)
{
    return reduce(args, SP_TREE_PROD);
}

sp_status sp__cpu_nansum(const sp_kargs *args)
{
    bool floating = sp__dtype_is_floating(args->arg[1].dtype);
    return reduce(args, floating ? SP_TREE_NANSUM : SP_TREE_SUM);
}

sp_status sp__cpu_count_nonzero(const sp_kargs *args)
{
    return reduce(args, SP_TREE_COUNT);
}
