/* Regions in C: each program gives the bits eager gives, in every call, and is run by plans where
 * it can be.
 *
 * A program reads in[] and sets out[]; it may write in[] in place. It runs once eagerly and then
 * several times as calls of one jit function, each time on fresh copies of the same inputs.
 */
#include <CUnit/Basic.h>
#include <stdlib.h>
#include <string.h>

#include "jit/jit.h"
#include "ops/launch.h"
#include "ops_gen.h"
#include "tensor/memory.h"

enum { CALLS = 5, IN = 4, OUT = 4, MAX_BYTES = 4096 };

typedef sp_status (*program)(sp_tensor **in, sp_tensor **out, int call);

typedef struct result {
    sp_status status;
    size_t bytes[IN + OUT];
    char data[IN + OUT][MAX_BYTES];
} result;

static sp_tensor *ramp(int rank, const int64_t *shape, sp_dtype dtype, double from, double step)
{
    int64_t numel = 1;
    for (int i = 0; i < rank; i++) numel *= shape[i];
    char *data = calloc((size_t)numel + 1, 8);
    for (int64_t i = 0; i < numel; i++) {
        if (dtype == SP_FLOAT32)
            ((float *)data)[i] = (float)(from + step * (double)i);
        else if (dtype == SP_FLOAT64)
            ((double *)data)[i] = from + step * (double)i;
        else
            ((int64_t *)data)[i] = (int64_t)(from + step * (double)i);
    }
    sp_tensor *t = NULL;
    CU_ASSERT_EQUAL_FATAL(sp_from_data(data, dtype, rank, shape, &t), SP_OK);
    free(data);
    return t;
}

static void make_inputs(sp_tensor **in)
{
    in[0] = ramp(2, (int64_t[]){4, 6}, SP_FLOAT32, -1.1, 0.13);
    in[1] = ramp(2, (int64_t[]){4, 6}, SP_FLOAT32, 2.0, -0.17);
    in[2] = ramp(2, (int64_t[]){6, 3}, SP_FLOAT32, 0.3, 0.05);
    in[3] = ramp(1, (int64_t[]){4}, SP_INT64, 2, -1.0 / 3);
}

static void keep(result *r, int at, const sp_tensor *t)
{
    r->bytes[at] = t ? (size_t)sp_numel(t) * sp_dtype_size(sp_dtype_of(t)) : 0;
    CU_ASSERT_FATAL(r->bytes[at] <= MAX_BYTES);
    if (t) CU_ASSERT_EQUAL(sp_copy_out(t, r->data[at], r->bytes[at]), SP_OK);
}

static void run(program p, sp_jit *jit, int call, result *r)
{
    sp_tensor *in[IN], *out[OUT] = {0};
    sp_jit_frame frame;
    memset(r, 0, sizeof *r);
    make_inputs(in);
    if (jit) CU_ASSERT_EQUAL_FATAL(sp__jit_enter(jit, &frame), SP_OK);
    r->status = p(in, out, call);
    if (jit) CU_ASSERT_EQUAL(sp__jit_leave(&frame, r->status != SP_OK), SP_OK);
    for (int i = 0; i < IN; i++) keep(r, i, in[i]), sp_drop(&in[i]);
    for (int i = 0; i < OUT; i++) keep(r, IN + i, out[i]), sp_drop(&out[i]);
}

static bool same(const result *a, const result *b)
{
    if (a->status != b->status) return false;
    for (int i = 0; i < IN + OUT; i++)
        if (a->bytes[i] != b->bytes[i] || memcmp(a->data[i], b->data[i], a->bytes[i]) != 0)
            return false;
    return true;
}

static bool keeps; /* the program has a jit function of its own */

