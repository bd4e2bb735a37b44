/* Levels: nested grad, jvp and vmap, alone and in each other, and what they refuse. */
#include "support.h"

enum { MAX = 4 };

/* ---- functions under test: out[0] from in[] ----- */

static sp_status cube_sum(void *ctx, const sp_tensor *const *in, int n_in, sp_tensor **out,
                          int max_out, int *n_out)
{
    (void)ctx, (void)n_in, (void)max_out;
    sp_tensor *y = NULL, *z = NULL;
    sp_status status = SP_OK;
    *n_out = 1;
    SP_TRY(sp_mul(in[0], in[0], &y));
    SP_TRY(sp_mul(y, in[0], &z));
    SP_TRY(sp_sum(z, NULL, &out[0]));
out:
    DROP(&y, &z);
    return status;
}

/* The gradient of ctx's function with respect to its first argument, as a function. */
typedef struct fn_of {
    sp_fn fn;
    void *ctx;
} fn_of;

static sp_status grad_of_fn(void *ctx, const sp_tensor *const *in, int n_in, sp_tensor **out,
                            int max_out, int *n_out)
{
    (void)max_out;
    const fn_of *f = ctx;
    *n_out = 1;
    return sp_grad_fn(f->fn, f->ctx, in, n_in, 1, out, NULL);
}

static sp_status vmap_of_fn(void *ctx, const sp_tensor *const *in, int n_in, sp_tensor **out,
                            int max_out, int *n_out)
{
    const fn_of *f = ctx;
    static const int dims[MAX] = {0, 0, 0, 0};
    return sp_vmap(f->fn, f->ctx, in, dims, n_in, out, max_out, n_out);
}

/* The tangent along ones, as a function. */
static sp_status jvp_of_fn(void *ctx, const sp_tensor *const *in, int n_in, sp_tensor **out,
                           int max_out, int *n_out)
{
    (void)max_out;
    const fn_of *f = ctx;
    sp_tensor *ones = NULL, *values[MAX], *tangents[MAX];
    const sp_tensor *along[MAX] = {NULL};
    sp_status status = SP_OK;
    int n;
    SP_TRY(
        sp_full(sp_shape(in[0]), sp_rank(in[0]), SP_FLOAT(1),
                &(sp_full_opt){.size = sizeof(sp_full_opt), .has_dtype = true, .dtype = SP_FLOAT64},
                &ones));
    along[0] = ones;
    SP_TRY(sp_jvp(f->fn, f->ctx, in, along, n_in, values, tangents, MAX, &n));
    out[0] = tangents[0];
    DROP(&values[0]);
    *n_out = 1;
out:
    DROP(&ones);
    return status;
}

static sp_status summed(void *ctx, const sp_tensor *const *in, int n_in, sp_tensor **out,
                        int max_out, int *n_out)
{
    const fn_of *f = ctx;
    sp_tensor *y[MAX] = {NULL};
    (void)max_out;
    SP_RETURN_IF(f->fn(f->ctx, in, n_in, y, MAX, n_out));
    sp_status status = sp_sum(y[0], NULL, &out[0]);
    DROP(&y[0]);
    return status;
}

static sp_tensor *call(sp_fn fn, void *ctx, const sp_tensor *x)
{
    sp_tensor *out[MAX] = {NULL};
    int n = 0;
    OK(fn(ctx, &x, 1, out, MAX, &n));
    CU_ASSERT_EQUAL(n, 1);
    return out[0];
}

/* ---- grad ----- */

static void grad_at_three_orders(void)
{
    int64_t before = live_blocks();
    sp_tensor *x = VECTOR(2), *d1, *d2, *d3;
    fn_of f = {cube_sum, NULL}, g = {grad_of_fn, &f}, gs = {summed, &g}, h = {grad_of_fn, &gs},
          hs = {summed, &h};
    d1 = call(grad_of_fn, &f, x);
    d2 = call(grad_of_fn, &gs, x);
    d3 = call(grad_of_fn, &hs, x);
    VALUES(d1, 12);
    VALUES(d2, 12);
    VALUES(d3, 6);
    DROP(&x, &d1, &d2, &d3);
    CU_ASSERT_EQUAL(live_blocks(), before);
}

