"""Documentation and data that follow from the table: docstrings, stubs, op reference, samples."""

from __future__ import annotations

import json
import textwrap

from optable.formula import operator_op
from optable.table import OPERATORS

# What a stub template must have; bindings/python/spool/_C.pyi.in has the real one.
STUB_TEMPLATE = """from builtins import bool as _bool
from builtins import float as _float
from builtins import int as _int
from collections.abc import Sequence
from typing import Any, overload

class dtype: ...

_AnyDType = dtype | type[Any] | None
_AnyDevice = Any

class Generator: ...

class Tensor:
    #@METHODS@

#@FUNCTIONS@
"""
_EXCEPTIONS = {
    "ESHAPE": "ShapeError",
    "EDTYPE": "DTypeError",
    "ETYPE": "TypeError",
    "EVALUE": "ValueError",
    "EINDEX": "IndexError",
    "EMEMORY": "MemoryError",
    "EGRAD": "SpoolError",
    "EDEVICE": "SpoolError",
    "EIO": "OSError",
    "EFORMAT": "ValueError",
    "EUNSUPPORTED": "NotImplementedError",
}
_TYPES = {
    "tensor": "Tensor",
    "tensors": "Sequence[Tensor]",
    "scalar": "float",
    "int": "int",
    "float": "float",
    "bool": "bool",
    "ints": "int | Sequence[int]",
    "dtype": "dtype",
    "choice": "str",
}

_EXTRAS = {  # annotated and not
    "out": ("out: Tensor | None = None", "out=None"),
    "generator": ("generator: Generator | None = None", "generator=None"),
    "device": ("device: _AnyDevice = None", "device=None"),
    "requires_grad": ("requires_grad: _bool = False", "requires_grad=False"),
}


def groups(ops, variant):
    """Ops by Python name, for those that have a variant, in table order."""
    found = {}
    for op in ops:
        for name in op.python_names if variant in op.variants else ():
            found.setdefault(name, []).append(op)
    return found


def stub_type(param):
    """The annotation in stubs, where dtypes and Tensor's attributes hide dtype, bool, int and float."""
    names = {
        "int": "_int",
        "ints": "_int | Sequence[_int]",
        "bool": "_bool",
        "float": "_float",
        "scalar": "_float",
        "dtype": "_AnyDType",
    }
    none = " | None" if param.optional and param.kind != "dtype" else ""
    return names.get(param.kind, _TYPES[param.kind]) + none


def python_type(param):
    """The type in documentation."""
    none = " | None" if param.optional else ""
    return _TYPES[param.kind] + none


def _default(param):
    if param.kind == "tensor" or not param.has_default or param.default is None:
        return "None"
    if param.kind == "dtype":
        return param.default
    return repr(tuple(param.default) if param.kind == "ints" else param.default)


def parameters(op, method=False, annotated=False, out=False):
    """The parameters as Python text; a method's first one is self."""
    parts, kwonly = [], False
    for i, param in enumerate(op.params):
        if method and i == 0:
            parts.append("self")
            continue
        if param.spread and not annotated:
            parts.append(f"*{param.name}")
            kwonly = True
            continue
        if param.kwonly and not kwonly:
            parts.append("*")
            kwonly = True
        note = f": {stub_type(param)}" if annotated else ""
        equals = " = " if annotated else "="
        parts.append(
            param.name + note + (f"{equals}{_default(param)}" if not param.required else "")
        )
    more = (["out"] if out else []) + op.python_extras
    if more:
        parts += ([] if kwonly else ["*"]) + [_EXTRAS[m][not annotated] for m in more]
    return ", ".join(parts)


def _merged(group, key):
    """A mapping key's entries over all overloads, first mention first."""
    merged = {}
    for op in [group[0].root or group[0], *group]:
        for name, text in op.keys.get(key, {}).items():
            merged.setdefault(name, text)
    return merged


