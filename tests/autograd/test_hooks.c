/* Hooks of nodes, packed values, callbacks at a run's end, chosen inputs; each allocation failing
 * in turn.
 */
#include "tests/autograd/support.h"

#include <string.h>

/* ---- a log of what ran ----- */

static char trail[256];

static void note(const char *what)
{
    strncat(trail, what, sizeof trail - strlen(trail) - 1);
}

static sp_status on_grad(void *ctx, const sp_tensor *grad, sp_tensor **replacement)
{
    (void)grad, (void)replacement;
    note(ctx);
    return SP_OK;
}

static sp_status on_node(void *ctx, const sp_node_grads *g, sp_tensor **replaced, bool *any)
{
    (void)replaced, (void)any;
    CU_ASSERT_EQUAL(g->gx == NULL, *(const char *)ctx == 'b');
    note(ctx);
    return SP_OK;
}

static sp_node *node_of(const sp_tensor *t)
{
    sp_node *node = NULL;
    OK(sp__grad_fn(t, &node));
    return node;
}

static void hooks_run_in_their_order(void)
{
    sp_tensor *x = leaf(VECTOR(1, 2)), *y = NULL, *s = NULL;
    OK(sp_mul(x, x, &y));
    s = sum_of(y);
    int nr;
    sp_node *to_leaf = sp__node_edge(node_of(y), 0, &nr);
    OK(sp__node_hook_add(node_of(y), false, on_node, "after ", NULL, NULL));
    OK(sp__node_hook_add(node_of(y), true, on_node, "before ", NULL, NULL));
    OK(sp__hook_add(y, false, on_grad, "tensor ", NULL, NULL));
    OK(sp__node_hook_add(to_leaf, true, on_node, "before-leaf ", NULL, NULL));
    OK(sp__hook_add(x, true, on_grad, "added ", NULL, NULL));
    OK(sp__hook_add(x, false, on_grad, "leaf ", NULL, NULL));
    trail[0] = 0;
    OK(sp_backward(s, NULL));
    CU_ASSERT_STRING_EQUAL(trail, "tensor before after leaf before-leaf added ");
    GRAD_VALUES(x, 2, 4);
    DROP(&x, &y, &s);
}

/* ---- replacing ----- */

static sp_status scale(void *ctx, const sp_node_grads *g, sp_tensor **replaced, bool *any)
{
    sp_tensor *const *from = g->gx ? g->gx : g->gy;
    int n = g->gx ? g->n_in : g->n_out;
    *any = true;
    for (int i = 0; i < n; i++)
        if (from[i]) SP_RETURN_IF(sp_mul_scalar(from[i], SP_FLOAT(*(double *)ctx), &replaced[i]));
    return SP_OK;
}

static sp_status nothing(void *ctx, const sp_node_grads *g, sp_tensor **replaced, bool *any)
{
    (void)ctx, (void)g, (void)replaced;
    *any = true;
    return SP_OK;
}

static sp_status too_long(void *ctx, const sp_node_grads *g, sp_tensor **replaced, bool *any)
{
    (void)ctx, (void)g;
    *any = true;
    *replaced = VECTOR(1, 2, 3);
    return SP_OK;
}

static void hooks_of_nodes_replace(void)
{
    double two = 2, three = 3;
    sp_tensor *x = leaf(VECTOR(1, 2)), *y = NULL, *s = NULL;
    sp_hook *last = NULL;
    const sp_backward_opt keep = {.size = sizeof keep, .retain_graph = true};
    OK(sp_mul(x, x, &y));
    s = sum_of(y);
    OK(sp__node_hook_add(node_of(y), true, scale, &two, NULL, NULL));
    OK(sp__node_hook_add(node_of(y), false, scale, &three, NULL, NULL));
    OK(sp_backward(s, &keep));
    GRAD_VALUES(x, 12, 24);

    OK(sp__node_hook_add(node_of(y), false, too_long, NULL, NULL, &last));
    FAILS(sp_backward(s, &keep), SP_ESHAPE, "hook: returned a gradient of shape (3,)");
    sp__hook_remove(last);
    sp__hook_let_go(&last);
    OK(sp__node_hook_add(node_of(y), true, too_long, NULL, NULL, &last));
    FAILS(sp_backward(s, &keep), SP_ESHAPE, "hook: returned a gradient of shape (3,)");
    sp__hook_remove(last);
    sp__hook_let_go(&last);

    OK(sp__node_hook_add(node_of(y), true, nothing, NULL, NULL, NULL));
    OK(sp_backward(s, &keep));
    GRAD_VALUES(x, 12, 24);
    DROP(&x, &y, &s);
}

