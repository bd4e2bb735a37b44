/* The tape and its engine: gradients, accumulation, chosen inputs, higher orders, hooks, errors,
 * size. */
#include "support.h"

/* ---- gradients ----- */

static void gradient_of_a_product(void)
{
    int64_t before = live_blocks();
    sp_tensor *x = leaf(VECTOR(1, 2, 3)), *b = VECTOR(4, 5, 6), *y, *s;
    OK(sp_mul(x, b, &y));
    s = sum_of(y);
    CU_ASSERT(sp_requires_grad(s) && !sp_is_leaf(s) && sp_is_leaf(x));
    OK(sp_backward(s, NULL));
    GRAD_VALUES(x, 4, 5, 6);
    CU_ASSERT_PTR_NULL(grad_of(b));
    DROP(&x, &b, &y, &s);
    CU_ASSERT_EQUAL(live_blocks(), before);
}

static void gradients_accumulate_in_place(void)
{
    sp_tensor *x = leaf(VECTOR(1, 2)), *first = NULL;
    for (int i = 0; i < 3; i++) {
        sp_tensor *y, *s;
        OK(sp_mul(x, x, &y));
        s = sum_of(y);
        OK(sp_backward(s, NULL));
        sp_tensor *g = grad_of(x);
        if (first) CU_ASSERT_PTR_EQUAL(g, first);
        first = g;
        DROP(&g, &y, &s);
    }
    GRAD_VALUES(x, 6, 12);
    DROP(&x);
}

static void shared_gradients_are_not_shared(void)
{
    sp_tensor *x = leaf(VECTOR(1, 2)), *y = leaf(VECTOR(3, 4)), *z, *s;
    OK(sp_add(x, y, &z));
    s = sum_of(z);
    OK(sp_backward(s, NULL));
    sp_tensor *gx = grad_of(x);
    OK(sp_fill_scalar_(gx, SP_FLOAT(7)));
    GRAD_VALUES(y, 1, 1);
    DROP(&x, &y, &z, &s, &gx);
}

static void broadcast_and_diamond(void)
{
    sp_tensor *x = leaf(number(2)), *b = VECTOR(1, 2, 3), *u, *v, *w, *s;
    OK(sp_mul(x, b, &u));
    OK(sp_exp(x, &v));
    OK(sp_mul(u, v, &w));
    s = sum_of(w);
    OK(sp_backward(s, NULL)); /* d/dx 6 x e^x = 6 e^x (1 + x) */
    GRAD_VALUES(x, 18 * exp(2));
    DROP(&x, &b, &u, &v, &w, &s);
}

static void given_gradient(void)
{
    sp_tensor *x = leaf(VECTOR(1, 2)), *y, *g = VECTOR(10, 100);
    OK(sp_mul(x, x, &y));
    OK(sp_backward(y, &(sp_backward_opt){.size = sizeof(sp_backward_opt), .gradient = g}));
    GRAD_VALUES(x, 20, 400);
    DROP(&x, &y, &g);
}

static void no_grad_records_nothing(void)
{
    sp_tensor *x = leaf(VECTOR(1, 2)), *y;
    CU_ASSERT(sp_grad_mode(false));
    OK(sp_mul(x, x, &y));
    CU_ASSERT(!sp_grad_mode(true));
    CU_ASSERT(!sp_requires_grad(y));
    DROP(&y);
    OK(sp_detach(x, &y));
    CU_ASSERT(!sp_requires_grad(y));
    DROP(&x, &y);
}

static void names(void)
{
    char buf[SP_GRAD_FN_TEXT];
    sp_tensor *x = leaf(VECTOR(1, 2)), *y, *z;
    OK(sp_mul_scalar(x, SP_FLOAT(2), &y));
    OK(sp_log_softmax(y, 0, &z));
    CU_ASSERT_STRING_EQUAL(sp__grad_fn_name(y, buf, sizeof buf), "MulBackward");
    CU_ASSERT_STRING_EQUAL(sp__grad_fn_name(z, buf, sizeof buf), "LogSoftmaxBackward");
    CU_ASSERT_STRING_EQUAL(sp__grad_fn_name(x, buf, sizeof buf), "");
    sp_node *node;
    int nr;
    OK(sp__grad_fn(y, &node));
    CU_ASSERT_PTR_EQUAL(sp__node_variable(sp__node_edge(node, 0, &nr)), x);
    DROP(&x, &y, &z);
}

/* ---- chosen inputs, higher orders ----- */

