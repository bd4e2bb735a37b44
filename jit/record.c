/* Ops that do not follow: new ways are recorded while they run, the rest runs as it comes.
 *
 * What may stand in a region at all is decided here: ops on storages that other code can write are
 * left out unless they only read (then each read is a snapshot), ops that check an index need that
 * index to be there when they are called.
 */
#include <stdio.h>
#include <string.h>

#include "jit/region_int.h"
#include "ops/launch.h"
#include "ops_gen.h"

enum {
    MAX_MISSES = 3, /* new ways in a row at one place until the region ends there for good */
    MAX_CHILDREN = 8,
    MAX_SKIPS =
        4, /* roots in one call whose first op never comes twice, until the call runs eagerly */
    MAX_STEPS = 1 << 16,
    SWEEP_EVERY = 32,     /* steps, ... */
    SWEEP_BYTES = 4 << 20 /* ... or of results */
};
static const int64_t MAX_SNAPSHOT = 16
                                    << 20; /* bytes that are worth copying to stay in the region */

static sp_status run_now(sp_region *r, sp_call *c)
{
    const void *before = sp__region_enter(r);
    sp_status status = sp__run(c);
    sp__region_leave(r, before);
    return status;
}

static sp_status run_unseen(sp_region *r, sp_call *c)
{
    sp_status status = run_now(r, c);
    if (status == SP_OK) r->ops++;
    return status;
}

/* ---- what an op needs ----- */

typedef bool (*handle_test)(const sp_region *r, const sp_tensor *t);

static bool any(const sp_region *r, sp_tensor *const *t, int n, handle_test test)
{
    for (int i = 0; i < n; i++)
        if (t[i] && t[i]->storage && test(r, t[i])) return true;
    return false;
}

static bool is_foreign(const sp_region *r, const sp_tensor *t)
{
    (void)r;
    return (t->storage->flags & SP_S_FOREIGN) != 0;
}

static bool is_large_foreign(const sp_region *r, const sp_tensor *t)
{
    sp_meta m;
    if (!is_foreign(r, t)) return false;
    sp__meta_of(t, &m);
    return sp__meta_extent(&m) * (int64_t)sp_dtype_size(t->dtype) > MAX_SNAPSHOT;
}

static bool is_elsewhere(const sp_region *r, const sp_tensor *t)
{
    return t->storage->region && t->storage->region != r;
}

static bool writes(const sp_call *c)
{
    return (c->flags & (SP_CALL_INPLACE | SP_CALL_OUT)) != 0;
}

static sp_status infer(const sp_call *c, sp_meta *out)
{
    const sp_op_info *info = &sp_op_table[c->op];
    for (int j = 0; j < c->n_out; j++)
        out[j].view_of = -1, out[j].offset = 0,
        out[j].device = c->n_in && c->in[0] ? c->in[0]->device : SP_DEVICE_CPU;
    return info->infer ? sp__infer(c, out) : SP_OK;
}

static bool makes_view(const sp_call *c)
{
    sp_meta out[SP_MAX_OUT];
    if (writes(c) || !(sp_op_table[c->op].flags & (SP_OPF_VIEW | SP_OPF_MAY_VIEW))) return false;
    return infer(c, out) == SP_OK && out[0].view_of >= 0;
}

/* Made or changed by steps that have not run: not to be looked at. */
static bool is_pending(const sp_region *r, const sp_tensor *t)
{
    if (t->storage->region != r) return false;
    int32_t slot = (int32_t)t->storage->region_slot;
    if (!t->storage->data) return true;
    for (const sp_step *s = r->at; s != r->root; s = s->parent) {
        if (slot >= s->first_slot && !(s->slots[slot - s->first_slot].flags & SP_SLOT_EXTERNAL))
            return true;
        if (s->flags & (SP_CALL_INPLACE | SP_CALL_OUT))
            for (int j = 0; j < s->n_out; j++)
                if (r->views[s->out[j]]->slot == slot) return true;
        if (slot >= s->first_slot) return false;
    }
    return false;
}

/* ---- new steps ----- */

static int32_t new_view(sp_region *r, sp_step *s, sp_tensor *t, int32_t slot)
{
    int32_t id = s->end_view++;
    sp_trace_view *v = &s->views[id - s->first_view];
    sp__meta_of(t, &v->meta);
    v->slot = slot;
    v->meta.offset -= r->base[slot];
    r->views[id] = v;
    if (t->storage->region == r) t->trace_epoch = r->epoch, t->trace_value = id;
    return id;
}

