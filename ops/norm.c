/* Normalisation: inference, and what it is by other ops.
 *
 * All of them are one computation on a view of x of up to four dimensions:
 *
 *                     view                  statistics over    a weight is
 *     layer_norm      (rows, n)             1                  (1, n)
 *     group_norm      (N, G, C / G, S)      2, 3               (1, G, C / G, 1)
 *     batch_norm      (N, C, S)             0, 2               (1, C, 1)
 *
 * Bodies serve derivatives of second and higher order, and vmap.
 */
#include <float.h>
#include <string.h>

#include "ops/attr.h"
#include "ops/dispatch.h"
#include "ops/infer.h"
#include "ops_gen.h"

typedef struct view {
    int rank;
    int64_t shape[4], weight[4];
    int64_t over[2], others[2]; /* dimensions of the statistics; those a weight is repeated over */
    int n_over, n_others;
    bool centred;
    double eps;
} view;

/* ---- inference ----- */

static sp_status check_parameter(const sp_call *c, const sp_tensor *t, const char *name, int rank,
                                 const int64_t *shape)
{
    char text[SP_SHAPE_TEXT];
    if (t == NULL) return SP_OK;
    SP_RETURN_IF(sp__check_same_dtype(c, c->in[0], sp_op_table[c->op].in_names[0], t, name));
    bool same = t->rank == rank;
    for (int i = 0; same && i < rank; i++) same = t->shape[i] == shape[i];
    if (same) return SP_OK;
    return sp_fail(SP_ESHAPE, "%s: %s has shape %s, expected %s", sp__op_name(c), name, SP_SHAPE(t),
                   sp__shape_text(rank, shape, text, sizeof text));
}

/* weight and bias, the inputs from `first` on, have that shape. */
static sp_status check_parameters(const sp_call *c, int first, int rank, const int64_t *shape)
{
    for (int i = first; i < c->n_in; i++)
        SP_RETURN_IF(check_parameter(c, c->in[i], sp_op_table[c->op].in_names[i], rank, shape));
    return SP_OK;
}

static sp_status check_x(const sp_call *c, const sp_tensor *x, int min_rank)
{
    SP_RETURN_IF(sp__check_floating(c, x, "x"));
    SP_RETURN_IF(sp__check_devices(c));
    if (x->rank >= min_rank) return SP_OK;
    return sp_fail(SP_ESHAPE, "%s: x has shape %s; expected (N, C) or (N, C, ...)", sp__op_name(c),
                   SP_SHAPE(x));
}

static sp_status check_ending(const sp_call *c, const sp_tensor *x, const sp_attr *shape)
{
    char text[SP_SHAPE_TEXT];
    bool fits = shape->n > 0 && shape->n <= x->rank;
    for (int i = 0; fits && i < shape->n; i++)
        fits = shape->v.ints[i] == x->shape[x->rank - shape->n + i];
    if (fits) return SP_OK;
    return sp_fail(SP_ESHAPE, "%s: x has shape %s, which does not end in normalized_shape, %s",
                   sp__op_name(c), SP_SHAPE(x),
                   sp__shape_text(shape->n, shape->v.ints, text, sizeof text));
}

static sp_status check_groups(const sp_call *c, const sp_tensor *x, int64_t groups)
{
    if (groups > 0 && x->shape[1] % groups == 0) return SP_OK;
    return sp_fail(SP_EVALUE,
                   "%s: x of shape %s has %lld channels, which %lld groups do not divide",
                   sp__op_name(c), SP_SHAPE(x), (long long)x->shape[1], (long long)groups);
}

/* layer_norm, rms_norm */
sp_status sp__infer_layer_norm(const sp_call *c, sp_meta *out)
{
    const sp_tensor *x = c->in[0];
    const sp_attr *shape = &c->attr[SP_LAYER_NORM_NORMALIZED_SHAPE];
    SP_RETURN_IF(check_x(c, x, 0));
    SP_RETURN_IF(check_ending(c, x, shape));
    SP_RETURN_IF(check_parameters(c, 1, shape->n, shape->v.ints));
    return sp__infer_like(c, x, (sp_dtype)x->dtype, out);
}

