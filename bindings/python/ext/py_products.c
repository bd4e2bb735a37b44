/* einsum and tensordot: what their arguments say, as C wants it. */
#include "bindings/python/ext/py_int.h"

#include <string.h>

#include "ops_gen.h"

/* ---- einsum ----- */

enum { EQUATION = 1024 };

typedef struct text {
    char chars[EQUATION];
    size_t n;
} text;

static int add(text *t, const char *more)
{
    size_t n = strlen(more);
    if (t->n + n >= EQUATION) {
        PyErr_SetString(PyExc_ValueError, "einsum: too many subscripts");
        return -1;
    }
    memcpy(t->chars + t->n, more, n + 1);
    t->n += n;
    return 0;
}

/* [0, ..., 27] as "A...b". */
static int add_sublist(text *t, PyObject *list)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    PyObject *items = PySequence_Fast(list, "einsum: expected a list of subscripts");
    int failed = items ? 0 : -1;
    for (Py_ssize_t i = 0; !failed && i < PySequence_Fast_GET_SIZE(items); i++) {
        PyObject *item = PySequence_Fast_GET_ITEM(items, i);
        int64_t number;
        char one[2] = {0};
        if (item == Py_Ellipsis) {
            failed = add(t, "...");
            continue;
        }
        failed = sp__py_int(item, "einsum", "a subscript", &number);
        if (!failed && (number < 0 || number >= 52)) {
            PyErr_Format(PyExc_ValueError, "einsum: subscript %lld, expected 0 to 51",
                         (long long)number);
            failed = -1;
        }
        if (!failed) one[0] = letters[number], failed = add(t, one);
    }
    Py_XDECREF(items);
    return failed;
}

/* Operands, each followed by its subscripts, and maybe those of the result. */
static int of_sublists(PyObject *const *args, Py_ssize_t n, text *equation, PyObject **operands)
{
    Py_ssize_t count = n / 2;
    int failed = 0;
    *operands = PyTuple_New(count);
    if (!*operands) return -1;
    for (Py_ssize_t i = 0; !failed && i < count; i++) {
        PyTuple_SET_ITEM(*operands, i, Py_NewRef(args[2 * i]));
        failed = (i && add(equation, ",")) || add_sublist(equation, args[2 * i + 1]);
    }
    if (!failed && n % 2) failed = add(equation, "->") || add_sublist(equation, args[n - 1]);
    if (failed) Py_CLEAR(*operands);
    return failed ? -1 : 0;
}

static int of_equation(PyObject *const *args, Py_ssize_t n, text *equation, PyObject **operands)
{
    const char *chars = PyUnicode_AsUTF8(args[0]);
    if (!chars || add(equation, chars) < 0) return -1;
    if (n == 2 && (PyList_Check(args[1]) || PyTuple_Check(args[1]))) {
        *operands = PySequence_Tuple(args[1]);
        return *operands ? 0 : -1;
    }
    *operands = PyTuple_New(n - 1);
    for (Py_ssize_t i = 1; *operands && i < n; i++)
        PyTuple_SET_ITEM(*operands, i - 1, Py_NewRef(args[i]));
    return *operands ? 0 : -1;
}

static PyObject *einsum(PyObject *module, PyObject *const *args, Py_ssize_t n)
{
    (void)module;
    text equation = {.n = 0};
    PyObject *operands = NULL, *result = NULL;
    sp_tensor *out = NULL;
    if (n == 0) return PyErr_Format(PyExc_TypeError, "einsum: expected an equation and tensors");
    if ((PyUnicode_Check(args[0]) ? of_equation : of_sublists)(args, n, &equation, &operands) < 0)
        return NULL;
    Py_ssize_t count = PyTuple_GET_SIZE(operands);
    const sp_tensor **xs = PyMem_New(const sp_tensor *, count + 1);
    if (!xs) PyErr_NoMemory();
    for (Py_ssize_t i = 0; xs && i < count; i++) {
        xs[i] = sp__py_tensor_arg(PyTuple_GET_ITEM(operands, i), "einsum", "an operand");
        if (!xs[i]) goto out;
    }
    if (xs) result = sp__py_result(sp_einsum(equation.chars, xs, (int)count, &out), out);
out:
    PyMem_Free(xs);
    Py_DECREF(operands);
    return result;
}

