/* Allocation: counters, caches, threads, failing on purpose; storages and handles on top of it. */
#include <pthread.h>
#include <stdint.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tensor/memory.h"
#include "tensor/tensor.h"
#include "tests/check.h"
#include "tests/fork.h"

static sp_memory_stats stats(void)
{
    sp_memory_stats s;
    sp_memory_stats_get(&s);
    return s;
}

static const size_t sizes[] = {0,      1,    63,   64,     65,      300,           4095,
                               4096,   4097, 5000, 100000, 1 << 20, (1 << 20) + 1, 5 << 20,
                               9 << 20};
enum { N_SIZES = sizeof sizes / sizeof *sizes };

static void blocks_are_aligned_and_whole(void)
{
    for (int round = 0; round < 3; round++) {
        unsigned char *p[N_SIZES];
        for (int i = 0; i < N_SIZES; i++) {
            p[i] = sp__alloc(sizes[i]);
            NEED(p[i] != NULL);
            CHECK((uintptr_t)p[i] % 64 == 0);
            memset(p[i], i + 1, sizes[i]);
        }
        for (int i = 0; i < N_SIZES; i++) {
            bool whole = true;
            for (size_t k = 0; k < sizes[i]; k++) whole &= p[i][k] == i + 1;
            CHECK(whole);
            sp__free(p[i], sizes[i]);
        }
    }
}

static void counters_are_exact_in_one_thread(void)
{
    sp_memory_stats_reset_peak();
    sp_memory_stats before = stats();
    void *a = sp__alloc(1000), *b = sp__alloc(3 << 20);
    sp_memory_stats held = stats();
    CHECK(held.live_bytes - before.live_bytes == 1000 + (3 << 20));
    CHECK(held.live_blocks - before.live_blocks == 2);
    CHECK(held.allocations - before.allocations == 2);
    sp__free(b, 3 << 20);
    sp__free(a, 1000);
    sp_memory_stats after = stats();
    CHECK(after.live_bytes == before.live_bytes && after.live_blocks == before.live_blocks);
    CHECK(after.peak_bytes - before.live_bytes == 1000 + (3 << 20));
    sp_memory_stats_reset_peak();
    CHECK(stats().peak_bytes == after.live_bytes);
}

static void small_steps_count_for_the_peak(void)
{
    void *p[1000];
    sp_memory_stats_reset_peak();
    int64_t before = stats().live_bytes;
    for (int i = 0; i < 1000; i++) p[i] = sp__alloc(700);
    for (int i = 0; i < 1000; i++) sp__free(p[i], 700);
    CHECK(stats().peak_bytes - before == 700 * 1000);
    CHECK(stats().live_bytes == before);
}

static void trimming_empties_the_caches(void)
{
    for (int i = 0; i < N_SIZES; i++) sp__free(sp__alloc(sizes[i]), sizes[i]);
    sp_memory_trim();
    CHECK(stats().cached_bytes == 0);
}

static void impossible_sizes_are_null(void)
{
    volatile size_t impossible[] = {SIZE_MAX, SIZE_MAX - 63,
                                    (size_t)PTRDIFF_MAX}; /* or the compiler complains */
    for (int i = 0; i < 3; i++) CHECK(sp__alloc(impossible[i]) == NULL);
}

static void realloc_keeps_the_content(void)
{
    char *p = sp__dup("spool", 6);
    NEED(p != NULL);
    char *q = sp__realloc(p, 6, 10000);
    NEED(q != NULL && strcmp(q, "spool") == 0);
    sp_memory_fail_nth(1, false);
    CHECK(sp__realloc(q, 10000, 20000) == NULL);
    sp_memory_fail_nth(0, false);
    CHECK(strcmp(q, "spool") == 0);
    sp__free(q, 10000);
    char *zero = sp__alloc_zero(100);
    NEED(zero != NULL && zero[0] == 0 && zero[99] == 0);
    sp__free(zero, 100);
}

static void the_nth_request_fails(void)
{
    int64_t live = stats().live_blocks;
    sp_memory_fail_nth(3, false);
    for (int i = 1; i <= 5; i++) {
        void *p = sp__alloc(64);
        CHECK((p == NULL) == (i == 3));
        sp__free(p, 64);
    }
    CHECK(sp_memory_requests() == 5);
    sp_memory_fail_nth(2, true);
    for (int i = 1; i <= 4; i++) {
        void *p = sp__alloc(64);
        CHECK((p == NULL) == (i >= 2));
        sp__free(p, 64);
    }
    sp_memory_fail_nth(0, false);
    CHECK(stats().live_blocks == live);
}

