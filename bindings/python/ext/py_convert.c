/* Python numbers and sequences of ints as C values, and back.
 *
 * A number is a bool, int or float, or what converts to one without being a container: NumPy's
 * scalars are numbers, arrays and tensors are not. Tensors of one element serve where an int is
 * asked for (sizes, dims, indices).
 */
#include "bindings/python/ext/py_int.h"

static bool is_container(PyTypeObject *type)
{
    return (type->tp_as_sequence && type->tp_as_sequence->sq_length) ||
           (type->tp_as_mapping && type->tp_as_mapping->mp_length);
}

static int number_of_int(PyObject *o, sp_scalar *out)
{
    int overflow;
    long long value = PyLong_AsLongLongAndOverflow(o, &overflow);
    if (overflow) {
        PyErr_SetString(PyExc_OverflowError,
                        "an integer beyond 64 bits; convert it to float first");
        return -1;
    }
    *out = SP_INT(value);
    return 1;
}

/* numpy.bool_ has neither __index__ nor a subclass of bool; older NumPy calls it numpy.bool_, newer
 * numpy.bool. */
static bool is_numpy_bool(PyObject *o)
{
    return strncmp(Py_TYPE(o)->tp_name, "numpy.bool", 10) == 0;
}

static bool is_complex(PyObject *o)
{
    return PyComplex_Check(o) || strncmp(Py_TYPE(o)->tp_name, "numpy.complex", 13) == 0;
}

int sp__py_complex(PyObject *o, double part[2])
{
    if (!is_complex(o)) return 0;
    Py_complex value = PyComplex_AsCComplex(o);
    part[0] = value.real, part[1] = value.imag;
    return value.real == -1.0 && PyErr_Occurred() ? -1 : 1;
}

sp_tensor *sp__py_complex_tensor(PyObject *o, const sp_tensor *beside)
{
    double part[2];
    sp_element room;
    sp_tensor *t = NULL;
    sp_dtype dtype = beside ? sp__dtype_complex(beside->dtype) : SP_COMPLEX128;
    if (sp__py_complex(o, part) < 0) return NULL;
    sp__complex_to(part, dtype, &room);
    sp_status status = sp_from_data(&room, dtype, 0, NULL, &t);
    if (status) sp__py_raise(status);
    return t;
}

static int number_by_protocol(PyObject *o, sp_scalar *out)
{
    PyTypeObject *type = Py_TYPE(o);
    if (sp__py_is_tensor(o) || !type->tp_as_number || is_container(type)) return 0;
    if (is_numpy_bool(o)) {
        int truth = PyObject_IsTrue(o);
        *out = (sp_scalar){.v.i = truth, .kind = SP_BOOL};
        return truth < 0 ? -1 : 1;
    }
    if (type->tp_as_number->nb_index) {
        PyObject *index = PyNumber_Index(o);
        if (!index) return -1;
        int found = number_of_int(index, out);
        Py_DECREF(index);
        return found;
    }
    if (!type->tp_as_number->nb_float || is_complex(o)) return 0;
    double value = PyFloat_AsDouble(o);
    if (value == -1.0 && PyErr_Occurred()) return -1;
    *out = SP_FLOAT(value);
    return 1;
}

int sp__py_number(PyObject *o, sp_scalar *out)
{
    if (PyFloat_Check(o)) {
        *out = SP_FLOAT(PyFloat_AS_DOUBLE(o));
        return 1;
    }
    if (PyBool_Check(o)) {
        *out = (sp_scalar){.v.i = o == Py_True, .kind = SP_BOOL};
        return 1;
    }
    if (PyLong_Check(o)) return number_of_int(o, out);
    return number_by_protocol(o, out);
}

int sp__py_scalar(PyObject *o, const char *op, const char *arg, sp_scalar *out)
{
    int found = sp__py_number(o, out);
    if (found == 0) return sp__py_wrong_type(op, arg, "a number", o);
    return found < 0 ? -1 : 0;
}

