/* The process's state in Python: threads, statistics, the list of ops. */
#include "bindings/python/ext/py_int.h"

#include "ops_gen.h"
#include "tensor/memory.h"

static PyObject *set_num_threads(PyObject *module, PyObject *count)
{
    (void)module;
    int64_t n;
    if (sp__py_int(count, "set_num_threads", "n", &n) < 0) return NULL;
    return sp__py_none(sp_set_num_threads(n > INT32_MAX || n < 0 ? 0 : (int)n));
}

static PyObject *get_num_threads(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return PyLong_FromLong(sp_num_threads());
}

static PyObject *synchronize(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return sp__py_none(sp_synchronize());
}

static PyObject *memory_stats(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    sp_memory_stats s;
    sp_memory_stats_get(&s);
    return Py_BuildValue("{sLsLsLsLsL}", "live_bytes", (long long)s.live_bytes, "peak_bytes",
                         (long long)s.peak_bytes, "cached_bytes", (long long)s.cached_bytes,
                         "live_blocks", (long long)s.live_blocks, "allocations",
                         (long long)s.allocations);
}

static PyObject *memory_reset_peak(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    sp_memory_stats_reset_peak();
    Py_RETURN_NONE;
}

static PyObject *memory_trim(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    sp_memory_trim();
    Py_RETURN_NONE;
}

static PyObject *launch_stats(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    sp_launch_stats s;
    sp_launch_stats_get(&s);
    return Py_BuildValue("{sLsLsLsLsLsL}", "inline_runs", (long long)s.inline_runs, "queued_runs",
                         (long long)s.queued_runs, "helped_runs", (long long)s.helped_runs,
                         "plan_runs", (long long)s.plan_runs, "eager_launches",
                         (long long)s.eager_launches, "synchronizations",
                         (long long)s.synchronizations);
}

static PyObject *launch_reset(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    sp_launch_stats_reset();
    Py_RETURN_NONE;
}

static PyObject *op_names(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    PyObject *names = PyList_New(0);
    for (int i = 0; names && i < SP_OP_COUNT; i++) {
        PyObject *name = PyUnicode_FromString(sp_op_table[i].name);
        if (!name || PyList_Append(names, name) < 0) Py_CLEAR(names);
        Py_XDECREF(name);
    }
    return names;
}

static PyObject *fail_nth(PyObject *module, PyObject *args)
{
    (void)module;
    long long n;
    int sticky = 0;
    if (!PyArg_ParseTuple(args, "L|p:_memory_fail_nth", &n, &sticky)) return NULL;
    sp_memory_fail_nth(n, sticky);
    Py_RETURN_NONE;
}

static PyObject *memory_requests(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return PyLong_FromLongLong(sp_memory_requests());
}

static PyObject *set_package(PyObject *module, PyObject *folder)
{
    (void)module;
    Py_ssize_t n;
    const char *text = PyUnicode_AsUTF8AndSize(folder, &n);
    if (!text) return NULL;
    sp__py_set_package(text, (size_t)n);
    Py_RETURN_NONE;
}

PyMethodDef sp__py_state_functions[] = {
    {"set_num_threads", set_num_threads, METH_O,
     "set_num_threads(n)\n--\n\nHow many threads kernels use; ValueError below 1."},
    {"get_num_threads", get_num_threads, METH_NOARGS,
     "get_num_threads()\n--\n\nHow many threads kernels use."},
    {"synchronize", synchronize, METH_NOARGS,
     "synchronize()\n--\n\nWaits until all queued work is done; raises the first error of a queue, "
     "if there is one."},
    {"memory_stats", memory_stats, METH_NOARGS,
     "memory_stats()\n--\n\nA dict: live_bytes, peak_bytes, cached_bytes, live_blocks, "
     "allocations."},
    {"_memory_reset_peak", memory_reset_peak, METH_NOARGS,
     "_memory_reset_peak()\n--\n\nLets peak_bytes start anew."},
    {"_memory_trim", memory_trim, METH_NOARGS,
     "_memory_trim()\n--\n\nGives cached blocks back to the system."},
    {"_memory_fail_nth", fail_nth, METH_VARARGS,
     "_memory_fail_nth(n, sticky=False)\n--\n\nLets the n-th allocation from now on fail; 0 "
     "switches off. For tests."},
    {"_memory_requests", memory_requests, METH_NOARGS,
     "_memory_requests()\n--\n\nAllocations since _memory_fail_nth()."},
    {"op_names", op_names, METH_NOARGS, "op_names()\n--\n\nThe names of all ops in the table."},
    {"_set_package", set_package, METH_O,
     "_set_package(folder)\n--\n\nThe folder whose frames are not the user's."},
    {NULL, NULL, 0, NULL},
};

/* spool.launch */
PyMethodDef sp__py_launch_functions[] = {
    {"stats", launch_stats, METH_NOARGS, "stats()\n--\n\nA dict of how kernels were run so far."},
    {"reset_stats", launch_reset, METH_NOARGS, "reset_stats()\n--\n\nSets the counts to zero."},
    {NULL, NULL, 0, NULL},
};
