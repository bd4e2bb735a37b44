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

PyObject *sp__py_level(sp_status status, sp_level *level)
{
    if (status) return sp__py_raise(status);
    PyObject *capsule = PyCapsule_New(level, LIVE, NULL);
    if (!capsule) sp__level_pop(level);
    return capsule;
}

sp_level *sp__py_level_of(PyObject *capsule)
{
    return PyCapsule_GetPointer(capsule, LIVE);
}

static int level_converter(PyObject *o, void *out)
{
    return (*(sp_level **)out = sp__py_level_of(o)) != NULL;
}

static int tensor_converter(PyObject *o, void *out)
{
    return (*(sp_tensor **)out = sp__py_tensor_arg(o, "transform", "value")) != NULL;
}

/* The tensors of a list or tuple, borrowed from it; None: NULL. */
typedef struct tensors {
    const sp_tensor **t;
    int n;
    const sp_tensor *room[8];
} tensors;

static void tensors_free(tensors *ts)
{
    if (ts->t && ts->t != ts->room) sp__free(ts->t, (size_t)ts->n * sizeof *ts->t);
}

static int tensors_of(PyObject *list, tensors *out)
{
    *out = (tensors){.t = out->room};
    if (!PyList_Check(list) && !PyTuple_Check(list)) {
        PyErr_SetString(PyExc_TypeError, "transform: expected a list or tuple of tensors");
        return -1;
    }
    Py_ssize_t n = PySequence_Fast_GET_SIZE(list);
    out->n = (int)n;
    if (n > (Py_ssize_t)(sizeof out->room / sizeof *out->room))
        out->t = sp__alloc((size_t)n * sizeof *out->t);
    if (!out->t) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *o = PySequence_Fast_GET_ITEM(list, i);
        out->t[i] = o == Py_None ? NULL : sp__py_tensor_arg(o, "transform", "value");
        if (out->t[i] || o == Py_None) continue;
        tensors_free(out);
        return -1;
    }
    return 0;
}

static int no_gaps(const tensors *ts)
{
    for (int i = 0; i < ts->n; i++) {
        if (ts->t[i]) continue;
        PyErr_SetString(PyExc_TypeError, "transform: None among the tensors");
        return -1;
    }
    return 0;
}

/* A tuple of n new references, which becomes theirs; room[] is freed. */
static PyObject *results(sp_status status, sp_tensor **made, int n)
{
    for (int i = 0; i < n && status; i++) sp_drop(&made[i]);
    PyObject *tuple = status ? sp__py_raise(status) : sp__py_tuple(made, n);
    sp__free(made, (size_t)n * sizeof *made);
    return tuple;
}

static sp_tensor **room_for(int n)
{
    sp_tensor **made = sp__alloc_zero((size_t)n * sizeof *made);
    if (!made) PyErr_NoMemory();
    return made;
}

/* ---- pushing and popping ----- */

static PyObject *push(PyObject *module, PyObject *args)
{
    (void)module;
    const char *kind;
    sp_level *level = NULL;
    if (!PyArg_ParseTuple(args, "s:_level_push", &kind)) return NULL;
    sp_status status = sp__level_push(strcmp(kind, "jvp") ? SP_LEVEL_GRAD : SP_LEVEL_JVP, &level);
    return sp__py_level(status, level);
}

static PyObject *push_again(PyObject *module, PyObject *number)
{
    (void)module;
    sp_level *level = NULL;
    unsigned long long id = PyLong_AsUnsignedLongLong(number);
    if (id == (unsigned long long)-1 && PyErr_Occurred()) return NULL;
    sp_status status = sp__level_push_again(id, &level);
    return sp__py_level(status, level);
}

static PyObject *level_id(PyObject *module, PyObject *capsule)
{
    (void)module;
    sp_level *level;
    return level_converter(capsule, &level) ? PyLong_FromUnsignedLongLong(level->id) : NULL;
}

int sp__py_level_end(PyObject *capsule)
{
    sp_level *level = sp__py_level_of(capsule);
    if (!level || PyCapsule_SetName(capsule, POPPED) < 0) return -1;
    sp__level_pop(level);
    return 0;
}

static PyObject *pop(PyObject *module, PyObject *capsule)
{
    (void)module;
    if (sp__py_level_end(capsule) < 0) return NULL;
    Py_RETURN_NONE;
}

/* ---- grad ----- */

static sp_status grad_wrap_each(sp_level *level, const tensors *x, sp_tensor **made)
{
    for (int i = 0; i < x->n; i++) SP_RETURN_IF(sp__grad_wrap(level, x->t[i], true, &made[i]));
    return SP_OK;
}

