/* Planes taken apart into phases, and put together from them (pooling.h). */
#include <string.h>

#include "backends/cpu/lanes.h"
#include "backends/cpu/pooling.h"
#include "backends/cpu/strided.h"
#include "tensor/memory.h"
#include "tensor/status.h"

enum { ROOM = 64 };                          /* bytes of the longest vector */
static const int64_t PIECE_BYTES = 32 << 10; /* of phases: about the first level cache */

/* ---- layout ----- */

static int64_t gcd(int64_t a, int64_t b)
{
    while (b != 0) {
        int64_t rest = a % b;
        a = b, b = rest;
    }
    return a;
}

/* Elements q of a window lie in as many phases, in turns. */
static int64_t period(const sp_pool_window *w, int i)
{
    return w->stride[i] / gcd(w->stride[i], w->dilation[i]);
}

static int64_t block_of(const sp_pool_window *w, int i, int64_t windows)
{
    return windows + (w->kernel[i] - 1) * w->dilation[i] / w->stride[i];
}

static void plan_pieces(pooling *p, bool whole_planes)
{
    const sp_pool_window *w = &p->w;
    int64_t row = p->phases[0] * p->phases[1] * p->block[1] * p->size,
            plane = row * block_of(w, 0, w->out[0]), over = block_of(w, 0, 0);
    p->rows_a_piece = w->out[0], p->planes_a_piece = 1;
    if (plane <= PIECE_BYTES) {
        p->planes_a_piece = plane > 0 ? PIECE_BYTES / plane : 1;
        if (p->planes_a_piece > p->planes) p->planes_a_piece = p->planes;
    } else if (!whole_planes) {
        p->rows_a_piece = PIECE_BYTES / row > 2 * over + 8 ? PIECE_BYTES / row - over : over + 8;
        if (p->rows_a_piece > w->out[0]) p->rows_a_piece = w->out[0];
    }
    p->block[0] = block_of(w, 0, p->rows_a_piece);
    p->pieces_a_plane = (w->out[0] + p->rows_a_piece - 1) / p->rows_a_piece;
    p->pieces = (p->planes + p->planes_a_piece - 1) / p->planes_a_piece * p->pieces_a_plane;
    p->n = p->planes_a_piece * p->block[0] * p->block[1];
}

static void place_elements(pooling *p)
{
    const sp_pool_window *w = &p->w;
    int64_t q = 0;
    for (int64_t i = 0; i < w->kernel[0]; i++) {
        int64_t row = i * w->dilation[0], t0 = i % period(w, 0);
        for (int64_t j = 0; j < w->kernel[1]; j++, q++) {
            int64_t column = j * w->dilation[1], t1 = j % period(w, 1);
            p->offset[q] = (t0 * p->phases[1] + t1) * p->n + row / w->stride[0] * p->block[1] +
                           column / w->stride[1];
            p->place[q] = row * w->in[1] + column;
        }
    }
}

/* Places in a plane are counted in integers as wide as an element. */
static sp_status check_size(const sp_pool_window *w, int64_t size)
{
    double room = 1, k = (double)w->kernel[0] * (double)w->kernel[1];
    for (int i = 0; i < 2; i++) room *= (double)w->in[i] + 2.0 * (double)w->padding[i] + 1;
    if (size == 4 && room >= 0x1p31)
        return sp_fail(SP_EUNSUPPORTED, "pooling: a plane of 2**31 elements or more");
    return room < 0x1p52 && k < 0x1p52
               ? SP_OK
               : sp_fail(SP_EMEMORY, "pooling: no memory for windows of that size");
}

sp_status sp__pooling_new(const sp_pool_window *w, int dtype, int64_t planes, bool whole_planes,
                          const void *pad, pooling *p)
{
    *p = (pooling){.w = *w, .dtype = dtype, .size = sp__size_of(dtype), .planes = planes};
    SP_RETURN_IF(check_size(w, p->size));
    for (int i = 0; i < 2; i++) {
        p->phases[i] = period(w, i) < w->kernel[i] ? period(w, i) : w->kernel[i];
        p->block[i] = block_of(w, i, w->out[i]);
    }
    plan_pieces(p, whole_planes);
    p->k = w->kernel[0] * w->kernel[1];
    p->bytes = (size_t)p->k * 2 * sizeof(int64_t) + (size_t)(p->block[1] * p->size);
    p->offset = sp__alloc(p->bytes);
    if (!p->offset) return sp_fail(SP_EMEMORY, "pooling: no memory for %zu bytes", p->bytes);
    p->place = p->offset + p->k;
    p->padding = (char *)(p->place + p->k);
    place_elements(p);
    for (int64_t i = 0; i < p->block[1]; i++)
        memcpy(p->padding + i * p->size, pad, (size_t)p->size);
    return SP_OK;
}

void sp__pooling_free(pooling *p)
{
    if (p->offset) sp__free(p->offset, p->bytes);
}

piece sp__pooling_piece(const pooling *p, int64_t index)
{
    piece of = {.plane = index / p->pieces_a_plane * p->planes_a_piece,
                .planes = p->planes_a_piece,
                .row = index % p->pieces_a_plane * p->rows_a_piece,
                .rows = p->rows_a_piece};
    if (of.plane + of.planes > p->planes) of.planes = p->planes - of.plane;
    if (of.row + of.rows > p->w.out[0]) of.rows = p->w.out[0] - of.row;
    return of;
}

