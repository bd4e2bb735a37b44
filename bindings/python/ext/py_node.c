/* Nodes of the tape as Python objects.
 *
 * A node that Python has seen is bound to one object for life, whose reference count is the node's
 * (autograd/objects.c); the object of a leaf's node only keeps the leaf. Both are the collector's.
 */
#include "bindings/python/ext/py_int.h"

#include <string.h>
#include <structmember.h>

typedef struct node_object {
    PyObject_HEAD sp_node *node;
    PyObject *leaf;     /* of an AccumulateGrad node: its tensor, which owns it; else NULL */
    PyObject *metadata; /* a box with a dictionary */
    PyObject *weak;
} node_object;

static PyTypeObject node_type;

static node_object *node_new(sp_node *node)
{
    node_object *self = PyObject_GC_New(node_object, &node_type);
    if (!self) return NULL;
    sp_tensor *leaf = sp__node_variable(node);
    self->node = NULL;
    self->metadata = self->weak = self->leaf = NULL;
    sp_status status = sp__node_bind(node, self);
    if (status) {
        Py_DECREF(self);
        sp__py_raise(status);
        return NULL;
    }
    self->node = node;
    self->leaf = leaf ? Py_NewRef(sp__py_object(leaf)) : NULL;
    PyObject_GC_Track(self);
    return self;
}

PyObject *sp__py_node(sp_node *node)
{
    if (!node) Py_RETURN_NONE;
    PyObject *known = sp__node_object(node);
    return known ? Py_NewRef(known) : (PyObject *)node_new(node);
}

bool sp__py_is_node(PyObject *o)
{
    return Py_TYPE(o) == &node_type;
}

sp_node *sp__py_node_of(PyObject *self)
{
    return ((node_object *)self)->node;
}

/* ---- life, and the collector ----- */

typedef struct visitor {
    visitproc visit;
    void *arg;
    int result;
} visitor;

static void see(void *arg, void *object)
{
    visitor *v = arg;
    if (!v->result) v->result = v->visit(object, v->arg);
}

int sp__py_grad_traverse(sp_tensor *t, visitproc visit, void *arg)
{
    visitor v = {visit, arg, 0};
    sp__history_each(t, see, &v);
    return v.result;
}

void sp__py_grad_clear(sp_tensor *t)
{
    sp__history_clear(t);
}

static int node_traverse(PyObject *object, visitproc visit, void *arg)
{
    node_object *self = (node_object *)object;
    Py_VISIT(self->metadata);
    Py_VISIT(self->leaf);
    visitor v = {visit, arg, 0};
    if (!self->leaf) sp__node_each(self->node, see, &v);
    return v.result;
}

static int node_clear(PyObject *object)
{
    node_object *self = (node_object *)object;
    Py_CLEAR(self->metadata);
    if (!self->leaf) sp__node_clear(self->node);
    return 0;
}

static void node_dealloc(PyObject *object)
{
    node_object *self = (node_object *)object;
    PyObject_GC_UnTrack(object);
    if (self->weak) PyObject_ClearWeakRefs(object);
    Py_CLEAR(self->metadata);
    if (self->node) sp__node_unbind(self->node);
    Py_XDECREF(self->leaf);
    PyObject_GC_Del(object);
}

/* A node that holds something of Python's is an object from the start. */
static sp_status bind(sp_node *node)
{
    PyObject *object = sp__py_node(node);
    if (!object) return sp__py_callback_failed("autograd");
    Py_DECREF(object);
    return SP_OK;
}

static void dealloc_bound(void *object)
{
    node_dealloc(object);
}

/* ---- what it is ----- */

#define NODE_NAME(node) sp__node_name(node, (char[SP_GRAD_FN_TEXT]){0}, SP_GRAD_FN_TEXT)

static PyObject *node_name(PyObject *self, PyObject *unused)
{
    (void)unused;
    return PyUnicode_FromString(NODE_NAME(sp__py_node_of(self)));
}

