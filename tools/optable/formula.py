"""Compiles derivative formulas (Python expressions over ops) to C statements.

A formula becomes a tree of values. Tensor-valued calls become statements that fill a temporary, each
distinct one once; everything else stays a C expression. Each statement knows which results need it
(`mask`) and under which condition its operands exist (`cond`, for gradients or tangents that may be
zero).

Invariants
1. Statements stand in an order in which operands come before uses.
2. A temporary owns its tensor; names (x, out, gy, tx) borrow.
3. `reads` collects the inputs and outputs whose values, not only their geometry, a formula uses.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field, replace

from optable.capi import DTYPE_CONSTANTS, c_constant
from optable.ctext import wrap_list

_BINARY = {
    ast.Add: "add",
    ast.Sub: "sub",
    ast.Mult: "mul",
    ast.Div: "truediv",
    ast.Pow: "pow",
    ast.MatMult: "matmul",
}
_COMPARE = {ast.Eq: "eq", ast.NotEq: "ne", ast.Lt: "lt", ast.LtE: "le", ast.Gt: "gt", ast.GtE: "ge"}
_MIRRORED = {
    "add": "add",
    "mul": "mul",
    "and": "and",
    "or": "or",
    "xor": "xor",
    "eq": "eq",
    "ne": "ne",
    "lt": "gt",
    "gt": "lt",
    "le": "ge",
    "ge": "le",
}
_NUMBERS = ("scalar", "int", "float", "bool")


class FormulaError(Exception):
    """A formula that has no meaning, with the reason."""


@dataclass(frozen=True)
class Value:
    """What an expression stands for in C."""

    kind: str  # tensor, scalar, int, float, bool, ints, dtype, attr, meta, none, text
    c: str
    count: str = ""  # ints: C expression of their number
    attr: object = (
        None  # attr: the Param behind it; ints: C expression of the attribute that holds them
    )
    temp: int = -1  # the temporary that it stands in
    symbol: str = ""  # gy1, tx: a tensor that may be zero
    literal: object = None  # numbers that are literals
    origin: tuple = ()  # ("in", 0), ("out", 0): for .shape without reading the value


@dataclass
class Statement:
    """One call that fills a temporary."""

    call: str
    args: list[str]
    temp: int
    deps: set[int]
    cond: str = ""
    mask: int = 0
    target: str = ""  # what it fills when that is no temporary (temp < 0)
    options: tuple = ()  # type and initialisers of the options struct that it passes
    part: bool = False  # one of a call's first results: the call's own statement fills it


@dataclass
class Scope:
    """What names mean: filled by the emitter of vjp or jvp."""

    tensors: dict[str, Value]
    attrs: dict[str, Value]
    meta: dict[tuple, str]  # origin -> C expression of its sp_meta, or a function making one
    on_meta: object = None  # called with an origin whose meta is used
    on_name: object = None  # called with the name of a tensor whose value is used


@dataclass
class Compiler:
    """Compiles the formulas of one function."""

    table: dict[str, list]  # base name -> ops
    operators: dict[str, list]
    scope: Scope
    cond: str = ""
    statements: list[Statement] = field(default_factory=list)
    known: dict[tuple, int] = field(default_factory=dict)
    reads: set[tuple] = field(default_factory=set)
    symbols: set[str] = field(default_factory=set)
    scalar_helpers: set[str] = field(default_factory=set)
    result: int | None = None  # which result the call under way is asked for

    # ---- entry ----------------------------------------------------------------------------------

    def compile(self, node):
        """The Value of an expression that must be a tensor."""
        value = self._expr(node)
        if value.kind != "tensor":
            raise FormulaError(f"'{ast.unparse(node)}' is no tensor")
        return self._read(value)

    def closure(self, temp):
        """The temporaries that one depends on, itself included."""
        if temp < 0:
            return set()
        found, todo = set(), [temp]
        by_temp = {s.temp: s for s in self.statements}
        while todo:
            current = todo.pop()
            if current not in found:
                found.add(current)
                todo += by_temp[current].deps
        return found

    def emit(self, call, args, deps=(), options=(), count=1, index=0):
        """Adds (or finds) the statement that fills temporaries by call(args..., &options, &temp...).

        A call with `count` results stands as the statement of its last one, followed by those of the others, which
        fill nothing themselves. The Value is result number `index`.
        """
        key = (call, tuple(args), options, self.cond)
        if key not in self.known:
            temp, deps = len(self.statements), {d for d in deps if d >= 0}
            others = [temp + 1 + i for i in range(count - 1)]
            args = [*args, f"&o{temp}"] if options else list(args)
            args += [f"&t{other}" for other in others]
            self.statements.append(Statement(call, args, temp, deps, self.cond, options=options))
            for other in others:
                self.statements.append(Statement("", [], other, {temp}, self.cond, part=True))
            self.known[key] = temp
        temp = self.known[key] if index == count - 1 else self.known[key] + 1 + index
        return Value("tensor", f"t{temp}", temp=temp)

    # ---- expressions ----------------------------------------------------------------------------

    def _expr(self, node):
        method = getattr(self, "_" + type(node).__name__.lower(), None)
        if method is None:
            raise FormulaError(
                f"'{ast.unparse(node)}': {type(node).__name__} is not part of the formula language"
            )
        return method(node)

    def _read(self, value):
        """Notes that a tensor's value is used."""
        if value.origin and value.kind == "tensor":
            self.reads.add(value.origin)
        if value.symbol:
            self.symbols.add(value.symbol)
        if value.kind == "tensor" and value.temp < 0 and self.scope.on_name:
            self.scope.on_name(value)
        return value

    def _name(self, node):
        name = node.id
        if name in self.scope.tensors:
            return self.scope.tensors[name]
        if name in self.scope.attrs:
            return self.scope.attrs[name]
        if name in DTYPE_CONSTANTS:
            return Value("dtype", DTYPE_CONSTANTS[name])
        known = ", ".join([*self.scope.tensors, *self.scope.attrs])
        raise FormulaError(f"unknown name '{name}'; known are {known}")

    def _constant(self, node):
        value = node.value
        if value is None:
            return Value("none", "NULL")
        if isinstance(value, bool):
            return Value("bool", str(value).lower(), literal=value)
        if isinstance(value, int):
            return Value("int", str(value), literal=value)
        if isinstance(value, float):
            return Value("float", repr(value), literal=value)
        if isinstance(value, str):
            return Value("text", value)
        raise FormulaError(f"literal {value!r} is not part of the formula language")

    def _list(self, node):
        values = [self._expr(item) for item in node.elts]
        if not all(v.kind == "int" for v in values):
            raise FormulaError(f"'{ast.unparse(node)}': a list holds ints")
        items = ", ".join(v.c for v in values)
        c = f"(const int64_t[]){{{items}}}" if values else "(const int64_t[]){0}"
        return Value("ints", c, count=str(len(values)))

    _tuple = _list

    def _attribute(self, node):
        base = self._expr(node.value)
        if base.kind != "tensor":
            raise FormulaError(f"'{ast.unparse(node)}': only tensors have .{node.attr}")
        if node.attr == "meta":
            return Value("meta", self._meta(base, node))
        get = self._geometry(base)
        if node.attr == "shape":
            return Value("ints", get("shape"), count=get("rank"))
        if node.attr == "dtype":
            return Value("dtype", f"(sp_dtype){get('dtype')}")
        if node.attr == "ndim":
            return Value("int", f"(int64_t){get('rank')}")
        if node.attr == "numel":
            return Value("int", get("numel"))
        raise FormulaError(
            f"'{ast.unparse(node)}': tensors have shape, dtype, ndim, numel, size() and meta here"
        )

    def _meta(self, base, node):
        if base.origin not in self.scope.meta:
            raise FormulaError(f"'{ast.unparse(node)}': only inputs and outputs have .meta")
        if self.scope.on_meta:
            self.scope.on_meta(base.origin)
        return self.scope.meta[base.origin]

    def _geometry(self, base):
        """Access to a field of a tensor's geometry, without reading its value where that is possible."""
        if base.origin in self.scope.meta and not self.scope.on_meta:
            meta = self.scope.meta[base.origin].lstrip("&")
            return lambda name: f"{meta}.{name}"
        self._read(replace(base, origin=()))
        return lambda name: f"{base.c}->{name}"

    def _unaryop(self, node):
        value = self._expr(node.operand)
        if isinstance(node.op, ast.UAdd):
            return value
        if not isinstance(node.op, ast.USub):
            raise FormulaError(
                f"'{ast.unparse(node)}': operator is not part of the formula language"
            )
        if value.kind == "tensor":
            return self._call_op(self._operator("neg", "t", node), [value], {}, node)
        if value.literal is not None:
            return replace(value, c=f"-{value.c}", literal=-value.literal)
        return self._scalar_arithmetic("neg", [value], node)

    def _binop(self, node):
        name = _BINARY.get(type(node.op))
        if name is None:
            raise FormulaError(
                f"'{ast.unparse(node)}': operator is not part of the formula language"
            )
        return self._operate(name, self._expr(node.left), self._expr(node.right), node)

    def _compare(self, node):
        if len(node.ops) != 1 or type(node.ops[0]) not in _COMPARE:
            raise FormulaError(f"'{ast.unparse(node)}': one comparison at a time")
        return self._operate(
            _COMPARE[type(node.ops[0])],
            self._expr(node.left),
            self._expr(node.comparators[0]),
            node,
        )

    def _operate(self, name, left, right, node):
        if left.kind == right.kind == "tensor":
            return self._call_op(self._operator(name, "tt", node), [left, right], {}, node)
        if left.kind == "tensor" and right.kind in _NUMBERS:
            return self._call_op(self._operator(name, "ts", node), [left, right], {}, node)
        if left.kind in _NUMBERS and right.kind == "tensor":
            op = self._operator(name, "st", node)
            return self._call_op(op, [right, left], {}, node)
        if left.kind in _NUMBERS and right.kind in _NUMBERS:
            return self._scalar_arithmetic(name, [left, right], node)
        raise FormulaError(f"'{ast.unparse(node)}': {left.kind} and {right.kind} have no {name}")

    def _operator(self, name, kinds, node):
        op = operator_op(self.operators, name, kinds)
        if op is None:
            raise FormulaError(
                f"'{ast.unparse(node)}': no op of the table is bound to operator '{name}' for these operands"
            )
        return op

    def _scalar_arithmetic(self, name, values, node):
        if name not in ("add", "sub", "mul", "truediv", "neg"):
            raise FormulaError(
                f"'{ast.unparse(node)}': no {name} between numbers here; use a helper"
            )
        if all(v.kind == "int" for v in values) and name in ("add", "sub", "mul"):
            sign = {"add": "+", "sub": "-", "mul": "*"}[name]
            return Value("int", f"({values[0].c} {sign} {values[1].c})")
        self.scalar_helpers.add(name)
        return Value("scalar", f"scalar_{name}({', '.join(as_scalar(v) for v in values)})")

    # ---- calls ----------------------------------------------------------------------------------

    def _call(self, node):
        if isinstance(node.func, ast.Attribute):
            return self._size(node)
        name = getattr(node.func, "id", "")
        if any(k.arg is None for k in node.keywords) or any(
            isinstance(a, ast.Starred) for a in node.args
        ):
            raise FormulaError(
                f"'{ast.unparse(node)}': * and ** are not part of the formula language"
            )
        result, self.result = self.result, None
        args = [self._expr(a) for a in node.args]
        kwargs = {k.arg: self._expr(k.value) for k in node.keywords}
        self.result = result
        if name == "op":
            return self._named_op(args, kwargs, node)
        if name == "shape" and len(args) == 1:
            return self._attribute(ast.Attribute(node.args[0], "shape"))
        if name in self.table:
            return self._call_op(self._overload(name, args, kwargs, node), args, kwargs, node)
        if kwargs or self.result is not None:
            raise FormulaError(
                f"'{ast.unparse(node)}': no op is called '{name}', and helpers take positional arguments only, for one result"
            )
        return self._helper(name, args)

    def _subscript(self, node):
        """call(...)[k]: one result of an op with several."""
        index, call = getattr(node.slice, "value", None), node.value
        if not isinstance(call, ast.Call) or not isinstance(index, int):
            raise FormulaError(
                f"'{ast.unparse(node)}': [k] picks a result of an op with several, by its number"
            )
        self.result = index
        return self._call(call)

    def _size(self, node):
        if (
            node.func.attr != "size"
            or len(node.args) != 1
            or not isinstance(node.args[0], ast.Constant)
        ):
            raise FormulaError(f"'{ast.unparse(node)}': the only method is x.size(<number>)")
        base, i = self._expr(node.func.value), node.args[0].value
        if base.kind != "tensor" or not isinstance(i, int) or i < 0:
            raise FormulaError(
                f"'{ast.unparse(node)}': x.size(i) wants a tensor and an index counted from the front"
            )
        return Value("int", f"{self._geometry(base)('shape')}[{i}]")

    def _named_op(self, args, kwargs, node):
        name = args[0].c if args and args[0].kind == "text" else ""
        for op in self.table.get(name.split(".")[0], ()):
            if op.name == name:
                return self._call_op(op, args[1:], kwargs, node)
        raise FormulaError(f"'{ast.unparse(node)}': op() wants the name of a table entry first")

    def _overload(self, name, args, kwargs, node):
        fitting = [
            op
            for op in self.table[name]
            if op.overload != "rscalar" and match(op, args, kwargs) is not None
        ]
        if not fitting:
            kinds = ", ".join([v.kind for v in args] + [f"{k}={v.kind}" for k, v in kwargs.items()])
            known = "; ".join(op.signature for op in self.table[name])
            raise FormulaError(
                f"'{ast.unparse(node)}': no overload takes ({kinds}); there are: {known}"
            )
        return fitting[0]

    def _call_op(self, op, args, kwargs, node):
        given = match(op, args, kwargs)
        if given is None:
            raise FormulaError(f"'{ast.unparse(node)}': arguments do not fit {op.signature}")
        count, index, self.result = len(op.outputs), self.result, None
        if (count > 1 and index is None) or (index or 0) not in range(count):
            raise FormulaError(
                f"'{ast.unparse(node)}': say which of the {count} results is meant: {op.name}(...)[0]"
            )
        c_args, deps = [], []
        for param in op.params:
            if param not in op.options:
                value = given.get(param.name, Value("none", "NULL"))
                c_args += _direct(param, self._read(value))
                deps.append(value.temp)
        fields = tuple(f for p in op.options if p.name in given for f in _option(p, given[p.name]))
        if op.options and not fields:
            c_args.append("NULL")
        options = (f"sp_{op.c_name}_opt", *fields) if fields else ()
        return self.emit(f"sp_{op.c_name}", c_args, deps, options, count, index or 0)

    def _helper(self, name, args):
        c_args, deps = [], []
        for value in args:
            value = self._read(value)
            if value.kind == "ints":
                c_args += [value.attr] if value.attr else [value.c, value.count]
            else:
                c_args.append(value.c)
            deps.append(value.temp)
        return self.emit(f"sp__rule_{name}", c_args, deps)


