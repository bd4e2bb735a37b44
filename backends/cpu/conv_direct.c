/* Direct convolutions: sums in registers over elements of x as they lie, without columns.
 *
 *     frame   a tile's x with its zeros around:
 *                 [example][channel][kernel plane][phase][row][column]
 *             its columns are dealt out to phases by the step, so that what one kernel element
 *             meets in a run of positions is a run of the frame
 *     spot    a run of as many positions as a vector has: where it starts in the frame, and in y
 *     offset  of a kernel element of a channel: added to a spot's start in the frame
 *
 * A tile is some rows of one plane of the result (for w's gradient: of several examples, where
 * planes are small), a block as many channels of x as its frame keeps in a core's cache.
 *
 * Invariant: tiles, blocks and parts depend on the geometry and the instruction set alone.
 */
#include <stdatomic.h>
#include <string.h>

#include "backends/cpu/conv.h"
#include "backends/cpu/lanes.h"
#include "backends/cpu/pool.h"
#include "tensor/memory.h"
#include "tensor/status.h"

enum {
    FRAME_BYTES = 128 << 10, /* most of a second level cache is left to w and y */
    FRAME_MOST = 1 << 20,    /* of one channel: with more, columns are better */
    BLOCK_TERMS = 256,       /* of a sum, between stores of it */
    TILE_POSITIONS = 1024,
    PARTS_LEAST = 4 /* of the examples: something to share among threads */
};

typedef struct direct {
    conv_job *j;
    const sp_conv_lanes *lanes;
    int64_t rows, tiles_a_plane, tiles; /* rows of a tile; tiles of an example */
    int64_t n_phases, width, height;    /* of the frame */
    int64_t channel, channels;          /* elements a channel; channels of a block */
    int64_t elements;                   /* of the kernel, of one channel */
    int64_t examples;                   /* in a frame */
    int64_t wholes, tails; /* spots a row: of whole vectors, and of the rest (0 or 1) */
    int64_t *offset;       /* [channels * elements] */
    sp_conv_spot *spot;    /* [examples * rows * wholes], and ... */
    sp_conv_spot *tail;    /* ... [examples * rows * tails] */
    char *w;               /* packed: [group][block][channels of the result, by 4, 2, 1][term] */
    size_t bytes;          /* of these three, which are one piece of memory */
} direct;

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t parts_of(int64_t n, int64_t size)
{
    return (n + size - 1) / size;
}

/* ---- the frame's geometry ----- */

/* Kernel columns q and q + period meet the same phase. */
static int64_t period_of(const columns *c)
{
    int64_t a = c->stride[2], b = c->dilation[2];
    while (b) {
        int64_t rest = a % b;
        a = b, b = rest;
    }
    return c->stride[2] / a;
}

/* Positions of a row of the result, and of its last vector behind its end. */
static int64_t row_of(const direct *d)
{
    return (d->wholes + d->tails) * d->lanes->width;
}

static int64_t height_of(const columns *c, int64_t rows)
{
    return (rows - 1) * c->stride[1] + (c->kernel[1] - 1) * c->dilation[1] + 1;
}

static void lay_out(const columns *c, direct *d)
{
    d->lanes = &sp__isa_conv->conv[c->dtype];
    int64_t lanes = d->lanes->width;
    d->wholes = c->out[2] / lanes, d->tails = c->out[2] % lanes > 0;
    d->rows = TILE_POSITIONS / row_of(d);
    if (d->rows < 1) d->rows = 1;
    d->rows = least(d->rows, c->out[1]);
    d->tiles_a_plane = parts_of(c->out[1], d->rows);
    d->tiles = c->out[0] * d->tiles_a_plane;
    d->n_phases = least(period_of(c), c->kernel[2]);
    d->height = height_of(c, d->rows);
    int64_t reach = (c->kernel[2] - 1) * c->dilation[2] / c->stride[2];
    d->width = parts_of(row_of(d) + reach, lanes) * lanes;
    d->elements = c->k / c->channels;
    d->examples = 1;
}

/* Blocks of about one size: a small last one would cost more than it does. */
static void choose_block(const columns *c, direct *d)
{
    d->channel = c->kernel[0] * d->n_phases * d->height * d->width;
    int64_t most = FRAME_BYTES / (d->examples * d->channel * c->size);
    most = least(most, BLOCK_TERMS / d->elements);
    int64_t blocks = most > 1 ? parts_of(c->channels, most) : c->channels;
    d->channels = parts_of(c->channels, blocks);
}

