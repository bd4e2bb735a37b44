"""python_gen.c: CPython entry points, methods, operators and their documentation."""

from __future__ import annotations

from optable.capi import c_constant
from optable.ctext import BANNER, c_string, c_text, wrap_list
from optable.docs import docstring, groups
from optable.formula import operator_op
from optable.rules import table_by_operator

_PRELUDE = f"""/* Python's entry points to the ops. {BANNER} */
#include "bindings/python/ext/py_parse.h"

#define ENTRY(function) (PyCFunction)(void (*)(void))function, METH_FASTCALL | METH_KEYWORDS
"""
_COMPARE = {
    "lt": "Py_LT",
    "le": "Py_LE",
    "eq": "Py_EQ",
    "ne": "Py_NE",
    "gt": "Py_GT",
    "ge": "Py_GE",
}
_SLOTS = {
    "add": "add",
    "sub": "subtract",
    "mul": "multiply",
    "truediv": "true_divide",
    "matmul": "matrix_multiply",
    "floordiv": "floor_divide",
    "mod": "remainder",
    "and": "and",
    "or": "or",
    "xor": "xor",
    "lshift": "lshift",
    "rshift": "rshift",
}


def _fallback(op, param):
    """Static initialiser of the attribute that stands in for one not given."""
    kind = f".kind = {param.attr_kind}"
    if not param.has_default or param.default is None:
        return f"{{{kind}, .absent = true}}"
    if param.kind == "ints":
        pointer = f".v.ints = default_{op.c_name}_{param.name}, " if param.default else ""
        return f"{{{pointer}.n = {len(param.default)}, {kind}}}"
    if param.kind == "scalar":
        is_float = isinstance(param.default, float)
        tag = (
            "SP_FLOAT64"
            if is_float
            else "SP_BOOL"
            if isinstance(param.default, bool)
            else "SP_INT64"
        )
        value = f".v.f = {param.default!r}" if is_float else f".v.i = {int(param.default)}"
        return f"{{{value}, {kind}, .tag = {tag}}}"
    member = "v.f" if param.kind == "float" else "v.i"
    return f"{{.{member} = {c_constant(param, param.default)}, {kind}}}"


def _param(op, param):
    flags = [
        name
        for name, on in (
            ("REQUIRED", param.required),
            ("NONE", param.optional),
            ("KEYWORD", param.kwonly),
            ("SPREAD", param.spread),
        )
        if on
    ]
    fields = [
        c_string(param.name),
        f"SP_PY_{param.kind.upper()}",
        " | ".join(f"SP_PY_{f}" for f in flags) or "0",
    ]
    if not param.is_tensor:
        fields.append(f".fallback = {_fallback(op, param)}")
    if param.choices:
        fields.append(f".choices = choices_{param.name}")
    return wrap_list("    {", fields, "},")


def _parameters(ops):
    lines, choices = ["/* ---- parameters ----- */", ""], {}
    ops = [op for op in ops if {"function", "method", "inplace"} & set(op.variants)]
    for op in ops:
        choices.update({p.name: p.choices for p in op.params if p.choices})
    for name, values in choices.items():
        lines.append(
            wrap_list(
                f"static const char *const choices_{name}[] = {{",
                [*(c_string(v) for v in values), "NULL"],
                "};",
            )
        )
    for op in ops:
        for param in op.options:
            if param.kind == "ints" and param.default:
                values = ", ".join(str(v) for v in param.default)
                lines.append(
                    f"static const int64_t default_{op.c_name}_{param.name}[] = {{{values}}};"
                )
        if len(op.outputs) > 1:
            fields = ", ".join(f"{{{c_string(name)}, NULL}}" for name in op.outputs)
            lines.append(f"static sp__py_outputs outputs_{op.c_name} = {{.fields = {{{fields}}}}};")
        if op.params:
            lines += [
                f"static sp__py_param params_{op.c_name}[] = {{",
                *(_param(op, p) for p in op.params),
                "};",
            ]
    return "\n".join(lines)


