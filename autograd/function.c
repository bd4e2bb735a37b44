/* Custom functions: uses, calls, what a call is told to keep, and how it is recorded. */
#include "autograd/function_int.h"

#include <string.h>

/* ---- uses ----- */

sp_status sp__function_use_new(const sp_function *fn, void *ctx, sp_function_use **out)
{
    sp_function f = {0};
    memcpy(&f, fn, fn->size < sizeof f ? fn->size : sizeof f);
    const char *name = f.name ? f.name : "function";
    size_t n = strlen(name) + 1, bytes = sizeof(sp_function_use) + n;
    sp_function_use *use = *out = sp__alloc(bytes);
    if (!use) {
        if (f.drop) f.drop(ctx);
        return sp_fail(SP_EMEMORY, "%s: no memory to call it", name);
    }
    *use = (sp_function_use){.refs = 1, .fn = f, .ctx = ctx, .bytes = (uint32_t)bytes};
    memcpy(use->name, name, n);
    use->fn.name = use->name;
    return SP_OK;
}

void sp__function_use_drop(sp_function_use *use)
{
    if (--use->refs > 0) return;
    if (use->fn.drop) use->fn.drop(use->ctx);
    sp__free(use, use->bytes);
}

/* ---- calls ----- */

sp_status sp__function_call_new(sp_function_use *use, const sp_tensor *const *in, int n_in,
                                sp_function_call **out)
{
    size_t bytes = sizeof(sp_function_call) + (size_t)n_in;
    sp_function_call *call = *out = sp__alloc(bytes);
    if (!call) return sp_fail(SP_EMEMORY, "%s: no memory to call it", use->name);
    *call =
        (sp_function_call){.use = sp__function_use_keep(use), .n_in = n_in, .materialize = true};
    for (int i = 0; i < n_in; i++) call->wanted[i] = in && sp_requires_grad(in[i]);
    return SP_OK;
}

void sp__function_forget(sp_function_call *call)
{
    for (int i = 0; i < call->n_kept; i++) sp_drop(&call->kept[i].t);
    if (call->kept) sp__free(call->kept, (size_t)call->cap_kept * sizeof *call->kept);
    call->kept = NULL;
    call->n_kept = call->cap_kept = 0;
}

void sp__function_call_free(sp_function_call *call)
{
    if (!call) return;
    sp__function_forget(call);
    sp_function_keep(call, NULL, NULL);
    sp__function_use_drop(call->use);
    sp__free(call, sizeof *call + (size_t)call->n_in);
}

bool sp__function_keeps(const sp_function_call *call, sp_keep_kind kind, const sp_tensor *t)
{
    for (int i = 0; i < call->n_kept; i++)
        if (call->kept[i].kind == kind && call->kept[i].t == t) return true;
    return false;
}

sp_tensor *sp__function_kept_at(const sp_function_call *call, sp_keep_kind kind, int i)
{
    for (int k = 0; k < call->n_kept; k++)
        if (call->kept[k].kind == kind && i-- == 0) return call->kept[k].t;
    return NULL;
}

/* ---- what forward and setup say ----- */

static sp_status keep(sp_function_call *call, sp_keep_kind kind, const sp_tensor *t)
{
    if (!call)
        return sp_fail(SP_EVALUE, "function: forward is given no call where there is a setup; keep "
                                  "values there");
    if (call->node)
        return sp_fail(SP_EVALUE,
                       "%s: values are kept by forward or setup, which has ended for this call",
                       call->use->name);
    if (call->n_kept == call->cap_kept) {
        int cap = call->cap_kept ? 2 * call->cap_kept : 4;
        sp_kept *more = sp__realloc(call->kept, (size_t)call->cap_kept * sizeof *more,
                                    (size_t)cap * sizeof *more);
        if (!more) return sp_fail(SP_EMEMORY, "%s: no memory to keep a value", call->use->name);
        call->kept = more;
        call->cap_kept = cap;
    }
    call->kept[call->n_kept++] = (sp_kept){sp__retain(t), kind};
    return SP_OK;
}

sp_status sp_function_save(sp_function_call *call, const sp_tensor *t)
{
    return keep(call, SP_KEEP_SAVED, t);
}

sp_status sp_function_save_forward(sp_function_call *call, const sp_tensor *t)
{
    return keep(call, SP_KEEP_FORWARD, t);
}

sp_status sp_function_mark_dirty(sp_function_call *call, const sp_tensor *t)
{
    return keep(call, SP_KEEP_DIRTY, t);
}

sp_status sp_function_mark_non_differentiable(sp_function_call *call, const sp_tensor *t)
{
    return keep(call, SP_KEEP_CONSTANT, t);
}

void sp_function_materialize(sp_function_call *call, bool on)
{
    if (call) call->materialize = on;
}

void sp_function_keep(sp_function_call *call, void *data, void (*drop)(void *data))
{
    if (!call) {
        if (drop) drop(data);
        return;
    }
    void *old = call->data;
    void (*old_drop)(void *) = call->drop;
    call->data = data;
    call->drop = drop;
    if (old_drop) old_drop(old);
}

void *sp_function_kept(const sp_function_call *call)
{
    return call->data;
}

/* ---- recording ----- */

typedef struct recording { /* a call's results about to be hung on a node */
    sp_function_call *call;
    sp_level *level;
    const sp_tensor *const *in;
    sp_tensor **out;
    int n_in, n_out;
} recording;

