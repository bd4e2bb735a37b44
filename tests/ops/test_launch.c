/* The launch: what runs inline, what is queued and in which order, tickets, sticky errors, in-place
 * rules, arguments.
 *
 * A backend of the test's own stands in for the CPU's: plain kernels, a predicted time at will, a
 * gate that holds kernels of queued ops back, and failure on demand.
 */
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ops/attr.h"
#include "ops/queue_int.h"
#include "ops_gen.h"
#include "tensor/memory.h"
#include "tests/check.h"
#include "tests/fork.h"

/* ---- the backend ----- */

static struct {
    _Atomic double us;   /* predicted for every kernel */
    _Atomic bool closed; /* kernels wait */
    _Atomic int failing; /* that many kernels from now on fail */
    _Atomic int runs;
    sp_kargs last; /* geometry of the last kernel run inline by the test's own thread */
} fake;

static double load(const sp_operand *a, int64_t at)
{
    switch ((sp_dtype)a->dtype) {
    case SP_BOOL: return ((const uint8_t *)a->data)[at];
    case SP_INT64: return (double)((const int64_t *)a->data)[at];
    case SP_FLOAT32: return (double)((const float *)a->data)[at];
    default: return ((const double *)a->data)[at];
    }
}

static void store(const sp_operand *a, int64_t at, double x)
{
    switch ((sp_dtype)a->dtype) {
    case SP_BOOL: ((uint8_t *)a->data)[at] = x != 0; break;
    case SP_INT64: ((int64_t *)a->data)[at] = (int64_t)x; break;
    case SP_FLOAT32: ((float *)a->data)[at] = (float)x; break;
    default: ((double *)a->data)[at] = x; break;
    }
}

/* arg[0] = arg[1] + arg[2], or = arg[2] for copies, over arg[0]'s shape. */
static void elementwise(const sp_kargs *k)
{
    const sp_operand *out = &k->arg[0], *x = &k->arg[1], *y = &k->arg[2];
    int64_t index[SP_MAX_RANK] = {0};
    for (int64_t n = 0; n < out->numel; n++) {
        int64_t at[3] = {0};
        for (int d = 0; d < out->rank; d++) {
            for (int i = 0; i < 3; i++) {
                int back = out->rank - k->arg[i].rank, own = d - back;
                if (own >= 0 && k->arg[i].shape[own] != 1)
                    at[i] += index[d] * k->arg[i].stride[own];
            }
        }
        store(out, at[0], k->op == SP_OP_COPY ? load(y, at[2]) : load(x, at[1]) + load(y, at[2]));
        for (int d = out->rank - 1; d >= 0 && ++index[d] == out->shape[d]; d--) index[d] = 0;
    }
}

static sp_status fake_kernel(const sp_kargs *k)
{
    while (atomic_load(&fake.closed)) sched_yield();
    atomic_fetch_add(&fake.runs, 1);
    if (atomic_load(&fake.failing) > 0) {
        atomic_fetch_sub(&fake.failing, 1);
        return sp_fail(SP_EMEMORY, "no workspace of 42 bytes");
    }
    if (k->op == SP_OP_INDEX_SELECT)
        return sp_fail(SP_EINDEX, "index_select: index 9 is out of range");
    elementwise(k);
    return SP_OK;
}

/* Also remembers the arguments: only for tests that run in one thread. */
static sp_status noting_kernel(const sp_kargs *k)
{
    memcpy(&fake.last, k, sizeof *k);
    fake.last.arg = fake.last.room;
    return fake_kernel(k);
}

/* Of each tuple: arg[0] = arg[1] - arg[2], dense. */
static sp_status updating_kernel(const sp_kargs *k)
{
    while (atomic_load(&fake.closed)) sched_yield();
    atomic_fetch_add(&fake.runs, 1);
    for (int i = 0; i < k->n_tuples; i++) {
        const sp_operand *out = &k->arg[i], *in = &k->arg[k->n_out + 2 * i];
        for (int64_t n = 0; n < out->numel; n++) store(out, n, load(&in[0], n) - load(&in[1], n));
    }
    return SP_OK;
}