/* Returns what is known after the last call. */
static sp_explanation check(program p)
{
    static result eager, got;
    sp_explanation e;
    sp_jit *jit;
    int64_t live;
    sp_memory_stats before, after;
    run(p, NULL, 0, &eager); /* caches of kernels and the like */
    sp_memory_stats_get(&before);
    live = before.live_blocks;
    CU_ASSERT_EQUAL_FATAL(sp__jit_new("program", &jit), SP_OK);
    for (int call = 0; call < CALLS; call++) {
        run(p, NULL, call, &eager);
        run(p, jit, call, &got);
        CU_ASSERT(same(&eager, &got));
    }
    sp__jit_explain(jit, &e);
    sp__jit_drop(jit);
    sp_memory_stats_get(&after);
    CU_ASSERT(keeps || after.live_blocks == live);
    return e;
}

static void check_whole(program p)
{
    sp_explanation e = check(p);
    CU_ASSERT_EQUAL(e.compiled_ops, e.ops);
    CU_ASSERT_EQUAL(e.breaks, 0);
    CU_ASSERT_EQUAL(e.graphs, 1);
}

/* ---- programs ----- */

static sp_status chain(sp_tensor **in, sp_tensor **out, int call)
{
    sp_status status = SP_OK;
    sp_tensor *a = NULL, *b = NULL;
    (void)call;
    SP_TRY(sp_add(in[0], in[1], &a));
    SP_TRY(sp_mul_scalar(a, SP_FLOAT(0.5), &b));
    SP_TRY(sp_exp(b, &out[0]));
    SP_TRY(sp_matmul(out[0], in[2], &out[1]));
    SP_TRY(sp_mul(in[0], in[0], &out[2]));
out:
    sp_drop(&a), sp_drop(&b);
    return status;
}

static void test_chain(void)
{
    check_whole(chain);
}

static sp_status scalars(sp_tensor **in, sp_tensor **out, int call)
{
    sp_status status = SP_OK;
    sp_tensor *a = NULL;
    SP_TRY(sp_mul_scalar(in[0], SP_FLOAT(0.1 * call), &a));
    SP_TRY(sp_add_alpha(a, in[1], SP_INT(call), &out[0]));
out:
    sp_drop(&a);
    return status;
}

static void test_scalars_are_inputs(void)
{
    check_whole(scalars);
}

static sp_status in_place(sp_tensor **in, sp_tensor **out, int call)
{
    sp_status status = SP_OK;
    sp_tensor *t = NULL, *s = NULL;
    (void)call;
    SP_TRY(sp_sub_(in[0], in[1]));
    SP_TRY(sp_mul_scalar(in[0], SP_FLOAT(2), &out[0]));
    SP_TRY(sp_add_scalar_(out[0], SP_FLOAT(1)));
    SP_TRY(sp_transpose(out[0], 0, 1, &t));
    SP_TRY(sp_exp_(t));
    SP_TRY(sp_slice(in[1], 0, 1, 3, NULL, &s));
    SP_TRY(sp_mul_scalar_(s, SP_FLOAT(-1)));
    SP_TRY(sp_add(in[1], out[0], &out[1]));
out:
    sp_drop(&t), sp_drop(&s);
    return status;
}

static void test_in_place(void)
{
    check_whole(in_place);
}

static sp_status views(sp_tensor **in, sp_tensor **out, int call)
{
    sp_status status = SP_OK;
    sp_tensor *a = NULL, *row = NULL, *again = NULL;
    (void)call;
    SP_TRY(sp_mul(in[0], in[1], &a));
    SP_TRY(sp_select(a, 0, 2, &row));
    SP_TRY(sp_mul_scalar_(a, SP_FLOAT(3)));
    SP_TRY(sp_add_scalar(row, SP_FLOAT(1), &out[0]));
    SP_TRY(sp_add_scalar_(row, SP_FLOAT(5)));
    SP_TRY(sp_select(a, 0, 2, &again));
    SP_TRY(sp_neg(again, &out[1]));
    SP_TRY(sp_transpose(a, 0, 1, &out[2])); /* a view that outlives its base */
out:
    sp_drop(&a), sp_drop(&row), sp_drop(&again);
    return status;
}

static void test_views(void)
{
    check_whole(views);
}

