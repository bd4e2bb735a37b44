/* Attention: inference, and what it is by other ops.
 *
 * With n query heads for each head of keys, bodies see q as (B, H / n, n, L, E) and k, v as
 * (B, H / n, 1, S, E). They hold the matrix of all scores, and serve dropout, vmap and derivatives
 * of second and higher order.
 */
#include "ops/attention.h"

#include <math.h>
#include <string.h>

#include "ops/attr.h"
#include "ops/infer.h"
#include "ops_gen.h"

typedef struct operands {
    const sp_tensor *q, *k, *v, *mask;
    bool causal;
    double scale;
} operands;

/* ---- inference ----- */

static sp_status fails_to_fit(const sp_call *c, const operands *o, const char *why)
{
    return sp_fail(SP_ESHAPE, "%s: q of shape %s, k of shape %s and v of shape %s: %s",
                   sp__op_name(c), SP_SHAPE(o->q), SP_SHAPE(o->k), SP_SHAPE(o->v), why);
}

static sp_status check_operands(const sp_call *c, const operands *o)
{
    const sp_tensor *q = o->q, *k = o->k, *v = o->v;
    SP_RETURN_IF(sp__check_floating(c, q, "q"));
    SP_RETURN_IF(sp__check_same_dtype(c, q, "q", k, "k"));
    SP_RETURN_IF(sp__check_same_dtype(c, q, "q", v, "v"));
    SP_RETURN_IF(sp__check_devices(c));
    if (q->rank != 4 || k->rank != 4 || v->rank != 4)
        return fails_to_fit(c, o, "expected four dimensions each");
    if (q->shape[0] != k->shape[0] || q->shape[0] != v->shape[0])
        return fails_to_fit(c, o, "their first sizes differ");
    if (k->shape[1] != v->shape[1] || k->shape[2] != v->shape[2])
        return fails_to_fit(c, o, "k and v have different numbers of heads or keys");
    if (q->shape[3] != k->shape[3]) return fails_to_fit(c, o, "q and k have other last sizes");
    if (k->shape[1] == 0 ? q->shape[1] != 0 : q->shape[1] % k->shape[1] != 0)
        return fails_to_fit(c, o, "the heads of k do not divide those of q");
    return SP_OK;
}

static sp_status check_mask(const sp_call *c, const operands *o)
{
    const int64_t shape[4] = {o->q->shape[0], o->q->shape[1], o->q->shape[2], o->k->shape[2]};
    const sp_tensor *m = o->mask;
    char text[SP_SHAPE_TEXT];
    if (m == NULL) return SP_OK;
    if (m->dtype != SP_BOOL) SP_RETURN_IF(sp__check_same_dtype(c, o->q, "q", m, "mask"));
    bool fits = m->rank <= 4;
    for (int d = 1; fits && d <= m->rank; d++)
        fits = m->shape[m->rank - d] == 1 || m->shape[m->rank - d] == shape[4 - d];
    if (fits) return SP_OK;
    return sp_fail(SP_ESHAPE, "%s: mask has shape %s, which does not broadcast to %s",
                   sp__op_name(c), SP_SHAPE(m), sp__shape_text(4, shape, text, sizeof text));
}

static sp_status dense(const sp_call *c, int rank, const int64_t *shape, sp_meta *out)
{
    out->rank = (uint8_t)rank;
    memcpy(out->shape, shape, sizeof *shape * (size_t)rank);
    return sp__infer_dense(c, (sp_dtype)c->in[0]->dtype, c->in[0]->device, out);
}

static operands operands_of(const sp_call *c)
{
    return (operands){.q = c->in[0],
                      .k = c->in[1],
                      .v = c->in[2],
                      .mask = c->in[3],
                      .causal = c->attr[SP_ATTENTION_CAUSAL].v.i != 0,
                      .scale = c->attr[SP_ATTENTION_SCALE].v.f};
}

static operands operands_behind_grad(const sp_call *c)
{
    return (operands){.q = c->in[1],
                      .k = c->in[2],
                      .v = c->in[3],
                      .mask = c->in[6],
                      .causal = c->attr[SP_ATTENTION_BACKWARD_CAUSAL].v.i != 0,
                      .scale = c->attr[SP_ATTENTION_BACKWARD_SCALE].v.f};
}