sp_status sp__infer_group_norm(const sp_call *c, sp_meta *out)
{
    const sp_tensor *x = c->in[0];
    SP_RETURN_IF(check_x(c, x, 2));
    SP_RETURN_IF(check_groups(c, x, c->attr[SP_GROUP_NORM_NUM_GROUPS].v.i));
    SP_RETURN_IF(check_parameters(c, 1, 1, &x->shape[1]));
    return sp__infer_like(c, x, (sp_dtype)x->dtype, out);
}

sp_status sp__infer_channel_affine(const sp_call *c, sp_meta *out)
{
    const sp_tensor *x = c->in[0];
    SP_RETURN_IF(check_x(c, x, 2));
    SP_RETURN_IF(check_parameters(c, 1, 1, &x->shape[1]));
    return sp__infer_like(c, x, (sp_dtype)x->dtype, out);
}

static sp_status infer_rest(const sp_call *c, int rank, const int64_t *shape, sp_meta *out)
{
    const sp_tensor *x = c->in[0];
    for (int i = 1; i < c->n_out; i++) {
        out[i].rank = (uint8_t)rank;
        memcpy(out[i].shape, shape, sizeof *shape * (size_t)rank);
        SP_RETURN_IF(sp__infer_dense(c, (sp_dtype)x->dtype, x->device, &out[i]));
    }
    return SP_OK;
}

sp_status sp__infer_batch_norm_train(const sp_call *c, sp_meta *out)
{
    SP_RETURN_IF(sp__infer_channel_affine(c, &out[0]));
    return infer_rest(c, 1, &c->in[0]->shape[1], out);
}

/* The derivatives: inputs grad, x, for batches mean and var, and weight. */
sp_status sp__infer_norm_backward(const sp_call *c, sp_meta *out)
{
    const sp_tensor *gy = c->in[0], *x = c->in[1];
    const sp_attr *shape = &c->attr[SP_LAYER_NORM_BACKWARD_NORMALIZED_SHAPE];
    bool rows = c->op == SP_OP_LAYER_NORM_BACKWARD || c->op == SP_OP_RMS_NORM_BACKWARD;
    SP_RETURN_IF(check_x(c, x, rows ? 0 : 2));
    SP_RETURN_IF(check_parameter(c, gy, "grad", x->rank, x->shape));
    SP_RETURN_IF(sp__check_same_dtype(c, gy, "grad", x, "x"));
    if (rows) SP_RETURN_IF(check_ending(c, x, shape));
    if (c->op == SP_OP_GROUP_NORM_BACKWARD)
        SP_RETURN_IF(check_groups(c, x, c->attr[SP_GROUP_NORM_BACKWARD_NUM_GROUPS].v.i));
    int rank = rows ? shape->n : 1;
    const int64_t *sizes = rows ? shape->v.ints : &x->shape[1];
    SP_RETURN_IF(check_parameters(c, 2, rank, sizes));
    SP_RETURN_IF(sp__infer_like(c, x, (sp_dtype)x->dtype, &out[0]));
    return infer_rest(c, rank, sizes, out);
}

/* ---- views ----- */

static int64_t product(const int64_t *sizes, int n)
{
    int64_t all = 1;
    for (int i = 0; i < n; i++) all *= sizes[i];
    return all;
}

static void rows_view(view *v, const sp_tensor *x, int n)
{
    int64_t size = product(x->shape + x->rank - n, n);
    *v = (view){.rank = 2, .shape = {product(x->shape, x->rank - n), size}, .weight = {1, size}};
    v->over[0] = 1, v->n_over = 1, v->others[0] = 0, v->n_others = 1, v->centred = true;
}

