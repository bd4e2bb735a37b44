/* Images in other sizes: inference of resample, and shuffles of pixels as views. */
#include "ops/infer.h"
#include "ops_gen.h"

/* ---- resample ----- */

static sp_status check_scale(const sp_call *c, const sp_attr *scale)
{
    if (scale->absent || scale->v.f > 0) return SP_OK;
    return sp_fail(SP_EVALUE, "%s: a scale is %g, expected a positive number", sp__op_name(c),
                   scale->v.f);
}

/* resample and its transpose: both go from one size to another. */
sp_status sp__infer_resample(const sp_call *c, sp_meta *out)
{
    const sp_tensor *x = c->in[0];
    const sp_attr *size = &c->attr[SP_RESAMPLE_SIZE];
    const char *arg = sp_op_table[c->op].in_names[0];
    SP_RETURN_IF(sp__check_floating(c, x, arg));
    SP_RETURN_IF(check_scale(c, &c->attr[SP_RESAMPLE_SCALE_H]));
    SP_RETURN_IF(check_scale(c, &c->attr[SP_RESAMPLE_SCALE_W]));
    if (size->n < 1 || size->n > 2 || x->rank < size->n)
        return sp_fail(SP_ESHAPE,
                       "%s: %s has shape %s and size %d numbers; expected one or two, for its last "
                       "dimensions",
                       sp__op_name(c), arg, SP_SHAPE(x), size->n);
    out->rank = x->rank;
    for (int d = 0; d < x->rank; d++) out->shape[d] = x->shape[d];
    for (int i = 0; i < size->n; i++) {
        int d = x->rank - size->n + i;
        out->shape[d] = size->v.ints[i];
        if (size->v.ints[i] < 1)
            return sp_fail(SP_EVALUE, "%s: a size is %lld, expected at least 1", sp__op_name(c),
                           (long long)size->v.ints[i]);
        if (x->shape[d] < 1)
            return sp_fail(SP_ESHAPE, "%s: %s has shape %s, without elements to weigh",
                           sp__op_name(c), arg, SP_SHAPE(x));
    }
    return sp__infer_dense(c, (sp_dtype)x->dtype, x->device, out);
}

/* ---- pixels and channels ----- */

static sp_status check_factor(const sp_call *c, int64_t r, bool fits)
{
    if (r < 1)
        return sp_fail(SP_EVALUE, "%s: the factor is %lld, expected at least 1", sp__op_name(c),
                       (long long)r);
    if (fits) return SP_OK;
    return sp_fail(SP_ESHAPE, "%s: x of shape %s does not go with a factor of %lld", sp__op_name(c),
                   SP_SHAPE(c->in[0]), (long long)r);
}

/* x's last three dimensions as `shape` (n numbers), those in another order, and joined again. */
static sp_status rearranged(const sp_tensor *x, const int64_t *shape, const int64_t *order, int n,
                            const int64_t *last, sp_tensor **out)
{
    int64_t split[SP_MAX_RANK + 5], turned[SP_MAX_RANK + 5], joined[SP_MAX_RANK];
    int lead = x->rank - 3;
    sp_tensor *parts = NULL, *moved = NULL;
    sp_status status = SP_OK;
    for (int d = 0; d < lead; d++) split[d] = joined[d] = x->shape[d], turned[d] = d;
    for (int i = 0; i < n; i++) split[lead + i] = shape[i], turned[lead + i] = lead + order[i];
    for (int i = 0; i < 3; i++) joined[lead + i] = last[i];
    SP_TRY(sp_reshape(x, split, lead + n, &parts));
    SP_TRY(sp_permute(parts, turned, lead + n, &moved));
    SP_TRY(sp_reshape(moved, joined, lead + 3, out));
out:
    sp_drop(&parts), sp_drop(&moved);
    return status;
}

sp_status sp__body_pixel_shuffle(sp_call *c)
{
    const sp_tensor *x = c->in[0];
    int64_t r = c->attr[0].v.i;
    bool small = x->rank >= 3 && x->rank + 2 <= SP_MAX_RANK && r >= 1 && r <= INT32_MAX;
    SP_RETURN_IF(check_factor(c, r, small && x->shape[x->rank - 3] % (r * r) == 0));
    const int64_t *s = x->shape + x->rank - 3, channels = s[0] / (r * r);
    return rearranged(x, (int64_t[]){channels, r, r, s[1], s[2]}, (int64_t[]){0, 3, 1, 4, 2}, 5,
                      (int64_t[]){channels, s[1] * r, s[2] * r}, &c->out[0]);
}

sp_status sp__body_pixel_unshuffle(sp_call *c)
{
    const sp_tensor *x = c->in[0];
    int64_t r = c->attr[0].v.i;
    bool small = x->rank >= 3 && x->rank + 2 <= SP_MAX_RANK && r >= 1 && r <= INT32_MAX;
    SP_RETURN_IF(check_factor(
        c, r, small && x->shape[x->rank - 2] % r == 0 && x->shape[x->rank - 1] % r == 0));
    const int64_t *s = x->shape + x->rank - 3;
    return rearranged(x, (int64_t[]){s[0], s[1] / r, r, s[2] / r, r}, (int64_t[]){0, 2, 4, 1, 3}, 5,
                      (int64_t[]){s[0] * r * r, s[1] / r, s[2] / r}, &c->out[0]);
}
