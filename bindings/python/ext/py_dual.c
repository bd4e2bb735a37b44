/* The levels of spool/autograd/forward_ad.py, which a program enters and leaves as it likes.
 *
 * Invariant: a level is named by its id, which is never reused, and looked up on this thread's
 * stack at every use. So a level that a transform around it has ended already, or that is another
 * thread's, is refused and not followed.
 */
#include "bindings/python/ext/py_int.h"

#include "autograd/transform.h"

static sp_level *level_of(uint64_t id)
{
    sp_level *level = sp__tls.top;
    while (level && level->id != id) level = level->below;
    return level;
}

static sp_status find(uint64_t id, const char *op, sp_level **out)
{
    *out = level_of(id);
    if (*out) return SP_OK;
    return sp_fail(SP_EGRAD,
                   "%s: the dual level has ended, with the transform that it was entered in, or it "
                   "is another thread's; enter one here with dual_level()",
                   op);
}

/* EGRAD when t belongs to a transform that was entered inside the level: its tangent is not one of
 * the level's tensors. */
static sp_status check_below(const sp_level *level, const sp_tensor *t, const char *op)
{
    static const char *const names[] = {[SP_LEVEL_JVP] = "jvp or dual_level",
                                        [SP_LEVEL_VMAP] = "vmap",
                                        [SP_LEVEL_GRAD] = "grad",
                                        [SP_LEVEL_JET] = "jet"};
    SP_RETURN_IF(sp__check_alive(t, op));
    if (!t->wrap) return SP_OK;
    for (const sp_level *l = sp__top_transform(); l && l != level; l = l->below)
        if (l->id == t->wrap->level_id)
            return sp_fail(SP_EGRAD,
                           "%s: the tensor belongs to %s, which was entered inside the dual level; "
                           "enter a dual_level() inside that as well, or take the tensor out first",
                           op, names[l->kind]);
    return SP_OK;
}

static PyObject *dual_enter(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    sp_level *level = NULL;
    sp_status status = sp__level_push(SP_LEVEL_JVP, &level);
    return status ? sp__py_raise(status) : PyLong_FromUnsignedLongLong(level->id);
}

static PyObject *dual_exit(PyObject *module, PyObject *id)
{
    (void)module;
    sp_level *level = level_of(PyLong_AsUnsignedLongLongMask(id));
    if (PyErr_Occurred()) return NULL;
    if (level && level != sp__top_transform())
        return sp__py_raise(sp_fail(SP_EGRAD,
                                    "exit_dual_level: a transform or level that was entered inside "
                                    "this one still runs; leave that first"));
    if (level) sp__level_pop(level);
    Py_RETURN_NONE;
}

/* x without the wrapper that everything made inside the level has. EGRAD when it has a tangent. */
static sp_status constant_of(sp_level *level, const sp_tensor *x, const char *what, sp_tensor **out)
{
    sp_tensor *tangent = NULL;
    SP_RETURN_IF(check_below(level, x, "make_dual"));
    SP_RETURN_IF(sp__dual_parts(level, x, out, &tangent));
    if (!tangent) return SP_OK;
    sp_drop(&tangent), sp_drop(out);
    return sp_fail(SP_EGRAD,
                   "make_dual: the %s has a tangent at this level already; enter another "
                   "dual_level() for a second derivative, or give unpack_dual(%s).primal",
                   what, what);
}

static PyObject *dual_make(PyObject *module, PyObject *args)
{
    (void)module;
    unsigned long long id;
    PyObject *primal, *tangent;
    sp_level *level;
    sp_tensor *x = NULL, *along = NULL, *out = NULL;
    if (!PyArg_ParseTuple(args, "KOO:_dual_make", &id, &primal, &tangent)) return NULL;
    const sp_tensor *given[] = {sp__py_tensor_arg(primal, "make_dual", "tensor"),
                                sp__py_tensor_arg(tangent, "make_dual", "tangent")};
    if (PyErr_Occurred()) return NULL;
    sp_status status = SP_OK;
    SP_TRY(find(id, "make_dual", &level));
    SP_TRY(constant_of(level, given[0], "tensor", &x));
    SP_TRY(constant_of(level, given[1], "tangent", &along));
    SP_TRY(sp__dual(level, x, along, &out));
out:
    sp_drop(&x), sp_drop(&along);
    return status ? sp__py_raise(status) : (PyObject *)out;
}

static PyObject *dual_unpack(PyObject *module, PyObject *args)
{
    (void)module;
    unsigned long long id;
    PyObject *tensor;
    sp_level *level = NULL;
    sp_tensor *value = NULL, *tangent = NULL;
    if (!PyArg_ParseTuple(args, "KO:_dual_unpack", &id, &tensor)) return NULL;
    const sp_tensor *t = sp__py_tensor_arg(tensor, "unpack_dual", "tensor");
    if (!t) return NULL;
    sp_status status = SP_OK;
    if (id) SP_TRY(find(id, "unpack_dual", &level));
    SP_TRY(check_below(level, t, "unpack_dual"));
    if (!level) return Py_BuildValue("(OO)", tensor, Py_None);
    SP_TRY(sp__dual_parts(level, t, &value, &tangent));
out:
    if (status) return sp__py_raise(status);
    return Py_BuildValue("(NN)", value, tangent ? (PyObject *)tangent : Py_NewRef(Py_None));
}

static PyObject *of_level(PyObject *module, PyObject *tensor)
{
    (void)module;
    const sp_tensor *t = sp__py_tensor_arg(tensor, "_of_level", "tensor");
    return t ? PyBool_FromLong(t->wrap != NULL) : NULL;
}

PyMethodDef sp__py_dual_functions[] = {
    {"_dual_enter", dual_enter, METH_NOARGS,
     "_dual_enter()\n--\n\nA dual level on top of this thread's stack: its id."},
    {"_dual_exit", dual_exit, METH_O,
     "_dual_exit(id)\n--\n\nTakes the level off, unless that has happened."},
    {"_dual_make", dual_make, METH_VARARGS, "_dual_make(id, x, tangent)\n--\n\nx with a tangent."},
    {"_dual_unpack", dual_unpack, METH_VARARGS,
     "_dual_unpack(id, t)\n--\n\nValue, and tangent or None; id 0: of no level."},
    {"_of_level", of_level, METH_O,
     "_of_level(t)\n--\n\nWhether t belongs to a transform or a dual level."},
    {NULL, NULL, 0, NULL},
};
