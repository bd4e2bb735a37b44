/* Nodes: making, numbering, running and freeing them. */
#include "autograd/tape_int.h"

#include <stdio.h>
#include <string.h>

#include "autograd/autograd.h"
#include "autograd/function_int.h"

/* ---- numbering and freeing ----- */

static __thread uint64_t last_number;
static __thread sp_node
    *dead; /* nodes whose count reached zero and that nobody has taken apart yet */
static __thread bool burying;

/* Larger than everything issued on this thread, and than every node that this one leads to, which
 * may come from another. */
void sp__node_number(sp_node *node)
{
    uint64_t number = ++last_number;
    for (int i = 0; i < node->n_in; i++) {
        const sp_node *to = node->edges[i].node;
        if (to && to->seq >= number) number = to->seq + 1;
    }
    node->seq = last_number = number;
}

static void saved_unlink(sp_saved *s)
{
    if (!s->slot) return;
    *s->slot = s->next;
    if (s->next) s->next->slot = s->slot;
    s->slot = NULL, s->next = NULL;
}

static void saved_free(sp_node *node)
{
    for (int i = 0; i < node->n_saved; i++) {
        sp_saved *s = &node->saved[i];
        if (SP_UNLIKELY(s->is_packed)) {
            s->is_packed = false;
            sp__packed_free(s->packed);
        }
        if (SP_UNLIKELY(s->stale)) {
            sp__write_drop(s->write);
            s->write = NULL;
        }
        saved_unlink(s);
        sp_drop(&s->t);
    }
}

static void bury(sp_node *node)
{
    saved_free(node);
    for (int i = 0; i < node->n_in; i++)
        if (node->edges[i].node) sp__node_let_go(node->edges[i].node);
    sp__hooks_free(node);
    if (SP_UNLIKELY(node->attached != NULL)) sp__attached_free(node);
    sp__attrs_free(node->attr, node->n_attr);
    if (node->kind == SP_NODE_SLICES) {
        sp_slices *slices = (sp_slices *)node;
        if (slices->inner) sp__node_let_go(slices->inner);
        sp__step_drop(slices->steps);
        sp_drop(&slices->base);
    }
    if (node->kind == SP_NODE_FUNCTION) sp__function_bury(node);
    sp__free(node, node->bytes);
}

/* A dying node lets go of others, directly or through the handles it saved: they queue up here, so
 * that a long tape needs no deep stack. */
void sp__node_die(sp_node *node)
{
    SP_ASSERT(node->flags & SP_NODE_PART || !node->tasks);
    node->next_dead = dead;
    dead = node;
    if (burying) return;
    burying = true;
    while (dead) {
        sp_node *next = dead;
        dead = next->next_dead;
        bury(next);
    }
    burying = false;
}

static void let_go_elsewhere(sp_node *node)
{
    if (node->kind == SP_NODE_LEAF) {
        sp_tensor *handle = ((sp_leaf *)node)->handle;
        sp_drop(&handle);
    } else if (--*sp__node_count(node) == 0) {
        sp__node_hooks.dealloc(node->attached->object);
    }
}

void sp__node_let_go(sp_node *node)
{
    if (SP_UNLIKELY(node->flags & SP_NODE_ELSEWHERE))
        let_go_elsewhere(node);
    else if (--node->refs == 0)
        sp__node_die(node);
}

/* Drops what the node saved: it has run for the last time. */
void sp__node_release(sp_node *node)
{
    if (node->kind == SP_NODE_LEAF) return;
    node->flags |= SP_NODE_RELEASED;
    saved_free(node);
    if (node->kind != SP_NODE_SLICES) return;
    sp_drop(&((sp_slices *)node)->base);
    sp__node_release(((sp_slices *)node)->inner);
}

/* ---- geometry ----- */

/* One operand takes a word of kinds, offset, numel, shape, and, unless it is dense, stride; an
 * absent one takes the word ABSENT. */
enum { ABSENT = -1, DENSE = SP_T_CONTIGUOUS << 24 };

static inline int geometry_words(const sp_tensor *t) /* at most */
{
    return t ? 3 + 2 * t->rank : 1;
}

static inline int packed_words(const int64_t *from)
{
    return *from == ABSENT ? 1 : 3 + (*from & DENSE ? 1 : 2) * (*from >> 16 & 0xff);
}