static sp_status grad_unwrap_each(sp_level *level, const tensors *t, sp_tensor **made)
{
    for (int i = 0; i < t->n; i++) SP_RETURN_IF(sp__grad_unwrap(level, t->t[i], &made[i]));
    return SP_OK;
}

typedef sp_status (*each_fn)(sp_level *level, const tensors *in, sp_tensor **made);

/* A tuple of one result for each tensor of args[1]. */
static PyObject *for_each(PyObject *args, const char *format, each_fn each)
{
    sp_level *level;
    PyObject *list, *result = NULL;
    tensors in;
    if (!PyArg_ParseTuple(args, format, level_converter, &level, &list)) return NULL;
    if (tensors_of(list, &in) < 0) return NULL;
    sp_tensor **made = no_gaps(&in) < 0 ? NULL : room_for(in.n);
    if (made) result = results(each(level, &in, made), made, in.n);
    tensors_free(&in);
    return result;
}

static PyObject *grad_wrap_all(PyObject *module, PyObject *args)
{
    (void)module;
    return for_each(args, "O&O:_grad_wrap_all", grad_wrap_each);
}

static PyObject *grad_unwrap_all(PyObject *module, PyObject *args)
{
    (void)module;
    return for_each(args, "O&O:_grad_unwrap_all", grad_unwrap_each);
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
    PyObject *lists[3], *result = NULL;
    tensors roots, weights = {.t = NULL}, in;
    int retain;
    if (!PyArg_ParseTuple(args, "O&OOOp:_grad_of", level_converter, &level, &lists[0], &lists[1],
                          &lists[2], &retain))
        return NULL;
    bool weighted = lists[1] != Py_None;
    if (tensors_of(lists[0], &roots) < 0) return NULL;
    if (tensors_of(lists[2], &in) < 0) goto roots;
    if (weighted && tensors_of(lists[1], &weights) < 0) goto in;
    if (weighted && weights.n != roots.n)
        PyErr_SetString(PyExc_ValueError, "transform: one weight a result expected");
    sp_tensor **made =
        PyErr_Occurred() || no_gaps(&roots) < 0 || no_gaps(&in) < 0 ? NULL : room_for(in.n);
    if (made)
        result = results(sp__grad_of(level, roots.t, weights.t, roots.n, in.t, in.n, retain, made),
                         made, in.n);
    tensors_free(&weights);
in:
    tensors_free(&in);
roots:
    tensors_free(&roots);
    return result;
}

/* ---- jvp ----- */

static PyObject *dual_all(PyObject *module, PyObject *args)
{
    (void)module;
    sp_level *level;
    PyObject *values, *tangents, *result = NULL;
    tensors x, t;
    if (!PyArg_ParseTuple(args, "O&OO:_dual_all", level_converter, &level, &values, &tangents))
        return NULL;
    if (tensors_of(values, &x) < 0) return NULL;
    if (tensors_of(tangents, &t) < 0) goto values;
    if (x.n != t.n) PyErr_SetString(PyExc_ValueError, "jvp: one tangent a value expected");
    sp_tensor **made = PyErr_Occurred() || no_gaps(&x) < 0 ? NULL : room_for(x.n);
    sp_status status = SP_OK;
    for (int i = 0; made && i < x.n && status == SP_OK; i++)
        status = sp__dual(level, x.t[i], t.t[i], &made[i]);
    if (made) result = results(status, made, x.n);
    tensors_free(&t);
values:
    tensors_free(&x);
    return result;
}

static sp_status undual_each(sp_level *level, const tensors *t, sp_tensor **values,
                             sp_tensor **tangents)
{
    for (int i = 0; i < t->n; i++)
        SP_RETURN_IF(sp__undual(level, t->t[i], &values[i], &tangents[i]));
    return SP_OK;
}

static PyObject *undual_all(PyObject *module, PyObject *args)
{
    (void)module;
    sp_level *level;
    PyObject *list, *pair = NULL;
    tensors in;
    if (!PyArg_ParseTuple(args, "O&O:_undual_all", level_converter, &level, &list)) return NULL;
    if (tensors_of(list, &in) < 0) return NULL;
    sp_tensor **values = no_gaps(&in) < 0 ? NULL : room_for(in.n);
    sp_tensor **tangents = values ? room_for(in.n) : NULL;
    if (values && !tangents) sp__free(values, (size_t)in.n * sizeof *values);
    if (tangents) {
        sp_status status = undual_each(level, &in, values, tangents);
        PyObject *v = results(status, values, in.n);
        for (int i = 0; i < in.n && !v; i++) sp_drop(&tangents[i]);
        PyObject *t = v ? results(status, tangents, in.n) : NULL;
        if (!v) sp__free(tangents, (size_t)in.n * sizeof *tangents);
        if (t) pair = PyTuple_Pack(2, v, t);
        Py_XDECREF(v);
        Py_XDECREF(t);
    }
    tensors_free(&in);
    return pair;
}

