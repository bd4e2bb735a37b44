/* The jet level: Taylor coefficients by each of its ways, through writes and views, in other
 * levels, and with every allocation failing in turn; a grad level that is pushed again.
 */
#include "support.h"

#include "autograd/tape.h"

enum { ORDER = 4 };

typedef sp_status (*unary)(const sp_tensor *x, sp_tensor **out);

/* f(x + t) for the only element of x: coefficients of order 0 to ORDER, as one vector each. */
static sp_status coefficients(unary f, const sp_tensor *x, sp_tensor **made)
{
    const sp_tensor *step[ORDER] = {NULL};
    sp_tensor *one = NULL, *curve = NULL, *y = NULL;
    sp_level *level = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp_full(
        sp_shape(x), sp_rank(x), SP_FLOAT(1),
        &(sp_full_opt){.size = sizeof(sp_full_opt), .has_dtype = true, .dtype = SP_FLOAT64}, &one));
    step[0] = one;
    SP_TRY(sp__level_push_jet(ORDER, &level));
    SP_TRY(sp__series(level, x, step, &curve));
    SP_TRY(f(curve, &y));
    SP_TRY(sp__unseries(level, y, &made[0], &made[1]));
out:
    if (level) sp__level_pop(level);
    DROP(&one, &curve, &y);
    return status;
}

/* Checks f(x + t) at x against the first coefficients. */
static void expands(unary f, double at, double c0, double c1, double c2, double c3, double c4)
{
    int64_t before = live_blocks();
    const double wanted[] = {c0, c1, c2, c3, c4};
    sp_tensor *x = VECTOR(at), *made[1 + ORDER];
    OK(coefficients(f, x, made));
    for (int k = 0; k <= ORDER; k++) {
        check_values(made[k], &wanted[k], 1, __LINE__);
        sp_drop(&made[k]);
    }
    DROP(&x);
    CU_ASSERT_EQUAL(live_blocks(), before);
}

/* ---- ways ----- */

static sp_status times_two(const sp_tensor *x, sp_tensor **out)
{
    return sp_mul_scalar(x, SP_FLOAT(2), out);
}

static sp_status fifth_power(const sp_tensor *x, sp_tensor **out)
{
    return sp_pow_scalar(x, SP_INT(5), out);
}

static sp_status power_five_halves(const sp_tensor *x, sp_tensor **out)
{
    return sp_pow_scalar(x, SP_FLOAT(2.5), out);
}

static sp_status cubed(const sp_tensor *x, sp_tensor **out)
{
    sp_tensor *square = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp_mul(x, x, &square));
    SP_TRY(sp_matmul(square, x, out));
out:
    DROP(&square);
    return status;
}

static sp_status over_itself_plus_one(const sp_tensor *x, sp_tensor **out)
{
    sp_tensor *more = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp_add_scalar(x, SP_FLOAT(1), &more));
    SP_TRY(sp_div(x, more, out));
out:
    DROP(&more);
    return status;
}

static void each_way_yields_the_series(void)
{
    double e = exp(0.5), s = sin(0.5), c = cos(0.5);
    expands(times_two, 3, 6, 2, 0, 0, 0);
    expands(sp_relu, 3, 3, 1, 0, 0, 0);
    expands(sp_relu, -3, 0, 0, 0, 0, 0);
    expands(sp_exp, 0.5, e, e, e / 2, e / 6, e / 24);
    expands(sp_sin, 0.5, s, c, -s / 2, -c / 6, s / 24);
    expands(sp_cos, 0.5, c, -s, -c / 2, s / 6, c / 24);
    expands(sp_sqrt, 1, 1, 0.5, -0.125, 0.0625, -5.0 / 128);
    expands(sp_rsqrt, 1, 1, -0.5, 0.375, -0.3125, 35.0 / 128);
    expands(sp_reciprocal, 1, 1, -1, 1, -1, 1);
    expands(sp_log, 1, 0, 1, -0.5, 1.0 / 3, -0.25);
    expands(sp_atan, 0, 0, 1, 0, -1.0 / 3, 0);
    expands(sp_tan, 0, 0, 1, 0, 1.0 / 3, 0);
    expands(fifth_power, 0, 0, 0, 0, 0, 0);
    expands(fifth_power, 2, 32, 80, 80, 40, 10);
    expands(power_five_halves, 1, 1, 2.5, 1.875, 0.3125, -5.0 / 128);
    expands(over_itself_plus_one, 0, 0, 1, -1, 1, -1);
    expands(sp_square, 3, 9, 6, 1, 0, 0);
}

