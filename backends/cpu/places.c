/* Loops over an index: geometry, planes, threads.
 *
 * Dimensions that all three operands walk alike are merged. What is left is cut into planes of two
 * dimensions, of which one is the indexed one if there may be no disorder; planes, and pieces of
 * planes along their other dimension, are shared out.
 *
 *      outer combinations       plane, columns innermost
 *      [3][5]                   rows (dim) [ | | | ] pieces of columns
 */
#include "backends/cpu/places.h"

#include <stdatomic.h>
#include <string.h>

#include "backends/cpu/kernels.h"
#include "backends/cpu/lanes.h"
#include "backends/cpu/pool.h"
#include "backends/cpu/strided.h"
#include "backends/cpu/tile.h"
#include "ops_gen.h"

enum {
    CHUNK = 16384, /* elements, about */
    LEAST_PIECE = 32,
    LEAST_ROW = 8, /* shorter rows of slices go element by element */
    SOME = 512     /* indices looked at together, before the elements */
};

typedef struct side { /* an operand in a plane; steps in elements */
    char *data;
    int64_t row, column;
} side;

typedef struct plane {
    side index, dense, indexed;
    int64_t rows, columns;
    int64_t places, place_step;
    int64_t size;   /* bytes of an element */
    sp_lane_fn row; /* a whole row at one place; NULL: copied */
} plane;

typedef bool (*plane_fn)(const plane *p); /* whether all indices were in range */

/* ---- element by element ----- */

#define ELEMENT(T) T __attribute__((may_alias, aligned(1)))
typedef ELEMENT(float) e_f32;
typedef ELEMENT(double) e_f64;
typedef ELEMENT(int64_t) e_i64;
typedef ELEMENT(uint8_t) e_u8;
typedef ELEMENT(uint16_t) e_u16;
typedef ELEMENT(uint32_t) e_u32;
typedef ELEMENT(uint64_t) e_u64;
typedef ELEMENT(float _Complex) e_c64;
typedef ELEMENT(double _Complex) e_c128;

/* Where an index points; the first place, and a note, for one out of range. */
static inline int64_t place_at(const e_i64 *index, int64_t places, bool *stray)
{
    int64_t place = *index + (*index >> 63 & places);
    bool inside = (uint64_t)place < (uint64_t)places;
    *stray |= !inside;
    return inside ? place : 0;
}

/* Whether all of n indices are places, none counted from the end: no difference is negative. */
static inline bool all_are_places(const e_i64 *index, int64_t n, int64_t places)
{
    enum { LANES = 2 }; /* of a vector that every processor has */
    typedef uint64_t lanes __attribute__((vector_size(LANES * 8), aligned(1), may_alias));
    lanes outside = {0}, others = {0};
    uint64_t last = (uint64_t)places - 1;
    int64_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        lanes x = *(const lanes *)(const void *)(index + i),
              y = *(const lanes *)(const void *)(index + i + LANES);
        outside |= x | (last - x), others |= y | (last - y);
    }
    outside |= others;
    uint64_t any = outside[0] | outside[1];
    for (; i < n; i++) any |= (uint64_t)index[i] | (last - (uint64_t)index[i]);
    return !(any >> 63);
}

/* A row of a plane; apart from the plane, so that steps may be known, and that all indices are
 * places. Of dense rows it is found out for some indices at a time. */
