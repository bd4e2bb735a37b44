/* Capturing: what a thread computes between begin and end becomes one graph, while it is computed.
 *
 * Every op runs as it would anyway and then becomes a node. What is known about a storage:
 *
 *     input      one of those named at the beginning; reading it is reading the graph's input
 *     made here  has a current value, a root of the storage's geometry; a handle on it is that
 *                value, or as_strided of it
 *     other      its pieces that are read become constants, by reference
 *
 * In-place ops on what was made here make a new current value (as_strided_scatter where only a part
 * is written). Writing anything else is refused: a graph has no side effects. So is reading a value
 * on the host, which would bake it in; what does not come from the inputs may be read.
 *
 * Storages are held until the end, so that an address names one storage all along; the bytes of
 * those that nobody else holds go earlier.
 */
#include <pthread.h>
#include <string.h>

#include "jit/ir.h"
#include "ops/attr.h"
#include "ops_gen.h"
#include "tensor/backend.h"
#include "tensor/memory.h"

typedef struct slot {     /* a storage */
    sp_storage *storage;  /* owned */
    bool made, dependent; /* made here; what it holds comes from the inputs */
    int32_t version;      /* writes so far */
    sp_vid value;         /* MADE: current */
    sp_meta root;         /* MADE: geometry of the storage's first handle */
    int32_t pieces;       /* last of its pieces; -1 */
} slot;

typedef struct piece { /* a geometry on a storage, and the value that it was at some version */
    sp_meta meta;
    sp_vid value;
    int32_t version, before;
} piece;

typedef struct capture {
    sp_tracer tracer; /* first */
    sp_tracer *outer;
    sp_graph *g;
    slot *slots;
    piece *pieces;
    int32_t *table; /* storage address -> slot + 1; open addressing, cap_table a power of two */
    int32_t n_slots, cap_slots, n_pieces, cap_pieces, cap_table;
    int64_t unswept; /* bytes made since dead ones were last given back */
} capture;

static const int64_t SWEEP_BYTES = 4 << 20;

static __thread capture *active;

static sp_status no_memory(void)
{
    return sp_fail(SP_EMEMORY, "capture: out of memory");
}

/* ---- storages ----- */

static uint32_t hash(const sp_storage *s)
{
    return (uint32_t)(((uintptr_t)s >> 4) * UINT64_C(0x9e3779b97f4a7c15) >> 32);
}

static slot *find_slot(const capture *c, const sp_storage *s)
{
    if (!c->cap_table) return NULL;
    for (uint32_t i = hash(s);; i++) {
        int32_t entry = c->table[i & (uint32_t)(c->cap_table - 1)];
        if (!entry) return NULL;
        if (c->slots[entry - 1].storage == s) return &c->slots[entry - 1];
    }
}

static void enter(capture *c, int32_t nr)
{
    uint32_t i = hash(c->slots[nr].storage);
    while (c->table[i & (uint32_t)(c->cap_table - 1)]) i++;
    c->table[i & (uint32_t)(c->cap_table - 1)] = nr + 1;
}

static sp_status grow_table(capture *c)
{
    if (2 * (c->n_slots + 1) <= c->cap_table) return SP_OK;
    int32_t cap = c->cap_table ? 2 * c->cap_table : 64;
    int32_t *table = sp__alloc_zero((size_t)cap * sizeof *table);
    if (!table) return no_memory();
    if (c->table) sp__free(c->table, (size_t)c->cap_table * sizeof *table);
    c->table = table, c->cap_table = cap;
    for (int32_t i = 0; i < c->n_slots; i++) enter(c, i);
    return SP_OK;
}

static sp_status grow(void *block_at, int32_t n, int32_t *cap, size_t item)
{
    if (n < *cap) return SP_OK;
    int32_t bigger = *cap ? 2 * *cap : 32;
    void *old, *grown;
    memcpy(&old, block_at, sizeof old);
    grown = old ? sp__realloc(old, (size_t)*cap * item, (size_t)bigger * item)
                : sp__alloc((size_t)bigger * item);
    if (!grown) return no_memory();
    memcpy(block_at, &grown, sizeof grown);
    *cap = bigger;
    return SP_OK;
}