/* Two handles of one storage from outside, one of them written. */
static sp_status aliases(sp_tensor **in, sp_tensor **out, int call)
{
    sp_status status = SP_OK;
    (void)call;
    SP_TRY(sp_exp(in[1], &out[0]));
    SP_TRY(sp_add_scalar_(in[0], SP_FLOAT(10)));
    SP_TRY(sp_exp(in[1], &out[1]));
    SP_TRY(sp_add(in[1], in[0], &out[2]));
out:
    return status;
}

static void test_aliased_inputs(void)
{
    for (int overlap = 0; overlap < 3; overlap++) {
        sp_jit *jit;
        CU_ASSERT_EQUAL_FATAL(sp__jit_new("aliases", &jit), SP_OK);
        for (int call = 0; call < CALLS; call++) {
            char bytes[2][4][256];
            for (int mode = 0; mode < 2; mode++) {
                sp_tensor *base = ramp(1, (int64_t[]){20}, SP_FLOAT32, 0, 0.1), *in[IN] = {0},
                          *out[OUT] = {0};
                sp_jit_frame frame;
                CU_ASSERT_EQUAL_FATAL(sp_slice(base, 0, 0, 10, NULL, &in[0]), SP_OK);
                CU_ASSERT_EQUAL_FATAL(
                    sp_slice(base, 0, 5 * overlap, 5 * overlap + 10, NULL, &in[1]), SP_OK);
                if (mode) CU_ASSERT_EQUAL_FATAL(sp__jit_enter(jit, &frame), SP_OK);
                CU_ASSERT_EQUAL(aliases(in, out, call), SP_OK);
                if (mode) CU_ASSERT_EQUAL(sp__jit_leave(&frame, false), SP_OK);
                CU_ASSERT_EQUAL(sp_copy_out(base, bytes[mode][3], 80), SP_OK);
                for (int i = 0; i < 3; i++)
                    CU_ASSERT_EQUAL(sp_copy_out(out[i], bytes[mode][i], 40), SP_OK);
                for (int i = 0; i < 3; i++) sp_drop(&out[i]);
                sp_drop(&in[0]), sp_drop(&in[1]), sp_drop(&base);
            }
            for (int i = 0; i < 4; i++)
                CU_ASSERT_EQUAL(memcmp(bytes[0][i], bytes[1][i], i < 3 ? 40 : 80), 0);
        }
        sp__jit_drop(jit);
    }
}

static sp_status reads(sp_tensor **in, sp_tensor **out, int call)
{
    sp_status status = SP_OK;
    sp_tensor *s = NULL;
    sp_scalar value;
    (void)call;
    SP_TRY(sp_add(in[0], in[1], &out[0]));
    SP_TRY(sp_sum(out[0], NULL, &s));
    SP_TRY(sp_item(s, &value));
    SP_TRY(value.v.f > 0 ? sp_exp(out[0], &out[1]) : sp_neg(out[0], &out[1]));
    SP_TRY(sp_mul(out[1], in[1], &out[2]));
out:
    sp_drop(&s);
    return status;
}

static void test_reading_in_the_middle(void)
{
    sp_explanation e = check(reads);
    CU_ASSERT_EQUAL(e.compiled_ops, e.ops);
    CU_ASSERT_EQUAL(e.breaks, 1);
    CU_ASSERT_EQUAL(e.graphs, 2);
}

static sp_status branches(sp_tensor **in, sp_tensor **out, int call)
{
    sp_status status = SP_OK;
    sp_tensor *a = NULL;
    SP_TRY(sp_add(in[0], in[1], &a));
    SP_TRY(call % 2 ? sp_exp(a, &out[0]) : sp_tanh(a, &out[0]));
    SP_TRY(sp_matmul(out[0], in[2], &out[1]));
out:
    sp_drop(&a);
    return status;
}

static void test_two_ways(void)
{
    sp_explanation e = check(branches);
    CU_ASSERT_EQUAL(e.compiled_ops, e.ops);
    CU_ASSERT_EQUAL(e.breaks, 0);
}

