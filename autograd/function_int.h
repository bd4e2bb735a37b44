/* Custom functions from the inside: a use, its calls, and the nodes these leave on the tape.
 *
 *     sp_function_apply --> use (fn, ctx) <-- call, one a level --> node --> what was saved
 *
 * Invariants
 * 1. A use is shared by its calls and dies with the last one. A call belongs to one level: to its
 *    node from the moment it is recorded, before that to whoever made it.
 * 2. Until it is recorded a call lists what it was told to keep; then its node's saved values are
 *    what sp_function_saved() yields, checked at each look.
 * 3. What differs from run to run of one node (which gradients are wanted, values lowered to
 *    another level) is in a sp_function_run on the thread's stack, never in the call: several
 *    threads may run one node.
 */
#ifndef SP_FUNCTION_INT_H
#define SP_FUNCTION_INT_H

#include "autograd/levels_int.h"
#include "ops/autocast.h"

typedef struct sp_function_use {
    int64_t refs;
    sp_function fn; /* size: that of this library's struct */
    void *ctx;
    uint32_t bytes;
    char name[];
} sp_function_use;

typedef enum sp_keep_kind {
    SP_KEEP_SAVED,
    SP_KEEP_FORWARD,
    SP_KEEP_DIRTY,
    SP_KEEP_CONSTANT
} sp_keep_kind;

typedef struct sp_kept {
    sp_tensor *t; /* owned */
    sp_keep_kind kind;
} sp_kept;

struct sp_function_call {
    sp_function_use *use; /* owned */
    sp_node *node;        /* the node that owns this call; NULL: not recorded */
    sp_kept *kept;
    int n_kept, cap_kept, n_in;
    bool materialize;
    void *data;
    void (*drop)(void *data);
    bool wanted[]; /* inputs that require grad */
};

typedef struct sp_function_node {
    sp_node node;
    sp_function_call *call; /* owned */
} sp_function_node;

typedef struct sp_function_run { /* backward or jvp of a call, under way on this thread */
    struct sp_function_run *outer;
    const sp_function_call *call;
    bool selective;          /* need counts */
    bool forward;            /* saved values are those for jvp alone */
    uint64_t need;           /* a bit an input, as of sp__node_vjp() */
    sp_tensor *const *saved; /* instead of what the call saved; NULL: that */
    int n_saved;
} sp_function_run;

/* ---- function.c ----- */

/* Drops ctx when it fails. */
SP_MUST_USE sp_status sp__function_use_new(const sp_function *fn, void *ctx, sp_function_use **out);
static inline sp_function_use *sp__function_use_keep(sp_function_use *use)
{
    use->refs++;
    return use;
}
void sp__function_use_drop(sp_function_use *use);

SP_MUST_USE sp_status sp__function_call_new(sp_function_use *use, const sp_tensor *const *in,
                                            int n_in, sp_function_call **out);
void sp__function_call_free(sp_function_call *call);
/* Whether t is among what the call was told of that kind. */
bool sp__function_keeps(const sp_function_call *call, sp_keep_kind kind, const sp_tensor *t);
/* The i-th value that was kept of that kind, borrowed; NULL: there are no more. */
sp_tensor *sp__function_kept_at(const sp_function_call *call, sp_keep_kind kind, int i);

/* Drops what the call was told to keep. */
void sp__function_forget(sp_function_call *call);
/* t, a result at level, shares memory with one of in[]: notes it. */
SP_MUST_USE sp_status sp__function_sharing(const sp_level *level, const sp_tensor *const *in,
                                           int n_in, sp_tensor *t);
/* Hangs the results on a node at `level` that takes call over, where an input wants a gradient
 * there; else frees call. */
SP_MUST_USE sp_status sp__function_record(sp_function_call *call, sp_level *level,
                                          const sp_tensor *const *in, int n_in, sp_tensor **out,
                                          int n_out);

/* ---- function_run.c ----- */

/* Between these the call's backward or jvp runs. */
void sp__function_run_begin(sp_function_run *run, const sp_function_call *call);
void sp__function_run_end(const sp_function_run *run);
/* Makes *g fit an input that has geometry `want`: the i-th of n. ESHAPE if it cannot. */
SP_MUST_USE sp_status sp__function_fit(const char *name, int i, int n, const sp_meta *want,
                                       sp_tensor **g);
SP_MUST_USE sp_status sp__function_vjp(sp_node *node, sp_tensor *const *gy, uint64_t need,
                                       sp_tensor **gx);
void sp__function_bury(sp_node *node);
const char *sp__function_name(const sp_node *node);

/* ---- function_apply.c ----- */

typedef struct sp_use_at { /* a use, seen at one level */
    sp_function_use *use;
    const sp_tensor *const *in;
    sp_tensor **out; /* owned */
    int n_in, max_out, n_out;
} sp_use_at;

typedef struct sp_descent { /* what runs below a level; autocast stays on top of that */
    sp_context was;
    sp_autocast autocast;
} sp_descent;
void sp__use_descend(const sp_level *level, sp_descent *d);
void sp__use_ascend(const sp_descent *d);

/* The use at the level that is on top; drops results when it fails. */
SP_MUST_USE sp_status sp__use_at_top(sp_use_at *a);
/* The use one level down, its results wrapped for the level. */
SP_MUST_USE sp_status sp__use_below(sp_use_at *a, const sp_level *level);
/* The level's own wrapper of result j, which is from below it; one that is an input below is that
 * input. tangents (NULL: zero): of result j, a->n_out apart. */
SP_MUST_USE sp_status sp__use_wrap(sp_use_at *a, const sp_tensor *const *low_in,
                                   const sp_level *level, int j, sp_tensor *const *tangents);
/* Forward, setup and what they say of the results, at the level that is on top. */
SP_MUST_USE sp_status sp__use_here(sp_use_at *a, sp_function_call *call);
SP_MUST_USE sp_status sp__use_setup(const sp_use_at *a, sp_function_call *call);
/* EUNSUPPORTED unless what level wraps are constants below it. */
SP_MUST_USE sp_status sp__use_sole(const sp_use_at *a, const sp_level *level);
bool sp__use_has(const sp_use_at *a, const sp_tensor *t);

/* ---- function_forward.c ----- */

/* The use at a level of forward mode. */
SP_MUST_USE sp_status sp__use_forward(sp_use_at *a, sp_level *level);

/* ---- function_vmap.c ----- */

/* The use for batches, of the callbacks for examples: in_mapped[i] tells whether in[i] has the
 * mapped dimension at 0. All results have. */
SP_MUST_USE sp_status sp__function_batched(sp_function_use *use, const sp_level *level,
                                           const bool *in_mapped, int n_in, sp_function_use **out);

#endif
