/* Random numbers, whole and real, and dropout: Philox blocks to elements, as ops/random.h lays
 * down.
 *
 * An element's value depends on seed, offset and its index alone, so chunks may run on any thread.
 */
#include "ops/random.h"

#include <math.h>
#include <string.h>

#include "backends/cpu/kernels.h"
#include "backends/cpu/lanes.h"
#include "backends/cpu/pool.h"
#include "backends/cpu/strided.h"

enum { CHUNK_BLOCKS = 1024 };

typedef struct random_job {
    const sp_operand *out;
    uint64_t seed, offset;
    bool normal;
    double scale; /* of normal numbers */
} random_job;

static void draw(const random_job *j, const sp_random_lanes *f, const uint32_t *w, int64_t n,
                 void *to)
{
    int digits = sp__dtypes[j->out->dtype].digits;
    if (j->normal)
        f->normal(w, n, digits, j->scale, to);
    else
        f->uniform(w, n, digits, to);
}

/* n elements of the halves, computed in float32. */
static void draw_narrow(const random_job *j, const uint32_t *w, int64_t n, char *to)
{
    float wide[CHUNK_BLOCKS * 4];
    int dtype = j->out->dtype;
    const sp_random_lanes *f = &sp__isa->random[SP_FLOAT32];
    draw(j, f, w, n, wide);
    sp__isa->cast[SP_FLOAT32][dtype](to, wide, NULL, NULL, n, 0);
}

static void random_chunk(void *ctx, int64_t chunk)
{
    const random_job *j = ctx;
    uint32_t w[CHUNK_BLOCKS * 4];
    double room[CHUNK_BLOCKS * 2];
    int dtype = j->out->dtype;
    int64_t per_block = dtype == SP_FLOAT64 ? 2 : 4, block = chunk * CHUNK_BLOCKS,
            first = block * per_block, n = j->out->numel - first, size = sp__size_of(dtype);
    if (n > CHUNK_BLOCKS * per_block) n = CHUNK_BLOCKS * per_block;
    char *to = j->out->data + first * size;
    sp__isa->random_words(j->seed, j->offset + (uint64_t)block, (n + per_block - 1) / per_block, w);
    if (dtype != SP_FLOAT32 && dtype != SP_FLOAT64) {
        draw_narrow(j, w, n, to);
        return;
    }
    const sp_random_lanes *f = &sp__isa->random[dtype];
    bool whole = n % SP_RANDOM_STEP == 0;
    draw(j, f, w, n, whole ? to : (char *)room);
    if (!whole) memcpy(to, room, (size_t)(n * size));
}

/* A complex number is two parts of half the variance. The last two attributes: seed, offset. */
static sp_status random_fill(const sp_kargs *args, bool normal)
{
    const sp_attr *last = args->attr + args->n_attr;
    sp_operand out = args->arg[0];
    bool parts = sp__dtype_is_complex(out.dtype);
    if (parts) out.numel *= 2, out.dtype = (uint8_t)sp__dtype_real(out.dtype);
    random_job job = {&out, (uint64_t)last[-2].v.i, (uint64_t)last[-1].v.i, normal,
                      parts ? M_SQRT1_2 : 1};
    int64_t blocks = (int64_t)sp__random_blocks(job.out->numel, job.out->dtype);
    double us = (double)job.out->numel * (normal ? 3e-3 : 1e-3);
    sp__pool_for((blocks + CHUNK_BLOCKS - 1) / CHUNK_BLOCKS, us, random_chunk, &job);
    return SP_OK;
}

/* ---- whole numbers ----- */

/* The number below the span that 64 random bits make: 64 bits times the span, of which the upper 64
 * bits are below the span (Lemire 2019, without his rejection: the bias is span / 2^64). */
static uint64_t scaled(const uint32_t w[2], uint64_t span)
{
    uint64_t bits = (uint64_t)w[0] | (uint64_t)w[1] << 32;
    return (uint64_t)((unsigned __int128)bits * span >> 64);
}

typedef struct whole_job {
    const sp_operand *out;
    uint64_t seed, offset, low, span;
} whole_job;