def operator_op(operators, name, kinds):
    """The op behind a Python operator for operand kinds tt, ts, st (scalar on the left) or t, or None.

    For st the op takes the tensor first: an `rscalar` overload, or the scalar overload of the
    mirrored operator.
    """
    if kinds == "st":
        for op in operators.get(name, ()):
            if op.overload == "rscalar":
                return op
        return operator_op(operators, _MIRRORED[name], "ts") if name in _MIRRORED else None
    wanted = {"tt": ["tensor", "tensor"], "ts": ["tensor", "scalar"], "t": ["tensor"]}[kinds]
    for op in operators.get(name, ()):
        if op.overload != "rscalar" and [p.kind for p in op.params if p.required] == wanted:
            return op
    return None


def as_scalar(value):
    """C expression of type sp_scalar for a number."""
    if value.kind == "scalar":
        return value.c
    return f"SP_FLOAT({value.c})" if value.kind == "float" else f"SP_INT({value.c})"


def match(op, args, kwargs):
    """Arguments by parameter name if they fit the op's signature, else None."""
    positional = [p for p in op.params if not p.kwonly]
    if len(args) > len(positional):
        return None
    given = dict(zip([p.name for p in positional], args))
    by_name = {p.name: p for p in op.params}
    for name, value in kwargs.items():
        if name in given or name not in by_name:
            return None
        given[name] = value
    if any(p.required and p.name not in given for p in op.params):
        return None
    return given if all(_fits(by_name[name], value) for name, value in given.items()) else None


