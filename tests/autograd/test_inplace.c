/* Writing in place: what is refused, versions, views that follow their base, and that no ring of
 * references remains. */
#include "support.h"

static void leaf_is_refused(void)
{
    sp_tensor *x = leaf(VECTOR(1, 2)), *part;
    FAILS(sp_add_scalar_(x, SP_FLOAT(1)), SP_EGRAD, "a leaf");
    OK(sp_select(x, 0, 0, &part));
    FAILS(sp_add_scalar_(part, SP_FLOAT(1)), SP_EGRAD, "view of a leaf");
    sp_grad_mode(false);
    OK(sp_add_scalar_(x, SP_FLOAT(1)));
    sp_grad_mode(true);
    VALUES(x, 2, 3);
    CU_ASSERT(sp_is_leaf(x) && sp_requires_grad(x));
    DROP(&x, &part);
}

static void out_is_refused(void)
{
    sp_tensor *x = leaf(VECTOR(1, 2)), *y = VECTOR(0, 0);
    FAILS(sp_add_out(x, x, y), SP_EGRAD, "out=");
    DROP(&x, &y);
}

static void history_moves(void)
{
    sp_tensor *x = leaf(VECTOR(1, 2)), *y, *s;
    OK(sp_mul_scalar(x, SP_FLOAT(2), &y));
    OK(sp_mul_(y, x)); /* 2 x^2; reads what y was */
    OK(sp_add_(y, x));
    s = sum_of(y);
    OK(sp_backward(s, NULL));
    GRAD_VALUES(x, 5, 9);
    DROP(&x, &y, &s);
}

static void square_in_place(void)
{
    int64_t before = live_blocks();
    sp_tensor *x = leaf(VECTOR(3, 4)), *y, *s;
    OK(sp_mul_scalar(x, SP_FLOAT(2), &y));
    OK(sp_mul_(y, y)); /* 4 x^2 */
    s = sum_of(y);
    OK(sp_backward(s, NULL));
    GRAD_VALUES(x, 24, 32);
    DROP(&x, &y, &s);
    CU_ASSERT_EQUAL(live_blocks(), before);
}

static void version_is_checked(void)
{
    sp_tensor *x = leaf(VECTOR(1, 2)), *b = VECTOR(3, 4), *y, *s;
    OK(sp_mul(x, b, &y));
    OK(sp_add_scalar_(b, SP_FLOAT(1)));
    s = sum_of(y);
    FAILS(sp_backward(s, NULL), SP_EGRAD, "in-place");
    CU_ASSERT_PTR_NOT_NULL(strstr(sp_last_error(), "mul"));
    CU_ASSERT_PTR_NOT_NULL(strstr(sp_last_error(), "version 1"));
    DROP(&x, &b, &y, &s);
}

static void saved_output_written(void)
{
    sp_tensor *x = leaf(VECTOR(1, 2)), *y, *s;
    OK(sp_exp(x, &y));
    OK(sp_mul_scalar_(y, SP_FLOAT(2)));
    s = sum_of(y);
    FAILS(sp_backward(s, NULL), SP_EGRAD, "exp");
    DROP(&x, &y, &s);
}

static void fill_cuts_history(void)
{
    sp_tensor *x = leaf(VECTOR(1, 2)), *y, *z, *s;
    OK(sp_mul_scalar(x, SP_FLOAT(2), &y));
    OK(sp_fill_scalar_(y, SP_FLOAT(5)));
    OK(sp_add(y, x, &z));
    s = sum_of(z);
    OK(sp_backward(s, NULL));
    GRAD_VALUES(x, 1, 1);
    DROP(&x, &y, &z, &s);
}

/* ---- views ----- */

