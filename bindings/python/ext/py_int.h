/* What the binding's own files share with each other, and with no one else. */
#ifndef SP_PY_INT_H
#define SP_PY_INT_H

#include "bindings/python/ext/py.h"

#include "autograd/autograd.h"

/* ---- start: each adds its part to the module; -1 with an exception set ----- */

int sp__py_errors_start(PyObject *module);
int sp__py_types_start(PyObject *module);
int sp__py_tensor_start(PyObject *module);
int sp__py_node_start(PyObject *module);
int sp__py_callbacks_start(PyObject *module);
int sp__py_function_start(PyObject *module);
int sp__py_boundary_start(PyObject *module);
int sp__py_mode_start(PyObject *module);
int sp__py_random_start(PyObject *module);
int sp__py_tree_start(PyObject *module);
void sp__py_hooks_start(void);

/* Tables that module.c and py_tensor.c join; each ends with an empty row. */
extern PyMethodDef sp__py_attr_methods[], sp__py_copy_methods[], sp__py_counted_methods[],
    sp__py_grad_methods[], sp__py_index_methods[], sp__py_interop_methods[], sp__py_join_methods[],
    sp__py_new_methods[];
extern PyMethodDef sp__py_boundary_functions[], sp__py_copy_functions[], sp__py_counted_functions[],
    sp__py_create_functions[], sp__py_grad_functions[], sp__py_interop_functions[],
    sp__py_level_functions[], sp__py_vmap_functions[], sp__py_dual_functions[],
    sp__py_each_functions[], sp__py_fit_functions[], sp__py_join_functions[],
    sp__py_product_functions[], sp__py_random_functions[], sp__py_launch_functions[],
    sp__py_mode_functions[], sp__py_saved_functions[], sp__py_state_functions[],
    sp__py_function_functions[];
extern PyGetSetDef sp__py_attr_getset[];
extern PyMappingMethods sp__py_mapping;
extern PySequenceMethods sp__py_sequence;
extern PyBufferProcs sp__py_buffer;

/* Makes a fresh handle an instance of a subclass; TypeError for subclasses that have __slots__. */
int sp__py_retype(sp_tensor *t, PyTypeObject *type);

/* ---- levels of transforms, as capsules (py_level.c) ----- */

struct sp_level;
/* NULL with an exception if it was not pushed; the capsule does not pop it. */
PyObject *sp__py_level(sp_status status, struct sp_level *level);
/* NULL with an exception for what is none, or was popped. */
struct sp_level *sp__py_level_of(PyObject *capsule);
/* Pops it. -1 with an exception set. */
int sp__py_level_end(PyObject *capsule);

/* ---- errors ----- */

extern PyObject *sp__py_format_error;

/* `return sp__py_result(sp_op(..., &out), out)`: the tensor, or the exception. A macro, so that out
 * is read after the call. */
#define sp__py_result(call, out) sp__py_result_of(call, &(out))
static inline PyObject *sp__py_result_of(sp_status status, sp_tensor *const *out)
{
    return SP_LIKELY(status == SP_OK) ? (PyObject *)*out : sp__py_raise(status);
}
static inline PyObject *sp__py_none(sp_status status)
{
    return status == SP_OK ? Py_NewRef(Py_None) : sp__py_raise(status);
}

/* ---- arguments ----- */

/* The tensor behind o (borrowed), or NULL with TypeError "op: arg must be a Tensor, not ...". */
sp_tensor *sp__py_tensor_arg(PyObject *o, const char *op, const char *arg);
/* Positional and keyword arguments into value[], by words; NULL where one is not given. `self`, of
 * a method, is the first. */
int sp__py_take(const char *op, const char *const *words, int n_words, PyObject *self,
                PyObject *const *args, Py_ssize_t n, PyObject *names, PyObject **value);
/* None and 'cpu' pass. */
int sp__py_device_check(PyObject *o, const char *op);
PyObject *sp__py_device_object(void); /* borrowed */
/* The stream of a spool.Generator; NULL, the process', for the default one. */
int sp__py_generator(PyObject *o, const char *op, sp_generator **out);