static sp_kernel find(int op)
{
    if (op == SP_OP_SGD_STEP) return updating_kernel;
    bool known = op == SP_OP_ADD || op == SP_OP_GT || op == SP_OP_COPY || op == SP_OP_INDEX_SELECT;
    return !known ? NULL : op == SP_OP_GT ? noting_kernel : fake_kernel;
}

static double predict(const sp_kargs *k)
{
    (void)k;
    return atomic_load(&fake.us);
}

static const sp_backend backend = {.name = "fake", .kernel = find, .predict_us = predict};

enum { QUEUED = 1000, SHORT = 1 }; /* predicted microseconds */

/* queue_min_us 100, or 0: everything is queued. */
static void begin(double queue_min_us)
{
    sp__backends[SP_DEVICE_CPU] = &backend;
    sp__launch_forget_kernels();
    sp__knobs_read();
    sp__knobs.blocking = false;
    sp__knobs.queue_min_us = queue_min_us;
    atomic_store(&sp__knobs.quick_numel, queue_min_us > 0 ? 64 : -1);
    atomic_store(&fake.us, SHORT);
    atomic_store(&fake.closed, false);
    atomic_store(&fake.failing, 0);
    atomic_store(&fake.runs, 0);
    sp_launch_stats_reset();
}

static sp_launch_stats stats(void)
{
    sp_launch_stats s;
    sp_launch_stats_get(&s);
    return s;
}

static sp_tensor *numbers(int64_t n, float first)
{
    float data[1024];
    sp_tensor *t;
    for (int64_t i = 0; i < n; i++) data[i] = first + (float)i;
    OK(sp_from_data(data, SP_FLOAT32, 1, &n, &t));
    return t;
}

static sp_tensor *add(const sp_tensor *a, const sp_tensor *b)
{
    sp_tensor *out;
    OK(sp_add(a, b, &out));
    return out;
}

static float first_of(const sp_tensor *t)
{
    float data[1024];
    OK(sp_copy_out(t, data, sizeof data));
    return data[0];
}

/* ---- inline and queued ----- */

static void small_ops_run_at_once(void)
{
    begin(100);
    sp_tensor *a = numbers(8, 1), *b = add(a, a), *c = add(a, b);
    CHECK(first_of(c) == 3);
    CHECK(stats().inline_runs == 2 && stats().eager_launches == 2);
    sp_drop(&a), sp_drop(&b), sp_drop(&c);
}

static void long_ops_and_what_needs_them_are_queued(void)
{
    begin(100);
    sp_tensor *a = numbers(100, 1), *small = numbers(8, 5);
    atomic_store(&fake.us, QUEUED);
    atomic_store(&fake.closed, true);
    sp_tensor *b = add(a, a); /* long */
    atomic_store(&fake.us, SHORT);
    sp_tensor *c = add(b, a); /* short, but b is pending */
    OK(sp_add_(a, a));        /* writes what b and c still read */
    CHECK(atomic_load(&fake.runs) == 0 && stats().inline_runs == 0);
    atomic_store(&fake.closed, false);
    sp_tensor *other = add(small, small); /* independent */
    CHECK(first_of(other) == 10 && stats().inline_runs == 1);
    CHECK(first_of(c) == 3 && first_of(b) == 2 && first_of(a) == 2);
    CHECK(stats().queued_runs + stats().helped_runs == 3);
    sp_drop(&a), sp_drop(&b), sp_drop(&c), sp_drop(&small), sp_drop(&other);
}

static void readers_of_a_pending_write_wait_but_other_reads_do_not(void)
{
    begin(100);
    sp_tensor *a = numbers(100, 1);
    atomic_store(&fake.us, QUEUED);
    atomic_store(&fake.closed, true);
    sp_tensor *b = add(a, a);
    CHECK(first_of(a) == 1); /* a is only read by the queue: no waiting, or this would hang */
    CHECK(atomic_load(&fake.runs) == 0);
    atomic_store(&fake.closed, false);
    OK(sp__storage_wait(a->storage, true));
    CHECK(atomic_load(&fake.runs) == 1);
    sp_drop(&a), sp_drop(&b);
}