static int32_t new_slot(sp_region *r, sp_step *s, sp_tensor *t, int flags)
{
    int32_t slot = s->end_slot++;
    sp_storage *storage = t->storage;
    if ((flags & SP_SLOT_EXTERNAL) && (storage->flags & SP_S_FOREIGN)) flags |= SP_SLOT_SNAPSHOT;
    s->slots[slot - s->first_slot] =
        (sp_trace_slot){.flags = (uint8_t)flags,
                        .device = storage->device,
                        .nbytes = storage->nbytes,
                        .storage_flags = storage->flags & (SP_S_FOREIGN | SP_S_READONLY)};
    r->base[slot] = flags & SP_SLOT_EXTERNAL ? t->offset : 0;
    r->slots[slot] = NULL, r->held[slot] = 0;
    if (flags & SP_SLOT_SNAPSHOT) return slot;
    storage->region = r, storage->region_slot = slot;
    r->slots[slot] = sp__storage_retain(storage), r->held[slot] = 1;
    if (!(flags & SP_SLOT_EXTERNAL)) r->unswept += (int64_t)storage->nbytes;
    return slot;
}

static int32_t operand_view(sp_region *r, sp_step *s, sp_tensor *t)
{
    if (!t) return -1;
    bool known = t->storage->region == r;
    if (known && t->trace_epoch == r->epoch) return (int32_t)t->trace_value;
    return new_view(r, s, t,
                    known ? (int32_t)t->storage->region_slot : new_slot(r, s, t, SP_SLOT_EXTERNAL));
}

static void result_view(sp_region *r, sp_step *s, const sp_call *c, int j)
{
    sp_tensor *t = c->out[j];
    if (c->flags & SP_CALL_OUT) {
        s->out[j] = operand_view(r, s, t);
        return;
    }
    for (int k = 0; k < c->n_in; k++)
        if (c->in[k] == t) s->same[j] = (int8_t)(k < 127 ? k : 127), s->out[j] = s->in[k];
    if (s->same[j] >= 0) {
        s->is_view = !(c->flags & SP_CALL_INPLACE);
        return;
    }
    s->is_view = t->storage->region == r;
    s->out[j] =
        new_view(r, s, t, s->is_view ? (int32_t)t->storage->region_slot : new_slot(r, s, t, 0));
}

static void fill_step(sp_region *r, sp_step *s, const sp_call *c)
{
    for (int k = 0; k < c->n_in; k++) s->in[k] = operand_view(r, s, c->in[k]);
    for (int j = 0; j < c->n_out; j++) result_view(r, s, c, j);
    if (sp_op_table[c->op].flags & SP_OPF_CHECKS_DATA) s->checks |= SP_STEP_INDEX;
    if (c->op == SP_OP_AS_STRIDED)
        s->checks |= SP_STEP_BASE, s->base = r->base[r->views[s->in[0]]->slot];
}

static void largest(sp_jit *j, int32_t *max, int32_t n)
{
    if (n <= *max) return;
    *max = n;
    j->room++;
}

/* Room for whatever one more step with these operands can bring. */
static sp_status make_room(sp_region *r, const sp_call *c)
{
    sp_jit *j = r->jit;
    int32_t more = c->n_in + c->n_out;
    largest(j, &j->max_steps, r->at->depth + 1);
    largest(j, &j->max_slots, r->at->end_slot + more);
    largest(j, &j->max_views, r->at->end_view + more);
    largest(j, &j->max_scalars, r->at->end_scalar + SP_MAX_ATTR);
    return sp__region_reserve(r);
}

/* Storages that live only because the region holds them: recording keeps no more memory than it
 * must. */
static void sweep(sp_region *r)
{
    if (r->at->depth - r->swept < SWEEP_EVERY && r->unswept < SWEEP_BYTES) return;
    r->swept = r->at->depth, r->unswept = 0;
    for (int32_t k = 0; k < r->at->end_slot; k++) {
        sp_storage *s = r->slots[k];
        if (!s || atomic_load_explicit(&s->refs, memory_order_acquire) != 1) continue;
        s->region = NULL, r->slots[k] = NULL, r->held[k] = 0;
        sp__storage_drop(s);
    }
}

