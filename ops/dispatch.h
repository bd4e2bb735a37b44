/* The one way a call takes: levels, tape, tracer, launch.
 *
 *     sp__dispatch   top level of the thread's stack, if any   (jvp, vmap, nested grad: autograd/)
 *                    else the tape, if an input requires grad  (autograd/, sp__dispatch_hooks)
 *     sp__eval       the thread's tracer, if any               (jit/, through sp_tls.tracer)
 *     sp__run        infer, allocate, launch                   (ops/run.c)
 *
 * Invariants
 * 1. Layers above register themselves; nothing here includes them.
 * 2. A level handles a call with itself taken off the stack (sp_tls.top = level->below);
 *    sp__dispatch() takes it off and puts it back.
 * 3. sp__run() bumps the version of what it writes in place; recorders compare versions, never
 *    addresses.
 */
#ifndef SP_DISPATCH_H
#define SP_DISPATCH_H

#include "ops/op.h"

typedef enum sp_level_kind {
    SP_LEVEL_JVP,
    SP_LEVEL_VMAP,
    SP_LEVEL_GRAD,
    SP_LEVEL_JET,
    SP_LEVEL_AUTOCAST /* no transform: ops/autocast.h */
} sp_level_kind;

typedef struct sp_level {
    struct sp_level *below;
    uint64_t id; /* never reused, so that a handle that outlived its level is told apart */
    uint8_t kind;
    bool outer_grad_mode; /* GRAD: the thread's grad mode when the level was pushed */
    int64_t batch_size;   /* VMAP */
    sp_status (*dispatch)(struct sp_level *self, sp_call *c);
} sp_level;

/* What a wrapped handle stands for at its level. */
typedef struct sp_wrap {
    uint64_t level_id;
    uint8_t kind;
    bool batched;     /* VMAP: inner has the mapped dimension at 0; else it is the same for all */
    uint8_t order;    /* JVP: 1; JET: how many Taylor coefficients follow the value; else 0 */
    sp_tensor *inner; /* the value one level down; owned */
    sp_tensor *tangent[]; /* the `order` coefficients; owned; NULL: zero */
} sp_wrap;

typedef struct sp_tracer { /* replaces evaluation at the bottom */
    sp_status (*eval)(struct sp_tracer *self, sp_call *c);
    /* Whether n calls (c->in holds the inputs of one after the other) may run as one launch, which
     * it takes note of; otherwise they come to eval one by one. NULL: they always do. */
    bool (*each)(struct sp_tracer *self, const sp_call *c, int n);
} sp_tracer;

typedef struct sp_tls {
    sp_level *top;
    sp_tracer *tracer;
    bool no_grad;   /* grad mode off; false by default so that a zeroed block is right */
    bool in_hot;    /* jit/: hot-region detection is on for this thread */
    void *autograd; /* autograd/'s own per-thread state */
} sp_tls;

extern __thread sp_tls sp__tls __attribute__((tls_model("initial-exec")));

/* The topmost level but for autocast's, which stand above all others. */
static inline sp_level *sp__top_transform(void)
{
    sp_level *level = sp__tls.top;
    while (level && level->kind == SP_LEVEL_AUTOCAST) level = level->below;
    return level;
}

typedef struct sp_dispatch_hooks {
    /* Runs c through sp__eval() and records it on the level-0 tape. Called when an input
     * requires grad and grad mode is on, and for in-place writes to tensors with history or
     * hooks. */
    sp_status (*record)(sp_call *c);
    /* A view was made by an op that is not recorded: autograd/ notes base and recipe so that
     * later in-place writes rebase history. NULL: nothing to do. */
    sp_status (*view_made)(sp_call *c);
} sp_dispatch_hooks;
extern sp_dispatch_hooks sp__dispatch_hooks;

SP_MUST_USE sp_status sp__dispatch(sp_call *c);
SP_MUST_USE sp_status sp__eval(sp_call *c);

/* n calls of an op that updates (SP_OPF_UPDATES), each in place: c->in holds the inputs of the
 * first, of the second and so on, c->n_in is how many one has; c->out and flags do not count. One
 * launch where nothing forbids it, with the bits of the calls made one after the other (each.c).
 * What is wrong with any of them is found before one is made. */
SP_MUST_USE sp_status sp__dispatch_each(sp_call *c, int n);
SP_MUST_USE sp_status sp__run(sp_call *c);

/* The value of a tensor must be visible on the host now: flush the region it is deferred in,
 * wait for its pending writer. `op` names the reader in errors, such as that a wrapped handle
 * has no value. */
SP_MUST_USE sp_status sp__value_ready(const sp_tensor *t, const char *op);

/* Where the user's program is, opaque to everyone but the binding that registered `here`. Taken
 * per queued or traced op, resolved to text only for messages. */
typedef struct sp__where { /* two underscores: sp_where() is an op */
    void *code;            /* owned reference, given back with `drop` */
    int32_t at;
} sp__where;
typedef struct sp_where_hooks {
    void (*here)(sp__where *out); /* code = NULL when unknown */
    /* Comes from any thread that issues ops or waits, interpreter lock held or not. */
    void (*drop)(sp__where *where);
    void (*keep)(const sp__where *where);                          /* one more reference */
    void (*text)(const sp__where *where, char *buf, size_t n);     /* "train.py:12" */
    void (*function)(const sp__where *where, char *buf, size_t n); /* "step" */
} sp_where_hooks;
SP_API extern sp_where_hooks sp__where_hooks;

static inline size_t sp__wrap_bytes(int order)
{
    return sizeof(sp_wrap) + (size_t)order * sizeof(sp_tensor *);
}
void sp__wrap_free(sp_wrap *wrap); /* registered as sp_handle_hooks.wrap_free */

#endif
