/* Streams of random numbers, and inference for ops that draw from them. */
#include "ops/random.h"

#include <stdatomic.h>

#include "ops/attr.h"
#include "ops/dispatch.h"
#include "ops/infer.h"
#include "ops_gen.h"
#include "tensor/backend.h"
#include "tensor/memory.h"

/* Two atomics and no lock, so that a child forked in between can go on. Seeding while another
 * thread draws gives that draw the old seed or the new one, as if it came before or after. */
struct sp_generator {
    _Atomic uint64_t seed, offset;
};

static sp_generator process = {.seed = 67280421310721u}; /* PyTorch's default */
static _Thread_local sp_generator *in_use;               /* NULL: the process' */

sp_status sp_generator_new(uint64_t seed, sp_generator **out)
{
    *out = sp__alloc_zero(sizeof **out);
    if (!*out) return sp_fail(SP_EMEMORY, "no memory for a generator");
    atomic_store(&(*out)->seed, seed);
    return SP_OK;
}

void sp_generator_drop(sp_generator **generator)
{
    if (*generator) sp__free(*generator, sizeof **generator);
    *generator = NULL;
}

sp_generator *sp_generator_use(sp_generator *generator)
{
    sp_generator *before = in_use;
    in_use = generator;
    return before;
}

void sp_generator_state(const sp_generator *generator, uint64_t *seed, uint64_t *offset)
{
    const sp_generator *g = generator ? generator : &process;
    *seed = atomic_load(&g->seed);
    *offset = atomic_load(&g->offset);
}

void sp_generator_state_set(sp_generator *generator, uint64_t seed, uint64_t offset)
{
    sp_generator *g = generator ? generator : &process;
    atomic_store(&g->seed, seed);
    atomic_store(&g->offset, offset);
}

void sp_manual_seed(uint64_t seed)
{
    sp_generator_state_set(NULL, seed, 0);
}

void sp_random_state(uint64_t *seed, uint64_t *offset)
{
    sp_generator_state(NULL, seed, offset);
}

void sp_random_state_set(uint64_t seed, uint64_t offset)
{
    sp_generator_state_set(NULL, seed, offset);
}

void sp__random_take(uint64_t blocks, uint64_t *seed, uint64_t *offset)
{
    sp_generator *g = in_use ? in_use : &process;
    *seed = atomic_load(&g->seed);
    *offset = atomic_fetch_add(&g->offset, blocks);
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

sp_status sp__infer_randperm(const sp_call *c, sp_meta *out)
{
    out->rank = 1, out->shape[0] = c->attr[0].v.i;
    return sp__infer_dense(c, SP_INT64, SP_DEVICE_CPU, out);
}

static sp_dtype dtype_of(const sp_call *c)
{
    return c->attr[SP_RAND_DTYPE].absent ? SP_FLOAT32 : (sp_dtype)c->attr[SP_RAND_DTYPE].v.i;
}

sp_status sp__infer_random(const sp_call *c, sp_meta *out)
{
    const sp_attr *size = &c->attr[SP_RAND_SIZE];
    sp_dtype dtype = dtype_of(c);
    if (!sp__dtype_is_inexact(dtype))
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

/* Inside vmap the examples may get numbers of their own, also of a tensor that is not mapped. */
static int64_t elements_of_all_examples(const sp_tensor *x)
{
    int64_t n = x->numel;
    for (const sp_level *level = sp__tls.top; level; level = level->below)
        if (level->kind == SP_LEVEL_VMAP) n *= level->batch_size;
    return n;
}

/* Of an op over a tensor, four elements a block whatever the dtype, and all examples of a batch. */
static uint64_t blocks_of(const sp_call *c)
{
    if (c->op == SP_OP_RANDINT) /* 64 bits each, as a double takes */
        return sp__random_blocks(count_elements(&c->attr[SP_RANDINT_SIZE]), SP_FLOAT64);
    if (c->op == SP_OP_RANDPERM_WHOLE)
        return sp__random_blocks(c->attr[SP_RANDPERM_WHOLE_N].v.i, SP_FLOAT64);
    if (c->n_in == 0) return sp__random_blocks(count_elements(&c->attr[SP_RAND_SIZE]), dtype_of(c));
    return sp__random_blocks(elements_of_all_examples(c->in[0]), SP_FLOAT32);
}

void sp__random_issue(sp_call *c)
{
    sp_attr *seed = &c->attr[c->n_attr - 2], *offset = &c->attr[c->n_attr - 1];
    if (!seed->absent) return;
    uint64_t s, o;
    sp__random_take(blocks_of(c), &s, &o);
    *seed = sp__attr_int((int64_t)s), *offset = sp__attr_int((int64_t)o);
}
