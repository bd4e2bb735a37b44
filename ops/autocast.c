/* Which ops autocast runs in which precision, and the casting. The lists are PyTorch's. */
#include "ops/autocast.h"

#include "ops_gen.h"
#include "tensor/memory.h"

typedef enum policy {
    AS_IT_IS,
    LOW,   /* in the level's dtype: products, which gain speed */
    FULL,  /* in float32: what loses digits */
    WIDEST /* in the widest dtype among the inputs */
} policy;

static const uint8_t policies[SP_OP_COUNT] = {
    [SP_OP_MATMUL] = LOW,
    [SP_OP_LINEAR] = LOW,
    [SP_OP_CONVOLUTION] = LOW,
    [SP_OP_CONV1D] = LOW,
    [SP_OP_CONV2D] = LOW,
    [SP_OP_CONV_TRANSPOSE1D] = LOW,
    [SP_OP_CONV_TRANSPOSE2D] = LOW,
    [SP_OP_MM] = LOW,
    [SP_OP_BMM] = LOW,
    [SP_OP_MV] = LOW,
    [SP_OP_ADDMM] = LOW,
    [SP_OP_ADDMV] = LOW,
    [SP_OP_ADDR] = LOW,
    [SP_OP_ADDBMM] = LOW,
    [SP_OP_BADDBMM] = LOW,
    [SP_OP_PRELU] = LOW,

    [SP_OP_ACOS] = FULL,
    [SP_OP_ASIN] = FULL,
    [SP_OP_COSH] = FULL,
    [SP_OP_EXP] = FULL,
    [SP_OP_EXPM1] = FULL,
    [SP_OP_LOG] = FULL,
    [SP_OP_LOG10] = FULL,
    [SP_OP_LOG2] = FULL,
    [SP_OP_LOG1P] = FULL,
    [SP_OP_RECIPROCAL] = FULL,
    [SP_OP_RSQRT] = FULL,
    [SP_OP_SINH] = FULL,
    [SP_OP_TAN] = FULL,
    [SP_OP_POW] = FULL,
    [SP_OP_POW_SCALAR] = FULL,
    [SP_OP_POW_RSCALAR] = FULL,
    [SP_OP_POW_BASE] = FULL,
    [SP_OP_SOFTPLUS] = FULL,
    [SP_OP_LAYER_NORM] = FULL,
    [SP_OP_GROUP_NORM] = FULL,
    [SP_OP_RMS_NORM] = FULL,
    [SP_OP_NORM] = FULL,
    [SP_OP_CDIST] = FULL,
    [SP_OP_VECTOR_NORM] = FULL,
    [SP_OP_NLL_LOSS] = FULL,
    [SP_OP_CROSS_ENTROPY] = FULL,
    [SP_OP_LOGSUMEXP] = FULL,
    [SP_OP_SOFTMAX] = FULL,
    [SP_OP_LOG_SOFTMAX] = FULL,
    [SP_OP_SOFTMIN] = FULL,
    [SP_OP_SUM] = FULL,
    [SP_OP_PROD] = FULL,
    [SP_OP_CUMSUM] = FULL,
    [SP_OP_CUMPROD] = FULL,

    [SP_OP_CAT] = WIDEST,
    [SP_OP_STACK] = WIDEST,
    [SP_OP_ADDCMUL] = WIDEST,
    [SP_OP_ADDCDIV] = WIDEST,
    [SP_OP_ATAN2] = WIDEST,
    [SP_OP_CROSS] = WIDEST,
    [SP_OP_DOT] = WIDEST,
    [SP_OP_TENSORDOT_DIMS] = WIDEST,
    [SP_OP_SCATTER_ADD] = WIDEST,
    [SP_OP_INDEX_COPY] = WIDEST,
};

/* ---- casting ----- */

/* float64 stays what it is, and so do integers. */
static bool is_cast(const sp_tensor *t)
{
    return t && sp__dtype_is_floating(t->dtype) && t->dtype != SP_FLOAT64;
}

static sp_dtype widest(const sp_call *c)
{
    sp_dtype found = SP_BOOL;
    for (int i = 0; i < c->n_in; i++)
        if (c->in[i] && sp__dtype_is_floating(c->in[i]->dtype))
            found = sp_promote(found, (sp_dtype)c->in[i]->dtype);
    return found;
}

static sp_dtype dtype_for(const sp_autocast *a, const sp_call *c)
{
    switch (policies[c->op]) {
    case LOW: return (sp_dtype)a->dtype;
    case FULL: return SP_FLOAT32;
    default: return widest(c);
    }
}

/* c on inputs that are all of dtype, cast where they are not. */
static sp_status call_in(sp_call *c, sp_dtype dtype)
{
    enum { ROOM = 8 };
    sp_status status = SP_OK;
    sp_tensor *room[ROOM], **in = room, **given = c->in;
    size_t bytes = (size_t)c->n_in * sizeof *in;
    int made = 0;
    if (c->n_in > ROOM && !(in = sp__alloc(bytes)))
        return sp_fail(SP_EMEMORY, "%s: no memory for its inputs under autocast",
                       sp_op_table[c->op].name);
    for (; made < c->n_in; made++) {
        sp_tensor *t = given[made];
        if (is_cast(t) && t->dtype != dtype)
            SP_TRY(sp_cast(t, dtype, &in[made]));
        else
            in[made] = t ? sp__retain(t) : NULL;
    }
    c->in = in;
    SP_TRY(sp__dispatch(c));
out:
    c->in = given;
    while (made > 0) sp_drop(&in[--made]);
    if (in != room) sp__free(in, bytes);
    return status;
}

/* at_level() has taken the level off and puts it back; those below it have no say. */
static sp_status autocast_dispatch(sp_level *self, sp_call *c)
{
    const sp_autocast *a = (const sp_autocast *)self;
    sp__tls.top = sp__top_transform();
    if (!a->enabled || !policies[c->op] || c->flags) return sp__dispatch(c);
    return call_in(c, dtype_for(a, c));
}

/* ---- the stack ----- */

sp_status sp__autocast_push(sp_dtype dtype, bool enabled, sp_autocast **out)
{
    if (dtype != SP_FLOAT16 && dtype != SP_BFLOAT16)
        return sp_fail(SP_EVALUE, "autocast: dtype is %s; expected bfloat16 or float16",
                       sp_dtype_name(dtype));
    sp_autocast *a = *out = sp__alloc_zero(sizeof *a);
    if (!a) return sp_fail(SP_EMEMORY, "autocast: no memory for a level");
    a->level.kind = SP_LEVEL_AUTOCAST;
    a->level.dispatch = autocast_dispatch;
    a->level.below = sp__tls.top;
    a->dtype = (uint8_t)dtype, a->enabled = enabled;
    sp__tls.top = &a->level;
    return SP_OK;
}

void sp__autocast_pop(sp_autocast *a)
{
    sp_level **at = &sp__tls.top;
    while (*at && *at != &a->level) at = &(*at)->below;
    if (!*at) return; /* of another thread, whose stack still needs it */
    *at = a->level.below;
    sp__free(a, sizeof *a);
}

const sp_autocast *sp__autocast_now(void)
{
    const sp_level *top = sp__tls.top;
    return top && top->kind == SP_LEVEL_AUTOCAST ? (const sp_autocast *)top : NULL;
}

bool sp__autocast_takes(int op)
{
    const sp_autocast *a = sp__autocast_now();
    return a && a->enabled && policies[op];
}