/* ---- tensordot ----- */

typedef struct pairs {
    int64_t x[SP_MAX_RANK], other[SP_MAX_RANK];
    int n_x, n_other;
} pairs;

/* An int: so many of x's last dimensions with other's first ones. */
static int counted_pairs(const sp_tensor *x, const sp_tensor *other, PyObject *dims, pairs *p)
{
    int64_t n;
    if (sp__py_int(dims, "tensordot", "dims", &n) < 0) return -1;
    if (n < 0 || n > x->rank || n > other->rank) {
        PyErr_Format(PyExc_ValueError, "tensordot: dims is %lld for tensors of shapes %s and %s",
                     (long long)n, SP_SHAPE(x), SP_SHAPE(other));
        return -1;
    }
    p->n_x = p->n_other = (int)n;
    for (int i = 0; i < n; i++) p->x[i] = x->rank - n + i, p->other[i] = i;
    return 0;
}

static int listed_pairs(PyObject *dims, pairs *p)
{
    PyObject *two = PySequence_Fast(dims, "tensordot: dims must be an int or two lists of ints");
    int failed = -1;
    if (!two) return -1;
    if (PySequence_Fast_GET_SIZE(two) != 2)
        PyErr_SetString(PyExc_ValueError, "tensordot: dims must be an int or two lists of ints");
    else
        failed =
            sp__py_ints(PySequence_Fast_GET_ITEM(two, 0), "tensordot", "dims", p->x, &p->n_x) ||
            sp__py_ints(PySequence_Fast_GET_ITEM(two, 1), "tensordot", "dims", p->other,
                        &p->n_other);
    Py_DECREF(two);
    return failed ? -1 : 0;
}

static PyObject *tensordot(PyObject *module, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    (void)module;
    static const char *const words[] = {"x", "other", "dims"};
    PyObject *v[3];
    pairs p = {.n_x = 2};
    sp_tensor *out = NULL;
    if (sp__py_take("tensordot", words, 3, NULL, args, n, names, v) < 0) return NULL;
    if (!v[0] || !v[1])
        return PyErr_Format(PyExc_TypeError, "tensordot: expected two tensors and dims");
    const sp_tensor *x = sp__py_tensor_arg(v[0], "tensordot", "x");
    const sp_tensor *other = x ? sp__py_tensor_arg(v[1], "tensordot", "other") : NULL;
    if (!other) return NULL;
    PyObject *dims = v[2] ? Py_NewRef(v[2]) : PyLong_FromLong(2);
    if (!dims) return NULL;
    int failed = PyIndex_Check(dims) && !sp__py_is_tensor(dims) ? counted_pairs(x, other, dims, &p)
                                                                : listed_pairs(dims, &p);
    Py_DECREF(dims);
    if (failed) return NULL;
    return sp__py_result(sp_tensordot_dims(x, other, p.x, p.n_x, p.other, p.n_other, &out), out);
}

/* ---- table ----- */

PyMethodDef sp__py_product_functions[] = {
    {"einsum", (PyCFunction)(void *)einsum, METH_FASTCALL,
     "einsum(equation, *operands)\n--\n\nSums of products, said by letters: 'ij,jk->ik' is "
     "matmul.\n\nA letter for each dimension of each operand; ... stands for any number of further "
     "ones, which broadcast. A letter that stands twice for one operand takes the diagonal. What "
     "is not in the result, behind ->, is summed over; without ->, the result has the letters that "
     "stand once, by alphabet. Operands are joined two at a time, those with the smallest result "
     "first. Also einsum(x, [0, 1], y, [1, 2], [0, 2]).\n\n"
     "Raises\n------\nValueError\n    The equation cannot be read, or has not one part an "
     "operand.\n"
     "ShapeError\n    Letters and dimensions do not match, or one letter stands for two sizes.\n\n"
     "Examples\n--------\n>>> spool.einsum('i,i->', spool.ones(3), spool.ones(3))\ntensor(3.)"},
    {"tensordot", (PyCFunction)(void *)tensordot, METH_FASTCALL | METH_KEYWORDS,
     "tensordot(x, other, dims=2)\n--\n\nSums of products over pairs of dimensions: the last dims "
     "ones of x with the first of other, or those that two lists name."},
    {NULL, NULL, 0, NULL},
};
