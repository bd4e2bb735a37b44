/* The general way of a Python call to an op: match arguments to parameters, pick the overload,
 * convert, dispatch.
 *
 * Invariants
 * 1. Matching (place, misfit) has no side effects and raises nothing, so that overloads can be
 * tried in turn.
 * 2. What a call borrows (handles, int lists) lives in `bound` or in the arguments until the
 * dispatch returned.
 */
#include "bindings/python/ext/py_parse.h"

#include "bindings/python/ext/py_int.h"

enum { LOCAL_INPUTS = 32 };

typedef struct bound {
    PyObject *value[SP_PY_MAX_PARAMS];            /* by parameter; NULL: not given; borrowed */
    PyObject *out;                                /* out=, unless None */
    PyObject *generator, *device, *requires_grad; /* unless None, where the signature has them */
    PyObject *const *spread; /* positional arguments that are one list of ints */
    Py_ssize_t n_spread;
    int spread_at; /* the parameter they belong to; -1: none */
    /* converted */
    sp_call call;
    sp_tensor *inputs[LOCAL_INPUTS];
    sp_tensor **many;   /* more inputs than fit; owned */
    PyObject *sequence; /* keeps the inputs of a Tensor[] alive; owned */
    int n_lists;
    int64_t lists[SP_PY_MAX_LISTS][SP_MAX_RANK];
} bound;

typedef enum misfit_kind {
    FITS,
    WRONG_KIND,
    MISSING,
    TOO_MANY,
    UNKNOWN_KEYWORD,
    GIVEN_TWICE
} misfit_kind;

typedef struct misfit {
    misfit_kind kind;
    int at;        /* the parameter, or the number of arguments that would be fine */
    PyObject *who; /* the keyword, or the argument; borrowed */
} misfit;

/* ---- matching ----- */

static bool same_word(PyObject **word, const char *text, PyObject *name)
{
    if (!*word) *word = PyUnicode_InternFromString(text);
    if (!*word) PyErr_Clear();
    if (*word == name) return true;
    if (*word && PyUnicode_CHECK_INTERNED(name)) return false;
    return PyUnicode_CompareWithASCIIString(name, text) == 0;
}

static int find_param(const sp__py_sig *sig, PyObject *name)
{
    for (int i = 0; i < sig->n_params; i++) {
        if (same_word(&sig->params[i].word, sig->params[i].name, name)) return i;
    }
    return -1;
}

static misfit place_positional(const sp__py_sig *sig, PyObject *self, PyObject *const *args,
                               Py_ssize_t n, bound *b)
{
    int at = 0;
    if (self) b->value[at++] = self;
    for (Py_ssize_t i = 0; i < n; i++, at++) {
        if (at >= sig->n_params || (sig->params[at].flags & SP_PY_KEYWORD))
            return (misfit){TOO_MANY, at, NULL};
        if (sig->params[at].flags & SP_PY_SPREAD) {
            b->value[at] = args[i], b->spread = args + i, b->n_spread = n - i, b->spread_at = at;
            break;
        }
        b->value[at] = args[i];
    }
    return (misfit){FITS, 0, NULL};
}

/* Where the value of a keyword goes that the op itself does not know; NULL: nowhere. */
static PyObject **extra_at(const sp__py_sig *sig, PyObject *name, bound *b)
{
    static PyObject *out, *generator, *device, *requires_grad;
    if (sig->has_out && same_word(&out, "out", name)) return &b->out;
    if (sig->extras & SP_PY_DRAWS && same_word(&generator, "generator", name)) return &b->generator;
    if (!(sig->extras & SP_PY_MAKES)) return NULL;
    if (same_word(&device, "device", name)) return &b->device;
    return same_word(&requires_grad, "requires_grad", name) ? &b->requires_grad : NULL;
}

static misfit place_keywords(const sp__py_sig *sig, PyObject *const *values, PyObject *names,
                             bound *b)
{
    Py_ssize_t n = names ? PyTuple_GET_SIZE(names) : 0;
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *name = PyTuple_GET_ITEM(names, i);
        PyObject **extra;
        int at = find_param(sig, name);
        if (at >= 0) {
            if (b->value[at]) return (misfit){GIVEN_TWICE, at, name};
            b->value[at] = values[i];
        } else if ((extra = extra_at(sig, name, b))) {
            *extra = values[i] == Py_None ? NULL : values[i];
        } else {
            return (misfit){UNKNOWN_KEYWORD, 0, name};
        }
    }
    return (misfit){FITS, 0, NULL};
}