static sp_status varies(sp_tensor **in, sp_tensor **out, int call)
{
    sp_status status = SP_OK;
    sp_tensor *a = NULL, *row = NULL;
    SP_TRY(sp_add(in[0], in[1], &a));
    SP_TRY(sp_exp(a, &out[0]));
    SP_TRY(sp_slice(out[0], 1, call % 6, call % 6 + 1, NULL, &row)); /* another one every time */
    SP_TRY(sp_neg(row, &out[1]));
out:
    sp_drop(&a), sp_drop(&row);
    return status;
}

static void test_attribute_that_varies(void)
{
    check(varies);
}

static sp_status fails(sp_tensor **in, sp_tensor **out, int call)
{
    sp_status status = SP_OK;
    sp_tensor *a = NULL;
    (void)call;
    SP_TRY(sp_add(in[0], in[1], &out[0]));
    SP_TRY(sp_add_scalar_(in[0], SP_FLOAT(1)));
    SP_TRY(sp_matmul(out[0], in[1], &a));
out:
    sp_drop(&a);
    return status;
}

static void test_failing_call(void)
{
    sp_explanation e = check(fails);
    CU_ASSERT_EQUAL(e.compiled_ops, e.ops);
}

static sp_status indexes(sp_tensor **in, sp_tensor **out, int call)
{
    sp_status status = SP_OK;
    sp_tensor *bad = NULL, *best = NULL, *half = NULL;
    SP_TRY(sp_index_select(in[0], 0, in[3], &out[0]));
    SP_TRY(sp_add_scalar(in[3], SP_INT(call == 3 ? 100 : 0), &bad));
    SP_TRY(sp_argmax(
        in[0], &(sp_argmax_opt){.size = sizeof(sp_argmax_opt), .has_dim = true, .dim = 0}, &best));
    SP_TRY(sp_slice(best, 0, 0, 2, NULL, &half));
    SP_TRY(sp_index_select(in[1], 0, half, &out[1])); /* computed here: the region ends before */
    SP_TRY(sp_index_select(in[1], 0, bad, &out[2]));
out:
    sp_drop(&bad), sp_drop(&best), sp_drop(&half);
    return status;
}

static void test_index_checked_at_its_call(void)
{
    sp_explanation e = check(indexes);
    CU_ASSERT_EQUAL(e.compiled_ops, e.ops);
}

static sp_status random_numbers(sp_tensor **in, sp_tensor **out, int call)
{
    sp_status status = SP_OK;
    sp_tensor *noise = NULL;
    sp_manual_seed((uint64_t)call);
    SP_TRY(sp_rand((int64_t[]){4, 6}, 2, NULL, &noise));
    SP_TRY(sp_add(in[0], noise, &out[0]));
out:
    sp_drop(&noise);
    return status;
}

static void test_random(void)
{
    check_whole(random_numbers);
}

/* ---- storages that others write ----- */

static float shared[24];

static sp_status foreign(sp_tensor **in, sp_tensor **out, int call)
{
    sp_status status = SP_OK;
    sp_tensor *f = NULL, *row = NULL;
    for (int i = 0; i < 24; i++) shared[i] = (float)(i * call);
    SP_TRY(sp_from_foreign(shared, SP_FLOAT32, 2, (int64_t[]){4, 6}, NULL, false, NULL, NULL, &f));
    SP_TRY(sp_add(in[0], f, &out[0]));
    shared[7] += 1; /* between two reads */
    SP_TRY(sp_add(in[0], f, &out[1]));
    SP_TRY(sp_select(f, 0, 1, &row));
    SP_TRY(sp_add_scalar_(row, SP_FLOAT(3)));
    shared[8] *= 2; /* sees that, at once */
    SP_TRY(sp_mul(in[1], f, &out[2]));
    shared[8] = 0;
out:
    sp_drop(&f), sp_drop(&row);
    return status;
}

