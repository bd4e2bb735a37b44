/* The launch queues. See queue_int.h for the picture and the invariants.
 *
 * Who runs what. The worker takes the role `running` and keeps it until nothing is left. A caller
 * that must wait takes it if it is free, and runs the head of the queue itself, up to what it waits
 * for: an op followed by a read of its result costs no switch of threads. Only when another thread
 * is already running does a caller wait for it.
 *
 * Whom to wake. Waking the worker costs the caller some 5 us, more than 2 % of most ops, and gains
 * nothing if the caller is back in a moment to wait. So the queue remembers how long its callers
 * last stayed away between issuing and waiting (`credit`): if it was worth it, the worker is woken
 * at once; else not, until the caller has been away for WORTH_US.
 *
 * How far ahead. Results are allocated when an op is issued, and what it reads lives until it has
 * run: far ahead of large ops a caller would hold the memory of a whole backward pass at once. It
 * waits when unfinished ops write AHEAD_BYTES, which is a fraction of a millisecond of work.
 *
 * Sleeping. Whoever goes to sleep announces it (`asleep`, `wanted`), then looks once more; whoever
 * makes progress stores it, then looks for sleepers. Both orders are sequentially consistent, so
 * one of the two sees the other. Waking costs 3 to 30 us: a caller is woken once, when what it
 * waits for is done; and one that finds the queue full sleeps until half of it is free.
 *
 * A forked child has no worker. The parent drains before the fork (so that no lock is held and no
 * slot is half done), the child starts a worker of its own when it first queues something.
 */
#include "ops/queue_int.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tensor/memory.h"
#include "tensor/signals.h"

enum {
    SLOTS = 256,
    SLOT_INTS = 4 * SP_MAX_RANK, /* of all INTS attributes of an op together */
    SLOT_REFS = SP_KARGS_INLINE,
    ERROR_TEXT = 1024,
    AHEAD_BYTES = 4 << 20, /* that unfinished ops may write before their caller waits */
    CREDIT = 2,            /* short absences in a row before the worker is left asleep */
    WORTH_US = 50,         /* a caller that stays away so long makes up for waking the worker */
    SPIN = 100,            /* then yield, ... */
    YIELD_US = 300,        /* ... the worker so long, ... */
    WAIT_US = 2000         /* ... a caller so long; then sleep */
};

typedef struct slot {
    sp_kernel kernel; /* NULL: `run` */
    sp_status (*run)(void *args);
    void *block; /* raw: arguments and references; of an op: what has no room here; or NULL */
    size_t block_bytes;
    int64_t written;   /* bytes of its results */
    sp_storage **refs; /* in `room`, or in the block */
    int n_refs;
    sp__where where; /* owned; given back by the thread that uses the slot again */
    sp_storage *room[SLOT_REFS];
    sp_kargs k;
    sp_attr attr[SP_MAX_ATTR];
    int64_t ints[SLOT_INTS];
} slot;

typedef struct queue {
    pthread_mutex_t lock;
    pthread_cond_t work;     /* the worker sleeps on it */
    pthread_cond_t progress; /* waiting callers do */
    _Atomic bool running;
    _Atomic bool asleep;
    _Atomic int64_t ahead;   /* bytes that unfinished ops write */
    _Atomic uint64_t wanted; /* the first ticket that a sleeping caller waits for; NOBODY */
    _Atomic int credit;      /* > 0: wake the worker at once */
    _Atomic int64_t burst;   /* when the oldest op of those not finished was issued, in us */
    _Atomic bool failed;     /* the error below is set; guarded by lock */
    bool started, stop;      /* guarded by lock */
    pthread_t worker;
    sp_status status;
    sp__where where; /* owned */
    char text[ERROR_TEXT];
} queue;

sp_progress sp__progress[SP_MAX_DEVICES];
sp_blocking_hooks sp__blocking_hooks;

static slot slots[SP_MAX_DEVICES][SLOTS]; /* pages that no queue uses are never touched */
static queue queues[SP_MAX_DEVICES];
static const uint64_t NOBODY = UINT64_MAX;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static inline uint64_t done_of(const queue *q)
{
    return atomic_load_explicit(&sp__progress[q - queues].done, memory_order_acquire);
}

static inline uint64_t issued_of(const queue *q)
{
    return atomic_load(&sp__progress[q - queues].issued);
}

static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#else
    atomic_signal_fence(memory_order_seq_cst);
#endif
}

static int64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* Lets time pass without going to sleep: cheap for others, and awake within a microsecond. False
 * after `us`. */
typedef struct patience {
    int spins;
    int64_t until;
} patience;