/* Matches arguments to a signature's parameters by position and name. */
static misfit place(const sp__py_sig *sig, PyObject *self, PyObject *const *args, Py_ssize_t n,
                    PyObject *names, bound *b)
{
    for (int i = 0; i < sig->n_params; i++) b->value[i] = NULL;
    b->out = b->generator = b->device = b->requires_grad = NULL, b->spread_at = -1;
    misfit m = place_positional(sig, self, args, n, b);
    if (m.kind == FITS) m = place_keywords(sig, args + n, names, b);
    for (int i = 0; i < sig->n_params && m.kind == FITS; i++) {
        if (!b->value[i] && (sig->params[i].flags & SP_PY_REQUIRED)) m = (misfit){MISSING, i, NULL};
    }
    return m;
}

static bool is_number(PyObject *o)
{
    sp_scalar ignored;
    if (PyFloat_Check(o) || PyLong_Check(o)) return true;
    if (sp__py_is_tensor(o)) return false;
    if (sp__py_number(o, &ignored) == 0) return false;
    PyErr_Clear();
    return true;
}

static bool is_ints(PyObject *o)
{
    if (PyLong_Check(o) || PyTuple_Check(o) || PyList_Check(o)) return true;
    return !PyUnicode_Check(o) && !sp__py_is_tensor(o) && (PySequence_Check(o) || PyIndex_Check(o));
}

/* Whether an argument is of the kind that a parameter wants, by type alone. */
static bool is_kind(const sp__py_param *p, PyObject *o)
{
    if (o == Py_None) return (p->flags & SP_PY_NONE) != 0;
    switch ((sp__py_kind)p->kind) {
    case SP_PY_TENSOR: return sp__py_is_tensor(o);
    case SP_PY_TENSORS: return PyTuple_Check(o) || PyList_Check(o);
    case SP_PY_SCALAR:
    case SP_PY_FLOAT: return is_number(o);
    case SP_PY_INT: return PyLong_Check(o) || (PyIndex_Check(o) && !sp__py_is_tensor(o));
    case SP_PY_BOOL: return PyBool_Check(o);
    case SP_PY_INTS: return is_ints(o);
    case SP_PY_DTYPE: return sp__py_is_dtype(o) || PyType_Check(o);
    case SP_PY_CHOICE: return PyUnicode_Check(o);
    }
    return false;
}

/* The first argument of the wrong kind. */
static misfit check_kinds(const sp__py_sig *sig, const bound *b)
{
    for (int i = 0; i < sig->n_params; i++) {
        if (b->value[i] && !is_kind(&sig->params[i], b->value[i]))
            return (misfit){WRONG_KIND, i, b->value[i]};
    }
    return (misfit){FITS, 0, NULL};
}

/* ---- messages ----- */

static const char *wanted(const sp__py_param *p)
{
    static const char *const text[] = {
        [SP_PY_TENSOR] = "a Tensor",     [SP_PY_TENSORS] = "a sequence of Tensors",
        [SP_PY_SCALAR] = "a number",     [SP_PY_INT] = "an int",
        [SP_PY_FLOAT] = "a number",      [SP_PY_BOOL] = "a bool",
        [SP_PY_INTS] = "an int or ints", [SP_PY_DTYPE] = "a dtype",
        [SP_PY_CHOICE] = "a string",
    };
    return text[p->kind];
}

/* "add(Tensor x, Tensor y)\n  add(Tensor x, Scalar y)": a new reference, or NULL with an exception.
 */
static PyObject *signatures(const sp__py_group *g)
{
    PyObject *text = PyUnicode_FromString(g->sigs[0].text);
    for (int i = 1; i < g->n_sigs && text; i++) {
        PyObject *longer = PyUnicode_FromFormat("%U\n  %s", text, g->sigs[i].text);
        Py_DECREF(text);
        text = longer;
    }
    return text;
}