/* y -> x + y, for the x in ctx */
static sp_status plus_outer(void *ctx, const sp_tensor *const *in, int n_in, sp_tensor **out,
                            int max_out, int *n_out)
{
    (void)n_in, (void)max_out;
    *n_out = 1;
    return sp_add(ctx, in[0], &out[0]);
}

/* x -> x * d/dy (x + y) at y = 1 */
static sp_status confusing(void *ctx, const sp_tensor *const *in, int n_in, sp_tensor **out,
                           int max_out, int *n_out)
{
    (void)n_in, (void)max_out;
    sp_tensor *one = number(1), *inner[MAX] = {NULL};
    const sp_tensor *at = one;
    fn_of f = {plus_outer, (void *)in[0]};
    sp_status status = SP_OK;
    *n_out = 1;
    SP_TRY(((sp_fn)(*(sp_fn *)ctx))(&f, &at, 1, inner, MAX, n_out));
    SP_TRY(sp_mul(in[0], inner[0], &out[0]));
out:
    DROP(&one, &inner[0]);
    return status;
}

static void perturbations_are_not_confused(void)
{
    sp_fn by_grad = grad_of_fn, by_jvp = jvp_of_fn;
    sp_tensor *x = number(3);
    fn_of reverse = {confusing, &by_grad}, forward = {confusing, &by_jvp};
    sp_tensor *results[] = {call(grad_of_fn, &reverse, x), call(jvp_of_fn, &reverse, x),
                            call(grad_of_fn, &forward, x), call(jvp_of_fn, &forward, x)};
    for (int i = 0; i < 4; i++) {
        VALUES(results[i], 1);
        DROP(&results[i]);
    }
    DROP(&x);
}

static void outer_tape_sees_through_grad(void)
{
    sp_tensor *x = leaf(VECTOR(2, 3)), *g, *s;
    fn_of f = {cube_sum, NULL};
    g = call(grad_of_fn, &f, x);
    CU_ASSERT(sp_requires_grad(g));
    s = sum_of(g);
    OK(sp_backward(s, NULL));
    GRAD_VALUES(x, 12, 18);
    sp_grad_mode(false);
    sp_tensor *plain = call(grad_of_fn, &f, x);
    sp_grad_mode(true);
    VALUES(plain, 12, 27);
    CU_ASSERT(!sp_requires_grad(plain));
    DROP(&x, &g, &s, &plain);
}

/* x -> sum(x * x) + (under no_grad) sum(x * x * x) */
static sp_status partly_no_grad(void *ctx, const sp_tensor *const *in, int n_in, sp_tensor **out,
                                int max_out, int *n_out)
{
    sp_tensor *cubes = NULL, *y = NULL, *s = NULL;
    sp_status status = SP_OK;
    bool was = sp_grad_mode(false);
    status = cube_sum(ctx, in, n_in, &cubes, max_out, n_out);
    sp_grad_mode(was);
    SP_TRY(status);
    SP_TRY(sp_mul(in[0], in[0], &y));
    SP_TRY(sp_sum(y, NULL, &s));
    SP_TRY(sp_add(s, cubes, &out[0]));
out:
    DROP(&cubes, &y, &s);
    return status;
}

static void inner_no_grad_does_not_hide_the_outer_derivative(void)
{
    sp_tensor *x = leaf(VECTOR(2)), *value, *g;
    OK(sp_grad_fn(partly_no_grad, NULL, (const sp_tensor *[]){x}, 1, 1, &g, &value));
    VALUES(g, 4); /* the cubes are constants inside ... */
    OK(sp_backward(value, NULL));
    GRAD_VALUES(x, 16); /* ... but not outside */
    DROP(&x, &g, &value);
}

