/* A path of steps as a graph: in-place ops and views become functions of values.
 *
 * Each slot has a current value, at first what the storage holds when the region starts (a graph
 * input) or the result that created it. The value's geometry is the slot's root: dense, so that
 * any view is as_strided of it. A view reads
 *   - its cached value, if the slot was not written since that was made (chains of view ops stay
 *     as they are);
 *   - else the current value, through as_strided unless the view is the root.
 * A write makes a new current value: the op's result where the view is the root,
 * as_strided_scatter otherwise. What was written from outside is handed back at the end.
 *
 * External slots that are only read, and only through ops, need no root: every piece read is an
 * input of its own.
 */
#include <string.h>

#include "jit/trace.h"
#include "ops/attr.h"
#include "ops_gen.h"
#include "tensor/memory.h"

typedef struct slot_state {
    bool seen, external, rooted;
    int32_t version;   /* writes so far */
    int32_t input;     /* which graph input holds the root; -1: none yet */
    int64_t low, high; /* external: extent of all views, from the base */
    sp_vid value;      /* current value; -1: none yet */
    sp_meta root;
} slot_state;

typedef struct view_state {
    const sp_trace_view *view;
    sp_vid value;
    int32_t version;
} view_state;

typedef struct builder {
    sp_graph *g;
    sp_binding *b;
    const sp_step **path;
    int32_t n_steps, n_slots, n_views;
    slot_state *slots;
    view_state *views;
} builder;

static slot_state *slot_of(builder *f, int32_t view)
{
    return &f->slots[f->views[view].view->slot];
}

/* ---- inputs and reads ----- */

static sp_status new_input(builder *f, int32_t slot, const sp_meta *meta, sp_vid *out)
{
    sp_meta type = *meta;
    type.offset = 0, type.view_of = -1;
    SP_RETURN_IF(sp__graph_input(f->g, &type, out));
    f->b->in_slot[f->b->n_in] = slot;
    f->b->in_offset[f->b->n_in] = meta->offset;
    f->b->n_in++;
    return SP_OK;
}

static sp_status need_root(builder *f, int32_t slot)
{
    slot_state *s = &f->slots[slot];
    if (s->value >= 0) return SP_OK;
    if (!s->external) return sp_fail(SP_EINTERNAL, "jit: slot %d is read before it was made", slot);
    s->input = f->b->n_in;
    return new_input(f, slot, &s->root, &s->value);
}

static void strided_attrs(const slot_state *s, const sp_meta *m, sp_attr attr[3])
{
    attr[0] = sp__attr_ints(m->shape, m->rank);
    attr[1] = sp__attr_ints(m->stride, m->rank);
    attr[2] = sp__attr_int(m->offset - s->root.offset);
}

static sp_status strided_read(builder *f, slot_state *s, const sp_meta *m, sp_vid *out)
{
    sp_attr attr[3];
    strided_attrs(s, m, attr);
    return sp__graph_node(f->g, SP_OP_AS_STRIDED, &s->value, 1, attr, 3, NULL, NULL, out);
}

/* The same piece of a storage may have been met under several handles. */
static sp_status read_piece(builder *f, view_state *v)
{
    for (const view_state *o = f->views; o < f->views + f->n_views; o++)
        if (o != v && o->value >= 0 && o->view->slot == v->view->slot &&
            sp__meta_same(&o->view->meta, &v->view->meta)) {
            v->value = o->value;
            return SP_OK;
        }
    return new_input(f, v->view->slot, &v->view->meta, &v->value);
}

static sp_status read_view(builder *f, int32_t view, sp_vid *out)
{
    view_state *v = &f->views[view];
    slot_state *s = slot_of(f, view);
    if (v->value < 0 || v->version != s->version) {
        const sp_meta *m = &v->view->meta;
        if (s->external && !s->rooted) {
            SP_RETURN_IF(read_piece(f, v));
        } else {
            SP_RETURN_IF(need_root(f, v->view->slot));
            if (m->dtype != s->root.dtype)
                return sp_fail(SP_EUNSUPPORTED, "jit: one storage seen in two dtypes");
            if (sp__meta_same(m, &s->root))
                v->value = s->value;
            else
                SP_RETURN_IF(strided_read(f, s, m, &v->value));
        }
        v->version = s->version;
    }
    *out = v->value;
    return SP_OK;
}