#define DEFINE_PLANE(name, T, to, value)                                                           \
    static inline __attribute__((always_inline)) bool name##_row(                                  \
        const e_i64 *index, int64_t index_step, T *dense, int64_t y_step, T *indexed,              \
        int64_t x_step, int64_t place_step, int64_t places, int64_t columns, bool known)           \
    {                                                                                              \
        bool stray = false;                                                                        \
        for (int64_t c = 0; c < columns; c++) {                                                    \
            const e_i64 *at = index + c * index_step;                                              \
            int64_t place = known ? *at : place_at(at, places, &stray);                            \
            T *x = indexed + place * place_step + c * x_step, *y = dense + c * y_step;             \
            *(to) = (value);                                                                       \
        }                                                                                          \
        return !stray;                                                                             \
    }                                                                                              \
    static inline __attribute__((always_inline)) bool name##_dense(                                \
        const e_i64 *i, T *y, T *x, int64_t x_step, int64_t step, int64_t places, int64_t columns) \
    {                                                                                              \
        bool fits = true;                                                                          \
        for (; columns > 0; columns -= SOME, i += SOME, y += SOME, x += SOME * x_step) {           \
            int64_t n = columns < SOME ? columns : SOME;                                           \
            if (all_are_places(i, n, places))                                                      \
                name##_row(i, 1, y, 1, x, x_step, step, places, n, true);                          \
            else                                                                                   \
                fits &= name##_row(i, 1, y, 1, x, x_step, step, places, n, false);                 \
        }                                                                                          \
        return fits;                                                                               \
    }                                                                                              \
    static bool name(const plane *p)                                                               \
    {                                                                                              \
        int64_t columns = p->columns, places = p->places, step = p->place_step;                    \
        bool dense = p->index.column == 1 && p->dense.column == 1, fits = true;                    \
        for (int64_t r = 0; r < p->rows; r++) {                                                    \
            const e_i64 *i = (const e_i64 *)(void *)p->index.data + r * p->index.row;              \
            T *y = (T *)(void *)p->dense.data + r * p->dense.row;                                  \
            T *x = (T *)(void *)p->indexed.data + r * p->indexed.row;                              \
            if (dense && p->indexed.column == 0 && step == 1)                                      \
                fits &= name##_dense(i, y, x, 0, 1, places, columns);                              \
            else if (dense && p->indexed.column == 1)                                              \
                fits &= name##_dense(i, y, x, 1, step, places, columns);                           \
            else                                                                                   \
                fits &= name##_row(i, p->index.column, y, p->dense.column, x, p->indexed.column,   \
                                   step, places, columns, false);                                  \
        }                                                                                          \
        return fits;                                                                               \
    }

#define LARGER(x, y)  ((x) > (y) || (x) != (x) ? (x) : (y))
#define SMALLER(x, y) ((x) < (y) || (x) != (x) ? (x) : (y))

DEFINE_PLANE(read_1, e_u8, y, *x)
DEFINE_PLANE(read_2, e_u16, y, *x)
DEFINE_PLANE(read_4, e_u32, y, *x)
DEFINE_PLANE(read_8, e_u64, y, *x)
DEFINE_PLANE(read_16, e_c128, y, *x)
DEFINE_PLANE(write_1, e_u8, x, *y)
DEFINE_PLANE(write_2, e_u16, x, *y)
DEFINE_PLANE(write_4, e_u32, x, *y)
DEFINE_PLANE(write_8, e_u64, x, *y)
DEFINE_PLANE(write_16, e_c128, x, *y)
DEFINE_PLANE(add_f32, e_f32, x, *x + *y)
DEFINE_PLANE(add_f64, e_f64, x, *x + *y)
DEFINE_PLANE(add_i64, e_u64, x, *x + *y)
DEFINE_PLANE(add_c64, e_c64, x, *x + *y)
DEFINE_PLANE(add_c128, e_c128, x, *x + *y)
DEFINE_PLANE(either, e_u8, x, *x | *y)
DEFINE_PLANE(mul_f32, e_f32, x, *x **y)
DEFINE_PLANE(mul_f64, e_f64, x, *x **y)
DEFINE_PLANE(mul_i64, e_u64, x, *x **y)
DEFINE_PLANE(both, e_u8, x, *x &*y)
DEFINE_PLANE(max_f32, e_f32, x, LARGER(*x, *y))
DEFINE_PLANE(max_f64, e_f64, x, LARGER(*x, *y))
DEFINE_PLANE(max_i64, e_i64, x, LARGER(*x, *y))
DEFINE_PLANE(min_f32, e_f32, x, SMALLER(*x, *y))
DEFINE_PLANE(min_f64, e_f64, x, SMALLER(*x, *y))
DEFINE_PLANE(min_i64, e_i64, x, SMALLER(*x, *y))