static void test_foreign(void)
{
    sp_explanation e = check(foreign);
    CU_ASSERT_EQUAL(e.breaks, 1);
    CU_ASSERT_EQUAL(e.ops, 4);
    CU_ASSERT_EQUAL(e.compiled_ops, 3);
}

/* ---- steps ----- */

/* Forward, backward and optimizer: from the third call on no eager launch and one plan run a
 * call. */
static void test_training_step(void)
{
    sp_jit *jit;
    sp_launch_stats before, after;
    double losses[2][8];
    for (int mode = 0; mode < 2; mode++) {
        sp_tensor *in[IN], *w = NULL;
        make_inputs(in);
        w = ramp(2, (int64_t[]){6, 3}, SP_FLOAT32, -0.2, 0.03);
        CU_ASSERT_EQUAL_FATAL(sp_set_requires_grad(w, true), SP_OK);
        CU_ASSERT_EQUAL_FATAL(sp__jit_new("step", &jit), SP_OK);
        for (int step = 0; step < 8; step++) {
            sp_jit_frame frame;
            sp_tensor *h = NULL, *t = NULL, *loss = NULL, *g = NULL;
            sp_scalar value;
            sp_launch_stats_get(&before);
            if (mode) CU_ASSERT_EQUAL_FATAL(sp__jit_enter(jit, &frame), SP_OK);
            CU_ASSERT_EQUAL(sp_matmul(in[0], w, &h), SP_OK);
            CU_ASSERT_EQUAL(sp_tanh(h, &t), SP_OK);
            CU_ASSERT_EQUAL(sp_sum(t, NULL, &loss), SP_OK);
            CU_ASSERT_EQUAL(sp_backward(loss, NULL), SP_OK);
            CU_ASSERT_EQUAL(sp_grad_get(w, &g), SP_OK);
            bool was = sp_grad_mode(false);
            CU_ASSERT_EQUAL(sp_sub_alpha_(w, g, SP_FLOAT(0.1 / (step + 1))), SP_OK);
            sp_grad_mode(was);
            CU_ASSERT_EQUAL(sp_grad_set(w, NULL), SP_OK);
            sp_drop(&h), sp_drop(&t), sp_drop(&g);
            if (mode) CU_ASSERT_EQUAL(sp__jit_leave(&frame, false), SP_OK);
            sp_launch_stats_get(&after);
            if (mode && step >= 2) {
                CU_ASSERT_EQUAL(after.eager_launches, before.eager_launches);
                CU_ASSERT_EQUAL(after.plan_runs, before.plan_runs + 1);
            }
            CU_ASSERT_EQUAL(sp_item(loss, &value), SP_OK);
            losses[mode][step] = value.v.f;
            sp_drop(&loss);
        }
        for (int i = 0; i < IN; i++) sp_drop(&in[i]);
        sp_drop(&w);
        sp__jit_drop(jit);
    }
    CU_ASSERT_EQUAL(memcmp(losses[0], losses[1], sizeof losses[0]), 0);
    CU_ASSERT(losses[0][7] < losses[0][0]);
}

static sp_status inner(sp_jit *jit, sp_tensor **in, sp_tensor **out)
{
    sp_jit_frame frame;
    CU_ASSERT_EQUAL(sp__jit_enter(jit, &frame), SP_OK);
    sp_status status = sp_mul(in[0], in[1], out);
    CU_ASSERT_EQUAL(sp__jit_leave(&frame, status != SP_OK), SP_OK);
    return status;
}

static sp_jit *inner_jit;

static sp_status nested(sp_tensor **in, sp_tensor **out, int call)
{
    sp_status status = SP_OK;
    sp_tensor *a = NULL;
    (void)call;
    SP_TRY(inner(inner_jit, in, &a));
    SP_TRY(sp_add_scalar(a, SP_FLOAT(1), &out[0]));
out:
    sp_drop(&a);
    return status;
}