/* ---- jvp ----- */

static void jvp_and_hessian_vector(void)
{
    sp_tensor *x = VECTOR(2, 3), *t, *hv;
    fn_of f = {cube_sum, NULL}, g = {grad_of_fn, &f}, j = {jvp_of_fn, &f};
    t = call(jvp_of_fn, &f, x);
    VALUES(t, 12 + 27);
    DROP(&t);
    hv = call(jvp_of_fn, &g, x); /* forward over reverse */
    VALUES(hv, 12, 18);
    DROP(&hv);
    hv = call(grad_of_fn, &j, x); /* reverse over forward */
    VALUES(hv, 12, 18);
    DROP(&hv);
    fn_of jj = {jvp_of_fn, &f};
    t = call(jvp_of_fn, &jj, x);
    VALUES(t, 12 + 18);
    DROP(&x, &t);
}

/* x -> y with y[0] = x[0]^2, y[1] = 3 x[1], y[2] = 0, written in place into a fresh tensor and
 * through views */
static sp_status written_in_place(void *ctx, const sp_tensor *const *in, int n_in, sp_tensor **out,
                                  int max_out, int *n_out)
{
    (void)ctx, (void)n_in, (void)max_out;
    sp_tensor *y = NULL, *v = NULL, *w = NULL, *whole = NULL;
    sp_status status = SP_OK;
    *n_out = 1;
    SP_TRY(sp_mul_scalar(in[0], SP_FLOAT(1), &y));
    SP_TRY(sp_alias(y, &whole));
    SP_TRY(sp_select(y, 0, 0, &v));
    SP_TRY(sp_mul_(v, v));
    SP_TRY(sp_slice(whole, 0, 1, 3, NULL, &w));
    SP_TRY(sp_mul_scalar_(w, SP_FLOAT(3)));
    DROP(&v);
    SP_TRY(sp_select(w, 0, 1, &v));
    SP_TRY(sp_fill_scalar_(v, SP_FLOAT(0)));
    SP_TRY(sp_mul_scalar(whole, SP_FLOAT(1), &out[0]));
out:
    DROP(&y, &v, &w, &whole);
    return status;
}

static void writing_in_place_inside(void)
{
    sp_tensor *x = VECTOR(2, 3, 4), *r;
    fn_of f = {written_in_place, NULL}, s = {summed, &f};
    r = call(written_in_place, NULL, x);
    VALUES(r, 4, 9, 0);
    DROP(&r);
    r = call(jvp_of_fn, &f, x);
    VALUES(r, 4, 3, 0);
    DROP(&r);
    r = call(grad_of_fn, &s, x);
    VALUES(r, 4, 3, 0);
    DROP(&r, &x);
    double rows[] = {2, 3, 4, 5, 6, 7};
    x = tensor(SHAPE(2, 3), rows);
    fn_of g = {grad_of_fn, &s}, j = {jvp_of_fn, &f};
    r = call(vmap_of_fn, &f, x);
    VALUES(r, 4, 9, 0, 25, 18, 0);
    DROP(&r);
    r = call(vmap_of_fn, &g, x);
    VALUES(r, 4, 3, 0, 10, 3, 0);
    DROP(&r);
    r = call(vmap_of_fn, &j, x);
    VALUES(r, 4, 3, 0, 10, 3, 0);
    DROP(&r, &x);
}

static sp_status write_outside(void *ctx, const sp_tensor *const *in, int n_in, sp_tensor **out,
                               int max_out, int *n_out)
{
    (void)n_in, (void)max_out;
    *n_out = 1;
    SP_RETURN_IF(sp_copy_(ctx, in[0]));
    return sp_sum(in[0], NULL, &out[0]);
}