static void groups_view(view *v, const sp_tensor *x, int64_t groups)
{
    int64_t each = x->shape[1] / groups, run = product(x->shape + 2, x->rank - 2);
    *v = (view){
        .rank = 4, .shape = {x->shape[0], groups, each, run}, .weight = {1, groups, each, 1}};
    v->over[0] = 2, v->over[1] = 3, v->n_over = 2;
    v->others[0] = 0, v->others[1] = 3, v->n_others = 2, v->centred = true;
}

static void batch_view(view *v, const sp_tensor *x)
{
    int64_t run = product(x->shape + 2, x->rank - 2);
    *v = (view){.rank = 3, .shape = {x->shape[0], x->shape[1], run}, .weight = {1, x->shape[1], 1}};
    v->over[0] = v->others[0] = 0, v->over[1] = v->others[1] = 2, v->n_over = v->n_others = 2;
    v->centred = true;
}

static double rms_eps(const sp_tensor *x, const sp_attr *eps)
{
    if (!eps->absent) return eps->v.f;
    return x->dtype == SP_FLOAT64 ? DBL_EPSILON : FLT_EPSILON;
}

/* Of a normalisation or its derivative. */
static void view_of(const sp_call *c, const sp_tensor *x, view *v)
{
    const sp_attr *a = c->attr;
    switch (c->op) {
    case SP_OP_LAYER_NORM:
    case SP_OP_LAYER_NORM_BACKWARD:
        rows_view(v, x, a[SP_LAYER_NORM_NORMALIZED_SHAPE].n);
        v->eps = a[SP_LAYER_NORM_EPS].v.f;
        return;
    case SP_OP_RMS_NORM:
    case SP_OP_RMS_NORM_BACKWARD:
        rows_view(v, x, a[SP_RMS_NORM_NORMALIZED_SHAPE].n);
        v->centred = false, v->eps = rms_eps(x, &a[SP_RMS_NORM_EPS]);
        return;
    case SP_OP_GROUP_NORM:
    case SP_OP_GROUP_NORM_BACKWARD:
        groups_view(v, x, a[SP_GROUP_NORM_NUM_GROUPS].v.i);
        v->eps = a[SP_GROUP_NORM_EPS].v.f;
        return;
    default: batch_view(v, x); v->eps = a[SP_BATCH_NORM_TRAIN_EPS].v.f;
    }
}

/* ---- bodies ----- */

typedef struct parts { /* in the view; owned */
    sp_tensor *x, *mean, *var, *d, *rstd, *z, *weight;
} parts;

static void parts_drop(parts *p)
{
    sp_drop(&p->x), sp_drop(&p->mean), sp_drop(&p->var), sp_drop(&p->d), sp_drop(&p->rstd);
    sp_drop(&p->z), sp_drop(&p->weight);
}

static sp_status mean_over(const view *v, const sp_tensor *x, sp_tensor **out)
{
    const sp_mean_opt opt = {
        .size = sizeof opt, .dim = v->over, .n_dim = v->n_over, .keepdim = true};
    return sp_mean(x, &opt, out);
}

/* t of the view summed to a weight's shape. */
static sp_status sum_to_weight(const view *v, const sp_tensor *t, const int64_t *shape, int rank,
                               sp_tensor **out)
{
    const sp_sum_opt opt = {.size = sizeof opt, .dim = v->others, .n_dim = v->n_others};
    sp_tensor *sum = NULL;
    SP_RETURN_IF(sp_sum(t, &opt, &sum));
    sp_status status = sp_reshape(sum, shape, rank, out);
    sp_drop(&sum);
    return status;
}

static sp_status take_statistics(const view *v, parts *p)
{
    sp_tensor *square = NULL;
    sp_status status = SP_OK;
    if (v->centred) {
        SP_TRY(mean_over(v, p->x, &p->mean));
        SP_TRY(sp_sub(p->x, p->mean, &p->d));
    } else {
        p->d = sp_retain(p->x);
    }
    SP_TRY(sp_mul(p->d, p->d, &square));
    SP_TRY(mean_over(v, square, &p->var));
out:
    sp_drop(&square);
    return status;
}