def _section(title, items):
    lines = [title, "-" * len(title)]
    for head, text in items:
        lines.append(head)
        lines += textwrap.wrap(
            " ".join(str(text).split()), 88, initial_indent="    ", subsequent_indent="    "
        )
    return "\n".join(lines)


def docstring(group, name, kind):
    """NumPy-style documentation of a Python name; kind is function, method or inplace."""
    first, root = group[0], group[0].root or group[0]
    shown = parameters(
        first, method=kind != "function", out=kind == "function" and "out" in first.variants
    )
    if kind != "function":
        shown = shown.replace("self", "$self", 1)
    parts = [root.doc.strip()]
    if kind != "inplace" and name != first.python_name:
        parts = [f"Another name of {first.python_name}(): {_lower(root.doc.strip())}"]
    if kind == "inplace":
        parts = [f"In-place version of {first.base}(): {_lower(root.doc.strip())}"]
    if len(group) > 1:
        parts.append(
            "Forms: "
            + ", ".join(op.signature.split(" ->")[0].replace(op.name, name, 1) for op in group)
            + "."
        )
    args, params = _merged(group, "args"), {}
    for op in group:
        for param in op.params[0 if kind == "function" else 1 :]:
            params.setdefault(param.name, []).append(python_type(param))
    items = [
        (f"{p} : {' or '.join(dict.fromkeys(types))}", args.get(p, ""))
        for p, types in params.items()
    ]
    if items:
        parts.append(_section("Parameters", items))
    returns = next((op.keys["returns"] for op in [first, root] if "returns" in op.keys), "")
    result = "Tensor" if len(first.outputs) == 1 else "tuple of Tensor: " + ", ".join(first.outputs)
    parts.append(
        _section("Returns", [(result, "the tensor itself" if kind == "inplace" else returns)])
    )
    raises = _merged(group, "raises")
    if raises:
        parts.append(
            _section("Raises", [(_EXCEPTIONS[status], text) for status, text in raises.items()])
        )
    if "source" in root.keys:
        parts.append(_section("References", [(str(root.keys["source"]), "")]))
    if "example" in root.keys and kind == "function":
        parts.append("Examples\n--------\n" + str(root.keys["example"]).rstrip())
    return f"{name}({shown})\n--\n\n" + "\n\n".join(parts)


def _lower(text):
    return text[:1].lower() + text[1:] if len(text) > 1 and not text[1].isupper() else text


# ---- stubs --------------------------------------------------------------------------------------

_DUNDERS = {
    "add": ("__add__", "__radd__", "__iadd__"),
    "sub": ("__sub__", "__rsub__", "__isub__"),
    "mul": ("__mul__", "__rmul__", "__imul__"),
    "truediv": ("__truediv__", "__rtruediv__", "__itruediv__"),
    "pow": ("__pow__", "__rpow__", "__ipow__"),
    "floordiv": ("__floordiv__", "__rfloordiv__", "__ifloordiv__"),
    "mod": ("__mod__", "__rmod__", "__imod__"),
    "and": ("__and__", "__rand__", "__iand__"),
    "or": ("__or__", "__ror__", "__ior__"),
    "xor": ("__xor__", "__rxor__", "__ixor__"),
    "lshift": ("__lshift__", "__rlshift__", "__ilshift__"),
    "rshift": ("__rshift__", "__rrshift__", "__irshift__"),
    "matmul": ("__matmul__", "__rmatmul__", "__imatmul__"),
}