static plane_fn of_elements(sp_meeting how, int dtype)
{
    static const plane_fn by_dtype[][SP_DTYPE_COUNT] = {
        [SP_PLACES_ADD] = {[SP_FLOAT32] = add_f32,
                           [SP_FLOAT64] = add_f64,
                           [SP_INT64] = add_i64,
                           [SP_COMPLEX64] = add_c64,
                           [SP_COMPLEX128] = add_c128,
                           [SP_BOOL] = either},
        [SP_PLACES_MUL] = {[SP_FLOAT32] = mul_f32,
                           [SP_FLOAT64] = mul_f64,
                           [SP_INT64] = mul_i64,
                           [SP_BOOL] = both},
        [SP_PLACES_MAX] = {[SP_FLOAT32] = max_f32,
                           [SP_FLOAT64] = max_f64,
                           [SP_INT64] = max_i64,
                           [SP_BOOL] = either},
        [SP_PLACES_MIN] = {[SP_FLOAT32] = min_f32,
                           [SP_FLOAT64] = min_f64,
                           [SP_INT64] = min_i64,
                           [SP_BOOL] = both},
    };
    static const plane_fn reads[] = {read_1, read_2, read_4, read_8, read_16},
                          writes[] = {write_1, write_2, write_4, write_8, write_16};
    if (how == SP_PLACES_READ) return reads[sp__dtype_shift(dtype)];
    if (how == SP_PLACES_WRITE) return writes[sp__dtype_shift(dtype)];
    return by_dtype[how][dtype];
}

/* ---- row by row ----- */

typedef struct row_pair {
    char *indexed, *dense;
} row_pair;

static inline row_pair row_at(const plane *p, int64_t r, bool *stray)
{
    const e_i64 *index = (const e_i64 *)(void *)p->index.data + r * p->index.row;
    int64_t place = place_at(index, p->places, stray);
    return (row_pair){p->indexed.data + (r * p->indexed.row + place * p->place_step) * p->size,
                      p->dense.data + r * p->dense.row * p->size};
}

static bool read_rows(const plane *p)
{
    bool stray = false;
    for (int64_t r = 0; r < p->rows; r++) {
        row_pair at = row_at(p, r, &stray);
        sp__copy_bytes(at.dense, at.indexed, p->columns * p->size);
    }
    return !stray;
}

static bool write_rows(const plane *p)
{
    bool stray = false;
    for (int64_t r = 0; r < p->rows; r++) {
        row_pair at = row_at(p, r, &stray);
        sp__copy_bytes(at.indexed, at.dense, p->columns * p->size);
    }
    return !stray;
}

static bool meet_rows(const plane *p)
{
    bool stray = false;
    for (int64_t r = 0; r < p->rows; r++) {
        row_pair at = row_at(p, r, &stray);
        p->row(at.indexed, at.indexed, at.dense, NULL, p->columns, 0);
    }
    return !stray;
}

/* Rows that are slices: one place each, dense on both sides. */
static plane_fn of_rows(sp_meeting how, int dtype, plane *p)
{
    static const int ops[] = {[SP_PLACES_ADD] = SP_OP_ADD,
                              [SP_PLACES_MUL] = SP_OP_MUL,
                              [SP_PLACES_MAX] = SP_OP_MAXIMUM,
                              [SP_PLACES_MIN] = SP_OP_MINIMUM};
    if (p->index.column != 0 || p->dense.column != 1 || p->indexed.column != 1 ||
        p->columns < LEAST_ROW)
        return NULL;
    if (how == SP_PLACES_READ) return read_rows;
    if (how == SP_PLACES_WRITE) return write_rows;
    p->row = sp__lanes_of(ops[how], dtype)->fn[dtype];
    return meet_rows;
}

/* ---- planes ----- */

typedef struct places_job {
    plane plane; /* the first one, whole */
    plane_fn fn;
    int rank; /* of the outer dimensions */
    int64_t shape[SP_MAX_RANK], step[3][SP_MAX_RANK];
    int64_t planes, planes_a_chunk, pieces; /* pieces of a plane; then one plane a chunk */
    bool cut_columns;
    _Atomic bool strays; /* there are indices out of range */
} places_job;

static void move(side *s, int64_t elements, int64_t size)
{
    s->data += elements * size;
}

