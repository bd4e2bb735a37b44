/* Running what a region has buffered: as one plan, or op by op.
 *
 * While kernels run the interpreter lock may be free: the region is busy, and every storage is
 * held, so that no other thread and no worker drops one that is still looked at.
 */
#include <stdio.h>
#include <string.h>

#include "jit/region_int.h"
#include "ops/launch.h"
#include "tensor/memory.h"

enum { MAX_TRIMS = 2, MAX_REBUILDS = 16, MAX_PLANS = 256 };

static void hold(sp_region *r)
{
    for (int32_t k = 0; k < r->at->end_slot; k++) {
        if (!r->slots[k] || r->held[k]) continue;
        sp__storage_retain(r->slots[k]);
        r->held[k] = 1;
    }
}

/* ---- op by op ----- */

/* Storages of dead results that later steps still read come and go with the region. */
static sp_status need_bytes(sp_region *r, const sp_step *s, int32_t slot)
{
    if (!r->slots[slot]) {
        const sp_trace_slot *t = &s->slots[slot - s->first_slot];
        SP_RETURN_IF(sp__storage_new(t->nbytes, t->device, &r->slots[slot]));
        r->slots[slot]->region = r, r->slots[slot]->region_slot = slot;
        r->held[slot] = 1, r->base[slot] = 0;
    }
    return sp__storage_materialize(r->slots[slot]);
}

static sp_status handle_of(const sp_region *r, int32_t view, sp_tensor **out)
{
    const sp_trace_view *v = r->views[view];
    SP_RETURN_IF(sp__handle_new(&v->meta, r->slots[v->slot], out));
    (*out)->offset += r->base[v->slot];
    return SP_OK;
}

static void step_attrs(const sp_region *r, const sp_step *s, sp_attr *attr)
{
    const sp_scalar *scalar = r->scalars + s->first_scalar;
    for (int i = 0; i < s->n_attr; i++) {
        attr[i] = s->attr[i];
        if (!(s->lifted & 1u << i)) continue;
        if (scalar->kind == SP_FLOAT64)
            attr[i].v.f = scalar->v.f;
        else
            attr[i].v.i = scalar->v.i;
        scalar++;
    }
}

/* sp__run() counts, and notes, a write that the call itself has counted when it was buffered. */
static sp_status run_uncounted(sp_call *c)
{
    uint32_t version[SP_MAX_OUT];
    uint8_t saved[SP_MAX_OUT];
    for (int j = 0; j < c->n_out; j++) {
        sp_storage *s = c->out[j]->storage;
        version[j] = s->version, saved[j] = s->flags & SP_S_SAVED;
        s->flags &= (uint8_t)~SP_S_SAVED;
    }
    sp_status status = sp__run(c);
    for (int j = 0; j < c->n_out; j++) {
        c->out[j]->storage->version = version[j];
        c->out[j]->storage->flags |= saved[j];
    }
    return status;
}

static sp_status run_step(sp_region *r, const sp_step *s)
{
    sp_status status = SP_OK;
    sp_tensor *few[8] = {0}, *out[SP_MAX_OUT] = {0};
    sp_tensor **in = s->n_in <= 8 ? few : sp__alloc_zero((size_t)s->n_in * sizeof *in);
    sp_call c = {.op = s->op, .n_out = s->n_out, .n_attr = s->n_attr, .n_in = s->n_in, .in = in};
    if (!in) return sp_fail(SP_EMEMORY, "jit: no memory to run an op");
    for (int k = 0; k < s->n_in; k++)
        if (s->in[k] >= 0) SP_TRY(handle_of(r, s->in[k], &in[k]));
    for (int j = 0; j < s->n_out; j++) {
        if (!s->flags) SP_TRY(need_bytes(r, s, r->views[s->out[j]]->slot));
        if (s->flags & SP_CALL_INPLACE)
            out[j] = sp__retain(in[0]);
        else
            SP_TRY(handle_of(r, s->out[j], &out[j]));
        c.out[j] = out[j];
    }
    c.flags = s->flags ? s->flags : SP_CALL_OUT;
    step_attrs(r, s, c.attr);
    SP_TRY(run_uncounted(&c));
out:
    for (int j = 0; j < s->n_out; j++) sp_drop(&out[j]);
    for (int k = 0; k < s->n_in; k++) sp_drop(&in[k]);
    if (in != few) sp__free(in, (size_t)s->n_in * sizeof *in);
    return status;
}

static void note_uses(const sp_region *r, const int32_t *views, int n, int32_t step, int32_t *last)
{
    for (int k = 0; k < n; k++)
        if (views[k] >= 0) last[r->views[views[k]]->slot] = step;
}

/* Of each slot whose result is dead: the step that looks at it last; -1 of others. NULL without
 * memory: all are kept then. */
static int32_t *last_uses(const sp_region *r)
{
    int32_t n = r->at->end_slot, *last = sp__alloc((size_t)n * sizeof *last);
    for (int32_t i = r->ran; last && i < r->at->depth; i++) {
        if (r->path[i]->is_view) continue;
        note_uses(r, r->path[i]->in, r->path[i]->n_in, i, last);
        note_uses(r, r->path[i]->out, r->path[i]->n_out, i, last);
    }
    for (int32_t k = 0; last && k < n; k++)
        if (r->slots[k]) last[k] = -1;
    return last;
}