/* The results of a call that ran, in a step that was there before. */
static void adopt_results(sp_region *r, const sp_step *s, const sp_call *c)
{
    for (int j = 0; j < c->n_out; j++) {
        sp_tensor *t = c->out[j];
        if (s->out[j] < s->first_view || s->same[j] >= 0 || (c->flags & SP_CALL_OUT)) continue;
        int32_t slot = s->views[s->out[j] - s->first_view].slot;
        if (!s->is_view) {
            t->storage->region = r, t->storage->region_slot = slot;
            r->slots[slot] = sp__storage_retain(t->storage), r->held[slot] = 1, r->base[slot] = 0;
        }
        t->trace_epoch = r->epoch, t->trace_value = s->out[j];
    }
}

static sp_status note(sp_region *r, const sp_call *c, sp__where *where)
{
    SP_RETURN_IF(make_room(r, c));
    sp_step *s = sp__region_match(r, c);
    if (s) {
        adopt_results(r, s, c);
    } else {
        SP_RETURN_IF(sp__step_new(r->at, c, where, &s));
        fill_step(r, s, c);
        sp__step_link(s);
        r->jit->n_steps++;
    }
    sp__region_advance(r, s);
    r->ran = s->depth;
    sweep(r);
    return SP_OK;
}

static sp_status flush_others(const sp_region *r, sp_tensor *const *t, int n)
{
    for (int i = 0; i < n; i++)
        if (t[i] && t[i]->storage && is_elsewhere(r, t[i]))
            SP_RETURN_IF(sp__handle_hooks.region_flush(t[i]->storage->region, t[i]->storage));
    return SP_OK;
}

/* Until no other region knows an operand: another thread may have met it while this one waited. */
static sp_status claim_operands(const sp_region *r, const sp_call *c)
{
    int n_given = writes(c) ? c->n_out : 0;
    while (any(r, c->in, c->n_in, is_elsewhere) || any(r, c->out, n_given, is_elsewhere)) {
        SP_RETURN_IF(flush_others(r, c->in, c->n_in));
        SP_RETURN_IF(flush_others(r, c->out, n_given));
    }
    return SP_OK;
}

/* Asking for the line may run a collection, and that anything; so may waiting for other regions.
 * From then on nobody else has a say until the step is there. */
static sp_status record(sp_region *r, sp_call *c)
{
    sp__where where = {0};
    SP_RETURN_IF(run_now(r, c));
    r->mode = SP_REGION_RECORD;
    if (sp__where_hooks.here) sp__where_hooks.here(&where);
    sp_status status = claim_operands(r, c);
    if (r->mode != SP_REGION_OFF) {
        r->mode = SP_REGION_RECORD;
        if (status != SP_OK || note(r, c, &where) != SP_OK) sp__region_off(r);
    }
    if (where.code) sp__where_hooks.drop(&where);
    return SP_OK;
}

/* ---- deciding ----- */

static void note_reason(sp_region *r, const char *what)
{
    char where[80] = "", text[256];
    sp__where here = {0};
    if (sp__where_hooks.here) sp__where_hooks.here(&here);
    if (here.code) {
        sp__where_hooks.text(&here, where, sizeof where);
        sp__where_hooks.drop(&here);
    }
    snprintf(text, sizeof text, "%s%s%s", where, *where ? ": " : "", what);
    sp__jit_reason(r->jit, text);
}

/* The first op of a root never comes twice: it runs by itself, and what follows has its own
 * root. */
static sp_status skip(sp_region *r, sp_call *c)
{
    sp_exit *e = r->root->exit;
    bool entry = r->root == r->jit->entry;
    SP_RETURN_IF(run_unseen(r, c));
    if (entry || ++r->skips >= MAX_SKIPS ||
        (!e && sp__step_exit(r->root, &r->jit->exits, &e) != SP_OK)) {
        note_reason(r, "the rest of the call runs eagerly: it starts differently every time");
        sp__region_off(r);
        return SP_OK;
    }
    e->is_break = true, r->breaks++;
    r->root = r->at = e->next, r->ran = r->swept = 0, r->mode = SP_REGION_FOLLOW;
    return SP_OK;
}

static bool is_full(const sp_region *r)
{
    return r->at->n_children >= MAX_CHILDREN || r->jit->n_steps >= MAX_STEPS;
}