/* "a Tensor or a number": what the overloads want at a position. */
static PyObject *wanted_at(const sp__py_group *g, int at)
{
    unsigned seen = 0;
    PyObject *text = PyUnicode_FromString("");
    for (int i = 0; i < g->n_sigs && text; i++) {
        const sp__py_param *p = &g->sigs[i].params[at];
        if (at >= g->sigs[i].n_params || (seen >> p->kind & 1)) continue;
        PyObject *longer = PyUnicode_FromFormat("%U%s%s", text, seen ? " or " : "", wanted(p));
        Py_DECREF(text);
        text = longer;
        seen |= 1u << p->kind;
    }
    return text;
}

static PyObject *misfit_text(const sp__py_group *g, const sp__py_sig *sig, misfit m)
{
    const char *name =
        m.kind == TOO_MANY || m.kind == UNKNOWN_KEYWORD ? "" : sig->params[m.at].name;
    switch (m.kind) {
    case WRONG_KIND: {
        PyObject *kinds = wanted_at(g, m.at), *text = NULL;
        if (kinds)
            text = PyUnicode_FromFormat("argument '%s' must be %U, not %s", name, kinds,
                                        Py_TYPE(m.who)->tp_name);
        Py_XDECREF(kinds);
        return text;
    }
    case MISSING: return PyUnicode_FromFormat("argument '%s' is missing", name);
    case TOO_MANY:
        return PyUnicode_FromFormat("too many positional arguments, at most %d fit", m.at);
    case UNKNOWN_KEYWORD: return PyUnicode_FromFormat("unexpected argument '%U'", m.who);
    case GIVEN_TWICE: return PyUnicode_FromFormat("argument '%s' is given twice", name);
    case FITS: break;
    }
    return PyUnicode_FromString("the arguments do not fit");
}

static void raise_misfit(const sp__py_group *g, const sp__py_sig *sig, misfit m)
{
    PyObject *what = misfit_text(g, sig, m), *known = what ? signatures(g) : NULL;
    if (known) PyErr_Format(PyExc_TypeError, "%s: %U; it takes:\n  %U", g->name, what, known);
    Py_XDECREF(what);
    Py_XDECREF(known);
}

/* Adds the signature to a TypeError that a conversion raised. */
static void add_signature(const sp__py_sig *sig)
{
    if (!PyErr_ExceptionMatches(PyExc_TypeError)) return;
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    PyObject *text = value ? PyObject_Str(value) : NULL;
    if (!text) {
        PyErr_Restore(type, value, trace);
        return;
    }
    PyErr_Format(type, "%U; it takes:\n  %s", text, sig->text);
    Py_DECREF(text);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(trace);
}

/* ---- the short way: positional arguments of exact types ----- */

/* An int that 64 bits hold, by the short way; false: it needs the long one. */
static inline bool short_int(PyObject *o, int64_t *out)
{
    int overflow = 0;
    if (!PyLong_CheckExact(o)) return false;
    *out = PyLong_AsLongLongAndOverflow(o, &overflow);
    return overflow == 0;
}

/* The same for n of them. */
static bool short_ints(PyObject *const *items, Py_ssize_t n, int64_t *out)
{
    if (n > SP_MAX_RANK) return false;
    for (Py_ssize_t i = 0; i < n; i++) {
        if (!short_int(items[i], &out[i])) return false;
    }
    return true;
}

/* Ints, as separate arguments, as a tuple of them, or as one. */
static bool plain_ints(PyObject *const *items, Py_ssize_t n, int64_t *list, sp_attr *out)
{
    if (n == 1 && PyTuple_CheckExact(items[0])) {
        PyObject *tuple = items[0];
        items = &PyTuple_GET_ITEM(tuple, 0), n = PyTuple_GET_SIZE(tuple);
    }
    if (!short_ints(items, n, list)) return false;
    *out = sp__attr_ints(list, (int)n);
    return true;
}