static inline int64_t *pack_geometry(const sp_tensor *t, int64_t *to)
{
    if (!t) {
        *to = ABSENT;
        return to + 1;
    }
    _Static_assert(offsetof(sp_tensor, flags) == offsetof(sp_tensor, dtype) + 3,
                   "dtype, device, rank, flags");
    int rank = t->rank;
    bool dense = t->flags & SP_T_CONTIGUOUS;
    uint32_t kinds; /* dtype, device, rank and flags lie side by side */
    memcpy(&kinds, &t->dtype, sizeof kinds);
    to[0] = kinds, to[1] = t->offset, to[2] = t->numel;
    to += 3;
    for (int i = 0; i < rank; i++) to[i] = t->shape[i];
    to += rank;
    if (dense) return to;
    for (int i = 0; i < rank; i++) to[i] = t->stride[i];
    return to + rank;
}

static const int64_t *unpack_geometry(const int64_t *from, sp_meta *m)
{
    if (*from == ABSENT) {
        m->rank = 0, m->numel = 0;
        return from + 1;
    }
    int rank = from[0] >> 16 & 0xff;
    m->dtype = from[0] & 0xff, m->device = from[0] >> 8 & 0xff, m->rank = (uint8_t)rank;
    m->contiguous = (from[0] & DENSE) != 0, m->view_of = -1;
    m->offset = from[1], m->numel = from[2];
    from += 3;
    for (int i = 0; i < rank; i++) m->shape[i] = from[i];
    from += rank;
    if (!m->contiguous) {
        for (int i = 0; i < rank; i++) m->stride[i] = from[i];
        return from + rank;
    }
    for (int64_t i = rank - 1, step = 1; i >= 0; i--) {
        m->stride[i] = step;
        step *= m->shape[i] > 1 ? m->shape[i] : 1;
    }
    return from;
}

static const int64_t *packed_at(const sp_node *node, int i)
{
    const int64_t *from = node->geometry;
    for (int k = 0; k < i; k++) from += packed_words(from);
    return from;
}

static const int64_t *packed_out(const sp_node *node, int i)
{
    return packed_at(node, i + (node->kind == SP_NODE_SLICES ? 0 : node->n_in));
}

void sp__node_in_meta(const sp_node *node, int i, sp_meta *out)
{
    unpack_geometry(packed_at(node, i), out);
}

void sp__node_out_meta(const sp_node *node, int i, sp_meta *out)
{
    if (node->kind == SP_NODE_LEAF)
        sp__meta_of(((const sp_leaf *)node)->handle, out);
    else
        unpack_geometry(packed_out(node, i), out);
}

bool sp__node_out_fits(const sp_node *node, int i, const sp_tensor *g)
{
    int dtype, rank;
    const int64_t *shape;
    if (node->kind == SP_NODE_LEAF) {
        const sp_tensor *t = ((const sp_leaf *)node)->handle;
        dtype = t->dtype, rank = t->rank, shape = t->shape;
    } else {
        const int64_t *from = packed_out(node, i);
        dtype = from[0] & 0xff, rank = from[0] >> 16 & 0xff, shape = from + 3;
    }
    if (g->dtype != dtype || g->rank != rank) return false;
    for (int d = 0; d < rank; d++)
        if (g->shape[d] != shape[d]) return false;
    return true;
}

/* ---- making ----- */

typedef struct savings { /* what a call's formulas will read */
    uint64_t in;
    uint32_t out;
} savings;

static savings savings_of(const sp_call *c, uint64_t need)
{
    const sp_rule *rule = &sp__rules[c->op];
    savings s = {0, 0};
    if (!(rule->saves_in | rule->saves_out)) return s;
    if (sp_op_table[c->op].n_in < 0)
        return (savings){need ? rule->saves_in : 0, need ? rule->saves_out : 0};
    for (int i = 0; i < c->n_in; i++)
        if (need >> i & 1) s.in |= rule->vjp_reads_in[i], s.out |= rule->vjp_reads_out[i];
    for (int i = 0; i < c->n_in; i++)
        if (!c->in[i]) s.in &= ~sp__in_bit(i);
    return s;
}

uint64_t sp__node_saves_in(const sp_call *c, uint64_t need)
{
    return savings_of(c, need).in;
}

static sp_status no_memory(const char *op)
{
    return sp_fail(SP_EMEMORY, "%s: no memory to record it on the tape", op);
}