static void products_of_series(void)
{
    sp_tensor *x = VECTOR(2), *made[1 + ORDER];
    OK(coefficients(cubed, x, made));
    const double wanted[] = {8, 12, 6, 1, 0};
    for (int k = 0; k <= ORDER; k++) {
        check_values(made[k], &wanted[k], 1, __LINE__);
        sp_drop(&made[k]);
    }
    DROP(&x);
}

/* Whose derivative reads its result, without a recurrence. */
static sp_status softmax_first(const sp_tensor *x, sp_tensor **out)
{
    sp_tensor *y = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp_softmax(x, 0, &y));
    SP_TRY(sp_select(y, 0, 0, out));
out:
    DROP(&y);
    return status;
}

static sp_status beside_zero(const sp_tensor *x, sp_tensor **out)
{
    sp_tensor *zero = NULL, *both = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp_mul_scalar(x, SP_FLOAT(0), &zero));
    SP_TRY(sp_cat((const sp_tensor *[]){x, zero}, 2, NULL, &both));
    SP_TRY(softmax_first(both, out));
out:
    DROP(&zero, &both);
    return status;
}

static void what_has_no_recurrence_is_counted(void)
{
    int64_t fallbacks = sp__jet_fallbacks();
    expands(beside_zero, 0, 0.5, 0.25, 0, -1.0 / 48, 0); /* the logistic function */
    CU_ASSERT(sp__jet_fallbacks() > fallbacks);
    fallbacks = sp__jet_fallbacks();
    expands(sp_sigmoid, 0, 0.5, 0.25, 0, -1.0 / 48, 0);
    CU_ASSERT_EQUAL(sp__jet_fallbacks(), fallbacks);
}

/* y = (x^3, x^2), written in place and through a view */
static sp_status written(const sp_tensor *x, sp_tensor **out)
{
    sp_tensor *y = NULL, *view = NULL, *square = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp_cat((const sp_tensor *[]){x, x}, 2, NULL, &y));
    SP_TRY(sp_mul_(y, y));
    SP_TRY(sp_slice(y, 0, 0, 1, NULL, &view));
    SP_TRY(sp_mul_(view, x));
    SP_TRY(sp_mul(view, x, &square));
    SP_TRY(sp_copy_(view, square));
    SP_TRY(sp_sum(y, NULL, out));
out:
    DROP(&y, &view, &square);
    return status;
}

static void writes_and_views(void)
{
    expands(written, 2, 20, 36, 25, 8, 1); /* x^4 + x^2 */
}

/* A composite with a kernel: its body carries the series. */
static sp_status normed(const sp_tensor *x, sp_tensor **out)
{
    sp_tensor *both = NULL, *y = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp_cat((const sp_tensor *[]){x, x}, 2, NULL, &both));
    SP_TRY(sp_mul_(both, both));
    SP_TRY(sp_layer_norm(both, (int64_t[]){2}, 1, NULL, NULL, NULL, &y));
    SP_TRY(sp_select(y, 0, 0, out));
out:
    DROP(&both, &y);
    return status;
}

static void bodies(void)
{
    expands(normed, 2, 0, 0, 0, 0, 0);
}

/* ---- in other levels ----- */

typedef struct at_order {
    unary f;
    int k;
} at_order;

static sp_status one_coefficient(void *ctx, const sp_tensor *const *in, int n_in, sp_tensor **out,
                                 int max_out, int *n_out)
{
    (void)n_in, (void)max_out;
    const at_order *of = ctx;
    sp_tensor *made[1 + ORDER] = {NULL};
    SP_RETURN_IF(coefficients(of->f, in[0], made));
    *n_out = 1;
    sp_status status = sp_sum(made[of->k], NULL, &out[0]);
    for (int k = 0; k <= ORDER; k++) sp_drop(&made[k]);
    return status;
}