static void grad_of_inner_tensors(void)
{
    sp_tensor *x = leaf(VECTOR(1, 2)), *y, *z, *s, *g[2];
    OK(sp_mul(x, x, &y));
    OK(sp_mul(y, y, &z));
    s = sum_of(z);
    const sp_tensor *inputs[] = {y, x};
    OK(sp_grad((const sp_tensor *[]){s}, 1, inputs, 2, NULL, g));
    VALUES(g[0], 2, 8);
    VALUES(g[1], 4, 32);
    CU_ASSERT_PTR_NULL(grad_of(x));
    DROP(&x, &y, &z, &s, &g[0], &g[1]);
}

static void unused_inputs(void)
{
    sp_tensor *x = leaf(VECTOR(1, 2)), *other = leaf(VECTOR(1, 2, 3)), *plain = VECTOR(1), *s,
              *g[2];
    s = sum_of(x);
    const sp_tensor *inputs[] = {x, other};
    sp_grad_opt opt = {.size = sizeof opt, .retain_graph = true};
    FAILS(sp_grad((const sp_tensor *[]){s}, 1, inputs, 2, &opt, g), SP_EGRAD, "input 1");
    opt.allow_unused = true;
    OK(sp_grad((const sp_tensor *[]){s}, 1, inputs, 2, &opt, g));
    CU_ASSERT_PTR_NULL(g[1]);
    DROP(&g[0]);
    opt.materialize_grads = true;
    OK(sp_grad((const sp_tensor *[]){s}, 1, inputs, 2, &opt, g));
    VALUES(g[1], 0, 0, 0);
    DROP(&g[0], &g[1]);
    FAILS(sp_grad((const sp_tensor *[]){s}, 1, (const sp_tensor *[]){plain}, 1, NULL, g), SP_EGRAD,
          "does not require grad");
    DROP(&x, &other, &plain, &s);
}

static sp_tensor *derivative(const sp_tensor *y, const sp_tensor *x, bool create)
{
    sp_tensor *g = NULL, *s = sum_of(y);
    sp_grad_opt opt = {.size = sizeof opt, .create_graph = create};
    OK(sp_grad((const sp_tensor *[]){s}, 1, (const sp_tensor *[]){x}, 1, &opt, &g));
    DROP(&s);
    return g;
}

static void third_derivative(void)
{
    int64_t before = live_blocks();
    sp_tensor *x = leaf(VECTOR(2, 3)), *y, *z;
    OK(sp_mul(x, x, &y));
    OK(sp_mul(y, y, &z)); /* x^4 */
    sp_tensor *g1 = derivative(z, x, true), *g2 = derivative(g1, x, true),
              *g3 = derivative(g2, x, false);
    VALUES(g1, 32, 108);
    VALUES(g2, 48, 108);
    VALUES(g3, 48, 72);
    DROP(&x, &y, &z, &g1, &g2, &g3);
    CU_ASSERT_EQUAL(live_blocks(), before);
}

static void saved_output_has_its_history(void)
{
    sp_tensor *x = leaf(VECTOR(0.5, 1)), *y;
    OK(sp_tanh(x, &y));
    sp_tensor *g1 = derivative(y, x, true), *g2 = derivative(g1, x, false);
    double t0 = tanh(0.5), t1 = tanh(1);
    VALUES(g1, 1 - t0 * t0, 1 - t1 * t1);
    VALUES(g2, -2 * t0 * (1 - t0 * t0), -2 * t1 * (1 - t1 * t1));
    DROP(&x, &y, &g1, &g2);
}

/* ---- errors ----- */

static void errors(void)
{
    sp_tensor *x = leaf(VECTOR(1, 2)), *plain = VECTOR(1, 2), *y, *s, *wrong = VECTOR(1, 2, 3),
              *ints;
    OK(sp_mul(x, x, &y));
    s = sum_of(y);
    FAILS(sp_backward(y, NULL), SP_EGRAD, "one element");
    FAILS(sp_backward(y, &(sp_backward_opt){.size = sizeof(sp_backward_opt), .gradient = wrong}),
          SP_ESHAPE, "(3,)");
    FAILS(sp_backward(plain, NULL), SP_EGRAD, "does not require grad");
    OK(sp_backward(s, &(sp_backward_opt){.size = sizeof(sp_backward_opt), .retain_graph = true}));
    OK(sp_backward(s, NULL));
    GRAD_VALUES(x, 4, 8);
    FAILS(sp_backward(s, NULL), SP_EGRAD, "retain_graph=True");
    OK(sp_cast(plain, SP_INT64, &ints));
    FAILS(sp_set_requires_grad(ints, true), SP_EDTYPE, "int64");
    FAILS(sp_set_requires_grad(y, false), SP_EGRAD, "detach()");
    FAILS(sp_grad_set(x, wrong), SP_ESHAPE, "(3,)");
    DROP(&x, &plain, &y, &s, &wrong, &ints);
}

/* ---- hooks ----- */

typedef struct hook_log {
    int calls, drops, at[8];
    double scale;
    bool fail;
} hook_log;