/* The empty block: all counts that freeing looks at are zero until the parts are there. */
static inline sp_node *node_block(sp_node_kind kind, size_t header, int n_in, int n_saved,
                                  int n_attr, int words)
{
    size_t bytes = header + (size_t)n_in * sizeof(sp_edge) + (size_t)n_saved * sizeof(sp_saved) +
                   (size_t)n_attr * sizeof(sp_attr) + (size_t)words * sizeof(int64_t);
    sp_node *node = sp__alloc(bytes);
    if (!node) return NULL;
    *node = (sp_node){.refs = 1, .kind = (uint8_t)kind, .bytes = (uint32_t)bytes, .n_in = n_in};
    if (header > sizeof *node) memset(node + 1, 0, header - sizeof *node);
    node->edges = (sp_edge *)((char *)node + header);
    node->saved = (sp_saved *)(node->edges + n_in);
    node->attr = (sp_attr *)(node->saved + n_saved);
    node->geometry = (int64_t *)(node->attr + n_attr);
    for (int i = 0; i < n_in; i++) node->edges[i].node = NULL;
    return node;
}

sp_status sp__node_bare(sp_node_kind kind, size_t header, int n_in, const sp_tensor *result,
                        sp_node **out)
{
    *out = node_block(kind, header, n_in, 0, 0, result ? geometry_words(result) : 0);
    if (!*out) return no_memory("autograd");
    (*out)->n_out = 1;
    if (result) pack_geometry(result, (*out)->geometry);
    return SP_OK;
}

static sp_status save_packed(sp_node *node, const sp_tensor *t, int index)
{
    sp_saved *s = &node->saved[node->n_saved];
    *s = (sp_saved){.index = (int16_t)index};
    SP_RETURN_IF(sp__pack(s, t));
    node->n_saved++;
    return SP_OK;
}

/* Values may go stale for a handle that gets a new history later: its meta then knows who saved it
 * (invariant 6). A leaf that requires grad never does. */
static sp_status save_handle(sp_node *node, sp_tensor *t, int index)
{
    sp_grad_meta *meta = NULL;
    bool leaf = (t->flags & SP_T_REQUIRES_GRAD) && t->grad_meta && t->grad_meta->leaf &&
                !t->grad_meta->node;
    if (index >= 0 && !leaf) SP_RETURN_IF(sp__meta(t, &meta));
    sp_saved *s = &node->saved[node->n_saved];
    sp_storage *bytes = sp__storage_of(t);
    *s = (sp_saved){.version = bytes->version, .index = (int16_t)index};
    bytes->flags |= SP_S_SAVED;
    if (index < 0) {
        SP_RETURN_IF(sp__value_alias(t, &s->t));
    } else {
        s->t = sp__retain(t);
    }
    node->n_saved++;
    if (meta) {
        s->next = meta->savers, s->slot = &meta->savers;
        if (s->next) s->next->slot = &s->next;
        meta->savers = s;
    }
    return SP_OK;
}

sp_status sp__node_save(sp_node *node, sp_tensor *t, int index)
{
    return sp__packs() ? save_packed(node, t, index) : save_handle(node, t, index);
}

static sp_status save_all(sp_node *node, const sp_call *c, sp_tensor *const *save, savings what)
{
    for (int i = 0; i < c->n_in; i++)
        if (what.in & sp__in_bit(i)) SP_RETURN_IF(sp__node_save(node, save[i], i));
    for (int i = 0; i < c->n_out; i++) {
        if (!(what.out >> i & 1)) continue;
        /* What is written in place has no value yet: it is packed when it has. */
        bool later = c->flags & SP_CALL_INPLACE;
        SP_RETURN_IF(later ? save_handle(node, c->out[i], -1 - i)
                           : sp__node_save(node, c->out[i], -1 - i));
    }
    return SP_OK;
}

sp_status sp__node_over(sp_node_kind kind, size_t header, sp_tensor *const *in, int n_in,
                        sp_tensor *const *out, int n_out, int n_saved, sp_node **node)
{
    int words = 0;
    for (int i = 0; i < n_in; i++) words += geometry_words(in ? in[i] : NULL);
    for (int i = 0; i < n_out; i++) words += geometry_words(out[i]);
    *node = node_block(kind, header, n_in, n_saved, 0, words);
    if (!*node) return no_memory("autograd");
    (*node)->n_out = (uint8_t)n_out;
    int64_t *at = (*node)->geometry;
    for (int i = 0; i < n_in; i++) at = pack_geometry(in ? in[i] : NULL, at);
    for (int i = 0; i < n_out; i++) at = pack_geometry(out[i], at);
    return SP_OK;
}