/* ---- threads ----- */

enum { PASSED = 20000 };
static _Atomic(void *) mailbox;

static void *free_what_comes(void *arg)
{
    (void)arg;
    for (int i = 0; i < PASSED;) {
        void *p = atomic_exchange(&mailbox, NULL);
        if (!p) continue;
        CHECK(((char *)p)[0] == 7);
        sp__free(p, 384);
        i++;
    }
    return NULL;
}

static void other_threads_may_free(void)
{
    pthread_t other;
    int64_t live = stats().live_bytes;
    NEED(pthread_create(&other, NULL, free_what_comes, NULL) == 0);
    for (int i = 0; i < PASSED; i++) {
        char *p = sp__alloc(384), *empty = NULL;
        NEED(p != NULL);
        p[0] = 7;
        while (!atomic_compare_exchange_weak((_Atomic(char *) *)&mailbox, &empty, p)) empty = NULL;
    }
    pthread_join(other, NULL);
    CHECK(stats().live_bytes == live);
    CHECK(stats().cached_bytes < 4 << 20); /* blocks went round instead of piling up */
}

static void *churn(void *arg)
{
    uint64_t seed = (uintptr_t)arg;
    void *p[64] = {NULL};
    size_t bytes[64] = {0};
    for (int i = 0; i < 20000; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        int at = (int)(seed >> 40) % 64;
        sp__free(p[at], bytes[at]);
        bytes[at] = sizes[(seed >> 50) % 11];
        p[at] = sp__alloc(bytes[at]);
    }
    for (int i = 0; i < 64; i++) sp__free(p[i], bytes[i]);
    return NULL;
}

static void threads_allocate_at_once(void)
{
    pthread_t t[4];
    sp_memory_stats before = stats();
    for (uintptr_t i = 0; i < 4; i++)
        NEED(pthread_create(&t[i], NULL, churn, (void *)(i + 1)) == 0);
    for (int i = 0; i < 4; i++) pthread_join(t[i], NULL);
    CHECK(stats().live_bytes == before.live_bytes && stats().live_blocks == before.live_blocks);
}