static int hook_clock;

static sp_status log_hook(void *ctx, const sp_tensor *grad, sp_tensor **replacement)
{
    hook_log *log = ctx;
    log->at[log->calls++] = ++hook_clock;
    if (log->fail) return sp_fail(SP_ECALLBACK, "the hook failed");
    return log->scale != 0 ? sp_mul_scalar(grad, SP_FLOAT(log->scale), replacement) : SP_OK;
}

static void log_drop(void *ctx)
{
    ((hook_log *)ctx)->drops++;
}

static void hooks_run_in_order_and_replace(void)
{
    hook_log first = {.scale = 2}, second = {.scale = 5}, inner = {.scale = 0};
    int64_t id;
    sp_tensor *x = leaf(VECTOR(1, 2)), *y, *s;
    OK(sp_mul_scalar(x, SP_FLOAT(3), &y));
    OK(sp_hook_add(y, log_hook, &inner, log_drop, NULL));
    OK(sp_hook_add(x, log_hook, &first, log_drop, &id));
    OK(sp_hook_add(x, log_hook, &second, log_drop, NULL));
    s = sum_of(y);
    OK(sp_backward(s, &(sp_backward_opt){.size = sizeof(sp_backward_opt), .retain_graph = true}));
    GRAD_VALUES(x, 30, 30);
    CU_ASSERT(inner.at[0] < first.at[0] && first.at[0] < second.at[0]);
    sp_hook_remove(x, id);
    CU_ASSERT_EQUAL(first.drops, 1);
    OK(sp_backward(s, NULL));
    GRAD_VALUES(x, 45, 45);
    CU_ASSERT_EQUAL(first.calls, 1);
    DROP(&s, &y);
    CU_ASSERT_EQUAL(inner.drops, 1);
    DROP(&x);
    CU_ASSERT_EQUAL(second.drops, 1);
}

static void hook_that_fails_leaves_the_tape_usable(void)
{
    hook_log bad = {.fail = true};
    int64_t id, before = live_blocks();
    sp_tensor *x = leaf(VECTOR(1, 2)), *y, *s;
    OK(sp_mul(x, x, &y));
    OK(sp_hook_add(y, log_hook, &bad, log_drop, &id));
    s = sum_of(y);
    FAILS(sp_backward(s, &(sp_backward_opt){.size = sizeof(sp_backward_opt), .retain_graph = true}),
          SP_ECALLBACK, "hook failed");
    CU_ASSERT_PTR_NULL(grad_of(x));
    sp_hook_remove(y, id);
    OK(sp_backward(s, NULL));
    GRAD_VALUES(x, 2, 4);
    DROP(&x, &y, &s);
    CU_ASSERT_EQUAL(live_blocks(), before);
}

static sp_status wrong_shape_hook(void *ctx, const sp_tensor *grad, sp_tensor **replacement)
{
    (void)ctx, (void)grad;
    *replacement = VECTOR(1, 2, 3);
    return SP_OK;
}

static void hook_replacement_must_fit(void)
{
    sp_tensor *x = leaf(VECTOR(1, 2)), *s = sum_of(x);
    OK(sp_hook_add(x, wrong_shape_hook, NULL, NULL, NULL));
    FAILS(sp_backward(s, NULL), SP_ESHAPE, "hook");
    DROP(&x, &s);
}

typedef struct self_removing {
    sp_tensor *t;
    int64_t id;
    int calls;
} self_removing;

static sp_status remove_self(void *ctx, const sp_tensor *grad, sp_tensor **replacement)
{
    self_removing *me = ctx;
    (void)grad, (void)replacement;
    me->calls++;
    sp_hook_remove(me->t, me->id);
    return SP_OK;
}

static void hook_removes_itself(void)
{
    sp_tensor *x = leaf(VECTOR(1, 2));
    self_removing me = {.t = x};
    OK(sp_hook_add(x, remove_self, &me, NULL, &me.id));
    for (int i = 0; i < 2; i++) {
        sp_tensor *s = sum_of(x);
        OK(sp_backward(s, NULL));
        DROP(&s);
    }
    CU_ASSERT_EQUAL(me.calls, 1);
    DROP(&x);
}

static sp_status after_hook(void *ctx, const sp_tensor *t, sp_tensor **replacement)
{
    (void)replacement;
    sp_tensor *g = grad_of(t);
    *(bool *)ctx = g != NULL;
    DROP(&g);
    return SP_OK;
}

static void hook_after_accumulation(void)
{
    bool saw_grad = false;
    sp_tensor *x = leaf(VECTOR(1, 2)), *s = sum_of(x);
    OK(sp__hook_add(x, true, after_hook, &saw_grad, NULL, NULL));
    OK(sp_backward(s, NULL));
    CU_ASSERT(saw_grad);
    FAILS(sp__hook_add(s, true, after_hook, &saw_grad, NULL, NULL), SP_EGRAD, "leaves");
    DROP(&x, &s);
}

