/* The process' stream of random numbers, and inference for ops that draw from it. */
#include "ops/random.h"

#include <stdatomic.h>

#include "ops/attr.h"
#include "ops/dispatch.h"
#include "ops/infer.h"
#include "ops_gen.h"
#include "tensor/backend.h"

/* Two atomics and no lock, so that a child forked in between can go on. Seeding while another
 * thread draws gives that draw the old seed or the new one, as if it came before or after. */
static _Atomic uint64_t stream_seed = 67280421310721u; /* PyTorch's default */
static _Atomic uint64_t stream_offset;

void sp_manual_seed(uint64_t seed)
{
    sp_random_state_set(seed, 0);
}

void sp_random_state(uint64_t *seed, uint64_t *offset)
{
    *seed = atomic_load(&stream_seed);
    *offset = atomic_load(&stream_offset);
}

void sp_random_state_set(uint64_t seed, uint64_t offset)
{
    atomic_store(&stream_seed, seed);
    atomic_store(&stream_offset, offset);
}

void sp__random_take(uint64_t blocks, uint64_t *seed, uint64_t *offset)
{
    *seed = atomic_load(&stream_seed);
    *offset = atomic_fetch_add(&stream_offset, blocks);
}

sp_status sp__infer_randint(const sp_call *c, sp_meta *out)
{
    const sp_attr *size = &c->attr[SP_RANDINT_SIZE], *dtype = &c->attr[SP_RANDINT_DTYPE];
    int64_t low = c->attr[SP_RANDINT_LOW].v.i, high = c->attr[SP_RANDINT_HIGH].v.i;
    if (high <= low)
        return sp_fail(SP_EVALUE, "%s: from %lld to %lld, expected a larger end", sp__op_name(c),
                       (long long)low, (long long)high);
    if (!dtype->absent && dtype->v.i == SP_BOOL)
        return sp_fail(SP_EDTYPE, "%s: dtype is bool, expected a number's", sp__op_name(c));
    if (size->n > SP_MAX_RANK)
        return sp_fail(SP_ESHAPE, "%s: %d dimensions, at most %d are possible", sp__op_name(c),
                       size->n, SP_MAX_RANK);
    out->rank = (uint8_t)size->n;
    for (int i = 0; i < size->n; i++) out->shape[i] = size->v.ints[i];
    return sp__infer_dense(c, dtype->absent ? SP_INT64 : (sp_dtype)dtype->v.i, SP_DEVICE_CPU, out);
}

sp_status sp__body_randint_upto(sp_call *c)
{
    const sp_attr *size = &c->attr[SP_RANDINT_UPTO_SIZE], *dtype = &c->attr[SP_RANDINT_UPTO_DTYPE];
    const sp_randint_opt opt = {
        .size = sizeof opt, .has_dtype = !dtype->absent, .dtype = (sp_dtype)dtype->v.i};
    return sp_randint(0, c->attr[SP_RANDINT_UPTO_HIGH].v.i, size->v.ints, size->n, &opt,
                      &c->out[0]);
}

/* Numbers of x's shape and dtype, in [0, 1) or normally distributed. */
static sp_status numbers_like(const sp_call *c, bool normally, sp_tensor **out)
{
    const sp_tensor *x = c->in[0];
    sp_dtype dtype = (sp_dtype)x->dtype;
    SP_RETURN_IF(sp__check_floating(c, x, "x"));
    if (normally)
        return sp_randn(
            x->shape, x->rank,
            &(sp_randn_opt){.size = sizeof(sp_randn_opt), .has_dtype = true, .dtype = dtype}, out);
    return sp_rand(x->shape, x->rank,
                   &(sp_rand_opt){.size = sizeof(sp_rand_opt), .has_dtype = true, .dtype = dtype},
                   out);
}

sp_status sp__body_bernoulli(sp_call *c)
{
    sp_tensor *numbers = NULL, *below = NULL;
    sp_status status = SP_OK;
    SP_TRY(numbers_like(c, false, &numbers));
    SP_TRY(sp_lt(numbers, c->in[0], &below));
    SP_TRY(sp_cast(below, (sp_dtype)c->in[0]->dtype, &c->out[0]));
out:
    sp_drop(&numbers), sp_drop(&below);
    return status;
}

sp_status sp__body_bernoulli_p(sp_call *c)
{
    double p = c->attr[SP_BERNOULLI_P_P].v.f;
    sp_tensor *numbers = NULL, *below = NULL;
    sp_status status = SP_OK;
    if (!(p >= 0 && p <= 1))
        return sp_fail(SP_EVALUE, "%s: p is %g, expected a probability in [0, 1]", sp__op_name(c),
                       p);
    SP_TRY(numbers_like(c, false, &numbers));
    SP_TRY(sp_lt_scalar(numbers, SP_FLOAT(p), &below));
    SP_TRY(sp_cast(below, (sp_dtype)c->in[0]->dtype, &c->out[0]));
out:
    sp_drop(&numbers), sp_drop(&below);
    return status;
}