static inline bool plain_attr(const sp__py_param *p, PyObject *o, sp_attr *out)
{
    int64_t i;
    sp_scalar number;
    switch ((sp__py_kind)p->kind) {
    case SP_PY_INT:
        if (!short_int(o, &i)) return false;
        *out = sp__attr_int(i);
        return true;
    case SP_PY_BOOL: *out = sp__attr_bool(o == Py_True); return PyBool_Check(o);
    case SP_PY_SCALAR:
        if (!sp__py_exact_number(o, &number)) return false;
        *out = sp__attr_scalar(number);
        return true;
    default: return false;
    }
}

static inline void start_call(const sp__py_sig *sig, sp__py_mode mode, bound *b)
{
    sp_call *c = &b->call;
    c->op = sig->op, c->n_out = sig->n_out, c->n_attr = sig->n_attr, c->n_in = 0;
    c->flags = mode == SP_PY_INPLACE ? SP_CALL_INPLACE : 0;
    c->in = b->inputs;
    for (int k = 0; k < c->n_out; k++) c->out[k] = NULL;
    b->n_lists = 0;
}

/* Fills b->call if every argument is what its parameter wants, exactly; false, without an
 * exception, if the general way has to look. */
static bool plain_call(const sp__py_sig *sig, PyObject *self, PyObject *const *args, Py_ssize_t n,
                       sp__py_mode mode, bound *b)
{
    sp_call *c = &b->call;
    Py_ssize_t used = 0;
    int n_attr = 0;
    start_call(sig, mode, b);
    for (int i = 0; i < sig->n_params; i++) {
        const sp__py_param *p = &sig->params[i];
        bool given = (i == 0 && self) || (used < n && !(p->flags & SP_PY_KEYWORD));
        if (!given) {
            if ((p->flags & SP_PY_REQUIRED) || p->kind == SP_PY_TENSORS) return false;
            if (p->kind == SP_PY_TENSOR)
                b->inputs[c->n_in++] = NULL;
            else
                c->attr[n_attr++] = p->fallback;
            continue;
        }
        PyObject *o = i == 0 && self ? self : args[used++];
        if (p->kind == SP_PY_TENSOR) {
            if (!sp__py_is_tensor(o)) return false;
            b->inputs[c->n_in++] = sp__py_handle(o);
        } else if (p->kind == SP_PY_INTS) {
            Py_ssize_t count = p->flags & SP_PY_SPREAD ? n - used + 1 : 1;
            if (!plain_ints(args + used - 1, count, b->lists[b->n_lists++], &c->attr[n_attr++]))
                return false;
            used += count - 1;
        } else if (!plain_attr(p, o, &c->attr[n_attr++])) {
            return false;
        }
    }
    for (; n_attr < sig->n_attr; n_attr++) c->attr[n_attr] = sp__attr_absent(SP_ATTR_INT);
    if (mode == SP_PY_INPLACE) c->out[0] = c->in[0];
    return used == n;
}

/* ---- converting ----- */

static int convert_tensor(const sp__py_group *g, const sp__py_param *p, PyObject *o, bound *b)
{
    if (o && !sp__py_is_tensor(o) && (o != Py_None || !(p->flags & SP_PY_NONE)))
        return sp__py_wrong_type(g->name, p->name, "a Tensor", o);
    b->inputs[b->call.n_in++] = !o || o == Py_None ? NULL : sp__py_handle(o);
    return 0;
}

static int convert_tensors(const sp__py_group *g, const sp__py_param *p, PyObject *o, bound *b)
{
    if (PyUnicode_Check(o) || sp__py_is_tensor(o))
        return sp__py_wrong_type(g->name, p->name, "a sequence of Tensors", o);
    b->sequence = PySequence_Fast(o, "expected a sequence of Tensors");
    if (!b->sequence) return -1;
    Py_ssize_t n = PySequence_Fast_GET_SIZE(b->sequence);
    if (n > LOCAL_INPUTS) {
        b->many = PyMem_New(sp_tensor *, n);
        if (!b->many) return PyErr_NoMemory(), -1;
        b->call.in = b->many;
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *item = PySequence_Fast_GET_ITEM(b->sequence, i);
        if (!sp__py_is_tensor(item))
            return sp__py_wrong_type(g->name, p->name, "a sequence of Tensors", item);
        b->call.in[i] = sp__py_handle(item);
    }
    b->call.n_in = (int32_t)n;
    return 0;
}

