/* Columns of a convolution: gathered from x, and added back into it.
 *
 * Moved by sheets, what one kernel element meets in some rows of the result, because a call a row
 * costs more than the row.
 */
#include <string.h>

#include "backends/cpu/conv.h"
#include "backends/cpu/lanes.h"
#include "backends/cpu/strided.h"

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

/* ---- sheets ----- */

/* What one kernel element meets in rows of one plane of the result: a sheet of rows x out[2]
 * elements, zeros around what lies inside x. */
typedef struct sheet {
    int64_t rows;     /* of the sheet */
    int64_t row, n;   /* rows inside: the first, how many */
    int64_t first, m; /* columns inside */
    int64_t at;       /* in x's channel, of the first element inside */
} sheet;

void sp__conv_inside(int64_t start, int64_t step, int64_t in, int64_t out, int64_t *first,
                     int64_t *n)
{
    int64_t end = start < in ? (in - 1 - start) / step + 1 : 0;
    *first = start < 0 ? (-start + step - 1) / step : 0;
    if (end > out) end = out;
    *n = end > *first ? end - *first : 0;
}

/* Rows [row, row + rows) of the plane number `plane`. */
static sheet sheet_of(const columns *c, const int64_t *q, int64_t plane, int64_t row, int64_t rows)
{
    int64_t start[3], depth = plane * c->stride[0] - c->padding[0] + q[0] * c->dilation[0];
    sheet s = {.rows = rows};
    for (int d = 1; d < 3; d++) start[d] = q[d] * c->dilation[d] - c->padding[d];
    start[1] += row * c->stride[1];
    sp__conv_inside(start[1], c->stride[1], c->in[1], rows, &s.row, &s.n);
    sp__conv_inside(start[2], c->stride[2], c->in[2], c->out[2], &s.first, &s.m);
    if (depth < 0 || depth >= c->in[0] || s.m == 0) s.n = 0;
    if (s.n == 0) s.row = rows;
    s.at = (depth * c->in[1] + start[1] + s.row * c->stride[1]) * c->in[2] + start[2] +
           s.first * c->stride[2];
    return s;
}

static void take_sheet(const columns *c, const sheet *s, char *x, char *to)
{
    int64_t length = c->out[2] * c->size;
    int64_t behind = s->rows - s->row - s->n;
    if (s->row > 0) memset(to, 0, (size_t)(s->row * length));
    to += s->row * length;
    if (s->n == 0) return;
    sp__isa->pool[c->dtype].frame(to, c->out[2], s->first, x + s->at * c->size,
                                  c->stride[1] * c->in[2], c->stride[2], s->n, s->m);
    if (behind > 0) memset(to + s->n * length, 0, (size_t)(behind * length));
}

static void add_sheet(const columns *c, const sheet *s, char *x, char *from)
{
    if (s->n == 0) return;
    sp__isa->pool[c->dtype].add(x + s->at * c->size, c->stride[1] * c->in[2], c->stride[2],
                                from + (s->row * c->out[2] + s->first) * c->size, c->out[2], s->n,
                                s->m);
}

/* ---- all sheets of some rows ----- */

typedef void (*sheet_fn)(const columns *c, const sheet *s, char *x, char *columns);

/* Rows [row, row + n) of the result and kernel element number `q_nr`, of every channel: they share
 * the sheet. */
static void each_channel(const columns *c, const int64_t *q, int64_t q_nr, int64_t row, int64_t n,
                         char *x, char *to, sheet_fn fn)
{
    int64_t length = c->out[2] * c->size, elements = product(c->kernel);
    for (int64_t done = 0; done < n;) {
        int64_t plane = (row + done) / c->out[1], first = (row + done) % c->out[1],
                rows = c->out[1] - first;
        if (rows > n - done) rows = n - done;
        sheet s = sheet_of(c, q, plane, first, rows);
        for (int64_t channel = 0; channel < c->channels; channel++)
            fn(c, &s, x + channel * c->in_positions * c->size,
               to + ((channel * elements + q_nr) * n + done) * length);
        done += rows;
    }
}

static void each_sheet(const columns *c, int64_t row, int64_t n, char *x, char *to, sheet_fn fn)
{
    int64_t q[3], q_nr = 0;
    for (q[0] = 0; q[0] < c->kernel[0]; q[0]++)
        for (q[1] = 0; q[1] < c->kernel[1]; q[1]++)
            for (q[2] = 0; q[2] < c->kernel[2]; q[2]++, q_nr++)
                each_channel(c, q, q_nr, row, n, x, to, fn);
}

void sp__columns_take(const columns *c, const char *x, int64_t row, int64_t n, char *to)
{
    each_sheet(c, row, n, (char *)(uintptr_t)x, to, take_sheet);
}

void sp__columns_add(const columns *c, const char *from, int64_t row, int64_t n, char *x)
{
    each_sheet(c, row, n, x, (char *)(uintptr_t)from, add_sheet);
}