static void test_nested(void)
{
    CU_ASSERT_EQUAL_FATAL(sp__jit_new("inner", &inner_jit), SP_OK);
    keeps = true;
    sp_explanation e = check(nested);
    keeps = false;
    CU_ASSERT_EQUAL(e.compiled_ops, 2);
    sp__jit_drop(inner_jit);
}

/* Calls 0 to 3, the nth request of call `at` failing. Returns whether there was an nth request. */
static bool run_starved(program p, int at, int64_t nth)
{
    static result eager, got;
    sp_jit *jit;
    bool reached = false;
    CU_ASSERT_EQUAL_FATAL(sp__jit_new("memory", &jit), SP_OK);
    for (int call = 0; call < 4; call++) {
        sp_tensor *in[IN], *out[OUT] = {0};
        sp_jit_frame frame;
        run(p, NULL, call, &eager);
        make_inputs(in);
        if (call == at) sp_memory_fail_nth(nth, false);
        sp_status status = sp__jit_enter(jit, &frame);
        if (status == SP_OK) {
            status = p(in, out, call);
            sp_status leaving = sp__jit_leave(&frame, status != SP_OK);
            if (status == SP_OK) status = leaving;
        }
        if (call == at) reached = sp_memory_requests() >= nth;
        sp_memory_fail_nth(0, false);
        memset(&got, 0, sizeof got);
        for (int i = 0; i < IN; i++) keep(&got, i, in[i]), sp_drop(&in[i]);
        for (int i = 0; i < OUT; i++) keep(&got, IN + i, out[i]), sp_drop(&out[i]);
        CU_ASSERT(status == SP_OK ? same(&eager, &got) : status == SP_EMEMORY);
    }
    sp__jit_drop(jit);
    return reached;
}

/* Every request for memory fails once: a failed call may be repeated, what it left behind is
 * right, and nothing leaks. */
static void test_out_of_memory(void)
{
    static const program programs[] = {chain, in_place, views, reads, foreign, random_numbers};
    sp_memory_stats before, after;
    for (size_t i = 0; i < sizeof programs / sizeof *programs; i++)
        for (int at = 0; at < 3; at++) {
            int64_t nth = 1;
            sp_memory_stats_get(&before);
            while (nth < 1000 && run_starved(programs[i], at, nth)) nth++;
            sp_memory_stats_get(&after);
            CU_ASSERT(nth > 5 && nth < 1000);
            CU_ASSERT_EQUAL(after.live_blocks, before.live_blocks);
        }
}

int main(void)
{
    sp__hot_set(false); /* its memory of loops would count as leaked */
    if (CU_initialize_registry() != CUE_SUCCESS) return CU_get_error();
    CU_pSuite suite = CU_add_suite("regions", NULL, NULL);
    CU_add_test(suite, "a chain of ops", test_chain);
    CU_add_test(suite, "scalars are inputs", test_scalars_are_inputs);
    CU_add_test(suite, "in place, also through views", test_in_place);
    CU_add_test(suite, "views before and after writes", test_views);
    CU_add_test(suite, "inputs that share a storage", test_aliased_inputs);
    CU_add_test(suite, "reading in the middle", test_reading_in_the_middle);
    CU_add_test(suite, "two ways through a function", test_two_ways);
    CU_add_test(suite, "an attribute that varies", test_attribute_that_varies);
    CU_add_test(suite, "a call that fails", test_failing_call);
    CU_add_test(suite, "indices are checked at their call", test_index_checked_at_its_call);
    CU_add_test(suite, "random numbers", test_random);
    CU_add_test(suite, "memory that other code writes", test_foreign);
    CU_add_test(suite, "a training step", test_training_step);
    CU_add_test(suite, "calls within calls", test_nested);
    CU_add_test(suite, "out of memory", test_out_of_memory);
    CU_basic_set_mode(CU_BRM_NORMAL);
    CU_basic_run_tests();
    int failures = (int)CU_get_number_of_failures();
    CU_cleanup_registry();
    return failures != 0;
}