static void more_ops_than_slots(void)
{
    begin(0);
    sp_tensor *one = numbers(8, 1), *sum = numbers(8, 0);
    for (int i = 0; i < 1000; i++) {
        sp_tensor *next = add(sum, one);
        sp_drop(&sum); /* the queue holds its storage */
        sum = next;
    }
    CHECK(first_of(sum) == 1000);
    CHECK(stats().inline_runs == 0 && stats().queued_runs + stats().helped_runs == 1000);
    for (int i = 0; i < 600; i++) OK(sp_add_(sum, one));
    CHECK(first_of(sum) == 1600);
    sp_drop(&one), sp_drop(&sum);
    OK(sp_synchronize());
}

static void blocking_queues_nothing(void)
{
    begin(0);
    sp__knobs.blocking = true;
    sp_tensor *a = numbers(8, 1), *b = add(a, a);
    CHECK(stats().inline_runs == 1 && atomic_load(&fake.runs) == 1);
    sp_drop(&a), sp_drop(&b);
}

static void foreign_memory_is_done_at_return(void)
{
    begin(0);
    float data[4] = {1, 2, 3, 4};
    int64_t n = 4;
    sp_tensor *f, *a = numbers(4, 1);
    OK(sp_from_foreign(data, SP_FLOAT32, 1, &n, NULL, false, NULL, NULL, &f));
    sp_tensor *b = add(a, a), *c = add(b, f); /* c waits for b, runs here */
    data[0] = 100;
    CHECK(first_of(c) == 3);
    OK(sp_add_(f, a));
    CHECK(data[0] == 101 && data[3] == 8);
    sp_drop(&a), sp_drop(&b), sp_drop(&c), sp_drop(&f);
}

static void readonly_memory_stays(void)
{
    begin(100);
    float data[4] = {1, 2, 3, 4};
    int64_t n = 4;
    sp_tensor *f, *a = numbers(4, 1);
    OK(sp_from_foreign(data, SP_FLOAT32, 1, &n, NULL, true, NULL, NULL, &f));
    FAILS(sp_add_(f, a), SP_EVALUE, "add_: the tensor's memory is read-only");
    CHECK(data[0] == 1 && sp_version(f) == 0);
    sp_drop(&a), sp_drop(&f);
}

static void empty_results_need_no_kernel(void)
{
    begin(100);
    sp_tensor *a = numbers(0, 1), *b = add(a, a);
    CHECK(sp_numel(b) == 0 && atomic_load(&fake.runs) == 0);
    sp_drop(&a), sp_drop(&b);
}

static void ops_without_a_kernel_say_so(void)
{
    begin(100);
    sp_tensor *a = numbers(4, 1), *out;
    FAILS(sp_exp(a, &out), SP_EUNSUPPORTED, "exp: device fake has no kernel");
    CHECK(out == NULL);
    sp_drop(&a);
}

/* ---- errors ----- */

static void errors_of_inline_ops_are_raised_by_them(void)
{
    begin(100);
    sp_memory_stats before, after;
    sp_tensor *a = numbers(8, 1), *out;
    sp_memory_stats_get(&before);
    atomic_store(&fake.failing, 1);
    FAILS(sp_add(a, a, &out), SP_EMEMORY, "42 bytes");
    sp_memory_stats_get(&after);
    CHECK(out == NULL && before.live_bytes == after.live_bytes);
    atomic_store(&fake.failing, 1);
    FAILS(sp_add_(a, a), SP_EMEMORY, "42 bytes");
    CHECK(sp_version(a) == 0);
    sp_drop(&a);
}

static int where_alive;

static void where_here(sp__where *out)
{
    out->code = &where_alive;
    out->at = 12;
    where_alive++;
}

static void where_drop(sp__where *where)
{
    CHECK(where->code == &where_alive);
    where_alive--;
}

static void where_text(const sp__where *where, char *buf, size_t n)
{
    snprintf(buf, n, "train.py:%d", where->at);
}

