/* Custom functions: derivatives of every order and mode, what calls keep, results that are inputs,
 * errors, and failing allocations. */
#include "support.h"

#define ONE(t) ((const sp_tensor *const[]){t})

/* ---- cube, by setup: x^3 with everything ----- */

static int backwards, drops;

static sp_status cube(const sp_tensor *x, sp_tensor **out)
{
    sp_tensor *square = NULL;
    sp_status status = sp_mul(x, x, &square);
    if (status == SP_OK) status = sp_mul(square, x, out);
    sp_drop(&square);
    return status;
}

static sp_status cube_forward(void *ctx, sp_function_call *call, const sp_tensor *const *in,
                              int n_in, sp_tensor **out, int max_out, int *n_out)
{
    (void)ctx, (void)n_in, (void)max_out;
    CU_ASSERT_PTR_NULL(call);
    CU_ASSERT(!in[0]->wrap || in[0]->wrap->kind == SP_LEVEL_VMAP); /* one that was generated */
    *n_out = 1;
    return cube(in[0], &out[0]);
}

static sp_status cube_setup(void *ctx, sp_function_call *call, const sp_tensor *const *in, int n_in,
                            const sp_tensor *const *out, int n_out)
{
    (void)ctx, (void)n_in, (void)out, (void)n_out;
    return sp_function_save(call, in[0]);
}

/* 3 x^2 g */
static sp_status cube_slope(sp_function_call *call, const sp_tensor *g, sp_tensor **out)
{
    sp_tensor *x = NULL, *square = NULL, *three = NULL;
    sp_status status = sp_function_saved(call, 0, &x);
    if (status == SP_OK) status = sp_mul(x, x, &square);
    if (status == SP_OK) status = sp_mul_scalar(square, SP_FLOAT(3), &three);
    if (status == SP_OK) status = sp_mul(g, three, out);
    DROP(&x, &square, &three);
    return status;
}

static sp_status cube_backward(void *ctx, sp_function_call *call, const sp_tensor *const *gy,
                               int n_out, sp_tensor **gx, int n_in)
{
    (void)ctx, (void)n_out, (void)n_in;
    backwards++;
    return cube_slope(call, gy[0], &gx[0]);
}

static sp_status cube_jvp(void *ctx, sp_function_call *call, const sp_tensor *const *t, int n_in,
                          sp_tensor **ty, int n_out)
{
    (void)ctx, (void)n_in, (void)n_out;
    return cube_slope(call, t[0], &ty[0]);
}

static sp_status cube_vmap(void *ctx, const sp_vmap_info *info, const sp_tensor *const *in,
                           const int *in_dims, int n_in, sp_tensor **out, int *out_dims,
                           int max_out, int *n_out)
{
    const sp_function *fn = ctx;
    CU_ASSERT_EQUAL(in[0]->shape[in_dims[0]], info->batch_size);
    out_dims[0] = in_dims[0];
    return sp_function_apply(fn, (void *)fn, in, n_in, out, max_out, n_out);
}

static const sp_function CUBE = {.size = sizeof CUBE,
                                 .name = "Cube",
                                 .forward = cube_forward,
                                 .setup = cube_setup,
                                 .backward = cube_backward,
                                 .jvp = cube_jvp,
                                 .vmap = cube_vmap};

static sp_status apply(const sp_function *fn, const sp_tensor *x, sp_tensor **out)
{
    int n_out;
    return sp_function_apply(fn, (void *)fn, ONE(x), 1, out, 1, &n_out);
}

/* The same as a function for the transforms; ctx is the sp_function. */
static sp_status as_fn(void *ctx, const sp_tensor *const *in, int n_in, sp_tensor **out,
                       int max_out, int *n_out)
{
    return sp_function_apply(ctx, ctx, in, n_in, out, max_out, n_out);
}