/* Eager would have freed these by now. */
static void let_go(sp_region *r, const int32_t *views, int n, const int32_t *last)
{
    for (int i = 0; i < n; i++) {
        int32_t k = views[i] >= 0 ? r->views[views[i]]->slot : -1;
        if (k < 0 || last[k] != r->ran || !r->slots[k]) continue;
        r->slots[k]->region = NULL, r->held[k] = 0;
        sp__storage_drop(r->slots[k]), r->slots[k] = NULL;
    }
}

sp_status sp__region_run_eager(sp_region *r)
{
    sp_status status = SP_OK;
    const void *before = sp__region_enter(r);
    int32_t *last = last_uses(r);
    size_t bytes = (size_t)r->at->end_slot * sizeof *last;
    hold(r);
    for (; r->ran < r->at->depth; r->ran++) {
        const sp_step *s = r->path[r->ran];
        if (s->is_view) continue;
        SP_TRY(run_step(r, s));
        if (last) let_go(r, s->in, s->n_in, last), let_go(r, s->out, s->n_out, last);
    }
out:
    if (last) sp__free(last, bytes);
    sp__region_leave(r, before);
    if (status != SP_OK) r->mode = SP_REGION_STUCK;
    return status;
}

/* ---- as a plan ----- */

typedef struct outputs {
    bool missing, spare; /* results that live but are no outputs; outputs that nobody wants */
} outputs;

static outputs compare_outputs(const sp_region *r, const sp_exit *e)
{
    outputs o = {0};
    for (int32_t k = 0; k < r->at->end_slot; k++) {
        bool lives = r->slots[k] && !r->held[k];
        if (lives && !e->wanted[k]) o.missing = true;
        if (!lives && e->wanted[k]) o.spare = true;
    }
    return o;
}

/* What the next plan yields: first exactly what is wanted; when that keeps changing, all that was
 * ever wanted; in the end everything, so that rebuilding ends. */
static void choose_outputs(const sp_region *r, sp_exit *e)
{
    for (int32_t k = 0; k < r->at->end_slot; k++) {
        bool lives = r->slots[k] && !r->held[k];
        e->ever[k] |= lives;
        e->wanted[k] = e->rebuilds < MAX_TRIMS      ? lives
                       : e->rebuilds < MAX_REBUILDS ? e->ever[k]
                                                    : 1;
    }
}

static void no_plan(sp_region *r, sp_exit *e, sp_status status)
{
    char text[256];
    sp__plan_drop(&e->plan);
    sp_graph_drop(&e->graph);
    sp__binding_drop(&e->binding);
    if (status == SP_EMEMORY) return; /* another time, perhaps */
    e->hopeless = true;
    snprintf(text, sizeof text, "no plan can be made: %s", sp_last_error());
    sp__jit_reason(r->jit, text);
}

static bool build(sp_region *r, sp_exit *e)
{
    sp_status status = SP_OK;
    bool again = e->binding != NULL;
    if (!again && r->jit->n_plans >= MAX_PLANS) {
        e->hopeless = true;
        sp__jit_reason(r->jit, "the function has taken too many ways: further ones run op by op");
        return false;
    }
    choose_outputs(r, e);
    sp__plan_drop(&e->plan);
    sp_graph_drop(&e->graph);
    sp__binding_drop(&e->binding);
    SP_TRY(sp__trace_graph(r->at, e->wanted, r->jit->name, &e->graph, &e->binding));
    if (e->binding->n_out > 0)
        SP_TRY(sp__plan_new(e->graph,
                            &(sp_plan_opt){.writebacks = e->binding->writebacks,
                                           .n_writebacks = e->binding->n_writebacks},
                            &e->plan));
    if (again)
        e->rebuilds++, r->jit->rebuilds++;
    else
        r->jit->n_plans++;
    return true;
out:
    no_plan(r, e, status);
    return false;
}

static bool plan_is_ready(sp_region *r, sp_exit *e)
{
    if (e->hopeless) return false;
    outputs o = compare_outputs(r, e);
    if (e->binding && !o.missing && !o.spare) return true;
    if (o.spare && !o.missing) e->stale++;
    if (e->binding && !o.missing && (e->stale < 2 || e->rebuilds >= MAX_TRIMS)) return true;
    e->stale = 0;
    return build(r, e);
}

static sp_status run(const sp_region *r, sp_exit *e)
{
    const sp_binding *b = e->binding;
    for (int32_t i = 0; i < b->n_in; i++) {
        b->in[i] = r->slots[b->in_slot[i]];
        b->in_at[i] = r->base[b->in_slot[i]] + b->in_offset[i];
    }
    for (int32_t j = 0; j < b->n_out; j++)
        b->out[j] = b->out_slot[j] < 0 ? NULL : r->slots[b->out_slot[j]];
    return e->plan ? sp__plan_run(e->plan, b->in, b->in_at, r->scalars, b->out)
                   : SP_OK; /* views alone need none */
}

/* Making a plan may wait for runs of the old one: neither region nor exit are anybody else's
 * meanwhile. */
static bool run_ready(sp_region *r, sp_exit *e)
{
    if (!plan_is_ready(r, e)) return false;
    hold(r);
    return run(r, e) == SP_OK;
}

bool sp__region_run_plan(sp_region *r, sp_exit *e)
{
    if (e->running) return false;
    const void *before = sp__region_enter(r);
    e->running++;
    bool done = run_ready(r, e);
    e->running--;
    sp__region_leave(r, before);
    if (!done) return false;
    e->runs++;
    r->compiled_ops += r->at->depth;
    return true;
}
