/* Sharing memory with others: the buffer protocol, NumPy, DLPack.
 *
 * Invariants
 * 1. A storage whose address went out is foreign for life (sp_data() marks it).
 * 2. An export keeps the storage, not only the handle: the handle may be given another one (x.data
 * = y).
 */
#include "bindings/python/ext/py_int.h"

#include "tensor/memory.h"

/* ---- buffer protocol ----- */

typedef struct exported {
    sp_storage *storage;
    Py_ssize_t shape[SP_MAX_RANK], strides[SP_MAX_RANK]; /* strides in bytes */
} exported;

static int refuse_buffer(Py_buffer *view, const char *why)
{
    view->obj = NULL;
    if (why) PyErr_SetString(PyExc_BufferError, why);
    return -1;
}

static void fill_view(PyObject *self, Py_buffer *view, exported *e, void *data, int flags)
{
    const sp_tensor *t = sp__py_handle(self);
    Py_ssize_t size = (Py_ssize_t)sp_dtype_size((sp_dtype)t->dtype);
    for (int i = 0; i < t->rank; i++)
        e->shape[i] = t->shape[i], e->strides[i] = t->stride[i] * size;
    e->storage = sp__storage_retain(t->storage);
    *view = (Py_buffer){.buf = data,
                        .obj = Py_NewRef(self),
                        .len = t->numel * size,
                        .itemsize = size,
                        .ndim = t->rank,
                        .readonly = (t->storage->flags & SP_S_READONLY) != 0,
                        .internal = e};
    if (flags & PyBUF_FORMAT) view->format = (char *)sp__py_format_of_dtype((sp_dtype)t->dtype);
    if (flags & PyBUF_ND) view->shape = e->shape;
    if ((flags & PyBUF_STRIDES) == PyBUF_STRIDES) view->strides = e->strides;
}

static int get_buffer(PyObject *self, Py_buffer *view, int flags)
{
    const sp_tensor *t = sp__py_handle(self);
    void *data;
    if (sp_requires_grad(t))
        return refuse_buffer(
            view, "buffer: a tensor that requires grad shares no memory; call .detach() first");
    bool dense = t->flags & SP_T_CONTIGUOUS;
    bool wants_dense = (flags & PyBUF_STRIDES) != PyBUF_STRIDES ||
                       (flags & PyBUF_C_CONTIGUOUS) == PyBUF_C_CONTIGUOUS;
    if (wants_dense && !dense)
        return refuse_buffer(view,
                             "buffer: the tensor is not contiguous; call .contiguous() first");
    if ((flags & PyBUF_F_CONTIGUOUS) == PyBUF_F_CONTIGUOUS && t->rank > 1)
        return refuse_buffer(view, "buffer: the tensor is not in column-major order");
    if (!sp__py_format_of_dtype((sp_dtype)t->dtype))
        return refuse_buffer(view,
                             "buffer: buffers have no format for bfloat16; call .float() first");
    sp_status status = sp_data(t, &data);
    if (status) return sp__py_raise(status), refuse_buffer(view, NULL);
    if ((flags & PyBUF_WRITABLE) && (t->storage->flags & SP_S_READONLY))
        return refuse_buffer(view, "buffer: the tensor's memory is read-only");
    exported *e = sp__alloc(sizeof *e);
    if (!e) return PyErr_NoMemory(), refuse_buffer(view, NULL);
    fill_view(self, view, e, data, flags);
    return 0;
}

static void release_buffer(PyObject *self, Py_buffer *view)
{
    (void)self;
    exported *e = view->internal;
    sp__storage_drop(e->storage);
    sp__free(e, sizeof *e);
}

PyBufferProcs sp__py_buffer = {get_buffer, release_buffer};

/* ---- NumPy ----- */

/* numpy.asarray, imported when first needed; borrowed. */
static PyObject *numpy_asarray(void)
{
    static PyObject *asarray;
    if (asarray) return asarray;
    PyObject *numpy = PyImport_ImportModule("numpy");
    if (!numpy) return NULL;
    asarray = PyObject_GetAttrString(numpy, "asarray");
    Py_DECREF(numpy);
    return asarray;
}

