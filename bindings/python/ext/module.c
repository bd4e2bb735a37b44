/* spool._C: the extension module. Everything is compiled in; the package's Python files are on top
 * of it.
 *
 * Invariant: the handle hooks are set before any tensor exists.
 */
#include "bindings/python/ext/py_int.h"

#include "jit/start.h"

#ifdef SP_PY_WITH_GRAPH
extern PyMethodDef sp__py_graph_functions[];
int sp__py_graph_start(PyObject *module);
#endif

#ifndef Py_GIL_DISABLED
static int add_functions(PyObject *module)
{
    /* Of two with one name the later counts: creation functions take requires_grad=, the generated
     * ones do not. */
    PyMethodDef *const tables[] = {
        sp__py_functions,         sp__py_boundary_functions, sp__py_copy_functions,
        sp__py_create_functions,  sp__py_interop_functions,  sp__py_level_functions,
        sp__py_vmap_functions,    sp__py_join_functions,     sp__py_fit_functions,
        sp__py_product_functions, sp__py_mode_functions,     sp__py_random_functions,
        sp__py_state_functions,   sp__py_counted_functions,  sp__py_each_functions,
        sp__py_dual_functions,
    };
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
        if (PyModule_AddFunctions(module, tables[i]) < 0) return -1;
    return 0;
}

/* What is there so far is the package's public face; what comes after is for its Python files. */
static int set_all(PyObject *module)
{
    PyObject *names = PyList_New(0), *name, *value;
    Py_ssize_t at = 0;
    if (!names) return -1;
    while (PyDict_Next(PyModule_GetDict(module), &at, &name, &value)) {
        if (PyUnicode_ReadChar(name, 0) == '_') continue;
        if (PyList_Append(names, name) < 0) {
            Py_DECREF(names);
            return -1;
        }
    }
    int result = PyObject_SetAttrString(module, "__all__", names);
    Py_DECREF(names);
    return result;
}

/* What spool.autograd and spool.launch call by these names. */
static int add_of_submodules(PyObject *module)
{
    if (PyModule_AddFunctions(module, sp__py_grad_functions) < 0) return -1;
    if (PyModule_AddFunctions(module, sp__py_saved_functions) < 0) return -1;
    if (PyModule_AddFunctions(module, sp__py_function_functions) < 0) return -1;
    return PyModule_AddFunctions(module, sp__py_launch_functions);
}

static int start_graphs(PyObject *module)
{
#ifdef SP_PY_WITH_JIT
    if (PyModule_AddFunctions(module, sp__py_jit_functions) < 0) return -1;
    if (sp__py_jit_start(module) < 0) return -1;
#endif
#ifdef SP_PY_WITH_GRAPH
    if (PyModule_AddFunctions(module, sp__py_graph_functions) < 0) return -1;
    if (sp__py_graph_start(module) < 0) return -1;
#endif
    (void)module;
    return 0;
}

static int start(PyObject *module)
{
    sp__start();
    sp__py_hooks_start();
    if (sp__py_errors_start(module) < 0 || sp__py_types_start(module) < 0) return -1;
    if (sp__py_tensor_start(module) < 0 || sp__py_mode_start(module) < 0) return -1;
    if (sp__py_random_start(module) < 0 || sp__py_tree_start(module) < 0) return -1;
    if (add_functions(module) < 0 || set_all(module) < 0) return -1;
    if (sp__py_rings_start() < 0 || sp__py_node_start(module) < 0) return -1;
    if (sp__py_callbacks_start(module) < 0 || sp__py_boundary_start(module) < 0) return -1;
    if (sp__py_function_start(module) < 0) return -1;
    if (add_of_submodules(module) < 0 || start_graphs(module) < 0) return -1;
    return PyModule_AddStringConstant(module, "__version__", SP_VERSION);
}
#endif

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = "spool._C",
                                        .m_doc = "Spool's C core; use the package spool.",
                                        .m_size = -1};

PyMODINIT_FUNC PyInit__C(void)
{
#ifdef Py_GIL_DISABLED
    (void)definition;
    PyErr_SetString(
        PyExc_ImportError,
        "spool does not run on free-threaded CPython yet: use a build with the GIL (python3, not "
        "python3t)");
    return NULL;
#else
    static PyObject *module;
    static PyInterpreterState *interpreter;
    if (module && interpreter != PyInterpreterState_Get()) {
        PyErr_SetString(
            PyExc_ImportError,
            "spool runs in one interpreter of a process, and it is loaded in another one");
        return NULL;
    }
    if (module) return Py_NewRef(module); /* imported again after it was taken out of sys.modules */
    PyObject *made = PyModule_Create(&definition);
    if (!made) return NULL;
    if (start(made) < 0) {
        Py_DECREF(made);
        return NULL;
    }
    interpreter = PyInterpreterState_Get();
    module = Py_NewRef(made);
    return made;
#endif
}
