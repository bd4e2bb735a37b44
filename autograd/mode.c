/* Grad mode, leaves and their gradients, and what a node is called. */
#include "autograd/autograd.h"
#include "autograd/function_int.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

bool sp_grad_mode(bool on)
{
    bool was = !sp__tls.no_grad;
    sp__tls.no_grad = !on;
    return was;
}

/* ---- the level a handle belongs to ----- */

sp_status sp__context_enter(const sp_tensor *t, sp_context *was)
{
    *was = (sp_context){sp__tls.top, sp__tls.no_grad};
    sp_level *level = NULL;
    if (t->wrap) {
        level = sp__tls.top;
        while (level && level->id != t->wrap->level_id) level = level->below;
        if (!level)
            return sp_fail(
                SP_EGRAD,
                "autograd: the tensor belongs to a transform that has ended; return it from the "
                "transformed function instead of keeping it");
    }
    sp__tls.top = level;
    sp__tls.no_grad = false;
    return SP_OK;
}

void sp__context_leave(const sp_context *was)
{
    sp__tls.top = was->top;
    sp__tls.no_grad = was->no_grad;
}

/* ---- leaves ----- */

bool sp_requires_grad(const sp_tensor *t)
{
    return (t->flags & SP_T_REQUIRES_GRAD) != 0;
}

bool sp__is_leaf(const sp_tensor *t)
{
    const sp_grad_meta *meta = t->grad_meta;
    if (!(t->flags & SP_T_REQUIRES_GRAD) || !meta) return true;
    return !meta->node && !sp__view_outdated(meta);
}

bool sp_is_leaf(const sp_tensor *t)
{
    return sp__is_leaf(t);
}

sp_status sp_set_requires_grad(sp_tensor *t, bool on)
{
    if (on && !sp__is_float(t->dtype))
        return sp_fail(
            SP_EDTYPE,
            "requires_grad: only floating tensors can have gradients, this one is %s; cast() it",
            sp_dtype_name(t->dtype));
    if (on && t->wrap && t->wrap->kind != SP_LEVEL_GRAD)
        return sp_fail(SP_EGRAD, "requires_grad: inside %s use spool.func.grad() to differentiate",
                       t->wrap->kind == SP_LEVEL_VMAP  ? "vmap"
                       : t->wrap->kind == SP_LEVEL_JVP ? "jvp"
                                                       : "jet");
    if (!sp__is_leaf(t)) {
        if (on) return SP_OK;
        return sp_fail(SP_EGRAD, "requires_grad: can be switched off at leaves only; this tensor "
                                 "is a result: use detach()");
    }
    if (on) {
        sp_leaf *leaf;
        SP_RETURN_IF(sp__meta_leaf(t, &leaf));
        t->flags |= SP_T_REQUIRES_GRAD;
    } else {
        t->flags &= (uint8_t)~SP_T_REQUIRES_GRAD;
    }
    return SP_OK;
}

sp_status sp_grad_get(const sp_tensor *t, sp_tensor **out)
{
    const sp_grad_meta *meta = t->grad_meta;
    *out = meta && meta->grad ? sp__retain(meta->grad) : NULL;
    return SP_OK;
}

sp_status sp_grad_set(sp_tensor *t, const sp_tensor *grad)
{
    if (!grad) {
        if (t->grad_meta) sp_drop(&t->grad_meta->grad);
        return SP_OK;
    }
    bool same = grad->rank == t->rank && grad->dtype == t->dtype;
    for (int i = 0; same && i < t->rank; i++) same = grad->shape[i] == t->shape[i];
    if (!same)
        return sp_fail(SP_ESHAPE,
                       "grad: a gradient of shape %s and dtype %s does not fit a tensor of shape "
                       "%s and dtype %s",
                       SP_SHAPE(grad), sp_dtype_name(grad->dtype), SP_SHAPE(t),
                       sp_dtype_name(t->dtype));
    if (grad == t) return sp_fail(SP_EVALUE, "grad: a tensor cannot be its own gradient");
    sp_grad_meta *meta;
    SP_RETURN_IF(sp__meta(t, &meta));
    sp_tensor *old = meta->grad;
    meta->grad = sp__retain(grad);
    sp_drop(&old);
    return SP_OK;
}

sp_status sp__retain_grad(sp_tensor *t)
{
    if (!(t->flags & SP_T_REQUIRES_GRAD))
        return sp_fail(SP_EGRAD, "retain_grad: the tensor does not require grad");
    if (sp__is_leaf(t) || t->grad_meta->retain) return SP_OK;
    return sp__keeper_add(t->grad_meta);
}