static void errors_of_queued_ops_stick(void)
{
    begin(0);
    sp_where_hooks none = sp__where_hooks;
    sp__where_hooks = (sp_where_hooks){.here = where_here, .drop = where_drop, .text = where_text};
    sp_tensor *a = numbers(3, 1);
    atomic_store(&fake.failing, 2);
    sp_tensor *b = add(a, a), *c = add(b, a), *d = add(c, a);
    float data[3];
    FAILS(sp_copy_out(d, data, sizeof data), SP_EMEMORY,
          "add(float32 (3,), float32 (3,)): no workspace of 42 bytes [issued at train.py:12]");
    OK(sp_synchronize()); /* said once */
    sp_tensor *e = add(a, a);
    CHECK(first_of(e) == 2);        /* and the process goes on */
    for (int i = 0; i < 300; i++) { /* every slot is used again, with nothing to remember */
        if (i == 0) sp__where_hooks.here = NULL;
        OK(sp_add_(e, a));
    }
    OK(sp_synchronize());
    CHECK(where_alive == 0);
    sp__where_hooks = none;
    sp_drop(&a), sp_drop(&b), sp_drop(&c), sp_drop(&d), sp_drop(&e);
}

static void ops_that_check_data_never_fail_later(void)
{
    begin(0);
    sp_tensor *x = numbers(4, 1), *index, *out;
    int64_t two[2] = {0, 9}, n = 2;
    OK(sp_from_data(two, SP_INT64, 1, &n, &index));
    sp_tensor *y = add(x, x);
    FAILS(sp_index_select(y, 0, index, &out), SP_EINDEX, "index 9");
    OK(sp_synchronize());
    sp_drop(&x), sp_drop(&y), sp_drop(&index);
}

static void failed_allocation_leaves_nothing_behind(void)
{
    begin(0);
    sp_tensor *a = numbers(700, 1), *warm = add(a, a);
    sp_memory_stats before, after;
    OK(sp_synchronize());
    sp_drop(&warm);
    sp_memory_stats_get(&before);
    for (int n = 1, reached = 1; reached; n++) {
        sp_tensor *out = NULL;
        sp_memory_fail_nth(n, false);
        sp_status status = sp_add(a, a, &out);
        if (!status) status = sp_synchronize();
        reached = sp_memory_requests() >= n;
        sp_memory_fail_nth(0, false);
        CHECK(reached ? status == SP_EMEMORY : status == SP_OK);
        sp_drop(&out);
        OK(sp_synchronize());
        sp_memory_stats_get(&after);
        CHECK(before.live_bytes == after.live_bytes);
    }
    sp_drop(&a);
}

/* ---- in place and out= ----- */

static void writing_counts_versions(void)
{
    begin(100);
    sp_tensor *a = numbers(8, 1), *b = numbers(8, 10), *view, *o = numbers(8, 0);
    OK(sp_add_(a, b));
    CHECK(sp_version(a) == 1 && sp_version(b) == 0 && first_of(a) == 11);
    OK(sp_slice(a, 0, 2, 6, NULL, &view));
    CHECK(view->storage == a->storage);
    OK(sp_add_(view, view));
    CHECK(sp_version(a) == 2 && first_of(view) == 30);
    OK(sp_add_out(a, b, o));
    CHECK(sp_version(o) == 1 && first_of(o) == 21);
    sp_drop(&a), sp_drop(&b), sp_drop(&view), sp_drop(&o);
}

static void targets_must_fit(void)
{
    begin(100);
    int64_t shape[2] = {3, 1}, wide[2] = {3, 4}, ints[4] = {1, 2, 3, 4}, n = 4;
    sp_tensor *column, *row = numbers(4, 1), *expanded, *whole, *out = numbers(3, 0);
    OK(sp_from_data((float[]){1, 2, 3}, SP_FLOAT32, 2, shape, &column));
    FAILS(sp_add_(column, row), SP_ESHAPE,
          "add_: the result has shape (3, 4), the tensor to hold it (3, 1)");
    OK(sp_expand(column, wide, 2, &expanded));
    FAILS(sp_add_(expanded, row), SP_EVALUE, "one in memory (expand)");
    OK(sp_from_data(ints, SP_INT64, 1, &n, &whole));
    FAILS(sp_add_(whole, row), SP_EDTYPE,
          "add_: the result is float32, which a tensor of int64 cannot hold");
    FAILS(sp_add_out(row, row, out), SP_ESHAPE, "add: the result has shape (4,)");
    FAILS(sp_add_out(row, whole, whole), SP_EDTYPE, "int64 cannot hold");
    CHECK(sp_version(column) == 0 && sp_version(whole) == 0 && sp_version(out) == 0);
    sp_drop(&column), sp_drop(&row), sp_drop(&expanded), sp_drop(&whole), sp_drop(&out);
}