static void writing_outside_is_refused(void)
{
    sp_tensor *x = VECTOR(1, 2), *captured = VECTOR(0, 0), *out[MAX] = {NULL},
              *tangents[MAX] = {NULL}, *zero = number(0);
    int n, dims = 0;
    const sp_tensor *in[] = {x};
    FAILS(sp_grad_fn(write_outside, captured, in, 1, 1, out, NULL), SP_EGRAD, "outside of grad()");
    FAILS(sp_jvp(write_outside, captured, in, in, 1, out, tangents, MAX, &n), SP_EGRAD,
          "outside of jvp()");
    FAILS(sp_vmap(write_outside, zero, in, &dims, 1, out, MAX, &n), SP_EVALUE,
          "all examples share");
    CU_ASSERT_PTR_NULL(out[0]);
    DROP(&x, &captured, &zero);
}

/* ---- vmap ----- */

static void grad_of_vmap_of_grad(void)
{
    double rows[] = {1, 2, 3, 4, 5, 6};
    sp_tensor *x = tensor(SHAPE(3, 2), rows), *r;
    fn_of f = {cube_sum, NULL}, g = {grad_of_fn, &f}, v = {vmap_of_fn, &g}, s = {summed, &v};
    r = call(vmap_of_fn, &g, x);
    VALUES(r, 3, 12, 27, 48, 75, 108);
    DROP(&r);
    r = call(grad_of_fn, &s, x);
    VALUES(r, 6, 12, 18, 24, 30, 36);
    DROP(&r);
    fn_of outer = {grad_of_fn, &s};
    r = call(jvp_of_fn, &outer, x);
    VALUES(r, 6, 6, 6, 6, 6, 6);
    DROP(&x, &r);
}

static void batched_backward_below_levels(void)
{
    /* the rows of a Jacobian: vmap over the gradient that a recorded graph is run with */
    double eye[] = {1, 0, 0, 1};
    sp_tensor *x = leaf(VECTOR(2, 3)), *y, *rows = tensor(SHAPE(2, 2), eye), *seed, *g, *jacobian;
    sp_level *level;
    OK(sp_mul(x, x, &y));
    OK(sp__level_push_vmap(2, SP_RANDOM_ERROR, &level));
    OK(sp__vmap_wrap(level, rows, 0, &seed));
    OK(sp_grad(
        (const sp_tensor *[]){y}, 1, (const sp_tensor *[]){x}, 1,
        &(sp_grad_opt){.size = sizeof(sp_grad_opt), .grad_outputs = (const sp_tensor *[]){seed}},
        &g));
    OK(sp__vmap_unwrap(level, g, 0, &jacobian));
    sp__level_pop(level);
    VALUES(jacobian, 4, 0, 0, 6);
    DROP(&x, &y, &rows, &seed, &g, &jacobian);
}

typedef struct two { /* an op of two tensors, one of them mapped */
    sp_status (*op)(const sp_tensor *a, const sp_tensor *b, sp_tensor **out);
} two;

static sp_status call_two(void *ctx, const sp_tensor *const *in, int n_in, sp_tensor **out,
                          int max_out, int *n_out)
{
    (void)n_in, (void)max_out;
    *n_out = 1;
    return ((two *)ctx)->op(in[0], in[1], &out[0]);
}

static sp_status take(const sp_tensor *x, const sp_tensor *index, sp_tensor **out)
{
    return sp_index_select(x, 0, index, out);
}

static sp_status put_twice(const sp_tensor *x, const sp_tensor *index, sp_tensor **out)
{
    sp_tensor *part = NULL;
    SP_RETURN_IF(sp_index_select(x, 0, index, &part));
    sp_status status = sp_index_add(x, 0, index, part, out);
    DROP(&part);
    return status;
}

static sp_status loss_mean(const sp_tensor *x, const sp_tensor *target, sp_tensor **out)
{
    sp_tensor *scores = NULL;
    SP_RETURN_IF(sp_log_softmax(x, -1, &scores));
    sp_status status = sp_nll_loss(scores, target, NULL, out);
    DROP(&scores);
    return status;
}