double sp__columns_cost(int64_t outs)
{
    return 1.1 + 8.0 / (double)outs;
}

/* Whether it is faster than columns; a row's last vector that is not whole counts tail_cost. */
static bool suits(const columns *c, int64_t outs, int64_t tail_cost)
{
    if (c->dtype != SP_FLOAT32 && c->dtype != SP_FLOAT64) return false;
    if (c->k <= c->channels || c->positions == 0) return false;
    direct d;
    lay_out(c, &d);
    double vectors = (double)(d.wholes + tail_cost * d.tails),
           least_vectors = (double)c->out[2] / (double)d.lanes->width,
           channel = (double)(c->kernel[0] * d.n_phases) * (double)d.height * (double)d.width;
    return vectors <= sp__columns_cost(outs) * least_vectors &&
           channel * (double)c->size <= FRAME_MOST;
}

bool sp__direct_suits_result(const columns *c, int64_t outs)
{
    return suits(c, outs, 1);
}

bool sp__direct_suits_weight(const columns *c, int64_t outs)
{
    return suits(c, outs, 2);
}

/* ---- tables ----- */

static void fill_offsets(const columns *c, direct *d)
{
    int64_t sheet = d->height * d->width, period = period_of(c), *to = d->offset, q[3];
    for (int64_t channel = 0; channel < d->channels; channel++)
        for (q[0] = 0; q[0] < c->kernel[0]; q[0]++)
            for (q[1] = 0; q[1] < c->kernel[1]; q[1]++)
                for (q[2] = 0; q[2] < c->kernel[2]; q[2]++)
                    *to++ = channel * d->channel + (q[0] * d->n_phases + q[2] % period) * sheet +
                            q[1] * c->dilation[1] * d->width + q[2] * c->dilation[2] / c->stride[2];
}

/* Those of columns [first, end) of the result, in every row of every example. */
static sp_conv_spot *fill_spots(const direct *d, int64_t first, int64_t end, sp_conv_spot *to)
{
    const conv_job *j = d->j;
    const columns *c = &j->c;
    int64_t lanes = d->lanes->width;
    for (int64_t e = 0; e < d->examples; e++)
        for (int64_t row = 0; row < d->rows; row++)
            for (int64_t at = first; at < end; at += lanes)
                *to++ = (sp_conv_spot){
                    .x = e * d->channels * d->channel + row * c->stride[1] * d->width + at,
                    .y = e * j->groups * j->outs * c->positions + row * c->out[2] + at,
                    .n = least(lanes, end - at)};
    return to;
}

/* w [groups * outs][k] of `size` bytes, as the inner loop takes them. */
#define DEFINE_PACK(T)                                                                             \
    static T *pack_block_##T(const T *w, int64_t row, int64_t outs, int64_t terms, T *to)          \
    {                                                                                              \
        while (outs > 0) {                                                                         \
            int64_t block = outs >= 4 ? 4 : outs >= 2 ? 2 : 1;                                     \
            for (int64_t i = 0; i < terms; i++)                                                    \
                for (int64_t r = 0; r < block; r++) *to++ = w[r * row + i];                        \
            w += block * row, outs -= block;                                                       \
        }                                                                                          \
        return to;                                                                                 \
    }
DEFINE_PACK(float)
DEFINE_PACK(double)

static void pack_weights(const conv_job *j, direct *d)
{
    const columns *c = &j->c;
    char *to = d->w;
    for (int64_t group = 0; group < j->groups; group++)
        for (int64_t first = 0; first < c->channels; first += d->channels) {
            const char *w = j->w + (group * j->outs * c->k + first * d->elements) * c->size;
            int64_t terms = least(d->channels, c->channels - first) * d->elements;
            if (c->dtype == SP_FLOAT32)
                to = (char *)pack_block_float((const float *)w, c->k, j->outs, terms, (float *)to);
            else
                to = (char *)pack_block_double((const double *)w, c->k, j->outs, terms,
                                               (double *)to);
        }
}

