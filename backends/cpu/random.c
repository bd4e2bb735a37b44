/* rand and randn: Philox blocks to elements, as ops/random.h lays down.
 *
 * An element's value depends on seed, offset and its index alone, so chunks may run on any thread.
 * Box and Muller's transform is computed in double by the C library whatever the dtype, so that
 * instruction sets do not matter either.
 */
#include "ops/random.h"

#include <math.h>
#include <string.h>

#include "backends/cpu/kernels.h"
#include "backends/cpu/pool.h"
#include "backends/cpu/strided.h"
#include "backends/cpu/tile_int.h"

enum { CHUNK_BLOCKS = 1024 };

typedef struct random_job {
    const sp_operand *out;
    uint64_t seed, offset;
    bool normal;
    double scale; /* of normal numbers */
} random_job;

/* The block's uniforms as doubles, exact in the dtype; how many. */
static int uniforms(const uint32_t w[4], int dtype, double u[4])
{
    if (dtype != SP_FLOAT64) {
        int digits = sp__dtypes[dtype].digits;
        double unit = 1.0 / (1 << digits);
        for (int i = 0; i < 4; i++) u[i] = (w[i] >> (32 - digits)) * unit;
        return 4;
    }
    for (int k = 0; k < 2; k++) {
        u[k] = (double)((uint64_t)(w[2 * k] >> 11) | (uint64_t)w[2 * k + 1] << 21) * 0x1p-53;
    }
    return 2;
}

/* Pairs (u, v) to pairs of normals. */
static void box_muller(double *u, int n, double scale)
{
    for (int i = 0; i < n; i += 2) {
        double r = sqrt(-2 * log(1 - u[i])), sine, cosine;
        sincos(2 * M_PI * u[i + 1], &sine, &cosine);
        u[i] = r * cosine * scale, u[i + 1] = r * sine * scale;
    }
}

static void store(const sp_operand *out, int64_t first, const double *u, int64_t n)
{
    if (out->dtype == SP_FLOAT64) {
        memcpy(out->data + first * 8, u, (size_t)n * 8);
        return;
    }
    if (out->dtype == SP_FLOAT32) {
        float narrow[4];
        for (int64_t i = 0; i < n; i++) narrow[i] = (float)u[i];
        memcpy(out->data + first * 4, narrow, (size_t)n * 4);
        return;
    }
    int64_t size = sp__size_of(out->dtype);
    for (int64_t i = 0; i < n; i++)
        sp__scalar_to(SP_FLOAT(u[i]), out->dtype, out->data + (first + i) * size);
}

static void random_chunk(void *ctx, int64_t chunk)
{
    const random_job *j = ctx;
    int64_t per_block = j->out->dtype == SP_FLOAT64 ? 2 : 4, block = chunk * CHUNK_BLOCKS;
    for (int64_t end = block + CHUNK_BLOCKS; block < end && block * per_block < j->out->numel;
         block++) {
        uint32_t w[4];
        double u[4];
        sp__philox(j->seed, j->offset + (uint64_t)block, w);
        int n = uniforms(w, j->out->dtype, u);
        if (j->normal) box_muller(u, n, j->scale);
        int64_t first = block * per_block, left = j->out->numel - first;
        store(j->out, first, u, left < n ? left : n);
    }
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
    double us = (double)job.out->numel * (normal ? 15e-3 : 4e-3);
    sp__pool_for((blocks + CHUNK_BLOCKS - 1) / CHUNK_BLOCKS, us, random_chunk, &job);
    return SP_OK;
}

/* ---- whole numbers ----- */

/* Number i of those below the span: 64 bits times the span, of which the upper 64 bits are below
 * the span (Lemire 2019, without his rejection: the bias is span / 2^64). */
static uint64_t below(uint64_t seed, uint64_t offset, int64_t i, uint64_t span)
{
    uint32_t w[4];
    sp__philox(seed, offset + (uint64_t)(i / 2), w);
    uint64_t bits = (uint64_t)w[i % 2 * 2] | (uint64_t)w[i % 2 * 2 + 1] << 32;
    return (uint64_t)((unsigned __int128)bits * span >> 64);
}