/* ---- writes ----- */

/* Whether the value can stand for a storage of geometry m by itself. */
static bool stands_alone(const builder *f, sp_vid value, const sp_meta *m)
{
    sp_meta type = f->g->values[value].type;
    if (sp__graph_root(f->g, value) != value || f->g->values[value].kind != SP_VALUE_NODE)
        return false;
    type.offset = m->offset;
    return sp__meta_same(&type, m);
}

static sp_status own_value(builder *f, sp_vid *value, const sp_meta *m)
{
    if (!stands_alone(f, *value, m))
        SP_RETURN_IF(sp__graph_node(f->g, SP_OP_CLONE, value, 1, NULL, 0, NULL, NULL, value));
    return stands_alone(f, *value, m)
               ? SP_OK
               : sp_fail(SP_EUNSUPPORTED, "jit: a result of unusual strides is written to");
}

static sp_status write_view(builder *f, int32_t view, sp_vid value)
{
    view_state *v = &f->views[view];
    slot_state *s = slot_of(f, view);
    const sp_meta *m = &v->view->meta;
    bool whole = sp__meta_same(m, &s->root);
    if (f->g->values[value].type.dtype != m->dtype) {
        sp_attr dtype = sp__attr_dtype((sp_dtype)m->dtype);
        SP_RETURN_IF(sp__graph_node(f->g, SP_OP_CAST, &value, 1, &dtype, 1, NULL, NULL, &value));
    }
    SP_RETURN_IF(need_root(f, v->view->slot));
    if (whole) {
        SP_RETURN_IF(own_value(f, &value, m));
    } else {
        sp_attr attr[3];
        sp_vid in[2] = {s->value, value};
        strided_attrs(s, m, attr);
        SP_RETURN_IF(
            sp__graph_node(f->g, SP_OP_AS_STRIDED_SCATTER, in, 2, attr, 3, NULL, NULL, &value));
    }
    s->value = value, s->version++;
    v->value = whole ? value : -1, v->version = s->version;
    return SP_OK;
}

/* A result that is no write: it defines a fresh slot, or is a view. */
static sp_status define_view(builder *f, int32_t view, sp_vid value)
{
    view_state *v = &f->views[view];
    slot_state *s = slot_of(f, view);
    sp_meta type = f->g->values[value].type;
    type.offset = v->view->meta.offset;
    if (!sp__meta_same(&type, &v->view->meta))
        return sp_fail(SP_EINTERNAL,
                       "jit: a result's geometry in the graph is not what it was when recorded");
    if (!s->external && s->value < 0) {
        SP_RETURN_IF(own_value(f, &value, &v->view->meta));
        s->value = value;
    }
    v->value = value, v->version = s->version;
    return SP_OK;
}

/* ---- steps ----- */

static sp_status step_attrs(builder *f, const sp_step *s, sp_attr *attr)
{
    if (s->n_attr) memcpy(attr, s->attr, s->n_attr * sizeof *attr);
    for (int i = 0; i < s->n_attr; i++) {
        if (!(s->lifted & 1u << i)) continue;
        sp_scalar value = {.v.i = attr[i].v.i, .kind = SP_INT64};
        int32_t nr;
        if (attr[i].kind == SP_ATTR_SCALAR) value.kind = (sp_dtype)attr[i].tag;
        if (value.kind == SP_FLOAT64) value.v.f = attr[i].v.f;
        SP_RETURN_IF(sp__graph_scalar(f->g, value, &nr));
        attr[i].n = nr + 1;
    }
    return SP_OK;
}

