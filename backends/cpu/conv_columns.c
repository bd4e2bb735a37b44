/* Columns of a convolution: gathered from x, and added back into it.
 *
 * One line is what one kernel element meets along one row of the result: zeros, a run of x, zeros.
 */
#include <string.h>

#include "backends/cpu/conv.h"
#include "backends/cpu/lanes.h"
#include "backends/cpu/strided.h"
#include "ops_gen.h"

static const int64_t TILE_BYTES = 192 << 10; /* of columns: they stay in the second level cache */

static void fill_dims(int64_t *to, const int64_t *from, int n, int64_t missing)
{
    for (int i = 0; i < 3 - n; i++) to[i] = missing;
    for (int i = 0; i < n; i++) to[3 - n + i] = from[i];
}

static int64_t product(const int64_t *v)
{
    return v[0] * v[1] * v[2];
}

void sp__columns_of(const sp_conv *g, int dtype, columns *c)
{
    int n = g->n_dims;
    *c = (columns){.dtype = dtype, .size = sp__size_of(dtype), .channels = g->w[1]};
    fill_dims(c->in, g->x + 2, n, 1), fill_dims(c->out, g->y + 2, n, 1);
    fill_dims(c->kernel, g->w + 2, n, 1), fill_dims(c->stride, g->stride, n, 1);
    fill_dims(c->padding, g->padding, n, 0), fill_dims(c->dilation, g->dilation, n, 1);
    c->k = c->channels * product(c->kernel);
    c->positions = product(c->out), c->in_positions = product(c->in);
    c->rows = c->out[0] * c->out[1];
    c->plain = product(c->kernel) == 1 && product(c->stride) == 1 && c->padding[0] == 0 &&
               c->padding[1] == 0 && c->padding[2] == 0;
    int64_t row_bytes = c->k * c->out[2] * c->size;
    c->rows_a_tile = row_bytes > 0 && row_bytes < TILE_BYTES ? TILE_BYTES / row_bytes : 1;
    if (c->plain && c->k > 0) c->rows_a_tile = c->rows; /* nothing is made */
    if (c->rows_a_tile > c->rows) c->rows_a_tile = c->rows;
}

/* ---- lines ----- */

typedef struct line { /* of one kernel element along one row of the result */
    bool outside;     /* in another dimension: all zeros */
    int64_t at;       /* in x's plane: of the first position that is inside */
    int64_t first, n; /* positions inside */
    int64_t step;
} line;

static line line_of(const columns *c, const int64_t *q, int64_t row)
{
    int64_t o[2] = {row / c->out[1], row % c->out[1]}, at = 0, step = c->stride[2];
    line l = {.step = step};
    for (int d = 0; d < 2; d++) {
        int64_t i = o[d] * c->stride[d] - c->padding[d] + q[d] * c->dilation[d];
        l.outside |= i < 0 || i >= c->in[d];
        at = at * c->in[d] + i;
    }
    int64_t i = q[2] * c->dilation[2] - c->padding[2]; /* where position 0 looks */
    l.first = i < 0 ? (-i + step - 1) / step : 0;
    int64_t end = i < c->in[2] ? (c->in[2] - 1 - i) / step + 1 : 0;
    if (end > c->out[2]) end = c->out[2];
    l.n = end > l.first ? end - l.first : 0;
    l.at = at * c->in[2] + i + l.first * step;
    l.outside |= l.n == 0;
    return l;
}

static void take_line(const columns *c, const line *l, const char *plane, char *to)
{
    size_t size = (size_t)c->size;
    if (l->outside) {
        memset(to, 0, (size_t)c->out[2] * size);
        return;
    }
    memset(to, 0, (size_t)l->first * size);
    to += l->first * c->size;
    sp__gather_run(to, plane + l->at * c->size, c->size, l->n, l->step);
    memset(to + l->n * c->size, 0, (size_t)(c->out[2] - l->first - l->n) * size);
}

#define ADD_STEPS(type)                                                                            \
    for (int64_t i = 0; i < l->n; i++) ((type *)to)[i * l->step] += ((const type *)from)[i];

static void add_line(const columns *c, const line *l, const char *from, char *plane)
{
    if (l->outside) return;
    from += l->first * c->size;
    char *to = plane + l->at * c->size;
    if (l->step == 1)
        sp__isa->pointwise[SP_OP_ADD_SCALAR]->fn[c->dtype](to, to, from, NULL, l->n, 0);
    else if (c->dtype == SP_FLOAT32)
        ADD_STEPS(float)
    else
        ADD_STEPS(double)
}

/* ---- all lines of some rows ----- */

typedef void (*line_fn)(const columns *c, const line *l, char *plane, char *column);

static void each_line(const columns *c, int64_t row, int64_t n, char *x, char *column, line_fn fn)
{
    int64_t q[3], length = c->out[2] * c->size;
    for (int64_t channel = 0; channel < c->channels; channel++) {
        char *plane = x + channel * c->in_positions * c->size;
        for (q[0] = 0; q[0] < c->kernel[0]; q[0]++)
            for (q[1] = 0; q[1] < c->kernel[1]; q[1]++)
                for (q[2] = 0; q[2] < c->kernel[2]; q[2]++)
                    for (int64_t r = row; r < row + n; r++, column += length) {
                        line l = line_of(c, q, r);
                        fn(c, &l, plane, column);
                    }
    }
}

static void take(const columns *c, const line *l, char *plane, char *column)
{
    take_line(c, l, plane, column);
}

static void add(const columns *c, const line *l, char *plane, char *column)
{
    add_line(c, l, column, plane);
}

void sp__columns_take(const columns *c, const char *x, int64_t row, int64_t n, char *to)
{
    each_line(c, row, n, (char *)(uintptr_t)x, to, take);
}

void sp__columns_add(const columns *c, const char *from, int64_t row, int64_t n, char *x)
{
    each_line(c, row, n, x, (char *)(uintptr_t)from, add);
}
