/* The thread pool: a loop's chunks in one row for each thread, helpers awake for a while, then
 * asleep on a futex.
 *
 *      rows[k] = epoch << 32 | end << 16 | next     chunks left of row k; units of `per` chunks
 *      done    = units finished                     the caller sleeps on it while helpers work
 *      bell    = counts loops                       helpers sleep on it
 *
 * Rows. A thread takes the chunks of its own row from the front, then those of others from the
 * back, so that each thread's chunks are one piece of memory, nearly the same one in loop after
 * loop. Neighbouring chunks that change between cores cost up to three times the loop: caches hand
 * over what the other core wrote, and prefetch what it is about to write (README.md).
 *
 * A loop's fields are written before its epoch is published, while no chunk is left of the loop
 * before. A thread looks at a row's word, reads the fields, then claims a unit by compare-and-swap
 * on the word; success proves that they belonged together, and a late helper takes no newer loop's
 * chunk.
 *
 * Awake or asleep. To wake a sleeping helper costs the caller 3 to 25 us and the helper comes 5 to
 * 70 us later (the larger figures: a virtual machine whose idle core went back to its host). So a
 * helper lingers after a loop, giving its core to whoever wants it, and while one lingers, loops
 * of a quarter of the length are shared.
 *
 * Busy cores. When another process takes a helper's core in the middle of a chunk, the caller waits
 * for a time slice of the scheduler (milliseconds), many times what the loop takes. The caller
 * notices (it waited far longer than its own chunks took) and runs alone for BACKOFF times what it
 * lost: so a busy machine costs at most a fifth of one thread's speed, and a core that was busy for
 * a moment (another library's threads spin for milliseconds after a loop) is used again soon.
 */
#include "backends/cpu/pool.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "tensor/signals.h"
#include "tensor/status.h"

enum {
    MAX_THREADS = 256,
    CACHE_LINE = 64,
    ROW_UNITS = UINT16_MAX, /* of a row, at most: then a unit is several chunks */
    LINGER_NS = 300 * 1000, /* how long a helper stays awake after a loop, ... */
    LINGER_SPINS = 50,      /* ... looking so often between offers of its core */
    CALLER_SPINS = 2000,    /* looks for the end of the helpers' last chunks */
    LATE_NS = 250 * 1000,   /* waiting so much longer than own work took: a helper lost its core */
    BACKOFF = 4             /* times as long as was lost, loops run alone */
};

/* Below these predicted times a loop is not worth sharing: with a helper awake, with none. */
static const double AWAKE_MIN_US = 25, ASLEEP_MIN_US = 100;

typedef struct row {
    _Alignas(CACHE_LINE) _Atomic uint64_t left;
} row;

static struct {
    row rows[MAX_THREADS];
    _Atomic(sp_chunk_fn) fn; /* the loop: fn(ctx, 0 ... n - 1), */
    _Atomic(void *) ctx;
    _Atomic uint32_t n, per, units, n_rows; /* as so many units of `per` chunks, in rows */
    _Atomic uint32_t done;                  /* futex */
    _Atomic uint32_t bell;                  /* futex */
    _Atomic uint32_t sleepers, caller_sleeps;
    _Atomic int takers; /* threads that look for chunks or run them, a loop's caller included */
    _Atomic bool busy;  /* a loop has the helpers; also guards everything below */
    _Atomic bool quit;
    _Atomic int threads; /* wanted, caller included; 0: not read yet */
    _Atomic int helpers; /* alive */
    int64_t alone_until_ns;
    _Atomic int64_t missed_ns, missed_until_ns; /* loops that found nobody awake: a row of them */
    _Atomic int64_t n_shared, n_backed_off;
} pool;

#define READ(field)         atomic_load_explicit(&pool.field, memory_order_relaxed)
#define WRITE(field, value) atomic_store_explicit(&pool.field, value, memory_order_relaxed)

static void futex_wait(_Atomic uint32_t *word, uint32_t seen)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word, int n)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, n, NULL, NULL, 0);
}

static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

typedef struct loop {
    sp_chunk_fn fn;
    void *ctx;
    uint32_t n, per, units, n_rows;
} loop;

static loop loop_read(void)
{
    return (loop){READ(fn), READ(ctx), READ(n), READ(per), READ(units), READ(n_rows)};
}

static uint32_t row_start(const loop *l, uint32_t k)
{
    return (uint32_t)((uint64_t)l->units * k / l->n_rows);
}

static void run_unit(const loop *l, uint32_t unit)
{
    uint32_t chunk = unit * l->per, rest = l->n - chunk,
             end = chunk + (rest < l->per ? rest : l->per);
    for (; chunk < end; chunk++) l->fn(l->ctx, chunk);
    uint32_t done = atomic_fetch_add(&pool.done, 1) + 1;
    if (done == l->units && atomic_load(&pool.caller_sleeps)) futex_wake(&pool.done, 1);
}

