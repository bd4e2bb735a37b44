"""Signatures of the op table: `sum(Tensor x, int[]? dim=None, *, dtype? dtype=None) -> Tensor`."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

DTYPES = (
    "bool",
    "uint8",
    "int8",
    "int16",
    "int32",
    "int64",
    "float16",
    "bfloat16",
    "float32",
    "float64",
    "complex64",
    "complex128",
)

_TYPES = {
    "Tensor": "tensor",
    "Tensor[]": "tensors",
    "Scalar": "scalar",
    "int": "int",
    "float": "float",
    "bool": "bool",
    "int[]": "ints",
    "int[*]": "ints",
    "dtype": "dtype",
}
_ATTR_KINDS = {
    "scalar": "SP_ATTR_SCALAR",
    "int": "SP_ATTR_INT",
    "float": "SP_ATTR_FLOAT",
    "bool": "SP_ATTR_BOOL",
    "ints": "SP_ATTR_INTS",
    "dtype": "SP_ATTR_DTYPE",
    "choice": "SP_ATTR_INT",
}
_DEFAULTS = {
    "scalar": (int, float, bool),
    "int": int,
    "float": (int, float),
    "bool": bool,
    "ints": (list, tuple, int),
    "dtype": str,
    "choice": str,
}


class SignatureError(Exception):
    """A signature that cannot be read, with the reason."""


@dataclass
class Param:
    """One parameter."""

    name: str
    kind: str  # tensor, tensors, scalar, int, float, bool, ints, dtype, choice
    type_text: str
    optional: bool = False  # None is admitted
    spread: bool = False  # ints that may come as separate arguments
    kwonly: bool = False
    has_default: bool = False
    default: object = None
    choices: tuple = ()

    @property
    def is_tensor(self):
        return self.kind in ("tensor", "tensors")

    @property
    def attr_kind(self):
        return _ATTR_KINDS[self.kind]

    @property
    def required(self):
        """Whether a call must give it."""
        return not self.has_default and not (self.kind == "tensor" and self.optional)

    @property
    def zero_is_default(self):
        """Whether the zero of its C type, found in an options struct, can stand for the default."""
        if self.kind == "ints":
            return True  # NULL
        if self.optional or self.kind == "scalar":
            return False
        if self.kind == "choice":
            return self.choices.index(self.default) == 0
        if self.kind == "dtype":
            return self.default == DTYPES[0]
        return not self.default


def parse_signature(text):
    """Takes a signature apart.

    Returns
    -------
    tuple
        The name with its overload, the list of Param, the list of output names.
    """
    match = re.fullmatch(r"\s*([a-z]\w*(?:\.\w+)?)\s*\((.*)\)\s*->\s*(.+?)\s*", text, re.S)
    if not match:
        raise SignatureError(
            f"cannot read signature {text!r}: it looks like name(Tensor x, int dim=0) -> Tensor"
        )
    name, inner, result = match.groups()
    params, kwonly = [], False
    for part in _split(inner):
        if part == "*":
            kwonly = True
            continue
        param = _parse_param(part)
        param.kwonly = kwonly
        if param.required and not kwonly and any(not p.required for p in params if not p.kwonly):
            raise SignatureError(f"'{param.name}' without a default follows one that has a default")
        params.append(param)
    return name, params, _parse_result(result)


def _split(text):
    """Splits at commas outside brackets."""
    parts, depth, current = [], 0, ""
    for char in text:
        if char == "," and depth == 0:
            parts.append(current.strip())
            current = ""
            continue
        depth += (char in "([{") - (char in ")]}")
        current += char
    if current.strip():
        parts.append(current.strip())
    return parts


def _parse_param(text):
    match = re.fullmatch(r"([A-Za-z][\w|]*(?:\[\*?\])?)(\?)?\s+([a-z_]\w*)\s*(?:=\s*(.+))?", text)
    if not match:
        raise SignatureError(f"cannot read parameter {text!r}: it looks like 'int[]? dim=None'")
    type_text, optional, name, default = match.groups()
    choices = tuple(type_text.split("|")) if "|" in type_text else ()
    kind = "choice" if choices else _TYPES.get(type_text)
    if kind is None:
        raise SignatureError(f"unknown type '{type_text}'; known are {', '.join(_TYPES)} and a|b|c")
    if optional and kind == "tensors":
        raise SignatureError(f"'{name}': {type_text} cannot be optional")
    param = Param(
        name,
        kind,
        type_text + (optional or ""),
        bool(optional),
        type_text == "int[*]",
        choices=choices,
    )
    if default is not None:
        _parse_default(param, default)
    return param


def _parse_default(param, text):
    if param.kind == "dtype" and text in DTYPES:
        text = repr(text)
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        raise SignatureError(f"'{param.name}': cannot read default {text!r}") from None
    if param.is_tensor:
        if value is not None or not param.optional:
            raise SignatureError(f"'{param.name}': a tensor can only default to None, as Tensor?")
        return  # an optional tensor may always be left out
    if value is None:
        if not param.optional:
            raise SignatureError(f"'{param.name}': default None needs the type {param.type_text}?")
    elif not isinstance(value, _DEFAULTS[param.kind]) or (
        isinstance(value, bool) and param.kind not in ("bool", "scalar")
    ):
        raise SignatureError(f"'{param.name}': default {text} is no {param.type_text}")
    if param.kind == "choice" and value not in param.choices:
        raise SignatureError(
            f"'{param.name}': default {text} is none of {', '.join(param.choices)}"
        )
    if param.kind == "dtype" and value is not None and value not in DTYPES:
        raise SignatureError(f"'{param.name}': default {text} is no dtype")
    if param.kind == "ints" and isinstance(value, int):
        value = [value]
    param.has_default, param.default = True, value


def _parse_result(text):
    if text == "Tensor":
        return ["out"]
    match = re.fullmatch(r"\((.*)\)", text)
    outputs = []
    for part in _split(match.group(1)) if match else ():
        named = re.fullmatch(r"Tensor\s+([a-z_]\w*)", part)
        if not named:
            break
        outputs.append(named.group(1))
    else:
        if len(outputs) > 1 and len(set(outputs)) == len(outputs):
            return outputs
    raise SignatureError(
        f"cannot read result {text!r}: it is 'Tensor' or '(Tensor values, Tensor indices)'"
    )