static bool linger(patience *p, int64_t us)
{
    if (p->spins < SPIN) {
        p->spins++;
        relax();
        return true;
    }
    int64_t now = now_us();
    if (p->until == 0) p->until = now + us;
    sched_yield();
    return now < p->until;
}

/* ---- waking ----- */

static void wake_worker(queue *q)
{
    if (!atomic_load(&q->asleep)) return;
    pthread_mutex_lock(&q->lock);
    pthread_cond_signal(&q->work);
    pthread_mutex_unlock(&q->lock);
}

/* Who still waits announces itself again. */
static void wake_waiters(queue *q)
{
    pthread_mutex_lock(&q->lock);
    atomic_store(&q->wanted, NOBODY);
    pthread_cond_broadcast(&q->progress);
    pthread_mutex_unlock(&q->lock);
}

/* ---- running ----- */

static size_t operands_text(const sp_kargs *k, char *text, size_t room)
{
    size_t at = 0;
    char shape[SP_SHAPE_TEXT];
    text[0] = '\0';
    for (int i = k->n_out; i < k->n_arg && at < room; i++) {
        const sp_operand *a = &k->arg[i];
        if (!a->data) continue;
        at += (size_t)snprintf(text + at, room - at, "%s%s %s", at ? ", " : "",
                               sp_dtype_name((sp_dtype)a->dtype),
                               sp__shape_text(a->rank, a->shape, shape, sizeof shape));
    }
    return at;
}

/* The first error stays; what follows it is most likely its consequence. */
static __attribute__((cold)) void note_failure(queue *q, slot *s, sp_status status)
{
    char operands[ERROR_TEXT / 2];
    pthread_mutex_lock(&q->lock);
    if (!atomic_load(&q->failed)) {
        q->status = status;
        if (s->kernel) {
            operands_text(&s->k, operands, sizeof operands);
            snprintf(q->text, sizeof q->text, "%s(%s): %s", sp_op_table[s->k.op].name, operands,
                     sp_last_error());
        } else {
            snprintf(q->text, sizeof q->text, "compiled region: %s", sp_last_error());
        }
        q->where = s->where;
        s->where.code = NULL;
        atomic_store(&q->failed, true);
    }
    pthread_mutex_unlock(&q->lock);
}

static void run_one(queue *q, uint64_t ticket, sp_count counted_as)
{
    slot *s = &slots[q - queues][(ticket - 1) % SLOTS];
    sp_status status = s->kernel ? s->kernel(&s->k) : s->run(s->block);
    if (SP_UNLIKELY(status != SP_OK)) note_failure(q, s, status);
    for (int i = 0; i < s->n_refs; i++) sp__storage_drop(s->refs[i]);
    if (s->block) sp__free(s->block, s->block_bytes);
    s->block = NULL;
    atomic_fetch_sub_explicit(&q->ahead, s->written, memory_order_relaxed);
    if (s->kernel) sp__count(counted_as);
    atomic_store(&sp__progress[q - queues].done, ticket);
    if (SP_UNLIKELY(atomic_load(&q->wanted) <= ticket)) wake_waiters(q);
}

static inline bool take_role(queue *q)
{
    return !atomic_load_explicit(&q->running, memory_order_relaxed) &&
           !atomic_exchange(&q->running, true);
}

static void leave_role(queue *q)
{
    atomic_store(&q->running, false);
    if (issued_of(q) == done_of(q)) return;
    if (atomic_load(&q->credit) > 0) wake_worker(q);
    if (atomic_load(&q->wanted) != NOBODY) wake_waiters(q);
}

static void run_until(queue *q, uint64_t last, sp_count counted_as)
{
    for (uint64_t next = done_of(q) + 1; next <= last && next <= issued_of(q); next++)
        run_one(q, next, counted_as);
}

/* ---- the worker ----- */

static bool more_comes(queue *q)
{
    patience p = {0};
    do {
        if (issued_of(q) != done_of(q)) return true;
    } while (linger(&p, YIELD_US));
    return false;
}

static bool sleep_until_work(queue *q)
{
    pthread_mutex_lock(&q->lock);
    atomic_store(&q->asleep, true);
    while (!q->stop && (issued_of(q) == done_of(q) || atomic_load(&q->running)))
        pthread_cond_wait(&q->work, &q->lock);
    atomic_store(&q->asleep, false);
    bool stop = q->stop;
    pthread_mutex_unlock(&q->lock);
    return !stop;
}