def _fits(param, value):
    if value.kind == "none":
        return param.optional
    if value.kind == "attr":
        return param.optional and value.attr.kind == param.kind
    kinds = {
        "tensor": ("tensor",),
        "scalar": _NUMBERS,
        "int": ("int",),
        "float": ("int", "float"),
        "bool": ("bool",),
        "ints": ("ints", "int"),
        "dtype": ("dtype",),
        "choice": ("text", "int"),
    }
    if param.kind == "choice" and value.kind == "text":
        return value.c in param.choices
    return value.kind in kinds.get(param.kind, ())


def _plain(param, value):
    """C expression for a number-like parameter."""
    if param.kind == "scalar":
        return as_scalar(value)
    if param.kind == "choice" and value.kind == "text":
        return c_constant(param, value.c)
    return value.c


def _ints(value):
    """Pointer and count for an int list parameter."""
    if value.kind == "none":
        return "NULL", "0"
    if value.kind == "attr":
        return f"sp__attr_to_ints({value.c})", f"{value.c[1:]}.n"
    if value.kind == "int":
        return f"&(const int64_t){{{value.c}}}", "1"
    return value.c, value.count


def _direct(param, value):
    if param.kind == "ints":
        return list(_ints(value))
    return [value.c if param.kind == "tensor" or value.kind == "none" else _plain(param, value)]