static void a_forked_child_can_allocate(void)
{
    pthread_t other;
    NEED(pthread_create(&other, NULL, churn, (void *)9) == 0);
    for (int i = 0; i < 5; i++) {
        pid_t child = fork();
        if (child == 0) {
            churn((void *)5);
            _exit(0);
        }
        int status = -1;
        CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    pthread_join(other, NULL);
}

/* ---- storages and handles ----- */

static void handles_give_everything_back(void)
{
    int64_t live = stats().live_bytes;
    float data[600] = {1, 2, 3};
    for (int64_t n = 0; n <= 600; n += 200) { /* inline and separate bytes */
        sp_tensor *t, *alias;
        OK(sp_from_data(data, SP_FLOAT32, 1, &n, &t));
        sp__tensor_check(t);
        OK(sp__handle_alias(t, &alias));
        CHECK(alias->storage == t->storage && alias != t);
        CHECK((uintptr_t)sp__data(t) % 64 == 0);
        sp_drop(&t);
        CHECK(t == NULL);
        sp_drop(&t);
        sp_tensor *twice = sp_retain(alias);
        sp_drop(&alias);
        CHECK(sp_numel(twice) == n);
        sp_drop(&twice);
    }
    CHECK(stats().live_bytes == live);
}

static void making_tensors_survives_failure(void)
{
    float data[600] = {0};
    int64_t shape = 600, live = stats().live_bytes;
    for (int n = 1;; n++) {
        sp_tensor *t;
        sp_memory_fail_nth(n, false);
        sp_status status = sp_from_data(data, SP_FLOAT32, 1, &shape, &t);
        bool reached = sp_memory_requests() >= n;
        sp_memory_fail_nth(0, false);
        CHECK((status == SP_OK) == (t != NULL));
        CHECK(status == SP_OK ? !reached : status == SP_EMEMORY);
        sp_drop(&t);
        CHECK(stats().live_bytes == live);
        if (!reached) break;
    }
}

static void count_release(void *ctx)
{
    ++*(int *)ctx;
}

static void foreign_memory_is_released_once(void)
{
    double data[6] = {1, 2, 3, 4, 5, 6};
    int64_t shape[2] = {2, 3}, strides[2] = {1, 2}, huge[2] = {1, INT64_MAX};
    int released = 0;
    sp_tensor *t, *alias;
    OK(sp_from_foreign(data, SP_FLOAT64, 2, shape, strides, false, count_release, &released, &t));
    CHECK(!sp_is_contiguous(t) && sp__data(t) == (char *)data);
    OK(sp__handle_alias(t, &alias));
    sp_drop(&t);
    CHECK(released == 0);
    sp_drop(&alias);
    CHECK(released == 1);
    strides[0] = -1;
    FAILS(sp_from_foreign(data, SP_FLOAT64, 2, shape, strides, false, count_release, &released, &t),
          SP_EVALUE, "negative");
    CHECK(released == 2 && t == NULL);
    FAILS(sp_from_foreign(data, SP_FLOAT64, 2, shape, huge, false, count_release, &released, &t),
          SP_EMEMORY, "64 bits");
    FAILS(sp_from_foreign((char *)data + 4, SP_FLOAT64, 2, shape, NULL, false, count_release,
                          &released, &t),
          SP_EVALUE, "multiple of 8");
    CHECK(released == 4);
}

static void values_come_out_as_they_went_in(void)
{
    int64_t data[6] = {1, 2, 3, 4, 5, 6}, shape[2] = {2, 3}, columns[2] = {3, 2},
            strides[2] = {1, 3}, out[6], one = 1;
    sp_tensor *t;
    sp_scalar number;
    OK(sp_from_foreign(data, SP_INT64, 2, columns, strides, true, NULL, NULL, &t));
    OK(sp_copy_out(t, out, sizeof out));
    CHECK(out[0] == 1 && out[1] == 4 && out[2] == 2 && out[3] == 5 && out[4] == 3 && out[5] == 6);
    FAILS(sp_copy_out(t, out, 47), SP_EVALUE, "48 bytes");
    FAILS(sp_item(t, &number), SP_ESHAPE, "(3, 2)");
    sp_drop(&t);
    OK(sp_from_data((uint8_t[]){7, 0, 255, 0, 1, 0}, SP_BOOL, 2, shape, &t));
    uint8_t truth[6];
    OK(sp_copy_out(t, truth, sizeof truth));
    CHECK(truth[0] == 1 && truth[1] == 0 && truth[2] == 1);
    void *address;
    OK(sp_data(t, &address));
    CHECK(address == sp__data(t) && (t->storage->flags & SP_S_FOREIGN));
    sp_drop(&t);
    OK(sp_from_data(&(float){2.5f}, SP_FLOAT32, 1, &one, &t));
    OK(sp_item(t, &number));
    CHECK(number.kind == SP_FLOAT64 && number.v.f == 2.5);
    sp_drop(&t);
}

static void bad_arguments_are_told(void)
{
    sp_tensor *t;
    int64_t negative[2] = {2, -1}, huge[2] = {(int64_t)1 << 40, (int64_t)1 << 40}, many[13] = {0};
    FAILS(sp_from_data(NULL, SP_FLOAT32, 2, negative, &t), SP_ESHAPE, "(2, -1)");
    FAILS(sp_from_data(NULL, SP_FLOAT32, 2, huge, &t), SP_EMEMORY, "overflows");
    FAILS(sp_from_data(NULL, SP_FLOAT32, 13, many, &t), SP_ESHAPE, "13 dimensions");
    FAILS(sp_from_data(NULL, (sp_dtype)99, 0, NULL, &t), SP_EDTYPE, "99");
    CHECK(t == NULL);
}

SUITE("tensor/memory", TEST(blocks_are_aligned_and_whole), TEST(counters_are_exact_in_one_thread),
      TEST(small_steps_count_for_the_peak), TEST(trimming_empties_the_caches),
      TEST(impossible_sizes_are_null), TEST(realloc_keeps_the_content), TEST(the_nth_request_fails),
      TEST(other_threads_may_free), TEST(threads_allocate_at_once),
      TEST(a_forked_child_can_allocate), TEST(handles_give_everything_back),
      TEST(making_tensors_survives_failure), TEST(foreign_memory_is_released_once),
      TEST(values_come_out_as_they_went_in), TEST(bad_arguments_are_told))
