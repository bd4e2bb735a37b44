/* A backward run from the inside: what the engine, its surveys, parts and leaves share.
 */
#ifndef SP_ENGINE_INT_H
#define SP_ENGINE_INT_H

#include "autograd/tape_int.h"

/* Nobody but the owner of this reference can see t's bytes: a fresh result, no view, no base of
 * views, not part of any history. Asks handles alone, never storages, whose counts depend on the
 * queue: what is decided here is traced. */
static inline bool sp__sole_owner(const sp_tensor *t)
{
    return t->refs == 1 &&
           (t->flags & (SP_T_META | SP_T_WRAPPED | SP_T_CONTIGUOUS)) == SP_T_CONTIGUOUS;
}

/* leaf.grad += slot; may take the gradient over. create: the gradient may have history, which must
 * be kept. */
SP_MUST_USE sp_status sp__accumulate(sp_leaf *leaf, sp_slot *slot, bool create);

/* ---- a run ----- */

typedef struct sp_run sp_run;

typedef struct sp_task { /* a node with what arrived for it in one run */
    sp_node *node;       /* owned */
    sp_run *run;
    struct sp_task *next;  /* tasks of other runs at the same node */
    struct sp_task *after; /* in a run's list of those that are ready */
    int32_t waits;         /* of a leaf that is counted: edges that lead here and have not run */
    bool queued;
    bool wanted; /* selective runs: an input can be reached from here */
    sp_slot slot[];
} sp_task;

enum { SP_HEAP_ROOM = 24 };

typedef struct sp_run_callback sp_run_callback;

struct sp_run {
    uint64_t id;
    sp_run *outer; /* the one whose hook or vjp this one runs in */
    sp_task *now;  /* whose turn it is */
    sp_task **heap;
    size_t n_heap, cap_heap;
    sp_task *ready, **ready_end; /* leaves whose turn has come */
    sp_task **order;             /* selective: all reachable tasks; owned */
    size_t n_order, cap_order, n_left;
    bool selective, retain, create, counts_leaves;
    const sp_edge *inputs; /* selective: whose gradients are asked for; none: those of all leaves */
    sp_tensor **grads;     /* where they go; NULL: to the inputs' own */
    int n_inputs;
    sp_run_callback *callbacks; /* owned */
    sp_task *heap_room[SP_HEAP_ROOM];
};

/* retain: what nodes saved is kept; create: the run is recorded. */
void sp__run_begin(sp_run *r, bool retain, bool create);
/* Walks from the roots where that is needed: sets selective, order, and what is wanted in it. */
SP_MUST_USE sp_status sp__run_survey(sp_run *r, const sp_edge *roots, int n_roots);
/* A gradient comes in, and is taken over. */
SP_MUST_USE sp_status sp__run_arrive(sp_run *r, sp_edge to, sp_tensor **g);
SP_MUST_USE sp_status sp__run_all(sp_run *r);
void sp__run_end(sp_run *r);
/* The innermost run of this thread; NULL: none. */
sp_run *sp__run_current(void);
SP_MUST_USE sp_status sp__run_callbacks(sp_run *r);
void sp__run_callbacks_free(sp_run *r);

/* Doubles an array that starts out as `room` (NULL: nothing). */
SP_MUST_USE sp_status sp__tasks_grow(sp_task ***items, size_t *cap, sp_task **room);
SP_MUST_USE sp_status sp__run_push(sp_run *r, sp_task *task);
sp_task *sp__run_pop(sp_run *r);
/* Hooks on the gradients of a task whose turn it is, and the capture of what was asked for. */
SP_MUST_USE sp_status sp__run_seen(sp_run *r, sp_task *task);
void sp__run_finish(sp_run *r, sp_task *task);

SP_MUST_USE sp_status sp__task_new(sp_run *r, sp_node *node, sp_task **out);
void sp__task_clear(sp_task *task);
void sp__task_free(sp_task *task);
static inline sp_task *sp__task_at(const sp_run *r, const sp_node *node)
{
    sp_task *task = node->tasks;
    while (task && task->run != r) task = task->next;
    return task;
}

/* Whether the gradient of the node's input i goes anywhere. */
static inline bool sp__run_needs(const sp_run *r, const sp_node *node, int i)
{
    const sp_node *to = node->edges[i].node;
    if (!to) return false;
    if (!r->selective) return true;
    const sp_task *task = sp__task_at(r, to);
    return task && task->wanted;
}

/* ---- parts.c ----- */

/* One of the parts that a tensor was cut into, and where it begins. */
typedef struct sp_part {
    sp_tensor *g;
    int64_t start;
} sp_part;

enum { SP_PARTS_ROOM = 16 };

typedef struct sp_parts { /* the gradients of nodes that follow one another and cut one tensor */
    sp_edge whole;
    sp_meta meta; /* of the whole */
    int dim, n, room;
    sp_part *list;
    sp_part first[SP_PARTS_ROOM];
} sp_parts;

/* Whether the node is a part of its input, from *start on, and the next is another. */
bool sp__parts_begin(const sp_run *r, const sp_node *node, sp_parts *p, int64_t *start);
/* Runs it and those that follow. */
SP_MUST_USE sp_status sp__run_parts(sp_run *r, sp_task *task, sp_parts *p, int64_t start);

#endif
