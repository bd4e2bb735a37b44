/* The transforms' levels for spool/func/, which walks trees of tensors and calls the functions.
 *
 * A level is a capsule. Python pushes and pops in one function with try and finally, so that levels
 * come off in order; a popped capsule is renamed and refused from then on.
 */
#include "bindings/python/ext/py_int.h"

#include "autograd/transform.h"
#include "ops/autocast.h"
#include "ops_gen.h"
#include "tensor/memory.h"

static const char LIVE[] = "spool.level", POPPED[] = "spool.level (popped)";

static PyObject *level_wrap(sp_status status, sp_level *level)
{
    if (status) return sp__py_raise(status);
    PyObject *capsule = PyCapsule_New(level, LIVE, NULL);
    if (!capsule) sp__level_pop(level);
    return capsule;
}

static int level_converter(PyObject *o, void *out)
{
    *(sp_level **)out = PyCapsule_GetPointer(o, LIVE);
    return *(sp_level **)out != NULL;
}

static int tensor_converter(PyObject *o, void *out)
{
    return (*(sp_tensor **)out = sp__py_tensor_arg(o, "transform", "value")) != NULL;
}

static PyObject *push(PyObject *module, PyObject *args)
{
    (void)module;
    const char *kind;
    sp_level *level = NULL;
    if (!PyArg_ParseTuple(args, "s:_level_push", &kind)) return NULL;
    sp_status status = sp__level_push(strcmp(kind, "jvp") ? SP_LEVEL_GRAD : SP_LEVEL_JVP, &level);
    return level_wrap(status, level);
}

static PyObject *push_vmap(PyObject *module, PyObject *args)
{
    static const char *const choices[] = {"error", "different", "same"};
    (void)module;
    long long batch_size;
    const char *randomness;
    sp_level *level = NULL;
    if (!PyArg_ParseTuple(args, "Ls:_level_push_vmap", &batch_size, &randomness)) return NULL;
    for (int i = 0; i < 3; i++) {
        if (strcmp(randomness, choices[i]) != 0) continue;
        sp_status status = sp__level_push_vmap(batch_size, (sp_randomness)i, &level);
        return level_wrap(status, level);
    }
    return PyErr_Format(PyExc_ValueError,
                        "vmap: randomness must be 'error', 'different' or 'same', not '%s'",
                        randomness);
}

static PyObject *pop(PyObject *module, PyObject *capsule)
{
    (void)module;
    sp_level *level;
    if (!level_converter(capsule, &level)) return NULL;
    if (PyCapsule_SetName(capsule, POPPED) < 0) return NULL;
    sp__level_pop(level);
    Py_RETURN_NONE;
}

/* ---- grad ----- */

static PyObject *grad_wrap(PyObject *module, PyObject *args)
{
    (void)module;
    sp_level *level;
    sp_tensor *x, *out = NULL;
    int leaf;
    if (!PyArg_ParseTuple(args, "O&O&p:_grad_wrap", level_converter, &level, tensor_converter, &x,
                          &leaf))
        return NULL;
    return sp__py_result(sp__grad_wrap(level, x, leaf, &out), out);
}

static PyObject *grad_unwrap(PyObject *module, PyObject *args)
{
    (void)module;
    sp_level *level;
    sp_tensor *t, *out = NULL;
    if (!PyArg_ParseTuple(args, "O&O&:_grad_unwrap", level_converter, &level, tensor_converter, &t))
        return NULL;
    return sp__py_result(sp__grad_unwrap(level, t, &out), out);
}

