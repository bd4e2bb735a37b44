/* Allocation: size classes, a cache per thread, a depot they share, counters, failing on purpose,
 * the leak ledger.
 *
 *     sp__alloc --> this thread's list of the class --> depot's list (mutex) --> the system
 *     sp__free  --> this thread's list, unless full --> depot, unless full   --> the system
 *
 * Invariants
 * 1. A block's class follows from its size alone, so blocks carry no header and may be freed by any
 *    thread.
 * 2. Everything in an sp_thread is written by its own thread; the counters are atomic so that
 *    others may read them. The list of threads, the depot and what dead threads left behind are
 *    guarded by `depot.lock`.
 * 3. Only the owner of a block touches its bytes; blocks change threads through the depot's lock,
 *    or through whatever ordered the free after the last use.
 * 4. Under AddressSanitizer nothing is kept, so that it sees every use after free.
 */
#include "tensor/memory.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "tensor/status.h"

#if defined(__SANITIZE_ADDRESS__)
#define PLAIN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define PLAIN 1
#endif
#endif
#ifndef PLAIN
#define PLAIN 0
#endif

enum {
    ALIGN = 64,
    LINEAR_CLASSES = 64,                  /* 64, 128, ..., 4096 bytes */
    THREAD_CLASSES = LINEAR_CLASSES + 16, /* then four a doubling, to 64 KiB: kept by threads */
    CLASSES = THREAD_CLASSES + 56,        /* to 1 GiB: kept by the depot */
    LINEAR_LIMIT = 128,                   /* blocks a thread keeps of each linear class */
    FLUSH_BYTES = 1 << 18,                /* what a thread counts for itself at most */
    HUGE_PAGE = 1 << 21
};
static const int64_t DEPOT_BYTES = (int64_t)256 << 20;

typedef struct block {
    struct block *next;
} block;

typedef struct sp_thread {
    block *head[THREAD_CLASSES];
    _Atomic uint32_t kept[THREAD_CLASSES];
    _Atomic int64_t requests, frees;
    _Atomic int64_t ahead;      /* bytes handed out less bytes given back since the last flush */
    _Atomic int64_t ahead_peak; /* the most that ever was since then */
    sp_tally *tally;
    struct sp_thread *next, *prev;
} sp_thread;

static __thread sp_thread *this_thread __attribute__((tls_model("initial-exec")));
__thread sp_tally sp__tally __attribute__((tls_model("initial-exec")));

static struct {
    pthread_mutex_t lock;
    block *head[CLASSES];
    uint32_t kept[CLASSES];
    int64_t bytes;
    sp_thread *threads;
} depot = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* What has no live thread to count it, and what threads flushed. */
static struct {
    _Atomic int64_t requests, frees, live, peak, count[SP_COUNT_KINDS];
} global;

static struct {
    _Atomic bool armed;
    _Atomic bool sticky;
    _Atomic int64_t left; /* requests until the one that fails */
    _Atomic int64_t base; /* requests when armed */
} failing;

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t thread_key;

/* Single-writer counters: a plain load and store, visible to readers in other threads. */
#define GET(x)    atomic_load_explicit(&(x), memory_order_relaxed)
#define PUT(x, v) atomic_store_explicit(&(x), (v), memory_order_relaxed)
#define ADD(x, v) PUT(x, GET(x) + (v))

/* ---- size classes ----- */

static inline size_t class_of(size_t bytes)
{
    size_t last = bytes ? bytes - 1 : 0;
    if (SP_LIKELY(last < LINEAR_CLASSES * ALIGN)) return last / ALIGN;
    int top = 63 - __builtin_clzll(last);
    return LINEAR_CLASSES + 4 * (size_t)(top - 12) + ((last >> (top - 2)) & 3);
}

static size_t class_bytes(size_t cls)
{
    if (cls < LINEAR_CLASSES) return (cls + 1) * ALIGN;
    size_t above = cls - LINEAR_CLASSES;
    return (5 + above % 4) << (10 + above / 4);
}

