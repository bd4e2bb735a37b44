/* _update_each: one op on many tuples of tensors, in place (ops/each.c), for spool.optim.
 */
#include "bindings/python/ext/py_int.h"

#include "ops/attr.h"
#include "ops_gen.h"

static int op_of(PyObject *name)
{
    const char *text = PyUnicode_AsUTF8(name);
    if (!text) return -1;
    int op = sp__op_by_name(text);
    if (op >= 0 && sp_op_table[op].flags & SP_OPF_UPDATES) return op;
    PyErr_Format(PyExc_ValueError, "_update_each: %s is no op that updates tensors", text);
    return -1;
}

static int attr_of(const sp_op_info *info, int i, PyObject *o, sp_attr *out)
{
    sp_scalar number = {.kind = SP_BOOL};
    bool truth = false;
    if (info->attr_kinds[i] == SP_ATTR_BOOL) {
        if (sp__py_bool(o, info->name, info->attr_names[i], &truth) < 0) return -1;
        *out = sp__attr_bool(truth);
        return 0;
    }
    if (sp__py_scalar(o, info->name, info->attr_names[i], &number) < 0) return -1;
    *out = sp__attr_scalar(number);
    return 0;
}

static int check_tensors(const sp_op_info *info, PyObject *list)
{
    if (!PyList_CheckExact(list) || PyList_GET_SIZE(list) % info->n_in != 0) {
        PyErr_Format(PyExc_TypeError, "%s: expected a list of tensors, %d for each parameter",
                     info->name, info->n_in);
        return -1;
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); i++) {
        PyObject *o = PyList_GET_ITEM(list, i);
        if (!sp__py_is_tensor(o))
            return sp__py_wrong_type(info->name, info->in_names[i % info->n_in], "a tensor", o);
    }
    return 0;
}

/* Complex tensors of the list become views of their parts: a step is one of each part. */
static int view_parts(PyObject *list)
{
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); i++) {
        const sp_tensor *t = sp__py_handle(PyList_GET_ITEM(list, i));
        sp_tensor *parts = NULL;
        if (SP_LIKELY(!sp__dtype_is_complex(t->dtype))) continue;
        PyObject *o = sp__py_result(sp_view_as_real(t, &parts), parts);
        if (!o) return -1;
        PyList_SetItem(list, i, o);
    }
    return 0;
}

/* A tensor is its own handle, so the list is the array of inputs; its caller keeps it to itself. */
static PyObject *update_each(PyObject *module, PyObject *const *args, Py_ssize_t n)
{
    int op = n < 2 ? -1 : op_of(args[0]);
    (void)module;
    if (n < 2) PyErr_SetString(PyExc_TypeError, "_update_each: expected an op and tensors");
    if (op < 0) return NULL;
    const sp_op_info *info = &sp_op_table[op];
    if (check_tensors(info, args[1]) < 0 || view_parts(args[1]) < 0) return NULL;
    if (n - 2 != info->n_attr)
        return PyErr_Format(PyExc_TypeError, "%s: expected %d numbers, got %zd", info->name,
                            info->n_attr, n - 2);
    sp_call c = {.op = (uint16_t)op,
                 .n_out = info->n_out,
                 .n_attr = info->n_attr,
                 .n_in = info->n_in,
                 .in = (sp_tensor **)((PyListObject *)args[1])->ob_item};
    for (int i = 0; i < info->n_attr; i++)
        if (attr_of(info, i, args[2 + i], &c.attr[i]) < 0) return NULL;
    sp_status status = sp__dispatch_each(&c, (int)(PyList_GET_SIZE(args[1]) / info->n_in));
    if (status != SP_OK) return sp__py_raise(status);
    Py_RETURN_NONE;
}

PyMethodDef sp__py_each_functions[] = {
    {"_update_each", (PyCFunction)(void (*)(void))update_each, METH_FASTCALL,
     "_update_each(op, tensors, *numbers)\n--\n\nMakes many calls of an op that updates, in place: "
     "tensors is a new list of the inputs of the first call, of the second and so on."},
    {NULL, NULL, 0, NULL},
};
