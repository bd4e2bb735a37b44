/* Seeds and states of random numbers, and spool.Generator: a stream of one's own.
 *
 * A state is a tensor, so that it can be kept wherever tensors can: int64 [seed, offset].
 */
#include "bindings/python/ext/py_int.h"

#include <sys/random.h>

#include "ops_gen.h"

typedef struct {
    PyObject_HEAD sp_generator *stream; /* NULL: the process' */
} generator_object;

static PyTypeObject generator_type;

/* ---- what both do ----- */

static int seed_of(PyObject *seed, uint64_t *out)
{
    PyObject *index = PyNumber_Index(seed);
    if (!index) return -1;
    *out = PyLong_AsUnsignedLongLongMask(index);
    Py_DECREF(index);
    return 0;
}

/* A seed that nobody chose. */
static PyObject *reseed(sp_generator *stream)
{
    uint64_t seed;
    if (getrandom(&seed, sizeof seed, 0) != (ssize_t)sizeof seed)
        return PyErr_SetFromErrno(PyExc_OSError);
    seed &= INT64_MAX;
    sp_generator_state_set(stream, seed, 0);
    return PyLong_FromUnsignedLongLong(seed);
}

static PyObject *seed_in_use(const sp_generator *stream)
{
    uint64_t seed, offset;
    sp_generator_state(stream, &seed, &offset);
    return PyLong_FromUnsignedLongLong(seed);
}

static PyObject *state_of(const sp_generator *stream)
{
    static const int64_t shape[1] = {2};
    uint64_t state[2];
    sp_tensor *out = NULL;
    sp_generator_state(stream, &state[0], &state[1]);
    return sp__py_result(sp_from_data(state, SP_INT64, 1, shape, &out), out);
}

static int set_state(sp_generator *stream, PyObject *new_state, const char *op)
{
    uint64_t state[2];
    const sp_tensor *t = sp__py_tensor_arg(new_state, op, "new_state");
    if (!t) return -1;
    if (t->dtype != SP_INT64 || t->rank != 1 || t->numel != 2) {
        PyErr_Format(sp__py_shape_error,
                     "%s: new_state is %s of shape %s; expected a state as it was got, int64 of "
                     "shape (2)",
                     op, sp_dtype_name((sp_dtype)t->dtype), SP_SHAPE(t));
        return -1;
    }
    sp_status status = sp_copy_out(t, state, sizeof state);
    if (status != SP_OK) return sp__py_raise(status), -1;
    sp_generator_state_set(stream, state[0], state[1]);
    return 0;
}

/* ---- of the process ----- */

static PyObject *manual_seed(PyObject *module, PyObject *seed)
{
    uint64_t value;
    if (seed_of(seed, &value) < 0) return NULL;
    sp_manual_seed(value);
    return PyObject_GetAttrString(module, "default_generator");
}

static PyObject *seed(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return reseed(NULL);
}

static PyObject *initial_seed(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return seed_in_use(NULL);
}

static PyObject *get_rng_state(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return state_of(NULL);
}

static PyObject *set_rng_state(PyObject *module, PyObject *new_state)
{
    (void)module;
    if (set_state(NULL, new_state, "set_rng_state") < 0) return NULL;
    Py_RETURN_NONE;
}

PyMethodDef sp__py_random_functions[] = {
    {"manual_seed", manual_seed, METH_O,
     "manual_seed(seed)\n--\n\nSeeds the random numbers; returns default_generator."},
    {"seed", seed, METH_NOARGS,
     "seed()\n--\n\nSeeds the random numbers with a number from the system, which is returned."},
    {"initial_seed", initial_seed, METH_NOARGS,
     "initial_seed()\n--\n\nThe seed of the random numbers, as manual_seed() set it."},
    {"get_rng_state", get_rng_state, METH_NOARGS,
     "get_rng_state()\n--\n\nWhere the random numbers stand: int64 of shape (2)."},
    {"set_rng_state", set_rng_state, METH_O,
     "set_rng_state(new_state)\n--\n\nLets random numbers go on from where get_rng_state() was "
     "called."},
    {NULL, NULL, 0, NULL},
};