def _option(param, value):
    """Designated initialisers of an options struct for one given parameter."""
    if value.kind == "none":
        return []
    if param.kind == "ints":
        pointer, count = _ints(value)
        return [f".{param.name} = {pointer}", f".n_{param.name} = {count}"]
    if value.kind == "attr":
        field_of = {"float": "v.f"}.get(param.kind, "v.i")
        c = (
            f"sp__attr_to_scalar({value.c})"
            if param.kind == "scalar"
            else f"{value.c[1:]}.{field_of}"
        )
        if param.kind == "dtype":
            c = f"(sp_dtype){c}"
        return [f".has_{param.name} = !{value.c[1:]}.absent", f".{param.name} = {c}"]
    has = [] if param.zero_is_default else [f".has_{param.name} = true"]
    return [*has, f".{param.name} = {_plain(param, value)}"]


def terms(node):
    """The terms of a sum: (negated, expression) pairs between top-level + and -."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub)):
        right = terms(node.right)
        if isinstance(node.op, ast.Sub):
            right = [(not negated, term) for negated, term in right]
        return terms(node.left) + right
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return [(not negated, term) for negated, term in terms(node.operand)]
    return [(False, node)]


def names_in(node):
    """All names that occur in an expression."""
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


def parse(text):
    """The expression that a formula's text holds."""
    try:
        return ast.parse(str(text).strip(), mode="eval").body
    except SyntaxError as error:
        raise FormulaError(f"cannot be read: {error.msg}") from None


def statement_text(statement, target):
    """The C text of a statement that fills `target`; none for part of another's."""
    if statement.part:
        return ""
    call = wrap_list(f"SP_TRY({statement.call}(", [*statement.args, target], "));")
    if not statement.options:
        return call
    struct, *fields = statement.options
    name = next(a[1:] for a in statement.args if a[:2] == "&o" and a[2:].isdigit())
    return (
        wrap_list(f"const {struct} {name} = {{", [f".size = sizeof({name})", *fields], "};")
        + "\n"
        + call
    )