static sp_status as_prime(void *ctx, const sp_tensor *const *in, int n_in, sp_tensor **out,
                          int max_out, int *n_out)
{
    (void)n_in, (void)max_out;
    *n_out = 1;
    return sp_grad_fn(as_fn, ctx, in, 1, 1, out, NULL);
}

static sp_status as_second(void *ctx, const sp_tensor *const *in, int n_in, sp_tensor **out,
                           int max_out, int *n_out)
{
    (void)n_in, (void)max_out;
    *n_out = 1;
    return sp_grad_fn(as_prime, ctx, in, 1, 1, out, NULL);
}

static void three_orders_on_the_tape(void)
{
    int64_t before = live_blocks();
    char name[SP_GRAD_FN_TEXT];
    const sp_grad_opt create = {.size = sizeof create, .create_graph = true};
    sp_tensor *x = leaf(number(2)), *y, *g[3];
    OK(apply(&CUBE, x, &y));
    CU_ASSERT_STRING_EQUAL(sp__grad_fn_name(y, name, sizeof name), "CubeBackward");
    OK(sp_grad(ONE(y), 1, ONE(x), 1, &create, &g[0]));
    OK(sp_grad(ONE(g[0]), 1, ONE(x), 1, &create, &g[1]));
    OK(sp_grad(ONE(g[1]), 1, ONE(x), 1, NULL, &g[2]));
    VALUES(g[0], 12);
    VALUES(g[1], 12);
    VALUES(g[2], 6);
    DROP(&x, &y, &g[0], &g[1], &g[2]);
    CU_ASSERT_EQUAL(live_blocks(), before);
}

static void transforms_nest(void)
{
    int64_t before = live_blocks();
    int n_out;
    void *fn = (void *)&CUBE;
    sp_tensor *x = number(2), *rows = VECTOR(1, 2, 3), *t = number(10), *y, *ty;
    OK(sp_grad_fn(as_second, fn, ONE(x), 1, 1, &y, NULL));
    VALUES(y, 6);
    DROP(&y);
    OK(sp_jvp(as_second, fn, ONE(x), ONE(t), 1, &y, &ty, 1, &n_out));
    VALUES(y, 12);
    VALUES(ty, 60);
    DROP(&y, &ty);
    OK(sp_vmap(as_second, fn, ONE(rows), (int[]){0}, 1, &y, 1, &n_out));
    VALUES(y, 6, 12, 18);
    DROP(&x, &rows, &t, &y);
    CU_ASSERT_EQUAL(live_blocks(), before);
}

static void vmap_is_generated_from_the_others(void)
{
    int64_t before = live_blocks();
    int n_out;
    sp_function plain = CUBE;
    sp_tensor *rows = VECTOR(1, 2, 3), *y, *ty, *ones = VECTOR(1, 1, 1);
    plain.vmap = NULL;
    FAILS(sp_vmap(as_fn, &plain, ONE(rows), (int[]){0}, 1, &y, 1, &n_out), SP_EUNSUPPORTED,
          "Cube: vmap cannot look into it");
    plain.generate_vmap = true;
    OK(sp_vmap(as_second, &plain, ONE(rows), (int[]){0}, 1, &y, 1, &n_out));
    VALUES(y, 6, 12, 18);
    DROP(&y);
    OK(apply(&plain, leaf(rows), &y));
    OK(sp_backward(y, &(sp_backward_opt){.size = sizeof(sp_backward_opt), .gradient = ones}));
    GRAD_VALUES(rows, 3, 12, 27);
    DROP(&y);
    OK(sp_jvp(as_fn, &plain, ONE(rows), ONE(ones), 1, &y, &ty, 1, &n_out));
    VALUES(ty, 3, 12, 27);
    DROP(&rows, &y, &ty, &ones);
    CU_ASSERT_EQUAL(live_blocks(), before);
}