/* Runs a unit of row k, from the front if it is the caller's own; whether one was left. */
static bool take_unit(uint32_t k, bool own)
{
    uint64_t left = atomic_load_explicit(&pool.rows[k].left, memory_order_acquire), rest;
    uint32_t unit;
    loop l;
    do {
        uint32_t next = (uint16_t)left, end = (uint16_t)(left >> 16);
        if (next == end) return false;
        l = loop_read();
        unit = row_start(&l, k) + (own ? next : end - 1);
        rest = own ? left + 1 : left - (1 << 16);
    } while (!atomic_compare_exchange_weak(&pool.rows[k].left, &left, rest));
    run_unit(&l, unit);
    return true;
}

/* Runs chunks of the current loop until none is left; whether there was any. */
static bool take_chunks(uint32_t own)
{
    bool any = false;
    uint32_t n_rows = READ(n_rows);
    for (uint32_t i = 0; i < n_rows; i++)
        while (take_unit((own + i) % n_rows, i == 0)) any = true;
    return any;
}

/* For all but the loop's caller: unless there are threads enough at it. */
static bool help(uint32_t own)
{
    if (READ(done) == READ(units)) return false;
    bool wanted = atomic_fetch_add(&pool.takers, 1) < sp_num_threads();
    bool any = wanted && take_chunks(own);
    atomic_fetch_sub(&pool.takers, 1);
    return any;
}

bool sp__pool_help(void)
{
    return help(1); /* in place of the first helper, which is on its way at best */
}

/* Whether the bell rings before the helper has lingered in vain. */
static bool rings_soon(uint32_t bell)
{
    int64_t until = now_ns() + LINGER_NS;
    do {
        for (int i = 0; i < LINGER_SPINS; i++, relax())
            if (READ(bell) != bell) return true;
        sched_yield();
    } while (now_ns() < until);
    return false;
}

static void *helper_main(void *arg)
{
    uint32_t own = (uint32_t)(uintptr_t)arg;
    sp_held_signals always;
    sp__signals_hold(&always);
    while (!atomic_load(&pool.quit)) {
        uint32_t bell = atomic_load(&pool.bell);
        if (help(own)) continue;
        if (rings_soon(bell)) continue;
        atomic_fetch_add(&pool.sleepers, 1);
        futex_wait(&pool.bell, bell);
        atomic_fetch_sub(&pool.sleepers, 1);
    }
    atomic_fetch_sub(&pool.helpers, 1);
    return NULL;
}

/* ---- how many threads ----- */

static int threads_default(void)
{
    const char *text = getenv("SPOOL_NUM_THREADS");
    if (text != NULL) {
        char *end;
        long n = strtol(text, &end, 10);
        if (end != text && *end == '\0' && n >= 1) return n < MAX_THREADS ? (int)n : MAX_THREADS;
    }
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    return n < 1 ? 1 : n < MAX_THREADS ? n : MAX_THREADS;
}

int sp_num_threads(void)
{
    int n = READ(threads);
    if (SP_LIKELY(n > 0)) return n;
    int unset = 0;
    atomic_compare_exchange_strong(&pool.threads, &unset, threads_default());
    return atomic_load(&pool.threads);
}

static void pool_lock(void)
{
    while (atomic_exchange_explicit(&pool.busy, true, memory_order_acquire)) sched_yield();
}

static void pool_unlock(void)
{
    atomic_store_explicit(&pool.busy, false, memory_order_release);
}

/* Ends all helpers; the next loop starts as many as it may use. */
static void helpers_stop(void)
{
    atomic_store(&pool.quit, true);
    while (atomic_load(&pool.helpers) > 0) {
        atomic_fetch_add(&pool.bell, 1);
        futex_wake(&pool.bell, INT_MAX);
        sched_yield();
    }
    atomic_store(&pool.quit, false);
}

sp_status sp_set_num_threads(int n)
{
    if (n < 1) return sp_fail(SP_EVALUE, "set_num_threads: got %d, expected at least 1", n);
    pool_lock();
    helpers_stop();
    atomic_store(&pool.threads, n < MAX_THREADS ? n : MAX_THREADS);
    pool.alone_until_ns = 0;
    pool_unlock();
    return SP_OK;
}

/* ---- fork: the child has the caller's thread alone ----- */

static void after_fork_child(void)
{
    atomic_store(&pool.helpers, 0);
    atomic_store(&pool.sleepers, 0);
    atomic_store(&pool.takers, 0);
    atomic_store(&pool.caller_sleeps, 0);
    pool.alone_until_ns = 0;
    pool_unlock();
}

static void register_fork_handlers(void)
{
    pthread_atfork(pool_lock, pool_unlock, after_fork_child);
}

/* Brings the helpers to threads - 1; with fewer (the system has no threads left) the loop does with
 * those. */
static void helpers_start(int wanted)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    if (SP_LIKELY(READ(helpers) >= wanted)) return;
    pthread_once(&once, register_fork_handlers);
    sp_held_signals h;
    sp__signals_hold(&h);
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    while (atomic_load(&pool.helpers) < wanted) {
        pthread_t thread;
        int own = atomic_fetch_add(&pool.helpers, 1) + 1;
        if (pthread_create(&thread, &attr, helper_main, (void *)(uintptr_t)own) == 0) continue;
        atomic_fetch_sub(&pool.helpers, 1);
        break;
    }
    pthread_attr_destroy(&attr);
    sp__signals_release(&h);
}