static inline uint32_t thread_limit(size_t cls)
{
    if (cls < LINEAR_CLASSES) return LINEAR_LIMIT;
    return cls < LINEAR_CLASSES + 8 ? 6 : 2;
}

/* ---- the system ----- */

static void *system_take(size_t bytes)
{
    size_t cls = class_of(bytes), room = bytes;
    if (cls < CLASSES) room = class_bytes(cls);
    if (room > PTRDIFF_MAX - HUGE_PAGE) return NULL;
    if (PLAIN) return aligned_alloc(ALIGN, (bytes + ALIGN - 1 + !bytes) / ALIGN * ALIGN);
    if (room < 2 * HUGE_PAGE) return aligned_alloc(ALIGN, (room + ALIGN - 1) / ALIGN * ALIGN);
    void *p = aligned_alloc(HUGE_PAGE, (room + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE);
    /* Fewer page faults; no harm when refused. The end stays in small pages: what the class has
     * more than was asked for is never touched, and takes no memory then. */
    if (p) (void)madvise(p, bytes / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE);
    return p;
}

static void release_list(block *list)
{
    while (list) {
        block *next = list->next;
        free(list);
        list = next;
    }
}

/* ---- the leak ledger: debug builds, SPOOL_LEAKS=1 ----- */

#ifndef NDEBUG
typedef struct ledger_entry {
    void *p; /* NULL: free slot; LEDGER_GONE: was one */
    size_t bytes;
    void *caller;
} ledger_entry;
#define LEDGER_GONE ((void *)1)

static struct {
    bool on;
    pthread_mutex_t lock;
    ledger_entry *table;
    size_t room, used; /* used counts LEDGER_GONE too */
} ledger = {.lock = PTHREAD_MUTEX_INITIALIZER};

static ledger_entry *ledger_slot(ledger_entry *table, size_t room, void *p, bool for_insert)
{
    size_t i = ((uintptr_t)p / ALIGN * 0x9e3779b97f4a7c15u) & (room - 1);
    while (table[i].p && table[i].p != p && !(for_insert && table[i].p == LEDGER_GONE))
        i = (i + 1) & (room - 1);
    return &table[i];
}

static void ledger_grow(void)
{
    size_t room = ledger.room ? ledger.room * 2 : 4096;
    ledger_entry *table = calloc(room, sizeof *table);
    if (!table) return;
    ledger.used = 0;
    for (size_t i = 0; i < ledger.room; i++) {
        if (!ledger.table[i].p || ledger.table[i].p == LEDGER_GONE) continue;
        *ledger_slot(table, room, ledger.table[i].p, true) = ledger.table[i];
        ledger.used++;
    }
    free(ledger.table);
    ledger.table = table, ledger.room = room;
}

static void ledger_add(void *p, size_t bytes, void *caller)
{
    if (!ledger.on) return;
    pthread_mutex_lock(&ledger.lock);
    if (ledger.used * 2 >= ledger.room) ledger_grow();
    if (ledger.used < ledger.room) {
        ledger_entry *e = ledger_slot(ledger.table, ledger.room, p, true);
        ledger.used += e->p != LEDGER_GONE;
        *e = (ledger_entry){p, bytes, caller};
    }
    pthread_mutex_unlock(&ledger.lock);
}

static void ledger_remove(void *p, size_t bytes)
{
    if (!ledger.on) return;
    pthread_mutex_lock(&ledger.lock);
    ledger_entry *e = ledger.room ? ledger_slot(ledger.table, ledger.room, p, false) : NULL;
    if (e && e->p == p) {
        SP_ASSERT(e->bytes == bytes);
        e->p = LEDGER_GONE;
    }
    pthread_mutex_unlock(&ledger.lock);
}

static int ledger_compare(const void *a, const void *b)
{
    const ledger_entry *x = a, *y = b;
    return x->caller < y->caller ? -1 : x->caller > y->caller;
}

/* File and offset are what addr2line -e takes. */
static void ledger_print_site(size_t blocks, size_t bytes, void *caller)
{
    Dl_info info = {0};
    bool known = dladdr(caller, &info) != 0;
    fprintf(stderr, "spool:   %zu blocks, %zu bytes from %s (%s +0x%zx)\n", blocks, bytes,
            known && info.dli_sname ? info.dli_sname : "?", known ? info.dli_fname : "?",
            (size_t)caller - (known ? (size_t)info.dli_fbase : 0));
}

static void ledger_print(void)
{
    pthread_mutex_lock(&ledger.lock);
    size_t n = 0, total = 0;
    for (size_t i = 0; i < ledger.room; i++) {
        if (!ledger.table[i].p || ledger.table[i].p == LEDGER_GONE) continue;
        ledger.table[n++] = ledger.table[i];
        total += ledger.table[n - 1].bytes;
    }
    qsort(ledger.table, n, sizeof *ledger.table, ledger_compare);
    fprintf(stderr, "spool: %zu blocks, %zu bytes alive at exit\n", n, total);
    for (size_t i = 0, end; i < n; i = end) {
        size_t bytes = 0;
        for (end = i; end < n && ledger.table[end].caller == ledger.table[i].caller; end++)
            bytes += ledger.table[end].bytes;
        ledger_print_site(end - i, bytes, ledger.table[i].caller);
    }
    ledger.room = 0; /* frees after this find nothing */
    pthread_mutex_unlock(&ledger.lock);
}

static void ledger_start(void)
{
    const char *wish = getenv("SPOOL_LEAKS");
    ledger.on = wish && *wish && strcmp(wish, "0") != 0;
    if (ledger.on) atexit(ledger_print);
}
#else
#define ledger_add(p, bytes, caller) ((void)0)
#define ledger_remove(p, bytes)      ((void)0)
#define ledger_start()               ((void)0)
#endif

/* ---- threads ----- */

static void flush(sp_thread *me)
{
    int64_t before = atomic_fetch_add(&global.live, GET(me->ahead));
    int64_t reached = before + GET(me->ahead_peak), peak = GET(global.peak);
    while (reached > peak && !atomic_compare_exchange_weak(&global.peak, &peak, reached)) {
    }
    PUT(me->ahead, 0);
    PUT(me->ahead_peak, 0);
}

static void depot_put_locked(size_t cls, block *first, block *last, uint32_t n)
{
    last->next = depot.head[cls];
    depot.head[cls] = first;
    depot.kept[cls] += n;
    depot.bytes += (int64_t)(n * class_bytes(cls));
}

static void thread_gone(void *arg)
{
    sp_thread *me = arg;
    flush(me);
    pthread_mutex_lock(&depot.lock);
    for (size_t c = 0; c < THREAD_CLASSES; c++) {
        block *last = me->head[c];
        if (!last) continue;
        while (last->next) last = last->next;
        depot_put_locked(c, me->head[c], last, GET(me->kept[c]));
    }
    atomic_fetch_add(&global.requests, GET(me->requests));
    atomic_fetch_add(&global.frees, GET(me->frees));
    for (int i = 0; i < SP_COUNT_KINDS; i++) {
        atomic_fetch_add(&global.count[i], GET(me->tally->n[i]));
        PUT(me->tally->n[i], 0);
    }
    me->tally->known = false;
    if (me->prev)
        me->prev->next = me->next;
    else
        depot.threads = me->next;
    if (me->next) me->next->prev = me->prev;
    pthread_mutex_unlock(&depot.lock);
    this_thread = NULL;
    free(me);
}

/* A forked child has one thread; were another one holding the lock at that moment, the child
 * could never allocate. */
static void lock_depot(void)
{
    pthread_mutex_lock(&depot.lock);
}

static void unlock_depot(void)
{
    pthread_mutex_unlock(&depot.lock);
}

static void start(void)
{
    ledger_start();
    pthread_key_create(&thread_key, thread_gone);
    pthread_atfork(lock_depot, unlock_depot, unlock_depot);
}

/* NULL when the system has no memory for it: callers then count globally. */
static sp_thread *thread_enter(void)
{
    if (SP_LIKELY(this_thread != NULL)) return this_thread;
    pthread_once(&once, start);
    sp_thread *me = calloc(1, sizeof *me);
    if (!me) return NULL;
    me->tally = &sp__tally;
    sp__tally.known = true;
    pthread_setspecific(thread_key, me);
    pthread_mutex_lock(&depot.lock);
    me->next = depot.threads;
    if (me->next) me->next->prev = me;
    depot.threads = me;
    pthread_mutex_unlock(&depot.lock);
    return this_thread = me;
}

void sp__tally_register(void)
{
    (void)thread_enter();
}

int64_t sp__count_sum(sp_count what)
{
    int64_t sum = GET(global.count[what]);
    pthread_mutex_lock(&depot.lock);
    for (sp_thread *t = depot.threads; t; t = t->next) sum += GET(t->tally->n[what]);
    pthread_mutex_unlock(&depot.lock);
    return sum;
}

/* ---- taking ----- */

static inline void count_taken(sp_thread *me, size_t bytes)
{
    int64_t ahead = GET(me->ahead) + (int64_t)bytes;
    PUT(me->ahead, ahead);
    if (SP_LIKELY(ahead <= GET(me->ahead_peak))) return;
    PUT(me->ahead_peak, ahead);
    if (ahead > FLUSH_BYTES) flush(me);
}

static bool must_fail(void)
{
    if (SP_LIKELY(!GET(failing.armed))) return false;
    int64_t left = atomic_fetch_sub(&failing.left, 1);
    return left == 1 || (left < 1 && GET(failing.sticky));
}

/* Up to half a thread's limit at once, so that a consumer of another thread's blocks seldom
 * needs the lock. */
static block *depot_take(sp_thread *me, size_t cls)
{
    pthread_mutex_lock(&depot.lock);
    block *b = depot.head[cls];
    if (b) {
        uint32_t n = 1, want = me && cls < THREAD_CLASSES ? thread_limit(cls) / 2 : 1;
        block *last = b;
        while (n < want && last->next) last = last->next, n++;
        depot.head[cls] = last->next;
        depot.kept[cls] -= n;
        depot.bytes -= (int64_t)(n * class_bytes(cls));
        last->next = NULL;
        if (n > 1) { /* the thread's own list is empty: that is why we are here */
            me->head[cls] = b->next;
            PUT(me->kept[cls], n - 1);
        }
    }
    pthread_mutex_unlock(&depot.lock);
    return b;
}

/* A refused request, for the books: asked for and given back at once. */
static void *refused(sp_thread *me)
{
    if (me)
        ADD(me->frees, 1);
    else
        atomic_fetch_add(&global.frees, 1);
    return NULL;
}

static __attribute__((noinline)) void *take_slow(size_t bytes, void *caller)
{
    sp_thread *me = thread_enter();
    if (me)
        ADD(me->requests, 1);
    else
        atomic_fetch_add(&global.requests, 1);
    if (must_fail()) return refused(me);
    size_t cls = class_of(bytes);
    block *b = NULL;
    if (!PLAIN && cls < CLASSES) {
        if (me && cls < THREAD_CLASSES && (b = me->head[cls])) {
            me->head[cls] = b->next;
            ADD(me->kept[cls], -1u);
        } else {
            b = depot_take(me, cls);
        }
    }
    if (!b) b = system_take(bytes);
    if (!b && !PLAIN) { /* what is kept in other sizes may be just what is missing */
        sp_memory_trim();
        b = system_take(bytes);
    }
    if (!b) return refused(me);
    if (me)
        count_taken(me, bytes);
    else
        atomic_fetch_add(&global.live, (int64_t)bytes);
    (void)caller;
    ledger_add(b, bytes, caller);
    return b;
}

/* `caller` is for the ledger, which wants to know who asked, not who passed it on. */
static inline void *take(size_t bytes, void *caller)
{
    sp_thread *me = this_thread;
    size_t cls = (bytes - 1) / ALIGN; /* huge for 0, which the slow way serves, too */
    if (SP_UNLIKELY(!me || cls >= LINEAR_CLASSES || !me->head[cls] || GET(failing.armed)))
        return take_slow(bytes, caller);
    block *b = me->head[cls];
    me->head[cls] = b->next;
    ADD(me->kept[cls], -1u);
    ADD(me->requests, 1);
    count_taken(me, bytes);
    ledger_add(b, bytes, caller);
    return b;
}

void *sp__alloc(size_t bytes)
{
    return take(bytes, __builtin_return_address(0));
}

void *sp__alloc_zero(size_t bytes)
{
    void *p = take(bytes, __builtin_return_address(0));
    if (p) memset(p, 0, bytes);
    return p;
}

void *sp__dup(const void *from, size_t bytes)
{
    void *p = take(bytes, __builtin_return_address(0));
    if (p && bytes) memcpy(p, from, bytes);
    return p;
}

void *sp__realloc(void *old, size_t old_bytes, size_t new_bytes)
{
    void *p = take(new_bytes, __builtin_return_address(0));
    if (!p || !old) return p;
    size_t n = old_bytes < new_bytes ? old_bytes : new_bytes;
    if (n) memcpy(p, old, n);
    sp__free(old, old_bytes);
    return p;
}

/* ---- giving back ----- */

/* Makes room by giving all of the depot back rather than refusing the newcomer: sizes that a
 * program no longer uses must not push out those that it does. */
static void depot_put(size_t cls, block *first, block *last, uint32_t n)
{
    block *stale[CLASSES];
    bool full = false;
    pthread_mutex_lock(&depot.lock);
    if (SP_UNLIKELY(depot.bytes + (int64_t)(n * class_bytes(cls)) > DEPOT_BYTES)) {
        full = true;
        memcpy(stale, depot.head, sizeof stale);
        memset(depot.head, 0, sizeof depot.head);
        memset(depot.kept, 0, sizeof depot.kept);
        depot.bytes = 0;
    }
    depot_put_locked(cls, first, last, n);
    pthread_mutex_unlock(&depot.lock);
    for (size_t c = 0; full && c < CLASSES; c++) release_list(stale[c]);
}

static void spill(sp_thread *me, size_t cls)
{
    uint32_t n = thread_limit(cls) / 2;
    block *first = me->head[cls], *last = first;
    for (uint32_t i = 1; i < n; i++) last = last->next;
    me->head[cls] = last->next;
    ADD(me->kept[cls], -n);
    depot_put(cls, first, last, n);
}

static __attribute__((noinline)) void give_slow(block *b, size_t bytes)
{
    sp_thread *me = thread_enter();
    if (me) {
        ADD(me->frees, 1);
        ADD(me->ahead, -(int64_t)bytes);
        if (GET(me->ahead) < -FLUSH_BYTES) flush(me);
    } else {
        atomic_fetch_add(&global.frees, 1);
        atomic_fetch_sub(&global.live, (int64_t)bytes);
    }
    size_t cls = class_of(bytes);
    if (PLAIN || cls >= CLASSES || (int64_t)class_bytes(cls) > DEPOT_BYTES / 4) {
        free(b);
    } else if (me && cls < THREAD_CLASSES) {
        if (GET(me->kept[cls]) >= thread_limit(cls)) spill(me, cls);
        b->next = me->head[cls];
        me->head[cls] = b;
        ADD(me->kept[cls], 1);
    } else {
        depot_put(cls, b, b, 1);
    }
}

void sp__free(void *p, size_t bytes)
{
    if (!p) return;
    ledger_remove(p, bytes);
    sp_thread *me = this_thread;
    size_t cls = (bytes - 1) / ALIGN;
    block *b = p;
    if (SP_UNLIKELY(PLAIN || !me || cls >= LINEAR_CLASSES || GET(me->kept[cls]) >= LINEAR_LIMIT)) {
        give_slow(b, bytes);
        return;
    }
    ADD(me->frees, 1);
    ADD(me->ahead, -(int64_t)bytes);
    b->next = me->head[cls];
    me->head[cls] = b;
    ADD(me->kept[cls], 1);
}

/* ---- for tests and tools ----- */

static int64_t requests_so_far(void)
{
    int64_t n = GET(global.requests);
    pthread_mutex_lock(&depot.lock);
    for (sp_thread *t = depot.threads; t; t = t->next) n += GET(t->requests);
    pthread_mutex_unlock(&depot.lock);
    return n;
}

void sp_memory_fail_nth(int64_t n, bool sticky)
{
    atomic_store(&failing.armed, false);
    atomic_store(&failing.left, n);
    atomic_store(&failing.sticky, sticky);
    atomic_store(&failing.base, requests_so_far());
    atomic_store(&failing.armed, n > 0);
}

int64_t sp_memory_requests(void)
{
    return requests_so_far() - GET(failing.base);
}

/* Gives back the depot's blocks and this thread's; other threads' lists are their own. */
void sp_memory_trim(void)
{
    sp_thread *me = this_thread;
    block *lists[CLASSES];
    for (size_t c = 0; me && c < THREAD_CLASSES; c++) {
        release_list(me->head[c]);
        me->head[c] = NULL;
        PUT(me->kept[c], 0);
    }
    pthread_mutex_lock(&depot.lock);
    memcpy(lists, depot.head, sizeof lists);
    memset(depot.head, 0, sizeof depot.head);
    memset(depot.kept, 0, sizeof depot.kept);
    depot.bytes = 0;
    pthread_mutex_unlock(&depot.lock);
    for (size_t c = 0; c < CLASSES; c++) release_list(lists[c]);
#ifdef __GLIBC__
    malloc_trim(0); /* free() keeps what lies below a block in use */
#endif
}

void sp_memory_stats_get(sp_memory_stats *out)
{
    int64_t peak_ahead = 0;
    memset(out, 0, sizeof *out);
    pthread_mutex_lock(&depot.lock);
    out->allocations = GET(global.requests);
    out->live_blocks = -GET(global.frees);
    out->live_bytes = GET(global.live);
    out->cached_bytes = depot.bytes;
    for (sp_thread *t = depot.threads; t; t = t->next) {
        out->allocations += GET(t->requests);
        out->live_blocks -= GET(t->frees);
        out->live_bytes += GET(t->ahead);
        peak_ahead += GET(t->ahead_peak);
        for (size_t c = 0; c < THREAD_CLASSES; c++)
            out->cached_bytes += (int64_t)(GET(t->kept[c]) * class_bytes(c));
    }
    int64_t now = GET(global.live) + peak_ahead, peak = GET(global.peak);
    while (now > peak && !atomic_compare_exchange_weak(&global.peak, &peak, now)) {
    }
    pthread_mutex_unlock(&depot.lock);
    out->live_blocks += out->allocations;
    out->peak_bytes = GET(global.peak);
}

void sp_memory_stats_reset_peak(void)
{
    pthread_mutex_lock(&depot.lock);
    int64_t live = GET(global.live);
    for (sp_thread *t = depot.threads; t; t = t->next) {
        live += GET(t->ahead);
        PUT(t->ahead_peak, GET(t->ahead)); /* off by a block if that thread allocates right now */
    }
    atomic_store(&global.peak, live);
    pthread_mutex_unlock(&depot.lock);
}
