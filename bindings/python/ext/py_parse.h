/* Arguments of the generated entry points (python_gen.c): signatures as data, and fast paths for
 * the commonest calls.
 *
 * A group is one Python name; its signatures are the overloads behind it, in table order. A call
 * goes to the first one that its arguments fit:
 *
 *     spool.add(x, 2.0)  ->  add(Tensor x, Tensor y)    no: y is a float
 *                            add(Tensor x, Scalar y)    yes: SP_OP_ADD_SCALAR
 *
 * Invariants
 * 1. The call (sp_call) is built in place and goes straight to sp__dispatch(); nothing is copied on
 * the way.
 * 2. A fast path takes a call only if the general way would have done the same with it.
 * 3. Keywords are compared by pointer: CPython interns the names in call sites, and `word` is the
 * interned name.
 */
#ifndef SP_PY_PARSE_H
#define SP_PY_PARSE_H

#include "bindings/python/ext/py.h"
#include "ops/attr.h"
#include "ops_gen.h"

enum { SP_PY_MAX_PARAMS = 16, SP_PY_MAX_LISTS = 4 };

typedef enum sp__py_kind {
    SP_PY_TENSOR,
    SP_PY_TENSORS,
    SP_PY_SCALAR,
    SP_PY_INT,
    SP_PY_FLOAT,
    SP_PY_BOOL,
    SP_PY_INTS,
    SP_PY_DTYPE,
    SP_PY_CHOICE
} sp__py_kind;

enum { /* sp__py_param.flags */
       SP_PY_REQUIRED = 1,
       SP_PY_NONE = 2,    /* None may be given */
       SP_PY_KEYWORD = 4, /* keyword only */
       SP_PY_SPREAD = 8   /* ints, also as all remaining positional arguments */
};

typedef struct sp__py_param {
    const char *name;
    uint8_t kind, flags;
    sp_attr fallback;           /* attributes: what stands in for one that is not given */
    const char *const *choices; /* CHOICE: names by value, ends with NULL */
    PyObject *word;             /* the interned name, from the first call with keywords on; owned */
} sp__py_param;

/* A result of several tensors: a tuple whose fields have the names of the outputs. */
typedef struct sp__py_outputs {
    PyStructSequence_Field fields[SP_MAX_OUT + 1]; /* a name each, then an end */
    PyTypeObject *type;                            /* from the first call on; owned */
} sp__py_outputs;

enum {                  /* sp__py_sig.extras */
       SP_PY_DRAWS = 1, /* takes generator= */
       SP_PY_MAKES = 2  /* takes device=, requires_grad= */
};

typedef struct sp__py_sig {
    uint16_t op;
    uint8_t n_params, n_attr, n_out; /* n_attr: of the op, hidden ones included */
    bool has_out;                    /* takes out= */
    uint8_t extras;
    sp__py_param *params;
    const char *text;        /* "sum(Tensor x, int[]? dim=None, ...)" */
    sp__py_outputs *outputs; /* of an op with several */
} sp__py_sig;

typedef struct sp__py_group {
    const char *name;
    int n_sigs;
    const sp__py_sig *sigs;
} sp__py_group;

typedef enum sp__py_mode { SP_PY_PLAIN, SP_PY_INPLACE } sp__py_mode;

/* Any call of a group. self: the first argument of a method, NULL for functions; the rest is a
 * vectorcall's arguments. */
PyObject *sp__py_call(const sp__py_group *group, PyObject *self, PyObject *const *args,
                      Py_ssize_t n_args, PyObject *names, sp__py_mode mode);

/* An operator's ops: both operands tensors; a number on the right; a number on the left (the tensor
 * comes first in the call). -1: there is none. */
typedef struct sp__py_operator {
    int tensors, number_right, number_left;
} sp__py_operator;

/* Operands of any type; NotImplemented for those that are neither tensors nor numbers. */
PyObject *sp__py_binary(const sp__py_operator *o, PyObject *a, PyObject *b, sp__py_mode mode);

/* ---- fast paths ----- */

static inline void sp__py_begin(sp_call *c, int op, sp_tensor **in, int n_in, sp__py_mode mode)
{
    c->op = (uint16_t)op, c->n_out = 1, c->n_attr = 0, c->n_in = n_in, c->in = in;
    c->flags = mode == SP_PY_INPLACE ? SP_CALL_INPLACE : 0;
    c->out[0] = mode == SP_PY_INPLACE ? in[0] : NULL;
}

/* The result of a call with one output, as a new reference. */
static inline PyObject *sp__py_finish(sp_call *c)
{
    sp_status status = sp__dispatch(c);
    if (SP_UNLIKELY(status != SP_OK)) return sp__py_raise(status);
    return (PyObject *)(c->flags ? sp__retain(c->out[0]) : c->out[0]);
}

/* An op of n tensors and no attributes. */
static inline PyObject *sp__py_call_tensors(int op, PyObject *const *args, int n, sp__py_mode mode)
{
    sp_call c;
    sp__py_begin(&c, op, (sp_tensor **)args, n, mode);
    return sp__py_finish(&c);
}

static inline PyObject *sp__py_call_pair(int op, PyObject *a, PyObject *b, sp__py_mode mode)
{
    PyObject *args[2] = {a, b};
    return sp__py_call_tensors(op, args, 2, mode);
}

/* An op of a tensor and one number. */
static inline PyObject *sp__py_call_scalar(int op, PyObject *a, sp_scalar number, sp__py_mode mode)
{
    sp_tensor *in[1] = {(sp_tensor *)a};
    sp_call c;
    sp__py_begin(&c, op, in, 1, mode);
    c.n_attr = 1;
    c.attr[0] = sp__attr_scalar(number);
    return sp__py_finish(&c);
}

/* Whether o is exactly a float, or an int that 64 bits hold. */
static inline bool sp__py_exact_number(PyObject *o, sp_scalar *out)
{
    if (PyFloat_CheckExact(o)) {
        *out = SP_FLOAT(PyFloat_AS_DOUBLE(o));
        return true;
    }
    if (PyLong_CheckExact(o)) {
        int overflow = 0;
        *out = SP_INT(PyLong_AsLongLongAndOverflow(o, &overflow));
        return overflow == 0;
    }
    return false;
}

static inline PyObject *sp__py_operate(const sp__py_operator *o, PyObject *a, PyObject *b,
                                       sp__py_mode mode)
{
    sp_scalar number;
    if (SP_LIKELY(sp__py_is_exact(a))) {
        if (SP_LIKELY(sp__py_is_exact(b)) && o->tensors >= 0)
            return sp__py_call_pair(o->tensors, a, b, mode);
        if (o->number_right >= 0 && sp__py_exact_number(b, &number))
            return sp__py_call_scalar(o->number_right, a, number, mode);
    } else if (o->number_left >= 0 && mode == SP_PY_PLAIN && sp__py_is_exact(b) &&
               sp__py_exact_number(a, &number)) {
        return sp__py_call_scalar(o->number_left, b, number, mode);
    }
    return sp__py_binary(o, a, b, mode);
}

#endif
