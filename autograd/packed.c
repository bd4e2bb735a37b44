/* What the tape saves, in a form that the user chooses: pairs of functions, a stack of them in each
 * thread. When a node saves a value the topmost pair packs it; when the value is needed, the same
 * pair unpacks.
 *
 * Invariants
 * 1. A packed value has no handle: neither its version is checked nor does it go stale. It keeps
 * where its gradient goes, so that what is unpacked has its history back.
 * 2. ctx and the packed object are references that keep() and drop() count.
 */
#include "autograd/tape_int.h"

#include <stdio.h>
#include <string.h>

typedef struct pair {
    struct pair *below;
    const sp_pack_hooks *hooks;
    void *ctx; /* owned */
} pair;

struct sp_packed {
    const sp_pack_hooks *hooks;
    void *ctx, *object; /* owned */
    sp_edge edge;       /* of an input; owned; node NULL: it has no history */
    uint8_t dtype, rank;
    int64_t shape[];
};

static __thread char *disabled; /* why none may be pushed; NULL: they may */

/* ---- the stack, in sp__tls.autograd ----- */

sp_status sp__pack_push(const sp_pack_hooks *hooks, void *ctx)
{
    if (disabled) return sp_fail(SP_EGRAD, "%s", disabled);
    pair *top = sp__alloc(sizeof *top);
    if (!top) return sp_fail(SP_EMEMORY, "saved_tensors_hooks: no memory to set them");
    hooks->keep(ctx);
    *top = (pair){sp__tls.autograd, hooks, ctx};
    sp__tls.autograd = top;
    return SP_OK;
}

void sp__pack_pop(void)
{
    pair *top = sp__tls.autograd;
    if (!top) return;
    sp__tls.autograd = top->below;
    top->hooks->drop(top->ctx);
    sp__free(top, sizeof *top);
}

sp_status sp__pack_disable(const char *why, char **was)
{
    char *copy = NULL;
    if (why && sp__tls.autograd)
        return sp_fail(SP_EGRAD, "disable_saved_tensors_hooks: such hooks are set: %s", why);
    if (why && !(copy = sp__dup(why, strlen(why) + 1)))
        return sp_fail(SP_EMEMORY, "disable_saved_tensors_hooks: no memory for the reason");
    *was = disabled;
    disabled = copy;
    return SP_OK;
}

void sp__pack_restore(char *was)
{
    if (disabled) sp__free(disabled, strlen(disabled) + 1);
    disabled = was;
}

/* ---- packing ----- */

static sp_status call_pack(const pair *p, const sp_tensor *t, void **object)
{
    sp_tensor *value;
    bool no_grad = sp__tls.no_grad;
    SP_RETURN_IF(sp__value_alias(t, &value));
    uint32_t version = sp__version_of(t);
    sp__tls.no_grad = true;
    sp_status status = p->hooks->pack(p->ctx, value, object);
    sp__tls.no_grad = no_grad;
    sp_drop(&value);
    if (status != SP_OK || sp__version_of(t) == version) return status;
    p->hooks->drop(*object);
    return sp_fail(SP_EGRAD, "saved_tensors_hooks: pack wrote to the tensor that it was given; it "
                             "must leave it as it is: work on a clone()");
}

static size_t packed_bytes(int rank)
{
    return sizeof(sp_packed) + (size_t)rank * sizeof(int64_t);
}

