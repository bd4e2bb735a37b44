/* Distributions made of uniform and normal numbers, and drawing by probabilities. */
#include <math.h>

#include "ops/attr.h"
#include "ops/dispatch.h"
#include "ops/index.h"
#include "ops/infer.h"
#include "ops_gen.h"

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

/* t * scale + shift; takes t's reference. */
static sp_status stretched(sp_tensor *t, double scale, double shift, sp_tensor **out)
{
    sp_tensor *wide = NULL;
    sp_status status = SP_OK;
    if (scale != 1)
        SP_TRY(sp_mul_scalar(t, SP_FLOAT(scale), &wide));
    else
        wide = sp__retain(t);
    if (shift != 0)
        SP_TRY(sp_add_scalar(wide, SP_FLOAT(shift), out));
    else
        *out = sp__retain(wide);
out:
    sp_drop(&t), sp_drop(&wide);
    return status;
}

static sp_status spread(sp_call *c, bool normally, double scale, double shift)
{
    sp_tensor *numbers = NULL;
    SP_RETURN_IF(numbers_like(c, normally, &numbers));
    return stretched(numbers, scale, shift, &c->out[0]);
}

sp_status sp__body_uniform(sp_call *c)
{
    double low = c->attr[SP_UNIFORM_LOW].v.f, high = c->attr[SP_UNIFORM_HIGH].v.f;
    if (!(high >= low))
        return sp_fail(SP_EVALUE, "%s: from %g to %g, expected a larger end", sp__op_name(c), low,
                       high);
    return spread(c, false, high - low, low);
}

static sp_status check_std(const sp_call *c, double std)
{
    if (std >= 0) return SP_OK;
    return sp_fail(SP_EVALUE, "%s: std is %g, expected 0 or more", sp__op_name(c), std);
}

sp_status sp__body_normal(sp_call *c)
{
    double std = c->attr[SP_NORMAL_STD].v.f;
    SP_RETURN_IF(check_std(c, std));
    return spread(c, true, std, c->attr[SP_NORMAL_MEAN].v.f);
}

/* ---- normal, of given moments ----- */

/* numbers * std + mean, in the shape and dtype that the two broadcast to. */
static sp_status normal_of(const sp_tensor *mean, const sp_tensor *std, sp_tensor **out)
{
    sp_tensor *common = NULL, *numbers = NULL, *wide = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp_add(mean, std, &common)); /* for its shape */
    const sp_randn_opt opt = {
        .size = sizeof opt, .has_dtype = true, .dtype = (sp_dtype)common->dtype};
    SP_TRY(sp_randn(common->shape, common->rank, &opt, &numbers));
    SP_TRY(sp_mul(numbers, std, &wide));
    SP_TRY(sp_add(wide, mean, out));
out:
    sp_drop(&common), sp_drop(&numbers), sp_drop(&wide);
    return status;
}

sp_status sp__body_normal_tensors(sp_call *c)
{
    for (int i = 0; i < 2; i++)
        SP_RETURN_IF(sp__check_floating(c, c->in[i], sp_op_table[c->op].in_names[i]));
    return normal_of(c->in[0], c->in[1], &c->out[0]);
}

sp_status sp__body_normal_mean(sp_call *c)
{
    double std = c->attr[SP_NORMAL_MEAN_STD].v.f;
    sp_tensor *numbers = NULL, *wide = NULL;
    sp_status status = SP_OK;
    SP_RETURN_IF(check_std(c, std));
    SP_TRY(numbers_like(c, true, &numbers));
    SP_TRY(sp_mul_scalar(numbers, SP_FLOAT(std), &wide));
    SP_TRY(sp_add(wide, c->in[0], &c->out[0]));
out:
    sp_drop(&numbers), sp_drop(&wide);
    return status;
}

sp_status sp__body_normal_std(sp_call *c)
{
    sp_tensor *numbers = NULL, *wide = NULL;
    sp_status status = SP_OK;
    SP_TRY(numbers_like(c, true, &numbers));
    SP_TRY(sp_mul(numbers, c->in[0], &wide));
    SP_TRY(sp_add_scalar(wide, SP_FLOAT(c->attr[SP_NORMAL_STD_MEAN].v.f), &c->out[0]));
out:
    sp_drop(&numbers), sp_drop(&wide);
    return status;
}

sp_status sp__body_normal_sized(sp_call *c)
{
    const sp_attr *size = &c->attr[SP_NORMAL_SIZED_SIZE], *dtype = &c->attr[SP_NORMAL_SIZED_DTYPE];
    const sp_randn_opt opt = {
        .size = sizeof opt, .has_dtype = !dtype->absent, .dtype = (sp_dtype)dtype->v.i};
    double std = c->attr[SP_NORMAL_SIZED_STD].v.f;
    sp_tensor *numbers = NULL;
    SP_RETURN_IF(check_std(c, std));
    SP_RETURN_IF(sp_randn(size->v.ints, size->n, &opt, &numbers));
    return stretched(numbers, std, c->attr[SP_NORMAL_SIZED_MEAN].v.f, &c->out[0]);
}