sp_status sp__infer_attention(const sp_call *c, sp_meta *out)
{
    operands o = operands_of(c);
    SP_RETURN_IF(check_operands(c, &o));
    SP_RETURN_IF(check_mask(c, &o));
    const int64_t shape[4] = {o.q->shape[0], o.q->shape[1], o.q->shape[2], o.v->shape[3]};
    SP_RETURN_IF(dense(c, 4, shape, &out[0]));
    return dense(c, 3, shape, &out[1]);
}

static sp_status check_result(const sp_call *c, const char *name, const sp_tensor *t, int rank,
                              const int64_t *shape)
{
    char text[SP_SHAPE_TEXT];
    SP_RETURN_IF(sp__check_same_dtype(c, c->in[1], "q", t, name));
    bool same = t->rank == rank;
    for (int i = 0; same && i < rank; i++) same = t->shape[i] == shape[i];
    if (same) return SP_OK;
    return sp_fail(SP_ESHAPE, "%s: %s has shape %s, expected %s", sp__op_name(c), name, SP_SHAPE(t),
                   sp__shape_text(rank, shape, text, sizeof text));
}

sp_status sp__infer_attention_backward(const sp_call *c, sp_meta *out)
{
    operands o = operands_behind_grad(c);
    SP_RETURN_IF(check_operands(c, &o));
    SP_RETURN_IF(check_mask(c, &o));
    const int64_t shape[4] = {o.q->shape[0], o.q->shape[1], o.q->shape[2], o.v->shape[3]};
    SP_RETURN_IF(check_result(c, "grad", c->in[0], 4, shape));
    SP_RETURN_IF(check_result(c, "y", c->in[4], 4, shape));
    SP_RETURN_IF(check_result(c, "logsumexp", c->in[5], 3, shape));
    SP_RETURN_IF(dense(c, 4, o.q->shape, &out[0]));
    SP_RETURN_IF(dense(c, 4, o.k->shape, &out[1]));
    return dense(c, 4, o.v->shape, &out[2]);
}

/* ---- bodies ----- */

/* (B, H, ...) as (B, groups, H / groups, ...). */
static sp_status by_group(const sp_tensor *t, int64_t groups, sp_tensor **out)
{
    int64_t shape[SP_MAX_RANK] = {t->shape[0], groups, groups ? t->shape[1] / groups : 1};
    for (int d = 2; d < t->rank; d++) shape[d + 1] = t->shape[d];
    return sp_reshape(t, shape, t->rank + 1, out);
}

/* The mask in four dimensions, with its heads as q's: by group unless there is one for all. */
static sp_status mask_by_group(const sp_tensor *mask, int64_t groups, sp_tensor **out)
{
    int64_t shape[5] = {1, 1, 1, 1, 1};
    int n = mask->rank;
    const int64_t *m = mask->shape;
    if (n >= 1) shape[4] = m[n - 1];
    if (n >= 2) shape[3] = m[n - 2];
    if (n >= 3 && m[n - 3] != 1) shape[1] = groups, shape[2] = groups ? m[n - 3] / groups : 1;
    if (n >= 4) shape[0] = m[n - 4];
    return sp_reshape(mask, shape, 5, out);
}

/* scores with -inf where `keep` is false */
static sp_status hide(sp_tensor **scores, const sp_tensor *keep)
{
    sp_tensor *hidden = NULL;
    SP_RETURN_IF(sp_where_scalar(keep, *scores, SP_FLOAT(-INFINITY), &hidden));
    sp_drop(scores);
    *scores = hidden;
    return SP_OK;
}

static sp_status hide_later_keys(int64_t queries, int64_t keys, sp_tensor **scores)
{
    const int64_t shape[2] = {queries, keys};
    const sp_full_opt opt = {.size = sizeof opt, .has_dtype = true, .dtype = SP_BOOL};
    sp_tensor *ones = NULL, *lower = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp_full(shape, 2, SP_INT(1), &opt, &ones));
    SP_TRY(sp_tril(ones, NULL, &lower));
    SP_TRY(hide(scores, lower));
out:
    sp_drop(&ones), sp_drop(&lower);
    return status;
}

