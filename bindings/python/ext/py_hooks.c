/* What the layers below ask the interpreter for: the user's line, the GIL around waits, and work
 * that needs the GIL.
 *
 * Invariants
 * 1. `here` and `keep` run with the GIL held. `drop` and foreign memory's release may run on a
 * worker thread, which must not wait for the GIL (its holder may be waiting for the worker): they
 * then go through sp__py_with_gil().
 * 2. A line is that of the innermost frame outside the package, found without allocating a
 * traceback.
 */
#include "bindings/python/ext/py_int.h"

#include <frameobject.h>

#include "ops/launch.h"
#include "tensor/memory.h"

/* ---- work for the GIL's holder ----- */

static _Atomic(sp_py_later *) pending;

static int run_pending(void *unused)
{
    (void)unused;
    for (sp_py_later *work = atomic_exchange(&pending, NULL), *next; work; work = next) {
        next = work->next;
        work->run(work);
    }
    return 0;
}

void sp__py_with_gil(sp_py_later *work)
{
    if (!Py_IsInitialized())
        return; /* the interpreter is gone, and what the work would give back with it */
    if (PyGILState_Check()) {
        work->run(work);
        return;
    }
    work->next = atomic_load(&pending);
    while (!atomic_compare_exchange_weak(&pending, &work->next, work)) {
    }
    /* When the interpreter's list of calls is full, a later one takes this work along. */
    (void)Py_AddPendingCall(run_pending, NULL);
}

/* ---- the user's line ----- */

static char *package;
static size_t package_length;

void sp__py_set_package(const char *folder, size_t n)
{
    char *copy = PyMem_Malloc(n + 1);
    if (!copy) return;
    memcpy(copy, folder, n + 1);
    PyMem_Free(package);
    package = copy, package_length = n;
}

bool sp__py_is_ours(PyCodeObject *code)
{
    Py_ssize_t n;
    const char *file = PyUnicode_AsUTF8AndSize(code->co_filename, &n);
    if (!file) PyErr_Clear();
    return file && package_length && (size_t)n > package_length &&
           memcmp(file, package, package_length) == 0;
}

static int last_instruction(PyFrameObject *frame)
{
#if PY_VERSION_HEX >= 0x030B0000
    return PyFrame_GetLasti(frame);
#elif PY_VERSION_HEX >= 0x030A0000
    return frame->f_lasti * (int)sizeof(_Py_CODEUNIT);
#else
    return frame->f_lasti;
#endif
}

static void take(PyFrameObject *frame, PyCodeObject *code, sp__where *out)
{
    out->code = code, out->at = last_instruction(frame);
}

static void here_outside_package(PyFrameObject *frame, sp__where *out)
{
    Py_INCREF(frame);
    while (frame) {
        PyCodeObject *code = PyFrame_GetCode(frame);
        bool ours = sp__py_is_ours(code);
        if (!ours) take(frame, code, out);
        PyFrameObject *back = ours ? PyFrame_GetBack(frame) : NULL;
        if (ours) Py_DECREF(code);
        Py_DECREF(frame);
        frame = back;
    }
}

static void here(sp__where *out)
{
    out->code = NULL, out->at = 0;
    PyFrameObject *frame = PyEval_GetFrame();
    if (!frame) return;
    PyCodeObject *code = PyFrame_GetCode(frame);
    if (SP_LIKELY(!sp__py_is_ours(code))) {
        take(frame, code, out);
        return;
    }
    Py_DECREF(code);
    here_outside_package(frame, out);
}

typedef struct later_drop {
    sp_py_later later;
    PyObject *object;
} later_drop;

static void run_drop(sp_py_later *self)
{
    Py_DECREF(((later_drop *)self)->object);
    sp__free(self, sizeof(later_drop));
}

static void drop(sp__where *where)
{
    PyObject *code = where->code;
    where->code = NULL;
    if (!code) return;
    if (PyGILState_Check()) {
        Py_DECREF(code);
        return;
    }
    later_drop *work = sp__alloc(sizeof *work);
    if (!work) return; /* a code object lives a little longer: until the process ends */
    work->later.run = run_drop, work->object = code;
    sp__py_with_gil(&work->later);
}

static void keep(const sp__where *where)
{
    Py_XINCREF((PyObject *)where->code);
}

/* Also from a worker: a code object does not change, and sp__py_is_ours() has cached its file
 * name's UTF-8. */
static void text(const sp__where *where, char *buf, size_t n)
{
    buf[0] = 0;
    PyCodeObject *code = where->code;
    if (!code) return;
    const char *file = PyUnicode_AsUTF8(code->co_filename);
    if (!file) return;
    const char *slash = strrchr(file, '/');
    snprintf(buf, n, "%s:%d", slash ? slash + 1 : file, PyCode_Addr2Line(code, where->at));
}

static void function(const sp__where *where, char *buf, size_t n)
{
    PyCodeObject *code = where->code;
    const char *name = code ? PyUnicode_AsUTF8(code->co_name) : NULL;
    if (code && !name) PyErr_Clear();
    snprintf(buf, n, "%s", name ? name : "");
}

/* ---- letting other threads run ----- */

static void *leave(void)
{
    return PyGILState_Check() ? PyEval_SaveThread() : NULL;
}

static void enter(void *left)
{
    if (left) PyEval_RestoreThread(left);
}

void sp__py_hooks_start(void)
{
    sp__blocking_hooks = (sp_blocking_hooks){.leave = leave, .enter = enter};
    sp__where_hooks = (sp_where_hooks){
        .here = here, .drop = drop, .keep = keep, .text = text, .function = function};
}