static void a_hold_outlives_its_hook(void)
{
    sp_tensor *x = leaf(VECTOR(1, 2));
    sp_hook *hook = NULL, *other = NULL;
    OK(sp__hook_add(x, false, on_grad, "a ", NULL, &hook));
    OK(sp__hook_add(x, false, on_grad, "b ", NULL, &other));
    sp__hook_remove(hook);
    sp__hook_remove(hook);
    sp_tensor *s = sum_of(x);
    trail[0] = 0;
    OK(sp_backward(s, NULL));
    CU_ASSERT_STRING_EQUAL(trail, "b ");
    DROP(&x, &s);
    sp__hook_remove(other);
    sp__hook_let_go(&hook);
    sp__hook_let_go(&other);
}

/* ---- packed values ----- */

static int packed_live;

static sp_status pack(void *ctx, const sp_tensor *t, void **object)
{
    (void)ctx;
    sp_tensor *copy = NULL;
    SP_RETURN_IF(sp_clone(t, &copy));
    packed_live++;
    *object = copy;
    return SP_OK;
}

static sp_status unpack(void *ctx, void *object, sp_tensor **out)
{
    if (ctx && *(bool *)ctx) return sp_fail(SP_ECALLBACK, "cannot unpack");
    *out = sp_retain(object);
    return SP_OK;
}

static void pack_keep(void *object)
{
    (void)object;
}

/* Objects are tensors, ctx is no object of this test's. */
static bool *pack_ctx;
static void pack_drop(void *object)
{
    if (!object || object == pack_ctx) return;
    sp_tensor *t = object;
    packed_live--;
    sp_drop(&t);
}

static const sp_pack_hooks pack_hooks = {pack, unpack, pack_keep, pack_drop};

/* d2/dx2 of sum(x^3) with everything packed. */
static sp_status packed_program(const sp_tensor *x, sp_tensor **out)
{
    sp_tensor *y = NULL, *z = NULL, *g = NULL, *second = NULL;
    const sp_grad_opt create = {.size = sizeof create, .create_graph = true};
    sp_status status = sp__pack_push(&pack_hooks, pack_ctx);
    if (status != SP_OK) return status;
    SP_TRY(sp_mul(x, x, &y));
    SP_TRY(sp_mul(y, x, &z));
    SP_TRY(sp_sum(z, NULL, &g));
    sp_drop(&z);
    SP_TRY(sp_grad((const sp_tensor *const *)&g, 1, &x, 1, &create, &z));
    sp_drop(&g);
    SP_TRY(sp_sum(z, NULL, &g));
    SP_TRY(sp_grad((const sp_tensor *const *)&g, 1, &x, 1, NULL, &second));
    *out = sp_retain(second);
out:
    sp__pack_pop();
    sp_drop(&y), sp_drop(&z), sp_drop(&g), sp_drop(&second);
    return status;
}

static void packed_values_have_second_derivatives(void)
{
    bool fail = false;
    pack_ctx = &fail;
    sp_tensor *x = leaf(VECTOR(1, 2)), *second = NULL;
    OK(packed_program(x, &second));
    VALUES(second, 6, 12);
    CU_ASSERT_EQUAL(packed_live, 0);
    fail = true;
    FAILS(packed_program(x, &second), SP_ECALLBACK, "cannot unpack");
    CU_ASSERT_EQUAL(packed_live, 0);
    DROP(&x, &second);
}

static void disabled_packing(void)
{
    char *was = NULL, *outer = NULL;
    OK(sp__pack_disable("not here", &was));
    FAILS(sp__pack_push(&pack_hooks, NULL), SP_EGRAD, "not here");
    OK(sp__pack_disable(NULL, &outer));
    OK(sp__pack_push(&pack_hooks, NULL));
    char *never;
    FAILS(sp__pack_disable("late", &never), SP_EGRAD, "such hooks are set");
    sp__pack_pop();
    sp__pack_restore(outer);
    sp__pack_restore(was);
    CU_ASSERT_EQUAL(sp__pack_push(&pack_hooks, NULL), SP_OK);
    sp__pack_pop();
}

/* ---- within a run ----- */

typedef struct asked {
    sp_node *nodes[3];
    bool reached[3];
    uint64_t id;
    int ended;
} asked;

static sp_status at_end(void *ctx)
{
    ((asked *)ctx)->ended++;
    return SP_OK;
}

static sp_status ask(void *ctx, const sp_tensor *grad, sp_tensor **replacement)
{
    (void)grad, (void)replacement;
    asked *a = ctx;
    a->id = sp__backward_id();
    SP_RETURN_IF(sp__backward_reaches(a->nodes, 3, a->reached));
    return sp__backward_at_end(at_end, a, NULL);
}

