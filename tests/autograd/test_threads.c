/* Threads: tapes, grad mode and levels are each thread's own. Run under ThreadSanitizer by
 * tools/check. */
#include <pthread.h>

#include "support.h"

enum { THREADS = 4, ROUNDS = 200 };

static sp_status square_sum(void *ctx, const sp_tensor *const *in, int n_in, sp_tensor **out,
                            int max_out, int *n_out)
{
    (void)ctx, (void)n_in, (void)max_out;
    sp_tensor *y = NULL;
    *n_out = 1;
    SP_RETURN_IF(sp_mul(in[0], in[0], &y));
    sp_status status = sp_sum(y, NULL, &out[0]);
    DROP(&y);
    return status;
}

static bool one_round(int k)
{
    double got[2], values[] = {k, 2};
    sp_tensor *x = NULL, *y = NULL, *s = NULL, *g = NULL;
    bool right = sp_from_data(values, SP_FLOAT64, 1, (int64_t[]){2}, &x) == SP_OK;
    right = right && sp_set_requires_grad(x, true) == SP_OK;
    right = right && sp_mul(x, x, &y) == SP_OK && sp_sum(y, NULL, &s) == SP_OK &&
            sp_backward(s, NULL) == SP_OK;
    right = right && sp_grad_get(x, &g) == SP_OK && sp_copy_out(g, got, sizeof got) == SP_OK;
    right = right && got[0] == 2 * k && got[1] == 4;
    sp_drop(&g);
    right =
        right && sp_grad_fn(square_sum, NULL, (const sp_tensor *[]){x}, 1, 1, &g, NULL) == SP_OK;
    right = right && sp_copy_out(g, got, sizeof got) == SP_OK && got[0] == 2 * k;
    DROP(&x, &y, &s, &g);
    return right;
}

static void *work(void *arg)
{
    bool *right = arg;
    *right = true;
    for (int k = 0; k < ROUNDS && *right; k++) *right = one_round(k);
    return NULL;
}

static void tapes_of_several_threads(void)
{
    pthread_t threads[THREADS];
    bool right[THREADS];
    for (int i = 0; i < THREADS; i++) NEED(pthread_create(&threads[i], NULL, work, &right[i]) == 0);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        CHECK(right[i]);
    }
}

static void *read_mode(void *arg)
{
    *(bool *)arg = sp_grad_mode(true);
    return NULL;
}

static void grad_mode_is_each_threads_own(void)
{
    pthread_t thread;
    bool there = false;
    bool was = sp_grad_mode(false);
    NEED(pthread_create(&thread, NULL, read_mode, &there) == 0);
    pthread_join(thread, NULL);
    sp_grad_mode(was);
    CHECK(there);
}

/* A graph made by one thread, extended and run by another. */
static void *extend(void *arg)
{
    sp_tensor **y = arg, *z = NULL, *s = NULL;
    if (sp_mul_scalar(*y, SP_FLOAT(3), &z) == SP_OK && sp_sum(z, NULL, &s) == SP_OK)
        (void)!sp_backward(s, NULL);
    DROP(&z, &s, y);
    return NULL;
}

static void graphs_may_be_handed_over(void)
{
    pthread_t thread;
    sp_tensor *x = leaf(VECTOR(1, 2)), *y;
    for (int i = 0; i < 100; i++) {
        sp_tensor *more;
        OK(sp_mul(x, x, &more));
        DROP(&more);
    }
    OK(sp_mul(x, x, &y));
    NEED(pthread_create(&thread, NULL, extend, &y) == 0);
    pthread_join(thread, NULL);
    GRAD_VALUES(x, 6, 12);
    DROP(&x);
}

SUITE("autograd/threads", TEST(tapes_of_several_threads), TEST(grad_mode_is_each_threads_own),
      TEST(graphs_may_be_handed_over))