/* q k^T scale + mask, in five dimensions. */
static sp_status scores_of(const operands *o, sp_tensor **out)
{
    int64_t groups = o->k->shape[1];
    sp_tensor *q = NULL, *k = NULL, *kt = NULL, *products = NULL, *scores = NULL, *mask = NULL,
              *sum = NULL;
    sp_status status = SP_OK;
    SP_TRY(by_group(o->q, groups, &q));
    SP_TRY(by_group(o->k, groups, &k));
    SP_TRY(sp_transpose(k, -2, -1, &kt));
    SP_TRY(sp_matmul(q, kt, &products));
    SP_TRY(sp_mul_scalar(products, SP_FLOAT(o->scale), &scores));
    if (o->mask) SP_TRY(mask_by_group(o->mask, groups, &mask));
    if (mask && mask->dtype == SP_BOOL) SP_TRY(hide(&scores, mask));
    if (mask && mask->dtype != SP_BOOL) {
        SP_TRY(sp_add(scores, mask, &sum));
        sp_drop(&scores);
        scores = sum, sum = NULL;
    }
    if (o->causal) SP_TRY(hide_later_keys(o->q->shape[2], o->k->shape[2], &scores));
    *out = scores, scores = NULL;
out:
    sp_drop(&q), sp_drop(&k), sp_drop(&kt), sp_drop(&products), sp_drop(&scores), sp_drop(&mask);
    return status;
}

/* exp(scores - lse), 0 throughout where lse is -inf; lse (B, groups, n, L, 1). */
static sp_status weights_of(const sp_tensor *scores, const sp_tensor *lse, sp_tensor **out)
{
    sp_tensor *some = NULL, *finite = NULL, *less = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp_ne_scalar(lse, SP_FLOAT(-INFINITY), &some));
    SP_TRY(sp_where_scalar(some, lse, SP_INT(0), &finite));
    SP_TRY(sp_sub(scores, finite, &less));
    SP_TRY(sp_exp(less, out));
out:
    sp_drop(&some), sp_drop(&finite), sp_drop(&less);
    return status;
}

/* Weights, and their logsumexp with a last size of 1, in five dimensions. */
static sp_status weigh(const operands *o, sp_tensor **weights, sp_tensor **lse)
{
    const int64_t last = -1;
    const sp_logsumexp_opt keep = {.size = sizeof keep, .keepdim = true};
    sp_tensor *scores = NULL;
    sp_status status = SP_OK;
    SP_TRY(scores_of(o, &scores));
    SP_TRY(sp_logsumexp(scores, &last, 1, &keep, lse));
    SP_TRY(weights_of(scores, *lse, weights));
out:
    sp_drop(&scores);
    return status;
}

/* weights @ v, in q's four dimensions. */
static sp_status weighted(const operands *o, const sp_tensor *weights, sp_tensor **out)
{
    const int64_t shape[4] = {o->q->shape[0], o->q->shape[1], o->q->shape[2], o->v->shape[3]};
    sp_tensor *v = NULL, *sums = NULL;
    sp_status status = SP_OK;
    SP_TRY(by_group(o->v, o->k->shape[1], &v));
    SP_TRY(sp_matmul(weights, v, &sums));
    SP_TRY(sp_reshape(sums, shape, 4, out));
out:
    sp_drop(&v), sp_drop(&sums);
    return status;
}

sp_status sp__body_attention(sp_call *c)
{
    operands o = operands_of(c);
    sp_meta meta[SP_MAX_OUT];
    sp_tensor *weights = NULL, *lse = NULL;
    sp_status status = SP_OK;
    c->out[0] = c->out[1] = NULL;
    SP_TRY(sp__infer_attention(c, meta));
    SP_TRY(weigh(&o, &weights, &lse));
    SP_TRY(weighted(&o, weights, &c->out[0]));
    SP_TRY(sp_reshape(lse, o.q->shape, 3, &c->out[1]));
out:
    if (status != SP_OK) sp_drop(&c->out[0]);
    sp_drop(&weights), sp_drop(&lse);
    return status;
}

/* x^T y summed over the query heads of a group, in the shape of k or v; scaled. */
static sp_status to_keys(const sp_tensor *x, const sp_tensor *y, double scale, const int64_t *shape,
                         sp_tensor **out)
{
    const int64_t heads = 2;
    const sp_sum_opt over = {.size = sizeof over, .dim = &heads, .n_dim = 1};
    sp_tensor *turned = NULL, *each = NULL, *sum = NULL, *scaled = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp_transpose(x, -2, -1, &turned));
    SP_TRY(sp_matmul(turned, y, &each));
    SP_TRY(sp_sum(each, &over, &sum));
    SP_TRY(sp_mul_scalar(sum, SP_FLOAT(scale), &scaled));
    SP_TRY(sp_reshape(scaled, shape, 4, out));
