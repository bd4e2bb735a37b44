/* The tape as the binding sees it, beyond what spool.h has.
 *
 * All of this is guarded like handles: by the interpreter lock, or by the owner thread. Nodes are
 * borrowed from the handle or node that leads to them unless kept.
 */
#ifndef SP_AUTOGRAD_H
#define SP_AUTOGRAD_H

#include "autograd/tape.h"

/* Called once at library start: puts the tape into the dispatcher. */
void sp__autograd_register(void);

/* ---- histories ----- */

/* The node that made t, borrowed; NULL for leaves. A view of a tensor that was written in place
 * gets its new one here, which may fail. */
SP_MUST_USE sp_status sp__grad_fn(const sp_tensor *t, sp_node **out);
/* "MulBackward" for t's node into buf; "" for leaves. Never fails: an outdated view is named after
 * its last call. */
const char *sp__grad_fn_name(const sp_tensor *t, char *buf, size_t n);
#define SP_GRAD_FN_TEXT 64
bool sp__is_leaf(const sp_tensor *t);

/* ---- nodes ----- */

/* "MulBackward", "AccumulateGrad" or "CopySlices" into buf, which is returned. */
const char *sp__node_name(const sp_node *node, char *buf, size_t n);
/* The op's own name, "mul". */
const char *sp__node_op(const sp_node *node);
uint64_t sp__node_seq(const sp_node *node);
int sp__node_num_edges(const sp_node *node);
/* Edge i's node, borrowed, and which of its outputs; NULL: no gradient goes there. */
sp_node *sp__node_edge(const sp_node *node, int i, int *out_nr);
/* The leaf that an AccumulateGrad node belongs to, borrowed; NULL for others. */
sp_tensor *sp__node_variable(const sp_node *node);
/* One more reference, and one less. */
sp_node *sp__node_retain(sp_node *node);
void sp__node_drop(sp_node **node);

/* ---- gradients of inner tensors, hooks ----- */

/* From the next backward on, t->grad holds t's gradient though t is no leaf. EGRAD: t does not
 * require grad. */
SP_MUST_USE sp_status sp__retain_grad(sp_tensor *t);
/* Like sp_hook_add(), for leaves: fn runs after a backward has added to t's gradient, and is given
 * t itself. */
SP_MUST_USE sp_status sp__hook_add_after(sp_tensor *t, sp_hook_fn fn, void *ctx,
                                         void (*drop)(void *ctx), int64_t *id);
/* Shows the ctx of every hook that lives and dies with t: for a garbage collector's traversal. */
void sp__hooks_each(const sp_tensor *t, void (*see)(void *arg, void *ctx), void *arg);
/* Makes t a leaf without history, in place. EGRAD: a view, whose base would keep its history. */
SP_MUST_USE sp_status sp__detach_(sp_tensor *t);
/* Lets go of history, gradient and hooks: what a garbage collector does to break rings. */
void sp__history_clear(sp_tensor *t);

#endif