/* On to plane `number`, or a piece of it. */
static plane plane_at(const places_job *j, int64_t number, int64_t piece)
{
    plane p = j->plane;
    int64_t *cut = j->cut_columns ? &p.columns : &p.rows, n = *cut, start = n * piece / j->pieces;
    side *sides[3] = {&p.index, &p.dense, &p.indexed};
    for (int i = 0; i < 3; i++) {
        int64_t left = number, size = i == 0 ? 8 : p.size,
                offset = start * (j->cut_columns ? sides[i]->column : sides[i]->row);
        for (int d = j->rank - 1; d >= 0; d--)
            offset += left % j->shape[d] * j->step[i][d], left /= j->shape[d];
        move(sides[i], offset, size);
    }
    *cut = n * (piece + 1) / j->pieces - start;
    return p;
}

static void places_chunk(void *ctx, int64_t chunk)
{
    places_job *j = ctx;
    int64_t first = chunk / j->pieces * j->planes_a_chunk, end = first + j->planes_a_chunk;
    for (int64_t n = first; n < end && n < j->planes; n++) {
        plane p = plane_at(j, n, chunk % j->pieces);
        if (!j->fn(&p)) atomic_store(&j->strays, true);
    }
}

/* ---- geometry ----- */

/* index, dense, indexed as walked together: the last with stride 0 along the dimension. */
static int coalesced(const sp_operand *index, const sp_operand *dense, const sp_operand *indexed,
                     int dim, sp_operand *walked)
{
    sp_kargs all = {.n_out = 1, .n_arg = 3, .arg = walked};
    walked[0] = *index, walked[1] = *dense, walked[2] = *indexed;
    walked[2].stride[dim] = 0;
    sp__kargs_coalesce(&all);
    if (walked[0].rank > 0) return walked[0].rank;
    for (int i = 0; i < 3; i++) walked[i].shape[0] = 1, walked[i].stride[0] = 0;
    return 1;
}

/* Where the dimension is among the walked ones; -1 if it has one position, or order is all one. */
static int ordered_dim(sp_meeting how, const sp_operand *walked, int rank)
{
    for (int d = 0; d < rank && how != SP_PLACES_READ; d++)
        if (walked[2].stride[d] == 0 && walked[0].shape[d] > 1) return d;
    return -1;
}

/* The two dimensions of planes, rows and columns; rows is -1 where there is but one. */
static int rows_dim(int ordered, int rank)
{
    return ordered >= 0 && ordered < rank - 1 ? ordered : rank - 2;
}

static void lay_out(places_job *j, const sp_operand *walked, int rank, int rows)
{
    side *sides[3] = {&j->plane.index, &j->plane.dense, &j->plane.indexed};
    j->plane.rows = rows >= 0 ? walked[0].shape[rows] : 1;
    j->plane.columns = walked[0].shape[rank - 1];
    for (int i = 0; i < 3; i++) {
        const int64_t *stride = walked[i].stride;
        *sides[i] = (side){walked[i].data, rows >= 0 ? stride[rows] : 0, stride[rank - 1]};
    }
    j->planes = 1;
    for (int d = 0; d < rank - 1; d++) {
        if (d == rows) continue;
        for (int i = 0; i < 3; i++) j->step[i][j->rank] = walked[i].stride[d];
        j->shape[j->rank++] = walked[0].shape[d], j->planes *= walked[0].shape[d];
    }
}

/* Chunks of planes, or pieces of each; along the dimension that may be cut. */
static void cut(places_job *j, bool by_columns, bool whole, double us)
{
    int64_t all = j->plane.rows * j->plane.columns, least = by_columns ? LEAST_PIECE : 1,
            n = by_columns ? j->plane.columns : j->plane.rows, pieces = all / CHUNK + 1;
    j->cut_columns = by_columns, j->pieces = 1, j->planes_a_chunk = CHUNK / all + 1;
    if (whole || pieces == 1 || !sp__pool_worth(us)) return;
    /* A piece of columns goes over the whole index of slices: as few as the threads need. */
    if (by_columns && pieces > 4 * sp_num_threads()) pieces = 4 * sp_num_threads();
    j->pieces = pieces > n / least ? n / least + 1 : pieces;
}

