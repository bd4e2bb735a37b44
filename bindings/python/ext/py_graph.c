/* Graphs in Python: capturing a function's ops, running, printing, saving and loading them.
 *
 * spool._C.Graph owns one sp_graph. The Python layer (spool/onnx.py) packs and
 * unpacks containers; here inputs and outputs are flat tuples of tensors.
 */
#include "bindings/python/ext/py.h"
#include "jit/ir.h"
#include "tensor/memory.h"

typedef struct graph_object {
    PyObject_HEAD sp_graph *graph;
} graph_object;

static PyTypeObject graph_type;

static PyObject *graph_wrap(sp_graph *graph)
{
    graph_object *self = PyObject_New(graph_object, &graph_type);
    if (self == NULL) {
        sp_graph_drop(&graph);
        return NULL;
    }
    self->graph = graph;
    return (PyObject *)self;
}

static void graph_dealloc(PyObject *self)
{
    sp_graph_drop(&((graph_object *)self)->graph);
    PyObject_Free(self);
}

/* The tensors of a tuple, borrowed, in an array to be given back with sp__free; NULL with an
 * exception set. */
static sp_tensor **tensors_of(PyObject *tuple, const char *op, int *n)
{
    if (!PyTuple_Check(tuple)) {
        sp__py_wrong_type(op, "tensors", "a tuple of tensors", tuple);
        return NULL;
    }
    *n = (int)PyTuple_GET_SIZE(tuple);
    sp_tensor **list = sp__alloc((size_t)(*n + 1) * sizeof *list);
    if (list == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    for (int i = 0; i < *n; i++) {
        PyObject *item = PyTuple_GET_ITEM(tuple, i);
        list[i] = (sp_tensor *)item;
        if (sp__py_is_tensor(item)) continue;
        sp__py_wrong_type(op, "tensors", "a tuple of tensors", item);
        sp__free(list, (size_t)(*n + 1) * sizeof *list);
        return NULL;
    }
    return list;
}

static void tensors_free(sp_tensor **list, int n)
{
    sp__free(list, (size_t)(n + 1) * sizeof *list);
}

static PyObject *graph_run(PyObject *self, PyObject *args)
{
    sp_graph *graph = ((graph_object *)self)->graph;
    int n_in, n_out = sp_graph_num_outputs(graph);
    sp_tensor **in = tensors_of(args, "Graph.run", &n_in);
    if (in == NULL) return NULL;
    sp_tensor **out = sp__alloc_zero((size_t)(n_out + 1) * sizeof *out);
    PyObject *result = NULL;
    if (out == NULL)
        PyErr_NoMemory();
    else {
        sp_status status = sp_graph_run(graph, (const sp_tensor *const *)in, n_in, out, n_out);
        result = status == SP_OK ? sp__py_tuple(out, n_out) : sp__py_raise(status);
        tensors_free(out, n_out);
    }
    tensors_free(in, n_in);
    return result;
}

static PyObject *graph_text(PyObject *self, PyObject *unused)
{
    (void)unused;
    char *text = NULL;
    sp_status status = sp_graph_text(((graph_object *)self)->graph, &text);
    if (status != SP_OK) return sp__py_raise(status);
    PyObject *result = PyUnicode_FromString(text);
    sp_text_free(text);
    return result;
}

static PyObject *graph_str(PyObject *self)
{
    return graph_text(self, NULL);
}

typedef sp_status derive_fn(sp_graph *graph, const sp_tensor *const *examples, sp_graph **out);

static PyObject *derived(PyObject *self, PyObject *args, const char *op, derive_fn *derive)
{
    sp_graph *graph = ((graph_object *)self)->graph, *out = NULL;
    int n;
    sp_tensor **examples = tensors_of(args, op, &n);
    if (examples == NULL) return NULL;
    sp_status status = SP_OK;
    if (n != 0 && n != sp_graph_num_inputs(graph))
        status = sp_fail(SP_EVALUE, "%s: %d examples for %d inputs; give one each, or none", op, n,
                         sp_graph_num_inputs(graph));
    else
        status = derive(graph, n ? (const sp_tensor *const *)examples : NULL, &out);
    tensors_free(examples, n);
    return status == SP_OK ? graph_wrap(out) : sp__py_raise(status);
}

static PyObject *graph_vjp(PyObject *self, PyObject *args)
{
    return derived(self, args, "vjp", sp_graph_vjp);
}

static PyObject *graph_jvp(PyObject *self, PyObject *args)
{
    return derived(self, args, "jvp", sp_graph_jvp);
}

static PyObject *graph_save_onnx(PyObject *self, PyObject *path)
{
    PyObject *bytes = NULL;
    if (!PyUnicode_FSConverter(path, &bytes)) return NULL;
    sp_status status = sp_onnx_save(((graph_object *)self)->graph, PyBytes_AS_STRING(bytes));
    Py_DECREF(bytes);
    return status == SP_OK ? Py_NewRef(Py_None) : sp__py_raise(status);
}

/* _name_input(i, name): what the input is called in text and files. */
static PyObject *graph_name_input(PyObject *self, PyObject *args)
{
    sp_graph *graph = ((graph_object *)self)->graph;
    int i;
    const char *name;
    if (!PyArg_ParseTuple(args, "is:_name_input", &i, &name)) return NULL;
    if (i < 0 || i >= graph->n_inputs) {
        PyErr_Format(PyExc_IndexError, "the graph has %d inputs, there is no input %d",
                     graph->n_inputs, i);
        return NULL;
    }
    sp_status status = sp__graph_name_value(graph, graph->inputs[i], name);
    return status == SP_OK ? Py_NewRef(Py_None) : sp__py_raise(status);
}

static PyObject *graph_num_inputs(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromLong(sp_graph_num_inputs(((graph_object *)self)->graph));
}

static PyObject *graph_num_outputs(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromLong(sp_graph_num_outputs(((graph_object *)self)->graph));
}

static PyMethodDef graph_methods[] = {
    {"run", graph_run, METH_VARARGS, "run(*tensors) -> tuple of tensors. Runs the compiled graph."},
    {"text", graph_text, METH_NOARGS,
     "text() -> str. The graph's textual form; spool._C.graph_parse() reads it back."},
    {"vjp", graph_vjp, METH_VARARGS, "vjp(*examples) -> Graph. See sp_graph_vjp() in spool.h."},
    {"jvp", graph_jvp, METH_VARARGS, "jvp(*examples) -> Graph. See sp_graph_jvp() in spool.h."},
    {"save_onnx", graph_save_onnx, METH_O,
     "save_onnx(path). Writes an ONNX model; all or nothing."},
    {"_name_input", graph_name_input, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef graph_getset[] = {
    {"num_inputs", graph_num_inputs, NULL, "How many tensors run() takes.", NULL},
    {"num_outputs", graph_num_outputs, NULL, "How many tensors run() returns.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyTypeObject graph_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "spool._C.Graph",
    .tp_basicsize = sizeof(graph_object),
    .tp_dealloc = graph_dealloc,
    .tp_str = graph_str,
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_doc = "A captured or loaded graph of ops.",
    .tp_methods = graph_methods,
    .tp_getset = graph_getset,
};

/* ---- module functions ----- */

static PyObject *capture_begin(PyObject *module, PyObject *inputs)
{
    (void)module;
    int n;
    sp_tensor **list = tensors_of(inputs, "capture", &n);
    if (list == NULL) return NULL;
    sp_status status = sp_capture_begin((const sp_tensor *const *)list, n);
    tensors_free(list, n);
    return status == SP_OK ? Py_NewRef(Py_None) : sp__py_raise(status);
}

/* capture_end(outputs): the graph; None gives the capture up. */
static PyObject *capture_end(PyObject *module, PyObject *outputs)
{
    (void)module;
    sp_graph *graph = NULL;
    sp_tensor **list = NULL;
    int n = 0;
    if (outputs != Py_None && (list = tensors_of(outputs, "capture", &n)) == NULL) {
        if (sp_capture_end(NULL, 0, &graph) == SP_OK) sp_graph_drop(&graph);
        return NULL;
    }
    sp_status status = sp_capture_end((const sp_tensor *const *)list, n, &graph);
    if (list != NULL) tensors_free(list, n);
    if (outputs == Py_None) {
        sp_graph_drop(&graph);
        return Py_NewRef(Py_None);
    }
    return status == SP_OK ? graph_wrap(graph) : sp__py_raise(status);
}

static PyObject *graph_parse(PyObject *module, PyObject *text)
{
    (void)module;
    sp_graph *graph = NULL;
    const char *source = PyUnicode_AsUTF8(text);
    if (source == NULL) return NULL;
    sp_status status = sp_graph_parse(source, &graph);
    return status == SP_OK ? graph_wrap(graph) : sp__py_raise(status);
}

static PyObject *onnx_load(PyObject *module, PyObject *path)
{
    (void)module;
    PyObject *bytes = NULL;
    sp_graph *graph = NULL;
    if (!PyUnicode_FSConverter(path, &bytes)) return NULL;
    sp_status status = sp_onnx_load(PyBytes_AS_STRING(bytes), &graph);
    Py_DECREF(bytes);
    return status == SP_OK ? graph_wrap(graph) : sp__py_raise(status);
}

PyMethodDef sp__py_graph_functions[] = {
    {"capture_begin", capture_begin, METH_O,
     "capture_begin(inputs): record this thread's ops from now on."},
    {"capture_end", capture_end, METH_O,
     "capture_end(outputs) -> Graph; None gives the capture up."},
    {"graph_parse", graph_parse, METH_O, "graph_parse(text) -> Graph."},
    {"onnx_load", onnx_load, METH_O, "onnx_load(path) -> Graph."},
    {NULL, NULL, 0, NULL},
};

int sp__py_graph_start(PyObject *module)
{
    if (PyType_Ready(&graph_type) < 0) return -1;
    Py_INCREF(&graph_type);
    return PyModule_AddObject(module, "Graph", (PyObject *)&graph_type);
}
