"""Sample argument lists of the op table, read into plain data for the tests: `(3, 4), dim=1`.

The result of one sample is {"text": ..., "args": [...], "kwargs": {...}}; a tensor argument is
{"tensor": "normal", "shape": [3, 4]} and so on, every other one a JSON value.
"""

from __future__ import annotations

import ast

_MAKERS = {
    "pos": "positive",
    "unit": "unit",
    "distinct": "distinct",
    "boolean": "boolean",
    "int64": "int64",
    "data": "data",
    "complex64": "complex64",
}


class SampleError(Exception):
    """A sample that does not fit its op's signature, with the reason."""


def parse_sample(op, text):
    """Reads one argument list for `op`."""
    if not isinstance(text, str):
        raise SampleError('must be a string, for example "(3, 4), dim=1"')
    try:
        call = ast.parse(f"f({text})", mode="eval").body
    except SyntaxError as error:
        raise SampleError(f"cannot be read: {error.msg}") from None
    positional = [p for p in op.params if not p.kwonly]
    if len(call.args) > len(positional):
        raise SampleError(f"{len(call.args)} positional arguments, the op takes {len(positional)}")
    given, args, kwargs = set(), [], {}
    for param, node in zip(positional, call.args):
        value = _value(param, node)
        if param.kind == "dtype" or kwargs:  # by name, where tests turn it into the library's dtype
            kwargs[param.name] = value
        else:
            args.append(value)
        given.add(param.name)
    by_name = {p.name: p for p in op.params}
    for item in call.keywords:
        if item.arg not in by_name or item.arg in given:
            raise SampleError(f"no parameter '{item.arg}', or given twice")
        kwargs[item.arg] = _value(by_name[item.arg], item.value)
        given.add(item.arg)
    missing = [p.name for p in op.params if p.required and p.name not in given]
    if missing:
        raise SampleError(f"{', '.join(missing)} missing")
    return {"text": text, "args": args, "kwargs": kwargs}


def _value(param, node):
    if param.kind == "tensors":
        if not isinstance(node, (ast.List, ast.Tuple)):
            raise SampleError(f"'{param.name}' must be a list of tensors")
        return [_tensor(param, item) for item in node.elts]
    if param.kind == "tensor":
        if isinstance(node, ast.Constant) and node.value is None:
            if not param.optional:
                raise SampleError(f"'{param.name}' cannot be None")
            return None
        return _tensor(param, node)
    value = _literal(param, node)
    allowed = (*param.choices, None) if param.optional else param.choices
    if param.kind == "choice" and value not in allowed:
        raise SampleError(f"'{param.name}' must be one of {', '.join(param.choices)}")
    return value


def _tensor(param, node):
    if not isinstance(node, ast.Call):
        return {"tensor": "normal", "shape": _shape(param, node)}
    maker = _MAKERS.get(getattr(node.func, "id", ""))
    if maker is None:
        raise SampleError(f"'{param.name}': unknown maker; known are {', '.join(_MAKERS)}")
    args = [_literal(param, item) for item in node.args]
    if maker == "data":
        if len(args) not in (1, 2):
            raise SampleError(f"'{param.name}': data(values, dtype) takes 1 or 2 arguments")
        return {
            "tensor": "data",
            "values": args[0],
            "dtype": args[1] if len(args) == 2 else "float32",
        }
    if len(args) != (3 if maker == "int64" else 1):
        raise SampleError(
            f"'{param.name}': {node.func.id} takes {'(shape, low, high)' if maker == 'int64' else '(shape)'}"
        )
    spec = {"tensor": maker, "shape": _shape(param, node.args[0])}
    if maker == "int64":
        spec["low"], spec["high"] = args[1], args[2]
    return spec


def _shape(param, node):
    shape = _literal(param, node)
    if not isinstance(shape, (tuple, list)) or not all(
        isinstance(n, int) and n >= 0 for n in shape
    ):
        raise SampleError(
            f"'{param.name}' must be a shape such as (3, 4), or a maker such as pos((3, 4))"
        )
    return list(shape)


def _literal(param, node):
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise SampleError(f"'{param.name}': {ast.unparse(node)} is no literal") from None