/* ---- spool.Generator ----- */

static sp_generator *stream_of(PyObject *self)
{
    return ((generator_object *)self)->stream;
}

int sp__py_generator(PyObject *o, const char *op, sp_generator **out)
{
    if (Py_TYPE(o) != &generator_type)
        return sp__py_wrong_type(op, "generator", "a spool.Generator", o);
    *out = stream_of(o);
    return 0;
}

static PyObject *generator_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *words[] = {"device", NULL};
    PyObject *device = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:Generator", words, &device)) return NULL;
    if (sp__py_device_check(device, "Generator") < 0) return NULL;
    generator_object *self = (generator_object *)type->tp_alloc(type, 0);
    if (!self) return NULL;
    sp_status status = sp_generator_new(67280421310721u, &self->stream);
    if (status == SP_OK) return (PyObject *)self;
    Py_DECREF(self);
    return sp__py_raise(status);
}

static void generator_dealloc(PyObject *self)
{
    sp_generator_drop(&((generator_object *)self)->stream);
    Py_TYPE(self)->tp_free(self);
}

static PyObject *generator_manual_seed(PyObject *self, PyObject *seed)
{
    uint64_t value;
    if (seed_of(seed, &value) < 0) return NULL;
    sp_generator_state_set(stream_of(self), value, 0);
    return Py_NewRef(self);
}

static PyObject *generator_seed(PyObject *self, PyObject *unused)
{
    (void)unused;
    return reseed(stream_of(self));
}

static PyObject *generator_initial_seed(PyObject *self, PyObject *unused)
{
    (void)unused;
    return seed_in_use(stream_of(self));
}

static PyObject *generator_get_state(PyObject *self, PyObject *unused)
{
    (void)unused;
    return state_of(stream_of(self));
}

static PyObject *generator_set_state(PyObject *self, PyObject *new_state)
{
    if (set_state(stream_of(self), new_state, "set_state") < 0) return NULL;
    return Py_NewRef(self);
}

static PyObject *generator_device(PyObject *self, void *unused)
{
    (void)self, (void)unused;
    return Py_NewRef(sp__py_device_object());
}

static PyMethodDef generator_methods[] = {
    {"manual_seed", generator_manual_seed, METH_O,
     "manual_seed($self, seed)\n--\n\nSeeds the stream; returns the generator."},
    {"seed", generator_seed, METH_NOARGS,
     "seed($self)\n--\n\nSeeds the stream with a number from the system, which is returned."},
    {"initial_seed", generator_initial_seed, METH_NOARGS,
     "initial_seed($self)\n--\n\nThe seed in use."},
    {"get_state", generator_get_state, METH_NOARGS,
     "get_state($self)\n--\n\nWhere the stream stands: int64 of shape (2)."},
    {"set_state", generator_set_state, METH_O,
     "set_state($self, new_state)\n--\n\nLets the stream go on from where get_state() was called."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef generator_getset[] = {
    {"device", generator_device, NULL, "Where its numbers are made.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyTypeObject generator_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "spool.Generator",
    .tp_doc = "Generator(device='cpu')\n--\n\nA stream of random numbers of its own, to be passed "
              "as generator=.",
    .tp_basicsize = sizeof(generator_object),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = generator_new,
    .tp_dealloc = generator_dealloc,
    .tp_methods = generator_methods,
    .tp_getset = generator_getset,
};

int sp__py_random_start(PyObject *module)
{
    if (PyType_Ready(&generator_type) < 0) return -1;
    PyObject *type = (PyObject *)&generator_type;
    if (PyObject_SetAttrString(module, "Generator", type) < 0) return -1;
    PyObject *process = generator_type.tp_alloc(&generator_type, 0); /* its stream is NULL */
    int failed = process ? PyObject_SetAttrString(module, "default_generator", process) : -1;
    Py_XDECREF(process);
    return failed;
}