def _stub(name, group, kind):
    lines, indent = [], "" if kind == "function" else "    "
    for op in group:
        result = (
            "Tensor"
            if len(op.outputs) == 1
            else f"tuple[{', '.join(['Tensor'] * len(op.outputs))}]"
        )
        out = kind == "function" and "out" in op.variants
        forms = [parameters(op, kind != "function", annotated=True, out=out)]
        spread = next((p for p in op.params if p.spread), None)
        if spread:
            head = [
                ("self" if kind != "function" else f"{p.name}: {stub_type(p)}")
                if i == 0
                else f"{p.name}: {stub_type(p)}"
                for i, p in enumerate(op.params[: op.params.index(spread)])
            ]
            rest = [
                f"{p.name}: {stub_type(p)} = {_default(p)}"
                for p in op.params[op.params.index(spread) + 1 :]
            ]
            rest += [_EXTRAS[e][0] for e in op.python_extras]
            forms.append(", ".join([*head, f"*{spread.name}: int", *rest]))
        lines += [f"def {name}({form}) -> {result}: ..." for form in forms]
    if len(lines) > 1:
        lines = [part for line in lines for part in ("@overload", line)]
    return "\n".join(indent + line for line in lines)


def _operator_stubs(ops):
    bound, lines = {}, []
    for op in ops:
        if "operator" in op.keys:
            bound.setdefault(op.keys["operator"], []).append(op)
    for operator, group in bound.items():
        if operator in ("neg", "abs", "invert"):
            lines.append(f"    def __{operator}__(self) -> Tensor: ...")
            continue
        plain, reflected, inplace = _DUNDERS.get(operator, (f"__{operator}__", None, None))
        names = [plain]
        if reflected and operator_op(bound, operator, "st"):
            names.append(reflected)
        if inplace and any("inplace" in op.variants for op in group):
            names.append(inplace)
        ignore = "  # type: ignore[override]" if operator in ("eq", "ne") else ""
        kinds = (
            "Tensor | _float"
            if any(p.kind == "scalar" for op in group for p in op.params)
            else "Tensor"
        )
        lines += [f"    def {name}(self, other: {kinds}) -> Tensor: ...{ignore}" for name in names]
    return lines


def stubs(ops, template):
    """_C.pyi: the template with methods and functions filled in, but for names that it has itself."""
    methods = [(name, group, "method") for name, group in groups(ops, "method").items()]
    methods += [(f"{name}_", group, "inplace") for name, group in groups(ops, "inplace").items()]
    functions = [(name, group, "function") for name, group in groups(ops, "function").items()]
    in_class = [_stub(*item) for item in methods if f"\n    def {item[0]}(" not in template]
    in_module = [_stub(*item) for item in functions if f"\ndef {item[0]}(" not in template]
    text = template.replace("    #@METHODS@", "\n".join(in_class + _operator_stubs(ops)))
    text = text.replace("#@FUNCTIONS@", "\n".join(in_module))
    return text if text.endswith("\n") else text + "\n"


# ---- reference ----------------------------------------------------------------------------------


def reference(ops, accuracy):
    """ops.md: every op, by family, and how near its values are to the exact ones, by the rows of `accuracy`."""
    lines = [
        "# Ops",
        "",
        "Every op of Spool's table, by family. `C` names the function of `spool.h`; the derivative of a",
        "composite that has none of its own says `body`.",
        "",
    ]
    for family in dict.fromkeys(op.family for op in ops):
        lines += [
            f"## {family}",
            "",
            "| op | C | Python | vmap | derivative | ONNX |",
            "|---|---|---|---|---|---|",
        ]
        members = [op for op in ops if op.family == family]
        for op in members:
            cells = [
                f"`{op.name}`",
                f"`sp_{op.c_name}`",
                _python_forms(op),
                op.batch,
                _derivative(op),
                op.keys.get("onnx") or "`spool`",
            ]
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
        for op in members:
            lines += _reference_entry(op, accuracy.get(op.name))
    lines += _accuracy_table(accuracy)
    return "\n".join(lines).rstrip("\n") + "\n"


def _python_forms(op):
    name, forms = op.python_name, []
    if "function" in op.variants:
        forms.append(f"`spool.{name}`")
    if "method" in op.variants:
        forms.append(f"`Tensor.{name}`")
    if "inplace" in op.variants:
        forms.append(f"`Tensor.{name}_`")
    if "operator" in op.keys:
        forms.append(f"`{OPERATORS[op.keys['operator']]}`")
    forms += [f"`{synonym}`" for synonym in op.keys.get("also", [])]
    return " ".join(forms) or "-"