static sp_status take_edges(sp_node *node, const sp_call *c, uint64_t need)
{
    for (int i = 0; i < c->n_in; i++) {
        if (!(need & sp__in_bit(i))) continue;
        sp_edge edge;
        SP_RETURN_IF(sp__history(c->in[i], &edge));
        if (!edge.node) continue;
        node->edges[i] = (sp_edge){sp__node_keep(edge.node), edge.nr};
    }
    return SP_OK;
}

sp_status sp__node_recorded(sp_node *node)
{
    if (sp__anomaly_on()) SP_RETURN_IF(sp__anomaly_note(node));
    bool holds = sp__packs() && node->n_saved && sp__node_hooks.bind;
    return holds ? sp__node_hooks.bind(node) : SP_OK;
}

sp_status sp__node_new(const sp_call *c, uint64_t need, sp_tensor *const *save, sp_node **out)
{
    savings what = savings_of(c, need);
    int words = 0, n_saved = 0;
    for (int i = 0; i < c->n_in; i++) n_saved += (what.in & sp__in_bit(i)) != 0;
    for (uint32_t saved = what.out; saved; saved &= saved - 1) n_saved++;
    for (int i = 0; i < c->n_in; i++) words += geometry_words(c->in[i]);
    for (int i = 0; i < c->n_out; i++) words += geometry_words(c->out[i]);
    sp_node *node = node_block(SP_NODE_OP, sizeof(sp_node), c->n_in, n_saved, c->n_attr, words);
    if (!node) return no_memory(sp_op_table[c->op].name);
    node->op = c->op, node->n_out = c->n_out;

    int64_t *at = node->geometry;
    for (int i = 0; i < c->n_in; i++) at = pack_geometry(c->in[i], at);
    for (int i = 0; i < c->n_out; i++) at = pack_geometry(c->out[i], at);

    sp_status status = SP_OK;
    if (c->n_attr) {
        SP_TRY(sp__attrs_copy(c->attr, c->n_attr, node->attr));
        node->n_attr = c->n_attr;
    }
    SP_TRY(take_edges(node, c, need));
    sp__node_number(node);
    if (n_saved) SP_TRY(save_all(node, c, save ? save : c->in, what));
    SP_TRY(sp__node_recorded(node));
    *out = node;
    return SP_OK;
out:
    sp__node_let_go(node);
    return status;
}

/* The written tensor has a new value and version, which is the one that saved outputs mean. */
sp_status sp__node_outputs_written(sp_node *node)
{
    for (int i = 0; i < node->n_saved; i++) {
        if (node->saved[i].index >= 0) continue;
        sp_storage *bytes = sp__storage_of(node->saved[i].t);
        node->saved[i].version = bytes->version;
        bytes->flags |= SP_S_SAVED;
    }
    for (int i = 0; sp__packs() && i < node->n_saved; i++) {
        if (node->saved[i].index >= 0) continue;
        SP_RETURN_IF(sp__pack(&node->saved[i], node->saved[i].t));
        sp_drop(&node->saved[i].t);
    }
    return SP_OK;
}

/* meta's handle gets a new history because its bytes were written: what was saved of it can never
 * be used again. */
void sp__saved_stale(sp_grad_meta *meta)
{
    while (meta->savers) {
        sp_saved *s = meta->savers;
        const sp_storage *bytes = sp__storage_of(s->t);
        s->stale = true;
        s->stale_version = bytes->version;
        saved_unlink(s);
        s->write = sp__write_after(bytes, s->version, &s->write_is_next);
        sp_drop(&s->t);
    }
}

/* ---- running ----- */

enum { INLINE_OPERANDS = 8 };

typedef struct replay { /* the arguments of one vjp call */
    sp_meta *meta;
    sp_tensor **in;
    sp_tensor *out[SP_MAX_OUT];
    sp_tensor **owned; /* values that were made for this call */
    sp_meta meta_room[INLINE_OPERANDS];
    sp_tensor *in_room[INLINE_OPERANDS], *owned_room[INLINE_OPERANDS];
    int n, n_owned, n_saved; /* n: operands */
} replay;