static void *worker(void *arg)
{
    queue *q = arg;
    sp_held_signals always;
    sp__signals_hold(&always);
    while (sleep_until_work(q)) {
        do {
            if (!take_role(q)) break;
            run_until(q, UINT64_MAX, SP_COUNT_QUEUED);
            leave_role(q);
        } while (more_comes(q));
    }
    return NULL;
}

/* ---- waiting ----- */

static void sleep_until_progress(queue *q, uint64_t ticket)
{
    pthread_mutex_lock(&q->lock);
    for (;;) {
        if (ticket < atomic_load(&q->wanted)) atomic_store(&q->wanted, ticket);
        if (atomic_load(&sp__progress[q - queues].done) >= ticket || !atomic_load(&q->running))
            break;
        pthread_cond_wait(&q->progress, &q->lock);
    }
    pthread_mutex_unlock(&q->lock);
}

/* Threads of the device's own may be too many for the cores: the one that waits is at hand. */
static bool lend_hand(const queue *q)
{
    const sp_backend *b = sp__backends[q - queues];
    return b->help && b->help();
}

static void wait_or_help(queue *q, uint64_t ticket)
{
    patience p = {0};
    while (done_of(q) < ticket) {
        if (take_role(q)) {
            run_until(q, ticket, SP_COUNT_HELPED);
            leave_role(q);
        } else if (lend_hand(q)) {
            p = (patience){0};
        } else if (!linger(&p, WAIT_US)) {
            sleep_until_progress(q, ticket);
        }
    }
}

/* ---- starting, stopping, forking ----- */

/* Without the binding's hooks: the interpreter is in the middle of a fork, or gone. */
static void drain(queue *q)
{
    wait_or_help(q, issued_of(q));
}

static void stop_workers(void)
{
    for (queue *q = queues; q < queues + SP_MAX_DEVICES; q++) {
        if (!q->started) continue;
        drain(q);
        pthread_mutex_lock(&q->lock);
        q->stop = true;
        pthread_cond_signal(&q->work);
        pthread_mutex_unlock(&q->lock);
        pthread_join(q->worker, NULL);
        q->started = false;
    }
}

static void before_fork(void)
{
    for (queue *q = queues; q < queues + SP_MAX_DEVICES; q++) {
        for (;;) {
            drain(q);
            pthread_mutex_lock(&q->lock);
            if (issued_of(q) == done_of(q)) break;
            pthread_mutex_unlock(&q->lock);
        }
    }
}

static void after_fork_parent(void)
{
    for (queue *q = queues; q < queues + SP_MAX_DEVICES; q++) pthread_mutex_unlock(&q->lock);
}

static void init_queue(queue *q)
{
    pthread_mutex_init(&q->lock, NULL);
    pthread_cond_init(&q->work, NULL);
    pthread_cond_init(&q->progress, NULL);
    atomic_store(&q->running, false);
    atomic_store(&q->asleep, false);
    atomic_store(&q->ahead, 0);
    atomic_store(&q->wanted, NOBODY);
    atomic_store(&q->credit, CREDIT);
    q->started = false;
}

static void after_fork_child(void)
{
    for (queue *q = queues; q < queues + SP_MAX_DEVICES; q++) init_queue(q);
}

/* A backend's libraries tear themselves down at exit, the last to be set up first: they are to be
 * set up before our own end is arranged for. */
static void start_all(void)
{
    for (int device = 0; device < SP_MAX_DEVICES; device++)
        if (sp__backends[device] && sp__backends[device]->start) sp__backends[device]->start();
    for (queue *q = queues; q < queues + SP_MAX_DEVICES; q++) init_queue(q);
    pthread_atfork(before_fork, after_fork_parent, after_fork_child);
    atexit(stop_workers);
}

/* With the lock held. Signals stay with the threads of the program. */
static bool start_worker(queue *q)
{
    if (SP_LIKELY(q->started)) return true;
    if (q->stop) return false;
    sp_held_signals h;
    sp__signals_hold(&h);
    q->started = pthread_create(&q->worker, NULL, worker, q) == 0;
    sp__signals_release(&h);
    return q->started;
}

/* ---- issuing ----- */

static inline bool is_far_ahead(const queue *q)
{
    return atomic_load_explicit(&q->ahead, memory_order_relaxed) >= AHEAD_BYTES;
}

/* The next free slot, with the lock held; NULL, without the lock, when there is no worker. */
static slot *open_slot(queue *q)
{
    pthread_once(&once, start_all);
    for (;;) {
        pthread_mutex_lock(&q->lock);
        uint64_t issued = issued_of(q), pending = issued - done_of(q);
        bool there = start_worker(q);
        if (there && pending < SLOTS && !is_far_ahead(q)) return &slots[q - queues][issued % SLOTS];
        pthread_mutex_unlock(&q->lock);
        if (!there) return NULL;
        sp__queue_wait((int)(q - queues), issued - pending / 2);
    }
}