static PyObject *grad_of(PyObject *module, PyObject *args)
{
    (void)module;
    sp_level *level;
    sp_tensor *root, *gradient = NULL;
    PyObject *seed, *inputs;
    int retain;
    if (!PyArg_ParseTuple(args, "O&O&OO!p:_grad_of", level_converter, &level, tensor_converter,
                          &root, &seed, &PyTuple_Type, &inputs, &retain))
        return NULL;
    if (seed != Py_None && !tensor_converter(seed, &gradient)) return NULL;
    int n = (int)PyTuple_GET_SIZE(inputs);
    for (int i = 0; i < n; i++)
        if (!sp__py_tensor_arg(PyTuple_GET_ITEM(inputs, i), "grad", "argument")) return NULL;
    size_t bytes = (size_t)n * sizeof(sp_tensor *);
    sp_tensor **grads = sp__alloc_zero(bytes);
    if (!grads) return PyErr_NoMemory();
    const sp_tensor *const *in = (const sp_tensor *const *)&PyTuple_GET_ITEM(inputs, 0);
    sp_status status = sp__grad_of(level, root, gradient, in, n, retain, grads);
    PyObject *result = status ? sp__py_raise(status) : sp__py_tuple(grads, n);
    sp__free(grads, bytes);
    return result;
}

/* ---- jvp ----- */

static PyObject *dual(PyObject *module, PyObject *args)
{
    (void)module;
    sp_level *level;
    sp_tensor *x, *tangent = NULL, *out = NULL;
    PyObject *along;
    if (!PyArg_ParseTuple(args, "O&O&O:_dual", level_converter, &level, tensor_converter, &x,
                          &along))
        return NULL;
    if (along != Py_None && !tensor_converter(along, &tangent)) return NULL;
    return sp__py_result(sp__dual(level, x, tangent, &out), out);
}

static PyObject *undual(PyObject *module, PyObject *args)
{
    (void)module;
    sp_level *level;
    sp_tensor *t, *pair[2] = {NULL, NULL};
    if (!PyArg_ParseTuple(args, "O&O&:_undual", level_converter, &level, tensor_converter, &t))
        return NULL;
    sp_status status = sp__undual(level, t, &pair[0], &pair[1]);
    return status ? sp__py_raise(status) : sp__py_tuple(pair, 2);
}

/* ---- vmap ----- */

static PyObject *vmap_wrap(PyObject *module, PyObject *args)
{
    (void)module;
    sp_level *level;
    sp_tensor *x, *out = NULL;
    long long dim;
    if (!PyArg_ParseTuple(args, "O&O&L:_vmap_wrap", level_converter, &level, tensor_converter, &x,
                          &dim))
        return NULL;
    return sp__py_result(sp__vmap_wrap(level, x, dim, &out), out);
}

static PyObject *vmap_unwrap(PyObject *module, PyObject *args)
{
    (void)module;
    sp_level *level;
    sp_tensor *t, *out = NULL;
    long long dim;
    if (!PyArg_ParseTuple(args, "O&O&L:_vmap_unwrap", level_converter, &level, tensor_converter, &t,
                          &dim))
        return NULL;
    return sp__py_result(sp__vmap_unwrap(level, t, dim, &out), out);
}

/* ---- autocast ----- */

static const char AUTOCAST[] = "spool.autocast";

static PyObject *autocast_push(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *name;
    int enabled;
    sp_dtype dtype;
    sp_autocast *a = NULL;
    if (!PyArg_ParseTuple(args, "Op:_autocast_push", &name, &enabled)) return NULL;
    if (sp__py_dtype(name, "autocast", "dtype", &dtype) < 0) return NULL;
    sp_status status = sp__autocast_push(dtype, enabled, &a);
    if (status) return sp__py_raise(status);
    PyObject *capsule = PyCapsule_New(a, AUTOCAST, NULL);
    if (!capsule) sp__autocast_pop(a);
    return capsule;
}

static PyObject *autocast_pop(PyObject *module, PyObject *capsule)
{
    (void)module;
    sp_autocast *a = PyCapsule_GetPointer(capsule, AUTOCAST);
    if (!a || PyCapsule_SetName(capsule, POPPED) < 0) return NULL;
    sp__autocast_pop(a);
    Py_RETURN_NONE;
}

