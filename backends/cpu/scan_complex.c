/* Running results and products of complex numbers, computed in complex128.
 *
 * A running result is one chain a sequence; threads share sequences out. A product is one chain for
 * every PART elements, and one of these products: the same whatever the threads.
 */
#include "backends/cpu/scan_complex.h"

#include "backends/cpu/pool.h"
#include "backends/cpu/strided.h"
#include "ops/op.h"
#include "ops_gen.h"
#include "tensor/dtype.h"
#include "tensor/memory.h"

enum { PART = 16384, PIECE = 256, CHUNK = 4096 };

typedef struct number {
    double re, im;
} number;

static number times(number x, number y)
{
    return (number){x.re * y.re - x.im * y.im, x.re * y.im + x.im * y.re};
}

static number read(const char *at, int dtype)
{
    double part[2];
    sp__complex_from(at, dtype, part);
    return (number){part[0], part[1]};
}

static void write(char *at, int dtype, number x)
{
    sp__complex_to((double[2]){x.re, x.im}, dtype, at);
}

/* x's elements along dim, sequence number `at` of them in row-major order; dim -1: all of x. */
static sp_operand sequence(const sp_operand *x, int dim, int64_t at)
{
    sp_operand line = *x;
    if (dim < 0) return line;
    for (int d = x->rank - 1; d >= 0; d--) {
        if (d == dim) continue;
        line.data += at % x->shape[d] * x->stride[d] * sp__size_of(x->dtype);
        at /= x->shape[d];
    }
    line.rank = 1, line.shape[0] = line.numel = x->shape[dim], line.stride[0] = x->stride[dim];
    line.contiguous = line.stride[0] == 1 || line.numel == 1;
    return line;
}

static int dim_of(const sp_attr *dim, const sp_operand *x)
{
    if (dim->absent || x->rank == 0) return -1;
    return (int)(dim->v.i < 0 ? dim->v.i + x->rank : dim->v.i);
}

/* ---- running results ----- */

typedef struct chain {
    sp_operand out, x, factor; /* factor: of linear_scan; without data: of cumprod */
    int dim;
    bool reverse;
    int64_t n, sequences, a_chunk;
} chain;

static const char *element(const sp_operand *line, int64_t i)
{
    return line->data + (line->rank ? i * line->stride[0] : 0) * sp__size_of(line->dtype);
}

/* out[i] = x[i] + factor * out[i - 1], or x[i] out[i - 1]; in reverse the factor is i + 1's. */
static void run_sequence(const chain *c, int64_t at)
{
    sp_operand out = sequence(&c->out, c->dim, at), x = sequence(&c->x, c->dim, at), factor = x;
    bool scans = c->factor.data != NULL;
    number state = {0, 0};
    if (scans) factor = sequence(&c->factor, c->dim, at);
    for (int64_t k = 0; k < c->n; k++) {
        int64_t i = c->reverse ? c->n - 1 - k : k;
        number new = read(element(&x, i), x.dtype);
        if (k > 0 && scans) {
            number f = read(element(&factor, c->reverse ? i + 1 : i), factor.dtype),
                   kept = times(f, state);
            new.re += kept.re, new.im += kept.im;
        } else if (k > 0) {
            new = times(state, new);
        }
        state = new;
        write((char *)(uintptr_t)element(&out, i), out.dtype, state);
    }
}

static void chain_chunk(void *ctx, int64_t chunk)
{
    const chain *c = ctx;
    for (int64_t s = chunk * c->a_chunk; s < (chunk + 1) * c->a_chunk && s < c->sequences; s++)
        run_sequence(c, s);
}

static sp_status run_chain(chain *c, const sp_attr *dim)
{
    if (c->x.numel == 0) return SP_OK;
    c->dim = dim_of(dim, &c->x);
    c->n = c->dim < 0 ? 1 : c->x.shape[c->dim];
    c->sequences = c->x.numel / c->n, c->a_chunk = CHUNK / c->n + 1;
    sp__pool_for((c->sequences + c->a_chunk - 1) / c->a_chunk, (double)c->x.numel * 5e-3,
                 chain_chunk, c);
    return SP_OK;
}

sp_status sp__cpu_cumprod_complex(const sp_kargs *args)
{
    chain c = {.out = args->arg[0], .x = args->arg[1]};
    return run_chain(&c, &args->attr[0]);
}

sp_status sp__cpu_linear_scan_complex(const sp_kargs *args)
{
    chain c = {.out = args->arg[0],
               .x = args->arg[1],
               .factor = args->arg[2],
               .reverse = args->attr[SP_LINEAR_SCAN_REVERSE].v.i != 0};
    return run_chain(&c, &args->attr[0]);
}

/* ---- products ----- */

typedef struct product_job {
    const sp_operand *out, *x;
    int dim;
    int64_t n, parts; /* elements of a product, and how many parts these are */
    number *part;     /* of all products, if they have more than one each */
} product_job;

static number product_of(const sp_operand *line, int64_t start, int64_t end)
{
    sp_element room[PIECE];
    number product = {1, 0};
    int64_t size = sp__size_of(line->dtype);
    for (; start < end; start += PIECE) {
        int64_t n = end - start < PIECE ? end - start : PIECE;
        sp__gather(room, line, start, n);
        for (int64_t i = 0; i < n; i++)
            product = times(product, read((const char *)room + i * size, line->dtype));
    }
    return product;
}

static void product_chunk(void *ctx, int64_t chunk)
{
    const product_job *j = ctx;
    int64_t at = chunk / j->parts, start = chunk % j->parts * PART,
            end = start + PART < j->n ? start + PART : j->n;
    sp_operand line = sequence(j->x, j->dim, at);
    number product = product_of(&line, start, end);
    if (j->part)
        j->part[chunk] = product;
    else
        write(sp__element_at(j->out, at), j->out->dtype, product);
}

static void join_parts(const product_job *j)
{
    for (int64_t at = 0; at < j->out->numel; at++) {
        number product = {1, 0};
        for (int64_t i = 0; i < j->parts; i++) product = times(product, j->part[at * j->parts + i]);
        write(sp__element_at(j->out, at), j->out->dtype, product);
    }
}

sp_status sp__cpu_prod_complex(const sp_kargs *args)
{
    const sp_operand *x = &args->arg[1];
    product_job j = {.out = &args->arg[0], .x = x, .dim = dim_of(&args->attr[0], x)};
    if (j.out->numel == 0) return SP_OK;
    j.n = j.dim < 0 ? x->numel : x->shape[j.dim];
    j.parts = j.n > PART ? (j.n + PART - 1) / PART : 1;
    int64_t all = j.out->numel * j.parts;
    size_t bytes = j.parts > 1 ? (size_t)all * sizeof(number) : 0;
    if (bytes && !(j.part = sp__alloc(bytes)))
        return sp_fail(SP_EMEMORY, "prod: no memory for %zu bytes of partial results", bytes);
    sp__pool_for(all, (double)x->numel * 5e-3, product_chunk, &j);
    if (!j.part) return SP_OK;
    join_parts(&j);
    sp__free(j.part, bytes);
    return SP_OK;
}