static sp_status emit(builder *f, const sp_step *s, sp_vid *in)
{
    sp_attr attr[SP_MAX_ATTR];
    sp_vid out[SP_MAX_OUT];
    bool writes = (s->flags & (SP_CALL_INPLACE | SP_CALL_OUT)) != 0;
    SP_RETURN_IF(step_attrs(f, s, attr));
    if (s->is_view && s->same[0] >= 0) return SP_OK;
    if (s->op == SP_OP_AS_STRIDED) {
        slot_state *slot = slot_of(f, s->in[0]);
        SP_RETURN_IF(need_root(f, f->views[s->in[0]].view->slot));
        SP_RETURN_IF(strided_read(f, slot, &f->views[s->out[0]].view->meta, out));
        return define_view(f, s->out[0], out[0]);
    }
    for (int k = 0; k < s->n_in; k++) {
        in[k] = -1;
        if (s->in[k] >= 0) SP_RETURN_IF(read_view(f, s->in[k], &in[k]));
    }
    SP_RETURN_IF(sp__graph_node(f->g, s->op, in, s->n_in, attr, s->n_attr, NULL, &s->where, out));
    for (int j = 0; j < s->n_out; j++)
        SP_RETURN_IF(writes ? write_view(f, s->out[j], out[j]) : define_view(f, s->out[j], out[j]));
    return SP_OK;
}

/* ---- what is known before the first node ----- */

static void note_view(builder *f, int32_t id, const sp_trace_view *view)
{
    slot_state *s = &f->slots[view->slot];
    int64_t extent = sp__meta_extent(&view->meta);
    f->views[id] = (view_state){.view = view, .value = -1};
    if (!s->seen) s->seen = true, s->root = view->meta, s->low = s->high = view->meta.offset;
    if (extent <= 0) return;
    if (s->low == s->high) s->low = view->meta.offset, s->high = s->low + extent;
    if (view->meta.offset < s->low) s->low = view->meta.offset;
    if (view->meta.offset + extent > s->high) s->high = view->meta.offset + extent;
}

static void survey(builder *f)
{
    for (int32_t i = 0; i < f->n_steps; i++) {
        const sp_step *s = f->path[i];
        for (int32_t k = s->first_slot; k < s->end_slot; k++)
            f->slots[k] =
                (slot_state){.external = s->slots[k - s->first_slot].flags & SP_SLOT_EXTERNAL,
                             .input = -1,
                             .value = -1};
        for (int32_t k = s->first_view; k < s->end_view; k++)
            note_view(f, k, &s->views[k - s->first_view]);
        if (s->flags & (SP_CALL_INPLACE | SP_CALL_OUT))
            for (int j = 0; j < s->n_out; j++) slot_of(f, s->out[j])->rooted = true;
        if (s->op == SP_OP_AS_STRIDED) slot_of(f, s->in[0])->rooted = true;
    }
}

/* The first handle seen of an external storage is its root if it is dense and covers what else was
 * seen; otherwise the root is the bytes from the first to the last element, flat. */
static void choose_roots(builder *f)
{
    for (slot_state *s = f->slots; s < f->slots + f->n_slots; s++) {
        if (!s->external || !s->rooted) continue;
        if (s->root.contiguous && s->root.offset <= s->low &&
            s->root.offset + s->root.numel >= s->high)
            continue;
        s->root.rank = 1, s->root.contiguous = true;
        s->root.offset = s->low, s->root.numel = s->root.shape[0] = s->high - s->low;
        s->root.stride[0] = 1;
    }
}

static bool was_written(const slot_state *s)
{
    return s->external && s->version > 0;
}

static sp_status close_graph(builder *f, const uint8_t *wanted)
{
    sp_status status = SP_OK;
    sp_binding *b = f->b;
    sp_vid *outputs = sp__alloc((size_t)f->n_slots * sizeof *outputs);
    if (!outputs) return sp_fail(SP_EMEMORY, "jit: no memory for a graph's outputs");
    for (int32_t k = 0; k < f->n_slots; k++) {
        if (f->slots[k].external || !wanted[k]) continue;
        b->out_slot[b->n_out] = k;
        outputs[b->n_out++] = f->slots[k].value;
    }
    for (int32_t k = 0; k < f->n_slots; k++) {
        if (!was_written(&f->slots[k])) continue;
        b->writebacks[b->n_writebacks++] =
            (sp_writeback){.output = b->n_out, .input = f->slots[k].input};
        b->out_slot[b->n_out] = -1;
        outputs[b->n_out++] = f->slots[k].value;
    }
    SP_TRY(sp__graph_outputs(f->g, outputs, b->n_out));
out:
    sp__free(outputs, (size_t)f->n_slots * sizeof *outputs);
    return status;
}

/* ---- memory ----- */

static void free_array(void *p, int32_t n, size_t size)
{
    if (p) sp__free(p, (size_t)n * size);
}