static void whole_chunk(void *ctx, int64_t chunk)
{
    const whole_job *j = ctx;
    uint32_t w[CHUNK_BLOCKS * 4];
    int64_t numbers[CHUNK_BLOCKS * 2], block = chunk * CHUNK_BLOCKS, first = block * 2,
                                       n = j->out->numel - first;
    if (n > CHUNK_BLOCKS * 2) n = CHUNK_BLOCKS * 2;
    sp__isa->random_words(j->seed, j->offset + (uint64_t)block, (n + 1) / 2, w);
    for (int64_t i = 0; i < n; i++) numbers[i] = (int64_t)(j->low + scaled(w + 2 * i, j->span));
    sp__isa->cast[SP_INT64][j->out->dtype](j->out->data + first * sp__size_of(j->out->dtype),
                                           numbers, NULL, NULL, n, 0);
}

/* attributes: low, high, size, dtype, seed, offset */
sp_status sp__cpu_randint(const sp_kargs *args)
{
    const sp_attr *last = args->attr + args->n_attr;
    uint64_t low = (uint64_t)args->attr[0].v.i;
    whole_job job = {.out = &args->arg[0],
                     .seed = (uint64_t)last[-2].v.i,
                     .offset = (uint64_t)last[-1].v.i,
                     .low = low,
                     .span = (uint64_t)args->attr[1].v.i - low};
    int64_t blocks = (job.out->numel + 1) / 2;
    sp__pool_for((blocks + CHUNK_BLOCKS - 1) / CHUNK_BLOCKS, (double)job.out->numel * 2e-3,
                 whole_chunk, &job);
    return SP_OK;
}

/* Fisher and Yates' shuffle, from the end. attributes: n, seed, offset; the output is dense */
sp_status sp__cpu_randperm_whole(const sp_kargs *args)
{
    enum { STRETCH = CHUNK_BLOCKS * 2 };
    uint32_t w[CHUNK_BLOCKS * 4];
    int64_t *to = (int64_t *)(void *)args->arg[0].data, n = args->arg[0].numel;
    uint64_t seed = (uint64_t)args->attr[1].v.i, offset = (uint64_t)args->attr[2].v.i;
    for (int64_t i = 0; i < n; i++) to[i] = i;
    for (int64_t end = n; end > 0;) {
        int64_t start = (end - 1) / STRETCH * STRETCH;
        sp__isa->random_words(seed, offset + (uint64_t)start / 2, (end - start + 1) / 2, w);
        for (int64_t i = end - 1; i >= start && i > 0; i--) {
            int64_t other = (int64_t)scaled(w + 2 * (i - start), (uint64_t)i + 1), kept = to[i];
            to[i] = to[other], to[other] = kept;
        }
        end = start;
    }
    return SP_OK;
}

/* ---- dropout ----- */

typedef struct drop_job {
    const sp_operand *out, *x;
    uint64_t seed, offset, least; /* a word from `least` on keeps its element */
    double scale;
} drop_job;

static void drop_chunk(void *ctx, int64_t chunk)
{
    const drop_job *j = ctx;
    int64_t block = chunk * CHUNK_BLOCKS, start = block * 4, n = j->out->numel - start,
            size = sp__size_of(j->out->dtype);
    uint32_t w[CHUNK_BLOCKS * 4];
    double room[CHUNK_BLOCKS * 4];
    if (n > CHUNK_BLOCKS * 4) n = CHUNK_BLOCKS * 4;
    char *to = j->out->data + start * size;
    const void *x = j->x->data + start * size;
    if (j->least > UINT32_MAX) {
        memset(to, 0, (size_t)(n * size));
        return;
    }
    if (!j->x->contiguous) sp__gather(room, j->x, start, n), x = room;
    sp__isa->random_words(j->seed, j->offset + (uint64_t)block, (n + 3) / 4, w);
    sp__isa->random[j->out->dtype].drop(w, x, n, (uint32_t)j->least, j->scale, to);
}

/* attributes: p, seed, offset; the output is dense */
sp_status sp__cpu_dropout_train(const sp_kargs *args)
{
    double p = args->attr[0].v.f;
    drop_job job = {.out = &args->arg[0], .x = &args->arg[1]};
    job.seed = (uint64_t)args->attr[1].v.i, job.offset = (uint64_t)args->attr[2].v.i;
    job.least = (uint64_t)ceil(p * 0x1p32), job.scale = p < 1 ? 1 / (1 - p) : 0;
    int64_t chunks = (job.out->numel + CHUNK_BLOCKS * 4 - 1) / (CHUNK_BLOCKS * 4);
    sp__pool_for(chunks, (double)job.out->numel * 1e-3, drop_chunk, &job);
    return SP_OK;
}

sp_status sp__cpu_rand(const sp_kargs *args)
{
    return random_fill(args, false);
}

sp_status sp__cpu_randn(const sp_kargs *args)
{
    return random_fill(args, true);
}