size_t sp__pooling_bytes(const pooling *p)
{
    return (size_t)(p->phases[0] * p->phases[1] * p->n * p->size) + ROOM;
}

int64_t sp__pooling_used(const pooling *p, const piece *of)
{
    return ((of->planes - 1) * p->block[0] + of->rows - 1) * p->block[1] + p->w.out[1];
}

/* ---- pieces ----- */

typedef struct run {      /* along one dimension of a phase, what is not padding */
    int64_t first, n, at; /* in the block; how many; where the first one is in x */
} run;

/* The block's element 0 is at `start` in x. */
static run run_of(int64_t start, int64_t step, int64_t in, int64_t block)
{
    int64_t first = start < 0 ? (-start + step - 1) / step : 0,
            end = start < in ? (in - 1 - start) / step + 1 : 0;
    if (end > block) end = block;
    return (run){.first = first, .n = end > first ? end - first : 0, .at = start + first * step};
}

/* Rows and columns of phase t, for windows from `row` on. */
static void runs_of(const pooling *p, int64_t t, int64_t row, run *r)
{
    const sp_pool_window *w = &p->w;
    int64_t phase[2] = {t / p->phases[1], t % p->phases[1]}, first[2] = {row, 0};
    for (int i = 0; i < 2; i++)
        r[i] = run_of(first[i] * w->stride[i] - w->padding[i] +
                          phase[i] * w->dilation[i] % w->stride[i],
                      w->stride[i], w->in[i], p->block[i]);
}

/* n rows of nothing but padding. */
static void pad_rows(const pooling *p, char *to, int64_t n)
{
    int64_t bytes = p->block[1] * p->size;
    for (int64_t i = 0; i < n; i++) memcpy(to + i * bytes, p->padding, (size_t)bytes);
}

static void pad_sides(const pooling *p, const run *r, char *to)
{
    int64_t bytes = p->block[1] * p->size, before = r[1].first * p->size, inside = r[1].n * p->size;
    for (int64_t i = 0; i < r[0].n; i++, to += bytes) {
        memcpy(to, p->padding, (size_t)before);
        memcpy(to + before + inside, p->padding, (size_t)(bytes - before - inside));
    }
}

static void take_plane(const pooling *p, const run *r, const char *plane, char *to)
{
    const sp_pool_window *w = &p->w;
    int64_t bytes = p->block[1] * p->size;
    if (r[0].n == 0 || r[1].n == 0) {
        pad_rows(p, to, p->block[0]);
        return;
    }
    pad_rows(p, to, r[0].first);
    to += r[0].first * bytes;
    if (r[1].n < p->block[1]) pad_sides(p, r, to);
    sp__isa->pool[p->dtype].take(to + r[1].first * p->size, p->block[1],
                                 plane + (r[0].at * w->in[1] + r[1].at) * p->size,
                                 w->stride[0] * w->in[1], w->stride[1], r[0].n, r[1].n);
    pad_rows(p, to + r[0].n * bytes, p->block[0] - r[0].first - r[0].n);
}

void sp__pooling_take(const pooling *p, const piece *of, const char *x, char *phases)
{
    int64_t plane_bytes = p->w.in[0] * p->w.in[1] * p->size,
            block_bytes = p->block[0] * p->block[1] * p->size;
    for (int64_t t = 0; t < p->phases[0] * p->phases[1]; t++) {
        char *to = phases + t * p->n * p->size;
        run r[2];
        runs_of(p, t, of->row, r);
        for (int64_t g = 0; g < of->planes; g++, to += block_bytes)
            take_plane(p, r, x + (of->plane + g) * plane_bytes, to);
    }
}

/* Whether every element of x is in a window. */
static bool covered(const sp_pool_window *w)
{
    for (int i = 0; i < 2; i++)
        if (w->kernel[i] < w->stride[i] ||
            (w->out[i] - 1) * w->stride[i] + w->kernel[i] < w->in[i] + w->padding[i])
            return false;
    return true;
}

/* Whole planes. What is in no window becomes zero. */
void sp__pooling_put(const pooling *p, const piece *of, const char *phases, char *x)
{
    const sp_pool_window *w = &p->w;
    int64_t plane_bytes = w->in[0] * w->in[1] * p->size;
    if (!covered(w)) memset(x + of->plane * plane_bytes, 0, (size_t)(of->planes * plane_bytes));
    for (int64_t t = 0; t < p->phases[0] * p->phases[1]; t++) {
        const char *from = phases + t * p->n * p->size;
        run r[2];
        runs_of(p, t, 0, r);
        for (int64_t g = 0; g < of->planes && r[0].n > 0 && r[1].n > 0; g++) {
            int64_t at = (g * p->block[0] + r[0].first) * p->block[1] + r[1].first;
            char *to = x + (of->plane + g) * plane_bytes + (r[0].at * w->in[1] + r[1].at) * p->size;
            sp__isa->pool[p->dtype].put(to, w->stride[0] * w->in[1], w->stride[1],
                                        from + at * p->size, p->block[1], r[0].n, r[1].n);
        }
    }
}