/* ---- jet ----- */

static PyObject *push_jet(PyObject *module, PyObject *number)
{
    (void)module;
    sp_level *level = NULL;
    long long order = PyLong_AsLongLong(number);
    if (order == -1 && PyErr_Occurred()) return NULL;
    sp_status status = sp__level_push_jet(order, &level);
    return sp__py_level(status, level);
}

static PyObject *series(PyObject *module, PyObject *args)
{
    (void)module;
    sp_level *level;
    sp_tensor *x, *out = NULL;
    PyObject *list, *result = NULL;
    tensors in;
    if (!PyArg_ParseTuple(args, "O&O&O:_series", level_converter, &level, tensor_converter, &x,
                          &list))
        return NULL;
    if (tensors_of(list, &in) < 0) return NULL;
    if (level->kind != SP_LEVEL_JET || in.n != sp__level_order(level))
        PyErr_SetString(PyExc_ValueError,
                        "jet: as many coefficients as the level's order expected");
    else
        result = sp__py_result(sp__series(level, x, in.t, &out), out);
    tensors_free(&in);
    return result;
}

static PyObject *unseries(PyObject *module, PyObject *args)
{
    (void)module;
    sp_level *level;
    sp_tensor *t, *made[1 + SP_JET_MAX];
    if (!PyArg_ParseTuple(args, "O&O&:_unseries", level_converter, &level, tensor_converter, &t))
        return NULL;
    sp_status status = sp__unseries(level, t, &made[0], &made[1]);
    return status ? sp__py_raise(status) : sp__py_tuple(made, 1 + sp__level_order(level));
}

static PyObject *jet_fallbacks(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return PyLong_FromLongLong(sp__jet_fallbacks());
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

PyMethodDef sp__py_level_functions[] = {
    {"_level_push", push, METH_VARARGS,
     "_level_push(kind)\n--\n\nA level of kind 'grad' or 'jvp' on top of this thread's stack."},
    {"_level_push_again", push_again, METH_O,
     "_level_push_again(id)\n--\n\nThe grad level that had this id, once more."},
    {"_level_id", level_id, METH_O, "_level_id(level)\n--\n\nIts number."},
    {"_level_pop", pop, METH_O, "_level_pop(level)\n--\n\nTakes the level off again."},
    {"_grad_wrap_all", grad_wrap_all, METH_VARARGS,
     "_grad_wrap_all(level, values)\n--\n\nValues at the level, to differentiate by."},
    {"_grad_unwrap", grad_unwrap, METH_VARARGS,
     "_grad_unwrap(level, t)\n--\n\nt's value one level down."},
    {"_grad_unwrap_all", grad_unwrap_all, METH_VARARGS,
     "_grad_unwrap_all(level, tensors)\n--\n\nTheir values one level down."},
    {"_grad_of", grad_of, METH_VARARGS,
     "_grad_of(level, roots, weights, inputs, retain)\n--\n\nDerivatives one level down."},
    {"_dual_all", dual_all, METH_VARARGS,
     "_dual_all(level, values, tangents)\n--\n\nValues with tangents (None: zero)."},
    {"_undual_all", undual_all, METH_VARARGS,
     "_undual_all(level, tensors)\n--\n\nValues, and tangents."},
    {"_level_push_jet", push_jet, METH_O,
     "_level_push_jet(order)\n--\n\nA level of series with that many coefficients."},
    {"_series", series, METH_VARARGS,
     "_series(level, x, coefficients)\n--\n\nx with Taylor coefficients (None: zero)."},
    {"_unseries", unseries, METH_VARARGS,
     "_unseries(level, t)\n--\n\nThe value and its Taylor coefficients."},
    {"_jet_fallbacks", jet_fallbacks, METH_NOARGS,
     "_jet_fallbacks()\n--\n\nHow often an op's series was found order by order so far."},
    {"_autocast_push", autocast_push, METH_VARARGS,
     "_autocast_push(dtype, enabled)\n--\n\nAn autocast level, above all others."},
    {"_autocast_pop", autocast_pop, METH_O,
     "_autocast_pop(autocast)\n--\n\nTakes the level off again."},
    {"_autocast_now", autocast_now, METH_NOARGS,
     "_autocast_now()\n--\n\nThe dtype that products are cast to in this thread, or None."},
    {NULL, NULL, 0, NULL},
};
