/* The pool: every chunk once, whoever runs it; nesting, concurrency, fork, other numbers of
 * threads.
 */
#include "tests/check.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backends/cpu/pool.h"

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define UNDER_TSAN
#endif
#elif defined(__SANITIZE_THREAD__)
#define UNDER_TSAN
#endif

enum { CHUNKS = 1000, LONG_US = 1000000 };

typedef struct tally {
    _Atomic int runs[CHUNKS];
} tally;

static void count(void *ctx, int64_t chunk)
{
    atomic_fetch_add(&((tally *)ctx)->runs[chunk], 1);
}

static bool each_once(const tally *t, int n, int times)
{
    for (int i = 0; i < CHUNKS; i++) {
        if (t->runs[i] != (i < n ? times : 0)) return false;
    }
    return true;
}

static void every_chunk_runs_once(void)
{
    for (int threads = 1; threads <= 4; threads++) {
        OK(sp_set_num_threads(threads));
        CHECK(sp_num_threads() == threads);
        for (int n = 0; n <= CHUNKS; n = n * 2 + 1) {
            static tally t;
            memset(&t, 0, sizeof t);
            for (int i = 0; i < 50; i++) sp__pool_for(n, LONG_US, count, &t);
            CHECK(each_once(&t, n, 50));
        }
    }
}

static void short_loops_wake_nobody(void)
{
    static tally t;
    sp_pool_stats before, after;
    sp__pool_stats(&before);
    sp__pool_for(10, 5.0, count, &t);
    sp__pool_stats(&after);
    CHECK(after.shared == before.shared);
}

typedef struct sums {
    _Atomic int64_t chunks, numbers;
} sums;

static void add_up(void *ctx, int64_t chunk)
{
    atomic_fetch_add(&((sums *)ctx)->chunks, 1);
    atomic_fetch_add(&((sums *)ctx)->numbers, chunk);
}

/* More than a thread's row can count one by one. */
static void very_many_chunks_run_once(void)
{
    enum { MANY = 300007 };
    sums s = {0, 0};
    OK(sp_set_num_threads(2));
    sp__pool_for(MANY, LONG_US, add_up, &s);
    CHECK(s.chunks == MANY);
    CHECK(s.numbers == (int64_t)MANY * (MANY - 1) / 2);
}

/* One loop of 60 us runs alone where nobody is awake; of a row of them, the later ones are shared.
 */
static void a_row_of_short_loops_wakes_a_helper(void)
{
    static tally t;
    sp_pool_stats before, first, after;
    OK(sp_set_num_threads(2)); /* whose helpers are not started yet: nobody is awake */
    sp__pool_stats(&before);
    sp__pool_for(10, 60.0, count, &t);
    sp__pool_stats(&first);
    CHECK(first.shared == before.shared);
    for (int i = 0; i < 20; i++) sp__pool_for(10, 60.0, count, &t);
    sp__pool_stats(&after);
    CHECK(after.shared > first.shared);
}

static void nested(void *ctx, int64_t chunk)
{
    if (chunk % 10 == 0) sp__pool_for(CHUNKS, LONG_US, count, ctx);
}

static void a_loop_in_a_chunk_runs(void)
{
    static tally t;
    OK(sp_set_num_threads(3));
    sp__pool_for(100, LONG_US, nested, &t);
    CHECK(each_once(&t, CHUNKS, 10));
}

static void *from_a_thread(void *ctx)
{
    for (int i = 0; i < 100; i++) sp__pool_for(CHUNKS, LONG_US, count, ctx);
    return NULL;
}

static void threads_may_loop_at_once(void)
{
    static tally t[3];
    pthread_t thread[3];
    OK(sp_set_num_threads(2));
    for (int i = 0; i < 3; i++) NEED(pthread_create(&thread[i], NULL, from_a_thread, &t[i]) == 0);
    for (int i = 0; i < 3; i++) pthread_join(thread[i], NULL);
    for (int i = 0; i < 3; i++) CHECK(each_once(&t[i], CHUNKS, 100));
}

static void a_forked_child_loops(void)
{
    static tally t;
    OK(sp_set_num_threads(2));
    sp__pool_for(CHUNKS, LONG_US, count, &t);
    pid_t pid = fork();
    NEED(pid >= 0);
    if (pid == 0) {
#ifdef UNDER_TSAN /* its runtime ends a forked child that starts threads */
        sp_set_num_threads(1) == SP_OK ? (void)0 : _exit(2);
#endif
        sp__pool_for(CHUNKS, LONG_US, count, &t);
        _exit(each_once(&t, CHUNKS, 2) ? 0 : 1);
    }
    int status;
    NEED(waitpid(pid, &status, 0) == pid);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    sp__pool_for(CHUNKS, LONG_US, count, &t);
    CHECK(each_once(&t, CHUNKS, 2));
}

static void bad_numbers_of_threads(void)
{
    FAILS(sp_set_num_threads(0), SP_EVALUE, "expected at least 1");
    FAILS(sp_set_num_threads(-3), SP_EVALUE, "-3");
}

SUITE("backends/pool", TEST(every_chunk_runs_once), TEST(very_many_chunks_run_once),
      TEST(short_loops_wake_nobody), TEST(a_row_of_short_loops_wakes_a_helper),
      TEST(a_loop_in_a_chunk_runs), TEST(threads_may_loop_at_once), TEST(a_forked_child_loops),
      TEST(bad_numbers_of_threads))