out:
    sp_drop(&turned), sp_drop(&each), sp_drop(&sum), sp_drop(&scaled);
    return status;
}

typedef struct backward { /* in five dimensions; owned */
    sp_tensor *grad, *q, *k, *v, *y, *lse, *scores, *weights, *dscores;
} backward;

static void backward_drop(backward *b)
{
    sp_drop(&b->grad), sp_drop(&b->q), sp_drop(&b->k), sp_drop(&b->v), sp_drop(&b->y);
    sp_drop(&b->lse), sp_drop(&b->scores), sp_drop(&b->weights), sp_drop(&b->dscores);
}

/* weights (grad v^T - sum(grad y) + glse), glse (B, groups, n, L, 1) or NULL. */
static sp_status gradient_of_scores(backward *b, const sp_tensor *glse)
{
    const int64_t last = -1;
    const sp_sum_opt over = {.size = sizeof over, .dim = &last, .n_dim = 1, .keepdim = true};
    sp_tensor *product = NULL, *delta = NULL, *vt = NULL, *dweights = NULL, *less = NULL,
              *lower = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp_mul(b->grad, b->y, &product));
    SP_TRY(sp_sum(product, &over, &delta));
    if (glse) {
        SP_TRY(sp_sub(delta, glse, &lower));
        sp_drop(&delta);
        delta = lower, lower = NULL;
    }
    SP_TRY(sp_transpose(b->v, -2, -1, &vt));
    SP_TRY(sp_matmul(b->grad, vt, &dweights));
    SP_TRY(sp_sub(dweights, delta, &less));
    SP_TRY(sp_mul(b->weights, less, &b->dscores));
out:
    sp_drop(&product), sp_drop(&delta), sp_drop(&vt), sp_drop(&dweights), sp_drop(&less);
    return status;
}

static sp_status backward_parts(const sp_call *c, const operands *o, backward *b)
{
    int64_t groups = o->k->shape[1];
    sp_tensor *lse = NULL;
    sp_status status = SP_OK;
    SP_TRY(by_group(c->in[0], groups, &b->grad));
    SP_TRY(by_group(o->q, groups, &b->q));
    SP_TRY(by_group(o->k, groups, &b->k));
    SP_TRY(by_group(o->v, groups, &b->v));
    SP_TRY(by_group(c->in[4], groups, &b->y));
    SP_TRY(by_group(c->in[5], groups, &lse));
    SP_TRY(sp_unsqueeze(lse, -1, &b->lse));
    SP_TRY(scores_of(o, &b->scores));
    SP_TRY(weights_of(b->scores, b->lse, &b->weights));
out:
    sp_drop(&lse);
    return status;
}

sp_status sp__body_attention_backward(sp_call *c)
{
    operands o = operands_behind_grad(c);
    sp_meta meta[SP_MAX_OUT];
    sp_tensor *gq = NULL, *scaled = NULL;
    backward b = {0};
    sp_status status = SP_OK;
    for (int i = 0; i < c->n_out; i++) c->out[i] = NULL;
    SP_TRY(sp__infer_attention_backward(c, meta));
    SP_TRY(backward_parts(c, &o, &b));
    SP_TRY(gradient_of_scores(&b, NULL));
    SP_TRY(sp_matmul(b.dscores, b.k, &gq));
    SP_TRY(sp_mul_scalar(gq, SP_FLOAT(o.scale), &scaled));
    SP_TRY(sp_reshape(scaled, o.q->shape, 4, &c->out[0]));
    SP_TRY(to_keys(b.dscores, b.q, o.scale, o.k->shape, &c->out[1]));
    SP_TRY(to_keys(b.weights, b.grad, 1, o.v->shape, &c->out[2]));
out:
    for (int i = 0; status != SP_OK && i < c->n_out; i++) sp_drop(&c->out[i]);
    sp_drop(&gq), sp_drop(&scaled);
    backward_drop(&b);
    return status;
}

