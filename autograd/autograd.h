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
/* The node that t's gradient arrives at, borrowed, and as which output; NULL: t does not require
 * grad. */
SP_MUST_USE sp_status sp__gradient_edge(const sp_tensor *t, sp_node **node, int *out_nr);
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
/* What the op calls input i; NULL: it has no name of its own. */
const char *sp__node_in_name(const sp_node *node, int i);
uint64_t sp__node_seq(const sp_node *node);
int sp__node_num_edges(const sp_node *node);
/* Edge i's node, borrowed, and which of its outputs; NULL: no gradient goes there. */
sp_node *sp__node_edge(const sp_node *node, int i, int *out_nr);
/* A tensor whose gradient arrives at output nr of the node: its leaf, or one that has geometry and
 * history but no value. */
SP_MUST_USE sp_status sp__edge_tensor(sp_node *node, int nr, sp_tensor **out);
/* The leaf that an AccumulateGrad node belongs to, borrowed; NULL for others. */
sp_tensor *sp__node_variable(const sp_node *node);
/* Geometry of what the op yielded. */
int sp__node_num_outputs(const sp_node *node);
void sp__node_out_meta(const sp_node *node, int i, sp_meta *out);
/* Saved value k, as the formulas are given it: EGRAD when it is gone or was changed. *index tells
 * of which input it is, or -1 - output. */
int sp__node_num_saved(const sp_node *node);
int sp__node_saved_index(const sp_node *node, int k);
SP_MUST_USE sp_status sp__node_saved(sp_node *node, int k, sp_tensor **out);

/* ---- saved values in the user's form ----- */

typedef struct sp_pack_hooks {
    /* t's value; *object: a new reference to what stands for it. Grad mode is off. */
    sp_status (*pack)(void *ctx, const sp_tensor *t, void **object);
    sp_status (*unpack)(void *ctx, void *object, sp_tensor **out);
    void (*keep)(void *ctx_or_object);
    void (*drop)(void *ctx_or_object);
} sp_pack_hooks;
/* From now on what this thread's nodes save is packed. EGRAD: that is disabled. */
SP_MUST_USE sp_status sp__pack_push(const sp_pack_hooks *hooks, void *ctx);
void sp__pack_pop(void);
/* Makes pushing fail with this text (NULL: lets it succeed) in this thread until it is restored.
 * EGRAD: hooks are set now. */
SP_MUST_USE sp_status sp__pack_disable(const char *why, char **was);
void sp__pack_restore(char *was);

/* ---- anomaly mode ----- */

enum {
    SP_ANOMALY_ON = 1, /* nodes remember the line that records them, and errors name it */
    SP_ANOMALY_NAN = 2 /* a NaN from a vjp is such an error */
};
/* Sets the process's mode; returns what it was. */
uint8_t sp__anomaly_mode(uint8_t mode);
bool sp__anomaly_is_on(void);
/* "train.py:12 in step" into buf, which is returned; "" when nobody has noted the line. */
const char *sp__node_line(const sp_node *node, char *buf, size_t n);
#define SP_NODE_LINE_TEXT 384

/* ---- gradients of inner tensors, hooks ----- */

/* From the next backward on, t->grad holds t's gradient though t is no leaf. EGRAD: t does not
 * require grad. */
SP_MUST_USE sp_status sp__retain_grad(sp_tensor *t);
/* Like sp_backward(), for the sum of several roots, weighed by `given` (may have NULL entries). */
SP_MUST_USE sp_status sp__backward(const sp_tensor *const *roots, const sp_tensor *const *given,
                                   int n_roots, const sp_backward_opt *opt);
/* Adds a hook to t; `added`: one for leaves, which runs after a backward has added to t's gradient
 * and is given t itself. *out (may be NULL) is a hold on it. */
typedef struct sp_hook sp_hook;
SP_MUST_USE sp_status sp__hook_add(sp_tensor *t, bool added, sp_hook_fn fn, void *ctx,
                                   void (*drop)(void *ctx), sp_hook **out);
/* Takes the hook off, wherever it has moved to. Does nothing again, or when its node is gone. */
void sp__hook_remove(sp_hook *hook);
void sp__hook_let_go(sp_hook **hook);

/* What a node's hook sees. Entries are NULL for no gradient. */
typedef struct sp_node_grads {
    sp_tensor *const *gx; /* of the op's inputs; NULL before the vjp */
    sp_tensor *const *gy; /* of its outputs */
    int32_t n_in, n_out;
} sp_node_grads;
/* Setting *any makes replaced[], new references or NULL, take the place of gx; of gy before the
 * vjp. */
typedef sp_status (*sp_node_hook_fn)(void *ctx, const sp_node_grads *g, sp_tensor **replaced,
                                     bool *any);
SP_MUST_USE sp_status sp__node_hook_add(sp_node *node, bool before, sp_node_hook_fn fn, void *ctx,
                                        void (*drop)(void *ctx), sp_hook **out);

/* ---- from within a backward ----- */

/* Of the innermost backward that this thread is in; never reused. 0: it is in none. */
uint64_t sp__backward_id(void);
/* Which of these nodes it will still come to, the one that it is at included. */
SP_MUST_USE sp_status sp__backward_reaches(sp_node *const *nodes, int n, bool *reached);
/* fn(ctx) runs when all nodes have; it does not if one fails. EGRAD: no backward is under way. */
SP_MUST_USE sp_status sp__backward_at_end(sp_status (*fn)(void *ctx), void *ctx,
                                          void (*drop)(void *ctx));

/* ---- a garbage collector's view ----- */

/* The objects of a binding: set once, before any is there. */
typedef struct sp_node_hooks {
    void (*dealloc)(void *object);    /* a node's object is referred to by nobody */
    void (*drop)(void *ctx);          /* of a hook whose ctx is an object */
    void (*kept_drop)(void *data);    /* of what a custom function keeps, where that is an object */
    sp_status (*bind)(sp_node *node); /* the node is to have an object, for it packs values */
} sp_node_hooks;
extern sp_node_hooks sp__node_hooks;

/* The node that t refers to, as it is now: unlike sp__grad_fn(), derives nothing anew. */
sp_node *sp__history_node(const sp_tensor *t);
/* The node's object, borrowed; NULL: it has none. */
void *sp__node_object(const sp_node *node);
/* Makes object the node's: from then on the object owns the node, and object's first word, which is
 * set here, counts the references to it; the caller gets one. A leaf is its handle's own: its
 * object is only noted, and should keep the handle. */
SP_MUST_USE sp_status sp__node_bind(sp_node *node, void *object);
/* The object is going: so does the node, unless it is a leaf. */
void sp__node_unbind(sp_node *node);
/* Shows every object that t, or a node, owns a reference to: handles, nodes' objects and what their
 * hooks keep. */
void sp__history_each(const sp_tensor *t, void (*see)(void *arg, void *object), void *arg);
void sp__node_each(const sp_node *node, void (*see)(void *arg, void *object), void *arg);
/* Takes off what could close a ring. */
void sp__node_clear(sp_node *node);
/* ---- letting go ----- */

/* Makes t a leaf without history, in place. EGRAD: a view, whose base would keep its history. */
SP_MUST_USE sp_status sp__detach_(sp_tensor *t);
/* Lets go of history, gradient and hooks: what a garbage collector does to break rings. */
void sp__history_clear(sp_tensor *t);

#endif
