/* The process' stream of random numbers, and inference for ops that draw from it. */
#include "ops/random.h"

#include <stdatomic.h>

#include "ops/attr.h"
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

static sp_dtype dtype_of(const sp_call *c)
{
    return c->attr[SP_RAND_DTYPE].absent ? SP_FLOAT32 : (sp_dtype)c->attr[SP_RAND_DTYPE].v.i;
}

sp_status sp__infer_random(const sp_call *c, sp_meta *out)
{
    const sp_attr *size = &c->attr[SP_RAND_SIZE];
    sp_dtype dtype = dtype_of(c);
    if (dtype < SP_FLOAT32)
        return sp_fail(SP_EDTYPE, "%s: dtype is %s, expected float32 or float64", sp__op_name(c),
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

void sp__random_issue(sp_call *c)
{
    sp_attr *seed = &c->attr[c->n_attr - 2], *offset = &c->attr[c->n_attr - 1];
    if (!seed->absent) return;
    uint64_t s, o;
    sp__random_take(sp__random_blocks(count_elements(&c->attr[SP_RAND_SIZE]), dtype_of(c)), &s, &o);
    *seed = sp__attr_int((int64_t)s), *offset = sp__attr_int((int64_t)o);
}