static void retain_grad(void)
{
    sp_tensor *x = leaf(VECTOR(1, 2)), *y, *z, *s;
    OK(sp_mul(x, x, &y));
    OK(sp__retain_grad(y));
    OK(sp_mul_scalar(y, SP_FLOAT(5), &z));
    OK(sp__retain_grad(z)); /* its handle dies first */
    s = sum_of(z);
    DROP(&z);
    OK(sp_backward(s, NULL));
    GRAD_VALUES(y, 5, 5);
    GRAD_VALUES(x, 10, 20);
    DROP(&x, &y, &s);
}

/* ---- size ----- */

static void a_million_nodes(void)
{
    int64_t before = live_blocks();
    sp_tensor *x = leaf(number(1)), *y = sp_retain(x);
    for (int i = 0; i < 1000000; i++) {
        sp_tensor *next;
        OK(sp_add_scalar(y, SP_FLOAT(1), &next));
        sp_drop(&y);
        y = next;
    }
    OK(sp_backward(y, &(sp_backward_opt){.size = sizeof(sp_backward_opt), .retain_graph = true}));
    GRAD_VALUES(x, 1);
    DROP(&y);
    DROP(&x);
    CU_ASSERT_EQUAL(live_blocks(), before);
}

static void wide_fan_in(void)
{
    sp_tensor *x = leaf(number(1)), *total = number(0);
    for (int i = 0; i < 20000; i++) {
        sp_tensor *term, *next;
        OK(sp_mul_scalar(x, SP_FLOAT(2), &term));
        OK(sp_add(total, term, &next));
        DROP(&term, &total);
        total = next;
    }
    OK(sp_backward(total, NULL));
    GRAD_VALUES(x, 40000);
    DROP(&x, &total);
}

/* A failed allocation anywhere is reported, but for that of a write's note, and nothing is lost or
 * left behind. */
static sp_status whole_program(const sp_tensor *x, const sp_tensor *b)
{
    sp_tensor *y = NULL, *part = NULL, *z = NULL, *s = NULL, *g = NULL, *s2 = NULL, *h = NULL;
    sp_status status = SP_OK;
    SP_TRY(sp_mul(x, b, &y));
    SP_TRY(sp_select(y, 0, 1, &part));
    SP_TRY(sp_sigmoid_(part)); /* saves its result, a part of y */
    SP_TRY(sp_tanh(y, &z));
    SP_TRY(sp_sum(z, NULL, &s));
    SP_TRY(sp_grad((const sp_tensor *[]){s}, 1, (const sp_tensor *[]){x}, 1,
                   &(sp_grad_opt){.size = sizeof(sp_grad_opt), .create_graph = true}, &g));
    SP_TRY(sp_sum(g, NULL, &s2));
    SP_TRY(sp_grad((const sp_tensor *[]){s2}, 1, (const sp_tensor *[]){x}, 1, NULL, &h));
out:
    DROP(&y, &part, &z, &s, &g, &s2, &h);
    return status;
}

static void every_allocation_may_fail(void)
{
    sp_tensor *x = leaf(VECTOR(0.1, 0.2)), *b = VECTOR(2, 3);
    int unnamed = 0;
    OK(whole_program(x, b));
    int64_t before = live_blocks();
    for (int64_t n = 1;; n++) {
        sp_memory_fail_nth(n, false);
        sp_status status = whole_program(x, b);
        bool over = sp_memory_requests() < n;
        sp_memory_fail_nth(0, false);
        unnamed += !over && status == SP_OK;
        CU_ASSERT_EQUAL(live_blocks(), before);
        if (over || live_blocks() != before) {
            CU_ASSERT_EQUAL(status, SP_OK);
            break;
        }
    }
    CU_ASSERT(unnamed <= 1);
    DROP(&x, &b);
}

SUITE("autograd/tape", TEST(gradient_of_a_product), TEST(gradients_accumulate_in_place),
      TEST(shared_gradients_are_not_shared), TEST(broadcast_and_diamond), TEST(given_gradient),
      TEST(no_grad_records_nothing), TEST(names), TEST(grad_of_inner_tensors), TEST(unused_inputs),
      TEST(third_derivative), TEST(saved_output_has_its_history), TEST(errors),
      TEST(hooks_run_in_order_and_replace), TEST(hook_that_fails_leaves_the_tape_usable),
      TEST(hook_replacement_must_fit), TEST(hook_removes_itself), TEST(hook_after_accumulation),
      TEST(retain_grad), TEST(a_million_nodes), TEST(wide_fan_in), TEST(every_allocation_may_fail))