static int convert_ints(const sp__py_group *g, const sp__py_param *p, PyObject *o, bool spread,
                        bound *b, sp_attr *out)
{
    int64_t *list = b->lists[b->n_lists++];
    int n = 0;
    if (plain_ints(spread ? b->spread : &o, spread ? b->n_spread : 1, list, out)) return 0;
    int failed = spread ? sp__py_ints_args(b->spread, b->n_spread, g->name, p->name, list, &n)
                        : sp__py_ints(o, g->name, p->name, list, &n);
    if (!failed) *out = sp__attr_ints(list, n);
    return failed;
}

static int convert_choice(const sp__py_group *g, const sp__py_param *p, PyObject *o, sp_attr *out)
{
    if (!PyUnicode_Check(o)) return sp__py_wrong_type(g->name, p->name, "a string", o);
    PyObject *known = NULL;
    for (int i = 0; p->choices[i]; i++) {
        if (PyUnicode_CompareWithASCIIString(o, p->choices[i]) == 0) {
            *out = sp__attr_int(i);
            Py_XDECREF(known);
            return 0;
        }
        PyObject *longer = known ? PyUnicode_FromFormat("%U, '%s'", known, p->choices[i])
                                 : PyUnicode_FromFormat("'%s'", p->choices[i]);
        Py_XDECREF(known);
        if (!longer) return -1;
        known = longer;
    }
    PyErr_Format(PyExc_ValueError, "%s: %s is %R, expected one of %U", g->name, p->name, o, known);
    Py_XDECREF(known);
    return -1;
}

static int convert_attr(const sp__py_group *g, const sp__py_param *p, PyObject *o, bool spread,
                        bound *b, sp_attr *out)
{
    *out = p->fallback;
    if (!o) return 0;
    if (o == Py_None && (p->flags & SP_PY_NONE)) {
        *out = sp__attr_absent((sp_attr_kind)p->fallback.kind);
        return 0;
    }
    sp_scalar number;
    int64_t i;
    double f;
    bool truth;
    sp_dtype dtype;
    switch ((sp__py_kind)p->kind) {
    case SP_PY_SCALAR:
        if (!sp__py_exact_number(o, &number) && sp__py_scalar(o, g->name, p->name, &number) < 0)
            return -1;
        *out = sp__attr_scalar(number);
        return 0;
    case SP_PY_INT:
        if (!short_int(o, &i) && sp__py_int(o, g->name, p->name, &i) < 0) return -1;
        *out = sp__attr_int(i);
        return 0;
    case SP_PY_FLOAT:
        if (sp__py_float(o, g->name, p->name, &f) < 0) return -1;
        *out = sp__attr_float(f);
        return 0;
    case SP_PY_BOOL:
        truth = o == Py_True;
        if (!PyBool_Check(o) && sp__py_bool(o, g->name, p->name, &truth) < 0) return -1;
        *out = sp__attr_bool(truth);
        return 0;
    case SP_PY_DTYPE:
        if (sp__py_dtype(o, g->name, p->name, &dtype) < 0) return -1;
        *out = sp__attr_dtype(dtype);
        return 0;
    case SP_PY_INTS: return convert_ints(g, p, o, spread, b, out);
    case SP_PY_CHOICE: return convert_choice(g, p, o, out);
    case SP_PY_TENSOR:
    case SP_PY_TENSORS: break;
    }
    return 0;
}

/* Fills b->call from the matched arguments. */
static int convert(const sp__py_group *g, const sp__py_sig *sig, sp__py_mode mode, bound *b)
{
    sp_call *c = &b->call;
    int n_attr = 0;
    start_call(sig, mode, b);
    for (int i = 0; i < sig->n_params; i++) {
        const sp__py_param *p = &sig->params[i];
        PyObject *o = b->value[i];
        int failed = p->kind == SP_PY_TENSOR ? convert_tensor(g, p, o, b)
                     : p->kind == SP_PY_TENSORS
                         ? convert_tensors(g, p, o, b)
                         : convert_attr(g, p, o, i == b->spread_at, b, &c->attr[n_attr++]);
        if (failed) return -1;
    }
    for (; n_attr < sig->n_attr; n_attr++) c->attr[n_attr] = sp__attr_absent(SP_ATTR_INT);
    if (mode == SP_PY_INPLACE) c->out[0] = c->in[0];
    if (b->out) {
        if (!sp__py_is_tensor(b->out)) return sp__py_wrong_type(g->name, "out", "a Tensor", b->out);
        c->flags = SP_CALL_OUT, c->out[0] = sp__py_handle(b->out);
    }
    return 0;
}