/* What NumPy knows under this name once ml_dtypes is there; NULL with an error that says so. */
static PyObject *numpy_bfloat16(void)
{
    PyObject *module = PyImport_ImportModule("ml_dtypes");
    PyObject *type = module ? PyObject_GetAttrString(module, "bfloat16") : NULL;
    Py_XDECREF(module);
    if (!type && PyErr_ExceptionMatches(PyExc_ImportError)) {
        PyErr_Clear();
        PyErr_SetString(sp__py_dtype_error,
                        "numpy: NumPy has no bfloat16 of its own; install ml_dtypes, or convert "
                        "with .float() first");
    }
    return type;
}

/* The same memory as an array of int16, seen as bfloat16. */
static PyObject *as_bfloat16_array(const sp_tensor *t)
{
    sp_tensor *bits;
    PyObject *type = numpy_bfloat16();
    if (!type) return NULL;
    sp_status status = sp__handle_alias(t, &bits);
    if (status) {
        Py_DECREF(type);
        return sp__py_raise(status);
    }
    bits->dtype = SP_INT16;
    PyObject *array = PyObject_CallMethod(sp__py_object(bits), "numpy", NULL);
    PyObject *view = array ? PyObject_CallMethod(array, "view", "O", type) : NULL;
    Py_XDECREF(array);
    Py_DECREF(type);
    sp_drop(&bits);
    return view;
}

static PyObject *as_array(PyObject *self)
{
    const sp_tensor *t = sp__py_handle(self);
    if (sp_requires_grad(t))
        return PyErr_Format(
            sp__py_error,
            "numpy: a tensor that requires grad shares no memory; call .detach().numpy()");
    void *data;
    sp_status status = sp_data(t, &data);
    if (status) return sp__py_raise(status);
    if (t->dtype == SP_BFLOAT16) return as_bfloat16_array(t);
    PyObject *asarray = numpy_asarray();
    if (!asarray) return NULL;
    PyObject *view = PyMemoryView_FromObject(self);
    PyObject *array = view ? PyObject_CallOneArg(asarray, view) : NULL;
    Py_XDECREF(view);
    return array;
}

static PyObject *numpy(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"force", NULL};
    int force = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|$p:numpy", names, &force)) return NULL;
    if (!force || !sp_requires_grad(sp__py_handle(self))) return as_array(self);
    sp_tensor *plain;
    sp_status status = sp_detach(sp__py_handle(self), &plain);
    if (status) return sp__py_raise(status);
    PyObject *array = as_array(sp__py_object(plain));
    sp_drop(&plain);
    return array;
}

/* ---- bfloat16, which the buffer protocol does not know ----- */

bool sp__py_is_bfloat16_array(PyObject *o)
{
    if (!PyObject_CheckBuffer(o) || sp__py_is_tensor(o)) return false;
    PyObject *dtype = PyObject_GetAttrString(o, "dtype");
    PyObject *name = dtype ? PyObject_GetAttrString(dtype, "name") : NULL;
    bool is =
        name && PyUnicode_Check(name) && PyUnicode_CompareWithASCIIString(name, "bfloat16") == 0;
    PyErr_Clear();
    Py_XDECREF(dtype);
    Py_XDECREF(name);
    return is;
}

int sp__py_from_bfloat16(PyObject *array, const char *op, sp_tensor **out)
{
    *out = NULL;
    PyObject *bits = PyObject_CallMethod(array, "view", "s", "int16");
    int result = bits ? sp__py_tensor_over(bits, op, out) : -1;
    if (result == 0) (*out)->dtype = SP_BFLOAT16;
    Py_XDECREF(bits);
    return result;
}

/* What numpy.asarray(x) falls back to; dtype and copy as NumPy 2 passes them. */
static PyObject *array(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"dtype", "copy", NULL};
    PyObject *dtype = Py_None, *copy = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|OO:__array__", names, &dtype, &copy))
        return NULL;
    PyObject *shared = as_array(self);
    if (!shared || (dtype == Py_None && copy != Py_True)) return shared;
    PyObject *result = dtype == Py_None ? PyObject_CallMethod(shared, "copy", NULL)
                                        : PyObject_CallMethod(shared, "astype", "O", dtype);
    Py_DECREF(shared);
    return result;
}

/* numpy.sqrt(x), array * x: spool/_numpy.py decides. */
static PyObject *array_ufunc(PyObject *self, PyObject *args, PyObject *kwargs)
{
    (void)self;
    PyObject *module = PyImport_ImportModule("spool._numpy");
    PyObject *function = module ? PyObject_GetAttrString(module, "array_ufunc") : NULL;
    PyObject *result = function ? PyObject_Call(function, args, kwargs) : NULL;
    Py_XDECREF(module);
    Py_XDECREF(function);
    return result;
}