/* numbers * scale + shift */
static sp_status spread(sp_call *c, bool normally, double scale, double shift)
{
    sp_tensor *numbers = NULL, *wide = NULL;
    sp_status status = SP_OK;
    SP_TRY(numbers_like(c, normally, &numbers));
    SP_TRY(sp_mul_scalar(numbers, SP_FLOAT(scale), &wide));
    SP_TRY(sp_add_scalar(wide, SP_FLOAT(shift), &c->out[0]));
out:
    sp_drop(&numbers), sp_drop(&wide);
    return status;
}

sp_status sp__body_uniform(sp_call *c)
{
    double low = c->attr[SP_UNIFORM_LOW].v.f, high = c->attr[SP_UNIFORM_HIGH].v.f;
    if (!(high >= low))
        return sp_fail(SP_EVALUE, "%s: from %g to %g, expected a larger end", sp__op_name(c), low,
                       high);
    return spread(c, false, high - low, low);
}

sp_status sp__body_normal(sp_call *c)
{
    double std = c->attr[SP_NORMAL_STD].v.f;
    if (!(std >= 0))
        return sp_fail(SP_EVALUE, "%s: std is %g, expected 0 or more", sp__op_name(c), std);
    return spread(c, true, std, c->attr[SP_NORMAL_MEAN].v.f);
}

sp_status sp__infer_dropout(const sp_call *c, sp_meta *out)
{
    double p = c->attr[SP_DROPOUT_P].v.f;
    SP_RETURN_IF(sp__check_floating(c, c->in[0], "x"));
    if (!(p >= 0 && p <= 1))
        return sp_fail(SP_EVALUE, "%s: p is %g, expected a probability in [0, 1]", sp__op_name(c),
                       p);
    return sp__infer_like(c, c->in[0], (sp_dtype)c->in[0]->dtype, out);
}

/* The numbers are drawn here, above all levels, so that every derivative drops the same. */
sp_status sp__body_dropout(sp_call *c)
{
    sp_meta unused;
    SP_RETURN_IF(sp__infer_dropout(c, &unused));
    if (!c->attr[SP_DROPOUT_TRAINING].v.i) return sp_alias(c->in[0], &c->out[0]);
    sp_call train = {.op = SP_OP_DROPOUT_TRAIN, .n_out = 1, .n_attr = 3, .n_in = 1, .in = c->in};
    train.attr[0] = c->attr[SP_DROPOUT_P];
    train.attr[1] = train.attr[2] = sp__attr_absent(SP_ATTR_INT);
    sp__random_issue(&train);
    SP_RETURN_IF(sp__dispatch(&train));
    c->out[0] = train.out[0];
    return SP_OK;
}

static sp_dtype dtype_of(const sp_call *c)
{
    return c->attr[SP_RAND_DTYPE].absent ? SP_FLOAT32 : (sp_dtype)c->attr[SP_RAND_DTYPE].v.i;
}

sp_status sp__infer_random(const sp_call *c, sp_meta *out)
{
    const sp_attr *size = &c->attr[SP_RAND_SIZE];
    sp_dtype dtype = dtype_of(c);
    if (!sp__dtype_is_floating(dtype))
        return sp_fail(SP_EDTYPE, "%s: dtype is %s, expected a floating one", sp__op_name(c),
                       sp_dtype_name(dtype));
    if (size->n > SP_MAX_RANK)
        return sp_fail(SP_ESHAPE, "%s: %d dimensions, at most %d are possible", sp__op_name(c),
                       size->n, SP_MAX_RANK);
    out->rank = (uint8_t)size->n;
    for (int i = 0; i < size->n; i++) out->shape[i] = size->v.ints[i];
    return sp__infer_dense(c, dtype, SP_DEVICE_CPU, out);
}

/* A size that inference will refuse takes no numbers. */
static int64_t count_elements(const sp_attr *size)
{
    int64_t n = 1;
    for (int i = 0; i < size->n; i++)
        if (size->v.ints[i] < 0 || __builtin_mul_overflow(n, size->v.ints[i], &n)) return 0;
    return n;
}

/* Of an op over a tensor, four elements a block whatever the dtype, and all examples of a batch. */
static uint64_t blocks_of(const sp_call *c)
{
    if (c->n_in == 0)
        return c->op == SP_OP_RANDINT /* 64 bits each */
                   ? sp__random_blocks(count_elements(&c->attr[SP_RANDINT_SIZE]), SP_FLOAT64)
                   : sp__random_blocks(count_elements(&c->attr[SP_RAND_SIZE]), dtype_of(c));
    const sp_tensor *x = c->in[0];
    while (x->wrap) x = x->wrap->inner;
    return sp__random_blocks(x->numel, SP_FLOAT32);
}

void sp__random_issue(sp_call *c)
{
    sp_attr *seed = &c->attr[c->n_attr - 2], *offset = &c->attr[c->n_attr - 1];
    if (!seed->absent) return;
    uint64_t s, o;
    sp__random_take(blocks_of(c), &s, &o);
    *seed = sp__attr_int((int64_t)s), *offset = sp__attr_int((int64_t)o);
}