static void write_to_a_view_reaches_the_base(void)
{
    char name[SP_GRAD_FN_TEXT];
    sp_tensor *x = leaf(VECTOR(1, 2, 3)), *y, *v, *s;
    OK(sp_mul_scalar(x, SP_FLOAT(1), &y));
    OK(sp_slice(y, 0, 1, 3, NULL, &v));
    OK(sp_mul_(v, v));
    VALUES(y, 1, 4, 9);
    CU_ASSERT_STRING_EQUAL(sp__grad_fn_name(y, name, sizeof name), "CopySlices");
    CU_ASSERT_STRING_EQUAL(sp__grad_fn_name(v, name, sizeof name), "SliceBackward");
    s = sum_of(y);
    OK(sp_backward(s, NULL));
    GRAD_VALUES(x, 1, 4, 6);
    DROP(&x, &y, &v, &s);
}

static void constant_base_gets_history(void)
{
    sp_tensor *base = VECTOR(0, 0, 0), *w = leaf(VECTOR(5, 6)), *v, *other, *s;
    OK(sp_select(base, 0, 2, &other)); /* made before */
    OK(sp_slice(base, 0, 1, 3, NULL, &v));
    OK(sp_copy_(v, w));
    CU_ASSERT(sp_requires_grad(base) && sp_requires_grad(other) && !sp_is_leaf(base) &&
              !sp_is_leaf(other));
    OK(sp_mul(other, other, &s)); /* w[1]^2 */
    OK(sp_backward(s, NULL));
    GRAD_VALUES(w, 0, 12);
    DROP(&base, &w, &v, &other, &s);
}

static void views_follow_writes_to_the_base(void)
{
    sp_tensor *x = leaf(VECTOR(1, 2)), *y, *v, *s;
    OK(sp_mul_scalar(x, SP_FLOAT(3), &y));
    OK(sp_select(y, 0, 1, &v));
    OK(sp_mul_(y, x)); /* 3 x^2 */
    OK(sp_mul_scalar(v, SP_FLOAT(1), &s));
    OK(sp_backward(s, NULL));
    GRAD_VALUES(x, 0, 12);
    DROP(&x, &y, &v, &s);
}

static void chain_of_views(void)
{
    double six[] = {1, 2, 3, 4, 5, 6};
    sp_tensor *x = leaf(tensor(SHAPE(2, 3), six)), *y, *t, *row, *part, *s;
    OK(sp_mul_scalar(x, SP_FLOAT(1), &y));
    OK(sp_transpose(y, 0, 1, &t));
    OK(sp_select(t, 0, 2, &row));            /* column 2 of y: 3, 6 */
    OK(sp_slice(row, 0, 1, 2, NULL, &part)); /* 6 */
    OK(sp_mul_scalar_(part, SP_FLOAT(10)));
    OK(sp_mul_scalar_(row, SP_FLOAT(2)));
    VALUES(y, 1, 2, 6, 4, 5, 120);
    s = sum_of(y);
    OK(sp_backward(s, NULL));
    GRAD_VALUES(x, 1, 1, 2, 1, 1, 20);
    DROP(&x, &y, &t, &row, &part, &s);
}

static void second_order_through_slices(void)
{
    sp_tensor *x = leaf(VECTOR(2, 3)), *y, *v, *g, *h, *s, *s2;
    OK(sp_mul_scalar(x, SP_FLOAT(1), &y));
    OK(sp_select(y, 0, 0, &v));
    OK(sp_mul_(v, v));
    OK(sp_mul_(v, v)); /* x0^4, x1 */
    s = sum_of(y);
    OK(sp_grad((const sp_tensor *[]){s}, 1, (const sp_tensor *[]){x}, 1,
               &(sp_grad_opt){.size = sizeof(sp_grad_opt), .create_graph = true}, &g));
    VALUES(g, 32, 1);
    s2 = sum_of(g);
    OK(sp_grad((const sp_tensor *[]){s2}, 1, (const sp_tensor *[]){x}, 1, NULL, &h));
    VALUES(h, 48, 0);
    DROP(&x, &y, &v, &g, &h, &s, &s2);
}

