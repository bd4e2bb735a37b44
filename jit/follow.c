/* Following: is this call the one that came here before? Then its results are deferred handles and
 * nothing runs.
 *
 * A match binds as it goes (external storages get the region's mark, handles are stamped) and
 * takes everything back when a later operand turns out not to fit; comparing attributes first
 * makes that rare.
 */
#include <string.h>

#include "jit/region_int.h"
#include "ops/launch.h"
#include "ops/random.h"
#include "ops/write.h"

/* ---- attributes ----- */

static inline sp_scalar scalar_of(const sp_attr *a)
{
    sp_scalar s = {.v.i = a->v.i, .kind = a->kind == SP_ATTR_SCALAR ? (sp_dtype)a->tag : SP_INT64};
    if (s.kind == SP_FLOAT64) s.v.f = a->v.f;
    return s;
}

static inline bool attr_same(const sp_attr *a, const sp_attr *b)
{
    if (a->absent != b->absent) return false;
    if (a->kind != SP_ATTR_INTS) return a->v.i == b->v.i && a->tag == b->tag; /* the union's bits */
    return a->n == b->n &&
           (a->n == 0 || memcmp(a->v.ints, b->v.ints, (size_t)a->n * sizeof(int64_t)) == 0);
}

static inline bool attrs_match(sp_region *r, const sp_step *s, const sp_call *c)
{
    sp_scalar *scalars = r->scalars + s->first_scalar;
    for (int i = 0; i < c->n_attr; i++) {
        if (s->lifted & 1u << i) {
            if (c->attr[i].tag != s->attr[i].tag || c->attr[i].absent) return false;
            *scalars++ = scalar_of(&c->attr[i]);
        } else if (!attr_same(&c->attr[i], &s->attr[i])) {
            return false;
        }
    }
    return true;
}

/* ---- operands ----- */

bool sp__region_same_geometry(const sp_tensor *t, const sp_meta *m, int64_t base)
{
    if (t->dtype != m->dtype || t->rank != m->rank || t->device != m->device ||
        t->offset - base != m->offset)
        return false;
    for (int i = 0; i < t->rank; i++)
        if (t->shape[i] != m->shape[i] || t->stride[i] != m->stride[i]) return false;
    return true;
}

static inline void stamp(const sp_region *r, sp_tensor *t, int32_t view)
{
    t->trace_epoch = r->epoch;
    t->trace_value = view;
}

/* A copy of the elements that t can reach, in t's layout: what t holds now. */
static sp_storage *snapshot(sp_region *r, const sp_tensor *t)
{
    sp_meta m;
    sp_storage *copy;
    sp__meta_of(t, &m);
    size_t bytes = (size_t)sp__meta_extent(&m) * sp_dtype_size(t->dtype);
    const void *before = sp__region_enter(r);
    sp_status status = sp__storage_wait(t->storage, false);
    sp__region_leave(r, before);
    if (status != SP_OK || sp__storage_new(bytes, t->device, &copy) != SP_OK) return NULL;
    if (bytes) memcpy(copy->data, sp__data(t), bytes);
    return copy;
}

static bool bind_snapshot(sp_region *r, const sp_trace_view *v, sp_tensor *t)
{
    sp_storage *copy;
    if (!(t->storage->flags & SP_S_FOREIGN) || t->storage->region) return false;
    if (!sp__region_same_geometry(t, &v->meta, t->offset) || !(copy = snapshot(r, t))) return false;
    copy->region = r, copy->region_slot = v->slot;
    r->slots[v->slot] = copy, r->base[v->slot] = 0, r->held[v->slot] = 1;
    return true;
}