sp_status sp__pack(sp_saved *s, const sp_tensor *t)
{
    const pair *p = sp__tls.autograd;
    sp_edge edge = {NULL, 0};
    void *object = NULL;
    if (s->index >= 0) SP_RETURN_IF(sp__history(t, &edge));
    sp_packed *packed = sp__alloc(packed_bytes(t->rank));
    if (!packed) return sp_fail(SP_EMEMORY, "autograd: no memory to pack a saved value");
    if (edge.node) sp__node_keep(edge.node);
    void *ctx = p->ctx;
    p->hooks->keep(ctx); /* pack might pop the pair */
    *packed = (sp_packed){
        .hooks = p->hooks, .ctx = ctx, .edge = edge, .dtype = t->dtype, .rank = t->rank};
    for (int i = 0; i < t->rank; i++) packed->shape[i] = t->shape[i];
    sp_status status = call_pack(p, t, &object);
    if (status != SP_OK) {
        sp__packed_free(packed);
        return status;
    }
    packed->object = object;
    s->packed = packed, s->is_packed = true;
    return SP_OK;
}

void sp__packed_free(sp_packed *packed)
{
    if (packed->edge.node) sp__node_let_go(packed->edge.node);
    if (packed->object) packed->hooks->drop(packed->object);
    packed->hooks->drop(packed->ctx);
    sp__free(packed, packed_bytes(packed->rank));
}

void sp__packed_each(const sp_packed *packed, void (*see)(void *arg, void *object), void *arg)
{
    if (packed->hooks->drop != sp__node_hooks.drop) return;
    if (packed->object) see(arg, packed->object);
    see(arg, packed->ctx);
}

sp_node *sp__packed_leads_to(const sp_packed *packed)
{
    return packed->edge.node;
}

/* ---- unpacking ----- */

static sp_status check_value(const sp_node *node, const sp_saved *s, const sp_tensor *t)
{
    const sp_packed *want = s->packed;
    bool same = t->rank == want->rank && t->dtype == want->dtype;
    for (int i = 0; same && i < t->rank; i++) same = t->shape[i] == want->shape[i];
    if (same) return SP_OK;
    return sp_fail(SP_ESHAPE,
                   "saved_tensors_hooks: unpack returned a tensor of shape %s and dtype %s for %s "
                   "of %s, which has shape %s and dtype %s",
                   SP_SHAPE(t), sp_dtype_name((sp_dtype)t->dtype),
                   sp__saved_name(node, s, (char[SP_SAVED_NAME]){0}), sp__node_op(node),
                   sp__shape_text(want->rank, want->shape, (char[SP_SHAPE_TEXT]){0}, SP_SHAPE_TEXT),
                   sp_dtype_name((sp_dtype)want->dtype));
}

/* The result of a write to a view is a part of what the base became. */
static sp_status part_history(sp_node *node, sp_tensor *value)
{
    sp_tensor *part;
    sp_edge edge;
    SP_RETURN_IF(sp__slices_part(node->slices, &part));
    sp_status status = sp__history(part, &edge);
    if (status == SP_OK) status = sp__history_set(value, edge.node, edge.nr);
    sp_drop(&part);
    return status;
}

static sp_status with_history(sp_node *node, const sp_saved *s, sp_tensor *value)
{
    const sp_edge *edge = &s->packed->edge;
    if (sp__tls.no_grad) return SP_OK;
    if (s->index < 0 && node->flags & SP_NODE_PART) return part_history(node, value);
    if (s->index < 0) return sp__history_set(value, node, -1 - s->index);
    return edge->node ? sp__history_set(value, edge->node, edge->nr) : SP_OK;
}

sp_status sp__unpack(sp_node *node, const sp_saved *s, sp_tensor **out)
{
    const sp_packed *packed = s->packed;
    sp_tensor *t = NULL;
    bool no_grad = sp__tls.no_grad;
    *out = NULL;
    sp__tls.no_grad = true;
    sp_status status = packed->hooks->unpack(packed->ctx, packed->object, &t);
    sp__tls.no_grad = no_grad;
    SP_TRY(status);
    SP_TRY(check_value(node, s, t));
    SP_TRY(sp__value_alias(t, out)); /* whatever history the user's tensor has, it is not this */
    SP_TRY(with_history(node, s, *out));
    sp_drop(&t);
    return SP_OK;
out:
    sp_drop(&t);
    sp_drop(out);
    return status;
}
