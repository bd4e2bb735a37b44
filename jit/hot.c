/* Hot regions: loops that repeat, found without a decorator, and run as jitted calls of one turn
 * each.
 *
 *     watch    every op runs; its hash goes into a ring. When ops repeat with some period for long
 *              enough ...
 *     turn     ... the next `length` ops (whole periods) are one call of a jit function of the
 *              loop: followed, run as a plan at the turn's end or when something is read. An op
 *              that breaks the rhythm ends that: back to watching.
 *
 *     ops      a b c d | a b c d | a b c d ...      hash equal to the one `period` back: run grows
 *                        run = 1 2 3 4   5 6 ...    run >= period * SPOOL_HOT_MIN: hot
 *
 * Invariants
 * 1. Watching costs a few instructions an op and allocates nothing. The hash is a hint: what is
 *    compiled is compared in full by the region that follows it.
 * 2. A loop is worth a plan if its ops touch much memory; short loops over small tensors are
 *    faster op by op, and a loop around long kernels gains nothing: fusion does not shorten
 *    them, and the queue overlaps them with what the program does between ops. With SPOOL_HOT_MIN=1
 * everything that repeats is hot, for tests.
 * 3. A loop whose turns mostly end up running op by op is given up for good.
 *
 * Knobs (read once): SPOOL_HOT=0 switches the search off, SPOOL_HOT_MIN=n sets how many periods
 * make a loop hot (16).
 */
#include <stdlib.h>
#include <string.h>

#include "jit/region_int.h"
#include "ops_gen.h"
#include "tensor/memory.h"

enum {
    RING = 1024, /* the longest period, a power of two */
    TABLE = 1024,
    LOOPS = 8,       /* remembered */
    TURN_MIN = 16,   /* ops in a turn: short periods are taken several at once */
    LOOK_AGAIN = 64, /* periods until a loop that was left alone is looked at again */
    TRIALS = 16,     /* turns after which a loop must have proved itself */
    DEFAULT_MIN = 16
};
static const int64_t WORTH_ELEMENTS = 1 << 16, /* a turn */
    HEAVY_ELEMENTS =
        1 << 16; /* an op that is not fused: as a product of two squares it takes 170 us */

typedef struct hot_loop {
    uint64_t key; /* of the ops of a period, in any rotation */
    int64_t last_used;
    sp_jit *jit;
    int32_t turns;
    bool given_up;
} hot_loop;

typedef struct detector {
    sp_tracer tracer; /* first */
    int64_t at;       /* ops seen */
    int64_t elements; /* that they touched, since the period began to repeat */
    int64_t run;      /* ops in the rhythm of the period */
    int64_t enough;   /* `run` at which the loop is looked at */
    int64_t heavy;    /* `at` after the last op with a long kernel */
    int32_t period;
    int32_t left;   /* ops until the turn's end; 0: watching */
    int32_t length; /* of a turn */
    hot_loop *loop;
    sp_region *region;
    uint32_t ring[RING];
    int64_t last[TABLE]; /* where a hash came last */
    hot_loop loops[LOOPS];
} detector;

static __thread detector *mine;
static int32_t min_periods = DEFAULT_MIN;
static bool is_off;

/* ---- watching ----- */

static inline uint32_t hash_call(const sp_call *c, int64_t *elements)
{
    uint64_t h = c->op | (uint64_t)c->flags << 16;
    int64_t n = 0;
    for (int i = 0; i < c->n_in; i++) {
        const sp_tensor *t = c->in[i];
        if (!t) continue;
        h = (h << 5 | h >> 59) ^ (uint64_t)t->numel ^ (uint64_t)(t->dtype << 8 | t->rank) << 40;
        n += t->numel;
    }
    *elements = n;
    return (uint32_t)(h * 0x9E3779B97F4A7C15u >> 32);
}

/* The rhythm is broken: perhaps the one since this op came last goes on. */
static __attribute__((noinline)) void search(detector *d, uint32_t h, int64_t at, int64_t elements)
{
    int64_t last = d->last[h & (TABLE - 1)];
    bool came = last >= 0 && at - last < RING && d->ring[last & (RING - 1)] == h;
    d->period = came ? (int32_t)(at - last) : 0;
    d->run = came, d->elements = elements;
    d->enough = d->period * min_periods;
}

static bool is_unfused(const sp_call *c)
{
    return !(sp_op_table[c->op].flags &
             (SP_OPF_POINTWISE | SP_OPF_REDUCE | SP_OPF_VIEW | SP_OPF_MAY_VIEW));
}

/* Whether the op continues the rhythm; looks for another one if it does not. */
static inline bool beats(detector *d, const sp_call *c)
{
    int64_t at = d->at++, elements;
    uint32_t h = hash_call(c, &elements);
    bool same = d->period && d->ring[(at - d->period) & (RING - 1)] == h;
    if (SP_LIKELY(same))
        d->run++, d->elements += elements;
    else
        search(d, h, at, elements);
    if (SP_UNLIKELY(elements >= HEAVY_ELEMENTS) && is_unfused(c)) d->heavy = d->at;
    d->last[h & (TABLE - 1)] = at;
    d->ring[at & (RING - 1)] = h;
    return same;
}

static bool is_worth_it(const detector *d)
{
    bool heavy = d->heavy > 0 && d->at - d->heavy < d->period;
    return min_periods == 1 || (!heavy && d->elements / d->run * d->length >= WORTH_ELEMENTS);
}

