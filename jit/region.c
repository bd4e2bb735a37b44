/* Regions: their life, how segments end, and the hooks through which others get at what is
 * deferred. */
#include "jit/region_int.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "ops/launch.h"
#include "tensor/memory.h"

__thread char sp__region_me;

/* Never reused, so that a stamp on a handle is valid in one segment only. */
static _Atomic uint64_t epochs = 1;

/* ---- life ----- */

sp_status sp__region_new(sp_jit *jit, sp_region **out)
{
    sp_region *r = *out = sp__alloc_zero(sizeof *r);
    if (!r) return sp_fail(SP_EMEMORY, "jit: no memory for a region");
    r->tracer.eval = sp__region_eval;
    r->jit = jit;
    return SP_OK;
}

static void free_array(void *p, int32_t n, size_t size)
{
    if (p) sp__free(p, (size_t)n * size);
}

void sp__region_free(sp_region *r)
{
    free_array(r->path, r->cap_steps, sizeof *r->path);
    free_array(r->slots, r->cap_slots, sizeof *r->slots);
    free_array(r->base, r->cap_slots, sizeof *r->base);
    free_array(r->held, r->cap_slots, sizeof *r->held);
    free_array(r->views, r->cap_views, sizeof *r->views);
    free_array(r->scalars, r->cap_scalars, sizeof *r->scalars);
    sp__free(r, sizeof *r);
}

static sp_status grow(void *array, int32_t old, int32_t n, size_t size)
{
    void **p = array;
    void *bigger =
        *p ? sp__realloc(*p, (size_t)old * size, (size_t)n * size) : sp__alloc((size_t)n * size);
    if (!bigger) return sp_fail(SP_EMEMORY, "jit: no memory for a region of %d entries", n);
    memset((char *)bigger + (size_t)old * size, 0, (size_t)(n - old) * size);
    *p = bigger;
    return SP_OK;
}

static sp_status grow_slots(sp_region *r, int32_t n)
{
    /* One after the other: the capacity counts only when all three have it. */
    int32_t old = r->cap_slots;
    sp_storage **slots = sp__alloc_zero((size_t)n * sizeof *slots);
    int64_t *base = sp__alloc_zero((size_t)n * sizeof *base);
    uint8_t *held = sp__alloc_zero((size_t)n);
    if (!slots || !base || !held) {
        free_array(slots, n, sizeof *slots), free_array(base, n, sizeof *base),
            free_array(held, n, 1);
        return sp_fail(SP_EMEMORY, "jit: no memory for a region of %d storages", n);
    }
    if (old) {
        memcpy(slots, r->slots, (size_t)old * sizeof *slots);
        memcpy(base, r->base, (size_t)old * sizeof *base);
        memcpy(held, r->held, (size_t)old);
    }
    free_array(r->slots, old, sizeof *slots), free_array(r->base, old, sizeof *base),
        free_array(r->held, old, 1);
    r->slots = slots, r->base = base, r->held = held, r->cap_slots = n;
    return SP_OK;
}

static int32_t roomy(int32_t n)
{
    return n + n / 2 + 16;
}

sp_status sp__region_reserve(sp_region *r)
{
    const sp_jit *j = r->jit;
    if (j->max_slots > r->cap_slots) SP_RETURN_IF(grow_slots(r, roomy(j->max_slots)));
    if (j->max_steps > r->cap_steps) {
        SP_RETURN_IF(grow(&r->path, r->cap_steps, roomy(j->max_steps), sizeof *r->path));
        r->cap_steps = roomy(j->max_steps);
    }
    if (j->max_views > r->cap_views) {
        SP_RETURN_IF(grow(&r->views, r->cap_views, roomy(j->max_views), sizeof *r->views));
        r->cap_views = roomy(j->max_views);
    }
    if (j->max_scalars > r->cap_scalars) {
        SP_RETURN_IF(grow(&r->scalars, r->cap_scalars, roomy(j->max_scalars), sizeof *r->scalars));
        r->cap_scalars = roomy(j->max_scalars);
    }
    r->room = j->room;
    return SP_OK;
}

static void start_segment(sp_region *r, sp_step *root)
{
    r->root = r->at = root;
    r->ran = r->swept = 0, r->unswept = 0;
    r->epoch = atomic_fetch_add_explicit(&epochs, 1, memory_order_relaxed);
}

sp_status sp__region_again(sp_region *r)
{
    SP_RETURN_IF(sp__region_reserve(r));
    r->mode = SP_REGION_FOLLOW;
    r->skips = 0;
    start_segment(r, r->jit->entry);
    return SP_OK;
}

sp_status sp__region_begin(sp_region *r)
{
    r->ops = r->compiled_ops = r->breaks = 0;
    r->open = true;
    return sp__region_again(r);
}

void sp__region_detach(sp_region *r)
{
    for (int32_t k = 0; k < r->at->end_slot; k++) {
        sp_storage *s = r->slots[k];
        if (!s) continue;
        s->region = NULL;
        r->slots[k] = NULL;
        if (r->held[k]) sp__storage_drop(s);
        r->held[k] = 0;
    }
}