static bool bind_slot(sp_region *r, const sp_trace_slot *slot, int32_t view, const sp_trace_view *v,
                      sp_tensor *t)
{
    sp_storage *s = t->storage;
    if (slot->flags & SP_SLOT_SNAPSHOT) return bind_snapshot(r, v, t);
    if (!s || s->region || (s->flags & (SP_S_FOREIGN | SP_S_READONLY)) != slot->storage_flags)
        return false;
    if (!sp__region_same_geometry(t, &v->meta, t->offset)) return false;
    s->region = r, s->region_slot = v->slot;
    r->slots[v->slot] = sp__storage_retain(s), r->base[v->slot] = t->offset, r->held[v->slot] = 1;
    stamp(r, t, view);
    return true;
}

static bool known_slot(sp_region *r, int32_t view, const sp_trace_view *v, sp_tensor *t)
{
    const sp_storage *s = t->storage;
    if (!s || s->region != r || s->region_slot != v->slot) return false;
    if (!sp__region_same_geometry(t, &v->meta, r->base[v->slot])) return false;
    stamp(r, t, view);
    return true;
}

/* views and slots count those of the step that are bound already. */
static bool operand_matches(sp_region *r, const sp_step *s, int32_t view, sp_tensor *t,
                            int32_t *views, int32_t *slots)
{
    if (view < s->first_view) return known_slot(r, view, r->views[view], t);
    const sp_trace_view *v = &s->views[view - s->first_view];
    if (view < *views || v->slot < *slots) {
        if (view == *views) ++*views;
        return known_slot(r, view, v, t);
    }
    if (!bind_slot(r, &s->slots[v->slot - s->first_slot], view, v, t)) return false;
    *views = view + 1, *slots = v->slot + 1;
    return true;
}

static void unbind(sp_region *r, int32_t from, int32_t to)
{
    for (int32_t k = from; k < to; k++) {
        sp_storage *s = r->slots[k];
        r->slots[k] = NULL;
        if (!s) continue;
        s->region = NULL;
        if (r->held[k]) sp__storage_drop(s);
        r->held[k] = 0;
    }
}

static void unstamp(const sp_region *r, const sp_step *s, sp_tensor *t)
{
    if (t && t->trace_epoch == r->epoch && t->trace_value >= s->first_view) t->trace_epoch = 0;
}

static bool operands_match(sp_region *r, const sp_step *s, const sp_call *c)
{
    int32_t views = s->first_view, slots = s->first_slot;
    for (int k = 0; k < c->n_in; k++) {
        sp_tensor *t = c->in[k];
        int32_t want = s->in[k];
        if (SP_LIKELY(t && t->trace_epoch == r->epoch && t->trace_value == want)) continue;
        if (!t && want < 0) continue;
        if (t && want >= 0 && operand_matches(r, s, want, t, &views, &slots)) continue;
        goto differs;
    }
    if (c->flags & SP_CALL_OUT)
        for (int j = 0; j < c->n_out; j++)
            if (!operand_matches(r, s, s->out[j], c->out[j], &views, &slots)) goto differs;
    return true;
differs:
    unbind(r, s->first_slot, slots);
    for (int k = 0; k < c->n_in; k++) unstamp(r, s, c->in[k]);
    if (c->flags & SP_CALL_OUT)
        for (int j = 0; j < c->n_out; j++) unstamp(r, s, c->out[j]);
    return false;
}

void sp__region_unmatch(sp_region *r, const sp_step *s, const sp_call *c)
{
    unbind(r, s->first_slot, s->end_slot);
    for (int k = 0; k < c->n_in; k++) unstamp(r, s, c->in[k]);
}

static bool checks_pass(sp_region *r, const sp_step *s, const sp_call *c)
{
    if ((s->checks & SP_STEP_BASE) && r->base[c->in[0]->storage->region_slot] != s->base)
        return false;
    if (!(s->checks & SP_STEP_INDEX)) return true;
    const void *before = sp__region_enter(r); /* looking at the index may wait for it */
    bool fits = sp__index_fits(c);
    sp__region_leave(r, before);
    return fits;
}