/* dtype=, device=, requires_grad= of everything that makes tensors. */
typedef struct sp_py_making {
    bool has_dtype, requires_grad;
    sp_dtype dtype;
} sp_py_making;
/* Takes these keywords and, when `also` names one more, that one (borrowed, into *extra); any other
 * is a TypeError. */
int sp__py_making(const char *op, PyObject *const *values, PyObject *names, const char *also,
                  PyObject **extra, sp_py_making *out);
/* A call's result, made to require grad if asked for. */
PyObject *sp__py_made(sp_status status, sp_tensor **out, const sp_py_making *how);

/* ---- tensors of Python data (py_data.c) ----- */

/* A new tensor of nested sequences, numbers, buffers or a tensor's values; dtype NULL: what the
 * data says. */
int sp__py_tensor_of(PyObject *data, const sp_dtype *dtype, const char *op, sp_tensor **out);
/* A zero-copy tensor over an object's buffer; -1 with an exception saying why not. */
int sp__py_tensor_over(PyObject *exporter, const char *op, sp_tensor **out);
/* Nested lists of t's values; a number when t has no dimensions. */
PyObject *sp__py_tolist(const sp_tensor *t);

/* What a buffer's format character stands for; a format Spool has no dtype for is false. */
bool sp__py_dtype_of_format(const char *format, Py_ssize_t itemsize, sp_dtype *out);
const char *sp__py_format_of_dtype(sp_dtype dtype); /* NULL: buffers do not know it */
/* NumPy arrays of ml_dtypes' bfloat16, and a tensor over one's memory. */
bool sp__py_is_bfloat16_array(PyObject *o);
int sp__py_from_bfloat16(PyObject *array, const char *op, sp_tensor **out);

/* ---- history (py_node.c) ----- */

PyObject *sp__py_grad_fn(PyObject *self, void *unused);
/* The objects that t's hooks and gradient keep, for the collector. */
int sp__py_grad_traverse(sp_tensor *t, visitproc visit, void *arg);
void sp__py_grad_clear(sp_tensor *t);
/* The node's object, None for NULL. */
PyObject *sp__py_node(sp_node *node);
bool sp__py_is_node(PyObject *o);
sp_node *sp__py_node_of(PyObject *self);
/* Lets the collector see t and the node behind it; without memory for that it does not. */
void sp__py_show(sp_tensor *t);
/* Attributes of a Node; those of ctx, where a Function made it. */
PyObject *sp__py_node_getattro(PyObject *self, PyObject *name);

/* ---- what the tape holds for Python (py_rings.c) ----- */

int sp__py_rings_start(void);
/* An object that the collector's walk starts from, from add to remove: part of that object. */
typedef struct sp_py_start {
    PyObject *object;
    struct sp_py_start *next, **slot; /* slot NULL: not added */
} sp_py_start;
int sp__py_start_add(sp_py_start *start, PyObject *object);
void sp__py_start_remove(sp_py_start *start);
/* A new object that holds another one, from which the collector's walk starts. */
PyObject *sp__py_box(PyObject *held);
PyObject *sp__py_boxed(void *box); /* borrowed */

/* ---- hooks (py_callbacks.c): methods of tensors and nodes ----- */

PyObject *sp__py_tensor_hook(PyObject *self, PyObject *function);
PyObject *sp__py_tensor_hook_added(PyObject *self, PyObject *function);
PyObject *sp__py_node_hook_before(PyObject *self, PyObject *function);
PyObject *sp__py_node_hook_after(PyObject *self, PyObject *function);

/* ---- work that needs the GIL, from wherever (py_hooks.c) ----- */

typedef struct sp_py_later {
    struct sp_py_later *next;
    void (*run)(struct sp_py_later *self); /* frees self */
} sp_py_later;
/* Runs at once when this thread holds the GIL; otherwise as soon as the main thread gets to it. */
void sp__py_with_gil(sp_py_later *work);

/* The package's folder, with a separator at its end: frames of files below it are not the user's.
 */
void sp__py_set_package(const char *folder, size_t n);
bool sp__py_is_ours(PyCodeObject *code);

#endif