sp_status sp__attention_score_gradient(const sp_call *c, const sp_tensor *glse, sp_tensor **out)
{
    operands o = operands_behind_grad(c);
    const int64_t shape[4] = {o.q->shape[0], o.q->shape[1], o.q->shape[2], o.k->shape[2]};
    sp_tensor *grouped = NULL, *tall = NULL;
    backward b = {0};
    sp_status status = SP_OK;
    if (glse) {
        SP_TRY(by_group(glse, o.k->shape[1], &grouped));
        SP_TRY(sp_unsqueeze(grouped, -1, &tall));
    }
    SP_TRY(backward_parts(c, &o, &b));
    SP_TRY(gradient_of_scores(&b, tall));
    SP_TRY(sp_reshape(b.dscores, shape, 4, out));
out:
    sp_drop(&grouped), sp_drop(&tall);
    backward_drop(&b);
    return status;
}

/* ---- scaled_dot_product_attention ----- */

enum { IN = 3 };

static sp_status check_call(const sp_call *c)
{
    const sp_attr *a = c->attr;
    double p = a[SP_SCALED_DOT_PRODUCT_ATTENTION_DROPOUT_P].v.f;
    for (int i = 0; i < IN; i++)
        if (c->in[i]->rank < 2 || c->in[i]->rank != c->in[0]->rank)
            return sp_fail(SP_ESHAPE,
                           "%s: query, key and value have shapes %s, %s and %s; expected (..., H, "
                           "L, E), as many dimensions for all",
                           sp__op_name(c), SP_SHAPE(c->in[0]), SP_SHAPE(c->in[1]),
                           SP_SHAPE(c->in[2]));
    if (!(p >= 0 && p <= 1))
        return sp_fail(SP_EVALUE, "%s: dropout_p is %g, expected a probability", sp__op_name(c), p);
    if (c->in[IN] && a[SP_SCALED_DOT_PRODUCT_ATTENTION_IS_CAUSAL].v.i)
        return sp_fail(SP_EVALUE,
                       "%s: attn_mask and is_causal are both given; put the causal part into the "
                       "mask",
                       sp__op_name(c));
    return SP_OK;
}

/* The leading sizes that all broadcast to: without the heads, if keys may have fewer. */
static sp_status leading_sizes(const sp_call *c, int skip, int64_t *lead)
{
    int n = c->in[0]->rank - 2 - skip;
    for (int d = 0; d < n; d++) {
        lead[d] = 1;
        for (int i = 0; i < IN; i++) {
            int64_t size = c->in[i]->shape[d];
            if (size != 1 && lead[d] != 1 && size != lead[d])
                return sp_fail(SP_ESHAPE,
                               "%s: query, key and value of shapes %s, %s and %s do not broadcast "
                               "in dimension %d",
                               sp__op_name(c), SP_SHAPE(c->in[0]), SP_SHAPE(c->in[1]),
                               SP_SHAPE(c->in[2]), d);
            if (size != 1) lead[d] = size;
        }
    }
    return SP_OK;
}

/* x (..., H, n, E), its leading sizes expanded to `lead`, in four dimensions. */
static sp_status in_four(const sp_tensor *x, const int64_t *lead, int n_lead, sp_tensor **out)
{
    int64_t size[SP_MAX_RANK], shape[4] = {1, 1, x->shape[x->rank - 2], x->shape[x->rank - 1]};
    sp_tensor *wide = NULL;
    sp_status status = SP_OK;
    memcpy(size, x->shape, sizeof size);
    bool same = true;
    for (int d = 0; d < n_lead; d++) same = same && size[d] == lead[d], size[d] = lead[d];
    if (same)
        wide = sp_retain(x);
    else
        SP_TRY(sp_expand(x, size, x->rank, &wide));
    if (x->rank == 4) {
        *out = wide;
        return SP_OK;
    }
    if (x->rank > 2) shape[1] = size[x->rank - 3];
    for (int d = 0; d < x->rank - 3; d++) shape[0] *= size[d];
    SP_TRY(sp_reshape(wide, shape, 4, out));
out:
    sp_drop(&wide);
    return status;
}