static sp_status replay_start(replay *r, const sp_node *node)
{
    r->n = node->n_in + node->n_out;
    r->n_owned = 0, r->n_saved = node->n_saved;
    r->meta = r->meta_room, r->in = r->in_room, r->owned = r->owned_room;
    memset(r->out, 0, sizeof r->out);
    if (r->n > INLINE_OPERANDS) {
        r->meta = sp__alloc((size_t)r->n * sizeof(sp_meta));
        r->in = sp__alloc((size_t)r->n * sizeof(sp_tensor *));
    }
    if (r->n_saved > INLINE_OPERANDS)
        r->owned = sp__alloc((size_t)r->n_saved * sizeof(sp_tensor *));
    if (!r->meta || !r->in || !r->owned) return no_memory(sp_op_table[node->op].name);
    memset(r->in, 0, (size_t)r->n * sizeof(sp_tensor *));
    const int64_t *at = node->geometry;
    for (int i = 0; i < r->n; i++) at = unpack_geometry(at, &r->meta[i]);
    return SP_OK;
}

static void replay_end(replay *r)
{
    for (int i = 0; i < r->n_owned; i++) sp_drop(&r->owned[i]);
    if (r->owned && r->owned != r->owned_room)
        sp__free(r->owned, (size_t)r->n_saved * sizeof(sp_tensor *));
    if (r->n <= INLINE_OPERANDS) return;
    if (r->meta) sp__free(r->meta, (size_t)r->n * sizeof(sp_meta));
    if (r->in) sp__free(r->in, (size_t)r->n * sizeof(sp_tensor *));
}

sp_status sp__saved_there(const sp_node *node)
{
    if (!(node->flags & SP_NODE_RELEASED) || !node->n_saved) return SP_OK;
    return sp_fail(SP_EGRAD,
                   "backward: through the graph a second time: the values that %s saved were "
                   "freed by the first; "
                   "pass retain_graph=True to the first, or compute the forward again",
                   sp__node_op(node));
}

const char *sp__saved_name(const sp_node *node, const sp_saved *s, char buf[SP_SAVED_NAME])
{
    if (s->index >= SP_SAVED_CONSTANT)
        snprintf(buf, SP_SAVED_NAME, "saved value %d", (int)(s - node->saved));
    else
        snprintf(buf, SP_SAVED_NAME, "%s %d", s->index >= 0 ? "input" : "output",
                 s->index >= 0 ? s->index : -1 - s->index);
    return buf;
}

/* " by add_ at train.py:12", as far as that was noted. */
static void changed_by(const sp_saved *s, char *buf, size_t n)
{
    char text[SP_WRITE_TEXT];
    bool next = s->write_is_next;
    sp_write *found = s->stale ? NULL : sp__write_after(sp__storage_of(s->t), s->version, &next);
    const sp_write *write = s->stale ? s->write : found;
    if (write)
        snprintf(buf, n, next ? " (%s)" : " (and later by %s)",
                 sp__write_text(write, text, sizeof text));
    sp__write_drop(found);
}

static __attribute__((cold, noinline)) sp_status was_changed(const sp_node *node, const sp_saved *s)
{
    char by[SP_WRITE_TEXT + 16] = "";
    changed_by(s, by, sizeof by);
    return sp_fail(SP_EGRAD,
                   "backward: %s of %s, which its gradient needs, was modified by an in-place "
                   "operation%s: it is at version %u, expected version %u; write to a clone() "
                   "instead, or out of place",
                   sp__saved_name(node, s, (char[SP_SAVED_NAME]){0}), sp__node_op(node), by,
                   s->stale ? s->stale_version : sp__version_of(s->t), s->version);
}

sp_status sp__saved_check(const sp_node *node, const sp_saved *s)
{
    bool same = !s->stale && sp__version_of(s->t) == s->version;
    return SP_LIKELY(same) ? SP_OK : was_changed(node, s);
}

/* A saved output is the node's own result again: for derivatives of derivatives it needs its
 * history back. */
sp_status sp__saved_output(sp_node *node, const sp_saved *s, sp_tensor **out)
{
    if (node->flags & SP_NODE_PART) return sp__slices_part(node->slices, out);
    SP_RETURN_IF(sp__value_alias(s->t, out));
    sp_status status = sp__history_set(*out, node, -1 - s->index);
    if (status != SP_OK) sp_drop(out);
    return status;
}

