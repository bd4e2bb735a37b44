/* What the binding's files and the generated entry points (python_gen.c) share.
 *
 *     python_gen.c     sp__py_functions[], sp__py_methods[], sp__py_number_fill(), sp__py_compare()
 * tools/opgen.py py_parse.h       arguments of generated entry points py_jit.c
 * sp__py_jit_functions[], sp__py_jit_start() here             the Tensor type, errors, plain
 * conversions
 *
 * Invariants
 * 1. A tensor handle is its own Python object (tensor/tensor.h): the casts below cost nothing,
 * sp__retain() is Py_INCREF and sp_drop() is Py_DECREF. An exact Tensor has type
 * &sp__py_tensor_type; a subclass' instance is a handle as well.
 * 2. Functions returning int yield 0, or -1 with a Python exception set; those returning PyObject *
 * yield NULL with an exception set. The GIL is held everywhere but inside the blocking hooks
 * (py_hooks.c).
 * 3. The collector does not know a handle until sp__py_track() was called on it; the blocks are
 * Spool's, so that PyObject_GC_New and PyObject_GC_Del never see one.
 */
#ifndef SP_PY_H
#define SP_PY_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "ops/dispatch.h"

#if PY_VERSION_HEX < 0x03090000
#error "Spool needs CPython 3.9 or newer"
#endif

#if PY_VERSION_HEX < 0x030A0000
static inline PyObject *Py_NewRef(PyObject *o)
{
    Py_INCREF(o);
    return o;
}
#endif

/* ---- tensors and objects ----- */

extern PyTypeObject sp__py_tensor_type;

static inline bool sp__py_is_exact(PyObject *o)
{
    return Py_TYPE(o) == &sp__py_tensor_type;
}

static inline bool sp__py_is_tensor(PyObject *o)
{
    return Py_TYPE(o) == &sp__py_tensor_type || PyType_IsSubtype(Py_TYPE(o), &sp__py_tensor_type);
}

static inline sp_tensor *sp__py_handle(PyObject *o)
{
    return (sp_tensor *)o;
}

/* Passes the reference on. */
static inline PyObject *sp__py_object(sp_tensor *t)
{
    return (PyObject *)t;
}

/* A tuple that takes over the n references in t, also when it fails; NULL entries become None. */
PyObject *sp__py_tuple(sp_tensor **t, int n);
/* Lets the garbage collector know t: once it has a __dict__, hooks or history that can close a
 * cycle. Idempotent. */
void sp__py_track(sp_tensor *t);

/* ---- errors ----- */

extern PyObject *sp__py_error;       /* spool.SpoolError(RuntimeError) */
extern PyObject *sp__py_shape_error; /* spool.ShapeError(SpoolError, ValueError) */
extern PyObject *sp__py_dtype_error; /* spool.DTypeError(SpoolError, TypeError) */

/* Raises what `status` stands for with sp_last_error()'s text, and returns NULL. SP_ECALLBACK keeps
 * the exception that is set already. */
PyObject *sp__py_raise(sp_status status) __attribute__((cold));
/* The way back, for callbacks: the Python exception that is set stays set, the C caller gets
 * SP_ECALLBACK. */
sp_status sp__py_callback_failed(const char *what) __attribute__((cold));
/* TypeError "op: arg must be <wanted>, not <type of o>"; returns -1. */
int sp__py_wrong_type(const char *op, const char *arg, const char *wanted, PyObject *o)
    __attribute__((cold));

/* ---- numbers, sizes, dtypes; op and arg start the messages ----- */

/* 1: o is a number (bool, int, float, or anything with __index__ or __float__ that is no tensor,
 * array or text) and in *out; 0: it is none, and nothing is raised; -1: it is one that no scalar
 * holds (an int beyond 64 bits). */
int sp__py_number(PyObject *o, sp_scalar *out);
/* 1: o is a complex number, Python's or NumPy's, whose parts are in part; 0: it is none; -1: with
 * an exception. */