/* z = (x - mean) / sqrt(var + eps), by the statistics given or else x's own. */
static sp_status take_parts(const view *v, const sp_tensor *x, const sp_tensor *mean,
                            const sp_tensor *var, const sp_tensor *weight, parts *p)
{
    sp_tensor *more = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp_reshape(x, v->shape, v->rank, &p->x));
    if (mean) {
        SP_TRY(sp_reshape(mean, v->weight, v->rank, &p->mean));
        SP_TRY(sp_reshape(var, v->weight, v->rank, &p->var));
        SP_TRY(sp_sub(p->x, p->mean, &p->d));
    } else {
        SP_TRY(take_statistics(v, p));
    }
    SP_TRY(sp_add_scalar(p->var, SP_FLOAT(v->eps), &more));
    SP_TRY(sp_rsqrt(more, &p->rstd));
    SP_TRY(sp_mul(p->d, p->rstd, &p->z));
    if (weight) SP_TRY(sp_reshape(weight, v->weight, v->rank, &p->weight));
out:
    sp_drop(&more);
    return status;
}

/* layer_norm, rms_norm, group_norm, batch_norm_train */
sp_status sp__body_norm_forward(sp_call *c)
{
    const sp_tensor *x = c->in[0], *bias = c->op == SP_OP_RMS_NORM ? NULL : c->in[2];
    sp_meta meta[SP_MAX_OUT];
    sp_tensor *scaled = NULL, *shift = NULL, *sum = NULL;
    parts p = {0};
    view v;
    sp_status status = SP_OK;
    for (int i = 0; i < c->n_out; i++) c->out[i] = NULL;
    SP_TRY(sp_op_table[c->op].infer(c, meta));
    view_of(c, x, &v);
    SP_TRY(take_parts(&v, x, NULL, NULL, c->in[1], &p));
    scaled = sp_retain(p.z);
    if (p.weight) sp_drop(&scaled);
    if (p.weight) SP_TRY(sp_mul(p.z, p.weight, &scaled));
    sum = sp_retain(scaled);
    if (bias) {
        sp_drop(&sum);
        SP_TRY(sp_reshape(bias, v.weight, v.rank, &shift));
        SP_TRY(sp_add(scaled, shift, &sum));
    }
    SP_TRY(sp_reshape(sum, x->shape, x->rank, &c->out[0]));
    if (c->n_out > 1) SP_TRY(sp_reshape(p.mean, &x->shape[1], 1, &c->out[1]));
    if (c->n_out > 2) SP_TRY(sp_reshape(p.var, &x->shape[1], 1, &c->out[2]));
out:
    for (int i = 0; status != SP_OK && i < c->n_out; i++) sp_drop(&c->out[i]);
    sp_drop(&scaled), sp_drop(&shift), sp_drop(&sum);
    parts_drop(&p);
    return status;
}

/* (g - mean(g) - z mean(g z)) / sqrt(var + eps), where g = gy weight */
static sp_status back_to_x(const view *v, const parts *p, const sp_tensor *gy, sp_tensor **out)
{
    sp_tensor *g = NULL, *gz = NULL, *a = NULL, *b = NULL, *zb = NULL, *less = NULL, *rest = NULL;
    sp_status status = SP_OK;
    if (p->weight)
        SP_TRY(sp_mul(gy, p->weight, &g));
    else
        g = sp_retain(gy);
    SP_TRY(sp_mul(g, p->z, &gz));
    SP_TRY(mean_over(v, gz, &b));
    SP_TRY(sp_mul(p->z, b, &zb));
    SP_TRY(sp_sub(g, zb, &less));
    if (v->centred) {
        SP_TRY(mean_over(v, g, &a));
        SP_TRY(sp_sub(less, a, &rest));
    } else {
        rest = sp_retain(less);
    }
    SP_TRY(sp_mul(rest, p->rstd, out));
out:
    sp_drop(&g), sp_drop(&gz), sp_drop(&a), sp_drop(&b), sp_drop(&zb), sp_drop(&less);
    sp_drop(&rest);
    return status;
}