def _signature(op, name):
    params = f"params_{op.c_name}" if op.params else "NULL"
    text = op.signature.split(" ->")[0].replace(op.name, name, 1)
    out = "true" if "out" in op.variants and not name.endswith("_") else "false"
    extras = {"generator": "SP_PY_DRAWS", "device": "SP_PY_MAKES"}
    extras = " | ".join(extras[e] for e in op.python_extras if e in extras) or "0"
    counts = [len(op.params), len(op.attrs) + len(op.hidden_attrs), len(op.outputs)]
    counts = [str(n) for n in counts]
    outputs = [f"&outputs_{op.c_name}"] if len(op.outputs) > 1 else []
    return wrap_list(
        "    {", [op.opcode, *counts, out, extras, params, c_string(text), *outputs], "},"
    )


def _group(symbol, name, members):
    lines = [
        f"static const sp__py_sig sigs_{symbol}[] = {{",
        *(_signature(op, name) for op in members),
        "};",
    ]
    lines.append(
        f"static const sp__py_group group_{symbol} = {{{c_string(name)}, {len(members)}, sigs_{symbol}}};"
    )
    return "\n".join(lines)


def _tensors_path(members, kind, mode):
    """The check for a call of exact tensors alone, where an overload takes just tensors."""
    for op in members:
        n = len(op.params)
        plain = op.params and all(p.kind == "tensor" and not p.optional for p in op.params)
        if not plain or op.hidden_attrs or len(op.outputs) != 1 or (kind != "function" and n > 2):
            continue
        if kind == "function":
            tests = [f"sp__py_is_exact(args[{i}])" for i in range(n)]
            call = f"sp__py_call_tensors({op.opcode}, args, {n}, {mode})"
        elif n == 1:
            tests, call = [], f"sp__py_call_tensors({op.opcode}, &self, 1, {mode})"
        else:
            tests, call = (
                ["sp__py_is_exact(args[0])"],
                f"sp__py_call_pair({op.opcode}, self, args[0], {mode})",
            )
        condition = [f"n == {n if kind == 'function' else n - 1}", "!names", *tests]
        return [f"    if (SP_LIKELY({' && '.join(condition)}))", f"        return {call};"]
    return []


def _number_path(members, kind, mode):
    """The same for an exact tensor and an exact number."""
    for op in members:
        if (
            [p.kind for p in op.params] != ["tensor", "scalar"]
            or not op.params[1].required
            or op.params[1].kwonly
        ):
            continue
        at, who = (1, "args[0]") if kind == "function" else (0, "self")
        condition = [
            f"n == {at + 1}",
            "!names",
            *(["sp__py_is_exact(args[0])"] if at else []),
            f"sp__py_exact_number(args[{at}], &number)",
        ]
        return [
            f"    if ({' && '.join(condition)})",
            f"        return sp__py_call_scalar({op.opcode}, {who}, number, {mode});",
        ]
    return []


def _entry(prefix, symbol, members, kind):
    """One METH_FASTCALL | METH_KEYWORDS function."""
    mode = "SP_PY_INPLACE" if kind == "inplace" else "SP_PY_PLAIN"
    number = _number_path(members, kind, mode)
    lines = [
        wrap_list(
            f"static PyObject *{prefix}_{symbol}(",
            ["PyObject *self", "PyObject *const *args", "Py_ssize_t n", "PyObject *names"],
            ")",
        ),
        "{",
    ]
    lines += ["    sp_scalar number;"] if number else []
    lines += ["    (void)self;"] if kind == "function" else []
    lines += _tensors_path(members, kind, mode) + number
    who = "NULL" if kind == "function" else "self"
    lines += [f"    return sp__py_call(&group_{symbol}, {who}, args, n, names, {mode});", "}"]
    return "\n".join(lines)


def _def(prefix, symbol, name, doc):
    head = f"    {{{c_string(name)}, ENTRY({prefix}_{symbol}),"
    return f"{head}\n     {c_text(doc, '     ')}}},"


