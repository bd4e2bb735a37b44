/* Anomaly mode: nodes remember the user's line that recorded them, and an error in a vjp, or a NaN
 * that comes out of one, names it.
 *
 * The mode is the process's. Without it a node costs one look at sp__anomaly when it is made and
 * one when it is run.
 */
#include "autograd/tape_int.h"

#include <stdio.h>
#include <string.h>

_Atomic uint8_t sp__anomaly;

static __thread const sp_node *running; /* in anomaly mode: whose vjp this is */

/* ---- lines ----- */

static void where_copy(const sp__where *from, sp__where *to)
{
    *to = *from;
    if (to->code && sp__where_hooks.keep) sp__where_hooks.keep(to);
}

static void where_drop(sp__where *where)
{
    if (where->code && sp__where_hooks.drop) sp__where_hooks.drop(where);
}

sp_status sp__anomaly_note(sp_node *node)
{
    sp_attached *attached;
    if (!sp__where_hooks.here) return SP_OK;
    SP_RETURN_IF(sp__attached(node, &attached));
    sp__where_hooks.here(&attached->where);
    if (running && running->attached) where_copy(&running->attached->where, &attached->cause);
    return SP_OK;
}

void sp__anomaly_forget(sp_attached *attached)
{
    where_drop(&attached->where);
    where_drop(&attached->cause);
}

/* "train.py:12 in step", as far as that is known. */
static size_t where_text(const sp__where *where, char *buf, size_t n)
{
    if (!where->code || !sp__where_hooks.text) return 0;
    sp__where_hooks.text(where, buf, n);
    size_t at = strlen(buf);
    if (at + sizeof " in " >= n || !sp__where_hooks.function) return at;
    memcpy(buf + at, " in ", sizeof " in ");
    sp__where_hooks.function(where, buf + at + 4, n - at - 4);
    if (!buf[at + 4]) buf[at] = 0;
    return strlen(buf);
}

const char *sp__node_line(const sp_node *node, char *buf, size_t n)
{
    buf[0] = 0;
    if (node->kind == SP_NODE_SLICES)
        return sp__node_line(((const sp_slices *)node)->inner, buf, n);
    if (!node->attached) return buf;
    size_t at = where_text(&node->attached->where, buf, n);
    static const char because[] = ", in the backward of what was recorded at ";
    if (!node->attached->cause.code || at + sizeof because >= n) return buf;
    memcpy(buf + at, because, sizeof because);
    where_text(&node->attached->cause, buf + at + sizeof because - 1, n - at - sizeof because + 1);
    return buf;
}

/* ---- running ----- */

static const char *recorded_at(const sp_node *node, char *buf, size_t n)
{
    sp__node_line(node, buf, n);
    if (!buf[0]) snprintf(buf, n, "before anomaly mode was on");
    return buf;
}
#define RECORDED_AT(node) recorded_at(node, (char[SP_NODE_LINE_TEXT]){0}, SP_NODE_LINE_TEXT)

/* A wrapped value has its numbers at the bottom, where neither levels nor the tape see this. */
static sp_status has_nan(const sp_tensor *t, bool *out)
{
    sp_tensor *differs = NULL, *any = NULL;
    sp_scalar answer = {0};
    sp_status status = SP_OK;
    sp_context was = {sp__tls.top, sp__tls.no_grad};
    while (t->wrap) t = t->wrap->inner;
    sp__tls.top = NULL, sp__tls.no_grad = true;
    SP_TRY(sp_ne(t, t, &differs));
    SP_TRY(sp_any(differs, NULL, &any));
    SP_TRY(sp_item(any, &answer));
out:
    sp__context_leave(&was);
    sp_drop(&differs), sp_drop(&any);
    *out = answer.v.i != 0;
    return status;
}

static sp_status check_nan(const sp_node *node, sp_tensor *const *gx)
{
    for (int i = 0; i < node->n_in; i++) {
        bool nan = false;
        if (!gx[i] || !sp__is_float(gx[i]->dtype)) continue;
        SP_RETURN_IF(has_nan(gx[i], &nan));
        if (nan)
            return sp_fail(SP_EGRAD, "backward: %s yields NaN for the gradient of its input %d",
                           sp__node_op(node), i);
    }
    return SP_OK;
}

sp_status sp__anomaly_failed(const sp_node *node, sp_status status)
{
    char text[512];
    snprintf(text, sizeof text, "%s", sp_last_error());
    return sp_fail(status, "%s; %s was recorded at %s", text, sp__node_op(node), RECORDED_AT(node));
}

sp_status sp__anomaly_vjp(sp_node *node, sp_tensor *const *gy, uint64_t need, sp_tensor **gx)
{
    const sp_node *outer = running;
    running = node;
    sp_status status = sp__node_vjp(node, gy, need, gx);
    running = outer;
    return status == SP_OK && sp__anomaly & SP_ANOMALY_NAN ? check_nan(node, gx) : status;
}

uint8_t sp__anomaly_mode(uint8_t mode)
{
    return atomic_exchange(&sp__anomaly, mode);
}

bool sp__anomaly_is_on(void)
{
    return sp__anomaly_on();
}