/* The derivatives of all of them. */
sp_status sp__body_norm_backward(sp_call *c)
{
    const sp_tensor *x = c->in[1], *weight = c->in[c->n_in - 1];
    bool given = c->op == SP_OP_BATCH_NORM_BACKWARD;
    sp_meta meta[SP_MAX_OUT];
    sp_tensor *gy = NULL, *gx = NULL, *gz = NULL;
    parts p = {0};
    view v;
    sp_status status = SP_OK;
    for (int i = 0; i < c->n_out; i++) c->out[i] = NULL;
    SP_TRY(sp_op_table[c->op].infer(c, meta));
    view_of(c, x, &v);
    SP_TRY(take_parts(&v, x, given ? c->in[2] : NULL, given ? c->in[3] : NULL, weight, &p));
    SP_TRY(sp_reshape(c->in[0], v.shape, v.rank, &gy));
    SP_TRY(back_to_x(&v, &p, gy, &gx));
    SP_TRY(sp_reshape(gx, x->shape, x->rank, &c->out[0]));
    SP_TRY(sp_mul(gy, p.z, &gz));
    SP_TRY(sum_to_weight(&v, gz, meta[1].shape, meta[1].rank, &c->out[1]));
    if (c->n_out > 2) SP_TRY(sum_to_weight(&v, gy, meta[2].shape, meta[2].rank, &c->out[2]));
out:
    for (int i = 0; status != SP_OK && i < c->n_out; i++) sp_drop(&c->out[i]);
    sp_drop(&gy), sp_drop(&gx), sp_drop(&gz);
    parts_drop(&p);
    return status;
}

/* t (C) with 1 for the other dimensions of x. */
static sp_status beside_channels(const sp_tensor *t, const sp_tensor *x, sp_tensor **out)
{
    int64_t shape[SP_MAX_RANK];
    for (int d = 0; d < x->rank; d++) shape[d] = d == 1 ? x->shape[1] : 1;
    return sp_reshape(t, shape, x->rank, out);
}

sp_status sp__body_channel_affine(sp_call *c)
{
    sp_tensor *scale = NULL, *shift = NULL, *scaled = NULL;
    sp_meta meta;
    sp_status status = SP_OK;
    SP_TRY(sp__infer_channel_affine(c, &meta));
    SP_TRY(beside_channels(c->in[1], c->in[0], &scale));
    SP_TRY(sp_mul(c->in[0], scale, &scaled));
    if (c->in[2]) {
        SP_TRY(beside_channels(c->in[2], c->in[0], &shift));
        SP_TRY(sp_add(scaled, shift, &c->out[0]));
    } else {
        c->out[0] = sp_retain(scaled);
    }
out:
    sp_drop(&scale), sp_drop(&shift), sp_drop(&scaled);
    return status;
}

/* ---- batch_norm and instance_norm: x, running_mean, running_var, weight, bias ----- */

/* x times weight / sqrt(var + eps), shifted to be bias at the mean. in: as of batch_norm */
static sp_status shifted_and_scaled(const sp_tensor *const *in, double eps, sp_tensor **out)
{
    const sp_tensor *mean = in[1], *var = in[2], *weight = in[3], *bias = in[4];
    sp_tensor *more = NULL, *rstd = NULL, *scale = NULL, *moved = NULL, *shift = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp_add_scalar(var, SP_FLOAT(eps), &more));
    SP_TRY(sp_rsqrt(more, &rstd));
    if (weight)
        SP_TRY(sp_mul(rstd, weight, &scale));
    else
        scale = sp_retain(rstd);
    SP_TRY(sp_mul(mean, scale, &moved));
    if (bias)
        SP_TRY(sp_sub(bias, moved, &shift));
    else
        SP_TRY(sp_neg(moved, &shift));
    SP_TRY(sp_channel_affine(in[0], scale, shift, out));