/* Not of the whole storages: an element written into a large tensor takes no memory. */
static int64_t bytes_of_results(const sp_kargs *k)
{
    int64_t bytes = 0;
    for (int i = 0; i < k->n_out; i++) bytes += k->arg[i].numel << sp__dtype_shift(k->arg[i].dtype);
    return bytes;
}

static int64_t bytes_of_storages(sp_storage *const *storages, int n)
{
    int64_t bytes = 0;
    for (int i = 0; i < n; i++) bytes += (int64_t)storages[i]->nbytes;
    return bytes;
}

static void count_ahead(queue *q, slot *s, int64_t written)
{
    s->written = written;
    atomic_fetch_add_explicit(&q->ahead, written, memory_order_relaxed);
}

static void take_tickets(queue *q, slot *s, sp_storage *const *reads, int n_reads,
                         sp_storage *const *writes, int n_writes)
{
    uint64_t ticket = issued_of(q) + 1;
    s->n_refs = 0;
    for (int i = 0; i < n_reads + n_writes; i++) {
        sp_storage *storage = i < n_reads ? reads[i] : writes[i - n_reads];
        atomic_store_explicit(i < n_reads ? &storage->read_ticket : &storage->write_ticket, ticket,
                              memory_order_relaxed);
        s->refs[s->n_refs++] = sp__storage_retain(storage);
    }
}

static void close_slot(queue *q)
{
    uint64_t issued = issued_of(q);
    int64_t now = now_us();
    bool first = done_of(q) == issued;
    if (first)
        atomic_store(&q->burst, now);
    else if (now - atomic_load(&q->burst) > WORTH_US)
        atomic_store(&q->credit, CREDIT);
    atomic_store(&sp__progress[q - queues].issued, issued + 1);
    pthread_mutex_unlock(&q->lock);
    if (atomic_load(&q->credit) > 0) wake_worker(q);
}

/* Called without the lock, because a binding's hooks may take its interpreter's. */
static sp__where where_now(void)
{
    sp__where where = {NULL, 0};
    if (sp__where_hooks.here) sp__where_hooks.here(&where);
    return where;
}

static void drop_where(sp__where *where)
{
    if (where->code && sp__where_hooks.drop) sp__where_hooks.drop(where);
    where->code = NULL;
}

static sp__where swap_where(slot *s, sp__where now)
{
    sp__where old = s->where;
    s->where = now;
    return old;
}

/* Only what a kernel looks at: the first rank entries of the geometry, n_attr attributes. */
static void copy_kargs(slot *s, const sp_kargs *k, sp_operand *room, int64_t *ints)
{
    memcpy(&s->k, k, offsetof(sp_kargs, arg));
    s->k.arg = room;
    s->k.attr = s->attr;
    for (int i = 0; i < k->n_arg; i++) {
        const sp_operand *from = &k->arg[i];
        sp_operand *to = &room[i];
        memcpy(to, from, offsetof(sp_operand, shape));
        memcpy(to->shape, from->shape, sizeof *to->shape * from->rank);
        memcpy(to->stride, from->stride, sizeof *to->stride * from->rank);
    }
    for (int i = 0; i < k->n_attr; i++) {
        s->attr[i] = k->attr[i];
        if (k->attr[i].kind != SP_ATTR_INTS || !k->attr[i].v.ints) continue;
        memcpy(ints, k->attr[i].v.ints, sizeof *ints * (size_t)k->attr[i].n);
        s->attr[i].v.ints = ints;
        ints += k->attr[i].n;
    }
}

/* What an op needs room for, and where that is: in its slot, or, of many operands, in a block
 *     [ operands | ints | references ]
 */
typedef struct op_room {
    int n_arg, n_refs, n_ints;
    char *block; /* NULL: the slot's own */
    size_t bytes;
} op_room;

static bool find_room(op_room *r, const sp_kargs *k, int n_refs)
{
    *r = (op_room){.n_arg = k->n_arg, .n_refs = n_refs};
    for (int i = 0; i < k->n_attr; i++)
        if (k->attr[i].kind == SP_ATTR_INTS) r->n_ints += k->attr[i].n;
    if (SP_LIKELY(r->n_arg <= SP_KARGS_INLINE && n_refs <= SLOT_REFS && r->n_ints <= SLOT_INTS))
        return true;
    r->bytes = sizeof(sp_operand) * (size_t)r->n_arg + sizeof(int64_t) * (size_t)r->n_ints +
               sizeof(sp_storage *) * (size_t)n_refs;
    r->block = sp__alloc(r->bytes);
    return r->block != NULL;
}