static sp_status new_slot(capture *c, sp_storage *s, slot **out)
{
    SP_RETURN_IF(grow(&c->slots, c->n_slots, &c->cap_slots, sizeof *c->slots));
    SP_RETURN_IF(grow_table(c));
    *out = &c->slots[c->n_slots];
    **out = (slot){.storage = sp__storage_retain(s), .value = -1, .pieces = -1};
    enter(c, c->n_slots++);
    return SP_OK;
}

static sp_status note_piece(capture *c, slot *s, const sp_meta *m, sp_vid value)
{
    SP_RETURN_IF(grow(&c->pieces, c->n_pieces, &c->cap_pieces, sizeof *c->pieces));
    c->pieces[c->n_pieces] =
        (piece){.meta = *m, .value = value, .version = s->version, .before = s->pieces};
    s->pieces = c->n_pieces++;
    return SP_OK;
}

static const piece *find_piece(const capture *c, const slot *s, const sp_meta *m)
{
    for (int32_t i = s->pieces; i >= 0 && c->pieces[i].version == s->version;
         i = c->pieces[i].before)
        if (sp__meta_same(&c->pieces[i].meta, m)) return &c->pieces[i];
    return NULL;
}

/* ---- reading ----- */

static void strided_attrs(const slot *s, const sp_meta *m, sp_attr attr[3])
{
    attr[0] = sp__attr_ints(m->shape, m->rank);
    attr[1] = sp__attr_ints(m->stride, m->rank);
    attr[2] = sp__attr_int(m->offset - s->root.offset);
}

/* A piece of a storage that was there before: of an input a view, of anything else a constant. */
static sp_status outside_piece(capture *c, const slot *s, const sp_tensor *t, const sp_meta *m,
                               sp_vid *out)
{
    if (!s->dependent) return sp__graph_const(c->g, t, out);
    int64_t own = sp__meta_extent(m), root = sp__meta_extent(&s->root);
    if (m->offset < s->root.offset || m->offset + own > s->root.offset + root)
        return sp_fail(SP_EUNSUPPORTED,
                       "capture: a tensor of shape %s shares memory with an input but lies outside "
                       "of it; make "
                       "it an input of its own",
                       SP_SHAPE(t));
    sp_attr attr[3];
    strided_attrs(s, m, attr);
    return sp__graph_node(c->g, SP_OP_AS_STRIDED, &s->value, 1, attr, 3, NULL, NULL, out);
}

static sp_status value_of(capture *c, const sp_tensor *t, sp_vid *out)
{
    sp_meta m;
    slot *s = find_slot(c, t->storage);
    sp__meta_of(t, &m);
    if (!s) SP_RETURN_IF(new_slot(c, t->storage, &s));
    const piece *known = find_piece(c, s, &m);
    if (known) {
        *out = known->value;
        return SP_OK;
    }
    if (s->made) {
        sp_attr attr[3];
        strided_attrs(s, &m, attr);
        SP_RETURN_IF(
            sp__graph_node(c->g, SP_OP_AS_STRIDED, &s->value, 1, attr, 3, NULL, NULL, out));
    } else {
        SP_RETURN_IF(outside_piece(c, s, t, &m, out));
    }
    return note_piece(c, s, &m, *out);
}

/* ---- results ----- */

/* Whether the value can stand for a storage of geometry m by itself. */
static bool stands_alone(const capture *c, sp_vid v, const sp_meta *m)
{
    sp_meta type = c->g->values[v].type;
    if (type.view_of >= 0 || c->g->values[v].kind != SP_VALUE_NODE) return false;
    type.offset = m->offset;
    return sp__meta_same(&type, m);
}