void sp__region_off(sp_region *r)
{
    sp__region_detach(r);
    start_segment(r, r->jit->entry);
    r->mode = SP_REGION_OFF;
}

/* ---- other threads ----- */

static void let_others_on(void)
{
    void *left = sp__blocking_hooks.leave ? sp__blocking_hooks.leave() : NULL;
    sched_yield();
    if (left) sp__blocking_hooks.enter(left);
}

void sp__region_wait(const sp_region *r)
{
    while (*(const void *const volatile *)&r->busy_by) let_others_on();
}

/* ---- checking ----- */

void sp__region_check(const sp_region *r)
{
#ifndef NDEBUG
    SP_ASSERT(r->ran <= r->at->depth);
    for (const sp_step *s = r->at; s != r->root; s = s->parent) {
        SP_ASSERT(s->parent && r->path[s->depth - 1] == s);
        SP_ASSERT(s->first_slot == s->parent->end_slot && s->first_view == s->parent->end_view);
    }
    for (int32_t k = 0; k < r->cap_slots; k++) {
        const sp_storage *s = r->slots[k];
        SP_ASSERT(!s || (k < r->at->end_slot && s->region == r && s->region_slot == k));
        SP_ASSERT(!s || r->held[k] || r->mode == SP_REGION_FOLLOW);
        SP_ASSERT(s || !r->held[k]);
    }
#else
    (void)r;
#endif
}

/* ---- ends ----- */

static const char *why_text(sp_region_why why)
{
    switch (why) {
    case SP_END_READ:
        return "a value was read (item, numpy, print, or another thread) before the call's end";
    case SP_END_FOREIGN:
        return "an op writes memory that is shared with other code (NumPy), or reads much of it";
    case SP_END_INDEX: return "an op checks an index that was computed in the same region";
    case SP_END_VARIES: return "what comes next differs in every call";
    default: return "";
    }
}

static void note_break(sp_region *r, sp_exit *e, sp_region_why why)
{
    char where[80] = "";
    sp__where here = {0};
    r->breaks++;
    e->is_break = true;
    if (e->reason[0]) return;
    const void *before = sp__region_enter(r); /* asking for the line may run a collection */
    if (sp__where_hooks.here) sp__where_hooks.here(&here);
    if (here.code) {
        sp__where_hooks.text(&here, where, sizeof where);
        sp__where_hooks.drop(&here);
    }
    snprintf(e->reason, sizeof e->reason, "%s%s%s", where, *where ? ": " : "", why_text(why));
    sp__jit_reason(r->jit, e->reason);
    sp__region_leave(r, before);
}

/* Makes the bytes of everything buffered be there: by the exit's plan if this end was seen
 * before. */
static sp_status run_pending(sp_region *r, sp_exit *e)
{
    if (r->mode == SP_REGION_RECORD) return SP_OK;
    if (r->mode == SP_REGION_FOLLOW && e && e->ends > 0 && sp__region_run_plan(r, e)) return SP_OK;
    return sp__region_run_eager(r);
}

sp_status sp__region_end(sp_region *r, sp_region_why why)
{
    if (SP_UNLIKELY(r->busy_by != NULL)) sp__region_wait(r);
    sp_exit *e = r->at->exit;
    sp__region_check(r);
    if (r->mode == SP_REGION_OFF || r->at == r->root) return SP_OK;
    if (!e && sp__step_exit(r->at, &r->jit->exits, &e) != SP_OK) e = NULL;
    SP_RETURN_IF(run_pending(r, e));
    r->at->misses = 0;
    if (!e) {
        sp__region_off(r);
        return SP_OK;
    }
    sp__region_detach(r);
    e->ends++;
    start_segment(r, e->next);
    r->mode = SP_REGION_FOLLOW;
    if (why == SP_END_READ || why == SP_END_FOREIGN || why == SP_END_INDEX || why == SP_END_VARIES)
        note_break(r, e, why);
    return SP_OK;
}

/* ---- hooks ----- */

static void free_if_done(sp_region *r)
{
    if (!r->open && !r->busy_by && r->mode != SP_REGION_STUCK) sp__jit_region_done(r);
}

static sp_status flush(sp_region *r, sp_storage *storage)
{
    if (sp__region_is_mine(r)) {
        if (storage->data) return SP_OK;
        return sp_fail(SP_EINTERNAL, "jit: a value is read while the region that makes it is run");
    }
    /* The region may be gone as soon as it has let go of the storage. */
    while (storage->region == r && *(const void *volatile *)&r->busy_by) let_others_on();
    if (storage->region != r) return SP_OK;
    sp_status status = sp__region_end(r, SP_END_READ);
    free_if_done(r);
    return status;
}

static void forget(sp_region *r, sp_storage *storage)
{
    r->slots[storage->region_slot] = NULL;
}

void sp__region_register(void)
{
    sp__handle_hooks.region_flush = flush;
    sp__handle_hooks.region_forget = forget;
}