static void fill_op(slot *s, const op_room *r, sp_kernel kernel, const sp_kargs *k)
{
    sp_operand *operands = r->block ? (sp_operand *)r->block : s->k.room;
    int64_t *ints = r->block ? (int64_t *)(operands + r->n_arg) : s->ints;
    s->kernel = kernel;
    s->block = r->block, s->block_bytes = r->bytes;
    s->refs = r->block ? (sp_storage **)(ints + r->n_ints) : s->room;
    copy_kargs(s, k, operands, ints);
}

bool sp__queue_op(int device, sp_kernel kernel, const sp_kargs *k, sp_storage *const *reads,
                  int n_reads, sp_storage *const *writes, int n_writes)
{
    queue *q = &queues[device];
    op_room room;
    if (!find_room(&room, k, n_reads + n_writes)) return false;
    sp__where where = where_now();
    slot *s = open_slot(q);
    if (!s) {
        drop_where(&where);
        if (room.block) sp__free(room.block, room.bytes);
        return false;
    }
    where = swap_where(s, where);
    fill_op(s, &room, kernel, k);
    sp__count(SP_COUNT_ISSUED);
    take_tickets(q, s, reads, n_reads, writes, n_writes);
    count_ahead(q, s, bytes_of_results(k));
    close_slot(q);
    drop_where(&where);
    return true;
}

bool sp__queue_raw(int device, sp_status (*run)(void *args), const void *args, size_t arg_bytes,
                   sp_storage *const *reads, int n_reads, sp_storage *const *writes, int n_writes)
{
    queue *q = &queues[device];
    size_t refs_at = (arg_bytes + 63) / 64 * 64,
           bytes = refs_at + sizeof(sp_storage *) * (size_t)(n_reads + n_writes);
    char *block = sp__alloc(bytes);
    if (!block) return false;
    if (arg_bytes) memcpy(block, args, arg_bytes);
    sp__where where = where_now();
    slot *s = open_slot(q);
    if (!s) {
        drop_where(&where);
        sp__free(block, bytes);
        return false;
    }
    where = swap_where(s, where);
    s->kernel = NULL;
    s->run = run;
    s->block = block;
    s->block_bytes = bytes;
    s->refs = (sp_storage **)(block + refs_at);
    take_tickets(q, s, reads, n_reads, writes, n_writes);
    count_ahead(q, s, bytes_of_storages(writes, n_writes));
    close_slot(q);
    drop_where(&where);
    return true;
}

/* ---- for launch.c ----- */

void sp__queue_wait(int device, uint64_t ticket)
{
    queue *q = &queues[device];
    if (done_of(q) >= ticket) return;
    int credit = atomic_load(&q->credit);
    if (now_us() - atomic_load(&q->burst) > WORTH_US)
        atomic_store(&q->credit, CREDIT);
    else if (credit > 0)
        atomic_store(&q->credit, credit - 1);
    void *left = sp__blocking_hooks.leave ? sp__blocking_hooks.leave() : NULL;
    wait_or_help(q, ticket);
    if (left) sp__blocking_hooks.enter(left);
}

sp_status sp__queue_error(int device)
{
    queue *q = &queues[device];
    char text[ERROR_TEXT], at[256] = "";
    if (SP_LIKELY(!atomic_load_explicit(&q->failed, memory_order_acquire))) return SP_OK;
    pthread_mutex_lock(&q->lock);
    bool mine = atomic_exchange(&q->failed, false); /* another thread may have come first */
    sp_status status = q->status;
    sp__where where = q->where;
    memcpy(text, q->text, sizeof text);
    pthread_mutex_unlock(&q->lock);
    if (!mine) return SP_OK;
    if (where.code && sp__where_hooks.text) sp__where_hooks.text(&where, at, sizeof at);
    drop_where(&where);
    return sp_fail(status, "%s%s%s%s", text, *at ? " [issued at " : "", at, *at ? "]" : "");
}

void sp__queue_settle(void)
{
    for (queue *q = queues; q < queues + SP_MAX_DEVICES; q++) drain(q);
}

sp_status sp__queue_drain(void)
{
    for (int device = 0; device < SP_MAX_DEVICES; device++)
        sp__queue_wait(device, issued_of(&queues[device]));
    for (int device = 0; device < SP_MAX_DEVICES; device++) SP_RETURN_IF(sp__queue_error(device));
    return SP_OK;
}