int sp__py_complex(PyObject *o, double part[2]);
/* A tensor without dimensions of the complex number o, to stand beside `beside` (NULL: nothing) in
 * arithmetic: complex128 where that is nothing, float64 or complex128, else complex64. NULL
 * with an exception.
 */
sp_tensor *sp__py_complex_tensor(PyObject *o, const sp_tensor *beside);
int sp__py_scalar(PyObject *o, const char *op, const char *arg, sp_scalar *out);
int sp__py_int(PyObject *o, const char *op, const char *arg, int64_t *out);
int sp__py_float(PyObject *o, const char *op, const char *arg, double *out);
int sp__py_bool(PyObject *o, const char *op, const char *arg, bool *out);
/* Ints of a tuple, list or other sequence, or one int; at most SP_MAX_RANK of them into out. */
int sp__py_ints(PyObject *o, const char *op, const char *arg, int64_t *out, int *n);
/* x.view(2, 3) and x.view((2, 3)): all of args are ints, or args is one sequence. */
int sp__py_ints_args(PyObject *const *args, Py_ssize_t n_args, const char *op, const char *arg,
                     int64_t *out, int *n);

/* spool.float32 and so on, or Python's bool, int and float (= float64). */
int sp__py_dtype(PyObject *o, const char *op, const char *arg, sp_dtype *out);
PyObject *sp__py_dtype_object(sp_dtype dtype); /* borrowed */
bool sp__py_is_dtype(PyObject *o);
/* spool.Size, a tuple. */
PyObject *sp__py_size(int n, const int64_t *sizes);
/* The element at `at` as a Python bool, int, float or complex. */
PyObject *sp__py_from_element(const void *at, int dtype);
/* A Python bool, int or float. */
PyObject *sp__py_from_scalar(sp_scalar value);

/* ---- tables of functions with keywords ----- */

/* The same function serves spool.name(x, ...), where `self` is the module, and x.name(...). */
#define SP_PY_BOTH(name)                                                                           \
    static PyObject *name##_function(PyObject *module, PyObject *const *args, Py_ssize_t n,        \
                                     PyObject *names)                                              \
    {                                                                                              \
        (void)module;                                                                              \
        return name##_call(NULL, args, n, names);                                                  \
    }

#define SP_PY_ROW(name, function, doc)                                                             \
    {                                                                                              \
        name, (PyCFunction)(void *)function, METH_FASTCALL | METH_KEYWORDS, doc                    \
    }

/* Rows of name_call and name_function; doc: of both, from the parameters behind the tensor on. */
#define SP_PY_METHOD(name, doc)   SP_PY_ROW(#name, name##_call, #name "($self, " doc),
#define SP_PY_FUNCTION(name, doc) SP_PY_ROW(#name, name##_function, #name "(x, " doc),
/* Both tables of a list of rows, sp__py_<name>_methods and sp__py_<name>_functions. */
#define SP_PY_TABLES(name, ROWS)                                                                   \
    PyMethodDef sp__py_##name##_methods[] = {ROWS(SP_PY_METHOD){NULL, NULL, 0, NULL}};             \
    PyMethodDef sp__py_##name##_functions[] = {ROWS(SP_PY_FUNCTION){NULL, NULL, 0, NULL}}

/* ---- what the generated file provides (python_gen.c) ----- */

extern PyMethodDef sp__py_functions[]; /* spool.matmul(...), ...; ends with {NULL} */
extern PyMethodDef sp__py_methods[];   /* Tensor.matmul(...), ...; ends with {NULL} */
/* Sets the slots that ops stand behind: nb_add, nb_subtract, ..., nb_inplace_add, ...,
 * nb_matrix_multiply, nb_power, nb_negative. The others (nb_bool, nb_int, nb_float, nb_index) are
 * py_tensor.c's. */
void sp__py_number_fill(PyNumberMethods *slots);
/* tp_richcompare. */
PyObject *sp__py_compare(PyObject *a, PyObject *b, int op);

/* ---- what jit provides (py_jit.c; compiled in where the file is there) ----- */

extern PyMethodDef sp__py_jit_functions[]; /* go into spool._C; ends with {NULL} */
int sp__py_jit_start(PyObject *module);

#endif