static PyObject *from_numpy(PyObject *module, PyObject *object)
{
    (void)module;
    sp_tensor *out;
    if (sp__py_is_bfloat16_array(object))
        return sp__py_from_bfloat16(object, "from_numpy", &out) < 0 ? NULL : sp__py_object(out);
    if (!PyObject_CheckBuffer(object) || PyBytes_Check(object) || sp__py_is_tensor(object)) {
        sp__py_wrong_type("from_numpy", "array", "a NumPy array or another buffer", object);
        return NULL;
    }
    return sp__py_tensor_over(object, "from_numpy", &out) < 0 ? NULL : sp__py_object(out);
}

/* ---- DLPack (dmlc.github.io/dlpack, version 0.8's unversioned structs) ----- */

typedef struct dl_tensor {
    void *data;
    int32_t device_type, device_id;
    int32_t ndim;
    uint8_t code, bits;
    uint16_t lanes;
    int64_t *shape, *strides;
    uint64_t byte_offset;
} dl_tensor;

typedef struct dl_managed {
    dl_tensor dl;
    void *ctx;
    void (*deleter)(struct dl_managed *self);
} dl_managed;

enum {
    DL_CPU = 1,
    DL_INT = 0,
    DL_UINT = 1,
    DL_FLOAT = 2,
    DL_BFLOAT = 4,
    DL_COMPLEX = 5,
    DL_BOOL = 6
};

static uint8_t dl_code(int dtype)
{
    if (dtype == SP_BFLOAT16) return DL_BFLOAT;
    if (sp__dtype_is_floating(dtype)) return DL_FLOAT;
    if (sp__dtype_is_complex(dtype)) return DL_COMPLEX;
    return dtype == SP_BOOL ? DL_BOOL : dtype == SP_UINT8 ? DL_UINT : DL_INT;
}

typedef struct dl_export {
    dl_managed managed; /* first: the deleter gets its address */
    sp_storage *storage;
    int64_t shape[SP_MAX_RANK], strides[SP_MAX_RANK];
} dl_export;

static void dl_delete(dl_managed *self)
{
    dl_export *e = (dl_export *)self;
    sp__storage_drop(e->storage);
    sp__free(e, sizeof *e);
}

static void dl_capsule_delete(PyObject *capsule)
{
    /* A consumer renames the capsule and calls the deleter itself. */
    if (!PyCapsule_IsValid(capsule, "dltensor")) return;
    dl_managed *managed = PyCapsule_GetPointer(capsule, "dltensor");
    managed->deleter(managed);
}

static PyObject *dlpack(PyObject *self, PyObject *args, PyObject *kwargs)
{
    (void)args, (void)kwargs; /* stream, max_version, dl_device, copy: one device, no streams */
    const sp_tensor *t = sp__py_handle(self);
    void *data;
    if (sp_requires_grad(t))
        return PyErr_Format(
            PyExc_BufferError,
            "__dlpack__: a tensor that requires grad shares no memory; call .detach() first");
    sp_status status = sp_data(t, &data);
    if (status) return sp__py_raise(status);
    if (t->storage->flags & SP_S_READONLY)
        return PyErr_Format(PyExc_BufferError,
                            "__dlpack__: the tensor's memory is read-only; pass .clone()");
    dl_export *e = sp__alloc(sizeof *e);
    if (!e) return PyErr_NoMemory();
    memcpy(e->shape, t->shape, sizeof e->shape);
    memcpy(e->strides, t->stride, sizeof e->strides);
    e->storage = sp__storage_retain(t->storage);
    e->managed = (dl_managed){.dl = {.data = data,
                                     .device_type = DL_CPU,
                                     .ndim = t->rank,
                                     .code = dl_code(t->dtype),
                                     .bits = (uint8_t)(8 * sp_dtype_size((sp_dtype)t->dtype)),
                                     .lanes = 1,
                                     .shape = e->shape,
                                     .strides = e->strides},
                              .deleter = dl_delete};
    PyObject *capsule = PyCapsule_New(e, "dltensor", dl_capsule_delete);
    if (!capsule) dl_delete(&e->managed);
    return capsule;
}