sp_step *sp__region_match(sp_region *r, const sp_call *c)
{
    /* Other threads may have made the tree's paths longer meanwhile. */
    if (SP_UNLIKELY(r->room != r->jit->room) && sp__region_reserve(r) != SP_OK) return NULL;
    for (sp_step *s = r->at->child; s; s = s->sibling) {
        if (s->op != c->op || s->flags != c->flags || s->n_in != c->n_in || !attrs_match(r, s, c))
            continue;
        if (!operands_match(r, s, c)) continue;
        if (SP_LIKELY(!s->checks) || checks_pass(r, s, c)) return s;
        sp__region_unmatch(r, s, c);
    }
    return NULL;
}

/* ---- results ----- */

void sp__region_advance(sp_region *r, sp_step *s)
{
    r->at->misses = 0;
    r->at = s;
    r->path[s->depth - 1] = s;
    for (int32_t k = s->first_view; k < s->end_view; k++)
        r->views[k] = &s->views[k - s->first_view];
    r->ops++;
}

static inline sp_status fresh_result(sp_region *r, const sp_step *s, const sp_trace_view *v,
                                     sp_tensor **out)
{
    const sp_trace_slot *slot = &s->slots[v->slot - s->first_slot];
    sp_storage *storage;
    SP_RETURN_IF(sp__storage_new_deferred(slot->nbytes, slot->device, &storage));
    storage->region = r, storage->region_slot = v->slot;
    r->slots[v->slot] = storage, r->base[v->slot] = 0, r->held[v->slot] = 0;
    sp_status status = sp__handle_new(&v->meta, storage, out);
    sp__storage_drop(storage); /* the handle's now; without one the storage dies and is forgotten */
    return status;
}

static inline sp_status view_result(sp_region *r, const sp_trace_view *v, sp_tensor **out)
{
    SP_RETURN_IF(sp__handle_new(&v->meta, r->slots[v->slot], out));
    (*out)->offset += r->base[v->slot];
    return SP_OK;
}

static inline sp_status result(sp_region *r, const sp_step *s, const sp_call *c, int j,
                               sp_tensor **out)
{
    int32_t view = s->out[j];
    const sp_trace_view *v =
        view >= s->first_view ? &s->views[view - s->first_view] : r->views[view];
    if (s->same[j] >= 0) {
        *out = sp__retain(c->in[(int)s->same[j]]);
        return SP_OK;
    }
    SP_RETURN_IF(s->is_view ? view_result(r, v, out) : fresh_result(r, s, v, out));
    stamp(r, *out, view);
    return SP_OK;
}

static sp_status defer(sp_region *r, sp_step *s, sp_call *c)
{
    sp_status status = SP_OK;
    int made = 0;
    if (c->flags & (SP_CALL_INPLACE | SP_CALL_OUT)) {
        for (int j = 0; j < c->n_out; j++) sp__written(c->out[j]->storage, c->op);
    } else {
        for (; made < s->n_out; made++) SP_TRY(result(r, s, c, made, &c->out[made]));
    }
    sp__region_advance(r, s);
    return SP_OK;
out:
    while (made > 0) sp_drop(&c->out[--made]);
    sp__region_unmatch(r, s, c);
    return status;
}

sp_status sp__region_eval(sp_tracer *self, sp_call *c)
{
    sp_region *r = (sp_region *)self;
    if (SP_UNLIKELY(r->busy_by != NULL)) {
        if (sp__region_is_mine(r)) return sp__run(c);
        sp__region_wait(r);
    }
    if (SP_UNLIKELY(sp_op_table[c->op].flags & SP_OPF_RANDOM)) sp__random_issue(c);
    if (SP_LIKELY(r->mode == SP_REGION_FOLLOW)) {
        sp_step *s = sp__region_match(r, c);
        if (SP_LIKELY(s != NULL)) return defer(r, s, c);
    }
    return sp__region_stray(r, c);
}