/* ---- other distributions, by their inverse distribution functions ----- */

static sp_status check_positive(const sp_call *c, double value)
{
    if (value > 0) return SP_OK;
    return sp_fail(SP_EVALUE, "%s: %s is %g, expected a number above 0", sp__op_name(c),
                   sp_op_table[c->op].attr_names[c->n_attr - 1], value);
}

/* log(1 - u), u uniform in [0, 1); never -inf. */
static sp_status log_of_uniform(const sp_call *c, sp_tensor **out)
{
    sp_tensor *numbers = NULL, *mirrored = NULL;
    sp_status status = SP_OK;
    SP_TRY(numbers_like(c, false, &numbers));
    SP_TRY(sp_neg(numbers, &mirrored));
    SP_TRY(sp_log1p(mirrored, out));
out:
    sp_drop(&numbers), sp_drop(&mirrored);
    return status;
}

sp_status sp__body_exponential(sp_call *c)
{
    double rate = c->attr[SP_EXPONENTIAL_LAMBD].v.f;
    sp_tensor *logs = NULL;
    SP_RETURN_IF(check_positive(c, rate));
    SP_RETURN_IF(log_of_uniform(c, &logs));
    sp_status status = sp_div_scalar(logs, SP_FLOAT(-rate), &c->out[0]);
    sp_drop(&logs);
    return status;
}

sp_status sp__body_geometric(sp_call *c)
{
    double p = c->attr[SP_GEOMETRIC_P].v.f;
    sp_tensor *logs = NULL, *trials = NULL, *whole = NULL;
    sp_status status = SP_OK;
    if (!(p > 0 && p < 1))
        return sp_fail(SP_EVALUE, "%s: p is %g, expected a probability in (0, 1)", sp__op_name(c),
                       p);
    SP_TRY(log_of_uniform(c, &logs));
    SP_TRY(sp_div_scalar(logs, SP_FLOAT(log1p(-p)), &trials));
    SP_TRY(sp_ceil(trials, &whole));
    SP_TRY(sp_clamp_min_scalar(whole, SP_INT(1), &c->out[0]));
out:
    sp_drop(&logs), sp_drop(&trials), sp_drop(&whole);
    return status;
}

sp_status sp__body_log_normal(sp_call *c)
{
    double std = c->attr[SP_LOG_NORMAL_STD].v.f;
    sp_call logs = *c;
    SP_RETURN_IF(check_positive(c, std));
    SP_RETURN_IF(spread(&logs, true, std, c->attr[SP_LOG_NORMAL_MEAN].v.f));
    sp_status status = sp_exp(logs.out[0], &c->out[0]);
    sp_drop(&logs.out[0]);
    return status;
}

/* median + sigma tan(pi (u - 1/2)) */
sp_status sp__body_cauchy(sp_call *c)
{
    double sigma = c->attr[SP_CAUCHY_SIGMA].v.f;
    sp_call angles = *c;
    sp_tensor *tangents = NULL, *wide = NULL;
    sp_status status = SP_OK;
    angles.out[0] = NULL;
    SP_RETURN_IF(check_positive(c, sigma));
    SP_TRY(spread(&angles, false, M_PI, -M_PI / 2));
    SP_TRY(sp_tan(angles.out[0], &tangents));
    SP_TRY(sp_mul_scalar(tangents, SP_FLOAT(sigma), &wide));
    SP_TRY(sp_add_scalar(wide, SP_FLOAT(c->attr[SP_CAUCHY_MEDIAN].v.f), &c->out[0]));
out:
    sp_drop(&angles.out[0]), sp_drop(&tangents), sp_drop(&wide);
    return status;
}

/* ---- whole numbers ----- */

/* Of x's shape in [low, high), as dtype, or as x's. */
static sp_status whole_like(const sp_call *c, int64_t low, int64_t high, const sp_attr *dtype,
                            sp_tensor **out)
{
    const sp_tensor *x = c->in[0];
    sp_tensor *whole = NULL;
    if (high <= low)
        return sp_fail(SP_EVALUE, "%s: from %lld to %lld, expected a larger end", sp__op_name(c),
                       (long long)low, (long long)high);
    SP_RETURN_IF(sp_randint(low, high, x->shape, x->rank, NULL, &whole));
    sp_dtype wanted = dtype && !dtype->absent ? (sp_dtype)dtype->v.i : (sp_dtype)x->dtype;
    sp_status status = sp_cast(whole, wanted, out);
    sp_drop(&whole);
    return status;
}