int sp__py_int(PyObject *o, const char *op, const char *arg, int64_t *out)
{
    PyObject *index = PyLong_Check(o) ? Py_NewRef(o) : NULL;
    if (!index) {
        if (!PyIndex_Check(o)) return sp__py_wrong_type(op, arg, "an int", o);
        index = PyNumber_Index(o);
        if (!index) return -1;
    }
    int overflow;
    *out = PyLong_AsLongLongAndOverflow(index, &overflow);
    Py_DECREF(index);
    if (overflow) {
        PyErr_Format(PyExc_OverflowError, "%s: %s is beyond 64 bits", op, arg);
        return -1;
    }
    return 0;
}

int sp__py_float(PyObject *o, const char *op, const char *arg, double *out)
{
    sp_scalar value;
    int found = sp__py_number(o, &value);
    if (found < 0) return -1;
    if (found == 0) return sp__py_wrong_type(op, arg, "a float", o);
    *out = value.kind == SP_FLOAT64 ? value.v.f : (double)value.v.i;
    return 0;
}

int sp__py_bool(PyObject *o, const char *op, const char *arg, bool *out)
{
    if (!PyBool_Check(o) && !is_numpy_bool(o)) return sp__py_wrong_type(op, arg, "a bool", o);
    int truth = PyObject_IsTrue(o);
    *out = truth > 0;
    return truth < 0 ? -1 : 0;
}

static int ints_from(PyObject *const *items, Py_ssize_t n_items, const char *op, const char *arg,
                     int64_t *out, int *n)
{
    if (n_items > SP_MAX_RANK) {
        PyErr_Format(sp__py_shape_error,
                     "%s: %s has %zd entries; a tensor has at most %d dimensions", op, arg, n_items,
                     SP_MAX_RANK);
        return -1;
    }
    for (Py_ssize_t i = 0; i < n_items; i++)
        if (sp__py_int(items[i], op, arg, &out[i]) < 0) return -1;
    *n = (int)n_items;
    return 0;
}

int sp__py_ints(PyObject *o, const char *op, const char *arg, int64_t *out, int *n)
{
    if (PyTuple_Check(o))
        return ints_from(&PyTuple_GET_ITEM(o, 0), PyTuple_GET_SIZE(o), op, arg, out, n);
    if (PyIndex_Check(o) && !is_container(Py_TYPE(o))) return ints_from(&o, 1, op, arg, out, n);
    if (PyUnicode_Check(o) || !PySequence_Check(o))
        return sp__py_wrong_type(op, arg, "an int or a sequence of ints", o);
    PyObject *items = PySequence_Tuple(o);
    if (!items) return -1;
    int result = ints_from(&PyTuple_GET_ITEM(items, 0), PyTuple_GET_SIZE(items), op, arg, out, n);
    Py_DECREF(items);
    return result;
}

int sp__py_ints_args(PyObject *const *args, Py_ssize_t n_args, const char *op, const char *arg,
                     int64_t *out, int *n)
{
    if (n_args == 1) return sp__py_ints(args[0], op, arg, out, n);
    return ints_from(args, n_args, op, arg, out, n);
}

PyObject *sp__py_from_element(const void *at, int dtype)
{
    double part[2];
    if (!sp__dtype_is_complex(dtype)) return sp__py_from_scalar(sp__scalar_from(at, dtype));
    sp__complex_from(at, dtype, part);
    return PyComplex_FromDoubles(part[0], part[1]);
}

PyObject *sp__py_from_scalar(sp_scalar value)
{
    switch (value.kind) {
    case SP_BOOL: return PyBool_FromLong(value.v.i != 0);
    case SP_INT64: return PyLong_FromLongLong(value.v.i);
    default: return PyFloat_FromDouble(value.v.f);
    }
}

PyObject *sp__py_tuple(sp_tensor **t, int n)
{
    PyObject *tuple = PyTuple_New(n);
    for (int i = 0; i < n; i++) {
        if (!tuple)
            sp_drop(&t[i]);
        else
            PyTuple_SET_ITEM(tuple, i, t[i] ? sp__py_object(t[i]) : Py_NewRef(Py_None));
    }
    return tuple;
}