def _derivative(op):
    if op.vjp:
        return "formula"
    return "none" if not op.diff_inputs else "body"


def _accuracy_table(accuracy):
    if not accuracy:
        return []
    lines = [
        "## Accuracy",
        "",
        "Largest distance from the exact value (mpmath's, with 160 bits) in units in the last place, over arguments of all",
        "sizes and near where functions turn; and the bound that the tests hold.",
        "",
        "| op | float32 | float64 | bound |",
        "|---|---:|---:|---:|",
    ]
    rows = [
        (f"`{op}`", row["float32"], row["float64"], row["bound"]) for op, row in accuracy.items()
    ]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def undocumented(ops):
    """What entries leave unsaid: every argument, what comes back and what is raised, here or in the base's entry."""
    problems = []
    for op in ops:
        told = {**op.root.keys.get("args", {}), **op.keys.get("args", {})}
        missing = [f"args: '{p.name}'" for p in op.params if p.name not in told]
        if op.root is op:
            missing += [f"'{key}'" for key in ("returns", "raises") if key not in op.keys]
        if missing:
            problems.append(
                f"{op.where}: {op.name}: not documented: {', '.join(missing)} ('raises: {{}}' where it is nothing)"
            )
    return problems


def _reference_entry(op, accuracy):
    lines = [f"### {op.name}", "", f"    {op.signature}", ""]
    if op.root is not op:
        lines += [f"See `{op.root.name}`.", ""]
    else:
        lines += [op.doc, ""]
    lines += [
        f"- `{name}`: {' '.join(str(text).split())}"
        for name, text in op.keys.get("args", {}).items()
    ]
    if op.flag("complex"):
        lines.append("- takes complex numbers")
    if "returns" in op.keys:
        lines.append(f"- returns: {' '.join(str(op.keys['returns']).split())}")
    if op.root is op and not op.keys.get("raises"):
        lines.append("- raises nothing of its own")
    lines += [
        f"- {_EXCEPTIONS[s]} (`{s}`): {' '.join(str(text).split())}"
        for s, text in op.keys.get("raises", {}).items()
    ]
    if accuracy:
        lines.append(
            f"- accuracy: within {accuracy['float32']} units in the last place in float32, {accuracy['float64']} in float64"
        )
    if "source" in op.keys:
        lines.append(f"- source: {op.keys['source']}")
    for name, formula in op.vjp.items():
        lines.append(f"- gradient of `{name}`: `{' '.join(str(formula).split())}`")
    return lines + ([""] if lines[-1] else [])


# ---- samples ------------------------------------------------------------------------------------

_FLAGS = ("pointwise", "view", "may_view", "reduce", "checks", "random", "effect", "composite")


def samples(ops):
    """_samples.json: what the tests need to know about every op."""
    entries = []
    for op in ops:
        entries.append(
            {
                "name": op.name,
                "python": op.python_name,
                "also": op.python_names[1:],
                "variants": op.variants,
                "family": op.family,
                "batch": op.batch,
                "params": [p.name for p in op.params],
                "inputs": [p.name for p in op.inputs],
                "attrs": [p.name for p in op.attrs],
                "outputs": op.outputs,
                "differentiable": [
                    i
                    for i, p in enumerate(op.params)
                    if p.is_tensor and op.inputs.index(p) in op.diff_inputs
                ],
                "flags": [key for key in _FLAGS if op.flag(key)],
                "onnx": op.keys.get("onnx"),
                "operator": op.keys.get("operator"),
                "samples": op.samples,
                "complex": op.flag("complex"),
            }
        )
    return json.dumps({"ops": entries}, indent=1) + "\n"