static sp_status own_value(capture *c, const sp_meta *m, const sp__where *where, sp_vid *v)
{
    if (c->g->values[*v].type.dtype != m->dtype) {
        sp_attr dtype = sp__attr_dtype((sp_dtype)m->dtype);
        SP_RETURN_IF(sp__graph_node(c->g, SP_OP_CAST, v, 1, &dtype, 1, NULL, where, v));
    }
    if (!stands_alone(c, *v, m))
        SP_RETURN_IF(sp__graph_node(c->g, SP_OP_CLONE, v, 1, NULL, 0, NULL, where, v));
    if (stands_alone(c, *v, m)) return SP_OK;
    return sp_fail(SP_EUNSUPPORTED,
                   "capture: a tensor of unusual strides is written to; clone() it first");
}

static sp_status write_part(capture *c, const slot *s, const sp_meta *m, const sp__where *where,
                            sp_vid *v)
{
    sp_attr attr[3];
    if (c->g->values[*v].type.dtype != m->dtype) {
        sp_attr dtype = sp__attr_dtype((sp_dtype)m->dtype);
        SP_RETURN_IF(sp__graph_node(c->g, SP_OP_CAST, v, 1, &dtype, 1, NULL, where, v));
    }
    sp_vid in[2] = {s->value, *v};
    strided_attrs(s, m, attr);
    return sp__graph_node(c->g, SP_OP_AS_STRIDED_SCATTER, in, 2, attr, 3, NULL, where, v);
}

/* t was written and holds v: its storage has a new current value. */
static sp_status written(capture *c, const sp_tensor *t, sp_vid v, bool dependent,
                         const sp__where *where)
{
    sp_meta m;
    slot *s = find_slot(c, t->storage);
    sp__meta_of(t, &m);
    if (sp__meta_same(&m, &s->root))
        SP_RETURN_IF(own_value(c, &m, where, &v));
    else
        SP_RETURN_IF(write_part(c, s, &m, where, &v));
    s->value = v, s->version++;
    s->dependent |= dependent;
    return note_piece(c, s, &s->root, v);
}

/* t came out of an op as v, on a storage of its own or as a view. */
static sp_status made(capture *c, const sp_tensor *t, sp_vid v, bool dependent,
                      const sp__where *where)
{
    sp_meta m;
    slot *s = find_slot(c, t->storage);
    sp__meta_of(t, &m);
    if (!s) {
        SP_RETURN_IF(own_value(c, &m, where, &v));
        SP_RETURN_IF(new_slot(c, t->storage, &s));
        s->made = true, s->dependent = dependent;
        c->unswept += (int64_t)t->storage->nbytes;
        s->value = v, s->root = m;
    }
    return find_piece(c, s, &m) ? SP_OK : note_piece(c, s, &m, v);
}

static void sweep(capture *c)
{
    if (c->unswept < SWEEP_BYTES) return;
    for (int32_t i = 0; i < c->n_slots; i++)
        if (c->slots[i].made) sp__storage_vacate(c->slots[i].storage);
    c->unswept = 0;
}

/* ---- ops ----- */

static sp_status check_written(const capture *c, const sp_call *call)
{
    for (int i = 0; i < call->n_out; i++) {
        const sp_tensor *t = call->flags & SP_CALL_INPLACE ? call->in[0] : call->out[i];
        const slot *s = t && t->storage ? find_slot(c, t->storage) : NULL;
        if (s && s->made) continue;
        return sp_fail(SP_EUNSUPPORTED,
                       "%s: writes in place to a tensor that was there before the capture; a graph "
                       "has no side "
                       "effects, so clone() the tensor first",
                       sp_op_table[call->op].name);
    }
    return SP_OK;
}