/* A saved value as formulas may read it; *owned: a reference that comes with it, or NULL. */
static sp_status saved_value(sp_node *node, const sp_saved *s, sp_tensor **value, sp_tensor **owned)
{
    *owned = NULL;
    if (SP_UNLIKELY(s->is_packed)) {
        SP_RETURN_IF(sp__unpack(node, s, owned));
        *value = *owned;
        return SP_OK;
    }
    SP_RETURN_IF(sp__saved_check(node, s));
    if (s->index < 0 && !sp__tls.no_grad) SP_RETURN_IF(sp__saved_output(node, s, owned));
    *value = *owned ? *owned : s->t;
    return SP_OK;
}

static sp_status replay_saved(replay *r, sp_node *node)
{
    for (int i = 0; i < node->n_saved; i++) {
        const sp_saved *s = &node->saved[i];
        sp_tensor *owned, **to = s->index >= 0 ? &r->in[s->index] : &r->out[-1 - s->index];
        SP_RETURN_IF(saved_value(node, s, to, &owned));
        if (owned) r->owned[r->n_owned++] = owned;
    }
    return SP_OK;
}

int sp__node_num_saved(const sp_node *node)
{
    return node->kind == SP_NODE_OP ? node->n_saved : 0;
}

int sp__node_saved_index(const sp_node *node, int k)
{
    return node->saved[k].index;
}

sp_status sp__node_saved(sp_node *node, int k, sp_tensor **out)
{
    sp_tensor *value, *owned;
    SP_RETURN_IF(sp__saved_there(node));
    SP_RETURN_IF(saved_value(node, &node->saved[k], &value, &owned));
    *out = owned ? owned : sp__retain(value);
    return SP_OK;
}

/* A formula of a holomorphic op is gy f'(x), for a complex x the gradient is gy conj(f'(x)). */
static sp_status conjugated_vjp(int op, const sp_vjp_args *args)
{
    sp_tensor *gy[SP_MAX_OUT] = {NULL};
    sp_vjp_args turned = *args;
    sp_status status = SP_OK;
    turned.gy = gy;
    for (int i = 0; i < sp_op_table[op].n_out; i++)
        if (args->gy[i]) SP_TRY(sp_conj(args->gy[i], &gy[i]));
    SP_TRY(sp__rules[op].vjp(&turned));
    for (int i = 0; i < args->n_in; i++) {
        sp_tensor *g = args->gx[i];
        if (!g || !sp__dtype_is_complex(g->dtype)) continue;
        args->gx[i] = NULL;
        status = sp_conj_physical(g, &args->gx[i]);
        sp_drop(&g);
        if (status != SP_OK) break;
    }
out:
    for (int i = 0; i < SP_MAX_OUT; i++) sp_drop(&gy[i]);
    if (status != SP_OK)
        for (int i = 0; i < args->n_in; i++) sp_drop(&args->gx[i]);
    return status;
}

sp_status sp__vjp(int op, const sp_vjp_args *args)
{
    const sp_op_info *info = &sp_op_table[op];
    bool turns = false;
    if (SP_UNLIKELY(info->flags & SP_OPF_HOLOMORPHIC))
        for (int i = 0; i < info->n_out; i++)
            turns |= args->gy[i] && sp__dtype_is_complex(args->gy[i]->dtype);
    return turns ? conjugated_vjp(op, args) : sp__rules[op].vjp(args);
}

sp_status sp__node_vjp(sp_node *node, sp_tensor *const *gy, uint64_t need, sp_tensor **gx)
{
    if (node->kind == SP_NODE_SLICES) return sp__slices_vjp((sp_slices *)node, gy[0], need, gx);
    if (node->kind == SP_NODE_FUNCTION) return sp__function_vjp(node, gy, need, gx);
    SP_RETURN_IF(sp__saved_there(node));
    replay r;
    sp_status status = SP_OK;
    SP_TRY(replay_start(&r, node));
    SP_TRY(replay_saved(&r, node));
    sp_vjp_args args = {.in = r.in,
                        .out = r.out,
                        .in_meta = r.meta,
                        .out_meta = r.meta + node->n_in,
                        .attr = node->attr,
                        .gy = gy,
                        .n_in = node->n_in,
                        .need = need,
                        .gx = gx};
    SP_TRY(sp__vjp(node->op, &args));
out:
    replay_end(&r);
    return status;
}
