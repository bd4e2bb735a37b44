/* Rings through the tape: a hook that holds, by whatever way, a tensor computed from what it
 * listens to. The collector sees references among objects, but a tensor that nothing tracks, and a
 * node that Python has not seen, are none to it.
 *
 *     node y --hook--> box --> function --> closure --> tensor z --> node z --> node y
 *
 * So what the tape holds for Python (functions, packed values, metadata) is in boxes, which are
 * listed, as ctx objects are; and before a full collection a walk goes from each through Python's
 * containers, and on through the history of every tensor that it meets, which makes objects of
 * nodes and has tensors tracked. What is then a ring of objects is collected as one.
 *
 * Invariants
 * 1. The walk only makes more known to the collector; it breaks and frees nothing.
 * 2. It stops after WALK_MOST objects and tries again next time.
 */
#include "bindings/python/ext/py_int.h"

typedef struct box {
    PyObject_HEAD PyObject *held;
    sp_py_start start;
} box;

static PyTypeObject box_type;
static sp_py_start *starts;

static int watch_collections(void);

/* ---- where walks start ----- */

int sp__py_start_add(sp_py_start *start, PyObject *object)
{
    if (watch_collections() < 0) return -1;
    *start = (sp_py_start){object, starts, &starts};
    if (starts) starts->slot = &start->next;
    starts = start;
    return 0;
}

void sp__py_start_remove(sp_py_start *start)
{
    if (!start->slot) return;
    *start->slot = start->next;
    if (start->next) start->next->slot = start->slot;
    start->slot = NULL;
}

/* ---- boxes ----- */

PyObject *sp__py_box(PyObject *held)
{
    box *self = PyObject_GC_New(box, &box_type);
    if (!self) return NULL;
    self->held = Py_NewRef(held);
    self->start.slot = NULL;
    PyObject_GC_Track(self);
    if (sp__py_start_add(&self->start, (PyObject *)self) < 0) Py_CLEAR(self);
    return (PyObject *)self;
}

PyObject *sp__py_boxed(void *self)
{
    PyObject *held = ((box *)self)->held;
    return held ? held : Py_None; /* cleared: part of a ring that is being taken apart */
}

static int box_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(((box *)self)->held);
    return 0;
}

static int box_clear(PyObject *self)
{
    Py_CLEAR(((box *)self)->held);
    return 0;
}

static void box_dealloc(PyObject *object)
{
    box *self = (box *)object;
    PyObject_GC_UnTrack(object);
    sp__py_start_remove(&self->start);
    Py_CLEAR(self->held);
    PyObject_GC_Del(object);
}

static PyTypeObject box_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "spool._C.box",
    .tp_basicsize = sizeof(box),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_dealloc = box_dealloc,
    .tp_traverse = box_traverse,
    .tp_clear = box_clear,
};

/* ---- the walk ----- */

enum { WALK_MOST = 200000 };

typedef struct walk {
    PyObject *met;     /* a set of the addresses of what was met */
    PyObject *todo;    /* a list */
    PyObject *globals; /* of the function that is being looked into: borrowed */
} walk;

static bool leads_on(PyObject *o)
{
    if (sp__py_is_tensor(o)) return sp__py_handle(o)->grad_meta != NULL;
    return PyObject_IS_GC(o) && !PyType_Check(o) && !PyModule_Check(o);
}

static int meet(PyObject *o, void *arg)
{
    walk *w = arg;
    if (!leads_on(o) || o == w->globals || PySet_GET_SIZE(w->met) >= WALK_MOST) return 0;
    PyObject *address = PyLong_FromVoidPtr(o);
    int known = address ? PySet_Contains(w->met, address) : -1;
    int failed = known < 0;
    if (known == 0) failed = PySet_Add(w->met, address) < 0 || PyList_Append(w->todo, o) < 0;
    Py_XDECREF(address);
    return failed ? -1 : 0;
}

/* A leaf's node is its handle's own. */
static int meet_node(sp_node *node, walk *w)
{
    sp_tensor *leaf = sp__node_variable(node);
    if (leaf) return meet(sp__py_object(leaf), w);
    PyObject *object = sp__py_node(node);
    int failed = object ? meet(object, w) : -1;
    Py_XDECREF(object);
    return failed;
}

/* Everything that o refers to, and that the collector may now see. */
static int look_into(PyObject *o, walk *w)
{
    int nr, failed = 0;
    if (sp__py_is_tensor(o)) {
        sp_node *node = sp__history_node(sp__py_handle(o));
        if (node) failed = meet_node(node, w);
        sp__py_track(sp__py_handle(o));
    } else if (sp__py_is_node(o)) {
        sp_node *of = sp__py_node_of(o);
        for (int i = 0; !failed && i < sp__node_num_edges(of); i++) {
            sp_node *node = sp__node_edge(of, i, &nr);
            if (node) failed = meet_node(node, w);
        }
    }
    w->globals = PyFunction_Check(o) ? PyFunction_GET_GLOBALS(o) : NULL;
    if (!failed && Py_TYPE(o)->tp_traverse) failed = Py_TYPE(o)->tp_traverse(o, meet, w);
    return failed;
}

static int walk_all(walk *w)
{
    for (const sp_py_start *start = starts; start; start = start->next)
        if (meet(start->object, w) < 0) return -1;
    while (PyList_GET_SIZE(w->todo)) {
        Py_ssize_t last = PyList_GET_SIZE(w->todo) - 1;
        PyObject *o = Py_NewRef(PyList_GET_ITEM(w->todo, last));
        int failed = PyList_SetSlice(w->todo, last, last + 1, NULL);
        if (!failed) failed = look_into(o, w);
        Py_DECREF(o);
        if (failed) return -1;
    }
    return 0;
}

/* gc.callbacks: called with "start" or "stop", and a dictionary that tells the generation. */
static PyObject *before_collection(PyObject *module, PyObject *const *args, Py_ssize_t n)
{
    (void)module;
    PyObject *generation =
        n == 2 && PyDict_Check(args[1]) ? PyDict_GetItemString(args[1], "generation") : NULL;
    bool full = generation && PyLong_AsLong(generation) >= 2;
    bool start = n == 2 && PyUnicode_Check(args[0]) &&
                 PyUnicode_CompareWithASCIIString(args[0], "start") == 0;
    if (!full || !start || !starts) Py_RETURN_NONE;
    walk w = {PySet_New(NULL), PyList_New(0), NULL};
    if (!w.met || !w.todo || walk_all(&w) < 0)
        PyErr_Clear(); /* no memory: another collection will see more */
    Py_XDECREF(w.met);
    Py_XDECREF(w.todo);
    Py_RETURN_NONE;
}

static PyMethodDef before_collection_def = {
    "_before_collection", (PyCFunction)(void *)before_collection, METH_FASTCALL,
    "_before_collection(phase, info)\n--\n\nShows the collector what leads through the tape."};

static int watch_collections(void)
{
    static bool watching;
    if (watching) return 0;
    PyObject *gc = PyImport_ImportModule("gc");
    PyObject *callbacks = gc ? PyObject_GetAttrString(gc, "callbacks") : NULL;
    PyObject *function = callbacks ? PyCFunction_New(&before_collection_def, NULL) : NULL;
    watching = function && PyList_Append(callbacks, function) == 0;
    Py_XDECREF(function);
    Py_XDECREF(callbacks);
    Py_XDECREF(gc);
    return watching ? 0 : -1;
}

int sp__py_rings_start(void)
{
    return PyType_Ready(&box_type);
}