static PyObject *autocast_now(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    const sp_autocast *a = sp__autocast_now();
    if (!a || !a->enabled) Py_RETURN_NONE;
    return Py_NewRef(sp__py_dtype_object((sp_dtype)a->dtype));
}

static PyObject *vmap_fallbacks(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    PyObject *counts = PyDict_New();
    for (int op = 0; counts && op < SP_OP_COUNT; op++) {
        int64_t n = sp__vmap_fallbacks_of(op);
        if (n == 0) continue;
        PyObject *count = PyLong_FromLongLong(n);
        if (!count || PyDict_SetItemString(counts, sp_op_table[op].name, count) < 0)
            Py_CLEAR(counts);
        Py_XDECREF(count);
    }
    return counts;
}

static PyObject *vmap_loop_always(PyObject *module, PyObject *on)
{
    (void)module;
    bool value;
    if (sp__py_bool(on, "_vmap_loop_always", "on", &value) < 0) return NULL;
    sp__vmap_loop_always(value);
    Py_RETURN_NONE;
}

static PyObject *vmap_warn(PyObject *module, PyObject *on)
{
    (void)module;
    bool value;
    if (sp__py_bool(on, "_vmap_warn", "on", &value) < 0) return NULL;
    sp__vmap_warn(value);
    Py_RETURN_NONE;
}

PyMethodDef sp__py_level_functions[] = {
    {"_level_push", push, METH_VARARGS,
     "_level_push(kind)\n--\n\nA level of kind 'grad' or 'jvp' on top of this thread's stack."},
    {"_level_push_vmap", push_vmap, METH_VARARGS,
     "_level_push_vmap(batch_size, randomness)\n--\n\nA vmap level."},
    {"_level_pop", pop, METH_O, "_level_pop(level)\n--\n\nTakes the level off again."},
    {"_grad_wrap", grad_wrap, METH_VARARGS, "_grad_wrap(level, x, leaf)\n--\n\nx at the level."},
    {"_grad_unwrap", grad_unwrap, METH_VARARGS,
     "_grad_unwrap(level, t)\n--\n\nt's value one level down."},
    {"_grad_of", grad_of, METH_VARARGS,
     "_grad_of(level, root, gradient, inputs, retain)\n--\n\nDerivatives one level down."},
    {"_dual", dual, METH_VARARGS, "_dual(level, x, tangent)\n--\n\nx with a tangent."},
    {"_undual", undual, METH_VARARGS, "_undual(level, t)\n--\n\nValue and tangent."},
    {"_vmap_wrap", vmap_wrap, METH_VARARGS,
     "_vmap_wrap(level, x, dim)\n--\n\nx with a dimension hidden."},
    {"_vmap_unwrap", vmap_unwrap, METH_VARARGS,
     "_vmap_unwrap(level, t, dim)\n--\n\nt with the mapped dimension back."},
    {"_vmap_fallbacks", vmap_fallbacks, METH_NOARGS,
     "_vmap_fallbacks()\n--\n\nHow often vmap looped over slices so far, by op."},
    {"_vmap_loop_always", vmap_loop_always, METH_O,
     "_vmap_loop_always(on)\n--\n\nWhether vmap ignores its rules, but those of views."},
    {"_autocast_push", autocast_push, METH_VARARGS,
     "_autocast_push(dtype, enabled)\n--\n\nAn autocast level, above all others."},
    {"_autocast_pop", autocast_pop, METH_O,
     "_autocast_pop(autocast)\n--\n\nTakes the level off again."},
    {"_autocast_now", autocast_now, METH_NOARGS,
     "_autocast_now()\n--\n\nThe dtype that products are cast to in this thread, or None."},
    {"_vmap_warn", vmap_warn, METH_O,
     "_vmap_warn(on)\n--\n\nWhether ops that loop under vmap say so on stderr."},
    {NULL, NULL, 0, NULL},
};