/* The op saves what it wrote, which is a part of what the base has become. */
static void second_order_of_a_saved_result(void)
{
    int64_t before = live_blocks();
    sp_tensor *x = leaf(VECTOR(4, 9)), *y, *v, *g, *h, *s, *s2;
    OK(sp_mul_scalar(x, SP_FLOAT(1), &y));
    OK(sp_select(y, 0, 0, &v));
    OK(sp_sqrt_(v)); /* x0^0.5, x1 */
    s = sum_of(y);
    OK(sp_grad((const sp_tensor *[]){s}, 1, (const sp_tensor *[]){x}, 1,
               &(sp_grad_opt){.size = sizeof(sp_grad_opt), .create_graph = true}, &g));
    VALUES(g, 0.25, 1);
    s2 = sum_of(g);
    OK(sp_grad((const sp_tensor *[]){s2}, 1, (const sp_tensor *[]){x}, 1, NULL, &h));
    VALUES(h, -0.03125, 0);
    DROP(&x, &y, &v, &g, &h, &s, &s2);
    CU_ASSERT_EQUAL(live_blocks(), before);
}

static void view_made_under_no_grad(void)
{
    sp_tensor *x = leaf(VECTOR(1, 2)), *y, *v;
    OK(sp_mul_scalar(x, SP_FLOAT(2), &y));
    sp_grad_mode(false);
    OK(sp_select(y, 0, 0, &v));
    sp_grad_mode(true);
    CU_ASSERT(!sp_requires_grad(v));
    sp_tensor *w = leaf(number(3));
    FAILS(sp_mul_(v, w), SP_EGRAD, "no_grad");
    DROP(&x, &y, &v, &w);
}

static void detached_shares_values_not_history(void)
{
    sp_tensor *x = leaf(VECTOR(1, 2)), *y, *d, *s;
    OK(sp_mul(x, x, &y));
    OK(sp_detach(y, &d));
    OK(sp_fill_scalar_(d, SP_FLOAT(9)));
    VALUES(y, 9, 9);
    s = sum_of(y);
    OK(sp_backward(s, NULL)); /* mul saved x, not y */
    GRAD_VALUES(x, 2, 4);
    DROP(&x, &y, &d, &s);
}

static void no_ring_remains(void)
{
    int64_t before = live_blocks();
    sp_tensor *w = leaf(VECTOR(2, 3)), *x, *y, *base = VECTOR(1, 1), *part, *z, *s;
    OK(sp_mul_scalar(w, SP_FLOAT(2), &x));
    OK(sp_mul(x, w, &y)); /* saves x */
    OK(sp_mul_(x, y));    /* and x now leads there */
    s = sum_of(x);
    FAILS(sp_backward(s, NULL), SP_EGRAD, "in-place");
    OK(sp_mul(base, w, &z)); /* saves base, a constant so far */
    OK(sp_select(base, 0, 0, &part));
    sp_tensor *z0;
    OK(sp_select(z, 0, 0, &z0));
    OK(sp_copy_(part, z0));
    DROP(&w, &x, &y, &base, &part, &z, &z0, &s);
    CU_ASSERT_EQUAL(live_blocks(), before);
}

static void hooks_and_kept_gradients_move(void)
{
    sp_tensor *x = leaf(VECTOR(1, 2)), *y, *s;
    OK(sp_mul_scalar(x, SP_FLOAT(2), &y));
    OK(sp__retain_grad(y));
    OK(sp_mul_scalar_(y, SP_FLOAT(7)));
    s = sum_of(y);
    OK(sp_backward(s, NULL));
    GRAD_VALUES(y, 1, 1);
    GRAD_VALUES(x, 14, 14);
    DROP(&x, &y, &s);
}

SUITE("autograd/inplace", TEST(leaf_is_refused), TEST(out_is_refused), TEST(history_moves),
      TEST(square_in_place), TEST(version_is_checked), TEST(saved_output_written),
      TEST(fill_cuts_history), TEST(write_to_a_view_reaches_the_base),
      TEST(constant_base_gets_history), TEST(views_follow_writes_to_the_base), TEST(chain_of_views),
      TEST(second_order_through_slices), TEST(second_order_of_a_saved_result),
      TEST(view_made_under_no_grad), TEST(detached_shares_values_not_history),
      TEST(no_ring_remains), TEST(hooks_and_kept_gradients_move))