static void what_is_missing_is_named(void)
{
    int n_out;
    sp_function plain = CUBE;
    sp_tensor *x = leaf(number(2)), *y, *ty;
    plain.jvp = NULL, plain.backward = NULL;
    FAILS(sp_jvp(as_fn, &plain, ONE(x), ONE(x), 1, &y, &ty, 1, &n_out), SP_EUNSUPPORTED,
          "Cube: has no forward-mode derivative");
    OK(apply(&plain, x, &y));
    FAILS(sp_backward(y, NULL), SP_EGRAD, "Cube: has no backward");
    DROP(&x, &y);
}

/* ---- mixed: (x, y) -> (x y, e^x, x > y), by forward alone; counts what is dropped -----
 */

static void count_drop(void *ctx)
{
    (void)ctx;
    drops++;
}

static sp_status mixed_forward(void *ctx, sp_function_call *call, const sp_tensor *const *in,
                               int n_in, sp_tensor **out, int max_out, int *n_out)
{
    sp_status status = SP_OK;
    CU_ASSERT(n_in == 2 && max_out >= 3);
    CU_ASSERT_PTR_NOT_NULL(ctx);
    *n_out = 3;
    SP_TRY(sp_mul(in[0], in[1], &out[0]));
    SP_TRY(sp_exp(in[0], &out[1]));
    SP_TRY(sp_gt(in[0], in[1], &out[2]));
    SP_TRY(sp_function_save(call, in[1]));
    SP_TRY(sp_function_save(call, out[1]));
    SP_TRY(sp_function_mark_non_differentiable(call, out[2]));
    sp_function_materialize(call, false);
    sp_function_keep(call, (void *)"mine", count_drop);
out:
    return status;
}

static sp_status mixed_backward(void *ctx, sp_function_call *call, const sp_tensor *const *gy,
                                int n_out, sp_tensor **gx, int n_in)
{
    sp_tensor *y = NULL, *exp = NULL, *a = NULL, *b = NULL;
    sp_status status = SP_OK;
    CU_ASSERT(ctx && n_out == 3 && n_in == 2);
    CU_ASSERT_STRING_EQUAL(sp_function_kept(call), "mine");
    CU_ASSERT(sp_function_needs(call, 0) && !sp_function_needs(call, 1));
    CU_ASSERT_EQUAL(sp_function_num_saved(call), 2);
    CU_ASSERT_PTR_NULL(gy[2]);
    SP_TRY(sp_function_saved(call, 0, &y));
    SP_TRY(sp_function_saved(call, 1, &exp));
    if (gy[0]) SP_TRY(sp_mul(gy[0], y, &a));
    if (gy[1]) SP_TRY(sp_mul(gy[1], exp, &b));
    if (a && b)
        SP_TRY(sp_add(a, b, &gx[0]));
    else
        gx[0] = sp_retain(a ? a : b);
out:
    DROP(&y, &exp, &a, &b);
    return status;
}

static const sp_function MIXED = {.size = sizeof MIXED,
                                  .name = "Mixed",
                                  .forward = mixed_forward,
                                  .backward = mixed_backward,
                                  .drop = count_drop};