/* vmap(op) is op in a loop, whatever is mapped. */
static void against_a_loop(two *op, const sp_tensor *a, const sp_tensor *b, int da, int db)
{
    const sp_tensor *in[] = {a, b};
    const int dims[] = {da, db};
    sp_tensor *out[MAX];
    int n;
    OK(sp_vmap(call_two, op, in, dims, 2, out, MAX, &n));
    int64_t size = da >= 0 ? sp_shape(a)[da] : sp_shape(b)[db];
    for (int64_t k = 0; k < size; k++) {
        sp_tensor *ak = NULL, *bk = NULL, *want = NULL, *got = NULL;
        double values[64];
        if (da >= 0) OK(sp_select(a, da, k, &ak));
        if (db >= 0) OK(sp_select(b, db, k, &bk));
        OK(op->op(ak ? ak : a, bk ? bk : b, &want));
        OK(sp_select(out[0], 0, k, &got));
        CU_ASSERT_EQUAL(sp_rank(got), sp_rank(want));
        OK(sp_copy_out(want, values, sizeof(double) * (size_t)sp_numel(want)));
        check_values(got, values, (int)sp_numel(want), __LINE__);
        DROP(&ak, &bk, &want, &got);
    }
    DROP(&out[0]);
}

static sp_tensor *ramp(const int64_t *shape, int rank)
{
    double values[64];
    for (int i = 0; i < 64; i++) values[i] = 0.1 * (i * 7 % 23) - 0.9;
    return tensor(shape, rank, values);
}

static sp_tensor *indices(const int64_t *shape, int rank, int64_t below)
{
    int64_t values[16];
    sp_tensor *t = NULL;
    for (int i = 0; i < 16; i++) values[i] = i * 5 % below;
    OK(sp_from_data(values, SP_INT64, rank, shape, &t));
    return t;
}

static void rules_against_loops(void)
{
    two mul = {sp_mul}, matmul = {sp_matmul}, select = {take}, add_at = {put_twice},
        loss = {loss_mean};
    int64_t fallbacks = sp__vmap_fallbacks();
    sp_tensor *v = ramp(SHAPE(3)), *m = ramp(SHAPE(3, 3)), *bm = ramp(SHAPE(2, 3, 3)),
              *im = indices(SHAPE(3, 3), 3), *iv = indices(SHAPE(3), 3),
              *im2 = indices(SHAPE(3, 2), 2), *it = indices(SHAPE(3, 2), 3);
    against_a_loop(&mul, m, m, 0, 1);
    against_a_loop(&mul, v, bm, 0, 2);
    against_a_loop(&mul, m, v, -1, 0);
    against_a_loop(&matmul, m, m, 0, 1);   /* vector @ vector */
    against_a_loop(&matmul, m, m, -1, 0);  /* matrix @ vector */
    against_a_loop(&matmul, m, m, 1, -1);  /* vector @ matrix */
    against_a_loop(&matmul, bm, m, 0, -1); /* matrix @ matrix */
    against_a_loop(&matmul, bm, bm, 2, -1);
    against_a_loop(&matmul, m, bm, -1, 0);
    against_a_loop(&matmul, m, bm, 0, -1);
    against_a_loop(&select, m, iv, 1, -1);
    against_a_loop(&select, m, im, -1, 0);
    against_a_loop(&select, bm, im2, 2, 0);
    against_a_loop(&add_at, m, iv, 1, -1);
    against_a_loop(&add_at, m, im, 0, 0);
    against_a_loop(&loss, bm, it, 1, 0);
    against_a_loop(&loss, m, iv, 0, 0);
    against_a_loop(&loss, bm, iv, 0, -1);
    CU_ASSERT_EQUAL(sp__vmap_fallbacks(), fallbacks);
    DROP(&v, &m, &bm, &im, &iv, &im2, &it);
}