static int find(const sp_tensor *const *list, int n, const sp_tensor *t)
{
    for (int i = 0; i < n; i++)
        if (list[i] == t) return i;
    return -1;
}

static int input_of(const recording *r, const sp_tensor *t)
{
    return find(r->in, r->n_in, t);
}

static bool is_constant(const recording *r, const sp_tensor *t)
{
    return !sp__is_float(t->dtype) || sp__function_keeps(r->call, SP_KEEP_CONSTANT, t);
}

/* As what a saved value is known to the node. */
static int index_of(const recording *r, const sp_tensor *t)
{
    int j = find((const sp_tensor *const *)r->out, r->n_out, t), i = input_of(r, t);
    if (j >= 0) return is_constant(r, t) ? SP_SAVED_CONSTANT : -1 - j;
    if (i >= 0) return i < SP_SAVED_CONSTANT ? i : SP_SAVED_CONSTANT;
    return is_constant(r, t) ? SP_SAVED_CONSTANT : SP_SAVED_INNER;
}

static sp_status save_all(const recording *r, sp_node *node)
{
    const sp_function_call *call = r->call;
    for (int k = 0; k < call->n_kept; k++)
        if (call->kept[k].kind == SP_KEEP_SAVED)
            SP_RETURN_IF(sp__node_save(node, call->kept[k].t, index_of(r, call->kept[k].t)));
    return SP_OK;
}

static sp_status take_edges(const recording *r, sp_node *node)
{
    for (int i = 0; i < r->n_in; i++) {
        sp_edge edge;
        if (!sp__wants_grad(r->in[i], r->level)) continue;
        SP_RETURN_IF(sp__history(r->in[i], &edge));
        if (edge.node) node->edges[i] = (sp_edge){sp__node_keep(edge.node), edge.nr};
    }
    return SP_OK;
}

static sp_status check_dirty(const recording *r, const sp_tensor *t)
{
    SP_RETURN_IF(sp__write_check(r->call->use->name, t, r->level));
    if (!t->grad_meta || !t->grad_meta->base || r->n_out == 1) return SP_OK;
    return sp_fail(SP_EGRAD,
                   "%s: it writes an input in place that is a view of another tensor, and returns "
                   "%d tensors; then it may return that input alone",
                   r->call->use->name, r->n_out);
}

static const sp_storage *bytes_of(const sp_tensor *t)
{
    while (t->wrap) t = t->wrap->inner;
    return t->storage;
}

sp_status sp__function_sharing(const sp_level *level, const sp_tensor *const *in, int n_in,
                               sp_tensor *t)
{
    sp_grad_meta *meta;
    if (t->grad_meta && t->grad_meta->base) return sp__view_by_function(t, t->grad_meta->base);
    for (int i = 0; i < n_in; i++) {
        if (bytes_of(in[i]) != bytes_of(t)) continue;
        if (!level || sp__of_level(in[i], level))
            return sp__view_by_function(t, (sp_tensor *)in[i]);
        SP_RETURN_IF(sp__meta(t, &meta));
        meta->foreign = true;
    }
    return SP_OK;
}

static sp_status attach(const recording *r, sp_node *node, int j)
{
    sp_tensor *t = r->out[j];
    int i = input_of(r, t);
    if (is_constant(r, t)) return SP_OK;
    if (i == 0) node->flags |= SP_NODE_INPLACE;
    if (i >= 0) return sp__written_by(t, node, i, j);
    SP_RETURN_IF(sp__function_sharing(r->level, r->in, r->n_in, t));
    return sp__history_set(t, node, j);
}

static int count_saved(const sp_function_call *call)
{
    int n = 0;
    for (int k = 0; k < call->n_kept; k++) n += call->kept[k].kind == SP_KEEP_SAVED;
    return n;
}

/* Takes the call over, which the caller still frees if this fails before the node has it. */
static sp_status record(recording *r, sp_function_call **call)
{
    sp_node *node;
    for (int j = 0; j < r->n_out; j++)
        if (input_of(r, r->out[j]) >= 0) SP_RETURN_IF(check_dirty(r, r->out[j]));
    SP_RETURN_IF(sp__node_over(SP_NODE_FUNCTION, sizeof(sp_function_node),
                               (sp_tensor *const *)r->in, r->n_in, r->out, r->n_out,
                               count_saved(r->call), &node));
    sp_status status = SP_OK;
    ((sp_function_node *)node)->call = *call;
    *call = NULL;
    SP_TRY(take_edges(r, node));
    sp__node_number(node);
    SP_TRY(save_all(r, node));
    SP_TRY(sp__node_recorded(node));
    for (int i = 0; i < r->n_in; i++) r->call->wanted[i] = node->edges[i].node != NULL;
    for (int j = 0; j < r->n_out; j++) SP_TRY(attach(r, node, j));
    sp__function_forget(r->call);
    r->call->node = node;
out:
    sp__node_let_go(node);
    return status;
}

sp_status sp__function_record(sp_function_call *call, sp_level *level, const sp_tensor *const *in,
                              int n_in, sp_tensor **out, int n_out)
{
    recording r = {call, level, in, out, n_in, n_out};
    bool any = false;
    sp_status status = SP_OK;
    for (int i = 0; i < n_in && !sp__tls.no_grad; i++) any |= sp__wants_grad(in[i], level);
    if (any && n_out) status = record(&r, &call);
    sp__function_call_free(call);
    return status;
}