/* Up to where x's dtype holds all whole numbers. */
sp_status sp__body_random(sp_call *c)
{
    const sp_dtype_info *info = &sp__dtypes[c->in[0]->dtype];
    int64_t high = info->kind == SP_KIND_BOOL    ? 2
                   : info->kind == SP_KIND_FLOAT ? (INT64_C(1) << info->digits) + 1
                   : info->most < INT64_MAX      ? info->most + 1
                                                 : INT64_MAX;
    return whole_like(c, 0, high, NULL, &c->out[0]);
}

sp_status sp__body_random_upto(sp_call *c)
{
    return whole_like(c, 0, c->attr[0].v.i, NULL, &c->out[0]);
}

sp_status sp__body_random_range(sp_call *c)
{
    return whole_like(c, c->attr[0].v.i, c->attr[1].v.i, NULL, &c->out[0]);
}

sp_status sp__body_randint_like(sp_call *c)
{
    return whole_like(c, c->attr[0].v.i, c->attr[1].v.i, &c->attr[2], &c->out[0]);
}

sp_status sp__body_randint_like_upto(sp_call *c)
{
    return whole_like(c, 0, c->attr[0].v.i, &c->attr[1], &c->out[0]);
}

sp_status sp__body_rand_like(sp_call *c)
{
    const sp_tensor *x = c->in[0];
    sp_dtype dtype = (sp_dtype)(c->attr[0].absent ? x->dtype : c->attr[0].v.i);
    const sp_rand_opt opt = {.size = sizeof opt, .has_dtype = true, .dtype = dtype};
    return sp_rand(x->shape, x->rank, &opt, &c->out[0]);
}

sp_status sp__body_randn_like(sp_call *c)
{
    const sp_tensor *x = c->in[0];
    sp_dtype dtype = (sp_dtype)(c->attr[0].absent ? x->dtype : c->attr[0].v.i);
    const sp_randn_opt opt = {.size = sizeof opt, .has_dtype = true, .dtype = dtype};
    return sp_randn(x->shape, x->rank, &opt, &c->out[0]);
}

sp_status sp__body_randperm(sp_call *c)
{
    int64_t n = c->attr[SP_RANDPERM_N].v.i;
    const sp_attr *dtype = &c->attr[SP_RANDPERM_DTYPE];
    sp_tensor *whole = NULL;
    if (n < 0 || (!dtype->absent && dtype->v.i == SP_BOOL))
        return sp_fail(n < 0 ? SP_EVALUE : SP_EDTYPE,
                       "%s: %lld numbers of dtype %s, expected 0 or more, not of bool",
                       sp__op_name(c), (long long)n,
                       sp_dtype_name(dtype->absent ? SP_INT64 : (sp_dtype)dtype->v.i));
    if (dtype->absent) return sp_randperm_whole(n, &c->out[0]);
    SP_RETURN_IF(sp_randperm_whole(n, &whole));
    sp_status status = sp_cast(whole, (sp_dtype)dtype->v.i, &c->out[0]);
    sp_drop(&whole);
    return status;
}

/* ---- multinomial ----- */

/* Whether t is true everywhere, inside vmap in each example. */
static sp_status read_all(const sp_tensor *t, bool *hold)
{
    sp_tensor *all = NULL, *every = NULL;
    sp_scalar value = SP_INT(0);
    sp_status status = SP_OK;
    SP_TRY(sp_all(t, NULL, &all));
    const sp_tensor *plain = all;
    while (plain->wrap) plain = plain->wrap->inner;
    SP_TRY(sp_all(plain, NULL, &every));
    SP_TRY(sp_item(every, &value));
    *hold = value.v.i != 0;
out:
    sp_drop(&all), sp_drop(&every);
    return status;
}

/* Finite and not negative everywhere: so are the smallest and the largest of each row, NaN among
 * them if there is one. */
static sp_status are_probabilities(const sp_tensor *x, bool *sound)
{
    const int64_t last = -1;
    const sp_amin_opt low = {.size = sizeof low, .dim = &last, .n_dim = 1};
    const sp_amax_opt high = {.size = sizeof high, .dim = &last, .n_dim = 1};
    sp_tensor *least = NULL, *most = NULL, *above = NULL, *below = NULL, *fine = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp_amin(x, &low, &least));
    SP_TRY(sp_amax(x, &high, &most));
    SP_TRY(sp_ge_scalar(least, SP_INT(0), &above));
    SP_TRY(sp_lt_scalar(most, SP_FLOAT(INFINITY), &below));
    SP_TRY(sp_logical_and(above, below, &fine));
    SP_TRY(read_all(fine, sound));