/* The mask in at most four dimensions, bool or in q's dtype. */
static sp_status mask_in_four(const sp_call *c, const sp_tensor *q, const int64_t *lead,
                              sp_tensor **out)
{
    const sp_tensor *mask = c->in[IN];
    int rank = c->in[0]->rank;
    int64_t size[SP_MAX_RANK], shape[4] = {q->shape[0], q->shape[1], 1, 1};
    sp_tensor *typed = NULL, *wide = NULL;
    sp_status status = SP_OK;
    if (mask == NULL) return SP_OK;
    if (mask->rank > rank || mask->rank == 0)
        return sp_fail(SP_ESHAPE,
                       "%s: attn_mask has shape %s, which does not broadcast to (..., "
                       "H, L, S) for a query of shape %s",
                       sp__op_name(c), SP_SHAPE(mask), SP_SHAPE(c->in[0]));
    if (mask->dtype != SP_BOOL && mask->dtype != q->dtype)
        SP_TRY(sp_cast(mask, (sp_dtype)q->dtype, &typed));
    else
        typed = sp_retain(mask);
    if (rank <= 4 || mask->rank <= 2) {
        *out = typed;
        return SP_OK;
    }
    int missing = rank - mask->rank;
    for (int d = 0; d < rank; d++)
        size[d] = d < rank - 3 ? lead[d] : d < missing ? 1 : mask->shape[d - missing];
    if (rank >= 3) size[rank - 3] = q->shape[1];
    shape[2] = size[rank - 2], shape[3] = size[rank - 1];
    SP_TRY(sp_expand(typed, size, rank, &wide));
    SP_TRY(sp_reshape(wide, shape, 4, out));
out:
    sp_drop(&typed), sp_drop(&wide);
    return status;
}

/* With dropout there is a matrix of weights. */
static sp_status by_weights(const sp_call *c, const operands *o, double p, sp_tensor **out)
{
    const sp_dropout_opt opt = {.size = sizeof opt, .has_p = true, .p = p};
    sp_call check = {.op = c->op,
                     .n_in = 4,
                     .in = (sp_tensor *[]){(sp_tensor *)o->q, (sp_tensor *)o->k, (sp_tensor *)o->v,
                                           (sp_tensor *)o->mask}};
    sp_tensor *weights = NULL, *lse = NULL, *left = NULL;
    sp_status status = SP_OK;
    SP_TRY(check_operands(&check, o));
    SP_TRY(check_mask(&check, o));
    SP_TRY(weigh(o, &weights, &lse));
    SP_TRY(sp_dropout(weights, &opt, &left));
    SP_TRY(weighted(o, left, out));
out:
    sp_drop(&weights), sp_drop(&lse), sp_drop(&left);
    return status;
}

static sp_status attend(const sp_call *c, const operands *o, sp_tensor **out)
{
    double p = c->attr[SP_SCALED_DOT_PRODUCT_ATTENTION_DROPOUT_P].v.f;
    sp_tensor *lse = NULL;
    if (p > 0) return by_weights(c, o, p, out);
    SP_RETURN_IF(sp_attention(o->q, o->k, o->v, o->causal, o->scale, o->mask, out, &lse));
    sp_drop(&lse);
    return SP_OK;
}

sp_status sp__body_scaled_dot_product_attention(sp_call *c)
{
    const sp_attr *a = c->attr, *scale = &a[SP_SCALED_DOT_PRODUCT_ATTENTION_SCALE];
    const sp_tensor *query = c->in[0];
    bool gqa = a[SP_SCALED_DOT_PRODUCT_ATTENTION_ENABLE_GQA].v.i != 0;
    int rank = query->rank, skip = gqa && rank > 2;
    int64_t lead[SP_MAX_RANK], shape[SP_MAX_RANK];
    sp_tensor *t[IN] = {NULL}, *mask = NULL, *y = NULL;
    sp_status status = SP_OK;
    SP_TRY(check_call(c));
    SP_TRY(leading_sizes(c, skip, lead));
    for (int i = 0; i < IN; i++) SP_TRY(in_four(c->in[i], lead, rank - 2 - skip, &t[i]));
    SP_TRY(mask_in_four(c, t[0], lead, &mask));
    operands o = {.q = t[0], .k = t[1], .v = t[2], .mask = mask};
    o.causal = a[SP_SCALED_DOT_PRODUCT_ATTENTION_IS_CAUSAL].v.i != 0;
    o.scale = scale->absent ? 1 / sqrt((double)query->shape[rank - 1]) : scale->v.f;
    SP_TRY(attend(c, &o, &y));
    memcpy(shape, lead, sizeof shape);
    if (skip) shape[rank - 3] = query->shape[rank - 3];
    shape[rank - 2] = y->shape[2], shape[rank - 1] = y->shape[3];
    if (rank == 4)
        c->out[0] = sp_retain(y);
    else
        SP_TRY(sp_reshape(y, shape, rank, &c->out[0]));
out:
    for (int i = 0; i < IN; i++) sp_drop(&t[i]);
    sp_drop(&mask), sp_drop(&y);
    return status;
}