static void several_results(void)
{
    int64_t before = live_blocks();
    int n_out;
    sp_tensor *x = leaf(VECTOR(1, 2)), *y = VECTOR(3, 1), *out[3], *s, *g;
    drops = 0;
    OK(sp_function_apply(&MIXED, (void *)"ctx", (const sp_tensor *const[]){x, y}, 2, out, 3,
                         &n_out));
    CU_ASSERT(n_out == 3 && sp_requires_grad(out[1]) && !sp_requires_grad(out[2]));
    s = sum_of(out[0]);
    OK(sp_grad(ONE(s), 1, ONE(x), 1,
               &(sp_grad_opt){.size = sizeof(sp_grad_opt), .retain_graph = true}, &g));
    VALUES(g, 3, 1);
    DROP(&s, &g);
    s = sum_of(out[1]);
    OK(sp_backward(s, &(sp_backward_opt){.size = sizeof(sp_backward_opt), .create_graph = true}));
    g = grad_of(x);
    VALUES(g, exp(1), exp(2));
    DROP(&s);
    s = sum_of(g); /* a saved result has its history: exp' is exp */
    OK(sp_grad_set(x, NULL));
    OK(sp_backward(s, NULL));
    GRAD_VALUES(x, exp(1), exp(2));
    DROP(&s, &g);
    CU_ASSERT_EQUAL(drops, 0);
    s = sum_of(out[0]);
    FAILS(sp_backward(s, NULL), SP_EGRAD, "the values that Mixed saved were freed");
    DROP(&s, &x, &y, &out[0], &out[1], &out[2]);
    CU_ASSERT_EQUAL(drops, 2);
    CU_ASSERT_EQUAL(live_blocks(), before);
}

static void a_saved_value_that_was_written_is_found(void)
{
    int n_out;
    sp_tensor *x = leaf(VECTOR(1, 2)), *y = VECTOR(3, 1), *out[3], *s;
    OK(sp_function_apply(&MIXED, (void *)"ctx", (const sp_tensor *const[]){x, y}, 2, out, 3,
                         &n_out));
    s = sum_of(out[0]);
    OK(sp_fill_scalar_(y, SP_FLOAT(1)));
    FAILS(sp_backward(s, NULL), SP_EGRAD,
          "input 1 of Mixed, which its gradient needs, was modified");
    DROP(&x, &y, &out[0], &out[1], &out[2], &s);
}

/* ---- in place, and as it is ----- */

static sp_status double_forward(void *ctx, sp_function_call *call, const sp_tensor *const *in,
                                int n_in, sp_tensor **out, int max_out, int *n_out)
{
    (void)ctx, (void)max_out;
    *n_out = 1;
    out[0] = sp_retain(in[n_in - 1]);
    sp_status status = sp_mul_scalar_(out[0], SP_FLOAT(2));
    return status == SP_OK ? sp_function_mark_dirty(call, out[0]) : status;
}

static sp_status double_backward(void *ctx, sp_function_call *call, const sp_tensor *const *gy,
                                 int n_out, sp_tensor **gx, int n_in)
{
    (void)ctx, (void)call, (void)n_out;
    return sp_mul_scalar(gy[0], SP_FLOAT(2), &gx[n_in - 1]);
}

static const sp_function DOUBLE = {.size = sizeof DOUBLE,
                                   .name = "Double",
                                   .forward = double_forward,
                                   .backward = double_backward};

static void writing_in_place_moves_the_history(void)
{
    int64_t before = live_blocks();
    int n_out;
    sp_tensor *x = leaf(VECTOR(1, 2)), *y, *part, *z, *same, *s;
    OK(sp_mul(x, x, &y));
    OK(apply(&DOUBLE, y, &same));
    CU_ASSERT_PTR_EQUAL(same, y);
    DROP(&same);
    OK(sp_select(y, 0, 1, &part)); /* of a view: through the base */
    OK(sp_function_apply(&DOUBLE, NULL, (const sp_tensor *const[]){x, part}, 2, &same, 1, &n_out));
    VALUES(y, 2, 16);
    OK(sp_mul_scalar(y, SP_FLOAT(1), &z));
    s = sum_of(z);
    OK(sp_backward(s, NULL));
    GRAD_VALUES(x, 4, 16);
    DROP(&z);
    FAILS(apply(&DOUBLE, x, &z), SP_EGRAD, "Double: a leaf tensor that requires grad");
    DROP(&x, &y, &part, &same, &z, &s);
    CU_ASSERT_EQUAL(live_blocks(), before);
}

static sp_status count_hook(void *ctx, const sp_tensor *grad, sp_tensor **replacement)
{
    (void)grad, (void)replacement;
    ++*(int *)ctx;
    return SP_OK;
}