static sp_status binding_new(int32_t n_slots, int32_t n_views, sp_binding **out)
{
    sp_binding *b = sp__alloc_zero(sizeof *b);
    *out = b;
    if (!b) return sp_fail(SP_EMEMORY, "jit: no memory for a plan's binding");
    b->room_in = n_views + n_slots, b->room_out = n_slots;
    b->in_slot = sp__alloc((size_t)b->room_in * sizeof *b->in_slot);
    b->in_offset = sp__alloc((size_t)b->room_in * sizeof *b->in_offset);
    b->out_slot = sp__alloc((size_t)b->room_out * sizeof *b->out_slot);
    b->writebacks = sp__alloc((size_t)b->room_out * sizeof *b->writebacks);
    b->in = sp__alloc((size_t)b->room_in * sizeof *b->in);
    b->in_at = sp__alloc((size_t)b->room_in * sizeof *b->in_at);
    b->out = sp__alloc((size_t)b->room_out * sizeof *b->out);
    if (b->in_slot && b->in_offset && b->out_slot && b->writebacks && b->in && b->in_at && b->out)
        return SP_OK;
    sp__binding_drop(out);
    return sp_fail(SP_EMEMORY, "jit: no memory for a plan's binding");
}

void sp__binding_drop(sp_binding **binding)
{
    sp_binding *b = *binding;
    *binding = NULL;
    if (!b) return;
    free_array(b->in_slot, b->room_in, sizeof *b->in_slot);
    free_array(b->in_offset, b->room_in, sizeof *b->in_offset);
    free_array(b->out_slot, b->room_out, sizeof *b->out_slot);
    free_array(b->writebacks, b->room_out, sizeof *b->writebacks);
    free_array(b->in, b->room_in, sizeof *b->in);
    free_array(b->in_at, b->room_in, sizeof *b->in_at);
    free_array(b->out, b->room_out, sizeof *b->out);
    sp__free(b, sizeof *b);
}

static sp_status builder_start(builder *f, const sp_step *last, sp_vid **in, int32_t *max_in)
{
    f->n_steps = last->depth, f->n_slots = last->end_slot, f->n_views = last->end_view;
    f->path = sp__alloc((size_t)f->n_steps * sizeof *f->path);
    f->slots = sp__alloc_zero((size_t)f->n_slots * sizeof *f->slots);
    f->views = sp__alloc_zero((size_t)f->n_views * sizeof *f->views);
    if (!f->path || !f->slots || !f->views)
        return sp_fail(SP_EMEMORY, "jit: no memory to build a graph");
    *max_in = 1;
    for (const sp_step *s = last; s->parent; s = s->parent) {
        f->path[s->depth - 1] = s;
        if (s->n_in > *max_in) *max_in = s->n_in;
    }
    *in = sp__alloc((size_t)*max_in * sizeof **in);
    return *in ? SP_OK : sp_fail(SP_EMEMORY, "jit: no memory to build a graph");
}

static void builder_end(builder *f)
{
    free_array(f->path, f->n_steps, sizeof *f->path);
    free_array(f->slots, f->n_slots, sizeof *f->slots);
    free_array(f->views, f->n_views, sizeof *f->views);
}

sp_status sp__trace_graph(const sp_step *last, const uint8_t *wanted, const char *name,
                          sp_graph **graph, sp_binding **binding)
{
    sp_status status = SP_OK;
    builder f = {0};
    sp_vid *in = NULL;
    int32_t max_in = 0;
    *graph = NULL, *binding = NULL;
    SP_TRY(builder_start(&f, last, &in, &max_in));
    SP_TRY(binding_new(f.n_slots, f.n_views, &f.b));
    SP_TRY(sp__graph_new(name, &f.g));
    survey(&f);
    choose_roots(&f);
    for (int32_t i = 0; i < f.n_steps; i++) SP_TRY(emit(&f, f.path[i], in));
    SP_TRY(close_graph(&f, wanted));
    *graph = f.g, *binding = f.b;
    f.g = NULL, f.b = NULL;
out:
    if (in) sp__free(in, (size_t)max_in * sizeof *in);
    builder_end(&f);
    sp_graph_drop(&f.g);
    sp__binding_drop(&f.b);
    return status;
}