static int32_t turn_length(int32_t period)
{
    return min_periods == 1 ? period : (TURN_MIN + period - 1) / period * period;
}

/* ---- loops ----- */

static uint64_t key_of(const detector *d)
{
    uint64_t key = (uint64_t)d->period << 32;
    for (int32_t i = 1; i <= d->period; i++)
        key += d->ring[(d->at - i) & (RING - 1)] * 0x9E3779B97F4A7C15u;
    return key;
}

static void forget_loop(hot_loop *l)
{
    sp__jit_drop(l->jit);
    *l = (hot_loop){0};
}

static hot_loop *find_loop(detector *d)
{
    uint64_t key = key_of(d);
    hot_loop *oldest = d->loops;
    for (hot_loop *l = d->loops; l < d->loops + LOOPS; l++) {
        if (l->jit && l->key == key) return l;
        if (l->last_used < oldest->last_used) oldest = l;
    }
    forget_loop(oldest);
    oldest->key = key;
    return sp__jit_new("hot loop", &oldest->jit) == SP_OK ? oldest : NULL;
}

static bool start_turns(detector *d)
{
    sp_region *r;
    d->length = turn_length(d->period);
    d->enough = d->run + LOOK_AGAIN * d->period;
    if (!is_worth_it(d)) return false;
    hot_loop *l = find_loop(d);
    if (!l || l->given_up || sp__jit_open(l->jit, &r) != SP_OK) return false;
    l->last_used = d->at;
    d->loop = l, d->region = r, d->left = d->length;
    return true;
}

/* ---- turns ----- */

static sp_status stop_turns(detector *d)
{
    sp_region *r = d->region;
    d->region = NULL, d->loop = NULL, d->left = 0;
    d->period = d->run = 0;
    return r ? sp__jit_close(r, SP_END_TURN) : SP_OK;
}

static void judge_loop(const detector *d)
{
    const sp_region *r = d->region;
    if (++d->loop->turns % TRIALS == 0 && r->compiled_ops * 2 < r->ops) d->loop->given_up = true;
}

static sp_status next_turn(detector *d)
{
    SP_RETURN_IF(sp__region_end(d->region, SP_END_TURN));
    judge_loop(d);
    if (d->loop->given_up) return stop_turns(d);
    d->left = d->length;
    return sp__region_again(d->region);
}

static sp_status turn(detector *d, sp_call *c)
{
    if (!beats(d, c))
        SP_RETURN_IF(stop_turns(d));
    else if (d->left == 0)
        SP_RETURN_IF(next_turn(d));
    if (!d->region) return sp__run(c);
    d->left--;
    return sp__region_eval(&d->region->tracer, c);
}

static __attribute__((noinline)) sp_status first_turn(detector *d, sp_call *c)
{
    if (!start_turns(d)) return sp__run(c);
    d->left--;
    return sp__region_eval(&d->region->tracer, c);
}

static __attribute__((noinline)) sp_status not_watching(detector *d, sp_call *c)
{
    if (sp_op_table[c->op].body && sp__region_has_only_body(c)) return sp__region_run_body(c);
    if (d->region) return turn(d, c);
    return beats(d, c) && d->run >= d->enough ? first_turn(d, c) : sp__run(c);
}

static sp_status watch(sp_tracer *self, sp_call *c)
{
    detector *d = (detector *)self;
    if (SP_UNLIKELY(d->region || sp_op_table[c->op].body)) return not_watching(d, c);
    if (SP_UNLIKELY(beats(d, c) && d->run >= d->enough)) return first_turn(d, c);
    return sp__run(c);
}

/* Many calls as one launch: each has its place in the rhythm, but none starts a turn. Within a turn
 * they come one by one. */
static bool watch_each(sp_tracer *self, const sp_call *c, int n)
{
    detector *d = (detector *)self;
    if (d->region) return false;
    sp_call one = {.op = c->op, .flags = SP_CALL_OUT, .n_in = c->n_in, .in = c->in};
    for (int i = 0; i < n; i++, one.in += c->n_in) beats(d, &one);
    return true;
}

/* ---- switching ----- */

bool sp__hot_is(const sp_tracer *t)
{
    return t->eval == watch;
}

sp_status sp__hot_flush(void)
{
    return mine ? stop_turns(mine) : SP_OK;
}

static detector *new_detector(void)
{
    detector *d = sp__alloc_zero(sizeof *d);
    if (!d) return NULL;
    d->tracer.eval = watch, d->tracer.each = watch_each;
    memset(d->last, -1, sizeof d->last);
    return d;
}

bool sp__hot_set(bool on)
{
    bool was = sp__tls.in_hot;
    if (is_off || on == was) return was;
    if (sp__tls.tracer && !sp__hot_is(sp__tls.tracer))
        return was; /* within a jitted call or a capture */
    if (on && !mine) mine = new_detector();
    if (!on && sp__hot_flush() != SP_OK) return was;
    sp__tls.in_hot = on && mine;
    sp__tls.tracer = sp__tls.in_hot ? &mine->tracer : NULL;
    return was;
}

void sp__hot_register(void)
{
    const char *off = getenv("SPOOL_HOT"), *min = getenv("SPOOL_HOT_MIN");
    is_off = off && strcmp(off, "0") == 0;
    if (min && atoi(min) > 0) min_periods = atoi(min);
    sp__hot_set(true);
}