static void a_hook_from_before_a_write_can_be_removed(void)
{
    int calls = 0;
    int64_t id;
    sp_tensor *x = leaf(VECTOR(1, 2)), *y, *same, *s;
    OK(sp_mul(x, x, &y));
    OK(sp_hook_add(y, count_hook, &calls, NULL, &id));
    OK(apply(&DOUBLE, y, &same));
    s = sum_of(y);
    OK(sp_backward(s, &(sp_backward_opt){.size = sizeof(sp_backward_opt), .retain_graph = true}));
    CU_ASSERT_EQUAL(calls, 1);
    sp_hook_remove(y, id);
    OK(sp_backward(s, NULL));
    CU_ASSERT_EQUAL(calls, 1);
    DROP(&x, &y, &same, &s);
}

static sp_status same_forward(void *ctx, sp_function_call *call, const sp_tensor *const *in,
                              int n_in, sp_tensor **out, int max_out, int *n_out)
{
    (void)ctx, (void)call, (void)n_in, (void)max_out;
    *n_out = 1;
    out[0] = sp_retain(in[0]);
    return SP_OK;
}

static sp_status minus_backward(void *ctx, sp_function_call *call, const sp_tensor *const *gy,
                                int n_out, sp_tensor **gx, int n_in)
{
    (void)ctx, (void)call, (void)n_out, (void)n_in;
    return sp_neg(gy[0], &gx[0]);
}

static const sp_function REVERSE = {
    .size = sizeof REVERSE, .name = "Reverse", .forward = same_forward, .backward = minus_backward};

static void a_result_may_be_the_input(void)
{
    int64_t before = live_blocks();
    sp_tensor *x = leaf(VECTOR(1, 2)), *y, *z, *s;
    OK(sp_mul_scalar(x, SP_FLOAT(3), &y));
    OK(apply(&REVERSE, y, &z));
    CU_ASSERT_PTR_NOT_EQUAL(z, y);
    s = sum_of(z);
    OK(sp_backward(s, NULL));
    GRAD_VALUES(x, -3, -3);
    FAILS(sp_mul_scalar_(z, SP_FLOAT(2)), SP_EGRAD, "shares memory");
    DROP(&s);
    OK(sp_mul_scalar_(y, SP_FLOAT(2)));
    FAILS(sp_sum(z, NULL, &s), SP_EGRAD, "shares memory");
    DROP(&x, &y, &z);
    CU_ASSERT_EQUAL(live_blocks(), before);
}

/* ---- errors, never zeros ----- */

static sp_status inner_forward(void *ctx, sp_function_call *call, const sp_tensor *const *in,
                               int n_in, sp_tensor **out, int max_out, int *n_out)
{
    (void)ctx, (void)n_in, (void)max_out;
    sp_tensor *square = NULL;
    *n_out = 1;
    sp_status status = sp_mul(in[0], in[0], &square);
    if (status == SP_OK) status = sp_mul(square, in[0], &out[0]);
    if (status == SP_OK) status = sp_function_save(call, square);
    sp_drop(&square);
    return status;
}

static sp_status inner_backward(void *ctx, sp_function_call *call, const sp_tensor *const *gy,
                                int n_out, sp_tensor **gx, int n_in)
{
    (void)ctx, (void)n_out, (void)n_in;
    sp_tensor *square = NULL, *three = NULL;
    sp_status status = sp_function_saved(call, 0, &square);
    if (status == SP_OK) status = sp_mul_scalar(square, SP_FLOAT(3), &three);
    if (status == SP_OK) status = sp_mul(gy[0], three, &gx[0]);
    DROP(&square, &three);
    return status;
}