static void loops_do_without_rules(void)
{
    double rows[] = {2, 3, 4, 5, 6, 7};
    sp_tensor *x = tensor(SHAPE(2, 3), rows), *v = ramp(SHAPE(3)), *bm = ramp(SHAPE(2, 3, 3)), *r;
    two mul = {sp_mul}, matmul = {sp_matmul};
    fn_of f = {written_in_place, NULL}, s = {summed, &f}, g = {grad_of_fn, &s}, j = {jvp_of_fn, &f};
    fn_of m = {vmap_of_fn, &f}, t = {summed, &m};
    int64_t fallbacks = sp__vmap_fallbacks();
    sp__vmap_warn(false);
    sp__vmap_loop_always(true);
    against_a_loop(&mul, x, v, 0, -1);
    against_a_loop(&matmul, bm, v, 1, -1);
    r = call(vmap_of_fn, &g, x);
    VALUES(r, 4, 3, 0, 10, 3, 0);
    DROP(&r);
    r = call(vmap_of_fn, &j, x);
    VALUES(r, 4, 3, 0, 10, 3, 0);
    DROP(&r);
    r = call(grad_of_fn, &t, x);
    VALUES(r, 4, 3, 0, 10, 3, 0);
    sp__vmap_loop_always(false);
    sp__vmap_warn(true);
    CHECK(sp__vmap_fallbacks() > fallbacks);
    DROP(&x, &v, &bm, &r);
}

static sp_status draw(void *ctx, const sp_tensor *const *in, int n_in, sp_tensor **out, int max_out,
                      int *n_out)
{
    (void)ctx, (void)n_in, (void)max_out;
    *n_out = 1;
    sp_tensor *r = NULL;
    SP_RETURN_IF(sp_rand(
        SHAPE(2),
        &(sp_rand_opt){.size = sizeof(sp_rand_opt), .has_dtype = true, .dtype = SP_FLOAT64}, &r));
    sp_status status = sp_add(in[0], r, &out[0]);
    DROP(&r);
    return status;
}

static void random_numbers(void)
{
    sp_tensor *x = VECTOR(0, 0, 0), *out[MAX], *in, *drawn[MAX];
    int n, dims = 0;
    FAILS(sp_vmap(draw, NULL, (const sp_tensor *[]){x}, &dims, 1, out, MAX, &n), SP_EUNSUPPORTED,
          "randomness=");
    for (int mode = SP_RANDOM_DIFFERENT; mode <= SP_RANDOM_SAME; mode++) {
        sp_level *level;
        double values[6];
        OK(sp__level_push_vmap(3, (sp_randomness)mode, &level));
        OK(sp__vmap_wrap(level, x, 0, &in));
        OK(draw(NULL, (const sp_tensor *[]){in}, 1, drawn, MAX, &n));
        OK(sp__vmap_unwrap(level, drawn[0], 0, &out[0]));
        sp__level_pop(level);
        OK(sp_copy_out(out[0], values, sizeof values));
        CU_ASSERT((values[0] == values[2] && values[1] == values[3]) == (mode == SP_RANDOM_SAME));
        DROP(&in, &drawn[0], &out[0]);
    }
    DROP(&x);
}

static sp_status read_value(void *ctx, const sp_tensor *const *in, int n_in, sp_tensor **out,
                            int max_out, int *n_out)
{
    (void)ctx, (void)n_in, (void)max_out, (void)out, (void)n_out;
    sp_scalar value;
    return sp_item(in[0], &value);
}

static void reading_a_value_is_refused(void)
{
    sp_tensor *x = VECTOR(1, 2), *out[MAX];
    int n, dims = 0;
    FAILS(sp_vmap(read_value, NULL, (const sp_tensor *[]){x}, &dims, 1, out, MAX, &n),
          SP_EUNSUPPORTED, "vmap");
    DROP(&x);
}

static sp_status keep_argument(void *ctx, const sp_tensor *const *in, int n_in, sp_tensor **out,
                               int max_out, int *n_out)
{
    (void)n_in, (void)max_out;
    *(sp_tensor **)ctx = sp_retain(in[0]);
    *n_out = 1;
    return sp_sum(in[0], NULL, &out[0]);
}