static sp_status record(capture *c, const sp_call *call, const sp_vid *in, bool dependent)
{
    sp_vid out[SP_MAX_OUT];
    sp__where where = {NULL, 0};
    if (sp__where_hooks.here) sp__where_hooks.here(&where);
    sp_attr attr[SP_MAX_ATTR];
    if (call->n_attr) memcpy(attr, call->attr, call->n_attr * sizeof *attr);
    if (call->op == SP_OP_AS_STRIDED &&
        !attr[2].absent) { /* from the start of the storage to that of the root */
        const slot *s = find_slot(c, call->in[0]->storage);
        attr[2].v.i -= s->made || s->dependent ? s->root.offset : call->in[0]->offset;
    }
    sp_status status =
        sp__graph_node(c->g, call->op, in, call->n_in, attr, call->n_attr, NULL, &where, out);
    for (int i = 0; !status && i < call->n_out; i++)
        status = call->flags ? written(c, call->out[i], out[i], dependent, &where)
                             : made(c, call->out[i], out[i], dependent, &where);
    if (where.code && sp__where_hooks.drop) sp__where_hooks.drop(&where);
    return status;
}

/* Values of the operands, taken before the op may write one of them. */
static sp_status operands(capture *c, const sp_call *call, sp_vid *in, bool *dependent)
{
    *dependent = false;
    for (int i = 0; i < call->n_in; i++) {
        in[i] = -1;
        if (!call->in[i]) continue;
        if (!call->in[i]->storage)
            return sp_fail(SP_EUNSUPPORTED,
                           "%s: input %d belongs to a transform that is not active here",
                           sp_op_table[call->op].name, i);
        SP_RETURN_IF(value_of(c, call->in[i], &in[i]));
        *dependent |= find_slot(c, call->in[i]->storage)->dependent;
    }
    return SP_OK;
}

static sp_status run_and_record(capture *c, sp_call *call)
{
    sp_status status = SP_OK;
    bool dependent;
    size_t bytes = (size_t)call->n_in * sizeof(sp_vid);
    sp_vid *in = sp__alloc(bytes);
    if (!in) return no_memory();
    if (call->flags) SP_TRY(check_written(c, call));
    SP_TRY(operands(c, call, in, &dependent));
    sweep(c);
    SP_TRY(sp__run(call));
    status = record(c, call, in, dependent);
    for (int i = 0; status && !call->flags && i < call->n_out; i++) sp_drop(&call->out[i]);
out:
    sp__free(in, bytes);
    return status;
}

/* A composite without a kernel of its own is captured as the ops of its body. */
static sp_status capture_body(capture *c, sp_call *call)
{
    sp_call fresh = *call;
    sp_level *top = sp__tls.top;
    bool no_grad = sp__tls.no_grad;
    sp_tensor *target = call->flags & SP_CALL_INPLACE ? call->in[0] : call->out[0];
    fresh.flags = 0;
    sp__tls.top = NULL, sp__tls.no_grad = true;
    sp_status status = sp__body(&fresh);
    sp__tls.top = top, sp__tls.no_grad = no_grad;
    if (status || !call->flags) {
        if (!status) memcpy(call->out, fresh.out, sizeof call->out);
        return status;
    }
    sp_tensor *in[2] = {target, fresh.out[0]};
    sp_call copy = {.op = SP_OP_COPY,
                    .n_out = 1,
                    .n_in = 2,
                    .flags = SP_CALL_INPLACE,
                    .in = in,
                    .out = {target}};
    status = run_and_record(c, &copy);
    for (int i = 0; i < fresh.n_out; i++) sp_drop(&fresh.out[i]);
    return status;
}

static sp_status capture_eval(sp_tracer *self, sp_call *call)
{
    capture *c = (capture *)self;
    const sp_op_info *info = &sp_op_table[call->op];
    bool has_kernel =
        info->infer && sp__backends[SP_DEVICE_CPU] && sp__backends[SP_DEVICE_CPU]->kernel(call->op);
    return info->body && !has_kernel ? capture_body(c, call) : run_and_record(c, call);
}

/* ---- reading on the host ----- */

static sp_status (*value_ready)(const sp_tensor *t, const char *op); /* the hook that was there */