def _names(ops):
    """Groups, entries and rows of the method tables."""
    functions, methods, inplace = (groups(ops, v) for v in ("function", "method", "inplace"))
    texts, tables = [], {"function": [], "method": []}
    for name in dict.fromkeys([*functions, *methods]):
        same = functions.get(name) == methods.get(name)
        for kind, found in (("function", functions), ("method", methods)):
            if name not in found:
                continue
            symbol = (
                name if same or name not in functions or name not in methods else f"{name}_{kind}"
            )
            if not (same and kind == "method"):
                texts.append(_group(symbol, name, found[name]))
            texts.append(_entry(kind, symbol, found[name], kind))
            tables[kind].append(_def(kind, symbol, name, docstring(found[name], name, kind)))
    for name, members in inplace.items():
        texts += [
            _group(f"{name}_", f"{name}_", members),
            _entry("method", f"{name}_", members, "inplace"),
        ]
        tables["method"].append(
            _def("method", f"{name}_", f"{name}_", docstring(members, f"{name}_", "inplace"))
        )
    return texts, tables


# ---- operators ----------------------------------------------------------------------------------


def _operator_row(operators, name, inplace=False):
    found = [operator_op(operators, name, kinds) for kinds in ("tt", "ts", "st")]
    if inplace:
        found = [op if op and "inplace" in op.variants else None for op in found[:2]] + [None]
    codes = [op.opcode if op else "-1" for op in found]
    return None if codes == ["-1"] * 3 else ", ".join(codes)


def _slot(name, row, mode, lines, fills, slot):
    suffix = "i" if mode == "SP_PY_INPLACE" else ""
    is_pow = name == "pow"
    lines.append(
        f"static PyObject *slot_{suffix}{name}(PyObject *a, PyObject *b{', PyObject *modulus' if is_pow else ''})\n{{\n"
        f"    static const sp__py_operator o = {{{row}}};\n"
        + ("    if (modulus != Py_None) Py_RETURN_NOTIMPLEMENTED;\n" if is_pow else "")
        + f"    return sp__py_operate(&o, a, b, {mode});\n}}"
    )
    fills.append(f"    slots->nb_{slot} = slot_{suffix}{name};")


def _operators(ops):
    operators, lines, fills = table_by_operator(ops), [], []
    for name, slot in {**_SLOTS, "pow": "power"}.items():
        row = _operator_row(operators, name)
        if row:
            _slot(name, row, "SP_PY_PLAIN", lines, fills, slot)
        row = _operator_row(operators, name, inplace=True)
        if row:
            _slot(name, row, "SP_PY_INPLACE", lines, fills, f"inplace_{slot}")
    for name, slot in (("neg", "negative"), ("abs", "absolute"), ("invert", "invert")):
        op = operator_op(operators, name, "t")
        if op:
            lines.append(
                f"static PyObject *slot_{name}(PyObject *a)\n{{\n"
                f"    return sp__py_call_tensors({op.opcode}, &a, 1, SP_PY_PLAIN);\n}}"
            )
            fills.append(f"    slots->nb_{slot} = slot_{name};")
    lines.append(
        "\n".join(
            [
                "void sp__py_number_fill(PyNumberMethods *slots)",
                "{",
                *(fills or ["    (void)slots;"]),
                "}",
            ]
        )
    )
    rows = [
        f"        [{_COMPARE[n]}] = {{{row or '-1, -1, -1'}}},"
        for n in _COMPARE
        for row in [_operator_row(operators, n)]
    ]
    lines.append(
        "\n".join(
            [
                "PyObject *sp__py_compare(PyObject *a, PyObject *b, int op)",
                "{",
                "    static const sp__py_operator operators[] = {",
                *rows,
                "    };",
                "    return sp__py_operate(&operators[op], a, b, SP_PY_PLAIN);",
                "}",
            ]
        )
    )
    return lines


def generate(ops):
    """The text of python_gen.c."""
    texts, tables = _names(ops)
    parts = [_PRELUDE, _parameters(ops), "/* ---- functions and methods ----- */", *texts]
    for kind in ("function", "method"):
        parts.append(
            "\n".join(
                [
                    f"PyMethodDef sp__py_{kind}s[] = {{",
                    *tables[kind],
                    "    {NULL, NULL, 0, NULL},",
                    "};",
                ]
            )
        )
    parts += ["/* ---- operators ----- */", *_operators(ops)]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"
