/* Padding: inference of constant_pad_nd, and pad by it or by pieces of x joined. */
#include "ops/attr.h"
#include "ops/infer.h"
#include "ops_gen.h"

/* The dimension that the numbers i and i + 1 of pad are for. */
static int dim_of(const sp_tensor *x, int i)
{
    return x->rank - 1 - i / 2;
}

static sp_status check_pad(const sp_call *c, const sp_attr *pad)
{
    const sp_tensor *x = c->in[0];
    if (pad->n % 2 == 0 && pad->n <= 2 * x->rank) return SP_OK;
    return sp_fail(SP_EVALUE,
                   "%s: pad has %d numbers for x of shape %s; expected two a dimension, at most %d",
                   sp__op_name(c), pad->n, SP_SHAPE(x), 2 * x->rank);
}

static sp_status padded_size(const sp_call *c, const int64_t *pad, int64_t *size)
{
    int64_t left = *size;
    bool overflow = false;
    for (int i = 0; i < 2; i++) {
        if (pad[i] < 0) overflow |= __builtin_add_overflow(left, pad[i], &left);
        overflow |= __builtin_add_overflow(*size, pad[i], size);
    }
    if (overflow) return sp_fail(SP_EVALUE, "%s: pad is too large", sp__op_name(c));
    if (left >= 0) return SP_OK;
    return sp_fail(SP_ESHAPE, "%s: pad (%lld, %lld) takes more away than x of shape %s has",
                   sp__op_name(c), (long long)pad[0], (long long)pad[1], SP_SHAPE(c->in[0]));
}

static sp_status check_value(const sp_call *c, const sp_attr *value)
{
    const sp_tensor *x = c->in[0];
    if (sp__dtype_kind(value->tag) <= sp__dtype_kind(x->dtype)) return SP_OK;
    return sp_fail(SP_EDTYPE, "%s: value is %s and x is %s, which cannot hold it; convert x",
                   sp__op_name(c), sp_dtype_name((sp_dtype)value->tag),
                   sp_dtype_name((sp_dtype)x->dtype));
}

sp_status sp__infer_constant_pad_nd(const sp_call *c, sp_meta *out)
{
    const sp_tensor *x = c->in[0];
    const sp_attr *pad = &c->attr[SP_CONSTANT_PAD_ND_PAD];
    bool fills = false;
    SP_RETURN_IF(check_pad(c, pad));
    out->rank = x->rank;
    for (int d = 0; d < x->rank; d++) out->shape[d] = x->shape[d];
    for (int i = 0; i < pad->n; i += 2) {
        SP_RETURN_IF(padded_size(c, pad->v.ints + i, &out->shape[dim_of(x, i)]));
        fills |= pad->v.ints[i] > 0 || pad->v.ints[i + 1] > 0;
    }
    if (fills) SP_RETURN_IF(check_value(c, &c->attr[SP_CONSTANT_PAD_ND_VALUE]));
    return sp__infer_dense(c, (sp_dtype)x->dtype, x->device, out);
}

/* ---- pad ----- */

/* n elements along dim, in reverse if `turned`. */
static sp_status taken(const sp_tensor *x, int64_t dim, int64_t start, int64_t n, bool turned,
                       sp_tensor **out)
{
    sp_tensor *part = NULL;
    SP_RETURN_IF(sp_slice(x, dim, start, start + n, NULL, turned ? &part : out));
    if (!turned) return SP_OK;
    sp_status status = sp_flip(part, &dim, 1, out);
    sp_drop(&part);
    return status;
}

/* The element at `at`, n times. */
static sp_status repeated(const sp_tensor *x, int dim, int64_t at, int64_t n, sp_tensor **out)
{
    int64_t shape[SP_MAX_RANK];
    sp_tensor *one = NULL;
    for (int d = 0; d < x->rank; d++) shape[d] = d == dim ? n : x->shape[d];
    SP_RETURN_IF(taken(x, dim, at, 1, false, &one));
    sp_status status = sp_expand(one, shape, x->rank, out);
    sp_drop(&one);
    return status;
}