/* packed: with room for w. */
static sp_status direct_new(direct *d, bool packed, const char *op)
{
    const conv_job *j = d->j;
    choose_block(&j->c, d);
    size_t spots = (size_t)(d->examples * d->rows * (d->wholes + d->tails)) * sizeof *d->spot,
           offsets = (size_t)(d->channels * d->elements) * sizeof *d->offset,
           weights = packed ? (size_t)(j->groups * j->outs * j->c.k * j->c.size) : 0;
    d->bytes = spots + offsets + weights;
    char *room = sp__alloc(d->bytes);
    if (!room) return sp_fail(SP_EMEMORY, "%s: no memory for %zu bytes to work in", op, d->bytes);
    d->spot = (sp_conv_spot *)room, d->offset = (int64_t *)(room + spots);
    d->w = room + spots + offsets;
    d->tail = fill_spots(d, 0, d->wholes * d->lanes->width, d->spot);
    fill_spots(d, d->wholes * d->lanes->width, j->c.out[2], d->tail);
    fill_offsets(&j->c, d);
    if (packed) pack_weights(j, d);
    return SP_OK;
}

static void direct_free(direct *d)
{
    sp__free(d->spot, d->bytes);
}

/* ---- filling the frame ----- */

static size_t frame_bytes(const direct *d)
{
    return (size_t)(d->examples * d->channels * d->channel * d->j->c.size);
}

/* NULL without memory, which the job notes. */
static char *frame_new(const direct *d)
{
    char *frame = sp__alloc(frame_bytes(d));
    if (!frame) atomic_store(&d->j->failed, true);
    return frame;
}

static void frame_free(const direct *d, char *frame)
{
    sp__free(frame, frame_bytes(d));
}

typedef struct place {
    int64_t plane, row, rows; /* of the result */
} place;

static place place_of(const direct *d, int64_t tile)
{
    place p = {.plane = tile / d->tiles_a_plane, .row = tile % d->tiles_a_plane * d->rows};
    p.rows = least(d->rows, d->j->c.out[1] - p.row);
    return p;
}

static char *y_of(const direct *d, int64_t unit, const place *p)
{
    const columns *c = &d->j->c;
    return sp__conv_y_at(d->j, unit) + (p->plane * c->out[1] + p->row) * c->out[2] * c->size;
}

/* What one phase and kernel plane meet: rows of every stride[2]-th element of x. */
static void fill_sheet(const direct *d, const char *x, int64_t depth, int64_t row, int64_t height,
                       int64_t phase, char *to)
{
    const columns *c = &d->j->c;
    int64_t length = d->width * c->size, first, n, first_row, rows,
            start = phase * c->dilation[2] % c->stride[2] - c->padding[2];
    sp__conv_inside(row, 1, c->in[1], height, &first_row, &rows);
    sp__conv_inside(start, c->stride[2], c->in[2], d->width, &first, &n);
    if (depth < 0 || depth >= c->in[0] || rows == 0 || n == 0) {
        memset(to, 0, (size_t)(height * length));
        return;
    }
    int64_t at = (depth * c->in[1] + row + first_row) * c->in[2] + start + first * c->stride[2];
    memset(to, 0, (size_t)(first_row * length));
    to += first_row * length;
    sp__isa_conv->pool[c->dtype].frame(to, d->width, first, x + at * c->size, c->in[2],
                                       c->stride[2], rows, n);
    memset(to + rows * length, 0, (size_t)((height - first_row - rows) * length));
}

static void fill_frame(const direct *d, const place *p, const char *x, int64_t channels, char *to)
{
    const columns *c = &d->j->c;
    int64_t height = height_of(c, p->rows), sheet = d->height * d->width * c->size,
            row = p->row * c->stride[1] - c->padding[1];
    for (int64_t channel = 0; channel < channels; channel++, x += c->in_positions * c->size)
        for (int64_t q = 0; q < c->kernel[0]; q++)
            for (int64_t phase = 0; phase < d->n_phases; phase++, to += sheet)
                fill_sheet(d, x, p->plane * c->stride[0] - c->padding[0] + q * c->dilation[0], row,
                           height, phase, to);
}

/* ---- the result ----- */