out:
    sp_drop(&more), sp_drop(&rstd), sp_drop(&scale), sp_drop(&moved), sp_drop(&shift);
    return status;
}

/* By the running statistics; of halves in float32, rounded once. */
static sp_status by_running(const sp_call *c, double eps, sp_tensor **out)
{
    const sp_dtype dtype = (sp_dtype)c->in[0]->dtype;
    sp_tensor *wide[5] = {NULL}, *y = NULL;
    sp_status status = SP_OK;
    if (dtype != SP_FLOAT16 && dtype != SP_BFLOAT16)
        return shifted_and_scaled((const sp_tensor *const *)c->in, eps, out);
    for (int i = 0; i < 5; i++)
        if (c->in[i]) SP_TRY(sp_cast(c->in[i], SP_FLOAT32, &wide[i]));
    SP_TRY(shifted_and_scaled((const sp_tensor *const *)wide, eps, &y));
    SP_TRY(sp_cast(y, dtype, out));
out:
    for (int i = 0; i < 5; i++) sp_drop(&wide[i]);
    sp_drop(&y);
    return status;
}

static bool wears(const sp_tensor *t, uint64_t level_id)
{
    while (t->wrap && t->wrap->level_id != level_id) t = t->wrap->inner;
    return t->wrap != NULL;
}

/* Statistics that all examples of a vmap share cannot follow those of each. */
static sp_status check_shared(const sp_call *c, const sp_tensor *running, const sp_tensor *value)
{
    const sp_tensor *t = value;
    while (t->wrap && (t->wrap->kind != SP_LEVEL_VMAP || wears(running, t->wrap->level_id)))
        t = t->wrap->inner;
    if (!t->wrap) return SP_OK;
    return sp_fail(SP_EVALUE,
                   "%s: inside vmap each example has statistics of its own, which would be written "
                   "into running ones that all share; use track_running_stats=False, or map the "
                   "running ones, too",
                   sp__op_name(c));
}

/* running += momentum (value - running), in place, without history */
static sp_status follow(const sp_call *c, const sp_tensor *running, const sp_tensor *value,
                        double momentum)
{
    sp_tensor *plain = NULL;
    if (running == NULL) return SP_OK;
    SP_RETURN_IF(check_shared(c, running, value));
    SP_RETURN_IF(sp_detach(value, &plain));
    sp_status status = sp_lerp_scalar_((sp_tensor *)running, plain, SP_FLOAT(momentum));
    sp_drop(&plain);
    return status;
}

/* The variance divided by n goes over to the one divided by n - 1. */
static sp_status follow_both(const sp_call *c, const sp_tensor *mean, const sp_tensor *var,
                             double n, double momentum)
{
    sp_tensor *plain = NULL, *unbiased = NULL;
    sp_status status = SP_OK;
    SP_TRY(follow(c, c->in[1], mean, momentum));
    if (c->in[2] == NULL) return SP_OK;
    SP_TRY(sp_detach(var, &plain));
    SP_TRY(sp_mul_scalar(plain, SP_FLOAT(n / (n - 1)), &unbiased));
    SP_TRY(follow(c, c->in[2], unbiased, momentum));
out:
    sp_drop(&plain), sp_drop(&unbiased);
    return status;
}

static sp_status check_channels(const sp_call *c, int min_rank)
{
    const sp_tensor *x = c->in[0];
    SP_RETURN_IF(check_x(c, x, min_rank));
    return check_parameters(c, 1, 1, &x->shape[1]);
}

static sp_status check_running(const sp_call *c, const char *flag)
{
    if (c->in[1] && c->in[2]) return SP_OK;
    return sp_fail(SP_EVALUE,
                   "%s: running_mean and running_var are None; give both, or set %s to True",
                   sp__op_name(c), flag);
}