static sp_status watched_value_ready(const sp_tensor *t, const char *op)
{
    const slot *s = active && t->storage ? find_slot(active, t->storage) : NULL;
    if (s && s->dependent)
        return sp_fail(
            SP_EUNSUPPORTED,
            "%s: reads a value that depends on the inputs while a graph is captured, which would "
            "bake it in; keep it a tensor",
            op);
    return value_ready ? value_ready(t, op) : SP_OK;
}

static void watch(void)
{
    value_ready = sp__handle_hooks.value_ready;
    sp__handle_hooks.value_ready = watched_value_ready;
}

/* ---- begin and end ----- */

static void capture_free(capture *c)
{
    for (int32_t i = 0; i < c->n_slots; i++) sp__storage_drop(c->slots[i].storage);
    if (c->slots) sp__free(c->slots, (size_t)c->cap_slots * sizeof *c->slots);
    if (c->pieces) sp__free(c->pieces, (size_t)c->cap_pieces * sizeof *c->pieces);
    if (c->table) sp__free(c->table, (size_t)c->cap_table * sizeof *c->table);
    sp_graph_drop(&c->g);
    sp__free(c, sizeof *c);
}

static sp_status add_input(capture *c, const sp_tensor *t, int nr)
{
    sp_meta m;
    slot *s;
    sp_vid v;
    if (!t->storage)
        return sp_fail(
            SP_EUNSUPPORTED,
            "capture: input %d belongs to a transform (vmap, jvp, grad); capture outside of it",
            nr);
    if (find_slot(c, t->storage))
        return sp_fail(SP_EUNSUPPORTED,
                       "capture: input %d shares its memory with another input; clone() it first",
                       nr);
    sp__meta_of(t, &m);
    SP_RETURN_IF(sp__graph_input(c->g, &m, &v));
    SP_RETURN_IF(new_slot(c, t->storage, &s));
    s->dependent = true, s->value = v, s->root = m;
    return note_piece(c, s, &m, v);
}

sp_status sp_capture_begin(const sp_tensor *const *inputs, int n_inputs)
{
    sp_status status = SP_OK;
    if (active)
        return sp_fail(SP_EUNSUPPORTED,
                       "capture: this thread is capturing a graph already; end that one first");
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch);
    capture *c = sp__alloc_zero(sizeof *c);
    if (!c) return no_memory();
    c->tracer.eval = capture_eval;
    SP_TRY(sp__graph_new("captured", &c->g));
    for (int i = 0; i < n_inputs; i++) SP_TRY(add_input(c, inputs[i], i));
    c->outer = sp__tls.tracer;
    sp__tls.tracer = &c->tracer;
    active = c;
    return SP_OK;
out:
    capture_free(c);
    return status;
}

static sp_status finish(capture *c, const sp_tensor *const *outputs, int n)
{
    sp_status status = SP_OK;
    size_t bytes = (size_t)n * sizeof(sp_vid);
    sp_vid *v = sp__alloc(bytes);
    if (!v) return no_memory();
    for (int i = 0; i < n; i++) {
        if (!outputs[i]->storage)
            SP_TRY(sp_fail(SP_EUNSUPPORTED,
                           "capture: output %d belongs to a transform (vmap, jvp, grad)", i));
        SP_TRY(value_of(c, outputs[i], &v[i]));
    }
    SP_TRY(sp__graph_outputs(c->g, v, n));
    SP_TRY(sp__pass_dce(c->g));
out:
    sp__free(v, bytes);
    return status;
}

sp_status sp_capture_end(const sp_tensor *const *outputs, int n_outputs, sp_graph **out)
{
    capture *c = active;
    *out = NULL;
    if (!c)
        return sp_fail(SP_EUNSUPPORTED,
                       "capture: nothing is being captured on this thread; begin first");
    if (sp__tls.tracer == &c->tracer) sp__tls.tracer = c->outer;
    active = NULL;
    sp_status status = finish(c, outputs, n_outputs);
    if (!status) *out = c->g, c->g = NULL;
    capture_free(c);
    return status;
}