static void in_grad_jvp_and_vmap(void)
{
    sp_tensor *x = VECTOR(0.5, 1.5), *g, *value, *tangent, *ones = VECTOR(1, 1);
    at_order third = {sp_exp, 3};
    int n;
    OK(sp_grad_fn(one_coefficient, &third, (const sp_tensor *[]){x}, 1, 1, &g, NULL));
    VALUES(g, exp(0.5) / 6, exp(1.5) / 6);
    DROP(&g);
    OK(sp_jvp(one_coefficient, &third, (const sp_tensor *[]){x}, (const sp_tensor *[]){ones}, 1,
              &value, &tangent, 1, &n));
    VALUES(tangent, (exp(0.5) + exp(1.5)) / 6);
    DROP(&value, &tangent);
    OK(sp_vmap(one_coefficient, &third, (const sp_tensor *[]){x}, (int[]){0}, 1, &value, 1, &n));
    VALUES(value, exp(0.5) / 6, exp(1.5) / 6);
    DROP(&value, &x, &ones);
}

static void arguments_are_checked(void)
{
    sp_level *level;
    sp_tensor *x = VECTOR(1, 2), *y = VECTOR(1), *out = NULL;
    FAILS(sp__level_push_jet(0, &level), SP_EVALUE, "1 to 64");
    FAILS(sp__level_push_jet(65, &level), SP_EVALUE, "1 to 64");
    OK(sp__level_push_jet(1, &level));
    FAILS(sp__series(level, x, (const sp_tensor *[]){y}, &out), SP_ESHAPE, "jet: a tangent");
    OK(sp__series(level, x, (const sp_tensor *[]){x}, &out));
    sp__level_pop(level);
    sp_tensor *z = NULL;
    FAILS(sp_mul(out, out, &z), SP_EGRAD, "jet");
    DROP(&x, &y, &out, &z);
}

/* ---- a grad level once more ----- */

static void a_tape_is_pulled_back_through_again(void)
{
    int64_t before = live_blocks();
    sp_level *level;
    sp_tensor *x = VECTOR(2, 3), *in, *y, *g, *seed = VECTOR(1, 10);
    OK(sp__level_push(SP_LEVEL_GRAD, &level));
    uint64_t id = level->id;
    OK(sp__grad_wrap(level, x, true, &in));
    OK(sp_mul(in, in, &y));
    sp__level_pop(level);
    for (int i = 0; i < 2; i++) {
        OK(sp__level_push_again(id, &level));
        OK(sp__grad_of(level, (const sp_tensor *[]){y}, (const sp_tensor *[]){seed}, 1,
                       (const sp_tensor *[]){in}, 1, true, &g));
        sp__level_pop(level);
        VALUES(g, 4, 60);
        DROP(&g);
    }
    DROP(&x, &in, &y, &seed);
    CU_ASSERT_EQUAL(live_blocks(), before);
}

/* ---- no memory ----- */

static sp_status all_ways(const sp_tensor *x, sp_tensor **out)
{
    static const unary ways[] = {sp_exp,        sp_sin,  sp_sqrt,     sp_rsqrt,
                                 sp_reciprocal, sp_log,  fifth_power, sp_tanh,
                                 beside_zero,   written, cubed,       normed};
    sp_status status = SP_OK;
    for (size_t i = 0; i < sizeof ways / sizeof *ways && status == SP_OK; i++) {
        sp_tensor *made[1 + ORDER] = {NULL};
        status = coefficients(ways[i], x, made);
        for (int k = 0; k <= ORDER; k++) sp_drop(&made[k]);
    }
    (void)out;
    return status;
}

static void every_allocation_may_fail(void)
{
    sp_tensor *x = VECTOR(0.5);
    OK(all_ways(x, NULL));
    int64_t before = live_blocks();
    for (int64_t n = 1;; n++) {
        sp_memory_fail_nth(n, false);
        sp_status status = all_ways(x, NULL);
        bool over = sp_memory_requests() < n;
        sp_memory_fail_nth(0, false);
        CU_ASSERT((status == SP_OK) == over);
        CU_ASSERT_EQUAL(live_blocks(), before);
        if (over || live_blocks() != before) break;
    }
    DROP(&x);
}

SUITE("autograd/jet", TEST(each_way_yields_the_series), TEST(products_of_series),
      TEST(what_has_no_recurrence_is_counted), TEST(writes_and_views), TEST(bodies),
      TEST(in_grad_jvp_and_vmap), TEST(arguments_are_checked),
      TEST(a_tape_is_pulled_back_through_again), TEST(every_allocation_may_fail))