sp_status sp__detach_(sp_tensor *t)
{
    sp_grad_meta *meta = t->grad_meta;
    if (!meta) return SP_OK;
    if (meta->base)
        return sp_fail(SP_EGRAD,
                       "detach_: the tensor is a view, whose base keeps its history; use detach()");
    sp__history_move(meta, NULL, 0);
    t->flags &= (uint8_t)~SP_T_REQUIRES_GRAD;
    return SP_OK;
}

void sp__history_clear(sp_tensor *t)
{
    sp_grad_meta *meta = t->grad_meta;
    if (!meta) return;
    sp__history_move(meta, NULL, 0);
    if (meta->leaf) sp__hooks_free(&meta->leaf->node);
    sp_drop(&meta->grad);
}

/* ---- nodes ----- */

sp_status sp__gradient_edge(const sp_tensor *t, sp_node **node, int *out_nr)
{
    sp_edge edge = {NULL, 0};
    sp_status status = sp__history(t, &edge);
    *node = edge.node, *out_nr = edge.nr;
    return status;
}

sp_status sp__grad_fn(const sp_tensor *t, sp_node **out)
{
    int nr;
    SP_RETURN_IF(sp__gradient_edge(t, out, &nr));
    if (*out && (*out)->kind == SP_NODE_LEAF) *out = NULL;
    return SP_OK;
}

/* "log_softmax" and "mul.scalar" become "LogSoftmaxBackward" and "MulBackward". */
static const char *backward_name(const char *op, char *buf, size_t n)
{
    size_t k = 0;
    bool upper = true;
    for (; *op && *op != '.' && k + 1 < n; op++) {
        if (*op == '_') {
            upper = true;
            continue;
        }
        buf[k++] = (char)(upper ? toupper((unsigned char)*op) : *op);
        upper = false;
    }
    snprintf(buf + k, n - k, "Backward");
    return buf;
}

const char *sp__node_op(const sp_node *node)
{
    if (node->kind == SP_NODE_LEAF) return "leaf";
    if (node->kind == SP_NODE_FUNCTION) return sp__function_name(node);
    if (node->kind == SP_NODE_SLICES) return sp__node_op(((const sp_slices *)node)->inner);
    return sp_op_table[node->op].name;
}

const char *sp__node_name(const sp_node *node, char *buf, size_t n)
{
    if (node->kind == SP_NODE_OP) return backward_name(sp_op_table[node->op].name, buf, n);
    if (node->kind == SP_NODE_FUNCTION) {
        snprintf(buf, n, "%.*sBackward", (int)n - (int)sizeof "Backward", sp__function_name(node));
        return buf;
    }
    snprintf(buf, n, "%s", node->kind == SP_NODE_LEAF ? "AccumulateGrad" : "CopySlices");
    return buf;
}

const char *sp__grad_fn_name(const sp_tensor *t, char *buf, size_t n)
{
    const sp_grad_meta *meta = t->grad_meta;
    buf[0] = '\0';
    if (!meta || sp__is_leaf(t)) return buf;
    if (sp__view_outdated(meta) && meta->steps)
        return backward_name(sp_op_table[meta->steps->op].name, buf, n);
    return sp__node_name(meta->node, buf, n);
}

const char *sp__node_in_name(const sp_node *node, int i)
{
    bool named = node->kind == SP_NODE_OP && sp_op_table[node->op].n_in >= 0;
    return named ? sp_op_table[node->op].in_names[i] : NULL;
}

uint64_t sp__node_seq(const sp_node *node)
{
    return node->seq;
}

int sp__node_num_edges(const sp_node *node)
{
    return node->n_in;
}

sp_node *sp__node_edge(const sp_node *node, int i, int *out_nr)
{
    *out_nr = node->edges[i].nr;
    return node->edges[i].node;
}

sp_tensor *sp__node_variable(const sp_node *node)
{
    return node->kind == SP_NODE_LEAF ? ((const sp_leaf *)node)->handle : NULL;
}

int sp__node_num_outputs(const sp_node *node)
{
    return node->n_out;
}

/* ---- registration ----- */

static sp_status record_below_levels(sp_call *c)
{
    return sp__record(c, NULL);
}

static sp_status view_made(sp_call *c)
{
    sp_status status = sp__view_note(c, NULL);
    if (status != SP_OK) sp__outs_drop(c);
    return status;
}

void sp__autograd_register(void)
{
    sp__dispatch_hooks.record = record_below_levels;
    sp__dispatch_hooks.view_made = view_made;
    sp__handle_hooks.meta_free = sp__meta_free;
}