static void results_are_cast_to_the_target(void)
{
    begin(100);
    double data[4] = {0.5, 1, 2, 3};
    int64_t n = 4;
    sp_tensor *wide, *narrow = numbers(4, 1), *out;
    OK(sp_from_data(data, SP_FLOAT64, 1, &n, &wide));
    OK(sp_add_(narrow, wide)); /* computed in float64, stored as float32 */
    CHECK(narrow->dtype == SP_FLOAT32 && first_of(narrow) == 1.5f && sp_version(narrow) == 1);
    OK(sp_from_data(data, SP_FLOAT64, 1, &n, &out));
    OK(sp_add_out(narrow, narrow, out));
    OK(sp_copy_out(out, data, sizeof data));
    CHECK(data[0] == 3);
    sp_drop(&wide), sp_drop(&narrow), sp_drop(&out);
}

static void overlapping_sources_are_read_first(void)
{
    for (int queue = 0; queue < 2; queue++) {
        begin(queue ? 0 : 100);
        float data[8];
        sp_tensor *a = numbers(8, 1), *to, *from;
        OK(sp_slice(a, 0, 1, 8, NULL, &to));
        OK(sp_slice(a, 0, 0, 7, NULL, &from));
        OK(sp_add_(to, from));
        OK(sp_copy_out(a, data, sizeof data));
        for (int i = 1; i < 8; i++) CHECK(data[i] == (float)(2 * i + 1));
        OK(sp_copy_(to, from));
        OK(sp_copy_out(a, data, sizeof data));
        CHECK(data[0] == 1 && data[1] == 1 && data[2] == 3 && data[7] == 13);
        sp_drop(&a), sp_drop(&to), sp_drop(&from);
    }
}

/* ---- arguments ----- */

static sp_tensor *dense(int rank, const int64_t *shape)
{
    static const float zeros[1024];
    sp_tensor *t;
    OK(sp_from_data(zeros, SP_FLOAT32, rank, shape, &t));
    return t;
}

static void check_args(const sp_tensor *x, const sp_tensor *y, int rank, bool is_dense,
                       const int64_t *shape, const int64_t *step_x, const int64_t *step_y)
{
    sp_tensor *out;
    OK(sp_gt(x, y, &out));
    const sp_kargs *k = &fake.last;
    CHECK(k->arg[0].rank == rank && k->dense == is_dense && k->compute == SP_FLOAT32 &&
          k->arg[0].dtype == SP_BOOL);
    for (int d = 0; d < rank; d++) {
        for (int i = 0; i < 3; i++) CHECK(k->arg[i].rank == rank && k->arg[i].shape[d] == shape[d]);
        CHECK(k->arg[1].stride[d] == step_x[d] && k->arg[2].stride[d] == step_y[d]);
    }
    sp_drop(&out);
}
#define DIMS(...)                                                                                  \
    (int64_t[])                                                                                    \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }

static void dimensions_are_merged(void)
{
    begin(100);
    sp_tensor *a = dense(3, DIMS(4, 3, 5)), *b = dense(3, DIMS(4, 3, 5)), *row = dense(1, DIMS(5)),
              *none = dense(0, NULL);
    sp_tensor *plane = dense(3, DIMS(4, 1, 1)), *turned, *part, *single = dense(3, DIMS(1, 1, 1));
    for (int again = 0; again < 2; again++) /* the second time without inference */
        check_args(a, b, 1, true, DIMS(60), DIMS(1), DIMS(1));
    check_args(a, row, 2, false, DIMS(12, 5), DIMS(5, 1), DIMS(0, 1));
    check_args(a, none, 1, true, DIMS(60), DIMS(1), DIMS(0));
    check_args(a, plane, 2, false, DIMS(4, 15), DIMS(15, 1), DIMS(1, 0));
    check_args(single, single, 0, true, NULL, NULL, NULL);
    OK(sp_transpose(a, 0, 1, &turned));
    check_args(turned, turned, 3, false, DIMS(3, 4, 5), DIMS(5, 15, 1), DIMS(5, 15, 1));
    OK(sp_slice(a, 0, 1, 3, NULL, &part));
    check_args(part, part, 1, true, DIMS(30), DIMS(1), DIMS(1));
    sp_drop(&part);
    OK(sp_slice(a, 2, 1, 3, NULL, &part));
    check_args(part, part, 2, false, DIMS(12, 2), DIMS(5, 1), DIMS(5, 1));
    sp_drop(&a), sp_drop(&b), sp_drop(&row), sp_drop(&none), sp_drop(&plane), sp_drop(&turned),
        sp_drop(&part), sp_drop(&single);
}

