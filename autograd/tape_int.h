/* Nodes, histories and views from the inside.
 *
 *     handle --> sp_grad_meta --> node (out_nr) --edges--> nodes --> ... --> a leaf's node
 *                     |
 *                     +-- base, steps      a view: whose view, and the calls that lead there
 *
 * Invariants
 * 1. A node is one block: header, edges, saved values, attributes, geometry of inputs and outputs.
 * 2. A leaf's node belongs to its handle: keeping the node alive means keeping the handle alive,
 * and its own count is unused. Its sequence number is 0.
 * 3. An edge with node NULL leads to an input that needs no gradient.
 * 4. A node's tasks are the backward runs that currently have gradients for it; normally none or
 * one.
 * 5. A view's history is that of its steps replayed on the base. `seen` tells which of the base's
 * histories it was derived from; when it differs from the base's `rebased` it is derived again at
 * the next look (sp__history).
 * 6. A saved handle with a meta that is no leaf lists the node in `savers`, so that giving the
 * handle a new history can let go of values that have become useless: otherwise handle -> node ->
 * saved handle would be a ring.
 */
#ifndef SP_TAPE_INT_H
#define SP_TAPE_INT_H

#include "autograd/autograd.h"
#include "autograd/tape.h"
#include "ops/dispatch.h"
#include "ops/write.h"
#include "ops_gen.h"
#include "tensor/memory.h"

typedef enum sp_node_kind {
    SP_NODE_OP,
    SP_NODE_LEAF,
    SP_NODE_SLICES,
    SP_NODE_FUNCTION /* a custom function: function_int.h */
} sp_node_kind;

enum {                        /* sp_node.flags */
       SP_NODE_RELEASED = 1,  /* ran without retain_graph: saved values are gone */
       SP_NODE_INPLACE = 2,   /* edge 0 leads to what the written tensor was before */
       SP_NODE_ELSEWHERE = 4, /* a leaf's or an object's: references are counted there */
       SP_NODE_HOOKED = 8,    /* has hooks that run before or after its vjp */
       SP_NODE_PART = 16      /* the inner one of `slices` */
};

typedef enum sp_hook_kind {                 /* in the order in which they run */
                            SP_HOOK_GRAD,   /* of a tensor: sees the gradient of output out_nr, may
                                               replace it */
                            SP_HOOK_KEEP,   /* keeps that gradient in keeper->grad */
                            SP_HOOK_BEFORE, /* of a node: sees the gradients of its outputs before
                                               its vjp */
                            SP_HOOK_ADDED,  /* of a leaf: its gradient has been accumulated */
                            SP_HOOK_AFTER /* of a node: also those of its inputs, which the vjp made
                                           */
} sp_hook_kind;

/* One hook; owned by the node that it listens to. */
struct sp_hook {
    sp_hook *next;
    sp_node *node; /* borrowed; NULL once it was taken off, or the node is gone */
    int64_t id;
    uint8_t kind;
    int32_t refs, holders;
    int32_t out_nr;
    sp_hook_fn fn;           /* GRAD, ADDED */
    sp_node_hook_fn node_fn; /* BEFORE, AFTER */
    void *ctx;
    void (*drop)(void *ctx);
    struct sp_grad_meta *keeper; /* KEEP: borrowed; NULL once that handle is gone */
};

/* What only few nodes have, made when it is first needed. */
typedef struct sp_attached {
    void *object; /* the binding's, borrowed. Of all nodes but leaves: it owns the node, and its
                     first word counts the node's references */
    sp__where where, cause; /* anomaly mode: the line that recorded the node; within a backward,
                               that of the node whose vjp recorded it */
} sp_attached;

/* sp_saved.index of what is neither input nor output. */
enum {
    SP_SAVED_CONSTANT = INT16_MAX - 1, /* nothing differentiable */
    SP_SAVED_INNER = INT16_MAX         /* computed on the way, without history */
};

typedef struct sp_packed sp_packed;