/* What stands before x along dim (behind, if `after`): n elements. */
static sp_status around(const sp_tensor *x, int dim, int64_t n, int mode, bool after,
                        sp_tensor **out)
{
    int64_t size = x->shape[dim];
    if (mode == SP_PADDING_MODE_REPLICATE) return repeated(x, dim, after ? size - 1 : 0, n, out);
    if (mode == SP_PADDING_MODE_REFLECT)
        return taken(x, dim, after ? size - 1 - n : 1, n, true, out);
    return taken(x, dim, after ? 0 : size - n, n, false, out);
}

static sp_status check_room(const sp_call *c, int mode, int64_t size, int64_t n)
{
    static const char *const names[] = {"constant", "reflect", "replicate", "circular"};
    int64_t most = mode == SP_PADDING_MODE_REFLECT    ? size - 1
                   : mode == SP_PADDING_MODE_CIRCULAR ? size
                   : size > 0                         ? INT64_MAX
                                                      : 0;
    if (n <= most) return SP_OK;
    return sp_fail(SP_ESHAPE,
                   "%s: x of shape %s cannot be padded by %lld elements in mode '%s', at most %lld",
                   sp__op_name(c), SP_SHAPE(c->in[0]), (long long)n, names[mode],
                   (long long)(most < 0 ? 0 : most));
}

static sp_status pad_dim(const sp_call *c, const sp_tensor *x, int dim, const int64_t *pad,
                         int mode, sp_tensor **out)
{
    sp_tensor *side[2] = {NULL, NULL};
    const sp_tensor *all[3];
    const sp_cat_opt opt = {.size = sizeof opt, .dim = dim};
    int n = 0;
    sp_status status = SP_OK;
    for (int i = 0; i < 2; i++) {
        if (pad[i] <= 0) continue;
        SP_TRY(check_room(c, mode, x->shape[dim], pad[i]));
        SP_TRY(around(x, dim, pad[i], mode, i == 1, &side[i]));
    }
    if (side[0]) all[n++] = side[0];
    all[n++] = x;
    if (side[1]) all[n++] = side[1];
    if (n == 1)
        *out = sp__retain(x);
    else
        SP_TRY(sp_cat(all, n, &opt, out));
out:
    sp_drop(&side[0]), sp_drop(&side[1]);
    return status;
}

/* x without what negative numbers take away. */
static sp_status cropped(const sp_call *c, const sp_attr *pad, sp_tensor **out)
{
    int64_t less[2 * SP_MAX_RANK];
    for (int i = 0; i < pad->n; i++) less[i] = pad->v.ints[i] < 0 ? pad->v.ints[i] : 0;
    return sp_constant_pad_nd(c->in[0], less, pad->n, NULL, out);
}

static bool takes_away(const sp_attr *pad)
{
    for (int i = 0; i < pad->n; i++)
        if (pad->v.ints[i] < 0) return true;
    return false;
}

static sp_status pad_constant(sp_call *c, const sp_attr *pad, const sp_attr *value)
{
    sp_constant_pad_nd_opt opt = {.size = sizeof opt};
    if (!value->absent) {
        SP_RETURN_IF(check_value(c, value));
        opt.has_value = true, opt.value = sp__attr_to_scalar(value);
    }
    return sp_constant_pad_nd(c->in[0], pad->v.ints, pad->n, &opt, &c->out[0]);
}

sp_status sp__body_pad(sp_call *c)
{
    const sp_attr *pad = &c->attr[SP_PAD_PAD], *value = &c->attr[SP_PAD_VALUE];
    int mode = (int)c->attr[SP_PAD_PADDING_MODE].v.i;
    sp_tensor *x = NULL, *wider = NULL;
    sp_status status = SP_OK;
    SP_RETURN_IF(check_pad(c, pad));
    if (mode == SP_PADDING_MODE_CONSTANT) return pad_constant(c, pad, value);
    if (!value->absent)
        return sp_fail(SP_EVALUE, "%s: value is for mode 'constant' alone; leave it out",
                       sp__op_name(c));
    if (takes_away(pad))
        SP_TRY(cropped(c, pad, &x));
    else
        x = sp__retain(c->in[0]);
    for (int i = 0; i < pad->n; i += 2) {
        SP_TRY(pad_dim(c, x, dim_of(c->in[0], i), pad->v.ints + i, mode, &wider));
        sp_drop(&x);
        x = wider, wider = NULL;
    }
    c->out[0] = x, x = NULL;
out:
    sp_drop(&x), sp_drop(&wider);
    return status;
}