/* ---- the loop ----- */

static uint32_t parts(uint32_t n, uint32_t size)
{
    return n / size + (n % size != 0);
}

/* Units of it, in all. */
static uint32_t publish(uint32_t n, uint32_t n_rows, sp_chunk_fn fn, void *ctx)
{
    loop l = {fn, ctx, n, parts(n, ROW_UNITS * n_rows), .n_rows = n_rows};
    l.units = parts(n, l.per);
    WRITE(fn, fn), WRITE(ctx, ctx), WRITE(n, n), WRITE(per, l.per), WRITE(n_rows, n_rows);
    WRITE(done, 0), WRITE(units, l.units);
    for (uint32_t k = 0; k < n_rows; k++) {
        uint64_t epoch = (READ(rows[k].left) >> 32) + 1,
                 units = row_start(&l, k + 1) - row_start(&l, k);
        atomic_store_explicit(&pool.rows[k].left, epoch << 32 | units << 16, memory_order_release);
    }
    atomic_fetch_add(&pool.bell, 1);
    if (atomic_load(&pool.sleepers) > 0) futex_wake(&pool.bell, (int)n_rows - 1);
    return l.units;
}

static void wait_done(uint32_t units)
{
    for (int i = 0; i < CALLER_SPINS; i++, relax()) {
        if (atomic_load_explicit(&pool.done, memory_order_acquire) == units) return;
    }
    atomic_store(&pool.caller_sleeps, 1);
    for (uint32_t done; (done = atomic_load(&pool.done)) != units;) futex_wait(&pool.done, done);
    atomic_store(&pool.caller_sleeps, 0);
}

/* waited_ns after work_ns of own chunks: was a helper off its core? */
static void judge(int64_t now, int64_t work_ns, int64_t waited_ns)
{
    int64_t lost = waited_ns - work_ns;
    if (lost > LATE_NS) pool.alone_until_ns = now + BACKOFF * lost;
}

static void run_alone(int64_t n_chunks, sp_chunk_fn fn, void *ctx)
{
    for (int64_t i = 0; i < n_chunks; i++) fn(ctx, i);
}

static bool somebody_is_awake(void)
{
    return (int)READ(sleepers) < READ(helpers);
}

static double missed_us(void)
{
    if (now_ns() >= READ(missed_until_ns)) return 0;
    return (double)READ(missed_ns) * 1e-3;
}

/* After a loop on the caller alone. Threads that note at once may lose one of their loops. */
static void note_missed(double predicted_us)
{
    if (predicted_us <= AWAKE_MIN_US || sp_num_threads() < 2) return;
    int64_t missed_ns = (int64_t)((missed_us() + predicted_us) * 1e3);
    WRITE(missed_ns, missed_ns);
    WRITE(missed_until_ns, now_ns() + LINGER_NS);
}

bool sp__pool_worth(double predicted_us)
{
    if (predicted_us <= AWAKE_MIN_US || sp_num_threads() < 2) return false;
    return predicted_us > ASLEEP_MIN_US || somebody_is_awake() ||
           predicted_us + missed_us() > ASLEEP_MIN_US;
}

void sp__pool_for(int64_t n_chunks, double predicted_us, sp_chunk_fn fn, void *ctx)
{
    bool whole = n_chunks < 2 || n_chunks > UINT32_MAX / 2, worth = sp__pool_worth(predicted_us);
    if (whole || !worth || atomic_exchange_explicit(&pool.busy, true, memory_order_acquire)) {
        run_alone(n_chunks, fn, ctx);
        if (!worth) note_missed(predicted_us);
        return;
    }
    int64_t start = now_ns();
    if (start < pool.alone_until_ns) {
        pool_unlock();
        atomic_fetch_add_explicit(&pool.n_backed_off, 1, memory_order_relaxed);
        run_alone(n_chunks, fn, ctx);
        return;
    }
    int threads = sp_num_threads();
    helpers_start(threads - 1);
    atomic_fetch_add(&pool.takers, 1);
    uint32_t n_rows = (uint32_t)(n_chunks < threads ? n_chunks : threads),
             units = publish((uint32_t)n_chunks, n_rows, fn, ctx);
    take_chunks(0);
    atomic_fetch_sub(&pool.takers, 1);
    int64_t mine_done = now_ns();
    wait_done(units);
    int64_t all_done = now_ns();
    judge(all_done, mine_done - start, all_done - mine_done);
    atomic_fetch_add_explicit(&pool.n_shared, 1, memory_order_relaxed);
    pool_unlock();
}

void sp__pool_stats(sp_pool_stats *out)
{
    out->shared = atomic_load(&pool.n_shared);
    out->backed_off = atomic_load(&pool.n_backed_off);
}