typedef struct sp_saved {
    sp_tensor *t; /* owned; NULL: released, stale or packed */
    union {
        struct sp_saved *next; /* among those that saved the same handle */
        sp_packed *packed;     /* owned, if is_packed */
        sp_write *write;       /* owned, if stale: what made it so; NULL: that is not known */
    };
    struct sp_saved **slot;
    uint32_t version;
    uint32_t stale_version; /* what the version had become when `stale` was set */
    int16_t index;          /* input, or -1 - output */
    bool stale, is_packed;
    bool write_is_next; /* stale: `write` overwrote the very version that was saved */
} sp_saved;

typedef struct sp_slot { /* the gradient of one output of a node, so far */
    sp_tensor *g;        /* owned; NULL: zero */
    bool shared;         /* a hook saw it, and may have kept its bytes under another handle */
} sp_slot;

struct sp_task;

struct sp_node {
    uint64_t seq;
    int64_t refs;
    uint8_t kind, flags, n_out, n_attr;
    uint16_t op;
    uint16_t n_saved;
    int32_t n_in;
    uint32_t bytes;
    sp_edge *edges;
    sp_saved *saved;
    sp_attr *attr;
    int64_t *geometry;     /* of every input, then of every output: see pack_geometry() in tape.c */
    sp_hook *hooks;        /* in the order in which they were added */
    sp_attached *attached; /* owned; NULL: nothing */
    union {
        struct sp_task *tasks;
        sp_node *next_dead;       /* of a node that nobody refers to any more */
        struct sp_slices *slices; /* PART, which no edge leads to: whose; borrowed */
    };
};

typedef struct sp_leaf {
    sp_node node;
    sp_tensor *handle; /* borrowed: its meta owns this */
} sp_leaf;

/* Writing to a view, seen from the base: `inner` acts on the part of the base that the steps lead
 * to. */
typedef struct sp_slices {
    sp_node node; /* edge `written`: the base before; the others: inner's other inputs */
    sp_node *inner;
    struct sp_step *steps;
    int written;     /* inner's input that is the view; of ops 0 */
    sp_tensor *base; /* owned: the base without history, if inner saves its output */
} sp_slices;

/* One call that made a view of its input; shared by all views made further on. */
typedef struct sp_step {
    struct sp_step *before; /* owned; NULL: the input was the base */
    int32_t refs;
    int32_t depth; /* number of steps up to and with this one */
    uint16_t op;
    uint8_t n_attr;
    sp_attr attr[];
} sp_step;

typedef struct sp_grad_meta {
    sp_tensor *self; /* borrowed: the handle this belongs to */
    sp_node *node;   /* owned; NULL: a leaf, or a view whose history is derived at the next look */
    int32_t out_nr;
    bool retain;       /* keep the gradient of this inner tensor in grad */
    bool view_no_grad; /* the view was made while grad mode was off */
    bool foreign; /* a view, made at a level, of a tensor from outside of it: not to be written with
                     derivatives */
    bool by_function; /* a view that a custom function returned, or one of that: its history is the
                         function's, so neither it nor its base may be written with derivatives */
    sp_leaf *leaf;    /* owned; leaves that require grad, or have hooks */
    sp_tensor *grad;  /* owned */
    sp_saved *savers;

    sp_tensor *base; /* owned; of a view */
    sp_step *steps;  /* owned; of a view; NULL if view_no_grad or by_function: these never get a
                        history from their base */
    uint32_t seen;
    uint32_t rebased; /* of a base: how many histories it has had through in-place writes */
    struct sp_grad_meta *views; /* of a base: its live views */
    struct sp_grad_meta *next_view, **view_slot;
} sp_grad_meta;

/* ---- tape.c ----- */

/* A node for c, whose out[] exist (in place: out[0] is in[0], not written yet). `save` replaces
 * in[] where values are saved (NULL: in[] itself). need: inputs that want a gradient; their edges
 * are taken here. One reference for the caller. */
SP_MUST_USE sp_status sp__node_new(const sp_call *c, uint64_t need, sp_tensor *const *save,
                                   sp_node **out);
/* A leaf or slices node, whose header takes `header` bytes: no op, nothing saved; result (may be
 * NULL) is its output. */