/* attributes: low, high, size, dtype, seed, offset */
sp_status sp__cpu_randint(const sp_kargs *args)
{
    const sp_operand *out = &args->arg[0];
    const sp_attr *last = args->attr + args->n_attr;
    uint64_t seed = (uint64_t)last[-2].v.i, offset = (uint64_t)last[-1].v.i;
    int64_t low = args->attr[0].v.i, size = sp__size_of(out->dtype);
    uint64_t span = (uint64_t)args->attr[1].v.i - (uint64_t)low;
    for (int64_t i = 0; i < out->numel; i++) {
        char bytes[16];
        uint64_t at = below(seed, offset, i, span);
        sp__scalar_to(SP_INT((int64_t)((uint64_t)low + at)), out->dtype, bytes);
        memcpy(out->data + i * size, bytes, (size_t)size);
    }
    return SP_OK;
}

/* Fisher and Yates' shuffle, from the end. attributes: n, seed, offset; the output is dense */
sp_status sp__cpu_randperm_whole(const sp_kargs *args)
{
    int64_t *to = (int64_t *)(void *)args->arg[0].data, n = args->arg[0].numel;
    uint64_t seed = (uint64_t)args->attr[1].v.i, offset = (uint64_t)args->attr[2].v.i;
    for (int64_t i = 0; i < n; i++) to[i] = i;
    for (int64_t i = n - 1; i > 0; i--) {
        int64_t other = (int64_t)below(seed, offset, i, (uint64_t)i + 1), kept = to[i];
        to[i] = to[other], to[other] = kept;
    }
    return SP_OK;
}

/* ---- dropout ----- */

typedef struct drop_job {
    const sp_operand *out, *x;
    uint64_t seed, offset, least; /* a word from `least` on keeps its element */
    double scale;
} drop_job;

#define DROP_LOOP(type)                                                                            \
    for (int64_t i = 0; i < n; i++) {                                                              \
        type value;                                                                                \
        memcpy(&value, in + i * (int64_t)sizeof value, sizeof value);                              \
        value = keep[i] ? (type)(value * (type)j->scale) : (type)0;                                \
        memcpy(to + i * (int64_t)sizeof value, &value, sizeof value);                              \
    }

static void drop_chunk(void *ctx, int64_t chunk)
{
    const drop_job *j = ctx;
    int64_t block = chunk * CHUNK_BLOCKS, start = block * 4, n = j->out->numel - start;
    char room[CHUNK_BLOCKS * 4 * sizeof(double)], *to = j->out->data;
    bool keep[CHUNK_BLOCKS * 4];
    if (n > CHUNK_BLOCKS * 4) n = CHUNK_BLOCKS * 4;
    for (int64_t i = 0; i < n; i += 4) {
        uint32_t w[4];
        sp__philox(j->seed, j->offset + (uint64_t)(block + i / 4), w);
        for (int k = 0; k < 4; k++) keep[i + k] = w[k] >= j->least;
    }
    const char *in = room;
    sp__gather(room, j->x, start, n);
    to += start * sp__size_of(j->out->dtype);
    if (j->out->dtype == SP_FLOAT64)
        DROP_LOOP(double)
    else
        DROP_LOOP(float)
}

/* attributes: p, seed, offset; the output is dense */
sp_status sp__cpu_dropout_train(const sp_kargs *args)
{
    double p = args->attr[0].v.f;
    drop_job job = {.out = &args->arg[0], .x = &args->arg[1]};
    job.seed = (uint64_t)args->attr[1].v.i, job.offset = (uint64_t)args->attr[2].v.i;
    job.least = (uint64_t)ceil(p * 0x1p32), job.scale = p < 1 ? 1 / (1 - p) : 0;
    int64_t chunks = (job.out->numel + CHUNK_BLOCKS * 4 - 1) / (CHUNK_BLOCKS * 4);
    sp__pool_for(chunks, (double)job.out->numel * 4e-3, drop_chunk, &job);
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