static void count_miss(sp_region *r, const sp_call *c)
{
    char text[128];
    sp_step *s = r->at;
    if (!s->child && !s->exit) return;
    if (s->misses < MAX_MISSES) s->misses++;
    if (s->misses < MAX_MISSES || s->broken) return;
    s->broken = true;
    snprintf(text, sizeof text, "%s: operands or attributes differ in every call (3 in a row)",
             sp_op_table[c->op].name);
    note_reason(r, text);
}

static sp_status new_way(sp_region *r, sp_call *c)
{
    sp_meta out[SP_MAX_OUT];
    if (r->mode == SP_REGION_FOLLOW)
        SP_RETURN_IF(infer(c, out)); /* a call that fails leaves the region as it was */
    count_miss(r, c);
    if (r->at->broken || is_full(r)) {
        if (r->at == r->root) return skip(r, c);
        SP_RETURN_IF(sp__region_end(r, SP_END_VARIES));
        return sp__region_eval(&r->tracer, c);
    }
    if (r->mode == SP_REGION_FOLLOW && r->at != r->root) {
        r->breaks++;
        SP_RETURN_IF(sp__region_run_eager(r));
        r->mode = SP_REGION_RECORD;
    }
    return record(r, c);
}

/* A composite that sp__run() would not give to a kernel: its body's ops come here one by one. */
bool sp__region_has_only_body(const sp_call *c)
{
    const sp_op_info *info = &sp_op_table[c->op];
    if (SP_LIKELY(!info->body)) return false;
    const sp_backend *b = sp__backends[c->n_in && c->in[0] ? c->in[0]->device : SP_DEVICE_CPU];
    return !info->infer || !b || !b->kernel(c->op);
}

sp_status sp__region_run_body(sp_call *c)
{
    sp_tls *tls = &sp__tls;
    sp_level *top = tls->top;
    bool no_grad = tls->no_grad;
    tls->top = NULL, tls->no_grad = true; /* they have seen the composite */
    sp_status status = sp__body(c);
    tls->top = top, tls->no_grad = no_grad;
    return status;
}

/* Whether c may stand in a region where it comes now. What cannot ends the region, if there is one
 * yet. */
typedef enum verdict { TAKE, RUN, END } verdict;

static verdict judge(const sp_region *r, const sp_call *c)
{
    int n_given = writes(c) ? c->n_out : 0;
    bool begun = r->at != r->root;
    if (any(r, c->out, n_given, is_foreign) || any(r, c->in, c->n_in, is_large_foreign))
        return begun ? END : RUN;
    if (!(sp_op_table[c->op].flags & SP_OPF_CHECKS_DATA)) return TAKE;
    int first = sp_op_table[c->op].index_in,
        end = sp_op_table[c->op].n_in < 0 ? c->n_in : first + 1;
    for (int i = first; i < end; i++) {
        if (c->in[i]->dtype != SP_INT64) return begun ? END : RUN;
        if (begun && is_pending(r, c->in[i])) return END;
    }
    return TAKE;
}

sp_status sp__region_stray(sp_region *r, sp_call *c)
{
    int n_given = writes(c) ? c->n_out : 0;
    if (sp__region_has_only_body(c)) return sp__region_run_body(c);
    if (r->mode == SP_REGION_OFF) return run_unseen(r, c);
    if (r->mode == SP_REGION_STUCK) {
        SP_RETURN_IF(sp__region_end(r, SP_END_READ));
        return sp__region_eval(&r->tracer, c);
    }
    if (any(r, c->in, c->n_in, is_elsewhere) || any(r, c->out, n_given, is_elsewhere)) {
        SP_RETURN_IF(claim_operands(r, c));
        return sp__region_eval(&r->tracer, c);
    }
    if (any(r, c->in, c->n_in, is_foreign) && makes_view(c))
        return run_now(r, c); /* geometry: nothing to compile */
    switch (judge(r, c)) {
    case TAKE: return new_way(r, c);
    case RUN: return run_unseen(r, c);
    default: break;
    }
    SP_RETURN_IF(sp__region_end(r, sp_op_table[c->op].flags & SP_OPF_CHECKS_DATA ? SP_END_INDEX
                                                                                 : SP_END_FOREIGN));
    return sp__region_eval(&r->tracer, c);
}