static void second_derivatives_are_right_or_raise(void)
{
    int64_t before = live_blocks();
    const sp_grad_opt create = {.size = sizeof create, .create_graph = true};
    sp_function inner = {.size = sizeof inner,
                         .name = "Inner",
                         .forward = inner_forward,
                         .backward = inner_backward};
    sp_function once = CUBE;
    once.once_differentiable = true;
    sp_tensor *x = leaf(number(2)), *y, *g, *h, *plain = number(2);
    OK(apply(&inner, x, &y));
    OK(sp_grad(ONE(y), 1, ONE(x), 1, &create, &g));
    VALUES(g, 12);
    FAILS(sp_grad(ONE(g), 1, ONE(x), 1, NULL, &h), SP_EGRAD, "Inner: a second derivative needs");
    DROP(&y, &g);
    OK(apply(&once, x, &y));
    OK(sp_grad(ONE(y), 1, ONE(x), 1, &create, &g));
    VALUES(g, 12);
    FAILS(sp_grad(ONE(g), 1, ONE(x), 1, NULL, &h), SP_EGRAD, "once_differentiable");
    DROP(&y, &g);
    OK(sp_grad_fn(as_fn, &once, ONE(plain), 1, 1, &g, NULL));
    VALUES(g, 12);
    DROP(&g);
    FAILS(sp_grad_fn(as_prime, &once, ONE(plain), 1, 1, &g, NULL), SP_EGRAD, "once_differentiable");
    FAILS(sp_grad_fn(as_prime, &inner, ONE(plain), 1, 1, &g, NULL), SP_EUNSUPPORTED, "setup");
    OK(sp_grad_fn(as_fn, &inner, ONE(plain), 1, 1, &g, NULL));
    VALUES(g, 12);
    DROP(&x, &y, &g, &plain);
    CU_ASSERT_EQUAL(live_blocks(), before);
}

static sp_status wide_backward(void *ctx, sp_function_call *call, const sp_tensor *const *gy,
                               int n_out, sp_tensor **gx, int n_in)
{
    (void)ctx, (void)call, (void)gy, (void)n_out, (void)n_in;
    return sp_full(
        SHAPE(2, 3), SP_FLOAT(1),
        &(sp_full_opt){.size = sizeof(sp_full_opt), .has_dtype = true, .dtype = SP_FLOAT64},
        &gx[0]);
}

static sp_status nothing_forward(void *ctx, sp_function_call *call, const sp_tensor *const *in,
                                 int n_in, sp_tensor **out, int max_out, int *n_out)
{
    (void)ctx, (void)call, (void)in, (void)n_in, (void)out, (void)max_out;
    *n_out = 1;
    return SP_OK;
}

static sp_status eager_forward(void *ctx, sp_function_call *call, const sp_tensor *const *in,
                               int n_in, sp_tensor **out, int max_out, int *n_out)
{
    sp_function_materialize(call, false);
    sp_function_keep(call, ctx, count_drop);
    SP_RETURN_IF(sp_function_save(call, in[0]));
    return same_forward(ctx, call, in, n_in, out, max_out, n_out);
}

static void misuse_is_an_error(void)
{
    int n_out;
    sp_function eager = CUBE, none = CUBE;
    sp_tensor *x = leaf(number(2)), *y;
    eager.forward = eager_forward;
    none.forward = NULL;
    drops = 0;
    FAILS(apply(&eager, x, &y), SP_EVALUE, "forward is given no call where there is a setup");
    CU_ASSERT_EQUAL(drops, 1);
    FAILS(apply(&none, x, &y), SP_EVALUE, "Cube: has no forward");
    FAILS(sp_function_apply(&CUBE, NULL, ONE(NULL), 1, &y, 1, &n_out), SP_EVALUE,
          "Cube: input 0 is NULL");
    DROP(&x);
}