SP_MUST_USE sp_status sp__node_bare(sp_node_kind kind, size_t header, int n_in,
                                    const sp_tensor *result, sp_node **out);
/* A node of that kind over in[] (NULL: unknown) and out[], with room for n_saved values and nothing
 * else: edges, number and saved values are the caller's to put in. */
SP_MUST_USE sp_status sp__node_over(sp_node_kind kind, size_t header, sp_tensor *const *in,
                                    int n_in, sp_tensor *const *out, int n_out, int n_saved,
                                    sp_node **node);
/* Saves t, input `index` or output -1 - index, where there is room for it. */
SP_MUST_USE sp_status sp__node_save(sp_node *node, sp_tensor *t, int index);
/* EGRAD: the values that node saved are gone, or s is not what it was when it was saved. */
SP_MUST_USE sp_status sp__saved_there(const sp_node *node);
SP_MUST_USE sp_status sp__saved_check(const sp_node *node, const sp_saved *s);
/* "input 0", into buf, which is returned. */
enum { SP_SAVED_NAME = 24 };
const char *sp__saved_name(const sp_node *node, const sp_saved *s, char buf[SP_SAVED_NAME]);
/* What output i was saved as, with its history back: an alias of s->t. */
SP_MUST_USE sp_status sp__saved_output(sp_node *node, const sp_saved *s, sp_tensor **out);
/* Which inputs' values a node for c saves. */
uint64_t sp__node_saves_in(const sp_call *c, uint64_t need);
/* An in-place node's output has its new value. On failure it is saved as it is. */
SP_MUST_USE sp_status sp__node_outputs_written(sp_node *node);
/* Notes what modes ask of a node that has all its parts. */
SP_MUST_USE sp_status sp__node_recorded(sp_node *node);
void sp__node_number(sp_node *node);
/* Runs the op's vjp formulas, conjugated where the op is holomorphic and something complex. */
SP_MUST_USE sp_status sp__vjp(int op, const sp_vjp_args *args);
/* Runs the node's vjp: gy[n_out], gx[n_in] zeroed by the caller. */
SP_MUST_USE sp_status sp__node_vjp(sp_node *node, sp_tensor *const *gy, uint64_t need,
                                   sp_tensor **gx);
void sp__node_release(sp_node *node);
/* Nobody refers to the node any more. */
void sp__node_die(sp_node *node);
/* Geometry of input i and of output i, as the node saw them. */
void sp__node_in_meta(const sp_node *node, int i, sp_meta *out);
void sp__node_out_meta(const sp_node *node, int i, sp_meta *out);
/* Whether g has the shape and dtype of that output. */
bool sp__node_out_fits(const sp_node *node, int i, const sp_tensor *g);
/* Lets go of what nodes saved of meta's handle, and makes them fail if they are run. */
void sp__saved_stale(sp_grad_meta *meta);

/* Where references to a node are counted that is ELSEWHERE. */
static inline int64_t *sp__node_count(const sp_node *node)
{
    if (node->kind == SP_NODE_LEAF) return &((const sp_leaf *)node)->handle->refs;
    return node->attached->object;
}
static inline sp_node *sp__node_keep(sp_node *node)
{
    if (SP_LIKELY(!(node->flags & SP_NODE_ELSEWHERE)))
        node->refs++;
    else
        ++*sp__node_count(node);
    return node;
}
void sp__node_let_go(sp_node *node);

/* ---- objects.c ----- */

/* What is attached to the node, made if nothing was. */
SP_MUST_USE sp_status sp__attached(sp_node *node, sp_attached **out);
void sp__attached_free(sp_node *node);

/* ---- packed.c ----- */