bool sp__places_run(sp_meeting how, const sp_operand *index, const sp_operand *dense,
                    const sp_operand *indexed, int dim)
{
    sp_operand walked[3];
    if (index->numel == 0) return true;
    if (indexed->shape[dim] == 0) return false;
    int rank = coalesced(index, dense, indexed, dim, walked);
    int ordered = ordered_dim(how, walked, rank), rows = rows_dim(ordered, rank);
    places_job j = {.plane = {.places = indexed->shape[dim],
                              .place_step = indexed->stride[dim],
                              .size = sp__size_of(indexed->dtype)}};
    lay_out(&j, walked, rank, rows);
    j.fn = of_rows(how, indexed->dtype, &j.plane);
    double us = (double)index->numel * (j.fn ? 0.05e-3 * (double)j.plane.size : 1.5e-3);
    if (!j.fn) j.fn = of_elements(how, indexed->dtype);
    bool by_columns = rows < 0 || ordered == rows;
    cut(&j, by_columns, ordered >= 0 && rows < 0, us);
    sp__pool_for((j.planes + j.planes_a_chunk - 1) / j.planes_a_chunk * j.pieces, us, places_chunk,
                 &j);
    return !atomic_load(&j.strays);
}

sp_operand sp__places_of_slices(const sp_operand *list, const sp_operand *like, int dim)
{
    sp_operand index = *like;
    index.data = list->data, index.dtype = list->dtype;
    for (int d = 0; d < index.rank; d++) index.stride[d] = 0;
    index.stride[dim] = list->rank > 0 ? list->stride[0] : 0;
    return index;
}

/* ---- counting ----- */

enum { TABLES = 4, FEW = 512 /* numbers, counted in tables of a chunk's own */ };

typedef struct count_job {
    const e_i64 *x;
    _Atomic int64_t *count;
    int64_t n, numbers;
    _Atomic bool strays;
} count_job;

/* Neighbours in tables of their own: an addition need not wait for the one before. */
static void count_few(const e_i64 *x, int64_t n, int64_t (*table)[TABLES])
{
    int64_t i = 0;
    for (; i + TABLES <= n; i += TABLES) {
        int64_t at[TABLES] = {x[i], x[i + 1], x[i + 2], x[i + 3]};
        table[at[0]][0]++, table[at[1]][1]++, table[at[2]][2]++, table[at[3]][3]++;
    }
    for (; i < n; i++) table[x[i]][0]++;
}

static void count_chunk(void *ctx, int64_t chunk)
{
    count_job *j = ctx;
    int64_t table[FEW][TABLES], start = chunk * CHUNK, n = j->n - start;
    if (n > CHUNK) n = CHUNK;
    if (!all_are_places(j->x + start, n, j->numbers)) {
        atomic_store(&j->strays, true);
        return;
    }
    memset(table, 0, sizeof *table * (size_t)j->numbers);
    count_few(j->x + start, n, table);
    for (int64_t k = 0; k < j->numbers; k++)
        atomic_fetch_add_explicit(&j->count[k],
                                  table[k][0] + table[k][1] + table[k][2] + table[k][3],
                                  memory_order_relaxed);
}

static bool count_many(const e_i64 *x, int64_t n, int64_t numbers, int64_t *count)
{
    for (; n > 0; n -= SOME, x += SOME) {
        int64_t some = n < SOME ? n : SOME;
        if (!all_are_places(x, some, numbers)) return false;
        for (int64_t i = 0; i < some; i++) count[x[i]]++;
    }
    return true;
}

bool sp__places_count(const int64_t *x, int64_t n, int64_t numbers, int64_t *count)
{
    memset(count, 0, (size_t)numbers * sizeof *count);
    if (numbers > FEW) return count_many((const e_i64 *)x, n, numbers, count);
    count_job j = {
        .x = (const e_i64 *)x, .count = (_Atomic int64_t *)count, .n = n, .numbers = numbers};
    sp__pool_for((n + CHUNK - 1) / CHUNK, (double)n * 0.5e-3, count_chunk, &j);
    return !atomic_load(&j.strays);
}