out:
    sp_drop(&least), sp_drop(&most), sp_drop(&above), sp_drop(&below), sp_drop(&fine);
    return status;
}

/* And in each row at least `least` of them above 0. */
static sp_status check_probabilities(const sp_call *c, int64_t least)
{
    const int64_t last = -1;
    const sp_count_nonzero_opt rows = {.size = sizeof rows, .dim = &last, .n_dim = 1};
    sp_tensor *count = NULL, *enough = NULL;
    bool sound = false, many = false;
    sp_status status = SP_OK;
    SP_TRY(are_probabilities(c->in[0], &sound));
    SP_TRY(sp_count_nonzero(c->in[0], &rows, &count));
    SP_TRY(sp_ge_scalar(count, SP_INT(least), &enough));
    SP_TRY(read_all(enough, &many));
    if (!sound)
        SP_TRY(sp_fail(SP_EVALUE, "%s: x holds a negative number, NaN or inf, no probabilities",
                       sp__op_name(c)));
    if (!many)
        SP_TRY(sp_fail(SP_EVALUE, "%s: a row of x has fewer than %lld places that are not 0",
                       sp__op_name(c), (long long)least));
out:
    sp_drop(&count), sp_drop(&enough);
    return status;
}

/* Where uniform numbers fall among the running sums. */
static sp_status draw_again_and_again(const sp_call *c, int64_t k, sp_tensor **out)
{
    const sp_tensor *x = c->in[0];
    int64_t shape[2] = {x->shape[0], k}, classes = x->shape[x->rank - 1];
    if (x->rank == 1) shape[0] = k;
    const sp_rand_opt opt = {.size = sizeof opt, .has_dtype = true, .dtype = (sp_dtype)x->dtype};
    const sp_searchsorted_opt right = {.size = sizeof right, .right = true};
    sp_tensor *sums = NULL, *total = NULL, *numbers = NULL, *scaled = NULL, *places = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp_cumsum(x, -1, NULL, &sums));
    SP_TRY(sp_slice(sums, -1, classes - 1, classes, NULL, &total));
    SP_TRY(sp_rand(shape, x->rank, &opt, &numbers));
    SP_TRY(sp_mul(numbers, total, &scaled));
    SP_TRY(sp_searchsorted(sums, scaled, &right, &places));
    SP_TRY(sp_clamp_max_scalar(places, SP_INT(classes - 1), out)); /* only if not checked */
out:
    sp_drop(&sums), sp_drop(&total), sp_drop(&numbers), sp_drop(&scaled), sp_drop(&places);
    return status;
}

/* The first to arrive, each place's time being exponential with its probability for a rate. */
static sp_status draw_once_each(const sp_call *c, int64_t k, sp_tensor **out)
{
    const sp_topk_opt opt = {
        .size = sizeof opt, .has_dim = true, .dim = -1, .has_largest = true, .largest = true};
    sp_tensor *logs = NULL, *times = NULL, *above = NULL, *rates = NULL, *best = NULL;
    sp_status status = SP_OK;
    SP_TRY(log_of_uniform(c, &logs));
    SP_TRY(sp_neg(logs, &times));
    SP_TRY(sp_clamp_min_scalar(times, SP_FLOAT(1e-30), &above));
    SP_TRY(sp_div(c->in[0], above, &rates));
    SP_TRY(sp_topk(rates, k, &opt, &best, out));
out:
    sp_drop(&logs), sp_drop(&times), sp_drop(&above), sp_drop(&rates), sp_drop(&best);
    return status;
}

sp_status sp__body_multinomial(sp_call *c)
{
    const sp_tensor *x = c->in[0];
    int64_t k = c->attr[SP_MULTINOMIAL_NUM_SAMPLES].v.i;
    bool again = c->attr[SP_MULTINOMIAL_REPLACEMENT].v.i != 0;
    SP_RETURN_IF(sp__check_floating(c, x, "x"));
    if (x->rank < 1 || x->rank > 2 || x->shape[x->rank - 1] == 0)
        return sp_fail(SP_ESHAPE, "%s: x has shape %s, expected one or two dimensions, not empty",
                       sp__op_name(c), SP_SHAPE(x));
    if (k < 1 || (!again && k > x->shape[x->rank - 1]))
        return sp_fail(SP_EVALUE, "%s: %lld samples of %lld places%s", sp__op_name(c), (long long)k,
                       (long long)x->shape[x->rank - 1],
                       again ? ", expected 1 or more" : " without replacement");
    SP_RETURN_IF(check_probabilities(c, again ? 1 : k));
    return (again ? draw_again_and_again : draw_once_each)(c, k, &c->out[0]);
}