static sp_status check_enough(const sp_call *c, int64_t n)
{
    if (n != 1) return SP_OK;
    return sp_fail(SP_EVALUE,
                   "%s: x of shape %s has one value a channel, expected more: one has no variance",
                   sp__op_name(c), SP_SHAPE(c->in[0]));
}

sp_status sp__body_batch_norm(sp_call *c)
{
    const sp_tensor *x = c->in[0];
    double momentum = c->attr[SP_BATCH_NORM_MOMENTUM].v.f, eps = c->attr[SP_BATCH_NORM_EPS].v.f;
    sp_batch_norm_train_opt opt = {.size = sizeof opt, .has_eps = true, .eps = eps};
    sp_tensor *y = NULL, *mean = NULL, *var = NULL;
    sp_status status = SP_OK;
    SP_TRY(check_channels(c, 2));
    if (!c->attr[SP_BATCH_NORM_TRAINING].v.i) {
        SP_TRY(check_running(c, "training"));
        return by_running(c, eps, &c->out[0]);
    }
    int64_t n = x->shape[0] * product(x->shape + 2, x->rank - 2);
    SP_TRY(check_enough(c, n));
    SP_TRY(sp_batch_norm_train(x, c->in[3], c->in[4], &opt, &y, &mean, &var));
    SP_TRY(follow_both(c, mean, var, (double)n, momentum));
    c->out[0] = sp_retain(y);
out:
    sp_drop(&y), sp_drop(&mean), sp_drop(&var);
    return status;
}

/* The means over examples of their channels' statistics. */
static sp_status follow_instances(const sp_call *c, double n, double momentum)
{
    const sp_tensor *x = c->in[0];
    const int64_t shape[3] = {x->shape[0], x->shape[1], (int64_t)n}, examples = 0, run = 2;
    const sp_var_mean_opt each = {.size = sizeof each,
                                  .dim = &run,
                                  .n_dim = 1,
                                  .has_correction = true,
                                  .correction = SP_INT(0)};
    const sp_mean_opt all = {.size = sizeof all, .dim = &examples, .n_dim = 1};
    sp_tensor *plain = NULL, *flat = NULL, *mean = NULL, *var = NULL, *means = NULL, *vars = NULL;
    sp_status status = SP_OK;
    if (c->in[1] == NULL && c->in[2] == NULL) return SP_OK;
    SP_TRY(sp_detach(x, &plain));
    SP_TRY(sp_reshape(plain, shape, 3, &flat));
    SP_TRY(sp_var_mean(flat, &each, &var, &mean));
    SP_TRY(sp_mean(mean, &all, &means));
    SP_TRY(sp_mean(var, &all, &vars));
    SP_TRY(follow_both(c, means, vars, n, momentum));
out:
    sp_drop(&plain), sp_drop(&flat), sp_drop(&mean), sp_drop(&var), sp_drop(&means);
    sp_drop(&vars);
    return status;
}

sp_status sp__body_instance_norm(sp_call *c)
{
    const sp_tensor *x = c->in[0];
    double momentum = c->attr[SP_INSTANCE_NORM_MOMENTUM].v.f,
           eps = c->attr[SP_INSTANCE_NORM_EPS].v.f;
    sp_group_norm_opt opt = {.size = sizeof opt, .has_eps = true, .eps = eps};
    SP_RETURN_IF(check_channels(c, 3));
    if (!c->attr[SP_INSTANCE_NORM_USE_INPUT_STATS].v.i) {
        SP_RETURN_IF(check_running(c, "use_input_stats"));
        return by_running(c, eps, &c->out[0]);
    }
    int64_t n = product(x->shape + 2, x->rank - 2);
    SP_RETURN_IF(check_enough(c, n));
    SP_RETURN_IF(follow_instances(c, (double)n, momentum));
    return sp_group_norm(x, x->shape[1] > 0 ? x->shape[1] : 1, c->in[3], c->in[4], &opt,
                         &c->out[0]);
}