static PyObject *node_repr(PyObject *self)
{
    const sp_node *node = sp__py_node_of(self);
    return PyUnicode_FromFormat("<%s node %llu>", NODE_NAME(node),
                                (unsigned long long)sp__node_seq(node));
}

static PyObject *node_sequence(PyObject *self, PyObject *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLongLong(sp__node_seq(sp__py_node_of(self)));
}

static PyObject *get_op(PyObject *self, void *unused)
{
    (void)unused;
    return PyUnicode_FromString(sp__node_op(sp__py_node_of(self)));
}

static PyObject *get_line(PyObject *self, void *unused)
{
    (void)unused;
    char line[SP_NODE_LINE_TEXT];
    sp__node_line(sp__py_node_of(self), line, sizeof line);
    return line[0] ? PyUnicode_FromString(line) : Py_NewRef(Py_None);
}

static PyObject *get_next(PyObject *self, void *unused)
{
    (void)unused;
    sp_node *of = sp__py_node_of(self);
    int n = sp__node_num_edges(of);
    PyObject *edges = PyTuple_New(n);
    for (int i = 0; edges && i < n; i++) {
        int out_nr = 0;
        PyObject *node = sp__py_node(sp__node_edge(of, i, &out_nr));
        PyObject *edge = node ? Py_BuildValue("(Ni)", node, out_nr) : NULL;
        if (edge)
            PyTuple_SET_ITEM(edges, i, edge);
        else
            Py_CLEAR(edges);
    }
    return edges;
}

static PyObject *get_variable(PyObject *self, void *unused)
{
    (void)unused;
    PyObject *leaf = ((node_object *)self)->leaf;
    return Py_NewRef(leaf ? leaf : Py_None);
}

static PyObject *get_metadata(PyObject *object, void *unused)
{
    (void)unused;
    node_object *self = (node_object *)object;
    PyObject *dict = self->metadata ? NULL : PyDict_New();
    if (dict) self->metadata = sp__py_box(dict);
    Py_XDECREF(dict);
    return self->metadata ? Py_NewRef(sp__py_boxed(self->metadata)) : NULL;
}

static PyObject *get_requires_grad(PyObject *self, void *unused)
{
    (void)self, (void)unused;
    Py_RETURN_TRUE;
}

static PyObject *output_of(const sp_meta *m)
{
    return Py_BuildValue("(NO)", sp__py_size(m->rank, m->shape),
                         sp__py_dtype_object((sp_dtype)m->dtype));
}

static PyObject *get_outputs(PyObject *self, void *unused)
{
    (void)unused;
    const sp_node *node = sp__py_node_of(self);
    int n = sp__node_num_outputs(node);
    PyObject *outputs = PyTuple_New(n);
    for (int i = 0; outputs && i < n; i++) {
        sp_meta meta;
        sp__node_out_meta(node, i, &meta);
        PyObject *output = output_of(&meta);
        if (output)
            PyTuple_SET_ITEM(outputs, i, output);
        else
            Py_CLEAR(outputs);
    }
    return outputs;
}

/* ---- saved values ----- */

/* "x" for an input of that name, "result" or "result1" for an output. */
static void saved_name(const sp_node *node, int k, char *buf, size_t n)
{
    int index = sp__node_saved_index(node, k);
    const char *input = index >= 0 ? sp__node_in_name(node, index) : "result";
    bool numbered = index >= 0 ? !input : sp__node_num_outputs(node) > 1;
    if (numbered)
        snprintf(buf, n, "%s%d", input ? input : "input", index >= 0 ? index : -1 - index);
    else
        snprintf(buf, n, "%s", input);
}

enum { SAVED_NAME = 64 };

static PyObject *get_saved(PyObject *self, void *unused)
{
    (void)unused;
    const sp_node *node = sp__py_node_of(self);
    int n = sp__node_num_saved(node);
    PyObject *names = PyTuple_New(n);
    for (int k = 0; names && k < n; k++) {
        char name[SAVED_NAME];
        saved_name(node, k, name, sizeof name);
        PyObject *text = PyUnicode_FromString(name);
        if (text)
            PyTuple_SET_ITEM(names, k, text);
        else
            Py_CLEAR(names);
    }
    return names;
}

