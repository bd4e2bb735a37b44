/* spool.autograd.Function: what its two files share.
 *
 *     cls.apply(*args) --> sp_function_apply(application) --> cls.forward, cls.setup_context, ...
 *
 * Invariants
 * 1. An application holds class and arguments only while apply() runs; what lives as long as a
 *    node is a ctx object, one a call, which holds the class.
 * 2. Tensors among the arguments are the core's inputs, tensors among the results its results; the
 *    rest stays in the tuples it came in, which are filled again for each level.
 * 3. What ctx was told to save is handed to the core when the method that said so returns.
 */
#ifndef SP_PY_FUNCTION_H
#define SP_PY_FUNCTION_H

#include "bindings/python/ext/py_int.h"

#include "autograd/function.h"

typedef struct sp_py_application { /* ctx of the core's function */
    int refs;
    PyObject *cls, *args, *results; /* while apply() runs */
    bool setup, single;             /* single: forward returned one value, no tuple */
    int n_args, n_in, n_results;
    int *out_at; /* where the tensors are among the results */
    int n_out;
    int in_at[]; /* ... and among the arguments */
} sp_py_application;

typedef struct sp_py_ctx {
    PyObject_HEAD sp_function_call *call; /* borrowed; NULL once it has ended */
    sp_py_application *application;       /* borrowed, as long as call */
    PyObject *cls, *dict, *weak;
    PyObject *save[2];  /* for backward, for jvp: tuples not handed over yet */
    PyObject *holes[2]; /* where these had None: tuples of bools; NULL: nowhere */
    bool had_forward;   /* something was saved for jvp alone */
    bool in_jvp;        /* ... and jvp runs */
    sp_py_start start;  /* the collector looks from here for rings through the tape */
} sp_py_ctx;

/* A ctx that call keeps; a borrowed reference. NULL with an exception. */
sp_py_ctx *sp__py_ctx_new(sp_py_application *a, sp_function_call *call);
/* The one that it keeps. */
sp_py_ctx *sp__py_ctx_of(sp_function_call *call);
/* Hands what was saved to the core. */
int sp__py_ctx_hand_over(sp_py_ctx *self);
/* What sp_function_keep() was given along with a ctx. */
void sp__py_ctx_drop(void *ctx);
int sp__py_ctx_start(PyObject *module);

#endif