/* ---- normalize and local_response_norm ----- */

sp_status sp__body_normalize(sp_call *c)
{
    const int64_t dim = c->attr[SP_NORMALIZE_DIM].v.i;
    const sp_norm_opt opt = {.size = sizeof opt,
                             .has_p = true,
                             .p = c->attr[SP_NORMALIZE_P].v.f,
                             .dim = &dim,
                             .n_dim = 1,
                             .keepdim = true};
    sp_tensor *norm = NULL, *divisor = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp_norm(c->in[0], &opt, &norm));
    SP_TRY(sp_clamp_min_scalar(norm, SP_FLOAT(c->attr[SP_NORMALIZE_EPS].v.f), &divisor));
    SP_TRY(sp_div(c->in[0], divisor, &c->out[0]));
out:
    sp_drop(&norm), sp_drop(&divisor);
    return status;
}

/* x * x (N, C, ...) with zeros before and after the channels, as many as `size` windows need. */
static sp_status padded_squares(const sp_tensor *x, int64_t size, sp_tensor **out)
{
    int64_t shape[SP_MAX_RANK];
    const sp_full_opt like = {.size = sizeof like, .has_dtype = true, .dtype = (sp_dtype)x->dtype};
    const sp_cat_opt channels = {.size = sizeof channels, .dim = 1};
    sp_tensor *square = NULL, *before = NULL, *after = NULL;
    sp_status status = SP_OK;
    memcpy(shape, x->shape, sizeof *shape * (size_t)x->rank);
    SP_TRY(sp_mul(x, x, &square));
    shape[1] = size / 2;
    SP_TRY(sp_full(shape, x->rank, SP_INT(0), &like, &before));
    shape[1] = (size - 1) / 2;
    SP_TRY(sp_full(shape, x->rank, SP_INT(0), &like, &after));
    const sp_tensor *const all[3] = {before, square, after};
    SP_TRY(sp_cat(all, 3, &channels, out));
out:
    sp_drop(&square), sp_drop(&before), sp_drop(&after);
    return status;
}

sp_status sp__body_local_response_norm(sp_call *c)
{
    const sp_attr *a = c->attr;
    int64_t size = a[SP_LOCAL_RESPONSE_NORM_SIZE].v.i, last = c->in[0]->rank;
    const sp_mean_opt window = {.size = sizeof window, .dim = &last, .n_dim = 1};
    sp_tensor *squares = NULL, *windows = NULL, *mean = NULL, *scaled = NULL, *more = NULL,
              *divisor = NULL;
    sp_status status = SP_OK;
    SP_TRY(check_x(c, c->in[0], 3));
    if (size < 1)
        SP_TRY(sp_fail(SP_EVALUE, "local_response_norm: size is %lld, expected at least 1",
                       (long long)size));
    SP_TRY(padded_squares(c->in[0], size, &squares));
    SP_TRY(sp_unfold(squares, 1, size, 1, &windows));
    SP_TRY(sp_mean(windows, &window, &mean));
    SP_TRY(sp_mul_scalar(mean, SP_FLOAT(a[SP_LOCAL_RESPONSE_NORM_ALPHA].v.f), &scaled));
    SP_TRY(sp_add_scalar(scaled, SP_FLOAT(a[SP_LOCAL_RESPONSE_NORM_K].v.f), &more));
    SP_TRY(sp_pow_scalar(more, SP_FLOAT(a[SP_LOCAL_RESPONSE_NORM_BETA].v.f), &divisor));
    SP_TRY(sp_div(c->in[0], divisor, &c->out[0]));
out:
    sp_drop(&squares), sp_drop(&windows), sp_drop(&mean), sp_drop(&scaled), sp_drop(&more);
    sp_drop(&divisor);
    return status;
}