/* node._saved_x, for each name in node.saved. */
static PyObject *node_getattro(PyObject *self, PyObject *attribute)
{
    static const char prefix[] = "_saved_";
    const char *wanted = PyUnicode_AsUTF8(attribute);
    if (!wanted) return NULL;
    sp_node *node = sp__py_node_of(self);
    int n = strncmp(wanted, prefix, sizeof prefix - 1) == 0 ? sp__node_num_saved(node) : 0;
    for (int k = 0; k < n; k++) {
        char name[SAVED_NAME];
        sp_tensor *value = NULL;
        saved_name(node, k, name, sizeof name);
        if (strcmp(wanted + sizeof prefix - 1, name) == 0)
            return sp__py_result(sp__node_saved(node, k, &value), value);
    }
    return sp__py_node_getattro(self, attribute);
}

/* ---- the type ----- */

static PyMethodDef node_methods[] = {
    {"name", node_name, METH_NOARGS,
     "name($self)\n--\n\nThe op's name with 'Backward', or 'AccumulateGrad'."},
    {"_sequence_nr", node_sequence, METH_NOARGS,
     "_sequence_nr($self)\n--\n\nLarger than that of all nodes that self leads to."},
    {"register_hook", sp__py_node_hook_after, METH_O,
     "register_hook($self, hook)\n--\n\nCalls hook(grad_inputs, grad_outputs) when a backward has "
     "run this node, with tuples that hold None where there is no gradient. A tuple that it "
     "returns takes the place of grad_inputs. Returns a handle with remove()."},
    {"register_prehook", sp__py_node_hook_before, METH_O,
     "register_prehook($self, hook)\n--\n\nCalls hook(grad_outputs) before a backward runs this "
     "node; a tuple that it returns takes their place. Returns a handle with remove()."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef node_getset[] = {
    {"op", get_op, NULL, "The op's name in the table, 'leaf' for AccumulateGrad.", NULL},
    {"next_functions", get_next, NULL,
     "A pair (node, number of its output) for every input of the op.", NULL},
    {"variable", get_variable, NULL,
     "The leaf that an AccumulateGrad node adds to; None for others.", NULL},
    {"metadata", get_metadata, NULL, "A dictionary that lives as long as the node.", NULL},
    {"outputs", get_outputs, NULL, "A pair (shape, dtype) for every output of the op.", NULL},
    {"saved", get_saved, NULL,
     "Names of what the op saved for its gradient: the value of 'x' is _saved_x.", NULL},
    {"line", get_line, NULL,
     "'file.py:12 in function' where anomaly mode was on when the op was recorded, else None.",
     NULL},
    {"requires_grad", get_requires_grad, NULL, "True.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

/* By identity, as all objects compare. */
static PyTypeObject node_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "spool.autograd.Node",
    .tp_doc = "One recorded op of the tape.",
    .tp_basicsize = sizeof(node_object),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_dealloc = node_dealloc,
    .tp_traverse = node_traverse,
    .tp_clear = node_clear,
    .tp_repr = node_repr,
    .tp_getattro = node_getattro,
    .tp_methods = node_methods,
    .tp_getset = node_getset,
    .tp_weaklistoffset = offsetof(node_object, weak),
};

PyObject *sp__py_grad_fn(PyObject *self, void *unused)
{
    (void)unused;
    sp_node *node = NULL;
    sp_status status = sp__grad_fn(sp__py_handle(self), &node);
    return status ? sp__py_raise(status) : sp__py_node(node);
}

void sp__py_show(sp_tensor *t)
{
    PyObject *node = sp__py_grad_fn(sp__py_object(t), NULL);
    if (!node) PyErr_Clear();
    Py_XDECREF(node);
    sp__py_track(t);
}

int sp__py_node_start(PyObject *module)
{
    if (PyType_Ready(&node_type) < 0) return -1;
    sp__node_hooks.dealloc = dealloc_bound;
    sp__node_hooks.bind = bind;
    return PyObject_SetAttrString(module, "Node", (PyObject *)&node_type);
}