/* ---- calls ----- */

/* Steals the tensors. */
static PyObject *named_results(const sp__py_group *g, sp__py_outputs *o, sp_tensor **t, int n)
{
    char name[80];
    if (!o->type) {
        snprintf(name, sizeof name, "spool.return_types.%s", g->name);
        PyStructSequence_Desc desc = {name, NULL, o->fields, n};
        o->type = PyStructSequence_NewType(&desc);
    }
    PyObject *results = o->type ? PyStructSequence_New(o->type) : NULL;
    for (int i = 0; i < n; i++) {
        if (results)
            PyStructSequence_SetItem(results, i, sp__py_object(t[i]));
        else
            sp_drop(&t[i]);
    }
    return results;
}

static PyObject *finish(const sp__py_group *g, const sp__py_sig *sig, sp_call *c)
{
    if (c->n_out == 1) return sp__py_finish(c);
    sp_status status = sp__dispatch(c);
    if (status != SP_OK) return sp__py_raise(status);
    return named_results(g, sig->outputs, c->out, c->n_out);
}

/* The call with what its keywords say beside. */
static PyObject *finish_with_extras(const sp__py_group *g, const sp__py_sig *sig, bound *b)
{
    sp_generator *generator = NULL, *before = NULL;
    bool requires_grad = false;
    if (b->device && sp__py_device_check(b->device, g->name) < 0) return NULL;
    if (b->requires_grad &&
        sp__py_bool(b->requires_grad, g->name, "requires_grad", &requires_grad) < 0)
        return NULL;
    if (b->generator && sp__py_generator(b->generator, g->name, &generator) < 0) return NULL;
    if (b->generator) before = sp_generator_use(generator);
    PyObject *result = finish(g, sig, &b->call);
    if (b->generator) sp_generator_use(before);
    if (!result || !requires_grad) return result;
    sp_status status = sp_set_requires_grad(sp__py_handle(result), true);
    if (status == SP_OK) return result;
    Py_DECREF(result);
    return sp__py_raise(status);
}

static PyObject *run(const sp__py_group *g, const sp__py_sig *sig, sp__py_mode mode, bound *b)
{
    PyObject *result = NULL;
    b->sequence = NULL, b->many = NULL;
    if (convert(g, sig, mode, b) < 0)
        add_signature(sig);
    else
        result = sig->extras ? finish_with_extras(g, sig, b) : finish(g, sig, &b->call);
    PyMem_Free(b->many);
    Py_XDECREF(b->sequence);
    return result;
}

static bool any_complex(PyObject *const *args, Py_ssize_t n_args, PyObject *names)
{
    Py_ssize_t n = n_args + (names ? PyTuple_GET_SIZE(names) : 0);
    for (Py_ssize_t i = 0; i < n; i++)
        if (PyComplex_Check(args[i])) return true;
    return false;
}

static PyObject *call_with_complex(const sp__py_group *group, PyObject *self, PyObject *const *args,
                                   Py_ssize_t n_args, PyObject *names, sp__py_mode mode);

static PyObject *general_call(const sp__py_group *group, PyObject *self, PyObject *const *args,
                              Py_ssize_t n_args, PyObject *names, sp__py_mode mode)
{
    bound b;
    misfit best = {FITS, -1, NULL};
    const sp__py_sig *best_sig = NULL;
    for (int i = 0; i < group->n_sigs; i++) {
        const sp__py_sig *sig = &group->sigs[i];
        misfit m = place(sig, self, args, n_args, names, &b);
        if (m.kind == FITS && group->n_sigs > 1) m = check_kinds(sig, &b);
        if (m.kind == FITS) return run(group, sig, mode, &b);
        if (!best_sig || (m.kind == WRONG_KIND && best.kind != WRONG_KIND) ||
            (m.kind == best.kind && m.at > best.at))
            best = m, best_sig = sig;
    }
    if (best.kind == WRONG_KIND && best.who && any_complex(args, n_args, names))
        return call_with_complex(group, self, args, n_args, names, mode);
    raise_misfit(group, best_sig, best);
    return NULL;
}