static PyObject *dlpack_device(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    return Py_BuildValue("(ii)", DL_CPU, 0);
}

typedef struct dl_import {
    sp_py_later later;
    dl_managed *managed;
} dl_import;

static void dl_import_release(sp_py_later *self)
{
    dl_managed *managed = ((dl_import *)self)->managed;
    if (managed->deleter) managed->deleter(managed);
    sp__free(self, sizeof(dl_import));
}

static void dl_import_end(void *ctx)
{
    sp__py_with_gil(&((dl_import *)ctx)->later);
}

static bool dl_dtype(const dl_tensor *dl, sp_dtype *out)
{
    for (int i = 0; i < SP_DTYPE_COUNT; i++) {
        if (dl->lanes != 1 || dl->code != dl_code(i) || dl->bits != 8 * sp__dtypes[i].size)
            continue;
        *out = (sp_dtype)i;
        return true;
    }
    return false;
}

static const char *dl_refusal(const dl_tensor *dl, sp_dtype *dtype)
{
    if (dl->device_type != DL_CPU) return "its memory is not the CPU's; move it there first";
    if (!dl_dtype(dl, dtype)) return "Spool has no such dtype";
    if (dl->ndim < 0 || dl->ndim > SP_MAX_RANK) return "it has too many dimensions";
    for (int i = 0; dl->strides && i < dl->ndim; i++)
        if (dl->strides[i] < 0) return "it has negative strides; copy it first";
    return NULL;
}

static PyObject *import_capsule(PyObject *capsule)
{
    dl_managed *managed = PyCapsule_GetPointer(capsule, "dltensor");
    if (!managed) return NULL;
    sp_dtype dtype;
    const char *why = dl_refusal(&managed->dl, &dtype);
    if (why)
        return PyErr_Format(PyExc_BufferError, "from_dlpack: cannot share this tensor: %s", why);
    dl_import *own = sp__alloc(sizeof *own);
    if (!own) return PyErr_NoMemory();
    if (PyCapsule_SetName(capsule, "used_dltensor") < 0) {
        sp__free(own, sizeof *own);
        return NULL;
    }
    *own = (dl_import){.later.run = dl_import_release, .managed = managed};
    const dl_tensor *dl = &managed->dl;
    sp_tensor *out = NULL;
    sp_status status = sp_from_foreign((char *)dl->data + dl->byte_offset, dtype, dl->ndim,
                                       dl->shape, dl->strides, false, dl_import_end, own, &out);
    return sp__py_result(status, out);
}

static PyObject *from_dlpack(PyObject *module, PyObject *object)
{
    (void)module;
    if (PyCapsule_CheckExact(object)) return import_capsule(object);
    PyObject *capsule = PyObject_CallMethod(object, "__dlpack__", NULL);
    if (!capsule) return NULL;
    PyObject *result = import_capsule(capsule);
    Py_DECREF(capsule);
    return result;
}

/* ---- tables ----- */

PyMethodDef sp__py_interop_methods[] = {
    {"numpy", (PyCFunction)(void *)numpy, METH_VARARGS | METH_KEYWORDS,
     "numpy($self, *, force=False)\n--\n\nA NumPy array over the same memory.\n\nforce detaches a "
     "tensor that requires grad "
     "first. Writes are seen on both sides."},
    {"__array__", (PyCFunction)(void *)array, METH_VARARGS | METH_KEYWORDS, NULL},
    {"__array_ufunc__", (PyCFunction)(void *)array_ufunc, METH_VARARGS | METH_KEYWORDS, NULL},
    {"__dlpack__", (PyCFunction)(void *)dlpack, METH_VARARGS | METH_KEYWORDS, NULL},
    {"__dlpack_device__", dlpack_device, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

PyMethodDef sp__py_interop_functions[] = {
    {"from_numpy", from_numpy, METH_O,
     "from_numpy(array)\n--\n\nA tensor over an array's memory, without a copy; writes are seen on "
     "both sides.\n\nRaises "
     "DTypeError for dtypes that Spool does not have, ValueError for negative strides. A read-only "
     "array makes a tensor that "
     "cannot be written."},
    {"from_dlpack", from_dlpack, METH_O,
     "from_dlpack(x)\n--\n\nA tensor over the memory of an object with __dlpack__, without a "
     "copy."},
    {NULL, NULL, 0, NULL},
};