static void result_tile(const direct *d, int64_t unit, int64_t tile, char *frame)
{
    const conv_job *j = d->j;
    const columns *c = &j->c;
    int64_t group = unit % j->groups;
    place p = place_of(d, tile);
    const char *w = d->w + group * j->outs * c->k * c->size;
    char *y = y_of(d, unit, &p);
    const char *b = j->b ? j->b + group * j->outs * c->size : NULL;
    for (int64_t first = 0; first < c->channels; first += d->channels) {
        int64_t channels = least(d->channels, c->channels - first), terms = channels * d->elements;
        const char *x = sp__conv_x_at(j, unit) + first * c->in_positions * c->size;
        fill_frame(d, &p, x, channels, frame);
        d->lanes->result(d->spot, p.rows * d->wholes, frame, d->offset, terms, w, j->outs, b,
                         first > 0, y, c->positions);
        d->lanes->result(d->tail, p.rows * d->tails, frame, d->offset, terms, w, j->outs, b,
                         first > 0, y, c->positions);
        w += j->outs * terms * c->size;
    }
}

static void result_chunk(void *ctx, int64_t chunk)
{
    const direct *d = ctx;
    char *frame = frame_new(d);
    if (!frame) return;
    result_tile(d, chunk / d->tiles, chunk % d->tiles, frame);
    frame_free(d, frame);
}

sp_status sp__direct_result(conv_job *j, double predicted_us, const char *op)
{
    direct d = {.j = j};
    lay_out(&j->c, &d);
    SP_RETURN_IF(direct_new(&d, true, op));
    sp__pool_for(j->examples * j->groups * d.tiles, predicted_us, result_chunk, &d);
    direct_free(&d);
    return SP_OK;
}

/* ---- the gradient of w ----- */

static void weight_tile(const direct *d, int64_t example, int64_t n, int64_t group, int64_t tile,
                        char *frame, char *sum)
{
    const conv_job *j = d->j;
    const columns *c = &j->c;
    place p = place_of(d, tile);
    int64_t unit = example * j->groups + group, step = d->channels * d->channel * c->size;
    const char *y = y_of(d, unit, &p);
    for (int64_t first = 0; first < c->channels; first += d->channels) {
        int64_t channels = least(d->channels, c->channels - first);
        for (int64_t e = 0; e < n; e++)
            fill_frame(d, &p,
                       sp__conv_x_at(j, unit + e * j->groups) + first * c->in_positions * c->size,
                       channels, frame + e * step);
        char *share = sum + first * d->elements * c->size;
        int64_t rows = n * p.rows, terms = channels * d->elements;
        d->lanes->weight(d->spot, rows * d->wholes, frame, d->offset, terms, y, c->positions,
                         j->outs, share, c->k);
        d->lanes->weight(d->tail, rows * d->tails, frame, d->offset, terms, y, c->positions,
                         j->outs, share, c->k);
    }
}

/* One part's examples and one group. */
static void weight_chunk(void *ctx, int64_t chunk)
{
    const direct *d = ctx;
    const conv_job *j = d->j;
    int64_t group = chunk % j->groups, first = chunk / j->groups * j->examples_a_part,
            end = least(first + j->examples_a_part, j->examples), n_w = j->outs * j->c.k;
    char *sum = j->sums + chunk * n_w * j->c.size;
    char *frame = frame_new(d);
    if (!frame) return;
    memset(sum, 0, (size_t)(n_w * j->c.size));
    for (; first < end; first += d->examples)
        for (int64_t tile = 0; tile < d->tiles; tile++)
            weight_tile(d, first, least(d->examples, end - first), group, tile, frame, sum);
    frame_free(d, frame);
}

/* Small planes: several examples a frame, so that a sum has terms enough to be worth adding up. */
static void choose_examples(const conv_job *j, direct *d)
{
    if (d->tiles > 1) return;
    int64_t positions = d->rows * row_of(d);
    d->examples = least(TILE_POSITIONS / positions, parts_of(j->examples, PARTS_LEAST));
    if (d->examples < 1) d->examples = 1;
}

sp_status sp__direct_weight(conv_job *j, double predicted_us, const char *op)
{
    direct d = {.j = j};
    lay_out(&j->c, &d);
    choose_examples(j, &d);
    SP_RETURN_IF(direct_new(&d, false, op));
    sp_status status = sp__conv_sum_parts(j, d.examples, predicted_us, weight_chunk, &d, op);
    direct_free(&d);
    return status;
}