static void a_hook_asks_what_its_run_will_reach(void)
{
    sp_tensor *x = leaf(VECTOR(1, 2)), *y = NULL, *z = NULL, *other = NULL;
    OK(sp_mul(x, x, &y));
    OK(sp_sin(y, &z));
    OK(sp_cos(y, &other));
    sp_tensor *s = sum_of(z);
    asked a = {.nodes = {node_of(y), node_of(z), node_of(other)}};
    OK(sp__hook_add(z, false, ask, &a, NULL, NULL));
    OK(sp_backward(s, NULL));
    CU_ASSERT(a.reached[0] && a.reached[1] && !a.reached[2]);
    CU_ASSERT(a.id > 0 && a.ended == 1);
    CU_ASSERT_EQUAL(sp__backward_id(), 0);
    FAILS(sp__backward_at_end(at_end, &a, NULL), SP_EGRAD, "no backward");
    DROP(&x, &y, &z, &other, &s);
}

static void chosen_inputs_alone_get_gradients(void)
{
    sp_tensor *x = leaf(VECTOR(1, 2)), *w = leaf(VECTOR(3, 4)), *y = NULL;
    OK(sp_mul(x, w, &y));
    sp_tensor *s = sum_of(y);
    const sp_tensor *inputs[] = {y, w};
    const sp_backward_opt opt = {
        .size = sizeof opt, .retain_graph = true, .inputs = inputs, .n_inputs = 2};
    OK(sp_backward(s, &opt));
    OK(sp_backward(s, &opt));
    GRAD_VALUES(w, 2, 4);
    GRAD_VALUES(y, 2, 2);
    CU_ASSERT_PTR_NULL(grad_of(x));
    DROP(&x, &w, &y, &s);
}

/* ---- anomaly mode ----- */

static void a_nan_is_an_error_in_anomaly_mode(void)
{
    sp_tensor *x = leaf(VECTOR(0, 1)), *root = NULL, *zero = NULL;
    uint8_t was = sp__anomaly_mode(SP_ANOMALY_ON | SP_ANOMALY_NAN);
    OK(sp_sqrt(x, &root));
    OK(sp_mul_scalar(root, SP_FLOAT(0), &zero));
    sp_tensor *s = sum_of(zero);
    const sp_backward_opt keep = {.size = sizeof keep, .retain_graph = true};
    FAILS(sp_backward(s, &keep), SP_EGRAD, "sqrt yields NaN for the gradient of its input 0");
    CU_ASSERT_EQUAL(sp__anomaly_mode(was), SP_ANOMALY_ON | SP_ANOMALY_NAN);
    OK(sp_backward(s, &keep));
    DROP(&x, &root, &zero, &s);
}

/* ---- every allocation ----- */

static sp_status hooked_program(const sp_tensor *x)
{
    static double one = 1;
    sp_tensor *y = NULL, *s = NULL, *second = NULL;
    sp_hook *hook = NULL;
    sp_node *node;
    sp_status status = SP_OK;
    SP_TRY(sp_mul(x, x, &y));
    SP_TRY(sp__grad_fn(y, &node));
    SP_TRY(sp__node_hook_add(node, true, scale, &one, NULL, NULL));
    SP_TRY(sp__node_hook_add(node, false, scale, &one, NULL, NULL));
    SP_TRY(sp__hook_add((sp_tensor *)x, false, on_grad, "x", NULL, &hook));
    SP_TRY(sp_sum(y, NULL, &s));
    const sp_tensor *inputs[] = {y, x};
    const sp_backward_opt opt = {.size = sizeof opt, .inputs = inputs, .n_inputs = 2};
    SP_TRY(sp_backward(s, &opt));
    SP_TRY(packed_program(x, &second));
out:
    if (hook) sp__hook_remove(hook);
    sp__hook_let_go(&hook);
    sp_drop(&y), sp_drop(&s), sp_drop(&second);
    OK(sp_grad_set((sp_tensor *)x, NULL));
    return status;
}

static void every_allocation_may_fail(void)
{
    bool fail = false;
    pack_ctx = &fail;
    sp_tensor *x = leaf(VECTOR(1, 2));
    OK(hooked_program(x));
    int64_t before = live_blocks();
    for (int64_t n = 1;; n++) {
        sp_memory_fail_nth(n, false);
        sp_status status = hooked_program(x);
        bool over = sp_memory_requests() < n;
        sp_memory_fail_nth(0, false);
        if (!over) CU_ASSERT_NOT_EQUAL(status, SP_OK);
        CU_ASSERT_EQUAL(live_blocks(), before);
        CU_ASSERT_EQUAL(packed_live, 0);
        if (over || live_blocks() != before) {
            CU_ASSERT_EQUAL(status, SP_OK);
            break;
        }
    }
    DROP(&x);
}

SUITE("autograd/hooks", TEST(hooks_run_in_their_order), TEST(hooks_of_nodes_replace),
      TEST(a_hold_outlives_its_hook), TEST(packed_values_have_second_derivatives),
      TEST(disabled_packing), TEST(a_hook_asks_what_its_run_will_reach),
      TEST(chosen_inputs_alone_get_gradients), TEST(a_nan_is_an_error_in_anomaly_mode),
      TEST(every_allocation_may_fail))