/* Whether what is saved in this thread is packed. */
static inline bool sp__packs(void)
{
    return SP_UNLIKELY(sp__tls.autograd != NULL);
}
/* Packs t as what s, whose index is set, stands for. */
SP_MUST_USE sp_status sp__pack(sp_saved *s, const sp_tensor *t);
SP_MUST_USE sp_status sp__unpack(sp_node *node, const sp_saved *s, sp_tensor **out);
void sp__packed_free(sp_packed *packed);
void sp__packed_each(const sp_packed *packed, void (*see)(void *arg, void *object), void *arg);
/* The node that the packed value's gradient goes to, of which it has a reference; or NULL. */
sp_node *sp__packed_leads_to(const sp_packed *packed);

/* ---- anomaly.c ----- */

extern _Atomic uint8_t sp__anomaly; /* SP_ANOMALY_... */
/* Remembers the user's line. */
SP_MUST_USE sp_status sp__anomaly_note(sp_node *node);
void sp__anomaly_forget(sp_attached *attached);
/* The error that is under way, of running node, with its line. */
sp_status sp__anomaly_failed(const sp_node *node, sp_status status);
/* sp__node_vjp(), whose results are looked at. */
SP_MUST_USE sp_status sp__anomaly_vjp(sp_node *node, sp_tensor *const *gy, uint64_t need,
                                      sp_tensor **gx);
static inline bool sp__anomaly_on(void)
{
    return SP_UNLIKELY(atomic_load_explicit(&sp__anomaly, memory_order_relaxed) != 0);
}

/* ---- meta.c ----- */

/* t's meta, made if there is none. */
SP_MUST_USE sp_status sp__meta(sp_tensor *t, sp_grad_meta **out);
SP_MUST_USE sp_status sp__meta_leaf(sp_tensor *t, sp_leaf **out);
/* Makes output out_nr of node t's history; keeps a reference to node. */
SP_MUST_USE sp_status sp__history_set(sp_tensor *t, sp_node *node, int out_nr);
/* The same where a meta exists: cannot fail. */
void sp__history_move(sp_grad_meta *meta, sp_node *node, int out_nr);
/* Where t's gradient goes, derived again if t is a view whose base has moved on. *out keeps no
 * reference. */
SP_MUST_USE sp_status sp__history(const sp_tensor *t, sp_edge *out);
/* A second handle of t's value (wrapped like t), without history. */
SP_MUST_USE sp_status sp__value_alias(const sp_tensor *t, sp_tensor **out);
void sp__meta_free(sp_grad_meta *meta);

/* A view whose base got a new history since the view's own was derived. Views made under no_grad
 * stay constants. */
static inline bool sp__view_outdated(const sp_grad_meta *meta)
{
    return meta->base && meta->seen != meta->base->grad_meta->rebased && !meta->view_no_grad;
}

static inline sp_storage *sp__storage_of(const sp_tensor *t)
{
    while (t->wrap) t = t->wrap->inner;
    return t->storage;
}

static inline uint32_t sp__version_of(const sp_tensor *t)
{
    return sp__storage_of(t)->version;
}

/* Whether values of the dtype have gradients. */
static inline bool sp__is_float(int dtype)
{
    return sp__dtype_is_inexact(dtype);
}

/* ---- views.c ----- */

/* c made out[0] at level: if that is a differentiable view of in[0], notes base and steps at it. */
SP_MUST_USE sp_status sp__view_note(const sp_call *c, const sp_level *level);
/* The steps run on t, through sp__dispatch. made receives every result, steps->depth of them, the
 * last being the view. */
SP_MUST_USE sp_status sp__steps_apply(const sp_step *steps, const sp_tensor *t, sp_tensor **made);
SP_MUST_USE sp_status sp__steps_view(const sp_step *steps, const sp_tensor *t, sp_tensor **out);
/* t, or a copy of it, such that the steps, which fit the base, fit it as well. */
SP_MUST_USE sp_status sp__steps_operand(const sp_step *steps, const sp_tensor *t, sp_tensor **out);
/* base with the part that the steps lead to replaced by `part` (NULL: zero). A new tensor, made by
 * differentiable ops where anything could record or transform them. */
SP_MUST_USE sp_status sp__steps_replace(const sp_step *steps, const sp_tensor *base,
                                        const sp_tensor *part, sp_tensor **out);