static void a_turned_target_is_walked_as_it_lies(void)
{
    sp_kargs k;
    sp_tensor *a = dense(3, DIMS(4, 3, 5)), *turned;
    OK(sp_permute(a, DIMS(2, 0, 1), 3, &turned));
    sp_tensor *in[2] = {turned, turned};
    sp_call c = {.op = SP_OP_ADD,
                 .n_out = 1,
                 .n_in = 2,
                 .in = in,
                 .out = {turned},
                 .flags = SP_CALL_INPLACE};
    sp__kargs_fill(&c, &k);
    CHECK(k.dense && k.arg[0].rank == 1 && k.arg[0].shape[0] == 60 && k.arg[2].stride[0] == 1);
    sp_drop(&a), sp_drop(&turned);
}

static void comparisons_compute_in_the_common_dtype(void)
{
    begin(100);
    int64_t ints[2] = {1, 2}, n = 2;
    double wide = 1;
    sp_tensor *i, *scalar, *f = numbers(2, 1), *out;
    OK(sp_from_data(ints, SP_INT64, 1, &n, &i));
    OK(sp_from_data(&wide, SP_FLOAT64, 0, NULL, &scalar));
    OK(sp_gt(i, f, &out));
    CHECK(fake.last.compute == SP_FLOAT32);
    sp_drop(&out);
    OK(sp_gt(f, scalar, &out)); /* a number in a tensor does not widen */
    CHECK(fake.last.compute == SP_FLOAT32);
    sp_drop(&out);
    OK(sp_gt(i, scalar, &out));
    CHECK(fake.last.compute == SP_FLOAT64);
    sp_drop(&out);
    sp_drop(&i), sp_drop(&scalar), sp_drop(&f);
}

/* ---- raw launches, threads, fork ----- */

typedef struct fill_args {
    float *to;
    float value;
} fill_args;

static sp_status fill(void *args)
{
    fill_args *a = args;
    *a->to = a->value;
    return SP_OK;
}

static void raw_launches(void)
{
    begin(100);
    sp_tensor *a = numbers(8, 1), *c = numbers(100, 1), *d;
    sp_storage *s[1] = {a->storage}, *r[1] = {c->storage};
    fill_args args = {(float *)sp__data(a), 50};
    OK(sp__launch_raw(fill, &args, sizeof args, SHORT, r, 1, s, 1));
    CHECK(first_of(a) == 50);
    args.value = 60;
    atomic_store(&fake.us, QUEUED);
    atomic_store(&fake.closed, true);
    d = add(c, c); /* long */
    OK(sp__launch_raw(fill, &args, sizeof args, QUEUED, r, 1, s, 1));
    CHECK(*args.to == 50);
    args.value = 0; /* the queue has its own copy */
    atomic_store(&fake.closed, false);
    CHECK(first_of(a) == 60);
    CHECK(stats().eager_launches == 1); /* the add; plans are counted by who launches them */
    sp_drop(&a), sp_drop(&c), sp_drop(&d);
}

static void *chain(void *arg)
{
    sp_tensor *one = numbers(8, 1), *sum = numbers(8, 0);
    int failed = 0;
    for (int i = 1; i <= 500; i++) {
        sp_tensor *next = add(sum, one);
        sp_drop(&sum);
        sum = next;
        if (i % 50 == 0) failed += first_of(sum) != (float)i;
    }
    sp_drop(&one), sp_drop(&sum);
    *(int *)arg = failed;
    return NULL;
}