static void escaped_tensors_are_refused(void)
{
    sp_tensor *x = VECTOR(1, 2), *g = NULL, *kept = NULL, *y = NULL, *out[MAX], *tangents[MAX];
    int n;
    OK(sp_grad_fn(keep_argument, &kept, (const sp_tensor *[]){x}, 1, 1, &g, NULL));
    FAILS(sp_mul(kept, kept, &y), SP_EGRAD, "inside grad, which has ended");
    FAILS(sp_jvp(cube_sum, NULL, (const sp_tensor *[]){kept}, NULL, 1, out, tangents, MAX, &n),
          SP_EGRAD, "has ended");
    FAILS(sp__check_alive(kept, "mul"), SP_EGRAD, "inside grad");
    DROP(&x, &g, &kept, &y);
}

static void arguments_are_checked(void)
{
    sp_tensor *x = VECTOR(1, 2), *y = VECTOR(1, 2, 3), *out[MAX], *tangents[MAX];
    const sp_tensor *in[] = {x, y};
    int n, dims[] = {0, 0}, none[] = {-1, -1}, far[] = {1, -1};
    two mul = {sp_mul};
    FAILS(sp_vmap(call_two, &mul, in, dims, 2, out, MAX, &n), SP_ESHAPE, "agree");
    FAILS(sp_vmap(call_two, &mul, in, none, 2, out, MAX, &n), SP_EVALUE, "mapped");
    FAILS(sp_vmap(call_two, &mul, in, far, 2, out, MAX, &n), SP_EINDEX, "dimension 1");
    FAILS(sp_jvp(cube_sum, NULL, in, (const sp_tensor *[]){y}, 1, out, tangents, MAX, &n),
          SP_ESHAPE, "tangent");
    fn_of f = {call_two, &mul};
    sp_fn fn = f.fn;
    FAILS(sp_grad_fn(fn, &mul, (const sp_tensor *[]){x, x}, 2, 1, out, NULL), SP_ESHAPE,
          "one element");
    DROP(&x, &y);
}

static sp_status everything(const sp_tensor *x)
{
    sp_tensor *out[MAX] = {NULL};
    int n;
    fn_of f = {written_in_place, NULL}, s = {summed, &f}, g = {grad_of_fn, &s},
          v = {vmap_of_fn, &g}, j = {jvp_of_fn, &v};
    sp_status status = j.fn(j.ctx, &x, 1, out, MAX, &n);
    if (status == SP_OK) DROP(&out[0]);
    return status;
}

static void every_allocation_may_fail(void)
{
    double rows[] = {2, 3, 4, 5, 6, 7};
    sp_tensor *x = tensor(SHAPE(2, 3), rows);
    OK(everything(x));
    int64_t before = live_blocks();
    for (int64_t n = 1;; n++) {
        sp_memory_fail_nth(n, false);
        sp_status status = everything(x);
        bool over = sp_memory_requests() < n;
        sp_memory_fail_nth(0, false);
        CU_ASSERT((status == SP_OK) == over);
        CU_ASSERT_EQUAL(live_blocks(), before);
        if (over || live_blocks() != before) break;
    }
    DROP(&x);
}

SUITE("autograd/transform", TEST(grad_at_three_orders), TEST(perturbations_are_not_confused),
      TEST(outer_tape_sees_through_grad), TEST(inner_no_grad_does_not_hide_the_outer_derivative),
      TEST(jvp_and_hessian_vector), TEST(writing_in_place_inside), TEST(writing_outside_is_refused),
      TEST(grad_of_vmap_of_grad), TEST(batched_backward_below_levels), TEST(rules_against_loops),
      TEST(loops_do_without_rules), TEST(random_numbers), TEST(reading_a_value_is_refused),
      TEST(escaped_tensors_are_refused), TEST(arguments_are_checked),
      TEST(every_allocation_may_fail))