sp_step *sp__step_keep(sp_step *step);
void sp__step_drop(sp_step *step);
/* view, which a custom function returned, shares bytes with `of`: from now on it is known as a view
 * of that, and keeps the history it is given. */
SP_MUST_USE sp_status sp__view_by_function(sp_tensor *view, sp_tensor *of);
/* EGRAD where a tensor that meta belongs to, by_function, is used in a way that would need the
 * steps. */
sp_status sp__view_is_final(const char *op);
/* The history of a view, derived anew from its base's. */
SP_MUST_USE sp_status sp__view_derive(sp_grad_meta *meta);

/* ---- record.c ----- */

/* Runs c at `level` (NULL: the tape below all levels) and records it there. */
SP_MUST_USE sp_status sp__record(sp_call *c, sp_level *level);
/* Runs c one level down (NULL: sp__eval) without recording at `level`. */
SP_MUST_USE sp_status sp__record_run(sp_call *c, sp_level *level);
/* Whether t asks for gradients at this level. */
static inline bool sp__wants_grad(const sp_tensor *t, const sp_level *level)
{
    return t && (t->flags & SP_T_REQUIRES_GRAD) &&
           (level ? t->wrap && t->wrap->level_id == level->id : !t->wrap);
}
void sp__outs_drop(sp_call *c);

/* ---- inplace.c ----- */

/* EGRAD: x must not be written by `op` with derivatives at that level. */
SP_MUST_USE sp_status sp__write_check(const char *op, const sp_tensor *x, const sp_level *level);
/* x was written by node, whose input `written` and output out_nr it is: gives it, or what it is a
 * view of, its new history. */
SP_MUST_USE sp_status sp__written_by(sp_tensor *x, sp_node *node, int written, int out_nr);

/* A base's values were replaced: its live views lose the history they had, and from now on ask for
 * gradients. */
void sp__views_follow(sp_grad_meta *base);

/* Runs and records a call with SP_CALL_INPLACE or SP_CALL_OUT. */
SP_MUST_USE sp_status sp__record_write(sp_call *c, sp_level *level, uint64_t need);
SP_MUST_USE sp_status sp__slices_vjp(sp_slices *node, sp_tensor *gy, uint64_t need, sp_tensor **gx);
/* What inner made, with its history: the part that the steps show of what the base became. */
SP_MUST_USE sp_status sp__slices_part(sp_slices *node, sp_tensor **out);

/* ---- hooks.c ----- */

extern _Atomic int64_t sp__leaf_hooks; /* how many there are at leaves, in the process */

/* The hooks of tensors, and those that keep gradients, on the gradients of a node's outputs, owned
 * references that they may replace; marks those that a hook saw as shared. */
SP_MUST_USE sp_status sp__hooks_run_grads(sp_node *node, sp_slot *slots);
/* The node's own, before its vjp or accumulation: on the same. */
SP_MUST_USE sp_status sp__hooks_run_before(sp_node *node, sp_slot *slots);
/* Those that wait for a leaf's accumulated gradient. */
SP_MUST_USE sp_status sp__hooks_run_added(sp_leaf *leaf);
/* The node's own, after its vjp: on gx[n_in], owned references that they may replace. */
SP_MUST_USE sp_status sp__hooks_run_after(sp_node *node, sp_tensor *const *gy, sp_tensor **gx,
                                          int n_in);
void sp__hooks_free(sp_node *node);
/* The entry that keeps the gradient for meta goes from meta's old node to the new one, or away
 * (node NULL). */
SP_MUST_USE sp_status sp__keeper_add(sp_grad_meta *meta);
void sp__keeper_move(sp_grad_meta *meta, sp_node *from, sp_node *to, int out_nr);

/* ---- mode.c ----- */

/* Grad mode and top of stack for work that belongs to t's own level, and back. EGRAD: t's level is
 * gone. */
typedef struct sp_context {
    sp_level *top;
    bool no_grad;
} sp_context;
SP_MUST_USE sp_status sp__context_enter(const sp_tensor *t, sp_context *was);
void sp__context_leave(const sp_context *was);

#endif