static void several_threads_issue(void)
{
    begin(0);
    pthread_t t[4];
    int failed[4];
    for (int i = 0; i < 4; i++) NEED(pthread_create(&t[i], NULL, chain, &failed[i]) == 0);
    for (int i = 0; i < 4; i++) {
        pthread_join(t[i], NULL);
        CHECK(failed[i] == 0);
    }
    CHECK(stats().eager_launches == 2000);
    OK(sp_synchronize());
}

static void a_forked_child_queues_on(void)
{
    begin(0);
    sp_tensor *a = numbers(8, 1), *b = add(a, a);
    for (int i = 0; i < 3; i++) {
        OK(sp_add_(b, a)); /* pending when forking */
        pid_t child = fork();
        if (child == 0) {
            int failed = 1;
            chain(&failed);
            sp_tensor *c = add(b, b);
            _exit(failed || first_of(c) != 2 * (float)(3 + i));
        }
        int status = -1;
        CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    CHECK(first_of(b) == 5);
    sp_drop(&a), sp_drop(&b);
}

static int left, entered;

static void *note_leave(void)
{
    left++;
    return &left;
}

static void note_enter(void *what)
{
    CHECK(what == &left);
    entered++;
}

static void the_interpreter_lock_is_let_go(void)
{
    begin(1e9);
    sp_tensor *a = numbers(100, 1), *b;
    sp__blocking_hooks = (sp_blocking_hooks){note_leave, note_enter};
    atomic_store(&fake.us, 5);
    b = add(a, a);
    CHECK(left == 0); /* not worth it */
    sp_drop(&b);
    atomic_store(&fake.us, 50);
    b = add(a, a);
    CHECK(left == 1 && entered == 1);
    sp__blocking_hooks = (sp_blocking_hooks){NULL, NULL};
    sp_drop(&a), sp_drop(&b);
}

/* ---- many tuples ----- */

enum { PAIRS = 20 };

typedef struct pairs {
    sp_tensor *t[2 * PAIRS]; /* parameter, gradient, parameter, ... */
    sp_call call;
} pairs;

/* Parameters of i + 1 elements 10 i, gradients of ones. */
static void make_pairs(pairs *p)
{
    for (int i = 0; i < 2 * PAIRS; i++) {
        int64_t n = i / 2 + 1;
        sp_meta m = {.dtype = SP_FLOAT32, .rank = 1, .shape = {n}, .view_of = -1};
        OK(sp__meta_dense(&m, "test"));
        OK(sp__handle_new(&m, NULL, &p->t[i]));
        for (int64_t k = 0; k < n; k++)
            ((float *)sp__data(p->t[i]))[k] = i % 2 ? 1 : (float)(5 * i);
    }
    p->call = (sp_call){.op = SP_OP_SGD_STEP, .n_out = 1, .n_attr = 3, .n_in = 2, .in = p->t};
    p->call.attr[0] = p->call.attr[1] = sp__attr_scalar(SP_FLOAT(1));
    p->call.attr[2] = sp__attr_bool(false);
}

static void drop_pairs(pairs *p)
{
    for (int i = 0; i < 2 * PAIRS; i++) sp_drop(&p->t[i]);
}

static bool all_stepped(const pairs *p, int times)
{
    bool right = true;
    for (int i = 0; i < PAIRS; i++) {
        OK(sp__storage_wait(p->t[2 * i]->storage, false));
        for (int k = 0; k <= i; k++)
            right = right && ((float *)sp__data(p->t[2 * i]))[k] == (float)(10 * i - times);
    }
    return right;
}

static void many_updates_are_one_launch(void)
{
    pairs p;
    begin(100);
    make_pairs(&p);
    OK(sp__dispatch_each(&p.call, PAIRS));
    CHECK(atomic_load(&fake.runs) == 1 && all_stepped(&p, 1));
    for (int i = 0; i < 2 * PAIRS; i++) CHECK(p.t[i]->storage->version == (i % 2 ? 0u : 1u));
    atomic_store(&fake.us, QUEUED);
    atomic_store(&fake.closed, true);
    OK(sp__dispatch_each(&p.call, PAIRS)); /* queued: more operands than a slot holds */
    CHECK(sp__ticket_pending(SP_DEVICE_CPU, &p.t[0]->storage->write_ticket));
    CHECK(sp__ticket_pending(SP_DEVICE_CPU, &p.t[1]->storage->read_ticket));
    atomic_store(&fake.closed, false);
    CHECK(all_stepped(&p, 2) && atomic_load(&fake.runs) == 2);
    OK(sp__dispatch_each(&p.call, 0));
    CHECK(atomic_load(&fake.runs) == 2);
    drop_pairs(&p);
}

static void updates_that_share_memory_run_one_by_one(void)
{
    pairs p;
    begin(100);
    make_pairs(&p);
    sp_tensor *own = p.t[2];
    OK(sp__handle_new(&(sp_meta){.dtype = SP_FLOAT32,
                                 .rank = 1,
                                 .shape = {2},
                                 .stride = {1},
                                 .numel = 2,
                                 .contiguous = true},
                      p.t[2 * PAIRS - 2]->storage, &p.t[2])); /* of the last parameter */
    OK(sp__dispatch_each(&p.call, PAIRS));
    CHECK(atomic_load(&fake.runs) == PAIRS);
    const float *last = (float *)sp__data(p.t[2 * PAIRS - 2]);
    CHECK(last[0] == 10 * (PAIRS - 1) - 2 && last[2] == 10 * (PAIRS - 1) - 1);
    sp_drop(&own);
    drop_pairs(&p);
}

static void nothing_is_updated_if_one_cannot_be(void)
{
    pairs p;
    begin(100);
    make_pairs(&p);
    sp_tensor *grad = p.t[2 * PAIRS - 1];
    p.t[2 * PAIRS - 1] = p.t[1];
    FAILS(sp__dispatch_each(&p.call, PAIRS), SP_ESHAPE, "param has shape (20,) and grad (1,)");
    p.t[2 * PAIRS - 1] = grad;
    p.t[2 * PAIRS - 2]->storage->flags |= SP_S_READONLY;
    FAILS(sp__dispatch_each(&p.call, PAIRS), SP_EVALUE, "read-only");
    CHECK(atomic_load(&fake.runs) == 0 && all_stepped(&p, 0));
    drop_pairs(&p);
}

static void updates_survive_failing_allocations(void)
{
    pairs p;
    sp_memory_stats before, after;
    begin(0);
    make_pairs(&p);
    sp_memory_stats_get(&before);
    for (int n = 1, reached = 1, times = 0; reached; n++) {
        sp_memory_fail_nth(n, false);
        sp_status status = sp__dispatch_each(&p.call, PAIRS);
        reached = sp_memory_requests() >= n;
        sp_memory_fail_nth(0, false);
        CHECK(status == SP_OK || (reached && status == SP_EMEMORY));
        CHECK(all_stepped(&p, times += status == SP_OK));
        OK(sp_synchronize());
        sp_memory_stats_get(&after);
        CHECK(before.live_bytes == after.live_bytes);
    }
    drop_pairs(&p);
}

SUITE("ops/launch", TEST(small_ops_run_at_once), TEST(long_ops_and_what_needs_them_are_queued),
      TEST(readers_of_a_pending_write_wait_but_other_reads_do_not), TEST(more_ops_than_slots),
      TEST(blocking_queues_nothing), TEST(foreign_memory_is_done_at_return),
      TEST(readonly_memory_stays), TEST(empty_results_need_no_kernel),
      TEST(ops_without_a_kernel_say_so), TEST(errors_of_inline_ops_are_raised_by_them),
      TEST(errors_of_queued_ops_stick), TEST(ops_that_check_data_never_fail_later),
      TEST(failed_allocation_leaves_nothing_behind), TEST(writing_counts_versions),
      TEST(targets_must_fit), TEST(results_are_cast_to_the_target),
      TEST(overlapping_sources_are_read_first), TEST(dimensions_are_merged),
      TEST(a_turned_target_is_walked_as_it_lies), TEST(comparisons_compute_in_the_common_dtype),
      TEST(raw_launches), TEST(several_threads_issue), TEST(a_forked_child_queues_on),
      TEST(the_interpreter_lock_is_let_go), TEST(many_updates_are_one_launch),
      TEST(updates_that_share_memory_run_one_by_one), TEST(nothing_is_updated_if_one_cannot_be),
      TEST(updates_survive_failing_allocations))