/* Numbers of signatures are real: a complex one stands as a tensor without dimensions. */
static PyObject *call_with_complex(const sp__py_group *group, PyObject *self, PyObject *const *args,
                                   Py_ssize_t n_args, PyObject *names, sp__py_mode mode)
{
    PyObject *with[SP_PY_MAX_PARAMS + 1], *result = NULL;
    Py_ssize_t n = n_args + (names ? PyTuple_GET_SIZE(names) : 0), i = 0;
    const sp_tensor *beside = self && sp__py_is_tensor(self) ? sp__py_handle(self) : NULL;
    for (Py_ssize_t k = 0; !beside && k < n; k++)
        if (sp__py_is_tensor(args[k])) beside = sp__py_handle(args[k]);
    for (; i < n && i < SP_PY_MAX_PARAMS + 1; i++) {
        sp_tensor *t = NULL;
        if (PyComplex_Check(args[i]) && !(t = sp__py_complex_tensor(args[i], beside))) break;
        with[i] = t ? sp__py_object(t) : Py_NewRef(args[i]);
    }
    if (i == n) result = general_call(group, self, with, n_args, names, mode);
    while (i > 0) Py_DECREF(with[--i]);
    return result;
}

PyObject *sp__py_call(const sp__py_group *group, PyObject *self, PyObject *const *args,
                      Py_ssize_t n_args, PyObject *names, sp__py_mode mode)
{
    if (!names) {
        bound b;
        for (int i = 0; i < group->n_sigs; i++) {
            const sp__py_sig *sig = &group->sigs[i];
            if (plain_call(sig, self, args, n_args, mode, &b)) return finish(group, sig, &b.call);
        }
    }
    return general_call(group, self, args, n_args, names, mode);
}

/* An operand that is a number but fits no scalar: the exception gets the op's name. */
static PyObject *bad_number(int op, PyObject *o)
{
    if (PyErr_ExceptionMatches(PyExc_OverflowError)) {
        PyErr_Clear();
        PyErr_Format(PyExc_OverflowError, "%s: %S is beyond 64 bits; convert it to float first",
                     sp_op_table[op].name, o);
    }
    return NULL;
}

/* The number as a tensor without dimensions; NotImplemented for what is no complex number. */
static PyObject *with_complex_number(const sp__py_operator *o, PyObject *a, PyObject *b,
                                     sp__py_mode mode)
{
    bool a_is = sp__py_is_tensor(a);
    double part[2];
    int found = o->tensors < 0 ? 0 : sp__py_complex(a_is ? b : a, part);
    if (found < 0) return NULL;
    if (found == 0) Py_RETURN_NOTIMPLEMENTED;
    sp_tensor *t = sp__py_complex_tensor(a_is ? b : a, sp__py_handle(a_is ? a : b));
    if (!t) return NULL;
    PyObject *made = sp__py_object(t),
             *result = sp__py_call_pair(o->tensors, a_is ? a : made, a_is ? made : b, mode);
    Py_DECREF(made);
    return result;
}

PyObject *sp__py_binary(const sp__py_operator *o, PyObject *a, PyObject *b, sp__py_mode mode)
{
    bool a_is = sp__py_is_tensor(a), b_is = sp__py_is_tensor(b);
    int op = a_is && b_is          ? o->tensors
             : a_is                ? o->number_right
             : mode == SP_PY_PLAIN ? o->number_left
                                   : -1;
    if (op < 0) Py_RETURN_NOTIMPLEMENTED;
    if (a_is && b_is) return sp__py_call_pair(op, a, b, mode);
    sp_scalar number;
    int found = sp__py_number(a_is ? b : a, &number);
    if (found < 0) return bad_number(op, a_is ? b : a);
    if (found == 0) return with_complex_number(o, a, b, mode);
    return sp__py_call_scalar(op, a_is ? a : b, number, mode);
}
