/* Spool's statuses as Python exceptions, and Python's exceptions as a status. */
#include "bindings/python/ext/py_int.h"

#include <string.h>

PyObject *sp__py_error, *sp__py_shape_error, *sp__py_dtype_error, *sp__py_format_error;

static PyObject *exception_of(sp_status status)
{
    switch (status) {
    case SP_ESHAPE: return sp__py_shape_error;
    case SP_EDTYPE: return sp__py_dtype_error;
    case SP_ETYPE: return PyExc_TypeError;
    case SP_EVALUE: return PyExc_ValueError;
    case SP_EINDEX: return PyExc_IndexError;
    case SP_EMEMORY: return PyExc_MemoryError;
    case SP_EIO: return PyExc_OSError;
    case SP_EFORMAT: return sp__py_format_error;
    case SP_EUNSUPPORTED: return PyExc_NotImplementedError;
    default: return sp__py_error;
    }
}

PyObject *sp__py_raise(sp_status status)
{
    if (status == SP_ECALLBACK && PyErr_Occurred()) return NULL;
    /* An exception may be set already by a callback whose failure was turned into something else on
     * the way. A message may quote a file's bytes, which need not be text. */
    PyErr_Clear();
    const char *text = sp_last_error();
    PyObject *message = PyUnicode_DecodeUTF8(text, (Py_ssize_t)strlen(text), "replace");
    if (message == NULL) return NULL;
    PyErr_SetObject(exception_of(status), message);
    Py_DECREF(message);
    return NULL;
}

sp_status sp__py_callback_failed(const char *what)
{
    return sp_fail(SP_ECALLBACK, "%s: the Python function raised an exception", what);
}

int sp__py_wrong_type(const char *op, const char *arg, const char *wanted, PyObject *o)
{
    PyErr_Format(PyExc_TypeError, "%s: %s must be %s, not %.100s", op, arg, wanted,
                 Py_TYPE(o)->tp_name);
    return -1;
}

/* Makes spool.<name>(bases) and puts it into the module. */
static PyObject *new_error(PyObject *module, const char *name, const char *doc, PyObject *base,
                           PyObject *second)
{
    char full[64];
    snprintf(full, sizeof full, "spool.%s", name);
    PyObject *bases = second ? PyTuple_Pack(2, base, second) : PyTuple_Pack(1, base);
    if (!bases) return NULL;
    PyObject *error = PyErr_NewExceptionWithDoc(full, doc, bases, NULL);
    Py_DECREF(bases);
    if (error && PyObject_SetAttrString(module, name, error) < 0) Py_CLEAR(error);
    return error;
}

int sp__py_errors_start(PyObject *module)
{
    sp__py_error =
        new_error(module, "SpoolError",
                  "Whatever goes wrong inside Spool; see also the errors derived from it.",
                  PyExc_RuntimeError, NULL);
    if (!sp__py_error) return -1;
    sp__py_shape_error = new_error(module, "ShapeError", "Shapes do not fit the op or each other.",
                                   sp__py_error, PyExc_ValueError);
    sp__py_dtype_error = new_error(module, "DTypeError", "A dtype that the op does not take.",
                                   sp__py_error, PyExc_TypeError);
    sp__py_format_error = new_error(module, "FormatError", "A file whose content is broken.",
                                    sp__py_error, PyExc_ValueError);
    return sp__py_shape_error && sp__py_dtype_error && sp__py_format_error ? 0 : -1;
}