static void what_callbacks_return_is_checked(void)
{
    sp_function wide = {
        .size = sizeof wide, .name = "Wide", .forward = same_forward, .backward = wide_backward};
    sp_function nothing = {.size = sizeof nothing, .name = "Nothing", .forward = nothing_forward};
    sp_tensor *x = leaf(VECTOR(1, 2)), *row = leaf(VECTOR(1, 2, 3)), *y, *s;
    OK(apply(&wide, x, &y));
    s = sum_of(y);
    FAILS(sp_backward(s, NULL), SP_ESHAPE,
          "WideBackward: returned a gradient of shape (2, 3) for an input of shape (2,)");
    DROP(&y, &s);
    OK(apply(&wide, row, &y));
    s = sum_of(y);
    OK(sp_backward(s, NULL));
    GRAD_VALUES(row, 2, 2, 2);
    DROP(&y, &s);
    FAILS(apply(&nothing, x, &y), SP_EVALUE, "Nothing: forward returned NULL as result 0");
    DROP(&x, &row);
}

/* ---- memory ----- */

static sp_status everything(sp_tensor *x, sp_tensor *w)
{
    int n_out;
    sp_function generated = CUBE, once = CUBE;
    sp_tensor *y = NULL, *z = NULL, *t = NULL, *out[3] = {NULL}, *s = NULL, *g = NULL, *h = NULL,
              *square = NULL, *p = NULL;
    const sp_grad_opt create = {.size = sizeof create, .create_graph = true};
    sp_status status = SP_OK;
    generated.vmap = NULL, generated.generate_vmap = true;
    once.once_differentiable = true;
    SP_TRY(sp_function_apply(&MIXED, (void *)"ctx", (const sp_tensor *const[]){x, w}, 2, out, 3,
                             &n_out));
    SP_TRY(sp_mul(out[0], out[1], &square));
    SP_TRY(apply(&DOUBLE, square, &p));
    SP_TRY(apply(&REVERSE, p, &z));
    SP_TRY(apply(&once, z, &y));
    SP_TRY(sp_sum(y, NULL, &s));
    SP_TRY(sp_grad(ONE(s), 1, ONE(x), 1, &create, &g));
    SP_TRY(sp_detach(x, &t));
    SP_TRY(sp_vmap(as_second, &generated, ONE(t), (int[]){0}, 1, &h, 1, &n_out));
    sp_drop(&h), sp_drop(&y), sp_drop(&z);
    SP_TRY(sp_vmap(as_second, (void *)&CUBE, ONE(t), (int[]){0}, 1, &h, 1, &n_out));
    SP_TRY(sp_jvp(as_fn, (void *)&CUBE, ONE(t), ONE(t), 1, &y, &z, 1, &n_out));
out:
    DROP(&y, &z, &t, &out[0], &out[1], &out[2], &s, &g, &h, &square, &p);
    return status;
}

static void every_allocation_may_fail(void)
{
    sp_tensor *x = leaf(VECTOR(0.1, 0.2)), *w = VECTOR(2, 3);
    OK(everything(x, w));
    int64_t before = live_blocks();
    for (int64_t n = 1;; n++) {
        sp_memory_fail_nth(n, false);
        sp_status status = everything(x, w);
        bool over = sp_memory_requests() < n;
        sp_memory_fail_nth(0, false);
        CU_ASSERT((status == SP_OK) == over);
        CU_ASSERT_EQUAL(live_blocks(), before);
        if (over || live_blocks() != before) break;
    }
    DROP(&x, &w);
}

SUITE("autograd/function", TEST(three_orders_on_the_tape), TEST(transforms_nest),
      TEST(vmap_is_generated_from_the_others), TEST(what_is_missing_is_named),
      TEST(several_results), TEST(a_saved_value_that_was_written_is_found),
      TEST(writing_in_place_moves_the_history), TEST(a_hook_from_before_a_write_can_be_removed),
      TEST(a_result_may_be_the_input), TEST(second_derivatives_are_right_or_raise),
      TEST(what_callbacks_return_is_checked), TEST(misuse_is_an_error),
      TEST(every_allocation_may_fail))
